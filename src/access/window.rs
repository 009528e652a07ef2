//! Tokens of a calendar day or month in UTC, exact over all cores, and the calendar itself.
//!
//! Contract: docs/contract/access.md#4.4, docs/contract/access.md#7.3

use std::sync::atomic::Ordering;

use portable_atomic::AtomicU128;

const DAY_MS: u64 = 86_400_000;

/// The number of a window: days since 1970-01-01, or months since year 0.
pub(crate) type WindowNumber = u32;

/// The two lengths of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

impl Span {
    /// The name in the state store and in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The window of a moment in milliseconds since 1970.
    pub(crate) fn number(self, unix_ms: u64) -> WindowNumber {
        let day = unix_ms / DAY_MS;
        let number = match self {
            Self::Day => day,
            Self::Month => month_of(day),
        };
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The first moment of a window in milliseconds since 1970.
    pub(crate) fn start_ms(self, number: WindowNumber) -> u64 {
        let number = u64::from(number);
        let day = match self {
            Self::Day => number,
            Self::Month => first_day_of(number),
        };
        day.saturating_mul(DAY_MS)
    }

    /// The first moment after a window in milliseconds since 1970.
    pub(crate) fn end_ms(self, number: WindowNumber) -> u64 {
        self.start_ms(number.saturating_add(1))
    }
}

/// The months since year 0 up to a day, by the algorithm of Howard Hinnant, "chrono-compatible
/// low-level date algorithms", for days since 1970.
fn month_of(day: u64) -> u64 {
    // Days since 0000-03-01: a leap day is then the last of its year.
    let day = day.saturating_add(719_468);
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // March is 0.
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + month + 2
}

/// The first day of a month that [`month_of`] numbers, in days since 1970.
fn first_day_of(month: u64) -> u64 {
    let since_march = month.saturating_sub(2);
    let (year, month) = (since_march / 12, since_march % 12);
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5;
    let day = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    day.saturating_sub(719_468)
}

/// What was used in the current window. It never goes back to an earlier one.
#[derive(Debug, Default)]
pub(crate) struct QuotaWindow(AtomicU128);

/// The state of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    /// The window.
    pub(crate) number: WindowNumber,
    /// Tokens used in it, reservations included.
    pub(crate) used: u64,
}

impl Use {
    const fn of(word: u128) -> Self {
        Self {
            number: word as u32,
            used: (word >> 64) as u64,
        }
    }

    const fn word(self) -> u128 {
        (self.used as u128) << 64 | self.number as u128
    }

    /// The same when the clock says that it is in window `now`: a new one begins empty, and a clock
    /// that was set back leaves the current one in force.
    const fn at(self, now: WindowNumber) -> Self {
        if now > self.number {
            return Self {
                number: now,
                used: 0,
            };
        }
        self
    }
}

