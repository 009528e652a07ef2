//! Hides credentials in log lines: the values of query parameters with secret names, and user
//! information in URLs.
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

/// A URL with its query and user information redacted.
pub(crate) fn url(url: &str) -> Cow<'_, str> {
    let (before, after) = match url.split_once('?') {
        Some((before, after)) => (before, Some(after)),
        None => (url, None),
    };
    let plain = without_user_info(before);
    let Some(after) = after else {
        return plain;
    };
    let (parameters, fragment) = after.split_at(after.find('#').unwrap_or(after.len()));
    match (plain, query(parameters)) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(url),
        (plain, parameters) => Cow::Owned(format!("{plain}?{parameters}{fragment}")),
    }
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
    fn urls() {
        let table = [
            ("", ""),
            ("/v1/models?a=1", "/v1/models?a=1"),
            ("/v1/models?token=x", "/v1/models?token=[REDACTED]"),
            (
                "http://h:1/a?b=1&key=k#f",
                "http://h:1/a?b=1&key=[REDACTED]#f",
            ),
            ("http://u:p@h/x", "http://[REDACTED]@h/x"),
            ("https://u@h?auth=1", "https://[REDACTED]@h?auth=[REDACTED]"),
            ("http://h/a@b", "http://h/a@b"),
            ("é?token=ü", "é?token=[REDACTED]"),
        ];
        for (given, want) in table {
            let got = url(given);
            assert_eq!(got, want);
            assert_eq!(matches!(got, Cow::Owned(_)), given != want, "{given}");
        }
    }
}
