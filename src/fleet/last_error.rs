//! Why an endpoint is not used, in one vocabulary: the last error of its checks, its listings and
//! its live traffic.
//!
//! A success of the same thing takes an error away. Live traffic notes its failures in
//! [`Live`](super::Live), which all cores share.
//!
//! Contract: docs/contract/observe.md#1

use std::sync::Arc;
use std::time::SystemTime;

use olla_engine::client::ClientFault;
use olla_engine::exchange::{ConnectFault, Ending, Fault};

use super::Live;

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    Dns,
    Refused,
    Unreachable,
    ConnectTimeout,
    Tls,
    Auth,
    NotFound,
    Status,
    Timeout,
    Reset,
    Closed,
    Malformed,
    Loading,
    RateLimited,
    NoModels,
    ModelListing,
}

impl ErrorKind {
    /// The word on pages and in logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::NotFound => "not_found",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Loading => "loading",
            Self::RateLimited => "rate_limited",
            Self::NoModels => "no_models",
            Self::ModelListing => "model_listing",
        }
    }

    /// The kind of a status that is not good.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Auth,
            404 => Self::NotFound,
            429 => Self::RateLimited,
            _ => Self::Status,
        }
    }

    /// The kind of a request that got no response; `None` for faults of the gateway's own machine.
    pub(crate) const fn of_client(fault: ClientFault) -> Option<Self> {
        Some(match fault {
            ClientFault::Connect(ConnectFault::Local) => return None,
            ClientFault::Connect(ConnectFault::Refused) => Self::Refused,
            ClientFault::Connect(ConnectFault::Unresolved) => Self::Dns,
            ClientFault::Connect(ConnectFault::TimedOut) => Self::ConnectTimeout,
            ClientFault::Connect(ConnectFault::Tls(_)) => Self::Tls,
            ClientFault::Connect(_) => Self::Unreachable,
            ClientFault::Reset => Self::Reset,
            ClientFault::Closed => Self::Closed,
            ClientFault::TimedOut => Self::Timeout,
            ClientFault::Malformed => Self::Malformed,
            ClientFault::TooLong => Self::ModelListing,
        })
    }

    /// The kind of a failed attempt of live traffic, if it says something about the endpoint.
    pub(crate) const fn of_traffic(fault: Fault) -> Option<Self> {
        Some(match fault {
            Fault::Refused => Self::Refused,
            Fault::Unreachable => Self::Unreachable,
            Fault::Unresolved => Self::Dns,
            Fault::ConnectTimeout => Self::ConnectTimeout,
            Fault::Tls(_) | Fault::TlsTimeout => Self::Tls,
            Fault::Reset | Fault::Dropped(Ending::Reset) | Fault::HeadCut(Ending::Reset) => {
                Self::Reset
            }
            Fault::Closed | Fault::Dropped(Ending::Closed) | Fault::HeadCut(Ending::Closed) => {
                Self::Closed
            }
            Fault::HeadTooLarge | Fault::Malformed => Self::Malformed,
            Fault::SendTimeout
            | Fault::HeaderTimeout
            | Fault::ResponseTimeout
            | Fault::ReadTimeout
            | Fault::WriteTimeout
            | Fault::Down
            | Fault::Revoked
            | Fault::Local => return None,
        })
    }
}

/// Why an endpoint has another status, as the log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The status code of a check's response.
    pub(crate) status_code: Option<u16>,
    /// `None` if all is well.
    pub(crate) error: Option<ErrorKind>,
    /// What failed in a TLS handshake.
    pub(crate) reason: Option<&'static str>,
}

impl Cause {
    /// The response to a check.
    pub(crate) const fn of_response(status_code: u16, error: Option<ErrorKind>) -> Self {
        Self {
            status_code: Some(status_code),
            error,
            reason: None,
        }
    }

    /// A check without response.
    pub(crate) const fn of_client(fault: ClientFault) -> Self {
        let reason = match fault {
            ClientFault::Connect(ConnectFault::Tls(fault)) => Some(fault.as_str()),
            _ => None,
        };
        Self {
            status_code: None,
            error: ErrorKind::of_client(fault),
            reason,
        }
    }

    /// A failed attempt of live traffic.
    pub(crate) const fn of_traffic(fault: Fault) -> Self {
        let reason = match fault {
            Fault::Tls(_) | Fault::TlsTimeout => Some(fault.as_str()),
            _ => None,
        };
        Self {
            status_code: None,
            error: ErrorKind::of_traffic(fault),
            reason,
        }
    }
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// A sentence without an address.
    pub(crate) message: String,
    /// The URL that was asked, with its path, without credentials and query.
    pub(crate) url: String,
    /// The status of the response, if there was one.
    pub(crate) status: Option<u16>,
}

/// The latest of failures in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    pub(crate) failure: Failure,
    /// When the latest happened.
    pub(crate) at: SystemTime,
    /// When the first of the row happened.
    pub(crate) since: SystemTime,
    /// How many there were in a row.
    pub(crate) count: u32,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Check,
    Listing,
    Traffic,
}

/// The errors of an endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors {
    check: Option<Arc<LastError>>,
    listing: Option<Arc<LastError>>,
    traffic: Option<Arc<LastError>>,
}

impl Errors {
    /// Something has failed.
    pub(crate) fn failed(&mut self, what: Failed, failure: Failure, now: SystemTime) {
        let row = self.row(what);
        let before = row.as_ref().map(|row| (row.since, row.count));
        let (since, count) = before.unwrap_or((now, 0));
        *row = Some(Arc::new(LastError {
            failure,
            at: now,
            since,
            count: count.saturating_add(1),
        }));
    }

