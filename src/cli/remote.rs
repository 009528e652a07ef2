//! `olla models` and `olla status`: the state of a running gateway, as a table.
//!
//! Contract: docs/contract/operations.md#4 (the routes that are read)

use std::fmt::Write;

use serde_json::Value;

use super::http::{Base, CliRequest, send};
use super::table::{Table, clean};
use super::{Caller, CommandOutput, Subject};

/// Shows the state of the gateway at an address.
pub(crate) fn run(subject: Subject, address: &str, caller: &Caller, json: bool) -> CommandOutput {
    let path = match subject {
        Subject::Models => "/internal/status/models?detailed=true&group=family",
        Subject::Status => "/internal/status",
    };
    let base = match Base::parse(address) {
        Ok(base) => base,
        Err(fault) => {
            let message = format!("olla: --url: {fault}\n");
            return CommandOutput::bad(message, CommandOutput::USAGE);
        }
    };
    let body = match fetch(&base, path, caller) {
        Ok(body) => body,
        Err(fault) => return CommandOutput::failed(&fault),
    };
    if json {
        return CommandOutput::good(body + "\n");
    }
    match (serde_json::from_str(&body), subject) {
        (Ok(value), Subject::Models) => CommandOutput::good(models(&value)),
        (Ok(value), Subject::Status) => CommandOutput::good(status(&value)),
        (Err(error), _) => CommandOutput::failed(&not_json(address, &error)),
    }
}

/// A page as a JSON document.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn document(address: &str, path: &str) -> Result<Value, String> {
    let body = fetch(&Base::parse(address)?, path, &Caller::default())?;
    serde_json::from_str(&body).map_err(|error| not_json(address, &error))
}

fn not_json(address: &str, error: &serde_json::Error) -> String {
    format!("{address}: expected JSON ({error})")
}

fn fetch(base: &Base, path: &str, caller: &Caller) -> Result<String, String> {
    let request = CliRequest {
        method: "GET",
        path,
        body: None,
    };
    let response = send(base, &request, caller)?;
    let body = String::from_utf8_lossy(&response.body).into_owned();
    if response.status == 200 {
        Ok(body)
    } else {
        Err(refusal(base, response.status, &body))
    }
}

pub(super) fn refusal(base: &Base, status: u16, body: &str) -> String {
    let reason = match serde_json::from_str::<Value>(body) {
        Ok(value) => field(&value, "/error/message"),
        // Other servers respond with pages, which say little.
        Err(_) if body.trim_start().starts_with('<') => String::new(),
        Err(_) => body.trim().chars().take(REASON_CHARS_MAX).collect(),
    };
    let origin = base.origin();
    let remedy = match status {
        401 => " (commands send the admin key in OLLA_ADMIN_KEY or --key-file)",
        _ => "",
    };
    if reason.is_empty() {
        format!("{origin} responded with {status}{remedy}")
    } else {
        format!(
            "{origin} responded with {status}: {}{remedy}",
            clean(&reason)
        )
    }
}

/// Maximum length of a plain error message that is shown.
const REASON_CHARS_MAX: usize = 200;

/// A value as a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A field as a cell, which is empty without the field.
pub(super) fn field(value: &Value, path: &str) -> String {
    value.pointer(path).map_or_else(String::new, text)
}

pub(super) fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn status(value: &Value) -> String {
    let show = |path: &str| clean(&field(value, path));
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}: {} endpoints up, version {}, uptime {}, {} in flight",
        show("/system/status"),
        show("/system/endpoints_up"),
        show("/system/version"),
        show("/system/uptime"),
        show("/system/active_connections"),
    );
    let _ = writeln!(
        out,
        "{}, {} failed, success {}, mean {}, traffic {}\n",
        counted(value, "/system/total_requests", "request"),
        show("/system/total_failures"),
        show("/system/success_rate"),
        show("/system/avg_latency"),
        show("/system/total_traffic"),
    );
    let headings = [
        "ENDPOINT",
        "STATUS",
        "PRIORITY",
        "IN FLIGHT",
        "RUNNING/SLOTS",
        "QUEUE",
        "WARM",
        "REQUESTS",
        "SUCCESS",
        "LATENCY",
        "MODELS",
        "CHECKED",
        "URL",
        "ISSUES",
        "LAST ERROR",
    ];
    let head = ["/name", "/status", "/priority", "/connections"];
    let rest = [
        "/requests",
        "/success_rate",
        "/avg_latency",
        "/models/count",
        "/last_check",
        "/url",
        "/issues",
    ];
    let mut table = Table::new(&headings);
    for endpoint in list(value, "/endpoints") {
        let cells = |paths: &[&'static str]| -> Vec<String> {
            paths.iter().map(|path| field(endpoint, path)).collect()
        };
        let slots = [
            running(endpoint),
            field(endpoint, "/queued"),
            warm(endpoint),
        ];
        let row = cells(&head).into_iter().chain(slots).chain(cells(&rest));
        table.row(row.chain([last_error(endpoint)]));
    }
    out + &table.show()
}

/// Requests that hold a slot, and the slots if there is a limit.
fn running(endpoint: &Value) -> String {
    let slots = field(endpoint, "/slots");
    match slots.as_str() {
        "" => field(endpoint, "/running"),
        slots => format!("{}/{slots}", field(endpoint, "/running")),
    }
}

/// Models in memory whose names are shown.
const WARM_MAX: usize = 3;

