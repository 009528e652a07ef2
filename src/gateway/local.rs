//! Requests that the gateway answers itself: listings at once, pages with the control thread's
//! help, the dashboard from what is built in.
//!
//! contract: catalogue 6, operations 3, 4, 7

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Cx, Local, Request, Routed};

use super::answers::{self, Error};
use super::arrive::not_found;
use super::exchange::{Exchange, Kind};
use super::view::View;
use super::{Gateway, Letter};
use crate::catalogue::{CatalogueError, Scoped, Times};
use crate::log::{Level, events};
use crate::operations::conditional::Asked;
use crate::operations::{self, access};
use crate::routing::route::Route;
use crate::shared::{Address, Event, ListingAsk, PageAsk, Rendered};

/// How long a page may take before its client is told that it failed.
const PAGE_WAIT: Duration = Duration::from_secs(10);

/// A listing of the catalogue; `None` = there is no such one.
type Listing = Option<Result<Bytes, CatalogueError>>;

/// Where an answer of the control thread is.
enum Awaited {
    /// On its way; to be looked for again by then.
    Later(Instant),
    Arrived(Letter),
    Never,
}

/// Whether there is such a page.
pub(super) fn exists(route: &Route<'_, '_>) -> bool {
    match route {
        Route::Internal { rest } => !rest.is_empty() && page_of(rest).is_some(),
        _ => true,
    }
}

fn page_of(rest: &[u8]) -> Option<operations::Route> {
    if rest.is_empty() {
        return Some(operations::Route::Version);
    }
    let rest = std::str::from_utf8(rest).ok()?;
    operations::Route::of(&format!("/internal/{rest}"))
}

impl Gateway {
    /// Answers a request that needs no backend.
    pub(super) fn answer_locally(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed {
        let view = self.view();
        let query = String::from_utf8_lossy(request.head.query.of(request.bytes));
        let catalogue = &view.snapshot.fleet.catalogue;
        match x.kind {
            Kind::Models => {
                let ready = catalogue.models_at_once(&query).map(Some);
                let ask = || ListingAsk::Models(query.into_owned());
                return self.listing(cx, x, request, ready, ask, local);
            }
            Kind::Model => {
                let id = String::from_utf8_lossy(x.rest(request.bytes)).into_owned();
                let endpoints = &view.snapshot.fleet.endpoints;
                let times = Times {
                    now: SystemTime::now(),
                    synced_at: &|at| endpoints.get(at)?.last_model_sync,
                };
                let model = catalogue.model(&id, &times);
                write_listing(cx, x, request, Some(model), local);
            }
            Kind::Listing(_) => return self.scoped(cx, x, &view, request, local),
            Kind::Dashboard => dashboard(cx, x, request, local),
            Kind::Internal => return self.page(cx, x, request, &query, local),
            _ => self.messages_locally(cx, x, &view, request, body, local),
        }
        Routed::Answered
    }

    fn scoped(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        local: &mut Local,
    ) -> Routed {
        let fleet = &view.snapshot.fleet;
        let path = String::from_utf8_lossy(x.path(request)).into_owned();
        let at = scoped_at(&path).and_then(|(prefix, rest)| {
            Some((prefix, rest, Scoped::at(&fleet.profiles, prefix, rest)?))
        });
        let Some((prefix, rest, scoped)) = at else {
            answers::error(cx, x, Some(request), &not_found(), local);
            return Routed::Answered;
        };
        let ready = fleet.catalogue.scoped_at_once(scoped);
        let ask = || ListingAsk::Scoped(prefix.to_owned(), rest.to_owned());
        self.listing(cx, x, request, ready.map(|body| Some(Ok(body))), ask, local)
    }

    /// A listing that is ready is sent; a long one is written by the control thread first.
    fn listing(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        ready: Option<Listing>,
        ask: impl FnOnce() -> ListingAsk,
        local: &mut Local,
    ) -> Routed {
        // What was asked for is what is sent, also if it has become ready since.
        if x.ticket == 0
            && let Some(listing) = ready
        {
            write_listing(cx, x, request, listing, local);
            return Routed::Answered;
        }
        let ask = |reply| Event::Listing {
            ask: Box::new(ask()),
            reply,
        };
        match self.letter(cx, x, ask) {
            Awaited::Later(until) => return Routed::Wait(until),
            Awaited::Arrived(Letter::Listing(listing)) => {
                write_listing(cx, x, request, listing, local);
            }
            Awaited::Arrived(_) | Awaited::Never => write_failure(cx, x, request, local),
        }
        Routed::Answered
    }

    /// The control thread's answer to what a request asks it for, once.
    fn letter(&self, cx: &Cx<'_>, x: &mut Exchange, ask: impl FnOnce(Address) -> Event) -> Awaited {
        if x.ticket == 0 {
            x.ticket = self.ticket();
            let reply = Address {
                core: self.core,
                ticket: x.ticket,
            };
            if self.link.tell(ask(reply)) {
                return Awaited::Later(cx.now + PAGE_WAIT);
            }
        } else if let Some(letter) = self.arrived.borrow_mut().remove(&x.ticket) {
            x.ticket = 0;
            return Awaited::Arrived(letter);
        } else if cx.now < cx.arrived + PAGE_WAIT {
            return Awaited::Later(cx.arrived + PAGE_WAIT);
        }
        Awaited::Never
    }

    /// A page is made by the control thread, which has all the figures.
    fn page(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        query: &str,
        local: &mut Local,
    ) -> Routed {
        let Some(route) = page_of(x.rest(request.bytes)) else {
            answers::error(cx, x, Some(request), &not_found(), local);
            return Routed::Answered;
        };
        if route == operations::Route::Health {
            // Says that this core serves, so it asks nobody.
            answers::json(
                cx,
                x,
                request,
                Bytes::from_static(operations::HEALTHY),
                local,
            );
            return Routed::Answered;
        }
        let ask = |reply| Event::Page {
            ask: Box::new(PageAsk {
                route,
                query: query.to_owned(),
                if_none_match: joined(request, FieldId::IfNoneMatch),
                accept_encoding: joined(request, FieldId::AcceptEncoding),
            }),
            reply,
        };
        match self.letter(cx, x, ask) {
            Awaited::Later(until) => return Routed::Wait(until),
            Awaited::Arrived(Letter::Page(page)) => write_page(cx, x, request, *page, local),
            Awaited::Arrived(_) | Awaited::Never => write_failure(cx, x, request, local),
        }
        Routed::Answered
    }

    /// Who may look (contract: operations 7).
    pub(super) fn check_access(
        &self,
        cx: &Cx<'_>,
        view: &View,
        request: &Request<'_>,
        route: &Route<'_, '_>,
    ) -> Result<(), Error<'static>> {
        let plan = &view.plan().dashboard;
        let gated = match route {
            Route::Dashboard { .. } if !plan.enabled => return Err(not_found()),
            Route::Dashboard { .. } => true,
            Route::Internal { .. } | Route::Version => plan.gate_internal_api,
            _ => false,
        };
        if !gated {
            return Ok(());
        }
        let peer = cx.peer.ip().to_canonical();
        let host = request.head.host(request.bytes);
        let Err(denied) = access::admit(&plan.access_policy, peer, host) else {
            return Ok(());
        };
        let mut log = self.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Warn, events::DASHBOARD_DENIED, cx.unix_ms) {
            line.str("reason", denied.reason())
                .str("config_key", denied.config_key())
                .str("client_ip", &peer.to_string())
                .str("host", &access::shown_host(host));
        }
        Err(Error::new(
            403,
            "forbidden",
            "ACCESS_DENIED",
            denied.message(peer, host),
        ))
    }
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

