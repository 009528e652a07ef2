//! The statistics and their rules.
//!
//! Each core counts attempts and requests that have ended in a [`Recorder`] of its own and hands a
//! [`Delta`] over about every 50 ms. The pages thread merges it into [`Totals`], which the pages
//! show. Nothing here reads a clock or takes a lock.
//!
//! The rules (docs/contract/operations.md#5):
//! - An attempt counts for its endpoint, a client request for the system and for the model that was
//!   sent; both are counted when they end.
//! - A relayed status of 500 and above is a failure, a lower one is not.
//! - A request that ended because its client disconnected has neither failed nor succeeded and has
//!   no latency. It does not lower the success rate, which is the share of requests that did not
//!   fail.
//! - A request that the gateway refuses with a 4xx of its own is not counted; a 413 or 429 counts
//!   as a violation.
//! - Bytes are those sent to the client, including those of failed responses.
//! - No counter of the system decreases while the process lives, although models and endpoints are
//!   forgotten.

mod buckets;
mod recent;
mod recorder;
mod sample;
mod scheduling;
#[cfg(test)]
mod tests;
mod totals;
mod window;

use std::net::IpAddr;

use olla_engine::rt::Exhausted;

use crate::config::MAX_ENDPOINTS;
use crate::providers::figures::ProviderFigures;
pub(super) use buckets::{RATIOS, Ratios, TIMES_MS, Times};
pub(crate) use recent::Recent;
pub(crate) use recorder::{Delta, Recorder};
pub(crate) use scheduling::{CachedPrefix, QueueRefusal};
pub(super) use scheduling::{FirstTokens, SchedulingCounts};
pub(super) use totals::{EndpointTotals, ModelTotals, PairTotals, Quantiles};
pub(crate) use totals::{Totals, TranslatorCounts};

/// Most models kept (docs/contract/operations.md#5, retention).
pub(crate) const MODELS_MAX: usize = 1000;

/// The longest model name with statistics of its own, in bytes; requests for a model with a longer
/// name count only in the totals.
pub(crate) const MODEL_NAME_BYTES_MAX: usize = 512;

/// Most client addresses kept for one model (docs/contract/operations.md#4, stats/models).
pub(crate) const CLIENTS_MAX: usize = 100;

/// Most rate-limited addresses kept (docs/contract/operations.md#4, status).
pub(crate) const BLOCKED_IPS_MAX: usize = 10_000;

/// The number of last requests that are kept.
pub(crate) const RECENT_MAX: usize = 200;

/// Most endpoints kept: those of the current snapshot and of earlier ones.
const ENDPOINTS_MAX: usize = 2 * MAX_ENDPOINTS;

/// The name of a resource that is missing for another connection, as in logs and metrics.
pub(crate) const fn resource_name(resource: Exhausted) -> &'static str {
    match resource {
        Exhausted::ProcessFiles => "emfile",
        Exhausted::SystemFiles => "enfile",
        Exhausted::Memory => "memory",
        Exhausted::Ports => "ports",
    }
}

/// How an attempt or a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response was relayed to its end. With a status of 500 and above it counts as a failure.
    Success,
    /// Refused, reset, timed out or cut before its end; for a request, also a 5xx that the
    /// gateway made.
    Failure,
    /// The client disconnected.
    Cancelled,
    /// The gateway refused the request with a 4xx: shown among the last requests, but not counted.
    Refused,
}

impl Outcome {
    /// The outcome as which it is counted (docs/contract/operations.md#5, backend errors).
    pub(super) const fn judged(self, status: Option<u16>) -> Self {
        match (self, status) {
            (Self::Success, Some(500..)) => Self::Failure,
            _ => self,
        }
    }

