//! One simulated engine as a function of time: requests in, pieces of responses out. No sockets, no
//! clock: every call takes the time or has one of its own.
//!
//! A request takes one of the slots in order of arrival and then needs its model in memory. Prefill
//! works on one prompt at a time. After it the output leaves in pieces, and its speed falls with the
//! number of slots in use.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::cache::{BLOCK_TOKENS, Chain, PrefixCache, TOKEN_BYTES};
use super::memory::{Memory, State};
use super::scenario::EngineSpec;
use super::ticks::Ticks;
use crate::chance::Chance;
use crate::clock::{NS_PER_MS, NS_PER_S};
use crate::prose::Prose;

/// What a prefill costs beside its tokens, in nanoseconds.
const PREFILL_BASE_NS: u64 = 2 * NS_PER_MS;

/// Pieces that an output leaves in: the first token, and the rest in equal parts.
const PIECES: u64 = 5;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Job {
    /// The place of its model in the list of the engine.
    pub model: usize,
    /// Its prompt.
    pub prompt: Chain,
    /// Length of the output, at least 1.
    pub output_tokens: u64,
}

/// What an engine counts for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those of them that the prefix cache had.
    pub cached_tokens: u64,
    /// Tokens of the output.
    pub output_tokens: u64,
}

/// Something that leaves an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The request that it belongs to.
    pub id: u64,
    /// What it is.
    pub what: What,
}

/// The kinds of [`Output`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A piece of text; the first one marks the first token.
    Piece(String),
    /// The end, after all pieces.
    Done(Usage),
    /// The model is not in memory, and requests do not wait for that.
    Refused,
}

/// What happened in an engine since the start of the load.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Requests that came.
    pub requests: u64,
    /// Requests that got a whole response.
    pub completed: u64,
    /// Requests refused because their model was not in memory.
    pub refused: u64,
    /// Requests whose client left.
    pub left: u64,
    /// The sum over completed requests.
    pub usage: Usage,
    /// Requests that came in each second.
    pub by_second: Vec<u32>,
    /// Slots in use.
    pub running: Ticks,
    /// Loads before.
    loads_before: u64,
}

#[derive(Debug)]
struct Work {
    model: usize,
    prompt: Chain,
    usage: Usage,
    reply: String,
    /// Tokens that have left.
    sent: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waiting for a slot.
    Queued,
    /// It has a slot and waits for its model.
    Loading,
    /// It has a slot and waits for its prefill, or for the end of it.
    Prefill,
    /// Its first token has left.
    Decode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Loaded,
    Prefilled(u64),
    Piece(u64),
}

/// An engine.
#[derive(Debug)]
pub struct Engine {
    spec: EngineSpec,
    noise: f64,
    chance: Chance,
    prose: Prose,
    /// The start of the load, in nanoseconds.
    start_ns: u64,
    works: HashMap<u64, Work>,
    queue: VecDeque<u64>,
    running: usize,
    memory: Memory,
    /// Requests that wait for a model, in order of arrival.
    loading: Vec<u64>,
    prefills: VecDeque<u64>,
    prefill: Option<u64>,
    cache: PrefixCache,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    entries: u64,
    counts: Counts,
    out: Vec<Output>,
}

impl Engine {
    /// An idle engine. `noise` is what applies when the group of engines has none of its own.
    pub fn new(spec: &EngineSpec, noise: f64, seed: u64, now_ns: u64) -> Self {
        let blocks = spec.cache_tokens / BLOCK_TOKENS;
        Self {
            spec: spec.clone(),
            noise: spec.noise.unwrap_or(noise),
            chance: Chance::new(seed),
            prose: Prose::default(),
            start_ns: now_ns,
            works: HashMap::new(),
            queue: VecDeque::new(),
            running: 0,
            memory: Memory::new(spec.models.len(), spec.resident_max()),
            loading: Vec::new(),
            prefills: VecDeque::new(),
            prefill: None,
            cache: PrefixCache::new(usize::try_from(blocks).unwrap_or(usize::MAX)),
            agenda: BinaryHeap::new(),
            entries: 0,
            counts: Counts::new(now_ns, 0),
            out: Vec::new(),
        }
    }

    /// Starts the load: all counts from here on.
    pub fn begin(&mut self, now_ns: u64) {
        self.start_ns = now_ns;
        self.counts = Counts::new(now_ns, self.memory.loads());
        self.counts.running.set(now_ns, self.running as u32);
    }

    /// What the engine is.
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Slots in use.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests without a slot.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The state of each model.
    pub fn models(&self) -> impl Iterator<Item = (&str, State)> {
        let names = self.spec.models.iter().enumerate();
        names.map(|(place, name)| (name.as_str(), self.memory.state(place)))
    }

