//! Writes the log lines and statistics of a request.
//!
//! Contract: docs/contract/operations.md#5, docs/contract/operations.md#6,
//! docs/contract/operations.md#8

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use olla_engine::exchange::Fault;
use olla_engine::h1::RequestBody;
use olla_engine::h1::{FieldId, RequestHead, Span};
use olla_engine::handler::{Ask, AttemptEnd, Cx, Done, Outcome, Request};

use super::exchange::Exchange;
use super::quotas::UsedBy;
use super::usage::UsageEnd;
use crate::clock::{micros, millis};
use crate::config::StickySource;
use crate::dialects::{DialectTarget, Note};
use crate::field_names::X_OLLA_SESSION_ID;
use crate::fleet::Endpoint;
use crate::log::{Level, LogLine, events, redact};
use crate::operations::stats::{
    self, AttemptEnd as AttemptRecord, RequestEnd, ServedBy, TranslatorEnd, TranslatorFallback,
};
use crate::providers::figures::ProviderFigures;
use crate::routing::rejection::{Reason, RoutingDecision};
use crate::routing::route::RouteKind;

/// A request that ended, and what was found out about it.
struct Ended<'a> {
    cx: &'a Cx<'a>,
    request: Option<&'a Request<'a>>,
    done: &'a Done,
    figures: Option<&'a ProviderFigures<'a>>,
}

impl Ended<'_> {
    fn field(&self, id: FieldId) -> Option<&[u8]> {
        self.request?.head.get(self.request?.bytes, id)
    }
}

impl Exchange {
    pub(super) fn log_received(&self, ask: &Ask<'_>) {
        if !self.view.logs_requests {
            return;
        }
        let mut log = self.gateway.log.borrow_mut();
        let line = log.event(Level::Info, events::REQUEST_RECEIVED, ask.cx.unix_ms);
        let Some(mut line) = line else {
            return;
        };
        let Request { head, bytes, .. } = ask.request;
        line.bytes("request_id", self.kept.id.as_bytes());
        line.str("client_ip", self.kept.client_text.as_str());
        line.bytes("method", head.method.of(bytes))
            .bytes("path", head.path.of(bytes))
            .num("compatible_endpoints", self.candidates.len() as u64);
        let agent = head.get(bytes, FieldId::UserAgent);
        if let Some(agent) = agent.filter(|agent| !agent.is_empty()) {
            line.bytes("user_agent", agent);
        }
        self.key_fields(&mut line);
        line.some("model", &self.kept.model);
        if let RequestBody::Length(bytes) = ask.request.framing.body {
            line.positive("content_length", bytes);
        }
        if let Some(mode) = self.dialect.first_mode() {
            line.str("translator_mode", mode);
        }
    }

    pub(super) fn log_dispatching(
        &self,
        ask: &Ask<'_>,
        endpoint: &Endpoint,
        target: Option<DialectTarget<'_>>,
    ) {
        if !self.view.logs_requests {
            return;
        }
        let mut log = self.gateway.log.borrow_mut();
        let line = log.event(Level::Info, events::REQUEST_DISPATCHING, ask.cx.unix_ms);
        if let Some(mut line) = line {
            let path = target.map(|target| target.path.as_bytes());
            line.bytes("request_id", self.kept.id.as_bytes())
                .str("endpoint", endpoint.name())
                .bytes("target", path.unwrap_or_else(|| self.rest(&ask.request)))
                .str("model", self.sent_model().unwrap_or(""));
            self.key_fields(&mut line);
        }
    }

    /// The key of the request, if access is on.
    fn key_fields(&self, line: &mut LogLine<'_>) {
        if let Some(key) = &self.key {
            let texts = [("key", &*key.name), ("policy", &*key.policy.name)];
            line.fields(&self.kept.key_fields, &texts);
        }
    }

