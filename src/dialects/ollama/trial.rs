//! The translation without a gateway, for fuzz targets and benches: bytes in, bytes out.

use std::time::Duration;

use super::request::OllamaOperation;
use super::translator::OllamaRequest;
use crate::dialects::chat::ids::IdSeed;
pub use crate::dialects::chat::stream::{End, Progress};
use crate::dialects::chat::together::{is_events, put_together};
use crate::dialects::chat::writer::Moment;
use crate::dialects::conversation::{ChatMaking, Demand, Outgoing, Translator as _};

const AT: Moment = Moment {
    unix_ms: 1_700_000_000_000,
    elapsed: Duration::from_secs(1),
};

/// What an endpoint gets of a request, or the client without one; `None` = it is refused.
pub fn ollama_request(path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut request = OllamaRequest::new(operation(path));
    let checked = request.check(body);
    if checked.invalid.is_some() || !matches!(checked.demand, Demand::Any) {
        return None;
    }
    match made(&mut request, body)? {
        Outgoing::Chat(chat) => Some(chat.body),
        Outgoing::Response(response) => Some(response),
    }
}

/// The lines of a response that comes in these pieces.
pub fn ollama_stream(path: &str, pieces: &[&[u8]], end: End) -> (Vec<u8>, Progress) {
    let mut stream = asked(path).stream();
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, AT, &mut out);
    }
    let progress = stream.end(end, AT, &mut out);
    (out, progress)
}

/// The response for a client without a stream; `None` = the endpoint's is no response.
pub fn ollama_reply(path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let together = is_events(body).then(|| put_together(body)).transpose();
    let together = together.ok()?;
    let body = together.as_deref().unwrap_or(body);
    Some(asked(path).whole(body, AT).ok()?.body)
}

fn operation(path: &str) -> OllamaOperation {
    match path {
        "/api/generate" => OllamaOperation::Generate,
        "/api/embed" => OllamaOperation::Embed,
        "/api/embeddings" => OllamaOperation::Embeddings,
        _ => OllamaOperation::Chat,
    }
}

/// A valid request.
fn asked(path: &str) -> OllamaRequest {
    let body =
        br#"{"model":"m","messages":[{"role":"user"}],"prompt":"p","input":"i","logprobs":true}"#;
    let mut request = OllamaRequest::new(operation(path));
    request.check(body);
    made(&mut request, body);
    request
}

fn made(request: &mut OllamaRequest, body: &[u8]) -> Option<Outgoing> {
    let making = ChatMaking {
        body,
        name: "\"new\"\\",
        kind: "vllm",
        served_context: &|| None,
        seed: IdSeed([7; 16]),
        at: AT,
    };
    request.to_chat(&making).ok()
}