    /// What happened since the start of the load, up to now.
    pub fn counts(&mut self, now_ns: u64) -> &Counts {
        self.counts.running.fill(now_ns);
        &self.counts
    }

    /// Loads begun since the start of the load.
    pub fn loads(&self) -> u64 {
        self.memory.loads() - self.counts.loads_before
    }

    /// Takes what has left since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// A request comes; its `id` is that of no other request.
    pub fn arrive(&mut self, now_ns: u64, id: u64, job: Job) {
        self.counts.arrived(now_ns.saturating_sub(self.start_ns));
        let usage = Usage {
            prompt_tokens: job.prompt.tokens(),
            cached_tokens: 0,
            output_tokens: job.output_tokens,
        };
        let work = Work {
            model: job.model,
            prompt: job.prompt,
            usage,
            reply: String::new(),
            sent: 0,
            stage: Stage::Queued,
        };
        self.works.insert(id, work);
        self.queue.push_back(id);
        self.fill_slots(now_ns);
    }

    /// The client of a request leaves, which frees everything at once.
    pub fn leave(&mut self, now_ns: u64, id: u64) {
        let Some(work) = self.works.remove(&id) else {
            return;
        };
        self.counts.left += 1;
        if work.stage == Stage::Queued {
            self.queue.retain(|one| *one != id);
            return;
        }
        if work.stage == Stage::Loading {
            self.loading.retain(|one| *one != id);
            if !self.waits_for(work.model) {
                self.memory.forget(work.model);
            }
        } else {
            self.memory.release(work.model);
        }
        self.prefills.retain(|one| *one != id);
        if self.prefill == Some(id) {
            self.prefill = None;
            self.next_prefill(now_ns);
        }
        self.free_slot(now_ns);
    }

    /// When the next thing happens.
    pub fn next_due(&self) -> Option<u64> {
        self.agenda.peek().map(|Reverse((due, ..))| *due)
    }

    /// Lets the next thing happen, as if at the time it was due.
    pub fn step(&mut self) {
        let Some(Reverse((due_ns, _, event))) = self.agenda.pop() else {
            return;
        };
        match event {
            Event::Loaded => self.end_load(due_ns),
            Event::Prefilled(id) => {
                // Otherwise its client has left.
                if self.prefill == Some(id) {
                    self.prefill = None;
                    self.first_token(due_ns, id);
                    self.next_prefill(due_ns);
                }
            }
            Event::Piece(id) => self.piece(due_ns, id),
        }
    }

    fn plan(&mut self, due_ns: u64, event: Event) {
        self.entries += 1;
        self.agenda.push(Reverse((due_ns, self.entries, event)));
    }

    fn fill_slots(&mut self, now_ns: u64) {
        while self.running < self.spec.slots {
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            let Some(work) = self.works.get_mut(&id) else {
                continue;
            };
            let model = work.model;
            if self.memory.acquire(model) {
                self.running += 1;
                self.join_prefill(now_ns, id);
            } else if self.spec.refuse_while_loading {
                self.works.remove(&id);
                self.counts.refused += 1;
                self.put_out(id, What::Refused);
                self.memory.want(model);
            } else {
                work.stage = Stage::Loading;
                self.running += 1;
                self.loading.push(id);
                self.memory.want(model);
            }
        }
        self.counts.running.set(now_ns, self.running as u32);
        self.begin_load(now_ns);
    }

    fn free_slot(&mut self, now_ns: u64) {
        self.running -= 1;
        self.fill_slots(now_ns);
    }

    fn waits_for(&self, model: usize) -> bool {
        self.loading.iter().any(|id| self.works[id].model == model)
    }

    fn begin_load(&mut self, now_ns: u64) {
        if self.memory.begin_load().is_some() {
            self.plan(now_ns + ns_of_ms(self.spec.load_ms), Event::Loaded);
        }
    }

    fn end_load(&mut self, now_ns: u64) {
        self.memory.end_load();
        for id in std::mem::take(&mut self.loading) {
            if self.memory.acquire(self.works[&id].model) {
                self.join_prefill(now_ns, id);
            } else {
                self.loading.push(id);
            }
        }
        self.begin_load(now_ns);
    }

    fn join_prefill(&mut self, now_ns: u64, id: u64) {
        if let Some(work) = self.works.get_mut(&id) {
            work.stage = Stage::Prefill;
            let hit = self.cache.hit(work.prompt.blocks()) as u64;
            work.usage.cached_tokens = hit * BLOCK_TOKENS;
            self.prefills.push_back(id);
            self.next_prefill(now_ns);
        }
    }

