//! The counters of one core and their hand-over.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::recent::{Batch, Ring};
use super::scheduling::{CachedPrefix, FirstTokens, QueueRefusal, SchedulingCounts};
use super::{
    AttemptEnd, BLOCKED_IPS_MAX, CLIENTS_MAX, ENDPOINTS_MAX, EndpointCounts, KeyRefusal,
    LeftBecause, MODEL_NAME_BYTES_MAX, MODELS_MAX, Outcome, PairCounts, RequestCounts, RequestEnd,
    TranslatorCounts, TranslatorEnd, Violation,
};
use crate::dialects::counted_as;

/// Most latencies handed over at once, of attempts and of requests each. With a hand-over every 50
/// ms it is reached beyond 160,000 requests a second on one core; further requests are counted, but
/// not in percentiles.
const SAMPLES_MAX: usize = 8192;

/// Most translators.
const TRANSLATORS_MAX: usize = 16;

/// The counters of one core. Recording takes no lock, reads no clock and, for known endpoints and
/// models, allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    any: bool,
    system: SystemCounts,
    endpoint_slots: FxHashMap<u32, usize>,
    endpoints: Vec<EndpointSlot>,
    touched_endpoints: Vec<usize>,
    model_slots: FxHashMap<Arc<str>, usize>,
    models: Vec<ModelSlot>,
    touched_models: Vec<usize>,
    attempt_samples: Vec<Sample>,
    request_samples: Vec<Sample>,
    recent: Ring,
    limited: HashSet<IpAddr>,
    translators: Vec<(&'static str, TranslatorCounts)>,
    /// By translator and field.
    dropped: Vec<((&'static str, &'static str), u64)>,
}

/// The counts of one core since its last hand-over, to be merged with
/// [`Totals::merge`](super::Totals::merge).
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(super) system: SystemCounts,
    pub(super) endpoints: Vec<(u32, EndpointCounts)>,
    pub(super) models: Vec<ModelDelta>,
    /// Their slots are indexes of `endpoints`.
    pub(super) attempt_samples: Vec<Sample>,
    /// Their slots are indexes of `models`.
    pub(super) request_samples: Vec<Sample>,
    pub(super) recent: Batch,
    pub(super) limited: Vec<IpAddr>,
    pub(super) translators: Vec<(&'static str, TranslatorCounts)>,
    pub(super) dropped: Vec<((&'static str, &'static str), u64)>,
}

#[derive(Debug)]
pub(super) struct ModelDelta {
    pub(super) name: Arc<str>,
    pub(super) counts: RequestCounts,
    pub(super) predictions: FirstTokens,
    pub(super) clients: Vec<IpAddr>,
    pub(super) endpoints: Vec<(u32, PairCounts)>,
}

/// Counters of the whole system.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::operations) struct SystemCounts {
    pub(in crate::operations) requests: RequestCounts,
    /// The requests with a model for which an endpoint was tried.
    pub(in crate::operations) model_requests: RequestCounts,
    /// Bytes of all endpoints.
    pub(in crate::operations) endpoint_bytes: u64,
    pub(in crate::operations) rate_limit_violations: u64,
    pub(in crate::operations) size_violations: u64,
    pub(in crate::operations) client_disconnects: u64,
    pub(in crate::operations) retry_budget_exhausted: u64,
    pub(in crate::operations) stream_keep_alives: u64,
    /// In the order of [`KeyRefusal::ALL`].
    pub(in crate::operations) key_refusals: [u64; KeyRefusal::ALL.len()],
    pub(in crate::operations) scheduling: SchedulingCounts,
}

/// Times of one attempt or request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) slot: u32,
    /// At most 49 days; `None` unless it succeeded.
    pub(super) latency_ms: Option<u32>,
    /// At most 71 minutes.
    pub(super) first_byte_us: Option<u32>,
}

#[derive(Debug)]
struct EndpointSlot {
    id: u32,
    counts: EndpointCounts,
    /// Its index among those counted since the last hand-over.
    touched: Option<u32>,
}

#[derive(Debug)]
struct ModelSlot {
    name: Arc<str>,
    counts: RequestCounts,
    predictions: FirstTokens,
    clients: FxHashSet<IpAddr>,
    endpoints: Vec<(u32, PairCounts)>,
    touched: Option<u32>,
}

impl Recorder {
    /// Counts the end of an attempt.
    pub(crate) fn attempt(&mut self, end: &AttemptEnd<'_>) {
        self.any = true;
        self.system.endpoint_bytes = self.system.endpoint_bytes.saturating_add(end.bytes);
        if let Some(at) = self.endpoint_slot(end.endpoint_id)
            && let Some(slot) = self.endpoints.get_mut(at)
        {
            slot.counts.count(end);
            let place = touch(&mut slot.touched, &mut self.touched_endpoints, at);
            let judged = end.outcome.judged(end.status);
            note(
                &mut self.attempt_samples,
                place,
                judged,
                end.latency_ms,
                end.first_byte_us,
            );
        }
        if let Some(at) = end.model.and_then(|model| self.model_slot(model))
            && let Some(slot) = self.models.get_mut(at)
        {
            touch(&mut slot.touched, &mut self.touched_models, at);
            let room = slot.endpoints.len() < ENDPOINTS_MAX;
            let known = |(id, _): &&mut (u32, PairCounts)| *id == end.endpoint_id;
            if let Some((_, counts)) = slot.endpoints.iter_mut().find(known) {
                counts.count(end);
            } else if room {
                let mut counts = PairCounts::default();
                counts.count(end);
                slot.endpoints.push((end.endpoint_id, counts));
            }
        }
    }

