//! The largest output that a request may ask for: found in its body, and lowered or refused.
//!
//! Servers differ in what they make of odd values: some take a negative number, `null` or a value
//! of another type as no limit, some match names in any letter case, and of a name that stands
//! twice the last counts. So that no spelling lifts the limit, each of these is replaced too where
//! it would.
//!
//! Contract: docs/contract/access.md#7.5

use std::borrow::Cow;
use std::ops::Range;

use olla_engine::h1::emit::decimal;
use percent_encoding::percent_decode;

use crate::config::{OutputField, OutputKey, OutputLimit};
use crate::json::scan::{nested_end, part, scalar_end, skip_blanks, string_end};

/// The longest value that an error shows.
const SHOWN_BYTES_MAX: usize = 32;

/// A request asks for more than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputTooLong {
    /// The field.
    pub(crate) field: &'static str,
    /// Its value, as the client wrote it.
    pub(crate) value: String,
}

/// A body with the output limit in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitedBody {
    /// The body.
    pub(crate) text: Vec<u8>,
    edits: Vec<Edit>,
    /// The digits of the limit.
    digits: usize,
}

/// Replaces a part of a body by the limit with something around it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    replaced: Range<usize>,
    before: &'static str,
    after: &'static str,
}

/// The output limit of a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputMax {
    /// Tokens.
    pub(crate) max: u64,
    /// What becomes of a request for more.
    pub(crate) mode: OutputLimit,
}

/// What is known of the keys of a body that limit its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownOutput {
    /// Nothing.
    Unknown,
    /// Each is one of these fields (their bits), in the usual spelling, with an integer; this is the
    /// largest.
    Integers { fields: u8, most: u64 },
}

/// A body with the output limit in it; `None` if it may stay as it is.
///
/// # Errors
/// The policy refuses what it does not allow.
pub(crate) fn limited(
    body: &[u8],
    path: &[u8],
    OutputMax { max, mode }: OutputMax,
    known: KnownOutput,
) -> Result<Option<LimitedBody>, OutputTooLong> {
    let Some(open) = object_start(body) else {
        return Ok(None);
    };
    let reader = Reader::of(path);
    let mut found = Found::default();
    match known {
        KnownOutput::Integers { fields, most } if most <= max => {
            found.is_given = fields & reader.fields() != 0;
        }
        _ => found.read(body, open, &reader, max),
    }
    if let (OutputLimit::Refuse, Some((field, value))) = (mode, found.over.take()) {
        let value = part(body, value);
        let shown = part(value, ..value.len().min(SHOWN_BYTES_MAX));
        return Err(OutputTooLong {
            field: field.path(),
            value: String::from_utf8_lossy(shown).into_owned(),
        });
    }
    found.complete(&reader, body, open);
    Ok((!found.edits.is_empty()).then(|| LimitedBody::new(body, found.edits, max)))
}

/// What the endpoints behind a path read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Chat,
    Responses,
    Native,
    Ollama,
    Other,
}

