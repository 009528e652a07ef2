//! What is kept of a request: log lines and figures.
//!
//! contract: operations 5, 6, 8

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use olla_engine::exchange::Fault;
use olla_engine::h1::framing::RequestBody;
use olla_engine::h1::{FieldId, RequestHead, Span};
use olla_engine::handler::{AttemptEnd, Cx, Done, Outcome, Request};

use super::exchange::{Exchange, Kind};
use super::view::View;
use super::{Gateway, messages};
use crate::clock::{micros, millis};
use crate::config::StickySource;
use crate::log::{Level, Line, events, redact};
use crate::operations::stats::{self, AttemptEnd as AttemptRecord, RequestEnd, Route};
use crate::providers::figures::ProviderFigures;
use crate::routing::rejection::{Reason, Verdict};
use crate::shared::Event;

/// The address that stands for no client.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How often a core tells what it has counted.
const HAND_OVER_EVERY: Duration = Duration::from_millis(50);

impl Gateway {
    /// Hands over what was counted since the last time, if it is due or now.
    pub(super) fn hand_over_counts(&self, now: Instant, at_once: bool) {
        if !at_once && now.saturating_duration_since(self.told.get()) < HAND_OVER_EVERY {
            return;
        }
        self.told.set(now);
        let delta = self.recorder.borrow_mut().take();
        if let Some(delta) = delta {
            self.link.tell(Event::Counted(Box::new(delta)));
        }
    }

    pub(super) fn log_received(&self, cx: &Cx<'_>, x: &Exchange, request: &Request<'_>) {
        if !x.view.as_ref().is_some_and(|view| view.logs_requests) {
            return;
        }
        let mut log = self.log.borrow_mut();
        let Some(mut line) = log.event(Level::Info, events::REQUEST_RECEIVED, cx.unix_ms) else {
            return;
        };
        let Request { head, bytes, .. } = *request;
        let field = |id| head.get(bytes, id).unwrap_or_default();
        line.bytes("request_id", x.id.as_bytes());
        line.str("client_ip", x.client_text.as_str());
        line.bytes("method", head.method.of(bytes))
            .bytes("path", head.path.of(bytes))
            .num("compatible_endpoints", x.candidates.len() as u64);
        let agent = field(FieldId::UserAgent);
        if !agent.is_empty() {
            line.bytes("user_agent", agent);
        }
        line.some("model", &x.model);
        if let RequestBody::Length(bytes) = request.framing.body {
            line.positive("content_length", bytes);
        }
        if x.kind == Kind::Messages {
            line.str("translator_mode", x.message.first_mode());
        }
    }

