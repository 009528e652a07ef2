//! Writes down what the program is built from: commit, date, target and compiler, as constants in a
//! file. Environment variables would be set for `cargo run` too and read as settings there.
//!
//! Works outside a repository and without git: what cannot be found out is `unknown`.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=OLLA_BUILD_COMMIT");
    watch_head();
    let own = own_repository();
    let commit = std::env::var("OLLA_BUILD_COMMIT").ok();
    let commit = commit.filter(|commit| is_word(commit)).or_else(|| {
        own.then(|| git(&["rev-parse", "--short=12", "HEAD"]))
            .flatten()
    });
    let facts = [
        ("COMMIT", "The commit, shortened, or `unknown`.", commit),
        (
            "DATE",
            "The day of the commit, or of the build outside a repository.",
            date(own),
        ),
        ("TARGET", "The target triple.", std::env::var("TARGET").ok()),
        ("COMPILER", "The compiler's version line.", compiler()),
    ];
    let text: String = facts.into_iter().map(constant).collect();
    let folder = std::env::var_os("OUT_DIR").map(std::path::PathBuf::from);
    let written = folder.map(|folder| std::fs::write(folder.join("build_facts.rs"), text));
    if !matches!(written, Some(Ok(()))) {
        println!("cargo::error=cannot write build_facts.rs to OUT_DIR: {written:?}");
    }
}

/// One fact as a constant of the program.
fn constant((name, doc, value): (&str, &str, Option<String>)) -> String {
    let value = value.unwrap_or_else(|| UNKNOWN.to_owned());
    format!("/// {doc}\npub(crate) const {name}: &str = {value:?};\n")
}

/// A commit or checkout makes the facts old.
fn watch_head() {
    for path in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Whether the repository is this project's: a copy of the sources inside another one must not
/// show that one's commit.
fn own_repository() -> bool {
    let (Some(top), Ok(here)) = (
        git(&["rev-parse", "--show-toplevel"]),
        std::env::var("CARGO_MANIFEST_DIR"),
    ) else {
        return false;
    };
    let real = |path: &str| Path::new(path).canonicalize().ok();
    real(&top).is_some() && real(&top) == real(&here)
}

fn git(args: &[&str]) -> Option<String> {
    output(Command::new("git").args(args))
}

fn compiler() -> Option<String> {
    let rustc = std::env::var_os("RUSTC")?;
    output(Command::new(rustc).arg("--version"))
}

/// The first line that a program prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The day: that of `SOURCE_DATE_EPOCH`, else the commit's, so that one commit gives one program,
/// else today.
fn date(own: bool) -> Option<String> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || own.then(|| git(&["log", "-1", "--format=%ct"])).flatten();
    let seconds = given.or_else(committed).and_then(|text| text.parse().ok());
    let today = || Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs());
    seconds.or_else(today).map(day)
}

/// `YYYY-MM-DD` of an instant, by counting in years that begin in March, so that a leap day is a
/// year's last.
fn day(seconds: u64) -> String {
    const DAYS_IN_ERA: u64 = 146_097;
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_ERA, days % DAYS_IN_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
