//! The commands that ask something over the network: a running gateway for its state, or the
//! endpoints of a configuration.
//!
//! Contract: docs/contract/operations.md#9, docs/contract/observe.md#1

use std::path::Path;
use std::sync::Arc;

use super::read;
use crate::cli::{Caller, CommandOutput, HealthQuery, Show, Trust, health, probe, remote};
use crate::config::{ADMIN_KEY_VARIABLE, Env, Finding, Plan, ServerPlan};
use crate::control::{Surveyed, survey};
use crate::providers::Profiles;

/// Shows the state of a running gateway, at the given URL or at the address of the configuration.
pub(super) fn show(show: &Show, env: &Env) -> CommandOutput {
    let found = address(&show.url, show.config.as_deref(), &show.trust, env);
    let asked = found.and_then(|(url, trust)| {
        let credential = credential(show.key_file.as_deref(), env)?;
        Ok((url, Caller { trust, credential }))
    });
    match asked {
        Ok((url, caller)) => remote::run(show.subject, &url, &caller, show.json),
        Err(output) => output,
    }
}

/// The address that is given, or that of the configuration, and which certificates are trusted there.
///
/// # Errors
/// What the command prints when the address is not known.
pub(super) fn address(
    url: &Option<String>,
    config: Option<&Path>,
    trust: &Trust,
    env: &Env,
) -> Result<(String, Trust), CommandOutput> {
    if let Some(url) = url {
        return Ok((url.clone(), trust.clone()));
    }
    match listener(config, env) {
        Ok(server) => {
            let trust = Trust {
                own: server.tls.as_ref().map(|tls| tls.cert_file.clone()),
                ..trust.clone()
            };
            Ok((server.local_url(), trust))
        }
        Err((why, more)) => {
            let message = format!("{why}; pass --url{more}");
            Err(CommandOutput::failed(&message))
        }
    }
}

/// The admin key that commands send: that of a file, else that of the environment.
pub(super) fn credential(file: Option<&Path>, env: &Env) -> Result<Option<String>, CommandOutput> {
    let Some(file) = file else {
        let key = env.get(ADMIN_KEY_VARIABLE).map(str::trim);
        return Ok(key.filter(|key| !key.is_empty()).map(str::to_owned));
    };
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) => {
            let message = format!("--key-file: {}: {error}", file.display());
            Err(CommandOutput::failed(&message))
        }
    }
}

/// Asks a gateway whether it serves. The certificate of the gateway of this configuration is not
/// verified: the address is this machine's own.
pub(super) fn health(command: &HealthQuery, env: &Env) -> CommandOutput {
    if let Some(url) = &command.url {
        return health::run(command.is_ready, url, &command.trust);
    }
    match listener(command.config.as_deref(), env) {
        Ok(server) => {
            let trust = Trust {
                insecure: true,
                ..command.trust.clone()
            };
            health::run(command.is_ready, &server.health_url(), &trust)
        }
        Err(why) => CommandOutput::failed(&format!("{}; pass its URL{}", why.0, why.1)),
    }
}

/// The listener of a configuration. Errors of other keys do not change its address.
///
/// # Errors
/// Why the address is not known, and the finding that says so.
fn listener(config: Option<&Path>, env: &Env) -> Result<ServerPlan, (&'static str, String)> {
    let loaded = read(config, env, None).loaded;
    let is_address =
        |finding: &&Finding| finding.key.is_empty() || LISTENER.contains(&&*finding.key);
    if let Some(finding) = loaded.errors().find(is_address) {
        let why =
            "the address of the gateway is not known, because of an error in its configuration";
        return Err((why, format!("\n{finding}")));
    }
    let why = "the configuration cannot be read";
    loaded.server.ok_or((why, String::new()))
}

/// The keys that make up the address of the gateway.
const LISTENER: [&str; 2] = ["server.host", "server.port"];

/// Asks every endpoint once and adds what they have shown to the report about the configuration.
pub(super) fn probe(report: CommandOutput, plan: Plan, profiles: &Profiles) -> CommandOutput {
    let profiles = Arc::new(profiles.filtered(&plan.proxy.profile_filter));
    match survey(Arc::new(plan), profiles) {
        Ok(found) => probe::report(report, found.into_iter().map(row)),
        Err(error) => CommandOutput::failed(&format!("the endpoints cannot be asked: {error}")),
    }
}

fn row(found: Surveyed) -> probe::Row {
    probe::Row {
        name: found.name,
        kind: found.kind,
        status: found.status.as_str(),
        latency: found.latency,
        models: found.models,
        version: found.version,
        url: found.url,
        errors: found.errors,
        has_failed: found.has_failed,
    }
}
