//! A model on an endpoint: how fast it is there, whether it is in memory, and at which pace the
//! endpoint's prefix cache turns over.
//!
//! Contract: docs/contract/scheduling.md#1, docs/contract/scheduling.md#2,
//! docs/contract/scheduling.md#3

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::estimate::{FadingMean, Figure};
use super::models::ModelKey;
use super::warmth::{Warmth, WarmthRecord};

/// Models of one endpoint that are known at a time. Of more, one takes the place of the one that
/// was used longest ago in its window.
pub(super) const PAIRS_MAX: usize = 32;

/// Slots that may hold a model.
const WINDOW: usize = 8;

/// The time of a load before one was seen, in seconds.
pub(super) const LOAD_S: f32 = 10.0;

/// Tokens of one unit of the token clock, as placements hold it.
pub(super) const CLOCK_UNIT: u64 = 1024;

/// The most tokens that an endpoint is believed to keep.
pub(super) const CAPACITY_MAX: u32 = 16 << 20;

/// The fewest, however often it kept fewer than believed.
const CAPACITY_MIN: u32 = 4_000;

/// By this the clock is put forward to end all placements: more than any capacity.
pub(super) const CLOCK_LEAP: u64 = 2 * CAPACITY_MAX as u64;

/// The state of one model on one endpoint, which all cores share.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Pair {
    key: AtomicU64,
    used_ms: AtomicU64,
    /// Prompt tokens a second.
    pub(super) prefill: FadingMean,
    /// The last sample of it.
    pub(super) last_prefill: Figure,
    /// Seconds for an output token.
    pub(super) step: FadingMean,
    /// Seconds from a request for the cold model to its first byte.
    pub(super) load: FadingMean,
    /// When a request was last sent here in spite of an old bad estimate.
    pub(super) tested_ms: AtomicU64,
    pub(super) warmth: WarmthRecord,
    /// Tokens of prompts and outputs that were computed here, plus an offset of its own.
    clock: AtomicU64,
    /// Tokens that are believed to be kept; 0 = as configured.
    capacity: AtomicU32,
    /// The context that the running model was started with; 0 = unknown.
    context: AtomicU32,
    /// How often the model was seen to begin loading.
    loads: AtomicU32,
}

