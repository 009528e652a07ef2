//! The routes at the root, and the routes of dialects below every prefix.
//!
//! Contract: docs/contract/dialects.md#2, docs/contract/dialects.md#11,
//! docs/contract/dialects.md#12, docs/contract/dialects.md#13

use serde_json::{Value, json};

use testkit::{Backend, Config, Driver, Gateway, endpoint, exchange, get, on_both_drivers, post};

/// A backend that responds to `/api/ps` with this list, and with its path to all else.
fn speaking(models: &[&str], running: &'static str) -> Backend {
    Backend::new(models, move |request, link| match request.path() {
        "/api/ps" => link.respond(200, "application/json", running),
        path => link.respond(200, "application/json", json!({ "path": path }).to_string()),
    })
}

fn start(driver: Driver, endpoints: &[(&str, &str, &Backend)], more: &str) -> Gateway {
    let endpoints: String = endpoints
        .iter()
        .map(|(name, kind, backend)| endpoint(name, kind, backend, ""))
        .collect();
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

fn names(list: &Value) -> Vec<&str> {
    let models = list["models"].as_array().unwrap();
    models
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_client_that_takes_only_a_host_and_a_port_is_served() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = start(driver, &[("v", "vllm", &backend)], "");
        let chat = r#"{"model":"m","messages":[]}"#;
        let answer = post(&gateway, "//v1//chat/completions?a=1", &[], chat);
        assert_eq!(answer.status, 200);
        answer.has_the_fields_of_every_response();
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("v"));
        assert_eq!(backend.last().target, "/v1/chat/completions?a=1");
        assert_eq!(
            get(&gateway, "/v1/models", &[]).json()["data"][0]["id"],
            "m"
        );
        assert_eq!(get(&gateway, "/v1/models/m", &[]).json()["id"], "m");
        let answer = get(&gateway, "/v1/models/nothing", &[]);
        answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
        let version = "anthropic-version: 2023-06-01";
        let listed = get(&gateway, "/v1/models", &[version]).json();
        assert_eq!(listed["data"][0]["type"], "model");
        assert_eq!(listed["has_more"], false);
        assert_eq!(
            get(&gateway, "/v1/models/m", &[version]).json()["type"],
            "model"
        );
        // Below a prefix it is OpenAI's list.
        let listed = get(&gateway, "/olla/proxy/v1/models", &[version]).json();
        assert_eq!(listed["object"], "list");
        let answer = post(
            &gateway,
            "/v1/chat/completions",
            &[],
            r#"{"model":"other"}"#,
        );
        answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
        for path in [
            "/models",
            "/chat/completions",
            "/health",
            "/metrics",
            "/v2/models",
        ] {
            get(&gateway, path, &[]).is_error(404, "not_found", "NOT_FOUND");
        }
    });
}

#[test]
fn the_root_says_that_a_server_is_there() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = start(driver, &[("v", "vllm", &backend)], "");
        let answer = get(&gateway, "/", &[]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), "Ollama is running");
        answer.has_the_fields_of_every_response();
        let kind = answer.header("Content-Type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"));
        let answer = exchange(&gateway, "HEAD /", b"");
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        let answer = get(&gateway, "/", &["Accept: text/html,application/xhtml+xml"]);
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("Location"), Some("/internal/ui/"));
        let answer = post(&gateway, "/", &[], "");
        answer.is_error(405, "method_not_allowed", "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD"));

        let off = "server.root_routes = false\n";
        let gateway = start(driver, &[("v", "vllm", &backend)], off);
        for path in [
            "/",
            "/v1/models",
            "/v1/chat/completions",
            "/api/tags",
            "/api/pull",
        ] {
            get(&gateway, path, &[]).is_error(404, "not_found", "NOT_FOUND");
        }
        assert_eq!(get(&gateway, "/version", &[]).status, 200);
        let gateway = start(
            driver,
            &[("v", "vllm", &backend)],
            "dashboard.enabled = false\n",
        );
        let answer = get(&gateway, "/", &["Accept: text/html"]);
        assert_eq!(answer.text(), "Ollama is running");
    });
}

