//! How many connections of a core wait with a buffer in hand.
//!
//! A connection that waits for bytes can hold the buffer for them, which saves a call of the kernel
//! when they come, or take one then, which saves the memory. Connections on which much is going on
//! hold one, up to a bound for each core; the others, and those beyond the bound, do not.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::WAITING_BUFFERS_MAX;

/// The count of one core.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitingBuffers(Rc<Cell<usize>>);

/// The right to wait with a buffer, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitingBuffer(WaitingBuffers);

impl WaitingBuffers {
    /// Whether a connection holds a buffer from now on while it waits: if it is brisk, and if there
    /// are not too many that do.
    pub(crate) fn settle(&self, held: &mut Option<WaitingBuffer>, is_brisk: bool) {
        if !is_brisk {
            *held = None;
        } else if held.is_none() {
            *held = self.take();
        }
    }

    fn take(&self) -> Option<WaitingBuffer> {
        let count = self.0.get();
        (count < WAITING_BUFFERS_MAX).then(|| {
            self.0.set(count + 1);
            WaitingBuffer(self.clone())
        })
    }
}

impl Drop for WaitingBuffer {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.set(count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_bounded() {
        let buffers = WaitingBuffers::default();
        let mut held: Vec<_> = std::iter::from_fn(|| buffers.take()).collect();
        assert_eq!(held.len(), WAITING_BUFFERS_MAX);
        let mut another = None;
        buffers.settle(&mut another, true);
        assert!(another.is_none(), "too many");
        held.pop();
        buffers.settle(&mut another, true);
        assert!(another.is_some());
        buffers.settle(&mut another, true);
        assert!(another.is_some(), "it keeps its own");
        buffers.settle(&mut another, false);
        assert!(another.is_none(), "it is not brisk any more");
        assert!(buffers.take().is_some());
    }
}
