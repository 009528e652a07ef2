//! The translation without a gateway, for fuzz targets and benches: bytes in, bytes out.

use super::input::ReferencedItems;
use super::object::{ReplyContext, ReplySeed};
use super::reply::{self, Reply};
use super::request::ResponsesRequest;
use super::stored_input::StoredInput;
use super::to_chat::{Before, examine, referenced_ids, to_chat};
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::stream::{ChatStream, End, Progress};
use crate::dialects::chat::together::{is_events, put_together};
use crate::dialects::chat::writer::Moment;

/// A request with tools of each kind.
const REQUEST: &[u8] = br#"{"model":"m","input":"x","include":["reasoning.encrypted_content"],
    "tools":[{"type":"function","name":"f"},{"type":"custom","name":"p"},{"type":"local_shell"},
        {"type":"namespace","name":"ns","tools":[{"type":"function","name":"g"}]}]}"#;

/// The request for an endpoint, and the input as it is stored; `None` = the request is refused.
pub fn responses_request(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let request = ResponsesRequest::read(body).ok()?;
    let fields = request.fields(body);
    let input = StoredInput::of(&fields, body).items;
    let is_fine = examine(&fields).is_ok();
    let before = Before {
        response: None,
        items: Some(&ReferencedItems::new()),
    };
    let sent = to_chat(&fields, before, "\"new\"\\", "vllm");
    // What translation refuses is known before an endpoint is picked, but for what is not stored.
    let builds_on = request.previous_response_id.is_some() || !referenced_ids(&fields).is_empty();
    debug_assert!(is_fine == sent.is_ok() || builds_on && is_fine);
    Some((sent.ok()?.body, input))
}

/// The events of a stream that comes in these pieces.
pub fn responses_stream(pieces: &[&[u8]], end: End) -> (Vec<u8>, Progress) {
    let mut stream = ChatStream::new(Box::new(Reply::new(context(), None)));
    let mut out = Vec::new();
    for piece in pieces {
        let _ = stream.push(piece, Moment::default(), &mut out);
    }
    let progress = stream.end(end, Moment::default(), &mut out);
    (out, progress)
}

/// The object for a client without a stream; `None` = the response is no chat completion.
pub fn responses_object(body: &[u8]) -> Option<Vec<u8>> {
    let prepared = (context(), None);
    let together = is_events(body).then(|| put_together(body)).transpose();
    let together = together.ok()?;
    let body = together.as_deref().unwrap_or(body);
    let whole = reply::whole(body, prepared, Moment::default()).ok()?;
    Some(whole.body)
}

fn context() -> ReplyContext {
    let made = || {
        let request = ResponsesRequest::read(REQUEST).ok()?;
        let fields = request.fields(REQUEST);
        let before = Before {
            response: None,
            items: None,
        };
        let sent = to_chat(&fields, before, "m", "vllm").ok()?;
        let seed = ReplySeed {
            seed: IdSeed([7; 16]),
            now: 0,
        };
        Some(sent.context(&fields, seed))
    };
    made().unwrap_or_default()
}
