//! A key's limits and what it has used, as clients and operators see them.
//!
//! Contract: docs/contract/access.md#11.2

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{Counters, Key, LimitTime, Span};
use crate::config::{AdminRight, Limits, PolicyFields};
use crate::format;

/// What a client sees of its own key.
pub(crate) fn own_view(key: &Key, now: LimitTime) -> Vec<u8> {
    let fields = &key.policy.fields;
    let expires = key
        .expires_ms()
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let mut view = json!({
        "name": *key.name,
        "source": key.source.as_str(),
        "policy": *key.policy.name,
        "admin": admin(fields.admin),
        "expires_at": expires.map(format::instant),
        "models": fields.models,
        "endpoints": fields.endpoints,
        "limits": key_limits(fields),
        "used": used(&fields.limits, &key.counters, now),
    });
    let policy = &key.policy;
    if let (Some(counters), Some(view)) = (&policy.counters, view.as_object_mut()) {
        let together = json!({
            "limits": limits(&policy.together),
            "used": used(&policy.together, counters, now),
        });
        view.insert("together".to_owned(), together);
    }
    view.to_string().into_bytes()
}

/// The right to the operator's routes.
pub(crate) fn admin(right: AdminRight) -> Value {
    match right {
        AdminRight::None => json!(false),
        AdminRight::Read => json!("read"),
        AdminRight::Full => json!(true),
    }
}

/// The limits of a key; null = none.
pub(crate) fn key_limits(fields: &PolicyFields) -> Map<String, Value> {
    let mut limits = limits(&fields.limits);
    for (name, value) in [
        ("max_prompt_tokens", fields.max_prompt_tokens),
        ("max_output_tokens", fields.max_output_tokens),
    ] {
        limits.insert(name.to_owned(), limit(value));
    }
    limits
}

/// What was used of limits: tokens of windows are counted whether limited or not, those of the
/// minute are what is missing in its bucket.
pub(crate) fn used(limits: &Limits, counters: &Counters, now: LimitTime) -> Value {
    let missing = |limit: u64, bucket: &super::bucket::Bucket| match limit {
        0 => 0,
        _ => bucket.level(limit, now.micros).used(),
    };
    let window = |span| counters.used_in(span, now.unix_ms).used;
    json!({
        "requests_per_minute": missing(limits.requests_per_minute, &counters.requests),
        "tokens_per_minute": missing(limits.tokens_per_minute, &counters.tokens),
        "tokens_per_day": window(Span::Day),
        "tokens_per_month": window(Span::Month),
        "concurrent": counters.in_progress(),
    })
}

/// Limits; null = none.
fn limits(limits: &Limits) -> Map<String, Value> {
    let all = [
        ("requests_per_minute", limits.requests_per_minute),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("tokens_per_day", limits.tokens_per_day),
        ("tokens_per_month", limits.tokens_per_month),
        ("concurrent", limits.concurrent),
    ];
    let shown = all
        .into_iter()
        .map(|(name, value)| (name.to_owned(), limit(value)));
    shown.collect()
}

fn limit(value: u64) -> Value {
    match value {
        0 => Value::Null,
        value => json!(value),
    }
}
