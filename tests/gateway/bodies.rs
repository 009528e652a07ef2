//! Bodies whose model has to be looked for: encoded ones, forms, byte order marks, and those that
//! name none.
//!
//! Contract: docs/contract/surface.md#7.1, docs/contract/surface.md#11,
//! docs/contract/balancing.md#2, docs/contract/balancing.md#2.1

use std::io::Write as _;
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use testkit::{
    Backend, Client, Config, Driver, Gateway, Response, endpoint, exchange, on_both_drivers, post,
};

use crate::pages::from_elsewhere;

const CHAT: &str = "/olla/openai/v1/chat/completions";

fn model(name: &'static str) -> Backend {
    Backend::new(&[name], move |_, link| {
        link.respond(200, "application/json", format!("{{\"from\":\"{name}\"}}"));
    })
}

fn two(driver: Driver, one: &Backend, other: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", one, "") + &endpoint("other", "vllm", other, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(body: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    zstd_safe::compress(&mut encoded, body, 3).unwrap();
    encoded
}

/// A body in brotli that is made of stored blocks: no encoder is needed for it.
fn stored(body: &[u8]) -> Vec<u8> {
    // A window of 64 KiB takes one bit; the length of the first block follows it.
    let (mut encoded, mut window) = (Vec::new(), 1);
    for block in body.chunks(1 << 16) {
        // Not the last, 4 digits of its length less one, not compressed.
        let len = block.len() as u64 - 1;
        let head: u64 = len << 3 | 1 << 19;
        encoded.extend_from_slice(&(head << window).to_le_bytes()[..3]);
        encoded.extend_from_slice(block);
        window = 0;
    }
    // The last block, which is empty.
    encoded.push(3);
    encoded
}

/// The letter x, 16 MiB of it for each block: its code has no bits, and one command inserts all.
fn brotli_bomb(blocks: usize) -> Vec<u8> {
    // The value and the number of its bits, lowest first (RFC 7932, 9.1 and 9.2).
    const BLOCK: [(u64, u32); 11] = [
        (2, 2),                   // six digits of a length
        (0xff_ffff, 24),          // 16 MiB
        (0, 1),                   // compressed
        (0, 3),                   // one type of block of each kind
        (0, 6),                   // no direct distances
        (0, 2),                   // a mode of contexts
        (0, 2),                   // one tree of each kind
        (0x781, 12),              // literals: one symbol, x
        (504 << 4 | 1, 14),       // commands: one symbol, a long insertion
        (1, 10),                  // distances: one symbol
        ((1 << 24) - 22_594, 24), // how long
    ];
    let (mut bits, mut count) = (0b1111_u128, 4);
    let mut encoded = Vec::new();
    let mut put = |value: u64, len: u32| {
        bits |= u128::from(value) << count;
        count += len;
        while count >= 8 {
            encoded.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    for _ in 0..blocks {
        // Not the last.
        put(0, 1);
        BLOCK.iter().for_each(|(value, len)| put(*value, *len));
    }
    put(0b11, 2);
    put(0, 7);
    encoded
}

fn encoded(gateway: &Gateway, coding: &str, body: &[u8]) -> Response {
    post(
        gateway,
        CHAT,
        &[&format!("Content-Encoding: {coding}")],
        body,
    )
}

#[test]
fn encoded_bodies_are_decoded_on_the_paths_that_name_a_model() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "");
        let text = "x".repeat(3 << 20);
        let body = format!(r#"{{"model":"b","prompt":"{text}"}}"#);
        for _ in 0..3 {
            let answer = post(
                &gateway,
                CHAT,
                &["Content-Encoding: gzip"],
                gzip(body.as_bytes()),
            );
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("other"));
        }
        let seen = other.seen().pop().unwrap();
        assert_eq!(seen.header("Content-Encoding"), None);
        assert_eq!(
            seen.header("Content-Length"),
            Some(&*body.len().to_string())
        );
        assert_eq!(seen.text(), body);
        // On another path it passes as it is.
        let encoded = gzip(br#"{"model":"b"}"#);
        let answer = post(
            &gateway,
            "/olla/proxy/v1/files",
            &["Content-Encoding: gzip"],
            &encoded,
        );
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn every_coding_leads_to_the_model_of_an_alias() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "[model_aliases]\nany = [\"b\"]\n");
        let text = "any ".repeat(300_000);
        let body = |model: &str| format!(r#"{{"prompt":"{text}","model":"{model}"}}"#);
        let sent = body("any");
        let sent = sent.as_bytes();
        for (coding, encoded_body) in [
            ("gzip", gzip(sent)),
            ("X-GZIP", gzip(sent)),
            ("deflate", zlib(sent)),
            ("br", stored(sent)),
            ("zstd", zstd(sent)),
            ("Identity", sent.to_vec()),
        ] {
            let answer = encoded(&gateway, coding, &encoded_body);
            assert_eq!(answer.header("X-Olla-Endpoint"), Some("other"), "{coding}");
            assert_eq!(answer.header("X-Olla-Model"), Some("any"), "{coding}");
            let seen = other.seen().pop().unwrap();
            let left = seen.header("Content-Encoding");
            assert_eq!(left.is_some(), coding == "Identity", "{coding}");
            let (whole, expected) = (seen.text(), body("b"));
            assert!(whole == expected, "{coding}: {} bytes", whole.len());
            let length = expected.len().to_string();
            assert_eq!(seen.header("Content-Length"), Some(&*length), "{coding}");
        }
        assert!(one.seen().is_empty());
        // An empty body is empty, whatever its header says.
        encoded(&gateway, "gzip", b"").is_error(400, "bad_request", "MODEL_REQUIRED");
    });
}

