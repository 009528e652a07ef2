//! The Messages API in front of real sockets: passed through, translated, refused.
//!
//! What translation makes of each field and each event has its tables in `src/translate`.
//!
//! Contract: docs/contract/translation.md#1, docs/contract/translation.md#3,
//! docs/contract/translation.md#5, docs/contract/translation.md#6, docs/contract/translation.md#8
//! to docs/contract/translation.md#12

use serde_json::{Value, json};

use crate::streams::on_word;
use testkit::{
    Backend, Client, Config, Driver, Gateway, Link, PATIENCE, Received, Response, endpoint,
    exchange, get, on_both_drivers, post,
};

const MESSAGES: &str = "/olla/anthropic/v1/messages";
const COUNT: &str = "/olla/anthropic/v1/messages/count_tokens";
const ASK: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
const ASK_STREAM: &str =
    r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Transfer-Encoding: chunked\r\n\r\n";
const COMPLETION: &str = concat!(
    r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"#,
    r#""message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":3,"completion_tokens":2}}"#
);

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// Speaks OpenAI's dialect alone.
fn foreign() -> Backend {
    Backend::new(&["m"], |request, link| {
        if request.target.starts_with("/v1/chat/completions") {
            link.respond(200, "application/json", COMPLETION);
        } else {
            link.respond(404, "text/plain", "no such page");
        }
    })
}

/// An event of OpenAI's with this content.
fn chunk_of(content: &str) -> String {
    let choice = json!({"index": 0, "delta": {"content": content}});
    let chunk = json!({"object": "chat.completion.chunk", "model": "m", "choices": [choice]});
    format!("data: {chunk}\n\n")
}

/// What every answer of a translated request has, and no header of the backend's own.
#[track_caller]
fn is_translated(answer: &Response) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.has_the_fields_of_every_response();
    assert_eq!(answer.header("X-Olla-Mode"), None);
    assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
    assert_eq!(answer.header("X-Olla-Model"), Some("m"));
    for name in ["Via", "X-Served-By"] {
        assert!(answer.header(name).is_some(), "{name}");
    }
    assert_eq!(
        answer.header("request-id"),
        answer.header("X-Olla-Request-ID")
    );
}

/// Checks the shape of an error of these routes; its message.
#[track_caller]
fn is_refusal(answer: &Response, status: u16, kind: &str) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.has_the_fields_of_every_response();
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let id = answer.header("X-Olla-Request-ID").unwrap();
    assert_eq!(answer.header("request-id"), Some(id));
    let body = answer.json();
    assert_eq!(
        (&body["type"], &body["request_id"]),
        (&"error".into(), &id.into())
    );
    assert_eq!(body["error"]["type"], kind, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        !message.is_empty() && !message.contains("127.0.0."),
        "{message}"
    );
    message.to_owned()
}

