//! The pages for operators: `/internal/*`, `/version` and the dashboard, the statistics behind
//! them, and access to them.
//!
//! Pure functions from [`Inputs`] to bytes. Nothing here opens a socket, starts a thread, waits, or
//! reads a clock or a file. The files of the dashboard, in `ui`, are part of the binary; in the
//! browser they read these pages and nothing else.
//!
//! Contract: docs/contract/operations.md#1 to docs/contract/operations.md#7

pub(crate) mod access;
pub(crate) mod conditional;
pub(crate) mod dashboard;
mod endpoints;
mod feed;
mod last_error;
mod metrics;
mod models;
pub(crate) mod process;
mod ready;
mod scheduling;
pub(crate) mod stats;
mod status;
mod sticky;
mod system;
#[cfg(test)]
mod testing;
mod translators;
mod usage;
mod version;

use std::time::SystemTime;

pub(crate) use metrics::StateFacts;
pub(crate) use models::ModelFact;
pub(crate) use ready::HEALTHY;
pub(crate) use scheduling::SchedulingFacts;
pub(crate) use sticky::StickyFacts;
pub(crate) use version::{Build, Links};

use crate::access::{Access, KeySeries, LimitCounts};
use crate::dialects::responses::StoreCounts;
use crate::fleet::Fleet;
use conditional::Page;
use process::ProcessFacts;
use stats::Totals;

/// The data of the pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// The snapshot in force.
    pub fleet: &'a Fleet,
    /// The statistics since the start.
    pub totals: &'a Totals,
    /// Every reported model name, in any order.
    pub models: &'a [ModelFact<'a>],
    /// The models that were available within the last hour and are not now, and since when.
    pub outages: &'a [(&'a str, SystemTime)],
    /// The sticky sessions.
    pub sticky: StickyFacts,
    /// The responses that are kept.
    pub responses: StoreCounts,
    /// The state store.
    pub state: StateFacts,
    /// What the scheduler knows.
    pub scheduling: &'a SchedulingFacts<'a>,
    /// The process, as the operating system sees it.
    pub process: &'a ProcessFacts,
    /// This build.
    pub build: &'a Build,
    /// When the process started.
    pub started: SystemTime,
    /// The time of the request.
    pub now: SystemTime,
    /// The same time, in milliseconds of the process's clock.
    pub clock_ms: u64,
    /// Sessions of the dashboard.
    pub sessions: usize,
    /// The keys of the token issuer; `None` = there is none.
    pub issuer: Option<IssuerFacts>,
    /// Whether the process is shutting down.
    pub draining: bool,
    /// Bytes of requests that are held.
    pub held_bytes: u64,
    /// Keys, policies and their settings.
    pub access: &'a Access,
    /// What is counted of single keys.
    pub key_series: &'a KeySeries,
    /// The refusals by limits of keys.
    pub limited: &'a LimitCounts,
    /// Names of tokens that have counters.
    pub token_names: usize,
    /// Whether the newest version of the keys file is in force.
    pub keys_file_ok: bool,
}

/// The keys of the token issuer, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IssuerFacts {
    /// Whether the last fetch succeeded.
    pub is_up: bool,
    /// The keys in force.
    pub keys: usize,
    /// When the last fetch succeeded, in seconds since 1970; 0 = never.
    pub last_success_s: u64,
    /// Fetches that succeeded.
    pub ok: u64,
    /// Fetches that failed.
    pub failed: u64,
}

/// The pages. All are read-only and support only `GET` and `HEAD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// `/internal/health`; with its own rate limit (docs/contract/surface.md#10.1).
    Health,
    /// `/internal/ready`.
    Ready,
    /// `/internal/status`.
    Status,
    /// `/internal/status/endpoints`.
    Endpoints,
    /// `/internal/status/models`.
    Models,
    /// `/internal/stats/models`.
    Usage,
    /// `/internal/stats/sticky`.
    Sticky,
    /// `/internal/stats/translators`.
    Translators,
    /// `/internal/stats/requests`: the last requests.
    Requests,
    /// `/internal/stats/latency`: quantiles by endpoint and by model.
    Latency,
    /// `/internal/process`.
    Process,
    /// `/internal/metrics`.
    Metrics,
    /// `/version`.
    Version,
}

