//! Placements: which endpoint was sent which blocks of a prompt, and is believed to hold them still.
//!
//! The table has a fixed size and no locks. A placement is one word of 64 bits, so it is never torn:
//! 20 bits of the block's hash, 12 of the endpoint's number, 20 of the endpoint's token clock and 12
//! of the time. The rest of the hash selects a bucket of eight words, one cache line. Two blocks that
//! agree in all of these bits, or a clock that has gone round, cost a wrong guess and nothing else.
//!
//! Contract: docs/contract/scheduling.md#2

use std::sync::atomic::{AtomicU64, Ordering};

use super::models::mix;
use super::pair::{CLOCK_UNIT, Pair};

/// Words of a bucket.
const WORDS: usize = 8;

/// Endpoints that are kept for one block.
pub(crate) const KEPT_MAX: usize = WORDS;

const CLOCK_BITS: u32 = 20;
const CLOCK_MASK: u64 = (1 << CLOCK_BITS) - 1;
const TIME_BITS: u32 = 12;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const NUMBER_BITS: u32 = 12;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// The unit of a placement's time. It goes round after four hours, long after a cache has.
const TIME_UNIT_MS: u64 = 4_096;

/// Placements this young, in units of the clock, are taken back with an attempt that failed.
const TAKEN_BACK: u64 = 64;

/// Blocks whose buckets are fetched before the first one is looked at.
const AHEAD: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WORDS]);

/// The table.
#[derive(Debug)]
pub struct Placements {
    buckets: Box<[Bucket]>,
}

/// An endpoint that holds the beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The endpoint's number.
    pub number: u16,
    /// Blocks that it is believed to hold, from the first one on.
    pub blocks: usize,
}

/// The endpoints that hold the beginning of a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Match {
    held: [Option<Held>; WORDS],
}

impl Match {
    /// Blocks that an endpoint is believed to hold.
    pub fn of(&self, number: u16) -> usize {
        let held = self.held.iter().flatten();
        held.clone()
            .find(|held| held.number == number)
            .map_or(0, |held| held.blocks)
    }

    /// All endpoints that hold something.
    pub fn iter(&self) -> impl Iterator<Item = Held> {
        self.held.into_iter().flatten()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }
}

/// A placement of a word.
#[derive(Debug, Clone, Copy)]
struct Placement {
    tag: u64,
    number: u16,
    clock: u64,
    time: u64,
}

impl Placement {
    fn of(word: u64) -> Self {
        Self {
            tag: word >> (NUMBER_BITS + CLOCK_BITS + TIME_BITS),
            number: (word >> (CLOCK_BITS + TIME_BITS) & NUMBER_MASK) as u16,
            clock: word >> TIME_BITS & CLOCK_MASK,
            time: word & TIME_MASK,
        }
    }

    fn word(self) -> u64 {
        self.tag << (NUMBER_BITS + CLOCK_BITS + TIME_BITS)
            | (u64::from(self.number) & NUMBER_MASK) << (CLOCK_BITS + TIME_BITS)
            | self.clock << TIME_BITS
            | self.time
    }
}

fn clock_of(pair: &Pair) -> u64 {
    (pair.clock() / CLOCK_UNIT) & CLOCK_MASK
}

fn time_of(now_ms: u64) -> u64 {
    // Never 0: an empty word has no time.
    ((now_ms / TIME_UNIT_MS) & TIME_MASK).max(1)
}

/// The part of a block's hash that is compared.
fn tag_of(hash: u64) -> u64 {
    hash & ((1 << (64 - NUMBER_BITS - CLOCK_BITS - TIME_BITS)) - 1)
}

