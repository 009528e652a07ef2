//! The families of the state store.
//!
//! Contract: docs/contract/access.md#16

use super::exposition::Exposition;

/// How the state store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StateFacts {
    /// Whether it can be written; `None` = there is none.
    pub is_up: Option<bool>,
    /// Rows of usage that are in memory only.
    pub pending_rows: u64,
    /// Failures since the start.
    pub errors: u64,
    /// Responses that reported a usage which cannot be one.
    pub usage_rejected: u64,
}

pub(super) fn families(text: &mut Exposition, facts: StateFacts) {
    let name = "olla_state_up";
    text.gauge(
        name,
        "Whether the state store can be written; no sample without one.",
    );
    if let Some(is_up) = facts.is_up {
        text.sample(name, &[], u64::from(is_up));
    }
    let name = "olla_state_pending_rows";
    text.gauge(name, "Rows of the usage ledger that are in memory only.");
    text.sample(name, &[], facts.pending_rows);
    let name = "olla_state_errors_total";
    text.family(name, "counter", "Failures of the state store.");
    text.sample(name, &[], facts.errors);
    let name = "olla_usage_rejected_total";
    let help = "Responses whose reported token counts are negative, fractional or too large.";
    text.family(name, "counter", help);
    text.sample(name, &[], facts.usage_rejected);
}
