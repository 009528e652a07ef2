//! The tool calls of a stream: which piece belongs to which call, and which call may be open
//! (docs/contract/translation.md#8.3, docs/contract/translation.md#8.4).
//!
//! Endpoints send calls in pieces, and some mix the pieces of several calls. Clients expect one
//! block after the other. So one call is open at a time, and pieces of the others are held until it
//! is complete. This module orders and holds pieces; each translation writes its own events
//! ([`CallWriter`]).

use super::completion::{Arguments, CALLS_MAX, filled};
use super::warning::{Warning, warn};
use crate::json::{JsonKind, JsonText, JsonValue, TextPiece};

/// Maximum number of bytes of names, ids and arguments that are held back.
pub(crate) const HELD_BYTES_MAX: usize = 16 << 20;

/// A response has more calls, or holds more back, than is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// One element of a chunk's `tool_calls`.
#[derive(Clone, Copy)]
pub(crate) struct CallPiece<'a> {
    index: u64,
    id: Option<JsonText<'a>>,
    name: Option<JsonText<'a>>,
    arguments: Option<Arguments<'a>>,
}

impl<'a> CallPiece<'a> {
    /// `None` if a field has a wrong type.
    pub(crate) fn read(call: JsonValue<'a>) -> Option<Self> {
        if !call.is(JsonKind::Object) {
            return None;
        }
        let [index, id, function] = call.given(["index", "id", "function"]);
        let [name, arguments] = match function {
            Some(function) if function.is(JsonKind::Object) => {
                function.given(["name", "arguments"])
            }
            Some(_) => return None,
            None => [None; 2],
        };
        let is_text =
            |value: Option<JsonValue<'_>>| value.is_none_or(|value| value.is(JsonKind::String));
        if !is_text(id) || !is_text(name) {
            return None;
        }
        Some(Self {
            index: match index {
                Some(index) => index.unsigned()?,
                None => 0,
            },
            id: filled(id),
            name: filled(name),
            arguments: match arguments {
                Some(arguments) => Some(Arguments::of(arguments)?),
                None => None,
            },
        })
    }
}

/// A call of the response.
#[derive(Debug)]
pub(super) struct StreamedCall {
    index: u64,
    /// Inside of a JSON string; empty as long as none was seen.
    pub(super) id: Vec<u8>,
    /// Inside of a JSON string; empty as long as none was seen.
    pub(super) name: Vec<u8>,
    /// Arguments that no event has carried yet, as the inside of a JSON string.
    pub(super) held: Vec<u8>,
    /// Bytes of name and arguments, for estimates.
    bytes: u64,
    progress: Progress,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Open,
    Closed,
}

/// What happens to a piece of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is none.
    Empty,
    /// It belongs to the open call and is sent.
    Send,
    /// It is held back.
    Held,
    /// Its call, at this place, is closed.
    Late(usize),
}

/// A call that begins, as the insides of JSON strings.
#[derive(Debug)]
pub(crate) struct OpenedCall {
    /// Empty if the endpoint has sent none so far.
    pub(crate) id: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

/// Writes the calls of a stream, one after the other: [`take_piece`] and [`open_waiting`] say when.
pub(crate) trait CallWriter {
    /// The calls of the stream, and what the log is to say.
    fn calls(&mut self) -> (&mut Calls, &mut Vec<Warning>);

    /// A call begins. Whatever was open ends.
    fn open_call(&mut self, call: OpenedCall, out: &mut Vec<u8>);

    /// A piece of the arguments of the open call, as the inside of a JSON string.
    ///
    /// # Errors
    /// There are more of them than can be held.
    fn arguments(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), TooMany>;

