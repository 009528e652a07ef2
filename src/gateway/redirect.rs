//! Redirects of endpoints, so that they lead back through the gateway and show no inner address.
//!
//! Pure functions of the header's value. Relative paths, other hosts and what cannot be read as a
//! URL stay as they are, apart from the query of the endpoint's own URL, which no client sees.
//!
//! Contract: docs/contract/surface.md#5.1, docs/contract/surface.md#3.1

use std::borrow::Cow;

use crate::config::{BaseUrl, Scheme, Secret};

/// What a redirect is compared with.
pub(super) struct Redirects<'a> {
    /// `/olla/<prefix>` of the request; empty for a route at the root.
    pub(super) prefix: &'a [u8],
    /// The URL of the endpoint.
    pub(super) endpoint: &'a BaseUrl,
    /// The path that the endpoint keeps in front of the request's, without a slash at its end.
    pub(super) base_path: &'a str,
    /// The `Host` of the client.
    pub(super) own_host: &'a [u8],
}

/// The prefix of a path in normal form: `/olla/<prefix>`, or nothing at the root.
pub(super) fn prefix_of(path: &[u8]) -> &[u8] {
    const ROOT: &[u8] = b"/olla/";
    let Some(inner) = path.strip_prefix(ROOT) else {
        return b"";
    };
    let len = memchr::memchr(b'/', inner).unwrap_or(inner.len());
    path.get(..ROOT.len() + len).unwrap_or(path)
}

/// A host as it is written, without brackets, and its port.
type Place<'v> = (&'v [u8], u16);

/// The parts of a URL.
struct Parts<'v> {
    /// Scheme and authority with what introduces them, as written; empty for a path.
    origin: &'v [u8],
    /// `None` for a path.
    place: Option<Place<'v>>,
    /// The path, empty or with its leading slash.
    path: &'v [u8],
    /// The query with its `?`, and the fragment with its `#`.
    rest: &'v [u8],
}

impl Redirects<'_> {
    /// The value of `Location` or `Content-Location` for the client.
    pub(super) fn location<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        let value = self.without_own_query(value);
        match &value {
            Cow::Borrowed(text) => self.led_back(text).map_or(value, Cow::Owned),
            Cow::Owned(text) => self.led_back(text).map_or(value, Cow::Owned),
        }
    }

    /// The value of `Refresh`: a number of seconds, and a URL after `url=`.
    pub(super) fn refresh<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        let Some((start, end)) = refresh_url(value) else {
            return Cow::Borrowed(value);
        };
        match value.get(start..end).map(|url| self.location(url)) {
            Some(Cow::Owned(url)) => {
                let after = value.get(end..).unwrap_or_default();
                Cow::Owned([&value[..start], &url, after].concat())
            }
            _ => Cow::Borrowed(value),
        }
    }

    /// The URL with the prefix in it, if it is the gateway's to rewrite.
    fn led_back(&self, value: &[u8]) -> Option<Vec<u8>> {
        let Parts {
            origin,
            place,
            path,
            rest,
        } = parts(value, self.endpoint.scheme)?;
        let origin = match place {
            Some(place) if self.is_endpoint(place) => b"",
            Some(place) if self.is_gateway(place, origin) && !path.starts_with(b"/olla/") => origin,
            Some(_) => return None,
            None => b"",
        };
        let path = self.without_base(path);
        // A route at the root has no prefix, and an empty path would be a relative one.
        let path = if path.is_empty() { b"/" } else { path };
        Some([origin, self.prefix, path, rest].concat())
    }

    fn is_endpoint(&self, (host, port): Place<'_>) -> bool {
        port == self.endpoint.port && host.eq_ignore_ascii_case(self.endpoint.host.as_bytes())
    }

    fn is_gateway(&self, (host, port): Place<'_>, origin: &[u8]) -> bool {
        let default = default_port(origin).unwrap_or(self.endpoint.scheme.default_port());
        place(self.own_host, default)
            .is_some_and(|(own, own_port)| own_port == port && own.eq_ignore_ascii_case(host))
    }

    fn without_base<'v>(&self, path: &'v [u8]) -> &'v [u8] {
        match path.strip_prefix(self.base_path.as_bytes()) {
            Some(rest @ ([] | [b'/', ..])) => rest,
            _ => path,
        }
    }

    /// The value without the parameters of the endpoint's own query.
    fn without_own_query<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        let Some(own) = self.endpoint.query.as_ref().map(Secret::expose) else {
            return Cow::Borrowed(value);
        };
        let Some(start) = memchr::memchr(b'?', value) else {
            return Cow::Borrowed(value);
        };
        let (before, query) = value.split_at(start);
        let end = memchr::memchr(b'#', query).unwrap_or(query.len());
        let (query, fragment) = query.split_at(end);
        let pairs = query.strip_prefix(b"?").unwrap_or(query);
        let own: Vec<Cow<'_, [u8]>> = own.as_bytes().split(|b| *b == b'&').map(decoded).collect();
        // Servers write a parameter anew in other escapes, and some separate with `;`.
        let is_own = |pair: &&[u8]| {
            own.contains(&decoded(pair))
                || pair
                    .split(|b| *b == b';')
                    .any(|part| own.contains(&decoded(part)))
        };
        if !pairs.split(|b| *b == b'&').any(|pair| is_own(&pair)) {
            return Cow::Borrowed(value);
        }
        let left: Vec<&[u8]> = pairs
            .split(|b| *b == b'&')
            .filter(|pair| !is_own(pair))
            .collect();
        let mark: &[u8] = if left.is_empty() { b"" } else { b"?" };
        Cow::Owned([before, mark, &left.join(&b'&'), fragment].concat())
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode(text).into()
}

