//! When an endpoint is read, and what a page of metrics leads to. Pure: the time is a value, in
//! milliseconds of the process's clock.

use std::time::Duration;

use olla_engine::client::{ClientFault, ClientResponse};

use crate::providers::readings::{EngineRequests, PageSource, parse_page};

/// An endpoint to which no request was sent for this time is not asked for its models in memory.
const UNUSED_MS: u64 = 10 * 60 * 1000;

/// The shortest time between two readings of the models in memory that a first byte asks for.
const WANTED_GAP_MS: u64 = 100;

/// The time after which a page of metrics that was given up is tried again
/// (docs/contract/scheduling.md#11).
pub(super) const GIVEN_UP_MS: u64 = 5 * 60 * 1000;

/// The bounds of the interval at which the endpoints are looked through.
const TICK_MIN: Duration = Duration::from_millis(100);
const TICK_MAX: Duration = Duration::from_secs(1);

/// The intervals of the configuration; `None` = never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) memory: Option<Duration>,
    pub(super) page: Option<Duration>,
}

impl Intervals {
    /// The interval at which the endpoints are looked through: a quarter of the shorter of both, so
    /// that each is kept to within a quarter. `None` = never.
    pub(super) fn tick(self) -> Option<Duration> {
        let shortest = self.memory.into_iter().chain(self.page).min()?;
        Some((shortest / 4).clamp(TICK_MIN, TICK_MAX))
    }
}

/// What decides when the list of models in memory is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MemoryFacts {
    /// The interval, less the tolerance; `None` = never.
    pub(super) interval_ms: Option<u64>,
    /// Models that the endpoint lists.
    pub(super) models: usize,
    /// When a request was last sent to it.
    pub(super) used_ms: Option<u64>,
    /// When the last reading began.
    pub(super) began_ms: Option<u64>,
    /// A listing or a first byte asks for a reading.
    pub(super) is_wanted: bool,
    /// When a model leaves the memory, as the last reading said.
    pub(super) expires_ms: Option<u64>,
}

impl MemoryFacts {
    /// Whether the list is read now.
    pub(super) fn is_due(self, now_ms: u64) -> bool {
        let Some(interval_ms) = self.interval_ms else {
            return false;
        };
        let is_past = |gap_ms| {
            let began_ms = self.began_ms;
            began_ms.is_none_or(|began_ms| now_ms >= began_ms.saturating_add(gap_ms))
        };
        if self.is_wanted && is_past(WANTED_GAP_MS) {
            return true;
        }
        if self.expires_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            return true;
        }
        let until_ms = self.used_ms.map(|at_ms| at_ms.saturating_add(UNUSED_MS));
        self.models > 1
            && until_ms.is_some_and(|until_ms| now_ms <= until_ms)
            && is_past(interval_ms)
    }
}

/// What decides when the page of metrics is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PageFacts {
    /// The interval, less the tolerance; `None` = never.
    pub(super) interval_ms: Option<u64>,
    /// Requests of this gateway in the endpoint.
    pub(super) running: u32,
    /// When the last reading began.
    pub(super) began_ms: Option<u64>,
    /// The page was given up until then.
    pub(super) given_up_until_ms: Option<u64>,
}

impl PageFacts {
    /// Whether the page is read now.
    pub(super) fn is_due(self, now_ms: u64) -> bool {
        let Some(interval_ms) = self.interval_ms else {
            return false;
        };
        let began_ms = self.began_ms;
        self.running > 0
            && began_ms.is_none_or(|began_ms| now_ms >= began_ms.saturating_add(interval_ms))
            && self.given_up_until_ms.is_none_or(|until| now_ms >= until)
    }
}

/// What a page of metrics leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PageOutcome {
    /// The requests in the endpoint.
    Read(EngineRequests),
    /// The endpoint is not there now, which is what health checks are for.
    Away,
    /// The server has no such page.
    Absent(u16),
    /// The page is of no use, for this reason.
    Useless(String),
}

