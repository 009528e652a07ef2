//! Asks endpoints of Ollama's which models they have loaded, and merges what they say.
//!
//! Requests for the same list at the same time share one round.
//!
//! Contract: docs/contract/dialects.md#11.3

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use olla_engine::client::BodyWanted;

use super::discover::each;
use super::fetch::{DISCOVERY_AGENT, Get, get};
use super::member::FleetMember;
use super::state::{ControlState, PendingRunning};
use crate::catalogue::Lens;
use crate::dialects::RunningModels;
use crate::providers;
use crate::shared::{ReplyTo, RunningRequest, ToCore};

/// Time limit for the endpoints.
const LIMIT: Duration = Duration::from_secs(2);

/// Endpoints that are asked at the same time.
const AT_ONCE: usize = 64;

/// Bytes of an endpoint's list that are read: some hundred loaded models.
const BYTES_MAX: usize = 128 << 10;

/// Collects the loaded models for a request.
pub(super) fn on_request(state: &Rc<ControlState>, request: RunningRequest) {
    let RunningRequest {
        endpoints,
        with_others,
        lens,
        reply_to,
    } = request;
    let mut running = state.discoveries.running.borrow_mut();
    let same = running.iter().find(|round| {
        round.endpoints == endpoints && round.with_others == with_others && round.lens == lens
    });
    if let Some(same) = same {
        same.waiting.borrow_mut().push(reply_to);
        return;
    }
    let waiting = Rc::new(RefCell::new(vec![reply_to]));
    running.push(PendingRunning {
        endpoints: endpoints.clone(),
        with_others,
        lens: lens.clone(),
        waiting: Rc::clone(&waiting),
    });
    drop(running);
    let state = Rc::clone(state);
    olla_engine::rt::spawn(async move {
        let found = ask_all(&state, &endpoints).await;
        let body = merged(&state, &found, with_others, lens.as_deref());
        let mut running = state.discoveries.running.borrow_mut();
        running.retain(|round| !Rc::ptr_eq(&round.waiting, &waiting));
        drop(running);
        for ReplyTo { core, ticket } in waiting.take() {
            let body = body.clone();
            state
                .outlet
                .cores
                .send(core, ToCore::Running { ticket, body });
        }
    });
}

/// An endpoint with what it said; `None` = nothing yet.
type Said = (Rc<FleetMember>, RefCell<Option<Vec<u8>>>);

/// Asks all of them, in the order of the configuration.
async fn ask_all(state: &Rc<ControlState>, endpoints: &[u32]) -> Rc<[Said]> {
    let members = endpoints.iter().filter_map(|id| state.member(*id));
    let all: Rc<[Said]> = members.map(|member| (member, RefCell::default())).collect();
    let by = Instant::now() + LIMIT;
    let (asking, said) = (Rc::clone(state), Rc::clone(&all));
    let asked = each((0..all.len()).collect(), AT_ONCE, move |at| {
        let (state, said) = (Rc::clone(&asking), Rc::clone(&said));
        async move {
            if let Some((member, slot)) = said.get(at) {
                let list = ask(&state, member, by).await;
                slot.replace(list);
            }
        }
    });
    // What did not arrive in time is left out.
    let _ = olla_engine::rt::timeout(LIMIT, asked).await;
    all
}

async fn ask(state: &ControlState, member: &FleetMember, by: Instant) -> Option<Vec<u8>> {
    // After the time limit the response is made without this endpoint, so it is not asked any more.
    let limit = by.saturating_duration_since(Instant::now());
    if limit.is_zero() {
        return None;
    }
    let target = providers::target(&member.plan().url, "/api/ps").ok()?;
    let request = Get {
        member,
        target,
        fields: &[
            ("User-Agent", DISCOVERY_AGENT),
            ("Accept", "application/json"),
        ],
        limit,
        body: BodyWanted::Whole(BYTES_MAX),
    };
    let response = get(&state.network, request).await.ok()?;
    (response.status == 200).then_some(response.body)
}

fn merged(state: &ControlState, said: &[Said], with_others: bool, lens: Option<&Lens>) -> Bytes {
    let shows = |name: &str| lens.is_none_or(|lens| lens.shows(name));
    let mut models = RunningModels::default();
    for (member, list) in said {
        let plan = member.plan();
        let admits = |name: &str| providers::admits(&plan.model_filter, name) && shows(name);
        if let Some(list) = list.borrow().as_deref() {
            models.add_list(&plan.name, list, &admits);
        }
    }
    if with_others {
        let catalogue = state.models.borrow().catalogue.clone();
        catalogue.each_loaded(|name, endpoints, item| {
            let has = |endpoint: &&str| lens.is_none_or(|lens| lens.has(endpoint));
            let endpoints: Vec<_> = endpoints.iter().copied().filter(has).collect();
            if !endpoints.is_empty() && shows(name) {
                models.add(name, &endpoints, item);
            }
        });
    }
    models.finish().into()
}
