use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use olla_engine::limit::LEASE_PART;
use proptest::prelude::*;

use super::*;
use crate::config::EndpointRatesPlan;

const SECOND: Nanos = 1_000_000_000;

/// A plan with these requests per minute, all together and for each client address.
fn plan(global: u32, per_ip: u32, burst_size: u32) -> RateLimitsPlan {
    RateLimitsPlan {
        global_requests_per_minute: global,
        per_ip_requests_per_minute: per_ip,
        health_requests_per_minute: 0,
        pages_per_second: 0,
        burst_size,
        cleanup_interval: None,
        trust_proxy_headers: false,
        trusted_proxy_cidrs: Vec::new(),
        per_endpoint: EndpointRatesPlan {
            default_requests_per_minute: 0,
            overrides: Vec::new(),
        },
    }
}

fn client(number: u32) -> Client {
    Client::Address(IpAddr::V4(Ipv4Addr::from(number)))
}

fn shards(limiters: &Limiters) -> Shards {
    let mut shards = Shards::default();
    shards.follow(limiters);
    shards
}

/// Limit, remaining tokens and seconds until the bucket is full.
fn shown(headers: Option<LimitHeaders>) -> Option<(u32, u32, u64)> {
    let headers = headers?;
    assert_eq!(headers.names.limit, "X-RateLimit-Limit");
    Some((
        headers.limit.get(),
        headers.remaining,
        headers.full_in.as_secs(),
    ))
}

/// The requests per minute, subject and seconds to wait of a refusal, and what its response shows.
fn refused(
    admitted: Result<Option<LimitHeaders>, LimitRefusal>,
) -> (u32, &'static str, u64, Option<(u32, u32, u64)>) {
    let refusal = admitted.expect_err("a refusal");
    (
        refusal.per_minute.get(),
        refusal.rule.subject,
        refusal.retry_after.as_secs(),
        shown(refusal.headers),
    )
}

#[test]
fn a_refused_request_takes_no_token() {
    // A token every 10 seconds for each client, one every second for all of them.
    let mut core = shards(&Limiters::new(&plan(60, 6, 3), 1));
    let proxied = Limit::Proxied;
    let (a, b, c) = (client(1), client(2), client(3));
    for left in [2, 1] {
        let admitted = core.admit(proxied, a, 0).unwrap();
        assert_eq!(shown(admitted).unwrap().1, left);
    }
    // The global limit has one token left, which `b` takes; then it refuses, and a client's own
    // bucket stays as it is.
    assert_eq!(shown(core.admit(proxied, b, 0).unwrap()), Some((6, 2, 10)));
    for _ in 0..5 {
        assert_eq!(
            refused(core.admit(proxied, a, 0)),
            (60, "all clients together", 1, Some((6, 0, 20)))
        );
    }
    // A client without a bucket gets none by a refusal: its first request finds a full one.
    assert_eq!(
        refused(core.admit(proxied, c, 0)),
        (60, "all clients together", 1, Some((6, 0, 0)))
    );
    let one = core.admit(proxied, a, SECOND).unwrap();
    assert_eq!(shown(one).unwrap().1, 0);
    // From now on the client's own limit refuses `a`, and the global one keeps its tokens.
    for _ in 0..5 {
        let (per_minute, subject, wait, headers) = refused(core.admit(proxied, a, 3 * SECOND));
        assert_eq!((per_minute, subject, wait), (6, "one client address", 7));
        assert_eq!(headers, Some((6, 0, 27)));
    }
    for client in [b, c] {
        assert!(core.admit(proxied, client, 3 * SECOND).is_ok());
    }
    let last = refused(core.admit(proxied, b, 3 * SECOND));
    assert_eq!(last.1, "all clients together");
}

#[test]
fn each_limit_works_by_itself() {
    let mut none = shards(&Limiters::new(&plan(0, 0, 1), 1));
    none.tick(0);
    let mut global = shards(&Limiters::new(&plan(60, 0, 1), 1));
    let mut clients = shards(&Limiters::new(&plan(0, 60, 1), 1));
    for _ in 0..3 {
        assert_eq!(none.admit(Limit::Proxied, client(1), 0).unwrap(), None);
        // No rule is for these routes, or its limit is 0.
        assert_eq!(global.admit(Limit::Free, client(1), 0).unwrap(), None);
        assert_eq!(global.admit(Limit::Health, client(1), 0).unwrap(), None);
    }
    assert_eq!(global.admit(Limit::Proxied, client(1), 0).unwrap(), None);
    assert_eq!(
        refused(global.admit(Limit::Proxied, client(2), 0)),
        (60, "all clients together", 1, None)
    );
    for number in [1, 2] {
        let first = clients.admit(Limit::Proxied, client(number), 0).unwrap();
        assert_eq!(shown(first), Some((60, 0, 1)));
        assert_eq!(
            refused(clients.admit(Limit::Proxied, client(number), 0)),
            (60, "one client address", 1, Some((60, 0, 1)))
        );
    }
}

