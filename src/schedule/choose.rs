//! The choice: the candidate whose first token is predicted to come soonest.
//!
//! Contract: docs/contract/scheduling.md#1, docs/contract/scheduling.md#9

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::load::EndpointLoad;
use super::models::{ModelKey, ModelTable, mix};
use super::placements::{Match, Placements};
use super::predict::{Medians, ModelPlace, Needs, Terms, Weights};
use super::prompt::Prompt;
use super::slot::Slot;
use super::warmth::Warmth;

/// More candidates than this are not all evaluated.
const EVALUATED_MAX: usize = 64;

/// Of so many, those with the fewest requests that are evaluated, and as many others at random.
const SAMPLED: usize = 8;

/// Two predictions that differ by less than this are equal, so that equals are spread.
const SPREAD: f32 = 0.02;

/// No prediction is better than this, in seconds: without it the endpoint whose last response came a
/// millisecond sooner would get all requests of an idle fleet.
const RESOLUTION_S: f32 = 0.004;

/// Predictions that differ by less than this, in seconds, are as good as equal.
pub(crate) const TIE_S: f32 = RESOLUTION_S;

/// An estimate that is worse than the median is tested when it has had no sample for this time, by a
/// request that waits at most this share of that time longer for it, and never more than the bound.
/// Without it an endpoint that was slow once would get nothing that could show that it has recovered.
const TEST_AFTER_MS: u64 = 10_000;
const TEST_SHARE: f32 = 0.05;
const TEST_S_MAX: f32 = 3.0;

/// By this part of that bound the endpoint that is tested may be worse than the best one even if it
/// has recovered: the others hold the beginnings of most prompts, and it holds none any more.
const TEST_WORSE_SHARE: f32 = 0.1;

/// The fewest tokens of a prompt by which the speed of reading is measured.
pub(crate) const SAMPLE_TOKENS_MIN: u64 = 200;

/// An endpoint that may serve a request, and its model there.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'c> {
    /// What the caller calls the endpoint.
    pub index: usize,
    /// Its load.
    pub load: &'c Arc<EndpointLoad>,
    /// The model, as the request means it there.
    pub model: ModelKey,
}

/// The endpoints that may serve a request.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;

    /// Calls `visit` for each.
    fn each<'c>(&'c self, visit: impl FnMut(Candidate<'c>));

    /// The one with an index.
    fn of_index(&self, index: usize) -> Option<Candidate<'_>>;

    /// The one with a number in placements.
    fn of_number(&self, number: u16) -> Option<Candidate<'_>>;

    /// A model that every candidate has by the same key; `None` if they differ.
    fn common_model(&self) -> Option<ModelKey>;
}

/// What a choice depends on besides the candidates.
#[derive(Debug, Clone, Copy)]
pub struct Chooser<'s> {
    /// `None` = switched off.
    pub placements: Option<&'s Placements>,
    /// All models.
    pub models: &'s ModelTable,
    /// The fleet.
    pub medians: &'s Medians,
    /// The weights of the prediction.
    pub weights: Weights,
    /// Milliseconds of the process's clock.
    pub now_ms: u64,
    /// A random number, a new one for each choice.
    pub random: u64,
}

/// What a choice depends on of the request.
#[derive(Debug, Clone, Copy)]
pub struct PromptDemand<'r> {
    /// The size of its prompt.
    pub prompt: &'r Prompt,
    /// The hashes of its blocks.
    pub blocks: &'r [u64],
    /// The limit of the output that it names.
    pub output_max: Option<u64>,
}

/// A candidate with its prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// What the caller calls the endpoint.
    pub index: usize,
    /// The model on it.
    pub model: ModelKey,
    /// The prediction, without the random factor.
    pub terms: Terms,
    /// The prompt, and what of it the endpoint is believed to hold.
    pub needs: Needs,
    /// The blocks of the prompt that it is believed to hold.
    pub held: usize,
    /// The model would have to be loaded for it.
    pub begins_load: bool,
    /// The prediction is that of a test of its speed.
    pub is_test: bool,
}

