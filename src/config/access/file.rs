//! `access.keys_file`: TOML with `[[keys]]` and nothing else.
//!
//! Contract: docs/contract/access.md#4.1

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::super::env::Env;
use super::super::finding::{Finding, IGNORED, Origin, Severity};
use super::super::tree::{self, ConfigNode, ConfigTable, ConfigValue};
use super::super::values::quoted;
use super::KeyAccessPlan;
use super::digest::KeyDigest;
use super::entry::{EntryContext, KeyPlan, KeySource, MAX_KEYS, Taken, entry, is_field, table_of};
use super::policy::{PolicyOverrides, PolicyPlan};

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
    pub keys: FileKeys,
    /// The version of the file that was read.
    pub stamp: FileStamp,
}

/// What tells a version of a file from another: when it was changed, its length and its number.
/// `None` = the file is not there.
pub(crate) type FileStamp = Option<(SystemTime, u64, u64)>;

/// The version of a file.
pub(crate) fn file_stamp(path: &Path) -> FileStamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

/// The keys of a file, until they are taken. The plan of a configuration lives longer than the
/// version of the file that was read with it.
#[derive(Debug, Default)]
pub struct FileKeys(Mutex<Arc<Vec<Arc<KeyPlan>>>>);

impl FileKeys {
    pub(super) fn new(keys: Vec<Arc<KeyPlan>>) -> Self {
        Self(Mutex::new(Arc::new(keys)))
    }

    /// The keys, or none once they were taken.
    pub(crate) fn get(&self) -> Arc<Vec<Arc<KeyPlan>>> {
        Arc::clone(&self.lock())
    }

    /// Takes the keys.
    pub(crate) fn take(&self) -> Arc<Vec<Arc<KeyPlan>>> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<Arc<KeyPlan>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for FileKeys {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.get()))
    }
}

impl PartialEq for FileKeys {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for FileKeys {}

/// What a keys file is read with.
pub(super) struct FileContext<'a> {
    pub(super) env: &'a Env,
    pub(super) policies: &'a [PolicyPlan],
    pub(super) placeholders: &'a [KeyDigest],
    /// The keys of the configuration and the environment.
    pub(super) others: &'a [Arc<KeyPlan>],
    /// The keys that the file had before, by name: those that have not changed are shared with them.
    pub(super) known: &'a [Arc<KeyPlan>],
}

/// The keys of a file in its order, and the warnings about it.
///
/// # Errors
/// The faults; then no key of the file counts.
pub(crate) type KeysRead = Result<(Vec<Arc<KeyPlan>>, Vec<Finding>), Vec<Finding>>;

impl KeyAccessPlan {
    /// Reads the keys file again; `None` if there is none. `known` are the keys that it had before,
    /// by name; the result shares those that have not changed.
    pub(crate) fn read_keys_file(&self, env: &Env, known: &[Arc<KeyPlan>]) -> Option<KeysRead> {
        let file = self.keys_file.as_ref()?;
        let placeholders: Vec<_> = self.placeholder_digests().collect();
        let context = FileContext {
            env,
            policies: &self.policies,
            placeholders: &placeholders,
            others: &self.keys,
            known,
        };
        Some(read(&file.path, &file.shown, &context))
    }
}

/// Reads a keys file; `shown` is its path in messages.
pub(super) fn read(path: &Path, shown: &Path, context: &FileContext<'_>) -> KeysRead {
    expect_size(path, shown).map_err(|finding| vec![finding])?;
    let mut reading = FileReading::new(path, shown, context);
    if reading.in_parts(path).is_none() {
        // A string over several lines may have looked like the start of an entry; or there is a
        // fault, which the whole text describes best.
        let text = super::super::load::text_of(path, shown).map_err(|finding| vec![finding])?;
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

/// The name of the entries, and the line that begins one.
const KEYS: &str = "keys";
const ENTRY: &str = "[[keys]]";

/// The entries that are parsed at one time: a document takes a hundred times the memory of its keys.
const ENTRIES_PER_PART: usize = 100;

/// The bytes of a file that are read at one time.
const READ_BYTES: usize = 64 << 10;

/// Keys by name, of which mostly the next one is looked for.
struct Known<'a> {
    keys: &'a [Arc<KeyPlan>],
    next: usize,
}

impl<'a> Known<'a> {
    fn find(&mut self, name: &str) -> Option<&'a Arc<KeyPlan>> {
        let is_next = |key: &&Arc<KeyPlan>| *key.name == *name;
        let at = match self.keys.get(self.next).filter(is_next) {
            Some(_) => self.next,
            None => self
                .keys
                .binary_search_by(|key| (*key.name).cmp(name))
                .ok()?,
        };
        self.next = at + 1;
        self.keys.get(at)
    }
}

