//! Access to the dashboard, and the security headers of its responses.
//!
//! Access depends on the address of the TCP peer and on `Host`. Forwarded headers never widen it:
//! behind a proxy on this machine every peer is a loopback address, so that a request with such
//! headers needs a client that a trusted proxy names. The other internal pages are open to scrapers,
//! but not to pages of other sites in a browser, which reach them by a name that leads here (DNS
//! rebinding).
//!
//! Contract: docs/contract/operations.md#7, docs/contract/observe.md#8

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
    /// The client's address is in none of the networks.
    Address,
    /// The request came through a proxy on this machine, and no trusted one names its client.
    Proxied,
    /// The `Host` is neither an address nor in the list.
    Host,
}

impl Denied {
    /// The reason in the message and in the log's `reason`.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Address => "ip not in allowed range",
            Self::Proxied => "ip not in allowed range: it came through a proxy on this machine",
            Self::Host => "host not accepted",
        }
    }

    /// The configuration option to change, in the message and in the log's `config_key`.
    pub(crate) const fn config_key(self) -> &'static str {
        match self {
            Self::Address => "dashboard.access_policy.allowed_cidrs",
            Self::Proxied => "server.rate_limits.trust_proxy_headers",
            Self::Host => "dashboard.access_policy.allowed_hosts",
        }
    }

    /// The message of the 403 response; `client` is [`Source::client`].
    pub(crate) fn message(self, client: IpAddr, host: &[u8]) -> String {
        format!(
            "access denied: {} (client IP {}, Host \"{}\"); to allow it, change {}",
            self.reason(),
            client.to_canonical(),
            shown_host(host),
            self.config_key(),
        )
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// The address of the TCP peer.
    pub peer: IpAddr,
    /// What forwarding headers say.
    pub forwarded: Forwarded,
}

/// What the forwarding headers of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// It has none.
    No,
    /// It has some, and no trusted proxy names a client.
    Unnamed,
    /// A trusted proxy names this client.
    Client(IpAddr),
}

impl Source {
    /// The address that is judged.
    pub(crate) const fn client(self) -> IpAddr {
        match self.forwarded {
            Forwarded::Client(client) if self.peer.is_loopback() => client,
            _ => self.peer,
        }
    }
}

/// A `Host` as sent, cut to a bounded length, for a message or the log.
pub(crate) fn shown_host(host: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(host.get(..HOST_SHOWN_BYTES_MAX).unwrap_or(host))
}

/// Whether the policy admits a request; `host` is the value of `Host`, empty without one.
///
/// # Errors
/// The first check that failed: the address, then the host.
pub(crate) fn admit(policy: &AccessPlan, source: Source, host: &[u8]) -> Result<(), Denied> {
    // An IPv4 peer of an IPv6 socket is an IPv4 peer.
    let peer = source.peer.to_canonical();
    let is_allowed = |ip: IpAddr| {
        let ip = ip.to_canonical();
        policy.allowed_cidrs.iter().any(|net| net.contains(&ip))
    };
    if !is_allowed(peer) {
        return Err(Denied::Address);
    }
    match source.forwarded {
        _ if !peer.is_loopback() => {}
        Forwarded::Client(client) if !is_allowed(client) => return Err(Denied::Address),
        Forwarded::Unnamed => return Err(Denied::Proxied),
        Forwarded::No | Forwarded::Client(_) => {}
    }
    let accepted = named(host).is_some_and(|host| is_own(policy, host));
    if accepted { Ok(()) } else { Err(Denied::Host) }
}

/// Names that no stranger can give an address to: the ends of those of private networks.
const PRIVATE_NAMES: [&str; 6] = [
    ".local",
    ".internal",
    ".lan",
    ".home.arpa",
    ".svc",
    ".cluster.local",
];

/// Whether a request of a browser may read an internal page, by the value of `Host`.
///
/// # Errors
/// The host may be another site's name.
pub(crate) fn admit_browser(policy: &AccessPlan, host: &[u8]) -> Result<(), Denied> {
    let accepted = named(host).is_some_and(|host| {
        let ends_in = |end: &str| {
            let start = host.len().checked_sub(end.len()).filter(|start| *start > 0);
            let tail = start.and_then(|start| host.get(start..));
            tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        };
        is_own(policy, host) || !host.contains('.') || PRIVATE_NAMES.iter().any(|end| ends_in(end))
    });
    if accepted { Ok(()) } else { Err(Denied::Host) }
}

/// The host of a `Host` field, unless it is empty.
fn named(host: &[u8]) -> Option<&str> {
    let host = bare_host(std::str::from_utf8(host).ok()?.trim());
    (!host.is_empty()).then_some(host)
}

fn is_own(policy: &AccessPlan, host: &str) -> bool {
    let mut allowed = policy.allowed_hosts.iter();
    is_address(host) || allowed.any(|allowed| allowed.eq_ignore_ascii_case(host))
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

    fn direct(peer: &str) -> Source {
        Source {
            peer: peer.parse().unwrap(),
            forwarded: Forwarded::No,
        }
    }

    #[test]
    fn a_proxy_on_this_machine_makes_no_client_local() {
        let client = |ip: &str| Forwarded::Client(ip.parse().unwrap());
        let table = [
            ("127.0.0.1", Forwarded::No, Ok(())),
            ("127.0.0.1", Forwarded::Unnamed, Err(Denied::Proxied)),
            ("::1", Forwarded::Unnamed, Err(Denied::Proxied)),
            ("::ffff:127.0.0.1", Forwarded::Unnamed, Err(Denied::Proxied)),
            ("127.0.0.1", client("10.1.2.3"), Ok(())),
            ("127.0.0.1", client("::ffff:10.1.2.3"), Ok(())),
            ("127.0.0.1", client("203.0.113.9"), Err(Denied::Address)),
            // Elsewhere they neither widen nor narrow it.
            ("10.1.2.3", Forwarded::Unnamed, Ok(())),
            ("10.1.2.3", client("203.0.113.9"), Ok(())),
            ("10.2.0.1", client("10.1.2.3"), Err(Denied::Address)),
        ];
        for (peer, forwarded, expected) in table {
            let source = Source {
                forwarded,
                ..direct(peer)
            };
            let admitted = admit(&policy(), source, b"localhost");
            assert_eq!(admitted, expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_browser_must_name_a_host_of_the_operators() {
        let table = [
            ("localhost:40114", true),
            ("127.0.0.1:40114", true),
            ("203.0.113.9", true),
            ("[::1]:40114", true),
            ("Olla.Example", true),
            ("gpu-box", true),
            ("gpu-box.local", true),
            ("GPU.Lan:1", true),
            ("a.home.arpa", true),
            ("olla.ai.svc", true),
            ("olla.ai.svc.cluster.local", true),
            ("metadata.google.internal", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.local.example", false),
            ("evillocal.com", false),
            (".local", false),
            ("localhost.", false),
            ("", false),
            (":80", false),
        ];
        for (host, admitted) in table {
            let is_admitted = admit_browser(&policy(), host.as_bytes()).is_ok();
            assert_eq!(is_admitted, admitted, "{host}");
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
            let admitted = admit(&policy(), direct(peer), host.as_bytes());
            assert_eq!(admitted, expected, "{peer} {host}");
        }
        let peer = direct("127.0.0.1");
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
