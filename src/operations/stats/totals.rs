//! The statistics of the whole process, merged from all cores.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use hdrhistogram::Histogram;
use olla_engine::rt::Exhausted;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::clock::since;

use super::buckets::{TIMES_MS, Times};
use super::recent::Feed;
use super::recorder::{Delta, ModelDelta, Sample, SystemCounts};
use super::sample::Reservoir;
use super::scheduling::FirstTokens;
use super::window::Window;
use super::{
    BLOCKED_IPS_MAX, CLIENTS_MAX, ENDPOINTS_MAX, EndpointCounts, MODELS_MAX, PairCounts, Recent,
    RequestCounts, Tally, TranslatorEnd, TranslatorFallback,
};

/// Contract: docs/contract/operations.md#4, unique clients, active models and blocked addresses.
const HOUR: Duration = Duration::from_secs(3600);

/// The default of `status.window`.
const WINDOW: Duration = Duration::from_secs(300);

/// How long an unused model is kept (docs/contract/operations.md#5, retention).
const MODEL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The least time between two searches of a full list for old addresses.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Everything counted since the process started.
#[derive(Debug)]
pub(crate) struct Totals {
    random: Rng,
    system: SystemCounts,
    window: Window,
    endpoints: FxHashMap<u32, EndpointTotals>,
    models: HashMap<Arc<str>, ModelTotals>,
    recent: Feed,
    blocked: HashMap<IpAddr, SystemTime>,
    blocked_purged_at: Option<SystemTime>,
    translators: Vec<(&'static str, TranslatorCounts)>,
    dropped: BTreeMap<(&'static str, &'static str), u64>,
    reloads: Reloads,
    /// Accept failures, indexed by the discriminant of [`Exhausted`].
    accept_failures: [u64; Exhausted::ALL.len()],
    /// Connections to endpoints that were not opened, likewise.
    local_faults: [u64; Exhausted::ALL.len()],
}

/// The reloads of the configuration.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct Reloads {
    pub(in crate::operations) successes: u64,
    pub(in crate::operations) failures: u64,
    pub(in crate::operations) last_successful: bool,
}

/// Statistics of one endpoint.
#[derive(Debug, Default)]
pub(in crate::operations) struct EndpointTotals {
    pub(in crate::operations) counts: EndpointCounts,
    /// Durations of successful attempts.
    pub(in crate::operations) duration: Times,
    /// Times to the first byte, of every attempt that had one.
    pub(in crate::operations) first_byte: Times,
    pub(in crate::operations) latency: Quantiles,
    pub(in crate::operations) first_token: Quantiles,
}

/// Statistics of one model.
#[derive(Debug)]
pub(in crate::operations) struct ModelTotals {
    pub(in crate::operations) counts: RequestCounts,
    pub(in crate::operations) last_requested: SystemTime,
    pub(in crate::operations) latency: Quantiles,
    pub(in crate::operations) first_token: Quantiles,
    /// The predictions of scheduling for it.
    pub(in crate::operations) predictions: FirstTokens,
    sample: Reservoir,
    clients: FxHashMap<IpAddr, SystemTime>,
    pub(in crate::operations) endpoints: FxHashMap<u32, PairTotals>,
}

/// Statistics of one model on one endpoint.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct PairTotals {
    pub(in crate::operations) counts: PairCounts,
    pub(in crate::operations) last_used: SystemTime,
}

