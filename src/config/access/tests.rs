//! `[access]` and `[state]`: what is accepted, what is refused, and that no finding shows a secret.

use std::path::Path;

use super::*;
use crate::config::{ConfigInputs, FileFormat, Loaded, NameFilter, Severity, plan_from_str};

const SECRET: &str = "s3cret-of-alice-0123456789";
const HASH: &str = "sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7";

fn load_in(cwd: &Path, text: &str, env: &[(&str, &str)]) -> Loaded {
    let env = Env::of(env.iter().copied());
    let admits = |_: &NameFilter, _: &str| true;
    let inputs = ConfigInputs {
        env: &env,
        cwd,
        types: &[],
        admits: &admits,
    };
    let text = format!("{text}\n[discovery.static]\nendpoints = []\n");
    let loaded = plan_from_str(&text, FileFormat::Toml, Some(Path::new("o.toml")), &inputs);
    for finding in loaded.findings.iter().chain(&loaded.notes) {
        let line = finding.to_string();
        let shown = env
            .verbatim("ALICE")
            .into_iter()
            .chain(env.verbatim("OLLA_ADMIN_KEY"));
        for secret in shown
            .filter(|secret| secret.len() > 8)
            .chain([SECRET, HASH, &HASH[7..]])
        {
            assert!(!line.contains(secret), "{line}");
        }
    }
    loaded
}

fn load(text: &str, env: &[(&str, &str)]) -> Loaded {
    load_in(Path::new("."), text, env)
}

/// The lines of errors and warnings but the one that there is no endpoint.
fn lines(loaded: &Loaded) -> Vec<String> {
    let own = loaded
        .findings
        .iter()
        .filter(|finding| !finding.message.contains("no endpoint"));
    own.map(ToString::to_string).collect()
}

#[track_caller]
fn accepted(text: &str, env: &[(&str, &str)]) -> KeyAccessPlan {
    let loaded = load(text, env);
    assert_eq!(lines(&loaded), [""; 0], "{text}");
    loaded.plan.unwrap().access.as_ref().clone()
}

#[track_caller]
fn refused(text: &str, key: &str, words: &[&str]) {
    let loaded = load(text, &[("ALICE", SECRET), ("SHORT", "ollama")]);
    let errors: Vec<_> = loaded.errors().collect();
    let [error] = errors[..] else {
        panic!("{text}\n{:#?}", lines(&loaded));
    };
    assert_eq!(error.key, key, "{text}");
    let line = error.to_string();
    for word in words {
        assert!(line.contains(word), "{text}\n{line}\n{word}");
    }
    assert!(loaded.plan.is_none());
}

fn keyed(fields: &str) -> String {
    format!(
        "[access]\nenabled = true\n[access.policies.dev]\nmodels = [\"llama*\"]\n\
         [[access.keys]]\nname = \"root\"\nhash = \"sha256:{}\"\nadmin = true\n\
         [[access.keys]]\n{fields}\n",
        "0".repeat(64)
    )
}

#[test]
fn a_key_has_the_fields_of_its_entry() {
    let text = keyed(
        "name = \"alice\"\nkey = \"${ALICE}\"\npolicy = \"dev\"\nexpires = \"2026-01-31T01:00:00+01:00\"\n\
         note = \"a\"\ntokens_per_day = 7\nadmin = \"read\"\nmax_wait = \"3s\"\nenabled = false",
    );
    let access = accepted(&text, &[("ALICE", SECRET)]);
    let [_, alice] = &access.keys[..] else {
        panic!("{:?}", access.keys);
    };
    assert_eq!(alice.digest, KeyDigest::of(SECRET.as_bytes()));
    assert_eq!(&*alice.fields.policy, "dev");
    assert_eq!(alice.expires_ms(), Some(1_769_817_600_000));
    assert_eq!((&*alice.fields.note, alice.fields.enabled), ("a", false));
    let own = alice.fields.overrides.as_ref().unwrap();
    let fields = access.policy("dev").unwrap().fields.with(own);
    assert_eq!(fields.models, ["llama*"]);
    assert_eq!(fields.limits.tokens_per_day, 7);
    assert_eq!(fields.admin, AdminRight::Read);
    assert_eq!(fields.max_wait, Some(Duration::from_secs(3)));
    let names: Vec<_> = access.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["default", "dev"]);
}

