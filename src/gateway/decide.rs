//! Finds the model of a complete request and the endpoints that can serve it.
//!
//! Contract: docs/contract/balancing.md#1 to docs/contract/balancing.md#6

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::h1::FieldId;
use olla_engine::handler::{Ask, Cx, Local, Request, Routed};

use super::away::Done;
use super::exchange::Exchange;
use super::limited::PER_ENDPOINT;
use super::owner::owner_of;
use super::replies::{Awaited, ControlReply};
use crate::dialects::{ApiFamily, Choosing, Dialect, Error};
use crate::endpoint_set::EndpointSet;
use crate::field_names::{X_OLLA_ENDPOINT, X_OLLA_SESSION_ID};
use crate::fleet::fault::consequences;
use crate::inspect;
use crate::providers::LATEST;
use crate::routing::decide::{
    self, Decision, Refresh, RoutingRequest, RoutingRules, decide, decide_management,
};
use crate::routing::rejection::{self, About};
use crate::routing::route::RouteKind;
use crate::routing::scope::{RouteScope, ScopeId};
use crate::routing::sticky::Sources;
use crate::shared::{RefreshRequest, ToControl};

/// How long a request waits for endpoints that have not been checked yet
/// (docs/contract/README.md#13).
const FIRST_CHECK_WAIT: Duration = Duration::from_secs(2);

/// Time that a request waits for the outcome of a refresh beyond the limit of the refresh.
const REFRESH_SLACK: Duration = Duration::from_millis(500);

impl Exchange {
    /// Finds candidates, or makes an error response if there are none.
    pub(super) fn decide(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        if let Some(routed) = self.respond_stored(ask, local) {
            return routed;
        }
        let routed = self.find_candidates(ask).and_then(|routed| {
            if routed == Routed::Upstream && !self.describes() {
                self.reserve(ask)?;
            }
            Ok(routed)
        });
        match routed {
            Ok(Routed::Upstream) if self.describes() => self.describe(ask, local),
            Ok(routed) => routed,
            Err(error) => {
                self.error(ask.cx, Some(&ask.request), &error, local);
                Routed::Respond
            }
        }
    }

    /// Finds candidates, or what the request has to wait for until there are some.
    pub(super) fn find_candidates(&mut self, ask: &Ask<'_>) -> Result<Routed, Error> {
        let Ask { cx, request, body } = *ask;
        if !self.read(ask)? {
            return Ok(Routed::Work);
        }
        self.take_refresh(cx.now);
        self.renew_view(&request)?;
        self.check_named(&request)?;
        let first_checks_by = cx.arrived + FIRST_CHECK_WAIT;
        let scope = self.scope(&request, cx.now < first_checks_by);
        loop {
            match self.decision(&request, &scope) {
                // The snapshot with the refreshed listings may arrive before the reply that
                // announces it.
                Decision::Route(_) if self.ticket.take().is_some() => self.refresh = Refresh::Done,
                Decision::Route(routed) => {
                    self.measure(ask);
                    self.begin_explanation(&request);
                    self.take_route(ask, routed)?;
                    self.open_session(ask);
                    return Ok(Routed::Upstream);
                }
                Decision::Reject(rejected) => {
                    self.routing = rejected.routing;
                    self.missing = Some(self.missing_model(body));
                    return Err(self.rejected(cx, rejected.fault));
                }
                Decision::AwaitFirstCheck => return Ok(Routed::Wait(first_checks_by)),
                // The lists are taken for what a refresh would bring.
                Decision::Refresh if self.dry_run.is_some() => self.refresh = Refresh::Done,
                Decision::Refresh => match self.ask_for_refresh(cx, &scope) {
                    Some(until) => return Ok(Routed::Wait(until)),
                    None => self.refresh = Refresh::Failed,
                },
            }
        }
    }

    /// Takes the candidates that a decision found.
    fn take_route(&mut self, ask: &Ask<'_>, routed: decide::Routed) -> Result<(), Error> {
        let cx = ask.cx;
        self.routing = routed.routing;
        self.alias = routed.alias;
        self.candidates = self.fitting(&routed.candidates, cx.now);
        let view = Rc::clone(&self.view);
        self.dialect.choose(&Choosing {
            endpoints: &view.snapshot.fleet.endpoints,
            candidates: &self.candidates,
            plan: view.plan(),
            now_ms: self.gateway.common.clock_ms(cx.now),
            unix_ms: cx.unix_ms,
            responses: &self.gateway.common.responses,
            owner: &|| owner_of(&ask.request, self.key.as_deref()),
            is_keyed: self.key.is_some(),
        })
    }

