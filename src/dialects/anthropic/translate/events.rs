//! The events of an Anthropic stream (docs/contract/translation.md#8.3). Each function appends one
//! event with its blank line.

use super::error::write_error;
use super::outcome::Usage;
use crate::json::{self, write_number};

/// `message_start`.
pub(super) fn message_start(id: &str, model: &str, usage: Usage, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":",
    );
    json::write_string(id, out);
    out.extend_from_slice(br#","type":"message","role":"assistant","model":"#);
    json::write_string(model, out);
    out.extend_from_slice(br#","content":[],"stop_reason":null,"stop_sequence":null,"#);
    usage.write(out);
    out.extend_from_slice(b"}}\n\n");
}

/// `content_block_start` of a block other than a tool's.
pub(super) fn prose_start(index: u64, prose: ProseKind, out: &mut Vec<u8>) {
    block_start(index, out);
    out.extend_from_slice(match prose {
        ProseKind::Text => br#"{"type":"text","text":""}"#.as_slice(),
        ProseKind::Thinking => br#"{"type":"thinking","thinking":"","signature":""}"#,
    });
    out.extend_from_slice(b"}\n\n");
}

/// `content_block_start` of a tool call. `id` and `name` are insides of JSON strings.
pub(super) fn tool_start(index: u64, id: &[u8], name: &[u8], out: &mut Vec<u8>) {
    block_start(index, out);
    out.extend_from_slice(br#"{"type":"tool_use","id":""#);
    out.extend_from_slice(id);
    out.extend_from_slice(br#"","name":""#);
    out.extend_from_slice(name);
    out.extend_from_slice(b"\",\"input\":{}}}\n\n");
}

fn block_start(index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
    );
    write_number(index, out);
    out.extend_from_slice(br#","content_block":"#);
}

/// The two kinds of blocks that hold prose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProseKind {
    Text,
    Thinking,
}

/// `content_block_delta` with a piece of text or thinking, which `write` appends as the inside of
/// a JSON string.
pub(super) fn prose_delta(
    index: u64,
    prose: ProseKind,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    delta(index, out);
    out.extend_from_slice(match prose {
        ProseKind::Text => br#"{"type":"text_delta","text":""#.as_slice(),
        ProseKind::Thinking => br#"{"type":"thinking_delta","thinking":""#,
    });
    write(out);
    out.extend_from_slice(b"\"}}\n\n");
}

/// `content_block_delta` with a piece of a tool's arguments, the inside of a JSON string.
pub(super) fn arguments_delta(index: u64, piece: &[u8], out: &mut Vec<u8>) {
    delta(index, out);
    out.extend_from_slice(br#"{"type":"input_json_delta","partial_json":""#);
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\"}}\n\n");
}

fn delta(index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
    );
    write_number(index, out);
    out.extend_from_slice(br#","delta":"#);
}

/// `content_block_stop`.
pub(super) fn block_stop(index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
    );
    write_number(index, out);
    out.extend_from_slice(b"}\n\n");
}

/// `message_delta` and `message_stop`; `write_ending` appends the members of the delta.
pub(super) fn message_end(
    usage: Usage,
    out: &mut Vec<u8>,
    write_ending: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
    write_ending(out);
    out.extend_from_slice(b"},");
    usage.write(out);
    out.extend_from_slice(b"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/// `ping`.
pub(super) fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

/// `error`.
pub(super) fn error(kind: &str, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: error\ndata: {\"type\":\"error\",\"error\":");
    write_error(kind, message, out);
    out.extend_from_slice(b"}\n\n");
}
