//! The state of a dry run.

use crate::dialects::Error;
use crate::routing::route::MatchedRoute;

/// What a dry run is about, and what it has itself.
#[derive(Debug)]
pub(super) struct DryRun {
    /// The dry run's own route and its path, if that had to be put into normal form.
    pub(super) own: (MatchedRoute, Vec<u8>),
    /// The query of the request that it is about.
    pub(super) query: String,
    /// Why that request would be refused whatever its body is.
    pub(super) refusal: Option<Error>,
}
