//! Who may read the operator's pages.
//!
//! Contract: docs/contract/operations.md#7, docs/contract/observe.md#8

use testkit::{Client, Config, Gateway, Response, on_both_drivers};

fn ask(gateway: &Gateway, path: &str, lines: &[&str]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let mut client = Client::to(gateway);
    client.send(format!("GET {path} HTTP/1.1\r\n{lines}\r\n"));
    client.response()
}

/// The message names the address, so `is_error` does not fit.
#[track_caller]
fn is_denied(answer: &Response, key: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "ACCESS_DENIED", "{error}");
    assert!(error["message"].as_str().unwrap().contains(key), "{error}");
}

#[test]
fn browsers_must_name_the_operator_s_host_and_scrapers_need_not() {
    on_both_drivers(|driver| {
        let hosts = "[dashboard.access_policy]\nallowed_hosts = [\"olla.example\"]";
        let gateway = Gateway::start(&Config::new(driver).more(hosts));
        let browsers = [
            "Origin: http://evil.example",
            "Sec-Fetch-Site: same-origin",
            "sec-fetch-storage-access: none",
            "Accept-Language: en",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
        ];
        for browser in browsers {
            for path in ["/internal/status", "/internal/metrics", "/internal/nosuch"] {
                let answer = ask(&gateway, path, &["Host: evil.example:40114", browser]);
                is_denied(&answer, "dashboard.access_policy.allowed_hosts");
            }
            for host in [
                "127.0.0.1:1",
                "localhost",
                "gpu-box",
                "Olla.example:9",
                "a.local",
            ] {
                let host = format!("Host: {host}");
                let answer = ask(&gateway, "/internal/status", &[&host, browser]);
                assert_eq!(answer.status, 200, "{host} {browser}");
            }
            for path in ["/internal/health", "/internal/ready", "/version"] {
                let answer = ask(&gateway, path, &["Host: evil.example", browser]);
                assert_ne!(answer.status, 403, "{path}");
            }
        }
        let scraper = [
            "Host: evil.example",
            "User-Agent: Prometheus/3",
            "Accept: */*",
        ];
        assert_eq!(ask(&gateway, "/internal/metrics", &scraper).status, 200);
    });
}

#[test]
fn a_proxy_on_the_same_machine_opens_the_dashboard_to_nobody() {
    on_both_drivers(|driver| {
        let trusting = "[server.rate_limits]\ntrust_proxy_headers = true\n\
                        [dashboard]\ngate_internal_api = true\n\
                        access_policy.allowed_hosts = [\"localhost\", \"gateway.test\"]\n\
                        access_policy.allowed_cidrs = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
        let plain = Gateway::start(&Config::new(driver));
        let trusting = Gateway::start(&Config::new(driver).more(trusting));
        let host = "Host: localhost";
        for line in [
            "X-Forwarded-For: 127.0.0.1",
            "Forwarded: for=127.0.0.1",
            "X-Real-IP: 10.0.0.1",
            "x-forwarded-host: localhost",
        ] {
            let answer = ask(&plain, "/internal/ui/", &[host, line]);
            is_denied(&answer, "server.rate_limits.trust_proxy_headers");
        }
        for gateway in [&plain, &trusting] {
            assert_eq!(ask(gateway, "/internal/ui/", &[host]).status, 200);
        }
        for path in ["/internal/ui/", "/internal/status"] {
            let answer = ask(&trusting, path, &[host, "X-Forwarded-For: 10.1.2.3"]);
            assert_eq!(answer.status, 200, "{path}");
            let answer = ask(&trusting, path, &[host, "X-Forwarded-For: 203.0.113.9"]);
            is_denied(&answer, "dashboard.access_policy.allowed_cidrs");
            let answer = ask(&trusting, path, &[host, "X-Forwarded-For: nonsense"]);
            is_denied(&answer, "server.rate_limits.trust_proxy_headers");
        }
    });
}
