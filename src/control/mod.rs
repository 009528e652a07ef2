//! The control thread: checks, discovery, name resolution, reload, and the pages that take a
//! moment. It owns everything slow; cores get its results as snapshots.
//!
//! One thread with an event loop of its own (always epoll: what it does is neither frequent nor
//! large), one task for each endpoint. Never on a request's path, except where a request has
//! nothing to do but wait for it.
//!
//! contract: balancing 11, 12; catalogue 3, 5.3

mod adopt;
mod discover;
mod fetch;
pub mod host;
mod member;
mod pages;
mod probe;
mod resolve;
mod snapshots;
mod trust;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::rt::{self, Bell, Wanted};
use olla_engine::snapshot::Broadcast;

use crate::catalogue::{Catalogue, Rules};
use crate::clock::millis;
use crate::config::Plan;
use crate::log::{Level, Logger, Value};
use crate::operations::Build;
use crate::operations::stats::{Random, Totals};
use crate::providers::Profiles;
use crate::routing::aliases::Aliases;
use crate::routing::route::RouteTable;
use crate::shared::{Common, Event, Mailboxes, Snapshot};

use member::{FIRST_CHECK_MAX, Member};
pub use pages::process_facts;
pub use snapshots::first_snapshot;

/// What the control thread is started with.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub plan: Arc<Plan>,
    /// The profiles, filtered as the configuration says.
    pub profiles: Arc<Profiles>,
    /// How names of models are understood.
    pub rules: Arc<Rules>,
    /// Where lines go.
    pub logger: Logger,
    /// Where snapshots go.
    pub broadcast: Arc<Broadcast<Snapshot>>,
    /// What cores send.
    pub events: crossbeam_channel::Receiver<Event>,
    /// Where answers to cores go.
    pub mailboxes: Mailboxes,
    /// What the pages say of the process.
    pub about: About,
    /// What the cores share.
    pub common: Arc<Common>,
}

/// What the pages say of the process.
#[derive(Debug)]
pub struct About {
    /// This build.
    pub build: Build,
    /// When the process started.
    pub started: SystemTime,
    /// Event loops.
    pub workers: usize,
}

