//! `config.toml` is the reference of the configuration: every key with its default, its variable and
//! one remark, from the declarations in `src/config`.
//!
//! This test writes the file. After a change of a key run
//! `OLLA_WRITE_REFERENCE=1 cargo test --test config_reference`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use olla::bench::config::{
    ConfigInputs, Env, FileFormat, KeyDoc, Loaded, NameFilter, TypeName, plan_from_str, reference,
};

const WIDTH: usize = 100;

const ENDPOINTS: &str = "discovery.static.endpoints[]";

/// The values of the built-in endpoint.
const BUILT_IN: [(&str, &str); 3] = [
    ("discovery.static.endpoints[].name", "\"localhost\""),
    (
        "discovery.static.endpoints[].url",
        "\"http://localhost:11434\"",
    ),
    ("discovery.static.endpoints[].type", "\"ollama\""),
];

/// Examples of keys without a default, which the file shows in comments.
const EXAMPLES: [(&str, &str); 31] = [
    ("server.tls.cert_file", "\"cert.pem\""),
    ("server.tls.key_file", "\"key.pem\""),
    (
        "server.rate_limits.per_endpoint.overrides",
        "{ gpu-1 = 60 }",
    ),
    (
        "model_aliases",
        "[\"llama3.1:70b\", \"meta-llama/Llama-3.1-70B\"]",
    ),
    ("profiles", "{}"),
    (
        "discovery.static.endpoints[].health_check_url",
        "\"/health\"",
    ),
    ("discovery.static.endpoints[].model_url", "\"/v1/models\""),
    ("discovery.static.endpoints[].dialects", "[\"openai-chat\"]"),
    (
        "discovery.static.endpoints[].headers",
        "{ X-Team = \"${TEAM:-none}\" }",
    ),
    ("discovery.static.endpoints[].auth.type", "\"bearer\""),
    (
        "discovery.static.endpoints[].auth.token",
        "\"${GPU_TOKEN}\"",
    ),
    (
        "discovery.static.endpoints[].auth.token_file",
        "\"/run/secrets/gpu\"",
    ),
    ("discovery.static.endpoints[].auth.key", "\"${GPU_KEY}\""),
    (
        "discovery.static.endpoints[].auth.key_file",
        "\"/run/secrets/key\"",
    ),
    ("discovery.static.endpoints[].auth.username", "\"olla\""),
    (
        "discovery.static.endpoints[].auth.username_file",
        "\"/run/secrets/user\"",
    ),
    (
        "discovery.static.endpoints[].auth.password",
        "\"${GPU_PASSWORD}\"",
    ),
    (
        "discovery.static.endpoints[].auth.password_file",
        "\"/run/secrets/password\"",
    ),
    ("discovery.static.endpoints[].auth.header", "\"X-Api-Key\""),
    ("discovery.static.endpoints[].tls.ca_file", "\"ca.pem\""),
    ("access.keys[].name", "\"alice\""),
    (
        "access.keys[].hash",
        "\"sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7\"",
    ),
    ("access.keys[].key", "\"${ALICE_KEY}\""),
    ("access.keys[].key_file", "\"/run/secrets/alice\""),
    ("access.keys[].expires", "\"2026-12-31T00:00:00Z\""),
    ("access.keys[].max_wait", "\"30s\""),
    ("access.policies.NAME.max_wait", "\"30s\""),
    (
        "access.jwt.issuer",
        "\"https://login.example.org/realms/ai\"",
    ),
    ("access.jwt.audience", "[\"olla\"]"),
    (
        "access.jwt.jwks_url",
        "\"https://login.example.org/realms/ai/protocol/openid-connect/certs\"",
    ),
    ("access.jwt.jwks_file", "\"jwks.json\""),
];

/// Sections that are there only when they are written: the file shows them in comments.
const OPTIONAL: [&str; 4] = [
    "access.keys[]",
    "access.policies.NAME",
    "access.policies.NAME.together",
    "access.jwt",
];

const TITLE: &str = "\
# The reference configuration: every key with its default. A configuration file needs only the
# keys that it changes. `olla check -c FILE` validates a file; `olla import olla.yaml` converts one
# of Olla's.
#
# Values of the file override the defaults; environment variables (in brackets behind a key)
# override the file. A list replaces the default list. Durations are strings of numbers with the
# units ns, us, ms, s, m and h (\"1h30m\"). Sizes are bytes, or strings with a unit (\"10MB\"; units
# count by 1024). Keys in comments have no default and show an example.
";

#[test]
fn config_toml_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let want = rendered();
    if std::env::var_os("OLLA_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let differs = text
        .lines()
        .zip(want.lines())
        .enumerate()
        .find(|(_, (is, want))| is != want);
    if let Some((at, (is, want))) = differs {
        panic!(
            "config.toml:{}: is\n  {is}\nshould be\n  {want}\n(see the head of this test)",
            at + 1
        );
    }
    assert_eq!(
        text.lines().count(),
        want.lines().count(),
        "see the head of this test"
    );
}

#[test]
fn config_toml_means_the_defaults() {
    let text = reference_file();
    let (given, default) = (load(&text), load(""));
    assert_eq!(given.findings, []);
    assert_eq!(given.plan.unwrap(), default.plan.unwrap());
}

