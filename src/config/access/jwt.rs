//! `[access.jwt]`: which tokens of an issuer are keys.
//!
//! Contract: docs/contract/access.md#9

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::bounds::secs;
use super::super::endpoint::{UrlFault, http_url};
use super::super::key::Raw;
use super::super::reader::Word as _;
use super::super::section::Section;
use super::super::tree::ConfigValue;
use super::algorithm::JwtAlgorithm;
use super::entry::find_policy;
use super::jwks::{KeySet, read_set};
use super::policy::PolicyPlan;

/// Where the issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// They are fetched.
    Url(String),
    /// A file has them.
    File {
        /// The file.
        path: PathBuf,
        /// The keys that it had when the configuration was read.
        set: Arc<KeySet>,
    },
}

/// `[access.jwt]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtPlan {
    /// What `iss` must be.
    pub issuer: String,
    /// One of these must be in `aud`; never empty.
    pub audience: Vec<String>,
    /// Where the keys come from.
    pub jwks: JwksSource,
    /// The accepted algorithms; never empty.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The claim with the name.
    pub name_claim: String,
    /// The claim with the policy.
    pub policy_claim: String,
    /// The policy of tokens without that claim; `None` = they are refused.
    pub policy: Option<Arc<str>>,
    /// Whether `admin` of a policy counts.
    pub allow_admin: bool,
    /// Tolerance of times.
    pub leeway: Duration,
    /// Interval between two fetches.
    pub refresh: Duration,
    /// How long the last keys are used if fetches fail.
    pub stale_limit: Duration,
}

/// The values of the table, not yet validated.
struct JwtKeys {
    issuer: String,
    audience: Vec<String>,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    algorithms: Vec<JwtAlgorithm>,
    name_claim: String,
    policy_claim: String,
    policy: String,
    allow_admin: bool,
    times: JwtTimes,
}

/// The durations among them.
struct JwtTimes {
    leeway: Duration,
    refresh: Duration,
    stale_limit: Duration,
}

/// Reads `[access.jwt]`; `None` if it is absent or something was refused.
pub(super) fn jwt(s: &mut Section<'_, '_>, policies: &[PolicyPlan]) -> Option<JwtPlan> {
    let keys = declare(s);
    let given = ["issuer", "audience", "jwks_url", "jwks_file"];
    if !s.is_present() && !given.iter().any(|key| s.is_given(key)) {
        return None;
    }
    check(s, keys, policies)
}

fn declare(s: &mut Section<'_, '_>) -> JwtKeys {
    let texts = "a string, or a list of strings";
    let audience = |raw: Raw<'_>| match raw {
        Raw::Env(text) => Some(listed(text)),
        Raw::File(node) => match &node.value {
            ConfigValue::List(items) => {
                let text = items
                    .iter()
                    .map(|item| item.value.text().map(str::to_owned));
                text.collect()
            }
            other => other.text().map(|text| vec![text.to_owned()]),
        },
    };
    JwtKeys {
        issuer: s
            .key("issuer", "What `iss` of a token must be, byte for byte.")
            .env("OLLA_ACCESS_JWT_ISSUER")
            .text_optional()
            .unwrap_or_default(),
        audience: s
            .key("audience", "One of these must be in `aud` of a token.")
            .env("OLLA_ACCESS_JWT_AUDIENCE")
            .resolve(texts.into(), Vec::new(), audience),
        jwks_url: s
            .key(
                "jwks_url",
                "Where the issuer's keys are fetched: https, or http of this machine.",
            )
            .env("OLLA_ACCESS_JWT_JWKS_URL")
            .secret()
            .text_optional(),
        jwks_file: s
            .key(
                "jwks_file",
                "In place of jwks_url: file with the issuer's keys; changes are followed.",
            )
            .env("OLLA_ACCESS_JWT_JWKS_FILE")
            .path(),
        algorithms: s
            .key("algorithms", "The accepted signature algorithms.")
            .words(JwtAlgorithm::ALL),
        name_claim: s
            .key(
                "name_claim",
                "The claim with the name; the key's name is jwt: and that.",
            )
            .text_such("sub", "the name of a claim", |text| !text.is_empty()),
        policy_claim: s
            .key("policy_claim", "The claim with the name of the policy.")
            .text_such("olla_policy", "the name of a claim", |text| {
                !text.is_empty()
            }),
        policy: s
            .key(
                "policy",
                "The policy of tokens without that claim; \"\" refuses them.",
            )
            .text(""),
        allow_admin: s
            .key("allow_admin", "Whether `admin` of a token's policy counts.")
            .bool(false),
        times: times(s),
    }
}

