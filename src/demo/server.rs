//! One simulated endpoint: a listener, a thread for each connection, and outages.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Maximum number of connections to one endpoint; further ones are closed at once.
const CONNECTIONS_MAX: usize = 64;

/// Maximum size of a request.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Idle connections are closed after this time, as by common servers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// An endpoint with outages is offline once in each period. The first outage comes soon after the
/// start.
const OUTAGE_PERIOD: Duration = Duration::from_secs(30);
const OUTAGE: Range<Duration> = Duration::from_secs(8)..Duration::from_secs(14);

/// The API of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackendKind {
    Ollama,
    LmStudio,
    Vllm,
    LlamaCpp,
}

impl BackendKind {
    /// The `type` of its endpoint.
    pub(super) const fn provider(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::LmStudio => "lm-studio",
            Self::Vllm => "vllm",
            Self::LlamaCpp => "llamacpp",
        }
    }

    /// Whether the endpoint is offline now and then.
    pub(super) const fn has_outages(self) -> bool {
        matches!(self, Self::LlamaCpp)
    }
}

/// A running endpoint.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) dialect: BackendKind,
    pub(super) models: Vec<&'static str>,
    pub(super) address: SocketAddr,
}

/// The state that the threads of an endpoint share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dialect: BackendKind,
    pub(super) models: Vec<&'static str>,
    /// Tokens per second.
    pub(super) pace: u32,
    pub(super) busy: AtomicUsize,
    respond: Respond,
    started: Instant,
    connections: AtomicUsize,
}

/// The parts of a request that an endpoint uses.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// Sends the response to one request.
pub(super) type Respond = fn(&mut TcpStream, &Shared, &Request) -> io::Result<()>;

impl Backend {
    pub(super) fn start(
        name: &'static str,
        dialect: BackendKind,
        models: &[&'static str],
        pace: u32,
        respond: Respond,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            dialect,
            models: models.to_vec(),
            pace,
            busy: AtomicUsize::new(0),
            respond,
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
    pub(super) fn is_offline(&self) -> bool {
        let millis = self.started.elapsed().as_millis() % OUTAGE_PERIOD.as_millis();
        let outage = OUTAGE.start.as_millis()..OUTAGE.end.as_millis();
        self.dialect.has_outages() && outage.contains(&millis)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let full = shared.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX;
        if full || shared.is_offline() {
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let own = Arc::clone(shared);
        let served = std::thread::Builder::new().spawn(move || {
            // A disconnect or an invalid request ends this connection only.
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
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut pending)? {
        if shared.is_offline() {
            return Ok(());
        }
        (shared.respond)(&mut stream, shared, &request)?;
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
        pending.extend_from_slice(&piece[..count]);
        if pending.len() > REQUEST_BYTES_MAX {
            return Err(io::Error::other("the request is too large"));
        }
    }
}

/// A request and its length, or `None` while it is incomplete. The gateway always sends a
/// `Content-Length`.
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
    let (Some(method), Some(target)) = (head.method, head.path) else {
        return Err(io::Error::other("the request line is incomplete"));
    };
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        body: body.to_vec(),
    };
    Ok(Some((request, end)))
}

/// Sends a complete response.
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

/// Begins a streamed response.
pub(super) fn begin_stream(stream: &mut TcpStream, content_type: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes())
}

/// Sends a piece of a streamed response; an empty one ends it.
pub(super) fn send_piece(stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
    let size = format!("{:x}\r\n", piece.len());
    stream.write_all(&[size.as_bytes(), piece, b"\r\n"].concat())
}
