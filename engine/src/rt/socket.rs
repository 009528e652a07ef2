//! A TCP connection of one thread, plain or secured: one read that is armed and kept, writes that
//! are tried at once.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;

use super::descriptors::{Descriptor, Purpose};
use super::destination::Destination;
use super::listener::Accepted;
use super::sys::{self, Peek};
use super::tls::Session;
use crate::buf::Buf;

/// A connection. Dropping it closes it, even with operations in progress.
pub(crate) struct Socket {
    pub(super) tcp: Rc<SharedStream>,
    pub(super) fd: RawFd,
    pub(super) read: Pin<Box<dyn ReadSlot>>,
    /// `None` without TLS.
    pub(super) tls: Option<Box<RefCell<Session>>>,
    ring: bool,
    /// The close is to be a reset.
    resets: Cell<bool>,
}

pub(super) struct SharedStream(UnsafeCell<TcpStream>, Descriptor);

/// The part of a buffer that the ring may write: the room after its last byte, `bytes_max` at most.
struct Tail {
    buf: Buf,
    bytes_max: usize,
}

// SAFETY: the room stays where it is while the buffer is owned by the operation: `Buf` keeps it on
// the heap, and nothing else can reach it. `bytes_total` is at most the length of that room.
unsafe impl IoBufMut for Tail {
    fn write_ptr(&mut self) -> *mut u8 {
        self.buf.tail_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.buf.spare().min(self.bytes_max)
    }

    unsafe fn set_init(&mut self, count: usize) {
        // SAFETY: the kernel has written `count` bytes to the room, promised by the caller.
        unsafe { self.buf.added(count) }
    }
}

/// The place of a connection's one read; the future in it is replaced, never moved.
pub(super) trait ReadSlot {
    fn arm(self: Pin<&mut Self>, tcp: Rc<SharedStream>, into: Destination);
    fn is_armed(&self) -> bool;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, Buf)>;
}

struct Slot<F, M> {
    future: Option<F>,
    make: M,
}

impl<F, M> ReadSlot for Slot<F, M>
where
    F: Future<Output = (io::Result<usize>, Buf)>,
    M: Fn(Rc<SharedStream>, Destination) -> F,
{
    fn arm(self: Pin<&mut Self>, tcp: Rc<SharedStream>, into: Destination) {
        // SAFETY: the old future, if any, is dropped in place and the new one is written to its
        // place; neither is moved after it was pinned.
        let slot = unsafe { self.get_unchecked_mut() };
        // A second read would drop the first one, and on io_uring its bytes.
        debug_assert!(slot.future.is_none(), "one read at a time");
        slot.future = Some((slot.make)(tcp, into));
    }

    fn is_armed(&self) -> bool {
        self.future.is_some()
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, Buf)> {
        // SAFETY: the future is not moved out of its pinned place.
        let slot = unsafe { self.get_unchecked_mut() };
        let Some(future) = &mut slot.future else {
            // Nothing would ever wake the caller.
            debug_assert!(false, "polled without a read");
            return Poll::Pending;
        };
        // SAFETY: it lies in the pinned slot and stays there until it is dropped in place.
        let output = std::task::ready!(unsafe { Pin::new_unchecked(future) }.poll(cx));
        slot.future = None;
        Poll::Ready(output)
    }
}

async fn read(tcp: Rc<SharedStream>, into: Destination) -> (io::Result<usize>, Buf) {
    match into {
        Destination::Buffer(buf, bytes_max) => {
            // SAFETY: making the operation copies the descriptor; after that neither it nor a write
            // that may be made meanwhile touches the stream.
            let stream = unsafe { &mut *tcp.0.get() };
            let (result, tail) = stream.read(Tail { buf, bytes_max }).await;
            (result, tail.buf)
        }
        Destination::WhenReady(capacity) => read_when_ready(&tcp, capacity).await,
    }
}

async fn read_when_ready(tcp: &SharedStream, capacity: usize) -> (io::Result<usize>, Buf) {
    loop {
        // SAFETY: waiting for readability only reads the descriptor of the stream, which no other
        // operation changes.
        let stream = unsafe { &*tcp.0.get() };
        if let Err(error) = stream.readable(false).await {
            return (Err(error), Buf::default());
        }
        let mut buf = Buf::with_capacity(capacity);
        match sys::receive_now(sys::fd_of(stream), &mut buf) {
            // The system said so and it was not so, or another call has taken it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return (result, buf),
        }
    }
}

