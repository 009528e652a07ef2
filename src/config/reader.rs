//! The state of reading a configuration: given values, findings and declarations.
//!
//! A key is declared in one place, where its value is put into the plan:
//!
//! ```text
//! port: server.key("port", "Port to listen on.").env("OLLA_SERVER_PORT").int(40114, 1, 65535)
//! ```
//!
//! This line sets the path of the key, its type, default, bounds, variable and remark. It is the
//! source of the value, of the reference ([`KeyDoc`], recorded by reading an empty configuration) and
//! of the suggestions for unknown keys. A wrong value becomes a [`Finding`] and the default takes its
//! place, so that one run reports everything.
//!
//! Tables are in `section.rs`, keys in `key.rs`, the kinds of values in `kinds.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::finding::{Finding, Origin, Severity};
use super::tree::ConfigNode;
use super::values::quoted;

/// An enum with values that are words of the configuration.
pub(super) trait Word: Copy + Debug + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

/// The description of a key, for documents and checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// The full path, with `[]` after a list of tables; empty if only a variable sets the value.
    pub path: String,
    /// The environment variable that overrides it.
    pub env: Option<&'static str>,
    /// Its type and bounds, in words.
    pub kind: String,
    /// The default as TOML; empty if there is none.
    pub default: String,
    /// A remark of a line or two.
    pub doc: &'static str,
    /// Whether the key is accepted for existing files only, without effect.
    pub inert: bool,
    /// Whether a YAML file, which is Olla's, sets it without effect.
    pub inert_in_yaml: bool,
    /// Whether a change takes effect at the next start only.
    pub restart: bool,
}

/// Fingerprints of the effective values, to find out what a reload changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprints(BTreeMap<String, u64>);

impl Fingerprints {
    /// Paths of the keys with different values, including keys that only one of the two has. All
    /// endpoints count as one key.
    pub fn changed_since<'a>(&'a self, old: &'a Self) -> Vec<&'a str> {
        let names: BTreeSet<&String> = self.0.keys().chain(old.0.keys()).collect();
        let differs = |name: &&String| self.0.get(*name) != old.0.get(*name);
        names
            .into_iter()
            .filter(differs)
            .map(String::as_str)
            .collect()
    }

    /// Adds a value to the fingerprint of a key.
    pub(super) fn add(&mut self, name: String, value: u64) {
        let print = self.0.entry(name).or_default();
        let mut hasher = DefaultHasher::new();
        (*print, value).hash(&mut hasher);
        *print = hasher.finish();
    }
}

/// The raw values at the start of the keys that need a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RestartOnly(pub(super) BTreeMap<String, KeptRaw>);

/// The raw value of one such key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeptRaw {
    Absent,
    Env(String),
    File(ConfigNode),
}

/// The state of reading a configuration.
pub(super) struct ConfigReader<'t> {
    pub(super) env: &'t Env,
    file: Option<PathBuf>,
    /// Where relative paths of the section `access` begin.
    pub(super) folder: PathBuf,
    /// Whether the file is YAML, which is Olla's format.
    pub(super) is_yaml: bool,
    findings: Vec<Finding>,
    /// Paths of required keys that are absent.
    missing: BTreeSet<String>,
    pub(super) docs: Vec<KeyDoc>,
    pub(super) given: BTreeMap<String, GivenValue>,
    pub(super) fingerprints: Fingerprints,
    /// Raw values of the keys that need a restart, at the start if there was one before.
    pub(super) kept: BTreeMap<String, KeptRaw>,
    /// The same values from the start, at a reload.
    started_with: Option<&'t RestartOnly>,
}

/// The outcome of reading a configuration.
#[derive(Debug)]
pub(super) struct Report {
    /// Errors and warnings, in the order of the file, then of the environment.
    pub(super) findings: Vec<Finding>,
    /// Notes, in the same order.
    pub(super) notes: Vec<Finding>,
    pub(super) fingerprints: Fingerprints,
    pub(super) kept: RestartOnly,
}

