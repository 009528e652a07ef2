//! Lists the models of endpoints: in rounds, and when an endpoint recovers. `refresh` does it when
//! a request misses its model.
//!
//! Endpoints are independent of each other, and a failed listing leaves the endpoint's models as
//! they were.
//!
//! Contract: docs/contract/catalogue.md#3

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use olla_engine::client::{BodyWanted, ClientFault, ClientResponse};
use olla_engine::rt;

use super::errors::{display, of_status};
use super::fetch::{DISCOVERY_AGENT, Get, Network, get};
use super::member::FleetMember;
use super::signal::Signal;
use super::state::ControlState;
use crate::config::{EndpointPlan, ModelDiscoveryPlan};
use crate::fleet::health::HealthEvent;
use crate::fleet::{ErrorKind, Failed, Failure};
use crate::log::{Level, Value};
use crate::providers::{self, ListedModel, MAX_LISTING_BYTES, Parser, Profile, Profiles, detect};

/// The reason why a listing failed.
pub(super) struct ListingFailure {
    pub(super) reason: String,
    /// What the endpoint's last error shows; `None` = nothing, because the fault is the gateway's.
    pub(super) error: Option<Failure>,
    /// Whether a retry within the round may succeed (docs/contract/catalogue.md#3.5).
    again: bool,
}

