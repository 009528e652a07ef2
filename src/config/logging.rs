//! The declarations of the keys of `[logging]` and of the variables for the log.
//!
//! Contract: docs/contract/operations.md#8, docs/contract/operations.md#10,
//! docs/contract/operations.md#11

use std::path::PathBuf;
use std::time::Duration;

use super::bounds::{MIB, U32_MAX, secs};
use super::env::Env;
use super::plan::{LogFormat, LogLevel, LogOutput, LoggingPlan};
use super::reader::{ConfigReader, Word};
use super::section::Section;

/// The log settings before the configuration is read: from the environment only, with the level of
/// `OLLA_LOG_LEVEL` and without a file.
pub(crate) fn early_logging(env: &Env) -> LoggingPlan {
    let mut reader = ConfigReader::new(env, None);
    let mut root = reader.root(None);
    let mut s = root.section("logging");
    let level = early_level(&mut s);
    LoggingPlan {
        level,
        output: LogOutput::Stdout,
        ..logging(&mut s)
    }
}

/// `[logging]`.
pub(super) fn logging(s: &mut Section<'_, '_>) -> LoggingPlan {
    let level = s
        .key("level", "Lowest severity that is logged.")
        .env("OLLA_LOGGING_LEVEL")
        .lenient()
        .word_by(LogLevel::Info, level_word);
    let format = s
        .key(
            "format",
            "Format of standard output; a terminal gets text unless the variable is set.",
        )
        .env("OLLA_LOGGING_FORMAT")
        .lenient()
        .word_by(LogFormat::Json, lower);
    let output = s
        .key("output", "file adds a rotated file to standard output.")
        .env("OLLA_LOGGING_OUTPUT")
        .lenient()
        .word_by(LogOutput::Stdout, lower);
    let to_file = s
        .variable(
            "OLLA_FILE_OUTPUT",
            "true or false overrides logging.output.",
        )
        .bool_optional();
    let file = file(s);
    let force_colors = s
        .variable(
            "OLLA_FORCE_COLORS",
            "Use colours although standard output is not a terminal.",
        )
        .bool(false);
    early_level(s);
    former(s);
    let format_given = s.env().get("OLLA_LOGGING_FORMAT").map(lower);
    LoggingPlan {
        level,
        format,
        format_from_env: format_given
            .is_some_and(|given| LogFormat::ALL.iter().any(|word| word.word() == given)),
        output: match to_file {
            Some(true) => LogOutput::File,
            Some(false) => LogOutput::Stdout,
            None => output,
        },
        dir: file.dir,
        rotate_bytes: file.rotate_bytes,
        max_backups: file.max_backups,
        max_age: file.max_age,
        force_colors,
    }
}

fn early_level(s: &mut Section<'_, '_>) -> LogLevel {
    s.variable(
        "OLLA_LOG_LEVEL",
        "Lowest severity logged until the configuration is read.",
    )
    .lenient()
    .word_by(LogLevel::Info, level_word)
}

/// The settings of the log file.
struct FileSettings {
    dir: PathBuf,
    rotate_bytes: u64,
    max_backups: u32,
    max_age: Option<Duration>,
}

fn file(s: &mut Section<'_, '_>) -> FileSettings {
    let dir = s
        .variable("OLLA_LOG_DIR", "Folder of the log file.")
        .text("./logs")
        .into();
    let size: u64 = s
        .variable(
            "OLLA_LOG_SIZE_MB",
            "Size in megabytes at which the log file is rotated.",
        )
        .int(1, 1, 1 << 20);
    let max_backups = s
        .variable(
            "OLLA_LOG_MAX_BACKUPS",
            "Number of rotated files to keep; 0 keeps all.",
        )
        .int(7, 0, U32_MAX);
    let age: u64 = s
        .variable(
            "OLLA_LOG_MAX_AGE_DAYS",
            "Days to keep rotated files; 0 keeps them for ever.",
        )
        .int(14, 0, 36_500);
    FileSettings {
        dir,
        rotate_bytes: size * MIB,
        max_backups,
        max_age: Some(secs(age * 86_400)).filter(|age| !age.is_zero()),
    }
}

fn former(s: &mut Section<'_, '_>) {
    s.variable(
        "OLLA_PRETTY_LOGS",
        "The format is chosen by OLLA_LOGGING_FORMAT.",
    )
    .inert()
    .bool_optional();
    s.variable("OLLA_THEME", "Colours have one theme.")
        .inert()
        .lenient()
        .text_such("default", "\"default\", \"dark\" or \"light\"", |text| {
            ["default", "dark", "light"].contains(&text)
        });
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// `warning` is accepted for `warn`.
fn level_word(text: &str) -> String {
    match lower(text).as_str() {
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    }
}
