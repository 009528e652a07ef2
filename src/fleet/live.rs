//! The counters of an endpoint that all cores share.
//!
//! Contract: docs/contract/balancing.md#7, docs/contract/balancing.md#10

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::cooling::Cooling;
use crate::config::DialectName;

/// A request notes the arrival of bytes no more often than this ([`Live::hear`]).
pub(crate) const HEARD_STEP: Duration = Duration::from_millis(100);

/// Counters of one endpoint that all cores share. All other counters belong to one core each.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    /// Requests from the pick until their end.
    in_flight: AtomicU32,
    /// How often a core could not reach the endpoint; wraps.
    lost: AtomicU32,
    /// How often a health check found the endpoint dead; wraps.
    deaths: AtomicU32,
    /// Consecutive failures of live traffic; the breaker's (docs/contract/balancing.md#10).
    pub(crate) failures: AtomicU32,
    /// Milliseconds on the process's clock until which the breaker is open; 0 = closed.
    pub(crate) open_until_ms: AtomicU64,
    /// Milliseconds at which the probe of the half-open breaker began; 0 = no probe is in flight.
    pub(crate) probe_since_ms: AtomicU64,
    /// For each dialect, milliseconds on the process's clock until which it counts as not speaking
    /// it, although its type does (docs/contract/dialects.md#1.2); 0 = it does.
    unspoken_until_ms: [AtomicU64; 4],
    /// Whether it turned out not to know what its type knows (docs/contract/translation.md#11).
    no_consultations: AtomicBool,
    /// Its models that are left alone for a while (docs/contract/balancing.md#9.1).
    pub(crate) cooling: Cooling,
    /// Milliseconds on the process's clock at which bytes of a response last arrived; 0 = never.
    heard_ms: AtomicU64,
    /// Failures of live traffic in a row, as the last error counts them.
    troubles: AtomicU32,
    /// Milliseconds on the process's clock at which the control thread was last told of one.
    told_ms: AtomicU64,
}

/// While live traffic fails, the control thread is told no more often than this.
const TOLD_STEP_MS: u64 = 1000;

impl Live {
    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more request if as many are in flight as the caller saw when it chose. False:
    /// another core was faster, choose again (docs/contract/balancing.md#7, picking and counting
    /// are one step).
    pub fn try_begin(&self, seen: u32) -> bool {
        self.in_flight
            .compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Counts one more request unconditionally.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The endpoint does not speak a dialect; this is remembered until the given time.
    pub fn refuse(&self, dialect: DialectName, until_ms: u64) {
        self.unspoken(dialect).store(until_ms, Ordering::Relaxed);
    }

    /// Whether the endpoint is known not to speak a dialect.
    pub fn refuses(&self, dialect: DialectName, now_ms: u64) -> bool {
        self.unspoken(dialect).load(Ordering::Relaxed) > now_ms
    }

    fn unspoken(&self, dialect: DialectName) -> &AtomicU64 {
        let [chat, responses, messages, ollama] = &self.unspoken_until_ms;
        match dialect {
            DialectName::OpenAiChat => chat,
            DialectName::OpenAiResponses => responses,
            DialectName::AnthropicMessages => messages,
            DialectName::OllamaNative => ollama,
        }
    }

    /// The endpoint does not know the path by which it would be consulted.
    pub fn refuse_consultations(&self) {
        self.no_consultations.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::refuse_consultations`] was called since its models were last listed.
    pub fn refuses_consultations(&self) -> bool {
        self.no_consultations.load(Ordering::Relaxed)
    }

    /// Forgets [`Self::refuse`] and [`Self::refuse_consultations`]: after another listing it
    /// may be another server.
    pub fn forget_refusals(&self) {
        for until_ms in &self.unspoken_until_ms {
            until_ms.store(0, Ordering::Relaxed);
        }
        self.no_consultations.store(false, Ordering::Relaxed);
    }

    /// Bytes of a response have arrived.
    pub fn hear(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When bytes of a response last arrived, to [`HEARD_STEP`]; `None` = never.
    pub fn heard_ms(&self) -> Option<u64> {
        match self.heard_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    /// Live traffic has failed. Returns whether to tell the control thread: of the first failure of
    /// a row, and of one in a second.
    pub fn trouble(&self, now_ms: u64) -> bool {
        let is_first = self.troubles.fetch_add(1, Ordering::Relaxed) == 0;
        let told = self.told_ms.load(Ordering::Relaxed);
        let is_due = is_first || now_ms.saturating_sub(told) >= TOLD_STEP_MS;
        if is_due {
            self.told_ms.store(now_ms, Ordering::Relaxed);
        }
        is_due
    }

    /// Live traffic has succeeded. Costs a load while there was no failure.
    pub fn no_trouble(&self) {
        if self.troubles.load(Ordering::Relaxed) != 0 {
            self.troubles.store(0, Ordering::Relaxed);
        }
    }

    /// Failures of live traffic in a row.
    pub fn troubles(&self) -> u32 {
        self.troubles.load(Ordering::Relaxed)
    }

    /// A core could not reach the endpoint: no core picks it until the control thread has taken
    /// note.
    pub fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Release);
    }

    /// The number of calls of [`Self::lose`]; wraps.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Acquire)
    }

    /// A health check found the endpoint dead: requests that wait for it leave it
    /// (docs/contract/balancing.md#9.2).
    pub fn die(&self) {
        self.deaths.fetch_add(1, Ordering::Release);
    }

    /// The number of calls of [`Self::die`]; wraps.
    pub fn deaths(&self) -> u32 {
        self.deaths.load(Ordering::Acquire)
    }

    /// Ends a request that [`Self::begin`] or [`Self::try_begin`] counted.
    pub fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more ended than began");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_and_its_count_are_one_step() {
        let live = Live::default();
        let seen = live.in_flight();
        assert!(live.try_begin(seen));
        assert!(!live.try_begin(seen), "another core was faster");
        live.begin();
        live.end();
        assert_eq!(live.in_flight(), 1);
    }
}
