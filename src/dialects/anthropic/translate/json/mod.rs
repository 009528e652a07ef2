//! JSON values read where they lie: a value is a span of a text, and a string stays the bytes
//! between its quotes, so that most of a message goes from one dialect to the other by copying
//! spans, and numbers keep their spelling.
//!
//! [`parse`] checks the whole text once, with serde_json; everything else relies on that and only
//! walks. On a text that was never checked the walk finds less or other things, but it ends and
//! does not panic. Nothing here allocates except the index, [`Text::decode`] and the writers, and nothing
//! recurses, so nesting costs no stack.

use std::borrow::Cow;
use std::io::Write;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2, memmem};
use serde_json::value::RawValue;

use index::{Index, NO_INDEX};

/// Checks that `text` is one JSON value, blanks around it aside.
///
/// Escapes of lone surrogates are let through, as everywhere in this module: they pass unchanged,
/// and whether they are a character is for the reader at the far end to say.
pub(super) fn parse(text: &[u8]) -> Option<Value<'_>> {
    parse_with(text, &NO_INDEX)
}

/// As [`parse`], for a large text that is walked several times: `index` is made to lead the walks
/// past its long values.
pub(super) fn parse_indexed<'a>(text: &'a [u8], index: &'a mut Index) -> Option<Value<'a>> {
    parse(text)?;
    *index = Index::of(text);
    parse_checked(text, index)
}

fn parse_with<'a>(text: &'a [u8], index: &'a Index) -> Option<Value<'a>> {
    serde_json::from_slice::<&RawValue>(text).ok()?;
    parse_checked(text, index)
}

fn parse_checked<'a>(text: &'a [u8], index: &'a Index) -> Option<Value<'a>> {
    let start = skip_blanks(text, 0);
    let end = text
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(start, |last| last + 1);
    Some(Value {
        text,
        index,
        start,
        end,
    })
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value inside a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    text: &'a [u8],
    index: &'a Index,
    start: usize,
    end: usize,
}

impl<'a> Value<'a> {
    /// The value at a span that [`Self::span`] gave for the same text.
    pub(super) fn at(text: &'a [u8], index: &'a Index, span: &Range<usize>) -> Self {
        let Range { start, end } = *span;
        Self {
            text,
            index,
            start,
            end,
        }
    }

    /// The value of the same text that begins at `pos`, which is left behind it; `None` at a
    /// closing bracket.
    fn next_at(self, pos: &mut usize) -> Option<Self> {
        let text = self.text.get(..self.end)?;
        let start = *pos;
        let end = match text.get(start)? {
            b'"' => string_end(text, start + 1, self.index, start) + 1,
            b'{' | b'[' => nested_end(text, start, self.index),
            b'}' | b']' => return None,
            _ => scalar_end(text, start),
        };
        *pos = end;
        Some(Self { start, end, ..self })
    }

    /// Where it stands in the text that was parsed.
    pub(super) fn span(self) -> Range<usize> {
        self.start..self.end
    }

    /// Its bytes as written.
    pub(super) fn raw(self) -> &'a [u8] {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn kind(self) -> Kind {
        match self.raw().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    pub(super) fn is(self, kind: Kind) -> bool {
        self.kind() == kind
    }

    /// Whether it is `true`.
    pub(super) fn is_true(self) -> bool {
        self.raw() == b"true"
    }

    /// A number that is written as a whole one and not below zero. Above `u64::MAX`: `None`.
    pub(super) fn unsigned(self) -> Option<u64> {
        std::str::from_utf8(self.raw())
            .ok()?
            .parse()
            .ok()
            .filter(|_| self.is(Kind::Number))
    }

    /// The nearest value of a number.
    pub(super) fn number(self) -> Option<f64> {
        if !self.is(Kind::Number) {
            return None;
        }
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// The string that it is.
    pub(super) fn string(self) -> Option<Text<'a>> {
        match self.raw() {
            [b'"', inner @ .., b'"'] => Some(Text(inner)),
            _ => None,
        }
    }

