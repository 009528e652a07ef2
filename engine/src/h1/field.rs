//! Names of fields that matter somewhere, lists, and what belongs to one connection only. It makes
//! no decision about framing.

use super::span::{Field, FieldId, FieldSet};
use crate::limits::CONNECTION_OPTIONS_MAX;

/// Field names that a program has ids for, besides those of the engine.
pub trait FieldNames: 'static {
    /// Names in lower case with their ids, which are [`FieldId::own`] ones.
    const NAMES: &'static [(&'static str, FieldId)];
    /// The beginning of further names, in lower case, and the id of all that begin with it.
    const PREFIX: Option<(&'static str, FieldId)>;
}

/// No further names.
#[derive(Debug)]
pub enum NoNames {}

impl FieldNames for NoNames {
    const NAMES: &'static [(&'static str, FieldId)] = &[];
    const PREFIX: Option<(&'static str, FieldId)> = None;
}

/// Looks a name up, in any letter case. `name` is a token, as the name of an indexed field is; for
/// other bytes the result is some id.
#[inline]
pub fn classify<N: FieldNames>(name: &[u8]) -> FieldId {
    match common(name) {
        FieldId::Other => own::<N>(name),
        id => id,
    }
}

/// Looks a name up among those of the program. The table is constant, so that this becomes a few
/// comparisons.
#[inline]
fn own<N: FieldNames>(name: &[u8]) -> FieldId {
    let Some(first) = name.first().map(|first| first | 0x20) else {
        return FieldId::Other;
    };
    // Most names differ in the first letter already.
    let begins_alike = |own: &str| own.as_bytes().first() == Some(&first);
    for (own, id) in N::NAMES {
        if begins_alike(own) && own.len() == name.len() && matches_lower(name, own.as_bytes()) {
            return *id;
        }
    }
    if let Some((prefix, id)) = N::PREFIX
        && begins_alike(prefix)
        && let Some(start) = name.get(..prefix.len())
        && matches_lower(start, prefix.as_bytes())
    {
        return id;
    }
    FieldId::Other
}

/// Looks a name up among those of the engine.
fn common(name: &[u8]) -> FieldId {
    let Some(first) = name.first() else {
        return FieldId::Other;
    };
    // Length and first letter leave one candidate, and rarely two.
    match (name.len(), first | 0x20) {
        (2, b't') if is(name, b"te") => FieldId::Te,
        (3, b'v') if is(name, b"via") => FieldId::Via,
        (4, b'h') if is(name, b"host") => FieldId::Host,
        (4, b'd') if is(name, b"date") => FieldId::Date,
        (4, b'v') if is(name, b"vary") => FieldId::Vary,
        (5, b'r') if is(name, b"range") => FieldId::Range,
        (6, b'a') if is(name, b"accept") => FieldId::Accept,
        (6, b'c') if is(name, b"cookie") => FieldId::Cookie,
        (6, b'e') if is(name, b"expect") => FieldId::Expect,
        (6, b'o') if is(name, b"origin") => FieldId::Origin,
        (6, b's') if is(name, b"server") => FieldId::Server,
        (7, b'r') if is(name, b"referer") => FieldId::Referer,
        (7, b't') if is(name, b"trailer") => FieldId::Trailer,
        (7, b'u') if is(name, b"upgrade") => FieldId::Upgrade,
        (10, b'c') if is(name, b"connection") => FieldId::Connection,
        (10, b'k') if is(name, b"keep-alive") => FieldId::KeepAlive,
        (10, b's') if is(name, b"set-cookie") => FieldId::SetCookie,
        (10, b'u') if is(name, b"user-agent") => FieldId::UserAgent,
        (11, b'r') if is(name, b"retry-after") => FieldId::RetryAfter,
        (12, b'c') if is(name, b"content-type") => FieldId::ContentType,
        (13, b'a') if is(name, b"authorization") => FieldId::Authorization,
        (13, b'i') if is(name, b"if-none-match") => FieldId::IfNoneMatch,
        (14, b'c') if is(name, b"content-length") => FieldId::ContentLength,
        (15, b'a') if is(name, b"accept-encoding") => FieldId::AcceptEncoding,
        (16, b'c') if is(name, b"content-encoding") => FieldId::ContentEncoding,
        (16, b'p') if is(name, b"proxy-connection") => FieldId::ProxyConnection,
        (16, b'w') if is(name, b"www-authenticate") => FieldId::WwwAuthenticate,
        (17, b't') if is(name, b"transfer-encoding") => FieldId::TransferEncoding,
        (18, b'p') if is(name, b"proxy-authenticate") => FieldId::ProxyAuthenticate,
        (19, b'p') if is(name, b"proxy-authorization") => FieldId::ProxyAuthorization,
        (15.., b'a') => of_access_control(name),
        (9.., b'x') => of_x(name),
        _ => FieldId::Other,
    }
}

