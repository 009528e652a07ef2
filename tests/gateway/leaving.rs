//! A client that leaves: its backend hears of it at once, and is not blamed.
//!
//! Contract: docs/contract/surface.md#8.2, docs/contract/balancing.md#9,
//! docs/contract/balancing.md#10

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use testkit::{
    Backend, Client, Config, Driver, FullListener, Gateway, Link, PATIENCE, Received, endpoint,
    get, on_both_drivers, wait_for,
};

const ASK: &str = "POST /olla/proxy/v1/chat/completions HTTP/1.1\r\nHost: h\r\n\
                   Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}";
/// The contract's word for promptly.
const PROMPTLY: Duration = Duration::from_secs(1);

/// A backend that does something and then waits to be left: how long that took.
fn left_after(
    begin: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
) -> (Backend, Receiver<Option<Duration>>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let backend = Backend::new(&["m"], move |request, link| {
        begin(request, link);
        let left = link.left_within(PATIENCE);
        // Nobody may be waiting for the second one.
        let _ = tell.lock().unwrap().send(left);
    });
    (backend, told)
}

fn over(driver: Driver, backend: &Backend) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints))
}

fn leave(client: Client, reset: bool) -> Instant {
    let now = Instant::now();
    if reset {
        client.reset();
    } else {
        drop(client);
    }
    now
}

