//! From a request of the Messages API to the request to a backend.
//!
//! contract: translation 3-7

use olla_engine::handler::{Cx, Local, Request, Routed};

use super::{MessageTarget, Recording};
use crate::dialects::anthropic::split::{Mode, Split, Uses};
use crate::dialects::anthropic::translate::{self, IdSeed, Refusal};
use crate::endpoint_set::EndpointSet;
use crate::gateway::Gateway;
use crate::gateway::answers::{self, Error};
use crate::gateway::exchange::{Exchange, Kind};
use crate::gateway::view::View;
use crate::inspect::rewrite_model;
use crate::log::{Level, events};

impl Gateway {
    /// Checks the request and finds candidates. What is wrong with a request that names a model
    /// is said after the routing, because the figures tell apart how it would have gone.
    pub(in crate::gateway) fn decide_message(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Routed {
        if !x.message.read {
            x.message.read = true;
            self.inspect(x, body);
            x.model.clear();
            match translate::check(body) {
                Ok(checked) => {
                    x.model.push_str(&checked.model);
                    x.message.checked = Some(Box::new(checked));
                }
                Err(refusal) => {
                    let Some(model) = translate::model_of(body) else {
                        self.refuse_message(cx, x, request, &refusal, local);
                        return Routed::Answered;
                    };
                    x.model.push_str(&model);
                    x.message.invalid = Some(refusal);
                }
            }
        }
        let routed = self.decide(cx, x, request, body, local);
        if routed == Routed::Upstream {
            self.split_candidates(cx, x);
            if let Some(refusal) = x.message.invalid.take() {
                x.message.mode = Some(x.message.split.next(&EndpointSet::EMPTY).1);
                self.refuse_message(cx, x, request, &refusal, local);
                return Routed::Answered;
            }
        }
        routed
    }

    /// Tells native candidates from the others.
    fn split_candidates(&self, cx: &Cx<'_>, x: &mut Exchange) {
        let Some(view) = x.view.clone() else { return };
        let uses = x.message.checked.as_ref().map(|checked| Uses {
            tools: checked.uses_tools,
            thinking: checked.uses_thinking,
            vision: checked.has_images,
        });
        let endpoints = &view.snapshot.fleet.endpoints;
        let now_ms = self.common.clock_ms(cx.now);
        let refuses = |index: &usize| {
            let endpoint = endpoints.get(*index);
            endpoint.is_some_and(|endpoint| endpoint.live.refuses_messages(now_ms))
        };
        x.message.split = Split::new(
            endpoints,
            &x.candidates,
            uses.unwrap_or_default(),
            view.plan().translators.anthropic.passthrough_enabled,
            &x.candidates.iter().filter(refuses).collect(),
        );
    }

    /// An error in the words of the API.
    pub(super) fn refuse_message(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: &Request<'_>,
        refusal: &Refusal,
        local: &mut Local,
    ) {
        let error = Error::new(refusal.status, refusal.kind(), "", refusal.message.clone());
        answers::error(cx, x, Some(request), &error, local);
    }

    /// Translates the request for the endpoint that was picked, if it has to be; an answer if it
    /// cannot be.
    pub(in crate::gateway) fn translate_for_endpoint(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> bool {
        let Some(checked) = &x.message.checked else {
            return true;
        };
        let index = x.endpoint.unwrap_or(usize::MAX);
        let snapshot = &view.snapshot;
        let real = x
            .alias
            .as_ref()
            .and_then(|alias| snapshot.aliases.real_name(alias, &snapshot.models, index));
        let name = real
            .or_else(|| snapshot.models.spelling(index, &x.model))
            .unwrap_or(&x.model);
        x.sent_model.clear();
        if name != x.model {
            x.sent_model.push_str(name);
        }
        x.message.translated = x.message.mode == Some(Mode::Translation);
        x.splice = None;
        if !x.message.translated {
            let found = x.findings.model.as_ref().filter(|_| name != x.model);
            x.splice = found.and_then(|found| rewrite_model(found, name));
            self.record_request(cx, x, view, request, body);
            return true;
        }
        x.message.context = Some(Box::new(checked.context(body, self.seed())));
        match translate::to_openai(body, checked, name) {
            Ok(translated) => {
                x.message.body = translated.body;
                self.log_warnings(cx, x, translated.warnings.iter());
                self.record_request(cx, x, view, request, body);
                true
            }
            Err(refusal) => {
                // Nobody was asked.
                x.endpoint = None;
                self.refuse_message(cx, x, request, &refusal, local);
                false
            }
        }
    }

    fn seed(&self) -> IdSeed {
        let mut seed = [0; 16];
        let (front, back) = seed.split_at_mut(8);
        front.copy_from_slice(&self.random.take());
        back.copy_from_slice(&self.random.take());
        IdSeed(seed)
    }

    /// Says what was lost on the way.
    pub(super) fn log_warnings<'w>(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        warnings: impl Iterator<Item = &'w translate::Warning>,
    ) {
        let mut log = self.log.borrow_mut();
        for warning in warnings {
            let line = log.event(Level::Warn, events::NOT_TRANSLATED, cx.unix_ms);
            if let Some(mut line) = line {
                line.str("request_id", x.id.as_str())
                    .str("reason", &warning.to_string());
            }
        }
    }

    /// Hands the request to the inspector, if it is on; once for each request.
    fn record_request(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        view: &View,
        request: &Request<'_>,
        body: &[u8],
    ) {
        let plan = &view.plan().translators.anthropic.inspector;
        if !plan.enabled || x.message.recording.is_some() {
            return;
        }
        let recording = Recording::begin(plan, request);
        if recording.is_replaced() {
            let mut log = self.log.borrow_mut();
            if let Some(mut line) = log.event(Level::Warn, events::SESSION_REPLACED, cx.unix_ms) {
                line.str("request_id", x.id.as_str());
            }
        }
        self.common.records.write(recording.request(&x.model, body));
        x.message.recording = Some(Box::new(recording));
    }

    /// Where the picked endpoint takes the message; `None` for other requests.
    pub(in crate::gateway) fn message_target<'s>(
        &self,
        x: &Exchange,
        view: &'s View,
    ) -> Option<MessageTarget<'s>> {
        let mode = x.message.mode.filter(|_| x.kind == Kind::Messages)?;
        let endpoint = view.snapshot.fleet.endpoints.get(x.endpoint?)?;
        let path = match (mode, &endpoint.profile.anthropic) {
            (Mode::Passthrough, Some(native)) => &native.messages_path,
            _ => &endpoint.profile.chat_path,
        };
        Some(MessageTarget {
            path,
            translated: mode == Mode::Translation,
        })
    }
}
