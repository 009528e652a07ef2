//! `[proxy.least_time]`, `[queue]` and what an endpoint has of scheduling: plans, and the
//! declarations of their keys.
//!
//! Contract: docs/contract/scheduling.md#1 to docs/contract/scheduling.md#7

use std::num::NonZeroUsize;
use std::time::Duration;

use super::bounds::{MIB, secs};
use super::endpoint::EndpointPlan;
use super::section::Section;

/// The most that a prefix cache may be said to hold: more than that of any machine, and little
/// enough that sums of it never overflow.
const CACHE_TOKENS_MAX: i128 = 1_000_000_000;

/// Maximum of `proxy.least_time.prefix_table`.
const PREFIX_TABLE_MAX: u64 = 1024 * MIB;

/// The shortest interval at which an endpoint is asked for its state.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Maximum of the numbers of requests that may wait.
const WAITING_MAX: i128 = 1_000_000;

/// `[proxy.least_time]`: the balancer `least-time`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastTimePlan {
    /// W, the weight of the output in the prediction: 0 to 1.
    pub decode_weight: f64,
    /// R, by how much a request whose first byte is out slows another one down: 0 to 1.
    pub running_weight: f64,
    /// Tokens that an endpoint's prefix cache is believed to hold at first, unless the endpoint has
    /// a value of its own; at least 1. It may be below the 4,000 that learning does not go below.
    pub cache_tokens: u32,
    /// Size in bytes of the table of placements, that of the start; `None` = no placements.
    pub prefix_table: Option<NonZeroUsize>,
    /// Whether the prompts of all client keys share their placements.
    pub share_prefixes: bool,
    /// Interval at which endpoints are asked which models are in memory; `None` = never.
    pub warmth_interval: Option<Duration>,
    /// Interval at which the metrics of endpoints are read; `None` = never.
    pub load_interval: Option<Duration>,
    /// How much later than the best endpoint a session's own one may be; zero = not at all.
    pub sticky_slack: Duration,
}

/// `[queue]`: the admission queue (docs/contract/scheduling.md#5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlan {
    /// If false, no request waits: each is sent at once.
    pub enabled: bool,
    /// The most requests that wait in the process; 0 = none may wait.
    pub max_waiting: usize,
    /// The most requests that wait of one flow; 0 = none may wait.
    pub max_waiting_per_flow: usize,
    /// How long a request may wait, unless its policy says so; `None` = without bound.
    pub max_wait: Option<Duration>,
    /// The time after which a waiting request gains one step of priority; `None` = never.
    pub aging: Option<Duration>,
}

/// The keys of an endpoint for scheduling; 0 = not set.
pub(super) struct EndpointScheduling {
    pub(super) context_length: u32,
    pub(super) max_concurrent: u32,
    pub(super) cache_tokens: u32,
}

/// Reads `[proxy.least_time]`.
pub(super) fn least_time(s: &mut Section<'_, '_>) -> LeastTimePlan {
    let decode_weight = s
        .key(
            "decode_weight",
            "How much the expected time of a request's output counts.",
        )
        .fraction(0.1);
    let running_weight = s
        .key(
            "running_weight",
            "By how much each response in progress slows an endpoint down.",
        )
        .fraction(0.2);
    let cache_tokens = s
        .key(
            "cache_tokens",
            "Tokens that an endpoint's prefix cache holds, until responses tell.",
        )
        .int(400_000, 1, CACHE_TOKENS_MAX);
    let prefix_table = s
        .key(
            "prefix_table",
            "Size of the table of prefixes and their endpoints; 0 keeps none.",
        )
        .restart()
        .size(16 * MIB, Some(PREFIX_TABLE_MAX));
    LeastTimePlan {
        decode_weight,
        running_weight,
        cache_tokens,
        prefix_table: usize::try_from(prefix_table)
            .ok()
            .and_then(NonZeroUsize::new),
        share_prefixes: s
            .key(
                "share_prefixes",
                "Whether prefixes are known across client keys; false keeps them apart.",
            )
            .bool(true),
        warmth_interval: s
            .key(
                "warmth_interval",
                "Interval of asking endpoints which models are in memory; 0 = never.",
            )
            .interval_or_none(secs(5), INTERVAL_MIN),
        load_interval: s
            .key(
                "load_interval",
                "Interval of reading the metrics of busy endpoints; 0 = never.",
            )
            .interval_or_none(secs(1), INTERVAL_MIN),
        sticky_slack: s
            .key(
                "sticky_slack",
                "A session moves to an endpoint that is this much sooner.",
            )
            .duration(secs(2)),
    }
}

/// Reads `[queue]`.
pub(super) fn queue(s: &mut Section<'_, '_>) -> QueuePlan {
    QueuePlan {
        enabled: s
            .key(
                "enabled",
                "Requests wait for a free endpoint here; false sends each at once.",
            )
            .env("OLLA_QUEUE_ENABLED")
            .bool(true),
        max_waiting: s
            .key(
                "max_waiting",
                "Maximum number of waiting requests; 0 lets none wait.",
            )
            .int(1_000, 0, WAITING_MAX),
        max_waiting_per_flow: s
            .key(
                "max_waiting_per_flow",
                "The same for one client key or, without keys, one client address.",
            )
            .int(200, 0, WAITING_MAX),
        max_wait: s
            .key(
                "max_wait",
                "How long a request may wait, unless its policy says; 0 = no limit.",
            )
            .env("OLLA_QUEUE_MAX_WAIT")
            .duration_or_none(secs(120)),
        aging: s
            .key(
                "aging",
                "Each such wait raises a request's priority by one; 0 = never.",
            )
            .duration_or_none(secs(10)),
    }
}

/// Reads the keys of an endpoint.
pub(super) fn endpoint_scheduling(s: &mut Section<'_, '_>) -> EndpointScheduling {
    EndpointScheduling {
        context_length: s
            .key(
                "context_length",
                "Context in tokens that it serves, over what it reports; 0 = as reported.",
            )
            .int(0, 0, u32::MAX.into()),
        max_concurrent: s
            .key(
                "max_concurrent",
                "Requests that it is sent at one time, others wait; 0 = as it reports.",
            )
            .int(0, 0, EndpointPlan::SLOTS_MAX.into()),
        cache_tokens: s
            .key(
                "cache_tokens",
                "Tokens that its prefix cache holds; 0 = proxy.least_time.cache_tokens.",
            )
            .int(0, 0, CACHE_TOKENS_MAX),
    }
}
