//! Streams that begin before an endpoint has responded: a head and comments while it is silent,
//! then whatever it says, as events.
//!
//! Contract: docs/contract/surface.md#8.4

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::bodies::{gzip, zstd};
use crate::streams::on_word;
use testkit::{
    Backend, Client, Config, Driver, Gateway, Link, PATIENCE, STREAM_COMMENT, endpoint, get,
    on_both_drivers, wait_until,
};

const CHAT: &str = "/olla/proxy/v1/chat/completions";
const MESSAGES: &str = "/olla/anthropic/v1/messages";
const KEEP_ALIVE: &str = "proxy.stream_keep_alive = \"1s\"\n";
const NEITHER: &str = "data: {\"error\":{\"message\":\"the endpoint's response is neither a stream of \
    events nor JSON\",\"type\":\"bad_gateway\",\"code\":\"BACKEND_ERROR\"}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A backend that says this when it is told to.
fn says(text: impl AsRef<[u8]> + Send + Sync + 'static) -> (Backend, Sender<()>) {
    on_word(move |_, link: &mut Link, heard| {
        if heard.recv_timeout(PATIENCE).is_ok() {
            link.send(text.as_ref());
        }
        link.close();
    })
}

fn over(driver: Driver, endpoints: &str, more: &str) -> Gateway {
    Gateway::start(&Config::new(driver).more(endpoints).more(more))
}

/// Asks for events.
fn asking(gateway: &Gateway, path: &str) -> Client {
    let body = br#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let mut client = Client::to(gateway);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send([head.as_bytes(), body].concat());
    client
}

/// The head that the gateway itself sends, and the first comment.
#[track_caller]
fn begins(client: &mut Client, endpoint: &str) {
    let head = client.head();
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),
        ("Transfer-Encoding", "chunked"),
        ("X-Olla-Endpoint", endpoint),
        ("X-Olla-Model", "m"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    assert!(head.header("X-Olla-Request-ID").is_some());
    assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
}

/// What an endpoint says after a silence, and the events that the client gets of it.
#[test]
fn what_follows_a_silence_arrives_as_events() {
    let rows: [(&str, &str, &str); 11] = [
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<br/>",
            NEITHER,
        ),
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: x\r\n\
             Content-Length: 9\r\n\r\ndata: 1\n\n",
            NEITHER,
        ),
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             9\r\ndata: 1\n\n\r\n3\r\n: x\r\n0\r\n\r\n",
            "data: 1\n\n: x",
        ),
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: 1\n\n",
            "data: 1\n\n",
        ),
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n",
            "data: 1\n\n",
        ),
        (
            CHAT,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 73\r\n\r\n\
             {\"object\": \"chat.completion\",\n\"choices\": [{\"message\": {\"content\": \"a\"}}]} ",
            "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
             data: [DONE]\n\n",
        ),
        (
            "/olla/proxy/v1/completions",
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"a\":\n 1}",
            "data: {\"a\":1}\n\n",
        ),
        (
            CHAT,
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n\
             {\"error\":\n1}",
            "data: {\"error\":1}\n\n",
        ),
        (
            CHAT,
            "HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\noops",
            "data: {\"error\":{\"message\":\"oops\",\"type\":\"bad_gateway\",\"code\":\"BACKEND_ERROR\"}}\n\n",
        ),
        (
            MESSAGES,
            "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n\
             {\"type\":\"error\",\"error\":{}}",
            "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n",
        ),
        (
            MESSAGES,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 22\r\n\r\n\
             event: ping\ndata: {}\n\n",
            "event: ping\ndata: {}\n\n",
        ),
    ];
    on_both_drivers(|driver| {
        for (path, said, expected) in rows {
            let (backend, word) = says(said);
            let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
            let mut client = asking(&gateway, path);
            begins(&mut client, "one");
            word.send(()).unwrap();
            assert_eq!(client.rest_of_stream(), expected, "{said}");
            assert_eq!(backend.count(), 1);
        }
    });
}

/// The head that the client has says nothing of a coding.
#[test]
fn compressed_responses_are_decoded() {
    let events = "data: 1\n\ndata: 2\n\n".repeat(50);
    let text = "a\\n".repeat(100_000);
    let document = format!(
        "{{\"object\":\"chat.completion\",\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}]}}"
    );
    let chunk = format!(
        "data: {{\"object\":\"chat.completion.chunk\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n{DONE}"
    );
    on_both_drivers(|driver| {
        for (coding, coded, kind, expected) in [
            (
                "gzip",
                gzip(events.as_bytes()),
                "text/event-stream",
                &events,
            ),
            (
                "zstd",
                zstd(events.as_bytes()),
                "text/event-stream",
                &events,
            ),
            (
                "gzip",
                gzip(document.as_bytes()),
                "application/json",
                &chunk,
            ),
            (
                "identity",
                document.clone().into_bytes(),
                "application/json",
                &chunk,
            ),
        ] {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
                coded.len()
            );
            let (backend, word) = says([head.as_bytes(), &coded].concat());
            let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
            let mut client = asking(&gateway, CHAT);
            begins(&mut client, "one");
            word.send(()).unwrap();
            assert!(client.rest_of_stream() == *expected, "{coding} {kind}");
        }
    });
}

