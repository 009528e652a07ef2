//! Answers in motion: at once, unaltered, and never whole when they are not.
//!
//! Contract: docs/contract/surface.md#8, docs/contract/surface.md#13

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::{
    Backend, Client, Config, Driver, Gateway, Link, PATIENCE, Received, STREAM_COMMENT, endpoint,
    get, on_both_drivers, post,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
const ASK: &str = "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n";

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// A backend that goes on when it is told, and how to tell it.
pub(crate) fn on_word(
    script: impl Fn(&Received, &mut Link, &mpsc::Receiver<()>) + Send + Sync + 'static,
) -> (Backend, mpsc::Sender<()>) {
    let (word, heard) = mpsc::channel();
    let heard = Mutex::new(heard);
    let backend = Backend::new(&["m"], move |request, link| {
        script(request, link, &heard.lock().unwrap());
    });
    (backend, word)
}

#[test]
fn each_event_is_there_before_the_next_is_made() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            link.send(HEAD);
            for number in 0..20 {
                link.chunk(format!("data: {number}\n\n"));
                heard.recv_timeout(PATIENCE).unwrap();
            }
            link.chunk("");
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send(ASK);
        let head = client.head();
        assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
        for number in 0..20 {
            // The backend makes the next one only when this one has been seen.
            assert_eq!(
                client.chunk().unwrap(),
                format!("data: {number}\n\n").as_bytes()
            );
            word.send(()).unwrap();
        }
        assert_eq!(client.chunk().unwrap(), b"");
    });
}

/// A silent event stream gets a comment, as soon as the last event is whole.
#[test]
fn a_silent_stream_is_kept_alive() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            link.send(HEAD);
            for piece in ["data: 1\n\n", "data: ", "2\n\n"] {
                heard.recv_timeout(PATIENCE).unwrap();
                link.chunk(piece);
            }
            heard.recv_timeout(PATIENCE).unwrap();
            link.chunk("");
        });
        let gateway = over(driver, &backend, "proxy.stream_keep_alive = \"1s\"");
        let mut client = Client::to(&gateway);
        client.send(ASK);
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"data: ");
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"2\n\n");
        assert_eq!(client.chunk().unwrap(), STREAM_COMMENT);
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"");
        let metrics = get(&gateway, "/internal/metrics", &[]).text();
        assert!(
            metrics.contains("\nolla_stream_keep_alives_total 3\n"),
            "{metrics}"
        );
    });
}

#[test]
fn a_head_is_there_before_the_first_event() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            link.send(HEAD);
            heard.recv_timeout(PATIENCE).unwrap();
            link.chunk("data: 1\n\n");
            link.chunk("");
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send(ASK);
        assert_eq!(client.head().status, 200);
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
    });
}

#[test]
fn every_profile_passes_events_on_at_once() {
    on_both_drivers(|driver| {
        let kinds = [
            ("auto", "text/event-stream"),
            ("auto", "application/x-ndjson"),
            ("auto", "application/json"),
            ("auto", "text/plain; charset=utf-8"),
            ("streaming", "application/octet-stream"),
        ];
        for (profile, kind) in kinds {
            let (backend, word) = on_word(move |_, link, heard| {
                link.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
                ));
                link.chunk("first");
                heard.recv_timeout(PATIENCE).unwrap();
                link.chunk("second");
                link.chunk("");
            });
            let gateway = over(
                driver,
                &backend,
                &format!("[proxy]\nprofile = \"{profile}\""),
            );
            let mut client = Client::to(&gateway);
            client.send(ASK).head();
            assert_eq!(client.chunk().unwrap(), b"first", "{profile} {kind}");
            word.send(()).unwrap();
            assert_eq!(client.chunk().unwrap(), b"second");
        }
    });
}

