//! Passthrough: what is looked at in a response that is not changed
//! (docs/contract/translation.md#5, docs/contract/translation.md#6).

use super::events;
use super::stream::write_ending;
use crate::dialects::KEEP_ALIVE_COMMENT;
use crate::dialects::chat::stream::End;
use crate::dialects::conversation::NativeStream;
use crate::json::{self, JsonValue};

/// Whether a native endpoint's response means that it does not know the route, so that the request
/// goes to the same endpoint again, translated: a status of 404, 405 or 501 with a body that is
/// not an Anthropic error.
pub fn is_not_spoken_here(status: u16, body: &[u8]) -> bool {
    let is_anthropic = || {
        let kind = json::parse(body).and_then(|body| body.field("type"));
        kind.and_then(JsonValue::string)
            .is_some_and(|kind| kind.is("error"))
    };
    matches!(status, 404 | 405 | 501) && !is_anthropic()
}

/// The name of the event that begins a message.
const FIRST_EVENT: &[u8] = b"event: message_start";

/// The event that ends every complete stream.
const LAST_EVENT: &[u8] = b"event: message_stop";

/// Bytes of a stream's end that are kept: room for the last event in any spelling in use.
const TAIL_BYTES: usize = 128;

/// Follows a native stream, to append an error event if it breaks off. It reads the last bytes of
/// each piece and changes nothing.
#[derive(Debug, Clone)]
pub struct NativeTail {
    bytes: [u8; TAIL_BYTES],
    len: usize,
    /// `message_start` was relayed.
    started: bool,
}

impl Default for NativeTail {
    fn default() -> Self {
        Self {
            bytes: [0; TAIL_BYTES],
            len: 0,
            started: false,
        }
    }
}

impl NativeTail {
    /// Records bytes that were relayed.
    pub fn push(&mut self, input: &[u8]) {
        let whole = input;
        let input = &input[input.len().saturating_sub(TAIL_BYTES)..];
        let kept = self.len.min(TAIL_BYTES - input.len());
        self.bytes.copy_within(self.len - kept..self.len, 0);
        self.len = kept + input.len();
        self.bytes[kept..self.len].copy_from_slice(input);
        if !self.started {
            let is_in = |text: &[u8]| memchr::memmem::find(text, FIRST_EVENT).is_some();
            self.started = is_in(whole) || is_in(self.tail());
        }
    }

    /// Appends a sign of life, unless the last byte is inside of an event or the message is
    /// complete: `ping` in a message, a comment before it (docs/contract/surface.md#8.4).
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        let is_border = self.len == 0 || ends_event(self.tail());
        if !is_border || self.is_complete() {
            return;
        }
        if self.started {
            events::ping(out);
        } else {
            out.extend_from_slice(KEEP_ALIVE_COMMENT);
        }
    }

    /// Whether the message was complete: nothing is missing, however the connection ended.
    pub fn is_complete(&self) -> bool {
        // A line feed cannot be inside of the JSON of another event.
        let tail = self.tail();
        let last = memchr::memmem::rfind(tail, LAST_EVENT).map(|at| tail.split_at(at));
        ends_event(tail)
            && last.is_some_and(|(before, event)| {
                before.ends_with(b"\n") && !has_event_end(event.trim_ascii_end())
            })
    }

    /// Appends what tells the client that the stream broke off: an error event, never a
    /// `message_stop`; nothing if the message was complete.
    ///
    /// In the middle of an event there is no way to take back its beginning. There the new lines
    /// rename it: it becomes the error event, so that a client raises an error instead of failing
    /// to read half a JSON text.
    pub fn broken(&self, how: End, out: &mut Vec<u8>) {
        if self.is_complete() {
            return;
        }
        if self.len > 0 && !ends_event(self.tail()) {
            out.push(b'\n');
        }
        write_ending(how, out);
    }

    fn tail(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl NativeStream for NativeTail {
    fn push(&mut self, payload: &[u8]) {
        Self::push(self, payload);
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        Self::keep_alive(self, out);
    }

    fn broken(&self, how: End, out: &mut Vec<u8>) {
        Self::broken(self, how, out);
    }
}

const EVENT_ENDS: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];

