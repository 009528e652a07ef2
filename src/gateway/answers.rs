//! The heads of answers: those that a backend's becomes, those that the gateway makes itself, and
//! its errors in their one shape.
//!
//! contract: surface 5, 6, 9, 10.4

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit, field};
use olla_engine::handler::{Answer, Cx, Local, Request};

use super::exchange::{Exchange, Kind};
use super::view::View;
use crate::clock::millis;
use crate::config::StickySource;
use crate::fleet::Upstream;
use crate::operations::access::SECURITY_HEADERS;
use crate::routing::rejection::Reason;

/// What `X-Served-By` and `X-Proxied-By` say.
pub(super) const PRODUCT: &str = concat!("Olla/", env!("CARGO_PKG_VERSION"));
/// What is added to `Via`.
pub(super) const VIA: &str = concat!("1.1 olla/", env!("CARGO_PKG_VERSION"));

/// An error of the gateway (contract: surface 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error<'e> {
    pub(super) status: u16,
    pub(super) kind: &'e str,
    pub(super) code: &'e str,
    pub(super) message: String,
    /// Methods that there are, for 405.
    pub(super) allow: Option<&'e str>,
    /// Seconds, for 429 and 503.
    pub(super) retry_after: Option<u64>,
}

impl<'e> Error<'e> {
    pub(super) fn new(
        status: u16,
        kind: &'e str,
        code: &'e str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            allow: None,
            retry_after: None,
        }
    }
}

/// Writes an error as the whole answer; on the routes of the Messages API in Anthropic's shape.
pub(super) fn error(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: Option<&Request<'_>>,
    error: &Error<'_>,
    local: &mut Local,
) {
    let body = if x.kind.is_anthropic() {
        super::messages::error_body(error, x.id.as_str())
    } else {
        let body = serde_json::json!({
            "error": { "message": error.message, "type": error.kind, "code": error.code }
        });
        Bytes::from(body.to_string())
    };
    if let Some(recording) = &mut x.message.recording {
        recording.whole(&body);
    }
    begin(cx, x, request, error.status, local);
    let out = &mut local.head;
    emit::field(out, b"Content-Type", b"application/json");
    if x.kind != Kind::Dashboard {
        emit::field(out, b"X-Content-Type-Options", b"nosniff");
    }
    if x.kind.is_anthropic() {
        emit::field(out, b"request-id", x.id.as_bytes());
    }
    if let Some(allow) = error.allow {
        emit::field(out, b"Allow", allow.as_bytes());
    }
    if let Some(seconds) = error.retry_after {
        emit::field_number(out, b"Retry-After", seconds);
    }
    local.body = body;
}

/// Begins an answer of the gateway's own: status line and the fields of all answers.
pub(super) fn begin(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: Option<&Request<'_>>,
    status: u16,
    local: &mut Local,
) {
    begin_varying(cx, x, request, status, "", local);
}

/// The same for an answer that varies by the fields named, besides those that all vary by.
pub(super) fn begin_varying(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: Option<&Request<'_>>,
    status: u16,
    varies_by: &str,
    local: &mut Local,
) {
    local.clear();
    x.status = status;
    let out = &mut local.head;
    emit::status_line(out, status, emit::reason(status).as_bytes());
    emit::field(out, b"Date", cx.date);
    if x.kind == Kind::Dashboard {
        for (name, value) in SECURITY_HEADERS {
            emit::field(out, name.as_bytes(), value.as_bytes());
        }
    }
    if let Some(view) = x.view.clone() {
        match (view.cors.is_on(), varies_by) {
            (true, "") => emit::field(out, b"Vary", b"Origin"),
            (true, own) => emit::field(out, b"Vary", format!("{own}, Origin").as_bytes()),
            (false, "") => {}
            (false, own) => emit::field(out, b"Vary", own.as_bytes()),
        }
        if x.answer_status.is_some() {
            served(false, out);
        }
        common(cx, x, &view, request, out);
    }
}

/// What a backend's answer has gained on its way (contract: surface 5.2), unless its own `Via`
/// was written already, with ours at its end.
fn served(has_via: bool, out: &mut Vec<u8>) {
    if !has_via {
        joined_via(std::iter::empty(), out);
    }
    emit::field(out, b"X-Served-By", PRODUCT.as_bytes());
}

/// A JSON document as the whole answer.
pub(super) fn json(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: &Request<'_>,
    body: Bytes,
    local: &mut Local,
) {
    begin(cx, x, Some(request), 200, local);
    emit::field(&mut local.head, b"Content-Type", b"application/json");
    local.body = body;
}

/// Writes status line and fields of a backend's answer (contract: surface 5).
pub(super) fn relayed(
    cx: &Cx<'_>,
    x: &mut Exchange,
    request: &Request<'_>,
    answer: &Answer<'_>,
    out: &mut Vec<u8>,
) {
    let Some(view) = x.view.clone() else { return };
    let Answer { head, bytes, .. } = *answer;
    x.status = head.status;
    emit::status_line(out, head.status, head.reason.of(bytes));
    let cors = view.cors.is_on();
    let rules = Withheld {
        backend: view.backend(x.endpoint),
        cors,
        limits: x.admission.is_some(),
    };
    let nominated = head.nominated(bytes);
    let (mut vary, mut via, mut dated) = (false, false, false);
    for each in &head.fields {
        let name = each.name.of(bytes);
        if rules.hold(each.id, name) || nominated.contains(each) {
            continue;
        }
        let value = each.value.of(bytes);
        match each.id {
            FieldId::Vary if cors && !std::mem::replace(&mut vary, true) => {
                vary_by_origin(value, out);
                continue;
            }
            FieldId::Via => {
                if !std::mem::replace(&mut via, true) {
                    joined_via(head.all(FieldId::Via).map(|line| line.value.of(bytes)), out);
                }
                continue;
            }
            FieldId::Date => dated = true,
            _ => {}
        }
        emit::field(out, name, value);
    }
    if !dated {
        emit::field(out, b"Date", cx.date);
    }
    served(via, out);
    if cors && !vary {
        emit::field(out, b"Vary", b"Origin");
    }
    common(cx, x, &view, Some(request), out);
}

