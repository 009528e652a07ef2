//! From a page to its response: entity tag, 304 for an unchanged page, gzip.
//!
//! Contract: docs/contract/operations.md#3

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::format::base36;

/// The longest `If-None-Match` and `Accept-Encoding` that are evaluated, in bytes.
const HEADER_BYTES_MAX: usize = 1024;

/// The smallest body that is compressed, in bytes.
const GZIP_BYTES_MIN: usize = 256;

/// `Content-Type` of the JSON pages.
pub(crate) const JSON: &str = "application/json";

/// A rendered page, independent of the request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// 200, or 503 of `/internal/ready`.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// How it may be cached and compressed.
    pub caching: Caching,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// The caching rules of the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caching {
    /// Has this `ETag`, supports conditional requests, and is compressed.
    Tagged(String),
    /// Is compressed and never cached.
    NoStore,
    /// Is never cached and too small to be compressed.
    NoStorePlain,
    /// Has no caching headers and is not compressed.
    Plain,
}

/// The headers of a request that matter for the dashboard's files; several lines of one name joined
/// by `, `.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PageHeaders<'a> {
    /// `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
    /// `Range`; for files only.
    pub range: Option<&'a [u8]>,
    /// `If-Range`; for files only.
    pub if_range: Option<&'a [u8]>,
}

/// A response. Its sender adds `Content-Length` and leaves out the body for HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageResponse {
    /// The status.
    pub status: u16,
    /// The headers in the order in which they are sent.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body, compressed if the headers say so.
    pub body: Bytes,
}

/// A rendered page in the form for all clients that accept the same encodings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RenderedPage {
    status: u16,
    content_type: &'static str,
    caching: Caching,
    is_gzip: bool,
    body: Bytes,
}

/// A page with an entity tag. The tag is that of the page after [`Tagged::blank`].
pub(super) trait Tagged: Serialize {
    /// Clears the values that change although nothing has happened, such as ages.
    fn blank(&mut self);
}

/// A JSON page with its tag.
pub(super) fn tagged<T: Tagged>(mut page: T) -> Page {
    let body = json(&page);
    page.blank();
    let mut hash = Fnv::default();
    // Hashing cannot fail, and the page was serialised above.
    let _ = serde_json::to_writer(&mut hash, &page);
    Page {
        status: 200,
        content_type: JSON,
        caching: Caching::Tagged(format!("W/\"{}\"", base36(hash.0))),
        body,
    }
}

/// A JSON page that must not be cached.
pub(super) fn no_store<T: Serialize>(page: &T) -> Page {
    Page {
        status: 200,
        content_type: JSON,
        caching: Caching::NoStore,
        body: json(page),
    }
}

/// A page as JSON. Pages are plain structures with string keys, which serde_json always writes.
pub(super) fn json<T: Serialize>(page: &T) -> Vec<u8> {
    serde_json::to_vec(page).unwrap_or_else(|error| unreachable!("a page is not JSON: {error}"))
}

/// FNV-1a with 64 bits.
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RenderedPage {
    /// The page, compressed if clients accept that and it is worth it.
    pub(crate) fn new(page: Page, gzip_accepted: bool) -> Self {
        let wanted = gzip_accepted
            && page.caching.is_compressible()
            && page.status == 200
            && page.body.len() >= GZIP_BYTES_MIN;
        let packed = if wanted { gzip(&page.body) } else { None };
        Self {
            status: page.status,
            content_type: page.content_type,
            caching: page.caching,
            is_gzip: packed.is_some(),
            body: packed.unwrap_or(page.body).into(),
        }
    }

    /// The body, which all responses share.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The page with another handle on its body.
    pub(crate) fn with_body(&self, body: Bytes) -> Self {
        Self {
            body,
            ..self.clone()
        }
    }

    /// The response to a request with this `If-None-Match`. It shares the body.
    pub(crate) fn answer(&self, if_none_match: Option<&[u8]>) -> PageResponse {
        let mut headers: Vec<(&'static str, Cow<'static, str>)> = Vec::with_capacity(5);
        let mut unchanged = false;
        match &self.caching {
            Caching::Tagged(tag) => {
                unchanged = if_none_match.is_some_and(|list| matches(list, tag));
                headers.push(("ETag", tag.clone().into()));
                headers.push(("Cache-Control", "private, no-cache".into()));
            }
            Caching::NoStore | Caching::NoStorePlain => {
                headers.push(("Cache-Control", "no-store".into()));
            }
            Caching::Plain => {}
        }
        if self.caching.is_compressible() {
            headers.push(("Vary", "Accept-Encoding".into()));
        }
        if unchanged {
            return PageResponse {
                status: 304,
                headers,
                body: Bytes::new(),
            };
        }
        headers.push(("Content-Type", self.content_type.into()));
        if self.is_gzip {
            headers.push(("Content-Encoding", "gzip".into()));
        }
        PageResponse {
            status: self.status,
            headers,
            body: self.body.clone(),
        }
    }
}

