//! What keys may use: limits and quotas, what a refusal gives back, the output limit, and the models
//! and endpoints that exist for a key.
//!
//! Contract: docs/contract/access.md#5 to docs/contract/access.md#8, docs/contract/access.md#18

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, bearer, endpoint, exchange, get,
    on_both_drivers, post, wait_until,
};

const ALICE: &str = "olla-EQcCNR6WkewLTwzvKyCmzgNXrUKY4m2ArgyHfhdeokR3gAVw1";
const ROOT: &str = "sk-root-0123456789abcdef";
const CHAT: &str = "/olla/openai/v1/chat/completions";
const REPLY: &str = r#"{"id":"c1","object":"chat.completion","model":"llama3","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}"#;

/// A gateway whose only client is alice, under these fields of a policy.
fn gateway(driver: Driver, endpoints: &str, policy: &str) -> Gateway {
    let access = format!(
        "[access]\nenabled = true\n[access.policies.dev]\n{policy}\n[[access.keys]]\nname = \"alice\"\n\
         hash = \"sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7\"\n\
         policy = \"dev\"\n"
    );
    let config = Config::new(driver).env("OLLA_ADMIN_KEY", ROOT);
    Gateway::start(&config.more(endpoints).more(&access))
}

fn backend() -> Backend {
    Backend::new(&["llama3", "qwen"], |request, link| {
        if request.text().contains("\"stream\":true") {
            link.begin("text/event-stream");
            link.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n");
            link.chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}\n\n");
            if request.text().contains("endless") {
                link.left_within(testkit::PATIENCE);
                return;
            }
            link.chunk("data: [DONE]\n\n");
            link.chunk("");
        } else {
            link.respond(200, "application/json", REPLY);
        }
    })
}

fn alice() -> String {
    bearer(ALICE)
}

fn chat(gateway: &Gateway, body: &Value) -> Response {
    post(gateway, CHAT, &[&alice()], body.to_string())
}

fn llama(more: &Value) -> Value {
    let mut body = json!({"model": "llama3", "messages": [{"role": "user", "content": "hello"}]});
    let object = body.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    body
}

fn used(gateway: &Gateway) -> Value {
    let own = get(gateway, "/olla/key", &[&alice()]).json();
    own["used"].clone()
}

#[track_caller]
fn is_error(response: &Response, status: u16, code: &str) -> String {
    let error = &response.json()["error"];
    assert_eq!(response.status, status, "{error}");
    assert_eq!(error["code"], code, "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn requests_of_the_minute() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let gateway = gateway(
            driver,
            &one,
            "requests_per_minute = 2\nmax_prompt_tokens = 200",
        );
        // A refusal costs nothing.
        for _ in 0..3 {
            let unknown = chat(&gateway, &json!({"model": "nowhere"}));
            is_error(&unknown, 404, "MODEL_NOT_FOUND");
            assert_eq!(unknown.header("x-ratelimit-remaining-requests"), Some("2"));
        }
        let long = llama(&json!({"x": "x".repeat(4_000)}));
        let message = is_error(&chat(&gateway, &long), 400, "PROMPT_TOO_LONG");
        assert_eq!(
            message,
            format!(
                "prompt is too long: about {} tokens, the API key 'alice' may send 200",
                long.to_string().len().div_ceil(4)
            )
        );
        for left in ["1", "0"] {
            let response = chat(&gateway, &llama(&json!({})));
            assert_eq!(response.status, 200);
            assert_eq!(response.header("x-ratelimit-limit-requests"), Some("2"));
            assert_eq!(
                response.header("x-ratelimit-remaining-requests"),
                Some(left)
            );
        }
        // Listings and one's own view take none.
        assert_eq!(
            get(&gateway, "/olla/openai/v1/models", &[&alice()]).status,
            200
        );
        assert_eq!(used(&gateway)["requests_per_minute"], 2);
        let count = backend.count();
        let over = chat(&gateway, &llama(&json!({})));
        let message = is_error(&over, 429, "REQUEST_LIMIT_EXCEEDED");
        let after = over.header("Retry-After").unwrap();
        assert!((1..=30).contains(&after.parse::<u64>().unwrap()));
        assert_eq!(
            message,
            format!("The API key 'alice' may send 2 requests a minute. Try again in {after} s.")
        );
        assert_eq!(over.header("Cache-Control"), Some("no-store"));
        assert_eq!(over.header("x-should-retry"), None);
        assert_eq!(backend.count(), count);
        let anthropic = post(&gateway, "/olla/anthropic/v1/messages", &[&alice()], "{}");
        assert_eq!(anthropic.status, 429);
        assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
        assert_eq!(
            anthropic.header("anthropic-ratelimit-requests-remaining"),
            Some("0")
        );
        assert!(
            anthropic
                .header("anthropic-ratelimit-requests-reset")
                .unwrap()
                .ends_with('Z')
        );
        assert_eq!(anthropic.header("x-ratelimit-limit-requests"), None);
        gateway.wait_line(&[
            "Limit reached",
            "\"key\":\"alice\"",
            "\"policy\":\"dev\"",
            "\"limit\":\"max_prompt_tokens\"",
        ]);
    });
}

