//! Normalises the path of a request, and writes the target of the request to an endpoint.
//!
//! Repeated slashes become one and dot segments are resolved, without a redirect. Every other byte
//! stays as the client wrote it, percent escapes included. This module must not decode escapes, nor
//! let a path leave its prefix.
//!
//! Contract: docs/contract/surface.md#3

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};

/// The first segment of every proxied path. Paths that begin with it have a second segment, the
/// prefix, that dot segments must not touch either.
pub(super) const ROOT: &[u8] = b"olla";

/// A target in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Normal<'a> {
    /// Begins with `/`, unless the target is not a path (`*`). Borrowed if nothing had to change.
    pub path: Cow<'a, [u8]>,
    /// What followed the first `?`, byte for byte.
    pub query: Option<&'a [u8]>,
}

/// A dot segment leads out of the prefix: `INVALID_PATH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathFault;

/// Normalises a target: a path with or without a query. Allocates only if the path changes. The
/// HTTP layer has checked that escapes have two digits, but nothing here relies on it.
///
/// # Errors
/// [`PathFault`], when the path cannot be served.
pub(crate) fn normalise(target: &[u8]) -> Result<Normal<'_>, PathFault> {
    let (path, query) = match memchr(b'?', target) {
        Some(at) => (head(target, at), Some(tail(target, at + 1))),
        None => (target, None),
    };
    let path = if path.is_empty() { b"/" } else { path };
    let path = if is_normal(path) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolve(path)?)
    };
    Ok(Normal { path, query })
}

/// Writes the target of the request to an endpoint: `rest` is what followed the prefix, `base` the
/// path of the endpoint's URL without a trailing slash, empty if it is not kept, and `own_query` the
/// query of that URL, which follows the client's (docs/contract/surface.md#3.1).
pub(crate) fn upstream_target(
    base: &str,
    rest: &[u8],
    query: Option<&[u8]>,
    own_query: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(base.as_bytes());
    // `/base` and not `/base/`, because the client named nothing below the prefix.
    if base.is_empty() || !matches!(rest, b"" | b"/") {
        if rest.first() != Some(&b'/') {
            out.push(b'/');
        }
        out.extend_from_slice(rest);
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    if let Some(own) = own_query {
        out.push(if query.is_some() { b'&' } else { b'?' });
        out.extend_from_slice(own.as_bytes());
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// A piece of a path and the separator after it: `/`, an escaped slash, or nothing at the end.
/// An escaped slash stays escaped. Since an endpoint may treat it as a separator, dot segments
/// beside it are resolved too.
struct Piece<'a> {
    name: &'a [u8],
    separator: &'a [u8],
}

struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let all = self.0;
        if all.is_empty() {
            return None;
        }
        let separator = memchr2_iter(b'/', b'%', all)
            .map(|at| (at, separator_at(all, at)))
            .find(|(_, len)| *len > 0);
        let (at, len) = separator.unwrap_or((all.len(), 0));
        let (name, rest) = all.split_at(at);
        let (separator, rest) = rest.split_at(len);
        self.0 = rest;
        Some(Piece { name, separator })
    }
}

/// The length of the separator that begins at a place; 0 if none does.
fn separator_at(path: &[u8], at: usize) -> usize {
    match tail(path, at) {
        [b'/', ..] => 1,
        [b'%', b'2', b'f' | b'F', ..] => 3,
        _ => 0,
    }
}

/// The two dot segments, also written `%2e`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    Same,
    Up,
}

fn dots(name: &[u8]) -> Option<Dots> {
    let mut left = name;
    let mut count = 0;
    loop {
        left = match left {
            [] => break,
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return None,
        };
        count += 1;
    }
    match count {
        1 => Some(Dots::Same),
        2 => Some(Dots::Up),
        _ => None,
    }
}

fn is_normal(path: &[u8]) -> bool {
    // Most paths need no look at their pieces.
    let mut behind = 0;
    let is_simple = path.iter().all(|&byte| {
        let dotted = behind == b'/' && matches!(byte, b'/' | b'.');
        behind = byte;
        byte != b'%' && !dotted
    });
    is_simple || has_normal_pieces(path)
}

fn has_normal_pieces(path: &[u8]) -> bool {
    let Some(inner) = path.strip_prefix(b"/") else {
        // Such as `*`: it matches no route, and no endpoint gets it.
        return true;
    };
    let mut behind: &[u8] = b"/";
    Pieces(inner).all(|piece| {
        let doubled = piece.name.is_empty() && piece.separator == b"/" && behind == b"/";
        behind = piece.separator;
        !doubled && dots(piece.name).is_none()
    })
}

