//! Tables of single buckets, then properties and races of the shared ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate::new(NonZeroU32::new(per_minute).unwrap(), burst)
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(number))
}

fn admission(admitted: bool, remaining: u32, full_ms: u64, retry_ms: u64) -> Admission {
    Admission {
        admitted,
        remaining,
        full_at: Duration::from_millis(full_ms),
        retry_after: Duration::from_millis(retry_ms),
    }
}

/// Surface 10.4: limit 6, burst 6 gives 5, 4, 3, 2, 1, 0, then a refusal with `Retry-After` 10.
#[test]
fn a_bucket_counts_down_and_refills() {
    let bucket = Bucket::new(rate(6, 6));
    let table = [
        (0, admission(true, 5, 10_000, 0)),
        (0, admission(true, 4, 20_000, 0)),
        (0, admission(true, 3, 30_000, 0)),
        (1_000, admission(true, 2, 39_000, 0)),
        (1_000, admission(true, 1, 49_000, 0)),
        (2_000, admission(true, 0, 58_000, 8_000)),
        (2_000, admission(false, 0, 58_000, 8_000)),
        (9_999, admission(false, 0, 50_001, 1)),
        (10_000, admission(true, 0, 60_000, 10_000)),
        (10_000, admission(false, 0, 60_000, 10_000)),
        // Full again, and not fuller.
        (500_000, admission(true, 5, 10_000, 0)),
    ];
    for (row, (ms, expected)) in table.into_iter().enumerate() {
        assert_eq!(bucket.take(ms * MS), expected, "row {row}");
    }
}

/// Surface 10.2: `60` with burst 5 admits 5 at once and then one each second.
#[test]
fn burst_then_rate() {
    let bucket = Bucket::new(rate(60, 5));
    let admitted: Vec<_> = (0..10_000)
        .filter(|ms| bucket.take(ms * MS).admitted)
        .collect();
    let mut expected = vec![0, 1, 2, 3, 4];
    expected.extend((1..10).map(|second| second * 1_000));
    assert_eq!(admitted, expected);
}

#[test]
fn odd_limits() {
    // Nothing ever, though the limit is on.
    let none = Bucket::new(rate(1_000, 0));
    for now in [0, SECOND, 1_000 * SECOND] {
        let refused = Admission {
            full_at: Duration::ZERO,
            ..admission(false, 0, 0, 60_000)
        };
        assert_eq!(none.take(now), refused);
        assert_eq!(none.peek(now), refused);
    }
    let huge = Bucket::new(rate(u32::MAX, u32::MAX));
    assert_eq!(huge.take(0).remaining, u32::MAX - 1);
    let slow = Bucket::new(rate(1, u32::MAX));
    assert!(slow.take(0).admitted && slow.take(Nanos::MAX).admitted);
    // No time, and all time.
    let one = Bucket::new(rate(60, 1));
    assert!(one.take(0).admitted);
    assert!(!one.take(0).admitted);
    assert!(one.take(Nanos::MAX).admitted);
    assert!(!one.take(Nanos::MAX).admitted);
    // Another core's clock may be a little behind.
    assert!(!one.take(5).admitted);
}

#[test]
fn peek_takes_nothing_and_give_back_undoes() {
    let bucket = Bucket::new(rate(60, 2));
    assert_eq!(bucket.peek(0), admission(true, 2, 0, 0));
    assert_eq!(bucket.take(0), admission(true, 1, 1_000, 0));
    assert_eq!(bucket.peek(0), admission(true, 1, 1_000, 0));
    bucket.give_back();
    assert_eq!(bucket.peek(0), admission(true, 2, 0, 0));
    // Giving back what was not taken makes nothing.
    bucket.give_back();
    assert_eq!(bucket.peek(0), admission(true, 2, 0, 0));
    assert_eq!(bucket.take(0).remaining, 1);
    assert_eq!(bucket.take(0).remaining, 0);
    assert_eq!(bucket.peek(0), admission(false, 0, 2_000, 1_000));
}

#[test]
fn small_bursts_are_never_leased() {
    let bucket = Arc::new(Bucket::new(rate(600, 127)));
    let mut core = Leased::new(Arc::clone(&bucket), 1);
    for left in (0..127).rev() {
        assert_eq!(core.take(0).remaining, left);
        assert_eq!(bucket.peek(0).remaining, left);
    }
}

