//! What a client and the log are told of a request that is over a rate limit.
//!
//! Contract: docs/contract/surface.md#10.1, docs/contract/surface.md#10.4

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use olla_engine::handler::Cx;

use super::Gateway;
use super::respond::seconds_until;
use crate::dialects::Error;
use crate::log::{Level, events};
use crate::shared::LimitRefusal;

/// A limit that refuses is logged once in this time; the statistics count every refusal.
const INTERVAL_MS: u64 = 60_000;

/// The key of the limits of single endpoints.
pub(super) const PER_ENDPOINT: &str = "server.rate_limits.per_endpoint";

/// The error of a request that a client's limit refuses. It names the key, so that nobody has to
/// guess which limit it was and whether somebody has set it.
pub(super) fn over_limit(refusal: &LimitRefusal) -> Error {
    let LimitRefusal {
        rule, per_minute, ..
    } = refusal;
    let (subject, key) = (rule.subject, rule.key);
    let (value, unit) = rule.unit.shown(per_minute.get());
    let origin = if per_minute.get() == rule.default {
        " by default"
    } else {
        ""
    };
    let mut error = Error::new(
        429,
        rule.kind,
        rule.code,
        format!(
            "the limit of {value} requests per {unit} for {subject} is reached; \
             {key} sets it{origin}"
        ),
    );
    error.retry_after = Some(seconds_until(refusal.retry_after));
    error
}

impl Gateway {
    /// Logs that a limit refuses requests: the first refusal of a minute, over all cores.
    pub(super) fn warn_of_limit(&self, cx: &Cx<'_>, key: &str, value: u32, client: IpAddr) {
        if !is_first(&self.common.limit_warned_ms, self.common.clock_ms(cx.now)) {
            return;
        }
        let mut log = self.log.borrow_mut();
        if let Some(mut line) = log.event(Level::Warn, events::RATE_LIMIT_REACHED, cx.unix_ms) {
            line.str("key", key)
                .num("value", value.into())
                .str("client_ip", &client.to_string());
        }
    }
}

/// Whether nobody has logged within [`INTERVAL_MS`]; 0 = nobody ever has.
fn is_first(last_ms: &AtomicU64, now_ms: u64) -> bool {
    let last = last_ms.load(Ordering::Relaxed);
    let is_due = last == 0 || now_ms.saturating_sub(last) >= INTERVAL_MS;
    let order = Ordering::Relaxed;
    is_due && last_ms.compare_exchange(last, now_ms, order, order).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_in_a_minute_is_logged() {
        let last = AtomicU64::new(0);
        let table = [
            (1, true),
            (1, false),
            (60_000, false),
            (60_001, true),
            (60_002, false),
            (120_000, false),
            (999_000, true),
        ];
        for (now, first) in table {
            assert_eq!(is_first(&last, now), first, "{now}");
        }
    }
}
