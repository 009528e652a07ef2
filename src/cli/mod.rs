//! The command line: from words to a [`Command`], and the commands that serve nobody.
//!
//! `olla` alone serves. `--version`, `--help`, wrong words and `completions` are answered here, as
//! an [`CommandOutput`] that `main` prints; the rest is handed to `main` as data. Starts nothing and holds
//! no logic of serving.
//!
//! Contract: docs/contract/operations.md#9

mod args;
pub mod build_info;
pub mod check;
mod http;
pub mod import;
pub mod remote;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{Env, boolean};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve until a signal.
    Serve(Options),
    /// Judge the configuration and open no socket ([`check::report`]).
    Check(Options),
    /// Serve in front of simulated backends.
    Demo(Demo),
    /// Print Olla's YAML as TOML ([`import::run`]).
    Import {
        /// The YAML file.
        file: PathBuf,
    },
    /// Show something of a gateway that runs ([`remote::run`]).
    Ask(Ask),
}

/// The flags of serving.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// `--config`; `None` = `OLLA_CONFIG_FILE` or the first default path.
    pub config: Option<PathBuf>,
    /// `--profile`; `OLLA_ENABLE_PROFILER` is the configuration's.
    pub profile: bool,
}

/// The flags of `demo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// Port of the gateway; `None` = the usual one.
    pub port: Option<u16>,
}

/// A question to a gateway that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub subject: Subject,
    /// Its address; `None` = [`remote::address_of`] the configuration.
    pub url: Option<String>,
    /// Whether to print the answer as it comes.
    pub json: bool,
    /// `--config`, to find the address.
    pub config: Option<PathBuf>,
}

/// What a gateway can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Its models and where they are.
    Models,
    /// Its figures and its endpoints.
    Status,
}

/// What to print and how to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// The exit code: 0, 1 = failed, 2 = wrong words.
    pub code: u8,
}

impl CommandOutput {
    /// Exit code of a failure.
    pub const FAILED: u8 = 1;
    /// Exit code of wrong words.
    pub const USAGE: u8 = 2;

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
}

/// The words, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// To be done.
    Run(Command),
    /// Done: to be printed.
    Done(CommandOutput),
}

/// Understands the words after the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>, env: &Env) -> Parsed {
    let wants_version = env.get("OLLA_SHOW_VERSION").and_then(boolean) == Some(true);
    if wants_version {
        return Parsed::Done(CommandOutput::good(build_info::line()));
    }
    args::parse(words)
}

#[cfg(test)]
mod tests;
