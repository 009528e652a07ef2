//! Requests that wait for a slot: how they enter the queue, learn that they may start, and leave.
//!
//! Contract: docs/contract/scheduling.md#3, docs/contract/scheduling.md#5

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use olla_engine::exchange::Fault;
use olla_engine::handler::{Ask, Cx};
use rustc_hash::FxHasher;

use super::exchange::Exchange;
use super::in_queue::InQueue;
use super::picked::{Begun, Picked};
use super::view::View;
use crate::clock::millis;
use crate::config::Balancer;
use crate::dialects::{Error, Sent};
use crate::endpoint_set::EndpointSet;
use crate::fleet::breaker::{self, State};
use crate::operations::stats::QueueRefusal;
use crate::routing::balance::{Lease, Picker};
use crate::schedule::ModelKey;
use crate::schedule::queue::{FlowKey, Full, QueueStanding, service_of};
use crate::schedule::waiting::{ChoiceRule, Waiting, WaitingPlace};
use crate::shared::Start;

/// A request that waits looks again whether its candidates have changed, at least this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The bounds of `Retry-After`, in seconds.
const RETRY_AFTER_S: (f32, f32) = (1.0, 60.0);

impl Exchange {
    /// The flow of the request: its key, or else its client's address.
    pub(super) fn flow(&self) -> FlowKey {
        let mut hasher = FxHasher::default();
        match &self.key {
            Some(key) if !key.is_anonymous() => (0_u8, &*key.name).hash(&mut hasher),
            _ => (1_u8, self.client.limited_as()).hash(&mut hasher),
        }
        FlowKey(hasher.finish())
    }

    fn standing(&self, cx: &Cx<'_>) -> QueueStanding {
        let common = &self.gateway.common;
        let now_ms = common.clock_ms(cx.now);
        let fields = self.key.as_ref().map(|key| &key.policy.fields);
        let model = self.model().unwrap_or_default();
        let model = common.scheduler.models().known(ModelKey::of(model));
        let prompt = self.kept.schedule.prompt.as_ref();
        let tokens = prompt.map_or(0, |prompt| {
            prompt.tokens(0, f64::from(model.bytes_per_token(now_ms))).1
        });
        let mean = f64::from(model.output(now_ms));
        let output = self
            .findings
            .tally
            .output
            .map_or(mean, |most| mean.min(most as f64));
        QueueStanding {
            flow: self.flow(),
            priority: fields.map_or(5, |fields| fields.priority),
            weight: fields.map_or(1, |fields| fields.weight.into()),
            cost: service_of(tokens, output),
            since_ms: common.clock_ms(self.queued_since.unwrap_or(cx.now)),
        }
    }

    /// How long the request may wait, and the key that says so; `None` = without bound.
    fn wait_max(&self) -> Option<(Duration, &'static str)> {
        let own = self.key.as_ref().and_then(|key| key.policy.fields.max_wait);
        match own {
            Some(own) => Some(own)
                .filter(|own| !own.is_zero())
                .map(|own| (own, "max_wait of the policy")),
            None => {
                let max = self.view.plan().queue.max_wait?;
                Some((max, "queue.max_wait"))
            }
        }
    }

    /// The endpoints that may serve the request, for other cores to consider.
    fn places(&mut self, now: Instant) -> Vec<WaitingPlace> {
        self.kept.schedule.skipped = self.skipped(now);
        let all = self.dialect.all(&self.candidates);
        let all = all.minus(&self.kept.schedule.skipped);
        let view = Rc::clone(&self.view);
        let ranks = view.plan().proxy.load_balancer == Balancer::Priority;
        all.iter()
            .filter_map(|index| {
                let endpoint = view.endpoint(index)?;
                Some(WaitingPlace {
                    index,
                    load: Arc::clone(&endpoint.load),
                    model: self.key_at(index),
                    rank: if ranks { endpoint.plan.priority } else { 0 },
                })
            })
            .collect()
    }

