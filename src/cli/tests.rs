use std::path::Path;

use super::*;
use crate::config::{ConfigInputs, FileFormat, NameFilter, plan_from_str};

fn arguments(arguments: &[&str]) -> Parsed {
    parse(arguments.iter().map(OsString::from), &Env::default())
}

fn serve(config: Option<&str>, profile: bool) -> Parsed {
    Parsed::Run(Command::Serve(options(config, profile)))
}

fn check(config: Option<&str>) -> Parsed {
    checks(false, config)
}

fn checks(probe: bool, config: Option<&str>) -> Parsed {
    let options = options(config, false);
    Parsed::Run(Command::Check { probe, options })
}

fn import_of(file: &str, from: Option<ConfigKind>) -> Parsed {
    Parsed::Run(Command::Import {
        file: file.into(),
        from,
    })
}

fn health(is_ready: bool, url: Option<&str>, config: Option<&str>, trust: Trust) -> Parsed {
    Parsed::Run(Command::Health(HealthQuery {
        url: url.map(str::to_owned),
        is_ready,
        config: config.map(PathBuf::from),
        trust,
    }))
}

fn options(config: Option<&str>, profile: bool) -> Options {
    Options {
        config: config.map(PathBuf::from),
        profile,
    }
}

fn show(subject: Subject, url: Option<&str>, json: bool, config: Option<&str>) -> Parsed {
    Parsed::Run(Command::Show(Show {
        subject,
        url: url.map(str::to_owned),
        json,
        config: config.map(PathBuf::from),
        trust: Trust::default(),
        key_file: None,
    }))
}

fn remote(config: Option<&str>) -> Remote {
    Remote {
        url: None,
        key_file: None,
        json: false,
        config: config.map(PathBuf::from),
        trust: Trust::default(),
    }
}

fn new_key(admin: &str, config: Option<&str>) -> Parsed {
    Parsed::Run(Command::Key(KeyCommand::New(Box::new(NewKey {
        name: "alice".to_owned(),
        policy: None,
        admin: Some(admin.to_owned()),
        expires: None,
        ttl: None,
        note: None,
        set: vec!["x=1".to_owned(), "models=a,b".to_owned()],
        file: None,
        remote: remote(config),
    }))))
}

