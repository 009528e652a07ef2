//! Calls in a response: their kinds, and pieces that come mixed.

use serde_json::json;

use super::tests::{call, delta, finished, shorts, streamed};

#[test]
fn calls_of_each_kind() {
    let request = json!({"tools": [
        {"type": "custom", "name": "apply_patch"},
        {"type": "local_shell"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "close"}]},
        {"type": "namespace", "name": "cu", "tools": [{"type": "custom", "name": "p"}]},
    ]});
    let events = streamed(
        &request,
        &[
            call(0, Some("c0"), Some("ns__close"), "{\"a\""),
            call(0, None, None, ":1}"),
            call(1, Some("c1"), Some("apply_patch"), "{\"input\":\"a\\"),
            call(1, None, None, "nb\\ud83d"),
            call(1, None, None, "\\ude00\"}"),
            call(2, Some("c2"), Some("local_shell"), "{\"command\":[\"ls\"]}"),
            call(3, None, Some("close"), ""),
            call(4, Some("c4"), Some("p"), "{\"x\":1}"),
            call(5, Some("c5"), Some("unknown"), "{}"),
            finished("stop"),
        ],
    );
    assert_eq!(
        shorts(&events)[2..],
        [
            "0 added function_call in_progress",
            "0 function_call_arguments: {\"a\"",
            "0 function_call_arguments: :1}",
            "0 function_call_arguments.done",
            "0 done function_call completed",
            "1 added custom_tool_call in_progress",
            "1 custom_tool_call_input: a",
            "1 custom_tool_call_input: \nb",
            "1 custom_tool_call_input: 😀",
            "1 custom_tool_call_input.done",
            "1 done custom_tool_call completed",
            "2 added local_shell_call in_progress",
            "2 done local_shell_call completed",
            "3 added function_call in_progress",
            "3 function_call_arguments.done",
            "3 done function_call completed",
            "4 added custom_tool_call in_progress",
            "4 custom_tool_call_input: {\"x\":1}",
            "4 custom_tool_call_input.done",
            "4 done custom_tool_call completed",
            "5 added function_call in_progress",
            "5 function_call_arguments: {}",
            "5 function_call_arguments.done",
            "5 done function_call completed",
            "completed 6",
        ]
    );
    let output = events[events.len() - 1]["response"]["output"]
        .as_array()
        .unwrap();
    let made = output[3]["call_id"].as_str().unwrap();
    assert!(made.len() == 9 && made.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    for (item, expected) in output.iter().zip([
        json!({"type": "function_call", "call_id": "c0", "name": "close", "namespace": "ns",
               "arguments": "{\"a\":1}"}),
        json!({"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "a\nb😀"}),
        json!({"type": "local_shell_call", "call_id": "c2", "action":
               {"type": "exec", "command": ["ls"], "working_directory": null, "timeout_ms": null, "env": {}}}),
        json!({"type": "function_call", "call_id": made, "name": "close", "namespace": "ns", "arguments": "{}"}),
        json!({"type": "custom_tool_call", "call_id": "c4", "name": "p", "namespace": "cu", "input": "{\"x\":1}"}),
        json!({"type": "function_call", "call_id": "c5", "name": "unknown", "arguments": "{}"}),
    ]) {
        let mut item = item.clone();
        let id = item.as_object_mut().unwrap().remove("id").unwrap();
        assert_eq!(id.as_str().unwrap().split_once('_').unwrap().1.len(), 32);
        assert_eq!(item.as_object_mut().unwrap().remove("status"), Some(json!("completed")));
        assert_eq!(item, expected);
    }
    assert_eq!(events[2]["item"]["arguments"], "");
    assert_eq!(events[5]["name"], "close");
    assert_eq!(events[7]["item"]["input"], "");
    assert_eq!(events[13]["item"]["action"]["command"], json!([]));
}

#[test]
fn mixed_calls_are_held_back() {
    let events = streamed(
        &json!({}),
        &[
            call(0, Some("a"), Some("f"), "{"),
            call(1, Some("b"), Some("g"), "{\"x\":"),
            call(0, None, None, "}"),
            call(1, None, None, "1}"),
            call(1, Some("c"), Some("h"), ""),
            delta(&json!({"content": "x"})),
        ],
    );
    let words = shorts(&events);
    let deltas: Vec<_> = words
        .iter()
        .filter(|it| it.contains("arguments: "))
        .collect();
    assert_eq!(
        deltas,
        [
            "0 function_call_arguments: {",
            "0 function_call_arguments: }",
            "1 function_call_arguments: {\"x\":",
            "1 function_call_arguments: 1}",
        ]
    );
    assert_eq!(words[words.len() - 1], "completed 4");
}
