//! The scheduler under real threads: the same rules as in virtual time, where only the order of
//! memory accesses can break them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::queue::{Queue, Verdict};
use super::*;

const THREADS: u64 = 4;
const STEPS: u64 = 25_000;

/// What the threads share.
struct Shared {
    scheduler: Scheduler,
    places: Vec<WaitingPlace>,
    /// Requests that were told to start, each for any thread to run.
    told: Mutex<Vec<(Started, Charge)>>,
    /// Requests that began, and those that ended or left.
    begun: AtomicU64,
    over: AtomicU64,
}

impl Shared {
    fn new(slots: &[u32]) -> Self {
        let place = |(index, slots): (usize, &u32)| {
            let load = EndpointLoad::new(index as u16, 0);
            load.configure(*slots, CACHE_TOKENS);
            WaitingPlace {
                index,
                load: Arc::new(load),
                model: ModelKey::of("m"),
                rank: 0,
            }
        };
        Self {
            scheduler: Scheduler::new(64 << 10, 1),
            places: slots.iter().enumerate().map(place).collect(),
            told: Mutex::default(),
            begun: AtomicU64::new(0),
            over: AtomicU64::new(0),
        }
    }

    fn tell(&self, started: Vec<(Started, Charge)>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend(started);
    }

    fn take(&self) -> Option<(Started, Charge)> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.pop()
    }

    fn reconsider(&self, now_ms: u64) {
        self.tell(self.scheduler.reconsider(&SETTINGS, now_ms));
    }

    /// No endpoint has more requests than slots.
    fn check(&self) {
        for place in &self.places {
            let slots = place.load.slots().unwrap_or(u32::MAX);
            assert!(place.load.running() <= slots);
        }
    }
}

/// What a thread has in progress.
struct Worker<'s> {
    shared: &'s Shared,
    random: fastrand::Rng,
    now_ms: u64,
    running: Vec<(Dispatch, Option<Charge>)>,
    waiting: Vec<TicketId>,
}

impl Worker<'_> {
    fn run(&mut self) {
        for step in 0..STEPS {
            self.now_ms = 1 + step / 100;
            match self.random.u32(..10) {
                0..4 => self.begin(),
                4..8 => self.end(),
                8 => self.leave(),
                _ => {}
            }
            while let Some((started, charge)) = self.shared.take() {
                self.send(started.chosen, started.slot, Some(charge));
            }
            self.shared.check();
        }
    }

    fn begin(&mut self) {
        let shared = self.shared;
        shared.begun.fetch_add(1, Ordering::Relaxed);
        let bytes = self.random.u64(1..20_000);
        let waiting = || {
            let choosing = ChoiceRule::LeastTime {
                prompt: Prompt::of_text(bytes, 0),
                blocks: Box::default(),
                output_max: None,
                pinned: None,
            };
            Waiting::new(shared.places.clone(), choosing, (0, 0))
        };
        if shared.scheduler.waiting() == 0 {
            let random = self.random.u64(..);
            let weights = SETTINGS.weights;
            let chooser = shared.scheduler.chooser(weights, self.now_ms, random);
            let mut first = waiting();
            if first.consider(&chooser) == Verdict::Starts
                && let Some(started) = first.started()
            {
                return self.send(started.chosen, started.slot, None);
            }
        }
        let standing = QueueStanding {
            flow: FlowKey(self.random.u64(..5)),
            priority: 5,
            weight: 1,
            cost: bytes as f64,
            since_ms: self.now_ms,
        };
        match shared
            .scheduler
            .wait(standing, waiting(), &SETTINGS, self.now_ms)
        {
            Ok((id, started)) => {
                self.waiting.push(id);
                shared.tell(started);
            }
            Err(_) => {
                shared.over.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn send(&mut self, chosen: Evaluated, slot: Slot, charge: Option<Charge>) {
        let load = Arc::clone(slot.load());
        let dispatch = Dispatch::new(&load, Some(slot), chosen, self.now_ms * 1000);
        self.running.push((dispatch, charge));
    }

    fn end(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.random.usize(..self.running.len());
        let (mut dispatch, charge) = self.running.swap_remove(at);
        let now_us = self.now_ms * 1000;
        let figures = self
            .shared
            .scheduler
            .figures(ModelKey::of("m"), self.now_ms);
        if self.random.bool() {
            let _ = dispatch.first_byte(figures, (true, true), now_us);
        }
        drop(dispatch);
        if let Some(charge) = charge {
            self.shared
                .scheduler
                .settle(&charge, self.random.f64() * 1e4);
        }
        self.shared.over.fetch_add(1, Ordering::Relaxed);
        self.shared.reconsider(self.now_ms);
    }

    fn leave(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let at = self.random.usize(..self.waiting.len());
        let id = self.waiting.swap_remove(at);
        match self.shared.scheduler.leave(id) {
            QueueExit::Waited => {}
            QueueExit::MadeRoom => self.shared.reconsider(self.now_ms),
            // Another thread runs it, or has done so.
            QueueExit::HadStarted => return,
        }
        self.shared.over.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets threads work, and returns what they have left.
fn work(shared: &Shared) -> Vec<(Dispatch, Option<Charge>)> {
    std::thread::scope(|scope| {
        let worker = |seed| {
            scope.spawn(move || {
                let mut worker = Worker {
                    shared,
                    random: fastrand::Rng::with_seed(seed),
                    now_ms: 1,
                    running: Vec::new(),
                    waiting: Vec::new(),
                };
                worker.run();
                worker.running
            })
        };
        let workers: Vec<_> = (0..THREADS).map(worker).collect();
        let ends = workers.into_iter().map(|worker| worker.join());
        ends.flat_map(|left| left.expect("a worker ends")).collect()
    })
}

fn run(slots: &[u32]) {
    let shared = Shared::new(slots);
    let left = work(&shared);
    let told: Vec<_> = std::iter::from_fn(|| shared.take()).collect();
    let running: u32 = shared.places.iter().map(|at| at.load.running()).sum();
    assert_eq!(running as usize, left.len() + told.len());
    let waiting = shared.scheduler.waiting() as u64;
    // Of one endpoint no slot is free while a request waits; of several one may wait for another.
    let is_idle = match slots {
        [slots] => running < *slots,
        _ => running == 0,
    };
    assert!(waiting == 0 || !is_idle, "{waiting} wait, {running} run");
    let counted = shared.over.load(Ordering::Relaxed) + u64::from(running) + waiting;
    assert_eq!(counted, shared.begun.load(Ordering::Relaxed));
    // The rest ends one after another.
    let mut left: Vec<(Option<Dispatch>, Option<Slot>, Option<Charge>)> = left
        .into_iter()
        .map(|(dispatch, charge)| (Some(dispatch), None, charge))
        .chain(told.into_iter().map(of_told))
        .collect();
    while let Some(one) = left.pop() {
        drop(one);
        shared.reconsider(STEPS);
        left.extend(std::iter::from_fn(|| shared.take()).map(of_told));
    }
    assert_eq!(shared.scheduler.waiting(), 0);
    let in_progress = shared.scheduler.with_queue(Queue::in_progress);
    assert_eq!(in_progress, 0);
    for place in &shared.places {
        assert_eq!((place.load.running(), place.load.pending()), (0, 0));
    }
}

fn of_told(
    (started, charge): (Started, Charge),
) -> (Option<Dispatch>, Option<Slot>, Option<Charge>) {
    (None, Some(started.slot), Some(charge))
}

#[test]
fn threads_lose_no_slot_and_no_request() {
    run(&[1, 2, 3]);
    run(&[2]);
}
