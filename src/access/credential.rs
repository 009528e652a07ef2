//! Where a request has its credentials, and which of them counts.
//!
//! Contract: docs/contract/access.md#3.1

use std::sync::Arc;

use olla_engine::h1::{FieldId, RequestHead};

use super::secret::is_made_here;
use super::{Access, Key, KeyState};
use crate::config::KeyDigest;

/// The longest secret.
const SECRET_BYTES_MAX: usize = 256;

/// The header that has no number of its own in the index of a head.
const API_KEY: &[u8] = b"api-key";

/// The scheme of `Authorization` that is a credential.
const BEARER: &[u8] = b"bearer";

/// The credentials of a request, in the order in which they are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a>([Option<&'a [u8]>; 3]);

impl<'a> Credentials<'a> {
    /// The credentials of a request. Of a header that stands several times the first counts.
    pub(crate) fn of(head: &RequestHead, bytes: &'a [u8]) -> Self {
        let first = |name: &[u8]| {
            let mut fields = head.fields.iter();
            let field = fields.find(|field| {
                field.id == FieldId::Other && field.name.of(bytes).eq_ignore_ascii_case(name)
            });
            field.map(|field| field.value.of(bytes).trim_ascii())
        };
        Self([
            head.get(bytes, FieldId::Authorization).and_then(bearer),
            head.get(bytes, FieldId::XApiKey).map(<[u8]>::trim_ascii),
            first(API_KEY),
        ])
    }

    /// Those that are one: neither empty nor a placeholder.
    fn given(self, access: &Access) -> impl Iterator<Item = &'a [u8]> {
        let given = self.0.into_iter().flatten();
        given.filter(|value| !access.is_placeholder(value))
    }
}

/// Whether a header holds a credential of a client, so that no endpoint gets it.
pub(crate) fn holds_credential(id: FieldId, name: &[u8]) -> bool {
    match id {
        FieldId::Authorization | FieldId::XApiKey => true,
        FieldId::Other => name.eq_ignore_ascii_case(API_KEY),
        _ => false,
    }
}

/// The value behind `Bearer`, in any letter case and with any number of blanks.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(BEARER.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(BEARER)
        && rest.first().is_none_or(|next| matches!(next, b' ' | b'\t'));
    is_bearer.then(|| rest.trim_ascii())
}

/// The key that a request came with.
#[derive(Debug)]
pub(crate) enum Identified {
    /// No credential was sent.
    None,
    /// The first of its credentials that is live.
    Live {
        /// Its key.
        key: Arc<Key>,
        /// Whether no rate of attempts could have guessed it: a secret made here, or a token.
        is_unguessable: bool,
    },
    /// None of its credentials is live; this is about the first.
    Refused(RefusedKey),
}

/// A credential that was refused.
#[derive(Debug)]
pub(crate) struct RefusedKey {
    /// Why.
    pub because: KeyFault,
    /// The hash of the credential, whose id logs show.
    pub digest: KeyDigest,
}

/// Why a credential is refused.
#[derive(Debug)]
pub(crate) enum KeyFault {
    /// No key has it.
    Unknown,
    /// The key's time is over.
    Expired(Arc<Key>),
    /// The key was switched off.
    Disabled(Arc<Key>),
    /// The token is not valid, and why (docs/contract/access.md#9).
    Token(Box<str>),
    /// Tokens cannot be checked now.
    TokensUnavailable,
}

impl Access {
    /// The key of a request's credentials; `now_ms` in milliseconds since 1970. `token` judges a
    /// credential that is a token, and returns `None` for all others.
    pub(crate) fn identify(
        &self,
        credentials: Credentials<'_>,
        now_ms: u64,
        mut token: impl FnMut(&[u8]) -> Option<Result<Arc<Key>, KeyFault>>,
    ) -> Identified {
        let mut first = None;
        for value in credentials.given(self) {
            let judged = match token(value) {
                Some(judged) => judged.map_err(|because| RefusedKey {
                    because,
                    digest: KeyDigest::of(value),
                }),
                None => self.secret(value, now_ms),
            };
            match judged {
                Ok(key) => {
                    let is_unguessable = key.is_by_token() || is_made_here(value);
                    return Identified::Live {
                        key,
                        is_unguessable,
                    };
                }
                Err(refused) => {
                    first.get_or_insert(refused);
                }
            }
        }
        first.map_or(Identified::None, Identified::Refused)
    }

    /// The key of a secret.
    pub(crate) fn secret(&self, value: &[u8], now_ms: u64) -> Result<Arc<Key>, RefusedKey> {
        let digest = KeyDigest::of(value);
        let refused = |because| RefusedKey { because, digest };
        // All bytes are looked at, several at a time.
        let is_graphic = |all, byte: &u8| all & byte.is_ascii_graphic();
        let is_secret = value.len() <= SECRET_BYTES_MAX && value.iter().fold(true, is_graphic);
        let Some(key) = self.keys.find(&digest, now_ms).filter(|_| is_secret) else {
            return Err(refused(KeyFault::Unknown));
        };
        match key.state(now_ms) {
            KeyState::Live => Ok(Arc::clone(key)),
            KeyState::Disabled => Err(refused(KeyFault::Disabled(Arc::clone(key)))),
            KeyState::Expired => Err(refused(KeyFault::Expired(Arc::clone(key)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_in_any_letter_case_with_any_blanks() {
        let table: [(&str, Option<&str>); 10] = [
            ("Bearer k", Some("k")),
            ("bearer  \t k ", Some("k")),
            ("BEARER k", Some("k")),
            ("Bearer a b", Some("a b")),
            ("Bearer", Some("")),
            ("Bearer ", Some("")),
            ("Bearerk", None),
            ("Basic k", None),
            ("k", None),
            ("", None),
        ];
        for (value, want) in table {
            assert_eq!(
                bearer(value.as_bytes()),
                want.map(str::as_bytes),
                "{value:?}"
            );
        }
    }
}