#[test]
fn leases_grow_while_spent_and_come_back_when_not() {
    let bucket = Arc::new(Bucket::new(rate(60, 6_400)));
    let mut core = Leased::new(Arc::clone(&bucket), 2);
    let out = |core: &Leased| core.peek(0).remaining - bucket.peek(0).remaining;
    let mut seen = Vec::new();
    for left in (5_000..6_400).rev() {
        assert_eq!(
            core.take(0),
            admission(true, left, (6_400 - u64::from(left)) * 1_000, 0)
        );
        seen.push(out(&core));
    }
    assert_eq!(&seen[..8], &[0, 1, 0, 3, 2, 1, 0, 7]);
    assert_eq!(
        *seen.iter().max().unwrap(),
        49,
        "half of a 64th, one of them spent"
    );
    while out(&core) == 0 {
        core.take(0);
    }
    let all = core.peek(0).remaining;
    core.tick(LEASE_LASTS.as_nanos() as Nanos - 1);
    assert!(out(&core) > 0);
    core.tick(LEASE_LASTS.as_nanos() as Nanos);
    assert_eq!((out(&core), bucket.peek(0).remaining), (0, all));
    // After a pause it starts small again.
    core.take(SECOND);
    assert_eq!(out(&core), 0);
    // And what a core holds when it goes is not lost.
    while out(&core) == 0 {
        core.take(SECOND);
    }
    let all = core.peek(SECOND).remaining;
    drop(core);
    assert_eq!(bucket.peek(SECOND).remaining, all);
}

/// The worst case: every core fills its lease, the bucket refills meanwhile, then all that
/// is left is spent at one moment.
#[test]
fn the_cores_together_exceed_the_burst_by_one_lease_at_most() {
    let burst = 6_400;
    for count in [1, 4, 50, 51, 1_000] {
        let bucket = Arc::new(Bucket::new(rate(60_000_000, burst)));
        let mut cores: Vec<_> = (0..count)
            .map(|_| Leased::new(Arc::clone(&bucket), count))
            .collect();
        for core in &mut cores {
            for _ in 0..300.min(3_200 / count) {
                core.take(0);
            }
        }
        let now = LEASE_LASTS.as_nanos() as Nanos - 1;
        assert_eq!(bucket.peek(now), admission(true, burst, 0, 0));
        let mut admitted = 0;
        for core in &mut cores {
            while core.take(now).admitted {
                admitted += 1;
            }
        }
        let above = admitted - burst;
        assert!(above <= burst / LEASE_PART, "{above} with {count} cores");
        assert_eq!(above > 0, count <= 50, "{above} with {count} cores");
    }
}

#[test]
fn the_last_tokens_are_not_locked_away() {
    let bucket = Arc::new(Bucket::new(rate(60, 6_400)));
    let mut cores: Vec<_> = (0..4)
        .map(|_| Leased::new(Arc::clone(&bucket), 4))
        .collect();
    let mut admitted = 0;
    while cores[0].take(0).admitted {
        admitted += 1;
    }
    assert_eq!(admitted, 6_400);
    assert!(!cores[1].take(0).admitted);
    for second in 1..100 {
        let core = &mut cores[second as usize % 4];
        assert!(core.take(second * SECOND).admitted, "{second}");
        assert!(!core.take(second * SECOND).admitted, "{second}");
    }
}

#[test]
fn clients_are_kept_apart_and_mapped_addresses_are_not() {
    let limiter = Arc::new(KeyedLimiter::<IpAddr>::new(rate(60, 1), 2));
    let mut cores = [
        KeyedShard::new(Arc::clone(&limiter)),
        KeyedShard::new(Arc::clone(&limiter)),
    ];
    let v4 = Ipv4Addr::new(203, 0, 113, 9);
    assert!(cores[0].take(v4.into(), 0).admitted);
    // The other core sees the same bucket, whatever the address is written as.
    assert!(!cores[1].take(v4.to_ipv6_mapped().into(), 0).admitted);
    assert!(!cores[1].peek(v4.into(), 0).admitted);
    assert!(cores[1].take(Ipv6Addr::LOCALHOST.into(), 0).admitted);
    assert_eq!(limiter.len(), 2);
}