/// Takes a URL or an absolute path apart; `None` for a relative one and for what is neither.
fn parts(value: &[u8], scheme: Scheme) -> Option<Parts<'_>> {
    let authority = authority(value);
    let after = authority.map_or(value, |(_, after)| after);
    let end = |text: &[u8], stops: &[u8]| {
        let found = text.iter().position(|byte| stops.contains(byte));
        found.unwrap_or(text.len())
    };
    let place = match authority {
        Some((default, after)) => {
            let (text, _) = after.split_at(end(after, b"/?#"));
            let default = default.unwrap_or(scheme.default_port());
            Some(place(text, default)?)
        }
        None if value.starts_with(b"/") => None,
        None => return None,
    };
    let start = if place.is_some() {
        end(after, b"/?#")
    } else {
        0
    };
    let (_, tail) = after.split_at(start);
    let (path, rest) = tail.split_at(end(tail, b"?#"));
    let origin = value.len() - tail.len();
    Some(Parts {
        origin: value.get(..origin)?,
        place,
        path,
        rest,
    })
}

/// The port of the scheme that a URL names, if it names one, and what follows `//`.
fn authority(value: &[u8]) -> Option<(Option<u16>, &[u8])> {
    match default_port(value) {
        Some(port) => {
            let after = value.windows(3).position(|three| three == b"://")? + 3;
            Some((Some(port), value.get(after..)?))
        }
        None => Some((None, value.strip_prefix(b"//")?)),
    }
}

/// The port of the scheme that a URL begins with.
fn default_port(value: &[u8]) -> Option<u16> {
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .find_map(|scheme| {
            let name = scheme.as_str().as_bytes();
            let begins = value.get(..name.len())?.eq_ignore_ascii_case(name)
                && value.get(name.len()..)?.starts_with(b"://");
            begins.then_some(scheme.default_port())
        })
}

/// Host and port of an authority; user information is skipped.
fn place(authority: &[u8], default: u16) -> Option<Place<'_>> {
    let start = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
    let text = authority.get(start..)?;
    let (host, port) = match text.strip_prefix(b"[") {
        Some(inner) => {
            let end = memchr::memchr(b']', inner)?;
            (inner.get(..end)?, inner.get(end + 1..)?)
        }
        None => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let port = match port {
        b"" | b":" => default,
        port => std::str::from_utf8(port.strip_prefix(b":")?)
            .ok()?
            .parse()
            .ok()?,
    };
    (!host.is_empty()).then_some((host, port))
}

