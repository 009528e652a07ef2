//! The dashboard's files, which are built into the binary, and the responses to requests for them.
//!
//! `access` checks a request first, before the redirect too. The names of the files contain no
//! hash, so clients must revalidate them.
//!
//! Contract: docs/contract/operations.md#7

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use super::conditional::{Fnv, PageHeaders, PageResponse, matches};
use crate::format::base36;

/// The path of the dashboard, without the closing slash.
pub(crate) const ROOT: &str = "/internal/ui";

/// The page itself.
const PAGE: &str = "index.html";

/// The page where an operator logs in.
const LOGIN: &str = "login.html";

/// What the line of [`PAGE`] has that is the button for the logout.
const LOGOUT: &[u8] = b"id=\"logout\"";

/// The folder below [`ROOT`] for everything but the page.
const ASSETS: &str = "assets/";

/// Declares files by their names in `ui`.
macro_rules! files {
    ($($name:literal,)+) => {
        /// Name and bytes of every file.
        const FILES: &[(&str, &[u8])] = &[
            $(($name, include_bytes!(concat!("ui/", $name))),)+
        ];
    };
}

files! {
    "app.js",
    "chart.js",
    "dom.js",
    "endpoints.js",
    "fleet.js",
    "format.js",
    "history.js",
    "icon.svg",
    "index.html",
    "login.html",
    "login.js",
    "models.js",
    "overview.js",
    "poll.js",
    "requests.js",
    "style.css",
    "theme.js",
}

/// The response to GET and HEAD of a path of the dashboard; `None`: there is no such file (404). It
/// does not include [`SECURITY_HEADERS`](super::access::SECURITY_HEADERS), which refusals need too.
///
/// Without a login there is nothing to log in to or out of: its page leads to the dashboard, which
/// has no button for it (docs/contract/access.md#12).
pub(crate) fn answer(path: &str, has_login: bool, asked: &PageHeaders<'_>) -> Option<PageResponse> {
    let rest = path.strip_prefix(ROOT)?;
    let Some(rest) = rest.strip_prefix('/') else {
        return rest.is_empty().then(redirect);
    };
    let last = rest.rsplit_once('/').map_or(rest, |(_, last)| last);
    let name = match rest.strip_prefix(ASSETS) {
        Some(PAGE | LOGIN) => return None,
        Some(name) => name,
        None if rest == "login" && has_login => LOGIN,
        None if rest == "login" => return Some(redirect()),
        None if rest == PAGE => PAGE,
        // A path within the page, which its script resolves.
        None if !last.contains('.') => PAGE,
        None => return None,
    };
    if name == PAGE && !has_login {
        let (bytes, tag) = page_without_login();
        return Some(file(name, bytes, tag, asked));
    }
    let index = FILES.iter().position(|(known, _)| *known == name)?;
    let (name, bytes) = FILES.get(index)?;
    let tag = tags().get(index)?;
    Some(file(name, bytes, tag, asked))
}

/// The page without its button for the logout, and its tag.
fn page_without_login() -> &'static (Vec<u8>, String) {
    static PAGE_WITHOUT: OnceLock<(Vec<u8>, String)> = OnceLock::new();
    PAGE_WITHOUT.get_or_init(|| {
        let page = FILES.iter().find(|(name, _)| *name == PAGE);
        let page = page.map_or(&b""[..], |(_, bytes)| *bytes);
        let lines = page.split_inclusive(|byte| *byte == b'\n');
        let rest = lines.filter(|line| memchr::memmem::find(line, LOGOUT).is_none());
        let bytes = rest.collect::<Vec<_>>().concat();
        let tag = tag_of(&bytes);
        (bytes, tag)
    })
}

fn redirect() -> PageResponse {
    PageResponse {
        status: 307,
        headers: vec![("Location", Cow::Borrowed("/internal/ui/"))],
        body: Bytes::new(),
    }
}