/// docs/contract/translation.md#1: Claude Code asks its base URL whether somebody is there.
#[test]
fn the_base_url_says_that_somebody_is_there() {
    on_both_drivers(|driver| {
        let gateway = Gateway::start(&Config::new(driver));
        let rows = [
            ("/olla/anthropic", r#"{"status":"ok"}"#),
            ("/olla/anthropic/", r#"{"status":"ok"}"#),
            ("/olla/anthropic/api/hello", r#"{"message":"hello"}"#),
        ];
        for (path, body) in rows {
            let answer = get(&gateway, path, &[]);
            assert_eq!((answer.status, answer.text().as_str()), (200, body));
            let mut client = Client::to(&gateway);
            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(client.response_to("HEAD").status, 200);
            let answer = post(&gateway, path, &[], "{}");
            assert_eq!(answer.status, 405);
            assert_eq!(answer.header("Allow"), Some("GET, HEAD"));
        }
    });
}

#[test]
fn a_backend_that_speaks_it_gets_the_request_untouched() {
    on_both_drivers(|driver| {
        let said = r#"{"type":"message","own":"words"}"#;
        let backend = Backend::new(&["m"], move |_, link| {
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: its-own\r\n\
                 X-Olla-Mode: forged\r\nContent-Length: {}\r\n\r\n{said}",
                said.len()
            ));
        });
        let gateway = over(driver, "vllm", &backend, "");
        // Blanks, spelling of numbers and unknown fields are the backend's to read.
        let body = "{ \"model\" : \"m\",\"max_tokens\":10 , \"unknown\":[1.50],\n\
                    \"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
        let fields = ["anthropic-version: 2023-06-01", "x-api-key: k"];
        let answer = post(
            &gateway,
            "/olla/anthropic/v1/messages?beta=true",
            &fields,
            body,
        );
        assert_eq!((answer.status, answer.text().as_str()), (200, said));
        assert_eq!(answer.header("X-Olla-Mode"), Some("passthrough"));
        assert_eq!(answer.header("request-id"), Some("its-own"));
        let seen = backend.last();
        assert_eq!(seen.target, "/v1/messages?beta=true");
        assert_eq!(seen.text(), body);
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(seen.header("x-api-key"), Some("k"));
        assert_eq!(seen.header("Authorization"), None);
    });
}

#[test]
fn any_other_backend_gets_a_chat_completion() {
    on_both_drivers(|driver| {
        let backend = foreign();
        // Of a type that does not speak it, or with passing through switched off.
        let off = "translators.anthropic.passthrough_enabled = false";
        for (kind, more) in [("sglang", ""), ("vllm", off)] {
            let gateway = over(driver, kind, &backend, more);
            let fields = ["x-api-key: k", "Accept-Encoding: gzip"];
            let answer = post(&gateway, MESSAGES, &fields, ASK);
            is_translated(&answer);
            let message = answer.json();
            assert_eq!(
                message["content"],
                json!([{"type": "text", "text": "Yes."}])
            );
            assert_eq!(message["stop_reason"], "end_turn");
            assert_eq!(message["usage"]["output_tokens"], 2);
            let seen = backend.last();
            assert_eq!(seen.target, "/v1/chat/completions");
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            let messages = json!([{"role": "user", "content": "Hi"}]);
            assert_eq!(
                (&body["messages"], &body["max_tokens"]),
                (&messages, &9.into())
            );
            // A key in the form that such servers take; nothing that would have to be inflated.
            assert_eq!(seen.header("Authorization"), Some("Bearer k"));
            assert_ne!(seen.header("Accept-Encoding"), Some("gzip"));
        }
    });
}

#[test]
fn a_backend_that_turns_out_not_to_speak_it_is_spoken_to_in_openai_s() {
    on_both_drivers(|driver| {
        let backend = foreign();
        let gateway = over(driver, "vllm", &backend, "");
        for _ in 0..2 {
            is_translated(&post(&gateway, MESSAGES, &[], ASK));
        }
        // The second time it was known.
        let targets: Vec<String> = backend.seen().into_iter().map(|seen| seen.target).collect();
        let chat = "/v1/chat/completions";
        assert_eq!(targets, ["/v1/messages", chat, chat]);
    });
}

/// The body of a 404 decides whether its endpoint speaks the API, so its head is held until the body
/// is complete. If the body is cut, nothing of the held head reaches the client. The request is not
/// sent again, because a response had begun (docs/contract/balancing.md#9).
#[test]
fn a_held_head_of_a_cut_response_leaves_nothing_behind() {
    on_both_drivers(|driver| {
        let cut = Backend::new(&["m"], |_, link| {
            link.send(
                "HTTP/1.1 404 Gone Astray\r\nContent-Type: application/json\r\n\
                 X-Cut: yes\r\nContent-Length: 100\r\n\r\n{\"type\":",
            );
            link.close();
        });
        let error = r#"{"type":"error","error":{"type":"not_found_error","message":"no m"}}"#;
        let whole = Backend::new(&["m"], move |_, link| {
            link.respond(404, "application/json", error);
        });
        let endpoints = [
            endpoint(
                "cut",
                "vllm",
                &cut,
                "priority = 200\ncheck_interval = \"1h\"",
            ),
            endpoint("whole", "vllm", &whole, "priority = 100"),
        ];
        let priority = "proxy.load_balancer = \"priority\"";
        let config = Config::new(driver).more(priority).more(&endpoints.concat());
        let gateway = Gateway::start(&config);
        let mut client = Client::to(&gateway);
        let length = ASK.len();
        let request =
            format!("POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{ASK}");
        client.send(&request);
        let response = client.response();
        is_refusal(&response, 502, "api_error");
        assert_eq!(response.header("X-Olla-Endpoint"), Some("cut"));
        assert_eq!(response.header("X-Cut"), None);
        assert_eq!((cut.count(), whole.count()), (1, 0));
        // The next request on the connection fails over to the other endpoint, which sends its 404
        // completely.
        cut.stop();
        client.send(&request);
        let response = client.response();
        assert_eq!((response.status, response.text()), (404, error.into()));
        assert_eq!(response.header("X-Olla-Endpoint"), Some("whole"));
        assert_eq!(response.header("X-Cut"), None);
        assert_eq!(whole.count(), 1);
    });
}

#[test]
fn a_failover_goes_from_passing_through_to_translation() {
    on_both_drivers(|driver| {
        let (native, other) = (Backend::ok(&["m"]), foreign());
        let endpoints = [
            endpoint("native", "vllm", &native, "check_interval = \"1h\""),
            endpoint("one", "sglang", &other, ""),
        ];
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()));
        native.stop();
        // No check has seen it go.
        assert_eq!(gateway.endpoint("native")["status"], "healthy");
        is_translated(&post(&gateway, MESSAGES, &[], ASK));
        assert_eq!(other.last().target, "/v1/chat/completions");
    });
}

