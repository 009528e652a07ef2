//! The rules of docs/contract/operations.md#5, row by row.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::*;
use crate::providers::figures::ProviderFigures;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_776_249_000)
}

fn attempt() -> AttemptEnd<'static> {
    AttemptEnd {
        endpoint_id: 7,
        model: Some("m"),
        outcome: Outcome::Success,
        status: Some(200),
        bytes: 100,
        latency_ms: 10,
        first_byte_us: Some(2000),
        at_ms: 1000,
    }
}

fn request() -> RequestEnd<'static> {
    RequestEnd {
        request_id: "id",
        method: "POST",
        path: "/olla/proxy/v1/chat/completions",
        retries: 0,
        model: Some("m"),
        endpoint_id: Some(7),
        client: [127, 0, 0, 1].into(),
        outcome: Outcome::Success,
        status: Some(200),
        bytes: 100,
        latency_ms: 10,
        first_byte_us: Some(2000),
        route: ServedBy::Hit,
        routing: None,
        streaming: false,
        figures: None,
    }
}

fn merged(record: impl FnOnce(&mut Recorder)) -> Totals {
    let mut totals = Totals::new(1);
    merge_into(&mut totals, now(), record);
    totals
}

fn merge_into(totals: &mut Totals, at: SystemTime, record: impl FnOnce(&mut Recorder)) {
    let mut recorder = Recorder::default();
    record(&mut recorder);
    totals.merge(recorder.take().unwrap_or_default(), at);
}

fn model<'a>(totals: &'a Totals, name: &str) -> Option<&'a ModelTotals> {
    totals
        .models()
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, totals)| totals)
}

#[test]
fn nothing_recorded_is_nothing_handed_over() {
    let mut recorder = Recorder::default();
    assert!(recorder.take().is_none());
    recorder.attempt(&attempt());
    assert!(recorder.take().is_some());
    assert!(recorder.take().is_none());
}

#[test]
fn what_counts_as_success_and_failure() {
    let table = [
        // outcome, status, successes, failures, latency
        (Outcome::Success, Some(200), 1, 0, 10),
        (Outcome::Success, Some(404), 1, 0, 10),
        (Outcome::Success, Some(500), 0, 1, 0),
        (Outcome::Success, Some(503), 0, 1, 0),
        (Outcome::Failure, Some(200), 0, 1, 0),
        (Outcome::Failure, None, 0, 1, 0),
        (Outcome::Cancelled, Some(200), 0, 0, 0),
        (Outcome::Cancelled, None, 0, 0, 0),
    ];
    for (outcome, status, successes, failures, latency) in table {
        let totals = merged(|recorder| {
            recorder.attempt(&AttemptEnd {
                outcome,
                status,
                ..attempt()
            });
            recorder.request(&RequestEnd {
                outcome,
                status,
                ..request()
            });
        });
        let case = format!("{outcome:?} {status:?}");
        let endpoint = totals.endpoint(7).unwrap();
        let system = totals.system().requests;
        let model = model(&totals, "m").unwrap();
        let pair = model.endpoints[&7].counts;
        for (requests, found_successes, found_failures, latency_ms) in [
            (
                endpoint.counts.tally.requests,
                endpoint.counts.tally.successes,
                endpoint.counts.tally.failures,
                endpoint.counts.tally.latency_ms,
            ),
            (
                system.tally.requests,
                system.tally.successes,
                system.tally.failures,
                system.tally.latency_ms,
            ),
            (
                model.counts.tally.requests,
                model.counts.tally.successes,
                model.counts.tally.failures,
                model.counts.tally.latency_ms,
            ),
            (
                pair.tally.requests,
                pair.tally.successes,
                pair.tally.failures,
                pair.tally.latency_ms,
            ),
        ] {
            assert_eq!(requests, 1, "{case}");
            assert_eq!(found_successes, successes, "{case}");
            assert_eq!(found_failures, failures, "{case}");
            assert_eq!(latency_ms, latency, "{case}");
        }
        // Delivered bytes count whatever happened.
        assert_eq!(endpoint.counts.bytes, 100, "{case}");
        assert_eq!(totals.system().endpoint_bytes, 100, "{case}");
        let gone = u64::from(outcome == Outcome::Cancelled);
        assert_eq!(totals.system().client_disconnects, gone, "{case}");
        assert_eq!(endpoint.duration.count, successes, "{case}");
        assert_eq!(endpoint.first_byte.count, 1, "{case}");
    }
}

