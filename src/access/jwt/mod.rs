//! Tokens (JWT): who an issuer says a client is.
//!
//! [`TokenRules`] are part of [`super::Access`]; the issuer's keys ([`IssuerKeys`]) change on their
//! own and are shared by all cores; each core remembers the tokens that it has found valid
//! ([`TokenChecker`]).
//!
//! Contract: docs/contract/access.md#9

mod check;
mod names;
mod outcomes;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{CountersBook, Key, Policy, find};
use crate::config::{AdminRight, KeyAccessPlan, KeyDigest, KeySet, PolicyOverrides};
use outcomes::{OUTCOMES_MAX, Outcomes};

pub(super) use check::PREFIX as TOKEN_PREFIX;
pub(crate) use check::{TokenFault, is_token};
pub(super) use names::TokenNames;

/// Which tokens are keys.
#[derive(Debug)]
pub(crate) struct TokenRules {
    /// The configuration; a reload replaces it.
    plan: Arc<KeyAccessPlan>,
    /// The policies by name, as tokens have them.
    policies: Vec<Arc<Policy>>,
}

/// Why a token is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// It is refused.
    Fault(TokenFault),
    /// The issuer's keys are not known.
    Unavailable,
}

impl TokenRules {
    /// The rules of a configuration; `None` if it has no issuer.
    pub(super) fn new(plan: &Arc<KeyAccessPlan>, policies: &[Arc<Policy>]) -> Option<Self> {
        let jwt = plan.jwt.as_ref()?;
        let none = PolicyOverrides {
            admin: Some(AdminRight::None),
            ..PolicyOverrides::default()
        };
        let for_tokens = |policy: &Arc<Policy>| {
            let lowers = !jwt.allow_admin && policy.fields.admin != AdminRight::None;
            if lowers {
                policy.with(&none)
            } else {
                Arc::clone(policy)
            }
        };
        Some(Self {
            plan: Arc::clone(plan),
            policies: policies.iter().map(for_tokens).collect(),
        })
    }

    /// The policy of this name, as tokens have it.
    pub(crate) fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        find(&self.policies, name)
    }

    /// Checks a token; `now_ms` is in milliseconds since 1970. The time until which the outcome
    /// holds comes second.
    fn check(
        &self,
        (token, digest): (&[u8], KeyDigest),
        keys: &KeySet,
        (book, now_ms): (&CountersBook, u64),
    ) -> Result<(Arc<Key>, u64), TokenFault> {
        let jwt = self.plan.jwt.as_ref().ok_or(TokenFault::Malformed)?;
        let claims = check::check(token, jwt, keys, now_ms)?;
        let name = claims.policy.as_deref().or(jwt.policy.as_deref());
        let policy = self.policy(name.ok_or(TokenFault::NoPolicy)?);
        let policy = policy.ok_or(TokenFault::UnknownPolicy)?;
        let counters = book.of_token(&claims.name, now_ms);
        let key = Key::of_token(claims.name, digest, policy, counters, claims.expires_ms);
        Ok((Arc::new(key), claims.expires_ms))
    }
}

/// The issuer's keys in force, for all cores.
#[derive(Debug, Default)]
pub(crate) struct IssuerKeys {
    /// Raised with each change.
    version: AtomicU64,
    /// `None` = they are not known, or were known too long ago. Locked to read or replace it only.
    keys: Mutex<Option<Arc<KeySet>>>,
    /// Whether a token with an unknown key is a reason to fetch them, or they are being fetched.
    may_fetch: AtomicBool,
    /// How the fetches went.
    pub fetches: Fetches,
}

/// How the fetches of an issuer's keys went, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    /// Those that brought keys.
    pub ok: AtomicU64,
    /// The others.
    pub failed: AtomicU64,
    /// Whether the last one brought keys.
    pub is_up: AtomicBool,
    /// When the last one did, in seconds since 1970; 0 = never.
    pub last_success_s: AtomicU64,
    /// When the next one is due after one that failed, in milliseconds of the process's clock.
    pub next_try_ms: AtomicU64,
}

impl IssuerKeys {
    /// Replaces the keys.
    pub(crate) fn replace(&self, keys: Option<Arc<KeySet>>) {
        let before = {
            let mut current = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            self.version.fetch_add(1, Ordering::Release);
            std::mem::replace(&mut *current, keys)
        };
        drop(before);
    }

    /// The number of keys in force.
    pub(crate) fn count(&self) -> usize {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().map_or(0, |keys| keys.len())
    }

    /// Whether a token with an unknown key may wait for a fetch.
    pub(crate) fn may_fetch(&self) -> bool {
        self.may_fetch.load(Ordering::Relaxed)
    }

    /// Sets [`Self::may_fetch`].
    pub(crate) fn set_may_fetch(&self, may: bool) {
        self.may_fetch.store(may, Ordering::Relaxed);
    }

    /// The keys, and the version that they have.
    fn current(&self) -> (u64, Option<Arc<KeySet>>) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        (self.version.load(Ordering::Acquire), keys.clone())
    }
}

/// The tokens that a core knows.
#[derive(Debug)]
pub(crate) struct TokenChecker {
    /// The rules and the keys that the outcomes are based on.
    plan: Option<Arc<KeyAccessPlan>>,
    version: u64,
    keys: Option<Arc<KeySet>>,
    outcomes: Outcomes,
}

impl Default for TokenChecker {
    fn default() -> Self {
        Self {
            plan: None,
            version: u64::MAX,
            keys: None,
            outcomes: Outcomes::new(OUTCOMES_MAX),
        }
    }
}

impl TokenChecker {
    /// The key of a token. `now_ms` is in milliseconds since 1970.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(crate) fn check(
        &mut self,
        rules: &TokenRules,
        issuer: &IssuerKeys,
        token: &[u8],
        (book, now_ms): (&CountersBook, u64),
    ) -> Result<Arc<Key>, TokenRefusal> {
        self.follow(rules, issuer);
        let Some(keys) = &self.keys else {
            return Err(TokenRefusal::Unavailable);
        };
        // One too long to be valid is not hashed.
        if token.len() > check::TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Fault(TokenFault::Malformed));
        }
        let digest = KeyDigest::of(token);
        if let Some(key) = self.outcomes.find(&digest, now_ms) {
            return Ok(Arc::clone(key));
        }
        let (key, until_ms) = rules
            .check((token, digest), keys, (book, now_ms))
            .map_err(TokenRefusal::Fault)?;
        if now_ms < until_ms {
            self.outcomes.insert(digest, Arc::clone(&key), until_ms);
        }
        Ok(key)
    }

    /// Forgets the outcomes if the rules or the keys are others than those that they are based on.
    fn follow(&mut self, rules: &TokenRules, issuer: &IssuerKeys) {
        let is_same_plan = self
            .plan
            .as_ref()
            .is_some_and(|plan| Arc::ptr_eq(plan, &rules.plan));
        if is_same_plan && self.version == issuer.version.load(Ordering::Acquire) {
            return;
        }
        (self.version, self.keys) = issuer.current();
        self.plan = Some(Arc::clone(&rules.plan));
        self.outcomes.clear();
    }
}
