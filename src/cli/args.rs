//! The grammar of the command line.
//!
//! The words are first brought to one form: flags may have one dash or two, switches may have a
//! value (`--profile=false`), a word that is no command is left out. What remains is strict.
//!
//! contract: operations 9

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::{Ask, Command, CommandOutput, Demo, Options, Parsed, Subject, build_info};
use crate::config::boolean;

const ABOUT: &str = "Edge gateway for self-hosted LLM servers: one address in front of Ollama, \
LM Studio, vLLM, llama.cpp, SGLang and whatever speaks OpenAI's API.";

const EXAMPLES: &str = "\
Examples:
  olla demo                          try it: nothing to install, nothing to configure
  olla --config olla.toml            serve
  olla check -c olla.toml            say what is wrong with a configuration, then end
  olla import olla.yaml > olla.toml  move over from Olla (its YAML also works as it is)
  olla status                        how the gateway on this machine is doing
  olla models --url http://gw:40114  which models it has, and where
  olla completions bash              completions for your shell

Without --config: OLLA_CONFIG_FILE, else the first of config/config.local.toml,
config/config.toml, config.toml, default.toml; else the built-in defaults, which look for
Ollama on this machine. Signals: HUP reloads, TERM and INT finish what is in flight.
Exit codes: 0 = asked to end, 1 = could not start or found something wrong, 2 = wrong words.";

#[derive(Debug, Parser)]
#[command(
    name = "olla",
    about = ABOUT,
    after_help = EXAMPLES,
    args_override_self = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    infer_subcommands = false
)]
struct Args {
    /// Configuration file: TOML, or Olla's own YAML
    #[arg(short, long, alias = "c", value_name = "PATH", global = true)]
    #[arg(allow_hyphen_values = true, value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,

    /// Judge the configuration, open no socket, and end
    #[arg(long, visible_alias = "validate-config")]
    check: bool,

    /// Serve the profiler
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
    /// Serve in front of simulated backends: nothing to install, nothing to configure
    Demo {
        /// Port of the gateway
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Judge the configuration, open no socket, and end
    Check,
    /// Print Olla's YAML configuration as TOML, with remarks on keys without effect
    Import {
        /// The YAML file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List the models of a gateway that runs
    Models(Target),
    /// Show the figures and endpoints of a gateway that runs
    Status(Target),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Address of the gateway; absent = the configuration's
    #[arg(long)]
    url: Option<String>,

    /// Print the answer as it comes
    #[arg(long)]
    json: bool,
}

/// Understands the words after the program's name.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let Usual { words, ignored } = match usual(words) {
        Ok(usual) => usual,
        Err(fault) => {
            let error = Args::command().error(ErrorKind::ValueValidation, fault);
            return Parsed::Done(usage(&error));
        }
    };
    let named = std::iter::once(OsString::from("olla")).chain(words);
    match Args::try_parse_from(named) {
        Ok(args) => command(args, ignored),
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

fn command(args: Args, ignored: Vec<String>) -> Parsed {
    if args.version {
        return Parsed::Done(CommandOutput::good(build_info::line()));
    }
    let options = Options {
        config: args.config,
        profile: args.profile,
        ignored,
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
        Some(Sub::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "olla", &mut script);
            return Parsed::Done(CommandOutput::good(String::from_utf8_lossy(&script)));
        }
    })
}

/// Words in the one form that the grammar knows.
#[derive(Debug, Default)]
struct Usual {
    words: Vec<OsString>,
    ignored: Vec<String>,
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

/// # Errors
/// A sentence about a switch whose value is no boolean.
fn usual(words: impl IntoIterator<Item = OsString>) -> Result<Usual, String> {
    let (flags, command) = (flags(), Args::command());
    let is_command = |word: &OsStr| {
        word.to_str()
            .is_some_and(|word| command.find_subcommand(word).is_some())
    };
    let mut usual = Usual::default();
    let mut words = words.into_iter();
    let (mut plain_words, mut in_command) = (0, false);
    while let Some(word) = words.next() {
        if word == "--" && !in_command {
            usual
                .ignored
                .extend(words.map(|word| word.to_string_lossy().into_owned()));
            break;
        }
        let Some((name, value)) = flag(&word) else {
            plain_words += 1;
            if plain_words == 1 && is_command(&word) {
                in_command = true;
                usual.words.push(word);
            } else if in_command {
                usual.words.push(word);
            } else {
                usual.ignored.push(word.to_string_lossy().into_owned());
            }
            continue;
        };
        let known = flags.iter().find(|(flag, _)| name == flag.as_str());
        match known.map(|(_, takes)| *takes) {
            None => usual.words.push(word),
            Some(Takes::Value) => {
                let value = value.or_else(|| words.next());
                usual.words.push(long(name, value.as_deref()));
            }
            Some(Takes::Nothing) => {
                let on = match &value {
                    None => true,
                    Some(value) => value.to_str().and_then(boolean).ok_or_else(|| {
                        format!(
                            "--{name} takes true or false, not {}",
                            value.to_string_lossy()
                        )
                    })?,
                };
                if on {
                    usual.words.push(long(name, None));
                }
            }
        }
    }
    Ok(usual)
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
