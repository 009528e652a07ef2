//! One endpoint of the plan: its address, its credentials and its other configured properties.
//!
//! This file holds types and pure parsing. It reads no file and makes no finding.
//!
//! Contract: docs/contract/catalogue.md#2, docs/contract/balancing.md#14,
//! docs/contract/surface.md#3.1

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::dialect::DialectName;
use super::values::before;
use super::version_prefix;

/// Headers that frame a message or belong to one connection; the gateway sets them itself
/// (RFC 9110 section 7.6.1).
pub(super) const OWN_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One entry of `discovery.static.endpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointPlan {
    /// Unique, not empty.
    pub name: String,
    /// Its address.
    pub url: BaseUrl,
    /// The canonical name of its profile, or `auto`.
    pub kind: String,
    /// The type as it was written (`lmstudio`), for `X-Olla-Backend-Type`; `auto` when absent.
    pub kind_as_written: String,
    /// Endpoints with a higher priority are preferred.
    pub priority: u32,
    /// Path below the URL's own path, or an absolute URL; `None` = the profile's.
    pub health_check_url: Option<String>,
    /// Path below the URL's own path, or an absolute URL; `None` = the profile's.
    pub model_url: Option<String>,
    /// Interval between two health checks, at least 1 s.
    pub check_interval: Duration,
    /// Time limit of a health check: less than `check_interval`, at most 30 s.
    pub check_timeout: Duration,
    /// Context in tokens that it serves, over what it reports (docs/contract/scheduling.md#6).
    pub context_length: Option<NonZeroU32>,
    /// Requests that it is sent at one time, at most [`Self::SLOTS_MAX`]; `None` = as it reports, or
    /// as learned (docs/contract/scheduling.md#4).
    pub max_concurrent: Option<NonZeroU32>,
    /// Tokens that its prefix cache is believed to hold at first; `None` =
    /// `proxy.least_time.cache_tokens` (docs/contract/scheduling.md#2).
    pub cache_tokens: Option<NonZeroU32>,
    /// Whether requests keep the URL's own path in front (docs/contract/surface.md#3.1).
    pub preserve_path: bool,
    /// The models to use.
    pub model_filter: NameFilter,
    /// Headers set on every request to it, in the order of their names. Names are unique regardless
    /// of letter case.
    pub headers: Vec<(String, Secret)>,
    /// Its credentials.
    pub auth: Option<Auth>,
    /// How its certificate is verified.
    pub tls: EndpointTlsPlan,
    /// The dialects that it speaks, in place of those of its profile (docs/contract/dialects.md#1);
    /// empty = those of its profile.
    pub dialects: Vec<DialectName>,
}

impl EndpointPlan {
    /// The most slots of an endpoint, configured or reported (docs/contract/scheduling.md#11).
    pub const SLOTS_MAX: u32 = 65_536;

    /// Whether it speaks a dialect, if the configuration says so.
    pub fn speaks(&self, dialect: DialectName) -> Option<bool> {
        (!self.dialects.is_empty()).then(|| self.dialects.contains(&dialect))
    }

    /// An endpoint with the default of every other key.
    pub fn new(name: &str, url: BaseUrl, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            url,
            kind: kind.to_owned(),
            kind_as_written: kind.to_owned(),
            priority: 100,
            health_check_url: None,
            model_url: None,
            check_interval: Duration::from_secs(5),
            check_timeout: Duration::from_secs(2),
            context_length: None,
            max_concurrent: None,
            cache_tokens: None,
            preserve_path: false,
            model_filter: NameFilter::default(),
            headers: Vec::new(),
            auth: None,
            tls: EndpointTlsPlan::default(),
            dialects: Vec::new(),
        }
    }
}

/// `tls` of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EndpointTlsPlan {
    /// PEM file with additional trusted certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate is accepted.
    pub insecure_skip_verify: bool,
}

/// Two lists of globs (docs/contract/catalogue.md#4.1); exclude wins, an empty include admits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameFilter {
    /// Globs of the names that are admitted; empty = all.
    pub include: Vec<String>,
    /// Globs of the names that are not admitted.
    pub exclude: Vec<String>,
}

/// The credentials of an endpoint (docs/contract/balancing.md#14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer <token>`.
    Bearer {
        /// Never empty.
        token: Secret,
    },
    /// `<header>: <key>`.
    ApiKey {
        /// A token, `X-Api-Key` when not given.
        header: String,
        /// Never empty.
        key: Secret,
    },
    /// `Authorization: Basic base64(username:password)`.
    Basic {
        /// Never empty, without `:`.
        username: Secret,
        /// Never empty.
        password: Secret,
    },
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a string.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The string, to be sent to the endpoint only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The two schemes of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL without one.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An endpoint's `url`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// The scheme.
    pub scheme: Scheme,
    /// The host name in lower case, or the address, IPv6 without brackets.
    pub host: String,
    /// The port; that of the scheme if the URL has none.
    pub port: u16,
    /// The value of `Host`: with brackets for IPv6, without the port of the scheme.
    pub host_header: String,
    /// Path without its trailing slash, percent escapes as written: `""` or `/base`.
    pub base_path: String,
    /// The version prefix that the path ended in and that was left out of `base_path`.
    pub version_prefix: Option<&'static str>,
    /// The query that goes with every request, without its `?`. It may hold a credential.
    pub query: Option<Secret>,
    /// The URL as written, without user info, query and fragment.
    pub display: String,
}

