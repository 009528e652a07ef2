//! The gateway: implements the engine's trait and connects request, routing, dialect and response.
//! It makes no decisions itself.
//!
//! A [`Gateway`] belongs to one core, an [`Exchange`] to one request. To follow a request, read
//! [`exchange`] (the calls of the engine in their order), [`arrive`] (head, route, limits),
//! [`decide`] (model and candidates), [`pick`] (attempts), [`retry`] (failover on a status), [`forward`] (head to the endpoint),
//! [`respond`] (head to the client) and [`record`] (logs and statistics). [`local`] serves requests
//! that need no endpoint.
//!
//! Contract: docs/contract/surface.md#14 (order of checks)

mod access;
mod admin;
mod admit;
mod allowance;
mod arrive;
mod away;
mod bodies;
mod consult;
mod consultation;
mod cors;
mod decide;
mod dry;
mod dry_run;
mod early;
mod early_decoder;
mod event_count;
mod exchange;
mod explain;
mod forward;
mod id;
mod in_queue;
mod keep_alive;
mod kept;
mod limited;
mod loading;
mod local;
mod login;
mod ollama;
mod outlook;
mod owner;
mod permits;
mod pick;
mod picked;
mod progress;
mod quotas;
mod record;
mod redirect;
mod refused;
mod replies;
mod respond;
mod retry;
mod salt;
mod schedule;
mod scheduling;
mod steps;
mod stored;
mod tail;
mod token;
mod turns;
mod usage;
mod via;
mod view;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use olla_engine::h1::{FieldId, FieldNames as _};
use olla_engine::handler::{Handler, Limits};
use olla_engine::rt::Exhausted;
use olla_engine::snapshot::Subscriber;
use rustc_hash::FxHashMap;

pub(crate) use exchange::Exchange;
pub(crate) use kept::Kept;
pub(crate) use via::ViaEntry;

use crate::access::TokenChecker;
use crate::field_names::Names;
use crate::log::LineLog;
use crate::operations::stats::Recorder;
use crate::shared::{
    Common, ControlSender, PageAsk, PageEvent, PagesSender, ReplyTo, Shards, Snapshot, StateAsk,
    StateSender, ToControl, ToCore, WantedPage,
};
use crate::state::{AdminAsk, CoreUsage};
use id::Randomness;
use in_queue::QueuedTurn;
use replies::{Collection, Replies, Ticket};
use view::View;

/// How often a core sends its counts to the pages thread.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

/// The handler of one core.
#[derive(Debug)]
pub(crate) struct Gateway {
    core: usize,
    via: Arc<ViaEntry>,
    common: Arc<Common>,
    snapshots: RefCell<Subscriber<Snapshot>>,
    view: RefCell<Rc<View>>,
    /// The limits of the newest snapshot. Requests that still have an older view take from these
    /// too, so that all requests count by the same limits.
    shards: RefCell<Shards>,
    control: ControlSender,
    pages: PagesSender,
    state: StateSender,
    replies: Rc<Replies>,
    random: Randomness,
    /// The tokens that this core knows.
    tokens: RefCell<TokenChecker>,
    log: RefCell<LineLog>,
    recorder: RefCell<Recorder>,
    /// What was counted for the usage ledger.
    usage: RefCell<CoreUsage>,
    last_flush: Cell<Instant>,
    /// Proxied requests that the budget of repeats does not know of yet.
    proxied: Cell<u32>,
    /// The requests of this core that wait for a slot, by number.
    turns: RefCell<FxHashMap<u64, Rc<QueuedTurn>>>,
    /// The number of the next one.
    turn_number: Cell<u64>,
    /// [`Common::deaths`] when it was last looked at.
    deaths: Cell<u64>,
    /// [`AccessKeeper::cuts`](crate::access::AccessKeeper::cuts) when it was last looked at.
    cuts: Cell<u64>,
}

impl Gateway {
    /// The handler of a core.
    pub(crate) fn new(
        core: usize,
        via: Arc<ViaEntry>,
        common: Arc<Common>,
        mut snapshots: Subscriber<Snapshot>,
        (control, pages, state): (ControlSender, PagesSender, StateSender),
        replies: Receiver<ToCore>,
    ) -> Self {
        let snapshot = Arc::clone(snapshots.current());
        let mut shards = Shards::default();
        shards.follow(&snapshot.limiters);
        Self {
            core,
            via,
            log: RefCell::new(common.logger.line_log()),
            common,
            snapshots: RefCell::new(snapshots),
            view: RefCell::new(Rc::new(View::new(snapshot))),
            shards: RefCell::new(shards),
            control,
            pages,
            state,
            replies: Rc::new(Replies::new(replies)),
            random: Randomness::new(),
            tokens: RefCell::default(),
            recorder: RefCell::default(),
            usage: RefCell::default(),
            last_flush: Cell::new(Instant::now()),
            proxied: Cell::new(0),
            turns: RefCell::default(),
            turn_number: Cell::new(0),
            deaths: Cell::new(0),
            cuts: Cell::new(0),
        }
    }

