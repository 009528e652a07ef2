//! The load of one endpoint, as all cores share it: who holds a slot, what was sent and has no first
//! byte yet, and how fast the endpoint is.
//!
//! Contract: docs/contract/scheduling.md#1, docs/contract/scheduling.md#4

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::estimate::FadingMean;
use super::models::ModelKey;
use super::pair::{CLOCK_LEAP, Pair, PairRef, Pairs};
use super::warmth::Warmth;

/// The most slots that an endpoint is believed to have, whatever it says
/// (docs/contract/scheduling.md#11).
pub(crate) const SLOTS_MAX: u32 = 65_536;

/// Requests of other clients that were counted this many intervals ago are forgotten.
const READING_INTERVALS: u64 = 3;

/// Endpoints that placements can tell apart.
pub(crate) const NUMBERS_MAX: u16 = 4096;

/// The load of one endpoint. It stays across reloads as long as the endpoint's name and URL do.
#[derive(Debug)]
pub struct EndpointLoad {
    number: u16,
    /// Requests of this gateway that hold a slot.
    running: AtomicU32,
    /// `max_concurrent`; 0 = not set.
    configured: AtomicU32,
    /// What the endpoint says; 0 = nothing.
    reported: AtomicU32,
    /// What its saturation has shown; 0 = nothing.
    learned: AtomicU32,
    /// Requests of other clients, and when they were counted.
    others: AtomicU32,
    others_until_ms: AtomicU64,
    /// Prompt tokens of requests without a first byte, cached ones not counted.
    pending: AtomicU64,
    /// `cache_tokens`.
    cache_tokens: AtomicU32,
    pub(super) prefill: FadingMean,
    pub(super) step: FadingMean,
    pub(super) load: FadingMean,
    /// Seconds from dispatch to the end of a request.
    pub(super) service: FadingMean,
    /// The model that it began to load last, as long as it loads; 0 = none.
    loading: AtomicU64,
    /// It was seen to load a model, or to have one that is not loaded: those of which nothing was
    /// heard are not in its memory.
    loads_on_demand: AtomicBool,
    /// Models that its memory holds, as its refusals have shown; 0 = unknown.
    memory: AtomicU32,
    /// When a request was last sent to it; 0 = never.
    used_ms: AtomicU64,
    pairs: Pairs,
}

impl EndpointLoad {
    /// The load of an endpoint with a number below [`NUMBERS_MAX`] that no other endpoint has.
    /// `generation` counts the endpoints that had the number before.
    pub fn new(number: u16, generation: u32) -> Self {
        Self {
            number,
            running: AtomicU32::new(0),
            configured: AtomicU32::new(0),
            reported: AtomicU32::new(0),
            learned: AtomicU32::new(0),
            others: AtomicU32::new(0),
            others_until_ms: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            cache_tokens: AtomicU32::new(400_000),
            prefill: FadingMean::default(),
            step: FadingMean::default(),
            load: FadingMean::default(),
            service: FadingMean::default(),
            loading: AtomicU64::new(0),
            loads_on_demand: AtomicBool::new(false),
            memory: AtomicU32::new(0),
            used_ms: AtomicU64::new(0),
            pairs: Pairs::new(u64::from(generation).wrapping_mul(CLOCK_LEAP)),
        }
    }

    /// Its number in placements.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Takes `max_concurrent` (0 = not set) and `cache_tokens` of the configuration over.
    pub fn configure(&self, max_concurrent: u32, cache_tokens: u32) {
        self.configured
            .store(max_concurrent.min(SLOTS_MAX), Ordering::Relaxed);
        self.cache_tokens.store(cache_tokens, Ordering::Relaxed);
    }

    /// Takes the slots over that the endpoint says to have; `None` = it says nothing.
    pub fn report_slots(&self, slots: Option<u64>) {
        let slots = slots.map_or(0, |slots| {
            u32::try_from(slots)
                .unwrap_or(SLOTS_MAX)
                .clamp(1, SLOTS_MAX)
        });
        self.reported.store(slots, Ordering::Relaxed);
    }

    /// Takes a reading of the endpoint's own counts over: all requests that it runs, and those that
    /// wait in it. Until the readings stop coming, requests of other clients count as running.
    /// `own` is this gateway's part. Returns whether there are more slots than before.
    pub fn read(
        &self,
        (running, waiting, own): (u32, u32, u32),
        now_ms: u64,
        interval_ms: u64,
    ) -> bool {
        let others = running.saturating_add(waiting).saturating_sub(own);
        self.others.store(others.min(SLOTS_MAX), Ordering::Relaxed);
        let until_ms = now_ms.saturating_add(READING_INTERVALS * interval_ms);
        self.others_until_ms.store(until_ms, Ordering::Relaxed);
        if self.fixed_slots().is_some() {
            return false;
        }
        let learned = self.learned.load(Ordering::Relaxed);
        if waiting > 0 {
            self.learned
                .store(running.clamp(1, SLOTS_MAX), Ordering::Relaxed);
            return false;
        }
        let is_full = learned > 0 && self.running() >= learned;
        if is_full {
            self.learned
                .store((learned + 1).min(SLOTS_MAX), Ordering::Relaxed);
        }
        is_full
    }

