//! `olla import FILE`: prints a YAML configuration of Olla, LiteLLM or llama-swap as TOML, and findings
//! on standard error.
//!
//! Contract: docs/contract/operations.md#9

use std::fmt::Write;
use std::path::Path;

use super::CommandOutput;
use crate::config::{ConfigInputs, ConfigKind, Severity, convert, text_of};

/// Reads and converts the file. The exit code is 1 if the file cannot be read, is not YAML, is of no
/// known kind, or has an error; in the last case the TOML is printed as well.
pub(crate) fn run(
    file: &Path,
    kind: Option<ConfigKind>,
    inputs: &ConfigInputs<'_>,
) -> CommandOutput {
    let text = match text_of(&inputs.cwd.join(file), file) {
        Ok(text) => text,
        Err(finding) => return CommandOutput::bad(format!("{finding}\n"), CommandOutput::FAILED),
    };
    let (stdout, findings) = match convert(&text, file, kind, inputs) {
        Ok(imported) => (imported.toml, imported.findings),
        Err(findings) => (String::new(), findings),
    };
    let mut stderr = String::new();
    for finding in &findings {
        let _ = writeln!(stderr, "{finding}");
    }
    let refused = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    CommandOutput {
        stdout,
        stderr,
        code: if refused { CommandOutput::FAILED } else { 0 },
    }
}
