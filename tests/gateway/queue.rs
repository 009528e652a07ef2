//! Slots and the admission queue: how many requests an endpoint gets at a time, who is next, and what
//! is refused.
//!
//! Contract: docs/contract/scheduling.md#4, docs/contract/scheduling.md#5

use std::time::{Duration, Instant};

use crate::slots::{BODY, CHAT, ONE_CORE, STREAM, Slots, in_turn, send, send_in_turn, start};
use testkit::{
    Client, Config, Driver, Gateway, Response, bearer, endpoint, get, on_both_drivers, post,
    wait_until,
};

const BALANCERS: [&str; 4] = ["least-time", "least-connections", "round-robin", "priority"];
const MESSAGES: &str = "/olla/anthropic/v1/messages";
const MESSAGE: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

/// Clients are told apart by an address that the test says.
const ADDRESSES: &str = "[server.rate_limits]\ntrust_proxy_headers = true\n";
const A: &str = "X-Forwarded-For: 203.0.113.1";
const B: &str = "X-Forwarded-For: 203.0.113.2";
const C: &str = "X-Forwarded-For: 203.0.113.3";

/// Policies and keys: `NAME-key` is the key of a policy with these lines.
fn keys(policies: &[(&str, &str)]) -> String {
    let mut text = "[access]\nenabled = true\n".to_owned();
    for (name, lines) in policies {
        text += &format!(
            "[access.policies.{name}]\n{lines}\n[[access.keys]]\nname = \"{name}\"\n\
             key = \"${{TEST_KEY:-sk-{name}-0123456789abcdef}}\"\npolicy = \"{name}\"\n"
        );
    }
    text
}

fn key(name: &str) -> String {
    bearer(&format!("sk-{name}-0123456789abcdef"))
}

/// One endpoint with one slot, on one core.
fn one_slot(driver: Driver, slots: &Slots, more: &str) -> Gateway {
    let endpoints = [endpoint(
        "one",
        "vllm",
        &slots.backend,
        "max_concurrent = 1",
    )];
    start(driver, &endpoints, &format!("{ONE_CORE}{more}"))
}

/// The same with access on, and these policies.
fn with_keys(driver: Driver, slots: &Slots, policies: &[(&str, &str)], more: &str) -> Gateway {
    let endpoint = endpoint("one", "vllm", &slots.backend, "max_concurrent = 1");
    let config = Config::new(driver).env("OLLA_ADMIN_KEY", "sk-admin-0123456789abcdef");
    let config = config.more(&endpoint).more(&keys(policies));
    Gateway::start(&config.more(ONE_CORE).more(more))
}

/// A request that holds the only slot.
fn holder(gateway: &Gateway, slots: &Slots, fields: &[&str]) -> Client {
    let client = send_in_turn(gateway, "first", fields);
    slots.wait_running(1);
    client
}

/// Lets all requests end one after the other, and returns the order in which they ran.
fn drain(slots: &Slots, count: usize) -> Vec<String> {
    for _ in 0..count {
        slots.wait_running(1);
        slots.end_one();
    }
    let mut order = slots.order();
    assert_eq!(order.len(), count);
    order.remove(0);
    order
}

#[test]
fn slots_hold_under_every_balancer() {
    const REQUESTS: usize = 12;
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let fleet = [Slots::new(&["m"]), Slots::new(&["m"])];
            let endpoints = [
                endpoint("one", "vllm", &fleet[0].backend, "max_concurrent = 1"),
                endpoint("two", "vllm", &fleet[1].backend, "max_concurrent = 2"),
            ];
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, &endpoints, &more);
            let clients: Vec<Client> = (0..REQUESTS)
                .map(|_| send(&gateway, CHAT, &[], BODY))
                .collect();
            for left in (1..=REQUESTS).rev() {
                // As many as there are slots run, and not one more.
                wait_until("full slots", || {
                    fleet[0].running() + fleet[1].running() == left.min(3)
                });
                let busy = fleet.iter().filter(|slots| slots.running() > 0);
                busy.max_by_key(|slots| slots.running()).unwrap().end_one();
            }
            for mut client in clients {
                assert_eq!(client.response().status, 200, "{balancer}");
            }
            assert_eq!([fleet[0].peak(), fleet[1].peak()], [1, 2], "{balancer}");
        }
    });
}

