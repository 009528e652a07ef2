//! Ports for what a test starts.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// An address for a listener that sets SO_REUSEADDR, and nobody else's as long as this process
/// lives: a socket that does not listen has it and is never closed. So the system gives it to no
/// other listener in the meantime; while nobody listens there connections are refused; and what is
/// still sent to a backend that is gone reaches none of another test.
pub(crate) fn reserve() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
