//! Executes the actions that result from a change of an endpoint's health, and nothing else does.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::member::FleetMember;
use super::state::ControlState;
use crate::clock::millis;
use crate::fleet::health::{HealthAction, HealthEvent, Transition};
use crate::fleet::{Status, breaker};
use crate::log::events::{ENDPOINT_RECOVERED, ENDPOINT_STATUS_CHANGED};
use crate::log::{Level, Value};

impl ControlState {
    /// Feeds an event to an endpoint's health and executes the actions that come out. Returns
    /// whether the event was a check that counts.
    pub(super) fn on_health(&self, member: &Rc<FleetMember>, event: HealthEvent) -> bool {
        let before = member.status();
        let change = member.on_health(event);
        let at = match event {
            HealthEvent::CheckEnded { began, .. } => began,
            _ => Instant::now(),
        };
        self.on_status(member, before, at);
        if let HealthEvent::CheckEnded { result, .. } = event
            && change.counts
        {
            member.note_check(result);
        }
        if let Some(transition) = &change.transition {
            self.models_changed();
            if transition.is_logged {
                self.log_transition(member, transition);
            }
        }
        for action in change.actions {
            match action {
                HealthAction::ResetBreaker => breaker::reset(&member.live),
                HealthAction::ForgetSessions => self.common.sticky.purge(member.id),
                HealthAction::DeclareDead => self.declare_dead(member),
                HealthAction::ForgetModels => {
                    member.forget_models();
                    self.models_changed();
                }
                HealthAction::Reschedule => member.rescheduled.notify(),
                HealthAction::Discover => self.request_discovery(member),
                HealthAction::PublishNow => self.publish(),
                HealthAction::PublishSoon => self.publish_soon(),
            }
        }
        self.end_first_round_if_settled();
        change.counts
    }

    /// Makes the requests leave an endpoint that wait for its response
    /// (docs/contract/balancing.md#9.2).
    pub(super) fn declare_dead(&self, member: &FleetMember) {
        member.live.die();
        self.common.deaths.fetch_add(1, Ordering::Release);
    }

    /// Ends the first round of checks once every endpoint is settled.
    pub(super) fn end_first_round_if_settled(&self) {
        let members = self.endpoints.members.borrow();
        if members.iter().all(|member| member.is_settled()) {
            self.end_first_round();
        }
    }

    /// Ends the first round of checks, if it is not over yet.
    pub(super) fn end_first_round(&self) {
        if !self.endpoints.is_first_round_over.replace(true) {
            self.publish_soon();
        }
    }

    fn log_transition(&self, member: &FleetMember, transition: &Transition) {
        let (level, message) = match transition.to {
            Status::Warming => (Level::Info, ENDPOINT_STATUS_CHANGED),
            to if to.is_routable() => (Level::Info, ENDPOINT_RECOVERED),
            _ => (Level::Warn, ENDPOINT_STATUS_CHANGED),
        };
        let plan = member.plan();
        let latency = transition.response_time.unwrap_or(Duration::ZERO);
        let next_check = millis(transition.next_check_in);
        let mut fields = vec![
            ("endpoint", Value::Str(&plan.name)),
            ("endpoint_url", Value::Str(&plan.url.display)),
            ("from", Value::Str(transition.from.as_str())),
            ("to", Value::Str(transition.to.as_str())),
            ("latency_ms", Value::Num(millis(latency))),
            ("next_check_in_ms", Value::Num(next_check)),
        ];
        let cause = transition.cause;
        if let Some(code) = cause.status_code {
            fields.push(("status_code", Value::Num(code.into())));
        }
        if let Some(error) = cause.error {
            fields.push(("error", Value::Str(error.as_str())));
        }
        if let Some(reason) = cause.reason {
            fields.push(("reason", Value::Str(reason)));
        }
        self.logger.emit(level, message, &fields);
    }
}
