use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::access::{CountersBook, Policy};
use crate::config::{KeyDigest, KeyFields, KeyPlan, KeySource, PolicyFields};

const SECOND: Micros = 1_000_000;

fn key(limits: Limits, together: Limits) -> Key {
    let book = CountersBook::default();
    let name: Arc<str> = Arc::from("dev");
    let policy = Arc::new(Policy {
        name: Arc::clone(&name),
        fields: PolicyFields {
            limits,
            ..PolicyFields::default()
        },
        together,
        counters: (together != Limits::default()).then(|| book.of_policy(&name)),
    });
    let plan = KeyPlan {
        digest: KeyDigest::from_bytes([1; 32]),
        source: KeySource::Config,
        fields: KeyFields::new(Arc::from("alice"), Arc::clone(&policy.name)),
    };
    let counters = book.of_key(&plan.name);
    Key::new(&Arc::new(plan), policy, counters, None)
}

fn at(micros: Micros) -> LimitTime {
    LimitTime {
        micros,
        unix_ms: 1_796_000_000_000 + micros / 1_000,
    }
}

const NONE: Limits = Limits {
    requests_per_minute: 0,
    tokens_per_minute: 0,
    tokens_per_day: 0,
    tokens_per_month: 0,
    concurrent: 0,
};

#[test]
fn a_refusal_costs_nothing() {
    let own = Limits {
        requests_per_minute: 5,
        concurrent: 2,
        ..NONE
    };
    let together = Limits {
        requests_per_minute: 3,
        concurrent: 1,
        ..NONE
    };
    let key = key(own, together);
    // The limit of which less is left is shown.
    let shown = enter(&key, at(0)).expect("a request").expect("a limit");
    assert_eq!((shown.limit, shown.left), (3, 2));
    for _ in 0..9 {
        let over = enter(&key, at(0)).expect_err("one is in progress");
        assert_eq!(
            (over.field, over.of, over.shown.limit, over.wait),
            (
                LimitField::Concurrent,
                LimitOf::Policy,
                1,
                Duration::from_secs(1)
            )
        );
    }
    assert_eq!(key.counters.in_progress(), 1);
    leave(&key);
    for left in [1, 0] {
        let shown = enter(&key, at(0)).expect("a request").expect("a limit");
        assert_eq!(shown.left, left);
        leave(&key);
    }
    for _ in 0..9 {
        let over = enter(&key, at(0)).expect_err("no request is left");
        assert_eq!(
            (over.field, over.of, over.shown.left, over.wait),
            (
                LimitField::RequestsPerMinute,
                LimitOf::Policy,
                0,
                Duration::from_secs(20)
            )
        );
    }
    let own = key.counters.requests.level(5, 0);
    assert_eq!((own.left(), key.counters.in_progress()), (2, 0));
    return_request(&key, at(0));
    assert_eq!(requests_shown(&key, at(0)).map(|shown| shown.left), Some(1));
}

#[test]
fn tokens_are_reserved_in_all_quotas_or_in_none() {
    let own = Limits {
        tokens_per_minute: 500,
        tokens_per_day: 1_000,
        tokens_per_month: 1_200,
        ..NONE
    };
    let together = Limits {
        tokens_per_day: 1_100,
        ..NONE
    };
    let key = key(own, together);
    let (first, shown) = reserve(&key, 130, at(0)).expect("it fits");
    assert_eq!(
        shown.map(|shown| (shown.limit, shown.left)),
        Some((500, 370))
    );
    settle(&key, &first, 16, at(0));
    let used = |span| key.counters.used_in(span, at(0).unix_ms).used;
    assert_eq!((used(Span::Day), used(Span::Month)), (16, 16));
    assert_eq!(key.counters.tokens.level(500, 0).left(), 484);
    // The minute's reservation is its limit, the others' what is needed.
    let over = reserve(&key, 990, at(120 * SECOND)).expect_err("16 are used");
    assert_eq!(
        (over.field, over.of, over.shown.left),
        (LimitField::TokensPerDay, LimitOf::Key, 984)
    );
    assert!(over.wait > Duration::from_secs(60));
    assert_eq!(key.counters.tokens.level(500, 120 * SECOND).left(), 500);
    assert_eq!((used(Span::Day), used(Span::Month)), (16, 16));
    let (second, shown) = reserve(&key, 980, at(120 * SECOND)).expect("it fits");
    assert_eq!(shown.map(|shown| shown.left), Some(0));
    settle(&key, &second, 1_080, at(120 * SECOND));
    // The debt of the minute is paid first: 1,080 of which 500 were there.
    let over = reserve(&key, 5, at(120 * SECOND)).expect_err("a debt");
    assert_eq!(over.field, LimitField::TokensPerMinute);
    assert_eq!(over.wait, Duration::from_millis(70_200));
}

