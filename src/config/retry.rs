//! `[proxy.retry]`: when another endpoint is tried.
//!
//! Contract: docs/contract/balancing.md#9

use std::num::NonZeroUsize;
use std::time::Duration;

use super::bounds::{U32_MAX, secs};
use super::section::Section;
use super::statuses::StatusSet;

/// `[proxy.retry]` (docs/contract/balancing.md#9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPlan {
    /// If false, a request has one attempt.
    pub enabled: bool,
    /// If false, a request has one attempt.
    pub on_connection_failure: bool,
    /// Maximum number of endpoints for one request, the first included; `None` = all candidates.
    pub max_attempts: Option<NonZeroUsize>,
    /// Statuses of responses that are given up for another endpoint.
    pub on_status: StatusSet,
    /// How long an endpoint with such a response is left alone if it does not say.
    pub cooldown: Duration,
    /// Requests that may be repeated for a status, per cent of those of the last ten seconds.
    pub budget_percent: u8,
}

impl RetryPlan {
    /// Maximum number of endpoints for a request with this number of candidates.
    pub fn attempts_max(&self, candidates: usize) -> usize {
        if !self.enabled || !self.on_connection_failure {
            return candidates.min(1);
        }
        self.max_attempts
            .map_or(candidates, |max| candidates.min(max.get()))
    }
}

/// Reads the table.
pub(super) fn retry(s: &mut Section<'_, '_>) -> RetryPlan {
    RetryPlan {
        enabled: s
            .key(
                "enabled",
                "Try another endpoint when one cannot be reached.",
            )
            .bool(true),
        on_connection_failure: s
            .key(
                "on_connection_failure",
                "Retry after a failed connection or a status; false is one attempt.",
            )
            .bool(true),
        max_attempts: NonZeroUsize::new(
            s.key(
                "max_attempts",
                "Endpoints tried for one request, the first included; 0 tries all.",
            )
            .int(0, 0, U32_MAX),
        ),
        on_status: s
            .key(
                "on_status",
                "Statuses that another endpoint is tried for; an empty list disables it.",
            )
            .statuses(&[429, 502, 503, 504, 529]),
        cooldown: s
            .key(
                "cooldown",
                "How long such an endpoint is left alone without Retry-After; 0 disables it.",
            )
            .duration(secs(5)),
        budget_percent: s
            .key(
                "budget",
                "Per cent of requests that may be repeated for a status, besides 10 in 10 s.",
            )
            .int(20, 0, 100),
    }
}
