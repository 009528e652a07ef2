//! Errors of the Messages API: their types by status, and their body.
//!
//! Contract: docs/contract/translation.md#9

use crate::json;

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
pub(crate) fn error_body(status: u16, message: &str, request_id: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(128 + message.len() + request_id.len());
    body.extend_from_slice(br#"{"type":"error","error":"#);
    write_error(error_kind(status), message, &mut body);
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
        let body = error_body(404, "model \"x\" not found\n", "r-1");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            concat!(
                r#"{"type":"error","error":{"type":"not_found_error","#,
                r#""message":"model \"x\" not found\n"},"request_id":"r-1"}"#
            )
        );
    }
}
