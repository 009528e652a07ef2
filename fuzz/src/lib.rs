//! What the targets share: pieces of an input, bodies with less noise, JSON and event streams read
//! as strictly as the strictest client does, and what each chat completion request must be.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The model's name at the endpoint, in the requests of the trials; it needs escapes.
pub const SENT_NAME: &str = "\"new\"\\";

/// A body cut at these lengths, one after the other; the last piece has the rest.
pub fn pieces<'b>(body: &'b [u8], cuts: &[u16]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::with_capacity(cuts.len() + 1);
    let mut rest = body;
    for cut in cuts {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*cut)));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// A body cut at every byte.
pub fn bytes(body: &[u8]) -> Vec<&[u8]> {
    body.chunks(1).collect()
}

/// Each line as the `delta` of a chunk of a stream. An input of deltas alone leaves the noise of a
/// stream out, so that mutations hit what is translated; without `DONE` the stream ends early.
pub fn chunks_of_deltas(deltas: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for delta in deltas.split(|byte| *byte == b'\n') {
        if delta == b"DONE" {
            stream.extend_from_slice(b"data: [DONE]\n\n");
            continue;
        }
        stream.extend_from_slice(br#"data: {"choices":[{"delta":"#);
        stream.extend_from_slice(delta);
        stream.extend_from_slice(b"}]}\n\n");
    }
    stream
}

/// Checks that output does not grow faster than the input. `factor` is what the smallest input
/// that makes a piece of output costs; a second copy of everything for each piece exceeds it.
pub fn check_growth(input: usize, output: usize, factor: usize) {
    let most = (input + 256) * factor;
    assert!(output <= most, "{output} bytes out of {input}");
}

/// Does `work` on an input, and checks that what it holds in memory at once does not grow faster than
/// the input. `factor` leaves room for what small parts cost, and for buffers that double.
pub fn bounded<T>(input: usize, factor: usize, work: impl FnOnce() -> T) -> T {
    let mut done = None;
    let memory = allocation_counter::measure(|| done = Some(work()));
    let most = (input as u64 + 1024) * factor as u64;
    let held = memory.bytes_max;
    assert!(
        held <= most,
        "{held} bytes are held for an input of {input}"
    );
    done.expect("a result")
}

/// One JSON value, however deep.
pub fn value(text: &[u8]) -> Value {
    let mut reader = serde_json::Deserializer::from_slice(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).expect("a JSON value");
    reader.end().expect("nothing behind the value");
    value
}

/// A JSON object in which no member comes twice.
pub fn object(text: &[u8]) -> Map<String, Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    reader.disable_recursion_limit();
    let keys = reader.deserialize_map(Keys).expect("a JSON object");
    assert!(keys, "a member comes twice");
    match value(text) {
        Value::Object(members) => members,
        other => panic!("expected an object, got {other}"),
    }
}

/// Whether the keys of an object differ.
struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<bool, M::Error> {
        let mut keys = BTreeSet::new();
        let mut differ = true;
        while let Some((key, _)) = members.next_entry::<String, IgnoredAny>()? {
            differ &= keys.insert(key);
        }
        Ok(differ)
    }
}

/// Whether a body is a JSON object, as far as its first letter says.
pub fn looks_like_json(body: &[u8]) -> bool {
    let start = body.iter().position(|byte| !b" \t\r\n".contains(byte));
    start.is_some_and(|start| body[start] == b'{')
}

/// An event stream of a name and one line of data each, comments aside, as its values; each has
/// its name as `type` (docs/contract/dialects.md#8.3, docs/contract/translation.md#8.3).
pub fn events(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with("\n\n"), "half an event");
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name");
        let data = data.strip_prefix("data: ").expect("data");
        assert!(!data.contains(['\n', '\r']), "a third line");
        let event = Value::Object(object(data.as_bytes()));
        assert_eq!(event["type"], name);
        event
    });
    events.collect()
}

/// Checks what an endpoint gets of a conversation (docs/contract/dialects.md#4). Results of calls
/// that are nowhere are results only if the dialect keeps them.
pub fn check_chat(sent: &[u8], keeps_orphans: bool) -> Map<String, Value> {
    let sent = object(sent);
    assert_eq!(sent["model"], SENT_NAME);
    let messages = sent["messages"].as_array().expect("messages");
    assert!(!messages.is_empty());
    let mut called: BTreeSet<&str> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let content = &message["content"];
        match message["role"].as_str().expect("a role") {
            "system" => assert!(at == 0 && content.as_str().is_some_and(|it| !it.is_empty())),
            "user" => check_content(content),
            "assistant" => {
                let calls = message
                    .get("tool_calls")
                    .map(|it| it.as_array().expect("calls"));
                let calls = calls.map_or(&[][..], Vec::as_slice);
                calls.iter().for_each(check_call);
                called = calls.iter().filter_map(|call| call["id"].as_str()).collect();
                match content {
                    Value::Null => assert!(!calls.is_empty()),
                    text => assert!(text.as_str().is_some_and(|text| !text.is_empty())),
                }
            }
            "tool" => {
                assert!(content.is_string());
                let id = message["tool_call_id"].as_str().expect("an id");
                assert!(keeps_orphans || called.contains(id));
                continue;
            }
            other => panic!("the role {other}"),
        }
        if message["role"] != "assistant" {
            called.clear();
        }
    }
    check_stream_options(&sent);
    check_tools(&sent);
    sent
}

/// Token counts are asked for on streams, and only there.
pub fn check_stream_options(sent: &Map<String, Value>) {
    let is_stream = sent.get("stream") == Some(&Value::Bool(true));
    assert_eq!(is_stream, sent.contains_key("stream_options"));
}

/// A content of the user: text, or parts that have a type.
fn check_content(content: &Value) {
    if let Some(parts) = content.as_array() {
        assert!(parts.iter().all(|part| part["type"].is_string()));
        let texts = parts.iter().filter(|part| part["type"] == "text");
        texts.for_each(|part| assert!(part["text"].is_string()));
    } else {
        assert!(content.is_string());
    }
}

fn check_call(call: &Value) {
    assert!(call["id"].is_string() && call["type"] == "function");
    let function = &call["function"];
    assert!(function["name"].is_string() && function["arguments"].is_string());
}

/// Tools have names, and what is said about tools is said only if there are some.
fn check_tools(sent: &Map<String, Value>) {
    let Some(tools) = sent.get("tools") else {
        assert!(!sent.contains_key("tool_choice") && !sent.contains_key("parallel_tool_calls"));
        return;
    };
    let tools = tools.as_array().expect("tools");
    assert!(!tools.is_empty());
    for tool in tools {
        assert!(tool["type"].is_string() && tool["function"]["name"].is_string());
        assert!(tool["function"].get("parameters").is_some());
    }
}
