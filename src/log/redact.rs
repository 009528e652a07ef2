//! Hides credentials in log lines: the values of query parameters with secret names, and user
//! information in URLs.
//!
//! Pure functions that allocate only if something is hidden. Headers and bodies are not logged at
//! all.
//!
//! Contract: docs/contract/operations.md#8 (`query`, `target`, errors)

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The replacement of a credential.
pub const REDACTED: &str = "[REDACTED]";

/// Parameters whose values are credentials, in lower case.
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
pub fn query(query: &str) -> Cow<'_, str> {
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

/// A target or URL with its query and user information redacted.
pub fn target(target: &str) -> Cow<'_, str> {
    text(target)
}

/// A message that may contain targets and URLs, with their queries and user information redacted.
pub fn text(message: &str) -> Cow<'_, str> {
    if !message.contains(['?', '@']) {
        return Cow::Borrowed(message);
    }
    let mut out = String::with_capacity(message.len());
    let mut changed = false;
    let mut rest = message;
    while !rest.is_empty() {
        let word_end = rest.find(ends_word).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word_end);
        let redacted = url_word(word);
        changed |= matches!(redacted, Cow::Owned(_));
        out.push_str(&redacted);
        let mut after = tail.chars();
        out.extend(after.next());
        rest = after.as_str();
    }
    if changed {
        Cow::Owned(out)
    } else {
        Cow::Borrowed(message)
    }
}

/// Characters that no URL contains unescaped.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '`')
}

fn url_word(word: &str) -> Cow<'_, str> {
    let (before, after) = match word.split_once('?') {
        Some((before, after)) => (before, Some(after)),
        None => (word, None),
    };
    let plain = without_user_info(before);
    let Some(after) = after else {
        return plain;
    };
    let (parameters, fragment) = after.split_at(after.find('#').unwrap_or(after.len()));
    match (plain, query(parameters)) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => Cow::Borrowed(word),
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
    fn texts_with_urls() {
        let table = [
            ("connection refused", "connection refused"),
            ("/v1/models?a=1", "/v1/models?a=1"),
            ("/v1/models?token=x", "/v1/models?token=[REDACTED]"),
            (
                "GET \"http://h:1/a?key=k#f\": refused?",
                "GET \"http://h:1/a?key=[REDACTED]#f\": refused?",
            ),
            ("http://u:p@h/x and b", "http://[REDACTED]@h/x and b"),
            ("https://u@h?auth=1", "https://[REDACTED]@h?auth=[REDACTED]"),
            ("http://h/a@b", "http://h/a@b"),
            ("me@example.org", "me@example.org"),
            ("é?token=ü x", "é?token=[REDACTED] x"),
        ];
        for (given, want) in table {
            assert_eq!(text(given), want);
            assert_eq!(matches!(target(given), Cow::Owned(_)), given != want);
        }
    }
}
