//! What a run found out, as a table for people and as JSON for programs.

use std::io::{self, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// The longest time that is distinguished from longer ones, in nanoseconds: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// Times in nanoseconds, three digits exact.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // The only errors are bounds out of order or more than five digits.
        match Histogram::new_with_bounds(1, LONGEST_NS, 3) {
            Ok(histogram) => Self(histogram),
            Err(_) => unreachable!("the bounds are constants in order"),
        }
    }
}

impl Times {
    /// Counts one time.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Number of times recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Mean, quantiles and greatest, in microseconds; null while there is nothing.
    pub fn to_json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let us = |ns: f64| (ns / 100.0).round() / 10.0;
        let at = |quantile| us(self.0.value_at_quantile(quantile) as f64);
        json!({
            "count": self.0.len(),
            "mean": us(self.0.mean()),
            "p50": at(0.5),
            "p90": at(0.9),
            "p99": at(0.99),
            "p999": at(0.999),
            "max": us(self.0.max() as f64),
        })
    }
}

/// Counts by name, such as failures by kind.
pub fn counts_to_json<K: ToString>(counts: impl IntoIterator<Item = (K, u64)>) -> Value {
    let named = counts
        .into_iter()
        .map(|(name, count)| (name.to_string(), count.into()));
    Value::Object(named.collect::<Map<_, _>>())
}

/// Events or requests each second, with one decimal.
pub fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        (count as f64 / seconds * 10.0).round() / 10.0
    } else {
        0.0
    }
}

/// Prints the report as a table on standard output and writes it to `json` when that is given; `-`
/// is standard output in place of the table.
///
/// # Errors
/// Those of the writing.
pub fn publish(report: &Value, json: Option<&Path>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match json {
        Some(path) if path == Path::new("-") => writeln!(out, "{report:#}"),
        other => {
            write!(out, "{}", table(report))?;
            match other {
                Some(path) => std::fs::write(path, format!("{report:#}\n")),
                None => Ok(()),
            }
        }
    }
}

/// One line for each value; times come in columns.
fn table(report: &Value) -> String {
    const TIMES: [&str; 6] = ["mean", "p50", "p90", "p99", "p999", "max"];
    let mut out = String::new();
    let mut times = String::new();
    for (name, value) in report.as_object().into_iter().flatten() {
        match value {
            Value::Object(fields) if fields.contains_key("p50") => {
                let columns = TIMES.map(|column| format!("{:>10}", fields[column].to_string()));
                times.push_str(&format!("{name:<20}{}\n", columns.concat()));
            }
            Value::Object(fields) => {
                let pairs: Vec<_> = fields
                    .iter()
                    .map(|(key, value)| format!("{key} {value}"))
                    .collect();
                let text = if pairs.is_empty() {
                    "none".to_owned()
                } else {
                    pairs.join(", ")
                };
                out.push_str(&format!("{name:<20}{text}\n"));
            }
            Value::Null => {}
            Value::String(text) => out.push_str(&format!("{name:<20}{text}\n")),
            other => out.push_str(&format!("{name:<20}{other}\n")),
        }
    }
    if !times.is_empty() {
        let columns = TIMES.map(|column| format!("{column:>10}"));
        out.push_str(&format!(
            "{:<20}{}\n{times}",
            "microseconds",
            columns.concat()
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_reported_in_microseconds() {
        let mut times = Times::default();
        assert_eq!(times.to_json(), Value::Null);
        for ns in [1_000, 2_000, 3_000] {
            times.record(ns);
        }
        let json = times.to_json();
        assert_eq!(json["p50"], 2.0);
        assert_eq!(json["max"], 3.0);
        assert_eq!(json["count"], 3);
    }

    #[test]
    fn a_table_has_a_line_for_each_value_and_columns_for_times() {
        let mut times = Times::default();
        times.record(5_000);
        let report = json!({
            "tool": "chat",
            "requests": 3,
            "failures": counts_to_json([("reset", 2)]),
            "statuses": counts_to_json::<u16>([]),
            "nothing": null,
            "latency_us": times.to_json(),
        });
        let text = table(&report);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(lines.contains(&vec!["tool", "chat"]), "{text}");
        assert!(lines.contains(&vec!["failures", "reset", "2"]), "{text}");
        assert!(lines.contains(&vec!["statuses", "none"]), "{text}");
        assert_eq!(
            lines.last().map(|line| line[0]),
            Some("latency_us"),
            "{text}"
        );
        assert!(!text.contains("nothing"), "{text}");
    }
}
