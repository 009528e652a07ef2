//! Chunked bodies (RFC 9112 7.1): a decoder of our own, in explicit states, that takes its input
//! in any pieces. It holds no byte of the body and allocates nothing.
//!
//! Stricter than most: CRLF only, 1 to 16 digits, extensions by their grammar, no blank that no
//! extension follows, and bounds on everything that is not payload ([`crate::limits`]).
//! `httparse::parse_chunk_size` is not used: it reads an empty size as 0 and takes a bare LF inside
//! an extension.
//!
//! Two ways of using a [`Decoder`], one for each body:
//! - [`Decoder::next`] yields payload, for a body that is stored, inspected or changed;
//! - [`Decoder::pass`] yields bytes to be sent on, for a body that goes through as it is.

use std::num::NonZeroUsize;

use super::emit::is_value_byte;
use super::field::{NoNames, classify};
use super::span::FieldId;
use crate::limits::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX,
    CHUNK_SIZE_LINE_BYTES_MAX, TRAILER_BYTES_MAX,
};
use crate::part;

/// The end of every chunked body that is written here; trailers are dropped.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line that announces a chunk of `payload` bytes (0 would end the body). After the
/// payload its CRLF is due.
pub fn encode_size(payload: NonZeroUsize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; CHUNK_SIZE_LINE_BYTES_MAX];
    let mut start = line.len();
    let mut rest = payload.get();
    for (index, place) in line.iter_mut().enumerate().rev() {
        start = index;
        *place = match CHUNK_SIZE_LINE_BYTES_MAX - index {
            1 => b'\n',
            2 => b'\r',
            _ => {
                let digit = DIGITS[rest % 16];
                rest /= 16;
                digit
            }
        };
        if rest == 0 && index < CHUNK_SIZE_DIGITS_MAX {
            break;
        }
    }
    out.extend_from_slice(part::rest(&line, start));
}

/// How the framing of a body is broken. Nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadChunk {
    /// The size is not 1 to 16 hexadecimal digits.
    Size,
    /// An extension that its grammar does not know, or a blank without one.
    Extension,
    /// A line that does not end with CRLF.
    LineEnd,
    /// The payload is not followed by CRLF.
    PayloadEnd,
    /// A chunk's line is too long.
    LineTooLong,
    /// The extensions of the body are too long together.
    ExtensionsTooLong,
    /// A trailer field that is malformed.
    Trailer,
    /// A trailer field that would change the message's framing or target (RFC 9110 6.5.1).
    ForbiddenTrailer,
    /// The trailer section is too long.
    TrailersTooLong,
}

/// What [`Decoder::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Payload, `input[start..end]`, never empty; the bytes before it are framing. Continue at
    /// `end`.
    Data {
        /// Position of the first payload byte; may lie beyond `at`.
        start: usize,
        /// Position after the last payload byte that is there.
        end: usize,
    },
    /// Only framing was there. Go on at `to`.
    Skip {
        /// Position of the byte after it.
        to: usize,
    },
    /// The body is over; the rest of the input, from `at`, belongs to what follows.
    Done {
        /// Position after the body.
        at: usize,
    },
    /// The input is used up; the body continues.
    More,
}

/// What [`Decoder::pass`] lets through of one input. The caller sends, in this order:
/// 1. if `size` is some, the line that [`encode_size`] writes for it;
/// 2. `input[from..to]`, which may be empty;
/// 3. if `done`, [`LAST_CHUNK`].
///
/// It then continues with `input[consumed..]`: after `done` that belongs to what follows, before it
/// `pass` is called again while any is left. What is not in `from..to` was taken in and is not
/// sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Bytes of the input that were taken in.
    pub consumed: usize,
    /// Payload bytes among them.
    pub payload: usize,
    /// Where the bytes to be sent begin.
    pub from: usize,
    /// Where they end.
    pub to: usize,
    /// The number of payload bytes for which a size line has to be written first, because the
    /// received one cannot be sent: it was cut by the end of an input, has extensions, or has an
    /// unusual spelling.
    pub size: Option<NonZeroUsize>,
    /// `input[from..to]` is sent as it is, with nothing before it: there is no `size`.
    pub verbatim: bool,
    /// The body is complete. Its end was held back until now, so that a response that breaks off
    /// inside it cannot look complete.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Size,
    /// In a size, after this many digits.
    Digits(u8),
    /// In an extension.
    Extension(Extension),
    /// Before the LF that ends a chunk's line.
    SizeLf,
    /// In the payload, or before the CR that follows it.
    Payload,
    /// Before the LF that follows a payload.
    PayloadLf,
    /// At the start of a line of the trailer section.
    TrailerLine,
    /// In a trailer's name.
    TrailerName,
    /// In a trailer's value.
    TrailerValue,
    /// Before the LF that ends a trailer.
    TrailerLf,
    /// Before the LF of the empty line.
    EndLf,
    Done,
    Broken(BadChunk),
}

