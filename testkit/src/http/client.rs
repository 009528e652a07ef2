//! A client on a raw socket.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Response, Wire};
use crate::gateway::Gateway;
use crate::wait::PATIENCE;

/// What the gateway sends while an endpoint is silent, so that a stream stays open.
pub const STREAM_COMMENT: &[u8] = b": keep-alive\n\n";

/// A connection to a gateway. Whatever takes longer than [`PATIENCE`] panics.
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects to a gateway.
    ///
    /// # Panics
    /// When the connection is refused.
    #[track_caller]
    pub fn to(gateway: &Gateway) -> Self {
        Self::to_port(gateway.port)
    }

    /// Connects to a port of 127.0.0.1.
    ///
    /// # Panics
    /// When the connection is refused.
    #[track_caller]
    pub fn to_port(port: u16) -> Self {
        Self::try_to_port(port).unwrap()
    }

    /// Connects to a port of 127.0.0.1; `None` when the connection is refused.
    ///
    /// # Panics
    /// When the options of the socket cannot be set.
    pub fn try_to_port(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).unwrap();
        let client = Self {
            wire: Wire::plain(stream).unwrap(),
        };
        client.wire.set_timeouts(PATIENCE, PATIENCE).unwrap();
        Some(client)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn over(wire: Wire) -> Self {
        Self { wire }
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// When the other side does not take them.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap();
        self
    }

    /// Sends bytes that the other side may refuse.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Sends a request. `head` is the method and the path, and further lines; `Host` is added, and
    /// `Content-Length` unless there are further lines and no body.
    ///
    /// # Panics
    /// When the other side does not take it.
    #[track_caller]
    pub fn request(&mut self, head: &str, body: &[u8]) -> &mut Self {
        let length = if body.is_empty() && head.contains("\r\n") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let separator = if fields.is_empty() { "" } else { "\r\n" };
        let head =
            format!("{line} HTTP/1.1\r\nHost: gateway.test:81\r\n{fields}{separator}{length}\r\n");
        self.send([head.as_bytes(), body].concat())
    }

    /// Closes the sending direction.
    ///
    /// # Panics
    /// When the connection has ended.
    #[track_caller]
    pub fn end_sending(&mut self) -> &mut Self {
        self.wire.socket().shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        // With a linger time of zero, closing sends RST (socket(7)).
        let _ = SockRef::from(self.wire.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Reads the response to a request that is not HEAD.
    ///
    /// # Panics
    /// When none comes, or a malformed one.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the response to a request with this method.
    ///
    /// # Panics
    /// When none comes, or a malformed one.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        let mut response = self.head();
        let bodyless = method == "HEAD" || response.status == 204 || response.status == 304;
        if bodyless {
            response.whole = true;
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            response.whole = self.chunks(&mut response.body);
        } else if let Some(length) = response.header("Content-Length") {
            let length: usize = length.parse().unwrap();
            response.whole = self.fill_to(length);
            response.body = self.wire.take(length);
        } else {
            while self.fill() {}
            response.whole = !self.wire.is_reset();
            response.body = self.wire.take(usize::MAX >> 1);
        }
        response
    }

    /// Reads the head of a response.
    ///
    /// # Panics
    /// When the connection ends instead, or the head is malformed.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        self.try_head()
            .expect("a response, not the end of the connection")
    }

    /// Reads the head of a response; `None` when the connection ends instead.
    ///
    /// # Panics
    /// When the connection ends within the head, or the head is malformed.
    #[track_caller]
    pub fn try_head(&mut self) -> Option<Response> {
        let head = self.wire.head();
        let Some(lines) = self.received(head) else {
            let pending = self.wire.pending();
            assert!(
                pending.is_empty(),
                "the connection ended within a head: {pending:?}"
            );
            return None;
        };
        let mut words = lines[0].splitn(3, ' ');
        let mut response = Response {
            version: words.next().unwrap().to_owned(),
            status: words.next().unwrap().parse().unwrap(),
            ..Response::default()
        };
        for line in &lines[1..] {
            let (name, value) = line.split_once(": ").unwrap();
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        Some(response)
    }

    /// Reads one chunk and returns its payload, which is empty for the last one. `None`: the
    /// connection ended before.
    ///
    /// # Panics
    /// When the chunk is malformed.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let chunk = self.wire.chunk();
        self.received(chunk)
    }

    /// The rest of a stream up to its last chunk, without [`STREAM_COMMENT`].
    ///
    /// # Panics
    /// When it is cut, malformed or no UTF-8.
    #[track_caller]
    pub fn rest_of_stream(&mut self) -> String {
        let mut rest = Vec::new();
        loop {
            match self.chunk().expect("the last chunk") {
                last if last.is_empty() => return String::from_utf8(rest).expect("UTF-8"),
                comment if comment == STREAM_COMMENT => {}
                piece => rest.extend(piece),
            }
        }
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

    /// Reads until `length` bytes or the end of the connection have come.
    ///
    /// # Panics
    /// When neither comes.
    #[track_caller]
    pub fn up_to(&mut self, length: usize) -> Vec<u8> {
        self.fill_to(length);
        self.wire.take(length)
    }

    /// Whether the connection ends, with nothing more sent before.
    ///
    /// # Panics
    /// When neither bytes nor the end come.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.wire.pending().is_empty() && !self.fill()
    }

    /// Whether neither bytes nor the end come for this long.
    ///
    /// # Panics
    /// When the options of the socket cannot be set.
    pub fn is_silent_for(&mut self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let socket = self.wire.socket();
        let read = loop {
            let left = until.saturating_duration_since(Instant::now());
            socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            match socket.peek(&mut [0; 1]) {
                // The process was stopped and goes on: such a wait is not taken up again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let is_silent = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.wire.pending().is_empty() && is_silent
    }

    #[track_caller]
    fn fill(&mut self) -> bool {
        let filled = self.wire.fill();
        self.received(filled)
    }

    #[track_caller]
    fn fill_to(&mut self, count: usize) -> bool {
        let filled = self.wire.fill_to(count);
        self.received(filled)
    }

    #[track_caller]
    fn received<T>(&self, read: io::Result<T>) -> T {
        let pending = || String::from_utf8_lossy(self.wire.pending()).into_owned();
        read.unwrap_or_else(|error| panic!("reading: {error}; received before: {:?}", pending()))
    }
}
