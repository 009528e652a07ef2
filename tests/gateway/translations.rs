//! Translation of conversations that end with the beginning of the answer.
//!
//! Contract: docs/contract/translation.md#7

use serde_json::{Value, json};

use testkit::{Backend, Config, Driver, Gateway, endpoint, on_both_drivers, post};

const MESSAGES: &str = "/olla/anthropic/v1/messages";

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// docs/contract/translation.md#7.2: an endpoint that cannot continue the answer does not get a
/// finished turn instead.
#[test]
fn the_beginning_of_an_answer_is_continued_or_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": "es"}});
            let body = json!({"choices": [choice]});
            link.respond(200, "application/json", body.to_string());
        });
        let turn = |content: Value| {
            let user = json!({"role": "user", "content": "Yes or no?"});
            let assistant = json!({"role": "assistant", "content": content});
            json!({"model": "m", "max_tokens": 9, "messages": [user, assistant]}).to_string()
        };
        let off = "translators.anthropic.passthrough_enabled = false";
        for (kind, continued) in [("vllm", true), ("sglang", true), ("llamacpp", false)] {
            let gateway = over(driver, kind, &backend, off);
            for content in [json!("Y"), json!([{"type": "text", "text": "Y"}])] {
                let answer = post(&gateway, MESSAGES, &[], turn(content));
                assert_eq!(answer.status, 200, "{kind} {}", answer.text());
                let sent: Value = serde_json::from_slice(&backend.last().body).unwrap();
                let expected = json!({"role": "assistant", "content": "Y"});
                assert_eq!(sent["messages"][1], expected, "{kind}");
                let flags = [
                    &sent["continue_final_message"],
                    &sent["add_generation_prompt"],
                ];
                let none = [&Value::Null; 2];
                let set = [&json!(true), &json!(false)];
                assert_eq!(flags, if continued { set } else { none }, "{kind}");
            }
        }
        let gateway = over(driver, "openai-compatible", &backend, "");
        let before = backend.count();
        let answer = post(&gateway, MESSAGES, &[], turn(json!("Y")));
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("cannot continue"), "{message}");
        assert_eq!(backend.count(), before);
        // A turn with a tool call is finished: its result follows.
        let call = json!([{"type": "tool_use", "id": "c", "name": "f", "input": {}}]);
        assert_eq!(post(&gateway, MESSAGES, &[], turn(call)).status, 200);
    });
}
