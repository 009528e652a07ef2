//! Requests and responses from other projects' test suites, against the codec.
//!
//! `vectors/README.md` describes the files. Every case is fed whole and cut at every byte, and the
//! outcome must be the same; where it differs from what the source expects, `skips.txt` says what
//! it is and why.

use olla_engine::bench::{Decoder, NoNames, Piece, ResponseBody, Scan, framing};
use olla_engine::h1::{RequestBody, RequestHead, ResponseHead};
use testkit::vectors::{self, Case};

const HEAD_BYTES_MAX: usize = 1 << 20;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// All messages were read to their ends.
    Accept,
    /// The last message is not over.
    Open,
    /// A message was refused, for this reason.
    Reject(String),
}

impl Outcome {
    fn name(&self) -> String {
        match self {
            Self::Accept => "accept".into(),
            Self::Open => "open".into(),
            Self::Reject(reason) => reason.clone(),
        }
    }

    /// Whether a source that expects `expect` is content.
    fn fits(&self, expect: &str) -> bool {
        match expect {
            "accept" => *self == Self::Accept,
            "open" => matches!(self, Self::Open | Self::Accept),
            // A message that stays unfinished when its connection ends is refused then.
            "reject" => matches!(self, Self::Reject(_) | Self::Open),
            "judge" => true,
            other => panic!("unknown expectation {other}"),
        }
    }
}

/// All cases of a file; those in which a request of HTTP/1.1 has no `Host` are given one, so that
/// what they are about is what decides.
fn cases(text: &str) -> Vec<Case> {
    let mut cases = vectors::cases(text);
    for case in cases.iter_mut().filter(|case| !case.is_response) {
        while let Some(start) = hostless_request(&case.bytes) {
            let line = case.bytes[start..]
                .windows(2)
                .position(|end| end == b"\r\n")
                .unwrap();
            let at = start + line + 2;
            case.bytes.splice(at..at, *b"Host: h\r\n");
        }
    }
    cases
}

/// Where the first request starts that is refused because it has no `Host`.
fn hostless_request(bytes: &[u8]) -> Option<usize> {
    let mut wire = Wire::new(bytes, bytes.len());
    let refused = run_requests(&mut wire).err()? == "NoHost";
    let blank = wire
        .here()
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    refused.then_some(wire.start + blank)
}

/// A connection's bytes as they arrive: grown by `feed`, used up from the front.
struct Wire<'a> {
    bytes: &'a [u8],
    /// The first arrival ends here.
    cut: usize,
    start: usize,
    end: usize,
}

impl<'a> Wire<'a> {
    fn new(bytes: &'a [u8], cut: usize) -> Self {
        Self {
            bytes,
            cut,
            start: 0,
            end: cut,
        }
    }

    fn here(&self) -> &'a [u8] {
        &self.bytes[self.start..self.end]
    }

    /// False when nothing more comes.
    fn feed(&mut self) -> bool {
        let more = self.end == self.cut && self.cut < self.bytes.len();
        self.end = self.bytes.len();
        more
    }

    fn is_over(&self) -> bool {
        self.start == self.bytes.len()
    }
}

/// A body's end: `Ok(true)` reached, `Ok(false)` not there.
fn read_length(wire: &mut Wire<'_>, length: u64) -> bool {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    while wire.here().len() < length {
        if !wire.feed() {
            return false;
        }
    }
    wire.start += length;
    true
}

fn read_chunks(wire: &mut Wire<'_>) -> Result<bool, String> {
    let mut decoder = Decoder::new();
    loop {
        match decoder
            .next(wire.here(), 0)
            .map_err(|error| format!("BadChunk::{error:?}"))?
        {
            Piece::Data { end, .. } => wire.start += end,
            Piece::Skip { to } => wire.start += to,
            Piece::Done { at } => {
                wire.start += at;
                return Ok(true);
            }
            Piece::More if wire.feed() => {}
            Piece::More => return Ok(false),
        }
    }
}

