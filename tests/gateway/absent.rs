//! What clients look for that endpoints do not have: APIs without a translation, and the id of a
//! request.
//!
//! Contract: docs/contract/dialects.md#17

use serde_json::Value;

use testkit::{Backend, Config, Driver, Gateway, endpoint, get, on_both_drivers, post};

const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn over(driver: Driver, backend: &Backend) -> Gateway {
    let endpoints = endpoint("one", "openai-compatible", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints))
}

#[test]
fn an_absent_api_is_named_with_what_is_there() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend);
        let anthropic = ["anthropic-version: 2023-06-01"];
        let table: [(&str, &[&str], &str); 7] = [
            (
                "/v1beta/models/gemini-2.5-pro:generateContent",
                &[],
                "Gemini",
            ),
            ("/v1beta/models", &[], "Gemini"),
            ("/olla/anthropic/v1/messages/batches", &[], "batches"),
            ("/olla/anthropic/v1/messages/batches/b1", &[], "batches"),
            ("/olla/anthropic/v1/files", &[], "files"),
            ("/olla/proxy/v1/messages/batches", &[], "batches"),
            ("/olla/proxy/v1/files", &anthropic, "files"),
        ];
        for (path, fields, named) in table {
            let responses = [
                get(&gateway, path, fields),
                post(&gateway, path, fields, "{}"),
            ];
            for response in responses {
                assert_eq!(response.status, 404, "{path}");
                response.has_the_fields_of_every_response();
                let error: Value = response.json();
                let message = error["error"]["message"].as_str().unwrap();
                let says = message.contains(named) && message.contains("/v1/");
                assert!(says, "{path}: {message}");
                let is_anthropic = error["type"] == "error";
                assert_eq!(is_anthropic, path.starts_with("/olla/anthropic/"), "{path}");
            }
        }
        assert_eq!(backend.count(), 0, "no endpoint is asked");
        // OpenAI's files are another API, which an endpoint may have.
        assert_eq!(get(&gateway, "/olla/proxy/v1/files", &[]).status, 200);
        assert_eq!(get(&gateway, "/v1betas", &[]).status, 404);
    });
}

#[test]
fn a_handshake_of_websockets_is_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend);
        for path in ["/olla/openai/v1/realtime", "/olla/proxy/v1/responses"] {
            let response = get(&gateway, path, &HANDSHAKE);
            assert_eq!(response.status, 501, "{path}");
            let error: Value = response.json();
            assert_eq!(error["error"]["code"], "NOT_SUPPORTED");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains("WebSockets") && message.contains("/v1/responses"));
        }
        assert_eq!(backend.count(), 0);
        // Another upgrade is an ordinary request.
        let fields = ["Connection: Upgrade", "Upgrade: h2c"];
        assert_eq!(get(&gateway, "/olla/proxy/x", &fields).status, 200);
    });
}

#[test]
fn every_response_has_the_id_that_openai_s_clients_show() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            let own = match request.target.as_str() {
                "/v1/own" => "X-Request-Id: its-own\r\n",
                _ => "",
            };
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{own}Content-Length: 2\r\n\r\n{{}}"
            ));
        });
        let gateway = over(driver, &backend);
        let id = ["X-Request-ID: mine"];
        for path in [
            "/olla/openai/v1/x",
            "/olla/openai/v1/models",
            "/olla/openai/v1/models/no-such-model",
            "/olla/models",
            "/nosuch",
        ] {
            let response = get(&gateway, path, &id);
            assert_eq!(response.header("x-request-id"), Some("mine"), "{path}");
        }
        let response = get(&gateway, "/olla/openai/v1/own", &id);
        assert_eq!(response.header("x-request-id"), Some("its-own"));
        let response = get(&gateway, "/olla/anthropic/v1/models", &id);
        assert_eq!(response.header("request-id"), Some("mine"));
        assert_eq!(response.header("x-request-id"), None);
    });
}
