//! One endpoint as the control thread keeps it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::limit::Bucket;

use super::schedule::{later, wait};
use super::{Signal, wall};
use crate::catalogue::Listing;
use crate::config::{AUTO, EndpointPlan};
use crate::fleet::{Endpoint, Health, Live, Status};
use crate::gateway::Backend;
use crate::operations::provider::Extractor;
use crate::providers::Profile;

/// See the module.
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) plan: Arc<EndpointPlan>,
    pub(super) profile: RefCell<Arc<Profile>>,
    pub(super) backend: RefCell<Arc<Backend>>,
    pub(super) status: Cell<Status>,
    /// Whether its first check has ended.
    pub(super) checked: Cell<bool>,
    /// Whether, if it was healthy, its models were asked for too.
    pub(super) settled: Cell<bool>,
    pub(super) failures: Cell<u32>,
    pub(super) last_check: Cell<Option<Instant>>,
    pub(super) next_check: Cell<Instant>,
    /// It asked to be left alone until then.
    pub(super) not_before: Cell<Option<Instant>>,
    pub(super) response_time: Cell<Option<Duration>>,
    pub(super) addresses: RefCell<Arc<[SocketAddr]>>,
    pub(super) listing: RefCell<Arc<Listing>>,
    /// Its next check has moved, or it was removed.
    pub(super) moved: Signal,
    pub(super) removed: Cell<bool>,
    /// See [`Endpoint::lost_heard`].
    lost_heard: Cell<u32>,
    pub(super) live: Arc<Live>,
    pub(super) bucket: Option<Arc<Bucket>>,
    pub(super) extractor: RefCell<Arc<Extractor>>,
}

impl Member {
    pub(super) fn new(
        id: u32,
        plan: EndpointPlan,
        profile: Arc<Profile>,
        backend: Backend,
        bucket: Option<Arc<Bucket>>,
    ) -> Self {
        // An address needs no resolving, so that the first request need not wait for a check.
        let address = plan
            .url
            .host
            .parse()
            .map(|ip| SocketAddr::new(ip, plan.url.port));
        let addresses: Arc<[SocketAddr]> =
            address.map_or_else(|_| Arc::from([]), |a| Arc::from([a]));
        let (extractor, _) = Extractor::compile(&profile.name, &profile.metrics);
        let extractor = Arc::new(extractor);
        Self {
            id,
            plan: Arc::new(plan),
            profile: RefCell::new(profile),
            backend: RefCell::new(Arc::new(backend)),
            status: Cell::new(Status::Unknown),
            checked: Cell::new(false),
            settled: Cell::new(false),
            failures: Cell::new(0),
            last_check: Cell::new(None),
            next_check: Cell::new(Instant::now()),
            not_before: Cell::new(None),
            response_time: Cell::new(None),
            addresses: RefCell::new(addresses),
            listing: RefCell::default(),
            moved: Signal::default(),
            removed: Cell::new(false),
            lost_heard: Cell::new(0),
            live: Arc::default(),
            bucket,
            extractor: RefCell::new(extractor),
        }
    }

    /// Whether it is what a plan says, so that a reload leaves it alone.
    pub(super) fn is_same(&self, plan: &EndpointPlan) -> bool {
        *self.plan == *plan
    }

    pub(super) fn is_auto(&self) -> bool {
        self.plan.kind == AUTO
    }

    /// Counts a failure of live traffic and moves the next check accordingly.
    pub(super) fn failed_live(&self, now: Instant) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let due = now + wait(self.plan.check_interval, failures);
        self.next_check.set(later(due, self.not_before.get()));
        self.moved.notify();
    }

    /// Its status is now as of this moment: what the cores found out before is settled.
    pub(super) fn hear(&self) {
        self.lost_heard.set(self.live.lost());
    }

    /// Takes on another profile, when its type was found out.
    pub(super) fn set_profile(&self, profile: Arc<Profile>) {
        if !Arc::ptr_eq(&self.profile.borrow(), &profile) {
            let (extractor, _) = Extractor::compile(&profile.name, &profile.metrics);
            *self.extractor.borrow_mut() = Arc::new(extractor);
            *self.profile.borrow_mut() = profile;
        }
    }

    pub(super) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile.borrow())
    }

    /// As the cores see it.
    pub(super) fn endpoint(&self) -> Endpoint {
        let listing = self.listing.borrow();
        Endpoint {
            id: self.id,
            plan: Arc::clone(&self.plan),
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
            last_model_sync: listing.synced_at,
            model_count: listing.models.len(),
            lost_heard: self.lost_heard.get(),
            live: Arc::clone(&self.live),
        }
    }
}
