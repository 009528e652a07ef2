//! The form of a stream that the gateway begins before an endpoint has responded.
//!
//! Contract: docs/contract/surface.md#8.4, docs/contract/translation.md#8.4,
//! docs/contract/dialects.md#8.4

use super::anthropic::{self, backend_error};
use super::chat::error::{BackendError, Refusal};
use super::{Error, ollama, openai_error, responses};
use crate::json::{self, JsonKind, JsonValue};

/// The API by whose rules the client reads its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventForm {
    /// Chat completions of OpenAI's API, and its completions.
    Chunks,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Lines of Ollama's.
    Lines,
}

/// Why a stream that has begun fails.
#[derive(Debug)]
pub(crate) enum StreamFailure<'a> {
    /// The gateway has no response.
    Own(&'a Error),
    /// An endpoint responded with this status and body.
    Endpoint(u16, &'a [u8]),
}

/// What failure events show of their request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedStream<'a> {
    /// The request's id.
    pub id: &'a str,
    /// The model as the client wrote it.
    pub model: &'a str,
    /// The time.
    pub unix_secs: u64,
}

impl EventForm {
    /// The form of what a path responds with, if its clients can ask for events.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        if path.ends_with(b"/chat/completions") || path.ends_with(b"/completions") {
            Some(Self::Chunks)
        } else if path.ends_with(b"/responses") {
            Some(Self::Responses)
        } else if path.ends_with(b"/v1/messages") {
            Some(Self::Messages)
        } else if path.ends_with(b"/api/chat") || path.ends_with(b"/api/generate") {
            Some(Self::Lines)
        } else {
            None
        }
    }

    /// The media type of the stream.
    pub(crate) const fn content_type(self) -> &'static [u8] {
        match self {
            Self::Lines => b"application/x-ndjson",
            Self::Chunks | Self::Responses | Self::Messages => b"text/event-stream",
        }
    }

    /// Whether it is lines of Ollama's.
    pub(crate) const fn is_lines(self) -> bool {
        matches!(self, Self::Lines)
    }

    /// The event that ends a stream with an error.
    pub(crate) fn failure(self, failure: &StreamFailure<'_>, about: FailedStream<'_>) -> Vec<u8> {
        let body = match *failure {
            StreamFailure::Own(_) => None,
            StreamFailure::Endpoint(_, body) => one_line(body),
        };
        let understood = || match *failure {
            StreamFailure::Own(error) => error.clone(),
            StreamFailure::Endpoint(status, body) => backend_error(status, body),
        };
        match self {
            Self::Chunks => {
                let line = body.unwrap_or_else(|| openai_error(&understood()));
                event(None, &line)
            }
            Self::Lines => {
                let mut line = Vec::new();
                ollama::write_error_line(&understood().message, &mut line);
                line
            }
            Self::Messages => {
                let own = body.filter(|line| is_messages_error(line));
                let line = own.unwrap_or_else(|| anthropic::error_body(&understood(), about.id));
                event(Some("error"), &line)
            }
            Self::Responses => {
                let error = responses::understood(match *failure {
                    StreamFailure::Own(error) => Refusal::from(error),
                    StreamFailure::Endpoint(status, body) => {
                        BackendError::read(status, body).into()
                    }
                });
                let code = responses::failure_code(&error);
                let response = serde_json::json!({
                    "type": "response.failed", "sequence_number": 0,
                    "response": {
                        "id": format!("resp_{}", about.id), "object": "response",
                        "created_at": about.unix_secs, "status": "failed",
                        "error": { "code": code, "message": error.message },
                        "incomplete_details": null, "model": about.model, "output": [],
                    }
                });
                event(Some("response.failed"), response.to_string().as_bytes())
            }
        }
    }

    /// The events of a response that came as one document; `None` if it is not JSON.
    pub(crate) fn document(self, body: &[u8]) -> Option<Vec<u8>> {
        let mut line = one_line(body)?;
        if self.is_lines() {
            line.push(b'\n');
            return Some(line);
        }
        let Some(chunk) = chunk_of(&line).filter(|_| self == Self::Chunks) else {
            return Some(event(None, &line));
        };
        let mut events = event(None, &chunk);
        events.extend_from_slice(b"data: [DONE]\n\n");
        Some(events)
    }
}