    /// Decides again about a request that waits, by the newest snapshot. Where a new request would
    /// have to wait for the control thread, it has waited long enough.
    pub(super) fn decide_again(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        self.renew_view(&ask.request)?;
        let scope = self.scope(&ask.request, false);
        let mut decision = self.decision(&ask.request, &scope);
        if decision == Decision::Refresh {
            // What it wants is not listed any more, which is news enough.
            self.refresh = Refresh::Failed;
            decision = self.decision(&ask.request, &scope);
        }
        match decision {
            Decision::Route(routed) => {
                // Indices of endpoints are those of a snapshot.
                self.tried = EndpointSet::EMPTY;
                self.left = None;
                self.dropped_by = [None; 2];
                self.take_route(ask, routed)
            }
            Decision::Reject(rejected) => {
                self.routing = rejected.routing;
                Err(self.rejected(ask.cx, rejected.fault))
            }
            Decision::AwaitFirstCheck | Decision::Refresh => {
                Err(self.rejected(ask.cx, rejection::Fault::NoHealthy))
            }
        }
    }

    /// Takes what the dialect made of the body. Below Ollama's prefix every endpoint speaks Ollama's
    /// API and says itself what is wrong with a body (docs/contract/dialects.md#2).
    fn accept(&mut self, read: Result<(), Error>) -> Result<(), Error> {
        let is_ollamas =
            self.route.family() == ApiFamily::Ollama && self.provider() == Some("ollama");
        if read.is_err() && is_ollamas {
            self.dialect = Dialect::Plain;
            return Ok(());
        }
        read
    }

    /// Reads the model and other facts from the body, once for each request. False: a part of it
    /// was given away.
    fn read(&mut self, ask: &Ask<'_>) -> Result<bool, Error> {
        match self.come_back() {
            Some(Done::Read(model, read)) => {
                self.kept.model = model;
                self.accept(read)?;
                self.check_name()?;
                return Ok(true);
            }
            Some(Done::Limited(made)) => {
                self.take_limited(made);
                return self.read_model(ask.body);
            }
            _ => {}
        }
        if !std::mem::take(&mut self.inspects) {
            return Ok(true);
        }
        self.findings = match &mut self.form {
            None => self.kept.inspector.finish(ask.body),
            Some(form) => form.finish(ask.body),
        };
        if !self.limit_output(ask) {
            return Ok(false);
        }
        self.read_model(ask.body)
    }

    /// Reads the body once it is what an endpoint may get.
    fn read_model(&mut self, client: &[u8]) -> Result<bool, Error> {
        let own = self.own_body();
        let body = own.as_deref().unwrap_or(client);
        let model = &mut self.kept.model;
        if let Some(found) = &self.findings.model
            && !found.is_huge()
        {
            model.push_str(&inspect::model_name(body, found));
        }
        self.check_name()?;
        match self.read_dialect(body) {
            Some(read) => self.accept(read)?,
            None => return Ok(false),
        }
        self.check_name()?;
        Ok(true)
    }

    /// Routes by the newest snapshot. If a reload has changed the routes since the request arrived,
    /// the path is matched again: a route belongs to its table.
    fn renew_view(&mut self, request: &Request<'_>) -> Result<(), Error> {
        let newest = self.gateway.view();
        let before = std::mem::replace(&mut self.view, newest);
        let routes = &self.view.snapshot.routes;
        if !Arc::ptr_eq(&before.snapshot.routes, routes) {
            let method = request.head.method.of(request.bytes);
            let route = routes.route(method, self.path(request));
            if !route.is_proxied() || !route.is_like(&self.route) {
                return Err(Error::not_found());
            }
            self.route = route;
        }
        Ok(())
    }

    pub(super) fn scope(&self, request: &Request<'_>, wait: bool) -> RouteScope {
        self.scope_within(request, wait, self.fleet())
    }

    /// The same within certain endpoints; `None` = all.
    pub(super) fn scope_within(
        &self,
        request: &Request<'_>,
        wait: bool,
        fleet: Option<EndpointSet>,
    ) -> RouteScope {
        let snapshot = &self.view.snapshot;
        let lost = self.view.lost(&self.gateway.common.losses);
        let mut standing = snapshot.standing(&lost, wait);
        standing.fleet = fleet;
        let scopes = &snapshot.scopes;
        match self.route.kind {
            RouteKind::Proxy(id, None) => {
                let scope = snapshot.routes.prefix(id).scope;
                scopes.find(scope, self.rest(request), &standing)
            }
            // No type hides another (docs/contract/dialects.md#2.1).
            RouteKind::Proxy(id, Some(_))
            | RouteKind::Management(id, _)
            | RouteKind::Dialect(_, _, id) => {
                scopes.unnarrowed(snapshot.routes.prefix(id).scope, &standing)
            }
            _ => scopes.unnarrowed(ScopeId::Any, &standing),
        }
    }

    pub(super) fn decision(&self, request: &Request<'_>, scope: &RouteScope) -> Decision {
        let snapshot = &self.view.snapshot;
        if let RouteKind::Management(..) = self.route.kind {
            let named = request.head.get(request.bytes, X_OLLA_ENDPOINT);
            return decide_management(&snapshot.fleet.endpoints, scope, named);
        }
        let vision = snapshot.catalogue.vision();
        let rules = RoutingRules {
            routing: &self.view.plan().model_registry.routing_strategy,
            aliases: &snapshot.aliases,
            models: &snapshot.models,
            vision: &vision,
        };
        decide(
            &rules,
            &RoutingRequest {
                scope,
                has_provider: self.provider().is_some(),
                model: self.model().map(|model| self.looked_up(model, scope)),
                is_hidden: self.is_hidden(scope),
                images: self.findings.images,
                refresh: self.refresh,
                no_model: self
                    .needs_model
                    .then_some(self.view.plan().routing.no_model),
            },
        )
    }

