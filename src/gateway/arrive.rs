//! Checks a request when its head has arrived: route, access and limits.
//!
//! Contract: docs/contract/surface.md#2, docs/contract/surface.md#3, docs/contract/surface.md#6,
//! docs/contract/surface.md#10, docs/contract/surface.md#11, docs/contract/surface.md#12,
//! docs/contract/surface.md#14

use std::borrow::Cow;

use olla_engine::h1::{FieldId, Span, emit};
use olla_engine::handler::{Ask, AtHead, Cx, Local, Refusal, Request};

use super::access::Admitted;
use super::cors::{Grant, is_operators_page, is_operators_path};
use super::exchange::Exchange;
use super::limited::over_limit;
use super::login::BODY_BYTES_MAX;
use super::refused::refused;
use crate::access::Client;
use crate::catalogue::ListingForm;
use crate::config::ModelManagement;
use crate::dialects::Error;
use crate::encoding::BodyCoding;
use crate::inspect::{Form, Inspector};
use crate::operations::stats::Violation;
use crate::routing::absent::AbsentApi;
use crate::routing::management::Management;
use crate::routing::path::{PathFault, normalise};
use crate::routing::route::{Limit, MatchedRoute, RouteKind};

impl Exchange {
    /// Handles a complete request head.
    pub(super) fn arrive(&mut self, ask: &Ask<'_>, local: &mut Local) -> AtHead {
        let Request { head, bytes, .. } = ask.request;
        // A request that has waited for the token issuer arrives again.
        if self.ticket.is_none() {
            self.name(head.get(bytes, FieldId::XRequestId));
        }
        let limits = &self.view.plan().server.rate_limits;
        let client = Client::identify(limits, ask.cx.peer.ip(), head, bytes);
        self.belongs_to(client, ask.cx);
        if self.view.cors.preflight(&ask.request, local) {
            self.end_preflight(ask.cx, local);
            return AtHead::Respond;
        }
        self.cors = self.view.cors.grant(&ask.request);
        match self.admit(ask) {
            Ok(Admitted::Yes) => AtHead::Body(self.body_limit().0),
            Ok(Admitted::Later(until)) => AtHead::Wait(until),
            Ok(Admitted::ToLogin) => {
                self.lead_to_login(ask.cx, &ask.request, local);
                AtHead::Respond
            }
            Err(error) => {
                self.error(ask.cx, Some(&ask.request), &error, local);
                AtHead::Respond
            }
        }
    }

    /// Writes the response to a request that the engine refuses. Without a head, the exchange has
    /// not been called before.
    pub(super) fn refuse_request(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    ) {
        if request.is_none() {
            self.name(None);
            self.belongs_to(Client::Address(cx.peer.ip().to_canonical()), cx);
        }
        if refusal == Refusal::BodyTooLarge {
            let mut recorder = self.gateway.recorder.borrow_mut();
            recorder.violation(Violation::Size);
        }
        let error = match refusal {
            Refusal::BodyUndecodable(why) => self.undecodable(why),
            Refusal::BodyTooLarge => self
                .decoded_too_large()
                .unwrap_or_else(|| refused(refusal, self.body_limit())),
            _ => refused(refusal, self.body_limit()),
        };
        self.error(cx, request, &error, local);
    }

    /// Sets the request id: that of the client if it is valid, else a new one.
    fn name(&mut self, own: Option<&[u8]>) {
        if !self.kept.id.take(own) {
            self.kept.id.make(&self.gateway.random);
        }
    }

    fn belongs_to(&mut self, client: Client, cx: &Cx<'_>) {
        self.client = client;
        self.kept.client_text.set(client.address());
        self.kept.peer_text.set(cx.peer.ip().to_canonical());
    }

    fn end_preflight(&mut self, cx: &Cx<'_>, local: &mut Local) {
        self.status = 204;
        let out = &mut local.head;
        emit::field(out, b"Date", cx.date);
        emit::field(out, b"X-Olla-Request-ID", self.kept.id.as_bytes());
        emit::field(out, b"X-Olla-Response-Time", b"0ms");
    }

