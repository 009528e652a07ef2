//! The grammar of the command line.
//!
//! The arguments are first normalized: options may have one dash or two, switches may have a value
//! (`--profile=false`), and an unknown command is an error. The parser behind that is strict.
//!
//! Contract: docs/contract/operations.md#9

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::key_args::{self, Certificates, KeySub, StateSub, UsageArgs};
use super::{
    Command, CommandOutput, DemoOptions, HealthQuery, Options, Parsed, Show, Subject, build_info,
};
use crate::config::{ConfigKind, boolean, nearest};

const ABOUT: &str = "Edge gateway for self-hosted LLM servers: one address in front of Ollama, \
LM Studio, vLLM, llama.cpp, SGLang and any server that speaks OpenAI's API.";

const EXAMPLES: &str = "\
Examples:
  olla demo                          try the gateway with simulated endpoints
  olla --config olla.toml            run the gateway
  olla check -c olla.toml            validate a configuration
  olla check --probe                 and ask every endpoint once
  olla import olla.yaml > olla.toml  convert Olla's YAML to TOML (--config also accepts YAML);
                                     also LiteLLM's and llama-swap's config.yaml
  olla status                        show the state of the gateway on this machine
  olla models --url http://gw:40114  list the models of a gateway
  olla status --url https://gw:8443 --ca-file ca.pem
  olla key new alice                 make a key for a client
  olla usage --group key,model       show what was used today
  olla health --ready                exit with 0 if the gateway on this machine is ready
  olla completions bash              print completions for a shell

Configuration file: --config, else OLLA_CONFIG_FILE, else the first that exists of
config/config.local.toml, config/config.toml, config.toml and default.toml, then of the same four
with .yaml, else the built-in defaults: Ollama on this machine.

Signals: HUP reloads the configuration. TERM and INT finish requests in flight and exit; a second
one exits at once. USR1, USR2, PIPE and XFSZ are ignored.

Exit codes: 0 success or clean shutdown, 1 startup or validation error, 2 invalid command line,
3 an endpoint failed under check --probe.";

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
    /// Run the gateway in front of simulated endpoints, without installing anything
    Demo {
        /// Port of the gateway [default: 40114]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// Validate the configuration and exit
    Check {
        /// Ask every endpoint once for its health, its models and its version
        #[arg(long)]
        probe: bool,
    },
    /// Convert a YAML configuration of Olla, LiteLLM or llama-swap to TOML on standard output
    Import {
        /// YAML file to convert
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,

        /// Kind of the file [default: by its top-level keys]
        #[arg(long, value_name = "KIND")]
        #[arg(value_parser = PossibleValuesParser::new(ConfigKind::NAMES.map(|(name, _)| name)))]
        from: Option<String>,
    },
    /// Exit with 0 if a gateway serves, for the health check of a container
    Health {
        /// Address of the gateway [default: the address in the configuration]
        url: Option<String>,

        /// Require a healthy endpoint, and that no shutdown has begun
        #[arg(long)]
        ready: bool,

        #[command(flatten)]
        trust: Certificates,
    },
    /// Make, list and change keys of clients
    #[command(subcommand)]
    Key(KeySub),
    /// List the models of a running gateway
    Models(Target),
    /// Look at a state store
    #[command(subcommand)]
    State(StateSub),
    /// Show statistics and endpoints of a running gateway
    Status(Target),
    /// Print completions for a shell
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
    /// Show what was used, by key, model, endpoint and day
    Usage(Box<UsageArgs>),
    /// Print the version
    Version,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Address of the gateway [default: the address in the configuration]
    #[arg(long)]
    url: Option<String>,

    /// Print the JSON response unchanged
    #[arg(long)]
    json: bool,

    /// File with the admin key [default: the variable OLLA_ADMIN_KEY]
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,

    #[command(flatten)]
    trust: Certificates,
}

/// Parses the arguments, without the program's name.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments = match normalized(arguments) {
        Ok(arguments) => arguments,
        Err(fault) => {
            let error = Args::command().error(ErrorKind::ValueValidation, fault);
            return Parsed::Done(usage(&error));
        }
    };
    let program = std::iter::once(OsString::from("olla"));
    match Args::try_parse_from(program.chain(arguments)) {
        Ok(args) => command(args),
        Err(error) => Parsed::Done(match error.kind() {
            ErrorKind::DisplayHelp => CommandOutput::good(error.render().to_string()),
            _ => usage(&error),
        }),
    }
}