    /// Logs and writes what the dialect has noted.
    pub(super) fn take_notes(&mut self, cx: &Cx<'_>) {
        for note in self.dialect.notes() {
            let mut log = self.gateway.log.borrow_mut();
            match note {
                Note::NotTranslated(reason) => {
                    let line = log.event(Level::Warn, events::NOT_TRANSLATED, cx.unix_ms);
                    if let Some(mut line) = line {
                        line.str("request_id", self.kept.id.as_str())
                            .str("reason", &reason);
                    }
                }
                Note::Dropped(translator, field) => {
                    self.gateway
                        .recorder
                        .borrow_mut()
                        .dropped(translator, &field);
                    let now_ms = self.gateway.common.clock_ms(cx.now);
                    if !self.gateway.common.dropped.is_due(&field, now_ms) {
                        continue;
                    }
                    let line = log.event(Level::Warn, events::FIELD_DROPPED, cx.unix_ms);
                    if let Some(mut line) = line {
                        line.str("request_id", self.kept.id.as_str())
                            .str("translator", translator)
                            .str("field", &field);
                    }
                }
                Note::SessionReplaced => {
                    let line = log.event(Level::Warn, events::SESSION_REPLACED, cx.unix_ms);
                    if let Some(mut line) = line {
                        line.str("request_id", self.kept.id.as_str());
                    }
                }
                Note::Record(record) => self.gateway.common.records.write(record),
            }
        }
    }

    /// Counts one attempt.
    pub(super) fn record_attempt(&self, cx: &Cx<'_>, index: usize, end: AttemptEnd, bytes: u64) {
        let since_arrival = |at: Instant| at.saturating_duration_since(cx.arrived);
        self.gateway.recorder.borrow_mut().attempt(&AttemptRecord {
            endpoint_id: self.view.leased(index).id,
            model: self.sent_model(),
            outcome: match end {
                AttemptEnd::Whole if self.dialect.has_failed() || self.is_auth_refused => {
                    stats::Outcome::Failure
                }
                AttemptEnd::Whole => stats::Outcome::Success,
                // The endpoint has nothing to do with it (docs/contract/balancing.md#9.3), or its
                // check has failed and not the request (docs/contract/operations.md#5).
                AttemptEnd::Failed(Fault::Local | Fault::Down | Fault::Revoked) => {
                    stats::Outcome::Cancelled
                }
                AttemptEnd::Failed(_) => stats::Outcome::Failure,
                AttemptEnd::Abandoned => stats::Outcome::Cancelled,
            },
            status: self.upstream_status,
            bytes,
            latency_ms: millis(since_arrival(cx.now)),
            first_byte_us: self.times.responded.map(|at| micros(since_arrival(at))),
            at_ms: self.gateway.common.clock_ms(cx.now),
        });
    }

    /// The request is over.
    pub(super) fn record(&mut self, cx: &Cx<'_>, request: Option<&Request<'_>>, done: &Done) {
        let view = Rc::clone(&self.view);
        let extractor = self
            .endpoint
            .and_then(|at| view.endpoint(at))
            .map(|endpoint| &endpoint.extractor);
        let mut tail = self.kept.tail.take();
        let figures = match (extractor, &mut tail) {
            (Some(extractor), Some(tail)) if self.reads_figures => extractor.read(tail),
            _ => None,
        };
        let ended = Ended {
            cx,
            request,
            done,
            figures: figures.as_ref(),
        };
        let used = self.used(&UsedBy {
            request,
            outcome: done.outcome,
            response_bytes: done.response_bytes,
            figures: ended.figures,
        });
        self.learn(cx, ended.figures, done.response_bytes);
        if done.outcome == Outcome::Relayed {
            self.note_unloaded(cx.now);
        }
        let is_cut = matches!(done.outcome, Outcome::Broken(_)) || self.dialect.has_failed();
        let has_failed = self.status >= 500 || is_cut;
        if self.route.is_proxied() {
            self.count_usage(UsageEnd {
                unix_ms: cx.unix_ms,
                total: done.total,
                has_failed,
                used,
                cached: ended.figures.map_or(0, |figures| figures.usage.cached),
            });
            self.count(&ended);
            self.end_dialect(&ended);
            self.log_outcome(&ended);
            if done.outcome == Outcome::Relayed {
                self.log_metrics(&ended);
            }
        }
        self.log_access(&ended);
        let usage = figures.as_ref().map(|figures| figures.usage);
        if usage.is_some_and(|usage| usage.is_rejected) {
            let rejected = &self.gateway.common.usage_rejected;
            rejected.fetch_add(1, Ordering::Relaxed);
        }
        if self.kept.allowance.is_some() {
            self.settle(cx, used, has_failed);
        }
        drop(figures);
        if let Some(tail) = &mut tail {
            tail.end();
        }
        self.kept.tail = tail;
        if let Some(session) = self.session.take()
            && self.endpoint.is_some()
        {
            self.gateway.common.sticky.count(&session);
        }
    }