/// Resolves a path that begins with `/`.
fn resolve(path: &[u8]) -> Result<Vec<u8>, PathFault> {
    let mut out = Vec::with_capacity(path.len());
    out.push(b'/');
    let mut left = path;
    let mut segments = 1;
    let mut first = true;
    // Dot segments must not remove the head: `/olla/<prefix>/`, or the first segment elsewhere.
    while segments > 0 {
        while let Some(rest) = left.strip_prefix(b"/") {
            left = rest;
        }
        let end = memchr(b'/', left);
        let segment = end.map_or(left, |end| head(left, end));
        if Pieces(segment).any(|piece| dots(piece.name).is_some()) {
            return Err(PathFault);
        }
        if first && segment == ROOT {
            segments = 2;
        }
        first = false;
        segments -= 1;
        out.extend_from_slice(segment);
        let Some(end) = end else {
            return Ok(out);
        };
        out.push(b'/');
        left = tail(left, end + 1);
    }
    let root = out.len();
    for piece in Pieces(left) {
        match dots(piece.name) {
            Some(Dots::Same) => {}
            Some(Dots::Up) => step_up(&mut out, root)?,
            None if piece.name.is_empty() && piece.separator == b"/" && out.ends_with(b"/") => {}
            None => {
                out.extend_from_slice(piece.name);
                out.extend_from_slice(piece.separator);
            }
        }
    }
    Ok(out)
}

/// Removes the last piece and its separator, but nothing before `root`.
fn step_up(out: &mut Vec<u8>, root: usize) -> Result<(), PathFault> {
    let below = tail(out, root);
    let last = match below {
        [] => return Err(PathFault),
        [.., b'%', b'2', b'f' | b'F'] => below.len() - 3,
        _ => below.len() - 1,
    };
    let start = (0..last).rev().find_map(|at| {
        let len = separator_at(below, at);
        (len > 0).then_some(at + len)
    });
    out.truncate(root + start.unwrap_or(0));
    Ok(())
}

fn head(bytes: &[u8], end: usize) -> &[u8] {
    &bytes[..end]
}

