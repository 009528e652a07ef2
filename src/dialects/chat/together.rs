//! Puts the events of a stream together to the whole response that was asked for
//! (docs/contract/dialects.md#4).

use super::calls::{Calls, TooMany};
use super::chunk::ChatChunk;
use super::completion::Completion;
use super::error::Refusal;
use super::outcome::{Counts, Finish};
use super::sse::SseLine;
use super::stream::{ChatStream, End, Progress};
use super::warning::Warning;
use super::writer::{ChatWriter, Moment};
use crate::json;

/// Whether a body is a stream of events, by its first line.
pub(crate) fn is_events(body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    let end = memchr::memchr2(b'\n', b'\r', body).unwrap_or(body.len());
    let line = body.get(..end).unwrap_or_default();
    line.starts_with(b":") || !matches!(SseLine::read(line), SseLine::Other | SseLine::Blank)
}

/// The chat completion that a stream of chunks says.
///
/// # Errors
/// Status 502: the stream has an error.
pub(crate) fn put_together(events: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut stream = ChatStream::new(Box::<Collected>::default());
    let mut out = Vec::new();
    let _ = stream.push(events, Moment::default(), &mut out);
    match stream.end(End::Clean, Moment::default(), &mut out) {
        Progress::Refused(refusal) => Err(refusal),
        Progress::Failed => Err(Refusal::backend(String::from_utf8_lossy(&out))),
        _ => Ok(out),
    }
}

/// What the chunks have said so far; texts are insides of JSON strings.
#[derive(Debug, Default)]
struct Collected {
    reasoning: Vec<u8>,
    content: Vec<u8>,
    refusal: Vec<u8>,
    calls: Calls,
    counts: Option<Counts>,
    finish: Finish,
    matched: Option<String>,
}

impl ChatWriter for Collected {
    fn start(&mut self, _: Option<Counts>, _: Moment, _: &mut Vec<u8>) {}

    fn chunk(&mut self, chunk: &ChatChunk<'_>, _: Moment, _: &mut Vec<u8>) -> Result<(), TooMany> {
        self.counts = chunk.counts.or(self.counts);
        self.finish = chunk.finish.unwrap_or(self.finish);
        if let Some(matched) = chunk.matched {
            self.matched = Some(matched.decode().into_owned());
        }
        if let Some(reasoning) = chunk.reasoning {
            reasoning.write(&mut self.reasoning);
        }
        if let Some(content) = chunk.content {
            content.write(&mut self.content);
        }
        if let Some(refusal) = chunk.refusal {
            refusal.write(&mut self.refusal);
        }
        for piece in chunk.calls() {
            let at = self.calls.find(&piece)?;
            self.calls.take(at, &piece)?;
        }
        Ok(())
    }

    /// Input that begins as events is never a whole response.
    fn whole(&mut self, _: &Completion<'_>, _: Moment, _: &mut Vec<u8>) {}

    fn finish(&mut self, _: Moment, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"object":"chat.completion","choices":[{"index":0,"message":{"#);
        out.extend_from_slice(br#""role":"assistant""#);
        for (key, text) in [
            (&br#","reasoning_content":""#[..], &self.reasoning),
            (br#","content":""#, &self.content),
            (br#","refusal":""#, &self.refusal),
        ] {
            if !text.is_empty() {
                out.extend_from_slice(key);
                out.extend_from_slice(text);
                out.push(b'"');
            }
        }
        let mut any = false;
        while let Some(call) = self.calls.open_next(true) {
            out.extend_from_slice(if any { b"," } else { br#","tool_calls":["# });
            any = true;
            out.extend_from_slice(br#"{"id":""#);
            out.extend_from_slice(&call.id);
            out.extend_from_slice(br#"","type":"function","function":{"name":""#);
            out.extend_from_slice(&call.name);
            out.extend_from_slice(br#"","arguments":""#);
            out.extend_from_slice(&call.held);
            out.extend_from_slice(br#""}}"#);
        }
        out.extend_from_slice(if any { b"]}" } else { b"}" });
        if let Some(reason) = self.finish.name() {
            out.extend_from_slice(br#","finish_reason":"#);
            json::write_string(reason, out);
        }
        if let Some(matched) = &self.matched {
            out.extend_from_slice(br#","stop_reason":"#);
            json::write_string(matched, out);
        }
        out.extend_from_slice(b"}]");
        if let Some(counts) = self.counts {
            out.extend_from_slice(br#","usage":"#);
            counts.write(out);
        }
        out.push(b'}');
    }

    fn fail(&mut self, error: &Refusal, _: Moment, out: &mut Vec<u8>) {
        out.extend_from_slice(error.message.as_bytes());
    }

    fn keep_alive(&mut self, _: Moment, _: &mut Vec<u8>) {}

    fn held(&self) -> usize {
        self.calls.held_bytes()
    }

    /// The content is counted where the whole response is translated.
    fn output_bytes(&self) -> u64 {
        0
    }

    fn warnings(&self) -> &[Warning] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn what_is_a_stream() {
        for (body, expected) in [
            ("data: {}\n\n", true),
            (" \n: hello\n\n", true),
            ("event: x\ndata: {}", true),
            ("{\"data\":1}", false),
            ("database", false),
            ("", false),
        ] {
            assert_eq!(is_events(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn chunks_become_a_completion() {
        let chunk = |delta: &str| format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
        let events = [
            chunk(r#"{"role":"assistant","reasoning":"wh"}"#),
            chunk(r#"{"reasoning_content":"y\n"}"#),
            chunk(r#"{"content":"He"}"#),
            chunk(r#"{"content":[{"text":"y"}]}"#),
            chunk(r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}"#),
            chunk(r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g"}}]}"#),
            chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#),
            "data: {\"choices\":[{\"finish_reason\":\"stop\",\"stop_reason\":\"END\"}]}\n\n".to_owned(),
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n".to_owned(),
            "data: [DONE]\n\n".to_owned(),
        ]
        .concat();
        let whole: Json =
            serde_json::from_slice(&put_together(events.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            whole,
            json!({
                "object": "chat.completion",
                "choices": [{"index": 0, "finish_reason": "stop", "stop_reason": "END", "message": {
                    "role": "assistant", "reasoning_content": "why\n", "content": "Hey",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                    ],
                }}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 3,
                          "prompt_tokens_details": {"cached_tokens": 0},
                          "completion_tokens_details": {"reasoning_tokens": 0}},
            })
        );
        let empty = put_together(b": hello\n\ndata: [DONE]\n\n").unwrap_err();
        assert_eq!(empty.message, "the endpoint's response is empty");
        let error = put_together(b"data: {\"error\":\"x\"}\n\n").unwrap_err();
        assert_eq!((error.status, error.message.as_str()), (502, "x"));
        let late = format!(
            "{}data: {{\"error\":\"y\"}}\n\n",
            chunk(r#"{"content":"He"}"#)
        );
        assert_eq!(put_together(late.as_bytes()).unwrap_err().message, "y");
    }
}
