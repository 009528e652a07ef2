//! Many tasks of one thread that wait for the same moment, which comes again and again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: RefCell<Vec<Waker>>,
    round: Cell<u64>,
}

impl Rounds {
    /// Wakes all that wait.
    pub(super) fn tell(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Waits for the next round.
    pub(super) async fn wait(&self) {
        let seen = self.round.get();
        poll_fn(|cx| {
            if self.round.get() != seen {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn a_round_ends_every_wait_that_began_before_it() {
        let rounds = Rounds::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut early = pin!(rounds.wait());
        assert!(early.as_mut().poll(&mut cx).is_pending());
        rounds.tell();
        let mut late = pin!(rounds.wait());
        assert!(early.poll(&mut cx).is_ready());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        rounds.tell();
        assert!(late.poll(&mut cx).is_ready());
    }
}
