//! `olla check`, `--check`, `--validate-config`: the report about a configuration.
//!
//! Contract: docs/contract/operations.md#9, docs/contract/observe.md#8

use std::fmt::Write;

use super::CommandOutput;
use crate::config::{Finding, Loaded, Plan, Severity};

/// The file, one line for each finding and note, and the result as the last line. `more` are the
/// warnings about profiles and model rules. An unknown key is an error here.
pub(crate) fn report(loaded: &Loaded, more: &[Finding]) -> CommandOutput {
    let mut out = String::new();
    let _ = match &loaded.source {
        Some(path) => writeln!(out, "checking {}", path.display()),
        None => writeln!(
            out,
            "checking the built-in defaults: no configuration file was found"
        ),
    };
    let mut findings: Vec<Finding> = loaded
        .findings
        .iter()
        .chain(&loaded.notes)
        .cloned()
        .collect();
    findings.sort_by(|a, b| a.source.cmp(&b.source));
    findings.extend(more.iter().cloned());
    findings.extend(loaded.plan.as_ref().and_then(any_page));
    let mut errors = 0;
    for mut finding in findings {
        if finding.unknown_key {
            finding = finding.into_error();
        }
        errors += usize::from(finding.severity == Severity::Error);
        let _ = writeln!(out, "{finding}");
    }
    match &loaded.plan {
        Some(plan) if errors == 0 => {
            let endpoints = count(plan.discovery.endpoints.len(), "endpoint", "endpoints");
            let aliases = count(plan.model_aliases.len(), "alias", "aliases");
            let _ = writeln!(out, "ok: {endpoints}, {aliases}");
            CommandOutput::good(out)
        }
        _ => {
            let _ = writeln!(out, "{}", count(errors, "error", "errors"));
            CommandOutput {
                stdout: out,
                stderr: String::new(),
                code: CommandOutput::FAILED,
            }
        }
    }
}

/// What it means that pages of any origin are served (docs/contract/observe.md#8).
fn any_page(plan: &Plan) -> Option<Finding> {
    let cors = &plan.server.cors;
    // A page has no key.
    let is_open = !plan.access.enabled || plan.access.anonymous.is_some();
    (is_open && cors.enabled && cors.any_origin()).then(|| Finding {
        key: "server.cors.allowed_origins".to_owned(),
        ..Finding::new(
            Severity::Note,
            "\"*\", and olla does not authenticate clients: every web page that a browser with \
             access to the gateway opens can use its models and read the responses; list the \
             origins of your pages, or set server.cors.enabled to false",
        )
    })
}

/// A number and its noun.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
