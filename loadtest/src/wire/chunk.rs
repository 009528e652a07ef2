//! The chunked coding (RFC 9112 section 7.1).

use super::WireError;

/// Takes the chunked coding off a body that arrives in pieces.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    state: ChunkState,
    /// The size being read in `Size`, the bytes still to come in `Data`.
    remaining: u64,
    /// Digits of the size seen so far; a size has at least one and at most 15.
    digits: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLine,
    LastLf,
    Done,
}

impl ChunkDecoder {
    /// Decodes `input`, hands each run of data to `sink`, and returns how many bytes belonged to
    /// the body: all of them unless [`is_done`](Self::is_done) has become true.
    ///
    /// # Errors
    /// [`WireError::BadChunk`].
    pub fn decode(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, WireError> {
        let mut at = 0;
        while at < input.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                let left = usize::try_from(self.remaining).unwrap_or(usize::MAX);
                let run = left.min(input.len() - at);
                sink(&input[at..at + run]);
                at += run;
                self.remaining -= run as u64;
                if self.remaining == 0 {
                    self.state = ChunkState::DataCr;
                }
            } else {
                self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// True once the last chunk and its trailer section have been read.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    fn step(&mut self, byte: u8) -> Result<(), WireError> {
        use ChunkState::*;
        self.state = match (self.state, byte) {
            (Size, b'\r') if self.digits > 0 => SizeLf,
            (Size, b';' | b' ' | b'\t') if self.digits > 0 => Extension,
            (Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(WireError::BadChunk)?;
                if self.digits == 15 {
                    return Err(WireError::BadChunk);
                }
                self.digits += 1;
                self.remaining = self.remaining * 16 + u64::from(digit);
                Size
            }
            (Extension, b'\r') => SizeLf,
            (Extension, b'\n') => return Err(WireError::BadChunk),
            (Extension, _) => Extension,
            (SizeLf, b'\n') if self.remaining == 0 => TrailerStart,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                self.digits = 0;
                Size
            }
            (TrailerStart, b'\r') => LastLf,
            (TrailerLine, b'\n') => TrailerStart,
            (TrailerStart, b'\n') => return Err(WireError::BadChunk),
            (TrailerStart | TrailerLine, _) => TrailerLine,
            (LastLf, b'\n') => Done,
            _ => return Err(WireError::BadChunk),
        };
        Ok(())
    }
}
