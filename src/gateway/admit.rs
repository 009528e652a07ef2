//! Checks who asks for the operator's pages.
//!
//! Contract: docs/contract/operations.md#7, docs/contract/observe.md#8

use olla_engine::h1::FieldId;
use olla_engine::handler::{Ask, Request};

use super::access::forbidden;
use super::cors::is_operators_page;
use super::exchange::Exchange;
use super::login::is_of_own_origin;
use crate::access::named_by_proxy;
use crate::dialects::Error;
use crate::field_names::SEC_FETCH;
use crate::log::{Level, events};
use crate::operations::access::{self, Denied, Forwarded, Source};
use crate::routing::route::RouteKind;

impl Exchange {
    /// Checks whether the client may see the route.
    pub(super) fn check_access(&self, ask: &Ask<'_>) -> Result<(), Error> {
        let plan = &self.view.plan().dashboard;
        let host = ask.request.head.host(ask.request.bytes);
        let admitted = match self.route.kind {
            // It does not exist, which its check finds later.
            RouteKind::Dashboard if !plan.enabled => Ok(()),
            RouteKind::Dashboard => access::admit(&plan.access_policy, self.source(ask), host),
            RouteKind::Internal if self.is_dry_run(&ask.request) => {
                access::admit(&plan.access_policy, self.source(ask), host)
            }
            RouteKind::Internal | RouteKind::Version if plan.gate_internal_api => {
                access::admit(&plan.access_policy, self.source(ask), host)
            }
            // Pages of other sites may ask whether the gateway is there; CORS says so.
            RouteKind::Internal
                if is_operators_page(self.rest(&ask.request)) && is_browser(&ask.request) =>
            {
                access::admit_browser(&plan.access_policy, host)
            }
            _ => Ok(()),
        };
        admitted.map_err(|denied| self.access_denied(ask, denied, host))
    }

    /// Checks whether the client may use a route that needs an admin's right to change things, after
    /// its key was found. Without keys that is this machine, or the networks that the configuration
    /// names; with them the key has been checked. A page of another site never may.
    pub(super) fn check_changes(&self, ask: &Ask<'_>) -> Result<(), Error> {
        if !is_of_own_origin(&ask.request) {
            let message = "Pages of other sites may not use this route.";
            return Err(forbidden("CSRF_CHECK_FAILED", message.to_owned()));
        }
        if self.view.snapshot.access.enabled {
            return Ok(());
        }
        let client = self.source(ask).client().to_canonical();
        let has_passed_proxy = was_forwarded(&ask.request) || ask.request.head.has(FieldId::Via);
        let networks = &self.view.plan().dashboard.allow_changes_from;
        let is_allowed = (client.is_loopback() && !has_passed_proxy)
            || networks.iter().any(|net| net.contains(&client));
        if is_allowed {
            return Ok(());
        }
        let message = format!(
            "this route is open to this machine only (client IP {client}); to allow others, set \
             dashboard.allow_changes_from or access.enabled"
        );
        Err(Error::new(403, "forbidden", "CHANGES_NOT_ALLOWED", message))
    }

    fn access_denied(&self, ask: &Ask<'_>, denied: Denied, host: &[u8]) -> Error {
        let client = self.source(ask).client().to_canonical();
        let mut log = self.gateway.log.borrow_mut();
        let line = log.event(Level::Warn, events::DASHBOARD_DENIED, ask.cx.unix_ms);
        if let Some(mut line) = line {
            line.str("reason", denied.reason())
                .str("config_key", denied.config_key())
                .str("client_ip", &client.to_string())
                .str("host", &access::shown_host(host));
        }
        Error::new(
            403,
            "forbidden",
            "ACCESS_DENIED",
            denied.message(client, host),
        )
    }

    fn source(&self, ask: &Ask<'_>) -> Source {
        let Request { head, bytes, .. } = ask.request;
        let peer = ask.cx.peer.ip().to_canonical();
        let limits = &self.view.plan().server.rate_limits;
        let forwarded = match named_by_proxy(limits, peer, head, bytes) {
            Some(client) => Forwarded::Client(client),
            None if was_forwarded(&ask.request) => Forwarded::Unnamed,
            None => Forwarded::No,
        };
        Source { peer, forwarded }
    }
}

/// Whether a proxy says that it passed the request on.
fn was_forwarded(request: &Request<'_>) -> bool {
    request.head.fields.iter().any(|field| match field.id {
        FieldId::XForwardedFor | FieldId::XRealIp | FieldId::XForwardedHost => true,
        FieldId::Other => is_named(field.name.of(request.bytes), b"forwarded"),
        _ => false,
    })
}

/// Whether the request looks like that of a browser. Scrapers and command lines send none of these.
fn is_browser(request: &Request<'_>) -> bool {
    const SEC_FETCH_PREFIX: &[u8] = b"sec-fetch-";
    request.head.fields.iter().any(|field| match field.id {
        FieldId::Origin | SEC_FETCH => true,
        FieldId::UserAgent => field.value.of(request.bytes).starts_with(b"Mozilla/"),
        FieldId::Other => {
            let name = field.name.of(request.bytes);
            let start = name.get(..SEC_FETCH_PREFIX.len());
            is_named(name, b"accept-language")
                || start.is_some_and(|start| is_named(start, SEC_FETCH_PREFIX))
        }
        _ => false,
    })
}

fn is_named(name: &[u8], wanted: &[u8]) -> bool {
    name.eq_ignore_ascii_case(wanted)
}
