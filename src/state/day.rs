//! Days in UTC, as numbers and as text.

use std::fmt;

use time::{Date, Month};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The Julian day of 1970-01-01.
const EPOCH_JULIAN: i32 = 2_440_588;

/// A calendar day in UTC, counted from 1970-01-01. Its text is `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(i32);

impl Day {
    /// 1970-01-01.
    #[cfg(test)]
    pub(crate) const EPOCH: Self = Self(0);

    /// The day of a time in Unix milliseconds.
    pub(crate) fn of_unix_ms(unix_ms: u64) -> Self {
        Self(i32::try_from(unix_ms / DAY_MS).unwrap_or(i32::MAX))
    }

    /// The day of exactly this text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let number = |part: &str| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        };
        let year = number(text.get(..4)?)?;
        let month = u8::try_from(number(text.get(5..7)?)?).ok()?;
        let day = u8::try_from(number(text.get(8..)?)?).ok()?;
        let month = Month::try_from(month).ok()?;
        let date = Date::from_calendar_date(year.into(), month, day).ok()?;
        Some(Self(date.to_julian_day() - EPOCH_JULIAN))
    }

    /// Its first moment in Unix milliseconds.
    pub(crate) fn start_ms(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0) * DAY_MS
    }

    /// The day this many days earlier.
    pub(crate) fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub_unsigned(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = Date::from_julian_day(self.0.saturating_add(EPOCH_JULIAN));
        // A clock beyond the year 9999 is broken.
        let date = date.unwrap_or(Date::MAX);
        let (year, month, day) = date.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_as_text() {
        for (unix_ms, text) in [
            (0, "1970-01-01"),
            (DAY_MS - 1, "1970-01-01"),
            (DAY_MS, "1970-01-02"),
            (951_782_400_000, "2000-02-29"),
            (1_796_083_200_000, "2026-12-01"),
        ] {
            let day = Day::of_unix_ms(unix_ms);
            assert_eq!(day.to_string(), text);
            assert_eq!(Day::parse(text), Some(day));
        }
        assert_eq!(
            Day::parse("2026-03-01").unwrap().minus(1).to_string(),
            "2026-02-28"
        );
        assert_eq!(Day::of_unix_ms(u64::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn other_texts_are_no_days() {
        for text in [
            "",
            "2026-13-01",
            "2026-02-30",
            "2026-2-3",
            "26-02-03",
            "2026/02/03",
            "2026-02-03 ",
            "+026-02-03",
            "2026-02-0é",
            "today",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
