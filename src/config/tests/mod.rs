//! The configuration as a whole: tables of what is accepted and of what is refused, the
//! environment, secrets, and both file formats.

mod cannot_work;
mod endpoints;
mod environment;
mod one_mistake;
mod refusals;
mod sources;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// The accepted types of these tests.
fn types() -> Vec<TypeName> {
    let pairs = [
        ("ollama", "ollama"),
        ("lm-studio", "lm-studio"),
        ("lmstudio", "lm-studio"),
        ("vllm", "vllm"),
        ("openai-compatible", "openai-compatible"),
    ];
    let name = |(written, canonical): (&str, &str)| TypeName {
        written: written.to_owned(),
        canonical: canonical.to_owned(),
    };
    pairs.map(name).into()
}

/// The filter with equality in place of globs.
fn admits(filter: &NameFilter, name: &str) -> bool {
    let within = |list: &[String]| list.iter().any(|entry| entry == name);
    !within(&filter.exclude) && (filter.include.is_empty() || within(&filter.include))
}

fn with_env(text: &str, format: FileFormat, env: &[(&str, &str)]) -> Loaded {
    let env = Env::of(env.iter().copied());
    let types = types();
    let inputs = ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    };
    let path = match format {
        FileFormat::Toml => "o.toml",
        FileFormat::Yaml => "o.yaml",
    };
    plan_from_str(text, format, Some(Path::new(path)), &inputs)
}

fn toml(text: &str) -> Loaded {
    with_env(text, FileFormat::Toml, &[])
}

/// The plan of a text in which nothing is wrong.
#[track_caller]
fn plan(text: &str) -> Plan {
    let loaded = toml(text);
    assert_eq!(loaded.findings, [], "{text}");
    loaded.plan.unwrap()
}

/// The plan by the environment alone, in which nothing is wrong.
#[track_caller]
fn plan_of_env(env: &[(&str, &str)]) -> Plan {
    let loaded = with_env("", FileFormat::Toml, env);
    assert_eq!(loaded.findings, [], "{env:?}");
    loaded.plan.unwrap()
}

/// Demands one error with this key whose line holds each of the words.
#[track_caller]
fn refused(text: &str, key: &str, words: &[&str]) {
    let loaded = toml(text);
    let errors: Vec<_> = loaded.errors().collect();
    let [error] = errors[..] else {
        panic!("{text}\n{errors:#?}");
    };
    assert_eq!(error.key, key, "{text}");
    let line = error.to_string();
    for word in words {
        assert!(line.contains(word), "{text}\n{line}\n{word}");
    }
    assert!(loaded.plan.is_none(), "{text}");
}

/// Demands one warning with this key, and a plan.
#[track_caller]
fn warned(text: &str, key: &str, word: &str) {
    let loaded = toml(text);
    let [finding] = &loaded.findings[..] else {
        panic!("{text}\n{:#?}", loaded.findings);
    };
    assert_eq!(finding.severity, Severity::Warning, "{text}");
    assert_eq!(finding.key, key, "{text}");
    assert!(
        finding.message.contains(word),
        "{text}\n{}",
        finding.message
    );
    assert!(loaded.plan.is_some(), "{text}");
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
