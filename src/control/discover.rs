//! Asking endpoints for their models: in rounds, when one comes back, and when a request misses
//! its model.
//!
//! Endpoints are independent: the failure of one never touches another, and a failed listing
//! leaves the endpoint's models as they were.
//!
//! contract: catalogue 3, balancing 5 (refresh)

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use olla_engine::client::{ClientFault, Reply};
use olla_engine::rt;

use super::fetch::{Get, get};
use super::member::Member;
use super::{Signal, State};
use crate::config::{EndpointPlan, ModelDiscoveryPlan};
use crate::log::{Level, Value};
use crate::providers::{self, ListedModel, MAX_LISTING_BYTES, Parser, Profile, detect};
use crate::shared::{Address, ToCore};

/// Why a listing failed.
struct Failure {
    reason: String,
    /// Whether trying again within the round may help (contract: catalogue 3.5).
    again: bool,
}

/// A round every interval, over the endpoints that are healthy then.
pub(super) async fn rounds(state: &Rc<State>) {
    loop {
        let plan = state.plan.borrow().discovery.model_discovery.clone();
        if !plan.enabled {
            state.reloaded_rounds.wait().await;
            continue;
        }
        let reloaded = rt::timeout(plan.interval, state.reloaded_rounds.wait());
        if reloaded.await.is_none() {
            round(state, &plan).await;
        }
    }
}

/// Asks every healthy endpoint, so many at one time.
async fn round(state: &Rc<State>, plan: &ModelDiscoveryPlan) {
    let queue = Rc::new(RefCell::new(state.healthy_members()));
    let workers = plan.concurrent_workers.min(queue.borrow().len());
    let (left, over) = (Rc::new(Cell::new(workers)), Rc::new(Signal::default()));
    for _ in 0..workers {
        let (state, queue) = (Rc::clone(state), Rc::clone(&queue));
        let (left, over) = (Rc::clone(&left), Rc::clone(&over));
        rt::spawn(async move {
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some(member) = next else { break };
                one(&state, &member).await;
            }
            left.set(left.get() - 1);
            if left.get() == 0 {
                over.notify();
            }
        });
    }
    if workers > 0 {
        over.wait().await;
    }
}

impl State {
    /// In the order of the configuration.
    fn healthy_members(&self) -> VecDeque<Rc<Member>> {
        let members = self.members.borrow();
        let is_healthy = |member: &&Rc<Member>| member.status.get().is_routable();
        members.iter().filter(is_healthy).cloned().collect()
    }
}

/// Lists the models of one endpoint now, outside of the rounds.
pub(super) fn at_once(state: &Rc<State>, member: &Rc<Member>) {
    let (state, member) = (Rc::clone(state), Rc::clone(member));
    rt::spawn(async move {
        one(&state, &member).await;
        member.settled.set(true);
        state.dirty.notify();
        state.end_if_first_round_is_over();
    });
}

/// Empties the listings of endpoints that have not been listed for too long (contract: catalogue
/// 5.3).
pub(super) async fn sweeps(state: &Rc<State>) {
    loop {
        let plan = state.plan.borrow().model_registry.unification.clone();
        let _ = rt::timeout(plan.cleanup_interval, state.reloaded_sweeps.wait()).await;
        let members = state.members.borrow();
        let stale = members
            .iter()
            .filter(|member| member.is_stale(plan.stale_threshold));
        if stale.filter(|member| member.forget_models()).count() > 0 {
            state.catalogue_stale.set(true);
            state.dirty.notify();
        }
    }
}

/// Lists the models of one endpoint, with the tries of a round.
pub(super) async fn one(state: &State, member: &Rc<Member>) {
    let plan = state.plan.borrow().discovery.model_discovery.clone();
    let mut pause = plan.retry_backoff;
    let mut tries = 0;
    loop {
        match list(state, member, plan.timeout).await {
            Ok(()) => return,
            Err(failure) => {
                if member.removed.get() || !failure.again || tries >= plan.retry_attempts {
                    warn(state, member, &failure);
                    return;
                }
            }
        }
        tries += 1;
        rt::sleep(pause.min(longest_pause(&plan))).await;
        pause = pause.saturating_mul(2);
    }
}

/// Retries of one round must not reach into the next.
fn longest_pause(plan: &ModelDiscoveryPlan) -> Duration {
    plan.interval.min(Duration::from_secs(60))
}

fn warn(state: &State, member: &Member, failure: &Failure) {
    let name = &member.plan().name;
    let fields = [
        ("endpoint", Value::Str(name)),
        ("reason", Value::Str(&failure.reason)),
    ];
    state
        .logger
        .emit(Level::Warn, "Model discovery failed", &fields);
}

/// Asks once, and takes the models in.
async fn list(state: &State, member: &Rc<Member>, limit: Duration) -> Result<(), Failure> {
    let plan = member.plan();
    let (profile, models) = if member.is_auto() && !member.found.get() {
        detected(state, member, &plan, limit).await?
    } else {
        let profile = member.profile();
        let listed = listed(state, member, &plan, &profile, limit).await;
        if listed.is_err() && member.is_auto() {
            // Perhaps another kind of server has taken its place.
            member.found.set(false);
        }
        (profile, listed?)
    };
    if member.removed.get() || !Arc::ptr_eq(&plan, &member.plan()) {
        // A reload has asked anew.
        return Ok(());
    }
    member.found.set(member.is_auto());
    let filter = &plan.model_filter;
    let admitted = |model: &ListedModel| providers::admits(filter, &model.name);
    let mut is_news = member.listed(models.into_iter().filter(admitted).collect());
    member.live.forget_refusals();
    if !Arc::ptr_eq(&member.profile(), &profile) {
        member.set_profile(profile);
        is_news = true;
    }
    if is_news {
        state.catalogue_stale.set(true);
    }
    // Also when the models are the same: pages tell when they were last seen.
    state.dirty.notify();
    Ok(())
}

