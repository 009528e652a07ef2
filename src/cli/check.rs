//! `olla check`, `--check`, `--validate-config`: everything there is to say about a configuration.
//!
//! contract: operations 9

use std::fmt::Write;

use super::Outcome;
use crate::config::{Finding, Loaded, Severity};

/// One line for each finding and a last one with the result. `more` is what profiles and model
/// rules have to say. Keys and variables that do not exist are errors here.
pub fn report(loaded: &Loaded, more: &[Finding]) -> Outcome {
    let mut out = String::new();
    let mut errors = 0;
    for finding in loaded.findings.iter().chain(more) {
        let mut finding = finding.clone();
        if finding.unknown_key {
            finding.severity = Severity::Error;
        }
        errors += usize::from(finding.severity == Severity::Error);
        let _ = writeln!(out, "{finding}");
    }
    match &loaded.plan {
        Some(plan) if errors == 0 => {
            let endpoints = plan.discovery.endpoints.len();
            let aliases = plan.model_aliases.len();
            let _ = writeln!(out, "ok: {endpoints} endpoints, {aliases} aliases");
            Outcome::good(out)
        }
        _ => {
            let _ = writeln!(out, "{errors} errors");
            Outcome {
                stdout: out,
                stderr: String::new(),
                code: Outcome::FAILED,
            }
        }
    }
}
