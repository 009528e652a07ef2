//! The routes of dialects: below a prefix of their own, and below every prefix.
//!
//! Contract: docs/contract/translation.md#1, docs/contract/dialects.md#2

use std::sync::Arc;
use std::time::Duration;

use super::conversation::{Conversation, Translator};
use super::responses::{Owner, ResponseStore, StoredPath};
use super::{ApiFamily, Dialect, Error, anthropic, ollama, responses};
use crate::catalogue::{Catalogue, ListingForm};
use crate::config::Plan;
use crate::fleet::Endpoint;

/// A family's own prefix below `/olla/`.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The first segment after `/olla/`.
    pub prefix: &'static [u8],
    /// The family that its requests belong to.
    pub family: ApiFamily,
    /// The routes below it.
    pub routes: &'static [DialectRoute],
}

/// All mounts.
pub(crate) const MOUNTS: [Mount; 1] = [anthropic::MOUNT];

/// The routes of a family below every prefix, and at the root (docs/contract/dialects.md#2).
#[derive(Debug)]
pub(crate) struct CommonRoutes {
    /// The family.
    pub family: ApiFamily,
    /// Its routes. One slash at the end of a path has no meaning.
    pub routes: &'static [DialectRoute],
}

/// The common routes of all families.
pub(crate) const COMMON_ROUTES: [CommonRoutes; 3] = [
    responses::COMMON_ROUTES,
    anthropic::COMMON_ROUTES,
    ollama::COMMON_ROUTES,
];

/// A route of a family.
#[derive(Debug)]
pub(crate) struct DialectRoute {
    /// The path after the prefix. In a mount, one with a slash at its end matches any longer path
    /// below it; elsewhere, `{id}` stands for a segment.
    pub path: &'static [u8],
    /// Its methods, in the form of `Allow`.
    pub allow: &'static str,
    /// Its operation.
    pub operation: Operation,
}

impl DialectRoute {
    /// The dialect of one of its requests.
    pub(crate) fn begin(&self) -> Dialect {
        match self.operation {
            Operation::Serve(begin) => Dialect::Translated(Box::new(Conversation::new(begin()))),
            _ => Dialect::Plain,
        }
    }
}

/// What a dialect's route does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// Its requests go to an endpoint.
    Serve(fn() -> Box<dyn Translator>),
    /// The responses that are kept, or the endpoint that keeps one.
    Stored(StoredPath),
    /// Its requests go to an endpoint of Ollama's, else the catalogue responds.
    Describe,
    /// What the endpoints of Ollama's say of loaded models, merged.
    Running,
    /// A listing of the catalogue.
    Listing(ListingForm),
    /// The dialect makes the response itself, out of the body (which counts as a request of the
    /// client's rate limit).
    Compute(&'static Computation),
    /// The dialect makes the response itself, out of the catalogue or of nothing.
    List(fn(&OwnAsk<'_>) -> Result<Vec<u8>, Error>),
}

impl Operation {
    /// Whether its requests take no token of the limits of proxied requests.
    pub(crate) const fn is_listing(self) -> bool {
        matches!(self, Self::List(_) | Self::Listing(_) | Self::Running)
    }
}

/// A response that a dialect makes out of the body.
#[derive(Debug)]
pub(crate) struct Computation {
    /// Makes it.
    pub make: fn(&[u8], &ComputeAsk) -> Result<Vec<u8>, Error>,
    /// The endpoints that know better.
    pub authority: Authority,
}

/// Endpoints that know better what a dialect computes. One that serves the model is asked, and its
/// response is the client's if it is of the right form and comes in time.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Whether the configuration lets an endpoint be asked.
    pub is_enabled: fn(&Plan) -> bool,
    /// The path at an endpoint that knows it; `None` = it does not.
    pub path: fn(&Endpoint) -> Option<String>,
    /// Whether the body of a response is of the right form.
    pub accepts: fn(&[u8]) -> bool,
    /// The time limit, from the beginning of the attempt.
    pub within: Duration,
    /// The value of `X-Olla-Mode` of the endpoint's response.
    pub mode: &'static str,
}

/// What a dialect may need to compute a response.
#[derive(Debug)]
pub(crate) struct ComputeAsk {
    /// Responses that are kept.
    pub responses: Arc<ResponseStore>,
    /// The client.
    pub owner: Owner,
    /// The time since 1970.
    pub unix_ms: u64,
}

/// What a dialect may need for a response of its own.
pub(crate) struct OwnAsk<'a> {
    /// What follows the route's path, percent escapes as sent.
    pub rest: &'a [u8],
    /// All models.
    pub catalogue: &'a Catalogue,
    /// Whether an endpoint that may be sent requests has the model, in any spelling.
    pub is_served: &'a dyn Fn(&str) -> bool,
    /// When the process started, as RFC 3339.
    pub started: &'a str,
    /// The configuration.
    pub plan: &'a Plan,
}
