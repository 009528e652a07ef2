//! The inner loops: they find the ends of strings, numbers and nested values. They know JSON's
//! structure and no keys. All take the whole body and a position, and continue from there.
//!
//! Two ways of scanning a string are combined. As long as quotes are rare, `memchr` searches only
//! for the next one: a run of backslashes before it tells whether it is escaped, so the `\n` and
//! `\u4f60` of a prompt cost nothing. Where quotes are close together, 64 bytes at a time become
//! masks of quotes, escapes and brackets, and one operation answers for all of them; code with its
//! `\"`, conversations of short messages and indented tool schemas are like that. Microseconds for
//! a megabyte (`benches/inspect.rs`, AMD EPYC, SSE2 masks, AVX2 in `memchr`):
//!
//! | | plain | `\"` every 30 bytes | code | CJK as `\uXXXX` | messages | token numbers | indented |
//! |---|---|---|---|---|---|---|---|
//! | this | 11 | 145 | 140 | 11 | 170 | 60 | 240 |
//! | `memchr` for each quote, brackets by byte | 11 | 193 | 609 | 12 | 381 | 576 | 862 |
//! | `memchr2` for quotes and backslashes, one string | 13 | 303 | 948 | 1011 | | | |
//!
//! One alternative was measured and rejected: skip the rest once a `model` is found, if the rest
//! has neither `"model"` nor `"stream"` nor an escaped spelling of them. The four searches take 72
//! to 106 µs, and most requests have a `stream` after their messages, which makes the walk
//! necessary as well.

use std::ops::Range;

use memchr::memchr;
use wide::u8x16;

use crate::json::scan::near_mark;
pub(super) use crate::json::scan::skip_blanks;

/// How deep values may be nested below the top-level object. Deeper nesting is treated as invalid,
/// as most parsers do. One bit a level records which bracket has to be closed.
pub(super) const NESTING_MAX: u32 = u128::BITS;

/// The position of the quote that ends the string which continues at `pos`. `None`: it has not
/// arrived, and the string continues at the end of this `body`. `escaped` is the state of that
/// string between calls, false at its start: whether the next byte follows a backslash.
pub(super) fn string_end(body: &[u8], pos: usize, escaped: &mut bool) -> Option<usize> {
    if let (false, Some(quote)) = (*escaped, near_end(body, pos)) {
        return Some(quote);
    }
    let mut pos = pos;
    loop {
        // Only quotes are searched for: whether one is escaped shows in the run of backslashes
        // before it. Each run is counted once, for the quote that it touches.
        let from = pos + usize::from(*escaped);
        let rest = body.get(from..)?;
        let found = memchr(b'"', rest);
        let text = rest.get(..found.unwrap_or(rest.len()))?;
        *escaped = text.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
        let quote = from + found?;
        if !*escaped {
            return Some(quote);
        }
        // Where one quote is escaped, more will follow soon.
        pos = quote;
        while let Some(block) = Block::at(body, pos) {
            let quotes = block.equal(b'"');
            if quotes == 0 {
                break;
            }
            let ends = quotes & !block.escaped(escaped);
            if ends != 0 {
                *escaped = false;
                return Some(pos + first(ends));
            }
            pos += block.len;
        }
    }
}

/// The end of a short string without escapes, such as a key.
fn near_end(body: &[u8], pos: usize) -> Option<usize> {
    let at = pos + near_mark(body.get(pos..)?)?;
    (body.get(at) == Some(&b'"')).then_some(at)
}

/// The end of the number or literal that continues at `pos`, or `None` if it has not arrived.
pub(super) fn scalar_end(body: &[u8], pos: usize) -> Option<usize> {
    let rest = body.get(pos..)?;
    Some(pos + rest.iter().position(|&byte| !is_scalar_byte(byte))?)
}

/// Whether a byte can be part of a number or literal.
pub(super) fn is_scalar_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Whether a token is a literal or may be a number. Python writes and reads `NaN` and `Infinity`.
pub(super) fn is_scalar(token: &[u8]) -> bool {
    match token {
        b"true" | b"false" | b"null" | b"NaN" | b"Infinity" => true,
        [first, ..] => *first == b'-' || first.is_ascii_digit(),
        [] => false,
    }
}

/// How far the scan of a nested value came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value continues beyond the last byte.
    More,
    /// The value ended before this position.
    Ended(usize),
    /// A bracket closes what was not opened, or the nesting is too deep.
    Broken,
}

