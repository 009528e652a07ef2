//! Attempts: what is tried again, where, and what is not; the breaker.
//!
//! Contract: docs/contract/balancing.md#9, docs/contract/balancing.md#10

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{
    Backend, Client, Config, Driver, FullListener, Gateway, Link, PATIENCE, Received, Response,
    endpoint, exchange, get, on_both_drivers, post, wait_until,
};

const X: &str = "/olla/proxy/x";
const CHAT: &str = "/olla/proxy/v1/chat/completions";

/// `one` is always asked first.
fn over_two(driver: Driver, one: &Backend, two: &Backend, more: &str) -> Gateway {
    let endpoints = [
        endpoint(
            "one",
            "vllm",
            one,
            "priority = 200\ncheck_interval = \"60s\"",
        ),
        endpoint(
            "two",
            "ollama",
            two,
            "priority = 100\ncheck_interval = \"60s\"",
        ),
    ];
    let balancer = "[proxy]\nload_balancer = \"priority\"";
    Gateway::start(
        &Config::new(driver)
            .more(&endpoints.concat())
            .more(balancer)
            .more(more),
    )
}

/// Healthy at its checks, and then nobody listens.
fn refusing() -> Backend {
    Backend::ok(&["m"])
}

#[track_caller]
fn was_served_by_two(answer: &Response) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"));
    assert_eq!(answer.header("X-Olla-Backend-Type"), Some("ollama"));
}

