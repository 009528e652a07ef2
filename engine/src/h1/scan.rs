//! Finds the end of a head. The scan remembers its position, so that a head which arrives byte by
//! byte costs linear time. It refuses a bare LF as soon as it is seen, because a head of LF lines
//! never contains the CRLF CRLF that ends a head.

use memchr::memchr_iter;

use crate::limits::LEADING_CRLF_BYTES_MAX;
use crate::part;

/// The position of the search for the end of one head. Call [`Scan::reset`] before the next head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of empty lines before the head, once it has begun.
    lead: usize,
    /// Bytes of the head that have been searched.
    seen: usize,
    /// The offset in the head at which the current line begins.
    line_start: usize,
    /// The parser has tried the bytes that arrived first; it tries again when the head is complete.
    tried: bool,
}

/// An LF without a CR before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BareLf;

/// The bytes before the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// This many bytes of empty lines, then the head's first byte.
    Skipped(usize),
    /// Only empty lines so far, or part of one.
    Partial,
    /// A CR without its LF, an LF without its CR, or too many lines.
    Bad,
}

impl Scan {
    /// Forgets everything: the next call begins a new head.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// True on the first call for this head: a head usually arrives in one piece, and is then
    /// parsed without a search for its end.
    pub(super) fn first_try(&mut self) -> bool {
        !std::mem::replace(&mut self.tried, true)
    }

    /// Passes over empty lines before a request line (RFC 9112 2.2).
    pub(super) fn lead(&mut self, buf: &[u8]) -> Lead {
        while self.seen == 0 && matches!(buf.get(self.lead), Some(b'\r' | b'\n')) {
            match buf.get(self.lead..self.lead + 2) {
                None if buf.get(self.lead) == Some(&b'\r') => return Lead::Partial,
                Some(b"\r\n") if self.lead < LEADING_CRLF_BYTES_MAX => self.lead += 2,
                _ => return Lead::Bad,
            }
        }
        if buf.len() > self.lead {
            Lead::Skipped(self.lead)
        } else {
            Lead::Partial
        }
    }

    /// The length of the head that `head` begins with, its empty line included, or `None` while
    /// that has not arrived. Bytes once seen must be unchanged and in the same place in later
    /// calls.
    pub(super) fn end(&mut self, head: &[u8]) -> Result<Option<usize>, BareLf> {
        let unseen = part::rest(head, self.seen);
        for offset in memchr_iter(b'\n', unseen) {
            let lf = self.seen + offset;
            if lf == self.line_start || head.get(lf - 1) != Some(&b'\r') {
                return Err(BareLf);
            }
            if lf == self.line_start + 1 {
                return Ok(Some(lf + 1));
            }
            self.line_start = lf + 1;
        }
        self.seen = head.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_head_is_cut() {
        let table: &[(&str, Result<Option<usize>, BareLf>)] = &[
            ("GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\nbody\n\n", Ok(Some(24))),
            ("GET / HTTP/1.1\r\nA: b\r\n\r", Ok(None)),
            ("GET / HTTP/1.1\r\n", Ok(None)),
            ("GET / HTTP/1.1\nA: b\r\n\r\n", Err(BareLf)),
            ("GET / HTTP/1.1\r\n\nA: b\r\n\r\n", Err(BareLf)),
            ("GET / HTTP/1.1\r\nA: b\n\r\n", Err(BareLf)),
            ("GET / HTTP/1.1\r\nA: b\r\n\n", Err(BareLf)),
        ];
        for (text, expected) in table {
            assert_eq!(Scan::default().end(text.as_bytes()), *expected, "{text:?}");
            let mut scan = Scan::default();
            let found = (1..=text.len())
                .map(|end| scan.end(&text.as_bytes()[..end]))
                .find(|found| *found != Ok(None));
            assert_eq!(
                found.unwrap_or(Ok(None)),
                *expected,
                "{text:?} byte by byte"
            );
        }
    }

    #[test]
    fn empty_lines_before_the_head() {
        let table: &[(&[u8], Lead)] = &[
            (b"GET", Lead::Skipped(0)),
            (b"\r\nGET", Lead::Skipped(2)),
            (b"\r\n\r\n\r\n\r\nG", Lead::Skipped(8)),
            (b"", Lead::Partial),
            (b"\r", Lead::Partial),
            (b"\r\n", Lead::Partial),
            (b"\r\n\r", Lead::Partial),
            (b"\nGET", Lead::Bad),
            (b"\n", Lead::Bad),
            (b"\r\n\nGET", Lead::Bad),
            (b"\rGET", Lead::Bad),
            (b"\r\n\r\n\r\n\r\n\r\nG", Lead::Bad),
        ];
        for (bytes, expected) in table {
            assert_eq!(Scan::default().lead(bytes), *expected, "{bytes:?}");
            let mut scan = Scan::default();
            let found = (0..=bytes.len())
                .map(|end| scan.lead(&bytes[..end]))
                .find(|l| *l != Lead::Partial);
            assert_eq!(
                found.unwrap_or(Lead::Partial),
                *expected,
                "{bytes:?} byte by byte"
            );
        }
    }
}
