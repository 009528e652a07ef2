//! Anthropic's Messages API.

use serde_json::{Value, json};

use super::Output;

fn block(output: &Output) -> Value {
    match &output.call {
        None => json!({"type": "text", "text": output.text()}),
        Some((name, arguments)) => {
            json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments})
        }
    }
}

fn stop_reason(output: &Output) -> &'static str {
    output.call.as_ref().map_or("end_turn", |_| "tool_use")
}

/// `POST /v1/messages`, whole.
pub fn message(output: &Output) -> Value {
    json!({
        "id": "msg_stub", "type": "message", "role": "assistant", "model": output.model,
        "content": [block(output)], "stop_reason": stop_reason(output), "stop_sequence": null,
        "usage": {
            "input_tokens": output.prompt_tokens, "output_tokens": output.completion_tokens,
        },
    })
}

/// The events of a streamed message.
pub fn events(output: &Output) -> Vec<String> {
    let mut start = message(output);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = 0.into();
    let mut empty = block(output);
    let deltas: Vec<Value> = match &output.call {
        None => {
            empty["text"] = "".into();
            let delta = |piece: &String| json!({"type": "text_delta", "text": piece});
            output.pieces.iter().map(delta).collect()
        }
        Some((_, arguments)) => {
            empty["input"] = json!({});
            vec![json!({"type": "input_json_delta", "partial_json": arguments.to_string()})]
        }
    };
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
    ];
    let delta = |delta| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    events.extend(deltas.into_iter().map(delta));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.push(json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(output), "stop_sequence": null},
        "usage": {"output_tokens": output.completion_tokens},
    }));
    events.push(json!({"type": "message_stop"}));
    let frame = |event: &Value| {
        let name = event["type"].as_str().unwrap_or_default();
        format!("event: {name}\ndata: {event}\n\n")
    };
    events.iter().map(frame).collect()
}
