//! A request that waits for a slot: what it needs to be considered by any core.
//!
//! Contract: docs/contract/scheduling.md#5

use std::cmp::Reverse;
use std::sync::Arc;

use super::choose::{Admission, Candidate, Candidates, Chooser, Evaluated, PromptDemand};
use super::load::{EndpointLoad, is_crowded};
use super::models::ModelKey;
use super::pair::Pair;
use super::prompt::Prompt;
use super::queue::Verdict;
use super::slot::Slot;

/// An endpoint that may serve a request that waits.
#[derive(Debug, Clone)]
pub(crate) struct WaitingPlace {
    /// What the request calls the endpoint.
    pub index: usize,
    /// Its load.
    pub load: Arc<EndpointLoad>,
    /// The model, as the request means it there.
    pub model: ModelKey,
    /// Endpoints of a higher rank go first, under the balancer that ranks them.
    pub rank: u32,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone)]
pub(crate) enum ChoiceRule {
    /// By the least predicted time.
    LeastTime {
        /// The size of the prompt.
        prompt: Prompt,
        /// The hashes of its blocks.
        blocks: Box<[u64]>,
        /// The limit of the output that the request names.
        output_max: Option<u64>,
        /// The endpoint of the request's session, and by how many seconds it may be worse.
        pinned: Option<(usize, f32)>,
    },
    /// The one with the fewest requests of those of the highest rank with a free slot.
    Free {
        /// The endpoint of the request's session, which goes before them if it is not crowded.
        pinned: Option<usize>,
    },
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Where its candidates are.
    pub places: Vec<WaitingPlace>,
    /// How one of them is chosen.
    pub choosing: ChoiceRule,
    /// The model, as the client names it; empty without one.
    pub model: Box<str>,
    /// Where it is told that it may start.
    pub core: usize,
    /// Its number there.
    pub number: u64,
    /// It waits because its model is being loaded, since this time in milliseconds.
    pub loading_since_ms: Option<u64>,
    /// How long it has waited for that before.
    pub loading_ms: u64,
    /// The endpoint that it would go to, as of the last time it was considered.
    pub prefers: Option<usize>,
    /// The candidates as they were evaluated that time, if its client wants to know them.
    pub seen: Option<Vec<Evaluated>>,
    chosen: Option<(Evaluated, Slot)>,
}

/// A request that may start.
#[derive(Debug)]
pub(crate) struct Started {
    /// Where it is told.
    pub core: usize,
    /// Its number there.
    pub number: u64,
    /// The endpoint.
    pub chosen: Evaluated,
    /// The slot.
    pub slot: Slot,
    /// [`Waiting::seen`].
    pub seen: Option<Vec<Evaluated>>,
}

impl Waiting {
    /// A request that has not been considered yet.
    pub(crate) fn new(
        places: Vec<WaitingPlace>,
        choosing: ChoiceRule,
        (core, number): (usize, u64),
    ) -> Self {
        Self {
            places,
            choosing,
            model: Box::default(),
            core,
            number,
            loading_since_ms: None,
            loading_ms: 0,
            prefers: None,
            seen: None,
            chosen: None,
        }
    }

    /// Its candidates have changed, and so has what they are called.
    pub(crate) fn change_places(
        &mut self,
        places: Vec<WaitingPlace>,
        session: Option<(usize, f32)>,
    ) {
        self.places = places;
        self.prefers = None;
        match &mut self.choosing {
            ChoiceRule::LeastTime { pinned, .. } => *pinned = session,
            ChoiceRule::Free { pinned } => *pinned = session.map(|(index, _)| index),
        }
    }

    /// The request may start.
    pub(crate) fn started(self) -> Option<Started> {
        let (chosen, slot) = self.chosen?;
        Some(Started {
            core: self.core,
            number: self.number,
            chosen,
            slot,
            seen: self.seen,
        })
    }

    /// How long it has waited for its model to be loaded, in milliseconds.
    pub(crate) fn loading_ms(&self, now_ms: u64) -> u64 {
        let now = self
            .loading_since_ms
            .map_or(0, |since| now_ms.saturating_sub(since));
        self.loading_ms.saturating_add(now)
    }

    /// When it may be tried again at the endpoint that it prefers and that loads its model.
    pub(crate) fn held_until_ms(&self) -> Option<u64> {
        let index = self.prefers.filter(|_| self.loading_since_ms.is_some())?;
        let place = self.places.iter().find(|place| place.index == index)?;
        place.load.pair(place.model)?.held_until_ms()
    }

    /// The number of the endpoint that it would go to, as of the last time it was considered.
    pub(crate) fn preferred(&self) -> Option<u16> {
        let index = self.prefers?;
        let place = self.places.iter().find(|place| place.index == index)?;
        Some(place.load.number())
    }

    /// Whether one of its endpoints has a free slot, without which it cannot start.
    pub(super) fn may_start(&self) -> bool {
        self.places.iter().any(|place| place.load.has_free_slot())
    }