    fn next_prefill(&mut self, now_ns: u64) {
        if self.prefill.is_some() {
            return;
        }
        let Some(id) = self.prefills.pop_front() else {
            return;
        };
        let usage = self.works[&id].usage;
        let fresh = usage.prompt_tokens - usage.cached_tokens;
        let speed = self.spec.prefill_tps * self.chance.log_normal(self.noise);
        let seconds = fresh as f64 / speed * self.slowness(now_ns);
        self.prefill = Some(id);
        let due_ns = now_ns + (seconds * NS_PER_S as f64) as u64 + PREFILL_BASE_NS;
        self.plan(due_ns, Event::Prefilled(id));
    }

    fn slowness(&self, now_ns: u64) -> f64 {
        let second = now_ns.saturating_sub(self.start_ns) as f64 / NS_PER_S as f64;
        if (self.spec.slow_from_s..self.spec.slow_until_s).contains(&second) {
            self.spec.slow_factor
        } else {
            1.0
        }
    }

    fn first_token(&mut self, now_ns: u64, id: u64) {
        if let Some(work) = self.works.get_mut(&id) {
            work.stage = Stage::Decode;
            self.cache.put(work.prompt.blocks());
            let length = usize::try_from(work.usage.output_tokens).unwrap_or(0) * TOKEN_BYTES;
            self.prose.fill(&mut work.reply, length, &mut self.chance);
            self.piece(now_ns, id);
        }
    }

    /// Sends the tokens that are there, and plans the next piece or the end.
    fn piece(&mut self, now_ns: u64, id: u64) {
        let step_ms = self.step_ms();
        let Some(work) = self.works.get_mut(&id) else {
            return;
        };
        let total = work.usage.output_tokens;
        let until = if work.sent == 0 {
            1
        } else {
            next_piece(work.sent, total)
        };
        let bytes = |tokens: u64| usize::try_from(tokens).unwrap_or(0) * TOKEN_BYTES;
        let text = work.reply[bytes(work.sent)..bytes(until)].to_owned();
        work.sent = until;
        self.put_out(id, What::Piece(text));
        if until == total {
            self.finish(now_ns, id);
        } else {
            let tokens = next_piece(until, total) - until;
            let due_ns = now_ns + ns_of_ms(step_ms * tokens as f64);
            self.plan(due_ns, Event::Piece(id));
        }
    }

    /// Time for an output token, in milliseconds.
    fn step_ms(&self) -> f64 {
        let others = self.running.saturating_sub(1) as f64;
        self.spec.decode_ms + self.spec.decode_ms_each * others
    }

    fn finish(&mut self, now_ns: u64, id: u64) {
        let Some(mut work) = self.works.remove(&id) else {
            return;
        };
        work.prompt.push_message("assistant", &work.reply);
        self.cache.put(work.prompt.blocks());
        self.memory.release(work.model);
        self.counts.completed += 1;
        let sum = &mut self.counts.usage;
        sum.prompt_tokens += work.usage.prompt_tokens;
        sum.cached_tokens += work.usage.cached_tokens;
        sum.output_tokens += work.usage.output_tokens;
        self.put_out(id, What::Done(work.usage));
        self.free_slot(now_ns);
    }

    fn put_out(&mut self, id: u64, what: What) {
        self.out.push(Output { id, what });
    }
}

impl Counts {
    fn new(now_ns: u64, loads_before: u64) -> Self {
        Self {
            requests: 0,
            completed: 0,
            refused: 0,
            left: 0,
            usage: Usage::default(),
            by_second: Vec::new(),
            running: Ticks::new(now_ns),
            loads_before,
        }
    }

    fn arrived(&mut self, since_ns: u64) {
        const SECONDS_MAX: usize = 3600;
        self.requests += 1;
        let second = usize::try_from(since_ns / NS_PER_S).unwrap_or(SECONDS_MAX);
        if second < SECONDS_MAX {
            if self.by_second.len() <= second {
                self.by_second.resize(second + 1, 0);
            }
            self.by_second[second] += 1;
        }
    }
}

/// The tokens that have left with the piece after the one that ended at `sent`.
fn next_piece(sent: u64, total: u64) -> u64 {
    let rest = total - 1;
    let parts = PIECES - 1;
    let ends = (1..=parts).map(|part| 1 + rest * part / parts);
    ends.into_iter().find(|end| *end > sent).unwrap_or(total)
}

fn ns_of_ms(ms: f64) -> u64 {
    (ms * NS_PER_MS as f64) as u64
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
