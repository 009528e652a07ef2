//! Requests as they may arrive: in pieces, in rows, chunked, in the form of older clients, at the
//! limits and too slowly.
//!
//! Contract: docs/contract/surface.md#1, docs/contract/surface.md#1.2, docs/contract/surface.md#7,
//! docs/contract/surface.md#11

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, endpoint, exchange, get, on_both_drivers,
};

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

/// Answers with what it was asked.
fn echo() -> Backend {
    Backend::new(&["m"], |request, link| {
        link.respond(
            200,
            "text/plain",
            format!("{} {}", request.method, request.target),
        );
    })
}

#[test]
fn a_connection_serves_request_after_request() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        for number in 0..20 {
            client.send(format!(
                "GET /olla/proxy/{number} HTTP/1.1\r\nHost: h\r\n\r\n"
            ));
            let answer = client.response();
            assert_eq!(answer.text(), format!("GET /{number}"));
            assert_eq!(answer.header("Connection"), None);
            client.send("GET /nosuch HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(client.response().status, 404);
        }
    });
}

/// Contract: docs/contract/operations.md, metrics (c)
#[test]
fn the_first_byte_of_each_endpoint_is_timed() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
        let text = get(&gateway, "/internal/metrics", &[]).text();
        for series in [
            "olla_time_to_first_byte_seconds",
            "olla_request_duration_seconds",
        ] {
            let line = format!("{series}_count{{endpoint=\"one\"}} 1\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    });
}

#[test]
fn close_is_honoured_and_answered() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        for path in ["/olla/proxy/x", "/internal/health", "/nosuch"] {
            for value in ["close", "Close", "x-a, close"] {
                let mut client = Client::to(&gateway);
                client.send(format!(
                    "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: {value}\r\n\r\n"
                ));
                let answer = client.response();
                assert_eq!(answer.header("Connection"), Some("close"), "{path}");
                assert!(client.is_closed());
            }
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        let mut requests = String::new();
        for number in 0..10 {
            requests += &format!("GET /olla/proxy/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
            requests += &format!(
                "POST /olla/proxy/p{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
            );
            requests += &format!(
                "PUT /olla/proxy/c{number} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\n\r\n"
            );
            requests += "GET /nosuch HTTP/1.1\r\nHost: h\r\n\r\n";
        }
        client.send(requests);
        for number in 0..10 {
            assert_eq!(client.response().text(), format!("GET /{number}"));
            assert_eq!(client.response().text(), format!("POST /p{number}"));
            assert_eq!(client.response().text(), format!("PUT /c{number}"));
            assert_eq!(client.response().status, 404);
        }
        let bodies: Vec<String> = backend.seen().iter().map(|seen| seen.text()).collect();
        assert_eq!(bodies[..3], ["", "hello", "abc"]);
    });
}

/// A body in chunks is read in large pieces, and with it what follows.
#[test]
fn many_requests_behind_a_body_are_answered_in_order() {
    const COUNT: usize = 2_000;
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        let body = "x".repeat(1 << 20);
        let mut requests = format!(
            "POST /olla/proxy/first HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for number in 0..COUNT {
            let path = if number % 100 == 0 {
                "olla/proxy"
            } else {
                "nosuch"
            };
            requests += &format!("GET /{path}/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        client.send(requests);
        assert_eq!(client.response().text(), "POST /first");
        for number in 0..COUNT {
            let response = client.response();
            if number % 100 == 0 {
                assert_eq!(response.text(), format!("GET /{number}"));
            } else {
                assert_eq!(response.status, 404);
            }
        }
    });
}

/// Without chunks the end of the connection is the end of the response.
#[test]
fn a_response_that_breaks_off_does_not_look_whole_to_http_1_0() {
    on_both_drivers(|driver| {
        for bad in ["", "zz\r\n"] {
            let backend = Backend::new(&["m"], move |_, link| {
                link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                link.send(bad);
                link.close();
            });
            let gateway = over(driver, &backend, "");
            let mut client = TcpStream::connect(gateway.url().replace("http://", "")).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
                .write_all(b"GET /olla/proxy/x HTTP/1.0\r\n\r\n")
                .unwrap();
            let mut all = Vec::new();
            let end = client.read_to_end(&mut all).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{bad:?}");
        }
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        for request in [
            "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world",
            "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        ] {
            let mut client = Client::to(&gateway);
            for byte in request.bytes() {
                client.send([byte]);
            }
            assert_eq!(client.response().text(), "POST /x");
            assert_eq!(backend.last().text(), "hello world");
        }
    });
}