    /// Takes a slot for it where it would start soonest, if there is a free one.
    pub(crate) fn consider(&mut self, chooser: &Chooser<'_>) -> Verdict {
        if !self.may_start() {
            self.is_loading(false, chooser.now_ms);
            return Verdict::Waits;
        }
        let admission = match &self.choosing {
            ChoiceRule::LeastTime {
                prompt,
                blocks,
                output_max,
                pinned,
            } => {
                let asked = PromptDemand {
                    prompt,
                    blocks,
                    output_max: *output_max,
                };
                let seen = &mut self.seen;
                if let Some(list) = seen {
                    list.clear();
                }
                chooser.admit(&Places(&self.places), &asked, *pinned, |each| {
                    if let Some(list) = seen {
                        list.push(*each);
                    }
                })
            }
            ChoiceRule::Free { pinned } => self.admit_freest(*pinned, chooser),
        };
        match admission {
            None => Verdict::Waits,
            Some(Admission::Waits(chosen)) => {
                self.prefers = Some(chosen.index);
                let place = self.places.iter().find(|place| place.index == chosen.index);
                let is_held = place
                    .is_some_and(|place| place.load.would_hold_back(chosen.model, chooser.now_ms));
                self.is_loading(is_held, chooser.now_ms);
                Verdict::Waits
            }
            Some(Admission::Starts(chosen, slot)) => {
                self.prefers = Some(chosen.index);
                self.chosen = Some((chosen, slot));
                Verdict::Starts
            }
        }
    }

    /// Notes where it would go, although all may be full, unless that is known. Requests far behind
    /// in the queue are not considered for long, and count for an endpoint too.
    pub(super) fn prefer(&mut self, chooser: &Chooser<'_>) {
        if self.prefers.is_none() {
            self.prefers = self.preference(chooser);
        }
    }

    fn preference(&self, chooser: &Chooser<'_>) -> Option<usize> {
        match &self.choosing {
            ChoiceRule::LeastTime {
                prompt,
                blocks,
                output_max,
                pinned,
            } => {
                let asked = PromptDemand {
                    prompt,
                    blocks,
                    output_max: *output_max,
                };
                let places = Places(&self.places);
                let chosen = chooser.choose_pinned(&places, &asked, *pinned, |_| {})?;
                Some(chosen.index)
            }
            ChoiceRule::Free { pinned } => {
                let place = self.freest(*pinned, chooser, |_| true)?;
                Some(place.index)
            }
        }
    }

    /// Notes whether it waits for a model that is being loaded.
    fn is_loading(&mut self, loading: bool, now_ms: u64) {
        match (loading, self.loading_since_ms) {
            (true, None) => self.loading_since_ms = Some(now_ms),
            (false, Some(since)) => {
                self.loading_ms += now_ms.saturating_sub(since);
                self.loading_since_ms = None;
            }
            _ => {}
        }
    }

    /// Shows T at each of its endpoints to `see`.
    #[cfg(test)]
    pub(super) fn evaluate(&self, chooser: &Chooser<'_>, see: impl FnMut(&Evaluated)) {
        if let ChoiceRule::LeastTime {
            prompt,
            blocks,
            output_max,
            ..
        } = &self.choosing
        {
            let asked = PromptDemand {
                prompt,
                blocks,
                output_max: *output_max,
            };
            chooser.choose(&Places(&self.places), &asked, see);
        }
    }

    /// By a balancer that does not predict: the first of those that it may be.
    fn freest(
        &self,
        pinned: Option<usize>,
        chooser: &Chooser<'_>,
        may: impl Fn(&WaitingPlace) -> bool,
    ) -> Option<&WaitingPlace> {
        let running = |place: &WaitingPlace| place.load.running();
        let is_kept = |place: &WaitingPlace| {
            Some(place.index) == pinned
                && !is_crowded(running(place), self.places.iter().map(running))
        };
        // Those that refuse requests because they load a model are the last, and of them the one that
        // may be tried first goes first.
        let held = |place: &WaitingPlace| {
            let until = place.load.pair(place.model).and_then(Pair::held_until_ms);
            let is_held = place.load.would_hold_back(place.model, chooser.now_ms);
            (is_held, until.unwrap_or(0))
        };
        let places = self.places.iter().filter(|place| may(place));
        places.min_by_key(|place| {
            let rank = Reverse(place.rank);
            (held(place), !is_kept(place), rank, running(place))
        })
    }

    fn admit_freest(&self, pinned: Option<usize>, chooser: &Chooser<'_>) -> Option<Admission> {
        let place = self.freest(pinned, chooser, |place| place.load.has_free_slot())?;
        let chosen = Evaluated::unpredicted(place.index, place.model);
        let Some(slot) = Slot::take(&place.load) else {
            return Some(Admission::Waits(chosen));
        };
        if place.load.holds_back(place.model, chooser.now_ms) {
            return Some(Admission::Waits(chosen));
        }
        Some(Admission::Starts(chosen, slot))
    }
}

/// The candidates of a request that waits.
struct Places<'p>(&'p [WaitingPlace]);

fn candidate(place: &WaitingPlace) -> Candidate<'_> {
    Candidate {
        index: place.index,
        load: &place.load,
        model: place.model,
    }
}

impl Candidates for Places<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn each<'c>(&'c self, visit: impl FnMut(Candidate<'c>)) {
        self.0.iter().map(candidate).for_each(visit);
    }

    fn of_index(&self, index: usize) -> Option<Candidate<'_>> {
        let place = self.0.iter().find(|place| place.index == index)?;
        Some(candidate(place))
    }

    fn of_number(&self, number: u16) -> Option<Candidate<'_>> {
        let place = self.0.iter().find(|place| place.load.number() == number)?;
        Some(candidate(place))
    }

    fn common_model(&self) -> Option<ModelKey> {
        let first = self.0.first()?.model;
        self.0
            .iter()
            .all(|place| place.model == first)
            .then_some(first)
    }
}
