//! The request target and `Host` (RFC 9112 3.2, RFC 3986): which bytes are the authority, the path
//! and the query, and whether they are legal. Routes, dot segments and repeated slashes are
//! handled elsewhere.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::reject::Reject;
use super::span::Span;
use crate::part;

/// A target taken apart, by positions in the buffer of its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetParts {
    /// Host and port of the absolute form; empty in the others.
    pub(super) authority: Span,
    /// The path as sent, without query. Empty only in an absolute form such as `http://h?x`,
    /// where it stands for `/`; `*` in the asterisk form.
    pub(super) path: Span,
    /// What follows the first `?`.
    pub(super) query: Span,
}

impl TargetParts {
    /// Takes the target at `span` apart. Its bytes are already known to hold no blank and no
    /// control character; bytes beyond ASCII are let through as they are, in a query `#` too.
    pub(super) fn parse(buf: &[u8], method: Span, span: Span) -> Result<Self, Reject> {
        let text = span.of(buf);
        match method.of(buf) {
            // RFC 9110 9.3.6: a tunnel is not what a gateway is for (docs/contract/surface.md#1).
            b"CONNECT" => return Err(Reject::MethodNotAllowed),
            // RFC 9112 3.2.4: the asterisk form belongs to OPTIONS.
            b"OPTIONS" if text == b"*" => {
                return Ok(Self {
                    path: span,
                    ..Self::default()
                });
            }
            _ => {}
        }
        if text.first() == Some(&b'/') {
            // RFC 9112 3.2.1: origin form.
            return Self::with_path(buf, Span::default(), span);
        }
        // RFC 9112 3.2.2: absolute form. Other schemes have no server here.
        let after_scheme = [&b"http://"[..], b"https://"]
            .into_iter()
            .find_map(|scheme| {
                let (start, rest) = text.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            });
        let Some(rest) = after_scheme else {
            return Err(Reject::BadTarget);
        };
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        let start = span.end - rest.len() as u32;
        let authority = Span {
            start,
            end: start + length as u32,
        };
        // RFC 9110 4.2.1: an empty host is invalid. 4.2.4: user information in a target that came
        // from outside is an error, and `is_authority` knows none.
        if authority.is_empty() || !is_authority(authority.of(buf)) {
            return Err(Reject::BadTarget);
        }
        Self::with_path(
            buf,
            authority,
            Span {
                start: authority.end,
                end: span.end,
            },
        )
    }

    fn with_path(buf: &[u8], authority: Span, rest: Span) -> Result<Self, Reject> {
        let (path, query) = match memchr(b'?', rest.of(buf)) {
            Some(at) => {
                let mark = rest.start + at as u32;
                (
                    Span { end: mark, ..rest },
                    Span {
                        start: mark + 1,
                        ..rest
                    },
                )
            }
            None => (
                rest,
                Span {
                    start: rest.end,
                    end: rest.end,
                },
            ),
        };
        // Contract: docs/contract/surface.md#1.1. The query is forwarded byte for byte, whatever is
        // in it. A fragment has no place in a target (RFC 9112 3.2); a server that cuts it off would
        // see another path than the gateway.
        if memchr(b'#', path.of(buf)).is_some() || !has_whole_escapes(path.of(buf)) {
            return Err(Reject::BadTarget);
        }
        Ok(Self {
            authority,
            path,
            query,
        })
    }
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_whole_escapes(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr(b'%', rest) {
        match part::rest(rest, at + 1) {
            [high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = behind;
            }
            _ => return false,
        }
    }
    true
}

/// Whether bytes are a host with an optional port: `uri-host [ ":" port ]`, as `Host` has it (RFC
/// 9110 7.2). Empty is legal there; a port may be empty (RFC 3986 3.2.3) but not beyond 65535.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let host_end = if text.first() == Some(&b'[') {
        let Some(end) = memchr(b']', text) else {
            return false;
        };
        let address = text
            .get(1..end)
            .and_then(|inner| std::str::from_utf8(inner).ok());
        // RFC 3986 3.2.2. Forms of a later IP version (`[v1.x]`) do not exist yet.
        if address.is_none_or(|inner| inner.parse::<Ipv6Addr>().is_err()) {
            return false;
        }
        end + 1
    } else {
        let end = memchr(b':', text).unwrap_or(text.len());
        let host = part::first(text, end);
        if !host.iter().all(|&byte| is_host_byte(byte)) || !has_whole_escapes(host) {
            return false;
        }
        end
    };
    match text.get(host_end..) {
        None | Some([]) => true,
        Some([b':', port @ ..]) => is_port(port),
        Some(_) => false,
    }
}

