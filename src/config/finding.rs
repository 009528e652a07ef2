//! Errors, warnings and notes about a configuration, as data and as a line of text.
//!
//! A finding never holds a secret: the code that makes a finding leaves secrets out.
//!
//! Contract: docs/contract/operations.md#9 (`--check`), docs/contract/operations.md#11 (refusals)

use std::fmt;
use std::path::{Path, PathBuf};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The gateway does not start, or keeps its old configuration.
    Error,
    /// The gateway starts, and its log has a warning.
    Warning,
    /// Information that only `check` and `import` show.
    Note,
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the configuration file, counted from 1; 0 = the file as a whole.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A default.
    Builtin,
}

/// A wrong field of a table that is read apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldFault {
    /// Its path inside of the table that was read.
    pub(super) field: String,
    /// Its line.
    pub(super) line: usize,
    /// What is wrong with it.
    pub(super) message: String,
}

impl FieldFault {
    pub(super) fn new(field: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            line,
            message: message.into(),
        }
    }
}

/// The part of a message that states that an unknown key has no effect.
pub(super) const IGNORED: &str = ", ignored";

/// One error, warning or note about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The origin of a value.
    pub source: Origin,
    /// The full path of the key (`discovery.static.endpoints[2].url`); empty for a finding about
    /// something else.
    pub key: String,
    /// The message.
    pub message: String,
    /// The object that the key belongs to (`endpoint "gpu"`).
    pub subject: Option<String>,
    /// Whether the key does not exist: a warning at start, an error under `check`.
    pub unknown_key: bool,
}

impl Finding {
    /// A finding without a key and an origin.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            source: Origin::Builtin,
            key: String::new(),
            message: message.into(),
            subject: None,
            unknown_key: false,
        }
    }

    /// An error in a file.
    pub fn in_file(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self {
            source: Origin::File {
                path: path.to_path_buf(),
                line,
            },
            ..Self::new(Severity::Error, message)
        }
    }

    /// The finding as an error, for `check`: a configuration with an unknown key is not accepted there,
    /// so the key is not merely ignored.
    #[must_use]
    pub fn into_error(mut self) -> Self {
        self.severity = Severity::Error;
        if self.unknown_key {
            self.message = self.message.replacen(IGNORED, "", 1);
        }
        self
    }

    /// The form for a log: key and message first, then the origin in words.
    pub fn sentence(&self) -> String {
        let place = match &self.source {
            Origin::File { path, line: 0 } => Some(path.display().to_string()),
            Origin::File { path, line } => Some(format!("{} line {line}", path.display())),
            Origin::Env(name) => Some(format!("environment variable {name}")),
            Origin::Builtin => None,
        };
        let about: Vec<String> = self.subject.clone().into_iter().chain(place).collect();
        format!("{}{}{}", self.key_prefix(), self.message, bracketed(&about))
    }

    fn key_prefix(&self) -> String {
        if self.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.key)
        }
    }
}

/// The parts in brackets after a message.
fn bracketed(parts: &[String]) -> String {
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// `<file>:<line>: error: <key.path>: <message>`; for a variable its name comes first.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::File { path, line: 0 } => write!(f, "{}: ", path.display())?,
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display())?,
            Origin::Env(name) => write!(f, "{name}: ")?,
            Origin::Builtin => {}
        }
        let subject: Vec<String> = self.subject.clone().into_iter().collect();
        write!(
            f,
            "{}: {}{}{}",
            self.severity,
            self.key_prefix(),
            self.message,
            bracketed(&subject)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_well_in_both_forms() {
        let message = "expected \"olla\" or \"sherpa\", got \"turbo\"";
        let mut finding = Finding {
            key: "proxy.engine".into(),
            ..Finding::in_file(Path::new("a/b.toml"), 7, message)
        };
        let line = format!("a/b.toml:7: error: proxy.engine: {message}");
        assert_eq!(finding.to_string(), line);
        let line = format!("proxy.engine: {message} (a/b.toml line 7)");
        assert_eq!(finding.sentence(), line);

        finding.subject = Some("endpoint \"gpu\"".into());
        let line = format!("a/b.toml:7: error: proxy.engine: {message} (endpoint \"gpu\")");
        assert_eq!(finding.to_string(), line);
        let line = format!("proxy.engine: {message} (endpoint \"gpu\", a/b.toml line 7)");
        assert_eq!(finding.sentence(), line);

        finding.subject = None;
        finding.source = Origin::Env("OLLA_PROXY_ENGINE".into());
        finding.severity = Severity::Warning;
        let line = format!("OLLA_PROXY_ENGINE: warning: proxy.engine: {message}");
        assert_eq!(finding.to_string(), line);
        assert!(
            finding
                .sentence()
                .ends_with("(environment variable OLLA_PROXY_ENGINE)")
        );

        let finding = Finding::in_file(Path::new("c.toml"), 0, "cannot be read");
        assert_eq!(finding.to_string(), "c.toml: error: cannot be read");
        let finding = Finding::new(Severity::Note, "a remark");
        assert_eq!(finding.to_string(), "note: a remark");
        assert_eq!(finding.sentence(), "a remark");
    }
}
