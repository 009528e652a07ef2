//! Requests for responses that were made before: the gateway's own store, else the endpoint that
//! keeps them.
//!
//! Contract: docs/contract/dialects.md#9

use std::rc::Rc;

use olla_engine::handler::{Ask, Local, Routed};
use percent_encoding::percent_decode;

use super::exchange::Exchange;
use super::owner::owner_of;
use crate::config::DialectName;
use crate::dialects::responses::{
    Owner, StoredAsk, endpoint_is_away, keeps_nothing, not_stored, stored,
};
use crate::dialects::{Error, Operation};
use crate::routing::route::RouteKind;

impl Exchange {
    /// Responds from the store, or lets the endpoint respond that keeps the response; `None` = the
    /// route is another one.
    pub(super) fn respond_stored(&mut self, ask: &Ask<'_>, local: &mut Local) -> Option<Routed> {
        let RouteKind::Dialect(_, route, _) = self.route.kind else {
            return None;
        };
        let Operation::Stored(path) = route.operation else {
            return None;
        };
        self.view = self.gateway.view();
        let request = &ask.request;
        let own = self.own_part(request);
        let id = own.split(|byte| *byte == b'/').next().unwrap_or(own);
        let id = percent_decode(id).decode_utf8_lossy().into_owned();
        let query = String::from_utf8_lossy(request.head.query.of(request.bytes));
        let owner = owner_of(request, self.key.as_deref());
        let found = stored(
            &self.gateway.common.responses,
            &StoredAsk {
                operation: path.operation(request.head.method.of(request.bytes)),
                owner,
                id: &id,
                query: query.trim_start_matches('?'),
                now_ms: ask.cx.unix_ms,
            },
        );
        let error = match found {
            Ok(Some(body)) => {
                self.is_served_here = true;
                self.json(ask, body.into(), local);
                return Some(Routed::Respond);
            }
            Ok(None) => match self.keeping_endpoint(ask, owner, &id) {
                Ok(index) => {
                    self.candidates = [index].into_iter().collect();
                    return Some(Routed::Upstream);
                }
                Err(error) => error,
            },
            Err(refusal) => Error::from(refusal),
        };
        self.error(ask.cx, Some(request), &error, local);
        Some(Routed::Respond)
    }

    /// The endpoint that made a response; else, if clients have no keys, the only one of the scope that
    /// may have.
    fn keeping_endpoint(&self, ask: &Ask<'_>, owner: Owner, id: &str) -> Result<usize, Error> {
        let view = Rc::clone(&self.view);
        let endpoints = &view.snapshot.fleet.endpoints;
        let scope = self.scope(&ask.request, false);
        let common = &self.gateway.common;
        if let Some(name) = common.responses.made_by(owner, id, ask.cx.unix_ms)
            && let Some(index) = endpoints.iter().position(|it| it.name() == &*name)
        {
            let is_there = scope.routable.contains(index);
            return is_there
                .then_some(index)
                .ok_or_else(|| Error::from(endpoint_is_away(id)));
        }
        if self.key.is_some() {
            // An endpoint that keeps it would not know whose it is (docs/contract/access.md#15).
            return Err(Error::from(not_stored(id)));
        }
        let dialect = DialectName::OpenAiResponses;
        let keeps = |index: &usize| {
            let endpoint = endpoints.get(*index);
            endpoint.is_some_and(|endpoint| {
                let speaks = endpoint.plan.speaks(dialect);
                speaks.unwrap_or(endpoint.profile.responses.enabled) && !keeps_nothing(endpoint)
            })
        };
        let mut keeping = scope.routable.iter().filter(keeps);
        match (keeping.next(), keeping.next()) {
            (Some(index), None) => Ok(index),
            _ => Err(Error::from(not_stored(id))),
        }
    }
}
