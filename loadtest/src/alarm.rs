//! Wakes epoll at an exact time. The timeout of epoll_wait(2) counts whole milliseconds, which is
//! much beside the latencies that a client measures from the moment a request was due.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::NS_PER_S;

/// A timer that makes epoll return; its event needs no response.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    set_ns: u64,
}

impl Alarm {
    /// Makes a timer with events of this `token`.
    ///
    /// # Errors
    /// What the system says about one more descriptor.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Edge-triggered, and each setting makes a new edge: it need not be read
        // (timerfd_create(2)).
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_ns: 0 })
    }

    /// Sets the time to wake at, in nanoseconds of CLOCK_MONOTONIC, above zero; a time in the past
    /// wakes at once.
    ///
    /// # Errors
    /// What the system says about the time.
    pub fn set(&mut self, at_ns: u64) -> io::Result<()> {
        if self.set_ns == at_ns {
            return Ok(());
        }
        self.set_ns = at_ns;
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: (at_ns / NS_PER_S).cast_signed(),
                tv_nsec: (at_ns % NS_PER_S).cast_signed(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{NS_PER_MS, now_ns};

    #[test]
    fn wakes_not_before_the_time_and_again_after_each_setting() {
        let mut poll = mio::Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        let mut events = mio::Events::with_capacity(4);
        for ahead_ns in [NS_PER_MS / 2, 3 * NS_PER_MS, 0] {
            let due = now_ns() + ahead_ns;
            alarm.set(due).unwrap();
            poll.poll(&mut events, None).unwrap();
            assert!(now_ns() >= due);
            assert_eq!(
                events.iter().next().map(mio::event::Event::token),
                Some(Token(7))
            );
        }
    }
}