#[test]
fn the_health_route_has_buckets_of_its_own() {
    let plan = RateLimitsPlan {
        health_requests_per_minute: 30,
        ..plan(0, 60, 1)
    };
    let mut core = shards(&Limiters::new(&plan, 1));
    for (route, limit) in [(Limit::Proxied, 60), (Limit::Health, 30)] {
        let first = core.admit(route, client(1), 0).unwrap();
        assert_eq!(shown(first).unwrap().0, limit);
        assert_eq!(refused(core.admit(route, client(1), 0)).0, limit);
    }
}

/// A burst of 640 on one core is leased, so this holds for tokens in a lease too.
#[test]
fn a_limit_that_stays_keeps_its_buckets_and_leases() {
    let old = Limiters::new(&plan(1_000, 60, 640), 1);
    let mut core = shards(&old);
    for left in (600..640).rev() {
        let admitted = core.admit(Limit::Proxied, client(1), 0).unwrap();
        assert_eq!(shown(admitted).unwrap().1, left);
    }
    let same = RateLimitsPlan {
        health_requests_per_minute: 5,
        cleanup_interval: Some(Duration::from_secs(1)),
        ..plan(2_000, 60, 640)
    };
    let new = old.follow(&same);
    core.follow(&new);
    let next = core.admit(Limit::Proxied, client(1), 0).unwrap();
    assert_eq!(shown(next).unwrap().1, 599);
    // A core that comes later finds the same buckets, but for what is leased.
    let other = shards(&new).admit(Limit::Proxied, client(1), 0).unwrap();
    assert!((589..599).contains(&shown(other).unwrap().1), "{other:?}");
    // Another rate or another burst is another limit.
    for (changed, left) in [(plan(2_000, 61, 640), 639), (plan(2_000, 60, 641), 640)] {
        let changed = new.follow(&changed);
        let mut core = shards(&changed);
        let first = core.admit(Limit::Proxied, client(1), 0).unwrap();
        assert_eq!(shown(first).unwrap().1, left);
    }
}

#[test]
fn leases_of_a_limit_that_ends_go_back() {
    let old = Limiters::new(&plan(0, 60, 6_400), 1);
    let (mut one, mut other) = (shards(&old), shards(&old));
    for _ in 0..300 {
        assert!(one.admit(Limit::Proxied, client(1), 0).is_ok());
    }
    one.follow(&old.follow(&plan(0, 0, 6_400)));
    let next = other.admit(Limit::Proxied, client(1), 0).unwrap();
    assert_eq!(shown(next).unwrap().1, 6_400 - 301);
}

proptest! {
    /// Cores adopt snapshots at different moments. What a core shows of a limit is of one and the
    /// same configuration, and agrees with the bucket that it takes from.
    #[test]
    fn what_is_shown_belongs_to_the_bucket(
        steps in proptest::collection::vec((0..3_usize, 0..4_usize, 0..3_u32), 1..200),
    ) {
        // The rate tells which burst belongs to it.
        let plans = [(6, 6), (60, 60), (600, 120), (0, 9)];
        // None of them is dropped, so the addresses of the buckets identify them.
        let mut versions = vec![Limiters::new(&plan(0, 6, 6), 3)];
        let mut cores = [(); 3].map(|()| shards(&versions[0]));
        let mut used = std::collections::HashMap::new();
        for (step, (core, which, number)) in steps.into_iter().enumerate() {
            match step % 4 {
                0 => {
                    let (per_minute, burst) = plans[which];
                    let newest = versions.last().unwrap();
                    versions.push(newest.follow(&plan(0, per_minute, burst)));
                }
                1 => cores[core].follow(versions.last().unwrap()),
                _ => {}
            }
            let (headers, is_refused) = match cores[core].admit(Limit::Proxied, client(number), 0) {
                Ok(headers) => (headers, false),
                Err(refusal) => (refusal.headers, true),
            };
            let Some(headers) = headers else { continue };
            let (_, burst) = plans.into_iter().find(|(rate, _)| *rate == headers.limit.get()).unwrap();
            prop_assert!(headers.remaining < burst);
            prop_assert_eq!(is_refused && headers.remaining > 0, false);
            let left = used.entry((buckets_of(&cores[core]), number)).or_insert(burst);
            *left -= u32::from(!is_refused);
            prop_assert_eq!(*left, headers.remaining);
        }
    }
}