#[test]
fn arguments_are_parsed() {
    let table: Vec<(&[&str], Parsed)> = vec![
        (&[], serve(None, false)),
        (&["--config", "a"], serve(Some("a"), false)),
        (&["--config=a"], serve(Some("a"), false)),
        (&["-config", "a"], serve(Some("a"), false)),
        (&["-config=a=b"], serve(Some("a=b"), false)),
        (&["-c", "a"], serve(Some("a"), false)),
        (&["-c=a"], serve(Some("a"), false)),
        (&["--c", "a"], serve(Some("a"), false)),
        (&["--c=a"], serve(Some("a"), false)),
        (&["--config", "-odd"], serve(Some("-odd"), false)),
        (&["--config", "a", "--config", "b"], serve(Some("b"), false)),
        (&["--profile"], serve(None, true)),
        (&["-profile"], serve(None, true)),
        (&["--profile=true"], serve(None, true)),
        (&["--profile=false"], serve(None, false)),
        (&["--profile", "--profile"], serve(None, true)),
        (&["--check"], check(None)),
        (&["-check", "-c", "a"], check(Some("a"))),
        (&["--validate-config", "--config=a"], check(Some("a"))),
        (&["-validate-config"], check(None)),
        (&["check"], check(None)),
        (&["check", "-c", "a"], check(Some("a"))),
        (&["-config", "a", "check"], check(Some("a"))),
        (&["--check=false"], serve(None, false)),
        (&["check", "--probe"], checks(true, None)),
        (&["check", "-probe", "-c", "a"], checks(true, Some("a"))),
        (&["health"], health(false, None, None, Trust::default())),
        (
            &["health", "--ready", "-c", "a"],
            health(true, None, Some("a"), Trust::default()),
        ),
        (
            &["health", "-k", "https://gw"],
            health(
                false,
                Some("https://gw"),
                None,
                Trust {
                    insecure: true,
                    ..Trust::default()
                },
            ),
        ),
        (
            &["demo"],
            Parsed::Run(Command::Demo(DemoOptions { port: None })),
        ),
        (
            &["demo", "-port", "8080"],
            Parsed::Run(Command::Demo(DemoOptions { port: Some(8080) })),
        ),
        (&["import", "x.yaml"], import_of("x.yaml", None)),
        (
            &["import", "x.yaml", "--from", "litellm"],
            import_of("x.yaml", Some(ConfigKind::LiteLlm)),
        ),
        (
            &["import", "-from=llama-swap", "x.yaml"],
            import_of("x.yaml", Some(ConfigKind::LlamaSwap)),
        ),
        (&["models"], show(Subject::Models, None, false, None)),
        (
            &[
                "key",
                "new",
                "alice",
                "--admin",
                "-c",
                "a",
                "--set",
                "x=1",
                "--set=models=a,b",
            ],
            new_key("true", Some("a")),
        ),
        (
            &[
                "key",
                "new",
                "--admin=read",
                "alice",
                "--set=x=1",
                "-set",
                "models=a,b",
            ],
            new_key("read", None),
        ),
        (
            &["key", "hash"],
            Parsed::Run(Command::Key(KeyCommand::Hash)),
        ),
        (
            &["key", "delete", "alice", "--cut"],
            Parsed::Run(Command::Key(KeyCommand::Delete(
                "alice".to_owned(),
                true,
                remote(None),
            ))),
        ),
        (
            &["usage", "--since", "2026-01-01", "--csv", "--group=key"],
            Parsed::Run(Command::Usage(UsageCommand {
                parameters: vec![
                    ("since", "2026-01-01".to_owned()),
                    ("group", "key".to_owned()),
                ],
                csv: true,
                store: None,
                remote: remote(None),
            })),
        ),
        (
            &["state", "check", "x.db"],
            Parsed::Run(Command::CheckState("x.db".into())),
        ),
        (
            &["status", "--json", "-url=http://h"],
            show(Subject::Status, Some("http://h"), true, None),
        ),
        (
            &["-c", "a", "status"],
            show(Subject::Status, None, false, Some("a")),
        ),
    ];
    for (given, want) in table {
        assert_eq!(arguments(given), want, "{given:?}");
    }
}

