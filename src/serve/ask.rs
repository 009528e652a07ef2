//! The commands that ask something over the network: a running gateway for its state, or the
//! endpoints of a configuration.
//!
//! Contract: docs/contract/operations.md#9, docs/contract/observe.md#1

use std::path::Path;
use std::sync::Arc;

use super::read;
use crate::cli::{CommandOutput, HealthQuery, Show, Trust, health, probe, remote};
use crate::config::{Env, Finding, Plan, ServerPlan};
use crate::control::{Surveyed, survey};
use crate::providers::Profiles;

/// Shows the state of a running gateway, at the given URL or at the address of the configuration.
pub(super) fn show(show: &Show, env: &Env) -> CommandOutput {
    if let Some(url) = &show.url {
        return remote::run(show.subject, url, &show.trust, show.json);
    }
    let server = match listener(show.config.as_deref(), env) {
        Ok(server) => server,
        Err(why) => return CommandOutput::failed(&format!("{}; pass --url{}", why.0, why.1)),
    };
    let trust = Trust {
        own: server.tls.as_ref().map(|tls| tls.cert_file.clone()),
        ..show.trust.clone()
    };
    remote::run(show.subject, &server.local_url(), &trust, show.json)
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
