//! Token counts and model lists of the Messages API.
//!
//! contract: translation 11, 12

use bytes::Bytes;
use olla_engine::h1::emit;
use olla_engine::handler::{Cx, Local, Request};

use crate::dialects::anthropic::translate::{self, Refusal};
use crate::gateway::Gateway;
use crate::gateway::answers;
use crate::gateway::exchange::{Exchange, Kind};
use crate::gateway::view::View;

impl Gateway {
    /// Answers what needs no backend.
    pub(in crate::gateway) fn messages_locally(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) {
        let ids = || view.snapshot.fleet.catalogue.served_ids();
        let since = &self.common.started_rfc3339;
        let made = match x.kind {
            Kind::CountTokens => translate::count_tokens(body).map(Bytes::from),
            Kind::MessagesModels => {
                let ids = ids();
                Ok(Bytes::from(translate::models(ids.iter().copied(), since)))
            }
            _ => {
                let asked = percent_decoded(x.rest(request.bytes));
                let snapshot = &view.snapshot;
                let is_served = || {
                    let on = snapshot.models.find(&asked, &snapshot.fleet.routable);
                    !on.is_empty()
                };
                let ids = ids();
                let listed = ids.iter().find(|id| id.eq_ignore_ascii_case(&asked));
                listed
                    .copied()
                    .or_else(|| is_served().then_some(asked.as_str()))
                    .map(|id| Bytes::from(translate::model(id, since)))
                    .ok_or_else(|| Refusal {
                        status: 404,
                        message: format!("model not found: {asked}"),
                    })
            }
        };
        match made {
            Ok(body) => {
                answers::json(cx, x, request, body, local);
                emit::field(&mut local.head, b"request-id", x.id.as_bytes());
            }
            Err(refusal) => self.refuse_message(cx, x, request, &refusal, local),
        }
    }
}

/// A path segment without its percent escapes.
fn percent_decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
