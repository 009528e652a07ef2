//! The configuration: from a file, the environment and defaults to a validated [`Plan`].
//!
//! Two steps. What was typed becomes one tree with line numbers, whatever the format
//! (`tree.rs`, `yaml.rs`); a reader (`reader.rs`, `key.rs`, `kinds.rs`) walks it by the
//! declarations of the keys (`settings.rs` and one file for each large section) and makes the plan
//! (`plan.rs`, `endpoint.rs`). Every wrong value is a [`Finding`] that names key, value and place; all of them
//! are reported, not only the first.
//!
//! Opens no socket and resolves no name. Besides the configuration itself it reads only the files
//! that credentials and certificates name.
//!
//! contract: operations 9-11

mod auth;
mod endpoint;
mod env;
mod finding;
mod fleet;
mod import;
mod key;
mod kinds;
mod logging;
mod plan;
mod proxy;
mod reader;
mod server;
mod settings;
mod translators;
mod tree;
mod unknown;
mod values;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use endpoint::{
    Auth, BaseUrl, EndpointPlan, EndpointTlsPlan, NameFilter, Scheme, Secret, UrlFault,
};
pub use env::Env;
pub use finding::{Finding, Severity, Source};
pub use import::{Imported, import};
pub use logging::early_logging;
pub use plan::*;
pub use reader::{Fingerprints, KeyDoc};
pub use values::boolean;

use reader::Reader;
use tree::Table;

/// The type of an endpoint whose kind is found out by asking.
pub const AUTO: &str = "auto";

/// Files that are looked for in the working directory when none is named, in this order.
pub const DEFAULT_PATHS: [&str; 4] = [
    "config/config.local.toml",
    "config/config.toml",
    "config.toml",
    "default.toml",
];

/// One accepted value of an endpoint's `type`. [`AUTO`] needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    /// As it may be written.
    pub written: String,
    /// The profile it stands for.
    pub canonical: String,
}

/// What a configuration is read against.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The working directory; relative paths start here.
    pub cwd: &'a Path,
    /// The accepted endpoint types.
    pub types: &'a [TypeName],
    /// Whether a filter admits a name (contract: catalogue 4).
    pub admits: &'a dyn Fn(&NameFilter, &str) -> bool,
}

/// The formats of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The gateway's own.
    Toml,
    /// Olla's.
    Yaml,
}

impl Format {
    /// By the ending of the file's name: `.yaml` and `.yml`, else TOML.
    pub fn of(path: &Path) -> Self {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        match ending.as_deref().and_then(|ending| ending.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }
}

/// The outcome of reading a configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The plan, unless a finding is an error.
    pub plan: Option<Plan>,
    /// Everything there is to say, in the order of the file, then of the environment.
    pub findings: Vec<Finding>,
    /// The file that was read, as it was named; `None` = defaults and environment alone.
    pub source: Option<PathBuf>,
    /// To tell later what a reload changed.
    pub fingerprints: Fingerprints,
}

impl Loaded {
    /// The findings that keep the gateway from starting.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    }

    fn failed(source: Option<PathBuf>, findings: Vec<Finding>) -> Self {
        Self {
            plan: None,
            findings,
            source,
            fingerprints: Fingerprints::default(),
        }
    }
}

/// The path of the configuration file: the named one, `OLLA_CONFIG_FILE`, or the first of
/// [`DEFAULT_PATHS`] that exists; `None` = there is no file. A named file need not exist, reading
/// it will tell.
pub fn locate(named: Option<&Path>, env: &Env, cwd: &Path) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_path_buf());
    }
    if let Some(path) = env.get("OLLA_CONFIG_FILE") {
        return Some(PathBuf::from(path));
    }
    // A path that cannot be examined counts as there: skipping it silently would start the
    // gateway with other settings than the operator sees.
    let exists = |path: &&&str| cwd.join(path).try_exists().unwrap_or(true);
    DEFAULT_PATHS.iter().find(exists).map(PathBuf::from)
}

/// Finds ([`locate`]), reads and validates the configuration.
pub fn load(named: Option<&Path>, inputs: &Inputs<'_>) -> Loaded {
    let Some(path) = locate(named, inputs.env, inputs.cwd) else {
        return plan_from_table(Table::default(), None, inputs);
    };
    let text = std::fs::read(inputs.cwd.join(&path)).map_err(|error| error.to_string());
    let text = text
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()));
    match text {
        Ok(text) => plan_from_str(&text, Format::of(&path), Some(&path), inputs),
        Err(reason) => {
            let finding = Finding {
                severity: Severity::Error,
                source: Source::File {
                    path: path.clone(),
                    line: 0,
                },
                key: String::new(),
                message: format!("cannot be read: {reason}"),
                unknown_key: false,
            };
            Loaded::failed(Some(path), vec![finding])
        }
    }
}

/// Validates a text. The path is only shown.
pub fn plan_from_str(
    text: &str,
    format: Format,
    path: Option<&Path>,
    inputs: &Inputs<'_>,
) -> Loaded {
    let path = path.unwrap_or_else(|| Path::new("config"));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table = match format {
        Format::Toml => tree::from_toml(text),
        Format::Yaml => yaml::from_yaml(text),
    };
    match table {
        Ok(table) => plan_from_table(table, Some(path), inputs),
        Err(errors) => {
            let finding = |error: tree::SyntaxError| Finding {
                severity: Severity::Error,
                source: Source::File {
                    path: path.to_path_buf(),
                    line: error.line,
                },
                key: String::new(),
                message: format!("syntax: {}", error.message),
                unknown_key: false,
            };
            let findings = errors.into_iter().map(finding).collect();
            Loaded::failed(Some(path.to_path_buf()), findings)
        }
    }
}

fn plan_from_table(table: Table, path: Option<&Path>, inputs: &Inputs<'_>) -> Loaded {
    let mut reader = Reader::new(inputs.env, path);
    let plan = settings::plan(&mut reader.root(Some(&table)), inputs);
    reader.report_unknown(&table, reference());
    let (findings, fingerprints) = reader.finish();
    let refused = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    Loaded {
        plan: (!refused).then_some(plan),
        findings,
        source: path.map(Path::to_path_buf),
        fingerprints,
    }
}

/// Every key and variable there is, in the order in which the reference shows them.
pub fn reference() -> &'static [KeyDoc] {
    static REFERENCE: OnceLock<Vec<KeyDoc>> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let env = Env::default();
        let admits = |_: &NameFilter, _: &str| true;
        let inputs = Inputs {
            env: &env,
            cwd: Path::new("."),
            types: &[],
            admits: &admits,
        };
        let mut reader = Reader::new(&env, None);
        settings::plan(&mut reader.root(None), &inputs);
        reader.into_docs()
    })
}

#[cfg(test)]
mod tests;