#[test]
fn ollamas_api_at_the_root_has_its_own_errors() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = start(driver, &[("v", "vllm", &backend)], "");
        let version = get(&gateway, "/api/version/", &[]).json();
        assert_eq!(version, json!({"version": "0.14.0"}));
        let hello = get(&gateway, "/api/hello", &[]).json();
        assert_eq!(hello, json!({"message": "hello"}));
        let show = |body: &str| post(&gateway, "/api/show", &[], body);
        let refused = |body: &str, status: u16, message: &str, code: &str| {
            let answer = show(body);
            assert_eq!(answer.status, status, "{body}");
            let error = answer.json();
            assert_eq!(error["error"], message, "{body}");
            assert_eq!(error["code"], code, "{body}");
        };
        let missing = "model 'no\"thing' not found";
        refused(r#"{"model":"no\"thing"}"#, 404, missing, "MODEL_NOT_FOUND");
        refused("{}", 400, "model is required", "MODEL_REQUIRED");
        refused("", 400, "missing request body", "MODEL_REQUIRED");
        let answer = show("[1]");
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("INVALID_BODY"))
        );
        let rows = [
            ("POST", "/api/nothing", 404, "NOT_FOUND", "no such route"),
            ("GET", "/api/v0/models", 404, "NOT_FOUND", "/olla/lmstudio/"),
            ("GET", "/api/v1/models", 404, "NOT_FOUND", "/olla/lemonade/"),
            ("POST", "/api/../x", 400, "INVALID_PATH", "escapes"),
            (
                "POST",
                "/api/pull",
                501,
                "NOT_SUPPORTED",
                "proxy.model_management",
            ),
            ("HEAD", "/api/blobs/sha256:1", 501, "", ""),
            ("POST", "/api/tags", 405, "METHOD_NOT_ALLOWED", "method"),
            ("GET", "/api/show", 405, "METHOD_NOT_ALLOWED", "method"),
        ];
        for (method, path, status, code, message) in rows {
            let head = format!("{method} {path}");
            let answer = exchange(&gateway, &head, b"");
            assert_eq!(answer.status, status, "{path}");
            if method == "HEAD" {
                continue;
            }
            let error = answer.json();
            assert_eq!(error["code"], code, "{path}");
            let text = error["error"].as_str().unwrap();
            assert!(text.contains(message), "{path}: {text}");
        }
        // Below a prefix an error is an object.
        let answer = post(&gateway, "/olla/vllm/api/show", &[], r#"{"model":"x"}"#);
        answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn every_server_is_shown_as_ollama_would() {
    on_both_drivers(|driver| {
        let ollama = speaking(&["llama3:8b", "phi:latest"], "");
        let vllm = Backend::ok(&["qwen3"]);
        let fleet: [(&str, &str, &Backend); 2] = [("o", "ollama", &ollama), ("v", "vllm", &vllm)];
        let gateway = start(
            driver,
            &fleet,
            "server.request_logging = true\nmodel_aliases = { fast = [\"qwen3\"] }\n",
        );
        let tags = get(&gateway, "/api/tags/", &[]);
        tags.has_the_fields_of_every_response();
        let all = ["llama3:8b", "phi:latest", "qwen3", "fast"];
        assert_eq!(names(&tags.json()), all);
        assert_eq!(
            names(&get(&gateway, "/olla/proxy/api/tags", &[]).json()),
            all
        );
        let own = get(&gateway, "/olla/ollama/api/tags", &[]).json();
        assert_eq!(names(&own), ["llama3:8b", "phi:latest"]);
        let own = get(&gateway, "/olla/vllm/api/tags", &[]).json();
        assert_eq!(names(&own), ["qwen3", "fast"]);

        let show = |path: &str, name: &str| {
            post(&gateway, path, &[], json!({ "model": name }).to_string())
        };
        // Made here; clients append a tag that vLLM does not have.
        for name in ["qwen3", "QWEN3", "fast", "qwen3:latest"] {
            let shown = show("/api/show", name);
            assert_eq!(shown.status, 200, "{name}");
            assert_eq!(shown.header("X-Olla-Endpoint"), None);
            let shown = shown.json();
            assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
            assert_eq!(shown["details"]["families"], json!([]));
        }
        assert_eq!((ollama.count(), vllm.count()), (0, 0));
        // Forwarded as it was written.
        for (path, name) in [("/api/show", "llama3:8b"), ("/olla/ollama/api/show", "phi")] {
            assert_eq!(show(path, name).header("X-Olla-Endpoint"), Some("o"));
            assert_eq!(ollama.last().target, "/api/show");
            assert_eq!(
                ollama.last().body,
                json!({ "model": name }).to_string().as_bytes()
            );
        }
        assert_eq!(show("/olla/ollama/api/show", "qwen3").status, 404);
        assert_eq!(show("/olla/vllm/api/show", "llama3:8b").status, 404);
        gateway.wait_log("Request completed");
    });
}

#[test]
fn loaded_models_are_those_of_all_endpoints() {
    on_both_drivers(|driver| {
        let one = speaking(
            &["a", "b"],
            r#"{"models":[{"name":"a","size":1,"expires_at":"2026-01-01T00:00:00Z"}]}"#,
        );
        let two = speaking(
            &["a"],
            r#"{"models":[{"name":"b","x":[]},{"name":"a","size":2}]}"#,
        );
        let broken = speaking(&["c"], "not a list");
        let vllm = Backend::ok(&["qwen3"]);
        let fleet: [(&str, &str, &Backend); 4] = [
            ("one", "ollama", &one),
            ("two", "ollama", &two),
            ("broken", "ollama", &broken),
            ("v", "vllm", &vllm),
        ];
        let gateway = start(driver, &fleet, "");
        let running = get(&gateway, "/olla/ollama/api/ps", &[]).json();
        assert_eq!(names(&running), ["a", "b"]);
        let first = &running["models"][0];
        assert_eq!(first["size"], 1);
        assert_eq!(first["endpoints"], json!(["one", "two"]));
        let running = get(&gateway, "/api/ps", &[]).json();
        assert_eq!(names(&running), ["a", "b", "qwen3"]);
        let last = &running["models"][2];
        assert_eq!(last["endpoints"], json!(["v"]));
        assert_eq!(last["size_vram"], 0);
        assert_eq!(last["context_length"], 0);
        let none = get(&gateway, "/olla/vllm/api/ps", &[]);
        assert_eq!((none.status, none.json()), (200, json!({"models": []})));
        let silent = Backend::new(&["z"], |_, link| {
            link.left_within(testkit::PATIENCE);
        });
        let gateway = start(
            driver,
            &[("s", "ollama", &silent), ("one", "ollama", &one)],
            "",
        );
        let running = get(&gateway, "/api/ps", &[]).json();
        assert_eq!(names(&running), ["a"]);
    });
}

#[test]
fn each_server_gets_its_own_path() {
    on_both_drivers(|driver| {
        let lemonade = Backend::ok(&["lem"]);
        let docker = Backend::ok(&["ai/doc"]);
        let vllm = Backend::ok(&["v"]);
        let fleet: [(&str, &str, &Backend); 3] = [
            ("lemonade", "lemonade", &lemonade),
            ("docker", "docker-model-runner", &docker),
            ("vllm", "vllm", &vllm),
        ];
        let gateway = start(driver, &fleet, "");
        let operations = ["chat/completions", "completions", "embeddings"];
        for prefix in ["", "/olla/proxy", "/olla/openai", "/olla/openai-compatible"] {
            for operation in operations {
                for (backend, model, base) in [
                    (&lemonade, "lem", "/api/v1"),
                    (&docker, "ai/doc", "/engines/v1"),
                    (&vllm, "v", "/v1"),
                ] {
                    let path = format!("{prefix}/v1/{operation}?q=%20");
                    let body = json!({ "model": model }).to_string();
                    let answer = post(&gateway, &path, &[], &body);
                    assert_eq!(answer.status, 200, "{path} {model}");
                    assert_eq!(backend.last().target, format!("{base}/{operation}?q=%20"));
                    assert_eq!(backend.last().body, body.as_bytes());
                }
            }
        }
        // A provider's prefix forwards what the client wrote.
        let body = r#"{"model":"lem"}"#;
        post(&gateway, "/olla/lemonade/v1/chat/completions", &[], body);
        assert_eq!(lemonade.last().target, "/v1/chat/completions");
    });
}

#[test]
fn messages_are_served_below_every_prefix() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["m"]), Backend::ok(&["m", "n"]));
        let fleet: [(&str, &str, &Backend); 2] = [("one", "vllm", &one), ("two", "ollama", &two)];
        let gateway = start(driver, &fleet, "");
        let body = |model: &str| {
            json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
                .to_string()
        };
        for path in ["/olla/vllm/v1/messages", "/olla/vllm/v1/messages/"] {
            let answer = post(&gateway, path, &[], body("m"));
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
            assert_eq!(answer.header("X-Olla-Mode"), Some("passthrough"));
            assert_eq!(one.last().target, "/v1/messages");
        }
        let answer = post(&gateway, "/olla/vllm/v1/messages", &[], body("n"));
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["type"], "error");
        let answer = post(&gateway, "/v1/messages", &[], body("n"));
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"));
        // With another method it is a path like any other.
        let answer = get(&gateway, "/olla/ollama/v1/messages", &[]);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"));
        assert_eq!(two.last().target, "/v1/messages");
        let counted = post(&gateway, "/v1/messages/count_tokens", &[], body("m"));
        assert!(counted.json()["input_tokens"].is_number());
    });
}

#[test]
fn without_its_translator_ollamas_api_is_that_of_its_endpoints() {
    on_both_drivers(|driver| {
        let ollama = speaking(&["a"], r#"{"models":[],"own":true}"#);
        let vllm = Backend::ok(&["qwen3"]);
        let fleet: [(&str, &str, &Backend); 2] = [("o", "ollama", &ollama), ("v", "vllm", &vllm)];
        let gateway = start(driver, &fleet, "translators.ollama.enabled = false\n");
        assert_eq!(get(&gateway, "/api/ps", &[]).json()["own"], true);
        assert_eq!(names(&get(&gateway, "/api/tags", &[]).json()), ["a"]);
        assert_eq!(
            get(&gateway, "/api/version", &[]).json()["path"],
            "/api/version"
        );
        let answer = post(&gateway, "/api/show", &[], r#"{"model":"qwen3"}"#);
        answer.is_error(404, "not_found", "MODEL_NOT_FOUND");
        let agent = "User-Agent: ollama-python/0.6.0";
        let answer = post(&gateway, "/api/show", &[agent], r#"{"model":"qwen3"}"#);
        assert_eq!(answer.json()["error"], "model 'qwen3' not found");
    });
}
