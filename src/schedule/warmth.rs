//! Whether a model is in an endpoint's memory.
//!
//! Contract: docs/contract/scheduling.md#3

use std::sync::atomic::{AtomicU64, Ordering};

/// While a pair refuses requests because it loads, one is tried in this time.
const TRY_EVERY_MS: u64 = 1000;

/// A pair that is said to load is believed for this time without a word of it: a server that died
/// while it loaded says nothing more.
const LOADING_MS_MAX: u64 = 10 * 60 * 1000;

/// The state of a model on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Warmth {
    /// Nothing was heard: taken for warm.
    #[default]
    Unknown,
    /// In memory.
    Warm,
    /// On its way there.
    Loading,
    /// Not in memory.
    Cold,
}

impl Warmth {
    /// Its name on pages and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Warm => "warm",
            Self::Loading => "loading",
            Self::Cold => "cold",
        }
    }

    /// Whether a request can begin at once.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Unknown | Self::Warm)
    }

    const fn bits(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Warm => 1,
            Self::Loading => 2,
            Self::Cold => 3,
        }
    }

    const fn of_bits(bits: u64) -> Self {
        match bits & 3 {
            1 => Self::Warm,
            2 => Self::Loading,
            3 => Self::Cold,
            _ => Self::Unknown,
        }
    }
}

/// What was last heard of it, by whom it may be: the newest word counts.
#[derive(Debug, Default)]
pub(super) struct WarmthRecord {
    /// Time of the word in milliseconds, times 4, plus the state.
    word: AtomicU64,
    /// When the loading that is in progress was first seen.
    loading_since_ms: AtomicU64,
    /// When a pair that refuses requests may be tried again; 0 = it refuses none.
    try_at_ms: AtomicU64,
}

impl WarmthRecord {
    pub(super) fn state(&self) -> Warmth {
        Warmth::of_bits(self.word.load(Ordering::Relaxed))
    }

    /// Takes a word that was true at a time. Returns the state before if it counts, `None` if a
    /// newer word is known.
    pub(super) fn hear(&self, state: Warmth, at_ms: u64) -> Option<Warmth> {
        let new = at_ms << 2 | state.bits();
        let heard = self
            .word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (old >> 2 <= at_ms).then_some(new)
            });
        let before = Warmth::of_bits(heard.ok()?);
        if state == Warmth::Loading {
            if before != Warmth::Loading {
                self.loading_since_ms.store(at_ms, Ordering::Relaxed);
            }
        } else {
            self.try_at_ms.store(0, Ordering::Relaxed);
        }
        Some(before)
    }

    /// A request was refused because the model is loading.
    pub(super) fn refused(&self, now_ms: u64) {
        self.try_at_ms.store(
            now_ms.saturating_add(TRY_EVERY_MS).max(1),
            Ordering::Relaxed,
        );
    }

    /// Whether a request may be sent. Of those that are held back one may in each second, and this
    /// call takes its place.
    pub(super) fn admits(&self, now_ms: u64) -> bool {
        let at = self.try_at_ms.load(Ordering::Relaxed);
        if at == 0 {
            return true;
        }
        let next = now_ms.saturating_add(TRY_EVERY_MS);
        at <= now_ms
            && self
                .try_at_ms
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// When the next request may be sent; `None` = now.
    pub(super) fn held_until_ms(&self) -> Option<u64> {
        match self.try_at_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    /// For how long requests have been refused because the model loads; `None` = they are not.
    pub(super) fn refused_for(&self, now_ms: u64) -> Option<u64> {
        let refuses = self.try_at_ms.load(Ordering::Relaxed) > 0;
        self.loading_for(now_ms).filter(|_| refuses)
    }

    /// For how long the model has been loading; `None` = it is not.
    pub(super) fn loading_for(&self, now_ms: u64) -> Option<u64> {
        let since = self.loading_since_ms.load(Ordering::Relaxed);
        (self.state() == Warmth::Loading).then(|| now_ms.saturating_sub(since))
    }

    /// What is left of a load that takes `expected_s` seconds, never less than a tenth of it.
    pub(super) fn load_left(&self, expected_s: f32, now_ms: u64) -> f32 {
        match self.state() {
            Warmth::Unknown | Warmth::Warm => 0.0,
            Warmth::Cold => expected_s,
            Warmth::Loading => {
                let since = self.loading_since_ms.load(Ordering::Relaxed);
                let ms = now_ms.saturating_sub(since);
                if ms > LOADING_MS_MAX {
                    return expected_s;
                }
                (expected_s - ms as f32 / 1000.0).max(expected_s / 10.0)
            }
        }
    }

    pub(super) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
        self.try_at_ms.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_counts() {
        let record = WarmthRecord::default();
        assert_eq!(record.state(), Warmth::Unknown);
        assert_eq!(record.hear(Warmth::Cold, 100), Some(Warmth::Unknown));
        assert_eq!(record.hear(Warmth::Warm, 90), None);
        assert_eq!(record.state(), Warmth::Cold);
        assert_eq!(record.hear(Warmth::Warm, 100), Some(Warmth::Cold));
        assert_eq!(record.state(), Warmth::Warm);
    }

    #[test]
    fn a_load_gets_shorter_and_never_ends_by_itself() {
        let record = WarmthRecord::default();
        record.hear(Warmth::Cold, 1_000);
        assert_eq!(record.load_left(10.0, 1_000), 10.0);
        record.hear(Warmth::Loading, 2_000);
        record.hear(Warmth::Loading, 4_000);
        let table = [(2_000, 10.0), (5_000, 7.0), (11_000, 1.0), (60_000, 1.0)];
        for (now, left) in table {
            assert_eq!(record.load_left(10.0, now), left, "{now}");
        }
        record.hear(Warmth::Warm, 70_000);
        assert_eq!(record.load_left(10.0, 70_000), 0.0);
    }

    #[test]
    fn while_a_pair_refuses_one_request_is_tried_in_a_second() {
        let record = WarmthRecord::default();
        assert!(record.admits(1));
        record.hear(Warmth::Loading, 10);
        record.refused(10);
        assert_eq!(record.held_until_ms(), Some(1_010));
        assert!(!record.admits(1_009));
        assert!(record.admits(1_010));
        assert!(!record.admits(1_010), "one only");
        record.hear(Warmth::Loading, 1_500);
        assert!(!record.admits(2_009) && record.admits(2_010));
        record.hear(Warmth::Warm, 2_100);
        assert!(record.admits(2_100) && record.held_until_ms().is_none());
    }
}
