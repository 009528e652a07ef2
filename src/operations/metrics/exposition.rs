//! The text format of Prometheus: families, samples, labels and their escapes.

use std::fmt::Write;

use super::super::stats::{RATIOS, Ratios, TIMES_MS, Times};
use crate::format::decimal;

/// The bounds of [`TIMES_MS`] in seconds, as they are written.
pub(super) const TIME_BOUNDS: [&str; TIMES_MS.len()] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60",
    "120", "300",
];

/// The bounds of [`RATIOS`], as they are written.
pub(super) const RATIO_BOUNDS: [&str; RATIOS.len()] = [
    "0.1", "0.2", "0.35", "0.5", "0.7", "0.9", "1.1", "1.4", "2", "3", "5", "10",
];

/// The value of a sample. Counts are exact beyond 2^53.
#[derive(Debug, Clone, Copy)]
pub(super) enum SampleValue {
    Count(u64),
    Number(f64),
}

impl From<u64> for SampleValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for SampleValue {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for SampleValue {
    fn from(holds: bool) -> Self {
        Self::Count(u64::from(holds))
    }
}

impl From<f64> for SampleValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// A family with one sample for each `T`.
pub(super) struct MetricFamily<T> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&T) -> SampleValue,
}

/// A family with values that may decrease.
pub(super) const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> SampleValue,
) -> MetricFamily<T> {
    MetricFamily {
        name,
        kind: "gauge",
        help,
        value,
    }
}

/// A family with values that never decrease.
pub(super) const fn counter<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> SampleValue,
) -> MetricFamily<T> {
    MetricFamily {
        kind: "counter",
        ..gauge(name, help, value)
    }
}

/// The text while it is written. Writing to a string cannot fail, so the results of `write!` are
/// ignored.
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

    /// Families with one sample for each row.
    pub(super) fn families<'r, T, const N: usize>(
        &mut self,
        families: &[MetricFamily<T>],
        rows: &'r [T],
        labels: impl Fn(&'r T) -> [(&'static str, &'r str); N],
    ) {
        for family in families {
            self.family(family.name, family.kind, family.help);
            for row in rows {
                self.sample(family.name, &labels(row), (family.value)(row));
            }
        }
    }

    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Into<SampleValue>,
    ) {
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
        let _ = match value.into() {
            SampleValue::Count(count) => writeln!(self.0, " {count}"),
            SampleValue::Number(number) => writeln!(self.0, " {}", decimal(number)),
        };
    }

    /// A histogram of times, in seconds.
    pub(super) fn times(&mut self, name: &str, labels: &[(&str, &str)], times: &Times) {
        let buckets = TIME_BOUNDS.into_iter().zip(times.cumulative());
        self.histogram(name, labels, buckets, (times.count, times.sum / 1000.0));
    }

    /// A histogram of ratios.
    pub(super) fn ratios(&mut self, name: &str, labels: &[(&str, &str)], ratios: &Ratios) {
        let buckets = RATIO_BOUNDS.into_iter().zip(ratios.cumulative());
        self.histogram(name, labels, buckets, (ratios.count, ratios.sum));
    }

    fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (&'static str, u64)>,
        (count, sum): (u64, f64),
    ) {
        let bucket = format!("{name}_bucket");
        let mut all = labels.to_vec();
        for (bound, count) in buckets.chain([("+Inf", count)]) {
            all.truncate(labels.len());
            all.push(("le", bound));
            self.sample(&bucket, &all, count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }
}
