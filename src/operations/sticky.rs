//! `/internal/stats/sticky`.
//!
//! Contract: docs/contract/operations.md#4, docs/contract/balancing.md#8

use serde::Serialize;

use super::conditional::{Page, no_store};

/// Statistics of sticky sessions; counts are since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StickyFacts {
    /// Whether there are sticky sessions; if not, nothing else is shown.
    pub enabled: bool,
    /// Current sessions.
    pub active_sessions: u64,
    /// New entries.
    pub insertions: u64,
    /// Requests that went to the endpoint of their session.
    pub hits: u64,
    /// Requests with a key and without a session.
    pub misses: u64,
    /// Entries removed because of the limit, their age, or an endpoint that went down.
    pub evictions: u64,
    /// Requests that moved their session to another endpoint.
    pub repins: u64,
    /// Limit of sessions; 0 = no limit.
    pub max_sessions: u64,
    /// Seconds without a request after which a session ends; 0 = never.
    pub idle_ttl_seconds: u64,
}

#[derive(Serialize)]
struct Sticky {
    enabled: bool,
    active_sessions: u64,
    insertions: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
    repins: u64,
    max_sessions: u64,
    idle_ttl_seconds: u64,
}

#[derive(Serialize)]
struct Off {
    enabled: bool,
}

pub(super) fn page(facts: &StickyFacts) -> Page {
    if !facts.enabled {
        return no_store(&Off { enabled: false });
    }
    no_store(&Sticky {
        enabled: true,
        active_sessions: facts.active_sessions,
        insertions: facts.insertions,
        hits: facts.hits,
        misses: facts.misses,
        evictions: facts.evictions,
        repins: facts.repins,
        max_sessions: facts.max_sessions,
        idle_ttl_seconds: facts.idle_ttl_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_and_on() {
        let mut facts = StickyFacts {
            hits: 5,
            misses: 1,
            insertions: 2,
            active_sessions: 3,
            evictions: 4,
            repins: 6,
            max_sessions: 10_000,
            idle_ttl_seconds: 600,
            enabled: false,
        };
        assert_eq!(page(&facts).body, br#"{"enabled":false}"#);
        facts.enabled = true;
        assert_eq!(
            String::from_utf8(page(&facts).body).unwrap(),
            r#"{"enabled":true,"active_sessions":3,"insertions":2,"hits":5,"misses":1,"evictions":4,"repins":6,"max_sessions":10000,"idle_ttl_seconds":600}"#
        );
    }
}
