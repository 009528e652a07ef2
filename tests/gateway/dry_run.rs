//! The dry run: whom it is open to, which paths it knows, and what it says of requests that would be
//! refused.
//!
//! Contract: docs/contract/scheduling.md#8, docs/contract/observe.md#8

use serde_json::{Value, json};
use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, bearer, endpoint, exchange, get,
    on_both_drivers, post, reserve, wait_until,
};

use crate::bodies::gzip;
use crate::explanations::{HOSTS, candidate, chat, dry_run};

const ROUTE: &str = "/internal/route";
const CHAT: &str = "/olla/openai/v1/chat/completions";

fn start(driver: Driver, endpoints: &str, more: &str) -> Gateway {
    let config = Config::new(driver).more(endpoints).more(HOSTS);
    Gateway::start(&config.more(more))
}

/// What the dry run says of a request for another path.
#[track_caller]
fn at_path(gateway: &Gateway, path: &str, body: &str) -> Value {
    let response = post(gateway, &format!("{ROUTE}?path={path}"), &[], body);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Whether a candidate is eligible, or why not.
fn why_not(dry: &Value, name: &str) -> Value {
    let candidate = candidate(dry, name);
    assert_eq!(candidate["eligible"], candidate["why_not"].is_null());
    candidate["why_not"].clone()
}

#[test]
fn paths_are_those_of_requests_to_endpoints() {
    on_both_drivers(|driver| {
        let [a, b] = [Backend::ok(&["m"]), Backend::ok(&["m"])];
        let endpoints = endpoint("a", "vllm", &a, "") + &endpoint("b", "ollama", &b, "");
        let gateway = start(driver, &endpoints, "");
        for path in [
            "/internal/status",
            "/internal/route",
            "/olla/models",
            "/olla/openai/v1/models",
            "/olla/anthropic/v1/messages/count_tokens",
            "/olla/nosuch/v1/chat/completions",
            "/v1/responses/resp_1/cancel",
            "/nosuch",
            "/olla/proxy/../internal/status",
            "/olla/proxy/a%20b",
            "olla/proxy/x",
            "",
        ] {
            let path = format!("{ROUTE}?path={path}");
            let response = post(&gateway, &path, &[], chat("m", 1));
            let message = response.is_error(400, "bad_request", "INVALID_PATH");
            assert!(message.starts_with("path: expected "), "{message}");
        }
        let table = [
            ("/olla/vllm/v1/chat/completions", "a"),
            ("/olla/vllm//v1/./chat/completions", "a"),
            ("/olla/vllm/v1/chat/completions?x=1%262", "a"),
            ("/olla/ollama/api/chat", "b"),
            ("/olla/vllm/tokenize", "a"),
        ];
        for (path, chosen) in table {
            let path: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
            let dry = at_path(&gateway, &path, &chat("m", 1));
            assert_eq!(dry["decision"]["endpoint"], chosen, "{path}: {dry}");
            assert_eq!(dry["candidates"].as_array().unwrap().len(), 1, "{path}");
        }
        for path in [
            "/v1/chat/completions",
            "/olla/anthropic/v1/messages",
            "/api/chat",
        ] {
            let dry = at_path(&gateway, path, &chat("m", 1));
            assert_eq!(dry["decision"]["choice"], "least_time", "{path}: {dry}");
            assert_eq!(dry["candidates"].as_array().unwrap().len(), 2, "{path}");
        }
        for method in ["GET", "PUT", "DELETE"] {
            let response = exchange(&gateway, &format!("{method} {ROUTE}"), b"");
            response.is_error(405, "method_not_allowed", "METHOD_NOT_ALLOWED");
            assert_eq!(response.header("Allow"), Some("POST"));
        }
        assert_eq!((a.count(), b.count()), (0, 0));
        assert_eq!(gateway.metric("olla_requests_total"), Some(0.0));
    });
}

#[test]
fn bodies_are_received_as_those_of_requests() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let small = "[server.request_limits]\nmax_body_size = 2000";
        let gateway = start(driver, &endpoint("a", "vllm", &backend, ""), small);
        let body = chat("m", 60);
        let plain = dry_run(&gateway, &[], &body);
        let encoded = post(
            &gateway,
            ROUTE,
            &["Content-Encoding: gzip"],
            gzip(body.as_bytes()),
        );
        assert_eq!(encoded.json(), plain);
        let broken = post(&gateway, ROUTE, &["Content-Encoding: gzip"], &body);
        broken.is_error(400, "bad_request", "INVALID_BODY");
        let other = post(&gateway, ROUTE, &["Content-Encoding: compress"], &body);
        other.is_error(415, "unsupported_media_type", "UNSUPPORTED_ENCODING");
        let large = post(&gateway, ROUTE, &[], chat("m", 300));
        large.is_error(413, "request_too_large", "BODY_TOO_LARGE");
        assert_eq!(large.header("X-Olla-Routing-Decision"), None);
        // On one connection a request is what it is after a dry run, and the other way round.
        let mut client = Client::to(&gateway);
        for _ in 0..2 {
            client.request(&format!("POST {ROUTE}"), body.as_bytes());
            let dry = client.response();
            assert_eq!(dry.json()["decision"]["endpoint"], "a");
            assert_eq!(dry.header("X-Olla-Endpoint"), None);
            client.request(&format!("POST {CHAT}"), body.as_bytes());
            assert_eq!(client.response().header("X-Olla-Endpoint"), Some("a"));
        }
        assert_eq!(backend.count(), 2);
    });
}

