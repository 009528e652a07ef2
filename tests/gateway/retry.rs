//! Failover on a status: which responses are given up for another endpoint, what cools down, and
//! how many requests are repeated.
//!
//! Contract: docs/contract/balancing.md#9.1

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use testkit::{
    Backend, Config, Driver, Gateway, Response, endpoint, exchange, get, on_both_drivers, post,
};

const CHAT: &str = "/olla/proxy/v1/chat/completions";
const M: &str = r#"{"model":"m"}"#;

/// Three endpoints in the order in which they are tried.
fn over(driver: Driver, backends: &[(&Backend, &str)], more: &str) -> Gateway {
    let mut text = String::new();
    for (at, (backend, kind)) in backends.iter().enumerate() {
        let name = ["one", "two", "three", "four", "five"][at];
        let options = format!("priority = {}\ncheck_interval = \"60s\"", 900 - at);
        text += &endpoint(name, kind, backend, &options);
    }
    let balancer = "[proxy]\nload_balancer = \"priority\"";
    Gateway::start(&Config::new(driver).more(&text).more(balancer).more(more))
}

/// Responds to every request with a status, a reason in the body, and these fields.
fn saying(status: u16, fields: &str) -> Backend {
    let fields = fields.to_owned();
    Backend::new(&["m", "n"], move |_, link| {
        link.send(format!(
            "HTTP/1.1 {status} Own\r\n{fields}Content-Length: 3\r\n\r\nown"
        ));
    })
}

#[track_caller]
fn is_by(answer: &Response, status: u16, endpoint: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("X-Olla-Endpoint"), Some(endpoint));
}

#[test]
fn a_response_that_says_not_now_is_given_up_for_another_endpoint() {
    on_both_drivers(|driver| {
        for status in [429, 502, 503, 504, 529] {
            let (one, two) = (saying(status, "Retry-After: 60\r\n"), Backend::ok(&["m"]));
            let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], "");
            for _ in 0..3 {
                let answer = post(&gateway, CHAT, &[], M);
                is_by(&answer, 200, "two");
                assert_eq!(answer.header("X-Olla-Routing-Reason"), Some("model_found"));
                assert_eq!(two.last().text(), M);
            }
            // The first one cools down for this model.
            assert_eq!((one.count(), two.count()), (1, 3));
            let shown = gateway.endpoint("one");
            assert_eq!(shown["status"], "healthy");
            assert_eq!(shown["cooling"][0]["model"], "m");
            assert!(shown["cooling"][0]["until"].is_string());
            assert_eq!(gateway.endpoint("two").get("cooling"), None);
            let metric = |name: &str| gateway.metric(name);
            let left = r#"olla_retries_total{endpoint="one",reason="status"}"#;
            assert_eq!(metric(left), Some(1.0));
            assert_eq!(
                metric(r#"olla_endpoint_cooling{endpoint="one"}"#),
                Some(1.0)
            );
            assert_eq!(
                metric(r#"olla_endpoint_requests_total{endpoint="one"}"#),
                Some(1.0)
            );
            assert_eq!(metric("olla_requests_total"), Some(3.0));
            assert_eq!(metric("olla_failures_total"), Some(0.0));
            let rate = if status >= 500 { 0.0 } else { 100.0 };
            let sample = r#"olla_endpoint_success_rate_percent{endpoint="one"}"#;
            assert_eq!(metric(sample), Some(rate));
            gateway.wait_line(&[
                "Endpoint left for another",
                r#""endpoint":"one","model":"m","reason":"status""#,
                &format!(r#""status_code":{status},"cooldown_ms":60000,"next_endpoint":"two""#),
            ]);
            // Another model does not cool down there.
            post(&gateway, CHAT, &[], r#"{"model":"n"}"#);
            assert_eq!(one.count(), 2);
        }
    });
}

#[test]
fn other_statuses_and_the_last_response_pass() {
    on_both_drivers(|driver| {
        for status in [400, 401, 404, 500, 501] {
            let (one, two) = (saying(status, ""), Backend::ok(&["m"]));
            let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], "");
            is_by(&post(&gateway, CHAT, &[], M), status, "one");
            assert_eq!(gateway.endpoint("one").get("cooling"), None);
        }
        let fields = "Retry-After: 7\r\nX-Reason: full\r\n";
        let (one, two) = (saying(429, fields), saying(503, fields));
        let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], "");
        for round in 1..=3 {
            // At first all are asked; then all cool down and the balancer picks as usual.
            let answer = post(&gateway, CHAT, &[], M);
            let expected = if round == 1 {
                (503, "two")
            } else {
                (429, "one")
            };
            is_by(&answer, expected.0, expected.1);
            assert_eq!(answer.header("Retry-After"), Some("7"));
            assert_eq!(answer.header("X-Reason"), Some("full"));
            assert_eq!(answer.text(), "own");
            assert_eq!((one.count(), two.count()), (round, 1));
        }
    });
}