/// `chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, RFC 9112 7.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In blanks before a `;`, where the line cannot end.
    BeforeSemicolon,
    /// After `;`, before the name.
    BeforeName,
    Name,
    /// In blanks after a name, before `;` or `=`.
    AfterName,
    /// After `=`, before the value.
    BeforeValue,
    Token,
    Quoted,
    Escaped,
    /// After a closing quote.
    AfterQuote,
}

/// The longest name that a trailer may not have: `transfer-encoding`.
const FORBIDDEN_NAME_BYTES_MAX: usize = 17;

/// Decodes one chunked body. After an error, every call returns that error again.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// The size while its digits arrive, then the number of payload bytes of the chunk still
    /// expected.
    left: u64,
    /// Bytes of the chunk's line so far; then of the trailer section.
    line_bytes: u16,
    /// Bytes of extensions in the body so far.
    extension_bytes: u16,
    /// The size line of the current chunk has not been announced by `pass`.
    unannounced: bool,
    /// The trailer's name so far, as far as it matters.
    name: [u8; FORBIDDEN_NAME_BYTES_MAX],
    name_bytes: u16,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a body.
    pub fn new() -> Self {
        Self {
            state: State::Size,
            left: 0,
            line_bytes: 0,
            extension_bytes: 0,
            unannounced: false,
            name: [0; FORBIDDEN_NAME_BYTES_MAX],
            name_bytes: 0,
        }
    }

    /// Whether all of [`Self::pass`] so far is whole chunks, so that another one may follow.
    pub(crate) fn is_between_chunks(&self) -> bool {
        self.state == State::Size
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// One step over `input[at..]`. Begin at 0 for each input; when it says [`Piece::More`], the
    /// next input continues where this one ended.
    pub fn next(&mut self, input: &[u8], at: usize) -> Result<Piece, BadChunk> {
        let start = self.framing(input, at)?;
        match self.state {
            State::Done => Ok(Piece::Done { at: start }),
            State::Payload if self.left != 0 && start < input.len() => {
                self.unannounced = false;
                let end = start + self.take_payload(input.len() - start);
                Ok(Piece::Data { start, end })
            }
            _ if start > at => Ok(Piece::Skip { to: start }),
            _ => Ok(Piece::More),
        }
    }

    /// Checks `input` and says what of it is to be sent on: see [`Pass`]. Chunks stay as they
    /// were cut, and nothing is held back but unfinished lines and the end of the body. A fault is
    /// reported once all that is good before it was let through.
    ///
    /// The usual input (whole chunks, a part of one, or the end) is done in one call.
    ///
    /// ```
    /// use olla_engine::bench::{Decoder, LAST_CHUNK, encode_size};
    ///
    /// /// What goes out for `input`, and where in it the body ended.
    /// fn relay(decoder: &mut Decoder, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    ///     let mut at = 0;
    ///     while at < input.len() {
    ///         let rest = &input[at..];
    ///         let pass = decoder.pass(rest).expect("a sound body");
    ///         if let Some(size) = pass.size {
    ///             encode_size(size, out);
    ///         }
    ///         out.extend_from_slice(&rest[pass.from..pass.to]);
    ///         at += pass.consumed;
    ///         if pass.done {
    ///             out.extend_from_slice(LAST_CHUNK);
    ///             return Some(at);
    ///         }
    ///     }
    ///     None
    /// }
    ///
    /// let (mut decoder, mut out) = (Decoder::new(), Vec::new());
    /// assert_eq!(relay(&mut decoder, b"3\r\nabc\r\n2;x=y\r\nde", &mut out), None);
    /// assert_eq!(out, b"3\r\nabc\r\n2\r\nde");
    /// assert_eq!(relay(&mut decoder, b"\r\n0\r", &mut out), None);
    /// assert_eq!(out, b"3\r\nabc\r\n2\r\nde\r\n");
    /// assert_eq!(relay(&mut decoder, b"\nA: b\r\n\r\nHTTP", &mut out), Some(9));
    /// assert_eq!(out, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    /// ```
    pub fn pass(&mut self, input: &[u8]) -> Result<Pass, BadChunk> {
        let mut pass = Pass::default();
        if self.unannounced || !self.may_send() {
            // The rest of a line that an earlier input began, or of the end of the body.
            pass.from = self.framing(input, 0)?;
            if self.unannounced {
                let size = usize::try_from(self.left).map_err(|_| self.broken(BadChunk::Size))?;
                pass.size = NonZeroUsize::new(size);
                self.unannounced = false;
            }
        }
        pass.to = self.walk(input, pass.from, &mut pass.payload);
        // What stops it short of the end is framing that is not sent as it is. If payload follows,
        // the next call announces it.
        pass.consumed = match self.framing(input, pass.to) {
            Ok(at) => at,
            // What was good before the fault is good; the next call reports it.
            Err(_) if pass.to > pass.from => pass.to,
            Err(error) => return Err(error),
        };
        pass.verbatim = pass.size.is_none();
        pass.done = self.is_done();
        Ok(pass)
    }

    /// Whether the next byte could be one that is sent on: not inside a line, nor at the end.
    fn may_send(&self) -> bool {
        matches!(self.state, State::Size | State::Payload | State::PayloadLf)
    }

    /// Goes over chunks that can be sent as they are; returns where that ends. Adds up `payload`.
    fn walk(&mut self, input: &[u8], at: usize, payload: &mut usize) -> usize {
        let mut at = at;
        while at < input.len() {
            match self.state {
                State::Payload if self.left != 0 => {
                    let taken = self.take_payload(input.len() - at);
                    *payload += taken;
                    at += taken;
                }
                State::Payload | State::PayloadLf => match self.one(input, at) {
                    Ok(next) => at = next,
                    Err(_) => break,
                },
                State::Size => match plain_line(input, at) {
                    Some((size, end)) if size != 0 => {
                        self.begin_chunk(size);
                        self.unannounced = false;
                        at = end;
                    }
                    _ => break,
                },
                _ => break,
            }
        }
        at
    }

    /// Consumes framing up to payload, the end of the body or the end of the input; returns
    /// where that is.
    fn framing(&mut self, input: &[u8], at: usize) -> Result<usize, BadChunk> {
        let mut at = at;
        loop {
            match self.state {
                State::Done => return Ok(at),
                State::Broken(error) => return Err(error),
                State::Payload if self.left != 0 => return Ok(at),
                State::Size => {
                    if let Some((size, end)) = plain_line(input, at) {
                        self.begin_chunk(size);
                        at = end;
                        continue;
                    }
                }
                _ => {}
            }
            if at >= input.len() {
                return Ok(at);
            }
            at = self.one(input, at)?;
        }
    }

    /// Consumes up to `available` bytes of payload; returns how many.
    fn take_payload(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(available);
        self.left -= taken as u64;
        taken
    }

    /// After the line of a chunk.
    fn begin_chunk(&mut self, size: u64) {
        self.left = size;
        self.line_bytes = 0;
        self.unannounced = size != 0;
        self.state = if size != 0 {
            State::Payload
        } else {
            State::TrailerLine
        };
    }

    fn broken(&mut self, error: BadChunk) -> BadChunk {
        self.state = State::Broken(error);
        error
    }

    /// Consumes one byte of framing.
    fn one(&mut self, input: &[u8], at: usize) -> Result<usize, BadChunk> {
        let Some(&byte) = input.get(at) else {
            return Ok(at);
        };
        match self.step(byte) {
            Ok(state) => self.state = state,
            Err(error) => return Err(self.broken(error)),
        }
        Ok(at + 1)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        match self.state {
            State::Size => {
                self.left = 0;
                self.digit(byte, 0)
            }
            State::Digits(count) => match byte {
                b'\r' => Ok(State::SizeLf),
                b'\n' => Err(BadChunk::LineEnd),
                b';' | b' ' | b'\t' => {
                    self.line_bytes = u16::from(count);
                    self.extension(Extension::BeforeSemicolon, byte)
                }
                _ => self.digit(byte, count),
            },
            State::Extension(extension) => self.extension(extension, byte),
            State::SizeLf if byte == b'\n' => {
                self.begin_chunk(self.left);
                Ok(self.state)
            }
            State::Payload if byte == b'\r' => Ok(State::PayloadLf),
            State::PayloadLf if byte == b'\n' => Ok(State::Size),
            State::Payload | State::PayloadLf => Err(BadChunk::PayloadEnd),
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::SizeLf | State::EndLf => Err(BadChunk::LineEnd),
            State::TrailerLine | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer(byte)
            }
            State::Done => Ok(State::Done),
            State::Broken(error) => Err(error),
        }
    }

    fn digit(&mut self, byte: u8, count: u8) -> Result<State, BadChunk> {
        match hex_digit(byte) {
            Some(digit) if usize::from(count) < CHUNK_SIZE_DIGITS_MAX => {
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Digits(count + 1))
            }
            _ => Err(BadChunk::Size),
        }
    }

    fn extension(&mut self, extension: Extension, byte: u8) -> Result<State, BadChunk> {
        use Extension::{
            AfterName, AfterQuote, BeforeName, BeforeSemicolon, BeforeValue, Escaped, Name, Quoted,
            Token,
        };
        self.line_bytes += 1;
        self.extension_bytes += 1;
        if usize::from(self.line_bytes) > CHUNK_LINE_BYTES_MAX {
            // The CR that ends the line does not count.
            if byte != b'\r' || usize::from(self.line_bytes) > CHUNK_LINE_BYTES_MAX + 1 {
                return Err(BadChunk::LineTooLong);
            }
        }
        if usize::from(self.extension_bytes) > CHUNK_EXTENSION_BYTES_MAX {
            return Err(BadChunk::ExtensionsTooLong);
        }
        let next = match (extension, byte) {
            (_, b'\n') => return Err(BadChunk::LineEnd),
            (Name | Token | AfterQuote, b'\r') => return Ok(State::SizeLf),
            (BeforeSemicolon, b' ' | b'\t') => BeforeSemicolon,
            (BeforeSemicolon | Name | AfterName | Token | AfterQuote, b';') => BeforeName,
            (BeforeName, b' ' | b'\t') => BeforeName,
            (Name | AfterName, b'=') => BeforeValue,
            (Name | AfterName, b' ' | b'\t') => AfterName,
            (BeforeValue, b' ' | b'\t') => BeforeValue,
            (BeforeValue, b'"') => Quoted,
            (Quoted, b'"') => AfterQuote,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_value_byte(byte) => Quoted,
            // Blanks after a value are valid only if a `;` follows.
            (Token | AfterQuote, b' ' | b'\t') => BeforeSemicolon,
            (BeforeName | Name, _) if is_token_byte(byte) => Name,
            (BeforeValue | Token, _) if is_token_byte(byte) => Token,
            _ => return Err(BadChunk::Extension),
        };
        Ok(State::Extension(next))
    }

    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.line_bytes += 1;
        if usize::from(self.line_bytes) > TRAILER_BYTES_MAX {
            return Err(BadChunk::TrailersTooLong);
        }
        match (self.state, byte) {
            (State::TrailerLine, b'\r') => Ok(State::EndLf),
            (_, b'\n') if self.state != State::TrailerLf => Err(BadChunk::LineEnd),
            (State::TrailerLine, _) if is_token_byte(byte) => {
                self.name_bytes = 0;
                self.name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.is_forbidden() => Err(BadChunk::ForbiddenTrailer),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_value_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerLine),
            (State::TrailerLf, _) => Err(BadChunk::LineEnd),
            _ => Err(BadChunk::Trailer),
        }
    }

    fn name_byte(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(usize::from(self.name_bytes)) {
            *place = byte;
        }
        self.name_bytes += 1;
    }

    fn is_forbidden(&self) -> bool {
        let name = self
            .name
            .get(..usize::from(self.name_bytes))
            .map(classify::<NoNames>);
        matches!(
            name,
            Some(FieldId::ContentLength | FieldId::TransferEncoding | FieldId::Host)
        )
    }
}

/// Reads a chunk's line in its plain spelling: complete, digits without a leading zero, no
/// extension. Returns the chunk's size and the position after the line.
fn plain_line(input: &[u8], at: usize) -> Option<(u64, usize)> {
    let line = input.get(at..)?;
    let mut size = 0u64;
    for (count, &byte) in line.iter().enumerate().take(CHUNK_SIZE_DIGITS_MAX + 1) {
        match hex_digit(byte) {
            Some(digit) if count < CHUNK_SIZE_DIGITS_MAX => size = size << 4 | u64::from(digit),
            Some(_) => return None,
            None => {
                let plain = match line.first() {
                    Some(b'0') => count == 1,
                    _ => count != 0,
                };
                let ends = byte == b'\r' && line.get(count + 1) == Some(&b'\n');
                return (plain && ends).then_some((size, at + count + 2));
            }
        }
    }
    None
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// A byte of a token (RFC 9110 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests;