/// Where the URL of a `Refresh` begins and ends, without its quotes.
fn refresh_url(value: &[u8]) -> Option<(usize, usize)> {
    let blank = |at: usize| {
        let rest = value.get(at..).unwrap_or_default();
        at + rest
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count()
    };
    let separator = value.iter().position(|byte| b";,".contains(byte))?;
    let name = blank(separator + 1);
    let is_url = value.get(name..name + 3)?.eq_ignore_ascii_case(b"url");
    let equals = blank(name + 3);
    if !is_url || value.get(equals) != Some(&b'=') {
        return None;
    }
    let start = blank(equals + 1);
    let quote = *value.get(start)?;
    if !matches!(quote, b'"' | b'\'') {
        return Some((start, value.len()));
    }
    let inner = value.get(start + 1..)?;
    let len = memchr::memchr(quote, inner).unwrap_or(inner.len());
    Some((start + 1, start + 1 + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str, base_path: &str, value: &str) -> String {
        let endpoint = BaseUrl::parse(url).unwrap();
        let redirects = Redirects {
            prefix: b"/olla/vllm",
            endpoint: &endpoint,
            base_path,
            own_host: b"gateway.test:81",
        };
        String::from_utf8(redirects.location(value.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn redirects_lead_back_through_the_gateway() {
        let table = [
            // The endpoint itself.
            ("http://h:8000/docs/?x=1#y", "/olla/vllm/docs/?x=1#y"),
            ("http://H:8000/docs", "/olla/vllm/docs"),
            ("HTTP://h:8000", "/olla/vllm/"),
            ("http://h:8000?x=1", "/olla/vllm/?x=1"),
            ("http://h:8000/", "/olla/vllm/"),
            ("https://h:8000/a", "/olla/vllm/a"),
            ("//h:8000/a", "/olla/vllm/a"),
            ("http://u:p@h:8000/a", "/olla/vllm/a"),
            // A path.
            ("/rel/", "/olla/vllm/rel/"),
            ("/?a=/b", "/olla/vllm/?a=/b"),
            ("/", "/olla/vllm/"),
            // The gateway.
            (
                "http://gateway.test:81/docs/",
                "http://gateway.test:81/olla/vllm/docs/",
            ),
            (
                "https://Gateway.test:81/docs",
                "https://Gateway.test:81/olla/vllm/docs",
            ),
            ("//gateway.test:81/a", "//gateway.test:81/olla/vllm/a"),
            (
                "http://gateway.test:81",
                "http://gateway.test:81/olla/vllm/",
            ),
            (
                "http://gateway.test:81/olla/vllm/docs",
                "http://gateway.test:81/olla/vllm/docs",
            ),
            // Anything else.
            ("http://gateway.test/docs", "http://gateway.test/docs"),
            ("http://h/a", "http://h/a"),
            ("http://h:8001/a", "http://h:8001/a"),
            ("http://h.evil:8000/a", "http://h.evil:8000/a"),
            ("http://other/a", "http://other/a"),
            ("//other/a", "//other/a"),
            ("docs/", "docs/"),
            ("../docs", "../docs"),
            ("?a=1", "?a=1"),
            ("#f", "#f"),
            ("", ""),
            ("ftp://h:8000/a", "ftp://h:8000/a"),
            ("http://h:port/a", "http://h:port/a"),
            ("http://[::1/a", "http://[::1/a"),
            ("http:///a", "http:///a"),
            ("mailto:h:8000", "mailto:h:8000"),
        ];
        for (value, want) in table {
            assert_eq!(location("http://h:8000", "", value), want, "{value}");
        }
        let six = "http://[::1]:8000";
        assert_eq!(location(six, "", "http://[::1]:8000/a"), "/olla/vllm/a");
        assert_eq!(location("http://h", "", "http://h:80/a"), "/olla/vllm/a");
        assert_eq!(location("https://h", "", "//h/a"), "/olla/vllm/a");
    }

    #[test]
    fn a_path_that_is_kept_is_taken_off() {
        let table = [
            ("/base/docs/", "/olla/vllm/docs/"),
            ("http://h:8000/base/docs", "/olla/vllm/docs"),
            ("http://h:8000/base", "/olla/vllm/"),
            ("http://h:8000/base?a=1", "/olla/vllm/?a=1"),
            (
                "http://gateway.test:81/base/x",
                "http://gateway.test:81/olla/vllm/x",
            ),
            ("/based/x", "/olla/vllm/based/x"),
            ("/x", "/olla/vllm/x"),
        ];
        for (value, want) in table {
            let got = location("http://h:8000/base", "/base", value);
            assert_eq!(got, want, "{value}");
        }
        assert_eq!(
            location("http://h:8000/base", "", "/base/x"),
            "/olla/vllm/base/x"
        );
    }

    #[test]
    fn the_endpoints_own_query_is_taken_off() {
        let table = [
            ("http://h:8000/d/?t=s&u=1", "/olla/vllm/d/"),
            ("/d/?a=1&t=s&u=1#f", "/olla/vllm/d/?a=1#f"),
            ("/d/?u=1&a=1", "/olla/vllm/d/?a=1"),
            ("d/?t=s", "d/"),
            ("d/?t%3ds&%74=%73&b=2", "d/?b=2"),
            ("/d/?a=1;t=s&b=2", "/olla/vllm/d/?b=2"),
            ("http://other/?t=s&b=2", "http://other/?b=2"),
            ("/d/?t=s2#t=s", "/olla/vllm/d/?t=s2#t=s"),
        ];
        for (value, want) in table {
            assert_eq!(
                location("http://h:8000?t=s&u=1", "", value),
                want,
                "{value}"
            );
        }
    }

    #[test]
    fn the_url_of_refresh_is_rewritten() {
        let endpoint = BaseUrl::parse("http://h:8000").unwrap();
        let redirects = Redirects {
            prefix: b"/olla/vllm",
            endpoint: &endpoint,
            base_path: "",
            own_host: b"",
        };
        let table = [
            ("5; url=http://h:8000/a", "5; url=/olla/vllm/a"),
            ("0;URL='/a'", "0;URL='/olla/vllm/a'"),
            ("0, Url = \"/a\" x", "0, Url = \"/olla/vllm/a\" x"),
            ("0;url=\"/a", "0;url=\"/olla/vllm/a"),
            ("0;url=a", "0;url=a"),
            ("0;url=http://other/", "0;url=http://other/"),
            ("0;url=", "0;url="),
            ("0;ur", "0;ur"),
            ("5", "5"),
            ("", ""),
        ];
        for (value, want) in table {
            let got = redirects.refresh(value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), want, "{value}");
        }
    }

    #[test]
    fn the_prefix_is_the_beginning_of_the_path() {
        for (path, prefix) in [
            ("/olla/vllm/docs", "/olla/vllm"),
            ("/olla/vllm", "/olla/vllm"),
            ("/olla/anthropic/v1/messages", "/olla/anthropic"),
            ("/v1/x", ""),
            ("/ollama/x", ""),
        ] {
            assert_eq!(prefix_of(path.as_bytes()), prefix.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_route_at_the_root_has_no_prefix() {
        let endpoint = BaseUrl::parse("http://h:8000").unwrap();
        let redirects = Redirects {
            prefix: b"",
            endpoint: &endpoint,
            base_path: "",
            own_host: b"",
        };
        for (value, want) in [("http://h:8000/v1/x", "/v1/x"), ("/v1/x", "/v1/x")] {
            let got = redirects.location(value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), want, "{value}");
        }
    }
}
