//! Why an endpoint is not used, as the status pages show it: its last error and its breaker.
//!
//! Contract: docs/contract/observe.md#1

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Inputs;
use crate::fleet::breaker::shown;
use crate::fleet::{Endpoint, LastError};
use crate::format::instant;

#[derive(Serialize)]
pub(super) struct LastErrorItem {
    kind: &'static str,
    message: String,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    at: String,
    since: String,
    count: u32,
}

impl LastErrorItem {
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.last_error().map(Self::from)
    }
}

impl From<LastError> for LastErrorItem {
    fn from(last: LastError) -> Self {
        Self {
            kind: last.failure.kind.as_str(),
            message: last.failure.message,
            url: last.failure.url,
            status: last.failure.status,
            at: instant(last.at),
            since: instant(last.since),
            count: last.count,
        }
    }
}

#[derive(Serialize)]
pub(super) struct BreakerItem {
    state: &'static str,
    opened_at: Option<String>,
    retry_at: Option<String>,
}

impl BreakerItem {
    pub(super) fn of(endpoint: &Endpoint, inputs: &Inputs<'_>) -> Self {
        let shown = shown(&endpoint.live, inputs.clock_ms);
        let wall = |ms| instant(wall(inputs, ms));
        Self {
            state: shown.state.as_str(),
            opened_at: shown.open_ms.map(|(opened, _)| wall(opened)),
            retry_at: shown.open_ms.map(|(_, retry)| wall(retry)),
        }
    }
}

/// A time of the process's clock on the system's clock.
fn wall(inputs: &Inputs<'_>, ms: u64) -> SystemTime {
    let (now, now_ms) = (inputs.now, inputs.clock_ms);
    let past = Duration::from_millis(now_ms.saturating_sub(ms));
    let ahead = Duration::from_millis(ms.saturating_sub(now_ms));
    now.checked_sub(past).unwrap_or(now) + ahead
}
