//! One end of a connection: reads heads, lines and chunks through a buffer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const READ_BYTES: usize = 64 << 10;
const HEAD_BYTES_MAX: usize = 1 << 20;
pub(crate) const BODY_BYTES_MAX: usize = 256 << 20;

/// A stream below a connection: TCP, or TLS over it.
pub(crate) trait Transport: Read + Write + Send {
    /// Announces the end of what is sent, where the protocol has an announcement.
    fn announce_end(&mut self) {}
}

impl Transport for TcpStream {}

/// One end of a connection.
pub(crate) struct Wire {
    stream: Box<dyn Transport>,
    /// The socket below the stream.
    socket: TcpStream,
    /// Received bytes; those before `start` have been taken.
    buffer: Vec<u8>,
    start: usize,
    reset: bool,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Transport>, socket: TcpStream) -> Self {
        Self {
            stream,
            socket,
            buffer: Vec::new(),
            start: 0,
            reset: false,
        }
    }

    pub(crate) fn plain(stream: TcpStream) -> io::Result<Self> {
        let socket = stream.try_clone()?;
        Ok(Self::new(Box::new(stream), socket))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the other side ended the connection otherwise than in order.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(crate) fn announce_end(&mut self) {
        self.stream.announce_end();
    }

    /// Received and not yet taken.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let end = self.buffer.len().min(self.start + count);
        let taken = self.buffer[self.start..end].to_vec();
        self.start = end;
        taken
    }

    /// Receives more bytes; false at the end of the connection.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[filled..]) {
                // The process was stopped and goes on: such a wait is not taken up again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let count = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(filled + count);
        match read {
            Ok(count) => Ok(count > 0),
            // The second is a TLS connection that ended without notice.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                ) =>
            {
                self.reset = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Receives until `count` bytes are pending; false when the connection ended before.
    pub(crate) fn fill_to(&mut self, count: usize) -> io::Result<bool> {
        while self.pending().len() < count {
            if !self.fill()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes before a separator, taken together with it. `None`: the connection ended before.
    pub(crate) fn until(&mut self, separator: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let pending = self.pending();
            let found = pending[searched..]
                .windows(separator.len())
                .position(|window| window == separator);
            if let Some(at) = found {
                let bytes = self.take(searched + at);
                self.start += separator.len();
                return Ok(Some(bytes));
            }
            if pending.len() > HEAD_BYTES_MAX {
                return Err(ErrorKind::FileTooLarge.into());
            }
            searched = pending.len().saturating_sub(separator.len() - 1);
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The lines of a head, one character for each byte. `None`: the connection ended before it was
    /// complete, which leaves the bytes pending.
    pub(crate) fn head(&mut self) -> io::Result<Option<Vec<String>>> {
        let Some(head) = self.until(b"\r\n\r\n")? else {
            return Ok(None);
        };
        let head: String = head.into_iter().map(char::from).collect();
        Ok(Some(head.split("\r\n").map(str::to_owned).collect()))
    }

    /// The payload of the next chunk, empty for the last one. `None`: the connection ended before.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(line) = self.until(b"\r\n")? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&line).into_owned();
        let invalid = || io::Error::new(ErrorKind::InvalidData, format!("bad chunk {text:?}"));
        let size = usize::from_str_radix(&text, 16).map_err(|_| invalid())?;
        if size > BODY_BYTES_MAX {
            return Err(invalid());
        }
        if !self.fill_to(size + 2)? {
            return Ok(None);
        }
        let payload = self.take(size);
        if self.take(2) != b"\r\n" {
            return Err(invalid());
        }
        Ok(Some(payload))
    }

    /// Sets both timeouts of the socket.
    pub(crate) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(read))?;
        self.socket.set_write_timeout(Some(write))
    }
}

/// Splits a line of a head at its colon.
pub(crate) fn field(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("bad field {line:?}")))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}
