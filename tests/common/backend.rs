//! A backend: threads on a free port that do what a script says, and keep what reached them.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{PATIENCE, wait_for};
use crate::ports;

/// A request as it reached a backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    /// As written, in their order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, counted from 1.
    pub(crate) connection: u64,
}

impl Received {
    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        let values = self.headers.iter().filter(named);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a header; panics if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands {} times", all.len());
        all.first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A backend's end of a connection.
pub(crate) struct Link {
    stream: TcpStream,
    over: bool,
}

impl Link {
    /// Sends these bytes as they are. What happens to them is not the script's business.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Answers with a body of this type.
    pub(crate) fn answer(&mut self, status: u16, kind: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send([head.as_bytes(), body].concat());
    }

    /// Answers 200 with a little JSON.
    pub(crate) fn ok(&mut self) {
        self.answer(200, "application/json", "{\"ok\":true}");
    }

    /// Sends one chunk.
    pub(crate) fn chunk(&mut self, payload: impl AsRef<[u8]>) -> bool {
        let payload = payload.as_ref();
        let size = format!("{:x}\r\n", payload.len());
        self.send([size.as_bytes(), payload, b"\r\n"].concat())
    }

    /// Ends the connection with FIN after this.
    pub(crate) fn close(&mut self) {
        self.over = true;
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(&mut self) {
        // With a linger time of zero a close sends RST (socket(7)).
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        self.over = true;
    }

    /// Waits until the other side has ended the connection: how long that took, if it came.
    pub(crate) fn left_within(&mut self, within: Duration) -> Option<Duration> {
        let start = Instant::now();
        let _ = self.stream.set_read_timeout(Some(within));
        let ended = match self.stream.read(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => panic!("more was sent behind a request that has no answer yet"),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        let _ = self.stream.set_read_timeout(None);
        self.over |= ended;
        ended.then(|| start.elapsed())
    }
}

type Script = dyn Fn(&Received, &mut Link) + Send + Sync;

/// See the module. Answers health checks and model listings by itself; these are not recorded.
pub(crate) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    models: Mutex<Vec<String>>,
    script: Box<Script>,
    health: AtomicU16,
    listings: AtomicUsize,
    seen: Mutex<Vec<Received>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    stopping: AtomicBool,
}

impl Backend {
    /// Serves these models by this script.
    pub(crate) fn new(
        models: &[&str],
        script: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
    ) -> Self {
        let backend = Self {
            address: ports::reserve(),
            shared: Arc::new(Shared {
                models: Mutex::new(models.iter().map(|&model| model.to_owned()).collect()),
                script: Box::new(script),
                health: AtomicU16::new(200),
                listings: AtomicUsize::new(0),
                seen: Mutex::default(),
                open: Mutex::default(),
                accepted: AtomicU64::new(0),
                stopping: AtomicBool::new(false),
            }),
            accepting: Mutex::default(),
        };
        backend.listen();
        backend
    }

    /// Serves these models and says yes to everything.
    pub(crate) fn ok(models: &[&str]) -> Self {
        Self::new(models, |_, link| link.ok())
    }

    fn listen(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        let shared = Arc::clone(&self.shared);
        let accept = move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        };
        *locked(&self.accepting) = Some(thread::spawn(accept));
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its `host:port`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Answers health checks with this status from now on.
    pub(crate) fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// Lists these models from now on.
    pub(crate) fn set_models(&self, models: &[&str]) {
        *locked(&self.shared.models) = models.iter().map(|&model| model.to_owned()).collect();
    }

    /// Model listings so far.
    pub(crate) fn listings(&self) -> usize {
        self.shared.listings.load(Ordering::SeqCst)
    }

    /// What reached it.
    pub(crate) fn seen(&self) -> Vec<Received> {
        locked(&self.shared.seen).clone()
    }

    /// How much reached it.
    pub(crate) fn count(&self) -> usize {
        locked(&self.shared.seen).len()
    }

    /// The last that reached it.
    pub(crate) fn last(&self) -> Received {
        locked(&self.shared.seen).last().unwrap().clone()
    }

    /// Waits until so many requests have reached it.
    pub(crate) fn wait_count(&self, count: usize) {
        let what = format!("{count} requests at the backend");
        wait_for(&what, PATIENCE, || (self.count() >= count).then_some(()));
    }

    /// Ends every connection that is open, and goes on listening.
    pub(crate) fn drop_connections(&self) {
        for (_, stream) in locked(&self.shared.open).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens no more and ends every connection.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = locked(&self.accepting).take() {
            accepting.join().unwrap();
        }
        self.drop_connections();
    }

    /// Listens again, on the same port.
    pub(crate) fn restart(&self) {
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.listen();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let connection = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = stream.set_nodelay(true);
        let (Ok(copy), Ok(own)) = (stream.try_clone(), stream.try_clone()) else {
            return;
        };
        locked(&self.open).insert(connection, copy);
        if self.stopping.load(Ordering::SeqCst) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let mut link = Link {
            stream,
            over: false,
        };
        let mut reader = BufReader::new(own);
        while !link.over {
            let Ok(request) = read_request(&mut reader, connection) else {
                break;
            };
            if request.header("Connection") == Some("close") {
                link.over = true;
            }
            self.respond(&request, &mut link);
        }
        // Before the last handle of the socket goes, or a reset would come too late.
        locked(&self.open).remove(&connection);
    }

    fn respond(&self, request: &Received, link: &mut Link) {
        let agent = request
            .all("User-Agent")
            .first()
            .copied()
            .unwrap_or_default()
            .to_owned();
        if agent.starts_with("olla-HealthChecker") {
            let status = self.health.load(Ordering::SeqCst);
            return link.answer(status, "text/plain", "health");
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let is_listing = ["/v1/models", "/api/v0/models", "/api/tags"]
            .iter()
            .any(|listing| path.ends_with(listing));
        if request.method == "GET" && is_listing {
            self.listings.fetch_add(1, Ordering::SeqCst);
            return link.answer(200, "application/json", self.listing(path));
        }
        locked(&self.seen).push(request.clone());
        (self.script)(request, link);
    }

    fn listing(&self, path: &str) -> String {
        let models = locked(&self.models);
        let items = models.iter();
        if path.ends_with("/api/tags") {
            let items = items.map(|model| serde_json::json!({"name": model, "model": model}));
            return serde_json::json!({"models": items.collect::<Vec<_>>()}).to_string();
        }
        let items = items.map(|model| serde_json::json!({"id": model, "object": "model"}));
        serde_json::json!({"object": "list", "data": items.collect::<Vec<_>>()}).to_string()
    }
}

/// A panic elsewhere is told elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read_request(reader: &mut impl BufRead, connection: u64) -> io::Result<Received> {
    let line = read_line(reader)?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let mut request = Received {
        method: word(),
        target: word(),
        version: word(),
        connection,
        ..Received::default()
    };
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        request
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    if request.header("Transfer-Encoding").is_some() {
        read_chunks(reader, &mut request.body)?;
    } else if let Some(length) = request.header("Content-Length") {
        request.body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut request.body)?;
    }
    Ok(request)
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') || line.pop() != Some(b'\r') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // One byte a character, as heads are not always UTF-8.
    Ok(line.into_iter().map(char::from).collect())
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(reader)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut chunk = vec![0; size];
        reader.read_exact(&mut chunk)?;
        body.extend(chunk);
        if !read_line(reader)?.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if size == 0 {
            return Ok(());
        }
    }
}
