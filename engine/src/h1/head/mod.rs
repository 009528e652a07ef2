//! The index of a head: positions in the caller's buffer, nothing copied. It owns no byte, so the
//! buffer that was parsed must be the one that later calls get, with the head at the same place.
//!
//! httparse validates tokens, values and the target's bytes; this module adds what it leaves open
//! (bare LF, leading lines, versions, size) and finds the names that matter. A head object is
//! meant to be used again: after warm-up, parsing allocates nothing.

use std::mem::MaybeUninit;

use memchr::memchr;

use super::field::{FieldNames, Nominated, classify};
use super::reject::{Malformed, Reject};
use super::scan::{Lead, Scan};
use super::span::{Field, FieldId, FieldSet, Span};
use super::target::TargetParts;
use crate::limits::{
    FIELDS_MAX, FIELDS_USUAL, REQUEST_HEAD_BYTES_CEILING, RESPONSE_HEAD_BYTES_MAX,
};
use crate::part;

/// The version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    fn of_minor(minor: Option<u8>) -> Self {
        if minor == Some(0) {
            Self::Http10
        } else {
            Self::Http11
        }
    }
}

/// What one run of the parser over a head found.
enum Found<E> {
    /// The complete head; the index is filled.
    Whole,
    /// An incomplete head.
    Part,
    /// The first line names a version that is not supported. The kind of fault is known only when
    /// the line is complete.
    OtherVersion,
    /// More fields than the scratch space holds.
    ManyFields,
    Fault(E),
}

/// The index of a request's head.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method as sent; its letter case matters.
    pub method: Span,
    /// The target as sent.
    pub target: Span,
    /// The version of the request line.
    pub version: Version,
    /// All fields in the order of their lines.
    pub fields: Vec<Field>,
    /// Bytes of the head from the start of the buffer: empty lines before it and its final CRLF
    /// included. The body begins here.
    pub len: usize,
    /// How many of them are empty lines that were passed over (RFC 9112 2.2).
    pub lead: usize,
    /// Host and port of a target in absolute form, else empty.
    pub authority: Span,
    /// The path in the target, without query. Empty means `/` (absolute form without a path);
    /// it is `*` in `OPTIONS *`.
    pub path: Span,
    /// What follows the first `?` of the target.
    pub query: Span,
    present: FieldSet,
}

impl RequestHead {
    /// An index to be filled by [`Self::parse`], with room for the usual number of fields.
    pub fn new() -> Self {
        Self {
            fields: Vec::with_capacity(FIELDS_USUAL),
            ..Self::default()
        }
    }

    /// Indexes the head at the start of `buf`: `Ok(true)`, it is complete and the index filled;
    /// `Ok(false)`, more bytes are needed. Call it again with the same bytes and more after them,
    /// and with the same `scan`, which must be reset before the next head.
    ///
    /// `head_bytes_max` bounds the head without the empty lines before it; a head beyond it, or
    /// one that reaches it without being complete, is [`Reject::HeadTooLarge`]. After any error
    /// the connection is of no more use.
    pub fn parse<N: FieldNames>(
        &mut self,
        buf: &[u8],
        scan: &mut Scan,
        head_bytes_max: usize,
    ) -> Result<bool, Reject> {
        let lead = match scan.lead(buf) {
            Lead::Skipped(lead) => lead,
            Lead::Partial => return Ok(false),
            Lead::Bad => return Err(Reject::BadRequestLine),
        };
        let limit = head_bytes_max.min(REQUEST_HEAD_BYTES_CEILING);
        let window = part::first(buf, lead.saturating_add(limit));
        self.lead = lead;
        if scan.first_try() {
            match self.attempt_any::<N>(window) {
                Found::Whole => return Ok(true),
                Found::Fault(reject) => return Err(reject),
                Found::ManyFields => return Err(Reject::HeadTooLarge),
                Found::OtherVersion if has_line(window, lead) => {
                    return Err(version_fault(window, lead));
                }
                Found::Part | Found::OtherVersion => {}
            }
        }
        let head = part::rest(window, lead);
        if scan.end(head).map_err(|_| Reject::BareLf)?.is_none() {
            return if head.len() >= limit {
                Err(Reject::HeadTooLarge)
            } else {
                Ok(false)
            };
        }
        match self.attempt_any::<N>(window) {
            Found::Whole => Ok(true),
            Found::Fault(reject) => Err(reject),
            Found::ManyFields => Err(Reject::HeadTooLarge),
            Found::OtherVersion => Err(version_fault(window, lead)),
            // The parser and the scan agree on where a head ends; if they ever did not, the
            // message would be a smuggled one.
            Found::Part => Err(Reject::BadHeader),
        }
    }

