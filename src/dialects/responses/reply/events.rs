//! Writes the events of a response (docs/contract/dialects.md#8.3).

use crate::dialects::responses::items::{ItemForm, ItemKind, ItemStatus, OutputItem};
use crate::dialects::responses::names::ToolKind;
use crate::dialects::responses::object::ResponseObject;
use crate::json;

/// Numbers events and writes them; writes none for a response that is not streamed.
#[derive(Debug)]
pub(super) struct EventWriter {
    is_on: bool,
    sequence: u64,
}

/// The names of what happens to the text of an item.
struct TextNames {
    delta: &'static str,
    done: &'static str,
    /// The member of the last event that has the whole text.
    whole: &'static str,
}

impl EventWriter {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, sequence: 0 }
    }

    /// An event; `members` appends what it holds besides type and number.
    fn event(&mut self, kind: &str, out: &mut Vec<u8>, members: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_on {
            return;
        }
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(br#"","sequence_number":"#);
        json::write_number(self.sequence, out);
        self.sequence += 1;
        members(out);
        out.extend_from_slice(b"}\n\n");
    }

    /// An event that shows the whole response.
    pub(super) fn response(&mut self, kind: &str, object: &ResponseObject<'_>, out: &mut Vec<u8>) {
        self.event(kind, out, |out| {
            out.extend_from_slice(br#","response":"#);
            object.write(out);
        });
    }

    /// The event that ends a response, or all of one that is not streamed.
    pub(super) fn last(&mut self, kind: &str, object: &[u8], out: &mut Vec<u8>) {
        if !self.is_on {
            return out.extend_from_slice(object);
        }
        self.event(kind, out, |out| {
            out.extend_from_slice(br#","response":"#);
            out.extend_from_slice(object);
        });
    }

    /// An item begins.
    pub(super) fn open(&mut self, at: u64, item: &OutputItem, form: ItemForm, out: &mut Vec<u8>) {
        self.event("response.output_item.added", out, |out| {
            write_item(at, item, ItemStatus::InProgress, form, out);
        });
        if let Some(kind) = part_kind(&item.kind, form) {
            self.event(&format!("{kind}.added"), out, |out| {
                write_place(at, item, form, out);
                out.extend_from_slice(br#","part":"#);
                item.write_part(b"", form, out);
            });
        }
    }

    /// A piece of an item's text, as the inside of a JSON string.
    pub(super) fn delta(
        &mut self,
        at: u64,
        item: &OutputItem,
        form: ItemForm,
        piece: &[u8],
        out: &mut Vec<u8>,
    ) {
        let Some(names) = text_names(&item.kind, form) else {
            return;
        };
        self.event(names.delta, out, |out| {
            write_place(at, item, form, out);
            out.extend_from_slice(br#","delta":""#);
            out.extend_from_slice(piece);
            out.push(b'"');
            write_logprobs(item, out);
        });
    }

    /// An item ends.
    pub(super) fn close(
        &mut self,
        at: u64,
        item: &OutputItem,
        form: ItemForm,
        status: ItemStatus,
        out: &mut Vec<u8>,
    ) {
        if let Some(names) = text_names(&item.kind, form) {
            self.event(names.done, out, |out| {
                write_place(at, item, form, out);
                if let ItemKind::Call(call) = &item.kind
                    && call.kind == ToolKind::Function
                {
                    out.extend_from_slice(br#","name":"#);
                    json::write_string(&call.name, out);
                }
                out.extend_from_slice(b",\"");
                out.extend_from_slice(names.whole.as_bytes());
                out.extend_from_slice(b"\":\"");
                out.extend_from_slice(&item.text);
                out.push(b'"');
                write_logprobs(item, out);
            });
        }
        if let Some(kind) = part_kind(&item.kind, form) {
            self.event(&format!("{kind}.done"), out, |out| {
                write_place(at, item, form, out);
                out.extend_from_slice(br#","part":"#);
                item.write_part(&item.text, form, out);
            });
        }
        self.event("response.output_item.done", out, |out| {
            write_item(at, item, status, form, out);
        });
    }
}

fn write_item(at: u64, item: &OutputItem, status: ItemStatus, form: ItemForm, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","output_index":"#);
    json::write_number(at, out);
    out.extend_from_slice(br#","item":"#);
    item.write(status, form, out);
}

/// Where a piece of text belongs to.
fn write_place(at: u64, item: &OutputItem, form: ItemForm, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","item_id":""#);
    out.extend_from_slice(item.id.as_bytes());
    out.extend_from_slice(br#"","output_index":"#);
    json::write_number(at, out);
    match &item.kind {
        ItemKind::Text | ItemKind::Refusal => out.extend_from_slice(br#","content_index":0"#),
        ItemKind::Reasoning if form.summary => out.extend_from_slice(br#","summary_index":0"#),
        ItemKind::Reasoning => out.extend_from_slice(br#","content_index":0"#),
        ItemKind::Call(_) => {}
    }
}

fn write_logprobs(item: &OutputItem, out: &mut Vec<u8>) {
    if matches!(item.kind, ItemKind::Text) {
        out.extend_from_slice(br#","logprobs":[]"#);
    }
}

/// The events of the part that holds the text.
fn part_kind(kind: &ItemKind, form: ItemForm) -> Option<&'static str> {
    match kind {
        ItemKind::Text | ItemKind::Refusal => Some("response.content_part"),
        ItemKind::Reasoning if form.summary => Some("response.reasoning_summary_part"),
        ItemKind::Reasoning => Some("response.content_part"),
        ItemKind::Call(_) => None,
    }
}

fn text_names(kind: &ItemKind, form: ItemForm) -> Option<TextNames> {
    let [delta, done, whole] = match kind {
        ItemKind::Text => [
            "response.output_text.delta",
            "response.output_text.done",
            "text",
        ],
        ItemKind::Refusal => ["response.refusal.delta", "response.refusal.done", "refusal"],
        ItemKind::Reasoning if form.summary => [
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "text",
        ],
        ItemKind::Reasoning => [
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "text",
        ],
        ItemKind::Call(call) => match call.kind {
            ToolKind::Function => [
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "arguments",
            ],
            ToolKind::Custom => [
                "response.custom_tool_call_input.delta",
                "response.custom_tool_call_input.done",
                "input",
            ],
            ToolKind::LocalShell => return None,
        },
    };
    Some(TextNames { delta, done, whole })
}