fn times(s: &mut Section<'_, '_>) -> JwtTimes {
    JwtTimes {
        leeway: s
            .key("leeway", "Tolerance on exp, nbf and iat: 0 to 5m.")
            .duration(secs(30)),
        refresh: s
            .key(
                "refresh",
                "Interval between two fetches of the keys: 1m to 24h.",
            )
            .duration(secs(3600)),
        stale_limit: s
            .key(
                "stale_limit",
                "How long the last keys are used while fetches fail; at least refresh.",
            )
            .duration(secs(24 * 3600)),
    }
}

/// The items of a comma list.
fn listed(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim);
    items
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn check(s: &mut Section<'_, '_>, keys: JwtKeys, policies: &[PolicyPlan]) -> Option<JwtPlan> {
    if keys.issuer.is_empty() && !s.is_faulty("issuer") {
        s.expected("issuer", "the `iss` of the issuer's tokens");
    }
    let is_blank = keys.audience.is_empty() || keys.audience.iter().any(String::is_empty);
    if is_blank && !s.is_faulty("audience") {
        s.expected("audience", "at least one audience, none of them empty");
    }
    if keys.algorithms.is_empty() && !s.is_faulty("algorithms") {
        s.expected("algorithms", "at least one of RS256, ES256 and EdDSA");
    }
    if keys.times.leeway > secs(300) {
        s.expected("leeway", "0 to \"5m\"");
    }
    let is_refresh = (secs(60)..=secs(24 * 3600)).contains(&keys.times.refresh);
    if !is_refresh && !s.is_faulty("refresh") {
        s.expected("refresh", "\"1m\" to \"24h\"");
    }
    if keys.times.stale_limit < keys.times.refresh && !s.is_faulty("stale_limit") {
        s.expected("stale_limit", "at least access.jwt.refresh");
    }
    let policy = match find_policy(policies, &keys.policy) {
        Ok(policy) => Some(Arc::clone(&policy.name)),
        Err(message) if !keys.policy.is_empty() => {
            s.refuse("policy", message);
            None
        }
        Err(_) => None,
    };
    Some(JwtPlan {
        issuer: keys.issuer,
        audience: keys.audience,
        jwks: source(s, keys.jwks_url, keys.jwks_file)?,
        algorithms: keys.algorithms,
        name_claim: keys.name_claim,
        policy_claim: keys.policy_claim,
        policy,
        allow_admin: keys.allow_admin,
        leeway: keys.times.leeway,
        refresh: keys.times.refresh,
        stale_limit: keys.times.stale_limit,
    })
}

fn source(
    s: &mut Section<'_, '_>,
    url: Option<String>,
    file: Option<PathBuf>,
) -> Option<JwksSource> {
    match (url, file) {
        (Some(url), None) => match url_fault(&url) {
            None => Some(JwksSource::Url(url)),
            Some(expected) => {
                s.refuse("jwks_url", format!("expected {expected}, got (hidden)"));
                None
            }
        },
        (None, Some(file)) => {
            let path = s.folder().join(&file);
            match read_set(&path) {
                Ok(set) => Some(JwksSource::File {
                    path,
                    set: Arc::new(set),
                }),
                Err(message) => {
                    s.refuse("jwks_file", format!("{}: {message}", file.display()));
                    None
                }
            }
        }
        (given, _) => {
            let got = if given.is_some() { "both" } else { "neither" };
            if !s.is_faulty("jwks_url") && !s.is_faulty("jwks_file") {
                let message = format!("expected exactly one of jwks_url and jwks_file, got {got}");
                s.refuse("jwks_url", message);
            }
            None
        }
    }
}

/// What was expected of a URL that may not be used.
fn url_fault(text: &str) -> Option<&'static str> {
    let url = match http_url(text.trim()) {
        Ok(url) => url,
        Err(UrlFault::Credentials) => return Some("a URL without credentials"),
        Err(_) => return Some("an https URL"),
    };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    };
    let is_safe = url.scheme() == "https" || is_loopback;
    (!is_safe).then_some("an https URL; http is accepted of this machine only")
}
