//! Cross-origin requests: preflights, and the CORS headers of other responses.
//!
//! Contract: docs/contract/surface.md#12

use olla_engine::h1::{FieldId, emit, field};
use olla_engine::handler::{Local, Request};

use crate::access::LIMIT_HEADERS;
use crate::config::CorsPlan;
use crate::routing::path::normalise;

const EXPOSED: &str = "X-Olla-Request-ID, X-Olla-Endpoint, X-Olla-Backend-Type, X-Olla-Model, \
    X-Olla-Response-Time, X-Olla-Routing-Strategy, X-Olla-Routing-Decision, X-Olla-Routing-Reason, \
    X-Olla-Mode, X-Olla-Sticky-Session, X-Olla-Sticky-Key-Source, X-Olla-Session-ID";

/// What pages may read besides while clients have keys, and the headers of their limits
/// (docs/contract/access.md#8.1).
const EXPOSED_OF_KEYS: [&str; 2] = ["Retry-After", "x-should-retry"];

/// Headers that a page may always send if any header is allowed.
const USUAL_HEADERS: &str = "Content-Type, Authorization";

/// What every response to a preflight varies by.
const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// How Chrome asks whether a page may reach a private network.
const PRIVATE_NETWORK: &str = "Access-Control-Request-Private-Network";

/// `[server.cors]` with its values formatted.
#[derive(Debug)]
pub(super) struct Cors {
    plan: CorsPlan,
    any_origin: bool,
    any_header: bool,
    methods: String,
    headers: String,
    exposed: String,
    max_age: Option<u64>,
}

/// The CORS headers of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Grant {
    /// No header: CORS is off.
    #[default]
    Off,
    /// No header either: the page is the operator's (docs/contract/observe.md#8).
    Never,
    /// Only `Vary`.
    None,
    /// All, for the origin of the request.
    Origin,
}

/// Whether a route below `/internal/` is for the operator only. Pages of other sites may ask
/// whether the gateway is there.
pub(super) fn is_operators_page(rest: &[u8]) -> bool {
    !matches!(rest, b"health" | b"ready")
}

/// The same for a path that has not been matched to a route.
fn is_operators(path: &[u8]) -> bool {
    normalise(path).is_ok_and(|normal| is_operators_path(&normal.path))
}

/// The same for a path in normal form. `/internal` itself is no page, but belongs to them.
pub(super) fn is_operators_path(path: &[u8]) -> bool {
    match path.strip_prefix(b"/internal") {
        Some(b"") => true,
        Some(rest) => rest.strip_prefix(b"/").is_some_and(is_operators_page),
        None => false,
    }
}

fn asks_for_private_network(request: &Request<'_>) -> bool {
    let Request { head, bytes, .. } = request;
    head.all(FieldId::AccessControl).any(|line| {
        let is_it = line
            .name
            .of(bytes)
            .eq_ignore_ascii_case(PRIVATE_NETWORK.as_bytes());
        is_it && line.value.of(bytes) == b"true"
    })
}

