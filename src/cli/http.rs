//! One GET to a gateway, for the commands that ask it something: blocking, plain HTTP/1.1, a fresh
//! connection that ends with the answer.
//!
//! Never on the request path, and no client for backends: those have the engine's.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use url::{Host, Url};

/// Largest answer that is read, head included.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// To connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// More header lines than any gateway sends.
const HEADERS_MAX: usize = 128;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Reads an address as a person types it: the scheme may be left out, a path is a prefix.
///
/// # Errors
/// A sentence about what is wrong with it.
pub(super) fn base(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    match (url.scheme(), url.host()) {
        ("http", Some(_)) => Ok(url),
        ("https", _) => Err("https is not spoken by this command; use an http address".to_owned()),
        _ => Err(format!("{text:?} is no http URL")),
    }
}

/// Asks for a path below a base URL.
///
/// # Errors
/// A sentence: no connection, no answer in time, or one that is not HTTP.
pub(super) fn get(base: &Url, path: &str) -> Result<Answer, String> {
    let at = |fault: io::Error| format!("{}: {fault}", display(base));
    let mut stream = connect(base).map_err(at)?;
    let prefix = base.path().trim_end_matches('/');
    let request = format!(
        "GET {prefix}{path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\
         User-Agent: olla-cli\r\nConnection: close\r\n\r\n",
        authority(base),
    );
    stream.write_all(request.as_bytes()).map_err(at)?;
    let bytes = read_all(stream).map_err(at)?;
    answer(&bytes).ok_or_else(|| format!("{}: the answer is not HTTP", display(base)))
}

fn authority(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    base.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The address without what may be secret in it.
fn display(base: &Url) -> String {
    format!("http://{}", authority(base))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command has one thread and nothing else to do while a name is looked up"
)]
fn connect(base: &Url) -> io::Result<TcpStream> {
    let port = base.port().unwrap_or(80);
    let addresses = match base.host() {
        Some(Host::Domain(name)) => (name, port).to_socket_addrs()?.collect(),
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        None => Vec::new(),
    };
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read_all(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    let started = Instant::now();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let left = ANSWER_TIMEOUT.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the answer takes too long",
            ));
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too large"));
        }
    }
}

/// The answer in all that came; `None` = it is not HTTP/1.1, or was cut.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(end)) = head.parse(bytes) else {
        return None;
    };
    let value = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    };
    let rest = bytes.get(end..)?;
    let chunked = value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let body = match value("content-length") {
        _ if chunked => unchunked(rest)?,
        Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
        None => rest.to_vec(),
    };
    Some(Answer {
        status: head.code?,
        body,
    })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        rest = rest.get(at..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_as_people_type_them() {
        let table = [
            ("http://gw:40114", Some("http://gw:40114")),
            ("gw:40114", Some("http://gw:40114")),
            (" localhost ", Some("http://localhost")),
            ("http://[::1]:9/x/", Some("http://[::1]:9")),
            ("http://u:p@h", Some("http://h")),
            ("https://gw", None),
            ("ftp://gw", None),
            ("", None),
            ("http://", None),
        ];
        for (text, want) in table {
            let got = base(text).ok().map(|url| display(&url));
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn answers_in_every_framing() {
        let table: [(&str, Option<(u16, &str)>); 9] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some((200, "ok")),
            ),
            (
                "HTTP/1.1 404 Not Found\r\n\r\nuntil the end",
                Some((404, "until the end")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n",
                Some((200, "ok!")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                None,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", None),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ];
        for (bytes, want) in table {
            let got = answer(bytes.as_bytes());
            let got = got.map(|a| (a.status, String::from_utf8(a.body).unwrap()));
            assert_eq!(
                got,
                want.map(|(status, body)| (status, body.to_owned())),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_get_asks_below_the_base() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = base(&format!("http://{}/gw/", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
            String::from_utf8(request).unwrap()
        });
        let answer = get(&url, "/internal/status").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /gw/internal/status HTTP/1.1\r\nHost: 127.0.0.1:"));
    }
}
