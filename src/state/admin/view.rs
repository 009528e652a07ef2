//! Keys and policies as the admin API shows them; never a secret or a hash.
//!
//! Contract: docs/contract/access.md#11.1

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::KeysQuery;
use crate::access::{Access, Key, LimitTime, Policy, report};
use crate::config::{Limits, OutputLimit};
use crate::dialects::Error;
use crate::format;

/// There is no key of this name.
pub(crate) fn not_found(name: &str) -> Error {
    let name: String = name.escape_debug().take(64).collect();
    let message = format!("there is no key named '{name}'");
    Error::new(404, "not_found", "KEY_NOT_FOUND", message)
}

/// A key.
pub(crate) fn key_object(key: &Key, now: LimitTime) -> Map<String, Value> {
    let fields = &key.policy.fields;
    let entries = [
        ("name", json!(*key.name)),
        ("id", json!(key.digest.id())),
        ("source", json!(key.source.as_str())),
        ("policy", json!(*key.policy.name)),
        ("enabled", json!(key.enabled)),
        ("admin", report::admin(fields.admin)),
        ("expires_at", instant(key.expires_ms())),
        ("created_at", instant(key.created_ms())),
        ("last_used_at", instant(key.counters.last_used_ms())),
        ("note", json!(*key.note)),
        ("models", json!(fields.models)),
        ("endpoints", json!(fields.endpoints)),
        ("limits", report::key_limits(fields).into()),
        ("used", report::used(&fields.limits, &key.counters, now)),
    ];
    let entries = entries.into_iter();
    entries
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A listing of keys.
pub(crate) fn keys_page(
    access: &Access,
    query: &KeysQuery,
    (now, limit_time): (SystemTime, LimitTime),
) -> Vec<u8> {
    let is_wanted = |key: &&Arc<Key>| {
        let source = query.source.is_none_or(|source| source == key.source);
        let policy = query.policy.as_ref();
        source && policy.is_none_or(|policy| **policy == *key.policy.name)
    };
    let wanted = || access.keys.all().iter().filter(is_wanted);
    let is_after = |key: &&Arc<Key>| {
        let after = query.after.as_ref();
        after.is_none_or(|after| *key.name > **after)
    };
    let mut rest = wanted().filter(is_after);
    let shown: Vec<_> = rest.by_ref().take(query.limit).collect();
    let next = match shown.last() {
        Some(last) if rest.next().is_some() => json!(*last.name),
        _ => Value::Null,
    };
    let keys: Vec<Value> = shown
        .iter()
        .map(|key| key_object(key, limit_time).into())
        .collect();
    let page = json!({
        "timestamp": format::instant(now),
        "total": wanted().count(),
        "keys": keys,
        "next": next,
    });
    page.to_string().into_bytes()
}

/// A listing of policies.
pub(crate) fn policies_page(access: &Access, now: SystemTime) -> Vec<u8> {
    let policies: Vec<Value> = access
        .policies
        .iter()
        .map(|policy| {
            let keys = access.keys.all().iter();
            let keys = keys.filter(|key| key.policy.name == policy.name).count();
            policy_object(policy, keys)
        })
        .collect();
    let page = json!({"timestamp": format::instant(now), "policies": policies});
    page.to_string().into_bytes()
}

fn policy_object(policy: &Policy, keys: usize) -> Value {
    let fields = &policy.fields;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("name", json!(*policy.name));
    put("models", json!(fields.models));
    put("endpoints", json!(fields.endpoints));
    for (name, limit) in of_limits(&fields.limits) {
        put(name, json!(limit));
    }
    put("max_prompt_tokens", json!(fields.max_prompt_tokens));
    put("max_output_tokens", json!(fields.max_output_tokens));
    let output_limit = match fields.output_limit {
        OutputLimit::Clamp => "clamp",
        OutputLimit::Refuse => "refuse",
    };
    put("output_limit", json!(output_limit));
    put("priority", json!(fields.priority));
    put("weight", json!(fields.weight));
    put("max_wait", json!(fields.max_wait.map(format::duration)));
    put("admin", report::admin(fields.admin));
    put("isolate_cache", json!(fields.isolate_cache));
    let together = of_limits(&policy.together).into_iter();
    let together: Map<String, Value> = together
        .map(|(name, limit)| (name.to_owned(), json!(limit)))
        .collect();
    put("together", together.into());
    put("keys", json!(keys));
    object.into()
}

fn of_limits(limits: &Limits) -> [(&'static str, u64); 5] {
    [
        ("requests_per_minute", limits.requests_per_minute),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("tokens_per_day", limits.tokens_per_day),
        ("tokens_per_month", limits.tokens_per_month),
        ("concurrent", limits.concurrent),
    ]
}

/// Milliseconds since 1970 as an instant, or null.
fn instant(unix_ms: Option<u64>) -> Value {
    let at = |ms| format::instant(UNIX_EPOCH + Duration::from_millis(ms));
    json!(unix_ms.map(at))
}
