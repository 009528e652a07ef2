//! Reads `Retry-After` (RFC 9110, 10.2.3).

use std::time::{Duration, UNIX_EPOCH};

/// The longest time for which an endpoint that asks for it is not checked.
const CHECK_MAX: Duration = Duration::from_secs(24 * 3600);

/// The time for which an endpoint that responds to a check with this field is not checked again;
/// 30 s if the field is missing or unreadable (docs/contract/balancing.md#11).
pub(crate) fn before_next_check(value: Option<&[u8]>, unix_ms: u64) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    let asked = value.and_then(|value| asked(value, unix_ms));
    asked.unwrap_or(DEFAULT).min(CHECK_MAX)
}

/// The time that a value asks for: seconds, or what is left until a date, one in the past being now.
pub(crate) fn asked(value: &[u8], unix_ms: u64) -> Option<Duration> {
    if let Some(seconds) = number(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?.trim()).ok()?;
    let at = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(at.saturating_sub(Duration::from_millis(unix_ms)))
}

/// A number without a sign; one that is too large for the type is the largest of the type.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let parsed = std::str::from_utf8(digits).ok()?.parse();
    Some(parsed.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_waits_for_seconds_or_until_a_date() {
        let table = [
            (None, 30),
            (Some("soon"), 30),
            (Some("+7"), 30),
            (Some("7"), 7),
            (Some(" 0 "), 0),
            (Some("999999999"), 86400),
            (Some("99999999999999999999999"), 86400),
            (Some("Tue, 14 Nov 2023 22:13:30 GMT"), 10),
            (Some("Tue, 14 Nov 2023 22:00:00 GMT"), 0),
            (Some("Tuesday, 14-Nov-23 22:13:30 GMT"), 10),
            (Some("Tue Nov 14 22:13:30 2023"), 10),
            (Some("Tue, 14 Nov 2023 22:13:30 CET"), 30),
        ];
        for (value, secs) in table {
            let wait = before_next_check(value.map(str::as_bytes), 1_700_000_000_000);
            assert_eq!(wait, Duration::from_secs(secs), "{value:?}");
        }
    }
}
