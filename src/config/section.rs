//! Reading one table of the configuration: its keys, its tables, its lists, and the checks that need
//! more than one key.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::env::Env;
use super::finding::{FieldFault, Finding, Origin, Severity};
use super::key::KeyDecl;
use super::nearest::hint;
use super::reader::{ConfigReader, GivenValue, KeyDoc, join, top_key};
use super::tree::{ConfigNode, ConfigTable, ConfigValue};

impl<'t> ConfigReader<'t> {
    /// The whole document as a section.
    pub(super) fn root(&mut self, table: Option<&'t ConfigTable>) -> Section<'_, 't> {
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
}

/// One table of the configuration, present or not.
pub(super) struct Section<'r, 't> {
    reader: &'r mut ConfigReader<'t>,
    table: Option<&'t ConfigTable>,
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

    /// The table of this name inside.
    pub(super) fn section(&mut self, name: &str) -> Section<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let path = join(&self.path, name);
        let pattern = join(&self.pattern, name);
        let line = node.map_or(self.line, |node| node.line);
        let table = match node.map(|node| &node.value) {
            Some(ConfigValue::Table(table)) => Some(table),
            Some(other) => {
                let message = format!("expected a table, got {}", other.described());
                self.error_at(line, path.clone(), message);
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

    /// The folder in which relative paths of the file begin: the file's own, else the working
    /// directory.
    pub(super) fn folder(&self) -> PathBuf {
        self.reader.folder.clone()
    }

    /// The entries of the table that are there, if its keys are free.
    pub(super) fn entries(&self) -> Vec<(&'t str, &'t ConfigNode)> {
        let entries = self.table.into_iter().flat_map(|table| &table.0);
        let present = entries.filter(|(_, node)| !node.is_null());
        present.map(|(name, node)| (name.as_str(), node)).collect()
    }

    /// Adds a key to the reference that is read by other means; its path begins in this table.
    pub(super) fn document(&mut self, doc: KeyDoc) {
        let path = join(&self.pattern, &doc.path);
        self.reader.docs.push(KeyDoc { path, ..doc });
    }

    /// Reports the faults in a table inside of this one, of which `inside` is the path.
    pub(super) fn refuse_fields(&mut self, inside: &str, faults: Vec<FieldFault>) {
        let base = if self.path.is_empty() {
            inside.to_owned()
        } else {
            format!("{}.{inside}", self.path)
        };
        for fault in faults {
            let path = if fault.field.is_empty() {
                base.clone()
            } else {
                format!("{base}.{}", fault.field)
            };
            self.error_at(fault.line, path, fault.message);
        }
    }

    /// Reports an error about the table itself.
    pub(super) fn refuse_all(&mut self, message: String) {
        self.error_at(self.line, self.path.clone(), message);
    }

    /// Reports an error about a variable without a key.
    pub(super) fn refuse_variable(&mut self, name: &str, message: impl Display) {
        self.reader.find(Finding {
            source: Origin::Env(name.to_owned()),
            ..Finding::new(Severity::Error, message.to_string())
        });
    }

    /// Reports findings about another file.
    pub(super) fn find_all(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.reader.find(finding);
        }
    }

    /// Whether the configuration has the table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The tables of a list, or `None` if the list is absent. Items of other kinds are reported and
    /// left out.
    pub(super) fn items(&mut self, name: &str) -> Option<Vec<(usize, &'t ConfigNode)>> {
        let node = self.table.and_then(|table| table.get(name))?;
        let path = join(&self.path, name);
        let given = GivenValue {
            source: self.reader.at_line(node.line),
            shown: node.value.described(),
        };
        self.reader.given.insert(path.clone(), given);
        let ConfigValue::List(items) = &node.value else {
            let message = format!("expected a list of tables, got {}", node.value.described());
            self.error_at(node.line, path, message);
            return Some(Vec::new());
        };
        let mut tables = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if matches!(item.value, ConfigValue::Table(_)) {
                tables.push((at, item));
                continue;
            }
            let message = format!("expected a table, got {}", item.value.described());
            self.error_at(item.line, format!("{path}[{at}]"), message);
        }
        Some(tables)
    }

    fn error_at(&mut self, line: usize, key: String, message: String) {
        let source = self.reader.at_line(line);
        self.reader.find(Finding {
            source,
            key,
            subject: self.subject.clone(),
            ..Finding::new(Severity::Error, message)
        });
    }