#[test]
fn a_native_backend_out_of_its_tokens_leaves_the_rest_to_translation() {
    on_both_drivers(|driver| {
        let (native, other) = (Backend::ok(&["m"]), foreign());
        let endpoints = [
            endpoint("native", "vllm", &native, ""),
            endpoint("one", "sglang", &other, ""),
        ];
        let limits = "[server.rate_limits]\nburst_size = 1\n\
                      [server.rate_limits.per_endpoint]\noverrides = { native = 1 }";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(limits));
        let answer = post(&gateway, MESSAGES, &[], ASK);
        assert_eq!(answer.header("X-Olla-Mode"), Some("passthrough"));
        is_translated(&post(&gateway, MESSAGES, &[], ASK));
        assert_eq!((native.count(), other.count()), (1, 1));
    });
}

#[test]
fn each_event_of_a_translated_stream_is_there_before_the_next_is_made() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            link.send(EVENTS);
            for content in ["one", "two"] {
                link.chunk(chunk_of(content));
                heard.recv_timeout(PATIENCE).unwrap();
            }
            link.chunk("data: [DONE]\n\n");
            link.chunk("");
        });
        let gateway = over(driver, "sglang", &backend, "");
        let mut client = Client::to(&gateway);
        let length = ASK_STREAM.len();
        client.send(format!(
            "POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{ASK_STREAM}"
        ));
        let head = client.head();
        is_translated(&head);
        assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
        let mut said = String::new();
        for content in ["one", "two"] {
            let delta = format!(r#"{{"type":"text_delta","text":"{content}"}}"#);
            while !said.contains(&delta) {
                said += &String::from_utf8(client.chunk().unwrap()).unwrap();
            }
            word.send(()).unwrap();
        }
        loop {
            let piece = client.chunk().expect("the last chunk");
            if piece.is_empty() {
                break;
            }
            said += &String::from_utf8(piece).unwrap();
        }
        let names: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("event: "))
            .collect();
        let delta = "content_block_delta";
        assert_eq!(
            names,
            [
                "message_start",
                "content_block_start",
                delta,
                delta,
                "content_block_stop",
                "message_delta",
                "message_stop"
            ]
        );
    });
}

#[test]
fn a_stream_that_breaks_off_ends_in_an_error_event() {
    on_both_drivers(|driver| {
        let native = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
        let chunk = chunk_of("half");
        for (kind, event) in [("vllm", native), ("sglang", chunk.as_str())] {
            let event = event.to_owned();
            let backend = Backend::new(&["m"], move |_, link| {
                link.send(EVENTS);
                link.chunk(&event);
                link.close();
            });
            let gateway = over(driver, kind, &backend, "");
            let text = post(&gateway, MESSAGES, &[], ASK_STREAM).text();
            let (_, error) = text.rsplit_once("event: ").unwrap();
            assert!(error.starts_with("error\ndata: "), "{kind}: {text}");
            assert!(error.contains("api_error"), "{kind}: {text}");
            assert!(text.contains("message_start"), "{kind}: {text}");
            assert!(!text.contains("message_stop"), "{kind}: {text}");
            assert_eq!(backend.count(), 1);
        }
    });
}

/// The gateway's pings look the same in a stream that passes through and in a translated one.
#[test]
fn silent_streams_get_pings() {
    on_both_drivers(|driver| {
        let native = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
        let chunk = chunk_of("half");
        for (kind, event) in [("vllm", native), ("sglang", chunk.as_str())] {
            let event = event.to_owned();
            let (backend, word) = on_word(move |_, link, heard| {
                link.send(EVENTS);
                link.chunk(&event);
                heard.recv_timeout(PATIENCE).unwrap();
                link.close();
            });
            let gateway = over(driver, kind, &backend, "proxy.stream_keep_alive = \"1s\"");
            let mut client = Client::to(&gateway);
            client.send(format!(
                "POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{ASK_STREAM}",
                ASK_STREAM.len()
            ));
            assert_eq!(client.head().status, 200);
            let first = client.chunk().unwrap();
            assert!(first.starts_with(b"event: message_start\n"), "{kind}");
            let ping = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";
            assert_eq!(client.chunk().unwrap(), ping, "{kind}");
            word.send(()).unwrap();
        }
    });
}

