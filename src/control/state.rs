//! The state of the control thread, shared by its tasks.
//!
//! It holds data only. The modules beside it change it: `changes` (health), `discover` (models) and
//! `reload` (configuration); `snapshots` publishes it to the cores.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use olla_engine::snapshot::Broadcast;

use super::fetch::Network;
use super::issuer::waiting::IssuerWait;
use super::member::FleetMember;
use super::misses::Misses;
use super::reading_record::Readings;
use super::shortage::Shortage;
use super::signal::Signal;
use crate::catalogue::{Catalogue, Lens, ModelRules, Outages};
use crate::config::Plan;
use crate::log::Logger;
use crate::operations::Build;
use crate::providers::Profiles;
use crate::routing::aliases::Aliases;
use crate::routing::names::ModelIndex;
use crate::routing::route::RouteTable;
use crate::schedule::load::NUMBERS_MAX;
use crate::schedule::scheduler::Settings;
use crate::shared::{Common, CoreSenders, Limiters, PagesSender, ReplyTo, Snapshot};

/// Facts of the process that the pages show.
#[derive(Debug)]
pub(crate) struct ProcessInfo {
    /// This build.
    pub build: Build,
    /// When the process started.
    pub started: SystemTime,
    /// Number of event loops.
    pub workers: usize,
}

/// The state of the control thread.
pub(super) struct ControlState {
    pub(super) logger: Logger,
    pub(super) common: Arc<Common>,
    pub(super) pages: PagesSender,
    pub(super) network: Network,
    pub(super) outlet: Outlet,
    /// A reload replaces the whole record.
    pub(super) config: RefCell<Arc<ActiveConfig>>,
    pub(super) endpoints: Endpoints,
    pub(super) models: RefCell<Models>,
    pub(super) discoveries: Discoveries,
    pub(super) readings: Readings,
    pub(super) accept_shortage: Shortage,
    pub(super) connect_shortage: Shortage,
    pub(super) issuer: IssuerWait,
    /// Raised by a reload, which may change the interval of discovery.
    pub(super) reloaded_rounds: Signal,
    /// Raised by a reload, which may change when models of an unlisted endpoint expire.
    pub(super) reloaded_sweeps: Signal,
}

/// The configuration in force, with the tables made from it.
#[derive(Debug)]
pub(super) struct ActiveConfig {
    pub(super) plan: Arc<Plan>,
    /// The profiles that the profile filter admits.
    pub(super) profiles: Arc<Profiles>,
    pub(super) rules: Arc<ModelRules>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) aliases: Arc<Aliases>,
    pub(super) limiters: Arc<Limiters>,
}

impl ActiveConfig {
    pub(super) fn new(
        plan: Arc<Plan>,
        profiles: Arc<Profiles>,
        rules: Arc<ModelRules>,
        limiters: Arc<Limiters>,
    ) -> Self {
        Self {
            routes: Arc::new(RouteTable::new(
                profiles.all(),
                &plan.translators,
                plan.server.root_routes,
            )),
            aliases: Arc::new(Aliases::new(&plan.model_aliases)),
            plan,
            profiles,
            rules,
            limiters,
        }
    }
}

/// The configured endpoints.
#[derive(Default)]
pub(super) struct Endpoints {
    /// In the order of the configuration.
    pub(super) members: RefCell<Vec<Rc<FleetMember>>>,
    pub(super) next_id: Cell<u32>,
    /// Whether the first check of every endpoint has ended or timed out.
    pub(super) is_first_round_over: Cell<bool>,
    /// The number in placements that the next new endpoint gets.
    next_number: Cell<u16>,
}

impl Endpoints {
    /// A number in placements that no endpoint has had for as long as possible: there are more of
    /// them than endpoints, so they come round.
    pub(super) fn free_number(&self) -> u16 {
        let number = self.next_number.get();
        self.next_number.set((number + 1) % NUMBERS_MAX);
        number
    }
}

/// The models of all endpoints.
#[derive(Default)]
pub(super) struct Models {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) index: Arc<ModelIndex>,
    /// Models that were available lately and are not now.
    pub(super) outages: Outages,
    /// Listings or routable endpoints have changed since the catalogue was built.
    pub(super) is_stale: bool,
}

/// Publishes snapshots and sends messages to the cores.
pub(super) struct Outlet {
    pub(super) broadcast: Arc<Broadcast<Snapshot>>,
    pub(super) cores: CoreSenders,
    /// Number of the next snapshot.
    pub(super) version: Cell<u64>,
    /// Raised when the next snapshot has a change to show.
    pub(super) due: Signal,
    /// Raised when a snapshot was published, so that earlier ones can be freed.
    pub(super) published: Signal,
}

/// Listings outside of the rounds.
#[derive(Default)]
pub(super) struct Discoveries {
    /// Endpoints to list at once.
    pub(super) requested: RefCell<VecDeque<Rc<FleetMember>>>,
    pub(super) arrived: Signal,
    /// Listings that requests wait for.
    pub(super) refreshes: RefCell<Vec<PendingRefresh>>,
    /// Lists of loaded models that requests wait for.
    pub(super) running: RefCell<Vec<PendingRunning>>,
    /// The names that refreshes did not find.
    pub(super) misses: RefCell<Misses>,
}

/// A request that waits for a listing, and the name of the model that it asked for.
pub(super) type WaitingRequest = (ReplyTo, Box<str>);

/// A listing of some endpoints, and the requests that wait for it.
pub(super) struct PendingRefresh {
    pub(super) endpoints: Vec<u32>,
    pub(super) waiting: Rc<RefCell<Vec<WaitingRequest>>>,
}

/// A list of loaded models, and the requests that wait for it.
pub(super) struct PendingRunning {
    pub(super) endpoints: Vec<u32>,
    pub(super) with_others: bool,
    pub(super) lens: Option<Arc<Lens>>,
    pub(super) waiting: Rc<RefCell<Vec<ReplyTo>>>,
}

impl ControlState {
    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<ActiveConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// The current endpoints, in the order of the configuration.
    pub(super) fn members(&self) -> Vec<Rc<FleetMember>> {
        self.endpoints.members.borrow().clone()
    }

    /// The endpoint with this [`Endpoint::id`](crate::fleet::Endpoint::id).
    pub(super) fn member(&self, id: u32) -> Option<Rc<FleetMember>> {
        let members = self.endpoints.members.borrow();
        members.iter().find(|member| member.id == id).cloned()
    }

    /// Makes the next snapshot include a new catalogue.
    pub(super) fn models_changed(&self) {
        self.models.borrow_mut().is_stale = true;
    }

    /// Publishes a snapshot within a few milliseconds, together with all changes until then.
    pub(super) fn publish_soon(&self) {
        self.outlet.due.notify();
    }

    /// Slots, warmth, health or the fleet have changed: requests that wait may start.
    pub(super) fn reconsider(&self) {
        let scheduler = &self.common.scheduler;
        if scheduler.waiting() == 0 {
            return;
        }
        let settings = Settings::of(&self.config().plan);
        let now_ms = self.common.clock_ms(Instant::now());
        let starts = scheduler.reconsider(&settings, now_ms);
        self.common.starts.give(starts);
    }

    /// Lists the models of an endpoint at once, outside of the rounds.
    pub(super) fn request_discovery(&self, member: &Rc<FleetMember>) {
        let mut requested = self.discoveries.requested.borrow_mut();
        requested.push_back(Rc::clone(member));
        self.discoveries.arrived.notify();
    }
}
