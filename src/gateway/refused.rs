//! The errors of requests that the engine refuses.
//!
//! Contract: docs/contract/surface.md#1.1, docs/contract/surface.md#1.2, docs/contract/surface.md#9

use olla_engine::handler::Refusal;

use crate::dialects::Error;

/// The value of `Allow` on a route that forwards any method.
const ANY_METHOD: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// The error of a request that the engine refuses (docs/contract/surface.md#1.1,
/// docs/contract/surface.md#1.2, docs/contract/surface.md#9); `body_limit` is the limit for its
/// body and the option that sets it.
pub(super) fn refused(refusal: Refusal, body_limit: (Option<u64>, &'static str)) -> Error {
    match refusal {
        Refusal::Head(reject) => {
            let (kind, code) = match reject.status() {
                405 => ("method_not_allowed", "METHOD_NOT_ALLOWED"),
                431 => ("headers_too_large", "HEADERS_TOO_LARGE"),
                501 => ("not_implemented", "NOT_SUPPORTED"),
                _ => ("bad_request", "BAD_REQUEST"),
            };
            let mut error = Error::new(reject.status(), kind, code, reject.sentence());
            // RFC 9110 15.5.6 requires `Allow` on every 405.
            error.allow = (error.status == 405).then_some(ANY_METHOD);
            error
        }
        Refusal::BodyTooLarge => {
            let message = match body_limit {
                (Some(max), key) => {
                    format!("the request body is larger than the {max} bytes that {key} allows")
                }
                (None, _) => "the request body is too large".to_owned(),
            };
            Error::new(413, "request_too_large", "BODY_TOO_LARGE", message)
        }
        Refusal::BodyBroken | Refusal::BodyUndecodable(_) => Error::new(
            400,
            "bad_request",
            "INVALID_BODY",
            "the request body is incomplete or not framed as its headers announce",
        ),
        Refusal::BodyPaused => Error::new(
            408,
            "request_timeout",
            "REQUEST_TIMEOUT",
            "the request body paused for longer than server.read_timeout",
        ),
        Refusal::BodyTooSlow => Error::new(
            408,
            "request_timeout",
            "REQUEST_TIMEOUT",
            "the request body arrived at less than server.min_body_rate",
        ),
        Refusal::NoRoom => overloaded("too many request bodies are in memory"),
    }
}

/// The error of a request for which the gateway's own machine has nothing left.
pub(super) fn overloaded(why: &str) -> Error {
    let message = format!("{why}; try again later");
    let mut error = Error::new(503, "service_unavailable", "OVERLOADED", message);
    error.retry_after = Some(5);
    error
}