#[test]
fn a_failover_is_two_attempts_and_one_request() {
    let totals = merged(|recorder| {
        recorder.attempt(&AttemptEnd {
            endpoint_id: 1,
            outcome: Outcome::Failure,
            status: None,
            bytes: 0,
            first_byte_us: None,
            ..attempt()
        });
        recorder.attempt(&AttemptEnd {
            endpoint_id: 2,
            ..attempt()
        });
        recorder.left(1, LeftBecause::Connection);
        recorder.left(1, LeftBecause::Status);
        recorder.left(1, LeftBecause::Status);
        recorder.retry_budget_exhausted();
        recorder.request(&RequestEnd {
            endpoint_id: Some(2),
            route: ServedBy::Miss,
            ..request()
        });
    });
    assert_eq!(totals.system().requests.tally.requests, 1);
    assert_eq!(totals.system().requests.tally.failures, 0);
    assert_eq!(totals.endpoint(1).unwrap().counts.tally.failures, 1);
    assert_eq!(totals.endpoint(1).unwrap().counts.left, [1, 2, 0]);
    assert_eq!(totals.endpoint(2).unwrap().counts.left, [0; 3]);
    assert_eq!(totals.system().retry_budget_exhausted, 1);
    let model = model(&totals, "m").unwrap();
    assert_eq!((model.counts.hits, model.counts.misses), (0, 1));
    assert_eq!(model.endpoints[&1].counts.consecutive_errors, 1);
    assert_eq!(model.endpoints[&2].counts.consecutive_errors, 0);
}

#[test]
fn refusals_and_requests_without_endpoint_or_model() {
    let totals = merged(|recorder| {
        recorder.request(&RequestEnd {
            outcome: Outcome::Refused,
            status: Some(404),
            endpoint_id: None,
            route: ServedBy::Unserved,
            ..request()
        });
        recorder.violation(Violation::Size);
        recorder.violation(Violation::RateLimit([10, 0, 0, 1].into()));
        recorder.violation(Violation::RateLimit([10, 0, 0, 1].into()));
        // Nothing routable: a failed request of the system, and of no model.
        recorder.request(&RequestEnd {
            outcome: Outcome::Failure,
            status: Some(503),
            endpoint_id: None,
            route: ServedBy::Unserved,
            ..request()
        });
        recorder.request(&RequestEnd {
            model: None,
            route: ServedBy::Fallback,
            ..request()
        });
    });
    let system = totals.system();
    assert_eq!(system.requests.tally.requests, 2);
    assert_eq!(system.requests.tally.failures, 1);
    assert_eq!(system.model_requests.tally.requests, 0);
    assert!(totals.models().is_empty());
    assert_eq!(system.size_violations, 1);
    assert_eq!(system.rate_limit_violations, 2);
    assert_eq!(totals.blocked_ips(now()), 1);
    assert_eq!(totals.recent().count(), 3);
}

#[test]
fn latencies_over_successes_and_cores() {
    let mut totals = merged(|recorder| {
        for latency_ms in [30, 10, 21] {
            recorder.attempt(&AttemptEnd {
                latency_ms,
                ..attempt()
            });
        }
    });
    merge_into(&mut totals, now(), |recorder| {
        for (latency_ms, outcome) in [(1, Outcome::Failure), (5, Outcome::Success)] {
            recorder.attempt(&AttemptEnd {
                latency_ms,
                outcome,
                ..attempt()
            });
        }
    });
    let counts = totals.endpoint(7).unwrap().counts;
    assert_eq!(counts.tally.mean_ms(), 66 / 4);
    assert_eq!(
        (counts.latency_min_ms, counts.latency_max_ms),
        (Some(5), 30)
    );
    assert_eq!(EndpointCounts::default().tally.mean_ms(), 0);
}

