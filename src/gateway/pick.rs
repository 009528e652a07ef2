//! The attempts of a request: picks an endpoint, and records what an attempt's end shows of it.
//!
//! Contract: docs/contract/balancing.md#7 to docs/contract/balancing.md#10

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use olla_engine::exchange::Fault;
use olla_engine::handler::{Ask, AttemptEnd, Cx, Target};

use super::arrive::management_refused;
use super::away::Done;
use super::exchange::Exchange;
use super::picked::{Begun, Picked};
use super::respond::seconds_until;
use super::turns::{LOOK_AGAIN, Turn};
use super::view::View;
use crate::dialects::{ApiFamily, DialectTarget, Error, Sent};
use crate::endpoint_set::EndpointSet;
use crate::fleet::fault::consequences;
use crate::fleet::{Cause, Endpoint, ErrorKind};
use crate::inspect::rewrite_model;
use crate::log::{Level, events};
use crate::routing::balance::{Lease, NoPick, Picker};
use crate::routing::management::Management;
use crate::routing::rejection;
use crate::routing::route::RouteKind;
use crate::shared::{ToControl, Trouble};

/// What a request does next.
enum Next {
    /// An attempt.
    Lease(Lease),
    /// It waits, and is looked at again at this time.
    Wait(Instant),
    /// It is going to wait, and what its client gets meanwhile is made first, from what the request
    /// would be for this endpoint.
    Begin(usize),
}

impl Exchange {
    /// The next endpoint, with the request prepared for it.
    ///
    /// # Errors
    /// No endpoint is left, or the request cannot be expressed for the one that was picked.
    pub(super) fn pick_endpoint(
        &mut self,
        ask: &Ask<'_>,
        failed: Option<Fault>,
    ) -> Result<Picked, Error> {
        if let Some(Done::Request(sent)) = self.come_back() {
            return match self.kept.schedule.begun {
                Begun::Away => self.begun_to_wait(ask, sent, failed),
                Begun::No | Begun::Yes => self.prepared(ask, sent),
            };
        }
        let lease = match self.next_lease(ask, failed)? {
            Next::Lease(lease) => lease,
            Next::Wait(until) => return Ok(Picked::Wait(until)),
            Next::Begin(index) => return self.begin_to_wait(ask, index, failed),
        };
        let view = Rc::clone(&self.view);
        let index = lease.endpoint();
        let endpoint = view.leased(index);
        self.tried.insert(index);
        if self.attempts == 0 {
            self.gateway.proxied.set(self.gateway.proxied.get() + 1);
        } else {
            self.record_left(ask.cx, index);
        }
        self.attempts += 1;
        self.endpoint = Some(index);
        self.deaths = endpoint.live.deaths();
        self.upstream_status = None;
        self.times.responded = None;
        self.lease = Some(lease);
        if let (Some(session), Some(bounds)) = (self.session.as_mut(), view.sticky) {
            let common = &self.gateway.common;
            let now_ms = common.clock_ms(ask.cx.now);
            common.sticky.picked(session, endpoint.id, bounds, now_ms);
        }
        match self.prepare(ask, &view, index) {
            Some(sent) => self.prepared(ask, sent),
            None => Ok(Picked::Later),
        }
    }

    /// The endpoint of the next attempt, or what the request does instead.
    fn next_lease(&mut self, ask: &Ask<'_>, failed: Option<Fault>) -> Result<Next, Error> {
        if self.in_queue.is_some() {
            self.kept.schedule.refused = EndpointSet::EMPTY;
            match self.take_turn(ask)? {
                Turn::Starts(lease) => return Ok(Next::Lease(lease)),
                Turn::Later(until) => return Ok(Next::Wait(until)),
                Turn::Again => {}
            }
        }
        let none = match self.lease(ask.cx, failed) {
            Ok(lease) => return Ok(Next::Lease(lease)),
            Err(none) => none,
        };
        if none == NoPick::Full {
            if let Some(index) = self.must_begin() {
                return Ok(Next::Begin(index));
            }
            // Each time that it starts in vain, one endpoint less is left to wait for.
            for _ in 0..=self.candidates.len() {
                self.queue_up(ask)?;
                match self.take_turn(ask)? {
                    Turn::Starts(lease) => return Ok(Next::Lease(lease)),
                    Turn::Later(until) => return Ok(Next::Wait(until)),
                    Turn::Again => {}
                }
            }
            return Ok(Next::Wait(ask.cx.now + LOOK_AGAIN));
        }
        let fault = match (none.fault(!self.tried.is_empty()), failed) {
            (rejection::Fault::BackendError, Some(fault)) if fault.is_silence() => {
                rejection::Fault::BackendTimeout
            }
            (fault, _) => fault,
        };
        Err(self.rejected(ask.cx, fault))
    }