#[test]
fn tokens_are_reserved_and_then_settled() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let gateway = gateway(driver, &one, "tokens_per_day = 1000");
        let body = llama(&json!({"max_tokens": 100}));
        let needed = body.to_string().len().div_ceil(4) + 100;
        let response = chat(&gateway, &body);
        assert_eq!(response.header("x-ratelimit-limit-tokens"), Some("1000"));
        assert_eq!(
            response.header("x-ratelimit-remaining-tokens"),
            Some(&*(1_000 - needed).to_string())
        );
        wait_until("the request is settled", || {
            used(&gateway)["tokens_per_day"] == 16
        });
        let over = chat(&gateway, &llama(&json!({"max_tokens": 990})));
        let message = is_error(&over, 429, "QUOTA_EXCEEDED");
        assert!(
            message.starts_with(
                "The API key 'alice' may use 1000 tokens a day; this request needs about "
            ) && message.contains(", 984 are left until ")
                && message.ends_with("T00:00:00Z."),
            "{message}"
        );
        assert_eq!(over.header("x-ratelimit-remaining-tokens"), Some("984"));
        let after: u64 = over.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&after));
        assert_eq!(over.header("x-should-retry").is_some(), after > 60);
        // A stream without usage costs its prompt and its events.
        let stream = llama(&json!({"stream": true, "max_tokens": 10}));
        assert_eq!(chat(&gateway, &stream).status, 200);
        let cost = 16 + stream.to_string().len().div_ceil(4) + 2;
        wait_until("the stream is settled", || {
            used(&gateway)["tokens_per_day"] == cost
        });
        let own = get(&gateway, "/olla/key", &[&alice()]).json();
        assert_eq!(own["limits"]["tokens_per_day"], 1_000);
        assert_eq!(own["limits"]["tokens_per_minute"], Value::Null);
        assert_eq!(own["used"]["concurrent"], 0);
        let metrics = gateway.admin_get("/internal/metrics").text();
        assert!(metrics.contains("olla_key_prompt_tokens_total{key=\"alice\"}"));
        assert!(
            metrics
                .contains("olla_access_limited_total{policy=\"dev\",limit=\"tokens_per_day\"} 1")
        );
        assert!(metrics.contains("olla_key_quota_limit_tokens{key=\"alice\",span=\"day\"} 1000"));
    });
}

#[test]
fn a_place_is_free_when_a_client_leaves() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let gateway = gateway(driver, &one, "concurrent = 1");
        for _ in 0..2 {
            let mut client = Client::to(&gateway);
            let body = llama(&json!({"stream": true, "x": "endless"})).to_string();
            client.send(format!(
                "POST {CHAT} HTTP/1.1\r\nHost: h\r\n{}\r\nContent-Length: {}\r\n\r\n{body}",
                alice(),
                body.len()
            ));
            wait_until("it is in progress", || used(&gateway)["concurrent"] == 1);
            let over = chat(&gateway, &llama(&json!({})));
            let message = is_error(&over, 429, "CONCURRENCY_LIMIT_EXCEEDED");
            assert_eq!(
                message,
                "The API key 'alice' may have 1 requests in progress at a time."
            );
            assert_eq!(over.header("Retry-After"), Some("1"));
            drop(client);
            wait_until("the place is free", || used(&gateway)["concurrent"] == 0);
        }
        assert_eq!(chat(&gateway, &llama(&json!({}))).status, 200);
    });
}

