//! Token counts of the Messages API: an endpoint that can count is asked, else it is an estimate.
//!
//! Contract: docs/contract/translation.md#11

use std::time::{Duration, Instant};

use serde_json::Value;

use testkit::{
    Backend, Config, Driver, Gateway, Link, Received, Response, endpoint, get, on_both_drivers,
    post, wait_until,
};

const COUNT: &str = "/olla/anthropic/v1/messages/count_tokens";
/// Forty bytes to be counted: an estimate of 10.
const FORTY: &str = r#"{"model":"m","messages":[{"role":"user","content":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}]}"#;

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// A backend that counts 77 tokens in whatever it gets.
fn counting() -> Backend {
    Backend::new(&["m", "Real"], |_, link| {
        link.respond(200, "application/json", r#"{"input_tokens":77}"#);
    })
}

#[track_caller]
fn is_count(answer: &Response, tokens: u64, endpoint: Option<&str>) {
    let body: Value = answer.json();
    assert_eq!(
        (answer.status, &body["input_tokens"]),
        (200, &tokens.into())
    );
    answer.has_the_fields_of_every_response();
    assert_eq!(answer.header("X-Olla-Endpoint"), endpoint);
    assert_eq!(
        answer.header("X-Olla-Mode"),
        endpoint.map(|_| "passthrough")
    );
    assert!(answer.header("request-id").is_some());
}

#[test]
fn an_endpoint_that_can_count_is_asked() {
    on_both_drivers(|driver| {
        let backend = counting();
        let more = "[model_aliases]\nEasy = [\"real\"]\n[server.rate_limits.per_endpoint]\none = 1";
        let gateway = over(driver, "llamacpp", &backend, more);
        let fields = ["anthropic-version: 2023-06-01", "Accept-Encoding: gzip"];
        let answer = post(&gateway, &format!("{COUNT}?beta=true"), &fields, FORTY);
        is_count(&answer, 77, Some("one"));
        let asked = backend.last();
        assert_eq!(asked.target, "/v1/messages/count_tokens?beta=true");
        assert_eq!(asked.text(), FORTY);
        assert_eq!(asked.header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(asked.header("Accept-Encoding"), Some("identity"));
        // The endpoint's name of the model, and a body that is read on another thread.
        let body = FORTY.replacen("\"m\"", "\"easy\"", 1);
        let long = body.replace("xx", &"yy".repeat(100_000));
        for body in [&body, &long] {
            is_count(&post(&gateway, COUNT, &[], body), 77, Some("one"));
            let expected = body.replacen("\"easy\"", "\"Real\"", 1);
            assert!(backend.last().text() == expected);
        }
        // It is no attempt, and takes no token of the endpoint's limit.
        let stats = get(&gateway, "/internal/status/endpoints", &[]).json();
        assert_eq!(stats["endpoints"][0]["request_count"], 0, "{stats}");
        assert_eq!(backend.count(), 3);
    });
}

#[test]
fn an_estimate_takes_the_place_of_what_an_endpoint_cannot_say() {
    on_both_drivers(|driver| {
        type Says = fn(&Received, &mut Link);
        let rows: [(&str, Says); 7] = [
            ("an error", |_, link| {
                link.respond(500, "application/json", r#"{"input_tokens":7}"#);
            }),
            ("busy", |_, link| link.respond(503, "text/plain", "later")),
            ("another shape", |_, link| {
                link.respond(200, "application/json", r#"{"tokens":7}"#);
            }),
            ("too long", |_, link| {
                let long = format!("{{\"input_tokens\":7,\"x\":\"{}\"}}", "x".repeat(70_000));
                link.respond(200, "application/json", long);
            }),
            ("compressed", |_, link| {
                link.send(
                    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                );
            }),
            ("closed", |_, link| link.close()),
            ("broken", |_, link| {
                link.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"in");
                link.close();
            }),
        ];
        for (what, says) in rows {
            let backend = Backend::new(&["m"], says);
            let gateway = over(driver, "llamacpp", &backend, "");
            for round in 1..=2 {
                let answer = post(&gateway, COUNT, &[], FORTY);
                is_count(&answer, 10, None);
                assert_eq!(backend.count(), round, "{what}");
            }
            // Nothing of it marks the endpoint.
            let shown = gateway.endpoint("one");
            assert_eq!(shown["status"], "healthy", "{what}");
            assert_eq!(shown["cooling"].as_array().map_or(0, Vec::len), 0, "{what}");
            assert_eq!(shown["request_count"], 0, "{what}");
        }
    });
}

#[test]
fn an_endpoint_that_is_silent_is_asked_for_two_seconds() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"in");
            link.left_within(Duration::from_secs(9));
        });
        let gateway = over(driver, "llamacpp", &backend, "");
        let begun = Instant::now();
        is_count(&post(&gateway, COUNT, &[], FORTY), 10, None);
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(2) && took < Duration::from_secs(4),
            "{took:?}"
        );
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn an_endpoint_that_does_not_know_the_path_is_asked_once() {
    on_both_drivers(|driver| {
        for status in [404, 405, 501] {
            let backend = Backend::new(&["m"], move |_, link| {
                link.respond(status, "text/plain", "no such page");
            });
            let more = "discovery.model_discovery.interval = \"1s\"";
            let gateway = over(driver, "llamacpp", &backend, more);
            is_count(&post(&gateway, COUNT, &[], FORTY), 10, None);
            let asked = backend.count();
            assert_eq!(asked, 1);
            // After the next discovery it may be another server.
            wait_until("another question", || {
                is_count(&post(&gateway, COUNT, &[], FORTY), 10, None);
                backend.count() > asked
            });
            assert!(backend.listings() >= 2);
        }
    });
}

#[test]
fn only_an_endpoint_that_can_count_and_has_the_model_is_asked() {
    on_both_drivers(|driver| {
        let backend = counting();
        let off = "translators.anthropic.passthrough_enabled = false";
        let unknown = FORTY.replacen("\"m\"", "\"q\"", 1);
        let unnamed = FORTY.replacen("\"m\"", "null", 1);
        for (kind, more, body) in [
            ("vllm", "", FORTY),
            ("openai", "", FORTY),
            ("llamacpp", off, FORTY),
            ("llamacpp", "", unknown.as_str()),
            ("llamacpp", "", unnamed.as_str()),
        ] {
            let gateway = over(driver, kind, &backend, more);
            is_count(&post(&gateway, COUNT, &[], body), 10, None);
        }
        let gateway = over(driver, "llamacpp", &backend, "");
        let answer = post(&gateway, COUNT, &[], r#"{"model":"m","messages":"x"}"#);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(backend.count(), 0);
        // It is down.
        backend.set_health(500);
        gateway.wait_status("one", "unhealthy");
        is_count(&post(&gateway, COUNT, &[], FORTY), 10, None);
        assert_eq!(backend.count(), 0);
    });
}
