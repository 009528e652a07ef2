//! A key between its declaration and its value: the declaration, the source of the raw value, and
//! the three shapes of a value (single, list, table with free keys).
//!
//! The kinds of values are in `kinds.rs`.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::finding::{Finding, Origin, Severity};
use super::nearest::hint;
use super::reader::{ConfigReader, GivenValue, KeptRaw, KeyDoc, join, top_key};
use super::tree::{ConfigNode, ConfigValue};
use super::values::quoted;

/// The declaration of a key, before its value is read.
pub(super) struct KeyDecl<'k, 't> {
    reader: &'k mut ConfigReader<'t>,
    node: Option<&'t ConfigNode>,
    path: String,
    pub(super) doc: KeyDoc,
    subject: Option<String>,
    secret: bool,
    lenient: bool,
    checked: bool,
    /// Whether a value of the file is of the kind that the key takes.
    takes: fn(&ConfigValue) -> bool,
    /// The valid value that is nearest to a wrong one.
    suggest: Option<fn(&str) -> Option<&'static str>>,
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
    /// A declaration with the name of the key only.
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
            checked: true,
            takes: |_| true,
            suggest: None,
        }
    }

    /// The variable that overrides the file.
    pub(super) fn env(mut self, name: &'static str) -> Self {
        self.doc.env = Some(name);
        self
    }

    /// Marks the key as accepted without effect.
    pub(super) fn inert(mut self) -> Self {
        self.doc.inert = true;
        self
    }

    /// Marks the key as one that a YAML file, which is Olla's, sets without effect.
    pub(super) fn inert_in_yaml(mut self) -> Self {
        self.doc.inert_in_yaml = true;
        self
    }

    /// Marks the key as one that takes effect at the next start only.
    pub(super) fn restart(mut self) -> Self {
        self.doc.restart = true;
        self
    }

    /// Marks the value as one that is never shown.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Makes a wrong value a warning; the default takes its place.
    pub(super) fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Validates the value only if its feature is enabled; otherwise a wrong value counts as
    /// absent.
    pub(super) fn checked_if(mut self, on: bool) -> Self {
        self.checked = on;
        self
    }

    /// Sets the kind of value that the key takes. A message shows a value of another kind with its
    /// kind.
    pub(super) fn takes(mut self, takes: fn(&ConfigValue) -> bool) -> Self {
        self.takes = takes;
        self
    }

    /// Suggests a value for a wrong one.
    pub(super) fn suggest(mut self, suggest: fn(&str) -> Option<&'static str>) -> Self {
        self.suggest = Some(suggest);
        self
    }

    /// Reads the value by a function from the raw one, which returns `None` to refuse it.
    pub(super) fn resolve<T: Debug + Clone>(
        mut self,
        kind: Kind,
        default: T,
        parse: impl Fn(Raw<'_>) -> Option<T>,
    ) -> T {
        let allowed = kind.expected;
        self.doc.kind = kind.shown;
        let mut value = match self.raw() {
            None => default.clone(),
            Some(raw) => parse(raw).unwrap_or_else(|| {
                self.fault(&self.path.clone(), raw, &allowed);
                default.clone()
            }),
        };
        if self.is_only_ollas() {
            value = default.clone();
        }
        if self.doc.restart {
            value = self.keep(
                value,
                |raw| parse(raw).unwrap_or_else(|| default.clone()),
                &default,
            );
        }
        self.record(&value);
        value
    }

    /// The value with which the gateway was started. At a reload a new one takes effect at the next
    /// start only.
    fn keep<T: Debug + Clone>(&mut self, new: T, parse: impl Fn(Raw<'_>) -> T, default: &T) -> T {
        let raw = match self.raw() {
            None => KeptRaw::Absent,
            Some(Raw::Env(text)) => KeptRaw::Env(text.to_owned()),
            Some(Raw::File(node)) => KeptRaw::File(node.clone()),
        };
        let Some(kept) = self.reader.kept_before(&self.path) else {
            self.reader.kept.insert(self.path.clone(), raw);
            return new;
        };
        let old = match &kept {
            KeptRaw::Absent => default.clone(),
            KeptRaw::Env(text) => parse(Raw::Env(text)),
            KeptRaw::File(node) => parse(Raw::File(node)),
        };
        self.reader.kept.insert(self.path.clone(), kept);
        if format!("{old:?}") != format!("{new:?}") {
            let raw = self.raw();
            let source = raw.map_or(Origin::Builtin, |raw| self.given(raw).source);
            self.reader.find(Finding {
                source,
                key: self.path.clone(),
                ..Finding::new(
                    Severity::Warning,
                    "changed; restart required, keeping the old value",
                )
            });
        }
        old
    }

    /// Reads the items of a list by a function from the text of each. Each wrong item is one error;
    /// the default then takes the place of the list, so that later checks find a complete value.
    pub(super) fn resolve_list<T: Debug>(
        self,
        kind: Kind,
        default: Vec<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let is_text = |value: &ConfigValue| value.text().is_some();
        self.resolve_raw_list(kind, default, is_text, |raw| raw.text().and_then(&parse))
    }

    /// The same for items of any kind; `takes` says which values of the file are of that kind.
    pub(super) fn resolve_raw_list<T: Debug>(
        mut self,
        kind: Kind,
        default: Vec<T>,
        takes: fn(&ConfigValue) -> bool,
        parse: impl Fn(Raw<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.doc.kind = format!("a list, each {}", kind.shown);
        let kind = kind.expected.as_str();
        let values = match self.raw() {
            None => None,
            Some(Raw::Env(text)) => {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|text| !text.is_empty()).map(Raw::Env);
                self.resolve_items(items, kind, takes, parse)
            }
            Some(raw @ Raw::File(node)) => match &node.value {
                ConfigValue::List(items) => {
                    self.resolve_items(items.iter().map(Raw::File), kind, takes, parse)
                }
                _ => {
                    let allowed = format!("a list, each item {kind}");
                    self.takes = |value| matches!(value, ConfigValue::List(_));
                    self.fault(&self.path.clone(), raw, &allowed);
                    None
                }
            },
        };
        let values = values.unwrap_or(default);
        self.record(&values);
        values
    }

    /// Returns `None` if an item was refused.
    fn resolve_items<'v, T>(
        &mut self,
        items: impl Iterator<Item = Raw<'v>>,
        kind: &str,
        takes: fn(&ConfigValue) -> bool,
        parse: impl Fn(Raw<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut values = Vec::new();
        let mut faulty = false;
        self.takes = takes;
        for (at, raw) in items.enumerate() {
            let given = self.given(raw);
            self.reader
                .given
                .insert(format!("{}[{at}]", self.path), given);
            match parse(raw) {
                Some(value) => values.push(value),
                None => {
                    faulty = true;
                    self.fault(&format!("{}[{at}]", self.path), raw, kind);
                }
            }
        }
        (!faulty).then_some(values)
    }

    /// Reads the entries of a table with free keys.
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
                let allowed = format!("a table, each value {kind}");
                self.takes = |value| matches!(value, ConfigValue::Table(_));
                self.fault(&self.path.clone(), Raw::File(node), &allowed);
                &[]
            }
        };
        self.takes = |_| false;
        for (name, node) in entries {
            let path = join(&self.path, name);
            let given = self.given(Raw::File(node));
            self.reader.given.insert(path.clone(), given);
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

    /// Whether the value is one of Olla's YAML that has no effect in Olla, and so none here.
    fn is_only_ollas(&self) -> bool {
        let is_files = matches!(self.raw(), Some(Raw::File(_)));
        self.doc.inert_in_yaml && is_files && self.reader.is_yaml
    }

    fn fault(&mut self, path: &str, raw: Raw<'_>, allowed: &str) {
        if !self.checked {
            return;
        }
        let GivenValue { source, shown } = self.given(raw);
        let mut message = format!("expected {allowed}, got {shown}");
        let near = match (self.suggest, raw.text()) {
            (Some(suggest), Some(text)) if !self.secret => suggest(text),
            _ => None,
        };
        message += &hint(near);
        let mut severity = Severity::Error;
        if self.lenient {
            severity = Severity::Warning;
            message += &format!("; using the default {}", self.doc.default);
        }
        self.reader.find(Finding {
            source,
            key: path.to_owned(),
            subject: self.subject.clone(),
            ..Finding::new(severity, message)
        });
    }

    /// The origin of a value and its form in a message: for a secret only its kind, for a value of
    /// a wrong kind also its kind.
    fn given(&self, raw: Raw<'_>) -> GivenValue {
        let source = match (raw, self.doc.env) {
            (Raw::Env(_), Some(name)) => Origin::Env(name.to_owned()),
            (Raw::Env(_), None) => Origin::Builtin,
            (Raw::File(node), _) => self.reader.at_line(node.line),
        };
        let shown = match raw {
            Raw::Env(_) if self.secret => "a value that is not shown".to_owned(),
            Raw::Env(text) => quoted(text),
            Raw::File(node) if self.secret => format!("{} that is not shown", node.value.kind()),
            Raw::File(node) if (self.takes)(&node.value) => node.value.written(),
            Raw::File(node) => node.value.described(),
        };
        GivenValue { source, shown }
    }

    fn record(mut self, value: &impl Debug) {
        if let Some(raw) = self.raw() {
            let given = self.given(raw);
            if self.doc.inert {
                let remark = self.doc.doc.trim_end_matches('.');
                let message = format!("accepted for compatibility, has no effect. {remark}");
                self.reader.find(self.no_effect(&given, message));
            } else if self.is_only_ollas() {
                let message = format!("{INERT_IN_YAML}; set it in TOML");
                self.reader.find(self.no_effect(&given, message));
            }
            self.reader.given.insert(self.path.clone(), given);
        }
        let name = match self.doc.env {
            Some(env) if self.path.is_empty() => env,
            _ => top_key(&self.path),
        };
        let name = name.to_owned();
        let mut hasher = DefaultHasher::new();
        (&self.path, format!("{value:?}")).hash(&mut hasher);
        self.reader.fingerprints.add(name, hasher.finish());
        let doc = std::mem::replace(&mut self.doc, KeyDoc::EMPTY);
        self.reader.docs.push(doc);
    }

    fn no_effect(&self, given: &GivenValue, message: String) -> Finding {
        Finding {
            source: given.source.clone(),
            key: self.path.clone(),
            subject: self.subject.clone(),
            ..Finding::new(Severity::Note, message)
        }
    }
}

/// The remark on a value of Olla's YAML without effect
/// (docs/contract/balancing.md#13).
pub(super) const INERT_IN_YAML: &str = "has no effect in a YAML file, as in Olla";

/// The description of the values that a key takes.
pub(super) struct Kind {
    /// The text of an error message after "expected".
    pub(super) expected: String,
    /// The text in the reference.
    pub(super) shown: String,
}

impl From<&str> for Kind {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Kind {
    fn from(text: String) -> Self {
        Self {
            expected: text.clone(),
            shown: text,
        }
    }
}
