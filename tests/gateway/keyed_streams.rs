//! Streams of requests with a key: cut with it, begun while it is checked, or refused by their
//! endpoint after they have begun.
//!
//! Contract: docs/contract/access.md#4.3, docs/contract/access.md#8.2, docs/contract/access.md#9,
//! docs/contract/surface.md#8.4

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{
    Backend, Client, Config, Driver, Folder, Gateway, Link, PATIENCE, Response, STREAM_COMMENT,
    bearer, endpoint, exchange, on_both_drivers, post, wait_until,
};

use crate::issuer::{Signer, set_of};
use crate::streams::on_word;

const ROOT: &str = "sk-root-0123456789abcdef";
const CHAT: &str = "/olla/openai/v1/chat/completions";
const MESSAGES: &str = "/olla/anthropic/v1/messages";
const BODY: &str =
    r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const KEEP_ALIVE: &str = "[proxy]\nstream_keep_alive = \"1s\"\n";

fn admin(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    let json = "Content-Type: application/json";
    let head = format!("{method} {path}\r\n{}\r\n{json}", bearer(ROOT));
    exchange(gateway, &head, body.as_bytes())
}

/// Sends a request for a stream.
fn asking(gateway: &Gateway, path: &str, secret: &str) -> Client {
    let mut client = Client::to(gateway);
    client.request(
        &format!("POST {path}\r\n{}", bearer(secret)),
        BODY.as_bytes(),
    );
    client
}

/// A gateway with a store, and one key of it.
fn with_store(driver: Driver, backend: &Backend, more: &str) -> (Gateway, Folder, String) {
    with_slots(driver, backend, "", more)
}

/// The same, whose endpoint has these lines.
fn with_slots(
    driver: Driver,
    backend: &Backend,
    lines: &str,
    more: &str,
) -> (Gateway, Folder, String) {
    let folder = Folder::new();
    let store = format!("[state]\npath = '{}'\n", folder.file("state.db").display());
    let config = Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .more(&endpoint("one", "vllm", backend, lines))
        .more("[access]\nenabled = true\n")
        .more(&store)
        .more(more);
    let gateway = Gateway::start(&config);
    let secret = made(&gateway, "alice");
    (gateway, folder, secret)
}

fn made(gateway: &Gateway, name: &str) -> String {
    let body = json!({"name": name, "concurrent": 9}).to_string();
    let made = admin(gateway, "POST", "/internal/keys", &body);
    assert_eq!(made.status, 201);
    made.json()["key"].as_str().unwrap().to_owned()
}

/// What the client asks for decides: a stream of which the first event comes at once, or nothing
/// until the client leaves. `left` gets a word for each that has left.
fn silent_or_streaming(left: Sender<()>) -> Backend {
    let left = Mutex::new(left);
    Backend::new(&["m"], move |request, link| {
        if !request.text().contains("\"silent\"") {
            link.begin("text/event-stream");
            link.chunk("data: {\"choices\":[]}\n\n");
        }
        if link.left_within(PATIENCE).is_some() {
            let _ = left.lock().unwrap().send(());
        }
    })
}

#[test]
fn a_deleted_key_cuts_what_waits_for_a_slot() {
    on_both_drivers(|driver| {
        let (tell, left) = mpsc::channel();
        let backend = silent_or_streaming(tell);
        let (gateway, _folder, alice) = with_slots(driver, &backend, "max_concurrent = 1", "");
        let bob = made(&gateway, "bob");
        let mut running = asking(&gateway, CHAT, &bob);
        assert_eq!(running.head().status, 200);
        let mut waiting = asking(&gateway, CHAT, &alice);
        let queued = "olla_queue_waiting{model=\"m\"}";
        wait_until("one that waits", || gateway.metric(queued) == Some(1.0));
        let deleted = admin(&gateway, "DELETE", "/internal/keys/alice?cut=true", "");
        assert_eq!(deleted.status, 204);
        let refused = waiting.response();
        refused.is_error(401, "unauthorized", "INVALID_API_KEY");
        drop(running);
        assert_eq!(left.recv_timeout(PATIENCE), Ok(()));
        assert_eq!(backend.count(), 1);
    });
}