/// The models in memory; empty if there are none, or the endpoint does not say.
fn warm(endpoint: &Value) -> String {
    let models = list(endpoint, "/models_warm");
    let shown: Vec<String> = models.iter().take(WARM_MAX).map(text).collect();
    match models.len().saturating_sub(WARM_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why the endpoint is not used; empty while all is well.
fn last_error(endpoint: &Value) -> String {
    match endpoint.get("last_error") {
        Some(last) => format!("{}: {}", field(last, "/kind"), field(last, "/message")),
        None => String::new(),
    }
}

fn models(value: &Value) -> String {
    let headings = [
        "MODEL",
        "FAMILY",
        "TYPE",
        "SIZE",
        "PARAMS",
        "QUANT",
        "SEEN",
        "ENDPOINTS",
    ];
    let mut table = Table::new(&headings);
    for group in list(value, "/model_groups") {
        for model in list(group, "/models") {
            let paths = [
                "/type",
                "/size",
                "/params",
                "/quant",
                "/last_seen",
                "/endpoints",
            ];
            let head = [field(model, "/name"), field(group, "/family")];
            table.row(head.into_iter().chain(paths.map(|path| field(model, path))));
        }
    }
    format!(
        "{} on {}\n\n{}",
        counted(value, "/total_models", "model"),
        counted(value, "/total_endpoints", "endpoint"),
        table.show()
    )
}

/// A number and its noun.
fn counted(value: &Value, path: &str, noun: &str) -> String {
    let number = clean(&field(value, path));
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_shows_endpoints() {
        let value = json!({
            "system": {"status": "degraded", "endpoints_up": "1/2", "version": "1", "uptime": "5m",
                "total_requests": 10, "total_failures": 1, "success_rate": "90.0%",
                "avg_latency": "12ms", "total_traffic": "1 B", "active_connections": 3},
            "endpoints": [
                {"name": "gpu", "status": "healthy", "priority": 100, "connections": 3,
                 "requests": 10, "success_rate": "90.0%", "avg_latency": "12ms", "url": "http://g:1",
                 "last_check": "1s ago", "issues": "", "models": {"count": 4},
                 "slots": 8, "running": 2, "queued": 1, "models_warm": ["a", "b"],
                 "last_error": {"kind": "auth", "message": "responded with 401", "count": 1}},
            ],
        });
        let shown = status(&value);
        assert!(
            shown.starts_with("degraded: 1/2 endpoints up, version 1, uptime 5m, 3 in flight\n"),
            "{shown}"
        );
        let row = shown
            .lines()
            .last()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>();
        let want = [
            "gpu",
            "healthy",
            "100",
            "3",
            "2/8",
            "1",
            "a,",
            "b",
            "10",
            "90.0%",
            "12ms",
            "4",
            "1s",
            "ago",
            "http://g:1",
            "-",
            "auth:",
            "responded",
            "with",
            "401",
        ];
        assert_eq!(row, want);
    }

    #[test]
    fn slots_and_warm_models_are_short() {
        assert_eq!(running(&json!({"slots": null, "running": 5})), "5");
        assert_eq!(running(&json!({})), "", "an older gateway does not say");
        for (names, shown) in [
            (json!(null), ""),
            (json!([]), ""),
            (json!(["a", "b", "c"]), "a, b, c"),
            (json!(["a", "b", "c", "d", "e"]), "a, b, c and 2 more"),
        ] {
            assert_eq!(warm(&json!({"models_warm": names})), shown);
        }
    }

    #[test]
    fn models_show_where_they_are() {
        let value = json!({"total_models": 1, "total_endpoints": 2, "model_groups": [
            {"family": "llama", "models": [{"name": "llama3\u{7}", "size": "4.00 GB",
             "endpoints": ["a", "b"]}]},
        ]});
        let shown = models(&value);
        let row = shown
            .lines()
            .last()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>();
        let want = [
            "llama3?", "llama", "-", "4.00", "GB", "-", "-", "-", "a,", "b",
        ];
        assert_eq!(row, want, "{shown}");
        assert!(shown.starts_with("1 model on 2 endpoints\n"));
        assert_eq!(
            models(&json!({})),
            format!(
                "- models on - endpoints\n\n{}",
                Table::new(&[
                    "MODEL",
                    "FAMILY",
                    "TYPE",
                    "SIZE",
                    "PARAMS",
                    "QUANT",
                    "SEEN",
                    "ENDPOINTS"
                ])
                .show()
            )
        );
    }

    #[test]
    fn faults_are_sentences() {
        let outcome = run(Subject::Status, "ftp://gw", &Caller::default(), false);
        assert_eq!(outcome.code, CommandOutput::USAGE);
        let want = "olla: --url: expected the URL of a gateway, as in https://gateway:40114, got ";
        assert_eq!(outcome.stderr, format!("{want}\"ftp://gw\"\n"));
        let base = Base::parse("http://gw:1").unwrap();
        let body = r#"{"error":{"message":"ip not in allowed range"}}"#;
        assert_eq!(
            refusal(&base, 403, body),
            "http://gw:1 responded with 403: ip not in allowed range"
        );
        assert_eq!(
            refusal(&base, 401, r#"{"error":{"message":"no key"}}"#),
            "http://gw:1 responded with 401: no key (commands send the admin key in OLLA_ADMIN_KEY or \
             --key-file)"
        );
        assert_eq!(
            refusal(&base, 502, "<html>"),
            "http://gw:1 responded with 502"
        );
    }
}
