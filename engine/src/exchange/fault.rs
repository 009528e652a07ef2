//! What can go wrong between the gateway and an endpoint, and what each means for the endpoint.

/// Why no connection came about, as the connecting side reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectFault {
    /// Nobody listens there.
    Refused,
    /// No route to the host or network, or any other error of connecting.
    Unreachable,
    /// The endpoint's name has no address.
    Unresolved,
    /// The transport gave up by itself, before the machine's own deadline.
    TimedOut,
    /// The TLS handshake failed; a certificate that does not verify included.
    Tls(TlsFault),
    /// The gateway has no file descriptor, port or memory left. Says nothing about the endpoint.
    Local,
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate is past its time.
    Expired,
    /// The certificate's time has not come.
    NotYetValid,
    /// Nobody who is trusted has issued the certificate.
    UnknownIssuer,
    /// The certificate is for other names.
    WrongName,
    /// The certificate cannot be used for another reason, or there is none.
    BadCertificate,
    /// No protocol version, cipher or signature in common.
    Incompatible,
    /// The other side has ended the handshake by an alert.
    Refused,
    /// What came is not TLS.
    NotTls,
    /// The handshake broke off, or was not conducted as the protocol wants it.
    Broken,
}

impl TlsFault {
    /// Every fault.
    pub const ALL: [Self; 9] = [
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownIssuer,
        Self::WrongName,
        Self::BadCertificate,
        Self::Incompatible,
        Self::Refused,
        Self::NotTls,
        Self::Broken,
    ];

    /// One word for logs and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "tls_certificate_expired",
            Self::NotYetValid => "tls_certificate_not_yet_valid",
            Self::UnknownIssuer => "tls_unknown_issuer",
            Self::WrongName => "tls_wrong_name",
            Self::BadCertificate => "tls_bad_certificate",
            Self::Incompatible => "tls_incompatible",
            Self::Refused => "tls_refused",
            Self::NotTls => "tls_not_spoken",
            Self::Broken => "tls_broken_off",
        }
    }

    /// What happened, in words that follow the endpoint's name (see [`Fault::sentence`]).
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Expired => "has a TLS certificate that has expired",
            Self::NotYetValid => "has a TLS certificate that is not valid yet",
            Self::UnknownIssuer => "has a TLS certificate of an unknown issuer",
            Self::WrongName => "has a TLS certificate for another name",
            Self::BadCertificate => "has a TLS certificate that cannot be used",
            Self::Incompatible => "has no TLS version or cipher in common with the gateway",
            Self::Refused => "refused the TLS handshake",
            Self::NotTls => "does not speak TLS",
            Self::Broken => "broke off the TLS handshake",
        }
    }
}

/// How an exchange, or one attempt of it, failed.
///
/// The methods are the one place where a fault is judged. Those about the endpoint hold for a fault
/// that comes before the answer began; after that nothing is held against an endpoint, which
/// [`Action::marks_offline`](super::Action::marks_offline) and its neighbour know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody listens at the endpoint.
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
    /// The request could not be sent: the endpoint took none of it for as long as `read`.
    SendTimeout,
    /// No complete response head within `response_header`.
    HeaderTimeout,
    /// The connection ended inside the response head.
    HeadCut,
    /// What came is not an HTTP response that can be passed on.
    Malformed,
    /// Silence inside the response body for as long as `read`.
    ReadTimeout,
    /// The whole took longer than `response`.
    ResponseTimeout,
    /// The client did not take its answer within `write`, or took none of it for too long.
    WriteTimeout,
    /// The gateway has no file descriptor, port or memory left.
    Local,
}

impl Fault {
    /// Every fault, for counters by fault.
    pub const ALL: [Self; 24] = [
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
        Self::SendTimeout,
        Self::HeaderTimeout,
        Self::HeadCut,
        Self::Malformed,
        Self::ReadTimeout,
        Self::ResponseTimeout,
        Self::WriteTimeout,
        Self::Local,
    ];

    /// Whether it is a failure of the connection itself: the endpoint is marked offline and another
    /// one may be tried (docs/contract/balancing.md#9).
    pub const fn marks_offline(self) -> bool {
        match self {
            Self::Refused
            | Self::Unreachable
            | Self::Unresolved
            | Self::ConnectTimeout
            | Self::Tls(_)
            | Self::TlsTimeout
            | Self::Reset
            | Self::Closed => true,
            Self::SendTimeout
            | Self::HeaderTimeout
            | Self::HeadCut
            | Self::Malformed
            | Self::ReadTimeout
            | Self::ResponseTimeout
            | Self::WriteTimeout
            | Self::Local => false,
        }
    }

    /// Whether the endpoint's breaker counts it as a failure: the connection's own failures, hangs
    /// and malformed responses; never what the client or the gateway did
    /// (docs/contract/balancing.md#10).
    pub const fn counts_for_breaker(self) -> bool {
        self.marks_offline()
            || matches!(
                self,
                Self::SendTimeout
                    | Self::HeaderTimeout
                    | Self::ResponseTimeout
                    | Self::HeadCut
                    | Self::Malformed
            )
    }

    /// Whether the endpoint was reached but stayed silent too long, which clients are told by a
    /// code of its own (docs/contract/surface.md#9, `BACKEND_TIMEOUT`). Failing to connect in time
    /// is not: that is an unreachable endpoint.
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
            Self::SendTimeout => "send_timeout",
            Self::HeaderTimeout => "header_timeout",
            Self::HeadCut => "head_cut",
            Self::Malformed => "malformed",
            Self::ReadTimeout => "read_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Local => "local",
        }
    }

    /// What happened, in words that follow the endpoint's name and hold no address:
    /// "gpu-1 refused the connection" (docs/contract/balancing.md#6, docs/contract/surface.md#9).
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Refused => "refused the connection",
            Self::Unreachable => "could not be reached",
            Self::Unresolved => "has a host name that does not resolve",
            Self::ConnectTimeout => "did not accept the connection in time",
            Self::Tls(fault) => fault.sentence(),
            Self::TlsTimeout => "did not complete the TLS handshake in time",
            Self::Reset => "reset the connection",
            Self::Closed => "closed the connection before its answer was complete",
            Self::SendTimeout => "stopped reading the request",
            Self::HeaderTimeout => "did not begin to answer in time",
            Self::HeadCut => "broke off inside its response headers",
            Self::Malformed => "sent a response that is not valid HTTP",
            Self::ReadTimeout => "fell silent inside its response",
            Self::ResponseTimeout => "did not complete its response in time",
            Self::WriteTimeout => "was given up because the client took its answer too slowly",
            Self::Local => "could not be asked because the gateway is out of resources",
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
