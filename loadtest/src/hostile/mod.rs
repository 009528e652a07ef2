//! Clients that mean no good: one attack at a time, bounded in connections, bytes and time.
//!
//! Every request that a gateway may pass on carries a nonce, and is written to the file of marks
//! with its target and a hash of its body; a backend's record (`stub --record`) then shows whether
//! anything else came through. What becomes of the connections is counted and reported; the verdict
//! is with the script that also watches the gateway.

mod attacks;
mod cases;
mod draft;
mod drip;
mod mutations;
mod tables;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::report::counts_to_json;
use crate::scan::string_of;
use crate::target::Target;
use crate::wire::{RequestReader, body_hash};

pub use cases::{Case, case};

/// What `hostile` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HOSTILE_HELP)]
pub struct HostileOptions {
    /// The chat route of the gateway
    #[arg(long, value_name = "URL")]
    pub url: Target,
    /// What to do
    #[arg(long, value_name = "NAME")]
    pub attack: Attack,
    /// How long it goes on, at most; one that is done ends earlier
    #[arg(long, default_value_t = 8.0, value_name = "S")]
    pub seconds: f64,
    /// Connections or cases; without it as many as is usual for the attack
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Where chance begins; the same seed makes the same bytes
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Append what may reach a backend: nonce, target, length and hash of the body
    #[arg(long, value_name = "FILE")]
    pub marks: Option<PathBuf>,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const HOSTILE_HELP: &str = "\
Only against a gateway of your own. Exit status 0 whenever the attack could be carried out.
`sent` counts connections, or requests where one connection carries many; `refused` those with a
4xx or 5xx response, `answered` those with another response, `closed` those ended by the other side
without a response, `open` those still open at the end.";

/// What can be done to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Heads that come a byte at a time
    SlowHeads,
    /// Bodies that come a byte at a time
    SlowBodies,
    /// Heads of which 60 KB are sent, and not the end
    HalfHeads,
    /// Bodies of 1 MB of which only half is sent
    HalfBodies,
    /// Heads that do not end
    EndlessHeads,
    /// Chunk extensions, trailers and sizes that do not end
    EndlessChunks,
    /// Connections without a request
    Idle,
    /// Requests, and pieces of them, after which the client ends its side
    HalfClosed,
    /// Pieces of heads and bodies followed by a reset
    Resets,
    /// Many requests at once on one connection, from clients half of which never read
    Pipelined,
    /// Requests with every kind of doubtful framing
    Mutations,
}

/// One request that may reach a backend, as a line of the file of marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    nonce: String,
    target: String,
    bytes: usize,
    hash: u64,
}

/// Everything an attack has at hand.
struct Field<'a> {
    options: &'a HostileOptions,
    end: Instant,
    marks: Mutex<Option<BufWriter<File>>>,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    closed: u64,
    open: u64,
    unconnected: u64,
    statuses: BTreeMap<u16, u64>,
    bytes: u64,
}

