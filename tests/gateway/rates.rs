//! Rate limits: what counts, for whom, what it says; and the order of all checks.
//!
//! Contract: docs/contract/surface.md#10, docs/contract/surface.md#14

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, endpoint, exchange, get, on_both_drivers,
    post, wait_for,
};

const X: &str = "/olla/proxy/x";

fn over(driver: Driver, backend: &Backend, limits: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    let more = format!("[server.rate_limits]\n{limits}");
    Gateway::start(&Config::new(driver).more(&endpoints).more(&more))
}

#[track_caller]
fn is_refused(answer: &Response) -> u64 {
    let message = answer.is_error(429, "rate_limit_exceeded", "RATE_LIMIT_EXCEEDED");
    assert!(message.contains("limit"), "{message}");
    let after = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!(after >= 1);
    after
}

fn number(answer: &Response, name: &str) -> u64 {
    answer
        .header(name)
        .unwrap_or_else(|| panic!("{name} in {answer:?}"))
        .parse()
        .unwrap()
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn the_limit_of_each_address_counts_down_and_refuses() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "per_ip_requests_per_minute = 6\nburst_size = 6",
        );
        for left in [5, 4, 3, 2, 1, 0] {
            let answer = get(&gateway, X, &[]);
            assert_eq!(answer.status, 200);
            assert_eq!(number(&answer, "X-RateLimit-Limit"), 6);
            assert_eq!(number(&answer, "X-RateLimit-Remaining"), left);
            let reset = number(&answer, "X-RateLimit-Reset");
            let full_in = reset.saturating_sub(unix_now());
            assert!(full_in <= (6 - left) * 10 + 1, "{full_in} for {left}");
            assert!(full_in + 10 >= (6 - left) * 10, "{full_in} for {left}");
            assert_eq!(answer.header("Retry-After"), None);
        }
        let answer = get(&gateway, X, &["Origin: https://page.test"]);
        let after = is_refused(&answer);
        assert!((8..=11).contains(&after), "{after}");
        assert_eq!(number(&answer, "X-RateLimit-Remaining"), 0);
        // A page must be able to read it.
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(answer.header("X-Olla-Endpoint"), None);
        assert_eq!(backend.count(), 6);
    });
}

#[test]
fn tokens_come_back_with_time() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "per_ip_requests_per_minute = 120\nburst_size = 1",
        );
        assert_eq!(get(&gateway, X, &[]).status, 200);
        is_refused(&get(&gateway, X, &[]));
        // Two in a second; a refused request takes none.
        wait_for("a token", Duration::from_secs(5), || {
            (get(&gateway, X, &[]).status == 200).then_some(())
        });
    });
}

#[test]
fn a_burst_of_zero_admits_nothing_and_warns() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "per_ip_requests_per_minute = 60\nburst_size = 0",
        );
        is_refused(&get(&gateway, X, &[]));
        gateway.wait_line(&["WARN", "burst_size"]);
    });
}

#[test]
fn what_is_not_proxied_is_never_limited() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let limits =
            "per_ip_requests_per_minute = 1\nglobal_requests_per_minute = 1\nburst_size = 1";
        let gateway = over(driver, &backend, limits);
        let free = [
            ("/olla/models", 200),
            ("/olla/proxy/v1/models", 200),
            ("/olla/vllm/v1/models", 200),
            ("/internal/health", 200),
            ("/internal/status", 200),
            ("/version", 200),
            ("/nosuch", 404),
            ("/olla/nosuch/x", 404),
        ];
        for (path, status) in free.into_iter().cycle().take(24) {
            let answer = get(&gateway, path, &[]);
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("X-RateLimit-Limit"), None);
        }
        assert_eq!(get(&gateway, X, &[]).status, 200);
        is_refused(&get(&gateway, X, &[]));
        is_refused(&get(&gateway, "/olla/vllm/x", &[]));
    });
}

#[test]
fn the_messages_route_shares_the_buckets() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "per_ip_requests_per_minute = 1\nburst_size = 1",
        );
        assert_eq!(get(&gateway, X, &[]).status, 200);
        for path in [
            "/olla/anthropic/v1/messages",
            "/olla/anthropic/v1/messages/count_tokens",
        ] {
            let answer = post(
                &gateway,
                path,
                &[],
                r#"{"model":"m","max_tokens":1,"messages":[]}"#,
            );
            assert_eq!(answer.status, 429, "{path}");
        }
    });
}