/// Which fields of a backend's answer do not reach the client (contract: surface 5.1).
struct Withheld<'v> {
    backend: Option<&'v Upstream>,
    /// The gateway has its own words about origins.
    cors: bool,
    /// The gateway has its own words about limits.
    limits: bool,
}

impl Withheld<'_> {
    fn hold(&self, id: FieldId, name: &[u8]) -> bool {
        match id {
            FieldId::ContentLength
            | FieldId::Authorization
            | FieldId::ProxyAuthorization
            | FieldId::XApiKey
            | FieldId::XAuthToken
            | FieldId::SetCookie
            | FieldId::XServedBy => true,
            FieldId::XRateLimit if self.limits => true,
            id if field::is_hop_by_hop(id) || id.is_x_olla() => true,
            id if self.cors && id.is_access_control() => true,
            _ => self.backend.is_some_and(|backend| backend.replaces(name)),
        }
    }
}

/// A backend's `Vary`, with `Origin` in it.
fn vary_by_origin(value: &[u8], out: &mut Vec<u8>) {
    let names_it = |item: &[u8]| item == b"*" || item.eq_ignore_ascii_case(b"origin");
    out.extend_from_slice(b"Vary: ");
    out.extend_from_slice(value);
    if !field::list_items(value).any(names_it) {
        let more: &[u8] = if value.is_empty() {
            b"Origin"
        } else {
            b", Origin"
        };
        out.extend_from_slice(more);
    }
    out.extend_from_slice(b"\r\n");
}

/// `Via` in one line: what others said, then ourselves.
pub(super) fn joined_via<'v>(lines: impl Iterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    for line in lines {
        out.extend_from_slice(line);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(VIA.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The fields that every answer has, and those that depend on what has been decided.
fn common(
    cx: &Cx<'_>,
    x: &Exchange,
    view: &View,
    request: Option<&Request<'_>>,
    out: &mut Vec<u8>,
) {
    emit::field(out, b"X-Olla-Request-ID", x.id.as_bytes());
    out.extend_from_slice(b"X-Olla-Response-Time: ");
    emit::decimal(out, millis(cx.now.saturating_duration_since(cx.arrived)));
    out.extend_from_slice(b"ms\r\n");
    if let Some(endpoint) = x
        .endpoint
        .and_then(|index| view.snapshot.fleet.endpoints.get(index))
    {
        emit::field(out, b"X-Olla-Endpoint", endpoint.name().as_bytes());
        emit::field(
            out,
            b"X-Olla-Backend-Type",
            endpoint.type_shown().as_bytes(),
        );
        if let Some(model) = x.model() {
            emit::field_lossy(out, b"X-Olla-Model", model.as_bytes());
        }
    }
    routing(x, view, request, out);
    if let Some((admission, limit)) = x.admission {
        emit::field_number(out, b"X-RateLimit-Limit", limit.into());
        emit::field_number(out, b"X-RateLimit-Remaining", admission.remaining.into());
        let full = cx
            .unix_ms
            .saturating_add(millis(admission.full_at))
            .div_ceil(1000);
        emit::field_number(out, b"X-RateLimit-Reset", full);
    }
    if view.cors.is_on() {
        let origin = request.and_then(|request| request.head.get(request.bytes, FieldId::Origin));
        view.cors.write(x.cors, origin, out);
    }
}

fn routing(x: &Exchange, view: &View, request: Option<&Request<'_>>, out: &mut Vec<u8>) {
    use std::io::Write as _;
    if let Some(routing) = &x.routing {
        emit::field(out, b"X-Olla-Routing-Strategy", routing.strategy.as_bytes());
        emit::field(
            out,
            b"X-Olla-Routing-Decision",
            routing.verdict.as_str().as_bytes(),
        );
        out.extend_from_slice(b"X-Olla-Routing-Reason: ");
        match routing.reason {
            Reason::Word(word) => out.extend_from_slice(word.as_bytes()),
            // Writing to a vector does not fail.
            reason => drop(write!(out, "{}", reason.show(&view.snapshot.aliases))),
        }
        out.extend_from_slice(b"\r\n");
    }
    if let Some(mode) = x.message.mode_shown() {
        emit::field(out, b"X-Olla-Mode", mode.as_bytes());
    }
    // A request that was rejected leaves no trace of a session.
    if let Some(session) = x.session.as_ref().filter(|_| x.endpoint.is_some()) {
        emit::field(
            out,
            b"X-Olla-Sticky-Session",
            session.outcome().as_str().as_bytes(),
        );
        if let Some(key) = session.key() {
            emit::field(
                out,
                b"X-Olla-Sticky-Key-Source",
                key.source().as_str().as_bytes(),
            );
            let own = request
                .and_then(|request| request.head.get(request.bytes, FieldId::XOllaSessionId))
                .filter(|_| key.source() == StickySource::SessionHeader);
            if let Some(own) = own {
                emit::field(out, b"X-Olla-Session-ID", own);
            }
        }
    }
}

/// Whole seconds until then, rounded up, at least one.
pub(super) fn seconds_until(duration: std::time::Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
        .max(1)
}
