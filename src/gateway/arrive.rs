//! A request's head has come: what it is, and whether it may go on.
//!
//! contract: surface 2, 3, 6, 10, 11, 12, 14

use std::borrow::Cow;
use std::rc::Rc;

use olla_engine::h1::FieldId;
use olla_engine::handler::{AtHead, Cx, Local, Request};
use olla_engine::limit::{Decision, Refuser};

use super::Gateway;
use super::answers::{self, Error, seconds_until};
use super::clients::client_ip;
use super::exchange::{Exchange, Kind, PathAt};
use super::view::View;
use crate::config::ModelManagement;
use crate::inspect::Inspector;
use crate::operations::stats::Violation;
use crate::routing::path::{PathFault, normalise};
use crate::routing::route::{Anthropic, Limit, Route};

impl Gateway {
    /// The first question.
    pub(super) fn arrive(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        local: &mut Local,
    ) -> AtHead {
        let view = self.view();
        x.begin(Rc::clone(&view));
        let Request { head, bytes, .. } = *request;
        if !x.id.take(head.get(bytes, FieldId::XRequestId)) {
            x.id.make(&self.random);
        }
        let client = client_ip(view.plan(), cx.peer.ip(), head, bytes);
        x.client = Some(client);
        x.client_text.set(client);
        x.peer_text.set(cx.peer.ip().to_canonical());
        if view.cors.preflight(request, local) {
            self.end_preflight(cx, x, local);
            return AtHead::Answered;
        }
        x.cors = view.cors.grant(request);
        match self.find_route(cx, x, &view, request) {
            Ok(()) => self.may_go_on(cx, x, &view, request, local),
            Err(error) => {
                answers::error(cx, x, Some(request), &error, local);
                AtHead::Answered
            }
        }
    }

    fn end_preflight(&self, cx: &Cx<'_>, x: &mut Exchange, local: &mut Local) {
        use olla_engine::h1::emit;
        x.status = 204;
        let out = &mut local.head;
        emit::field(out, b"Date", cx.date);
        emit::field(out, b"X-Olla-Request-ID", x.id.as_bytes());
        emit::field(out, b"X-Olla-Response-Time", b"0ms");
    }

