//! The configuration as a whole: tables of accepted and of refused values, the environment, secrets,
//! and both file formats.

mod cannot_work;
mod endpoints;
mod environment;
mod ollas_file;
mod one_mistake;
mod refusals;
mod scheduling;
mod sources;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// The types that these tests accept.
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

/// A filter that compares names instead of matching globs.
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

/// The plan of a valid text.
#[track_caller]
fn plan(text: &str) -> Plan {
    let loaded = toml(text);
    assert_eq!(loaded.findings, [], "{text}");
    loaded.plan.unwrap()
}

/// The plan of a valid environment without a file.
#[track_caller]
fn plan_of_env(env: &[(&str, &str)]) -> Plan {
    let loaded = with_env("", FileFormat::Toml, env);
    assert_eq!(loaded.findings, [], "{env:?}");
    loaded.plan.unwrap()
}

/// Requires one error with this key and with each of these strings in its line.
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

/// Requires one warning with this key, and a plan.
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
