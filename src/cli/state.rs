//! `olla state check`: what was found in a state store.
//!
//! Contract: docs/contract/access.md#14

use std::fmt::Write;
use std::path::Path;

use super::CommandOutput;

/// What was found: the counts with their names, and what is damaged.
pub(crate) fn report(file: &Path, counts: &[(&str, String)], faults: &[String]) -> CommandOutput {
    let mut out = format!("checking {}\n", file.display());
    for (name, count) in counts {
        let _ = writeln!(out, "{name}: {count}");
    }
    for fault in faults {
        let _ = writeln!(out, "damaged: {fault}");
    }
    if faults.is_empty() {
        out.push_str("ok\n");
        return CommandOutput::good(out);
    }
    CommandOutput {
        stdout: out,
        ..CommandOutput::failed(&format!(
            "{} is damaged; restore it from a copy, or move it aside and restart the gateway",
            file.display()
        ))
    }
}