#[test]
fn half_of_a_compressed_stream_does_not_look_whole() {
    let coded = gzip("data: 1\n\n".repeat(1000).as_bytes());
    let half = coded[..coded.len() / 2].to_vec();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        half.len()
    );
    let said = [head.as_bytes(), &half].concat();
    on_both_drivers(|driver| {
        let (backend, word) = says(said.clone());
        let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
        let mut client = asking(&gateway, CHAT);
        begins(&mut client, "one");
        word.send(()).unwrap();
        while let Some(piece) = client.chunk() {
            assert!(!piece.is_empty(), "the last chunk has come");
        }
    });
}

/// The client has 200; the endpoint's status counts.
#[test]
fn statistics_keep_the_status_of_the_endpoint() {
    on_both_drivers(|driver| {
        let (backend, word) = says("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops");
        let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
        let mut client = asking(&gateway, CHAT);
        begins(&mut client, "one");
        word.send(()).unwrap();
        client.rest_of_stream();
        let line = "olla_responses_total{endpoint=\"one\",code=\"5xx\"} 1";
        wait_until("the response is counted", || {
            get(&gateway, "/internal/metrics", &[])
                .text()
                .contains(line)
        });
    });
}

#[test]
fn a_request_goes_on_to_another_endpoint_after_its_head() {
    on_both_drivers(|driver| {
        for said in [
            "",
            "HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        ] {
            let (first, word) = says(said);
            let second = Backend::new(&["m"], |_, link| {
                link.begin("text/event-stream");
                link.chunk(format!("data: 2\n\n{DONE}"));
                link.chunk("");
            });
            let endpoints = endpoint("one", "vllm", &first, "priority = 300")
                + &endpoint("two", "vllm", &second, "priority = 100");
            let more = format!("{KEEP_ALIVE}proxy.load_balancer = \"priority\"");
            let gateway = over(driver, &endpoints, &more);
            let mut client = asking(&gateway, CHAT);
            begins(&mut client, "one");
            word.send(()).unwrap();
            assert_eq!(
                client.rest_of_stream(),
                format!("data: 2\n\n{DONE}"),
                "{said}"
            );
            assert_eq!((first.count(), second.count()), (1, 1));
        }
    });
}

#[test]
fn an_endpoint_that_dies_leaves_one_error_event() {
    on_both_drivers(|driver| {
        for (path, starts) in [
            (CHAT, "data: {\"error\":{\"message\":"),
            (
                "/olla/proxy/v1/responses",
                "event: response.failed\ndata: {",
            ),
            (MESSAGES, "event: error\ndata: {\"type\":\"error\""),
        ] {
            let (backend, word) = says("");
            let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
            let mut client = asking(&gateway, path);
            begins(&mut client, "one");
            word.send(()).unwrap();
            let error = client.rest_of_stream();
            assert!(error.starts_with(starts), "{path}: {error}");
            assert!(
                error.ends_with("}\n\n") && !error.contains("[DONE]"),
                "{error}"
            );
            assert_eq!(error.matches("data: ").count(), 1, "{error}");
        }
    });
}

#[test]
fn a_stream_that_breaks_off_after_the_head_does_not_look_whole() {
    on_both_drivers(|driver| {
        let (backend, word) = says(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             9\r\ndata: 1\n\n\r\n",
        );
        let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
        let mut client = asking(&gateway, CHAT);
        begins(&mut client, "one");
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
        assert!(client.is_closed());
    });
}

#[test]
fn a_client_that_leaves_after_its_head_stops_the_backend() {
    on_both_drivers(|driver| {
        let (tell, told) = std::sync::mpsc::channel();
        let tell = std::sync::Mutex::new(tell);
        let backend = Backend::new(&["m"], move |_, link| {
            let left = link.left_within(PATIENCE);
            let _ = tell.lock().unwrap().send(left);
        });
        let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), KEEP_ALIVE);
        let mut client = asking(&gateway, CHAT);
        begins(&mut client, "one");
        let since = Instant::now();
        drop(client);
        assert!(told.recv_timeout(PATIENCE).unwrap().is_some());
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{:?}",
            since.elapsed()
        );
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

/// Only a client that asked for events gets a head early, and only if that is on.
#[test]
fn others_wait_for_the_endpoint() {
    on_both_drivers(|driver| {
        let json =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let plain = "{\"model\":\"m\",\"messages\":[]}";
        let events = "{\"model\":\"m\",\"messages\":[],\"stream\":true}";
        for (more, path, body) in [
            (KEEP_ALIVE, CHAT, plain),
            (KEEP_ALIVE, "/olla/proxy/completion", events),
            ("proxy.stream_keep_alive = \"0s\"", CHAT, events),
        ] {
            let (backend, word) = says(json);
            let gateway = over(driver, &endpoint("one", "vllm", &backend, ""), more);
            let mut client = Client::to(&gateway);
            client.request(&format!("POST {path}"), body.as_bytes());
            let begun = Instant::now();
            wait_until("the time of a silence", || {
                begun.elapsed() > Duration::from_millis(1300)
            });
            word.send(()).unwrap();
            let answer = client.response();
            assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
            let metrics = get(&gateway, "/internal/metrics", &[]).text();
            assert!(metrics.contains("\nolla_stream_keep_alives_total 0\n"));
        }
    });
}
