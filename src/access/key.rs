//! A key in force.
//!
//! Contract: docs/contract/access.md#4

use std::sync::Arc;

use super::{Counters, CountersBook, Policy};
use crate::config::{ANONYMOUS, AdminRight, KeyDigest, KeyFields, KeySource};

/// A client's credential, without its secret. A request keeps it from admission to its end, so that
/// a change of the key hurts no request in progress.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub name: Arc<str>,
    /// The SHA-256 of its secret, or of its token; zeros if it has none.
    pub digest: KeyDigest,
    /// Where it comes from.
    pub source: KeySource,
    /// What it may do, with its own fields.
    pub policy: Arc<Policy>,
    /// Whether it may be used.
    pub enabled: bool,
    /// Milliseconds since 1970 from which it may no longer be used; `None` = never.
    pub expires_ms: Option<u64>,
    /// A remark of its operator.
    pub note: Box<str>,
    /// When it was made, in milliseconds since 1970, if that is known.
    pub created_ms: Option<u64>,
    /// What its name has used.
    pub counters: Arc<Counters>,
}

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// It may.
    Live,
    /// It was switched off.
    Disabled,
    /// Its time is over.
    Expired,
}

impl Key {
    /// A key of these fields. Its counters are those of its name.
    pub(crate) fn new(
        fields: &KeyFields,
        digest: KeyDigest,
        source: KeySource,
        policy: &Arc<Policy>,
        book: &CountersBook,
    ) -> Self {
        Self {
            name: Arc::clone(&fields.name),
            digest,
            source,
            policy: policy.with(fields.overrides.as_deref()),
            enabled: fields.enabled,
            expires_ms: fields.expires_ms,
            note: fields.note.clone(),
            created_ms: None,
            counters: book.of_key(&fields.name),
        }
    }

    /// The key of requests without a credential (docs/contract/access.md#4.5).
    pub(crate) fn anonymous(policy: &Arc<Policy>, book: &CountersBook) -> Self {
        let fields = KeyFields {
            name: Arc::from(ANONYMOUS),
            policy: Arc::clone(&policy.name),
            enabled: true,
            expires_ms: None,
            note: Box::default(),
            overrides: None,
        };
        let none = KeyDigest::from_bytes([0; 32]);
        Self::new(&fields, none, KeySource::Config, policy, book)
    }

    /// The key that a valid token is. It expires with the token.
    pub(crate) fn of_token(
        name: Arc<str>,
        digest: KeyDigest,
        policy: &Arc<Policy>,
        counters: Arc<Counters>,
        expires_ms: u64,
    ) -> Self {
        Self {
            name,
            digest,
            source: KeySource::Jwt,
            policy: Arc::clone(policy),
            enabled: true,
            expires_ms: Some(expires_ms),
            note: Box::default(),
            created_ms: None,
            counters,
        }
    }

    /// Whether it is the key of requests without a credential.
    pub(crate) fn is_anonymous(&self) -> bool {
        &*self.name == ANONYMOUS
    }

    /// Whether it may be used now, in milliseconds since 1970.
    pub(crate) fn state(&self, now_ms: u64) -> KeyState {
        if !self.enabled {
            KeyState::Disabled
        } else if self.expires_ms.is_some_and(|end| end <= now_ms) {
            KeyState::Expired
        } else {
            KeyState::Live
        }
    }

    /// Whether a token stands for it.
    pub(crate) fn is_by_token(&self) -> bool {
        self.source == KeySource::Jwt
    }

    /// Its right to the operator's routes.
    pub(crate) fn admin(&self) -> AdminRight {
        self.policy.fields.admin
    }
}
