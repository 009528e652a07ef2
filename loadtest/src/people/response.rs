//! A streamed chat response, as the people read it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::events::EventSplitter;
use crate::wire::Part;

/// What is kept of a body that is no stream, in bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// What has come of a response.
#[derive(Debug, Default)]
pub(super) struct Response {
    status: u16,
    splitter: EventSplitter,
    /// The start of a body that is no stream.
    error: Vec<u8>,
    /// The code of an event that reports an error.
    error_event: Option<String>,
    is_done: bool,
    /// When the first text came.
    pub(super) first_ns: Option<u64>,
    /// The text so far.
    pub(super) text: String,
    /// What the server counted.
    pub(super) usage: Option<ReportedUsage>,
}

/// The member `usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ReportedUsage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

impl ReportedUsage {
    pub(super) fn cached_tokens(&self) -> u64 {
        let details = self.prompt_tokens_details;
        details
            .and_then(|details| details.cached_tokens)
            .unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<ReportedUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

impl Response {
    /// Takes a part that came at this time.
    pub(super) fn take(&mut self, part: Part<'_>, now_ns: u64) {
        match part {
            Part::Head(head) => self.status = head.status,
            Part::Data(data) if self.status == 200 => {
                let mut splitter = std::mem::take(&mut self.splitter);
                splitter.feed(data, |event| self.take_event(event.data, now_ns));
                self.splitter = splitter;
            }
            Part::Data(data) => {
                let room = ERROR_BYTES_MAX.saturating_sub(self.error.len());
                self.error.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
    }

    fn take_event(&mut self, data: &[u8], now_ns: u64) {
        if data == b"[DONE]" {
            self.is_done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.error_event = Some("no JSON".to_owned());
            return;
        };
        if let Some(error) = &chunk.error {
            self.error_event = Some(code_of(error));
        }
        for content in chunk
            .choices
            .iter()
            .filter_map(|choice| choice.delta.as_ref()?.content.as_ref())
        {
            if !content.is_empty() {
                self.first_ns.get_or_insert(now_ns);
                self.text.push_str(content);
            }
        }
        self.usage = chunk.usage.or(self.usage);
    }

    /// Why a response that has come whole is none to go on with; `None` when it is one.
    pub(super) fn failure(&self) -> Option<String> {
        if self.status != 200 {
            let body: Value = serde_json::from_slice(&self.error).unwrap_or_default();
            return Some(format!("{} {}", self.status, code_of(&body["error"])));
        }
        if let Some(code) = &self.error_event {
            return Some(format!("error event {code}"));
        }
        if self.first_ns.is_none() || !self.is_done {
            return Some("stream without text or end".to_owned());
        }
        None
    }
}

/// What distinguishes errors: the code, or the type.
fn code_of(error: &Value) -> String {
    let texts = ["code", "type"].map(|name| error[name].as_str());
    texts.into_iter().flatten().next().unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Framing, ResponseHead};

    fn read(status: u16, body: &str, step: usize) -> Response {
        let mut response = Response::default();
        let head = ResponseHead {
            status,
            close: false,
            framing: Framing::Chunked,
        };
        response.take(Part::Head(head), 1);
        for (place, piece) in body.as_bytes().chunks(step).enumerate() {
            response.take(Part::Data(piece), 10 + place as u64);
        }
        response
    }

    #[test]
    fn the_first_text_counts_and_not_what_comes_before() {
        let body = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
            : queued 3\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\" \\\"two\\\"\"}}],\"usage\":null}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\
            \"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n\
            data: [DONE]\n\n";
        for step in [1, 10, body.len()] {
            let response = read(200, body, step);
            assert_eq!(response.failure(), None);
            assert_eq!(response.text, "one \"two\"");
            let usage = response.usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.cached_tokens()), (9, 4));
        }
        let until = body.find("two").unwrap() as u64;
        let first = read(200, body, 1).first_ns.unwrap();
        assert!(first > 10 + body.find("one").unwrap() as u64 && first < 10 + until);
    }

    #[test]
    fn what_is_no_whole_response_has_a_name() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n";
        let error = "data: {\"error\":{\"code\":\"X\"}}\n\n";
        let table = [
            (
                503,
                "{\"error\":{\"code\":\"OVERLOADED\"}}".to_owned(),
                "503 OVERLOADED",
            ),
            (
                503,
                "{\"error\":{\"code\":503,\"type\":\"unavailable\"}}".to_owned(),
                "503 unavailable",
            ),
            (502, "<html>".to_owned(), "502 "),
            (200, text.to_owned(), "stream without text or end"),
            (
                200,
                "data: [DONE]\n\n".to_owned(),
                "stream without text or end",
            ),
            (200, format!("{text}{error}"), "error event X"),
            (200, "data: {\n\n".to_owned(), "error event no JSON"),
        ];
        for (status, body, want) in table {
            assert_eq!(
                read(status, &body, 7).failure().as_deref(),
                Some(want),
                "{body}"
            );
        }
    }
}
