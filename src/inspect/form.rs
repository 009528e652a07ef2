//! Finds the parts `model` and `stream` of a form (`multipart/form-data`, RFC 7578, RFC 2046 5.1)
//! while it arrives. Files pass under a search for the boundary and are never copied.
//!
//! Contract: docs/contract/balancing.md#2

use std::ops::Range;

use memchr::memmem::{self, Finder};

use super::{BodyTally, Findings, Found, Missing, NameSource, Splice};

/// The longest boundary that is looked for; RFC 2046 allows 70.
const BOUNDARY_BYTES_MAX: usize = 200;

/// Blanks after a boundary on its line. More, and the line is none.
const PADDING_BYTES_MAX: usize = 64;

/// Bytes of the head of a part. A form with a longer one names no model.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Parts that name a model. A form with more of them names none.
const MODELS_MAX: usize = 64;

/// The distance between such parts over which a name is replaced in all of them: what lies between
/// is copied for that, which must not keep other requests waiting.
const SPREAD_BYTES_MAX: usize = 4 << 20;

/// The reader of one form.
#[derive(Debug, Clone)]
pub struct Form {
    /// Finds a line end, two hyphens and the boundary; `None` without a boundary.
    delimiter: Option<Finder<'static>>,
    state: State,
    /// Nothing that begins before this byte is of interest any more.
    pos: usize,
    /// The parts that name a model; of several the last counts.
    models: Vec<Range<usize>>,
    crowded: bool,
    /// Other readers of forms may find another model, or none.
    odd: bool,
    stream: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary, or inside a part that starts here.
    Part(Kind, usize),
    /// In the head of a part.
    Head,
    /// After the last boundary, or after something that is no form.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Stream,
    Other,
}

/// What follows a delimiter.
enum Line {
    /// A part, whose head begins here.
    Next(usize),
    Last,
    /// It does not end as a line of the boundary does.
    None,
    /// The bytes have not arrived.
    More,
}

