//! From the client's path to the backend's.
//!
//! Contract: docs/contract/surface.md#2, docs/contract/surface.md#3, docs/contract/surface.md#3.1,
//! docs/contract/surface.md#16

use testkit::{Backend, Config, Driver, Gateway, endpoint, exchange, get, on_both_drivers, post};

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, more);
    Gateway::start(&Config::new(driver).more(&endpoints))
}

#[test]
fn a_backend_gets_path_and_query_as_they_were_written() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, "vllm", &backend, "");
        let same = [
            "/",
            "/x",
            "/a%20b/c",
            "/caf%C3%A9",
            "/a%25b",
            "/a+b",
            "/x;v=1/y",
            "/%5Bx%5D",
            "/%3Fq",
            "/v1/x/",
            "/v1/files/org%2Fname",
            "/x?a=1&a=2&b",
            "/x?q=a%2Bb+c",
            "/x?a;b=2",
            "/x?k=",
            "/x?=v&&z",
            "/x?a=//..//%2e",
            "/a..b/...x",
            "/v1/model/x",
            "/api/tagged/",
        ];
        for path in same {
            assert_eq!(
                get(&gateway, &format!("/olla/proxy{path}"), &[]).status,
                200
            );
            assert_eq!(backend.last().target, path);
        }
    });
}

#[test]
fn slashes_and_dots_are_resolved_without_a_redirect() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, "vllm", &backend, "");
        let resolved = [
            ("/olla/proxy//v1///x", "/v1/x"),
            ("//olla//proxy/v1/x", "/v1/x"),
            ("/olla/vllm/v1//embeddings", "/v1/embeddings"),
            ("/olla/proxy/v1/a/%2e%2e/b", "/v1/b"),
            ("/olla/proxy/v1/a/../b", "/v1/b"),
            ("/olla/proxy/v1/./b", "/v1/b"),
            ("/olla/proxy/v1/%2E/b/", "/v1/b/"),
            ("/olla/proxy", "/"),
            ("/olla/proxy?a=1", "/?a=1"),
        ];
        for (path, wanted) in resolved {
            for method in ["GET", "POST"] {
                let answer = exchange(&gateway, &format!("{method} {path}"), b"");
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(
                    (
                        backend.last().method.as_str(),
                        backend.last().target.as_str()
                    ),
                    (method, wanted)
                );
            }
        }
        // An escaped slash next to dots never leaves the prefix.
        let answer = get(&gateway, "/olla/proxy/..%2f..%2finternal/status", &[]);
        assert_eq!(answer.status, 400);
    });
}

#[test]
fn the_endpoint_s_own_path_is_replaced_or_kept() {
    on_both_drivers(|driver| {
        let rows = [
            ("", "false", "/v1/x", "/v1/x"),
            ("", "true", "/v1/x", "/v1/x"),
            ("/", "false", "/v1/x", "/v1/x"),
            ("/", "true", "/v1/x", "/v1/x"),
            ("/base", "false", "/v1/x", "/v1/x"),
            ("/base/", "false", "/v1/x", "/v1/x"),
            ("/base", "true", "/v1/x", "/base/v1/x"),
            ("/base/", "true", "/v1/x", "/base/v1/x"),
            ("/base", "true", "/v1/x/", "/base/v1/x/"),
            ("/base", "true", "/", "/base"),
            ("/api/v1", "true", "/v1/x", "/api/v1/x"),
            ("/v1", "true", "/v1/x", "/v1/x"),
            ("/v1/", "false", "/v1/x", "/v1/x"),
            ("/v1?key=1", "false", "/v1/x", "/v1/x?key=1"),
            ("/team%20a/api", "true", "/v1/x", "/team%20a/api/v1/x"),
            ("/base?key=1", "true", "/v1/x?a=2", "/base/v1/x?a=2&key=1"),
            ("/base?key=1#part", "true", "/v1/x", "/base/v1/x?key=1"),
            ("?key=1#part", "false", "/v1/x", "/v1/x?key=1"),
        ];
        let backend = Backend::ok(&["m"]);
        for (base, preserve, path, wanted) in rows {
            let more = format!(
                "url = \"{}{base}\"\npreserve_path = {preserve}",
                backend.url()
            );
            let gateway = over(driver, "vllm", &backend, &more);
            assert_eq!(
                get(&gateway, &format!("/olla/proxy{path}"), &[]).status,
                200
            );
            assert_eq!(backend.last().target, wanted, "{base} {preserve} {path}");
        }
    });
}

