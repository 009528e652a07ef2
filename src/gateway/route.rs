//! A request is complete: which model it is for, who could serve it, and who will.
//!
//! contract: balancing 1-9

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use olla_engine::exchange::Fault;
use olla_engine::handler::{AttemptEnd, Cx, Local, Pick, Request, Routed, Target};

use super::answers::{self, Error, seconds_until};
use super::exchange::{Exchange, Kind};
use super::view::View;
use super::{Gateway, Letter};
use crate::inspect::{self, rewrite_model};
use crate::log::{Level, events};
use crate::routing::balance::{Lease, NoPick, Picker};
use crate::routing::decide::{Ask, Decision, Refresh, Rules, decide, decide_management};
use crate::routing::rejection::{self, About};
use crate::routing::scope::Scope;
use crate::routing::sticky::Sources;
use crate::shared::{Address, Event};

/// How long a request waits for endpoints that have not been checked yet (contract: README 13).
const FIRST_CHECK_WAIT: Duration = Duration::from_secs(2);

/// How much longer than the refresh itself its outcome is waited for.
const REFRESH_SLACK: Duration = Duration::from_millis(500);

impl Gateway {
    /// Reads what the body says; once for each request.
    pub(super) fn inspect(&self, x: &mut Exchange, body: &[u8]) {
        let Some(mut inspector) = x.inspector.take() else {
            return;
        };
        x.findings = inspector.finish(body);
        if let Some(found) = &x.findings.model {
            x.model.push_str(&inspect::model_name(body, found));
        }
    }

