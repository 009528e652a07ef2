//! Every error of the gateway: when, which status, type and code, in its one shape.
//!
//! Contract: docs/contract/surface.md#9, docs/contract/balancing.md#6

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, endpoint, exchange, get, on_both_drivers,
    post,
};

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

const CHAT: &str = "/olla/proxy/v1/chat/completions";

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// A gateway whose endpoints are all down.
fn over_nothing(driver: Driver, kind: &str) -> Gateway {
    let down = format!(
        "[[discovery.static.endpoints]]\nname = \"down\"\ntype = \"{kind}\"\nurl = \"{NOWHERE}\""
    );
    Gateway::start(&Config::new(driver).more(&down))
}

fn was_not_routed(answer: &Response) {
    for name in [
        "X-Olla-Endpoint",
        "X-Olla-Backend-Type",
        "X-Served-By",
        "Via",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[test]
fn an_unknown_route_is_404_not_found() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let unknown = [
            "/olla",
            "/olla/",
            "/chat/completions",
            "/apis",
            "/olla/nosuch/v1/models",
            "/olla/OpenAI/v1/models",
            "/Olla/openai/v1/models",
            "/olla/openai_compatible/v1/models",
            "/olla/openaix/v1/models",
            "/olla/llama-cpp/v1/models",
            "/olla/llama_cpp/v1/models",
            "/olla/vllmmlx/v1/models",
            "/olla/docker-model-runner/v1/models",
            "/olla/auto/v1/models",
            "/internal/nosuch",
            "/internal/health/",
        ];
        for path in unknown {
            let answer = get(&gateway, path, &[]);
            answer.is_error(404, "not_found", "NOT_FOUND");
            was_not_routed(&answer);
        }
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn a_path_that_climbs_out_is_400_invalid_path() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let climbing = [
            "/olla/proxy/../internal/status",
            "/olla/proxy/%2e%2e/internal/status",
            "/olla/proxy/a/../../x",
            "/olla/../olla/proxy/x",
            "/olla/./proxy/x",
            "/internal/../olla/proxy/x",
        ];
        for path in climbing {
            let answer = get(&gateway, path, &[]);
            answer.is_error(400, "bad_request", "INVALID_PATH");
            was_not_routed(&answer);
        }
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn an_upload_that_is_broken_or_cut_is_400_invalid_body() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let chunked = "Transfer-Encoding: chunked\r\n\r\n";
        let broken = [
            (chunked, "zz\r\nhello\r\n0\r\n\r\n"),
            (chunked, "5\r\nhelloXX0\r\n\r\n"),
            (chunked, "-1\r\nhello\r\n0\r\n\r\n"),
            (chunked, "fffffffffffffffff\r\n"),
            (chunked, "5\nhello\r\n0\r\n\r\n"),
            (chunked, "5\r\nhello\r\n"),
            (chunked, "5\r\nhello\r\n0\r\n"),
            ("Content-Length: 10\r\n\r\n", "12345"),
            ("Content-Length: 100000\r\n\r\n", "12345"),
        ];
        for (fields, body) in broken {
            let mut client = Client::to(&gateway);
            client.send(format!("POST {CHAT} HTTP/1.1\r\nHost: h\r\n{fields}{body}"));
            client.end_sending();
            let answer = client.response();
            answer.is_error(400, "bad_request", "INVALID_BODY");
            assert_eq!(answer.header("Connection"), Some("close"), "{body}");
            assert!(client.is_closed());
        }
        assert_eq!(backend.count(), 0);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn a_provider_without_endpoints_is_404_endpoint_not_found() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let answer = post(&gateway, "/olla/ollama/api/chat", &[], r#"{"model":"m"}"#);
        let message = answer.is_error(404, "not_found", "ENDPOINT_NOT_FOUND");
        assert!(message.contains("ollama"), "{message}");
        was_not_routed(&answer);
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn an_unknown_model_is_404_model_not_found() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        for path in [
            CHAT,
            "/olla/vllm/v1/completions",
            "/olla/openai/v1/unlisted",
        ] {
            let answer = post(&gateway, path, &[], r#"{"model":"nosuch-model"}"#);
            let message = answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
            assert!(message.contains("nosuch-model"), "{message}");
            was_not_routed(&answer);
            let routing = ["Strategy", "Decision", "Reason"]
                .map(|name| answer.header(&format!("X-Olla-Routing-{name}")).unwrap());
            assert_eq!(routing, ["strict", "rejected", "model_not_found"]);
        }
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn a_fixed_route_answers_405_to_other_methods() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let fixed = [
            ("DELETE", "/internal/health", "GET, HEAD"),
            ("POST", "/internal/status", "GET, HEAD"),
            ("PUT", "/version", "GET, HEAD"),
            ("POST", "/olla/models", "GET, HEAD"),
            ("POST", "/olla/proxy/v1/models", "GET, HEAD"),
            ("POST", "/olla/vllm/v1/models", "GET, HEAD"),
        ];
        for (method, path, allow) in fixed {
            let answer = exchange(&gateway, &format!("{method} {path}"), b"{}");
            answer.is_error(405, "method_not_allowed", "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("Allow"), Some(allow), "{method} {path}");
        }
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn an_upload_that_is_too_slow_is_408_request_timeout() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "[server]\nread_timeout = \"300ms\"");
        for (fields, some) in [
            ("Content-Length: 10", "12345"),
            ("Content-Length: 1000000", "12345"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ] {
            let mut client = Client::to(&gateway);
            client.send(format!(
                "POST {CHAT} HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{some}"
            ));
            let answer = client.response();
            answer.is_error(408, "request_timeout", "REQUEST_TIMEOUT");
            assert_eq!(answer.header("Connection"), Some("close"));
            assert!(client.is_closed());
        }
        assert_eq!(backend.count(), 0);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

/// Gives this to whoever has opened the pipe; waits for one.
fn pour(pipe: &Path, text: &str) {
    let mut end = OpenOptions::new().write(true).open(pipe).unwrap();
    end.write_all(text.as_bytes()).unwrap();
}

/// The control thread reads certificates. A file that cannot be read to its end, as on a file system
/// that hangs, keeps it from everything else, but not the thread that renders pages.
#[test]
fn a_control_thread_that_is_late_delays_no_page() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let mut gateway = over(driver, &backend, "");
        let pipe = gateway.config_file().with_file_name("ca.pem");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let issuer = rcgen::generate_simple_self_signed([]).unwrap().cert.pem();
        gateway.rewrite(&format!(
            "{}[[discovery.static.endpoints]]\nname = \"secured\"\ntype = \"vllm\"\n\
             url = \"https://127.0.0.1:1\"\ntls.ca_file = \"{}\"",
            endpoint("one", "vllm", &backend, ""),
            pipe.display()
        ));
        gateway.signal("HUP");
        // The first reader judges the file, the second wants to use it.
        pour(&pipe, &issuer);
        gateway.wait_log("Configuration reloaded");
        for path in [
            "/internal/status",
            "/internal/metrics",
            "/version",
            "/internal/health",
        ] {
            assert_eq!(get(&gateway, path, &[]).status, 200, "{path}");
        }
        assert_eq!(post(&gateway, CHAT, &[], r#"{"model":"m"}"#).status, 200);
        assert_eq!(
            gateway.endpoints().len(),
            1,
            "the reload waits for the file"
        );
        pour(&pipe, &issuer);
        testkit::wait_until("both endpoints", || gateway.endpoints().len() == 2);
    });
}

#[test]
fn management_of_models_is_501_not_supported() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        for operation in ["pull", "push", "create", "copy", "delete", "list"] {
            for method in ["POST", "DELETE", "GET"] {
                let head = format!("{method} /olla/ollama/api/{operation}");
                let answer = exchange(&gateway, &head, br#"{"model":"m"}"#);
                let message = answer.is_error(501, "not_implemented", "NOT_SUPPORTED");
                assert!(message.contains("proxy.model_management"), "{message}");
            }
        }
        assert_eq!(backend.count(), 0);
    });
}

/// docs/contract/surface.md#2: judged by the operation, not by the prefix.
#[test]
fn management_of_models_is_refused_under_every_prefix_and_spelling() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = format!("url = \"{}/team/api\"\npreserve_path = true", backend.url());
        let endpoints = endpoint("one", "vllm", &backend, &more);
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        for path in [
            "/olla/proxy/api/delete",
            "/olla/openai/api/pull",
            "/olla/lmstudio/x/api/create",
            "/olla/proxy/api/%64elete",
            "/olla/proxy//api//delete/",
            "/olla/lmstudio/api/v1/models/load",
            "/olla/proxy/api/v1/models/unload",
            "/olla/openai/api/v1/models/download",
            // The endpoint's own path makes it one.
            "/olla/proxy/delete",
        ] {
            let answer = exchange(&gateway, &format!("DELETE {path}"), br#"{"model":"m"}"#);
            answer.is_error(501, "not_implemented", "NOT_SUPPORTED");
        }
        assert_eq!(backend.count(), 0);
        assert_eq!(get(&gateway, "/olla/proxy/v1/delete", &[]).status, 200);
    });
}

