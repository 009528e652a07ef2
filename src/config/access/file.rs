//! `access.keys_file`: TOML with `[[keys]]` and nothing else.
//!
//! Contract: docs/contract/access.md#4.1

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::env::Env;
use super::super::finding::{Finding, IGNORED, Origin, Severity};
use super::super::tree::{self, ConfigNode, ConfigTable, ConfigValue};
use super::super::values::quoted;
use super::KeyAccessPlan;
use super::digest::KeyDigest;
use super::entry::{EntryContext, KeyPlan, KeySource, MAX_KEYS, Taken, entry, is_field, table_of};
use super::policy::PolicyPlan;

/// The largest file.
const MAX_BYTES: u64 = 64 << 20;

/// The most findings about one file.
const MAX_FINDINGS: usize = 100;

/// `access.keys_file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysFilePlan {
    /// The file.
    pub path: PathBuf,
    /// The path as messages show it.
    pub shown: PathBuf,
    /// The keys that it held when the configuration was read.
    pub keys: Arc<Vec<KeyPlan>>,
}

/// What a keys file is read with.
pub(super) struct FileContext<'a> {
    pub(super) env: &'a Env,
    pub(super) policies: &'a [PolicyPlan],
    pub(super) placeholders: &'a [KeyDigest],
    /// The keys of the configuration and the environment.
    pub(super) others: &'a [KeyPlan],
}

/// The keys of a file, and the warnings about it.
///
/// # Errors
/// The faults; then no key of the file counts.
pub(crate) type KeysRead = Result<(Vec<KeyPlan>, Vec<Finding>), Vec<Finding>>;

impl KeyAccessPlan {
    /// Reads the keys file again; `None` if there is none.
    pub(crate) fn read_keys_file(&self, env: &Env) -> Option<KeysRead> {
        let file = self.keys_file.as_ref()?;
        let placeholders: Vec<_> = self.placeholder_digests().collect();
        let context = FileContext {
            env,
            policies: &self.policies,
            placeholders: &placeholders,
            others: &self.keys,
        };
        Some(read(&file.path, &file.shown, &context))
    }
}

/// Reads a keys file; `shown` is its path in messages.
pub(super) fn read(path: &Path, shown: &Path, context: &FileContext<'_>) -> KeysRead {
    let text = text(path, shown).map_err(|finding| vec![finding])?;
    let mut reading = FileReading::new(path, shown, context);
    if reading.in_parts(&text).is_err() {
        // A string over several lines may have looked like the start of an entry.
        reading = FileReading::new(path, shown, context);
        if let Err(errors) = reading.part(&text, 0) {
            let finding = |error: tree::SyntaxError| {
                Finding::in_file(shown, error.line, format!("syntax: {}", error.message))
            };
            return Err(errors.into_iter().take(MAX_FINDINGS).map(finding).collect());
        }
    }
    if reading.errors.is_empty() {
        reading.keys.shrink_to_fit();
        Ok((reading.keys, reading.warnings))
    } else {
        reading.errors.append(&mut reading.warnings);
        Err(reading.errors)
    }
}

/// The line that begins an entry.
const ENTRY: &str = "[[keys]]";

/// The entries that are parsed at one time: a document takes a hundred times the memory of its keys.
const ENTRIES_PER_PART: usize = 1_000;

fn text(path: &Path, shown: &Path) -> Result<String, Finding> {
    let too_large = std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_BYTES);
    if too_large {
        return Err(Finding::in_file(
            shown,
            0,
            "expected a file of at most 64 MiB",
        ));
    }
    super::super::load::text_of(path, shown)
}

