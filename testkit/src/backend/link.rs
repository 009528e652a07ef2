//! A backend's end of a connection.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::http::{BODY_BYTES_MAX, Received, Wire, field};

/// Idle timeout of a connection, also within a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Time limit for the other side to take what is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A backend's end of a connection. What is sent to a client that has left is dropped.
pub struct Link {
    wire: Wire,
    over: bool,
}

impl Link {
    pub(super) fn new(wire: Wire) -> Self {
        let _ = wire.set_timeouts(IDLE_TIMEOUT, WRITE_TIMEOUT);
        Self { wire, over: false }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Sends these bytes as they are; false when the client has left.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes.as_ref()).is_ok()
    }

    /// Responds with a body of this type.
    pub fn respond(&mut self, status: u16, kind: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send([head.as_bytes(), body].concat());
    }

    /// Responds with status 200 and a small JSON object.
    pub fn ok(&mut self) {
        self.respond(200, "application/json", "{\"ok\":true}");
    }

    /// Begins a response in chunks; an empty chunk ends it.
    pub fn begin(&mut self, kind: &str) -> bool {
        self.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ))
    }

    /// Sends one chunk; false when the client has left.
    pub fn chunk(&mut self, payload: impl AsRef<[u8]>) -> bool {
        let payload = payload.as_ref();
        let size = format!("{:x}\r\n", payload.len());
        self.send([size.as_bytes(), payload, b"\r\n"].concat())
    }

    /// Ends the connection in order, with FIN and, over TLS, a notice before it.
    pub fn close(&mut self) {
        self.wire.announce_end();
        self.over = true;
    }

    /// Ends the connection with FIN only, as a proxy or an attacker in between would over TLS.
    pub fn cut(&mut self) {
        self.over = true;
    }

    /// Ends the connection with RST.
    pub fn reset(&mut self) {
        // With a linger time of zero, closing sends RST (socket(7)).
        let _ = SockRef::from(self.wire.socket()).set_linger(Some(Duration::ZERO));
        self.over = true;
    }

    /// Waits until the client has ended the connection. Returns how long that took, `None` when it
    /// has not ended `within` the time limit.
    ///
    /// # Panics
    /// When the client sends something instead.
    pub fn left_within(&mut self, within: Duration) -> Option<Duration> {
        let start = Instant::now();
        let early = "the client sent more before it had its response";
        assert!(self.wire.pending().is_empty(), "{early}");
        let socket = self.wire.socket();
        let _ = socket.set_read_timeout(Some(within));
        let ended = match (&*socket).read(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => panic!("{early}"),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        let _ = socket.set_read_timeout(Some(IDLE_TIMEOUT));
        self.over |= ended;
        ended.then(|| start.elapsed())
    }

    /// Lets this much time pass; false when the client leaves meanwhile.
    pub(super) fn pause(&mut self, duration: Duration) -> bool {
        if duration.is_zero() {
            return true;
        }
        let until = Instant::now() + duration;
        let socket = self.wire.socket();
        let _ = socket.set_read_timeout(Some(duration));
        let peeked = socket.peek(&mut [0; 1]);
        let _ = socket.set_read_timeout(Some(IDLE_TIMEOUT));
        let has_left = match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        self.over |= has_left;
        // A client that has sent its next request waits with it.
        while !has_left && Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        !has_left
    }

    /// The next request; `None` at the end of the connection.
    pub(super) fn receive(&mut self, connection: u64) -> io::Result<Option<Received>> {
        let Some(lines) = self.wire.head()? else {
            return Ok(None);
        };
        let mut words = lines[0].split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let mut request = Received {
            method: word(),
            target: word(),
            version: word(),
            connection,
            ..Received::default()
        };
        for line in &lines[1..] {
            request.headers.push(field(line)?);
        }
        let whole = if request.header("Transfer-Encoding").is_some() {
            self.chunks(&mut request.body)?
        } else if let Some(length) = request.header("Content-Length") {
            let length = length.parse().map_err(|_| ErrorKind::InvalidData)?;
            if length > BODY_BYTES_MAX {
                return Err(ErrorKind::FileTooLarge.into());
            }
            let whole = self.wire.fill_to(length)?;
            request.body = self.wire.take(length);
            whole
        } else {
            true
        };
        self.over |= request.header("Connection") == Some("close");
        Ok(whole.then_some(request))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        while let Some(payload) = self.wire.chunk()? {
            if payload.is_empty() {
                return Ok(true);
            }
            if body.len() > BODY_BYTES_MAX {
                return Err(ErrorKind::FileTooLarge.into());
            }
            body.extend(payload);
        }
        Ok(false)
    }
}
