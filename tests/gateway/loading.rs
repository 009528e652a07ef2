//! Models that are being loaded: requests for them wait, and nothing is held against the endpoint.
//!
//! Contract: docs/contract/scheduling.md#3

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::slots::{BODY, CHAT, ONE_CORE, STREAM, Slots, in_turn, send, start};
use testkit::{Backend, Client, Gateway, endpoint, get, on_both_drivers, post, wait_until};

const BALANCERS: [&str; 4] = ["least-time", "least-connections", "round-robin", "priority"];
const LOADING: &str =
    r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
const BUSY: &str = r#"{"error":{"message":"no slot available"}}"#;

/// A backend that loads its model until it is told that it has done so.
struct Loads {
    backend: Backend,
    loads: Arc<AtomicBool>,
    tries: Arc<Mutex<Vec<Instant>>>,
}

impl Loads {
    fn new(models: &[&str]) -> Self {
        let loads = Arc::new(AtomicBool::new(true));
        let tries = Arc::new(Mutex::new(Vec::new()));
        let (own_loads, own_tries) = (Arc::clone(&loads), Arc::clone(&tries));
        let backend = Backend::new(models, move |_, link| {
            own_tries.lock().unwrap().push(Instant::now());
            if own_loads.load(Ordering::SeqCst) {
                link.respond(503, "application/json", LOADING);
            } else {
                link.ok();
            }
        });
        Self {
            backend,
            loads,
            tries,
        }
    }

    fn is_loaded(&self) {
        self.loads.store(false, Ordering::SeqCst);
    }

    fn tries(&self) -> Vec<Instant> {
        self.tries.lock().unwrap().clone()
    }
}

/// Nothing is held against an endpoint.
#[track_caller]
fn is_not_blamed(gateway: &Gateway, name: &str) {
    let endpoint = gateway.endpoint(name);
    assert_eq!(endpoint["status"], "healthy", "{endpoint}");
    assert!(
        endpoint["cooling"].as_array().is_none_or(Vec::is_empty),
        "{endpoint}"
    );
    let of = |what: &str| gateway.metric(&format!("olla_endpoint_{what}{{endpoint=\"{name}\"}}"));
    // An endpoint that no request went to has no rate: 0.
    if of("requests_total").is_some_and(|requests| requests > 0.0) {
        assert_eq!(of("success_rate_percent"), Some(100.0));
    }
    let metrics = get(gateway, "/internal/metrics", &[]).text();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let counts = line.contains("breaker") || line.starts_with("olla_retries_total");
        assert!(!counts || line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn one_request_is_tried_in_a_second_and_the_rest_follow() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let one = Loads::new(&["m"]);
            let endpoints = [endpoint("one", "llamacpp", &one.backend, "")];
            let more = format!("{ONE_CORE}proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, &endpoints, &more);
            let mut clients = vec![send(&gateway, CHAT, &[], BODY)];
            one.backend.wait_count(1);
            in_turn(&gateway);
            clients.extend((0..3).map(|_| send(&gateway, CHAT, &[], BODY)));
            one.backend.wait_count(3);
            let tries = one.tries();
            for pair in tries.windows(2) {
                let apart = pair[1] - pair[0];
                assert!(apart > Duration::from_millis(900), "{balancer} {apart:?}");
            }
            one.is_loaded();
            let tried = one.backend.count();
            for client in &mut clients {
                let response = client.response();
                assert_eq!(response.status, 200, "{balancer}");
                assert!(response.header("X-Olla-Queue-Ms").is_some(), "{balancer}");
            }
            let tries = one.tries();
            assert!(tries.len() <= tried + 5, "{}", tries.len());
            let last = &tries[tries.len() - 4..];
            let follow = last[3] - last[0];
            assert!(follow < Duration::from_millis(700), "{balancer} {follow:?}");
            is_not_blamed(&gateway, "one");
        }
    });
}

#[test]
fn a_stream_for_a_model_that_loads_waits_like_any_other() {
    on_both_drivers(|driver| {
        let one = Loads::new(&["m"]);
        let endpoints = [endpoint("one", "llamacpp", &one.backend, "")];
        let gateway = start(driver, &endpoints, "proxy.stream_keep_alive = \"1s\"");
        let mut client = send(&gateway, CHAT, &[], STREAM);
        let head = client.head();
        assert_eq!((head.status, head.header("X-Olla-Endpoint")), (200, None));
        assert_eq!(client.chunk().unwrap(), b": queued 1\n\n");
        one.is_loaded();
        let rest = client.rest_of_stream().replace(": queued 1\n\n", "");
        assert_eq!(rest, "data: {\"ok\":true}\n\n");
    });
}