#[test]
fn the_global_limit_works_alone_and_shows_no_figures() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(
            driver,
            &backend,
            "global_requests_per_minute = 6\nburst_size = 3",
        );
        for _ in 0..3 {
            let answer = get(&gateway, X, &[]);
            assert_eq!(answer.status, 200);
            for name in [
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
            ] {
                assert_eq!(answer.header(name), None);
            }
        }
        let after = is_refused(&get(&gateway, X, &[]));
        assert!((8..=11).contains(&after), "{after}");
        assert_eq!(backend.count(), 3);
    });
}

#[test]
fn the_health_limit_is_one_route_s_alone() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        // The harness itself asks for health until it answers.
        let gateway = over(
            driver,
            &backend,
            "health_requests_per_minute = 6\nburst_size = 20",
        );
        let limit = |answer: &Response| number(answer, "X-RateLimit-Limit");
        let refused = wait_for("the limit", Duration::from_secs(10), || {
            let answer = get(&gateway, "/internal/health", &[]);
            assert_eq!(limit(&answer), 6);
            (answer.status == 429).then_some(answer)
        });
        is_refused(&refused);
        assert_eq!(get(&gateway, "/internal/ready", &[]).status, 200);
        assert_eq!(get(&gateway, X, &[]).status, 200);
    });
}

#[test]
fn an_endpoint_without_a_token_is_left_out() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let endpoints = [
            endpoint("one", "vllm", &one, ""),
            endpoint("two", "vllm", &two, ""),
        ];
        let limits = "[server.rate_limits]\nburst_size = 2\n[server.rate_limits.per_endpoint]\n\
                      default_requests_per_minute = 1\noverrides = { two = 2 }";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(limits));
        for _ in 0..4 {
            let answer = get(&gateway, X, &[]);
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("X-RateLimit-Limit"), None);
        }
        assert_eq!((one.count(), two.count()), (2, 2));
        // The nearer of the two has a token again after 30 seconds.
        let after = is_refused(&get(&gateway, X, &[]));
        assert!((25..=31).contains(&after), "{after}");
    });
}

#[test]
fn a_second_attempt_takes_a_token_too() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let endpoints = [
            endpoint(
                "one",
                "vllm",
                &one,
                "priority = 200\ncheck_interval = \"1h\"",
            ),
            endpoint("two", "vllm", &two, "priority = 100"),
        ];
        let limits = "proxy.load_balancer = \"priority\"\n[server.rate_limits]\nburst_size = 1\n\
                      [server.rate_limits.per_endpoint]\ndefault_requests_per_minute = 1";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(limits));
        one.stop();
        let answer = get(&gateway, X, &[]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"));
        // Its token went to the attempt that came after the failed one.
        is_refused(&get(&gateway, X, &[]));
        assert_eq!(two.count(), 1);
    });
}

#[test]
fn an_endpoint_s_override_of_zero_is_no_limit() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let limits = "burst_size = 1\n[server.rate_limits.per_endpoint]\n\
                      default_requests_per_minute = 1\noverrides = { one = 0 }";
        let gateway = over(driver, &backend, limits);
        for _ in 0..5 {
            assert_eq!(get(&gateway, X, &[]).status, 200);
        }
    });
}

