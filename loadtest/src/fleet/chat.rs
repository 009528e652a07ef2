//! Chat completions of a simulated engine: what a request asks for, and its response as bytes.

use std::borrow::Cow;
use std::io::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use super::cache::Chain;
use super::engine::{Job, Usage};
use super::scenario::{EngineSpec, Kind, Lie};

/// Length of an output when neither a limit nor the prompt says one.
const OUTPUT_TOKENS: u64 = 128;

/// The longest output, in tokens: its text is in memory.
const OUTPUT_TOKENS_MAX: u64 = 1_000_000;

/// The factor by which `usage` is wrong in a lie.
const LIE_FACTOR: u64 = 100;

/// Head of a response in events.
pub(super) const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// What follows the last event.
const STREAM_END: &[u8] = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/// What a user says so that the output has this length: the sentence survives every proxy.
pub fn length_sentence(tokens: usize) -> String {
    format!("Answer in {tokens} tokens. ")
}

fn length_asked(text: &str) -> Option<u64> {
    let rest = text.strip_prefix("Answer in ")?;
    let (digits, _) = rest.split_once(" tokens.")?;
    digits.parse().ok()
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<Content<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Parts(#[serde(borrow)] Vec<Part<'a>>),
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

impl Content<'_> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Parts(parts) => parts.iter().map(|part| part.text.as_ref()).collect(),
        }
    }
}

/// How a response is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) id: u64,
    /// The place of its model.
    pub(super) model: usize,
    pub(super) stream: bool,
    pub(super) with_usage: bool,
}

/// Why a body is no request that an engine serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(String),
    UnknownModel(String),
}

/// Reads the body of a request.
pub(super) fn read(body: &[u8], id: u64, spec: &EngineSpec) -> Result<(Job, Form), Refusal> {
    let body: Body<'_> =
        serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let place = spec.models.iter().position(|name| *name == body.model);
    let model = place.ok_or_else(|| Refusal::UnknownModel(body.model.clone().into_owned()))?;
    let mut prompt = Chain::new(model);
    let mut asked = None;
    for message in &body.messages {
        let text = message
            .content
            .as_ref()
            .map(Content::text)
            .unwrap_or_default();
        prompt.push_message(&message.role, &text);
        if message.role == "user" {
            asked = length_asked(&text);
        }
    }
    let limit = body.max_completion_tokens.or(body.max_tokens);
    let length = asked.or(limit).unwrap_or(OUTPUT_TOKENS);
    let job = Job {
        model,
        prompt,
        output_tokens: length
            .min(limit.unwrap_or(u64::MAX))
            .clamp(1, OUTPUT_TOKENS_MAX),
    };
    let form = Form {
        id,
        model,
        stream: body.stream,
        with_usage: body
            .stream_options
            .is_some_and(|options| options.include_usage),
    };
    Ok((job, form))
}

/// Status line and body for a request that cannot be served.
pub(super) fn refusal(refusal: &Refusal) -> (&'static str, Value) {
    let (status, code, kind, message) = match refusal {
        Refusal::Malformed(what) => ("400 Bad Request", 400, "BadRequestError", what.clone()),
        Refusal::UnknownModel(name) => {
            let message = format!("The model `{name}` does not exist.");
            ("404 Not Found", 404, "NotFoundError", message)
        }
    };
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    (status, json!({"error": error}))
}

/// What llama.cpp sends while it loads a model.
pub(super) fn loading() -> (&'static str, Value) {
    let error = json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
    ("503 Service Unavailable", json!({"error": error}))
}

