//! A request and the scheduler: the size of its prompt, the endpoint where its first token would come
//! soonest, and what its response teaches.
//!
//! Contract: docs/contract/scheduling.md

use std::time::Instant;

use olla_engine::handler::{Ask, Cx};

use super::event_count::EventCount;
use super::exchange::Exchange;
use super::picked::Begun;
use super::view::View;
use crate::config::Balancer;
use crate::endpoint_set::EndpointSet;
use crate::operations::stats::CachedPrefix;
use crate::providers::figures::ProviderFigures;
use crate::routing::balance::{Lease, NoPick, Picker};
use crate::routing::sticky::Session;
use crate::schedule::ModelKey;
use crate::schedule::choose::{
    Admission, Candidate, Candidates, Chooser, Evaluated, PromptDemand, TIE_S,
};
use crate::schedule::dispatch::{Completed, Dispatch};
use crate::schedule::predict::Needs;
use crate::schedule::prompt::{Prompt, SHARED_SEED};
use crate::schedule::queue::service_of;
use crate::schedule::slot::Slot;
use crate::shared::ToControl;

/// Tokens that a file counts as.
const TOKENS_OF_FILE: u64 = 1_000;

/// The candidates of a request, as the scheduler sees them.
pub(super) struct Eligible<'e> {
    pub(super) view: &'e View,
    pub(super) exchange: &'e Exchange,
    pub(super) set: EndpointSet,
    /// The model by which all have it; `None` = each by its own, for an alias.
    pub(super) model: Option<ModelKey>,
}

impl Eligible<'_> {
    fn candidate(&self, index: usize) -> Option<Candidate<'_>> {
        let endpoint = self.view.endpoint(index)?;
        Some(Candidate {
            index,
            load: &endpoint.load,
            model: self.model.unwrap_or_else(|| self.exchange.key_at(index)),
        })
    }
}

impl Candidates for Eligible<'_> {
    fn count(&self) -> usize {
        self.set.len()
    }

    fn each<'c>(&'c self, visit: impl FnMut(Candidate<'c>)) {
        let all = self.set.iter();
        all.filter_map(|index| self.candidate(index))
            .for_each(visit);
    }

    fn of_index(&self, index: usize) -> Option<Candidate<'_>> {
        self.candidate(index)
    }

    fn of_number(&self, number: u16) -> Option<Candidate<'_>> {
        let index = self.view.index_of_number(number)?;
        self.set
            .contains(index)
            .then(|| self.candidate(index))
            .flatten()
    }

    fn common_model(&self) -> Option<ModelKey> {
        self.model
    }
}

/// Whether a request may start.
enum Admitted {
    Starts(usize, Slot, Evaluated),
    Full,
}

impl Exchange {
    /// The model as an endpoint is known to have it.
    pub(super) fn key_at(&self, index: usize) -> ModelKey {
        self.common_key()
            .unwrap_or_else(|| ModelKey::of(self.name_at(index)))
    }

    /// The model by which all candidates are known to have it; `None` for an alias.
    pub(super) fn common_key(&self) -> Option<ModelKey> {
        self.kept.schedule.model.filter(|_| self.alias.is_none())
    }

    /// Microseconds of the process's clock.
    pub(super) fn micros(&self, now: Instant) -> u64 {
        self.gateway.common.nanos(now) / 1_000
    }

    /// Whether the balancer predicts.
    pub(super) fn predicts(&self) -> bool {
        self.view.plan().proxy.load_balancer == Balancer::LeastTime
    }

    /// Reads the size of the prompt, and its blocks if an endpoint may hold them.
    pub(super) fn measure(&mut self, ask: &Ask<'_>) {
        if !self.takes_slot {
            return;
        }
        let hashes = self.predicts() && self.gateway.common.scheduler.placements().is_some();
        let seed = match &self.key {
            Some(key) if self.isolates_prefixes() => {
                self.gateway.common.scheduler.seed_of(&key.name)
            }
            _ => SHARED_SEED,
        };
        let mut blocks = std::mem::take(&mut self.kept.schedule.blocks);
        let body = self.body(ask.body);
        let prompt = if hashes {
            Prompt::read(body, &self.findings, seed, &mut blocks)
        } else {
            blocks.clear();
            Prompt::size(body, &self.findings)
        };
        self.kept.schedule.blocks = blocks;
        self.kept.schedule.prompt = Some(prompt);
        self.kept.schedule.model = Some(ModelKey::of(self.kept.model.as_str()));
    }

