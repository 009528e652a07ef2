//! Leaving an endpoint for another after a status that says "not now", and the cool-downs that such
//! a status begins.
//!
//! Contract: docs/contract/balancing.md#9.1

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use olla_engine::exchange::Fault;
use olla_engine::h1::FieldId;
use olla_engine::handler::{Ask, AttemptEnd, Cx, Local, Response};

use super::exchange::Exchange;
use super::progress::Left;
use crate::clock::millis;
use crate::dialects::{AccessError, ApiFamily, Error};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::fleet::breaker::{self, State};
use crate::fleet::cooling::CoolDown;
use crate::log::{Level, events};
use crate::operations::stats::LeftBecause;
use crate::routing::retry::pause::pause;
use crate::routing::retry::{Attempts, RequestKind, may_give_up, says_not_now};

/// The field in which servers say exactly how long they want to be left alone.
const RETRY_AFTER_MS: &[u8] = b"retry-after-ms";

impl Exchange {
    /// Whether the response is given up for another endpoint. Notes what its status says about the
    /// endpoint in any case.
    pub(super) fn gives_up(&mut self, ask: &Ask<'_>, response: &Response<'_>) -> bool {
        let status = response.head.status;
        if status >= 400 {
            let cooldown = self.view.plan().proxy.retry.cooldown;
            let pause = cool_down(response, cooldown, ask.cx.unix_ms);
            return self.gives_up_error(ask, status, pause);
        }
        if let Some((index, endpoint)) = self.endpoint.zip(self.endpoint()) {
            endpoint.live.cooling.end(|| self.name_at(index));
        }
        false
    }

    #[cold]
    pub(super) fn gives_up_error(
        &mut self,
        ask: &Ask<'_>,
        status: u16,
        cool_down: Duration,
    ) -> bool {
        let view = Rc::clone(&self.view);
        let plan = &view.plan().proxy.retry;
        let head = ask.request.head;
        let request = RequestKind {
            method: head.method.of(ask.request.bytes),
            path: self.rest(&ask.request),
            is_messages: self.route.family() == ApiFamily::Anthropic,
        };
        let Some(index) = self.endpoint else {
            return false;
        };
        if !self.is_auth_refused && !says_not_now(plan, status, request) {
            return false;
        }
        let pause = if self.is_auth_refused {
            Duration::ZERO
        } else {
            self.begin_cool_down(ask.cx, index, cool_down);
            cool_down
        };
        let now_ms = self.gateway.common.clock_ms(ask.cx.now);
        let attempts = Attempts {
            tried: self.tried.len(),
            given_up: self.given_up.into(),
            dropped: self.dropped_by.iter().flatten().count(),
            has_other: self.has_other(ask.cx.now, true),
        };
        if !may_give_up(plan, attempts) {
            return false;
        }
        let requests = self.gateway.proxied.take();
        let budget = &self.gateway.common.retry_budget;
        if !budget.take(now_ms, requests, plan.budget_percent) {
            self.gateway.recorder.borrow_mut().retry_budget_exhausted();
            return false;
        }
        self.given_up = self.given_up.saturating_add(1);
        self.left = Some(Left {
            index,
            because: LeftBecause::Status,
            status: Some((status, pause)),
        });
        true
    }

    /// The head of a response has arrived, which is a success for the breaker of its endpoint,
    /// whatever its status (docs/contract/balancing.md#10). With access on a 401 or 403 says nothing
    /// of the client, whose key ends here, but that the endpoint refuses the gateway's own
    /// credentials: a failure in its statistics (docs/contract/access.md#8.2). If it counted for the
    /// breaker, a client whose requests an endpoint forbids could take the endpoint from all others.
    pub(super) fn judge_status(&mut self, ask: &Ask<'_>, status: u16) {
        self.is_auth_refused = matches!(status, 401 | 403) && self.ends_keys();
        let Some(lease) = &mut self.lease else {
            return;
        };
        lease.succeeded();
        if self.is_auth_refused {
            let index = lease.endpoint();
            self.note_auth_refused(ask, index, status);
        } else {
            self.note_status(ask, status);
        }
    }

    /// The response to a request of which the endpoint has refused the gateway's credentials, with no
    /// other endpoint left.
    pub(super) fn auth_refused(&mut self, ask: &Ask<'_>, local: &mut Local) {
        let name = self.endpoint().map(Endpoint::name).unwrap_or_default();
        let message = format!("The endpoint {name} refused the gateway's credentials.");
        let mut error = Error::new(502, "bad_gateway", "ENDPOINT_AUTH_FAILED", message);
        error.access = Some(AccessError::Plain);
        self.error(ask.cx, Some(&ask.request), &error, local);
    }

