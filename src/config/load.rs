//! From a file to a plan: finding the file, detecting its format, reading and validating it.
//!
//! No socket is opened and no name is resolved. Besides the configuration file, only the files of
//! credentials and certificates are read.
//!
//! Contract: docs/contract/operations.md#10

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::access::KeyPlan;
use super::endpoint::NameFilter;
use super::env::Env;
use super::finding::{Finding, Severity};
use super::foreign::kind::ConfigKind;
use super::inputs::ConfigInputs;
use super::plan::{Plan, ServerPlan};
use super::reader::{ConfigReader, Fingerprints, KeyDoc, RestartOnly};
use super::tree::{self, ConfigTable};
use super::{settings, yaml};

/// The files that are tried in the working directory, in this order, if no file is named.
pub(crate) const DEFAULT_PATHS: [&str; 8] = [
    "config/config.local.toml",
    "config/config.toml",
    "config.toml",
    "default.toml",
    "config/config.local.yaml",
    "config/config.yaml",
    "config.yaml",
    "default.yaml",
];

/// The formats of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// TOML, the native format.
    Toml,
    /// YAML, the format of Olla.
    Yaml,
}

impl FileFormat {
    /// Detects the format by the ending `.toml`, `.yaml` or `.yml`, otherwise by the content.
    pub fn of(path: &Path, text: &str) -> Self {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        match ending.as_deref().and_then(|ending| ending.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("toml") => Self::Toml,
            _ => Self::of_content(text),
        }
    }

    /// Detects the format by the first line that is not a comment: `key:` and `---` are YAML.
    fn of_content(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(str::trim);
        let first = lines
            .filter(|line| !line.starts_with('#'))
            .find(|line| !line.is_empty());
        let Some(first) = first else {
            return Self::Toml;
        };
        let key = first.split(['=', ':']).next().map_or(0, str::len);
        let is_mapping = first[key..].starts_with(':') && !first.starts_with('[');
        if is_mapping || first.starts_with("---") || first.starts_with('%') {
            Self::Yaml
        } else {
            Self::Toml
        }
    }
}

/// The outcome of reading a configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The plan, unless a finding is an error.
    pub plan: Option<Plan>,
    /// The listener's part of the plan, also if another part has errors; `None` = the file cannot
    /// be read.
    pub server: Option<ServerPlan>,
    /// Errors and warnings, in the order of the file, then of the environment.
    pub findings: Vec<Finding>,
    /// Notes, in the same order: shown by `check` and `import`.
    pub notes: Vec<Finding>,
    /// The path of the file that was read, as given; `None` = only defaults and environment.
    pub source: Option<PathBuf>,
    /// Fingerprints of the values, to find out what a reload changes.
    pub fingerprints: Fingerprints,
    /// The raw values of the keys that need a restart, for a reload.
    pub restart_only: RestartOnly,
}

/// What a reload goes on from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce<'a> {
    /// Keys that need a restart keep these values.
    pub restart_only: &'a RestartOnly,
    /// The keys of the keys file, by name: those that it still has are shared.
    pub file_keys: &'a [Arc<KeyPlan>],
}

impl Loaded {
    /// The findings that prevent a start.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    }

    fn failed(source: Option<PathBuf>, findings: Vec<Finding>) -> Self {
        Self {
            plan: None,
            server: None,
            findings,
            notes: Vec::new(),
            source,
            fingerprints: Fingerprints::default(),
            restart_only: RestartOnly::default(),
        }
    }
}

/// The path of the configuration file: the named one, `OLLA_CONFIG_FILE`, or the first of
/// [`DEFAULT_PATHS`] that exists; `None` = there is no file. Whether a named file exists is found
/// out by reading it.
pub(crate) fn locate(named: Option<&Path>, env: &Env, cwd: &Path) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_path_buf());
    }
    if let Some(path) = env.get("OLLA_CONFIG_FILE") {
        return Some(PathBuf::from(path));
    }
    existing(cwd).next().map(PathBuf::from)
}

/// The default paths that exist and are not read because of an earlier one; none if a file is
/// named.
pub(crate) fn passed_over(named: Option<&Path>, env: &Env, cwd: &Path) -> Vec<PathBuf> {
    if named.is_some() || env.get("OLLA_CONFIG_FILE").is_some() {
        return Vec::new();
    }
    existing(cwd).skip(1).map(PathBuf::from).collect()
}

/// The default paths that exist. A path that cannot be examined counts as existing: skipping it
/// would start the gateway with other settings than the operator sees.
fn existing(cwd: &Path) -> impl Iterator<Item = &'static str> {
    let exists = move |path: &&'static str| cwd.join(path).try_exists().unwrap_or(true);
    DEFAULT_PATHS.into_iter().filter(exists)
}

/// Finds ([`locate`]), reads and validates the configuration.
pub(crate) fn load(named: Option<&Path>, inputs: &ConfigInputs<'_>) -> Loaded {
    read(named, inputs, None)
}