/// The models of an endpoint whose type is known.
async fn listed(
    state: &State,
    member: &Member,
    plan: &EndpointPlan,
    profile: &Profile,
    limit: Duration,
) -> Result<Vec<ListedModel>, Failure> {
    let target = providers::model_url(plan, profile).map_err(|_| Failure {
        reason: "unusable model_url".to_owned(),
        again: false,
    })?;
    let reply = ask(state, member, target, limit).await?;
    parse(profile.parser, &reply)
}

async fn ask(
    state: &State,
    member: &Member,
    target: providers::Target,
    limit: Duration,
) -> Result<Reply, Failure> {
    const AGENT: &str = concat!("olla-Discovery/", env!("CARGO_PKG_VERSION"));
    let fields = [("User-Agent", AGENT), ("Accept", "application/json")];
    let body_bytes_max = MAX_LISTING_BYTES;
    let reply = get(
        state,
        Get {
            member,
            target,
            fields: &fields,
            limit,
            body_bytes_max,
        },
    )
    .await;
    let reply = reply.map_err(|fault| Failure {
        reason: fault.as_str().to_owned(),
        again: !matches!(fault, ClientFault::TooLong),
    })?;
    match reply.status {
        200 => Ok(reply),
        status => Err(Failure {
            reason: format!("HTTP status {status}"),
            again: status >= 500 || status == 429,
        }),
    }
}

fn parse(parser: Parser, reply: &Reply) -> Result<Vec<ListedModel>, Failure> {
    providers::parse_listing(parser, &reply.body).map_err(|fault| Failure {
        reason: fault.to_string(),
        again: true,
    })
}

/// Finds out what kind of server it is; its models come with the answer (contract: catalogue 3.6).
async fn detected(
    state: &State,
    member: &Member,
    plan: &EndpointPlan,
    limit: Duration,
) -> Result<(Arc<Profile>, Vec<ListedModel>), Failure> {
    let mut last = Failure {
        reason: "its type could not be found out".to_owned(),
        again: true,
    };
    for probe in detect::probes(plan) {
        let Ok(target) = providers::target(&plan.url, probe.target) else {
            continue;
        };
        let reply = match ask(state, member, target, limit).await {
            Ok(reply) => reply,
            Err(failure) => {
                last.again |= failure.again;
                continue;
            }
        };
        let Some(kind) = detect::judge(&probe, reply.status, &reply.body) else {
            continue;
        };
        // A type that the profile filter excludes does not exist: another answer may do.
        let Some(profile) = state.profiles.borrow().get(kind).cloned() else {
            continue;
        };
        let models = parse(profile.parser, &reply)?;
        return Ok((profile, models));
    }
    Err(last)
}

/// A refresh under way, and who waits for it.
pub(super) struct Refresh {
    endpoints: Vec<u32>,
    waiting: Rc<RefCell<Vec<Address>>>,
}

/// Asks endpoints for their models because a request missed one. Requests that miss at the same
/// time share one refresh (contract: balancing 5).
pub(super) fn refresh(state: &Rc<State>, mut endpoints: Vec<u32>, limit: Duration, reply: Address) {
    endpoints.sort_unstable();
    let mut running = state.refreshes.borrow_mut();
    if let Some(same) = running
        .iter()
        .find(|refresh| refresh.endpoints == endpoints)
    {
        same.waiting.borrow_mut().push(reply);
        return;
    }
    let waiting = Rc::new(RefCell::new(vec![reply]));
    running.push(Refresh {
        endpoints: endpoints.clone(),
        waiting: Rc::clone(&waiting),
    });
    drop(running);
    let state = Rc::clone(state);
    rt::spawn(async move {
        let any = ask_all(&state, &endpoints, limit).await;
        state
            .refreshes
            .borrow_mut()
            .retain(|refresh| !Rc::ptr_eq(&refresh.waiting, &waiting));
        state.publish();
        for Address { core, ticket } in waiting.take() {
            state
                .mailboxes
                .send(core, ToCore::Refreshed { ticket, any });
        }
    });
}

/// Asks all of them at once; whether any answered in time.
async fn ask_all(state: &Rc<State>, endpoints: &[u32], limit: Duration) -> bool {
    let members: Vec<_> = endpoints
        .iter()
        .filter_map(|id| state.member(*id))
        .collect();
    let (left, any) = (Rc::new(Cell::new(members.len())), Rc::new(Cell::new(false)));
    let over = Rc::new(Signal::default());
    if members.is_empty() {
        return false;
    }
    for member in members {
        let (state, left, any, over) = (
            Rc::clone(state),
            Rc::clone(&left),
            Rc::clone(&any),
            Rc::clone(&over),
        );
        rt::spawn(async move {
            if list(&state, &member, limit).await.is_ok() {
                any.set(true);
            }
            left.set(left.get() - 1);
            if left.get() == 0 {
                over.notify();
            }
        });
    }
    let _ = rt::timeout(limit, over.wait()).await;
    any.get()
}