#[test]
fn another_endpoint_takes_the_request() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let (one, two) = (Loads::new(&["m"]), Backend::ok(&["m"]));
            let endpoints = [
                endpoint("one", "llamacpp", &one.backend, ""),
                endpoint("two", "llamacpp", &two, ""),
            ];
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, &endpoints, &more);
            let begun = Instant::now();
            for _ in 0..10 {
                let response = post(&gateway, CHAT, &[], BODY);
                let served = (response.status, response.header("X-Olla-Endpoint"));
                assert_eq!(served, (200, Some("two")), "{balancer}");
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{balancer}");
            assert!(one.backend.count() <= 1, "{balancer}: it is known to load");
            is_not_blamed(&gateway, "one");
        }
    });
}

#[test]
fn a_load_may_take_so_long() {
    on_both_drivers(|driver| {
        let one = Loads::new(&["m"]);
        let endpoints = [endpoint("one", "llamacpp", &one.backend, "")];
        // Waiting for a model is not waiting for a slot.
        let more = "[proxy]\nmodel_load_timeout = \"3s\"\n[queue]\nmax_wait = \"1s\"";
        let gateway = start(driver, &endpoints, more);
        let begun = Instant::now();
        let response = post(&gateway, CHAT, &[], BODY);
        let waited = begun.elapsed();
        let message = response.is_error(503, "service_unavailable", "MODEL_LOADING");
        assert_eq!(message, "model 'm' is still being loaded");
        let seconds: u64 = response.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        let expected = Duration::from_secs(3)..Duration::from_millis(4500);
        assert!(expected.contains(&waited), "{waited:?}");
        is_not_blamed(&gateway, "one");
        one.is_loaded();
        assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
    });
}

#[test]
fn without_the_queue_the_response_passes() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let (one, two) = (Loads::new(&["m"]), Backend::ok(&["m"]));
            let of_one = endpoint("one", "llamacpp", &one.backend, "");
            let of_two = endpoint("two", "llamacpp", &two, "");
            let more = format!("proxy.load_balancer = \"{balancer}\"\nqueue.enabled = false");
            let gateway = start(driver, std::slice::from_ref(&of_one), &more);
            let begun = Instant::now();
            let response = post(&gateway, CHAT, &[], BODY);
            assert_eq!((response.status, response.text().as_str()), (503, LOADING));
            assert_eq!(response.header("X-Olla-Endpoint"), Some("one"));
            assert!(begun.elapsed() < Duration::from_millis(900));
            assert_eq!(one.backend.count(), 1);
            is_not_blamed(&gateway, "one");
            let gateway = start(driver, &[of_one, of_two], &more);
            for _ in 0..4 {
                let response = post(&gateway, CHAT, &[], BODY);
                let served = (response.status, response.header("X-Olla-Endpoint"));
                assert_eq!(served, (200, Some("two")), "{balancer}");
            }
        }
    });
}

/// A 503 that says something else is what it always was.
#[test]
fn other_refusals_fail_over_and_cool_down() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let busy = Backend::new(&["m"], |_, link| {
                link.send(format!(
                    "HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nRetry-After: 60\r\n\
                     X-Own: 1\r\nContent-Length: {}\r\n\r\n{BUSY}",
                    BUSY.len()
                ));
            });
            let two = Backend::ok(&["m"]);
            let of_busy = endpoint("busy", "llamacpp", &busy, "");
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, std::slice::from_ref(&of_busy), &more);
            let response = post(&gateway, CHAT, &[], BODY);
            assert_eq!((response.status, response.text().as_str()), (503, BUSY));
            assert_eq!(response.header("X-Own"), Some("1"));
            assert_eq!(response.header("Retry-After"), Some("60"));
            assert_eq!(response.header("X-Olla-Endpoint"), Some("busy"));
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = start(
                driver,
                &[of_busy, endpoint("two", "llamacpp", &two, "")],
                &more,
            );
            for _ in 0..8 {
                let response = post(&gateway, CHAT, &[], BODY);
                let served = (response.status, response.header("X-Olla-Endpoint"));
                assert_eq!(served, (200, Some("two")), "{balancer}");
            }
            assert!(busy.count() <= 2, "{balancer}: {} tries", busy.count());
        }
    });
}

/// What the client of another dialect gets of it is an error of its own.
#[test]
fn other_refusals_have_the_dialect_of_the_client() {
    on_both_drivers(|driver| {
        let busy = Backend::new(&["m"], |_, link| {
            link.respond(503, "application/json", BUSY)
        });
        let gateway = start(driver, &[endpoint("busy", "llamacpp", &busy, "")], "");
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
        let response = post(&gateway, "/olla/anthropic/v1/messages", &[], body);
        let error = response.json();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["error"]["message"], "no slot available", "{error}");
        assert_eq!(response.header("X-Olla-Endpoint"), Some("busy"));
    });
}

