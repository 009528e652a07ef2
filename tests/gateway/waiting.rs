//! Requests that wait for an endpoint which dies.
//!
//! Contract: docs/contract/balancing.md#9.2

use std::sync::{Mutex, mpsc};

use testkit::{
    Backend, Client, Config, Driver, FullListener, Gateway, PATIENCE, endpoint, on_both_drivers,
};

const ASK: &str = "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n";

/// `one`, at this URL, is healthy as long as `health` is there; `two` is asked after it.
fn start(driver: Driver, url: &str, health: &Backend, two: Option<&Backend>) -> Gateway {
    let checks = format!(
        "health_check_url = \"{0}/health\"\nmodel_url = \"{0}/v1/models\"",
        health.url()
    );
    let more = format!("url = \"{url}\"\n{checks}\ncheck_interval = \"1s\"\npriority = 200");
    let mut endpoints = endpoint("one", "vllm", health, &more);
    if let Some(two) = two {
        endpoints += &endpoint("two", "vllm", two, "priority = 100");
    }
    let more = "[proxy]\nload_balancer = \"priority\"";
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

#[test]
fn a_waiting_request_leaves_an_endpoint_that_is_found_offline() {
    on_both_drivers(|driver| {
        let (tell, left) = mpsc::channel();
        let tell = Mutex::new(tell);
        let one = Backend::new(&["m"], move |_, link| {
            let _ = tell
                .lock()
                .unwrap()
                .send(link.left_within(PATIENCE).is_some());
        });
        let (health, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let gateway = start(driver, &one.url(), &health, Some(&two));
        let mut client = Client::to(&gateway);
        client.send(ASK);
        one.wait_count(1);
        health.stop();
        let answer = client.response();
        assert_eq!(
            (answer.status, answer.header("X-Olla-Endpoint")),
            (200, Some("two"))
        );
        assert_eq!(
            left.recv_timeout(PATIENCE),
            Ok(true),
            "its connection is closed"
        );
        let left = r#"olla_retries_total{endpoint="one",reason="down"}"#;
        assert_eq!(gateway.metric(left), Some(1.0));
        assert_eq!((one.count(), two.count()), (1, 1));
        // The check has failed, and not the request (docs/contract/operations.md#5).
        let rate = r#"olla_endpoint_success_rate_percent{endpoint="one"}"#;
        assert_eq!(gateway.metric(rate), Some(100.0));
    });
}

#[test]
fn a_pending_connection_is_left_too() {
    on_both_drivers(|driver| {
        let full = FullListener::new();
        let (health, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let url = format!("http://{}", full.address);
        let gateway = start(driver, &url, &health, Some(&two));
        let mut client = Client::to(&gateway);
        client.send(ASK);
        // The connect timeout is a minute.
        health.stop();
        let answer = client.response();
        assert_eq!(
            (answer.status, answer.header("X-Olla-Endpoint")),
            (200, Some("two"))
        );
    });
}

#[test]
fn with_no_other_candidate_it_waits_on() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let told = Mutex::new(told);
        let one = Backend::new(&["m"], move |_, link| {
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            link.ok();
        });
        let health = Backend::ok(&["m"]);
        let gateway = start(driver, &one.url(), &health, None);
        let mut client = Client::to(&gateway);
        client.send(ASK);
        one.wait_count(1);
        health.stop();
        gateway.wait_status("one", "offline");
        let check = || gateway.endpoint("one")["next_check_at"].clone();
        let before = check();
        testkit::wait_until("another check", || check() != before);
        tell.send(()).unwrap();
        let answer = client.response();
        assert_eq!(
            (answer.status, answer.header("X-Olla-Endpoint")),
            (200, Some("one"))
        );
        assert_eq!(one.count(), 1);
    });
}
