//! Values as spans of a validated text.

use std::ops::Range;

use serde_json::value::RawValue;

use super::index::{NO_INDEX, SpanIndex};
use super::scan::{
    is_blank, near_mark, nested_end, part, scalar_end, skip_blanks, skip_separators, string_end,
};
use super::text::JsonText;

/// Checks that `text` is one JSON value, blanks around it aside.
///
/// Escapes of lone surrogates are accepted, as everywhere in this module; the writers replace them
/// by U+FFFD.
pub(crate) fn parse(text: &[u8]) -> Option<JsonValue<'_>> {
    parse_with(text, &NO_INDEX)
}

/// As [`parse`], for a large text that is walked several times: `index` is made to lead the walks
/// past its long values.
pub(crate) fn parse_indexed<'a>(text: &'a [u8], index: &'a mut SpanIndex) -> Option<JsonValue<'a>> {
    parse(text)?;
    *index = SpanIndex::of(text);
    parse_checked(text, index)
}

fn parse_with<'a>(text: &'a [u8], index: &'a SpanIndex) -> Option<JsonValue<'a>> {
    serde_json::from_slice::<&RawValue>(text).ok()?;
    parse_checked(text, index)
}

fn parse_checked<'a>(text: &'a [u8], index: &'a SpanIndex) -> Option<JsonValue<'a>> {
    let start = skip_blanks(text, 0);
    let end = text
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(start, |last| last + 1);
    Some(JsonValue {
        text,
        index,
        start,
        end,
    })
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value inside a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonValue<'a> {
    text: &'a [u8],
    index: &'a SpanIndex,
    start: usize,
    end: usize,
}

impl<'a> JsonValue<'a> {
    /// The value at a span that [`Self::span`] gave for the same text.
    pub(crate) fn at(text: &'a [u8], index: &'a SpanIndex, span: &Range<usize>) -> Self {
        let Range { start, end } = *span;
        Self {
            text,
            index,
            start,
            end,
        }
    }

    /// The value of the same text that begins at `pos`, which is moved to the end of that value;
    /// `None` at a closing bracket.
    fn next_at(self, pos: &mut usize) -> Option<Self> {
        let text = self.text.get(..self.end)?;
        let start = *pos;
        let end = match text.get(start)? {
            b'"' => string_end_at(text, start, self.index)? + 1,
            b'{' | b'[' => match self.index.end_of(start) {
                Some(end) => end,
                None => nested_end(text, start)?,
            },
            b'}' | b']' => return None,
            _ => scalar_end(text, start),
        };
        *pos = end;
        Some(Self { start, end, ..self })
    }

    /// Its position in the parsed text.
    pub(crate) fn span(self) -> Range<usize> {
        self.start..self.end
    }

    /// Its bytes as written.
    pub(crate) fn raw(self) -> &'a [u8] {
        part(self.text, self.start..self.end)
    }

    pub(crate) fn kind(self) -> JsonKind {
        match self.raw().first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            Some(b'"') => JsonKind::String,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'-' | b'0'..=b'9') => JsonKind::Number,
            _ => JsonKind::Null,
        }
    }

    pub(crate) fn is(self, kind: JsonKind) -> bool {
        self.kind() == kind
    }

    /// Whether it is `true`.
    pub(crate) fn is_true(self) -> bool {
        self.raw() == b"true"
    }

    /// A number that is written as a whole one and not below zero. Above `u64::MAX`: `None`.
    pub(crate) fn unsigned(self) -> Option<u64> {
        std::str::from_utf8(self.raw())
            .ok()?
            .parse()
            .ok()
            .filter(|_| self.is(JsonKind::Number))
    }

    /// The nearest value of a number.
    pub(crate) fn number(self) -> Option<f64> {
        if !self.is(JsonKind::Number) {
            return None;
        }
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// The string, if the value is one.
    pub(crate) fn string(self) -> Option<JsonText<'a>> {
        match self.raw() {
            [b'"', inner @ .., b'"'] => Some(JsonText(inner)),
            _ => None,
        }
    }

    /// The elements of an array; nothing for other kinds.
    pub(crate) fn elements(self) -> Elements<'a> {
        let mut pos = self.end;
        if self.is(JsonKind::Array) {
            pos = self.start + 1;
        }
        Elements { of: self, pos }
    }

    /// The members of an object; nothing for other kinds.
    pub(crate) fn members(self) -> Members<'a> {
        let mut pos = self.end;
        if self.is(JsonKind::Object) {
            pos = self.start + 1;
        }
        Members { of: self, pos }
    }

    /// The values of these members, found in one walk. Of equal keys the last counts.
    pub(crate) fn fields<const N: usize>(self, keys: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        for (key, value) in self.members() {
            for (slot, wanted) in found.iter_mut().zip(keys) {
                if key.is(wanted) {
                    *slot = Some(value);
                    break;
                }
            }
        }
        found
    }

    /// Like [`Self::fields`], but `null` counts as missing.
    pub(crate) fn given<const N: usize>(self, keys: [&str; N]) -> [Option<Self>; N] {
        self.fields(keys)
            .map(|field| field.filter(|value| !value.is(JsonKind::Null)))
    }

    /// The value of one member.
    pub(crate) fn field(self, key: &str) -> Option<Self> {
        let [value] = self.fields([key]);
        value
    }

    /// The string of one member.
    pub(crate) fn string_field(self, key: &str) -> Option<JsonText<'a>> {
        self.field(key)?.string()
    }

    /// Appends it without blanks, strings in the form of [`JsonText::write`].
    pub(crate) fn write_compact(self, out: &mut Vec<u8>) {
        let raw = self.raw();
        let mut pos = 0;
        while let Some(&byte) = raw.get(pos) {
            pos += 1;
            if byte == b'"' {
                let end = string_end(raw, pos).unwrap_or(raw.len());
                out.push(b'"');
                JsonText(part(raw, pos..end)).write(out);
                out.push(b'"');
                pos = end + 1;
            } else if !is_blank(byte) {
                out.push(byte);
            }
        }
    }
}

/// Walks over the elements of an array.
#[derive(Debug, Clone)]
pub(crate) struct Elements<'a> {
    of: JsonValue<'a>,
    pos: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = JsonValue<'a>;

    fn next(&mut self) -> Option<JsonValue<'a>> {
        self.pos = skip_separators(self.of.text, self.pos);
        self.of.next_at(&mut self.pos)
    }
}

/// Walks over the members of an object.
pub(crate) struct Members<'a> {
    of: JsonValue<'a>,
    pos: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (JsonText<'a>, JsonValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.of.text;
        self.pos = skip_separators(text, self.pos);
        let key = self.of.next_at(&mut self.pos)?.string()?;
        self.pos = skip_separators(text, self.pos);
        Some((key, self.of.next_at(&mut self.pos)?))
    }
}

/// The position of the quote that ends the string which begins at `start`.
#[inline]
fn string_end_at(text: &[u8], start: usize, index: &SpanIndex) -> Option<usize> {
    let inside = start + 1;
    // Most strings are short; the index is searched only for longer ones.
    let near = text.get(inside..).and_then(near_mark);
    if let Some(end) = near.map(|near| inside + near)
        && text.get(end) == Some(&b'"')
    {
        return Some(end);
    }
    match index.end_of(start) {
        Some(end) => Some(end - 1),
        None => string_end(text, inside),
    }
}
