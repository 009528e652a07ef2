//! Finds in a request body, while it arrives, what routing needs: the model's name, whether a
//! stream is requested, the parts of the prompt, and whether there are images.
//!
//! The body is never parsed into values and never copied. A scanner walks over the top-level object
//! once, in the buffer into which the body is received, and resumes where the last bytes ended. It
//! uses no heap, except for the places of files and of blanks between messages, if the prompt is
//! wanted. Everything below the top level is skipped: there only nesting and the ends of strings
//! matter.
//!
//! This module never refuses a body. In a body that is not a JSON object, or is invalid from some
//! byte on, nothing more is found (docs/contract/balancing.md#2); values that were complete before
//! count. It does not validate: escapes, control characters and numbers that it does not need are
//! not checked. It reads every valid body exactly; the endpoint rejects an invalid one.
//!
//! Almost all bytes of a large request are inside strings, so its cost is that of finding where
//! strings end; `scan` says how that is done and what the alternatives cost.

mod form;
mod keep_alive;
mod key;
mod messages;
mod name;
mod opening;
mod prompt;
#[cfg(test)]
mod properties;
mod scan;
mod tally;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use form::Form;
use key::BodyKey;
pub use name::{Splice, model_name, rewrite_model};
pub(crate) use opening::Opening;
use prompt::Notes;
pub use prompt::{BodySpan, PromptParts};
pub(crate) use prompt::{LIST_BYTES_MAX, blanks_between};
use scan::{Nest, Step};
pub use tally::BodyTally;
use tally::{CountKey, SeenFields};

/// What to look for, determined by the route and the configuration before the body arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The path ends in `/api/show`: a string `name` counts if there is no `model`.
    pub name_key: bool,
    /// Look for image parts when no model is named (docs/contract/balancing.md#4.4).
    pub vision: bool,
    /// Find what the estimate of a request's tokens depends on (docs/contract/access.md#7.1).
    pub tally: bool,
    /// Find the parts of the prompt, its files and the limit of the output, from which the cost of a
    /// request is predicted (docs/contract/scheduling.md#2).
    pub prompt: bool,
}

/// The values found in a body. The default is that of an empty body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Whether the first byte that is not blank is `{`. Nothing is found in other bodies, so only
    /// this determines what is inspected, whatever the `Content-Type`
    /// (docs/contract/README.md#2).
    pub object: bool,
    /// The name of a model; [`model_name`] reads it.
    pub model: Option<Found>,
    /// The top-level `stream` is `true`.
    pub stream: bool,
    /// A message has an image part. Only if wanted, and only without a model.
    pub images: bool,
    /// A byte order mark stands before the object ([`MARK`]).
    pub mark: bool,
    /// If there is no model, why.
    pub missing: Missing,
    /// What the estimate depends on. Only if wanted; if only the prompt is, without `fields` and
    /// `ambiguous`.
    pub tally: BodyTally,
    /// Where the parts of the prompt are. Only if wanted.
    pub prompt: PromptParts,
}

impl Findings {
    /// The same of a body in which other parts were replaced: `moved` tells where a part is there.
    pub(crate) fn move_by(&mut self, moved: impl Fn(&Range<usize>) -> Range<usize>) {
        if let Some(model) = &mut self.model {
            let Range { start, end } = moved(&model.span());
            (model.start, model.end) = (start, end);
        }
        self.prompt.move_by(moved);
    }
}

/// A byte order mark in UTF-8, as .NET and PowerShell write it.
pub(crate) const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A body without a byte order mark before it.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(&MARK).unwrap_or(body)
}

/// Why a body names no model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is not an object, or breaks off.
    #[default]
    NotJson,
    /// The value of `model` is not a string.
    NotText,
    /// The name is blank, or no text.
    Blank,
    /// There is no such key.
    Absent,
    /// A form without a boundary.
    NoBoundary,
    /// A form without such a part.
    NoPart,
    /// A form whose part is blank, or no text.
    BlankPart,
    /// A form with too many such parts.
    Crowded,
}

/// Where in a body the name of a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    start: usize,
    end: usize,
    escaped: bool,
    source: NameSource,
}

impl Found {
    /// The bytes between the quotes, as sent: escapes and surrounding blanks included.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether the name is written with escapes and so long that it is not read: it would be refused
    /// for its length (docs/contract/surface.md#11).
    pub(crate) fn is_huge(&self) -> bool {
        self.escaped && self.span().len() > name::RAW_NAME_BYTES_MAX
    }

