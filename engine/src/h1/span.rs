//! Positions in a head, and the numbers of field names.

use crate::part;

/// Maximum number of names that a program can have ids for, besides those of the engine.
pub(crate) const OWN_NAMES_MAX: u8 = 16;

/// A run of bytes of a buffer, by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub start: u32,
    /// Position after the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes, in the buffer that the span was made for; empty in one that is too short.
    pub fn of<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        part::between(buf, self.start as usize, self.end as usize)
    }

    /// Whether the span is empty.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// The span of `part`, which must be a part of `buf`.
    pub(super) fn within(buf: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(buf.as_ptr().addr()) as u32;
        Self {
            start,
            end: start.wrapping_add(part.len() as u32),
        }
    }
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as it was sent.
    pub name: Span,
    /// The value, without the blanks around it; may be empty.
    pub value: Span,
    /// Which of the known names it is.
    pub id: FieldId,
}

/// Which names occur in a head, so that a look-up of an absent one costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(u64);

impl FieldSet {
    pub(super) fn add(&mut self, id: FieldId) {
        self.0 |= 1 << id.0;
    }

    pub(super) fn has(self, id: FieldId) -> bool {
        self.0 & 1 << id.0 != 0
    }
}

/// A field's name, if it is one that has a number; found once, when the head is indexed. The names
/// that the engine knows are constants; others are numbered by the program ([`FieldId::own`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldId(u8);

/// Numbers names from 0.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[repr(u8)]
        enum Number {
            $($name,)*
            End,
        }

        #[allow(non_upper_case_globals, missing_docs)] // Each is the name that it spells.
        impl FieldId {
            $($(#[$doc])* pub const $name: Self = Self(Number::$name as u8);)*
        }
    };
}

names! {
    Other,
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
    UserAgent,
    Referer,
    Accept,
    AcceptEncoding,
    IfNoneMatch,
    Range,
    RetryAfter,
}

impl FieldId {
    /// One of the ids that a program gives to further names, by its number from 0.
    ///
    /// # Panics
    /// In a constant, where the number is not below [`OWN_NAMES_MAX`].
    pub const fn own(number: u8) -> Self {
        assert!(number < OWN_NAMES_MAX, "more names than there are ids for");
        Self(Number::End as u8 + number)
    }

    /// Whether it is one of those.
    pub const fn is_own(self) -> bool {
        self.0 >= Number::End as u8
    }

    /// Any `Access-Control-*`.
    pub fn is_access_control(self) -> bool {
        matches!(
            self,
            Self::AccessControl | Self::AcRequestMethod | Self::AcRequestHeaders
        )
    }
}

const _: () = assert!(
    (Number::End as u32 + OWN_NAMES_MAX as u32) <= u64::BITS,
    "a bit for each FieldId"
);
