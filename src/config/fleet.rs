//! The declarations of the keys of `discovery.static.endpoints`, and the validation of an endpoint.
//!
//! An endpoint is read in two steps: [`declare`] reads the values of its keys, [`check`] makes its
//! plan. Every finding names the endpoint. URLs may hold secrets and are shown without their query.
//!
//! Contract: docs/contract/catalogue.md#2, docs/contract/balancing.md#14,
//! docs/contract/balancing.md#15, docs/contract/operations.md#11

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use olla_engine::tls::Roots;

use super::auth;
use super::bounds::{U32_MAX, name_filter, secs};
use super::dialect::DialectName;
use super::endpoint::{
    BaseUrl, EndpointPlan, EndpointTlsPlan, NameFilter, Scheme, Secret, UrlFault, header_fault,
    http_url, is_header_value,
};
use super::env::expand;
use super::inputs::{AUTO, ConfigInputs};
use super::plan::{MAX_ENDPOINTS, ServerPlan};
use super::schedule::{EndpointScheduling, endpoint_scheduling};
use super::section::Section;

use super::nearest::nearest;
use super::tree::ConfigValue;
use super::values::{before, quoted, show_duration};
use super::version_prefix;

/// Reads `[discovery.static]`. Without the key `endpoints` the result is the built-in endpoint.
pub(super) fn endpoints(s: &mut Section<'_, '_>, context: &Context<'_>) -> Vec<EndpointPlan> {
    let Some(items) = s.items("endpoints") else {
        // The declarations are also needed without values, for the reference.
        declare(&mut s.item("endpoints", None));
        let default = built_in();
        return if context.admits(&default.kind) {
            vec![default]
        } else {
            Vec::new()
        };
    };
    if items.len() > MAX_ENDPOINTS {
        let shown = items.len().to_string();
        let most = format_args!("at most {MAX_ENDPOINTS} endpoints");
        s.expected_shown("endpoints", &shown, most);
    }
    let mut unique = Unique::default();
    let mut plans = Vec::with_capacity(items.len().min(MAX_ENDPOINTS));
    for (at, node) in items {
        let mut s = s.item("endpoints", Some((at, node)));
        let mut typed = declare(&mut s);
        fill_in(&mut s, &mut typed);
        unique.check(&mut s, at, &typed, context);
        plans.extend(check(&mut s, typed, context));
    }
    plans
}

/// The endpoint of a configuration without a list of endpoints (docs/contract/balancing.md#12).
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
        version_prefix: None,
        query: None,
    };
    EndpointPlan::new(&host, url, "ollama")
}

/// The values of an endpoint's keys, not yet validated.
struct EndpointKeys {
    name: Option<String>,
    url: Option<UrlText>,
    kind: Option<String>,
    priority: u32,
    check_interval: Duration,
    check_timeout: Duration,
    scheduling: EndpointScheduling,
    preserve_path: bool,
    health_check_url: Option<UrlText>,
    model_url: Option<UrlText>,
    model_filter: NameFilter,
    headers: Vec<(String, String)>,
    auth: auth::AuthKeys,
    tls: EndpointTlsPlan,
    dialects: Vec<DialectName>,
}

/// A URL or a path with its variables filled in. A variable may hold a secret, so messages show
/// what was written.
struct UrlText {
    written: String,
    value: String,
}

impl UrlText {
    fn new(written: String) -> Self {
        let value = written.clone();
        Self { written, value }
    }

    /// The part that may be shown.
    fn shown(&self) -> String {
        let shown = shown_url(&self.written);
        if self.value == self.written {
            shown
        } else {
            format!("{shown} with its variables filled in")
        }
    }
}

/// Fills in the variables of an endpoint's URLs (docs/contract/balancing.md#14). A URL with a
/// variable that is not set counts as absent.
fn fill_in(s: &mut Section<'_, '_>, typed: &mut EndpointKeys) {
    let urls = [
        ("url", &mut typed.url),
        ("health_check_url", &mut typed.health_check_url),
        ("model_url", &mut typed.model_url),
    ];
    for (key, slot) in urls {
        let Some(text) = slot else { continue };
        match expand(&text.written, s.env()) {
            Ok(value) => {
                if value != text.written {
                    s.fingerprint(key, &value);
                }
                text.value = value;
            }
            Err(unset) => {
                let message = format!("environment variable {} is not set", unset.0);
                s.refuse(key, message);
                *slot = None;
            }
        }
    }
}

