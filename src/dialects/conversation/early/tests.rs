use std::sync::{Arc, Mutex};

use olla_engine::exchange::Fault;
use olla_engine::handler::End;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::dialects::chat::generated::{CutCall, any_cuts, any_ops, chunks, cut};
use crate::dialects::chat::inflate::Inflater;
use crate::dialects::conversation::tests::plan;
use crate::dialects::conversation::{BodyRecorder, split::Mode};
use crate::dialects::responses::{Owner, ResponseStore, StoreBounds};
use crate::dialects::{
    COMMON_ROUTES, Choosing, Dialect, KEEP_ALIVE_COMMENT, Piece, Record, Sending, Sent, Whole,
};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::routing::testing::endpoint;

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
const COMMENT: &str = ": keep-alive\n\n";

/// Two seconds after a request came, at `2023-11-14T22:13:20.125Z`.
const AT: Moment = Moment {
    unix_ms: 1_700_000_000_125,
    elapsed: Duration::from_secs(2),
};

const CALLS: [CutCall; 3] = [
    ("f", &["{\"a\":", "\"}\\\"\"", "}"]),
    ("g", &["{}"]),
    ("h", &["", "{\"é\":\"", "\\u00e9😀\"}"]),
];

/// Paths of streams with a request for each.
const REQUESTS: [(&str, &str); 4] = [
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#,
    ),
    (
        "/v1/responses",
        r#"{"model":"m","stream":true,"input":"x","instructions":"i"}"#,
    ),
    (
        "/api/chat",
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
    ),
    ("/api/generate", r#"{"model":"m","prompt":"x"}"#),
];

/// A conversation that has made its request for the first endpoint.
fn sent(path: &str, body: &str, endpoints: &[Endpoint]) -> Conversation {
    let mut routes = COMMON_ROUTES.iter().flat_map(|family| family.routes);
    let route = routes.find(|route| route.path == path.as_bytes()).unwrap();
    let Dialect::Translated(mut conversation) = route.begin() else {
        panic!("{path} has no dialect");
    };
    let mut model = String::new();
    conversation.read(body.as_bytes(), &mut model).unwrap();
    conversation
        .choose(&Choosing {
            endpoints,
            candidates: &EndpointSet::first(endpoints.len()),
            plan: &plan(),
            now_ms: 5,
            unix_ms: 1_700_000_000_000,
            responses: &Arc::new(ResponseStore::new(StoreBounds::default())),
            owner: &Owner::default,
            is_keyed: false,
        })
        .unwrap();
    send(&mut conversation, 0, body, 1);
    *conversation
}

/// Picks an endpoint and makes the request for it.
fn send(conversation: &mut Conversation, index: usize, body: &str, seed: u8) -> Sent {
    conversation.picked(index);
    let sending = Sending {
        body: body.as_bytes(),
        model: "m",
        name: "m",
        kind: "lmdeploy",
        served_context: &|| None,
        seed: &|| [seed; 16],
        at: AT,
    };
    conversation.request(&sending).unwrap()
}

/// An endpoint that speaks none of the dialects, and one that speaks them.
fn endpoints() -> [Endpoint; 2] {
    [endpoint(0, "a", "lmdeploy"), endpoint(1, "b", "vllm")]
}

/// A response begins: events, or a document in their place.
fn responds(conversation: &mut Conversation, as_document: bool) {
    let stream = Box::new(conversation.translator.stream());
    if let Some(recorder) = &mut conversation.recorder {
        recorder.responds(true, None);
    }
    conversation.replying = match as_document {
        true => Replying::DocumentAsEvents(stream),
        false => Replying::Events(stream),
    };
}

/// What the client gets while the endpoint is silent.
fn early(conversation: &Conversation) -> String {
    let mut out = Vec::new();
    assert!(conversation.early(AT, &mut out));
    String::from_utf8(out).unwrap()
}

/// What the client gets of these pieces.
fn streamed(conversation: &mut Conversation, pieces: &[&[u8]], end: End) -> (String, Piece) {
    responds(conversation, false);
    let mut out = Vec::new();
    for piece in pieces {
        let _ = conversation.piece(piece, None, AT, &mut out);
    }
    let last = conversation.piece(b"", Some(end), AT, &mut out);
    (String::from_utf8(out).unwrap(), last)
}

/// Records what the client gets.
#[derive(Debug, Clone, Default)]
struct Listener(Arc<Mutex<Vec<u8>>>);

impl BodyRecorder for Listener {
    fn is_replaced(&self) -> bool {
        false
    }

    fn request(&mut self, _: &str, _: &[u8]) -> Option<Record> {
        None
    }

    fn responds(&mut self, events: bool, _: Option<Box<Inflater>>) {
        assert!(events);
        self.0.lock().unwrap().clear();
    }

    fn push(&mut self, piece: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(piece);
    }