fn run_requests(wire: &mut Wire<'_>) -> Result<Outcome, String> {
    let mut head = RequestHead::new();
    while !wire.is_over() {
        let mut scan = Scan::default();
        let named = |reject| format!("{reject:?}");
        while !head
            .parse::<NoNames>(wire.here(), &mut scan, HEAD_BYTES_MAX)
            .map_err(named)?
        {
            if !wire.feed() {
                // Empty lines after the last request are no request.
                let blank = wire.here().iter().all(|byte| b"\r\n".contains(byte));
                return Ok(if blank {
                    Outcome::Accept
                } else {
                    Outcome::Open
                });
            }
        }
        let framing = framing::request(&head, wire.here()).map_err(named)?;
        wire.start += head.len;
        let whole = match framing.body {
            RequestBody::None => true,
            RequestBody::Length(length) => read_length(wire, length),
            RequestBody::Chunked => read_chunks(wire)?,
        };
        if !whole {
            return Ok(Outcome::Open);
        }
        if !framing.keep_alive {
            break;
        }
    }
    Ok(Outcome::Accept)
}

fn run_responses(wire: &mut Wire<'_>) -> Result<Outcome, String> {
    let mut head = ResponseHead::new();
    while !wire.is_over() {
        let mut scan = Scan::default();
        let named = |malformed| format!("{malformed:?}");
        while !head
            .parse::<NoNames>(wire.here(), &mut scan, HEAD_BYTES_MAX)
            .map_err(named)?
        {
            if !wire.feed() {
                return Ok(Outcome::Open);
            }
        }
        let framing = framing::response(&head, wire.here(), false).map_err(named)?;
        wire.start += head.len;
        let whole = match framing.body {
            ResponseBody::None => true,
            ResponseBody::Length(length) => read_length(wire, length),
            ResponseBody::Chunked => read_chunks(wire)?,
            ResponseBody::ToClose => break,
        };
        if !whole {
            return Ok(Outcome::Open);
        }
        if !framing.keep_alive {
            break;
        }
    }
    Ok(Outcome::Accept)
}

fn run(case: &Case, cut: usize) -> Outcome {
    let mut wire = Wire::new(&case.bytes, cut);
    let outcome = if case.is_response {
        run_responses(&mut wire)
    } else {
        run_requests(&mut wire)
    };
    outcome.unwrap_or_else(Outcome::Reject)
}

/// Outcome and reason of each case that ends otherwise than its source expects.
#[test]
fn every_vector_ends_as_expected_or_is_explained() {
    let mut skips = vectors::skips(include_str!("vectors/skips.txt"));
    let mut wrong = Vec::new();
    for text in [
        include_str!("vectors/gunicorn.txt"),
        include_str!("vectors/llhttp.txt"),
    ] {
        let cases = cases(text);
        assert!(cases.len() > 100);
        for case in cases {
            assert!(!case.bytes.is_empty(), "{}", case.id);
            let outcome = run(&case, case.bytes.len());
            let skip = skips.remove(case.id.as_str());
            let right = match skip {
                None => outcome.fits(&case.expect),
                Some((name, _)) => !outcome.fits(&case.expect) && outcome.name() == name,
            };
            if !right {
                wrong.push(format!(
                    "{} | {} | expected {}",
                    case.id,
                    outcome.name(),
                    case.expect
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "without a fitting line in skips.txt:\n{}",
        wrong.join("\n")
    );
    assert!(skips.is_empty(), "no such case: {skips:?}");
}

#[test]
fn no_vector_depends_on_how_it_is_cut() {
    for text in [
        include_str!("vectors/gunicorn.txt"),
        include_str!("vectors/llhttp.txt"),
    ] {
        for case in cases(text) {
            let whole = run(&case, case.bytes.len());
            // Cuts in the middle of very long lines have nothing to tell.
            for cut in (0..case.bytes.len()).filter(|cut| cut % 64 == 0 || *cut < 1024) {
                let pieces = run(&case, cut);
                let same = match (&whole, &pieces) {
                    // Which of several faults is named depends on which was seen first.
                    (Outcome::Reject(_), Outcome::Reject(_)) => true,
                    // A fault in an unfinished head shows at once, or when the head ends.
                    (Outcome::Reject(_), Outcome::Open) => !has_head_end(&case.bytes),
                    _ => whole == pieces,
                };
                assert!(same, "{} cut at {cut}: {whole:?}, {pieces:?}", case.id);
            }
        }
    }
}

fn has_head_end(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|end| end == b"\r\n\r\n")
}
