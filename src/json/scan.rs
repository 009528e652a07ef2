//! Where the parts of a JSON text end. Each function takes the whole text and a position, and
//! knows neither keys nor meaning.
//!
//! On a text that is not JSON the positions have no meaning, but they never lie before the position
//! that was given, so that every walk ends.

use std::slice::SliceIndex;

use memchr::memchr2;
use wide::u8x16;

/// A part of a text, at positions that were found in it; empty if they lie outside, as they may in
/// a text that is not JSON.
#[inline]
pub(crate) fn part(text: &[u8], at: impl SliceIndex<[u8], Output = [u8]>) -> &[u8] {
    text.get(at).unwrap_or(&[])
}

/// Whether a byte is white space between the parts of a JSON text.
#[inline]
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The position of the first byte from `at` on that is not blank, or the end of the text.
#[inline]
pub(crate) fn skip_blanks(text: &[u8], at: usize) -> usize {
    skip_while(text, at, is_blank)
}

/// As [`skip_blanks`], with commas and colons as blanks.
#[inline]
pub(super) fn skip_separators(text: &[u8], at: usize) -> usize {
    skip_while(text, at, |byte| {
        is_blank(byte) || matches!(byte, b',' | b':')
    })
}

/// The end of the number or literal that begins at `at`; `at` itself if there is none.
#[inline]
pub(crate) fn scalar_end(text: &[u8], at: usize) -> usize {
    skip_while(text, at, |byte| {
        !is_blank(byte) && !matches!(byte, b',' | b':' | b'}' | b']' | b'"')
    })
}

#[inline]
fn skip_while(text: &[u8], mut at: usize, skipped: impl Fn(u8) -> bool) -> usize {
    while text.get(at).is_some_and(|byte| skipped(*byte)) {
        at += 1;
    }
    at
}

/// The position of the first quote or backslash, if it is among the next sixteen bytes and there
/// are that many: most keys and many strings are short, and a search that is made for long ones
/// has begun when these have ended.
#[inline]
pub(crate) fn near_mark(rest: &[u8]) -> Option<usize> {
    let block = u8x16::from(*rest.first_chunk::<16>()?);
    let marks = block.simd_eq(u8x16::splat(b'"')) | block.simd_eq(u8x16::splat(b'\\'));
    let marks = marks.to_bitmask();
    (marks != 0).then(|| marks.trailing_zeros() as usize)
}

/// The position of the quote that ends the string that continues at `at`; `None` if the text ends
/// before it.
#[inline]
pub(crate) fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = text.get(at..)?;
        at += match near_mark(rest) {
            Some(near) => near,
            None => memchr2(b'"', b'\\', rest)?,
        };
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// The position after the bracket that ends the array or object which begins at `at`; `None` if
/// the text ends before it.
pub(crate) fn nested_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match *text.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'"' => at = string_end(text, at + 1)?,
            _ => {}
        }
        at += 1;
    }
}
