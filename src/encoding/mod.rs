//! The codings of request bodies: which one a request names, and its decoder.
//!
//! A decoder takes the encoded bytes in any pieces and writes to the room that it is given, so that
//! the engine can let other requests run in between. Its memory is bounded by the coding's window,
//! its output by nothing: the engine counts that.
//!
//! Where the decoders come from: `flate2` with `miniz_oxide` and `brotli-decompressor` are safe
//! Rust. For zstd there are the reference implementation in C and `ruzstd`; the former is here,
//! because it resumes at any byte and bounds its window (`ruzstd` reads whole blocks from a
//! source that blocks), is fuzzed continuously, and a C compiler is needed for the build anyway.
//!
//! Contract: docs/contract/surface.md#7.1

mod brotli;
mod deflate;
mod gzip;
#[cfg(test)]
mod tests;
mod zstd;

use olla_engine::decoding::BodyDecoder;

/// A coding that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952; also `x-gzip`.
    Gzip,
    /// RFC 1950, or without its frame, as some clients send it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// What the `Content-Encoding` of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded {
    /// The body is as it is.
    Not,
    /// In one coding that is decoded.
    By(Coding),
    /// In another coding, or in several.
    Otherwise,
}

/// What the coding of a request's body is, and whether it still is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyCoding {
    /// None that the gateway decodes.
    None,
    /// To be decoded once the body is complete; an empty body stays as it is.
    Encoded(Coding),
    /// The body is being decoded, or is.
    Decoded(Coding),
    /// One that nobody here can read: the body passes as it is, and names no model.
    Unreadable,
}

impl BodyCoding {
    /// Whether the endpoint must not see the request's `Content-Encoding`.
    pub(crate) fn is_removed(self) -> bool {
        matches!(self, Self::Encoded(_) | Self::Decoded(_))
    }
}

/// The codings, in the form of `Accept-Encoding`.
pub(crate) const ACCEPTED: &str = "gzip, deflate, br, zstd";

impl Coding {
    /// All codings.
    pub const ALL: [Self; 4] = [Self::Gzip, Self::Deflate, Self::Brotli, Self::Zstd];

    fn named(name: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 5] = [
            (b"gzip", Self::Gzip),
            (b"x-gzip", Self::Gzip),
            (b"deflate", Self::Deflate),
            (b"br", Self::Brotli),
            (b"zstd", Self::Zstd),
        ];
        let mut names = names.into_iter();
        names
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, coding)| coding)
    }

    /// Its name in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// A decoder at the start of a body; `None` if there is no memory for it.
    pub fn decoder(self) -> Option<Box<dyn BodyDecoder>> {
        Some(match self {
            Self::Gzip => Box::new(gzip::Gzip::new()),
            Self::Deflate => Box::new(deflate::Deflate::new()),
            Self::Brotli => Box::new(brotli::Brotli::new()),
            Self::Zstd => Box::new(zstd::Zstd::new()?),
        })
    }
}

impl Encoded {
    /// Reads the values of all lines of `Content-Encoding`.
    pub fn of<'v>(lines: impl IntoIterator<Item = &'v [u8]>) -> Self {
        let mut encoded = Self::Not;
        let elements = lines
            .into_iter()
            .flat_map(|line| line.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
        for name in elements {
            encoded = match (encoded, Coding::named(name)) {
                (Self::Not, Some(coding)) => Self::By(coding),
                _ => return Self::Otherwise,
            };
        }
        encoded
    }
}
