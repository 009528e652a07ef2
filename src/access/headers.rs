//! The values of the headers that show limits.
//!
//! Contract: docs/contract/access.md#8.1

use std::time::{Duration, UNIX_EPOCH};

use olla_engine::h1::emit;

use super::ShownLimit;
use crate::format;

/// Headers of all limits: by the field of a limit, and by what is shown of it.
const PLAIN: [[&str; 3]; 2] = [
    [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ],
    [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ],
];
const ANTHROPIC: [[&str; 3]; 2] = [
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
    [
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
];

/// The names of these headers, which pages may read.
pub(crate) const LIMIT_HEADERS: [&str; 12] = {
    let [[a, b, c], [d, e, f]] = PLAIN;
    let [[g, h, i], [j, k, l]] = ANTHROPIC;
    [a, b, c, d, e, f, g, h, i, j, k, l]
};

/// What the client of a route expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitHeaderForm {
    /// OpenAI's names; resets are durations.
    Plain,
    /// Anthropic's names; resets are instants.
    Anthropic,
}

/// Whether a header of an endpoint speaks of limits that the gateway sets itself.
pub(crate) fn is_limit_header(name: &[u8]) -> bool {
    let first = name.first().map(u8::to_ascii_lowercase);
    matches!(first, Some(b'x' | b'a'))
        && LIMIT_HEADERS
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Writes the headers of what is shown of requests and of tokens. `unix_ms` is now.
pub(crate) fn write_limits(
    form: LimitHeaderForm,
    shown: [Option<ShownLimit>; 2],
    unix_ms: u64,
    out: &mut Vec<u8>,
) {
    let names = match form {
        LimitHeaderForm::Plain => PLAIN,
        LimitHeaderForm::Anthropic => ANTHROPIC,
    };
    for ([limit, remaining, reset], shown) in names.into_iter().zip(shown) {
        let Some(shown) = shown else { continue };
        emit::field_number(out, limit.as_bytes(), shown.limit);
        emit::field_number(out, remaining.as_bytes(), shown.left);
        out.extend_from_slice(reset.as_bytes());
        out.extend_from_slice(b": ");
        match form {
            LimitHeaderForm::Plain => write_duration(shown.reset(unix_ms), out),
            LimitHeaderForm::Anthropic => {
                let reset_ms = u64::try_from(shown.reset(unix_ms).as_millis()).unwrap_or(u64::MAX);
                let seconds = unix_ms.saturating_add(reset_ms).div_ceil(1_000);
                let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                let text = format::instant(at.unwrap_or(UNIX_EPOCH));
                out.extend_from_slice(text.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A duration as OpenAI writes it, rounded up to the millisecond: `6m0s`, `19.995s`, `250ms`.
fn write_duration(duration: Duration, out: &mut Vec<u8>) {
    const HOUR_MS: u64 = 3_600_000;
    const MINUTE_MS: u64 = 60_000;
    let ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    if (1..1_000).contains(&ms) {
        emit::decimal(out, ms);
        out.extend_from_slice(b"ms");
        return;
    }
    if ms < MINUTE_MS {
        emit::decimal(out, ms / 1_000);
        let thousandths = ms % 1_000;
        if thousandths > 0 {
            let digits = [thousandths / 100, thousandths / 10 % 10, thousandths % 10];
            out.push(b'.');
            let last = digits.iter().rposition(|digit| *digit > 0).unwrap_or(0);
            for digit in digits.iter().take(last + 1) {
                emit::decimal(out, *digit);
            }
        }
        out.push(b's');
        return;
    }
    // FullAgain seconds, so that the wait is never too short.
    let seconds = ms.div_ceil(1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    if seconds * 1_000 >= HOUR_MS {
        emit::decimal(out, hours);
        out.push(b'h');
    }
    emit::decimal(out, minutes);
    out.push(b'm');
    emit::decimal(out, seconds % 60);
    out.push(b's');
}

#[cfg(test)]
mod tests {
    use super::super::quota::FullAgain;
    use super::*;

    #[test]
    fn durations() {
        let table = [
            (0, "0s"),
            (1, "1ms"),
            (999_000_000, "999ms"),
            (999_000_001, "1s"),
            (1_000_000_000, "1s"),
            (19_995_000_000, "19.995s"),
            (19_900_000_000, "19.9s"),
            (19_050_000_000, "19.05s"),
            (20_000_000_000, "20s"),
            (59_999_999_999, "1m0s"),
            (360_000_000_000, "6m0s"),
            (360_000_000_001, "6m1s"),
            (3_599_000_000_000, "59m59s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_000, "25h1m1s"),
        ];
        for (nanos, text) in table {
            let mut out = Vec::new();
            write_duration(Duration::from_nanos(nanos), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text, "{nanos}");
        }
    }

    #[test]
    fn headers_by_form() {
        const NOW: u64 = 1_796_083_198_500;
        let shown = ShownLimit {
            limit: 60,
            left: 59,
            full: FullAgain::At(NOW + 1_001),
        };
        let table = [
            (
                LimitHeaderForm::Plain,
                "x-ratelimit-limit-tokens: 60\r\nx-ratelimit-remaining-tokens: 59\r\n\
                 x-ratelimit-reset-tokens: 1.001s\r\n",
            ),
            (
                LimitHeaderForm::Anthropic,
                "anthropic-ratelimit-tokens-limit: 60\r\n\
                 anthropic-ratelimit-tokens-remaining: 59\r\n\
                 anthropic-ratelimit-tokens-reset: 2026-12-01T00:00:00Z\r\n",
            ),
        ];
        for (form, text) in table {
            let mut out = Vec::new();
            write_limits(form, [None, Some(shown)], NOW, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
        assert!(is_limit_header(b"X-RateLimit-Reset-Tokens"));
        assert!(!is_limit_header(b"X-RateLimit-Limit"));
    }
}
