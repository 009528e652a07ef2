//! Requests from other servers' test suites, through the whole program. The data and its notices
//! are the engine's (`engine/tests/vectors/README.md`).
//!
//! Targets are moved below `/olla/proxy`, so that a request which is let through reaches a backend.

use std::time::Duration;

use testkit::vectors::{self, Case};
use testkit::{Backend, Client, Config, Driver, Gateway, endpoint, on_both_drivers};

const GUNICORN: &str = include_str!("../../engine/tests/vectors/gunicorn.txt");
const LLHTTP: &str = include_str!("../../engine/tests/vectors/llhttp.txt");
const SKIPS: &str = include_str!("../../engine/tests/vectors/skips.txt");

/// A request that has no answer after so long is taken for one that is not over. Too short only
/// makes a case easier: its client leaves early.
const UNFINISHED: Duration = Duration::from_millis(100);

/// The requests of a file.
fn requests(text: &str) -> Vec<Case> {
    let mut cases = vectors::cases(text);
    cases.retain(|case| !case.is_response);
    cases
}

/// Moves the first target below the prefix, and adds the `Host` that the source does without.
fn adapted(case: &Case) -> Vec<u8> {
    let mut bytes = case.bytes.clone();
    if let Some(blank) = bytes.windows(2).position(|pair| pair == b" /")
        && !bytes[..blank].contains(&b'\n')
    {
        bytes.splice(blank + 1..blank + 1, *b"/olla/proxy");
    }
    let lower = bytes.to_ascii_lowercase();
    let has_host = lower.windows(6).any(|window| window == b"\nhost:");
    let blank = bytes
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    let line_end = bytes[blank..].windows(2).position(|pair| pair == b"\r\n");
    let line_end = line_end.map(|end| blank + end);
    if let (false, Some(end)) = (has_host || case.id.contains("host"), line_end)
        && bytes[..end].ends_with(b"HTTP/1.1")
    {
        bytes.splice(end + 2..end + 2, *b"Host: h\r\n");
    }
    bytes
}

fn run(driver: Driver, cases: &[Case]) {
    let backend = Backend::ok(&["m"]);
    let endpoints = endpoint("one", "vllm", &backend, "");
    let gateway = Gateway::start(&Config::new(driver).more(&endpoints));
    // What the engine's tests say about a case that ends otherwise than its source expects.
    let skips = vectors::skips(SKIPS);
    let mut faults = Vec::new();
    for case in cases {
        let before = backend.count();
        let mut client = Client::to(&gateway);
        // A server that has seen enough need not take the rest.
        let _ = client.try_send(adapted(case));
        let wanted = match skips.get(case.id.as_str()) {
            Some(("accept", _)) => "accept",
            Some(_) => "reject",
            None => case.expect.as_str(),
        };
        if wanted != "accept" && client.is_silent_for(UNFINISHED) {
            client.end_sending();
        }
        let status = client.try_head().map(|head| head.status);
        let reached = backend.count() - before;
        // Routes that do not exist are an answer to a request that was understood.
        let fits = match wanted {
            "accept" => matches!(status, Some(200 | 404)),
            "reject" => matches!(status, None | Some(400..=499 | 501 | 505)) && reached == 0,
            _ => status.is_none_or(|status| status < 500 || status == 501 || status == 505),
        };
        if !fits {
            faults.push(format!(
                "{}: {wanted}, but {status:?}, {reached} reached",
                case.id
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn gunicorn_s_requests_end_as_it_expects_or_the_skips_say() {
    let cases = requests(GUNICORN);
    assert_eq!(cases.len(), 137);
    on_both_drivers(|driver| run(driver, &cases));
}

#[test]
fn llhttp_s_requests_end_as_it_expects_or_the_skips_say() {
    let cases = requests(LLHTTP);
    assert!(cases.len() > 80);
    on_both_drivers(|driver| run(driver, &cases));
}