fn declare(s: &mut Section<'_, '_>) -> EndpointKeys {
    let name = s
        .key(
            "name",
            "Unique name; shown in logs, headers and statistics.",
        )
        .text_optional();
    // An endpoint without a name is found by its line.
    if let Some(name) = &name {
        s.name_subject(format!("endpoint {}", quoted(name)));
    }
    let url_doc = "Base URL, http or https, without credentials; ${VAR} is replaced.";
    let headers_doc = "Headers set on every request; ${VAR} and ${VAR:-default} are replaced.";
    let text = |value: &ConfigValue| value.text().map(str::to_owned);
    EndpointKeys {
        name,
        url: url_text(s, "url", url_doc),
        kind: s
            .key(
                "type",
                "Kind of server; without it the gateway detects the kind.",
            )
            .text_optional(),
        priority: s
            .key(
                "priority",
                "Used by the balancer \"priority\", which prefers the highest value.",
            )
            .int(100, 0, U32_MAX),
        check_interval: s
            .key(
                "check_interval",
                "Interval between two health checks, at least 1s; 0 selects the default.",
            )
            .duration_or(secs(5), secs(5)),
        check_timeout: s
            .key(
                "check_timeout",
                "Time limit of a health check: less than check_interval, at most 30s.",
            )
            .duration(secs(2)),
        scheduling: endpoint_scheduling(s),
        preserve_path: s
            .key(
                "preserve_path",
                "Keep the URL's own path in front of the request's path.",
            )
            .bool(false),
        health_check_url: target(s, "health_check_url"),
        model_url: target(s, "model_url"),
        model_filter: name_filter(
            &mut s.section("model_filter"),
            "Globs of the models to use; an empty list uses all.",
            "Globs of the models not to use; exclude wins over include.",
        ),
        headers: s
            .key("headers", headers_doc)
            .secret()
            .resolve_map("a string", text),
        auth: auth::declare(&mut s.section("auth")),
        tls: tls(&mut s.section("tls")),
        dialects: dialects(s),
    }
}

/// The target of health checks or of model discovery.
fn target(s: &mut Section<'_, '_>, key: &str) -> Option<UrlText> {
    let doc = "Path or URL, by default that of the type; ${VAR} is replaced.";
    url_text(s, key, doc)
}

fn url_text(s: &mut Section<'_, '_>, key: &str, doc: &'static str) -> Option<UrlText> {
    let text = s.key(key, doc).secret().text_optional();
    text.map(UrlText::new)
}

fn tls(s: &mut Section<'_, '_>) -> EndpointTlsPlan {
    EndpointTlsPlan {
        ca_file: s
            .key("ca_file", "PEM file with additional trusted certificates.")
            .path(),
        insecure_skip_verify: s
            .key(
                "insecure_skip_verify",
                "Accept any certificate; logs a warning at every start.",
            )
            .bool(false),
    }
}

/// The context in which endpoints are validated.
pub(super) struct Context<'a> {
    pub(super) inputs: &'a ConfigInputs<'a>,
    /// The profiles that may be used.
    pub(super) profiles: &'a NameFilter,
    /// The listener of the gateway.
    pub(super) server: &'a ServerPlan,
}

impl Context<'_> {
    fn admits(&self, canonical: &str) -> bool {
        (self.inputs.admits)(self.profiles, canonical)
    }

    /// The canonical form of a type as it is written; `auto` for an absent or unknown one.
    fn canonical(&self, written: Option<&str>) -> &str {
        let mut types = self.inputs.types.iter();
        let found = types.find(|name| written == Some(name.written.as_str()));
        found.map_or(AUTO, |found| &found.canonical)
    }
}

/// The plan of an endpoint, unless its URL cannot be used.
fn check(
    s: &mut Section<'_, '_>,
    typed: EndpointKeys,
    context: &Context<'_>,
) -> Option<EndpointPlan> {
    let name = typed.name.filter(|name| !name.trim().is_empty());
    match &name {
        None => s.expected("name", "a name"),
        Some(name) if !is_header_value(name) => s.expected(
            "name",
            "a name without control characters or surrounding white space",
        ),
        Some(_) => {}
    }
    let url = url(s, typed.url.as_ref(), context.server);
    for (key, text) in [
        ("health_check_url", &typed.health_check_url),
        ("model_url", &typed.model_url),
    ] {
        if let Some(text) = text {
            check_target(s, key, text);
        }
    }
    let (kind, kind_as_written) = kind(s, typed.kind, context);
    let url = url.map(|url| url.without_version_prefix(&kind));
    let check_timeout = check_times(s, typed.check_interval, typed.check_timeout);
    let auth = if s.section("auth").is_present() {
        auth::check(&mut s.section("auth"), typed.auth, context.inputs)
    } else {
        None
    };
    check_tls(&mut s.section("tls"), &typed.tls, context.inputs);
    check_dialects(s, &typed.dialects);
    Some(EndpointPlan {
        url: url?,
        name: name?,
        kind,
        kind_as_written,
        priority: typed.priority,
        health_check_url: typed.health_check_url.map(|text| text.value),
        model_url: typed.model_url.map(|text| text.value),
        check_interval: typed.check_interval,
        check_timeout,
        context_length: NonZeroU32::new(typed.scheduling.context_length),
        max_concurrent: NonZeroU32::new(typed.scheduling.max_concurrent),
        cache_tokens: NonZeroU32::new(typed.scheduling.cache_tokens),
        preserve_path: typed.preserve_path,
        model_filter: typed.model_filter,
        headers: headers(s, typed.headers),
        auth,
        tls: typed.tls,
        dialects: typed.dialects,
    })
}