#[test]
fn a_refused_connection_goes_on_to_the_next_endpoint() {
    on_both_drivers(|driver| {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let (one, two) = (refusing(), Backend::ok(&["m"]));
            let gateway = over_two(driver, &one, &two, "");
            one.stop();
            let body = format!(r#"{{"model":"m","method":"{method}"}}"#);
            let head = format!("{method} {CHAT}?a=1\r\nContent-Type: application/json\r\nX-Own: 1");
            let answer = exchange(&gateway, &head, body.as_bytes());
            was_served_by_two(&answer);
            // Those of the original decision.
            assert_eq!(answer.header("X-Olla-Routing-Reason"), Some("model_found"));
            let seen = two.last();
            assert_eq!((seen.method.as_str(), seen.text()), (method, body));
            assert_eq!(seen.target, "/v1/chat/completions?a=1");
            assert_eq!(seen.header("X-Own"), Some("1"));
            gateway.wait_status("one", "offline");
            let refused = r#""error":"refused""#;
            gateway.wait_line(&["Connection failed to endpoint", refused]);
            gateway.wait_line(&["Endpoint status changed", refused]);
            // Out at once, for all requests.
            was_served_by_two(&post(&gateway, CHAT, &[], r#"{"model":"m"}"#));
        }
    });
}

/// Ends before a byte of an answer, each in its way.
const BEFORE: [fn(&Received, &mut Link); 2] = [|_, link| link.reset(), |_, link| link.close()];

#[test]
fn a_connection_that_ends_on_the_whole_request_goes_on_to_one_more_endpoint() {
    on_both_drivers(|driver| {
        for end in BEFORE {
            let (one, two) = (Backend::new(&["m"], end), Backend::ok(&["m"]));
            let gateway = over_two(driver, &one, &two, "");
            one.set_health(500);
            was_served_by_two(&post(&gateway, CHAT, &[], r#"{"model":"m"}"#));
            assert!(one.count() >= 1);
            assert_eq!(
                (one.last().text(), two.last().text()),
                (r#"{"model":"m"}"#.into(), r#"{"model":"m"}"#.into())
            );
            gateway.wait_log("Endpoint closed the connection on a request");
            let left = r#"olla_retries_total{endpoint="one",reason="connection"}"#;
            assert_eq!(gateway.metric(left), Some(1.0));
            // The check that the request caused decides, long before the next one of its own.
            gateway.wait_status("one", "offline");
        }
    });
}

/// docs/contract/balancing.md#9.3
#[test]
fn requests_that_kill_leave_every_endpoint_in_service() {
    on_both_drivers(|driver| {
        for end in BEFORE {
            let killed = move |request: &Received, link: &mut Link| {
                if request.text().contains("kill") {
                    end(request, link);
                } else {
                    link.ok();
                }
            };
            let backends = [(); 3].map(|()| Backend::new(&["m"], killed));
            let names = ["one", "two", "three"];
            let listed = names
                .iter()
                .zip(&backends)
                .map(|(name, backend)| endpoint(name, "vllm", backend, "check_interval = \"60s\""));
            let more = "[proxy]\nload_balancer = \"round-robin\"";
            let gateway = Gateway::start(
                &Config::new(driver)
                    .more(&listed.collect::<String>())
                    .more(more),
            );
            let sent = || backends.iter().map(Backend::count).sum::<usize>();
            for round in 1..=12 {
                let answer = post(&gateway, CHAT, &[], r#"{"model":"m","x":"kill"}"#);
                let message = answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
                assert!(message.starts_with("the endpoints "), "{message}");
                assert!(message.ends_with(" closed the connection on this request"));
                assert_eq!(sent(), 2 * round, "two endpoints at most");
            }
            for name in names {
                assert_eq!(gateway.endpoint(name)["status"], "healthy");
            }
            // No breaker is open either: each of them is used.
            for _ in 0..6 {
                assert_eq!(post(&gateway, CHAT, &[], r#"{"model":"m"}"#).status, 200);
            }
            assert!(
                backends
                    .iter()
                    .all(|backend| backend.last().text() == r#"{"model":"m"}"#)
            );
        }
    });
}

#[test]
fn a_suspect_that_fails_its_check_goes_offline() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |_, link| link.close());
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        one.set_health(500);
        was_served_by_two(&post(&gateway, CHAT, &[], r#"{"model":"m"}"#));
        // The next regular check is a minute away.
        gateway.wait_status("one", "unhealthy");
    });
}

#[test]
fn a_connect_timeout_goes_on_to_the_next_endpoint() {
    on_both_drivers(|driver| {
        let full = FullListener::new();
        let (one, two) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let more = format!(
            "url = \"http://{}\"\nhealth_check_url = \"{1}/health\"\nmodel_url = \"{1}/v1/models\"\n\
             priority = 200",
            full.address,
            one.url()
        );
        let endpoints = [
            endpoint("one", "vllm", &one, &more),
            endpoint("two", "ollama", &two, "priority = 100"),
        ];
        let proxy = "[proxy]\nload_balancer = \"priority\"\nconnection_timeout = \"300ms\"";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(proxy));
        was_served_by_two(&get(&gateway, X, &[]));
    });
}

#[test]
fn any_status_but_not_now_is_an_answer_and_is_not_repeated() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            let status = request.target.trim_start_matches('/');
            let fields = "Retry-After: 9\r\nContent-Length: 3";
            link.send(format!("HTTP/1.1 {status} Own\r\n{fields}\r\n\r\nown"));
        });
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        for status in [400, 401, 404, 500, 501, 599] {
            let answer = post(&gateway, &format!("/olla/proxy/{status}"), &[], "{}");
            assert_eq!((answer.status, answer.text().as_str()), (status, "own"));
            assert_eq!(answer.header("Retry-After"), Some("9"));
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        }
        assert_eq!((one.count(), two.count()), (6, 0));
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn silence_and_nonsense_are_not_repeated_and_mark_nobody() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            if request.target == "/silent" {
                link.left_within(PATIENCE);
            } else {
                link.send("nonsense\r\n\r\n");
            }
        });
        let two = Backend::ok(&["m"]);
        let more = "[proxy]\nresponse_header_timeout = \"300ms\"";
        let gateway = over_two(driver, &one, &two, more);
        for (path, code) in [("silent", "BACKEND_TIMEOUT"), ("nonsense", "BACKEND_ERROR")] {
            let answer = get(&gateway, &format!("/olla/proxy/{path}"), &[]);
            answer.is_error(502, "bad_gateway", code);
        }
        assert_eq!((one.count(), two.count()), (2, 0));
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn an_answer_that_has_begun_is_never_repeated() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            link.reset();
        });
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        let answer = get(&gateway, X, &[]);
        assert!(!answer.whole && b"half".starts_with(&answer.body));
        assert_eq!(two.count(), 0);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn all_tried_and_all_failed_is_502_and_then_503() {
    on_both_drivers(|driver| {
        let (one, two) = (refusing(), refusing());
        let gateway = over_two(driver, &one, &two, "");
        one.stop();
        two.stop();
        get(&gateway, X, &[]).is_error(502, "bad_gateway", "BACKEND_ERROR");
        gateway.wait_status("two", "offline");
        get(&gateway, X, &[]).is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
    });
}