#[test]
fn a_policy_limits_its_keys_together() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let policy = "requests_per_minute = 9\n[access.policies.dev.together]\n\
                      requests_per_minute = 2\ntokens_per_month = 500";
        let gateway = gateway(driver, &one, policy);
        let first = chat(&gateway, &llama(&json!({"max_tokens": 100})));
        assert_eq!(first.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(first.header("x-ratelimit-limit-tokens"), Some("500"));
        let own = || get(&gateway, "/olla/key", &[&alice()]).json();
        wait_until("the request is settled", || {
            own()["together"]["used"]["tokens_per_month"] == 16
        });
        let over = chat(&gateway, &llama(&json!({"max_tokens": 5000})));
        let message = is_error(&over, 429, "QUOTA_EXCEEDED");
        let start = "The policy 'dev' may use 500 tokens a month; this request needs about ";
        assert!(message.starts_with(start), "{message}");
        // What the policy refuses the key gets back.
        assert_eq!(own()["used"]["requests_per_minute"], 1);
        assert_eq!(own()["together"]["limits"]["requests_per_minute"], 2);
        assert_eq!(
            chat(&gateway, &llama(&json!({"max_tokens": 9}))).status,
            200
        );
        let over = chat(&gateway, &llama(&json!({"max_tokens": 9})));
        let message = is_error(&over, 429, "REQUEST_LIMIT_EXCEEDED");
        let start = "The policy 'dev' may send 2 requests a minute.";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(over.header("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(own()["used"]["requests_per_minute"], 2);
    });
}

/// Clients that send as fast as they can, over two cores: the endpoint never sees more at a time
/// than allowed, and exactly as many requests as allowed.
#[test]
fn limits_are_exact_over_cores() {
    on_both_drivers(|driver| {
        let [now, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let busiest = Arc::clone(&most);
        let backend = Backend::new(&["llama3"], move |_, link| {
            let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
            busiest.fetch_max(at_once, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            link.respond(200, "application/json", REPLY);
        });
        let one = endpoint("one", "vllm", &backend, "");
        let two_cores = format!("{one}\n[server]\nworkers = 2\n");
        // The bucket gains nothing that matters while the test runs: a request in 6 s.
        let policy = "requests_per_minute = 10\nconcurrent = 2\ntokens_per_month = 1000000";
        let gateway = gateway(driver, &two_cores, policy);
        let passed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let response = chat(&gateway, &llama(&json!({})));
                        match response.status {
                            200 => drop(passed.fetch_add(1, Ordering::SeqCst)),
                            status => assert_eq!(status, 429),
                        }
                    }
                });
            }
        });
        let passed = passed.into_inner();
        assert!((10..=12).contains(&passed), "{passed}");
        assert!(most.load(Ordering::SeqCst) <= 2);
        wait_until("all are settled", || {
            let used = used(&gateway);
            used["tokens_per_month"] == 16 * passed && used["concurrent"] == 0
        });
    });
}

#[test]
fn output_is_limited_and_said() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let gateway = gateway(driver, &one, "max_output_tokens = 64");
        let table = [
            (json!({"max_tokens": 5000}), Some("64"), 64),
            (json!({}), Some("64"), 64),
            (json!({"max_tokens": 10}), None, 10),
        ];
        for (more, shown, sent) in table {
            let response = chat(&gateway, &llama(&more));
            assert_eq!(response.header("X-Olla-Max-Output-Tokens"), shown, "{more}");
            let seen: Value = serde_json::from_str(&backend.last().text()).unwrap();
            assert_eq!(seen["max_tokens"], sent);
            assert_eq!(seen["messages"][0]["content"], "hello");
        }
        // A translated request is limited before it is translated, and a large one too.
        let large = "x".repeat(300 << 10);
        for content in ["hello", &large] {
            let messages = json!({"model": "llama3", "max_tokens": 9000, "messages": [{"role": "user", "content": content}]});
            let path = "/olla/anthropic/v1/messages";
            let response = post(&gateway, path, &[&alice()], messages.to_string());
            assert_eq!(response.header("X-Olla-Max-Output-Tokens"), Some("64"));
            let seen: Value = serde_json::from_str(&backend.last().text()).unwrap();
            let limits = [&seen["max_tokens"], &seen["max_completion_tokens"]];
            assert!(limits.contains(&&json!(64)), "{limits:?}");
        }
    });
}