    /// The slots that are never learned.
    fn fixed_slots(&self) -> Option<u32> {
        let known = |slots: &AtomicU32| match slots.load(Ordering::Relaxed) {
            0 => None,
            slots => Some(slots),
        };
        known(&self.configured).or_else(|| known(&self.reported))
    }

    /// How many requests it can work on at a time; `None` = without limit.
    pub fn slots(&self) -> Option<u32> {
        self.fixed_slots()
            .or_else(|| match self.learned.load(Ordering::Relaxed) {
                0 => None,
                learned => Some(learned),
            })
    }

    /// Requests of this gateway that hold a slot.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::SeqCst)
    }

    /// All requests that are known to be there, those of other clients too.
    pub fn running_with_others(&self, now_ms: u64) -> u32 {
        let own = self.running();
        if self.others_until_ms.load(Ordering::Relaxed) < now_ms {
            return own;
        }
        own.saturating_add(self.others.load(Ordering::Relaxed))
    }

    /// Whether a request could begin.
    pub fn has_free_slot(&self) -> bool {
        self.slots().is_none_or(|slots| self.running() < slots)
    }

    /// Takes a slot; false if there is none.
    pub fn try_start(&self) -> bool {
        let Some(slots) = self.slots() else {
            self.start();
            return true;
        };
        let more = |running| (running < slots).then_some(running + 1);
        self.running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    /// Takes a slot, whether there is one or not.
    pub fn start(&self) {
        self.running.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives a slot back.
    pub fn end(&self) {
        let before = self.running.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "more ended than began");
    }

    /// Prompt tokens that were sent and have no first byte yet.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Counts tokens of a prompt that is sent. Returns those that were pending before.
    pub fn add_pending(&self, tokens: u64) -> u64 {
        self.pending.fetch_add(tokens, Ordering::Relaxed)
    }

    /// The prompt has its first byte, or never will.
    pub fn take_pending(&self, tokens: u64) {
        let before = self.pending.fetch_sub(tokens, Ordering::Relaxed);
        debug_assert!(before >= tokens, "more left than was sent");
    }

    /// Notes that a request is sent to it.
    pub fn used(&self, now_ms: u64) {
        if self.used_ms.load(Ordering::Relaxed) != now_ms {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When a request was last sent to it; `None` = never.
    pub fn used_ms(&self) -> Option<u64> {
        match self.used_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }

    /// Tokens of its prefix cache that the configuration assumes.
    pub fn cache_tokens(&self) -> u32 {
        self.cache_tokens.load(Ordering::Relaxed)
    }

    /// Its models.
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// The state of a model that was requested here lately.
    pub fn pair(&self, key: ModelKey) -> Option<&Pair> {
        self.pairs.find(key)
    }

    /// Takes over what was heard of a model's warmth at a time. A model that has left the memory has
    /// lost its cache too. Returns whether requests may wait for the news.
    pub fn hear_warmth(&self, key: ModelKey, state: Warmth, at_ms: u64) -> bool {
        let place = self.pairs.place(key, at_ms);
        let Some(pair) = self.pairs.at(place) else {
            return false;
        };
        if state == Warmth::Cold && pair.is_expected(at_ms) {
            // Lists have a model when its load is over, some of them.
            return false;
        }
        let Some(before) = pair.warmth.hear(state, at_ms) else {
            return false;
        };
        let (was_ready, is_ready) = (before.is_ready(), state.is_ready());
        if !is_ready {
            self.note_on_demand();
        }
        if state == Warmth::Loading {
            self.loading.store(key.get(), Ordering::Relaxed);
        } else if self.loading.load(Ordering::Relaxed) == key.get() {
            self.loading.store(0, Ordering::Relaxed);
        }
        if state == Warmth::Loading && before != Warmth::Loading {
            pair.count_load();
        }
        if before == Warmth::Warm && state == Warmth::Cold {
            pair.lose_cache();
        }
        if matches!(state, Warmth::Warm | Warmth::Loading) {
            self.evict(place, at_ms);
        }
        was_ready != is_ready
    }

    /// Models are loaded when they are requested: it has some that are not in its memory.
    pub fn note_on_demand(&self) {
        if !self.loads_on_demand.load(Ordering::Relaxed) {
            self.loads_on_demand.store(true, Ordering::Relaxed);
        }
    }

    /// Where a model is: one of which nothing was heard is in the memory, unless the endpoint is
    /// known to load models when they are requested.
    pub fn warmth(&self, key: ModelKey) -> Warmth {
        match self.pairs.find(key).map_or(Warmth::Unknown, Pair::warmth) {
            Warmth::Unknown => self.warmth_of_unknown(),
            known => known,
        }
    }

    /// The same of one of which nothing was heard.
    pub(super) fn warmth_of_unknown(&self) -> Warmth {
        if self.loads_on_demand.load(Ordering::Relaxed) {
            Warmth::Cold
        } else {
            Warmth::Unknown
        }
    }

    /// Whether a request for a model must not be sent now. While the endpoint refuses requests because
    /// it loads a model, one for that model may be tried in a second, and this call takes its place;
    /// one that would begin another load waits for the first: two would push each other out.
    pub(super) fn holds_back(&self, key: ModelKey, now_ms: u64) -> bool {
        let pair = self.pairs.find(key);
        if self.warmth(key) == Warmth::Cold && self.is_busy_loading(pair, now_ms) {
            return true;
        }
        pair.is_some_and(|pair| !pair.warmth.admits(now_ms))
    }

    /// Whether it would hold such a request back.
    pub fn would_hold_back(&self, key: ModelKey, now_ms: u64) -> bool {
        let pair = self.pairs.find(key);
        let waits = |pair: &Pair| pair.held_until_ms().is_some_and(|at| at > now_ms);
        pair.is_some_and(waits)
            || (self.warmth(key) == Warmth::Cold && self.is_busy_loading(pair, now_ms))
    }

    fn is_busy_loading(&self, pair: Option<&Pair>, now_ms: u64) -> bool {
        self.loads_before(pair)
            .is_some_and(|other| other.is_held() && other.is_expected(now_ms))
    }

    /// A model has come into the memory: if that is known to hold no more, the one that was used
    /// longest ago has left it.
    fn evict(&self, newest: PairRef, now_ms: u64) {
        let memory = self.memory.load(Ordering::Relaxed);
        if memory == 0 {
            return;
        }
        let is_in = |pair: &Pair| matches!(pair.warmth(), Warmth::Warm | Warmth::Loading);
        let mut inside: Vec<&Pair> = self.pairs.all().map(|(_, pair)| pair).collect();
        inside.retain(|pair| is_in(pair));
        inside.sort_unstable_by_key(|pair| pair.used_ms());
        let mut over = inside.len().saturating_sub(memory as usize);
        let kept = self.pairs.at(newest);
        for pair in inside {
            let is_newest = kept.is_some_and(|kept| std::ptr::eq(kept, pair));
            if over == 0 || is_newest || pair.warmth() != Warmth::Warm {
                continue;
            }
            if pair.warmth.hear(Warmth::Cold, now_ms).is_some() {
                pair.lose_cache();
            }
            over -= 1;
        }
    }

    /// A model that was believed to be elsewhere responded as if it were in the memory.
    pub(super) fn was_in_memory(&self) {
        let more = |memory: u32| (memory > 0).then(|| memory.saturating_add(1));
        let _ = self
            .memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The model that it loads, if it is another one: servers load one after another.
    pub(super) fn loads_before<'l>(&'l self, pair: Option<&Pair>) -> Option<&'l Pair> {
        match self.loading.load(Ordering::Relaxed) {
            0 => None,
            key => self.pairs.by_number(key),
        }
        .filter(|other| !pair.is_some_and(|pair| std::ptr::eq(*other, pair)))
    }

    /// A request was refused because the model is loading.
    pub fn refused_loading(&self, key: ModelKey, now_ms: u64) {
        let known = self.pairs.find(key).map(Pair::warmth);
        if known == Some(Warmth::Warm) {
            // It had left the memory, which therefore holds fewer than were believed to be there.
            let all = self.pairs.all();
            let warm = all.filter(|(_, pair)| pair.warmth() == Warmth::Warm);
            let fewer = u32::try_from(warm.count()).unwrap_or(1).saturating_sub(1);
            self.memory.store(fewer.max(1), Ordering::Relaxed);
        }
        self.hear_warmth(key, Warmth::Loading, now_ms);
        if let Some(pair) = self.pairs.find(key) {
            pair.warmth.refused(now_ms);
        }
    }

    /// A check saw the endpoint down: its caches are empty.
    pub fn restarted(&self) {
        for (_, pair) in self.pairs.all() {
            pair.lose_cache();
        }
    }

    /// The endpoint came back with other models: it may be another machine.
    pub fn forget_speed(&self) {
        for estimate in [&self.prefill, &self.step, &self.load, &self.service] {
            estimate.forget();
        }
        self.learned.store(0, Ordering::Relaxed);
        for (_, pair) in self.pairs.all() {
            pair.forget_speed();
        }
    }
}

/// Whether an endpoint has so many requests in flight that a session leaves it: more than 1.25 times
/// the mean of the candidates, plus 2 (docs/contract/scheduling.md#7).
pub(crate) fn is_crowded(own: u32, all: impl Iterator<Item = u32>) -> bool {
    let (total, count) = all.fold((0, 0), |(total, count), in_flight| {
        (total + u64::from(in_flight), count + 1)
    });
    4 * u64::from(own) * count > 5 * total + 8 * count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_a_quarter_and_two_more_than_the_mean() {
        let table: [(&[u32], bool); 10] = [
            (&[], false),
            (&[1000], false),
            (&[2, 0, 0, 0], false),
            (&[3, 0, 0, 0], true),
            (&[4, 2, 1, 1], false),
            (&[3, 1, 0, 0], false),
            (&[5, 0], false),
            (&[6, 0], true),
            (&[12, 8, 8, 4], false),
            (&[13, 8, 8, 4], true),
        ];
        for (all, expected) in table {
            let own = all.first().copied().unwrap_or(9);
            assert_eq!(is_crowded(own, all.iter().copied()), expected, "{all:?}");
        }
    }

    #[test]
    fn the_first_known_number_of_slots_counts() {
        let load = EndpointLoad::new(0, 0);
        assert_eq!(load.slots(), None);
        load.read((3, 2, 3), 1, 1000);
        assert_eq!(load.slots(), Some(3), "learned");
        load.report_slots(Some(8));
        assert_eq!(load.slots(), Some(8));
        load.configure(2, 1);
        assert_eq!(load.slots(), Some(2));
        load.read((9, 9, 0), 1, 1000);
        assert_eq!(load.slots(), Some(2));
        load.configure(0, 1);
        load.report_slots(None);
        assert_eq!(load.slots(), Some(3));
        for (said, believed) in [(0, 1), (1_000_000_000, SLOTS_MAX)] {
            load.report_slots(Some(said));
            assert_eq!(load.slots(), Some(believed));
        }
    }

    #[test]
    fn slots_are_learned_from_saturation() {
        let load = EndpointLoad::new(0, 0);
        (0..4).for_each(|_| assert!(load.try_start()));
        assert!(
            !load.read((4, 0, 4), 1, 1000),
            "nothing waits and nothing is known"
        );
        assert_eq!(load.slots(), None);
        load.start();
        load.read((4, 1, 5), 1, 1000);
        assert_eq!(load.slots(), Some(4));
        assert!(!load.try_start());
        assert!(load.read((5, 0, 5), 1, 1000), "one more at each reading");
        assert_eq!(load.slots(), Some(5));
        assert!(!load.try_start(), "five are in flight");
        assert!(load.read((5, 0, 5), 1, 1000));
        assert!(load.try_start() && !load.try_start());
        (0..6).for_each(|_| load.end());
        assert!(!load.read((0, 0, 0), 1, 1000));
        load.read((0, 7, 0), 1, 1000);
        assert_eq!(load.slots(), Some(1), "at least one");
    }

    #[test]
    fn requests_of_others_count_while_readings_come() {
        let load = EndpointLoad::new(0, 0);
        load.start();
        load.read((5, 1, 1), 10_000, 1000);
        assert_eq!(load.running_with_others(13_000), 6);
        assert_eq!(load.running_with_others(13_001), 1);
        assert_eq!(load.running(), 1);
    }

    #[test]
    fn what_is_pending_is_exact() {
        let load = EndpointLoad::new(0, 0);
        assert_eq!(load.add_pending(100), 0);
        assert_eq!(load.add_pending(50), 100);
        load.take_pending(100);
        assert_eq!(load.pending(), 50);
    }

    #[test]
    fn a_model_that_left_the_memory_has_lost_its_cache() {
        let load = EndpointLoad::new(0, 0);
        let key = ModelKey::of("m");
        assert!(!load.hear_warmth(key, Warmth::Warm, 10));
        let before = load.pair(key).unwrap().clock();
        assert!(load.hear_warmth(key, Warmth::Cold, 20));
        assert_eq!(load.pair(key).unwrap().clock() - before, CLOCK_LEAP);
        assert!(!load.hear_warmth(key, Warmth::Loading, 30));
        assert!(load.hear_warmth(key, Warmth::Warm, 40));
        assert_eq!(load.pair(key).unwrap().loads(), 1);
        assert!(!load.hear_warmth(key, Warmth::Cold, 35), "it is old");
        load.restarted();
        assert_eq!(load.pair(key).unwrap().clock() - before, 2 * CLOCK_LEAP);
    }
}
