//! One table of the configuration on its way into the plan: its keys, its tables, its lists, and
//! the checks that need more than one key.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::env::Env;
use super::finding::Severity;
use super::key::KeyDecl;
use super::reader::{ConfigReader, GivenValue, KeyDoc, about, join};
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

    /// A table inside.
    pub(super) fn section(&mut self, name: &str) -> Section<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let path = join(&self.path, name);
        let pattern = join(&self.pattern, name);
        let line = node.map_or(self.line, |node| node.line);
        let table = match node.map(|node| &node.value) {
            Some(ConfigValue::Table(table)) => Some(table),
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
    pub(super) fn items(&mut self, name: &str) -> Option<Vec<(usize, &'t ConfigNode)>> {
        let node = self.table.and_then(|table| table.get(name))?;
        let path = join(&self.path, name);
        let given = GivenValue {
            source: self.reader.at_line(node.line),
            written: Some(node.value.kind().to_owned()),
        };
        self.reader.given.insert(path.clone(), given);
        let ConfigValue::List(items) = &node.value else {
            let source = self.reader.at_line(node.line);
            let message = format!("{}; a list of tables", node.value.kind());
            self.reader.find(Severity::Error, source, path, message);
            return Some(Vec::new());
        };
        let mut tables = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if matches!(item.value, ConfigValue::Table(_)) {
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
    pub(super) fn key(&mut self, name: &str, doc: &'static str) -> KeyDecl<'_, 't> {
        let node = self.table.and_then(|table| table.get(name));
        let (path, pattern) = (join(&self.path, name), join(&self.pattern, name));
        self.declare(node, path, pattern, doc)
    }

    /// Declares a setting that only a variable has.
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
            Some(GivenValue {
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
