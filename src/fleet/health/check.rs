//! The outcome of a health check, and the status that it leads to.
//!
//! Contract: docs/contract/balancing.md#11

use std::time::Duration;

use olla_engine::client::ClientFault;
use olla_engine::exchange::ConnectFault;

use crate::fleet::{Cause, ErrorKind, Status};

/// A successful check that took longer than this means that the endpoint is busy.
const BUSY_AFTER: Duration = Duration::from_secs(10);

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckResult {
    /// An HTTP response.
    Response {
        /// Its status code.
        code: u16,
        /// The time that its `Retry-After` asks for ([`retry_after`](super::schedule::retry_after)); counts with a 429.
        retry_after: Duration,
        /// Whether it is a 503 that says that the model is being loaded.
        is_loading: bool,
    },
    /// No HTTP response.
    Failed(ClientFault),
}

impl CheckResult {
    /// Whether the endpoint works: an endpoint that loads a model does.
    pub(crate) fn is_good(self) -> bool {
        status_after(self, Duration::ZERO).is_routable()
    }

    /// What it says about the endpoint, in the words of the log.
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Response {
                code: code @ 200..=299,
                ..
            } => Cause::of_response(code, None),
            Self::Response {
                code,
                is_loading: true,
                ..
            } => Cause::of_response(code, Some(ErrorKind::Loading)),
            Self::Response { code, .. } => {
                Cause::of_response(code, Some(ErrorKind::of_status(code)))
            }
            Self::Failed(fault) => Cause::of_client(fault),
        }
    }

    /// The status of an endpoint whose first check this is.
    pub(crate) fn first_status(self, took: Duration) -> Status {
        status_after(self, took)
    }
}

/// Whether a request got no response in time.
pub(super) fn is_timeout(fault: ClientFault) -> bool {
    matches!(
        fault,
        ClientFault::TimedOut | ClientFault::Connect(ConnectFault::TimedOut)
    )
}

/// The status that a check leads to (docs/contract/balancing.md#11).
pub(super) fn status_after(result: CheckResult, took: Duration) -> Status {
    let CheckResult::Response {
        code, is_loading, ..
    } = result
    else {
        return Status::Offline;
    };
    match code {
        503 if is_loading => Status::Warming,
        200..=299 if took > BUSY_AFTER => Status::Busy,
        200..=299 => Status::Healthy,
        401 | 403 => Status::ConfigError,
        429 => Status::RateLimited,
        _ => Status::Unhealthy,
    }
}