impl Evaluated {
    /// A candidate of which nothing was predicted.
    pub fn unpredicted(index: usize, model: ModelKey) -> Self {
        Self {
            index,
            model,
            terms: Terms::default(),
            needs: Needs {
                prompt: 0,
                hit: 0,
                output_max: None,
            },
            held: 0,
            begins_load: false,
            is_test: false,
        }
    }

    /// T, in seconds.
    pub fn total(&self) -> f32 {
        self.terms.total()
    }
}

/// Whether a request may start.
#[derive(Debug)]
pub enum Admission {
    /// With this slot.
    Starts(Evaluated, Slot),
    /// Not now: the endpoint that it would go to is full, or loads its model and refuses requests
    /// meanwhile.
    Waits(Evaluated),
}

impl Chooser<'_> {
    /// Chooses, and takes a slot where the request would start soonest. `pinned` is the endpoint of
    /// its session, which is kept if it is at most so many seconds worse. `None`: there is no
    /// candidate.
    pub fn admit<C: Candidates>(
        &self,
        candidates: &C,
        asked: &PromptDemand<'_>,
        pinned: Option<(usize, f32)>,
        see: impl FnMut(&Evaluated),
    ) -> Option<Admission> {
        let chosen = self.choose_pinned(candidates, asked, pinned, see)?;
        let load = candidates.of_index(chosen.index)?.load;
        // A slot first: who is admitted to a loading model and does not go would waste the turn.
        let Some(mut slot) = Slot::take(load) else {
            return Some(Admission::Waits(chosen));
        };
        if load.holds_back(chosen.model, self.now_ms) {
            return Some(Admission::Waits(chosen));
        }
        slot.reserve(chosen.needs.uncached());
        Some(Admission::Starts(chosen, slot))
    }

    /// Whether [`Self::admit`] would let a request start that it has chosen this for. Takes nothing.
    pub fn would_admit<C: Candidates>(&self, candidates: &C, chosen: &Evaluated) -> bool {
        let candidate = candidates.of_index(chosen.index);
        candidate.is_some_and(|candidate| {
            let load = candidate.load;
            load.has_free_slot() && !load.would_hold_back(chosen.model, self.now_ms)
        })
    }

    /// Calls `see` with every candidate, however many there are.
    pub fn evaluate_each<C: Candidates>(
        &self,
        candidates: &C,
        asked: &PromptDemand<'_>,
        mut see: impl FnMut(&Evaluated),
    ) {
        let held = self.held(candidates, asked);
        let mut tests = Tests::default();
        candidates.each(|candidate| {
            see(&self.evaluate(&candidate, asked, &held, &mut tests));
        });
    }

    /// The same where nothing waits: a slot is taken whether there is one or not.
    pub fn admit_anyway<C: Candidates>(
        &self,
        candidates: &C,
        asked: &PromptDemand<'_>,
        pinned: Option<(usize, f32)>,
        see: impl FnMut(&Evaluated),
    ) -> Option<Admission> {
        let chosen = self.choose_pinned(candidates, asked, pinned, see)?;
        let load = candidates.of_index(chosen.index)?.load;
        Some(Admission::Starts(chosen, Slot::take_anyway(load)))
    }

    /// The pinned candidate, unless it is too much worse than the best one.
    pub fn choose_pinned<C: Candidates>(
        &self,
        candidates: &C,
        asked: &PromptDemand<'_>,
        pinned: Option<(usize, f32)>,
        mut see: impl FnMut(&Evaluated),
    ) -> Option<Evaluated> {
        let mut kept = None;
        let best = self.choose(candidates, asked, |seen| {
            if pinned.is_some_and(|(index, _)| index == seen.index) {
                kept = Some(*seen);
            }
            see(seen);
        })?;
        let (index, slack) = pinned.unwrap_or((best.index, 0.0));
        // Of very many candidates not all were evaluated.
        let kept = kept.or_else(|| {
            let candidate = candidates.of_index(index).filter(|_| pinned.is_some())?;
            let held = self.held(candidates, asked);
            Some(self.evaluate(&candidate, asked, &held, &mut Tests::default()))
        });
        let is_kept = |kept: &Evaluated| kept.total() <= best.total() + slack;
        Some(kept.filter(is_kept).unwrap_or(best))
    }

    /// The candidate with the smallest T; `None` if there is none. `see` is called with each that is
    /// evaluated.
    pub fn choose<C: Candidates>(
        &self,
        candidates: &C,
        asked: &PromptDemand<'_>,
        mut see: impl FnMut(&Evaluated),
    ) -> Option<Evaluated> {
        let held = self.held(candidates, asked);
        let mut best: Option<(f32, Evaluated)> = None;
        let mut tests = Tests::default();
        let mut random = self.random;
        let mut visit = |candidate: Candidate<'_>| {
            let seen = self.evaluate(&candidate, asked, &held, &mut tests);
            see(&seen);
            random = mix(random.wrapping_add(1));
            // The upper 24 bits as a number from 0 to 1.
            let part = (random >> 40) as f32 / (1 << 24) as f32;
            // The load that has begun goes before one that would begin now, or both would be loaded.
            let begins_load = seen.begins_load;
            let part = if begins_load { 1.1 } else { part };
            let total = seen.total() * (1.0 + SPREAD * part) + RESOLUTION_S * part;
            if best.is_none_or(|(least, _)| total < least) {
                best = Some((total, seen));
            }
        };
        if candidates.count() <= EVALUATED_MAX {
            candidates.each(&mut visit);
        } else {
            for candidate in self.sample(candidates, &held) {
                visit(candidate);
            }
        }
        let (_, best) = best?;
        Some(tests.worth(&best).unwrap_or(best))
    }

    /// The endpoints that hold the beginning of the prompt.
    fn held<C: Candidates>(&self, candidates: &C, asked: &PromptDemand<'_>) -> Held {
        let none = Held::Same(Match::default());
        let Some(placements) = self.placements.filter(|_| !asked.blocks.is_empty()) else {
            return none;
        };
        let find = |model: ModelKey| {
            placements.find(asked.blocks, model.get(), |number| {
                let candidate = candidates.of_number(number)?;
                let pair = candidate.load.pair(model)?;
                (candidate.model == model).then(|| (pair, candidate.load.cache_tokens()))
            })
        };
        match candidates.common_model() {
            Some(model) => Held::Same(find(model)),
            None => {
                let mut found: Vec<(ModelKey, Match)> = Vec::new();
                candidates.each(|candidate| {
                    let model = candidate.model;
                    if found.len() < EVALUATED_MAX
                        && !found.iter().any(|(known, _)| *known == model)
                    {
                        found.push((model, find(model)));
                    }
                });
                Held::Each(found)
            }
        }
    }

    fn evaluate<'c>(
        &self,
        candidate: &Candidate<'c>,
        asked: &PromptDemand<'_>,
        held: &Held,
        tests: &mut Tests,
    ) -> Evaluated {
        let now_ms = self.now_ms;
        let model = self.models.known(candidate.model);
        let place = ModelPlace {
            load: candidate.load,
            pair: candidate.load.pair(candidate.model),
            model,
            medians: self.medians,
        };
        let blocks = held.of(candidate);
        let (hit, rest) = asked
            .prompt
            .tokens(blocks, f64::from(model.bytes_per_token(now_ms)));
        let needs = Needs {
            prompt: hit + rest,
            hit,
            output_max: asked.output_max,
        };
        let prefill = place.prefill(now_ms);
        let evaluated = Evaluated {
            index: candidate.index,
            model: candidate.model,
            terms: place.predict_at(prefill, &needs, self.weights, now_ms),
            needs,
            held: blocks,
            begins_load: place.warmth() == Warmth::Cold,
            is_test: false,
        };
        if needs.uncached() >= SAMPLE_TOKENS_MIN
            && let Some(median) = place.median_prefill()
            && prefill < median
        {
            tests.consider(&place, evaluated, median, self);
        }
        evaluated
    }

    /// Of very many candidates those that hold something of the prompt, the least loaded and some
    /// others.
    fn sample<'c, C: Candidates>(&self, candidates: &'c C, held: &Held) -> Vec<Candidate<'c>> {
        let mut sample: Vec<Candidate<'c>> = Vec::with_capacity(4 * SAMPLED);
        held.each(|number| sample.extend(candidates.of_number(number)));
        sample.truncate(2 * SAMPLED);
        let mut all: Vec<(u32, u64, Candidate<'c>)> = Vec::with_capacity(candidates.count());
        candidates.each(|candidate| {
            if !sample.iter().any(|known| known.index == candidate.index) {
                let load = candidate.load;
                let running = load.running_with_others(self.now_ms);
                all.push((running, load.pending(), candidate));
            }
        });
        let least = SAMPLED.min(all.len());
        if least > 0 {
            all.select_nth_unstable_by_key(least - 1, |(running, pending, _)| (*running, *pending));
        }
        sample.extend(all.drain(..least).map(|(_, _, candidate)| candidate));
        let mut random = self.random;
        for _ in 0..SAMPLED.min(all.len()) {
            random = mix(random.wrapping_add(1));
            let at = (random >> 33) as usize % all.len();
            sample.push(all.swap_remove(at).2);
        }
        sample
    }
}