    /// Counts the translator's part of a request (docs/contract/translation.md#14).
    fn end_dialect(&mut self, ended: &Ended<'_>) {
        let whole = matches!(ended.done.outcome, Outcome::Relayed | Outcome::Local);
        let Some(summary) = self.dialect.end(self.status, whole) else {
            return;
        };
        self.take_notes(ended.cx);
        self.gateway
            .recorder
            .borrow_mut()
            .translator(&TranslatorEnd {
                translator: summary.translator,
                passthrough: summary.passthrough,
                streaming: summary.streaming,
                success: whole && self.status < 400 && !summary.failed,
                latency_ms: millis(ended.done.total),
                fallback: summary.fallback.map(TranslatorFallback::from),
            });
    }

    fn count(&self, ended: &Ended<'_>) {
        let Ended {
            request,
            done,
            figures,
            ..
        } = *ended;
        let text = |part: fn(&RequestHead) -> Span| {
            let bytes = request.map(|request| part(request.head).of(request.bytes));
            // What is not UTF-8 is shown as empty.
            std::str::from_utf8(bytes.unwrap_or(b"")).unwrap_or("")
        };
        let endpoint = self.endpoint();
        let outcome = match done.outcome {
            Outcome::ClientLeft | Outcome::ClientStalled => stats::Outcome::Cancelled,
            Outcome::Broken(_) => stats::Outcome::Failure,
            Outcome::Relayed if self.dialect.has_failed() => stats::Outcome::Failure,
            Outcome::Relayed => stats::Outcome::Success,
            Outcome::Local if self.is_served_here => stats::Outcome::Success,
            Outcome::Local if self.status >= 500 => stats::Outcome::Failure,
            Outcome::Local => stats::Outcome::Refused,
        };
        let fallback = self
            .routing
            .is_some_and(|routing| routing.verdict == RoutingDecision::Fallback);
        let route = match (endpoint, self.attempts) {
            (None, _) => ServedBy::Unserved,
            _ if fallback => ServedBy::Fallback,
            (_, 0 | 1) => ServedBy::Hit,
            _ => ServedBy::Miss,
        };
        self.gateway.recorder.borrow_mut().request(&RequestEnd {
            request_id: self.kept.id.as_str(),
            method: text(|head| head.method),
            path: text(|head| head.path),
            model: self.sent_model(),
            retries: self.attempts.saturating_sub(1),
            endpoint_id: endpoint.map(|endpoint| endpoint.id),
            client: self.client.address(),
            outcome,
            status: (self.status > 0).then_some(self.status),
            bytes: done.response_bytes,
            latency_ms: millis(done.total),
            first_byte_us: done.first_byte.map(micros),
            route,
            routing: self.routing.map(|routing| stats::Routing {
                strategy: routing.strategy,
                decision: routing.verdict.as_str(),
                reason: match routing.reason {
                    Reason::Word(word) => word,
                    Reason::Alias { .. } => "alias",
                },
            }),
            streaming: self.findings.stream,
            figures,
        });
    }

