//! The sources of a configuration: paths, both formats, unknown keys, and the comparison at a reload.

use super::*;
use crate::config::finding::Origin;
use crate::config::load::DEFAULT_PATHS;

/// A temporary working directory, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("olla-config-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("config")).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(path), text).unwrap();
    }

    fn load(&self, named: Option<&str>, env: &[(&str, &str)]) -> Loaded {
        let env = Env::of(env.iter().copied());
        let types = types();
        let inputs = ConfigInputs {
            env: &env,
            cwd: &self.0,
            types: &types,
            admits: &admits,
        };
        load(named.map(Path::new), &inputs)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_file_is_the_named_one_or_the_first_that_exists() {
    let folder = Folder::new("paths");
    let port = |named, env: &[(&str, &str)]| {
        let loaded = folder.load(named, env);
        assert_eq!(loaded.findings, []);
        (loaded.plan.unwrap().server.port, loaded.source)
    };
    assert_eq!(
        port(None, &[]),
        (40114, None),
        "no file is no reason to refuse"
    );
    for (n, path) in DEFAULT_PATHS.iter().enumerate().rev() {
        let text = match path.ends_with("yaml") {
            true => format!("server:\n  port: {}\n", n + 1),
            false => format!("server.port = {}", n + 1),
        };
        folder.write(path, text);
        let want = (u16::try_from(n + 1).unwrap(), Some(PathBuf::from(path)));
        assert_eq!(port(None, &[]), want);
    }
    folder.write("named.toml", "server.port = 10");
    folder.write("olla.yml", "server:\n  port: 20\n");
    let env = [("OLLA_CONFIG_FILE", "olla.yml")];
    assert_eq!(port(None, &env).0, 20);
    assert_eq!(port(Some("named.toml"), &env).0, 10);
    folder.write("yaml.conf", "# Olla\n\nserver:\n  port: 21\n");
    assert_eq!(port(Some("yaml.conf"), &[]).0, 21);
    folder.write("toml.conf", "# ours\n[server]\nport = 22\n");
    assert_eq!(port(Some("toml.conf"), &[]).0, 22);
    folder.write("plain", "---\nserver: {port: 23}\n");
    assert_eq!(port(Some("plain"), &[]).0, 23);
    assert_eq!(
        FileFormat::of(Path::new("keys"), "x.y = \"a: b\""),
        FileFormat::Toml
    );
    folder.write("empty.toml", "");
    assert_eq!(port(Some("empty.toml"), &[]).0, 40114);
    folder.write("bom.toml", "\u{feff}server.port = 30");
    assert_eq!(port(Some("bom.toml"), &[]).0, 30);
}

#[test]
fn yaml_in_a_file_called_toml_is_recognised() {
    let loaded = toml("server:\n  port: 1\n");
    let [error] = &loaded.findings[..] else {
        panic!("{:#?}", loaded.findings);
    };
    assert!(error.message.contains("looks like YAML"), "{error}");
}

#[test]
fn toml_in_a_file_called_yaml_is_recognised() {
    for text in ["[server]\nport = 1\n", "server.port = 1\n"] {
        let loaded = with_env(text, FileFormat::Yaml, &[]);
        let [error] = &loaded.findings[..] else {
            panic!("{:#?}", loaded.findings);
        };
        assert!(error.message.contains("got TOML"), "{error}");
    }
    for text in ["- a\n- b\n", "hello\n"] {
        let loaded = with_env(text, FileFormat::Yaml, &[]);
        let [error] = &loaded.findings[..] else {
            panic!("{:#?}", loaded.findings);
        };
        assert!(
            error.message.contains("expected keys and values"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_not_utf8_is_reported_with_the_line() {
    let folder = Folder::new("latin1");
    folder.write("latin1.toml", b"[server]\n# caf\xe9\nport = 1\n");
    let loaded = folder.load(Some("latin1.toml"), &[]);
    let errors: Vec<_> = loaded.errors().map(ToString::to_string).collect();
    let want = "latin1.toml:2: error: cannot be read: expected UTF-8 text";
    assert_eq!(errors, [want]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new("unreadable");
    folder.write("latin1.toml", b"# caf\xe9\n");
    std::fs::create_dir(folder.0.join("config.toml")).unwrap();
    for named in [Some("none.toml"), Some("latin1.toml"), None] {
        let loaded = folder.load(named, &[]);
        let errors: Vec<_> = loaded.errors().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{named:?}");
        assert!(
            errors[0].starts_with(named.unwrap_or("config.toml")),
            "{errors:?}"
        );
        assert!(errors[0].contains("cannot be read"), "{errors:?}");
        assert!(loaded.plan.is_none());
    }
    let loaded = folder.load(None, &[("OLLA_CONFIG_FILE", "gone.yaml")]);
    assert!(
        loaded
            .errors()
            .next()
            .unwrap()
            .to_string()
            .starts_with("gone.yaml")
    );
}

#[test]
fn yaml_and_toml_mean_the_same() {
    let toml_text = "\
[server]
host = \"0.0.0.0\"
read_timeout = \"1m\"
[server.cors]
enabled = false
[proxy.sticky_sessions]
enabled = true
key_sources = [\"ip\"]
[model_aliases]
\"gpt 4\" = [\"a\", \"b:7b\"]
[[discovery.static.endpoints]]
name = \"a\"
url = \"http://a:1\"
type = \"lmstudio\"
check_interval = \"10s\"
model_filter = { exclude = [\"*embed*\"] }
headers = { X-Team = \"5\" }
auth = { type = \"api_key\", key = \"${KEY}\" }
";
    let yaml_text = "\
server:
  host: 0.0.0.0
  read_timeout: 1m
  cors: {enabled: false}
proxy:
  sticky_sessions:
    enabled: true
    key_sources:
      - ip
model_aliases:
  gpt 4: [a, 'b:7b']
discovery:
  static:
    endpoints:
      - name: a
        url: http://a:1
        type: lmstudio
        check_interval: 10s
        model_filter:
          exclude: ['*embed*']
        headers:
          X-Team: \"5\"
        auth:
          type: api_key
          key: ${KEY}
logging:
";
    let env = [("KEY", "k")];
    let from_toml = with_env(toml_text, FileFormat::Toml, &env);
    let from_yaml = with_env(yaml_text, FileFormat::Yaml, &env);
    assert_eq!(
        (&from_toml.findings[..], &from_yaml.findings[..]),
        (&[][..], &[][..])
    );
    assert_eq!(from_toml.plan, from_yaml.plan);
    assert_eq!(from_toml.fingerprints, from_yaml.fingerprints);
}

#[test]
fn findings_name_the_line_in_both_formats() {
    let toml_text = "# a\n[proxy]\n\nconnection_timeout = \"soon\"\n\
                     [[discovery.static.endpoints]]\nname = \"a\"\nurl = \"http://a\"\n\
                     [[discovery.static.endpoints]]\nname = \"b\"\nurl = \"http://b\"\n\
                     check_interval = \"1ms\"\n";
    let yaml_text = "# a\nproxy:\n\n  connection_timeout: soon\ndiscovery:\n  static:\n    endpoints:\n\
                     \x20     - name: a\n        url: http://a\n      - name: b\n        url: http://b\n\
                     \x20       check_interval: 1ms\n";
    for (text, format, path, lines) in [
        (toml_text, FileFormat::Toml, "o.toml", [4, 11]),
        (yaml_text, FileFormat::Yaml, "o.yaml", [4, 12]),
    ] {
        let loaded = with_env(text, format, &[]);
        let found: Vec<_> = loaded
            .findings
            .iter()
            .map(|f| (f.source.clone(), f.key.as_str()))
            .collect();
        let at = |line| Origin::File {
            path: path.into(),
            line,
        };
        let want = [
            (at(lines[0]), "proxy.connection_timeout"),
            (at(lines[1]), "discovery.static.endpoints[1].check_interval"),
        ];
        assert_eq!(found, want, "{text}");
        let sentence = loaded.findings[0].sentence();
        assert!(
            sentence.contains(&format!("{path} line {}", lines[0])),
            "{sentence}"
        );
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let text = "[server]\nport = 0\nhost = \"a b\"\n[proxy]\nengine = \"x\"\nread_timeout = 1\n\
                [dashboard]\nenabled = \"on\"\n[model_aliases]\na = []\n";
    let env = [("OLLA_SERVER_WORKERS", "many")];
    let loaded = with_env(text, FileFormat::Toml, &env);
    let keys: Vec<_> = loaded.errors().map(|error| error.key.as_str()).collect();
    let want = [
        "server.port",
        "server.host",
        "proxy.engine",
        "proxy.read_timeout",
        "dashboard.enabled",
        "model_aliases.a",
        "server.workers",
    ];
    assert_eq!(keys, want, "in the order of the file, then the environment");
}

#[test]
fn text_that_is_no_toml_or_yaml_is_refused_with_its_line() {
    for (text, format, line) in [
        ("a = 1\nb =\n", FileFormat::Toml, 2),
        ("[server]\nport = 1\nport = 2\n", FileFormat::Toml, 3),
        ("server:\n  port: 1\n port: 2\n", FileFormat::Yaml, 3),
        ("- a\n", FileFormat::Yaml, 1),
    ] {
        let loaded = with_env(text, format, &[]);
        let error = loaded.errors().next().unwrap();
        assert!(
            matches!(error.source, Origin::File { line: at, .. } if at == line),
            "{error}"
        );
        assert!(error.message.starts_with("syntax: "), "{error}");
        assert!(loaded.plan.is_none());
    }
}

#[test]
fn unknown_keys_are_warnings_with_the_nearest_key() {
    let table = [
        ("server.prot = 1", "server.prot", Some("port")),
        (
            "dashboard.allowed_cidrs = []",
            "dashboard.allowed_cidrs",
            Some("dashboard.access_policy.allowed_cidrs"),
        ),
        (
            "proxy.loadbalancer = \"x\"",
            "proxy.loadbalancer",
            Some("load_balancer"),
        ),
        ("sever.port = 1", "sever", Some("server")),
        ("something_else = 1", "something_else", None),
        (
            "server.rate_limits.burst = 1",
            "server.rate_limits.burst",
            Some("burst_size"),
        ),
        (
            "[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"http://a\"\nchek_interval = \"1s\"",
            "discovery.static.endpoints[0].chek_interval",
            Some("check_interval"),
        ),
    ];
    for (text, key, near) in table {
        let loaded = toml(text);
        let [finding] = &loaded.findings[..] else {
            panic!("{text}\n{:#?}", loaded.findings);
        };
        assert_eq!(
            (finding.key.as_str(), finding.severity),
            (key, Severity::Warning),
            "{text}"
        );
        assert!(finding.unknown_key, "{text}");
        if let Some(near) = near {
            assert!(
                finding
                    .message
                    .ends_with(&format!("did you mean \"{near}\"?")),
                "{finding}"
            );
        }
        assert!(loaded.plan.is_some(), "{text}");
    }
}

#[test]
fn a_reload_knows_what_changed() {
    let endpoint = "[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"http://a\"\n";
    let auth = "auth = { type = \"bearer\", token = \"${T}\" }\n";
    let text = |head: &str, tail: &str| format!("{head}\n{endpoint}{tail}");
    let old = with_env(
        &text("server.port = 1", auth),
        FileFormat::Toml,
        &[("T", "x")],
    );
    let endpoints = "discovery.static.endpoints";
    let table: &[(&str, &str, &[&str])] = &[
        (&text("server.port = 1", auth), "x", &[]),
        (&text("# moved\n\nserver.port = 1", auth), "x", &[]),
        (&text("server.port = 2", auth), "x", &["server.port"]),
        (&text("", auth), "x", &["server.port"]),
        (&text("server.port = 1", auth), "y", &[endpoints]),
        (&text("server.port = 1", ""), "x", &[endpoints]),
        (
            "server.port = 1\ndiscovery.static.endpoints = []",
            "x",
            &[endpoints],
        ),
        (
            "server.port = 1\nmodel_aliases.a = [\"b\"]",
            "x",
            &[endpoints, "model_aliases"],
        ),
    ];
    for (text, token, want) in table {
        let new = with_env(text, FileFormat::Toml, &[("T", token)]);
        let changed = new.fingerprints.changed_since(&old.fingerprints);
        let fit = |path: &&str| want.iter().any(|key| path.starts_with(key));
        assert!(changed.iter().all(fit), "{text}: {changed:?}");
        for key in *want {
            assert!(
                changed.iter().any(|path| path.starts_with(key)),
                "{text}: {changed:?}"
            );
        }
    }
}

#[test]
fn a_reload_keeps_what_needs_a_restart_and_says_so_each_time() {
    let folder = Folder::new("restart");
    let inputs_env = Env::default();
    let types = types();
    let inputs = ConfigInputs {
        env: &inputs_env,
        cwd: &folder.0,
        types: &types,
        admits: &admits,
    };
    let named = Some(Path::new("o.toml"));
    folder.write("o.toml", "server.workers = 2\nserver.port = 1\n");
    let started = load(named, &inputs);
    folder.write(
        "o.toml",
        "[server]\nworkers = 3\npin_workers = false\nio_driver = \"epoll\"\nhost = \"h\"\nport = 2\n\
         request_limits.max_buffered_bytes = 9\nshutdown_timeout = \"1s\"\n[proxy]\nengine = \"sherpa\"\n\
         least_time.prefix_table = 0\n[state]\npath = \"s.db\"\n",
    );
    let mut restart_only = started.restart_only;
    for _ in 0..2 {
        let again = reload(
            named,
            &inputs,
            InForce {
                restart_only: &restart_only,
                file_keys: &[],
            },
        );
        let mut keys: Vec<_> = again.findings.iter().map(|f| f.key.as_str()).collect();
        keys.sort_unstable();
        let mut declared: Vec<_> = reference().iter().filter(|doc| doc.restart).collect();
        declared.sort_by(|a, b| a.path.cmp(&b.path));
        let declared: Vec<_> = declared.iter().map(|doc| doc.path.as_str()).collect();
        assert_eq!(keys, declared, "every key that needs a restart, each time");
        for finding in &again.findings {
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.message.contains("restart required"), "{finding}");
        }
        let plan = again.plan.unwrap();
        let mut want = started.plan.clone().unwrap();
        want.server.shutdown_timeout = secs(1);
        assert_eq!(plan, want);
        let changed = again.fingerprints.changed_since(&started.fingerprints);
        assert_eq!(changed, ["server.shutdown_timeout"]);
        restart_only = again.restart_only;
    }
}

#[test]
fn the_reference_shows_each_key_once_with_a_remark() {
    let mut seen = std::collections::HashSet::new();
    for doc in reference() {
        let name = if doc.path.is_empty() {
            doc.env.unwrap()
        } else {
            &doc.path
        };
        assert!(seen.insert(name), "{name} is declared twice");
        assert!(!doc.doc.is_empty() && !doc.kind.is_empty(), "{name}");
        assert!(
            doc.doc.ends_with('.') && doc.doc.len() <= 80,
            "{name}: {}",
            doc.doc
        );
    }
    assert!(seen.len() > 120, "{}", seen.len());
}
