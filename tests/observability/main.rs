//! The Grafana dashboard and the alert rules query only what the gateway exports: every series,
//! label and value of a label in them is on `/internal/metrics` of the real binary.

mod query;

use std::collections::BTreeSet;
use std::path::Path;

use query::faults_of;
use serde_json::Value;
use testkit::metrics::Page;

const DASHBOARD: &str = "docs/grafana/olla.json";
const RULES: &str = "docs/alerts/olla.rules.yml";

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&file(DASHBOARD)).unwrap()
}

/// Every string under a key, at any depth.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == key) {
                    Some(text) => found.push(text),
                    None => texts(value, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// Names and expressions of the rules; each stands on one line.
fn rules(text: &str) -> Vec<(&str, &str)> {
    let mut rules = Vec::new();
    let mut name = "";
    for line in text
        .lines()
        .map(|line| line.trim().trim_start_matches("- "))
    {
        if let Some(alert) = line.strip_prefix("alert: ") {
            name = alert;
        } else if let Some(expr) = line.strip_prefix("expr: ") {
            rules.push((name, expr));
        }
    }
    rules
}

#[test]
fn the_dashboard_queries_existing_series() {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    texts(&dashboard["panels"], "expr", &mut queries);
    assert!(queries.len() > 20, "the queries are elsewhere");
    let page = Page::get();
    let faults: Vec<String> = queries
        .iter()
        .flat_map(|query| {
            faults_of(page, query)
                .into_iter()
                .map(move |fault| format!("{query}: {fault}"))
        })
        .collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn the_dashboards_variables_query_existing_series() {
    let dashboard = dashboard();
    let page = Page::get();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for variable in variables {
        names.insert(variable["name"].as_str().unwrap());
        if variable["type"] != "query" {
            continue;
        }
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|q| q.strip_suffix(')'));
        let (selector, label) = inner.unwrap().rsplit_once(',').unwrap();
        assert_eq!(
            faults_of(page, &format!("sum by ({label}) ({selector})")),
            [""; 0]
        );
    }
    // A variable that is used but not declared would be sent unresolved.
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    texts(&dashboard, "uid", &mut queries);
    for query in queries {
        for (at, _) in query.match_indices('$') {
            let name: String = query[at + 1..]
                .trim_start_matches('{')
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            assert!(
                name.starts_with("__") || names.contains(name.as_str()),
                "{query}"
            );
        }
    }
}

#[test]
fn panels_have_places_of_their_own() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(
                    taken.insert((x, y)),
                    "{} lies over another panel",
                    panel["title"]
                );
            }
        }
    }
}

#[test]
fn the_rules_ask_for_what_there_is() {
    let text = file(RULES);
    let rules = rules(&text);
    assert_eq!(rules.len(), text.matches("alert: ").count());
    assert!(rules.len() > 5, "the rules are elsewhere");
    for (name, expr) in rules {
        assert_eq!(faults_of(Page::get(), expr), [""; 0], "{name}: {expr}");
    }
}

#[test]
fn the_queries_of_the_documents_ask_for_what_there_is() {
    let text = file("docs/metrics.md");
    let (_, rest) = text.split_once("| Question | Query |\n").unwrap();
    let rows = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let query = row.split('`').nth(1).unwrap();
        assert_eq!(faults_of(Page::get(), query), [""; 0], "{query}");
        count += 1;
    }
    assert!(count > 3, "the queries are elsewhere");
}

#[test]
fn every_family_says_what_it_is() {
    for (name, family) in &Page::get().families {
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        let kinds = ["counter", "gauge", "histogram"];
        assert!(
            kinds.contains(&family.kind.as_str()),
            "{name}: {}",
            family.kind
        );
    }
}

#[test]
fn what_is_not_there_is_found() {
    let page = Page::get();
    let cases = [
        ("olla_requests_total", ""),
        ("rate(olla_requests_total[5m]) > 0.5", ""),
        (
            "sum by (endpoint, le) (rate(olla_request_duration_seconds_bucket{endpoint=~\"$e\"}[5m]))",
            "",
        ),
        (
            "rate(olla_responses_total{code=\"5xx\"}[5m]) and on (instance) up == 1",
            "",
        ),
        ("olla_request_total", "olla_request_total is no series"),
        (
            "olla_request_duration_seconds",
            "olla_request_duration_seconds is no series",
        ),
        (
            "olla_requests_total{endpoint=\"a\"}",
            "olla_requests_total has no label endpoint",
        ),
        (
            "olla_responses_total{code=\"6xx\"}",
            "olla_responses_total has no code=\"6xx\"",
        ),
        (
            "sum by (model) (olla_responses_total)",
            "nothing has the label model",
        ),
        ("vector(1)", "asks for no series"),
    ];
    for (query, fault) in cases {
        assert_eq!(faults_of(page, query).join("; "), fault, "{query}");
    }
}
