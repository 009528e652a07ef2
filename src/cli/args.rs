//! The grammar of the command line.
//!
//! The words are first brought to one form: flags may have one dash or two, switches may have a
//! value (`--profile=false`). A word that is no command is an error. What remains is strict.
//!
//! Contract: docs/contract/operations.md#9

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::{Ask, Command, CommandOutput, Demo, Options, Parsed, Subject, build_info};
use crate::config::{boolean, nearest};

const ABOUT: &str = "Edge gateway for self-hosted LLM servers: one address in front of Ollama, \
LM Studio, vLLM, llama.cpp, SGLang and whatever speaks OpenAI's API.";

const EXAMPLES: &str = "\
Examples:
  olla demo                          try the gateway with simulated backends
  olla --config olla.toml            run the gateway
  olla check -c olla.toml            validate a configuration
  olla import olla.yaml > olla.toml  convert a configuration of Olla (its YAML also works as it is)
  olla status                        show the state of the gateway on this machine
  olla models --url http://gw:40114  list the models of a gateway
  olla completions bash              print completions for a shell

Configuration file: --config, else OLLA_CONFIG_FILE, else the first that exists of
config/config.local.toml, config/config.toml, config.toml and default.toml, else the built-in
defaults: Ollama on this machine.

Signals: HUP reloads the configuration. TERM and INT finish requests in flight and exit; a second
one exits at once. USR1, USR2 and PIPE are ignored.

Exit codes: 0 success or clean shutdown, 1 startup or validation error, 2 invalid command line.";

#[derive(Debug, Parser)]
#[command(
    name = "olla",
    about = ABOUT,
    after_help = EXAMPLES,
    args_override_self = true,
    disable_version_flag = true,
    infer_subcommands = false
)]
struct Args {
    /// Configuration file, TOML or Olla's YAML
    #[arg(short, long, alias = "c", value_name = "PATH", global = true)]
    #[arg(allow_hyphen_values = true, value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Validate the configuration and exit
    #[arg(long, visible_alias = "validate-config")]
    check: bool,

    /// Accepted for compatibility; no profiler is built in
    #[arg(long)]
    profile: bool,

    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,

    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Run the gateway in front of simulated backends, without installing anything
    Demo {
        /// Port of the gateway
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Validate the configuration and exit
    Check,
    /// Convert a YAML configuration of Olla to TOML on standard output
    Import {
        /// The YAML file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List the models of a running gateway
    Models(Target),
    /// Show statistics and endpoints of a running gateway
    Status(Target),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Address of the gateway [default: that of the configuration]
    #[arg(long)]
    url: Option<String>,

    /// Print the JSON response as it is
    #[arg(long)]
    json: bool,
}

/// Understands the words after the program's name.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let words = match usual(words) {
        Ok(words) => words,
        Err(fault) => {
            let error = Args::command().error(ErrorKind::ValueValidation, fault);
            return Parsed::Done(usage(&error));
        }
    };
    let named = std::iter::once(OsString::from("olla")).chain(words);
    match Args::try_parse_from(named) {
        Ok(args) => command(args),
        Err(error) => Parsed::Done(match error.kind() {
            ErrorKind::DisplayHelp => CommandOutput::good(error.render().to_string()),
            _ => usage(&error),
        }),
    }
}

/// What is wrong and how it is done right; the library leaves the latter out at times.
fn usage(error: &clap::Error) -> CommandOutput {
    let mut text = error.render().to_string();
    if !text.contains("Usage") {
        text.push_str(&format!("\n{}\n", Args::command().render_usage()));
    }
    CommandOutput::bad(text, CommandOutput::USAGE)
}

