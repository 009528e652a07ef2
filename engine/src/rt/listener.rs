//! Listening sockets: one for each core on the same address (`SO_REUSEPORT`).

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::Canceller;
use monoio::net::TcpListener;
use socket2::{Domain, Protocol, Type};

use super::descriptors::{Descriptor, Purpose};
use super::sys;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;

/// The interval of TCP keep-alive probes to clients.
const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long accepting rests when the process or the system is out of descriptors or memory. The
/// connections wait in the backlog meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address for one core of several.
///
/// # Errors
/// The error of the kernel, such as an address in use.
pub(crate) fn bind(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(addr),
        Type::STREAM.cloexec().nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        // "All interfaces" is bound for both families one by one.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    // Accepted connections inherit it: a client that vanished without a word is noticed.
    sys::keep_alive(sys::fd_of(&socket), CLIENT_KEEP_ALIVE);
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket of this thread.
pub(crate) struct Listener {
    inner: TcpListener,
    canceller: Shared,
}

/// Ends the accepting of one [`Listener`].
pub(crate) struct Stop(Shared);

/// Empty once it was stopped.
type Shared = Rc<RefCell<Option<Canceller>>>;

impl Listener {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// When the driver cannot take it.
    pub(crate) fn new(bound: std::net::TcpListener) -> io::Result<(Self, Stop)> {
        let inner = TcpListener::from_std(bound)?;
        let canceller = Rc::new(RefCell::new(Some(Canceller::new())));
        let stop = Stop(Rc::clone(&canceller));
        Ok((Self { inner, canceller }, stop))
    }

    /// The next connection; `None` once it was stopped. Must not be dropped before it ends: the
    /// connection that it was about to bring would be lost. `exhausted` is called before each
    /// pause.
    pub(crate) async fn accept(
        &self,
        exhausted: impl Fn(Exhausted),
    ) -> Option<(Accepted, SocketAddr)> {
        loop {
            let handle = self.canceller.borrow().as_ref().map(Canceller::handle)?;
            let resource = match Descriptor::take(Purpose::Client) {
                None => Some(Exhausted::ProcessFiles),
                Some(descriptor) => match self.inner.cancelable_accept(handle).await {
                    Ok((stream, peer)) => {
                        let stream = sys_stream(stream);
                        return Some((Accepted { stream, descriptor }, peer));
                    }
                    // Else it was cancelled, or the connection ended before it was accepted.
                    Err(error) => Exhausted::of(&error),
                },
            };
            if let Some(resource) = resource {
                exhausted(resource);
                super::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

impl Stop {
    /// Stops: a pending accept ends with what it has, later ones with nothing.
    pub(crate) fn stop(self) {
        if let Some(canceller) = self.0.take() {
            drop(canceller.cancel());
        }
    }
}

/// A connection that was accepted, for the core that will serve it.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) descriptor: Descriptor,
}

#[cfg(test)]
impl Accepted {
    /// A connection of a test.
    pub(super) fn of(stream: std::net::TcpStream) -> Self {
        let descriptor = Descriptor::take(Purpose::Own).unwrap();
        Self { stream, descriptor }
    }
}

/// Takes the descriptor out of the runtime, so that any thread can take it over.
#[allow(unsafe_code)]
fn sys_stream(stream: monoio::net::TcpStream) -> std::net::TcpStream {
    use std::os::fd::{FromRawFd, IntoRawFd};
    let fd = stream.into_raw_fd();
    // SAFETY: the descriptor has no other owner from here on.
    unsafe { std::net::TcpStream::from_raw_fd(fd) }
}

/// What the process or the system has too little of for another socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The process is at its limit of open files (`EMFILE`).
    ProcessFiles,
    /// The system is at its limit of open files (`ENFILE`).
    SystemFiles,
    /// The kernel has no memory for sockets (`ENOBUFS`, `ENOMEM`), or for waiting for them
    /// (`ENOSPC`).
    Memory,
    /// No port is left for a connection to a backend (`EADDRNOTAVAIL`).
    Ports,
}

impl Exhausted {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [
        Self::ProcessFiles,
        Self::SystemFiles,
        Self::Memory,
        Self::Ports,
    ];

    /// The resource that an error says is missing; `None` for any other error.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EMFILE => Some(Self::ProcessFiles),
            libc::ENFILE => Some(Self::SystemFiles),
            libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC => Some(Self::Memory),
            libc::EADDRNOTAVAIL => Some(Self::Ports),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", sys::fd_of(&self.inner))
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}