/// A nested value, array or object, that is being skipped. Only brackets and strings matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Nest {
    /// The open brackets, the innermost in the lowest bit: 1 for an object, 0 for an array.
    objects: u128,
    depth: u32,
    /// The next byte is inside a string.
    in_string: bool,
    /// The next byte follows a backslash.
    escaped: bool,
    /// Only if files are counted: where the block begins that has the last quote of a string, and the
    /// depths, counted from 0, at which an array of images is open.
    quote_block: usize,
    images: u128,
}

/// What is done with the strings that a scan passes.
pub(super) trait Strings {
    /// Whether anything is; if not, it costs nothing.
    const COUNT: bool;

    /// Shorter strings, or some of them, are passed over.
    const LENGTH_MIN: usize;

    /// Takes a string between its quotes; `in_images`: it is an element of an array of images.
    fn take(&mut self, body: &[u8], text: Range<usize>, in_images: bool);

    /// Whether the borders between the elements of the value are noted.
    const BORDERS: bool;

    /// Takes the bracket at `at`, which opens an element of the value or closes the value, unless
    /// only a comma or nothing is between it and the element before, which ends with a bracket.
    fn border(&mut self, body: &[u8], at: usize);
}

/// Nothing is done with them.
pub(super) struct Ignored;

impl Strings for Ignored {
    const COUNT: bool = false;
    const LENGTH_MIN: usize = usize::MAX;
    const BORDERS: bool = false;

    fn take(&mut self, _: &[u8], _: Range<usize>, _: bool) {}

    fn border(&mut self, _: &[u8], _: usize) {}
}

impl Nest {
    /// At the start of a value, after its `[` or `{`.
    pub(super) fn opened_by(bracket: u8) -> Self {
        Self {
            objects: u128::from(bracket == b'{'),
            depth: 1,
            in_string: false,
            escaped: false,
            quote_block: 0,
            images: 0,
        }
    }

    /// The same for a bracket at `at` whose files are counted.
    pub(super) fn opened_at(body: &[u8], at: usize, bracket: u8) -> Self {
        Self {
            images: u128::from(bracket == b'[' && is_under(body, at, b"images")),
            quote_block: at,
            ..Self::opened_by(bracket)
        }
    }

    /// Whether the innermost open bracket is that of an array of images.
    const fn is_in_images(&self) -> bool {
        self.images != 0 && self.images >> (self.depth - 1) & 1 == 1
    }

    /// Continues at `pos`. After [`Step::More`] the next call continues at the end of this `body`.
    pub(super) fn scan(&mut self, body: &[u8], pos: usize) -> Step {
        self.scan_with(body, pos, &mut Ignored)
    }

    /// The same, with something to be done with the strings. On its own, it has registers enough.
    #[inline(never)]
    pub(super) fn scan_with<S: Strings>(&mut self, body: &[u8], pos: usize, texts: &mut S) -> Step {
        let mut pos = pos;
        while let Some(block) = Block::at(body, pos) {
            let quotes = block.equal(b'"');
            let strings = match (quotes, self.in_string) {
                (0, false) => 0,
                (0, true) => {
                    let Some(quote) = string_end(body, pos, &mut self.escaped) else {
                        return Step::More;
                    };
                    self.in_string = false;
                    if S::COUNT {
                        if quote - self.quote_block > S::LENGTH_MIN {
                            self.take_string(body, quote, texts);
                        }
                        self.quote_block = quote;
                    }
                    pos = quote + 1;
                    continue;
                }
                // From each quote on the state is the opposite, until the next one.
                (_, in_string) => {
                    let quotes = quotes & !block.escaped(&mut self.escaped);
                    if S::COUNT && quotes != 0 {
                        // Strings that begin and end in blocks close together are too short to
                        // matter.
                        if pos + Block::LEN - self.quote_block > S::LENGTH_MIN && in_string {
                            self.take_string(body, pos + first(quotes), texts);
                        }
                        self.quote_block = pos;
                    }
                    parity(quotes) ^ if in_string { u64::MAX } else { 0 }
                }
            };
            self.in_string = strings >> 63 == 1;
            let mut brackets = block.brackets() & !strings;
            while brackets != 0 {
                let at = pos + first(brackets);
                brackets &= brackets - 1;
                if !self.bracket(body, at, texts) {
                    return Step::Broken;
                }
                if self.depth == 0 {
                    let is_plain = matches!(before::<1>(body, at), Some([b'}' | b']']));
                    if S::BORDERS && !is_plain {
                        texts.border(body, at);
                    }
                    return Step::Ended(at + 1);
                }
            }
            pos += block.len;
        }
        Step::More
    }

