//! Making a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::fault::ConnectFault;
use crate::rt::{Exhausted, Purpose, Socket};

/// Connects to the first of these addresses that takes it. Takes as long as the kernel does; the
/// caller bounds the whole and may drop it. `exhausted` is called if this machine lacks a resource.
///
/// # Errors
/// What became of the last address.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    keep_alive: Duration,
    purpose: Purpose,
    exhausted: impl Fn(Exhausted),
) -> Result<Socket, ConnectFault> {
    let mut fault = ConnectFault::Unresolved;
    for address in addresses {
        match Socket::connect(*address, purpose).await {
            Ok(socket) => {
                socket.keep_alive(keep_alive);
                return Ok(socket);
            }
            Err(error) => {
                if let Some(resource) = Exhausted::of(&error) {
                    // Nothing is known of this address, and the next one needs the same.
                    exhausted(resource);
                    return Err(ConnectFault::Local);
                }
                fault = fault_of(&error);
            }
        }
    }
    Err(fault)
}

fn fault_of(error: &io::Error) -> ConnectFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ConnectFault::Refused,
        io::ErrorKind::TimedOut => ConnectFault::TimedOut,
        _ => ConnectFault::Unreachable,
    }
}
