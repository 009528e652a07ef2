//! Requests in the queue when not only slots decide: endpoints that could not take them, that fail,
//! or that a reload removes meanwhile.
//!
//! Contract: docs/contract/scheduling.md#5, docs/contract/scheduling.md#11

use crate::slots::{BODY, CHAT, ONE_CORE, Slots, send, send_in_turn, start};
use testkit::{Backend, endpoint, on_both_drivers, wait_until};

const WAITING: &str = "olla_queue_waiting{model=\"m\"}";

#[test]
fn a_request_waits_where_it_can_start() {
    on_both_drivers(|driver| {
        let [one, two] = [Slots::new(&["m"]), Slots::new(&["m"])];
        let endpoints = [
            endpoint("one", "vllm", &one.backend, ""),
            endpoint("two", "vllm", &two.backend, "max_concurrent = 1"),
        ];
        // The only token of an endpoint whose slots have no bound.
        let limits = "[server.rate_limits]\nburst_size = 1\n\
                      [server.rate_limits.per_endpoint]\noverrides = { one = 1 }\n";
        let gateway = start(driver, &endpoints, &format!("{ONE_CORE}{limits}"));
        let mut running = [
            send_in_turn(&gateway, "1", &[]),
            send_in_turn(&gateway, "2", &[]),
        ];
        one.wait_running(1);
        two.wait_running(1);
        let mut waiting = ["3", "4"].map(|number| send_in_turn(&gateway, number, &[]));
        // In the queue, and not beside it.
        wait_until("two that wait", || gateway.metric(WAITING) == Some(2.0));
        for number in ["3", "4"] {
            two.end_one();
            two.wait_running(1);
            assert_eq!(two.order().last().map(String::as_str), Some(number));
        }
        two.end_one();
        for client in &mut waiting {
            let response = client.response();
            assert_eq!(response.header("X-Olla-Endpoint"), Some("two"));
            assert!(response.header("X-Olla-Queue-Ms").is_some());
        }
        one.end_one();
        assert!(
            running
                .iter_mut()
                .all(|client| client.response().status == 200)
        );
    });
}

#[test]
fn the_endpoint_that_failed_may_be_gone_when_the_wait_ends() {
    on_both_drivers(|driver| {
        let two = Slots::new(&["m"]);
        let one = Backend::new(&["m"], |request, link| {
            if request.path().ends_with("/chat/completions") {
                link.respond(429, "application/json", "{}");
            } else {
                link.ok();
            }
        });
        // The last of them goes: no other endpoint has its place then.
        let of_two = endpoint("two", "vllm", &two.backend, "max_concurrent = 1");
        let endpoints = [of_two.clone(), endpoint("one", "vllm", &one, "")];
        let mut gateway = start(driver, &endpoints, ONE_CORE);
        let mut first = send(&gateway, CHAT, &["X-N: 1"], BODY);
        two.wait_running(1);
        let mut second = send(&gateway, CHAT, &["X-N: 2"], BODY);
        wait_until("one that waits", || gateway.metric(WAITING) == Some(1.0));
        assert!(one.count() >= 1);
        gateway.rewrite(&of_two);
        gateway.signal("HUP");
        gateway.wait_log("Configuration reloaded");
        two.end_one();
        two.wait_running(1);
        two.end_one();
        for client in [&mut first, &mut second] {
            let response = client.response();
            assert_eq!(
                (response.status, response.header("X-Olla-Endpoint")),
                (200, Some("two"))
            );
        }
    });
}
