//! Requests in the queue: what their clients see meanwhile, and what happens when a client, an
//! endpoint or the gateway leaves.
//!
//! Contract: docs/contract/scheduling.md#5, docs/contract/scheduling.md#11,
//! docs/contract/surface.md#8.4

use std::time::{Duration, Instant};

use crate::begun::{ALL, asking, continues, kinds, rest};
use crate::slots::{
    BODY, CHAT, EVENTS, ONE_CORE, STREAM, Slots, in_turn, send, send_in_turn, start,
};
use testkit::{Client, Driver, Gateway, PATIENCE, endpoint, on_both_drivers, post, wait_until};

/// Streams that wait say so after a second.
const KEEP_ALIVE: &str = "proxy.stream_keep_alive = \"1s\"\n";

/// How soon a request that waits starts when it can: long before it would look for itself.
const AT_ONCE: Duration = Duration::from_millis(500);

fn one_slot(driver: Driver, slots: &Slots, more: &str) -> Gateway {
    let endpoints = [endpoint(
        "one",
        "vllm",
        &slots.backend,
        "max_concurrent = 1",
    )];
    start(driver, &endpoints, &format!("{ONE_CORE}{more}"))
}

fn holder(gateway: &Gateway, slots: &Slots) -> Client {
    let client = send_in_turn(gateway, "first", &[]);
    slots.wait_running(1);
    client
}

#[track_caller]
fn is_queued(client: &mut Client, position: usize) {
    let expected = format!(": queued {position}\n\n");
    assert_eq!(
        String::from_utf8(client.chunk().unwrap()).unwrap(),
        expected
    );
}

/// The head that the gateway itself sends.
#[track_caller]
fn begins(client: &mut Client, content_type: &str) {
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some(content_type));
    assert!(head.header("X-Olla-Request-ID").is_some());
    for absent in [
        "X-Olla-Endpoint",
        "X-Olla-Backend-Type",
        "X-Olla-Routing-Choice",
        "X-Olla-Queue-Ms",
        "X-Olla-Prefix-Hit",
    ] {
        assert_eq!(head.header(absent), None, "{absent}");
    }
}

#[test]
fn a_stream_that_waits_says_its_place() {
    on_both_drivers(|driver| {
        let slots = Slots::streaming(&["m"]);
        let gateway = one_slot(driver, &slots, KEEP_ALIVE);
        let mut first = holder(&gateway, &slots);
        let mut second = send(&gateway, CHAT, &["X-N: 2"], STREAM);
        in_turn(&gateway);
        let mut third = send(&gateway, CHAT, &["X-N: 3"], STREAM);
        begins(&mut second, "text/event-stream");
        is_queued(&mut second, 1);
        begins(&mut third, "text/event-stream");
        is_queued(&mut third, 2);
        is_queued(&mut second, 1);
        is_queued(&mut third, 2);
        slots.end_one();
        assert_eq!(first.response().status, 200);
        slots.wait_running(1);
        slots.end_one();
        assert_eq!(second.rest_of_stream(), EVENTS);
        // It may have been told its old place before.
        slots.wait_running(1);
        slots.end_one();
        let rest = third.rest_of_stream();
        let rest = rest
            .replace(": queued 2\n\n", "")
            .replace(": queued 1\n\n", "");
        assert_eq!(rest, EVENTS);
        assert_eq!(slots.order(), ["first", "2", "3"]);
    });
}

#[test]
fn a_stream_that_waits_for_too_long_ends_with_an_error() {
    on_both_drivers(|driver| {
        let slots = Slots::streaming(&["m"]);
        let more = format!("{KEEP_ALIVE}queue.max_wait = \"2s\"");
        let gateway = one_slot(driver, &slots, &more);
        let _first = holder(&gateway, &slots);
        let mut client = send(&gateway, CHAT, &[], STREAM);
        begins(&mut client, "text/event-stream");
        is_queued(&mut client, 1);
        let rest = client.rest_of_stream().replace(": queued 1\n\n", "");
        let event = "data: {\"error\":{\"message\":\"no slot became free in 2 s (queue.max_wait)\",\
                     \"type\":\"service_unavailable\",\"code\":\"QUEUE_TIMEOUT\"}}\n\n";
        assert_eq!(rest, event);
        assert_eq!(slots.backend.count(), 1);
    });
}

