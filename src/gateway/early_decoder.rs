//! Decodes responses that continue a stream whose head the gateway has sent itself.

use olla_engine::decoding::BodyDecoder;
use olla_engine::h1::FieldId;
use olla_engine::handler::Response;

use crate::encoding::Encoded;

/// Undoes the compression of a response: the head that the client has does not announce it.
pub(super) struct EarlyDecoder(Box<dyn BodyDecoder>);

impl EarlyDecoder {
    /// `None` if the response is not compressed, or in no form that the gateway knows.
    pub(super) fn of(response: &Response<'_>) -> Option<Self> {
        let encoding = response
            .head
            .get(response.bytes, FieldId::ContentEncoding)?;
        match Encoded::of([encoding]) {
            Encoded::By(coding) => coding.decoder().map(Self),
            Encoded::Not | Encoded::Otherwise => None,
        }
    }

    /// Whether the response may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    /// Appends what the bytes mean to `out`; false if they do not follow the coding, or mean more
    /// than `bytes_max`.
    pub(super) fn decode(&mut self, mut input: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> bool {
        const ROOM: usize = 16 << 10;
        let limit = out.len().saturating_add(bytes_max);
        loop {
            let at = out.len();
            out.resize(at + ROOM, 0);
            let room = out.get_mut(at..).unwrap_or_default();
            let Ok(done) = self.0.decode(input, room) else {
                out.truncate(at);
                return false;
            };
            out.truncate(at + done.written);
            input = input.get(done.read..).unwrap_or_default();
            if out.len() > limit {
                return false;
            }
            if done.written < ROOM && (input.is_empty() || done.read == 0) {
                return input.is_empty();
            }
        }
    }
}

impl std::fmt::Debug for EarlyDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EarlyDecoder")
    }
}
