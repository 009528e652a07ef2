//! What backends are told about a request, and clients about an answer.
//!
//! Contract: docs/contract/surface.md#4, docs/contract/surface.md#5, docs/contract/surface.md#6,
//! docs/contract/balancing.md#14

use testkit::{
    Backend, Client, Config, Driver, Gateway, Received, endpoint, exchange, get, on_both_drivers,
    post,
};

const X: &str = "/olla/proxy/x";
const CHAT: &str = "/olla/proxy/v1/chat/completions";

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "lmstudio", backend, more);
    Gateway::start(&Config::new(driver).more(&endpoints))
}

/// What the backend got of a `GET` with these header lines.
fn received(gateway: &Gateway, backend: &Backend, fields: &[&str]) -> Received {
    assert_eq!(get(gateway, X, fields).status, 200);
    backend.last()
}

/// What the client gets of an answer with these header lines.
fn relayed(driver: Driver, lines: &'static str, more: &str) -> testkit::Response {
    let backend = Backend::new(&["m"], move |_, link| {
        link.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\n\r\nok"
        ));
    });
    let gateway = over(driver, &backend, more);
    get(&gateway, X, &["Origin: https://page.test"])
}

#[test]
fn a_backend_sees_its_own_name_and_who_asked() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let seen = received(&gateway, &backend, &["X-Forwarded-Foo: kept"]);
        assert_eq!(seen.version, "HTTP/1.1");
        assert_eq!(seen.header("Host"), Some(backend.authority().as_str()));
        assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
        assert_eq!(seen.header("X-Forwarded-Proto"), Some("http"));
        assert_eq!(seen.header("X-Forwarded-Host"), Some("gateway.test:81"));
        assert_eq!(seen.header("X-Real-IP"), Some("127.0.0.1"));
        let product = seen.header("X-Proxied-By").unwrap();
        assert!(product.contains('/') && !product.contains(' '), "{product}");
        let via = seen.header("Via").unwrap();
        assert!(via.starts_with("1.1 olla-") && via.contains('/'), "{via}");
        assert_eq!(seen.header("X-Model"), None);
        assert_eq!(seen.header("Accept-Encoding"), None);
        assert_eq!(seen.header("X-Forwarded-Foo"), Some("kept"));
    });
}

#[test]
fn forwarding_headers_of_others_are_kept_and_continued() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let fields = [
            "X-Forwarded-For: 203.0.113.9",
            "X-Forwarded-For: 198.51.100.1, 10.0.0.1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: public.test",
            "X-Real-IP: 203.0.113.9",
            "X-Proxied-By: forged",
            "Via: 1.1 front",
            "Via: 1.0 other",
            "X-Model: claimed",
        ];
        let seen = received(&gateway, &backend, &fields);
        let all = "203.0.113.9, 198.51.100.1, 10.0.0.1, 127.0.0.1";
        assert_eq!(seen.header("X-Forwarded-For"), Some(all));
        assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
        assert_eq!(seen.header("X-Forwarded-Host"), Some("public.test"));
        assert_eq!(seen.header("X-Real-IP"), Some("203.0.113.9"));
        assert!(!seen.header("X-Proxied-By").unwrap().contains("forged"));
        let via = seen.header("Via").unwrap();
        assert!(via.starts_with("1.1 front, 1.0 other, 1.1 "), "{via}");
        // Without a model in the request, what the client says of one passes.
        assert_eq!(seen.header("X-Model"), Some("claimed"));
    });
}

#[test]
fn the_model_found_is_told_to_the_backend() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["Some/Model"]);
        let gateway = over(driver, &backend, "");
        let answer = post(
            &gateway,
            CHAT,
            &["X-Model: forged"],
            r#"{"model":"Some/Model"}"#,
        );
        assert_eq!(answer.status, 200);
        assert_eq!(backend.last().header("X-Model"), Some("Some/Model"));
    });
}