impl Placements {
    /// A table of at most this many bytes; `None` if that is too little for one bucket.
    pub fn new(bytes: usize) -> Option<Self> {
        let count = bytes / size_of::<Bucket>();
        let count = 1_usize.checked_shl(count.checked_ilog2()?)?;
        Some(Self {
            buckets: (0..count).map(|_| Bucket::default()).collect(),
        })
    }

    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        let at = (hash >> 20) as usize & (self.buckets.len() - 1);
        self.buckets.get(at)
    }

    /// The endpoints that hold the beginning of a prompt. `blocks` are the chained hashes of its
    /// blocks, and `model` is mixed into each, so that models do not share placements. `pair` gives
    /// the state of the model on an endpoint and its configured capacity, or `None` for an endpoint
    /// that is no candidate.
    pub fn find<'p>(
        &self,
        blocks: &[u64],
        model: u64,
        pair: impl Fn(u16) -> Option<(&'p Pair, u32)>,
    ) -> Match {
        let mut found = Match::default();
        let mut live: [Option<(u16, &Pair, u64)>; WORDS] = [None; WORDS];
        for (at, block) in blocks.iter().enumerate() {
            if at % AHEAD == 0 {
                for next in blocks.iter().skip(at).take(AHEAD) {
                    self.fetch(mix(next ^ model));
                }
            }
            let hash = mix(block ^ model);
            let Some(Bucket(words)) = self.bucket(hash) else {
                break;
            };
            let tag = tag_of(hash);
            let mut holds = [false; WORDS];
            for word in words {
                let word = word.load(Ordering::Relaxed);
                let placement = Placement::of(word);
                if word == 0 || placement.tag != tag {
                    continue;
                }
                let number = placement.number;
                if at == 0
                    && !live.iter().flatten().any(|(known, ..)| *known == number)
                    && let Some((pair, configured)) = pair(number)
                    && let Some(free) = live.iter_mut().find(|place| place.is_none())
                {
                    let capacity = u64::from(pair.capacity(configured)) / CLOCK_UNIT;
                    *free = Some((number, pair, capacity));
                }
                let mut places = live.iter().zip(&mut holds);
                let place = places.find(|(live, _)| live.is_some_and(|(n, ..)| n == number));
                if let Some((Some((_, pair, capacity)), holds)) = place {
                    let age = clock_of(pair).wrapping_sub(placement.clock) & CLOCK_MASK;
                    *holds |= age <= *capacity;
                }
            }
            let mut any = false;
            for ((place, holds), held) in live.iter_mut().zip(holds).zip(&mut found.held) {
                match place {
                    Some((number, ..)) if holds => {
                        any = true;
                        *held = Some(Held {
                            number: *number,
                            blocks: at + 1,
                        });
                    }
                    _ => *place = None,
                }
            }
            if !any {
                break;
            }
        }
        found
    }

    #[cfg(target_arch = "x86_64")]
    fn fetch(&self, hash: u64) {
        // A load whose result is not used would be left out; one of the time costs the same.
        if let Some(Bucket([first, ..])) = self.bucket(hash) {
            std::hint::black_box(first.load(Ordering::Relaxed));
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn fetch(&self, _: u64) {}

    /// Notes that the blocks were sent to an endpoint.
    pub fn put(&self, blocks: &[u64], model: u64, (number, pair): (u16, &Pair), now_ms: u64) {
        let (clock, time) = (clock_of(pair), time_of(now_ms));
        for block in blocks {
            let hash = mix(block ^ model);
            let Some(Bucket(words)) = self.bucket(hash) else {
                continue;
            };
            let new = Placement {
                tag: tag_of(hash),
                number,
                clock,
                time,
            };
            if let Some(word) = place_for(words, &new) {
                let word_now = word.load(Ordering::Relaxed);
                if word_now != new.word() {
                    word.store(new.word(), Ordering::Relaxed);
                }
            }
        }
    }

    /// Takes back what [`Self::put`] has noted with the same clock: the blocks never arrived.
    pub fn take(&self, blocks: &[u64], model: u64, (number, pair): (u16, &Pair)) {
        let clock = clock_of(pair);
        for block in blocks {
            let hash = mix(block ^ model);
            let Some(Bucket(words)) = self.bucket(hash) else {
                continue;
            };
            for word in words {
                let value = word.load(Ordering::Relaxed);
                let placement = Placement::of(value);
                let age = clock.wrapping_sub(placement.clock) & CLOCK_MASK;
                if value != 0
                    && placement.tag == tag_of(hash)
                    && placement.number == number
                    && age <= TAKEN_BACK
                {
                    // Whoever has written meanwhile keeps what it wrote.
                    let _ = word.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }

    /// How many placements the table holds, for tests and figures.
    pub fn len(&self) -> usize {
        let words = self.buckets.iter().flat_map(|Bucket(words)| words);
        words
            .filter(|word| word.load(Ordering::Relaxed) != 0)
            .count()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a placement goes: over that of the same block and endpoint, over the oldest of the block if
/// it has all that are kept, else to a free word or over the oldest one.
fn place_for<'w>(words: &'w [AtomicU64; WORDS], new: &Placement) -> Option<&'w AtomicU64> {
    let age = |placement: Placement| new.time.wrapping_sub(placement.time) & TIME_MASK;
    let (mut free, mut oldest, mut oldest_of_block) = (None, None, None);
    let mut kept = 0;
    for word in words {
        let value = word.load(Ordering::Relaxed);
        if value == 0 {
            free.get_or_insert(word);
            continue;
        }
        let placement = Placement::of(value);
        let age = age(placement);
        if placement.tag == new.tag {
            if placement.number == new.number {
                return Some(word);
            }
            kept += 1;
            if oldest_of_block.is_none_or(|(most, _)| age > most) {
                oldest_of_block = Some((age, word));
            }
        }
        if oldest.is_none_or(|(most, _)| age > most) {
            oldest = Some((age, word));
        }
    }
    if kept >= KEPT_MAX {
        return oldest_of_block.map(|(_, word)| word);
    }
    free.or(oldest.map(|(_, word)| word))
}

#[cfg(test)]
mod tests {
    use super::super::load::EndpointLoad;
    use super::super::models::ModelKey;
    use super::*;

    const MODEL: u64 = 77;

    fn fleet(count: u16) -> Vec<EndpointLoad> {
        let loads = (0..count).map(|number| EndpointLoad::new(number, 0));
        loads
            .inspect(|load| {
                load.pairs().place(ModelKey::of("m"), 1);
            })
            .collect()
    }

    fn pair(load: &EndpointLoad) -> &Pair {
        load.pair(ModelKey::of("m")).unwrap()
    }

    fn found(
        table: &Placements,
        loads: &[EndpointLoad],
        blocks: &[u64],
        capacity: u32,
    ) -> Vec<usize> {
        let found = table.find(blocks, MODEL, |number| {
            Some((pair(loads.get(usize::from(number))?), capacity))
        });
        loads.iter().map(|load| found.of(load.number())).collect()
    }

    fn put(table: &Placements, load: &EndpointLoad, blocks: &[u64], now_ms: u64) {
        table.put(blocks, MODEL, (load.number(), pair(load)), now_ms);
    }

    #[test]
    fn the_longest_chain_from_the_first_block_on_counts() {
        let (table, loads) = (Placements::new(1 << 20).unwrap(), fleet(3));
        let blocks: Vec<u64> = (1..40).map(mix).collect();
        assert!(found(&table, &loads, &blocks, 1 << 20) == [0, 0, 0] && table.is_empty());
        put(&table, &loads[0], &blocks[..10], 1);
        put(&table, &loads[1], &blocks[..30], 1);
        put(&table, &loads[2], &blocks[5..], 1);
        assert_eq!(found(&table, &loads, &blocks, 1 << 20), [10, 30, 0]);
        let other_model = table.find(&blocks, MODEL + 1, |_| Some((pair(&loads[0]), 1 << 20)));
        assert!(other_model.is_empty());
        let no_candidate = table.find(&blocks, MODEL, |_| None);
        assert!(no_candidate.is_empty());
    }

    #[test]
    fn a_placement_is_believed_while_the_cache_has_not_turned_over() {
        let (table, loads) = (Placements::new(1 << 16).unwrap(), fleet(1));
        let blocks = [mix(1), mix(2)];
        put(&table, &loads[0], &blocks, 1);
        let (pair, capacity) = (pair(&loads[0]), 400_000);
        pair.advance(399_000);
        assert_eq!(found(&table, &loads, &blocks, capacity), [2]);
        pair.advance(3_000);
        assert_eq!(found(&table, &loads, &blocks, capacity), [0]);
        // What is sent again is held again, and a restart ends it.
        put(&table, &loads[0], &blocks, 1);
        assert_eq!(found(&table, &loads, &blocks, capacity), [2]);
        loads[0].restarted();
        assert_eq!(found(&table, &loads, &blocks, u32::MAX), [0]);
    }

    #[test]
    fn few_endpoints_are_kept_for_one_block_and_the_oldest_gives_way() {
        let (table, loads) = (Placements::new(1 << 16).unwrap(), fleet(10));
        for (at, load) in loads.iter().enumerate() {
            put(&table, load, &[mix(1)], 10_000 * (at as u64 + 1));
        }
        let held = found(&table, &loads, &[mix(1)], 1 << 20);
        assert_eq!(held, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        put(&table, &loads[2], &[mix(1)], 110_000);
        put(&table, &loads[0], &[mix(1)], 120_000);
        let held = found(&table, &loads, &[mix(1)], 1 << 20);
        assert_eq!(held, [1, 0, 1, 0, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_full_table_keeps_what_is_new() {
        let (table, loads) = (Placements::new(4096).unwrap(), fleet(1));
        for round in 0..100_u64 {
            let blocks: Vec<u64> = (0..64).map(|at| mix(1000 * round + at)).collect();
            put(&table, &loads[0], &blocks, 10_000 * (round + 1));
            let held = found(&table, &loads, &blocks, u32::MAX);
            assert!(held[0] > 0, "round {round}");
        }
        assert_eq!(table.len(), 4096 / 8);
        assert!(Placements::new(63).is_none() && Placements::new(0).is_none());
    }

    #[test]
    fn cores_may_write_and_read_at_once() {
        let (table, loads) = (Placements::new(1 << 14).unwrap(), fleet(8));
        std::thread::scope(|scope| {
            for worker in 0..4_u64 {
                let (table, loads) = (&table, &loads);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(worker);
                    for step in 0..20_000_u64 {
                        let begin = random.u64(..50);
                        let blocks: Vec<u64> = (0..8).map(|at| mix(begin * 8 + at)).collect();
                        let load = &loads[random.usize(..loads.len())];
                        put(table, load, &blocks, step);
                        for held in found(table, loads, &blocks, u32::MAX) {
                            assert!(held <= blocks.len());
                        }
                    }
                });
            }
        });
    }
}
