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
        self.tell_first(usize::MAX);
    }

    /// Wakes those that have waited longest, so many at most.
    pub(super) fn tell_first(&self, wakes_max: usize) {
        self.round.set(self.round.get().wrapping_add(1));
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.len().min(wakes_max);
        waiting.drain(..first).for_each(Waker::wake);
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

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

    #[test]
    fn those_that_have_waited_longest_are_told_first() {
        let rounds = Rounds::default();
        let told: Vec<_> = (0..3).map(|_| Arc::new(Told::default())).collect();
        let wakers: Vec<_> = told
            .iter()
            .map(|told| Waker::from(Arc::clone(told)))
            .collect();
        let mut waits: Vec<_> = wakers.iter().map(|_| Box::pin(rounds.wait())).collect();
        for (wait, waker) in waits.iter_mut().zip(&wakers) {
            let mut cx = Context::from_waker(waker);
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        let are_told = || told.iter().map(|told| told.0.load(Ordering::Relaxed));
        rounds.tell_first(2);
        assert!(are_told().eq([true, true, false]));
        rounds.tell_first(2);
        assert!(are_told().eq([true; 3]));
    }

    #[derive(Default)]
    struct Told(AtomicBool);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
