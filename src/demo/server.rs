//! One simulated backend: a listener, a thread for each connection, and a bad habit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::dialects;

/// Connections that one backend serves at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;

/// The largest request that is read.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A connection without a request is closed after this long, like those of common servers.
const IDLE: Duration = Duration::from_secs(5);

/// A moody backend is away for the last seconds of each period.
const MOOD_PERIOD: Duration = Duration::from_secs(30);
const MOOD_AWAY: Duration = Duration::from_secs(6);

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Ollama,
    LmStudio,
    Vllm,
    LlamaCpp,
}

impl Dialect {
    /// The `type` of its endpoint.
    pub(super) const fn provider(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
            Self::Vllm => "vllm",
            Self::LlamaCpp => "llamacpp",
        }
    }

    /// Whether it is away now and then.
    pub(super) const fn is_moody(self) -> bool {
        matches!(self, Self::LlamaCpp)
    }
}

/// A running backend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) dialect: Dialect,
    pub(super) models: Vec<&'static str>,
    pub(super) address: SocketAddr,
}

/// What its threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dialect: Dialect,
    pub(super) models: Vec<&'static str>,
    /// Tokens a second.
    pub(super) pace: u32,
    pub(super) busy: AtomicUsize,
    started: Instant,
    connections: AtomicUsize,
}

/// A request as far as a backend cares.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

impl Backend {
    pub(super) fn start(
        name: &'static str,
        dialect: Dialect,
        models: &[&'static str],
        pace: u32,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            dialect,
            models: models.to_vec(),
            pace,
            busy: AtomicUsize::new(0),
            started: Instant::now(),
            connections: AtomicUsize::new(0),
        });
        let builder = std::thread::Builder::new().name(format!("demo-{}", dialect.provider()));
        builder.spawn(move || accept(&listener, &shared))?;
        Ok(Self {
            name,
            dialect,
            models: models.to_vec(),
            address,
        })
    }
}

impl Shared {
    pub(super) fn is_away(&self) -> bool {
        let into = self.started.elapsed().as_millis() % MOOD_PERIOD.as_millis();
        self.dialect.is_moody() && into >= (MOOD_PERIOD - MOOD_AWAY).as_millis()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let crowded = shared.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX;
        if crowded || shared.is_away() {
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let own = Arc::clone(shared);
        let served = std::thread::Builder::new().spawn(move || {
            // A client that leaves, or talks nonsense, ends its connection and nothing else.
            let _ = serve(stream, &own);
            own.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut pending)? {
        if shared.is_away() {
            return Ok(());
        }
        dialects::answer(&mut stream, shared, &request)?;
    }
    Ok(())
}

/// The next request, or `None` at the end of the connection.
fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut piece = [0; 16 << 10];
    loop {
        if let Some((request, used)) = parse(pending)? {
            pending.drain(..used);
            return Ok(Some(request));
        }
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        pending.extend_from_slice(piece.get(..count).unwrap_or_default());
        if pending.len() > REQUEST_BYTES_MAX {
            return Err(io::Error::other("the request is too large"));
        }
    }
}

/// A request and its length, once it is complete. The gateway sends lengths, never chunks.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let head_len = match head.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let length = head
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let end = head_len + length.unwrap_or(0_usize);
    let Some(body) = bytes.get(head_len..end) else {
        return Ok(None);
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head
            .path
            .unwrap_or_default()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned(),
        body: body.to_vec(),
    };
    Ok(Some((request, end)))
}

/// Sends a whole answer.
pub(super) fn send(
    stream: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        if status == 200 { "OK" } else { "Error" },
        body.len(),
    );
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Begins a streamed answer.
pub(super) fn begin_stream(stream: &mut TcpStream, content_type: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes())
}

/// Sends a piece of it; none ends it.
pub(super) fn send_piece(stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
    let size = format!("{:x}\r\n", piece.len());
    stream.write_all(&[size.as_bytes(), piece, b"\r\n"].concat())
}
