//! Making a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::fault::ConnectFault;
use crate::rt::{Exhausted, Socket};

/// Connects to the first of these addresses that takes it. Takes as long as the kernel does; the
/// caller bounds the whole and may drop it.
///
/// # Errors
/// What became of the last address.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    keep_alive: Duration,
) -> Result<Socket, ConnectFault> {
    let mut fault = ConnectFault::Unresolved;
    for address in addresses {
        match Socket::connect(*address).await {
            Ok(socket) => {
                socket.keep_alive(keep_alive);
                return Ok(socket);
            }
            Err(error) => fault = fault_of(&error),
        }
    }
    Err(fault)
}

fn fault_of(error: &io::Error) -> ConnectFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ConnectFault::Refused,
        io::ErrorKind::TimedOut => ConnectFault::TimedOut,
        // No descriptor, port or memory is left: not a fault of the backend.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => ConnectFault::Local,
        _ if Exhausted::of(error).is_some() => ConnectFault::Local,
        _ => ConnectFault::Unreachable,
    }
}