#[test]
fn a_bad_gateway_is_repeated_only_where_that_does_no_harm() {
    on_both_drivers(|driver| {
        let (one, two) = (saying(502, ""), Backend::ok(&["m"]));
        let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], "");
        for (method, path, endpoint) in [
            ("POST", "/olla/proxy/v1/things", "one"),
            ("DELETE", "/olla/proxy/v1/things", "one"),
            ("GET", "/olla/proxy/v1/things", "two"),
        ] {
            let answer = exchange(&gateway, &format!("{method} {path}"), b"");
            assert_eq!(answer.header("X-Olla-Endpoint"), Some(endpoint), "{method}");
        }
        // Without a model the whole endpoint cools down.
        assert_eq!(gateway.endpoint("one")["cooling"][0]["model"], "");
        is_by(&post(&gateway, CHAT, &[], M), 200, "two");
    });
}

#[test]
fn at_most_three_responses_are_given_up() {
    on_both_drivers(|driver| {
        let all: Vec<_> = (0..5).map(|_| saying(503, "Retry-After: 0\r\n")).collect();
        let backends: Vec<_> = all.iter().map(|backend| (backend, "vllm")).collect();
        let asked = || all.iter().map(Backend::count).sum::<usize>();
        let gateway = over(driver, &backends, "");
        is_by(&post(&gateway, CHAT, &[], M), 503, "four");
        assert_eq!(asked(), 4);
        for (retry, most) in [
            ("max_attempts = 2", 2),
            ("max_attempts = 5", 5),
            ("enabled = false", 1),
            ("on_status = []", 1),
            ("on_status = [429]", 1),
        ] {
            let before = asked();
            let gateway = over(driver, &backends, &format!("[proxy.retry]\n{retry}"));
            assert_eq!(post(&gateway, CHAT, &[], M).status, 503);
            assert_eq!(asked() - before, most, "{retry}");
        }
    });
}

#[test]
fn the_budget_bounds_the_repeats() {
    on_both_drivers(|driver| {
        let (one, two) = (saying(503, "Retry-After: 0\r\n"), Backend::ok(&["m"]));
        let gateway = over(
            driver,
            &[(&one, "vllm"), (&two, "vllm")],
            "[proxy.retry]\nbudget = 0",
        );
        for _ in 0..10 {
            is_by(&post(&gateway, CHAT, &[], M), 200, "two");
        }
        // All within ten seconds, unless the machine is very slow.
        is_by(&post(&gateway, CHAT, &[], M), 503, "one");
        assert_eq!(
            gateway.metric("olla_retry_budget_exhausted_total"),
            Some(1.0)
        );
    });
}