fn file(
    name: &str,
    bytes: &'static [u8],
    tag: &'static str,
    asked: &PageHeaders<'_>,
) -> PageResponse {
    let cache = if matches!(name, PAGE | LOGIN) {
        "no-cache"
    } else {
        "public, max-age=3600"
    };
    let mut headers: Vec<(&'static str, Cow<'static, str>)> = vec![
        ("ETag", tag.into()),
        ("Cache-Control", cache.into()),
        ("Accept-Ranges", "bytes".into()),
    ];
    if asked.if_none_match.is_some_and(|list| matches(list, tag)) {
        return PageResponse {
            status: 304,
            headers,
            body: Bytes::new(),
        };
    }
    // RFC 9110 section 13.1.5: if the tag differs, or `If-Range` is a date, the response is the
    // whole file.
    let same = asked
        .if_range
        .is_none_or(|state| state.trim_ascii() == tag.as_bytes());
    let part = asked
        .range
        .filter(|_| same)
        .map(|text| part(text, bytes.len()));
    let (status, body) = match part {
        Some(Part::Of(range)) => {
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
            headers.push(("Content-Range", shown.into()));
            (206, &bytes[range])
        }
        Some(Part::Beyond) => {
            headers.push(("Content-Range", format!("bytes */{}", bytes.len()).into()));
            (416, &[][..])
        }
        Some(Part::All) | None => (200, bytes),
    };
    headers.push(("Content-Type", content_type(name).into()));
    PageResponse {
        status,
        headers,
        body: Bytes::from_static(body),
    }
}

/// The range that a `Range` header requests.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A range that is not empty.
    Of(Range<usize>),
    /// No byte of the range exists.
    Beyond,
    /// The whole file: another unit, several ranges, or invalid syntax (RFC 9110 section 14.2).
    All,
}

fn part(text: &[u8], len: usize) -> Part {
    let Ok(text) = std::str::from_utf8(text) else {
        return Part::All;
    };
    let spec = text.trim().strip_prefix("bytes=").map(str::trim);
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Part::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that does not fit is beyond the end of every file.
        digits.then(|| text.parse().unwrap_or(usize::MAX))
    };
    let range = match (first, number(first), last, number(last)) {
        (_, Some(first), "", _) => first..len,
        (_, Some(first), _, Some(last)) if first <= last => first..last.saturating_add(1).min(len),
        ("", _, _, Some(count)) => len.saturating_sub(count)..len,
        _ => return Part::All,
    };
    if range.is_empty() {
        Part::Beyond
    } else {
        Part::Of(range)
    }
}

/// The strong entity tags of [`FILES`], in the same order.
fn tags() -> &'static [String] {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    TAGS.get_or_init(|| FILES.iter().map(|(_, bytes)| tag_of(bytes)).collect())
}

