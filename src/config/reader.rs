//! The reader: walks the tree by declarations and says what is wrong.
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
//! default goes on, so that one run tells everything.
//!
//! Knows no key itself; a key on its way to a value stands in `key.rs`, the kinds of value in
//! `kinds.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::finding::{Finding, Origin, Severity};
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

/// State of one reading.
pub(super) struct ConfigReader<'t> {
    pub(super) env: &'t Env,
    file: Option<PathBuf>,
    findings: Vec<Finding>,
    pub(super) docs: Vec<KeyDoc>,
    pub(super) given: BTreeMap<String, GivenValue>,
    pub(super) fingerprints: Fingerprints,
}

/// Where a value came from and how it was written; `None` = not to be shown.
pub(super) struct GivenValue {
    pub(super) source: Origin,
    pub(super) written: Option<String>,
}

impl<'t> ConfigReader<'t> {
    pub(super) fn new(env: &'t Env, file: Option<&Path>) -> Self {
        Self {
            env,
            file: file.map(Path::to_path_buf),
            findings: Vec::new(),
            docs: Vec::new(),
            given: BTreeMap::new(),
            fingerprints: Fingerprints::default(),
        }
    }

    /// Warns of a key or variable that does not exist.
    pub(super) fn unknown(&mut self, source: Origin, key: String, what: &str, near: Option<&str>) {
        let hint = near
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        let message = format!("unknown {what}, has no effect{hint}");
        let severity = Severity::Warning;
        self.findings.push(Finding {
            severity,
            source,
            key,
            message,
            unknown_key: true,
        });
    }

    /// The findings in the order of the file, then the environment's, and the fingerprints.
    pub(super) fn finish(mut self) -> (Vec<Finding>, Fingerprints) {
        self.findings.sort_by(|a, b| a.source.cmp(&b.source));
        (self.findings, self.fingerprints)
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

    pub(super) fn find(
        &mut self,
        severity: Severity,
        source: Origin,
        key: String,
        message: String,
    ) {
        self.findings.push(Finding {
            severity,
            source,
            key,
            message,
            unknown_key: false,
        });
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

/// A message with the thing it is about in front.
pub(super) fn about(subject: Option<&str>, message: &str) -> String {
    subject.map_or_else(
        || message.to_owned(),
        |subject| format!("{subject}: {message}"),
    )
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
