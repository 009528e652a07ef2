//! Attacks by what is sent: too much, too often, and then gone.

use std::io::Write;
use std::time::{Duration, Instant};

use memchr::memmem;

use super::{Chance, Field, mark_of, pause, plain_body, read_until};
use crate::target::Target;

/// How much a message that does not end is sent of, in bytes. No gateway takes so much.
const ENDLESS_BYTES: usize = 16 << 20;

/// How long a connection is listened to before it counts as left open.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests sent at once on one connection.
const PIPELINE: usize = 64;

pub(super) fn endless_heads(field: &Field<'_>) {
    let Target { host, path, .. } = field.target();
    let line = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n");
    let filler = "a".repeat(1000);
    let kinds: [(String, String); 4] = [
        // Many fields, one field, an endless name, an endless target.
        (line.clone(), format!("X-Endless: {filler}\r\n")),
        (format!("{line}X-Endless: "), filler.clone()),
        (line, filler.clone()),
        (format!("GET {path}?"), filler),
    ];
    endless(field, &kinds);
}

pub(super) fn endless_chunks(field: &Field<'_>) {
    let Target { host, path, .. } = field.target();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let filler = "a".repeat(1000);
    let kinds: [(String, String); 5] = [
        // An endless extension, extensions on each of many chunks, an endless size, endless
        // trailers, empty extensions.
        (format!("{head}1;"), filler.clone()),
        (head.clone(), format!("1;{}\r\na\r\n", &filler[..900])),
        (head.clone(), "0".repeat(1000)),
        (format!("{head}0\r\n"), format!("X-Trailer: {filler}\r\n")),
        (format!("{head}1"), ";".repeat(1000)),
    ];
    endless(field, &kinds);
}

/// Sends each opening, and then its piece again and again.
fn endless(field: &Field<'_>, kinds: &[(String, String)]) {
    for number in 0..field.count(200) {
        if field.is_over() {
            return;
        }
        let (opening, piece) = &kinds[number % kinds.len()];
        let Some(mut stream) = field.connect() else {
            continue;
        };
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let pieces = piece.repeat(64);
        let mut sent = opening.len();
        let mut ended = stream.write_all(opening.as_bytes()).is_err();
        let mut received = Vec::new();
        while !ended && sent < ENDLESS_BYTES && received.is_empty() {
            ended = stream.write_all(pieces.as_bytes()).is_err();
            sent += pieces.len();
            let glance = Duration::from_micros(50);
            ended |= read_until(&mut stream, &mut received, glance, |received| {
                !received.is_empty()
            });
        }
        let ended = read_until(&mut stream, &mut received, PATIENCE, |received| {
            received.len() > 12
        }) || ended;
        field.note(|tally| {
            tally.sent += 1;
            tally.bytes += sent as u64;
            tally.end(&received, ended);
        });
    }
}

/// Up to 1,000 connections a second, each cut somewhere and reset.
pub(super) fn resets(field: &Field<'_>) {
    let mut chance = Chance::new(field.options.seed);
    let whole = field.plain_request("never");
    for number in 0..field.count(4000) {
        if field.is_over() {
            return;
        }
        if let Some(mut stream) = field.connect() {
            let cut = chance.below(whole.len() - 1);
            let _ = stream.write_all(&whole[..cut]);
            // With a linger time of zero a close sends RST (socket(7), SO_LINGER).
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            field.note(|tally| {
                tally.sent += 1;
                tally.bytes += cut as u64;
            });
        }
        if number % 10 == 9 {
            pause(Duration::from_millis(10));
        }
    }
}

/// Bursts of whole requests, up to about 2,000 requests a second; half of the clients never read
/// and reset the connection with all responses in it.
pub(super) fn pipelined(field: &Field<'_>) {
    let mut bursts = 0;
    let limit = field.count(300);
    while bursts < limit && !field.is_over() {
        let begun = Instant::now();
        let Some(mut stream) = field.connect() else {
            return;
        };
        let mut burst = Vec::new();
        for place in 0..PIPELINE {
            let nonce = format!("pipelined-{}-{bursts}-{place}", field.options.seed);
            field.mark(&[mark_of(&field.target().path, plain_body(&nonce).as_bytes())]);
            burst.extend_from_slice(&field.plain_request(&nonce));
        }
        let sent = stream.write_all(&burst).is_ok();
        let mut received = Vec::new();
        let mut ended = !sent;
        if bursts % 2 == 0 {
            let all = |received: &[u8]| response_statuses(received).count() == PIPELINE;
            ended = read_until(&mut stream, &mut received, PATIENCE, all);
        } else {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        field.note(|tally| {
            tally.sent += PIPELINE as u64;
            tally.bytes += burst.len() as u64;
            for status in response_statuses(&received) {
                *tally.statuses.entry(status).or_default() += 1;
            }
            let missing = PIPELINE - response_statuses(&received).count();
            if bursts % 2 == 0 && ended {
                tally.closed += missing as u64;
            } else if bursts % 2 == 0 {
                tally.open += missing as u64;
            }
        });
        bursts += 1;
        pause(Duration::from_millis(32).saturating_sub(begun.elapsed()));
    }
}

/// The statuses of the responses in `received`; no body of the stub's looks like a head.
fn response_statuses(received: &[u8]) -> impl Iterator<Item = u16> + '_ {
    memmem::find_iter(received, b"HTTP/1.1 ").filter_map(|at| super::first_status(&received[at..]))
}