impl Form {
    /// The reader of a body with this `Content-Type`; `None` if that is not a form.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let mut parameters = Parameters::of(content_type);
        if !parameters
            .value
            .eq_ignore_ascii_case(b"multipart/form-data")
        {
            return None;
        }
        let boundary = parameters.find(|(name, _)| name.eq_ignore_ascii_case(b"boundary"));
        let boundary = boundary.map(|(_, value)| value);
        let usable = |value: &Vec<u8>| (1..=BOUNDARY_BYTES_MAX).contains(&value.len());
        Some(Self {
            delimiter: boundary
                .filter(usable)
                .map(|value| Finder::new(&[b"\r\n--", &value[..]].concat()).into_owned()),
            state: State::Part(Kind::Other, 0),
            pos: 0,
            models: Vec::new(),
            crowded: false,
            odd: !is_plain(content_type),
            stream: false,
        })
    }

    /// Continues where the last call stopped. `body` is everything received so far.
    pub fn advance(&mut self, body: &[u8]) {
        self.read(body, false);
    }

    /// With `whole`, nothing follows.
    fn read(&mut self, body: &[u8], whole: bool) {
        let Some(delimiter) = self.delimiter.take() else {
            return;
        };
        while self.state != State::Over && self.step(body, &delimiter, whole).is_some() {}
        self.delimiter = Some(delimiter);
    }

    /// One boundary or head; `None` if the bytes ran out.
    fn step(&mut self, body: &[u8], delimiter: &Finder<'_>, whole: bool) -> Option<()> {
        match self.state {
            State::Part(kind, start) => {
                let at = self.next_delimiter(body, delimiter)?;
                // At the start of the body the line end is missing.
                let after = if at.is_none() { 0 } else { 2 } + delimiter.needle().len() - 2;
                let at = at.unwrap_or(0);
                match line(body, at + after) {
                    Line::More if !whole => return None,
                    Line::None => {
                        self.pos = at + 1;
                        return Some(());
                    }
                    Line::Next(head) => (self.state, self.pos) = (State::Head, head),
                    Line::Last | Line::More => self.state = State::Over,
                }
                self.end_part(body, kind, start..at);
            }
            State::Head => {
                let head = body.get(self.pos..)?;
                let (len, end) = if head.starts_with(b"\r\n") {
                    (0, 2)
                } else {
                    let within = head.get(..HEAD_BYTES_MAX).unwrap_or(head);
                    match memmem::find(within, b"\r\n\r\n") {
                        Some(len) => (len, len + 4),
                        None if within.len() < HEAD_BYTES_MAX => return None,
                        None => {
                            self.state = State::Over;
                            return Some(());
                        }
                    }
                };
                let head = head.get(..len)?;
                let kind = kind(head);
                self.odd |= kind != Kind::Model && may_name_model(head);
                self.pos += end;
                self.state = State::Part(kind, self.pos);
            }
            State::Over => return None,
        }
        Some(())
    }

    /// The next delimiter: its place, `None` for one at the start of the body without a line end.
    fn next_delimiter(&mut self, body: &[u8], delimiter: &Finder<'_>) -> Option<Option<usize>> {
        if self.pos == 0 {
            let first = delimiter.needle().get(2..)?;
            if body.starts_with(first) {
                return Some(None);
            }
            if first.starts_with(body) {
                return None;
            }
        }
        let rest = body.get(self.pos..)?;
        match delimiter.find(rest) {
            Some(at) => {
                self.pos += at;
                Some(Some(self.pos))
            }
            None => {
                let sure = body.len().saturating_sub(delimiter.needle().len() - 1);
                self.pos = self.pos.max(sure);
                None
            }
        }
    }

    fn end_part(&mut self, body: &[u8], kind: Kind, span: Range<usize>) {
        let Some(text) = body.get(span.clone()) else {
            return;
        };
        match kind {
            Kind::Model => {
                if self.models.len() < MODELS_MAX {
                    self.models.push(span);
                } else {
                    self.crowded = true;
                }
            }
            Kind::Stream => self.stream = text.trim_ascii() == b"true",
            Kind::Other => {}
        }
    }

    /// The result, once the body is complete or has ended early.
    pub fn finish(&mut self, body: &[u8]) -> Findings {
        self.read(body, true);
        let last = self.models.last().filter(|_| !self.crowded);
        let named = last.cloned().filter(|span| {
            let text = body.get(span.clone()).unwrap_or(b"");
            std::str::from_utf8(text).is_ok_and(|text| !text.trim().is_empty())
        });
        let missing = match (&self.delimiter, &self.models[..]) {
            (None, _) => Missing::NoBoundary,
            _ if self.crowded => Missing::Crowded,
            (_, []) => Missing::NoPart,
            _ => Missing::BlankPart,
        };
        Findings {
            model: named.map(|span| Found {
                start: span.start,
                end: span.end,
                escaped: false,
                source: NameSource::Part,
            }),
            stream: self.stream,
            missing,
            tally: BodyTally {
                ambiguous: self.odd || self.models.len() > 1,
                ..BodyTally::default()
            },
            ..Findings::default()
        }
    }

    /// Replaces the name in every part that has one. `None` if they are too far apart.
    pub fn rewrite(&self, body: &[u8], name: &str) -> Option<Splice> {
        let (first, last) = (self.models.first()?, self.models.last()?);
        if last.start - first.start > SPREAD_BYTES_MAX {
            return None;
        }
        let mut middle = name.as_bytes().to_vec();
        for pair in self.models.windows(2) {
            if let [before, after] = pair {
                middle.extend_from_slice(body.get(before.end..after.start)?);
                middle.extend_from_slice(name.as_bytes());
            }
        }
        Some(Splice::new(middle, first.start..last.end))
    }
}

/// Whether a `Content-Type` has one boundary, which all readers of forms find alike.
fn is_plain(content_type: &[u8]) -> bool {
    const BOUNDARY: &[u8] = b"boundary";
    let lower = content_type.to_ascii_lowercase();
    let mut places = memmem::find_iter(&lower, BOUNDARY);
    let (Some(at), None) = (places.next(), places.next()) else {
        return false;
    };
    let Some(value) = lower
        .get(at + BOUNDARY.len()..)
        .and_then(|rest| rest.strip_prefix(b"="))
    else {
        return false;
    };
    let (text, rest) = match value.strip_prefix(b"\"") {
        Some(quoted) => match memchr::memchr(b'"', quoted) {
            Some(end) => quoted.split_at(end + 1),
            None => return false,
        },
        None => value.split_at(memchr::memchr(b';', value).unwrap_or(value.len())),
    };
    let text = text.strip_suffix(b"\"").unwrap_or(text);
    let is_usual = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let rest = rest.trim_ascii();
    text.trim_ascii_end().iter().all(is_usual) && (rest.is_empty() || rest.starts_with(b";"))
}

