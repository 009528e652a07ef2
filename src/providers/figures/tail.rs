//! Keeps the end of a response while it is relayed, for the metrics in it.
//!
//! A piece costs one bounded copy; nothing is parsed before the end.
//!
//! Contract: docs/contract/operations.md#6

use memchr::{memchr_iter, memmem};

/// Most bytes kept of one response.
pub(crate) const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Bytes kept of a stream of events or lines: as much as its largest piece four times, since only the
/// last few events matter and there may be thousands of streams at a time; at least this much.
const TAIL_BYTES_LEAST: usize = 1024;

/// The most that is kept of a stream that arrives in small pieces.
const TAIL_BYTES_SMALL: usize = 4 * 1024;

/// Pieces of which the last ones are kept.
const PIECES_KEPT: usize = 4;

/// A piece of at least this size shows that the stream has large events or lines.
const LARGE_PIECE_BYTES: usize = 4 * 1024;

/// The most that is kept of the first event of a stream: Anthropic's has the model and the prompt's
/// tokens.
const HEAD_BYTES_MAX: usize = 1024;

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Lines,
    /// Server-sent events.
    Events,
    /// Text without a known type: the content decides.
    Unknown,
    /// Binary or compressed: nothing can be read.
    Opaque,
}

impl AnswerKind {
    /// The format by the values of `Content-Type` and `Content-Encoding`.
    pub fn of(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Self {
        let encoding = content_encoding.unwrap_or(b"").trim_ascii();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return Self::Opaque;
        }
        let Some(written) = content_type else {
            return Self::Unknown;
        };
        let end = written.iter().position(|byte| *byte == b';');
        let kind = end.map_or(written, |end| &written[..end]).trim_ascii();
        let is = |known: &str| kind.eq_ignore_ascii_case(known.as_bytes());
        let ends = |end: &str| {
            kind.len() >= end.len()
                && kind
                    .get(kind.len() - end.len()..)
                    .is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
        };
        if is("text/event-stream") {
            Self::Events
        } else if ends("ndjson") || ends("jsonl") || is("application/stream+json") {
            Self::Lines
        } else if is("application/json") || ends("+json") {
            Self::Json
        } else if kind.is_empty()
            || ends("/json-seq")
            || kind
                .get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"text/"))
        {
            Self::Unknown
        } else {
            Self::Opaque
        }
    }
}

/// The end of one response. It is created once for a connection and reset for each response, so it
/// allocates only for a response that is larger than the memory kept from earlier ones.
#[derive(Debug, Clone)]
pub struct Tail {
    kind: AnswerKind,
    /// The last bytes, a ring as soon as `limit` is reached.
    ring: Vec<u8>,
    /// The position of the oldest byte in the ring.
    oldest: usize,
    /// The limit of the ring's size.
    limit: usize,
    /// A stream of events up to the end of the first one that has data.
    head: Vec<u8>,
    /// Whether that end has come.
    head_complete: bool,
    /// Bytes of the whole response.
    total: u64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            kind: AnswerKind::Opaque,
            ring: Vec::new(),
            oldest: 0,
            limit: TAIL_BYTES_LEAST,
            head: Vec::new(),
            head_complete: false,
            total: 0,
        }
    }
}

/// The bytes that were kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptBytes<'a> {
    pub(super) kind: AnswerKind,
    /// The last bytes.
    pub(super) tail: &'a [u8],
    /// The first bytes, if they are not in `tail`.
    pub(super) head: &'a [u8],
    /// Whether something before `tail` is missing.
    pub(super) cut: bool,
}

impl Tail {
    /// Begins a response of this format and forgets the one before.
    pub fn begin(&mut self, kind: AnswerKind) {
        self.kind = kind;
        self.ring.clear();
        self.head.clear();
        self.head_complete = false;
        self.oldest = 0;
        self.total = 0;
        self.limit = match kind {
            AnswerKind::Events | AnswerKind::Lines => TAIL_BYTES_LEAST,
            // Of one document the beginning matters too.
            AnswerKind::Json | AnswerKind::Unknown | AnswerKind::Opaque => TAIL_BYTES_MAX,
        };
    }

