//! The thread of the state store. It alone has the file open, so that a slow disk delays neither a
//! health check nor a request; it keeps the usage ledger, and serves the routes for keys and usage.
//!
//! `state` decides when something is written and what a failure means; this thread waits, reads the
//! clock and logs. [`Collections`] waits for what the cores have not handed over yet.
//!
//! Contract: docs/contract/access.md#11, docs/contract/access.md#13

mod collect;
mod keys;
mod windows;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use olla_engine::snapshot::Broadcast;

use super::pages::{Class, Unread};
use crate::clock::unix_millis;
use crate::config::StatePath;
use crate::dialects::Error;
use crate::log::{Level, Logger, Value, events};
use crate::operations::StateFacts;
use crate::shared::{
    Common, ControlSender, CoreSenders, Rendering, Snapshot, StateAsk, StateEvent, StateReceiver,
    ToCore,
};
use crate::state::{
    AdminAsk, AdminReply, Book, Day, Store, StoreFault, StoreFaultKind, UsageQuery, WriteOutcome,
};
use collect::Collections;
use keys::Aside;
pub(crate) use keys::load_keys;
use windows::Windows;

/// How long a report waits for usage that cores have not handed over.
const REPORT_WAIT: Duration = Duration::from_millis(30);

/// How long the end of the process waits for it.
const END_WAIT: Duration = Duration::from_secs(1);

/// Interval in which counters of names that are gone are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The arguments of the thread.
#[derive(Debug)]
pub(crate) struct StoreSetup {
    /// The open store, if there is one, and its path for messages.
    pub store: Option<(Store, StatePath)>,
    /// The snapshots that the control thread publishes.
    pub broadcast: Arc<Broadcast<Snapshot>>,
    /// Receives the messages of cores.
    pub messages: StateReceiver,
    /// Sends responses to the cores.
    pub cores: CoreSenders,
    /// Has changed keys published.
    pub control: ControlSender,
    /// The values that all cores share.
    pub common: Arc<Common>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct StoreThread {
    thread: JoinHandle<()>,
}

impl StoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(setup: StoreSetup) -> std::io::Result<Self> {
        let builder = std::thread::Builder::new().name("store".to_owned());
        let thread = builder.spawn(move || StoreLoop::new(setup).run())?;
        Ok(Self { thread })
    }

