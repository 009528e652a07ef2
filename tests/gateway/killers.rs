//! Requests that make an endpoint close its connection: no fleet goes down for them.
//!
//! Contract: docs/contract/balancing.md#9.3, docs/contract/balancing.md#10

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use testkit::{Backend, Config, Driver, Gateway, Link, endpoint, on_both_drivers, post};

const CHAT: &str = "/olla/proxy/v1/chat/completions";
const NAMES: [&str; 3] = ["one", "two", "three"];
/// More than the sockets of a connection hold.
const BODY_BYTES: usize = 8 << 20;

/// A server that resets each connection within the body of its first request. It ends with the
/// process.
fn resetting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            leave_unread(stream);
        }
    });
    (address, count)
}

/// Reads the head and more, and closes with bytes unread, which resets the connection.
fn leave_unread(mut stream: TcpStream) {
    let mut bytes = vec![0; 128 << 10];
    let _ = stream.read_exact(&mut bytes);
    let _ = stream.peek(&mut bytes);
}

fn start(driver: Driver, endpoints: &str) -> Gateway {
    // Readings of metrics would count as connections.
    let more = "[proxy]\nload_balancer = \"round-robin\"\nleast_time.load_interval = \"0s\"";
    Gateway::start(&Config::new(driver).more(endpoints).more(more))
}

fn all_are_in_service(gateway: &Gateway) {
    for name in NAMES {
        let endpoint = gateway.endpoint(name);
        assert_eq!(endpoint["status"], "healthy", "{endpoint}");
        assert_eq!(endpoint["breaker"]["state"], "closed", "{endpoint}");
    }
}

#[test]
fn a_reset_within_a_body_reaches_two_endpoints_and_takes_out_none() {
    on_both_drivers(|driver| {
        // Their checks go elsewhere, so that they are healthy.
        let health = Backend::ok(&["m"]);
        let servers = NAMES.map(|_| resetting());
        let endpoints = NAMES.iter().zip(&servers).map(|(name, (address, _))| {
            let more = format!(
                "url = \"http://{address}\"\nhealth_check_url = \"{0}/health\"\n\
                 model_url = \"{0}/v1/models\"\ncheck_interval = \"60s\"",
                health.url()
            );
            endpoint(name, "vllm", &health, &more)
        });
        let gateway = start(driver, &endpoints.collect::<String>());
        let body = format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(BODY_BYTES));
        for round in 1..=6 {
            let answer = post(&gateway, CHAT, &[], &body);
            let message = answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
            assert!(message.starts_with("the endpoints "), "{message}");
            let sent = servers
                .iter()
                .map(|(_, count)| count.load(Ordering::SeqCst));
            assert_eq!(sent.sum::<usize>(), 2 * round, "two endpoints at most");
            all_are_in_service(&gateway);
        }
        gateway.wait_line(&[
            "Endpoint closed the connection on a request",
            r#""error":"reset""#,
        ]);
    });
}

#[test]
fn heads_that_are_cut_open_no_breaker() {
    on_both_drivers(|driver| {
        for end in [Link::close, Link::reset] {
            let backends = NAMES.map(|_| {
                Backend::new(&["m"], move |request, link| {
                    if request.text().contains("kill") {
                        link.send("HTTP/1.1 200 OK\r\nContent-");
                        end(link);
                    } else {
                        link.ok();
                    }
                })
            });
            let endpoints = NAMES
                .iter()
                .zip(&backends)
                .map(|(name, backend)| endpoint(name, "vllm", backend, "check_interval = \"60s\""));
            let gateway = start(driver, &endpoints.collect::<String>());
            for _ in 0..18 {
                let answer = post(&gateway, CHAT, &[], r#"{"model":"m","x":"kill"}"#);
                answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
            }
            all_are_in_service(&gateway);
            for _ in 0..6 {
                assert_eq!(post(&gateway, CHAT, &[], r#"{"model":"m"}"#).status, 200);
            }
        }
    });
}

#[test]
fn an_endpoint_that_cuts_a_head_and_fails_its_check_goes_offline() {
    on_both_drivers(|driver| {
        let backends = NAMES.map(|_| {
            Backend::new(&["m"], |_, link| {
                link.send("HTTP/1.1 200 OK\r\nContent-");
                link.close();
            })
        });
        let endpoints = NAMES
            .iter()
            .zip(&backends)
            .map(|(name, backend)| endpoint(name, "vllm", backend, "check_interval = \"60s\""));
        let gateway = start(driver, &endpoints.collect::<String>());
        backends[0].set_health(500);
        for _ in 0..3 {
            let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
            answer.is_error(502, "bad_gateway", "BACKEND_ERROR");
        }
        // The next regular check is a minute away.
        gateway.wait_status("one", "offline");
    });
}
