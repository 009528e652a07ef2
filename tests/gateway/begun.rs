//! Translated streams that begin with the events of their dialect before an endpoint has responded.
//!
//! What each response makes of the rest has its tables in `src/dialects/conversation`.
//!
//! Contract: docs/contract/surface.md#8.4, docs/contract/dialects.md#4,
//! docs/contract/dialects.md#15

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::streams::on_word;
use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, STREAM_COMMENT, endpoint, get,
    on_both_drivers, wait_until,
};

const KEEP_ALIVE: &str = "proxy.stream_keep_alive = \"1s\"\n";
const EVENTS: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n";
const DOCUMENT: &str =
    "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}";

/// A dialect: a path, a request, the type of its streams, and the kinds of their events.
pub(crate) struct Streamed {
    path: &'static str,
    body: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) begins: &'static str,
    completes: &'static str,
    fails: &'static str,
}

const MESSAGES: Streamed = Streamed {
    path: "/v1/messages",
    body: r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#,
    content_type: "text/event-stream",
    begins: "message_start",
    completes: "message_stop",
    fails: "error",
};

const RESPONSES: Streamed = Streamed {
    path: "/v1/responses",
    body: r#"{"model":"m","stream":true,"input":"x"}"#,
    content_type: "text/event-stream",
    begins: "response.created response.in_progress",
    completes: "response.completed",
    fails: "response.failed",
};

const CHAT: Streamed = Streamed {
    path: "/api/chat",
    body: r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
    content_type: "application/x-ndjson",
    begins: "line",
    completes: "done",
    fails: "error",
};

pub(crate) const ALL: [Streamed; 3] = [MESSAGES, RESPONSES, CHAT];

fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A backend that says this when it is told to.
fn says(text: String) -> (Backend, Sender<()>) {
    on_word(move |_, link, heard| {
        if heard.recv_timeout(PATIENCE).is_ok() {
            link.send(&text);
        }
        link.close();
    })
}

/// A backend that streams `Hi`.
fn streams() -> Backend {
    Backend::new(&["m"], |_, link| {
        link.begin("text/event-stream");
        link.chunk(EVENTS);
        link.chunk("");
    })
}

fn over(driver: Driver, endpoints: &str, more: &str) -> Gateway {
    Gateway::start(&Config::new(driver).more(endpoints).more(more))
}

pub(crate) fn asking(gateway: &Gateway, streamed: &Streamed) -> Client {
    let Streamed { path, body, .. } = streamed;
    let mut client = Client::to(gateway);
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client
}

/// The kinds of events in a stream.
pub(crate) fn kinds(stream: &str) -> Vec<String> {
    data(stream).iter().map(kind).collect()
}

fn data(stream: &str) -> Vec<Value> {
    let lines = stream.lines().map(|line| line.strip_prefix("data: "));
    let lines = lines.zip(stream.lines());
    lines
        .filter_map(|(data, line)| serde_json::from_str(data.unwrap_or(line)).ok())
        .collect()
}

fn kind(data: &Value) -> String {
    match data["type"].as_str() {
        Some(kind) => kind.to_owned(),
        None if data.get("error").is_some() => "error".to_owned(),
        None if data["done"] == true => "done".to_owned(),
        None => "line".to_owned(),
    }
}

/// The head and the first events of a client that has waited.
#[track_caller]
fn begins(client: &mut Client, streamed: &Streamed) -> String {
    let head = client.head();
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("Content-Type", streamed.content_type),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),
        ("X-Olla-Endpoint", "one"),
        ("X-Olla-Dialect", "openai-chat"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    let first = String::from_utf8(client.chunk().unwrap()).unwrap();
    assert_eq!(kinds(&first).join(" "), streamed.begins);
    first
}

/// What follows, to the end of the body, without what only keeps it alive.
#[track_caller]
pub(crate) fn rest(client: &mut Client) -> String {
    let mut rest = String::new();
    loop {
        let piece = String::from_utf8(client.chunk().unwrap()).unwrap();
        let is_alive = piece.as_bytes() == STREAM_COMMENT
            || piece.contains("\"type\":\"ping\"")
            || piece.contains("\"content\":\"\"},\"done\":false");
        match piece.as_str() {
            "" => return rest,
            _ if is_alive => {}
            piece => rest.push_str(piece),
        }
    }
}

/// Asserts that a stream that has begun ends like this and does not begin again.
#[track_caller]
pub(crate) fn continues(rest: &str, streamed: &Streamed, completes: bool) {
    let kinds = kinds(rest);
    let last = match completes {
        true => streamed.completes,
        false => streamed.fails,
    };
    assert_eq!(kinds.last().map(String::as_str), Some(last), "{rest}");
    let first = streamed.begins.split(' ').next().unwrap();
    assert!(
        first == "line" || !kinds.iter().any(|kind| kind == first),
        "{rest}"
    );
    assert_eq!(rest.contains("Hi"), completes, "{rest}");
}

