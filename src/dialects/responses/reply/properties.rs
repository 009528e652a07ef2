//! Generated streams (docs/contract/dialects.md#8.3).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{events, finished_stream, run};
use crate::dialects::chat::generated::{CutCall, Op, any_cuts, any_ops, any_stream, chunks, cut};
use crate::dialects::responses::properties::{NAMES, tools};

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    /// Deltas, the last event of an item, the item and the response say the same.
    #[test]
    fn streams_are_consistent(
        ops in any_ops(CALLS.len()),
        cuts in any_cuts(),
        summary in any::<bool>(),
        finish in prop::sample::select(vec!["stop", "length", "tool_calls"]),
    ) {
        let mut request = json!({"tools": tools()});
        if summary {
            request["reasoning"] = json!({"summary": "auto"});
        }
        let stream = finished_stream(&chunks(&ops, &CALLS), finish);
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
        stream in any_stream(&CALL_PARTS),
        cuts in any_cuts(),
    ) {
        let request = json!({"tools": tools()});
        let whole = run(&request, &[&stream]);
        prop_assert_eq!(&run(&request, &cut(&stream, &cuts)), &whole);
        events(&whole);
    }
}

/// Calls of the tools of all kinds, with their arguments cut where the endpoint cuts them.
const CALLS: [CutCall; 4] = [
    (NAMES[0], &["{\"a\":", "\"}\\\"\"", "}"]),
    (
        NAMES[1],
        &["{\"input\":\"x\\", "n\\ud83d", "\\ude00é", "\"}"],
    ),
    (NAMES[2], &["{\"command\":[\"l", "s\"]}"]),
    (NAMES[3], &["", "{\"é\":\"", "\\u00e9😀\"}"]),
];

/// Parts of a stream: two pieces of a call.
const CALL_PARTS: [&str; 2] = [
    r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"patch","arguments":"{\"input\":\"\\ud8"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"3d"}}]}}]}"#,
];

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
