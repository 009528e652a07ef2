//! The invariants of docs/contract/scheduling.md#5 over many seeds: small random fleets and crowds,
//! with crashes, reloads, slots that change, late messages, and clients that leave in every state.
//!
//! `cargo test` runs 100 seeds. `OLLA_SEED=17` replays one, `OLLA_SEEDS=10000` runs more. A failing
//! seed is printed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::super::choose::Evaluated;
use super::*;

const SEEDS: u64 = 100;

/// A small table is cheaper to make.
const SMALL_TABLE_BYTES: usize = 64 << 10;

/// A slot free and an eligible request waiting never coexist for longer.
const IDLE_US_MAX: u64 = 10_000;

/// The same while an endpoint loads a model: the prediction gets shorter with time alone, which a
/// request that waits sees when it looks again.
const IDLE_WITH_LOADS_US_MAX: u64 = 1_010_000;

/// How often that is looked at.
const CHECK_EVERY_US: u64 = 1_000;

/// Two predictions may differ by so much before the random factor cannot turn them round.
const SPREAD: f32 = 1.02;
const RESOLUTION_S: f32 = 0.004;

impl Simulation {
    /// What holds after each event.
    pub(super) fn check(&mut self) {
        for endpoint in &mut self.endpoints {
            let slots = endpoint.load.slots().unwrap_or(u32::MAX);
            let running = endpoint.load.running();
            assert!(
                running <= slots || running <= endpoint.ran,
                "{running} requests run in {slots} slots, {} ran before",
                endpoint.ran
            );
            endpoint.ran = running;
        }
        if self.scheduler.waiting() > 0 && self.now_us >= self.checked_us + CHECK_EVERY_US {
            self.checked_us = self.now_us;
            self.check_waiting();
        }
    }

    /// No request waits that could start where it would start soonest.
    fn check_waiting(&mut self) {
        let (now_us, now_ms) = (self.now_us, self.now_ms());
        let chooser = self.scheduler.chooser(SETTINGS.weights, now_ms, 0);
        let requests = &mut self.requests;
        self.scheduler.with_queue(|queue| {
            for waiting in queue.considered() {
                let request = &mut requests[waiting.number as usize];
                assert_eq!(request.phase, Phase::Waiting);
                let idle = Idle::of(waiting, &chooser);
                if !idle.is_idle() {
                    request.idle_since_us = None;
                    continue;
                }
                let since = *request.idle_since_us.get_or_insert(now_us);
                let most = if idle.loads {
                    IDLE_WITH_LOADS_US_MAX
                } else {
                    IDLE_US_MAX
                };
                assert!(
                    now_us - since <= most,
                    "request {} has waited for {} us beside a free slot: T {} s there, {} s elsewhere",
                    waiting.number,
                    now_us - since,
                    idle.free_s,
                    idle.taken_s
                );
            }
        });
    }

    /// What holds when all requests are over.
    fn check_end(&self) {
        let left = self.requests.iter().filter(|r| r.phase != Phase::Over);
        assert_eq!(left.count(), 0, "requests are left");
        assert_eq!(self.scheduler.waiting(), 0);
        self.scheduler.with_queue(|queue| {
            assert!(queue.is_empty());
            assert_eq!(queue.in_progress(), 0, "charges are left");
        });
        assert!(self.messages.iter().all(Option::is_none));
        for endpoint in &self.endpoints {
            for load in endpoint.past.iter().chain([&endpoint.load]) {
                assert_eq!((load.running(), load.pending()), (0, 0));
            }
            assert_eq!(endpoint.engine.running, 0);
        }
    }
}

/// The predictions for a request that waits: the best where it could start, and the best where it
/// could not.
struct Idle {
    free_s: f32,
    taken_s: f32,
    loads: bool,
}

impl Idle {
    fn of(waiting: &Waiting, chooser: &super::super::choose::Chooser<'_>) -> Self {
        let mut idle = Self {
            free_s: f32::INFINITY,
            taken_s: f32::INFINITY,
            loads: false,
        };
        waiting.evaluate(chooser, |seen: &Evaluated| {
            let place = waiting.places.iter().find(|at| at.index == seen.index);
            let is_free = place.is_some_and(|at| {
                at.load.has_free_slot() && !at.load.would_hold_back(at.model, chooser.now_ms)
            });
            // What was placed there since the last event that wakes requests is no reason to wake them.
            let pending = place.map_or(0, |at| at.load.pending());
            let tokens = (pending + seen.needs.uncached()).max(1);
            let of_hit = seen.needs.hit as f32 * seen.terms.prefill / tokens as f32;
            if is_free {
                idle.free_s = idle.free_s.min(seen.total() + of_hit);
            } else {
                idle.taken_s = idle.taken_s.min(seen.total());
            }
            idle.loads |= seen.terms.load > 0.0;
        });
        idle
    }

    fn is_idle(&self) -> bool {
        // The prediction for a model that would have to be loaded counts a tenth more of the spread.
        let most = 1.0 + (SPREAD - 1.0) * 1.1;
        self.free_s.is_finite() && self.free_s * most + RESOLUTION_S * 1.1 < self.taken_s
    }
}

fn random_engine(random: &mut fastrand::Rng, models: u32) -> EngineSpec {
    let mut has: Vec<u32> = (0..models).filter(|_| random.u32(..3) > 0).collect();
    if has.is_empty() {
        has.push(random.u32(..models));
    }
    let loads = random.u32(..3) == 0;
    EngineSpec {
        loaded_max: if loads {
            random.usize(1..=has.len())
        } else {
            usize::MAX
        },
        models: has,
        load_ms: 100.0 + 1_500.0 * random.f64(),
        refuses_while_loading: random.bool(),
        ..EngineSpec::vllm(
            random.u32(1..=4),
            1_000.0 + 19_000.0 * random.f64(),
            (1.0 + 15.0 * random.f64(), random.f64()),
            4_000 + random.u64(..100_000),
        )
    }
}

