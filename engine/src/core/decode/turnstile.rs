//! Places that tasks take for a while. They go round the clients that wait, each of which has at
//! most one at a time, so no client's number of tasks matters to another.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::budget::Client;
use crate::fair::FairQueue;

/// See the module.
#[derive(Debug)]
pub(super) struct Turnstile {
    /// How many tasks have a place at most.
    places: usize,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The clients of those that have a place.
    inside: Vec<Client>,
    /// If a place is free, only clients that are inside wait.
    waiting: FairQueue<Waker>,
}

/// The place. It is passed on when it is dropped.
#[derive(Debug)]
pub(super) struct Passage<'t> {
    turnstile: &'t Turnstile,
    client: Client,
}

/// Waits for a place.
#[derive(Debug)]
pub(super) struct Enter<'t> {
    turnstile: &'t Turnstile,
    client: Client,
    /// Its number in the queue. Once it is not there any more, it has the place.
    number: Option<u64>,
}

impl Turnstile {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            state: RefCell::default(),
        }
    }

    /// Waits for a place for this client.
    pub(super) fn enter(&self, client: Client) -> Enter<'_> {
        Enter {
            turnstile: self,
            client,
            number: None,
        }
    }

    /// Takes a place from a task of this client, and gives it to the next.
    fn pass_on(&self, client: Client) {
        let mut state = self.state.borrow_mut();
        let State { inside, waiting } = &mut *state;
        if let Some(at) = inside.iter().position(|of| *of == client) {
            inside.swap_remove(at);
        }
        let next = waiting.pop_of(|client| !inside.contains(&client));
        if let Some((client, waker)) = next {
            inside.push(client);
            drop(state);
            waker.wake();
        }
    }
}

impl<'t> Enter<'t> {
    fn passage(&mut self) -> Passage<'t> {
        self.number = None;
        Passage {
            turnstile: self.turnstile,
            client: self.client,
        }
    }
}

impl<'t> Future for Enter<'t> {
    type Output = Passage<'t>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Passage<'t>> {
        let client = self.client;
        let mut state = self.turnstile.state.borrow_mut();
        match self.number {
            None if state.inside.len() < self.turnstile.places
                && !state.inside.contains(&client) =>
            {
                state.inside.push(client);
            }
            None => {
                self.number = Some(state.waiting.push(client, cx.waker().clone()));
                return Poll::Pending;
            }
            Some(number) => {
                if let Some(waker) = state.waiting.get_mut(client, number) {
                    waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
            }
        }
        drop(state);
        Poll::Ready(self.passage())
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.turnstile.state.borrow_mut();
            let waited = state.waiting.remove(self.client, number).is_some();
            drop(state);
            if !waited {
                self.turnstile.pass_on(self.client);
            }
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.turnstile.pass_on(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    const ONE: Client = Client::of_place(1);
    const TWO: Client = Client::of_place(2);
    const THREE: Client = Client::of_place(3);

    fn poll<'t>(task: &mut Enter<'t>) -> Option<Passage<'t>> {
        match Pin::new(task).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass),
            Poll::Pending => None,
        }
    }

    #[test]
    fn those_who_wait_go_before_one_that_comes_back() {
        let turnstile = Turnstile::new(1);
        let first = poll(&mut turnstile.enter(ONE)).expect("free");
        let mut second = turnstile.enter(ONE);
        let mut third = turnstile.enter(ONE);
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
        drop(first);
        // The second was woken and has not run yet.
        let mut again = turnstile.enter(ONE);
        assert!(poll(&mut again).is_none());
        let pass = poll(&mut second).expect("its turn");
        assert!(poll(&mut third).is_none());
        drop(pass);
        drop(poll(&mut third).expect("its turn"));
        drop(poll(&mut again).expect("its turn"));
        assert!(poll(&mut turnstile.enter(ONE)).is_some());
    }

    #[test]
    fn a_task_that_ends_after_it_was_woken_wakes_the_next() {
        let turnstile = Turnstile::new(1);
        let first = poll(&mut turnstile.enter(ONE)).expect("free");
        let mut second = turnstile.enter(ONE);
        let mut third = turnstile.enter(TWO);
        let mut fourth = turnstile.enter(ONE);
        for task in [&mut second, &mut third, &mut fourth] {
            assert!(poll(task).is_none());
        }
        drop(third);
        drop(first);
        drop(second);
        assert!(poll(&mut fourth).is_some());
    }

    #[test]
    fn another_client_waits_for_one_task_of_a_hundred() {
        let turnstile = Turnstile::new(1);
        let inside = poll(&mut turnstile.enter(ONE)).expect("free");
        let mut crowd: Vec<_> = (0..100).map(|_| turnstile.enter(ONE)).collect();
        assert!(crowd.iter_mut().all(|task| poll(task).is_none()));
        let mut other = turnstile.enter(TWO);
        assert!(poll(&mut other).is_none());
        drop(inside);
        let pass = poll(&mut crowd[0]).expect("came before the other client");
        assert!(poll(&mut other).is_none());
        drop(pass);
        assert!(poll(&mut other).is_some());
    }

    #[test]
    fn a_client_has_one_of_several_places() {
        let turnstile = Turnstile::new(2);
        let first = poll(&mut turnstile.enter(ONE)).expect("free");
        let mut second = turnstile.enter(ONE);
        assert!(poll(&mut second).is_none(), "a place is free, for others");
        let other = poll(&mut turnstile.enter(TWO)).expect("free");
        let mut third = turnstile.enter(THREE);
        assert!(poll(&mut third).is_none(), "all taken");
        drop(other);
        let third = poll(&mut third).expect("its turn");
        assert!(poll(&mut second).is_none());
        drop(first);
        assert!(poll(&mut second).is_some());
        drop(third);
        assert!(turnstile.state.borrow().inside.is_empty());
    }

    #[test]
    fn the_task_that_has_the_turn_is_woken() {
        #[derive(Default)]
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let turnstile = Turnstile::new(1);
        let first = poll(&mut turnstile.enter(ONE)).expect("free");
        let flag = Arc::new(Flag::default());
        let mut second = turnstile.enter(TWO);
        let waker = Waker::from(Arc::clone(&flag));
        // Polled by one task and then by another, which is the one to wake.
        assert!(poll(&mut second).is_none());
        let again = Pin::new(&mut second).poll(&mut Context::from_waker(&waker));
        assert!(again.is_pending());
        drop(first);
        assert!(flag.0.load(Ordering::Relaxed));
    }
}
