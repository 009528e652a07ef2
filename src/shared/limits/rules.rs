//! The kinds of rate limits, one row each, in the order in which a request meets them.

use crate::config::{
    GLOBAL_REQUESTS_PER_MINUTE, HEALTH_REQUESTS_PER_MINUTE, PAGES_PER_SECOND,
    PER_IP_REQUESTS_PER_MINUTE, RateLimitsPlan,
};
use crate::routing::route::Limit;

/// One kind of rate limit.
#[derive(Debug)]
pub(crate) struct LimitRule {
    /// The routes that it applies to.
    pub(super) route: Limit,
    /// What has a bucket of its own.
    pub(super) counted_by: CountedBy,
    /// The key that sets it, in the message of a refusal and in the log.
    pub(crate) key: &'static str,
    /// The unit of the key.
    pub(crate) unit: LimitUnit,
    /// The default of the key in requests per minute.
    pub(crate) default: u32,
    /// Requests per minute; 0 = no limit.
    pub(super) per_minute: fn(&RateLimitsPlan) -> u32,
    /// Requests that may arrive at once.
    pub(super) burst: fn(&RateLimitsPlan) -> u32,
    /// The response headers that show its bucket, if any do.
    pub(super) headers: Option<&'static HeaderNames>,
    /// `error.type` of a refusal.
    pub(crate) kind: &'static str,
    /// `error.code` of a refusal.
    pub(crate) code: &'static str,
    /// What the limit is for, in the message of a refusal.
    pub(crate) subject: &'static str,
}

/// The unit of a limit's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitUnit {
    /// Requests per minute.
    Minute,
    /// Requests per second.
    Second,
}

impl LimitUnit {
    /// The value of the key and the name of its time, for a limit per minute.
    pub(crate) const fn shown(self, per_minute: u32) -> (u32, &'static str) {
        match self {
            Self::Minute => (per_minute, "minute"),
            Self::Second => (per_minute / 60, "second"),
        }
    }
}

/// What has a bucket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountedBy {
    /// The gateway: one bucket for all requests.
    Gateway,
    /// Each client address; of IPv6 each network of 64 bits.
    Address,
}

/// The names of the headers that show a bucket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderNames {
    /// Requests per minute.
    pub(crate) limit: &'static str,
    /// Whole tokens left.
    pub(crate) remaining: &'static str,
    /// Unix time in seconds at which the bucket is full.
    pub(crate) reset: &'static str,
}

/// docs/contract/surface.md#10.4
const X_RATE_LIMIT: HeaderNames = HeaderNames {
    limit: "X-RateLimit-Limit",
    remaining: "X-RateLimit-Remaining",
    reset: "X-RateLimit-Reset",
};

/// docs/contract/surface.md#10.1
pub(super) static RULES: [LimitRule; 4] = [
    LimitRule {
        route: Limit::Proxied,
        counted_by: CountedBy::Gateway,
        key: "server.rate_limits.global_requests_per_minute",
        unit: LimitUnit::Minute,
        default: GLOBAL_REQUESTS_PER_MINUTE,
        per_minute: |plan| plan.global_requests_per_minute,
        burst: |plan| plan.burst_size,
        headers: None,
        kind: "rate_limit_exceeded",
        code: "RATE_LIMIT_EXCEEDED",
        subject: "all clients together",
    },
    LimitRule {
        route: Limit::Proxied,
        counted_by: CountedBy::Address,
        key: "server.rate_limits.per_ip_requests_per_minute",
        unit: LimitUnit::Minute,
        default: PER_IP_REQUESTS_PER_MINUTE,
        per_minute: |plan| plan.per_ip_requests_per_minute,
        burst: |plan| plan.burst_size,
        headers: Some(&X_RATE_LIMIT),
        kind: "rate_limit_exceeded",
        code: "RATE_LIMIT_EXCEEDED",
        subject: "one client address",
    },
    LimitRule {
        route: Limit::Health,
        counted_by: CountedBy::Address,
        key: "server.rate_limits.health_requests_per_minute",
        unit: LimitUnit::Minute,
        default: HEALTH_REQUESTS_PER_MINUTE,
        per_minute: |plan| plan.health_requests_per_minute,
        burst: |plan| plan.burst_size,
        headers: Some(&X_RATE_LIMIT),
        kind: "rate_limit_exceeded",
        code: "RATE_LIMIT_EXCEEDED",
        subject: "one client address",
    },
    LimitRule {
        route: Limit::Pages,
        counted_by: CountedBy::Address,
        key: "server.rate_limits.pages_per_second",
        unit: LimitUnit::Second,
        default: PAGES_PER_SECOND * 60,
        per_minute: |plan| plan.pages_per_second.saturating_mul(60),
        burst: |plan| plan.pages_per_second.saturating_mul(2),
        headers: None,
        kind: "rate_limit_exceeded",
        code: "RATE_LIMIT_EXCEEDED",
        subject: "pages and listings of one client address",
    },
];
