use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::access::AccessKeeper;
use crate::config::{Env, FileFormat, plan_from_str};

const CONFIG: &str = "\
[access]
enabled = true
[access.policies.dev]
tokens_per_day = 5
[[access.keys]]
name = \"root\"
hash = \"sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7\"
";

const ROOT_HASH: &str = "sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7";

/// 2026-11-30T00:00:00Z.
const NOW_MS: u64 = 1_795_996_800_000;

fn record(name: &str, byte: u8, fields: &str) -> KeyRecord {
    KeyRecord {
        name: name.to_owned(),
        hash: [byte; 32],
        old: None,
        created_ms: 1,
        last_used_ms: None,
        fields: fields.to_owned(),
    }
}

/// A gateway with a key of the configuration and one of the store.
fn keeper() -> AccessKeeper {
    let env = Env::default();
    let inputs = crate::config::ConfigInputs {
        env: &env,
        cwd: std::path::Path::new("."),
        types: &[],
        admits: &|_, _| true,
    };
    let loaded = plan_from_str(CONFIG, FileFormat::Toml, None, &inputs);
    let plan = loaded.plan.unwrap();
    let keeper = AccessKeeper::new(&plan.access);
    let alice = stored_key(&record("alice", 1, r#"{"policy":"dev"}"#)).unwrap();
    keeper.change(|sources| sources.stored = Arc::new(vec![alice]));
    keeper
}

fn with<R>(check: impl FnOnce(&ChangeContext<'_>) -> R) -> R {
    let keeper = keeper();
    let (access, sources) = (keeper.newest(), keeper.sources());
    check(&ChangeContext {
        access: &access,
        sources: &sources,
        now_ms: NOW_MS,
    })
}

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[test]
fn a_new_key_has_a_secret_or_brings_its_hash() {
    with(|context| {
        let made = context
            .create(&body(
                json!({"name": "bob", "policy": "dev", "ttl": "1h", "note": null}),
            ))
            .unwrap();
        let secret = made.secret.unwrap();
        let digest = KeyDigest::of(secret.expose().as_bytes());
        assert_eq!(made.record.hash, *digest.as_bytes());
        assert_eq!(made.record.created_ms, NOW_MS);
        let fields = r#"{"policy":"dev","expires":"2026-11-30T01:00:00Z"}"#;
        assert_eq!(made.record.fields, fields);
        let stored = stored_key(&made.record).unwrap();
        assert_eq!(stored.plan.expires_ms(), Some(NOW_MS + 3_600_000));
        let hash = format!("sha256:{}", "0a".repeat(32));
        let made = context
            .create(&body(json!({"name": "carol", "hash": hash})))
            .unwrap();
        assert!(made.secret.is_none());
        assert_eq!((made.record.hash, &*made.record.fields), ([10; 32], "{}"));
    });
}

#[test]
fn refusals_name_what_is_wrong() {
    let hash_of_alice = format!("sha256:{}", "01".repeat(32));
    let hash_of_a_placeholder = KeyDigest::of(b"EMPTY").stored();
    let table = [
        (
            json!([]),
            "INVALID_FIELD",
            "the body: expected a JSON object, got another value",
        ),
        (
            json!({}),
            "INVALID_FIELD",
            "name: expected a name, but the field is missing",
        ),
        (
            json!({"name": 1}),
            "INVALID_FIELD",
            "name: expected a string, got 1",
        ),
        (
            json!({"name": "b", "ttl": "1h", "expires": "2027-01-01T00:00:00Z"}),
            "INVALID_FIELD",
            "ttl: expected ttl or expires, got both",
        ),
        (
            json!({"name": "b", "ttl": "soon"}),
            "INVALID_FIELD",
            "ttl: expected a duration such as \"720h\", got \"soon\"",
        ),
        (
            json!({"name": "b", "polcy": "dev"}),
            "INVALID_FIELD",
            "polcy: expected a field of a key, got an unknown one",
        ),
        (
            json!({"name": "b", "hash": "secret"}),
            "INVALID_FIELD",
            "hash: expected \"sha256:\" and 64 hex digits, got (hidden)",
        ),
        (
            json!({"name": "b", "hash": hash_of_a_placeholder}),
            "INVALID_FIELD",
            "hash: expected a secret that is not in access.placeholders, got (hidden)",
        ),
        (
            json!({"name": "alice"}),
            "KEY_EXISTS",
            "there is a key named 'alice' already",
        ),
        (
            json!({"name": "root"}),
            "KEY_EXISTS",
            "there is a key named 'root' already",
        ),
        (
            json!({"name": "b", "hash": ROOT_HASH}),
            "KEY_EXISTS",
            "there is a key with this secret already",
        ),
        (
            json!({"name": "b", "hash": hash_of_alice}),
            "KEY_EXISTS",
            "there is a key with this secret already",
        ),
    ];
    with(|context| {
        for (value, code, message) in table {
            let error = context.create(&body(value)).unwrap_err();
            assert_eq!((error.code, &*error.message), (code, message));
            assert_eq!(error.status, if code == "KEY_EXISTS" { 409 } else { 400 });
        }
        let error = context.create(b"{\"name\":").unwrap_err();
        assert_eq!(error.code, "INVALID_FIELD");
        assert_eq!(context.state_of("alice"), NameState::Stored);
        assert_eq!(
            context.state_of("root"),
            NameState::ReadOnly(KeySource::Config)
        );
        assert_eq!(context.state_of("bob"), NameState::Unknown);
    });
}

#[test]
fn a_change_replaces_and_removes_fields() {
    let alice = || record("alice", 1, r#"{"policy":"dev","note":"n","concurrent":3}"#);
    with(|context| {
        let change = |value| context.change(alice(), &body(value));
        let made = change(json!({"note": "x", "concurrent": null, "enabled": false})).unwrap();
        let fields = r#"{"policy":"dev","note":"x","enabled":false}"#;
        assert_eq!(made.record.fields, fields);
        assert_eq!((made.record.hash, made.secret.is_none()), ([1; 32], true));
        for (value, want) in [
            (
                json!({"name": "b"}),
                "name: expected no such field in a change; make a new key",
            ),
            (
                json!({"hash": null}),
                "hash: expected no such field in a change; rotate the key",
            ),
            (
                json!({"polcy": null}),
                "polcy: expected a field of a key, got an unknown one",
            ),
            (
                json!({"policy": "x"}),
                "policy: 'x' is no policy; there are: default, dev",
            ),
        ] {
            assert_eq!(change(value).unwrap_err().message, want);
        }
    });
}

#[test]
fn a_rotated_secret_may_stay_valid_for_a_time() {
    let alice = || record("alice", 1, "{}");
    with(|context| {
        let rotate = |value| context.rotate(alice(), &body(value));
        let made = rotate(json!({"grace": "2s"})).unwrap();
        assert_eq!(made.record.old, Some(([1; 32], NOW_MS + 2000)));
        assert_ne!(made.record.hash, [1; 32]);
        assert!(made.secret.is_some());
        assert_eq!(rotate(json!({})).unwrap().record.old, None);
        for (value, code) in [
            (json!({"grace": "721h"}), "INVALID_FIELD"),
            (json!({"grace": 5}), "INVALID_FIELD"),
            (json!({"policy": "dev"}), "INVALID_FIELD"),
            (json!({"hash": ROOT_HASH}), "KEY_EXISTS"),
        ] {
            assert_eq!(rotate(value).unwrap_err().code, code);
        }
    });
}