#[test]
fn refusals_are_those_of_the_request() {
    on_both_drivers(|driver| {
        let [a, b, c] = [&["m"][..], &["n"], &["n"]].map(Backend::ok);
        let endpoints = [
            endpoint("a", "vllm", &a, ""),
            endpoint("b", "vllm", &b, ""),
            endpoint("c", "vllm", &c, ""),
        ];
        let more = "proxy.retry.cooldown = \"60s\"";
        let gateway = start(driver, &endpoints.concat(), more);
        let refused = |dry: &Value, status: u16, code: &str| {
            assert_eq!(
                dry["decision"],
                json!({"status": status, "code": code}),
                "{dry}"
            );
        };
        let listings = a.listings() + b.listings();
        let dry = dry_run(&gateway, &[], &chat("ghost", 1));
        refused(&dry, 404, "MODEL_NOT_FOUND");
        assert_eq!(why_not(&dry, "a"), "no_model");
        assert_eq!(
            a.listings() + b.listings(),
            listings,
            "nothing was refreshed"
        );
        let dry = dry_run(&gateway, &[], r#"{"messages":[]}"#);
        refused(&dry, 400, "MODEL_REQUIRED");
        assert_eq!(why_not(&dry, "a"), Value::Null);
        refused(&dry_run(&gateway, &[], "no JSON"), 400, "MODEL_REQUIRED");
        refused(&dry_run(&gateway, &[], ""), 400, "MODEL_REQUIRED");
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(2000));
        refused(&dry_run(&gateway, &[], &long), 400, "INVALID_MODEL");
        refused(
            &at_path(
                &gateway,
                "/olla/lmstudio/v1/chat/completions",
                &chat("m", 1),
            ),
            404,
            "ENDPOINT_NOT_FOUND",
        );
        refused(
            &at_path(&gateway, "/olla/ollama/api/pull", "{}"),
            501,
            "NOT_SUPPORTED",
        );
        let dry = dry_run(&gateway, &[], &chat("n", 1));
        assert_eq!(why_not(&dry, "a"), "no_model");
        // An endpoint is down.
        b.stop();
        gateway.wait_status("b", "offline");
        let dry = dry_run(&gateway, &[], &chat("n", 1));
        assert_eq!(dry["decision"]["endpoint"], "c");
        assert_eq!(why_not(&dry, "b"), "unhealthy");
        let names: Vec<_> = dry["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| &each["endpoint"])
            .collect();
        assert_eq!(names[0], "c", "eligible ones are first");
        c.stop();
        gateway.wait_status("c", "offline");
        let dry = dry_run(&gateway, &[], &chat("n", 1));
        refused(&dry, 503, "MODEL_UNAVAILABLE");
        assert_eq!(why_not(&dry, "c"), "unhealthy");
        assert_eq!(
            dry_run(&gateway, &[], &chat("m", 1))["decision"]["endpoint"],
            "a"
        );
        assert_eq!(gateway.metric("olla_requests_total"), Some(0.0));
    });
}

#[test]
fn endpoints_that_are_left_alone() {
    on_both_drivers(|driver| {
        let busy = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 429 Slow\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n");
        });
        let idle = Backend::ok(&["m"]);
        let endpoints = endpoint("busy", "vllm", &busy, "") + &endpoint("idle", "vllm", &idle, "");
        let gateway = start(driver, &endpoints, "");
        while busy.count() == 0 {
            assert_eq!(post(&gateway, CHAT, &[], chat("m", 1)).status, 200);
        }
        let dry = dry_run(&gateway, &[], &chat("m", 1));
        assert_eq!(dry["decision"]["endpoint"], "idle");
        assert_eq!(why_not(&dry, "busy"), "cooling");
        idle.stop();
        gateway.wait_status("idle", "offline");
        let dry = dry_run(&gateway, &[], &chat("m", 1));
        assert_eq!(dry["decision"]["endpoint"], "busy", "there is no other");
        assert_eq!(why_not(&dry, "busy"), Value::Null);
    });
}

