//! A usage report: groups of rows as JSON or CSV.
//!
//! Contract: docs/contract/access.md#11.3

use std::fmt::Write;
use std::time::SystemTime;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::{Column, Groups, UsageForm, UsageQuery, cursor};
use super::usage::{Ledger, UsageFigures};
use crate::format::{self, Number};

/// The names of the figures, in their order.
const FIGURES: [&str; 6] = [
    "requests",
    "errors",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "seconds",
];

/// A rendered report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageReport {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its text.
    pub body: Vec<u8>,
}

/// Adds the rows that are in memory to those of the store. `groups` holds one more than the query's
/// limit if the store has more.
pub(super) fn add_rows(
    query: &UsageQuery,
    ledger: &Ledger,
    groups: &mut Groups,
    total: &mut UsageFigures,
) {
    for (row, figures) in ledger.rows().filter(|(row, _)| query.admits(row)) {
        *total += *figures;
        let group = query.group_of(row);
        if query.is_after(&group) {
            *groups.entry(group).or_default() += *figures;
        }
    }
}

/// Renders a report.
pub(super) fn render(
    query: &UsageQuery,
    groups: &Groups,
    total: &UsageFigures,
    now: SystemTime,
) -> UsageReport {
    let shown: Vec<_> = groups.iter().take(query.limit).collect();
    match query.form {
        UsageForm::Json => {
            let next = match shown.last() {
                Some((last, _)) if groups.len() > shown.len() => Some(cursor(last)),
                _ => None,
            };
            let document = Document {
                timestamp: format::instant(now),
                query,
                rows: &shown,
                total,
                next,
            };
            UsageReport {
                content_type: "application/json",
                // A structure of numbers and strings is always written.
                body: serde_json::to_vec(&document).unwrap_or_default(),
            }
        }
        UsageForm::Csv => UsageReport {
            content_type: "text/csv",
            body: csv(&query.group, &shown).into_bytes(),
        },
    }
}

struct Document<'a> {
    timestamp: String,
    query: &'a UsageQuery,
    rows: &'a [(&'a Vec<String>, &'a UsageFigures)],
    total: &'a UsageFigures,
    next: Option<String>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let group: Vec<_> = self.query.group.iter().map(|one| one.name()).collect();
        let rows = self.rows.iter().map(|(values, figures)| Row {
            columns: &self.query.group,
            values,
            figures,
        });
        let rows: Vec<_> = rows.collect();
        let total = Row {
            columns: &[],
            values: &[],
            figures: self.total,
        };
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("since", &self.query.since.to_string())?;
        map.serialize_entry("until", &self.query.until.to_string())?;
        map.serialize_entry("group", &group)?;
        map.serialize_entry("rows", &rows)?;
        map.serialize_entry("total", &total)?;
        map.serialize_entry("next", &self.next)?;
        map.end()
    }
}

struct Row<'a> {
    columns: &'a [Column],
    values: &'a [String],
    figures: &'a UsageFigures,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, value) in self.columns.iter().zip(self.values) {
            map.serialize_entry(column.name(), value)?;
        }
        let [counts @ .., seconds] = FIGURES;
        for (name, count) in counts.into_iter().zip(counts_of(self.figures)) {
            map.serialize_entry(name, &count)?;
        }
        map.serialize_entry(seconds, &Number(self.figures.seconds))?;
        map.end()
    }
}

fn counts_of(figures: &UsageFigures) -> [u64; 5] {
    [
        figures.requests,
        figures.errors,
        figures.prompt_tokens,
        figures.cached_tokens,
        figures.completion_tokens,
    ]
}

/// The rows as RFC 4180 has it.
fn csv(columns: &[Column], rows: &[(&Vec<String>, &UsageFigures)]) -> String {
    let names = columns.iter().map(|column| column.name());
    let mut out = names.chain(FIGURES).collect::<Vec<_>>().join(",");
    out.push_str("\r\n");
    for (values, figures) in rows {
        for value in values.iter() {
            out.push_str(&format::csv_cell(value));
            out.push(',');
        }
        for count in counts_of(figures) {
            let _ = write!(out, "{count},");
        }
        let _ = write!(out, "{}\r\n", format::decimal(figures.seconds));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::day::Day;
    use super::super::usage::UsageRow;
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (key, model, requests) in [("b", "m,1", 1), ("a", "m", 2), ("a", "n", 4)] {
            let row = UsageRow {
                day: Day::parse("2026-11-30").unwrap(),
                key: key.into(),
                model: model.into(),
                endpoint: "gpu".into(),
            };
            let figures = UsageFigures {
                requests,
                errors: 1,
                prompt_tokens: 10 * requests,
                cached_tokens: 1,
                completion_tokens: 5,
                seconds: 0.25 * requests as f64,
            };
            ledger.add(vec![(row, figures)]);
        }
        ledger
    }

    fn report(text: &str) -> UsageReport {
        let today = Day::parse("2026-11-30").unwrap();
        let query = UsageQuery::parse(text, today).unwrap();
        let (mut groups, mut total) = (Groups::new(), UsageFigures::default());
        add_rows(&query, &ledger(), &mut groups, &mut total);
        render(&query, &groups, &total, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn rows_are_grouped_and_summed() {
        let value: Value = serde_json::from_slice(&report("group=key").body).unwrap();
        let want = json!({
            "timestamp": "1970-01-01T00:00:00Z", "since": "2026-11-30", "until": "2026-11-30",
            "group": ["key"],
            "rows": [
                {"key": "a", "requests": 6, "errors": 2, "prompt_tokens": 60, "cached_tokens": 2,
                 "completion_tokens": 10, "seconds": 1.5},
                {"key": "b", "requests": 1, "errors": 1, "prompt_tokens": 10, "cached_tokens": 1,
                 "completion_tokens": 5, "seconds": 0.25},
            ],
            "total": {"requests": 7, "errors": 3, "prompt_tokens": 70, "cached_tokens": 3,
                "completion_tokens": 15, "seconds": 1.75},
            "next": null,
        });
        assert_eq!(value, want);
        let value: Value = serde_json::from_slice(&report("key=b&model=m,1").body).unwrap();
        assert_eq!(value["total"]["requests"], 1);
        assert_eq!(value["rows"][0]["endpoint"], "gpu");
        let value: Value = serde_json::from_slice(&report("key=c").body).unwrap();
        assert_eq!((&value["rows"], &value["next"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn pages_follow_each_other() {
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let text = format!("group=model&limit=1{after}");
            let value: Value = serde_json::from_slice(&report(&text).body).unwrap();
            assert_eq!(value["total"]["requests"], 7, "of all pages");
            seen.push(value["rows"][0]["model"].as_str().unwrap().to_owned());
            match value["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ["m", "m,1", "n"]);
    }

    #[test]
    fn csv_is_quoted() {
        let report = report("format=csv&group=model,key");
        assert_eq!(report.content_type, "text/csv");
        let want = "key,model,requests,errors,prompt_tokens,cached_tokens,completion_tokens,\
                    seconds\r\na,m,2,1,20,1,5,0.5\r\na,n,4,1,40,1,5,1\r\nb,\"m,1\",1,1,10,1,5,\
                    0.25\r\n";
        assert_eq!(String::from_utf8(report.body).unwrap(), want);
        assert_eq!(format::csv_cell("a\"b"), "\"a\"\"b\"");
    }
}
