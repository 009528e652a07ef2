//! A configuration that an import writes: tables in the order in which they are first used, and
//! comments for what has no counterpart.

use std::path::{Path, PathBuf};

use super::super::finding::{Finding, Severity};
use super::super::import::{Imported, printable};
use super::super::load::reference;
use super::super::reader::join;
use super::super::tree::{ConfigNode, ConfigValue};
use super::super::values::quoted;

/// A configuration in the making.
pub(super) struct Draft {
    path: PathBuf,
    blocks: Vec<Block>,
    /// The block that was written to last; comments go there.
    current: usize,
    findings: Vec<Finding>,
}

/// A table, or an item of a list of tables.
#[derive(Default)]
struct Block {
    /// Its header with brackets; empty for what stands before the first table.
    header: String,
    lines: Vec<String>,
    keys: Vec<String>,
}

impl Draft {
    pub(super) fn new(path: &Path, program: &str) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let title = format!("# Imported from {} of {program}.", name.to_string_lossy());
        Self {
            path: path.to_path_buf(),
            blocks: vec![Block {
                lines: vec![printable(&title)],
                ..Block::default()
            }],
            current: 0,
            findings: Vec::new(),
        }
    }

    /// Sets a key of a table, unless it is set.
    ///
    /// # Errors
    /// When it has been set before.
    pub(super) fn set(&mut self, table: &str, key: &str, value: &str) -> Result<(), IsSet> {
        let header = format!("[{table}]");
        let found = self.blocks.iter().position(|block| block.header == header);
        self.current = found.unwrap_or_else(|| {
            self.blocks.push(Block {
                header,
                ..Block::default()
            });
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[self.current];
        if block.keys.iter().any(|known| known == key) {
            return Err(IsSet);
        }
        block.keys.push(key.to_owned());
        let line = format!("{} = {value}", join("", key));
        block.lines.push(printable(&line));
        Ok(())
    }

    /// Adds an item to a list of tables.
    pub(super) fn item(&mut self, list: &str, fields: &[(&str, String)]) {
        let line = |(key, value): &(&str, String)| printable(&format!("{key} = {value}"));
        self.blocks.push(Block {
            header: format!("[[{list}]]"),
            lines: fields.iter().map(line).collect(),
            keys: Vec::new(),
        });
        self.current = self.blocks.len() - 1;
    }

    /// A line of comment at the current place.
    pub(super) fn comment(&mut self, text: &str) {
        let line = printable(&format!("# {text}"));
        self.blocks[self.current].lines.push(line);
    }

    /// A key of the file without a counterpart: a comment and a note.
    pub(super) fn remark(&mut self, place: &ImportPlace, why: &str) {
        self.comment(&format!("{}: {why}", place.key));
        self.find(Severity::Note, place, why);
    }

    /// A message about a key of the file.
    pub(super) fn find(&mut self, severity: Severity, place: &ImportPlace, message: &str) {
        self.findings.push(Finding {
            severity,
            key: place.key.clone(),
            ..Finding::in_file(&self.path, place.line, message)
        });
    }

    pub(super) fn finish(self) -> Imported {
        let mut toml = String::new();
        for block in self.blocks {
            if !block.header.is_empty() {
                toml.push_str(&format!("\n{}\n", block.header));
            }
            toml.extend(block.lines);
        }
        Imported {
            toml,
            findings: self.findings,
        }
    }
}

/// A key has a value already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IsSet;

/// A key of the file that is imported.
#[derive(Debug, Clone)]
pub(super) struct ImportPlace {
    /// Its full path.
    pub(super) key: String,
    /// Its line.
    pub(super) line: usize,
}

impl ImportPlace {
    pub(super) fn new(parent: &str, name: &str, node: &ConfigNode) -> Self {
        Self {
            key: join(parent, name),
            line: node.line,
        }
    }
}

/// The text of a single value, also of a number that stands for a text.
pub(super) fn text_of(node: &ConfigNode) -> Option<String> {
    match &node.value {
        ConfigValue::Text(text)
        | ConfigValue::Switch { text, .. }
        | ConfigValue::Float(text)
        | ConfigValue::Datetime(text) => Some(text.clone()),
        ConfigValue::Int(number) => Some(number.to_string()),
        ConfigValue::Bool(_) | ConfigValue::Null | ConfigValue::List(_) | ConfigValue::Table(_) => {
            None
        }
    }
}

/// The texts of a list, or of one text.
pub(super) fn texts_of(node: &ConfigNode) -> Vec<String> {
    match &node.value {
        ConfigValue::List(items) => items.iter().filter_map(text_of).collect(),
        _ => text_of(node).into_iter().collect(),
    }
}

/// A number of seconds as a duration.
pub(super) fn seconds_of(node: &ConfigNode) -> Option<String> {
    let millis = text_of(node)?.parse::<f64>().ok()? * 1000.0;
    if !(0.0..1e12).contains(&millis) {
        return None;
    }
    let millis = millis.round() as u64;
    Some(if millis.is_multiple_of(1000) {
        quoted(&format!("{}s", millis / 1000))
    } else {
        quoted(&format!("{millis}ms"))
    })
}

/// A list of texts as TOML.
pub(super) fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A bearer credential as the value of an endpoint's `auth`.
pub(super) fn bearer(token: &str) -> String {
    format!("{{ type = \"bearer\", token = {} }}", quoted(token))
}

/// Whether olla has a key, and whether it takes a word.
pub(super) fn takes(key: &str, word: Option<&str>) -> bool {
    let doc = reference().iter().find(|doc| doc.path == key);
    doc.is_some_and(|doc| {
        let mut words = doc.kind.split([' ', ',']);
        word.is_none_or(|word| words.any(|known| known == word))
    })
}

/// A name for an endpoint: host and port of its URL, or what is there in its place. `taken` are the
/// names of the others.
pub(super) fn name_of(url: &str, taken: &[String]) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = host.chars().map(plain).collect();
    let name = name.trim_matches('-').to_ascii_lowercase();
    let name = if name.is_empty() {
        "endpoint".to_owned()
    } else {
        name
    };
    let is_free = |name: &String| !taken.contains(name);
    let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    names.find(is_free).unwrap_or(name)
}
