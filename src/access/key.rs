//! A key in force.
//!
//! Contract: docs/contract/access.md#4

use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;

use super::{Counters, CountersBook, Policy};
use crate::config::{ANONYMOUS, AdminRight, KeyDigest, KeyFields, KeyPlan, KeySource};

/// A client's credential, without its secret. A request keeps it from admission to its end, so that
/// a change of the key hurts no request in progress.
///
/// It has the fields of its plan, of which the digest is that of the secret or of the token; zeros if
/// it has neither.
#[derive(Debug)]
pub(crate) struct Key {
    plan: Arc<KeyPlan>,
    /// What it may do, with its own fields.
    pub policy: Arc<Policy>,
    /// What its name has used.
    pub counters: Arc<Counters>,
    created: Option<NonZeroU64>,
}

// With its counts of references it takes 48 bytes, of which there may be 200,000 during a change.
const _: () = assert!(size_of::<Key>() == 32);

impl Deref for Key {
    type Target = KeyPlan;

    fn deref(&self) -> &KeyPlan {
        &self.plan
    }
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
    /// The key of a plan. The policy has the key's own fields, the counters are those of its name.
    /// `created_ms` is when it was made, in milliseconds since 1970, if that is known.
    pub(crate) fn new(
        plan: &Arc<KeyPlan>,
        policy: Arc<Policy>,
        counters: Arc<Counters>,
        created_ms: Option<u64>,
    ) -> Self {
        Self {
            plan: Arc::clone(plan),
            policy,
            counters,
            created: created_ms.and_then(NonZeroU64::new),
        }
    }

    /// The key of requests without a credential (docs/contract/access.md#4.5).
    pub(crate) fn anonymous(policy: &Arc<Policy>, book: &CountersBook) -> Self {
        let fields = KeyFields::new(Arc::from(ANONYMOUS), Arc::clone(&policy.name));
        let counters = book.of_key(&fields.name);
        let plan = KeyPlan {
            fields,
            digest: KeyDigest::from_bytes([0; 32]),
            source: KeySource::Config,
        };
        Self::new(&Arc::new(plan), Arc::clone(policy), counters, None)
    }

    /// The key that a valid token is. It expires with the token.
    pub(crate) fn of_token(
        name: Arc<str>,
        digest: KeyDigest,
        policy: &Arc<Policy>,
        counters: Arc<Counters>,
        expires_ms: u64,
    ) -> Self {
        let plan = KeyPlan {
            fields: KeyFields {
                expires: NonZeroU64::new(expires_ms.max(1)),
                ..KeyFields::new(name, Arc::clone(&policy.name))
            },
            digest,
            source: KeySource::Jwt,
        };
        Self::new(&Arc::new(plan), Arc::clone(policy), counters, None)
    }

    /// What it was made of.
    pub(super) fn plan(&self) -> &Arc<KeyPlan> {
        &self.plan
    }

    /// When it was made, in milliseconds since 1970, if that is known.
    pub(crate) fn created_ms(&self) -> Option<u64> {
        self.created.map(NonZeroU64::get)
    }

    /// Whether it is the key of requests without a credential.
    pub(crate) fn is_anonymous(&self) -> bool {
        &*self.name == ANONYMOUS
    }

    /// Whether it may be used now, in milliseconds since 1970.
    pub(crate) fn state(&self, now_ms: u64) -> KeyState {
        if !self.enabled {
            KeyState::Disabled
        } else if self.expires_ms().is_some_and(|end| end <= now_ms) {
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
