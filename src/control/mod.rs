//! The control thread: health checks, discovery, name resolution and reload. It owns everything
//! slow but pages and long listings, which have a thread of their own ([`pages`]); cores get its
//! results as snapshots.
//!
//! It is one thread with an event loop of its own (always epoll, because its work is neither
//! frequent nor large) and one task for each endpoint. Requests do not wait for it, except for
//! model refreshes and first health checks.
//!
//! [`state`] holds the data. A health result passes through [`probe`] (check), `fleet::health`
//! (decision), [`changes`] (actions) and [`snapshots`] (to the cores); a reload through [`reload`]
//! and [`snapshots`]. This file starts the tasks and dispatches what the cores send.
//!
//! Contract: docs/contract/balancing.md#11, docs/contract/balancing.md#12;
//! docs/contract/catalogue.md#3, docs/contract/catalogue.md#5.3; docs/contract/scheduling.md#3,
//! docs/contract/scheduling.md#4

mod changes;
mod discover;
mod errors;
mod fetch;
pub(crate) mod host;
mod issuer;
mod keys;
mod member;
mod misses;
mod pages;
mod pending;
mod probe;
mod reading_record;
mod readings;
mod refresh;
mod reload;
mod resolve;
mod running;
mod shortage;
mod signal;
mod snapshots;
mod state;
mod store;
mod survey;
mod suspects;
mod trust;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use olla_engine::rt::{self, Bell, Listening, Wanted};
use olla_engine::snapshot::Broadcast;

use crate::catalogue::ModelRules;
use crate::config::Plan;
use crate::fleet::health::{FIRST_CHECK_WAIT, HealthEvent};
use crate::log::{Level, Logger, events};
use crate::providers::Profiles;
use crate::shared::{Common, CoreSenders, PageEvent, PagesSender, Snapshot, ToControl};

use fetch::Network;
pub(crate) use host::process_facts;
pub(crate) use keys::{KeysThread, log_changed};
pub(crate) use pages::{PagesSetup, PagesThread};
use shortage::Shortage;
use signal::Signal;
pub(crate) use snapshots::first_snapshot;
pub(crate) use state::ProcessInfo;
use state::{ActiveConfig, ControlState, Discoveries, Endpoints, Models, Outlet};
pub(crate) use store::{StoreSetup, StoreThread, load_keys, open as open_store};
pub(crate) use survey::{Surveyed, survey};

/// The arguments of the control thread.
#[derive(Debug)]
pub(crate) struct ControlSetup {
    /// The configuration.
    pub plan: Arc<Plan>,
    /// The profiles, filtered as the configuration says.
    pub profiles: Arc<Profiles>,
    /// The rules for model names.
    pub rules: Arc<ModelRules>,
    /// The log.
    pub logger: Logger,
    /// Publishes snapshots to the cores.
    pub broadcast: Arc<Broadcast<Snapshot>>,
    /// Receives the messages of the cores.
    pub messages: crossbeam_channel::Receiver<ToControl>,
    /// Sends messages to the cores.
    pub cores: CoreSenders,
    /// Sends what pages show to the pages thread.
    pub pages: PagesSender,
    /// The values that all cores share.
    pub common: Arc<Common>,
}

