//! Counts a request for the usage ledger.
//!
//! Contract: docs/contract/access.md#13

use std::time::Duration;

use super::exchange::Exchange;
use super::quotas::Used;
use crate::clock::millis;
use crate::state::{Day, RowName, UsageFigures};

/// What is known of a request that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsageEnd {
    /// Milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// From arrival to last byte.
    pub(super) total: Duration,
    /// Its status is 500 or more, or the endpoint cut its response.
    pub(super) has_failed: bool,
    /// The tokens that it is charged with.
    pub(super) used: Used,
    /// Those of its prompt that came from a cache.
    pub(super) cached: u64,
}

impl Exchange {
    /// Counts the request, if an endpoint has seen it.
    pub(super) fn count_usage(&self, end: UsageEnd) {
        let Some(endpoint) = self.endpoint().filter(|_| self.times.dispatched.is_some()) else {
            return;
        };
        let name = RowName {
            day: Day::of_unix_ms(end.unix_ms.saturating_sub(millis(end.total))),
            key: self.key.as_ref().map_or("", |key| &*key.name),
            model: self.sent_model().unwrap_or(""),
            endpoint: endpoint.name(),
        };
        let figures = UsageFigures {
            requests: 1,
            errors: u64::from(end.has_failed),
            prompt_tokens: end.used.prompt,
            cached_tokens: end.cached,
            completion_tokens: end.used.completion,
            seconds: end.total.as_secs_f64(),
        };
        self.gateway.usage.borrow_mut().count(name, figures);
    }
}
