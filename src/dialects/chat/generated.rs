//! Generated streams of endpoints, for the properties of all translations.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// What an endpoint says with one chunk.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Think(String),
    Say(String),
    /// The next piece of the arguments of the call with this index; the first piece names it.
    Call(usize),
    Role,
}

/// A call that an endpoint may make: its name, and its arguments, cut where the endpoint cuts them.
pub(crate) type CutCall = (&'static str, &'static [&'static str]);

/// The parts of event streams, and some of other texts.
const PARTS: [&str; 14] = [
    "data: ",
    "data:",
    "\n",
    "\n\n",
    "\r\n",
    "[DONE]",
    "{",
    "}",
    "\"",
    ":",
    "event: x",
    r#"{"choices":[{"delta":{"content":"x"}}]}"#,
    r#"{"choices":[{"message":{"content":"x"}}]}"#,
    r#"{"error":"x"}"#,
];

/// The chunks' JSON: each piece of arguments is sent once, in its order.
pub(crate) fn chunks(ops: &[Op], calls: &[CutCall]) -> Vec<Value> {
    let mut sent = vec![0; calls.len()];
    let mut chunks = Vec::new();
    for op in ops {
        let delta = match op {
            Op::Think(text) => json!({"reasoning_content": text}),
            Op::Say(text) => json!({"content": text}),
            Op::Role => json!({"role": "assistant", "content": ""}),
            Op::Call(index) => {
                let (name, arguments) = calls[*index];
                let Some(piece) = arguments.get(sent[*index]) else {
                    continue;
                };
                let mut call = json!({"index": index, "function": {"arguments": piece}});
                if sent[*index] == 0 {
                    call["id"] = json!(format!("c{index}"));
                    call["function"]["name"] = json!(name);
                }
                sent[*index] += 1;
                json!({"tool_calls": [call]})
            }
        };
        chunks.push(json!({"choices": [{"index": 0, "delta": delta}]}));
    }
    chunks
}

/// What an endpoint says that may make so many calls, most of all pieces of them.
pub(crate) fn any_ops(calls: usize) -> impl Strategy<Value = Vec<Op>> {
    let text = "[a-zé😀\"\\\\\n]{0,4}";
    let op = prop_oneof![
        1 => text.prop_map(Op::Think),
        2 => text.prop_map(Op::Say),
        6 => (0..calls).prop_map(Op::Call),
        1 => Just(Op::Role),
    ];
    prop::collection::vec(op, 0..16)
}

/// Bytes that look like a stream, with these parts among others, and some that do not.
pub(crate) fn any_stream(more: &[&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let parts = PARTS.into_iter().chain(more.iter().copied());
    let part = prop_oneof![
        prop::sample::select(parts.collect::<Vec<_>>()).prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Places at which a stream may be cut.
pub(crate) fn any_cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..8)
}

/// A stream in pieces.
pub(crate) fn cut<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter()
        .map(|end| &stream[std::mem::replace(&mut start, end)..end])
        .collect()
}
