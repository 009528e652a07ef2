//! OpenAI's API: chat completions, completions, embeddings.

use serde_json::{Value, json};

use super::Output;

/// The time of every response, in seconds.
pub const CREATED: u64 = 1_767_225_600;

/// The embedding of everything.
const EMBEDDING: [f64; 8] = [
    0.0123, -0.0456, 0.0789, -0.0101, 0.0202, -0.0303, 0.0404, -0.0505,
];

/// A tool call as a message has it.
fn tool_call(name: &str, arguments: &str) -> Value {
    json!({
        "id": "call_1", "type": "function",
        "function": {"name": name, "arguments": arguments},
    })
}

/// Token counts.
pub fn usage(output: &Output) -> Value {
    let (prompt, completion) = (output.prompt_tokens, output.completion_tokens);
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

/// `POST /v1/chat/completions`, whole.
pub fn chat(output: &Output) -> Value {
    let (message, finish) = match &output.call {
        None => (
            json!({"role": "assistant", "content": output.text()}),
            "stop",
        ),
        Some((name, arguments)) => {
            let calls = [tool_call(name, &arguments.to_string())];
            (
                json!({"role": "assistant", "content": null, "tool_calls": calls}),
                "tool_calls",
            )
        }
    };
    json!({
        "id": "chatcmpl-stub", "object": "chat.completion", "created": CREATED,
        "model": output.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage(output),
    })
}

/// Adds what LM Studio says about the speed: 20 ms for each token.
pub fn with_stats(mut chat: Value, output: &Output) -> Value {
    chat["stats"] = json!({
        "tokens_per_second": 50.0, "time_to_first_token": 0.02,
        "generation_time": output.completion_tokens as f64 / 50.0,
    });
    chat
}

/// One chunk of a streamed chat completion.
pub fn chat_chunk(model: &str, delta: Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

/// The deltas of a text's first piece and of a later piece.
pub fn text_delta(text: &str, is_first: bool) -> Value {
    if is_first {
        json!({"role": "assistant", "content": text})
    } else {
        json!({"content": text})
    }
}

/// The first delta of a tool call.
pub fn call_delta(name: &str, arguments: &str) -> Value {
    let mut call = tool_call(name, arguments);
    if let Value::Object(members) = &mut call {
        members.shift_insert(0, "index".to_owned(), 0.into());
    }
    json!({"role": "assistant", "tool_calls": [call]})
}

/// A later delta of a tool call: a part of its arguments.
pub fn arguments_delta(arguments: &str) -> Value {
    json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
}

/// The chunks of a streamed chat completion.
pub fn chat_chunks(output: &Output, with_usage: bool) -> Vec<Value> {
    let chunk = |delta, finish| chat_chunk(&output.model, delta, finish);
    let mut chunks: Vec<Value> = match &output.call {
        Some((name, arguments)) => vec![chunk(call_delta(name, &arguments.to_string()), None)],
        None => output
            .pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| chunk(text_delta(piece, index == 0), None))
            .collect(),
    };
    let finish = output.call.as_ref().map_or("stop", |_| "tool_calls");
    chunks.push(chunk(json!({}), Some(finish)));
    if with_usage {
        let mut last = chunk(json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage(output);
        chunks.push(last);
    }
    chunks
}

/// `POST /v1/completions`, whole.
pub fn completion(output: &Output) -> Value {
    let choice = json!({
        "index": 0, "logprobs": null, "finish_reason": "stop", "text": output.text(),
    });
    json!({
        "id": "cmpl-stub", "object": "text_completion", "created": CREATED,
        "model": output.model, "choices": [choice], "usage": usage(output),
    })
}

/// The chunks of a streamed completion.
pub fn completion_chunks(output: &Output, with_usage: bool) -> Vec<Value> {
    let chunk = |choices: Value| {
        json!({
            "id": "cmpl-stub", "object": "text_completion", "created": CREATED,
            "model": output.model, "choices": choices,
        })
    };
    let choice = |text: &str, finish: Option<&str>| json!([{"index": 0, "text": text, "finish_reason": finish}]);
    let mut chunks: Vec<Value> = output
        .pieces
        .iter()
        .map(|piece| chunk(choice(piece, None)))
        .collect();
    chunks.push(chunk(choice("", Some("stop"))));
    if with_usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage(output);
        chunks.push(last);
    }
    chunks
}

/// Chunks as server-sent events, with the end marker after them.
pub fn events(chunks: &[Value]) -> Vec<String> {
    let mut events: Vec<String> = chunks
        .iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect();
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// `POST /v1/embeddings` for a number of inputs.
pub fn embeddings(output: &Output, inputs: usize) -> Value {
    let data: Vec<Value> = (0..inputs)
        .map(|index| json!({"object": "embedding", "index": index, "embedding": EMBEDDING}))
        .collect();
    let tokens = output.prompt_tokens;
    json!({
        "object": "list", "data": data, "model": output.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}
