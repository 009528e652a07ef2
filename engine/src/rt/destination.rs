//! Where a read puts what it brings.

use crate::buf::Buf;

/// Where a read puts what it brings.
pub(super) enum Destination {
    /// The room of a buffer, this many bytes of it at most. The kernel has the buffer from the
    /// beginning of the read to its end.
    Buffer(Buf, usize),
    /// A buffer of this capacity, made when there is something to read: the wait needs none. It
    /// costs one call of the kernel more.
    WhenReady(usize),
}