    /// All arguments of the open call have come, or no more of them will. True if the writer ends the
    /// call at that.
    fn complete(&mut self, out: &mut Vec<u8>) -> bool {
        let _ = out;
        false
    }
}

/// Takes a piece of a call, and writes what may be written then.
///
/// # Errors
/// There are more calls, or more bytes of them, than can be held.
pub(crate) fn take_piece(
    writer: &mut impl CallWriter,
    piece: &CallPiece<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TooMany> {
    let place = writer.calls().0.find(piece)?;
    open_waiting(writer, false, out)?;
    let (calls, warnings) = writer.calls();
    match calls.take(place, piece)? {
        Fate::Empty | Fate::Held => {}
        Fate::Send => {
            let piece = std::mem::take(&mut calls.piece);
            writer.arguments(&piece, out)?;
            // Its memory is for the next one.
            writer.calls().0.piece = piece;
        }
        Fate::Late(place) => calls.warn_late(place, warnings),
    }
    open_waiting(writer, false, out)
}

/// Opens the calls that may be, one after the other, each with what was held back of it. With `force`
/// incomplete ones do not keep others waiting.
///
/// # Errors
/// There are more bytes of a call than can be held.
pub(crate) fn open_waiting(
    writer: &mut impl CallWriter,
    force: bool,
    out: &mut Vec<u8>,
) -> Result<(), TooMany> {
    loop {
        let is_complete = force || writer.calls().0.is_open_complete();
        if is_complete && writer.complete(out) {
            writer.calls().0.close();
        }
        let Some(call) = writer.calls().0.open_next(force) else {
            return Ok(());
        };
        let opened = OpenedCall {
            id: call.id.clone(),
            name: call.name.clone(),
        };
        let held = std::mem::take(&mut call.held);
        writer.open_call(opened, out);
        if !held.is_empty() {
            writer.arguments(&held, out)?;
        }
    }
}

/// Writes the calls that still wait when a response ends. Their bytes were bounded when they were held.
pub(crate) fn open_rest(writer: &mut impl CallWriter, out: &mut Vec<u8>) {
    let _ = open_waiting(writer, true, out);
    let (calls, warnings) = writer.calls();
    if calls.any_waiting() {
        warn(warnings, || Warning::CallWithoutName);
    }
}

/// The calls of a response, in the order first seen.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    list: Vec<StreamedCall>,
    held_bytes: usize,
    /// The first call that may be waiting; those before are closed.
    first_waiting: usize,
    open: Option<usize>,
    /// The arguments of the last piece, as the inside of a JSON string.
    piece: Vec<u8>,
}

impl Calls {
    /// Bytes of calls that are held back.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Finds or adds the call that a piece belongs to, and stores id and name.
    pub(super) fn find(&mut self, piece: &CallPiece<'_>) -> Result<usize, TooMany> {
        let known = self
            .list
            .iter()
            .rposition(|call| call.index == piece.index)
            .filter(|at| self.list.get(*at).is_some_and(|call| !call.is_over(piece)));
        let at = match known {
            Some(at) => at,
            None if self.list.len() < CALLS_MAX => {
                self.list.push(StreamedCall::new(piece.index));
                self.list.len() - 1
            }
            None => return Err(TooMany),
        };
        if let Some(call) = self.list.get_mut(at) {
            let before = call.id.len() + call.name.len();
            call.note(piece);
            self.held_bytes += call.id.len() + call.name.len() - before;
        }
        self.check().map(|()| at)
    }

    /// Adds the arguments of a piece to the call at `at`.
    pub(super) fn take(&mut self, at: usize, piece: &CallPiece<'_>) -> Result<Fate, TooMany> {
        let (Some(arguments), Some(call)) = (piece.arguments, self.list.get_mut(at)) else {
            return Ok(Fate::Empty);
        };
        call.bytes += arguments.len() as u64;
        self.piece.clear();
        call.progress.read(arguments, &mut self.piece);
        if self.piece.is_empty() {
            return Ok(Fate::Empty);
        }
        match call.stage {
            Stage::Open => return Ok(Fate::Send),
            Stage::Closed => return Ok(Fate::Late(at)),
            Stage::Waiting => {
                call.held.extend_from_slice(&self.piece);
                self.held_bytes += self.piece.len();
            }
        }
        self.check().map(|()| Fate::Held)
    }

    /// Opens the next waiting call that has a name, and closes the open one. An incomplete call
    /// stays open unless `force` is set.
    pub(super) fn open_next(&mut self, force: bool) -> Option<&mut StreamedCall> {
        let holds = |call: &StreamedCall| call.stage == Stage::Open && !call.progress.complete;
        let current = self.open.and_then(|at| self.list.get(at));
        if !force && current.is_some_and(holds) {
            return None;
        }
        let from = self.first_waiting;
        let next = self
            .list
            .iter()
            .skip(from)
            .position(StreamedCall::can_open)?
            + from;
        self.close();
        self.open = Some(next);
        let call = self.list.get_mut(next)?;
        call.stage = Stage::Open;
        self.held_bytes = self.held_bytes.saturating_sub(call.held.len());
        Some(call)
    }

    /// Whether all of the arguments of the open call have come.
    fn is_open_complete(&self) -> bool {
        let open = self.open.and_then(|at| self.list.get(at));
        open.is_some_and(|call| call.progress.complete)
    }