    /// Which value of the body names the model.
    pub fn source(&self) -> NameSource {
        self.source
    }
}

/// The places a model's name is taken from, best first (docs/contract/balancing.md#2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSource {
    /// The top-level `model`, in this or another letter case.
    Model,
    /// The top-level `name` of Ollama's `/api/show`.
    Name,
    /// `model` in the first element of `messages`.
    Message,
    /// A part of a form.
    Part,
}

/// The scanner of one body. Small, and without heap until it notes places; a connection makes a new
/// one for each request.
#[derive(Debug, Clone)]
pub struct Inspector {
    wanted: Wanted,
    state: State,
    /// Every byte before this one has been processed.
    pos: usize,
    /// The start of the key or value being read; for a string, after its opening quote.
    start: usize,
    /// The key of the value that is next or being read.
    key: BodyKey,
    /// The state of the scan within a nested value.
    nest: Nest,
    /// The next byte of the string being read follows a backslash.
    escaped: bool,
    /// What that key means for the output, and what was found of it. Only if wanted.
    count_key: CountKey,
    meaning: CountKey,
    tally: BodyTally,
    seen: Seen,
    /// Only if the prompt is wanted.
    prompt: PromptParts,
}

/// The part of the body to which the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Blanks before the body.
    Start,
    /// After `{`: a key or the end.
    FirstKey,
    /// After `,`: a key.
    NextKey,
    /// Inside a key.
    Key,
    /// After a key.
    Colon,
    /// After `:`.
    Value,
    /// Inside a string value.
    Text,
    /// Inside a number or literal.
    Scalar,
    /// Inside an array or object.
    Nested,
    /// After a value: `,` or the end.
    Comma,
    /// The object has ended or turned out not to be JSON. All further bytes are ignored.
    Over,
}

/// Values that are complete. Of duplicates the last stays, as in most JSON readers.
#[derive(Debug, Clone, Default)]
struct Seen {
    object: bool,
    mark: bool,
    /// The object has ended.
    closed: bool,
    /// A `model` that is not a string.
    other_model: bool,
    /// There was a `model`, in whatever letter case. Only if a tally is wanted.
    names_model: bool,
    /// The fields that limit the output. Only if a tally is wanted.
    fields: SeenFields,
    stream: bool,
    // Strings, without quotes.
    model: Option<Range<usize>>,
    cased_model: Option<Range<usize>>,
    name: Option<Range<usize>>,
    // Raw JSON.
    messages: Option<Range<usize>>,
    prompt: Option<Range<usize>>,
}

impl Default for Inspector {
    fn default() -> Self {
        Self::new(Wanted::default())
    }
}

