//! The API families that routes belong to, and what their errors look like.
//!
//! Contract: docs/contract/surface.md#9, docs/contract/dialects.md#12

use bytes::Bytes;

use super::{Error, anthropic};
use crate::config::{Plan, TranslatorsPlan};

/// The API family of a route: what its errors look like, and which dialect its requests speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ApiFamily {
    /// OpenAI's shapes; everything that is no other family's.
    #[default]
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's responses; their errors are the other shapes of OpenAI's.
    Responses,
    /// Ollama's own API; its errors at the root.
    Ollama,
}

impl ApiFamily {
    /// Whether the configuration has its routes.
    pub(crate) fn is_enabled(self, translators: &TranslatorsPlan) -> bool {
        match self {
            Self::OpenAi => true,
            Self::Responses => translators.responses.enabled,
            Self::Ollama => translators.ollama.rules.enabled,
            Self::Anthropic => translators.anthropic.rules.enabled,
        }
    }

    /// The family's own limit for a body and the option that sets it.
    pub(crate) fn body_limit(self, plan: &Plan) -> Option<(u64, &'static str)> {
        match self {
            Self::OpenAi | Self::Responses | Self::Ollama => None,
            Self::Anthropic => {
                let max = plan.translators.anthropic.max_message_size?;
                Some((max, "translators.anthropic.max_message_size"))
            }
        }
    }

    /// The body of an error.
    pub(crate) fn error_body(self, error: &Error, request_id: &str) -> Bytes {
        Bytes::from(match self {
            Self::OpenAi | Self::Responses => openai_error(error),
            Self::Anthropic => anthropic::error_body(error, request_id),
            Self::Ollama => return ollama_error(error),
        })
    }

    /// The header in which its clients look for the request's id, besides the gateway's own.
    pub(crate) fn id_header(self) -> Option<&'static [u8]> {
        match self {
            Self::OpenAi | Self::Responses | Self::Ollama => Some(b"x-request-id"),
            Self::Anthropic => Some(b"request-id"),
        }
    }
}

pub(super) fn openai_error(error: &Error) -> Vec<u8> {
    let body = match &error.details {
        None => serde_json::json!({
            "error": { "message": error.message, "type": error.kind, "code": error.code }
        }),
        Some(details) => serde_json::json!({
            "error": {
                "message": error.message,
                "type": details.kind.as_deref().unwrap_or(openai_kind(error.status)),
                "param": details.param,
                "code": details.code,
            }
        }),
    };
    body.to_string().into_bytes()
}

/// The `type` of an error of this status in OpenAI's own API (docs/contract/dialects.md#12).
const fn openai_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// An error in the form of Ollama's API: its clients print the text in `error`
/// (docs/contract/surface.md#9).
pub(crate) fn ollama_error(error: &Error) -> Bytes {
    let body = serde_json::json!({
        "error": error.message, "type": error.kind, "code": error.code
    });
    Bytes::from(body.to_string())
}

/// Whether a client is one of Ollama's own, by its `User-Agent`.
pub(crate) fn is_ollama_client(user_agent: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [b"ollama-js/", b"ollama-python/", b"ollama/"];
    NAMES.iter().any(|name| user_agent.starts_with(name))
}
