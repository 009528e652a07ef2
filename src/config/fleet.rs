//! The declarations of the keys of `discovery.static.endpoints`, and what an endpoint must satisfy.
//!
//! An endpoint is read in two steps: [`declare`] takes what was typed, [`judge`] makes the plan of
//! it. Every finding names the endpoint. URLs may hold secrets and are shown without their query.
//!
//! contract: catalogue 2, balancing 14, 15, operations 11

use std::collections::HashMap;
use std::time::Duration;

use olla_engine::tls::Roots;

use super::auth;
use super::bounds::{U32_MAX, name_filter, secs};
use super::endpoint::{
    BaseUrl, EndpointPlan, EndpointTlsPlan, NameFilter, Scheme, Secret, UrlFault, header_fault,
    http_url, is_header_value,
};
use super::env::expand;
use super::inputs::{AUTO, ConfigInputs};
use super::plan::MAX_ENDPOINTS;
use super::section::Section;

use super::tree::ConfigValue;
use super::values::quoted;

/// Reads `[discovery.static]`. Without the key `endpoints` there is the built-in one.
pub(super) fn endpoints(
    s: &mut Section<'_, '_>,
    inputs: &ConfigInputs<'_>,
    profiles: &NameFilter,
) -> Vec<EndpointPlan> {
    let Some(items) = s.items("endpoints") else {
        // Nothing is given; the declarations are still made, for the reference.
        declare(&mut s.item("endpoints", None));
        let default = built_in();
        return if (inputs.admits)(profiles, &default.kind) {
            vec![default]
        } else {
            Vec::new()
        };
    };
    if items.len() > MAX_ENDPOINTS {
        let shown = format!("{} endpoints", items.len());
        s.refuse_shown("endpoints", &shown, format_args!("at most {MAX_ENDPOINTS}"));
    }
    let mut unique = Unique::default();
    let mut plans = Vec::with_capacity(items.len().min(MAX_ENDPOINTS));
    for (at, node) in items {
        let mut s = s.item("endpoints", Some((at, node)));
        let typed = declare(&mut s);
        unique.check(&mut s, at, &typed);
        plans.extend(judge(&mut s, typed, inputs, profiles));
    }
    plans
}

/// The endpoint of a configuration that has no list of them (contract: balancing 12).
fn built_in() -> EndpointPlan {
    let host = "localhost".to_owned();
    let authority = format!("{host}:11434");
    let url = BaseUrl {
        scheme: Scheme::Http,
        host: host.clone(),
        port: 11434,
        display: format!("http://{authority}"),
        host_header: authority,
        base_path: String::new(),
    };
    EndpointPlan::new(&host, url, "ollama")
}

/// An endpoint as it was typed.
struct EndpointKeys {
    name: String,
    url: String,
    kind: Option<String>,
    priority: u32,
    check_interval: Duration,
    check_timeout: Duration,
    preserve_path: bool,
    health_check_url: Option<String>,
    model_url: Option<String>,
    model_filter: NameFilter,
    headers: Vec<(String, String)>,
    auth: auth::AuthKeys,
    tls: EndpointTlsPlan,
}

fn declare(s: &mut Section<'_, '_>) -> EndpointKeys {
    let name = s
        .key("name", "Unique; shown everywhere.")
        .text_optional()
        .unwrap_or_default();
    s.name_subject(format!("endpoint {}", quoted(&name)));
    let url_doc = "Base address, http or https, without credentials.";
    let headers_doc = "Set on every request to it; ${VAR} and ${VAR:-default} are replaced.";
    let text = |value: &ConfigValue| value.text().map(str::to_owned);
    EndpointKeys {
        name,
        url: s
            .key("url", url_doc)
            .secret()
            .text_optional()
            .unwrap_or_default(),
        kind: s
            .key(
                "type",
                "Kind of server; absent = auto, found out by asking.",
            )
            .text_optional(),
        priority: s
            .key("priority", "Higher is preferred.")
            .int(100, 0, U32_MAX),
        check_interval: s
            .key(
                "check_interval",
                "Between two health checks, at least 1s; 0 = the default.",
            )
            .duration_or(secs(5), secs(5)),
        check_timeout: s
            .key(
                "check_timeout",
                "Less than check_interval, at most 30s; 0 = the default.",
            )
            .duration(secs(2)),
        preserve_path: s
            .key(
                "preserve_path",
                "Keep the URL's own path in front of the request's.",
            )
            .bool(false),
        health_check_url: target(s, "health_check_url"),
        model_url: target(s, "model_url"),
        model_filter: name_filter(
            &mut s.section("model_filter"),
            "Globs over its models that exist; empty = all.",
            "Globs over its models that do not exist; wins.",
        ),
        headers: s
            .key("headers", headers_doc)
            .secret()
            .resolve_map("a text", text),
        auth: auth::declare(&mut s.section("auth")),
        tls: tls(&mut s.section("tls")),
    }
}