/// What a response, or that there is none, leads to.
pub(super) fn outcome_of(
    source: &PageSource,
    response: Result<ClientResponse, ClientFault>,
) -> PageOutcome {
    let response = match response {
        Ok(response) => response,
        Err(fault @ (ClientFault::TimedOut | ClientFault::TooLong | ClientFault::Malformed)) => {
            return PageOutcome::Useless(fault.as_str().to_owned());
        }
        Err(_) => return PageOutcome::Away,
    };
    match response.status {
        200 => match parse_page(source, &response.body) {
            Ok(requests) => PageOutcome::Read(requests),
            Err(fault) => PageOutcome::Useless(fault.to_string()),
        },
        // llama.cpp without --metrics responds with 501, as a router with 400.
        status @ (400 | 404 | 405 | 410 | 501) => PageOutcome::Absent(status),
        // A server that starts, and a proxy before one that is away.
        429 | 502..=504 => PageOutcome::Away,
        status => PageOutcome::Useless(format!("HTTP status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use olla_engine::exchange::ConnectFault;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn endpoints_are_looked_through_four_times_in_an_interval() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let table = [
            (ms(5000), ms(1000), ms(250)),
            (ms(5000), None, ms(1000)),
            (ms(300), ms(60_000), ms(100)),
            (None, ms(2000), ms(500)),
            (None, None, None),
        ];
        for (memory, page, expected) in table {
            assert_eq!(Intervals { memory, page }.tick(), expected);
        }
    }

    #[test]
    fn models_in_memory_are_read_while_there_is_a_choice_and_use() {
        let used = MemoryFacts {
            interval_ms: Some(5000),
            models: 2,
            used_ms: Some(10_000),
            began_ms: Some(20_000),
            is_wanted: false,
            expires_ms: None,
        };
        let table = [
            ("too early", used, 24_999, false),
            ("the interval is over", used, 25_000, true),
            ("the last minute", used, 10_000 + 10 * MINUTE_MS, true),
            ("unused", used, 10_001 + 10 * MINUTE_MS, false),
            (
                "never used",
                MemoryFacts {
                    used_ms: None,
                    ..used
                },
                25_000,
                false,
            ),
            (
                "one model",
                MemoryFacts { models: 1, ..used },
                25_000,
                false,
            ),
            (
                "for the first time",
                MemoryFacts {
                    began_ms: None,
                    ..used
                },
                10_000,
                true,
            ),
            (
                "never, by the configuration",
                MemoryFacts {
                    interval_ms: None,
                    is_wanted: true,
                    expires_ms: Some(1),
                    ..used
                },
                25_000,
                false,
            ),
        ];
        for (name, facts, now_ms, expected) in table {
            assert_eq!(facts.is_due(now_ms), expected, "{name}");
        }
    }

    #[test]
    fn a_first_byte_a_listing_and_an_end_of_warmth_ask_at_once() {
        let idle = MemoryFacts {
            interval_ms: Some(5000),
            models: 1,
            began_ms: Some(20_000),
            ..MemoryFacts::default()
        };
        let wanted = MemoryFacts {
            is_wanted: true,
            ..idle
        };
        assert!(!wanted.is_due(20_099), "readings have a distance");
        assert!(wanted.is_due(20_100));
        let expiring = MemoryFacts {
            expires_ms: Some(90 * MINUTE_MS),
            ..idle
        };
        assert!(!expiring.is_due(90 * MINUTE_MS - 1));
        assert!(expiring.is_due(90 * MINUTE_MS));
    }

    #[test]
    fn pages_are_read_while_requests_run() {
        let busy = PageFacts {
            interval_ms: Some(1000),
            running: 1,
            began_ms: Some(5000),
            given_up_until_ms: None,
        };
        let table = [
            (busy, 5999, false),
            (busy, 6000, true),
            (PageFacts { running: 0, ..busy }, 6000, false),
            (
                PageFacts {
                    interval_ms: None,
                    ..busy
                },
                6000,
                false,
            ),
            (
                PageFacts {
                    given_up_until_ms: Some(9000),
                    ..busy
                },
                8999,
                false,
            ),
            (
                PageFacts {
                    given_up_until_ms: Some(9000),
                    ..busy
                },
                9000,
                true,
            ),
            (
                PageFacts {
                    began_ms: None,
                    ..busy
                },
                1,
                true,
            ),
        ];
        for (facts, now_ms, expected) in table {
            assert_eq!(facts.is_due(now_ms), expected, "{facts:?} {now_ms}");
        }
    }

    #[test]
    fn a_page_of_no_use_is_told_from_an_endpoint_that_is_away() {
        let source = PageSource {
            path: "/metrics".to_owned(),
            running: vec!["r".to_owned()],
            waiting: vec!["w".to_owned()],
        };
        let response = |status, body: &str| {
            Ok(ClientResponse {
                status,
                fields: Vec::new(),
                body: body.as_bytes().to_vec(),
            })
        };
        let useless = |reason: &str| PageOutcome::Useless(reason.to_owned());
        let table = [
            (
                response(200, "r 2\nw 1\n"),
                PageOutcome::Read(EngineRequests {
                    running: 2,
                    waiting: 1,
                }),
            ),
            (
                response(200, "<html>r 2\nw 1"),
                useless("the response is an HTML page"),
            ),
            (
                response(200, "r 2\n"),
                useless("the page lacks the metrics of running or waiting requests"),
            ),
            (response(404, ""), PageOutcome::Absent(404)),
            (response(501, "r 2\nw 1\n"), PageOutcome::Absent(501)),
            (response(401, ""), useless("HTTP status 401")),
            (response(500, ""), useless("HTTP status 500")),
            (response(503, ""), PageOutcome::Away),
            (Err(ClientFault::TimedOut), useless("timed out")),
            (Err(ClientFault::TooLong), useless("response too long")),
            (Err(ClientFault::Malformed), useless("not an HTTP response")),
            (Err(ClientFault::Reset), PageOutcome::Away),
            (Err(ClientFault::Closed), PageOutcome::Away),
            (
                Err(ClientFault::Connect(ConnectFault::Refused)),
                PageOutcome::Away,
            ),
        ];
        for (response, expected) in table {
            assert_eq!(outcome_of(&source, response), expected);
        }
    }
}
