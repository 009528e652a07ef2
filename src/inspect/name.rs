//! Model names in JSON strings: decoding, validating and replacing them.

use std::borrow::Cow;
use std::ops::Range;
use std::str::{Chars, Utf8Chunk};

use super::{Found, NameSource};

/// The bytes of a name with escapes that are read: six for each of a kilobyte, and blanks.
pub(super) const RAW_NAME_BYTES_MAX: usize = 16 << 10;

/// The name of the model: escapes decoded, blanks at both ends removed, letter case kept.
/// Borrowed from the body unless it was written with escapes.
///
/// It is not empty, but otherwise any text, line breaks included: check it before it becomes part
/// of a header. `body` must be the one in which the name was found; in a shorter one it is empty.
pub fn model_name<'a>(body: &'a [u8], found: &Found) -> Cow<'a, str> {
    let raw = body.get(found.span()).unwrap_or(b"");
    if !found.escaped {
        return match String::from_utf8_lossy(raw) {
            Cow::Borrowed(name) => Cow::Borrowed(name.trim()),
            Cow::Owned(name) => Cow::Owned(name.trim().to_owned()),
        };
    }
    let name: String = unescape(raw).map_while(Result::ok).collect();
    Cow::Owned(name.trim().to_owned())
}

/// A body with another model name in it: all bytes before the name, the new name, all bytes after
/// it. The parts are sent one after the other; a large body is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    name: Vec<u8>,
    replaced: Range<usize>,
}

impl Splice {
    pub(super) fn new(name: Vec<u8>, replaced: Range<usize>) -> Self {
        Self { name, replaced }
    }

    /// The three parts of the new body. `body` must be the one that was inspected; parts of it that
    /// a shorter one does not have are empty.
    pub fn parts<'a>(&'a self, body: &'a [u8]) -> [&'a [u8]; 3] {
        [
            body.get(..self.replaced.start).unwrap_or(b""),
            &self.name,
            body.get(self.replaced.end..).unwrap_or(b""),
        ]
    }
}

/// Replaces the name of an alias with that of a real model
/// (docs/contract/balancing.md#4.3). `None` if the name was found in a message: only a top-level
/// value is ever replaced.
pub fn rewrite_model(found: &Found, name: &str) -> Option<Splice> {
    match found.source {
        NameSource::Model | NameSource::Name => Some(Splice {
            name: escape(name).into_bytes(),
            replaced: found.span(),
        }),
        // Those of a form are replaced by its reader.
        NameSource::Message | NameSource::Part => None,
    }
}

/// The string at `span` as a model's name, if it is one: valid text that is not blank.
pub(super) fn found(body: &[u8], span: Range<usize>, source: NameSource) -> Option<Found> {
    let raw = body.get(span.clone())?;
    let escaped = memchr::memchr(b'\\', raw).is_some();
    // A name that is refused for its length is not read.
    let blank = if raw.len() > RAW_NAME_BYTES_MAX && escaped {
        false
    } else if escaped {
        let mut blank = true;
        for decoded in unescape(raw) {
            blank &= decoded.ok()?.is_whitespace();
        }
        blank
    } else if raw.is_ascii() {
        raw.iter().all(|byte| char::from(*byte).is_whitespace())
    } else {
        std::str::from_utf8(raw).ok()?.trim().is_empty()
    };
    (!blank).then_some(Found {
        start: span.start,
        end: span.end,
        escaped,
        source,
    })
}

/// The string is not text: invalid UTF-8, an escape that JSON does not have, or half a surrogate
/// pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotText;

/// Decodes the inside of a JSON string (RFC 8259, section 7). Nothing follows an error.
pub(super) fn unescape(raw: &[u8]) -> Unescape<'_> {
    let valid = raw.utf8_chunks().next();
    Unescape {
        rest: valid.as_ref().map_or("", Utf8Chunk::valid).chars(),
        broken: valid.is_some_and(|chunk| !chunk.invalid().is_empty()),
    }
}

/// See [`unescape`].
pub(super) struct Unescape<'a> {
    rest: Chars<'a>,
    /// Invalid UTF-8 follows `rest`.
    broken: bool,
}

impl Iterator for Unescape<'_> {
    type Item = Result<char, NotText>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = match self.rest.next() {
            Some('\\') => self.escape(),
            Some(plain) => Some(plain),
            None if self.broken => None,
            None => return None,
        };
        if decoded.is_none() {
            (self.rest, self.broken) = ("".chars(), false);
        }
        Some(decoded.ok_or(NotText))
    }
}