/// Whose request it is: header lines of three requests with a burst of two; whether they are one
/// client's.
#[test]
fn forwarded_addresses_count_when_the_peer_is_trusted() {
    on_both_drivers(|driver| {
        let trusting = "trust_proxy_headers = true";
        let nobody = "trust_proxy_headers = true\ntrusted_proxy_cidrs = []";
        let others = "trust_proxy_headers = true\ntrusted_proxy_cidrs = [\"192.0.2.0/24\"]";
        let rows: [(&str, [&str; 3], bool); 10] = [
            // Forged entries stand to the left of what the trusted proxy appended.
            (
                trusting,
                [
                    "X-Forwarded-For: 1.1.1.1, 203.0.113.5",
                    "X-Forwarded-For: 2.2.2.2, 203.0.113.5",
                    "X-Forwarded-For: 3.3.3.3, 203.0.113.5",
                ],
                true,
            ),
            (
                trusting,
                [
                    "X-Forwarded-For: 203.0.113.5",
                    "X-Forwarded-For: 203.0.113.6",
                    "X-Forwarded-For: 203.0.113.7",
                ],
                false,
            ),
            // Trusted hops are walked over.
            (
                trusting,
                [
                    "X-Forwarded-For: 203.0.113.5, 10.0.0.1",
                    "X-Forwarded-For: 203.0.113.5, 10.0.0.2",
                    "X-Forwarded-For: 203.0.113.5, 192.168.1.1",
                ],
                true,
            ),
            // All trusted: the leftmost.
            (
                trusting,
                [
                    "X-Forwarded-For: 10.0.0.9, 10.0.0.1",
                    "X-Forwarded-For: 10.0.0.9, 10.0.0.2",
                    "X-Forwarded-For: 10.0.0.9",
                ],
                true,
            ),
            // A port is cut off.
            (
                trusting,
                [
                    "X-Forwarded-For: 203.0.113.5:1000",
                    "X-Forwarded-For: 203.0.113.5:2000",
                    "X-Forwarded-For: 203.0.113.5",
                ],
                true,
            ),
            (
                trusting,
                [
                    "X-Real-IP: 203.0.113.5",
                    "X-Real-IP: 203.0.113.6",
                    "X-Real-IP: 203.0.113.7",
                ],
                false,
            ),
            // What is no address ends the search: the peer.
            (
                trusting,
                [
                    "X-Forwarded-For: a",
                    "X-Forwarded-For: b",
                    "X-Forwarded-For: c",
                ],
                true,
            ),
            (
                "trust_proxy_headers = false",
                [
                    "X-Forwarded-For: 203.0.113.5",
                    "X-Forwarded-For: 203.0.113.6",
                    "X-Real-IP: 203.0.113.7",
                ],
                true,
            ),
            (
                nobody,
                [
                    "X-Forwarded-For: 203.0.113.5",
                    "X-Forwarded-For: 203.0.113.6",
                    "X-Real-IP: 203.0.113.7",
                ],
                true,
            ),
            (
                others,
                [
                    "X-Forwarded-For: 203.0.113.5",
                    "X-Forwarded-For: 203.0.113.6",
                    "X-Real-IP: 203.0.113.7",
                ],
                true,
            ),
        ];
        let backend = Backend::ok(&["m"]);
        for (trust, fields, one_client) in rows {
            let limits = format!("per_ip_requests_per_minute = 6\nburst_size = 2\n{trust}");
            let gateway = over(driver, &backend, &limits);
            let statuses = fields.map(|field| get(&gateway, X, &[field]).status);
            let wanted = if one_client { 429 } else { 200 };
            assert_eq!(statuses, [200, 200, wanted], "{fields:?} {trust}");
        }
    });
}

#[test]
fn the_address_found_is_told_to_the_backend() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "trust_proxy_headers = true");
        get(
            &gateway,
            X,
            &["X-Forwarded-For: 1.1.1.1, 203.0.113.5, 10.0.0.1"],
        );
        assert_eq!(backend.last().header("X-Real-IP"), Some("203.0.113.5"));
        let gateway = over(driver, &backend, "trust_proxy_headers = false");
        get(&gateway, X, &["X-Forwarded-For: 1.1.1.1"]);
        assert_eq!(backend.last().header("X-Real-IP"), Some("127.0.0.1"));
    });
}

#[test]
fn a_backend_s_own_figures_pass_only_without_a_limit() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-RateLimit-Limit: 77\r\n\
                 X-RateLimit-Remaining: 7\r\nX-RateLimit-Reset: 1\r\n\r\n",
            );
        });
        let names = [
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
        ];
        let gateway = over(driver, &backend, "");
        let answer = get(&gateway, X, &[]);
        assert_eq!(names.map(|name| number(&answer, name)), [77, 7, 1]);
        let gateway = over(
            driver,
            &backend,
            "per_ip_requests_per_minute = 60\nburst_size = 5",
        );
        let answer = get(&gateway, X, &[]);
        let [limit, remaining, reset] = names.map(|name| number(&answer, name));
        assert_eq!((limit, remaining), (60, 4));
        assert!(reset > 1, "{reset}");
    });
}

