//! Serves requests that need no endpoint: short listings from the snapshot, pages and long listings
//! from the pages thread, the dashboard from built-in files.
//!
//! Contract: docs/contract/catalogue.md#6, docs/contract/operations.md#3,
//! docs/contract/operations.md#4, docs/contract/operations.md#7

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, Local, Request, Routed};

use super::away::Done;
use super::exchange::Exchange;
use super::owner::owner_of;
use super::replies::{Awaited, ControlReply};
use crate::catalogue::{CatalogueError, DetailTimes, ListingForm};
use crate::dialects::{
    Computation, ComputeAsk, DialectRoute, Error, Operation, OwnAsk, STEP_BYTES_MAX,
};
use crate::inspect::{Inspector, without_mark};
use crate::operations;
use crate::operations::conditional::{PageHeaders, PageResponse, accepts_gzip};
use crate::routing::route::{PrefixId, RouteKind};
use crate::shared::{Rendering, WantedPage};

/// Time limit for rendering a page; after it the client gets an error.
pub(super) const PAGE_WAIT: Duration = Duration::from_secs(10);

/// A listing of the catalogue; `None` = there is no such one.
type Listing = Option<Result<Bytes, CatalogueError>>;

fn page_of(rest: &[u8]) -> Option<operations::Route> {
    let rest = std::str::from_utf8(rest).ok()?;
    operations::Route::of(&format!("/internal/{rest}"))
}

impl Exchange {
    /// Responds to a request that needs no endpoint.
    pub(super) fn respond_locally(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        self.view = self.gateway.view();
        let request = &ask.request;
        match self.route.kind {
            RouteKind::Models => return self.models(ask, local),
            RouteKind::Model => {
                let catalogue = match self.catalogue(ask, local) {
                    Ok(catalogue) => catalogue,
                    Err(routed) => return routed,
                };
                let view = Rc::clone(&self.view);
                let id = String::from_utf8_lossy(self.rest(request)).into_owned();
                let times = DetailTimes {
                    now: SystemTime::now(),
                    synced_at: &|at| view.endpoint(at)?.last_model_sync,
                };
                let model = catalogue.model(&id, &times);
                self.write_listing(ask, Some(model), local);
            }
            RouteKind::Listing(prefix, form) => return self.scoped(ask, (prefix, form), local),
            RouteKind::ListedModel(prefix, form) => {
                let catalogue = match self.catalogue(ask, local) {
                    Ok(catalogue) => catalogue,
                    Err(routed) => return routed,
                };
                let view = Rc::clone(&self.view);
                let snapshot = &view.snapshot;
                let scoped = snapshot.routes.prefix(prefix).scoped(form);
                let id = String::from_utf8_lossy(self.rest(request)).into_owned();
                let model = catalogue.scoped_model(&scoped, &id);
                self.write_listing(ask, Some(model), local);
            }
            RouteKind::Dashboard => match self.login_route(request) {
                Some(route) => return self.login(ask, route, local),
                None => self.dashboard(ask, local),
            },
            RouteKind::Internal if self.admin_route(request).is_some() => {
                return self.administer(ask, local);
            }
            RouteKind::Internal => match page_of(self.rest(request)) {
                Some(page) => return self.page(ask, page, local),
                None => self.error(ask.cx, Some(request), &Error::not_found(), local),
            },
            RouteKind::Key => self.own_key(ask, local),
            RouteKind::Version => return self.page(ask, operations::Route::Version, local),
            RouteKind::Root => self.root(ask, local),
            RouteKind::Dialect(_, route, prefix) => {
                return self.own_response(ask, (route, prefix), local);
            }
            RouteKind::Proxy(..) | RouteKind::Management(..) | RouteKind::Unknown(_) => {
                self.error(ask.cx, Some(request), &Error::not_found(), local);
            }
        }
        Routed::Respond
    }

    /// Whether a route's page exists.
    pub(super) fn exists(&self, request: &Request<'_>) -> bool {
        match self.route.kind {
            RouteKind::Dashboard => self.view.plan().dashboard.enabled,
            RouteKind::Key => self.key.is_some(),
            RouteKind::Internal => {
                self.admin_route(request).is_some()
                    || self.is_dry_run(request)
                    || page_of(self.rest(request)).is_some()
            }
            _ => true,
        }
    }

