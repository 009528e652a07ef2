//! The real gateway as a child, and what a client does with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::backend::Folder;
use crate::ports;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway, ended with the value.
pub(crate) struct Gateway {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub(crate) addr: SocketAddr,
}

impl Gateway {
    /// Starts it on a free port with this configuration, of which `[server]` comes last: further
    /// keys of it may follow in `server`.
    pub(crate) fn start(folder: &Folder, rest: &str, server: &str) -> Self {
        let mut gateway = Self::spawn(folder, rest, server, &[]);
        gateway.wait_for("waiting for requests");
        gateway
    }

    pub(crate) fn spawn(folder: &Folder, rest: &str, server: &str, env: &[(&str, &str)]) -> Self {
        let addr = ports::reserve();
        let port = addr.port();
        let config = folder.write(
            "config.toml",
            &format!(
                "{rest}\n[server]\nhost = \"127.0.0.1\"\nport = {port}\n\
                 rate_limits.per_ip_requests_per_minute = 0\n\
                 rate_limits.global_requests_per_minute = 0\n{server}\n"
            ),
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_olla"))
            .args(["--config", &config])
            .env_clear()
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (told, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
            addr,
        }
    }

    /// Waits for a line of the log that holds all of these words; the line.
    pub(crate) fn wait_for_all(&mut self, words: &[&str]) -> String {
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        if let Some(at) = self.seen.iter().position(fits) {
            return self.seen.remove(at);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) if fits(&line) => return line,
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {words:?} in the log:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    pub(crate) fn wait_for(&mut self, word: &str) -> String {
        self.wait_for_all(&[word])
    }

    /// Makes it read its configuration again.
    pub(crate) fn reload(&mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Waits until so many endpoints are healthy.
    pub(crate) fn wait_for_healthy(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut stream = connect(self.addr);
            let request = b"GET /internal/status/endpoints HTTP/1.1\r\nHost: gateway\r\n\
                Connection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            let page = page.replace(": ", ":");
            if page.matches("\"status\":\"healthy\"").count() == count {
                return;
            }
            assert!(Instant::now() < end, "{page}");
            std::thread::yield_now();
        }
    }

    /// One request on a connection of its own.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        exchange(&mut connect(self.addr), path, body)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// A secured connection to the gateway.
pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Connects as a client that trusts this issuer and offers these protocols.
pub(crate) fn secured(addr: SocketAddr, issuer: &str, alpn: &[&[u8]]) -> io::Result<Secured> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(issuer.as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = connect(addr);
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(session, tcp))
}

/// An answer as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the connection, or the body's framing, ended as it should.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap_or("0").parse().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request that ends its connection, and reads to the end.
pub(crate) fn exchange(stream: &mut (impl Read + Write), path: &str, body: &[u8]) -> Answer {
    send(stream, path, "Connection: close\r\n", body);
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.unwrap_or_else(|| panic!("no answer: {ended:?} {}", bytes.len())) + 4;
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let (body, whole) = unframed(&head, &bytes[at..]);
    Answer {
        head,
        body,
        whole: whole.unwrap_or(ended.is_ok()),
    }
}

/// Sends a request.
pub(crate) fn send(stream: &mut impl Write, path: &str, fields: &str, body: &[u8]) {
    let head = format!(
        "POST /olla/proxy{path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream.flush().unwrap();
}

/// The payload, and whether it is complete; `None` when only the connection can tell.
fn unframed(head: &str, mut bytes: &[u8]) -> (Vec<u8>, Option<bool>) {
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    if let Some(length) = field("Content-Length") {
        let length: usize = length.parse().unwrap();
        return (bytes.to_vec(), Some(bytes.len() == length));
    }
    if field("Transfer-Encoding").is_none() {
        return (bytes.to_vec(), None);
    }
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            return (body, Some(false));
        };
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else {
            return (body, Some(false));
        };
        if size == 0 {
            return (body, Some(bytes.ends_with(b"0\r\n\r\n")));
        }
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 2 + size + 2..).unwrap_or_default();
    }
}
