//! Failover on a status: whether a response is given up for another endpoint.
//!
//! Everything here is a function of values: of the status, of the request, and of what became of
//! its earlier attempts. [`budget`] bounds the repeats of all requests together, [`pause`] reads
//! how long an endpoint is to be left alone.
//!
//! Contract: docs/contract/balancing.md#9.1

pub(crate) mod budget;
pub(crate) mod pause;

use super::model_path::is_model_path;
use crate::config::RetryPlan;

/// Responses that one request may give up if `proxy.retry.max_attempts` does not say.
const GIVEN_UP_MAX: usize = 3;

/// What a status may be repeated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestKind<'r> {
    /// Its method.
    pub method: &'r [u8],
    /// Its path.
    pub path: &'r [u8],
    /// Whether it came by a route of the Messages API.
    pub is_messages: bool,
}

impl RequestKind<'_> {
    /// Whether the request has no effect but a response that the client waits for, so that it may
    /// run twice.
    fn is_repeatable(self) -> bool {
        match self.method {
            b"GET" | b"HEAD" | b"OPTIONS" => true,
            b"POST" => self.is_messages || is_model_path(self.path),
            _ => false,
        }
    }
}

/// Whether the status of a response says "not now" for a request. A 502 or 504 may come from
/// something in between while the endpoint works, so it does not for requests that change things.
pub(crate) fn says_not_now(plan: &RetryPlan, status: u16, request: RequestKind<'_>) -> bool {
    plan.on_status.contains(status) && (!matches!(status, 502 | 504) || request.is_repeatable())
}

/// What became of a request so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// Endpoints tried, the one that has just responded included.
    pub tried: usize,
    /// Responses given up.
    pub given_up: usize,
    /// Endpoints that closed the connection on the whole request.
    pub dropped: usize,
    /// Whether a candidate is left that may take the request now.
    pub has_other: bool,
}

/// Whether a response that says "not now" may be given up, apart from the budget.
pub(crate) fn may_give_up(plan: &RetryPlan, attempts: Attempts) -> bool {
    let Attempts {
        tried,
        given_up,
        dropped,
        has_other,
    } = attempts;
    let is_within = match plan.max_attempts {
        Some(max) => tried < max.get(),
        None => given_up < GIVEN_UP_MAX,
    };
    // A request that has closed one connection is sent to one more endpoint only, which was this.
    plan.enabled && plan.on_connection_failure && has_other && dropped == 0 && is_within
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
    use crate::config::StatusSet;

    fn plan() -> RetryPlan {
        RetryPlan {
            enabled: true,
            on_connection_failure: true,
            max_attempts: None,
            on_status: StatusSet::of(&[429, 502, 503, 504, 529]),
            cooldown: Duration::from_secs(5),
            budget_percent: 20,
        }
    }

    #[test]
    fn which_status_counts_for_which_request() {
        let any: &[u16] = &[429, 502, 503, 504, 529];
        let certain: &[u16] = &[429, 503, 529];
        let table: [(&str, &str, bool, &[u16]); 12] = [
            ("POST", "/v1/chat/completions", false, any),
            ("POST", "/api/show", false, any),
            ("POST", "/v1/messages", true, any),
            ("GET", "/x", false, any),
            ("HEAD", "/x", false, any),
            ("OPTIONS", "/x", false, any),
            ("POST", "/x", false, certain),
            ("POST", "/v1/chat/completions/", false, any),
            ("POST", "/completion", false, certain),
            ("PUT", "/v1/chat/completions", false, certain),
            ("DELETE", "/v1/messages", true, certain),
            ("get", "/x", false, certain),
        ];
        for (method, path, is_messages, counts) in table {
            let request = RequestKind {
                method: method.as_bytes(),
                path: path.as_bytes(),
                is_messages,
            };
            for status in 100..600 {
                assert_eq!(
                    says_not_now(&plan(), status, request),
                    counts.contains(&status),
                    "{method} {path} {status}"
                );
            }
        }
    }

    #[test]
    fn how_often_a_request_gives_up() {
        let first = Attempts {
            tried: 1,
            given_up: 0,
            dropped: 0,
            has_other: true,
        };
        let max = |max| RetryPlan {
            max_attempts: NonZeroUsize::new(max),
            ..plan()
        };
        let table = [
            ("the first", plan(), first, true),
            (
                "the third",
                plan(),
                Attempts {
                    tried: 3,
                    given_up: 2,
                    ..first
                },
                true,
            ),
            (
                "the fourth",
                plan(),
                Attempts {
                    tried: 4,
                    given_up: 3,
                    ..first
                },
                false,
            ),
            (
                "nobody left",
                plan(),
                Attempts {
                    has_other: false,
                    ..first
                },
                false,
            ),
            (
                "after a drop",
                plan(),
                Attempts {
                    tried: 2,
                    dropped: 1,
                    ..first
                },
                false,
            ),
            ("one attempt", max(1), first, false),
            ("two attempts", max(2), first, true),
            (
                "two attempts made",
                max(2),
                Attempts {
                    tried: 2,
                    given_up: 1,
                    ..first
                },
                false,
            ),
            (
                "more than three",
                max(9),
                Attempts {
                    tried: 5,
                    given_up: 4,
                    ..first
                },
                true,
            ),
            (
                "off",
                RetryPlan {
                    enabled: false,
                    ..plan()
                },
                first,
                false,
            ),
            (
                "one attempt only",
                RetryPlan {
                    on_connection_failure: false,
                    ..plan()
                },
                first,
                false,
            ),
        ];
        for (what, plan, attempts, gives_up) in table {
            assert_eq!(may_give_up(&plan, attempts), gives_up, "{what}");
        }
    }
}
