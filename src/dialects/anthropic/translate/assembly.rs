//! Assembles the message of an Anthropic stream for the inspector's record
//! (docs/contract/translation.md#13). It reads what the client gets, in both modes. It copies all
//! values, so it is for debugging only.

use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use crate::dialects::chat::sse::{Lines, SseLine};
use crate::dialects::chat::stream::EVENT_BYTES_MAX;

/// Maximum number of bytes of events that are kept; the record of a longer message is marked as
/// truncated.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Collects the events of one stream.
#[derive(Debug)]
pub struct Assembly {
    lines: Lines,
    kept: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    is_cut: bool,
    message: Map<String, Value>,
    blocks: Vec<Block>,
    error: Option<Value>,
}

/// A content block, with the JSON text of a tool's input apart until it is complete.
#[derive(Debug)]
struct Block {
    index: u64,
    value: Value,
    input: String,
}

impl Default for Assembly {
    fn default() -> Self {
        Self {
            lines: Lines::new(EVENT_BYTES_MAX),
            kept: Kept::default(),
        }
    }
}

impl Assembly {
    /// Takes bytes that the client was sent, cut anywhere.
    pub fn push(&mut self, input: &[u8]) {
        let Self { lines, kept } = self;
        let fed = lines.feed(input, |line| {
            if let SseLine::Data(data) = SseLine::read(line) {
                kept.event(data);
            }
            if kept.is_cut {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        kept.is_cut |= fed.is_err();
    }

    /// The message as JSON: what a client without streaming would have got, with `error` if the
    /// stream ended with one and `"truncated": true` if it was too long to keep.
    pub fn finish(self) -> Vec<u8> {
        let Kept {
            is_cut,
            mut message,
            blocks,
            error,
            ..
        } = self.kept;
        let content = blocks.into_iter().map(Block::finish).collect();
        message.insert("content".to_owned(), Value::Array(content));
        if let Some(error) = error {
            message.insert("error".to_owned(), error);
        }
        if is_cut {
            message.insert("truncated".to_owned(), Value::Bool(true));
        }
        Value::Object(message).to_string().into_bytes()
    }
}

impl Kept {
    fn event(&mut self, data: &[u8]) {
        self.bytes += data.len();
        if self.bytes > MESSAGE_BYTES_MAX {
            self.is_cut = true;
            return;
        }
        let Ok(mut event) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let mut part = |key: &str| event.get_mut(key).map_or(Value::Null, Value::take);
        match part("type").as_str().unwrap_or("") {
            "message_start" => {
                if let Value::Object(message) = part("message") {
                    self.message = message;
                }
            }
            "content_block_start" => self.blocks.push(Block {
                index,
                value: part("content_block"),
                input: String::new(),
            }),
            "content_block_delta" => {
                let delta = part("delta");
                if let Some(block) = self.blocks.iter_mut().rfind(|block| block.index == index) {
                    block.add(&delta);
                }
            }
            "message_delta" => {
                if let Value::Object(delta) = part("delta") {
                    self.message.extend(delta);
                }
                if let Value::Object(usage) = part("usage") {
                    match self.message.get_mut("usage") {
                        Some(Value::Object(known)) => known.extend(usage),
                        _ => {
                            self.message
                                .insert("usage".to_owned(), Value::Object(usage));
                        }
                    }
                }
            }
            "error" => self.error = Some(part("error")),
            _ => {}
        }
    }
}

impl Block {
    fn add(&mut self, delta: &Value) {
        for key in ["text", "thinking", "signature"] {
            if let Some(piece) = delta.get(key).and_then(Value::as_str) {
                match self.value.get_mut(key) {
                    Some(Value::String(text)) => text.push_str(piece),
                    _ => {
                        if let Value::Object(block) = &mut self.value {
                            block.insert(key.to_owned(), Value::String(piece.to_owned()));
                        }
                    }
                }
            }
        }
        if let Some(piece) = delta.get("partial_json").and_then(Value::as_str) {
            self.input.push_str(piece);
        }
    }

    fn finish(mut self) -> Value {
        if let Value::Object(block) = &mut self.value
            && !self.input.is_empty()
        {
            let input = serde_json::from_str(&self.input).unwrap_or(json!(self.input));
            block.insert("input".to_owned(), input);
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","content":[],"#,
        r#""stop_reason":null,"usage":{"input_tokens":3,"output_tokens":0}}}"#,
        "\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n",
        r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        "\n\n",
        r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Su"}}"#,
        "\n\n",
        r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"re"}}"#,
        "\n\n",
        r#"data: {"type":"content_block_stop","index":0}"#,
        "\n\n",
        r#"data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","#,
        r#""id":"t","name":"ls","input":{}}}"#,
        "\n\n",
        r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","#,
        r#""partial_json":"{\"dir\":\".\"}"}}"#,
        "\n\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"#,
        r#""usage":{"output_tokens":9}}"#,
        "\n\ndata: {\"type\":\"message_stop\"}\n\n"
    );

    fn assembled(pieces: &[&str]) -> Value {
        let mut assembly = Assembly::default();
        pieces
            .iter()
            .for_each(|piece| assembly.push(piece.as_bytes()));
        serde_json::from_slice(&assembly.finish()).unwrap()
    }

    #[test]
    fn a_stream_becomes_its_message() {
        let expected = json!({
            "id": "msg_1", "type": "message",
            "content": [
                {"type": "text", "text": "Sure"},
                {"type": "tool_use", "id": "t", "name": "ls", "input": {"dir": "."}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 3, "output_tokens": 9},
        });
        for at in 0..=STREAM.len() {
            let (one, two) = STREAM.split_at(at);
            assert_eq!(assembled(&[one, two]), expected);
        }
    }

    #[test]
    fn what_is_missing_shows() {
        let error =
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n\n";
        let message = assembled(&[&STREAM[..300], "\n\n", error]);
        assert_eq!(message["error"]["type"], "api_error");
        assert_eq!(message["content"][0]["text"], "");
        let half = assembled(&[&STREAM.replace(r#"\".\"}"#, "")]);
        assert_eq!(half["content"][1]["input"], "{\"dir\":");
        assert_eq!(
            assembled(&["nonsense\n\ndata: nonsense\n\n"]),
            json!({"content": []})
        );
    }

    #[test]
    fn long_messages_are_cut() {
        let delta = format!(
            "data: {{\"type\":\"content_block_delta\",\"x\":\"{}\"}}\n\n",
            "x".repeat(MESSAGE_BYTES_MAX / 2)
        );
        let message = assembled(&[STREAM, &delta, &delta, &delta]);
        assert_eq!(message["truncated"], true);
        assert_eq!(message["id"], "msg_1");
    }
}