impl Reader {
    /// Escapes and slashes at the end are seen through, as a server does.
    fn of(path: &[u8]) -> Self {
        let decoded = match memchr::memchr(b'%', path) {
            Some(_) => Cow::Owned(percent_decode(path).collect()),
            None => Cow::Borrowed(path),
        };
        let is_end = |byte: &u8| *byte == b'/' || byte.is_ascii_whitespace();
        let end = decoded.iter().rposition(|byte| !is_end(byte));
        let path = part(&decoded, ..end.map_or(0, |at| at + 1));
        let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end.as_bytes()));
        if ends(&["/chat/completions"]) {
            Self::Chat
        } else if ends(&["/responses"]) {
            Self::Responses
        } else if ends(&["/completion", "/infill"]) {
            Self::Native
        } else if ends(&["/api/chat", "/api/generate"]) {
            Self::Ollama
        } else {
            Self::Other
        }
    }

    /// The fields at the top of the body that are a limit for them, by their bits.
    const fn fields(self) -> u8 {
        match self {
            Self::Chat => OutputField::MaxTokens.bit() | OutputField::MaxCompletionTokens.bit(),
            Self::Native => OutputField::NPredict.bit() | OutputField::MaxTokens.bit(),
            Self::Ollama => 0,
            Self::Responses | Self::Other => self.own().bit(),
        }
    }

    /// The field that is added.
    const fn own(self) -> OutputField {
        match self {
            Self::Chat | Self::Other => OutputField::MaxTokens,
            Self::Responses => OutputField::MaxOutputTokens,
            Self::Native => OutputField::NPredict,
            Self::Ollama => OutputField::OptionsNumPredict,
        }
    }

    /// What stands around the limit where the field is added to the top of the body.
    const fn added(self) -> (&'static str, &'static str) {
        match self {
            Self::Chat | Self::Other => (r#""max_tokens":"#, ""),
            Self::Responses => (r#""max_output_tokens":"#, ""),
            Self::Native => (r#""n_predict":"#, ""),
            Self::Ollama => (r#""options":{"num_predict":"#, "}"),
        }
    }
}

/// What a body says of its output.
#[derive(Debug, Default)]
struct Found {
    /// Replaced parts.
    edits: Vec<Edit>,
    /// A field that the endpoints read has a number.
    is_given: bool,
    /// The fields that have one, by their bits.
    given: u8,
    /// Those that are `null`.
    nulls: Vec<(OutputField, Range<usize>)>,
    /// The first field above the limit.
    over: Option<(OutputField, Range<usize>)>,
}

impl Found {
    fn read(&mut self, body: &[u8], open: usize, reader: &Reader, max: u64) {
        for (key, value) in Members::of(body, open) {
            match member_of(part(body, key)) {
                None => {}
                Some((OutputKey::Options, is_exact)) => {
                    let has_limit = self.options(body, value, reader, max);
                    self.is_given |= is_exact && has_limit;
                }
                Some((OutputKey::Field(field), is_exact)) => {
                    let counts = is_exact && reader.fields() & field.bit() != 0;
                    self.field(body, (field, value), counts, max);
                }
            }
        }
    }

    fn replace(&mut self, replaced: Range<usize>) {
        self.edits.push(Edit {
            replaced,
            before: "",
            after: "",
        });
    }

    fn field(
        &mut self,
        body: &[u8],
        (field, value): (OutputField, Range<usize>),
        counts: bool,
        max: u64,
    ) {
        match Value::of(part(body, value.clone()), field, max) {
            Value::Null => {
                if counts {
                    self.nulls.push((field, value));
                }
                return;
            }
            Value::Fits => {}
            Value::Over => {
                self.over.get_or_insert_with(|| (field, value.clone()));
                self.replace(value);
            }
        }
        if counts {
            self.is_given = true;
            self.given |= field.bit();
        }
    }

    /// Takes an object of options. For servers that read them each one has a limit: of several some
    /// take the last, and some all together. Returns whether it has one.
    fn options(&mut self, body: &[u8], value: Range<usize>, reader: &Reader, max: u64) -> bool {
        const LIMIT: OutputKey = OutputKey::Field(OutputField::NumPredict);
        let counts = *reader == Reader::Ollama;
        let outside = (self.is_given, self.given, std::mem::take(&mut self.nulls));
        self.given = 0;
        let has_limit = match body.get(value.start) {
            Some(b'{') => {
                for (key, value) in Members::of(body, value.start) {
                    if let Some((LIMIT, is_exact)) = member_of(part(body, key)) {
                        let field = OutputField::OptionsNumPredict;
                        self.field(body, (field, value), counts && is_exact, max);
                    }
                }
                if counts {
                    self.close_options(body, value.start + 1);
                }
                counts
            }
            // It would take the options before it back.
            Some(b'n') if counts => {
                self.edits.push(Edit {
                    replaced: value,
                    before: r#"{"num_predict":"#,
                    after: "}",
                });
                true
            }
            _ => false,
        };
        (self.is_given, self.given, self.nulls) = outside;
        has_limit
    }

    /// The options whose members begin at `at` have all been read.
    fn close_options(&mut self, body: &[u8], at: usize) {
        let nulls = std::mem::take(&mut self.nulls);
        let has_limit = self.given != 0 || !nulls.is_empty();
        // Behind a limit a `null` takes it back; without one the `null` becomes the limit.
        for (_, value) in nulls {
            self.replace(value);
        }
        if !has_limit {
            let is_empty = body.get(skip_blanks(body, at)) == Some(&b'}');
            self.edits.push(Edit {
                replaced: at..at,
                before: r#""num_predict":"#,
                after: if is_empty { "" } else { "," },
            });
        }
    }

    /// Adds the limit if the body has none.
    fn complete(&mut self, reader: &Reader, body: &[u8], open: usize) {
        let own = reader.own();
        let mut has_own = self.is_given;
        for (field, value) in std::mem::take(&mut self.nulls) {
            let is_own = !self.is_given && field == own;
            // A `null` behind a number under the same name takes it back.
            if is_own || self.given & field.bit() != 0 {
                self.replace(value);
                has_own |= is_own;
            }
        }
        if has_own {
            return;
        }
        let at = open + 1;
        let (before, end) = reader.added();
        let is_empty = body.get(skip_blanks(body, at)) == Some(&b'}');
        let after = match (end, is_empty) {
            (end, true) => end,
            ("", false) => ",",
            (_, false) => "},",
        };
        self.edits.push(Edit {
            replaced: at..at,
            before,
            after,
        });
    }
}

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Null,
    Fits,
    /// It is larger, or may be taken as no limit.
    Over,
}

impl Value {
    fn of(raw: &[u8], field: OutputField, max: u64) -> Self {
        if raw == b"null" {
            return Self::Null;
        }
        // Servers that call 0 no limit are more than those that generate nothing then. llama.cpp is
        // one of these on its own routes.
        let least = match field {
            OutputField::NPredict => 0.0,
            _ => 1.0,
        };
        let number = std::str::from_utf8(raw).ok().map(str::parse::<f64>);
        // Limits are integers below 2^53, which are exact.
        match number {
            Some(Ok(number)) if (least..=max as f64).contains(&number) => Self::Fits,
            _ => Self::Over,
        }
    }
}

/// The meaning of a key between its quotes, and whether it is written as servers write it.
fn member_of(raw: &[u8]) -> Option<(OutputKey, bool)> {
    if raw.contains(&b'\\') {
        return escaped_member_of(raw);
    }
    OutputKey::of(raw)
}

/// The same for a key with escapes. Keys are short; longer ones are none of these.
#[cold]
fn escaped_member_of(raw: &[u8]) -> Option<(OutputKey, bool)> {
    const BYTES_MAX: usize = 6 * "max_completion_tokens".len();
    let text = std::str::from_utf8(raw).ok();
    let text = text.filter(|text| text.len() <= BYTES_MAX)?;
    let text: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
    OutputKey::of(text.as_bytes())
}

/// The `{` that begins a body, behind a byte order mark and blanks.
fn object_start(body: &[u8]) -> Option<usize> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let at = if body.starts_with(MARK) {
        MARK.len()
    } else {
        0
    };
    let at = skip_blanks(body, at);
    (body.get(at) == Some(&b'{')).then_some(at)
}

/// The members of an object: the names between their quotes, and the values. It ends where the text
/// is no JSON.
struct Members<'b> {
    body: &'b [u8],
    at: usize,
}

