//! Estimates tokens as a quarter of the bytes that a model reads and a fixed number for each image
//! (docs/contract/translation.md#11).

/// Bytes of UTF-8 for one token.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens of an image, whatever its size.
const TOKENS_PER_IMAGE: u64 = 1000;

/// What a model reads of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct InputSize {
    /// UTF-8 of all texts.
    pub(crate) bytes: u64,
    pub(crate) images: u64,
}

impl InputSize {
    /// The estimated tokens, at least 1.
    pub(crate) fn tokens(self) -> u64 {
        (self.bytes / BYTES_PER_TOKEN + self.images * TOKENS_PER_IMAGE).max(1)
    }

    /// The number of tokens that an endpoint can be asked for if it serves the model with a context
    /// of this many tokens (docs/contract/translation.md#7). It assumes three bytes for a token
    /// instead of four: room for texts with more tokens than most.
    pub(crate) fn output_room(self, served_context: u64) -> u64 {
        const BYTES_PER_TOKEN_AT_LEAST: u64 = 3;
        const MARGIN: u64 = 256;
        const ROOM_MIN: u64 = 256;
        let bytes = self.bytes + self.images * TOKENS_PER_IMAGE * BYTES_PER_TOKEN_AT_LEAST;
        let input = bytes.div_ceil(BYTES_PER_TOKEN_AT_LEAST) + MARGIN;
        served_context.saturating_sub(input).max(ROOM_MIN)
    }
}

/// Tokens of so many bytes, at least 1.
pub(crate) fn from_bytes(bytes: u64) -> u64 {
    (bytes / BYTES_PER_TOKEN).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_beside_the_input() {
        for (bytes, images, context, room) in [
            (0, 0, 8192, 7936),
            (1, 0, 8192, 7935),
            (3, 0, 8192, 7935),
            (4, 0, 8192, 7934),
            (300, 1, 8192, 6836),
            (30_000, 0, 8192, 256),
            (0, 0, 512, 256),
            (0, 0, 513, 257),
            (0, 0, 0, 256),
            (0, 0, u64::MAX, u64::MAX - 256),
        ] {
            let size = InputSize { bytes, images };
            assert_eq!(size.output_room(context), room, "{size:?} {context}");
        }
    }
}