    fn whole(&mut self, body: &[u8]) {
        *self.0.lock().unwrap() = body.to_vec();
    }

    fn response(self: Box<Self>, _: u16) -> Option<Record> {
        None
    }
}

/// The types of events; lines of Ollama's as `line`, the last as `done`, errors as `error`.
fn kinds(stream: &str) -> Vec<String> {
    let data = stream.lines().filter_map(|line| {
        let data = line.strip_prefix("data: ").unwrap_or(line);
        serde_json::from_str::<Value>(data).ok()
    });
    data.map(|data| match data["type"].as_str() {
        Some(kind) => kind.to_owned(),
        None if data.get("error").is_some() => "error".to_owned(),
        None if data["done"] == true => "done".to_owned(),
        None => "line".to_owned(),
    })
    .collect()
}

#[test]
fn the_first_events_are_those_of_the_dialect() {
    let all = endpoints();
    for ((path, body), (begins, then)) in REQUESTS.into_iter().zip([
        ("message_start", PING),
        ("response.created response.in_progress", COMMENT),
        ("line", ""),
        ("line", ""),
    ]) {
        let conversation = sent(path, body, &all[..1]);
        let first = early(&conversation);
        assert_eq!(kinds(&first).join(" "), begins, "{first}");
        // Later ones keep the stream alive; Ollama's are as the first.
        for _ in 0..2 {
            let then = if then.is_empty() { &first } else { then };
            assert_eq!(early(&conversation), *then);
        }
    }
    assert_eq!(KEEP_ALIVE_COMMENT, COMMENT.as_bytes());
}

#[test]
fn only_a_translated_stream_begins_early() {
    let all = endpoints();
    let (path, plain) = (
        "/v1/messages",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
    );
    let mut conversation = sent(path, plain, &all[..1]);
    assert!(!conversation.early(AT, &mut Vec::new()));
    let error = Error::new(502, "bad_gateway", "BACKEND_ERROR", "gone");
    assert_eq!(conversation.fail(&error, AT), None);
    // The second endpoint speaks it.
    let mut native = sent(path, REQUESTS[0].1, &all);
    assert_eq!(send(&mut native, 1, REQUESTS[0].1, 1), Sent::Client);
    let mut out = Vec::new();
    assert!(!native.early(AT, &mut out) && out.is_empty());
}

#[test]
fn messages_begin_after_ten_seconds_at_the_latest() {
    let all = endpoints();
    let secs = Duration::from_secs;
    for (at, waits) in [(0, 10), (1, 15)] {
        let mut messages = sent(REQUESTS[0].0, REQUESTS[0].1, &all);
        send(&mut messages, at, REQUESTS[0].1, 1);
        assert_eq!(messages.silence_max(secs(15)), secs(waits));
        assert_eq!(messages.silence_max(secs(3)), secs(3));
    }
    for (path, body) in &REQUESTS[1..] {
        let other = sent(path, body, &all[..1]);
        assert_eq!(other.silence_max(secs(15)), secs(15));
    }
}

/// Once a stream has begun, another endpoint goes on with it, whatever it speaks.
#[test]
fn another_endpoint_continues_the_stream() {
    let all = endpoints();
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    for (path, body) in &REQUESTS[..2] {
        let mut conversation = sent(path, body, &all);
        let mut whole = early(&conversation);
        assert_eq!(send(&mut conversation, 1, body, 2), Sent::Own, "{path}");
        assert_eq!(conversation.mode, Some(Mode::Translation));
        whole += &streamed(&mut conversation, &[event], End::Whole).0;
        let mut other = sent(path, body, &all);
        assert_eq!(
            whole,
            streamed(&mut other, &[event], End::Whole).0,
            "{path}"
        );
    }
}

