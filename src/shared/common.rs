//! The values that the cores and the control thread share besides snapshots and messages.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use olla_engine::core::HeldBytes;
use olla_engine::limit::{Epoch, Nanos};

use super::dropped::DroppedReports;
use super::starts::Starts;
use super::state::StateGauges;
use crate::access::{AccessKeeper, KeySeries, LimitCounts, RefusedKeys, Sessions};
use crate::clock::millis;
use crate::config::Plan;
use crate::dialects::anthropic::Records;
use crate::dialects::responses::{ResponseStore, StoreBounds};
use crate::format;
use crate::log::Logger;
use crate::routing::balance::Turns;
use crate::routing::retry::budget::RetryBudget;
use crate::routing::sticky::Sticky;
use crate::schedule::scheduler::Scheduler;

/// So long before the process ends, requests that wait for a slot are refused, so that their clients
/// learn why.
const REFUSED_BEFORE_END: Duration = Duration::from_millis(500);

/// Shared values of the process; one for all cores.
#[derive(Debug)]
pub(crate) struct Common {
    /// The start of the process.
    pub start: Instant,
    /// The start of the process as the Messages API shows it.
    pub started_rfc3339: String,
    /// The turns of the balancers.
    pub turns: Turns,
    /// Keys, policies and their counters.
    pub access: AccessKeeper,
    /// How often addresses have sent credentials that were refused.
    pub refused_keys: RefusedKeys,
    /// What metrics show of single keys.
    pub key_series: KeySeries,
    /// The refusals by limits of keys.
    pub limited: LimitCounts,
    /// How often a response reported a usage that cannot be one.
    pub usage_rejected: AtomicU64,
    /// How often a page of metrics of an endpoint was given up (docs/contract/scheduling.md#4).
    pub pages_given_up: AtomicU64,
    /// How the state store is.
    pub state: StateGauges,
    /// Sessions of the dashboard.
    pub sessions: Sessions,
    /// Sticky sessions.
    pub sticky: Sticky,
    /// Responses that are kept.
    pub responses: Arc<ResponseStore>,
    /// The log.
    pub logger: Logger,
    /// The files of the inspector.
    pub records: Records,
    /// Number of connect failures. With one load, a core knows whether it has to look for endpoints
    /// that another core could not reach.
    pub losses: AtomicU64,
    /// When a limit that refuses was logged last, in milliseconds of the process's clock; 0 = never.
    pub limit_warned_ms: AtomicU64,
    /// When dropped request fields were logged last.
    pub dropped: DroppedReports,
    /// No cool-down of any endpoint ends later than this time of the process's clock; a hint that
    /// spares requests the look at each candidate (docs/contract/balancing.md#9.1).
    pub cools_until_ms: AtomicU64,
    /// The budget of repeats for a status.
    pub retry_budget: RetryBudget,
    /// How often a health check found any endpoint dead.
    pub deaths: AtomicU64,
    /// What the cores hold of requests.
    pub held_bytes: HeldBytes,
    /// Whether the process is shutting down.
    pub draining: AtomicBool,
    /// When requests that still wait are refused because the process ends, in milliseconds of the
    /// process's clock; 0 = it does not end.
    pub refuse_waiting_ms: AtomicU64,
    /// Where and when requests start.
    pub scheduler: Scheduler,
    /// The requests that may start.
    pub starts: Starts,
}

impl Common {
    /// The values at the start of the process.
    pub(crate) fn new(start: Instant, logger: &Logger, plan: &Plan) -> Self {
        Self {
            start,
            started_rfc3339: format::instant(SystemTime::now()),
            turns: Turns::default(),
            access: AccessKeeper::new(&plan.access),
            refused_keys: RefusedKeys::default(),
            key_series: KeySeries::default(),
            limited: LimitCounts::default(),
            usage_rejected: AtomicU64::new(0),
            pages_given_up: AtomicU64::new(0),
            state: StateGauges::default(),
            sessions: Sessions::default(),
            sticky: Sticky::default(),
            responses: Arc::new(ResponseStore::new(StoreBounds::of(&plan.responses))),
            logger: logger.clone(),
            records: Records::new(logger.clone()),
            losses: AtomicU64::new(0),
            limit_warned_ms: AtomicU64::new(0),
            dropped: DroppedReports::default(),
            cools_until_ms: AtomicU64::new(0),
            retry_budget: RetryBudget::default(),
            deaths: AtomicU64::new(0),
            held_bytes: HeldBytes::default(),
            draining: AtomicBool::new(false),
            refuse_waiting_ms: AtomicU64::new(0),
            scheduler: Scheduler::new(
                plan.proxy
                    .least_time
                    .prefix_table
                    .map_or(0, NonZeroUsize::get),
                secret(),
            ),
            starts: Starts::default(),
        }
    }

    /// The time of the process's clock, for rate limits.
    pub(crate) fn nanos(&self, now: Instant) -> Nanos {
        Epoch::new(self.start).nanos(now)
    }

    /// Milliseconds of the process's clock, for breakers and sessions.
    pub(crate) fn clock_ms(&self, now: Instant) -> u64 {
        // 0 means never, so the clock starts at 1.
        millis(now.saturating_duration_since(self.start)).saturating_add(1)
    }

    /// Requests that still wait for a slot shortly before this time are refused: the process ends.
    pub(crate) fn refuse_waiting_at(&self, end: Instant) {
        let last = self
            .clock_ms(end)
            .saturating_sub(millis(REFUSED_BEFORE_END));
        self.refuse_waiting_ms.store(last.max(1), Ordering::Relaxed);
    }

    /// The time that [`Self::clock_ms`] gave as milliseconds.
    pub(crate) fn time_of(&self, clock_ms: u64) -> Instant {
        self.start + Duration::from_millis(clock_ms.saturating_sub(1))
    }
}

/// A number that nobody can guess.
fn secret() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => fastrand::u64(..),
    }
}
