use super::*;
use crate::cli::{Remote, Trust};

const SECRET: &str = "olla-EQcCNR6WkewLTwzvKyCmzgNXrUKY4m2ArgyHfhdeokR3gAVw1";
const HASH: &str = "sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7";

fn new(name: &str) -> NewKey {
    NewKey {
        name: name.to_owned(),
        policy: None,
        admin: None,
        expires: None,
        ttl: None,
        note: None,
        set: Vec::new(),
        file: None,
        remote: Remote {
            url: None,
            key_file: None,
            json: false,
            config: None,
            trust: Trust::default(),
        },
    }
}

fn made(new: &NewKey, policies: Option<&[PolicyPlan]>) -> CommandOutput {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(500);
    let secret = SECRET;
    local(new, Fresh { secret, now }, policies)
}

fn set(pairs: &[&str]) -> Vec<String> {
    pairs.iter().map(|pair| (*pair).to_owned()).collect()
}

#[test]
fn an_entry_has_every_field() {
    let key = NewKey {
        policy: Some("dev".to_owned()),
        admin: Some("read".to_owned()),
        ttl: Some("1h".to_owned()),
        note: Some("a \"remark\"".to_owned()),
        set: set(&[
            "tokens_per_day=1000",
            "models=a*, b",
            "endpoints=[\"x\"]",
            "output_limit=refuse",
        ]),
        ..new("alice")
    };
    let want = format!(
        "{SECRET}\n\n[[keys]]\nname = \"alice\"\nhash = \"{HASH}\"\npolicy = \"dev\"\n\
         admin = \"read\"\nexpires = \"1970-01-01T01:00:01Z\"\nnote = 'a \"remark\"'\n\
         tokens_per_day = 1000\nmodels = [\"a*\", \"b\"]\nendpoints = [\"x\"]\n\
         output_limit = \"refuse\"\n"
    );
    let output = made(&key, None);
    assert_eq!((output.code, output.stdout), (0, want));
    let dev = [PolicyPlan::open("dev")];
    assert_eq!(made(&key, Some(&dev)).code, 0);
    let body = remote_body(&key).unwrap();
    assert_eq!(
        (&body["ttl"], &body["tokens_per_day"]),
        (&json!("1h"), &json!(1000))
    );
    let json = NewKey {
        remote: Remote {
            json: true,
            ..new("a").remote
        },
        ..new("alice")
    };
    let value: Value = serde_json::from_str(&made(&json, None).stdout).unwrap();
    let want = json!({"name": "alice", "key": SECRET, "hash": HASH, "policy": "default"});
    assert_eq!(value, want);
}

#[test]
fn what_is_refused_is_named_in_one_line() {
    let table = [
        (new("a b"), "name: expected"),
        (
            NewKey {
                policy: Some("x".to_owned()),
                ..new("a")
            },
            "policy: 'x' is no policy",
        ),
        (
            NewKey {
                ttl: Some("soon".to_owned()),
                ..new("a")
            },
            "--ttl: expected a duration",
        ),
        (
            NewKey {
                expires: Some("tomorrow".to_owned()),
                ..new("a")
            },
            "expires: expected an instant",
        ),
        (
            NewKey {
                set: set(&["tokens_per_day"]),
                ..new("a")
            },
            "--set: expected FIELD=VALUE",
        ),
        (
            NewKey {
                set: set(&["tokens=1"]),
                ..new("a")
            },
            "tokens: expected a field of a key",
        ),
    ];
    for (key, want) in table {
        let output = made(&key, Some(&[PolicyPlan::open("default")]));
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{want}");
        assert!(output.stderr.contains(want), "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1);
    }
}

#[test]
fn a_keys_file_is_made_or_grows() {
    let folder = std::env::temp_dir().join(format!("olla-key-new-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("keys.toml");
    let key = |name| NewKey {
        file: Some(path.clone()),
        ..new(name)
    };
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let output = made(&key("alice"), None);
    assert_eq!((output.code, output.stdout), (0, format!("{SECRET}\n")));
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(made(&key("bob"), None).code, 0);
    assert_eq!(mode(), 0o640);
    let text = std::fs::read_to_string(&path).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let keys = table["keys"].as_array().unwrap();
    let names: Vec<_> = keys
        .iter()
        .map(|key| key["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alice", "bob"]);
    let again = made(&key("bob"), None);
    assert_eq!(again.code, 1);
    assert!(
        again.stderr.contains("a key named 'bob' already"),
        "{}",
        again.stderr
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    std::fs::write(&path, "keys = 1").unwrap();
    assert_eq!(made(&key("carol"), None).code, 1);
    let entries = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(entries, 1, "nothing is left beside the file");
    std::fs::remove_dir_all(&folder).unwrap();
}