fn random_crowd(random: &mut fastrand::Rng, models: u32, engines: usize) -> Crowd {
    let first = random.u32(..models);
    let has_users = random.u32(..3) == 0;
    Crowd {
        models: (first..models).collect(),
        zipf: random.f64(),
        user_tokens: 32 + random.u64(..1_500),
        output_tokens: 1 + random.u64(..80),
        system_tokens: random.u64(..1_000),
        groups: random.u64(1..20),
        rounds: random.u32(1..4),
        think_ms: 300.0 * random.f64(),
        arrivals: (0.5 + 8.0 * random.f64()) * engines as f64,
        users: if has_users { random.u32(1..30) } else { 0 },
        flow: random.u64(..6),
        weight: random.u32(1..4),
        priority: random.u8(4..=6),
    }
}

/// A simulation with everything that may happen.
fn random_simulation(seed: u64) -> Simulation {
    let random = &mut fastrand::Rng::with_seed(seed);
    let models = random.u32(1..=4);
    let count = random.usize(1..=6);
    let engines: Vec<_> = (0..count).map(|_| random_engine(random, models)).collect();
    let crowds: Vec<_> = (0..random.usize(1..=4))
        .map(|_| random_crowd(random, models, count))
        .collect();
    let seconds = random.u64(1..4);
    let mut simulation = Simulation::new(engines, crowds, seconds, seed, SMALL_TABLE_BYTES);
    simulation.checks = true;
    simulation.noise = if random.bool() { 0.7 } else { 0.0 };
    simulation.leaves = if random.bool() { 0.3 } else { 0.0 };
    simulation.late_us = match random.u32(..3) {
        0 => 1..50_000,
        _ => LATE_US,
    };
    for endpoint in &mut simulation.endpoints {
        if random.u32(..5) == 0 {
            endpoint.has_metrics = true;
            endpoint.load.configure(0, CACHE_TOKENS);
        }
    }
    for _ in 0..random.u32(..4) {
        let (at, engine) = (random.u64(..seconds * 1_000_000), random.usize(..count));
        let slots = random.u32(1..=4);
        let event = match random.u32(..3) {
            0 => Event::Crash { engine },
            1 => Event::Reload { engine },
            _ => Event::Slots { engine, slots },
        };
        simulation.at(at, event);
    }
    simulation
}

fn run(seed: u64) -> (BTreeSet<&'static str>, usize) {
    let mut simulation = random_simulation(seed);
    simulation.run_until(u64::MAX);
    simulation.check_end();
    (simulation.seen, simulation.requests.len())
}

pub(super) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn nothing_is_lost_and_no_slot_is_idle() {
    if let Some(seed) = number("OLLA_SEED") {
        run(seed);
        return;
    }
    let mut seen = BTreeSet::new();
    let mut requests = 0;
    for seed in 0..number("OLLA_SEEDS").unwrap_or(SEEDS) {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok((more, count)) => {
                seen.extend(more);
                requests += count;
            }
            Err(panic) => {
                eprintln!(
                    "scheduler simulation: seed {seed} fails; replay it with OLLA_SEED={seed}"
                );
                resume_unwind(panic);
            }
        }
    }
    // The simulation proves something only if it reaches every state.
    const NEEDED: [&str; 13] = [
        "crash",
        "crash while streaming",
        "crash before first byte",
        "added",
        "removed",
        "fewer slots than running",
        "refused",
        "left when waiting",
        "left when told",
        "left when sent",
        "left when streaming",
        "endpoint gone when told",
        "made room",
    ];
    for needed in NEEDED {
        assert!(
            seen.contains(needed),
            "no seed reaches {needed:?}: {seen:#?}"
        );
    }
    assert!(requests > 0);
}

/// Equal requests for equal endpoints take as many rounds as they fill all slots.
#[test]
fn equal_requests_take_the_fewest_rounds() {
    for seed in 0..200 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let scheduler = Scheduler::new(SMALL_TABLE_BYTES, seed);
        let (mut places, mut slots) = (Vec::new(), 0);
        for index in 0..random.usize(1..=6) {
            let load = EndpointLoad::new(index as u16, 0);
            let own = random.u32(1..=4);
            load.configure(own, CACHE_TOKENS);
            slots += own;
            places.push(WaitingPlace {
                index,
                load: Arc::new(load),
                model: key(0),
                rank: 0,
            });
        }
        let count = random.u32(1..60);
        let mut running = Vec::new();
        for number in 0..count {
            let choosing = ChoiceRule::LeastTime {
                prompt: Prompt::of_text(400, 0),
                blocks: Box::default(),
                output_max: None,
                pinned: None,
            };
            let standing = QueueStanding {
                flow: FlowKey(random.u64(..3)),
                priority: random.u8(4..6),
                weight: 1,
                cost: 500.0,
                since_ms: 1,
            };
            let waiting = Waiting::new(places.clone(), choosing, (0, number.into()));
            let waited = scheduler.wait(standing, waiting, &SETTINGS, 1);
            running.extend(waited.expect("within the bounds").1);
        }
        let mut rounds = 0;
        while !running.is_empty() {
            rounds += 1;
            let is_last = scheduler.waiting() == 0;
            assert!(is_last || running.len() == slots as usize, "seed {seed}");
            running.clear();
            running = scheduler.reconsider(&SETTINGS, 1 + 1_000 * rounds);
        }
        assert_eq!(rounds, u64::from(count.div_ceil(slots)), "seed {seed}");
    }
}
