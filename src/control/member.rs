//! One endpoint as the control thread keeps it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::limit::{Bucket, Rate};
use olla_engine::tls::TlsClient;

use super::{Signal, wall};
use crate::config::{AUTO, EndpointPlan, Plan};
use crate::fleet::Upstream;
use crate::fleet::health::schedule::backoff as wait;
use crate::fleet::{Endpoint, Health, Live, Status};
use crate::providers::figures::Extractor;
use crate::providers::{ListedModel, Profile, Profiles};

/// When the first check of an endpoint counts as over, whether it has answered or not (contract:
/// README 13).
pub(super) const FIRST_CHECK_MAX: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Member {
    pub(super) id: u32,
    /// When it was taken up.
    pub(super) born: Instant,
    plan: RefCell<Arc<EndpointPlan>>,
    profile: RefCell<Arc<Profile>>,
    upstream: RefCell<Arc<Upstream>>,
    /// With `type = "auto"`: its type was found out.
    pub(super) found: Cell<bool>,
    pub(super) status: Cell<Status>,
    /// Whether its first check has ended.
    pub(super) checked: Cell<bool>,
    /// Whether, if it was healthy, its models were asked for too.
    pub(super) settled: Cell<bool>,
    pub(super) failures: Cell<u32>,
    /// Whether its last check failed.
    pub(super) failed_check: Cell<bool>,
    pub(super) last_check: Cell<Option<Instant>>,
    pub(super) next_check: Cell<Instant>,
    /// It asked to be left alone until then.
    pub(super) not_before: Cell<Option<Instant>>,
    pub(super) response_time: Cell<Option<Duration>>,
    pub(super) addresses: RefCell<Arc<[SocketAddr]>>,
    /// What it listed last, after its model filter.
    models: RefCell<Arc<[ListedModel]>>,
    /// When.
    synced_at: Cell<Option<SystemTime>>,
    /// When, by the clock that nobody sets.
    listed_at: Cell<Option<Instant>>,
    /// Its next check has moved, or it was removed.
    pub(super) moved: Signal,
    pub(super) removed: Cell<bool>,
    /// See [`Endpoint::lost_heard`].
    lost_heard: Cell<u32>,
    pub(super) live: Arc<Live>,
    rate: Cell<Option<Rate>>,
    bucket: RefCell<Option<Arc<Bucket>>>,
    extractor: RefCell<Arc<Extractor>>,
}

impl Member {
    /// A new one, of which nothing is known yet.
    pub(super) fn new(
        id: u32,
        endpoint: &EndpointPlan,
        plan: &Plan,
        profiles: &Profiles,
        tls: Option<TlsClient>,
    ) -> Self {
        // An address needs no resolving, so that the first request need not wait for a check.
        let ip = endpoint.url.host.parse();
        let address = ip.map(|ip| SocketAddr::new(ip, endpoint.url.port));
        let addresses: Arc<[SocketAddr]> =
            address.map_or_else(|_| Arc::from([]), |a| Arc::from([a]));
        let profile = profile_of(endpoint, profiles);
        let now = Instant::now();
        let rate = rate_of(endpoint, plan);
        Self {
            id,
            born: now,
            plan: RefCell::new(Arc::new(endpoint.clone())),
            extractor: RefCell::new(Arc::new(extractor_of(&profile))),
            profile: RefCell::new(profile),
            upstream: RefCell::new(Arc::new(upstream_of(endpoint, plan, tls))),
            found: Cell::new(false),
            status: Cell::new(Status::Unknown),
            checked: Cell::new(false),
            settled: Cell::new(false),
            failures: Cell::new(0),
            failed_check: Cell::new(false),
            last_check: Cell::new(None),
            next_check: Cell::new(now),
            not_before: Cell::new(None),
            response_time: Cell::new(None),
            addresses: RefCell::new(addresses),
            models: RefCell::default(),
            synced_at: Cell::new(None),
            listed_at: Cell::new(None),
            moved: Signal::default(),
            removed: Cell::new(false),
            lost_heard: Cell::new(0),
            live: Arc::default(),
            rate: Cell::new(rate),
            bucket: RefCell::new(rate.map(|rate| Arc::new(Bucket::new(rate)))),
        }
    }

    /// Whether it is the one that a plan names, so that a reload keeps its health, figures and
    /// connections (contract: operations 9).
    pub(super) fn is_same(&self, plan: &EndpointPlan) -> bool {
        let own = self.plan.borrow();
        own.name == plan.name && own.url == plan.url
    }

