//! The Responses API in front of real sockets: passed through, translated, kept.
//!
//! What translation makes of each item and each event has its tables in `src/dialects/responses`.
//!
//! Contract: docs/contract/dialects.md#1, docs/contract/dialects.md#3,
//! docs/contract/dialects.md#5 to docs/contract/dialects.md#9

use serde_json::{Value, json};

use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, endpoint, get, on_both_drivers, post,
};

const RESPONSES: &str = "/v1/responses";

/// A request with a key; its response.
fn ask(gateway: &Gateway, method: &str, path: &str, key: &str, body: &str) -> Response {
    let mut client = Client::to(gateway);
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.response_to(method)
}

/// Speaks chat completions alone, and says this.
fn chat(text: &'static str) -> Backend {
    Backend::new(&["m"], move |request, link| {
        if request.target.starts_with("/v1/chat/completions") {
            let message = json!({"role": "assistant", "content": text});
            let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
            link.respond(200, "application/json", body.to_string());
        } else {
            link.respond(404, "application/json", r#"{"detail":"Not Found"}"#);
        }
    })
}

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

fn request(input: &str, more: &Value) -> String {
    let mut body = json!({"model": "m", "input": input});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

/// The messages that a backend got last.
fn messages(backend: &Backend) -> Value {
    let body: Value = serde_json::from_slice(&backend.last().body).unwrap();
    body["messages"].clone()
}

#[test]
fn a_conversation_is_kept_for_its_client() {
    on_both_drivers(|driver| {
        let backend = chat("Hello Ann");
        let gateway = over(driver, "lmdeploy", &backend, "");
        let first = ask(
            &gateway,
            "POST",
            RESPONSES,
            "k1",
            &request("I am Ann", &json!({})),
        );
        assert_eq!(first.status, 200, "{}", first.text());
        assert_eq!(first.header("X-Olla-Mode"), None);
        assert_eq!(first.header("X-Olla-Dialect"), Some("openai-chat"));
        let first = first.json();
        let id = first["id"].as_str().unwrap();
        assert_eq!(first["store"], true);

        let goes_on = request("Who am I?", &json!({"previous_response_id": id}));
        let second = ask(&gateway, "POST", RESPONSES, "k1", &goes_on);
        assert_eq!(second.status, 200, "{}", second.text());
        assert_eq!(
            messages(&backend),
            json!([
                {"role": "user", "content": "I am Ann"},
                {"role": "assistant", "content": "Hello Ann"},
                {"role": "user", "content": "Who am I?"},
            ])
        );
        let path = format!("{RESPONSES}/{id}");
        assert_eq!(ask(&gateway, "GET", &path, "k1", "").json(), first);
        let items = ask(&gateway, "GET", &format!("{path}/input_items"), "k1", "").json();
        assert_eq!(items["data"][0]["content"][0]["text"], "I am Ann");

        // Nobody else finds it.
        let other = ask(&gateway, "POST", RESPONSES, "k2", &goes_on);
        assert_eq!(other.status, 400);
        let error = &other.json()["error"];
        assert_eq!(error["code"], "previous_response_not_found");
        assert_eq!(error["param"], "previous_response_id");
        for key in ["k2", ""] {
            let other = ask(&gateway, "GET", &path, key, "");
            assert_eq!(other.status, 404);
            assert_eq!(other.json()["error"]["code"], "response_not_found");
        }
        let statistics = get(&gateway, "/internal/stats/translators", &[]).json();
        let store = &statistics["responses_store"];
        assert_eq!(
            (&store["items"], &store["enabled"]),
            (&json!(2), &json!(true))
        );

        // Deleted, it is still what the second builds on.
        let deleted = ask(&gateway, "DELETE", &path, "k1", "");
        assert_eq!(
            deleted.json(),
            json!({"id": id, "object": "response", "deleted": true})
        );
        assert_eq!(ask(&gateway, "GET", &path, "k1", "").status, 404);
        let second = second.json();
        let third = request("?", &json!({"previous_response_id": second["id"]}));
        assert_eq!(ask(&gateway, "POST", RESPONSES, "k1", &third).status, 200);
        assert_eq!(messages(&backend)[0]["content"], "I am Ann");
        let path = format!("{RESPONSES}/{}/cancel", second["id"].as_str().unwrap());
        assert_eq!(ask(&gateway, "POST", &path, "k1", "").status, 400);
    });
}

#[test]
fn what_is_not_kept() {
    on_both_drivers(|driver| {
        let backend = chat("Yes");
        let gateway = over(driver, "lmdeploy", &backend, "");
        let not = ask(
            &gateway,
            "POST",
            RESPONSES,
            "k",
            &request("x", &json!({"store": false})),
        );
        let not = not.json();
        assert_eq!(not["store"], false);
        let path = format!("{RESPONSES}/{}", not["id"].as_str().unwrap());
        assert_eq!(ask(&gateway, "GET", &path, "k", "").status, 404);

        let off = over(
            driver,
            "lmdeploy",
            &backend,
            "[responses]\nstore = \"off\"\n",
        );
        let not = ask(&off, "POST", RESPONSES, "k", &request("x", &json!({}))).json();
        assert_eq!(not["store"], false);
        let goes_on = request("x", &json!({"previous_response_id": not["id"]}));
        let refused = ask(&off, "POST", RESPONSES, "k", &goes_on);
        assert_eq!(refused.status, 400);
        let message = refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains("responses.store"), "{message}");
    });
}

/// A server with a Responses API that keeps nothing: what passes is kept here.
#[test]
fn responses_that_pass_are_kept() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            if request.target.starts_with("/v1/responses") {
                let body = concat!(
                    r#"{ "id":"resp_native1","object":"response","status":"completed","#,
                    r#""output":[{"type":"message","role":"assistant","id":"msg_1","#,
                    r#""content":[{"type":"output_text","text":"Native"}]}]}"#
                );
                link.respond(200, "application/json", body);
            } else {
                let body = r#"{"choices":[{"message":{"content":"Chat"}}]}"#;
                link.respond(200, "application/json", body);
            }
        });
        let gateway = over(driver, "vllm", &backend, "");
        let body = "{ \"model\":\"m\", \"input\":\"Hi\",\"x\":1.50 }";
        let first = ask(&gateway, "POST", RESPONSES, "k", body);
        assert_eq!(first.header("X-Olla-Mode"), Some("passthrough"));
        assert_eq!(backend.last().body, body.as_bytes());
        assert!(first.text().starts_with("{ \"id\""));
        let goes_on = request("More", &json!({"previous_response_id": "resp_native1"}));
        let second = ask(&gateway, "POST", RESPONSES, "k", &goes_on);
        assert_eq!(second.header("X-Olla-Mode"), None, "{}", second.text());
        assert_eq!(
            messages(&backend),
            json!([
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Native"},
                {"role": "user", "content": "More"},
            ])
        );
    });
}

