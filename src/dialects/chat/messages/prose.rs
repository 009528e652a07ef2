//! Texts that become a string of a chat completion request: pieces of the client's request, copied
//! from where they lie, and text of the gateway's own.

use std::borrow::Cow;

use crate::json::{self, JsonText, JsonValue, TextPiece};

/// A text in pieces, to be joined without a separator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prose<'a>(Vec<ProsePiece<'a>>);

#[derive(Debug, Clone)]
enum ProsePiece<'a> {
    /// The inside of a JSON string of the request.
    Json(JsonText<'a>),
    /// Plain text.
    Plain(Cow<'a, str>),
    /// A value as compact JSON text.
    Value(JsonValue<'a>),
}

impl<'a> Prose<'a> {
    /// A text without pieces.
    pub(crate) const EMPTY: Self = Self(Vec::new());

    /// Adds a string of the request.
    pub(crate) fn json(&mut self, text: JsonText<'a>) {
        if !text.is_empty() {
            self.0.push(ProsePiece::Json(text));
        }
    }

    /// Adds plain text.
    pub(crate) fn plain(&mut self, text: impl Into<Cow<'a, str>>) {
        let text = text.into();
        if !text.is_empty() {
            self.0.push(ProsePiece::Plain(text));
        }
    }

    /// Adds a value as compact JSON text.
    pub(crate) fn value(&mut self, value: JsonValue<'a>) {
        self.0.push(ProsePiece::Value(value));
    }

    /// Adds another text after `separator`; without it if this one is empty.
    pub(crate) fn join(&mut self, separator: &'static str, other: Self) {
        if !self.is_empty() && !other.is_empty() {
            self.plain(separator);
        }
        self.0.extend(other.0);
    }

    /// Whether it has no characters.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it begins with this ASCII text, in any letter case.
    pub(crate) fn starts_with(&self, text: &str) -> bool {
        let mut rest = text.as_bytes();
        let mut follows = |own: &[u8]| {
            let len = own.len().min(rest.len());
            let (Some(own), Some((expected, after))) = (own.get(..len), rest.split_at_checked(len))
            else {
                return false;
            };
            rest = after;
            own.eq_ignore_ascii_case(expected)
        };
        let begins = self.0.iter().all(|piece| match piece {
            ProsePiece::Json(text) => text.pieces().all(|piece| match piece {
                TextPiece::Run(run) => follows(run),
                TextPiece::Char(c) => follows(c.encode_utf8(&mut [0; 4]).as_bytes()),
                TextPiece::Lone => follows(b"\xff"),
            }),
            ProsePiece::Plain(text) => follows(text.as_bytes()),
            ProsePiece::Value(value) => follows(value.raw()),
        });
        begins && rest.is_empty()
    }

    /// Bytes of UTF-8.
    pub(super) fn len(&self) -> u64 {
        let len = |piece: &ProsePiece<'_>| match piece {
            ProsePiece::Json(text) => text.len(),
            ProsePiece::Plain(text) => text.len(),
            ProsePiece::Value(value) => {
                let mut compact = Vec::new();
                value.write_compact(&mut compact);
                compact.len()
            }
        };
        self.0.iter().map(|piece| len(piece) as u64).sum()
    }

    /// Appends it as the inside of a JSON string.
    pub(super) fn write_inside(&self, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                ProsePiece::Json(text) => text.write(out),
                ProsePiece::Plain(text) => json::write_escaped(text.as_bytes(), out),
                ProsePiece::Value(value) => {
                    let mut compact = Vec::new();
                    value.write_compact(&mut compact);
                    json::write_escaped(&compact, out);
                }
            }
        }
    }

    /// Appends it as a JSON string.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        self.write_inside(out);
        out.push(b'"');
    }
}

impl<'a> From<JsonText<'a>> for Prose<'a> {
    fn from(text: JsonText<'a>) -> Self {
        let mut prose = Self::EMPTY;
        prose.json(text);
        prose
    }
}

impl<'a> From<JsonValue<'a>> for Prose<'a> {
    /// The compact JSON text of the value.
    fn from(value: JsonValue<'a>) -> Self {
        let mut prose = Self::EMPTY;
        prose.value(value);
        prose
    }
}

impl From<String> for Prose<'_> {
    fn from(text: String) -> Self {
        let mut prose = Self::EMPTY;
        prose.plain(text);
        prose
    }
}

impl From<&'static str> for Prose<'_> {
    fn from(text: &'static str) -> Self {
        let mut prose = Self::EMPTY;
        prose.plain(text);
        prose
    }
}