/// Identifies the buckets of the limit for each address.
fn buckets_of(core: &Shards) -> *const () {
    match core.limits.first().map(|shard| &shard.limit.buckets) {
        Some(Buckets::Addresses(buckets)) => Arc::as_ptr(buckets).cast(),
        _ => std::ptr::null(),
    }
}

/// Threads with clocks of their own take tokens as fast as they can from both limits at once.
#[test]
fn threads_share_both_limits() {
    const THREADS: usize = 4;
    const CLIENTS: u32 = 8;
    let burst = 1_000;
    let limiters = Limiters::new(&plan(6_000, 600, burst), THREADS);
    let admitted: Vec<_> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    // Virtual seconds; each thread goes through them at its own speed.
    let seconds = 60;
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (limiters, admitted) = (&limiters, &admitted);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(number as u64);
                let mut core = shards(limiters);
                for step in 0..seconds * 1_000 {
                    let number = random.u32(..CLIENTS);
                    let now = step * SECOND / 1_000;
                    let taken = core.admit(Limit::Proxied, client(number), now).is_ok();
                    admitted[number as usize].fetch_add(u64::from(taken), Ordering::Relaxed);
                    core.tick(now);
                }
            });
        }
    });
    let lease = u64::from((burst / LEASE_PART).max(1));
    let admitted: Vec<_> = admitted.into_iter().map(AtomicU64::into_inner).collect();
    for (number, admitted) in admitted.iter().enumerate() {
        let most = u64::from(burst) + 10 * seconds + lease;
        assert!(*admitted <= most, "client {number}: {admitted} > {most}");
    }
    let all: u64 = admitted.iter().sum();
    let most = u64::from(burst) + 100 * seconds + lease;
    assert!(all <= most, "{all} > {most}");
    assert!(all * 100 >= most * 95, "{all} of {most}");
}

#[test]
fn one_network_of_ipv6_has_one_bucket() {
    let mut core = shards(&Limiters::new(&plan(0, 6, 2), 1));
    let client = |text: &str| Client::Address(text.parse().unwrap());
    let mut left = |text| {
        let admitted = core.admit(Limit::Proxied, client(text), 0);
        admitted.ok().flatten().map(|headers| headers.remaining)
    };
    assert_eq!(left("2001:db8::1"), Some(1));
    assert_eq!(left("2001:db8::ffff:0:0:2"), Some(0));
    assert_eq!(left("2001:db8::3"), None);
    assert_eq!(left("2001:db8:0:1::1"), Some(1));
    assert_eq!(left("192.0.2.1"), Some(1));
    assert_eq!(left("192.0.2.2"), Some(1));
}

#[test]
fn a_rule_knows_its_key_and_its_default() {
    let env = crate::config::Env::default();
    let inputs = crate::config::ConfigInputs {
        env: &env,
        cwd: std::path::Path::new(""),
        types: &[],
        admits: &|_, _| true,
    };
    let format = crate::config::FileFormat::Toml;
    let loaded = crate::config::plan_from_str("", format, None, &inputs);
    let limits = loaded.plan.unwrap().server.rate_limits;
    for rule in &RULES {
        assert_eq!((rule.per_minute)(&limits), rule.default, "{}", rule.key);
    }
}

#[test]
fn pages_have_a_limit_for_each_second() {
    let mut core = shards(&Limiters::new(
        &RateLimitsPlan {
            pages_per_second: 5,
            ..plan(60, 60, 1)
        },
        1,
    ));
    let mut admitted = |number, now| core.admit(Limit::Pages, client(number), now);
    // Twice the rate at once, whatever the burst of requests is.
    for _ in 0..10 {
        assert_eq!(admitted(1, 0).unwrap(), None);
    }
    assert_eq!(
        refused(admitted(1, 0)),
        (300, "pages and listings of one client address", 0, None)
    );
    assert!(admitted(2, 0).is_ok(), "another client");
    for _ in 0..5 {
        assert!(admitted(1, SECOND).is_ok());
    }
    assert!(admitted(1, SECOND).is_err());
}
