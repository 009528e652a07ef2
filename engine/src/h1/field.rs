//! Names of fields that matter somewhere, lists, and what belongs to one connection only. It makes
//! no decision about framing.

use super::head::{Field, FieldSet};
use crate::limits::CONNECTION_OPTIONS_MAX;

/// A field's name, as far as anyone asks for it; found once, when the head is indexed.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // Each is the name that it spells.
pub enum FieldId {
    /// Any name that is not among the others.
    #[default]
    Other = 0,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    Upgrade,
    Expect,
    Cookie,
    SetCookie,
    Authorization,
    WwwAuthenticate,
    XApiKey,
    XAuthToken,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XRealIp,
    XProxiedBy,
    Via,
    XModel,
    XRequestId,
    Date,
    Server,
    ContentType,
    ContentEncoding,
    Vary,
    Origin,
    /// `Access-Control-Request-Method`.
    AcRequestMethod,
    /// `Access-Control-Request-Headers`.
    AcRequestHeaders,
    /// Any other `Access-Control-*`.
    AccessControl,
    /// `X-RateLimit-Limit`, `-Remaining` or `-Reset`.
    XRateLimit,
    XServedBy,
    XOllaSessionId,
    XOllaEndpoint,
    /// Any other `X-Olla-*`.
    XOlla,
    UserAgent,
    Referer,
    Accept,
    AcceptEncoding,
    IfNoneMatch,
    Range,
    RetryAfter,
}

impl FieldId {
    /// Looks a name up, in any letter case. `name` is a token, as the name of an indexed field
    /// is; for other bytes the answer is some id.
    pub fn classify(name: &[u8]) -> Self {
        let Some(first) = name.first() else {
            return Self::Other;
        };
        // Length and first letter leave one candidate, and rarely two.
        match (name.len(), first | 0x20) {
            (2, b't') if is(name, b"te") => Self::Te,
            (3, b'v') if is(name, b"via") => Self::Via,
            (4, b'h') if is(name, b"host") => Self::Host,
            (4, b'd') if is(name, b"date") => Self::Date,
            (4, b'v') if is(name, b"vary") => Self::Vary,
            (5, b'r') if is(name, b"range") => Self::Range,
            (6, b'a') if is(name, b"accept") => Self::Accept,
            (6, b'c') if is(name, b"cookie") => Self::Cookie,
            (6, b'e') if is(name, b"expect") => Self::Expect,
            (6, b'o') if is(name, b"origin") => Self::Origin,
            (6, b's') if is(name, b"server") => Self::Server,
            (7, b'r') if is(name, b"referer") => Self::Referer,
            (7, b't') if is(name, b"trailer") => Self::Trailer,
            (7, b'u') if is(name, b"upgrade") => Self::Upgrade,
            (10, b'c') if is(name, b"connection") => Self::Connection,
            (10, b'k') if is(name, b"keep-alive") => Self::KeepAlive,
            (10, b's') if is(name, b"set-cookie") => Self::SetCookie,
            (10, b'u') if is(name, b"user-agent") => Self::UserAgent,
            (11, b'r') if is(name, b"retry-after") => Self::RetryAfter,
            (12, b'c') if is(name, b"content-type") => Self::ContentType,
            (13, b'a') if is(name, b"authorization") => Self::Authorization,
            (13, b'i') if is(name, b"if-none-match") => Self::IfNoneMatch,
            (14, b'c') if is(name, b"content-length") => Self::ContentLength,
            (15, b'a') if is(name, b"accept-encoding") => Self::AcceptEncoding,
            (16, b'c') if is(name, b"content-encoding") => Self::ContentEncoding,
            (16, b'p') if is(name, b"proxy-connection") => Self::ProxyConnection,
            (16, b'w') if is(name, b"www-authenticate") => Self::WwwAuthenticate,
            (17, b't') if is(name, b"transfer-encoding") => Self::TransferEncoding,
            (18, b'p') if is(name, b"proxy-authenticate") => Self::ProxyAuthenticate,
            (19, b'p') if is(name, b"proxy-authorization") => Self::ProxyAuthorization,
            (15.., b'a') => Self::of_access_control(name),
            (7.., b'x') => Self::of_x(name),
            _ => Self::Other,
        }
    }

    fn of_access_control(name: &[u8]) -> Self {
        match name.len() {
            29 if is(name, b"access-control-request-method") => Self::AcRequestMethod,
            30 if is(name, b"access-control-request-headers") => Self::AcRequestHeaders,
            _ if begins(name, b"access-control-") => Self::AccessControl,
            _ => Self::Other,
        }
    }

