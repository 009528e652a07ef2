//! Wakes one request that waits for its turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The turn of one request on its core. One task waits for it at a time.
#[derive(Debug, Default)]
pub struct RequestTurn {
    has_come: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl RequestTurn {
    /// It is the request's turn: ends its wait, or the next one if it does not wait now.
    pub fn come(&self) {
        self.has_come.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for it.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.has_come.take() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_ends_one_wait_also_if_it_comes_before() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let turn = RequestTurn::default();
        {
            let mut wait = pin!(turn.wait());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            turn.come();
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(wait.as_mut().poll(&mut cx).is_ready());
        }
        turn.come();
        assert!(pin!(turn.wait()).poll(&mut cx).is_ready());
        assert!(pin!(turn.wait()).poll(&mut cx).is_pending());
    }
}
