//! A fleet in virtual time: simulated engines and people, and the scheduler's own code between them.
//!
//! What the gateway and the control thread do around it is done here by events: messages to cores
//! arrive late, clients leave in every state, endpoints crash and come back, a reload removes them.

mod engine;
mod fleet;
mod learning;
mod people;
mod requests;
mod scenarios;
mod stress;
mod threads;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use super::choose::{Admission, Candidate, Candidates, Evaluated, PromptDemand};
use super::dispatch::{Completed, Dispatch};
use super::load::EndpointLoad;
use super::models::{ModelKey, mix};
use super::predict::Weights;
use super::prompt::Prompt;
use super::queue::{Charge, FlowKey, QueueBounds, QueueStanding, TicketId, service_of};
use super::scheduler::{QueueExit, Scheduler, Settings};
use super::slot::Slot;
use super::waiting::{ChoiceRule, Started, Waiting, WaitingPlace};
use super::warmth::Warmth;
use engine::{BLOCK_TOKENS, Engine, EngineSpec};
use people::{Conversation, Crowd};

const SETTINGS: Settings = Settings {
    weights: Weights {
        decode: 0.1,
        running: 0.2,
    },
    bounds: QueueBounds {
        waiting: 1000,
        of_flow: 200,
    },
    aging_ms: Some(10_000),
};

const CACHE_TOKENS: u32 = 400_000;

/// The table of placements, in bytes.
const TABLE_BYTES: usize = 16 << 20;

/// How late messages between cores are, in microseconds.
const LATE_US: Range<u64> = 10..200;

/// Bytes of a block of the engine's cache.
const ENGINE_BLOCK_BYTES: u64 = 4 * BLOCK_TOKENS;

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A conversation begins.
    Begin {
        crowd: usize,
        user: bool,
    },
    /// The next turn of a conversation.
    Turn {
        conversation: usize,
    },
    /// The model of a request is ready at its engine.
    Ready {
        request: usize,
        attempt: u32,
    },
    First {
        request: usize,
        attempt: u32,
    },
    End {
        request: usize,
        attempt: u32,
    },
    /// A core takes note that a request may start.
    Delivered {
        message: usize,
    },
    /// A request that waits looks again whether its candidates have changed. Ignored when it was
    /// sent meanwhile, and waits anew.
    Retry {
        request: usize,
        stay: u32,
    },
    /// Another snapshot is in force: all that wait look again.
    LookAgain,
    /// A client leaves, wherever its request is.
    Leave {
        request: usize,
    },
    Crash {
        engine: usize,
    },
    Recover {
        engine: usize,
    },
    /// A reload removes an endpoint, or adds it again.
    Reload {
        engine: usize,
    },
    /// An endpoint has more or fewer slots from now on.
    Slots {
        engine: usize,
        slots: u32,
    },
    /// The control thread reads states and takes medians.
    Second,
    /// It reads the metrics pages of engines.
    Metrics,
    /// It reads states because a model is on its way into a memory.
    Read,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// It was told to start, and the message is on its way.
    Told,
    Sent,
    Over,
}

/// A request.
#[derive(Debug)]
struct Request {
    conversation: usize,
    crowd: usize,
    model: u32,
    blocks: Vec<u64>,
    output: u64,
    /// The limit of the output that the request names.
    output_max: Option<u64>,
    began_us: u64,
    first_us: Option<u64>,
    sent_us: u64,
    phase: Phase,
    /// Raised when it is sent again, so that events of an earlier attempt are ignored.
    attempt: u32,
    /// How often it has waited.
    stay: u32,
    /// Since when it waits although it could start, as the checks see it.
    idle_since_us: Option<u64>,
    engine: usize,
    ticket: Option<TicketId>,
    charge: Option<Charge>,
    dispatch: Option<Dispatch>,
    hit: u64,
    step_us: f64,
}

/// What is measured of a crowd.
#[derive(Debug, Default, Clone)]
pub(super) struct Measured {
    pub(super) first_ms: Vec<f64>,
    /// To the end of the response.
    pub(super) whole_ms: Vec<f64>,
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) failed: u64,
    pub(super) done: u64,
}

impl Measured {
    fn quantile(&self, part: f64) -> f64 {
        quantile(&self.first_ms, part)
    }

