//! Requests and responses, from Ollama's API to OpenAI's and back.

mod properties;
mod replies;
mod requests;

use std::time::Duration;

use super::request::OllamaOperation;
use super::translator::OllamaRequest;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::stream::{End, Progress};
use crate::dialects::chat::writer::Moment;
use crate::dialects::conversation::{ChatMaking, CheckedRequest, Outgoing, Translator as _};

/// Two seconds after a request came, at `2023-11-14T22:13:20.125Z`.
const AT: Moment = Moment {
    unix_ms: 1_700_000_000_125,
    elapsed: Duration::from_secs(2),
};

/// The request with what it becomes for an endpoint of a type.
fn made(operation: OllamaOperation, body: &str, kind: &str) -> (OllamaRequest, Outgoing) {
    let (mut request, checked) = checked(operation, body);
    assert!(checked.invalid.is_none(), "{body}");
    let outgoing = request.to_chat(&ChatMaking {
        body: body.as_bytes(),
        name: "own/name",
        kind,
        served_context: &|| None,
        seed: IdSeed(*b"0123456789abcdef"),
        at: AT,
    });
    (request, outgoing.unwrap())
}

fn checked(operation: OllamaOperation, body: &str) -> (OllamaRequest, CheckedRequest) {
    let mut request = OllamaRequest::new(operation);
    let checked = request.check(body.as_bytes());
    (request, checked)
}

/// What a request becomes, and the names of what has no effect.
fn sent(operation: OllamaOperation, body: &str, kind: &str) -> (String, String) {
    match made(operation, body, kind).1 {
        Outgoing::Chat(chat) => (
            String::from_utf8(chat.body).unwrap(),
            chat.dropped.header().unwrap_or_default(),
        ),
        Outgoing::Response(response) => {
            panic!("{body}: {}", String::from_utf8_lossy(&response))
        }
    }
}

/// The response to a request whose endpoint responds with this document.
fn whole(operation: OllamaOperation, body: &str, response: &str) -> Result<String, String> {
    let (mut request, _) = made(operation, body, "vllm");
    match request.whole(response.as_bytes(), AT) {
        Ok(translated) => Ok(String::from_utf8(translated.body).unwrap()),
        Err(refusal) => Err(format!("{} {}", refusal.status, refusal.message)),
    }
}

/// The stream of a request whose endpoint sends this, cut into pieces, and how it ended.
fn streamed(
    operation: OllamaOperation,
    body: &str,
    pieces: &[&[u8]],
    end: End,
) -> (String, Progress) {
    let (mut request, _) = made(operation, body, "vllm");
    let mut stream = request.stream();
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, AT, &mut out);
    }
    let progress = stream.end(end, AT, &mut out);
    (String::from_utf8(out).unwrap(), progress)
}

/// Events of a stream, with its end.
fn events(data: &[&str]) -> String {
    let events = data.iter().map(|data| format!("data: {data}\n\n"));
    events.collect::<String>() + "data: [DONE]\n\n"
}