/// The same for a running gateway: keys that need a restart keep the values of the start, and a
/// warning reports the difference.
pub(crate) fn reload(
    named: Option<&Path>,
    inputs: &ConfigInputs<'_>,
    in_force: InForce<'_>,
) -> Loaded {
    read(named, inputs, Some(in_force))
}

fn read(named: Option<&Path>, inputs: &ConfigInputs<'_>, in_force: Option<InForce<'_>>) -> Loaded {
    let Some(path) = locate(named, inputs.env, inputs.cwd) else {
        return plan_from_table(&ConfigTable::default(), None, inputs, in_force);
    };
    match text_of(&inputs.cwd.join(&path), &path) {
        Ok(text) => plan_from_text(&text, FileFormat::of(&path, &text), &path, inputs, in_force),
        Err(finding) => Loaded::failed(Some(path), vec![finding]),
    }
}

/// Reads a file. `shown` is its path in messages.
///
/// # Errors
/// It cannot be read, or is not UTF-8; the finding names the line of the first other byte.
pub(crate) fn text_of(path: &Path, shown: &Path) -> Result<String, Finding> {
    let bytes = std::fs::read(path)
        .map_err(|error| Finding::in_file(shown, 0, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let end = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(end);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Finding::in_file(shown, line, "cannot be read: expected UTF-8 text")
    })
}

/// Validates a text. The path is used in messages only.
pub fn plan_from_str(
    text: &str,
    format: FileFormat,
    path: Option<&Path>,
    inputs: &ConfigInputs<'_>,
) -> Loaded {
    let path = path.unwrap_or_else(|| Path::new("config"));
    plan_from_text(text, format, path, inputs, None)
}

fn plan_from_text(
    text: &str,
    format: FileFormat,
    path: &Path,
    inputs: &ConfigInputs<'_>,
    in_force: Option<InForce<'_>>,
) -> Loaded {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table = match format {
        FileFormat::Toml => tree::from_toml(text),
        FileFormat::Yaml => yaml::from_yaml(text),
    };
    match table {
        Ok(table)
            if format == FileFormat::Yaml
                && let Some(kind) = ConfigKind::of(&table, reference())
                && let Some(message) = kind.refusal(path) =>
        {
            let findings = vec![Finding::in_file(path, 0, message)];
            Loaded::failed(Some(path.to_path_buf()), findings)
        }
        Ok(table) => plan_from_table(&table, Some((path, format)), inputs, in_force),
        Err(errors) => {
            let finding = |error: tree::SyntaxError| {
                Finding::in_file(path, error.line, format!("syntax: {}", error.message))
            };
            let other = FileFormat::of_content(text);
            let mistaken = match (format, other) {
                (FileFormat::Toml, FileFormat::Yaml) => Some(
                    "syntax: expected TOML, got what looks like YAML; \
                     rename the file to end with .yaml",
                ),
                (FileFormat::Yaml, FileFormat::Toml) if tree::from_toml(text).is_ok() => {
                    Some("syntax: expected YAML, got TOML; olla reads it from a file named *.toml")
                }
                _ => None,
            };
            let line = errors.first().map_or(0, |error| error.line);
            let findings = match mistaken {
                Some(message) => vec![Finding::in_file(path, line, message)],
                None => errors.into_iter().map(finding).collect(),
            };
            Loaded::failed(Some(path.to_path_buf()), findings)
        }
    }
}

fn plan_from_table(
    table: &ConfigTable,
    file: Option<(&Path, FileFormat)>,
    inputs: &ConfigInputs<'_>,
    in_force: Option<InForce<'_>>,
) -> Loaded {
    let mut reader = ConfigReader::new(inputs.env, file.map(|(path, _)| path));
    reader.is_yaml = file.is_some_and(|(_, format)| format == FileFormat::Yaml);
    let folder = file.and_then(|(path, _)| path.parent());
    let file_keys = in_force.map_or(&[][..], |in_force| in_force.file_keys);
    reader.folder = inputs.cwd.join(folder.unwrap_or(Path::new("")));
    reader.keep(in_force.map(|in_force| in_force.restart_only));
    let plan = settings::plan(&mut reader.root(Some(table)), inputs, file_keys);
    reader.report_unknown(table, reference());
    let report = reader.finish();
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    let refused = report.findings.iter().any(is_error);
    Loaded {
        server: Some(plan.server.clone()),
        plan: (!refused).then_some(plan),
        findings: report.findings,
        notes: report.notes,
        source: file.map(|(path, _)| path.to_path_buf()),
        fingerprints: report.fingerprints,
        restart_only: report.kept,
    }
}

/// All keys and variables, in the order of the reference.
pub fn reference() -> &'static [KeyDoc] {
    static REFERENCE: OnceLock<Vec<KeyDoc>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let env = Env::default();
        let admits = |_: &NameFilter, _: &str| true;
        let inputs = ConfigInputs {
            env: &env,
            cwd: Path::new("."),
            types: &[],
            admits: &admits,
        };
        let mut reader = ConfigReader::new(&env, None);
        settings::plan(&mut reader.root(None), &inputs, &[]);
        reader.into_docs()
    })
}