#[test]
fn translated_streams_wait_with_their_own_events() {
    on_both_drivers(|driver| {
        for (streamed, completes) in ALL.iter().flat_map(|one| [(one, true), (one, false)]) {
            let slots = Slots::responding(&["m"], |_, link| {
                let events = EVENTS.replace("\"a\"", "\"Hi\"");
                link.respond(200, "text/event-stream", events);
            });
            let max_wait = if completes { "60s" } else { "2s" };
            let more = format!("{KEEP_ALIVE}queue.max_wait = \"{max_wait}\"");
            // It has nothing but chat completions.
            let endpoints = [endpoint(
                "one",
                "lmdeploy",
                &slots.backend,
                "max_concurrent = 1",
            )];
            let gateway = start(driver, &endpoints, &format!("{ONE_CORE}{more}"));
            let _first = holder(&gateway, &slots);
            let mut client = asking(&gateway, streamed);
            begins(&mut client, streamed.content_type);
            let first = String::from_utf8(client.chunk().unwrap()).unwrap();
            assert_eq!(kinds(&first).join(" "), streamed.begins, "{first}");
            assert!(first.contains("\"model\":\"m\""), "{first}");
            if completes {
                slots.release(2);
            }
            let rest = rest(&mut client);
            continues(&rest, streamed, completes);
            let is_told = rest.contains("no slot became free in 2 s (queue.max_wait)");
            assert_eq!(is_told, !completes, "{rest}");
            assert_eq!(slots.backend.count(), 1 + usize::from(completes));
        }
    });
}

#[test]
fn a_client_that_leaves_is_gone_at_once() {
    on_both_drivers(|driver| {
        for resets in [false, true] {
            let slots = Slots::new(&["m"]);
            let gateway = one_slot(driver, &slots, "[queue]\nmax_waiting = 3");
            let _first = holder(&gateway, &slots);
            let [one, two, three] =
                ["1", "2", "3"].map(|number| send_in_turn(&gateway, number, &[]));
            assert_eq!(post(&gateway, CHAT, &[], BODY).status, 503, "full");
            if resets {
                two.reset();
            } else {
                drop(two);
            }
            in_turn(&gateway);
            // There is room again.
            let four = send_in_turn(&gateway, "4", &[]);
            for _ in 0..4 {
                slots.wait_running(1);
                slots.end_one();
            }
            for mut client in [one, three, four] {
                assert_eq!(client.response().status, 200);
            }
            assert_eq!(slots.order(), ["first", "1", "3", "4"]);
        }
    });
}

#[test]
fn a_slot_goes_on_when_its_client_leaves() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let gateway = one_slot(driver, &slots, "");
        let first = holder(&gateway, &slots);
        let mut second = send_in_turn(&gateway, "2", &[]);
        drop(first);
        slots.wait_left(1);
        let since = Instant::now();
        slots.wait_running(1);
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        slots.end_one();
        assert_eq!(second.response().status, 200);
        assert_eq!(slots.order(), ["first", "2"]);
    });
}

/// A client may leave in the moment in which it is its turn: no slot is lost.
#[test]
fn leaving_and_starting_at_the_same_time_loses_no_slot() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let endpoints = [endpoint(
            "one",
            "vllm",
            &slots.backend,
            "max_concurrent = 1",
        )];
        let gateway = start(driver, &endpoints, "server.workers = 3");
        for round in 0..40 {
            slots.release(8);
            let mut first = send(&gateway, CHAT, &[], BODY);
            let others: Vec<Client> = (0..3).map(|_| send(&gateway, CHAT, &[], BODY)).collect();
            if round % 2 == 0 {
                assert_eq!(first.response().status, 200);
            }
            others.into_iter().for_each(Client::reset);
            drop(first);
            wait_until("an idle backend", || slots.running() == 0);
            slots.forget();
        }
        slots.release(1);
        assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
    });
}

#[test]
fn a_drain_serves_those_that_wait() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let mut gateway = one_slot(driver, &slots, "server.shutdown_timeout = \"15s\"");
        let first = holder(&gateway, &slots);
        let waiting = ["2", "3"].map(|number| send_in_turn(&gateway, number, &[]));
        gateway.signal("TERM");
        gateway.wait_log("hutdown");
        for _ in 0..3 {
            slots.wait_running(1);
            slots.end_one();
        }
        for mut client in [first].into_iter().chain(waiting) {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
    });
}

#[test]
fn what_still_waits_is_refused_when_a_drain_ends() {
    on_both_drivers(|driver| {
        let slots = Slots::streaming(&["m"]);
        let more = format!("{KEEP_ALIVE}server.shutdown_timeout = \"3s\"");
        let mut gateway = one_slot(driver, &slots, &more);
        let mut first = holder(&gateway, &slots);
        let mut second = send_in_turn(&gateway, "2", &[]);
        let mut third = send(&gateway, CHAT, &[], STREAM);
        begins(&mut third, "text/event-stream");
        gateway.signal("TERM");
        let since = Instant::now();
        let response = second.response();
        let message = response.is_error(503, "service_unavailable", "SHUTTING_DOWN");
        assert_eq!(message, "the gateway is shutting down");
        assert!(response.header("Retry-After").is_some());
        assert!(
            since.elapsed() > Duration::from_secs(2),
            "{:?}",
            since.elapsed()
        );
        let rest = third.rest_of_stream();
        assert!(
            rest.ends_with(
                "data: {\"error\":{\"message\":\"the gateway is shutting down\",\
             \"type\":\"service_unavailable\",\"code\":\"SHUTTING_DOWN\"}}\n\n"
            ),
            "{rest}"
        );
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
        assert!(first.is_closed());
        assert_eq!(slots.backend.count(), 1);
    });
}