#[test]
fn a_good_response_ends_a_cool_down_and_0s_begins_none() {
    on_both_drivers(|driver| {
        let status = Arc::new(AtomicU16::new(503));
        let own = Arc::clone(&status);
        let one = Backend::new(&["m"], move |_, link| {
            link.respond(own.load(Ordering::SeqCst), "text/plain", "own");
        });
        let two = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &[(&one, "vllm")],
            "[proxy.retry]\ncooldown = \"60s\"",
        );
        is_by(&post(&gateway, CHAT, &[], M), 503, "one");
        assert_eq!(gateway.endpoint("one")["cooling"][0]["model"], "m");
        status.store(200, Ordering::SeqCst);
        is_by(&post(&gateway, CHAT, &[], M), 200, "one");
        assert_eq!(gateway.endpoint("one").get("cooling"), None);
        status.store(503, Ordering::SeqCst);
        let gateway = over(
            driver,
            &[(&one, "vllm"), (&two, "vllm")],
            "[proxy.retry]\ncooldown = \"0s\"",
        );
        is_by(&post(&gateway, CHAT, &[], M), 200, "two");
        assert_eq!(gateway.endpoint("one").get("cooling"), None);
        gateway.wait_log(r#""status_code":503,"next_endpoint":"two""#);
    });
}

#[test]
fn a_session_leaves_an_endpoint_that_cools_down() {
    on_both_drivers(|driver| {
        let status = Arc::new(AtomicU16::new(200));
        let own = Arc::clone(&status);
        let one = Backend::new(&["m"], move |_, link| {
            link.respond(own.load(Ordering::SeqCst), "text/plain", "own");
        });
        let two = Backend::ok(&["m"]);
        let more = "[proxy.sticky_sessions]\nenabled = true";
        let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], more);
        let session = |status, endpoint, outcome| {
            let answer = post(&gateway, CHAT, &["X-Olla-Session-ID: s"], M);
            is_by(&answer, status, endpoint);
            assert_eq!(answer.header("X-Olla-Sticky-Session"), Some(outcome));
        };
        session(200, "one", "miss");
        session(200, "one", "hit");
        status.store(503, Ordering::SeqCst);
        session(200, "two", "repin");
        session(200, "two", "hit");
        assert_eq!(one.count(), 3);
    });
}

#[test]
fn an_alias_gets_the_name_of_each_endpoint() {
    on_both_drivers(|driver| {
        let one = saying(503, "Retry-After: 60\r\n");
        let two = Backend::ok(&["other"]);
        let more = "[model_aliases]\n\"both\" = [\"m\", \"other\"]";
        let gateway = over(driver, &[(&one, "vllm"), (&two, "vllm")], more);
        is_by(
            &post(&gateway, CHAT, &[], r#"{"model":"both"}"#),
            200,
            "two",
        );
        assert_eq!(one.last().text(), r#"{"model":"m"}"#);
        assert_eq!(two.last().text(), r#"{"model":"other"}"#);
        assert_eq!(gateway.endpoint("one")["cooling"][0]["model"], "m");
    });
}

/// docs/contract/translation.md#5, docs/contract/translation.md#9
#[test]
fn messages_go_from_native_endpoints_to_others() {
    const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m",
        "choices":[{"index":0,"message":{"role":"assistant","content":"hi"},
        "finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    on_both_drivers(|driver| {
        let native = saying(529, "Retry-After: 60\r\n");
        let full = saying(429, "Retry-After: 60\r\n");
        let free = Backend::new(&["m"], |_, link| {
            link.respond(200, "application/json", COMPLETION);
        });
        let backends = [(&full, "sglang"), (&native, "vllm"), (&free, "sglang")];
        let gateway = over(driver, &backends, "");
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
        for _ in 0..2 {
            let answer = post(&gateway, "/olla/anthropic/v1/messages", &[], body);
            is_by(&answer, 200, "three");
            assert_eq!(answer.header("X-Olla-Mode"), None);
            assert!(answer.text().contains("\"hi\""), "{}", answer.text());
        }
        assert_eq!((native.count(), full.count(), free.count()), (1, 1, 2));
        assert_eq!(native.last().target, "/v1/messages");
        assert_eq!(get(&gateway, "/internal/health", &[]).status, 200);
    });
}