    /// Counts a request that leaves an endpoint for another.
    pub(crate) fn left(&mut self, endpoint_id: u32, because: LeftBecause) {
        self.any = true;
        if let Some(at) = self.endpoint_slot(endpoint_id)
            && let Some(slot) = self.endpoints.get_mut(at)
        {
            slot.counts.left[because as usize] += 1;
            touch(&mut slot.touched, &mut self.touched_endpoints, at);
        }
    }

    /// Counts a response that was passed on because the budget of repeats was exhausted.
    pub(crate) fn retry_budget_exhausted(&mut self) {
        self.any = true;
        self.system.retry_budget_exhausted += 1;
    }

    /// Counts the end of a client request.
    pub(crate) fn request(&mut self, end: &RequestEnd<'_>) {
        self.any = true;
        self.recent.note(end);
        if end.outcome == Outcome::Refused {
            return;
        }
        self.system.requests.count(end);
        self.system.client_disconnects += u64::from(end.outcome == Outcome::Cancelled);
        let Some(model) = end.model.filter(|_| end.endpoint_id.is_some()) else {
            return;
        };
        self.system.model_requests.count(end);
        if let Some(at) = self.model_slot(model)
            && let Some(slot) = self.models.get_mut(at)
        {
            slot.counts.count(end);
            if slot.clients.len() < CLIENTS_MAX {
                slot.clients.insert(end.client);
            }
            let place = touch(&mut slot.touched, &mut self.touched_models, at);
            let judged = end.outcome.judged(end.status);
            note(
                &mut self.request_samples,
                place,
                judged,
                end.latency_ms,
                end.first_byte_us,
            );
        }
    }

    /// Counts a refusal by a limit.
    pub(crate) fn violation(&mut self, violation: Violation) {
        self.any = true;
        match violation {
            Violation::RateLimit(client) => {
                self.system.rate_limit_violations += 1;
                if self.limited.len() < BLOCKED_IPS_MAX {
                    self.limited.insert(client);
                }
            }
            Violation::Size => self.system.size_violations += 1,
        }
    }

    /// Counts a refused credential.
    pub(crate) fn key_refused(&mut self, reason: KeyRefusal) {
        self.any = true;
        let mut counts = KeyRefusal::ALL
            .into_iter()
            .zip(&mut self.system.key_refusals);
        if let Some((_, count)) = counts.find(|(each, _)| *each == reason) {
            *count += 1;
        }
    }

    /// Counts a sign of life that was added to a silent stream.
    pub(crate) fn kept_alive(&mut self) {
        self.any = true;
        self.system.stream_keep_alives += 1;
    }

    /// Counts a request that is sent to an endpoint: tokens of its prompt, and those of them that the
    /// endpoint is believed to hold.
    pub(crate) fn prompt_sent(&mut self, prompt: u64, hit: u64) {
        self.any = true;
        self.system.scheduling.sent(prompt, hit);
    }

    /// Counts the first token of a stream: when it was predicted, and when it came, in seconds after
    /// the request was sent.
    pub(crate) fn first_token(&mut self, model: &str, predicted: f32, measured: f32) {
        self.any = true;
        match self.model_slot(model) {
            Some(at) => {
                if let Some(slot) = self.models.get_mut(at) {
                    slot.predictions.observe(predicted, measured);
                    touch(&mut slot.touched, &mut self.touched_models, at);
                }
            }
            None => {
                let others = &mut self.system.scheduling.other_models;
                others.observe(predicted, measured);
            }
        }
    }

    /// Counts what a complete response taught: how much of its prompt was cached, if it says so, and
    /// how many of its figures cannot be true.
    pub(crate) fn learned(&mut self, cached: Option<CachedPrefix>, rejected: u64) {
        if cached.is_none() && rejected == 0 {
            return;
        }
        self.any = true;
        let counts = &mut self.system.scheduling;
        counts.samples_rejected += rejected;
        if let Some(cached) = cached {
            counts.reported(cached);
        }
    }

    /// Counts a request that starts after it has waited for a slot.
    pub(crate) fn queue_waited(&mut self, seconds: f64) {
        self.any = true;
        self.system.scheduling.waited(seconds);
    }

    /// Counts a request that was refused because it had to wait.
    pub(crate) fn queue_refused(&mut self, reason: QueueRefusal) {
        self.any = true;
        self.system.scheduling.refused(reason);
    }