    fn whole_quantile(&self, part: f64) -> f64 {
        quantile(&self.whole_ms, part)
    }

    fn add(&mut self, other: Self) {
        self.first_ms.extend(other.first_ms);
        self.whole_ms.extend(other.whole_ms);
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.done += other.done;
        self.failed += other.failed;
    }

    fn mean(&self) -> f64 {
        self.first_ms.iter().sum::<f64>() / self.first_ms.len().max(1) as f64
    }

    fn hits(&self) -> f64 {
        self.cached as f64 / self.prompt.max(1) as f64
    }
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted.len().saturating_sub(1) as f64 * part;
    sorted.get(at as usize).copied().unwrap_or(0.0)
}

/// An endpoint as the gateway sees it.
#[derive(Debug)]
struct Endpoint {
    load: Arc<EndpointLoad>,
    engine: Engine,
    is_up: bool,
    /// It is in the configuration.
    is_known: bool,
    /// Its slots are not configured: they are learned from its metrics.
    has_metrics: bool,
    /// Its usage figures are so many times too high.
    lie: f64,
    /// Its stream has an event for each token, and not for each fifth of the output.
    has_small_events: bool,
    /// Loads that reloads have removed: requests may still hold their slots.
    past: Vec<Arc<EndpointLoad>>,
    /// Requests that held a slot when it was last checked.
    ran: u32,
}

/// The simulation.
pub(super) struct Simulation {
    now_us: u64,
    end_us: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    random: fastrand::Rng,
    noise: f64,
    endpoints: Vec<Endpoint>,
    crowds: Vec<Crowd>,
    conversations: Vec<Conversation>,
    requests: Vec<Request>,
    messages: Vec<Option<(Started, Charge)>>,
    scheduler: Scheduler,
    pub(super) measured: Vec<Measured>,
    /// Requests that were sent to each endpoint.
    pub(super) sent: Vec<u64>,
    checks: bool,
    checked_us: u64,
    late_us: Range<u64>,
    /// The share of clients that leave.
    leaves: f64,
    /// What has happened, for the tests to know that it does.
    seen: BTreeSet<&'static str>,
}

/// The endpoints that may serve a request.
struct Eligible<'s> {
    endpoints: &'s [Endpoint],
    model: u32,
}

fn key(model: u32) -> ModelKey {
    ModelKey::of(&format!("m{model}"))
}

impl Eligible<'_> {
    fn all(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let all = self.endpoints.iter().enumerate();
        all.filter(|(_, endpoint)| {
            endpoint.is_up && endpoint.is_known && endpoint.engine.spec.models.contains(&self.model)
        })
    }
}

impl Candidates for Eligible<'_> {
    fn count(&self) -> usize {
        self.all().count()
    }

    fn each<'c>(&'c self, mut visit: impl FnMut(Candidate<'c>)) {
        for (index, endpoint) in self.all() {
            visit(Candidate {
                index,
                load: &endpoint.load,
                model: key(self.model),
            });
        }
    }

    fn of_index(&self, index: usize) -> Option<Candidate<'_>> {
        let endpoint = self.endpoints.get(index)?;
        Some(Candidate {
            index,
            load: &endpoint.load,
            model: key(self.model),
        })
    }

    fn of_number(&self, number: u16) -> Option<Candidate<'_>> {
        let (index, _) = self
            .all()
            .find(|(_, endpoint)| endpoint.load.number() == number)?;
        self.of_index(index)
    }

    fn common_model(&self) -> Option<ModelKey> {
        Some(key(self.model))
    }
}

/// The hashes that the gateway has of a prompt, made of the engine's blocks.
fn hashes(blocks: &[u64]) -> Vec<u64> {
    let mut chain = 0;
    let of_one = blocks.chunks_exact(4);
    of_one
        .map(|four| {
            chain = four.iter().fold(chain, |chain, block| mix(chain ^ block));
            chain
        })
        .collect()
}

