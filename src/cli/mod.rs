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
pub(crate) mod probe;
pub(crate) mod remote;
mod table;
mod tls;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{Env, boolean};
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
    /// Print a YAML configuration of Olla as TOML ([`import::run`]).
    Import {
        /// The YAML file.
        file: PathBuf,
    },
    /// Show the state of a running gateway ([`remote::run`]).
    Show(Show),
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