    fn of_x(name: &[u8]) -> Self {
        match name.len() {
            7 if is(name, b"x-model") => Self::XModel,
            9 if is(name, b"x-api-key") => Self::XApiKey,
            9 if is(name, b"x-real-ip") => Self::XRealIp,
            11 if is(name, b"x-served-by") => Self::XServedBy,
            12 if is(name, b"x-request-id") => Self::XRequestId,
            12 if is(name, b"x-auth-token") => Self::XAuthToken,
            12 if is(name, b"x-proxied-by") => Self::XProxiedBy,
            15 if is(name, b"x-forwarded-for") => Self::XForwardedFor,
            15 if is(name, b"x-olla-endpoint") => Self::XOllaEndpoint,
            16 if is(name, b"x-forwarded-host") => Self::XForwardedHost,
            17 if is(name, b"x-forwarded-proto") => Self::XForwardedProto,
            17 if is(name, b"x-olla-session-id") => Self::XOllaSessionId,
            17 if is(name, b"x-ratelimit-limit") => Self::XRateLimit,
            17 if is(name, b"x-ratelimit-reset") => Self::XRateLimit,
            21 if is(name, b"x-ratelimit-remaining") => Self::XRateLimit,
            _ if begins(name, b"x-olla-") => Self::XOlla,
            _ => Self::Other,
        }
    }

    /// Any `Access-Control-*`.
    pub fn is_access_control(self) -> bool {
        matches!(
            self,
            Self::AccessControl | Self::AcRequestMethod | Self::AcRequestHeaders
        )
    }

    /// Any `X-Olla-*`.
    pub fn is_x_olla(self) -> bool {
        matches!(
            self,
            Self::XOlla | Self::XOllaSessionId | Self::XOllaEndpoint
        )
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

fn begins<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    name.get(..N).is_some_and(|start| is(start, lower))
}

/// Whether a field belongs to one connection and never passes, in either direction (RFC 9110
/// 7.6.1; contract: surface 4 and 5.1). The names in `Connection` do not pass either:
/// [`Nominated`].
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
/// nobody may take a key, a length or the trace of its origin out of it in this way.
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
            | FieldId::XModel
            | FieldId::Via
            | FieldId::Date
            | FieldId::Vary
            | FieldId::Range
            | FieldId::Origin
            | FieldId::RetryAfter
    ) || id.is_access_control()
        || id.is_x_olla()
}

/// What the `Connection` fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
}

impl ConnectionOptions {
    /// Takes the options of one more `Connection` field in. `count` is how many came before;
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
    /// for what nobody can take out (`Host`, `Content-Length`, `Authorization`, …).
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

/// A value without the blanks and tabs around it.
pub fn trim(value: &[u8]) -> &[u8] {
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ("X-Model", FieldId::XModel),
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
        ("X-Olla-Session-ID", FieldId::XOllaSessionId),
        ("X-Olla-Endpoint", FieldId::XOllaEndpoint),
        ("X-Olla-Model", FieldId::XOlla),
        ("X-Olla-Mode", FieldId::XOlla),
        ("X-Olla-A", FieldId::XOlla),
        ("X-Olla-Abc", FieldId::XOlla),
        ("X-Olla-Request-ID", FieldId::XOlla),
        ("X-Olla-Sticky-Key-Source", FieldId::XOlla),
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
        ("X-Ollama-Thing", FieldId::Other),
        ("Accept-Language", FieldId::Other),
    ];

    #[test]
    fn names_are_found_in_any_letter_case() {
        for (name, id) in NAMES {
            for name in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(FieldId::classify(name.as_bytes()), *id, "{name}");
            }
        }
    }

    #[test]
    fn every_x_olla_name_of_any_length_is_one() {
        for length in 0..40 {
            let name = format!("x-olla-{}", "q".repeat(length));
            assert!(FieldId::classify(name.as_bytes()).is_x_olla(), "{name}");
            let name = format!("access-control-{}", "q".repeat(length));
            assert!(
                FieldId::classify(name.as_bytes()).is_access_control(),
                "{name}"
            );
        }
    }

    #[test]
    fn one_changed_byte_is_another_name() {
        for (name, id) in NAMES.iter().filter(|(_, id)| *id != FieldId::Other) {
            if id.is_x_olla() || id.is_access_control() {
                continue;
            }
            for at in 0..name.len() {
                let mut changed = name.as_bytes().to_vec();
                changed[at] = b'!';
                assert_eq!(
                    FieldId::classify(&changed),
                    FieldId::Other,
                    "{name} at {at}"
                );
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