fn of_access_control(name: &[u8]) -> FieldId {
    match name.len() {
        29 if is(name, b"access-control-request-method") => FieldId::AcRequestMethod,
        30 if is(name, b"access-control-request-headers") => FieldId::AcRequestHeaders,
        _ if begins(name, b"access-control-") => FieldId::AccessControl,
        _ => FieldId::Other,
    }
}

fn of_x(name: &[u8]) -> FieldId {
    match name.len() {
        9 if is(name, b"x-api-key") => FieldId::XApiKey,
        9 if is(name, b"x-real-ip") => FieldId::XRealIp,
        11 if is(name, b"x-served-by") => FieldId::XServedBy,
        12 if is(name, b"x-request-id") => FieldId::XRequestId,
        12 if is(name, b"x-auth-token") => FieldId::XAuthToken,
        12 if is(name, b"x-proxied-by") => FieldId::XProxiedBy,
        15 if is(name, b"x-forwarded-for") => FieldId::XForwardedFor,
        16 if is(name, b"x-forwarded-host") => FieldId::XForwardedHost,
        17 if is(name, b"x-forwarded-proto") => FieldId::XForwardedProto,
        17 if is(name, b"x-ratelimit-limit") => FieldId::XRateLimit,
        17 if is(name, b"x-ratelimit-reset") => FieldId::XRateLimit,
        21 if is(name, b"x-ratelimit-remaining") => FieldId::XRateLimit,
        _ => FieldId::Other,
    }
}

/// Compares without letter case, many bytes at once. In a token, setting bit 5 changes capital
/// letters and no other byte into one of `lower`.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    let mut different = 0;
    for index in 0..N {
        different |= (name[index] | 0x20) ^ lower[index];
    }
    different == 0
}

/// The same for a table's names, of one length with `name`.
#[inline]
fn matches_lower(name: &[u8], lower: &[u8]) -> bool {
    name.iter()
        .zip(lower)
        .fold(0, |different, (a, b)| different | ((a | 0x20) ^ b))
        == 0
}

fn begins<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    name.get(..N).is_some_and(|start| is(start, lower))
}

/// Whether a field belongs to one connection and is never forwarded, in either direction (RFC 9110
/// 7.6.1; docs/contract/surface.md#4 and docs/contract/surface.md#5.1). Nor are the fields that
/// `Connection` names: [`Nominated`].
pub fn is_hop_by_hop(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyAuthenticate
            | FieldId::ProxyAuthorization
            | FieldId::ProxyConnection
            | FieldId::Te
            | FieldId::Trailer
            | FieldId::TransferEncoding
            | FieldId::Upgrade
    )
}

/// Fields that stay although `Connection` names them. A message without them is another message:
/// a key, a length or the trace of its origin cannot be removed in this way.
fn is_end_to_end(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Host
            | FieldId::ContentLength
            | FieldId::ContentType
            | FieldId::ContentEncoding
            | FieldId::Authorization
            | FieldId::WwwAuthenticate
            | FieldId::XApiKey
            | FieldId::XAuthToken
            | FieldId::XForwardedFor
            | FieldId::XForwardedProto
            | FieldId::XForwardedHost
            | FieldId::XRealIp
            | FieldId::XRequestId
            | FieldId::Via
            | FieldId::Date
            | FieldId::Vary
            | FieldId::Range
            | FieldId::Origin
            | FieldId::RetryAfter
    ) || id.is_access_control()
        || id.is_own()
}

/// What the `Connection` fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
}

