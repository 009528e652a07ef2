//! Suspicion: an endpoint closed the connection on a whole request, and the request itself may be the
//! cause. The endpoint stays in service; only a check that began afterwards decides.
//!
//! Contract: docs/contract/balancing.md#9.3

use std::time::Instant;

/// Whether an endpoint is suspect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// When a request last made it suspect.
    since: Option<Instant>,
}

/// What a check that has ended means for a suspect endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckMeaning {
    /// The endpoint is not suspect, or no longer: nothing is counted.
    Clear,
    /// The check began before the request that made the endpoint suspect: another one is needed.
    TooEarly,
    /// The endpoint is down.
    Down,
}

impl Suspicion {
    /// A request has made the endpoint suspect.
    pub(crate) fn raise(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// A check has ended.
    pub(crate) fn on_check(&mut self, began: Instant, is_good: bool) -> CheckMeaning {
        match self.since {
            None => CheckMeaning::Clear,
            Some(since) if began < since => CheckMeaning::TooEarly,
            Some(_) => {
                self.since = None;
                if is_good {
                    CheckMeaning::Clear
                } else {
                    CheckMeaning::Down
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_check_that_began_afterwards_decides() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let table = [
            // suspect since, began, good
            (None, 5, true, CheckMeaning::Clear),
            (None, 5, false, CheckMeaning::Clear),
            (Some(5), 4, true, CheckMeaning::TooEarly),
            (Some(5), 4, false, CheckMeaning::TooEarly),
            (Some(5), 5, true, CheckMeaning::Clear),
            (Some(5), 6, false, CheckMeaning::Down),
        ];
        for (since, began, is_good, expected) in table {
            let mut suspicion = Suspicion::default();
            if let Some(since) = since {
                suspicion.raise(at(1));
                suspicion.raise(at(since));
            }
            let finding = suspicion.on_check(at(began), is_good);
            assert_eq!(finding, expected, "{since:?} {began} {is_good}");
            if expected != CheckMeaning::TooEarly {
                assert_eq!(suspicion.on_check(at(9), false), CheckMeaning::Clear);
            }
        }
    }
}