#[test]
fn gathered_answers_arrive_whole() {
    on_both_drivers(|driver| {
        for (profile, kind) in [("standard", "text/plain"), ("auto", "image/png")] {
            let backend = Backend::new(&["m"], move |_, link| {
                link.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
                ));
                for number in 0..300_u32 {
                    link.chunk(number.to_be_bytes().repeat(100));
                }
                link.chunk("");
            });
            let gateway = over(
                driver,
                &backend,
                &format!("[proxy]\nprofile = \"{profile}\""),
            );
            let answer = get(&gateway, "/olla/proxy/x", &[]);
            let wanted: Vec<u8> = (0..300_u32)
                .flat_map(|n| n.to_be_bytes().repeat(100))
                .collect();
            assert!(answer.whole && answer.body == wanted, "{profile}");
        }
    });
}

#[test]
fn a_stream_arrives_unaltered_in_whatever_pieces_it_comes() {
    on_both_drivers(|driver| {
        let text: Arc<Vec<u8>> = Arc::new(
            (0..3000_u32)
                .flat_map(|n| format!("event: e\r\ndata: {{\"n\":{n}}}\n\n: c\n").into_bytes())
                .chain(*b"data: no end of line")
                .collect(),
        );
        let sent = Arc::clone(&text);
        let backend = Backend::new(&["m"], move |request, link| {
            let size: usize = request.target.trim_start_matches('/').parse().unwrap();
            link.send(HEAD);
            for piece in sent.chunks(size) {
                link.chunk(piece);
            }
            link.chunk("");
        });
        let gateway = over(driver, &backend, "");
        for size in [7, 1000, 40_000, 1 << 20] {
            let answer = get(&gateway, &format!("/olla/proxy/{size}"), &[]);
            assert!(answer.whole && answer.body == *text, "in pieces of {size}");
        }
    });
}

#[test]
fn an_answer_under_way_does_not_hold_its_prompt() {
    on_both_drivers(|driver| {
        let (word, heard) = mpsc::channel();
        let heard = Mutex::new(heard);
        let backend = Backend::new(&["m"], move |request, link| {
            if request.target == "/long" {
                link.send(HEAD);
                link.chunk("data: 0\n\n");
                heard.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                link.chunk("");
            } else {
                link.ok();
            }
        });
        // Room for one of the two prompts: a client has a quarter.
        let limits = "[server.request_limits]\nmax_buffered_bytes = \"4MB\"";
        let gateway = over(driver, &backend, limits);
        let prompt = "p".repeat(700_000);
        let mut client = Client::to(&gateway);
        client.send(format!(
            "POST /olla/proxy/long HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{prompt}",
            prompt.len()
        ));
        client.head();
        client.chunk().unwrap();
        assert_eq!(post(&gateway, "/olla/proxy/x", &[], &prompt).status, 200);
        word.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"");
        assert_eq!(backend.seen()[0].text(), prompt);
    });
}

#[test]
fn encoded_bytes_pass_as_they_are() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\n");
            link.send([0x1f, 0x8b, 0, 1, 2, 3]);
        });
        let gateway = over(driver, &backend, "");
        let answer = get(&gateway, "/olla/proxy/x", &["Accept-Encoding: gzip"]);
        assert_eq!(answer.body, [0x1f, 0x8b, 0, 1, 2, 3]);
        assert_eq!(backend.last().header("Accept-Encoding"), Some("gzip"));
    });
}

/// Backends that break off inside an answer, by what stands before.
const BROKEN: [(&str, &str); 3] = [
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: 1\n\n",
        "length",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
        "chunks",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n64\r\n",
        "inside a chunk",
    ),
];

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    on_both_drivers(|driver| {
        for (begin, name) in BROKEN {
            for reset in [false, true] {
                let (backend, word) = on_word(move |_, link, heard| {
                    link.send(begin);
                    heard.recv_timeout(PATIENCE).unwrap();
                    if reset {
                        link.reset();
                    } else {
                        link.close();
                    }
                });
                let gateway = over(driver, &backend, "");
                let mut client = Client::to(&gateway);
                client.send(ASK);
                let mut answer = client.head();
                // What has come is seen before the break.
                if name == "length" {
                    answer.body = client.up_to(9);
                } else {
                    answer.body = client.chunk().unwrap();
                }
                assert_eq!(answer.body, b"data: 1\n\n", "{name}");
                word.send(()).unwrap();
                // Nothing is appended: no last chunk, no text, no event of somebody else's.
                let ended = match name {
                    "inside a chunk" => client.chunk().is_none(),
                    _ => client.is_closed(),
                };
                assert!(ended, "{name}, reset: {reset}");
                // It had begun: nobody tries it again, nobody blames the endpoint.
                assert_eq!(backend.count(), 1);
                assert_eq!(gateway.endpoint("one")["status"], "healthy");
            }
        }
    });
}

