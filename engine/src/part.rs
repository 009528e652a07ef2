//! Parts of byte slices that never panic: a position after the end of the slice counts as its end.

/// The first bytes, `len` at most.
#[inline]
pub(crate) fn first(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or(bytes)
}

/// The bytes from `start` on; none if `start` is after the end.
#[inline]
pub(crate) fn rest(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or(&[])
}

/// The bytes from `start` to `end`; none if that is not a range within the slice.
#[inline]
pub(crate) fn between(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    bytes.get(start..end).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_with_their_slice() {
        assert_eq!(first(b"abc", 2), b"ab");
        assert_eq!(first(b"abc", 4), b"abc");
        assert_eq!(rest(b"abc", 2), b"c");
        assert_eq!(rest(b"abc", 4), b"");
        assert_eq!(between(b"abc", 1, 2), b"b");
        for (start, end) in [(1, 4), (2, 1), (5, 6)] {
            assert_eq!(between(b"abc", start, end), b"", "{start}..{end}");
        }
    }
}