#[test]
fn answers_are_counted_by_class() {
    let totals = merged(|recorder| {
        for status in [200, 204, 302, 404, 503, 599, 101, 0, 999] {
            recorder.attempt(&AttemptEnd {
                status: Some(status),
                ..attempt()
            });
        }
    });
    assert_eq!(totals.endpoint(7).unwrap().counts.classes, [2, 1, 1, 2]);
}

#[test]
fn errors_in_a_row_survive_the_hand_over_in_any_order() {
    let (good, bad) = (Outcome::Success, Outcome::Failure);
    type Core = [(Outcome, u64)];
    // What each core saw, in the order in which they tell; then the errors in a row.
    let table: [(&[&Core], u64); 8] = [
        (&[&[(good, 1), (bad, 2), (bad, 2)]], 2),
        (&[&[(good, 1), (bad, 1)]], 1),
        (&[&[(good, 1), (bad, 2)], &[(bad, 3)]], 2),
        (&[&[(bad, 3)], &[(good, 1), (bad, 2)]], 2),
        (&[&[(bad, 2), (bad, 3)], &[(good, 4)]], 0),
        (&[&[(good, 4)], &[(bad, 2), (bad, 3)]], 0),
        (&[&[(good, 4)], &[(bad, 2), (bad, 5)], &[(good, 6)]], 0),
        (&[&[(bad, 1)], &[(bad, 1)], &[(bad, 2)]], 3),
    ];
    for (cores, want) in table {
        let mut totals = Totals::new(1);
        for core in cores {
            merge_into(&mut totals, now(), |recorder| {
                for (outcome, at_ms) in *core {
                    recorder.attempt(&AttemptEnd {
                        outcome: *outcome,
                        at_ms: *at_ms,
                        ..attempt()
                    });
                }
            });
        }
        let counts = model(&totals, "m").unwrap().endpoints[&7].counts;
        assert_eq!(counts.consecutive_errors, want, "{cores:?}");
    }
}

#[test]
fn tokens_and_speed() {
    let figures = |completion_tokens, generation_ms| ProviderFigures {
        prompt_tokens: 1,
        completion_tokens,
        total_tokens: completion_tokens + 1,
        generation_ms,
        ..ProviderFigures::default()
    };
    let with_time = figures(30, 400);
    let without = figures(1000, 0);
    let totals = merged(|recorder| {
        for figures in [&with_time, &without] {
            recorder.request(&RequestEnd {
                figures: Some(figures),
                ..request()
            });
        }
    });
    let counts = model(&totals, "m").unwrap().counts;
    assert_eq!(
        (
            counts.prompt_tokens,
            counts.completion_tokens,
            counts.total_tokens
        ),
        (2, 1030, 1032)
    );
    assert_eq!(counts.tokens_per_second(), 75.0);
    assert_eq!(RequestCounts::default().tokens_per_second(), 0.0);
}

#[test]
fn clients_and_blocked_addresses_are_bounded_and_forgotten() {
    let address = |nth: usize| -> IpAddr { [10, 0, (nth >> 8) as u8, nth as u8].into() };
    let mut totals = merged(|recorder| {
        for nth in 0..3 * CLIENTS_MAX {
            recorder.request(&RequestEnd {
                client: address(nth),
                ..request()
            });
        }
        for nth in 0..BLOCKED_IPS_MAX + 50 {
            recorder.violation(Violation::RateLimit(address(nth)));
        }
    });
    let clients = |totals: &Totals, at| model(totals, "m").unwrap().unique_clients(at);
    assert_eq!(clients(&totals, now()), CLIENTS_MAX);
    assert_eq!(totals.blocked_ips(now()), BLOCKED_IPS_MAX);
    let later = now() + Duration::from_secs(3601);
    assert_eq!(clients(&totals, later), 0);
    assert_eq!(totals.blocked_ips(later), 0);
    // There is room again for others.
    merge_into(&mut totals, later, |recorder| {
        recorder.request(&RequestEnd {
            client: [1, 1, 1, 1].into(),
            ..request()
        });
        recorder.violation(Violation::RateLimit([1, 1, 1, 1].into()));
    });
    assert_eq!(clients(&totals, later), 1);
    assert_eq!(totals.blocked_ips(later), 1);
}

