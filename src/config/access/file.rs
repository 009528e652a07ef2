//! `access.keys_file`: TOML with `[[keys]]` and nothing else.
//!
//! Contract: docs/contract/access.md#4.1

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::env::Env;
use super::super::finding::{Finding, IGNORED, Origin, Severity};
use super::super::tree::{self, ConfigTable, ConfigValue};
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
    let root = tree::from_toml(&text).map_err(|errors| {
        let finding = |error: tree::SyntaxError| {
            Finding::in_file(shown, error.line, format!("syntax: {}", error.message))
        };
        errors
            .into_iter()
            .take(MAX_FINDINGS)
            .map(finding)
            .collect::<Vec<_>>()
    })?;
    drop(text);
    let mut reading = FileReading {
        shown,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let keys = reading.keys(&root, path, context);
    if reading.errors.is_empty() {
        Ok((keys, reading.warnings))
    } else {
        reading.errors.append(&mut reading.warnings);
        Err(reading.errors)
    }
}

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
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl FileReading<'_> {
    fn keys(&mut self, root: &ConfigTable, path: &Path, context: &FileContext<'_>) -> Vec<KeyPlan> {
        for (name, node) in root.0.iter().filter(|(name, _)| name != "keys") {
            self.error(
                node.line,
                quoted_key(name),
                "expected [[keys]] entries only",
            );
        }
        let items = match root.get("keys").map(|node| (&node.value, node.line)) {
            None => return Vec::new(),
            Some((ConfigValue::List(items), _)) => items,
            Some((other, line)) => {
                let message = format!("expected [[keys]] entries, got {}", other.described());
                self.error(line, "keys".to_owned(), &message);
                return Vec::new();
            }
        };
        let max = MAX_KEYS.saturating_sub(context.others.len());
        if items.len() > max {
            let message = format!(
                "expected at most {MAX_KEYS} keys in all, got {}",
                items.len()
            );
            self.error(0, "keys".to_owned(), &message);
            return Vec::new();
        }
        let mut taken = Taken::default();
        for key in context.others {
            let place = format!(
                "the {} key {}",
                key.source.as_str(),
                quoted(&key.fields.name)
            );
            taken.take(key, &place, 0, &mut Vec::new());
        }
        let context = EntryContext {
            env: context.env,
            folder: path.parent().unwrap_or(Path::new("")),
            policies: context.policies,
            placeholders: context.placeholders,
            source: KeySource::File,
        };
        let mut keys = Vec::with_capacity(items.len());
        for (at, node) in items.iter().enumerate() {
            if self.errors.len() >= MAX_FINDINGS {
                break;
            }
            let place = format!("keys[{at}]");
            let Some(table) = table_of(node) else {
                let message = format!("expected a table, got {}", node.value.described());
                self.error(node.line, place, &message);
                continue;
            };
            let mut faults = Vec::new();
            let key = entry(table, node.line, context, &mut faults);
            if let Some(key) = &key {
                taken.take(key, &place, node.line, &mut faults);
            }
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
            keys.extend(key);
        }
        keys
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
