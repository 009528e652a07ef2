//! A server of models that speaks TLS, and certificates for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Somebody who issues certificates.
pub(crate) struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Issuer {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, `localhost` and 127.0.0.1 mostly.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 2100)
    }

    /// A certificate for `localhost` that vouches for itself, as people make them for one server.
    pub(crate) fn own_for_localhost() -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// What a backend has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) server_name: Mutex<Option<String>>,
    pub(crate) alpn: Mutex<Option<Vec<u8>>>,
}

/// A running backend. It ends with the process.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

impl Backend {
    pub(crate) fn start(identity: &Identity) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&told));
                std::thread::spawn(move || {
                    let session = ServerConnection::new(config).unwrap();
                    // A client that does not like the certificate leaves, which is no failure here.
                    let _ = serve(StreamOwned::new(session, tcp), &seen);
                });
            }
        });
        Self { addr, seen }
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.addr.port())
    }
}

fn serve(mut stream: Stream, seen: &Seen) -> io::Result<()> {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let name = stream.conn.server_name().map(str::to_owned);
    *seen.server_name.lock().unwrap() = name;
    *seen.alpn.lock().unwrap() = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
    let mut input = Vec::new();
    while let Some((path, body)) = request(&mut stream, &mut input)? {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        if !answer(&mut stream, &path, &body)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request's path and body; `None` when the client is done.
fn request(stream: &mut Stream, input: &mut Vec<u8>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut piece = vec![0; 64 << 10];
    let head_len = loop {
        if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            count => input.extend_from_slice(&piece[..count]),
        }
    };
    let head = String::from_utf8_lossy(&input[..head_len]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    while input.len() < head_len + length {
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            count => input.extend_from_slice(&piece[..count]),
        }
    }
    let body = input[head_len..head_len + length].to_vec();
    input.drain(..head_len + length);
    Ok(Some((path, body)))
}

/// Answers; whether the connection goes on.
fn answer(stream: &mut Stream, path: &str, body: &[u8]) -> io::Result<bool> {
    match path {
        "/echo" => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(body)?;
        }
        "/stream" => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
            )?;
            for event in 0..20 {
                let data = format!("data: {event}\n\n");
                write!(stream, "{:x}\r\n{data}\r\n", data.len())?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
        "/to-close" | "/cut-to-close" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")?;
            if path == "/to-close" {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock)?;
            }
            return Ok(false);
        }
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it")?;
            return Ok(false);
        }
        _ => {
            let list = br#"{"object":"list","data":[{"id":"m1","object":"model"}]}"#;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                list.len()
            )?;
            stream.write_all(list)?;
        }
    }
    Ok(true)
}

/// A folder of a test's own, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