#[test]
fn idle_clients_are_forgotten_by_every_core() {
    let limiter = Arc::new(KeyedLimiter::new(rate(1, 1), 2));
    let mut cores = [
        KeyedShard::new(Arc::clone(&limiter)),
        KeyedShard::new(Arc::clone(&limiter)),
    ];
    let forgotten = FORGOTTEN_AFTER.as_nanos() as Nanos;
    assert!(cores[0].take(client(1), 0).admitted);
    assert!(!cores[1].take(client(1), 10).admitted); // A refused request is a request.
    assert!(cores[0].take(client(2), forgotten).admitted);
    assert_eq!(limiter.sweep(forgotten), 0);
    assert_eq!(limiter.sweep(forgotten + 10), 1);
    assert_eq!(limiter.len(), 1);
    // New and full, once, though both cores had cached the old one.
    let later = forgotten + 20;
    assert!(cores[1].peek(client(1), later).admitted);
    assert!(cores[0].take(client(1), later).admitted);
    assert!(!cores[1].take(client(1), later).admitted);
    assert!(!cores[0].take(client(1), later).admitted);
}

#[test]
fn the_table_is_bounded_and_the_oldest_go() {
    let bound = 1_600;
    let limiter = Arc::new(KeyedLimiter::with_bound(rate(1, 5), 1, bound));
    let mut core = KeyedShard::new(Arc::clone(&limiter));
    for number in 0..10_000 {
        core.take(client(number), Nanos::from(number));
        assert!(core.take(client(0), Nanos::from(number)).remaining < 5);
        assert!(limiter.len() <= bound);
    }
    assert!(limiter.len() > bound * 9 / 10, "{}", limiter.len());
    // The newest and the one that was always there are known, the oldest is new again.
    assert_eq!(core.peek(client(9_999), 10_000).remaining, 4);
    assert_eq!(core.peek(client(0), 10_000).remaining, 0);
    assert_eq!(core.peek(client(1), 10_000).remaining, 5);
}

#[test]
fn an_epoch_counts_nanoseconds() {
    let start = Instant::now();
    let epoch = Epoch::new(start);
    assert_eq!(epoch.nanos(start), 0);
    assert_eq!(epoch.nanos(start + Duration::from_micros(3)), 3_000);
    assert_eq!(Epoch::new(start + Duration::from_secs(1)).nanos(start), 0);
}

/// An ideal bucket in plain arithmetic.
struct Ideal {
    level: f64,
    at: Nanos,
    burst: f64,
    per_nano: f64,
}

impl Ideal {
    fn new(per_minute: u32, burst: u32) -> Self {
        let per_nano = f64::from(per_minute) / 60e9;
        Self {
            level: f64::from(burst),
            at: 0,
            burst: f64::from(burst),
            per_nano,
        }
    }

    fn take(&mut self, now: Nanos) -> bool {
        self.level = (self.level + (now - self.at) as f64 * self.per_nano).min(self.burst);
        self.at = now;
        let admitted = self.level >= 1.0;
        if admitted {
            self.level -= 1.0;
        }
        admitted
    }
}

proptest! {
    /// Random arrivals on random cores: never more than the limit and one lease allow in any
    /// stretch from the start, and at least 98 % of what one ideal bucket would admit.
    #[test]
    fn cores_together_are_one_bucket(
        per_minute in 1_u32..100_000,
        burst in 1_u32..5_000,
        cores in 1_usize..9,
        // How many requests come in the time of one token, in 1/16.
        pressure in 1_u64..200,
        arrivals in prop::collection::vec((any::<u8>(), 0_u64..32), 200..3_000),
    ) {
        let bucket = Arc::new(Bucket::new(rate(per_minute, burst)));
        let mut sides: Vec<_> =
            (0..cores).map(|_| Leased::new(Arc::clone(&bucket), cores)).collect();
        let mut ideal = Ideal::new(per_minute, burst);
        let (mut now, mut admitted, mut right) = (0, 0_u64, 0_u64);
        let token = 60 * SECOND / u64::from(per_minute);
        let lease = u64::from((burst / LEASE_PART).max(1));
        for (core, gap) in arrivals {
            now += token * gap / pressure;
            let core = usize::from(core) % cores;
            admitted += u64::from(sides[core].take(now).admitted);
            right += u64::from(ideal.take(now));
            let most = u64::from(burst) + now / token + lease;
            prop_assert!(admitted <= most, "{admitted} > {most} at {now}");
        }
        prop_assert!(admitted * 100 + 100 >= right * 98, "{admitted} of {right}");
        prop_assert!(admitted <= right + lease, "{admitted} of {right}");
    }

    /// Whatever is taken and given back, no bucket ever holds more than its burst or less than 0,
    /// and what it says agrees with what it does.
    #[test]
    fn what_is_said_is_what_is_done(
        per_minute in 1_u32..1_000_000,
        burst in 0_u32..300,
        steps in prop::collection::vec((0_u8..4, 0_u64..90_000_000_000), 1..200),
    ) {
        let bucket = Bucket::new(rate(per_minute, burst));
        let mut now = 0;
        for (what, gap) in steps {
            let before = bucket.peek(now);
            prop_assert!(before.remaining <= burst);
            match what {
                0 => now += gap,
                1 => {
                    let after = bucket.take(now);
                    prop_assert_eq!(after.admitted, before.admitted);
                    let taken = u32::from(before.admitted);
                    prop_assert_eq!(after.remaining, before.remaining - taken);
                }
                2 => bucket.give_back(),
                _ if burst > 0 => {
                    let token = before.retry_after.as_nanos() as Nanos;
                    prop_assert!(token == 0 || !bucket.peek(now + token - 1).admitted);
                    prop_assert!(bucket.peek(now + token).admitted);
                    let full = before.full_at.as_nanos() as Nanos;
                    prop_assert_eq!(bucket.peek(now + full).full_at, Duration::ZERO);
                    prop_assert_eq!(bucket.peek(now + full).remaining, burst);
                }
                _ => prop_assert!(!before.admitted),
            }
        }
    }
}