#[test]
fn connection_level_headers_and_cookies_stop_here() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let fields = [
            "Connection: keep-alive, X-Named, x-also",
            "X-Named: 1",
            "X-Also: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authenticate: Basic",
            "Proxy-Authorization: Basic eDp5",
            "TE: trailers",
            "Trailer: X-T",
            "Upgrade: h2c",
            "Cookie: session=1",
            "X-Kept: 1",
        ];
        let seen = received(&gateway, &backend, &fields);
        let removed = [
            "X-Named",
            "X-Also",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Cookie",
        ];
        for name in removed {
            assert!(seen.all(name).is_empty(), "{name}");
        }
        assert_eq!(seen.header("X-Kept"), Some("1"));
    });
}

#[test]
fn everything_else_goes_on_with_all_its_values() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let fields = [
            "OpenAI-Organization: org",
            "X-Stainless-Lang: python",
            "anthropic-version: 2023-06-01",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Range: bytes=0-5",
            "If-None-Match: \"a\"",
            "Referer: https://page.test/x",
            "X-Olla-Session-ID: s1",
            "Accept-Encoding: gzip, br",
            "User-Agent: client/1",
            "X-Empty:",
            "X-Latin: caf\u{e9}",
        ];
        let seen = received(&gateway, &backend, &fields);
        for field in fields {
            let (name, value) = field.split_once(':').unwrap();
            let value: String = value.trim().bytes().map(char::from).collect();
            assert_eq!(seen.header(name), Some(value.as_str()), "{name}");
        }
        let fields = ["X-Twice: a", "X-Other: c", "X-Twice: b"];
        let seen = received(&gateway, &backend, &fields);
        assert_eq!(seen.all("X-Twice"), ["a", "b"]);
    });
}

/// docs/contract/surface.md#4: with CORS the gateway has decided about the page.
#[test]
fn what_a_browser_says_of_its_page_stays_here_while_cors_is_on() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let fields = [
            "Origin: https://page.test",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Dest: empty",
            "sec-fetch-user: ?1",
            "Referer: https://page.test/x",
        ];
        for (cors, passes) in [
            ("enabled = true", false),
            ("allowed_origins = [\"https://other.test\"]", false),
            ("enabled = false", true),
        ] {
            let endpoints = endpoint("one", "ollama", &backend, "");
            let config = format!("{endpoints}[server.cors]\n{cors}");
            let gateway = Gateway::start(&Config::new(driver).more(&config));
            let seen = received(&gateway, &backend, &fields);
            for field in &fields[..5] {
                let (name, _) = field.split_once(':').unwrap();
                assert_eq!(seen.header(name).is_some(), passes, "{cors} {name}");
            }
            assert_eq!(seen.header("Referer"), Some("https://page.test/x"));
        }
    });
}

/// docs/contract/surface.md#5.2
#[test]
fn nginx_in_front_does_not_collect_streams() {
    on_both_drivers(|driver| {
        let rows = [
            ("Content-Type: text/event-stream", Some("no")),
            ("Content-Type: Text/Event-Stream; charset=utf-8", Some("no")),
            ("Content-Type: application/x-ndjson", Some("no")),
            (
                "Content-Type: text/event-stream\r\nX-Accel-Buffering: yes",
                Some("yes"),
            ),
            ("Content-Type: application/json", None),
            ("X-A: text/event-stream", None),
        ];
        for (lines, want) in rows {
            let answer = relayed(driver, lines, "");
            assert_eq!(answer.header("X-Accel-Buffering"), want, "{lines}");
        }
    });
}

#[test]
fn a_client_s_credentials_reach_an_endpoint_without_its_own() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let fields = [
            "Authorization: Bearer k",
            "X-Api-Key: k2",
            "X-Auth-Token: k3",
        ];
        let seen = received(&gateway, &backend, &fields);
        assert_eq!(seen.header("Authorization"), Some("Bearer k"));
        assert_eq!(seen.header("X-Api-Key"), Some("k2"));
        assert_eq!(seen.header("X-Auth-Token"), Some("k3"));
    });
}