#[test]
fn a_backend_that_fails_is_502_backend_error() {
    on_both_drivers(|driver| {
        let failing =
            |request: &testkit::Received, link: &mut testkit::Link| match request.target.as_str() {
                "/close" => link.close(),
                "/reset" => link.reset(),
                "/nonsense" => drop(link.send("SSH-2.0-OpenSSH\r\n\r\n")),
                "/half" => {
                    link.send("HTTP/1.1 200 OK\r\nContent-");
                    link.close();
                }
                "/switch" => {
                    link.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
                }
                "/large" => {
                    let large = "x".repeat(40 << 10);
                    link.send(format!("HTTP/1.1 200 OK\r\nX-Large: {large}\r\n\r\n"));
                }
                _ => link.ok(),
            };
        for path in [
            "/close",
            "/reset",
            "/nonsense",
            "/half",
            "/switch",
            "/large",
        ] {
            let backend = Backend::new(&["m"], failing);
            let gateway = over(driver, &backend, "");
            let answer = get(&gateway, &format!("/olla/proxy{path}"), &[]);
            answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
            assert!(backend.count() >= 1, "{path}");
        }
    });
}

#[test]
fn routing_headers_stand_on_a_502_too() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| link.close());
        let gateway = over(driver, &backend, "");
        let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
        answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
        let routing = ["Strategy", "Decision", "Reason"]
            .map(|name| answer.header(&format!("X-Olla-Routing-{name}")).unwrap());
        assert_eq!(routing, ["strict", "routed", "model_found"]);
    });
}