fn tag_of(bytes: &[u8]) -> String {
    let mut hash = Fnv::default();
    hash.update(bytes);
    format!("\"{}\"", base36(hash.0))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn header<'a>(reply: &'a PageResponse, name: &str) -> Option<&'a str> {
        let found = reply.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| &**value)
    }

    fn get(path: &str) -> Option<PageResponse> {
        answer(path, true, &PageHeaders::default())
    }

    #[test]
    fn every_file_is_built_in() {
        let folder = Path::new(file!()).with_file_name("ui");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, built_in);
        for (name, _) in FILES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn paths() {
        let redirect = get("/internal/ui").unwrap();
        assert_eq!(redirect.status, 307);
        assert_eq!(header(&redirect, "Location"), Some("/internal/ui/"));
        for path in [
            "/internal/ui/",
            "/internal/ui/index.html",
            "/internal/ui/endpoints",
            "/internal/ui/endpoints/duzvjl",
        ] {
            let page = get(path).unwrap();
            assert_eq!(page.status, 200);
            assert_eq!(
                header(&page, "Content-Type"),
                Some("text/html; charset=utf-8")
            );
            assert_eq!(header(&page, "Cache-Control"), Some("no-cache"));
        }
        let login = get("/internal/ui/login").unwrap();
        assert_eq!(login.status, 200);
        assert_eq!(header(&login, "Cache-Control"), Some("no-cache"));
        let none = answer("/internal/ui/login", false, &PageHeaders::default()).unwrap();
        assert_eq!(none.status, 307);
        assert_eq!(header(&none, "Location"), Some("/internal/ui/"));
        let script = get("/internal/ui/assets/app.js").unwrap();
        assert_eq!(
            header(&script, "Cache-Control"),
            Some("public, max-age=3600")
        );
        for path in [
            "/internal/ui/app.js",
            "/internal/ui/assets/index.html",
            "/internal/ui/assets/login.html",
            "/internal/ui/assets/",
            "/internal/ui/assets/nosuch.js",
            "/internal/ui/assets/missing-0a1b2c3d.js",
            "/internal/ui/assets/x",
            "/internal/ui/../mod.rs",
            "/internal/ui//app.js",
            "/internal/uix",
        ] {
            assert_eq!(get(path), None, "{path}");
        }
    }

    #[test]
    fn without_a_login_there_is_no_logout() {
        let asked = PageHeaders::default();
        let page = |has_login| answer("/internal/ui/models", has_login, &asked).unwrap();
        let [with, without] = [true, false].map(page);
        let text = |page: &PageResponse| String::from_utf8(page.body.to_vec()).unwrap();
        let lines = text(&with).lines().count();
        assert!(text(&with).contains("Log out"));
        assert!(!text(&without).contains("Log out"));
        assert_eq!(text(&without).lines().count(), lines - 1);
        assert_ne!(header(&with, "ETag"), header(&without, "ETag"));
    }

    #[test]
    fn what_the_page_and_its_scripts_name_is_there() {
        let quoted = |text: &str, before: &str| -> Vec<String> {
            let starts = text.match_indices(before).map(|(at, _)| at + before.len());
            starts
                .filter_map(|at| text[at..].split('"').next().map(str::to_owned))
                .collect()
        };
        for (name, bytes) in FILES {
            let text = std::str::from_utf8(bytes).unwrap();
            let mut named = quoted(text, "from \"./");
            named.extend(quoted(text, "=\"/internal/ui/assets/"));
            for other in named {
                let path = format!("/internal/ui/assets/{other}");
                assert_eq!(
                    get(&path).map(|reply| reply.status),
                    Some(200),
                    "{other} in {name}"
                );
            }
        }
    }

    #[test]
    fn conditional_requests() {
        let page = get("/internal/ui/").unwrap();
        let tag = header(&page, "ETag").unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'));
        for (list, status) in [("*", 304), (tag.as_str(), 304), ("\"x\"", 200)] {
            let asked = PageHeaders {
                if_none_match: Some(list.as_bytes()),
                ..PageHeaders::default()
            };
            let reply = answer("/internal/ui/", true, &asked).unwrap();
            assert_eq!(reply.status, status, "{list}");
            assert_eq!(reply.body.is_empty(), status == 304);
            assert_eq!(header(&reply, "Content-Type").is_none(), status == 304);
        }
        let script = get("/internal/ui/assets/app.js").unwrap();
        assert_ne!(header(&script, "ETag"), Some(tag.as_str()));
    }

    #[test]
    fn parts_of_a_file() {
        let table = [
            ("bytes=0-4", Part::Of(0..5)),
            ("bytes=5-", Part::Of(5..10)),
            ("bytes=-3", Part::Of(7..10)),
            ("bytes=-30", Part::Of(0..10)),
            ("bytes=8-99", Part::Of(8..10)),
            ("bytes=0-99999999999999999999999", Part::Of(0..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=99999999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=4-2", Part::All),
            ("bytes=0-1,3-4", Part::All),
            ("bytes=a-b", Part::All),
            ("bytes=+1-2", Part::All),
            ("bytes=-", Part::All),
            ("lines=0-1", Part::All),
            ("", Part::All),
        ];
        for (text, expected) in table {
            assert_eq!(part(text.as_bytes(), 10), expected, "{text}");
        }
        let whole = get("/internal/ui/assets/app.js").unwrap();
        let tag = header(&whole, "ETag").unwrap();
        let ask = |range: &'static str, if_range: Option<&str>| {
            let asked = PageHeaders {
                range: Some(range.as_bytes()),
                if_range: if_range.map(str::as_bytes),
                ..PageHeaders::default()
            };
            answer("/internal/ui/assets/app.js", true, &asked).unwrap()
        };
        let len = whole.body.len();
        let reply = ask("bytes=1-3", Some(tag));
        assert_eq!((reply.status, &reply.body[..]), (206, &whole.body[1..4]));
        let shown = format!("bytes 1-3/{len}");
        assert_eq!(header(&reply, "Content-Range"), Some(shown.as_str()));
        let reply = ask("bytes=99999999-", None);
        assert_eq!((reply.status, reply.body.len()), (416, 0));
        let shown = format!("bytes */{len}");
        assert_eq!(header(&reply, "Content-Range"), Some(shown.as_str()));
        assert_eq!(ask("bytes=1-3", Some("\"other\"")), whole);
        assert_eq!(ask("bytes=0-1,3-4", None), whole);
    }
}
