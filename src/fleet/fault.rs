//! The consequences of a failed exchange for its endpoint: one row for each fault.
//!
//! The rows apply to a fault before the response began. A later fault has no consequences for the
//! endpoint.
//!
//! Contract: docs/contract/balancing.md#9, docs/contract/balancing.md#10

use olla_engine::exchange::{Fault, TlsFault};

/// The consequences of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// It is a failure of the connection itself: the endpoint is marked offline, and another one
    /// may be tried (docs/contract/balancing.md#9).
    pub(crate) marks_offline: bool,
    /// The endpoint's breaker counts it: failures of the connection and malformed responses;
    /// never what the client or the gateway did, nor a long prompt (docs/contract/balancing.md#10).
    pub(crate) counts_for_breaker: bool,
    /// The request itself may be the cause: a health check decides about the endpoint
    /// (docs/contract/balancing.md#9.3).
    pub(crate) makes_suspect: bool,
    /// What happened, in words that follow the endpoint's name and hold no address: "gpu-1 refused
    /// the connection" (docs/contract/balancing.md#6, docs/contract/surface.md#9).
    pub(crate) sentence: &'static str,
}

/// The consequences of a fault before the response began.
pub(crate) const fn consequences(fault: Fault) -> Consequences {
    match fault {
        Fault::Refused => offline("refused the connection"),
        Fault::Unreachable => offline("could not be reached"),
        Fault::Unresolved => offline("has a host name that does not resolve"),
        Fault::ConnectTimeout => offline("did not accept the connection in time"),
        Fault::Tls(fault) => offline(tls_sentence(fault)),
        Fault::TlsTimeout => offline("did not complete the TLS handshake in time"),
        Fault::Reset => offline("reset the connection"),
        Fault::Closed => offline("closed the connection before its response was complete"),
        Fault::Dropped(_) => suspect("closed the connection on this request"),
        Fault::Down => nothing("was found offline by a health check"),
        Fault::SendTimeout => failure("stopped reading the request"),
        Fault::HeaderTimeout => nothing("did not begin its response in time"),
        Fault::HeadCut(_) => suspect("closed the connection within its response headers"),
        Fault::HeadTooLarge => suspect("sent response headers of more than 32 KiB"),
        Fault::Malformed => failure("sent a response that is not valid HTTP"),
        Fault::ResponseTimeout => failure("did not complete its response in time"),
        Fault::ReadTimeout => nothing("stopped sending within its response"),
        Fault::WriteTimeout => {
            nothing("was abandoned because the client read the response too slowly")
        }
        Fault::Revoked => nothing("was left because the key of the request was revoked"),
        Fault::Local => nothing("could not be reached because the gateway is out of resources"),
    }
}

const fn tls_sentence(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Expired => "has a TLS certificate that has expired",
        TlsFault::NotYetValid => "has a TLS certificate that is not valid yet",
        TlsFault::UnknownIssuer => "has a TLS certificate of an unknown issuer",
        TlsFault::WrongName => "has a TLS certificate for another name",
        TlsFault::BadCertificate => "has a TLS certificate that cannot be used",
        TlsFault::Incompatible => "has no TLS version or cipher in common with the gateway",
        TlsFault::Refused => "refused the TLS handshake",
        TlsFault::NotTls => "does not speak TLS",
        TlsFault::Broken => "broke off the TLS handshake",
    }
}

const fn offline(sentence: &'static str) -> Consequences {
    Consequences {
        marks_offline: true,
        counts_for_breaker: true,
        makes_suspect: false,
        sentence,
    }
}

const fn failure(sentence: &'static str) -> Consequences {
    Consequences {
        marks_offline: false,
        counts_for_breaker: true,
        makes_suspect: false,
        sentence,
    }
}

const fn suspect(sentence: &'static str) -> Consequences {
    Consequences {
        makes_suspect: true,
        ..nothing(sentence)
    }
}

const fn nothing(sentence: &'static str) -> Consequences {
    Consequences {
        marks_offline: false,
        counts_for_breaker: false,
        makes_suspect: false,
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use olla_engine::exchange::Ending;

    use super::*;
    use crate::fleet::ErrorKind;

    #[test]
    fn the_contract_says_what_a_fault_leads_to() {
        let tls = Fault::Tls(TlsFault::Expired);
        let table = [
            (Fault::Refused, true, true),
            (Fault::Unreachable, true, true),
            (Fault::Unresolved, true, true),
            (Fault::ConnectTimeout, true, true),
            (tls, true, true),
            (Fault::TlsTimeout, true, true),
            (Fault::Reset, true, true),
            (Fault::Closed, true, true),
            (Fault::SendTimeout, false, true),
            (Fault::Dropped(Ending::Closed), false, false),
            (Fault::Dropped(Ending::Reset), false, false),
            (Fault::Down, false, false),
            (Fault::Revoked, false, false),
            (Fault::HeaderTimeout, false, false),
            (Fault::HeadCut(Ending::Closed), false, false),
            (Fault::HeadCut(Ending::Reset), false, false),
            (Fault::HeadTooLarge, false, false),
            (Fault::Malformed, false, true),
            (Fault::ResponseTimeout, false, true),
            (Fault::ReadTimeout, false, false),
            (Fault::WriteTimeout, false, false),
            (Fault::Local, false, false),
        ];
        for (fault, offline, breaker) in table {
            let got = consequences(fault);
            assert_eq!(got.marks_offline, offline, "{fault:?}");
            assert_eq!(got.counts_for_breaker, breaker, "{fault:?}");
            let suspect = matches!(
                fault,
                Fault::Dropped(_) | Fault::HeadCut(_) | Fault::HeadTooLarge
            );
            assert_eq!(got.makes_suspect, suspect, "{fault:?}");
            let has_kind = ErrorKind::of_traffic(fault).is_some();
            assert!(has_kind || !offline, "{fault:?}");
            assert!(!got.sentence.ends_with('.'), "{fault:?}");
        }
    }
}