impl Totals {
    /// Empty statistics. The seed determines which latencies are sampled.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            system: SystemCounts::default(),
            window: Window::new(WINDOW),
            endpoints: FxHashMap::default(),
            models: HashMap::new(),
            recent: Feed::default(),
            blocked: HashMap::new(),
            blocked_purged_at: None,
            translators: Vec::new(),
            dropped: BTreeMap::new(),
            reloads: Reloads {
                successes: 0,
                failures: 0,
                last_successful: true,
            },
            accept_failures: [0; Exhausted::ALL.len()],
            local_faults: [0; Exhausted::ALL.len()],
        }
    }

    /// Adopts another `status.window`.
    pub(crate) fn judge_within(&mut self, window: Duration) {
        self.window.resize(window);
    }

    /// The requests by which the system is judged (docs/contract/observe.md#2).
    pub(in crate::operations) fn judged(&self, now: SystemTime) -> Tally {
        self.window.tally(now)
    }

    /// Adds the counts of one core.
    pub(crate) fn merge(&mut self, delta: Delta, now: SystemTime) {
        self.system.add(&delta.system);
        self.window.add(&delta.system.requests.tally, now);
        let mut samples = Grouped::new(delta.attempt_samples, delta.endpoints.len());
        for (slot, (id, counts)) in delta.endpoints.into_iter().enumerate() {
            let totals = self.endpoints.entry(id).or_default();
            totals.counts.add(&counts);
            for sample in samples.of(slot) {
                totals.note(sample);
            }
        }
        let mut samples = Grouped::new(delta.request_samples, delta.models.len());
        for (slot, model) in delta.models.into_iter().enumerate() {
            self.merge_model(model, samples.of(slot), now);
        }
        self.recent.add(&delta.recent, now);
        for client in delta.limited {
            self.block(client, now);
        }
        for (key, count) in delta.dropped {
            *self.dropped.entry(key).or_default() += count;
        }
        for (name, counts) in delta.translators {
            if counts.requests == 0 {
                continue;
            }
            match self
                .translators
                .iter_mut()
                .find(|(known, _)| *known == name)
            {
                Some((_, totals)) => totals.add(&counts),
                None => self.translators.push((name, counts)),
            }
        }
    }

    fn merge_model(&mut self, delta: ModelDelta, samples: &[Sample], now: SystemTime) {
        if !self.models.contains_key(&delta.name) && self.models.len() >= MODELS_MAX {
            self.forget_oldest_model();
        }
        let totals = self
            .models
            .entry(delta.name)
            .or_insert_with(|| ModelTotals::new(now));
        totals.counts.add(&delta.counts);
        totals.predictions.add(&delta.predictions);
        totals.last_requested = now;
        for sample in samples {
            if let Some(latency_ms) = sample.latency_ms {
                totals.sample.offer(latency_ms, &mut self.random);
                totals.latency.record_ms(latency_ms);
            }
            if let Some(first_byte_us) = sample.first_byte_us {
                totals.first_token.record_us(first_byte_us);
            }
        }
        for client in delta.clients {
            totals.seen(client, now);
        }
        for (id, counts) in delta.endpoints {
            let pair = totals.endpoints.entry(id).or_insert(PairTotals {
                counts: PairCounts::default(),
                last_used: now,
            });
            pair.counts.add(&counts);
            pair.last_used = now;
        }
    }

    fn forget_oldest_model(&mut self) {
        let oldest = self
            .models
            .iter()
            .min_by_key(|(name, totals)| (totals.last_requested, Arc::clone(name)))
            .map(|(name, _)| Arc::clone(name));
        if let Some(name) = oldest {
            self.models.remove(&name);
        }
    }

    fn block(&mut self, client: IpAddr, now: SystemTime) {
        if self.blocked.len() >= BLOCKED_IPS_MAX && !self.blocked.contains_key(&client) {
            let due = self
                .blocked_purged_at
                .is_none_or(|at| !within(at, now, PURGE_EVERY));
            if due {
                self.blocked_purged_at = Some(now);
                self.blocked.retain(|_, at| within(*at, now, HOUR));
            }
            if self.blocked.len() >= BLOCKED_IPS_MAX {
                return;
            }
        }
        self.blocked.insert(client, now);
    }

    /// Removes what has not been used for a long time. To be called every few minutes, with the ids
    /// of the configured endpoints.
    pub(crate) fn sweep(&mut self, configured: impl Iterator<Item = u32>, now: SystemTime) {
        let configured: FxHashSet<u32> = configured.collect();
        // A removed endpoint may come back with the next reload, and its counters must not have
        // decreased.
        if self.endpoints.len() > ENDPOINTS_MAX {
            self.endpoints.retain(|id, _| configured.contains(id));
        }
        self.blocked.retain(|_, at| within(*at, now, HOUR));
        self.models
            .retain(|_, totals| within(totals.last_requested, now, MODEL_KEPT));
        for totals in self.models.values_mut() {
            if totals.endpoints.len() > ENDPOINTS_MAX {
                totals.endpoints.retain(|id, _| configured.contains(id));
            }
            totals.clients.retain(|_, at| within(*at, now, HOUR));
        }
    }

    /// Counts a reload of the configuration, and whether it was successful.
    pub(crate) fn reloaded(&mut self, successful: bool) {
        self.reloads.last_successful = successful;
        if successful {
            self.reloads.successes += 1;
        } else {
            self.reloads.failures += 1;
        }
    }

    /// Counts a failed accept.
    pub(crate) fn accept_failed(&mut self, resource: Exhausted) {
        self.accept_failures[resource as usize] += 1;
    }

    /// Counts a connection to an endpoint that this machine could not open.
    pub(crate) fn connect_exhausted(&mut self, resource: Exhausted) {
        self.local_faults[resource as usize] += 1;
    }

    /// The number of failed accepts for each missing resource. An accept needs no port.
    pub(in crate::operations) fn accept_failures(&self) -> impl Iterator<Item = (Exhausted, u64)> {
        let all = Exhausted::ALL.into_iter().zip(self.accept_failures);
        all.filter(|(resource, _)| *resource != Exhausted::Ports)
    }

    /// The number of connections to endpoints that were not opened, for each missing resource.
    pub(in crate::operations) fn local_faults(&self) -> impl Iterator<Item = (Exhausted, u64)> {
        Exhausted::ALL.into_iter().zip(self.local_faults)
    }

    /// Distinct addresses rate limited in the last hour.
    pub(in crate::operations) fn blocked_ips(&self, now: SystemTime) -> usize {
        let recent = |at: &&SystemTime| within(**at, now, HOUR);
        self.blocked.values().filter(recent).count()
    }

    pub(in crate::operations) const fn system(&self) -> &SystemCounts {
        &self.system
    }

    pub(in crate::operations) fn endpoint(&self, id: u32) -> Option<&EndpointTotals> {
        self.endpoints.get(&id)
    }

    /// Models in the order of their names.
    pub(in crate::operations) fn models(&self) -> Vec<(&str, &ModelTotals)> {
        let mut models: Vec<_> = self
            .models
            .iter()
            .map(|(name, totals)| (&**name, totals))
            .collect();
        models.sort_unstable_by_key(|(name, _)| *name);
        models
    }

    /// The names of models that were requested, in any order.
    pub(crate) fn model_names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(|name| &**name)
    }

    /// The last requests, newest first, each with the time at which it was merged.
    pub(in crate::operations) fn recent(&self) -> impl Iterator<Item = &(SystemTime, Recent)> {
        self.recent.newest()
    }

    /// The request fields that had no effect, by translator and field.
    pub(in crate::operations) fn dropped(
        &self,
    ) -> impl Iterator<Item = ((&'static str, &'static str), u64)> {
        self.dropped.iter().map(|(key, count)| (*key, *count))
    }

    /// The translators with at least one request.
    pub(in crate::operations) fn translators(&self) -> &[(&'static str, TranslatorCounts)] {
        &self.translators
    }

    pub(in crate::operations) const fn reloads(&self) -> Reloads {
        self.reloads
    }
}

