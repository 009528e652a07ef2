//! The search in `messages`, for a body without a model name at its top level, and for what identifies
//! a conversation. It runs when the body is complete, so it is a plain walk over bytes that are known
//! to be one nested value.

use std::ops::Range;

use super::scan::{self, Nest, Step};
use super::{Found, NameSource, name};

/// A string `model` in the first element of the array at `start` (docs/contract/balancing.md#2).
pub(super) fn first_model(body: &[u8], start: usize) -> Option<Found> {
    let mut walk = Walk::at(body, start);
    let mut model = None;
    walk.opens(b'[')?;
    walk.members(|walk, key| {
        match walk.text_of(b"model", &key) {
            Some(text) => model = Some(text),
            None => walk.skip_value()?,
        }
        Some(())
    });
    name::found(body, model?, NameSource::Message)
}

/// Whether an element of the array at `start` has an image among the parts of its `content`
/// (docs/contract/balancing.md#4.4).
pub(super) fn has_image(body: &[u8], start: usize) -> bool {
    let mut walk = Walk::at(body, start);
    let mut image = false;
    walk.elements(|walk| {
        if walk.peek() != Some(b'{') {
            return walk.skip_value();
        }
        walk.members(|walk, key| {
            if walk.is(b"content", &key) && walk.peek() == Some(b'[') {
                walk.elements(|walk| {
                    image |= walk.is_image_part()?;
                    Some(())
                })
            } else {
                walk.skip_value()
            }
        })
    });
    image
}

/// A position in a body. Every method advances it past what it has read; `None` means that the
/// bytes are not as expected, and ends the walk.
pub(super) struct Walk<'a> {
    body: &'a [u8],
    pos: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn at(body: &'a [u8], pos: usize) -> Self {
        Self { body, pos }
    }

    /// Whether the value here is an image, or a text that consists of one.
    fn is_image_part(&mut self) -> Option<bool> {
        if self.peek() != Some(b'{') {
            self.skip_value()?;
            return Some(false);
        }
        let mut image = false;
        self.members(|walk, key| {
            if let Some(text) = walk.text_of(b"type", &key) {
                image |= walk.is(b"image_url", &text) || walk.is(b"image", &text);
            } else if let Some(text) = walk.text_of(b"text", &key) {
                image |= walk.starts_with("data:image/", &text);
            } else {
                walk.skip_value()?;
            }
            Some(())
        })?;
        Some(image)
    }

    /// Calls `visit` at each element of the array here. It has to read the element.
    pub(super) fn elements(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.opens(b'[')?;
        if self.opens(b']').is_some() {
            return Some(());
        }
        loop {
            visit(self)?;
            if self.opens(b',').is_none() {
                return self.opens(b']');
            }
        }
    }

    /// Calls `visit` at each value of the object here, with its key. It has to read the value.
    pub(super) fn members(
        &mut self,
        mut visit: impl FnMut(&mut Self, Range<usize>) -> Option<()>,
    ) -> Option<()> {
        self.opens(b'{')?;
        if self.opens(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.text()?;
            self.opens(b':')?;
            visit(self, key)?;
            if self.opens(b',').is_none() {
                return self.opens(b'}');
            }
        }
    }

    /// The string here, if `key` is this one and there is a string.
    pub(super) fn text_of(&mut self, expected: &[u8], key: &Range<usize>) -> Option<Range<usize>> {
        if self.is(expected, key) {
            self.text()
        } else {
            None
        }
    }

    /// Reads a string: the span between its quotes.
    fn text(&mut self) -> Option<Range<usize>> {
        self.opens(b'"')?;
        let start = self.pos;
        let end = scan::string_end(self.body, start, &mut false)?;
        self.pos = end + 1;
        Some(start..end)
    }

    /// Where the next value begins.
    pub(super) fn value_start(&mut self) -> Option<usize> {
        self.peek()?;
        Some(self.pos)
    }

    /// Reads any value: its span.
    pub(super) fn value(&mut self) -> Option<Range<usize>> {
        self.peek()?;
        let start = self.pos;
        self.skip_value()?;
        Some(start..self.pos)
    }

    pub(super) fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.text()?;
            }
            bracket @ (b'[' | b'{') => {
                match Nest::opened_by(bracket).scan(self.body, self.pos + 1) {
                    Step::Ended(end) => self.pos = end,
                    Step::More | Step::Broken => return None,
                }
            }
            _ => {
                let end = scan::scalar_end(self.body, self.pos)?;
                scan::is_scalar(self.body.get(self.pos..end)?).then_some(())?;
                self.pos = end;
            }
        }
        Some(())
    }

    /// Reads one byte, blanks before it aside, if it is this one.
    fn opens(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.pos += 1)
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        self.pos = scan::skip_blanks(self.body, self.pos);
        self.body.get(self.pos).copied()
    }

    /// Whether the string at `span` is `expected`, written with or without escapes.
    pub(super) fn is(&self, expected: &[u8], span: &Range<usize>) -> bool {
        let Some(raw) = self.body.get(span.clone()) else {
            return false;
        };
        raw == expected
            || memchr::memchr(b'\\', raw).is_some()
                && name::unescape(raw).eq(expected.iter().map(|&byte| Ok(char::from(byte))))
    }

    /// Whether the string at `span` starts with `expected`; encoders often escape its slash.
    fn starts_with(&self, expected: &str, span: &Range<usize>) -> bool {
        // An escape is at most six bytes long, so the rest, which may be megabytes, does not
        // matter.
        let raw = &self.body[span.clone()];
        let raw = raw.get(..expected.len() * 6).unwrap_or(raw);
        let mut decoded = name::unescape(raw);
        expected.chars().all(|c| decoded.next() == Some(Ok(c)))
    }
}