fn command(args: Args) -> Parsed {
    if args.version {
        return Parsed::Done(CommandOutput::good(build_info::line()));
    }
    let options = Options {
        config: args.config,
        profile: args.profile,
    };
    let ask = |subject, target: Target, options: Options| {
        let (url, json, config) = (target.url, target.json, options.config);
        Command::Ask(Ask {
            subject,
            url,
            json,
            config,
        })
    };
    Parsed::Run(match args.command {
        None if args.check => Command::Check(options),
        None => Command::Serve(options),
        Some(Sub::Check) => Command::Check(options),
        Some(Sub::Demo { port }) => Command::Demo(Demo { port }),
        Some(Sub::Import { file }) => Command::Import { file },
        Some(Sub::Models(target)) => ask(Subject::Models, target, options),
        Some(Sub::Status(target)) => ask(Subject::Status, target, options),
        Some(Sub::Version) => return Parsed::Done(CommandOutput::good(build_info::line())),
        Some(Sub::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "olla", &mut script);
            return Parsed::Done(CommandOutput::good(String::from_utf8_lossy(&script)));
        }
    })
}

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// The flags and what they take, from the grammar itself: letters and names, aliases included.
fn flags() -> Vec<(String, Takes)> {
    let mut command = Args::command();
    command.build();
    let subcommands = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    let mut flags = Vec::new();
    for arg in command.get_arguments().chain(subcommands) {
        let takes = if arg.get_action().takes_values() {
            Takes::Value
        } else {
            Takes::Nothing
        };
        let letters = arg.get_short().map(|letter| letter.to_string());
        let names = arg.get_long_and_visible_aliases().unwrap_or_default();
        let names = names
            .into_iter()
            .chain(arg.get_all_aliases().unwrap_or_default());
        flags.extend(
            letters
                .into_iter()
                .chain(names.map(str::to_owned))
                .map(|name| (name, takes)),
        );
    }
    flags
}

/// The words in the one form that the grammar knows.
///
/// # Errors
/// A message about a command that does not exist, or a switch whose value is no boolean.
fn usual(words: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let (flags, mut command) = (flags(), Args::command());
    command.build();
    let is_command = |word: &OsStr| {
        word.to_str()
            .is_some_and(|word| command.find_subcommand(word).is_some())
    };
    let mut usual = Vec::new();
    let mut words = words.into_iter();
    let mut in_command = false;
    while let Some(word) = words.next() {
        let Some((name, value)) = flag(&word) else {
            if !in_command && !is_command(&word) {
                return Err(unknown_command(&command, &word));
            }
            in_command = true;
            usual.push(word);
            continue;
        };
        let known = flags.iter().find(|(flag, _)| name == flag.as_str());
        match known.map(|(_, takes)| *takes) {
            None => usual.push(word),
            Some(Takes::Value) => {
                let value = value.or_else(|| words.next());
                usual.push(long(name, value.as_deref()));
            }
            Some(Takes::Nothing) => {
                let on = match &value {
                    None => true,
                    Some(value) => value.to_str().and_then(boolean).ok_or_else(|| {
                        format!(
                            "--{name}: expected true or false, got \"{}\"",
                            value.to_string_lossy()
                        )
                    })?,
                };
                if on {
                    usual.push(long(name, None));
                }
            }
        }
    }
    Ok(usual)
}

fn unknown_command(command: &clap::Command, word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let names = command.get_subcommands().map(clap::Command::get_name);
    let hint = nearest(&word, names)
        .map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
    format!("unknown command \"{word}\"{hint}")
}

/// The name of a flag without its dashes, and the value behind its `=`.
fn flag(word: &OsStr) -> Option<(&str, Option<OsString>)> {
    let bytes = word.as_bytes();
    let bytes = bytes
        .strip_prefix(b"--")
        .or_else(|| bytes.strip_prefix(b"-"))?;
    let (name, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => bytes.split_at(at),
        None => (bytes, &[][..]),
    };
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty())?;
    let value = value
        .strip_prefix(b"=")
        .map(|value| OsString::from_vec(value.to_vec()));
    Some((name, value))
}

fn long(name: &str, value: Option<&OsStr>) -> OsString {
    let dashes = if name.len() == 1 { "-" } else { "--" };
    let mut word = OsString::from(dashes);
    word.push(name);
    if let Some(value) = value {
        word.push("=");
        word.push(value);
    }
    word
}