#[test]
fn a_deleted_key_cuts_its_requests() {
    on_both_drivers(|driver| {
        let (tell, left) = mpsc::channel();
        let backend = silent_or_streaming(tell);
        let (gateway, _folder, alice) = with_store(driver, &backend, "");
        let bob = made(&gateway, "bob");
        let mut running = asking(&gateway, CHAT, &alice);
        let mut others = asking(&gateway, CHAT, &bob);
        for client in [&mut running, &mut others] {
            assert_eq!(client.head().status, 200);
            assert!(client.chunk().is_some());
        }
        let silent = BODY.replace("\"hi\"", "\"silent\"");
        let mut waiting = Client::to(&gateway);
        waiting.request(
            &format!("POST {CHAT}\r\n{}", bearer(&alice)),
            silent.as_bytes(),
        );
        backend.wait_count(3);
        let used = || {
            let shown = admin(&gateway, "GET", "/internal/keys/bob", "").json();
            shown["used"]["concurrent"].clone()
        };
        let begun = Instant::now();
        let deleted = admin(&gateway, "DELETE", "/internal/keys/alice?cut=true", "");
        assert_eq!(deleted.status, 204);
        // A response that has begun must not look complete.
        assert_eq!(running.chunk(), None);
        assert!(running.is_closed());
        let refused = waiting.response();
        let message = refused.is_error(401, "unauthorized", "INVALID_API_KEY");
        assert_eq!(message, "The API key is not valid.");
        for _ in 0..2 {
            assert_eq!(left.recv_timeout(PATIENCE), Ok(()), "the endpoint is left");
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
        let next = post(&gateway, CHAT, &[&bearer(&alice)], BODY);
        next.is_error(401, "unauthorized", "INVALID_API_KEY");
        // Requests of other keys go on.
        assert!(others.is_silent_for(Duration::from_millis(300)));
        assert_eq!(used(), 1);
        // The same name is another key from now on: nothing of it is cut.
        let again = made(&gateway, "alice");
        let mut client = asking(&gateway, CHAT, &again);
        assert_eq!(client.head().status, 200);
        assert!(client.chunk().is_some());
        assert!(client.is_silent_for(Duration::from_millis(300)));
        // The ledger has what was cut.
        let usage = admin(&gateway, "GET", "/internal/usage?group=key", "").json();
        let rows = usage["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["key"] == "alice").unwrap();
        assert_eq!(row["requests"], 2, "{usage}");
    });
}

/// A stream that the gateway has begun itself still waits for its endpoint: it gets the 401 as an
/// event.
#[test]
fn a_stream_that_has_begun_early_is_refused() {
    on_both_drivers(|driver| {
        let (backend, _word) = on_word(|_, link, heard| {
            let _ = heard.recv_timeout(PATIENCE);
            link.close();
        });
        let (gateway, _folder, alice) = with_store(driver, &backend, KEEP_ALIVE);
        let mut client = asking(&gateway, CHAT, &alice);
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        let begun = Instant::now();
        let deleted = admin(&gateway, "DELETE", "/internal/keys/alice?cut=true", "");
        assert_eq!(deleted.status, 204);
        let rest = client.rest_of_stream();
        let event = rest.strip_prefix("data: ").unwrap();
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["error"]["code"], "INVALID_API_KEY", "{rest}");
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

/// An issuer that serves this set of keys each time that it is told to.
fn issuer_on_word(first: String, later: String) -> (Backend, Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told: Mutex<(bool, Receiver<()>)> = Mutex::new((false, told));
    let issuer = Backend::new(&[], move |_, link: &mut Link| {
        let mut told = told.lock().unwrap();
        let is_later = std::mem::replace(&mut told.0, true);
        if is_later {
            let _ = told.1.recv_timeout(PATIENCE);
        }
        let set = if is_later { &later } else { &first };
        link.respond(200, "application/json", set);
    });
    (issuer, tell)
}

fn with_issuer(driver: Driver, backend: &Backend, issuer: &Backend) -> Gateway {
    let access = format!(
        "[access]\nenabled = true\n[access.jwt]\nissuer = \"https://idp.example\"\n\
         audience = \"olla\"\npolicy = \"default\"\njwks_url = \"{}/keys\"\n",
        issuer.url()
    );
    let config = Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .more(&endpoint("one", "vllm", backend, ""))
        .more(KEEP_ALIVE)
        .more(&access);
    let gateway = Gateway::start(&config);
    gateway.wait_line(&["Signing keys fetched"]);
    gateway
}

/// A stream begins early when its endpoint is silent, not while its token waits for a key: whether
/// there will be a stream is not known before.
#[test]
fn a_token_that_waits_begins_no_stream() {
    on_both_drivers(|driver| {
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let (issuer, fetch) = issuer_on_word(set_of(&[&old]), set_of(&[&old, &new]));
        let (backend, word) = on_word(|_, link, heard| {
            heard.recv_timeout(PATIENCE).unwrap();
            link.begin("text/event-stream");
            link.chunk("data: 1\n\n");
            link.chunk("");
        });
        let gateway = with_issuer(driver, &backend, &issuer);
        let mut client = asking(&gateway, CHAT, &new.token(&json!({})));
        assert!(client.is_silent_for(Duration::from_millis(1_100)));
        assert_eq!(backend.count(), 0);
        fetch.send(()).unwrap();
        let head = client.head();
        assert_eq!(
            (head.status, head.header("Content-Type")),
            (200, Some("text/event-stream"))
        );
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        word.send(()).unwrap();
        assert_eq!(client.rest_of_stream(), "data: 1\n\n");
        // Within a minute there is no other fetch, and the refusal is a status, not an event.
        let foreign = Signer::new("foreign").token(&json!({}));
        let refused = post(&gateway, CHAT, &[&bearer(&foreign)], BODY);
        refused.is_error(401, "unauthorized", "INVALID_TOKEN");
    });
}

/// A fetch that takes too long leaves the token unknown.
#[test]
fn a_token_waits_for_two_seconds_at_most() {
    on_both_drivers(|driver| {
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let (issuer, fetch) = issuer_on_word(set_of(&[&old]), set_of(&[&old, &new]));
        let backend = Backend::ok(&["m"]);
        let gateway = with_issuer(driver, &backend, &issuer);
        let token = new.token(&json!({}));
        let begun = Instant::now();
        let refused = asking(&gateway, CHAT, &token).response();
        refused.is_error(401, "unauthorized", "INVALID_TOKEN");
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
        assert!(waited < Duration::from_secs(4), "{waited:?}");
        fetch.send(()).unwrap();
        let accepted = || post(&gateway, CHAT, &[&bearer(&token)], BODY).status == 200;
        wait_until("the key is in force", accepted);
    });
}

/// A backend that refuses with this status when it is told to.
fn refuses_on_word(status: u16) -> (Backend, Sender<()>) {
    on_word(move |_, link, heard| {
        let _ = heard.recv_timeout(PATIENCE);
        link.respond(status, "application/json", "{\"error\":\"who are you?\"}");
    })
}

#[test]
fn an_endpoint_may_refuse_after_the_stream_has_begun() {
    let message = "The endpoint one refused the gateway's credentials.";
    on_both_drivers(|driver| {
        for (path, kind, status) in [
            (CHAT, "vllm", 401),
            (MESSAGES, "lmdeploy", 403),
            (MESSAGES, "vllm", 401),
        ] {
            let (backend, word) = refuses_on_word(status);
            let other = Backend::new(&["m"], |_, link| {
                link.begin("text/event-stream");
                link.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n");
                link.chunk("data: [DONE]\n\n");
                link.chunk("");
            });
            let one = endpoint("one", kind, &backend, "priority = 200");
            let two = endpoint("two", "lmdeploy", &other, "priority = 100");
            for (endpoints, is_served) in [(one.clone(), false), (one + &two, true)] {
                let config = Config::new(driver)
                    .env("OLLA_ADMIN_KEY", ROOT)
                    .more(&endpoints)
                    .more("[access]\nenabled = true\n")
                    .more(KEEP_ALIVE)
                    .more("[proxy]\nload_balancer = \"priority\"\n");
                let gateway = Gateway::start(&config);
                let mut client = asking(&gateway, path, ROOT);
                assert_eq!(client.head().status, 200);
                let first = String::from_utf8(client.chunk().unwrap()).unwrap();
                let is_translated = path == MESSAGES && kind == "lmdeploy";
                assert_eq!(first.contains("message_start"), is_translated, "{first}");
                word.send(()).unwrap();
                let rest = client.rest_of_stream();
                assert_eq!(rest.contains("Hi"), is_served, "{rest}");
                assert_eq!(rest.contains(message), !is_served, "{rest}");
                assert!(!rest.contains("who are you"), "{rest}");
                if !is_served {
                    let event = rest.lines().find_map(|line| line.strip_prefix("data: "));
                    let event: Value = serde_json::from_str(event.unwrap()).unwrap();
                    assert_eq!(event["error"]["message"], message, "{rest}");
                }
                assert_eq!(other.count(), usize::from(is_served));
            }
        }
    });
}

/// A status says nothing about whether an endpoint works: what one client provokes does not take it
/// from the others (docs/contract/balancing.md#10).
#[test]
fn refusals_of_an_endpoint_open_no_breaker() {
    on_both_drivers(|driver| {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let backend = Backend::new(&["m", "secret"], move |request, link| {
            *count.lock().unwrap() += 1;
            match request.text().contains("\"secret\"") {
                true => link.respond(403, "application/json", "{\"error\":\"forbidden\"}"),
                false => link.ok(),
            }
        });
        let (gateway, _folder, alice) = with_store(driver, &backend, "");
        let forbidden = BODY.replace("\"m\"", "\"secret\"");
        for _ in 0..12 {
            let refused = post(&gateway, CHAT, &[&bearer(&alice)], &forbidden);
            refused.is_error(502, "bad_gateway", "ENDPOINT_AUTH_FAILED");
        }
        assert_eq!(*asked.lock().unwrap(), 12);
        let others = post(&gateway, CHAT, &[&bearer(ROOT)], BODY);
        assert_eq!(others.status, 200);
        // It is a failure in the endpoint's statistics.
        let rate = r#"olla_endpoint_success_rate_percent{endpoint="one"}"#;
        wait_until("the attempts are counted", || {
            gateway.metric(rate).is_some_and(|rate| rate < 10.0)
        });
        let breaker = r#"olla_breaker_state{endpoint="one"}"#;
        assert_eq!(gateway.metric(breaker), Some(0.0));
    });
}
