//! Bounds of what one client can take: time for its body, time in which it takes nothing.
//!
//! Contract: docs/contract/surface.md#1.2

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::{Backend, Client, Config, Driver, Gateway, PATIENCE, endpoint, on_both_drivers};

const UPLOAD: &str = "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 6000\r\n\r\n";

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

#[test]
fn a_steady_upload_may_take_longer_than_its_longest_pause() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "[server]\nread_timeout = \"400ms\"");
        let mut client = Client::to(&gateway);
        let start = Instant::now();
        client.send(UPLOAD);
        for _ in 0..6 {
            assert!(client.is_silent_for(Duration::from_millis(150)));
            client.send([b'x'; 1000]);
        }
        assert_eq!(client.response().status, 200);
        assert!(start.elapsed() > Duration::from_millis(800));
        assert_eq!(backend.last().body.len(), 6000);
    });
}

#[test]
fn a_body_that_drips_is_408() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = "[server]\nread_timeout = \"500ms\"\nmin_body_rate = 1000";
        let gateway = over(driver, &backend, more);
        let mut client = Client::to(&gateway);
        client.send(UPLOAD);
        let start = Instant::now();
        while client.is_silent_for(Duration::from_millis(50)) {
            client.send("x");
            assert!(start.elapsed() < PATIENCE, "it is never cut off");
        }
        let answer = client.response();
        let message = answer.is_error(408, "request_timeout", "REQUEST_TIMEOUT");
        assert!(message.contains("server.min_body_rate"), "{message}");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(backend.count(), 0);
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

/// Sends a request and takes nothing until the log says that the client has stalled; then how the
/// connection ends.
fn stall(gateway: &Gateway, request: &str) -> std::io::ErrorKind {
    let address = gateway.url().replace("http://", "");
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    gateway.wait_log("client_stalled");
    let mut rest = vec![0; 1 << 20];
    loop {
        match client.read(&mut rest) {
            Ok(0) => panic!("it looks complete"),
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

fn is_not_blamed(gateway: &Gateway) {
    assert_eq!(gateway.endpoint("one")["status"], "healthy");
    let failed = "olla_endpoint_requests_total{endpoint=\"one\",status=\"failure\"}";
    assert_eq!(gateway.metric(failed).unwrap_or(0.0), 0.0);
    assert_eq!(gateway.metric("olla_client_disconnects_total"), Some(1.0));
}

const STALL: &str = "[server]\nstall_timeout = \"500ms\"\nrequest_logging = true";
const MESSAGES: &str = "POST /olla/anthropic/v1/messages HTTP/1.1\r\nHost: h\r\n\
                        Content-Type: application/json\r\n";

fn messages(stream: bool) -> String {
    let body = format!(
        "{{\"model\":\"m\",\"max_tokens\":9,\"stream\":{stream},\
         \"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
    );
    format!("{MESSAGES}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A backend that streams without end, in the form that both dialects read; says when it is left.
fn endless() -> (Backend, mpsc::Receiver<()>) {
    let (left, leaving) = mpsc::channel();
    let left = Mutex::new(left);
    let text = "t".repeat(8000);
    let backend = Backend::new(&["m"], move |_, link| {
        link.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        let event = format!(
            "data: {{\"id\":\"1\",\"model\":\"m\",\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        );
        while link.chunk(&event) {}
        left.lock().unwrap().send(()).unwrap();
    });
    (backend, leaving)
}

#[test]
fn a_client_that_takes_nothing_of_a_stream_is_reset() {
    on_both_drivers(|driver| {
        for ask in [
            "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            messages(true),
        ] {
            let (backend, leaving) = endless();
            let gateway = over(driver, &backend, STALL);
            assert_eq!(stall(&gateway, &ask), std::io::ErrorKind::ConnectionReset);
            leaving.recv_timeout(PATIENCE).unwrap();
            is_not_blamed(&gateway);
        }
    });
}

#[test]
fn a_client_that_takes_nothing_of_the_end_is_reset() {
    on_both_drivers(|driver| {
        let text = "t".repeat(15 << 20);
        let whole = format!(
            "{{\"id\":\"1\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"finish_reason\":\"stop\",\
             \"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}}}}]}}"
        );
        let backend = Backend::new(&["m"], move |_, link| {
            link.respond(200, "application/json", &whole);
        });
        let gateway = over(driver, &backend, STALL);
        let end = stall(&gateway, &messages(false));
        assert_eq!(end, std::io::ErrorKind::ConnectionReset);
        is_not_blamed(&gateway);
    });
}

#[test]
fn a_client_that_takes_a_little_all_the_time_gets_all() {
    const TOTAL: usize = 24 << 20;
    on_both_drivers(|driver| {
        let sent = Arc::new(vec![b'x'; TOTAL]);
        let backend = Backend::new(&["m"], move |_, link| {
            link.respond(200, "text/plain", sent.as_slice());
        });
        let gateway = over(driver, &backend, STALL);
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
        client.head();
        let start = Instant::now();
        let mut got = 0;
        while got < TOTAL {
            std::thread::park_timeout(Duration::from_millis(100));
            got += client.up_to((1 << 20).min(TOTAL - got)).len();
        }
        assert!(start.elapsed() > Duration::from_secs(2), "that was quick");
    });
}
