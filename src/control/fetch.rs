//! One GET of the control thread: a health check or a listing. It follows redirects; credentials
//! are sent to the endpoint's own origin only.
//!
//! Contract: docs/contract/balancing.md#11 (request), docs/contract/catalogue.md#3.3

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::client::{self, BodyWanted, ClientFault, ClientResponse};
use olla_engine::exchange::ConnectFault;
use olla_engine::h1::emit;

use super::member::FleetMember;
use super::resolve::Resolver;
use super::trust::Trusts;
use crate::config::{BaseUrl, Scheme};
use crate::fleet::own_fields;
use crate::providers::{self, UpstreamTarget};

/// `User-Agent` of listings and readings (docs/contract/catalogue.md#3.3).
pub(super) const DISCOVERY_AGENT: &str = concat!("olla-Discovery/", env!("CARGO_PKG_VERSION"));

/// Redirects in a row that are followed.
const REDIRECTS_MAX: usize = 5;

/// What requests of the control thread need besides sockets.
pub(super) struct Network {
    pub(super) resolver: Resolver,
    pub(super) trusts: Trusts,
}

/// The parameters of a GET.
pub(super) struct Get<'g> {
    pub(super) member: &'g FleetMember,
    pub(super) target: UpstreamTarget,
    /// Header fields for this kind of request: `User-Agent`, `Accept`, …
    pub(super) fields: &'g [(&'g str, &'g str)],
    /// Time limit for the whole exchange, redirects included.
    pub(super) limit: Duration,
    pub(super) body: BodyWanted,
}

/// Sends the request and returns the response after redirects.
///
/// # Errors
/// [`ClientFault`]; too many redirects count as a malformed response.
pub(super) async fn get(
    network: &Network,
    mut get: Get<'_>,
) -> Result<ClientResponse, ClientFault> {
    let end = Instant::now() + get.limit;
    for _ in 0..=REDIRECTS_MAX {
        let reply = once(network, &get, end).await?;
        let location = match reply.status {
            301 | 302 | 303 | 307 | 308 => reply.field("location"),
            _ => None,
        };
        let Some(location) = location else {
            return Ok(reply);
        };
        let Some(next) = redirected(&get.target, &get.member.plan().url, location) else {
            return Err(ClientFault::Malformed);
        };
        get.target = next;
    }
    Err(ClientFault::Malformed)
}

async fn once(
    network: &Network,
    get: &Get<'_>,
    end: Instant,
) -> Result<ClientResponse, ClientFault> {
    let left = || end.saturating_duration_since(Instant::now());
    let target = &get.target;
    let plan = get.member.plan();
    let own = &plan.url;
    let own_addresses = resolved(&network.resolver, &own.host, own.port, left()).await;
    if let Ok(addresses) = &own_addresses {
        get.member.set_addresses(Arc::clone(addresses));
    }
    let addresses = if target.is_own_origin {
        own_addresses?
    } else {
        resolved(&network.resolver, &target.host, target.port, left()).await?
    };
    let tls = (target.scheme == Scheme::Https)
        .then(|| network.trusts.of_check(&get.member.plan(), &target.host));
    let request = head(get);
    let reply = client::send(&addresses, tls.as_ref(), &request, left(), get.body).await;
    if reply.as_ref().is_err_and(|fault| is_unconnected(*fault)) {
        network.resolver.doubt(&target.host, target.port);
    }
    reply
}

/// Whether no address may have been connected to.
fn is_unconnected(fault: ClientFault) -> bool {
    matches!(fault, ClientFault::Connect(fault) if fault != ConnectFault::Local)
        || fault == ClientFault::TimedOut
}

pub(super) async fn resolved(
    resolver: &Resolver,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Arc<[SocketAddr]>, ClientFault> {
    // A name server that does not respond must not take the time that the request needs.
    let patience = if resolver.knows(host, port) {
        limit / 2
    } else {
        limit
    };
    let resolving = resolver.resolve(host, port);
    match olla_engine::rt::timeout(patience, resolving).await {
        Some(found) => found.map_err(ClientFault::Connect),
        None => resolver.kept(host, port).ok_or(ClientFault::TimedOut),
    }
}

fn head(get: &Get<'_>) -> Vec<u8> {
    let target = &get.target;
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target.path_and_query.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    emit::field(&mut out, b"Host", target.host_header.as_bytes());
    let own = if target.is_own_origin {
        own_fields(&get.member.plan())
    } else {
        Vec::new()
    };
    for (name, value) in get.fields {
        if !own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            emit::field(&mut out, name.as_bytes(), value.as_bytes());
        }
    }
    for (name, value) in &own {
        emit::field(&mut out, name.as_bytes(), value.as_bytes());
    }
    emit::field(&mut out, b"Connection", b"close");
    out.extend_from_slice(b"\r\n");
    out
}

/// The target of a redirect.
fn redirected(from: &UpstreamTarget, base: &BaseUrl, location: &str) -> Option<UpstreamTarget> {
    let origin = format!("{}://{}", from.scheme.as_str(), from.host_header);
    let here = url::Url::parse(&format!("{origin}{}", from.path_and_query)).ok()?;
    let there = here.join(location.trim()).ok()?;
    providers::target(base, there.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_credentials_stay_with_the_origin() {
        let base = BaseUrl::parse("http://h:8000/base").unwrap();
        let from = providers::target(&base, "/health").unwrap();
        let table = [
            ("/ok", Some(("h:8000", "/ok", true))),
            ("ok?x=1", Some(("h:8000", "/base/ok?x=1", true))),
            ("http://h:8000/a", Some(("h:8000", "/a", true))),
            ("http://other/a", Some(("other", "/a", false))),
            ("//other:9/b", Some(("other:9", "/b", false))),
            ("ftp://h/x", None),
            ("http://", None),
        ];
        for (location, want) in table {
            let got = redirected(&from, &base, location);
            let got = got.as_ref().map(|target| {
                (
                    target.host_header.as_str(),
                    target.path_and_query.as_str(),
                    target.is_own_origin,
                )
            });
            assert_eq!(got, want, "{location}");
        }
    }
}