impl Socket {
    /// Takes over a connection.
    fn new(stream: TcpStream, descriptor: Descriptor) -> Self {
        let fd = sys::fd_of(&stream);
        sys::prepare(fd);
        Self {
            tcp: Rc::new(SharedStream(UnsafeCell::new(stream), descriptor)),
            fd,
            read: Box::pin(Slot {
                future: None,
                make: read,
            }),
            tls: None,
            ring: !monoio::utils::is_legacy(),
            resets: Cell::new(false),
        }
    }

    /// Takes over a connection that this or another thread has accepted.
    ///
    /// # Errors
    /// When the driver cannot take it.
    pub(crate) fn accepted(accepted: Accepted) -> io::Result<Self> {
        let Accepted { stream, descriptor } = accepted;
        // The epoll driver requires this; io_uring works either way.
        stream.set_nonblocking(true)?;
        Ok(Self::new(TcpStream::from_std(stream)?, descriptor))
    }

    /// Connects, however long it takes. The caller may drop it: the connection is then closed.
    ///
    /// # Errors
    /// The error of the kernel, or `EMFILE` if the descriptors that are left are kept for others.
    pub(crate) async fn connect(addr: SocketAddr, purpose: Purpose) -> io::Result<Self> {
        let descriptor =
            Descriptor::take(purpose).ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        let stream = TcpStream::connect_addr(addr).await?;
        Ok(Self::new(stream, descriptor))
    }

    /// Begins the next read into a buffer. No read may be in progress, and the buffer must have
    /// room.
    pub(crate) fn arm(&mut self, buf: Buf) {
        self.arm_at_most(buf, usize::MAX);
    }

    /// The same for a read of at most `bytes_max` bytes. A TLS connection ignores it: reads of
    /// ciphertext have a bound of their own.
    pub(crate) fn arm_at_most(&mut self, buf: Buf, bytes_max: usize) {
        // A read of no bytes would look like the end of the connection.
        debug_assert!(buf.spare() > 0 && bytes_max > 0, "no room to read into");
        self.arm_into(Destination::Buffer(buf, bytes_max));
    }

    /// Begins the next read, which gets a buffer of this capacity when there is something to read.
    pub(crate) fn arm_unbuffered(&mut self, capacity: usize) {
        debug_assert!(capacity > 0, "no room to read into");
        self.arm_into(Destination::WhenReady(capacity));
    }

    fn arm_into(&mut self, into: Destination) {
        match &mut self.tls {
            None => self.read.as_mut().arm(Rc::clone(&self.tcp), into),
            Some(tls) => tls.get_mut().arm(into),
        }
    }

    /// Whether a read is in progress.
    pub(crate) fn is_armed(&self) -> bool {
        match &self.tls {
            None => self.read.is_armed(),
            Some(tls) => tls.borrow().is_armed(),
        }
    }

