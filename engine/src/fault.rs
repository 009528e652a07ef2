//! Why a connection to a backend could not be opened, in terms that every layer shares.

/// Why a connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectFault {
    /// The port is closed.
    Refused,
    /// No route to the host or network, or any other error of connecting.
    Unreachable,
    /// The endpoint's name has no address.
    Unresolved,
    /// The transport gave up by itself, before the deadline of the exchange.
    TimedOut,
    /// The TLS handshake failed; a certificate that does not verify included.
    Tls(TlsFault),
    /// The gateway has no file descriptor, port or memory left. Says nothing about the endpoint.
    Local,
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate was not issued by a trusted authority.
    UnknownIssuer,
    /// The certificate is for other names.
    WrongName,
    /// The certificate cannot be used for another reason, or there is none.
    BadCertificate,
    /// No protocol version, cipher or signature in common.
    Incompatible,
    /// The other side has ended the handshake by an alert.
    Refused,
    /// The bytes received are not TLS.
    NotTls,
    /// The handshake was interrupted or violated the protocol.
    Broken,
}

impl TlsFault {
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
}