#[test]
fn models_are_bounded_and_their_sums_never_fall() {
    let names: Vec<String> = (0..MODELS_MAX + 5).map(|nth| format!("m{nth}")).collect();
    let mut totals = Totals::new(1);
    for (nth, chunk) in names.chunks(500).enumerate() {
        let at = now() + Duration::from_secs(nth as u64);
        merge_into(&mut totals, at, |recorder| {
            for name in chunk {
                recorder.request(&RequestEnd {
                    model: Some(name),
                    ..request()
                });
            }
        });
    }
    assert_eq!(totals.models().len(), MODELS_MAX);
    assert!(model(&totals, "m1004").is_some(), "the newest is kept");
    assert_eq!(totals.system().model_requests.tally.requests, 1005);
    totals.sweep(std::iter::empty(), now() + Duration::from_secs(24 * 3600));
    assert_eq!(totals.models().len(), 505, "the first 500 are a day old");
    totals.sweep(std::iter::empty(), now() + Duration::from_secs(25 * 3600));
    assert!(totals.models().is_empty());
    assert_eq!(totals.system().model_requests.tally.requests, 1005);
    assert_eq!(totals.system().model_requests.bytes, 100_500);
}

#[test]
fn too_many_and_too_long_names_at_one_time_count_in_the_sums() {
    let names: Vec<String> = (0..MODELS_MAX + 5).map(|nth| format!("m{nth}")).collect();
    let long = "x".repeat(MODEL_NAME_BYTES_MAX + 1);
    let mut recorder = Recorder::default();
    for name in names.iter().chain([&long]) {
        recorder.request(&RequestEnd {
            model: Some(name),
            request_id: &long,
            ..request()
        });
    }
    let mut totals = Totals::new(1);
    totals.merge(recorder.take().unwrap(), now());
    assert_eq!(totals.models().len(), MODELS_MAX);
    assert_eq!(totals.system().model_requests.tally.requests, 1006);
    assert!(totals.recent().all(|(_, r)| r.request_id().len() == 128));
    // The full list was emptied: other names have room.
    recorder.request(&RequestEnd {
        model: Some("new"),
        ..request()
    });
    totals.merge(recorder.take().unwrap(), now());
    assert!(model(&totals, "new").is_some());
}

#[test]
fn removed_endpoints_keep_their_counters_while_there_is_room() {
    let mut totals = merged(|recorder| recorder.attempt(&attempt()));
    totals.sweep([1].into_iter(), now());
    assert!(totals.endpoint(7).is_some());
    merge_into(&mut totals, now(), |recorder| {
        for endpoint_id in 100..100 + ENDPOINTS_MAX as u32 {
            recorder.attempt(&AttemptEnd {
                endpoint_id,
                ..attempt()
            });
        }
    });
    totals.sweep([7].into_iter(), now());
    assert!(totals.endpoint(7).is_some() && totals.endpoint(100).is_none());
}

#[test]
fn percentiles_and_buckets() {
    let totals = merged(|recorder| {
        for latency_ms in 1..=21 {
            recorder.attempt(&AttemptEnd {
                latency_ms,
                ..attempt()
            });
            recorder.request(&RequestEnd {
                latency_ms,
                ..request()
            });
        }
    });
    let model = model(&totals, "m").unwrap();
    assert_eq!(model.p95_p99(), (20, 21));
    assert_eq!(model.latency.percentile_ms(50.0), 11.0);
    let endpoint = totals.endpoint(7).unwrap();
    let buckets: Vec<u64> = endpoint.duration.cumulative().collect();
    assert_eq!(buckets[..4], [5, 10, 21, 21]);
    assert_eq!(
        (endpoint.duration.count, endpoint.duration.sum),
        (21, 231.0)
    );
    assert_eq!(Quantiles::default().percentile_ms(99.0), 0.0);
}

