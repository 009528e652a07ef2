//! Access to the dashboard, and the security headers of its responses.
//!
//! Access depends on the address of the TCP peer and on `Host`. Forwarded headers are ignored, even
//! with `trust_proxy_headers`.
//!
//! Contract: docs/contract/operations.md#7

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::AccessPlan;

/// Headers of every response below `/internal/ui`, including errors. Styles and scripts come from
/// files only, so that none need be allowed in the page itself.
pub(crate) const SECURITY_HEADERS: [(&str, &str); 4] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
         form-action 'none'",
    ),
];

/// Longest `Host` that a refusal shows, in bytes.
const HOST_SHOWN_BYTES_MAX: usize = 256;

/// The check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The peer's address is in none of the networks.
    Address,
    /// The `Host` is neither an address nor in the list.
    Host,
}

impl Denied {
    /// The reason in the message and in the log's `reason`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Address => "ip not in allowed range",
            Self::Host => "host not accepted",
        }
    }

    /// The configuration option to change, in the message and in the log's `config_key`.
    pub(crate) const fn config_key(self) -> &'static str {
        match self {
            Self::Address => "dashboard.access_policy.allowed_cidrs",
            Self::Host => "dashboard.access_policy.allowed_hosts",
        }
    }

    /// The message of the 403 response.
    pub(crate) fn message(self, peer: IpAddr, host: &[u8]) -> String {
        format!(
            "access denied: {} (client IP {}, Host \"{}\"); to allow it, change {}",
            self.reason(),
            peer.to_canonical(),
            shown_host(host),
            self.config_key(),
        )
    }
}

/// A `Host` as sent, cut to a bounded length, for a message or the log.
pub(crate) fn shown_host(host: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(host.get(..HOST_SHOWN_BYTES_MAX).unwrap_or(host))
}

/// Whether the policy admits a request; `host` is the value of `Host`, empty without one.
///
/// # Errors
/// The first check that failed: the peer's address, then the host.
pub(crate) fn admit(policy: &AccessPlan, peer: IpAddr, host: &[u8]) -> Result<(), Denied> {
    // An IPv4 peer of an IPv6 socket is an IPv4 peer.
    let peer = peer.to_canonical();
    if !policy.allowed_cidrs.iter().any(|net| net.contains(&peer)) {
        return Err(Denied::Address);
    }
    let accepted = std::str::from_utf8(host).is_ok_and(|host| {
        let host = bare_host(host.trim());
        is_address(host)
            || (!host.is_empty()
                && policy
                    .allowed_hosts
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(host)))
    });
    if accepted { Ok(()) } else { Err(Denied::Host) }
}

fn is_address(host: &str) -> bool {
    // A zone (RFC 6874) is part of the literal.
    let without_zone = host.split_once('%').map_or(host, |(address, _)| address);
    host.parse::<IpAddr>().is_ok() || without_zone.parse::<Ipv6Addr>().is_ok()
}

/// The host without port and IPv6 brackets.
fn bare_host(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    match host.split_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> AccessPlan {
        AccessPlan {
            allowed_cidrs: ["127.0.0.0/8", "::1/128", "10.1.0.0/16"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            allowed_hosts: vec!["localhost".to_owned(), "olla.example".to_owned()],
        }
    }

    #[test]
    fn addresses_then_hosts() {
        let table = [
            ("127.0.0.1", "localhost", Ok(())),
            ("127.9.9.9", "LocalHost:40114", Ok(())),
            ("::1", "[::1]:40114", Ok(())),
            ("::1", "[::1]", Ok(())),
            ("::1", "::1", Ok(())),
            ("::1", "[fe80::1%eth0]:1", Ok(())),
            ("::ffff:127.0.0.1", "olla.example", Ok(())),
            ("10.1.2.3", "192.168.7.7:80", Ok(())),
            ("10.2.0.1", "localhost", Err(Denied::Address)),
            ("10.2.0.1", "evil.example", Err(Denied::Address)),
            ("::2", "localhost", Err(Denied::Address)),
            ("127.0.0.1", "evil.example", Err(Denied::Host)),
            ("127.0.0.1", "a.olla.example", Err(Denied::Host)),
            ("127.0.0.1", "olla.example.evil", Err(Denied::Host)),
            ("127.0.0.1", "localhost.", Err(Denied::Host)),
            ("127.0.0.1", "1.2.3.4.evil", Err(Denied::Host)),
            ("127.0.0.1", "", Err(Denied::Host)),
            ("127.0.0.1", ":80", Err(Denied::Host)),
            ("127.0.0.1", "[evil.example]", Err(Denied::Host)),
            ("127.0.0.1", "evil%1", Err(Denied::Host)),
        ];
        for (peer, host, expected) in table {
            let admitted = admit(&policy(), peer.parse().unwrap(), host.as_bytes());
            assert_eq!(admitted, expected, "{peer} {host}");
        }
        let peer = "127.0.0.1".parse().unwrap();
        assert_eq!(admit(&policy(), peer, b"\xff"), Err(Denied::Host));
        let none = AccessPlan {
            allowed_hosts: Vec::new(),
            ..policy()
        };
        assert_eq!(admit(&none, peer, b"localhost"), Err(Denied::Host));
        assert_eq!(admit(&none, peer, b"127.0.0.1:1"), Ok(()));
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let message = Denied::Host.message("::ffff:127.0.0.1".parse().unwrap(), b"evil.example:1");
        assert_eq!(
            message,
            "access denied: host not accepted (client IP 127.0.0.1, Host \"evil.example:1\"); to \
             allow it, change dashboard.access_policy.allowed_hosts"
        );
        let message = Denied::Address.message("10.0.0.1".parse().unwrap(), &[b'x'; 9000]);
        assert!(message.len() < 500 && message.contains("allowed_cidrs"));
    }

    #[test]
    fn the_policy_of_the_page_allows_no_inline_styles() {
        let csp = SECURITY_HEADERS[3].1;
        assert!(!csp.contains("unsafe-inline") && csp.contains("frame-ancestors 'none'"));
        assert!(!csp.contains("  "));
    }
}
