//! A small client on the same codec, for health checks and discovery: one request, one connection,
//! the whole answer in memory.
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
use crate::rt::{self, Socket};
use crate::tls::TlsClient;
use crate::upstream;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFault {
    /// No connection came about.
    Connect(ConnectFault),
    /// The connection was reset or could not be written to.
    Reset,
    /// The connection was closed before the answer was complete.
    Closed,
    /// It took too long.
    TimedOut,
    /// What came is no HTTP answer.
    Malformed,
    /// The body is longer than was asked for.
    TooLong,
}

impl ClientFault {
    /// A few words for people and logs.
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
            Self::Malformed => "not an HTTP answer",
            Self::TooLong => "the answer is too long",
        }
    }

    /// Whether it was the connection that failed, so that trying again may help at once.
    pub const fn is_connection(self) -> bool {
        matches!(self, Self::Connect(_) | Self::Reset | Self::Closed)
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names and values as sent.
    pub fields: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends a request and waits for its answer.
///
/// With `tls` the connection is secured, without it is plain.
///
/// `request` is complete, framing and all, and asks the server to close the connection.
/// `body_bytes_max` of 0 means that nobody wants the body.
///
/// # Errors
/// [`ClientFault`].
pub async fn ask(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    request: &[u8],
    limit: Duration,
    body_bytes_max: usize,
) -> Result<Reply, ClientFault> {
    let asking = ask_without_limit(addresses, tls, request, body_bytes_max);
    // The connection is dropped with the future, so nothing can be lost by giving up.
    rt::timeout(limit, asking)
        .await
        .unwrap_or(Err(ClientFault::TimedOut))
}

async fn ask_without_limit(
    addresses: &[SocketAddr],
    tls: Option<&TlsClient>,
    request: &[u8],
    body_bytes_max: usize,
) -> Result<Reply, ClientFault> {
    let connected = upstream::connect(addresses, Duration::from_secs(30)).await;
    let mut socket = connected.map_err(ClientFault::Connect)?;
    if let Some(tls) = tls {
        let secured = socket.secure(tls).await;
        socket = secured.map_err(|fault| ClientFault::Connect(ConnectFault::Tls(fault)))?;
    }
    send(&socket, request).await?;
    let mut head = ResponseHead::new();
    let (mut buf, body) = read_head(&mut socket, &mut head).await?;
    let mut reply = Reply {
        status: head.status,
        ..Reply::default()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for field in &head.fields {
        reply
            .fields
            .push((text(field.name.of(&buf)), text(field.value.of(&buf))));
    }
    if body_bytes_max == 0 {
        return Ok(reply);
    }
    buf.consume(head.len);
    let mut body = Incoming::of(body);
    while body
        .gather(&buf, &mut reply.body)
        .map_err(|_| ClientFault::Malformed)?
        .is_none()
    {
        if reply.body.len() > body_bytes_max {
            return Err(ClientFault::TooLong);
        }
        buf.clear();
        buf = buf.grown(UPSTREAM_READ_BYTES_MAX);
        match read(&mut socket, buf).await? {
            (0, _) if body.ends_with_connection() => break,
            (0, _) => return Err(ClientFault::Closed),
            (_, came) => buf = came,
        }
    }
    if reply.body.len() > body_bytes_max {
        Err(ClientFault::TooLong)
    } else {
        Ok(reply)
    }
}

async fn send(socket: &Socket, request: &[u8]) -> Result<(), ClientFault> {
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
        // A secured connection whose end was not announced.
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