    /// Candidates, or an answer.
    pub(super) fn decide(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed {
        self.inspect(x, body);
        x.routed = true;
        self.hear_of_refresh(cx, x);
        let view = self.view();
        x.view = Some(std::rc::Rc::clone(&view));
        let waited = x.waited || cx.now >= cx.arrived + FIRST_CHECK_WAIT;
        x.waited = waited;
        let scope = self.scope(x, &view, request, !waited);
        let mut decision = self.decision(x, &view, request, &scope);
        if x.ticket != 0 && matches!(decision, Decision::Route(_)) {
            // The snapshot with the refreshed listings may come before the word that they are.
            x.ticket = 0;
            x.refresh = Refresh::Done;
            decision = self.decision(x, &view, request, &scope);
        }
        match decision {
            Decision::Route(routed) => {
                x.candidates = routed.candidates;
                x.routing = routed.routing;
                x.alias = routed.alias;
                self.open_session(cx, x, &view, request, body);
                Routed::Upstream
            }
            Decision::Reject(rejected) => {
                x.routing = rejected.routing;
                self.reject(cx, x, &view, request, rejected.fault, local);
                Routed::Answered
            }
            Decision::AwaitFirstCheck => Routed::Wait(cx.arrived + FIRST_CHECK_WAIT),
            Decision::Refresh => self.ask_for_refresh(cx, x, &view, &scope),
        }
    }

    fn scope(&self, x: &Exchange, view: &View, request: &Request<'_>, wait: bool) -> Scope {
        let standing = view
            .snapshot
            .standing(&view.lost(&self.common.losses), wait);
        match x.kind {
            Kind::Proxy { scope, .. } => {
                view.snapshot
                    .scopes
                    .find(scope, x.rest(request.bytes), &standing)
            }
            Kind::Management(scope, _) => view.snapshot.scopes.unnarrowed(scope, &standing),
            _ => view
                .snapshot
                .scopes
                .unnarrowed(crate::routing::scope::ScopeId::Any, &standing),
        }
    }

    fn decision(
        &self,
        x: &Exchange,
        view: &View,
        request: &Request<'_>,
        scope: &Scope,
    ) -> Decision {
        let snapshot = &view.snapshot;
        if let Kind::Management(..) = x.kind {
            let named = request
                .head
                .get(request.bytes, olla_engine::h1::FieldId::XOllaEndpoint);
            return decide_management(&snapshot.fleet.endpoints, scope, named);
        }
        let vision = snapshot.fleet.catalogue.vision();
        let rules = Rules {
            routing: &view.plan().model_registry.routing_strategy,
            aliases: &snapshot.aliases,
            models: &snapshot.models,
            vision: &vision,
        };
        decide(
            &rules,
            &Ask {
                scope,
                has_provider: matches!(x.kind, Kind::Proxy { provider: true, .. }),
                model: x.model(),
                images: x.findings.images,
                refresh: x.refresh,
            },
        )
    }

    fn hear_of_refresh(&self, cx: &Cx<'_>, x: &mut Exchange) {
        if x.ticket == 0 {
            return;
        }
        match self.arrived.borrow_mut().remove(&x.ticket) {
            Some(Letter::Refreshed(true)) => x.refresh = Refresh::Done,
            Some(_) => x.refresh = Refresh::Failed,
            None => {
                if x.ticket_by.is_some_and(|by| cx.now < by) {
                    return;
                }
                x.refresh = Refresh::Failed;
            }
        }
        x.ticket = 0;
    }

    fn ask_for_refresh(&self, cx: &Cx<'_>, x: &mut Exchange, view: &View, scope: &Scope) -> Routed {
        let limit = view
            .plan()
            .model_registry
            .routing_strategy
            .discovery_timeout;
        let by = cx.now + limit + REFRESH_SLACK;
        if x.ticket == 0 {
            x.ticket = self.ticket();
            x.ticket_by = Some(by);
            let endpoints = &view.snapshot.fleet.endpoints;
            let ids = scope
                .routable
                .iter()
                .filter_map(|index| Some(endpoints.get(index)?.id));
            let event = Event::Refresh {
                endpoints: ids.collect(),
                limit,
                reply: Address {
                    core: self.core,
                    ticket: x.ticket,
                },
            };
            self.link.tell(event);
        }
        Routed::Wait(x.ticket_by.unwrap_or(by))
    }

    fn open_session(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
    ) {
        use olla_engine::h1::FieldId;
        let Some(bounds) = view.sticky else { return };
        let head = request.head;
        let sources = Sources {
            session: head.get(request.bytes, FieldId::XOllaSessionId),
            prefix: x.findings.prefix.clone().and_then(|span| body.get(span)),
            authorization: head.get(request.bytes, FieldId::Authorization),
            ip: cx.peer.ip(),
        };
        let sticky = &self.common.sticky;
        let key = sticky.key(&view.plan().proxy.sticky_sessions, &sources, x.model());
        x.session = Some(sticky.open(key, bounds, self.common.clock_ms(cx.now)));
    }

    /// The next endpoint, or the answer that there is none.
    pub(super) fn pick_next(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        failed: Option<Fault>,
        local: &mut Local,
    ) -> Pick {
        let Some(view) = x.view.clone() else {
            return Pick::Answered;
        };
        let snapshot = &view.snapshot;
        let now_ms = self.common.clock_ms(cx.now);
        let lease = match self.lease(cx, x, &view, failed) {
            Ok(lease) => lease,
            Err(none) => {
                let fault = match (none.fault(!x.tried.is_empty()), failed) {
                    (rejection::Fault::BackendError, Some(fault)) if fault.is_silence() => {
                        rejection::Fault::BackendTimeout
                    }
                    (fault, _) => fault,
                };
                self.reject(cx, x, &view, request, fault, local);
                return Pick::Answered;
            }
        };
        let index = lease.endpoint();
        x.tried.insert(index);
        x.attempts += 1;
        x.endpoint = Some(index);
        x.answer_status = None;
        x.times.answered = None;
        x.lease = Some(lease);
        let Some(endpoint) = snapshot.fleet.endpoints.get(index) else {
            return Pick::Answered;
        };
        if let (Some(session), Some(bounds)) = (x.session.as_mut(), view.sticky) {
            self.common
                .sticky
                .picked(session, endpoint.id, bounds, now_ms);
        }
        let upstream = &endpoint.upstream;
        if x.kind == Kind::Messages {
            if !self.translate_for_endpoint(cx, x, &view, request, body, local) {
                x.lease = None;
                return Pick::Answered;
            }
        } else {
            self.name_for_endpoint(x, &view);
        }
        Pick::Upstream(Target {
            key: endpoint.id.into(),
            idle_max: upstream.idle_max,
            keep_alive: upstream.keep_alive,
        })
    }

    /// One of the candidates that are left, counted as in flight.
    fn lease(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        failed: Option<Fault>,
    ) -> Result<Lease, NoPick> {
        let attempts_max = view.plan().proxy.retry.attempts_max(x.candidates.len());
        if failed.is_some() && x.tried.len() >= attempts_max.max(1) {
            return Err(NoPick::Nobody);
        }
        let endpoints = &view.snapshot.fleet.endpoints;
        let pinned = x.session.as_ref().and_then(|s| s.pinned(endpoints));
        loop {
            let (candidates, tried) = x.message.choice(&x.candidates, &x.tried);
            let picker = Picker {
                endpoints,
                balancer: view.plan().proxy.load_balancer,
                turns: &self.common.turns,
                now_ms: self.common.clock_ms(cx.now),
                random: self.random.number(),
            };
            let token = |index| self.take_endpoint_token(view, index, cx.now);
            match picker.pick(&candidates, &tried, pinned, token) {
                Err(_) if x.message.leave_native() => {}
                picked => return picked,
            }
        }
    }

    /// The name that the picked endpoint knows the model by, if that is another than the client
    /// wrote; and the body with it.
    pub(super) fn name_for_endpoint(&self, x: &mut Exchange, view: &View) {
        x.sent_model.clear();
        x.splice = None;
        let (Some(alias), Some(index)) = (&x.alias, x.endpoint) else {
            return;
        };
        let snapshot = &view.snapshot;
        let real = snapshot.aliases.real_name(alias, &snapshot.models, index);
        let Some(real) = real.filter(|real| *real != x.model) else {
            return;
        };
        x.sent_model.push_str(real);
        x.splice = x
            .findings
            .model
            .as_ref()
            .and_then(|found| rewrite_model(found, real));
    }

    /// An attempt is over: what it says about its endpoint (contract: balancing 9, 10).
    pub(super) fn end_attempt(&self, cx: &Cx<'_>, x: &mut Exchange, end: AttemptEnd, bytes: u64) {
        let Some(mut lease) = x.lease.take() else {
            return;
        };
        let Some(view) = x.view.clone() else { return };
        let index = lease.endpoint();
        if let AttemptEnd::Failed(fault) = end
            && x.answer_status.is_none()
        {
            x.failed_by = Some(fault);
            let met_before = fault.marks_offline() && self.is_known_away(&view, index);
            if fault.counts_for_breaker() && !met_before {
                lease.failed(self.common.clock_ms(cx.now));
            }
            if fault.marks_offline()
                && let Some(endpoint) = view.snapshot.fleet.endpoints.get(index)
            {
                endpoint.live.lose();
                self.common.losses.fetch_add(1, Ordering::Release);
                self.link.tell(Event::Failed {
                    endpoint: endpoint.id,
                    error: fault.as_str(),
                });
                let left = x.candidates.minus(&x.tried).len() as u64;
                let mut log = self.log.borrow_mut();
                if let Some(mut line) =
                    log.event(Level::Warn, events::CONNECTION_FAILED, cx.unix_ms)
                {
                    line.str("request_id", x.id.as_str())
                        .str("endpoint", endpoint.name())
                        .str("error", fault.as_str())
                        .num("remaining_endpoints", left);
                }
            }
        }
        drop(lease);
        self.record_attempt(cx, x, &view, index, end, bytes);
    }

    /// Whether an endpoint of a request's view has already been found to be away: a connection to
    /// it that fails now belongs to the same outage, and many at once shall not open its breaker
    /// for longer than the outage lasts.
    fn is_known_away(&self, view: &View, index: usize) -> bool {
        let newest = self.view();
        let endpoints = (
            &view.snapshot.fleet.endpoints,
            &newest.snapshot.fleet.endpoints,
        );
        match (endpoints.0.get(index), endpoints.1.get(index)) {
            (Some(then), Some(now)) => {
                then.id == now.id && (now.is_lost() || !now.status.is_routable())
            }
            _ => false,
        }
    }

    /// The answer that nobody will serve this request.
    pub(super) fn reject(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        fault: rejection::Fault,
        local: &mut Local,
    ) {
        let provider = match view.snapshot.routes.find(x.path(request)) {
            crate::routing::route::Route::Proxy { prefix, .. }
            | crate::routing::route::Route::Management { prefix, .. } => prefix.provider(),
            _ => None,
        };
        let endpoint = x
            .endpoint
            .and_then(|index| view.snapshot.fleet.endpoints.get(index));
        let about = About {
            provider,
            model: x.model(),
            endpoint: endpoint.map(crate::fleet::Endpoint::name),
            because: x.failed_by.map(Fault::sentence),
        };
        let mut error = Error::new(
            fault.status(),
            fault.kind(),
            fault.code(),
            fault.message(about).to_string(),
        );
        if fault == rejection::Fault::Throttled {
            error.retry_after = Some(self.token_in(cx, x, view));
        }
        answers::error(cx, x, Some(request), &error, local);
    }

    /// Seconds until one of the candidates has a token again.
    fn token_in(&self, cx: &Cx<'_>, x: &Exchange, view: &View) -> u64 {
        let now = view.shards.borrow().epoch.nanos(cx.now);
        let waits = x.candidates.iter().filter_map(|index| {
            let bucket = view.endpoint(Some(index))?.bucket.as_ref()?;
            Some(bucket.peek(now).retry_after)
        });
        seconds_until(waits.min().unwrap_or_default())
    }

    /// Per-endpoint limits (contract: surface 10.1).
    fn take_endpoint_token(&self, view: &View, index: usize, now: Instant) -> bool {
        let bucket = view
            .endpoint(Some(index))
            .and_then(|endpoint| endpoint.bucket.as_ref());
        bucket.is_none_or(|bucket| {
            let now = view.shards.borrow().epoch.nanos(now);
            bucket.take(now).admitted
        })
    }
}
