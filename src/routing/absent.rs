//! What the gateway says of APIs that it does not have, so that a client's log names what to use
//! instead.
//!
//! Contract: docs/contract/dialects.md#17

/// APIs that clients ask for and that have no translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbsentApi {
    /// Google's Gemini.
    Gemini,
    /// Anthropic's message batches.
    Batches,
    /// Anthropic's files.
    Files,
    /// A handshake of the WebSocket protocol (RFC 6455).
    WebSocket,
}

impl AbsentApi {
    /// The API of a path in normal form that leads to no route.
    pub(crate) fn of_unknown(path: &[u8]) -> Option<Self> {
        if path.starts_with(b"/v1beta/") || path == b"/v1beta" || path.starts_with(b"/v1alpha/") {
            return Some(Self::Gemini);
        }
        let own = path.strip_prefix(b"/olla/anthropic")?;
        Self::of_anthropic(own)
    }

    /// The API of a path below a base path of Anthropic's API, such as `/v1/messages/batches/x`.
    pub(crate) fn of_anthropic(rest: &[u8]) -> Option<Self> {
        let is_at_or_below = |base: &[u8]| {
            let below = rest.strip_prefix(base);
            below.is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
        };
        if is_at_or_below(b"/v1/messages/batches") {
            return Some(Self::Batches);
        }
        is_at_or_below(b"/v1/files").then_some(Self::Files)
    }

    /// The status of the response; not above 500 where client libraries would try again.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::WebSocket => 501,
            Self::Gemini | Self::Batches | Self::Files => 404,
        }
    }

    /// What the error says: that there is no such API, and what there is.
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Gemini => {
                "Gemini's API is not available here; use OpenAI's (/v1/chat/completions, \
                 /v1/responses), Anthropic's (/v1/messages) or Ollama's (/api/chat)"
            }
            Self::Batches => {
                "message batches are not available here; send each request to /v1/messages"
            }
            Self::Files => {
                "Anthropic's files are not available here; send documents and pictures within the \
                 messages of /v1/messages"
            }
            Self::WebSocket => {
                "WebSockets are not available here; use HTTP requests with \"stream\": true, which \
                 are answered by server-sent events (POST /v1/responses, /v1/chat/completions, \
                 /v1/messages)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_apis_are_told_by_their_paths() {
        let table = [
            (
                "/v1beta/models/gemini-2.5-pro:generateContent",
                Some(AbsentApi::Gemini),
            ),
            ("/v1beta/models", Some(AbsentApi::Gemini)),
            ("/v1beta", Some(AbsentApi::Gemini)),
            ("/v1alpha/models", Some(AbsentApi::Gemini)),
            ("/v1betas", None),
            (
                "/olla/anthropic/v1/messages/batches",
                Some(AbsentApi::Batches),
            ),
            (
                "/olla/anthropic/v1/messages/batches/b1/results",
                Some(AbsentApi::Batches),
            ),
            ("/olla/anthropic/v1/messages/batchesx", None),
            ("/olla/anthropic/v1/files/f1", Some(AbsentApi::Files)),
            ("/olla/anthropic/v1/complete", None),
            ("/v1/messages/batches", None),
            ("/", None),
        ];
        for (path, expected) in table {
            assert_eq!(AbsentApi::of_unknown(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn every_message_names_what_is_there() {
        for api in [
            AbsentApi::Gemini,
            AbsentApi::Batches,
            AbsentApi::Files,
            AbsentApi::WebSocket,
        ] {
            let message = api.message();
            assert!(message.contains("not available here"), "{message}");
            assert!(message.contains("/v1/"), "{message}");
        }
    }
}
