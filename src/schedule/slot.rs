//! A slot of an endpoint, as a request holds it.
//!
//! Contract: docs/contract/scheduling.md#4

use std::sync::Arc;

use super::load::EndpointLoad;

/// The slot that a request holds. It is given back when this is dropped.
#[derive(Debug)]
pub struct Slot {
    load: Arc<EndpointLoad>,
    /// Tokens of its prompt that are counted as pending.
    pending: u64,
    /// Those that were pending before.
    ahead: u64,
}

impl Slot {
    /// Takes a slot of an endpoint, if there is one.
    pub fn take(load: &Arc<EndpointLoad>) -> Option<Self> {
        load.try_start().then(|| Self::of(load))
    }

    /// Takes one in any case.
    pub fn take_anyway(load: &Arc<EndpointLoad>) -> Self {
        load.start();
        Self::of(load)
    }

    fn of(load: &Arc<EndpointLoad>) -> Self {
        Self {
            load: Arc::clone(load),
            pending: 0,
            ahead: 0,
        }
    }

    /// Counts the prompt as pending from now on: until the message that it may start has arrived,
    /// others would be predicted to be served sooner here than they are.
    pub(super) fn reserve(&mut self, tokens: u64) {
        self.ahead = self.load.add_pending(tokens);
        self.pending = tokens;
    }

    /// What was reserved, from now on the caller's to give back: its tokens, and those that were
    /// pending before them. `None` if nothing was.
    pub(super) fn take_reserved(&mut self) -> Option<(u64, u64)> {
        let tokens = std::mem::take(&mut self.pending);
        (tokens > 0).then_some((tokens, self.ahead))
    }

    /// The endpoint.
    pub fn load(&self) -> &Arc<EndpointLoad> {
        &self.load
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.pending > 0 {
            self.load.take_pending(self.pending);
        }
        self.load.end();
    }
}
