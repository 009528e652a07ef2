//! What becomes of a request for which an endpoint was picked.

use olla_engine::handler::Target;

/// The outcome of a pick.
pub(super) enum Picked {
    /// The request goes to an endpoint.
    Upstream(Target),
    /// The request is being prepared elsewhere.
    Later,
    /// No endpoint gets the request: this JSON document is the response.
    Response(Vec<u8>),
}