#[test]
fn a_policy_may_refuse_too_much_output() {
    on_both_drivers(|driver| {
        let backend = backend();
        let one = endpoint("one", "vllm", &backend, "");
        let policy = "max_output_tokens = 64\noutput_limit = \"refuse\"\nrequests_per_minute = 1";
        let gateway = gateway(driver, &one, policy);
        let refused = chat(&gateway, &llama(&json!({"max_tokens": 5000})));
        let message = is_error(&refused, 400, "OUTPUT_TOO_LONG");
        assert_eq!(
            message,
            "max_tokens is 5000, the API key 'alice' may ask for 64"
        );
        assert_eq!(
            chat(&gateway, &llama(&json!({"max_tokens": 64}))).status,
            200
        );
    });
}

#[test]
fn what_a_key_may_not_use_does_not_exist() {
    on_both_drivers(|driver| {
        let (batch, people) = (
            Backend::ok(&["llama3"]),
            Backend::ok(&["llama3", "qwen", "phi"]),
        );
        let endpoints = format!(
            "{}\n{}\n[model_aliases]\nhouse = [\"qwen\"]\nlocked = [\"llama3\"]\n",
            endpoint("batch-1", "vllm", &batch, ""),
            endpoint("people-1", "vllm", &people, "")
        );
        let policy = "models = [\"llama*\", \"house\", \"phi\", \"!llama-secret\"]";
        let gateway = gateway(driver, &endpoints, policy);
        let unknown = chat(&gateway, &json!({"model": "nosuch"}));
        for hidden in ["qwen", "locked", "QWEN"] {
            let response = chat(&gateway, &json!({"model": hidden}));
            is_error(&response, 404, "MODEL_NOT_FOUND");
            let body = response.text().replace(hidden, "nosuch");
            assert_eq!(body, unknown.text());
            for name in ["X-Olla-Routing-Decision", "X-Olla-Routing-Reason"] {
                assert_eq!(response.header(name), unknown.header(name));
            }
        }
        assert_eq!(chat(&gateway, &json!({"model": "house"})).status, 200);
        assert!(people.last().text().contains("\"model\":\"qwen\""));
        let none = chat(&gateway, &json!({"messages": []}));
        let message = is_error(&none, 403, "MODEL_REQUIRED");
        assert_eq!(
            message,
            "The API key 'alice' may use certain models only, and the request names none."
        );
        let path = "/olla/vllm/some/path";
        is_error(&get(&gateway, path, &[&alice()]), 403, "MODEL_REQUIRED");
        let two = post(
            &gateway,
            CHAT,
            &[&alice()],
            r#"{"model":"llama3","Model":"qwen"}"#,
        );
        is_error(&two, 400, "INVALID_MODEL");
        let part = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
        let form = format!("{part}qwen\r\n{part}llama3\r\n--b--\r\n");
        let kind = "Content-Type: multipart/form-data; boundary=b";
        let path = "/olla/vllm/v1/audio/transcriptions";
        let head = format!("POST {path}\r\n{}\r\n{kind}", alice());
        let two = exchange(&gateway, &head, form.as_bytes());
        is_error(&two, 400, "INVALID_MODEL");
        for listing in [
            "/olla/models",
            "/olla/models?format=openai",
            "/olla/openai/v1/models",
            "/olla/vllm/v1/models",
            "/v1/models",
            "/api/tags",
            "/olla/anthropic/v1/models",
        ] {
            let text = get(&gateway, listing, &[&alice()]).text();
            for (name, shown) in [
                ("llama3", true),
                ("house", true),
                ("phi", true),
                ("qwen", false),
                ("locked", false),
            ] {
                assert_eq!(text.contains(name), shown, "{listing} {name}: {text}");
            }
        }
        for (id, status) in [
            ("llama3", 200),
            ("house", 200),
            ("qwen", 404),
            ("locked", 404),
        ] {
            for path in ["/olla/models", "/olla/openai/v1/models"] {
                let path = format!("{path}/{id}");
                let response = get(&gateway, &path, &[&alice()]);
                assert_eq!(response.status, status, "{path}");
                assert!(!response.text().contains("qwen") || id == "qwen", "{path}");
            }
        }
        let root = bearer(ROOT);
        assert!(
            get(&gateway, "/olla/models", &[&root])
                .text()
                .contains("qwen")
        );
    });
}

