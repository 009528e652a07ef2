//! Health checks: what takes an endpoint out, and what does not.
//!
//! Contract: docs/contract/observe.md#1, docs/contract/balancing.md#11

use std::time::Duration;

use testkit::{
    Backend, Client, Config, Gateway, Link, PATIENCE, endpoint, get, on_both_drivers, post,
    wait_for, wait_until,
};

const CHAT: &str = "/olla/proxy/v1/chat/completions";

#[test]
fn a_check_that_times_out_counts_for_nothing_while_bytes_arrive() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |_, link| {
            link.begin("text/event-stream");
            while link.chunk("data: x\n\n") && link.left_within(TICK).is_none() {}
        });
        let checks = "check_interval = \"1s\"\ncheck_timeout = \"300ms\"";
        let config = Config::new(driver)
            .more(&endpoint("one", "vllm", &one, checks))
            .more("[discovery.health_check]\nfall = 1");
        let gateway = Gateway::start(&config);
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/stream HTTP/1.1\r\nHost: h\r\n\r\n");
        one.wait_count(1);
        one.set_silent();
        let before = one.checks();
        wait_until("three checks without a response", || {
            one.checks() >= before + 4
        });
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
        drop(client);
        gateway.wait_status("one", "offline");
    });
}

/// The pause between two chunks of a stream.
const TICK: Duration = Duration::from_millis(100);

#[test]
fn an_endpoint_that_loads_its_model_is_warming_and_not_sick() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["m", "own"]), Backend::ok(&["m"]));
        one.set_loading();
        let endpoints = [
            endpoint("one", "llamacpp", &one, ""),
            endpoint("two", "llamacpp", &two, ""),
        ];
        let balancer = "[proxy]\nload_balancer = \"round-robin\"";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(balancer));
        gateway.wait_status("one", "warming");
        let ask = |model: &str| post(&gateway, CHAT, &[], format!(r#"{{"model":"{model}"}}"#));
        // Its models are listed, and it is used where no other endpoint is left.
        wait_for("its models", PATIENCE, || {
            (ask("own").status == 200).then_some(())
        });
        for _ in 0..4 {
            assert_eq!(ask("m").header("X-Olla-Endpoint"), Some("two"));
        }
        let listings = one.listings();
        one.set_health(200);
        gateway.wait_status("one", "healthy");
        wait_until("another listing", || one.listings() > listings);
        let served = |name: &str| ask("m").header("X-Olla-Endpoint") == Some(name);
        wait_until("its turn", || served("one"));
    });
}

#[test]
fn a_lost_connection_causes_a_check_that_brings_the_endpoint_back() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| match request.target.as_str() {
            "/bad" => link.reset(),
            _ => link.ok(),
        });
        let gateway = Gateway::start(&Config::new(driver).more(&endpoint(
            "one",
            "vllm",
            &one,
            "check_interval = \"60s\"",
        )));
        let before = one.checks();
        assert!(get(&gateway, "/olla/proxy/bad", &[]).status >= 500);
        wait_until("a check", || one.checks() > before);
        gateway.wait_status("one", "healthy");
        assert_eq!(get(&gateway, "/olla/proxy/good", &[]).status, 200);
    });
}

#[test]
fn the_last_error_of_traffic_says_what_was_asked() {
    on_both_drivers(|driver| {
        for (end, kind) in [
            (Link::close as fn(&mut Link), "closed"),
            (Link::reset, "reset"),
        ] {
            let one = Backend::new(&["m"], move |_, link| end(link));
            let config = Config::new(driver).more(&endpoint("one", "vllm", &one, ""));
            let gateway = Gateway::start(&config);
            assert_eq!(get(&gateway, "/olla/vllm/v1/x?key=secret", &[]).status, 502);
            wait_until("its last error", || {
                gateway.endpoint("one")["last_error"]["kind"] == kind
            });
            let last = &gateway.endpoint("one")["last_error"];
            assert_eq!(last["url"], format!("{}/v1/x", one.url()));
        }
    });
}

#[test]
fn the_last_error_says_why_an_endpoint_is_not_used() {
    on_both_drivers(|driver| {
        let one = Backend::ok(&["m"]);
        one.set_health(404);
        let gateway = Gateway::start(&Config::new(driver).more(&endpoint("one", "vllm", &one, "")));
        gateway.wait_status("one", "unhealthy");
        let last = gateway.endpoint("one")["last_error"].clone();
        assert_eq!(
            (&last["kind"], &last["status"]),
            (&"not_found".into(), &404.into())
        );
        assert_eq!(last["url"], format!("{}/health", one.url()));
        assert_eq!(gateway.endpoint("one")["breaker"]["state"], "closed");
        wait_until("the next of the row", || {
            let next = &gateway.endpoint("one")["last_error"];
            next["count"].as_u64() > last["count"].as_u64() && next["since"] == last["since"]
        });
        one.set_health(200);
        gateway.wait_status("one", "healthy");
        assert_eq!(gateway.endpoint("one").get("last_error"), None);
        one.set_models(&[]);
        one.stop();
        gateway.wait_status("one", "offline");
        assert_eq!(gateway.endpoint("one")["last_error"]["kind"], "refused");
        one.restart();
        wait_until("no models", || {
            gateway.endpoint("one")["last_error"]["kind"] == "no_models"
        });
    });
}
