//! The names that are being resolved, and the tasks that wait for them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use olla_engine::exchange::ConnectFault;

/// Names that are being resolved or wait for a thread. There are at most 512 endpoints; redirects
/// can name any host.
pub(super) const PENDING_MAX: usize = 1024;

/// A host and a port.
pub(super) type HostPort = (String, u16);

/// The addresses of a name, or why there are none: it has none, or this machine lacks a resource.
pub(super) type Answer = Result<Arc<[SocketAddr]>, ConnectFault>;

/// The names that are being resolved: each once, however many wait for it, so that a name server
/// which does not respond makes no queue of questions that nobody waits for any more.
#[derive(Default)]
pub(super) struct Pending(HashMap<HostPort, Rc<Wait>>);

/// What becomes of a question.
pub(super) enum Inquiry {
    /// It is to be given to the threads.
    New(Rc<Wait>),
    /// It has been.
    Known(Rc<Wait>),
    /// Too many are pending.
    Refused,
}

/// The tasks that wait for one name.
#[derive(Default)]
pub(super) struct Wait {
    answer: RefCell<Option<Answer>>,
    wakers: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Pending {
    /// A task needs the addresses of a name.
    pub(super) fn ask(&mut self, key: &HostPort) -> Inquiry {
        if let Some(wait) = self.0.get(key) {
            return Inquiry::Known(Rc::clone(wait));
        }
        if self.0.len() >= PENDING_MAX {
            return Inquiry::Refused;
        }
        let wait = Rc::<Wait>::default();
        self.0.insert(key.clone(), Rc::clone(&wait));
        Inquiry::New(wait)
    }

    /// Wakes all that wait for a name.
    pub(super) fn answered(&mut self, key: &HostPort, answer: Answer) {
        if let Some(wait) = self.0.remove(key) {
            wait.answer.replace(Some(answer));
            for (_, waker) in wait.wakers.take() {
                waker.wake();
            }
        }
    }
}

impl Wait {
    /// Waits for the answer. Dropping the wait gives it up.
    pub(super) async fn end(&self) -> Answer {
        let place = Place {
            wait: self,
            number: self.next.replace(self.next.get() + 1),
        };
        poll_fn(|cx| match &*self.answer.borrow() {
            Some(answer) => Poll::Ready(answer.clone()),
            None => {
                let mut wakers = self.wakers.borrow_mut();
                wakers.insert(place.number, cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// The place of one task among those that wait; given up when the task stops waiting.
struct Place<'w> {
    wait: &'w Wait,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.wait.wakers.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    fn key(number: usize) -> HostPort {
        (format!("h{number}.test"), 80)
    }

    #[test]
    fn a_name_is_asked_once_and_answered_to_all() {
        let mut pending = Pending::default();
        let Inquiry::New(wait) = pending.ask(&key(0)) else {
            panic!("the first question is passed on");
        };
        let Inquiry::Known(other) = pending.ask(&key(0)) else {
            panic!("the second one waits with the first");
        };
        let mut cx = Context::from_waker(Waker::noop());
        let (mut one, mut two) = (Box::pin(wait.end()), pin!(other.end()));
        assert!(one.as_mut().poll(&mut cx).is_pending());
        assert!(two.as_mut().poll(&mut cx).is_pending());
        assert_eq!(wait.wakers.borrow().len(), 2);
        drop(one);
        assert_eq!(wait.wakers.borrow().len(), 1, "it does not wait any more");
        pending.answered(&key(0), Err(ConnectFault::Unresolved));
        let answer = two.as_mut().poll(&mut cx);
        assert_eq!(answer, Poll::Ready(Err(ConnectFault::Unresolved)));
        assert!(
            matches!(pending.ask(&key(0)), Inquiry::New(_)),
            "it is asked anew"
        );
    }

    #[test]
    fn pending_names_are_bounded() {
        let mut pending = Pending::default();
        for number in 0..PENDING_MAX {
            assert!(matches!(pending.ask(&key(number)), Inquiry::New(_)));
        }
        assert!(matches!(pending.ask(&key(PENDING_MAX)), Inquiry::Refused));
        assert!(matches!(pending.ask(&key(0)), Inquiry::Known(_)));
        pending.answered(&key(0), Err(ConnectFault::Unresolved));
        assert!(matches!(pending.ask(&key(PENDING_MAX)), Inquiry::New(_)));
    }
}