    fn log_outcome(&self, ended: &Ended<'_>) {
        let Ended {
            cx,
            request,
            done,
            figures,
        } = *ended;
        let mut log = self.gateway.log.borrow_mut();
        let endpoint = self.endpoint();
        let (level, msg) = match done.outcome {
            Outcome::Relayed | Outcome::ClientLeft | Outcome::ClientStalled => {
                (Level::Info, events::REQUEST_COMPLETED)
            }
            Outcome::Local if self.is_served_here => (Level::Info, events::REQUEST_COMPLETED),
            Outcome::Local if self.status < 500 || endpoint.is_none() => {
                (Level::Warn, events::REQUEST_REJECTED)
            }
            Outcome::Local | Outcome::Broken(_) => (Level::Error, events::REQUEST_FAILED),
        };
        if level == Level::Info && !self.view.logs_requests {
            return;
        }
        let Some(mut line) = log.event(level, msg, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", self.kept.id.as_bytes());
        if let Some(endpoint) = endpoint {
            line.str("endpoint", endpoint.name());
        }
        self.key_fields(&mut line);
        if level == Level::Info {
            let status = match done.outcome {
                Outcome::ClientLeft => "client_left",
                Outcome::ClientStalled => "client_stalled",
                _ => "completed",
            };
            line.num("duration_ms", millis(done.total))
                .str("status", status)
                .some("model", &self.kept.model)
                .positive("total_bytes", done.response_bytes);
        } else if level == Level::Warn {
            line.str("client_ip", self.kept.client_text.as_str());
            if let Some(request) = request {
                line.bytes("path", request.head.path.of(request.bytes));
            }
            line.num("status", self.status.into())
                .num("duration_ms", millis(done.total))
                .some("model", &self.kept.model);
        } else {
            let fault = match done.outcome {
                Outcome::Broken(fault) => Some(fault),
                _ => self.failed_by,
            };
            line.str("error", fault.map_or("no response", Fault::as_str));
            self.metrics_fields(&mut line, ended);
        }
        if let Some(mode) = self.dialect.mode() {
            line.str("translator_mode", mode);
        }
        if let Some(figures) = figures {
            provider_fields(&mut line, figures);
            if msg == events::REQUEST_FAILED {
                more_provider_fields(&mut line, figures);
            }
        }
        self.log_decisions(&mut line, ended);
    }

    /// Adds how the request was routed, and its sticky session.
    fn log_decisions(&self, line: &mut LogLine<'_>, ended: &Ended<'_>) {
        self.routing_log_fields(line);
        if let Some(session) = &self.session {
            line.str("sticky_outcome", session.outcome().as_str());
            let source = session.key().map(|key| key.source());
            if source == Some(StickySource::SessionHeader)
                && let Some(own) = ended.field(X_OLLA_SESSION_ID)
            {
                line.bytes("session_id", own);
            }
        }
        if let Some(reason) = self.dialect.fallback() {
            line.str("fallback_reason", TranslatorFallback::from(reason).as_str());
        }
    }

    /// Where the time of a request went.
    fn log_metrics(&self, ended: &Ended<'_>) {
        let Ended { cx, figures, .. } = *ended;
        let Some(endpoint) = self.endpoint() else {
            return;
        };
        let mut log = self.gateway.log.borrow_mut();
        let Some(mut line) = log.event(Level::Debug, events::REQUEST_METRICS, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", self.kept.id.as_bytes())
            .str("endpoint", endpoint.name());
        self.key_fields(&mut line);
        self.metrics_fields(&mut line, ended);
        if let Some(figures) = figures {
            provider_fields(&mut line, figures);
            more_provider_fields(&mut line, figures);
        }
    }

    fn log_access(&self, ended: &Ended<'_>) {
        let Ended {
            cx, request, done, ..
        } = *ended;
        if !self.view.plan().server.request_logging {
            return;
        }
        let quiet = matches!(
            self.route.kind,
            RouteKind::Internal | RouteKind::Version | RouteKind::Dashboard
        ) && (self.status < 300 || self.status == 304);
        let mut log = self.gateway.log.borrow_mut();
        let level = if quiet { Level::Debug } else { Level::Info };
        let Some(mut line) = log.access(level, cx.unix_ms) else {
            return;
        };
        line.bytes("request_id", self.kept.id.as_bytes());
        line.str("remote_addr", self.kept.client_text.as_str());
        self.key_fields(&mut line);
        if let Some(Request { head, bytes, .. }) = request {
            let bytes = *bytes;
            let field = |id| head.get(bytes, id).unwrap_or(b"");
            line.bytes("method", head.method.of(bytes))
                .bytes("path", head.path.of(bytes));
            match std::str::from_utf8(head.query.of(bytes)) {
                Ok("") => line.str("query", ""),
                Ok(query) => line.str("query", &redact::query(query)),
                Err(_) => line.str("query", "[not UTF-8]"),
            };
            line.num("status", self.status.into())
                .num("request_bytes", done.request_bytes)
                .num("response_bytes", done.response_bytes)
                .num("duration_ms", millis(done.total))
                .bytes("user_agent", field(FieldId::UserAgent));
            match std::str::from_utf8(field(FieldId::Referer)) {
                Ok("") => line.str("referer", ""),
                Ok(referer) => line.str("referer", &redact::referer(referer)),
                Err(_) => line.str("referer", "[not UTF-8]"),
            };
            line.bytes("content_type", field(FieldId::ContentType))
                .bytes("accept", field(FieldId::Accept));
        } else {
            line.num("status", self.status.into())
                .num("duration_ms", millis(done.total));
        }
    }

    fn routing_log_fields(&self, line: &mut LogLine<'_>) {
        if let Some(routing) = &self.routing {
            line.str("routing_strategy", routing.strategy)
                .str("routing_action", routing.verdict.as_str());
            match routing.reason {
                Reason::Word(word) => line.str("routing_reason", word),
                reason => line.str(
                    "routing_reason",
                    &reason.show(&self.view.snapshot.aliases).to_string(),
                ),
            };
        }
    }

    /// The fields of `Request metrics`. The engine passes the time of each step, so no clock is
    /// read for them.
    fn metrics_fields(&self, line: &mut LogLine<'_>, ended: &Ended<'_>) {
        let Ended { cx, done, .. } = *ended;
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => millis(to.saturating_duration_since(from)),
            _ => 0,
        };
        let (times, arrived) = (&self.times, Some(cx.arrived));
        let total = millis(done.total);
        let first_data = done.first_byte.map(millis);
        line.str("model", self.sent_model().unwrap_or(""))
            .str("client_ip", self.kept.client_text.as_str())
            .num("total_bytes", done.response_bytes)
            .num("duration_ms", total)
            .num("latency_ms", total)
            .num("request_processing_ms", between(arrived, times.dispatched))
            .num(
                "backend_response_ms",
                between(times.dispatched, times.responded),
            )
            .num("first_data_ms", first_data.unwrap_or(0))
            .num(
                "streaming_ms",
                first_data.map_or(0, |first| total.saturating_sub(first)),
            )
            .num("header_processing_ms", between(arrived, times.headed))
            // The path is resolved while the head is handled.
            .num("path_resolution_ms", 0)
            .num("selection_ms", between(times.routed, times.dispatched));
    }
}

fn provider_fields(line: &mut LogLine<'_>, figures: &ProviderFigures<'_>) {
    line.positive("provider_total_ms", figures.total_ms)
        .positive("provider_prompt_tokens", figures.prompt_tokens)
        .positive("provider_completion_tokens", figures.completion_tokens)
        .positive("provider_total_tokens", figures.total_tokens);
    if figures.tokens_per_second > 0.0 {
        line.float("provider_tokens_per_second", figures.tokens_per_second);
    }
    line.some("provider_model", figures.model.as_deref().unwrap_or(""));
}

fn more_provider_fields(line: &mut LogLine<'_>, figures: &ProviderFigures<'_>) {
    line.positive("provider_ttft_ms", figures.first_token_ms)
        .positive("provider_prompt_ms", figures.prompt_ms)
        .positive("provider_generation_ms", figures.generation_ms)
        .some(
            "provider_finish_reason",
            figures.finish_reason.as_deref().unwrap_or(""),
        );
}
