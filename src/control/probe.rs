//! Health checks: one task for each endpoint.
//!
//! Contract: docs/contract/balancing.md#11

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use olla_engine::client::{BodyWanted, ClientFault, ClientResponse};
use olla_engine::rt;

use super::fetch::{Get, Network, get};
use super::member::FleetMember;
use super::state::ControlState;
use crate::fleet::health::schedule::jittered;
use crate::fleet::health::{CheckResult, HealthEvent, Meanwhile};
use crate::fleet::retry_after::before_next_check;
use crate::providers;

/// Pauses before the second and third try of one check.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];

/// While a check runs, the lateness of this thread is measured this often.
const TICK: Duration = Duration::from_millis(100);

/// Bytes of a body that are searched for a text that says that the model is being loaded.
const LOADING_BYTES_MAX: usize = 4096;

/// Checks an endpoint whenever a check is due, until it is removed.
pub(super) async fn watch(state: &Rc<ControlState>, member: &Rc<FleetMember>) {
    while !member.is_removed() {
        let began = Instant::now();
        let (result, late) = measured(check(state, member)).await;
        let heard = member.live.heard_ms();
        let event = HealthEvent::CheckEnded {
            began,
            result,
            meanwhile: Meanwhile {
                heard: heard.map(|at| state.common.time_of(at)),
                late,
            },
            losses: member.live.lost(),
        };
        if state.on_health(member, event) {
            state.end_suspicion(member, began, result);
        }
        member.next_check().await;
    }
}

/// Runs a future, and measures how late this thread was at most meanwhile: a suspended process
/// finds each check timed out.
async fn measured<F: Future>(work: F) -> (F::Output, Duration) {
    let mut work = pin!(work);
    let mut late = Duration::ZERO;
    loop {
        let due = Instant::now() + TICK;
        let done = rt::timeout(TICK, work.as_mut()).await;
        late = late.max(Instant::now().saturating_duration_since(due));
        if let Some(output) = done {
            return (output, late);
        }
    }
}

/// One check, with its tries.
async fn check(state: &ControlState, member: &Rc<FleetMember>) -> CheckResult {
    let mut response = once(&state.network, member).await;
    if response.as_ref().is_err_and(|fault| !fault.is_local()) {
        state.on_health(member, HealthEvent::TryFailed);
    }
    for pause in PAUSES {
        match &response {
            Err(fault) if fault.is_connection() && !member.is_removed() => {
                rt::sleep(jittered(pause, random())).await;
                response = once(&state.network, member).await;
            }
            _ => break,
        }
    }
    result_of(member, response)
}

/// What a response, or that there is none, says about an endpoint.
pub(super) fn result_of(
    member: &FleetMember,
    response: Result<ClientResponse, ClientFault>,
) -> CheckResult {
    match response {
        Ok(response) => CheckResult::Response {
            code: response.status,
            retry_after: before_next_check(
                response.field("retry-after").map(str::as_bytes),
                crate::log::unix_ms(),
            ),
            is_loading: member
                .profile()
                .says_loading(response.status, &response.body),
        },
        Err(fault) => CheckResult::Failed(fault),
    }
}

/// One try of a check.
pub(super) async fn once(
    network: &Network,
    member: &FleetMember,
) -> Result<ClientResponse, ClientFault> {
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
        network,
        Get {
            member,
            target,
            fields: &fields,
            limit,
            body: BodyWanted::Start {
                status: 503,
                bytes_max: LOADING_BYTES_MAX,
            },
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
