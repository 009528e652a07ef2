//! Making snapshots of the state, and handing them out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::State;
use super::member::Member;
use crate::catalogue::{Catalogue, Options, Source};
use crate::config::Plan;
use crate::endpoint_set::EndpointSet;
use crate::fleet::Fleet;
use crate::log::events::CATALOGUE_BUILT;
use crate::log::{Level, Value};
use crate::providers::Profiles;
use crate::routing::aliases::Aliases;
use crate::routing::names::ModelIndex;
use crate::routing::route::RouteTable;
use crate::routing::scope::Scopes;
use crate::shared::Snapshot;

/// The routes of a configuration.
pub(super) fn routes(plan: &Plan, profiles: &Profiles) -> RouteTable {
    RouteTable::new(profiles.all(), &plan.translators)
}

/// What the cores begin with, for the moment until the control thread has looked around: all
/// endpoints are there and none has been checked.
pub fn first_snapshot(plan: &Arc<Plan>, profiles: &Arc<Profiles>) -> Snapshot {
    Snapshot {
        scopes: Scopes::new(profiles.all(), &[]),
        routes: Arc::new(routes(plan, profiles)),
        aliases: Arc::new(Aliases::new(&plan.model_aliases)),
        models: Arc::default(),
        fleet: Fleet {
            version: 0,
            plan: Arc::clone(plan),
            profiles: Arc::clone(profiles),
            endpoints: Vec::new(),
            catalogue: Arc::default(),
            routable: EndpointSet::EMPTY,
            unchecked: EndpointSet::EMPTY,
            started: false,
        },
    }
}

impl State {
    /// Makes a snapshot and hands it to every core.
    pub(super) fn publish(&self) {
        if self.catalogue_stale.replace(false) {
            self.rebuild_catalogue();
        }
        let snapshot = self.snapshot();
        self.broadcast.publish(Arc::new(snapshot));
        self.mailboxes.ring();
        self.published.notify();
    }

    fn snapshot(&self) -> Snapshot {
        let version = self.version.replace(self.version.get() + 1);
        let members = self.members.borrow();
        let profiles = Arc::clone(&self.profiles.borrow());
        let endpoints: Vec<_> = members.iter().map(|member| member.endpoint()).collect();
        let started = self.started.get();
        let unchecked = places(&members, Member::is_awaited);
        Snapshot {
            scopes: Scopes::new(profiles.all(), &endpoints),
            routes: Arc::clone(&self.routes.borrow()),
            aliases: Arc::clone(&self.aliases.borrow()),
            models: Arc::clone(&self.models.borrow()),
            fleet: Fleet {
                version,
                plan: Arc::clone(&self.plan.borrow()),
                profiles,
                routable: routable(&members),
                unchecked,
                endpoints,
                catalogue: Arc::clone(&self.catalogue.borrow()),
                started,
            },
        }
    }

    fn rebuild_catalogue(&self) {
        let begun = Instant::now();
        let members = self.members.borrow();
        let plan = Arc::clone(&self.plan.borrow());
        let profiles: Vec<_> = members.iter().map(|member| member.profile()).collect();
        let plans: Vec<_> = members.iter().map(|member| member.plan()).collect();
        let listings: Vec<_> = members.iter().map(|member| member.models()).collect();
        let sources: Vec<_> = members
            .iter()
            .zip(&plans)
            .zip(profiles.iter().zip(&listings))
            .map(|((member, plan), (profile, models))| Source {
                name: &plan.name,
                profile,
                routable: member.status.get().is_routable(),
                url_key: &plan.url.display,
                models,
            })
            .collect();
        let rules = Arc::clone(&self.rules.borrow());
        let options = Options {
            aliases: &plan.model_aliases,
            enable_unifier: plan.model_registry.enable_unifier,
            rules: &rules,
            now: SystemTime::now(),
        };
        let previous = Arc::clone(&self.catalogue.borrow());
        let catalogue = Catalogue::build(&sources, &options, Some(&previous));
        let is_new = !catalogue.has_models_of(&previous);
        if is_new {
            let listings = profiles.iter().zip(&listings).enumerate();
            let names = listings.map(|(index, (profile, models))| {
                let names = models.iter().map(|model| Arc::clone(&model.name));
                (index, profile.completes_tags(), names)
            });
            *self.models.borrow_mut() = Arc::new(ModelIndex::build(names));
        }
        let listed: usize = listings.iter().map(|models| models.len()).sum();
        let took = crate::clock::millis(begun.elapsed());
        let fields = [
            (
                "changed",
                Value::Str(if is_new { "models" } else { "health" }),
            ),
            ("models", Value::Num(catalogue.entries().len() as u64)),
            ("listed", Value::Num(listed as u64)),
            ("duration_ms", Value::Num(took)),
        ];
        self.logger.emit(Level::Debug, CATALOGUE_BUILT, &fields);
        *self.catalogue.borrow_mut() = Arc::new(catalogue);
    }
}

fn routable(members: &[Rc<Member>]) -> EndpointSet {
    places(members, |member| member.status.get().is_routable())
}

fn places(members: &[Rc<Member>], fits: impl Fn(&Member) -> bool) -> EndpointSet {
    let indices = members.iter().enumerate();
    indices
        .filter(|(_, member)| fits(member))
        .map(|(index, _)| index)
        .collect()
}
