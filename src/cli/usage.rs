//! `olla usage`: what was used, as a table, JSON or CSV.
//!
//! A report comes in pages, from a running gateway or from a store file.
//!
//! Contract: docs/contract/access.md#14

use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::http::{Base, CliRequest, send};
use super::remote::{field, list, refusal};
use super::table::Table;
use super::{Caller, CommandOutput, UsageCommand};
use crate::format;

/// Rows that are read at once.
const PAGE: &str = "10000";

/// The figures and their headings.
const FIGURES: [(&str, &str); 6] = [
    ("requests", "REQUESTS"),
    ("errors", "ERRORS"),
    ("prompt_tokens", "PROMPT"),
    ("cached_tokens", "CACHED"),
    ("completion_tokens", "COMPLETION"),
    ("seconds", "SECONDS"),
];

/// Prints the report of a running gateway.
pub(crate) fn remote(command: &UsageCommand, address: &str, caller: &Caller) -> CommandOutput {
    let base = match Base::parse(address) {
        Ok(base) => base,
        Err(fault) => {
            let message = format!("olla: --url: {fault}\n");
            return CommandOutput::bad(message, CommandOutput::USAGE);
        }
    };
    show(command, |query| {
        let request = CliRequest {
            method: "GET",
            path: &format!("/internal/usage?{query}"),
            body: None,
        };
        let response = send(&base, &request, caller)?;
        match response.status {
            200 => Ok(response.body),
            status => {
                let body = String::from_utf8_lossy(&response.body);
                Err(refusal(&base, status, &body))
            }
        }
    })
}

/// Prints a report of which `page` reads the pages, each by its query.
pub(crate) fn show(
    command: &UsageCommand,
    page: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> CommandOutput {
    match whole(command, page) {
        Ok(report) if command.remote.json => CommandOutput::good(format!("{report:#}\n")),
        Ok(report) if command.csv => CommandOutput::good(csv(&report)),
        Ok(report) => CommandOutput::good(table(&report)),
        Err(message) => CommandOutput::failed(&message),
    }
}

/// All pages as one.
fn whole(
    command: &UsageCommand,
    page: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Value, String> {
    let mut rows = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", PAGE);
        query.extend_pairs(&command.parameters);
        if let Some(after) = &after {
            query.append_pair("after", after);
        }
        let body = page(&query.finish())?;
        let mut report: Value = serde_json::from_slice(&body)
            .map_err(|error| format!("expected a report as JSON ({error})"))?;
        if let Some(Value::Array(more)) = report.get_mut("rows").map(Value::take) {
            rows.extend(more);
        }
        after = report
            .get("next")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if after.is_none() {
            if let Some(object) = report.as_object_mut() {
                object.insert("rows".to_owned(), rows.into());
            }
            return Ok(report);
        }
    }
}

/// The names of the grouped columns, in the order of a report.
fn columns(report: &Value) -> Vec<String> {
    let group = list(report, "/group").iter();
    group.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn table(report: &Value) -> String {
    let columns = columns(report);
    let headings = columns.iter().map(|name| name.to_uppercase());
    let headings: Vec<_> = headings
        .chain(FIGURES.map(|(_, heading)| heading.to_owned()))
        .collect();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    let figures = |row: &Value| FIGURES.map(|(name, _)| field(row, &format!("/{name}")));
    for row in list(report, "/rows") {
        let values = columns.iter().map(|name| field(row, &format!("/{name}")));
        table.row(values.chain(figures(row)));
    }
    let total = report.get("total").unwrap_or(&Value::Null);
    let blank = columns.iter().enumerate();
    let blank = blank.map(|(at, _)| if at == 0 { "TOTAL" } else { "" }.to_owned());
    table.row(blank.chain(figures(total)));
    table.show()
}

fn csv(report: &Value) -> String {
    let columns = columns(report);
    let names = columns.iter().map(String::as_str);
    let names: Vec<_> = names.chain(FIGURES.map(|(name, _)| name)).collect();
    let mut out = format!("{}\r\n", names.join(","));
    for row in list(report, "/rows") {
        let cells = names.iter().map(|name| field(row, &format!("/{name}")));
        let cells: Vec<_> = cells
            .map(|cell| format::csv_cell(&cell).into_owned())
            .collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;
    use crate::cli::{Remote, Trust};

    fn command(csv: bool, json: bool) -> UsageCommand {
        UsageCommand {
            parameters: vec![("key", "a b".to_owned()), ("group", "model".to_owned())],
            csv,
            store: None,
            remote: Remote {
                url: None,
                key_file: None,
                json,
                config: None,
                trust: Trust::default(),
            },
        }
    }

    fn row(model: &str, requests: u64) -> Value {
        json!({"model": model, "requests": requests, "errors": 0, "prompt_tokens": 1,
            "cached_tokens": 0, "completion_tokens": 2, "seconds": 0.5})
    }

    /// A report of two pages.
    fn page(queries: &RefCell<Vec<String>>, query: &str) -> Result<Vec<u8>, String> {
        queries.borrow_mut().push(query.to_owned());
        let is_first = !query.contains("after=");
        let report = json!({
            "group": ["model"],
            "rows": [if is_first { row("m", 1) } else { row("n,\"x\"", 2) }],
            "total": {"requests": 3, "errors": 0, "prompt_tokens": 2, "cached_tokens": 0,
                "completion_tokens": 4, "seconds": 1},
            "next": if is_first { json!("c=") } else { Value::Null },
        });
        Ok(report.to_string().into_bytes())
    }

    #[test]
    fn pages_become_one_report() {
        let queries = RefCell::default();
        let shown = |csv, json| show(&command(csv, json), |query| page(&queries, query)).stdout;
        let table = shown(false, false);
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(lines[0][..2], ["MODEL", "REQUESTS"]);
        assert_eq!(lines[1], ["m", "1", "0", "1", "0", "2", "0.5"]);
        assert_eq!(lines[3], ["TOTAL", "3", "0", "2", "0", "4", "1"]);
        let want = [
            "limit=10000&key=a+b&group=model",
            "limit=10000&key=a+b&group=model&after=c%3D",
        ];
        assert_eq!(queries.borrow()[..], want);
        let csv = shown(true, false);
        let want = "model,requests,errors,prompt_tokens,cached_tokens,completion_tokens,seconds\r\n\
                    m,1,0,1,0,2,0.5\r\n\"n,\"\"x\"\"\",2,0,1,0,2,0.5\r\n";
        assert_eq!(csv, want);
        let json: Value = serde_json::from_str(&shown(false, true)).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 2);
        let refused = show(&command(false, false), |_| Err("no".to_owned()));
        assert_eq!((refused.code, refused.stderr.as_str()), (1, "olla: no\n"));
    }
}
