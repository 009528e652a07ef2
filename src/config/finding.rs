//! What is wrong with a configuration, as data and as a line for a person.
//!
//! A finding never holds a secret: whoever makes one leaves such values out.
//!
//! contract: operations 9 (`--check`), 11 (refusals)

use std::fmt;
use std::path::PathBuf;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The gateway does not start, or keeps its old configuration.
    Error,
    /// It starts.
    Warning,
}

/// Where the value came from.
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
    /// A default, or the lack of a file.
    Builtin,
}

/// One remark about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where the value came from.
    pub source: Origin,
    /// The full path of the key (`discovery.static.endpoints[2].url`); empty when it is about no
    /// key.
    pub key: String,
    /// What was given and what is allowed.
    pub message: String,
    /// Whether it is about a key or variable that does not exist: a warning at start, an error
    /// under `--check`.
    pub unknown_key: bool,
}

impl Finding {
    /// The form for a log: key and message first, then the place in words.
    pub fn sentence(&self) -> String {
        let place = match &self.source {
            Origin::File { path, line: 0 } => format!(" ({})", path.display()),
            Origin::File { path, line } => format!(" ({} line {line})", path.display()),
            Origin::Env(name) => format!(" (environment variable {name})"),
            Origin::Builtin => String::new(),
        };
        format!("{}{}{place}", self.key_prefix(), self.message)
    }

    fn key_prefix(&self) -> String {
        if self.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.key)
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// `<file>:<line>: error: <key.path>: <message>`; for a variable its name stands first.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::File { path, line: 0 } => write!(f, "{}: ", path.display())?,
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display())?,
            Origin::Env(name) => write!(f, "{name}: ")?,
            Origin::Builtin => {}
        }
        write!(
            f,
            "{}: {}{}",
            self.severity,
            self.key_prefix(),
            self.message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_well_in_both_forms() {
        let mut finding = Finding {
            severity: Severity::Error,
            source: Origin::File {
                path: "a/b.toml".into(),
                line: 7,
            },
            key: "proxy.engine".into(),
            message: "\"turbo\"; one of olla, sherpa".into(),
            unknown_key: false,
        };
        let line = "a/b.toml:7: error: proxy.engine: \"turbo\"; one of olla, sherpa";
        assert_eq!(finding.to_string(), line);
        let line = "proxy.engine: \"turbo\"; one of olla, sherpa (a/b.toml line 7)";
        assert_eq!(finding.sentence(), line);

        finding.source = Origin::Env("OLLA_PROXY_ENGINE".into());
        finding.severity = Severity::Warning;
        let line = "OLLA_PROXY_ENGINE: warning: proxy.engine: \"turbo\"; one of olla, sherpa";
        assert_eq!(finding.to_string(), line);
        assert!(
            finding
                .sentence()
                .ends_with("(environment variable OLLA_PROXY_ENGINE)")
        );

        finding.source = Origin::File {
            path: "c.toml".into(),
            line: 0,
        };
        finding.key.clear();
        assert_eq!(
            finding.to_string(),
            "c.toml: warning: \"turbo\"; one of olla, sherpa"
        );
    }
}