/// docs/contract/surface.md#3.1: nothing that the gateway shows has the query of an endpoint's URL.
#[test]
fn a_version_prefix_is_named_at_start_and_a_query_never_shown() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "url = \"${BASE}/v1?key=hunter2\"");
        let config = Config::new(driver).more(&endpoints);
        let gateway = Gateway::start(&config.env("BASE", &backend.url()));
        let chat = post(
            &gateway,
            "/olla/proxy/v1/chat/completions",
            &[],
            r#"{"model":"m"}"#,
        );
        assert_eq!(chat.status, 200);
        assert_eq!(backend.last().target, "/v1/chat/completions?key=hunter2");
        for page in ["/internal/status/endpoints", "/internal/status"] {
            let page = get(&gateway, page, &[]);
            assert!(!page.text().contains("hunter2"), "{}", page.text());
        }
        let shown = get(&gateway, "/internal/status/endpoints", &[]).text();
        assert!(shown.contains("/v1\""), "{shown}");
        gateway.wait_log("Endpoint URL ends in /v1, which is left out");
        assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
    });
}

/// docs/contract/surface.md#5.1; the forms of URLs are in the tests of the function.
#[test]
fn redirects_are_the_client_s_to_follow_and_lead_back() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            let host = request.header("Host").unwrap_or_default();
            link.send(format!(
                "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\
                 Content-Location: http://{host}/base/here?key=hunter2&x=1#f\r\n\
                 Refresh: 5; url=http://gateway.test:81/base/there\r\n\
                 Content-Length: 0\r\n\r\n"
            ));
        });
        let url = format!("url = \"{}/base?key=hunter2\"", backend.url());
        let gateway = over(
            driver,
            "vllm",
            &backend,
            &format!("{url}\npreserve_path = true"),
        );
        for prefix in ["/olla/proxy", "/olla/vllm"] {
            let answer = get(&gateway, &format!("{prefix}/x"), &[]);
            assert_eq!(answer.status, 302);
            let header = |name| answer.header(name).unwrap().to_owned();
            assert_eq!(header("Location"), format!("{prefix}/elsewhere"));
            assert_eq!(header("Content-Location"), format!("{prefix}/here?x=1#f"));
            let there = format!("5; url=http://gateway.test:81{prefix}/there");
            assert_eq!(header("Refresh"), there);
        }
        assert_eq!(backend.count(), 2);
    });
}

