//! What the control thread replies to the requests of one core.
//!
//! A request that needs something slow draws a ticket, sends its number along and suspends; when the
//! core's bell has rung it looks whether the reply is there.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;

use crate::catalogue::CatalogueError;
use crate::shared::{PageResponse, ToCore};

/// Replies kept for requests that may have left. Beyond that, the older half goes.
const REPLIES_MAX: usize = 1024;

/// A reply to one request.
#[derive(Debug)]
pub(super) enum ControlReply {
    Refreshed(bool),
    Listing(Option<Result<Bytes, CatalogueError>>),
    Page(Box<PageResponse>),
}

/// The right to one reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) number: u64,
    /// When the reply is no longer waited for.
    pub(super) by: Instant,
}

/// Where a reply is.
#[derive(Debug)]
pub(super) enum Awaited {
    /// On its way; to be looked for again by then.
    Later(Instant),
    /// Here.
    Arrived(ControlReply),
    /// It did not come in time.
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

    /// The reply to a ticket; it is handed out once.
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
