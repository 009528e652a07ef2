//! Values about the system and its endpoints that several pages show.
//!
//! Contract: docs/contract/operations.md#4 (`/internal/status`)

use crate::fleet::{Endpoint, Fleet, Status};
use crate::format::base36;

use super::Inputs;
use super::stats::{EndpointCounts, RequestCounts, Tally};

/// The most violations at which security is still reported as normal.
const VIOLATIONS_NORMAL_MAX: u64 = 100;

/// The most blocked addresses at which security is still reported as normal.
const BLOCKED_IPS_NORMAL_MAX: usize = 10;

/// The most consecutive failed checks that are not reported as an issue.
const FAILED_CHECKS_NORMAL_MAX: u32 = 3;

/// The fewest requests for which the success rate is evaluated.
const RATED_REQUESTS_MIN: u64 = 11;

/// A lower success rate, in percent, is an issue.
const SUCCESS_PERCENT_MIN: u64 = 90;

/// A higher mean latency, in milliseconds, is an issue.
const MEAN_LATENCY_MS_MAX: u64 = 5000;

/// The number of endpoints with the status `healthy`.
pub(super) fn healthy(fleet: &Fleet) -> usize {
    let endpoints = fleet.endpoints.iter();
    endpoints.filter(|e| e.status == Status::Healthy).count()
}

/// The overall state of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SystemHealth {
    Critical,
    Degraded,
    Healthy,
}

impl SystemHealth {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Degraded => "degraded",
            Self::Healthy => "healthy",
        }
    }

    /// The value of `olla_system_status`.
    pub(super) const fn as_number(self) -> u64 {
        match self {
            Self::Critical => 0,
            Self::Degraded => 1,
            Self::Healthy => 2,
        }
    }

    /// The state for the shares of healthy endpoints and of recent requests that did not fail
    /// (docs/contract/observe.md#2).
    fn of(healthy: usize, total: usize, requests: &Tally) -> Self {
        let up = |percent: usize| healthy * 100 >= total * percent;
        let succeed = |percent: u64| {
            u128::from(requests.unfailed()) * 100
                >= u128::from(requests.requests) * u128::from(percent)
        };
        if total == 0 || !up(50) || !succeed(90) {
            Self::Critical
        } else if !up(80) || !succeed(95) {
            Self::Degraded
        } else {
            Self::Healthy
        }
    }
}

/// Statistics of the whole system.
#[derive(Debug)]
pub(super) struct System {
    pub(super) health: SystemHealth,
    pub(super) healthy: usize,
    pub(super) total: usize,
    pub(super) requests: RequestCounts,
    pub(super) traffic_bytes: u64,
    pub(super) active_connections: u64,
    pub(super) rate_limit_violations: u64,
    pub(super) size_violations: u64,
    pub(super) blocked_ips: usize,
}

impl System {
    pub(super) fn of(inputs: &Inputs<'_>) -> Self {
        let fleet = inputs.fleet;
        let counts = inputs.totals.system();
        let (healthy, total) = (healthy(fleet), fleet.endpoints.len());
        let judged = SystemHealth::of(healthy, total, &inputs.totals.judged(inputs.now));
        let health = match judged {
            SystemHealth::Healthy if !inputs.outages.is_empty() => SystemHealth::Degraded,
            judged => judged,
        };
        let in_flight = |endpoint: &Endpoint| u64::from(endpoint.live.in_flight());
        Self {
            health,
            healthy,
            total,
            requests: counts.requests,
            traffic_bytes: counts.endpoint_bytes,
            active_connections: fleet.endpoints.iter().map(in_flight).sum(),
            rate_limit_violations: counts.rate_limit_violations,
            size_violations: counts.size_violations,
            blocked_ips: inputs.totals.blocked_ips(inputs.now),
        }
    }

    pub(super) const fn violations(&self) -> u64 {
        self.rate_limit_violations + self.size_violations
    }

    /// Whether so many violations or blocked addresses suggest an attack.
    pub(super) const fn is_elevated(&self) -> bool {
        self.violations() > VIOLATIONS_NORMAL_MAX || self.blocked_ips > BLOCKED_IPS_NORMAL_MAX
    }
}

/// One endpoint with its counters.
pub(super) struct Seen<'a> {
    pub(super) id: String,
    pub(super) endpoint: &'a Endpoint,
    pub(super) counts: EndpointCounts,
    /// The time of the request, in milliseconds of the process's clock.
    pub(super) clock_ms: u64,
}