    /// Whether nothing of another key's prompts may show in the times of this one's.
    fn isolates_prefixes(&self) -> bool {
        let isolates = |key: &crate::access::Key| key.policy.fields.isolate_cache;
        !self.view.plan().proxy.least_time.share_prefixes
            || self.key.as_deref().is_some_and(isolates)
    }

    /// The candidates whose context holds the request; those with the largest if none does
    /// (docs/contract/scheduling.md#6).
    pub(super) fn fitting(&self, candidates: &EndpointSet, now: Instant) -> EndpointSet {
        let Some(prompt) = &self.kept.schedule.prompt else {
            return *candidates;
        };
        let catalogue = &self.view.snapshot.catalogue;
        let common = self.common_key();
        let output = self.findings.tally.output.unwrap_or(0);
        let now_ms = self.gateway.common.clock_ms(now);
        let running = |index: usize| {
            let key = common.unwrap_or_else(|| self.key_at(index));
            self.view.endpoint(index)?.load.pair(key)?.context()
        };
        // Most requests fit everywhere: they need no look at what each endpoint lists.
        let bytes = prompt.text_bytes() + TOKENS_OF_FILE * prompt.files();
        let most = bytes.saturating_add(output);
        if catalogue.least_context().is_none_or(|least| most < least)
            && candidates
                .iter()
                .all(|index| running(index).is_none_or(|context| most < context))
        {
            return *candidates;
        }
        let (mut fits, mut largest) = (EndpointSet::EMPTY, (0, EndpointSet::EMPTY));
        for index in candidates.iter() {
            let key = common.unwrap_or_else(|| self.key_at(index));
            let model = self.gateway.common.scheduler.models().known(key);
            let tokens = self.prompt_tokens(f64::from(model.bytes_per_token(now_ms)));
            let listed = || catalogue.served_context_on(index, self.name_at(index));
            match running(index).or_else(listed) {
                Some(served) if served < tokens.saturating_add(output) => {
                    if served > largest.0 {
                        largest = (served, EndpointSet::EMPTY);
                    }
                    if served == largest.0 {
                        largest.1.insert(index);
                    }
                }
                _ => fits.insert(index),
            }
        }
        if fits.is_empty() { largest.1 } else { fits }
    }

    fn prompt_tokens(&self, bytes_per_token: f64) -> u64 {
        let prompt = self.kept.schedule.prompt.as_ref();
        prompt.map_or(0, |prompt| prompt.tokens(0, bytes_per_token).1)
    }

    /// Picks one of the candidates that can take the request now, and a slot of it.
    ///
    /// # Errors
    /// [`NoPick::Full`] if it has to wait.
    pub(super) fn admit_to_slot(
        &mut self,
        cx: &Cx<'_>,
        picker: &Picker<'_>,
        (candidates, tried): (&EndpointSet, &EndpointSet),
        mut take_token: impl FnMut(usize) -> bool,
    ) -> Result<Lease, NoPick> {
        let view = std::rc::Rc::clone(&self.view);
        let mut left = picker.left(candidates, tried);
        if view.plan().queue.enabled && self.gateway.common.scheduler.waiting() > 0 {
            // Its turn comes after those that wait, if they want the same endpoints.
            return Err(if left.is_empty() {
                NoPick::NoneLeft
            } else {
                NoPick::Full
            });
        }
        let mut throttled = false;
        loop {
            let admitted = if left.is_empty() {
                None
            } else if self.predicts() {
                self.admit_soonest(cx, &view, left)
            } else {
                self.admit_free(picker, &view, &left)
            };
            match admitted {
                None if throttled => return Err(NoPick::Throttled),
                None => return Err(NoPick::NoneLeft),
                Some(Admitted::Full) => return Err(NoPick::Full),
                Some(Admitted::Starts(index, slot, chosen)) => {
                    if let Some(lease) = picker.claim(index) {
                        if take_token(index) {
                            self.kept.schedule.chosen = Some((chosen, slot));
                            return Ok(lease);
                        }
                        throttled = true;
                    }
                    drop(slot);
                    self.gateway.reconsider(cx.now);
                    left.remove(index);
                }
            }
        }
    }