impl<'b> Members<'b> {
    /// Those of the object whose `{` is there.
    fn of(body: &'b [u8], open: usize) -> Self {
        Self { body, at: open + 1 }
    }
}

impl Iterator for Members<'_> {
    type Item = (Range<usize>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let body = self.body;
        let mut at = skip_blanks(body, self.at);
        while body.get(at) == Some(&b',') {
            at = skip_blanks(body, at + 1);
        }
        if body.get(at) != Some(&b'"') {
            return None;
        }
        let key = at + 1..string_end(body, at + 1)?;
        let colon = skip_blanks(body, key.end + 1);
        if body.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_blanks(body, colon + 1);
        let end = match body.get(start)? {
            b'"' => string_end(body, start + 1)? + 1,
            b'{' | b'[' => nested_end(body, start)?,
            _ => scalar_end(body, start),
        };
        self.at = end;
        (end > start).then_some((key, start..end))
    }
}

impl LimitedBody {
    fn new(body: &[u8], mut edits: Vec<Edit>, max: u64) -> Self {
        edits.sort_by_key(|edit| edit.replaced.start);
        let digits = max.checked_ilog10().map_or(1, |zeros| zeros as usize + 1);
        let added = |edit: &Edit| edit.before.len() + digits + edit.after.len();
        let more: usize = edits.iter().map(added).sum();
        let mut text = Vec::with_capacity(body.len() + more);
        let mut at = 0;
        for edit in &edits {
            text.extend_from_slice(part(body, at..edit.replaced.start));
            text.extend_from_slice(edit.before.as_bytes());
            decimal(&mut text, max);
            text.extend_from_slice(edit.after.as_bytes());
            at = edit.replaced.end;
        }
        text.extend_from_slice(part(body, at..));
        Self {
            text,
            edits,
            digits,
        }
    }

    /// Where a part of the client's body is in it that is the same in both.
    pub(crate) fn moved(&self, part: &Range<usize>) -> Range<usize> {
        let mut start = part.start;
        for edit in self.edits.iter().rev() {
            if edit.replaced.end <= part.start {
                let added = edit.before.len() + self.digits + edit.after.len();
                start = start + added - edit.replaced.len();
            }
        }
        start..start + part.len()
    }
}

#[cfg(test)]
mod tests;