#[test]
fn an_endpoint_s_credential_replaces_all_of_the_client_s() {
    on_both_drivers(|driver| {
        let kinds = [
            (
                "auth.type = \"bearer\"\nauth.token = \"t\"",
                "Authorization",
                "Bearer t",
            ),
            (
                "auth.type = \"api_key\"\nauth.key = \"t\"",
                "X-Api-Key",
                "t",
            ),
            (
                "auth.type = \"api_key\"\nauth.key = \"t\"\nauth.header = \"X-Own\"",
                "X-Own",
                "t",
            ),
            (
                "auth.type = \"basic\"\nauth.username = \"u\"\nauth.password = \"p\"",
                "Authorization",
                "Basic dTpw",
            ),
        ];
        for (auth, name, value) in kinds {
            let backend = Backend::ok(&["m"]);
            let gateway = over(driver, &backend, auth);
            let fields = [
                "Authorization: Bearer k",
                "X-Api-Key: k2",
                "X-Auth-Token: k3",
                "X-Own: k4",
            ];
            let seen = received(&gateway, &backend, &fields);
            assert_eq!(seen.header(name), Some(value), "{auth}");
            for other in ["Authorization", "X-Api-Key", "X-Auth-Token"] {
                assert!(
                    other == name || seen.header(other).is_none(),
                    "{auth}: {other}"
                );
            }
            // What a TRACE carries comes back to the client.
            exchange(&gateway, "TRACE /olla/proxy/x\r\nX-A: 1", b"");
            let traced = backend.last();
            assert_eq!(
                (traced.method.as_str(), traced.header(name)),
                ("TRACE", None)
            );
        }
    });
}

#[test]
fn an_endpoint_s_headers_replace_the_client_s_and_auth_wins_over_them() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = "headers = { X-Team = \"blue\", X-Env = \"${TEST_UNSET:-fallback}\", \
                    authorization = \"map\" }\nauth.type = \"bearer\"\nauth.token = \"t\"";
        let gateway = over(driver, &backend, more);
        let seen = received(&gateway, &backend, &["x-team: red", "X-Team: green"]);
        assert_eq!(seen.header("X-Team"), Some("blue"));
        assert_eq!(seen.header("X-Env"), Some("fallback"));
        assert_eq!(seen.header("Authorization"), Some("Bearer t"));
    });
}

#[test]
fn an_answer_passes_with_its_headers_repeated_ones_too() {
    on_both_drivers(|driver| {
        let lines = "Content-Type: text/odd\r\nX-Twice: a\r\nX-Twice: b\r\nRetry-After: 7\r\n\
                     WWW-Authenticate: Bearer\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
                     Content-Encoding: br\r\nETag: \"e\"";
        let answer = relayed(driver, lines, "");
        assert_eq!(answer.header("Content-Type"), Some("text/odd"));
        assert_eq!(answer.all("X-Twice"), ["a", "b"]);
        assert_eq!(answer.header("Retry-After"), Some("7"));
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        assert_eq!(answer.header("Date"), Some("Mon, 01 Jan 2024 00:00:00 GMT"));
        assert_eq!(answer.header("Content-Encoding"), Some("br"));
        assert_eq!(answer.header("ETag"), Some("\"e\""));
        assert_eq!(answer.header("Content-Length"), Some("2"));
        assert_eq!(answer.text(), "ok");
    });
}