#[test]
fn wrong_keys_are_refused() {
    let hash = format!("hash = \"{HASH}\"");
    let table = [
        (
            "hash = \"sha256:12\"\nname = \"a\"",
            "hash",
            &["64 hex digits", "(hidden)"][..],
        ),
        (&hash, "name", &["missing"]),
        (&format!("name = \"a b\"\n{hash}"), "name", &["\"a b\""]),
        (
            &format!("name = \"anonymous\"\n{hash}"),
            "name",
            &["other than"],
        ),
        (
            &format!("name = \"{}\"\n{hash}", "n".repeat(65)),
            "name",
            &["1 to 64"],
        ),
        (
            &format!("name = \"root\"\n{hash}"),
            "name",
            &["access.keys[0]"],
        ),
        ("name = \"a\"", "hash", &["exactly one", "none"]),
        (
            &format!("name = \"a\"\nkey = \"${{ALICE}}\"\n{hash}"),
            "hash",
            &["hash and key"],
        ),
        (
            "name = \"a\"\nkey = \"s3cret-of-alice-0123456789\"",
            "key",
            &["${VAR}", "(hidden)"],
        ),
        (
            "name = \"a\"\nkey = \"x${ALICE}\"",
            "key",
            &["nothing around"],
        ),
        (
            "name = \"a\"\nkey = \"${ALICE}${ALICE}\"",
            "key",
            &["nothing around"],
        ),
        (
            "name = \"a\"\nkey = \"${NONE}\"",
            "key",
            &["NONE is not set"],
        ),
        (
            "name = \"a\"\nkey = \"${SHORT}\"",
            "key",
            &["16 to 256", "(hidden)"],
        ),
        (
            "name = \"a\"\nkey_file = \"missing.key\"",
            "key_file",
            &["cannot read"],
        ),
        (
            &format!("name = \"a\"\npolicy = \"dve\"\n{hash}"),
            "policy",
            &[
                "'dve' is no policy; there are: default, dev",
                "did you mean \"dev\"",
            ],
        ),
        (
            &format!("name = \"a\"\nexpires = \"2026-01-31\"\n{hash}"),
            "expires",
            &["2026-01-31"],
        ),
        (
            &format!("name = \"a\"\nexpires = \"2026-01-31T00:00:00\"\n{hash}"),
            "expires",
            &["instant"],
        ),
        (
            &format!("name = \"a\"\nenabled = \"no\"\n{hash}"),
            "enabled",
            &["true or false"],
        ),
        (
            &format!("name = \"a\"\npriority = 10\n{hash}"),
            "priority",
            &["0 to 9", "10"],
        ),
        (
            &format!("name = \"a\"\nadmin = \"full\"\n{hash}"),
            "admin",
            &["\"read\""],
        ),
        (
            &format!("name = \"a\"\nendpoints = []\n{hash}"),
            "endpoints",
            &["at least one"],
        ),
        (
            &format!("name = \"a\"\nmodels = [\"!\"]\n{hash}"),
            "models",
            &["globs"],
        ),
        (
            &format!("name = \"a\"\ntokens_per_day = 1000000000000001\n{hash}"),
            "tokens_per_day",
            &["1000000000000000"],
        ),
        (
            &format!("name = \"a\"\nconcurrent = -1\n{hash}"),
            "concurrent",
            &["-1"],
        ),
    ];
    for (fields, key, words) in table {
        refused(&keyed(fields), &format!("access.keys[1].{key}"), words);
    }
    let zeros = format!("name = \"a\"\nhash = \"sha256:{}\"", "0".repeat(64));
    refused(
        &keyed(&zeros),
        "access.keys[1]",
        &["access.keys[0]", "(hidden)"],
    );
}

#[test]
fn wrong_settings_are_refused() {
    let on = "[access]\nenabled = true\nanonymous = \"default\"\n";
    let table = [
        (
            "[access]\nenabled = true",
            "access.enabled",
            &["every request would be refused"][..],
        ),
        (
            "[access]\nenabled = true\nanonymous = \"dve\"",
            "access.anonymous",
            &["'dve'"],
        ),
        (
            "[access]\nenabled = true\nanonymous = \"a\"\n[access.policies.a]\nadmin = true",
            "access.anonymous",
            &["without admin"],
        ),
        (
            "[access.policies.\"a b\"]",
            "access.policies.\"a b\"",
            &["name"],
        ),
        ("[access.policies]\na = 3", "access.policies.a", &["table"]),
        (
            "[access.policies.a]\nweight = 0",
            "access.policies.a.weight",
            &["1 to 1000"],
        ),
        (
            "[access.policies.a.together]\nconcurrent = \"x\"",
            "access.policies.a.together.concurrent",
            &["\"x\""],
        ),
        (
            "[access]\nsession_ttl = \"10s\"",
            "access.session_ttl",
            &["1m"],
        ),
        (
            "[access]\nmax_refused_per_minute = 100001",
            "access.max_refused_per_minute",
            &[],
        ),
        (
            "[access]\ndefault_output_tokens = 0",
            "access.default_output_tokens",
            &[],
        ),
        (
            "[access]\nplaceholders = [\"\"]",
            "access.placeholders[0]",
            &[],
        ),
        (
            "[access.jwt]\naudience = \"a\"\njwks_url = \"https://x/y\"",
            "access.jwt.issuer",
            &[],
        ),
        (
            "[access.jwt]\nissuer = \"i\"\njwks_url = \"https://x/y\"",
            "access.jwt.audience",
            &[],
        ),
        (
            "[access.jwt]\nissuer = \"i\"\naudience = \"a\"",
            "access.jwt.jwks_url",
            &["neither"],
        ),
        (
            "[access.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"http://x/y\"",
            "access.jwt.jwks_url",
            &["https"],
        ),
        (
            "[access.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://u:p@x/y\"",
            "access.jwt.jwks_url",
            &["without credentials"],
        ),
        (
            "[access.jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://i/k\"\nalgorithms = [\"HS256\"]",
            "access.jwt.algorithms[0]",
            &["HS256"],
        ),
        (
            "[state]\nretention_days = 0",
            "state.retention_days",
            &["3650"],
        ),
    ];
    for (text, key, words) in table {
        refused(text, key, words);
    }
    let loaded = load(on, &[("OLLA_ADMIN_KEY", "short")]);
    let line = loaded.errors().next().unwrap().to_string();
    assert!(
        line.starts_with("OLLA_ADMIN_KEY: error: expected a secret"),
        "{line}"
    );
}

