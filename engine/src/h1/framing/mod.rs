//! Which body follows a head, and whether its connection can carry another message (RFC 9112 6.3
//! and 9.3). The one place that decides it; it reads no byte of a body and knows no leniency.

use super::field::ConnectionOptions;
use super::head::{RequestHead, ResponseHead, Version};
use super::reject::{Malformed, Reject};
use super::span::FieldId;
use super::target::is_authority;
use crate::limits::KEEP_ALIVE_SECS_MAX;

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// No body.
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// Chunks, for [`super::chunk::Decoder`].
    Chunked,
}

/// What a request's head says about the bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// The body that follows.
    pub body: RequestBody,
    /// The client wants to use the connection for another request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// The body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// No body, whatever the head says.
    None,
    /// This many bytes; may be 0.
    Length(u64),
    /// Chunks, for [`super::chunk::Decoder`].
    Chunked,
    /// All bytes until the backend closes the connection.
    ToClose,
}

/// What a response's head says about the bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// The body that follows.
    pub body: ResponseBody,
    /// The connection may be used again after the body.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`: how long the backend keeps an idle connection.
    pub keep_alive_secs: Option<u32>,
}

/// Decides about a request: its framing, `Host` and `Expect`.
///
/// | row | head | decision |
/// |---|---|---|
/// | 1 | `Content-Length` and `Transfer-Encoding` | 400 (RFC 9112 6.1 lets chunked win) |
/// | 2 | `Transfer-Encoding` on HTTP/1.0 | 400 (6.1: faulty framing) |
/// | 3 | `Transfer-Encoding`, once, exactly `chunked` | chunked |
/// | 4 | any other coding in it | 501 (6.1) |
/// | 5 | no coding, or `chunked` twice | 400 |
/// | 6 | `Content-Length` once, 1*DIGIT, fits 64 bits | that many bytes; 0 means no body |
/// | 7 | `Content-Length` anything else, or twice | 400 (6.3 lets equal values pass) |
/// | 8 | neither | no body |
/// | 9 | `Host` not exactly once on HTTP/1.1, twice on 1.0, or no authority | 400 (3.2) |
/// | 10 | `Expect` other than `100-continue` | 417 (RFC 9110 10.1.1) |
/// | 11 | `Content-Type` twice | 400 (RFC 9110 5.3: not a list) |
pub fn request(head: &RequestHead, buf: &[u8]) -> Result<RequestFraming, Reject> {
    let mut seen = RequestFields::default();
    for field in &head.fields {
        let value = field.value.of(buf);
        match field.id {
            FieldId::Host if seen.host.replace(value).is_some() => return Err(Reject::ManyHosts),
            FieldId::ContentType if std::mem::replace(&mut seen.content_type, true) => {
                return Err(Reject::ManyContentTypes);
            }
            FieldId::ContentLength if seen.length.replace(value).is_some() => {
                return Err(Reject::BadContentLength);
            }
            FieldId::TransferEncoding => seen.codings.add(value),
            FieldId::Connection if !seen.connection.add(value, &mut seen.connection_count) => {
                return Err(Reject::TooManyConnectionOptions);
            }
            FieldId::Expect => seen.expect(value)?,
            _ => {}
        }
    }
    let body = request_body(head.version, &seen)?;
    match seen.host {
        // RFC 9112 3.2. HTTP/1.0 knows no Host (surface 1).
        None if head.version == Version::Http11 => return Err(Reject::NoHost),
        Some(host) if !is_authority(host) => return Err(Reject::BadHost),
        _ => {}
    }
    Ok(RequestFraming {
        body,
        keep_alive: keep_alive(head.version, seen.connection),
        // RFC 9110 10.1.1: ignored on HTTP/1.0, and without a body there is nothing to wait for.
        expect_continue: seen.expect_continue
            && head.version == Version::Http11
            && body != RequestBody::None,
    })
}

/// What [`request`] collects in its one pass.
#[derive(Default)]
struct RequestFields<'b> {
    host: Option<&'b [u8]>,
    length: Option<&'b [u8]>,
    codings: Codings,
    connection: ConnectionOptions,
    connection_count: usize,
    content_type: bool,
    expect_continue: bool,
}

impl RequestFields<'_> {
    fn expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        if value.eq_ignore_ascii_case(b"100-continue") {
            self.expect_continue = true;
        } else if !value.is_empty() {
            return Err(Reject::UnknownExpectation);
        }
        Ok(())
    }
}

fn request_body(version: Version, seen: &RequestFields<'_>) -> Result<RequestBody, Reject> {
    match (seen.length, seen.codings.any) {
        (Some(_), true) => Err(Reject::ContentLengthAndTransferEncoding),
        (None, true) if version == Version::Http10 => Err(Reject::TransferEncodingOnHttp10),
        (None, true) if seen.codings.unknown => Err(Reject::UnsupportedTransferEncoding),
        (None, true) if seen.codings.is_chunked() => Ok(RequestBody::Chunked),
        (None, true) => Err(Reject::BadTransferEncoding),
        (Some(value), false) => match content_length(value) {
            Some(0) => Ok(RequestBody::None),
            Some(length) => Ok(RequestBody::Length(length)),
            None => Err(Reject::BadContentLength),
        },
        (None, false) => Ok(RequestBody::None),
    }
}