    pub(super) fn log_dispatching(&self, cx: &Cx<'_>, x: &Exchange, view: &View, target: &[u8]) {
        if !view.logs_requests {
            return;
        }
        let Some(endpoint) = view.endpoint(x.endpoint) else {
            return;
        };
        let mut log = self.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Info, events::REQUEST_DISPATCHING, cx.unix_ms) {
            line.bytes("request_id", x.id.as_bytes())
                .str("endpoint", endpoint.name())
                .bytes("target", target)
                .str("model", x.sent_model().unwrap_or_default());
        }
    }

    /// Counts one attempt.
    pub(super) fn record_attempt(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        view: &View,
        index: usize,
        end: AttemptEnd,
        bytes: u64,
    ) {
        let Some(endpoint) = view.endpoint(Some(index)) else {
            return;
        };
        let elapsed = cx.now.saturating_duration_since(cx.arrived);
        self.recorder.borrow_mut().attempt(&AttemptRecord {
            endpoint_id: endpoint.id,
            model: x.sent_model(),
            outcome: match end {
                AttemptEnd::Whole => stats::Outcome::Success,
                AttemptEnd::Failed(_) => stats::Outcome::Failure,
                AttemptEnd::Abandoned => stats::Outcome::Cancelled,
            },
            status: x.answer_status,
            bytes,
            latency_ms: millis(elapsed),
            first_byte_us: x
                .times
                .answered
                .map(|at| micros(at.saturating_duration_since(cx.arrived))),
            at_ms: self.common.clock_ms(cx.now),
            retry: x.attempts > 1,
        });
    }

    /// The request is over.
    pub(super) fn record(
        &self,
        cx: &Cx<'_>,
        x: &mut Exchange,
        request: Option<&Request<'_>>,
        done: &Done,
    ) {
        let Some(view) = x.view.take() else { return };
        let extractor = view
            .endpoint(x.endpoint)
            .map(|endpoint| &endpoint.extractor);
        let mut tail = x.tail.take();
        let figures = match (extractor, &mut tail) {
            (Some(extractor), Some(tail)) if x.reads_figures => extractor.read(tail),
            _ => None,
        };
        if x.kind.is_proxied() {
            self.count(x, &view, request, done, figures.as_ref());
            self.end_message(cx, x, done.outcome, done.total);
            self.log_outcome(cx, x, &view, request, done, figures.as_ref());
            if done.outcome == Outcome::Relayed {
                self.log_metrics(cx, x, &view, done, figures.as_ref());
            }
        }
        self.log_access(cx, x, &view, request, done);
        drop(figures);
        if let Some(tail) = &mut tail {
            tail.end();
        }
        x.tail = tail;
        if let Some(session) = x.session.take()
            && x.endpoint.is_some()
        {
            self.common.sticky.count(&session);
        }
    }

    fn count(
        &self,
        x: &Exchange,
        view: &View,
        request: Option<&Request<'_>>,
        done: &Done,
        figures: Option<&ProviderFigures<'_>>,
    ) {
        let text = |part: fn(&RequestHead) -> Span| {
            let bytes = request.map(|request| part(request.head).of(request.bytes));
            std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        };
        let endpoint = view.endpoint(x.endpoint);
        let outcome = match done.outcome {
            Outcome::ClientLeft => stats::Outcome::Cancelled,
            Outcome::Broken(_) => stats::Outcome::Failure,
            Outcome::Relayed => stats::Outcome::Success,
            Outcome::Local if x.status >= 500 => stats::Outcome::Failure,
            Outcome::Local => stats::Outcome::Refused,
        };
        let fallback = x
            .routing
            .is_some_and(|routing| routing.verdict == Verdict::Fallback);
        let route = match (endpoint, x.attempts) {
            (None, _) => Route::Unserved,
            _ if fallback => Route::Fallback,
            (_, 0 | 1) => Route::Hit,
            _ => Route::Miss,
        };
        self.recorder.borrow_mut().request(&RequestEnd {
            request_id: x.id.as_str(),
            method: text(|head| head.method),
            path: text(|head| head.path),
            model: x.sent_model(),
            retries: x.attempts.saturating_sub(1),
            endpoint_id: endpoint.map(|endpoint| endpoint.id),
            client: x.client.unwrap_or(NOBODY),
            outcome,
            status: (x.status > 0).then_some(x.status),
            bytes: done.answer_bytes,
            latency_ms: millis(done.total),
            first_byte_us: done.first_byte.map(micros),
            route,
            routing: x.routing.map(|routing| stats::Routing {
                strategy: routing.strategy,
                decision: routing.verdict.as_str(),
                reason: match routing.reason {
                    Reason::Word(word) => word,
                    Reason::Alias { .. } => "alias",
                },
            }),
            streaming: x.findings.stream,
            figures,
        });
    }

    fn log_outcome(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        view: &View,
        request: Option<&Request<'_>>,
        done: &Done,
        figures: Option<&ProviderFigures<'_>>,
    ) {
        let mut log = self.log.borrow_mut();
        let endpoint = view.endpoint(x.endpoint);
        let (level, msg) = match done.outcome {
            Outcome::Relayed => (Level::Info, events::REQUEST_COMPLETED),
            Outcome::Local if x.status < 500 || endpoint.is_none() => {
                (Level::Warn, events::REQUEST_REJECTED)
            }
            Outcome::Local | Outcome::Broken(_) => (Level::Error, events::REQUEST_FAILED),
            Outcome::ClientLeft => (Level::Info, events::REQUEST_COMPLETED),
        };
        if level == Level::Info && !view.logs_requests {
            return;
        }
        let Some(mut line) = log.event(level, msg, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", x.id.as_bytes());
        if let Some(endpoint) = endpoint {
            line.str("endpoint", endpoint.name());
        }
        match done.outcome {
            Outcome::Relayed | Outcome::ClientLeft => {
                let left = done.outcome == Outcome::ClientLeft;
                line.num("duration_ms", millis(done.total))
                    .str("status", if left { "client_left" } else { "completed" })
                    .some("model", &x.model)
                    .positive("total_bytes", done.answer_bytes);
            }
            Outcome::Local if msg == events::REQUEST_REJECTED => {
                line.str("client_ip", x.client_text.as_str());
                if let Some(request) = request {
                    line.bytes("path", request.head.path.of(request.bytes));
                }
                line.num("status", x.status.into())
                    .num("duration_ms", millis(done.total))
                    .some("model", &x.model);
            }
            Outcome::Local | Outcome::Broken(_) => {
                let fault = match done.outcome {
                    Outcome::Broken(fault) => Some(fault),
                    _ => x.failed_by,
                };
                line.str("error", fault.map_or("no answer", Fault::as_str));
                metrics_fields(&mut line, cx, x, done);
            }
        }
        if let Some(mode) = x.message.mode() {
            line.str("translator_mode", mode);
        }
        if let Some(figures) = figures {
            provider_fields(&mut line, figures);
            if msg == events::REQUEST_FAILED {
                more_provider_fields(&mut line, figures);
            }
        }
        Self::log_decisions(&mut line, x, view, request);
    }

    /// How a request was routed, and kept where it was.
    fn log_decisions(
        line: &mut Line<'_>,
        x: &Exchange,
        view: &View,
        request: Option<&Request<'_>>,
    ) {
        routing_fields(line, x, view);
        if let Some(session) = &x.session {
            line.str("sticky_outcome", session.outcome().as_str());
            let source = session.key().map(|key| key.source());
            let own = request
                .and_then(|request| request.head.get(request.bytes, FieldId::XOllaSessionId));
            if source == Some(StickySource::SessionHeader)
                && let Some(own) = own
            {
                line.bytes("session_id", own);
            }
        }
        if let Some(reason) = messages::fallback(x) {
            line.str("fallback_reason", reason.as_str());
        }
    }

    /// Where the time of a request went.
    fn log_metrics(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        view: &View,
        done: &Done,
        figures: Option<&ProviderFigures<'_>>,
    ) {
        let Some(endpoint) = view.endpoint(x.endpoint) else {
            return;
        };
        let mut log = self.log.borrow_mut();
        let Some(mut line) = log.event(Level::Debug, events::REQUEST_METRICS, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", x.id.as_bytes())
            .str("endpoint", endpoint.name());
        metrics_fields(&mut line, cx, x, done);
        if let Some(figures) = figures {
            provider_fields(&mut line, figures);
            more_provider_fields(&mut line, figures);
        }
    }

    fn log_access(
        &self,
        cx: &Cx<'_>,
        x: &Exchange,
        view: &View,
        request: Option<&Request<'_>>,
        done: &Done,
    ) {
        if !view.plan().server.request_logging {
            return;
        }
        let quiet = matches!(x.kind, Kind::Internal | Kind::Dashboard)
            && (x.status < 300 || x.status == 304);
        let mut log = self.log.borrow_mut();
        let level = if quiet { Level::Debug } else { Level::Info };
        let Some(mut line) = log.access(level, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", x.id.as_bytes());
        line.str("remote_addr", x.client_text.as_str());
        if let Some(Request { head, bytes, .. }) = request {
            let bytes = *bytes;
            let field = |id| head.get(bytes, id).unwrap_or_default();
            line.bytes("method", head.method.of(bytes))
                .bytes("path", head.path.of(bytes));
            match std::str::from_utf8(head.query.of(bytes)) {
                Ok("") => line.str("query", ""),
                Ok(query) => line.str("query", &redact::query(query)),
                Err(_) => line.str("query", "[not UTF-8]"),
            };
            line.num("status", x.status.into())
                .num("request_bytes", done.request_bytes)
                .num("response_bytes", done.answer_bytes)
                .num("duration_ms", millis(done.total))
                .bytes("user_agent", field(FieldId::UserAgent))
                .bytes("referer", field(FieldId::Referer))
                .bytes("content_type", field(FieldId::ContentType))
                .bytes("accept", field(FieldId::Accept));
        } else {
            line.num("status", x.status.into())
                .num("duration_ms", millis(done.total));
        }
    }
}

fn routing_fields(line: &mut Line<'_>, x: &Exchange, view: &View) {
    if let Some(routing) = &x.routing {
        line.str("routing_strategy", routing.strategy)
            .str("routing_action", routing.verdict.as_str());
        match routing.reason {
            Reason::Word(word) => line.str("routing_reason", word),
            reason => line.str(
                "routing_reason",
                &reason.show(&view.snapshot.aliases).to_string(),
            ),
        };
    }
}

fn provider_fields(line: &mut Line<'_>, figures: &ProviderFigures<'_>) {
    line.positive("provider_total_ms", figures.total_ms)
        .positive("provider_prompt_tokens", figures.prompt_tokens)
        .positive("provider_completion_tokens", figures.completion_tokens)
        .positive("provider_total_tokens", figures.total_tokens);
    if figures.tokens_per_second > 0.0 {
        line.float("provider_tokens_per_second", figures.tokens_per_second);
    }
    line.some(
        "provider_model",
        figures.model.as_deref().unwrap_or_default(),
    );
}

fn more_provider_fields(line: &mut Line<'_>, figures: &ProviderFigures<'_>) {
    line.positive("provider_ttft_ms", figures.first_token_ms)
        .positive("provider_prompt_ms", figures.prompt_ms)
        .positive("provider_generation_ms", figures.generation_ms)
        .some(
            "provider_finish_reason",
            figures.finish_reason.as_deref().unwrap_or_default(),
        );
}

/// The fields of `Request metrics`. The times between the steps are those of the engine's
/// questions, so that no clock is read for them.
fn metrics_fields(line: &mut Line<'_>, cx: &Cx<'_>, x: &Exchange, done: &Done) {
    let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
        (Some(from), Some(to)) => millis(to.saturating_duration_since(from)),
        _ => 0,
    };
    let (times, arrived) = (&x.times, Some(cx.arrived));
    let total = millis(done.total);
    let first_data = done.first_byte.map(millis);
    line.str("model", x.sent_model().unwrap_or_default())
        .str("client_ip", x.client_text.as_str())
        .num("total_bytes", done.answer_bytes)
        .num("duration_ms", total)
        .num("latency_ms", total)
        .num("request_processing_ms", between(arrived, times.dispatched))
        .num(
            "backend_response_ms",
            between(times.dispatched, times.answered),
        )
        .num("first_data_ms", first_data.unwrap_or(0))
        .num(
            "streaming_ms",
            first_data.map_or(0, |first| total.saturating_sub(first)),
        )
        .num("header_processing_ms", between(arrived, times.headed))
        // The path is resolved within the question about the head.
        .num("path_resolution_ms", 0)
        .num("selection_ms", between(times.routed, times.dispatched));
}
