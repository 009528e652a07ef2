//! Responses, as the clients read them.

use super::{ChunkDecoder, FIELDS_MAX, Facts, Framing, HEAD_BYTES_MAX, WireError};

/// The head of a response, as far as the clients care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// True when the connection cannot carry another exchange.
    pub close: bool,
    /// How the body ends.
    pub framing: Framing,
}

/// A piece of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The head; comes first and once.
    Head(ResponseHead),
    /// Bytes of the body.
    Data(&'a [u8]),
}

/// Reads one response to a request that was not HEAD; make a new one for the next exchange.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// A head that has not come whole.
    pending: Vec<u8>,
    head: Option<ResponseHead>,
    chunks: ChunkDecoder,
    received: u64,
}

impl ResponseReader {
    /// Takes bytes of the connection, passes what they are to `sink`, and says whether the response
    /// is now whole.
    ///
    /// # Errors
    /// Any [`WireError`] besides `BodyTooLong` and `Truncated`.
    pub fn feed(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(Part<'_>),
    ) -> Result<bool, WireError> {
        if self.head.is_some() {
            return self.feed_body(input, &mut sink);
        }
        // Nearly always the head comes whole, and then nothing is copied.
        let joined;
        let bytes = if self.pending.is_empty() {
            input
        } else {
            self.pending.extend_from_slice(input);
            joined = std::mem::take(&mut self.pending);
            &joined
        };
        let Some((head, length)) = parse_response_head(bytes)? else {
            self.pending = bytes.to_vec();
            return Ok(false);
        };
        if head.status / 100 == 1 {
            // An interim response (RFC 9110 section 15.2); the final one follows.
            return self.feed(&bytes[length..], sink);
        }
        self.head = Some(head);
        sink(Part::Head(head));
        self.feed_body(&bytes[length..], &mut sink)
    }

    /// Says that the peer closed: right for a body that lasts until then.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn finish(&self) -> Result<(), WireError> {
        match self.head {
            Some(ResponseHead {
                framing: Framing::UntilClose,
                ..
            }) => Ok(()),
            _ => Err(WireError::Truncated),
        }
    }

    /// True when not one byte of the response has come.
    pub fn is_untouched(&self) -> bool {
        self.head.is_none() && self.pending.is_empty()
    }

    fn feed_body(
        &mut self,
        input: &[u8],
        sink: &mut impl FnMut(Part<'_>),
    ) -> Result<bool, WireError> {
        match self.head.map(|head| head.framing) {
            Some(Framing::Length(length)) => {
                self.received += input.len() as u64;
                if self.received > length {
                    return Err(WireError::Excess);
                }
                if !input.is_empty() {
                    sink(Part::Data(input));
                }
                Ok(self.received == length)
            }
            Some(Framing::Chunked) => {
                let used = self.chunks.decode(input, |data| sink(Part::Data(data)))?;
                if used < input.len() {
                    return Err(WireError::Excess);
                }
                Ok(self.chunks.is_done())
            }
            Some(Framing::UntilClose) => {
                if !input.is_empty() {
                    sink(Part::Data(input));
                }
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

fn parse_response_head(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(WireError::HeadTooLong),
        Err(_) => return Err(WireError::BadHead),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(WireError::BadHead);
    };
    let facts = Facts::of(parsed.headers)?;
    let framing = match status {
        100..200 | 204 | 304 => Framing::Length(0),
        _ => facts.framing().unwrap_or(Framing::UntilClose),
    };
    let close = facts.closes(version) || framing == Framing::UntilClose;
    Ok(Some((
        ResponseHead {
            status,
            close,
            framing,
        },
        length,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::steps;

    /// What a response in pieces is read as: its status, its body, and whether it is whole.
    fn response(bytes: &[u8], step: usize) -> Result<(u16, String, bool), WireError> {
        let mut reader = ResponseReader::default();
        let (mut status, mut body, mut done) = (0, Vec::new(), false);
        for piece in bytes.chunks(step) {
            if done {
                return Err(WireError::Excess);
            }
            done = reader.feed(piece, |part| match part {
                Part::Head(head) => status = head.status,
                Part::Data(data) => body.extend_from_slice(data),
            })?;
        }
        Ok((status, String::from_utf8(body).unwrap(), done))
    }

    #[test]
    fn reads_answers_however_they_are_cut() {
        let table = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                (200, "ok", true),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", (204, "", true)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                (200, "", true),
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nuntil close",
                (200, "until close", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                (200, "ok", true),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 E\r\nContent-Length: 1\r\n\r\nx",
                (500, "x", true),
            ),
        ];
        for (bytes, (status, body, done)) in table {
            for step in steps(bytes.len()) {
                let want = Ok((status, body.to_owned(), done));
                assert_eq!(
                    response(bytes.as_bytes(), step),
                    want,
                    "{bytes:?} step {step}"
                );
            }
        }
    }

    #[test]
    fn refuses_answers_that_are_none() {
        let table = [
            ("nonsense\r\n\r\n", WireError::BadHead),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
                WireError::Excess,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\nab", WireError::Excess),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
                WireError::Excess,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n",
                WireError::BadChunk,
            ),
        ];
        for (bytes, want) in table {
            for step in steps(bytes.len()) {
                assert_eq!(
                    response(bytes.as_bytes(), step),
                    Err(want),
                    "{bytes:?} step {step}"
                );
            }
        }
    }

    #[test]
    fn only_a_body_that_lasts_until_the_close_may_end_with_it() {
        let table = [
            ("", Err(WireError::Truncated)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
                Err(WireError::Truncated),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nanything", Ok(())),
        ];
        for (bytes, want) in table {
            let mut reader = ResponseReader::default();
            assert_eq!(
                reader.feed(bytes.as_bytes(), |_| {}),
                Ok(false),
                "{bytes:?}"
            );
            assert_eq!(reader.finish(), want, "{bytes:?}");
        }
    }
}
