//! A client on a raw socket: bytes out, answers in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use super::{Gateway, PATIENCE};

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as it was announced. A body without a length ends by the close.
    pub(crate) whole: bool,
}

impl Answer {
    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        let values = self.headers.iter().filter(named);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a header; panics if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// Checks everything that an error of the gateway must have (contract: surface 5.2, 9); its
    /// message.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, kind: &str, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        assert_eq!(self.header("Content-Type"), Some("application/json"));
        assert_eq!(self.header("X-Content-Type-Options"), Some("nosniff"));
        self.has_the_fields_of_every_answer();
        assert!(self.whole, "{self:?}");
        let json = self.json();
        assert_eq!(
            json.as_object().map(serde_json::Map::len),
            Some(1),
            "{json}"
        );
        let error = &json["error"];
        assert_eq!(error["type"], kind, "{json}");
        assert_eq!(error["code"], code, "{json}");
        assert_eq!(
            error.as_object().map(serde_json::Map::len),
            Some(3),
            "{json}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && !message.contains("127.0.0."),
            "{message}"
        );
        message.to_owned()
    }

    /// Request id, response time and date.
    #[track_caller]
    pub(crate) fn has_the_fields_of_every_answer(&self) {
        let id = self.header("X-Olla-Request-ID").expect("a request id");
        assert!((1..=128).contains(&id.len()), "{id}");
        let time = self
            .header("X-Olla-Response-Time")
            .expect("a response time");
        let digits = time.strip_suffix("ms").unwrap_or_default();
        assert!(
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
            "{time}"
        );
        let date = self.header("Date").expect("a date");
        assert!(date.ends_with(" GMT"), "{date}");
    }
}

/// A connection to a gateway.
pub(crate) struct Client {
    stream: TcpStream,
    /// What came and was not asked for yet.
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn to(gateway: &Gateway) -> Self {
        Self::to_port(gateway.port)
    }

    pub(crate) fn to_port(port: u16) -> Self {
        Self::try_to_port(port).unwrap()
    }

    /// None where nobody listens.
    pub(crate) fn try_to_port(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Some(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends these bytes as they are; panics if they are not taken.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends what the other side may refuse to take.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends no more, and still reads.
    pub(crate) fn end_sending(&mut self) -> &mut Self {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        self
    }

    /// Leaves with RST.
    pub(crate) fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads the answer to a request that is not HEAD.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads the answer to a request with this method.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        let bodyless = method == "HEAD" || answer.status == 204 || answer.status == 304;
        if bodyless {
            answer.whole = true;
        } else if answer.header("Transfer-Encoding") == Some("chunked") {
            answer.whole = self.chunks(&mut answer.body);
        } else if let Some(length) = answer.header("Content-Length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length && self.read_some() {}
            answer.whole = self.buffer.len() >= length;
            answer.body = self.take(length.min(self.buffer.len()));
        } else {
            while self.read_some() {}
            answer.whole = true;
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    /// Reads the head of an answer.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Answer {
        self.try_head()
            .expect("an answer, not the end of the connection")
    }

    /// Reads the head of an answer, if one comes before the end.
    pub(crate) fn try_head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if !self.read_some() {
                assert!(self.buffer.is_empty(), "half a head: {:?}", self.buffer);
                return None;
            }
        };
        let head: String = self.take(end + 4).into_iter().map(char::from).collect();
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next().unwrap().splitn(3, ' ');
        let mut answer = Answer {
            version: words.next().unwrap().to_owned(),
            status: words.next().unwrap().parse().unwrap(),
            ..Answer::default()
        };
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        Some(answer)
    }

    /// Reads one chunk; its payload, empty for the last one. `None`: the connection ended before.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if !self.read_some() {
                return None;
            }
        };
        let size = String::from_utf8(self.buffer[..line].to_vec()).unwrap();
        let size = usize::from_str_radix(&size, 16).unwrap();
        while self.buffer.len() < line + 2 + size + 2 {
            if !self.read_some() {
                return None;
            }
        }
        let bytes = self.take(line + 2 + size + 2);
        assert!(bytes.ends_with(b"\r\n"));
        Some(bytes[line + 2..line + 2 + size].to_vec())
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        while let Some(payload) = self.chunk() {
            if payload.is_empty() {
                return true;
            }
            body.extend(payload);
        }
        false
    }

    /// Reads until this many bytes or the end have come; what has come then.
    pub(crate) fn up_to(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.read_some() {}
        self.take(length.min(self.buffer.len()))
    }

    /// Whether the connection ends, with nothing more sent before.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.read_some()
    }

    /// Whether nothing comes, and no end either, for this long.
    pub(crate) fn is_silent_for(&mut self, duration: Duration) -> bool {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        let read = self.stream.peek(&mut [0; 1]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.buffer.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// False at the end of the connection.
    fn read_some(&mut self) -> bool {
        let mut bytes = vec![0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}; so far {:?}", self.buffer),
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn exchange(gateway: &Gateway, head: &str, body: &[u8]) -> Answer {
    let mut client = Client::to(gateway);
    let method = head.split(' ').next().unwrap_or_default().to_owned();
    let length = if body.is_empty() && head.contains("\r\n") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let separator = if fields.is_empty() { "" } else { "\r\n" };
    let head =
        format!("{line} HTTP/1.1\r\nHost: gateway.test:81\r\n{fields}{separator}{length}\r\n");
    client.send([head.as_bytes(), body].concat());
    client.answer_to(&method)
}

/// `GET` on a connection of its own, with these header lines.
#[track_caller]
pub(crate) fn get(gateway: &Gateway, path: &str, fields: &[&str]) -> Answer {
    exchange(gateway, &head_of("GET", path, fields), b"")
}

/// `POST` of a JSON body on a connection of its own, with these header lines.
#[track_caller]
pub(crate) fn post(
    gateway: &Gateway,
    path: &str,
    fields: &[&str],
    body: impl AsRef<[u8]>,
) -> Answer {
    let mut lines = vec!["Content-Type: application/json"];
    lines.extend(fields);
    exchange(gateway, &head_of("POST", path, &lines), body.as_ref())
}

fn head_of(method: &str, path: &str, fields: &[&str]) -> String {
    let mut head = format!("{method} {path}");
    for field in fields {
        head.push_str("\r\n");
        head.push_str(field);
    }
    head
}
