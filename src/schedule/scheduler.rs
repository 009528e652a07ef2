//! What all cores share of scheduling: the placements, what was learned of models and of the fleet,
//! and the admission queue.
//!
//! Contract: docs/contract/scheduling.md

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::millis;
use crate::config::Plan;

use super::choose::Chooser;
use super::dispatch::Figures;
use super::load::EndpointLoad;
use super::models::{ModelKey, ModelTable, mix};
use super::placements::Placements;
use super::predict::{Medians, ModelPlace, Weights};
use super::prompt::seed_of_key;
use super::queue::{Charge, FlowKey, Full, Queue, QueueBounds, QueueStanding, TicketId};
use super::survey::QueueSurvey;
use super::waiting::{Started, Waiting};

/// The settings of a choice, of the configuration in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    /// Of the prediction.
    pub weights: Weights,
    /// Of the queue.
    pub bounds: QueueBounds,
    /// `queue.aging` in milliseconds; `None` = never.
    pub aging_ms: Option<u64>,
}

/// Where a request was when it left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueExit {
    /// It waited, and nothing changes for the others.
    Waited,
    /// It waited, and another that may start is considered in its place: consider all again.
    MadeRoom,
    /// It was told to start, or will be: its slot goes to another.
    HadStarted,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Scheduler {
    placements: Option<Placements>,
    /// What keeps prompts of different keys apart.
    secret: u64,
    models: ModelTable,
    medians: Medians,
    /// Requests in the queue, so that nobody takes its lock for an empty one.
    waiting: AtomicUsize,
    queue: Mutex<Queue<Waiting>>,
    /// When those in it were last considered.
    considered_ms: AtomicU64,
    random: AtomicU64,
    has_learned: AtomicBool,
}

impl Settings {
    /// Those of a configuration.
    pub(crate) fn of(plan: &Plan) -> Self {
        let least_time = &plan.proxy.least_time;
        Self {
            weights: Weights {
                decode: least_time.decode_weight as f32,
                running: least_time.running_weight as f32,
            },
            bounds: QueueBounds {
                waiting: plan.queue.max_waiting,
                of_flow: plan.queue.max_waiting_per_flow,
            },
            aging_ms: plan.queue.aging.map(millis),
        }
    }
}

impl Scheduler {
    /// With a table of placements of at most so many bytes. `seed` must not be guessed by clients.
    pub(crate) fn new(table_bytes: usize, seed: u64) -> Self {
        Self {
            placements: Placements::new(table_bytes),
            secret: seed,
            models: ModelTable::default(),
            medians: Medians::default(),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            considered_ms: AtomicU64::new(0),
            random: AtomicU64::new(seed),
            has_learned: AtomicBool::new(false),
        }
    }

    /// The table of placements, if they are switched on.
    pub(crate) fn placements(&self) -> Option<&Placements> {
        self.placements.as_ref()
    }

    /// Where the hashes of a prompt begin that is kept apart for this key.
    pub(crate) fn seed_of(&self, key: &str) -> u64 {
        seed_of_key(self.secret, key)
    }

    /// What was learned of models.
    pub(crate) fn models(&self) -> &ModelTable {
        &self.models
    }

