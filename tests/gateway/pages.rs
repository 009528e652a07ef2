//! Pages and listings under many readers: they delay nothing else and leave nothing behind.
//!
//! Contract: docs/contract/surface.md#10.1

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};
use testkit::{
    Backend, Client, Config, Driver, Gateway, endpoint, get, on_both_drivers, wait_until,
};

const MODELS: usize = 12_000;

/// More names than a core renders a listing of.
fn names() -> Vec<String> {
    (0..MODELS)
        .map(|n| format!("family{}-{n}", n % 7))
        .collect()
}

fn backend(names: &[String]) -> Backend {
    Backend::ok(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn over(driver: Driver, backend: &Backend) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
    wait_until("all models", || {
        gateway.endpoint("one")["model_count"] == MODELS
    });
    gateway
}

fn resident_kb(gateway: &Gateway) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[test]
fn readers_leave_health_checks_their_schedule() {
    on_both_drivers(|driver| {
        let names = names();
        let backend = backend(&names);
        let gateway = over(driver, &backend);
        for (path, connections) in [
            ("/internal/process", 200),
            ("/olla/models?format=vllm", 100),
        ] {
            let (over, read) = (AtomicBool::new(false), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..connections {
                    scope.spawn(|| {
                        let mut client = Client::to(&gateway);
                        while !over.load(Ordering::Relaxed) {
                            // HEAD is rendered as GET is, without the transfer.
                            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
                            assert_eq!(client.response_to("HEAD").status, 200, "{path}");
                            read.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                wait_until("every reader reads", || {
                    read.load(Ordering::Relaxed) > connections
                });
                // One check a second; none would come if checks waited for readers.
                let before = backend.requests();
                wait_until("checks", || backend.requests() >= before + 3);
                over.store(true, Ordering::Relaxed);
            });
            assert_eq!(gateway.endpoint("one")["status"], "healthy", "{path}");
        }
        let log = gateway.log();
        assert!(!log.contains("Endpoint status changed"), "{log}");
    });
}

#[test]
fn a_page_is_rendered_once_for_all_who_ask_at_the_same_time() {
    on_both_drivers(|driver| {
        let names = names();
        let gateway = over(driver, &backend(&names));
        let read = || {
            thread::scope(|scope| {
                let reader = || {
                    let page = get(&gateway, "/internal/status/models?detailed=true", &[]).json();
                    page["timestamp"].as_str().unwrap().to_owned()
                };
                let readers: Vec<_> = (0..50).map(|_| scope.spawn(reader)).collect();
                readers
                    .into_iter()
                    .map(|reader| reader.join().unwrap())
                    .collect::<Vec<_>>()
            })
        };
        let mut times = read();
        assert_eq!(times.len(), 50);
        times.sort_unstable();
        times.dedup();
        // A page for each reader would have a time of its own.
        assert!(times.len() < 25, "{times:?}");
    });
}

/// How many long listings differ.
const LISTINGS: usize = 48;

/// A long listing, another one for each number below [`LISTINGS`].
fn listing(number: usize) -> String {
    let format = ["unified", "openai", "vllm"][number % 3];
    let filters = [
        "type=llm",
        "endpoint=one",
        "available=true",
        "include_unavailable=true",
    ];
    let chosen = filters.iter().enumerate();
    let chosen = chosen.filter(|(bit, _)| ((number / 3) >> bit) & 1 == 1);
    let query: String = chosen.map(|(_, filter)| format!("&{filter}")).collect();
    format!("/olla/models?format={format}{query}")
}

#[test]
fn requests_that_end_early_leave_nothing_behind() {
    on_both_drivers(|driver| {
        let names = names();
        let gateway = over(driver, &backend(&names));
        let megabytes = get(&gateway, &listing(0), &[]).body.len() >> 20;
        assert!(megabytes >= 3, "{megabytes} MB are a long listing");
        let before = resident_kb(&gateway);
        for n in 1..=2 * LISTINGS {
            let mut client = Client::to(&gateway);
            let path = listing(n % LISTINGS);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            client.reset();
        }
        wait_until("a listing is rendered after them", || {
            get(&gateway, &listing(1), &[]).status == 200
        });
        wait_until("the memory of what nobody reads is free", || {
            let grown = resident_kb(&gateway).saturating_sub(before);
            // Two fifths of what the listings take.
            grown < 20 * 1024 * megabytes
        });
    });
}

#[test]
fn one_slow_reader_leaves_pages_to_the_others() {
    on_both_drivers(|driver| {
        // Names so long that the listings together are more than all clients may leave unread.
        let names: Vec<_> = names().iter().map(|name| format!("{name:-<400}")).collect();
        let backend = backend(&names);
        let gateway = over(driver, &backend);
        let status = |path: &str| get(&gateway, path, &[]).status;
        let mut greedy = Vec::new();
        let mut refused = 0;
        for n in 0..LISTINGS {
            let mut reader = from_elsewhere(&gateway);
            let head = format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", listing(n));
            reader.write_all(head.as_bytes()).unwrap();
            // It reads the status and leaves the rest.
            let mut begin = [0; 12];
            reader.read_exact(&mut begin).unwrap();
            refused += usize::from(begin.ends_with(b"503"));
            greedy.push(reader);
        }
        assert!(refused > 0, "it gets no more than its part");
        for path in [
            "/internal/ready",
            "/internal/metrics",
            "/internal/status",
            "/olla/models?format=openai&type=llm",
        ] {
            assert_eq!(status(path), 200, "{path}");
        }
        drop(greedy);
    });
}

/// A connection from another address than all others have; it takes few bytes at a time.
pub(crate) fn from_elsewhere(gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let from: SocketAddr = ([127, 0, 0, 77], 0).into();
    let to: SocketAddr = ([127, 0, 0, 1], gateway.port).into();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