    fn attempt_any<N: FieldNames>(&mut self, window: &[u8]) -> Found<Reject> {
        match self.attempt::<N, FIELDS_USUAL>(window) {
            Found::ManyFields => self.attempt::<N, FIELDS_MAX>(window),
            found => found,
        }
    }

    #[inline(never)] // Its scratch space must not be in the caller's frame.
    fn attempt<N: FieldNames, const FIELDS: usize>(&mut self, window: &[u8]) -> Found<Reject> {
        let mut scratch = [const { MaybeUninit::uninit() }; FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let head = part::rest(window, self.lead);
        let len = match request.parse_with_uninit_headers(head, &mut scratch) {
            Ok(httparse::Status::Complete(len)) => self.lead + len,
            Ok(httparse::Status::Partial) => return Found::Part,
            Err(httparse::Error::TooManyHeaders) => return Found::ManyFields,
            Err(httparse::Error::Version) => return Found::OtherVersion,
            Err(error) => return Found::Fault(request_fault(error)),
        };
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Found::Fault(Reject::BadRequestLine);
        };
        self.method = Span::within(window, method.as_bytes());
        self.target = Span::within(window, target.as_bytes());
        self.version = Version::of_minor(request.version);
        self.len = len;
        match index::<N>(window, request.headers, len, &mut self.fields) {
            Some(present) => self.present = present,
            None => return Found::Fault(Reject::BareLf),
        }
        match TargetParts::parse(window, self.method, self.target) {
            Ok(TargetParts {
                authority,
                path,
                query,
            }) => {
                (self.authority, self.path, self.query) = (authority, path, query);
                Found::Whole
            }
            Err(reject) => Found::Fault(reject),
        }
    }

    /// The value of the first field with this name.
    pub fn get<'b>(&self, buf: &'b [u8], id: FieldId) -> Option<&'b [u8]> {
        self.all(id).next().map(|field| field.value.of(buf))
    }

    /// All fields with this name, in order.
    pub fn all(&self, id: FieldId) -> impl Iterator<Item = &Field> {
        all(&self.fields, self.present, id)
    }

    /// Whether a field with this name is there.
    pub fn has(&self, id: FieldId) -> bool {
        self.present.has(id)
    }

    /// The host that the request is for: the absolute form's authority, else `Host` (RFC 9112
    /// 3.2.2), else empty.
    pub fn host<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        if self.authority.is_empty() {
            self.get(buf, FieldId::Host).unwrap_or(b"")
        } else {
            self.authority.of(buf)
        }
    }

    /// The fields that this head's `Connection` names.
    pub fn nominated<'h>(&'h self, buf: &'h [u8]) -> Nominated<'h> {
        Nominated::new(buf, &self.fields, self.present)
    }

    /// The size that `server.request_limits.max_header_size` limits: method, target and version
    /// and four bytes, and name and value and four bytes for each field but `Host`
    /// (docs/contract/surface.md#11).
    pub fn counted_size(&self) -> usize {
        const LINE_BYTES: usize = 4;
        let fields: usize = self
            .fields
            .iter()
            .filter(|field| field.id != FieldId::Host)
            .map(|field| field.name.len() + field.value.len() + LINE_BYTES)
            .sum();
        self.method.len() + self.target.len() + "HTTP/1.1".len() + LINE_BYTES + fields
    }
}