#[test]
fn a_broken_chunk_of_a_backend_ends_the_answer_unfinished() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n");
        });
        let gateway = over(driver, &backend, "");
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        assert_eq!(answer.status, 200);
        assert!(!answer.whole && b"hello".starts_with(&answer.body));
    });
}

#[test]
fn an_answer_that_ends_by_closing_is_whole() {
    on_both_drivers(|driver| {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let backend = Backend::new(&["m"], move |_, link| {
                link.send(format!(
                    "{version} 200 OK\r\nConnection: close\r\n\r\nto the end"
                ));
                link.close();
            });
            let gateway = over(driver, &backend, "");
            let answer = get(&gateway, "/olla/proxy/x", &[]);
            assert!(answer.whole);
            assert_eq!(answer.text(), "to the end");
            assert_eq!(answer.version, "HTTP/1.1");
            // A client of HTTP/1.1 is told the end without a close.
            assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
        }
    });
}

#[test]
fn clients_of_http_1_0_get_streams_without_chunks() {
    on_both_drivers(|driver| {
        let (backend, word) = on_word(|_, link, heard| {
            link.send(HEAD);
            link.chunk("data: 1\n\n");
            heard.recv_timeout(PATIENCE).unwrap();
            link.chunk("data: 2\n\n");
            link.chunk("");
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let head = client.head();
        assert_eq!(head.header("Transfer-Encoding"), None);
        assert_eq!(client.up_to(9), b"data: 1\n\n");
        word.send(()).unwrap();
        assert_eq!(client.up_to(100), b"data: 2\n\n");
        assert!(client.is_closed());
    });
}

#[test]
fn silence_inside_an_answer_cuts_it_at_the_read_timeout() {
    on_both_drivers(|driver| {
        let (told, tell) = mpsc::channel();
        let told = Mutex::new(told);
        let backend = Backend::new(&["m"], move |_, link| {
            link.send(HEAD);
            link.chunk("data: 1\n\n");
            told.lock()
                .unwrap()
                .send(link.left_within(PATIENCE))
                .unwrap();
        });
        let gateway = over(driver, &backend, "[proxy]\nread_timeout = \"400ms\"");
        let start = Instant::now();
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        assert_eq!(answer.text(), "data: 1\n\n");
        assert!(!answer.whole);
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(390) && took < Duration::from_secs(5),
            "{took:?}"
        );
        // The backend need not work for nobody.
        assert!(tell.recv().unwrap().is_some());
    });
}

#[test]
fn the_response_timeout_bounds_the_whole_answer() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send(HEAD);
            while link.chunk("data: 1\n\n") && link.left_within(Duration::from_millis(50)).is_none()
            {
            }
        });
        let gateway = over(driver, &backend, "[proxy]\nresponse_timeout = \"500ms\"");
        let start = Instant::now();
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        assert!(!answer.whole && answer.body.starts_with(b"data: 1\n\n"));
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(490) && took < Duration::from_secs(5),
            "{took:?}"
        );
    });
}

