//! Strings as written in a text, and writing strings.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::Write;

use memchr::{memchr, memchr_iter, memmem};

use super::scan::part;

/// The inside of a JSON string, as written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonText<'a>(pub(super) &'a [u8]);

impl<'a> JsonText<'a> {
    /// What [`Self::write`] or [`write_escaped`] wrote.
    pub(crate) const fn of_written(inside: &'a [u8]) -> Self {
        Self(inside)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether the decoded string equals another one.
    pub(crate) fn is(self, expected: &str) -> bool {
        // An escape is longer than the character that it stands for.
        let has_escapes = || memchr(b'\\', self.0).is_some();
        match self.0.len().cmp(&expected.len()) {
            Ordering::Less => false,
            Ordering::Equal => self.0 == expected.as_bytes() && !has_escapes(),
            Ordering::Greater => has_escapes() && self.decode() == expected,
        }
    }

    /// The decoded string. A lone surrogate becomes U+FFFD.
    pub(crate) fn decode(self) -> Cow<'a, str> {
        if memchr(b'\\', self.0).is_none() {
            return String::from_utf8_lossy(self.0);
        }
        let mut decoded = Vec::with_capacity(self.0.len());
        for piece in self.pieces() {
            match piece {
                TextPiece::Run(run) => decoded.extend_from_slice(run),
                TextPiece::Char(c) => push_char(c, &mut decoded),
                TextPiece::Lone => push_char(char::REPLACEMENT_CHARACTER, &mut decoded),
            }
        }
        Cow::Owned(match String::from_utf8(decoded) {
            Ok(decoded) => decoded,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The length of [`Self::decode`] in bytes.
    pub(crate) fn len(self) -> usize {
        if self.is_long() && memmem::find(self.0, br"\u").is_none() {
            // Each escape is two bytes for one, and two backslashes of a run are one.
            let backslashes = memchr_iter(b'\\', self.0).count();
            let pairs = memmem::find_iter(self.0, br"\\").count();
            return self.0.len() - (backslashes - pairs);
        }
        self.pieces()
            .map(|piece| match piece {
                TextPiece::Run(run) => run.len(),
                TextPiece::Char(c) => c.len_utf8(),
                TextPiece::Lone => char::REPLACEMENT_CHARACTER.len_utf8(),
            })
            .sum()
    }

    /// Appends it as the inside of a JSON string: escapes only where JSON needs them, all else as
    /// UTF-8. A lone surrogate becomes U+FFFD, because strict parsers refuse a text that has one
    /// (docs/contract/translation.md#7).
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        if self.is_long() && self.is_written_so() {
            out.extend_from_slice(self.0);
            return;
        }
        for piece in self.pieces() {
            match piece {
                TextPiece::Run(run) => out.extend_from_slice(run),
                TextPiece::Lone => push_char(char::REPLACEMENT_CHARACTER, out),
                TextPiece::Char(c) if c.is_ascii() => write_byte(c as u8, out),
                TextPiece::Char(c) => push_char(c, out),
            }
        }
    }

    /// Whether [`Self::write`] would write it unchanged. One search shows this for a text without
    /// escapes, such as the base64 of an image.
    fn is_written_so(self) -> bool {
        let escaped = memchr(b'\\', self.0).and_then(|at| self.0.get(at..));
        escaped.is_none_or(|rest| {
            memmem::find(rest, br"\u").is_none() && memmem::find(rest, br"\/").is_none()
        })
    }

    /// Whether a search of the whole text is worthwhile.
    fn is_long(self) -> bool {
        self.0.len() >= 64
    }

    /// The string, split at its escapes.
    pub(crate) fn pieces(self) -> TextPieces<'a> {
        TextPieces { rest: self.0 }
    }
}

/// A part of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextPiece<'a> {
    /// Bytes without an escape.
    Run(&'a [u8]),
    /// The character of an escape, or of the two escapes of a surrogate pair.
    Char(char),
    /// The escape of half a surrogate pair.
    Lone,
}

/// Walks over a string.
pub(crate) struct TextPieces<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for TextPieces<'a> {
    type Item = TextPiece<'a>;

    fn next(&mut self) -> Option<TextPiece<'a>> {
        let rest = self.rest;
        match memchr(b'\\', rest) {
            None if rest.is_empty() => None,
            None => {
                self.rest = &[];
                Some(TextPiece::Run(rest))
            }
            Some(0) => {
                let (piece, len) = escape(rest);
                self.rest = part(rest, len..);
                Some(piece)
            }
            Some(at) => {
                let (run, rest) = rest.split_at(at);
                self.rest = rest;
                Some(TextPiece::Run(run))
            }
        }
    }
}

/// Reads the escape at the beginning of `rest`; returns it and its length.
fn escape(rest: &[u8]) -> (TextPiece<'_>, usize) {
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
    (TextPiece::Char(c), 2)
}

fn unicode_escape(rest: &[u8]) -> (TextPiece<'_>, usize) {
    const LEN: usize = "\\u0000".len();
    let Some(first) = hex(rest) else {
        return (TextPiece::Char(char::REPLACEMENT_CHARACTER), 2);
    };
    let second = rest.get(LEN..).and_then(hex);
    if let Some(second) = second
        && (0xd800..0xdc00).contains(&first)
        && (0xdc00..0xe000).contains(&second)
    {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        return (TextPiece::Char(c), 2 * LEN);
    }
    match char::from_u32(first) {
        Some(c) => (TextPiece::Char(c), LEN),
        None => (TextPiece::Lone, LEN),
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
pub(crate) fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
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

/// Appends `text` as a quoted JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends a whole number.
pub(crate) fn write_number(number: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}
