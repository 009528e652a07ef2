//! Pages and listings under many readers: they delay nothing else and leave nothing behind.
//!
//! Contract: docs/contract/surface.md#10.1

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

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

/// A capability of every model, in a spelling of its own for each number: each is rendered anew.
fn cased(number: usize) -> String {
    let letters = "completion".bytes().enumerate();
    let cased = letters.map(|(at, letter)| match (number >> at) & 1 {
        0 => letter,
        _ => letter.to_ascii_uppercase(),
    });
    String::from_utf8(cased.collect()).unwrap()
}

#[test]
fn requests_that_end_early_leave_nothing_behind() {
    on_both_drivers(|driver| {
        let names = names();
        let gateway = over(driver, &backend(&names));
        let listing = |n: usize| format!("/olla/models?format=vllm&capability={}", cased(n));
        let megabytes = get(&gateway, &listing(0), &[]).body.len() >> 20;
        assert!(megabytes >= 3, "{megabytes} MB are a long listing");
        let before = resident_kb(&gateway);
        for n in 1..=100 {
            let mut client = Client::to(&gateway);
            client.send(format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", listing(n)));
            client.reset();
        }
        // It is rendered after those that came before it.
        assert_eq!(get(&gateway, &listing(1000), &[]).status, 200);
        wait_until("the memory of what nobody reads is free", || {
            let grown = resident_kb(&gateway).saturating_sub(before);
            // A fifth of what the listings take.
            grown < 20 * 1024 * megabytes
        });
    });
}