/// Why a string is not the URL of an endpoint. It holds nothing of the string, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlFault {
    /// The string is blank.
    Empty,
    /// The string is not a URL, or has no host.
    Unreadable,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The scheme is missing: `127.0.0.1:9`, or `localhost:9`, which parses as a scheme.
    NoScheme,
    /// The scheme is neither `http` nor `https`.
    Scheme,
    /// The URL has `user:password@` or `user@`.
    Credentials,
}

impl BaseUrl {
    /// Parses the URL of an endpoint.
    ///
    /// # Errors
    /// The first fault. Credentials are detected first, so that a string with credentials is never
    /// reported as merely invalid.
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        let text = text.trim();
        let url = http_url(text)?;
        let scheme = if url.scheme() == "https" {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let (host, host_written) = match url.host() {
            Some(Host::Domain(name)) => (name.to_owned(), name.to_owned()),
            Some(Host::Ipv4(ip)) => (ip.to_string(), ip.to_string()),
            Some(Host::Ipv6(ip)) => (ip.to_string(), format!("[{ip}]")),
            None => return Err(UrlFault::Unreadable),
        };
        let port = url.port().unwrap_or(scheme.default_port());
        if port == 0 {
            return Err(UrlFault::Port);
        }
        let host_header = match url.port() {
            Some(port) => format!("{host_written}:{port}"),
            None => host_written,
        };
        let base_path = url.path().trim_end_matches('/').to_owned();
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let display = text[..end].to_owned();
        Ok(Self {
            scheme,
            host,
            port,
            host_header,
            base_path,
            version_prefix: None,
            query: url.query().filter(|q| !q.is_empty()).map(Secret::new),
            display,
        })
    }

    /// The URL without the version prefix that its path may end in; `kind` is the canonical type of
    /// the endpoint (docs/contract/surface.md#3.1).
    #[must_use]
    pub fn without_version_prefix(mut self, kind: &str) -> Self {
        let (base, prefix) = version_prefix::split(kind, &self.base_path);
        let len = base.len();
        self.base_path.truncate(len);
        self.version_prefix = prefix;
        self
    }
}

/// Parses an http or https URL that has a host and no credentials.
pub(super) fn http_url(text: &str) -> Result<Url, UrlFault> {
    if text.is_empty() {
        return Err(UrlFault::Empty);
    }
    if has_user_info(text) {
        return Err(UrlFault::Credentials);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(UrlFault::NoScheme);
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        return Err(if is_scheme {
            UrlFault::Scheme
        } else {
            UrlFault::NoScheme
        });
    }
    // The parser follows browsers: the first name after any number of slashes is the host.
    let has_host = !rest.starts_with('/');
    if !has_host || text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
        return Err(UrlFault::Unreadable);
    }
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::InvalidPort => UrlFault::Port,
        _ => UrlFault::Unreadable,
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlFault::Credentials);
    }
    Ok(url)
}

/// Whether an `@` stands before the path, query or fragment (RFC 3986 section 3.2.1).
fn has_user_info(text: &str) -> bool {
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    before(authority, &['/', '?', '#', '\\']).contains('@')
}

/// Whether a string is a token (RFC 9110 section 5.6.2), as a header name must be.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Why a header of this name cannot be set on requests to an endpoint, as a message.
pub(super) fn header_fault(name: &str) -> Option<&'static str> {
    if !is_token(name) {
        return Some("expected a header name (letters, digits and hyphens)");
    }
    let own = OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
    own.then_some("the gateway sets this header itself")
}

