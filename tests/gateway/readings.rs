//! What the gateway reads of endpoints for scheduling: models in memory and slots.
//!
//! Contract: docs/contract/scheduling.md#3, docs/contract/scheduling.md#4,
//! docs/contract/scheduling.md#6, docs/contract/catalogue.md#3.3

use std::time::Duration;

use crate::slots::{BODY, CHAT, Slots, send, start};
use testkit::{Backend, Client, Config, Gateway, endpoint, get, on_both_drivers, wait_until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const EVERY_SECOND: &str = "[discovery.model_discovery]\ninterval = \"1s\"";

/// The context that the gateway shows of a model of llama.cpp.
fn context(gateway: &Gateway, model: &str) -> Option<u64> {
    let list = get(gateway, "/olla/llamacpp/v1/models", &[]).json();
    let items = list["data"].as_array().unwrap();
    let item = items.iter().find(|item| item["id"] == model)?;
    item["max_model_len"].as_u64()
}

fn props(slots: u32, context: u32) -> String {
    format!(r#"{{"total_slots":{slots},"default_generation_settings":{{"n_ctx":{context}}}}}"#)
}

#[test]
fn slots_are_read_with_each_listing() {
    on_both_drivers(|driver| {
        let [one, fixed, other] = ["m", "n", "o"].map(|model| Backend::ok(&[model]));
        one.set_document("/props", 200, &props(2, 2048));
        fixed.set_document("/props", 200, &props(2, 2048));
        let endpoints = [
            endpoint(
                "one",
                "llamacpp",
                &one,
                "auth = { type = \"bearer\", token = \"secret\" }",
            ),
            endpoint("fixed", "llamacpp", &fixed, "context_length = 512"),
            endpoint("other", "vllm", &other, ""),
        ];
        let config = Config::new(driver).more(&endpoints.concat());
        let gateway = Gateway::start(&config.more(EVERY_SECOND));
        wait_until("the context of one slot", || {
            context(&gateway, "m") == Some(2048)
        });
        wait_until("the slots of the second endpoint", || {
            fixed.readings("/props") > 0
        });
        assert_eq!(context(&gateway, "n"), Some(512), "as configured");
        let request = one.last_reading("/props");
        let agent = request.header("User-Agent").unwrap();
        assert!(agent.starts_with("olla-Discovery/"), "{agent}");
        assert_eq!(request.header("Authorization"), Some("Bearer secret"));
        one.set_document("/props", 200, &props(4, 1024));
        wait_until("another context", || context(&gateway, "m") == Some(1024));
        let listings = one.listings();
        wait_until("further listings", || one.listings() > listings + 1);
        assert_eq!(context(&gateway, "m"), Some(1024), "a listing has none");
        assert!(one.readings("/props") <= one.listings() + 1, "one for each");
        assert_eq!(other.readings("/props"), 0);
    });
}

#[test]
fn models_in_memory_are_read_after_a_listing_of_several() {
    on_both_drivers(|driver| {
        let several = Backend::ok(&["a", "b"]);
        several.set_document("/api/ps", 200, r#"{"models":[{"name":"a"}]}"#);
        let single = Backend::ok(&["c"]);
        single.set_document("/api/ps", 200, r#"{"models":[]}"#);
        let broken = Backend::ok(&["d", "e"]);
        broken.set_document("/api/ps", 500, "<html>");
        let endpoints = [
            endpoint("several", "ollama", &several, ""),
            endpoint("single", "ollama", &single, ""),
            endpoint("broken", "ollama", &broken, ""),
        ];
        let config = Config::new(driver).more(&endpoints.concat());
        let gateway = Gateway::start(&config.more(EVERY_SECOND));
        wait_until("the models in memory", || {
            several.readings("/api/ps") > 1 && broken.readings("/api/ps") > 1
        });
        wait_until("a second listing", || single.listings() > 1);
        assert_eq!(single.readings("/api/ps"), 0, "there is no choice");
        // A failed reading is no failed check.
        let checks = broken.checks();
        wait_until("further checks", || broken.checks() > checks + 1);
        gateway.wait_status("broken", "healthy");
        assert!(!gateway.log().contains("Endpoint status changed"));
    });
}

#[test]
fn a_model_that_leaves_the_memory_is_looked_for() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["a", "b"]);
        let ends = OffsetDateTime::now_utc() + Duration::from_secs(2);
        let ends = ends.format(&Rfc3339).unwrap();
        let list = format!(r#"{{"models":[{{"name":"a","expires_at":"{ends}"}}]}}"#);
        backend.set_document("/api/ps", 200, &list);
        let config = Config::new(driver).more(&endpoint("one", "ollama", &backend, ""));
        let _gateway = Gateway::start(&config);
        wait_until("the models in memory", || backend.readings("/api/ps") == 1);
        backend.set_document("/api/ps", 200, r#"{"models":[]}"#);
        wait_until("a second look", || backend.readings("/api/ps") == 2);
        assert!(backend.listings() < 3, "no listing asked for it");
    });
}

#[test]
fn a_reload_changes_whether_models_in_memory_are_read() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["a", "b"]);
        backend.set_document("/api/ps", 200, r#"{"models":[]}"#);
        let endpoints = endpoint("one", "ollama", &backend, "");
        let never = format!("{endpoints}\n[proxy.least_time]\nwarmth_interval = \"0s\"\n");
        let config = Config::new(driver).more(&never);
        let mut gateway = Gateway::start(&config.more(EVERY_SECOND));
        let listings = backend.listings();
        wait_until("further listings", || backend.listings() > listings + 1);
        assert_eq!(backend.readings("/api/ps"), 0);
        gateway.rewrite("[proxy.least_time]\nwarmth_interval = \"1s\"");
        gateway.signal("HUP");
        wait_until("the models in memory", || backend.readings("/api/ps") > 0);
    });
}

