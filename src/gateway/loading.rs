//! A model that is being loaded: responses that say so, and the patience of requests for it.
//!
//! Contract: docs/contract/scheduling.md#3

use std::time::Instant;

use olla_engine::exchange::Timeouts;
use olla_engine::handler::{Ask, AtEnd, Local, Passing, Response};

use super::exchange::Exchange;
use super::retry::cool_down;
use crate::providers::figures::AnswerKind;
use crate::schedule::Warmth;
use crate::shared::ToControl;

/// The longest body of such a response. Instead of a longer one the client gets an error.
const LOADING_BYTES_MAX: usize = 1 << 20;

impl Exchange {
    /// Whether a response may say that the model is being loaded, which its body tells
    /// ([`Self::judge_loading`]).
    pub(super) fn may_say_loading(&mut self, ask: &Ask<'_>, response: &Response<'_>) -> bool {
        let may = response.head.status == 503
            && self.takes_slot
            && self
                .endpoint()
                .is_some_and(|endpoint| !endpoint.profile.loading_texts.is_empty());
        if may {
            let cooldown = self.view.plan().proxy.retry.cooldown;
            self.kept.schedule.may_be_loading = true;
            self.kept.schedule.holds_as_it_is = false;
            self.kept.schedule.pause = cool_down(response, cooldown, ask.cx.unix_ms);
        }
        may
    }

    /// Holds such a response until its body is known, if the dialect would pass it at once.
    #[cold]
    pub(super) fn hold_loading(&mut self, ask: &Ask<'_>, response: &Response<'_>) -> Passing {
        self.kept.schedule.holds_as_it_is = true;
        let mut held = std::mem::take(&mut self.kept.held);
        held.clear();
        self.relayed(ask, response, &mut held);
        self.kept.held = held;
        Passing::Collect(LOADING_BYTES_MAX)
    }

    /// What becomes of it. `None`: it goes to the client as the dialect says.
    #[cold]
    pub(super) fn judge_loading(
        &mut self,
        ask: &Ask<'_>,
        body: &[u8],
        local: &mut Local,
    ) -> Option<AtEnd> {
        let index = self.endpoint?;
        let key = self.key_at(index);
        let endpoint = self.endpoint()?;
        let now_ms = self.gateway.common.clock_ms(ask.cx.now);
        if endpoint.profile.says_loading(503, body) {
            endpoint.load.refused_loading(key, now_ms);
            self.gateway.control.send(ToControl::FirstByteOfCold {
                endpoint: endpoint.id,
            });
            let waits = self.view.plan().queue.enabled;
            let has_other = self.has_other(ask.cx.now, false);
            if waits || has_other {
                if waits {
                    // It may be tried again.
                    self.tried.remove(index);
                }
                self.attempts = self.attempts.saturating_sub(1);
                return Some(AtEnd::Again);
            }
            self.kept.schedule.passes_loading = true;
        } else if self.gives_up_error(ask, 503, self.kept.schedule.pause) {
            return Some(AtEnd::Again);
        }
        if !self.kept.schedule.holds_as_it_is {
            return None;
        }
        local.head.append(&mut self.kept.held);
        local.body = bytes::Bytes::copy_from_slice(body);
        Some(AtEnd::Respond)
    }

    /// The time limits of an attempt: a model that loads may take its time.
    pub(super) fn patient(&self, usual: Timeouts) -> Timeouts {
        let Some(dispatch) = &self.kept.schedule.dispatch else {
            return usual;
        };
        if dispatch.was_ready() {
            return usual;
        }
        let least = self.view.plan().proxy.model_load_timeout;
        Timeouts {
            response_header: usual.response_header.max(least),
            response: usual.response.map(|limit| limit.max(least)),
            ..usual
        }
    }

    /// A response that is not held begins.
    pub(super) fn response_begins(&mut self, now: Instant, kind: AnswerKind) {
        let schedule = &mut self.kept.schedule;
        if schedule.dispatch.is_none() {
            return;
        }
        schedule.is_stream = matches!(kind, AnswerKind::Events | AnswerKind::Lines);
        if schedule.is_stream {
            // Its head may come before the first token does.
            schedule.heard = Some(now);
        } else {
            self.first_byte(now);
        }
    }

    /// Bytes of a response's body are here.
    #[inline]
    pub(super) fn payload_arrived(&mut self) {
        if !self.kept.schedule.has_first_byte
            && let Some(heard) = self.kept.schedule.heard
        {
            self.first_byte(heard);
        }
    }

    /// A request that passed has told the endpoint to drop its model. Servers that hold all of their
    /// models do not know that member.
    pub(super) fn note_unloaded(&self, now: Instant) {
        if !self.findings.prompt.unloads() {
            return;
        }
        let endpoint = self
            .endpoint()
            .filter(|endpoint| endpoint.profile.scheduling.memory.is_some());
        if let (Some(index), Some(endpoint)) = (self.endpoint, endpoint) {
            let now_ms = self.gateway.common.clock_ms(now);
            endpoint
                .load
                .hear_warmth(self.key_at(index), Warmth::Cold, now_ms);
        }
    }
}