#[test]
fn many_cores_share_slots_and_wake_each_other() {
    const REQUESTS: usize = 40;
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let endpoints = [endpoint(
            "one",
            "vllm",
            &slots.backend,
            "max_concurrent = 3",
        )];
        let gateway = start(driver, &endpoints, "server.workers = 4");
        let clients: Vec<Client> = (0..REQUESTS)
            .map(|_| send(&gateway, CHAT, &[], BODY))
            .collect();
        let mut waits = Vec::new();
        for left in (1..=REQUESTS).rev() {
            slots.wait_running(left.min(3));
            slots.end_one();
            let since = Instant::now();
            slots.wait_running((left - 1).min(3));
            waits.push(since.elapsed());
        }
        for mut client in clients {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(slots.peak(), 3);
        // A request that is not told looks for itself after a second.
        waits.sort_unstable();
        assert!(
            waits[REQUESTS / 2] < Duration::from_millis(100),
            "{waits:?}"
        );
        assert!(
            waits[REQUESTS - 1] < Duration::from_millis(900),
            "{waits:?}"
        );
    });
}

#[test]
fn the_first_that_came_goes_first() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let slots = Slots::new(&["m"]);
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = one_slot(driver, &slots, &more);
            let mut first = holder(&gateway, &slots, &[]);
            let waiting = ["1", "2", "3"].map(|number| send_in_turn(&gateway, number, &[]));
            assert_eq!(drain(&slots, 4), ["1", "2", "3"], "{balancer}");
            assert_eq!(first.response().header("X-Olla-Queue-Ms"), None);
            for mut client in waiting {
                let response = client.response();
                assert_eq!(response.status, 200);
                let waited = response.header("X-Olla-Queue-Ms").unwrap();
                assert!(waited.parse::<u64>().is_ok(), "{waited}");
                let choice = response.header("X-Olla-Routing-Choice");
                let expected = (balancer == "least-time").then_some("queued");
                assert_eq!(choice, expected, "{balancer}");
            }
        }
    });
}

#[test]
fn clients_take_turns_by_address() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let gateway = one_slot(driver, &slots, ADDRESSES);
        let _first = holder(&gateway, &slots, &[A]);
        let _of_a = ["a1", "a2", "a3", "a4"].map(|number| send_in_turn(&gateway, number, &[A]));
        let _of_b = ["b1", "b2"].map(|number| send_in_turn(&gateway, number, &[B]));
        let _of_c = send_in_turn(&gateway, "c1", &[C]);
        let order = drain(&slots, 8);
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    });
}

/// Whoever ends each stream before its end has had the turn all the same.
#[test]
fn a_stream_that_its_client_left_was_a_turn() {
    on_both_drivers(|driver| {
        let slots = Slots::beginning(&["m"]);
        let gateway = one_slot(driver, &slots, ADDRESSES);
        let first = holder(&gateway, &slots, &[A]);
        let [mut one, _two] = ["a1", "a2"].map(|number| send_in_turn(&gateway, number, &[A]));
        let _of_b = send_in_turn(&gateway, "b1", &[B]);
        slots.end_one();
        assert_eq!(one.head().status, 200);
        one.chunk().unwrap();
        drop((first, one));
        slots.backend.wait_count(3);
        assert_eq!(slots.order(), ["first", "a1", "b1"]);
    });
}

#[test]
fn keys_share_by_weight() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let policies = [("heavy", "weight = 3"), ("light", "weight = 1")];
        let gateway = with_keys(driver, &slots, &policies, "");
        let (heavy, light) = (key("heavy"), key("light"));
        let _first = holder(&gateway, &slots, &[&heavy]);
        let send_eight = |name: &str, key: &str| -> Vec<Client> {
            (0..8)
                .map(|_| send_in_turn(&gateway, name, &[key]))
                .collect()
        };
        let _clients = [send_eight("heavy", &heavy), send_eight("light", &light)];
        let order = drain(&slots, 17);
        let of_heavy = order[..8].iter().filter(|name| *name == "heavy").count();
        assert!((5..=7).contains(&of_heavy), "{order:?}");
    });
}