impl Pair {
    /// The token clock.
    pub fn clock(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Puts the clock forward by tokens that are computed.
    pub fn advance(&self, tokens: u64) {
        self.clock
            .fetch_add(tokens.min(CLOCK_LEAP), Ordering::Relaxed);
    }

    /// Ends all placements of this model here: the endpoint has lost its cache.
    pub fn lose_cache(&self) {
        self.clock.fetch_add(CLOCK_LEAP, Ordering::Relaxed);
    }

    /// The tokens that the endpoint is believed to keep, `configured` at first.
    pub fn capacity(&self, configured: u32) -> u32 {
        match self.capacity.load(Ordering::Relaxed) {
            0 => configured.min(CAPACITY_MAX),
            learned => learned,
        }
    }

    /// A response told how much of its prompt came from the cache.
    pub fn learn_capacity(&self, configured: u32, kept_as_believed: bool) {
        let capacity = f64::from(self.capacity(configured));
        let learned = if kept_as_believed {
            (capacity * 1.01).min(f64::from(CAPACITY_MAX))
        } else {
            (capacity * 0.9).max(f64::from(CAPACITY_MIN).min(capacity))
        };
        self.capacity.store(learned as u32, Ordering::Relaxed);
    }

    pub(super) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Whether requests are held back because the model loads.
    pub fn is_held(&self) -> bool {
        self.warmth.held_until_ms().is_some()
    }

    /// When the next request may be sent that is held back because the model loads.
    pub fn held_until_ms(&self) -> Option<u64> {
        self.warmth.held_until_ms()
    }

    /// Where the model is, as was last heard.
    pub fn warmth(&self) -> Warmth {
        self.warmth.state()
    }

    /// Whether a load that is in progress has not taken longer than it may.
    pub(super) fn is_expected(&self, now_ms: u64) -> bool {
        let usual_s = self.load.value(now_ms, None).unwrap_or(LOAD_S);
        let longest_ms = (usual_s * 1500.0) as u64;
        self.warmth
            .loading_for(now_ms)
            .is_some_and(|ms| ms < longest_ms)
    }

    /// The context that the running model was started with.
    pub fn context(&self) -> Option<u64> {
        let tokens = self.context.load(Ordering::Relaxed);
        (tokens > 0).then_some(u64::from(tokens))
    }

    /// Takes that context over from a reading; `None` = it tells none.
    pub fn set_context(&self, tokens: Option<u64>) {
        let tokens = tokens.map_or(0, |tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        self.context.store(tokens, Ordering::Relaxed);
    }

    /// How often the model was seen to begin loading.
    pub fn loads(&self) -> u32 {
        self.loads.load(Ordering::Relaxed)
    }

    pub(super) fn count_load(&self) {
        self.loads.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets how fast it is.
    pub(super) fn forget_speed(&self) {
        self.prefill.forget();
        self.last_prefill.set(None);
        self.step.forget();
        self.load.forget();
    }

    fn reset(&self, key: ModelKey) {
        self.forget_speed();
        self.tested_ms.store(0, Ordering::Relaxed);
        self.warmth.reset();
        self.lose_cache();
        self.capacity.store(0, Ordering::Relaxed);
        self.context.store(0, Ordering::Relaxed);
        self.loads.store(0, Ordering::Relaxed);
        self.key.store(key.get(), Ordering::Relaxed);
    }
}

/// Names a pair in the table of its endpoint, as long as the table keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairRef {
    place: u8,
    key: ModelKey,
}

/// The models of one endpoint, in a table of fixed size.
#[derive(Debug)]
pub struct Pairs(Box<[Pair; PAIRS_MAX]>);

impl Pairs {
    /// An empty table. The clocks begin at an offset, so that placements of an endpoint which had
    /// the same number before are not believed.
    pub(super) fn new(clock: u64) -> Self {
        let pair = |_| Pair {
            clock: AtomicU64::new(clock),
            ..Pair::default()
        };
        Self(Box::new(std::array::from_fn(pair)))
    }

    /// The place of a model, a new one if it has none.
    pub fn place(&self, key: ModelKey, now_ms: u64) -> PairRef {
        let found = Self::window(key).find(|place| self.has(*place, key));
        let place = found.unwrap_or_else(|| self.take_place(key));
        if let Some(pair) = self.0.get(place)
            && pair.used_ms.load(Ordering::Relaxed) != now_ms
        {
            pair.used_ms.store(now_ms, Ordering::Relaxed);
        }
        PairRef {
            place: place as u8,
            key,
        }
    }

    /// The state of a model that has a place.
    pub fn find(&self, key: ModelKey) -> Option<&Pair> {
        let place = Self::window(key).find(|place| self.has(*place, key))?;
        self.0.get(place)
    }

    /// The state of a model by the number of its key.
    pub(super) fn by_number(&self, key: u64) -> Option<&Pair> {
        self.0
            .iter()
            .find(|pair| pair.key.load(Ordering::Relaxed) == key)
    }

    /// The state at a place; `None` if another model has taken it.
    pub fn at(&self, place: PairRef) -> Option<&Pair> {
        let pair = self.0.get(usize::from(place.place))?;
        (pair.key.load(Ordering::Relaxed) == place.key.get()).then_some(pair)
    }

    /// All models that have a place.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Pair)> {
        let pairs = self.0.iter();
        pairs.filter_map(|pair| match pair.key.load(Ordering::Relaxed) {
            0 => None,
            key => Some((key, pair)),
        })
    }

    fn has(&self, place: usize, key: ModelKey) -> bool {
        let pair = self.0.get(place);
        pair.is_some_and(|pair| pair.key.load(Ordering::Relaxed) == key.get())
    }

    #[cold]
    fn take_place(&self, key: ModelKey) -> usize {
        let used = |place: &usize| {
            let pair = self.0.get(*place);
            pair.map_or(u64::MAX, |pair| pair.used_ms.load(Ordering::Relaxed))
        };
        let place = Self::window(key).min_by_key(used).unwrap_or(0);
        if let Some(pair) = self.0.get(place) {
            pair.reset(key);
        }
        place
    }

    fn window(key: ModelKey) -> impl Iterator<Item = usize> {
        let home = (key.get() >> 40) as usize;
        (home..home + WINDOW).map(|at| at % PAIRS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_found_again_and_gives_way_when_unused() {
        let pairs = Pairs::new(0);
        let busy = ModelKey::of("busy");
        let first = pairs.place(busy, 1);
        assert_eq!(pairs.place(busy, 2), first);
        pairs.at(first).unwrap().advance(7);
        let others: Vec<_> = (0..1000)
            .map(|at| {
                pairs.place(busy, at + 2);
                pairs.place(ModelKey::of(&format!("m{at}")), at + 2)
            })
            .collect();
        assert_eq!(pairs.find(busy).unwrap().clock() - CLOCK_LEAP, 7);
        let kept = others.iter().filter(|place| pairs.at(**place).is_some());
        assert!(kept.count() < PAIRS_MAX, "the others gave way");
    }

    #[test]
    fn capacity_shrinks_fast_and_grows_slowly_within_bounds() {
        let pair = Pair::default();
        assert_eq!(pair.capacity(400_000), 400_000);
        pair.learn_capacity(400_000, false);
        assert_eq!(pair.capacity(400_000), 360_000);
        pair.learn_capacity(400_000, true);
        assert_eq!(pair.capacity(400_000), 363_600);
        (0..1000).for_each(|_| pair.learn_capacity(400_000, false));
        assert_eq!(pair.capacity(400_000), CAPACITY_MIN);
        (0..10_000).for_each(|_| pair.learn_capacity(400_000, true));
        assert_eq!(pair.capacity(400_000), CAPACITY_MAX);
    }
}
