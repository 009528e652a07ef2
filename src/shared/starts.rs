//! Requests that waited and may start now: from the core that gave a slot back, or the control
//! thread, to the cores where the requests wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use olla_engine::core::Ringer;

use crate::schedule::queue::Charge;
use crate::schedule::waiting::Started;

/// A request that may start, and what its flow was charged.
pub(crate) type Start = (Started, Charge);

/// The requests that their cores have not been told of yet. They are few: as many as slots became
/// free in some microseconds.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    count: AtomicUsize,
    ready: Mutex<Vec<Start>>,
    ringer: OnceLock<Ringer>,
}

impl Starts {
    /// Rings the cores' bells from now on. Has no effect the second time.
    pub(crate) fn ring_with(&self, ringer: Ringer) {
        let _ = self.ringer.set(ringer);
    }

    /// Hands requests to their cores.
    pub(crate) fn give(&self, starts: Vec<Start>) {
        if starts.is_empty() {
            return;
        }
        let cores: Vec<usize> = starts.iter().map(|(started, _)| started.core).collect();
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.extend(starts);
        self.count.store(ready.len(), Ordering::Release);
        drop(ready);
        if let Some(ringer) = self.ringer.get() {
            cores.into_iter().for_each(|core| ringer.ring_one(core));
        }
    }

    /// Takes the requests of a core.
    pub(crate) fn take(&self, core: usize) -> Vec<Start> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = ready
            .extract_if(.., |(started, _)| started.core == core)
            .collect();
        self.count.store(ready.len(), Ordering::Release);
        taken
    }
}
