//! The gateway: answers the engine's questions. The only glue between a request, the routing and
//! an answer; what it decides is decided elsewhere.
//!
//! Follow a request: [`handle`] (the questions in their order), [`arrive`] (head: route, limits),
//! [`route`] (model and candidates), [`forward`] (head to the backend), [`answers`] (head to the
//! client), [`record`] (what is kept of it).
//!
//! contract: surface 14 (order of checks)

mod answers;
mod arrive;
mod clients;
mod cors;
mod exchange;
mod forward;
mod handle;
mod id;
mod local;
mod messages;
mod record;
mod records;
mod route;
mod snapshot;
mod view;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use olla_engine::snapshot::Subscriber;
use rustc_hash::FxHashMap;

pub use clients::Limiters;
pub use records::Records;
pub use snapshot::{Backend, Snapshot, own_fields};

use crate::catalogue::CatalogueError;
use crate::control::{Event, Link, Rendered, ToCore};
use crate::log::{LineLog, Logger};
use crate::operations::stats::Recorder;
use crate::routing::balance::Turns;
use crate::routing::sticky::Sticky;
use id::Randomness;
use view::View;

/// What all cores share besides the snapshots.
#[derive(Debug)]
pub struct Common {
    /// When the process began.
    pub start: Instant,
    /// When that was, as the Messages API shows it.
    pub started_rfc3339: String,
    /// Whose turn it is.
    pub turns: Turns,
    /// Conversations and their endpoints.
    pub sticky: Sticky,
    /// The limits in force. Looked at when a snapshot comes, never for a request.
    pub limiters: RwLock<Arc<Limiters>>,
    /// Where lines go.
    pub logger: Logger,
    /// Files of the inspector.
    pub records: Records,
    /// Counts the endpoints that a core could not reach, so that every core knows with one load
    /// whether it has to look.
    pub losses: AtomicU64,
    /// Whether the process is shutting down.
    pub draining: AtomicBool,
}

impl Common {
    /// Milliseconds of the process's clock, for breakers and sessions.
    pub fn clock_ms(&self, now: Instant) -> u64 {
        // One more, because 0 stands for never.
        view::millis(now.saturating_duration_since(self.start)).saturating_add(1)
    }
}

/// The handler of one core.
#[derive(Debug)]
pub struct Gateway {
    core: usize,
    common: Arc<Common>,
    snapshots: RefCell<Subscriber<Snapshot>>,
    view: RefCell<Rc<View>>,
    link: Link,
    letters: Receiver<ToCore>,
    /// Letters by ticket, until the request that waits for one asks again.
    arrived: RefCell<FxHashMap<u64, Letter>>,
    tickets: Cell<u64>,
    random: Randomness,
    log: RefCell<LineLog>,
    recorder: RefCell<Recorder>,
    told: Cell<Instant>,
}

/// What a waiting request was sent.
#[derive(Debug)]
enum Letter {
    Refreshed(bool),
    Listing(Option<Result<Bytes, CatalogueError>>),
    Page(Box<Rendered>),
}

/// Letters kept for requests that may have left. Beyond that, the oldest half goes.
const ARRIVED_MAX: usize = 1024;

impl Gateway {
    /// The handler of a core.
    pub fn new(
        core: usize,
        common: Arc<Common>,
        mut snapshots: Subscriber<Snapshot>,
        link: Link,
        letters: Receiver<ToCore>,
    ) -> Self {
        let view = new_view(&common, Arc::clone(snapshots.current()));
        Self {
            core,
            log: RefCell::new(common.logger.line_log()),
            common,
            snapshots: RefCell::new(snapshots),
            view: RefCell::new(view),
            link,
            letters,
            arrived: RefCell::default(),
            tickets: Cell::new(1),
            random: Randomness::new(),
            recorder: RefCell::default(),
            told: Cell::new(Instant::now()),
        }
    }

    /// The newest view.
    fn view(&self) -> Rc<View> {
        let mut snapshots = self.snapshots.borrow_mut();
        if snapshots.is_behind() {
            let view = new_view(&self.common, Arc::clone(snapshots.current()));
            *self.view.borrow_mut() = view;
        }
        Rc::clone(&self.view.borrow())
    }

    fn ticket(&self) -> u64 {
        self.tickets.replace(self.tickets.get() + 1)
    }

    fn take_letters(&self) {
        let mut arrived = self.arrived.borrow_mut();
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                ToCore::Refreshed { ticket, any } => {
                    arrived.insert(ticket, Letter::Refreshed(any));
                }
                ToCore::HandOver { round } => {
                    self.hand_over_counts(Instant::now(), true);
                    self.link.tell(Event::HandedOver { round });
                }
                ToCore::Listing { ticket, listing } => {
                    arrived.insert(ticket, Letter::Listing(listing));
                }
                ToCore::Page { ticket, page } => {
                    arrived.insert(ticket, Letter::Page(page));
                }
            }
        }
        if arrived.len() > ARRIVED_MAX {
            let newest = self.tickets.get().saturating_sub(ARRIVED_MAX as u64 / 2);
            arrived.retain(|ticket, _| *ticket >= newest);
        }
    }
}

fn new_view(common: &Common, snapshot: Arc<Snapshot>) -> Rc<View> {
    let limiters = match common.limiters.read() {
        Ok(limiters) => Arc::clone(&limiters),
        Err(poisoned) => Arc::clone(&poisoned.into_inner()),
    };
    Rc::new(View::new(snapshot, &limiters))
}
