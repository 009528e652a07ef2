//! Checks of endpoints that closed the connection on a whole request.
//!
//! Contract: docs/contract/balancing.md#9.3

use std::rc::Rc;
use std::time::Instant;

use super::member::FleetMember;
use super::state::ControlState;
use crate::fleet::breaker;
use crate::fleet::health::suspicion::CheckMeaning;
use crate::fleet::health::{CheckResult, HealthEvent};

impl ControlState {
    /// A request has made an endpoint suspect: it is checked at once.
    pub(super) fn suspect(&self, endpoint: u32) {
        let Some(member) = self.member(endpoint) else {
            return;
        };
        let mut suspicion = member.suspicion.get();
        suspicion.raise(Instant::now());
        member.suspicion.set(suspicion);
        if member.is_routable() {
            self.on_health(&member, HealthEvent::Suspected);
        }
    }

    /// A check has ended that says something of its endpoint: decides about a suspect one.
    pub(super) fn end_suspicion(
        &self,
        member: &Rc<FleetMember>,
        began: Instant,
        result: CheckResult,
    ) {
        let mut suspicion = member.suspicion.get();
        let finding = suspicion.on_check(began, result.is_good());
        member.suspicion.set(suspicion);
        match finding {
            CheckMeaning::Clear => {}
            CheckMeaning::TooEarly if member.is_routable() => {
                self.on_health(member, HealthEvent::Suspected);
            }
            CheckMeaning::TooEarly => {}
            CheckMeaning::Down => {
                let now_ms = self.common.clock_ms(Instant::now());
                breaker::on_failure(&member.live, now_ms, None);
                if member.is_routable() {
                    let losses = member.live.lost();
                    let cause = result.cause();
                    self.on_health(member, HealthEvent::Lost { cause, losses });
                    self.declare_dead(member);
                }
            }
        }
    }
}