/// Where a probe or a listing is asked for.
fn target(s: &mut Section<'_, '_>, key: &str) -> Option<String> {
    let doc = "Path below the URL, or an absolute URL; absent = by type.";
    s.key(key, doc).secret().text_optional()
}

fn tls(s: &mut Section<'_, '_>) -> EndpointTlsPlan {
    EndpointTlsPlan {
        ca_file: s
            .key("ca_file", "PEM file with further trusted certificates.")
            .path(),
        insecure_skip_verify: s
            .key(
                "insecure_skip_verify",
                "Accept any certificate; warns at every start.",
            )
            .bool(false),
    }
}

fn judge(
    s: &mut Section<'_, '_>,
    typed: EndpointKeys,
    inputs: &ConfigInputs<'_>,
    profiles: &NameFilter,
) -> Option<EndpointPlan> {
    if typed.name.trim().is_empty() {
        s.refuse("name", "a name");
    } else if !is_header_value(&typed.name) {
        s.refuse("name", "a name without control characters and outer blanks");
    }
    let url = BaseUrl::parse(&typed.url);
    if let Err(fault) = &url {
        refuse_url(s, "url", &typed.url, *fault);
    }
    for (key, text) in [
        ("health_check_url", typed.health_check_url.as_deref()),
        ("model_url", typed.model_url.as_deref()),
    ] {
        check_target(s, key, text.unwrap_or_default());
    }
    let (kind, kind_as_written) = kind(s, typed.kind, inputs, profiles);
    let check_timeout = check_times(s, typed.check_interval, typed.check_timeout);
    let auth = if s.section("auth").is_present() {
        auth::judge(&mut s.section("auth"), typed.auth, inputs)
    } else {
        None
    };
    judge_tls(&mut s.section("tls"), &typed.tls, inputs);
    Some(EndpointPlan {
        url: url.ok()?,
        name: typed.name,
        kind,
        kind_as_written,
        priority: typed.priority,
        health_check_url: typed.health_check_url,
        model_url: typed.model_url,
        check_interval: typed.check_interval,
        check_timeout,
        preserve_path: typed.preserve_path,
        model_filter: typed.model_filter,
        headers: headers(s, typed.headers),
        auth,
        tls: typed.tls,
    })
}

/// The canonical type and the one written. Unknown and excluded ones are refused.
fn kind(
    s: &mut Section<'_, '_>,
    written: Option<String>,
    inputs: &ConfigInputs<'_>,
    profiles: &NameFilter,
) -> (String, String) {
    let written = written.unwrap_or_else(|| AUTO.to_owned());
    if written == AUTO {
        return (written.clone(), written);
    }
    let admitted = |canonical: &str| (inputs.admits)(profiles, canonical);
    let found = inputs.types.iter().find(|name| name.written == written);
    match found {
        Some(found) if admitted(&found.canonical) => (found.canonical.clone(), written),
        Some(_) => {
            s.refuse("type", "a type that proxy.profile_filter does not exclude");
            (AUTO.to_owned(), written)
        }
        None => {
            let known = inputs.types.iter().filter(|name| admitted(&name.canonical));
            let known: Vec<_> = known.map(|name| name.written.as_str()).collect();
            s.refuse("type", format_args!("one of {AUTO}, {}", known.join(", ")));
            (AUTO.to_owned(), written)
        }
    }
}

/// The timeout of health checks. Where it is left to us it never collides with a short interval.
fn check_times(s: &mut Section<'_, '_>, interval: Duration, timeout: Duration) -> Duration {
    if interval < secs(1) {
        s.refuse("check_interval", "at least 1s");
    }
    if timeout.is_zero() || !s.is_given("check_timeout") {
        return secs(2).min(if interval <= secs(2) {
            interval / 2
        } else {
            secs(2)
        });
    }
    if timeout > secs(30) {
        s.refuse("check_timeout", "at most 30s");
    } else if timeout >= interval {
        s.refuse("check_timeout", "less than check_interval");
    }
    timeout
}

