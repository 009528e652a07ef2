//! Sticky sessions beside scheduling: what identifies a conversation, and when its endpoint is left.
//!
//! Contract: docs/contract/scheduling.md#7, docs/contract/balancing.md#8

use crate::slots::{BODY, CHAT, ONE_CORE, Slots, send, start};
use testkit::{
    Backend, Client, Driver, Gateway, Response, endpoint, on_both_drivers, post, wait_until,
};

/// Those that do not predict.
const BALANCERS: [&str; 3] = ["least-connections", "round-robin", "priority"];
const SESSION: &str = "X-Olla-Session-ID: s";

fn sticky(driver: Driver, backends: [&Backend; 2], balancer: &str) -> Gateway {
    let endpoints = [
        endpoint("one", "vllm", backends[0], ""),
        endpoint("two", "vllm", backends[1], ""),
    ];
    let more = format!(
        "{ONE_CORE}[proxy]\nload_balancer = \"{balancer}\"\nsticky_sessions.enabled = true"
    );
    start(driver, &endpoints, &more)
}

/// A request of a conversation: who says what.
fn chat(messages: &[(&str, &str)]) -> String {
    let messages: Vec<String> = messages
        .iter()
        .map(|(role, text)| format!("{{\"role\":\"{role}\",\"content\":\"{text}\"}}"))
        .collect();
    format!("{{\"model\":\"m\",\"messages\":[{}]}}", messages.join(","))
}

#[track_caller]
fn is_session(response: &Response, outcome: &str, source: Option<&str>) {
    assert_eq!(response.status, 200);
    assert_eq!(response.header("X-Olla-Sticky-Session"), Some(outcome));
    assert_eq!(response.header("X-Olla-Sticky-Key-Source"), source);
}

#[test]
fn a_conversation_is_known_by_its_beginning() {
    let prefix = Some("prefix_hash");
    // As most agents have it: long, and the same for all of their conversations.
    let system = "You are helpful. ".repeat(100);
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let backends = [Backend::ok(&["m"]), Backend::ok(&["m"])];
            let gateway = sticky(driver, [&backends[0], &backends[1]], balancer);
            let ask = |messages: &[(&str, &str)]| post(&gateway, CHAT, &[], chat(messages));
            let first = ask(&[("system", &system), ("user", "a")]);
            is_session(&first, "miss", prefix);
            let next = ask(&[
                ("system", &system),
                ("user", "a"),
                ("assistant", "b"),
                ("user", "c"),
            ]);
            is_session(&next, "hit", prefix);
            let place = |response: &Response| response.header("X-Olla-Endpoint").map(str::to_owned);
            assert_eq!(place(&next), place(&first));
            is_session(&ask(&[("system", &system), ("user", "b")]), "miss", prefix);
            is_session(&ask(&[("system", "other"), ("user", "a")]), "miss", prefix);
            is_session(&ask(&[("system", &system), ("user", "a")]), "hit", prefix);
        }
    });
}

#[test]
fn beginnings_decide_among_equals_where_placements_are_known() {
    on_both_drivers(|driver| {
        let backends = [Backend::ok(&["m"]), Backend::ok(&["m"])];
        let gateway = sticky(driver, [&backends[0], &backends[1]], "least-time");
        let ask = |fields: &[&str]| post(&gateway, CHAT, fields, BODY);
        let prefix = Some("prefix_hash");
        is_session(&ask(&[]), "miss", prefix);
        for _ in 0..10 {
            let next = ask(&[]);
            is_session(&next, "hit", prefix);
            assert_eq!(next.header("X-Olla-Routing-Choice"), Some("least_time"));
        }
        let credentials = ["Authorization: Bearer k"];
        let nothing = post(&gateway, CHAT, &credentials, r#"{"model":"m"}"#);
        is_session(&nothing, "miss", Some("auth_header"));
        is_session(&ask(&[SESSION]), "miss", Some("session_header"));
        let kept = ask(&[SESSION]);
        is_session(&kept, "hit", Some("session_header"));
        assert_eq!(kept.header("X-Olla-Routing-Choice"), Some("sticky"));
    });
}

#[test]
fn a_crowded_endpoint_loses_a_session() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let fleet = [Slots::new(&["m"]), Slots::new(&["m"])];
            let gateway = sticky(driver, [&fleet[0].backend, &fleet[1].backend], balancer);
            fleet.iter().for_each(|slots| slots.release(1));
            let first = post(&gateway, CHAT, &[SESSION], BODY);
            is_session(&first, "miss", Some("session_header"));
            let at = usize::from(first.header("X-Olla-Endpoint") == Some("two"));
            fleet.iter().for_each(Slots::forget);
            let ask = || send(&gateway, CHAT, &[SESSION], BODY);
            // 5 are not more than 1.25 * 2.5 + 2, and 6 are more than 1.25 * 3 + 2.
            let mut here: Vec<Client> = Vec::new();
            for count in 1..=6 {
                here.push(ask());
                wait_until(&format!("{count} under {balancer}"), || {
                    fleet[at].running() == count
                });
            }
            let mut moved = ask();
            fleet[1 - at].wait_running(1);
            assert_eq!(fleet[at].running(), 6, "{balancer}");
            fleet[1 - at].end_one();
            is_session(&moved.response(), "repin", Some("session_header"));
            // It has moved, and does not come back.
            let mut next = ask();
            fleet[1 - at].wait_running(1);
            fleet[1 - at].end_one();
            is_session(&next.response(), "hit", Some("session_header"));
            fleet[at].release(6);
            for client in &mut here {
                is_session(&client.response(), "hit", Some("session_header"));
            }
        }
    });
}

/// A request that waits goes to its session's endpoint, if that gets a slot first.
#[test]
fn a_session_that_waits_prefers_its_endpoint() {
    on_both_drivers(|driver| {
        for balancer in BALANCERS {
            let fleet = [Slots::new(&["m"]), Slots::new(&["m"])];
            let endpoints = [0, 1].map(|at| {
                let name = ["one", "two"][at];
                endpoint(name, "vllm", &fleet[at].backend, "max_concurrent = 2")
            });
            let more = format!(
                "{ONE_CORE}[proxy]\nload_balancer = \"{balancer}\"\nsticky_sessions.enabled = true"
            );
            let gateway = start(driver, &endpoints, &more);
            fleet.iter().for_each(|slots| slots.release(1));
            let first = post(&gateway, CHAT, &[SESSION], BODY);
            let at = usize::from(first.header("X-Olla-Endpoint") == Some("two"));
            fleet.iter().for_each(Slots::forget);
            let holding: Vec<Client> = (0..4)
                .map(|number| {
                    let session = format!("X-Olla-Session-ID: {number}");
                    send(&gateway, CHAT, &[&session], BODY)
                })
                .collect();
            fleet.iter().for_each(|slots| slots.wait_running(2));
            let mut waiting = send(&gateway, CHAT, &[SESSION], BODY);
            crate::slots::in_turn(&gateway);
            fleet[at].end_one();
            fleet[at].wait_running(2);
            fleet.iter().for_each(|slots| slots.release(3));
            let response = waiting.response();
            is_session(&response, "hit", Some("session_header"));
            assert!(response.header("X-Olla-Queue-Ms").is_some());
            for mut client in holding {
                assert_eq!(client.response().status, 200);
            }
        }
    });
}
