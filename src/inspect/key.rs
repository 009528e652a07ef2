//! The keys of the top-level object that have a meaning here.

use super::name;

/// A top-level key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKey {
    Model,
    /// `model` in another letter case.
    CasedModel,
    Name,
    Stream,
    Messages,
    Prompt,
    // The rest only if the prompt is wanted.
    Input,
    Tools,
    System,
    Instructions,
    KeepAlive,
    Other,
}

impl BodyKey {
    pub(super) fn of(raw: &[u8]) -> Self {
        match raw {
            b"model" => Self::Model,
            b"name" => Self::Name,
            b"stream" => Self::Stream,
            b"messages" => Self::Messages,
            b"prompt" => Self::Prompt,
            b"input" => Self::Input,
            b"tools" => Self::Tools,
            b"system" => Self::System,
            b"instructions" => Self::Instructions,
            b"keep_alive" => Self::KeepAlive,
            _ if raw.eq_ignore_ascii_case(b"model") => Self::CasedModel,
            _ if raw.contains(&b'\\') => Self::of_escaped(raw),
            _ => Self::Other,
        }
    }

    /// A key may be spelled with escapes: `"mod\u0065l"` is `model`.
    fn of_escaped(raw: &[u8]) -> Self {
        const LONGEST: usize = "instructions".len();
        let mut key = [0; LONGEST];
        let mut len = 0;
        for decoded in name::unescape(raw) {
            match (decoded, key.get_mut(len)) {
                (Ok(c), Some(slot)) if c.is_ascii() => *slot = c as u8,
                _ => return Self::Other,
            }
            len += 1;
        }
        match key.get(..len) {
            // Decoded to a backslash, it is no longer an escape.
            Some(key) if !key.contains(&b'\\') => Self::of(key),
            _ => Self::Other,
        }
    }
}