#[test]
fn clients_of_http_1_0_are_served() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        // No host, and the end of the connection is the end.
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/x HTTP/1.0\r\n\r\n");
        let answer = client.response();
        assert_eq!(answer.text(), "GET /x");
        assert_eq!(answer.header("Transfer-Encoding"), None);
        assert!(client.is_closed());
        // One that asks to stay may stay.
        let mut client = Client::to(&gateway);
        for path in [
            "/olla/proxy/x",
            "/internal/health",
            "/nosuch",
            "/olla/proxy/y",
        ] {
            client.send(format!(
                "GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ));
            let answer = client.response();
            assert!(answer.whole);
            assert_eq!(answer.header("Connection"), Some("keep-alive"), "{path}");
        }
        let mut client = Client::to(&gateway);
        client.send("POST /olla/proxy/x HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.response().text(), "POST /x");
        assert_eq!(backend.last().text(), "hello");
    });
}

#[test]
fn an_absolute_target_is_routed_by_its_path() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send("GET http://named.test:99/olla/proxy/x?y=1 HTTP/1.1\r\nHost: other\r\n\r\n");
        assert_eq!(client.response().text(), "GET /x?y=1");
        // Its authority counts as the request's host.
        assert_eq!(
            backend.last().header("X-Forwarded-Host"),
            Some("named.test:99")
        );
        client.send("GET http://named.test/nosuch HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response().status, 404);
    });
}

#[test]
fn an_upgrade_is_an_ordinary_request() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let fields = ["Connection: Upgrade", "Upgrade: websocket"];
        assert_eq!(get(&gateway, "/olla/proxy/x", &fields).status, 200);
        assert_eq!(backend.last().header("Upgrade"), None);
    });
}

#[test]
fn expectations_are_met_when_the_body_is_wanted() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(
            driver,
            &backend,
            "[server.request_limits]\nmax_body_size = 100",
        );
        let head = |path: &str, length: usize| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        let mut client = Client::to(&gateway);
        client.send(head("/olla/proxy/x", 5));
        assert_eq!(client.head().status, 100);
        assert_eq!(backend.count(), 0);
        client.send("hello");
        assert_eq!(client.response().text(), "POST /x");
        let seen = backend.last();
        assert_eq!(
            (seen.text().as_str(), seen.header("Expect")),
            ("hello", None)
        );
        // One that sends without waiting needs no word.
        client.send(head("/olla/proxy/y", 5) + "world");
        let first = client.head();
        let status = if first.status == 100 {
            client.response().status
        } else {
            first.status
        };
        assert_eq!(status, 200);
        // What is refused is refused at once, without a word before it.
        for (path, length, status) in [("/olla/proxy/x", 101, 413), ("/nosuch", 5, 404)] {
            let mut client = Client::to(&gateway);
            client.send(head(path, length));
            assert_eq!(client.response().status, status);
        }
        let limits = "[server.rate_limits]\nper_ip_requests_per_minute = 1\nburst_size = 0";
        let gateway = over(driver, &backend, limits);
        let mut client = Client::to(&gateway);
        client.send(head("/olla/proxy/x", 5));
        assert_eq!(client.response().status, 429);
    });
}

#[test]
fn chunked_uploads_arrive_whole_and_with_a_length() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let uploads: [(&str, &str); 5] = [
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5;a=b;c=\"d\\\"e\"\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "1\r\nh\r\n4;x\r\nello\r\n000\r\nX-Trailer: 1\r\nX-More: 2\r\n\r\n",
                "hello",
            ),
            ("0\r\n\r\n", ""),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ];
        let mut client = Client::to(&gateway);
        for (framed, payload) in uploads {
            client.send(format!(
                "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: X-Trailer\r\n\r\n{framed}"
            ));
            assert_eq!(client.response().status, 200);
            let seen = backend.last();
            assert_eq!(seen.text(), payload);
            assert_eq!(
                seen.header("Content-Length"),
                Some(payload.len().to_string().as_str())
            );
            for dropped in ["Transfer-Encoding", "Trailer", "X-Trailer"] {
                assert_eq!(seen.header(dropped), None);
            }
        }
    });
}

#[test]
fn bodies_are_not_changed_whatever_they_are() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            link.respond(200, "application/octet-stream", &request.body);
        });
        let gateway = over(driver, &backend, "");
        let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let bodies: [&[u8]; 5] = [
            &binary,
            b"{\"broken\": ",
            b"",
            b"[1,2",
            b"{ \"model\" :\t\"m\" , \"messages\":[ ] }\n\n",
        ];
        for body in bodies {
            let head =
                "POST /olla/proxy/x\r\nContent-Type: application/json\r\nContent-Encoding: gzip";
            let length = format!("\r\nContent-Length: {}", body.len());
            let head = if body.is_empty() {
                head.to_owned() + &length
            } else {
                head.to_owned()
            };
            let answer = exchange(&gateway, &head, body);
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "an answer was changed");
            let seen = backend.last();
            assert!(seen.body == body, "an upload was changed");
            assert_eq!(seen.header("Content-Encoding"), Some("gzip"));
        }
    });
}

