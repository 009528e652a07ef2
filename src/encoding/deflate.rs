//! Deflate, with zlib's frame or raw.

use flate2::{Decompress, FlushDecompress, Status};
use olla_engine::decoding::{BodyDecoder, Decoded, Undecodable};

/// What `miniz_oxide` keeps: its window and tables.
pub(super) const INFLATE_BYTES: usize = 48 << 10;

/// One call of the inflater; whether the stream has ended.
pub(super) fn inflate(
    inflate: &mut Decompress,
    input: &[u8],
    out: &mut [u8],
) -> Result<(Decoded, bool), Undecodable> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate
        .decompress(input, out, FlushDecompress::None)
        .map_err(|_| Undecodable::Invalid)?;
    let decoded = Decoded {
        read: (inflate.total_in() - read) as usize,
        written: (inflate.total_out() - written) as usize,
    };
    Ok((decoded, status == Status::StreamEnd))
}

/// See the module.
pub(super) struct Deflate {
    stage: Stage,
}

enum Stage {
    /// The first bytes tell whether there is a frame.
    Start(Option<u8>),
    /// Bytes that were held back, then those of the input.
    Data {
        inflate: Box<Decompress>,
        held: Option<u8>,
    },
    Ended,
}

impl Deflate {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Start(None),
        }
    }
}

/// Whether two bytes begin zlib's frame (RFC 1950, 2.2). Raw data that begins so would be a stored
/// block with padding that is not zero, which no encoder writes.
fn is_zlib(cmf: u8, flg: u8) -> bool {
    cmf & 0x0f == 8 && (u16::from(cmf) << 8 | u16::from(flg)).is_multiple_of(31)
}

impl BodyDecoder for Deflate {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable> {
        match &mut self.stage {
            Stage::Start(first) => {
                let (Some(one), two) = (first.or(input.first().copied()), input) else {
                    return Ok(NOTHING);
                };
                let fresh = usize::from(first.is_none());
                let Some(next) = two.get(fresh).copied() else {
                    *first = Some(one);
                    return Ok(Decoded {
                        read: fresh,
                        written: 0,
                    });
                };
                self.stage = Stage::Data {
                    inflate: Box::new(Decompress::new(is_zlib(one, next))),
                    held: Some(one),
                };
                // The second byte is read with the others.
                if fresh == 1 {
                    return Ok(Decoded {
                        read: 1,
                        written: 0,
                    });
                }
                self.decode(input, out)
            }
            Stage::Data { inflate, held } => {
                if let Some(byte) = held.take() {
                    // A byte alone makes no output.
                    let (_, ended) = self::inflate(inflate, &[byte], out)?;
                    if ended {
                        return Err(Undecodable::Invalid);
                    }
                }
                let (decoded, ended) = self::inflate(inflate, input, out)?;
                if ended {
                    self.stage = Stage::Ended;
                }
                Ok(decoded)
            }
            Stage::Ended if input.is_empty() => Ok(NOTHING),
            Stage::Ended => Err(Undecodable::Trailing),
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    fn memory_max(&self) -> usize {
        INFLATE_BYTES
    }
}

/// A call that did nothing.
pub(super) const NOTHING: Decoded = Decoded {
    read: 0,
    written: 0,
};