/// The origin of a value and its form in a message.
pub(super) struct GivenValue {
    pub(super) source: Origin,
    pub(super) shown: String,
}

impl<'t> ConfigReader<'t> {
    pub(super) fn new(env: &'t Env, file: Option<&Path>) -> Self {
        Self {
            env,
            file: file.map(Path::to_path_buf),
            folder: PathBuf::new(),
            is_yaml: false,
            findings: Vec::new(),
            missing: BTreeSet::new(),
            docs: Vec::new(),
            given: BTreeMap::new(),
            fingerprints: Fingerprints::default(),
            kept: BTreeMap::new(),
            started_with: None,
        }
    }

    /// Keeps the values of the start for the keys that need a restart.
    pub(super) fn keep(&mut self, started_with: Option<&'t RestartOnly>) {
        self.started_with = started_with;
    }

    /// At a reload, the raw value of a key at the start.
    pub(super) fn kept_before(&self, key: &str) -> Option<KeptRaw> {
        self.started_with?.0.get(key).cloned()
    }

    /// Ends reading and returns the outcome.
    pub(super) fn finish(mut self) -> Report {
        self.findings.sort_by(|a, b| a.source.cmp(&b.source));
        let is_note = |finding: &Finding| finding.severity == Severity::Note;
        let (notes, findings) = self.findings.into_iter().partition(is_note);
        Report {
            findings,
            notes,
            fingerprints: self.fingerprints,
            kept: RestartOnly(self.kept),
        }
    }

    /// Ends reading and returns the declarations.
    pub(super) fn into_docs(self) -> Vec<KeyDoc> {
        self.docs
    }

    /// A line of the file that is being read.
    pub(super) fn at_line(&self, line: usize) -> Origin {
        match &self.file {
            Some(path) => Origin::File {
                path: path.clone(),
                line,
            },
            None => Origin::Builtin,
        }
    }

    /// Adds a finding. A key has at most one error, so that one mistake results in one message.
    pub(super) fn find(&mut self, finding: Finding) {
        if finding.severity == Severity::Error && self.has_error(&finding.key) {
            return;
        }
        self.findings.push(finding);
    }

    fn has_error(&self, key: &str) -> bool {
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        !key.is_empty() && self.findings.iter().any(|f| is_error(f) && f.key == key)
    }

    /// Whether an error is about this key or something inside it.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.findings.iter().any(|finding| {
            let inside = finding.key.strip_prefix(key);
            finding.severity == Severity::Error
                && inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Adds an error about a required key that is absent.
    pub(super) fn find_missing(&mut self, finding: Finding) {
        self.missing.insert(finding.key.clone());
        self.find(finding);
    }

    /// Removes the error about an absent key; returns whether there was one.
    pub(super) fn take_missing(&mut self, key: &str) -> bool {
        let was_missing = self.missing.remove(key);
        if was_missing {
            self.findings.retain(|finding| finding.key != key);
        }
        was_missing
    }
}

impl KeyDoc {
    pub(super) const EMPTY: Self = Self {
        path: String::new(),
        env: None,
        kind: String::new(),
        default: String::new(),
        doc: "",
        inert: false,
        inert_in_yaml: false,
        restart: false,
    };
}

/// A path and a further key. Keys that are not bare keys of TOML are quoted.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if bare { name.to_owned() } else { quoted(name) };
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

/// The key for the fingerprint of a path: all endpoints count as one key.
pub(super) fn top_key(path: &str) -> &str {
    path.split_once('[').map_or(path, |(list, _)| list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_quote_what_is_no_bare_word() {
        assert_eq!(
            join("model_aliases", "gpt 4.1"),
            "model_aliases.\"gpt 4.1\""
        );
        assert_eq!(join("", "server"), "server");
        assert_eq!(join("a", ""), "a.\"\"");
    }
}