/// What an endpoint does after a stream has begun, and how the stream ends.
#[test]
fn every_end_is_one_of_the_stream() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let broken = End::Broken(Fault::Closed);
    for (said, end, ends, code) in [
        (
            chunk,
            End::Whole,
            ["message_stop", "response.completed", "done"],
            "",
        ),
        (
            chunk,
            broken,
            ["error", "response.failed", "error"],
            "server_error",
        ),
        (
            "",
            broken,
            ["error", "response.failed", "error"],
            "server_error",
        ),
        // docs/contract/translation.md#8.4: an empty message is one.
        (
            "",
            End::Whole,
            ["message_stop", "response.failed", "error"],
            "server_error",
        ),
        (
            "oops",
            End::Whole,
            ["error", "response.failed", "error"],
            "server_error",
        ),
        (
            "data: {\"error\":{\"message\":\"no\",\"code\":\"own\"}}\n\n",
            End::Whole,
            ["error", "response.failed", "error"],
            "own",
        ),
    ] {
        for ((path, body), expected) in REQUESTS
            .into_iter()
            .zip([ends[0], ends[1], ends[2], ends[2]])
        {
            let recorded = Listener::default();
            let mut conversation = sent(path, body, &endpoints()[..1]);
            conversation.recorder = Some(Box::new(recorded.clone()));
            let begin = early(&conversation);
            let (rest, piece) = streamed(&mut conversation, &[said.as_bytes()], end);
            assert_eq!(piece, Piece::Complete, "{path} {said}");
            let kinds = kinds(&(begin.clone() + &rest));
            assert_eq!(kinds.last().map(String::as_str), Some(expected), "{rest}");
            assert_eq!(rest.matches("message_start").count(), 0);
            assert_eq!(rest.matches("response.created").count(), 0);
            if path == "/v1/responses" && !code.is_empty() {
                assert!(rest.contains(&format!("\"code\":\"{code}\"")), "{rest}");
            }
            let fails = matches!(expected, "error" | "response.failed");
            assert_eq!(conversation.has_failed(), fails);
            // Ollama's first line is one without meaning, which is not recorded.
            let recorded = String::from_utf8(recorded.0.lock().unwrap().clone()).unwrap();
            let is_lines = path.starts_with("/api");
            assert_eq!(recorded, if is_lines { rest } else { begin + &rest });
        }
    }
}

#[test]
fn an_error_ends_the_stream() {
    for (status, code) in [(502, "server_error"), (429, "rate_limit_exceeded")] {
        for (path, body) in REQUESTS {
            let recorded = Listener::default();
            let mut conversation = sent(path, body, &endpoints()[..1]);
            conversation.recorder = Some(Box::new(recorded.clone()));
            let begin = early(&conversation);
            let error = Error::new(status, "k", "C", "gone \"away\"");
            let rest = conversation.fail(&error, AT).unwrap();
            let rest = String::from_utf8(rest).unwrap();
            let kinds = kinds(&rest);
            assert_eq!(kinds.len(), 1, "{rest}");
            assert!(rest.contains("gone \\\"away\\\""), "{rest}");
            if path == "/v1/responses" {
                let data = rest.lines().find_map(|line| line.strip_prefix("data: "));
                let data: Value = serde_json::from_str(data.unwrap()).unwrap();
                assert_eq!(data["sequence_number"], 2);
                assert_eq!(data["response"]["error"]["code"], code);
                assert_eq!(data["response"]["instructions"], "i");
                assert!(begin.contains(data["response"]["id"].as_str().unwrap()));
            }
            assert!(conversation.has_failed());
            conversation.refused(rest.as_bytes());
            let recorded = String::from_utf8(recorded.0.lock().unwrap().clone()).unwrap();
            let is_lines = path.starts_with("/api");
            assert_eq!(recorded, if is_lines { rest } else { begin + &rest });
        }
    }
}

#[test]
fn a_document_continues_the_stream() {
    let document = json!({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]});
    let document = document.to_string();
    for (path, body) in REQUESTS {
        let mut plain = sent(path, body, &endpoints()[..1]);
        responds(&mut plain, true);
        let Whole::Events(expected) = plain.whole(document.as_bytes(), 0, AT) else {
            panic!("no events");
        };
        let mut conversation = sent(path, body, &endpoints()[..1]);
        responds(&mut conversation, true);
        let begin = early(&conversation);
        let Whole::Events(rest) = conversation.whole(document.as_bytes(), 0, AT) else {
            panic!("no events");
        };
        let rest = String::from_utf8(rest).unwrap();
        let expected = String::from_utf8(expected).unwrap();
        let is_lines = path.starts_with("/api");
        assert_eq!(if is_lines { rest } else { begin + &rest }, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// A stream that begins early is the same as one that does not, but for what keeps it alive.
    #[test]
    fn the_rest_is_the_same_stream(
        ops in any_ops(CALLS.len()),
        cuts in any_cuts(),
        silences in 1..3_usize,
        seed in any::<u8>(),
    ) {
        let mut stream = String::new();
        for chunk in chunks(&ops, &CALLS) {
            stream.push_str(&format!("data: {chunk}\n\n"));
        }
        // An empty response is none in some dialects.
        stream.push_str("data: {\"choices\":[{\"delta\":{}}]}\n\ndata: [DONE]\n\n");
        let pieces = cut(stream.as_bytes(), &cuts);
        for (path, body) in REQUESTS {
            let all = endpoints();
            let (expected, end) = streamed(&mut sent(path, body, &all[..1]), &pieces, End::Whole);
            let mut conversation = sent(path, body, &all[..1]);
            let begin = early(&conversation);
            for _ in 1..silences {
                early(&conversation);
            }
            send(&mut conversation, 0, body, seed);
            let (rest, found) = streamed(&mut conversation, &pieces, End::Whole);
            prop_assert_eq!(found, end);
            let is_lines = path.starts_with("/api");
            prop_assert_eq!(if is_lines { rest } else { begin + &rest }, expected);
        }
    }
}
