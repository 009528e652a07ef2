//! Ollama's API in front of servers that do not speak it.
//!
//! Contract: docs/contract/dialects.md#3, docs/contract/dialects.md#4,
//! docs/contract/dialects.md#10 to docs/contract/dialects.md#12

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, Response, endpoint, get, on_both_drivers,
    post,
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;

/// A server with chat completions only: it streams `Hi` if it is asked to.
fn chat_server(models: &[&str]) -> Backend {
    Backend::new(models, |request, link| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if request.path() == "/v1/embeddings" {
            let response = json!({"data": [
                {"index": 1, "embedding": [2]}, {"index": 0, "embedding": [0.5]},
            ]});
            return link.respond(200, "application/json", response.to_string());
        }
        let usage = json!({"prompt_tokens": 11, "completion_tokens": 7});
        if body["stream"] != true {
            let message = json!({"role": "assistant", "content": "Hi"});
            let choice = json!({"message": message, "finish_reason": "length"});
            let response = json!({"choices": [choice], "usage": usage});
            return link.respond(200, "application/json", response.to_string());
        }
        link.begin("text/event-stream");
        for data in [
            json!({"choices": [{"delta": {"content": "H"}}]}),
            json!({"choices": [{"delta": {"content": "i"}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": usage}),
        ] {
            link.chunk(format!("data: {data}\n\n"));
        }
        link.chunk("data: [DONE]\n\n");
        link.chunk("");
    })
}

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

fn lines(response: &Response) -> Vec<Value> {
    let text = response.text();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_chat_is_translated_to_lines() {
    on_both_drivers(|driver| {
        let backend = chat_server(&["m"]);
        let gateway = over(
            driver,
            "vllm",
            &backend,
            "model_aliases = { small = [\"m\"] }\n",
        );
        for path in ["/api/chat", "/olla/proxy/api/chat", "/olla/vllm/api/chat"] {
            for model in ["m", "M", "small", "m:latest"] {
                let body = json!({
                    "model": model, "messages": [{"role": "user", "content": "x"}],
                    "options": {"num_predict": 3, "mirostat": 1, "num_ctx": 9}, "template": "t",
                });
                let answer = post(&gateway, path, &[], body.to_string());
                assert_eq!(answer.status, 200, "{path} {model}: {}", answer.text());
                assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
                assert_eq!(answer.header("X-Olla-Dialect"), Some("openai-chat"));
                assert_eq!(answer.header("X-Olla-Mode"), None);
                let dropped = answer.header("X-Olla-Dropped");
                assert_eq!(dropped, Some("options.mirostat, template"));
                let lines = lines(&answer);
                assert_eq!(lines.len(), 3);
                assert!(lines.iter().all(|line| line["model"] == model));
                assert_eq!(lines[0]["message"]["content"], "H");
                assert_eq!(lines[1]["message"]["content"], "i");
                let last = &lines[2];
                assert_eq!(last["done"], true);
                assert_eq!(last["done_reason"], "stop");
                assert_eq!(
                    (&last["prompt_eval_count"], &last["eval_count"]),
                    (&json!(11), &json!(7))
                );
                let sent = backend.last();
                assert_eq!(sent.target, "/v1/chat/completions");
                let sent: Value = serde_json::from_slice(&sent.body).unwrap();
                assert_eq!(sent["model"], "m");
                assert_eq!(sent["max_tokens"], 3);
                assert_eq!(sent["stream_options"]["include_usage"], true);
            }
        }
        let body = r#"{"model":"m","prompt":"x","stream":false}"#;
        let answer = post(&gateway, "/api/generate", &[], body);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        let whole = answer.json();
        assert_eq!(whole["response"], "Hi");
        assert_eq!(whole["done_reason"], "length");
        let body = r#"{"model":"m","input":["a","b"]}"#;
        let whole = post(&gateway, "/api/embed", &[], body).json();
        assert_eq!(whole["embeddings"], json!([[0.5], [2]]));
        assert_eq!(backend.last().target, "/v1/embeddings");
        let whole = post(
            &gateway,
            "/api/embeddings",
            &[],
            r#"{"model":"m","prompt":"a"}"#,
        )
        .json();
        assert_eq!(whole, json!({"embedding": [0.5]}));
        let stats = get(&gateway, "/internal/stats/translators", &[]).text();
        assert!(stats.contains("ollama"), "{stats}");
    });
}

#[test]
fn a_model_is_loaded_without_asking_anyone() {
    on_both_drivers(|driver| {
        let backend = chat_server(&["m"]);
        let gateway = over(driver, "vllm", &backend, "");
        for (path, body, reason) in [
            ("/api/generate", r#"{"model":"m"}"#, "load"),
            ("/api/chat", r#"{"model":"m","messages":[]}"#, "load"),
            ("/api/generate", r#"{"model":"m","keep_alive":0}"#, "unload"),
        ] {
            let answer = post(&gateway, path, &[], body);
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
            assert_eq!(answer.json()["done_reason"], reason);
        }
        let empty = post(&gateway, "/api/embed", &[], r#"{"model":"m","input":[]}"#).json();
        assert_eq!(empty["embeddings"], json!([]));
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn an_ollama_gets_what_the_client_wrote() {
    on_both_drivers(|driver| {
        let ollama = Backend::new(&["m", "own"], |_, link| {
            link.respond(
                200,
                "application/x-ndjson",
                "{\"done\":true,\"context\":[1]}\n",
            );
        });
        let vllm = chat_server(&["m"]);
        let endpoints = endpoint("o", "ollama", &ollama, "") + &endpoint("v", "vllm", &vllm, "");
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        let body = r#"{"model":"own", "messages":[ ],"options":{"num_ctx":4096}}"#;
        for path in ["/api/chat", "/olla/ollama/api/chat", "/olla/proxy/api/chat"] {
            let answer = post(&gateway, path, &[], body);
            assert_eq!(answer.header("X-Olla-Mode"), Some("passthrough"));
            assert_eq!(answer.header("X-Olla-Dialect"), None);
            assert_eq!(answer.text(), "{\"done\":true,\"context\":[1]}\n");
            assert_eq!(ollama.last().target, "/api/chat");
            assert_eq!(ollama.last().body, body.as_bytes());
        }
        // An Ollama is preferred, and gets what cannot be translated.
        for body in [CHAT, r#"{"model":"m","messages":7}"#] {
            let answer = post(&gateway, "/api/chat", &[], body);
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("o"));
        }
        assert_eq!(vllm.count(), 0);
        // When it is gone the others serve.
        ollama.stop();
        let answer = post(&gateway, "/api/chat", &[], CHAT);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("v"));
        assert_eq!(lines(&answer).len(), 3);
    });
}

#[test]
fn errors_have_ollamas_form_at_the_root() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            let error = r#"{"error":{"message":"too hot","type":"x"}}"#;
            link.respond(418, "application/json", error);
        });
        let gateway = over(driver, "vllm", &backend, "");
        let rows = [
            ("", 400, "missing request body"),
            ("[]", 400, "the request body: expected a JSON object"),
            (r#"{"messages":[]}"#, 400, "model is required"),
            (r#"{"model":"none"}"#, 404, "model 'none' not found"),
            (
                r#"{"model":"m","messages":7}"#,
                400,
                "messages: expected an array of messages",
            ),
            (CHAT, 418, "too hot"),
        ];
        for (body, status, message) in rows {
            let answer = post(&gateway, "/api/chat", &[], body);
            assert_eq!(answer.status, status, "{body}");
            assert_eq!(answer.json()["error"], message, "{body}");
        }
        let answer = post(&gateway, "/olla/vllm/api/chat", &[], CHAT);
        assert_eq!(answer.status, 418);
        let error = json!({"message": "too hot", "type": "bad_request", "code": "INVALID_REQUEST"});
        assert_eq!(answer.json(), json!({ "error": error }));
        assert_eq!(get(&gateway, "/api/chat", &[]).status, 405);
    });
}

/// Asks for a chat, and leaves the response for later.
fn asking(gateway: &Gateway) -> Client {
    let mut client = Client::to(gateway);
    client.send(format!(
        "POST /api/chat HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{CHAT}",
        CHAT.len()
    ));
    client
}

/// A server that says this and then waits to be left: how long that took.
fn left_after(events: &'static str) -> (Backend, Receiver<Option<Duration>>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let backend = Backend::new(&["m"], move |_, link| {
        if !events.is_empty() {
            link.begin("text/event-stream");
            link.chunk(events);
        }
        let left = link.left_within(PATIENCE);
        // Nobody may be waiting for it.
        let _ = tell.lock().unwrap().send(left);
    });
    (backend, told)
}

#[test]
fn a_silent_stream_gets_lines_and_a_client_that_leaves_stops_the_endpoint() {
    on_both_drivers(|driver| {
        for events in [
            "",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        ] {
            let (backend, told) = left_after(events);
            let gateway = over(
                driver,
                "vllm",
                &backend,
                "proxy.stream_keep_alive = \"1s\"\n",
            );
            let mut client = asking(&gateway);
            let head = client.head();
            assert_eq!(head.status, 200);
            assert_eq!(head.header("Content-Type"), Some("application/x-ndjson"));
            for _ in 0..2 {
                let line = client.chunk().unwrap();
                assert!(line.ends_with(b"}\n"));
                let line: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!(line["model"], "m");
                assert_eq!(line["message"], json!({"role": "assistant", "content": ""}));
                assert_eq!(line["done"], false);
            }
            let left = Instant::now();
            drop(client);
            assert!(told.recv_timeout(PATIENCE).unwrap().is_some());
            assert!(left.elapsed() < Duration::from_secs(1));
        }
    });
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.begin("text/event-stream");
            link.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n");
            link.cut();
        });
        let gateway = over(driver, "vllm", &backend, "");
        let answer = post(&gateway, "/api/chat", &[], CHAT);
        let lines = lines(&answer);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"]["content"], "Hi");
        assert!(lines[1]["error"].as_str().unwrap().contains("broke off"));
    });
}