    /// The open call's block has been closed.
    pub(crate) fn close(&mut self) {
        let open = self.open.take().and_then(|at| self.list.get_mut(at));
        if let Some(call) = open {
            call.stage = Stage::Closed;
        }
        let closed = |call: &&StreamedCall| call.stage == Stage::Closed;
        let rest = self.list.iter().skip(self.first_waiting);
        self.first_waiting += rest.take_while(closed).count();
    }

    /// Whether a call was ever opened.
    pub(crate) fn any_opened(&self) -> bool {
        self.opened().next().is_some()
    }

    /// Bytes of names and arguments of the calls that the client saw.
    pub(crate) fn bytes(&self) -> u64 {
        self.opened().map(|call| call.bytes).sum()
    }

    fn opened(&self) -> impl Iterator<Item = &StreamedCall> {
        self.list.iter().filter(|call| call.stage != Stage::Waiting)
    }

    /// Whether a call is still waiting; at the end, only those without a name are.
    fn any_waiting(&self) -> bool {
        self.list.iter().any(|call| call.stage == Stage::Waiting)
    }

    /// Warns of arguments that came after the call at `at` had been closed ([`Fate::Late`]).
    fn warn_late(&self, at: usize, warnings: &mut Vec<Warning>) {
        warn(warnings, || Warning::ArgumentsTooLate {
            name: self.list.get(at).map_or_else(String::new, |call| {
                String::from_utf8_lossy(&call.name).into_owned()
            }),
        });
    }

    fn check(&self) -> Result<(), TooMany> {
        if self.held_bytes > HELD_BYTES_MAX {
            return Err(TooMany);
        }
        Ok(())
    }
}

impl StreamedCall {
    fn new(index: u64) -> Self {
        Self {
            index,
            id: Vec::new(),
            name: Vec::new(),
            held: Vec::new(),
            bytes: 0,
            progress: Progress::default(),
            stage: Stage::Waiting,
        }
    }

    fn can_open(&self) -> bool {
        self.stage == Stage::Waiting && !self.name.is_empty()
    }

    /// Whether a piece of the same index begins another call: it has a name and another id, or no
    /// new id, but arguments after complete ones.
    fn is_over(&self, piece: &CallPiece<'_>) -> bool {
        if piece.name.is_none() || self.name.is_empty() {
            return false;
        }
        let is_new_id = piece.id.is_some_and(|id| {
            let mut written = Vec::new();
            id.write(&mut written);
            !self.id.is_empty() && written != self.id
        });
        let has_arguments = piece.arguments.is_some_and(|arguments| match arguments {
            Arguments::Text(text) => !text.is_empty(),
            Arguments::Value(_) => true,
        });
        is_new_id
            || (piece.id.is_none() || self.id.is_empty()) && has_arguments && self.progress.complete
    }

    /// Takes id and name, the first of each, as long as the block's start is not sent.
    fn note(&mut self, piece: &CallPiece<'_>) {
        if self.stage != Stage::Waiting {
            return;
        }
        if let Some(id) = piece.id.filter(|_| self.id.is_empty()) {
            id.write(&mut self.id);
        }
        if let Some(name) = piece.name.filter(|_| self.name.is_empty()) {
            name.write(&mut self.name);
            self.bytes += name.len() as u64;
        }
    }
}

/// How much of the JSON value of a call's arguments has arrived.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The value has ended. A number or literal never does: more of it may come.
    complete: bool,
}

impl Progress {
    /// Appends arguments as the inside of a JSON string and follows them.
    fn read(&mut self, arguments: Arguments<'_>, out: &mut Vec<u8>) {
        match arguments {
            Arguments::Text(text) => {
                for piece in text.pieces() {
                    match piece {
                        TextPiece::Run(run) => run.iter().for_each(|byte| self.byte(*byte)),
                        TextPiece::Char(c) => self.byte(u8::try_from(c).unwrap_or(b'?')),
                        TextPiece::Lone => self.byte(b'?'),
                    }
                }
                text.write(out);
            }
            Arguments::Value(value) => {
                let mut compact = Vec::new();
                value.write_compact(&mut compact);
                compact.iter().for_each(|byte| self.byte(*byte));
                crate::json::write_escaped(&compact, out);
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
                self.complete |= self.depth == 0;
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.complete |= self.depth == 0;
            }
            _ => {}
        }
    }
}