/// Whether `at` is less than `span` before `now`.
pub(in crate::operations) fn within(at: SystemTime, now: SystemTime, span: Duration) -> bool {
    since(at, now) < span
}

/// Samples by their slot.
struct Grouped {
    samples: Vec<Sample>,
    ends: Vec<usize>,
}

impl Grouped {
    fn new(mut samples: Vec<Sample>, slots: usize) -> Self {
        samples.sort_by_key(|sample| sample.slot);
        let end = |slot: usize| samples.partition_point(|sample| (sample.slot as usize) <= slot);
        let ends = (0..slots).map(end).collect();
        Self { samples, ends }
    }

    fn of(&mut self, slot: usize) -> &[Sample] {
        let before = slot.checked_sub(1).and_then(|slot| self.ends.get(slot));
        let start = before.copied().unwrap_or(0);
        let end = self.ends.get(slot).copied().unwrap_or(start);
        &self.samples[start..end]
    }
}

impl SystemCounts {
    fn add(&mut self, more: &Self) {
        self.requests.add(&more.requests);
        self.model_requests.add(&more.model_requests);
        self.endpoint_bytes = self.endpoint_bytes.saturating_add(more.endpoint_bytes);
        self.rate_limit_violations += more.rate_limit_violations;
        self.size_violations += more.size_violations;
        self.client_disconnects += more.client_disconnects;
        self.retry_budget_exhausted += more.retry_budget_exhausted;
        self.stream_keep_alives += more.stream_keep_alives;
        for (count, more) in self.key_refusals.iter_mut().zip(more.key_refusals) {
            *count += more;
        }
        self.scheduling.add(&more.scheduling);
    }
}

impl EndpointTotals {
    fn note(&mut self, sample: &Sample) {
        if let Some(latency_ms) = sample.latency_ms {
            self.duration.observe(&TIMES_MS, f64::from(latency_ms));
            self.latency.record_ms(latency_ms);
        }
        if let Some(first_byte_us) = sample.first_byte_us {
            let first_byte_ms = f64::from(first_byte_us) / 1000.0;
            self.first_byte.observe(&TIMES_MS, first_byte_ms);
            self.first_token.record_us(first_byte_us);
        }
    }
}

