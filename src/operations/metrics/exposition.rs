//! The text format of Prometheus: families, samples, labels and their escapes.

use std::fmt::Write;

use super::super::stats::{BUCKETS_MS, Buckets};
use crate::format::decimal;

/// The bounds of [`BUCKETS_MS`] in seconds, as they are written.
pub(super) const BUCKETS: [&str; BUCKETS_MS.len()] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60",
    "120", "300",
];

/// A value of a sample. Counts are exact beyond 2^53.
pub(super) trait SampleValue {
    fn written(self) -> String;
}

impl SampleValue for u64 {
    fn written(self) -> String {
        self.to_string()
    }
}

impl SampleValue for f64 {
    fn written(self) -> String {
        decimal(self)
    }
}

/// The text while it is written. Writing to a string does not fail, so that results of `write!`
/// say nothing.
#[derive(Default)]
pub(super) struct Exposition(String);

impl Exposition {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    /// A counter without labels.
    pub(super) fn counter_of(&mut self, name: &str, help: &str, count: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], count);
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl SampleValue) {
        self.0.push_str(name);
        for (nth, (label, text)) in labels.iter().enumerate() {
            self.0.push(if nth == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str(r"\\"),
                    '"' => self.0.push_str(r#"\""#),
                    '\n' => self.0.push_str(r"\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {}", value.written());
    }

    pub(super) fn histogram(&mut self, name: &str, endpoint: &str, buckets: &Buckets) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS.iter().zip(buckets.cumulative()) {
            self.sample(&bucket, &[("endpoint", endpoint), ("le", bound)], count);
        }
        let labels = [("endpoint", endpoint), ("le", "+Inf")];
        self.sample(&bucket, &labels, buckets.count);
        let labels = [("endpoint", endpoint)];
        self.sample(&format!("{name}_sum"), &labels, buckets.sum_ms / 1000.0);
        self.sample(&format!("{name}_count"), &labels, buckets.count);
    }
}