/// What vLLM tells of its requests.
fn metrics(running: u32, waiting: u32) -> String {
    format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n")
}

#[test]
fn metrics_are_read_while_requests_run() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let backend = &slots.backend;
        backend.set_document("/metrics", 200, &metrics(1, 0));
        let more = "proxy.least_time.load_interval = \"100ms\"";
        let gateway = start(driver, &[endpoint("one", "vllm", backend, "")], more);
        assert_eq!(backend.readings("/metrics"), 0);
        let mut client = send(&gateway, CHAT, &[], BODY);
        wait_until("three readings", || backend.readings("/metrics") >= 3);
        backend.set_document("/metrics", 200, "<html>");
        gateway.wait_log("Endpoint metrics cannot be read");
        let given_up = backend.readings("/metrics");
        let checks = backend.checks();
        wait_until("further checks", || backend.checks() > checks + 1);
        assert_eq!(backend.readings("/metrics"), given_up);
        slots.release(1);
        assert_eq!(client.response().status, 200);
    });
}

#[test]
fn slots_are_learned_from_what_waits_at_an_endpoint() {
    on_both_drivers(|driver| {
        let slots = Slots::new(&["m"]);
        let backend = &slots.backend;
        backend.set_document("/metrics", 200, &metrics(2, 1));
        let more = "proxy.least_time.load_interval = \"200ms\"";
        let gateway = start(driver, &[endpoint("one", "vllm", backend, "")], more);
        let send_three =
            || -> Vec<Client> { (0..3).map(|_| send(&gateway, CHAT, &[], BODY)).collect() };
        let first = send_three();
        slots.wait_running(3);
        let readings = backend.readings("/metrics");
        wait_until("two readings", || {
            backend.readings("/metrics") > readings + 1
        });
        (0..3).for_each(|_| slots.end_one());
        // Two run at a time from now on.
        let second = send_three();
        slots.wait_running(2);
        let readings = backend.readings("/metrics");
        wait_until("two readings", || {
            backend.readings("/metrics") > readings + 1
        });
        assert_eq!(slots.running(), 2);
        // And one more when nothing waits any longer.
        backend.set_document("/metrics", 200, &metrics(2, 0));
        slots.wait_running(3);
        slots.release(3);
        for mut client in first.into_iter().chain(second) {
            assert_eq!(client.response().status, 200);
        }
    });
}