    /// The newest view.
    fn view(&self) -> Rc<View> {
        let mut snapshots = self.snapshots.borrow_mut();
        if snapshots.is_behind() {
            let snapshot = Arc::clone(snapshots.current());
            self.shards.borrow_mut().follow(&snapshot.limiters);
            let before = self.view.replace(Rc::new(View::new(snapshot)));
            self.view_changed(&before);
        }
        Rc::clone(&self.view.borrow())
    }

    /// Requests something from the control thread; `None` if its queue is full.
    fn ask(&self, by: Instant, message: impl FnOnce(ReplyTo) -> ToControl) -> Option<Ticket> {
        let ticket = self.replies.ticket(by);
        let reply_to = self.reply_to(&ticket);
        self.control.send(message(reply_to)).then_some(ticket)
    }

    /// Requests a rendering from the pages thread; `None` if its queue is full.
    fn ask_for_page(&self, by: Instant, wanted: WantedPage, client: IpAddr) -> Option<Ticket> {
        let ticket = self.replies.ticket(by);
        let ask = PageAsk {
            reply_to: self.reply_to(&ticket),
            open: ticket.open(),
            client,
        };
        self.pages.ask(wanted, ask).then_some(ticket)
    }

    /// Requests something of keys or usage; `None` if the queue is full.
    fn ask_state(
        &self,
        by: Instant,
        wanted: AdminAsk,
        client: (IpAddr, IpAddr),
        actor: &str,
    ) -> Option<Ticket> {
        let ticket = self.replies.ticket(by);
        let ask = StateAsk {
            wanted,
            reply_to: self.reply_to(&ticket),
            open: ticket.open(),
            client,
            actor: actor.into(),
        };
        self.state.ask(ask).then_some(ticket)
    }

    fn reply_to(&self, ticket: &Ticket) -> ReplyTo {
        ReplyTo {
            core: self.core,
            ticket: ticket.number(),
        }
    }

    /// Sends what was counted since the last time to the pages thread.
    fn flush_counts(&self, now: Instant) {
        self.last_flush.set(now);
        let delta = self.recorder.borrow_mut().take();
        if let Some(delta) = delta {
            self.pages.event(PageEvent::Counts(Box::new(delta)));
        }
        self.flush_usage();
    }

    /// Hands over what was counted for the usage ledger.
    fn flush_usage(&self) {
        let mut usage = self.usage.borrow_mut();
        if usage.is_empty() {
            return;
        }
        if let Err(kept) = self.state.usage(usage.take()) {
            usage.restore(kept);
        }
    }
}

impl Handler for Gateway {
    type Exchange = Exchange;
    const FIELD_NAMES: &'static [(&'static str, FieldId)] = Names::NAMES;
    const FIELD_PREFIX: Option<(&'static str, FieldId)> = Names::PREFIX;

    fn limits(&self) -> Limits {
        self.view.borrow().limits
    }

    fn begin(self: &Rc<Self>, kept: Kept) -> Exchange {
        Exchange::new(Rc::clone(self), self.view(), kept)
    }

    fn tick(&self, now: Instant) {
        if now.saturating_duration_since(self.last_flush.get()) >= FLUSH_INTERVAL {
            self.flush_counts(now);
        }
        let proxied = self.proxied.take();
        if proxied > 0 {
            let now_ms = self.common.clock_ms(now);
            self.common.retry_budget.count(now_ms, proxied);
        }
        self.log.borrow_mut().tick(crate::log::unix_ms());
        drop(self.view());
        self.shards.borrow_mut().tick(self.common.nanos(now));
    }

    fn has_lost_backends(&self) -> bool {
        let deaths = self.common.deaths.load(Ordering::Acquire);
        self.deaths.replace(deaths) != deaths
    }

    fn has_revoked(&self) -> bool {
        let cuts = self.common.access.cuts();
        self.cuts.replace(cuts) != cuts
    }

    fn news(&self, now: Instant) {
        self.deliver(self.common.starts.take(self.core), now);
        self.replies.receive(|collection| match collection {
            Collection::Counts(round) => {
                self.flush_counts(Instant::now());
                self.pages.event(PageEvent::CountsFlushed { round });
            }
            Collection::Usage(round) => {
                self.flush_usage();
                self.state.flushed(round);
            }
        });
        drop(self.view());
    }

    fn accept_failed(&self, resource: Exhausted) {
        self.control.send(ToControl::AcceptFailed(resource));
    }

    fn connect_failed(&self, resource: Exhausted) {
        self.control.send(ToControl::ConnectExhausted(resource));
    }
}

#[cfg(test)]
mod tests {
    use olla_engine::core::TaskSizes;

    use super::*;

    /// There are tens of thousands of connections, and each has the first of these even when it is
    /// idle.
    const SIZES_MAX: TaskSizes = TaskSizes {
        connection: 1_200,
        request: 3_584,
    };

    #[test]
    fn the_tasks_of_connections_are_small() {
        let sizes = TaskSizes::of::<Gateway>();
        println!("{sizes:?}");
        assert!(sizes.connection <= SIZES_MAX.connection, "{sizes:?}");
        assert!(sizes.request <= SIZES_MAX.request, "{sizes:?}");
    }
}
