//! How fast a request's body has to arrive: the longest pause in it, and the bytes that each full
//! stretch of time must bring.
//!
//! Contract: docs/contract/surface.md#1.2

use std::time::{Duration, Instant};

use crate::handler::{Limits, Refusal};
use crate::limits::BODY_STRETCH_UNBOUNDED;

/// The pace of one body. Pure: every time is an argument.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pause_max: Option<Duration>,
    pause_by: Option<Instant>,
    stretch: Duration,
    /// When the current stretch ends; `None` if no rate is required.
    stretch_by: Option<Instant>,
    /// Bytes that a stretch must bring.
    stretch_bytes_min: u64,
    /// Bytes of the current stretch.
    stretch_bytes: u64,
}

impl Pace {
    /// A body of which nothing has arrived yet.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let stretch = limits.body_pause_max.unwrap_or(BODY_STRETCH_UNBOUNDED);
        let stretch_ms = u64::try_from(stretch.as_millis()).unwrap_or(u64::MAX);
        let mut pace = Self {
            pause_max: limits.body_pause_max,
            pause_by: None,
            stretch,
            stretch_by: None,
            stretch_bytes_min: limits.body_rate_min.saturating_mul(stretch_ms) / 1000,
            stretch_bytes: 0,
        };
        pace.resume(now);
        pace
    }

    /// Starts again: until now, the gateway itself did not read.
    pub(super) fn resume(&mut self, now: Instant) {
        self.pause_by = self.pause_max.and_then(|max| now.checked_add(max));
        self.begin_stretch(now);
    }

    /// Bytes have arrived.
    pub(super) fn arrived(&mut self, bytes: usize, now: Instant) {
        self.pause_by = self.pause_max.and_then(|max| now.checked_add(max));
        if let Some(end) = self.stretch_by
            && now >= end
        {
            // A stretch begins where the last one ended, or now if that is long past.
            let next = end.checked_add(self.stretch);
            let is_past = next.is_some_and(|next| now >= next);
            self.begin_stretch(if is_past { now } else { end });
        }
        self.stretch_bytes = self.stretch_bytes.saturating_add(bytes as u64);
    }

    /// When the body will be too slow if nothing more arrives, and what it is refused with then.
    pub(super) fn due(&self) -> Option<(Instant, Refusal)> {
        let is_enough = self.stretch_bytes >= self.stretch_bytes_min;
        let rate_by = match self.stretch_by {
            // The next stretch would bring nothing.
            Some(end) if is_enough => end.checked_add(self.stretch),
            end => end,
        };
        match (self.pause_by, rate_by) {
            (Some(pause), Some(rate)) if rate < pause => Some((rate, Refusal::BodyTooSlow)),
            (Some(pause), _) => Some((pause, Refusal::BodyPaused)),
            (None, rate) => rate.map(|rate| (rate, Refusal::BodyTooSlow)),
        }
    }

    fn begin_stretch(&mut self, at: Instant) {
        self.stretch_bytes = 0;
        self.stretch_by = if self.stretch_bytes_min == 0 {
            None
        } else {
            at.checked_add(self.stretch)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces at their milliseconds; how the body ends if nothing follows.
    fn end(pause_ms: u64, rate_min: u64, pieces: &[(u64, usize)]) -> Option<(u64, Refusal)> {
        let start = Instant::now();
        let limits = Limits {
            body_pause_max: (pause_ms > 0).then(|| Duration::from_millis(pause_ms)),
            body_rate_min: rate_min,
            ..Limits::default()
        };
        let mut pace = Pace::new(&limits, start);
        let ms = |at: Instant| u64::try_from((at - start).as_millis()).unwrap();
        for (at, bytes) in pieces {
            let due = pace.due().map(|(at, refusal)| (ms(at), refusal));
            if due.is_some_and(|(due, _)| due <= *at) {
                return due;
            }
            pace.arrived(*bytes, start + Duration::from_millis(*at));
        }
        pace.due().map(|(at, refusal)| (ms(at), refusal))
    }

    #[test]
    fn pauses_and_rates_are_bounded_and_the_whole_is_not() {
        use Refusal::{BodyPaused, BodyTooSlow};
        // Steady for a hundred times the pause.
        let steady: Vec<_> = (1..=250).map(|number| (number * 400, 1000)).collect();
        let drip: Vec<_> = (1..=250).map(|number| (number * 900, 1)).collect();
        // Pause, minimum rate, pieces, the expected end.
        type Row<'r> = (u64, u64, &'r [(u64, usize)], Option<(u64, Refusal)>);
        let rows: [Row<'_>; 9] = [
            (1000, 500, &steady, Some((101_000, BodyPaused))),
            (1000, 500, &[], Some((1000, BodyPaused))),
            (1000, 500, &[(500, 500)], Some((1500, BodyPaused))),
            (1000, 500, &[(500, 499)], Some((1000, BodyTooSlow))),
            (1000, 500, &drip, Some((1000, BodyTooSlow))),
            (1000, 0, &drip, Some((226_000, BodyPaused))),
            // Without a limit of the pause, a stretch is 30 s.
            (0, 500, &[(1000, 15_000)], Some((60_000, BodyTooSlow))),
            (0, 500, &[(1000, 14_999)], Some((30_000, BodyTooSlow))),
            (0, 0, &[(1000, 1)], None),
        ];
        for (pause, rate, pieces, want) in rows {
            let first = pieces.first();
            assert_eq!(end(pause, rate, pieces), want, "{pause} {rate} {first:?}");
        }
    }

    #[test]
    fn a_wait_of_the_gateway_s_own_is_no_pause() {
        let start = Instant::now();
        let mut pace = Pace::new(&Limits::default(), start);
        let later = start + Duration::from_secs(5);
        pace.resume(later);
        let (at, _) = pace.due().unwrap();
        assert_eq!(at - later, Duration::from_secs(30));
    }
}
