//! Requests, as the stub reads them.

use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

use super::{ChunkDecoder, FIELDS_MAX, Facts, Framing, HEAD_BYTES_MAX, WireError};

/// The longest request body the stub accepts, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a request's buffer starts with and returns to, in bytes.
const BUFFER_BYTES: usize = 4096;

/// One request, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method as sent.
    pub method: &'a str,
    /// The request target as sent.
    pub path: &'a str,
    /// True when the client wants the connection closed after the response.
    pub close: bool,
    /// The body without its chunks.
    pub body: &'a [u8],
}

/// A number that distinguishes bodies; the same in every process of one build.
pub fn body_hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

/// Reads requests one after another from the bytes of a connection; pipelined bytes wait their
/// turn.
#[derive(Debug)]
pub struct RequestReader {
    buffer: Vec<u8>,
    filled: usize,
    head: Option<RequestHead>,
    chunks: ChunkDecoder,
    decoded: Vec<u8>,
    /// Where the present request ends in the buffer, once it is whole.
    end: Option<usize>,
}

#[derive(Clone, Debug)]
struct RequestHead {
    method: Range<usize>,
    path: Range<usize>,
    close: bool,
    length: usize,
    framing: Framing,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            head: None,
            chunks: ChunkDecoder::default(),
            decoded: Vec::new(),
            end: None,
        }
    }
}

impl RequestReader {
    /// Where the next bytes of the connection go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Says that `count` bytes were put at the start of [`space`](Self::space).
    pub fn advance(&mut self, count: usize) {
        self.filled += count;
        debug_assert!(self.filled <= self.buffer.len());
    }

    /// True when bytes of a request that is not finished are held.
    pub fn is_inside_request(&self) -> bool {
        self.filled > 0
    }

    /// The request at the front, once it is whole. The same again until [`consume`](Self::consume).
    ///
    /// # Errors
    /// Any [`WireError`] besides `Truncated` and `Excess`; the connection is of no more use.
    pub fn poll(&mut self) -> Result<Option<Request<'_>>, WireError> {
        if self.end.is_none() {
            self.progress()?;
        }
        let (Some(head), Some(end)) = (&self.head, self.end) else {
            return Ok(None);
        };
        let text = |range: &Range<usize>| std::str::from_utf8(&self.buffer[range.clone()]);
        Ok(Some(Request {
            method: text(&head.method).map_err(|_| WireError::BadHead)?,
            path: text(&head.path).map_err(|_| WireError::BadHead)?,
            close: head.close,
            body: match head.framing {
                Framing::Chunked => &self.decoded,
                _ => &self.buffer[head.length..end],
            },
        }))
    }

    /// Drops the request that [`poll`](Self::poll) returned and goes on with what follows it.
    pub fn consume(&mut self) {
        let Some(end) = self.end.take() else { return };
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        self.head = None;
        self.chunks = ChunkDecoder::default();
        self.decoded.clear();
    }

    fn progress(&mut self) -> Result<(), WireError> {
        if self.head.is_none() {
            self.head = parse_request_head(&self.buffer[..self.filled])?;
            if let Some(RequestHead {
                length,
                framing: Framing::Length(body),
                ..
            }) = self.head
            {
                let total = length + body as usize;
                if self.buffer.len() < total {
                    self.buffer.resize(total, 0);
                }
            }
        }
        let Some(head) = &self.head else {
            return Ok(());
        };
        match head.framing {
            Framing::Length(body) => {
                let end = head.length + body as usize;
                self.end = (self.filled >= end).then_some(end);
            }
            _ => self.progress_chunked(head.length)?,
        }
        Ok(())
    }

    /// Decoded bytes leave the buffer, so that a body does not lie in memory twice.
    fn progress_chunked(&mut self, head_length: usize) -> Result<(), WireError> {
        let raw = &self.buffer[head_length..self.filled];
        let used = self
            .chunks
            .decode(raw, |data| self.decoded.extend_from_slice(data))?;
        if self.decoded.len() > BODY_BYTES_MAX {
            return Err(WireError::BodyTooLong);
        }
        self.buffer
            .copy_within(head_length + used..self.filled, head_length);
        self.filled -= used;
        self.end = self.chunks.is_done().then_some(head_length);
        Ok(())
    }
}