    /// Ends a response: the memory of a large one is released.
    pub fn end(&mut self) {
        if self.ring.capacity() > TAIL_BYTES_SMALL {
            self.ring = Vec::new();
        }
    }

    /// Takes the next bytes of the response.
    #[inline]
    pub fn push(&mut self, piece: &[u8]) {
        if self.kind != AnswerKind::Opaque && !piece.is_empty() {
            self.keep(piece);
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.kind == AnswerKind::Events && !self.head_complete {
            self.keep_head(piece);
        }
        self.total = self.total.saturating_add(piece.len() as u64);
        let wanted = if piece.len() >= LARGE_PIECE_BYTES {
            TAIL_BYTES_MAX
        } else {
            (PIECES_KEPT * piece.len()).min(TAIL_BYTES_SMALL)
        };
        if wanted > self.limit {
            self.straighten();
            self.limit = wanted;
        }
        if let Some(last) = piece
            .len()
            .checked_sub(self.limit)
            .and_then(|start| piece.get(start..))
        {
            self.ring.clear();
            self.oldest = 0;
            self.grow(last.len());
            self.ring.extend_from_slice(last);
            return;
        }
        let room = self.limit - self.ring.len();
        let (appended, mut rest) = piece.split_at(room.min(piece.len()));
        self.grow(appended.len());
        self.ring.extend_from_slice(appended);
        // The ring is full: the bytes overwrite the oldest ones, in two parts where it wraps.
        while !rest.is_empty() {
            let until_end = self.limit - self.oldest;
            let (now, later) = rest.split_at(until_end.min(rest.len()));
            if let Some(place) = self.ring.get_mut(self.oldest..self.oldest + now.len()) {
                place.copy_from_slice(now);
            }
            self.oldest = (self.oldest + now.len()) % self.limit;
            rest = later;
        }
    }

    fn keep_head(&mut self, piece: &[u8]) {
        let room = HEAD_BYTES_MAX - self.head.len();
        self.head
            .extend_from_slice(piece.get(..room).unwrap_or(piece));
        let end = end_of_first_event(&self.head);
        self.head.truncate(end.unwrap_or(self.head.len()));
        self.head_complete = end.is_some() || self.head.len() == HEAD_BYTES_MAX;
    }

    /// Grows the ring by doubling, up to the limit.
    fn grow(&mut self, more: usize) {
        let needed = self.ring.len() + more;
        if needed > self.ring.capacity() {
            let wanted = needed.max(self.ring.capacity() * 2).min(self.limit);
            self.ring.reserve_exact(wanted - self.ring.len());
        }
    }

    /// Rotates the ring so that the oldest byte is first.
    fn straighten(&mut self) {
        self.ring.rotate_left(self.oldest);
        self.oldest = 0;
    }

    /// What was kept, in order.
    pub(super) fn kept(&mut self) -> KeptBytes<'_> {
        self.straighten();
        let cut = self.total > self.ring.len() as u64;
        KeptBytes {
            kind: self.kind,
            tail: &self.ring,
            head: if cut { &self.head } else { &[] },
            cut,
        }
    }
}