#[test]
fn an_answer_loses_secrets_cookies_and_connection_level_headers() {
    on_both_drivers(|driver| {
        let lines = "Authorization: Bearer t\r\nProxy-Authorization: x\r\nX-Api-Key: x\r\n\
                     X-Auth-Token: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Team: blue\r\n\
                     X-Own: t\r\nConnection: keep-alive, X-Named\r\nX-Named: 1\r\n\
                     Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
                     Proxy-Connection: close\r\nTE: x\r\nTrailer: X-T\r\nUpgrade: h2c\r\n\
                     X-Olla-Endpoint: forged\r\nX-Olla-Anything: forged\r\n\
                     Access-Control-Allow-Origin: https://forged.test\r\nX-Kept: 1";
        let more = "headers = { x-team = \"blue\" }\nauth.type = \"api_key\"\nauth.key = \"t\"\n\
                    auth.header = \"X-Own\"";
        let answer = relayed(driver, lines, more);
        let removed = [
            "Authorization",
            "Proxy-Authorization",
            "X-Api-Key",
            "X-Auth-Token",
            "Set-Cookie",
            "X-Team",
            "X-Own",
            "X-Named",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "X-Olla-Anything",
        ];
        for name in removed {
            assert!(answer.all(name).is_empty(), "{name}");
        }
        // The connection to the client is another one.
        assert_eq!(answer.header("Connection"), None);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(answer.header("X-Kept"), Some("1"));
    });
}

#[test]
fn an_answer_says_where_it_came_from() {
    on_both_drivers(|driver| {
        let answer = relayed(driver, "Via: 1.1 up\r\nX-Served-By: up/1", "");
        answer.has_the_fields_of_every_response();
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        // As it is spelled in the configuration.
        assert_eq!(answer.header("X-Olla-Backend-Type"), Some("lmstudio"));
        let served = answer.header("X-Served-By").unwrap();
        assert!(served.contains('/') && !served.contains("up/1"), "{served}");
        assert!(answer.header("Via").unwrap().starts_with("1.1 up, 1.1 "));
        for absent in [
            "X-Olla-Model",
            "X-Olla-Routing-Strategy",
            "X-Olla-Routing-Decision",
            "X-Olla-Routing-Reason",
            "X-Olla-Sticky-Session",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "Content-Type",
            "Transfer-Encoding",
        ] {
            assert_eq!(answer.header(absent), None, "{absent}");
        }
    });
}

#[test]
fn a_backend_s_type_is_told_as_it_is_spelled_or_as_it_was_found_out() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let types = [
            ("lm_studio", "lm_studio"),
            ("openai", "openai"),
            ("openai-compatible", "openai-compatible"),
            ("auto", "ollama"),
        ];
        for (spelled, told) in types {
            let endpoints = endpoint("one", spelled, &backend, "");
            let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
            let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
            assert_eq!(
                answer.header("X-Olla-Backend-Type"),
                Some(told),
                "{spelled}"
            );
        }
    });
}

/// The longest head of an answer that is taken.
#[test]
fn a_backend_s_head_of_32_kib_passes_and_one_byte_more_is_502() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            let length: usize = request.target.trim_start_matches('/').parse().unwrap();
            let around = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Pad: \r\n\r\n".len();
            let pad = "p".repeat(length - around);
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Pad: {pad}\r\n\r\nok"
            ));
        });
        let gateway = over(driver, &backend, "");
        let ask = |length: usize| get(&gateway, &format!("/olla/proxy/{length}"), &[]);
        let answer = ask(32 << 10);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert!(answer.header("X-Pad").is_some_and(|pad| pad.len() > 32_000));
        // A client can have its own bytes repeated: no number of such requests opens the breaker.
        for _ in 0..12 {
            ask((32 << 10) + 1).is_error(502, "bad_gateway", "BACKEND_ERROR");
        }
        assert_eq!(ask(1 << 10).status, 200);
    });
}

#[test]
fn an_answer_to_a_request_with_a_model_names_it_and_the_routing() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["Some/Model"]);
        let gateway = over(driver, &backend, "");
        let answer = post(&gateway, CHAT, &[], r#"{"model":" Some/Model "}"#);
        assert_eq!(answer.header("X-Olla-Model"), Some("Some/Model"));
        assert_eq!(answer.header("X-Olla-Routing-Strategy"), Some("strict"));
        assert_eq!(answer.header("X-Olla-Routing-Decision"), Some("routed"));
        assert_eq!(answer.header("X-Olla-Routing-Reason"), Some("model_found"));
    });
}