impl Inspector {
    /// A scanner at the start of a body.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            state: State::Start,
            pos: 0,
            start: 0,
            key: BodyKey::Other,
            nest: Nest::default(),
            escaped: false,
            count_key: CountKey::Other,
            meaning: CountKey::Other,
            tally: BodyTally::default(),
            seen: Seen::default(),
            prompt: PromptParts::default(),
        }
    }

    /// Continues where the last call stopped. `body` is everything received so far: the bytes of
    /// the last call, unchanged, and what came after them. The cost is that of the new bytes.
    pub fn advance(&mut self, body: &[u8]) {
        if self.pos == 0 && !self.skip_mark(body) {
            return;
        }
        while self.state != State::Over {
            if self.member(body).is_none() {
                self.pos = self.pos.max(body.len());
                return;
            }
        }
    }

    /// Skips a byte order mark; false while it cannot be told whether there is one.
    fn skip_mark(&mut self, body: &[u8]) -> bool {
        if body.starts_with(&MARK) {
            self.seen.mark = true;
            self.pos = MARK.len();
        }
        self.pos > 0 || body.is_empty() || !MARK.starts_with(body)
    }

    /// The result, once the body is complete or has ended early.
    pub fn finish(&mut self, body: &[u8]) -> Findings {
        self.advance(body);
        let messages = self
            .seen
            .messages
            .as_ref()
            .filter(|span| !is_absent(body, span));
        let model = self
            .top_level_name(body)
            .or_else(|| messages.and_then(|span| messages::first_model(body, span.start)));
        let images = self.wanted.vision
            && model.is_none()
            && messages.is_some_and(|span| messages::has_image(body, span.start));
        let is_whole = self.wanted.tally && self.seen.closed;
        let parts = if self.wanted.prompt {
            self.prompt_parts(body)
        } else {
            PromptParts::default()
        };
        Findings {
            object: self.seen.object,
            model,
            stream: self.seen.stream,
            images,
            mark: self.seen.mark && self.seen.object,
            missing: self.missing(),
            tally: BodyTally {
                fields: self.seen.fields.known().filter(|_| is_whole),
                ..self.tally
            },
            prompt: parts,
        }
    }

    fn prompt_parts(&mut self, body: &[u8]) -> PromptParts {
        let mut parts = std::mem::take(&mut self.prompt);
        let raw =
            |span: &Option<Range<usize>>| span.clone().map_or(BodySpan::default(), BodySpan::from);
        parts.messages = raw(&self.seen.messages);
        parts.prompt = raw(&self.seen.prompt);
        parts.is_whole = self.seen.closed && u32::try_from(body.len()).is_ok();
        parts.finish(body);
        parts
    }

    fn missing(&self) -> Missing {
        let seen = &self.seen;
        if !seen.object || !seen.closed {
            Missing::NotJson
        } else if seen.model.is_some() || seen.cased_model.is_some() {
            Missing::Blank
        } else if seen.other_model {
            Missing::NotText
        } else {
            Missing::Absent
        }
    }

    /// Contract: docs/contract/balancing.md#2. Strings only ever compete with strings: a `null` or
    /// number under the same key changes nothing. A blank `model` is still the one a backend reads,
    /// so another letter case does not replace it, but the other sources do.
    fn top_level_name(&self, body: &[u8]) -> Option<Found> {
        let model = self.seen.model.as_ref().or(self.seen.cased_model.as_ref());
        let name = self.seen.name.as_ref().filter(|_| self.wanted.name_key);
        model
            .and_then(|span| name::found(body, span.clone(), NameSource::Model))
            .or_else(|| name.and_then(|span| name::found(body, span.clone(), NameSource::Name)))
    }

    /// Reads one member, or the rest of it; `None` if the bytes ran out. The steps are in the order
    /// in which they usually follow each other: the processor predicts a jump by state for each of
    /// them so badly that it costs more than everything else.
    fn member(&mut self, body: &[u8]) -> Option<()> {
        if matches!(self.state, State::Start | State::FirstKey | State::NextKey) {
            self.structure(body)?;
        }
        if self.state == State::Key {
            let quote = scan::string_end(body, self.pos, &mut self.escaped)?;
            self.pos = quote + 1;
            let raw = body.get(self.start..quote).unwrap_or(b"");
            self.key = BodyKey::of(raw);
            if self.counts() {
                self.note_key(raw);
            }
            self.state = State::Colon;
        }
        if self.state == State::Colon {
            self.structure(body)?;
        }
        if self.state == State::Value {
            self.structure(body)?;
        }
        match self.state {
            State::Text => {
                let quote = scan::string_end(body, self.pos, &mut self.escaped)?;
                self.pos = quote + 1;
                if self.counts() {
                    let mut notes =
                        Notes::<false>::of(self.wanted, &mut self.tally, &mut self.prompt);
                    notes.text(body, self.start..quote);
                    // Some servers read a number in quotes.
                    let text = body.get(self.start..quote).unwrap_or(b"");
                    self.tally.scalar(self.meaning, text);
                    self.seen.fields.note(self.count_key, None);
                }
                self.keep_text(self.start..quote);
                self.state = State::Comma;
            }
            State::Scalar => {
                self.pos = scan::scalar_end(body, self.pos)?;
                let token = &body[self.start..self.pos];
                if self.counts() {
                    self.tally.scalar(self.meaning, token);
                    self.seen.fields.note(self.count_key, Some(token));
                }
                self.keep_scalar(token);
                self.state = if scan::is_scalar(token) {
                    State::Comma
                } else {
                    State::Over
                };
            }
            State::Nested => match self.nested(body) {
                Step::More => return None,
                Step::Ended(end) => {
                    self.pos = end;
                    if self.counts() {
                        self.tally.object(self.meaning, body, self.start);
                        self.seen.fields.note(self.count_key, None);
                    }
                    self.keep_raw(self.start..end);
                    self.state = State::Comma;
                }
                Step::Broken => self.state = State::Over,
            },
            _ => {}
        }
        if self.state == State::Comma {
            self.structure(body)?;
        }
        Some(())
    }

    /// Takes the next byte that is not blank, outside of keys and values. Inlined, most of it goes
    /// away: the caller knows the state.
    #[inline(always)]
    fn structure(&mut self, body: &[u8]) -> Option<()> {
        let at = scan::skip_blanks(body, self.pos);
        let byte = *body.get(at)?;
        self.pos = at + 1;
        self.start = at;
        self.state = match (self.state, byte) {
            (State::Start, b'{') => {
                self.seen.object = true;
                State::FirstKey
            }
            (State::FirstKey | State::NextKey, b'"') => {
                self.start = self.pos;
                State::Key
            }
            (State::Colon, b':') => State::Value,
            (State::Value, b'"') => {
                self.start = self.pos;
                State::Text
            }
            (State::Value, b'{' | b'[') => {
                self.nest = if self.counts() {
                    Nest::opened_at(body, at, byte)
                } else {
                    Nest::opened_by(byte)
                };
                if self.wanted.prompt {
                    let is_list = matches!(
                        self.key,
                        BodyKey::Messages | BodyKey::Input | BodyKey::Prompt
                    );
                    self.prompt.open(at, is_list && byte == b'[');
                }
                State::Nested
            }
            (State::Value, _) if scan::is_scalar_byte(byte) => State::Scalar,
            (State::Comma, b',') => State::NextKey,
            (State::FirstKey | State::Comma, b'}') => {
                self.seen.closed = true;
                State::Over
            }
            // The end of what can be understood.
            _ => State::Over,
        };
        Some(())
    }

    /// Continues to scan a nested value.
    fn nested(&mut self, body: &[u8]) -> Step {
        if !self.counts() {
            return self.nest.scan(body, self.pos);
        }
        let (tally, parts) = (&mut self.tally, &mut self.prompt);
        if parts.is_in_list() {
            let mut notes = Notes::<true>::of(self.wanted, tally, parts);
            self.nest.scan_with(body, self.pos, &mut notes)
        } else {
            let mut notes = Notes::<false>::of(self.wanted, tally, parts);
            self.nest.scan_with(body, self.pos, &mut notes)
        }
    }

    /// Whether files and limits of the output are looked for.
    const fn counts(&self) -> bool {
        self.wanted.tally | self.wanted.prompt
    }

    fn note_key(&mut self, raw: &[u8]) {
        self.count_key = CountKey::of(raw);
        self.meaning = self.count_key.meaning(raw);
        if self.wanted.tally && matches!(self.key, BodyKey::Model | BodyKey::CasedModel) {
            let before = std::mem::replace(&mut self.seen.names_model, true);
            self.tally.ambiguous |= before;
        }
    }

    fn keep_text(&mut self, text: Range<usize>) {
        match self.key {
            BodyKey::Model => self.seen.model = Some(text),
            BodyKey::CasedModel => self.seen.cased_model = Some(text),
            BodyKey::Name => self.seen.name = Some(text),
            _ => self.keep_raw(text.start - 1..text.end + 1),
        }
    }

    fn keep_scalar(&mut self, token: &[u8]) {
        match self.key {
            BodyKey::Stream => self.seen.stream = token == b"true",
            _ => self.keep_raw(self.start..self.pos),
        }
    }

    /// Keeps the raw JSON of a value if its key asks for that.
    fn keep_raw(&mut self, raw: Range<usize>) {
        match self.key {
            BodyKey::Messages => self.seen.messages = Some(raw),
            BodyKey::Prompt => self.seen.prompt = Some(raw),
            BodyKey::Stream => self.seen.stream = false,
            BodyKey::Model | BodyKey::CasedModel => self.seen.other_model = true,
            BodyKey::Input => self.prompt.input = BodySpan::from(raw),
            BodyKey::Tools => self.prompt.tools = BodySpan::from(raw),
            BodyKey::System => self.prompt.system = BodySpan::from(raw),
            BodyKey::Instructions => self.prompt.instructions = BodySpan::from(raw),
            BodyKey::KeepAlive => self.prompt.keep_alive = BodySpan::from(raw),
            _ => {}
        }
    }
}

/// `null` and `[]` count as missing (docs/contract/balancing.md#8).
fn is_absent(body: &[u8], span: &Range<usize>) -> bool {
    match body.get(span.clone()) {
        Some([b'[', inner @ .., b']']) => scan::skip_blanks(inner, 0) == inner.len(),
        Some(raw) => raw == b"null",
        None => true,
    }
}