    /// The result of the read in progress: the number of bytes (0 if the peer ended its side) and
    /// the buffer. The first poll after [`Self::arm`] also begins the read.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, Buf)> {
        match self.tls {
            None => self.read.as_mut().poll(cx),
            Some(_) => self.poll_read_secured(cx),
        }
    }

    /// Waits for the read in progress. Dropping the wait does not end the read.
    pub(crate) async fn read(&mut self) -> (io::Result<usize>, Buf) {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// Sends the bytes that the kernel takes at once. After `WouldBlock` the next call must begin
    /// with the same bytes: on a TLS connection they may be encrypted already.
    ///
    /// # Errors
    /// `WouldBlock` if no byte can be sent now. Any other error is final.
    pub(crate) fn send_now(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => sys::send_now(self.fd, parts),
            Some(tls) => tls.borrow_mut().send(self.fd, parts),
        }
    }

    /// Whether [`Self::send_batched`] may be used: a plain connection on io_uring.
    pub(crate) fn batches(&self) -> bool {
        self.ring && self.tls.is_none()
    }

    /// Gives bytes to the ring, which sends them together with all others that it gets before this
    /// thread next waits. Returns how many were sent, and the bytes. It is pending at the first
    /// poll. If the future is dropped, it is unknown what was sent, and the connection has to be
    /// closed.
    pub(crate) fn send_batched(
        &self,
        bytes: Vec<u8>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + 'static {
        // Ciphertext of a TLS session would be bypassed, and epoll sends nothing in batches.
        debug_assert!(
            self.batches(),
            "only a plain connection on the ring sends in batches"
        );
        let tcp = Rc::clone(&self.tcp);
        async move {
            // SAFETY: making the operation copies the descriptor; after that neither it nor the
            // read that may be in progress touches the stream.
            let stream = unsafe { &mut *tcp.0.get() };
            stream.write(bytes).await
        }
    }

    /// Waits until the socket takes bytes again. The future owns what it needs and may be dropped.
    pub(crate) fn writable(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let tcp = Rc::clone(&self.tcp);
        async move {
            // SAFETY: waiting for writability only reads the descriptor of the stream, which no
            // other operation changes.
            let stream = unsafe { &*tcp.0.get() };
            stream.writable(false).await
        }
    }

    /// Checks an idle connection without reading from it; its read is armed.
    pub(crate) fn peek(&self) -> Peek {
        sys::peek(self.fd)
    }

    /// Whether the peer has ended its side or reset the connection, even if bytes of it have not
    /// been read yet.
    pub(crate) fn has_left(&self) -> bool {
        sys::has_left(self.fd)
    }

    /// Detects a disconnect with [`Watch::has_left`].
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            _tcp: Rc::clone(&self.tcp),
            fd: self.fd,
        }
    }

    /// Ends the sending direction; the peer can still send.
    pub(crate) fn shutdown_write(&self) {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().close(self.fd);
        }
        sys::shutdown_write(self.fd);
    }

    /// Bytes that were sent and that the peer has not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        sys::unacknowledged(self.fd)
    }

    /// Ends both directions, and with them every operation in progress.
    pub(crate) fn shutdown_both(&self) {
        sys::shutdown_both(self.fd);
    }

    /// Makes the close a reset, which no peer takes for the end of a response.
    pub(crate) fn reset_on_close(&self) {
        self.resets.set(true);
        sys::reset_on_close(self.fd);
    }

    /// Sends TCP keep-alive probes.
    pub(crate) fn keep_alive(&self, interval: std::time::Duration) {
        sys::keep_alive(self.fd, interval);
    }
}

/// Looks at a connection without reading from it. Keeps its descriptor open.
pub(crate) struct Watch {
    _tcp: Rc<SharedStream>,
    fd: RawFd,
}

impl Watch {
    /// Whether the peer has ended its side or reset the connection, even if bytes of it have not
    /// been read yet.
    pub(crate) fn has_left(&self) -> bool {
        sys::has_left(self.fd)
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.fd)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let resets = self.resets.get();
        if let Some(tls) = self.tls.as_mut().filter(|_| !resets) {
            tls.get_mut().close_as_client(self.fd);
        }
        // The ring closes the descriptor only after the read ends; the peer has to see the end now.
        match self.read.is_armed() {
            // The other direction stays open: its orderly end would precede the reset.
            true if resets => sys::shutdown_read(self.fd),
            true => sys::shutdown_both(self.fd),
            false => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::rt::{Wanted, run};

    #[test]
    fn a_read_without_a_buffer_gets_one_when_bytes_come() {
        const SENT: usize = 10_000;
        const CAPACITY: usize = 4096;
        for wanted in [Wanted::Auto, Wanted::Epoll] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let (waits, go) = channel();
            let peer = std::thread::spawn(move || {
                go.recv().unwrap();
                client.write_all(&[b'x'; SENT]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                client
            });
            let received = run(wanted, |_| async move {
                let mut socket = Socket::accepted(Accepted::of(accepted)).unwrap();
                let mut received = 0;
                loop {
                    socket.arm_unbuffered(CAPACITY);
                    let read = poll_fn(|cx| {
                        let read = socket.poll_read(cx);
                        if read.is_pending() {
                            // The peer hears the first one.
                            let _ = waits.send(());
                        }
                        read
                    });
                    let (result, buf) = read.await;
                    assert_eq!(result.unwrap(), buf.len());
                    assert_eq!(buf.capacity(), CAPACITY);
                    received += buf.len();
                    if buf.is_empty() {
                        return received;
                    }
                }
            });
            assert_eq!(received.unwrap(), SENT);
            drop(peer.join().unwrap());
        }
    }
}
