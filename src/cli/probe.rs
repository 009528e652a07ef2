//! `olla check --probe`: the table of the endpoints that were asked. Pure.
//!
//! Contract: docs/contract/observe.md#1

use std::fmt::Write;
use std::time::Duration;

use super::CommandOutput;
use super::check::count;
use super::table::Table;
use crate::format;

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) status: &'static str,
    /// Duration of the health check, if there was a response.
    pub(crate) latency: Option<Duration>,
    pub(crate) models: Option<usize>,
    pub(crate) version: Option<String>,
    pub(crate) url: String,
    /// Its errors: kind and message.
    pub(crate) errors: Vec<String>,
    pub(crate) has_failed: bool,
}

/// Adds the table and the number of endpoints that have failed to the report of a check.
pub(crate) fn report(check: CommandOutput, rows: impl IntoIterator<Item = Row>) -> CommandOutput {
    let mut table = Table::new(&[
        "ENDPOINT", "TYPE", "STATUS", "LATENCY", "MODELS", "VERSION", "URL", "ERROR",
    ]);
    let (mut asked, mut failed) = (0, 0);
    for row in rows {
        asked += 1;
        failed += usize::from(row.has_failed);
        let number = |number: usize| number.to_string();
        table.row([
            row.name,
            row.kind,
            row.status.to_owned(),
            row.latency.map_or_else(String::new, latency),
            row.models.map_or_else(String::new, number),
            row.version.unwrap_or_default(),
            row.url,
            row.errors.join("; "),
        ]);
    }
    let mut out = check;
    let verdict = if failed == 0 {
        format!(
            "{} asked, none failed",
            count(asked, "endpoint", "endpoints")
        )
    } else {
        format!(
            "{failed} of {} failed",
            count(asked, "endpoint", "endpoints")
        )
    };
    let _ = write!(out.stdout, "\n{}\n{verdict}\n", table.show());
    if failed > 0 {
        out.code = CommandOutput::ENDPOINT_FAILED;
    }
    out
}

fn latency(took: Duration) -> String {
    format::latency(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_why_and_the_code_that_one_failed() {
        let good = Row {
            name: "gpu".to_owned(),
            kind: "vllm".to_owned(),
            status: "healthy",
            latency: Some(Duration::from_millis(12)),
            models: Some(2),
            version: Some("0.11.1".to_owned()),
            url: "http://g:1".to_owned(),
            ..Row::default()
        };
        let bad = Row {
            name: "old".to_owned(),
            kind: "auto".to_owned(),
            status: "offline",
            url: "http://o:1".to_owned(),
            errors: vec!["refused: connection refused".to_owned()],
            has_failed: true,
            ..Row::default()
        };
        let check = || CommandOutput::good("ok: 2 endpoints, 0 aliases\n");
        let all = report(check(), [good.clone(), bad]);
        let want = "ok: 2 endpoints, 0 aliases\n\n\
            ENDPOINT  TYPE  STATUS   LATENCY  MODELS  VERSION  URL         ERROR\n\
            gpu       vllm  healthy  12ms     2       0.11.1   http://g:1  -\n\
            old       auto  offline  -        -       -        http://o:1  refused: connection refused\n\
            \n1 of 2 endpoints failed\n";
        assert_eq!((all.stdout.as_str(), all.code), (want, 3));
        let one = report(check(), [good]);
        assert!(one.stdout.ends_with("\n1 endpoint asked, none failed\n"));
        assert_eq!(one.code, 0);
    }
}
