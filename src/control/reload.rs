//! Adopts a configuration: at the start, and after a reload.
//!
//! An endpoint with the same name and URL as before stays the same: it keeps its health, its
//! statistics and its connections, and follows whatever else changed
//! (docs/contract/operations.md#9).

use std::rc::Rc;
use std::sync::Arc;

use olla_engine::rt;
use olla_engine::tls::TlsClient;

use super::member::FleetMember;
use super::probe;
use super::state::{ActiveConfig, ControlState};
use crate::config::EndpointPlan;
use crate::dialects::responses::StoreBounds;
use crate::fleet::health::{FIRST_CHECK_WAIT, HealthEvent};
use crate::schedule::EndpointLoad;
use crate::shared::PageEvent;

impl ControlState {
    /// Puts another configuration in force and publishes it.
    pub(super) fn reload(self: &Rc<Self>, config: ActiveConfig) {
        *self.config.borrow_mut() = Arc::new(config);
        let bounds = StoreBounds::of(&self.config().plan.responses);
        self.common.responses.set_bounds(bounds);
        self.network.trusts.forget();
        self.network.resolver.keep_for(self.config().plan.dns.stale);
        self.adopt_endpoints();
        self.issuer.reloaded();
        self.reloaded_rounds.notify();
        self.reloaded_sweeps.notify();
        self.on_intervals();
        self.models_changed();
        self.pages.event(PageEvent::Reloaded(true));
        self.publish();
    }

    /// Makes the configured endpoints the members: keeps those that stay the same, and starts the
    /// tasks of new ones.
    pub(super) fn adopt_endpoints(self: &Rc<Self>) {
        let config = self.config();
        let old = self.members();
        let mut changes = Vec::new();
        let mut members = Vec::with_capacity(config.plan.discovery.endpoints.len());
        for endpoint in &config.plan.discovery.endpoints {
            let tls = self.network.trusts.of_endpoint(endpoint);
            let (plan, profiles) = (&config.plan, &config.profiles);
            let member = match old.iter().find(|member| member.is_same(endpoint)) {
                Some(same) => {
                    let event = same.follow(endpoint, plan, profiles, tls);
                    changes.push((Rc::clone(same), event));
                    Rc::clone(same)
                }
                None => self.added(endpoint, &config, tls),
            };
            members.push(member);
        }
        let is_kept = |old: &Rc<FleetMember>| members.iter().any(|new| Rc::ptr_eq(new, old));
        let removed: Vec<_> = old.into_iter().filter(|old| !is_kept(old)).collect();
        *self.endpoints.members.borrow_mut() = members;
        changes.extend(removed.into_iter().map(|old| (old, HealthEvent::Removed)));
        for (member, event) in changes {
            self.on_health(&member, event);
        }
    }

    /// A new endpoint, with the tasks that check it.
    fn added(
        self: &Rc<Self>,
        endpoint: &EndpointPlan,
        config: &ActiveConfig,
        tls: Option<TlsClient>,
    ) -> Rc<FleetMember> {
        let id = self.endpoints.next_id.get();
        self.endpoints.next_id.set(id + 1);
        let number = self.endpoints.free_number();
        let load = EndpointLoad::new(number, id);
        let member = FleetMember::new(id, endpoint, &config.plan, &config.profiles, (tls, load));
        let member = Rc::new(member);
        let (state, checked) = (Rc::clone(self), Rc::clone(&member));
        rt::spawn(async move { probe::watch(&state, &checked).await });
        let (state, awaited) = (Rc::clone(self), Rc::clone(&member));
        rt::spawn(async move {
            rt::sleep(FIRST_CHECK_WAIT).await;
            state.on_health(&awaited, HealthEvent::FirstCheckOverdue);
        });
        member
    }
}