    /// Counts the end of a translator's request, besides [`Self::request`].
    pub(crate) fn translator(&mut self, end: &TranslatorEnd) {
        self.any = true;
        let room = self.translators.len() < TRANSLATORS_MAX;
        let known = |(name, _): &&mut (&'static str, TranslatorCounts)| *name == end.translator;
        if let Some((_, counts)) = self.translators.iter_mut().find(known) {
            counts.count(end);
        } else if room {
            let mut counts = TranslatorCounts::default();
            counts.count(end);
            self.translators.push((end.translator, counts));
        }
    }

    /// Counts a request field that had no effect after translation.
    pub(crate) fn dropped(&mut self, translator: &'static str, name: &str) {
        self.any = true;
        let key = (translator, counted_as(name));
        match self.dropped.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => self.dropped.push((key, 1)),
        }
    }

    /// The counts since the last call; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Delta> {
        if !std::mem::take(&mut self.any) {
            return None;
        }
        let endpoints = self.touched_endpoints.drain(..).filter_map(|at| {
            let slot = self.endpoints.get_mut(at)?;
            slot.touched = None;
            Some((slot.id, std::mem::take(&mut slot.counts)))
        });
        let endpoints = endpoints.collect();
        let models = self.touched_models.drain(..).filter_map(|at| {
            let slot = self.models.get_mut(at)?;
            slot.touched = None;
            Some(slot.hand_over())
        });
        let models = models.collect();
        // A full list may consist of names that are no longer used.
        if self.models.len() >= MODELS_MAX {
            self.models.clear();
            self.model_slots.clear();
        }
        if self.endpoints.len() >= ENDPOINTS_MAX {
            self.endpoints.clear();
            self.endpoint_slots.clear();
        }
        let delta = Delta {
            system: std::mem::take(&mut self.system),
            endpoints,
            models,
            attempt_samples: self.attempt_samples.clone(),
            request_samples: self.request_samples.clone(),
            recent: self.recent.take(),
            limited: self.limited.drain().collect(),
            translators: self.translators.clone(),
            dropped: std::mem::take(&mut self.dropped),
        };
        self.attempt_samples.clear();
        self.request_samples.clear();
        for (_, counts) in &mut self.translators {
            *counts = TranslatorCounts::default();
        }
        Some(delta)
    }

    fn endpoint_slot(&mut self, id: u32) -> Option<usize> {
        if let Some(at) = self.endpoint_slots.get(&id) {
            return Some(*at);
        }
        if self.endpoints.len() >= ENDPOINTS_MAX {
            return None;
        }
        let at = self.endpoints.len();
        self.endpoints.push(EndpointSlot {
            id,
            counts: EndpointCounts::default(),
            touched: None,
        });
        self.endpoint_slots.insert(id, at);
        Some(at)
    }

    fn model_slot(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.model_slots.get(name) {
            return Some(*at);
        }
        if self.models.len() >= MODELS_MAX || name.len() > MODEL_NAME_BYTES_MAX {
            return None;
        }
        let at = self.models.len();
        let name: Arc<str> = name.into();
        self.models.push(ModelSlot {
            name: Arc::clone(&name),
            counts: RequestCounts::default(),
            predictions: FirstTokens::default(),
            clients: FxHashSet::default(),
            endpoints: Vec::new(),
            touched: None,
        });
        self.model_slots.insert(name, at);
        Some(at)
    }
}

impl ModelSlot {
    fn hand_over(&mut self) -> ModelDelta {
        let used = |(id, counts): &mut (u32, PairCounts)| {
            (counts.tally.requests > 0).then(|| (*id, std::mem::take(counts)))
        };
        let endpoints = self.endpoints.iter_mut().filter_map(used).collect();
        if self.endpoints.len() >= ENDPOINTS_MAX {
            self.endpoints.clear();
        }
        ModelDelta {
            name: Arc::clone(&self.name),
            counts: std::mem::take(&mut self.counts),
            predictions: std::mem::take(&mut self.predictions),
            clients: self.clients.drain().collect(),
            endpoints,
        }
    }
}

/// Marks a slot for the next hand-over and returns its index there.
fn touch(touched: &mut Option<u32>, list: &mut Vec<usize>, at: usize) -> u32 {
    *touched.get_or_insert_with(|| {
        list.push(at);
        // The lists are bounded by MODELS_MAX and ENDPOINTS_MAX.
        (list.len() - 1) as u32
    })
}

fn note(
    samples: &mut Vec<Sample>,
    slot: u32,
    outcome: Outcome,
    latency_ms: u64,
    first_byte_us: Option<u64>,
) {
    let latency_ms = (outcome == Outcome::Success).then(|| bounded(latency_ms));
    let first_byte_us = first_byte_us.map(bounded);
    if (latency_ms.is_some() || first_byte_us.is_some()) && samples.len() < SAMPLES_MAX {
        samples.push(Sample {
            slot,
            latency_ms,
            first_byte_us,
        });
    }
}

fn bounded(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