    /// The elements of an array; nothing for other kinds.
    pub(super) fn elements(self) -> Elements<'a> {
        let mut pos = self.end;
        if self.is(Kind::Array) {
            pos = self.start + 1;
        }
        Elements { of: self, pos }
    }

    /// The members of an object; nothing for other kinds.
    fn members(self) -> Members<'a> {
        let mut pos = self.end;
        if self.is(Kind::Object) {
            pos = self.start + 1;
        }
        Members { of: self, pos }
    }

    /// The values of these members, found in one walk. Of equal keys the last counts.
    pub(super) fn fields<const N: usize>(self, keys: [&str; N]) -> [Option<Self>; N] {
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
    pub(super) fn given<const N: usize>(self, keys: [&str; N]) -> [Option<Self>; N] {
        self.fields(keys)
            .map(|field| field.filter(|value| !value.is(Kind::Null)))
    }

    /// The value of one member.
    pub(super) fn field(self, key: &str) -> Option<Self> {
        let [value] = self.fields([key]);
        value
    }

    /// The string that one member is.
    pub(super) fn string_field(self, key: &str) -> Option<Text<'a>> {
        self.field(key)?.string()
    }

    /// Appends it without blanks, strings in the form of [`Text::write`].
    pub(super) fn write_compact(self, out: &mut Vec<u8>) {
        let raw = self.raw();
        let mut pos = 0;
        while let Some(&byte) = raw.get(pos) {
            pos += 1;
            if byte == b'"' {
                let end = quote_from(raw, pos);
                out.push(b'"');
                Text(raw.get(pos..end).unwrap_or_default()).write(out);
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
pub(super) struct Elements<'a> {
    of: Value<'a>,
    pos: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.pos = skip_separators(self.of.text, self.pos);
        self.of.next_at(&mut self.pos)
    }
}

/// Walks over the members of an object.
struct Members<'a> {
    of: Value<'a>,
    pos: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Text<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.of.text;
        self.pos = skip_separators(text, self.pos);
        let key = self.of.next_at(&mut self.pos)?.string()?;
        self.pos = skip_separators(text, self.pos);
        Some((key, self.of.next_at(&mut self.pos)?))
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn skip_blanks(text: &[u8], from: usize) -> usize {
    skip_while(text, from, is_blank)
}

fn skip_separators(text: &[u8], from: usize) -> usize {
    skip_while(text, from, |byte| {
        is_blank(byte) || matches!(byte, b',' | b':')
    })
}

fn scalar_end(text: &[u8], from: usize) -> usize {
    skip_while(text, from, |byte| {
        !is_blank(byte) && !matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b'{' | b'[')
    })
}

fn skip_while(text: &[u8], from: usize, skipped: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest
        .iter()
        .position(|byte| !skipped(*byte))
        .unwrap_or(rest.len())
}

/// Where the string that began at `start` has its closing quote; the end of the text if it has
/// none. `from` is the position behind the opening quote.
fn string_end(text: &[u8], from: usize, index: &Index, start: usize) -> usize {
    // Most strings are short, and a call for each costs more than the loop.
    const NEAR: usize = 16;
    let near = text.get(from..).unwrap_or_default();
    for (at, byte) in near.iter().take(NEAR).enumerate() {
        match byte {
            b'"' => return from + at,
            b'\\' => break,
            _ => {}
        }
    }
    match index.end_of(start) {
        Some(end) => end - 1,
        None => quote_from(text, from),
    }
}

/// The position of the quote that ends the string which goes on at `from`, or the text's end.
fn quote_from(text: &[u8], from: usize) -> usize {
    let mut pos = from;
    while let Some(at) = text.get(pos..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        pos += at;
        if text.get(pos) == Some(&b'"') {
            return pos;
        }
        pos += 2;
    }
    text.len()
}

