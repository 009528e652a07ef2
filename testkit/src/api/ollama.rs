//! Ollama's own API: whole responses, and streams of lines.

use serde_json::{Value, json};

use super::Output;

/// The time of every response.
pub const TIME: &str = "2026-01-01T00:00:00Z";

const NS_PER_TOKEN: u64 = 20_000_000;

fn message(output: &Output) -> Value {
    match &output.call {
        None => json!({"role": "assistant", "content": output.text()}),
        Some((name, arguments)) => json!({
            "role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
        }),
    }
}

/// A document with the model and the time, and with the counts when it is the last.
fn document(output: &Output, key: &str, value: Value, done: bool) -> Value {
    let mut document = json!({
        "model": output.model, "created_at": TIME, key: value, "done": done,
    });
    if done {
        document["done_reason"] = "stop".into();
        document["total_duration"] = (output.completion_tokens * NS_PER_TOKEN).into();
        document["prompt_eval_count"] = output.prompt_tokens.into();
        document["eval_count"] = output.completion_tokens.into();
        document["eval_duration"] = (output.completion_tokens * NS_PER_TOKEN).into();
    }
    document
}

/// `POST /api/chat`, whole.
pub fn chat(output: &Output) -> Value {
    document(output, "message", message(output), true)
}

/// `POST /api/generate`, whole.
pub fn generate(output: &Output) -> Value {
    document(output, "response", output.text().into(), true)
}

/// The lines of a streamed chat or of a streamed generation.
pub fn lines(output: &Output, is_chat: bool) -> Vec<String> {
    let key = if is_chat { "message" } else { "response" };
    let of_text = |text: &str| match is_chat {
        true => json!({"role": "assistant", "content": text}),
        false => text.into(),
    };
    let mut values: Vec<Value> = match &output.call {
        Some(_) if is_chat => vec![message(output)],
        _ => output.pieces.iter().map(|piece| of_text(piece)).collect(),
    };
    values.push(of_text(""));
    let last = values.len() - 1;
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| format!("{}\n", document(output, key, value, index == last)))
        .collect()
}

/// `POST /api/embed` for a number of inputs.
pub fn embed(output: &Output, inputs: usize) -> Value {
    json!({
        "model": output.model, "embeddings": vec![[0.25, -0.5, 1.0]; inputs],
        "prompt_eval_count": output.prompt_tokens,
    })
}