struct FileReading<'a> {
    shown: &'a Path,
    context: EntryContext<'a>,
    others: &'a [KeyPlan],
    taken: Taken,
    /// Entries so far.
    count: usize,
    keys: Vec<KeyPlan>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl<'a> FileReading<'a> {
    fn new(path: &'a Path, shown: &'a Path, context: &FileContext<'a>) -> Self {
        let mut reading = Self {
            shown,
            context: EntryContext {
                env: context.env,
                folder: path.parent().unwrap_or(Path::new("")),
                policies: context.policies,
                placeholders: context.placeholders,
                source: KeySource::File,
            },
            others: context.others,
            taken: Taken::default(),
            count: 0,
            keys: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        for (number, key) in context.others.iter().enumerate() {
            let place = |_: usize| String::new();
            let taken = &mut reading.taken;
            taken.take(key, (number, 0), &place, &mut Vec::new());
        }
        reading
    }

    /// Reads the text in parts that begin with an entry each.
    fn in_parts(&mut self, text: &str) -> Result<(), Vec<tree::SyntaxError>> {
        let (mut start, mut at, mut lines, mut line, mut entries) = (0, 0, 0, 0, 0);
        for each in text.split_inclusive('\n') {
            if each.trim_end() == ENTRY {
                entries += 1;
                if entries > ENTRIES_PER_PART {
                    self.part(text.get(start..at).unwrap_or_default(), lines)?;
                    (start, lines, entries) = (at, line, 1);
                }
            }
            at += each.len();
            line += 1;
        }
        self.part(text.get(start..).unwrap_or_default(), lines)
    }

    /// Reads one part of the text, which has so many lines before it.
    fn part(&mut self, text: &str, lines: usize) -> Result<(), Vec<tree::SyntaxError>> {
        let root = tree::from_toml_part(text, lines)?;
        for (name, node) in root.0.iter().filter(|(name, _)| name != "keys") {
            let message = "expected [[keys]] entries only";
            self.error(node.line, quoted_key(name), message);
        }
        match root.get("keys").map(|node| (&node.value, node.line)) {
            None => {}
            Some((ConfigValue::List(items), _)) => self.entries(items),
            Some((other, line)) => {
                let message = format!("expected [[keys]] entries, got {}", other.described());
                self.error(line, "keys".to_owned(), &message);
            }
        }
        Ok(())
    }

    fn entries(&mut self, items: &[ConfigNode]) {
        for node in items {
            let at = self.count;
            self.count += 1;
            if self.count + self.others.len() > MAX_KEYS {
                let message = format!("expected at most {MAX_KEYS} keys of all sources");
                return self.error(node.line, "keys".to_owned(), &message);
            }
            if self.errors.len() >= MAX_FINDINGS {
                return;
            }
            let place = format!("keys[{at}]");
            let Some(table) = table_of(node) else {
                let message = format!("expected a table, got {}", node.value.described());
                self.error(node.line, place, &message);
                continue;
            };
            self.entry(table, node.line, at);
        }
    }

    fn entry(&mut self, table: &ConfigTable, line: usize, at: usize) {
        let mut faults = Vec::new();
        let key = entry(table, line, self.context, &mut faults);
        if let Some(key) = &key {
            let others = self.others;
            let place = |number: usize| match others.get(number) {
                Some(other) => {
                    let name = quoted(&other.fields.name);
                    format!("the {} key {name}", other.source.as_str())
                }
                None => format!("keys[{}]", number - others.len()),
            };
            let number = others.len() + at;
            self.taken.take(key, (number, line), &place, &mut faults);
        }
        let place = format!("keys[{at}]");
        let name = table.get("name").and_then(|node| node.value.text());
        let subject = name.map(|name| format!("key {}", quoted(name)));
        for fault in faults {
            let finding = Finding::in_file(self.shown, fault.line, fault.message);
            self.errors.push(Finding {
                key: joined(&place, &fault.field),
                subject: subject.clone(),
                ..finding
            });
        }
        self.unknown_fields(table, &place, subject.as_ref());
        self.keys.extend(key);
    }

    fn unknown_fields(&mut self, table: &ConfigTable, place: &str, subject: Option<&String>) {
        for (name, node) in table.0.iter().filter(|(name, _)| !is_field(name)) {
            if self.warnings.len() >= MAX_FINDINGS {
                return;
            }
            self.warnings.push(Finding {
                source: Origin::File {
                    path: self.shown.to_path_buf(),
                    line: node.line,
                },
                key: joined(place, name),
                subject: subject.cloned(),
                unknown_key: true,
                ..Finding::new(Severity::Warning, format!("unknown key{IGNORED}"))
            });
        }
    }

    fn error(&mut self, line: usize, key: String, message: &str) {
        self.errors.push(Finding {
            key,
            ..Finding::in_file(self.shown, line, message)
        });
    }
}

fn joined(place: &str, field: &str) -> String {
    if field.is_empty() {
        place.to_owned()
    } else {
        super::super::reader::join(place, field)
    }
}

fn quoted_key(name: &str) -> String {
    super::super::reader::join("", name)
}
