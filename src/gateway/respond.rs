//! The heads of responses: those that an endpoint's becomes, those that the gateway makes itself,
//! and its errors in their one shape.
//!
//! Contract: docs/contract/surface.md#5, docs/contract/surface.md#6, docs/contract/surface.md#9,
//! docs/contract/surface.md#10.4

use bytes::Bytes;
use olla_engine::h1::{FieldId, emit, field};
use olla_engine::handler::{Ask, AtEnd, Cx, Local, Request, Response};

use super::cors::Grant;
use super::exchange::Exchange;
use super::redirect::{Redirects, prefix_of};
use crate::access::is_limit_header;
use crate::clock::millis;
use crate::config::{DialectName, StickySource};
use crate::dialects::{self, AccessError, ApiFamily, Dropped, Error, RETRY_HEADERS, Whole};
use crate::field_names::{self, LOCATION, REFRESH, X_ACCEL_BUFFERING, X_OLLA_SESSION_ID};
use crate::fleet::Upstream;
use crate::operations::access::SECURITY_HEADERS;
use crate::routing::rejection::Reason;
use crate::routing::route::RouteKind;

/// The value of `X-Served-By` and `X-Proxied-By`.
pub(super) const PRODUCT: &str = concat!("Olla/", env!("CARGO_PKG_VERSION"));
/// The entry of the gateway in the `Via` of responses.
const VIA: &str = concat!("1.1 olla/", env!("CARGO_PKG_VERSION"));

/// The longest `Retry-After` of a key's limit that a client should wait for, in seconds
/// (docs/contract/access.md#8.1).
const PATIENCE_S: u64 = 60;

/// What OpenAI's limits of requests and tokens begin with.
const RATE_LIMIT_PREFIX: &[u8] = b"x-ratelimit-";

impl Exchange {
    /// Writes an error as the whole response, in the shape of the route's family.
    pub(super) fn error(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        error: &Error,
        local: &mut Local,
    ) {
        self.end_dry_run();
        self.give_back(cx);
        let family = self.route.errors();
        let body = if let Some(form) = self.early.get() {
            self.early_error(form, error, cx)
        } else if family == ApiFamily::Ollama
            || request.is_some_and(|request| self.prints_text(request))
        {
            dialects::ollama_error(&self.in_ollamas_words(error))
        } else {
            family.error_body(&self.in_seeds_form(error), self.kept.id.as_str())
        };
        self.dialect.refused(&body);
        self.begin(cx, request, error.status, local);
        let out = &mut local.head;
        emit::field(out, b"Content-Type", b"application/json");
        if !matches!(self.route.kind, RouteKind::Dashboard) {
            emit::field(out, b"X-Content-Type-Options", b"nosniff");
        }
        self.own_id(out);
        if let Some(allow) = error.allow {
            emit::field(out, b"Allow", allow.as_bytes());
        }
        if let Some(codings) = error.accept_encoding {
            emit::field(out, b"Accept-Encoding", codings.as_bytes());
        }
        if let Some(seconds) = error.retry_after {
            emit::field_number(out, b"Retry-After", seconds);
        }
        if let Some(access) = error.access {
            access_fields(access, error.retry_after, out);
        }
        local.body = body;
    }

    /// Whether the client is one of Ollama's own on a route of Ollama's API.
    fn prints_text(&self, request: &Request<'_>) -> bool {
        let Request { head, bytes, .. } = request;
        let agent = head.get(bytes, FieldId::UserAgent);
        let path = self.path(request);
        agent.is_some_and(dialects::is_ollama_client)
            && (path.starts_with(b"/olla/ollama/api/") || path.starts_with(b"/api/"))
    }

    /// The request's id where the clients of the family look for it.
    pub(super) fn own_id(&self, out: &mut Vec<u8>) {
        if let Some(name) = self.route.family().id_header() {
            emit::field(out, name, self.kept.id.as_bytes());
        }
    }

    /// Begins a response of the gateway's own: status line and the fields of all responses.
    pub(super) fn begin(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        status: u16,
        local: &mut Local,
    ) {
        self.begin_varying(cx, request, (status, ""), local);
    }

    /// The same for a status with the fields that the response varies by, besides those that all
    /// vary by.
    pub(super) fn begin_varying(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        (status, varies_by): (u16, &str),
        local: &mut Local,
    ) {
        local.clear();
        self.begin_head(cx, request, (status, varies_by), &mut local.head);
    }

    fn begin_head(
        &mut self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        (status, varies_by): (u16, &str),
        out: &mut Vec<u8>,
    ) {
        self.status = status;
        self.own_head(cx, request, (status, varies_by), out);
    }