impl ConnectionOptions {
    /// Adds the options of one more `Connection` field. `count` is the number of earlier ones;
    /// false: there are too many.
    pub(super) fn add(&mut self, value: &[u8], count: &mut usize) -> bool {
        for item in list_items(value) {
            *count += 1;
            self.close |= item.eq_ignore_ascii_case(b"close");
            self.keep_alive |= item.eq_ignore_ascii_case(b"keep-alive");
        }
        *count <= CONNECTION_OPTIONS_MAX
    }
}

/// The fields that a head's `Connection` fields name, which do not pass. Empty for most heads, and
/// then it costs nothing to ask.
///
/// Make it after the framing was decided: that refuses a head with too many names, which bounds
/// the work here.
#[derive(Clone, Copy, Debug)]
pub struct Nominated<'h> {
    buf: &'h [u8],
    fields: &'h [Field],
    any: bool,
}

impl<'h> Nominated<'h> {
    pub(super) fn new(buf: &'h [u8], fields: &'h [Field], present: FieldSet) -> Self {
        let mut nominated = Self {
            buf,
            fields,
            any: present.has(FieldId::Connection),
        };
        nominated.any = nominated.any && nominated.names().any(|name| !is_option(name));
        nominated
    }

    /// Whether this field of the same head must be left out because `Connection` names it. False
    /// for fields that cannot be removed (`Host`, `Content-Length`, `Authorization`, …).
    pub fn contains(&self, field: &Field) -> bool {
        self.any && !is_end_to_end(field.id) && {
            let name = field.name.of(self.buf);
            self.names()
                .take(CONNECTION_OPTIONS_MAX)
                .any(|named| named.eq_ignore_ascii_case(name))
        }
    }

    fn names(&self) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        let buf = self.buf;
        self.fields
            .iter()
            .filter(|field| field.id == FieldId::Connection)
            .flat_map(move |field| list_items(field.value.of(buf)))
    }
}

fn is_option(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive")
}

/// The members of a comma-separated list (RFC 9110 5.6.1), without the blanks around them; empty
/// ones are passed over. Quoted strings are not looked for: none of the lists read here has any.
pub fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|item| !item.is_empty())
}