/// The index of a response's head.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status: three digits, 100 or more.
    pub status: u16,
    /// The version of the status line.
    pub version: Version,
    /// The reason phrase; may be empty, may hold bytes beyond ASCII.
    pub reason: Span,
    /// All fields in the order of their lines.
    pub fields: Vec<Field>,
    /// Bytes of the head, its final CRLF included.
    pub len: usize,
    present: FieldSet,
}

impl ResponseHead {
    /// An index to be filled by [`Self::parse`], with room for the usual number of fields.
    pub fn new() -> Self {
        Self {
            fields: Vec::with_capacity(FIELDS_USUAL),
            ..Self::default()
        }
    }

    /// Indexes the head at the start of `buf`, with the rules of [`RequestHead::parse`]. Empty
    /// lines before it are an error: RFC 9112 2.2 allows them in front of requests only, and on a
    /// connection that is used again they are the rest of something.
    pub fn parse<N: FieldNames>(
        &mut self,
        buf: &[u8],
        scan: &mut Scan,
        head_bytes_max: usize,
    ) -> Result<bool, Malformed> {
        let limit = head_bytes_max.min(RESPONSE_HEAD_BYTES_MAX);
        let window = part::first(buf, limit);
        if matches!(window.first(), Some(b'\r' | b'\n')) {
            return Err(Malformed::BadStatusLine);
        }
        if scan.first_try() {
            match self.attempt_any::<N>(window) {
                Found::Whole => return Ok(true),
                Found::Fault(malformed) => return Err(malformed),
                Found::ManyFields => return Err(Malformed::HeadTooLarge),
                Found::OtherVersion => return Err(status_line_fault(window)),
                Found::Part => {}
            }
        }
        if scan.end(window).map_err(|_| Malformed::BareLf)?.is_none() {
            return if window.len() >= limit {
                Err(Malformed::HeadTooLarge)
            } else {
                Ok(false)
            };
        }
        match self.attempt_any::<N>(window) {
            Found::Whole => Ok(true),
            Found::Fault(malformed) => Err(malformed),
            Found::ManyFields => Err(Malformed::HeadTooLarge),
            Found::OtherVersion => Err(status_line_fault(window)),
            Found::Part => Err(Malformed::BadHeader),
        }
    }

    fn attempt_any<N: FieldNames>(&mut self, window: &[u8]) -> Found<Malformed> {
        match self.attempt::<N, FIELDS_USUAL>(window) {
            Found::ManyFields => self.attempt::<N, FIELDS_MAX>(window),
            found => found,
        }
    }

    #[inline(never)] // Its scratch space must not be in the caller's frame.
    fn attempt<N: FieldNames, const FIELDS: usize>(&mut self, window: &[u8]) -> Found<Malformed> {
        let mut scratch = [const { MaybeUninit::uninit() }; FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let strict = httparse::ParserConfig::default();
        let parsed = strict.parse_response_with_uninit_headers(&mut response, window, &mut scratch);
        let len = match parsed {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Found::Part,
            Err(httparse::Error::TooManyHeaders) => return Found::ManyFields,
            Err(httparse::Error::Version) => return Found::OtherVersion,
            Err(error) => return Found::Fault(response_fault(error)),
        };
        let Some(status) = response.code else {
            return Found::Fault(Malformed::BadStatusLine);
        };
        self.status = status;
        self.version = Version::of_minor(response.version);
        self.len = len;
        match index::<N>(window, response.headers, len, &mut self.fields) {
            Some(present) => self.present = present,
            None => return Found::Fault(Malformed::BareLf),
        }
        // httparse hides a reason with bytes beyond ASCII: take it from the line.
        let Some(line_end) = memchr(b'\r', window) else {
            return Found::Fault(Malformed::BareLf);
        };
        let line_end = line_end as u32;
        let start = ("HTTP/1.1 200 ".len() as u32).min(line_end);
        self.reason = Span {
            start,
            end: line_end,
        };
        // RFC 9110 15: the first digit is a class, and classes begin at 1.
        if self.status < 100 {
            Found::Fault(Malformed::BadStatusLine)
        } else {
            Found::Whole
        }
    }

    /// The value of the first field with this name.
    pub fn get<'b>(&self, buf: &'b [u8], id: FieldId) -> Option<&'b [u8]> {
        self.all(id).next().map(|field| field.value.of(buf))
    }

    /// All fields with this name, in order.
    pub fn all(&self, id: FieldId) -> impl Iterator<Item = &Field> {
        all(&self.fields, self.present, id)
    }

    /// Whether a field with this name is there.
    pub fn has(&self, id: FieldId) -> bool {
        self.present.has(id)
    }

    /// The fields that this head's `Connection` names.
    pub fn nominated<'h>(&'h self, buf: &'h [u8]) -> Nominated<'h> {
        Nominated::new(buf, &self.fields, self.present)
    }
}