#[test]
fn every_prefix_reaches_the_endpoints_of_its_type() {
    on_both_drivers(|driver| {
        let types = [
            ("ollama", &["ollama"][..]),
            ("lm-studio", &["lmstudio", "lm-studio", "lm_studio"]),
            ("vllm", &["vllm"]),
            ("sglang", &["sglang"]),
            ("llamacpp", &["llamacpp"]),
            ("litellm", &["litellm"]),
            ("lemonade", &["lemonade"]),
            ("lmdeploy", &["lmdeploy"]),
            ("vllm-mlx", &["vllm-mlx"]),
            ("omlx", &["omlx"]),
            ("docker-model-runner", &["dmr"]),
            ("llama-swap", &["llama-swap"]),
            ("tgi", &["tgi"]),
            ("localai", &["localai"]),
            ("koboldcpp", &["koboldcpp"]),
            ("tabbyapi", &["tabbyapi"]),
            ("mlx-lm", &["mlx-lm"]),
        ];
        let backends = types.map(|_| Backend::ok(&["m"]));
        let endpoints = types.iter().zip(&backends);
        let endpoints: String = endpoints
            .map(|((kind, _), backend)| endpoint(kind, kind, backend, ""))
            .collect();
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        for (kind, prefixes) in types {
            for prefix in prefixes {
                let answer = get(&gateway, &format!("/olla/{prefix}/unlisted/path"), &[]);
                assert_eq!(answer.status, 200, "{prefix}");
                assert_eq!(answer.header("X-Olla-Endpoint"), Some(kind), "{prefix}");
            }
        }
        for prefix in ["openai", "openai-compatible"] {
            let path = format!("/olla/{prefix}/v1/chat/completions");
            let answer = post(&gateway, &path, &[], r#"{"model":"m"}"#);
            assert_eq!(answer.status, 200, "{prefix}");
        }
    });
}

#[test]
fn listings_are_the_gateway_s_and_paths_beside_them_are_not() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, "ollama", &backend, "");
        let own = [
            "/olla/proxy/v1/models",
            "/olla/ollama/v1/models",
            "/olla/ollama/api/tags",
            "/olla/ollama/api/tags/",
            "/olla/openai/v1/models",
            "/olla/ollama/v1/models/m",
            "/olla/models",
        ];
        for path in own {
            let answer = get(&gateway, path, &[]);
            assert_eq!(answer.status, 200, "{path}");
            answer.has_the_fields_of_every_response();
            assert_eq!(answer.header("X-Olla-Endpoint"), None);
        }
        assert_eq!(backend.count(), 0);
        for path in ["v1/model/x", "api/version", "api/blobs/sha256:1"] {
            assert_eq!(
                get(&gateway, &format!("/olla/ollama/{path}"), &[]).status,
                200
            );
            assert_eq!(backend.last().target, format!("/{path}"));
        }
        let answer = post(&gateway, "/olla/ollama/api/show", &[], r#"{"name":"m"}"#);
        assert_eq!(answer.header("X-Olla-Model"), Some("m"));
        assert_eq!(backend.last().target, "/api/show");
    });
}

#[test]
fn the_worked_examples_hold() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, "lmstudio", &backend, "");
        let answer = post(
            &gateway,
            "/olla/lmstudio/v1/chat/completions?x=1",
            &[],
            "{}",
        );
        assert_eq!(answer.status, 200);
        let seen = backend.last();
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.target, "/v1/chat/completions?x=1");
        assert_eq!(seen.header("Host"), Some(backend.authority().as_str()));
        assert_eq!(seen.header("X-Forwarded-Host"), Some("gateway.test:81"));
        post(&gateway, "/olla/openai/v1//embeddings", &[], "{}");
        assert_eq!(backend.last().target, "/v1/embeddings");
        get(&gateway, "/olla/proxy/v1/files/a%2Fb/", &[]);
        assert_eq!(backend.last().target, "/v1/files/a%2Fb/");
        for (preserve, wanted) in [(true, "/gw/llm/v1/completions"), (false, "/v1/completions")] {
            let more = format!(
                "url = \"{}/gw/llm\"\npreserve_path = {preserve}",
                backend.url()
            );
            let gateway = over(driver, "vllm", &backend, &more);
            post(&gateway, "/olla/vllm/v1/completions", &[], "{}");
            assert_eq!(backend.last().target, wanted);
        }
    });
}

#[test]
fn a_prefix_without_its_slash_counts_as_with_it() {
    on_both_drivers(|driver| {
        let (ollama, vllm) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        let endpoints = [
            endpoint("ollama", "ollama", &ollama, ""),
            endpoint("vllm", "vllm", &vllm, ""),
        ];
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()));
        // `/` is Ollama's alone by the table of paths.
        for path in [
            "/olla/proxy",
            "/olla/proxy/",
            "/olla//proxy",
            "/olla/proxy?a=b",
        ] {
            for _ in 0..2 {
                let answer = get(&gateway, path, &[]);
                assert_eq!(answer.header("X-Olla-Endpoint"), Some("ollama"), "{path}");
            }
        }
        assert_eq!(vllm.count(), 0);
    });
}