/// The message of the library with the usage, which some of its messages lack. As in its other
/// messages, the reference to `--help` stays last.
fn usage(error: &clap::Error) -> CommandOutput {
    let mut text = error.render().to_string();
    if !text.contains("Usage") {
        let usage = Args::command().render_usage();
        let end = text.find("For more information").unwrap_or(text.len());
        text.insert_str(end, &format!("{usage}\n\n"));
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
    let show = |subject, target: Target, options: Options| {
        Command::Show(Show {
            subject,
            url: target.url,
            json: target.json,
            config: options.config,
            trust: target.trust.into(),
            key_file: target.key_file,
        })
    };
    let check = |probe, options| Command::Check { probe, options };
    Parsed::Run(match args.command {
        None if args.check => check(false, options),
        None => Command::Serve(options),
        Some(Sub::Check { probe }) => check(probe, options),
        Some(Sub::Demo { port }) => Command::Demo(DemoOptions { port }),
        Some(Sub::Import { file, from }) => Command::Import {
            file,
            from: from.as_deref().and_then(kind_of),
        },
        Some(Sub::Health { url, ready, trust }) => Command::Health(HealthQuery {
            url,
            is_ready: ready,
            config: options.config,
            trust: trust.into(),
        }),
        Some(Sub::Key(given)) => Command::Key(key_args::key(given, options.config)),
        Some(Sub::Usage(given)) => Command::Usage(key_args::usage(*given, options.config)),
        Some(Sub::State(StateSub::Check { file })) => Command::CheckState(file),
        Some(Sub::Models(target)) => show(Subject::Models, target, options),
        Some(Sub::Status(target)) => show(Subject::Status, target, options),
        Some(Sub::Version) => return Parsed::Done(CommandOutput::good(build_info::line())),
        Some(Sub::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "olla", &mut script);
            return Parsed::Done(CommandOutput::good(String::from_utf8_lossy(&script)));
        }
    })
}

/// The kind of configuration with this name.
fn kind_of(name: &str) -> Option<ConfigKind> {
    let found = ConfigKind::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, kind)| *kind)
}

/// Whether an option has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// A value after `=`, or none.
    Maybe,
}

/// All options of the grammar: letters, names and aliases.
fn options() -> Vec<(String, Takes)> {
    let mut command = Args::command();
    command.build();
    let subcommands = || command.get_subcommands();
    let nested = subcommands().flat_map(clap::Command::get_subcommands);
    let below = subcommands()
        .chain(nested)
        .flat_map(clap::Command::get_arguments);
    let mut options = Vec::new();
    for arg in command.get_arguments().chain(below) {
        let is_optional = arg
            .get_num_args()
            .is_some_and(|range| range.min_values() == 0);
        let takes = match arg.get_action().takes_values() {
            true if is_optional => Takes::Maybe,
            true => Takes::Value,
            false => Takes::Nothing,
        };
        let letter = arg.get_short().map(|letter| letter.to_string());
        let name = arg.get_long().map(str::to_owned);
        let aliases = arg.get_all_aliases().into_iter().flatten();
        let names = letter
            .into_iter()
            .chain(name)
            .chain(aliases.map(str::to_owned));
        options.extend(names.map(|name| (name, takes)));
    }
    options
}

/// The arguments in the one form that the parser knows.
///
/// # Errors
/// A message about an unknown command, or a switch with a value that is not a boolean.
fn normalized(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let (options, mut command) = (options(), Args::command());
    command.build();
    let is_command = |argument: &OsStr| {
        argument
            .to_str()
            .is_some_and(|name| command.find_subcommand(name).is_some())
    };
    let mut normalized = Vec::new();
    let mut arguments = arguments.into_iter();
    let mut in_command = None;
    // What follows an unknown option may be its value, so the option is the error.
    let mut has_unknown_option = false;
    while let Some(argument) = arguments.next() {
        let Some((name, value)) = option(&argument) else {
            let is_name = in_command.as_ref().is_none_or(|name| name == "help");
            if is_name && !has_unknown_option && !is_command(&argument) {
                return Err(unknown_command(&command, &argument));
            }
            in_command.get_or_insert_with(|| argument.clone());
            normalized.push(argument);
            continue;
        };
        let known = options.iter().find(|(known, _)| name == known.as_str());
        match known.map(|(_, takes)| *takes) {
            None => {
                has_unknown_option = true;
                // With one dash, the parser would read the first letter of `-confg` as an option.
                let known = options.iter().map(|(known, _)| known.as_str());
                let is_misspelt = value.is_none() && name.len() > 1;
                if is_misspelt && nearest(name, known).is_some() {
                    normalized.push(dashed(name, None));
                } else {
                    normalized.push(argument);
                }
            }
            Some(Takes::Value) => {
                let value = value.or_else(|| arguments.next());
                normalized.push(dashed(name, value.as_deref()));
            }
            Some(Takes::Maybe) => normalized.push(dashed(name, value.as_deref())),
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
                    normalized.push(dashed(name, None));
                }
            }
        }
    }
    Ok(normalized)
}

fn unknown_command(command: &clap::Command, argument: &OsStr) -> String {
    let name = argument.to_string_lossy();
    let names = command.get_subcommands().map(clap::Command::get_name);
    let hint = nearest(&name, names)
        .map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
    format!("unknown command \"{name}\"{hint}")
}

/// The name of an option without its dashes, and the value after its `=`.
fn option(argument: &OsStr) -> Option<(&str, Option<OsString>)> {
    let bytes = argument.as_bytes();
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

/// An option with one dash before a letter and two before a name.
fn dashed(name: &str, value: Option<&OsStr>) -> OsString {
    let dashes = if name.len() == 1 { "-" } else { "--" };
    let mut option = OsString::from(dashes);
    option.push(name);
    if let Some(value) = value {
        option.push("=");
        option.push(value);
    }
    option
}
