//! Requests that change which models a server has, told by their operation.
//!
//! A path is read from its end and as an endpoint decodes it, so that neither another prefix nor
//! another spelling gets an operation past the gateway. Letter case is ignored: some servers do.
//!
//! Contract: docs/contract/surface.md#2, docs/contract/README.md#5

use super::path::hex;

/// An operation of model management.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Management {
    /// Ollama's `api/pull`.
    Pull,
    /// Ollama's `api/push`.
    Push,
    /// Ollama's `api/create`.
    Create,
    /// Ollama's `api/copy`.
    Copy,
    /// Ollama's `api/delete`.
    Delete,
    /// `api/list`; never forwarded, there is no such route.
    List,
    /// Ollama's `api/blobs/…` at the root; below a prefix it is forwarded as any other path.
    Blob,
    /// LM Studio's `api/v1/models/load`.
    Load,
    /// LM Studio's `api/v1/models/unload`.
    Unload,
    /// LM Studio's `api/v1/models/download`.
    Download,
}

/// The ends of paths that are operations.
const ALL: [(&[u8], Management); 9] = [
    (b"/api/pull", Management::Pull),
    (b"/api/push", Management::Push),
    (b"/api/create", Management::Create),
    (b"/api/copy", Management::Copy),
    (b"/api/delete", Management::Delete),
    (b"/api/list", Management::List),
    (b"/api/v1/models/load", Management::Load),
    (b"/api/v1/models/unload", Management::Unload),
    (b"/api/v1/models/download", Management::Download),
];

impl Management {
    /// The operation of a request to an endpoint: `base` is the path that the endpoint keeps in
    /// front of `rest`.
    pub(crate) fn of(base: &[u8], rest: &[u8]) -> Option<Self> {
        let decoded = Decoded { base, rest };
        // Servers take `/api/pull/` for `/api/pull`, with or without a redirect.
        let slashes = |byte: &u8| *byte == b'/';
        let mut path = decoded.clone().skip_while(slashes).peekable();
        // The paths of inference end in other letters, most of them in `s`.
        let last = path.peek()?.to_ascii_lowercase();
        if !matches!(last, b'l' | b'h' | b'e' | b'y' | b't' | b'd') {
            return None;
        }
        let ends_in = |text: &[u8]| {
            let mut path = decoded.clone().skip_while(slashes);
            let is_next = |byte: &u8| path.next().is_some_and(|b| b.eq_ignore_ascii_case(byte));
            text.iter().rev().all(is_next)
        };
        let found = ALL.iter().find(|(text, _)| ends_in(text));
        found.map(|(_, operation)| *operation)
    }

    /// Whether `proxy.model_management = "forward"` lets it through.
    pub(crate) const fn is_forwardable(self) -> bool {
        !matches!(self, Self::List)
    }
}

/// The bytes of a path from its end, percent escapes decoded. In a path whose escapes all have two
/// digits, which the HTTP layer has checked, reading them backwards finds the same ones.
#[derive(Clone)]
struct Decoded<'p> {
    base: &'p [u8],
    rest: &'p [u8],
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.rest.is_empty() {
            self.rest = std::mem::take(&mut self.base);
        }
        let (byte, left) = match self.rest {
            [left @ .., b'%', high, low] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, left),
                _ => self.rest.split_last().map(|(byte, left)| (*byte, left))?,
            },
            rest => rest.split_last().map(|(byte, left)| (*byte, left))?,
        };
        self.rest = left;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_seen_through_prefix_and_spelling() {
        let table = [
            // base, rest, operation
            ("", "/api/pull", Some(Management::Pull)),
            ("", "/api/push", Some(Management::Push)),
            ("", "/api/create", Some(Management::Create)),
            ("", "/api/copy", Some(Management::Copy)),
            ("", "/api/delete", Some(Management::Delete)),
            ("", "/api/list", Some(Management::List)),
            ("", "/api/v1/models/load", Some(Management::Load)),
            ("", "/api/v1/models/unload", Some(Management::Unload)),
            ("", "/api/v1/models/download", Some(Management::Download)),
            ("", "/team/api/delete", Some(Management::Delete)),
            ("", "/api/delete/", Some(Management::Delete)),
            ("", "/api/delete%2F/", Some(Management::Delete)),
            ("", "/api/pu%6cl", Some(Management::Pull)),
            ("", "/%61pi/pull", Some(Management::Pull)),
            ("", "/api%2Fdelete", Some(Management::Delete)),
            ("", "%2fapi%2F%64elet%65", Some(Management::Delete)),
            ("/api", "/delete", Some(Management::Delete)),
            ("/team/ap%69", "/delete", Some(Management::Delete)),
            ("/api/v1", "/models/load", Some(Management::Load)),
            ("/api", "/", None),
            ("", "/api/deletes", None),
            ("", "/xapi/delete", None),
            ("", "/delete", None),
            ("", "/api/delete/x", None),
            ("", "/API/Delete", Some(Management::Delete)),
            ("", "/api/V1/models/%4COAD", Some(Management::Load)),
            ("", "/api/%2564elete", None),
            ("", "/api/show", None),
            ("", "/api/chat", None),
            ("", "/api/generate", None),
            ("", "/api/v1/models", None),
            ("", "/v1/models/load", None),
            ("", "/v1/chat/completions", None),
            ("", "/%", None),
            ("", "/%zl", None),
            ("", "/", None),
            ("", "", None),
        ];
        for (base, rest, operation) in table {
            let found = Management::of(base.as_bytes(), rest.as_bytes());
            assert_eq!(found, operation, "{base} {rest}");
        }
    }
}