fn parse_request_head(bytes: &[u8]) -> Result<Option<RequestHead>, WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(WireError::HeadTooLong),
        Err(_) => return Err(WireError::BadHead),
    };
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(WireError::BadHead);
    };
    let facts = Facts::of(parsed.headers)?;
    if facts
        .length
        .is_some_and(|length| length > BODY_BYTES_MAX as u64)
    {
        return Err(WireError::BodyTooLong);
    }
    let span = |part: &str| {
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        start..start + part.len()
    };
    Ok(Some(RequestHead {
        method: span(method),
        path: span(path),
        close: facts.closes(version),
        length,
        framing: facts.framing().unwrap_or(Framing::Length(0)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::steps;

    /// Line, body and `close` of each request.
    type Asked<'a> = &'a [(&'a str, &'a str, bool)];

    /// Feeds `bytes` in pieces of at most `step`, and returns what was asked until the end or an
    /// error.
    fn requests(bytes: &[u8], step: usize) -> Result<Vec<(String, Vec<u8>, bool)>, WireError> {
        let mut reader = RequestReader::default();
        let mut found = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = reader.space();
            let count = step.min(space.len()).min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            reader.advance(count);
            rest = &rest[count..];
            while let Some(request) = reader.poll()? {
                let line = format!("{} {}", request.method, request.path);
                found.push((line, request.body.to_vec(), request.close));
                reader.consume();
            }
        }
        Ok(found)
    }

    #[test]
    fn reads_requests_however_they_are_cut() {
        let long = "x".repeat(3 * BUFFER_BYTES);
        let long_request = format!(
            "POST /l HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}",
            long.len()
        );
        let table: [(&str, Asked<'_>); 7] = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[("GET /", "", false)]),
            (
                "POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n",
                &[("POST /a", "abc", false), ("GET /b", "", false)],
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
                &[("POST /a", "abc0123456789", false), ("GET /b", "", false)],
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
                &[("POST /a", "", false)],
            ),
            (
                "GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n",
                &[("GET /", "", true)],
            ),
            ("GET / HTTP/1.0\r\n\r\n", &[("GET /", "", true)]),
            (&long_request, &[("POST /l", &long, false)]),
        ];
        for (bytes, want) in table {
            let want: Vec<_> = want
                .iter()
                .map(|(line, body, close)| ((*line).to_owned(), body.as_bytes().to_vec(), *close))
                .collect();
            for step in steps(bytes.len()) {
                assert_eq!(
                    requests(bytes.as_bytes(), step),
                    Ok(want.clone()),
                    "step {step}"
                );
            }
        }
    }

    #[test]
    fn refuses_requests_that_are_none() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
        let table = [
            ("nonsense\r\n\r\n".to_owned(), WireError::BadHead),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1a\r\n\r\n".to_owned(),
                WireError::BadFraming,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: \r\n\r\n".to_owned(),
                WireError::BadFraming,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n".to_owned(),
                WireError::BadFraming,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
                WireError::BadFraming,
            ),
            (
                format!("{chunked}Content-Length: 1\r\n\r\n"),
                WireError::BadFraming,
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
                    BODY_BYTES_MAX + 1
                ),
                WireError::BodyTooLong,
            ),
            (
                format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX)),
                WireError::HeadTooLong,
            ),
            (format!("{chunked}\r\n\r\n"), WireError::BadChunk),
            (format!("{chunked}\r\n3\r\nabcd\r\n"), WireError::BadChunk),
            (format!("{chunked}\r\n3\nabc\r\n"), WireError::BadChunk),
            (format!("{chunked}\r\n3;\nabc\r\n"), WireError::BadChunk),
            (format!("{chunked}\r\n0\r\n\n"), WireError::BadChunk),
            (format!("{chunked}\r\n0x3\r\nabc\r\n"), WireError::BadChunk),
            (
                format!("{chunked}\r\n1000000000000000\r\n"),
                WireError::BadChunk,
            ),
        ];
        for (bytes, want) in table {
            // A long head is parsed again for each piece; a byte at a time that takes too long.
            for step in [bytes.len() / 100 + 1, bytes.len()] {
                let shown: String = bytes.chars().take(80).collect();
                assert_eq!(
                    requests(bytes.as_bytes(), step),
                    Err(want),
                    "{shown:?} step {step}"
                );
            }
        }
    }
}
