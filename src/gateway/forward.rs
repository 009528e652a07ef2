//! Writes the head of a request to an endpoint.
//!
//! Contract: docs/contract/surface.md#3.1, docs/contract/surface.md#4

use olla_engine::h1::{FieldId, RequestHead, emit, field};
use olla_engine::handler::Request;

use super::exchange::Exchange;
use super::respond::{PRODUCT, joined_via};
use crate::access::holds_credential;
use crate::config::Secret;
use crate::dialects::DialectTarget;
use crate::field_names::{SEC_FETCH, X_MODEL, X_OLLA_EXPLAIN};
use crate::fleet::{Endpoint, Upstream};
use crate::routing::path::upstream_target;

/// The longest path that an endpoint's last error shows.
const SHOWN_PATH_BYTES_MAX: usize = 256;

/// Headers of the client that are passed on in place of those that the gateway would add.
#[derive(Default)]
struct Passed {
    proto: bool,
    host: bool,
    real_ip: bool,
    via: bool,
}

impl Exchange {
    /// Writes request line and headers for the endpoint that was picked. `target` is the path of a
    /// dialect in place of the client's.
    pub(super) fn write_request_head(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        target: Option<DialectTarget<'_>>,
        out: &mut Vec<u8>,
    ) {
        let upstream = &*endpoint.upstream;
        let translated = target.is_some_and(|target| target.translated);
        let read_here = target.is_some_and(|target| target.read_here);
        let Request { head, bytes, .. } = *request;
        out.extend_from_slice(head.method.of(bytes));
        out.push(b' ');
        let query = Some(head.query.of(bytes)).filter(|query| !query.is_empty());
        let query = query.filter(|_| !translated);
        let rest = target.map_or_else(|| self.rest(request), |target| target.path.as_bytes());
        upstream_target(
            &upstream.base_path,
            rest,
            query,
            upstream.query.as_ref().map(Secret::expose),
            out,
        );
        out.extend_from_slice(b" HTTP/1.1\r\n");
        out.extend_from_slice(upstream.fields_for(head.method.of(bytes)));
        let passed = self.pass_fields(upstream, request, (translated, read_here), out);
        self.add_trace(upstream, request, &passed, out);
        if let Some(model) = self.model().filter(|_| !upstream.owns(X_MODEL)) {
            emit::field_lossy(out, b"X-Model", model.as_bytes());
        }
        if read_here {
            emit::field(out, b"Accept-Encoding", b"identity");
        }
        if translated {
            emit::field(out, b"Content-Type", b"application/json");
            // A client's key ends here (docs/contract/access.md#3.1).
            if !self.ends_keys() {
                bearer_of_api_key(head, bytes, upstream, out);
            }
        }
    }

    /// The path of a request as an endpoint gets it, without the query, cut to a length to show.
    pub(super) fn asked_path(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        target: Option<DialectTarget<'_>>,
    ) -> String {
        let rest = target.map_or_else(|| self.rest(request), |target| target.path.as_bytes());
        let mut path = Vec::new();
        upstream_target(&endpoint.upstream.base_path, rest, None, None, &mut path);
        path.truncate(SHOWN_PATH_BYTES_MAX);
        String::from_utf8_lossy(&path).into_owned()
    }

