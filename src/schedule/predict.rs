//! The prediction: when the first token of a request would come from an endpoint.
//!
//! Contract: docs/contract/scheduling.md#1

use super::estimate::{Figure, Known, median};
use super::load::EndpointLoad;
use super::models::{ModelFigures, ModelTable};
use super::pair::{LOAD_S, Pair};
use super::warmth::Warmth;

/// What is assumed before anything was measured.
const PREFILL: f32 = 8_000.0;
const STEP_S: f32 = 0.01;
const SERVICE_S: f32 = 1.0;

/// The weights of the decoding term (`proxy.least_time`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// `decode_weight`.
    pub decode: f32,
    /// `running_weight`.
    pub running: f32,
}

/// The parts of a prediction, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// Until the model is in memory.
    pub load: f32,
    /// Until a slot is free.
    pub queue: f32,
    /// Until the prompts before this one, and this one, are read.
    pub prefill: f32,
    /// What the decoding of this request and of others adds, with its weight.
    pub decode: f32,
}

impl Terms {
    /// T.
    pub fn total(&self) -> f32 {
        self.first_token() + self.decode
    }

    /// The part of T until the first token is there.
    pub fn first_token(&self) -> f32 {
        self.load + self.queue + self.prefill
    }
}

/// What a request needs of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Tokens of its prompt.
    pub prompt: u64,
    /// Those of them that the endpoint is believed to hold.
    pub hit: u64,
    /// The limit of the output that the request names.
    pub output_max: Option<u64>,
}

impl Needs {
    /// The tokens that have to be read.
    pub const fn uncached(&self) -> u64 {
        self.prompt.saturating_sub(self.hit)
    }
}

/// The medians over the fleet of what is learned of single endpoints.
#[derive(Debug, Default)]
pub struct Medians {
    prefill: Figure,
    step: Figure,
    service: Figure,
    load: Figure,
}

impl Medians {
    pub(super) fn prefill(&self) -> Option<f32> {
        self.prefill.get()
    }

    pub(super) fn step(&self) -> Option<f32> {
        self.step.get()
    }

    pub(super) fn service(&self) -> Option<f32> {
        self.service.get()
    }

    pub(super) fn load(&self) -> Option<f32> {
        self.load.get()
    }

    /// Takes the medians of a fleet anew, and those of its models.
    pub fn refresh<'l>(
        &self,
        loads: impl Iterator<Item = &'l EndpointLoad> + Clone,
        models: &ModelTable,
        now_ms: u64,
    ) {
        let of = |get: &dyn Fn(&EndpointLoad) -> Option<f32>| {
            let mut values: Vec<f32> = loads.clone().filter_map(get).collect();
            median(&mut values)
        };
        self.prefill
            .set(of(&|load| load.prefill.value(now_ms, self.prefill.get())));
        self.step
            .set(of(&|load| load.step.value(now_ms, self.step.get())));
        self.service
            .set(of(&|load| load.service.value(now_ms, self.service.get())));
        self.load
            .set(of(&|load| load.load.value(now_ms, self.load.get())));
        for (key, model) in models.all() {
            let prefill = |pair: &Pair| pair.prefill.value(now_ms, model.prefill.get());
            let step = |pair: &Pair| pair.step.value(now_ms, model.step.get());
            let speeds = of(&|load| prefill(load.pairs().by_number(key)?));
            let steps = of(&|load| step(load.pairs().by_number(key)?));
            model.prefill.set(speeds);
            model.step.set(steps);
        }
    }
}

/// A model on an endpoint, as far as it is known: what a prediction is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelPlace<'s> {
    /// The endpoint.
    pub load: &'s EndpointLoad,
    /// The model on it; `None` = it was not requested there lately.
    pub pair: Option<&'s Pair>,
    /// The model wherever it is.
    pub model: &'s ModelFigures,
    /// The fleet.
    pub medians: &'s Medians,
}

