//! Translation of requests that are large, and of conversations that end with the beginning of the
//! answer.
//!
//! Contract: docs/contract/translation.md#7, docs/contract/translation.md#8

use serde_json::{Value, json};

use testkit::{Backend, Client, Config, Driver, Gateway, endpoint, get, on_both_drivers, post};

const MESSAGES: &str = "/olla/anthropic/v1/messages";
const COUNT: &str = "/olla/anthropic/v1/messages/count_tokens";

/// Blocks of a large body: a debug build works for seconds on each step.
const BLOCKS: usize = 40_000;

fn over(driver: Driver, kind: &str, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", kind, backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// A message of many blocks, one of which tells whether all arrived.
fn large(stream: bool) -> Vec<u8> {
    let mut blocks = vec![json!({"type": "text", "text": "ab"}); BLOCKS];
    blocks.push(json!({"type": "text", "text": "end"}));
    let body = json!({
        "model": "m", "max_tokens": 9, "stream": stream,
        "messages": [{"role": "user", "content": blocks}],
    });
    serde_json::to_vec(&body).unwrap()
}

/// What the client gets of [`echo`].
fn text() -> String {
    "ab".repeat(BLOCKS) + "end"
}

/// Responds with what it was sent, in many parts: as a document, as one event, or compressed.
fn echo() -> Backend {
    Backend::new(&["m"], |request, link| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let content = body["messages"][0]["content"].as_str().unwrap();
        let (first, rest) = content.split_at(content.len() - 3);
        let mut parts = vec![json!({"type": "text", "text": "ab"}); first.len() / 2];
        parts.push(json!({"type": "text", "text": rest}));
        let choice = |key: &str| json!({"choices": [{"index": 0, key: {"role": "assistant", "content": parts}}]});
        if request.header("X-Events").is_some() {
            link.begin("text/event-stream");
            link.chunk(format!("data: {}\n\n", choice("delta")));
            link.chunk("");
        } else {
            link.respond(200, "application/json", choice("message").to_string());
        }
    })
}

/// The texts of a stream's events, joined.
fn streamed(events: &str) -> String {
    let data = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    let texts = events.filter_map(|event| Some(event["delta"]["text"].as_str()?.to_owned()));
    texts.collect()
}

#[test]
fn large_messages_are_translated_whole() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, "sglang", &backend, "");
        let document = post(&gateway, MESSAGES, &[], large(false));
        assert_eq!(document.status, 200, "{}", document.text());
        assert_eq!(document.json()["content"][0]["text"], text());
        assert_eq!(document.header("X-Olla-Endpoint"), Some("one"));
        for fields in [&[][..], &["X-Events: 1"]] {
            let events = post(&gateway, MESSAGES, fields, large(true));
            assert_eq!(events.status, 200);
            assert_eq!(streamed(&events.text()), text(), "{fields:?}");
            assert!(events.text().contains("event: message_stop\n"));
        }
        let count = post(&gateway, COUNT, &[], large(false)).json();
        assert_eq!(count["input_tokens"], text().len() / 4);
        // What is refused is refused with the same words as if it were small.
        let mut invalid = large(false);
        invalid.truncate(invalid.len() - 1);
        let refused = post(&gateway, MESSAGES, &[], &invalid);
        assert_eq!(refused.status, 400);
        assert_eq!(
            refused.json()["error"]["message"],
            "the body is not valid JSON"
        );
        let stats = get(&gateway, "/internal/stats/translators", &[]).json();
        assert_eq!(stats["translators"][0]["successful_requests"], 3, "{stats}");
        assert_eq!(stats["translators"][0]["failed_requests"], 1, "{stats}");
    });
}

/// What a file of `/proc` says of each thread of this name.
fn of_threads(gateway: &Gateway, name: &str, file: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
    let read = |task: &std::path::Path, file| std::fs::read_to_string(task.join(file)).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let named = tasks.filter(|task| read(task, "comm").starts_with(name));
    named.map(|task| read(&task, file)).collect()
}

/// Nanoseconds of processor time that the threads of this name have used.
fn processor_time(gateway: &Gateway, name: &str) -> u64 {
    let times = of_threads(gateway, name, "schedstat");
    let first = times.iter().map(|text| text.split_whitespace().next());
    first
        .map(|time| time.unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Whether all threads of this name wait for something.
fn are_asleep(gateway: &Gateway, name: &str) -> bool {
    let states = of_threads(gateway, name, "stat");
    states.iter().all(|stat| stat.contains(") S "))
}

/// The core only carries the bytes; the rest is done by threads that it waits for.
#[test]
fn large_messages_hold_no_core() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, "sglang", &backend, "");
        let body = large(false);
        let times = || ["core-", "offload-"].map(|name| processor_time(&gateway, name));
        let before = times();
        for _ in 0..4 {
            assert_eq!(post(&gateway, MESSAGES, &[], &body).status, 200);
        }
        let [core, others] = [0, 1].map(|at| times()[at] - before[at]);
        assert!(others > 4 * core, "{core} {others}");
        // What is short stays on the core. The last of the threads may still be about to sleep.
        testkit::wait_until("the threads to sleep", || are_asleep(&gateway, "offload-"));
        let before = times();
        let body = json!({
            "model": "m", "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hi."}],
        });
        assert_eq!(post(&gateway, MESSAGES, &[], body.to_string()).status, 200);
        assert_eq!(times()[1], before[1]);
    });
}

/// A client that leaves takes the rest of its request's work with it; nothing reaches the endpoint.
#[test]
fn a_client_that_leaves_during_a_translation_leaves_nothing() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, "sglang", &backend, "[server]\nworkers = 1");
        let body = large(false);
        for _ in 0..4 {
            let mut client = Client::to(&gateway);
            client.request(&format!("POST {MESSAGES}"), &body);
            client.reset();
        }
        let answer = post(&gateway, MESSAGES, &[], &body);
        assert_eq!(answer.status, 200);
        assert_eq!(backend.count(), 1);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
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