fn all(fields: &[Field], present: FieldSet, id: FieldId) -> impl Iterator<Item = &Field> {
    let fields = if present.has(id) { fields } else { &[] };
    fields.iter().filter(move |field| field.id == id)
}

/// Fills `fields` from what the parser found in a head of `len` bytes at the start of `window`.
/// `None`: a line ends with LF alone. The parser takes LF for a line end, and lets the next name
/// (or the empty line) follow at once, so two bytes before each show how the line ended.
fn index<N: FieldNames>(
    window: &[u8],
    headers: &[httparse::Header<'_>],
    len: usize,
    fields: &mut Vec<Field>,
) -> Option<FieldSet> {
    let ends_with_crlf = |at: usize| {
        window
            .get(at.wrapping_sub(2)..at)
            .is_some_and(|end| end == b"\r\n")
    };
    let mut present = FieldSet::default();
    let mut whole = ends_with_crlf(len) && ends_with_crlf(len.saturating_sub(2));
    fields.clear();
    fields.extend(headers.iter().map(|header| {
        let name = Span::within(window, header.name.as_bytes());
        let id = classify::<N>(header.name.as_bytes());
        whole &= ends_with_crlf(name.start as usize);
        present.add(id);
        Field {
            name,
            value: Span::within(window, header.value),
            id,
        }
    }));
    whole.then_some(present)
}

/// Whether the line that begins at `start` has ended.
fn has_line(window: &[u8], start: usize) -> bool {
    memchr(b'\n', part::rest(window, start)).is_some()
}

/// What is wrong with a request line with an unsupported version.
fn version_fault(window: &[u8], start: usize) -> Reject {
    let rest = part::rest(window, start);
    let line = part::first(rest, memchr(b'\n', rest).unwrap_or(rest.len()));
    if line == b"PRI * HTTP/2.0\r" {
        return Reject::Http2Preface;
    }
    let mut words = line
        .strip_suffix(b"\r")
        .unwrap_or(line)
        .split(|&byte| byte == b' ')
        .skip(2);
    match (words.next(), words.next()) {
        // RFC 9112 2.3: a legal version, in the exact spelling.
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Reject::BadVersion
        }
        _ => Reject::BadRequestLine,
    }
}

fn status_line_fault(window: &[u8]) -> Malformed {
    if window.starts_with(b"HTTP/") {
        Malformed::BadVersion
    } else {
        Malformed::BadStatusLine
    }
}

fn request_fault(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Reject::BadHeader,
        httparse::Error::NewLine => Reject::BareCr,
        _ => Reject::BadRequestLine,
    }
}

fn response_fault(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Malformed::BadHeader,
        httparse::Error::NewLine => Malformed::BadHeader,
        _ => Malformed::BadStatusLine,
    }
}

#[cfg(test)]
mod tests;