#[test]
fn the_environment_sets_its_part() {
    let env = [
        ("OLLA_ACCESS_ENABLED", "true"),
        ("OLLA_ADMIN_KEY", "0123456789abcdef"),
        ("OLLA_ACCESS_ANONYMOUS", "default"),
        ("OLLA_ACCESS_JWT_ISSUER", "https://issuer"),
        ("OLLA_ACCESS_JWT_AUDIENCE", "a, b"),
        ("OLLA_ACCESS_JWT_JWKS_URL", "http://127.0.0.1:9/k"),
        ("OLLA_STATE_PATH", "olla.db"),
    ];
    let loaded = load("", &env);
    assert_eq!(lines(&loaded), [""; 0]);
    let plan = loaded.plan.unwrap();
    let [admin] = &plan.access.keys[..] else {
        panic!("{:?}", plan.access.keys);
    };
    assert_eq!(
        (&*admin.fields.name, admin.source),
        (ENV_ADMIN, KeySource::Env)
    );
    assert!(admin.is_admin(&plan.access.policies));
    assert_eq!(plan.access.anonymous.as_deref(), Some("default"));
    let jwt = plan.access.jwt.as_ref().unwrap();
    assert_eq!(jwt.audience, ["a", "b"]);
    assert_eq!(jwt.jwks, JwksSource::Url("http://127.0.0.1:9/k".into()));
    assert_eq!(plan.state.path.unwrap().shown, Path::new("olla.db"));
}

#[test]
fn a_repeated_admin_key_and_access_that_is_off() {
    let text = keyed("name = \"env-admin\"\nkey = \"${ALICE}\"");
    let loaded = load(
        &text,
        &[("ALICE", SECRET), ("OLLA_ADMIN_KEY", "0123456789abcdef")],
    );
    let line = loaded.errors().next().unwrap().to_string();
    assert!(line.contains("access.keys[1]"), "{line}");
    // Nothing of keys is read while access is off.
    let off = text.replace("enabled = true", "enabled = false");
    assert_eq!(accepted(&off, &[]).keys.len(), 0);
}

#[test]
fn warnings_of_what_an_operator_may_overlook() {
    let text = "[access]\nenabled = true\nanonymous = \"default\"\n\
                [access.policies.a]\ntokens_per_day = 1\n";
    let loaded = load(text, &[]);
    let own: Vec<_> = loaded
        .findings
        .iter()
        .filter(|f| f.key.starts_with("access"))
        .collect();
    assert_eq!(own.len(), 2, "{own:#?}");
    assert!(
        own.iter()
            .all(|finding| finding.severity == Severity::Warning)
    );
    let unknown = load(
        "[access.policies.a]\nmodel = [\"x\"]\n[access.policies.a.together]\nwight = 1",
        &[],
    );
    let keys: Vec<_> = unknown
        .findings
        .iter()
        .filter(|f| f.unknown_key)
        .map(|f| &f.key)
        .collect();
    assert_eq!(keys.len(), 2, "{:#?}", unknown.findings);
    assert!(keys.iter().any(|key| *key == "access.policies.a.model"));
}

