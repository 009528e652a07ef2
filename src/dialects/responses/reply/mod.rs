//! The response to the client, made of an endpoint's chunks or of its whole response
//! (docs/contract/dialects.md#8).
//!
//! Both ways lead through the same items, so that the last event of a stream shows the object that
//! a request without events would have got. No clock is read: the caller says what time it is.

mod events;

use std::sync::Arc;

use super::items::{ItemCall, ItemForm, ItemKind, ItemStatus, OutputItem};
use super::names::ToolKind;
use super::object::{ReplyContext, ReplyStatus, ReplyUsage, ResponseObject};
use super::store::{Keeper, KeptObject};
use crate::dialects::KEEP_ALIVE_COMMENT;
use crate::dialects::chat::calls::{
    CallWriter, Calls, OpenedCall, TooMany, open_rest, open_waiting, take_piece,
};
use crate::dialects::chat::chunk::ChatChunk;
use crate::dialects::chat::completion::{CompleteCall, Completion, ContentBlock};
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::{IdSeed, call_digits};
use crate::dialects::chat::outcome::{Counts, Finish};
use crate::dialects::chat::warning::{Translated, Warning};
use crate::dialects::chat::writer::{ChatWriter, Moment};
use crate::json::{self, JsonText};
use events::EventWriter;

/// Characters of a call's id that the gateway makes: some templates take no other number.
const CALL_ID_CHARS: usize = 9;

/// The most bytes of one call's arguments (docs/contract/dialects.md#4).
const ARGUMENTS_BYTES_MAX: usize = 16 << 20;

/// The most bytes of all items of a response, which its last event repeats. No model writes as much.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Bytes that are copied in the time in which one is read.
const COPIED_PER_READ: usize = 64;

/// The object of a whole response of status below 400.
///
/// # Errors
/// Status 502 if it is not a chat completion.
pub(crate) fn whole(
    body: &[u8],
    (context, keeper): (impl Into<Arc<ReplyContext>>, Option<Keeper>),
    at: Moment,
) -> Result<Translated, Refusal> {
    let completion = Completion::read(body)?;
    let context = context.into();
    let room = context.echo.len() + completion.size_hint() + 512;
    let mut reply = Reply {
        events: EventWriter::new(false),
        ..Reply::new(context, keeper)
    };
    let mut body = Vec::with_capacity(room);
    reply.whole(&completion, at, &mut body);
    reply.finish(at, &mut body);
    Ok(Translated {
        body,
        output_bytes: reply.output_bytes(),
        warnings: reply.warnings,
    })
}

/// An error of an endpoint as clients of the API know it: Codex makes room when a conversation is too
/// long (docs/contract/dialects.md#17).
pub(crate) fn understood(error: Refusal) -> Refusal {
    match error.overflow() {
        Some(_) => error.with_code("context_length_exceeded"),
        None => error,
    }
}

/// The code of a failed response (docs/contract/dialects.md#8.4).
pub(crate) fn failure_code(error: &Refusal) -> &str {
    match (error.status, error.code()) {
        (429, _) => "rate_limit_exceeded",
        (_, Some(code)) => code,
        _ => "server_error",
    }
}

/// The response as the client has seen it.
#[derive(Debug)]
pub(crate) struct Reply {
    context: Arc<ReplyContext>,
    events: EventWriter,
    open: Option<OutputItem>,
    /// The place of the open item, or of the next one.
    index: u64,
    /// The closed items, joined by commas.
    output: Vec<u8>,
    /// There is a message or a call.
    has_content: bool,
    has_text: bool,
    refused: bool,
    calls: Calls,
    call_ids_made: u64,
    counts: Counts,
    finish: Finish,
    /// Of text and reasoning, and of the calls of a whole response; `calls` counts its own.
    output_bytes: u64,
    /// Keeps the finished response.
    keeper: Option<Keeper>,
    warnings: Vec<Warning>,
}

impl Reply {
    /// A response that is streamed.
    pub(crate) fn new(context: impl Into<Arc<ReplyContext>>, keeper: Option<Keeper>) -> Self {
        Self {
            context: context.into(),
            events: EventWriter::new(true),
            open: None,
            index: 0,
            output: Vec::new(),
            has_content: false,
            has_text: false,
            refused: false,
            calls: Calls::default(),
            call_ids_made: 0,
            counts: Counts::default(),
            finish: Finish::Other,
            output_bytes: 0,
            keeper,
            warnings: Vec::new(),
        }
    }

    fn form(&self) -> ItemForm {
        self.context.reasoning
    }