/// No failure is counted: healthy, and the breaker closed after more leavers than it tolerates.
fn is_not_blamed(gateway: &Gateway) {
    let endpoint = gateway.endpoint("one");
    assert_eq!(endpoint["status"], "healthy", "{endpoint}");
    let metrics = get(gateway, "/internal/metrics", &[]).text();
    for line in metrics.lines().filter(|line| line.contains("breaker")) {
        assert!(line.starts_with('#') || line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn leaving_while_waiting_for_the_first_byte_stops_the_backend() {
    on_both_drivers(|driver| {
        let (backend, told) = left_after(|_, _| {});
        let gateway = over(driver, &backend);
        for round in 1..=8 {
            let mut client = Client::to(&gateway);
            client.send(ASK);
            backend.wait_count(round);
            let since = leave(client, round % 2 == 0);
            assert!(told.recv_timeout(PATIENCE).unwrap().is_some());
            assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
        }
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_while_streaming_stops_the_backend() {
    on_both_drivers(|driver| {
        let (backend, told) = left_after(|_, link| {
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            link.chunk("data: 1\n\n");
        });
        let gateway = over(driver, &backend);
        for round in 1..=8 {
            let mut client = Client::to(&gateway);
            client.send(ASK).head();
            assert!(client.chunk().is_some());
            let since = leave(client, round % 2 == 0);
            assert!(told.recv_timeout(PATIENCE).unwrap().is_some());
            assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
        }
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_after_bytes_of_another_request_stops_the_backend() {
    on_both_drivers(|driver| {
        let (backend, told) = left_after(|request, link| {
            if request.header("Streams").is_some() {
                link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                link.chunk("data: 1\n\n");
            }
        });
        let gateway = over(driver, &backend);
        let streams = ASK.replacen("Host", "Streams: 1\r\nHost", 1);
        // A stray byte while the request runs, one that comes with it, and as much as is ever held.
        let much = format!(
            "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX: {}",
            "x".repeat(60_000)
        );
        for (round, (ask, later)) in [(ASK, "\n"), (&streams, "G"), (&streams, &*much)]
            .into_iter()
            .enumerate()
        {
            for (place, at_once) in [false, true].into_iter().enumerate() {
                let mut client = Client::to(&gateway);
                let first = if at_once { later } else { "" };
                client.send(format!("{ask}{first}"));
                backend.wait_count(2 * round + place + 1);
                if ask != ASK {
                    client.head();
                    assert!(client.chunk().is_some());
                }
                if !at_once {
                    client.send(later);
                }
                let since = leave(client, place == 1);
                assert!(told.recv_timeout(PATIENCE).unwrap().is_some());
                assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
            }
        }
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_a_stream_that_flows_stops_the_backend() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let backend = Backend::new(&["m"], move |_, link| {
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while link.chunk("data: 1\n\n") && link.left_within(Duration::from_millis(2)).is_none()
            {
            }
            let _ = tell.lock().unwrap().send(Instant::now());
        });
        let gateway = over(driver, &backend);
        for round in 0..4 {
            let mut client = Client::to(&gateway);
            client.send(ASK).head();
            assert!(client.chunk().is_some());
            let since = leave(client, round % 2 == 0);
            let ended = told.recv_timeout(PATIENCE).unwrap();
            assert!(ended.duration_since(since) < PROMPTLY);
        }
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_a_full_pipe_stops_the_backend() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let backend = Backend::new(&["m"], move |_, link| {
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while link.chunk([b'x'; 1 << 16]) {}
            link.close();
            let _ = tell.lock().unwrap().send(());
        });
        let gateway = over(driver, &backend);
        let mut client = Client::to(&gateway);
        client.send(ASK).head();
        // It reads nothing, until everything on the way is full.
        assert!(client.up_to(1 << 20).len() == 1 << 20);
        std::thread::park_timeout(Duration::from_millis(300));
        let since = leave(client, false);
        told.recv_timeout(PATIENCE).unwrap();
        assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_while_a_backend_is_connected_to_ends_the_attempt() {
    on_both_drivers(|driver| {
        let full = FullListener::new();
        let backend = Backend::ok(&["m"]);
        // The endpoint is checked elsewhere, so that it is healthy.
        let more = format!(
            "url = \"http://{}\"\nhealth_check_url = \"{1}/health\"\n\
             model_url = \"{1}/v1/models\"",
            full.address,
            backend.url()
        );
        let endpoints = endpoint("one", "vllm", &backend, &more);
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        let mut client = Client::to(&gateway);
        client.send(ASK);
        wait_for("the request under way", PATIENCE, || {
            (gateway.endpoint("one")["active_connections"] == 1).then_some(())
        });
        let since = leave(client, false);
        wait_for("the end of the attempt", PATIENCE, || {
            (gateway.endpoint("one")["active_connections"] == 0).then_some(())
        });
        assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
        is_not_blamed(&gateway);
    });
}

#[test]
fn leaving_while_the_first_check_is_waited_for_reaches_no_backend() {
    on_both_drivers(|driver| {
        // Nobody accepts what connects to it: its first check hangs.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Backend::ok(&["m"]);
        let more = format!("url = \"http://{address}\"\ncheck_timeout = \"900ms\"");
        let endpoints = endpoint("one", "vllm", &silent, &more);
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).unsettled());
        let mut client = Client::to(&gateway);
        client.send(ASK);
        let since = leave(client, false);
        // It no longer counts as in flight, so a drain does not wait for it.
        gateway.signal("TERM");
        let mut gateway = gateway;
        let status = gateway.wait_end(PATIENCE);
        assert_eq!(status.code(), Some(0));
        assert!(
            since.elapsed() < Duration::from_millis(1900),
            "{:?}",
            since.elapsed()
        );
        assert_eq!(silent.count(), 0);
    });
}

#[test]
fn leaving_while_room_for_the_body_is_waited_for_reaches_no_backend() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let limits = "[server.request_limits]\nmax_buffered_bytes = \"4MB\"";
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints).more(limits));
        let head = |length: usize| {
            format!("POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
        };
        let mut holder = Client::to(&gateway);
        holder.send(head(900_000)).send(vec![b' '; 880_000]);
        let whole = [head(200_000).into_bytes(), vec![b' '; 200_000]].concat();
        let waiting = wait_for("a body that waits", PATIENCE, || {
            let mut other = Client::to(&gateway);
            other.send(&whole);
            other
                .is_silent_for(Duration::from_millis(200))
                .then_some(other)
        });
        let before = backend.count();
        leave(waiting, false);
        holder.send(vec![b' '; 20_000]);
        assert_eq!(holder.response().status, 200);
        assert_eq!(backend.count(), before + 1);
        is_not_blamed(&gateway);
    });
}
