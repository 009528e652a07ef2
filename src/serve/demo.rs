//! `olla demo`: the gateway in front of simulated backends, and a line for each request.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::start;
use crate::catalogue::Rules;
use crate::cli::{self, CommandOutput, remote};
use crate::config::{ConfigInputs, Env, FileFormat, NameFilter, plan_from_str};
use crate::demo::Demo;
use crate::log::Logger;
use crate::providers::{self, Profiles};

/// The usual port.
const PORT: u16 = 40114;

/// Between two looks for requests that have ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs until a signal; the exit code.
pub(super) fn run(demo: &cli::Demo, env: Env) -> u8 {
    let say = |text: &str| {
        eprintln!("olla demo: {text}");
        CommandOutput::FAILED
    };
    let backends = match Demo::start() {
        Ok(backends) => backends,
        Err(error) => {
            return say(&format!(
                "the simulated backends cannot be started: {error}"
            ));
        }
    };
    let logger = match Logger::start(&env) {
        Ok(logger) => logger,
        Err(error) => return say(&format!("the log cannot be started: {error}")),
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
    let toml = backends.config_toml(demo.port.unwrap_or(PORT));
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
        rules: Arc::new(Rules::builtin().clone()),
        fingerprints: loaded.fingerprints,
        restart_only: loaded.restart_only,
        config: None,
        profile: false,
        env,
    };
    let code = start::run(setup, &logger, |url| {
        print(&backends.guide(url));
        let url = url.to_owned();
        // Without it the demo still serves.
        let _ = std::thread::Builder::new()
            .name("demo-watch".to_owned())
            .spawn(move || watch(&url));
    });
    logger.flush_and_stop(Duration::from_secs(1));
    code
}

/// Prints each request once it has ended, as the gateway itself tells.
#[expect(clippy::disallowed_methods, reason = "a thread of its own")]
fn watch(url: &str) {
    let mut last = String::new();
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Ok(page) = remote::document(url, "/internal/stats/requests") else {
            continue;
        };
        let Some(requests) = page["requests"].as_array() else {
            continue;
        };
        let fresh: Vec<_> = requests
            .iter()
            .take_while(|request| request["id"] != last.as_str())
            .collect();
        if let Some(newest) = requests.first().and_then(|newest| newest["id"].as_str()) {
            newest.clone_into(&mut last);
        }
        for request in fresh.iter().rev() {
            print(&line(request));
        }
    }
}

fn line(request: &serde_json::Value) -> String {
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
    // A reader that has gone away wants nothing more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
