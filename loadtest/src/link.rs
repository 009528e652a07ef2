//! One client connection: sends a request, reads the response, and says in one word how it went.
//!
//! Registered edge-triggered for both directions, so that nothing is ever re-registered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::target::{Nonce, Payload, Target};
use crate::tls::{ClientStream, TlsStream};
use crate::wire::{Part, ResponseHead, ResponseReader};

/// Bytes of the buffer that a client reads into.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The port is closed.
    Refused,
    /// RST.
    Reset,
    /// FIN before the first byte of a response.
    ClosedEarly,
    /// FIN inside a response.
    Truncated,
    /// The response breaks HTTP/1.1, or goes on after its end.
    Malformed,
    /// A response did not come whole in time.
    Timeout,
    /// An event stream ended without `[DONE]`.
    NoDone,
    /// The handshake or a record breaks TLS.
    Tls,
    /// Any other error of the system.
    Other,
}

impl Failure {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::ClosedEarly => "closed_early",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::NoDone => "no_done",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            // The one source of this kind is TLS (see `tls`).
            ErrorKind::InvalidData => Self::Tls,
            _ => Self::Other,
        }
    }
}

/// What one turn of a connection brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing decisive.
    Pending,
    /// The response is whole; without `keep` the connection is of no more use.
    Complete {
        /// The status code.
        status: u16,
        /// True when the connection can carry another exchange.
        keep: bool,
    },
    /// The peer closed between two exchanges.
    ClosedIdle,
    /// The exchange failed and the connection is of no more use.
    Failed(Failure),
}

/// A connection and the exchange on it.
#[derive(Debug)]
pub struct Link {
    stream: ClientStream,
    exchange: Option<Exchange>,
}

#[derive(Debug)]
struct Exchange {
    nonce: Nonce,
    sent: usize,
    reader: ResponseReader,
    head: Option<ResponseHead>,
}

fn connect(addr: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(addr)?;
    registry.register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

impl Link {
    /// Starts to connect; events come with `token`.
    ///
    /// # Errors
    /// What the system says at once; a refusal may also come as a [`Turn`].
    pub fn open(addr: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        connect(addr, registry, token).map(|tcp| Self::new(ClientStream::Plain(tcp)))
    }

    /// The same, with TLS when the target's URL says so. The handshake goes on with the first
    /// exchange.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_to(target: &Target, registry: &Registry, token: Token) -> io::Result<Self> {
        let tcp = connect(target.addr, registry, token)?;
        Ok(Self::new(match &target.server_name {
            Some(name) => ClientStream::Tls(Box::new(TlsStream::new(tcp, name)?)),
            None => ClientStream::Plain(tcp),
        }))
    }

    fn new(stream: ClientStream) -> Self {
        Self {
            stream,
            exchange: None,
        }
    }

    /// Starts an exchange: sends what can be sent at once, which on a connection still being made
    /// is nothing.
    ///
    /// # Errors
    /// The failure of the sending.
    pub fn begin(&mut self, payload: &Payload, nonce: Nonce) -> Result<(), Failure> {
        debug_assert!(self.exchange.is_none());
        let reader = ResponseReader::default();
        self.exchange = Some(Exchange {
            nonce,
            sent: 0,
            reader,
            head: None,
        });
        self.send(payload)
    }

    /// True while a response is awaited.
    pub fn is_busy(&self) -> bool {
        self.exchange.is_some()
    }

    /// Sends and receives what is possible. `closed` says that the peer's end was announced; `sink`
    /// gets the pieces of the response.
    pub fn turn(
        &mut self,
        payload: &Payload,
        scratch: &mut [u8],
        closed: bool,
        mut sink: impl FnMut(Part<'_>),
    ) -> Turn {
        // A server may refuse a request it has not read whole and close; its response counts.
        let sending = self.send(payload);
        let received = self.receive(payload, scratch, closed, &mut sink);
        match (received, sending) {
            (Turn::Pending, Err(failure)) => Turn::Failed(failure),
            (turn, _) => turn,
        }
    }

    fn send(&mut self, payload: &Payload) -> Result<(), Failure> {
        let Some(exchange) = &mut self.exchange else {
            return Ok(());
        };
        while exchange.sent < payload.length() {
            match payload.write(exchange.sent, &exchange.nonce, &mut self.stream) {
                Ok(count) => exchange.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // connect(2) is still in progress.
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::from(&error)),
            }
        }
        self.stream.flush().map_err(|error| Failure::from(&error))
    }

    fn receive(
        &mut self,
        payload: &Payload,
        scratch: &mut [u8],
        closed: bool,
        sink: &mut impl FnMut(Part<'_>),
    ) -> Turn {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return self.ended(),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Pending,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Turn::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if self.exchange.is_some() => return Turn::Failed((&error).into()),
                Err(_) => return Turn::ClosedIdle,
            };
            let Some(exchange) = &mut self.exchange else {
                return Turn::Failed(Failure::Malformed);
            };
            let head = &mut exchange.head;
            let fed = exchange.reader.feed(&scratch[..count], |part| {
                if let Part::Head(it) = part {
                    *head = Some(it);
                }
                sink(part);
            });
            match fed {
                Ok(true) => {
                    let all_sent = exchange.sent == payload.length();
                    return self.complete(all_sent && !closed);
                }
                Err(_) => return Turn::Failed(Failure::Malformed),
                // A short read has emptied the socket (epoll(7)).
                Ok(false) if count < scratch.len() && !closed && self.stream.is_plain() => {
                    return Turn::Pending;
                }
                Ok(false) => {}
            }
        }
    }

    fn complete(&mut self, keep: bool) -> Turn {
        match self.exchange.take().and_then(|exchange| exchange.head) {
            Some(head) => Turn::Complete {
                status: head.status,
                keep: keep && !head.close,
            },
            None => Turn::Failed(Failure::Malformed),
        }
    }

    fn ended(&mut self) -> Turn {
        match &self.exchange {
            None => Turn::ClosedIdle,
            Some(exchange) if exchange.reader.is_untouched() => Turn::Failed(Failure::ClosedEarly),
            Some(exchange) if exchange.reader.finish().is_ok() => self.complete(false),
            Some(_) => Turn::Failed(Failure::Truncated),
        }
    }
}