    /// The name on `/internal/stats/requests`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

/// The end of one attempt on one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptEnd<'a> {
    /// [`Endpoint::id`](crate::fleet::Endpoint::id).
    pub endpoint_id: u32,
    /// The model name sent to it.
    pub model: Option<&'a str>,
    /// How it ended.
    pub outcome: Outcome,
    /// Status of its response, if there was one.
    pub status: Option<u16>,
    /// Bytes of its response's body that were sent to the client.
    pub bytes: u64,
    /// From the request's arrival to the last byte, in milliseconds.
    pub latency_ms: u64,
    /// From the request's arrival to the first byte of its response, in microseconds.
    pub first_byte_us: Option<u64>,
    /// When it ended, in milliseconds since the process started.
    pub at_ms: u64,
}

/// Why a request left an endpoint for another (docs/contract/operations.md#4,
/// `olla_retries_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftBecause {
    /// The connection failed.
    Connection,
    /// The status of its response said "not now".
    Status,
    /// A health check found it dead while the request waited.
    Down,
}

impl LeftBecause {
    /// Every reason.
    pub(super) const ALL: [Self; 3] = [Self::Connection, Self::Status, Self::Down];

    /// The value of the metric's label and of the log's `reason`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Status => "status",
            Self::Down => "down",
        }
    }
}

/// Which of the attempted endpoints served a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServedBy {
    /// The first.
    Hit,
    /// Another.
    Miss,
    /// Any, and the routing decision was `fallback`.
    Fallback,
    /// None.
    Unserved,
}

/// The values of the `X-Olla-Routing-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routing {
    /// The value of `X-Olla-Routing-Strategy`.
    pub strategy: &'static str,
    /// The value of `X-Olla-Routing-Decision`.
    pub decision: &'static str,
    /// The value of `X-Olla-Routing-Reason`.
    pub reason: &'static str,
}

/// The end of one client request on a proxied or translated route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestEnd<'a> {
    /// Its id.
    pub request_id: &'a str,
    /// Its method.
    pub method: &'a str,
    /// The requested path without the query, which may contain secrets.
    pub path: &'a str,
    /// The model name sent to the endpoint; without an endpoint, the requested name.
    pub model: Option<&'a str>,
    /// Attempts after the first.
    pub retries: u32,
    /// The endpoint of the last attempt; `None`: no endpoint was tried, and the request counts for
    /// no model.
    pub endpoint_id: Option<u32>,
    /// The client's address (docs/contract/surface.md#10.3).
    pub client: IpAddr,
    /// How it ended.
    pub outcome: Outcome,
    /// Status sent to the client; `None`: the client disconnected before.
    pub status: Option<u16>,
    /// Bytes of the response's body that were sent.
    pub bytes: u64,
    /// From arrival to the last byte, in milliseconds.
    pub latency_ms: u64,
    /// From arrival to the first byte of the response's body, in microseconds.
    pub first_byte_us: Option<u64>,
    /// Which of the attempted endpoints served it.
    pub route: ServedBy,
    /// The routing decision, if model routing took part.
    pub routing: Option<Routing>,
    /// Whether the request asked for a stream.
    pub streaming: bool,
    /// The metrics that the response contained.
    pub figures: Option<&'a ProviderFigures<'a>>,
}

/// Why a credential was refused (docs/contract/access.md#16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// None was sent.
    Missing,
    /// No key has it.
    Unknown,
    /// The key's time is over.
    Expired,
    /// The key was switched off.
    Disabled,
    /// The token is not valid.
    Token,
    /// Too many were refused from the address.
    TooMany,
    /// The key may not administer.
    Admin,
    /// A session without its header, or from a foreign origin.
    Csrf,
}

impl KeyRefusal {
    /// Every reason, in the order of the metric.
    pub(crate) const ALL: [Self; 8] = [
        Self::Missing,
        Self::Unknown,
        Self::Expired,
        Self::Disabled,
        Self::Token,
        Self::TooMany,
        Self::Admin,
        Self::Csrf,
    ];

    /// The word of logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Token => "token",
            Self::TooMany => "too_many",
            Self::Admin => "admin",
            Self::Csrf => "csrf",
        }
    }
}

/// A refusal that counts as a violation (docs/contract/operations.md#5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// 429, with the address of the client.
    RateLimit(IpAddr),
    /// 413, including chunked bodies that were cut at the limit.
    Size,
}