/// Writes a piece of text as an event; the first one names the role.
pub(super) fn write_piece(
    spec: &EngineSpec,
    form: Form,
    text: &str,
    first: bool,
    out: &mut Vec<u8>,
) {
    let role = if first { r#""role":"assistant","# } else { "" };
    let choices =
        format!(r#"[{{"index":0,"delta":{{{role}"content":"{text}"}},"finish_reason":null}}]"#);
    write_event(spec, form, &choices, "", out);
}

/// Writes the events that end a stream.
pub(super) fn write_end(spec: &EngineSpec, form: Form, usage: Usage, out: &mut Vec<u8>) {
    let timings = timings(spec, usage)
        .map(|timings| format!(r#","timings":{timings}"#))
        .unwrap_or_default();
    let choices = r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#;
    let last = if form.with_usage { "" } else { &timings };
    write_event(spec, form, choices, last, out);
    if form.with_usage {
        let more = format!(r#","usage":{}{timings}"#, usage_json(spec, usage));
        write_event(spec, form, "[]", &more, out);
    }
    out.extend_from_slice(STREAM_END);
}

fn write_event(spec: &EngineSpec, form: Form, choices: &str, more: &str, out: &mut Vec<u8>) {
    let (id, model) = (form.id, &spec.models[form.model]);
    let event = format!(
        "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":1,\
         \"model\":\"{model}\",\"choices\":{choices}{more}}}\n\n"
    );
    // Writing to a vector cannot fail.
    let _ = write!(out, "{:x}\r\n{event}\r\n", event.len());
}

/// A whole response.
pub(super) fn whole(spec: &EngineSpec, form: Form, text: &str, usage: Usage) -> Value {
    let message = json!({"role": "assistant", "content": text});
    let mut body = json!({
        "id": format!("chatcmpl-{}", form.id),
        "object": "chat.completion",
        "created": 1,
        "model": spec.models[form.model],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage_json(spec, usage),
    });
    if let Some(timings) = timings(spec, usage) {
        body["timings"] = timings;
    }
    body
}

/// What llama.cpp adds to `usage`.
fn timings(spec: &EngineSpec, usage: Usage) -> Option<Value> {
    let usage = reported(spec, usage);
    (spec.kind == Kind::Llamacpp).then(|| {
        json!({
            "cache_n": usage.cached_tokens,
            "prompt_n": usage.prompt_tokens - usage.cached_tokens,
            "predicted_n": usage.output_tokens,
        })
    })
}

fn usage_json(spec: &EngineSpec, usage: Usage) -> Value {
    let usage = reported(spec, usage);
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

/// The usage as the engine reports it.
fn reported(spec: &EngineSpec, usage: Usage) -> Usage {
    let change = |count: u64| {
        if spec.has_lie(Lie::UsageHigh) {
            count * LIE_FACTOR
        } else if spec.has_lie(Lie::UsageLow) {
            count / LIE_FACTOR
        } else {
            count
        }
    };
    Usage {
        prompt_tokens: change(usage.prompt_tokens),
        cached_tokens: change(usage.cached_tokens),
        output_tokens: change(usage.output_tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::scenario::Scenario;

    fn spec(kind: &str, lies: &str) -> EngineSpec {
        let text = format!(
            r#"{{"seconds":1,"engines":[{{"kind":"{kind}","models":["a","b"],"slots":1,
            "prefill_tps":1,"decode_ms":1,"cache_tokens":0,"lies":{lies}}}],
            "load":[{{"name":"x","models":["a"],"users":1,"rounds":1,"groups":1,
            "system_tokens":0,"user_tokens":1,"output_tokens":1}}]}}"#
        );
        Scenario::parse(&text).unwrap().engines.remove(0)
    }

    const USAGE: Usage = Usage {
        prompt_tokens: 1000,
        cached_tokens: 200,
        output_tokens: 300,
    };

    #[test]
    fn a_request_says_its_length_in_words_or_by_its_limit() {
        let table = [
            (r#""max_tokens":60"#, "hello", 60),
            (r#""max_tokens":60"#, "Answer in 40 tokens. hello", 40),
            (r#""max_tokens":60"#, "Answer in 80 tokens. hello", 60),
            (r#""max_completion_tokens":7"#, "hello", 7),
            (r#""n":1"#, "Answer in 80 tokens. hello", 80),
            (r#""n":1"#, "hello", OUTPUT_TOKENS),
            (r#""n":1"#, "Answer in 0 tokens. hello", 1),
            (r#""max_tokens":9000000000"#, "hello", OUTPUT_TOKENS_MAX),
        ];
        for (field, text, want) in table {
            let body = format!(
                r#"{{"model":"b",{field},"messages":[{{"role":"user","content":"{text}"}}]}}"#
            );
            let (job, form) = read(body.as_bytes(), 1, &spec("vllm", "[]")).unwrap();
            assert_eq!(
                (job.output_tokens, job.model, form.model),
                (want, 1, 1),
                "{body}"
            );
        }
    }

    #[test]
    fn text_counts_alike_in_each_form_of_content() {
        let forms = [
            r#""one two""#,
            r#""one\u0020two""#,
            r#"[{"type":"text","text":"one "},{"type":"text","text":"two"}]"#,
        ];
        let prompts = forms.map(|content| {
            let body = format!(
                r#"{{"model":"a","stream":true,"messages":[{{"role":"user","content":{content}}},
                {{"role":"assistant","content":null}}]}}"#
            );
            let (job, form) = read(body.as_bytes(), 1, &spec("vllm", "[]")).unwrap();
            assert!(form.stream && !form.with_usage);
            // "user", "one two", "assistant", "" and four line ends: 24 bytes.
            job.prompt.tokens()
        });
        assert_eq!(prompts, [6, 6, 6]);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let spec = spec("vllm", "[]");
        let unknown = read(br#"{"model":"c","messages":[]}"#, 1, &spec).unwrap_err();
        assert_eq!(refusal(&unknown).0, "404 Not Found");
        let malformed = read(br#"{"model":"a"}"#, 1, &spec).unwrap_err();
        assert_eq!(refusal(&malformed).0, "400 Bad Request");
    }

    #[test]
    fn a_lie_changes_what_is_reported() {
        let table = [("[]", 1000, 200), ("[\"usage_high\"]", 100_000, 20_000)];
        for (lies, prompt, cached) in [&table[..], &[("[\"usage_low\"]", 10, 2)]].concat() {
            let form = Form {
                id: 1,
                model: 0,
                stream: false,
                with_usage: true,
            };
            let body = whole(&spec("llamacpp", lies), form, "text", USAGE);
            assert_eq!(body["usage"]["prompt_tokens"], prompt, "{lies}");
            assert_eq!(body["timings"]["cache_n"], cached, "{lies}");
            assert_eq!(body["timings"]["prompt_n"], prompt - cached, "{lies}");
        }
    }

    #[test]
    fn a_stream_is_chunks_of_events() {
        let spec = spec("vllm", "[]");
        let form = Form {
            id: 1,
            model: 0,
            stream: true,
            with_usage: true,
        };
        let mut out = STREAM_HEAD.to_vec();
        write_piece(&spec, form, "one", true, &mut out);
        write_piece(&spec, form, " two", false, &mut out);
        write_end(&spec, form, USAGE, &mut out);
        let mut reader = crate::wire::ResponseReader::default();
        let mut splitter = crate::events::EventSplitter::default();
        let mut events = Vec::new();
        let done = reader.feed(&out, |part| {
            if let crate::wire::Part::Data(data) = part {
                splitter.feed(data, |event| events.push(event.data.to_vec()));
            }
        });
        assert_eq!(done, Ok(true));
        let json = |place: usize| serde_json::from_slice::<Value>(&events[place]).unwrap();
        assert_eq!(json(0)["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(json(1)["choices"][0]["delta"]["content"], " two");
        assert_eq!(json(2)["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            json(3)["usage"]["prompt_tokens_details"]["cached_tokens"],
            200
        );
        assert_eq!(events[4], b"[DONE]");
    }
}
