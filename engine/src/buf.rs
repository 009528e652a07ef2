//! Byte buffers that are lent to the kernel, and the pool that they come from and go back to.
//!
//! A [`Buf`] is filled at its end and read from its front. Large ones are expensive to make (each
//! fresh page costs a fault), so every thread keeps some: a request that brings a megabyte finds
//! the pages of the one before. What is kept is bounded, see [`KEPT_BYTES_MAX`].

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, Range};

use crate::part;

/// Buffers below this capacity are not pooled: the allocator is as fast.
const POOLED_MIN: usize = 32 << 10;

/// Bytes of capacity that one thread keeps for later.
pub(crate) const KEPT_BYTES_MAX: usize = 12 << 20;

/// Buffers that one thread keeps for later.
const KEPT_MAX: usize = 64;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { buffers: Vec::new(), bytes: 0 }) };
}

struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Kept {
    /// The smallest buffer that is large enough, and at most four times as large as needed.
    fn take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let fits = |have: usize| have >= capacity && have / 4 <= capacity;
        let best = self
            .buffers
            .iter()
            .enumerate()
            .filter(|(_, buffer)| fits(buffer.capacity()))
            .min_by_key(|(_, buffer)| buffer.capacity())?;
        let at = best.0;
        let buffer = self.buffers.swap_remove(at);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if bytes <= KEPT_BYTES_MAX && self.buffers.len() < KEPT_MAX {
            buffer.clear();
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

/// An owned buffer: bytes are added at the end, up to the capacity, and taken from the front. The
/// default has no room.
#[derive(Default)]
pub(crate) struct Buf {
    data: Vec<u8>,
    start: usize,
}

impl Buf {
    /// An empty buffer with room for at least `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let pooled = (capacity >= POOLED_MIN)
            .then(|| KEPT.with_borrow_mut(|kept| kept.take(capacity)))
            .flatten();
        Self {
            data: pooled.unwrap_or_else(|| Vec::with_capacity(capacity)),
            start: 0,
        }
    }

    /// Bytes that can be added without growing.
    pub(crate) fn spare(&self) -> usize {
        self.data.capacity() - self.data.len()
    }

    /// Room for bytes in all, those taken included.
    pub(crate) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Adds bytes, growing if need be.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    /// Takes bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.data.len());
        if self.start == self.data.len() {
            self.clear();
        }
    }

    /// Drops the bytes after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.data.truncate(self.start + len);
    }

    /// Removes all bytes and keeps the capacity.
    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.start = 0;
    }

    /// A buffer of at least this capacity with the same bytes.
    #[must_use]
    pub(crate) fn grown(self, capacity: usize) -> Self {
        if self.data.capacity() >= capacity && self.start == 0 {
            return self;
        }
        let mut larger = Self::with_capacity(capacity.max(self.len()));
        larger.extend(&self);
        larger
    }

    /// Gives back room that has nothing in it, if that is the larger part: for bytes that are kept
    /// for long.
    pub(crate) fn fit(&mut self) {
        if self.capacity() / 2 > self.len() {
            let mut copy = Self::with_capacity(self.len());
            copy.extend(self);
            *self = copy;
        }
    }

    /// Moves bytes within the buffer, as when a chunked body is made contiguous.
    pub(crate) fn copy_within(&mut self, from: Range<usize>, to: usize) {
        let (start, len) = (self.start, self.len());
        if from.start <= from.end && from.end <= len && to + (from.end - from.start) <= len {
            self.data
                .copy_within(start + from.start..start + from.end, start + to);
        }
    }

    /// The pointer after the last byte, for the kernel to write to.
    pub(crate) fn tail_ptr(&mut self) -> *mut u8 {
        self.data.spare_capacity_mut().as_mut_ptr().cast()
    }

    /// Counts bytes that were written to [`Self::tail_ptr`].
    ///
    /// # Safety
    /// The first `count` bytes of the spare room have been written, and `count` is within it.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn added(&mut self, count: usize) {
        // Checks the caller's promise in tests.
        debug_assert!(count <= self.spare());
        // SAFETY: promised by the caller.
        unsafe { self.data.set_len(self.data.len() + count) }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        part::rest(&self.data, self.start)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if self.data.capacity() >= POOLED_MIN {
            let buffer = std::mem::take(&mut self.data);
            // At the end of a thread there may be no pool any more.
            let _ = KEPT.try_with(|kept| kept.borrow_mut().keep(buffer));
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_behind_and_out_in_front() {
        let mut buf = Buf::with_capacity(8);
        buf.extend(b"abcdef");
        buf.consume(2);
        assert_eq!(&*buf, b"cdef");
        buf.truncate(3);
        assert_eq!(&*buf, b"cde");
        buf.copy_within(1..3, 0);
        assert_eq!(&*buf, b"dee");
        buf.consume(9);
        assert!(buf.is_empty());
        assert_eq!(buf.spare(), buf.capacity());
    }

    #[test]
    fn large_buffers_come_back() {
        let mut first = Buf::with_capacity(1 << 20);
        first.extend(&[1; 4096]);
        let place = first.as_ptr();
        drop(first);
        assert!(
            Buf::with_capacity(64 << 10).as_ptr() != place,
            "far too large"
        );
        let again = Buf::with_capacity(1 << 20);
        assert_eq!(again.as_ptr(), place);
        assert!(again.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<Buf> = (0..20).map(|_| Buf::with_capacity(1 << 20)).collect();
        drop(many);
        assert!(KEPT.with_borrow(|kept| kept.bytes) <= KEPT_BYTES_MAX);
    }

    #[test]
    fn fitting_keeps_the_bytes() {
        let mut buf = Buf::with_capacity(4 << 10);
        buf.extend(b"xyz");
        buf.consume(1);
        buf.fit();
        assert_eq!(&*buf, b"yz");
        assert!(buf.capacity() < 64);
        let place = buf.as_ptr();
        buf.fit();
        assert_eq!(buf.as_ptr(), place, "it fits already");
    }

    #[test]
    fn growing_keeps_the_bytes() {
        let mut buf = Buf::with_capacity(4);
        buf.extend(b"xyz");
        buf.consume(1);
        let buf = buf.grown(100_000);
        assert_eq!(&*buf, b"yz");
        assert!(buf.capacity() >= 100_000);
    }
}
