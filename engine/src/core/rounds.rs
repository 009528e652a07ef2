//! Many tasks of one thread that wait for the same moment, which comes again and again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Who waits, by number and so in the order in which they came.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    /// The number of the next one.
    next: Cell<u64>,
    /// All with lower numbers have been told.
    told: Cell<u64>,
}

/// Waits for the next round. Who gives up the wait leaves the queue.
#[derive(Debug)]
pub(super) struct Wait<'r> {
    rounds: &'r Rounds,
    number: Option<u64>,
}

impl Rounds {
    /// Wakes all that wait.
    pub(super) fn tell(&self) {
        self.tell_first(usize::MAX);
    }

    /// Wakes those that have waited longest, so many at most.
    pub(super) fn tell_first(&self, wakes_max: usize) {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.len().min(wakes_max);
        for (number, waker) in waiting.drain(..first) {
            self.told.set(number + 1);
            waker.wake();
        }
    }

    /// Waits to be told.
    pub(super) fn wait(&self) -> Wait<'_> {
        Wait {
            rounds: self,
            number: None,
        }
    }
}

impl Wait<'_> {
    /// Whether it stands in the queue, by its number there.
    fn waiting(&self) -> Option<u64> {
        self.number
            .filter(|number| *number >= self.rounds.told.get())
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

    #[test]
    fn those_that_gave_up_take_nobody_s_place() {
        let rounds = Rounds::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> = (0..4).map(|_| Box::pin(rounds.wait())).collect();
        for wait in &mut waits {
            // However often it is asked, it stands there once.
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        drop(waits.remove(2));
        drop(waits.remove(0));
        rounds.tell_first(1);
        assert!(waits[0].as_mut().poll(&mut cx).is_ready());
        assert!(waits[1].as_mut().poll(&mut cx).is_pending());
        waits.remove(0);
        rounds.tell_first(1);
        assert!(waits[0].as_mut().poll(&mut cx).is_ready());
        assert!(rounds.waiting.borrow().is_empty());
    }

    #[derive(Default)]
    struct Told(AtomicBool);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