    /// Writes status line and fields of all responses of the gateway's own.
    pub(super) fn own_head(
        &self,
        cx: &Cx<'_>,
        request: Option<&Request<'_>>,
        (status, varies_by): (u16, &str),
        out: &mut Vec<u8>,
    ) {
        emit::status_line(out, status, emit::reason(status).as_bytes());
        emit::field(out, b"Date", cx.date);
        if matches!(self.route.kind, RouteKind::Dashboard) {
            for (name, value) in SECURITY_HEADERS {
                emit::field(out, name.as_bytes(), value.as_bytes());
            }
        }
        match (self.has_cors(), varies_by) {
            (true, "") => emit::field(out, b"Vary", b"Origin"),
            (true, own) => emit::field(out, b"Vary", format!("{own}, Origin").as_bytes()),
            (false, "") => {}
            (false, own) => emit::field(out, b"Vary", own.as_bytes()),
        }
        if self.upstream_status.is_some() {
            served(false, out);
        }
        self.common_fields(cx, request, out);
    }

    /// Whether the response has CORS headers, `Vary` at least.
    fn has_cors(&self) -> bool {
        self.view.cors.is_on() && self.cors != Grant::Never
    }

    /// A JSON document as the whole response.
    pub(super) fn json(&mut self, ask: &Ask<'_>, body: Bytes, local: &mut Local) {
        self.begin(ask.cx, Some(&ask.request), 200, local);
        emit::field(&mut local.head, b"Content-Type", b"application/json");
        self.own_id(&mut local.head);
        local.body = body;
    }

    /// The same endpoint gets the request in another form, also if it has to wait for it.
    fn may_try_again(&mut self) {
        if let Some(index) = self.endpoint {
            self.tried.remove(index);
        }
    }

    /// Responds with what the dialect made of a whole response, or tries another endpoint.
    pub(super) fn respond_with(
        &mut self,
        ask: &Ask<'_>,
        whole: Whole,
        response: &[u8],
        local: &mut Local,
    ) -> AtEnd {
        match whole {
            Whole::Held => {
                local.head.append(&mut self.kept.held);
                local.body = Bytes::copy_from_slice(response);
            }
            Whole::Json(document) => {
                self.json(ask, document.into(), local);
                local.head.append(&mut self.kept.held);
            }
            Whole::Events(events) => {
                self.events(ask, &mut local.head);
                local.head.append(&mut self.kept.held);
                local.body = events.into();
            }
            Whole::Refused(error) => {
                let mut fields = std::mem::take(&mut self.kept.held);
                self.error(ask.cx, Some(&ask.request), &error, local);
                if self.dialect.is_translated() {
                    local.head.append(&mut fields);
                }
            }
            Whole::Again => {
                self.may_try_again();
                return AtEnd::Again;
            }
            Whole::NotSpoken(dialect, refused_for) => {
                self.may_try_again();
                let until = ask.cx.now + refused_for;
                let until_ms = self.gateway.common.clock_ms(until);
                if let Some(endpoint) = self.endpoint() {
                    endpoint.live.refuse(dialect, until_ms);
                }
                return AtEnd::Again;
            }
        }
        AtEnd::Respond
    }

    /// Writes the head of a stream of events of the gateway's own.
    pub(super) fn events(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) {
        self.begin_head(ask.cx, Some(&ask.request), (200, ""), out);
        let stream_type = self.dialect.stream_type();
        emit::field(out, b"Content-Type", stream_type.as_bytes());
        emit::field(out, b"Cache-Control", b"no-cache");
        unbuffered(out);
        self.own_id(out);
    }

    /// Keeps the fields of a response that reach the client of a translation, for a head that is
    /// written later.
    pub(super) fn hold_kept_fields(&mut self, response: &Response<'_>) {
        let mut held = std::mem::take(&mut self.kept.held);
        // An attempt that broke off while its body was collected leaves its head here.
        held.clear();
        self.kept_fields(response, &mut held);
        self.kept.held = held;
    }

    /// Writes those fields: by them SDKs decide whether and when to try again
    /// (docs/contract/dialects.md#4).
    pub(super) fn kept_fields(&self, response: &Response<'_>, out: &mut Vec<u8>) {
        let limits = self.limit_headers.is_some();
        let has_keys = self.view.snapshot.access.enabled;
        for each in &response.head.fields {
            let name = each.name.of(response.bytes);
            let is_kept = || {
                let mut names = RETRY_HEADERS.iter();
                names.any(|known| known.as_bytes().eq_ignore_ascii_case(name))
                    || name
                        .get(..RATE_LIMIT_PREFIX.len())
                        .is_some_and(|start| start.eq_ignore_ascii_case(RATE_LIMIT_PREFIX))
            };
            // The gateway has its own of three names.
            let is_ours = each.id == FieldId::XRateLimit && limits;
            if !is_ours && is_kept() && !(has_keys && is_limit_header(name)) {
                emit::field(out, name, each.value.of(response.bytes));
            }
        }
    }

