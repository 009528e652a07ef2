//! How far a request has come: the times of its steps, and the endpoint that it is leaving.

use std::time::{Duration, Instant};

use crate::operations::stats::LeftBecause;

/// An endpoint that the request is leaving.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// Its index.
    pub(super) index: usize,
    pub(super) because: LeftBecause,
    /// The status that was given up, and the cool-down that it began.
    pub(super) status: Option<(u16, Duration)>,
}

/// The times of a request's steps; `None` = not yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestTimes {
    /// The request head was complete.
    pub(super) headed: Option<Instant>,
    /// The request was complete.
    pub(super) routed: Option<Instant>,
    /// The last attempt began.
    pub(super) dispatched: Option<Instant>,
    /// A response head had arrived.
    pub(super) responded: Option<Instant>,
}