/// The dialects of an endpoint, if they are given (docs/contract/dialects.md#1).
fn dialects(s: &mut Section<'_, '_>) -> Vec<DialectName> {
    let doc = "APIs that it speaks, in place of its type's; openai-chat must be one of them.";
    s.key("dialects", doc).words_optional()
}

fn check_dialects(s: &mut Section<'_, '_>, given: &[DialectName]) {
    let lacks_chat = !given.contains(&DialectName::OpenAiChat);
    if s.is_given("dialects") && !s.is_faulty("dialects") && lacks_chat {
        s.expected("dialects", "a list with \"openai-chat\" in it");
    }
}

/// The address of an endpoint, unless it cannot be used. An absent one counts as empty.
fn url(s: &mut Section<'_, '_>, typed: Option<&UrlText>, server: &ServerPlan) -> Option<BaseUrl> {
    let parsed = BaseUrl::parse(typed.map_or("", |text| &text.value));
    match parsed {
        Ok(url) => {
            if is_self(server, &url) {
                s.warn("url", "this is the address of the gateway itself");
            }
            Some(url)
        }
        Err(fault) => {
            let shown = typed.map_or_else(String::new, UrlText::shown);
            refuse_url(s, "url", &shown, fault);
            None
        }
    }
}

/// Whether the gateway listens on an endpoint's address, so that each request would come back.
/// Names are compared as they are written; none is resolved.
fn is_self(server: &ServerPlan, url: &BaseUrl) -> bool {
    let scheme = if server.tls.is_some() {
        Scheme::Https
    } else {
        Scheme::Http
    };
    if url.port != server.port || url.scheme != scheme {
        return false;
    }
    match server.host.as_str() {
        "" | "0.0.0.0" | "::" => {
            let ip = url.host.parse::<IpAddr>();
            let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
            url.host == "localhost" || ip.is_ok_and(is_local)
        }
        "localhost" => ["localhost", "127.0.0.1", "::1"].contains(&url.host.as_str()),
        host => host.eq_ignore_ascii_case(&url.host),
    }
}

/// The canonical type and the type as it is written. Unknown and excluded types are refused.
fn kind(
    s: &mut Section<'_, '_>,
    written: Option<String>,
    context: &Context<'_>,
) -> (String, String) {
    let written = written.unwrap_or_else(|| AUTO.to_owned());
    if written == AUTO {
        return (written.clone(), written);
    }
    let types = context.inputs.types;
    let found = types.iter().find(|name| name.written == written);
    match found {
        Some(found) if context.admits(&found.canonical) => (found.canonical.clone(), written),
        Some(_) => {
            let message = format!(
                "proxy.profile_filter excludes the type {}",
                quoted(&written)
            );
            s.refuse("type", message);
            (AUTO.to_owned(), written)
        }
        None => {
            let admitted = types.iter().filter(|name| context.admits(&name.canonical));
            let mut known = vec![AUTO];
            known.extend(admitted.map(|name| name.written.as_str()));
            let allowed = format!(
                "one of {} (types of your own: {} and profiles/ beside the configuration, files \
                 *.toml, *.yaml and *.yml)",
                known.join(", "),
                context.inputs.cwd.join("config/profiles").display(),
            );
            let near = nearest(&written, known.iter().copied());
            s.expected_near("type", allowed, near);
            (AUTO.to_owned(), written)
        }
    }
}

/// The timeout of health checks. The default is lower for a short interval.
fn check_times(s: &mut Section<'_, '_>, interval: Duration, timeout: Duration) -> Duration {
    if interval < secs(1) {
        s.expected("check_interval", "at least \"1s\"");
    }
    if timeout.is_zero() || !s.is_given("check_timeout") {
        return secs(2).min(if interval <= secs(2) {
            interval / 2
        } else {
            secs(2)
        });
    }
    if timeout > secs(30) {
        s.expected("check_timeout", "at most \"30s\"");
    } else if timeout >= interval && !s.is_faulty("check_interval") {
        let shown = quoted(&show_duration(interval));
        let what = format!("less than check_interval ({shown})");
        s.expected("check_timeout", what);
    }
    timeout
}

