//! Decompresses responses of translated endpoints that ignore `Accept-Encoding: identity`
//! (docs/contract/translation.md#8.1).

use std::io::{self, Write};
use std::ops::ControlFlow;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::error::Refusal;

/// Compressed bytes that are processed at a time. This bounds the decompressed bytes in memory,
/// because deflate expands a byte to at most about a thousand.
const STEP_BYTES: usize = 4 << 10;

/// A compressed byte becomes at most about this many.
pub(crate) const EXPANSION_MAX: usize = 1032;

/// Decompresses one response, whole or streamed.
#[derive(Debug)]
pub(crate) struct Inflater(Form);

#[derive(Debug)]
enum Form {
    Gzip(MultiGzDecoder<Vec<u8>>),
    /// `deflate` before its first byte, which tells the two forms in use apart.
    Deflate,
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

impl Inflater {
    /// For a value of `Content-Encoding`; `None` if the encoding is not supported.
    pub(crate) fn new(encoding: &str) -> Option<Self> {
        let encoding = encoding.trim();
        let is = |name: &str| encoding.eq_ignore_ascii_case(name);
        if is("gzip") || is("x-gzip") {
            Some(Self(Form::Gzip(MultiGzDecoder::new(Vec::new()))))
        } else if is("deflate") {
            Some(Self(Form::Deflate))
        } else {
            None
        }
    }

    /// Decompresses bytes and passes the result to `each`, immediately and in pieces, until it
    /// breaks; what is left is not decompressed then.
    ///
    /// # Errors
    ///
    /// Status 502 if they are not compressed in the form that was announced.
    pub(crate) fn push(
        &mut self,
        input: &[u8],
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Refusal> {
        for step in input.chunks(STEP_BYTES) {
            let plain = self.step(step).map_err(|_| {
                Refusal::backend("the endpoint's response is not compressed as it announces")
            })?;
            if !plain.is_empty() && each(plain).is_break() {
                return Ok(());
            }
            plain.clear();
        }
        Ok(())
    }

    fn step(&mut self, step: &[u8]) -> io::Result<&mut Vec<u8>> {
        if let (Form::Deflate, Some(first)) = (&self.0, step.first()) {
            // The low half of zlib's first byte is 8; raw deflate would begin a stored block with
            // bits that no encoder sets.
            self.0 = if first & 0x0f == 8 {
                Form::Zlib(ZlibDecoder::new(Vec::new()))
            } else {
                Form::Raw(DeflateDecoder::new(Vec::new()))
            };
        }
        match &mut self.0 {
            Form::Gzip(decoder) => feed(decoder, step, MultiGzDecoder::get_mut),
            Form::Zlib(decoder) => feed(decoder, step, ZlibDecoder::get_mut),
            Form::Raw(decoder) => feed(decoder, step, DeflateDecoder::get_mut),
            Form::Deflate => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn feed<'d, D: Write>(
    decoder: &'d mut D,
    step: &[u8],
    plain: impl FnOnce(&'d mut D) -> &'d mut Vec<u8>,
) -> io::Result<&'d mut Vec<u8>> {
    decoder.write_all(step)?;
    // Flush after each input, even if the output is smaller than a buffer.
    decoder.flush()?;
    Ok(plain(decoder))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn inflated(encoding: &str, pieces: &[&[u8]]) -> Result<Vec<u8>, Refusal> {
        let mut inflater = Inflater::new(encoding).unwrap();
        let mut plain = Vec::new();
        for piece in pieces {
            inflater.push(piece, |bytes| {
                plain.extend_from_slice(bytes);
                ControlFlow::Continue(())
            })?;
        }
        Ok(plain)
    }

    #[test]
    fn every_form_however_it_is_cut() {
        let text = b"data: {\"choices\":[]}\n\n".repeat(500);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).unwrap();
        zlib.write_all(&text).unwrap();
        raw.write_all(&text).unwrap();
        for (encoding, bytes) in [
            (" GZIP", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ] {
            assert_eq!(inflated(encoding, &[&bytes]).unwrap(), text, "{encoding}");
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(inflated(encoding, &single).unwrap(), text, "{encoding}");
        }
    }

    #[test]
    fn what_was_flushed_comes_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"data: 1\n\n").unwrap();
        encoder.flush().unwrap();
        let first = std::mem::take(encoder.get_mut());
        assert_eq!(inflated("gzip", &[&first]).unwrap(), b"data: 1\n\n");
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(
            inflated("gzip", &[b"{\"choices\":[]}"]).unwrap_err().status,
            502
        );
        assert_eq!(
            inflated("deflate", &[b"\x78plain text"])
                .unwrap_err()
                .status,
            502
        );
        assert!(Inflater::new("br").is_none());
        assert!(Inflater::new("identity").is_none());
    }
}
