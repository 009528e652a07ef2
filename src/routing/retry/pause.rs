//! How long an endpoint is left alone that has responded "not now".
//!
//! Contract: docs/contract/balancing.md#9.1

use std::time::Duration;

use crate::fleet::retry_after::{asked, number};

/// The longest cool-down, whatever an endpoint asks for.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The cool-down after a response with these fields: `retry-after-ms`, which is exact, before
/// `Retry-After` (seconds, or a date, one in the past being now); `default` if neither can be read.
pub(crate) fn pause(
    retry_after_ms: Option<&[u8]>,
    retry_after: Option<&[u8]>,
    default: Duration,
    unix_ms: u64,
) -> Duration {
    let exact = retry_after_ms.and_then(number).map(Duration::from_millis);
    exact
        .or_else(|| asked(retry_after?, unix_ms))
        .unwrap_or(default)
        .min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_to_pauses() {
        // 2026-04-15T10:30:00.500Z
        const NOW: u64 = 1_776_249_000_500;
        const HUGE: &str = "99999999999999999999999";
        let table: [(Option<&str>, Option<&str>, u64); 17] = [
            (None, None, 5_000),
            (None, Some("7"), 7_000),
            (None, Some(" 7 "), 7_000),
            (None, Some("0"), 0),
            (None, Some("301"), 300_000),
            (None, Some(HUGE), 300_000),
            (None, Some("-1"), 5_000),
            (None, Some("+1"), 5_000),
            (None, Some("soon"), 5_000),
            (None, Some(""), 5_000),
            (None, Some("Wed, 15 Apr 2026 10:30:10 GMT"), 9_500),
            (None, Some("Wed, 15 Apr 2026 10:29:00 GMT"), 0),
            (None, Some("Wed, 15 Apr 2026 12:29:00 GMT"), 300_000),
            (Some("250"), None, 250),
            (Some("250"), Some("7"), 250),
            (Some("x"), Some("7"), 7_000),
            (Some("1.5"), Some("soon"), 5_000),
        ];
        for (ms, after, expected) in table {
            let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
            let default = Duration::from_secs(5);
            let pause = pause(bytes(ms), bytes(after), default, NOW);
            assert_eq!(pause, Duration::from_millis(expected), "{ms:?} {after:?}");
        }
    }
}
