//! The last errors of endpoints: what checks, listings and live traffic note.
//!
//! Contract: docs/contract/observe.md#1

use std::time::SystemTime;

use super::member::FleetMember;
use super::state::ControlState;
use crate::config::BaseUrl;
use crate::fleet::health::CheckResult;
use crate::fleet::{Failed, Failure};
use crate::providers::{self, UpstreamTarget};
use crate::shared::Trouble;

impl ControlState {
    /// Notes a failure of live traffic.
    pub(super) fn note_trouble(&self, member: &FleetMember, trouble: Trouble) {
        let failure = Failure {
            kind: trouble.kind,
            message: trouble.sentence.to_owned(),
            url: url_of(&member.plan().url, &trouble.path),
            status: trouble.status,
        };
        member.note(Failed::Traffic, Err(failure));
        self.publish_soon();
    }
}

impl FleetMember {
    /// Notes the outcome of a check, a listing or live traffic.
    pub(super) fn note(&self, what: Failed, outcome: Result<(), Failure>) {
        let mut errors = self.errors.borrow_mut();
        match outcome {
            Ok(()) => errors.succeeded(what),
            Err(failure) => errors.failed(what, failure, SystemTime::now()),
        }
    }

    /// Notes the outcome of a check that counts.
    pub(super) fn note_check(&self, result: CheckResult) {
        self.note(Failed::Check, self.judged(result));
    }

    /// The failure that the result of a check is.
    pub(super) fn judged(&self, result: CheckResult) -> Result<(), Failure> {
        let target = providers::health_url(&self.plan(), &self.profile()).ok();
        let url = target.as_ref().map_or_else(String::new, display);
        judged(result, url)
    }
}

fn judged(result: CheckResult, url: String) -> Result<(), Failure> {
    let cause = result.cause();
    let Some(kind) = cause.error else {
        return Ok(());
    };
    let message = match result {
        CheckResult::Response {
            is_loading: true, ..
        } => "is loading its model".to_owned(),
        CheckResult::Response { code, .. } => of_status(code, &url),
        CheckResult::Failed(fault) => fault.as_str().to_owned(),
    };
    Err(Failure {
        kind,
        message,
        url,
        status: cause.status_code,
    })
}

/// What a status that is not good means.
pub(super) fn of_status(status: u16, url: &str) -> String {
    match status {
        401 | 403 => format!("responded with HTTP status {status}; check the endpoint's auth"),
        404 => format!("responded with HTTP status 404; the path of {url} is probably wrong"),
        _ => format!("responded with HTTP status {status}"),
    }
}

/// The URL of a target for display, without its query.
pub(super) fn display(target: &UpstreamTarget) -> String {
    let path = target.path_and_query.split('?').next().unwrap_or("");
    format!("{}://{}{path}", target.scheme.as_str(), target.host_header)
}

/// The URL of a path at an endpoint for display.
fn url_of(base: &BaseUrl, path: &str) -> String {
    format!("{}://{}{path}", base.scheme.as_str(), base.host_header)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use olla_engine::client::ClientFault;

    use super::*;

    #[test]
    fn checks_say_why() {
        let code = |code, is_loading| CheckResult::Response {
            code,
            retry_after: Duration::ZERO,
            is_loading,
        };
        let failed = CheckResult::Failed;
        let table = [
            (code(204, false), None),
            (
                code(503, true),
                Some(("loading", "is loading its model", Some(503))),
            ),
            (
                code(403, false),
                Some((
                    "auth",
                    "responded with HTTP status 403; check the endpoint's auth",
                    Some(403),
                )),
            ),
            (
                code(404, false),
                Some((
                    "not_found",
                    "responded with HTTP status 404; the path of http://h/up is probably wrong",
                    Some(404),
                )),
            ),
            (
                code(500, false),
                Some(("status", "responded with HTTP status 500", Some(500))),
            ),
            (
                failed(ClientFault::TimedOut),
                Some(("timeout", "timed out", None)),
            ),
        ];
        for (result, want) in table {
            let got = judged(result, "http://h/up".to_owned()).err();
            let got = got
                .as_ref()
                .map(|got| (got.kind.as_str(), got.message.as_str(), got.status));
            assert_eq!(got, want, "{result:?}");
        }
    }

    #[test]
    fn urls_are_shown_without_their_query() {
        let base = BaseUrl::parse("http://h:8000/base").unwrap();
        let target = providers::target(&base, "/health?key=secret").unwrap();
        assert_eq!(display(&target), "http://h:8000/base/health");
        assert_eq!(url_of(&base, "/v1/x"), "http://h:8000/v1/x");
    }
}
