//! Requests that come back to the gateway.
//!
//! Contract: docs/contract/balancing.md#9.3

use testkit::{Backend, Config, Gateway, endpoint, get, on_both_drivers};

#[test]
fn a_request_that_comes_back_is_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway =
            Gateway::start(&Config::new(driver).more(&endpoint("one", "vllm", &backend, "")));
        assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
        let own = backend.last().header("Via").unwrap().to_owned();
        let many = format!("Via: {}", ["1.1 olla-1/1"; 9].join(", "));
        for line in [format!("Via: 1.0 front, {own}, 1.1 back"), many] {
            let before = backend.count();
            let answer = get(&gateway, "/olla/proxy/x", &[&line]);
            answer.is_error(508, "loop_detected", "LOOP_DETECTED");
            assert_eq!(backend.count(), before);
        }
        let line = format!("Via: {}", ["1.1 olla-1/1"; 8].join(", "));
        assert_eq!(get(&gateway, "/olla/proxy/x", &[&line]).status, 200);
    });
}

/// An endpoint that is the gateway itself.
#[test]
fn an_endpoint_that_is_the_gateway_ends_in_one_error() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let mut gateway =
            Gateway::start(&Config::new(driver).more(&endpoint("one", "vllm", &backend, "")));
        let checks = format!(
            "url = \"{}/olla/proxy\"\npreserve_path = true\nhealth_check_url = \"{1}/health\"\nmodel_url = \"{1}/v1/models\"",
            gateway.url(),
            backend.url()
        );
        gateway.rewrite(&endpoint("one", "vllm", &backend, &checks));
        gateway.signal("HUP");
        gateway.wait_log("Configuration reloaded");
        gateway.wait_status("one", "healthy");
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        assert_eq!(answer.status, 508, "{}", answer.text());
        assert_eq!(backend.count(), 0);
    });
}