    /// A response that the dialect makes itself.
    fn own_response(
        &mut self,
        ask: &Ask<'_>,
        (route, prefix): (&'static DialectRoute, PrefixId),
        local: &mut Local,
    ) -> Routed {
        let view = Rc::clone(&self.view);
        let catalogue = match route.operation {
            Operation::List(_) => match self.catalogue(ask, local) {
                Ok(catalogue) => catalogue,
                Err(routed) => return routed,
            },
            _ => Arc::clone(&view.snapshot.catalogue),
        };
        let make = match route.operation {
            Operation::List(_) if self.ticket.is_some() || catalogue.is_large() => {
                let rest = self.own_part(&ask.request).to_vec();
                let wanted = self.as_seen(WantedPage::Own(route, rest));
                return self.rendered(ask, || wanted, local);
            }
            Operation::Listing(form) => return self.scoped(ask, (prefix, form), local),
            Operation::Running => return self.running(ask, local),
            Operation::Compute(computation) => return self.compute(ask, computation, local),
            Operation::List(make) => make,
            Operation::Serve(_) | Operation::Describe | Operation::Stored(_) => {
                self.error(ask.cx, Some(&ask.request), &Error::not_found(), local);
                return Routed::Respond;
            }
        };
        let snapshot = &view.snapshot;
        let lens = self.lens();
        let is_served = |name: &str| {
            let among = match lens {
                Some(_) => catalogue.routable(),
                None => snapshot.fleet.routable,
            };
            let on = snapshot.models.find(name, &among);
            !on.is_empty() && lens.as_ref().is_none_or(|lens| lens.shows(name))
        };
        let made = make(&OwnAsk {
            rest: self.own_part(&ask.request),
            catalogue: &catalogue,
            is_served: &is_served,
            started: &self.gateway.common.started_rfc3339,
            plan: view.plan(),
        });
        self.write_own(ask, made.map(Bytes::from), local);
        Routed::Respond
    }

    /// A response that is computed of the body, unless an endpoint knows better.
    fn compute(
        &mut self,
        ask: &Ask<'_>,
        computation: &'static Computation,
        local: &mut Local,
    ) -> Routed {
        let wanted = self.view.wanted(b"", false);
        let known = ComputeAsk {
            responses: Arc::clone(&self.gateway.common.responses),
            owner: owner_of(&ask.request, self.key.as_deref()),
            unix_ms: ask.cx.unix_ms,
        };
        let compute = move |body: &[u8]| {
            let findings = Inspector::new(wanted).finish(body);
            ((computation.make)(without_mark(body), &known), findings)
        };
        let (made, findings) = match self.come_back() {
            Some(Done::Computed(made, findings)) => (made, *findings),
            _ if ask.body.len() > STEP_BYTES_MAX => {
                self.send_away(move |_, body| {
                    let (made, findings) = compute(body);
                    Done::Computed(made, Box::new(findings))
                });
                return Routed::Work;
            }
            _ => compute(ask.body),
        };
        match made {
            Ok(made) => {
                let computed = (Bytes::from(made), findings);
                self.consult(ask, &computation.authority, computed, local)
            }
            Err(error) => {
                self.error(ask.cx, Some(&ask.request), &error, local);
                Routed::Respond
            }
        }
    }

    fn write_own(&mut self, ask: &Ask<'_>, made: Result<Bytes, Error>, local: &mut Local) {
        match made {
            Ok(body) => self.json(ask, body, local),
            Err(error) => self.error(ask.cx, Some(&ask.request), &error, local),
        }
    }

    fn models(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        let query = query_of(&ask.request);
        let catalogue = match self.catalogue(ask, local) {
            Ok(catalogue) => catalogue,
            Err(routed) => return routed,
        };
        let ready = catalogue.models_at_once(&query).map(Some);
        let wanted = || WantedPage::Models(catalogue.relevant(&query));
        self.listing(ask, ready, wanted, local)
    }

    fn scoped(
        &mut self,
        ask: &Ask<'_>,
        (prefix, form): (PrefixId, ListingForm),
        local: &mut Local,
    ) -> Routed {
        let catalogue = match self.catalogue(ask, local) {
            Ok(catalogue) => catalogue,
            Err(routed) => return routed,
        };
        let scoped = self.view.snapshot.routes.prefix(prefix).scoped(form);
        let ready = catalogue.scoped_at_once(&scoped);
        let wanted = || WantedPage::Scoped(scoped);
        self.listing(ask, ready.map(|body| Some(Ok(body))), wanted, local)
    }

    /// A listing that is ready is sent; a long one is rendered by the pages thread first.
    fn listing(
        &mut self,
        ask: &Ask<'_>,
        ready: Option<Listing>,
        wanted: impl FnOnce() -> WantedPage,
        local: &mut Local,
    ) -> Routed {
        // A listing that was requested from the pages thread is awaited, even if it has become
        // ready in the meantime.
        if self.ticket.is_none()
            && let Some(listing) = ready
        {
            self.write_listing(ask, listing, local);
            return Routed::Respond;
        }
        let lens = self.lens();
        let wanted = || match lens {
            Some(lens) => WantedPage::Seen(lens, Some(Box::new(wanted()))),
            None => wanted(),
        };
        self.rendered(ask, wanted, local)
    }

    /// A page is rendered by the pages thread, which has all the statistics.
    fn page(&mut self, ask: &Ask<'_>, page: operations::Route, local: &mut Local) -> Routed {
        if page == operations::Route::Health {
            // It shows that this core serves requests, so the core responds itself.
            self.json(ask, Bytes::from_static(operations::HEALTHY), local);
            return Routed::Respond;
        }
        let request = &ask.request;
        let wanted = || WantedPage::Page {
            route: page,
            query: page.relevant(&query_of(request)),
            gzip: joined(request, FieldId::AcceptEncoding).is_some_and(|list| accepts_gzip(&list)),
        };
        self.rendered(ask, wanted, local)
    }

    /// Responds with what the pages thread renders; requests it once.
    fn rendered(
        &mut self,
        ask: &Ask<'_>,
        wanted: impl FnOnce() -> WantedPage,
        local: &mut Local,
    ) -> Routed {
        let now = ask.cx.now;
        let Some(ticket) = &self.ticket else {
            let client = self.client.limited_as();
            self.ticket = self.gateway.ask_for_page(now + PAGE_WAIT, wanted(), client);
            if let Some(ticket) = &self.ticket {
                return Routed::Wait(ticket.by);
            }
            self.write_overloaded(ask, local);
            return Routed::Respond;
        };
        match ticket.take(now) {
            Awaited::Later(until) => return Routed::Wait(until),
            Awaited::Arrived(ControlReply::Rendered(rendering)) => {
                self.write_rendering(ask, rendering, local);
            }
            Awaited::Arrived(_) | Awaited::Never => {
                self.write_failure(ask, local);
            }
        }
        Routed::Respond
    }

    pub(super) fn write_rendering(
        &mut self,
        ask: &Ask<'_>,
        rendering: Rendering,
        local: &mut Local,
    ) {
        match rendering {
            Rendering::Page(page) => {
                let none_match = joined(&ask.request, FieldId::IfNoneMatch);
                self.write_page(ask, page.answer(none_match.as_deref()), local);
            }
            Rendering::Listing(listing) => self.write_listing(ask, Some(listing), local),
            Rendering::Own(made) => self.write_own(ask, made, local),
            Rendering::Seen => self.write_failure(ask, local),
            Rendering::Admin(made) => self.write_admin(ask, made, local),
            Rendering::Overloaded => self.write_overloaded(ask, local),
        }
    }

    pub(super) fn write_overloaded(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let message = "too many pages are being rendered or sent; try again later";
        let mut error = Error::new(503, "service_unavailable", "OVERLOADED", message);
        error.retry_after = Some(1);
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    fn write_listing(&mut self, ask: &Ask<'_>, listing: Listing, local: &mut Local) {
        let error = match listing {
            Some(Ok(body)) if self.is_for_codex(&ask.request) => {
                return self.json(ask, with_models(&body), local);
            }
            Some(Ok(body)) => return self.json(ask, body, local),
            Some(Err(fault)) => Error::new(fault.status, fault.kind, fault.code, fault.message),
            None => Error::not_found(),
        };
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    /// Whether a listing is OpenAI's and was requested with `client_version`, as Codex does
    /// (docs/contract/catalogue.md#6.3).
    fn is_for_codex(&self, request: &Request<'_>) -> bool {
        let query = query_of(request);
        // Few queries name it; the others are not parsed.
        if !query.contains("client_version") {
            return false;
        }
        let first = |name| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then_some(value))
        };
        let is_openai = match self.route.kind {
            RouteKind::Listing(_, form) => form == ListingForm::OpenAi,
            RouteKind::Models => first("format").as_deref() == Some("openai"),
            _ => false,
        };
        is_openai && first("client_version").is_some()
    }

    pub(super) fn write_failure(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let message = "the page could not be rendered";
        let error = Error::new(500, "internal_error", "INTERNAL_ERROR", message);
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    fn write_page(&mut self, ask: &Ask<'_>, page: PageResponse, local: &mut Local) {
        let vary = page.headers.iter().find(|(name, _)| *name == "Vary");
        let vary = vary.map_or("", |(_, value)| value.as_ref());
        self.begin_varying(ask.cx, Some(&ask.request), (page.status, vary), local);
        for (name, value) in page.headers.iter().filter(|(name, _)| *name != "Vary") {
            emit::field(&mut local.head, name.as_bytes(), value.as_bytes());
        }
        local.bodyless = page.status == 304;
        local.body = page.body;
    }

    /// The dashboard's files (docs/contract/operations.md#7).
    pub(super) fn dashboard(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let request = &ask.request;
        let none_match = joined(request, FieldId::IfNoneMatch);
        let asked = PageHeaders {
            if_none_match: none_match.as_deref(),
            range: request.head.get(request.bytes, FieldId::Range),
            if_range: None,
        };
        let path = String::from_utf8_lossy(self.path(request)).into_owned();
        let has_login = self.view.snapshot.access.enabled;
        match operations::dashboard::answer(&path, has_login, &asked) {
            Some(page) => self.write_page(ask, page, local),
            None => self.error(ask.cx, Some(request), &Error::not_found(), local),
        }
    }
}

/// A listing with an empty list `models` beside its `data`.
fn with_models(body: &Bytes) -> Bytes {
    let end = br#","models":[]}"#;
    match body.strip_suffix(b"}") {
        Some(front) => [front, end].concat().into(),
        None => body.clone(),
    }
}

pub(super) fn query_of<'r>(request: &Request<'r>) -> Cow<'r, str> {
    String::from_utf8_lossy(request.head.query.of(request.bytes))
}

/// The values of all lines of a field, as one.
fn joined(request: &Request<'_>, id: FieldId) -> Option<Vec<u8>> {
    let lines: Vec<_> = request
        .head
        .all(id)
        .map(|line| line.value.of(request.bytes))
        .collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}
