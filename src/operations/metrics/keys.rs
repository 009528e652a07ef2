//! The series of single keys and of their limits.
//!
//! Contract: docs/contract/access.md#16

use std::sync::Arc;

use super::super::Inputs;
use super::exposition::Exposition;
use crate::access::{Key, KeyTotals, OTHER, Span, Total};
use crate::clock::unix_millis;

const COUNTERS: [(&str, &str, Total); 5] = [
    (
        "olla_key_requests_total",
        "Requests that ended, by the name of their key.",
        Total::Requests,
    ),
    (
        "olla_key_errors_total",
        "Requests that failed, by the name of their key.",
        Total::Errors,
    ),
    (
        "olla_key_prompt_tokens_total",
        "Tokens of prompts, by the name of the key.",
        Total::PromptTokens,
    ),
    (
        "olla_key_completion_tokens_total",
        "Tokens generated, by the name of the key.",
        Total::CompletionTokens,
    ),
    (
        "olla_key_limited_total",
        "Requests that a limit refused, by the name of their key.",
        Total::Limited,
    ),
];

/// What is counted of single keys.
pub(super) fn families(text: &mut Exposition, inputs: &Inputs<'_>) {
    let name = "olla_access_limited_total";
    let help = "Requests that a limit of a key or policy refused, by policy and limit.";
    text.family(name, "counter", help);
    for ((policy, field), count) in inputs.limited.all() {
        let labels = [("policy", &*policy), ("limit", field.as_str())];
        text.sample(name, &labels, count);
    }
    let all = inputs.key_series.all();
    let label = |name: &Option<Arc<str>>| name.clone().unwrap_or_else(|| Arc::from(OTHER));
    let named: Vec<(Arc<str>, Arc<KeyTotals>)> = all
        .into_iter()
        .map(|(name, totals)| (label(&name), totals))
        .collect();
    for (name, help, total) in COUNTERS {
        text.family(name, "counter", help);
        for (key, totals) in &named {
            text.sample(name, &[("key", key)], totals.of(total));
        }
    }
    let name = "olla_key_in_progress";
    text.gauge(name, "Requests in progress, by the name of their key.");
    for (key, totals) in &named {
        text.sample(name, &[("key", key)], totals.of(Total::InProgress));
    }
    quotas(text, inputs, &named);
}

/// The quotas of days and months of keys that have one.
fn quotas(text: &mut Exposition, inputs: &Inputs<'_>, named: &[(Arc<str>, Arc<KeyTotals>)]) {
    let access = inputs.access;
    let key_of = |name: &str| -> Option<&Arc<Key>> {
        let anonymous = access.anonymous.as_ref();
        access
            .keys
            .named(name)
            .or_else(|| anonymous.filter(|key| *key.name == *name))
    };
    let limited: Vec<(&Arc<Key>, Span, u64)> = named
        .iter()
        .filter_map(|(name, _)| key_of(name))
        .flat_map(|key| {
            let limits = &key.policy.fields.limits;
            [
                (key, Span::Day, limits.tokens_per_day),
                (key, Span::Month, limits.tokens_per_month),
            ]
        })
        .filter(|(_, _, limit)| *limit > 0)
        .collect();
    let unix_ms = unix_millis(inputs.now);
    let name = "olla_key_quota_used_tokens";
    text.gauge(
        name,
        "Tokens used in the current day or month, reservations included.",
    );
    for (key, span, _) in &limited {
        let labels = [("key", &*key.name), ("span", span.as_str())];
        text.sample(name, &labels, key.counters.used_in(*span, unix_ms).used);
    }
    let name = "olla_key_quota_limit_tokens";
    text.gauge(name, "Tokens that a key may use in a day or month.");
    for (key, span, limit) in &limited {
        let labels = [("key", &*key.name), ("span", span.as_str())];
        text.sample(name, &labels, *limit);
    }
}