#[test]
fn tokens_are_counted_without_a_quota() {
    let key = key(NONE, NONE);
    let (reservation, shown) = reserve(&key, 5_000, at(0)).expect("no limit");
    assert_eq!(shown, None);
    let used = || key.counters.used_in(Span::Month, at(0).unix_ms).used;
    assert_eq!(used(), 0);
    settle(&key, &reservation, 16, at(SECOND));
    assert_eq!(used(), 16);
    assert_eq!(tokens_shown(&key, at(SECOND)), None);
}

/// Random requests of one key, of which each takes, holds and gives back, against plain counters.
#[test]
fn a_simulation_never_exceeds_a_limit_and_forgets_nothing() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = Limits {
            requests_per_minute: random.u64(1..50),
            tokens_per_day: random.u64(1..5_000),
            tokens_per_month: random.u64(1..9_000),
            concurrent: random.u64(1..6),
            ..NONE
        };
        let together = if random.bool() { limits } else { NONE };
        let key = key(limits, together);
        let (mut open, mut day, mut month) = (Vec::new(), 0_u64, 0_u64);
        let mut now = 0;
        for _ in 0..400 {
            now += random.u64(0..2 * SECOND);
            if random.bool() {
                let entered = enter(&key, at(now));
                let has_place = (open.len() as u64) < limits.concurrent;
                match entered {
                    Ok(_) => assert!(has_place, "seed {seed}"),
                    Err(over) => {
                        let is_place = over.field == LimitField::Concurrent;
                        assert!(!is_place || !has_place, "seed {seed}");
                        continue;
                    }
                }
                let tokens = random.u64(1..2_000);
                let fits = |used: u64, limit: u64| used + tokens.min(limit) <= limit;
                let fits = fits(day, limits.tokens_per_day) && fits(month, limits.tokens_per_month);
                let reserved = reserve(&key, tokens, at(now));
                assert_eq!(reserved.is_ok(), fits, "seed {seed}");
                let Ok((reservation, _)) = reserved else {
                    return_request(&key, at(now));
                    leave(&key);
                    continue;
                };
                day += tokens.min(limits.tokens_per_day);
                month += tokens.min(limits.tokens_per_month);
                open.push((reservation, tokens));
            } else if !open.is_empty() {
                let (reservation, tokens) = open.swap_remove(random.usize(..open.len()));
                let used = random.u64(0..2_500);
                settle(&key, &reservation, used, at(now));
                leave(&key);
                day = day + used - tokens.min(limits.tokens_per_day);
                month = month + used - tokens.min(limits.tokens_per_month);
            }
            let counters = &key.counters;
            let used = |span| counters.used_in(span, at(now).unix_ms).used;
            assert_eq!((used(Span::Day), used(Span::Month)), (day, month), "{seed}");
            assert_eq!(counters.in_progress() as usize, open.len(), "seed {seed}");
        }
    }
}

/// Threads that take as fast as they can get exactly what there is, and leave nothing behind.
#[test]
fn limits_are_exact_over_threads() {
    const THREADS: u64 = 8;
    const TRIES: u64 = 4_000;
    let limits = Limits {
        requests_per_minute: 1_000_003,
        tokens_per_minute: 10_007,
        tokens_per_day: 20_011,
        concurrent: 3,
        ..NONE
    };
    let key = key(limits, limits);
    let (minute, busiest, places) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let order = Ordering::SeqCst;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (key, minute, busiest, places) = (&key, &minute, &busiest, &places);
            scope.spawn(move || {
                for turn in 0..TRIES {
                    if enter(key, at(0)).is_err() {
                        thread::yield_now();
                        continue;
                    }
                    let now = places.fetch_add(1, order) + 1;
                    busiest.fetch_max(now, order);
                    // Half of what is reserved goes back.
                    if let Ok((reservation, _)) = reserve(key, 2, at(0)) {
                        let used = (turn + thread) % 2 * 2;
                        minute.fetch_add(used, order);
                        settle(key, &reservation, used, at(0));
                    }
                    places.fetch_sub(1, order);
                    leave(key);
                }
            });
        }
    });
    let used = minute.load(order);
    let policy = key.policy.counters.as_ref().expect("limits together");
    for counters in [&key.counters, policy] {
        assert_eq!(counters.in_progress(), 0);
        assert_eq!(counters.tokens.level(10_007, 0).used(), used);
        assert_eq!(counters.used_in(Span::Day, at(0).unix_ms).used, used);
    }
    assert!(used <= 10_007, "{used}");
    assert!(busiest.load(order) <= 3);
    // What is left fits to the last token.
    let left = 10_007 - used;
    assert!(reserve(&key, left, at(0)).is_ok());
    assert!(reserve(&key, 1, at(0)).is_err());
}
