//! Access: the client of a request, its key, and what the key allows.
//!
//! Everything here is pure or atomic: no I/O, no clock. [`Access`] is immutable and part of each
//! snapshot; [`Counters`] are what outlives snapshots.
//!
//! Contract: docs/contract/access.md, docs/contract/surface.md#10.3

mod book;
mod bucket;
mod client;
mod counters;
mod credential;
pub(crate) mod estimate;
mod headers;
mod jwt;
mod keeper;
mod key;
mod keys;
pub(crate) mod names;
pub(crate) mod output;
mod policy;
pub(crate) mod quota;
mod refused;
pub(crate) mod report;
mod secret;
mod series;
mod session;
mod window;

use std::sync::Arc;

pub(crate) use book::CountersBook;
pub(crate) use client::{Client, is_trusted_proxy, named_by_proxy};
pub(crate) use counters::Counters;
pub(crate) use credential::{Credentials, Identified, KeyFault, RefusedKey, holds_credential};
pub(crate) use headers::{LIMIT_HEADERS, LimitHeaderForm, is_limit_header, write_limits};
pub(crate) use jwt::{IssuerKeys, TokenChecker, TokenFault, TokenRefusal, TokenRules, is_token};
pub(crate) use keeper::{AccessKeeper, KeySources, by_name};
pub(crate) use key::{Key, KeyState};
pub(crate) use keys::{Keys, StoredKey};
pub(crate) use policy::Policy;
pub(crate) use quota::{LimitField, LimitOf, LimitTime, OverLimit, Reservation, ShownLimit};
pub(crate) use refused::{Attempt, LogTurn, RefusedKeys};
pub(crate) use secret::{NewSecret, is_made_here};
pub(crate) use series::{KeySeries, KeyTotals, LimitCounts, OTHER, Total};
pub(crate) use session::{COOKIE, DashboardSession, Sessions, is_own_origin, session_cookie};
pub(crate) use window::{Span, Use};

use crate::config::{KeyAccessPlan, KeyPlan};

/// Keys, policies and settings: one state of them, of which each snapshot holds one.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// If false, everything else is empty and nothing of it counts.
    pub enabled: bool,
    /// All keys but those of tokens.
    pub keys: Keys,
    /// The policies, by name.
    pub policies: Vec<Arc<Policy>>,
    /// The key of requests without a credential, if they are admitted.
    pub anonymous: Option<Arc<Key>>,
    /// Which tokens are keys; `None` = none.
    pub tokens: Option<TokenRules>,
    /// Values that are no credentials.
    pub placeholders: Vec<Box<str>>,
    /// The output that is assumed of a request that states none.
    pub default_output_tokens: u64,
    /// Refused credentials a minute and address; 0 = no limit.
    pub max_refused_per_minute: u32,
}

/// What one state of the keys is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessSources<'a> {
    /// The configuration.
    pub plan: &'a Arc<KeyAccessPlan>,
    /// The keys of the keys file.
    pub file: &'a [Arc<KeyPlan>],
    /// The keys of the state store.
    pub stored: &'a [StoredKey],
    /// The counters of names.
    pub book: &'a CountersBook,
}

impl Access {
    /// Builds the state of these sources. What has not changed since `before` is shared with it. A
    /// stored key of which another source has the name or the hash is left aside. The counters of
    /// names that are gone stay in the book.
    pub(crate) fn build(sources: &AccessSources<'_>, before: &Self) -> Self {
        let plan = sources.plan;
        if !plan.enabled {
            before
                .keys
                .all()
                .iter()
                .for_each(|key| sources.book.keep(key));
            return Self::default();
        }
        let policies: Vec<Arc<Policy>> = plan
            .policies
            .iter()
            .map(|plan| {
                let same = before
                    .policy(&plan.name)
                    .filter(|policy| policy.is_of(plan));
                let new = || Arc::new(Policy::new(plan, sources.book));
                same.map_or_else(new, Arc::clone)
            })
            .collect();
        let anonymous = plan.anonymous.as_ref().and_then(|name| {
            let policy = find(&policies, name)?;
            Some(Arc::new(Key::anonymous(policy, sources.book)))
        });
        Self {
            enabled: true,
            keys: Keys::build(sources, &policies, before),
            tokens: TokenRules::new(plan, &policies),
            policies,
            anonymous,
            placeholders: plan
                .placeholders
                .iter()
                .map(|text| Box::from(text.as_str()))
                .collect(),
            default_output_tokens: plan.default_output_tokens,
            max_refused_per_minute: plan.max_refused_per_minute,
        }
    }

    /// The policy of this name.
    pub(crate) fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        find(&self.policies, name)
    }

    /// Whether a value of a credential header is none.
    pub(crate) fn is_placeholder(&self, value: &[u8]) -> bool {
        value.is_empty()
            || self
                .placeholders
                .iter()
                .any(|text| text.as_bytes() == value)
    }
}

/// The policy of a name in a list that is sorted by name.
pub(super) fn find<'p>(policies: &'p [Arc<Policy>], name: &str) -> Option<&'p Arc<Policy>> {
    let at = policies.binary_search_by(|policy| (*policy.name).cmp(name));
    at.ok().and_then(|at| policies.get(at))
}
