//! Replies of the control and pages threads to the requests of one core.
//!
//! A request that needs something slow takes a ticket, sends its number with the message, and
//! suspends. When the core's bell rings, it checks whether the reply has arrived. The ticket ends
//! with its request, and with it the reply: nothing is kept for a client that left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;

use crate::shared::{Rendering, ToCore};

/// A reply to one request.
#[derive(Debug)]
pub(super) enum ControlReply {
    Refreshed(bool),
    Running(Bytes),
    Rendered(Rendering),
    IssuerKeysTried,
}

/// What another thread collects of the cores, and the number of the collection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Collection {
    Counts(u64),
    Usage(u64),
}

/// Entitles a request to one reply, as long as it exists.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    /// The deadline of the reply.
    pub(super) by: Instant,
    /// Shows other threads that the request still waits.
    open: Arc<()>,
    replies: Rc<Replies>,
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
    /// The replies of all tickets; `None` = not arrived.
    expected: RefCell<FxHashMap<u64, Option<ControlReply>>>,
    next: Cell<u64>,
}

impl Ticket {
    /// The number of the request, unique on its core.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Other threads see by it whether the request still waits.
    pub(super) fn open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    /// The reply. It can be taken once.
    pub(super) fn take(&self, now: Instant) -> Awaited {
        let mut expected = self.replies.expected.borrow_mut();
        match expected.get_mut(&self.number).and_then(Option::take) {
            Some(reply) => Awaited::Arrived(reply),
            None if now < self.by => Awaited::Later(self.by),
            None => Awaited::Never,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.replies.expected.borrow_mut().remove(&self.number);
    }
}

impl Replies {
    pub(super) fn new(channel: Receiver<ToCore>) -> Self {
        Self {
            channel,
            expected: RefCell::default(),
            next: Cell::new(1),
        }
    }

    /// A new ticket.
    pub(super) fn ticket(self: &Rc<Self>, by: Instant) -> Ticket {
        let number = self.next.replace(self.next.get() + 1);
        self.expected.borrow_mut().insert(number, None);
        Ticket {
            number,
            by,
            open: Arc::new(()),
            replies: Rc::clone(self),
        }
    }

    /// Receives what the channel holds. Calls `flush` for each collection of counts or usage that
    /// another thread requests.
    pub(super) fn receive(&self, mut flush: impl FnMut(Collection)) {
        while let Ok(message) = self.channel.try_recv() {
            let (ticket, reply) = match message {
                ToCore::FlushCounts { round } => {
                    flush(Collection::Counts(round));
                    continue;
                }
                ToCore::FlushUsage { round } => {
                    flush(Collection::Usage(round));
                    continue;
                }
                ToCore::Refreshed { ticket, any } => (ticket, ControlReply::Refreshed(any)),
                ToCore::Running { ticket, body } => (ticket, ControlReply::Running(body)),
                ToCore::IssuerKeysTried { ticket } => (ticket, ControlReply::IssuerKeysTried),
                ToCore::Rendered { ticket, rendering } => {
                    (ticket, ControlReply::Rendered(rendering))
                }
            };
            if let Some(place) = self.expected.borrow_mut().get_mut(&ticket) {
                *place = Some(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reply_is_kept_as_long_as_its_request() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let replies = Rc::new(Replies::new(receiver));
        let now = Instant::now();
        let by = now + Duration::from_secs(1);
        let (stays, left, waits) = (replies.ticket(by), replies.ticket(by), replies.ticket(by));
        let open = left.open();
        assert_eq!(open.strong_count(), 1);
        for ticket in [stays.number(), left.number()] {
            let any = true;
            sender.send(ToCore::Refreshed { ticket, any }).unwrap();
        }
        let number = left.number();
        replies.receive(|_| panic!("no counts are requested"));
        drop(left);
        assert_eq!(open.strong_count(), 0);
        // A reply that comes after its request has ended is dropped.
        let late = ToCore::Refreshed {
            ticket: number,
            any: true,
        };
        sender.send(late).unwrap();
        replies.receive(|_| panic!("no counts are requested"));
        assert_eq!(replies.expected.borrow().len(), 2);
        assert!(matches!(
            stays.take(now),
            Awaited::Arrived(ControlReply::Refreshed(true))
        ));
        assert!(matches!(stays.take(now), Awaited::Later(at) if at == by));
        assert!(matches!(waits.take(by), Awaited::Never));
        drop((stays, waits));
        assert!(replies.expected.borrow().is_empty());
    }
}