#[test]
fn decoding_stops_at_the_limit_and_leaves_the_core_to_others() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let limit = "max_body_size = 4000000\n";
        let gateway = two(
            driver,
            &one,
            &other,
            &format!("[server.request_limits]\n{limit}"),
        );
        let spaces = vec![b' '; 5_000_000];
        for (coding, body) in [
            ("gzip", gzip(&spaces)),
            ("deflate", zlib(&spaces)),
            ("zstd", zstd(&spaces)),
            // As sent it would be five times the limit.
            ("br", brotli_bomb(1)),
        ] {
            let message = encoded(&gateway, coding, &body).is_error(
                413,
                "request_too_large",
                "BODY_TOO_LARGE",
            );
            assert!(message.contains(coding), "{message}");
            assert!(message.contains("max_body_size"), "{message}");
        }
        assert!(one.seen().is_empty() && other.seen().is_empty());
    });
}

#[test]
fn clients_take_turns_to_have_their_bodies_decoded() {
    const CROWD: usize = 12;
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "");
        let bomb = brotli_bomb(3);
        let len = bomb.len();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: {len}\r\n\r\n"
        );
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut stream = from_elsewhere(&gateway);
                stream
                    .write_all(&[head.as_bytes(), &bomb].concat())
                    .unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect();
        let answer = encoded(&gateway, "br", &stored(br#"{"model":"b"}"#));
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("other"));
        // Each body takes several steps, and this one waited for a step or two.
        let is_over = |stream: &&TcpStream| stream.peek(&mut [0]).is_ok();
        let before = crowd.iter().filter(is_over).count();
        assert!(
            before < CROWD / 2,
            "{before} bodies of the other client came first"
        );
    });
}