/// Carries out the attack and returns the report.
///
/// # Errors
/// When the marks cannot be written, and for an `https` URL: the attacks are on plain HTTP.
pub fn run(options: &HostileOptions) -> io::Result<Value> {
    if options.url.server_name.is_some() {
        let reason = "hostile: expected an http:// URL, got https://";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    let open = |path| File::options().append(true).create(true).open(path);
    let marks = options.marks.as_deref().map(open).transpose()?;
    let start = Instant::now();
    let field = Field {
        options,
        end: start + Duration::from_secs_f64(options.seconds.max(0.0)),
        marks: Mutex::new(marks.map(BufWriter::new)),
        tally: Mutex::default(),
    };
    match options.attack {
        Attack::SlowHeads => drip::slow_heads(&field),
        Attack::SlowBodies => drip::slow_bodies(&field),
        Attack::HalfHeads => drip::half_heads(&field),
        Attack::HalfBodies => drip::half_bodies(&field),
        Attack::Idle => drip::idle(&field),
        Attack::HalfClosed => drip::half_closed(&field),
        Attack::EndlessHeads => attacks::endless_heads(&field),
        Attack::EndlessChunks => attacks::endless_chunks(&field),
        Attack::Resets => attacks::resets(&field),
        Attack::Pipelined => attacks::pipelined(&field),
        Attack::Mutations => mutations::run(&field),
    }
    if let Some(marks) = lock(&field.marks).as_mut() {
        marks.flush()?;
    }
    let tally = lock(&field.tally);
    let count = |from: u16, to: u16| -> u64 { tally.statuses.range(from..to).map(|s| s.1).sum() };
    Ok(json!({
        "tool": "hostile",
        "seconds": start.elapsed().as_millis() as f64 / 1000.0,
        "sent": tally.sent,
        "answered": count(100, 400),
        "refused": count(400, 1000),
        "closed": tally.closed,
        "open": tally.open,
        "unconnected": tally.unconnected,
        "bytes": tally.bytes,
        "statuses": counts_to_json(tally.statuses.iter().map(|(status, n)| (*status, *n))),
    }))
}

impl Field<'_> {
    fn count(&self, usual: usize) -> usize {
        self.options.count.unwrap_or(usual)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    fn target(&self) -> &Target {
        &self.options.url
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.target().addr, Duration::from_secs(3));
        let Ok(stream) = stream else {
            self.note(|tally| tally.unconnected += 1);
            return None;
        };
        let _ = stream.set_nodelay(true);
        Some(stream)
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut lock(&self.tally));
    }

    /// Says that these may reach a backend. Before they are sent.
    fn mark(&self, marks: &[Mark]) {
        if let Some(file) = lock(&self.marks).as_mut() {
            for mark in marks {
                let Mark {
                    nonce,
                    target,
                    bytes,
                    hash,
                } = mark;
                // A missing mark shows as a request that was never sent.
                let _ = writeln!(file, "{nonce} {target} {bytes} {hash:016x}");
            }
        }
    }

    /// A request that no gateway has a reason to refuse.
    fn plain_request(&self, nonce: &str) -> Vec<u8> {
        let Target { host, path, .. } = self.target();
        let body = plain_body(nonce);
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

impl Tally {
    /// What became of a connection that carried one request: what was received on it, and whether the
    /// other side has ended it.
    fn end(&mut self, received: &[u8], ended: bool) {
        match first_status(received) {
            Some(status) => *self.statuses.entry(status).or_default() += 1,
            None if ended => self.closed += 1,
            None => self.open += 1,
        }
    }
}

/// A mutex that is no worse after a panic of another thread: it guards counters.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the slowness is the attack; no core and no test waits on it"
)]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn plain_body(nonce: &str) -> String {
    format!(
        r#"{{"model":"stub-model","nonce":"{nonce}","messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

/// The status of the response at the start of `received`.
fn first_status(received: &[u8]) -> Option<u16> {
    let digits = received.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads until the other side ends the connection, `enough` is true, or the time is up; whether it
/// ended.
fn read_until(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    patience: Duration,
    enough: impl Fn(&[u8]) -> bool,
) -> bool {
    let until = Instant::now() + patience;
    let mut piece = [0; 4096];
    while !enough(received) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return false,
                _ => return true,
            },
        }
    }
    false
}

/// The requests that a strict reader finds at the start of `bytes`, up to the first that is none.
fn well_formed(bytes: &[u8]) -> Vec<Mark> {
    let mut reader = RequestReader::default();
    let mut marks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = reader.space();
        let (now, later) = rest.split_at(rest.len().min(space.len()));
        space[..now.len()].copy_from_slice(now);
        reader.advance(now.len());
        rest = later;
        loop {
            match reader.poll() {
                Ok(Some(request)) => marks.push(mark_of(request.path, request.body)),
                Ok(None) => break,
                Err(_) => return marks,
            }
            reader.consume();
        }
    }
    marks
}

fn mark_of(target: &str, body: &[u8]) -> Mark {
    let in_body = string_of(body, "\"nonce\"").and_then(|nonce| std::str::from_utf8(nonce).ok());
    let in_query = target.split_once("nonce=").map(|(_, nonce)| nonce);
    Mark {
        nonce: in_body.or(in_query).unwrap_or("-").to_owned(),
        target: target.to_owned(),
        bytes: body.len(),
        hash: body_hash(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_well_formed_up_to_what_is_not() {
        let one = "POST /a HTTP/1.1\r\nContent-Length: 13\r\n\r\n{\"nonce\":\"x\"}";
        let other = "GET /b?nonce=y HTTP/1.1\r\n\r\n";
        let nonces = |text: &str| -> Vec<String> {
            let marks = well_formed(text.as_bytes());
            marks.into_iter().map(|mark| mark.nonce).collect()
        };
        assert_eq!(nonces(&format!("{one}{other}")), ["x", "y"]);
        assert_eq!(nonces(&format!("{one} nonsense\r\n\r\n{other}")), ["x"]);
        assert_eq!(nonces(&one[..one.len() - 1]), [""; 0]);
    }

    #[test]
    fn the_first_status_is_found() {
        assert_eq!(first_status(b"HTTP/1.1 408 Request Timeout\r\n"), Some(408));
        assert_eq!(first_status(b"HTTP/1.1 4"), None);
        assert_eq!(first_status(b""), None);
    }
}
