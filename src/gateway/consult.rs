//! Responses that the dialect computes and an endpoint may know better: the endpoint is asked, and
//! the computed response is sent if it does not say in time.
//!
//! Nothing of it counts: it is no attempt in the statistics, takes no token of the endpoint's limit,
//! and neither its success nor its failure marks the endpoint.
//!
//! Contract: docs/contract/translation.md#11

use std::rc::Rc;

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit};
use olla_engine::handler::{Ask, AtEnd, Local, Passing, Pick, Response, Routed};

use super::consultation::Consultation;
use super::exchange::Exchange;
use super::pick::target_of;
use crate::config::DialectName;
use crate::dialects::Authority;
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::fleet::breaker::{self, State};
use crate::inspect::{self, Findings, rewrite_model};
use crate::routing::decide::{Decision, Refresh};
use crate::routing::rejection::RoutingDecision;

/// Bytes of an endpoint's response that are read.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

impl Exchange {
    /// Asks an endpoint, if one can say it better; else responds with what was computed.
    pub(super) fn consult(
        &mut self,
        ask: &Ask<'_>,
        authority: &'static Authority,
        (computed, findings): (Bytes, Findings),
        local: &mut Local,
    ) -> Routed {
        self.findings = findings;
        if (authority.is_enabled)(self.view.plan())
            && let Some(index) = self.authority(ask, authority)
        {
            let path = self.endpoint_path(authority, index);
            self.address_to(index, ask.body);
            self.consultation = Some(Box::new(Consultation {
                authority,
                computed,
                path,
                is_asked: false,
                head: Vec::new(),
            }));
            return Routed::Upstream;
        }
        self.json(ask, computed, local);
        Routed::Respond
    }

    /// The endpoint to ask: of those that serve the model and can say it, the one with the fewest
    /// requests in flight.
    fn authority(&mut self, ask: &Ask<'_>, authority: &'static Authority) -> Option<usize> {
        let found = self.findings.model.as_ref();
        let found = found.filter(|found| !found.is_huge())?;
        let model = inspect::model_name(ask.body, found);
        self.kept.model.push_str(&model);
        // The request does not wait for a listing.
        self.refresh = Refresh::Failed;
        let scope = self.scope(&ask.request, false);
        let Decision::Route(routed) = self.decision(&ask.request, &scope) else {
            return None;
        };
        let serves = |verdict| verdict == RoutingDecision::Routed;
        if !routed
            .routing
            .is_some_and(|routing| serves(routing.verdict))
        {
            return None;
        }
        self.alias = routed.alias;
        self.candidates = routed.candidates;
        let now_ms = self.gateway.common.clock_ms(ask.cx.now);
        let can_say = |endpoint: &Endpoint| {
            (authority.path)(endpoint).is_some()
                && !endpoint.live.refuses_consultations()
                && !endpoint
                    .live
                    .refuses(DialectName::AnthropicMessages, now_ms)
                && breaker::state(&endpoint.live, now_ms) == State::Closed
        };
        let left: EndpointSet = self.candidates.minus(&self.cooling(now_ms));
        let left = left.iter().filter_map(|index| {
            let endpoint = self.view.endpoint(index)?;
            can_say(endpoint).then(|| (endpoint.live.in_flight(), index))
        });
        left.min().map(|(_, index)| index)
    }

    fn endpoint_path(&self, authority: &'static Authority, index: usize) -> String {
        let path = self.view.endpoint(index).and_then(authority.path);
        path.unwrap_or_default()
    }

    /// Names the model as the endpoint knows it.
    fn address_to(&mut self, index: usize, body: &[u8]) {
        let view = Rc::clone(&self.view);
        let real = self.name_at(index);
        self.splice = match &self.findings.model {
            Some(found) if real != self.kept.model && !body.is_empty() => {
                rewrite_model(found, real)
            }
            _ => None,
        };
        self.endpoint = Some(index);
        self.tried.insert(index);
        self.deaths = view.leased(index).live.deaths();
    }

    /// The endpoint that is consulted; after it, the response without an endpoint.
    pub(super) fn pick_authority(&mut self, ask: &Ask<'_>, local: &mut Local) -> Pick {
        let target = self.endpoint().map(target_of);
        match (&mut self.consultation, target) {
            (Some(consultation), Some(target)) if !consultation.is_asked => {
                consultation.is_asked = true;
                Pick::Upstream(target)
            }
            _ => {
                self.respond_without(ask, local);
                Pick::Respond
            }
        }
    }

    /// Responds with what was computed.
    pub(super) fn respond_without(&mut self, ask: &Ask<'_>, local: &mut Local) {
        self.endpoint = None;
        self.upstream_status = None;
        let computed = self
            .consultation
            .take()
            .map(|consultation| consultation.computed);
        self.json(ask, computed.unwrap_or_default(), local);
    }

    /// The endpoint's response begins.
    #[cold]
    pub(super) fn authority_responds(&mut self, ask: &Ask<'_>, response: &Response<'_>) -> Passing {
        let status = response.head.status;
        if matches!(status, 404 | 405 | 501)
            && let Some(endpoint) = self.endpoint()
        {
            endpoint.live.refuse_consultations();
        }
        if status != 200 || response.head.has(FieldId::ContentEncoding) {
            return Passing::Again;
        }
        self.upstream_status = Some(status);
        let mut head = Vec::new();
        self.relayed(ask, response, &mut head);
        if let Some(consultation) = &mut self.consultation {
            let mode = consultation.authority.mode.as_bytes();
            emit::field(&mut head, b"X-Olla-Mode", mode);
            consultation.head = head;
        }
        Passing::Collect(RESPONSE_BYTES_MAX)
    }

    /// The endpoint's response is complete.
    pub(super) fn authority_has_responded(&mut self, response: &[u8], local: &mut Local) -> AtEnd {
        match &mut self.consultation {
            Some(consultation) if (consultation.authority.accepts)(response) => {
                local.head.append(&mut consultation.head);
                local.body = Bytes::copy_from_slice(response);
                AtEnd::Respond
            }
            _ => AtEnd::Again,
        }
    }
}