    /// Whether the thread has ended, which happens only after an error or at the end.
    pub(crate) fn is_broken(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Opens the store of a configuration.
///
/// # Errors
/// A message with the key, the path and the reason.
pub(crate) fn open(path: &StatePath) -> Result<Store, String> {
    Store::open(&path.path).map_err(|fault| refusal(path, &fault))
}

/// Why a start is refused.
fn refusal(path: &StatePath, fault: &StoreFault) -> String {
    let shown = path.shown.display();
    format!(
        "state.path: expected a state store that this gateway can use, got {shown}: {fault}{}",
        remedy(&path.shown, fault)
    )
}

/// What to do about a failure.
fn remedy(path: &Path, fault: &StoreFault) -> String {
    match fault.kind {
        StoreFaultKind::Damaged => format!("; run olla state check {}", path.display()),
        StoreFaultKind::Gone => "; put the file back, or restart the gateway".to_owned(),
        StoreFaultKind::Unavailable | StoreFaultKind::Unusable => String::new(),
    }
}

/// What waits for usage that cores have not handed over.
enum Waiter {
    /// A report.
    Report(UsageQuery, Box<StateAsk>),
    /// The end of the process.
    End(Sender<()>),
}

/// The state of the thread.
struct StoreLoop {
    /// The first to be dropped, so that the store is closed before the main thread goes on.
    book: Book,
    path: Option<StatePath>,
    broadcast: Arc<Broadcast<Snapshot>>,
    messages: StateReceiver,
    cores: CoreSenders,
    control: ControlSender,
    common: Arc<Common>,
    logger: Logger,
    waiters: Collections<Waiter>,
    unread: Unread,
    aside: Aside,
    windows: Windows,
    /// Says that there are new names of tokens.
    named: Receiver<()>,
    /// When counters of names that are gone were last looked for.
    swept: Instant,
    /// Tells the main thread by its end that everything is written.
    ended: Option<Sender<()>>,
}

impl StoreLoop {
    fn new(setup: StoreSetup) -> Self {
        let (store, path) = setup.store.unzip();
        let days = setup.broadcast.newest().fleet.plan.state.retention_days;
        let mut named = never();
        if store.is_some() {
            let (wake, woken) = bounded(1);
            setup.common.access.book().tokens().attach_store(wake);
            named = woken;
        }
        let this = Self {
            book: Book::new(store, days, Instant::now()),
            path,
            broadcast: setup.broadcast,
            messages: setup.messages,
            cores: setup.cores,
            control: setup.control,
            logger: setup.common.logger.clone(),
            common: setup.common,
            waiters: Collections::default(),
            unread: Unread::default(),
            aside: Aside::default(),
            windows: Windows::default(),
            named,
            swept: Instant::now(),
            ended: None,
        };
        this.show();
        this
    }

    /// Runs until the process ends.
    fn run(mut self) {
        loop {
            let now = Instant::now();
            let due = self.waiters.due().into_iter().chain([self.book.due()]);
            let due = due.min().unwrap_or(now);
            if self.receive(due.saturating_duration_since(now)).is_none() {
                return;
            }
            self.serve_waiters();
            if self.ended.is_some() {
                return;
            }
            self.write_if_due();
        }
    }

    /// Waits for a message; `None` if there will be none.
    fn receive(&mut self, wait: Duration) -> Option<()> {
        let (asks, events) = (self.messages.asks.clone(), self.messages.events.clone());
        let named = self.named.clone();
        select! {
            recv(events) -> event => self.on_event(event.ok()?),
            recv(asks) -> ask => self.on_ask(ask.ok()?),
            recv(named) -> _ => self.read_new_windows(unix_millis(SystemTime::now())),
            default(wait) => {}
        }
        // What has arrived in the meantime, events first: a report shows what was counted before.
        for event in drained(&events) {
            self.on_event(event);
        }
        for ask in drained(&asks) {
            self.on_ask(ask);
        }
        Some(())
    }

    fn on_event(&mut self, event: StateEvent) {
        match event {
            StateEvent::Usage(delta) => self.book.add(delta),
            StateEvent::Flushed { round } => self.waiters.arrived(round),
            StateEvent::End(done) => self.collect(Waiter::End(done), END_WAIT),
        }
    }

    /// Collects the usage of all cores for something.
    fn collect(&mut self, waiter: Waiter, limit: Duration) {
        let (until, cores) = (Instant::now() + limit, &self.cores);
        let request = |round| cores.request_usage(round);
        self.waiters.begin(waiter, until, request);
    }

    fn on_ask(&mut self, ask: Box<StateAsk>) {
        if !ask.is_open() {
            return;
        }
        if !self.unread.admits(ask.client.1, Class::Listing) {
            return self.reply(&ask, Rendering::Overloaded);
        }
        match &ask.wanted {
            AdminAsk::Usage(query) => {
                let query = query.clone();
                self.collect(Waiter::Report(query, ask), REPORT_WAIT);
            }
            _ => {
                let made = self.serve_keys(&ask);
                self.respond(&ask, made);
            }
        }
    }

    fn serve_waiters(&mut self) {
        for waiter in self.waiters.take_complete(Instant::now()) {
            match waiter {
                Waiter::Report(query, ask) if ask.is_open() => self.report(&query, &ask),
                Waiter::Report(..) => {}
                Waiter::End(done) => {
                    self.write(Instant::now(), true);
                    self.ended = Some(done);
                }
            }
        }
    }

    fn report(&self, query: &UsageQuery, ask: &StateAsk) {
        let report = self.book.report(query, SystemTime::now());
        let made = report.map(|report| AdminReply {
            status: 200,
            content_type: report.content_type,
            location: None,
            body: Bytes::from(report.body),
        });
        self.respond(ask, made.map_err(|fault| unavailable(&fault)));
    }

    fn respond(&self, ask: &StateAsk, made: Result<AdminReply, Error>) {
        let mut counted = self.unread.count(Rendering::Admin(made));
        self.reply(ask, counted.for_client(ask.client.1));
    }

    fn reply(&self, ask: &StateAsk, rendering: Rendering) {
        if ask.is_open() {
            let ticket = ask.reply_to.ticket;
            let message = ToCore::Rendered { ticket, rendering };
            self.cores.send(ask.reply_to.core, message);
        }
    }

    /// Writes what is in memory, if it is time.
    fn write_if_due(&mut self) {
        let now = Instant::now();
        if now < self.book.due() {
            return;
        }
        let days = self.broadcast.newest().fleet.plan.state.retention_days;
        self.aside.look(&self.common.access, &self.logger);
        self.book.keep_for(days);
        self.write(now, false);
        // Names that went with an earlier state may have counted nothing.
        let is_due = now.duration_since(self.swept) >= SWEEP_INTERVAL;
        if self.common.access.reclaim() || is_due {
            self.swept = now;
            let now_ms = self.common.clock_ms(now);
            self.common.access.book().sweep(now_ms);
        }
    }

    /// Writes what is in memory.
    fn write(&mut self, now: Instant, is_end: bool) {
        let unix_ms = unix_millis(SystemTime::now());
        self.read_new_windows(unix_ms);
        let access = &self.common.access;
        let changed = match self.book.has_store() {
            true => self.windows.changed(access, unix_ms, is_end),
            false => windows::Changed::default(),
        };
        let today = Day::of_unix_ms(unix_ms);
        let written = self.book.write(now, today, &changed.batch);
        let is_written = matches!(written, WriteOutcome::Done | WriteOutcome::Again);
        self.windows.wrote(&changed, is_written);
        self.note(written, is_end);
    }

    /// Counts the windows that the store has of new names of tokens.
    fn read_new_windows(&mut self, unix_ms: u64) {
        let read = |name: &str| self.book.windows(name);
        if let Err(fault) = windows::restore_new(&self.common.access, unix_ms, read) {
            self.note_fault(&fault);
        }
    }

    /// Logs what is news. What is in memory at the end is lost, which is said in any case.
    fn note(&self, written: WriteOutcome, is_end: bool) {
        match written {
            WriteOutcome::Nothing | WriteOutcome::Done => {}
            WriteOutcome::Again => self.log(Level::Info, events::STORE_BACK, &[]),
            WriteOutcome::Failed { fault, is_news } => {
                if is_news || is_end {
                    self.log_failure(&fault);
                }
            }
        }
        self.show();
    }

    /// Shows metrics how the store is.
    fn show(&self) {
        let (rows, errors) = self.book.counts();
        self.common.state.set(StateFacts {
            is_up: self.path.is_some().then(|| self.book.is_up()),
            pending_rows: rows as u64,
            errors,
            usage_rejected: 0,
        });
    }

    fn log_failure(&self, fault: &StoreFault) {
        let shown = self.path.as_ref().map(|path| path.shown.as_path());
        let remedy = remedy(shown.unwrap_or(Path::new("")), fault);
        let error = format!("{fault}{remedy}");
        let (rows, _) = self.book.counts();
        let fields = [
            ("error", Value::Str(&error)),
            ("pending_rows", Value::Num(rows as u64)),
        ];
        self.log(Level::Error, events::STORE_FAILED, &fields);
    }

    fn log(&self, level: Level, msg: &str, fields: &[(&'static str, Value<'_>)]) {
        let path = self.path.as_ref();
        let path = path.map_or_else(String::new, |path| path.shown.display().to_string());
        let all = [&[("path", Value::Str(&path))], fields].concat();
        self.logger.emit(level, msg, &all);
    }
}

/// The response while the store cannot be used.
fn unavailable(fault: &StoreFault) -> Error {
    let mut error = Error::new(
        503,
        "service_unavailable",
        "STATE_UNAVAILABLE",
        format!("the state store cannot be used now: {fault}"),
    );
    error.retry_after = Some(5);
    error
}

/// What a channel holds now.
fn drained<T>(channel: &Receiver<T>) -> Vec<T> {
    // Bounded by what is there at the beginning.
    channel.try_iter().take(channel.len()).collect()
}