const THREADS: usize = 4;

fn on_threads(work: impl Fn(usize) + Sync) {
    let gate = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (gate, work) = (&gate, &work);
            scope.spawn(move || {
                gate.wait();
                work(number);
            });
        }
    });
}

#[test]
fn threads_never_share_a_token() {
    let burst = 50_000;
    for cores in [THREADS, 1_000_000] {
        let bucket = Arc::new(Bucket::new(rate(1, burst)));
        let admitted = AtomicU32::new(0);
        on_threads(|_| {
            let mut core = Leased::new(Arc::clone(&bucket), cores);
            while core.take(0).admitted {
                admitted.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(admitted.into_inner(), burst, "{cores}");
    }
}

#[test]
fn threads_that_give_back_lose_nothing() {
    let bucket = Arc::new(Bucket::new(rate(1, 1_000)));
    on_threads(|_| {
        let mut core = Leased::new(Arc::clone(&bucket), THREADS);
        for _ in 0..20_000 {
            if core.take(0).admitted {
                core.give_back();
            }
        }
    });
    assert_eq!(bucket.peek(0).remaining, 1_000);
}

#[test]
fn threads_agree_on_the_clients_while_the_table_is_swept() {
    let limiter = Arc::new(KeyedLimiter::new(rate(1, 100), THREADS));
    let admitted = AtomicU32::new(0);
    on_threads(|number| {
        let mut core = KeyedShard::new(Arc::clone(&limiter));
        // There are more clients than a core's cache holds.
        for _ in 0..3 {
            for address in 0..2_000 {
                for _ in 0..10 {
                    let taken = core.take(client(address), 0).admitted;
                    admitted.fetch_add(u32::from(taken), Ordering::Relaxed);
                }
            }
            if number == 0 {
                // No client has been idle, so none is forgotten: the count below would be higher.
                limiter.sweep(SECOND);
            }
        }
    });
    assert_eq!(admitted.into_inner(), 2_000 * 100);
    assert_eq!(limiter.len(), 2_000);
}

#[test]
fn threads_meet_in_one_bucket_though_buckets_are_dropped_all_the_time() {
    // One of the threads moves time on, and forgets; each client gets exactly its burst each time.
    let limiter = Arc::new(KeyedLimiter::new(rate(1, 64), THREADS));
    let forgotten = FORGOTTEN_AFTER.as_nanos() as Nanos;
    let gate = Barrier::new(THREADS);
    let (admitted, dropped) = (AtomicU32::new(0), AtomicUsize::new(0));
    on_threads(|number| {
        let mut core = KeyedShard::new(Arc::clone(&limiter));
        for round in 0..50 {
            let now = round * 2 * forgotten;
            for _ in 0..64 {
                let taken = core.take(client(7), now).admitted;
                admitted.fetch_add(u32::from(taken), Ordering::Relaxed);
            }
            gate.wait();
            if number == 0 {
                dropped.fetch_add(limiter.sweep(now + forgotten), Ordering::Relaxed);
            }
            gate.wait();
        }
    });
    assert_eq!(dropped.into_inner(), 50);
    assert_eq!(admitted.into_inner(), 50 * 64);
}
