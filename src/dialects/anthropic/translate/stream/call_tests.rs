//! Tool calls in streams: pieces, mixtures, bounds.

use serde_json::json;

use super::tests::{blocks, delta, lines, run};
use super::*;
use crate::dialects::anthropic::translate::completion::tests::context;
use crate::dialects::chat::stream::Progress;

/// A chunk's tool call.
pub(super) fn call(index: Option<u64>, id: &str, name: &str, arguments: &str) -> String {
    let mut call = json!({"function": {"arguments": arguments}});
    if let Some(index) = index {
        call["index"] = json!(index);
    }
    if !id.is_empty() {
        call["id"] = json!(id);
    }
    if !name.is_empty() {
        call["function"]["name"] = json!(name);
    }
    format!(r#"{{"tool_calls":[{call}]}}"#)
}

fn called(calls: &[(Option<u64>, &str, &str, &str)]) -> Vec<String> {
    let deltas: Vec<_> = calls
        .iter()
        .map(|(index, id, name, arguments)| call(*index, id, name, arguments))
        .collect();
    blocks(&deltas.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn tool_calls_in_pieces() {
    let (zero, one) = (Some(0), Some(1));
    // Repeated id and name are ignored; a missing index is 0.
    assert_eq!(
        called(&[
            (zero, "c", "f", ""),
            (None, "c", "f", "{\"a\":"),
            (zero, "", "", "1}")
        ]),
        ["0 tool c f", "0: {\"a\":", "0: 1}", "0 stop"]
    );
    // Arguments before the name come first, as one delta.
    assert_eq!(
        called(&[
            (zero, "", "", "{\"a\""),
            (zero, "", "", ":"),
            (zero, "c", "f", "1}")
        ]),
        ["0 tool c f", "0: {\"a\":", "0: 1}", "0 stop"]
    );
    // Id and name apart, in both orders.
    assert_eq!(
        called(&[(zero, "c", "", ""), (zero, "", "f", "{}")]),
        ["0 tool c f", "0: {}", "0 stop"]
    );
    let late_id = called(&[(zero, "", "f", "{"), (zero, "c", "f", "}")]);
    assert!(late_id[0].starts_with("0 tool toolu_"), "{late_id:?}");
    assert_eq!(late_id[1..], ["0: {", "0: }", "0 stop"]);
    // One index with another id, and no index at all: another call.
    for index in [zero, None] {
        assert_eq!(
            called(&[
                (index, "c", "f", "{}"),
                (index, "d", "g", "{\"b\":"),
                (index, "", "", "2}")
            ]),
            [
                "0 tool c f",
                "0: {}",
                "0 stop",
                "1 tool d g",
                "1: {\"b\":",
                "1: 2}",
                "1 stop"
            ]
        );
    }
    // Another name without any id begins another call once the arguments are complete.
    let nameless = called(&[
        (None, "", "f", "{}"),
        (None, "", "f", ""),
        (None, "", "f", "{\"a\":1}"),
    ]);
    assert_eq!(nameless.len(), 6, "{nameless:?}");
    assert_ne!(nameless[0][1..], nameless[3][1..], "ids differ");
    // Never named: dropped, and no tool call at the end.
    assert_eq!(called(&[(zero, "c", "", "{}")]), [""; 0]);
    // Two in one chunk.
    let both = format!(
        r#"{{"tool_calls":[{},{}]}}"#,
        r#"{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}"#,
        r#"{"index":1,"id":"d","function":{"name":"g","arguments":{"b":[ 2 ]}}}"#
    );
    assert_eq!(
        blocks(&[&both]),
        [
            "0 tool c f",
            "0: {}",
            "0 stop",
            "1 tool d g",
            "1: {\"b\":[2]}",
            "1 stop"
        ]
    );
    assert_eq!(
        called(&[(zero, "c", "f", "{}"), (one, "d", "g", "{}")]),
        [
            "0 tool c f",
            "0: {}",
            "0 stop",
            "1 tool d g",
            "1: {}",
            "1 stop"
        ]
    );
}

#[test]
fn mixed_calls_are_put_in_order() {
    let (zero, one, two) = (Some(0), Some(1), Some(2));
    assert_eq!(
        called(&[
            (zero, "c", "f", "{\"a\":\"}"),
            (one, "d", "g", "{\"b\":"),
            (two, "e", "h", "{}"),
            (one, "", "", "2}"),
            (zero, "", "", "\\\"\""),
            (zero, "", "", "}"),
        ]),
        [
            "0 tool c f",
            "0: {\"a\":\"}",
            "0: \\\"\"",
            "0: }",
            "0 stop",
            "1 tool d g",
            "1: {\"b\":2}",
            "1 stop",
            "2 tool e h",
            "2: {}",
            "2 stop",
        ]
    );
    // The end, and text, close what is open; what was held back comes all the same.
    assert_eq!(
        called(&[(zero, "c", "f", "{"), (one, "d", "g", "{\"b\":")]),
        [
            "0 tool c f",
            "0: {",
            "0 stop",
            "1 tool d g",
            "1: {\"b\":",
            "1 stop"
        ]
    );
    let first = call(zero, "c", "f", "{");
    let second = call(one, "d", "g", "{}");
    assert_eq!(
        blocks(&[
            &first,
            &second,
            r#"{"content":"x"}"#,
            &call(zero, "", "", "}")
        ]),
        [
            "0 tool c f",
            "0: {",
            "0 stop",
            "1 tool d g",
            "1: {}",
            "1 stop",
            "2 text",
            "2: x",
            "2 stop",
        ]
    );
}

#[test]
fn calls_are_bounded() {
    use crate::dialects::chat::calls::HELD_BYTES_MAX;
    use crate::dialects::chat::completion::CALLS_MAX;
    let calls = |count: usize| -> String {
        (0..count as u64)
            .map(|index| lines(&[&delta(&call(Some(index), "", "f", "{}"))]))
            .collect()
    };
    assert_eq!(
        run(&[calls(CALLS_MAX).as_bytes()], End::Clean).1,
        Progress::Finished
    );
    assert_eq!(
        run(&[calls(CALLS_MAX + 1).as_bytes()], End::Clean).1,
        Progress::Failed
    );
    let mut held = lines(&[&delta(&call(Some(0), "c", "f", "{"))]);
    let piece = lines(&[&delta(&call(Some(1), "d", "g", &"x".repeat(1 << 20)))]);
    for _ in 0..=HELD_BYTES_MAX >> 20 {
        held.push_str(&piece);
    }
    assert_eq!(run(&[held.as_bytes()], End::Clean).1, Progress::Failed);
}

#[test]
fn warnings() {
    let mut transformer = message_stream(context());
    let mut out = Vec::new();
    let stream = lines(&[
        &delta(&call(Some(0), "c", "f", "{")),
        &delta(r#"{"content":"x"}"#),
        &delta(&call(Some(0), "", "", "}")),
        &delta(&call(Some(1), "d", "", "{}")),
        "[DONE]",
    ]);
    assert_eq!(
        transformer.push(stream.as_bytes(), Moment::default(), &mut out),
        Progress::Finished
    );
    assert_eq!(
        transformer.warnings(),
        [
            Warning::ArgumentsTooLate {
                name: "f".to_owned()
            },
            Warning::CallWithoutName,
        ]
    );
}