    /// One table of a list. Without a node it is an empty table.
    pub(super) fn item(
        &mut self,
        name: &str,
        item: Option<(usize, &'t ConfigNode)>,
    ) -> Section<'_, 't> {
        let mut path = join(&self.path, name);
        let pattern = format!("{}[]", join(&self.pattern, name));
        let mut line = self.line;
        let mut table = None;
        if let Some((at, node)) = item {
            path = format!("{path}[{at}]");
            line = node.line;
            if let ConfigValue::Table(found) = &node.value {
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

    /// Adds the resolved value of a key (the value of a variable, the content of a file) to those that
    /// a reload compares. Only its hash is kept.
    pub(super) fn fingerprint(&mut self, key: &str, value: &str) {
        let path = join(&self.path, key);
        let name = top_key(&path).to_owned();
        let mut hasher = DefaultHasher::new();
        (&path, value).hash(&mut hasher);
        self.reader.fingerprints.add(name, hasher.finish());
    }

    /// Sets the object that the findings of this section name (`endpoint "gpu"`).
    pub(super) fn name_subject(&mut self, subject: String) {
        self.subject = Some(subject);
    }

    /// Declares a key. The remark is one or two sentences for the reference.
    pub(super) fn key(&mut self, name: &str, doc: &'static str) -> KeyDecl<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let (path, pattern) = (join(&self.path, name), join(&self.pattern, name));
        self.declare(node, path, pattern, doc)
    }

    /// Declares an option that only a variable sets.
    pub(super) fn variable(&mut self, name: &'static str, doc: &'static str) -> KeyDecl<'_, 't> {
        self.declare(None, String::new(), String::new(), doc)
            .env(name)
    }

    fn declare(
        &mut self,
        node: Option<&'t ConfigNode>,
        path: String,
        pattern: String,
        doc: &'static str,
    ) -> KeyDecl<'_, 't> {
        let doc = KeyDoc {
            path: pattern,
            doc,
            ..KeyDoc::EMPTY
        };
        KeyDecl::new(&mut *self.reader, node, path, doc, self.subject.clone())
    }

    /// Reports an error about a key of this section, `expected WHAT, got WHAT`, or that the key is
    /// missing. It is for checks that need more than one key.
    pub(super) fn expected(&mut self, key: &str, what: impl Display) {
        let path = join(&self.path, key);
        match self.reader.given.get(&path) {
            Some(given) => {
                let message = format!("expected {what}, got {}", given.shown);
                self.find(Severity::Error, key, message);
            }
            None => {
                let message = format!("expected {what}, but the key is missing");
                let finding = self.finding(Severity::Error, key, message);
                self.reader.find_missing(finding);
            }
        }
    }

    /// The same with a suggestion.
    pub(super) fn expected_near(&mut self, key: &str, what: impl Display, near: Option<&str>) {
        let path = join(&self.path, key);
        match self.reader.given.get(&path) {
            Some(given) => {
                let message = format!("expected {what}, got {}{}", given.shown, hint(near));
                self.find(Severity::Error, key, message);
            }
            None => self.expected(key, what),
        }
    }

    /// The same for a secret value, with the part that may be shown.
    pub(super) fn expected_shown(&mut self, key: &str, shown: &str, what: impl Display) {
        self.find(
            Severity::Error,
            key,
            format!("expected {what}, got {shown}"),
        );
    }

    /// Reports an error about a key of this section with this message.
    pub(super) fn refuse(&mut self, key: &str, message: impl Display) {
        self.find(Severity::Error, key, message.to_string());
    }

    /// Reports a warning about a key of this section.
    pub(super) fn warn(&mut self, key: &str, message: impl Display) {
        self.find(Severity::Warning, key, message.to_string());
    }

    /// Reports a warning with a suggestion.
    pub(super) fn warn_near(&mut self, key: &str, message: &str, near: Option<&str>) {
        self.warn(key, format!("{message}{}", hint(near)));
    }

    /// Reports a warning about an item of a list.
    pub(super) fn warn_item(&mut self, key: &str, at: usize, message: impl Display) {
        let mut finding = self.finding(Severity::Warning, key, message.to_string());
        finding.key = format!("{}[{at}]", finding.key);
        if let Some(item) = self.reader.given.get(&finding.key) {
            finding.source = item.source.clone();
        }
        self.reader.find(finding);
    }

    /// Reports a note about a key of this section, if the key was given.
    pub(super) fn note(&mut self, key: &str, message: impl Display) {
        if self.is_given(key) {
            self.find(Severity::Note, key, message.to_string());
        }
    }

    /// Notes that a key has Olla's default in the file, where ours is another
    /// (docs/contract/operations.md#10).
    pub(super) fn note_old_default(&mut self, key: &str, ours: impl Display) {
        let given = self.reader.given.get(&join(&self.path, key));
        if given.is_some_and(|given| matches!(given.source, Origin::File { .. })) {
            let message = format!("Olla's default; without this line it is {ours}");
            self.note(key, message);
        }
    }

    /// Whether a variable or the file gives the key. The key must have been read.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.reader.given.contains_key(&join(&self.path, key))
    }

    /// Whether an error about the key is reported already: its consequences are not reported.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.reader.is_faulty(&join(&self.path, key))
    }

    fn find(&mut self, severity: Severity, key: &str, message: String) {
        let finding = self.finding(severity, key, message);
        self.reader.find(finding);
    }

    fn finding(&self, severity: Severity, key: &str, message: String) -> Finding {
        let path = join(&self.path, key);
        let given = self.reader.given.get(&path);
        let source = given.map_or_else(
            || self.reader.at_line(self.line),
            |given| given.source.clone(),
        );
        Finding {
            source,
            key: path,
            subject: self.subject.clone(),
            ..Finding::new(severity, message)
        }
    }
}