impl QuotaWindow {
    /// Takes `tokens`, at most the whole quota, if they fit. The result has the window that they
    /// were taken from.
    ///
    /// # Errors
    /// They do not fit; nothing was taken.
    pub(crate) fn take(&self, tokens: u64, limit: u64, now: WindowNumber) -> Result<Use, Use> {
        let tokens = tokens.min(limit);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let state = Use::of(word).at(now);
            let used = state.used.saturating_add(tokens);
            if used > limit {
                return Err(state);
            }
            let new = Use { used, ..state };
            match self.swap(word, new) {
                Ok(()) => return Ok(new),
                Err(newer) => word = newer,
            }
        }
    }

    /// Takes more, or gives back, for a request that was admitted in window `number`: one that is
    /// past stays as it is.
    pub(crate) fn correct(&self, more: i64, number: WindowNumber) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let state = Use::of(word).at(number);
            if state.number != number {
                return;
            }
            let used = state.used.saturating_add_signed(more);
            match self.swap(word, Use { used, ..state }) {
                Ok(()) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Its state.
    pub(crate) fn state(&self, now: WindowNumber) -> Use {
        Use::of(self.0.load(Ordering::Relaxed)).at(now)
    }

    /// Goes on from what was stored before the start.
    pub(crate) fn restore(&self, stored: Use) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let state = Use::of(word).at(stored.number);
            if state.number != stored.number {
                return;
            }
            let used = state.used.saturating_add(stored.used);
            match self.swap(word, Use { used, ..state }) {
                Ok(()) => return,
                Err(newer) => word = newer,
            }
        }
    }

    fn swap(&self, word: u128, new: Use) -> Result<(), u128> {
        // Nothing else is published with the word.
        let order = Ordering::Relaxed;
        self.0
            .compare_exchange_weak(word, new.word(), order, order)
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    fn unix_ms(text: &str) -> u64 {
        let moment = OffsetDateTime::parse(text, &Rfc3339).expect("a moment");
        u64::try_from(moment.unix_timestamp()).expect("after 1970") * 1_000
    }

    #[test]
    fn windows_are_those_of_the_calendar() {
        let table = [
            // a moment; first day, month; then their ends
            (
                "1970-01-01T00:00:00Z",
                ["1970-01-01", "1970-01-01", "1970-01-02", "1970-02-01"],
            ),
            (
                "2024-02-29T23:59:59Z",
                ["2024-02-29", "2024-02-01", "2024-03-01", "2024-03-01"],
            ),
            (
                "2026-12-31T12:00:00Z",
                ["2026-12-31", "2026-12-01", "2027-01-01", "2027-01-01"],
            ),
            (
                "2100-02-28T00:00:00Z",
                ["2100-02-28", "2100-02-01", "2100-03-01", "2100-03-01"],
            ),
        ];
        for (moment, expected) in table {
            let now = unix_ms(moment);
            let (day, month) = (Span::Day.number(now), Span::Month.number(now));
            let shown = [
                Span::Day.start_ms(day),
                Span::Month.start_ms(month),
                Span::Day.end_ms(day),
                Span::Month.end_ms(month),
            ];
            let expected = expected.map(|day| unix_ms(&format!("{day}T00:00:00Z")));
            assert_eq!(shown, expected, "{moment}");
        }
    }

    proptest! {
        #[test]
        fn months_agree_with_a_library(day in 0_u64..100_000) {
            let seconds = i64::try_from(day * DAY_MS / 1_000).unwrap();
            let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap().date();
            let year = u32::try_from(date.year()).unwrap();
            let expected = year * 12 + u32::from(u8::from(date.month())) - 1;
            let month = Span::Month.number(day * DAY_MS);
            prop_assert_eq!(month, expected);
            let first = Span::Month.start_ms(month) / DAY_MS;
            prop_assert_eq!(day - first, u64::from(date.day()) - 1);
        }
    }

    #[test]
    fn a_quota_is_used_up_and_begins_anew() {
        let window = QuotaWindow::default();
        assert_eq!(window.take(600, 1_000, 7).map(|u| u.used), Ok(600));
        assert_eq!(window.take(401, 1_000, 7).map_err(|u| u.used), Err(600));
        window.correct(-584, 7);
        assert_eq!(window.state(7).used, 16);
        assert_eq!(window.take(990, 1_000, 7).map_err(|u| u.used), Err(16));
        // More than the whole quota passes when nothing is used, and leaves a debt.
        assert_eq!(window.take(5_000, 1_000, 8).map(|u| u.used), Ok(1_000));
        window.correct(4_000, 8);
        assert_eq!(window.take(1, 1_000, 8).map_err(|u| u.used), Err(5_000));
        // A lowered limit counts what was used.
        assert_eq!(window.take(1, 10_000, 8).map(|u| u.used), Ok(5_001));
        assert!(window.take(1, 2_000, 8).is_err());
    }

    #[test]
    fn windows_never_go_back() {
        let window = QuotaWindow::default();
        assert!(window.take(400, 1_000, 8).is_ok());
        // The clock was set back over midnight.
        let back = window.take(100, 1_000, 7).expect("it fits");
        assert_eq!((back.number, back.used), (8, 500));
        // A request of yesterday ends today.
        window.correct(-100, 7);
        assert_eq!(window.state(8).used, 500);
        // Without a reservation the first count of a window begins it.
        window.correct(16, 9);
        assert_eq!(window.state(8).used, 16);
        assert_eq!(
            window.state(10),
            Use {
                number: 10,
                used: 0
            }
        );
    }

    #[test]
    fn what_was_stored_counts_if_its_window_is_still_there() {
        let window = QuotaWindow::default();
        window.correct(5, 9);
        window.restore(Use {
            number: 9,
            used: 100,
        });
        assert_eq!(window.state(9).used, 105);
        window.restore(Use {
            number: 8,
            used: 100,
        });
        assert_eq!(window.state(9).used, 105);
    }
}