    /// Takes the medians of a fleet and its models anew, if anything was learned since.
    pub(crate) fn refresh_medians<'l>(
        &self,
        loads: impl Iterator<Item = &'l EndpointLoad> + Clone,
        now_ms: u64,
    ) {
        if self.has_learned.swap(false, Ordering::Relaxed) {
            self.medians.refresh(loads, &self.models, now_ms);
        }
    }

    /// What learning needs of a model.
    pub(crate) fn figures(&self, model: ModelKey, now_ms: u64) -> Figures<'_> {
        if !self.has_learned.load(Ordering::Relaxed) {
            self.has_learned.store(true, Ordering::Relaxed);
        }
        Figures {
            model: self.models.of(model, now_ms),
            medians: &self.medians,
        }
    }

    /// What a choice needs.
    pub(crate) fn chooser(&self, weights: Weights, now_ms: u64, random: u64) -> Chooser<'_> {
        Chooser {
            placements: self.placements.as_ref(),
            models: &self.models,
            medians: &self.medians,
            weights,
            now_ms,
            random,
        }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Lets a request wait, and considers it together with the others if one of its endpoints has a
    /// free slot. Returns its ticket, and what may start now, perhaps itself.
    ///
    /// # Errors
    /// The bound that it does not fit in.
    pub(crate) fn wait(
        &self,
        standing: QueueStanding,
        mut waiting: Waiting,
        settings: &Settings,
        now_ms: u64,
    ) -> Result<(TicketId, Vec<(Started, Charge)>), Full> {
        waiting.prefer(&self.chooser(settings.weights, now_ms, 0));
        let mut queue = self.lock();
        let id = queue.push(standing, settings.bounds, waiting)?;
        // Seen before a slot that is given up from now on: whoever gives it up looks here.
        self.waiting.store(queue.len(), Ordering::SeqCst);
        let started = self.drain_for(id, &mut queue, settings, now_ms);
        Ok((id, started))
    }

    /// Whether one more request of a flow may wait.
    ///
    /// # Errors
    /// The bound that it does not fit in.
    pub(crate) fn room(&self, flow: FlowKey, settings: &Settings) -> Result<(), Full> {
        self.lock().room(flow, settings.bounds)
    }

    /// Considers all that wait: a slot was given back, or the fleet has changed.
    pub(crate) fn reconsider(&self, settings: &Settings, now_ms: u64) -> Vec<(Started, Charge)> {
        if self.waiting() == 0 {
            return Vec::new();
        }
        let mut queue = self.lock();
        self.drain(&mut queue, settings, now_ms)
    }

    /// Whether those that wait have been considered at this time or later.
    pub(crate) fn has_considered(&self, since_ms: u64) -> bool {
        self.considered_ms.load(Ordering::Relaxed) >= since_ms
    }

    /// Considers all that wait because a request has come or changed. If all its endpoints are full,
    /// that lets nobody start; a reload changes all requests that wait, one after the other.
    fn drain_for(
        &self,
        id: TicketId,
        queue: &mut Queue<Waiting>,
        settings: &Settings,
        now_ms: u64,
    ) -> Vec<(Started, Charge)> {
        if queue.get_mut(id).is_some_and(|waiting| waiting.may_start()) {
            self.drain(queue, settings, now_ms)
        } else {
            Vec::new()
        }
    }

    fn drain(
        &self,
        queue: &mut Queue<Waiting>,
        settings: &Settings,
        now_ms: u64,
    ) -> Vec<(Started, Charge)> {
        self.considered_ms.store(now_ms, Ordering::Relaxed);
        let mut random = mix(self.random.fetch_add(1, Ordering::Relaxed));
        let mut started = Vec::new();
        queue.drain(
            now_ms,
            settings.aging_ms,
            |waiting| {
                random = mix(random.wrapping_add(1));
                let chooser = self.chooser(settings.weights, now_ms, random);
                waiting.consider(&chooser)
            },
            |waiting, charge| {
                started.extend(waiting.started().map(|started| (started, charge)));
            },
        );
        self.waiting.store(queue.len(), Ordering::SeqCst);
        started
    }

    /// Changes a request that waits, and considers all again if it may start now. `None` if it does
    /// not wait any more.
    pub(crate) fn change(
        &self,
        id: TicketId,
        change: impl FnOnce(&mut Waiting),
        settings: &Settings,
        now_ms: u64,
    ) -> Option<Vec<(Started, Charge)>> {
        let mut queue = self.lock();
        let waiting = queue.get_mut(id)?;
        change(waiting);
        waiting.prefer(&self.chooser(settings.weights, now_ms, 0));
        Some(self.drain_for(id, &mut queue, settings, now_ms))
    }

    /// Takes a request out of the queue whose client has left.
    pub(crate) fn leave(&self, id: TicketId) -> QueueExit {
        let mut queue = self.lock();
        let left = queue.remove(id);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        match left {
            None => QueueExit::HadStarted,
            Some((_, true)) => QueueExit::MadeRoom,
            Some((_, false)) => QueueExit::Waited,
        }
    }

    /// Looks at the queue.
    #[cfg(test)]
    pub(super) fn with_queue<T>(&self, look: impl FnOnce(&Queue<Waiting>) -> T) -> T {
        look(&self.lock())
    }

    /// Counts the requests that wait.
    pub(crate) fn survey(&self) -> QueueSurvey {
        let mut survey = QueueSurvey::default();
        if self.waiting() > 0 {
            self.lock().iter().for_each(|waiting| survey.add(waiting));
        }
        survey
    }

    /// What is known of a request that waits.
    pub(crate) fn look<T>(&self, id: TicketId, look: impl FnOnce(&Waiting) -> T) -> Option<T> {
        self.lock().get_mut(id).map(|waiting| look(waiting))
    }

    /// The place of a request that waits: 1 for the one that is next.
    pub(crate) fn position(&self, id: TicketId, settings: &Settings, now_ms: u64) -> usize {
        self.lock().position(id, now_ms, settings.aging_ms)
    }

    /// Seconds until one more request than those that wait would get a slot at these endpoints.
    pub(crate) fn queue_left<'l>(
        &self,
        places: impl Iterator<Item = (&'l EndpointLoad, ModelKey)>,
        now_ms: u64,
    ) -> Option<f32> {
        let (mut slots, mut service, mut count) = (0_u64, 0.0, 0_u16);
        for (load, key) in places {
            let place = self.place(load, key);
            slots += u64::from(load.slots().unwrap_or(1).max(1));
            service += place.service(now_ms);
            count += 1;
        }
        let mean = service / f32::from(count);
        (count > 0).then(|| (self.waiting() + 1) as f32 / slots as f32 * mean)
    }

    /// Seconds until a model is loaded at the first of these endpoints.
    pub(crate) fn load_left<'l>(
        &self,
        places: impl Iterator<Item = (&'l EndpointLoad, ModelKey)>,
        now_ms: u64,
    ) -> Option<f32> {
        let left = places.map(|(load, key)| self.place(load, key).load_left(now_ms));
        left.min_by(f32::total_cmp)
    }

    /// A model on an endpoint, as far as it is known.
    pub(crate) fn place<'s>(&'s self, load: &'s EndpointLoad, key: ModelKey) -> ModelPlace<'s> {
        ModelPlace {
            load,
            pair: load.pair(key),
            model: self.models.known(key),
            medians: &self.medians,
        }
    }

    /// Corrects what a flow was charged for a request that has ended.
    pub(crate) fn settle(&self, charge: &Charge, service: f64) {
        self.lock().settle(charge, service);
    }

    /// A panic ends the process, so a poisoned lock is never seen.
    fn lock(&self) -> MutexGuard<'_, Queue<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