#[test]
fn slots_are_used_again_after_a_hand_over() {
    let mut recorder = Recorder::default();
    let mut totals = Totals::new(1);
    for round in 1..=3 {
        for (endpoint_id, name) in [(1, "a"), (2, "b")] {
            recorder.attempt(&AttemptEnd {
                endpoint_id,
                model: Some(name),
                latency_ms: u64::from(endpoint_id) * 100,
                ..attempt()
            });
            recorder.request(&RequestEnd {
                endpoint_id: Some(endpoint_id),
                model: Some(name),
                latency_ms: u64::from(endpoint_id) * 100,
                ..request()
            });
        }
        totals.merge(recorder.take().unwrap(), now());
        for (endpoint_id, name) in [(1, "a"), (2, "b")] {
            let latency = f64::from(endpoint_id) * 100.0;
            let endpoint = totals.endpoint(endpoint_id).unwrap();
            assert_eq!(endpoint.counts.tally.requests, round);
            assert_eq!(endpoint.duration.sum, latency * round as f64);
            let model = model(&totals, name).unwrap();
            assert_eq!(model.counts.tally.requests, round);
            assert_eq!(model.p95_p99().0 as f64, latency);
            assert_eq!(model.endpoints.len(), 1);
        }
    }
}

#[test]
fn predictions_are_compared_with_what_was_measured() {
    let mut totals = merged(|recorder| {
        for (predicted, measured) in [(0.09, 0.09), (0.09, 0.2), (0.26, 0.1)] {
            recorder.first_token("m", predicted, measured);
        }
        recorder.first_token(&"x".repeat(MODEL_NAME_BYTES_MAX + 1), 1.0, 0.0);
    });
    merge_into(&mut totals, now(), |recorder| {
        recorder.first_token("m", 0.02, 0.02);
    });
    let m = &model(&totals, "m").unwrap().predictions;
    let predicted: Vec<u64> = m.predicted.cumulative().collect();
    assert_eq!(predicted[..7], [0, 0, 1, 1, 3, 3, 4]);
    assert!((m.predicted.sum - 460.0).abs() < 1e-3);
    let ratios: Vec<u64> = m.ratio.cumulative().collect();
    assert_eq!(ratios, [0, 0, 0, 1, 1, 1, 3, 3, 3, 4, 4, 4]);
    // A name that is too long is counted, if not by itself; nothing is divided by zero.
    let others = totals.system().scheduling.other_models;
    assert_eq!((others.predicted.count, others.ratio.count), (1, 1));
    assert!(others.ratio.sum.is_finite());
    assert_eq!(totals.models().len(), 1);
}

#[test]
fn of_too_many_models_the_predictions_are_counted_together() {
    let totals = merged(|recorder| {
        for at in 0..MODELS_MAX + 7 {
            recorder.first_token(&format!("m{at}"), 1.0, 1.0);
        }
    });
    assert_eq!(totals.models().len(), MODELS_MAX);
    let others = totals.system().scheduling.other_models;
    assert_eq!(others.predicted.count, 7);
}

#[test]
fn prefixes_samples_and_the_queue_are_counted() {
    let mut totals = Totals::new(1);
    for _ in 0..2 {
        merge_into(&mut totals, now(), |recorder| {
            recorder.prompt_sent(1000, 600);
            recorder.prompt_sent(50, 0);
            let (believed, reported) = (500, 512);
            recorder.learned(Some(CachedPrefix { believed, reported }), 0);
            recorder.learned(None, 3);
            recorder.queue_waited(0.3);
            for _ in 0..2 {
                recorder.queue_refused(QueueRefusal::MaxWait);
            }
            recorder.queue_refused(QueueRefusal::ShuttingDown);
        });
    }
    let counts = &totals.system().scheduling;
    assert_eq!((counts.prompt_tokens, counts.hit_tokens), (2100, 1200));
    assert_eq!(
        (counts.believed_tokens, counts.reported_tokens),
        (1000, 1024)
    );
    assert_eq!(counts.samples_rejected, 6);
    assert_eq!(counts.refusals, [0, 0, 4, 0, 2]);
    assert_eq!((counts.waits.count, counts.waits.sum), (2, 600.0));
}

#[test]
fn what_teaches_nothing_is_not_handed_over() {
    let mut recorder = Recorder::default();
    recorder.learned(None, 0);
    assert!(recorder.take().is_none());
}

#[test]
fn reloads_are_counted() {
    let mut totals = merged(|_| {});
    assert!(totals.reloads().last_successful);
    totals.reloaded(true);
    totals.reloaded(false);
    let reloads = totals.reloads();
    assert_eq!((reloads.successes, reloads.failures), (1, 1));
    assert!(!reloads.last_successful);
}