    /// The provider that the path's prefix names.
    fn provider(&self) -> Option<&str> {
        match self.route.kind {
            RouteKind::Proxy(id, _)
            | RouteKind::Management(id, _)
            | RouteKind::Dialect(_, _, id) => self.view.snapshot.routes.prefix(id).provider(),
            _ => None,
        }
    }

    /// The name that a model is looked up by: clients of Ollama's API append a tag that no other
    /// server has (docs/contract/dialects.md#3).
    pub(super) fn looked_up<'m>(&self, model: &'m str, scope: &RouteScope) -> &'m str {
        let snapshot = &self.view.snapshot;
        let short = match self.route.family() {
            ApiFamily::Ollama => model.strip_suffix(LATEST),
            _ => None,
        };
        let is_known = |name: &str| {
            snapshot.aliases.named(name).is_some()
                || !snapshot.models.find(name, &scope.configured).is_empty()
                || snapshot.aliases.covering(name).is_some()
        };
        short
            .filter(|short| !is_known(model) && is_known(short))
            .unwrap_or(model)
    }

    fn take_refresh(&mut self, now: Instant) {
        let Some(ticket) = &self.ticket else { return };
        self.refresh = match ticket.take(now) {
            Awaited::Later(_) => return,
            Awaited::Arrived(ControlReply::Refreshed(true)) => Refresh::Done,
            Awaited::Arrived(_) | Awaited::Never => Refresh::Failed,
        };
        self.ticket = None;
    }

    /// Requests, once, that the control thread lists the models of a scope's endpoints. Returns the
    /// deadline for the outcome; `None` if the queue of the control thread is full.
    fn ask_for_refresh(&mut self, cx: &Cx<'_>, scope: &RouteScope) -> Option<Instant> {
        if self.ticket.is_none() {
            let plan = self.view.plan();
            let limit = plan.model_registry.routing_strategy.discovery_timeout;
            let endpoints = &self.view.snapshot.fleet.endpoints;
            let ids = scope.routable.iter();
            let ids = ids.filter_map(|index| Some(endpoints.get(index)?.id));
            let by = cx.now + limit + REFRESH_SLACK;
            let model = self.model().unwrap_or_default();
            self.ticket = self.gateway.ask(by, |reply_to| {
                ToControl::Refresh(RefreshRequest {
                    model: model.into(),
                    endpoints: ids.collect(),
                    limit,
                    reply_to,
                })
            });
        }
        self.ticket.as_ref().map(|ticket| ticket.by)
    }

    fn open_session(&mut self, ask: &Ask<'_>) {
        let Some(bounds) = self.view.sticky else {
            return;
        };
        let Request { head, bytes, .. } = ask.request;
        let sources = Sources {
            session: head.get(bytes, X_OLLA_SESSION_ID),
            prompt: Some((self.body(ask.body), &self.findings.prompt)),
            authorization: match &self.key {
                None => head.get(bytes, FieldId::Authorization),
                Some(key) if key.is_anonymous() => None,
                Some(key) => Some(key.name.as_bytes()),
            },
            key: self.key.as_ref().map(|key| &*key.name),
            ip: ask.cx.peer.ip(),
        };
        let common = &self.gateway.common;
        let plan = &self.view.plan().proxy.sticky_sessions;
        let key = common.sticky.key(plan, &sources, self.model());
        let now_ms = common.clock_ms(ask.cx.now);
        self.session = Some(match &self.dry_run {
            None => common.sticky.open(key, bounds, now_ms),
            Some(_) => common.sticky.look(key, bounds, now_ms),
        });
    }

    fn warn_of_endpoint_limit(&self, cx: &Cx<'_>) {
        let rates = &self.view.plan().server.rate_limits.per_endpoint;
        let names = self
            .candidates
            .iter()
            .filter_map(|index| self.view.endpoint(index));
        let limits = names.filter_map(|endpoint| rates.of(endpoint.name()));
        if let Some(value) = limits.min() {
            let client = self.client.address();
            self.gateway
                .warn_of_limit(cx, PER_ENDPOINT, value.get(), client);
        }
    }

    /// The error of a request that no endpoint serves.
    pub(super) fn rejected(&self, cx: &Cx<'_>, fault: rejection::Fault) -> Error {
        let about = About {
            provider: self.provider(),
            model: self.model(),
            endpoint: self.endpoint().map(crate::fleet::Endpoint::name),
            missing: self.missing,
            because: self.failed_by.map(|fault| consequences(fault).sentence),
            closed_by: self.closed_by(),
        };
        let mut error = Error::new(
            fault.status(),
            fault.kind(),
            fault.code(),
            fault.message(about).to_string(),
        );
        if fault == rejection::Fault::Throttled {
            error.retry_after = Some(self.token_in(cx));
            if self.dry_run.is_none() {
                self.warn_of_endpoint_limit(cx);
            }
        }
        error
    }
}