/// The beginnings of the prompt that endpoints hold.
enum Held {
    /// All candidates have the model by one name.
    Same(Match),
    /// They have it by several.
    Each(Vec<(ModelKey, Match)>),
}

impl Held {
    fn of(&self, candidate: &Candidate<'_>) -> usize {
        let number = candidate.load.number();
        match self {
            Self::Same(found) => found.of(number),
            Self::Each(found) => {
                let found = found.iter().find(|(model, _)| *model == candidate.model);
                found.map_or(0, |(_, found)| found.of(number))
            }
        }
    }

    fn each(&self, mut visit: impl FnMut(u16)) {
        match self {
            Self::Same(found) => found.iter().for_each(|held| visit(held.number)),
            Self::Each(found) => {
                for (_, found) in found {
                    found.iter().for_each(|held| visit(held.number));
                }
            }
        }
    }
}

/// Endpoints that are slower than the median by an estimate that may be out of date.
#[derive(Default)]
struct Tests {
    /// The one that would be the best if it were not, and the bound of what its test may cost.
    best: Option<(Evaluated, Evaluated, f32)>,
}

impl Tests {
    #[cold]
    fn consider(
        &mut self,
        place: &ModelPlace<'_>,
        as_known: Evaluated,
        median: f32,
        chooser: &Chooser<'_>,
    ) {
        let now_ms = chooser.now_ms;
        let Some(own) = place.own_prefill(now_ms) else {
            return;
        };
        let since_test = place.pair.map_or(own.age_ms, |pair| {
            let tested = pair.tested_ms.load(Ordering::Relaxed);
            now_ms.saturating_sub(tested)
        });
        let age_ms = own.age_ms.min(since_test);
        let is_idle = place.load.pending() == 0 && place.load.has_free_slot();
        if age_ms < TEST_AFTER_MS || !is_idle || as_known.terms.load > 0.0 {
            return;
        }
        let bound = (age_ms as f32 / 1000.0 * TEST_SHARE).min(TEST_S_MAX);
        let tested = Evaluated {
            terms: place.predict_at(median, &as_known.needs, chooser.weights, now_ms),
            is_test: true,
            ..as_known
        };
        let is_better = |(best, ..): &(Evaluated, Evaluated, f32)| tested.total() < best.total();
        if self.best.as_ref().is_none_or(is_better) {
            self.best = Some((tested, as_known, bound));
        }
    }

    /// The test in place of the best candidate, if it would be about as good and costs little.
    fn worth(&self, best: &Evaluated) -> Option<Evaluated> {
        let (tested, as_known, bound) = self.best?;
        let costs = as_known.total() - best.total();
        let worse = tested.total() - best.total();
        let most = best.total() * SPREAD + bound * TEST_WORSE_SHARE;
        (worse <= most && costs <= bound).then_some(tested)
    }
}
