//! The client of a request, identified once when the request head has arrived.
//!
//! Contract: docs/contract/surface.md#10.3

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use olla_engine::h1::{FieldId, RequestHead, field};

use crate::config::RateLimitsPlan;

/// The client of a request: what limits are counted by, and what logs and statistics name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// An address that no trusted proxy vouches for, or one that such a proxy named.
    Address(IpAddr),
}

impl Client {
    /// The client of a connection that has sent nothing yet.
    pub(crate) const UNKNOWN: Self = Self::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// The client behind a connection from `peer`: its address, unless that is a trusted proxy's
    /// and the head names another.
    pub(crate) fn identify(
        limits: &RateLimitsPlan,
        peer: IpAddr,
        head: &RequestHead,
        bytes: &[u8],
    ) -> Self {
        let named = named_by_proxy(limits, peer, head, bytes);
        Self::Address(named.unwrap_or(peer.to_canonical()))
    }

    /// Its address.
    pub(crate) const fn address(self) -> IpAddr {
        match self {
            Self::Address(address) => address,
        }
    }

    /// What limits count it by: its address, or the first of the /64 of an IPv6 address. Whoever has
    /// one address of such a network has all of them (docs/contract/surface.md#10.1).
    pub(crate) const fn limited_as(self) -> IpAddr {
        match self.address().to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !(u64::MAX as u128);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            address @ IpAddr::V4(_) => address,
        }
    }
}

/// The client that a trusted proxy names; `None` when the peer is none or names none.
pub(crate) fn named_by_proxy(
    limits: &RateLimitsPlan,
    peer: IpAddr,
    head: &RequestHead,
    bytes: &[u8],
) -> Option<IpAddr> {
    if !is_trusted_proxy(limits, peer) {
        return None;
    }
    if head.has(FieldId::XForwardedFor) {
        let lines = head
            .all(FieldId::XForwardedFor)
            .map(|line| line.value.of(bytes));
        return forwarded_for(&limits.trusted_proxy_cidrs, lines);
    }
    head.get(bytes, FieldId::XRealIp).and_then(address)
}

/// The rightmost address that is not trusted, else the leftmost; `None` when an entry on the way
/// is not an address.
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

/// Whether a connection comes from a trusted proxy.
pub(crate) fn is_trusted_proxy(limits: &RateLimitsPlan, peer: IpAddr) -> bool {
    limits.trust_proxy_headers && is_trusted(&limits.trusted_proxy_cidrs, peer.to_canonical())
}

fn is_trusted(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// An address, without the port that may follow it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Some(inner) = text.strip_prefix('[') {
        let ip: IpAddr = inner.split(']').next()?.parse().ok()?;
        return Some(ip.to_canonical());
    }
    let ip: Option<IpAddr> = text.parse().ok();
    ip.or_else(|| text.split_once(':')?.0.parse().ok())
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_the_network_of_an_ipv6_address() {
        let table = [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
            ("::1", "::"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ];
        for (address, counted) in table {
            let client = Client::Address(address.parse().unwrap());
            assert_eq!(client.limited_as().to_string(), counted);
            assert_eq!(client.address().to_string(), address);
        }
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_named() {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"]
            .map(|n| n.parse().unwrap())
            .into();
        let table: [(&[&str], Option<&str>); 11] = [
            (&["[::ffff:203.0.113.5]:443"], Some("203.0.113.5")),
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