/// The running thread.
#[derive(Debug)]
pub struct Control {
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread, and waits until there is a snapshot with all endpoints, which none of
    /// them has to answer for. `listening` is the far end of the bell that cores ring.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(setup: Setup, listening: rt::Listening) -> std::io::Result<Self> {
        let builder = std::thread::Builder::new().name("control".to_owned());
        let (told, published) = crossbeam_channel::bounded(1);
        let thread = builder.spawn(move || {
            let logger = setup.logger.clone();
            let ended = rt::run(Wanted::Epoll, |_| run(setup, listening, told));
            if let Err(error) = ended {
                let error = error.to_string();
                logger.emit(
                    Level::Error,
                    "Control thread ended",
                    &[("error", error.as_str().into())],
                );
            }
        })?;
        // Nothing comes when the thread could not begin, which shows soon enough.
        let _ = published.recv();
        Ok(Self { thread })
    }

    /// Whether it has ended, which it never does by itself.
    pub fn is_broken(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The thread's state, shared by its tasks.
struct State {
    plan: RefCell<Arc<Plan>>,
    profiles: RefCell<Arc<Profiles>>,
    rules: RefCell<Arc<Rules>>,
    logger: Logger,
    broadcast: Arc<Broadcast<Snapshot>>,
    mailboxes: Mailboxes,
    resolver: resolve::Resolver,
    trusts: trust::Trusts,
    /// In the order of the configuration.
    members: RefCell<Vec<Rc<Member>>>,
    catalogue: RefCell<Arc<Catalogue>>,
    routes: RefCell<Arc<RouteTable>>,
    aliases: RefCell<Arc<Aliases>>,
    models: RefCell<Arc<crate::routing::names::ModelIndex>>,
    /// Listings or routable endpoints have changed since the catalogue was built.
    catalogue_stale: Cell<bool>,
    dirty: Signal,
    /// A snapshot was published, so that there is an earlier one to get rid of.
    published: Signal,
    /// A reload may have changed when rounds of discovery are.
    reloaded_rounds: Signal,
    /// A reload may have changed when stale models go.
    reloaded_sweeps: Signal,
    version: Cell<u64>,
    started: Cell<bool>,
    next_id: Cell<u32>,
    refreshes: RefCell<Vec<discover::Refresh>>,
    totals: RefCell<Totals>,
    about: About,
    common: Arc<Common>,
    rounds: RefCell<Vec<pages::Round>>,
    next_round: Cell<u64>,
}

/// How long changes are gathered before a snapshot is made of them.
const GATHER: Duration = Duration::from_millis(2);

/// The same at the most, however long the last snapshot took.
const GATHER_MAX: Duration = Duration::from_millis(250);

/// How often it is looked whether earlier snapshots can go, as long as there are any.
const RECLAIM_EVERY: Duration = Duration::from_millis(100);

/// Between two sweeps of what is kept for a while.
const SWEEP_EVERY: Duration = Duration::from_secs(300);

async fn run(setup: Setup, listening: rt::Listening, told: crossbeam_channel::Sender<()>) {
    let (bell, resolved) = match Bell::new() {
        Ok(both) => both,
        Err(error) => {
            let error = error.to_string();
            setup
                .logger
                .emit(Level::Error, "No bell", &[("error", error.as_str().into())]);
            return;
        }
    };
    let events = setup.events;
    let state = Rc::new(State {
        routes: RefCell::new(Arc::new(snapshots::routes(&setup.plan, &setup.profiles))),
        aliases: RefCell::new(Arc::new(Aliases::new(&setup.plan.model_aliases))),
        plan: RefCell::new(setup.plan),
        profiles: RefCell::new(setup.profiles),
        rules: RefCell::new(setup.rules),
        trusts: trust::Trusts::new(setup.logger.clone()),
        logger: setup.logger,
        broadcast: setup.broadcast,
        mailboxes: setup.mailboxes,
        resolver: resolve::Resolver::start(bell),
        members: RefCell::new(Vec::new()),
        catalogue: RefCell::new(Arc::new(Catalogue::default())),
        models: RefCell::default(),
        catalogue_stale: Cell::new(true),
        dirty: Signal::default(),
        published: Signal::default(),
        reloaded_rounds: Signal::default(),
        reloaded_sweeps: Signal::default(),
        version: Cell::new(1),
        started: Cell::new(false),
        next_id: Cell::new(0),
        refreshes: RefCell::new(Vec::new()),
        totals: RefCell::new(Totals::new(Random::new(probe::seed()))),
        about: setup.about,
        common: setup.common,
        rounds: RefCell::default(),
        next_round: Cell::new(0),
    });
    state.adopt_endpoints();
    state.publish();
    let _ = told.send(());
    drop(told);
    let publishing = Rc::clone(&state);
    rt::spawn(async move { publishing.keep_publishing().await });
    let reclaiming = Rc::clone(&state);
    rt::spawn(async move { reclaiming.keep_reclaiming().await });
    let rounds = Rc::clone(&state);
    rt::spawn(async move { discover::rounds(&rounds).await });
    let forgetting = Rc::clone(&state);
    rt::spawn(async move { discover::sweeps(&forgetting).await });
    let sweeping = Rc::clone(&state);
    rt::spawn(async move { sweeping.keep_sweeping().await });
    // Without endpoints there is nothing to wait for.
    state.end_if_first_round_is_over();
    let first = Rc::clone(&state);
    rt::spawn(async move { first.end_first_round().await });
    let resolving = Rc::clone(&state);
    rt::spawn(async move {
        let _ = resolved.listen(|| resolving.resolver.deliver()).await;
    });
    let heard = || {
        while let Ok(event) = events.try_recv() {
            state.on_event(event);
        }
    };
    let _ = listening.listen(heard).await;
}

impl State {
    fn on_event(self: &Rc<Self>, event: Event) {
        match event {
            Event::Failed { endpoint, error } => {
                if let Some(member) = self.member(endpoint) {
                    self.mark_offline(&member, error);
                }
            }
            Event::Refresh {
                endpoints,
                limit,
                reply,
            } => {
                discover::refresh(self, endpoints, limit, reply);
            }
            Event::Reload {
                plan,
                profiles,
                rules,
            } => self.reload(plan, profiles, rules),
            Event::Reloaded { successful } => self.totals.borrow_mut().reloaded(successful),
            Event::Counted(delta) => self.totals.borrow_mut().merge(*delta, SystemTime::now()),
            Event::HandedOver { round } => self.handed_over(round),
            Event::Listing { ask, reply } => self.make_listing(&ask, reply),
            Event::Page { ask, reply } => self.make_page(ask, reply),
        }
    }

    fn member(&self, id: u32) -> Option<Rc<Member>> {
        self.members
            .borrow()
            .iter()
            .find(|member| member.id == id)
            .cloned()
    }

    /// A request could not reach an endpoint (contract: balancing 9).
    fn mark_offline(&self, member: &Rc<Member>, error: &'static str) {
        member.hear();
        if member.status.get() == crate::fleet::Status::Offline {
            // All that were on their way to it fail together; that is one failure.
            return;
        }
        member.failed_live(Instant::now());
        let from = member.status.replace(crate::fleet::Status::Offline);
        member.checked.set(true);
        self.log_change(member, from, None, Some(error));
        self.catalogue_stale.set(true);
        self.publish();
    }

    fn end_if_first_round_is_over(&self) {
        let over = self
            .members
            .borrow()
            .iter()
            .all(|member| member.settled.get());
        if over && !self.started.replace(true) {
            self.dirty.notify();
        }
    }

    async fn end_first_round(&self) {
        rt::sleep(FIRST_CHECK_MAX).await;
        if !self.started.replace(true) {
            self.dirty.notify();
        }
    }

    async fn keep_publishing(&self) {
        let mut took = Duration::ZERO;
        loop {
            self.dirty.wait().await;
            // While many listings come in, half of the time at most goes into snapshots.
            rt::sleep(took.clamp(GATHER, GATHER_MAX)).await;
            self.dirty.take();
            let begun = Instant::now();
            self.publish();
            took = begun.elapsed();
        }
    }

    /// Drops earlier snapshots once the cores and their requests have left them.
    async fn keep_reclaiming(&self) {
        loop {
            self.published.wait().await;
            while self.broadcast.reclaim() > 0 {
                rt::sleep(RECLAIM_EVERY).await;
            }
        }
    }

    /// Forgets what is too old.
    async fn keep_sweeping(&self) {
        loop {
            let plan = Arc::clone(&self.plan.borrow());
            let interval = plan
                .server
                .rate_limits
                .cleanup_interval
                .unwrap_or(SWEEP_EVERY);
            rt::sleep(interval.min(SWEEP_EVERY).max(Duration::from_secs(1))).await;
            let ids: Vec<_> = self
                .members
                .borrow()
                .iter()
                .map(|member| member.id)
                .collect();
            self.totals
                .borrow_mut()
                .sweep(ids.into_iter(), SystemTime::now());
            if plan.server.rate_limits.cleanup_interval.is_some() {
                let limiters = self
                    .common
                    .limiters
                    .read()
                    .map(|limiters| Arc::clone(&limiters));
                if let Ok(limiters) = limiters {
                    limiters.sweep(Instant::now());
                }
            }
        }
    }

    /// Says that an endpoint's status has changed.
    fn log_change(
        &self,
        member: &Member,
        from: crate::fleet::Status,
        status_code: Option<u16>,
        error: Option<&str>,
    ) {
        let to = member.status.get();
        let recovered = to.is_routable();
        let (level, msg) = if recovered {
            (Level::Info, crate::log::events::ENDPOINT_RECOVERED)
        } else {
            (Level::Warn, crate::log::events::ENDPOINT_STATUS_CHANGED)
        };
        let until = member
            .next_check
            .get()
            .saturating_duration_since(Instant::now());
        let plan = member.plan();
        let mut fields = vec![
            ("endpoint", Value::Str(&plan.name)),
            ("endpoint_url", Value::Str(&plan.url.display)),
            ("from", Value::Str(from.as_str())),
            ("to", Value::Str(to.as_str())),
            (
                "latency_ms",
                Value::Num(member.response_time.get().map_or(0, millis)),
            ),
            ("next_check_in_ms", Value::Num(millis(until))),
        ];
        if let Some(code) = status_code {
            fields.push(("status_code", Value::Num(code.into())));
        }
        if let Some(error) = error {
            fields.push(("error", Value::Str(error)));
        }
        self.logger.emit(level, msg, &fields);
    }
}

/// Something that one task waits for and others bring about.
#[derive(Debug, Default)]
struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    fn notify(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether it was raised since it was last taken.
    fn take(&self) -> bool {
        self.raised.replace(false)
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            if self.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The moment of a monotonic one on the system's clock, for people.
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
