//! How often an address may send credentials that are refused: one bucket for each address, exact
//! over all cores.
//!
//! It is behind one lock, which refused requests take, and requests with a secret that was brought
//! along while any bucket is empty. The bound on addresses bounds the memory; an address that is
//! dropped has a full bucket again.
//!
//! Contract: docs/contract/access.md#10

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// The most addresses.
const ADDRESSES_MAX: usize = 100_000;

/// One attempt in the unit of [`Bucket::used`]: a limit of one a minute gives one unit back each
/// nanosecond.
const ATTEMPT: u64 = 60_000_000_000;

/// The lines about refused keys that an address may cause within [`LOG_INTERVAL`].
const LINES_MAX: u32 = 10;

/// A minute, in nanoseconds.
const LOG_INTERVAL: u64 = 60_000_000_000;

/// The buckets of all addresses.
#[derive(Debug, Default)]
pub(crate) struct RefusedKeys {
    /// No bucket is empty from this time of the process's clock on, in nanoseconds: spares live keys
    /// the lock.
    empty_until: AtomicU64,
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    by_address: FxHashMap<IpAddr, Bucket>,
    /// Addresses from the one whose bucket was begun first; what is not in the map with the same
    /// number is gone.
    order: VecDeque<(IpAddr, u64)>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Its number in the order.
    number: u64,
    /// What is taken, at the time `at`.
    used: u64,
    at: u64,
    /// When the first of the lines of this minute was written.
    lines_since: u64,
    lines: u32,
    suppressed: u64,
}

/// Whether a line about an address is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogTurn {
    /// It is, with the number of lines that were suppressed before it.
    Write(u64),
    /// It is suppressed.
    Suppress,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// `Err` has the whole seconds until there is room for another, at least 1.
    pub room: Result<(), u64>,
    /// Whether it is logged.
    pub log: LogTurn,
}

impl RefusedKeys {
    /// Counts a refused credential. `now` is a time of the process's clock in nanoseconds, `limit`
    /// the attempts a minute, 0 = no limit.
    pub(crate) fn attempt(&self, address: IpAddr, limit: u32, now: u64) -> Attempt {
        let mut addresses = lock(&self.addresses);
        let bucket = addresses.bucket(address, limit, now);
        let room = if limit == 0 {
            Ok(())
        } else {
            bucket.take(limit, now)
        };
        if limit > 0 && bucket.missing(limit) > 0 {
            let full_at = now.saturating_add(bucket.missing(limit).div_ceil(limit.into()));
            self.empty_until.fetch_max(full_at, Ordering::Relaxed);
        }
        Attempt {
            room,
            log: bucket.log(now),
        }
    }

    /// Whether a line about a request without an attempt is written.
    pub(crate) fn log(&self, address: IpAddr, limit: u32, now: u64) -> LogTurn {
        lock(&self.addresses).bucket(address, limit, now).log(now)
    }

    /// Whether no bucket has ever been empty: then nobody is blocked.
    pub(crate) fn is_quiet(&self) -> bool {
        self.empty_until.load(Ordering::Relaxed) == 0
    }

    /// The seconds until an address has room again, at least 1; `None` = it has. While no bucket is
    /// empty this is one load.
    pub(crate) fn blocked(&self, address: IpAddr, limit: u32, now: u64) -> Option<u64> {
        if limit == 0 || self.empty_until.load(Ordering::Relaxed) <= now {
            return None;
        }
        let mut addresses = lock(&self.addresses);
        let bucket = addresses.by_address.get_mut(&address)?;
        bucket.refill(limit, now);
        bucket.wait(limit)
    }
}

impl Addresses {
    fn bucket(&mut self, address: IpAddr, limit: u32, now: u64) -> &mut Bucket {
        if let Some(bucket) = self.by_address.get_mut(&address) {
            bucket.refill(limit, now);
        } else {
            while self.by_address.len() >= ADDRESSES_MAX
                && let Some((oldest, number)) = self.order.pop_front()
            {
                let is_it = |bucket: &Bucket| bucket.number == number;
                if self.by_address.get(&oldest).is_some_and(is_it) {
                    self.by_address.remove(&oldest);
                }
            }
            self.order.push_back((address, self.next));
        }
        let number = self.next;
        self.by_address.entry(address).or_insert_with(|| {
            self.next += 1;
            Bucket {
                number,
                used: 0,
                at: now,
                lines_since: now,
                lines: 0,
                suppressed: 0,
            }
        })
    }
}

impl Bucket {
    fn refill(&mut self, limit: u32, now: u64) {
        let back = now.saturating_sub(self.at).saturating_mul(limit.into());
        self.used = self.used.saturating_sub(back);
        self.at = self.at.max(now);
    }

