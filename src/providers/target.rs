//! The targets of an endpoint's health checks and model listings.
//!
//! A relative path goes with the query of the endpoint's URL, an absolute URL without it.
//!
//! Contract: docs/contract/catalogue.md#2.2, docs/contract/catalogue.md#3.6;
//! docs/contract/balancing.md#11

use url::Url;

use super::profile::Profile;
use crate::config::{AUTO, BaseUrl, EndpointPlan, Scheme, UrlFault};

/// The health check path of an endpoint with an unknown type.
const AUTO_HEALTH_PATH: &str = "/";

/// A request target with the address that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamTarget {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Name in lower case, or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Value of `Host`.
    pub host_header: String,
    /// Path and query as in the request line, without a fragment.
    pub path_and_query: String,
    /// Whether scheme, host and port are the endpoint's own. Its credentials are sent only there.
    pub is_own_origin: bool,
}

/// The target of an endpoint's health checks.
///
/// # Errors
/// The configuration or the profile contains an absolute URL that cannot be used.
pub(crate) fn health_url(
    endpoint: &EndpointPlan,
    profile: &Profile,
) -> Result<UpstreamTarget, UrlFault> {
    let default = if endpoint.kind == AUTO {
        AUTO_HEALTH_PATH
    } else {
        &profile.health_path
    };
    let configured = endpoint.health_check_url.as_deref();
    target(&endpoint.url, configured.unwrap_or(default))
}

/// The target of an endpoint's listing, once its profile is known. For type `auto`, pass the target
/// of a [`super::detect::DetectionProbe`] to [`target`] first.
///
/// # Errors
/// The same as for [`health_url`].
pub(crate) fn model_url(
    endpoint: &EndpointPlan,
    profile: &Profile,
) -> Result<UpstreamTarget, UrlFault> {
    let configured = endpoint.model_url.as_deref();
    target(&endpoint.url, configured.unwrap_or(&profile.discovery_path))
}

/// The target of a path below an endpoint's URL, or of an absolute URL.
///
/// # Errors
/// An absolute URL is not http or https, has no host, or holds credentials.
pub(crate) fn target(base: &BaseUrl, value: &str) -> Result<UpstreamTarget, UrlFault> {
    let value = value.trim();
    if value.contains("://") && !value.starts_with(['/', '?']) {
        let absolute = BaseUrl::parse(value)?;
        let url = Url::parse(value).map_err(|_| UrlFault::Unreadable)?;
        let is_own_origin = absolute.scheme == base.scheme
            && absolute.host == base.host
            && absolute.port == base.port;
        return Ok(UpstreamTarget {
            scheme: absolute.scheme,
            host: absolute.host,
            port: absolute.port,
            host_header: absolute.host_header,
            path_and_query: path_and_query(&url),
            is_own_origin,
        });
    }
    let (path, query) = split_query(value);
    let joined = collapsed(&format!("{}/{path}", base.base_path));
    // The host does not matter here: only characters that a request line must not contain are
    // escaped.
    let mut url = Url::parse("http://host/").map_err(|_| UrlFault::Unreadable)?;
    url.set_path(&joined);
    url.set_query(query);
    let mut path_and_query = path_and_query(&url);
    if let Some(own) = &base.query {
        path_and_query.push(if query.is_some() { '&' } else { '?' });
        path_and_query.push_str(own.expose());
    }
    Ok(UpstreamTarget {
        scheme: base.scheme,
        host: base.host.clone(),
        port: base.port,
        host_header: base.host_header.clone(),
        path_and_query,
        is_own_origin: true,
    })
}

fn split_query(value: &str) -> (&str, Option<&str>) {
    let value = value.split_once('#').map_or(value, |(before, _)| before);
    match value.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (value, None),
    }
}

/// A path with runs of slashes made one.
fn collapsed(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> BaseUrl {
        BaseUrl::parse(url).unwrap()
    }

    #[test]
    fn paths_are_joined_to_the_base() {
        let table = [
            // base, value, path and query
            ("http://h", "/v1/models", "/v1/models"),
            ("http://h/", "/v1/models", "/v1/models"),
            ("http://h/", "v1/models", "/v1/models"),
            (
                "http://h/engines/llama.cpp/",
                "/v1/models",
                "/engines/llama.cpp/v1/models",
            ),
            ("http://h/base", "health", "/base/health"),
            ("http://h/base", "//health//x", "/base/health/x"),
            ("http://h/base", "/health/", "/base/health/"),
            ("http://h/base", "/", "/base/"),
            ("http://h", "/", "/"),
            ("http://h/team%20a", "/é", "/team%20a/%C3%A9"),
            ("http://h", "/x?a=1&b=//2", "/x?a=1&b=//2"),
            ("http://h", "/x?u=http://y", "/x?u=http://y"),
            ("http://h/base", "?a=1", "/base/?a=1"),
            ("http://h", "/x#f", "/x"),
            ("http://h?secret=1", "/x", "/x?secret=1"),
            ("http://h/b/?secret=1", "/x?a=1", "/b/x?a=1&secret=1"),
            ("http://h?secret=1#f", "", "/?secret=1"),
        ];
        for (url, value, expected) in table {
            let target = target(&base(url), value).unwrap();
            assert_eq!(target.path_and_query, expected, "{url} {value}");
            assert!(target.is_own_origin);
            assert_eq!((target.host.as_str(), target.port), ("h", 80));
        }
    }

    #[test]
    fn absolute_urls_are_used_as_they_are() {
        let table = [
            // value, host header, port, path and query, own origin
            ("http://h:80/up?x=1", "h", 80, "/up?x=1", true),
            ("http://H/up//x", "h", 80, "/up//x", true),
            ("http://h", "h", 80, "/", true),
            ("https://h/up", "h", 443, "/up", false),
            ("http://h:81/up", "h:81", 81, "/up", false),
            ("http://other/up#f", "other", 80, "/up", false),
            ("http://[::1]:9/a/", "[::1]:9", 9, "/a/", false),
        ];
        // The query of the endpoint's own URL does not go with them.
        let base = base("http://h/base?secret=1");
        for (value, host_header, port, path_and_query, is_own_origin) in table {
            let target = target(&base, value).unwrap();
            assert_eq!(target.host_header, host_header, "{value}");
            assert_eq!(target.port, port, "{value}");
            assert_eq!(target.path_and_query, path_and_query, "{value}");
            assert_eq!(target.is_own_origin, is_own_origin, "{value}");
        }
    }

    #[test]
    fn unusable_urls_are_refused() {
        let table = [
            ("ftp://h/x", UrlFault::Scheme),
            ("http://", UrlFault::Unreadable),
            ("http://u:p@h/x", UrlFault::Credentials),
        ];
        for (value, fault) in table {
            assert_eq!(target(&base("http://h"), value), Err(fault), "{value}");
        }
    }
}
