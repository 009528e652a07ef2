//! Brotli (RFC 7932), without the large windows that are no part of it.
//!
//! The decoder writes nothing before its window is full or its input ends, however little room there
//! is for its output: one call may decode 16 MiB.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use olla_engine::decoding::{BodyDecoder, Decoded, Undecodable};

use super::deflate::NOTHING;

/// The largest window.
const WINDOW_BYTES: usize = 16 << 20;

/// See the module.
pub(super) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    ended: bool,
}

impl Brotli {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())),
            ended: false,
        }
    }
}

impl BodyDecoder for Brotli {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable> {
        if self.ended {
            return if input.is_empty() {
                Ok(NOTHING)
            } else {
                Err(Undecodable::Trailing)
            };
        }
        let (mut read, mut written, mut total) = (0, 0, 0);
        let (mut input_left, mut room) = (input.len(), out.len());
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut read,
            input,
            &mut room,
            &mut written,
            out,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(Undecodable::Invalid),
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Decoded { read, written })
    }

    fn is_complete(&self) -> bool {
        self.ended
    }

    fn is_steady(&self) -> bool {
        false
    }

    fn memory_max(&self) -> usize {
        WINDOW_BYTES
    }
}