    /// Something has succeeded.
    pub(crate) fn succeeded(&mut self, what: Failed) {
        *self.row(what) = None;
    }

    fn row(&mut self, what: Failed) -> &mut Option<Arc<LastError>> {
        match what {
            Failed::Check => &mut self.check,
            Failed::Listing => &mut self.listing,
            Failed::Traffic => &mut self.traffic,
        }
    }

    /// The error to show: the latest of those that no success has taken away.
    pub(crate) fn latest(&self, live: &Live) -> Option<LastError> {
        let troubles = live.troubles();
        let traffic = self.traffic.as_deref().filter(|_| troubles > 0);
        let traffic = traffic.map(|row| LastError {
            count: troubles,
            ..row.clone()
        });
        let own = [&self.check, &self.listing];
        let own = own.into_iter().flatten().map(|row| LastError::clone(row));
        own.chain(traffic).max_by_key(|row| row.at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use olla_engine::exchange::TlsFault;

    use super::*;

    fn failure(kind: ErrorKind) -> Failure {
        Failure {
            kind,
            message: kind.as_str().to_owned(),
            url: "http://h/health".to_owned(),
            status: None,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Kind, time of the latest, of the first, and the count.
    fn shown(errors: &Errors, live: &Live) -> Option<(ErrorKind, u64, u64, u32)> {
        let secs = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let last = errors.latest(live)?;
        Some((
            last.failure.kind,
            secs(last.at),
            secs(last.since),
            last.count,
        ))
    }

    #[test]
    fn a_row_ends_with_a_success_of_the_same_thing() {
        use ErrorKind::{ModelListing, Refused, Timeout};
        let (mut errors, live) = (Errors::default(), Live::default());
        assert_eq!(shown(&errors, &live), None);
        errors.failed(Failed::Check, failure(Timeout), at(1));
        errors.failed(Failed::Check, failure(Refused), at(3));
        assert_eq!(shown(&errors, &live), Some((Refused, 3, 1, 2)));
        errors.failed(Failed::Listing, failure(ModelListing), at(4));
        assert_eq!(shown(&errors, &live), Some((ModelListing, 4, 4, 1)));
        errors.succeeded(Failed::Listing);
        assert_eq!(shown(&errors, &live), Some((Refused, 3, 1, 2)));
        errors.succeeded(Failed::Check);
        assert_eq!(shown(&errors, &live), None);
        errors.failed(Failed::Check, failure(Timeout), at(9));
        assert_eq!(shown(&errors, &live), Some((Timeout, 9, 9, 1)), "a new row");
    }

    #[test]
    fn traffic_counts_on_the_cores() {
        use ErrorKind::{RateLimited, Reset};
        let (mut errors, live) = (Errors::default(), Live::default());
        assert!(live.trouble(1), "the first is told");
        errors.failed(Failed::Traffic, failure(Reset), at(1));
        assert!(
            !live.trouble(2),
            "the next ones within a second are counted only"
        );
        assert_eq!(shown(&errors, &live), Some((Reset, 1, 1, 2)));
        assert!(live.trouble(1_500));
        errors.failed(Failed::Traffic, failure(RateLimited), at(2));
        assert_eq!(shown(&errors, &live), Some((RateLimited, 2, 1, 3)));
        live.no_trouble();
        assert_eq!(shown(&errors, &live), None);
        assert!(live.trouble(1_501), "the first of another row is told");
    }

    #[test]
    fn faults_have_kinds() {
        let table = [
            (ClientFault::Connect(ConnectFault::Local), None),
            (ClientFault::TimedOut, Some("timeout")),
            (ClientFault::Connect(ConnectFault::Unresolved), Some("dns")),
            (ClientFault::TooLong, Some("model_listing")),
        ];
        for (fault, want) in table {
            let kind = ErrorKind::of_client(fault).map(ErrorKind::as_str);
            assert_eq!(kind, want, "{fault:?}");
        }
        for (status, want) in [
            (401, "auth"),
            (403, "auth"),
            (404, "not_found"),
            (500, "status"),
        ] {
            assert_eq!(ErrorKind::of_status(status).as_str(), want);
        }
        for (fault, want) in [
            (Fault::HeaderTimeout, None),
            (Fault::Down, None),
            (Fault::Revoked, None),
            (Fault::Closed, Some("closed")),
            (Fault::Dropped(Ending::Closed), Some("closed")),
            (Fault::Dropped(Ending::Reset), Some("reset")),
            (Fault::HeadCut(Ending::Closed), Some("closed")),
            (Fault::HeadCut(Ending::Reset), Some("reset")),
            (Fault::Malformed, Some("malformed")),
            (Fault::Unresolved, Some("dns")),
        ] {
            let kind = ErrorKind::of_traffic(fault).map(ErrorKind::as_str);
            assert_eq!(kind, want, "{fault:?}");
        }
    }

    #[test]
    fn causes_tell_which_part_of_tls_failed() {
        let expired = TlsFault::Expired;
        let check = Cause::of_client(ClientFault::Connect(ConnectFault::Tls(expired)));
        assert_eq!(check, Cause::of_traffic(Fault::Tls(expired)));
        assert_eq!(check.error, Some(ErrorKind::Tls));
        assert_eq!(check.reason, Some("tls_certificate_expired"));
        let refused = Cause::of_traffic(Fault::Refused);
        assert_eq!(
            (refused.error, refused.reason),
            (Some(ErrorKind::Refused), None)
        );
    }
}
