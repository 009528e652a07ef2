//! `olla demo`: the gateway in front of simulated endpoints, and a line for each request and for
//! each endpoint that fails or recovers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::start;
use crate::catalogue::ModelRules;
use crate::cli::{self, CommandOutput, remote};
use crate::config::{ConfigInputs, Env, FileFormat, NameFilter, plan_from_str};
use crate::demo::Demo;
use crate::log::Logger;
use crate::providers::{self, Profiles};

/// The default port.
const PORT: u16 = 40114;

/// Interval at which the pages of the gateway are read.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until a signal. Returns the exit code.
pub(super) fn run(demo: &cli::DemoOptions, env: Env) -> u8 {
    let failed = |what: &str, error: &std::io::Error| {
        eprintln!("olla demo: {what} cannot be started: {error}");
        CommandOutput::FAILED
    };
    let endpoints = match Demo::start() {
        Ok(endpoints) => endpoints,
        Err(error) => return failed("the simulated endpoints", &error),
    };
    let logger = match Logger::start(&env) {
        Ok(logger) => logger,
        Err(error) => return failed("the log", &error),
    };
    let profiles = Profiles::builtin();
    let types = profiles.type_names();
    let admits = |filter: &NameFilter, name: &str| providers::admits(filter, name);
    let inputs = ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    };
    let toml = endpoints.config_toml(demo.port.unwrap_or(PORT));
    let loaded = plan_from_str(&toml, FileFormat::Toml, Some(Path::new("demo")), &inputs);
    for finding in &loaded.findings {
        logger.report(finding);
    }
    let Some(plan) = loaded.plan else {
        return CommandOutput::FAILED;
    };
    logger.configure(&plan.logging);
    let setup = start::Setup {
        plan: Arc::new(plan),
        profiles,
        rules: Arc::new(ModelRules::builtin().clone()),
        fingerprints: loaded.fingerprints,
        restart_only: loaded.restart_only,
        config: None,
        profile: false,
        env,
    };
    let code = start::run(setup, &logger, |url| {
        print(&endpoints.guide(url));
        let url = url.to_owned();
        // The demo also works without these lines.
        let _ = std::thread::Builder::new()
            .name("demo-watch".to_owned())
            .spawn(move || watch(&url));
    });
    logger.flush_and_stop(Duration::from_secs(1));
    code
}

/// Prints each request that has ended and each change of an endpoint's status, from the gateway's
/// own pages.
#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn watch(url: &str) {
    let mut seen = Seen::default();
    loop {
        std::thread::sleep(POLL_INTERVAL);
        // The gateway may be about to end.
        let endpoints = remote::document(url, "/internal/status/endpoints");
        let requests = remote::document(url, "/internal/stats/requests");
        let changes = endpoints.map_or_else(|_| Vec::new(), |page| seen.changes(&page));
        let ended = requests.map_or_else(|_| Vec::new(), |page| seen.ended(&page));
        for line in changes.iter().chain(&ended) {
            print(line);
        }
    }
}

/// The state that has been printed.
#[derive(Debug, Default)]
struct Seen {
    /// The status of each endpoint.
    statuses: BTreeMap<String, String>,
    /// The id of the newest request.
    newest: String,
}

impl Seen {
    /// A line for each endpoint with another status than before. The first check of an endpoint is
    /// no change.
    fn changes(&mut self, page: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for endpoint in page["endpoints"].as_array().into_iter().flatten() {
            let (Some(name), Some(status)) =
                (endpoint["name"].as_str(), endpoint["status"].as_str())
            else {
                continue;
            };
            let before = self.statuses.insert(name.to_owned(), status.to_owned());
            if let Some(before) = before.filter(|before| before != status && before != "unknown") {
                let what = if status == "healthy" {
                    "recovered"
                } else {
                    "failed"
                };
                lines.push(format!("  {name} {what}: {before} -> {status}\n"));
            }
        }
        lines
    }

    /// A line for each request that has ended since the last call, the oldest first.
    fn ended(&mut self, page: &Value) -> Vec<String> {
        let Some(requests) = page["requests"].as_array() else {
            return Vec::new();
        };
        let fresh = requests
            .iter()
            .take_while(|request| request["id"] != self.newest.as_str());
        let mut lines: Vec<String> = fresh.map(line).collect();
        lines.reverse();
        if let Some(newest) = requests.first().and_then(|newest| newest["id"].as_str()) {
            newest.clone_into(&mut self.newest);
        }
        lines
    }
}

fn line(request: &Value) -> String {
    let text = |key: &str| request[key].as_str().unwrap_or("-").to_owned();
    let retries = request["retries"].as_u64().unwrap_or(0);
    let again = if retries > 0 {
        format!(", {retries} failed before")
    } else {
        String::new()
    };
    format!(
        "  {} {}  {}  ->  {}  {} in {} ms ({}{again})\n",
        text("method"),
        text("path"),
        text("model"),
        text("endpoint"),
        request["status"]
            .as_u64()
            .map_or_else(|| text("outcome"), |status| status.to_string()),
        request["duration_ms"].as_u64().unwrap_or(0),
        text("reason"),
    )
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe does not end the demo.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failures_and_recoveries_of_endpoints_are_lines() {
        let page = |status: &str| json!({"endpoints": [{"name": "attic", "status": status}]});
        let mut seen = Seen::default();
        let table = [
            ("unknown", None),
            ("healthy", None),
            ("healthy", None),
            ("offline", Some("  attic failed: healthy -> offline\n")),
            ("offline", None),
            ("healthy", Some("  attic recovered: offline -> healthy\n")),
        ];
        for (status, want) in table {
            let lines = seen.changes(&page(status));
            assert_eq!(lines.first().map(String::as_str), want, "{status}");
        }
    }

    #[test]
    fn each_request_is_one_line() {
        let request = |id: &str| {
            json!({"id": id, "method": "POST", "path": "/x", "model": "m", "endpoint": "attic",
                "status": 200, "duration_ms": 7, "reason": "exact", "retries": 1})
        };
        let mut seen = Seen::default();
        let page = json!({"requests": [request("b"), request("a")]});
        let lines = seen.ended(&page);
        let want = "  POST /x  m  ->  attic  200 in 7 ms (exact, 1 failed before)\n";
        assert_eq!(lines, [want, want]);
        assert!(seen.ended(&page).is_empty());
        let page = json!({"requests": [request("c"), request("b"), request("a")]});
        assert_eq!(seen.ended(&page).len(), 1);
    }
}