#[test]
fn a_breaker_that_is_open() {
    on_both_drivers(|driver| {
        // Its checks go elsewhere, so that only the breaker knows.
        let (health, dead) = (Backend::ok(&["m"]), reserve());
        let checks = format!(
            "url = \"http://{dead}\"\nhealth_check_url = \"{0}/health\"\nmodel_url = \"{0}/v1/models\"",
            health.url()
        );
        let gateway = start(driver, &endpoint("a", "vllm", &health, &checks), "");
        wait_until("an open breaker", || {
            let _ = post(&gateway, CHAT, &[], chat("m", 1));
            let dry = dry_run(&gateway, &[], &chat("m", 1));
            why_not(&dry, "a") == "breaker_open"
        });
    });
}

#[test]
fn other_balancers_take_no_turn_for_it() {
    on_both_drivers(|driver| {
        let backends = [(); 3].map(|()| Backend::ok(&["m"]));
        let endpoints: String = ["a", "b", "c"]
            .iter()
            .zip(&backends)
            .enumerate()
            .map(|(at, (name, backend))| {
                endpoint(name, "vllm", backend, &format!("priority = {}", at + 1))
            })
            .collect();
        for balancer in ["round-robin", "least-connections", "priority"] {
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            let gateway = start(driver, &endpoints, &more);
            let mut served = Vec::new();
            for _ in 0..4 {
                let dry: Vec<_> = (0..3)
                    .map(|_| dry_run(&gateway, &[], &chat("m", 1)))
                    .collect();
                let said = &dry[0]["decision"];
                assert!(dry.iter().all(|each| each["decision"] == *said), "{dry:?}");
                assert_eq!(said["choice"], balancer);
                let response = post(&gateway, CHAT, &[], chat("m", 1));
                let endpoint = response.header("X-Olla-Endpoint").unwrap().to_owned();
                assert_eq!(said["endpoint"], *endpoint, "{balancer}");
                assert_eq!(response.header("X-Olla-Routing-Choice"), None);
                served.push(endpoint);
            }
            match balancer {
                "priority" => assert_eq!(served, ["c"; 4]),
                _ => assert_eq!(served[0], served[3], "{served:?}"),
            }
        }
    });
}

/// A dry run with a head of its own.
fn asked(gateway: &Gateway, lines: &[&str]) -> Response {
    let body = chat("m", 1);
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let mut client = Client::to(gateway);
    client.send(format!(
        "POST {ROUTE} HTTP/1.1\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.response()
}

#[test]
fn it_is_open_to_this_machine() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("a", "vllm", &backend, "");
        let gateway = start(driver, &endpoints, "");
        let host = "Host: 127.0.0.1:1";
        assert_eq!(asked(&gateway, &[host]).status, 200);
        assert_eq!(
            asked(&gateway, &[host, "Origin: http://127.0.0.1:1"]).status,
            200
        );
        let denied = |lines: &[&str], code: &str, key: &str| {
            let response = asked(&gateway, lines);
            assert_eq!(response.status, 403, "{lines:?}");
            let error = &response.json()["error"];
            assert_eq!(error["code"], code, "{error}");
            assert!(error["message"].as_str().unwrap().contains(key), "{error}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), None);
        };
        denied(&["Host: evil.example"], "ACCESS_DENIED", "allowed_hosts");
        denied(
            &[host, "Origin: http://evil.example"],
            "CSRF_CHECK_FAILED",
            "",
        );
        denied(
            &[host, "Via: 1.1 proxy"],
            "CHANGES_NOT_ALLOWED",
            "dashboard.allow_changes_from",
        );
        denied(
            &[host, "X-Forwarded-For: 127.0.0.1"],
            "ACCESS_DENIED",
            "trust_proxy_headers",
        );
        let wide = "dashboard.allow_changes_from = [\"127.0.0.0/8\"]";
        let wide = start(driver, &endpoints, wide);
        assert_eq!(asked(&wide, &[host, "Via: 1.1 proxy"]).status, 200);
    });
}