#[test]
fn a_silent_backend_is_502_backend_timeout() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.left_within(testkit::PATIENCE);
        });
        let gateway = over(
            driver,
            &backend,
            "[proxy]\nresponse_header_timeout = \"300ms\"",
        );
        let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
        answer.is_error(502, "bad_gateway", "BACKEND_TIMEOUT");
        assert_eq!(backend.count(), 1);
        // It may be working: it stays in the fleet.
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn a_fleet_that_is_down_is_503_no_healthy_endpoints() {
    on_both_drivers(|driver| {
        let gateway = over_nothing(driver, "vllm");
        for path in [
            CHAT,
            "/olla/vllm/v1/completions",
            "/olla/openai/v1/completions",
        ] {
            let answer = get(&gateway, path, &[]);
            answer.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
            was_not_routed(&answer);
            assert_eq!(answer.header("X-Olla-Routing-Reason"), None);
        }
        // With a model the routing says why, although nobody knows the model.
        let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
        answer.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
        assert_eq!(answer.header("X-Olla-Routing-Decision"), Some("rejected"));
        assert_eq!(
            answer.header("X-Olla-Routing-Reason"),
            Some("model_unavailable")
        );
    });
}

#[test]
fn an_empty_fleet_is_503_on_the_universal_prefix_and_404_on_a_provider_s() {
    on_both_drivers(|driver| {
        let config = Config::new(driver).more("discovery.static.endpoints = []");
        let gateway = Gateway::start(&config);
        assert_eq!(get(&gateway, "/internal/health", &[]).status, 200);
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        answer.is_error(503, "service_unavailable", "NO_HEALTHY_ENDPOINTS");
        let answer = get(&gateway, "/olla/vllm/x", &[]);
        answer.is_error(404, "not_found", "ENDPOINT_NOT_FOUND");
    });
}

#[test]
fn a_known_model_on_endpoints_that_are_down_is_503_model_unavailable() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["mine"]), Backend::ok(&["other"]));
        let endpoints = [
            endpoint("one", "vllm", &one, ""),
            endpoint("two", "vllm", &two, ""),
        ];
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()));
        one.set_health(500);
        gateway.wait_status("one", "unhealthy");
        let answer = post(&gateway, CHAT, &[], r#"{"model":"mine"}"#);
        let message = answer.is_error(503, "service_unavailable", "MODEL_UNAVAILABLE");
        assert!(message.contains("mine"), "{message}");
        assert_eq!(
            answer.header("X-Olla-Routing-Reason"),
            Some("model_unavailable")
        );
        was_not_routed(&answer);
        assert_eq!((one.count(), two.count()), (0, 0));
    });
}

