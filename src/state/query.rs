//! The query of a usage report: what the text of a URL asks for, and which rows that are.
//!
//! Contract: docs/contract/access.md#11.3

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::day::Day;
use super::usage::{UsageFigures, UsageRow};

/// Rows of a report, unless the query says otherwise.
const LIMIT: usize = 1000;

/// The most rows of a report.
const LIMIT_MAX: usize = 10_000;

/// What a report can be grouped by, in the order of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Day,
    Key,
    Model,
    Endpoint,
}

impl Column {
    pub(super) const ALL: [Self; 4] = [Self::Day, Self::Key, Self::Model, Self::Endpoint];

    /// Its name in queries, reports and the store.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Key => "key",
            Self::Model => "model",
            Self::Endpoint => "endpoint",
        }
    }

    fn of(self, row: &UsageRow) -> String {
        match self {
            Self::Day => row.day.to_string(),
            Self::Key => row.key.to_string(),
            Self::Model => row.model.to_string(),
            Self::Endpoint => row.endpoint.to_string(),
        }
    }
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsageForm {
    Json,
    Csv,
}

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageQuery {
    /// Only rows of this key, model or endpoint; `None` = of all.
    pub(super) filters: [(Column, Option<String>); 3],
    /// The first day.
    pub(super) since: Day,
    /// The last day.
    pub(super) until: Day,
    /// The grouped columns, in the order of [`Column::ALL`].
    pub(super) group: Vec<Column>,
    /// The form.
    pub(super) form: UsageForm,
    /// The most rows.
    pub(super) limit: usize,
    /// The row after which the report begins: its grouped values.
    pub(super) after: Option<Vec<String>>,
}

/// Rows of a report by their grouped values.
pub(super) type Groups = BTreeMap<Vec<String>, UsageFigures>;

impl UsageQuery {
    /// Reads the query of a URL, without its question mark.
    ///
    /// # Errors
    /// A sentence about a value that is not allowed.
    pub(crate) fn parse(query: &str, today: Day) -> Result<Self, String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            found.entry(name.into_owned()).or_insert(value.into_owned());
        }
        let mut take = |name: &str| found.remove(name);
        let filters = [Column::Key, Column::Model, Column::Endpoint];
        let filters = filters.map(|column| (column, take(column.name())));
        let day = |name: &str, value: Option<String>| match value {
            None => Ok(today),
            Some(text) => {
                Day::parse(&text).ok_or_else(|| expected(name, "a day as in 2026-01-31", &text))
            }
        };
        let since = day("since", take("since"))?;
        let until = day("until", take("until"))?;
        if since > until {
            let rule = format!("a day not after until ({until})");
            return Err(expected("since", &rule, &since.to_string()));
        }
        let group = match take("group") {
            None => Column::ALL.to_vec(),
            Some(list) => columns(&list)?,
        };
        let form = match take("format").as_deref() {
            None | Some("json") => UsageForm::Json,
            Some("csv") => UsageForm::Csv,
            Some(other) => return Err(expected("format", "json or csv", other)),
        };
        let limit = match take("limit") {
            None => LIMIT,
            Some(text) => {
                let limit = text.parse().ok();
                limit
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| expected("limit", "an integer from 1 to 10000", &text))?
            }
        };
        let after = match take("after") {
            None => None,
            Some(text) => Some(
                from_cursor(&text, group.len())
                    .ok_or_else(|| expected("after", "the value of next of a report", &text))?,
            ),
        };
        Ok(Self {
            filters,
            since,
            until,
            group,
            form,
            limit,
            after,
        })
    }

    /// Whether a row is reported.
    pub(super) fn admits(&self, row: &UsageRow) -> bool {
        let [(_, key), (_, model), (_, endpoint)] = &self.filters;
        let fits = |filter: &Option<String>, value: &str| {
            filter.as_ref().is_none_or(|wanted| wanted == value)
        };
        (self.since..=self.until).contains(&row.day)
            && fits(key, &row.key)
            && fits(model, &row.model)
            && fits(endpoint, &row.endpoint)
    }

    /// The grouped values of a row.
    pub(super) fn group_of(&self, row: &UsageRow) -> Vec<String> {
        self.group.iter().map(|column| column.of(row)).collect()
    }

    /// Whether the group of these values stands behind the place where the report begins.
    pub(super) fn is_after(&self, group: &[String]) -> bool {
        self.after.as_deref().is_none_or(|after| group > after)
    }
}