    fn begin_cool_down(&self, cx: &Cx<'_>, index: usize, pause: Duration) {
        let common = &self.gateway.common;
        let now_ms = common.clock_ms(cx.now);
        let until_ms = now_ms.saturating_add(millis(pause));
        self.view.leased(index).live.cooling.begin(
            now_ms,
            CoolDown {
                model: self.name_at(index).into(),
                until_ms,
                until_unix_ms: cx.unix_ms.saturating_add(millis(pause)),
            },
        );
        common.cools_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// Whether the request leaves its endpoint, which a health check has found dead since it was
    /// picked. With no other candidate it waits on (docs/contract/balancing.md#9.2).
    pub(super) fn leaves_dead_endpoint(&self, now: Instant) -> bool {
        let is_dead = |endpoint: &Endpoint| endpoint.live.deaths() != self.deaths;
        self.endpoint().is_some_and(is_dead) && self.may_go_on() && self.has_other(now, false)
    }

    /// Whether a candidate is left that was not tried, has a rate token, and is not known to be
    /// away; if `at_once`, it must not cool down and its breaker must be closed, else its breaker
    /// must not be open. The token is not taken: if another request is faster, the client gets the
    /// gateway's 429.
    pub(super) fn has_other(&self, now: Instant, at_once: bool) -> bool {
        let now_ms = self.gateway.common.clock_ms(now);
        let now = self.gateway.common.nanos(now);
        let mut left = self.candidates.minus(&self.tried);
        if at_once {
            left = left.minus(&self.cooling(now_ms));
        }
        let is_ready = |index: usize| {
            self.view.endpoint(index).is_some_and(|endpoint| {
                let bucket = endpoint.bucket.as_ref();
                let takes = match breaker::state(&endpoint.live, now_ms) {
                    State::Closed => true,
                    State::HalfOpen => !at_once,
                    State::Open => false,
                };
                takes && bucket.is_none_or(|bucket| bucket.peek(now).remaining > 0)
            }) && !self.is_known_away(index)
        };
        left.iter().any(is_ready)
    }

    /// The candidates that are left alone now. While nothing cools down anywhere, this is one load.
    pub(super) fn cooling(&self, now_ms: u64) -> EndpointSet {
        let until_ms = self.gateway.common.cools_until_ms.load(Ordering::Relaxed);
        if until_ms <= now_ms {
            return EndpointSet::EMPTY;
        }
        let cools = |index: &usize| {
            self.view.endpoint(*index).is_some_and(|endpoint| {
                let cooling = &endpoint.live.cooling;
                cooling.covers(now_ms, || self.name_at(*index))
            })
        };
        self.candidates.iter().filter(cools).collect()
    }

    /// The name that an endpoint has for the requested model; empty without a model.
    pub(super) fn name_at(&self, index: usize) -> &str {
        let model = self.kept.model.as_str();
        let snapshot = &self.view.snapshot;
        let alias = self.alias.as_ref();
        alias
            .and_then(|alias| snapshot.aliases.real_name(alias, &snapshot.models, index))
            .or_else(|| snapshot.models.spelling(index, model))
            .unwrap_or(model)
    }

    /// How an attempt that ended counts: a response that was given up was complete for its endpoint,
    /// and one that says that the model is being loaded is no failure
    /// (docs/contract/scheduling.md#3).
    pub(super) fn counted_end(&self, end: AttemptEnd) -> AttemptEnd {
        match self.left {
            Some(Left {
                because: LeftBecause::Status,
                ..
            }) => AttemptEnd::Whole,
            _ if self.kept.schedule.passes_loading => AttemptEnd::Abandoned,
            _ => end,
        }
    }

    /// An attempt has failed in a way by which the request leaves its endpoint, if another is left.
    pub(super) fn note_left(&mut self, index: usize, fault: Fault) {
        self.left = Some(Left {
            index,
            because: match fault {
                Fault::Down => LeftBecause::Down,
                _ => LeftBecause::Connection,
            },
            status: None,
        });
        if matches!(fault, Fault::Dropped(_)) {
            let free = self.dropped_by.iter_mut().find(|place| place.is_none());
            if let Some(place) = free {
                *place = Some(index);
            }
        }
    }

    /// Two endpoints closed the connection on the whole request, so that it is sent to no third one
    /// (docs/contract/balancing.md#9.3).
    pub(super) fn closed_by(&self) -> Option<[&str; 2]> {
        let [Some(one), Some(two)] = self.dropped_by else {
            return None;
        };
        Some([one, two].map(|index| self.view.leased(index).name()))
    }

    /// The next endpoint was picked: records which one was left for it, and why.
    pub(super) fn record_left(&mut self, cx: &Cx<'_>, next: usize) {
        let Some(left) = self.left.take() else {
            return;
        };
        let endpoint = self.view.leased(left.index);
        let mut recorder = self.gateway.recorder.borrow_mut();
        recorder.left(endpoint.id, left.because);
        let mut log = self.gateway.log.borrow_mut();
        let line = log.event(Level::Info, events::ENDPOINT_LEFT, cx.unix_ms);
        if let Some(mut line) = line {
            line.str("request_id", self.kept.id.as_str())
                .str("endpoint", endpoint.name())
                .str("model", self.name_at(left.index))
                .str("reason", left.because.as_str());
            if let Some((status, pause)) = left.status {
                line.num("status_code", status.into());
                if millis(pause) > 0 {
                    line.num("cooldown_ms", millis(pause));
                }
            }
            line.str("next_endpoint", self.view.leased(next).name());
        }
    }
}

/// The cool-down that a response asks for.
pub(super) fn cool_down(response: &Response<'_>, default: Duration, unix_ms: u64) -> Duration {
    let Response { head, bytes } = *response;
    let exact = head
        .fields
        .iter()
        .find(|each| each.name.of(bytes).eq_ignore_ascii_case(RETRY_AFTER_MS))
        .map(|each| each.value.of(bytes));
    pause(
        exact,
        head.get(bytes, FieldId::RetryAfter),
        default,
        unix_ms,
    )
}
