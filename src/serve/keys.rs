//! `olla key`, `olla usage` and `olla state`: brings together what the command line asks for, and
//! the secrets and stores that it does not know.
//!
//! Contract: docs/contract/access.md#14

use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use super::{ask, read};
use crate::access::{NewSecret, is_made_here};
use crate::cli::key::{self, Fresh, KeyAction};
use crate::cli::{Caller, CommandOutput, KeyCommand, NewKey, Remote, UsageCommand, state, usage};
use crate::clock::unix_millis;
use crate::config::Env;
use crate::state::{Day, StoreFault, UsageQuery, check, usage_of};

/// The longest input of `olla key hash` that is read, in bytes.
const INPUT_BYTES_MAX: u64 = 4096;

/// Runs `olla key`.
pub(super) fn key(command: KeyCommand, env: &Env) -> CommandOutput {
    let (action, remote) = match command {
        KeyCommand::Hash => return hash(),
        KeyCommand::New(new) if new.remote.url.is_none() => return make(&new, env),
        KeyCommand::New(new) => match key::remote_body(&new) {
            Ok(body) => (KeyAction::Create(body), new.remote),
            Err(message) => return CommandOutput::failed(&message),
        },
        KeyCommand::List(remote) => (KeyAction::List, remote),
        KeyCommand::Show(name, remote) => (KeyAction::Show(name), remote),
        KeyCommand::Enable(name, enabled, remote) => (KeyAction::Enable(name, enabled), remote),
        KeyCommand::Rotate(name, grace, remote) => (KeyAction::Rotate(name, grace), remote),
        KeyCommand::Delete(name, cut, remote) => (KeyAction::Delete(name, cut), remote),
    };
    match gateway(&remote, env) {
        Ok((url, caller)) => key::run(&action, &url, &caller, remote.json),
        Err(output) => output,
    }
}

/// Runs `olla usage`.
pub(super) fn usage(command: &UsageCommand, env: &Env) -> CommandOutput {
    if let Some(file) = &command.store {
        let now = SystemTime::now();
        let today = Day::of_unix_ms(unix_millis(now));
        return usage::show(command, |query| {
            let query = UsageQuery::parse(query, today)?;
            let report = usage_of(file, &query, now).map_err(|fault| of_file(file, &fault))?;
            Ok(report.body)
        });
    }
    match gateway(&command.remote, env) {
        Ok((url, caller)) => usage::remote(command, &url, &caller),
        Err(output) => output,
    }
}

/// Runs `olla state check`.
pub(super) fn check_state(file: &Path) -> CommandOutput {
    let found = match check(file) {
        Ok(found) => found,
        Err(fault) => return CommandOutput::failed(&of_file(file, &fault)),
    };
    let days = found
        .days
        .map_or_else(String::new, |(first, last)| format!(" ({first} to {last})"));
    let counts = [
        ("version", found.version.to_string()),
        ("keys", found.keys.to_string()),
        ("quota windows", found.windows.to_string()),
        ("usage rows", format!("{}{days}", found.rows)),
    ];
    state::report(file, &counts, &found.faults)
}

fn of_file(file: &Path, fault: &StoreFault) -> String {
    format!("{}: {fault}", file.display())
}

fn hash() -> CommandOutput {
    let mut input = Vec::new();
    let stdin = std::io::stdin().lock();
    match stdin.take(INPUT_BYTES_MAX).read_to_end(&mut input) {
        Ok(_) => key::hash(&input, is_made_here),
        Err(error) => CommandOutput::failed(&format!("standard input cannot be read: {error}")),
    }
}

/// Makes a key that no gateway is asked for. Its policy is checked if a configuration is named.
fn make(new: &NewKey, env: &Env) -> CommandOutput {
    let secret = match NewSecret::make() {
        Ok(secret) => secret,
        Err(error) => return CommandOutput::failed(&format!("no secret can be made: {error}")),
    };
    let policies = match &new.remote.config {
        None => None,
        Some(config) => match read(Some(config), env, None).loaded.plan {
            Some(plan) => Some(plan.access.policies.clone()),
            None => {
                let message = format!("{} has errors; run olla check -c {0}", config.display());
                return CommandOutput::failed(&message);
            }
        },
    };
    let fresh = Fresh {
        secret: secret.expose(),
        now: SystemTime::now(),
    };
    key::local(new, fresh, policies.as_ref().map(|policies| &policies[..]))
}

/// The address of a gateway, and how it is asked.
fn gateway(remote: &Remote, env: &Env) -> Result<(String, Caller), CommandOutput> {
    let (url, trust) = ask::address(&remote.url, remote.config.as_deref(), &remote.trust, env)?;
    let credential = ask::credential(remote.key_file.as_deref(), env)?;
    Ok((url, Caller { trust, credential }))
}