impl Cors {
    pub(super) fn new(plan: &CorsPlan, has_keys: bool) -> Self {
        let any_header = plan.allowed_headers.iter().any(|name| name == "*");
        Self {
            any_origin: plan.any_origin(),
            any_header,
            methods: plan.allowed_methods.join(", "),
            headers: if any_header {
                USUAL_HEADERS.to_owned()
            } else {
                plan.allowed_headers.join(", ")
            },
            exposed: if plan.exposed_headers.is_empty() {
                exposed(has_keys)
            } else {
                plan.exposed_headers.join(", ")
            },
            max_age: plan.max_age.map(|age| age.as_secs()),
            plan: plan.clone(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.plan.enabled
    }

    /// The CORS headers of the response to a request that is not a preflight.
    pub(super) fn grant(&self, request: &Request<'_>) -> Grant {
        if !self.plan.enabled {
            return Grant::Off;
        }
        let Some(origin) = request.head.get(request.bytes, FieldId::Origin) else {
            return Grant::None;
        };
        let method = request.head.method.of(request.bytes);
        if self.admits_origin(origin) && self.admits_method(method) {
            Grant::Origin
        } else {
            Grant::None
        }
    }

    /// Writes the response to a preflight; false if the request is not one.
    pub(super) fn preflight(&self, request: &Request<'_>, local: &mut Local) -> bool {
        let Request { head, bytes, .. } = request;
        if !self.plan.enabled || head.method.of(bytes) != b"OPTIONS" {
            return false;
        }
        let Some(method) = head.get(bytes, FieldId::AcRequestMethod) else {
            return false;
        };
        let origin = head.get(bytes, FieldId::Origin);
        let out = &mut local.head;
        emit::status_line(out, 204, b"No Content");
        local.bodyless = true;
        if is_operators(head.path.of(bytes)) {
            return true;
        }
        out.extend_from_slice(b"Vary: ");
        out.extend_from_slice(VARY.as_bytes());
        if self.plan.allow_private_network {
            out.extend_from_slice(b", ");
            out.extend_from_slice(PRIVATE_NETWORK.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        let asked = || {
            let lines = head.all(FieldId::AcRequestHeaders);
            lines.flat_map(|line| field::list_items(line.value.of(bytes)))
        };
        let Some(origin) = origin.filter(|origin| self.admits_origin(origin)) else {
            return true;
        };
        if !self.admits_method(method) || !asked().all(|name| self.admits_header(name)) {
            return true;
        }
        self.allow_origin(origin, out);
        emit::field(
            out,
            b"Access-Control-Allow-Methods",
            self.methods.as_bytes(),
        );
        out.extend_from_slice(b"Access-Control-Allow-Headers: ");
        out.extend_from_slice(self.headers.as_bytes());
        if self.any_header {
            let usual = |name: &&[u8]| {
                !USUAL_HEADERS
                    .split(", ")
                    .any(|own| own.as_bytes().eq_ignore_ascii_case(name))
            };
            for name in asked().filter(usual) {
                out.extend_from_slice(b", ");
                out.extend_from_slice(name);
            }
        }
        out.extend_from_slice(b"\r\n");
        if let Some(seconds) = self.max_age {
            emit::field_number(out, b"Access-Control-Max-Age", seconds);
        }
        if self.plan.allow_private_network && asks_for_private_network(request) {
            emit::field(out, b"Access-Control-Allow-Private-Network", b"true");
        }
        true
    }

    /// Writes the CORS headers of a response, except `Vary`.
    pub(super) fn write(&self, grant: Grant, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        let (Grant::Origin, Some(origin)) = (grant, origin) else {
            return;
        };
        self.allow_origin(origin, out);
        emit::field(
            out,
            b"Access-Control-Expose-Headers",
            self.exposed.as_bytes(),
        );
        emit::field(
            out,
            b"Access-Control-Allow-Methods",
            self.methods.as_bytes(),
        );
        emit::field(
            out,
            b"Access-Control-Allow-Headers",
            self.headers.as_bytes(),
        );
    }

    fn allow_origin(&self, origin: &[u8], out: &mut Vec<u8>) {
        let allowed = if self.any_origin { b"*" } else { origin };
        emit::field(out, b"Access-Control-Allow-Origin", allowed);
        if self.plan.allow_credentials {
            emit::field(out, b"Access-Control-Allow-Credentials", b"true");
        }
    }

    fn admits_origin(&self, origin: &[u8]) -> bool {
        self.any_origin
            || std::str::from_utf8(origin).is_ok_and(|origin| {
                self.plan
                    .allowed_origins
                    .iter()
                    .any(|pattern| pattern.admits(origin))
            })
    }

    fn admits_method(&self, method: &[u8]) -> bool {
        let mut allowed = self.plan.allowed_methods.iter();
        method == b"OPTIONS" || allowed.any(|known| known.as_bytes() == method)
    }

    fn admits_header(&self, name: &[u8]) -> bool {
        let mut allowed = self.plan.allowed_headers.iter();
        self.any_header || allowed.any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// The response headers that pages may read by default.
fn exposed(has_keys: bool) -> String {
    let mut names = EXPOSED.to_owned();
    if has_keys {
        for name in EXPOSED_OF_KEYS.iter().chain(&LIMIT_HEADERS) {
            names.push_str(", ");
            names.push_str(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_operators_are_told_by_their_path() {
        let table = [
            ("/internal/status", true),
            ("//internal//status", true),
            ("/internal/./metrics", true),
            ("/internal/ui/", true),
            ("/internal/", true),
            ("/internal/nosuch", true),
            ("/internal/health", false),
            ("/internal/x/../ready", false),
            ("/internal", true),
            ("/internal/.", true),
            ("/internals", false),
            ("/version", false),
            ("/olla/proxy/internal/x", false),
            ("/olla/proxy/../internal/x", false),
            ("*", false),
        ];
        for (path, is_it) in table {
            assert_eq!(is_operators(path.as_bytes()), is_it, "{path}");
        }
    }
}
