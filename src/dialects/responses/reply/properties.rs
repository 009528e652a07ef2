//! Generated streams (docs/contract/dialects.md#8.3).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{cut, events, finished_stream, run};
use crate::dialects::responses::properties::{NAMES, tools};

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    /// Deltas, the last event of an item, the item and the response say the same.
    #[test]
    fn streams_are_consistent(
        ops in prop::collection::vec(any_op(), 0..16),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        summary in any::<bool>(),
        finish in prop::sample::select(vec!["stop", "length", "tool_calls"]),
    ) {
        let mut request = json!({"tools": tools()});
        if summary {
            request["reasoning"] = json!({"summary": "auto"});
        }
        let stream = finished_stream(&chunks(&ops), finish);
        let whole = run(&request, &[&stream]);
        prop_assert_eq!(&run(&request, &cut(&stream, &cuts)), &whole);
        let events = events(&whole);
        let last = &events[events.len() - 1]["response"];
        let items: Vec<&Value> = events.iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| &event["item"]).collect();
        prop_assert_eq!(&json!(items), &last["output"]);
        for (at, item) in items.iter().enumerate() {
            check_item(at, item, &events);
        }
        let joined = |kind: &str, text: fn(&Value) -> &Value| -> String {
            let of_kind = items.iter().filter(|item| item["type"] == kind);
            of_kind.map(|item| text(item).as_str().unwrap_or("")).collect()
        };
        let said: String = ops.iter().map(|op| match op { Op::Say(text) => text.as_str(), _ => "" }).collect();
        prop_assert_eq!(joined("message", |item| &item["content"][0]["text"]), said);
        let thought: String = ops.iter().map(|op| match op { Op::Think(text) => text.as_str(), _ => "" }).collect();
        let shown = if summary {
            joined("reasoning", |item| &item["summary"][0]["text"])
        } else {
            joined("reasoning", |item| &item["content"][0]["text"])
        };
        prop_assert_eq!(shown, thought);
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut(
        stream in any_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let request = json!({"tools": tools()});
        let whole = run(&request, &[&stream]);
        prop_assert_eq!(&run(&request, &cut(&stream, &cuts)), &whole);
        events(&whole);
    }
}

/// What an endpoint says with one chunk.
#[derive(Debug, Clone)]
enum Op {
    Think(String),
    Say(String),
    /// The next piece of the arguments of the call with this index; the first piece names it.
    Call(usize),
}

/// Arguments of the calls to [`NAMES`], cut where the endpoint cuts them.
const ARGUMENTS: [&[&str]; 4] = [
    &["{\"a\":", "\"}\\\"\"", "}"],
    &["{\"input\":\"x\\", "n\\ud83d", "\\ude00é", "\"}"],
    &["{\"command\":[\"l", "s\"]}"],
    &["", "{\"é\":\"", "\\u00e9😀\"}"],
];

fn chunks(ops: &[Op]) -> Vec<Value> {
    let mut sent = [0; ARGUMENTS.len()];
    let mut chunks = Vec::new();
    for op in ops {
        let delta = match op {
            Op::Think(text) => json!({"reasoning_content": text}),
            Op::Say(text) => json!({"content": text}),
            Op::Call(at) => {
                let Some(piece) = ARGUMENTS[*at].get(sent[*at]) else {
                    continue;
                };
                let mut call = json!({"index": at, "function": {"arguments": piece}});
                if sent[*at] == 0 {
                    call["id"] = json!(format!("c{at}"));
                    call["function"]["name"] = json!(NAMES[*at]);
                }
                sent[*at] += 1;
                json!({"tool_calls": [call]})
            }
        };
        chunks.push(json!({"choices": [{"index": 0, "delta": delta}]}));
    }
    chunks
}

fn any_op() -> impl Strategy<Value = Op> {
    let text = "[a-zé😀\"\\\\\n]{0,4}";
    prop_oneof![
        1 => text.prop_map(Op::Think),
        2 => text.prop_map(Op::Say),
        6 => (0..ARGUMENTS.len()).prop_map(Op::Call),
    ]
}

/// The events of one item: in their order, under its place and id, with one text.
fn check_item(at: usize, item: &Value, events: &[Value]) {
    let own: Vec<&Value> = events
        .iter()
        .filter(|event| event["output_index"] == at)
        .collect();
    let kind = |event: &Value| event["type"].as_str().unwrap().to_owned();
    assert_eq!(kind(own[0]), "response.output_item.added");
    assert_eq!(own[0]["item"]["id"], item["id"]);
    assert_eq!(own[0]["item"]["status"], "in_progress");
    let first = events
        .iter()
        .position(|event| event["output_index"] == at)
        .unwrap();
    assert!(
        events[first..first + own.len()]
            .iter()
            .all(|event| event["output_index"] == at)
    );
    let inner = &own[1..own.len() - 1];
    assert!(inner.iter().all(|event| event["item_id"] == item["id"]));
    let deltas: String = inner
        .iter()
        .filter(|event| kind(event).ends_with(".delta"))
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    let pieces = inner.iter().filter(|event| kind(event).ends_with(".delta"));
    assert!(pieces.clone().all(|event| event["delta"] != ""));
    let (text, done) = match item["type"].as_str().unwrap() {
        "message" => (&item["content"][0]["text"], "text"),
        "reasoning" if item["content"] == json!([]) => (&item["summary"][0]["text"], "text"),
        "reasoning" => (&item["content"][0]["text"], "text"),
        "function_call" => (&item["arguments"], "arguments"),
        "custom_tool_call" => (&item["input"], "input"),
        "local_shell_call" => {
            assert!(inner.is_empty());
            return;
        }
        other => panic!("{other}"),
    };
    let text = text.as_str().unwrap();
    if !(text == "{}" && pieces.count() == 0) {
        assert_eq!(deltas, text);
    }
    let done = inner
        .iter()
        .find(|event| event.get(done).is_some())
        .unwrap()[done]
        .clone();
    assert_eq!(done, text);
}

/// Bytes that look like a stream, and some that do not.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "data: ", "data:", "\n", "\n\n", "\r\n", "[DONE]", "{", "}", "\"", ":", "event: x",
            r#"{"choices":[{"delta":{"content":"x"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"patch","arguments":"{\"input\":\"\\ud8"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"3d"}}]}}]}"#,
            r#"{"choices":[{"message":{"content":"x"}}]}"#,
            r#"{"error":"x"}"#,
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}