    /// Where the request goes at an endpoint; `None` = to the client's own path.
    pub(super) fn target<'e>(&self, endpoint: &'e Endpoint) -> Option<DialectTarget<'e>> {
        let RouteKind::Proxy(_, Some(operation)) = self.route.kind else {
            return self.dialect.target(endpoint);
        };
        Some(DialectTarget {
            path: endpoint.profile.operation_path(operation),
            translated: false,
            read_here: false,
        })
    }

    /// The name of the model in the request to the last endpoint.
    pub(super) fn sent_model(&self) -> Option<&str> {
        Some(self.kept.sent_model.as_str())
            .filter(|model| !model.is_empty())
            .or_else(|| self.model())
    }

    /// Picks one of the remaining candidates and counts the request as in flight.
    fn lease(&mut self, cx: &Cx<'_>, failed: Option<Fault>) -> Result<Lease, NoPick> {
        if failed.is_some() && !self.may_go_on() {
            return Err(NoPick::NoneLeft);
        }
        self.pick_by(cx, |exchange, picker, candidates, tried| {
            let nanos = exchange.gateway.common.nanos(cx.now);
            let view = Rc::clone(&exchange.view);
            let token = |index| view.take_token(index, || nanos);
            if exchange.takes_slot {
                return exchange.admit_to_slot(cx, picker, (candidates, tried), token);
            }
            let session = exchange.session.as_ref();
            let pinned = session.and_then(|session| session.pinned(picker.endpoints));
            picker.pick(candidates, tried, pinned, token)
        })
    }

    /// Picks by `pick` in the order in which candidates come into question. Those that cool down are
    /// passed over while another candidate is left.
    pub(super) fn pick_by<T>(
        &mut self,
        cx: &Cx<'_>,
        mut pick: impl FnMut(&mut Self, &Picker<'_>, &EndpointSet, &EndpointSet) -> Result<T, NoPick>,
    ) -> Result<T, NoPick> {
        let cooling = self.cooling(self.gateway.common.clock_ms(cx.now));
        if !cooling.is_empty() {
            let skipped = self.tried.or(&cooling);
            match self.pick_of(cx, &skipped, &mut pick) {
                Err(NoPick::NoneLeft | NoPick::Throttled) => {}
                picked => return picked,
            }
            self.dialect.narrow();
        }
        let tried = self.tried;
        self.pick_of(cx, &tried, &mut pick)
    }

    /// Whether another endpoint may be tried after a failed connection.
    pub(super) fn may_go_on(&self) -> bool {
        let plan = &self.view.plan().proxy.retry;
        let attempts_max = plan.attempts_max(self.candidates.len()).max(1);
        self.tried.len() < attempts_max && self.closed_by().is_none()
    }

    /// Picks a candidate that is not one of these.
    fn pick_of<T>(
        &mut self,
        cx: &Cx<'_>,
        skipped: &EndpointSet,
        mut pick: impl FnMut(&mut Self, &Picker<'_>, &EndpointSet, &EndpointSet) -> Result<T, NoPick>,
    ) -> Result<T, NoPick> {
        let common = Arc::clone(&self.gateway.common);
        let view = Rc::clone(&self.view);
        loop {
            let (candidates, tried) = self.dialect.next(&self.candidates, skipped);
            let picker = Picker {
                endpoints: &view.snapshot.fleet.endpoints,
                balancer: view.plan().proxy.load_balancer,
                turns: &common.turns,
                now_ms: common.clock_ms(cx.now),
                random: self.gateway.random.number(),
            };
            match pick(self, &picker, &candidates, &tried) {
                Err(_) if self.dialect.widen() => {}
                picked => return picked,
            }
        }
    }

    /// Prepares the request for the picked endpoint: the endpoint's name of the model, if it
    /// differs from the client's, and the body with that name. `None` = that was given away.
    pub(super) fn prepare(
        &mut self,
        ask: &Ask<'_>,
        view: &View,
        index: usize,
    ) -> Option<Result<Sent, Error>> {
        let snapshot = &view.snapshot;
        // The route did not know the path that the endpoint keeps in front.
        let base = view
            .endpoint(index)
            .map(|endpoint| &endpoint.upstream.base_path);
        if let Some(base) = base.filter(|base| !base.is_empty())
            && let Some(operation) = Management::of(base.as_bytes(), self.rest(&ask.request))
        {
            if !self.forwards(operation) {
                return Some(Err(management_refused()));
            }
            if let Err(error) = self.check_management(ask, operation) {
                return Some(Err(error));
            }
        }
        let model = self.kept.model.as_str();
        let alias = self.alias.as_ref();
        let real =
            alias.and_then(|alias| snapshot.aliases.real_name(alias, &snapshot.models, index));
        let real = match real {
            None if self.route.family() == ApiFamily::Ollama => snapshot
                .models
                .spelling(index, model)
                .filter(|_| self.dialect.respells())
                .or_else(|| self.without_latest(snapshot, index)),
            None if self.dialect.respells() => snapshot.models.spelling(index, model),
            real => real,
        };
        let real = real.filter(|real| *real != model).unwrap_or("");
        self.kept.sent_model.clear();
        self.kept.sent_model.push_str(real);
        self.dialect.record(&ask.request, view.plan());
        self.request_dialect(ask, index)
    }

    /// The request for the picked endpoint is prepared, or cannot be expressed for it.
    fn prepared(&mut self, ask: &Ask<'_>, sent: Result<Sent, Error>) -> Result<Picked, Error> {
        let real = Some(self.kept.sent_model.as_str()).filter(|real| !real.is_empty());
        let splice = match (&sent, real, &self.findings.model) {
            (Ok(Sent::Client), Some(real), Some(found)) => match &self.form {
                None => Ok(rewrite_model(found, real)),
                Some(form) => form
                    .rewrite(ask.body, real)
                    .ok_or_else(parts_apart)
                    .map(Some),
            },
            _ => Ok(None),
        };
        let sent = splice.and_then(|splice| {
            self.splice = splice;
            sent
        });
        self.take_notes(ask.cx);
        let picked = match sent {
            Ok(Sent::Response(body)) => {
                self.is_served_here = true;
                Ok(Picked::Response(body))
            }
            Ok(Sent::Client | Sent::Own) => self
                .endpoint()
                .map(|endpoint| Picked::Upstream(target_of(endpoint)))
                .ok_or_else(Error::not_found),
            Err(error) => Err(error),
        };
        if let Ok(Picked::Upstream(_)) = picked {
            self.salt_body(ask);
            self.dispatch(ask.cx);
        } else {
            // Nothing was sent to the endpoint.
            self.lease = None;
            self.endpoint = None;
            self.end_dispatch(ask.cx.now, false);
        }
        picked
    }

    /// An attempt has ended: records what it shows of its endpoint (docs/contract/balancing.md#9,
    /// docs/contract/balancing.md#10).
    pub(super) fn end_attempt(&mut self, ask: &Ask<'_>, end: AttemptEnd, bytes: u64) {
        let cx = ask.cx;
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        let index = lease.endpoint();
        if let AttemptEnd::Failed(fault) = end
            && self.upstream_status.is_none()
        {
            self.failed_by = Some(fault);
            let consequences = consequences(fault);
            let met_before = consequences.marks_offline && self.is_known_away(index);
            if consequences.counts_for_breaker && !met_before {
                lease.failed(self.gateway.common.clock_ms(cx.now));
            }
            if let Some(kind) = ErrorKind::of_traffic(fault) {
                self.note_trouble(ask, index, kind, consequences.sentence);
            }
            if consequences.marks_offline {
                self.lose_endpoint(cx, index, fault);
            }
            if consequences.makes_suspect {
                self.suspect_endpoint(cx, index, fault);
            }
            self.note_left(index, fault);
        }
        drop(lease);
        self.end_dispatch(cx.now, end == AttemptEnd::Whole);
        self.record_attempt(cx, index, self.counted_end(end), bytes);
        self.is_auth_refused = false;
    }

    /// Notes what an endpoint's last error shows (docs/contract/observe.md#1).
    fn note_trouble(&self, ask: &Ask<'_>, index: usize, kind: ErrorKind, sentence: &'static str) {
        let status = (kind == ErrorKind::RateLimited).then_some(429);
        self.note_trouble_of(ask, index, (kind, status), sentence);
    }

    /// An endpoint has refused the gateway's own credentials.
    pub(super) fn note_auth_refused(&self, ask: &Ask<'_>, index: usize, status: u16) {
        let sentence = "refused the gateway's credentials";
        self.note_trouble_of(ask, index, (ErrorKind::Auth, Some(status)), sentence);
    }

    fn note_trouble_of(
        &self,
        ask: &Ask<'_>,
        index: usize,
        (kind, status): (ErrorKind, Option<u16>),
        sentence: &'static str,
    ) {
        let endpoint = self.view.leased(index);
        if endpoint
            .live
            .trouble(self.gateway.common.clock_ms(ask.cx.now))
        {
            let target = self.target(endpoint);
            let trouble = Trouble {
                kind,
                sentence,
                path: self.asked_path(&ask.request, endpoint, target),
                status,
            };
            self.gateway.control.send(ToControl::TrafficFailed {
                endpoint: endpoint.id,
                trouble,
            });
        }
    }

    /// The head of a response has arrived. A 429 is a trouble of the endpoint; any other status
    /// ends the row of troubles.
    pub(super) fn note_status(&self, ask: &Ask<'_>, status: u16) {
        const LIMITED: &str = "is rate limited: it responded with 429";
        match self.lease.as_ref().map(Lease::endpoint) {
            Some(index) if status == 429 => {
                self.note_trouble(ask, index, ErrorKind::RateLimited, LIMITED);
            }
            Some(index) => self.view.leased(index).live.no_trouble(),
            None => {}
        }
    }

    /// Marks an endpoint as unreachable, so that no core picks it from now on.
    fn lose_endpoint(&self, cx: &Cx<'_>, index: usize, fault: Fault) {
        let endpoint = self.view.leased(index);
        endpoint.live.lose();
        let common = &self.gateway.common;
        common.losses.fetch_add(1, Ordering::Release);
        let cause = Cause::of_traffic(fault);
        self.gateway.control.send(ToControl::ConnectFailed {
            endpoint: endpoint.id,
            cause,
        });
        let left = self.candidates.minus(&self.tried).len() as u64;
        let mut log = self.gateway.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Warn, events::CONNECTION_FAILED, cx.unix_ms) {
            line.str("request_id", self.kept.id.as_str())
                .str("endpoint", endpoint.name())
                .str("error", cause.error.map_or("", ErrorKind::as_str))
                .num("remaining_endpoints", left);
            if let Some(reason) = cause.reason {
                line.str("reason", reason);
            }
        }
    }

    /// The request itself may have made the endpoint close the connection: a health check decides.
    fn suspect_endpoint(&self, cx: &Cx<'_>, index: usize, fault: Fault) {
        let endpoint = self.view.leased(index);
        self.gateway.control.send(ToControl::Suspected {
            endpoint: endpoint.id,
        });
        let mut log = self.gateway.log.borrow_mut();
        let line = log.event(Level::Warn, events::CONNECTION_DROPPED, cx.unix_ms);
        if let Some(mut line) = line {
            line.str("request_id", self.kept.id.as_str())
                .str("endpoint", endpoint.name());
            if let Some(kind) = ErrorKind::of_traffic(fault) {
                line.str("error", kind.as_str());
            }
        }
    }

    /// Whether an endpoint of the request's view is already known to be unreachable. Another failed
    /// connection belongs to the same outage. It does not count for the breaker, which would
    /// otherwise stay open longer than the outage lasts.
    pub(super) fn is_known_away(&self, index: usize) -> bool {
        let newest = self.gateway.view();
        match (self.view.endpoint(index), newest.endpoint(index)) {
            (Some(then), Some(now)) => {
                then.id == now.id && (now.is_lost() || !now.status.is_routable())
            }
            _ => false,
        }
    }

    /// Seconds until one of the candidates has a token again.
    pub(super) fn token_in(&self, cx: &Cx<'_>) -> u64 {
        let now = self.gateway.common.nanos(cx.now);
        let waits = self.candidates.iter().filter_map(|index| {
            let bucket = self.view.endpoint(index)?.bucket.as_ref()?;
            Some(bucket.peek(now).retry_after)
        });
        // If no candidate has a limit, there is nothing to wait for.
        seconds_until(waits.min().unwrap_or(Duration::ZERO))
    }
}

/// A form that names its alias in parts between which lies too much.
fn parts_apart() -> Error {
    let message = "the form has several parts named model that are too far apart for an alias";
    Error::new(400, "bad_request", "INVALID_BODY", message)
}

/// Where a request to an endpoint goes, for the engine.
pub(super) fn target_of(endpoint: &Endpoint) -> Target {
    Target {
        key: endpoint.pool_key,
        idle_max: endpoint.upstream.idle_max,
        keep_alive: endpoint.upstream.keep_alive,
    }
}
