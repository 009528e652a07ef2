//! What a key may see: the models and endpoints that exist for it.
//!
//! Contract: docs/contract/access.md#6

use std::sync::Arc;

use olla_engine::handler::{Ask, Local, Request, Routed};

use super::exchange::Exchange;
use super::local::PAGE_WAIT;
use super::replies::Awaited;
use crate::access::names;
use crate::catalogue::{Catalogue, Lens};
use crate::dialects::{AccessError, Error, Operation};
use crate::endpoint_set::EndpointSet;
use crate::routing::model_path::is_named_by_body;
use crate::routing::route::RouteKind;
use crate::routing::scope::RouteScope;
use crate::shared::WantedPage;

impl Exchange {
    /// The endpoints that exist for the request's key; `None` = all.
    pub(super) fn fleet(&self) -> Option<EndpointSet> {
        self.view.fleet_of(&self.key.as_ref()?.policy)
    }

    /// The globs of the models that the request's key may use; `None` = all models.
    fn permitted(&self) -> Option<&[String]> {
        let globs = &self.key.as_ref()?.policy.fields.models;
        (!names::allows_every(globs)).then_some(globs)
    }

    /// Whether the key may not use the model that the request names.
    pub(super) fn is_hidden(&self, scope: &RouteScope) -> bool {
        let Some(globs) = self.permitted() else {
            return false;
        };
        let Some(model) = self.model() else {
            return false;
        };
        let is_allowed = |name: &str| {
            let models = &self.view.snapshot.models;
            let first = models.find(name, &scope.configured).iter().next();
            // An endpoint has a name in no spelling if it has it with a tag only.
            let is_completed = first.is_some_and(|index| models.spelling(index, name).is_none());
            names::allows_model(globs, name, is_completed)
        };
        let looked_up = self.looked_up(model, scope);
        !is_allowed(looked_up) || (looked_up != model && !is_allowed(model))
    }

    /// Refuses a request that names no model, or several, from a key that may use certain models
    /// only: what is not read could name any.
    pub(super) fn check_named(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(key) = self.key.as_ref().filter(|_| self.permitted().is_some()) else {
            return Ok(());
        };
        if let RouteKind::Dialect(_, route, _) = self.route.kind
            && matches!(route.operation, Operation::Stored(_))
        {
            return Ok(());
        }
        if self.model().is_none() || !self.is_read(request) {
            let message = format!(
                "The API key '{}' may use certain models only, and the request names none.",
                key.name
            );
            let mut error = Error::new(403, "forbidden", "MODEL_REQUIRED", message);
            error.access = Some(AccessError::Uncached);
            return Err(error);
        }
        if self.findings.tally.ambiguous || names_model(&self.query(request)) {
            let message = "model: expected once, in a place that all servers read alike, got it elsewhere too";
            return Err(Error::new(400, "bad_request", "INVALID_MODEL", message));
        }
        Ok(())
    }

    /// Whether an endpoint finds the model of a request where the gateway has found it: the paths of
    /// some servers name another, and none reads the body of a `GET`.
    fn is_read(&self, request: &Request<'_>) -> bool {
        match self.route.kind {
            RouteKind::Proxy(..) => {
                let method = request.head.method.of(request.bytes);
                method == b"POST" && is_named_by_body(self.rest(request))
            }
            _ => true,
        }
    }

    /// What the request's key may see of the catalogue; `None` = all of it.
    pub(super) fn lens(&self) -> Option<Arc<Lens>> {
        let fields = &self.key.as_ref()?.policy.fields;
        let (models, endpoints) = (&fields.models, &fields.endpoints);
        if names::allows_every(models) && names::allows_every(endpoints) {
            return None;
        }
        Some(Arc::new(Lens {
            models: models.clone(),
            endpoints: endpoints.clone(),
        }))
    }

    /// The catalogue as the request's key may see it. What a key may see of many models is found out
    /// by the pages thread, and kept.
    ///
    /// # Errors
    /// The request waits for that, or has its response.
    pub(super) fn catalogue(
        &mut self,
        ask: &Ask<'_>,
        local: &mut Local,
    ) -> Result<Arc<Catalogue>, Routed> {
        let all = Arc::clone(&self.view.snapshot.catalogue);
        let Some(lens) = self.lens() else {
            return Ok(all);
        };
        if let Some(seen) = all.seen_at_once(&lens) {
            if std::mem::take(&mut self.kept.awaits_view) {
                self.ticket = None;
            }
            return Ok(seen);
        }
        let now = ask.cx.now;
        if let Some(ticket) = &self.ticket {
            if let Awaited::Later(until) = ticket.take(now) {
                return Err(Routed::Wait(until));
            }
            self.ticket = None;
        } else {
            let client = self.client.limited_as();
            let wanted = WantedPage::Seen(lens, None);
            self.ticket = self.gateway.ask_for_page(now + PAGE_WAIT, wanted, client);
            if let Some(ticket) = &self.ticket {
                self.kept.awaits_view = true;
                return Err(Routed::Wait(ticket.by));
            }
        }
        self.write_overloaded(ask, local);
        Err(Routed::Respond)
    }

    /// What the pages thread is to render for the request's key.
    pub(super) fn as_seen(&self, wanted: WantedPage) -> WantedPage {
        match self.lens() {
            Some(lens) => WantedPage::Seen(lens, Some(Box::new(wanted))),
            None => wanted,
        }
    }
}

/// Whether a query names a model, which some servers prefer to the body's.
fn names_model(query: &str) -> bool {
    let mut pairs = url::form_urlencoded::parse(query.trim_start_matches('?').as_bytes());
    pairs.any(|(name, _)| name.trim().to_lowercase() == "model")
}
