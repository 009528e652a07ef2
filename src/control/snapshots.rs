//! Builds snapshots of the state and publishes them to the cores.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::member::FleetMember;
use super::state::{ActiveConfig, ControlState, Models};
use crate::access::Access;
use crate::catalogue::{Catalogue, CatalogueOptions, CatalogueSource, ModelRules};
use crate::config::Plan;
use crate::endpoint_set::EndpointSet;
use crate::fleet::{Endpoint, Fleet};
use crate::log::events::CATALOGUE_BUILT;
use crate::log::{Level, Value};
use crate::providers::Profiles;
use crate::routing::names::ModelIndex;
use crate::routing::scope::Scopes;
use crate::shared::{Limiters, Snapshot};

/// The initial snapshot, until the control thread publishes the first one. It has no endpoints, and
/// the first round of checks is not over.
pub(crate) fn first_snapshot(
    plan: &Arc<Plan>,
    profiles: &Arc<Profiles>,
    rules: &Arc<ModelRules>,
    limiters: Arc<Limiters>,
    access: Arc<Access>,
) -> Snapshot {
    let (plan, profiles, rules) = (Arc::clone(plan), Arc::clone(profiles), Arc::clone(rules));
    let config = ActiveConfig::new(plan, profiles, rules, limiters);
    snapshot_of(&config, access, &Models::default(), Vec::new())
}

impl ControlState {
    /// Builds a snapshot and publishes it to every core.
    pub(super) fn publish(&self) {
        if std::mem::take(&mut self.models.borrow_mut().is_stale) {
            self.rebuild_catalogue();
        }
        let snapshot = self.snapshot();
        self.outlet.broadcast.publish(Arc::new(snapshot));
        self.outlet.cores.wake();
        self.reconsider();
        self.outlet.published.notify();
    }

    fn snapshot(&self) -> Snapshot {
        let version = self.outlet.version.get();
        self.outlet.version.set(version + 1);
        let members = self.endpoints.members.borrow();
        let endpoints: Vec<_> = members.iter().map(|member| member.endpoint()).collect();
        let mut snapshot = snapshot_of(
            &self.config(),
            self.common.access.newest(),
            &self.models.borrow(),
            endpoints,
        );
        snapshot.fleet.version = version;
        snapshot.fleet.started = self.endpoints.is_first_round_over.get();
        snapshot.fleet.unchecked = places(&members, FleetMember::is_awaited);
        snapshot
    }

    fn rebuild_catalogue(&self) {
        let begun = Instant::now();
        let members = self.members();
        let config = self.config();
        let plan = &config.plan;
        let profiles: Vec<_> = members.iter().map(|member| member.profile()).collect();
        let plans: Vec<_> = members.iter().map(|member| member.plan()).collect();
        let listings: Vec<_> = members.iter().map(|member| member.models()).collect();
        let sources: Vec<_> = members
            .iter()
            .zip(&plans)
            .zip(profiles.iter().zip(&listings))
            .map(|((member, plan), (profile, models))| CatalogueSource {
                name: &plan.name,
                profile,
                routable: member.is_routable(),
                url_key: &plan.url.display,
                models,
            })
            .collect();
        let routable = sources.iter().filter(|source| source.routable);
        let names = routable.flat_map(|source| source.models.iter().map(|model| &model.name));
        let mut available: Vec<_> = names.map(Arc::clone).collect();
        available.sort_unstable();
        available.dedup();
        let now = SystemTime::now();
        self.models.borrow_mut().outages.update(available, now);
        let options = CatalogueOptions {
            aliases: &plan.model_aliases,
            enable_unifier: plan.model_registry.enable_unifier,
            rules: &config.rules,
            now: SystemTime::now(),
        };
        let previous = Arc::clone(&self.models.borrow().catalogue);
        let catalogue = Catalogue::build(&sources, &options, Some(&previous));
        let is_new = !catalogue.has_models_of(&previous);
        if is_new {
            let listings = profiles.iter().zip(&listings).enumerate();
            let names = listings.map(|(index, (profile, models))| {
                let names = models.iter().map(|model| Arc::clone(&model.name));
                (index, profile.completes_tags(), names)
            });
            self.models.borrow_mut().index = Arc::new(ModelIndex::build(names));
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
        self.models.borrow_mut().catalogue = Arc::new(catalogue);
    }
}

fn snapshot_of(
    config: &ActiveConfig,
    access: Arc<Access>,
    models: &Models,
    endpoints: Vec<Endpoint>,
) -> Snapshot {
    let is_routable = |endpoint: &Endpoint| endpoint.status.is_routable();
    Snapshot {
        scopes: Scopes::new(config.profiles.all(), &endpoints),
        routes: Arc::clone(&config.routes),
        aliases: Arc::clone(&config.aliases),
        catalogue: Arc::clone(&models.catalogue),
        missing: models.outages.missing().clone(),
        models: Arc::clone(&models.index),
        limiters: Arc::clone(&config.limiters),
        access,
        fleet: Fleet {
            version: 0,
            plan: Arc::clone(&config.plan),
            routable: places(&endpoints, is_routable),
            unchecked: EndpointSet::EMPTY,
            endpoints,
            started: false,
        },
    }
}

/// The places of the elements that fit.
fn places<T: Borrow<M>, M>(all: &[T], fits: impl Fn(&M) -> bool) -> EndpointSet {
    let places = all.iter().enumerate();
    places
        .filter(|(_, one)| fits((*one).borrow()))
        .map(|(place, _)| place)
        .collect()
}