    /// Writes status line and fields of an endpoint's response (docs/contract/surface.md#5).
    pub(super) fn relayed(&mut self, ask: &Ask<'_>, response: &Response<'_>, out: &mut Vec<u8>) {
        let Response { head, bytes, .. } = *response;
        self.status = head.status;
        emit::status_line(out, head.status, head.reason.of(bytes));
        let cors = self.view.cors.is_on();
        let rules = Withheld {
            upstream: self.endpoint().map(|endpoint| &*endpoint.upstream),
            cors,
            limits: self.limit_headers.is_some(),
            keys: self.view.snapshot.access.enabled,
        };
        let own_id = self.route.family().id_header();
        let nominated = head.nominated(bytes);
        let (mut vary, mut via, mut dated, mut has_id) = (false, false, false, false);
        let (mut is_stream, mut has_buffering) = (false, false);
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
                        let lines = head.all(FieldId::Via).map(|line| line.value.of(bytes));
                        joined_via(lines, VIA.as_bytes(), out);
                    }
                    continue;
                }
                LOCATION | REFRESH => {
                    self.redirect(&ask.request, (each.id, name), value, out);
                    continue;
                }
                FieldId::Date => dated = true,
                FieldId::ContentType => is_stream = is_stream_type(value),
                X_ACCEL_BUFFERING => has_buffering = true,
                _ => {}
            }
            has_id |= own_id.is_some_and(|own| name.eq_ignore_ascii_case(own));
            emit::field(out, name, value);
        }
        if !dated {
            emit::field(out, b"Date", ask.cx.date);
        }
        served(via, out);
        if cors && !vary {
            emit::field(out, b"Vary", b"Origin");
        }
        if is_stream && !has_buffering {
            unbuffered(out);
        }
        self.common_fields(ask.cx, Some(&ask.request), out);
        if !has_id {
            self.own_id(out);
        }
    }

    /// Writes a `Location`, `Content-Location` or `Refresh` of an endpoint, so that it leads back
    /// through the gateway.
    fn redirect(
        &self,
        request: &Request<'_>,
        (id, name): (FieldId, &[u8]),
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        let Some(endpoint) = self.endpoint() else {
            return emit::field(out, name, value);
        };
        let redirects = Redirects {
            prefix: prefix_of(self.path(request)),
            endpoint: &endpoint.plan.url,
            base_path: &endpoint.upstream.base_path,
            own_host: request.head.host(request.bytes),
        };
        let rewritten = if id == REFRESH {
            redirects.refresh(value)
        } else {
            redirects.location(value)
        };
        emit::field(out, name, &rewritten);
    }

    /// The fields that every response has, and those that depend on what has been decided.
    fn common_fields(&self, cx: &Cx<'_>, request: Option<&Request<'_>>, out: &mut Vec<u8>) {
        emit::field(out, b"X-Olla-Request-ID", self.kept.id.as_bytes());
        out.extend_from_slice(b"X-Olla-Response-Time: ");
        emit::decimal(out, millis(cx.now.saturating_duration_since(cx.arrived)));
        out.extend_from_slice(b"ms\r\n");
        if let Some(endpoint) = self.endpoint() {
            emit::field(out, b"X-Olla-Endpoint", endpoint.name().as_bytes());
            let shown = endpoint.type_shown();
            emit::field(out, b"X-Olla-Backend-Type", shown.as_bytes());
            if let Some(model) = self.model() {
                emit::field_lossy(out, b"X-Olla-Model", model.as_bytes());
            }
        }
        self.routing_fields(request, out);
        self.choice_fields(out);
        if let Some(limit) = &self.limit_headers {
            let full = cx
                .unix_ms
                .saturating_add(millis(limit.full_in))
                .div_ceil(1000);
            let names = limit.names;
            emit::field_number(out, names.limit.as_bytes(), limit.limit.get().into());
            emit::field_number(out, names.remaining.as_bytes(), limit.remaining.into());
            emit::field_number(out, names.reset.as_bytes(), full);
        }
        self.key_limit_fields(cx, out);
        if self.has_cors() {
            let origin =
                request.and_then(|request| request.head.get(request.bytes, FieldId::Origin));
            self.view.cors.write(self.cors, origin, out);
        }
    }

    fn routing_fields(&self, request: Option<&Request<'_>>, out: &mut Vec<u8>) {
        use std::io::Write as _;
        if let Some(routing) = &self.routing {
            emit::field(out, b"X-Olla-Routing-Strategy", routing.strategy.as_bytes());
            let verdict = routing.verdict.as_str();
            emit::field(out, b"X-Olla-Routing-Decision", verdict.as_bytes());
            out.extend_from_slice(b"X-Olla-Routing-Reason: ");
            match routing.reason {
                Reason::Word(word) => out.extend_from_slice(word.as_bytes()),
                // Writing to a vector does not fail.
                reason => drop(write!(out, "{}", reason.show(&self.view.snapshot.aliases))),
            }
            out.extend_from_slice(b"\r\n");
        }
        if let Some(mode) = self.dialect.mode_shown() {
            emit::field(out, b"X-Olla-Mode", mode.as_bytes());
        }
        if self.endpoint.is_some() && self.dialect.is_translated() {
            let dialect = DialectName::OpenAiChat.as_str();
            emit::field(out, b"X-Olla-Dialect", dialect.as_bytes());
        }
        if let Some(dropped) = self.dialect.dropped().and_then(Dropped::header) {
            emit::field(out, b"X-Olla-Dropped", dropped.as_bytes());
        }
        // A rejected request has no session.
        if let Some(session) = self.session.as_ref().filter(|_| self.endpoint.is_some()) {
            let outcome = session.outcome().as_str();
            emit::field(out, b"X-Olla-Sticky-Session", outcome.as_bytes());
            if let Some(key) = session.key() {
                let source = key.source();
                emit::field(out, b"X-Olla-Sticky-Key-Source", source.as_str().as_bytes());
                let own = request
                    .and_then(|request| request.head.get(request.bytes, X_OLLA_SESSION_ID))
                    .filter(|_| source == StickySource::SessionHeader);
                if let Some(own) = own {
                    emit::field(out, b"X-Olla-Session-ID", own);
                }
            }
        }
    }
}