#[test]
fn an_unreadable_body_goes_on_without_a_model_where_any_endpoint_may_serve_it() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "[routing]\nno_model = \"any\"\n");
        let body = r#"{"model":"b"}"#;
        let answer = encoded(&gateway, "lzma", body.as_bytes());
        assert_eq!((answer.status, answer.header("X-Olla-Model")), (200, None));
        let seen = one.seen().pop().or_else(|| other.seen().pop()).unwrap();
        assert_eq!(seen.header("Content-Encoding"), Some("lzma"));
        assert_eq!(seen.text(), body);
    });
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let limit = "[server.request_limits]\nmax_body_size = 1000000\n";
        let gateway = two(driver, &one, &other, limit);
        let send = |coding: &str, body: &[u8]| {
            post(
                &gateway,
                CHAT,
                &[&format!("Content-Encoding: {coding}")],
                body,
            )
        };
        let answer = send("lzma", b"abc");
        answer.is_error(415, "unsupported_media_type", "UNSUPPORTED_ENCODING");
        assert_eq!(
            answer.header("Accept-Encoding"),
            Some("gzip, deflate, br, zstd")
        );
        let encoded = gzip(br#"{"model":"b"}"#);
        for body in [
            &b"abc"[..],
            &encoded[..encoded.len() - 1],
            &[&encoded[..], b"x"].concat(),
        ] {
            let message = send("gzip", body).is_error(400, "bad_request", "INVALID_BODY");
            assert!(message.contains("gzip"), "{message}");
        }
        // A thousand times as large as it was sent.
        let message = send("gzip", &gzip(&vec![b' '; 50_000_000])).is_error(
            413,
            "request_too_large",
            "BODY_TOO_LARGE",
        );
        assert!(message.contains("max_body_size"), "{message}");
        assert!(one.seen().is_empty() && other.seen().is_empty());
    });
}

#[test]
fn an_unknown_coding_is_refused_before_the_body_is_read() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "");
        let mut client = Client::to(&gateway);
        client.send(format!(
            "POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip, br\r\n\
             Content-Length: 1000\r\n\r\n"
        ));
        assert_eq!(client.response().status, 415);
    });
}

#[test]
fn marks_and_forms_lead_to_their_model() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "[model_aliases]\nany = [\"b\"]\n");
        let answer = post(&gateway, CHAT, &[], "\u{feff}{\"model\":\"any\"}");
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("other"));
        assert_eq!(other.seen().pop().unwrap().text(), r#"{"model":"b"}"#);
        let form = |name: &str| {
            format!(
                "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\
                 RIFF any\r\n--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n\
                 {name}\r\n--X--\r\n"
            )
        };
        let head = "POST /olla/openai/v1/audio/transcriptions\r\n\
                    Content-Type: multipart/form-data; boundary=X";
        let answer = exchange(&gateway, head, form("any").as_bytes());
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("other"));
        assert_eq!(answer.header("X-Olla-Model"), Some("any"));
        assert_eq!(other.seen().pop().unwrap().text(), form("b"));
    });
}

#[test]
fn a_request_without_a_model_is_refused_where_there_is_a_choice() {
    on_both_drivers(|driver| {
        let (one, other) = (model("a"), model("b"));
        let gateway = two(driver, &one, &other, "");
        for (body, wrong) in [
            ("", "no body"),
            ("{not json", "not JSON"),
            (r#"{"model":7}"#, "not a string"),
            (r#"{"model":" "}"#, "empty"),
            (r#"{"messages":[]}"#, "no \"model\""),
        ] {
            let answer = post(&gateway, CHAT, &[], body);
            let message = answer.is_error(400, "bad_request", "MODEL_REQUIRED");
            assert!(message.contains(wrong), "{message}");
            assert_eq!(answer.header("X-Olla-Routing-Decision"), None);
        }
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(1025));
        post(&gateway, CHAT, &[], long).is_error(400, "bad_request", "INVALID_MODEL");
        assert!(one.seen().is_empty() && other.seen().is_empty());
        assert_eq!(
            post(&gateway, "/olla/proxy/v1/files", &[], "{}").status,
            200
        );
        let gateway = two(driver, &one, &other, "[routing]\nno_model = \"any\"\n");
        assert_eq!(post(&gateway, CHAT, &[], "{}").status, 200);
    });
}
