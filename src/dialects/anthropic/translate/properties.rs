//! Generated streams, compared with a slow and obvious translation of them, and with what the
//! translation of whole responses makes of the same content.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::completion::tests::context;
use super::stream::tests::run;
use super::*;
use crate::dialects::chat::generated::{CutCall, any_cuts, any_ops, any_stream, chunks, cut};
use crate::dialects::chat::stream::{End, Progress};

/// Calls, with their arguments cut where the endpoint cuts them.
const CALLS: [CutCall; 4] = [
    ("f0", &["{\"a\":", "\"}\\\"\"", "}"]),
    ("f1", &["{", "\"b\"", ":[1,{}]}"]),
    ("f2", &["{}"]),
    ("f3", &["", "{\"é\":\"", "\\u00e9😀\"}"]),
];

/// The reference: values, and copies of everything.
#[derive(Default)]
struct Reference {
    events: Vec<Value>,
    open: Option<Value>,
    index: u64,
    /// Index, pieces, how many of them were sent, and whether its block was opened and closed.
    calls: Vec<(u64, Vec<String>, usize, bool, bool)>,
    bytes: usize,
}

impl Reference {
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.events
                .push(json!({"type": "content_block_stop", "index": self.index}));
            self.index += 1;
        }
        for call in &mut self.calls {
            call.4 = call.3;
        }
    }

    fn block(&mut self, block: Value) {
        self.close();
        self.events.push(
            json!({"type": "content_block_start", "index": self.index, "content_block": block}),
        );
        self.open = Some(block["type"].clone());
    }

    fn delta(&mut self, kind: &str, key: &str, text: &str) {
        self.events.push(json!({
            "type": "content_block_delta", "index": self.index, "delta": {"type": kind, key: text},
        }));
    }

    fn prose(&mut self, kind: &str, block: Value, text: &str) {
        if text.is_empty() {
            return;
        }
        self.bytes += text.len();
        if self.open != Some(json!(kind)) {
            while self.open_next() {}
            self.block(block);
        }
        self.delta(&format!("{kind}_delta"), kind, text);
    }

    /// Opens the first call that is not yet, whatever the open one lacks.
    fn open_next(&mut self) -> bool {
        let Some(at) = self.calls.iter().position(|call| !call.3) else {
            return false;
        };
        let (index, pieces, ..) = self.calls[at].clone();
        self.block(json!({"type": "tool_use", "id": format!("c{index}"),
                          "name": format!("f{index}"), "input": {}}));
        self.calls[at].3 = true;
        self.calls[at].2 = pieces.len();
        let held = pieces.concat();
        if !held.is_empty() {
            self.delta("input_json_delta", "partial_json", &held);
        }
        true
    }

    fn may_open(&self) -> bool {
        let current = self.calls.iter().find(|call| call.3 && !call.4);
        current.is_none_or(|call| serde_json::from_str::<Value>(&call.1.concat()).is_ok())
    }

    fn call(&mut self, index: u64, piece: &str) {
        let at = match self.calls.iter().position(|call| call.0 == index) {
            Some(at) => at,
            None => {
                self.calls.push((index, Vec::new(), 0, false, false));
                self.bytes += format!("f{index}").len();
                self.calls.len() - 1
            }
        };
        while self.may_open() && self.open_next() {}
        self.bytes += piece.len();
        self.calls[at].1.push(piece.to_owned());
        if self.calls[at].3 && !self.calls[at].4 && !piece.is_empty() {
            self.delta("input_json_delta", "partial_json", piece);
        }
        while self.may_open() && self.open_next() {}
    }
}