#[test]
fn every_method_goes_on_with_its_body() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "");
        let methods = [
            "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE", "M-SEARCH",
            "TRACE",
        ];
        for method in methods {
            let answer = exchange(&gateway, &format!("{method} /olla/proxy/x"), b"body");
            assert_eq!(answer.status, 200, "{method}");
            let seen = backend.last();
            assert_eq!(
                (seen.method.as_str(), seen.text().as_str()),
                (method, "body")
            );
        }
        for (method, length) in [("GET", None), ("HEAD", None), ("POST", Some("0"))] {
            exchange(&gateway, &format!("{method} /olla/proxy/x\r\nX-A: 1"), b"");
            let seen = backend.last();
            assert_eq!(seen.header("Content-Length"), length, "{method}");
            assert_eq!(seen.header("Transfer-Encoding"), None, "{method}");
        }
    });
}

#[test]
fn a_body_at_the_limit_passes_and_one_byte_more_is_413() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(
            driver,
            &backend,
            "[server.request_limits]\nmax_body_size = 5000",
        );
        let chunked = |length: usize| {
            let mut body = Vec::new();
            for piece in vec![b'x'; length].chunks(1000) {
                body.extend(format!("{:x}\r\n", piece.len()).bytes());
                body.extend(piece);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            body
        };
        let send = |framing: &str, body: &[u8]| {
            let mut client = Client::to(&gateway);
            client.send(format!(
                "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
            ));
            let _ = client.try_send(body);
            client
        };
        assert_eq!(
            send("Content-Length: 5000", &[b'x'; 5000])
                .response()
                .status,
            200
        );
        assert_eq!(
            send("Transfer-Encoding: chunked", &chunked(5000))
                .response()
                .status,
            200
        );
        assert_eq!(backend.count(), 2);
        assert_eq!(backend.last().body.len(), 5000);
        // Declared: at once, before a byte of it.
        let mut client = send("Content-Length: 5001", b"");
        client
            .response()
            .is_error(413, "request_too_large", "BODY_TOO_LARGE");
        // Chunked: as soon as it is too much; its end is not waited for.
        let mut client = send("Transfer-Encoding: chunked", &chunked(5001)[..5041]);
        let answer = client.response();
        answer.is_error(413, "request_too_large", "BODY_TOO_LARGE");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(client.is_closed());
        // Fixed routes have the same limit.
        let mut client = Client::to(&gateway);
        client.send("GET /olla/models HTTP/1.1\r\nHost: h\r\nContent-Length: 5001\r\n\r\n");
        assert_eq!(client.response().status, 413);
        assert_eq!(backend.count(), 2);
    });
}

#[test]
fn without_a_limit_a_large_body_passes() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(
            driver,
            &backend,
            "[server.request_limits]\nmax_body_size = 0",
        );
        let body = vec![b'x'; 3 << 20];
        let answer = exchange(&gateway, "POST /olla/proxy/x", &body);
        assert_eq!(answer.status, 200);
        assert!(backend.last().body == body);
    });
}

#[test]
fn a_head_at_the_limit_passes_and_one_byte_more_is_431() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(
            driver,
            &backend,
            "[server.request_limits]\nmax_header_size = 5000",
        );
        // Counted: method + target + version + 4, and name + value + 4 of each line but Host.
        let counted = "GET".len() + "/olla/proxy/x".len() + "HTTP/1.1".len() + 4;
        let padded = |total: usize| {
            let value = "v".repeat(total - counted - "X-Pad".len() - 4);
            format!(
                "GET /olla/proxy/x HTTP/1.1\r\nHost: a-long-name.test\r\nX-Pad: {value}\r\n\r\n"
            )
        };
        let mut client = Client::to(&gateway);
        assert_eq!(client.send(padded(5000)).response().status, 200);
        assert_eq!(backend.count(), 1);
        for total in [5001, 8000, 10_000, 200_000] {
            let mut client = Client::to(&gateway);
            let _ = client.try_send(padded(total));
            let answer = client.response();
            answer.is_error(431, "headers_too_large", "HEADERS_TOO_LARGE");
        }
        assert_eq!(backend.count(), 1);
    });
}