fn tail(bytes: &[u8], start: usize) -> &[u8] {
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path_of(target: &str) -> Result<String, PathFault> {
        normalise(target.as_bytes()).map(|normal| String::from_utf8_lossy(&normal.path).into())
    }

    #[test]
    fn clean_paths_stay_where_they_are() {
        let table = [
            "/olla/proxy/a%20b/c",
            "/olla/proxy/caf%C3%A9",
            "/olla/proxy/a%25b",
            "/olla/proxy/a+b",
            "/olla/proxy/x;v=1/y",
            "/olla/proxy/%5Bx%5D",
            "/olla/proxy/%3Fq",
            "/olla/proxy/v1/x/",
            "/olla/proxy/v1/files/org%2Fname",
            "/olla/proxy/a%2F%2fb/",
            "/olla/proxy/a%2f/b",
            "/olla/proxy/a..b/.c/d./...",
            "/olla/proxy/%252e%252e/x",
            "/olla/proxy",
            "/olla/",
            "/",
            "/v1/models",
            "*",
        ];
        for path in table {
            let normal = normalise(path.as_bytes()).unwrap();
            assert!(matches!(normal.path, Cow::Borrowed(_)), "{path}");
            assert_eq!(normal.path, path.as_bytes());
        }
    }

    #[test]
    fn slashes_and_dots_are_resolved() {
        let table = [
            ("", "/"),
            ("//", "/"),
            ("/olla/ollama//api//chat", "/olla/ollama/api/chat"),
            ("//olla///ollama/api/chat//", "/olla/ollama/api/chat/"),
            ("/olla/openai/v1//embeddings", "/olla/openai/v1/embeddings"),
            ("/olla/proxy//", "/olla/proxy/"),
            ("/olla/proxy/v1/a/%2e%2e/b", "/olla/proxy/v1/b"),
            ("/olla/proxy/v1/a/.%2E/b", "/olla/proxy/v1/b"),
            ("/olla/proxy/v1/./a/%2E/b", "/olla/proxy/v1/a/b"),
            ("/olla/proxy/v1/a/..", "/olla/proxy/v1/"),
            ("/olla/proxy/v1/.", "/olla/proxy/v1/"),
            ("/olla/proxy/.", "/olla/proxy/"),
            ("/olla/proxy/a//../b", "/olla/proxy/b"),
            ("/olla/proxy/v1/a/..%2fb", "/olla/proxy/v1/b"),
            ("/olla/proxy/v1/a%2F..%2Fb", "/olla/proxy/v1/b"),
            ("/olla/proxy/v1/a%2Fb/../c", "/olla/proxy/v1/a%2Fc"),
            ("/olla/proxy/v1/a%2fb%2f%2e%2e/c", "/olla/proxy/v1/a%2fc"),
            ("/olla/proxy/%2f../x", "/olla/proxy/x"),
            ("/olla/proxy/a%2f/./b//c", "/olla/proxy/a%2f/b/c"),
            ("/internal/./status", "/internal/status"),
            ("/internal/ui/../status", "/internal/status"),
        ];
        for (target, path) in table {
            assert_eq!(path_of(target), Ok(path.to_owned()), "{target}");
        }
    }

    #[test]
    fn what_climbs_is_refused() {
        let table = [
            "/olla/proxy/../internal/status",
            "/olla/proxy/..",
            "/olla/proxy/%2e%2e/x",
            "/olla/proxy/..%2finternal",
            "/olla/proxy/a/../../x",
            "/olla/proxy/a%2f..%2f..%2fx",
            "/olla/proxy/.%2f../x",
            "/olla/./proxy/x",
            "/olla/../olla/proxy/x",
            "/olla/%2E%2e/x",
            "/olla/x%2f../proxy/a",
            "/./olla/proxy/x",
            "/../x",
            "/..",
            "/.",
            "/internal/../olla/proxy/x",
            "/olla/models/../proxy/x",
        ];
        for target in table {
            assert_eq!(path_of(target), Err(PathFault), "{target}");
        }
    }

    #[test]
    fn queries_stay_as_they_are() {
        let table: [(&str, Option<&str>); 7] = [
            ("/a?a=1&a=2&b", Some("a=1&a=2&b")),
            ("/a?q=a%2Bb+c", Some("q=a%2Bb+c")),
            ("/a?=v&&z", Some("=v&&z")),
            ("/a?x=/../..//", Some("x=/../..//")),
            ("/a?b?c", Some("b?c")),
            ("/a?", Some("")),
            ("/a", None),
        ];
        for (target, query) in table {
            let normal = normalise(target.as_bytes()).unwrap();
            assert_eq!(normal.query, query.map(str::as_bytes), "{target}");
        }
    }

    #[test]
    fn the_base_path_is_replaced_or_kept() {
        let table = [
            ("", false, "/v1/x", "/v1/x"),
            ("", true, "/v1/x", "/v1/x"),
            ("", true, "/", "/"),
            ("/base", false, "/v1/x", "/v1/x"),
            ("/base", false, "/", "/"),
            ("/base", true, "/v1/x", "/base/v1/x"),
            ("/base", true, "/v1/x/", "/base/v1/x/"),
            ("/base", true, "/", "/base"),
            ("/base", true, "", "/base"),
            ("/api/v1", true, "/v1/x", "/api/v1/v1/x"),
            ("/team%20a/api", true, "/v1/x", "/team%20a/api/v1/x"),
            ("", false, "", "/"),
        ];
        for (base, preserve, rest, target) in table {
            let mut out = Vec::new();
            let base = if preserve { base } else { "" };
            upstream_target(base, rest.as_bytes(), None, None, &mut out);
            assert_eq!(out, target.as_bytes(), "{base} {preserve} {rest}");
        }
        let mut out = Vec::new();
        upstream_target("/b", b"/", Some(b"a=1"), None, &mut out);
        assert_eq!(out, b"/b?a=1");
    }

    #[test]
    fn the_endpoints_own_query_comes_last() {
        let table = [
            (None, None, "/v1/x"),
            (Some("a=1"), None, "/v1/x?a=1"),
            (None, Some("token=t"), "/v1/x?token=t"),
            (Some("a=1"), Some("token=t"), "/v1/x?a=1&token=t"),
        ];
        for (query, own, target) in table {
            let mut out = Vec::new();
            upstream_target("", b"/v1/x", query.map(str::as_bytes), own, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), target);
        }
    }

    /// Paths made of what matters to the rules.
    fn paths() -> impl Strategy<Value = String> {
        let parts = prop::sample::select(vec![
            "/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "%2F", "a", "olla", "proxy", "x.y",
            "%20", "...", "internal", "%", "%2",
        ]);
        prop::collection::vec(parts, 0..14).prop_map(|parts| format!("/{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn nothing_that_could_climb_is_left(target in paths()) {
            let Ok(normal) = normalise(target.as_bytes()) else { return Ok(()) };
            let path = String::from_utf8_lossy(&normal.path).to_lowercase();
            prop_assert!(!path.contains("//"));
            let decoded = path.replace("%2f", "/").replace("%2e", ".");
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
        }

        #[test]
        fn the_head_is_that_of_the_client(rest in paths()) {
            let target = format!("/olla/proxy{rest}");
            let Ok(normal) = normalise(target.as_bytes()) else { return Ok(()) };
            prop_assert!(normal.path.starts_with(b"/olla/proxy/"));
        }

        #[test]
        fn a_normal_path_is_normal(target in paths()) {
            let Ok(normal) = normalise(target.as_bytes()) else { return Ok(()) };
            let again = normalise(&normal.path).unwrap();
            prop_assert!(matches!(again.path, Cow::Borrowed(_)));
            prop_assert_eq!(&again.path, &normal.path);
        }

        #[test]
        fn any_bytes_are_an_answer(target in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = normalise(&target);
        }
    }
}