impl Caching {
    const fn is_compressible(&self) -> bool {
        matches!(self, Self::Tagged(_) | Self::NoStore)
    }
}

/// `None` if compression fails, which writing to memory cannot.
fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// Whether an `If-None-Match` names the tag (RFC 9110 sections 8.8.3.2 and 13.1.2).
pub(super) fn matches(list: &[u8], tag: &str) -> bool {
    if list.len() > HEADER_BYTES_MAX {
        return false;
    }
    if list.trim_ascii() == b"*" {
        return true;
    }
    let opaque = |tag: &[u8]| {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag).to_vec()
    };
    let wanted = opaque(tag.as_bytes());
    // The tags of pages have no comma, so splitting another tag at one cannot create a match.
    list.split(|byte| *byte == b',')
        .any(|part| opaque(part) == wanted)
}

/// Whether an `Accept-Encoding` gives gzip a weight above 0 (RFC 9110 section 12.5.3).
pub(crate) fn accepts_gzip(list: &[u8]) -> bool {
    if list.len() > HEADER_BYTES_MAX {
        return false;
    }
    let Ok(list) = std::str::from_utf8(list) else {
        return false;
    };
    let mut gzip = None;
    let mut any = None;
    for part in list.split(',') {
        let (coding, parameters) = part.split_once(';').unwrap_or((part, ""));
        let accepted = has_weight(parameters);
        match coding.trim() {
            "*" => any = Some(accepted),
            coding if coding.eq_ignore_ascii_case("gzip") => gzip = Some(accepted),
            _ => {}
        }
    }
    gzip.or(any).unwrap_or(false)
}