/// Decides about a response. `to_head_request`: the request was HEAD.
///
/// | row | head | decision |
/// |---|---|---|
/// | 1 | to HEAD, or status 1xx, 204 or 304 | no body, whatever the fields say (6.3) |
/// | 2 | `Transfer-Encoding` on HTTP/1.0 | malformed (6.1: faulty framing) |
/// | 3 | `Transfer-Encoding` is exactly `chunked` | chunked; with `Content-Length` too, the connection is not used again (6.1) |
/// | 4 | `Transfer-Encoding` anything else | malformed: it could not be decoded |
/// | 5 | `Content-Length` once or more, all the same digits | that many bytes |
/// | 6 | `Content-Length` anything else | malformed (6.3) |
/// | 7 | neither | to the close of the connection (6.3) |
///
/// The connection is kept by the rules of 9.3, never after 101 (another protocol began), and not
/// when `Keep-Alive: max=0` announces its end.
pub fn response(
    head: &ResponseHead,
    buf: &[u8],
    to_head_request: bool,
) -> Result<ResponseFraming, Malformed> {
    let mut length = None;
    let mut codings = Codings::default();
    let mut connection = ConnectionOptions::default();
    let mut connection_count = 0;
    let mut lease = KeepAlive::default();
    for field in &head.fields {
        let value = field.value.of(buf);
        match field.id {
            FieldId::ContentLength => length = Some(same_length(length, value)?),
            FieldId::TransferEncoding => codings.add(value),
            FieldId::Connection if !connection.add(value, &mut connection_count) => {
                return Err(Malformed::TooManyConnectionOptions);
            }
            FieldId::KeepAlive => lease.add(value),
            _ => {}
        }
    }
    let bodiless = to_head_request || matches!(head.status, 100..200 | 204 | 304);
    let body = match (length, codings.any) {
        _ if bodiless => ResponseBody::None,
        (_, true) if head.version == Version::Http10 || !codings.is_chunked() => {
            return Err(Malformed::BadTransferEncoding);
        }
        (_, true) => ResponseBody::Chunked,
        (Some(length), false) => ResponseBody::Length(length),
        (None, false) => ResponseBody::ToClose,
    };
    let ambiguous = codings.any && length.is_some();
    Ok(ResponseFraming {
        body,
        keep_alive: keep_alive(head.version, connection)
            && body != ResponseBody::ToClose
            && head.status != 101
            && !ambiguous
            && !lease.ends,
        keep_alive_secs: lease.secs,
    })
}

/// RFC 9112 9.3: `close` wins; HTTP/1.1 keeps by default, HTTP/1.0 only on request.
fn keep_alive(version: Version, options: ConnectionOptions) -> bool {
    !options.close && (version == Version::Http11 || options.keep_alive)
}

/// All `Transfer-Encoding` fields of a head together.
#[derive(Clone, Copy, Debug, Default)]
struct Codings {
    /// A field is there.
    any: bool,
    /// A member other than `chunked`; a parameter makes it another one too.
    unknown: bool,
    /// How many members are `chunked`.
    chunked: u32,
    /// A member is empty. RFC 9110 5.6.1 lets a recipient pass over it; here other readers of the
    /// same bytes must come to the same decision.
    empty: bool,
}

impl Codings {
    fn add(&mut self, value: &[u8]) {
        self.any = true;
        for item in value.split(|&byte| byte == b',').map(super::field::trim) {
            if item.eq_ignore_ascii_case(b"chunked") {
                self.chunked = self.chunked.saturating_add(1);
            } else if item.is_empty() {
                self.empty = true;
            } else {
                self.unknown = true;
            }
        }
    }

    /// Exactly one member, and it is `chunked`.
    fn is_chunked(self) -> bool {
        self.chunked == 1 && !self.unknown && !self.empty
    }
}

/// A `Content-Length` value: 1*DIGIT (RFC 9110 8.6), no sign, no list, no overflow.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 9110 8.6: a list of the same value is that value; other differences are an error.
fn same_length(before: Option<u64>, value: &[u8]) -> Result<u64, Malformed> {
    let mut length = before;
    for item in value.split(|&byte| byte == b',').map(super::field::trim) {
        let this = content_length(item).ok_or(Malformed::BadContentLength)?;
        if length.replace(this).is_some_and(|other| other != this) {
            return Err(Malformed::BadContentLength);
        }
    }
    length.ok_or(Malformed::BadContentLength)
}

/// `Keep-Alive: timeout=<seconds>, max=<requests>`; no RFC has it, most servers send it. What
/// cannot be read is passed over.
#[derive(Clone, Copy, Debug, Default)]
struct KeepAlive {
    secs: Option<u32>,
    ends: bool,
}

impl KeepAlive {
    fn add(&mut self, value: &[u8]) {
        for item in super::field::list_items(value) {
            let mut parts = item.splitn(2, |&byte| byte == b'=').map(super::field::trim);
            let (Some(name), Some(number)) = (parts.next(), parts.next()) else {
                continue;
            };
            let Some(number) = content_length(number) else {
                continue;
            };
            if name.eq_ignore_ascii_case(b"timeout") {
                let secs = u32::try_from(number)
                    .unwrap_or(u32::MAX)
                    .min(KEEP_ALIVE_SECS_MAX);
                self.secs = Some(self.secs.map_or(secs, |other| other.min(secs)));
            } else if name.eq_ignore_ascii_case(b"max") {
                self.ends |= number == 0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