#[test]
fn an_endpoint_that_a_reload_brings_takes_those_that_wait() {
    on_both_drivers(|driver| {
        for workers in [1, 3] {
            let [old, new] = [Slots::new(&["m"]), Slots::new(&["m"])];
            let of_old = endpoint("one", "vllm", &old.backend, "max_concurrent = 1");
            let of_new = endpoint("two", "vllm", &new.backend, "max_concurrent = 1");
            let more = format!("server.workers = {workers}");
            let mut gateway = start(driver, std::slice::from_ref(&of_old), &more);
            let mut first = send(&gateway, CHAT, &[], BODY);
            old.wait_running(1);
            let mut second = send(&gateway, CHAT, &[], BODY);
            gateway.rewrite(&(of_old + &of_new));
            gateway.signal("HUP");
            wait_until("its models", || new.backend.listings() > 0);
            let since = Instant::now();
            new.wait_running(1);
            assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
            new.end_one();
            let response = second.response();
            assert_eq!(response.header("X-Olla-Endpoint"), Some("two"));
            old.end_one();
            assert_eq!(first.response().header("X-Olla-Endpoint"), Some("one"));
        }
    });
}

#[test]
fn an_endpoint_that_recovers_takes_those_that_wait() {
    on_both_drivers(|driver| {
        let [old, new] = [Slots::new(&["m"]), Slots::new(&["m"])];
        new.backend.set_health(503);
        let endpoints = [
            endpoint("one", "vllm", &old.backend, "max_concurrent = 1"),
            endpoint("two", "vllm", &new.backend, "max_concurrent = 1"),
        ];
        let gateway = start(driver, &endpoints, "");
        let _first = send(&gateway, CHAT, &[], BODY);
        old.wait_running(1);
        let mut second = send(&gateway, CHAT, &[], BODY);
        new.backend.set_health(200);
        wait_until("its models", || new.backend.listings() > 0);
        let since = Instant::now();
        new.wait_running(1);
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        new.end_one();
        assert_eq!(second.response().header("X-Olla-Endpoint"), Some("two"));
        assert_eq!(old.running(), 1);
    });
}

#[test]
fn an_endpoint_that_a_reload_removes_is_not_waited_for() {
    on_both_drivers(|driver| {
        let [one, two] = [Slots::new(&["m", "n"]), Slots::new(&["m"])];
        let of_one = endpoint("one", "vllm", &one.backend, "max_concurrent = 1");
        let of_two = endpoint("two", "vllm", &two.backend, "max_concurrent = 1");
        let mut gateway = start(driver, &[of_one, of_two.clone()], ONE_CORE);
        let mut running = [
            send_in_turn(&gateway, "1", &[]),
            send_in_turn(&gateway, "2", &[]),
        ];
        one.wait_running(1);
        two.wait_running(1);
        let mut either = send_in_turn(&gateway, "3", &[]);
        let only_one = r#"{"model":"n","messages":[]}"#;
        let mut gone = send(&gateway, CHAT, &[], only_one);
        in_turn(&gateway);
        gateway.rewrite(&of_two);
        gateway.signal("HUP");
        let since = Instant::now();
        let response = gone.response();
        response.is_error(404, "not_found", "MODEL_NOT_FOUND");
        assert!(since.elapsed() < PATIENCE / 4);
        // What runs there goes on, and its slot is nobody's any more.
        one.end_one();
        two.end_one();
        two.wait_running(1);
        two.end_one();
        assert_eq!(either.response().header("X-Olla-Endpoint"), Some("two"));
        for client in &mut running {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!((one.order().len(), two.order().len()), (1, 2));
    });
}

#[test]
fn an_endpoint_that_goes_down_is_not_waited_for() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let gateway = one_slot(driver, &slots, "");
        let mut first = holder(&gateway, &slots);
        let mut second = send_in_turn(&gateway, "2", &[]);
        slots.backend.set_health(500);
        let response = second.response();
        let message = response.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
        // As one that comes now.
        let another = post(&gateway, CHAT, &[], BODY);
        assert_eq!(
            another.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS"),
            message
        );
        slots.end_one();
        assert_eq!(first.response().status, 200);
        assert_eq!(slots.order(), ["first"]);
    });
}