/// Prefix and rest of a path below `/olla/`.
fn scoped_at(path: &str) -> Option<(&str, &str)> {
    let inner = path.strip_prefix("/olla/")?;
    let slash = inner.find('/')?;
    inner.split_at_checked(slash)
}

fn write_listing(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: &Request<'_>,
    listing: Listing,
    local: &mut Local,
) {
    let error = match listing {
        Some(Ok(body)) => return answers::json(cx, x, request, body, local),
        Some(Err(fault)) => Error::new(fault.status, fault.kind, fault.code, fault.message),
        None => not_found(),
    };
    answers::error(cx, x, Some(request), &error, local);
}

fn write_failure(cx: &Cx<'_>, x: &mut Exchange, request: &Request<'_>, local: &mut Local) {
    let error = Error::new(
        500,
        "internal_error",
        "INTERNAL_ERROR",
        "the page could not be made",
    );
    answers::error(cx, x, Some(request), &error, local);
}

fn write_page(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: &Request<'_>,
    page: Rendered,
    local: &mut Local,
) {
    let vary = page.headers.iter().find(|(name, _)| *name == "Vary");
    let vary = vary.map_or("", |(_, value)| value.as_ref());
    answers::begin_varying(cx, x, Some(request), page.status, vary, local);
    for (name, value) in page.headers.iter().filter(|(name, _)| *name != "Vary") {
        emit::field(&mut local.head, name.as_bytes(), value.as_bytes());
    }
    local.bodyless = page.status == 304;
    local.body = match page.body {
        Cow::Borrowed(body) => Bytes::from_static(body),
        Cow::Owned(body) => Bytes::from(body),
    };
}

/// The dashboard's files (contract: operations 7).
fn dashboard(cx: &Cx<'_>, x: &mut Exchange, request: &Request<'_>, local: &mut Local) {
    let (none_match, encoding) = (
        joined(request, FieldId::IfNoneMatch),
        joined(request, FieldId::AcceptEncoding),
    );
    let asked = Asked {
        if_none_match: none_match.as_deref(),
        accept_encoding: encoding.as_deref(),
        range: request.head.get(request.bytes, FieldId::Range),
        if_range: None,
    };
    let path = String::from_utf8_lossy(x.path(request)).into_owned();
    match operations::dashboard::answer(&path, &asked) {
        Some(page) => write_page(cx, x, request, page, local),
        None => answers::error(cx, x, Some(request), &not_found(), local),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_off() {
        assert_eq!(
            scoped_at("/olla/vllm/v1/models"),
            Some(("vllm", "/v1/models"))
        );
        assert_eq!(scoped_at("/olla/vllm"), None);
        assert_eq!(scoped_at("/other/vllm/"), None);
    }
}
