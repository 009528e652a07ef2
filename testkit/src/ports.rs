//! Ports for what a test starts, and an address that accepts no connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Reserves an address for a listener that sets `SO_REUSEADDR`, until this process ends.
///
/// A bound socket that does not listen holds the port and is never closed. The system gives the port
/// to no other listener, connections to it are refused while nothing listens on it, and requests to
/// a backend that has stopped cannot reach the backend of another test.
///
/// # Panics
/// When the system has no port left.
pub fn reserve() -> SocketAddr {
    let (socket, address) = bound();
    std::mem::forget(socket);
    address
}

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener with a full backlog: it completes no further handshake, so connecting to it neither
/// succeeds nor fails.
#[derive(Debug)]
pub struct FullListener {
    /// Where it listens.
    pub address: SocketAddr,
    _listener: TcpListener,
    _open: Vec<TcpStream>,
}

impl FullListener {
    /// Listens and fills the backlog.
    ///
    /// # Panics
    /// When the backlog cannot be filled.
    #[expect(clippy::new_without_default, reason = "it opens sockets")]
    pub fn new() -> Self {
        const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
        const BACKLOG_MAX: usize = 100;
        let (socket, address) = bound();
        socket.listen(0).unwrap();
        let mut open = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            open.push(stream);
            assert!(open.len() < BACKLOG_MAX, "the backlog has no end");
        }
        Self {
            address,
            _listener: TcpListener::from(socket),
            _open: open,
        }
    }
}
