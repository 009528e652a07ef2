use serde_json::{Value, json};

use crate::dialects::chat::error::Refusal;
use crate::dialects::responses::input::ReferencedItems;
use crate::dialects::responses::request::ResponsesRequest;
use crate::dialects::responses::to_chat::{Before, to_chat};

/// The messages of these items, and what was left out.
fn messages(items: &Value) -> Result<(Value, Vec<String>), Refusal> {
    let body = json!({"model": "m", "instructions": "I", "input": items}).to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    let before = Before {
        response: None,
        items: Some(&ReferencedItems::new()),
    };
    let sent = to_chat(&request.fields(body.as_bytes()), before, "m", "vllm")?;
    let mut json: Value = serde_json::from_slice(&sent.body).unwrap();
    Ok((json["messages"].take(), sent.dropped))
}

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

fn user(content: &Value) -> Value {
    json!({"role": "user", "content": content})
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[test]
fn messages_and_their_parts() {
    let image = |url: &Value| {
        json!([{"role": "user", "content": [
        {"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": url, "detail": "high"}]}])
    };
    let seen = json!([
        system("I"),
        user(&json!([
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "u", "detail": "high"}}]))
    ]);
    for (items, expected) in [
        (
            json!([
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "A"}]},
                {"role": "system", "content": "B"},
                {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "text", "text": "y"}]},
                {"role": "assistant", "id": "msg_1", "status": "completed", "phase": "final",
                 "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
                {"role": "user", "content": "z\u{0}"},
            ]),
            json!([system("I\n\nA\n\nB"), user(&json!("xy")),
                   {"role": "assistant", "content": "ab"}, user(&json!("z\u{0}"))]),
        ),
        (image(&json!("u")), seen.clone()),
        (image(&json!({"url": "u"})), seen),
        (
            json!([{"role": "user", "content": [
                {"type": "input_image", "image_url": "u", "detail": "original"},
                {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
                {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}]}]),
            json!([
                system("I"),
                user(&json!([
                {"type": "image_url", "image_url": {"url": "u"}},
                {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
                {"type": "text", "text": "a.txt\nhi"}]))
            ]),
        ),
    ] {
        let (sent, dropped) = messages(&items).unwrap();
        assert_eq!(sent, expected, "{items}");
        assert_eq!(dropped, [""; 0]);
    }
}

#[test]
fn calls_and_results() {
    let (sent, _) = messages(&json!([
        {"role": "user", "content": "go"},
        {"type": "reasoning", "encrypted_content": "olla1.bG9vaw", "summary": [{"type": "summary_text", "text": "s"}]},
        {"role": "assistant", "content": "Looking."},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "w", "arguments": "{\"a\":1}"},
        {"type": "function_call", "call_id": "c2", "name": "close", "namespace": "ns", "arguments": ""},
        {"type": "custom_tool_call", "call_id": "c3", "name": "patch", "input": "a\n\"b\""},
        {"type": "local_shell_call", "id": "c4", "action":
            {"type": "exec", "command": ["ls"], "timeout_ms": null, "env": {}}},
        {"type": "function_call_output", "call_id": "c1", "output": "4C"},
        {"type": "function_call_output", "call_id": "c2", "output": [
            {"type": "input_text", "text": "19C"}, {"type": "input_image", "image_url": "u"},
            {"type": "output_text", "text": "sunny"}]},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": {"ok": true}},
        {"type": "local_shell_call_output", "id": "c4", "output": "[\"x\"]"},
        {"type": "function_call_output", "call_id": "c9", "output": [1, 2]},
    ])).unwrap();
    let assistant = json!({
    "role": "assistant", "content": "Looking.", "reasoning_content": "look", "tool_calls": [
        call("c1", "w", "{\"a\":1}"), call("c2", "ns__close", "{}"),
        call("c3", "patch", "{\"input\":\"a\\n\\\"b\\\"\"}"),
        call("c4", "local_shell", "{\"command\":[\"ls\"],\"env\":{}}"),
    ]});
    let tool = |id, text| json!({"role": "tool", "tool_call_id": id, "content": text});
    assert_eq!(
        sent,
        json!([
            system("I"),
            user(&json!("go")),
            assistant,
            tool("c1", "4C"),
            tool("c2", "19C\nsunny"),
            tool("c3", "{\"ok\":true}"),
            tool("c4", "[\"x\"]"),
            user(
                &json!([{"type": "text", "text": "Image of tool result c2:"},
                     {"type": "image_url", "image_url": {"url": "u"}}])
            ),
            user(&json!("Tool result: [1,2]")),
        ])
    );
}