fn check_tls(s: &mut Section<'_, '_>, tls: &EndpointTlsPlan, inputs: &ConfigInputs<'_>) {
    if let Some(path) = &tls.ca_file {
        match std::fs::read(inputs.cwd.join(path)) {
            Ok(pem) => {
                if let Err(fault) = Roots::default().with_pem(&pem) {
                    s.expected(
                        "ca_file",
                        format_args!("a file with certificates ({fault})"),
                    );
                }
            }
            Err(error) => {
                let path = quoted(&path.to_string_lossy());
                s.refuse("ca_file", format_args!("cannot read {path}: {error}"));
            }
        }
    }
    if tls.insecure_skip_verify {
        s.warn(
            "insecure_skip_verify",
            "any certificate is accepted; use tls.ca_file to trust one of your own",
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
                let message = format!("environment variable {} is not set", unset.0);
                s.refuse(&name, message);
                continue;
            }
        };
        let is_same = |other: &str| other.eq_ignore_ascii_case(&name);
        if let Some(fault) = header_fault(&name) {
            s.refuse(&name, fault);
        } else if headers.iter().any(|(other, _)| is_same(other)) {
            s.refuse(
                &name,
                "expected each header once; header names are not case-sensitive",
            );
        } else if !is_header_value(&value) {
            let message = "expected a header value without line breaks or control characters";
            s.refuse(&name, message);
        } else {
            s.fingerprint(&name, &value);
            headers.push((name, Secret::new(value)));
        }
    }
    headers
}

/// Checks `health_check_url` or `model_url`: a path, or an absolute URL.
fn check_target(s: &mut Section<'_, '_>, key: &str, text: &UrlText) {
    let value = text.value.as_str();
    if value.contains("://") {
        if let Err(fault) = http_url(value) {
            refuse_url(s, key, &text.shown(), fault);
        }
    } else if value.bytes().any(|b| b <= b' ' || b == 0x7f) {
        s.expected_shown(key, &text.shown(), "a path or a URL without white space");
    }
}

/// Refuses a URL; `shown` is the part of it that may be shown.
fn refuse_url(s: &mut Section<'_, '_>, key: &str, shown: &str, fault: UrlFault) {
    let allowed = match fault {
        UrlFault::Credentials => {
            let message = "expected a URL without credentials; move them to auth, \
                           as in auth = { type = \"basic\", … }";
            return s.refuse(key, message);
        }
        UrlFault::Empty if s.is_faulty(key) => return,
        UrlFault::Empty if s.is_given(key) => {
            return s.expected_shown(key, "an empty string", "an http or https URL");
        }
        UrlFault::Empty => return s.expected(key, "an http or https URL"),
        UrlFault::Unreadable => "an http or https URL with a host and without white space",
        UrlFault::Port => "a URL with a port from 1 to 65535",
        UrlFault::NoScheme => "a URL that begins with http:// or https://",
        UrlFault::Scheme => "an http or https URL",
    };
    s.expected_shown(key, shown, allowed);
}

/// The part of a URL that may be shown.
fn shown_url(text: &str) -> String {
    if text.contains('@') {
        return "a value that is not shown".to_owned();
    }
    quoted(before(text, &['?', '#']))
}

/// The names and URLs that were read, with the position of the first endpoint that has each.
#[derive(Default)]
struct Unique {
    names: HashMap<String, usize>,
    urls: HashMap<String, usize>,
}

impl Unique {
    /// Reports a name or a URL of an earlier endpoint. An endpoint that repeats both is one mistake.
    /// URLs are compared without their version prefix, but with their query
    /// (docs/contract/catalogue.md#2.3).
    fn check(
        &mut self,
        s: &mut Section<'_, '_>,
        at: usize,
        typed: &EndpointKeys,
        context: &Context<'_>,
    ) {
        let mut repeats_name = false;
        if let Some(name) = &typed.name {
            let first = *self.names.entry(name.clone()).or_insert(at);
            repeats_name = first != at;
            if repeats_name {
                let what = format!("a name other than that of discovery.static.endpoints[{first}]");
                s.expected("name", what);
            }
        }
        let kind = context.canonical(typed.kind.as_deref());
        let Some(typed) = &typed.url else {
            return;
        };
        let Ok(mut url) = http_url(typed.value.trim()) else {
            return;
        };
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(version_prefix::split(kind, &path).0);
        let first = *self.urls.entry(url.into()).or_insert(at);
        if first != at && !repeats_name {
            let what = format!("a URL other than that of discovery.static.endpoints[{first}]");
            s.expected_shown("url", &typed.shown(), what);
        }
    }
}
