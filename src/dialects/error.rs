//! An error that the gateway itself responds with.
//!
//! Contract: docs/contract/surface.md#9

use std::borrow::Cow;

/// An error before it takes the shape of its route's API family ([`super::ApiFamily::error_body`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    /// Status of the response.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: &'static str,
    /// `error.message`.
    pub message: Cow<'static, str>,
    /// The route's methods, for 405.
    pub allow: Option<&'static str>,
    /// The codings of a body that are decoded, for 415.
    pub accept_encoding: Option<&'static str>,
    /// Seconds, for 429 and 503.
    pub retry_after: Option<u64>,
}

impl Error {
    /// An error without fields of its own.
    pub(crate) fn new(
        status: u16,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            allow: None,
            accept_encoding: None,
            retry_after: None,
        }
    }

    /// There is no such route.
    pub(crate) fn not_found() -> Self {
        let message = "there is no such route; the APIs are below /olla/, as in /olla/openai/v1";
        Self::new(404, "not_found", "NOT_FOUND", message)
    }
}