/// Each request fails an early check and every later one: the earliest answers.
#[test]
fn checks_have_their_order() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let limits = "[server.request_limits]\nmax_body_size = 10\nmax_header_size = 4096\n\
                      [server.rate_limits]\nper_ip_requests_per_minute = 1\nburst_size = 1";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(limits));
        // Takes the only token.
        assert_eq!(get(&gateway, X, &[]).status, 200);
        let pad = format!("X-Pad: {}", "x".repeat(5000));
        let send = |line: &str, fields: &str| {
            let mut client = Client::to(&gateway);
            client.send(format!(
                "{line} HTTP/1.1\r\nHost: h\r\n{fields}{pad}\r\nContent-Length: 11\r\n\r\nhello world"
            ));
            client.response()
        };
        assert_eq!(send("POST /nosuch", "Bad : 1\r\n").status, 400);
        assert_eq!(
            send("OPTIONS /nosuch", "Access-Control-Request-Method: X\r\n").status,
            204
        );
        let climbs = send("POST /olla/proxy/../../x", "");
        climbs.is_error(400, "bad_request", "INVALID_PATH");
        assert_eq!(send("POST /nosuch", "").status, 404);
        assert_eq!(send("POST /version", "").status, 405);
        assert_eq!(send("POST /olla/ollama/api/pull", "").status, 501);
        assert_eq!(send("POST /olla/proxy/x", "").status, 429);
        // Below here without the rate limit.
        let limits = "[server.request_limits]\nmax_body_size = 100\nmax_header_size = 4096";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(limits));
        let both = format!("POST /olla/ollama/x\r\n{pad}");
        assert_eq!(exchange(&gateway, &both, &[b'x'; 101]).status, 431);
        assert_eq!(
            exchange(&gateway, "POST /olla/ollama/x", &[b'x'; 101]).status,
            413
        );
        let mut client = Client::to(&gateway);
        client.send(
            "POST /olla/ollama/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        );
        assert_eq!(client.response().status, 400);
        let answer = post(&gateway, "/olla/ollama/x", &[], r#"{"model":"nosuch"}"#);
        answer.is_error(404, "not_found", "ENDPOINT_NOT_FOUND");
        let answer = post(&gateway, "/olla/vllm/x", &[], r#"{"model":"nosuch"}"#);
        answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
        assert_eq!(backend.count(), 1);
    });
}

/// docs/contract/surface.md#10.1: nobody has to guess which limit it was.
#[test]
fn a_refusal_names_its_key_and_is_logged_once_a_minute() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let key = "server.rate_limits.per_ip_requests_per_minute";
        for (limits, by_default) in [
            ("per_ip_requests_per_minute = 100\nburst_size = 0", true),
            ("per_ip_requests_per_minute = 7\nburst_size = 0", false),
        ] {
            let limits =
                format!("global_requests_per_minute = 0\nhealth_requests_per_minute = 0\n{limits}");
            // An empty bucket refuses from the first request on, however slow the machine is.
            let gateway = over(driver, &backend, &limits);
            for _ in 0..3 {
                let refused = get(&gateway, X, &[]);
                let message = refused.is_error(429, "rate_limit_exceeded", "RATE_LIMIT_EXCEEDED");
                assert!(message.contains(key), "{message}");
                assert_eq!(message.contains("by default"), by_default, "{message}");
            }
            gateway.wait_log("Rate limit reached");
            let log = gateway.log();
            let lines: Vec<_> = log
                .lines()
                .filter(|l| l.contains("Rate limit reached"))
                .collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            let value = if by_default { 100 } else { 7 };
            for part in [
                "\"level\":\"WARN\"".to_owned(),
                format!("\"key\":\"{key}\""),
                format!("\"value\":{value}"),
                "\"client_ip\":\"127.0.0.1\"".to_owned(),
            ] {
                assert!(lines[0].contains(&part), "{part}: {}", lines[0]);
            }
        }
    });
}

#[test]
fn pages_and_listings_have_a_limit_of_their_own() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        // The start itself reads pages until the endpoint is healthy.
        let endpoints = endpoint("one", "vllm", &backend, "");
        let limits = "[server.rate_limits]\npages_per_second = 2";
        let config = Config::new(driver).more(&endpoints).more(limits);
        let gateway = Gateway::start(&config.unsettled());
        let pages = [
            "/version",
            "/internal/process",
            "/olla/models",
            "/olla/vllm/v1/models",
        ];
        let refused = wait_for("a refusal", Duration::from_secs(20), || {
            let refused = pages.map(|path| get(&gateway, path, &[]));
            refused.into_iter().find(|answer| answer.status == 429)
        });
        assert!(is_refused(&refused) <= 1);
        let message = refused.is_error(429, "rate_limit_exceeded", "RATE_LIMIT_EXCEEDED");
        assert!(message.contains("2 requests per second"), "{message}");
        assert_eq!(refused.header("X-RateLimit-Limit"), None);
        // Nothing else is under this limit.
        for _ in 0..10 {
            assert_eq!(get(&gateway, "/internal/health", &[]).status, 200);
            assert_eq!(get(&gateway, X, &[]).status, 200);
            assert_eq!(get(&gateway, "/internal/none", &[]).status, 404);
        }
    });
}
