//! Reads the responses of endpoints with a Responses API of their own while they pass
//! (docs/contract/dialects.md#9): those of endpoints that keep nothing are kept here, of the others
//! it is remembered which endpoint made them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::store::{Keeper, KeptObject, Owner, ResponseStore};
use crate::dialects::chat::sse::{Lines, SseLine};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// The longest response object that is read here, in bytes: reading it must not hold a core for
/// long. Longer ones pass and are not kept.
const OBJECT_BYTES_MAX: usize = 1 << 20;

/// How many pieces that end like a whole object are tried before the end: reading them must not hold
/// a core for long either.
const TRIALS_MAX: u8 = 8;

/// Reads one response.
#[derive(Debug)]
pub(super) struct NativeReader {
    form: NativeForm,
    purpose: Option<Purpose>,
}

#[derive(Debug)]
enum NativeForm {
    Document(Document),
    Events(Lines),
}

/// A response object in pieces. It is read with the piece that completes it, before the client gets
/// that piece: the client may go on from the response at once, over another core.
#[derive(Debug)]
struct Document {
    body: Vec<u8>,
    trials_left: u8,
}

impl Document {
    /// Adds a piece; the object, if this piece completes it.
    fn push(&mut self, piece: &[u8]) -> Option<JsonValue<'_>> {
        self.body.extend_from_slice(piece);
        if !piece.trim_ascii_end().ends_with(b"}") || self.body.len() > OBJECT_BYTES_MAX {
            return None;
        }
        self.trials_left = self.trials_left.checked_sub(1)?;
        json::parse(&self.body)
    }
}

/// What a response is read for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// It is kept once it is finished.
    Keep(Keeper),
    /// Its id is remembered with the endpoint that made it.
    Remember {
        store: Arc<ResponseStore>,
        owner: Owner,
        endpoint: Arc<str>,
    },
}

impl NativeReader {
    /// For a stream of events, or a whole response.
    pub(super) fn new(events: bool, purpose: Purpose) -> Self {
        Self {
            form: if events {
                NativeForm::Events(Lines::new(OBJECT_BYTES_MAX))
            } else {
                NativeForm::Document(Document {
                    body: Vec::new(),
                    trials_left: TRIALS_MAX,
                })
            },
            purpose: Some(purpose),
        }
    }

    /// A part of the response.
    pub(super) fn push(&mut self, payload: &[u8], now_ms: u64) {
        let Self { form, purpose } = self;
        if purpose.is_none() {
            return;
        }
        let is_too_long = match form {
            NativeForm::Document(document) => {
                if let Some(object) = document.push(payload)
                    && let Some(purpose) = purpose.take()
                {
                    take(object, purpose, now_ms);
                }
                document.body.len() > OBJECT_BYTES_MAX
            }
            NativeForm::Events(lines) => {
                let mut each = |line: &[u8]| {
                    if let SseLine::Data(data) = SseLine::read(line) {
                        event(data, purpose, now_ms);
                    }
                    match purpose {
                        Some(_) => ControlFlow::Continue(()),
                        None => ControlFlow::Break(()),
                    }
                };
                lines.feed(payload, &mut each).is_err()
            }
        };
        if is_too_long {
            *purpose = None;
        }
    }

    /// The response is complete.
    pub(super) fn finish(self, now_ms: u64) {
        let (NativeForm::Document(document), Some(purpose)) = (self.form, self.purpose) else {
            return;
        };
        if let Some(object) = json::parse(&document.body) {
            take(object, purpose, now_ms);
        }
    }
}

/// The data of one event. What it is read for is done at most once.
fn event(data: &[u8], purpose: &mut Option<Purpose>, now_ms: u64) {
    let wanted: &[&[u8]] = match purpose {
        Some(Purpose::Keep(_)) => &[b"response.completed", b"response.incomplete"],
        Some(Purpose::Remember { .. }) => &[b"response.created", b"response.completed"],
        None => return,
    };
    // Most events are pieces of text.
    if !wanted
        .iter()
        .any(|kind| memchr::memmem::find(data, kind).is_some())
    {
        return;
    }
    let Some(event) = json::parse(data) else {
        return;
    };
    let [kind, response] = event.fields(["type", "response"]);
    let kind = kind.and_then(JsonValue::string).map(JsonText::decode);
    let is_wanted = |kind: &str| wanted.contains(&kind.as_bytes());
    if let (true, Some(object)) = (kind.is_some_and(|kind| is_wanted(&kind)), response)
        && let Some(purpose) = purpose.take()
    {
        take(object, purpose, now_ms);
    }
}

