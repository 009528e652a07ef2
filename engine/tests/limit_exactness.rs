//! How exact the rate limits are over cores: admissions in virtual time against one ideal bucket.
//! `cargo test --test limit_exactness -- --nocapture` prints the table.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use fastrand::Rng;
use olla_engine::limit::{Bucket, KeyedLimiter, KeyedShard, LEASE_PART, Leased, Nanos, Rate};

const SECOND: Nanos = 1_000_000_000;
/// Cores call `tick` this often.
const TICK: Nanos = SECOND / 20;

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate::new(NonZeroU32::new(per_minute).unwrap(), burst)
}

fn client(number: usize) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number as u32).into()
}

/// One bucket in plain arithmetic.
#[derive(Clone)]
struct Ideal {
    rate: (f64, f64),
    level: f64,
    at: Nanos,
}

impl Ideal {
    fn new(per_minute: u32, burst: u32) -> Self {
        let (per_nano, burst) = (f64::from(per_minute) / 60e9, f64::from(burst));
        Self {
            rate: (per_nano, burst),
            level: burst,
            at: 0,
        }
    }

    fn take(&mut self, now: Nanos) -> bool {
        let (per_nano, burst) = self.rate;
        self.level = (self.level + (now - self.at) as f64 * per_nano).min(burst);
        self.at = now;
        let admitted = self.level >= 1.0;
        self.level -= f64::from(u8::from(admitted));
        admitted
    }
}

/// Which limit is on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Global,
    PerClient,
}

/// One core's side of the limit.
enum Core {
    Global(Leased),
    PerClient(KeyedShard<IpAddr>),
}

impl Core {
    fn admits(&mut self, client: IpAddr, now: Nanos) -> bool {
        match self {
            Self::Global(tokens) => tokens.take(now).admitted,
            Self::PerClient(tokens) => tokens.take(client, now).admitted,
        }
    }

    fn tick(&mut self, now: Nanos) {
        match self {
            Self::Global(tokens) => tokens.tick(now),
            Self::PerClient(tokens) => tokens.tick(now),
        }
    }
}

struct Case {
    on: On,
    per_minute: u32,
    burst: u32,
    cores: usize,
    clients: usize,
}

/// Runs a minute of random arrivals, three times as many as the limit allows: admitted, ideal.
fn run(case: &Case, rng: &mut Rng) -> (u64, u64) {
    let rate = rate(case.per_minute, case.burst);
    let bucket = Arc::new(Bucket::new(rate));
    let limiter = Arc::new(KeyedLimiter::new(rate, case.cores));
    let core = || match case.on {
        On::Global => Core::Global(Leased::new(Arc::clone(&bucket), case.cores)),
        On::PerClient => Core::PerClient(KeyedShard::new(Arc::clone(&limiter))),
    };
    let mut cores: Vec<_> = (0..case.cores).map(|_| core()).collect();
    let buckets = if case.on == On::Global {
        1
    } else {
        case.clients
    };
    let mut ideal = vec![Ideal::new(case.per_minute, case.burst); buckets];
    let gap = 60 * SECOND / u64::from(case.per_minute) / 3 / buckets as u64;

    let (mut now, mut ticked, mut admitted, mut right) = (0, 0, 0, 0);
    while now < 60 * SECOND {
        now += rng.usize(..2 * gap as usize) as Nanos;
        if now - ticked >= TICK {
            cores.iter_mut().for_each(|core| core.tick(now));
            ticked = now;
        }
        let number = rng.usize(..case.clients);
        let core = rng.usize(..case.cores);
        admitted += u64::from(cores[core].admits(client(number), now));
        right += u64::from(ideal[number % buckets].take(now));
    }
    (admitted, right)
}

#[test]
fn exact_over_cores() {
    let mut rng = Rng::with_seed(0x0dd_ba11);
    println!("on         limit/min  burst  cores  clients  admitted     ideal   off by");
    for (per_minute, burst) in [(600, 50), (300_000, 30_000)] {
        for on in [On::Global, On::PerClient] {
            for cores in [1, 2, 8] {
                for clients in [1, 50] {
                    if per_minute > 600 && on == On::PerClient && clients > 1 {
                        continue; // The same buckets, only slower to run.
                    }
                    check(
                        &Case {
                            on,
                            per_minute,
                            burst,
                            cores,
                            clients,
                        },
                        &mut rng,
                    );
                }
            }
        }
    }
}

fn check(case: &Case, rng: &mut Rng) {
    let (admitted, ideal) = run(case, rng);
    let off = (admitted as f64 / ideal as f64 - 1.0) * 100.0;
    println!(
        "{:<10} {:>9} {:>6} {:>6} {:>8} {admitted:>9} {ideal:>9} {off:>7.3}%",
        format!("{:?}", case.on),
        case.per_minute,
        case.burst,
        case.cores,
        case.clients,
    );
    let buckets = if case.on == On::Global {
        1
    } else {
        case.clients as u64
    };
    let lease = u64::from((case.burst / LEASE_PART).max(1));
    assert!(
        admitted <= ideal + lease * buckets,
        "more than one lease above the limit"
    );
    assert!(off.abs() <= 2.0, "off by {off} %");
    if case.burst / LEASE_PART / (case.cores as u32) < 2 {
        assert_eq!(admitted, ideal, "without leases it is exact");
    }
}

/// A client alone on one of eight cores, though the others have asked before: the whole limit.
#[test]
fn a_lone_client_gets_the_whole_limit() {
    let (per_minute, burst, count) = (60_000, 64_000, 8);
    let bucket = Arc::new(Bucket::new(rate(per_minute, burst)));
    let mut cores: Vec<_> = (0..count)
        .map(|_| Leased::new(Arc::clone(&bucket), count))
        .collect();
    for core in &mut cores {
        // Until it holds as much as it ever will.
        (0..300).for_each(|_| assert!(core.take(0).admitted));
    }
    cores.iter_mut().for_each(|core| core.tick(TICK));
    let mut admitted = 0_u64;
    for ms in 50..60_050 {
        // Three times as many as the limit allows.
        (0..3).for_each(|_| admitted += u64::from(cores[0].take(ms * 1_000_000).admitted));
    }
    // What the other cores spent, and a minute's refill.
    let all = u64::from(burst) + u64::from(per_minute) - 300 * count as u64;
    assert!(
        admitted <= all + u64::from(burst / LEASE_PART),
        "{admitted} of {all}"
    );
    assert!(admitted * 100 >= all * 98, "{admitted} of {all}");
}
