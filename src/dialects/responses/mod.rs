//! OpenAI's Responses API: passed through to endpoints that speak it, translated to chat completions
//! for the others.
//!
//! [`translator`] has what a request needs on its way to any endpoint. Everything here is pure: it maps bytes to bytes, without sockets, files or clocks; time and seed
//! are arguments.
//!
//! - [`request`] reads a request and checks it, [`tools`] and [`names`] have what becomes of tools,
//!   and of their names on the way back.
//! - [`to_chat`] makes the request for an endpoint, its messages of the items that [`input`] reads;
//!   [`file`] has the text of files.
//! - [`reply`] makes the response, streamed or not, of [`items`] in an [`object`]; [`custom`] decodes
//!   the input of tools that take text, [`reasoning`] wraps what a model thought.
//! - [`store`] keeps responses for requests that continue them.
//!
//! Contract: docs/contract/dialects.md#5 to docs/contract/dialects.md#9

mod count;
mod custom;
mod file;
mod input;
mod items;
mod names;
mod native;
mod object;
mod objection;
mod own;
#[cfg(test)]
mod properties;
mod reasoning;
mod reply;
mod request;
mod store;
mod stored_input;
mod to_chat;
mod tools;
mod translator;
pub(crate) mod trial;

use std::time::Duration;

use super::conversation::Translator;
use super::{
    ApiFamily, Authority, CommonRoutes, Computation, ComputeAsk, DialectRoute, Error, Operation,
};
use count::{StoreView, input_tokens};
use translator::ResponsesTranslator;

pub(crate) use objection::endpoint_is_away;
pub(crate) use own::{StoredAsk, StoredPath, not_stored, stored};
pub(super) use reply::{failure_code, understood};
pub(crate) use store::{Owner, ResponseStore, StoreBounds, StoreCounts};
pub(crate) use translator::keeps_nothing;

/// The routes below every prefix and at the root (docs/contract/dialects.md#2.1).
pub(super) const COMMON_ROUTES: CommonRoutes = CommonRoutes {
    family: ApiFamily::Responses,
    routes: &[
        DialectRoute {
            path: b"/v1/responses",
            allow: "POST",
            operation: Operation::Serve(begin),
        },
        DialectRoute {
            path: b"/v1/responses/input_tokens",
            allow: "POST",
            operation: Operation::Compute(&INPUT_TOKENS),
        },
        DialectRoute {
            path: b"/v1/responses/{id}",
            allow: "GET, HEAD, DELETE",
            operation: Operation::Stored(StoredPath::Response),
        },
        DialectRoute {
            path: b"/v1/responses/{id}/input_items",
            allow: "GET, HEAD",
            operation: Operation::Stored(StoredPath::InputItems),
        },
        DialectRoute {
            path: b"/v1/responses/{id}/cancel",
            allow: "POST",
            operation: Operation::Stored(StoredPath::Cancel),
        },
    ],
};

fn begin() -> Box<dyn Translator> {
    Box::<ResponsesTranslator>::default()
}

/// `POST v1/responses/input_tokens`: no endpoint counts better (docs/contract/dialects.md#8.5).
static INPUT_TOKENS: Computation = Computation {
    make: count_tokens,
    authority: Authority {
        is_enabled: |_| false,
        path: |_| None,
        accepts: |_| false,
        within: Duration::ZERO,
        mode: "",
    },
};

fn count_tokens(body: &[u8], ask: &ComputeAsk) -> Result<Vec<u8>, Error> {
    let view = StoreView {
        store: &ask.responses,
        owner: ask.owner,
        now_ms: ask.unix_ms,
    };
    Ok(input_tokens(body, view)?)
}
