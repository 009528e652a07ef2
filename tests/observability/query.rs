//! The series and labels that a PromQL query uses, as far as needed to check that they exist.

use std::collections::BTreeSet;

use testkit::metrics::{Family, Page, matchers};

/// Labels that a scrape adds to those of a series.
const LABELS_OF_A_SCRAPE: [&str; 2] = ["instance", "job"];

/// The family that a sample's name belongs to.
fn family<'p>(page: &'p Page, sample: &str) -> Option<&'p Family> {
    let holds = |(_, family): &&(String, Family)| family.samples.contains(sample);
    page.families.iter().find(holds).map(|(_, family)| family)
}

/// The errors of a PromQL query: series, labels and values of labels that do not exist.
pub(crate) fn faults_of(page: &Page, query: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = LABELS_OF_A_SCRAPE.into();
    let parts = Parts::of(query);
    for (series, matchers) in &parts.selectors {
        // The scrape itself creates `up`.
        if series == "up" {
            continue;
        }
        let Some(family) = family(page, series) else {
            faults.push(format!("{series} is no series"));
            continue;
        };
        known.extend(family.labels.keys().map(String::as_str));
        for (label, value) in matchers {
            let values = family.labels.get(label);
            let own = LABELS_OF_A_SCRAPE.contains(&label.as_str());
            if values.is_none() && !own {
                faults.push(format!("{series} has no label {label}"));
            }
            // Values with a variable and patterns are not checked.
            let literal = !value.contains('$') && value.bytes().all(|b| b.is_ascii_alphanumeric());
            if let Some(values) = values.filter(|_| literal && !own)
                && !values.contains(value)
            {
                faults.push(format!("{series} has no {label}=\"{value}\""));
            }
        }
    }
    if parts.selectors.is_empty() {
        faults.push("asks for no series".to_owned());
    }
    let groupings = parts.groupings.iter().map(String::as_str);
    faults.extend(
        groupings
            .filter(|label| !known.contains(label))
            .map(|label| format!("nothing has the label {label}")),
    );
    faults
}

/// A query, parsed as far as needed to know the series and labels it uses.
#[derive(Debug, Default)]
struct Parts {
    /// Series and the required values of their labels.
    selectors: Vec<(String, Vec<(String, String)>)>,
    /// Labels in `by (…)`, `on (…)` and their like.
    groupings: Vec<String>,
}

impl Parts {
    fn of(query: &str) -> Self {
        const WITH_LABELS: [&str; 6] = [
            "by",
            "without",
            "on",
            "ignoring",
            "group_left",
            "group_right",
        ];
        const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
        let mut parts = Self::default();
        let mut rest = query;
        while let Some(first) = rest.chars().next() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            if first == '[' {
                rest = rest.split_once(']').unwrap().1;
            } else if length == 0 {
                rest = &rest[first.len_utf8()..];
            } else {
                let (name, after) = rest.split_at(length);
                rest = after.trim_start();
                if WITH_LABELS.contains(&name) {
                    if let Some(inner) = rest.strip_prefix('(') {
                        let (labels, after) = inner.split_once(')').unwrap();
                        let labels = labels.split(',').map(|label| label.trim().to_owned());
                        parts
                            .groupings
                            .extend(labels.filter(|label| !label.is_empty()));
                        rest = after;
                    }
                } else if let Some(inner) = rest.strip_prefix('{') {
                    let (labels, after) = inner.split_once('}').unwrap();
                    parts.selectors.push((name.to_owned(), matchers(labels)));
                    rest = after;
                } else if !rest.starts_with('(')
                    && !WORDS.contains(&name)
                    && !first.is_ascii_digit()
                    && !aggregates(rest)
                {
                    parts.selectors.push((name.to_owned(), Vec::new()));
                }
            }
        }
        parts
    }
}

/// Whether the text after a word makes it an aggregation: `sum by (…)`.
fn aggregates(after: &str) -> bool {
    let next = after.split([' ', '(']).next().unwrap_or_default();
    ["by", "without"].contains(&next)
}