    /// Every check of a head, in the contract's order (docs/contract/access.md#2).
    fn admit(&mut self, ask: &Ask<'_>) -> Result<Admitted, Error> {
        let Request { head, bytes, .. } = ask.request;
        self.find_route(&ask.request)?;
        self.withhold_cors(&ask.request);
        self.check_access(ask)?;
        let admitted = self.check_key(ask)?;
        if admitted != Admitted::Yes {
            return Ok(admitted);
        }
        let is_dry_run = self.is_dry_run(&ask.request);
        if is_dry_run {
            self.check_changes(ask)?;
        }
        self.check_route(&ask.request)?;
        if !self.admits_method(&ask.request) {
            return Err(method_refused(self.allow(&ask.request)));
        }
        self.take_tokens(ask)?;
        let max = self.view.plan().server.request_limits.max_header_size;
        if head.counted_size() as u64 > max {
            return Err(Error::new(
                431,
                "headers_too_large",
                "HEADERS_TOO_LARGE",
                format!(
                    "the request head is larger than the {max} bytes that \
                     server.request_limits.max_header_size allows"
                ),
            ));
        }
        self.enter(ask)?;
        if is_dry_run {
            self.begin_dry_run(ask)?;
        }
        self.check_coding(&ask.request)?;
        if self.route.is_proxied() {
            // The ledger estimates what endpoints do not report, with access off too.
            let wanted = self.view.wanted(self.path(&ask.request), true);
            self.kept.inspector = Inspector::new(wanted);
            self.inspects = self.coding != BodyCoding::Unreadable;
            let content_type = head.get(bytes, FieldId::ContentType);
            self.form = content_type.and_then(Form::of).map(Box::new);
            self.dialect = self.route.begin();
        }
        Ok(Admitted::Yes)
    }

    /// Whether the route of the path exists and may be used.
    pub(super) fn check_route(&mut self, request: &Request<'_>) -> Result<(), Error> {
        let Request { head, bytes, .. } = *request;
        if let RouteKind::Unknown(_) = self.route.kind {
            let api = AbsentApi::of_unknown(self.path(request));
            return Err(api.map_or_else(|| self.no_route(request), absent));
        }
        if let Some(api) = self.absent_api(request) {
            // It is refused like an unknown route: it does not count as a request of a client.
            self.route = MatchedRoute::unknown(self.route.family());
            return Err(absent(api));
        }
        // Only a request that goes on to an endpoint can loop.
        if self.route.may_reach_endpoint() && head.has(FieldId::Via) {
            let lines = head.all(FieldId::Via).map(|line| line.value.of(bytes));
            if self.gateway.via.is_loop(lines) {
                return Err(loop_detected());
            }
        }
        if let RouteKind::Management(_, operation) = self.route.kind
            && !self.forwards(operation)
        {
            // It is refused like an unknown route: it does not count as a request of a client.
            self.route = MatchedRoute::unknown(self.route.errors());
            return Err(management_refused());
        }
        if self.exists(request) {
            Ok(())
        } else {
            Err(Error::not_found())
        }
    }

    /// Pages of other sites must not read an operator's pages (docs/contract/observe.md#8).
    fn withhold_cors(&mut self, request: &Request<'_>) {
        let is_operators = match self.route.kind {
            RouteKind::Internal => is_operators_page(self.rest(request)),
            RouteKind::Dashboard => true,
            _ => false,
        };
        if is_operators {
            self.cors = Grant::Never;
        }
    }

    /// Whether an operation of model management goes to an endpoint.
    pub(super) fn forwards(&self, operation: Management) -> bool {
        let forward = self.view.plan().proxy.model_management == ModelManagement::Forward;
        forward && operation.is_forwardable()
    }

    /// Matches the path to a route. An error has the form of the route's family.
    fn find_route(&mut self, request: &Request<'_>) -> Result<(), Error> {
        let Request { head, bytes, .. } = *request;
        let end = if head.query.is_empty() {
            head.path.end
        } else {
            head.query.end
        };
        let start = head.path.start;
        let target = Span { start, end }.of(bytes);
        let routes = &self.view.snapshot.routes;
        let normal = match normalise(target) {
            Ok(normal) => normal,
            Err(PathFault) => {
                self.route = MatchedRoute::unknown(routes.family_of(target));
                let message = "the path escapes the root (\"..\")";
                return Err(Error::new(400, "bad_request", "INVALID_PATH", message));
            }
        };
        self.route = routes.route(head.method.of(bytes), &normal.path);
        if is_openai_listing(&self.route)
            && has_anthropic_version(request)
            && let Some(route) = routes.messages_listing(&normal.path)
        {
            self.route = route;
        }
        if let Cow::Owned(path) = normal.path {
            self.kept.own_path = path;
        }
        if matches!(self.route.kind, RouteKind::Unknown(_)) && is_operators_path(self.path(request))
        {
            self.cors = Grant::Never;
        }
        Ok(())
    }

