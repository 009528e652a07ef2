//! The channel to the thread of the state store: usage that cores have counted, and requests for
//! keys and usage.
//!
//! Contract: docs/contract/access.md#13

use std::net::IpAddr;
use std::sync::Weak;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::reply::ReplyTo;
use crate::operations::StateFacts;
use crate::state::{AdminAsk, UsageDelta};

/// Requests in the queue. A request that finds it full is refused.
const ASKS_MAX: usize = 256;

/// Hand-overs of usage in the queue. A core that finds it full keeps its own until the next time.
const EVENTS_MAX: usize = 1024;

/// A message that is no request.
#[derive(Debug)]
pub(crate) enum StateEvent {
    /// What a core has counted.
    Usage(UsageDelta),
    /// A core has handed over what it had counted, as `ToCore::FlushUsage` requested.
    Flushed {
        /// Number of the collection.
        round: u64,
    },
    /// The process ends: write everything, then report that by dropping the sender.
    End(Sender<()>),
}

/// A request for keys or usage.
#[derive(Debug)]
pub(crate) struct StateAsk {
    /// What is wanted.
    pub wanted: AdminAsk,
    /// Where the response goes.
    pub reply_to: ReplyTo,
    /// Whether the request still waits: it holds the other end.
    pub open: Weak<()>,
    /// The client's address, and what limits count it by.
    pub client: (IpAddr, IpAddr),
    /// The name of the key that the request was sent with.
    pub actor: Box<str>,
}

impl StateAsk {
    /// Whether the request still waits for its response.
    pub(crate) fn is_open(&self) -> bool {
        self.open.strong_count() > 0
    }
}

/// Sends messages to the thread of the state store.
#[derive(Debug, Clone)]
pub(crate) struct StateSender {
    asks: Sender<Box<StateAsk>>,
    events: Sender<StateEvent>,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct StateReceiver {
    /// Requests.
    pub asks: Receiver<Box<StateAsk>>,
    /// Everything else.
    pub events: Receiver<StateEvent>,
}

impl StateSender {
    /// The sender and its receiver.
    pub(crate) fn new() -> (Self, StateReceiver) {
        let (asks, asked) = bounded(ASKS_MAX);
        let (events, occurred) = bounded(EVENTS_MAX);
        let receiver = StateReceiver {
            asks: asked,
            events: occurred,
        };
        (Self { asks, events }, receiver)
    }

    /// Sends a request; false if the queue is full.
    pub(crate) fn ask(&self, ask: StateAsk) -> bool {
        self.asks.try_send(Box::new(ask)).is_ok()
    }

    /// Hands over what a core has counted.
    ///
    /// # Errors
    /// If the queue is full: the same, to be kept.
    pub(crate) fn usage(&self, delta: UsageDelta) -> Result<(), UsageDelta> {
        match self.events.try_send(StateEvent::Usage(delta)) {
            Err(TrySendError::Full(StateEvent::Usage(delta))) => Err(delta),
            _ => Ok(()),
        }
    }

    /// Reports that a core has handed over everything. A report that is lost is waited for in vain,
    /// for a short time.
    pub(crate) fn flushed(&self, round: u64) {
        let _ = self.events.try_send(StateEvent::Flushed { round });
    }

    /// Requests that everything is written; the channel closes when it is.
    pub(crate) fn end(&self) -> Receiver<()> {
        let (done, ended) = bounded(0);
        // A queue that stays full belongs to a thread that no longer works.
        let _ = self
            .events
            .send_timeout(StateEvent::End(done), std::time::Duration::from_secs(1));
        ended
    }
}

/// How the store is, for metrics.
#[derive(Debug, Default)]
pub(crate) struct StateGauges {
    /// See [`StateFacts::is_up`]: 0 = there is none, 1 = down, 2 = up.
    up: AtomicU8,
    pending_rows: AtomicU64,
    errors: AtomicU64,
}

impl StateGauges {
    /// Notes how the store is.
    pub(crate) fn set(&self, facts: StateFacts) {
        let up = facts.is_up.map_or(0, |is_up| 1 + u8::from(is_up));
        self.up.store(up, Ordering::Relaxed);
        self.pending_rows
            .store(facts.pending_rows, Ordering::Relaxed);
        self.errors.store(facts.errors, Ordering::Relaxed);
    }

    /// How the store was last.
    pub(crate) fn get(&self) -> StateFacts {
        StateFacts {
            is_up: match self.up.load(Ordering::Relaxed) {
                0 => None,
                up => Some(up > 1),
            },
            pending_rows: self.pending_rows.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            usage_rejected: 0,
        }
    }
}