/// The end of the array or object that opens at `from`.
fn nested_end(text: &[u8], from: usize, index: &Index) -> usize {
    if let Some(end) = index.end_of(from) {
        return end;
    }
    let mut depth = 0_usize;
    let mut pos = from;
    while let Some(&byte) = text.get(pos) {
        pos += 1;
        match byte {
            b'"' => pos = string_end(text, pos, &NO_INDEX, pos - 1) + 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return pos;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// The inside of a JSON string, as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether it says this, however it is written. Only for names without a backslash.
    pub(super) fn is(self, expected: &str) -> bool {
        debug_assert!(!expected.contains('\\'), "{expected}");
        // An escape is longer than what it stands for.
        self.0 == expected.as_bytes()
            || self.0.len() > expected.len()
                && memchr(b'\\', self.0).is_some()
                && self.decode() == expected
    }

    /// What it says. A lone surrogate becomes U+FFFD.
    pub(super) fn decode(self) -> Cow<'a, str> {
        if memchr(b'\\', self.0).is_none() {
            return String::from_utf8_lossy(self.0);
        }
        let mut decoded = Vec::with_capacity(self.0.len());
        for piece in self.pieces() {
            match piece {
                Piece::Run(run) => decoded.extend_from_slice(run),
                Piece::Char(c) => push_char(c, &mut decoded),
                Piece::Lone(_) => push_char(char::REPLACEMENT_CHARACTER, &mut decoded),
            }
        }
        Cow::Owned(match String::from_utf8(decoded) {
            Ok(decoded) => decoded,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The length of [`Self::decode`] in bytes.
    pub(super) fn len(self) -> usize {
        if self.is_long() && memmem::find(self.0, br"\u").is_none() {
            // Each escape is two bytes for one, and of a run of backslashes two are one.
            let backslashes = memchr_iter(b'\\', self.0).count();
            let pairs = memmem::find_iter(self.0, br"\\").count();
            return self.0.len() - (backslashes - pairs);
        }
        self.pieces()
            .map(|piece| match piece {
                Piece::Run(run) => run.len(),
                Piece::Char(c) => c.len_utf8(),
                Piece::Lone(_) => char::REPLACEMENT_CHARACTER.len_utf8(),
            })
            .sum()
    }

    /// Appends it as the inside of a JSON string: escapes only where JSON needs them, all else as
    /// UTF-8. Lone surrogates stay escapes, so that halves which meet again are whole.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        if self.is_long() && self.is_written_so() {
            out.extend_from_slice(self.0);
            return;
        }
        for piece in self.pieces() {
            match piece {
                Piece::Run(run) | Piece::Lone(run) => out.extend_from_slice(run),
                Piece::Char(c) if c.is_ascii() => write_byte(c as u8, out),
                Piece::Char(c) => push_char(c, out),
            }
        }
    }

    /// Whether [`Self::write`] would write it as it is, which one look tells of a text without
    /// escapes, such as the base64 of a picture.
    fn is_written_so(self) -> bool {
        let escaped = memchr(b'\\', self.0).and_then(|at| self.0.get(at..));
        escaped.is_none_or(|rest| {
            memmem::find(rest, br"\u").is_none() && memmem::find(rest, br"\/").is_none()
        })
    }

    /// Whether a look at the whole text pays.
    fn is_long(self) -> bool {
        self.0.len() >= 64
    }

    /// It, cut at its escapes.
    pub(super) fn pieces(self) -> Pieces<'a> {
        Pieces { rest: self.0 }
    }
}

/// A part of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes without an escape.
    Run(&'a [u8]),
    /// What an escape, or the two of a surrogate pair, stands for.
    Char(char),
    /// The escape of half a surrogate pair, as written.
    Lone(&'a [u8]),
}

/// Walks over a string.
pub(super) struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.rest;
        match memchr(b'\\', rest) {
            None if rest.is_empty() => None,
            None => {
                self.rest = &[];
                Some(Piece::Run(rest))
            }
            Some(0) => {
                let (piece, len) = escape(rest);
                self.rest = rest.get(len..).unwrap_or_default();
                Some(piece)
            }
            Some(at) => {
                let (run, rest) = rest.split_at(at);
                self.rest = rest;
                Some(Piece::Run(run))
            }
        }
    }
}

/// Reads the escape at the beginning of `rest`: what it is and how long.
fn escape(rest: &[u8]) -> (Piece<'_>, usize) {
    let c = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest),
        Some(&c) if c.is_ascii() => char::from(c),
        _ => char::REPLACEMENT_CHARACTER,
    };
    (Piece::Char(c), 2)
}

fn unicode_escape(rest: &[u8]) -> (Piece<'_>, usize) {
    const LEN: usize = "\\u0000".len();
    let Some(first) = hex(rest) else {
        return (Piece::Char(char::REPLACEMENT_CHARACTER), 2);
    };
    let second = rest.get(LEN..).and_then(hex).unwrap_or_default();
    if (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second) {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        return (Piece::Char(c), 2 * LEN);
    }
    match char::from_u32(first) {
        Some(c) => (Piece::Char(c), LEN),
        None => (Piece::Lone(rest.get(..LEN).unwrap_or_default()), LEN),
    }
}

/// The number of the `\uXXXX` at the beginning of `rest`.
fn hex(rest: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = rest else {
        return None;
    };
    let mut code = 0;
    for digit in digits.get(..4)? {
        code = code << 4 | char::from(*digit).to_digit(16)?;
    }
    Some(code)
}

fn push_char(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends plain text as the inside of a JSON string.
pub(super) fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    let needs_escape = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    while let Some(at) = rest.iter().position(needs_escape) {
        let (run, tail) = rest.split_at(at);
        out.extend_from_slice(run);
        let Some((&byte, tail)) = tail.split_first() else {
            return;
        };
        write_byte(byte, out);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Appends one ASCII character as the inside of a JSON string.
fn write_byte(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x8 => b'b',
        0xc => b'f',
        0..0x20 => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "\\u{byte:04x}");
            return;
        }
        _ => {
            out.push(byte);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends a quoted JSON string that says `text`.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends a whole number.
pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

pub(super) mod index;

#[cfg(test)]
pub(crate) mod tests;