#[test]
fn a_slow_client_stops_the_reading_from_its_backend() {
    on_both_drivers(|driver| {
        const TOTAL: usize = 64 << 20;
        let sent = Arc::new(Mutex::new(0));
        let at_backend = Arc::clone(&sent);
        let backend = Backend::new(&["m"], move |_, link| {
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"
            ));
            for _ in 0..TOTAL >> 16 {
                if !link.send([b'x'; 1 << 16]) {
                    return;
                }
                *at_backend.lock().unwrap() += 1 << 16;
            }
        });
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send(ASK).head();
        // Sent until the buffers of four sockets are full, and not beyond.
        let mut before = 0;
        testkit::wait_for("the backend to be stopped", PATIENCE, || {
            std::thread::park_timeout(Duration::from_millis(300));
            let now = *sent.lock().unwrap();
            let stands = now > 0 && now == before;
            before = now;
            stands.then_some(())
        });
        assert!(
            before < TOTAL / 2,
            "{before} bytes wait for a client that reads none"
        );
        // Others are served meanwhile; then it gets all.
        assert_eq!(get(&gateway, "/internal/health", &[]).status, 200);
        let mut got = 0;
        while got < TOTAL {
            let piece = client.up_to((1 << 20).min(TOTAL - got));
            assert!(!piece.is_empty() && piece.iter().all(|&byte| byte == b'x'));
            got += piece.len();
        }
    });
}

/// Sends are gathered where requests share a core: one that is not taken must hold up nobody else,
/// lose nothing, and not hide that its client leaves.
#[test]
fn a_slow_client_among_others_gets_all_and_is_missed_when_it_leaves() {
    on_both_drivers(|driver| {
        // Far more than the socket buffers between the two ends can grow to.
        const PIECES_MAX: usize = 100_000;
        let piece = |number: usize| number.to_be_bytes().repeat(250);
        let sent = Arc::new(AtomicUsize::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let (word, heard) = mpsc::channel();
        let (left, leaving) = mpsc::channel();
        let (at_backend, heard) = (Arc::clone(&sent), Mutex::new(heard));
        let is_enough = Arc::clone(&enough);
        let backend = Backend::new(&["m"], move |request, link| {
            link.send(HEAD);
            if request.target == "/companion" {
                link.chunk("here");
                heard.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            } else {
                for number in 0..PIECES_MAX {
                    if is_enough.load(Ordering::Relaxed) {
                        break;
                    }
                    if !link.chunk(piece(number)) {
                        left.send(()).unwrap();
                        return;
                    }
                    at_backend.fetch_add(1, Ordering::Relaxed);
                }
            }
            link.chunk("");
        });
        let gateway = over(driver, &backend, "server.workers = 1");
        let mut companion = Client::to(&gateway);
        companion.send("GET /olla/proxy/companion HTTP/1.1\r\nHost: h\r\n\r\n");
        companion.head();
        assert_eq!(companion.chunk().unwrap(), b"here");
        let stalled = || {
            sent.store(0, Ordering::Relaxed);
            enough.store(false, Ordering::Relaxed);
            let mut client = Client::to(&gateway);
            client.send(ASK).head();
            let mut before = 0;
            testkit::wait_for("the backend to be stopped", PATIENCE, || {
                std::thread::park_timeout(Duration::from_millis(300));
                let now = sent.load(Ordering::Relaxed);
                let stands = now > 0 && now == std::mem::replace(&mut before, now);
                stands.then_some(())
            });
            assert!(before < PIECES_MAX, "all of it waits somewhere");
            client
        };
        let mut patient = stalled();
        enough.store(true, Ordering::Relaxed);
        let mut got = Vec::new();
        let mut whole = 0;
        loop {
            let chunk = patient.chunk().expect("it is whole");
            if chunk.is_empty() {
                break;
            }
            got.extend(chunk);
            while got.len() >= 2000 {
                assert!(got[..2000] == piece(whole), "piece {whole} is another");
                got.drain(..2000);
                whole += 1;
            }
        }
        assert!(got.is_empty());
        assert_eq!(whole, sent.load(Ordering::Relaxed));
        drop(stalled());
        leaving.recv_timeout(PATIENCE).unwrap();
        word.send(()).unwrap();
        assert_eq!(companion.chunk().unwrap(), b"");
    });
}
