//! Running the gateway: from a configuration to threads, and from a signal to the end of the
//! process.
//!
//! Contract: docs/contract/operations.md#9 (start, signals, limits), docs/contract/balancing.md#12

mod ask;
mod cpus;
mod demo;
mod keys;
mod room;
mod signals;
mod start;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::catalogue::ModelRules;
use crate::cli::{self, Command, CommandOutput, Options, Parsed};
use crate::config::{
    self, ConfigInputs, ConfigKind, Env, Finding, InForce, Loaded, NameFilter, Severity,
};
use crate::log::{Level, Logger, Value, events};
use crate::providers::figures::Extractor;
use crate::providers::{self, Profiles};

/// The whole program: from the arguments of the process to its exit code.
pub fn program() -> ExitCode {
    let env = Env::process();
    match cli::parse(std::env::args_os().skip(1), &env) {
        Parsed::Done(output) => print(&output),
        Parsed::Run(command) => match command {
            Command::Serve(options) => ExitCode::from(serve(&options, env)),
            Command::Demo(options) => ExitCode::from(demo(&options, env)),
            Command::Check { probe, options } => print(&check(&options, probe, &env)),
            Command::Health(command) => print(&ask::health(&command, &env)),
            Command::Import { file, from } => print(&import(&file, from, &env)),
            Command::Show(command) => print(&ask::show(&command, &env)),
            Command::Key(command) => print(&keys::key(command, &env)),
            Command::Usage(command) => print(&keys::usage(&command, &env)),
            Command::CheckState(file) => print(&keys::check_state(&file)),
        },
    }
}

fn print(output: &CommandOutput) -> ExitCode {
    use std::io::Write;
    // A closed pipe is not a failure of the command.
    let _ = std::io::stdout().write_all(output.stdout.as_bytes());
    let _ = std::io::stderr().write_all(output.stderr.as_bytes());
    ExitCode::from(output.code)
}

/// Everything that is read before the start.
#[derive(Debug)]
pub(crate) struct Read {
    /// The configuration, or its errors.
    pub(crate) loaded: Loaded,
    /// All profiles, before the filter.
    pub(crate) profiles: Profiles,
    /// The rules for names of models.
    pub(crate) rules: ModelRules,
    /// Warnings about profiles and rules.
    pub(crate) warnings: Vec<String>,
    /// YAML profiles that do not replace the built-in ones of their names.
    pub(crate) kept_profiles: Vec<(PathBuf, String)>,
    /// Configuration files that exist and were not read because of an earlier one.
    pub(crate) passed_over: Vec<PathBuf>,
}

/// Reads configuration, profiles and rules; for a running gateway with what is in force there.
pub(crate) fn read(named: Option<&Path>, env: &Env, running: Option<InForce<'_>>) -> Read {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let place = config::locate(named, env, &cwd);
    let beside = place
        .as_deref()
        .and_then(Path::parent)
        .map(|parent| cwd.join(parent));
    // Profiles beside the configuration take precedence: later files override earlier ones.
    let mut dirs = vec![cwd.join("config/profiles")];
    let own = beside.as_ref().map(|dir| dir.join("profiles"));
    dirs.extend(own.filter(|own| *own != dirs[0]));
    let mut kept_profiles = Vec::new();
    let (profiles, mut warnings) = Profiles::load_with(&dirs, &mut |path: &Path, name: &str| {
        kept_profiles.push((path.to_path_buf(), name.to_owned()));
    });
    for profile in profiles.all() {
        let (_, lost) = Extractor::compile(&profile.name, &profile.metrics);
        warnings.extend(lost.iter().map(ToString::to_string));
    }
    let types = profiles.type_names();
    let admits = |filter: &NameFilter, name: &str| providers::admits(filter, name);
    let inputs = ConfigInputs {
        env,
        cwd: &cwd,
        types: &types,
        admits: &admits,
    };
    let loaded = match running {
        Some(in_force) => config::reload(named, &inputs, in_force),
        None => config::load(named, &inputs),
    };
    let dir = env.get("OLLA_CONFIG_DIR").map(PathBuf::from);
    let places = ModelRules::places(beside.as_deref(), &cwd, dir.as_deref());
    let (rules, remarks) = ModelRules::load(&places);
    warnings.extend(remarks);
    warnings.extend(loaded.plan.as_ref().and_then(room::warning));
    Read {
        loaded,
        profiles,
        rules,
        warnings,
        kept_profiles,
        passed_over: config::passed_over(named, env, &cwd),
    }
}