impl Unescape<'_> {
    fn escape(&mut self) -> Option<char> {
        match self.rest.next()? {
            plain @ ('"' | '\\' | '/') => Some(plain),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => {
                let unit = self.code_unit()?;
                if !(0xD800..0xDC00).contains(&unit) {
                    // Fails for the second half of a pair, which cannot stand alone.
                    return char::from_u32(u32::from(unit));
                }
                (self.rest.next()? == '\\' && self.rest.next()? == 'u').then_some(())?;
                let low = self.code_unit()?;
                char::decode_utf16([unit, low]).next()?.ok()
            }
            _ => None,
        }
    }

    fn code_unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | self.rest.next()?.to_digit(16)? as u16;
        }
        Some(unit)
    }
}

/// The inside of a JSON string. Only what must be escaped is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            c if c < ' ' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::{Inspector, Wanted};
    use super::*;

    const SHOW: Wanted = Wanted {
        name_key: true,
        vision: false,
        tally: false,
        prompt: false,
    };

    fn rewritten(body: &str, name: &str) -> Option<String> {
        let found = Inspector::new(SHOW).finish(body.as_bytes()).model?;
        let splice = rewrite_model(&found, name)?;
        let parts = splice.parts(body.as_bytes());
        Some(String::from_utf8_lossy(&parts.concat()).into_owned())
    }

    #[test]
    fn only_the_name_is_replaced() {
        let table = [
            (
                r#"{"model":"a"}"#,
                "llama3:8b",
                Some(r#"{"model":"llama3:8b"}"#),
            ),
            (
                "{ \"x\": 1,\n\t\"Model\" :  \" a \" ,",
                "b",
                Some("{ \"x\": 1,\n\t\"Model\" :  \"b\" ,"),
            ),
            (
                r#"{"m\u006fdel":"\u0061","x":"a"}"#,
                "b",
                Some(r#"{"m\u006fdel":"b","x":"a"}"#),
            ),
            (
                r#"{"model":"a","model":"a","o":{"model":"a"}}"#,
                "b",
                Some(r#"{"model":"a","model":"b","o":{"model":"a"}}"#),
            ),
            (r#"{"name":"a"}"#, "b", Some(r#"{"name":"b"}"#)),
            (
                r#"{"model":"a"}"#,
                "é/\u{7f}\u{2028}😀",
                Some("{\"model\":\"é/\u{7f}\u{2028}😀\"}"),
            ),
            (
                r#"{"model":"a"}"#,
                "\"\\\n\u{1f}",
                Some(r#"{"model":"\"\\\u000a\u001f"}"#),
            ),
            (r#"{"messages":[{"model":"a"}]}"#, "b", None),
        ];
        for (body, name, expected) in table {
            assert_eq!(rewritten(body, name).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn names_without_escapes_are_borrowed() {
        for (body, name, borrowed) in [
            (r#"{"model":" llama3 "}"#, "llama3", true),
            (r#"{"model":"meta\/llama3"}"#, "meta/llama3", false),
        ] {
            let found = Inspector::new(SHOW)
                .finish(body.as_bytes())
                .model
                .expect("a model");
            let read = model_name(body.as_bytes(), &found);
            assert_eq!(
                (read.as_ref(), matches!(read, Cow::Borrowed(_))),
                (name, borrowed)
            );
        }
    }

    #[test]
    fn what_was_found_elsewhere_does_no_harm() {
        let body = br#"{"x":"............................","model":"a"}"#;
        let found = Inspector::new(SHOW).finish(body).model.expect("a model");
        assert_eq!(model_name(b"{}", &found), "");
        assert_eq!(
            rewrite_model(&found, "b").map(|splice| splice.parts(b"{}").concat().len()),
            Some(1)
        );
    }

    #[test]
    fn nothing_follows_an_error() {
        for raw in [
            &b"a\\x\\n"[..],
            b"a\xff\\n",
            b"a\\ud800\\n",
            b"a\\u12",
            b"a\\",
        ] {
            let decoded: Vec<_> = unescape(raw).collect();
            assert_eq!(decoded, [Ok('a'), Err(NotText)], "{}", raw.escape_ascii());
        }
    }
}
