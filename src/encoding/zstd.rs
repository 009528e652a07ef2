//! Zstandard: frames in a row (RFC 8878).

use olla_engine::decoding::{BodyDecoder, Decoded, Undecodable};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::deflate::NOTHING;

/// The largest window that the coding may use in HTTP: 8 MiB (RFC 9659). Frames with a larger one
/// are refused.
const WINDOW_LOG_MAX: u32 = 23;

/// See the module.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// Whether a frame has ended with the last byte read.
    at_end: bool,
    /// Whether any frame has ended.
    any: bool,
}

impl Zstd {
    pub(super) fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .ok()?;
        Some(Self {
            context,
            at_end: false,
            any: false,
        })
    }
}

impl BodyDecoder for Zstd {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable> {
        if self.at_end && input.is_empty() {
            return Ok(NOTHING);
        }
        let began_frame = self.at_end || !self.any;
        let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(out));
        let left = self.context.decompress_stream(&mut to, &mut from);
        let decoded = Decoded {
            read: from.pos(),
            written: to.pos(),
        };
        match left {
            Ok(0) => (self.at_end, self.any) = (true, true),
            Ok(_) => self.at_end = self.at_end && decoded.read == 0,
            Err(_) if began_frame && self.any => return Err(Undecodable::Trailing),
            Err(_) => return Err(Undecodable::Invalid),
        }
        Ok(decoded)
    }

    fn is_complete(&self) -> bool {
        self.at_end
    }

    fn memory_max(&self) -> usize {
        (1 << WINDOW_LOG_MAX) + (256 << 10)
    }
}