/// A value without surrounding spaces and tabs.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::span::OWN_NAMES_MAX;

    const FLAVOUR: FieldId = FieldId::own(0);
    const SESSION: FieldId = FieldId::own(1);
    const ANY_OWN: FieldId = FieldId::own(OWN_NAMES_MAX - 1);

    enum Own {}

    impl FieldNames for Own {
        const NAMES: &'static [(&'static str, FieldId)] =
            &[("x-flavour", FLAVOUR), ("x-own-session-id", SESSION)];
        const PREFIX: Option<(&'static str, FieldId)> = Some(("x-own-", ANY_OWN));
    }

    const NAMES: &[(&str, FieldId)] = &[
        ("Host", FieldId::Host),
        ("Connection", FieldId::Connection),
        ("Content-Length", FieldId::ContentLength),
        ("Transfer-Encoding", FieldId::TransferEncoding),
        ("Keep-Alive", FieldId::KeepAlive),
        ("Proxy-Connection", FieldId::ProxyConnection),
        ("Proxy-Authenticate", FieldId::ProxyAuthenticate),
        ("Proxy-Authorization", FieldId::ProxyAuthorization),
        ("TE", FieldId::Te),
        ("Trailer", FieldId::Trailer),
        ("Upgrade", FieldId::Upgrade),
        ("Expect", FieldId::Expect),
        ("Cookie", FieldId::Cookie),
        ("Set-Cookie", FieldId::SetCookie),
        ("Authorization", FieldId::Authorization),
        ("WWW-Authenticate", FieldId::WwwAuthenticate),
        ("X-Api-Key", FieldId::XApiKey),
        ("X-Auth-Token", FieldId::XAuthToken),
        ("X-Forwarded-For", FieldId::XForwardedFor),
        ("X-Forwarded-Proto", FieldId::XForwardedProto),
        ("X-Forwarded-Host", FieldId::XForwardedHost),
        ("X-Real-IP", FieldId::XRealIp),
        ("X-Proxied-By", FieldId::XProxiedBy),
        ("Via", FieldId::Via),
        ("X-Flavour", FLAVOUR),
        ("X-Request-ID", FieldId::XRequestId),
        ("Date", FieldId::Date),
        ("Server", FieldId::Server),
        ("Content-Type", FieldId::ContentType),
        ("Content-Encoding", FieldId::ContentEncoding),
        ("Vary", FieldId::Vary),
        ("Origin", FieldId::Origin),
        ("Access-Control-Request-Method", FieldId::AcRequestMethod),
        ("Access-Control-Request-Headers", FieldId::AcRequestHeaders),
        ("Access-Control-Allow-Origin", FieldId::AccessControl),
        ("Access-Control-Max-Age", FieldId::AccessControl),
        ("X-RateLimit-Limit", FieldId::XRateLimit),
        ("X-RateLimit-Remaining", FieldId::XRateLimit),
        ("X-RateLimit-Reset", FieldId::XRateLimit),
        ("X-Served-By", FieldId::XServedBy),
        ("X-Own-Session-ID", SESSION),
        ("X-Own-Sessions-ID", ANY_OWN),
        ("X-Own-Mode", ANY_OWN),
        ("X-Own-A", ANY_OWN),
        ("X-Own-Sticky-Key-Source", ANY_OWN),
        ("User-Agent", FieldId::UserAgent),
        ("Referer", FieldId::Referer),
        ("Accept", FieldId::Accept),
        ("Accept-Encoding", FieldId::AcceptEncoding),
        ("If-None-Match", FieldId::IfNoneMatch),
        ("Range", FieldId::Range),
        ("Retry-After", FieldId::RetryAfter),
        ("", FieldId::Other),
        ("X", FieldId::Other),
        ("Content-Lengths", FieldId::Other),
        ("Content_Length", FieldId::Other),
        ("Transfer_Encoding", FieldId::Other),
        ("Hosts", FieldId::Other),
        ("X-RateLimit-Limits", FieldId::Other),
        ("Access-Control", FieldId::Other),
        ("X-Owner-Thing", FieldId::Other),
        ("Accept-Language", FieldId::Other),
    ];

    #[test]
    fn names_are_found_in_any_letter_case() {
        for (name, id) in NAMES {
            for name in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(classify::<Own>(name.as_bytes()), *id, "{name}");
                let without = if id.is_own() { FieldId::Other } else { *id };
                assert_eq!(classify::<NoNames>(name.as_bytes()), without, "{name}");
            }
        }
    }

    #[test]
    fn names_with_a_known_beginning_may_have_any_length() {
        for length in 0..40 {
            let name = format!("x-own-{}", "q".repeat(length));
            assert_eq!(classify::<Own>(name.as_bytes()), ANY_OWN, "{name}");
            let name = format!("access-control-{}", "q".repeat(length));
            assert!(
                classify::<Own>(name.as_bytes()).is_access_control(),
                "{name}"
            );
        }
    }

    #[test]
    fn one_changed_byte_is_another_name() {
        for (name, id) in NAMES.iter().filter(|(_, id)| *id != FieldId::Other) {
            if name.starts_with("X-Own-") || id.is_access_control() {
                continue;
            }
            for at in 0..name.len() {
                let mut changed = name.as_bytes().to_vec();
                changed[at] = b'!';
                let id = classify::<Own>(&changed);
                assert_eq!(id, FieldId::Other, "{name} at {at}");
            }
        }
    }

    #[test]
    fn hop_by_hop_is_never_end_to_end() {
        for (name, id) in NAMES {
            assert!(!(is_hop_by_hop(*id) && is_end_to_end(*id)), "{name}");
        }
    }

    #[test]
    fn lists() {
        let items = |value: &'static str| -> Vec<&str> {
            list_items(value.as_bytes())
                .map(|item| std::str::from_utf8(item).unwrap())
                .collect()
        };
        assert_eq!(items("close"), ["close"]);
        assert_eq!(items(" a ,\tb\t, c d ,,e,"), ["a", "b", "c d", "e"]);
        assert_eq!(items(""), [""; 0]);
        assert_eq!(items(" , ,"), [""; 0]);
    }

    #[test]
    fn too_many_connection_options_are_noticed() {
        let mut options = ConnectionOptions::default();
        let mut count = 0;
        assert!(options.add(&b"a,".repeat(CONNECTION_OPTIONS_MAX), &mut count));
        assert!(!options.add(b"Close", &mut count));
        assert!(options.close && !options.keep_alive);
    }
}
