//! An error that the gateway itself responds with.
//!
//! Contract: docs/contract/surface.md#9

use std::borrow::Cow;

use super::chat::error::{ErrorDetails, Refusal};

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
    /// What OpenAI's form of an error says in place of type and code, on the routes of a translation
    /// (docs/contract/dialects.md#12).
    pub details: Option<Box<ErrorDetails>>,
    /// Whether it is about a key, and what that adds to the response.
    pub access: Option<AccessError>,
}

/// What an error about a key adds to a response (docs/contract/access.md#8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// Nothing but its code in the form of the Messages API.
    Plain,
    /// 403 and 429: it is not kept by caches.
    Uncached,
    /// 401: `WWW-Authenticate` says what is needed; it is not kept by caches.
    Challenge {
        /// Whether a credential was sent, which is not valid.
        is_invalid: bool,
    },
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
            details: None,
            access: None,
        }
    }

    /// There is no such route.
    pub(crate) fn not_found() -> Self {
        let message = "there is no such route; the APIs are below /olla/, as in /olla/openai/v1";
        Self::new(404, "not_found", "NOT_FOUND", message)
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            status: error.status,
            message: error.message.clone().into_owned(),
            details: error.details.clone(),
        }
    }
}

impl From<Refusal> for Error {
    /// Type and code of a status; those of OpenAI's form are details, for invalid requests and for
    /// what an endpoint says.
    fn from(refusal: Refusal) -> Self {
        let (kind, code) = match refusal.status {
            401 => ("unauthorized", "UNAUTHORIZED"),
            403 => ("forbidden", "FORBIDDEN"),
            404 => ("not_found", "NOT_FOUND"),
            413 => ("request_too_large", "BODY_TOO_LARGE"),
            429 => ("rate_limit_exceeded", "RATE_LIMIT_EXCEEDED"),
            400..500 => ("bad_request", "INVALID_REQUEST"),
            503 => ("service_unavailable", "BACKEND_ERROR"),
            _ => ("bad_gateway", "BACKEND_ERROR"),
        };
        let is_invalid = (400..500).contains(&refusal.status);
        let details = refusal.details.or_else(|| is_invalid.then(Box::default));
        Self {
            details,
            ..Self::new(refusal.status, kind, code, refusal.message)
        }
    }
}
