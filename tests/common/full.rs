//! An address that cannot be connected to and does not refuse.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A listener whose backlog is full: it answers no further SYN, so that connecting hangs.
pub(crate) struct FullListener {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _open: Vec<TcpStream>,
}

impl FullListener {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let wait = Duration::from_millis(300);
        let mut open = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, wait) {
            open.push(stream);
            assert!(open.len() < 100, "the backlog has no end");
        }
        Self {
            address,
            _listener: listener,
            _open: open,
        }
    }
}