/// Whether some reader of forms may take a part with this head for one that names a model: it has a
/// name with that word in front, or one in an extended notation (RFC 5987).
fn may_name_model(head: &[u8]) -> bool {
    let lower = head.to_ascii_lowercase();
    memmem::find_iter(&lower, b"name").any(|at| {
        let is_word = at
            .checked_sub(1)
            .and_then(|before| lower.get(before))
            .is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let rest = lower.get(at + 4..).unwrap_or(b"");
        let is_around =
            |byte: &u8| matches!(byte, b'=' | b'"' | b'\'' | b'\\') || byte.is_ascii_whitespace();
        let skipped = rest.iter().take_while(|byte| is_around(byte)).count();
        let value = rest.get(skipped..).unwrap_or(b"");
        is_word && (rest.trim_ascii_start().starts_with(b"*") || value.starts_with(b"model"))
    })
}

/// What follows a delimiter that ends at `at`.
fn line(body: &[u8], at: usize) -> Line {
    let rest = body.get(at..).unwrap_or(b"");
    let (last, rest) = match rest {
        [] | [b'-'] => return Line::More,
        [b'-', b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let padding = rest
        .iter()
        .take(PADDING_BYTES_MAX + 1)
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    match rest.get(padding..) {
        _ if padding > PADDING_BYTES_MAX => Line::None,
        Some([b'\r', b'\n', ..]) if last => Line::Last,
        Some([] | [b'\r']) | None => Line::More,
        Some([b'\r', b'\n', ..]) => Line::Next(at + padding + 2),
        Some(_) => Line::None,
    }
}

/// What a part with this head is.
fn kind(head: &[u8]) -> Kind {
    let mut kind = Kind::Other;
    let mut rest = head;
    while !rest.is_empty() {
        let end = memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let field = rest.get(..end).unwrap_or(b"");
        rest = rest.get(end + 2..).unwrap_or(b"");
        let Some(colon) = memchr::memchr(b':', field) else {
            continue;
        };
        let (name, value) = field.split_at(colon);
        if name
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            kind = disposition(value.get(1..).unwrap_or(b""));
        }
    }
    kind
}

fn disposition(value: &[u8]) -> Kind {
    let parameters = Parameters::of(value);
    if !parameters.value.eq_ignore_ascii_case(b"form-data") {
        return Kind::Other;
    }
    let mut kind = Kind::Other;
    for (name, value) in parameters {
        if name.eq_ignore_ascii_case(b"filename") || name.eq_ignore_ascii_case(b"filename*") {
            return Kind::Other;
        }
        if name.eq_ignore_ascii_case(b"name") {
            kind = match &value[..] {
                b"model" => Kind::Model,
                b"stream" => Kind::Stream,
                _ => Kind::Other,
            };
        }
    }
    kind
}

/// A header value with parameters (RFC 9110, 5.6.6).
struct Parameters<'v> {
    value: &'v [u8],
    rest: &'v [u8],
}

impl<'v> Parameters<'v> {
    fn of(header: &'v [u8]) -> Self {
        let end = memchr::memchr(b';', header).unwrap_or(header.len());
        let (value, rest) = header.split_at(end);
        Self {
            value: value.trim_ascii(),
            rest,
        }
    }
}

impl<'v> Iterator for Parameters<'v> {
    type Item = (&'v [u8], Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest.strip_prefix(b";")?.trim_ascii_start();
            let end = rest.iter().position(|byte| matches!(byte, b';' | b'='));
            let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
            let Some(value) = rest.strip_prefix(b"=") else {
                self.rest = rest;
                continue;
            };
            let (value, rest) = parameter_value(value.trim_ascii_start());
            // What follows a quoted string up to the next parameter has no meaning.
            let next = memchr::memchr(b';', rest).unwrap_or(rest.len());
            self.rest = rest.get(next..).unwrap_or(b"");
            return Some((name.trim_ascii(), value));
        }
    }
}

fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.trim_ascii().to_vec(), rest);
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return (value, quoted.get(at + 1..).unwrap_or(b"")),
            b'\\' => value.extend(bytes.next().map(|(_, escaped)| *escaped)),
            byte => value.push(*byte),
        }
    }
    (value, b"")
}

#[cfg(test)]
mod tests;
