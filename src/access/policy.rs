//! A policy in force: permissions and limits of a key, and the counters of all keys together.
//!
//! Contract: docs/contract/access.md#5

use std::sync::Arc;

use super::{Counters, CountersBook};
use crate::config::{Limits, PolicyFields, PolicyOverrides, PolicyPlan};

/// What a key may do: a policy, with a key's own fields in place of the policy's where it has some.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The name of the policy.
    pub name: Arc<str>,
    /// Permissions and limits of one key.
    pub fields: PolicyFields,
    /// The limits of all keys of the policy together.
    pub together: Limits,
    /// What those are counted by; `None` = there are none.
    pub counters: Option<Arc<Counters>>,
}

impl Policy {
    /// The policy of a configuration.
    pub(crate) fn new(plan: &PolicyPlan, book: &CountersBook) -> Self {
        let is_limited = plan.together != Limits::default();
        Self {
            name: Arc::clone(&plan.name),
            fields: plan.fields.clone(),
            together: plan.together,
            counters: is_limited.then(|| book.of_policy(&plan.name)),
        }
    }

    /// Whether it is the policy of this configuration.
    pub(super) fn is_of(&self, plan: &PolicyPlan) -> bool {
        self.fields == plan.fields && self.together == plan.together
    }

    /// The policy with a key's own fields.
    pub(super) fn with(&self, own: &PolicyOverrides) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(&self.name),
            fields: self.fields.with(own),
            together: self.together,
            counters: self.counters.clone(),
        })
    }
}
