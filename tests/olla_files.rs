//! Configuration files of the shape that Olla ships: each passes `check`, is imported without loss,
//! and starts a gateway as it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use olla::config::{ConfigInputs, Env, FileFormat, Loaded, NameFilter, import, plan_from_str};
use olla::providers::Profiles;

fn files() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/olla");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn with_inputs<T>(run: impl Fn(&ConfigInputs<'_>) -> T) -> T {
    let env = Env::default();
    let types = Profiles::builtin().type_names();
    let admits = |filter: &NameFilter, name: &str| olla::providers::admits(filter, name);
    run(&ConfigInputs {
        env: &env,
        cwd: Path::new("."),
        types: &types,
        admits: &admits,
    })
}

fn load(text: &str, format: FileFormat) -> Loaded {
    with_inputs(|inputs| plan_from_str(text, format, None, inputs))
}

/// The command line over a file, without settings of the environment that runs the tests. Variables
/// that are no settings stay: `cargo` may have set them.
fn olla(args: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_olla"));
    command.args(args).arg(file);
    for doc in olla::config::reference() {
        if let Some(name) = doc.env {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

#[test]
fn every_file_is_valid() {
    for (path, text) in files() {
        let loaded = load(&text, FileFormat::Yaml);
        assert_eq!(loaded.findings, [], "{}", path.display());
        let output = olla(&["check", "-c"], &path);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {shown}", path.display());
        assert!(shown.lines().last().unwrap().starts_with("ok: "), "{shown}");
        assert!(!shown.contains("warning"), "{shown}");
    }
}

#[test]
fn every_file_is_imported_with_its_meaning() {
    for (path, text) in files() {
        let imported = with_inputs(|inputs| import(&text, &path, inputs)).unwrap();
        let (from_yaml, from_toml) = (
            load(&text, FileFormat::Yaml),
            load(&imported.toml, FileFormat::Toml),
        );
        assert_eq!(from_toml.findings, [], "{}", imported.toml);
        let inert = from_toml
            .notes
            .iter()
            .filter(|note| note.key != "proxy.profile");
        assert_eq!(inert.count(), 0, "{}", imported.toml);
        assert!(from_yaml.plan.is_some());
        assert_eq!(from_yaml.plan, from_toml.plan, "{}", imported.toml);
        let output = olla(&["import"], &path);
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), imported.toml);
    }
}

#[test]
fn the_shipped_configuration_is_valid_as_cargo_runs_it() {
    let output = olla(
        &["check", "-c"],
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml"),
    );
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(!shown.contains("unknown"), "{shown}");
}