#[test]
fn a_higher_priority_goes_first_and_age_raises_it() {
    on_both_drivers(|driver| {
        for (aging, expected) in [("0s", ["high", "low"]), ("100ms", ["low", "high"])] {
            let slots = Slots::streaming(&["m"]);
            let policies = [("low", "priority = 1"), ("high", "priority = 9")];
            let more =
                format!("[queue]\naging = \"{aging}\"\n[proxy]\nstream_keep_alive = \"1s\"\n");
            let gateway = with_keys(driver, &slots, &policies, &more);
            let (low, high) = (key("low"), key("high"));
            let _first = holder(&gateway, &slots, &[&high]);
            let mut old = send(&gateway, CHAT, &["X-N: low", &low], STREAM);
            // After a second, which is ten steps of age if there are any.
            old.head();
            assert_eq!(old.chunk().unwrap(), b": queued 1\n\n");
            let _young = send_in_turn(&gateway, "high", &[&high]);
            assert_eq!(drain(&slots, 3), expected, "{aging}");
        }
    });
}

/// A refusal that is worth a later try.
#[track_caller]
fn may_retry(response: &Response) {
    let seconds = response.header("Retry-After").expect("a time to retry");
    assert!((1..=60).contains(&seconds.parse().unwrap()), "{seconds}");
    assert_eq!(response.header("X-Olla-Endpoint"), None);
}

/// An error of the queue in the form of each API.
#[track_caller]
fn refuses_in_every_form(gateway: &Gateway, fields: &[&str], code: &str, message: &str) {
    for path in [
        CHAT,
        "/olla/vllm/v1/chat/completions",
        "/olla/proxy/v1/completions",
    ] {
        let response = post(gateway, path, fields, BODY);
        assert_eq!(response.is_error(503, "service_unavailable", code), message);
        may_retry(&response);
    }
    let response = post(gateway, MESSAGES, fields, MESSAGE);
    may_retry(&response);
    let json = response.json();
    assert_eq!((response.status, &json["type"]), (503, &"error".into()));
    assert_eq!(json["error"]["type"], "api_error", "{json}");
    assert_eq!(json["error"]["message"], message, "{json}");
    let response = post(
        gateway,
        "/api/chat",
        fields,
        r#"{"model":"m","stream":false,"messages":[]}"#,
    );
    may_retry(&response);
    let json = response.json();
    assert_eq!(response.status, 503, "{json}");
    assert_eq!(json["error"], message);
    assert_eq!(
        (&json["type"], &json["code"]),
        (&"service_unavailable".into(), &code.into())
    );
}

#[test]
fn a_full_queue_refuses_at_once() {
    const FULL: &str = "too many requests are waiting for a slot (queue.max_waiting)";
    const FULL_FLOW: &str = "too many requests are waiting for a slot (queue.max_waiting_per_flow)";
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let more = format!("{ADDRESSES}[queue]\nmax_waiting = 2\nmax_waiting_per_flow = 1\n");
        let gateway = one_slot(driver, &slots, &more);
        let _first = holder(&gateway, &slots, &[A]);
        let _of_a = send_in_turn(&gateway, "a", &[A]);
        refuses_in_every_form(&gateway, &[A], "OVERLOADED", FULL_FLOW);
        let _of_b = send_in_turn(&gateway, "b", &[B]);
        refuses_in_every_form(&gateway, &[C], "OVERLOADED", FULL);
        assert_eq!(drain(&slots, 3), ["a", "b"]);
    });
}

#[test]
fn without_room_nothing_waits() {
    on_both_drivers(|driver| {
        for name in ["max_waiting", "max_waiting_per_flow"] {
            let slots = Slots::new(&["m"]);
            let gateway = one_slot(driver, &slots, &format!("queue.{name} = 0"));
            let mut first = holder(&gateway, &slots, &[]);
            let response = post(&gateway, CHAT, &[], BODY);
            let message = response.is_error(503, "service_unavailable", "OVERLOADED");
            assert!(message.ends_with(&format!("(queue.{name})")), "{message}");
            may_retry(&response);
            slots.end_one();
            assert_eq!(first.response().status, 200);
            slots.release(1);
            assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
        }
    });
}

