//! What is no request: refused, the connection closed, no backend touched.
//!
//! Contract: docs/contract/surface.md#1.1

use testkit::{Backend, Client, Config, Gateway, endpoint, on_both_drivers};

/// Name, bytes, and the statuses that may answer them.
const MALFORMED: [(&str, &str, &[u16]); 35] = [
    ("no host", "GET /olla/proxy/x HTTP/1.1\r\n\r\n", &[400]),
    (
        "two hosts",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    ),
    (
        "the same host twice",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        &[400],
    ),
    (
        "no host's name",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: a b\r\n\r\n",
        &[400],
    ),
    (
        "two hosts on HTTP/1.0",
        "GET /olla/proxy/x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    ),
    ("no version", "GET /olla/proxy/x\r\nHost: h\r\n\r\n", &[400]),
    (
        "no method",
        "/olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "a fourth word",
        "GET /olla/proxy/x y HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "two blanks",
        "GET  /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    ("no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
    (
        "a relative target",
        "GET olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "a method that is no token",
        "G(T /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "half an escape",
        "GET /olla/proxy/%4 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "no escape",
        "GET /olla/proxy/%zz HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
    ),
    (
        "negative length",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        &[400],
    ),
    (
        "signed length",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
        &[400],
    ),
    (
        "length in words",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: one\r\n\r\na",
        &[400],
    ),
    (
        "empty length",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n",
        &[400],
    ),
    (
        "two lengths",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        &[400],
    ),
    (
        "two lengths in a list",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 2\r\n\r\nab",
        &[400],
    ),
    (
        "a huge length",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        &[400, 413],
    ),
    (
        "blank before the colon",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX-A : 1\r\n\r\n",
        &[400],
    ),
    (
        "blank in a name",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX A: 1\r\n\r\n",
        &[400],
    ),
    (
        "no name",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n: 1\r\n\r\n",
        &[400],
    ),
    (
        "no colon",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX-A\r\n\r\n",
        &[400],
    ),
    (
        "NUL in a value",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX-A: a\0b\r\n\r\n",
        &[400],
    ),
    (
        "bare CR in a value",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n",
        &[400],
    ),
    (
        "a version to come",
        "GET /olla/proxy/x HTTP/2.0\r\nHost: h\r\n\r\n",
        &[505, 400],
    ),
    (
        "no version at all",
        "GET /olla/proxy/x HTTQ/1.1\r\nHost: h\r\n\r\n",
        &[505, 400],
    ),
    ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]),
    (
        "another coding",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        &[501, 400],
    ),
    (
        "chunked, but not last",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[501, 400],
    ),
    (
        "length and chunks",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "another expectation",
        "POST /olla/proxy/x HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na",
        &[417],
    ),
    (
        "a tunnel",
        "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
        &[405],
    ),
];

/// Tolerated by some; here they are refused, which the contract calls as good.
const REFUSED_AS_WELL: [(&str, &str, &[u16]); 2] = [
    (
        "bare line feeds",
        "GET /olla/proxy/x HTTP/1.1\nHost: h\n\n",
        &[400],
    ),
    (
        "a folded line",
        "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n 2\r\n\r\n",
        &[400],
    ),
];

#[test]
fn what_is_no_request_is_refused_and_touches_no_backend() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        for (name, bytes, statuses) in MALFORMED.into_iter().chain(REFUSED_AS_WELL) {
            let mut client = Client::to(&gateway);
            client.send(bytes);
            let answer = client.response();
            assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
            let (kind, code) = match answer.status {
                405 => ("method_not_allowed", "METHOD_NOT_ALLOWED"),
                413 => ("request_too_large", "BODY_TOO_LARGE"),
                501 => ("not_implemented", "NOT_SUPPORTED"),
                _ => ("bad_request", "BAD_REQUEST"),
            };
            answer.is_error(answer.status, kind, code);
            // RFC 9110 15.5.6.
            assert_eq!(answer.header("Allow").is_some(), answer.status == 405);
            assert_eq!(answer.header("Connection"), Some("close"), "{name}");
            assert!(client.is_closed(), "{name}");
            assert_eq!(backend.count(), 0, "{name}");
        }
    });
}

#[test]
fn a_fault_behind_a_good_request_ends_the_connection_after_its_answer() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
        let mut client = Client::to(&gateway);
        client.send(
            "GET /olla/proxy/a HTTP/1.1\r\nHost: h\r\n\r\n\
             GET /olla/proxy/b HTTP/1.1\r\nHost : h\r\n\r\n\
             GET /olla/proxy/c HTTP/1.1\r\nHost: h\r\n\r\n",
        );
        assert_eq!(client.response().status, 200);
        client
            .response()
            .is_error(400, "bad_request", "BAD_REQUEST");
        assert!(client.is_closed());
        let targets: Vec<String> = backend.seen().into_iter().map(|seen| seen.target).collect();
        assert_eq!(targets, ["/a"]);
    });
}