fn ends_event(tail: &[u8]) -> bool {
    EVENT_ENDS.iter().any(|end| tail.ends_with(end))
}

fn has_event_end(event: &[u8]) -> bool {
    EVENT_ENDS
        .iter()
        .any(|end| memchr::memmem::find(event, end).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_spoken_here() {
        let anthropic = r#"{"type":"error","error":{"type":"not_found_error","message":"m"}}"#;
        for (status, body, expected) in [
            (404, "404 page not found", true),
            (405, r#"{"detail":"Method Not Allowed"}"#, true),
            (501, "", true),
            (404, r#"{"error":{"type":"error"}}"#, true),
            (404, anthropic, false),
            (405, anthropic, false),
            (400, "bad", false),
            (500, "", false),
            (200, "{}", false),
        ] {
            assert_eq!(
                is_not_spoken_here(status, body.as_bytes()),
                expected,
                "{status} {body}"
            );
        }
    }

    fn broken(pieces: &[&str], how: End) -> String {
        let mut tail = NativeTail::default();
        pieces.iter().for_each(|piece| tail.push(piece.as_bytes()));
        let mut out = Vec::new();
        tail.broken(how, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_follows_a_broken_stream() {
        let start = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let error = concat!(
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",",
            "\"message\":\"the endpoint's response broke off\"}}\n\n"
        );
        let glued = format!("\n{error}");
        assert_eq!(broken(&[], End::Broken), error);
        assert_eq!(broken(&[start], End::Broken), error);
        assert_eq!(broken(&[start, "event: ping\n"], End::Broken), glued);
        assert_eq!(
            broken(&[start, "event: ping\ndata: {\"ty"], End::Broken),
            glued
        );
        assert_eq!(broken(&["data: {}\r\n\r\n"], End::Broken), error);
        assert_eq!(broken(&[start, stop], End::Broken), "");
        let crlf = stop.replace('\n', "\r\n");
        assert_eq!(broken(&[start, &crlf], End::Broken), "");
        assert_eq!(broken(&[start, stop.trim_end()], End::Broken), glued);
        let faked = "event: content_block_delta\ndata: {\"text\":\"event: message_stop\"";
        assert_eq!(broken(&[start, faked], End::Broken), glued);
        assert_eq!(broken(&[start, faked, "}\n\n"], End::Broken), error);
        assert_eq!(broken(&[stop, start], End::Broken), error);
        assert!(broken(&[start], End::TimedOut).contains("timeout_error"));
    }

    #[test]
    fn signs_of_life() {
        let (comment, ping) = (
            ": keep-alive\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        );
        let start = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let long = format!("{start}{}", ": x\n\n".repeat(99));
        for (sent, sign) in [
            ("", comment),
            (": hello\n\n", comment),
            (start, ping),
            (&long, ping),
            (&start[..9], ""),
            (&start[..start.len() - 1], ""),
            (&format!("{start}{stop}"), ""),
            (&format!("{start}data: "), ""),
        ] {
            for size in [1, 7, 1000] {
                let mut tail = NativeTail::default();
                sent.as_bytes()
                    .chunks(size)
                    .for_each(|piece| tail.push(piece));
                let mut out = Vec::new();
                tail.keep_alive(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), sign, "{sent:?} {size}");
            }
        }
    }

    #[test]
    fn the_end_is_kept_however_it_is_cut() {
        let text = format!(
            "{}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n".repeat(9)
        );
        for size in [1, 2, 7, 100, 127, 128, 129, 1000] {
            let mut tail = NativeTail::default();
            text.as_bytes()
                .chunks(size)
                .for_each(|piece| tail.push(piece));
            assert_eq!(tail.tail(), &text.as_bytes()[text.len() - TAIL_BYTES..]);
            assert!(tail.is_complete(), "{size}");
        }
    }
}