/// A folder for the files of one test.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("olla-access-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_keys_file_is_read_beside_the_configuration() {
    let folder = folder("file");
    let file = folder.join("keys.toml");
    let config = "[access]\nenabled = true\nkeys_file = \"keys.toml\"\n";
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        load_in(&folder, config, &[])
    };
    let key = |name: &str, digit: &str| {
        format!(
            "[[keys]]\nname = \"{name}\"\nhash = \"sha256:{}\"\nadmin = true\n",
            digit.repeat(64)
        )
    };
    let loaded = read(&(key("a", "0") + &key("b", "1")));
    assert_eq!(lines(&loaded), [""; 0]);
    let access = loaded.plan.unwrap().access.as_ref().clone();
    let keys = access.keys_file.as_ref().unwrap().keys.take();
    assert_eq!(keys.len(), 2);
    let again = |known: &[Arc<KeyPlan>]| {
        let read = access.read_keys_file(&Env::default(), known).unwrap();
        read.map(|(keys, warnings)| {
            assert_eq!(warnings.len(), 0);
            keys
        })
    };
    assert_eq!(again(&[]).unwrap(), *keys);
    // What has not changed is shared.
    let shared = |keys: &[Arc<KeyPlan>], other: &[Arc<KeyPlan>]| {
        let pairs = keys.iter().zip(other);
        pairs.map(|(a, b)| Arc::ptr_eq(a, b)).collect::<Vec<_>>()
    };
    assert_eq!(shared(&again(&keys).unwrap(), &keys), [true, true]);
    std::fs::write(&file, key("b", "1") + &key("a", "2")).unwrap();
    let other = again(&keys).unwrap();
    assert!(Arc::ptr_eq(&other[0], &keys[1]) && !Arc::ptr_eq(&other[1], &keys[0]));
    assert!(Arc::ptr_eq(&other[1].name, &keys[0].name));
    let table = [
        (
            key("a", "0") + &key("a", "1"),
            "keys.toml:5: error: keys[1].name",
            "keys[0]",
        ),
        (
            key("a", "0") + &key("b", "0"),
            "keys.toml:5: error: keys[1]",
            "keys[0]",
        ),
        (
            key("a", "0") + "policy = \"x\"\n",
            "keys.toml:5: error: keys[0].policy",
            "(key \"a\")",
        ),
        (
            format!("x = 1\n{}", key("a", "0")),
            "keys.toml:1: error: x",
            "[[keys]]",
        ),
        (
            "[[keys]\n".to_owned(),
            "keys.toml:1: error: access.keys_file: syntax",
            "",
        ),
    ];
    for (text, start, word) in table {
        let loaded = read(&text);
        let error = loaded.errors().next().unwrap().to_string();
        assert!(error.starts_with(start) && error.contains(word), "{error}");
        assert!(again(&[]).is_err());
    }
    let unknown = read(&(key("a", "0") + "colour = 1\n"));
    assert!(
        unknown
            .findings
            .iter()
            .any(|f| f.unknown_key && f.key == "keys[0].colour")
    );
    std::fs::remove_file(&file).unwrap();
    let gone = load_in(&folder, config, &[]);
    assert_eq!(gone.errors().next().unwrap().key, "access.keys_file");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_long_keys_file_is_read_in_parts() {
    let folder = folder("long");
    let config = "[access]\nenabled = true\nanonymous = \"default\"\nkeys_file = \"keys.toml\"\n";
    let read = |text: &str| {
        std::fs::write(folder.join("keys.toml"), text).unwrap();
        load_in(&folder, config, &[])
    };
    let key = |number: usize| {
        let hash = KeyDigest::of(number.to_string().as_bytes()).stored();
        format!("[[keys]]\nname = \"k{number}\"\nhash = \"{hash}\"\n")
    };
    let mut text: String = (0..2_500).map(key).collect();
    let file = |loaded: &Loaded| {
        loaded
            .plan
            .as_ref()
            .unwrap()
            .access
            .keys_file
            .clone()
            .unwrap()
    };
    let keys = file(&read(&text)).keys.take();
    assert_eq!((keys.len(), &*keys[2_499].fields.name), (2_500, "k2499"));
    // A note may look like an entry where a part would end.
    let tricky = text.replacen(
        "name = \"k999\"",
        "note = \'\'\'\n[[keys]]\n\'\'\'\nname = \"k999\"",
        1,
    );
    let keys = file(&read(&tricky)).keys.take();
    assert_eq!((keys.len(), &*keys[999].fields.note), (2_500, "[[keys]]\n"));
    text.push_str(&key(7));
    let repeated = read(&text);
    let line = repeated.errors().next().unwrap().to_string();
    assert!(
        line.starts_with("keys.toml:7501: error: keys[2500].name"),
        "{line}"
    );
    assert!(line.contains("other than that of keys[7]"), "{line}");
    text.push_str("x\n");
    let wrong = read(&text);
    assert_eq!(wrong.errors().next().unwrap().key, "access.keys_file");
    std::fs::remove_dir_all(&folder).unwrap();
}