impl<'a> Seen<'a> {
    /// All endpoints, the highest priority first, then the healthy ones, then by name and id.
    pub(super) fn all(inputs: &Inputs<'a>) -> Vec<Self> {
        let endpoints = &inputs.fleet.endpoints;
        let ids = endpoint_ids(endpoints);
        let seen = |(endpoint, id): (&'a Endpoint, String)| Self {
            id,
            endpoint,
            clock_ms: inputs.clock_ms,
            counts: inputs
                .totals
                .endpoint(endpoint.id)
                .map_or_else(EndpointCounts::default, |totals| totals.counts),
        };
        let mut all: Vec<Self> = endpoints.iter().zip(ids).map(seen).collect();
        all.sort_by(|a, b| a.rank().cmp(&b.rank()));
        all
    }

    fn rank(&self) -> (std::cmp::Reverse<u32>, bool, &str, &str) {
        (
            std::cmp::Reverse(self.endpoint.plan.priority),
            self.endpoint.status != Status::Healthy,
            self.endpoint.name(),
            &self.id,
        )
    }

    pub(super) const fn is_unavailable(&self) -> bool {
        matches!(self.endpoint.status, Status::Offline | Status::Unhealthy)
    }

    pub(super) const fn fails_checks(&self) -> bool {
        self.endpoint.health.consecutive_failures > FAILED_CHECKS_NORMAL_MAX
    }

    pub(super) const fn fails_often(&self) -> bool {
        self.counts.tally.requests >= RATED_REQUESTS_MIN
            && self.counts.tally.unfailed() as u128 * 100
                < self.counts.tally.requests as u128 * SUCCESS_PERCENT_MIN as u128
    }

    pub(super) const fn is_slow(&self) -> bool {
        self.counts.tally.mean_ms() > MEAN_LATENCY_MS_MAX
    }
}

/// The ids of endpoints, in their order: a hash of the display URL, and `-0`, `-1`, … in the order
/// of the names where several share one URL.
pub(super) fn endpoint_ids<'a>(endpoints: &'a [Endpoint]) -> Vec<String> {
    let mut order: Vec<(usize, &Endpoint)> = endpoints.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| {
        let key = |endpoint: &'a Endpoint| (&endpoint.plan.url.display, endpoint.name());
        key(a).cmp(&key(b))
    });
    let mut ids = vec![String::new(); endpoints.len()];
    for group in order.chunk_by(|(_, a), (_, b)| a.plan.url.display == b.plan.url.display) {
        for (nth, (index, endpoint)) in group.iter().enumerate() {
            let hash = base36(u64::from(fnv1a_32(endpoint.plan.url.display.as_bytes())));
            ids[*index] = match group {
                [_] => hash,
                _ => format!("{hash}-{nth}"),
            };
        }
    }
    ids
}

fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::stats::Tally;

    #[test]
    fn the_health_follows_the_thresholds() {
        use SystemHealth::{Critical, Degraded, Healthy};
        let table = [
            // healthy, total, requests, failures
            (0, 0, 0, 0, Critical),
            (0, 1, 0, 0, Critical),
            (1, 3, 0, 0, Critical),
            (1, 2, 0, 0, Degraded),
            (3, 4, 0, 0, Degraded),
            (4, 5, 0, 0, Healthy),
            (1, 1, 100, 0, Healthy),
            (1, 1, 100, 5, Healthy),
            (1, 1, 100, 6, Degraded),
            (1, 1, 100, 10, Degraded),
            (1, 1, 100, 11, Critical),
            (1, 2, 100, 0, Degraded),
        ];
        for (healthy, total, requests, failures, expected) in table {
            let tally = Tally {
                requests,
                failures,
                ..Tally::default()
            };
            let health = SystemHealth::of(healthy, total, &tally);
            assert_eq!(health, expected, "{healthy}/{total} {failures}/{requests}");
        }
    }

    #[test]
    fn hashes_are_those_of_the_contract() {
        for (url, id) in [
            ("http://127.0.0.1:9", "duzvjl"),
            ("http://127.0.0.1:9/api", "gpo2ta"),
            ("http://127.0.0.1:9/far", "1jhonaf"),
        ] {
            assert_eq!(base36(u64::from(fnv1a_32(url.as_bytes()))), id);
        }
        assert_eq!(base36(0), "0");
        assert_eq!(base36(u64::MAX), "3w5e11264sgsf");
    }
}