#[test]
fn a_body_without_room_waits_and_is_503_overloaded() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let limits = "[server.request_limits]\nmax_buffered_bytes = \"4MB\"";
        let gateway = over(driver, &backend, limits);
        // Takes most of the room of one client, and keeps it by never ending.
        let mut holder = Client::to(&gateway);
        let head = |length: usize| {
            format!("POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
        };
        holder.send(head(900_000)).send(vec![b' '; 880_000]);
        let whole = [head(200_000).into_bytes(), vec![b' '; 200_000]].concat();
        testkit::wait_until("the upload under way", || {
            // Answered at once as long as there is room.
            let mut other = Client::to(&gateway);
            other.send(&whole);
            other.is_silent_for(std::time::Duration::from_millis(300))
        });
        let served = backend.count();
        let mut other = Client::to(&gateway);
        other.send(&whole);
        let answer = other.response();
        answer.is_error(503, "service_unavailable", "OVERLOADED");
        assert!(answer.header("Retry-After").is_some());
        assert_eq!(backend.count(), served);
        // The room comes back with the end of the one that held it.
        holder.send(vec![b' '; 20_000]);
        assert_eq!(holder.response().status, 200);
        let answer = exchange(&gateway, &format!("POST {CHAT}"), &vec![b' '; 800_000]);
        assert_eq!(answer.status, 200);
        assert_eq!(backend.count(), served + 2);
    });
}

#[test]
fn an_error_to_head_has_the_headers_without_the_body() {
    on_both_drivers(|driver| {
        let gateway = over_nothing(driver, "vllm");
        let mut client = Client::to(&gateway);
        let errors = [
            ("/nosuch", 404),
            ("/olla/ollama/x", 404),
            ("/olla/proxy/x", 503),
            ("/olla/proxy/../x", 400),
            ("/olla/ollama/api/pull", 501),
        ];
        for (path, status) in errors {
            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let answer = client.response_to("HEAD");
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
            answer.has_the_fields_of_every_response();
        }
        // Nothing but heads came on it: the next answer is understood.
        client.send("GET /internal/health HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response().status, 200);
    });
}

#[test]
fn messages_name_endpoints_and_never_addresses() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| link.reset());
        let gateway = over(driver, &backend, "");
        let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
        let message = answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
        assert!(message.contains("one"), "{message}");
        let port = backend.authority().split_once(':').unwrap().1.to_owned();
        assert!(
            !message.contains(&port) && !message.contains("http"),
            "{message}"
        );
    });
}

/// docs/contract/surface.md#9: clients that print `error` as it is get a text.
#[test]
fn ollama_s_own_clients_get_a_text() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "ollama", &backend, "");
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        let ask = |agent: &str, path: &str| {
            let agent = format!("User-Agent: {agent}");
            post(&gateway, path, &[&agent], r#"{"model":"nope"}"#)
        };
        for agent in ["ollama-js/0.6.4 (x64)", "ollama-python/0.6", "ollama/0.12"] {
            let answer = ask(agent, "/olla/ollama/api/chat");
            assert_eq!(answer.status, 404);
            let json = answer.json();
            assert!(json["error"].is_string(), "{json}");
            assert_eq!(
                (&json["type"], &json["code"]),
                (&"not_found".into(), &"MODEL_NOT_FOUND".into())
            );
            let refused = ask(agent, "/olla/ollama/api/pull").json();
            assert_eq!(refused["code"], "NOT_SUPPORTED", "{refused}");
            assert!(refused["error"].is_string(), "{refused}");
            for path in ["/olla/ollama/v1/chat/completions", "/olla/proxy/api/chat"] {
                assert!(ask(agent, path).json()["error"].is_object(), "{path}");
            }
        }
        for agent in ["curl/8", "my-ollama/1", "ollama"] {
            let json = ask(agent, "/olla/ollama/api/chat").json();
            assert_eq!(json["error"]["code"], "MODEL_NOT_FOUND", "{agent}");
        }
    });
}