    /// Before a translated stream waits: a candidate for which it is translated once, so that its first
    /// events say what they have to. `None`: there is nothing to do.
    pub(super) fn must_begin(&self) -> Option<usize> {
        let may_begin = self.kept.schedule.begun == Begun::No
            && self.dialect.writes_stream()
            && self.view.plan().proxy.stream_keep_alive.is_some();
        may_begin
            .then(|| self.dialect.all(&self.candidates).iter().next())
            .flatten()
    }

    /// Translates the request as for a candidate.
    ///
    /// # Errors
    /// It cannot be expressed, or cannot wait.
    pub(super) fn begin_to_wait(
        &mut self,
        ask: &Ask<'_>,
        index: usize,
        failed: Option<Fault>,
    ) -> Result<Picked, Error> {
        self.kept.schedule.begun = Begun::Away;
        let view = Rc::clone(&self.view);
        match self.prepare(ask, &view, index) {
            Some(sent) => self.begun_to_wait(ask, sent, failed),
            None => Ok(Picked::Later),
        }
    }

    /// The request was translated: now it waits.
    ///
    /// # Errors
    /// As of [`Self::begin_to_wait`].
    pub(super) fn begun_to_wait(
        &mut self,
        ask: &Ask<'_>,
        sent: Result<Sent, Error>,
        failed: Option<Fault>,
    ) -> Result<Picked, Error> {
        self.kept.schedule.begun = Begun::Yes;
        self.take_notes(ask.cx);
        if let Sent::Response(body) = sent? {
            self.is_served_here = true;
            return Ok(Picked::Response(body));
        }
        // It is made again for the endpoint that it is sent to.
        self.dialect.forget_payload();
        self.pick_endpoint(ask, failed)
    }

    /// All candidates that could be tried are full: the request waits for one of them.
    ///
    /// # Errors
    /// The queue is full.
    pub(super) fn queue_up(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        let cx = ask.cx;
        let places = self.places(cx.now);
        let choosing = self.choosing();
        let mut waiting = Waiting::new(places, choosing, self.gateway.next_turn());
        waiting.model = self.model().unwrap_or_default().into();
        waiting.seen = self.kept.schedule.explained.take();
        let standing = self.standing(cx);
        let since = self.queued_since.take().unwrap_or(cx.now);
        match InQueue::enter(&self.gateway, (standing, waiting), since, cx.now) {
            Ok(in_queue) => {
                // The one that it was sent to before is not being asked any more.
                self.endpoint = None;
                self.upstream_status = None;
                self.in_queue = Some(Box::new(in_queue));
                Ok(())
            }
            Err(full) => {
                let (reason, key) = match full {
                    Full::All => (QueueRefusal::MaxWaiting, "queue.max_waiting"),
                    Full::Flow => (
                        QueueRefusal::MaxWaitingPerFlow,
                        "queue.max_waiting_per_flow",
                    ),
                };
                let message = format!("too many requests are waiting for a slot ({key})");
                Err(self.not_admitted(cx, ("OVERLOADED", reason), message))
            }
        }
    }

    /// Endpoints that the request does not wait for: those that it has tried, that are left alone, or
    /// that could not take it now though a slot were free, as long as there is another.
    pub(super) fn skipped(&self, now: Instant) -> EndpointSet {
        let cooling = self.cooling(self.gateway.common.clock_ms(now));
        let left_alone = self.tried.or(&cooling);
        let unready = left_alone
            .or(&self.unready(now))
            .or(&self.kept.schedule.refused);
        let leaves_some = |skipped: &EndpointSet| !self.candidates.minus(skipped).is_empty();
        [unready, left_alone]
            .into_iter()
            .find(leaves_some)
            .unwrap_or(self.tried)
    }

    /// Candidates whose breaker is open, that have no token left, or that are known to be away.
    fn unready(&self, now: Instant) -> EndpointSet {
        let common = &self.gateway.common;
        let (now_ms, nanos) = (common.clock_ms(now), common.nanos(now));
        let is_unready = |index: &usize| {
            let Some(endpoint) = self.view.endpoint(*index) else {
                return true;
            };
            let bucket = endpoint.bucket.as_ref();
            breaker::state(&endpoint.live, now_ms) == State::Open
                || bucket.is_some_and(|bucket| bucket.peek(nanos).remaining == 0)
                || self.is_known_away(*index)
        };
        self.candidates.iter().filter(is_unready).collect()
    }

