//! Errors of requests and responses that cannot be translated, and what an endpoint's error says.
//!
//! Contract: docs/contract/translation.md#9

use std::fmt;

use super::overflow::Overflow;
use crate::json::{self, JsonKind, JsonValue};

/// Headers of an endpoint's error that reach the client of a translated request; SDKs decide by
/// them whether and when to try again.
pub(crate) const RETRY_HEADERS: [&str; 3] = ["retry-after", "retry-after-ms", "x-should-retry"];

/// The longest plain-text error of an endpoint that is shown, in bytes; the rest is cut off.
const PLAIN_TEXT_BYTES_MAX: usize = 500;

/// The message for an error of an endpoint that has none.
const BACKEND_ERROR: &str = "Backend error";

/// The error of a request or response that cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the response.
    pub status: u16,
    /// One sentence in terms of the API.
    pub message: String,
    /// What OpenAI's form of an error says besides.
    pub details: Option<Box<ErrorDetails>>,
}

/// Members of OpenAI's form of an error; missing ones are null, or follow from the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetails {
    /// `type`.
    pub kind: Option<String>,
    /// The field that is wrong.
    pub param: Option<String>,
    /// `code`, lower case.
    pub code: Option<String>,
    /// The conversation does not fit into the model's context; each dialect has its own words for it
    /// (docs/contract/dialects.md#17).
    pub(crate) overflow: Option<Overflow>,
}

impl Refusal {
    /// An invalid request.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            details: None,
        }
    }

    /// An invalid response of an endpoint.
    pub fn backend(message: impl Into<String>) -> Self {
        Self {
            status: 502,
            message: message.into(),
            details: None,
        }
    }

    /// Its `code`, if it has one.
    pub(crate) fn code(&self) -> Option<&str> {
        self.details.as_ref()?.code.as_deref()
    }

    /// Whether and how the conversation does not fit into the model's context.
    pub(crate) fn overflow(&self) -> Option<Overflow> {
        self.details.as_ref()?.overflow
    }

    /// The field that is wrong, if it says so.
    #[cfg(test)]
    pub(crate) fn param(&self) -> Option<&str> {
        self.details.as_ref()?.param.as_deref()
    }

    /// The same, about a field.
    pub(crate) fn with_param(mut self, param: impl Into<String>) -> Self {
        self.details.get_or_insert_default().param = Some(param.into());
        self
    }

    /// The same, with a code.
    pub(crate) fn with_code(mut self, code: impl Into<String>) -> Self {
        self.details.get_or_insert_default().code = Some(code.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// A refusal that names a field.
pub(crate) fn invalid(field: &str, problem: &str) -> Refusal {
    Refusal::invalid(format!("{field}: {problem}")).with_param(field)
}

/// What an endpoint's error says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendError {
    /// Its status; 502 for an error in place of a response.
    pub status: u16,
    /// What the body says in one of the usual places.
    pub message: String,
    /// `type`, `param` and `code` of its `error` object, as far as they are strings.
    pub details: ErrorDetails,
}

impl BackendError {
    /// Reads the body of an error.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        match json::parse(body) {
            Some(value) => Self::of(status, value),
            None => Self::plain(status, plain_text(body)),
        }
    }

    /// The error in an object that came in place of a response.
    pub(crate) fn of(status: u16, value: JsonValue<'_>) -> Self {
        let mut found = Self::plain(status, message_in(value));
        let Some(error) = value.field("error") else {
            return found;
        };
        let members = error.given(["type", "param", "code"]);
        let [kind, param, code] = members.map(|member| {
            let text = member?.string().filter(|text| !text.is_empty())?;
            Some(text.decode().into_owned())
        });
        let [_, _, number] = members;
        let is_limit = number.and_then(JsonValue::unsigned) == Some(429);
        found.details = ErrorDetails {
            kind,
            param,
            code: code.or_else(|| is_limit.then(|| "rate_limit_exceeded".to_owned())),
            overflow: Overflow::of(status, &found.message, error),
        };
        found
    }

    fn plain(status: u16, message: Option<String>) -> Self {
        let message = message.unwrap_or_else(|| BACKEND_ERROR.to_owned());
        Self {
            status,
            details: ErrorDetails {
                overflow: Overflow::in_message(status, &message),
                ..ErrorDetails::default()
            },
            message,
        }
    }
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        Self {
            status: error.status,
            message: error.message,
            details: Some(Box::new(error.details)),
        }
    }
}