fn judge_tls(s: &mut Section<'_, '_>, tls: &EndpointTlsPlan, inputs: &ConfigInputs<'_>) {
    if let Some(path) = &tls.ca_file {
        match std::fs::read(inputs.cwd.join(path)) {
            Ok(pem) => {
                if let Err(fault) = Roots::default().with_pem(&pem) {
                    s.refuse("ca_file", fault);
                }
            }
            Err(error) => s.refuse("ca_file", format_args!("cannot be read: {error}")),
        }
    }
    if tls.insecure_skip_verify {
        s.warn(
            "insecure_skip_verify",
            "any certificate is accepted; tls.ca_file is better",
        );
    }
}

fn headers(s: &mut Section<'_, '_>, typed: Vec<(String, String)>) -> Vec<(String, Secret)> {
    if typed.is_empty() {
        return Vec::new();
    }
    let mut s = s.section("headers");
    let mut headers: Vec<(String, Secret)> = Vec::with_capacity(typed.len());
    for (name, value) in typed {
        let value = match expand(&value, s.env()) {
            Ok(value) => value.trim().to_owned(),
            Err(unset) => {
                s.refuse(&name, format_args!("the variable {} is not set", unset.0));
                continue;
            }
        };
        if let Some(fault) = header_fault(&name) {
            s.refuse(&name, fault);
        } else if headers
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(&name))
        {
            s.refuse(&name, "each header once, whatever its letter case");
        } else if !is_header_value(&value) {
            s.refuse(
                &name,
                "a header value, without line breaks and control characters",
            );
        } else {
            s.fingerprint(&name, &value);
            headers.push((name, Secret::new(value)));
        }
    }
    headers
}

/// Checks `health_check_url` or `model_url`: a path, or an absolute URL.
fn check_target(s: &mut Section<'_, '_>, key: &str, text: &str) {
    if text.contains("://") {
        if let Err(fault) = http_url(text) {
            refuse_url(s, key, text, fault);
        }
    } else if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        s.refuse_shown(key, &shown_url(text), "a path or a URL, without blanks");
    }
}

fn refuse_url(s: &mut Section<'_, '_>, key: &str, text: &str, fault: UrlFault) {
    match fault {
        UrlFault::Credentials => s.refuse(
            key,
            "a URL without credentials; they belong into auth, such as \
             auth = { type = \"basic\", … }",
        ),
        UrlFault::Empty => s.refuse_shown(key, "no url", "an http or https URL"),
        UrlFault::Unreadable => {
            s.refuse_shown(key, &shown_url(text), "an http or https URL with a host");
        }
        UrlFault::NoScheme => {
            s.refuse_shown(
                key,
                &shown_url(text),
                "a URL that begins with http:// or https://",
            );
        }
        UrlFault::Scheme => s.refuse_shown(key, &shown_url(text), "an http or https URL"),
    }
}

/// What may be shown of a text that should be a URL.
fn shown_url(text: &str) -> String {
    if text.contains('@') {
        return "a value that is not shown".to_owned();
    }
    quoted(text.split(['?', '#']).next().unwrap_or_default())
}

/// Names and addresses met so far, with the place of the first.
#[derive(Default)]
struct Unique {
    names: HashMap<String, usize>,
    urls: HashMap<String, usize>,
}

impl Unique {
    fn check(&mut self, s: &mut Section<'_, '_>, at: usize, typed: &EndpointKeys) {
        let first = *self.names.entry(typed.name.clone()).or_insert(at);
        if first != at && !typed.name.is_empty() {
            s.refuse(
                "name",
                format_args!("discovery.static.endpoints[{first}] has it already"),
            );
        }
        let Ok(mut url) = http_url(typed.url.trim()) else {
            return;
        };
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let first = *self.urls.entry(url.into()).or_insert(at);
        if first != at {
            let allowed = format_args!("discovery.static.endpoints[{first}] has this url already")
                .to_string();
            s.refuse_shown("url", &shown_url(&typed.url), allowed);
        }
    }
}