#[test]
fn endpoints_outside_of_a_fleet_do_not_exist() {
    on_both_drivers(|driver| {
        let (batch, people) = (Backend::ok(&["llama3"]), Backend::ok(&["llama3", "qwen"]));
        let endpoints = format!(
            "{}\n{}",
            endpoint("batch-1", "vllm", &batch, ""),
            endpoint("people-1", "sglang", &people, "")
        );
        let gateway = gateway(driver, &endpoints, "endpoints = [\"batch-*\"]");
        for _ in 0..6 {
            assert_eq!(chat(&gateway, &json!({"model": "llama3"})).status, 200);
        }
        assert_eq!((batch.count(), people.count()), (6, 0));
        is_error(
            &chat(&gateway, &json!({"model": "qwen"})),
            404,
            "MODEL_NOT_FOUND",
        );
        let path = "/olla/sglang/v1/chat/completions";
        let body = r#"{"model":"llama3"}"#;
        let elsewhere = post(&gateway, path, &[&alice()], body);
        is_error(&elsewhere, 404, "ENDPOINT_NOT_FOUND");
        for listing in ["/olla/models", "/olla/openai/v1/models", "/api/tags"] {
            let text = get(&gateway, listing, &[&alice()]).text();
            assert!(
                text.contains("llama3") && !text.contains("qwen"),
                "{listing}: {text}"
            );
            assert!(!text.contains("people-1"), "{listing}: {text}");
        }
    });
}

/// The tokens that a response says it used, whatever its dialect: those of the last object that does.
#[track_caller]
fn told(response: &Response) -> u64 {
    let tokens = |line: &str| {
        let value: Value =
            serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line)).ok()?;
        let inner = value.get("response").unwrap_or(&value);
        let usage = inner.get("usage").unwrap_or(inner);
        let count = |names: [&str; 2]| names.iter().find_map(|name| usage[name].as_u64());
        let prompt = count(["input_tokens", "prompt_eval_count"])?;
        Some(prompt + count(["output_tokens", "eval_count"])?)
    };
    let text = response.text();
    text.lines().rev().find_map(tokens).unwrap()
}

/// An endpoint that reports no usage: a translated request is charged by the estimates that its client
/// is told, not by events of an API that the client has not spoken.
#[test]
fn translations_without_usage_are_charged_as_the_client_is_told() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["llama3"], |request, link| {
            let said = "twenty bytes of text";
            if request.text().contains("\"stream\":true") {
                link.begin("text/event-stream");
                for piece in said.split_inclusive(' ') {
                    let chunk = json!({"choices": [{"index": 0, "delta": {"content": piece}}]});
                    link.chunk(format!("data: {chunk}\n\n"));
                }
                link.chunk("data: [DONE]\n\n");
                link.chunk("");
            } else {
                let message = json!({"role": "assistant", "content": said});
                let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
                link.respond(200, "application/json", body.to_string());
            }
        });
        let one = endpoint("one", "lmdeploy", &backend, "");
        let gateway = gateway(driver, &one, "tokens_per_day = 1000000");
        let mut total = 0;
        let messages = json!([{"role": "user", "content": "Say twenty bytes of text."}]);
        for (path, content) in [
            ("/olla/anthropic/v1/messages", "messages"),
            ("/v1/responses", "input"),
            ("/api/chat", "messages"),
        ] {
            for stream in [false, true] {
                let mut body = json!({"model": "llama3", "max_tokens": 50, "stream": stream});
                body[content] = messages.clone();
                let response = post(&gateway, path, &[&alice()], body.to_string());
                assert_eq!(response.status, 200, "{path} {}", response.text());
                assert_eq!(response.header("X-Olla-Dialect"), Some("openai-chat"));
                let told = told(&response);
                // 20 bytes are 5 tokens.
                assert!((6..40).contains(&told), "{path} {told}");
                total += told;
                wait_until("the request is settled", || {
                    used(&gateway)["tokens_per_day"] == total
                });
            }
        }
    });
}