#[test]
fn a_provider_s_border_holds_in_a_failover() {
    on_both_drivers(|driver| {
        let (one, two) = (refusing(), Backend::ok(&["m"]));
        let gateway = over_two(driver, &one, &two, "");
        one.stop();
        let answer = post(
            &gateway,
            "/olla/vllm/v1/completions",
            &[],
            r#"{"model":"m"}"#,
        );
        answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
        assert_eq!(two.count(), 0);
    });
}

#[test]
fn the_retry_keys_are_honoured() {
    on_both_drivers(|driver| {
        for retry in [
            "enabled = false",
            "on_connection_failure = false",
            "max_attempts = 1",
        ] {
            let (one, two) = (refusing(), Backend::ok(&["m"]));
            let gateway = over_two(driver, &one, &two, &format!("[proxy.retry]\n{retry}"));
            one.stop();
            get(&gateway, X, &[]).is_error(502, "bad_gateway", "BACKEND_ERROR");
            assert_eq!(two.count(), 0, "{retry}");
        }
        let (one, two) = (refusing(), Backend::ok(&["m"]));
        let gateway = over_two(driver, &one, &two, "[proxy.retry]\nmax_attempts = 2");
        one.stop();
        was_served_by_two(&get(&gateway, X, &[]));
    });
}

#[test]
fn a_backend_that_restarts_between_requests_is_not_noticed() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "check_interval = \"60s\"");
        let idle = "[proxy]\nidle_connection_timeout = \"60s\"\n[server]\nworkers = 1";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(idle));
        for round in 0..20 {
            let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
            assert_eq!(answer.status, 200, "round {round}");
            // Alternately its connections end, and the whole server is another.
            if round % 2 == 0 {
                backend.drop_connections();
            } else {
                backend.stop();
                backend.restart();
            }
        }
        assert_eq!(backend.count(), 20);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn a_kept_connection_that_dies_under_a_request_is_replaced() {
    on_both_drivers(|driver| {
        // The second request of each connection meets a server that has just closed it.
        let ends = Arc::new(AtomicBool::new(true));
        let ending = Arc::clone(&ends);
        let backend = Backend::new(&["m"], move |request, link| {
            if request.target == "/dies" && ending.swap(false, Ordering::SeqCst) {
                link.reset();
            } else {
                link.ok();
            }
        });
        let endpoints = endpoint("one", "vllm", &backend, "check_interval = \"60s\"");
        let gateway = Gateway::start(
            &Config::new(driver)
                .more(&endpoints)
                .more("[server]\nworkers = 1"),
        );
        assert_eq!(get(&gateway, X, &[]).status, 200);
        assert_eq!(post(&gateway, "/olla/proxy/dies", &[], "{}").status, 200);
        assert_eq!(backend.count(), 3);
        let connections: Vec<u64> = backend.seen().iter().map(|seen| seen.connection).collect();
        assert!(connections[1] == connections[0] && connections[2] != connections[1]);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn long_prompts_open_no_breaker() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            if request.target == "/hang" {
                link.left_within(PATIENCE);
            } else {
                link.ok();
            }
        });
        let two = Backend::ok(&["m"]);
        let more = "[proxy]\nresponse_header_timeout = \"100ms\"";
        let gateway = over_two(driver, &one, &two, more);
        for _ in 0..7 {
            let answer = get(&gateway, "/olla/proxy/hang", &[]);
            answer.is_error(502, "bad_gateway", "BACKEND_TIMEOUT");
        }
        let answer = get(&gateway, X, &[]);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        assert_eq!(two.count(), 0);
    });
}