/// One event; its data is one line.
fn event(name: Option<&str>, line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 32);
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.extend_from_slice(b"\n\n");
    out
}

/// A JSON document without blanks, and so without line ends.
fn one_line(body: &[u8]) -> Option<Vec<u8>> {
    let mut line = Vec::with_capacity(body.len());
    json::parse(body)?.write_compact(&mut line);
    Some(line)
}

fn is_messages_error(line: &[u8]) -> bool {
    let kind = json::parse(line).and_then(|error| error.string_field("type"));
    kind.is_some_and(|kind| kind.is("error"))
}

/// The chunk that says what a chat completion says; `None` if the document is none. `line` has no
/// blanks between its tokens.
fn chunk_of(line: &[u8]) -> Option<Vec<u8>> {
    const KEY: &[u8] = b"\"message\":";
    let completion = json::parse(line)?;
    let [object, choices] = completion.fields(["object", "choices"]);
    let is_completion = object
        .and_then(JsonValue::string)
        .is_some_and(|object| object.is("chat.completion"));
    if !is_completion {
        return None;
    }
    let mut edits = Vec::new();
    edits.extend(object.map(|object| (object.span(), &b"\"chat.completion.chunk\""[..])));
    let mut calls = Vec::new();
    for choice in choices.into_iter().flat_map(JsonValue::elements) {
        let Some(message) = choice.field("message") else {
            continue;
        };
        let span = message.span();
        let key = span.start.saturating_sub(KEY.len())..span.start;
        if line.get(key.clone()) == Some(KEY) {
            edits.push((key, b"\"delta\":"));
        }
        // Clients put calls of a stream together by their index.
        let listed = message.field("tool_calls").into_iter();
        for (index, call) in listed.flat_map(JsonValue::elements).enumerate() {
            if call.is(JsonKind::Object) && call.raw() != b"{}" && call.field("index").is_none() {
                let at = call.span().start + 1;
                calls.push((at, format!("\"index\":{index},")));
            }
        }
    }
    edits.extend(calls.iter().map(|(at, text)| (*at..*at, text.as_bytes())));
    edits.sort_by_key(|(span, _)| span.start);
    let mut chunk = Vec::with_capacity(line.len() + 64);
    let mut done = 0;
    for (span, text) in edits {
        chunk.extend_from_slice(line.get(done..span.start)?);
        chunk.extend_from_slice(text);
        done = span.end;
    }
    chunk.extend_from_slice(line.get(done..)?);
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: FailedStream<'static> = FailedStream {
        id: "id-1",
        model: "m",
        unix_secs: 7,
    };

    #[test]
    fn which_paths_have_events() {
        for (path, form) in [
            ("/olla/proxy/v1/chat/completions", Some(EventForm::Chunks)),
            ("/olla/proxy/v1/completions", Some(EventForm::Chunks)),
            ("/olla/openai/v1/responses", Some(EventForm::Responses)),
            ("/olla/anthropic/v1/messages", Some(EventForm::Messages)),
            ("/olla/anthropic/v1/messages/count_tokens", None),
            ("/olla/proxy/messages", None),
            ("/olla/ollama/api/chat", Some(EventForm::Lines)),
            ("/api/generate", Some(EventForm::Lines)),
            ("/api/embed", None),
            ("/olla/proxy/v1/completions/", None),
        ] {
            assert_eq!(EventForm::of(path.as_bytes()), form, "{path}");
        }
    }

    #[test]
    fn lines_are_those_of_ollama() {
        let form = EventForm::Lines;
        let error = Error::new(503, "k", "C", "no \"room\"");
        let failure = form.failure(&StreamFailure::Own(&error), ABOUT);
        assert_eq!(failure, b"{\"error\":\"no \\\"room\\\"\"}\n");
        let failed = StreamFailure::Endpoint(500, br#"{"error":"hot"}"#);
        assert_eq!(form.failure(&failed, ABOUT), b"{\"error\":\"hot\"}\n");
        let document = form.document(b"{ \"done\": true }");
        assert_eq!(document.as_deref(), Some(&b"{\"done\":true}\n"[..]));
    }

    #[test]
    fn a_document_becomes_events() {
        let done = "data: [DONE]\n\n";
        for (form, body, events) in [
            (
                EventForm::Chunks,
                "{\"id\":\"c\", \"object\":\"chat.completion\",\n\"choices\":[{\"index\":0,\
                 \"message\":{\"role\":\"assistant\",\"content\":\"\\\"message\\\":\\n\"},\
                 \"finish_reason\":\"stop\"},{\"message\":{\"tool_calls\":[{\"id\":\"a\"},\
                 {\"index\":5},{}]}}],\"usage\":{\"x\":1.50}}",
                format!(
                    "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":\
                     [{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\
                     \"\\\"message\\\":\\n\"}},\"finish_reason\":\"stop\"}},{{\"delta\":\
                     {{\"tool_calls\":[{{\"index\":0,\"id\":\"a\"}},{{\"index\":5}},{{}}]}}}}],\
                     \"usage\":{{\"x\":1.50}}}}\n\n{done}"
                ),
            ),
            (
                EventForm::Chunks,
                "{\"choices\":[],\"object\":\"chat.completion\"}",
                format!("data: {{\"choices\":[],\"object\":\"chat.completion.chunk\"}}\n\n{done}"),
            ),
            (
                EventForm::Chunks,
                "{\"object\": \"text_completion\"}",
                "data: {\"object\":\"text_completion\"}\n\n".to_owned(),
            ),
            (
                EventForm::Messages,
                "{\"object\":\"chat.completion\"}",
                "data: {\"object\":\"chat.completion\"}\n\n".to_owned(),
            ),
        ] {
            let found = form.document(body.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), events, "{body}");
        }
        assert_eq!(EventForm::Chunks.document(b"{oops"), None);
    }

    #[test]
    fn a_failure_is_one_event() {
        let own = Error::new(502, "bad_gateway", "BACKEND_ERROR", "gone");
        let json = b"{\"error\": {\"message\":\"no\",\n \"code\":\"too_long\"}}";
        let native = b"{\"type\":\"error\", \"error\":{}}";
        let show = |form: EventForm, failure: &StreamFailure<'_>| {
            String::from_utf8(form.failure(failure, ABOUT)).unwrap()
        };
        for (form, failure, expected) in [
            (
                EventForm::Chunks,
                StreamFailure::Own(&own),
                "data: {\"error\":{\"message\":\"gone\",\"type\":\"bad_gateway\",\
                 \"code\":\"BACKEND_ERROR\"}}\n\n",
            ),
            (
                EventForm::Chunks,
                StreamFailure::Endpoint(400, json),
                "data: {\"error\":{\"message\":\"no\",\"code\":\"too_long\"}}\n\n",
            ),
            (
                EventForm::Messages,
                StreamFailure::Endpoint(400, native),
                "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n",
            ),
        ] {
            assert_eq!(show(form, &failure), expected);
        }
        for (form, failure, parts) in [
            (
                EventForm::Chunks,
                StreamFailure::Endpoint(500, b"out of memory"),
                [
                    "data: {\"error\":{\"message\":\"out of memory\"",
                    "\"code\":\"BACKEND_ERROR\"",
                ],
            ),
            (
                EventForm::Messages,
                StreamFailure::Own(&own),
                [
                    "event: error\ndata: {\"type\":\"error\"",
                    "\"message\":\"gone\"",
                ],
            ),
            (
                EventForm::Responses,
                StreamFailure::Endpoint(400, json),
                [
                    "event: response.failed\ndata: {\"type\":\"response.failed\"",
                    "\"code\":\"too_long\"",
                ],
            ),
            (
                EventForm::Responses,
                StreamFailure::Endpoint(400, b"{\"error\":\"maximum context length is 5 tokens\"}"),
                [
                    "\"code\":\"context_length_exceeded\"",
                    "\"message\":\"maximum context length is 5 tokens\"",
                ],
            ),
            (
                EventForm::Responses,
                StreamFailure::Own(&own),
                ["\"id\":\"resp_id-1\"", "\"code\":\"server_error\""],
            ),
        ] {
            let shown = show(form, &failure);
            assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
            assert_eq!(shown.matches("data: ").count(), 1, "{shown}");
            assert!(shown.ends_with("}\n\n"), "{shown}");
        }
    }
}