    /// What must come back until there is room for one attempt.
    fn missing(&self, limit: u32) -> u64 {
        let capacity = u64::from(limit) * ATTEMPT;
        (self.used + ATTEMPT).saturating_sub(capacity)
    }

    /// The whole seconds until then, rounded up; `None` = there is room.
    fn wait(&self, limit: u32) -> Option<u64> {
        let missing = self.missing(limit);
        (missing > 0).then(|| {
            missing
                .div_ceil(u64::from(limit))
                .div_ceil(1_000_000_000)
                .max(1)
        })
    }

    fn take(&mut self, limit: u32, now: u64) -> Result<(), u64> {
        self.refill(limit, now);
        match self.wait(limit) {
            Some(seconds) => Err(seconds),
            None => {
                self.used += ATTEMPT;
                Ok(())
            }
        }
    }

    fn log(&mut self, now: u64) -> LogTurn {
        if now.saturating_sub(self.lines_since) >= LOG_INTERVAL {
            self.lines_since = now;
            self.lines = 0;
        }
        if self.lines >= LINES_MAX {
            self.suppressed += 1;
            return LogTurn::Suppress;
        }
        self.lines += 1;
        LogTurn::Write(std::mem::take(&mut self.suppressed))
    }
}

/// A panic while the map was locked leaves it whole.
fn lock(addresses: &Mutex<Addresses>) -> MutexGuard<'_, Addresses> {
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: u64 = 1_000_000_000;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_bucket_has_its_capacity_and_refills_at_its_rate() {
        let keys = RefusedKeys::default();
        let (one, other) = (address(1), address(2));
        let start = 5 * SECOND;
        for _ in 0..6 {
            assert_eq!(keys.blocked(one, 6, start), None);
            assert_eq!(keys.attempt(one, 6, start).room, Ok(()));
        }
        // One comes back every ten seconds.
        assert_eq!(keys.attempt(one, 6, start).room, Err(10));
        assert_eq!(keys.blocked(one, 6, start + 1), Some(10));
        assert_eq!(keys.blocked(one, 6, start + 9 * SECOND + 1), Some(1));
        assert_eq!(keys.blocked(other, 6, start + 1), None);
        assert_eq!(keys.attempt(other, 6, start).room, Ok(()));
        assert_eq!(keys.blocked(one, 6, start + 10 * SECOND), None);
        assert_eq!(keys.attempt(one, 6, start + 10 * SECOND).room, Ok(()));
        assert_eq!(keys.attempt(one, 6, start + 10 * SECOND).room, Err(10));
        // 0 is no limit.
        assert_eq!(keys.attempt(one, 0, start + 10 * SECOND).room, Ok(()));
        assert_eq!(keys.blocked(one, 0, start + 10 * SECOND), None);
    }

    #[test]
    fn ten_lines_a_minute_and_then_their_number() {
        let keys = RefusedKeys::default();
        let one = address(1);
        for _ in 0..10 {
            assert_eq!(keys.log(one, 60, 0), LogTurn::Write(0));
        }
        for _ in 0..7 {
            assert_eq!(keys.log(one, 60, 59 * SECOND), LogTurn::Suppress);
        }
        assert_eq!(keys.log(one, 60, 60 * SECOND), LogTurn::Write(7));
        assert_eq!(keys.log(one, 60, 60 * SECOND), LogTurn::Write(0));
    }

    #[test]
    fn the_addresses_are_bounded_and_the_oldest_goes() {
        let keys = RefusedKeys::default();
        let limit = 1;
        for number in 0..=ADDRESSES_MAX as u32 {
            assert_eq!(keys.attempt(address(number), limit, 0).room, Ok(()));
        }
        let addresses = lock(&keys.addresses);
        assert_eq!(addresses.by_address.len(), ADDRESSES_MAX);
        assert!(addresses.order.len() <= ADDRESSES_MAX + 1);
        drop(addresses);
        assert_eq!(keys.attempt(address(1), limit, 1).room, Err(60));
        // The first address was dropped; now the second goes for it.
        assert_eq!(keys.attempt(address(0), limit, 1).room, Ok(()));
        assert_eq!(keys.attempt(address(1), limit, 2).room, Ok(()));
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let keys = RefusedKeys::default();
        let taken: usize = std::thread::scope(|scope| {
            let keys = &keys;
            let is_taken = move |_: &u32| keys.attempt(address(1), 60, 7).room.is_ok();
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || (0..1_000).filter(is_taken).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 60);
    }
}