/// A translated endpoint's error (status 400 and up) as the client gets it: the status is kept, the
/// message is what the body says in one of the usual places. [`RETRY_HEADERS`] are to be copied.
pub fn error_from_backend(status: u16, body: &[u8]) -> Refusal {
    BackendError::read(status, body).into()
}

/// The members in which known servers put their message, in order of preference.
fn message_in(value: JsonValue<'_>) -> Option<String> {
    let [error, message, detail] = value.fields(["error", "message", "detail"]);
    let texts = [
        error.and_then(|error| error.string_field("message")),
        error.and_then(JsonValue::string),
        message.and_then(JsonValue::string),
        detail.and_then(JsonValue::string),
    ];
    if let Some(text) = texts.into_iter().flatten().find(|text| !text.is_empty()) {
        return Some(text.decode().into_owned());
    }
    let messages: Vec<_> = detail?
        .elements()
        .filter_map(|item| Some(item.string_field("msg")?.decode()))
        .filter(|message| !message.is_empty())
        .collect();
    (!messages.is_empty()).then(|| messages.join("; "))
}

/// The error in the data of an event named `error`, which may be anything.
pub(crate) fn event_error(data: &[u8]) -> BackendError {
    let Some(value) = json::parse(data) else {
        return BackendError::plain(502, plain_text(data));
    };
    match value.string() {
        Some(text) if !text.is_empty() => {
            BackendError::plain(502, Some(text.decode().into_owned()))
        }
        _ => BackendError::of(502, value),
    }
}

/// Whether an object is an error instead of a response
/// (docs/contract/translation.md#8.4).
pub(crate) fn is_error(
    error: Option<JsonValue<'_>>,
    object: Option<JsonValue<'_>>,
    detail: Option<JsonValue<'_>>,
    choices: Option<JsonValue<'_>>,
) -> bool {
    if detail.is_some() && choices.is_none() {
        return true;
    }
    let says_so = object.and_then(JsonValue::string);
    match error.map(|error| (error, error.kind())) {
        Some((_, JsonKind::Object | JsonKind::Array)) => true,
        Some((error, JsonKind::String)) => error.string().is_some_and(|text| !text.is_empty()),
        Some((error, JsonKind::Bool)) => error.is_true(),
        _ => says_so.is_some_and(|text| text.is("error")),
    }
}

fn plain_text(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_markup = text.starts_with(['<', '{', '[', '"']);
    let is_binary = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.is_empty() || is_markup || text.contains(is_binary) {
        return None;
    }
    let mut end = text.len().min(PLAIN_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_says() {
        let long = "é".repeat(300);
        let cut = "é".repeat(250);
        for (body, message) in [
            (r#"{"error":{"message":"Too many","type":"x"}}"#, "Too many"),
            (r#"{"error":"model not found"}"#, "model not found"),
            (r#"{"error":{"message":""},"message":"m"}"#, "m"),
            (r#"{"error":{"message":7},"detail":"d"}"#, "d"),
            (r#"{"object":"error","message":"m","code":1}"#, "m"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (
                r#"{"detail":[{"loc":["a"],"msg":"one"},{"msg":"two"},{"x":1}]}"#,
                "one; two",
            ),
            (r#"{"detail":[]}"#, BACKEND_ERROR),
            (r#"{"oops":true}"#, BACKEND_ERROR),
            (r#"{"error":{"message":"cut of"#, BACKEND_ERROR),
            ("[1]", BACKEND_ERROR),
            ("null", BACKEND_ERROR),
            ("", BACKEND_ERROR),
            ("  \n", BACKEND_ERROR),
            (" out of memory\n", "out of memory"),
            ("<html><body>Bad Gateway</body></html>", BACKEND_ERROR),
            ("\n<!DOCTYPE html>", BACKEND_ERROR),
            ("a\0b", BACKEND_ERROR),
            (long.as_str(), cut.as_str()),
        ] {
            let refusal = error_from_backend(503, body.as_bytes());
            assert_eq!(
                (refusal.status, refusal.message.as_str()),
                (503, message),
                "{body}"
            );
        }
        assert_eq!(error_from_backend(500, b"\xff\xfe").message, BACKEND_ERROR);
    }
}
