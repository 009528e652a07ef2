//! Detects a client that takes no byte of what waits for it.
//!
//! A socket becomes writable only after a large part of its buffer was acknowledged, which takes a
//! slow client longer than any timeout. So what counts is the number of bytes that the kernel still
//! holds: while it falls, the client is slow; while it stands still, the client has stalled.
//!
//! Contract: docs/contract/surface.md#1.2 (`stall_timeout`)

use std::time::{Duration, Instant};

/// The part of the timeout after which a send is looked at for the first time whose beginning was
/// not measured.
const FIRST_LOOK: u32 = 8;

/// The state of one client's sends. Pure: times and numbers are arguments.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stall {
    timeout: Option<Duration>,
    /// When the client has last taken something; `None` while nothing waits.
    since: Option<Instant>,
    /// The bytes that the kernel held then; `None` if nobody has looked yet.
    held: Option<usize>,
}

impl Stall {
    /// Sets the timeout for the sends that follow; `None` = they may take for ever.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// A send has begun of which nobody will report that it waits.
    pub(super) fn began(&mut self, now: Instant) {
        self.since = Some(now);
        self.held = None;
    }

    /// A send waits for the client, and the kernel holds this many bytes.
    pub(super) fn waits(&mut self, held: usize, now: Instant) {
        self.since = Some(now);
        self.held = Some(held);
    }

    /// Nothing waits any more.
    pub(super) fn ended(&mut self) {
        self.since = None;
    }

    /// When to call [`Self::is_over`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (since, timeout) = (self.since?, self.timeout?);
        since.checked_add(match self.held {
            Some(_) => timeout,
            None => timeout / FIRST_LOOK,
        })
    }

    /// Whether the client has stalled; the kernel holds this many bytes now.
    pub(super) fn is_over(&mut self, held: usize, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| now < at) {
            return false;
        }
        if self.held.is_some_and(|before| held >= before) {
            return true;
        }
        self.waits(held, now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_client_is_not_a_stalled_one() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        stall.waits(100, at(0));
        assert_eq!(stall.deadline(), None, "no timeout");
        assert!(!stall.is_over(100, at(10_000)));
        stall.set_timeout(Some(Duration::from_secs(60)));
        stall.waits(100, at(0));
        assert_eq!(stall.deadline(), Some(at(60)));
        assert!(!stall.is_over(100, at(59)), "not yet");
        assert!(!stall.is_over(99, at(60)), "a byte was taken");
        assert_eq!(stall.deadline(), Some(at(120)));
        assert!(stall.is_over(99, at(120)));
        stall.ended();
        assert_eq!(stall.deadline(), None);
        assert!(!stall.is_over(99, at(1000)));
    }

    #[test]
    fn a_send_that_was_not_measured_gets_its_timeout_from_the_first_look_on() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        stall.set_timeout(Some(Duration::from_secs(8)));
        stall.began(at(0));
        assert_eq!(stall.deadline(), Some(at(1)));
        assert!(!stall.is_over(500, at(1)));
        assert!(!stall.is_over(500, at(8)));
        assert!(stall.is_over(500, at(9)));
    }
}