    fn choosing(&self) -> ChoiceRule {
        match &self.kept.schedule.prompt {
            Some(prompt) if self.predicts() => ChoiceRule::LeastTime {
                prompt: prompt.clone(),
                blocks: self.kept.schedule.blocks.as_slice().into(),
                output_max: self.findings.tally.output,
                pinned: self.pinned(&self.view, self.candidates),
            },
            _ => ChoiceRule::Free {
                pinned: self
                    .pinned(&self.view, self.candidates)
                    .map(|(index, _)| index),
            },
        }
    }

    /// When the request is to be looked at again, at the latest.
    fn look_again_at(&self, cx: &Cx<'_>) -> Instant {
        let common = &self.gateway.common;
        let again = cx.now + LOOK_AGAIN;
        let Some(in_queue) = &self.in_queue else {
            return again;
        };
        let now_ms = common.clock_ms(cx.now);
        let looked = common.scheduler.look(in_queue.id(), |waiting| {
            (waiting.loading_ms(now_ms), waiting.held_until_ms())
        });
        let Some((loading_ms, held_until_ms)) = looked else {
            return again;
        };
        let held = held_until_ms.map(|at| common.time_of(at));
        let patient = self
            .wait_max()
            .map(|(max, _)| in_queue.since() + max + Duration::from_millis(loading_ms));
        let end = match common.refuse_waiting_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(common.time_of(at)),
        };
        let first = [held, patient, end].into_iter().flatten().min();
        first.map_or(again, |first| again.min(first)).max(cx.now)
    }

    /// The request waits: whether it may start, or has to be looked at again.
    ///
    /// # Errors
    /// It has waited for too long, or no endpoint is left that could serve it.
    pub(super) fn take_turn(&mut self, ask: &Ask<'_>) -> Result<Turn, Error> {
        let cx = ask.cx;
        let Some(in_queue) = &mut self.in_queue else {
            return Ok(Turn::Again);
        };
        let since = in_queue.since();
        if let Some((started, charge)) = in_queue.take_start() {
            return self.start_turn(cx, since, (started, charge));
        }
        let kept_waiting = self.check_patience(cx).and_then(|()| {
            let is_outdated = self.is_outdated();
            if is_outdated || self.kept.schedule.skipped != self.skipped(cx.now) {
                self.change_places(ask, is_outdated)?;
            }
            Ok(())
        });
        if let Err(error) = kept_waiting {
            if let Some(in_queue) = self.in_queue.take() {
                self.note_wait(cx.now.saturating_duration_since(in_queue.since()));
            }
            return Err(error);
        }
        if !self.view.plan().queue.enabled {
            // A reload has switched the queue off.
            self.queued_since = Some(since);
            self.in_queue = None;
            return Ok(Turn::Again);
        }
        if !self.is_considered(cx) {
            self.gateway.reconsider(cx.now);
        }
        Ok(Turn::Later(self.look_again_at(cx)))
    }

    /// Whether the queue has been considered since this request may have been able to start: all that
    /// wait look again, and for one after the other that would be too often.
    fn is_considered(&self, cx: &Cx<'_>) -> bool {
        let common = &self.gateway.common;
        let now_ms = common.clock_ms(cx.now);
        let held_until_ms = self.in_queue.as_ref().and_then(|in_queue| {
            let looked = common
                .scheduler
                .look(in_queue.id(), |waiting| waiting.held_until_ms());
            looked.flatten()
        });
        let since_ms = now_ms.saturating_sub(millis(LOOK_AGAIN));
        let held_until_ms = held_until_ms.filter(|until| *until <= now_ms);
        common
            .scheduler
            .has_considered(held_until_ms.unwrap_or(since_ms).max(since_ms))
    }

    /// The request may start.
    ///
    /// # Errors
    /// It cannot, and has waited for too long.
    fn start_turn(
        &mut self,
        cx: &Cx<'_>,
        since: Instant,
        (mut started, charge): Start,
    ) -> Result<Turn, Error> {
        self.kept.schedule.explained = started.seen.take();
        let common = Arc::clone(&self.gateway.common);
        let scheduler = &common.scheduler;
        // The snapshot may be another than that of the pick.
        let number = started.slot.load().number();
        let index = self.view.index_of_number(number).filter(|index| {
            let endpoint = self.view.endpoint(*index);
            endpoint.is_some_and(|endpoint| Arc::ptr_eq(&endpoint.load, started.slot.load()))
                && self.candidates.contains(*index)
        });
        // It may have begun to be left alone since.
        let is_left_alone =
            |index: &usize| !self.tried.contains(*index) && self.skipped(cx.now).contains(*index);
        let refused = index;
        let index = index.filter(|index| !is_left_alone(index));
        let view = Rc::clone(&self.view);
        let picker = Picker {
            endpoints: &view.snapshot.fleet.endpoints,
            balancer: view.plan().proxy.load_balancer,
            turns: &self.gateway.common.turns,
            now_ms: self.gateway.common.clock_ms(cx.now),
            random: 0,
        };
        let lease = index.and_then(|index| {
            let lease = picker.claim(index)?;
            let now = || self.gateway.common.nanos(cx.now);
            view.take_token(index, now).then_some(lease)
        });
        let waited = cx.now.saturating_duration_since(since);
        let (Some(index), Some(lease)) = (index, lease) else {
            // The endpoint is gone or cannot take it now: another may.
            scheduler.settle(&charge, 0.0);
            drop(started);
            self.queued_since = Some(since);
            self.in_queue = None;
            self.gateway.reconsider(cx.now);
            if let Some(index) = refused {
                self.kept.schedule.refused.insert(index);
            }
            self.check_wait(cx, waited)?;
            return Ok(Turn::Again);
        };
        self.in_queue = None;
        self.note_wait(waited);
        if let Some(before) = self.kept.schedule.charge.replace(charge) {
            // Of the attempt before, of which the client got nothing.
            scheduler.settle(&before, 0.0);
        }
        let mut chosen = started.chosen;
        chosen.index = index;
        self.kept.schedule.chosen = Some((chosen, started.slot));
        Ok(Turn::Starts(lease))
    }

    /// The request has waited in the queue: all its waits are one to the client.
    pub(super) fn note_wait(&mut self, waited: Duration) {
        if waited.is_zero() {
            return;
        }
        let before = self.kept.schedule.waited_ms.unwrap_or(0);
        self.kept.schedule.waited_ms = Some(before + millis(waited));
        let mut recorder = self.gateway.recorder.borrow_mut();
        recorder.queue_waited(waited.as_secs_f64());
    }

    /// Refuses a request that has waited for too long.
    fn check_patience(&mut self, cx: &Cx<'_>) -> Result<(), Error> {
        let common = Arc::clone(&self.gateway.common);
        let now_ms = common.clock_ms(cx.now);
        let Some(in_queue) = &self.in_queue else {
            return Ok(());
        };
        let end_ms = common.refuse_waiting_ms.load(Ordering::Relaxed);
        if end_ms > 0 && now_ms >= end_ms {
            let message = "the gateway is shutting down".to_owned();
            let code = ("SHUTTING_DOWN", QueueRefusal::ShuttingDown);
            return Err(self.not_admitted(cx, code, message));
        }
        let waited = cx.now.saturating_duration_since(in_queue.since());
        let looked = common.scheduler.look(in_queue.id(), |waiting| {
            let loading = Duration::from_millis(waiting.loading_ms(now_ms));
            (loading, waiting.loading_since_ms.is_some())
        });
        let Some((loading, is_loading)) = looked else {
            return Ok(());
        };
        let load_max = self.view.plan().proxy.model_load_timeout;
        if is_loading && cx.now.saturating_duration_since(cx.arrived) >= load_max {
            let model = self.model().unwrap_or_default();
            let message = format!("model '{model}' is still being loaded");
            let code = ("MODEL_LOADING", QueueRefusal::ModelLoading);
            return Err(self.not_admitted(cx, code, message));
        }
        if is_loading {
            return Ok(());
        }
        self.check_wait(cx, waited.saturating_sub(loading))
    }

    /// Refuses a request that has waited for a slot for too long.
    fn check_wait(&self, cx: &Cx<'_>, waited: Duration) -> Result<(), Error> {
        match self.wait_max() {
            Some((max, bound)) if waited >= max => {
                let seconds = waited.as_secs();
                let message = format!("no slot became free in {seconds} s ({bound})");
                let code = ("QUEUE_TIMEOUT", QueueRefusal::MaxWait);
                Err(self.not_admitted(cx, code, message))
            }
            _ => Ok(()),
        }
    }

    /// The error of a request that does not get an endpoint because it had to wait.
    fn not_admitted(
        &self,
        cx: &Cx<'_>,
        (code, reason): (&'static str, QueueRefusal),
        message: String,
    ) -> Error {
        self.gateway.recorder.borrow_mut().queue_refused(reason);
        let mut error = Error::new(503, "service_unavailable", code, message);
        error.retry_after = Some(self.wait_predicted(cx, code));
        error
    }

    /// How long a request that comes now would wait, in seconds.
    fn wait_predicted(&self, cx: &Cx<'_>, code: &str) -> u64 {
        let common = &self.gateway.common;
        let now_ms = common.clock_ms(cx.now);
        let places = self.candidates.iter().filter_map(|index| {
            let endpoint = self.view.endpoint(index)?;
            let key = self.key_at(index);
            Some((&*endpoint.load, key))
        });
        let scheduler = &common.scheduler;
        let seconds = if code == "MODEL_LOADING" {
            scheduler.load_left(places, now_ms)
        } else {
            scheduler.queue_left(places, now_ms)
        };
        let (least, most) = RETRY_AFTER_S;
        seconds.unwrap_or(least).clamp(least, most).ceil() as u64
    }

    /// Whether the endpoints or models have changed since the candidates were decided.
    fn is_outdated(&self) -> bool {
        let newest = self.gateway.view();
        let waits = |view: &View| view.plan().queue.enabled;
        !Rc::ptr_eq(&newest, &self.view)
            && (!newest.routes_like(&self.view) || waits(&newest) != waits(&self.view))
    }

    /// Waits for other endpoints, after deciding about the candidates again if they are outdated.
    fn change_places(&mut self, ask: &Ask<'_>, is_outdated: bool) -> Result<(), Error> {
        if is_outdated {
            self.decide_again(ask)?;
        }
        let places = self.places(ask.cx.now);
        let pinned = self.pinned(&self.view, self.candidates);
        let Some(in_queue) = &self.in_queue else {
            return Ok(());
        };
        let settings = self.view.scheduling;
        let common = Arc::clone(&self.gateway.common);
        let now_ms = common.clock_ms(ask.cx.now);
        let changed = common.scheduler.change(
            in_queue.id(),
            |waiting| waiting.change_places(places, pinned),
            &settings,
            now_ms,
        );
        // Otherwise it was told to start meanwhile, and looks where.
        self.gateway
            .hand_out(changed.unwrap_or_default(), ask.cx.now);
        Ok(())
    }

    /// What a client that waits for its turn is told (docs/contract/scheduling.md#5).
    pub(super) fn write_position(&self, cx: &Cx<'_>, out: &mut Vec<u8>) -> bool {
        use std::io::Write as _;
        let Some(in_queue) = &self.in_queue else {
            return false;
        };
        let common = &self.gateway.common;
        let now_ms = common.clock_ms(cx.now);
        let settings = self.view.scheduling;
        let position = common.scheduler.position(in_queue.id(), &settings, now_ms);
        // Writing to a vector does not fail.
        drop(write!(out, ": queued {position}\n\n"));
        true
    }
}

/// What becomes of a request that waits.
pub(super) enum Turn {
    /// It starts.
    Starts(Lease),
    /// It is looked at again at this time.
    Later(Instant),
    /// Another endpoint is picked for it.
    Again,
}
