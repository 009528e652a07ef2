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
use std::fmt::{Debug, Display};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::finding::{Finding, Severity, Source};
use super::key::Key;
use super::tree::{Node, Table, Value};
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
pub(super) struct Reader<'t> {
    pub(super) env: &'t Env,
    file: Option<PathBuf>,
    findings: Vec<Finding>,
    pub(super) docs: Vec<KeyDoc>,
    pub(super) given: BTreeMap<String, Given>,
    pub(super) fingerprints: Fingerprints,
}

/// Where a value came from and how it was written; `None` = not to be shown.
pub(super) struct Given {
    pub(super) source: Source,
    pub(super) written: Option<String>,
}

impl<'t> Reader<'t> {
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

    /// The whole document as a section.
    pub(super) fn root(&mut self, table: Option<&'t Table>) -> Section<'_, 't> {
        let (path, pattern) = (String::new(), String::new());
        Section {
            reader: self,
            table,
            path,
            pattern,
            line: 0,
            subject: None,
        }
    }

    /// Warns of a key or variable that does not exist.
    pub(super) fn unknown(&mut self, source: Source, key: String, what: &str, near: Option<&str>) {
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
    pub(super) fn at_line(&self, line: usize) -> Source {
        match &self.file {
            Some(path) => Source::File {
                path: path.clone(),
                line,
            },
            None => Source::Builtin,
        }
    }

    pub(super) fn find(
        &mut self,
        severity: Severity,
        source: Source,
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

/// One table of the configuration, present or not.
pub(super) struct Section<'r, 't> {
    reader: &'r mut Reader<'t>,
    table: Option<&'t Table>,
    path: String,
    pattern: String,
    line: usize,
    subject: Option<String>,
}

impl<'t> Section<'_, 't> {
    /// The environment, for `${NAME}`.
    pub(super) fn env(&self) -> &'t Env {
        self.reader.env
    }

    /// A table inside.
    pub(super) fn section(&mut self, name: &str) -> Section<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let path = join(&self.path, name);
        let pattern = join(&self.pattern, name);
        let line = node.map_or(self.line, |node| node.line);
        let table = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                let message = self.about(&format!("{}; a table", other.kind()));
                let source = self.reader.at_line(line);
                self.reader
                    .find(Severity::Error, source, path.clone(), message);
                None
            }
            None => None,
        };
        let subject = self.subject.clone();
        Section {
            reader: &mut *self.reader,
            table,
            path,
            pattern,
            line,
            subject,
        }
    }

    /// Whether the table is there.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The tables of a list, `None` when the list itself is absent. Items of another kind are
    /// found faulty and left out.
    pub(super) fn items(&mut self, name: &str) -> Option<Vec<(usize, &'t Node)>> {
        let node = self.table.and_then(|table| table.get(name))?;
        let path = join(&self.path, name);
        let given = Given {
            source: self.reader.at_line(node.line),
            written: Some(node.value.kind().to_owned()),
        };
        self.reader.given.insert(path.clone(), given);
        let Value::List(items) = &node.value else {
            let source = self.reader.at_line(node.line);
            let message = format!("{}; a list of tables", node.value.kind());
            self.reader.find(Severity::Error, source, path, message);
            return Some(Vec::new());
        };
        let mut tables = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if matches!(item.value, Value::Table(_)) {
                tables.push((at, item));
                continue;
            }
            let source = self.reader.at_line(item.line);
            let message = format!("{}; a table", item.value.kind());
            self.reader
                .find(Severity::Error, source, format!("{path}[{at}]"), message);
        }
        Some(tables)
    }

    /// One table of a list. Without a node it stands for a table with nothing in it.
    pub(super) fn item(&mut self, name: &str, item: Option<(usize, &'t Node)>) -> Section<'_, 't> {
        let mut path = join(&self.path, name);
        let pattern = format!("{}[]", join(&self.pattern, name));
        let mut line = self.line;
        let mut table = None;
        if let Some((at, node)) = item {
            path = format!("{path}[{at}]");
            line = node.line;
            if let Value::Table(found) = &node.value {
                table = Some(found);
            }
        }
        Section {
            reader: &mut *self.reader,
            table,
            path,
            pattern,
            line,
            subject: None,
        }
    }

    /// Counts what a key stands for (a variable's value, a file's content) among the values that a
    /// reload compares. Only its hash is kept.
    pub(super) fn fingerprint(&mut self, key: &str, value: &str) {
        let path = join(&self.path, key);
        let name = path.split('[').next().unwrap_or_default().to_owned();
        let mut hasher = DefaultHasher::new();
        (&path, value).hash(&mut hasher);
        self.reader.fingerprints.add(name, hasher.finish());
    }

    /// Names the thing that the findings of this section are about (`endpoint "gpu"`).
    pub(super) fn name_subject(&mut self, subject: String) {
        self.subject = Some(subject);
    }

    /// Declares a key. The remark is one or two sentences for the reference.
    pub(super) fn key(&mut self, name: &str, doc: &'static str) -> Key<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let (path, pattern) = (join(&self.path, name), join(&self.pattern, name));
        self.declare(node, path, pattern, doc)
    }

    /// Declares a setting that only a variable has.
    pub(super) fn variable(&mut self, name: &'static str, doc: &'static str) -> Key<'_, 't> {
        self.declare(None, String::new(), String::new(), doc)
            .env(name)
    }

    fn declare(
        &mut self,
        node: Option<&'t Node>,
        path: String,
        pattern: String,
        doc: &'static str,
    ) -> Key<'_, 't> {
        let doc = KeyDoc {
            path: pattern,
            doc,
            ..KeyDoc::EMPTY
        };
        Key::new(&mut *self.reader, node, path, doc, self.subject.clone())
    }

    /// Refuses the value of a key of this section, after a check that needs more than it alone.
    pub(super) fn refuse(&mut self, key: &str, allowed: impl Display) {
        self.judge(Severity::Error, key, &allowed.to_string());
    }

    /// Warns about the value of a key of this section.
    pub(super) fn warn(&mut self, key: &str, remark: impl Display) {
        self.judge(Severity::Warning, key, &remark.to_string());
    }

    /// Refuses the value of a secret key, showing this much of it.
    pub(super) fn refuse_shown(&mut self, key: &str, shown: &str, allowed: impl Display) {
        let path = join(&self.path, key);
        let given = self.reader.given.get(&path);
        let source = given.map_or_else(
            || self.reader.at_line(self.line),
            |given| given.source.clone(),
        );
        let message = self.about(&format!("{shown}; {allowed}"));
        self.reader.find(Severity::Error, source, path, message);
    }

    /// Whether a variable or the file gave the key, after it was read.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.reader.given.contains_key(&join(&self.path, key))
    }

    fn judge(&mut self, severity: Severity, key: &str, text: &str) {
        let path = join(&self.path, key);
        let (source, written) = match self.reader.given.get(&path) {
            Some(Given {
                source,
                written: Some(written),
            }) => (source.clone(), written.clone()),
            Some(given) => (given.source.clone(), "a value that is not shown".to_owned()),
            None => (self.reader.at_line(self.line), "not given".to_owned()),
        };
        let message = self.about(&format!("{written}; {text}"));
        self.reader.find(severity, source, path, message);
    }

    fn about(&self, message: &str) -> String {
        about(self.subject.as_deref(), message)
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
