//! A streamed response, from OpenAI chunks to Anthropic events (docs/contract/translation.md#8.3,
//! docs/contract/translation.md#8.4).

use super::completion::write_id;
use super::error::{self, error_kind};
use super::events::{self, ProseKind};
use super::ids::{message_id, tool_id};
use super::outcome::{Ending, Usage};
use crate::dialects::chat::calls::{
    CallWriter, Calls, OpenedCall, TooMany, open_rest, open_waiting, take_piece,
};
use crate::dialects::chat::chunk::ChatChunk;
use crate::dialects::chat::completion::{Completion, ContentBlock};
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::outcome::Counts;
use crate::dialects::chat::stream::{ChatStream, End};
use crate::dialects::chat::warning::Warning;
use crate::dialects::chat::writer::{ChatWriter, Moment};
use crate::json;

/// The translation of one stream.
pub fn message_stream(ctx: ResponseContext) -> ChatStream {
    ChatStream::new(Box::new(Message::new(ctx)))
}

/// Appends the error event of a response that ended like this.
pub(super) fn write_ending(how: End, out: &mut Vec<u8>) {
    let error = how.error();
    events::error(error_kind(error.status), &error.message, out);
}

/// The message as the client has seen it.
#[derive(Debug)]
struct Message {
    ctx: ResponseContext,
    /// The block that is open; a tool's call is open in `calls` too.
    open: Option<Open>,
    next_index: u64,
    calls: Calls,
    ids_made: u64,
    counts: Counts,
    ending: Ending,
    has_text: bool,
    /// Of text and thinking, and of the calls of a whole response; `calls` counts its own.
    output_bytes: u64,
    warnings: Vec<Warning>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Prose(ProseKind),
    Tool,
}

impl Message {
    fn new(ctx: ResponseContext) -> Self {
        Self {
            ctx,
            open: None,
            next_index: 0,
            calls: Calls::default(),
            ids_made: 0,
            counts: Counts::default(),
            ending: Ending::default(),
            has_text: false,
            output_bytes: 0,
            warnings: Vec::new(),
        }
    }

    fn usage(&self) -> Usage {
        Usage::of(self.counts, &self.ctx, self.output_bytes())
    }

    /// A piece of text or thinking.
    fn prose(
        &mut self,
        prose: ProseKind,
        bytes: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.output_bytes += bytes as u64;
        if self.open != Some(Open::Prose(prose)) {
            // What is held is bounded already.
            let _ = open_waiting(self, true, out);
            self.close(out);
            events::prose_start(self.next_index, prose, out);
            self.open = Some(Open::Prose(prose));
        }
        events::prose_delta(self.next_index, prose, out, write);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.calls.close();
        if self.open.take().is_some() {
            events::block_stop(self.next_index, out);
            self.next_index += 1;
        }
    }
}

impl CallWriter for Message {
    fn calls(&mut self) -> (&mut Calls, &mut Vec<Warning>) {
        (&mut self.calls, &mut self.warnings)
    }

    fn open_call(&mut self, mut call: OpenedCall, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            events::block_stop(self.next_index, out);
            self.next_index += 1;
        }
        if call.id.is_empty() {
            call.id = tool_id(self.ctx.seed, self.ids_made).into_bytes();
            self.ids_made += 1;
        }
        events::tool_start(self.next_index, &call.id, &call.name, out);
        self.open = Some(Open::Tool);
    }

    fn arguments(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), TooMany> {
        events::arguments_delta(self.next_index, piece, out);
        Ok(())
    }
}

impl ChatWriter for Message {
    fn start(&mut self, counts: Option<Counts>, _: Moment, out: &mut Vec<u8>) {
        self.counts = counts.unwrap_or(self.counts);
        let usage = Usage {
            output_tokens: 0,
            ..self.usage()
        };
        events::message_start(&message_id(self.ctx.seed), &self.ctx.model, usage, out);
    }

    /// In this order: usage, finish reason, reasoning, content, tool calls.
    fn chunk(
        &mut self,
        chunk: &ChatChunk<'_>,
        _: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), TooMany> {
        if let Some(counts) = chunk.counts {
            self.counts = counts;
        }
        if let Some(finish) = chunk.finish {
            self.ending.finish = finish;
        }
        if let Some(matched) = chunk.matched {
            self.ending.matched = Some(matched.decode().into_owned());
        }
        if let Some(reasoning) = chunk.reasoning {
            self.prose(ProseKind::Thinking, reasoning.len(), out, |out| {
                reasoning.write(out);
            });
        }
        if let Some(content) = chunk.content {
            self.has_text = true;
            self.prose(ProseKind::Text, content.len(), out, |out| {
                content.write(out)
            });
        }
        if let Some(refusal) = chunk
            .refusal
            .filter(|_| !self.has_text || self.ending.refused)
        {
            self.has_text = true;
            self.ending.refused = true;
            self.prose(ProseKind::Text, refusal.len(), out, |out| {
                refusal.write(out)
            });
        }
        for piece in chunk.calls() {
            take_piece(self, &piece, out)?;
        }
        Ok(())
    }

    /// Each block as start, one delta, stop.
    fn whole(&mut self, answer: &Completion<'_>, _: Moment, out: &mut Vec<u8>) {
        self.counts = answer.counts;
        self.ending = Ending::of(answer);
        for block in answer.blocks() {
            match block {
                ContentBlock::Thinking(text) => {
                    self.prose(ProseKind::Thinking, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Text(text) => {
                    self.prose(ProseKind::Text, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Tool(call) => {
                    self.close(out);
                    self.output_bytes += block.len() as u64;
                    let (mut id, mut name, mut input) = (Vec::new(), Vec::new(), Vec::new());
                    write_id(call, self.ctx.seed, &mut self.ids_made, &mut id);
                    call.name.write(&mut name);
                    call.write_input(&mut input, &mut self.warnings);
                    events::tool_start(self.next_index, &id, &name, out);
                    self.open = Some(Open::Tool);
                    if input != b"{}" {
                        let mut piece = Vec::with_capacity(input.len() + 16);
                        json::write_escaped(&input, &mut piece);
                        events::arguments_delta(self.next_index, &piece, out);
                    }
                }
            }
        }
    }

    fn finish(&mut self, _: Moment, out: &mut Vec<u8>) {
        open_rest(self, out);
        self.close(out);
        self.ending.calls_tool |= self.calls.any_opened();
        events::message_end(self.usage(), out, |out| self.ending.write(&self.ctx, out));
    }

    fn fail(&mut self, error: &Refusal, _: Moment, out: &mut Vec<u8>) {
        events::error(error_kind(error.status), &error.message, out);
    }

    fn understood(&self, error: Refusal) -> Refusal {
        error::understood(error, &self.ctx)
    }

    fn keep_alive(&mut self, _: Moment, out: &mut Vec<u8>) {
        events::ping(out);
    }

    /// docs/contract/translation.md#8.4
    fn takes_nothing(&self) -> bool {
        true
    }

    fn held(&self) -> usize {
        self.calls.held_bytes()
    }

    fn output_bytes(&self) -> u64 {
        self.output_bytes + self.calls.bytes()
    }

    fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

#[cfg(test)]
mod call_tests;
#[cfg(test)]
pub(crate) mod tests;