/// Does what a response object is read for.
fn take(object: JsonValue<'_>, purpose: Purpose, now_ms: u64) {
    let [id, status, output] = object.fields(["id", "status", "output"]);
    let text = |value: Option<JsonValue<'_>>| Some(value?.string()?.decode().into_owned());
    let Some(id) = text(id).filter(|id| !id.is_empty()) else {
        return;
    };
    match purpose {
        Purpose::Remember {
            store,
            owner,
            endpoint,
        } => store.note_made(owner, &id, &endpoint, now_ms),
        Purpose::Keep(keeper) => {
            let is_finished = matches!(text(status).as_deref(), Some("completed" | "incomplete"));
            let output = output.filter(|output| is_finished && output.is(JsonKind::Array));
            let Some(output) = output else {
                return;
            };
            let start = output.span().start - object.span().start;
            let kept = KeptObject {
                object: object.raw().to_vec(),
                output: start..start + output.raw().len(),
            };
            keeper.keep(&id, kept, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialects::responses::store::StoreBounds;
    use crate::dialects::responses::stored_input::StoredInput;

    const OWNER: Owner = Owner(Some([1; 32]));

    fn store() -> Arc<ResponseStore> {
        Arc::new(ResponseStore::new(StoreBounds {
            enabled: true,
            max_items: 10,
            max_bytes: 1 << 20,
            ttl_ms: 1000,
        }))
    }

    fn keeping(store: &Arc<ResponseStore>) -> Purpose {
        Purpose::Keep(Keeper {
            store: Arc::clone(store),
            owner: OWNER,
            input: StoredInput {
                items: br#"[{"id":"msg_0"}]"#.to_vec(),
                places: vec![("msg_0".to_owned(), 1..15)],
            },
            parent: None,
        })
    }

    fn remembering(store: &Arc<ResponseStore>) -> Purpose {
        Purpose::Remember {
            store: Arc::clone(store),
            owner: OWNER,
            endpoint: Arc::from("e"),
        }
    }

    fn object(status: &str) -> Value {
        json!({"id": "resp_1", "object": "response", "status": status,
               "output": [{"type": "message", "id": "msg_1"}]})
    }

    fn read(events: bool, purpose: Purpose, body: &str) {
        for at in 0..=body.len() {
            if !body.is_char_boundary(at) {
                continue;
            }
            let mut reader = NativeReader::new(
                events,
                match &purpose {
                    Purpose::Keep(keeper) => keeping(&keeper.store),
                    Purpose::Remember { store, .. } => remembering(store),
                },
            );
            let (one, two) = body.split_at(at);
            reader.push(one.as_bytes(), 1);
            reader.push(two.as_bytes(), 1);
            reader.finish(1);
        }
    }

    #[test]
    fn finished_responses_are_kept() {
        let stream = |kind: &str, status: &str| {
            format!(
                "event: response.created\ndata: {}\n\nevent: {kind}\ndata: {}\n\n",
                json!({"type": "response.created", "response": object("in_progress")}),
                json!({"type": kind, "response": object(status)}),
            )
        };
        for (events, body, kept) in [
            (false, object("completed").to_string(), true),
            (false, format!(" {} ", object("incomplete")), true),
            (false, object("failed").to_string(), false),
            (false, object("queued").to_string(), false),
            (false, "[]".to_owned(), false),
            (false, "{oops".to_owned(), false),
            (true, stream("response.completed", "completed"), true),
            (true, stream("response.incomplete", "incomplete"), true),
            (true, stream("response.failed", "failed"), false),
            (true, "data: {oops response.completed\n\n".to_owned(), false),
        ] {
            let store = store();
            read(events, keeping(&store), &body);
            let found = store.find(OWNER, "resp_1", 2);
            assert_eq!(found.is_some(), kept, "{body}");
            if let Some(found) = found {
                assert_eq!(store.item(OWNER, "msg_0", 2).unwrap(), br#"{"id":"msg_0"}"#);
                assert_eq!(found.output(), br#"[{"type":"message","id":"msg_1"}]"#);
                let whole: Value = serde_json::from_slice(found.object()).unwrap();
                assert_eq!(whole["object"], "response");
            }
        }
    }

    #[test]
    fn where_responses_were_made_is_remembered() {
        let created = json!({"type": "response.created", "response": object("in_progress")});
        for (events, body) in [
            (false, object("completed").to_string()),
            (true, format!("data: {created}\n\n")),
        ] {
            let store = store();
            read(events, remembering(&store), &body);
            assert_eq!(store.made_by(OWNER, "resp_1", 2).as_deref(), Some("e"));
            assert!(store.find(OWNER, "resp_1", 2).is_none());
        }
    }

    /// The client may go on from a response as soon as it has its last byte.
    #[test]
    fn the_last_piece_is_enough() {
        let body = object("completed").to_string();
        let (one, two) = body.split_at(body.len() - 5);
        for end in [two.to_owned(), format!("{two}\r\n")] {
            let store = store();
            let mut reader = NativeReader::new(false, remembering(&store));
            reader.push(one.as_bytes(), 1);
            assert!(store.made_by(OWNER, "resp_1", 1).is_none());
            reader.push(end.as_bytes(), 1);
            assert_eq!(store.made_by(OWNER, "resp_1", 1).as_deref(), Some("e"));
        }
    }

    #[test]
    fn long_ones_pass() {
        let store = store();
        for events in [false, true] {
            let mut reader = NativeReader::new(events, keeping(&store));
            for _ in 0..5 {
                reader.push(&vec![b' '; OBJECT_BYTES_MAX / 4], 1);
            }
            reader.push(object("completed").to_string().as_bytes(), 1);
            reader.finish(1);
        }
        assert_eq!(store.counts(1).items, 0);
    }
}
