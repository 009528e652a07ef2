//! The routes for keys and usage below `/internal/`, which the thread of the state store serves.
//!
//! Contract: docs/contract/access.md#11

use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, Local, Request, Routed};

use super::exchange::Exchange;
use super::local::{PAGE_WAIT, query_of};
use super::replies::{Awaited, ControlReply};
use crate::dialects::Error;
use crate::routing::route::RouteKind;
use crate::state::{AdminReply, AdminRequest, AdminRoute, Day};

impl Exchange {
    /// The route for keys or usage that the request is on.
    pub(super) fn admin_route(&self, request: &Request<'_>) -> Option<AdminRoute> {
        match self.route.kind {
            RouteKind::Internal => {
                AdminRoute::of(self.rest(request), self.view.snapshot.access.enabled)
            }
            _ => None,
        }
    }

    /// The methods of the route, in the form of `Allow`; `None` = any method.
    pub(super) fn allow(&self, request: &Request<'_>) -> Option<&'static str> {
        self.own_allow(request).or_else(|| self.route.allow())
    }

    /// Whether the route has the method of the request.
    pub(super) fn admits_method(&self, request: &Request<'_>) -> bool {
        let method = request.head.method.of(request.bytes);
        match self.own_allow(request) {
            Some(allow) => {
                let mut methods = allow.split(", ");
                methods.any(|allowed| allowed.as_bytes() == method)
            }
            None => self.route.admits(method),
        }
    }

    /// The methods of a route for keys or usage, or of the dashboard's login.
    fn own_allow(&self, request: &Request<'_>) -> Option<&'static str> {
        if let Some(login) = self.login_route(request) {
            return Some(login.allow());
        }
        if self.is_dry_run(request) {
            return Some("POST");
        }
        self.admin_route(request).map(AdminRoute::allow)
    }

    /// Responds to a request for keys or usage.
    pub(super) fn administer(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        let now = ask.cx.now;
        let Some(ticket) = &self.ticket else {
            return match self.begin_administration(ask) {
                Ok(routed) => routed,
                Err(error) => {
                    self.error(ask.cx, Some(&ask.request), &error, local);
                    Routed::Respond
                }
            };
        };
        match ticket.take(now) {
            Awaited::Later(until) => return Routed::Wait(until),
            Awaited::Arrived(ControlReply::Rendered(rendering)) => {
                self.write_rendering(ask, rendering, local);
            }
            Awaited::Arrived(_) | Awaited::Never => self.write_failure(ask, local),
        }
        Routed::Respond
    }

    fn begin_administration(&mut self, ask: &Ask<'_>) -> Result<Routed, Error> {
        let route = self
            .admin_route(&ask.request)
            .ok_or_else(Error::not_found)?;
        let Request { head, bytes, .. } = ask.request;
        let wanted = route.read(&AdminRequest {
            method: head.method.of(bytes),
            rest: self.rest(&ask.request),
            content_type: head.get(bytes, FieldId::ContentType),
            body: ask.body,
            query: &query_of(&ask.request),
            today: Day::of_unix_ms(ask.cx.unix_ms),
        })?;
        let client = (self.client.address(), self.client.limited_as());
        let actor = self.key.as_ref().map_or("", |key| &*key.name);
        let by = ask.cx.now + PAGE_WAIT;
        match self.gateway.ask_state(by, wanted, client, actor) {
            Some(ticket) => {
                let by = ticket.by;
                self.ticket = Some(ticket);
                Ok(Routed::Wait(by))
            }
            None => {
                let message = "too many requests for keys and usage wait; try again later";
                let mut error = Error::new(503, "service_unavailable", "OVERLOADED", message);
                error.retry_after = Some(1);
                Err(error)
            }
        }
    }

    pub(super) fn write_admin(
        &mut self,
        ask: &Ask<'_>,
        made: Result<AdminReply, Error>,
        local: &mut Local,
    ) {
        let reply = match made {
            Ok(reply) => reply,
            Err(error) => return self.error(ask.cx, Some(&ask.request), &error, local),
        };
        self.begin_varying(ask.cx, Some(&ask.request), (reply.status, ""), local);
        if reply.content_type.is_empty() {
            local.bodyless = true;
        } else {
            emit::field(
                &mut local.head,
                b"Content-Type",
                reply.content_type.as_bytes(),
            );
        }
        emit::field(&mut local.head, b"Cache-Control", b"no-store");
        if let Some(location) = reply.location {
            emit::field(&mut local.head, b"Location", location.as_bytes());
        }
        local.body = reply.body;
    }
}
