//! What the engine needs to know of a coding in which a request's body arrives: it lets a decoder
//! work in small steps, so that no other request of the core waits for it (`core/decode/`).

/// Decodes one body. It is called with what follows the bytes that it has read, in pieces of any
/// length; after the last byte with nothing, until it writes nothing more.
pub trait BodyDecoder: Send {
    /// Reads from `input` and writes to `out`. A decoder that neither reads nor writes although it has input and room is stuck.
    ///
    /// # Errors
    /// The bytes are not what the coding allows.
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable>;

    /// Whether the body may end after what has been read.
    fn is_complete(&self) -> bool;

    /// Whether the time of a call is bounded by the lengths of its input and output. A decoder that
    /// is not steady works on a thread of its own.
    fn is_steady(&self) -> bool {
        true
    }

    /// The most bytes that the decoder itself holds, such as its window.
    fn memory_max(&self) -> usize;
}

/// What one call of [`BodyDecoder::decode`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes read of the input.
    pub read: usize,
    /// Bytes written to the output.
    pub written: usize,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecodable {
    /// The bytes do not follow the coding, or a checksum does not match.
    Invalid,
    /// The body ends before its coding does.
    Early,
    /// Other bytes follow the end of the coding.
    Trailing,
}

/// The decoder of a body and the limit for what it makes.
pub struct Decoding {
    /// Its state.
    pub decoder: Box<dyn BodyDecoder>,
    /// The most bytes of the decoded body.
    pub bytes_max: u64,
}
