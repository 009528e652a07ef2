//! Health checks: one task for each endpoint.
//!
//! Contract: docs/contract/balancing.md#11

use std::rc::Rc;
use std::time::{Duration, Instant};

use olla_engine::client::{ClientFault, ClientResponse};
use olla_engine::rt;

use super::fetch::{Get, get};
use super::member::FleetMember;
use super::state::ControlState;
use crate::fleet::health::schedule::{jittered, retry_after};
use crate::fleet::health::{CheckResult, HealthEvent};
use crate::providers;

/// Pauses before the second and third try of one check.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];

/// Checks an endpoint whenever a check is due, until it is removed.
pub(super) async fn watch(state: &Rc<ControlState>, member: &Rc<FleetMember>) {
    while !member.is_removed() {
        let began = Instant::now();
        let result = check(state, member).await;
        let losses = member.live.lost();
        let event = HealthEvent::CheckEnded {
            began,
            result,
            losses,
        };
        state.on_health(member, event);
        state.end_suspicion(member, began, result);
        member.next_check().await;
    }
}

/// One check, with its tries.
async fn check(state: &ControlState, member: &Rc<FleetMember>) -> CheckResult {
    let mut response = once(state, member).await;
    if response.is_err() {
        state.on_health(member, HealthEvent::TryFailed);
    }
    for pause in PAUSES {
        match &response {
            Err(fault) if fault.is_connection() && !member.is_removed() => {
                rt::sleep(jittered(pause, random())).await;
                response = once(state, member).await;
            }
            _ => break,
        }
    }
    match response {
        Ok(response) => CheckResult::Response {
            code: response.status,
            retry_after: retry_after(response.field("retry-after"), crate::log::unix_ms() / 1000),
        },
        Err(fault) => CheckResult::Failed(fault.as_str()),
    }
}

async fn once(state: &ControlState, member: &FleetMember) -> Result<ClientResponse, ClientFault> {
    const AGENT: &str = concat!("olla-HealthChecker/", env!("CARGO_PKG_VERSION"));
    let (plan, profile) = (member.plan(), member.profile());
    let Ok(target) = providers::health_url(&plan, &profile) else {
        return Err(ClientFault::Malformed);
    };
    let fields = [
        ("User-Agent", AGENT),
        ("Accept", "application/json, text/plain, */*"),
        ("Cache-Control", "no-cache"),
    ];
    let limit = plan.check_timeout;
    get(
        &state.network,
        Get {
            member,
            target,
            fields: &fields,
            limit,
            body_bytes_max: 0,
        },
    )
    .await
}

/// A random seed.
pub(super) fn seed() -> u64 {
    u64::from(random()) << 32 | u64::from(random())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without random bytes of the system all pauses are equal, which is harmless.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
