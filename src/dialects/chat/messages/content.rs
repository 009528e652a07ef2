//! The content of a user message: text, or parts.

use super::prose::Prose;
use crate::dialects::chat::tokens::InputSize;
use crate::json::JsonValue;

/// What a user message says.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserContent<'a> {
    parts: Vec<UserPart<'a>>,
    /// It is sent as parts even if all of them are texts.
    in_parts: bool,
}

/// A part of a user message.
#[derive(Debug, Clone)]
pub(crate) enum UserPart<'a> {
    /// Text.
    Text(Prose<'a>),
    /// A picture: its URL, and `detail` if the client gave one.
    Image {
        /// A data URI or an address.
        url: Prose<'a>,
        /// How closely the model looks.
        detail: Option<&'static str>,
    },
    /// A part that chat completions have in the same form.
    Same(JsonValue<'a>),
}

impl<'a> UserContent<'a> {
    /// Adds a part. Empty texts are left out.
    pub(crate) fn push(&mut self, part: UserPart<'a>) {
        match part {
            UserPart::Text(text) if text.is_empty() => {}
            UserPart::Text(_) => self.parts.push(part),
            UserPart::Image { .. } | UserPart::Same(_) => {
                self.in_parts = true;
                self.parts.push(part);
            }
        }
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: impl Into<Prose<'a>>) {
        self.push(UserPart::Text(text.into()));
    }

    /// Sends it as parts, even if all of them are texts.
    pub(crate) fn keep_parts(&mut self) {
        self.in_parts = true;
    }

    /// Whether it has no parts.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds what a model reads of it.
    pub(super) fn measure(&self, size: &mut InputSize) {
        self.parts.iter().for_each(|part| part.measure(size));
    }

    /// Puts a text and a blank line in front of the first text.
    pub(super) fn put_in_front(&mut self, mut text: Prose<'a>) {
        text.plain("\n\n");
        let first = self.parts.iter_mut().find_map(|part| match part {
            UserPart::Text(own) => Some(own),
            _ => None,
        });
        match first {
            Some(own) => {
                let rest = std::mem::take(own);
                text.join("", rest);
                *own = text;
            }
            None => self.parts.insert(0, UserPart::Text(text)),
        }
    }

    /// Puts a blank line and a text at the end.
    pub(super) fn put_at_end(&mut self, text: Prose<'a>) {
        match self.parts.last_mut() {
            Some(UserPart::Text(own)) => own.join("\n\n", text),
            Some(_) => {
                let mut own = Prose::from("\n\n");
                own.join("", text);
                self.parts.push(UserPart::Text(own));
            }
            None => self.parts.push(UserPart::Text(text)),
        }
    }

    /// Appends it as a JSON string or an array of parts.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if !self.in_parts {
            out.push(b'"');
            for part in &self.parts {
                if let UserPart::Text(text) = part {
                    text.write_inside(out);
                }
            }
            out.push(b'"');
            return;
        }
        out.push(b'[');
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            part.write(out);
        }
        out.push(b']');
    }
}

impl UserPart<'_> {
    pub(super) fn measure(&self, size: &mut InputSize) {
        match self {
            Self::Text(text) => size.bytes += text.len(),
            Self::Image { .. } => size.images += 1,
            Self::Same(_) => {}
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.extend_from_slice(br#"{"type":"text","text":"#);
                text.write(out);
                out.push(b'}');
            }
            Self::Image { url, detail } => {
                out.extend_from_slice(br#"{"type":"image_url","image_url":{"url":"#);
                url.write(out);
                if let Some(detail) = detail {
                    out.extend_from_slice(br#","detail":""#);
                    out.extend_from_slice(detail.as_bytes());
                    out.push(b'"');
                }
                out.extend_from_slice(b"}}");
            }
            Self::Same(part) => part.write_compact(out),
        }
    }
}