    /// Passes on a string that ends at `end`. It begins with the last quote of its block that is not
    /// escaped.
    #[cold]
    fn take_string<S: Strings>(&self, body: &[u8], end: usize, texts: &mut S) {
        let from = self.quote_block;
        let block = body.get(from..end.min(from + Block::LEN)).unwrap_or(b"");
        let is_escaped = |at: usize| {
            let before = body.get(..from + at).unwrap_or(b"").iter().rev();
            before.take_while(|byte| **byte == b'\\').count() % 2 == 1
        };
        let mut quotes = memchr::memrchr_iter(b'"', block);
        if let Some(quote) = quotes.find(|at| !is_escaped(*at)) {
            let text = from + quote + 1..end;
            if text.len() >= S::LENGTH_MIN {
                texts.take(body, text, self.is_in_images());
            }
        }
    }

    /// Takes the bracket at `at`; false if it must not be there. Nor must a backslash.
    #[inline(always)]
    fn bracket<S: Strings>(&mut self, body: &[u8], at: usize, texts: &mut S) -> bool {
        match body.get(at) {
            Some(&bracket @ (b'{' | b'[')) => {
                if S::COUNT && bracket == b'[' && is_under(body, at, b"images") {
                    self.images |= 1_u128.unbounded_shl(self.depth);
                }
                if S::BORDERS && self.depth == 1 {
                    let is_plain = matches!(before::<2>(body, at), Some([b'}' | b']', b',']));
                    if !is_plain {
                        texts.border(body, at);
                    }
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(bracket == b'{');
                self.depth <= NESTING_MAX
            }
            Some(&bracket @ (b'}' | b']')) => {
                let object = self.objects & 1 == 1;
                self.depth -= 1;
                self.objects >>= 1;
                if S::COUNT && self.images != 0 {
                    self.images &= !(u128::MAX << self.depth);
                }
                object == (bracket == b'}')
            }
            _ => false,
        }
    }
}

/// The bytes before a position.
#[inline(always)]
pub(super) fn before<const COUNT: usize>(body: &[u8], at: usize) -> Option<[u8; COUNT]> {
    body.get(..at)?.last_chunk().copied()
}

/// Calls `take` with the blanks between the elements of the array after whose bracket `pos` is, until
/// it returns false. A run of them may come in parts.
pub(super) fn blanks_between(
    body: &[u8],
    pos: usize,
    mut take: impl FnMut(Range<usize>) -> bool,
) -> Step {
    let mut nest = Nest::opened_by(b'[');
    let mut pos = pos;
    while let Some(block) = Block::at(body, pos) {
        let quotes = block.equal(b'"');
        if quotes == 0 && nest.in_string {
            let Some(quote) = string_end(body, pos, &mut nest.escaped) else {
                return Step::More;
            };
            nest.in_string = false;
            pos = quote + 1;
            continue;
        }
        let quotes = match quotes {
            0 => 0,
            quotes => quotes & !block.escaped(&mut nest.escaped),
        };
        let strings = parity(quotes) ^ if nest.in_string { u64::MAX } else { 0 };
        nest.in_string = strings >> 63 == 1;
        let mut brackets = block.brackets() & !strings;
        let mut blanks = block.blanks() & !strings;
        loop {
            // Up to the next bracket the depth is the same.
            let until = brackets.trailing_zeros();
            let mut within = blanks & !u64::MAX.checked_shl(until).unwrap_or(0);
            blanks &= !within;
            while nest.depth == 1 && within != 0 {
                let start = first(within);
                let len = (within >> start).trailing_ones() as usize;
                within &= within.wrapping_add(1 << start);
                if !take(pos + start..pos + start + len) {
                    return Step::More;
                }
            }
            if brackets == 0 {
                break;
            }
            let at = pos + first(brackets);
            brackets &= brackets - 1;
            if !nest.bracket(body, at, &mut Ignored) {
                return Step::Broken;
            }
            if nest.depth == 0 {
                return Step::Ended(at + 1);
            }
        }
        pos += block.len;
    }
    Step::More
}

/// 64 bytes that are processed together. In all masks bit n represents byte n.
struct Block {
    lanes: [u8x16; 4],
    /// How many bytes there are; the rest are blanks.
    len: usize,
}

impl Block {
    const LEN: usize = 64;