impl Simulation {
    fn new(
        engines: Vec<EngineSpec>,
        crowds: Vec<Crowd>,
        seconds: u64,
        seed: u64,
        table_bytes: usize,
    ) -> Self {
        let endpoints = engines.into_iter().enumerate();
        let endpoints: Vec<_> = endpoints
            .map(|(at, spec)| {
                let load = EndpointLoad::new(at as u16, at as u32);
                load.configure(spec.slots, CACHE_TOKENS);
                Endpoint {
                    load: Arc::new(load),
                    engine: Engine::new(spec),
                    is_up: true,
                    is_known: true,
                    has_metrics: false,
                    lie: 1.0,
                    has_small_events: false,
                    past: Vec::new(),
                    ran: 0,
                }
            })
            .collect();
        let mut simulation = Self {
            now_us: 1_000_000,
            end_us: 1_000_000 + seconds * 1_000_000,
            events: BinaryHeap::new(),
            count: 0,
            random: fastrand::Rng::with_seed(seed),
            noise: 0.0,
            sent: vec![0; endpoints.len()],
            endpoints,
            measured: vec![Measured::default(); crowds.len()],
            crowds,
            conversations: Vec::new(),
            requests: Vec::new(),
            messages: Vec::new(),
            scheduler: Scheduler::new(table_bytes, seed),
            checks: false,
            checked_us: 0,
            late_us: LATE_US,
            leaves: 0.0,
            seen: BTreeSet::new(),
        };
        simulation.hear_warmth();
        simulation.at(1_000_000, Event::Second);
        simulation.populate();
        simulation
    }

    fn at(&mut self, after_us: u64, event: Event) {
        self.count += 1;
        self.events
            .push(Reverse((self.now_us + after_us, self.count, event)));
    }

    fn exponential(&mut self, mean_us: f64) -> u64 {
        (-(1.0 - self.random.f64()).ln() * mean_us) as u64
    }

    fn noisy(&mut self) -> f64 {
        if self.noise == 0.0 {
            return 1.0;
        }
        let (a, b) = (1.0 - self.random.f64(), self.random.f64());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (normal * self.noise - self.noise * self.noise / 2.0).exp()
    }

    fn populate(&mut self) {
        for crowd in 0..self.crowds.len() {
            match self.crowds[crowd].users {
                0 => {
                    let mean_us = 1e6 / self.crowds[crowd].arrivals;
                    let mut at = self.exponential(mean_us);
                    while at < self.end_us - self.now_us {
                        self.at(at, Event::Begin { crowd, user: false });
                        at += self.exponential(mean_us).max(1);
                    }
                }
                users => {
                    for _ in 0..users {
                        let at = self.random.u64(..500_000);
                        self.at(at, Event::Begin { crowd, user: true });
                    }
                }
            }
        }
    }

    /// Runs to the end, and a little longer for what is in progress.
    pub(super) fn run(&mut self) {
        self.run_until(self.end_us + 5_000_000);
    }

    fn run_until(&mut self, until_us: u64) {
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= until_us
            && let Some(Reverse((at, _, event))) = self.events.pop()
        {
            self.now_us = at;
            self.on(event);
            if self.checks {
                self.check();
            }
        }
    }

    fn on(&mut self, event: Event) {
        let is_open = self.now_us < self.end_us;
        match event {
            Event::Begin { crowd, user } if is_open => self.begin(crowd, user),
            Event::Turn { conversation } if is_open => self.turn(conversation),
            Event::Begin { .. } | Event::Turn { .. } => {}
            Event::Ready { request, attempt } if self.is_current(request, attempt) => {
                self.ready(request);
            }
            Event::First { request, attempt } if self.is_current(request, attempt) => {
                self.first(request);
            }
            Event::End { request, attempt } if self.is_current(request, attempt) => {
                self.end(request);
            }
            Event::Ready { .. } | Event::First { .. } | Event::End { .. } => {}
            Event::Delivered { message } => self.delivered(message),
            Event::Retry { request, stay } => self.retry(request, stay),
            Event::LookAgain => self.look_again(),
            Event::Leave { request } => self.leave(request),
            Event::Crash { engine } => self.crash(engine),
            Event::Recover { engine } => self.recover(engine),
            Event::Reload { engine } => self.reload(engine),
            Event::Slots { engine, slots } => self.set_slots(engine, slots),
            Event::Second => self.second(),
            Event::Metrics => self.read_metrics(),
            Event::Read => self.hear_warmth(),
        }
    }

    fn is_current(&self, request: usize, attempt: u32) -> bool {
        let request = &self.requests[request];
        request.attempt == attempt && request.phase == Phase::Sent
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1000 + 1
    }
}
