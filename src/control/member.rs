//! The state of one endpoint in the control thread: health, configuration and models.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::limit::{Bucket, Rate};
use olla_engine::rt;
use olla_engine::tls::TlsClient;

use super::misses::MissTurn;
use super::reading_record::MemberReadings;
use super::signal::Signal;
use crate::config::{AUTO, EndpointPlan, Plan};
use crate::fleet::health::suspicion::Suspicion;
use crate::fleet::health::{Health, HealthChange, HealthEvent, HealthSettings};
use crate::fleet::{CheckFigures, Endpoint, Errors, Live, Status, Upstream};
use crate::providers::figures::Extractor;
use crate::providers::{ListedModel, Profile, Profiles};
use crate::schedule::EndpointLoad;

/// One endpoint.
pub(super) struct FleetMember {
    pub(super) id: u32,
    pub(super) live: Arc<Live>,
    pub(super) load: Arc<EndpointLoad>,
    /// Raised when idle connections must not be used any more.
    generation: Cell<u32>,
    health: RefCell<Health>,
    /// Raised when the next check is rescheduled or the endpoint is removed.
    pub(super) rescheduled: Signal,
    options: RefCell<Options>,
    addresses: RefCell<Arc<[SocketAddr]>>,
    listing: RefCell<Listing>,
    pub(super) suspicion: Cell<Suspicion>,
    /// When it may be listed for a missing model.
    pub(super) miss_turn: Cell<MissTurn>,
    pub(super) errors: RefCell<Errors>,
    pub(super) readings: MemberReadings,
}

/// The configuration of the endpoint, and what is derived from it.
struct Options {
    plan: Arc<EndpointPlan>,
    profile: Arc<Profile>,
    /// With `type = "auto"`: whether the profile is that of the detected type.
    is_detected: bool,
    upstream: Arc<Upstream>,
    extractor: Arc<Extractor>,
    limit: Option<(Rate, Arc<Bucket>)>,
}

/// The models of the last listing, after the endpoint's model filter.
#[derive(Default)]
struct Listing {
    models: Arc<[ListedModel]>,
    /// The time of the listing, on both clocks.
    at: Option<(Instant, SystemTime)>,
    /// The context of each request in tokens, as the endpoint says apart from the listing.
    served_context: Option<u64>,
}

impl FleetMember {
    /// A new endpoint.
    pub(super) fn new(
        id: u32,
        endpoint: &EndpointPlan,
        plan: &Plan,
        profiles: &Profiles,
        (tls, load): (Option<TlsClient>, EndpointLoad),
    ) -> Self {
        // A numeric address is not resolved, so the first request does not wait for a check.
        let ip = endpoint.url.host.parse();
        let address = ip.map(|ip| SocketAddr::new(ip, endpoint.url.port));
        let profile = profile_of(endpoint, profiles);
        configure(&load, endpoint, plan);
        Self {
            id,
            live: Arc::default(),
            load: Arc::new(load),
            generation: Cell::new(0),
            health: RefCell::new(Health::new(settings_of(endpoint, plan), Instant::now())),
            rescheduled: Signal::default(),
            options: RefCell::new(Options {
                plan: Arc::new(endpoint.clone()),
                extractor: Arc::new(extractor_of(&profile)),
                profile,
                is_detected: false,
                upstream: Arc::new(upstream_of(endpoint, plan, tls)),
                limit: rate_of(endpoint, plan).map(full),
            }),
            addresses: RefCell::new(address.into_iter().collect()),
            listing: RefCell::default(),
            suspicion: Cell::default(),
            miss_turn: Cell::default(),
            errors: RefCell::default(),
            readings: MemberReadings::default(),
        }
    }

    /// Whether a plan describes this endpoint, so that a reload keeps its health, statistics and
    /// connections (docs/contract/operations.md#9).
    pub(super) fn is_same(&self, plan: &EndpointPlan) -> bool {
        let own = &self.options.borrow().plan;
        own.name == plan.name && own.url == plan.url
    }

    /// Adopts another configuration. Returns the event for its health.
    pub(super) fn follow(
        &self,
        endpoint: &EndpointPlan,
        plan: &Plan,
        profiles: &Profiles,
        tls: Option<TlsClient>,
    ) -> HealthEvent {
        configure(&self.load, endpoint, plan);
        let options = &mut *self.options.borrow_mut();
        let rate = rate_of(endpoint, plan);
        if options.limit.as_ref().map(|(rate, _)| *rate) != rate {
            options.limit = rate.map(full);
        }
        options.upstream = Arc::new(upstream_of(endpoint, plan, tls));
        // The file may have another content, which is trusted from now on.
        if options.plan.tls != endpoint.tls || endpoint.tls.ca_file.is_some() {
            self.leave_connections();
        }
        let stays_auto = options.is_auto() && endpoint.kind == AUTO;
        let detected = (options.is_detected && stays_auto)
            .then(|| profiles.get(&options.profile.name))
            .flatten();
        options.is_detected = detected.is_some();
        let profile = detected.map_or_else(|| profile_of(endpoint, profiles), Arc::clone);
        let mut is_changed = false;
        if *options.plan != *endpoint {
            options.plan = Arc::new(endpoint.clone());
            is_changed = true;
        }
        if *options.profile != *profile {
            options.set_profile(profile);
            is_changed = true;
        }
        if is_changed {
            self.readings.forget();
        }
        HealthEvent::Configured {
            settings: settings_of(endpoint, plan),
            is_changed,
        }
    }