fn expect_size(path: &Path, shown: &Path) -> Result<(), Finding> {
    let too_large = std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_BYTES);
    if too_large {
        let message = "expected a file of at most 64 MiB";
        return Err(Finding::in_file(shown, 0, message));
    }
    Ok(())
}

struct FileReading<'a> {
    shown: &'a Path,
    context: EntryContext<'a>,
    others: &'a [Arc<KeyPlan>],
    known: Known<'a>,
    taken: Taken,
    /// Fields of keys in place of their policies': keys that have the same share them.
    overrides: HashSet<Arc<PolicyOverrides>>,
    /// Entries so far.
    count: usize,
    keys: Vec<Arc<KeyPlan>>,
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
            known: Known {
                keys: context.known,
                next: 0,
            },
            taken: Taken::with_capacity(context.others.len() + context.known.len()),
            overrides: HashSet::new(),
            count: 0,
            keys: Vec::with_capacity(context.known.len()),
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

    /// Reads the file in parts that begin with an entry each; `None` if that fails.
    fn in_parts(&mut self, path: &Path) -> Option<()> {
        // What is added while the file is read makes another version of it.
        let file = File::open(path).ok()?.take(MAX_BYTES);
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let (mut text, mut start, mut line, mut entries) = (String::new(), 0, 0, 0);
        loop {
            let at = text.len();
            let is_end = file.read_line(&mut text).ok()? == 0;
            let is_entry = text.get(at..)?.trim_end() == ENTRY;
            entries += usize::from(is_entry);
            if is_end || entries > ENTRIES_PER_PART {
                self.part(text.get(..at)?, start).ok()?;
                text.drain(..at);
                (start, entries) = (line, 1);
            }
            if is_end {
                return Some(());
            }
            line += 1;
        }
    }

    /// Reads one part of the text, which has so many lines before it.
    fn part(&mut self, text: &str, lines: usize) -> Result<(), Vec<tree::SyntaxError>> {
        let root = match tree::plain_entries(KEYS, text, lines) {
            Some(root) => root,
            None => tree::from_toml_part(text, lines)?,
        };
        for (name, node) in root.0.iter().filter(|(name, _)| name != KEYS) {
            let message = "expected [[keys]] entries only";
            self.error(node.line, quoted_key(name), message);
        }
        match root.get(KEYS).map(|node| (&node.value, node.line)) {
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
            let Some(table) = table_of(node) else {
                let message = format!("expected a table, got {}", node.value.described());
                self.error(node.line, format!("keys[{at}]"), &message);
                continue;
            };
            self.entry(table, node.line, at);
        }
    }

    fn entry(&mut self, table: &ConfigTable, line: usize, at: usize) {
        let mut faults = Vec::new();
        let key = entry(table, line, self.context, &mut faults);
        let key = key.map(|key| self.shared(key));
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
        self.keys.extend(key);
        if faults.is_empty() && table.0.iter().all(|(name, _)| is_field(name)) {
            return;
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
    }

    /// The key as one that is shared: with the version before, if it has not changed.
    fn shared(&mut self, mut key: KeyPlan) -> Arc<KeyPlan> {
        let known = self.known.find(&key.name);
        if let Some(same) = known.filter(|known| ***known == key) {
            return Arc::clone(same);
        }
        if let Some(known) = known {
            key.fields.name = Arc::clone(&known.name);
        }
        if let Some(own) = key.fields.overrides.take() {
            let same = self.overrides.get(&own).map(Arc::clone);
            let shared = same.unwrap_or_else(|| {
                self.overrides.insert(Arc::clone(&own));
                own
            });
            key.fields.overrides = Some(shared);
        }
        Arc::new(key)
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
