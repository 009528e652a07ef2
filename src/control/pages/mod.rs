//! The pages thread: renders pages and long listings, and collects the statistics that pages show.
//!
//! It shares snapshots with the control thread and nothing else, so no reader of pages delays a
//! health check. A core sends it what a client wants and gets the rendering back by its queue.
//! [`desk`] decides what is rendered for which requests, [`render`] renders, [`unread`] bounds what
//! clients hold.
//!
//! Contract: docs/contract/surface.md#10.1, docs/contract/operations.md#3

mod desk;
mod render;
mod unread;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{RecvError, select};
use olla_engine::rt::sys;
use olla_engine::snapshot::Broadcast;

use super::state::ProcessInfo;
use crate::operations::stats::Totals;
use crate::shared::{
    Common, CoreSenders, PageAsk, PageEvent, PagesReceiver, Rendering, Snapshot, ToCore, WantedPage,
};
use desk::{Asked, Desk};
pub(super) use unread::{Class, Unread};

/// How long a page waits for the counts that the cores have not reported yet.
const COUNTS_WAIT: Duration = Duration::from_millis(30);

/// How long the thread waits for messages when nothing is to be done.
const IDLE: Duration = Duration::from_secs(3600);

/// The arguments of the pages thread.
#[derive(Debug)]
pub(crate) struct PagesSetup {
    /// The snapshots that the control thread publishes.
    pub broadcast: Arc<Broadcast<Snapshot>>,
    /// Receives the messages of cores and control thread.
    pub messages: PagesReceiver,
    /// Sends renderings to the cores.
    pub cores: CoreSenders,
    /// What the pages show of the process.
    pub process: ProcessInfo,
    /// The values that all cores share.
    pub common: Arc<Common>,
}

/// The running pages thread.
#[derive(Debug)]
pub(crate) struct PagesThread {
    thread: JoinHandle<()>,
}

impl PagesThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(setup: PagesSetup) -> std::io::Result<Self> {
        let builder = std::thread::Builder::new().name("pages".to_owned());
        let thread = builder.spawn(move || Pages::new(setup).run())?;
        Ok(Self { thread })
    }

    /// Whether the thread has ended, which happens only after an error.
    pub(crate) fn is_broken(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The state of the thread.
struct Pages {
    setup: PagesSetup,
    totals: Totals,
    desk: Desk,
    /// Number of the next collection of counts.
    next_round: u64,
    unread: Unread,
}

impl Pages {
    fn new(setup: PagesSetup) -> Self {
        Self {
            setup,
            totals: Totals::new(super::probe::seed()),
            desk: Desk::default(),
            next_round: 0,
            unread: Unread::default(),
        }
    }

    /// Runs until all senders are gone.
    fn run(mut self) {
        while self.receive().is_ok() {
            // Requests that came in the meantime join the renderings that are to be made.
            while let Some(wanted) = self.desk.next(Instant::now()) {
                self.render(&wanted);
                self.receive_all();
            }
        }
    }

    /// Waits for a message, or until something is due.
    ///
    /// # Errors
    /// When all senders are gone.
    fn receive(&mut self) -> Result<(), RecvError> {
        let due = self.desk.wakes_at();
        let wait = due.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
        let messages = &self.setup.messages;
        let (asks, events) = (messages.asks.clone(), messages.events.clone());
        select! {
            recv(asks) -> ask => match ask {
                Ok((wanted, ask)) => self.on_ask(wanted, ask),
                Err(_) => return Err(RecvError),
            },
            recv(events) -> event => match event {
                Ok(event) => self.on_event(event),
                Err(_) => return Err(RecvError),
            },
            default(wait) => {}
        }
        self.receive_all();
        Ok(())
    }

    /// Takes what has arrived.
    fn receive_all(&mut self) {
        // Bounded by what is in the queues now, so that a rendering is never put off for long.
        for _ in 0..self.setup.messages.events.len() {
            if let Ok(event) = self.setup.messages.events.try_recv() {
                self.on_event(event);
            }
        }
        for _ in 0..self.setup.messages.asks.len() {
            if let Ok((wanted, ask)) = self.setup.messages.asks.try_recv() {
                self.on_ask(wanted, ask);
            }
        }
    }

    fn on_event(&mut self, event: PageEvent) {
        match event {
            PageEvent::Counts(delta) => {
                self.adopt_window();
                self.totals.merge(*delta, SystemTime::now());
            }
            PageEvent::CountsFlushed { round } => self.desk.counted(round),
            PageEvent::Reloaded(taken) => self.totals.reloaded(taken),
            PageEvent::AcceptFailed(resource) => self.totals.accept_failed(resource),
            PageEvent::ConnectExhausted(resource) => self.totals.connect_exhausted(resource),
            PageEvent::Sweep(ids) => self.totals.sweep(ids.into_iter(), SystemTime::now()),
        }
    }

    /// Follows `status.window`, which a reload may change.
    fn adopt_window(&mut self) {
        let snapshot = self.setup.broadcast.newest();
        self.totals.judge_within(snapshot.fleet.plan.status.window);
    }

    fn on_ask(&mut self, wanted: WantedPage, ask: PageAsk) {
        if !self.unread.admits(ask.client, Class::of(&wanted)) {
            return self.reply(&ask, Rendering::Overloaded);
        }
        let now = Instant::now();
        let (next_round, cores) = (&mut self.next_round, &self.setup.cores);
        let count = |wanted: &WantedPage| {
            if !matches!(wanted, WantedPage::Page { route, .. } if route.shows_figures()) {
                return None;
            }
            let round = *next_round;
            *next_round += 1;
            Some((round, cores.request_counts(round), now + COUNTS_WAIT))
        };
        let rendering = match self.desk.ask(wanted, ask.clone(), now, count) {
            Asked::Kept(rendering) => rendering,
            Asked::Refused => Rendering::Overloaded,
            Asked::Joined | Asked::Begun => return,
        };
        self.reply(&ask, rendering);
    }

    fn render(&mut self, wanted: &WantedPage) {
        self.adopt_window();
        let begun = sys::thread_cpu_time();
        // Since they asked, these clients may have been sent much else.
        let class = Class::of(wanted);
        let asks = self.desk.take_asks(wanted);
        let (admitted, refused): (Vec<_>, Vec<_>) = asks
            .into_iter()
            .partition(|ask| self.unread.admits(ask.client, class));
        for ask in refused {
            self.reply(&ask, Rendering::Overloaded);
        }
        if admitted.is_empty() {
            return self.desk.give_up(wanted);
        }
        let mut counted = self.unread.count(self.rendering(wanted));
        for ask in admitted {
            self.reply(&ask, counted.for_client(ask.client));
        }
        let took = sys::thread_cpu_time().saturating_sub(begun);
        self.desk.keep(wanted, counted, (took, Instant::now()));
    }

    fn reply(&self, ask: &PageAsk, rendering: Rendering) {
        if ask.is_open() {
            let ticket = ask.reply_to.ticket;
            let message = ToCore::Rendered { ticket, rendering };
            self.setup.cores.send(ask.reply_to.core, message);
        }
    }
}