#[test]
fn a_stream_begins_with_the_events_of_its_dialect() {
    on_both_drivers(|driver| {
        for streamed in &ALL {
            let mut running = Vec::new();
            for (said, completes) in [
                (response("200 OK", "text/event-stream", EVENTS), true),
                (response("200 OK", "application/json", DOCUMENT), true),
                (response("200 OK", "text/html", "<br/>"), false),
                (
                    response("500 Oops", "application/json", "{\"error\":\"hot\"}"),
                    false,
                ),
                (String::new(), false),
            ] {
                let (backend, word) = says(said);
                let gateway = over(
                    driver,
                    &endpoint("one", "lmdeploy", &backend, ""),
                    KEEP_ALIVE,
                );
                let client = asking(&gateway, streamed);
                running.push((completes, client, word, gateway, backend));
            }
            for (completes, client, word, gateway, backend) in &mut running {
                let first = begins(client, streamed);
                word.send(()).unwrap();
                let rest = rest(client);
                continues(&rest, streamed, *completes);
                if streamed.path == RESPONSES.path {
                    let (first, rest) = (data(&first), data(&rest));
                    let last = rest.last().unwrap();
                    assert_eq!(first[0]["response"]["id"], last["response"]["id"]);
                    let numbers = first.iter().chain(&rest);
                    assert!(
                        numbers
                            .enumerate()
                            .all(|(at, event)| event["sequence_number"] == at)
                    );
                }
                assert_eq!(backend.count(), 1);
                let statistics = get(gateway, "/internal/metrics", &[]).text();
                assert!(!statistics.contains("\nolla_stream_keep_alives_total 0\n"));
            }
        }
    });
}

/// Another endpoint goes on with the stream, even if it speaks the dialect itself.
#[test]
fn another_endpoint_continues_the_stream() {
    on_both_drivers(|driver| {
        let busy = response("503 Busy", "application/json", "{}");
        for streamed in &ALL {
            let mut running = Vec::new();
            for (said, kind) in [("", "vllm"), (busy.as_str(), "vllm"), ("", "lmdeploy")] {
                let (first, word) = says(said.to_owned());
                let second = streams();
                let endpoints = endpoint("one", "lmdeploy", &first, "priority = 300")
                    + &endpoint("two", kind, &second, "priority = 100");
                let more = format!(
                    "{KEEP_ALIVE}proxy.load_balancer = \"priority\"\n\
                     translators.anthropic.prefer_native = false\n"
                );
                let gateway = over(driver, &endpoints, &more);
                let client = asking(&gateway, streamed);
                running.push((client, word, gateway, [first, second]));
            }
            for (client, word, _gateway, [first, second]) in &mut running {
                begins(client, streamed);
                word.send(()).unwrap();
                continues(&rest(client), streamed, true);
                assert_eq!((first.count(), second.count()), (1, 1));
                assert_eq!(second.last().path(), "/v1/chat/completions");
            }
        }
    });
}

/// A native endpoint that is silent leaves a comment, and whatever follows begins the stream.
#[test]
fn a_translated_stream_may_follow_a_comment() {
    on_both_drivers(|driver| {
        let (first, word) = says(String::new());
        let second = streams();
        let endpoints = endpoint("one", "vllm", &first, "priority = 300")
            + &endpoint("two", "lmdeploy", &second, "priority = 100");
        let more = format!("{KEEP_ALIVE}proxy.load_balancer = \"priority\"\n");
        let gateway = over(driver, &endpoints, &more);
        let mut client = asking(&gateway, &MESSAGES);
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        word.send(()).unwrap();
        let rest = rest(&mut client);
        assert!(rest.starts_with("event: message_start\n"), "{rest}");
        assert_eq!(kinds(&rest).last().unwrap(), MESSAGES.completes);
    });
}

/// The head of a response is nothing that the client gets.
#[test]
fn the_silence_is_that_of_the_client() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            heard.recv_timeout(PATIENCE).unwrap();
            link.begin("text/event-stream");
            link.chunk(": nothing\n\n");
            heard.recv_timeout(PATIENCE).unwrap();
            link.close();
        });
        let keep_alive = "proxy.stream_keep_alive = \"3s\"\n";
        let gateway = over(
            driver,
            &endpoint("one", "lmdeploy", &backend, ""),
            keep_alive,
        );
        let begun = Instant::now();
        let mut client = asking(&gateway, &MESSAGES);
        wait_until("most of the silence", || {
            begun.elapsed() > Duration::from_millis(2500)
        });
        word.send(()).unwrap();
        begins(&mut client, &MESSAGES);
        assert!(begun.elapsed() < Duration::from_millis(5400));
        word.send(()).unwrap();
    });
}

/// A conversation that is too long is said so in the dialect's words, wherever in the stream
/// (docs/contract/dialects.md#17).
#[test]
fn an_overflow_has_the_words_of_its_dialect() {
    let own = "the request exceeds the available context size";
    let error = format!(
        "{{\"error\":{{\"code\":400,\"message\":\"{own}\",\"type\":\"exceed_context_size_error\",\
         \"n_prompt_tokens\":9000,\"n_ctx\":4096}}}}"
    );
    let events = format!("data: {{\"choices\":[{{\"delta\":{{}}}}]}}\n\ndata: {error}\n\n");
    on_both_drivers(|driver| {
        for streamed in &ALL {
            let mut running = Vec::new();
            for said in [
                response("400 Bad Request", "application/json", &error),
                response("200 OK", "application/json", &error),
                response("200 OK", "text/event-stream", &events),
            ] {
                let (backend, word) = says(said);
                let endpoints = endpoint("one", "lmdeploy", &backend, "");
                let gateway = over(driver, &endpoints, KEEP_ALIVE);
                let client = asking(&gateway, streamed);
                running.push((client, word, gateway, backend));
            }
            for (client, word, _gateway, _backend) in &mut running {
                begins(client, streamed);
                word.send(()).unwrap();
                let rest = rest(client);
                let last = data(&rest).pop().unwrap();
                match streamed.path {
                    "/v1/messages" => {
                        assert_eq!(last["error"]["type"], "invalid_request_error");
                        let words = "prompt is too long: 9000 tokens > 4096 maximum";
                        assert_eq!(last["error"]["message"], words);
                    }
                    "/v1/responses" => {
                        let error = &last["response"]["error"];
                        assert_eq!(error["code"], "context_length_exceeded");
                        assert_eq!(error["message"], own);
                    }
                    _ => assert_eq!(last["error"], own),
                }
            }
        }
    });
}
