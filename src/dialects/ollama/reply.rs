//! The objects that Ollama's API responds with.
//!
//! Contract: docs/contract/dialects.md#11

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::request::OllamaOperation;
use crate::clock::millis;
use crate::dialects::chat::completion::{Completion, ContentBlock};
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::outcome::{Counts, Finish};
use crate::dialects::chat::warning::{Translated, Warning};
use crate::dialects::chat::writer::Moment;
use crate::json::{self, JsonKind, JsonText, JsonValue, write_number, write_string};

/// What the translation of a response has to know of its request.
#[derive(Debug, Clone)]
pub(super) struct Answering {
    pub(super) operation: OllamaOperation,
    /// The name that the client asked for.
    pub(super) model: String,
    /// Estimate of the request's tokens, for endpoints that do not count.
    pub(super) input_tokens: u64,
    /// Reasoning is left out.
    pub(super) hides_thinking: bool,
    /// The client asked for the probabilities of tokens.
    pub(super) has_logprobs: bool,
    pub(super) seed: IdSeed,
}

/// What a response cost, at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyTotals {
    pub(super) counts: Counts,
    pub(super) output_bytes: u64,
    pub(super) finish: Finish,
    /// When the first piece came, since the request arrived.
    pub(super) first: Duration,
}

/// Writes the inside of a JSON string.
pub(super) type WriteText<'w> = &'w dyn Fn(&mut Vec<u8>);

/// The texts of one object, each written by a function as the inside of a JSON string.
#[derive(Clone, Copy, Default)]
pub(super) struct Texts<'w> {
    pub(super) text: Option<WriteText<'w>>,
    pub(super) thinking: Option<WriteText<'w>>,
    /// Elements of `tool_calls` with commas between them.
    pub(super) calls: Option<&'w [u8]>,
    pub(super) logprobs: Option<JsonValue<'w>>,
}