    /// Feeds an event to the health of the endpoint.
    /// [`ControlState::on_health`](super::state::ControlState::on_health) executes the resulting
    /// actions.
    pub(super) fn on_health(&self, event: HealthEvent) -> HealthChange {
        self.health.borrow_mut().on(event, Instant::now())
    }

    pub(super) fn status(&self) -> Status {
        self.health.borrow().status()
    }

    pub(super) fn is_routable(&self) -> bool {
        self.status().is_routable()
    }

    pub(super) fn is_removed(&self) -> bool {
        self.health.borrow().is_removed()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.health.borrow().is_settled()
    }

    /// Whether requests may wait for the first check (docs/contract/README.md#13).
    pub(super) fn is_awaited(&self) -> bool {
        self.health.borrow().is_awaited(Instant::now())
    }

    /// Waits until the next check is due, or the endpoint is removed.
    pub(super) async fn next_check(&self) {
        loop {
            self.rescheduled.take();
            let next = self.health.borrow().next_check();
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_removed() {
                return;
            }
            let _ = rt::timeout(left, self.rescheduled.wait()).await;
        }
    }

    /// The configuration of the endpoint.
    pub(super) fn plan(&self) -> Arc<EndpointPlan> {
        Arc::clone(&self.options.borrow().plan)
    }

    pub(super) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.options.borrow().profile)
    }

    /// Whether the type of server has yet to be detected.
    pub(super) fn is_undetected(&self) -> bool {
        let options = self.options.borrow();
        options.is_auto() && !options.is_detected
    }

    /// Forgets the detected type of server, so that `type = "auto"` detects it again.
    pub(super) fn forget_detected(&self) {
        self.options.borrow_mut().is_detected = false;
    }

    /// Adopts the profile that the endpoint was listed with. Returns whether it differs from the
    /// last.
    pub(super) fn listed_as(&self, profile: Arc<Profile>) -> bool {
        let options = &mut *self.options.borrow_mut();
        options.is_detected = options.is_auto();
        let is_new = !Arc::ptr_eq(&options.profile, &profile);
        if is_new {
            options.set_profile(profile);
        }
        is_new
    }

    pub(super) fn set_addresses(&self, addresses: Arc<[SocketAddr]>) {
        let before = self.addresses.replace(addresses);
        if is_elsewhere(&before, &self.addresses.borrow()) {
            self.leave_connections();
        }
    }

    /// Makes requests open new connections; idle ones run into their time limit.
    fn leave_connections(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
    }

    pub(super) fn models(&self) -> Arc<[ListedModel]> {
        Arc::clone(&self.listing.borrow().models)
    }

    /// The number of its models.
    pub(super) fn model_count(&self) -> usize {
        self.listing.borrow().models.len()
    }

    /// Adopts a listing. Returns whether it differs from the last one.
    pub(super) fn listed(&self, mut models: Vec<ListedModel>) -> bool {
        let mut listing = self.listing.borrow_mut();
        self.set_served_context(&mut models, listing.served_context);
        listing.at = Some((Instant::now(), SystemTime::now()));
        let is_new = *listing.models != *models;
        if is_new {
            listing.models = models.into();
        }
        is_new
    }

    /// Adopts the context of each request in tokens, which it says apart from its listings; `None` =
    /// it says none. Returns whether its models have another one now.
    pub(super) fn serves(&self, context: Option<u64>) -> bool {
        let mut listing = self.listing.borrow_mut();
        if listing.served_context == context {
            return false;
        }
        listing.served_context = context;
        let mut models = listing.models.to_vec();
        self.set_served_context(&mut models, context);
        let is_new = *listing.models != *models;
        listing.models = models.into();
        is_new
    }

    /// What is served to one request counts over what a listing says, and less than what is
    /// configured (docs/contract/scheduling.md#6).
    fn set_served_context(&self, models: &mut [ListedModel], context: Option<u64>) {
        if context.is_some() && self.plan().context_length.is_none() {
            for model in models {
                model.served_context = context;
            }
        }
    }

    /// Drops the models. Returns whether there were any.
    pub(super) fn forget_models(&self) -> bool {
        let models = std::mem::take(&mut self.listing.borrow_mut().models);
        !models.is_empty()
    }

    /// Whether the last listing is older than the threshold, so that its models are dropped.
    pub(super) fn is_stale(&self, threshold: Duration) -> bool {
        let at = self.listing.borrow().at;
        at.is_some_and(|(at, _)| at.elapsed() > threshold)
    }

    /// The record that the cores see.
    pub(super) fn endpoint(&self) -> Endpoint {
        let (health, options) = (self.health.borrow(), self.options.borrow());
        let listing = self.listing.borrow();
        let last_check = health.last_check();
        Endpoint {
            id: self.id,
            pool_key: u64::from(self.generation.get()) << 32 | u64::from(self.id),
            plan: Arc::clone(&options.plan),
            profile: Arc::clone(&options.profile),
            is_auto: options.is_auto(),
            status: health.status(),
            health: CheckFigures {
                checked_at: last_check.map(wall),
                next_check_at: last_check.map(|_| wall(health.next_check())),
                response_time: health.response_time(),
                consecutive_failures: health.failures(),
            },
            addresses: Arc::clone(&self.addresses.borrow()),
            last_model_sync: listing.at.map(|(_, at)| at),
            model_count: listing.models.len(),
            acknowledged_losses: health.acknowledged_losses(),
            upstream: Arc::clone(&options.upstream),
            bucket: options.limit.as_ref().map(|(_, bucket)| Arc::clone(bucket)),
            extractor: Arc::clone(&options.extractor),
            errors: self.errors.borrow().clone(),
            live: Arc::clone(&self.live),
            load: Arc::clone(&self.load),
        }
    }
}