    /// Closes the open item and opens another.
    fn open(&mut self, kind: ItemKind, out: &mut Vec<u8>) {
        self.close(ItemStatus::Completed, out);
        self.has_content |= !matches!(kind, ItemKind::Reasoning);
        let item = OutputItem {
            id: self.context.item_id(kind.prefix(), self.index),
            kind,
            text: Vec::new(),
        };
        self.events.open(self.index, &item, self.form(), out);
        self.open = Some(item);
    }

    fn close(&mut self, status: ItemStatus, out: &mut Vec<u8>) {
        let Some(mut item) = self.open.take() else {
            return;
        };
        let form = self.form();
        if let ItemKind::Call(call) = &mut item.kind {
            match call.kind {
                ToolKind::Function if item.text.is_empty() => item.text = b"{}".to_vec(),
                ToolKind::Custom => {
                    let mut rest = Vec::new();
                    call.input.finish(&mut rest);
                    if !rest.is_empty() {
                        let mut piece = Vec::with_capacity(rest.len() + 16);
                        json::write_escaped(&rest, &mut piece);
                        item.text.extend_from_slice(&piece);
                        self.events.delta(self.index, &item, form, &piece, out);
                    }
                }
                _ => {}
            }
        }
        self.events.close(self.index, &item, form, status, out);
        if !self.output.is_empty() {
            self.output.push(b',');
        }
        item.write(status, form, &mut self.output);
        self.index += 1;
    }

    /// A piece of the open item's text, as the inside of a JSON string.
    fn add(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let form = self.form();
        if let Some(item) = &mut self.open {
            item.text.extend_from_slice(piece);
            self.events.delta(self.index, item, form, piece, out);
        }
    }

    /// A piece of text or reasoning, which `write` appends.
    fn prose(
        &mut self,
        kind: ItemKind,
        bytes: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.output_bytes += bytes as u64;
        let is_open = self.open.as_ref().is_some_and(|open| {
            std::mem::discriminant(&open.kind) == std::mem::discriminant(&kind)
        });
        if !is_open {
            // What is held is bounded already.
            let _ = open_waiting(self, true, out);
            self.calls.close();
            self.open(kind, out);
        }
        let mut piece = Vec::with_capacity(bytes + 16);
        write(&mut piece);
        self.add(&piece, out);
    }

    /// A piece of the open call's arguments, as the inside of a JSON string.
    fn add_arguments(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(item) = &mut self.open else {
            return;
        };
        if let ItemKind::Call(call) = &mut item.kind
            && call.kind == ToolKind::Custom
        {
            let mut text = Vec::new();
            let arguments = JsonText::of_written(piece).decode();
            call.input.push(arguments.as_bytes(), &mut text);
            let mut decoded = Vec::with_capacity(text.len() + 16);
            json::write_escaped(&text, &mut decoded);
            return self.add(&decoded, out);
        }
        self.add(piece, out);
    }

    fn begin_call(&mut self, id: Vec<u8>, name: &str, out: &mut Vec<u8>) {
        let id = if id.is_empty() {
            let made = call_digits(IdSeed(self.context.seed), self.call_ids_made, CALL_ID_CHARS);
            self.call_ids_made += 1;
            made.into_bytes()
        } else {
            id
        };
        let call = ItemCall::new(name, id, &self.context.tools);
        self.open(ItemKind::Call(Box::new(call)), out);
    }

    fn complete_call(&mut self, call: CompleteCall<'_>, out: &mut Vec<u8>) {
        let mut id = Vec::new();
        if let Some(given) = call.id {
            given.write(&mut id);
        }
        self.begin_call(id, &call.name.decode(), out);
        let mut arguments = Vec::new();
        if let Some(given) = call.arguments {
            given.write(&mut arguments);
        }
        self.add_arguments(&arguments, out);
    }

    /// Whether there is more than a response may have.
    fn is_too_long(&self) -> bool {
        let open = self.open.as_ref();
        let is_call = open.is_some_and(|open| matches!(open.kind, ItemKind::Call(_)));
        let open = open.map_or(0, |open| open.text.len());
        self.output.len() + open > OUTPUT_BYTES_MAX || is_call && open > ARGUMENTS_BYTES_MAX
    }

    fn usage(&self) -> ReplyUsage {
        ReplyUsage::of(self.counts, self.context.input_tokens, self.output_bytes())
    }
}

impl CallWriter for Reply {
    fn calls(&mut self) -> (&mut Calls, &mut Vec<Warning>) {
        (&mut self.calls, &mut self.warnings)
    }

    fn open_call(&mut self, call: OpenedCall, out: &mut Vec<u8>) {
        let name = JsonText::of_written(&call.name).decode();
        self.begin_call(call.id, &name, out);
    }