/// Lists all routable endpoints once in every interval.
pub(super) async fn rounds(state: &Rc<ControlState>) {
    loop {
        let plan = state.config().plan.discovery.model_discovery.clone();
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

/// Lists every routable endpoint, `concurrent_workers` of them at a time.
async fn round(state: &Rc<ControlState>, plan: &ModelDiscoveryPlan) {
    let state = Rc::clone(state);
    let members = routable(&state);
    each(members, plan.concurrent_workers, move |member| {
        let state = Rc::clone(&state);
        async move { one(&state, &member).await }
    })
    .await;
}

/// Does the work for each item, for at most `at_once` of them at the same time.
pub(super) async fn each<T: 'static, W: Future<Output = ()> + 'static>(
    items: VecDeque<T>,
    at_once: usize,
    work: impl Fn(T) -> W + 'static,
) {
    let workers = at_once.min(items.len());
    let (queue, work) = (Rc::new(RefCell::new(items)), Rc::new(work));
    let (left, over) = (Rc::new(Cell::new(workers)), Rc::new(Signal::default()));
    for _ in 0..workers {
        let (queue, work) = (Rc::clone(&queue), Rc::clone(&work));
        let (left, over) = (Rc::clone(&left), Rc::clone(&over));
        rt::spawn(async move {
            loop {
                let next = queue.borrow_mut().pop_front();
                let Some(item) = next else { break };
                work(item).await;
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

/// The routable endpoints, in the order of the configuration.
fn routable(state: &ControlState) -> VecDeque<Rc<FleetMember>> {
    let mut members = state.members();
    members.retain(|member| member.is_routable());
    members.into()
}

/// Lists endpoints outside of the rounds as they are requested.
pub(super) async fn on_request(state: &Rc<ControlState>) {
    loop {
        state.discoveries.arrived.wait().await;
        let requested = state.discoveries.requested.take();
        for member in requested {
            let state = Rc::clone(state);
            rt::spawn(async move {
                one(&state, &member).await;
                state.on_health(&member, HealthEvent::Discovered);
            });
        }
    }
}

/// Drops the models of endpoints with an outdated last listing (docs/contract/catalogue.md#5.3).
pub(super) async fn sweeps(state: &Rc<ControlState>) {
    loop {
        let plan = state.config().plan.model_registry.unification.clone();
        let _ = rt::timeout(plan.cleanup_interval, state.reloaded_sweeps.wait()).await;
        let mut members = state.members();
        members.retain(|member| member.is_stale(plan.stale_threshold));
        if members
            .iter()
            .filter(|member| member.forget_models())
            .count()
            > 0
        {
            state.models_changed();
            state.publish_soon();
        }
    }
}

/// Lists one endpoint, with the retries of a round.
async fn one(state: &ControlState, member: &Rc<FleetMember>) {
    let plan = state.config().plan.discovery.model_discovery.clone();
    let mut pause = plan.retry_backoff;
    let mut tries = 0;
    loop {
        match list(state, member, plan.timeout).await {
            Ok(()) => return,
            Err(failure) => {
                if member.is_removed() || !failure.again || tries >= plan.retry_attempts {
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

/// The longest pause between retries, so that they do not reach into the next round.
fn longest_pause(plan: &ModelDiscoveryPlan) -> Duration {
    plan.interval.min(Duration::from_secs(60))
}

fn warn(state: &ControlState, member: &FleetMember, failure: &ListingFailure) {
    let name = &member.plan().name;
    let fields = [
        ("endpoint", Value::Str(name)),
        ("reason", Value::Str(&failure.reason)),
    ];
    state
        .logger
        .emit(Level::Warn, "Model discovery failed", &fields);
}

/// Lists one endpoint once, takes its models in, and notes the outcome.
pub(super) async fn list(
    state: &ControlState,
    member: &Rc<FleetMember>,
    limit: Duration,
) -> Result<(), ListingFailure> {
    let outcome = list_quietly(state, member, limit).await;
    match &outcome {
        Ok(()) if member.models().is_empty() => {
            member.note(Failed::Listing, Err(no_models(member)))
        }
        Ok(()) => member.note(Failed::Listing, Ok(())),
        Err(failure) => {
            if let Some(error) = &failure.error {
                member.note(Failed::Listing, Err(error.clone()));
                state.publish_soon();
            }
        }
    }
    outcome
}

/// An endpoint that lists no models gets no requests for any, although it is healthy.
pub(super) fn no_models(member: &FleetMember) -> Failure {
    Failure {
        kind: ErrorKind::NoModels,
        message: "lists no models".to_owned(),
        url: listing_url(member),
        status: None,
    }
}

/// The URL of an endpoint's listing, for display.
fn listing_url(member: &FleetMember) -> String {
    let target = providers::model_url(&member.plan(), &member.profile()).ok();
    target.as_ref().map_or_else(String::new, display)
}

async fn list_quietly(
    state: &ControlState,
    member: &Rc<FleetMember>,
    limit: Duration,
) -> Result<(), ListingFailure> {
    let plan = member.plan();
    let profiles = Arc::clone(&state.config().profiles);
    let (profile, models) = read(&state.network, &profiles, member, &plan, limit).await?;
    if member.is_removed() || !Arc::ptr_eq(&plan, &member.plan()) {
        // A reload has requested another listing.
        return Ok(());
    }
    let has_other_models = member.listed(models);
    let has_other_profile = member.listed_as(profile);
    member.live.forget_refusals();
    state.on_listed(member);
    if has_other_models || has_other_profile {
        state.models_changed();
    }
    // Pages show when the models were last listed, so this also publishes an unchanged listing.
    state.publish_soon();
    Ok(())
}

/// Reads the models of an endpoint, after its filter, and detects its type if need be.
pub(super) async fn read(
    network: &Network,
    profiles: &Profiles,
    member: &FleetMember,
    plan: &EndpointPlan,
    limit: Duration,
) -> Result<(Arc<Profile>, Vec<ListedModel>), ListingFailure> {
    let (profile, models) = if member.is_undetected() {
        detected(network, profiles, member, plan, limit).await?
    } else {
        let profile = member.profile();
        let listed = listed(network, member, plan, &profile, limit).await;
        if listed.is_err() {
            // Another type of server may have taken its place.
            member.forget_detected();
        }
        (profile, listed?)
    };
    let filter = &plan.model_filter;
    let admitted = |model: &ListedModel| providers::admits(filter, &model.name);
    let configured = |mut model: ListedModel| {
        let context = plan.context_length.map(|tokens| tokens.get().into());
        model.served_context = context.or(model.served_context);
        model
    };
    let models = models.into_iter().filter(admitted).map(configured);
    Ok((profile, models.collect()))
}

/// The models of an endpoint of a known type.
async fn listed(
    network: &Network,
    member: &FleetMember,
    plan: &EndpointPlan,
    profile: &Profile,
    limit: Duration,
) -> Result<Vec<ListedModel>, ListingFailure> {
    let target = providers::model_url(plan, profile).map_err(|_| ListingFailure {
        reason: "unusable model_url".to_owned(),
        error: None,
        again: false,
    })?;
    let url = display(&target);
    let reply = ask(network, member, target, limit).await?;
    parse(profile.parser, &reply, url)
}

/// One request for a document of an endpoint.
pub(super) async fn ask(
    network: &Network,
    member: &FleetMember,
    target: providers::UpstreamTarget,
    limit: Duration,
) -> Result<ClientResponse, ListingFailure> {
    let fields = [
        ("User-Agent", DISCOVERY_AGENT),
        ("Accept", "application/json"),
    ];
    let url = display(&target);
    let reply = get(
        network,
        Get {
            member,
            target,
            fields: &fields,
            limit,
            body: BodyWanted::Whole(MAX_LISTING_BYTES),
        },
    )
    .await;
    let reply = reply.map_err(|fault| ListingFailure {
        reason: fault.as_str().to_owned(),
        error: ErrorKind::of_client(fault).map(|kind| Failure {
            kind,
            message: fault.as_str().to_owned(),
            url: url.clone(),
            status: None,
        }),
        again: !matches!(fault, ClientFault::TooLong),
    })?;
    match reply.status {
        200 => Ok(reply),
        status => Err(ListingFailure {
            reason: format!("HTTP status {status}"),
            error: Some(Failure {
                kind: ErrorKind::of_status(status),
                message: of_status(status, &url),
                url,
                status: Some(status),
            }),
            again: status >= 500 || status == 429,
        }),
    }
}

fn parse(
    parser: Parser,
    reply: &ClientResponse,
    url: String,
) -> Result<Vec<ListedModel>, ListingFailure> {
    providers::parse_listing(parser, &reply.body).map_err(|fault| ListingFailure {
        reason: fault.to_string(),
        error: Some(Failure {
            kind: ErrorKind::ModelListing,
            message: fault.to_string(),
            url,
            status: Some(reply.status),
        }),
        again: true,
    })
}

/// Detects the type of server; the response that identifies it lists its models too
/// (docs/contract/catalogue.md#3.6).
async fn detected(
    network: &Network,
    profiles: &Profiles,
    member: &FleetMember,
    plan: &EndpointPlan,
    limit: Duration,
) -> Result<(Arc<Profile>, Vec<ListedModel>), ListingFailure> {
    let mut last = ListingFailure {
        reason: "no probe detected the type of server".to_owned(),
        error: Some(Failure {
            kind: ErrorKind::ModelListing,
            message: "the type of server cannot be detected; set type".to_owned(),
            url: plan.url.display.clone(),
            status: None,
        }),
        again: true,
    };
    for probe in detect::probes(plan) {
        let Ok(target) = providers::target(&plan.url, probe.target) else {
            continue;
        };
        let url = display(&target);
        let reply = match ask(network, member, target, limit).await {
            Ok(reply) => reply,
            Err(failure) => {
                last.again |= failure.again;
                continue;
            }
        };
        let Some(kind) = detect::judge(&probe, reply.status, &reply.body) else {
            continue;
        };
        // A type that the profile filter excludes does not exist; another probe may match.
        let Some(profile) = profiles.get(kind).cloned() else {
            continue;
        };
        let models = parse(profile.parser, &reply, url)?;
        return Ok((profile, models));
    }
    Err(last)
}
