//! Many tasks of one thread that wait for the same moment, which comes again and again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The queue of waiting tasks; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The waiting tasks by number, and so in order of arrival.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    /// The number of the next one.
    next: Cell<u64>,
    /// All with lower numbers have been woken.
    woken: Cell<u64>,
}

/// Waits for the next round. A dropped wait leaves the queue.
#[derive(Debug)]
pub(super) struct Wait<'r> {
    rounds: &'r Rounds,
    number: Option<u64>,
}

impl Rounds {
    /// Wakes all that wait.
    pub(super) fn wake_all(&self) {
        self.wake_first(usize::MAX);
    }

    /// Wakes those that have waited longest, at most `wakes_max`.
    pub(super) fn wake_first(&self, wakes_max: usize) {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.len().min(wakes_max);
        for (number, waker) in waiting.drain(..first) {
            self.woken.set(number + 1);
            waker.wake();
        }
    }

    /// Waits for the next wake-up.
    pub(super) fn wait(&self) -> Wait<'_> {
        Wait {
            rounds: self,
            number: None,
        }
    }
}

impl Wait<'_> {
    /// Its number in the queue, if it waits there.
    fn waiting(&self) -> Option<u64> {
        self.number
            .filter(|number| *number >= self.rounds.woken.get())
    }
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let rounds = self.rounds;
        let mut waiting = rounds.waiting.borrow_mut();
        match (self.number, self.waiting()) {
            (None, _) => {
                let number = rounds.next.get();
                rounds.next.set(number + 1);
                waiting.push_back((number, cx.waker().clone()));
                self.number = Some(number);
            }
            (Some(_), None) => return Poll::Ready(()),
            (_, Some(number)) => {
                let at = waiting.binary_search_by_key(&number, |(number, _)| *number);
                if let Some((_, waker)) = at.ok().and_then(|at| waiting.get_mut(at)) {
                    waker.clone_from(cx.waker());
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.waiting() {
            let mut waiting = self.rounds.waiting.borrow_mut();
            if let Ok(at) = waiting.binary_search_by_key(&number, |(number, _)| *number) {
                waiting.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        rounds.wake_all();
        let mut late = pin!(rounds.wait());
        assert!(early.poll(&mut cx).is_ready());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        rounds.wake_all();
        assert!(late.poll(&mut cx).is_ready());
    }

    #[test]
    fn those_that_have_waited_longest_are_woken_first() {
        let rounds = Rounds::default();
        let flags: Vec<_> = (0..3).map(|_| Arc::new(WokenFlag::default())).collect();
        let wakers: Vec<_> = flags
            .iter()
            .map(|flag| Waker::from(Arc::clone(flag)))
            .collect();
        let mut waits: Vec<_> = wakers.iter().map(|_| Box::pin(rounds.wait())).collect();
        for (wait, waker) in waits.iter_mut().zip(&wakers) {
            let mut cx = Context::from_waker(waker);
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        let are_woken = || flags.iter().map(|flag| flag.0.load(Ordering::Relaxed));
        rounds.wake_first(2);
        assert!(are_woken().eq([true, true, false]));
        rounds.wake_first(2);
        assert!(are_woken().eq([true; 3]));
    }

    #[test]
    fn dropped_waits_leave_the_queue() {
        let rounds = Rounds::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (0..4).map(|_| Box::pin(rounds.wait())).collect();
        for wait in &mut waits {
            // A wait that is polled twice is queued once.
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        drop(waits.remove(2));
        drop(waits.remove(0));
        rounds.wake_first(1);
        assert!(waits[0].as_mut().poll(&mut cx).is_ready());
        assert!(waits[1].as_mut().poll(&mut cx).is_pending());
        waits.remove(0);
        rounds.wake_first(1);
        assert!(waits[0].as_mut().poll(&mut cx).is_ready());
        assert!(rounds.waiting.borrow().is_empty());
    }

    #[derive(Default)]
    struct WokenFlag(AtomicBool);

    impl Wake for WokenFlag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
