//! Health checks: one task for each endpoint.
//!
//! contract: balancing 11

use std::rc::Rc;
use std::time::{Duration, Instant};

use olla_engine::client::{ClientFault, Reply};
use olla_engine::rt;

use super::fetch::{Get, get};
use super::member::Member;
use super::{State, discover};
use crate::fleet::Status;
use crate::fleet::breaker;
use crate::fleet::health::schedule::{backoff as wait, jittered, retry_after};
use crate::providers;

/// A good check that took longer means that the endpoint is busy.
const BUSY_AFTER: Duration = Duration::from_secs(10);

/// Pauses before the second and third try of one check.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];

/// Checks an endpoint again and again until it is removed.
pub(super) async fn watch(state: &Rc<State>, member: &Rc<Member>) {
    while !member.removed.get() {
        check(state, member).await;
        loop {
            member.moved.take();
            let left = member
                .next_check
                .get()
                .saturating_duration_since(Instant::now());
            if left.is_zero() || member.removed.get() {
                break;
            }
            // A live failure moves the next check.
            let _ = rt::timeout(left, member.moved.wait()).await;
        }
    }
}

async fn check(state: &Rc<State>, member: &Rc<Member>) {
    let began = Instant::now();
    let answer = ask(state, member).await;
    if member.removed.get() {
        return;
    }
    let took = began.elapsed();
    let verdict = judge(&answer, took);
    let from = member.status.replace(verdict);
    member.last_check.set(Some(Instant::now()));
    member.response_time.set(Some(took));
    let failures = if verdict.is_routable() {
        0
    } else {
        member.failures.get().saturating_add(1)
    };
    member.failures.set(failures);
    if member.failed_check.replace(!verdict.is_routable()) && verdict.is_routable() {
        // It was away and is back: one good check returns it to full traffic (contract:
        // balancing 11), whatever its breaker has seen of that.
        breaker::reset(&member.live);
    }
    let rest = match &answer {
        Ok(reply) if verdict == Status::RateLimited => {
            let now = crate::log::unix_ms() / 1000;
            Some(Instant::now() + retry_after(reply.field("retry-after"), now))
        }
        _ => None,
    };
    member.not_before.set(rest);
    let due = began + wait(member.plan().check_interval, failures);
    member
        .next_check
        .set(rest.map_or(due, |rest| due.max(rest)));
    member.hear();
    let first = !member.checked.replace(true);
    // A first check that failed has marked it as away before it tried again.
    let from = if first { Status::Unknown } else { from };
    if from != verdict {
        state.catalogue_stale.set(true);
        if from.is_routable() && !verdict.is_routable() {
            state.common.sticky.purge(member.id);
        }
        if !first || !verdict.is_routable() {
            let code = answer.as_ref().ok().map(|reply| reply.status);
            let error = answer.as_ref().err().map(|fault| fault.as_str());
            state.log_change(member, from, code, error);
        }
    }
    let discovery = state.plan.borrow().discovery.model_discovery.enabled;
    if !verdict.is_routable() || !discovery {
        member.settled.set(true);
    } else if !from.is_routable() {
        // At the start, and whenever it comes back, its models are listed at once.
        discover::at_once(state, member);
    }
    state.dirty.notify();
    state.end_if_first_round_is_over();
}

async fn ask(state: &State, member: &Member) -> Result<Reply, ClientFault> {
    let mut answer = once(state, member).await;
    if answer.is_err() && member.status.get() == Status::Unknown {
        // The tries that follow may find it after all; until then it is known to be away.
        member.status.set(Status::Offline);
        state.dirty.notify();
    }
    for pause in PAUSES {
        match &answer {
            Err(fault) if fault.is_connection() && !member.removed.get() => {
                rt::sleep(jittered(pause, random())).await;
                answer = once(state, member).await;
            }
            _ => break,
        }
    }
    answer
}

async fn once(state: &State, member: &Member) -> Result<Reply, ClientFault> {
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
        state,
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

/// The status that a check leads to.
fn judge(answer: &Result<Reply, ClientFault>, took: Duration) -> Status {
    match answer {
        Err(_) => Status::Offline,
        Ok(reply) => match reply.status {
            200..=299 if took > BUSY_AFTER => Status::Busy,
            200..=299 => Status::Healthy,
            401 | 403 => Status::ConfigError,
            429 => Status::RateLimited,
            _ => Status::Unhealthy,
        },
    }
}

/// A random number to begin a generator with.
pub(super) fn seed() -> u64 {
    u64::from(random()) << 32 | u64::from(random())
}

/// Enough chance for a pause.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use olla_engine::exchange::ConnectFault;

    use super::*;

    #[test]
    fn each_answer_has_its_status() {
        let table = [
            (200, 0, Status::Healthy),
            (204, 9, Status::Healthy),
            (200, 11, Status::Busy),
            (401, 0, Status::ConfigError),
            (403, 11, Status::ConfigError),
            (429, 0, Status::RateLimited),
            (404, 0, Status::Unhealthy),
            (500, 11, Status::Unhealthy),
            (304, 0, Status::Unhealthy),
        ];
        for (status, secs, want) in table {
            let reply = Reply {
                status,
                ..Reply::default()
            };
            assert_eq!(
                judge(&Ok(reply), Duration::from_secs(secs)),
                want,
                "{status} {secs}s"
            );
        }
        for fault in [
            ClientFault::Connect(ConnectFault::Refused),
            ClientFault::Reset,
            ClientFault::Closed,
            ClientFault::TimedOut,
            ClientFault::Malformed,
        ] {
            assert_eq!(judge(&Err(fault), Duration::ZERO), Status::Offline);
        }
    }
}