#[test]
fn a_wait_has_an_end() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let policies = [
            ("usual", ""),
            ("patient", "max_wait = \"0s\""),
            ("hasty", "max_wait = \"1s\""),
        ];
        let gateway = with_keys(driver, &slots, &policies, "queue.max_wait = \"2s\"");
        let _first = holder(&gateway, &slots, &[&key("usual")]);
        let mut patient = send_in_turn(&gateway, "patient", &[&key("patient")]);
        let since = Instant::now();
        for (name, seconds, bound) in [
            ("hasty", 1, "max_wait of the policy"),
            ("usual", 2, "queue.max_wait"),
        ] {
            let begun = Instant::now();
            let response = post(&gateway, CHAT, &[&key(name)], BODY);
            let message = response.is_error(503, "service_unavailable", "QUEUE_TIMEOUT");
            let expected = format!("no slot became free in {seconds} s ({bound})");
            assert_eq!(message, expected);
            may_retry(&response);
            let waited = begun.elapsed();
            let most = Duration::from_millis(seconds * 1000 + 900);
            assert!(
                (Duration::from_secs(seconds)..most).contains(&waited),
                "{waited:?}"
            );
        }
        assert!(since.elapsed() > Duration::from_secs(3));
        assert_eq!(slots.backend.count(), 1);
        slots.release(2);
        assert_eq!(patient.response().status, 200);
        slots.release(1);
        assert_eq!(post(&gateway, CHAT, &[&key("usual")], BODY).status, 200);
    });
}

#[test]
fn a_wait_that_ends_in_every_form_leaves_the_endpoint_alone() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let gateway = one_slot(driver, &slots, "queue.max_wait = \"1s\"");
        let _first = holder(&gateway, &slots, &[]);
        let message = "no slot became free in 1 s (queue.max_wait)";
        refuses_in_every_form(&gateway, &[], "QUEUE_TIMEOUT", message);
        assert_eq!(slots.backend.count(), 1);
        let endpoint = gateway.endpoint("one");
        assert_eq!(endpoint["status"], "healthy", "{endpoint}");
        let metrics = get(&gateway, "/internal/metrics", &[]).text();
        for line in metrics.lines().filter(|line| line.contains("breaker")) {
            assert!(line.starts_with('#') || line.ends_with(" 0"), "{line}");
        }
    });
}

#[test]
fn without_the_queue_everything_is_sent() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let slots = Slots::new(&["m"]);
            let more = format!("proxy.load_balancer = \"{balancer}\"\nqueue.enabled = false");
            let gateway = one_slot(driver, &slots, &more);
            let clients = ["1", "2", "3", "4"].map(|number| send_in_turn(&gateway, number, &[]));
            slots.wait_running(4);
            slots.release(4);
            for mut client in clients {
                let response = client.response();
                assert_eq!(response.status, 200);
                assert_eq!(response.header("X-Olla-Queue-Ms"), None);
            }
        }
    });
}

#[test]
fn requests_without_a_slot_pass() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let slots = Slots::new(&["m"]);
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = one_slot(driver, &slots, &more);
            let mut first = holder(&gateway, &slots, &[]);
            let mut waiting = send_in_turn(&gateway, "1", &[]);
            for path in ["/olla/proxy/tokenize", "/olla/proxy/api/show"] {
                assert_eq!(post(&gateway, path, &[], BODY).status, 200, "{path}");
            }
            for path in [
                "/olla/proxy/v1/models",
                "/olla/vllm/api/version",
                "/olla/models",
            ] {
                assert_eq!(get(&gateway, path, &[]).status, 200, "{path}");
            }
            in_turn(&gateway);
            assert_eq!(slots.running(), 1);
            slots.release(2);
            assert_eq!(first.response().status, 200);
            assert_eq!(waiting.response().status, 200);
            assert_eq!(slots.peak(), 1);
        }
    });
}
