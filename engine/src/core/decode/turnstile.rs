//! A place that one task at a time may have, in the order in which they asked for it.

use std::cell::Cell;

use crate::core::rounds::Rounds;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    taken: Cell<bool>,
    waiting: Rounds,
    /// Tasks that wait, or have been woken and did not run yet.
    queued: Cell<usize>,
}

/// The place. It is passed on when it is dropped.
#[derive(Debug)]
pub(super) struct Passage<'t>(&'t Turnstile);

/// A task in the queue. One that is dropped after it was woken wakes the next.
struct Queued<'t>(&'t Turnstile);

impl Turnstile {
    /// Waits for the place.
    pub(super) async fn enter(&self) -> Passage<'_> {
        // One that has just left must not overtake those that it has woken.
        if self.taken.get() || self.queued.get() > 0 {
            let _queued = Queued::new(self);
            loop {
                self.waiting.wait().await;
                if !self.taken.get() {
                    break;
                }
            }
            // Before the task leaves the queue, which would wake the next.
            self.taken.set(true);
        }
        self.taken.set(true);
        Passage(self)
    }
}

impl<'t> Queued<'t> {
    fn new(of: &'t Turnstile) -> Self {
        of.queued.set(of.queued.get() + 1);
        Self(of)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.set(self.0.queued.get() - 1);
        if !self.0.taken.get() {
            self.0.waiting.wake_first(1);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.waiting.wake_first(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll<'t>(task: Pin<&mut impl Future<Output = Passage<'t>>>) -> Option<Passage<'t>> {
        match task.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass),
            Poll::Pending => None,
        }
    }

    #[test]
    fn those_who_wait_go_before_one_that_comes_back() {
        let turnstile = Turnstile::default();
        let first = poll(pin!(turnstile.enter())).expect("free");
        let mut second = Box::pin(turnstile.enter());
        let mut third = Box::pin(turnstile.enter());
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        drop(first);
        // The second was woken and has not run yet.
        let mut again = Box::pin(turnstile.enter());
        assert!(poll(again.as_mut()).is_none());
        let pass = poll(second.as_mut()).expect("its turn");
        assert!(poll(third.as_mut()).is_none());
        drop(pass);
        drop(poll(third.as_mut()).expect("its turn"));
        drop(poll(again.as_mut()).expect("its turn"));
        assert!(poll(pin!(turnstile.enter())).is_some());
    }

    #[test]
    fn a_task_that_ends_after_it_was_woken_wakes_the_next() {
        let turnstile = Turnstile::default();
        let first = poll(pin!(turnstile.enter())).expect("free");
        let mut second = Box::pin(turnstile.enter());
        let mut third = Box::pin(turnstile.enter());
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        drop(first);
        drop(second);
        assert!(poll(third.as_mut()).is_some());
    }
}
