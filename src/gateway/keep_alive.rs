//! Follows an event stream that passes unchanged, to know where a comment may stand.
//!
//! Contract: docs/contract/surface.md#8.4

/// The last bytes of an event stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventBorder {
    last: [u8; 3],
    any: bool,
}

impl EventBorder {
    /// Bytes were passed on.
    pub(super) fn push(&mut self, piece: &[u8]) {
        match *piece {
            [] => return,
            [.., a, b, c] => self.last = [a, b, c],
            [a, b] => self.last = [self.last[2], a, b],
            [a] => self.last = [self.last[1], self.last[2], a],
        }
        self.any = true;
    }

    /// Whether the last byte ended an event, or there was none. A CR whose LF may follow ends
    /// nothing.
    pub(super) fn is_here(self) -> bool {
        let [_, b, c] = self.last;
        !self.any
            || matches!([b, c], [b'\n', b'\n'] | [b'\r', b'\r'])
            || matches!(&self.last, b"\n\r\n" | b"\r\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_an_empty_line() {
        for (stream, is_here) in [
            ("", true),
            ("data: x\n\n", true),
            ("data: x\r\n\r\n", true),
            ("data: x\r\r", true),
            ("data: x\n\r\n", true),
            ("data: x\r\r\n", true),
            ("data: x\n", false),
            ("data: x\r\n", false),
            ("data: x\r\n\r", false),
            ("data: x\n\r", false),
            ("data: x", false),
            ("\n", false),
            ("x\n\ny", false),
            (": hello\n\n", true),
        ] {
            for size in 1..5 {
                let mut border = EventBorder::default();
                border.push(b"");
                stream
                    .as_bytes()
                    .chunks(size)
                    .for_each(|piece| border.push(piece));
                assert_eq!(border.is_here(), is_here, "{stream:?} {size}");
            }
        }
    }
}
