//! Keys as the admin API and the state store have them: the fields of a key as a JSON object.
//!
//! Contract: docs/contract/access.md#11.1

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::env::Env;
use super::super::finding::FieldFault;
use super::super::tree::{ConfigNode, ConfigTable, ConfigValue};
use super::super::values;
use super::entry::{self, EntryContext, KeyFields, KeySource, find_policy, is_field};
use super::policy::{DEFAULT_POLICY, PolicyPlan};

/// The fields that only a file may have: they name a secret.
const OF_FILES: [&str; 3] = ["hash", "key", "key_file"];

/// Reads the fields of a key but its secret. Without `policies` any policy is accepted: it may
/// come back.
///
/// # Errors
/// The first wrong field: `FIELD: expected WHAT, got WHAT`.
pub(crate) fn api_key(
    name: &str,
    object: &Map<String, Value>,
    policies: Option<&[PolicyPlan]>,
) -> Result<KeyFields, String> {
    let unknown = |field: &&String| !is_field(field) || OF_FILES.contains(&field.as_str());
    if let Some(field) = object.keys().find(unknown) {
        let printable: String = field.escape_debug().take(64).collect();
        return Err(format!(
            "{printable}: expected a field of a key, got an unknown one"
        ));
    }
    let mut table = table(object);
    table
        .0
        .retain(|(field, _)| field != "name" && field != "policy");
    table.0.push(("name".to_owned(), node(&Value::from(name))));
    let policy = match object.get("policy").unwrap_or(&Value::Null) {
        Value::Null => DEFAULT_POLICY,
        Value::String(policy) => policy,
        other => return Err(format!("policy: expected a string, got {other}")),
    };
    let policy = match policies.map(|all| find_policy(all, policy)) {
        Some(Ok(found)) => Arc::clone(&found.name),
        Some(Err(message)) => return Err(format!("policy: {message}")),
        None => Arc::from(policy),
    };
    let any = [PolicyPlan::open(DEFAULT_POLICY)];
    let context = EntryContext {
        env: &Env::default(),
        folder: Path::new(""),
        policies: &any,
        placeholders: &[],
        source: KeySource::Store,
    };
    let mut faults = Vec::new();
    let fields = entry::fields(&table, context, &mut faults);
    match (fields, faults.first()) {
        (Some(fields), None) => Ok(KeyFields { policy, ..fields }),
        (_, Some(FieldFault { field, message, .. })) => Err(format!("{field}: {message}")),
        (None, None) => Err("name: expected a name".to_owned()),
    }
}

/// A duration of the admin API, as in a configuration.
pub(crate) fn api_duration(text: &str) -> Option<Duration> {
    values::duration(text)
}

fn table(object: &Map<String, Value>) -> ConfigTable {
    let entries = object.iter();
    ConfigTable(
        entries
            .map(|(field, value)| (field.clone(), node(value)))
            .collect(),
    )
}

fn node(value: &Value) -> ConfigNode {
    let value = match value {
        Value::Null => ConfigValue::Null,
        Value::Bool(on) => ConfigValue::Bool(*on),
        Value::Number(number) => match number.as_i128() {
            Some(whole) => ConfigValue::Int(whole),
            None => ConfigValue::Float(number.to_string()),
        },
        Value::String(text) => ConfigValue::Text(text.clone()),
        Value::Array(items) => ConfigValue::List(items.iter().map(node).collect()),
        Value::Object(object) => ConfigValue::Table(table(object)),
    };
    ConfigNode { line: 0, value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::AdminRight;
    use super::*;

    fn read(object: Value) -> Result<KeyFields, String> {
        let policies = [PolicyPlan::open("default"), PolicyPlan::open("dev")];
        api_key("alice", object.as_object().unwrap(), Some(&policies))
    }

    #[test]
    fn fields_are_those_of_a_configuration() {
        let fields = read(json!({
            "policy": "dev", "enabled": false, "expires": "1970-01-01T00:00:01Z", "note": "n",
            "models": ["a*"], "tokens_per_day": 5, "admin": "read", "concurrent": null,
        }))
        .unwrap();
        assert_eq!((&*fields.name, &*fields.policy), ("alice", "dev"));
        assert_eq!((fields.enabled, fields.expires_ms()), (false, Some(1000)));
        let own = fields.overrides.unwrap();
        assert_eq!(own.models, Some(vec!["a*".to_owned()]));
        assert_eq!((own.tokens_per_day, own.concurrent), (Some(5), None));
        assert_eq!(own.admin, Some(AdminRight::Read));
        assert_eq!(&*read(json!({})).unwrap().policy, "default");
        let kept = api_key("a", json!({"policy": "gone"}).as_object().unwrap(), None);
        assert_eq!(&*kept.unwrap().policy, "gone");
    }

    #[test]
    fn the_first_wrong_field_is_named() {
        for (object, want) in [
            (
                json!({"polcy": "x"}),
                "polcy: expected a field of a key, got an unknown one",
            ),
            (
                json!({"key": "x"}),
                "key: expected a field of a key, got an unknown one",
            ),
            (
                json!({"policy": "x"}),
                "policy: 'x' is no policy; there are: default, dev",
            ),
            (json!({"policy": 1}), "policy: expected a string, got 1"),
            (
                json!({"tokens_per_day": -1}),
                "tokens_per_day: expected an integer from 0 to 1000000000000000, got the integer -1",
            ),
            (
                json!({"enabled": "x"}),
                "enabled: expected true or false, got the string \"x\"",
            ),
        ] {
            assert_eq!(read(object).unwrap_err(), want);
        }
        let fault = api_key("a b", &Map::new(), None).unwrap_err();
        assert!(fault.starts_with("name: expected 1 to 64 of"), "{fault}");
    }
}
