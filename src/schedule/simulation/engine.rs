//! A simulated engine: slots in order of arrival, loads of models one at a time, a prefix cache,
//! prompts read one after another, and decoding that slows down with the number of requests.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

/// Tokens of a block of the prefix cache.
pub(super) const BLOCK_TOKENS: u64 = 32;

/// What an engine is.
#[derive(Debug, Clone)]
pub(super) struct EngineSpec {
    pub(super) models: Vec<u32>,
    pub(super) slots: u32,
    pub(super) prefill_tps: f64,
    pub(super) decode_ms: f64,
    pub(super) decode_ms_each: f64,
    pub(super) cache_tokens: u64,
    pub(super) loaded_max: usize,
    pub(super) load_ms: f64,
    pub(super) refuses_while_loading: bool,
}

impl EngineSpec {
    pub(super) fn vllm(
        slots: u32,
        prefill_tps: f64,
        decode: (f64, f64),
        cache_tokens: u64,
    ) -> Self {
        Self {
            models: vec![0],
            slots,
            prefill_tps,
            decode_ms: decode.0,
            decode_ms_each: decode.1,
            cache_tokens,
            loaded_max: usize::MAX,
            load_ms: 0.0,
            refuses_while_loading: false,
        }
    }
}

/// The prefix cache: the blocks used last.
#[derive(Debug, Default)]
struct Cache {
    stamps: FxHashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    next: u64,
}

impl Cache {
    fn touch(&mut self, block: u64) {
        self.next += 1;
        if let Some(old) = self.stamps.insert(block, self.next) {
            self.order.remove(&old);
        }
        self.order.insert(self.next, block);
    }

    fn matched(&mut self, blocks: &[u64]) -> u64 {
        let mut count = 0;
        for block in blocks {
            if !self.stamps.contains_key(block) {
                break;
            }
            self.touch(*block);
            count += 1;
        }
        count
    }

    fn put(&mut self, blocks: &[u64], capacity: usize) {
        for block in blocks {
            self.touch(*block);
            if self.stamps.len() > capacity
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.stamps.remove(&oldest);
            }
        }
    }
}

/// An engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) spec: EngineSpec,
    pub(super) queue: VecDeque<usize>,
    pub(super) running: u32,
    /// Prompts are read this many times slower.
    pub(super) slowness: f64,
    pub(super) loads: u32,
    cache: Cache,
    prefill_free_us: u64,
    load_free_us: u64,
    /// When each model is, or was, ready; and how often it is in use.
    loaded: Vec<(u32, u64, u32, u64)>,
    uses: u64,
}

impl Engine {
    pub(super) fn new(spec: EngineSpec) -> Self {
        let all = spec.loaded_max >= spec.models.len();
        let loaded = spec.models.iter().filter(|_| all);
        Self {
            loaded: loaded.map(|model| (*model, 0, 0, 0)).collect(),
            spec,
            queue: VecDeque::new(),
            running: 0,
            slowness: 1.0,
            loads: 0,
            cache: Cache::default(),
            prefill_free_us: 0,
            load_free_us: 0,
            uses: 0,
        }
    }

    /// Forgets everything: it was started anew.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.spec.clone());
    }

    /// When a model is ready, if it is loaded or being loaded.
    pub(super) fn ready_at(&self, model: u32) -> Option<u64> {
        let loaded = self.loaded.iter().find(|(known, ..)| *known == model);
        loaded.map(|(_, at, ..)| *at)
    }

    /// A request takes a slot: when its model is ready.
    pub(super) fn begin(&mut self, model: u32, now_us: u64) -> u64 {
        self.running += 1;
        self.load(model, now_us);
        self.uses += 1;
        let uses = self.uses;
        let entry = self.loaded.iter_mut().find(|(known, ..)| *known == model);
        entry.map_or(now_us, |(_, at, users, used)| {
            *users += 1;
            *used = uses;
            now_us.max(*at)
        })
    }

    /// Begins to load a model that is not there.
    pub(super) fn load(&mut self, model: u32, now_us: u64) {
        if self.ready_at(model).is_some() {
            return;
        }
        self.loads += 1;
        while self.loaded.len() >= self.spec.loaded_max {
            let idle = self.loaded.iter().enumerate();
            let idle = idle.filter(|(_, (_, ready, users, _))| *users == 0 && *ready <= now_us);
            let Some((at, _)) = idle.min_by_key(|(_, (.., used))| *used) else {
                break;
            };
            self.loaded.remove(at);
        }
        let ready = self.load_free_us.max(now_us) + (self.spec.load_ms * 1000.0) as u64;
        self.load_free_us = ready;
        self.loaded.push((model, ready, 0, self.uses));
    }

    /// Reads a prompt: when its first token comes, and how many of its tokens were in the cache.
    pub(super) fn read(&mut self, blocks: &[u64], speed: f64, now_us: u64) -> (u64, u64) {
        let hit = self.cache.matched(blocks) * BLOCK_TOKENS;
        let tokens = blocks.len() as u64 * BLOCK_TOKENS - hit;
        let seconds = tokens as f64 * self.slowness / (self.spec.prefill_tps * speed) + 0.002;
        let start = now_us.max(self.prefill_free_us);
        self.prefill_free_us = start + (seconds * 1e6) as u64;
        (self.prefill_free_us, hit)
    }

    /// The first token: how long each further one takes, in microseconds.
    pub(super) fn first(&mut self, blocks: &[u64]) -> f64 {
        self.keep(blocks);
        let others = f64::from(self.running.saturating_sub(1));
        (self.spec.decode_ms + self.spec.decode_ms_each * others) * 1000.0
    }

    /// Keeps blocks in the cache.
    pub(super) fn keep(&mut self, blocks: &[u64]) {
        let capacity = (self.spec.cache_tokens / BLOCK_TOKENS) as usize;
        self.cache.put(blocks, capacity);
    }

    /// A request gives its slot back.
    pub(super) fn end(&mut self, model: u32) {
        self.running = self.running.saturating_sub(1);
        let entry = self.loaded.iter_mut().find(|(known, ..)| *known == model);
        if let Some((_, _, users, _)) = entry {
            *users = users.saturating_sub(1);
        }
    }
}