/// The running control thread.
#[derive(Debug)]
pub(crate) struct ControlThread {
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Starts the thread and waits until it has published all configured endpoints, which
    /// requires no response of any of them. `listening` receives the bell that cores ring.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(setup: ControlSetup, listening: Listening) -> std::io::Result<Self> {
        let builder = std::thread::Builder::new().name("control".to_owned());
        let (publish, published) = crossbeam_channel::bounded(1);
        let thread = builder.spawn(move || {
            let logger = setup.logger.clone();
            let ended = rt::run(Wanted::Epoll, |_| run(setup, listening, publish));
            if let Err(error) = ended {
                let error = error.to_string();
                logger.emit(
                    Level::Error,
                    "Control thread ended",
                    &[("error", error.as_str().into())],
                );
            }
        })?;
        // If the thread ends before it publishes, `is_broken` returns true.
        let _ = published.recv();
        Ok(Self { thread })
    }

    /// Whether the thread has ended, which happens only after an error.
    pub(crate) fn is_broken(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The shortest time for which changes are collected before a snapshot is built of them.
const PUBLISH_DELAY_MIN: Duration = Duration::from_millis(2);

/// The longest time for which changes are collected, however long the last snapshot took.
const PUBLISH_DELAY_MAX: Duration = Duration::from_millis(250);

/// Interval of the attempts to free earlier snapshots, while there are any.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(100);

/// Interval at which the medians of learned speeds are taken.
const MEDIANS_INTERVAL: Duration = Duration::from_secs(1);

/// The longest interval between two sweeps of expired statistics and limits.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(300);

/// Messages of cores that are taken before health checks and timers have their turn again.
const MESSAGES_PER_TURN: usize = 64;

/// The pause after a turn in which not all messages were taken. A sleeping task lets timers run.
const TURN_PAUSE: Duration = Duration::from_millis(1);

async fn run(setup: ControlSetup, listening: Listening, published: crossbeam_channel::Sender<()>) {
    let (bell, resolved) = match Bell::new() {
        Ok(both) => both,
        Err(error) => {
            let error = error.to_string();
            let fields = [("error", error.as_str().into())];
            setup
                .logger
                .emit(Level::Error, "Control thread cannot start", &fields);
            return;
        }
    };
    let messages = setup.messages.clone();
    let state = Rc::new(initial(setup, bell));
    state.adopt_endpoints();
    state.publish();
    let _ = published.send(());
    drop(published);
    start_tasks(&state);
    // Without endpoints there is no check to wait for.
    state.end_first_round_if_settled();
    let resolving = Rc::clone(&state);
    rt::spawn(async move {
        let _ = resolved
            .listen(|| resolving.network.resolver.deliver())
            .await;
    });
    let more = Rc::new(Signal::default());
    let rest = (Rc::clone(&state), Rc::clone(&more), messages.clone());
    rt::spawn(async move {
        let (state, more, messages) = rest;
        loop {
            more.wait().await;
            rt::sleep(TURN_PAUSE).await;
            receive(&state, &messages, &more);
        }
    });
    let on_ring = || receive(&state, &messages, &more);
    let _ = listening.listen(on_ring).await;
}

/// Takes at most [`MESSAGES_PER_TURN`] messages; `more` is notified if there may be more.
fn receive(
    state: &Rc<ControlState>,
    messages: &crossbeam_channel::Receiver<ToControl>,
    more: &Signal,
) {
    for _ in 0..MESSAGES_PER_TURN {
        match messages.try_recv() {
            Ok(message) => on_message(state, message),
            Err(_) => return,
        }
    }
    more.notify();
}

fn initial(setup: ControlSetup, bell: Bell) -> ControlState {
    // Cores keep the buckets of the snapshot that they start with.
    let limiters = Arc::clone(&setup.broadcast.newest().limiters);
    let config = ActiveConfig::new(setup.plan, setup.profiles, setup.rules, limiters);
    ControlState {
        network: Network {
            resolver: resolve::Resolver::start(bell, config.plan.dns.stale),
            trusts: trust::Trusts::new(Some(setup.logger.clone())),
        },
        logger: setup.logger,
        common: setup.common,
        pages: setup.pages,
        outlet: Outlet {
            broadcast: setup.broadcast,
            cores: setup.cores,
            version: Cell::new(1),
            due: Signal::default(),
            published: Signal::default(),
        },
        config: RefCell::new(Arc::new(config)),
        endpoints: Endpoints::default(),
        models: RefCell::new(Models {
            is_stale: true,
            ..Models::default()
        }),
        discoveries: Discoveries::default(),
        readings: reading_record::Readings::default(),
        accept_shortage: Shortage::of(events::ACCEPT_FAILED),
        connect_shortage: Shortage::of(events::CONNECT_EXHAUSTED),
        issuer: issuer::waiting::IssuerWait::default(),
        reloaded_rounds: Signal::default(),
        reloaded_sweeps: Signal::default(),
    }
}

/// Starts the tasks that belong to no single endpoint.
fn start_tasks(state: &Rc<ControlState>) {
    let publishing = Rc::clone(state);
    rt::spawn(async move { keep_publishing(&publishing).await });
    let reclaiming = Rc::clone(state);
    rt::spawn(async move { keep_reclaiming(&reclaiming).await });
    let learned = Rc::clone(state);
    rt::spawn(async move { keep_medians(&learned).await });
    let sweeping = Rc::clone(state);
    rt::spawn(async move { keep_sweeping(&sweeping).await });
    let rounds = Rc::clone(state);
    rt::spawn(async move { discover::rounds(&rounds).await });
    let requested = Rc::clone(state);
    rt::spawn(async move { discover::on_request(&requested).await });
    let followed = Rc::clone(state);
    rt::spawn(async move { issuer::follow(&followed).await });
    let expiring = Rc::clone(state);
    rt::spawn(async move { discover::sweeps(&expiring).await });
    let reading = Rc::clone(state);
    rt::spawn(async move { readings::keep_reading(&reading).await });
    let first = Rc::clone(state);
    rt::spawn(async move {
        rt::sleep(FIRST_CHECK_WAIT).await;
        first.end_first_round();
    });
}

fn on_message(state: &Rc<ControlState>, message: ToControl) {
    match message {
        ToControl::ConnectFailed { endpoint, cause } => {
            if let Some(member) = state.member(endpoint) {
                let losses = member.live.lost();
                // The check that follows asks for the addresses anew.
                let url = &member.plan().url;
                state.network.resolver.doubt(&url.host, url.port);
                state.on_health(&member, HealthEvent::Lost { cause, losses });
            }
        }
        ToControl::TrafficFailed { endpoint, trouble } => {
            if let Some(member) = state.member(endpoint) {
                state.note_trouble(&member, trouble);
            }
        }
        ToControl::Suspected { endpoint } => state.suspect(endpoint),
        ToControl::FirstByteOfCold { endpoint } => state.read_memory_at_once(endpoint),
        ToControl::Refresh(request) => refresh::on_miss(state, request),
        ToControl::Running(request) => running::on_request(state, request),
        ToControl::Reload {
            plan,
            profiles,
            rules,
            confirmation,
        } => {
            if confirmation.accept() {
                let limiters = state.config().limiters.follow(&plan.server.rate_limits);
                let limiters = Arc::new(limiters);
                state.reload(ActiveConfig::new(plan, profiles, rules, limiters));
                confirmation.done();
            }
        }
        ToControl::KeysChanged => state.publish(),
        ToControl::KeysInForce { confirmation } => {
            if confirmation.accept() {
                state.publish();
                confirmation.done();
            }
        }
        ToControl::IssuerKeys(reply_to) => state.issuer.ask(reply_to),
        ToControl::AcceptFailed(resource) => {
            state.pages.event(PageEvent::AcceptFailed(resource));
            state.accept_shortage.on_failure(resource, &state.logger);
        }
        ToControl::ConnectExhausted(resource) => {
            state.pages.event(PageEvent::ConnectExhausted(resource));
            state.connect_shortage.on_failure(resource, &state.logger);
        }
    }
}

/// Publishes a snapshot after changes that need not be seen at once.
async fn keep_publishing(state: &ControlState) {
    let mut took = Duration::ZERO;
    loop {
        state.outlet.due.wait().await;
        // While many listings come in, at most half of the time goes into snapshots.
        rt::sleep(took.clamp(PUBLISH_DELAY_MIN, PUBLISH_DELAY_MAX)).await;
        state.outlet.due.take();
        let began = Instant::now();
        state.publish();
        took = began.elapsed();
    }
}

/// Frees earlier snapshots once no core and no request uses them.
async fn keep_reclaiming(state: &ControlState) {
    loop {
        state.outlet.published.wait().await;
        while state.outlet.broadcast.reclaim() > 0 {
            rt::sleep(RECLAIM_INTERVAL).await;
        }
    }
}

/// Takes the medians of what cores have learned of endpoints.
async fn keep_medians(state: &ControlState) {
    loop {
        rt::sleep(MEDIANS_INTERVAL).await;
        let members = state.members();
        let loads = members.iter().map(|member| &*member.load);
        let now_ms = state.common.clock_ms(Instant::now());
        state.common.scheduler.refresh_medians(loads, now_ms);
        // By other medians one that waits may be served sooner elsewhere.
        state.reconsider();
    }
}

/// Drops expired statistics and rate limits.
async fn keep_sweeping(state: &ControlState) {
    loop {
        let interval = state.config().plan.server.rate_limits.cleanup_interval;
        let pause = interval.unwrap_or(SWEEP_INTERVAL_MAX);
        rt::sleep(pause.clamp(Duration::from_secs(1), SWEEP_INTERVAL_MAX)).await;
        let ids: Vec<_> = state.members().iter().map(|member| member.id).collect();
        state.pages.event(PageEvent::Sweep(ids));
        if interval.is_some() {
            let now = state.common.nanos(Instant::now());
            state.config().limiters.sweep(now);
        }
    }
}
