//! What becomes of a request for which an endpoint was picked.

use std::time::Instant;

use olla_engine::handler::Target;

/// The outcome of a pick.
pub(super) enum Picked {
    /// The request goes to an endpoint.
    Upstream(Target),
    /// The request waits for a slot, and is looked at again at this time at the latest.
    Wait(Instant),
    /// The request is being prepared elsewhere.
    Later,
    /// No endpoint gets the request: this JSON document is the response.
    Response(Vec<u8>),
}

/// A translated stream begins with what its dialect makes of the request, also while it waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Begun {
    /// The request has not been translated yet.
    #[default]
    No,
    /// It was given away for that.
    Away,
    /// It was translated.
    Yes,
}