/// The fields of an error about a key (docs/contract/access.md#8.1).
fn access_fields(access: AccessError, retry_after: Option<u64>, out: &mut Vec<u8>) {
    if let AccessError::Challenge { is_invalid } = access {
        let challenge: &[u8] = if is_invalid {
            b"Bearer realm=\"olla\", error=\"invalid_token\""
        } else {
            b"Bearer realm=\"olla\""
        };
        emit::field(out, b"WWW-Authenticate", challenge);
    }
    if access != AccessError::Plain {
        emit::field(out, b"Cache-Control", b"no-store");
    }
    // The official SDKs would sleep for that long.
    if retry_after.is_some_and(|seconds| seconds > PATIENCE_S) {
        emit::field(out, b"x-should-retry", b"false");
    }
}

/// Whether a response of this type is a stream of events or of lines.
fn is_stream_type(content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let media = content_type.get(..end).unwrap_or_default().trim_ascii();
    media.eq_ignore_ascii_case(b"text/event-stream")
        || media.eq_ignore_ascii_case(b"application/x-ndjson")
}

/// Tells nginx in front not to collect a stream (docs/contract/surface.md#5.2).
pub(super) fn unbuffered(out: &mut Vec<u8>) {
    emit::field(out, b"X-Accel-Buffering", b"no");
}

/// Adds the fields of a relayed response (docs/contract/surface.md#5.2). `has_via` says that the
/// endpoint's own `Via` was written already, with the gateway's at its end.
fn served(has_via: bool, out: &mut Vec<u8>) {
    if !has_via {
        joined_via(std::iter::empty(), VIA.as_bytes(), out);
    }
    emit::field(out, b"X-Served-By", PRODUCT.as_bytes());
}

/// Which fields of an endpoint's response do not reach the client (docs/contract/surface.md#5.1).
struct Withheld<'v> {
    upstream: Option<&'v Upstream>,
    /// The gateway writes the CORS headers.
    cors: bool,
    /// The gateway writes the rate limit headers.
    limits: bool,
    /// Clients have keys, and the gateway writes the headers of their limits.
    keys: bool,
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
            id if field::is_hop_by_hop(id) || field_names::is_x_olla(id) => true,
            id if self.cors && id.is_access_control() => true,
            _ if self.keys && is_limit_header(name) => true,
            _ => self
                .upstream
                .is_some_and(|upstream| upstream.replaces(name)),
        }
    }
}

/// An endpoint's `Vary`, with `Origin` in it.
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

/// Writes `Via` as one line: the entries of others, then the gateway's own.
pub(super) fn joined_via<'v>(lines: impl Iterator<Item = &'v [u8]>, own: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    for line in lines {
        out.extend_from_slice(line);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(own);
    out.extend_from_slice(b"\r\n");
}

/// Whole seconds until then, rounded up, at least one.
pub(super) fn seconds_until(duration: std::time::Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
        .max(1)
}