#[test]
fn five_malformed_responses_open_the_breaker_and_others_serve() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |_, link| {
            link.send("nonsense\r\n\r\n");
        });
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        for _ in 0..5 {
            get(&gateway, X, &[]).is_error(502, "bad_gateway", "BACKEND_ERROR");
        }
        for _ in 0..3 {
            was_served_by_two(&get(&gateway, X, &[]));
        }
        assert_eq!(one.count(), 5);
        // It does not change the endpoint's health.
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
        // With nobody else to serve, all breakers are open.
        let answer = get(&gateway, "/olla/vllm/x", &[]);
        answer.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
    });
}

#[test]
fn an_outage_under_load_opens_no_breaker_for_longer_than_it_lasts() {
    const AT_ONCE: usize = 12;
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            if request.target == "/hold" {
                link.left_within(PATIENCE);
            } else {
                link.ok();
            }
        });
        let two = Backend::ok(&["m"]);
        let checks = |priority| format!("priority = {priority}\ncheck_interval = \"1s\"");
        let endpoints = [
            endpoint("one", "vllm", &one, &checks(200)),
            endpoint("two", "ollama", &two, &checks(100)),
        ];
        let gateway = Gateway::start(
            &Config::new(driver)
                .more(&endpoints.concat())
                .more("[proxy]\nload_balancer = \"priority\""),
        );
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            let mut client = Client::to(&gateway);
            client.send("GET /olla/proxy/hold HTTP/1.1\r\nHost: h\r\n\r\n");
            clients.push(client);
        }
        one.wait_count(AT_ONCE);
        one.stop();
        // More failures than open a breaker, and yet none that a client sees.
        for client in &mut clients {
            was_served_by_two(&client.response());
        }
        gateway.wait_status("one", "offline");
        // Away until a check has failed, too.
        let next_check = || gateway.endpoint("one")["next_check_at"].clone();
        let before = next_check();
        wait_until("a failed check", || next_check() != before);
        one.restart();
        gateway.wait_status("one", "healthy");
        let answer = get(&gateway, X, &[]);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
    });
}

#[test]
fn an_answer_closes_the_count_of_failures() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            if request.target == "/nonsense" {
                link.send("nonsense\r\n\r\n");
            } else {
                link.respond(500, "text/plain", "an answer all the same");
            }
        });
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(get(&gateway, "/olla/proxy/nonsense", &[]).status, 502);
            }
            assert_eq!(get(&gateway, X, &[]).status, 500);
        }
        assert_eq!(two.count(), 0);
    });
}

#[test]
fn impatient_clients_do_not_open_the_breaker() {
    on_both_drivers(|driver| {
        let one = Backend::new(&["m"], |request, link| {
            if request.target == "/hang" {
                link.left_within(PATIENCE);
            } else {
                link.ok();
            }
        });
        let two = Backend::ok(&["m"]);
        let gateway = over_two(driver, &one, &two, "");
        for round in 1..=8 {
            let mut client = Client::to(&gateway);
            client.send("GET /olla/proxy/hang HTTP/1.1\r\nHost: h\r\n\r\n");
            one.wait_count(round);
            drop(client);
        }
        let answer = get(&gateway, X, &[]);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        assert_eq!(two.count(), 0);
    });
}
