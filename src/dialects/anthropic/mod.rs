//! Anthropic's Messages API: passed through to endpoints that speak it, translated for the others.
//!
//! [`translator`] is what the state of a request has to know of it, [`own`] has the routes that need
//! no endpoint, [`translate`] maps one API to the other, and [`recording`] and [`records`] write the
//! inspector's files.
//!
//! Contract: docs/contract/translation.md

mod own;
mod recording;
mod records;
pub(crate) mod translate;
mod translator;

use crate::dialects::conversation::Translator;
use crate::dialects::{ApiFamily, CommonRoutes, DialectRoute, Error, Mount, Operation};
use translator::MessagesTranslator;

pub(crate) use records::{Record, Records};

/// The routes (docs/contract/translation.md#1).
pub(crate) const MOUNT: Mount = Mount {
    prefix: b"anthropic",
    family: ApiFamily::Anthropic,
    routes: &[
        DialectRoute {
            path: b"",
            allow: "GET, HEAD",
            operation: Operation::List(own::alive),
        },
        DialectRoute {
            path: b"/api/hello",
            allow: "GET, HEAD",
            operation: Operation::List(own::hello),
        },
        MESSAGES,
        COUNT_TOKENS,
        DialectRoute {
            path: b"/v1/models",
            allow: "GET, HEAD",
            operation: Operation::List(own::models),
        },
        DialectRoute {
            path: b"/v1/models/",
            allow: "GET, HEAD",
            operation: Operation::List(own::model),
        },
    ],
};

/// The routes below every prefix and at the root (docs/contract/dialects.md#2.1).
pub(crate) const COMMON_ROUTES: CommonRoutes = CommonRoutes {
    family: ApiFamily::Anthropic,
    routes: &[MESSAGES, COUNT_TOKENS],
};

const MESSAGES: DialectRoute = DialectRoute {
    path: b"/v1/messages",
    allow: "POST",
    operation: Operation::Serve(begin),
};

const COUNT_TOKENS: DialectRoute = DialectRoute {
    path: b"/v1/messages/count_tokens",
    allow: "POST",
    operation: Operation::Compute(&own::COUNT_TOKENS),
};

fn begin() -> Box<dyn Translator> {
    Box::<MessagesTranslator>::default()
}

/// The body of an error in Anthropic's shape.
pub(super) fn error_body(error: &Error, request_id: &str) -> Vec<u8> {
    let code = error.access.map(|_| error.code);
    translate::error_body(error.status, (&*error.message, code), request_id)
}

/// What an endpoint's error response says.
pub(super) fn backend_error(status: u16, body: &[u8]) -> Error {
    let refusal = translate::error_from_backend(status, body);
    Error::new(
        refusal.status,
        "bad_gateway",
        "BACKEND_ERROR",
        refusal.message,
    )
}