/// Runs the gateway until a signal. Returns the exit code.
pub(crate) fn serve(options: &Options, env: Env) -> u8 {
    let logger = match Logger::start(&env) {
        Ok(logger) => logger,
        Err(error) => {
            eprintln!("olla: the log cannot be started: {error}");
            return CommandOutput::FAILED;
        }
    };
    let read = read(options.config.as_deref(), &env, None);
    if let Some(plan) = &read.loaded.plan {
        logger.configure(&plan.logging);
    }
    let code = match configured(&read, &logger) {
        None => CommandOutput::FAILED,
        Some(plan) => {
            log_source(&read, &logger);
            let setup = start::Setup {
                plan,
                profiles: read.profiles,
                rules: Arc::new(read.rules),
                fingerprints: read.loaded.fingerprints,
                restart_only: read.loaded.restart_only,
                config: options.config.clone(),
                profile: options.profile,
                env,
            };
            start::run(setup, &logger, |_| {})
        }
    };
    logger.flush_and_stop(std::time::Duration::from_secs(2));
    code
}

/// Logs which file was read: several default paths are tried, and a file in the wrong working
/// directory is not found.
fn log_source(read: &Read, logger: &Logger) {
    let path = read.loaded.source.as_deref().map(Path::to_string_lossy);
    let field = match &path {
        Some(path) => ("file", path.as_ref().into()),
        None => ("reason", "no file was found, the defaults apply".into()),
    };
    logger.emit(Level::Info, events::CONFIG_READ, &[field]);
    for other in &read.passed_over {
        let other = other.to_string_lossy();
        let read = path.as_deref().unwrap_or("");
        let fields = [("file", Value::Str(&other)), ("read", Value::Str(read))];
        logger.emit(Level::Warn, events::CONFIG_PASSED_OVER, &fields);
    }
    for (file, name) in &read.kept_profiles {
        let file = file.to_string_lossy();
        let fields = [("profile", Value::Str(name)), ("file", Value::Str(&file))];
        logger.emit(Level::Info, events::PROFILE_KEPT, &fields);
    }
}

/// Logs all findings about a configuration. Returns its plan if there is no error.
pub(crate) fn configured(read: &Read, logger: &Logger) -> Option<Arc<config::Plan>> {
    for finding in &read.loaded.findings {
        logger.report(finding);
    }
    for warning in &read.warnings {
        logger.emit(
            Level::Warn,
            events::CONFIG_WARNING,
            &[("reason", warning.as_str().into())],
        );
    }
    let plan = read.loaded.plan.clone().map(Arc::new)?;
    for endpoint in &plan.discovery.endpoints {
        let Some(prefix) = endpoint.url.version_prefix else {
            continue;
        };
        let [before, after] = events::VERSION_PREFIX_LEFT_OUT;
        let fields = [
            ("endpoint", endpoint.name.as_str().into()),
            ("prefix", prefix.into()),
        ];
        logger.emit(Level::Info, &format!("{before}{prefix}{after}"), &fields);
    }
    Some(plan)
}

/// Runs the gateway in front of simulated endpoints. Returns the exit code.
pub(crate) fn demo(demo: &cli::DemoOptions, env: Env) -> u8 {
    demo::run(demo, env)
}

/// Validates a configuration, and asks its endpoints once if it is valid.
pub(crate) fn check(options: &Options, probe: bool, env: &Env) -> CommandOutput {
    let read = read(options.config.as_deref(), env, None);
    let more: Vec<Finding> = read
        .warnings
        .iter()
        .map(|warning| Finding::new(Severity::Warning, warning.as_str()))
        .collect();
    let report = cli::check::report(&read.loaded, &more);
    match read.loaded.plan {
        Some(plan) if probe && report.code == 0 => ask::probe(report, plan, &read.profiles),
        _ => report,
    }
}

/// Converts a configuration file of Olla, LiteLLM or llama-swap.
pub(crate) fn import(file: &Path, from: Option<ConfigKind>, env: &Env) -> CommandOutput {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let types = Profiles::builtin().type_names();
    let admits = |filter: &NameFilter, name: &str| providers::admits(filter, name);
    cli::import::run(
        file,
        from,
        &ConfigInputs {
            env,
            cwd: &cwd,
            types: &types,
            admits: &admits,
        },
    )
}
