//! The two tables of the module, row by row.

use super::*;
use crate::h1::{NoNames, Scan};
use crate::limits::CONNECTION_OPTIONS_MAX;

fn decide(version: &str, fields: &str) -> Result<RequestFraming, Reject> {
    let buf = format!("POST / HTTP/{version}\r\n{fields}\r\n");
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse::<NoNames>(buf.as_bytes(), &mut Scan::default(), 1 << 20),
        Ok(true),
        "{fields:?}"
    );
    request(&head, buf.as_bytes())
}

/// The body of a request of HTTP/1.1 with `Host` and these fields.
fn body(fields: &str) -> Result<RequestBody, Reject> {
    decide("1.1", &format!("Host: h\r\n{fields}")).map(|framing| framing.body)
}

/// Fields of a request of HTTP/1.1 with `Host`, and what is decided about its body.
const REQUESTS: &[(&str, Result<RequestBody, Reject>)] = &[
    // Row 1
    (
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        Err(Reject::ContentLengthAndTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        Err(Reject::ContentLengthAndTransferEncoding),
    ),
    (
        "Transfer-Encoding: gzip\r\nContent-Length: x\r\n",
        Err(Reject::ContentLengthAndTransferEncoding),
    ),
    // Row 3
    ("Transfer-Encoding: chunked\r\n", Ok(RequestBody::Chunked)),
    (
        "transfer-encoding:\t CHUNKED \r\n",
        Ok(RequestBody::Chunked),
    ),
    // Row 4
    (
        "Transfer-Encoding: gzip\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: identity\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: gzip, chunked\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked, gzip\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked;q=1\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked chunked\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: \"chunked\"\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: xchunked\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    (
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        Err(Reject::UnsupportedTransferEncoding),
    ),
    // Row 5
    ("Transfer-Encoding:\r\n", Err(Reject::BadTransferEncoding)),
    ("Transfer-Encoding: ,\r\n", Err(Reject::BadTransferEncoding)),
    (
        "Transfer-Encoding: chunked,\r\n",
        Err(Reject::BadTransferEncoding),
    ),
    (
        "Transfer-Encoding: , chunked\r\n",
        Err(Reject::BadTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked, chunked\r\n",
        Err(Reject::BadTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Err(Reject::BadTransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        Err(Reject::BadTransferEncoding),
    ),
    // Row 6
    ("Content-Length: 0\r\n", Ok(RequestBody::None)),
    ("Content-Length: 000\r\n", Ok(RequestBody::None)),
    ("Content-Length: 3\r\n", Ok(RequestBody::Length(3))),
    ("CONTENT-LENGTH:003\r\n", Ok(RequestBody::Length(3))),
    (
        "Content-Length: 18446744073709551615\r\n",
        Ok(RequestBody::Length(u64::MAX)),
    ),
    // Row 7
    (
        "Content-Length: 18446744073709551616\r\n",
        Err(Reject::BadContentLength),
    ),
    ("Content-Length:\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: +3\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: -1\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: 3 1\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: 0x3\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: 3_1\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: 3, 3\r\n", Err(Reject::BadContentLength)),
    ("Content-Length: 3,\r\n", Err(Reject::BadContentLength)),
    (
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        Err(Reject::BadContentLength),
    ),
    (
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        Err(Reject::BadContentLength),
    ),
    (
        "Content-Length: \u{0663}\r\n",
        Err(Reject::BadContentLength),
    ),
    // Row 8
    ("", Ok(RequestBody::None)),
    (
        "Content_Length: 3\r\nTransfer_Encoding: chunked\r\n",
        Ok(RequestBody::None),
    ),
    // Row 10
    ("Expect: 100-continue\r\n", Ok(RequestBody::None)),
    ("Expect: 200-ok\r\n", Err(Reject::UnknownExpectation)),
    (
        "Expect: 100-continue, x\r\n",
        Err(Reject::UnknownExpectation),
    ),
    (
        "Expect: 100-continue\r\nExpect: x\r\n",
        Err(Reject::UnknownExpectation),
    ),
    // Row 11
    (
        "Content-Type: a/b\r\nContent-Type: c/d\r\n",
        Err(Reject::ManyContentTypes),
    ),
];

#[test]
fn bodies_of_requests() {
    for (fields, expected) in REQUESTS {
        assert_eq!(body(fields), *expected, "{fields:?}");
    }
}

#[test]
fn framing_on_http_1_0() {
    let table: &[(&str, Result<RequestBody, Reject>)] = &[
        // Row 2
        (
            "Transfer-Encoding: chunked\r\n",
            Err(Reject::TransferEncodingOnHttp10),
        ),
        (
            "Transfer-Encoding: x\r\n",
            Err(Reject::TransferEncodingOnHttp10),
        ),
        ("Content-Length: 5\r\n", Ok(RequestBody::Length(5))),
        ("", Ok(RequestBody::None)),
    ];
    for (fields, expected) in table {
        assert_eq!(
            decide("1.0", fields).map(|framing| framing.body),
            *expected,
            "{fields:?}"
        );
    }
}

#[test]
fn hosts() {
    // Row 9
    let table: &[(&str, &str, Option<Reject>)] = &[
        ("1.1", "Host: h\r\n", None),
        ("1.1", "Host:\r\n", None),
        ("1.1", "host: [::1]:80\r\n", None),
        ("1.1", "", Some(Reject::NoHost)),
        ("1.0", "", None),
        ("1.1", "Host: h\r\nHost: h\r\n", Some(Reject::ManyHosts)),
        ("1.0", "Host: h\r\nHost: i\r\n", Some(Reject::ManyHosts)),
        ("1.1", "Host: a b\r\n", Some(Reject::BadHost)),
        ("1.0", "Host: a b\r\n", Some(Reject::BadHost)),
        ("1.1", "Host: a/b\r\n", Some(Reject::BadHost)),
        ("1.1", "Host: a, b@c\r\n", Some(Reject::BadHost)),
    ];
    for (version, fields, reject) in table {
        assert_eq!(
            decide(version, fields).err(),
            *reject,
            "{version} {fields:?}"
        );
    }
}

#[test]
fn a_target_in_absolute_form_still_needs_host() {
    let buf = b"GET http://a/b HTTP/1.1\r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(
        head.parse::<NoNames>(buf, &mut Scan::default(), 1 << 20),
        Ok(true)
    );
    assert_eq!(request(&head, buf), Err(Reject::NoHost));
}

#[test]
fn keeping_a_clients_connection() {
    let table = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: a, close ,b\r\n", false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: upgrade\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ];
    for (version, fields, kept) in table {
        let framing = decide(version, &format!("Host: h\r\n{fields}")).unwrap();
        assert_eq!(framing.keep_alive, kept, "{version} {fields:?}");
    }
    let many = format!(
        "Host: h\r\nConnection: {}\r\n",
        "a,".repeat(CONNECTION_OPTIONS_MAX + 1)
    );
    assert_eq!(decide("1.1", &many), Err(Reject::TooManyConnectionOptions));
}

#[test]
fn waiting_for_100_continue() {
    let table = [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 3\r\n", true),
        (
            "1.1",
            "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n",
            true,
        ),
        ("1.1", "Expect: 100-continue\r\n", false),
        (
            "1.1",
            "Expect: 100-continue\r\nContent-Length: 0\r\n",
            false,
        ),
        (
            "1.0",
            "Expect: 100-continue\r\nContent-Length: 3\r\n",
            false,
        ),
        ("1.1", "Expect:\r\nContent-Length: 3\r\n", false),
        ("1.1", "Content-Length: 3\r\n", false),
    ];
    for (version, fields, waits) in table {
        let framing = decide(version, &format!("Host: h\r\n{fields}")).unwrap();
        assert_eq!(framing.expect_continue, waits, "{version} {fields:?}");
    }
}

fn decide_response(start: &str, fields: &str, to_head: bool) -> Result<ResponseFraming, Malformed> {
    let buf = format!("HTTP/{start} X\r\n{fields}\r\n");
    let mut head = ResponseHead::new();
    assert_eq!(
        head.parse::<NoNames>(buf.as_bytes(), &mut Scan::default(), 1 << 15),
        Ok(true),
        "{fields:?}"
    );
    response(&head, buf.as_bytes(), to_head)
}

/// Version and status, fields, whether the request was HEAD; body, and whether the connection is kept.
type ResponseRow = (
    &'static str,
    &'static str,
    bool,
    Result<(ResponseBody, bool), Malformed>,
);

const RESPONSES: &[ResponseRow] = &[
    // Row 1
    (
        "1.1 200",
        "Content-Length: 5\r\n",
        true,
        Ok((ResponseBody::None, true)),
    ),
    (
        "1.1 200",
        "Transfer-Encoding: chunked\r\n",
        true,
        Ok((ResponseBody::None, true)),
    ),
    ("1.1 200", "", true, Ok((ResponseBody::None, true))),
    (
        "1.1 204",
        "Content-Length: 5\r\n",
        false,
        Ok((ResponseBody::None, true)),
    ),
    (
        "1.1 304",
        "Content-Length: 5\r\n",
        false,
        Ok((ResponseBody::None, true)),
    ),
    (
        "1.1 304",
        "Transfer-Encoding: chunked\r\n",
        false,
        Ok((ResponseBody::None, true)),
    ),
    ("1.1 100", "", false, Ok((ResponseBody::None, true))),
    (
        "1.1 103",
        "Content-Length: 5\r\n",
        false,
        Ok((ResponseBody::None, true)),
    ),
    (
        "1.1 101",
        "Connection: upgrade\r\n",
        false,
        Ok((ResponseBody::None, false)),
    ),
    ("1.0 204", "", false, Ok((ResponseBody::None, false))),
    (
        "1.1 204",
        "Content-Length: x\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    // Row 2
    (
        "1.0 200",
        "Transfer-Encoding: chunked\r\n",
        false,
        Err(Malformed::BadTransferEncoding),
    ),
    // Row 3
    (
        "1.1 200",
        "Transfer-Encoding: Chunked\r\n",
        false,
        Ok((ResponseBody::Chunked, true)),
    ),
    (
        "1.1 200",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        false,
        Ok((ResponseBody::Chunked, false)),
    ),
    // Row 4
    (
        "1.1 200",
        "Transfer-Encoding: gzip, chunked\r\n",
        false,
        Err(Malformed::BadTransferEncoding),
    ),
    (
        "1.1 200",
        "Transfer-Encoding: gzip\r\n",
        false,
        Err(Malformed::BadTransferEncoding),
    ),
    (
        "1.1 200",
        "Transfer-Encoding:\r\n",
        false,
        Err(Malformed::BadTransferEncoding),
    ),
    (
        "1.1 200",
        "Transfer-Encoding: chunked, chunked\r\n",
        false,
        Err(Malformed::BadTransferEncoding),
    ),
    // Row 5
    (
        "1.1 200",
        "Content-Length: 5\r\n",
        false,
        Ok((ResponseBody::Length(5), true)),
    ),
    (
        "1.1 200",
        "Content-Length: 0\r\n",
        false,
        Ok((ResponseBody::Length(0), true)),
    ),
    (
        "1.1 500",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        false,
        Ok((ResponseBody::Length(5), true)),
    ),
    (
        "1.1 200",
        "Content-Length: 5, 5\r\n",
        false,
        Ok((ResponseBody::Length(5), true)),
    ),
    (
        "1.0 200",
        "Content-Length: 5\r\n",
        false,
        Ok((ResponseBody::Length(5), false)),
    ),
    // Row 6
    (
        "1.1 200",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    (
        "1.1 200",
        "Content-Length: 5, 6\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    (
        "1.1 200",
        "Content-Length: 5,\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    (
        "1.1 200",
        "Content-Length:\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    (
        "1.1 200",
        "Content-Length: -5\r\n",
        false,
        Err(Malformed::BadContentLength),
    ),
    // Row 7
    ("1.1 200", "", false, Ok((ResponseBody::ToClose, false))),
    (
        "1.0 200",
        "Connection: keep-alive\r\n",
        false,
        Ok((ResponseBody::ToClose, false)),
    ),
    (
        "1.1 404",
        "Connection: close\r\n",
        false,
        Ok((ResponseBody::ToClose, false)),
    ),
];

#[test]
fn bodies_of_answers() {
    for (start, fields, to_head, expected) in RESPONSES {
        let framing = decide_response(start, fields, *to_head);
        let found = framing.map(|framing| (framing.body, framing.keep_alive));
        assert_eq!(found, *expected, "{start} {fields:?}");
    }
}

#[test]
fn keeping_a_backends_connection() {
    let table = [
        ("1.1 200", "", true, None),
        ("1.1 200", "Connection: close\r\n", false, None),
        ("1.0 200", "Connection: keep-alive\r\n", true, None),
        ("1.0 200", "", false, None),
        (
            "1.1 200",
            "Keep-Alive: timeout=5, max=100\r\n",
            true,
            Some(5),
        ),
        (
            "1.1 200",
            "Keep-Alive: max=0, timeout=5\r\n",
            false,
            Some(5),
        ),
        (
            "1.1 200",
            "Keep-Alive: Timeout = 5\r\nKeep-Alive: timeout=3\r\n",
            true,
            Some(3),
        ),
        ("1.1 200", "Keep-Alive: timeout=0\r\n", true, Some(0)),
        (
            "1.1 200",
            "Keep-Alive: timeout=x, foo, =, timeout\r\n",
            true,
            None,
        ),
        (
            "1.1 200",
            "Keep-Alive: timeout=99999999999\r\n",
            true,
            Some(KEEP_ALIVE_SECS_MAX),
        ),
    ];
    for (start, fields, kept, secs) in table {
        let framing =
            decide_response(start, &format!("Content-Length: 1\r\n{fields}"), false).unwrap();
        assert_eq!(
            (framing.keep_alive, framing.keep_alive_secs),
            (kept, secs),
            "{fields:?}"
        );
    }
    let many = format!(
        "Connection: {}\r\n",
        "a,".repeat(CONNECTION_OPTIONS_MAX + 1)
    );
    assert_eq!(
        decide_response("1.1 200", &many, false),
        Err(Malformed::TooManyConnectionOptions)
    );
}
