//! The command line: from arguments to a [`Command`], and the commands that do not start a gateway.
//!
//! `olla` without a command starts the gateway. `--version`, `--help`, `completions` and invalid
//! arguments result in a [`CommandOutput`] at once; everything else is a [`Command`] for `main`.
//!
//! Contract: docs/contract/operations.md#9

mod args;
pub(crate) mod build_info;
pub(crate) mod check;
pub(crate) mod health;
mod http;
pub(crate) mod import;
pub(crate) mod key;
mod key_args;
pub(crate) mod probe;
pub(crate) mod remote;
pub(crate) mod state;
mod table;
mod tls;
pub(crate) mod usage;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{ConfigKind, Env, boolean};
pub(crate) use tls::Trust;

/// The command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the gateway until a signal.
    Serve(Options),
    /// Validate the configuration ([`check::report`]).
    Check {
        /// Whether every endpoint is asked once; without it no socket is opened.
        probe: bool,
        /// The configuration.
        options: Options,
    },
    /// Ask a gateway whether it serves ([`health::run`]).
    Health(HealthQuery),
    /// Run the gateway in front of simulated endpoints.
    Demo(DemoOptions),
    /// Print a YAML configuration as TOML ([`import::run`]).
    Import {
        /// The YAML file.
        file: PathBuf,
        /// `--from`; `None` = the kind is detected.
        from: Option<ConfigKind>,
    },
    /// Show the state of a running gateway ([`remote::run`]).
    Show(Show),
    /// Make keys, or ask a running gateway about them ([`key`]).
    Key(KeyCommand),
    /// Show what was used ([`usage`]).
    Usage(UsageCommand),
    /// Check a state store ([`state::report`]).
    CheckState(PathBuf),
}

/// The options of a start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// `--config`; `None` = `OLLA_CONFIG_FILE` or the first default path.
    pub config: Option<PathBuf>,
    /// `--profile`; the variable `OLLA_ENABLE_PROFILER` belongs to the configuration.
    pub profile: bool,
}

/// The options of `demo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DemoOptions {
    /// Port of the gateway; `None` = the default port.
    pub port: Option<u16>,
}

/// The options of `status` and `models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Show {
    /// What is shown.
    pub subject: Subject,
    /// `--url`; `None` = where the configuration lets the gateway listen.
    pub url: Option<String>,
    /// Whether the JSON document is printed as it is.
    pub json: bool,
    /// `--config`, for the address.
    pub config: Option<PathBuf>,
    /// `--ca-file` and `--insecure`.
    pub trust: Trust,
    /// `--key-file`; `None` = the variable with the admin key.
    pub key_file: Option<PathBuf>,
}

/// A running gateway, and how a command asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// `--url`; `None` = where the configuration lets the gateway listen.
    pub url: Option<String>,
    /// `--key-file`; `None` = the variable with the admin key.
    pub key_file: Option<PathBuf>,
    /// Whether JSON is printed.
    pub json: bool,
    /// `--config`, for the address and the policies.
    pub config: Option<PathBuf>,
    /// `--ca-file` and `--insecure`.
    pub trust: Trust,
}

/// How a command makes itself known to a gateway, and which gateways it trusts. Its `Debug` does
/// not show the credential.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    /// The certificates that are accepted.
    pub trust: Trust,
    /// The admin key, if there is one.
    pub credential: Option<String>,
}

/// `olla key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyCommand {
    /// Make a key.
    New(Box<NewKey>),
    /// Hash a secret.
    Hash,
    /// List all keys.
    List(Remote),
    /// Show a key.
    Show(String, Remote),
    /// Enable or disable a key.
    Enable(String, bool, Remote),
    /// Give a key another secret; the old one stays valid for a time.
    Rotate(String, Option<String>, Remote),
    /// Delete a key; its requests may be cut.
    Delete(String, bool, Remote),
}

/// The options of `key new`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewKey {
    /// The name.
    pub name: String,
    /// `--policy`.
    pub policy: Option<String>,
    /// `--admin`: `true`, `false` or `read`.
    pub admin: Option<String>,
    /// `--expires`.
    pub expires: Option<String>,
    /// `--ttl`.
    pub ttl: Option<String>,
    /// `--note`.
    pub note: Option<String>,
    /// `--set`: fields and their values, each with `=` in between.
    pub set: Vec<String>,
    /// `--file`: the keys file that the key is appended to.
    pub file: Option<PathBuf>,
    /// The gateway that makes the key, if `--url` is given, and `--json` and `--config`.
    pub remote: Remote,
}

/// `olla usage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageCommand {
    /// The parameters of the report that are given.
    pub parameters: Vec<(&'static str, String)>,
    /// Whether CSV is printed.
    pub csv: bool,
    /// `--store`: the store that is read in place of a gateway.
    pub store: Option<PathBuf>,
    /// The gateway.
    pub remote: Remote,
}

/// The options of `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthQuery {
    /// The address; `None` = where the configuration lets the gateway listen.
    pub url: Option<String>,
    /// `--ready`: whether requests can be served is asked too.
    pub is_ready: bool,
    /// `--config`, for the address.
    pub config: Option<PathBuf>,
    /// `--ca-file` and `--insecure`.
    pub trust: Trust,
}

/// What the commands show of a running gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Its models, and the endpoints that serve them.
    Models,
    /// Its statistics and its endpoints.
    Status,
}

/// What a command prints, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandOutput {
    /// Text for standard output.
    pub stdout: String,
    /// Text for standard error.
    pub stderr: String,
    /// Exit code: 0, [`Self::FAILED`], [`Self::USAGE`] or [`Self::ENDPOINT_FAILED`].
    pub code: u8,
}

impl CommandOutput {
    /// Exit code of a failure.
    pub(crate) const FAILED: u8 = 1;
    /// Exit code of an invalid command line.
    pub(crate) const USAGE: u8 = 2;
    /// Exit code of a probe that an endpoint failed (docs/contract/observe.md#1).
    pub(crate) const ENDPOINT_FAILED: u8 = 3;

    fn good(stdout: impl Into<String>) -> Self {
        Self {
            stdout: stdout.into(),
            stderr: String::new(),
            code: 0,
        }
    }

    fn bad(stderr: impl Into<String>, code: u8) -> Self {
        Self {
            stdout: String::new(),
            stderr: stderr.into(),
            code,
        }
    }

    /// Exit code 1 with a message.
    pub(crate) fn failed(message: &str) -> Self {
        Self::bad(format!("olla: {message}\n"), Self::FAILED)
    }
}

/// The outcome of parsing the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A command to run.
    Run(Command),
    /// Output to print; there is nothing to run.
    Done(CommandOutput),
}

/// Parses the arguments, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>, env: &Env) -> Parsed {
    let wants_version = env.get("OLLA_SHOW_VERSION").and_then(boolean) == Some(true);
    if wants_version {
        return Parsed::Done(CommandOutput::good(build_info::line()));
    }
    args::parse(arguments)
}

#[cfg(test)]
mod tests;