/// The end of the first event that has data, with the empty line that ends it.
fn end_of_first_event(stream: &[u8]) -> Option<usize> {
    let data = memmem::find(stream, b"data:")?;
    let newlines = memchr_iter(b'\n', stream.get(data..)?);
    let mut borders = newlines.filter_map(|at| {
        let next = data + at + 1;
        match stream.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    });
    borders.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_the_beginning_the_first_event_is_kept() {
        let start = ": hello\n\nevent: message_start\r\ndata: {\"a\":1}\r\n\r\n";
        let stream = format!("{start}{}", "data: {}\n\n".repeat(1000));
        for piece in [1, 7, 100, 5000] {
            let mut tail = Tail::default();
            tail.begin(AnswerKind::Events);
            stream
                .as_bytes()
                .chunks(piece)
                .for_each(|piece| tail.push(piece));
            // A large piece is kept whole with all others.
            let kept = if piece == 5000 { "" } else { start };
            assert_eq!(tail.kept().head, kept.as_bytes(), "pieces of {piece}");
            assert!(tail.ring.capacity() <= TAIL_BYTES_MAX);
        }
    }

    #[test]
    fn kinds_come_from_the_headers() {
        use AnswerKind::{Events, Json, Lines, Opaque, Unknown};
        let table: [(Option<&str>, Option<&str>, AnswerKind); 16] = [
            (Some("application/json"), None, Json),
            (
                Some("Application/JSON; charset=utf-8"),
                Some("identity"),
                Json,
            ),
            (Some("application/problem+json"), None, Json),
            (Some("application/x-ndjson"), None, Lines),
            (Some("application/jsonl"), None, Lines),
            (Some("application/stream+json"), None, Lines),
            (Some("text/event-stream;charset=utf-8"), None, Events),
            (Some("text/plain"), None, Unknown),
            (Some("application/json-seq"), None, Unknown),
            (Some(""), None, Unknown),
            (None, None, Unknown),
            (Some("image/png"), None, Opaque),
            (Some("application/octet-stream"), None, Opaque),
            (Some("application/json"), Some("gzip"), Opaque),
            (None, Some("br"), Opaque),
            (Some("text/event-stream"), Some(""), Events),
        ];
        for (kind, encoding, expected) in table {
            let of = AnswerKind::of(kind.map(str::as_bytes), encoding.map(str::as_bytes));
            assert_eq!(of, expected, "{kind:?} {encoding:?}");
        }
    }

    #[test]
    fn what_is_opaque_is_not_copied() {
        let mut tail = Tail::default();
        tail.begin(AnswerKind::Opaque);
        tail.push(&[1; 100]);
        assert_eq!(tail.ring.capacity(), 0);
        assert!(tail.kept().tail.is_empty());
    }

    #[test]
    fn a_stream_of_small_pieces_costs_little_memory() {
        let mut tail = Tail::default();
        tail.begin(AnswerKind::Events);
        for _ in 0..10_000 {
            tail.push(&[b'x'; 200]);
        }
        assert_eq!(tail.ring.capacity(), TAIL_BYTES_LEAST);
        assert!(tail.head.capacity() <= 2 * HEAD_BYTES_MAX);
        tail.push(&[b'x'; 2000]);
        assert_eq!(tail.limit, TAIL_BYTES_SMALL, "some pieces like the largest");
        tail.push(&[b'y'; LARGE_PIECE_BYTES]);
        tail.push(&[b'y'; 1 << 20]);
        assert_eq!(tail.ring.capacity(), TAIL_BYTES_MAX);
        assert_eq!(tail.kept().tail, vec![b'y'; TAIL_BYTES_MAX]);
        tail.begin(AnswerKind::Json);
        tail.push(b"{}");
        let kept = tail.kept();
        assert_eq!(
            (kept.tail, kept.head, kept.cut),
            (&b"{}"[..], &b""[..], false)
        );
    }

    proptest! {
        /// Whatever the pieces, the tail is the end of the response.
        #[test]
        fn the_tail_is_the_end(lens in proptest::collection::vec(
            prop_oneof![0_usize..50, 1000_usize..5000, Just(TAIL_BYTES_SMALL), 60_000_usize..70_000], 0..25)) {
            let mut tail = Tail::default();
            tail.begin(AnswerKind::Events);
            let mut answer = Vec::new();
            for (nth, len) in lens.iter().enumerate() {
                let piece: Vec<u8> = (0..*len).map(|at| (at * 7 + nth) as u8).collect();
                tail.push(&piece);
                answer.extend(piece);
            }
            let limit = tail.limit;
            let kept = tail.kept();
            prop_assert!(answer.ends_with(kept.tail));
            prop_assert_eq!(kept.cut, kept.tail.len() < answer.len());
            prop_assert!(kept.tail.len() == answer.len().min(limit)
                || kept.tail.len() >= TAIL_BYTES_LEAST);
            if kept.cut {
                prop_assert!(answer.starts_with(kept.head));
                prop_assert_eq!(kept.head.len(), answer.len().min(HEAD_BYTES_MAX));
            }
        }
    }
}
