//! Lists endpoints because a request named a model that none of them lists.
//!
//! Requests that miss at the same time share one refresh. `misses` keeps wrong names from reaching
//! the endpoints again and again.
//!
//! Contract: docs/contract/balancing.md#5

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use olla_engine::rt;

use super::discover::list;
use super::signal::Signal;
use super::state::{ControlState, PendingRefresh};
use crate::endpoint_set::EndpointSet;
use crate::shared::{RefreshRequest, ReplyTo, ToCore};

/// The outcome of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// At least one endpoint was listed.
    Listed,
    /// No endpoint had its turn within the limit: their listings are less than a second old.
    Spared,
    /// No endpoint could be listed.
    Failed,
}

/// Responds to a request that missed its model, after a refresh if one may help.
pub(super) fn on_miss(state: &Rc<ControlState>, request: RefreshRequest) {
    let RefreshRequest {
        model,
        mut endpoints,
        limit,
        reply_to,
    } = request;
    endpoints.sort_unstable();
    let is_enabled = state.config().plan.discovery.model_discovery.enabled;
    let misses = state.discoveries.misses.borrow();
    let is_remembered = misses.is_remembered(misses.id(&model, &endpoints), Instant::now());
    drop(misses);
    if is_remembered || !is_enabled {
        return reply(state, reply_to, true);
    }
    let mut running = state.discoveries.refreshes.borrow_mut();
    let same = running
        .iter()
        .find(|refresh| refresh.endpoints == endpoints);
    if let Some(same) = same {
        same.waiting.borrow_mut().push((reply_to, model));
        return;
    }
    let waiting = Rc::new(RefCell::new(vec![(reply_to, model)]));
    running.push(PendingRefresh {
        endpoints: endpoints.clone(),
        waiting: Rc::clone(&waiting),
    });
    drop(running);
    let state = Rc::clone(state);
    rt::spawn(async move {
        let outcome = list_all(&state, &endpoints, limit).await;
        let mut running = state.discoveries.refreshes.borrow_mut();
        running.retain(|refresh| !Rc::ptr_eq(&refresh.waiting, &waiting));
        drop(running);
        if outcome == Outcome::Listed {
            state.publish();
        }
        for (reply_to, model) in waiting.take() {
            if outcome == Outcome::Listed {
                remember_if_missing(&state, &model, &endpoints);
            }
            reply(&state, reply_to, outcome != Outcome::Failed);
        }
    });
}

fn reply(state: &ControlState, ReplyTo { core, ticket }: ReplyTo, any: bool) {
    let refreshed = ToCore::Refreshed { ticket, any };
    state.outlet.cores.send(core, refreshed);
}

fn remember_if_missing(state: &ControlState, model: &str, endpoints: &[u32]) {
    let members = state.members();
    let places = members.iter().enumerate();
    let scope: EndpointSet = places
        .filter(|(_, member)| endpoints.binary_search(&member.id).is_ok())
        .map(|(place, _)| place)
        .collect();
    if !state.models.borrow().index.find(model, &scope).is_empty() {
        return;
    }
    let mut misses = state.discoveries.misses.borrow_mut();
    let id = misses.id(model, endpoints);
    misses.remember(id, Instant::now());
}

/// Lists all of them at the same time, each when it has its turn.
async fn list_all(state: &Rc<ControlState>, endpoints: &[u32], limit: Duration) -> Outcome {
    let now = Instant::now();
    let mut spared = false;
    let mut turns = Vec::new();
    for member in endpoints.iter().filter_map(|id| state.member(*id)) {
        let mut turn = member.miss_turn.get();
        let wait = turn.take(now, limit);
        member.miss_turn.set(turn);
        match wait {
            Some(wait) => turns.push((member, wait)),
            None => spared = true,
        }
    }
    let (left, any) = (Rc::new(Cell::new(turns.len())), Rc::new(Cell::new(false)));
    let over = Rc::new(Signal::default());
    let is_empty = turns.is_empty();
    for (member, wait) in turns {
        let (state, left, any, over) = (
            Rc::clone(state),
            Rc::clone(&left),
            Rc::clone(&any),
            Rc::clone(&over),
        );
        rt::spawn(async move {
            if !wait.is_zero() {
                rt::sleep(wait).await;
            }
            if list(&state, &member, limit.saturating_sub(wait))
                .await
                .is_ok()
            {
                any.set(true);
            }
            left.set(left.get() - 1);
            if left.get() == 0 {
                over.notify();
            }
        });
    }
    if !is_empty {
        let _ = rt::timeout(limit, over.wait()).await;
    }
    match any.get() {
        true => Outcome::Listed,
        false if spared => Outcome::Spared,
        false => Outcome::Failed,
    }
}