fn is_port(digits: &[u8]) -> bool {
    let mut port = 0u32;
    digits.iter().all(|byte| {
        port = port * 10 + u32::from(byte.wrapping_sub(b'0'));
        byte.is_ascii_digit() && port <= u32::from(u16::MAX)
    })
}

/// The bytes of a registered name (RFC 3986 3.2.2): unreserved, sub-delims, and `%` of an escape.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, target: &str) -> Result<[String; 3], Reject> {
        let buf = format!("{method} {target} HTTP/1.1\r\n");
        let method = Span {
            start: 0,
            end: method.len() as u32,
        };
        let span = Span {
            start: method.end + 1,
            end: method.end + 1 + target.len() as u32,
        };
        let target = TargetParts::parse(buf.as_bytes(), method, span)?;
        Ok([target.authority, target.path, target.query]
            .map(|span| String::from_utf8(span.of(buf.as_bytes()).to_vec()).unwrap()))
    }

    #[test]
    fn legal_targets() {
        let table = [
            ("GET", "/", ["", "/", ""]),
            ("GET", "/a/b?c=d?e#f", ["", "/a/b", "c=d?e#f"]),
            ("GET", "/a?", ["", "/a", ""]),
            ("GET", "/%41%c3%A9/%2F", ["", "/%41%c3%A9/%2F", ""]),
            ("GET", "/a?q=%&r=%zz", ["", "/a", "q=%&r=%zz"]),
            ("GET", "//h/p", ["", "//h/p", ""]),
            ("GET", "/\"quoted\"\\", ["", "/\"quoted\"\\", ""]),
            ("GET", "/é", ["", "/é", ""]),
            ("OPTIONS", "*", ["", "*", ""]),
            ("OPTIONS", "/x", ["", "/x", ""]),
            ("GET", "http://h/olla/x?y", ["h", "/olla/x", "y"]),
            ("GET", "HTTPS://h:443/x", ["h:443", "/x", ""]),
            ("GET", "http://[::1]:8080/x", ["[::1]:8080", "/x", ""]),
            ("GET", "http://h", ["h", "", ""]),
            ("GET", "http://h?x", ["h", "", "x"]),
            ("connect", "/x", ["", "/x", ""]),
        ];
        for (method, target, expected) in table {
            let expected = expected.map(String::from);
            assert_eq!(parts(method, target), Ok(expected), "{method} {target}");
        }
    }

    #[test]
    fn illegal_targets() {
        let table = [
            ("GET", "*"),
            ("OPTIONS", "**"),
            ("GET", "foo/bar"),
            ("GET", "h:443"),
            ("GET", "/%"),
            ("GET", "/a%2"),
            ("GET", "/%zz/"),
            ("GET", "/%-1"),
            ("GET", "/%2?41"),
            ("GET", "http:///x"),
            ("GET", "http://"),
            ("GET", "http:/h/x"),
            ("GET", "http://u:p@h/x"),
            ("GET", "http://u@h/x"),
            ("GET", "http://h:x/"),
            ("GET", "http://h/%4"),
            ("GET", "/x#y"),
            ("GET", "/x#y?z"),
            ("GET", "http://h#y"),
            ("GET", "s://]ufd/:"),
            ("GET", "ftp://h/x"),
            ("GET", "é"),
        ];
        for (method, target) in table {
            assert_eq!(
                parts(method, target),
                Err(Reject::BadTarget),
                "{method} {target}"
            );
        }
        for (method, target) in [("CONNECT", "h:443"), ("CONNECT", "/")] {
            assert_eq!(
                parts(method, target),
                Err(Reject::MethodNotAllowed),
                "{method} {target}"
            );
        }
    }

    #[test]
    fn authorities() {
        for good in [
            "",
            "h",
            "h:1",
            "h:",
            "h:65535",
            "h:000080",
            "1.2.3.4:5",
            "a-b_c.d~",
            "0.0.0.0=5000",
            "%41",
            "[::1]",
            "[::1]:1",
            "[2001:db8::ff]:",
            ":80",
            "xn--n3h.example",
        ] {
            assert!(is_authority(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "h:65536",
            "h:99999999999999",
            "h:1x",
            "h:-1",
            "h:1:2",
            "::1",
            "[",
            "]",
            "[]",
            "[::1",
            "[::1]x",
            "[h]",
            "[::1%25lo]",
            "[v1.a]",
            "%4",
            "é",
            "a\\b",
            "a\"b",
            "a<b",
            "a\u{7f}",
            "a,b@c",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }
}
