//! The catalogue while it changes, and when it is large.
//!
//! Contract: docs/contract/catalogue.md#5.3, docs/contract/catalogue.md#6

use std::sync::{Mutex, mpsc};

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, endpoint, get, on_both_drivers, wait_until,
};

/// A gateway that asks its only backend for its models every second.
fn over(driver: Driver, backend: &Backend) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    let more = "[discovery.model_discovery]\ninterval = \"1s\"";
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

fn ids(gateway: &Gateway, path: &str) -> Vec<String> {
    let answer = get(gateway, path, &[]);
    assert_eq!(answer.status, 200, "{path}");
    let items = answer.json()["data"].as_array().unwrap().clone();
    let id = |item: serde_json::Value| item["id"].as_str().unwrap().to_owned();
    items.into_iter().map(id).collect()
}

#[test]
fn a_listing_too_long_for_a_core_comes_whole() {
    on_both_drivers(|driver| {
        // More than are rendered beforehand.
        let names: Vec<String> = (0..10_100)
            .map(|n| format!("family{}-{n}", n % 7))
            .collect();
        let models: Vec<&str> = names.iter().map(String::as_str).collect();
        let backend = Backend::ok(&models);
        let gateway = over(driver, &backend);
        for path in [
            "/olla/models",
            "/olla/models?format=openai",
            "/olla/models?format=vllm",
            "/olla/models?type=llm",
            "/olla/vllm/v1/models",
            "/olla/openai/v1/models",
        ] {
            assert_eq!(ids(&gateway, path), names, "{path}");
            // Now it may be ready.
            assert_eq!(ids(&gateway, path), names, "{path} again");
        }
        assert_eq!(ids(&gateway, "/olla/models?type=vlm"), [""; 0]);
        let wrong = get(&gateway, "/olla/models?format=none", &[]);
        wrong.is_error(400, "bad_request", "INVALID_FORMAT");
        // One connection, request after request.
        let mut client = Client::to(&gateway);
        for _ in 0..3 {
            client.send("GET /olla/models?family=none HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(client.response().json()["data"], serde_json::json!([]));
        }
    });
}

#[test]
fn a_refresh_leaves_a_stream_alone() {
    on_both_drivers(|driver| {
        let (word, heard) = mpsc::channel::<()>();
        let heard = Mutex::new(heard);
        let backend = Backend::new(&["m"], move |_, link| {
            link.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            );
            link.chunk("first");
            heard.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            link.chunk("second");
            link.chunk("");
        });
        let gateway = over(driver, &backend);
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap(), b"first");
        for models in [["n"], ["o"]] {
            backend.set_models(&models);
            wait_until("another listing", || {
                ids(&gateway, "/olla/models") == models
            });
        }
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"second");
        assert_eq!(client.chunk().unwrap(), b"");
    });
}

#[test]
fn models_that_stay_the_same_are_seen_again() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend);
        let seen = || {
            let page = get(&gateway, "/internal/status/models", &[]).json();
            page["recent_models"][0]["last_seen_at"].clone()
        };
        let first = seen();
        assert!(first.is_string(), "{first}");
        wait_until("a later time", || seen() != first);
    });
}

#[test]
fn one_model_comes_from_the_catalogue() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["Org/Name", "plain"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let more = "[model_aliases]\n\"claude-*\" = [\"plain\"]\neasy = [\"plain\"]";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(more));
        wait_until("the models", || {
            ids(&gateway, "/olla/vllm/models/").len() == 3
        });
        for (path, id) in [
            ("/olla/openai/v1/models/plain", "plain"),
            ("/olla/proxy/models/PLAIN/", "plain"),
            ("/olla/vllm/v1/models/Org/Name", "Org/Name"),
            ("/olla/vllm/v1/models/org%2Fname", "Org/Name"),
            ("/olla/vllm/v1/models/easy", "easy"),
            ("/olla/openai/v1/models/claude-opus-5", "claude-opus-5"),
            ("/olla/anthropic/v1/models/claude-opus-5", "claude-opus-5"),
            ("/olla/models/claude-opus-5", "claude-opus-5"),
        ] {
            let answer = get(&gateway, path, &[]);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.json()["id"], id, "{path}");
            assert_eq!(answer.header("X-Olla-Endpoint"), None, "{path}");
        }
        let unknown = get(&gateway, "/olla/vllm/v1/models/nope", &[]);
        unknown.is_error(404, "not_found", "MODEL_NOT_FOUND");
        let mut client = Client::to(&gateway);
        client.send("DELETE /olla/vllm/v1/models/plain HTTP/1.1\r\nHost: h\r\n\r\n");
        let refused = client.response();
        refused.is_error(405, "method_not_allowed", "METHOD_NOT_ALLOWED");
        assert_eq!(refused.header("Allow"), Some("GET, HEAD"));
        let plain = get(&gateway, "/olla/openai/v1/models", &[]).json();
        assert!(plain.get("models").is_none());
        for path in [
            "/olla/openai/v1/models?client_version=0.5",
            "/olla/models?format=openai&client_version=0.5",
        ] {
            let listed = get(&gateway, path, &[]).json();
            assert_eq!(listed["models"], serde_json::json!([]), "{path}");
            assert_eq!(listed["data"], plain["data"], "{path}");
        }
        assert_eq!(backend.count(), 0);
        backend.set_health(500);
        gateway.wait_status("one", "unhealthy");
        let down = get(&gateway, "/olla/vllm/v1/models/plain", &[]);
        down.is_error(503, "service_unavailable", "MODEL_UNAVAILABLE");
    });
}