/// The events that follow from the chunks, without the first.
fn reference(chunks: &[Value]) -> Vec<Value> {
    let mut state = Reference::default();
    for chunk in chunks {
        let delta = &chunk["choices"][0]["delta"];
        if let Some(text) = delta["reasoning_content"].as_str() {
            let block = json!({"type": "thinking", "thinking": "", "signature": ""});
            state.prose("thinking", block, text);
        }
        if let Some(text) = delta["content"].as_str() {
            state.prose("text", json!({"type": "text", "text": ""}), text);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let piece = call["function"]["arguments"].as_str().unwrap();
            state.call(call["index"].as_u64().unwrap(), piece);
        }
    }
    while state.open_next() {}
    state.close();
    let reason = if state.calls.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    };
    let tokens = if state.bytes == 0 {
        0
    } else {
        (state.bytes / 4).max(1)
    };
    let mut events = state.events;
    events.push(json!({
        "type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"input_tokens": 77, "output_tokens": tokens,
                  "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }));
    events.push(json!({"type": "message_stop"}));
    events
}

fn events(stream: &str) -> Vec<Value> {
    let data = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// Chunks as an event stream, with noise between them.
fn wire(chunks: &[Value], noise: &[usize]) -> Vec<u8> {
    let mut stream = String::new();
    let mut noise = noise.iter().cycle();
    for chunk in chunks {
        let (end, before) = match noise.next().copied().unwrap_or(0) {
            0 => ("\n", ""),
            1 => ("\r\n", ": comment\r\n"),
            2 => ("\r", "data: {broken\n\n"),
            3 => (
                "\n",
                "event: x\nid: 1\ndata: {\"choices\":[{\"delta\":{\"content\":7}}]}\n\n",
            ),
            _ => ("\r\n", "\n\ndata:\n\n"),
        };
        stream.push_str(&format!("{before}data: {chunk}{end}{end}"));
    }
    stream.into_bytes()
}

/// A part of a stream: the beginning of a call.
const CALL_PART: &str =
    r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}}]}"#;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    #[test]
    fn streams_become_the_events_of_the_reference(
        ops in any_ops(CALLS.len()),
        noise in prop::collection::vec(0..5_usize, 1..6),
        cuts in any_cuts(),
    ) {
        let chunks = chunks(&ops, &CALLS);
        let stream = wire(&chunks, &noise);
        let (out, progress) = run(&cut(&stream, &cuts), End::Clean);
        prop_assert_eq!(progress, Progress::Finished);
        prop_assert_eq!(&events(&out)[1..], &reference(&chunks)[..], "{}", out);
    }

    #[test]
    fn a_stream_and_a_whole_answer_say_the_same(
        thinking in "[a-zé\"]{0,9}",
        text in "[a-zé\n\\\\]{0,9}",
        calls in 0..CALLS.len(),
    ) {
        let tool_calls: Vec<_> = (0..calls).map(|at| json!({
            "index": at, "id": format!("c{at}"), "type": "function",
            "function": {"name": format!("f{at}"), "arguments": CALLS[at].1.concat()},
        })).collect();
        let body = json!({
            "content": text, "reasoning": thinking, "tool_calls": tool_calls,
        });
        let answer = json!({"model": "q", "choices": [{"message": body, "finish_reason": "stop"}]});
        let chunk = json!({"model": "q", "choices": [{"delta": body, "finish_reason": "stop"}]});
        let whole = from_openai(answer.to_string().as_bytes(), &context()).unwrap();
        let mut whole: Value = serde_json::from_slice(&whole.body).unwrap();
        if thinking.is_empty() && text.is_empty() && calls == 0 {
            // A whole message has a block in any case.
            whole["content"] = json!([]);
        }
        for stream in [format!("data: {chunk}\n\n"), answer.to_string()] {
            let (out, _) = run(&[stream.as_bytes()], End::Clean);
            let mut assembly = Assembly::default();
            assembly.push(out.as_bytes());
            let streamed: Value = serde_json::from_slice(&assembly.finish()).unwrap();
            prop_assert_eq!(&streamed, &whole, "{}", stream);
        }
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut(
        stream in any_stream(&[CALL_PART]),
        cuts in any_cuts(),
        end in prop::sample::select(vec![End::Clean, End::Broken, End::TimedOut]),
    ) {
        let whole = run(&[&stream], end);
        prop_assert_eq!(&run(&cut(&stream, &cuts), end), &whole);
        prop_assert_ne!(&whole.1, &Progress::Waiting);
        prop_assert_ne!(&whole.1, &Progress::Streaming);
        events(&whole.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(100)
    })]

    #[test]
    fn any_json_is_translated_to_json_or_refused(
        message in crate::json::tests::any_json(),
        tools in crate::json::tests::any_json(),
        keys in prop::collection::vec((0..14_usize, crate::json::tests::any_json()), 0..4),
    ) {
        const KEYS: [&str; 14] = [
            "type", "text", "content", "source", "data", "input", "id", "name", "title",
            "tool_use_id", "media_type", "url", "is_error", "input_schema",
        ];
        let members: String = keys.iter()
            .map(|(key, value)| format!(r#","{}":{value}"#, KEYS[*key])).collect();
        for kind in ["text", "image", "document", "tool_use", "tool_result", "search_result"] {
            for role in ["user", "assistant", "system"] {
                let block = format!(r#"{{"type":"{kind}"{members}}}"#);
                let body = format!(
                    r#"{{"model":"m","max_tokens":1,"tools":[{tools},{block}],"system":[{block}],
                        "messages":[{{"role":"{role}","content":[{block},{message}]}},
                                    {{"role":"user","content":{message}}}]}}"#
                );
                let checked = check(body.as_bytes()).unwrap();
                if let Ok(translated) = to_openai(body.as_bytes(), &checked, "n", None) {
                    let sent: Value = serde_json::from_slice(&translated.body).unwrap();
                    prop_assert!(!sent["messages"].as_array().unwrap().is_empty());
                }
                checked.context(body.as_bytes(), IdSeed([0; 16]));
                prop_assert!(count_tokens(body.as_bytes()).is_ok());
                let answer = format!(
                    r#"{{"choices":[{{"message":{{"content":[{block}],"tool_calls":[{{"function":{block}}}]}}}}]}}"#
                );
                let translated = from_openai(answer.as_bytes(), &context()).unwrap();
                prop_assert!(serde_json::from_slice::<Value>(&translated.body).is_ok());
            }
        }
    }
}
