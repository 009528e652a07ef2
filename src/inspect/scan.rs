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
    /// Only if files are counted: the start of the string that the next byte is inside of, and
    /// for each open bracket whether it is that of an array of images.
    string_start: usize,
    images: u128,
}

/// What is done with the strings that a scan passes.
pub(super) trait Strings {
    /// Whether anything is; if not, it costs nothing.
    const COUNT: bool;

    /// Takes a string between its quotes, in the value that is being scanned.
    fn take(&mut self, body: &[u8], text: Range<usize>, nest: &Nest);
}

/// Nothing is done with them.
pub(super) struct Ignored;

impl Strings for Ignored {
    const COUNT: bool = false;

    fn take(&mut self, _: &[u8], _: Range<usize>, _: &Nest) {}
}

impl Nest {
    /// At the start of a value, after its `[` or `{`.
    pub(super) fn opened_by(bracket: u8) -> Self {
        Self {
            objects: u128::from(bracket == b'{'),
            depth: 1,
            in_string: false,
            escaped: false,
            string_start: 0,
            images: 0,
        }
    }

    /// The same for a bracket at `at` whose files are counted.
    pub(super) fn opened_at(body: &[u8], at: usize, bracket: u8) -> Self {
        Self {
            images: u128::from(bracket == b'[' && is_under(body, at, b"images")),
            ..Self::opened_by(bracket)
        }
    }

    /// Whether the innermost open bracket is that of an array of images.
    pub(super) fn is_in_images(&self) -> bool {
        self.images & 1 == 1
    }

    /// Continues at `pos`. After [`Step::More`] the next call continues at the end of this `body`.
    pub(super) fn scan(&mut self, body: &[u8], pos: usize) -> Step {
        self.scan_with(body, pos, &mut Ignored)
    }

    /// The same, with something to be done with the strings.
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
                        texts.take(body, self.string_start..quote, self);
                    }
                    pos = quote + 1;
                    continue;
                }
                // From each quote on the state is the opposite, until the next one.
                (_, in_string) => {
                    let quotes = quotes & !block.escaped(&mut self.escaped);
                    if S::COUNT && quotes != 0 {
                        // Strings that begin and end in one block are too short to matter.
                        if in_string {
                            texts.take(body, self.string_start..pos + first(quotes), self);
                        }
                        self.string_start = pos + last(quotes) + 1;
                    }
                    parity(quotes) ^ if in_string { u64::MAX } else { 0 }
                }
            };
            self.in_string = strings >> 63 == 1;
            let mut brackets = block.brackets() & !strings;
            while brackets != 0 {
                let at = pos + first(brackets);
                brackets &= brackets - 1;
                if !body.get(at).is_some_and(|&bracket| self.bracket(bracket)) {
                    return Step::Broken;
                }
                if S::COUNT {
                    self.note_images(body, at);
                }
                if self.depth == 0 {
                    return Step::Ended(at + 1);
                }
            }
            pos += block.len;
        }
        Step::More
    }

    /// Takes the bracket at `at` into account for the arrays of images.
    fn note_images(&mut self, body: &[u8], at: usize) {
        self.images = match body.get(at) {
            Some(b'[') => self.images << 1 | u128::from(is_under(body, at, b"images")),
            Some(b'{') => self.images << 1,
            _ => self.images >> 1,
        };
    }

    /// Takes a bracket; false if it must not be there. Nor must a backslash.
    fn bracket(&mut self, bracket: u8) -> bool {
        match bracket {
            b'{' | b'[' => {
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(bracket == b'{');
                self.depth <= NESTING_MAX
            }
            b'}' | b']' => {
                let object = self.objects & 1 == 1;
                self.depth -= 1;
                self.objects >>= 1;
                object == (bracket == b'}')
            }
            _ => false,
        }
    }
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