    fn admit_soonest(&mut self, cx: &Cx<'_>, view: &View, left: EndpointSet) -> Option<Admitted> {
        let prompt = self.kept.schedule.prompt.take()?;
        let mut explained = self.kept.schedule.explained.take();
        if let Some(list) = &mut explained {
            list.clear();
        }
        let pinned = self.pinned(view, left);
        let admission = self.choosing_by(cx, view, (left, &prompt), |chooser, eligible, asked| {
            let see = |seen: &Evaluated| {
                if let Some(list) = &mut explained {
                    list.push(*seen);
                }
            };
            if view.plan().queue.enabled {
                chooser.admit(eligible, asked, pinned, see)
            } else {
                chooser.admit_anyway(eligible, asked, pinned, see)
            }
        });
        self.kept.schedule.explained = explained;
        self.kept.schedule.prompt = Some(prompt);
        Some(match admission? {
            Admission::Starts(chosen, slot) => Admitted::Starts(chosen.index, slot, chosen),
            Admission::Waits(_) => Admitted::Full,
        })
    }

    /// Chooses by what the scheduler knows of these endpoints and of the request.
    pub(super) fn choosing_by<T>(
        &self,
        cx: &Cx<'_>,
        view: &View,
        (set, prompt): (EndpointSet, &Prompt),
        choose: impl FnOnce(&Chooser<'_>, &Eligible<'_>, &PromptDemand<'_>) -> T,
    ) -> T {
        let common = &self.gateway.common;
        let (now_ms, random) = (common.clock_ms(cx.now), self.gateway.random.number());
        let weights = view.scheduling.weights;
        let eligible = Eligible {
            view,
            exchange: self,
            set,
            model: self.common_key(),
        };
        let asked = PromptDemand {
            prompt,
            blocks: &self.kept.schedule.blocks,
            output_max: self.findings.tally.output,
        };
        let chooser = common.scheduler.chooser(weights, now_ms, random);
        choose(&chooser, &eligible, &asked)
    }

    /// The session, if it may keep the request from the best endpoint. Where placements tell which
    /// endpoint has the beginning of a conversation, a session that is known by that beginning decides
    /// only among equals (docs/contract/scheduling.md#7).
    pub(super) fn holding_session(&self) -> Option<&Session> {
        let session = self.session.as_ref()?;
        (!self.predicts() || !session.is_of_prompt()).then_some(session)
    }

    /// The endpoint of the request's session among these, and by how many seconds it may be worse.
    pub(super) fn pinned(&self, view: &View, left: EndpointSet) -> Option<(usize, f32)> {
        let endpoints = &view.snapshot.fleet.endpoints;
        let pinned = self.session.as_ref()?.pinned(endpoints)?;
        let slack = if self.holding_session().is_some() {
            view.plan().proxy.least_time.sticky_slack.as_secs_f32()
        } else {
            TIE_S
        };
        left.contains(pinned).then_some((pinned, slack))
    }

    /// By a balancer that does not predict: one that has a free slot.
    fn admit_free(
        &mut self,
        picker: &Picker<'_>,
        view: &View,
        left: &EndpointSet,
    ) -> Option<Admitted> {
        let waits = view.plan().queue.enabled;
        let mut free = self.free(view, left, picker.now_ms);
        let pinned = self.pinned(view, *left).map(|(index, _)| index);
        let pin = picker.pin(pinned, left);
        loop {
            if free.is_empty() {
                return Some(Admitted::Full);
            }
            let index = match pin.kept(&free) {
                Some(index) => index,
                None => picker.choose_among(&pin.others(free))?,
            };
            let load = &view.endpoint(index)?.load;
            let slot = if waits {
                Slot::take(load)
            } else {
                Some(Slot::take_anyway(load))
            };
            match slot {
                Some(slot) => {
                    let chosen = self.unpredicted(index);
                    return Some(Admitted::Starts(index, slot, chosen));
                }
                None => free.remove(index),
            }
        }
    }

    /// Those of some endpoints where the request could begin; all if nothing waits.
    pub(super) fn free(&self, view: &View, left: &EndpointSet, now_ms: u64) -> EndpointSet {
        if !self.takes_slot || !view.plan().queue.enabled {
            return *left;
        }
        let is_free = |index: &usize| {
            view.endpoint(*index).is_some_and(|endpoint| {
                let load = &endpoint.load;
                load.has_free_slot() && !load.would_hold_back(self.key_at(*index), now_ms)
            })
        };
        left.iter().filter(is_free).collect()
    }

    pub(super) fn unpredicted(&self, index: usize) -> Evaluated {
        let mut chosen = Evaluated::unpredicted(index, self.key_at(index));
        chosen.needs.prompt = self.prompt_tokens(4.0);
        chosen
    }

    /// The request is sent to the endpoint that was chosen.
    pub(super) fn dispatch(&mut self, cx: &Cx<'_>) {
        if let Some(since) = self.queued_since.take() {
            self.note_wait(cx.now.saturating_duration_since(since));
        }
        let Some((chosen, slot)) = self.kept.schedule.chosen.take() else {
            return;
        };
        let load = std::sync::Arc::clone(slot.load());
        let dispatch = Dispatch::new(&load, Some(slot), chosen, self.micros(cx.now));
        let common = &self.gateway.common;
        let schedule = &mut self.kept.schedule;
        if !schedule.blocks.is_empty()
            && let (Some(table), Some(pair)) = (common.scheduler.placements(), dispatch.pair())
        {
            let (model, now_ms) = (chosen.model.get(), common.clock_ms(cx.now));
            table.put(&schedule.blocks, model, (load.number(), pair), now_ms);
        }
        if !dispatch.was_ready() {
            self.gateway.control.send(ToControl::FirstByteOfCold {
                endpoint: self.view.leased(chosen.index).id,
            });
        }
        schedule.has_first_byte = false;
        schedule.heard = None;
        schedule.is_whole = false;
        schedule.passes_loading = false;
        schedule.begun = Begun::Yes;
        schedule.dispatch = Some(dispatch);
        if self.predicts() && self.gateway.common.scheduler.placements().is_some() {
            let Needs { prompt, hit, .. } = chosen.needs;
            self.gateway.recorder.borrow_mut().prompt_sent(prompt, hit);
        }
    }

    /// The first byte of the response's body is here.
    pub(super) fn first_byte(&mut self, now: Instant) {
        let schedule = &mut self.kept.schedule;
        if std::mem::replace(&mut schedule.has_first_byte, true) {
            return;
        }
        let Some(dispatch) = &mut schedule.dispatch else {
            return;
        };
        if self.upstream_status.is_none_or(|status| status >= 400) {
            return;
        }
        let common = &self.gateway.common;
        let now_us = common.nanos(now) / 1_000;
        let model = dispatch.chosen().model;
        let figures = common.scheduler.figures(model, now_us / 1_000 + 1);
        let is_stream = schedule.is_stream;
        let kind = (is_stream, self.attempts == 1);
        let Some(first) = dispatch.first_byte(figures, kind, now_us) else {
            return;
        };
        if first.was_not_ready {
            self.gateway.control.send(ToControl::FirstByteOfCold {
                endpoint: self.view.leased(dispatch.chosen().index).id,
            });
        }
        // Its prompt is not pending any more: one that waits may be served sooner there.
        self.gateway.reconsider(now);
        // What comes at once says nothing of its first token.
        if is_stream && self.predicts() {
            let mut recorder = self.gateway.recorder.borrow_mut();
            let model = self.sent_model().unwrap_or_default();
            recorder.first_token(model, first.predicted, first.seconds);
        }
    }

    /// The attempt is over: its slot is free. What a complete response teaches is learned when its
    /// figures are known ([`Self::learn`]).
    pub(super) fn end_dispatch(&mut self, now: Instant, is_whole: bool) {
        let schedule = &mut self.kept.schedule;
        let had_slot = schedule.chosen.take().is_some();
        let Some(dispatch) = &mut schedule.dispatch else {
            if had_slot {
                self.gateway.reconsider(now);
            }
            return;
        };
        let is_good = is_whole && self.upstream_status.is_some_and(|status| status < 400);
        dispatch.release();
        if is_good {
            schedule.is_whole = true;
        } else {
            if !schedule.has_first_byte
                && let (Some(table), Some(pair)) =
                    (self.gateway.common.scheduler.placements(), dispatch.pair())
            {
                let chosen = dispatch.chosen();
                // What it held before, it still holds.
                let new = schedule.blocks.get(chosen.held..).unwrap_or_default();
                table.take(new, chosen.model.get(), (dispatch.load().number(), pair));
            }
            schedule.dispatch = None;
        }
        self.gateway.reconsider(now);
    }

    /// Learns of the response that the request got, and settles what its flow was charged.
    pub(super) fn learn(
        &mut self,
        cx: &Cx<'_>,
        figures: Option<&ProviderFigures<'_>>,
        response_bytes: u64,
    ) {
        let schedule = &mut self.kept.schedule;
        let dispatch = schedule.dispatch.take().filter(|_| schedule.is_whole);
        let common = &self.gateway.common;
        let mut service = None;
        if let (Some(dispatch), Some(prompt)) = (dispatch, &schedule.prompt) {
            let now_us = common.nanos(cx.now) / 1_000;
            let usage = figures.map(|figures| figures.usage).unwrap_or_default();
            let end = Completed {
                is_stream: schedule.is_stream,
                is_only_attempt: self.attempts == 1,
                prompt: usage.prompt,
                cached: usage.cached_reported,
                completion: usage.completion,
                events: self
                    .kept
                    .events
                    .as_ref()
                    .map_or(0, |events| events.events()),
                bytes: response_bytes,
                text_bytes: prompt.text_bytes(),
                files: prompt.files(),
            };
            let model = dispatch.chosen().model;
            let learner = common.scheduler.figures(model, now_us / 1_000 + 1);
            let learned = dispatch.completed(learner, &end, now_us);
            service = Some(learned.service);
            let rejected = u64::from(learned.rejected + u32::from(usage.is_rejected));
            let cached = learned.reported_hit.map(|reported| CachedPrefix {
                believed: learned.believed_hit,
                reported,
            });
            let mut recorder = self.gateway.recorder.borrow_mut();
            recorder.learned(cached, rejected);
        }
        if let Some(charge) = self.kept.schedule.charge.take() {
            let service = service.unwrap_or_else(|| self.service_until_cut(cx));
            self.gateway.common.scheduler.settle(&charge, service);
        }
    }

    /// The service of a response that did not end: what a client had of it before it left. Nothing if
    /// no endpoint began one.
    fn service_until_cut(&self, cx: &Cx<'_>) -> f64 {
        let schedule = &self.kept.schedule;
        let is_good = self.upstream_status.is_some_and(|status| status < 400);
        let (true, true, Some(key)) = (schedule.has_first_byte, is_good, schedule.model) else {
            return 0.0;
        };
        let common = &self.gateway.common;
        let model = common.scheduler.models().known(key);
        let per_token = model.bytes_per_token(common.clock_ms(cx.now));
        let prompt = self.prompt_tokens(f64::from(per_token));
        let events = self.kept.events.as_ref().map_or(0, EventCount::events);
        service_of(prompt, events as f64)
    }
}