#[test]
fn with_keys_it_is_for_administrators() {
    on_both_drivers(|driver| {
        let [a, b] = [Backend::ok(&["m"]), Backend::ok(&["m"])];
        let keys = "[access]\nenabled = true\n\
                    [access.policies.narrow]\nadmin = true\nendpoints = [\"a\"]\nmodels = [\"m\"]\n\
                    max_prompt_tokens = 100\nrequests_per_minute = 1\n\
                    [[access.keys]]\nname = \"user\"\nkey = \"${USER_KEY}\"\n\
                    [[access.keys]]\nname = \"reader\"\nkey = \"${READER_KEY}\"\nadmin = \"read\"\n\
                    [[access.keys]]\nname = \"narrow\"\nkey = \"${NARROW_KEY}\"\npolicy = \"narrow\"\n";
        let config = Config::new(driver)
            .env("OLLA_ADMIN_KEY", "sk-root-0123456789abcdef")
            .env("USER_KEY", "sk-user-0123456789abcdef")
            .env("READER_KEY", "sk-read-0123456789abcdef")
            .env("NARROW_KEY", "sk-narrow-0123456789abcdef")
            .more(&(endpoint("a", "vllm", &a, "") + &endpoint("b", "vllm", &b, "")))
            .more(HOSTS)
            .more(keys);
        let gateway = Gateway::start(&config);
        let [root, user, reader, narrow] = ["root", "user", "read", "narrow"]
            .map(|name| bearer(&format!("sk-{name}-0123456789abcdef")));
        let body = chat("m", 1);
        let code = |fields: &[&str]| {
            let response = post(&gateway, ROUTE, fields, &body);
            (response.status, response.json()["error"]["code"].clone())
        };
        assert_eq!(code(&[]), (401, json!("MISSING_API_KEY")));
        assert_eq!(code(&[&user]), (403, json!("ADMIN_REQUIRED")));
        assert_eq!(code(&[&reader]), (403, json!("ADMIN_REQUIRED")));
        assert_eq!(code(&[&root]), (200, Value::Null));
        assert_eq!(code(&[&root, "Via: 1.1 proxy"]), (200, Value::Null));
        let evil = "Origin: http://evil.example";
        assert_eq!(code(&[&root, evil]), (403, json!("CSRF_CHECK_FAILED")));
        // The policy of the key is that of the request.
        let dry = dry_run(&gateway, &[&narrow], &body);
        assert_eq!(dry["decision"]["endpoint"], "a");
        assert_eq!(why_not(&dry, "b"), "policy");
        let dry = dry_run(&gateway, &[&narrow], &chat("other", 1));
        assert_eq!(
            dry["decision"],
            json!({"status": 404, "code": "MODEL_NOT_FOUND"})
        );
        assert_eq!(why_not(&dry, "a"), "policy");
        let dry = dry_run(&gateway, &[&narrow], &chat("m", 100));
        assert_eq!(
            dry["decision"],
            json!({"status": 400, "code": "PROMPT_TOO_LONG"})
        );
        // Nothing of the limits was taken: the one request of the minute is still there.
        assert_eq!(post(&gateway, CHAT, &[&narrow], &body).status, 200);
        let dry = dry_run(&gateway, &[&narrow], &body);
        assert_eq!(
            dry["decision"],
            json!({"status": 429, "code": "REQUEST_LIMIT_EXCEEDED"})
        );
        let limited = r#"olla_access_limited_total{policy="narrow",limit="requests_per_minute"}"#;
        assert_eq!(gateway.metric(limited).unwrap_or(0.0), 0.0);
        let own = get(&gateway, "/olla/key", &[&narrow]).json();
        assert_eq!(own["name"], "narrow", "{own}");
        assert_eq!((a.count(), b.count()), (1, 0));
    });
}
