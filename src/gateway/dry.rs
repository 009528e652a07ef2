//! The dry run: where a request would go, without sending it.
//!
//! Its body is that of the request it is about, and a parameter names the path. Once its own head is
//! admitted, the exchange takes the route of that request and goes the way of such a request up to
//! the choice ([`decide`](super::decide)), so that every check is the same. Nothing is taken on the
//! way: no slot, turn, token, quota or place in a queue; no listing is refreshed, and no session
//! opened. [`outlook`](super::outlook) looks where the choice would fall, and writes the response.
//!
//! Contract: docs/contract/scheduling.md#8

use std::borrow::Cow;

use olla_engine::handler::{Ask, Local, Request, Routed};

use super::arrive::method_refused;
use super::dry_run::DryRun;
use super::exchange::Exchange;
use super::local::query_of;
use crate::dialects::{Dialect, Error, Operation};
use crate::routing::path::normalise;
use crate::routing::route::{MatchedRoute, RouteKind};

/// The path of a request of which the dry run says nothing.
const USUAL_PATH: &str = "/olla/openai/v1/chat/completions";

impl Exchange {
    /// Whether a request is a dry run, before it has become one.
    pub(super) fn is_dry_run(&self, request: &Request<'_>) -> bool {
        matches!(self.route.kind, RouteKind::Internal) && self.rest(request) == b"route"
    }

    /// The query of the request, or of the one that a dry run is about.
    pub(super) fn query<'q>(&'q self, request: &Request<'q>) -> Cow<'q, str> {
        match &self.dry_run {
            None => query_of(request),
            Some(dry) => dry.query.as_str().into(),
        }
    }

    /// Takes the route of the request that an admitted dry run is about.
    ///
    /// # Errors
    /// Its path is none of a request that goes to an endpoint.
    pub(super) fn begin_dry_run(&mut self, ask: &Ask<'_>) -> Result<(), Error> {
        let target = target_of(&query_of(&ask.request));
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let is_path = path.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
        let normal = normalise(path.as_bytes())
            .ok()
            .filter(|_| is_path)
            .ok_or_else(|| not_routed(path))?;
        let method = ask.request.head.method.of(ask.request.bytes);
        let route = self.view.snapshot.routes.route(method, &normal.path);
        if !route.is_proxied() || is_about_stored(&route) {
            return Err(not_routed(path));
        }
        let own_path = std::mem::replace(&mut self.kept.own_path, normal.path.into_owned());
        let own = std::mem::replace(&mut self.route, route);
        let refusal = self.check_asked(&ask.request).err();
        // A route that is refused is put in place of one that could be counted.
        self.route = route;
        self.enter_dry(ask);
        self.dry_run = Some(Box::new(DryRun {
            own: (own, own_path),
            query: query.to_owned(),
            refusal,
        }));
        Ok(())
    }

    /// The checks of the head of a request that are left when its path is known.
    fn check_asked(&mut self, request: &Request<'_>) -> Result<(), Error> {
        self.check_route(request)?;
        if self.admits_method(request) {
            Ok(())
        } else {
            Err(method_refused(self.allow(request)))
        }
    }

    /// Goes the way of the request that the dry run is about, and responds with what was found.
    pub(super) fn run_dry(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        let found = self.find_candidates(ask).and_then(|routed| {
            if routed == Routed::Upstream {
                self.reserve(ask)?;
            }
            Ok(routed)
        });
        let refusal = match found {
            Ok(Routed::Upstream) => None,
            Ok(later) => return later,
            Err(error) => Some(error),
        };
        let dry = self.dry_run.as_mut();
        let earlier = dry.and_then(|dry| dry.refusal.take());
        let document = self.outlook(ask, earlier.or(refusal));
        self.end_dry_run();
        self.json(ask, document.into(), local);
        Routed::Respond
    }

    /// Is the dry run's own request again, before its response is written or it is over.
    pub(super) fn end_dry_run(&mut self) {
        let Some(dry) = self.dry_run.take() else {
            return;
        };
        (self.route, self.kept.own_path) = dry.own;
        self.dialect = Dialect::Plain;
        self.kept.allowance = None;
        self.session = None;
        self.routing = None;
    }
}

/// The target that a dry run asks about.
fn target_of(query: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(query.trim_start_matches('?').as_bytes());
    let path = pairs.find(|(name, _)| name == "path");
    path.map_or(USUAL_PATH.into(), |(_, path)| path.into_owned())
}

/// Whether a route is about a response that was made before: it goes where that is kept.
fn is_about_stored(route: &MatchedRoute) -> bool {
    match route.kind {
        RouteKind::Dialect(_, dialect, _) => matches!(dialect.operation, Operation::Stored(_)),
        _ => false,
    }
}

fn not_routed(path: &str) -> Error {
    // As much of it as shows what was meant.
    let shown: String = path.chars().take(256).collect();
    let message = format!(
        "path: expected the path of a request that is routed to an endpoint, such as {USUAL_PATH}, \
         got {shown:?}"
    );
    Error::new(400, "bad_request", "INVALID_PATH", message)
}