#[test]
fn refusals_have_the_shape_that_its_clients_know() {
    on_both_drivers(|driver| {
        let backend = foreign();
        let limit = "translators.anthropic.max_message_size = 1000";
        let gateway = over(driver, "sglang", &backend, limit);
        let answer = get(&gateway, "/olla/anthropic/v1/nosuch", &[]);
        is_refusal(&answer, 404, "not_found_error");
        let answer = get(&gateway, MESSAGES, &[]);
        is_refusal(&answer, 405, "invalid_request_error");
        assert_eq!(answer.header("Allow"), Some("POST"));
        let no_limit = ASK.replace("\"max_tokens\":9,", "");
        for (body, word) in [("{oops", "JSON"), (no_limit.as_str(), "max_tokens")] {
            let message = is_refusal(
                &post(&gateway, MESSAGES, &[], body),
                400,
                "invalid_request_error",
            );
            assert!(message.contains(word), "{message}");
        }
        let unknown = ASK.replace("\"m\"", "\"nosuch-model\"");
        let answer = post(&gateway, MESSAGES, &[], unknown);
        assert!(is_refusal(&answer, 404, "not_found_error").contains("nosuch-model"));
        let reason = answer.header("X-Olla-Routing-Reason");
        assert_eq!(reason, Some("model_not_found"));
        // Exactly the limit is taken.
        let padded = |length: usize| format!("{ASK}{}", " ".repeat(length - ASK.len()));
        assert_eq!(post(&gateway, MESSAGES, &[], padded(1000)).status, 200);
        for path in [MESSAGES, COUNT] {
            let answer = post(&gateway, path, &[], padded(1001));
            is_refusal(&answer, 413, "request_too_large");
        }
        assert_eq!(backend.count(), 1);
        backend.set_health(500);
        gateway.wait_status("one", "unhealthy");
        is_refusal(&post(&gateway, MESSAGES, &[], ASK), 503, "api_error");
        let none = "server.rate_limits = { per_ip_requests_per_minute = 1, burst_size = 0 }";
        let gateway = over(driver, "sglang", &Backend::ok(&["m"]), none);
        let answer = post(&gateway, MESSAGES, &[], ASK);
        is_refusal(&answer, 429, "rate_limit_error");
        assert!(answer.header("Retry-After").is_some());
    });
}

#[test]
fn errors_of_a_translated_backend_keep_their_status_and_their_words() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request: &Received, link: &mut Link| {
            if request.text().contains("close") {
                return link.close();
            }
            let body = r#"{"error":{"message":"too many","code":7}}"#;
            link.send(format!(
                "HTTP/1.1 429 Slow\r\nContent-Type: application/json\r\nRetry-After: 7\r\n\
                 X-Own: 1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        });
        let gateway = over(driver, "sglang", &backend, "");
        for ask in [ASK, ASK_STREAM] {
            let answer = post(&gateway, MESSAGES, &[], ask);
            let message = is_refusal(&answer, 429, "rate_limit_error");
            assert_eq!(message, "too many");
            assert_eq!(answer.header("Retry-After"), Some("7"));
            assert_eq!(answer.header("X-Own"), None);
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        }
        // Gone before a byte of an answer: an error, not an empty stream.
        let answer = post(&gateway, MESSAGES, &[], ASK_STREAM.replace("Hi", "close"));
        is_refusal(&answer, 502, "api_error");
    });
}

#[test]
fn counts_and_lists_ask_no_backend() {
    on_both_drivers(|driver| {
        let backend = foreign();
        let gateway = over(driver, "sglang", &backend, "");
        let unknown = ASK.replace("\"m\"", "\"nosuch-model\"");
        let counted = post(&gateway, COUNT, &[], unknown.replace("Hi", &"x".repeat(41)));
        assert_eq!(counted.text(), r#"{"input_tokens":10}"#);
        let list = get(&gateway, "/olla/anthropic/v1/models", &[]).json();
        assert_eq!(
            (&list["first_id"], &list["data"][0]["id"]),
            (&"m".into(), &"m".into())
        );
        let one = get(&gateway, "/olla/anthropic/v1/models/m", &[]);
        assert_eq!((one.status, &one.json()["id"]), (200, &"m".into()));
        let none = get(&gateway, "/olla/anthropic/v1/models/nosuch", &[]);
        is_refusal(&none, 404, "not_found_error");
        assert_eq!(backend.count(), 0);
    });
}

#[test]
fn switched_off_its_routes_are_none() {
    on_both_drivers(|driver| {
        let backend = foreign();
        let off = "translators.anthropic.enabled = false";
        let gateway = over(driver, "sglang", &backend, off);
        for path in [
            "POST /olla/anthropic/v1/messages",
            "GET /olla/anthropic/v1/models",
        ] {
            let answer = exchange(&gateway, path, b"");
            answer.is_error(404, "not_found", "NOT_FOUND");
        }
        assert_eq!(backend.count(), 0);
    });
}