    /// Path to route. What is wrong with it is an error of that route's shape.
    fn find_route(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
    ) -> Result<(), Error<'static>> {
        let Request { head, bytes, .. } = *request;
        let end = if head.query.is_empty() {
            head.path.end
        } else {
            head.query.end
        };
        let target = bytes
            .get(head.path.start as usize..end as usize)
            .unwrap_or_default();
        let normal = normalise(target).map_err(|PathFault| {
            if is_of_messages(view, target) {
                x.kind = Kind::MessagesModel;
            }
            Error::new(
                400,
                "bad_request",
                "INVALID_PATH",
                "the path climbs above its root",
            )
        })?;
        match normal.path {
            Cow::Borrowed(path) => {
                let route = view.snapshot.routes.find(path);
                self.take_route(cx, x, view, request, &route, (bytes, false))
            }
            Cow::Owned(path) => {
                let route = view.snapshot.routes.find(&path);
                let taken = self.take_route(cx, x, view, request, &route, (&path, true));
                x.own_path = path;
                taken
            }
        }
    }

    fn take_route(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        route: &Route<'_, '_>,
        (whole, own): (&[u8], bool),
    ) -> Result<(), Error<'static>> {
        let method = request.head.method.of(request.bytes);
        let at = |part: &[u8]| PathAt::of(part, whole, own);
        let (kind, rest) = match route {
            Route::Proxy { prefix, rest } => {
                let provider = prefix.profile.is_some();
                (
                    Kind::Proxy {
                        scope: prefix.scope,
                        provider,
                    },
                    at(rest),
                )
            }
            Route::Management {
                prefix,
                operation,
                rest,
            } => {
                let forward = view.plan().proxy.model_management == ModelManagement::Forward;
                if !forward || !operation.is_forwardable() {
                    return Err(management_refused());
                }
                (Kind::Management(prefix.scope, *operation), at(rest))
            }
            Route::Listing { form, .. } => (Kind::Listing(*form), PathAt::Nothing),
            Route::Models => (Kind::Models, PathAt::Nothing),
            Route::Model { id } => (Kind::Model, at(id)),
            Route::Anthropic(Anthropic::Messages) => (Kind::Messages, PathAt::Nothing),
            Route::Anthropic(Anthropic::CountTokens) => (Kind::CountTokens, PathAt::Nothing),
            Route::Anthropic(Anthropic::Models) => (Kind::MessagesModels, PathAt::Nothing),
            Route::Anthropic(Anthropic::Model { id }) => (Kind::MessagesModel, at(id)),
            Route::Internal { rest } => (Kind::Internal, at(rest)),
            Route::Version => (Kind::Internal, PathAt::Nothing),
            Route::Dashboard { rest } => (Kind::Dashboard, at(rest)),
            Route::NotFound | Route::Anthropic(Anthropic::Unknown) => {
                if matches!(route, Route::Anthropic(_)) && view.plan().translators.anthropic.enabled
                {
                    // An error there has Anthropic's shape.
                    x.kind = Kind::MessagesModel;
                }
                return Err(not_found());
            }
        };
        x.kind = kind;
        x.rest = rest;
        self.check_access(cx, view, request, route)?;
        if matches!(route, Route::Internal { .. }) && !super::local::exists(route) {
            return Err(not_found());
        }
        if !route.admits(method) {
            return Err(method_refused(route));
        }
        self.take_tokens(cx, x, view, route.limit())
    }

    /// Rate limits (contract: surface 10).
    fn take_tokens(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        limit: Limit,
    ) -> Result<(), Error<'static>> {
        if limit == Limit::Free {
            return Ok(());
        }
        let client = x.client.unwrap_or_else(|| cx.peer.ip());
        let rates = &view.plan().server.rate_limits;
        let shards = &mut *view.shards.borrow_mut();
        let now = shards.epoch.nanos(cx.now);
        let (shard, per_minute) = match limit {
            Limit::Health => (&mut shards.health, rates.health_requests_per_minute),
            _ => (&mut shards.proxied, rates.per_ip_requests_per_minute),
        };
        let Decision {
            refusal,
            client: admission,
        } = shard.admit(client, now);
        x.admission = admission.map(|admission| (admission, per_minute));
        let Some(refusal) = refusal else {
            return Ok(());
        };
        self.recorder
            .borrow_mut()
            .violation(Violation::RateLimit(client));
        let (whose, rate) = match refusal.by {
            Refuser::Global => ("all clients together", rates.global_requests_per_minute),
            Refuser::Client => ("one client address", per_minute),
        };
        let mut error = Error::new(
            429,
            "rate_limit_exceeded",
            "RATE_LIMIT_EXCEEDED",
            format!("the limit of {rate} requests per minute for {whose} is reached"),
        );
        error.retry_after = Some(seconds_until(refusal.retry_after));
        Err(error)
    }

    /// Size of the head, then the body may come.
    fn may_go_on(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        local: &mut Local,
    ) -> AtHead {
        let max = view.plan().server.request_limits.max_header_size;
        if request.head.counted_size() as u64 > max {
            let error = Error::new(
                431,
                "headers_too_large",
                "HEADERS_TOO_LARGE",
                format!("the request's head is larger than {max} bytes"),
            );
            answers::error(cx, x, Some(request), &error, local);
            return AtHead::Answered;
        }
        if x.kind.is_proxied() {
            let path = x.rest(request.bytes);
            x.inspector = Some(Inspector::new(view.wanted(path)));
        }
        AtHead::Body(body_limit(x.kind, view).0)
    }
}

/// The largest body that a request may have, and the key that says so.
pub(super) fn body_limit(kind: Kind, view: &View) -> (Option<u64>, &'static str) {
    if let Kind::Messages | Kind::CountTokens = kind {
        let own = view.plan().translators.anthropic.max_message_size;
        if view.body_max.is_none_or(|max| own <= max) {
            return (Some(own), "translators.anthropic.max_message_size");
        }
    }
    (view.body_max, "server.request_limits.max_body_size")
}

/// Whether a path that cannot be brought to its normal form begins like the Messages API's.
fn is_of_messages(view: &View, target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next();
    let mut segments = path
        .unwrap_or_default()
        .split(|byte| *byte == b'/')
        .filter(|segment| !segment.is_empty());
    view.plan().translators.anthropic.enabled
        && segments.next() == Some(b"olla")
        && segments.next() == Some(b"anthropic")
}

pub(super) fn not_found() -> Error<'static> {
    Error::new(404, "not_found", "NOT_FOUND", "there is no such route")
}

fn method_refused(route: &Route<'_, '_>) -> Error<'static> {
    let mut error = Error::new(
        405,
        "method_not_allowed",
        "METHOD_NOT_ALLOWED",
        "this route does not have that method",
    );
    error.allow = route.allow();
    error
}

fn management_refused() -> Error<'static> {
    Error::new(
        501,
        "not_implemented",
        "NOT_SUPPORTED",
        "model management is not passed on; proxy.model_management = \"forward\" allows it",
    )
}
