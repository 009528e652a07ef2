//! The bound on the bytes of request bodies that the whole process holds at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared by all cores.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    held: AtomicUsize,
    max: usize,
}

/// A part of the budget; released when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner {
            held: AtomicUsize::new(0),
            max: bytes_max,
        }))
    }

    /// An empty share, to be enlarged.
    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Share {
    /// Enlarges the share to `bytes`; false if that is more than is left.
    pub(crate) fn enlarge(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let inner = &self.budget.0;
        let held = inner.held.fetch_add(more, Ordering::Relaxed);
        if held.saturating_add(more) > inner.max {
            inner.held.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(
            one.enlarge(60) && one.enlarge(50),
            "a smaller share is always granted"
        );
        assert!(!other.enlarge(41));
        assert!(other.enlarge(40));
        drop(one);
        assert!(other.enlarge(100));
        assert!(!budget.share().enlarge(1));
        drop(other);
        assert!(budget.share().enlarge(100));
    }
}