/// A translated request waits like any other.
#[test]
fn a_translated_request_waits_for_its_model() {
    on_both_drivers(|driver| {
        let one = Loads::new(&["m"]);
        let gateway = start(driver, &[endpoint("one", "llamacpp", &one.backend, "")], "");
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
        let mut client = send(&gateway, "/olla/anthropic/v1/messages", &[], body);
        one.backend.wait_count(2);
        one.is_loaded();
        let response = client.response();
        assert_ne!(response.status, 503, "{}", response.text());
        is_not_blamed(&gateway, "one");
    });
}

/// An Ollama whose models these are, `warm` in memory.
fn of_ollama(slots: &Slots, warm: &[&str]) -> String {
    let models: Vec<String> = warm
        .iter()
        .map(|name| format!("{{\"name\":\"{name}\"}}"))
        .collect();
    let list = format!("{{\"models\":[{}]}}", models.join(","));
    slots.backend.set_document("/api/ps", 200, &list);
    endpoint("one", "ollama", &slots.backend, "")
}

const OLLAMA: &str = "/olla/ollama/api/chat";

#[test]
fn a_load_may_take_longer_than_a_response() {
    on_both_drivers(|driver| {
        for (warm, status) in [(&["b"][..], 200), (&["a", "b"], 502)] {
            let slots = Slots::new(&["a", "b"]);
            let endpoints = [of_ollama(&slots, warm)];
            let more = "proxy.response_header_timeout = \"1s\"";
            let gateway = start(driver, &endpoints, more);
            wait_until("the models in memory", || {
                slots.backend.readings("/api/ps") > 0
            });
            // The reading counts when the control thread has taken note.
            let seen = gateway.endpoints();
            assert_eq!(seen.len(), 1);
            let mut client = send(&gateway, OLLAMA, &[], r#"{"model":"a","messages":[]}"#);
            slots.wait_running(1);
            let waits = client.is_silent_for(Duration::from_millis(2500));
            assert_eq!(waits, status == 200, "{warm:?}");
            slots.release(1);
            assert_eq!(client.response().status, status, "{warm:?}");
        }
    });
}

#[test]
fn a_request_that_unloads_makes_its_model_cold() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["a", "b"]);
        let endpoints = [of_ollama(&slots, &["a", "b"])];
        let more = "proxy.least_time.warmth_interval = \"0s\"";
        let gateway = start(driver, &endpoints, more);
        slots.release(6);
        let choice = |body: &str| {
            let response = post(&gateway, OLLAMA, &[], body);
            assert_eq!(response.status, 200);
            response.header("X-Olla-Routing-Choice").unwrap().to_owned()
        };
        assert_eq!(choice(r#"{"model":"a","messages":[]}"#), "least_time");
        assert_eq!(choice(r#"{"model":"b","messages":[]}"#), "least_time");
        assert_eq!(
            choice(r#"{"model":"a","messages":[],"keep_alive":0}"#),
            "least_time"
        );
        assert_eq!(choice(r#"{"model":"b","messages":[]}"#), "least_time");
        assert_eq!(choice(r#"{"model":"a","messages":[]}"#), "cold_load");
        assert_eq!(choice(r#"{"model":"a","messages":[]}"#), "least_time");
    });
}

/// A request that waits for a model's load is tried at an endpoint that becomes free meanwhile.
#[test]
fn a_free_slot_elsewhere_ends_the_wait() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let (one, two) = (Loads::new(&["m"]), Slots::new(&["m"]));
            let endpoints = [
                endpoint("one", "llamacpp", &one.backend, ""),
                endpoint("two", "llamacpp", &two.backend, "max_concurrent = 1"),
            ];
            let more = format!("{ONE_CORE}proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, &endpoints, &more);
            // Whichever is asked first, one of two requests has to wait.
            let mut clients: Vec<Client> =
                (0..2).map(|_| send(&gateway, CHAT, &[], BODY)).collect();
            two.wait_running(1);
            wait_until("a refusal", || one.backend.count() > 0);
            two.end_one();
            two.wait_running(1);
            two.end_one();
            for client in &mut clients {
                let response = client.response();
                let served = (response.status, response.header("X-Olla-Endpoint"));
                assert_eq!(served, (200, Some("two")), "{balancer}");
            }
            assert_eq!(two.peak(), 1);
        }
    });
}
