//! A small client on the same codec, for health checks and discovery: one request, one connection,
//! the whole response in memory.
//!
//! Bounded in time and in bytes. Follows no redirect and resolves no name.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::buf::Buf;
use crate::fault::ConnectFault;
use crate::h1::framing::{self, ResponseBody};
use crate::h1::{NoNames, ResponseHead, Scan};
use crate::incoming::Incoming;
use crate::limits::{
    INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX, UPSTREAM_READ_BYTES_MAX,
    UPSTREAM_READ_BYTES_START,
};
use crate::part;
use crate::rt::{self, Purpose, Socket};
use crate::tls::TlsClient;
use crate::upstream;

/// The interval of TCP keep-alive probes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Why a request got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFault {
    /// The connection could not be opened.
    Connect(ConnectFault),
    /// The connection was reset or could not be written to.
    Reset,
    /// The connection was closed before the response was complete.
    Closed,
    /// The time limit passed.
    TimedOut,
    /// The bytes received are not an HTTP response.
    Malformed,
    /// The body is longer than the limit.
    TooLong,
}

impl ClientFault {
    /// A short description for status pages and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect(ConnectFault::Refused) => "connection refused",
            Self::Connect(ConnectFault::Unresolved) => "name not resolved",
            Self::Connect(ConnectFault::TimedOut) => "connection timed out",
            Self::Connect(ConnectFault::Tls(fault)) => fault.as_str(),
            Self::Connect(ConnectFault::Local) => "the gateway is out of resources",
            Self::Connect(_) => "host unreachable",
            Self::Reset => "connection reset",
            Self::Closed => "connection closed",
            Self::TimedOut => "timed out",
            Self::Malformed => "not an HTTP response",
            Self::TooLong => "response too long",
        }
    }

    /// Whether the cause is this machine, which says nothing about the server.
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Connect(ConnectFault::Local))
    }

    /// Whether the connection failed, so that an immediate retry may succeed.
    pub const fn is_connection(self) -> bool {
        matches!(self, Self::Connect(_) | Self::Reset | Self::Closed)
    }
}

/// A response, complete.
#[derive(Debug, Clone, Default)]
pub struct ClientResponse {
    /// The status.
    pub status: u16,
    /// Names and values as sent.
    pub fields: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl ClientResponse {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// How much of a response's body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyWanted {
    /// All of it; longer ones are [`ClientFault::TooLong`].
    Whole(usize),
    /// Its first bytes, of responses with this status only.
    Start {
        /// The status.
        status: u16,
        /// The number of bytes.
        bytes_max: usize,
    },
}

/// Sends a request and waits for its response.
///
/// The connection uses TLS if `tls` is given.
///
/// `request` is complete, framing included, and tells the server to close the connection.
/// # Errors
/// [`ClientFault`].
pub async fn send(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    request: &[u8],
    limit: Duration,
    wanted: BodyWanted,
) -> Result<ClientResponse, ClientFault> {
    let sending = send_unbounded(addresses, tls, request, wanted);
    // The connection is dropped with the future, so nothing can be lost by giving up.
    rt::timeout(limit, sending)
        .await
        .unwrap_or(Err(ClientFault::TimedOut))
}

async fn send_unbounded(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    request: &[u8],
    wanted: BodyWanted,
) -> Result<ClientResponse, ClientFault> {
    let connecting = upstream::connect(addresses, KEEP_ALIVE, Purpose::Own, |_| {});
    let connected = connecting.await;
    let mut socket = connected.map_err(ClientFault::Connect)?;
    if let Some(tls) = tls {
        let secured = socket.secure(tls).await;
        socket = secured.map_err(|fault| ClientFault::Connect(ConnectFault::Tls(fault)))?;
    }
    write_all(&socket, request).await?;
    let mut head = ResponseHead::new();
    let (mut buf, body) = read_head(&mut socket, &mut head).await?;
    let mut response = ClientResponse {
        status: head.status,
        ..ClientResponse::default()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for field in &head.fields {
        response
            .fields
            .push((text(field.name.of(&buf)), text(field.value.of(&buf))));
    }
    buf.consume(head.len);
    match wanted {
        BodyWanted::Whole(bytes_max) => {
            read_body(&mut socket, buf, body, (&mut response.body, bytes_max)).await?;
        }
        BodyWanted::Start { status, bytes_max } if status == response.status => {
            // What came before an error or the end is the start, too.
            let _ = read_body(&mut socket, buf, body, (&mut response.body, bytes_max)).await;
            response.body.truncate(bytes_max);
        }
        BodyWanted::Start { .. } => {}
    }
    Ok(response)
}

async fn read_body(
    socket: &mut Socket,
    mut buf: Buf,
    body: ResponseBody,
    (out, bytes_max): (&mut Vec<u8>, usize),
) -> Result<(), ClientFault> {
    let mut body = Incoming::of(body);
    while body
        .gather(&buf, out)
        .map_err(|_| ClientFault::Malformed)?
        .is_none()
    {
        if out.len() > bytes_max {
            return Err(ClientFault::TooLong);
        }
        buf.clear();
        buf = buf.grown(UPSTREAM_READ_BYTES_MAX);
        match read(socket, buf).await? {
            (0, _) if body.ends_with_connection() => break,
            (0, _) => return Err(ClientFault::Closed),
            (_, came) => buf = came,
        }
    }
    if out.len() > bytes_max {
        return Err(ClientFault::TooLong);
    }
    Ok(())
}

async fn write_all(socket: &Socket, request: &[u8]) -> Result<(), ClientFault> {
    let mut rest = request;
    while !rest.is_empty() {
        match socket.send_now(&[IoSlice::new(rest)]) {
            Ok(sent) => rest = part::rest(rest, sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.writable().await.map_err(|_| ClientFault::Reset)?;
            }
            Err(_) => return Err(ClientFault::Reset),
        }
    }
    Ok(())
}

async fn read(socket: &mut Socket, buf: Buf) -> Result<(usize, Buf), ClientFault> {
    socket.arm(buf);
    let (result, buf) = socket.read().await;
    let count = result.map_err(|error| match error.kind() {
        // A TLS connection that ended without close_notify.
        io::ErrorKind::UnexpectedEof => ClientFault::Closed,
        _ => ClientFault::Reset,
    })?;
    Ok((count, buf))
}

async fn read_head(
    socket: &mut Socket,
    head: &mut ResponseHead,
) -> Result<(Buf, ResponseBody), ClientFault> {
    let mut buf = Buf::with_capacity(UPSTREAM_READ_BYTES_START);
    let mut scan = Scan::default();
    let mut interim = 0;
    loop {
        let (count, came) = read(socket, buf).await?;
        buf = came;
        if count == 0 {
            return Err(ClientFault::Closed);
        }
        while head
            .parse::<NoNames>(&buf, &mut scan, RESPONSE_HEAD_BYTES_MAX)
            .map_err(|_| ClientFault::Malformed)?
        {
            if head.status >= 200 {
                let framing = framing::response(head, &buf, false);
                return Ok((buf, framing.map_err(|_| ClientFault::Malformed)?.body));
            }
            if head.status == 101 || interim >= INTERIM_RESPONSES_MAX {
                return Err(ClientFault::Malformed);
            }
            interim += 1;
            buf.consume(head.len);
            scan.reset();
        }
        if buf.spare() == 0 {
            buf = buf.grown(UPSTREAM_READ_BYTES_MAX);
        }
    }
}