/// Whether a string can be a header value: without control characters except tabs, without
/// surrounding blanks (RFC 9110 section 5.5).
pub(super) fn is_header_value(text: &str) -> bool {
    text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let table = [
            // written, host, port, host header, base path, display
            ("http://h", "h", 80, "h", "", "http://h"),
            ("http://h/", "h", 80, "h", "", "http://h/"),
            ("http://H:80/", "h", 80, "h", "", "http://H:80/"),
            ("https://h", "h", 443, "h", "", "https://h"),
            ("https://h:80", "h", 80, "h:80", "", "https://h:80"),
            (
                "HTTP://h:1234/base/",
                "h",
                1234,
                "h:1234",
                "/base",
                "HTTP://h:1234/base/",
            ),
            (
                "http://[::1]:9/a",
                "::1",
                9,
                "[::1]:9",
                "/a",
                "http://[::1]:9/a",
            ),
            (
                "http://h/team%20a/api",
                "h",
                80,
                "h",
                "/team%20a/api",
                "http://h/team%20a/api",
            ),
            ("http://h/a?token=s#f", "h", 80, "h", "/a", "http://h/a"),
            ("http://h?x@y", "h", 80, "h", "", "http://h"),
            ("http://h/a@b", "h", 80, "h", "/a@b", "http://h/a@b"),
        ];
        for (text, host, port, host_header, base_path, display) in table {
            let url = BaseUrl::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.host_header, host_header, "{text}");
            assert_eq!(url.base_path, base_path, "{text}");
            assert_eq!(url.display, display, "{text}");
        }
    }

    #[test]
    fn a_version_prefix_and_a_query_are_set_apart() {
        let table = [
            // written, base path, prefix, query, display
            ("http://h/v1/", "", Some("/v1"), None, "http://h/v1/"),
            ("http://h/b/v1", "/b", Some("/v1"), None, "http://h/b/v1"),
            ("http://h/?a=b#f", "", None, Some("a=b"), "http://h/"),
            (
                "http://h/v1?a=b",
                "",
                Some("/v1"),
                Some("a=b"),
                "http://h/v1",
            ),
            ("http://h?", "", None, None, "http://h"),
            ("http://h#f?x", "", None, None, "http://h"),
        ];
        for (text, base, prefix, query, display) in table {
            let url = BaseUrl::parse(text).unwrap().without_version_prefix("vllm");
            assert_eq!(url.base_path, base, "{text}");
            assert_eq!(url.version_prefix, prefix, "{text}");
            assert_eq!(url.query.as_ref().map(Secret::expose), query, "{text}");
            assert_eq!(url.display, display, "{text}");
            assert!(!format!("{url:?}").contains("a=b"), "{url:?}");
        }
    }

    #[test]
    fn faulty_urls_are_refused() {
        let table = [
            ("", UrlFault::Empty),
            ("  ", UrlFault::Empty),
            ("127.0.0.1:9", UrlFault::NoScheme),
            ("localhost:9", UrlFault::NoScheme),
            ("1h://x", UrlFault::NoScheme),
            ("ftp://h", UrlFault::Scheme),
            ("unix:///run/x", UrlFault::Scheme),
            ("http://", UrlFault::Unreadable),
            ("http://:80", UrlFault::Unreadable),
            ("http://a b", UrlFault::Unreadable),
            ("http://h\\x", UrlFault::Unreadable),
            ("http://h:99999", UrlFault::Port),
            ("http://h:port", UrlFault::Port),
            ("http://h:0", UrlFault::Port),
            ("http:///h", UrlFault::Unreadable),
            ("http://[::1", UrlFault::Unreadable),
            ("http://u:p@h", UrlFault::Credentials),
            ("http://u@h", UrlFault::Credentials),
            ("http://@h", UrlFault::Credentials),
            ("u:p@h:80", UrlFault::Credentials),
            ("ftp://u:p@h", UrlFault::Credentials),
            ("http://u:p@h:99999", UrlFault::Credentials),
        ];
        for (text, fault) in table {
            assert_eq!(BaseUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let auth = Auth::Basic {
            username: Secret::new("me"),
            password: Secret::new("hunter2"),
        };
        let shown = format!("{auth:?}");
        assert!(
            !shown.contains("me\"") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(Secret::new("x").expose(), "x");
    }
}
