//! HTTP/1.1 framing for the load tools, without input or output of its own: bytes in, messages out.
//!
//! The stub reads requests with [`RequestReader`], the clients read responses with
//! [`ResponseReader`], both undo chunks with [`ChunkDecoder`]. Strict where a proxy's mistake would
//! show (chunk syntax, bytes after the end of a response), and without anything a load tool does not
//! need: no upgrade, no `100-continue`, no trailer fields.

mod chunk;
mod request;
mod response;

pub use chunk::ChunkDecoder;
pub use request::{BODY_BYTES_MAX, Request, RequestReader, body_hash};
pub use response::{Part, ResponseHead, ResponseReader};

/// The longest head that is read, in bytes; gateways add fields, but not this many.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields in a head.
const FIELDS_MAX: usize = 96;

/// Why bytes are not an HTTP/1.1 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The head is no head (RFC 9112 section 2).
    BadHead,
    /// The head does not end within [`HEAD_BYTES_MAX`].
    HeadTooLong,
    /// `Content-Length` or `Transfer-Encoding` cannot be understood (RFC 9112 section 6).
    BadFraming,
    /// A chunk breaks RFC 9112 section 7.1.
    BadChunk,
    /// The body is longer than [`BODY_BYTES_MAX`].
    BodyTooLong,
    /// The peer closed inside a message.
    Truncated,
    /// The peer sent more than the message it announced.
    Excess,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes; none for a message without a body.
    Length(u64),
    /// With the chunk of size zero.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// The fields of a head that decide where its message ends.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Facts {
    /// Both kinds of framing at once, a repeated length and an unknown coding are refused
    /// (RFC 9112 sections 6.1 and 6.3): a proxy must not produce them.
    fn of(fields: &[httparse::Header<'_>]) -> Result<Self, WireError> {
        let mut facts = Self::default();
        for field in fields {
            let value = field.value.trim_ascii();
            if field.name.eq_ignore_ascii_case("content-length") {
                let digits = std::str::from_utf8(value).map_err(|_| WireError::BadFraming)?;
                let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
                if facts.length.is_some() || !all_digits {
                    return Err(WireError::BadFraming);
                }
                facts.length = Some(digits.parse().map_err(|_| WireError::BadFraming)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if facts.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(WireError::BadFraming);
                }
                facts.chunked = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    facts.close |= option.eq_ignore_ascii_case(b"close");
                    facts.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        if facts.chunked && facts.length.is_some() {
            return Err(WireError::BadFraming);
        }
        Ok(facts)
    }

    fn framing(&self) -> Option<Framing> {
        if self.chunked {
            Some(Framing::Chunked)
        } else {
            self.length.map(Framing::Length)
        }
    }

    /// RFC 9112 section 9.3; `version` is the minor one.
    fn closes(&self, version: u8) -> bool {
        self.close || (version == 0 && !self.keep_alive)
    }
}

#[cfg(test)]
/// Lengths of pieces that a test cuts its bytes into.
fn steps(length: usize) -> impl Iterator<Item = usize> {
    (1..=length.min(40)).chain([length.max(1)])
}
