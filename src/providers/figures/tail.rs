//! Keeps the end of a response while it is relayed, for the metrics in it.
//!
//! A piece costs one bounded copy; nothing is parsed before the end.
//!
//! Contract: docs/contract/operations.md#6

/// Most bytes kept of one response.
pub(crate) const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Bytes kept of a stream of events or lines that arrives in small pieces: only the last few events
/// matter, and there may be thousands of streams at a time.
const TAIL_BYTES_SMALL: usize = 4 * 1024;

/// A piece of at least this size shows that the stream has large events or lines.
const LARGE_PIECE_BYTES: usize = 4 * 1024;

/// Bytes kept of the beginning of a stream of events: Anthropic's first event has the model and
/// the prompt's tokens.
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
    /// The first bytes of a stream of events.
    head: Vec<u8>,
    /// Bytes of the whole response.
    total: u64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            kind: AnswerKind::Opaque,
            ring: Vec::new(),
            oldest: 0,
            limit: TAIL_BYTES_SMALL,
            head: Vec::new(),
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
        self.oldest = 0;
        self.total = 0;
        self.limit = match kind {
            AnswerKind::Events | AnswerKind::Lines => TAIL_BYTES_SMALL,
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
        if self.kind == AnswerKind::Events && self.total < HEAD_BYTES_MAX as u64 {
            let room = HEAD_BYTES_MAX - self.head.len();
            let first = piece.get(..room).unwrap_or(piece);
            self.head.extend_from_slice(first);
        }
        self.total = self.total.saturating_add(piece.len() as u64);
        if piece.len() >= LARGE_PIECE_BYTES && self.limit < TAIL_BYTES_MAX {
            self.straighten();
            self.limit = TAIL_BYTES_MAX;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert_eq!(tail.ring.capacity(), TAIL_BYTES_SMALL);
        assert!(tail.head.capacity() <= 2 * HEAD_BYTES_MAX);
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
                || kept.tail.len() >= TAIL_BYTES_SMALL);
            if kept.cut {
                prop_assert!(answer.starts_with(kept.head));
                prop_assert_eq!(kept.head.len(), answer.len().min(HEAD_BYTES_MAX));
            }
        }
    }
}