#[test]
fn config_toml_has_every_key_and_no_other() {
    let text = reference_file();
    let shown = keys(&text);
    let is_key = |doc: &&KeyDoc| !doc.path.is_empty() && !is_free(&doc.path);
    let declared = reference()
        .iter()
        .filter(is_key)
        .map(|doc| doc.path.clone());
    assert_eq!(shown, declared.collect::<BTreeSet<_>>());
    for doc in reference().iter().filter(|doc| doc.path.is_empty()) {
        assert!(text.contains(doc.env.unwrap()), "{doc:?}");
    }
}

#[test]
fn examples_are_accepted() {
    for (path, example) in &EXAMPLES {
        let text = match path.split_once("[].") {
            Some((list, key)) => format!("[[{list}]]\n{key} = {example}\n"),
            None if is_free(path) => format!("{path}.x = {example}\n"),
            None => format!("{path} = {example}\n"),
        };
        let loaded = load(&text);
        // These examples are valid only together with other keys.
        let own = |key: &str| key.replace("[0]", "[]") == *path;
        let faults: Vec<_> = loaded
            .findings
            .iter()
            .filter(|f| own(&f.key))
            .map(ToString::to_string)
            .filter(|f| {
                !["cannot read", "is not set"]
                    .iter()
                    .any(|why| f.contains(why))
            })
            .filter(|f| !f.contains("the key is missing"))
            .collect();
        assert_eq!(faults, [""; 0], "{text}");
        assert!(loaded.findings.iter().all(|f| !f.unknown_key), "{text}");
    }
}

fn reference_file() -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    std::fs::read_to_string(path).unwrap()
}

fn load(text: &str) -> Loaded {
    let env = Env::default();
    let types = [TypeName {
        written: "ollama".to_owned(),
        canonical: "ollama".to_owned(),
    }];
    let admits = |_: &NameFilter, _: &str| true;
    let inputs = ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    };
    plan_from_str(
        text,
        FileFormat::Toml,
        Some(Path::new("config.toml")),
        &inputs,
    )
}

/// Whether a table may have any keys.
fn is_free(table: &str) -> bool {
    ["model_aliases", "profiles"].contains(&table)
}

/// The paths of all keys in the text, including those in comments.
fn keys(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(header) = line
            .strip_prefix("[[")
            .and_then(|line| line.strip_suffix("]]"))
        {
            section = format!("{header}[]");
        } else if let Some(header) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = header.to_owned();
        } else if !is_free(&section)
            && let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with(' '))
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

fn rendered() -> String {
    let mut out = TITLE.to_owned();
    let keys = || reference().iter().filter(|doc| !doc.path.is_empty());
    let mut sections: Vec<&str> = Vec::new();
    for doc in keys() {
        let section = section_of(doc);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        let header = match section.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{section}]"),
        };
        let mark = if is_optional(section) { "#" } else { "" };
        let _ = writeln!(out, "\n{mark}{header}");
        for doc in keys().filter(|doc| section_of(doc) == section) {
            key(&mut out, doc, section);
        }
    }
    out.push_str("\n# Environment variables without a key:\n");
    for doc in reference().iter().filter(|doc| doc.path.is_empty()) {
        let default = if doc.default.is_empty() {
            String::new()
        } else {
            format!(" Default {}.", doc.default)
        };
        let effect = if doc.inert {
            " Accepted for compatibility, no effect."
        } else {
            ""
        };
        let name = doc.env.unwrap_or_default();
        comment(&mut out, &format!("{name}: {}{default}{effect}", doc.doc));
    }
    out
}

fn is_optional(section: &str) -> bool {
    OPTIONAL.contains(&section)
}

/// The table of a key. Tables of an endpoint are written inside it.
fn section_of(doc: &KeyDoc) -> &str {
    if doc.path.starts_with(ENDPOINTS) {
        return ENDPOINTS;
    }
    doc.path
        .rsplit_once('.')
        .map_or(doc.path.as_str(), |(section, _)| section)
}

fn key(out: &mut String, doc: &KeyDoc, section: &str) {
    let mut notes: Vec<String> = doc.env.map(str::to_owned).into_iter().collect();
    if doc.restart {
        notes.push("restart required".to_owned());
    }
    if doc.inert {
        notes.push("accepted for compatibility, no effect".to_owned());
    }
    if doc.inert_in_yaml {
        notes.push("no effect in a YAML file".to_owned());
    }
    let mut remark = doc.doc.to_owned();
    if let Some(words) = doc
        .kind
        .strip_prefix("one of ")
        .or(doc.kind.strip_prefix("a list, each one of "))
    {
        let _ = write!(remark, " One of {words}.");
    }
    if !notes.is_empty() {
        let _ = write!(remark, " [{}]", notes.join(", "));
    }
    comment(out, &remark);
    let name = doc
        .path
        .strip_prefix(section)
        .unwrap_or(&doc.path)
        .trim_start_matches('.');
    let of = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(path, _)| *path == doc.path)
            .map(|(_, value)| *value)
    };
    let line = if doc.path == "model_aliases" {
        format!("#\"gpt-4\" = {}", of(&EXAMPLES).unwrap_or_default())
    } else if is_free(&doc.path) {
        format!("#vllm = {}", of(&EXAMPLES).unwrap_or_default())
    } else if let Some(value) = of(&BUILT_IN) {
        format!("{name} = {value}")
    } else if let Some(value) = of(&EXAMPLES) {
        format!("#{name} = {value}")
    } else if is_optional(section) {
        format!("#{name} = {}", doc.default)
    } else {
        assert!(
            !doc.default.is_empty(),
            "{} has neither a default nor an example",
            doc.path
        );
        format!("{name} = {}", doc.default)
    };
    let _ = writeln!(out, "{line}");
}

/// A comment, broken into lines at spaces.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