/// The columns of a list, in their own order.
fn columns(list: &str) -> Result<Vec<Column>, String> {
    for name in list.split(',') {
        if !Column::ALL.iter().any(|column| column.name() == name) {
            let rule = "a comma-separated list of key, model, endpoint and day";
            return Err(expected("group", rule, list));
        }
    }
    let named = |column: &Column| list.split(',').any(|name| name == column.name());
    Ok(Column::ALL.into_iter().filter(named).collect())
}

fn expected(name: &str, rule: &str, got: &str) -> String {
    let got: String = got.chars().take(64).collect();
    format!("{name}: expected {rule}, got {got:?}")
}

/// The text by which a client continues behind a row.
pub(super) fn cursor(group: &[String]) -> String {
    let values = serde_json::to_vec(group).unwrap_or_default();
    BASE64_URL_SAFE_NO_PAD.encode(values)
}

fn from_cursor(text: &str, columns: usize) -> Option<Vec<String>> {
    let values = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let group: Vec<String> = serde_json::from_slice(&values).ok()?;
    (group.len() == columns).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> Day {
        Day::parse("2026-11-30").unwrap()
    }

    #[test]
    fn queries_are_read() {
        let query = UsageQuery::parse("", today()).unwrap();
        assert_eq!((query.since, query.until), (today(), today()));
        assert_eq!(query.group, Column::ALL);
        assert_eq!((query.form, query.limit), (UsageForm::Json, LIMIT));
        let text = "key=a%40b&model=&since=2026-11-01&group=model,day,model&format=csv&limit=10000\
                    &key=other&x=1";
        let query = UsageQuery::parse(text, today()).unwrap();
        let [(_, key), (_, model), (_, endpoint)] = &query.filters;
        assert_eq!(key.as_deref(), Some("a@b"));
        assert_eq!((model.as_deref(), endpoint.as_deref()), (Some(""), None));
        assert_eq!(query.since.to_string(), "2026-11-01");
        assert_eq!(query.group, [Column::Day, Column::Model]);
        assert_eq!((query.form, query.limit), (UsageForm::Csv, 10_000));
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, want) in [
            (
                "since=yesterday",
                "since: expected a day as in 2026-01-31, got \"yesterday\"",
            ),
            (
                "until=2026-02-30",
                "until: expected a day as in 2026-01-31, got \"2026-02-30\"",
            ),
            (
                "since=2026-12-01",
                "since: expected a day not after until (2026-11-30), got \"2026-12-01\"",
            ),
            (
                "group=",
                "group: expected a comma-separated list of key, model, endpoint and day, got \"\"",
            ),
            (
                "group=day,keys",
                "group: expected a comma-separated list of key, model, endpoint and day, got \
                 \"day,keys\"",
            ),
            ("format=xml", "format: expected json or csv, got \"xml\""),
            (
                "limit=0",
                "limit: expected an integer from 1 to 10000, got \"0\"",
            ),
            (
                "limit=10001",
                "limit: expected an integer from 1 to 10000, got \"10001\"",
            ),
            (
                "limit=x",
                "limit: expected an integer from 1 to 10000, got \"x\"",
            ),
            (
                "after=%21",
                "after: expected the value of next of a report, got \"!\"",
            ),
        ] {
            assert_eq!(
                UsageQuery::parse(text, today()).unwrap_err(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn a_cursor_continues_behind_its_row() {
        let group = ["2026-11-30", "a\"ü"].map(str::to_owned);
        let text = format!("group=day,key&after={}", cursor(&group));
        let query = UsageQuery::parse(&text, today()).unwrap();
        assert_eq!(query.after.as_deref(), Some(&group[..]));
        assert!(!query.is_after(&group));
        assert!(query.is_after(&["2026-11-30", "b"].map(str::to_owned)));
        let other = format!("group=day&after={}", cursor(&group));
        assert!(UsageQuery::parse(&other, today()).is_err());
    }
}
