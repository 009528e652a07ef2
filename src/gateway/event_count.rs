//! Counts the events of a stream that passes, for requests whose endpoint reports no usage.
//!
//! Contract: docs/contract/access.md#7.2

use memchr::memchr;

use crate::providers::figures::AnswerKind;

/// The bytes of a line that tell what it is: `data: [DONE]`, and blanks.
const LINE_BYTES: usize = 16;

/// The data events of a stream, or its lines of JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct EventCount {
    /// Each line is an event.
    is_lines: bool,
    /// The first bytes of the line that is passing, and how many there are.
    line: [u8; LINE_BYTES],
    line_bytes: usize,
    /// The event that is passing has data, and more than the word that ends a stream.
    has_data: bool,
    events: u64,
}

impl EventCount {
    /// The count of a response's events; `None` if it is no stream.
    pub(super) fn of(kind: AnswerKind) -> Option<Self> {
        let is_lines = match kind {
            AnswerKind::Events => false,
            AnswerKind::Lines => true,
            AnswerKind::Json | AnswerKind::Unknown | AnswerKind::Opaque => return None,
        };
        Some(Self {
            is_lines,
            ..Self::default()
        })
    }

    /// Events that have passed.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    /// Takes a piece of the stream.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            if self.line_bytes == 0 {
                // Most lines come whole: nothing of them is copied.
                self.end_line(line.get(..LINE_BYTES).unwrap_or(line));
            } else {
                self.add(line);
                let (line, bytes) = (self.line, std::mem::take(&mut self.line_bytes));
                self.end_line(line.get(..bytes).unwrap_or(&line));
            }
            piece = rest.get(1..).unwrap_or(b"");
        }
        self.add(piece);
    }

    fn add(&mut self, part: &[u8]) {
        if let Some(room) = self.line.get_mut(self.line_bytes..) {
            let taken = room.len().min(part.len());
            if let (Some(room), Some(part)) = (room.get_mut(..taken), part.get(..taken)) {
                room.copy_from_slice(part);
            }
            self.line_bytes += taken;
        }
    }

    /// Takes the beginning of a line that has ended.
    fn end_line(&mut self, line: &[u8]) {
        if self.is_lines {
            self.events += u64::from(!line.trim_ascii_end().is_empty());
        } else if let Some(data) = line.strip_prefix(b"data:") {
            self.has_data |= data.trim_ascii() != b"[DONE]";
        } else if line.trim_ascii_end().is_empty() {
            self.events += u64::from(std::mem::take(&mut self.has_data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_they_are_cut() {
        let table: [(AnswerKind, &str, u64); 7] = [
            (AnswerKind::Events, "data: {\"a\":1}\n\ndata: {}\n\n", 2),
            (
                AnswerKind::Events,
                "event: x\r\ndata: 1\r\ndata: 2\r\n\r\n: keep-alive\r\n\r\ndata: [DONE]\r\n\r\n",
                1,
            ),
            (AnswerKind::Events, "data:[DONE]\n\n", 0),
            (AnswerKind::Events, "data: [DONE] and more\n\ndata: 1\n", 1),
            (AnswerKind::Events, "event: ping\n\nid: 7\n\n", 0),
            (AnswerKind::Lines, "{\"a\":1}\n{\"b\":2}\n\n{", 2),
            (AnswerKind::Lines, "", 0),
        ];
        for (kind, stream, events) in table {
            for size in 1..=stream.len().max(1) {
                let mut count = EventCount::of(kind).expect("a stream");
                for piece in stream.as_bytes().chunks(size) {
                    count.push(piece);
                }
                assert_eq!(count.events(), events, "{stream:?} by {size}");
            }
        }
        assert!(EventCount::of(AnswerKind::Json).is_none());
    }
}