/// Whether the weight among a coding's parameters is above 0. A weight that cannot be parsed is 0.
fn has_weight(parameters: &str) -> bool {
    let weight = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    weight.is_none_or(|weight| {
        weight
            .parse::<f32>()
            .is_ok_and(|weight| weight > 0.0 && weight <= 1.0)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[derive(Serialize, Clone)]
    struct Sample {
        timestamp: String,
        value: u32,
        text: String,
    }

    impl Tagged for Sample {
        fn blank(&mut self) {
            self.timestamp.clear();
        }
    }

    fn sample() -> Sample {
        Sample {
            timestamp: "now".to_owned(),
            value: 1,
            text: "x".repeat(300),
        }
    }

    fn tag(page: &Page) -> &str {
        match &page.caching {
            Caching::Tagged(tag) => tag,
            other => panic!("{other:?}"),
        }
    }

    /// `If-None-Match` and `Accept-Encoding`.
    type Asked<'a> = (Option<&'a str>, Option<&'a str>);

    fn ask<'a>(if_none_match: Option<&'a str>, accept_encoding: Option<&'a str>) -> Asked<'a> {
        (if_none_match, accept_encoding)
    }

    /// The response to a request with these headers.
    fn answer(page: Page, (if_none_match, accept_encoding): &Asked<'_>) -> PageResponse {
        let gzip = accept_encoding.is_some_and(|list| accepts_gzip(list.as_bytes()));
        RenderedPage::new(page, gzip).answer(if_none_match.map(str::as_bytes))
    }

    #[test]
    fn the_tag_covers_all_but_the_time() {
        let page = tagged(sample());
        assert!(tag(&page).starts_with("W/\"") && tag(&page).ends_with('"'));
        let later = tagged(Sample {
            timestamp: "later".to_owned(),
            ..sample()
        });
        assert_eq!(tag(&page), tag(&later));
        assert_ne!(page.body, later.body);
        let other = tagged(Sample {
            value: 2,
            ..sample()
        });
        assert_ne!(tag(&page), tag(&other));
    }

    #[test]
    fn conditional_requests() {
        let page = tagged(sample());
        let tag = tag(&page).to_owned();
        let strong = tag.trim_start_matches("W/").to_owned();
        let long = format!("{}{tag}", "\"a\",".repeat(300));
        for (header, status) in [
            ("*", 304),
            (" * ", 304),
            (tag.as_str(), 304),
            (strong.as_str(), 304),
            (&format!("\"a\", {tag}"), 304),
            (&format!("{strong},\"b\""), 304),
            ("*, \"a\"", 200),
            ("\"a\", *", 200),
            ("W/\"nosuchtag\"", 200),
            ("", 200),
            (&long, 200),
        ] {
            let reply = answer(page.clone(), &ask(Some(header), Some("gzip")));
            assert_eq!(reply.status, status, "{header}");
            if status == 304 {
                assert_eq!(
                    reply.headers,
                    [
                        ("ETag", tag.clone().into()),
                        ("Cache-Control", "private, no-cache".into()),
                        ("Vary", "Accept-Encoding".into()),
                    ]
                );
                assert!(reply.body.is_empty());
            }
        }
    }

    #[test]
    fn gzip_is_negotiated() {
        let long = format!("{}gzip", "br, ".repeat(300));
        for (header, packed) in [
            ("gzip", true),
            ("GZip", true),
            ("br, gzip;q=0.5", true),
            ("*", true),
            ("*;q=0.1, br", true),
            ("gzip; q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("br", false),
            ("", false),
            ("gzip;q=x", false),
            ("gzip;Q=1", true),
            (&long, false),
        ] {
            let page = tagged(sample());
            let plain = page.body.clone();
            let reply = answer(page, &ask(None, Some(header)));
            let encoding = reply.headers.contains(&("Content-Encoding", "gzip".into()));
            assert_eq!(encoding, packed, "{header}");
            assert!(reply.headers.contains(&("Vary", "Accept-Encoding".into())));
            if packed {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&*reply.body)
                    .read_to_end(&mut unpacked)
                    .unwrap();
                assert_eq!(unpacked, plain);
            } else {
                assert_eq!(reply.body, plain);
            }
        }
        let reply = answer(tagged(sample()), &ask(None, None));
        assert!(reply.headers.contains(&("Vary", "Accept-Encoding".into())));
        assert!(reply.headers.contains(&("Content-Type", JSON.into())));
    }

    #[test]
    fn small_pages_failures_and_plain_pages_are_sent_as_they_are() {
        let mut page = no_store(&sample());
        let reply = answer(page.clone(), &ask(Some("*"), Some("gzip")));
        assert_eq!(reply.status, 200, "there is no tag to match");
        assert_eq!(
            reply.headers,
            [
                ("Cache-Control", "no-store".into()),
                ("Vary", "Accept-Encoding".into()),
                ("Content-Type", JSON.into()),
                ("Content-Encoding", "gzip".into()),
            ]
        );
        page.body.truncate(GZIP_BYTES_MIN - 1);
        let reply = answer(page, &ask(None, Some("gzip")));
        assert_eq!(reply.headers.len(), 3);
        for (caching, headers) in [
            (Caching::Plain, vec![("Content-Type", JSON.into())]),
            (
                Caching::NoStorePlain,
                vec![
                    ("Cache-Control", "no-store".into()),
                    ("Content-Type", JSON.into()),
                ],
            ),
        ] {
            let page = Page {
                caching,
                ..no_store(&sample())
            };
            assert_eq!(answer(page, &ask(Some("*"), Some("gzip"))).headers, headers);
        }
    }
}
