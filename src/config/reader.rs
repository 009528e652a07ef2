//! The state of one reading: what was given, what is wrong, what is declared.
//!
//! A key is declared in one place, where its value goes into the plan:
//!
//! ```text
//! port: server.key("port", "Port to listen on.").env("OLLA_SERVER_PORT").int(40114, 1, 65535)
//! ```
//!
//! That one line gives the key's path, its type, default, bounds, variable and remark. Reading a
//! configuration, the reference ([`KeyDoc`]) and the suggestions for unknown keys all come from
//! it: the reference is what reading nothing records. A wrong value becomes a [`Finding`] and the
//! default takes its place, so that one run reports everything.
//!
//! Knows no key itself: tables are in `section.rs`, a key on its way to a value in `key.rs`, the
//! kinds of value in `kinds.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::finding::{Finding, Origin, Severity};
use super::tree::ConfigNode;
use super::values::quoted;

/// An enum whose values are words of the configuration.
pub(super) trait Word: Copy + Debug + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

/// What there is to say about one key, for documents and checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// The full path, `[]` after a list of tables; empty for what only a variable sets.
    pub path: String,
    /// The environment variable that overrides it.
    pub env: Option<&'static str>,
    /// Its type and bounds in words.
    pub kind: String,
    /// The default as TOML, or empty when there is none.
    pub default: String,
    /// A remark of a line or two.
    pub doc: &'static str,
    /// Accepted for the sake of existing files, without effect.
    pub inert: bool,
    /// A change takes effect at the next start only.
    pub restart: bool,
}

/// Fingerprints of the effective values, to tell what a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprints(BTreeMap<String, u64>);

impl Fingerprints {
    /// Paths of the keys whose value differs, given in one of the two only included; endpoints
    /// count as one key.
    pub fn changed_since<'a>(&'a self, old: &'a Self) -> Vec<&'a str> {
        let names: BTreeSet<&String> = self.0.keys().chain(old.0.keys()).collect();
        let differs = |name: &&String| self.0.get(*name) != old.0.get(*name);
        names
            .into_iter()
            .filter(differs)
            .map(String::as_str)
            .collect()
    }

    /// Adds a value to what is known of a key.
    pub(super) fn add(&mut self, name: String, value: u64) {
        let print = self.0.entry(name).or_default();
        let mut hasher = DefaultHasher::new();
        (*print, value).hash(&mut hasher);
        *print = hasher.finish();
    }
}

/// What the keys that need a restart were given when the gateway started.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RestartOnly(pub(super) BTreeMap<String, KeptRaw>);

/// What one such key was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeptRaw {
    Absent,
    Env(String),
    File(ConfigNode),
}

/// State of one reading.
pub(super) struct ConfigReader<'t> {
    pub(super) env: &'t Env,
    file: Option<PathBuf>,
    findings: Vec<Finding>,
    /// Paths of keys that are required and absent.
    missing: BTreeSet<String>,
    pub(super) docs: Vec<KeyDoc>,
    pub(super) given: BTreeMap<String, GivenValue>,
    pub(super) fingerprints: Fingerprints,
    /// What the keys that need a restart are given, or were at the start.
    pub(super) kept: BTreeMap<String, KeptRaw>,
    /// At a reload, what they were given at the start.
    started_with: Option<&'t RestartOnly>,
}

/// What a reading has found.
#[derive(Debug)]
pub(super) struct Report {
    /// Errors and warnings, in the order of the file, then of the environment.
    pub(super) findings: Vec<Finding>,
    /// Notes, in the same order.
    pub(super) notes: Vec<Finding>,
    pub(super) fingerprints: Fingerprints,
    pub(super) kept: RestartOnly,
}

/// Where a value came from and how a message shows it.
pub(super) struct GivenValue {
    pub(super) source: Origin,
    pub(super) shown: String,
}

impl<'t> ConfigReader<'t> {
    pub(super) fn new(env: &'t Env, file: Option<&Path>) -> Self {
        Self {
            env,
            file: file.map(Path::to_path_buf),
            findings: Vec::new(),
            missing: BTreeSet::new(),
            docs: Vec::new(),
            given: BTreeMap::new(),
            fingerprints: Fingerprints::default(),
            kept: BTreeMap::new(),
            started_with: None,
        }
    }

    /// Keeps what the keys that need a restart were given at the start.
    pub(super) fn keep(&mut self, started_with: Option<&'t RestartOnly>) {
        self.started_with = started_with;
    }

    /// At a reload, what a key that needs a restart was given at the start.
    pub(super) fn kept_before(&self, key: &str) -> Option<KeptRaw> {
        self.started_with?.0.get(key).cloned()
    }

    /// What has been found.
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

    /// The declarations met so far.
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

    /// Adds a finding. A key has at most one error, so that one mistake gives one message.
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

    /// Takes back the error about an absent key; false when there is none.
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
        restart: false,
    };
}

/// A path and a further key; keys that are no bare word are quoted as in TOML.
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

/// The key whose fingerprint a path belongs to: endpoints count as one key.
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
