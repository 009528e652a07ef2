//! Replies of the control thread to the requests of one core.
//!
//! A request that needs something slow takes a ticket, sends its number with the message, and
//! suspends. When the core's bell rings, it checks whether the reply has arrived.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;

use crate::catalogue::CatalogueError;
use crate::shared::{PageResponse, ToCore};

/// Maximum number of replies that are kept for requests that may have ended. Beyond that, the older
/// half is dropped.
const REPLIES_MAX: usize = 1024;

/// A reply to one request.
#[derive(Debug)]
pub(super) enum ControlReply {
    Refreshed(bool),
    Listing(Option<Result<Bytes, CatalogueError>>),
    Page(Box<PageResponse>),
}

/// Entitles a request to one reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) number: u64,
    /// The deadline of the reply.
    pub(super) by: Instant,
}

/// The state of an awaited reply.
#[derive(Debug)]
pub(super) enum Awaited {
    /// It has not arrived; its deadline is at this time.
    Later(Instant),
    /// It has arrived.
    Arrived(ControlReply),
    /// Its deadline has passed.
    Never,
}

/// The replies that have arrived on one core.
#[derive(Debug)]
pub(super) struct Replies {
    channel: Receiver<ToCore>,
    arrived: RefCell<FxHashMap<u64, ControlReply>>,
    next: Cell<u64>,
}

impl Replies {
    pub(super) fn new(channel: Receiver<ToCore>) -> Self {
        Self {
            channel,
            arrived: RefCell::default(),
            next: Cell::new(1),
        }
    }

    /// A new ticket.
    pub(super) fn ticket(&self, by: Instant) -> Ticket {
        Ticket {
            number: self.next.replace(self.next.get() + 1),
            by,
        }
    }

    /// The reply to a ticket. It can be taken once.
    pub(super) fn take(&self, ticket: Ticket, now: Instant) -> Awaited {
        match self.arrived.borrow_mut().remove(&ticket.number) {
            Some(reply) => Awaited::Arrived(reply),
            None if now < ticket.by => Awaited::Later(ticket.by),
            None => Awaited::Never,
        }
    }

    /// Receives what the channel holds. Calls `flush_counts` for each collection of counts that the
    /// control thread requests.
    pub(super) fn receive(&self, mut flush_counts: impl FnMut(u64)) {
        let mut arrived = self.arrived.borrow_mut();
        while let Ok(message) = self.channel.try_recv() {
            let (ticket, reply) = match message {
                ToCore::FlushCounts { round } => {
                    flush_counts(round);
                    continue;
                }
                ToCore::Refreshed { ticket, any } => (ticket, ControlReply::Refreshed(any)),
                ToCore::Listing { ticket, listing } => (ticket, ControlReply::Listing(listing)),
                ToCore::Page { ticket, page } => (ticket, ControlReply::Page(page)),
            };
            arrived.insert(ticket, reply);
        }
        if arrived.len() > REPLIES_MAX {
            let newest = self.next.get().saturating_sub(REPLIES_MAX as u64 / 2);
            arrived.retain(|ticket, _| *ticket >= newest);
        }
    }
}
