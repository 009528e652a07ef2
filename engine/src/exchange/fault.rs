//! How an exchange can fail.

use crate::fault::{ConnectFault, TlsFault};

/// How an exchange, or one attempt of it, failed.
///
/// What a fault means for the endpoint is for the program to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The endpoint's port is closed.
    Refused,
    /// The endpoint could not be reached.
    Unreachable,
    /// The endpoint's name has no address.
    Unresolved,
    /// No connection within `connect`.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// The TLS handshake took longer than `tls`.
    TlsTimeout,
    /// The connection was reset.
    Reset,
    /// The connection was closed too early.
    Closed,
    /// A fresh connection ended before a response byte, after the endpoint took bytes of
    /// the request: the request itself may be the cause.
    Dropped(Ending),
    /// The endpoint was found dead in another way, before a response byte.
    Down,
    /// The request could not be sent: the endpoint took none of it for as long as `read`.
    SendTimeout,
    /// No complete response head within `response_header`.
    HeaderTimeout,
    /// The connection ended inside the response head.
    HeadCut(Ending),
    /// The response head is too large to be passed on. It may repeat what the client sent.
    HeadTooLarge,
    /// The received bytes are not an HTTP response that can be passed on.
    Malformed,
    /// Silence inside the response body for as long as `read`.
    ReadTimeout,
    /// The whole response took longer than `response`.
    ResponseTimeout,
    /// The client did not take its response within `write`.
    WriteTimeout,
    /// The gateway has no file descriptor, port or memory left.
    Local,
    /// The exchange was revoked while it was in progress.
    Revoked,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The endpoint closed it.
    Closed,
    /// It was reset.
    Reset,
}

impl Fault {
    /// Every fault.
    #[cfg(test)]
    pub(super) const ALL: [Self; 30] = [
        Self::Refused,
        Self::Unreachable,
        Self::Unresolved,
        Self::ConnectTimeout,
        Self::Tls(TlsFault::Expired),
        Self::Tls(TlsFault::NotYetValid),
        Self::Tls(TlsFault::UnknownIssuer),
        Self::Tls(TlsFault::WrongName),
        Self::Tls(TlsFault::BadCertificate),
        Self::Tls(TlsFault::Incompatible),
        Self::Tls(TlsFault::Refused),
        Self::Tls(TlsFault::NotTls),
        Self::Tls(TlsFault::Broken),
        Self::TlsTimeout,
        Self::Reset,
        Self::Closed,
        Self::Dropped(Ending::Closed),
        Self::Dropped(Ending::Reset),
        Self::Down,
        Self::SendTimeout,
        Self::HeaderTimeout,
        Self::HeadCut(Ending::Closed),
        Self::HeadCut(Ending::Reset),
        Self::HeadTooLarge,
        Self::Malformed,
        Self::ReadTimeout,
        Self::ResponseTimeout,
        Self::WriteTimeout,
        Self::Local,
        Self::Revoked,
    ];

    /// Whether the endpoint was reached but stayed silent too long, which clients
    /// learn from a code of its own (docs/contract/surface.md#9, `BACKEND_TIMEOUT`). Failing to
    /// connect in time is not: that is an unreachable endpoint.
    pub const fn is_silence(self) -> bool {
        matches!(
            self,
            Self::SendTimeout | Self::HeaderTimeout | Self::ReadTimeout | Self::ResponseTimeout
        )
    }

    /// One word for logs and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls(fault) => fault.as_str(),
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Dropped(Ending::Closed) => "dropped",
            Self::Dropped(Ending::Reset) => "dropped_by_reset",
            Self::Down => "down",
            Self::SendTimeout => "send_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::HeadCut(Ending::Closed) => "head_cut",
            Self::HeadCut(Ending::Reset) => "head_cut_by_reset",
            Self::HeadTooLarge => "head_too_large",
            Self::Malformed => "malformed",
            Self::ReadTimeout => "read_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Local => "local",
            Self::Revoked => "revoked",
        }
    }
}

impl From<Ending> for Fault {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Closed => Self::Closed,
            Ending::Reset => Self::Reset,
        }
    }
}

impl From<ConnectFault> for Fault {
    fn from(fault: ConnectFault) -> Self {
        match fault {
            ConnectFault::Refused => Self::Refused,
            ConnectFault::Unreachable => Self::Unreachable,
            ConnectFault::Unresolved => Self::Unresolved,
            ConnectFault::TimedOut => Self::ConnectTimeout,
            ConnectFault::Tls(fault) => Self::Tls(fault),
            ConnectFault::Local => Self::Local,
        }
    }
}