impl ModelTotals {
    fn new(now: SystemTime) -> Self {
        Self {
            counts: RequestCounts::default(),
            last_requested: now,
            latency: Quantiles::default(),
            first_token: Quantiles::default(),
            predictions: FirstTokens::default(),
            sample: Reservoir::default(),
            clients: FxHashMap::default(),
            endpoints: FxHashMap::default(),
        }
    }

    fn seen(&mut self, client: IpAddr, now: SystemTime) {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client) {
            self.clients.retain(|_, at| within(*at, now, HOUR));
            if self.clients.len() >= CLIENTS_MAX {
                return;
            }
        }
        self.clients.insert(client, now);
    }

    /// Distinct clients of the last hour.
    pub(in crate::operations) fn unique_clients(&self, now: SystemTime) -> usize {
        let recent = |at: &&SystemTime| within(**at, now, HOUR);
        self.clients.values().filter(recent).count()
    }

    /// Whether it was requested in the last hour.
    pub(in crate::operations) fn is_active(&self, now: SystemTime) -> bool {
        within(self.last_requested, now, HOUR)
    }

    /// The 95th and 99th percentile of successful latencies in milliseconds.
    pub(in crate::operations) fn p95_p99(&self) -> (u64, u64) {
        self.sample.p95_p99()
    }
}

/// Quantiles of times, within one percent. Its size depends on the longest recorded time: 11 KB at
/// one hour, which is also the largest value; longer times are recorded as one hour.
#[derive(Debug, Clone, Default)]
pub(in crate::operations) struct Quantiles {
    /// In tenths of a millisecond.
    histogram: Option<Histogram<u32>>,
}

/// Tenths of a millisecond in an hour.
const TENTHS_MAX: u64 = 36_000_000;

impl Quantiles {
    fn record_ms(&mut self, ms: u32) {
        self.record(u64::from(ms) * 10);
    }

    fn record_us(&mut self, us: u32) {
        self.record((u64::from(us) + 50) / 100);
    }

    fn record(&mut self, tenths: u64) {
        // Creating a histogram with two digits cannot fail, so this is `None` only before the first
        // value.
        if self.histogram.is_none() {
            self.histogram = Histogram::new(2).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            // The histogram resizes itself and the time is bounded, so recording cannot fail.
            let _ = histogram.record(tenths.min(TENTHS_MAX));
        }
    }

    /// How many times were recorded.
    pub(in crate::operations) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// A percentile in milliseconds; 0 without values.
    pub(in crate::operations) fn percentile_ms(&self, percent: f64) -> f64 {
        let histogram = self.histogram.as_ref();
        histogram.map_or(0.0, |histogram| {
            let value = histogram.value_at_quantile(percent / 100.0);
            value.min(histogram.max()) as f64 / 10.0
        })
    }
}

/// Counters of one translator (docs/contract/translation.md#14).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TranslatorCounts {
    pub(in crate::operations) requests: u64,
    pub(in crate::operations) successes: u64,
    /// Over successes.
    pub(in crate::operations) latency_ms: u64,
    pub(in crate::operations) passthrough: u64,
    pub(in crate::operations) streaming: u64,
    pub(in crate::operations) no_compatible_endpoints: u64,
    pub(in crate::operations) cannot_passthrough: u64,
}

impl TranslatorCounts {
    pub(super) fn count(&mut self, end: &TranslatorEnd) {
        self.requests += 1;
        if end.success {
            self.successes += 1;
            self.latency_ms = self.latency_ms.saturating_add(end.latency_ms);
        }
        self.passthrough += u64::from(end.passthrough);
        self.streaming += u64::from(end.streaming);
        match end.fallback {
            Some(TranslatorFallback::NoCompatibleEndpoints) => self.no_compatible_endpoints += 1,
            Some(TranslatorFallback::CannotPassthrough) => self.cannot_passthrough += 1,
            None => {}
        }
    }

    pub(in crate::operations) fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.successes += more.successes;
        self.latency_ms = self.latency_ms.saturating_add(more.latency_ms);
        self.passthrough += more.passthrough;
        self.streaming += more.streaming;
        self.no_compatible_endpoints += more.no_compatible_endpoints;
        self.cannot_passthrough += more.cannot_passthrough;
    }
}