impl Options {
    fn is_auto(&self) -> bool {
        self.plan.kind == AUTO
    }

    fn set_profile(&mut self, profile: Arc<Profile>) {
        self.extractor = Arc::new(extractor_of(&profile));
        self.profile = profile;
    }
}

/// Whether an endpoint has left all of its addresses.
fn is_elsewhere(before: &[SocketAddr], now: &[SocketAddr]) -> bool {
    !before.is_empty() && !before.iter().any(|address| now.contains(address))
}

fn settings_of(endpoint: &EndpointPlan, plan: &Plan) -> HealthSettings {
    HealthSettings {
        check_interval: endpoint.check_interval,
        check_timeout: endpoint.check_timeout,
        fall: plan.discovery.health_check.fall,
        rise: plan.discovery.health_check.rise,
        discovers: plan.discovery.model_discovery.enabled,
    }
}

fn profile_of(endpoint: &EndpointPlan, profiles: &Profiles) -> Arc<Profile> {
    let named = profiles.get(&endpoint.kind).cloned();
    named.unwrap_or_else(|| profiles.fallback())
}

fn extractor_of(profile: &Profile) -> Extractor {
    // Errors in its formulas were reported when the profiles were read.
    Extractor::compile(&profile.name, &profile.metrics).0
}

fn upstream_of(endpoint: &EndpointPlan, plan: &Plan, tls: Option<TlsClient>) -> Upstream {
    let proxy = &plan.proxy;
    Upstream::new(
        endpoint,
        proxy.connection_keep_alive,
        proxy.idle_connection_timeout,
        tls,
    )
}

/// Takes over what the configuration says of an endpoint's slots and cache.
fn configure(load: &EndpointLoad, endpoint: &EndpointPlan, plan: &Plan) {
    let cache = endpoint
        .cache_tokens
        .map_or(plan.proxy.least_time.cache_tokens, NonZeroU32::get);
    load.configure(endpoint.max_concurrent.map_or(0, NonZeroU32::get), cache);
}

fn rate_of(endpoint: &EndpointPlan, plan: &Plan) -> Option<Rate> {
    let rates = &plan.server.rate_limits;
    let rate = rates.per_endpoint.of(&endpoint.name);
    rate.map(|rate| Rate::new(rate, rates.burst_size))
}

/// A limit with a full bucket.
fn full(rate: Rate) -> (Rate, Arc<Bucket>) {
    (rate, Arc::new(Bucket::new(rate)))
}

/// Converts a time of the monotonic clock to the system's clock, for display.
fn wall(at: Instant) -> SystemTime {
    let now = Instant::now();
    let system = SystemTime::now();
    match at.checked_duration_since(now) {
        Some(ahead) => system + ahead,
        None => system
            .checked_sub(now.saturating_duration_since(at))
            .unwrap_or(system),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_moves_leaves_its_connections() {
        let at = |last: &[u8]| -> Vec<SocketAddr> {
            let all = last
                .iter()
                .map(|last| SocketAddr::from(([127, 0, 0, *last], 80)));
            all.collect()
        };
        let table = [
            (&[][..], &[1][..], false),
            (&[1], &[1], false),
            (&[1, 2], &[2, 1], false),
            (&[1, 2], &[2, 3], false),
            (&[1], &[2], true),
            (&[1, 2], &[3, 4], true),
        ];
        for (before, now, want) in table {
            assert_eq!(
                is_elsewhere(&at(before), &at(now)),
                want,
                "{before:?} {now:?}"
            );
        }
    }
}