    /// The API that a request on a route for endpoints asks for, if no endpoint could have it
    /// (docs/contract/dialects.md#17).
    fn absent_api(&self, request: &Request<'_>) -> Option<AbsentApi> {
        let Request { head, bytes, .. } = *request;
        let has = |name: &[u8]| {
            let mut fields = head.fields.iter();
            fields.any(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
        };
        if head.has(FieldId::Upgrade)
            && self.route.may_reach_endpoint()
            && has(b"Sec-WebSocket-Key")
        {
            return Some(AbsentApi::WebSocket);
        }
        let RouteKind::Proxy(..) = self.route.kind else {
            return None;
        };
        match AbsentApi::of_anthropic(self.rest(request))? {
            // OpenAI's API has files too.
            AbsentApi::Files if !has(b"anthropic-version") => None,
            api => Some(api),
        }
    }

    /// Takes a token from each rate limit of the route (docs/contract/surface.md#10).
    fn take_tokens(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        let limit = self.route.limit(self.path(&ask.request));
        if limit == Limit::Free {
            return Ok(());
        }
        let now = self.gateway.common.nanos(ask.cx.now);
        let admitted = self
            .gateway
            .shards
            .borrow_mut()
            .admit(limit, self.client, now);
        let refusal = match admitted {
            Ok(headers) => {
                self.limit_headers = headers;
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        self.limit_headers = refusal.headers;
        let mut recorder = self.gateway.recorder.borrow_mut();
        let address = self.client.address();
        recorder.violation(Violation::RateLimit(address));
        drop(recorder);
        let key = refusal.rule.key;
        let (value, _) = refusal.rule.unit.shown(refusal.per_minute.get());
        self.gateway.warn_of_limit(ask.cx, key, value, address);
        Err(over_limit(&refusal))
    }

    /// The largest body that the request may have, and the option that says so.
    pub(super) fn body_limit(&self) -> (Option<u64>, &'static str) {
        if matches!(self.route.kind, RouteKind::Dashboard) {
            return (Some(BODY_BYTES_MAX), "the dashboard's login");
        }
        let own = self.route.family().body_limit(self.view.plan());
        match (own, self.view.body_max) {
            (Some((own, key)), max) if max.is_none_or(|max| own <= max) => (Some(own), key),
            (_, max) => (max, "server.request_limits.max_body_size"),
        }
    }
}

/// Whether a route lists models in OpenAI's form.
fn is_openai_listing(route: &MatchedRoute) -> bool {
    let (RouteKind::Listing(_, form) | RouteKind::ListedModel(_, form)) = route.kind else {
        return false;
    };
    form == ListingForm::OpenAi
}

/// Whether a client speaks the Messages API (docs/contract/dialects.md#2.2).
fn has_anthropic_version(request: &Request<'_>) -> bool {
    let mut fields = request.head.fields.iter();
    fields.any(|field| {
        let name = field.name.of(request.bytes);
        field.id == FieldId::Other && name.eq_ignore_ascii_case(b"anthropic-version")
    })
}

pub(super) fn method_refused(allow: Option<&'static str>) -> Error {
    let mut error = Error::new(
        405,
        "method_not_allowed",
        "METHOD_NOT_ALLOWED",
        "the route does not allow this method",
    );
    error.allow = allow;
    error
}

fn absent(api: AbsentApi) -> Error {
    let (kind, code) = match api.status() {
        501 => ("not_implemented", "NOT_SUPPORTED"),
        _ => ("not_found", "NOT_FOUND"),
    };
    Error::new(api.status(), kind, code, api.message())
}

fn loop_detected() -> Error {
    let message = "the request has passed this gateway before, or more than 8 others; \
                   check that no endpoint's url leads back to a gateway";
    Error::new(508, "loop_detected", "LOOP_DETECTED", message)
}

pub(super) fn management_refused() -> Error {
    Error::new(
        501,
        "not_implemented",
        "NOT_SUPPORTED",
        "model management is not forwarded; set proxy.model_management = \"forward\" to allow it",
    )
}
