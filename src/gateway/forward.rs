//! The head of a request to a backend.
//!
//! contract: surface 3.1, 4

use olla_engine::h1::{FieldId, RequestHead, emit, field};
use olla_engine::handler::Request;

use super::answers::{PRODUCT, joined_via};
use super::exchange::Exchange;
use super::messages::MessageTarget;
use super::snapshot::Backend;
use super::view::View;
use crate::routing::path::upstream_target;

/// Writes request line and fields. A message has a target of its own.
pub(super) fn head(
    x: &Exchange,
    view: &View,
    backend: &Backend,
    request: &Request<'_>,
    message: Option<&MessageTarget>,
    out: &mut Vec<u8>,
) {
    let Request { head, bytes, .. } = *request;
    let translated = message.is_some_and(|message| message.translated);
    out.extend_from_slice(head.method.of(bytes));
    out.push(b' ');
    let query = Some(head.query.of(bytes)).filter(|query| !query.is_empty());
    let query = query.filter(|_| !translated);
    let rest = message.map_or_else(|| x.rest(bytes), |message| message.path.as_bytes());
    upstream_target(&backend.base_path, backend.preserve_path, rest, query, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    out.extend_from_slice(&backend.fields);
    let nominated = head.nominated(bytes);
    let has_model = x.model().is_some();
    let (mut proto, mut host, mut real_ip, mut via) = (false, false, false, false);
    for each in &head.fields {
        let (name, value) = (each.name.of(bytes), each.value.of(bytes));
        match each.id {
            FieldId::Host
            | FieldId::ContentLength
            | FieldId::Expect
            | FieldId::Cookie
            | FieldId::ProxyAuthorization
            | FieldId::XForwardedFor
            | FieldId::XProxiedBy
            | FieldId::XRequestId => continue,
            id if field::is_hop_by_hop(id) => continue,
            FieldId::Authorization | FieldId::XApiKey | FieldId::XAuthToken if backend.has_auth => {
                continue;
            }
            FieldId::XModel if has_model => continue,
            FieldId::ContentType | FieldId::ContentEncoding if translated => continue,
            FieldId::AcceptEncoding if translated => continue,
            _ => {}
        }
        if nominated.contains(each)
            || backend
                .replaced
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name))
        {
            continue;
        }
        match each.id {
            FieldId::XForwardedProto => proto = true,
            FieldId::XForwardedHost => host = true,
            FieldId::XRealIp => real_ip = true,
            FieldId::Via => {
                if !std::mem::replace(&mut via, true) {
                    joined_via(head.all(FieldId::Via).map(|line| line.value.of(bytes)), out);
                }
                continue;
            }
            _ => {}
        }
        emit::field(out, name, value);
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    for line in head.all(FieldId::XForwardedFor) {
        out.extend_from_slice(line.value.of(bytes));
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(x.peer_text.as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
    if !proto {
        let tls = view.plan().server.tls.cert_file.is_some();
        emit::field(
            out,
            b"X-Forwarded-Proto",
            if tls { b"https" } else { b"http" },
        );
    }
    if !host {
        emit::field(out, b"X-Forwarded-Host", head.host(bytes));
    }
    if !real_ip {
        emit::field(out, b"X-Real-IP", x.client_text.as_str().as_bytes());
    }
    emit::field(out, b"X-Proxied-By", PRODUCT.as_bytes());
    if !via {
        joined_via(std::iter::empty(), out);
    }
    emit::field(out, b"X-Request-ID", x.id.as_bytes());
    if has_model {
        emit::field_lossy(
            out,
            b"X-Model",
            x.sent_model().unwrap_or_default().as_bytes(),
        );
    }
    if translated {
        emit::field(out, b"Content-Type", b"application/json");
        emit::field(out, b"Accept-Encoding", b"identity");
        bearer_of_api_key(head, bytes, backend, out);
    }
}

/// OpenAI's servers take a key in another field than Anthropic's clients send it in (contract:
/// translation 10).
fn bearer_of_api_key(head: &RequestHead, bytes: &[u8], backend: &Backend, out: &mut Vec<u8>) {
    if backend.has_auth || head.has(FieldId::Authorization) {
        return;
    }
    if let Some(key) = head.get(bytes, FieldId::XApiKey) {
        out.extend_from_slice(b"Authorization: Bearer ");
        out.extend_from_slice(key);
        out.extend_from_slice(b"\r\n");
    }
}
