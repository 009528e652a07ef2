//! Which endpoints there are: at the start, and after a reload.
//!
//! An endpoint of the same name and URL as before stays what it is: it keeps its health, its
//! figures and its connections, and follows whatever else changed (contract: operations 9).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use olla_engine::rt;

use super::member::{FIRST_CHECK_MAX, Member};
use super::{State, discover, probe, snapshots};
use crate::catalogue::Rules;
use crate::config::{EndpointPlan, Plan};
use crate::providers::Profiles;
use crate::routing::aliases::Aliases;

impl State {
    /// Follows another configuration.
    pub(super) fn reload(
        self: &Rc<Self>,
        plan: Arc<Plan>,
        profiles: Arc<Profiles>,
        rules: Arc<Rules>,
    ) {
        let before = self.plan.borrow().discovery.model_discovery.enabled;
        let now = plan.discovery.model_discovery.enabled;
        *self.routes.borrow_mut() = Arc::new(snapshots::routes(&plan, &profiles));
        *self.aliases.borrow_mut() = Arc::new(Aliases::new(&plan.model_aliases));
        *self.plan.borrow_mut() = plan;
        *self.profiles.borrow_mut() = profiles;
        *self.rules.borrow_mut() = rules;
        self.trusts.forget();
        self.adopt_endpoints();
        if before != now {
            self.switch_discovery(now);
        }
        self.reloaded_rounds.notify();
        self.reloaded_sweeps.notify();
        self.catalogue_stale.set(true);
        self.totals.borrow_mut().reloaded(true);
        self.publish();
    }

    /// Makes the endpoints of the configuration members, keeping those that are the same, and
    /// starts the tasks of the others.
    pub(super) fn adopt_endpoints(self: &Rc<Self>) {
        let (plan, profiles) = (
            Arc::clone(&self.plan.borrow()),
            Arc::clone(&self.profiles.borrow()),
        );
        let old = self.members.take();
        let mut members = Vec::with_capacity(plan.discovery.endpoints.len());
        for endpoint in &plan.discovery.endpoints {
            let same = old.iter().find(|member| member.is_same(endpoint));
            let member = match same {
                Some(member) => {
                    let tls = self.trusts.of_endpoint(endpoint);
                    if member.follow(endpoint, &plan, &profiles, tls) {
                        self.look_anew(member);
                    }
                    Rc::clone(member)
                }
                None => self.new_member(endpoint, &plan, &profiles),
            };
            members.push(member);
        }
        let is_gone = |old: &&Rc<Member>| !members.iter().any(|new| Rc::ptr_eq(new, old));
        for gone in old.iter().filter(is_gone) {
            gone.removed.set(true);
            gone.moved.notify();
            self.common.sticky.purge(gone.id);
        }
        *self.members.borrow_mut() = members;
    }

    fn new_member(
        self: &Rc<Self>,
        endpoint: &EndpointPlan,
        plan: &Plan,
        profiles: &Profiles,
    ) -> Rc<Member> {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let tls = self.trusts.of_endpoint(endpoint);
        let member = Rc::new(Member::new(id, endpoint, plan, profiles, tls));
        let (state, watched) = (Rc::clone(self), Rc::clone(&member));
        rt::spawn(async move { probe::watch(&state, &watched).await });
        let (state, awaited) = (Rc::clone(self), Rc::clone(&member));
        rt::spawn(async move {
            rt::sleep(FIRST_CHECK_MAX).await;
            if !awaited.settled.get() {
                // Nobody waits for it any more.
                state.dirty.notify();
            }
        });
        member
    }

    /// Checks and lists an endpoint whose configuration has changed; until then it stands as it
    /// stood.
    fn look_anew(self: &Rc<Self>, member: &Rc<Member>) {
        member.next_check.set(Instant::now());
        member.moved.notify();
        let discovers = self.plan.borrow().discovery.model_discovery.enabled;
        if discovers && member.status.get().is_routable() {
            discover::at_once(self, member);
        }
    }

    /// Discovery was switched on or off: without it there are no models (contract: catalogue 3.1).
    fn switch_discovery(self: &Rc<Self>, on: bool) {
        for member in self.members.borrow().iter() {
            if !on {
                member.forget_models();
            } else if member.status.get().is_routable() {
                discover::at_once(self, member);
            }
        }
    }
}
