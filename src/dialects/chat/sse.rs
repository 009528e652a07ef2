//! Event streams as lines: bytes cut anywhere go in, whole lines come out.

use std::ops::ControlFlow;

use memchr::memchr2;

/// Buffers that grew larger than this for one long line are given back after it.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A line is longer than its reader allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts a stream at CR LF, LF or CR.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The beginning of an incomplete line.
    partial: Vec<u8>,
    /// The last line ended with CR; an LF that follows belongs to it.
    after_cr: bool,
    line_bytes_max: usize,
}

impl Lines {
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        Self {
            partial: Vec::new(),
            after_cr: false,
            line_bytes_max,
        }
    }

    /// Calls `each` with every line that `input` completes, without its end, until it breaks.
    /// A line that lies in `input` as a whole is not copied.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), TooLong> {
        loop {
            if self.after_cr && !input.is_empty() {
                self.after_cr = false;
                input = input.strip_prefix(b"\n").unwrap_or(input);
            }
            let end = memchr2(b'\n', b'\r', input);
            let (run, rest) = input.split_at(end.unwrap_or(input.len()));
            if self.partial.len() + run.len() > self.line_bytes_max {
                self.partial = Vec::new();
                return Err(TooLong);
            }
            let [line_end, rest @ ..] = rest else {
                self.partial.extend_from_slice(run);
                return Ok(());
            };
            self.after_cr = *line_end == b'\r';
            input = rest;
            let step = if self.partial.is_empty() {
                each(run)
            } else {
                self.partial.extend_from_slice(run);
                let step = each(&self.partial);
                self.partial.clear();
                self.partial.shrink_to(KEPT_BYTES_MAX);
                step
            };
            if step.is_break() {
                return Ok(());
            }
        }
    }

    /// Bytes of an incomplete line.
    pub(crate) fn held(&self) -> usize {
        self.partial.len()
    }

    /// The last line, if the stream ended without its end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }
}

/// What a line means to a reader that only wants data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SseLine<'a> {
    /// The end of an event.
    Blank,
    /// Data of the event.
    Data(&'a [u8]),
    /// The name of the event.
    Event(&'a [u8]),
    /// A comment or another field.
    Other,
}

impl<'a> SseLine<'a> {
    /// The blank after the colon is optional.
    pub(crate) fn read(line: &'a [u8]) -> Self {
        if line.is_empty() {
            return Self::Blank;
        }
        let value = |name: &[u8]| match line.strip_prefix(name)? {
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            [] => Some(&[][..]),
            _ => None,
        };
        match line.first() {
            Some(b'd') => value(b"data").map_or(Self::Other, Self::Data),
            Some(b'e') => value(b"event").map_or(Self::Other, Self::Event),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]], max: usize) -> Result<Vec<String>, TooLong> {
        let mut lines = Lines::new(max);
        let mut found = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| {
                found.push(String::from_utf8_lossy(line).into_owned());
                ControlFlow::Continue(())
            })?;
        }
        found.push(String::from_utf8_lossy(&lines.rest()).into_owned());
        Ok(found)
    }

    #[test]
    fn lines_end_in_three_ways_wherever_they_are_cut() {
        let text: &[u8] = b"a\nbc\r\n\r\nd\re\n\n\r\rf";
        let expected = ["a", "bc", "", "d", "e", "", "", "", "f"];
        assert_eq!(cut(&[text], 9).unwrap(), expected);
        for at in 0..=text.len() {
            let (one, two) = text.split_at(at);
            assert_eq!(cut(&[one, b"", two], 9).unwrap(), expected, "{at}");
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        assert_eq!(cut(&bytes, 9).unwrap(), expected);
    }

    #[test]
    fn long_lines_are_refused_however_they_arrive() {
        assert!(cut(&[b"12345\n"], 5).is_ok());
        assert_eq!(cut(&[b"123456\n"], 5), Err(TooLong));
        assert_eq!(cut(&[b"123", b"456"], 5), Err(TooLong));
    }

    #[test]
    fn what_lines_mean() {
        for (line, meaning) in [
            ("", SseLine::Blank),
            ("data: x", SseLine::Data(b"x")),
            ("data:x", SseLine::Data(b"x")),
            ("data:  x", SseLine::Data(b" x")),
            ("data:", SseLine::Data(b"")),
            ("data", SseLine::Data(b"")),
            ("database: x", SseLine::Other),
            (": ping", SseLine::Other),
            ("event: x", SseLine::Event(b"x")),
            ("event:x", SseLine::Event(b"x")),
            ("event", SseLine::Event(b"")),
            ("events: x", SseLine::Other),
            (" data: x", SseLine::Other),
            ("id", SseLine::Other),
        ] {
            assert_eq!(SseLine::read(line.as_bytes()), meaning, "{line:?}");
        }
    }
}