    /// Passes the client's headers on, except those that end here.
    fn pass_fields(
        &self,
        upstream: &Upstream,
        request: &Request<'_>,
        (translated, read_here): (bool, bool),
        out: &mut Vec<u8>,
    ) -> Passed {
        let Request { head, bytes, .. } = *request;
        let nominated = head.nominated(bytes);
        let has_model = self.model().is_some();
        // The gateway has decided about the page; an endpoint that knows nothing of it would refuse.
        let cors = self.view.cors.is_on();
        let ends_keys = self.ends_keys();
        let mut passed = Passed::default();
        for each in &head.fields {
            match each.id {
                FieldId::Host
                | FieldId::ContentLength
                | FieldId::Expect
                | FieldId::Cookie
                | FieldId::XForwardedFor
                | FieldId::XProxiedBy
                | FieldId::XRequestId => continue,
                id if field::is_hop_by_hop(id) => continue,
                FieldId::Authorization | FieldId::XApiKey | FieldId::XAuthToken
                    if upstream.has_auth =>
                {
                    continue;
                }
                X_MODEL if has_model => continue,
                X_OLLA_EXPLAIN => continue,
                FieldId::Origin | SEC_FETCH if cors => continue,
                FieldId::ContentEncoding if self.coding.is_removed() => continue,
                FieldId::ContentType | FieldId::ContentEncoding if translated => continue,
                FieldId::AcceptEncoding if read_here => continue,
                _ => {}
            }
            let name = each.name.of(bytes);
            if nominated.contains(each) || upstream.replaces(name) {
                continue;
            }
            if ends_keys && holds_credential(each.id, name) {
                continue;
            }
            match each.id {
                FieldId::XForwardedProto => passed.proto = true,
                FieldId::XForwardedHost => passed.host = true,
                FieldId::XRealIp => passed.real_ip = true,
                FieldId::Via => {
                    if !std::mem::replace(&mut passed.via, true) {
                        let lines = head.all(FieldId::Via).map(|line| line.value.of(bytes));
                        joined_via(lines, self.gateway.via.as_bytes(), out);
                    }
                    continue;
                }
                _ => {}
            }
            emit::field(out, name, each.value.of(bytes));
        }
        passed
    }

    /// Adds the headers that name the client and the gateway. Those that the endpoint's
    /// configuration sets are written already.
    fn add_trace(
        &self,
        upstream: &Upstream,
        request: &Request<'_>,
        passed: &Passed,
        out: &mut Vec<u8>,
    ) {
        let Request { head, bytes, .. } = *request;
        if !upstream.owns(FieldId::XForwardedFor) {
            out.extend_from_slice(b"X-Forwarded-For: ");
            let lines = head.all(FieldId::XForwardedFor);
            for value in lines.map(|line| line.value.of(bytes)) {
                if !value.is_empty() {
                    out.extend_from_slice(value);
                    out.extend_from_slice(b", ");
                }
            }
            out.extend_from_slice(self.kept.peer_text.as_str().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !passed.proto && !upstream.owns(FieldId::XForwardedProto) {
            let tls = self.view.plan().server.tls.is_some();
            let proto: &[u8] = if tls { b"https" } else { b"http" };
            emit::field(out, b"X-Forwarded-Proto", proto);
        }
        if !passed.host && !upstream.owns(FieldId::XForwardedHost) {
            emit::field(out, b"X-Forwarded-Host", head.host(bytes));
        }
        if !passed.real_ip && !upstream.owns(FieldId::XRealIp) {
            emit::field(out, b"X-Real-IP", self.kept.client_text.as_str().as_bytes());
        }
        if !upstream.owns(FieldId::XProxiedBy) {
            emit::field(out, b"X-Proxied-By", PRODUCT.as_bytes());
        }
        if !passed.via && !upstream.owns(FieldId::Via) {
            joined_via(std::iter::empty(), self.gateway.via.as_bytes(), out);
        }
        if !upstream.owns(FieldId::XRequestId) {
            emit::field(out, b"X-Request-ID", self.kept.id.as_bytes());
        }
    }
}

/// Servers of OpenAI's API expect a key in another header than clients of Anthropic's API, or of
/// Azure's, send (docs/contract/translation.md#10, docs/contract/dialects.md#4).
fn bearer_of_api_key(head: &RequestHead, bytes: &[u8], upstream: &Upstream, out: &mut Vec<u8>) {
    let has_own = upstream.has_auth
        || upstream.owns(FieldId::Authorization)
        || upstream.owns(FieldId::XApiKey);
    if has_own || head.has(FieldId::Authorization) {
        return;
    }
    let api_key = || {
        let mut fields = head.fields.iter();
        let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(b"api-key"))?;
        Some(field.value.of(bytes))
    };
    if let Some(key) = head.get(bytes, FieldId::XApiKey).or_else(api_key) {
        out.extend_from_slice(b"Authorization: Bearer ");
        out.extend_from_slice(key);
        out.extend_from_slice(b"\r\n");
    }
}