impl Answering {
    /// Writes one object up to what says whether it is the last.
    pub(super) fn begin(&self, texts: Texts<'_>, at: Moment, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"model":"#);
        write_string(&self.model, out);
        out.extend_from_slice(br#","created_at":""#);
        write_time(at.unix_ms, out);
        out.push(b'"');
        match self.operation {
            OllamaOperation::Generate => {
                string(br#","response":"#, texts.text, out);
                if texts.thinking.is_some() {
                    string(br#","thinking":"#, texts.thinking, out);
                }
            }
            _ => {
                string(
                    br#","message":{"role":"assistant","content":"#,
                    texts.text,
                    out,
                );
                if texts.thinking.is_some() {
                    string(br#","thinking":"#, texts.thinking, out);
                }
                if let Some(calls) = texts.calls {
                    out.extend_from_slice(br#","tool_calls":["#);
                    out.extend_from_slice(calls);
                    out.push(b']');
                }
                out.push(b'}');
            }
        }
        if let Some(logprobs) = texts.logprobs {
            out.extend_from_slice(br#","logprobs":"#);
            write_logprobs(logprobs, out);
        }
    }

    /// Writes the end of the last object.
    pub(super) fn end(&self, totals: &ReplyTotals, at: Moment, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","done":true,"done_reason":""#);
        out.extend_from_slice(match totals.finish {
            Finish::Length => b"length",
            _ => b"stop",
        });
        out.push(b'"');
        let first = totals.first.min(at.elapsed);
        let generation = at
            .elapsed
            .saturating_sub(first)
            .max(Duration::from_nanos(1));
        for (key, value) in [
            ("total_duration", nanos(at.elapsed)),
            ("load_duration", 0),
            ("prompt_eval_count", totals.counts.prompt(self.input_tokens)),
            ("prompt_eval_duration", nanos(first)),
            ("eval_count", totals.counts.completion(totals.output_bytes)),
            ("eval_duration", nanos(generation)),
        ] {
            number(key, value, out);
        }
        out.push(b'}');
    }

    /// The response to a request that runs no model.
    pub(super) fn without_model(&self, reason: &str, at: Moment) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(Texts::default(), at, &mut out);
        out.extend_from_slice(br#","done":true,"done_reason":"#);
        write_string(reason, &mut out);
        out.push(b'}');
        out
    }

    /// The response to a request that is not streamed.
    ///
    /// # Errors
    /// Status 502: the body is not a chat completion.
    pub(super) fn whole(&self, body: &[u8], at: Moment) -> Result<Translated, Refusal> {
        let completion = Completion::read(body)?;
        let mut warnings = Vec::new();
        let (mut text, mut thinking, mut calls) = (None, None, Vec::new());
        let (mut output_bytes, mut number) = (0, 0);
        for block in completion.blocks() {
            output_bytes += block.len() as u64;
            match block {
                ContentBlock::Thinking(found) => thinking = Some(found),
                ContentBlock::Text(found) => text = Some(found),
                ContentBlock::Tool(call) => {
                    if number > 0 {
                        calls.push(b',');
                    }
                    let mut input = Vec::new();
                    call.write_input(&mut input, &mut warnings);
                    let id = |out: &mut Vec<u8>| call.id.map(|id| id.write(out)).is_some();
                    write_call(
                        &WholeCall {
                            id: &id,
                            name: &|out| call.name.write(out),
                            arguments: &input,
                            number,
                        },
                        self.seed,
                        &mut calls,
                    );
                    number += 1;
                }
            }
        }
        let write_text: WriteText<'_> = &|out| {
            if let Some(text) = text {
                text.write(out);
            }
        };
        let write_thinking: WriteText<'_> = &|out| {
            if let Some(thinking) = thinking {
                JsonText::write(thinking, out);
            }
        };
        let shows_thinking = thinking.is_some() && !self.hides_thinking;
        let logprobs = self.has_logprobs.then(|| logprobs_of(body)).flatten();
        let mut out = Vec::with_capacity(completion.size_hint() + 512);
        let texts = Texts {
            text: text.is_some().then_some(write_text),
            thinking: shows_thinking.then_some(write_thinking),
            calls: (number > 0).then_some(&calls),
            logprobs,
        };
        self.begin(texts, at, &mut out);
        let totals = ReplyTotals {
            counts: completion.counts,
            output_bytes,
            finish: completion.finish,
            first: at.elapsed,
        };
        self.end(&totals, at, &mut out);
        Ok(Translated {
            body: out,
            warnings,
            output_bytes,
        })
    }

    /// The response to a request for embeddings.
    ///
    /// # Errors
    /// Status 502: the body is not a list of embeddings.
    pub(super) fn embeddings(&self, body: &[u8], at: Moment) -> Result<Translated, Refusal> {
        let wrong = || Refusal::backend("the endpoint's response is not a list of embeddings");
        let response = json::parse(body).ok_or_else(wrong)?;
        let [data, usage] = response.given(["data", "usage"]);
        let data = data
            .filter(|data| data.is(JsonKind::Array))
            .ok_or_else(wrong)?;
        let mut vectors = Vec::new();
        for (at, item) in data.elements().enumerate() {
            let [index, vector] = item.fields(["index", "embedding"]);
            let vector = vector.filter(|vector| vector.is(JsonKind::Array));
            let place = index.and_then(JsonValue::unsigned).unwrap_or(at as u64);
            vectors.push((place, vector.ok_or_else(wrong)?));
        }
        vectors.sort_by_key(|(place, _)| *place);
        let mut out = Vec::with_capacity(body.len() + 256);
        if self.operation == OllamaOperation::Embeddings {
            let (_, vector) = vectors.first().ok_or_else(wrong)?;
            out.extend_from_slice(br#"{"embedding":"#);
            vector.write_compact(&mut out);
            out.push(b'}');
        } else {
            let counts = usage.map_or_else(Counts::default, Counts::read);
            self.begin_embeddings(&mut out);
            for (at, (_, vector)) in vectors.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                vector.write_compact(&mut out);
            }
            self.end_embeddings(counts.prompt(self.input_tokens), at, &mut out);
        }
        Ok(Translated {
            body: out,
            ..Translated::default()
        })
    }

    /// The response to a request for embeddings of nothing.
    pub(super) fn no_embeddings(&self, at: Moment) -> Vec<u8> {
        if self.operation == OllamaOperation::Embeddings {
            return br#"{"embedding":[]}"#.to_vec();
        }
        let mut out = Vec::new();
        self.begin_embeddings(&mut out);
        self.end_embeddings(0, at, &mut out);
        out
    }

    fn begin_embeddings(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"model":"#);
        write_string(&self.model, out);
        out.extend_from_slice(br#","embeddings":["#);
    }

    fn end_embeddings(&self, tokens: u64, at: Moment, out: &mut Vec<u8>) {
        out.push(b']');
        number("total_duration", nanos(at.elapsed), out);
        number("load_duration", 0, out);
        number("prompt_eval_count", tokens, out);
        out.push(b'}');
    }
}

/// A call with all of its arguments.
pub(super) struct WholeCall<'w> {
    /// Writes the server's id, as the inside of a JSON string; false if there is none.
    pub(super) id: &'w dyn Fn(&mut Vec<u8>) -> bool,
    /// Writes the name, as the inside of a JSON string.
    pub(super) name: &'w dyn Fn(&mut Vec<u8>),
    /// A JSON object.
    pub(super) arguments: &'w [u8],
    /// Its place among the calls of the response.
    pub(super) number: u64,
}

/// Writes an element of `tool_calls`.
pub(super) fn write_call(call: &WholeCall<'_>, seed: IdSeed, out: &mut Vec<u8>) {
    use crate::dialects::chat::ids::call_digits;
    out.extend_from_slice(br#"{"id":""#);
    if !(call.id)(out) {
        let id = call_digits(seed, call.number, CALL_ID_DIGITS);
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(br#"","function":{"index":"#);
    write_number(call.number, out);
    out.extend_from_slice(br#","name":""#);
    (call.name)(out);
    out.extend_from_slice(br#"","arguments":"#);
    out.extend_from_slice(call.arguments);
    out.extend_from_slice(b"}}");
}

/// The length of the ids that the gateway makes: Mistral's templates take no other.
const CALL_ID_DIGITS: usize = 9;

/// The probabilities that a choice of a response has.
fn logprobs_of(body: &[u8]) -> Option<JsonValue<'_>> {
    let choices = json::parse(body)?.field("choices")?;
    let logprobs = choices.elements().next()?.field("logprobs")?;
    let content = logprobs.field("content")?;
    content.is(JsonKind::Array).then_some(content)
}

/// Writes a list of tokens with their probabilities, in the members that Ollama has.
fn write_logprobs(list: JsonValue<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, token) in list.elements().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'{');
        let begun = out.len();
        write_token(token, out);
        let top = token.field("top_logprobs");
        if let Some(top) = top.filter(|top| top.is(JsonKind::Array)) {
            if out.len() > begun {
                out.push(b',');
            }
            out.extend_from_slice(br#""top_logprobs":["#);
            for (at, token) in top.elements().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.push(b'{');
                write_token(token, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
    out.push(b']');
}

fn write_token(token: JsonValue<'_>, out: &mut Vec<u8>) {
    let members = ["token", "logprob", "bytes"];
    let begun = out.len();
    for (name, value) in members.into_iter().zip(token.given(members)) {
        let Some(value) = value else { continue };
        if out.len() > begun {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        value.write_compact(out);
    }
}

/// Writes a member with a string.
fn string(key: &[u8], write: Option<WriteText<'_>>, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    out.push(b'"');
    if let Some(write) = write {
        write(out);
    }
    out.push(b'"');
}

/// Writes a member with a number, after a comma.
fn number(key: &str, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write_number(value, out);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos())
        .unwrap_or_else(|_| millis(duration).saturating_mul(1_000_000))
}

/// Writes a time as RFC 3339.
fn write_time(unix_ms: u64, out: &mut Vec<u8>) {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    if at.format_into(out, &Rfc3339).is_err() {
        out.extend_from_slice(b"1970-01-01T00:00:00Z");
    }
}

/// Appends the line that ends a stream with an error.
pub(crate) fn write_error_line(message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"error":"#);
    write_string(message, out);
    out.extend_from_slice(b"}\n");
}

/// The warning that the arguments of a call are no object.
pub(super) fn unreadable(name: &[u8]) -> Warning {
    Warning::ArgumentsUnreadable {
        name: String::from_utf8_lossy(name).into_owned(),
    }
}
