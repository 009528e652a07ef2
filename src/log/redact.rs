//! Hides credentials in log lines: the values of query parameters with secret names, user
//! information in URLs, and what a page of another site may have in its address.
//!
//! Pure functions that allocate only if something is hidden. Headers and bodies are not logged at
//! all.
//!
//! Contract: docs/contract/operations.md#8 (`query`, `referer`)

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The replacement of a credential.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// Parameters that contain credentials; their names in lower case.
const SECRET_NAMES: [&str; 7] = [
    "api_key",
    "token",
    "access_token",
    "key",
    "password",
    "secret",
    "auth",
];

/// A query, without its `?`, with the values of secret parameters replaced; the order stays.
pub(crate) fn query(query: &str) -> Cow<'_, str> {
    let is_secret = |pair: &str| {
        pair.split_once('=')
            .is_some_and(|(name, _)| is_secret_name(name))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len() + REDACTED.len());
    for (at, pair) in query.split('&').enumerate() {
        if at > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, _)) if is_secret_name(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(REDACTED);
            }
            _ => out.push_str(pair),
        }
    }
    Cow::Owned(out)
}

/// A `Referer`. It is the address of a page that may be another site's, whose names of parameters
/// nobody knows here: of its query and fragment only the names before `=` are left.
pub(crate) fn referer(url: &str) -> Cow<'_, str> {
    let Some(start) = url.find(['?', '#']) else {
        return without_user_info(url);
    };
    let (before, mut rest) = url.split_at(start);
    let mut out = without_user_info(before).into_owned();
    // One separator and what follows it up to the next.
    while let Some(separator) = rest.chars().next() {
        let after = &rest[separator.len_utf8()..];
        let end = after.find(['&', ';', '#', '?']).unwrap_or(after.len());
        let (part, next) = after.split_at(end);
        out.push(separator);
        if let Some((name, _)) = part.split_once('=') {
            out.push_str(name);
            out.push('=');
        }
        if !part.is_empty() {
            out.push_str(REDACTED);
        }
        rest = next;
    }
    Cow::Owned(out)
}

/// `scheme://user:password@host` loses what stands before the `@`.
fn without_user_info(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Cow::Borrowed(url);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{scheme}://{REDACTED}@{host}{path}")),
        None => Cow::Borrowed(url),
    }
}

/// Whether a parameter's name, as it stands in a query, is that of a credential: percent escapes
/// are decoded and letter case is ignored.
fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| {
        let decoded = percent_decode_str(name).map(|byte| byte.to_ascii_lowercase());
        decoded.eq(secret.bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let table = [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=x", "token=[REDACTED]"),
            ("a=1&API_KEY=s3&b=2", "a=1&API_KEY=[REDACTED]&b=2"),
            ("b=2&access_token=&a=1", "b=2&access_token=[REDACTED]&a=1"),
            ("%74oken=x&key=y=z", "%74oken=[REDACTED]&key=[REDACTED]"),
            ("%54%6F%6b%65%6E=x", "%54%6F%6b%65%6E=[REDACTED]"),
            (
                "password=a&secret=b&auth=c",
                "password=[REDACTED]&secret=[REDACTED]&auth=[REDACTED]",
            ),
            ("token", "token"),
            ("tokens=1&mykey=2&keyboard=3", "tokens=1&mykey=2&keyboard=3"),
            ("%zz=1&%=2&%7=3&a%", "%zz=1&%=2&%7=3&a%"),
            ("é=1&access_token_x=2", "é=1&access_token_x=2"),
        ];
        for (given, want) in table {
            let got = query(given);
            assert_eq!(got, want);
            assert_eq!(matches!(got, Cow::Owned(_)), given != want, "{given}");
        }
    }

    #[test]
    fn referers() {
        let table = [
            ("", ""),
            ("https://page.test/a/b", "https://page.test/a/b"),
            ("https://u:p@page.test/a", "https://[REDACTED]@page.test/a"),
            (
                "https://page.test/cb?code=s3&state=x",
                "https://page.test/cb?code=[REDACTED]&state=[REDACTED]",
            ),
            ("/a?token=s3=4", "/a?token=[REDACTED]"),
            ("/a?s3", "/a?[REDACTED]"),
            ("/a#access_token=s3", "/a#access_token=[REDACTED]"),
            (
                "/a?x=1;y=2#/b?sig=s3",
                "/a?x=[REDACTED];y=[REDACTED]#[REDACTED]?sig=[REDACTED]",
            ),
            ("http://u:s3@h?a=é", "http://[REDACTED]@h?a=[REDACTED]"),
            ("/a?&#", "/a?&#"),
        ];
        for (given, want) in table {
            assert_eq!(referer(given), want);
        }
    }
}