#[test]
fn invalid_arguments_show_the_usage() {
    let table: [&[&str]; 17] = [
        &["--nonsense"],
        &["-x"],
        &["--config"],
        &["-c"],
        &["--profile=maybe"],
        &["--check="],
        &["import"],
        &["import", "a", "b"],
        &["import", "a", "--from", "nginx"],
        &["demo", "--port", "0"],
        &["demo", "--port", "99999"],
        &["models", "--nonsense"],
        &["status", "extra"],
        &["health", "a", "b"],
        &["--probe"],
        &["completions", "klingon"],
        &["completions"],
    ];
    for given in table {
        let Parsed::Done(outcome) = arguments(given) else {
            panic!("{given:?} was accepted");
        };
        assert_eq!(outcome.code, 2, "{given:?}");
        assert_eq!(outcome.stdout, "", "{given:?}");
        assert!(
            outcome.stderr.contains("Usage"),
            "{given:?}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_command_that_does_not_exist_is_an_error_with_a_suggestion() {
    let table = [
        (
            &["statsu"][..],
            "unknown command \"statsu\"; did you mean \"status\"?",
        ),
        (&["chekc", "check"], "did you mean \"check\"?"),
        (&["-c", "a", "serve"], "unknown command \"serve\""),
        (&["hepl"], "did you mean \"help\"?"),
        (&["olla.toml"], "unknown command \"olla.toml\""),
        (&["help", "statsu"], "did you mean \"status\"?"),
        (&["help", "foo"], "unknown command \"foo\""),
    ];
    for (given, want) in table {
        let Parsed::Done(outcome) = arguments(given) else {
            panic!("{given:?} was accepted");
        };
        assert_eq!(outcome.code, 2, "{given:?}");
        assert!(outcome.stderr.contains(want), "{}", outcome.stderr);
    }
}

#[test]
fn a_misspelt_option_is_the_error_and_not_its_value() {
    for given in [
        &["--confg", "a.toml"][..],
        &["-confg", "a.toml"],
        &["--confg", "a.toml", "check"],
        &["check", "--confg", "a.toml"],
    ] {
        let Parsed::Done(outcome) = arguments(given) else {
            panic!("{given:?} was accepted");
        };
        assert_eq!(outcome.code, 2, "{given:?}");
        let stderr = &outcome.stderr;
        assert!(!stderr.contains("unknown command"), "{given:?}: {stderr}");
        assert!(
            stderr.contains("unexpected argument"),
            "{given:?}: {stderr}"
        );
    }
}

#[test]
fn the_usage_comes_before_the_reference_to_help() {
    for given in [
        &["-c"][..],
        &["completions", "klingon"],
        &["statsu"],
        &["-x"],
    ] {
        let Parsed::Done(outcome) = arguments(given) else {
            panic!("{given:?} was accepted");
        };
        let stderr = &outcome.stderr;
        assert_eq!(stderr.matches("Usage: ").count(), 1, "{given:?}: {stderr}");
        let end = "\n\nFor more information, try '--help'.\n";
        assert!(stderr.ends_with(end), "{given:?}: {stderr}");
    }
}

#[test]
fn the_version_is_one_line() {
    let line = build_info::line();
    let (version, rest) = line
        .strip_prefix("olla ")
        .unwrap()
        .split_once(" (")
        .unwrap();
    assert_eq!(version, build_info::VERSION);
    let rest: Vec<_> = rest.strip_suffix(")\n").unwrap().split(' ').collect();
    assert_eq!(
        rest,
        [build_info::COMMIT, build_info::DATE, build_info::TARGET]
    );
    assert!(build_info::COMPILER.starts_with("rustc "));
    let done = Parsed::Done(CommandOutput::good(line));
    for given in [
        &["--version"][..],
        &["-version"],
        &["-V"],
        &["version"],
        &["-c", "a", "--version"],
    ] {
        assert_eq!(arguments(given), done, "{given:?}");
    }
    let with = |value| parse([], &Env::of([("OLLA_SHOW_VERSION", value)]));
    assert_eq!(with("true"), done);
    assert_eq!(with("false"), serve(None, false));
    assert_eq!(with("perhaps"), serve(None, false));
}

#[test]
fn help_teaches() {
    for given in [&["--help"][..], &["-help"], &["-h"], &["help"]] {
        let Parsed::Done(outcome) = arguments(given) else {
            panic!("{given:?}");
        };
        assert_eq!(
            (outcome.code, outcome.stderr.as_str()),
            (0, ""),
            "{given:?}"
        );
        for word in [
            "olla demo",
            "--config",
            "validate-config",
            "--profile",
            "-V",
            "import",
            "config/config.local.toml",
            "the same four\nwith .yaml",
        ] {
            assert!(outcome.stdout.contains(word), "{word}: {}", outcome.stdout);
        }
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let Parsed::Done(outcome) = arguments(&["completions", shell]) else {
            panic!("{shell}");
        };
        assert_eq!(outcome.code, 0);
        assert!(outcome.stdout.contains("demo") && outcome.stdout.contains("validate-config"));
    }
}

fn report_of(text: &str) -> CommandOutput {
    let env = Env::default();
    let admits = |_: &NameFilter, _: &str| true;
    let inputs = ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &[],
        admits: &admits,
    };
    let loaded = plan_from_str(text, FileFormat::Toml, Some(Path::new("o.toml")), &inputs);
    check::report(&loaded, &[])
}

#[test]
fn a_check_prints_every_finding_and_the_result() {
    let good = report_of(
        "[model_aliases]\na = [\"b\"]\n[[discovery.static.endpoints]]\nname = \"x\"\nurl = \"http://x\"\n",
    );
    let lines: Vec<_> = good.stdout.lines().collect();
    assert_eq!((good.code, good.stderr.as_str()), (0, ""));
    assert_eq!(
        [lines[0], lines[2]],
        ["checking o.toml", "ok: 1 endpoint, 1 alias"]
    );
    assert_eq!(lines.len(), 3, "{lines:?}");
    let note = "note: server.cors.allowed_origins: \"*\", and olla does not authenticate clients: ";
    assert!(lines[1].starts_with(note), "{lines:?}");
    for closed in [
        "enabled = false",
        "allowed_origins = [\"https://a.example\"]",
    ] {
        let report = report_of(&format!("[server.cors]\n{closed}\n"));
        assert_eq!(
            report.stdout,
            "checking o.toml\nok: 1 endpoint, 0 aliases\n"
        );
    }

    let bad = report_of("[server]\nport = 0\nprot = 1\n[proxy]\nengine = \"turbo\"\n");
    let lines: Vec<_> = bad.stdout.lines().collect();
    assert_eq!(bad.code, 1);
    assert!(
        lines[1].starts_with("o.toml:2: error: server.port: expected an integer from 1"),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("o.toml:3: error: server.prot: unknown key; did you mean \"port\"?"),
        "{lines:?}"
    );
    assert!(
        lines[3].starts_with("o.toml:5: error: proxy.engine: expected "),
        "{lines:?}"
    );
    assert_eq!(lines[4..], ["3 errors"]);
    let one = report_of("[server]\nport = 0\n");
    assert!(one.stdout.ends_with("\n1 error\n"), "{}", one.stdout);

    let warned = report_of("[server.rate_limits]\nburst_size = 0\n");
    assert!(
        warned.stdout.contains("\no.toml:2: warning: "),
        "{}",
        warned.stdout
    );
    assert!(
        warned.stdout.ends_with("\nok: 1 endpoint, 0 aliases\n"),
        "{}",
        warned.stdout
    );
    assert_eq!(warned.code, 0);
}

#[test]
fn an_import_prints_toml_and_remarks_apart() {
    let folder = std::env::temp_dir().join(format!("olla-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("o.yaml"), "server:\n  port: 8080\n  prot: 1\n").unwrap();
    std::fs::write(folder.join("bad.yaml"), "server: [\n").unwrap();
    std::fs::write(folder.join("other.yaml"), "services: {}\n").unwrap();
    let env = Env::default();
    let admits = |_: &NameFilter, _: &str| true;
    let inputs = ConfigInputs {
        env: &env,
        cwd: &folder,
        types: &[],
        admits: &admits,
    };
    let good = import::run(Path::new("o.yaml"), None, &inputs);
    let bad = import::run(Path::new("bad.yaml"), None, &inputs);
    let other = import::run(Path::new("other.yaml"), None, &inputs);
    let none = import::run(Path::new("none.yaml"), None, &inputs);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(good.code, 0);
    assert!(
        good.stdout.contains("[server]\nport = 8080\n"),
        "{}",
        good.stdout
    );
    assert!(
        good.stderr.starts_with("o.yaml:3: warning: server.prot: "),
        "{}",
        good.stderr
    );
    assert_eq!((bad.code, bad.stdout.as_str()), (1, ""));
    assert!(bad.stderr.starts_with("bad.yaml:"), "{}", bad.stderr);
    assert_eq!((other.code, other.stdout.as_str()), (1, ""));
    assert!(other.stderr.contains("--from"), "{}", other.stderr);
    assert_eq!(none.code, 1);
    assert!(
        none.stderr.starts_with("none.yaml: error: "),
        "{}",
        none.stderr
    );
}

#[test]
fn trust_is_chosen_as_with_curl() {
    let trust_of = |given: &[&str]| match arguments(given) {
        Parsed::Run(Command::Show(show)) => show.trust,
        other => panic!("{other:?}"),
    };
    let file = Trust {
        ca_file: Some("ca.pem".into()),
        ..Trust::default()
    };
    let insecure = Trust {
        insecure: true,
        ..Trust::default()
    };
    assert_eq!(trust_of(&["status", "--ca-file", "ca.pem"]), file);
    assert_eq!(trust_of(&["models", "-cacert=ca.pem"]), file);
    assert_eq!(trust_of(&["status", "-k"]), insecure);
    assert_eq!(trust_of(&["status", "--insecure"]), insecure);
    assert_eq!(trust_of(&["status", "--insecure=false"]), Trust::default());
}