/// Why a message was translated and not passed through (docs/contract/translation.md#14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TranslatorFallback {
    /// No endpoint can serve the request.
    NoCompatibleEndpoints,
    /// The endpoints do not speak its dialect.
    CannotPassthrough,
}

impl From<crate::dialects::Fallback> for TranslatorFallback {
    fn from(fallback: crate::dialects::Fallback) -> Self {
        match fallback {
            crate::dialects::Fallback::NoCompatibleEndpoints => Self::NoCompatibleEndpoints,
            crate::dialects::Fallback::CannotPassthrough => Self::CannotPassthrough,
        }
    }
}

impl TranslatorFallback {
    /// The value of the log's `fallback_reason`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoCompatibleEndpoints => "no_compatible_endpoints",
            Self::CannotPassthrough => "cannot_passthrough",
        }
    }
}

/// The end of one request of a translator (docs/contract/translation.md#14).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TranslatorEnd {
    /// Its name, such as `anthropic`.
    pub translator: &'static str,
    /// Whether it was passed through; else it was translated.
    pub passthrough: bool,
    /// Whether a stream was asked for, once the request was known to be valid.
    pub streaming: bool,
    /// Status below 400 and, for streams, an end without `error`.
    pub success: bool,
    /// From arrival to the last byte, in milliseconds.
    pub latency_ms: u64,
    /// Why it was translated.
    pub fallback: Option<TranslatorFallback>,
}

/// Attempts or requests by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) successes: u64,
    pub(super) failures: u64,
    /// Sum over successes.
    pub(super) latency_ms: u64,
}

impl Tally {
    fn count(&mut self, outcome: Outcome, latency_ms: u64) {
        self.requests += 1;
        match outcome {
            Outcome::Success => {
                self.successes += 1;
                self.latency_ms = self.latency_ms.saturating_add(latency_ms);
            }
            Outcome::Failure => self.failures += 1,
            Outcome::Cancelled | Outcome::Refused => {}
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.successes += more.successes;
        self.failures += more.failures;
        self.latency_ms = self.latency_ms.saturating_add(more.latency_ms);
    }

    /// Mean latency of successes, rounded down.
    pub(super) const fn mean_ms(&self) -> u64 {
        match self.latency_ms.checked_div(self.successes) {
            Some(mean) => mean,
            None => 0,
        }
    }

    /// Those that did not fail.
    pub(super) const fn unfailed(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }
}

/// Counters of one endpoint's attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EndpointCounts {
    pub(super) tally: Tally,
    pub(super) bytes: u64,
    /// The shortest latency of a success; `None` without successes.
    pub(super) latency_min_ms: Option<u64>,
    /// The longest latency of a success.
    pub(super) latency_max_ms: u64,
    /// Requests that left the endpoint for another, indexed by [`LeftBecause`].
    pub(super) left: [u64; LeftBecause::ALL.len()],
    /// Responses by class, `2xx` to `5xx`.
    pub(super) classes: [u64; 4],
}

impl EndpointCounts {
    fn count(&mut self, end: &AttemptEnd<'_>) {
        let outcome = end.outcome.judged(end.status);
        self.tally.count(outcome, end.latency_ms);
        self.bytes = self.bytes.saturating_add(end.bytes);
        let class = usize::from(end.status.unwrap_or(0) / 100);
        if let Some(class) = class.checked_sub(2).and_then(|at| self.classes.get_mut(at)) {
            *class += 1;
        }
        if outcome == Outcome::Success {
            let min = self.latency_min_ms.unwrap_or(u64::MAX);
            self.latency_min_ms = Some(min.min(end.latency_ms));
            self.latency_max_ms = self.latency_max_ms.max(end.latency_ms);
        }
    }

