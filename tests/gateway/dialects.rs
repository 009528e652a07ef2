//! What is the same for every dialect that is translated, and what real clients of the Messages API
//! need besides.
//!
//! Contract: docs/contract/dialects.md#4, docs/contract/dialects.md#15, docs/contract/dialects.md#17

use serde_json::{Value, json};

use testkit::{Backend, Config, Driver, Gateway, Response, endpoint, on_both_drivers, post};

const MESSAGES: &str = "/olla/anthropic/v1/messages";
const COMPLETION: &str = r#"{"model":"served","choices":[{"message":{"content":"Yes."}}]}"#;

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, more);
    Gateway::start(&Config::new(driver).more(&endpoints))
}

/// A backend that completes chats and responds to messages with a status and a body.
fn native(status: u16, body: &'static str) -> Backend {
    Backend::new(&["m"], move |request, link| {
        if request.target.starts_with("/v1/messages") {
            link.respond(status, "application/json", body);
        } else {
            link.respond(200, "application/json", COMPLETION);
        }
    })
}

fn ask(gateway: &Gateway, members: &Value) -> Response {
    let mut body = json!({
        "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
    });
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    post(gateway, MESSAGES, &["api-key: k"], body.to_string())
}

fn targets(backend: &Backend) -> Vec<String> {
    backend.seen().into_iter().map(|seen| seen.target).collect()
}

#[test]
fn a_translated_response_says_what_had_no_effect() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Own: 1\r\n\
                 x-ratelimit-remaining-tokens: 5\r\nContent-Length: {}\r\n\r\n{COMPLETION}",
                COMPLETION.len()
            ));
        });
        let gateway = over(driver, "sglang", &backend, "");
        let tools = json!({"tools": [
            {"type": "web_search_20250305", "name": "web_search"},
            {"name": "f", "input_schema": {"type": "object"}},
        ]});
        let response = ask(&gateway, &tools);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["model"], "m");
        for (name, value) in [
            ("X-Olla-Dialect", Some("openai-chat")),
            ("X-Olla-Dropped", Some("tools.web_search_20250305")),
            ("X-Olla-Mode", None),
            ("X-Own", None),
            ("x-ratelimit-remaining-tokens", Some("5")),
        ] {
            assert_eq!(response.header(name), value, "{name}");
        }
        assert_eq!(backend.last().header("Authorization"), Some("Bearer k"));
        let response = ask(&gateway, &json!({}));
        assert_eq!(response.header("X-Olla-Dropped"), None);
    });
}

/// docs/contract/dialects.md#1: the configuration knows better than the type.
#[test]
fn an_endpoint_speaks_what_its_configuration_says() {
    on_both_drivers(|driver| {
        let backend = native(200, r#"{"type":"message"}"#);
        let gateway = over(driver, "vllm", &backend, "dialects = [\"openai-chat\"]");
        let response = ask(&gateway, &json!({}));
        assert_eq!(response.header("X-Olla-Dialect"), Some("openai-chat"));
        let all = "dialects = [\"openai-chat\", \"anthropic-messages\"]";
        let gateway = over(driver, "sglang", &backend, all);
        let response = ask(&gateway, &json!({}));
        assert_eq!(response.header("X-Olla-Mode"), Some("passthrough"));
        assert_eq!(targets(&backend), ["/v1/chat/completions", "/v1/messages"]);
    });
}

#[test]
fn errors_of_native_endpoints_have_anthropics_form() {
    on_both_drivers(|driver| {
        for (status, body, shown, message) in [
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9001,"n_ctx":4096}}"#,
                400,
                "prompt is too long: 9001 tokens > 4096 maximum",
            ),
            (
                500,
                r#"{"error":{"message":"out of memory"}}"#,
                500,
                "out of memory",
            ),
            (
                429,
                r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"},"own":1}"#,
                429,
                "slow",
            ),
        ] {
            let backend = native(status, body);
            let gateway = over(driver, "llamacpp", &backend, "");
            let response = ask(&gateway, &json!({}));
            assert_eq!(response.status, shown, "{body}");
            let error = response.json();
            assert_eq!(error["type"], "error");
            assert_eq!(error["error"]["message"], message);
            // What is in the API's form already passes as it is.
            assert_eq!(error["own"] == 1, status == 429);
            assert_eq!(targets(&backend), ["/v1/messages"]);
        }
    });
}

/// As translated endpoints say it.
#[test]
fn a_conversation_that_is_too_long_is_named_so() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            let body = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."}"#;
            link.respond(400, "application/json", body);
        });
        let gateway = over(driver, "sglang", &backend, "");
        let response = ask(&gateway, &json!({}));
        assert_eq!(response.status, 400);
        let error = &response.json()["error"];
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(
            error["message"],
            "prompt is too long: 5000 tokens > 4096 maximum"
        );
    });
}

#[test]
fn a_native_endpoint_that_refuses_a_system_message_gets_the_request_translated() {
    on_both_drivers(|driver| {
        let error = r#"{"error":{"message":"System message must be at the beginning."}}"#;
        let backend = native(400, error);
        let gateway = over(driver, "vllm", &backend, "");
        let messages = json!({"messages": [
            {"role": "user", "content": "x"}, {"role": "system", "content": "s"},
            {"role": "user", "content": "y"},
        ]});
        let response = ask(&gateway, &messages);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("X-Olla-Dialect"), Some("openai-chat"));
        let sent: Value = serde_json::from_slice(&backend.last().body).unwrap();
        assert_eq!(sent["messages"][1]["content"], "s\n\ny");
        // The endpoint speaks the API all the same.
        assert_eq!(ask(&gateway, &json!({})).status, 400);
        assert_eq!(
            targets(&backend),
            ["/v1/messages", "/v1/chat/completions", "/v1/messages"]
        );
    });
}

#[test]
fn structured_output_is_translated_where_the_native_route_ignores_it() {
    on_both_drivers(|driver| {
        let backend = native(200, r#"{"type":"message"}"#);
        let gateway = over(driver, "llamacpp", &backend, "");
        let format = json!({"type": "json_schema", "schema": {"type": "object"}});
        for members in [
            json!({"output_config": {"format": format}}),
            json!({"output_format": format}),
        ] {
            assert_eq!(ask(&gateway, &members).status, 200);
            let sent: Value = serde_json::from_slice(&backend.last().body).unwrap();
            assert_eq!(
                sent["response_format"]["json_schema"]["schema"],
                format["schema"]
            );
        }
        ask(&gateway, &json!({"output_config": {"effort": "low"}}));
        let chat = "/v1/chat/completions";
        assert_eq!(targets(&backend), [chat, chat, "/v1/messages"]);
    });
}
