//! Checks of the whole plan: values that are valid on their own but cannot work together.
//!
//! Contract: docs/contract/operations.md#11

use super::nearest::nearest;
use super::plan::{CorsPlan, OriginPattern, Plan};
use super::section::Section;

/// Warns about parts of the plan that cannot work.
pub(super) fn plan(root: &mut Section<'_, '_>, plan: &Plan) {
    overrides(root, plan);
    no_endpoints(root, plan);
    if plan.server.cors.enabled {
        let mut server = root.section("server");
        origins(&mut server.section("cors"), &plan.server.cors);
    }
}

/// Rate limits of endpoints that are not configured.
fn overrides(root: &mut Section<'_, '_>, plan: &Plan) {
    for (name, _) in &plan.server.rate_limits.per_endpoint.overrides {
        let endpoints = &plan.discovery.endpoints;
        if endpoints.iter().all(|endpoint| endpoint.name != *name) {
            let mut server = root.section("server");
            let mut limits = server.section("rate_limits");
            let mut rates = limits.section("per_endpoint");
            let mut overrides = rates.section("overrides");
            let known = endpoints.iter().map(|endpoint| endpoint.name.as_str());
            overrides.warn_near(name, "no endpoint has this name", nearest(name, known));
        }
    }
}

fn no_endpoints(root: &mut Section<'_, '_>, plan: &Plan) {
    let mut discovery = root.section("discovery");
    let mut s = discovery.section("static");
    if plan.discovery.endpoints.is_empty() && !s.is_faulty("endpoints") {
        let message = "no endpoint is configured; requests are refused until there is one";
        s.warn("endpoints", message);
    }
}

/// Origins that no browser sends: an origin consists of a scheme, a host and an optional port.
fn origins(s: &mut Section<'_, '_>, cors: &CorsPlan) {
    for (at, origin) in cors.allowed_origins.iter().enumerate() {
        if let Some(why) = never_sent(origin) {
            s.warn_item("allowed_origins", at, format!("can never match: {why}"));
        }
    }
}

/// The reason why no browser sends an origin that matches.
fn never_sent(origin: &OriginPattern) -> Option<String> {
    let (start, end) = match origin {
        OriginPattern::Any => return None,
        OriginPattern::Exact(exact) if exact == "null" => return None,
        OriginPattern::Exact(exact) => (exact.as_str(), exact.as_str()),
        OriginPattern::Around { prefix, suffix } => (prefix.as_str(), suffix.as_str()),
    };
    let is_exact = matches!(origin, OriginPattern::Exact(_));
    let (scheme, host) = match start.split_once("://") {
        Some((scheme, host)) => (Some(scheme), host),
        None => (None, start),
    };
    if scheme.is_none() && (is_exact || start.contains(['.', '/'])) {
        return Some(format!(
            "an origin begins with a scheme, as in \"https://{start}\""
        ));
    }
    let tail = match (is_exact, end.split_once("://")) {
        (true, _) => host,
        (false, Some((_, host))) => host,
        (false, None) => end,
    };
    if host.contains('/') || tail.contains('/') {
        return Some("an origin has no path and no trailing slash".to_owned());
    }
    let default_port = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return None,
    };
    let has_default = tail.ends_with(default_port);
    has_default.then(|| format!("browsers leave out the default port {}", &default_port[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let around = |prefix: &str, suffix: &str| OriginPattern::Around {
            prefix: prefix.into(),
            suffix: suffix.into(),
        };
        let exact = |text: &str| OriginPattern::Exact(text.into());
        let possible = [
            OriginPattern::Any,
            exact("null"),
            exact("https://app.example"),
            exact("http://localhost:3000"),
            exact("chrome-extension://abcdef"),
            exact("https://app.example:80"),
            around("https://", ".example"),
            around("http://localhost:", ""),
            around("", ".example"),
            around("http", "://app.example"),
        ];
        for origin in &possible {
            assert_eq!(never_sent(origin), None, "{origin:?}");
        }
        let impossible = [
            (exact("app.example"), "https://app.example"),
            (exact("https://app.example/"), "no path"),
            (exact("https://app.example/chat"), "no path"),
            (exact("https://app.example:443"), "443"),
            (exact("http://app.example:80"), "80"),
            (around("https://", ".example/"), "no path"),
            (around("https://a.example/", ""), "no path"),
            (around("app.", ".example"), "scheme"),
        ];
        for (origin, word) in &impossible {
            let why = never_sent(origin);
            let has = why.as_ref().is_some_and(|why| why.contains(word));
            assert!(has, "{origin:?}: {why:?}");
        }
    }
}
