//! Whose request it is, and whether that client may make it now.
//!
//! contract: surface 10

use std::net::IpAddr;

use ipnet::IpNet;
use olla_engine::h1::{FieldId, RequestHead, field};

use crate::config::Plan;

/// An address as a text, written anew only when it is another one.
#[derive(Debug, Default)]
pub(super) struct IpText {
    ip: Option<IpAddr>,
    text: String,
}

impl IpText {
    pub(super) fn set(&mut self, ip: IpAddr) {
        use std::fmt::Write as _;
        if self.ip != Some(ip) {
            self.ip = Some(ip);
            self.text.clear();
            // Writing to a string does not fail.
            let _ = write!(self.text, "{ip}");
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The client's address (contract: surface 10.3).
pub(super) fn client_ip(plan: &Plan, peer: IpAddr, head: &RequestHead, bytes: &[u8]) -> IpAddr {
    let peer = peer.to_canonical();
    let limits = &plan.server.rate_limits;
    if !limits.trust_proxy_headers || !is_trusted(&limits.trusted_proxy_cidrs, peer) {
        return peer;
    }
    if head.has(FieldId::XForwardedFor) {
        let lines = head
            .all(FieldId::XForwardedFor)
            .map(|line| line.value.of(bytes));
        return forwarded_for(&limits.trusted_proxy_cidrs, lines).unwrap_or(peer);
    }
    head.get(bytes, FieldId::XRealIp)
        .and_then(address)
        .unwrap_or(peer)
}

/// The rightmost address that is not trusted, else the leftmost; `None` when an entry on the way
/// is no address.
fn forwarded_for<'h>(trusted: &[IpNet], lines: impl Iterator<Item = &'h [u8]>) -> Option<IpAddr> {
    // Lines are joined as if they were one list; what counts is found from its end.
    let mut found: Option<IpAddr> = None;
    let mut last_untrusted: Option<Option<IpAddr>> = None;
    let mut first = true;
    for entry in lines.flat_map(field::list_items) {
        let ip = address(entry);
        if first {
            found = ip;
            first = false;
        }
        if ip.is_none_or(|ip| !is_trusted(trusted, ip)) {
            last_untrusted = Some(ip);
        }
    }
    last_untrusted.unwrap_or(found)
}

fn is_trusted(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// An address, without the port that may follow it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Some(inner) = text.strip_prefix('[') {
        return inner.split(']').next()?.parse().ok();
    }
    let ip: Option<IpAddr> = text.parse().ok();
    ip.or_else(|| text.split_once(':')?.0.parse().ok())
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_named() {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"]
            .map(|n| n.parse().unwrap())
            .into();
        let table: [(&[&str], Option<&str>); 10] = [
            (&["203.0.113.5"], Some("203.0.113.5")),
            (&["1.2.3.4, 203.0.113.5"], Some("203.0.113.5")),
            (&["1.2.3.4, 203.0.113.5, 10.0.0.7"], Some("203.0.113.5")),
            (&["1.2.3.4", "203.0.113.5, 10.0.0.7"], Some("203.0.113.5")),
            (&["10.0.0.1, 127.0.0.1"], Some("10.0.0.1")),
            (&["203.0.113.5:8080"], Some("203.0.113.5")),
            (&["[2001:db8::1]:443"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["1.2.3.4, nonsense"], None),
            (&["nonsense, 1.2.3.4"], Some("1.2.3.4")),
        ];
        for (lines, want) in table {
            let got = forwarded_for(&trusted, lines.iter().map(|line| line.as_bytes()));
            assert_eq!(got, want.map(|ip| ip.parse().unwrap()), "{lines:?}");
        }
    }
}