/// The place of the last bit that is set; there is one.
fn last(bits: u64) -> usize {
    bits.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte, the way the grammar is read.
    fn slow_string_end(body: &[u8], escaped: &mut bool) -> Option<usize> {
        for (at, byte) in body.iter().enumerate() {
            match (*escaped, byte) {
                (false, b'"') => return Some(at),
                (false, b'\\') => *escaped = true,
                _ => *escaped = false,
            }
        }
        None
    }

    /// Runs of plain text, backslashes and quotes, of lengths around those of blocks and lanes.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0..5_usize, 14..18_usize, 60..68_usize];
        let run = (
            prop::sample::select(b"a\\\\\"".to_vec()),
            length,
            any::<bool>(),
        );
        prop::collection::vec(run, 0..12).prop_map(|runs| {
            let mut text = Vec::new();
            for (byte, length, escaped_quote) in runs {
                // A quote ends the string, so only one of them at a time, and mostly escaped.
                text.resize(text.len() + if byte == b'"' { 1 } else { length }, byte);
                text.extend_from_slice(if escaped_quote { b"a\\\"" } else { b"" });
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(4000)
        })]

        #[test]
        fn strings_end_where_they_do_byte_by_byte(
            text in text(),
            cut in any::<prop::sample::Index>(),
            escaped in any::<bool>(),
        ) {
            let mut slowly = escaped;
            let expected = slow_string_end(&text, &mut slowly);
            let mut at_once = escaped;
            prop_assert_eq!(string_end(&text, 0, &mut at_once), expected);
            prop_assert_eq!(at_once, slowly);

            let cut = cut.index(text.len() + 1);
            let mut in_two = escaped;
            let end = string_end(&text[..cut], 0, &mut in_two)
                .or_else(|| string_end(&text, cut, &mut in_two));
            prop_assert_eq!((end, in_two), (expected, slowly));
        }

        #[test]
        fn blocks_know_what_is_escaped(text in text(), escaped in any::<bool>()) {
            let mut carry = escaped;
            let mut slowly = escaped;
            let mut pos = 0;
            while let Some(block) = Block::at(&text, pos) {
                let mask = block.escaped(&mut carry);
                for (at, &byte) in text[pos..pos + block.len].iter().enumerate() {
                    // Of a run of backslashes only the byte after it matters.
                    if byte != b'\\' {
                        prop_assert_eq!(mask >> at & 1 == 1, slowly, "byte {}", pos + at);
                    }
                    slowly = byte == b'\\' && !slowly;
                }
                prop_assert_eq!(carry, slowly);
                pos += block.len;
            }
        }
    }

    #[test]
    fn nested_values_end_with_their_first_bracket() {
        for before in 0..130 {
            let text = "x".repeat(before);
            let body = format!(r#"{{"k]":["{text}\\\"]","}}"],"{text}":{{}}}}]]"#);
            let end = body.len() - 2;
            assert_eq!(
                Nest::opened_by(b'{').scan(body.as_bytes(), 1),
                Step::Ended(end)
            );
        }
    }

    #[test]
    fn nested_values_that_are_broken() {
        let deep = "[".repeat(NESTING_MAX as usize);
        for broken in [
            "}",
            "[}",
            "{]",
            "[[]}",
            r#"["]"}"#,
            r"\n]",
            r#"[\"]]"#,
            "|]",
            deep.as_str(),
        ] {
            assert_eq!(
                Nest::opened_by(b'[').scan(broken.as_bytes(), 0),
                Step::Broken,
                "{broken}"
            );
        }
        for open in ["", "[]", "{", r#""]"#, r#""\"]"#, &deep[1..]] {
            assert_eq!(
                Nest::opened_by(b'[').scan(open.as_bytes(), 0),
                Step::More,
                "{open}"
            );
        }
    }

    #[test]
    fn scalars() {
        for token in [
            "0",
            "-1",
            "12.5e-3",
            "true",
            "false",
            "null",
            "NaN",
            "-Infinity",
        ] {
            assert!(is_scalar(token.as_bytes()), "{token}");
        }
        for token in ["", "tru", "True", "nul", "nan", "+1", ".5", "e1"] {
            assert!(!is_scalar(token.as_bytes()), "{token}");
        }
    }
}
