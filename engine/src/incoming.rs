//! The progress of a response body.

use crate::h1::chunk::{BadChunk, Decoder, Piece};
use crate::h1::framing::ResponseBody;
use crate::part;

/// The rest of a body.
pub(crate) enum Incoming {
    /// This many bytes.
    Length(u64),
    /// Chunks, until the decoder finds the end.
    Chunked(Decoder),
    /// All bytes until the connection ends.
    ToClose,
}

impl Incoming {
    /// The whole body.
    pub(crate) fn of(body: ResponseBody) -> Self {
        match body {
            ResponseBody::None => Self::Length(0),
            ResponseBody::Length(len) => Self::Length(len),
            ResponseBody::Chunked => Self::Chunked(Decoder::new()),
            ResponseBody::ToClose => Self::ToClose,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::ToClose)
    }

    /// Appends the payload of what a read has brought. At the end of the body: whether further
    /// bytes follow it.
    pub(crate) fn gather(
        &mut self,
        buf: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<Option<bool>, BadChunk> {
        match self {
            Self::Length(left) => {
                let payload = part::first(buf, usize::try_from(*left).unwrap_or(usize::MAX));
                body.extend_from_slice(payload);
                *left -= payload.len() as u64;
                Ok((*left == 0).then_some(buf.len() > payload.len()))
            }
            Self::ToClose => {
                body.extend_from_slice(buf);
                Ok(None)
            }
            Self::Chunked(decoder) => {
                let mut at = 0;
                loop {
                    match decoder.next(buf, at)? {
                        Piece::Data { start, end } => {
                            body.extend_from_slice(part::between(buf, start, end));
                            at = end;
                        }
                        Piece::Skip { to } => at = to,
                        Piece::Done { at } => return Ok(Some(at < buf.len())),
                        Piece::More => return Ok(None),
                    }
                }
            }
        }
    }
}