#[test]
fn the_head_s_limit_has_a_floor_and_a_default() {
    on_both_drivers(|driver| {
        let backend = echo();
        for (limit, passes, refused) in [(1, 4000, 4200), (0, 64_000, 70_000)] {
            let more = format!("[server.request_limits]\nmax_header_size = {limit}");
            let gateway = over(driver, &backend, &more);
            for (size, status) in [(passes, 200), (refused, 431)] {
                let mut client = Client::to(&gateway);
                let value = "v".repeat(size);
                let _ = client.try_send(format!(
                    "GET /nosuch2/../olla/proxy/x HTTP/1.1\r\nHost: h\r\nX: {value}\r\n\r\n"
                ));
                let found = client.response().status;
                // What is wrong with the path is looked at before the size of the head.
                assert!(found == status || found == 400, "{found}");
                let mut client = Client::to(&gateway);
                let _ = client.try_send(format!(
                    "GET /internal/health HTTP/1.1\r\nHost: h\r\nX: {value}\r\n\r\n"
                ));
                assert_eq!(client.response().status, status, "{limit}: {size}");
            }
        }
    });
}

#[test]
fn slow_headers_end_the_connection_and_delay_nobody() {
    on_both_drivers(|driver| {
        let backend = echo();
        let more = "[server]\nread_header_timeout = \"400ms\"\nworkers = 1";
        let gateway = over(driver, &backend, more);
        let start = Instant::now();
        let mut silent = Client::to(&gateway);
        let mut slow = Client::to(&gateway);
        slow.send("GET /olla/proxy/x HTTP/1.1\r\nHo");
        let mut later = Client::to(&gateway);
        later.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(later.response().status, 200);
        // Ten times the limit between two requests would be fine; it is the head that may not take
        // long.
        later.send("GET /olla/proxy/x HTTP/1.1\r\nHo");
        assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
        for client in [&mut silent, &mut slow, &mut later] {
            // A 408 is allowed, silence too.
            if let Some(answer) = client.try_head() {
                assert_eq!(answer.status, 408);
            }
        }
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(390), "{waited:?}");
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        assert_eq!(gateway.endpoint("one")["status"], "healthy");
    });
}

#[test]
fn an_idle_connection_is_closed_silently() {
    on_both_drivers(|driver| {
        let backend = echo();
        // Whatever `read_timeout` is.
        let timeouts = "[server]\nidle_timeout = \"300ms\"\nread_timeout = \"1h\"";
        let gateway = over(driver, &backend, timeouts);
        let mut client = Client::to(&gateway);
        client.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response().status, 200);
        let start = Instant::now();
        assert!(client.is_closed());
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(250), "{waited:?}");
        assert!(waited < Duration::from_secs(5), "{waited:?}");
    });
}

/// Neither the headers nor the time between two requests: both have keys of their own.
#[test]
fn the_read_timeout_limits_the_body_only() {
    on_both_drivers(|driver| {
        let backend = echo();
        let gateway = over(driver, &backend, "[server]\nread_timeout = \"100ms\"");
        let mut client = Client::to(&gateway);
        for _ in 0..2 {
            client.send("GET /olla/proxy/x HTTP/1.1\r\nHo");
            assert!(client.is_silent_for(Duration::from_millis(400)));
            client.send("st: h\r\n\r\n");
            assert_eq!(client.response().status, 200);
            assert!(client.is_silent_for(Duration::from_millis(400)));
        }
    });
}

#[test]
fn without_a_read_timeout_neither_a_slow_body_nor_an_idle_connection_ends() {
    on_both_drivers(|driver| {
        let backend = echo();
        let open = over(driver, &backend, "[server]\nread_timeout = \"0s\"");
        let timed = over(driver, &backend, "[server]\nread_timeout = \"300ms\"");
        let begun = "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe";
        let mut idle = Client::to(&open);
        idle.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(idle.response().status, 200);
        let mut slow = Client::to(&open);
        slow.send(begun);
        // Longer than a limit that counts.
        let mut limited = Client::to(&timed);
        assert_eq!(limited.send(begun).response().status, 408);
        assert_eq!(slow.send("llo").response().text(), "POST /x");
        idle.send("GET /olla/proxy/y HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(idle.response().text(), "GET /y");
    });
}

#[test]
fn the_read_timeout_does_not_limit_the_answer() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            // The client stays longer than its request may take.
            assert!(link.left_within(Duration::from_millis(600)).is_none());
            link.ok();
        });
        let gateway = over(driver, &backend, "[server]\nread_timeout = \"200ms\"");
        assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
    });
}

#[test]
fn the_write_timeout_cuts_an_answer_that_takes_too_long() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            link.chunk("begun");
            assert!(link.left_within(PATIENCE).is_some());
        });
        let gateway = over(driver, &backend, "[server]\nwrite_timeout = \"400ms\"");
        let start = Instant::now();
        let answer = get(&gateway, "/olla/proxy/x", &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "begun"));
        assert!(!answer.whole);
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}