impl Route {
    /// Every page and its path.
    pub(crate) const ALL: [(&'static str, Self); 13] = [
        ("/internal/health", Self::Health),
        ("/internal/ready", Self::Ready),
        ("/internal/status", Self::Status),
        ("/internal/status/endpoints", Self::Endpoints),
        ("/internal/status/models", Self::Models),
        ("/internal/stats/models", Self::Usage),
        ("/internal/stats/sticky", Self::Sticky),
        ("/internal/stats/translators", Self::Translators),
        ("/internal/stats/requests", Self::Requests),
        ("/internal/stats/latency", Self::Latency),
        ("/internal/process", Self::Process),
        ("/internal/metrics", Self::Metrics),
        ("/version", Self::Version),
    ];

    /// The page of exactly this path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let page = Self::ALL.iter().find(|(known, _)| *known == path);
        page.map(|(_, route)| *route)
    }

    /// Whether the page shows statistics of the cores, which are then collected first.
    pub(crate) const fn shows_figures(self) -> bool {
        !matches!(
            self,
            Self::Health
                | Self::Ready
                | Self::Models
                | Self::Sticky
                | Self::Process
                | Self::Version
        )
    }

    /// Whether the page shows the queue or models in memory.
    pub(crate) const fn shows_scheduling(self) -> bool {
        matches!(
            self,
            Self::Status | Self::Endpoints | Self::Metrics | Self::Latency
        )
    }

    /// The part of a query that the page depends on, in a form of its own: requests whose queries
    /// differ in nothing else share one rendering.
    pub(crate) fn relevant(self, query: &str) -> String {
        let pairs: &[&str] = match self {
            Self::Models => &["detailed=true", "group=family"],
            Self::Usage => &["include_endpoints=true", "include_summary=true"],
            _ => &[],
        };
        let found = pairs.iter().copied().filter(|pair| asks(query, pair));
        found.collect::<Vec<_>>().join("&")
    }

    /// Renders the page; `query` is without its question mark.
    pub(crate) fn page(self, query: &str, inputs: &Inputs<'_>) -> Page {
        match self {
            Self::Health => ready::health(),
            Self::Ready => ready::page(inputs),
            Self::Status => status::page(inputs),
            Self::Endpoints => endpoints::page(inputs),
            Self::Models => models::page(query, inputs),
            Self::Usage => usage::page(query, inputs),
            Self::Sticky => sticky::page(&inputs.sticky),
            Self::Translators => translators::page(inputs),
            Self::Requests => feed::requests(inputs),
            Self::Latency => feed::latency(inputs),
            Self::Process => process::page(inputs),
            Self::Metrics => metrics::page(inputs),
            Self::Version => version::page(inputs.build),
        }
    }
}

/// Whether a query contains exactly this pair, in this spelling.
fn asks(query: &str, pair: &str) -> bool {
    query.split('&').any(|part| part == pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact() {
        assert_eq!(Route::of("/internal/status"), Some(Route::Status));
        assert_eq!(Route::of("/version"), Some(Route::Version));
        for path in [
            "/internal/status/",
            "/internal/Status",
            "/internal/status/x",
            "/internal",
            "/internal/nosuch",
            "/version/",
            "",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_page_depends_on_its_own_pairs_alone() {
        for (route, query, relevant) in [
            (Route::Status, "detailed=true&x=1", ""),
            (
                Route::Models,
                "x=1&group=family&detailed=true&detailed=true",
                "detailed=true&group=family",
            ),
            (Route::Models, "detailed=1", ""),
            (
                Route::Usage,
                "include_summary=true&t=123",
                "include_summary=true",
            ),
            (Route::Process, "t=123", ""),
        ] {
            assert_eq!(route.relevant(query), relevant, "{query}");
        }
    }

    #[test]
    fn query_pairs_are_literal() {
        assert!(asks("a=1&detailed=true", "detailed=true"));
        assert!(!asks(
            "detailed=1&detailed=TRUE&xdetailed=true",
            "detailed=true"
        ));
    }
}