    fn add(&mut self, more: &Self) {
        self.tally.add(&more.tally);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.latency_min_ms = match (self.latency_min_ms, more.latency_min_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.latency_max_ms = self.latency_max_ms.max(more.latency_max_ms);
        for (left, more) in self.left.iter_mut().zip(more.left) {
            *left += more;
        }
        for (class, more) in self.classes.iter_mut().zip(more.classes) {
            *class += more;
        }
    }
}

/// Counters of requests: of the whole system, or of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RequestCounts {
    pub(super) tally: Tally,
    pub(super) bytes: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) fallbacks: u64,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) total_tokens: u64,
    /// Generation time of the requests that reported one.
    pub(super) generation_ms: u64,
    /// Completion tokens of the same.
    pub(super) generation_tokens: u64,
}

impl RequestCounts {
    fn count(&mut self, end: &RequestEnd<'_>) {
        let outcome = end.outcome.judged(end.status);
        self.tally.count(outcome, end.latency_ms);
        self.bytes = self.bytes.saturating_add(end.bytes);
        match end.route {
            ServedBy::Hit => self.hits += 1,
            ServedBy::Miss => self.misses += 1,
            ServedBy::Fallback => self.fallbacks += 1,
            ServedBy::Unserved => {}
        }
        if let Some(figures) = end.figures {
            let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
            add(&mut self.prompt_tokens, figures.prompt_tokens);
            add(&mut self.completion_tokens, figures.completion_tokens);
            add(&mut self.total_tokens, figures.total_tokens);
            if figures.generation_ms > 0 {
                add(&mut self.generation_ms, figures.generation_ms);
                add(&mut self.generation_tokens, figures.completion_tokens);
            }
        }
    }

    fn add(&mut self, more: &Self) {
        self.tally.add(&more.tally);
        let sums = [
            (&mut self.bytes, more.bytes),
            (&mut self.hits, more.hits),
            (&mut self.misses, more.misses),
            (&mut self.fallbacks, more.fallbacks),
            (&mut self.prompt_tokens, more.prompt_tokens),
            (&mut self.completion_tokens, more.completion_tokens),
            (&mut self.total_tokens, more.total_tokens),
            (&mut self.generation_ms, more.generation_ms),
            (&mut self.generation_tokens, more.generation_tokens),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
    }

    /// Completion tokens per second of generation, with one decimal; 0 when none was reported.
    pub(super) fn tokens_per_second(&self) -> f64 {
        if self.generation_ms == 0 {
            return 0.0;
        }
        let speed = self.generation_tokens as f64 * 1000.0 / self.generation_ms as f64;
        (speed * 10.0).round() / 10.0
    }
}

/// Counters of one model on one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PairCounts {
    pub(super) tally: Tally,
    /// Failures since the last success.
    pub(super) consecutive_errors: u64,
    /// When the last success ended, in milliseconds since the process started; 0 = never.
    succeeded_ms: u64,
    /// The same of the last failure.
    failed_ms: u64,
}

impl PairCounts {
    fn count(&mut self, end: &AttemptEnd<'_>) {
        let outcome = end.outcome.judged(end.status);
        self.tally.count(outcome, end.latency_ms);
        match outcome {
            Outcome::Success => {
                self.consecutive_errors = 0;
                self.succeeded_ms = end.at_ms;
            }
            Outcome::Failure => {
                self.consecutive_errors += 1;
                self.failed_ms = end.at_ms;
            }
            Outcome::Cancelled | Outcome::Refused => {}
        }
    }

    /// Adds the counts of another core. Cores report in any order, so the times of the last success
    /// and failure decide which errors still count as consecutive.
    fn add(&mut self, more: &Self) {
        let succeeded_ms = self.succeeded_ms.max(more.succeeded_ms);
        let since = |counts: &Self| {
            let later = counts.succeeded_ms == succeeded_ms || counts.failed_ms > succeeded_ms;
            u64::from(later) * counts.consecutive_errors
        };
        self.consecutive_errors = since(self) + since(more);
        self.succeeded_ms = succeeded_ms;
        self.failed_ms = self.failed_ms.max(more.failed_ms);
        self.tally.add(&more.tally);
    }
}
