//! Errors of the Messages API: their types by status, and their body.
//!
//! Contract: docs/contract/translation.md#9

use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::error::Refusal;
use crate::json;

/// The words by which Claude Code learns that it has to compact the conversation.
pub(crate) const TOO_LONG: &str = "prompt is too long";

/// An error of an endpoint as clients of the API know it: that of a conversation that is too long has
/// words and a status of its own (docs/contract/dialects.md#17).
pub(crate) fn understood(error: Refusal, request: &ResponseContext) -> Refusal {
    let Some(overflow) = error.overflow() else {
        return error;
    };
    let max = overflow.max.or(request.served_context);
    let tokens = overflow.tokens.unwrap_or_else(|| {
        let least = max.map_or(1, |max| max.saturating_add(1));
        request.input_tokens.max(least)
    });
    let max = max.unwrap_or_else(|| tokens.saturating_sub(1));
    Refusal::invalid(format!("{TOO_LONG}: {tokens} tokens > {max} maximum"))
        .with_code("context_length_exceeded")
}

/// The `error.type` that belongs to a status (docs/contract/translation.md#9). It serves the
/// gateway's own errors and those of translated endpoints.
pub(crate) const fn error_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// The JSON body of an error response. `message` must not name addresses of endpoints.
pub(crate) fn error_body(
    status: u16,
    (message, code): (&str, Option<&str>),
    request_id: &str,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(160 + message.len() + request_id.len());
    body.extend_from_slice(br#"{"type":"error","error":"#);
    write_error(error_kind(status), message, &mut body);
    if let Some(code) = code {
        body.pop();
        body.extend_from_slice(br#","code":"#);
        json::write_string(code, &mut body);
        body.push(b'}');
    }
    body.extend_from_slice(br#","request_id":"#);
    json::write_string(request_id, &mut body);
    body.push(b'}');
    body
}

/// Appends the inner object of an error.
pub(super) fn write_error(kind: &str, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"#);
    json::write_string(kind, out);
    out.extend_from_slice(br#","message":"#);
    json::write_string(message, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::chat::error::BackendError;

    /// However an endpoint says it: in place of a response, of a chunk, or later.
    #[test]
    fn a_conversation_that_is_too_long() {
        use super::super::completion::tests::context;
        use super::super::stream::tests::run;
        use crate::dialects::chat::stream::{End, Progress};
        for (error, message) in [
            (
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}"#,
                "prompt is too long: 9000 tokens > 4096 maximum",
            ),
            (
                r#"{"object":"error","message":"This model's maximum context length is 50 tokens."}"#,
                "prompt is too long: 77 tokens > 50 maximum",
            ),
        ] {
            let event = format!("data: {error}\n\n");
            for first in [event.as_str(), error] {
                let (out, progress) = run(&[first.as_bytes()], End::Clean);
                let Progress::Refused(refusal) = progress else {
                    panic!("{progress:?} {out}");
                };
                assert_eq!((refusal.status, &*refusal.message), (400, message));
            }
            let late =
                format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}\n\n{event}");
            let (out, progress) = run(&[late.as_bytes()], End::Clean);
            assert_eq!(progress, Progress::Failed);
            let body = format!(r#"{{"type":"invalid_request_error","message":"{message}"}}}}"#);
            assert!(out.ends_with(&(body + "\n\n")), "{out}");
        }
        // Nothing is known but that it is too long.
        let error = BackendError::read(400, br#"{"error":{"code":"context_length_exceeded"}}"#);
        let nothing = understood(error.clone().into(), &ResponseContext::default());
        assert_eq!(nothing.message, "prompt is too long: 1 tokens > 0 maximum");
        let served = ResponseContext {
            served_context: Some(60),
            ..context()
        };
        let message = understood(error.into(), &served).message;
        assert_eq!(message, "prompt is too long: 77 tokens > 60 maximum");
        let other = Refusal::backend("hot");
        assert_eq!(understood(other.clone(), &context()), other);
    }

    #[test]
    fn kinds_by_status() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (402, "billing_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (408, "timeout_error"),
            (413, "request_too_large"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (431, "invalid_request_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "api_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
            (599, "api_error"),
        ] {
            assert_eq!(error_kind(status), kind, "{status}");
        }
    }

    #[test]
    fn a_body_is_complete_and_escaped() {
        let body = error_body(404, ("model \"x\" not found\n", None), "r-1");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            concat!(
                r#"{"type":"error","error":{"type":"not_found_error","#,
                r#""message":"model \"x\" not found\n"},"request_id":"r-1"}"#
            )
        );
    }
}
