//! Much at a time, with backends that come and go: every request ends in an answer, and in its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use olla_loadtest::sse;
use olla_loadtest::stub::{self, Stub};
use olla_loadtest::target::RequestOptions;

use testkit::{Backend, Client, Config, Gateway, endpoint, on_both_drivers, post, wait_until};

const CLIENTS: usize = 8;
/// Of both drivers together.
const REQUESTS: usize = 20_000;
/// A fast machine goes on asking until backends have come and gone so often.
const ROUNDS_MIN: usize = 3;

#[test]
fn no_answer_is_lost_or_mixed_up_while_backends_come_and_go() {
    on_both_drivers(|driver| {
        let backends = [0, 1, 2].map(|_| {
            Arc::new(Backend::new(&["m"], |request, link| {
                // Some answers have a length, some come in chunks.
                if request.body.len() % 2 == 0 {
                    link.respond(200, "text/plain", &request.body);
                } else {
                    link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    link.chunk(&request.body);
                    link.chunk("");
                }
            }))
        });
        let endpoints: String = backends
            .iter()
            .enumerate()
            .map(|(index, backend)| {
                // A check of the one that stays must not fail because the machine is busy.
                let seldom = "check_interval = \"60s\"\ncheck_timeout = \"20s\"";
                let more = if index == 2 { seldom } else { "" };
                endpoint(&format!("e{index}"), "vllm", backend, more)
            })
            .collect();
        let config = Config::new(driver)
            .more(&endpoints)
            .more("[logging]\nlevel = \"warn\"");
        let gateway = Gateway::start(&config);
        let tally = Tally::default();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (gateway, tally) = (&gateway, &tally);
                scope.spawn(move || ask_all(gateway, client, tally));
            }
            // Two of the three come and go; one is always there.
            while !tally.is_over() {
                let rounds = tally.rounds.load(Ordering::Relaxed);
                let backend = &backends[rounds % 2];
                backend.stop();
                let seen = tally.asked();
                wait_until("requests without it", || {
                    tally.is_over() || tally.asked() > seen + 100
                });
                backend.restart();
                let index = rounds % 2;
                wait_until("it to be back", || {
                    tally.is_over() || gateway.endpoint(&format!("e{index}"))["status"] == "healthy"
                });
                tally.rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        println!("{}: {tally:?}", driver.name());
        // One that dies under an answer that has begun breaks that one; nothing else may happen.
        let all = REQUESTS / 2 / CLIENTS * CLIENTS;
        assert!(tally.rounds.load(Ordering::Relaxed) >= ROUNDS_MIN);
        assert!(tally.asked() >= all);
        assert!(tally.broken.load(Ordering::Relaxed) < all / 100);
    });
}

#[derive(Debug, Default)]
struct Tally {
    right: AtomicUsize,
    broken: AtomicUsize,
    ended: AtomicUsize,
    /// How often a backend has gone and come back.
    rounds: AtomicUsize,
}

impl Tally {
    fn asked(&self) -> usize {
        self.right.load(Ordering::Relaxed) + self.broken.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == CLIENTS
    }
}

/// Ends a client's count also when it panics.
struct Ended<'a>(&'a Tally);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn ask_all(gateway: &Gateway, number: usize, tally: &Tally) {
    let _ended = Ended(tally);
    let mut client = Client::to(gateway);
    for request in 0.. {
        let enough = request >= REQUESTS / 2 / CLIENTS;
        if enough && tally.rounds.load(Ordering::Relaxed) >= ROUNDS_MIN {
            return;
        }
        let nonce = format!("{number}:{request}:{}", "x".repeat(request * 37 % 3000));
        let head = format!(
            "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            nonce.len()
        );
        client.send(head + &nonce);
        let answer = client.response();
        assert_eq!(answer.status, 200, "{}", answer.text());
        if answer.whole {
            assert_eq!(answer.text(), nonce);
            tally.right.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(nonce.as_bytes().starts_with(&answer.body));
            tally.broken.fetch_add(1, Ordering::Relaxed);
            client = Client::to(gateway);
        }
    }
}

#[test]
fn a_thousand_streams_through_one_worker_arrive_each_whole_and_in_order() {
    on_both_drivers(|driver| {
        let options = stub::StubOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            models: vec!["m".to_owned()],
            events: 10,
            gap_ms: 100,
            delay_ms: 0,
            record: None,
        };
        let stub = Stub::bind(&options).unwrap();
        let address = stub.local_addr().unwrap();
        // It serves until the process of the tests ends.
        thread::spawn(move || stub.run());
        let config = Config::new(driver)
            .more(&format!(
                "[[discovery.static.endpoints]]\nname = \"stub\"\ntype = \"vllm\"\n\
                 url = \"http://{address}\""
            ))
            .more("[server]\nworkers = 1");
        let gateway = Gateway::start(&config);
        let url = format!(
            "http://127.0.0.1:{}/olla/proxy/v1/chat/completions",
            gateway.port
        );
        let load = sse::SseOptions {
            request: RequestOptions {
                url: url.parse().unwrap(),
                model: "m".to_owned(),
                body_bytes: 200,
                headers: Vec::new(),
                stub: None,
            },
            streams: 1000,
            events: 10,
            gap_ms: 100,
            rounds: 1,
            duration: None,
            ramp_ms: 500,
            timeout_ms: 20_000,
            json: None,
        };
        let report = sse::run(&load).unwrap();
        assert!(sse::is_success(&report), "{report}");
        assert_eq!(report["streams_completed"], 1000, "{report}");
        assert_eq!(report["events"], 10_000, "{report}");
    });
}

/// More bodies than are read as they come, in waves: they take turns, and none loses a byte.
#[test]
fn large_bodies_that_come_at_once_arrive_whole() {
    const UPLOADERS: usize = 60;
    const WAVES: usize = 3;
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            link.respond(200, "application/octet-stream", &request.body);
        });
        let endpoints = endpoint("one", "vllm", &backend, "");
        let config = Config::new(driver)
            .more(&endpoints)
            .more("[server]\nworkers = 1");
        let gateway = Gateway::start(&config);
        let together = Barrier::new(UPLOADERS);
        thread::scope(|scope| {
            for client in 0..UPLOADERS {
                let (gateway, together) = (&gateway, &together);
                scope.spawn(move || {
                    for wave in 0..WAVES {
                        let body: Vec<u8> = (0..50_000 + client)
                            .flat_map(|at| ((at * (client + 1) + wave) as u32).to_be_bytes())
                            .collect();
                        together.wait();
                        let answer = post(gateway, "/olla/proxy/x", &[], &body);
                        assert!(
                            answer.status == 200 && answer.body == body,
                            "{client}, {wave}"
                        );
                    }
                });
            }
        });
        assert_eq!(backend.count(), UPLOADERS * WAVES);
    });
}