/// A server that keeps its responses gets everything that belongs to them.
#[test]
fn what_an_endpoint_keeps_goes_to_that_endpoint() {
    on_both_drivers(|driver| {
        let stateful = |name: &'static str| {
            Backend::new(&["m"], move |request, link| {
                let path = request.target.clone();
                let body = json!({"id": format!("resp_{name}"), "object": "response",
                                  "status": "completed", "output": [], "path": path});
                link.respond(200, "application/json", body.to_string());
            })
        };
        let (one, two) = (stateful("one"), stateful("two"));
        let endpoints = [
            endpoint("one", "lm-studio", &one, ""),
            endpoint("two", "lm-studio", &two, ""),
        ];
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()));
        let made = ask(&gateway, "POST", RESPONSES, "k", &request("x", &json!({}))).json();
        let id = made["id"].as_str().unwrap().to_owned();
        let name = id.strip_prefix("resp_").unwrap();
        for _ in 0..4 {
            let goes_on = request("y", &json!({"previous_response_id": id}));
            let response = ask(&gateway, "POST", RESPONSES, "k", &goes_on);
            assert_eq!(response.header("X-Olla-Endpoint"), Some(name));
        }
        let found = ask(&gateway, "GET", &format!("{RESPONSES}/{id}"), "k", "");
        assert_eq!(
            found.header("X-Olla-Endpoint"),
            Some(name),
            "{}",
            found.text()
        );
        assert_eq!(found.json()["path"], format!("/v1/responses/{id}"));
        // Two endpoints may have made it.
        let unknown = ask(&gateway, "GET", "/v1/responses/resp_x", "k", "");
        assert_eq!(unknown.status, 404);
    });
}

#[test]
fn tokens_are_estimated() {
    on_both_drivers(|driver| {
        let backend = chat("Yes");
        let gateway = over(driver, "lmdeploy", &backend, "");
        let path = "/v1/responses/input_tokens";
        let body = request(&"x".repeat(40), &json!({"instructions": "y".repeat(8)}));
        let counted = post(&gateway, path, &[], &body);
        assert_eq!(
            counted.json(),
            json!({"object": "response.input_tokens", "input_tokens": 12})
        );
        let refused = post(&gateway, path, &[], r#"{"model":"m"}"#);
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], "input");
    });
}