#[test]
fn reasoning_of_each_form() {
    for (item, text) in [
        (
            json!({"encrypted_content": "gAAA", "content": [{"type": "reasoning_text", "text": "a"},
                {"type": "reasoning_text", "text": "b"}], "summary": [{"text": "s"}]}),
            "a\n\nb",
        ),
        (
            json!({"content": [], "summary": [{"type": "summary_text", "text": "s"}]}),
            "s",
        ),
    ] {
        let mut item = item.clone();
        item["type"] = json!("reasoning");
        let (sent, _) = messages(&json!([
            {"role": "user", "content": "x"}, item,
            {"type": "function_call", "call_id": "c", "name": "f"},
        ]))
        .unwrap();
        assert_eq!(sent[2]["reasoning_content"], text);
        assert_eq!(sent[2]["content"], Value::Null);
    }
}

#[test]
fn what_is_left_out() {
    let (sent, dropped) = messages(&json!([
        {"role": "user", "content": "x"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "mcp_list_tools"},
        {"type": "computer_call"},
        {"type": "mcp_call"},
        {"role": "assistant", "content": []},
    ]))
    .unwrap();
    assert_eq!(sent, json!([system("I"), user(&json!("x"))]));
    assert_eq!(dropped, ["input.computer_call", "input.mcp_call"]);
}

#[test]
fn what_is_refused() {
    for item in [
        json!({}),
        json!({"type": 7}),
        json!({"role": "tool", "content": "x"}),
        json!({"type": "message", "content": "x"}),
        json!({"role": "user", "content": 7}),
        json!({"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}),
        json!({"role": "user", "content": [{"type": "input_image", "image_url": ""}]}),
        json!({"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}),
        json!({"role": "user", "content": [{"type": "input_video"}]}),
        json!({"role": "user", "content": [{}]}),
        json!({"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}),
        json!({"role": "assistant", "content": [{"type": "input_image", "image_url": "u"}]}),
        json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "video"}]}),
    ] {
        let items = json!([{"role": "user", "content": "x"}, item]);
        let refusal = messages(&items).unwrap_err();
        assert_eq!(
            (refusal.status, refusal.param()),
            (400, Some("input")),
            "{item}"
        );
    }
}

#[test]
fn half_a_surrogate_pair_is_replaced() {
    let body = br#"{"model":"m","input":[{"role":"user","content":"a\ud83d"},
        {"type":"function_call","call_id":"c","name":"f\ud83d","arguments":"{\"x\":\"\udc00\"}"},
        {"type":"custom_tool_call","call_id":"d","name":"g","input":"\ud83d"}]}"#;
    let request = ResponsesRequest::read(body).unwrap();
    let items = ReferencedItems::new();
    let before = Before {
        response: None,
        items: Some(&items),
    };
    let sent = to_chat(&request.fields(body), before, "m", "vllm").unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(sent["messages"][0]["content"], "a\u{fffd}");
    let calls = &sent["messages"][1]["tool_calls"];
    assert_eq!(calls[0]["function"]["name"], "f\u{fffd}");
    assert_eq!(
        calls[1]["function"]["arguments"],
        "{\"input\":\"\u{fffd}\"}"
    );
}