    /// The bytes from `pos` on, if there are any.
    fn at(body: &[u8], pos: usize) -> Option<Self> {
        let rest = body.get(pos..).filter(|rest| !rest.is_empty())?;
        let (len, lanes) = match rest.first_chunk() {
            Some(bytes) => (Self::LEN, Self::lanes(bytes)),
            None => {
                let mut bytes = [b' '; Self::LEN];
                bytes.get_mut(..rest.len())?.copy_from_slice(rest);
                (rest.len(), Self::lanes(&bytes))
            }
        };
        Some(Self { lanes, len })
    }

    fn lanes(bytes: &[u8; Self::LEN]) -> [u8x16; 4] {
        let (lanes, _) = bytes.as_chunks();
        std::array::from_fn(|lane| u8x16::new(lanes[lane]))
    }

    /// The bytes equal to this one.
    fn equal(&self, byte: u8) -> u64 {
        self.mask(|lane| lane.simd_eq(u8x16::splat(byte)))
    }

    /// The brackets `[`, `]`, `{` and `}`, and what must not be among them, the backslash. One bit
    /// makes the difference between the two kinds.
    fn brackets(&self) -> u64 {
        self.mask(|lane| {
            let folded = lane | u8x16::splat(0x20);
            // Between the two is the backslash, and a bar, which must not be there either.
            folded.simd_eq(u8x16::splat(b'{'))
                | folded.simd_eq(u8x16::splat(b'|'))
                | folded.simd_eq(u8x16::splat(b'}'))
        })
    }

    /// The blanks that are there.
    fn blanks(&self) -> u64 {
        let blanks = self.mask(|lane| {
            lane.simd_eq(u8x16::splat(b' '))
                | lane.simd_eq(u8x16::splat(b'\n'))
                | lane.simd_eq(u8x16::splat(b'\r'))
                | lane.simd_eq(u8x16::splat(b'\t'))
        });
        blanks & u64::MAX >> (Self::LEN - self.len)
    }

    fn mask(&self, test: impl Fn(u8x16) -> u8x16) -> u64 {
        let mask = |lane: usize| u64::from(test(self.lanes[lane]).to_bitmask()) << (lane * 16);
        mask(0) | mask(1) | mask(2) | mask(3)
    }

    /// The bytes after an odd number of backslashes. `carry` says whether the first byte is one,
    /// and afterwards, whether the first one after this block is.
    fn escaped(&self, carry: &mut bool) -> u64 {
        const EVEN: u64 = u64::MAX / 3;
        let behind_carry = u64::from(*carry);
        // A backslash that is itself escaped begins nothing.
        let runs = self.equal(b'\\') & !behind_carry;
        let starts = runs & !(runs << 1);
        // Adding its first bit to a run moves it to the first bit after the run. The run was of
        // odd length if that is even for an odd start, or the other way round.
        let (behind_odd, beyond) = runs.overflowing_add(starts & !EVEN);
        let behind_even = runs.wrapping_add(starts & EVEN);
        let escaped = (behind_odd & EVEN | behind_even & !EVEN) & !runs;
        *carry = beyond || self.len < Self::LEN && escaped >> self.len & 1 == 1;
        escaped | behind_carry
    }
}

/// Whether the number of bits up to and including each one is odd.
fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Whether the value that begins at `at` stands under this key.
pub(super) fn is_under(body: &[u8], at: usize, key: &[u8]) -> bool {
    let before = body.get(..at).unwrap_or(b"").trim_ascii_end();
    let quoted = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end);
    let name = quoted.and_then(|quoted| quoted.strip_suffix(b"\""));
    // A string ends with the first quote that no backslash precedes, so this one begins the key.
    name.and_then(|name| name.strip_suffix(key))
        .and_then(|front| front.strip_suffix(b"\""))
        .is_some_and(|front| !front.ends_with(b"\\"))
}

fn first(bits: u64) -> usize {
    bits.trailing_zeros() as usize
}

#[cfg(test)]
mod tests;