impl ModelPlace<'_> {
    /// The median speed of reading prompts.
    pub(super) fn median_prefill(&self) -> Option<f32> {
        self.model
            .prefill
            .get()
            .or_else(|| self.medians.prefill.get())
    }

    /// Prompt tokens a second of the model here, if they were ever measured.
    pub(super) fn own_prefill(&self, now_ms: u64) -> Option<Known> {
        let median = self.median_prefill();
        let own = self
            .pair
            .and_then(|pair| pair.prefill.known(now_ms, median));
        own.or_else(|| self.load.prefill.known(now_ms, median))
    }

    /// Prompt tokens a second.
    ///
    /// If the last prompt was read faster than the mean says, the endpoint may have recovered: it
    /// counts as fast as that prompt, though not as faster than the median.
    pub(crate) fn prefill(&self, now_ms: u64) -> f32 {
        let median = self.median_prefill();
        let Some(own) = self.own_prefill(now_ms) else {
            return median.unwrap_or(PREFILL).max(1.0);
        };
        let last = self.pair.and_then(|pair| pair.last_prefill.get());
        let recovered = match (last, median) {
            (Some(last), Some(median)) => last.min(median),
            _ => own.value,
        };
        own.value.max(recovered).max(1.0)
    }

    /// Seconds for one output token.
    pub(crate) fn step(&self, now_ms: u64) -> f32 {
        let of_model = self.model.step.get();
        let median = of_model.or_else(|| self.medians.step.get());
        let own = self.pair.and_then(|pair| pair.step.value(now_ms, median));
        own.or_else(|| self.load.step.value(now_ms, median))
            .or(median)
            .unwrap_or(STEP_S)
    }

    /// Seconds from dispatch to the end of a request.
    pub(crate) fn service(&self, now_ms: u64) -> f32 {
        let median = self.medians.service.get();
        let own = self.load.service.value(now_ms, median);
        own.or(median).unwrap_or(SERVICE_S)
    }

    /// Seconds that a cold model takes to its first byte.
    fn expected_load(&self, pair: Option<&Pair>, now_ms: u64) -> f32 {
        let median = self.medians.load.get();
        let own = pair.and_then(|pair| pair.load.value(now_ms, median));
        own.or_else(|| self.load.load.value(now_ms, median))
            .or(median)
            .unwrap_or(LOAD_S)
    }

    /// How long it takes to load the model here, in seconds.
    pub(super) fn usual_load(&self, now_ms: u64) -> f32 {
        self.expected_load(self.pair, now_ms)
    }

    /// What is left of loading the model; 0 when it is warm.
    pub(crate) fn load_left(&self, now_ms: u64) -> f32 {
        match self.warmth() {
            Warmth::Unknown | Warmth::Warm => 0.0,
            Warmth::Loading => self.pair.map_or(0.0, |pair| self.left_of(pair, now_ms)),
            Warmth::Cold => {
                let before = self.load.loads_before(self.pair);
                let before = before.map_or(0.0, |pair| self.left_of(pair, now_ms));
                before + self.expected_load(self.pair, now_ms)
            }
        }
    }

    /// Where the model is.
    pub(crate) fn warmth(&self) -> Warmth {
        match self.pair.map_or(Warmth::Unknown, Pair::warmth) {
            Warmth::Unknown => self.load.warmth_of_unknown(),
            known => known,
        }
    }

    fn left_of(&self, pair: &Pair, now_ms: u64) -> f32 {
        let expected = self.expected_load(Some(pair), now_ms);
        pair.warmth.load_left(expected, now_ms)
    }

    /// The output that a request is likely to have, in tokens.
    pub(crate) fn output(&self, needs: &Needs, now_ms: u64) -> f32 {
        let mean = self.model.output(now_ms);
        needs.output_max.map_or(mean, |max| mean.min(max as f32))
    }

    /// Seconds until a slot is free.
    fn queue(&self, running: u32, now_ms: u64) -> f32 {
        match self.load.slots() {
            Some(slots) if running >= slots => {
                let over = f64::from(running) + 1.0 - f64::from(slots);
                (over / f64::from(slots)) as f32 * self.service(now_ms)
            }
            _ => 0.0,
        }
    }

    /// The prediction for a request, with `prefill` tokens a second.
    pub(crate) fn predict_at(
        &self,
        prefill: f32,
        needs: &Needs,
        weights: Weights,
        now_ms: u64,
    ) -> Terms {
        let running = self.load.running_with_others(now_ms);
        let tokens = self.load.pending().saturating_add(needs.uncached());
        let decoding = self.step(now_ms) * self.output(needs, now_ms);
        Terms {
            load: self.load_left(now_ms),
            queue: self.queue(running, now_ms),
            prefill: tokens as f32 / prefill,
            decode: weights.decode * decoding * (1.0 + weights.running * running as f32),
        }
    }
}
