//! How endpoints are watched and listed, and the system is judged: plans, and keys of most of them.
//!
//! Contract: docs/contract/observe.md#1, docs/contract/observe.md#2

use std::time::Duration;

use super::bounds::secs;
use super::section::Section;

/// `[dns]` (docs/contract/observe.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsPlan {
    /// How long a name that stops resolving keeps its last addresses.
    pub stale: Duration,
}

/// `[status]` (docs/contract/observe.md#2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusPlan {
    /// The time whose requests decide the status of the system, 1 s to 1 h.
    pub window: Duration,
}

/// `[discovery.health_check]` (docs/contract/observe.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheckPlan {
    /// Failed checks in a row that take a routable endpoint out, at least 1.
    pub fall: u32,
    /// Good checks in a row that bring it back, at least 1.
    pub rise: u32,
}

/// `[discovery.model_discovery]` (docs/contract/catalogue.md#3.1). The three bounds are above zero
/// when discovery is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDiscoveryPlan {
    /// If false, models are not listed.
    pub enabled: bool,
    /// Interval between two listings.
    pub interval: Duration,
    /// Time limit for each attempt at an endpoint.
    pub timeout: Duration,
    /// Maximum number of listings at once.
    pub concurrent_workers: usize,
    /// Number of further attempts after a failed one.
    pub retry_attempts: u32,
    /// Pause before a further attempt.
    pub retry_backoff: Duration,
}

pub(super) fn dns(s: &mut Section<'_, '_>) -> DnsPlan {
    let doc = "How long a name that stops resolving keeps its last addresses.";
    DnsPlan {
        stale: s.key("stale", doc).duration(secs(300)),
    }
}

pub(super) fn status(s: &mut Section<'_, '_>) -> StatusPlan {
    let (least, most) = (secs(1), secs(3600));
    let doc = "How far back requests decide the system's status: 1s to 1h.";
    let window = s.key("window", doc).duration(secs(300));
    if !(least..=most).contains(&window) && !s.is_faulty("window") {
        s.expected("window", "\"1s\" to \"1h\"");
    }
    StatusPlan {
        window: window.clamp(least, most),
    }
}

pub(super) fn health_check(s: &mut Section<'_, '_>) -> HealthCheckPlan {
    s.key("initial_delay", "Health checks begin at start.")
        .inert()
        .duration(secs(1));
    HealthCheckPlan {
        fall: s
            .key(
                "fall",
                "Failed checks that take an endpoint out; a refused connection does so at once.",
            )
            .int(2, 1, 10),
        rise: s
            .key("rise", "Good checks in a row that bring an endpoint back.")
            .int(1, 1, 10),
    }
}
