//! The stub's responses as bytes. Everything that does not depend on the request is rendered once.

use std::io::Write;

use serde_json::{Value, json};
use testkit::api::{Model, Output, listing, ollama, openai};

/// What a whole response says.
const TEXT: &str = "A gateway should cost no more than the copying of the bytes.";

/// The first piece of a streamed text, and the others.
const PIECES: [&str; 2] = ["A", " token"];

/// The tool that is called and its arguments.
const TOOL: &str = "get_weather";
const ARGUMENTS: &str = r#"{"city":"Paris"}"#;

/// The request targets the stub knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `GET /health`
    Health,
    /// `GET /`
    Root,
    /// `GET /v1/models`
    Models,
    /// `GET /api/tags`
    Tags,
    /// `GET /stub/counters`
    Counters,
    /// `POST /stub/fault`
    SetFault,
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /api/chat`
    OllamaChat,
    /// Anything else.
    Unknown,
}

impl Route {
    /// Every route, in the order of their numbers.
    pub(super) const ALL: [Self; 11] = [
        Self::Health,
        Self::Root,
        Self::Models,
        Self::Tags,
        Self::Counters,
        Self::SetFault,
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::OllamaChat,
        Self::Unknown,
    ];

    /// The route of a request.
    pub(super) fn of(method: &str, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let known = Self::ALL.into_iter().find(|route| route.path() == path);
        match known {
            Some(route) if route.takes_post() == (method == "POST") => route,
            _ => Self::Unknown,
        }
    }

    /// The path of the route, `other` for [`Route::Unknown`].
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Root => "/",
            Self::Models => "/v1/models",
            Self::Tags => "/api/tags",
            Self::Counters => "/stub/counters",
            Self::SetFault => "/stub/fault",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::OllamaChat => "/api/chat",
            Self::Unknown => "other",
        }
    }

    /// True for the routes that inspect or control the stub.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Counters | Self::SetFault)
    }

    fn takes_post(self) -> bool {
        self.is_inference() || self == Self::SetFault
    }

    /// True for the routes that a model would respond to.
    pub(super) fn is_inference(self) -> bool {
        matches!(
            self,
            Self::Chat | Self::Completions | Self::Embeddings | Self::OllamaChat
        )
    }
}

/// One event of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct StubEvent<'a> {
    /// Its number, from 0.
    pub(super) seq: u32,
    /// True for the last one before `[DONE]`.
    pub(super) last: bool,
    /// The time of sending, nanoseconds of CLOCK_MONOTONIC.
    pub(super) sent_ns: u64,
    /// Bytes of body (without chunks) sent before this event.
    pub(super) at: u64,
    /// Echoed from the request.
    pub(super) nonce: Option<&'a str>,
    /// Bytes of text to add to a piece of text.
    pub(super) added_bytes: usize,
    /// A piece of a tool's arguments instead of a piece of text.
    pub(super) tools: bool,
}

/// The head that begins an event stream.
pub(super) const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The end of an event stream: its last event in a chunk, and the last chunk.
pub(super) const STREAM_END: &[u8] = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/// Bytes that no chunk can begin with.
pub(super) const BROKEN_CHUNK: &[u8] = b"not a chunk\r\n";

/// The responses, rendered for the models the stub pretends to serve.
#[derive(Debug)]
pub(super) struct Replies {
    models: String,
    tags: String,
    /// JSON bodies without their last brace, so that a nonce can follow.
    chat: String,
    chat_tools: String,
    completions: String,
    embeddings: String,
    ollama_chat: String,
    /// An event up to its delta.
    event_head: String,
    /// The first delta of a text, and the others.
    deltas: [String; 2],
    /// The first, the middle and the last delta of a tool call; the arguments are JSON when joined.
    tool_deltas: [String; 3],
}

impl Replies {
    /// Renders the responses; the first name is the model that responds.
    pub(super) fn new(names: &[String]) -> Self {
        let output = |call| Output {
            model: names.first().map_or("stub", String::as_str).to_owned(),
            pieces: vec![TEXT.to_owned()],
            call,
            prompt_tokens: 24,
            completion_tokens: 16,
        };
        let call = (TOOL.to_owned(), json!({"city": "Paris"}));
        let (text, with_call) = (output(None), output(Some(call)));
        let models: Vec<Model> = names.iter().map(|name| model(name)).collect();
        let listed = |path: &str| listing(path, &models).unwrap_or_default().to_string();
        // An event is a chunk that is cut off before its delta.
        let chunk = openai::chat_chunk(&text.model, Value::Null, None).to_string();
        let (before, _) = chunk
            .rsplit_once("null,\"finish_reason\"")
            .unwrap_or_default();
        Self {
            models: listed("/v1/models"),
            tags: listed("/api/tags"),
            chat: unclosed(&openai::chat(&text)),
            chat_tools: unclosed(&openai::chat(&with_call)),
            completions: unclosed(&openai::completion(&text)),
            embeddings: unclosed(&openai::embeddings(&text, 1)),
            ollama_chat: unclosed(&ollama::chat(&text)),
            event_head: format!("data: {before}"),
            deltas: [
                openai::text_delta(PIECES[0], true).to_string(),
                openai::text_delta(PIECES[1], false).to_string(),
            ],
            tool_deltas: [
                openai::call_delta(TOOL, "").to_string(),
                openai::arguments_delta(" ").to_string(),
                openai::arguments_delta(ARGUMENTS).to_string(),
            ],
        }
    }

    /// Appends the response of a route that is the same for every request.
    pub(super) fn write_fixed(&self, route: Route, out: &mut Vec<u8>) {
        let (status, body) = match route {
            Route::Health => ("200 OK", r#"{"status":"ok"}"#),
            Route::Root => ("200 OK", r#"{"service":"stub LLM server"}"#),
            Route::Models => ("200 OK", self.models.as_str()),
            Route::Tags => ("200 OK", self.tags.as_str()),
            Route::SetFault => ("200 OK", "{}"),
            _ => ("404 Not Found", r#"{"error":{"message":"no such route"}}"#),
        };
        write_json(out, status, body.as_bytes());
    }

    /// Appends the JSON response of an inference route.
    pub(super) fn write_response(
        &self,
        route: Route,
        tools: bool,
        nonce: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let body = self.response_body(route, tools);
        let tail = nonce_tail(nonce);
        write_head(out, "200 OK", body.len() + tail.length());
        out.extend_from_slice(body.as_bytes());
        tail.write(out);
    }

    /// Appends the JSON response up to its middle: as it is under `chunked` false, and else in one
    /// chunk with bytes after it that are none.
    pub(super) fn write_half_response(
        &self,
        route: Route,
        tools: bool,
        chunked: bool,
        out: &mut Vec<u8>,
    ) {
        let body = self.response_body(route, tools).as_bytes();
        let half = &body[..body.len() / 2];
        if chunked {
            out.extend_from_slice(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
            );
            write_chunk(out, half);
            out.extend_from_slice(BROKEN_CHUNK);
        } else {
            write_head(out, "200 OK", body.len() + 1);
            out.extend_from_slice(half);
        }
    }

    /// Appends one event in a chunk of its own and returns the event's length without the chunk.
    pub(super) fn write_event(&self, event: &StubEvent<'_>, out: &mut Vec<u8>) -> usize {
        let delta = match (event.tools, event.seq) {
            (true, 0) => &self.tool_deltas[0],
            (true, _) => &self.tool_deltas[1 + usize::from(event.last)],
            (false, seq) => &self.deltas[usize::from(seq > 0)],
        };
        let finish = match (event.last, event.tools) {
            (false, _) => "null",
            (true, false) => r#""stop""#,
            (true, true) => r#""tool_calls""#,
        };
        // The size line has six digits whatever the size, so that it can be filled in afterwards.
        let start = out.len();
        out.extend_from_slice(b"000000\r\n");
        let data = out.len();
        out.extend_from_slice(self.event_head.as_bytes());
        let filler = if event.tools { 0 } else { event.added_bytes };
        // Before the quote and the brace that end the piece of text.
        let (text, end) = delta.split_at(delta.len() - if filler > 0 { 2 } else { 0 });
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len() + filler, b'x');
        for part in [end, r#","finish_reason":"#, finish, "}]"] {
            out.extend_from_slice(part.as_bytes());
        }
        let StubEvent {
            seq, sent_ns, at, ..
        } = event;
        append(
            out,
            format_args!(r#","seq":{seq},"sent_ns":{sent_ns},"at":{at}"#),
        );
        nonce_tail(event.nonce).write(out);
        out.extend_from_slice(b"\n\n");
        let length = out.len() - data;
        for (digit, shift) in (start..start + 6).zip([20, 16, 12, 8, 4, 0]) {
            out[digit] = b"0123456789abcdef"[(length >> shift) & 15];
        }
        out.extend_from_slice(b"\r\n");
        length
    }

    fn response_body(&self, route: Route, tools: bool) -> &str {
        match route {
            Route::Completions => &self.completions,
            Route::Embeddings => &self.embeddings,
            Route::OllamaChat => &self.ollama_chat,
            _ if tools => &self.chat_tools,
            _ => &self.chat,
        }
    }
}

/// Appends a whole JSON response.
pub(super) fn write_json(out: &mut Vec<u8>, status: &str, body: &[u8]) {
    write_head(out, status, body.len());
    out.extend_from_slice(body);
}

fn write_head(out: &mut Vec<u8>, status: &str, length: usize) {
    append(
        out,
        format_args!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        ),
    );
}

fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    append(out, format_args!("{:x}\r\n", data.len()));
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What closes a JSON body: the nonce, when there is one, and the brace.
struct Tail<'a>([&'a str; 4]);

fn nonce_tail(nonce: Option<&str>) -> Tail<'_> {
    match nonce {
        Some(nonce) => Tail([r#","nonce":""#, nonce, "\"", "}"]),
        None => Tail(["", "", "", "}"]),
    }
}

impl Tail<'_> {
    fn length(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    fn write(&self, out: &mut Vec<u8>) {
        for part in self.0 {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A Vec takes every write.
    let _ = out.write_fmt(text);
}

/// A model as the stub lists it.
fn model(name: &str) -> Model {
    Model {
        family: Some("stub".to_owned()),
        size: Some(1_000_000_000),
        parameters: Some("1B".to_owned()),
        quantization: Some("Q4_0".to_owned()),
        owner: Some("stub".to_owned()),
        ..Model::named(name)
    }
}

/// JSON without its last brace.
fn unclosed(value: &Value) -> String {
    let mut text = value.to_string();
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Part, ResponseReader};

    fn replies() -> Replies {
        Replies::new(&["first \"quoted\"".to_owned(), "second".to_owned()])
    }

    fn body_of(bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let done = ResponseReader::default().feed(bytes, |part| {
            if let Part::Data(data) = part {
                body.extend_from_slice(data);
            }
        });
        assert_eq!(done, Ok(true));
        body
    }

    #[test]
    fn answers_are_json_with_the_nonce_and_the_length_announced() {
        for route in Route::ALL.into_iter().filter(|route| route.is_inference()) {
            for (tools, nonce) in [(false, None), (false, Some("n-1")), (true, Some("n-1"))] {
                let mut out = Vec::new();
                replies().write_response(route, tools, nonce, &mut out);
                let value: Value = serde_json::from_slice(&body_of(&out)).unwrap();
                assert_eq!(value["nonce"].as_str(), nonce, "{route:?}");
                assert_eq!(value["model"], "first \"quoted\"", "{route:?}");
            }
        }
    }

    #[test]
    fn listings_name_every_model() {
        for (route, list, key) in [
            (Route::Models, "data", "id"),
            (Route::Tags, "models", "name"),
        ] {
            let mut out = Vec::new();
            replies().write_fixed(route, &mut out);
            let value: Value = serde_json::from_slice(&body_of(&out)).unwrap();
            assert_eq!(value[list][1][key], "second");
            assert_eq!(value[list].as_array().map(Vec::len), Some(2));
        }
    }

    #[test]
    fn an_event_is_one_chunk_and_one_json_object() {
        for (tools, added_bytes) in [(false, 0), (false, 100_000), (true, 0), (true, 9)] {
            let mut out = STREAM_HEAD.to_vec();
            let mut lengths = Vec::new();
            for seq in 0..3 {
                let event = StubEvent {
                    seq,
                    last: seq == 2,
                    sent_ns: 7,
                    at: 9,
                    nonce: Some("n"),
                    added_bytes,
                    tools,
                };
                lengths.push(replies().write_event(&event, &mut out));
            }
            out.extend_from_slice(STREAM_END);
            let body = body_of(&out);
            assert!(body.ends_with(b"data: [DONE]\n\n"));
            let mut rest = body.as_slice();
            for (seq, length) in lengths.into_iter().enumerate() {
                let json = rest[..length].strip_prefix(b"data: ").unwrap();
                let value: Value = serde_json::from_slice(json).unwrap();
                assert_eq!(value["seq"], seq);
                assert_eq!(value["nonce"], "n");
                if !tools {
                    let text = value["choices"][0]["delta"]["content"].as_str().unwrap();
                    let bare = PIECES[usize::from(seq > 0)].len();
                    assert_eq!(text.len(), bare + added_bytes);
                }
                assert_eq!(value["choices"][0]["finish_reason"].is_null(), seq != 2);
                rest = &rest[length..];
            }
        }
    }

    #[test]
    fn a_route_is_a_method_and_a_path() {
        let table = [
            ("GET", "/", Route::Root),
            ("GET", "/v1/models?limit=1", Route::Models),
            ("POST", "/v1/chat/completions", Route::Chat),
            ("GET", "/v1/chat/completions", Route::Unknown),
            ("POST", "/v1/models", Route::Unknown),
            ("POST", "/stub/fault", Route::SetFault),
            ("GET", "/stub/fault", Route::Unknown),
            ("GET", "other", Route::Unknown),
        ];
        for (method, path, route) in table {
            assert_eq!(Route::of(method, path), route, "{method} {path}");
        }
    }
}