#[test]
fn any_status_passes_with_its_body() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            let status = request.target.trim_start_matches('/').to_owned();
            let body = format!("{{\"own\":{status}}}");
            link.respond(status.parse().unwrap(), "application/json", body);
        });
        let gateway = over(driver, &backend, "");
        for status in [
            200, 201, 299, 301, 302, 307, 400, 401, 404, 418, 429, 500, 503, 529, 599, 999,
        ] {
            let answer = get(&gateway, &format!("/olla/proxy/{status}"), &[]);
            assert_eq!(answer.status, status);
            assert_eq!(answer.text(), format!("{{\"own\":{status}}}"));
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        }
        assert_eq!(backend.count(), 16);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn bodyless_answers_end_with_their_head() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            match request.target.as_str() {
                "/204" => link.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/304" => link
                    .send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"e\"\r\n\r\n"),
                _ => link.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            };
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        for (method, path, status) in [
            ("GET", "/204", 204),
            ("GET", "/304", 304),
            ("HEAD", "/x", 200),
        ] {
            client.send(format!(
                "{method} /olla/proxy{path} HTTP/1.1\r\nHost: h\r\n\r\n"
            ));
            let answer = client.response_to(method);
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("Transfer-Encoding"), None);
            if method == "HEAD" {
                assert_eq!(answer.header("Content-Length"), Some("1234"));
            }
        }
        // The backend's connection was used again: nothing was waited for on it.
        assert_eq!(backend.last().connection, backend.seen()[0].connection);
    });
}

#[test]
fn interim_answers_and_trailers_are_swallowed() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            );
            link.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
                 5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
            );
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        for _ in 0..2 {
            client.send(format!("GET {X} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let answer = client.response();
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
            assert_eq!((answer.header("Link"), answer.header("X-T")), (None, None));
        }
    });
}

#[test]
fn a_request_id_is_the_client_s_if_it_can_be() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let longest = "x".repeat(128);
        for own in [
            "a",
            "noble-prancing-ca40",
            "!\"#$%&'()*+,/:;<=>?@[]^`{|}~",
            longest.as_str(),
        ] {
            let answer = get(&gateway, X, &[&format!("X-Request-ID: {own}")]);
            assert_eq!(answer.header("X-Olla-Request-ID"), Some(own));
            assert_eq!(backend.last().header("X-Request-ID"), Some(own));
            let error = get(&gateway, "/nosuch", &[&format!("X-Request-ID: {own}")]);
            assert_eq!(error.header("X-Olla-Request-ID"), Some(own));
        }
        let twice = ["X-Request-ID: first", "X-Request-ID: second"];
        let answer = get(&gateway, X, &twice);
        assert_eq!(answer.header("X-Olla-Request-ID"), Some("first"));
    });
}

#[test]
fn a_request_id_is_made_where_there_is_none_or_no_good_one() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let too_long = format!("X-Request-ID: {}", "x".repeat(129));
        let bad = [
            "X-Other: 1",
            "X-Request-ID:",
            "X-Request-ID: two words",
            "X-Request-ID: caf\u{e9}",
            "X-Olla-Request-ID: forged",
            too_long.as_str(),
        ];
        let mut made = std::collections::BTreeSet::new();
        for field in bad {
            let answer = get(&gateway, X, &[field]);
            let id = answer.header("X-Olla-Request-ID").unwrap().to_owned();
            assert!((8..=64).contains(&id.len()), "{id}");
            let words: Vec<&str> = id.split('-').collect();
            assert_eq!(words.len(), 3, "{id}");
            let is_lower = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(is_lower(words[0]) && is_lower(words[1]), "{id}");
            let hex = words[2];
            assert!(
                hex.len() >= 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{id}"
            );
            assert_eq!(backend.last().header("X-Request-ID"), Some(id.as_str()));
            assert!(made.insert(id));
        }
    });
}
