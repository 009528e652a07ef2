//! A request that waits for its turn before it goes to a backend.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use super::connection::{Interrupt, earliest};
use super::early::{Asker, asker};
use super::lane::{Lane, Wire};
use crate::exchange::{Action, Event};
use crate::handler::{Exchange, Handler, Outcome};

impl<H: Handler> Lane<'_, H> {
    /// Waits until the exchange is to be asked again where the request goes. A client that waits for
    /// too long gets bytes of the exchange's own meanwhile.
    pub(super) async fn wait_for_turn(&mut self, until: Instant) -> Result<(), Action> {
        let early_after = self.ask(self.core.now(), |x, ask, _| x.early_after(ask));
        self.wire.early.repeat(early_after);
        let core = self.core;
        match self.x.turn() {
            Some(turn) => {
                let turn = Rc::clone(turn);
                self.wire
                    .wait_for_turn(turn.wait(), until, asker!(self))
                    .await
            }
            None => {
                let news = core.wait_for_news();
                self.wire.wait_for_turn(news, until, asker!(self)).await
            }
        }
    }

    /// The request has ended while it waited for its turn.
    pub(super) fn ended_waiting(&self, action: Action) -> Outcome {
        match action {
            Action::Reset => Outcome::ClientStalled,
            Action::Cut(fault) | Action::Fail(fault) | Action::NextEndpoint(fault) => {
                Outcome::Broken(fault)
            }
            _ => Outcome::ClientLeft,
        }
    }
}

impl<H: Handler> Wire<'_, H> {
    /// Waits for the turn of a request, until a time at the latest, or until it is revoked.
    async fn wait_for_turn<F: Future<Output = ()>>(
        &mut self,
        turn: F,
        until: Instant,
        asker: &Asker<'_, H>,
    ) -> Result<(), Action> {
        let mut turn = pin!(turn);
        loop {
            let due = earliest(self.life.deadline(), self.early.due);
            self.io.deadline.set(earliest(due, Some(until)));
            match self.io.guard(turn.as_mut()).await {
                Ok(()) => {
                    // What follows counts from now.
                    self.core.clock();
                    return Ok(());
                }
                Err(Interrupt::Left) => return Err(self.on(Event::ClientLeft)),
                Err(Interrupt::Stalled) => return Err(self.on(Event::ClientStalled)),
                Err(Interrupt::Deadline) => {}
            }
            let now = self.core.clock();
            match self.life.on(Event::Timer, now) {
                Action::Continue => {}
                action => return Err(action),
            }
            if now >= until || self.is_revoked() {
                return Ok(());
            }
            if self.early.due.is_some_and(|due| due <= now) {
                Box::pin(self.fill(asker, now)).await?;
            }
        }
    }
}
