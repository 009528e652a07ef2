//! Splits a body into server-sent events (WHATWG HTML, section 9.2.6), whatever pieces it comes in.
//!
//! Only `data` is kept, which is all that LLM servers send. Lines end with LF or CRLF; a lone CR is
//! not taken for a line end.

/// One event, as long as the splitter is not fed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The lines of its data, joined with LF.
    pub data: &'a [u8],
    /// Bytes of body before its first line.
    pub at: u64,
}

/// Splits one body.
#[derive(Debug, Default)]
pub struct EventSplitter {
    /// A line that has not come whole.
    line: Vec<u8>,
    /// The data of the event so far.
    data: Vec<u8>,
    has_data: bool,
    /// Where the present event began.
    at: u64,
    /// Bytes of the body up to the last line end.
    position: u64,
}

impl EventSplitter {
    /// Takes bytes of the body and hands every event that is now whole to `sink`.
    pub fn feed(&mut self, mut input: &[u8], mut sink: impl FnMut(Event<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (line, rest) = (&input[..end], &input[end + 1..]);
            if self.line.is_empty() {
                self.take_line(line, &mut sink);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut sink);
                whole.clear();
                self.line = whole;
            }
            input = rest;
        }
        self.line.extend_from_slice(input);
    }

    /// True when no event has been begun.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data
    }

    fn take_line(&mut self, line: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        self.position += line.len() as u64 + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if self.has_data {
                sink(Event {
                    data: &self.data,
                    at: self.at,
                });
            }
            self.data.clear();
            self.has_data = false;
            self.at = self.position;
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data
                .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a body that comes in pieces of at most `step` bytes.
    fn split(body: &[u8], step: usize) -> (Vec<(String, u64)>, bool) {
        let mut splitter = EventSplitter::default();
        let mut events = Vec::new();
        for piece in body.chunks(step) {
            splitter.feed(piece, |event| {
                events.push((String::from_utf8(event.data.to_vec()).unwrap(), event.at));
            });
        }
        (events, splitter.is_between_events())
    }

    #[test]
    fn splits_alike_however_the_body_is_cut() {
        type Row = (&'static str, &'static [(&'static str, u64)], bool);
        let table: [Row; 9] = [
            ("", &[], true),
            ("data: a\n\n", &[("a", 0)], true),
            ("data: a\n\ndata: b\n\n", &[("a", 0), ("b", 9)], true),
            (
                "data: a\r\n\r\ndata: b\r\n\r\n",
                &[("a", 0), ("b", 11)],
                true,
            ),
            ("data:a\ndata:  b\n\n", &[("a\n b", 0)], true),
            (": ping\n\ndata: a\n\n", &[("a", 8)], true),
            ("event: x\nid: 1\ndata: a\n\n", &[("a", 0)], true),
            ("\n\ndata:\n\n", &[("", 2)], true),
            ("data: a\n\ndata: half\n", &[("a", 0)], false),
        ];
        for (body, want, between) in table {
            let want: Vec<_> = want
                .iter()
                .map(|(data, at)| ((*data).to_owned(), *at))
                .collect();
            for step in 1..=body.len().max(1) {
                assert_eq!(
                    split(body.as_bytes(), step),
                    (want.clone(), between),
                    "{body:?} {step}"
                );
            }
        }
    }
}
