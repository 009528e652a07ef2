//! Ollama's own API over the whole fleet.
//!
//! [`translator`] is one request that runs a model: [`request`] checks it, [`to_chat`] writes what
//! an endpoint gets, with [`messages`], [`images`] and [`fields`]; [`reply`] and [`stream`] write
//! what the client gets. [`own`] has the routes that need no endpoint, [`running`] merges lists of
//! loaded models.
//!
//! Contract: docs/contract/dialects.md#2, docs/contract/dialects.md#10,
//! docs/contract/dialects.md#11

mod fields;
mod images;
mod messages;
mod own;
mod reply;
mod request;
mod running;
mod stream;
#[cfg(test)]
mod tests;
mod to_chat;
mod translator;
pub(crate) mod trial;

use super::conversation::Translator;
use super::{ApiFamily, CommonRoutes, DialectRoute, Operation};
use crate::catalogue::ListingForm;
use request::OllamaOperation;
use translator::OllamaRequest;

pub(super) use reply::write_error_line;
pub(crate) use running::RunningModels;

/// The routes below every prefix and at the root (docs/contract/dialects.md#2.1).
pub(super) const COMMON_ROUTES: CommonRoutes = CommonRoutes {
    family: ApiFamily::Ollama,
    routes: &[
        runs(b"/api/chat", || begin(OllamaOperation::Chat)),
        runs(b"/api/generate", || begin(OllamaOperation::Generate)),
        runs(b"/api/embed", || begin(OllamaOperation::Embed)),
        runs(b"/api/embeddings", || begin(OllamaOperation::Embeddings)),
        DialectRoute {
            path: b"/api/show",
            allow: "POST",
            operation: Operation::Describe,
        },
        DialectRoute {
            path: b"/api/tags",
            allow: "GET, HEAD",
            operation: Operation::Listing(ListingForm::Ollama),
        },
        DialectRoute {
            path: b"/api/ps",
            allow: "GET, HEAD",
            operation: Operation::Running,
        },
    ],
};

/// Further routes at the root (docs/contract/dialects.md#2.2).
pub(crate) const OLLAMA_ROOT: &[DialectRoute] = &[
    DialectRoute {
        path: b"/api/version",
        allow: "GET, HEAD",
        operation: Operation::List(own::version),
    },
    DialectRoute {
        path: b"/api/hello",
        allow: "GET, HEAD",
        operation: Operation::List(own::hello),
    },
];

/// A route whose requests run a model.
const fn runs(path: &'static [u8], begin: fn() -> Box<dyn Translator>) -> DialectRoute {
    DialectRoute {
        path,
        allow: "POST",
        operation: Operation::Serve(begin),
    }
}

fn begin(operation: OllamaOperation) -> Box<dyn Translator> {
    Box::new(OllamaRequest::new(operation))
}
