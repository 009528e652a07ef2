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
mod route;
mod view;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use olla_engine::snapshot::Subscriber;
use rustc_hash::FxHashMap;

use crate::catalogue::CatalogueError;
use crate::log::LineLog;
use crate::operations::stats::Recorder;
use crate::shared::{Common, Event, Link, Rendered, Snapshot, ToCore};
use id::Randomness;
use view::View;

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
