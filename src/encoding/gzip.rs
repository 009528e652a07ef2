//! Gzip: members in a row, each a head, deflated data, a checksum and a length (RFC 1952).

use flate2::{Crc, Decompress};
use olla_engine::decoding::{BodyDecoder, Decoded, Undecodable};

use super::deflate::{INFLATE_BYTES, NOTHING, inflate};

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Where the flags are in the fixed part of a head, and its length.
const FLAGS_AT: u8 = 3;
const FIXED_BYTES: u8 = 10;
const TRAILER_BYTES: u8 = 8;

const HAS_HEAD_CHECKSUM: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// See the module.
pub(super) struct Gzip {
    stage: Stage,
    flags: u8,
    inflate: Box<Decompress>,
    crc: Crc,
    /// Whether a member has ended.
    any: bool,
}

/// The part of a member to which the next byte belongs; a number counts its bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fixed(u8),
    ExtraLength(Option<u8>),
    /// Bytes left.
    Extra(u16),
    Name,
    Comment,
    HeadChecksum(u8),
    Data,
    /// Bytes so far, and their value as a number.
    Trailer(u8, u64),
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Fixed(0),
            flags: 0,
            inflate: Box::new(Decompress::new(false)),
            crc: Crc::new(),
            any: false,
        }
    }

    /// The stage after one that is over: the next that the flags announce.
    fn after(&self, over: Stage) -> Stage {
        let has = |flag| self.flags & flag != 0;
        match over {
            Stage::Fixed(_) if has(HAS_EXTRA) => Stage::ExtraLength(None),
            Stage::Fixed(_) | Stage::ExtraLength(_) | Stage::Extra(_) if has(HAS_NAME) => {
                Stage::Name
            }
            Stage::HeadChecksum(_) | Stage::Data | Stage::Trailer(..) => Stage::Data,
            Stage::Comment => self.before_data(),
            _ if has(HAS_COMMENT) => Stage::Comment,
            _ => self.before_data(),
        }
    }

    fn before_data(&self) -> Stage {
        if self.flags & HAS_HEAD_CHECKSUM != 0 {
            Stage::HeadChecksum(0)
        } else {
            Stage::Data
        }
    }

    /// Takes one byte of a head or trailer.
    fn frame(&mut self, byte: u8) -> Result<(), Undecodable> {
        let stage = self.stage;
        self.stage = match stage {
            Stage::Fixed(at) => {
                if let Some(expected) = MAGIC.get(usize::from(at))
                    && *expected != byte
                {
                    let fault = if self.any && at == 0 {
                        Undecodable::Trailing
                    } else {
                        Undecodable::Invalid
                    };
                    return Err(fault);
                }
                if at == FLAGS_AT {
                    self.flags = byte;
                    if byte & RESERVED != 0 {
                        return Err(Undecodable::Invalid);
                    }
                }
                if at + 1 < FIXED_BYTES {
                    Stage::Fixed(at + 1)
                } else {
                    self.after(stage)
                }
            }
            Stage::ExtraLength(None) => Stage::ExtraLength(Some(byte)),
            Stage::ExtraLength(Some(low)) => match u16::from_le_bytes([low, byte]) {
                0 => self.after(stage),
                left => Stage::Extra(left),
            },
            Stage::Extra(left) if left > 1 => Stage::Extra(left - 1),
            Stage::Name | Stage::Comment if byte != 0 => stage,
            Stage::HeadChecksum(0) => Stage::HeadChecksum(1),
            Stage::Trailer(count, value) => {
                let value = value | u64::from(byte) << (8 * count);
                if count + 1 < TRAILER_BYTES {
                    Stage::Trailer(count + 1, value)
                } else {
                    self.end_member(value)?;
                    Stage::Fixed(0)
                }
            }
            over => self.after(over),
        };
        Ok(())
    }

    /// Compares the trailer with what was decoded, and prepares for the next member.
    fn end_member(&mut self, trailer: u64) -> Result<(), Undecodable> {
        let expected = u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum());
        if trailer != expected {
            return Err(Undecodable::Invalid);
        }
        self.any = true;
        self.crc.reset();
        self.inflate.reset(false);
        Ok(())
    }
}

impl BodyDecoder for Gzip {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable> {
        let mut read = 0;
        while self.stage != Stage::Data {
            let Some(byte) = input.get(read) else {
                return Ok(Decoded { read, ..NOTHING });
            };
            self.frame(*byte)?;
            read += 1;
        }
        let rest = input.get(read..).unwrap_or(b"");
        let (decoded, ended) = inflate(&mut self.inflate, rest, out)?;
        self.crc.update(out.get(..decoded.written).unwrap_or(b""));
        if ended {
            self.stage = Stage::Trailer(0, 0);
        }
        Ok(Decoded {
            read: read + decoded.read,
            written: decoded.written,
        })
    }

    fn is_complete(&self) -> bool {
        self.any && self.stage == Stage::Fixed(0)
    }

    fn memory_max(&self) -> usize {
        INFLATE_BYTES
    }
}