    fn arguments(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), TooMany> {
        self.add_arguments(piece, out);
        Ok(())
    }
}

impl ChatWriter for Reply {
    /// The first two events.
    fn start(&mut self, counts: Option<Counts>, _: Moment, out: &mut Vec<u8>) {
        self.counts = counts.unwrap_or_default();
        let object = ResponseObject {
            context: &self.context,
            status: &ReplyStatus::InProgress,
            completed: None,
            output: b"",
            usage: None,
            store: self.context.store_room.is_some(),
        };
        self.events.response("response.created", &object, out);
        self.events.response("response.in_progress", &object, out);
    }

    /// In this order: usage, finish reason, reasoning, text, tool calls.
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
            self.finish = finish;
        }
        if let Some(text) = chunk.reasoning {
            self.prose(ItemKind::Reasoning, text.len(), out, |out| text.write(out));
        }
        if let Some(text) = chunk.content {
            self.has_text = true;
            self.prose(ItemKind::Text, text.len(), out, |out| text.write(out));
        }
        let refusal = chunk.refusal.filter(|_| !self.has_text || self.refused);
        if let Some(text) = refusal {
            self.has_text = true;
            self.refused = true;
            self.prose(ItemKind::Refusal, text.len(), out, |out| text.write(out));
        }
        for piece in chunk.calls() {
            take_piece(self, &piece, out)?;
        }
        if self.is_too_long() {
            return Err(TooMany);
        }
        Ok(())
    }

    fn whole(&mut self, completion: &Completion<'_>, _: Moment, out: &mut Vec<u8>) {
        self.counts = completion.counts;
        self.finish = completion.finish;
        for block in completion.blocks() {
            match block {
                ContentBlock::Thinking(text) => {
                    self.prose(ItemKind::Reasoning, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Text(text) => {
                    let kind = if completion.refused {
                        ItemKind::Refusal
                    } else {
                        ItemKind::Text
                    };
                    self.prose(kind, block.len(), out, |out| text.write(out));
                }
                ContentBlock::Tool(call) => {
                    self.output_bytes += block.len() as u64;
                    self.complete_call(call, out);
                }
            }
        }
    }

    fn finish(&mut self, at: Moment, out: &mut Vec<u8>) {
        open_rest(self, out);
        let status = match self.finish {
            Finish::Length => ReplyStatus::Incomplete("max_output_tokens"),
            Finish::ContentFilter => ReplyStatus::Incomplete("content_filter"),
            Finish::Stop | Finish::Other => ReplyStatus::Completed,
        };
        let (event, last) = match status {
            ReplyStatus::Completed => ("response.completed", ItemStatus::Completed),
            _ => ("response.incomplete", ItemStatus::Incomplete),
        };
        self.close(last, out);
        self.calls.close();
        if !self.has_content {
            self.open(ItemKind::Text, out);
            self.close(ItemStatus::Completed, out);
        }
        let room = self.context.store_room;
        let store = room.is_some_and(|room| self.output.len() <= room);
        let object = ResponseObject {
            context: &self.context,
            status: &status,
            completed: Some(at.unix_ms / 1000),
            output: &self.output,
            usage: Some(self.usage()),
            store,
        };
        let mut written = Vec::with_capacity(self.context.echo.len() + self.output.len() + 512);
        object.write(&mut written);
        self.events.last(event, &written, out);
        if let Some(keeper) = self.keeper.take().filter(|_| store) {
            // The output is the last member.
            let end = written.len() - 1;
            let output = end - (self.output.len() + 2)..end;
            let object = KeptObject {
                object: written,
                output,
            };
            keeper.keep(&self.context.response_id(), object, at.unix_ms);
        }
    }

    fn fail(&mut self, error: &Refusal, _: Moment, out: &mut Vec<u8>) {
        let status = ReplyStatus::Failed {
            code: failure_code(error).to_owned(),
            message: error.message.clone(),
        };
        let object = ResponseObject {
            context: &self.context,
            status: &status,
            completed: None,
            output: &self.output,
            usage: None,
            store: false,
        };
        self.events.response("response.failed", &object, out);
    }

    fn understood(&self, error: Refusal) -> Refusal {
        understood(error)
    }

    fn keep_alive(&mut self, _: Moment, out: &mut Vec<u8>) {
        out.extend_from_slice(KEEP_ALIVE_COMMENT);
    }

    fn held(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.text.len());
        // What the end repeats is only copied.
        self.calls.held_bytes() + (self.output.len() + open) / COPIED_PER_READ
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
mod properties;
#[cfg(test)]
pub(crate) mod tests;
