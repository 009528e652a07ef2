//! A request in the queue: it leaves when it is dropped, and is told when it may start.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use olla_engine::request_turn::RequestTurn;

use super::Gateway;
use super::view::View;
use crate::schedule::queue::{Full, QueueStanding, TicketId};
use crate::schedule::scheduler::QueueExit;
use crate::schedule::waiting::Waiting;
use crate::shared::Start;

/// The turn of a request that waits.
#[derive(Debug)]
pub(super) struct QueuedTurn {
    turn: Rc<RequestTurn>,
    started: RefCell<Option<Start>>,
}

/// A request in the queue. It leaves the queue when this is dropped.
#[derive(Debug)]
pub(super) struct InQueue {
    gateway: Rc<Gateway>,
    id: TicketId,
    number: u64,
    turn: Rc<QueuedTurn>,
    since: Instant,
    /// It has been told to start, and has taken note.
    is_over: bool,
}

impl InQueue {
    /// Puts a request in the queue, where it has waited `since`. Others may start because of it.
    ///
    /// # Errors
    /// The bound that it does not fit in.
    pub(super) fn enter(
        gateway: &Rc<Gateway>,
        (standing, waiting): (QueueStanding, Waiting),
        since: Instant,
        now: Instant,
    ) -> Result<Self, Full> {
        let common = &gateway.common;
        let number = waiting.number;
        let turn = Rc::new(QueuedTurn {
            turn: Rc::new(RequestTurn::default()),
            started: RefCell::new(None),
        });
        gateway.turns.borrow_mut().insert(number, Rc::clone(&turn));
        let settings = gateway.view.borrow().scheduling;
        let waits = common
            .scheduler
            .wait(standing, waiting, &settings, common.clock_ms(now));
        let (id, starts) = waits.inspect_err(|_| {
            gateway.turns.borrow_mut().remove(&number);
        })?;
        gateway.hand_out(starts, now);
        Ok(Self {
            gateway: Rc::clone(gateway),
            id,
            number,
            turn,
            since,
            is_over: false,
        })
    }

    /// Its place in the queue.
    pub(super) fn id(&self) -> TicketId {
        self.id
    }

    /// When it began to wait.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What it starts with, once it was told to. Then it is not in the queue any more.
    pub(super) fn take_start(&mut self) -> Option<Start> {
        let start = self.turn.started.take()?;
        self.is_over = true;
        Some(start)
    }

    /// What ends the wait.
    pub(super) fn turn(&self) -> &Rc<RequestTurn> {
        &self.turn.turn
    }
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.gateway.turns.borrow_mut().remove(&self.number);
        if self.is_over {
            return;
        }
        let scheduler = &self.gateway.common.scheduler;
        let left = scheduler.leave(self.id);
        if let Some((started, charge)) = self.turn.started.take() {
            scheduler.settle(&charge, 0.0);
            drop(started);
        }
        if left != QueueExit::Waited {
            self.gateway.reconsider(Instant::now());
        }
    }
}

impl Gateway {
    /// Names the next request that waits: this core, and a number of it there.
    pub(super) fn next_turn(&self) -> (usize, u64) {
        let number = self.turn_number.get();
        self.turn_number.set(number + 1);
        (self.core, number)
    }

    /// Another snapshot is in force: requests that wait look where they may go now.
    pub(super) fn view_changed(&self, before: &View) {
        let turns = self.turns.borrow();
        if turns.is_empty() || self.view.borrow().routes_like(before) {
            return;
        }
        turns.values().for_each(|turn| turn.turn.come());
    }

    /// Slots, health, warmth or the fleet have changed: requests that wait may start.
    pub(super) fn reconsider(&self, now: Instant) {
        let scheduler = &self.common.scheduler;
        if scheduler.waiting() == 0 {
            return;
        }
        let settings = self.view.borrow().scheduling;
        let starts = scheduler.reconsider(&settings, self.common.clock_ms(now));
        self.hand_out(starts, now);
    }

    /// Tells requests that they may start: those of this core now, the others through their cores.
    pub(super) fn hand_out(&self, starts: Vec<Start>, now: Instant) {
        let (own, others): (Vec<_>, Vec<_>) = starts
            .into_iter()
            .partition(|(started, _)| started.core == self.core);
        self.common.starts.give(others);
        self.deliver(own, now);
    }

    /// Tells requests of this core that they may start.
    pub(super) fn deliver(&self, starts: Vec<Start>, now: Instant) {
        let mut is_free = false;
        for start in starts {
            let number = start.0.number;
            let turn = self.turns.borrow().get(&number).cloned();
            match turn {
                Some(turn) => {
                    turn.started.replace(Some(start));
                    turn.turn.come();
                }
                // Its client has left: the slot goes to another.
                None => {
                    self.common.scheduler.settle(&start.1, 0.0);
                    is_free = true;
                }
            }
        }
        if is_free {
            self.reconsider(now);
        }
    }
}