    /// Follows what a reload says of it. True: it should be checked and listed anew.
    pub(super) fn follow(
        &self,
        endpoint: &EndpointPlan,
        plan: &Plan,
        profiles: &Profiles,
        tls: Option<TlsClient>,
    ) -> bool {
        let rate = rate_of(endpoint, plan);
        if self.rate.replace(rate) != rate {
            *self.bucket.borrow_mut() = rate.map(|rate| Arc::new(Bucket::new(rate)));
        }
        *self.upstream.borrow_mut() = Arc::new(upstream_of(endpoint, plan, tls));
        let changed = *self.plan.borrow().as_ref() != *endpoint;
        let kept = self.found.get() && self.is_auto() && endpoint.kind == AUTO;
        let known = kept.then(|| profiles.get(&self.profile().name)).flatten();
        self.found.set(known.is_some());
        let profile = known.map_or_else(|| profile_of(endpoint, profiles), Arc::clone);
        let other = *profile != **self.profile.borrow();
        if changed {
            *self.plan.borrow_mut() = Arc::new(endpoint.clone());
        }
        if other {
            self.set_profile(profile);
        }
        changed || other
    }

    /// What was configured.
    pub(super) fn plan(&self) -> Arc<EndpointPlan> {
        Arc::clone(&self.plan.borrow())
    }

    pub(super) fn is_auto(&self) -> bool {
        self.plan.borrow().kind == AUTO
    }

    /// Counts a failure of live traffic and moves the next check accordingly.
    pub(super) fn failed_live(&self, now: Instant) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let due = now + wait(self.plan.borrow().check_interval, failures);
        self.next_check
            .set(self.not_before.get().map_or(due, |rest| due.max(rest)));
        self.moved.notify();
    }

    /// Its status is now as of this moment: what the cores found out before is settled.
    pub(super) fn hear(&self) {
        self.lost_heard.set(self.live.lost());
    }

    /// Takes on another profile.
    pub(super) fn set_profile(&self, profile: Arc<Profile>) {
        *self.extractor.borrow_mut() = Arc::new(extractor_of(&profile));
        *self.profile.borrow_mut() = profile;
    }

    pub(super) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile.borrow())
    }

    pub(super) fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.upstream.borrow())
    }

    pub(super) fn models(&self) -> Arc<[ListedModel]> {
        Arc::clone(&self.models.borrow())
    }

    /// Takes in what it has listed now. False: the same as before.
    pub(super) fn listed(&self, models: Vec<ListedModel>) -> bool {
        self.listed_at.set(Some(Instant::now()));
        self.synced_at.set(Some(SystemTime::now()));
        let mut known = self.models.borrow_mut();
        let is_news = **known != *models;
        if is_news {
            *known = models.into();
        }
        is_news
    }

    /// Forgets its models. False: there were none.
    pub(super) fn forget_models(&self) -> bool {
        !self.models.take().is_empty()
    }

    /// Whether its models were listed so long ago that they count as gone.
    pub(super) fn is_stale(&self, threshold: Duration) -> bool {
        let listed_at = self.listed_at.get();
        listed_at.is_some_and(|at| at.elapsed() > threshold)
    }

    /// Whether requests may wait for its first check (contract: README 13).
    pub(super) fn is_awaited(&self) -> bool {
        !self.settled.get() && self.born.elapsed() < FIRST_CHECK_MAX
    }

    /// As the cores see it.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            id: self.id,
            plan: self.plan(),
            profile: self.profile(),
            is_auto: self.is_auto(),
            status: self.status.get(),
            health: Health {
                checked_at: self.last_check.get().map(wall),
                next_check_at: self.last_check.get().map(|_| wall(self.next_check.get())),
                response_time: self.response_time.get(),
                consecutive_failures: self.failures.get(),
            },
            addresses: Arc::clone(&self.addresses.borrow()),
            last_model_sync: self.synced_at.get(),
            model_count: self.models.borrow().len(),
            lost_heard: self.lost_heard.get(),
            upstream: self.upstream(),
            bucket: self.bucket.borrow().clone(),
            extractor: Arc::clone(&self.extractor.borrow()),
            live: Arc::clone(&self.live),
        }
    }
}

fn profile_of(endpoint: &EndpointPlan, profiles: &Profiles) -> Arc<Profile> {
    let named = profiles.get(&endpoint.kind).cloned();
    named.unwrap_or_else(|| profiles.fallback())
}

fn extractor_of(profile: &Profile) -> Extractor {
    // What is wrong with its formulas was said when the profiles were read.
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

fn rate_of(endpoint: &EndpointPlan, plan: &Plan) -> Option<Rate> {
    let rates = &plan.server.rate_limits;
    let rate = rates.per_endpoint.of(&endpoint.name);
    rate.map(|rate| Rate::new(rate, rates.burst_size))
}
