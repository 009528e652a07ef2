//! A key between its declaration and its value: what was declared, where the raw value comes from,
//! and the three ways to a value of the plan (one, a list, a table with free keys).
//!
//! Knows no kind of value: those stand in `kinds.rs`.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::finding::{Origin, Severity};
use super::reader::{ConfigReader, GivenValue, KeyDoc, about, join};
use super::tree::{ConfigNode, ConfigValue};
use super::values::quoted;

/// A key about to be read: its declaration so far.
pub(super) struct KeyDecl<'k, 't> {
    reader: &'k mut ConfigReader<'t>,
    node: Option<&'t ConfigNode>,
    path: String,
    pub(super) doc: KeyDoc,
    subject: Option<String>,
    secret: bool,
    lenient: bool,
    judged: bool,
}

/// A value before it has a type.
#[derive(Clone, Copy)]
pub(super) enum Raw<'v> {
    /// The text of a variable.
    Env(&'v str),
    /// A value of the file.
    File(&'v ConfigNode),
}

impl Raw<'_> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Raw::Env(text) => Some(text),
            Raw::File(node) => node.value.text(),
        }
    }
}

impl<'k, 't> KeyDecl<'k, 't> {
    /// A key without any further declaration.
    pub(super) fn new(
        reader: &'k mut ConfigReader<'t>,
        node: Option<&'t ConfigNode>,
        path: String,
        doc: KeyDoc,
        subject: Option<String>,
    ) -> Self {
        Self {
            reader,
            node,
            path,
            doc,
            subject,
            secret: false,
            lenient: false,
            judged: true,
        }
    }

    /// The variable that overrides the file.
    pub(super) fn env(mut self, name: &'static str) -> Self {
        self.doc.env = Some(name);
        self
    }

    /// Accepted without effect.
    pub(super) fn inert(mut self) -> Self {
        self.doc.inert = true;
        self
    }

    /// A change needs a new start.
    pub(super) fn restart(mut self) -> Self {
        self.doc.restart = true;
        self
    }

    /// The value is never shown.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A wrong value is a warning, and the default holds.
    pub(super) fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Judges the value only if what it belongs to is switched on; else a wrong one counts as
    /// absent.
    pub(super) fn judged_if(mut self, on: bool) -> Self {
        self.judged = on;
        self
    }

    /// The value by a function from the raw one. `None` of the function = refused.
    pub(super) fn resolve<T: Debug>(
        mut self,
        kind: String,
        default: T,
        parse: impl Fn(Raw<'_>) -> Option<T>,
    ) -> T {
        let allowed = kind.clone();
        self.doc.kind = kind;
        let value = match self.raw() {
            None => default,
            Some(raw) => parse(raw).unwrap_or_else(|| {
                self.fault(&self.path.clone(), raw, &allowed);
                default
            }),
        };
        self.record(&value);
        value
    }

    /// The list's items by a function from the text of each. Each wrong item is a finding of its
    /// own; with one the default holds, so that no later check stumbles over what is missing.
    pub(super) fn resolve_list<T: Debug>(
        mut self,
        kind: &str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.doc.kind = format!("a list, each {kind}");
        let values = match self.raw() {
            None => None,
            Some(Raw::Env(text)) => {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|text| !text.is_empty()).map(Raw::Env);
                self.resolve_items(items, kind, parse)
            }
            Some(raw @ Raw::File(node)) => match &node.value {
                ConfigValue::List(items) => {
                    self.resolve_items(items.iter().map(Raw::File), kind, parse)
                }
                _ => {
                    let allowed = self.doc.kind.clone();
                    self.fault(&self.path.clone(), raw, &allowed);
                    None
                }
            },
        };
        let values = values.unwrap_or(default);
        self.record(&values);
        values
    }

    /// `None` = an item was refused.
    fn resolve_items<'v, T>(
        &mut self,
        items: impl Iterator<Item = Raw<'v>>,
        kind: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut values = Vec::new();
        let mut faulty = false;
        for (at, raw) in items.enumerate() {
            match raw.text().and_then(&parse) {
                Some(value) => values.push(value),
                None => {
                    faulty = true;
                    self.fault(&format!("{}[{at}]", self.path), raw, kind);
                }
            }
        }
        (!faulty).then_some(values)
    }

    /// The entries of a table whose keys are free.
    pub(super) fn resolve_map<T: Debug>(
        mut self,
        kind: &str,
        parse: impl Fn(&ConfigValue) -> Option<T>,
    ) -> Vec<(String, T)> {
        self.doc.kind = format!("a table, each value {kind}");
        let mut values = Vec::new();
        let entries: &[(String, ConfigNode)] = match self.node {
            None => &[],
            Some(ConfigNode {
                value: ConfigValue::Table(table),
                ..
            }) => &table.0,
            Some(node) => {
                let allowed = self.doc.kind.clone();
                self.fault(&self.path.clone(), Raw::File(node), &allowed);
                &[]
            }
        };
        for (name, node) in entries {
            let path = join(&self.path, name);
            let source = self.reader.at_line(node.line);
            let written = (!self.secret).then(|| node.value.written());
            self.reader
                .given
                .insert(path.clone(), GivenValue { source, written });
            match parse(&node.value) {
                Some(value) => values.push((name.clone(), value)),
                None => self.fault(&path, Raw::File(node), kind),
            }
        }
        values.sort_by(|a, b| a.0.cmp(&b.0));
        self.record(&values);
        values
    }

    fn raw(&self) -> Option<Raw<'t>> {
        let variable = self.doc.env.and_then(|name| self.reader.env.get(name));
        variable.map(Raw::Env).or(self.node.map(Raw::File))
    }

    fn fault(&mut self, path: &str, raw: Raw<'_>, allowed: &str) {
        if !self.judged {
            return;
        }
        let (source, written) = self.origin(raw);
        let written = written.unwrap_or_else(|| match raw {
            Raw::Env(_) => "a value that is not shown".to_owned(),
            Raw::File(node) => format!("{}, not shown", node.value.kind()),
        });
        let mut message = about(self.subject.as_deref(), &format!("{written}; {allowed}"));
        let mut severity = Severity::Error;
        if self.lenient {
            severity = Severity::Warning;
            message += &format!("; the default {} holds", self.doc.default);
        }
        self.reader.find(severity, source, path.to_owned(), message);
    }

    fn origin(&self, raw: Raw<'_>) -> (Origin, Option<String>) {
        let (source, written) = match raw {
            Raw::Env(text) => (
                Origin::Env(self.doc.env.unwrap_or_default().to_owned()),
                quoted(text),
            ),
            Raw::File(node) => (self.reader.at_line(node.line), node.value.written()),
        };
        (source, (!self.secret).then_some(written))
    }

    fn record(mut self, value: &impl Debug) {
        if let Some(raw) = self.raw() {
            let (source, written) = self.origin(raw);
            self.reader
                .given
                .insert(self.path.clone(), GivenValue { source, written });
        }
        let name = if self.path.is_empty() {
            self.doc.env.unwrap_or_default().to_owned()
        } else {
            self.path.split('[').next().unwrap_or_default().to_owned()
        };
        let mut hasher = DefaultHasher::new();
        (&self.path, format!("{value:?}")).hash(&mut hasher);
        self.reader.fingerprints.add(name, hasher.finish());
        let doc = std::mem::replace(&mut self.doc, KeyDoc::EMPTY);
        self.reader.docs.push(doc);
    }
}
