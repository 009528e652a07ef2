//! Configuration files of the shape that Olla ships: each passes `olla check`, is converted by
//! `olla import` without loss, and starts a gateway as it is.
//!
//! Contract: docs/contract/operations.md#9, docs/contract/operations.md#10

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use olla::bench::config::{
    ConfigInputs, Env, FileFormat, Loaded, NameFilter, import, plan_from_str,
};
use olla::bench::providers::Profiles;
use testkit::{Client, Folder, PATIENCE, Process, program, reserve};

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
    let admits = |filter: &NameFilter, name: &str| olla::bench::providers::admits(filter, name);
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

/// Runs the program with a file, without the options that the environment of the tests may set.
/// Other variables stay, because Cargo sets some.
fn olla(args: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_olla"));
    command.args(args).arg(file);
    for doc in olla::bench::config::reference() {
        if let Some(name) = doc.env {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

/// The last line that `olla check` prints about a valid file.
#[track_caller]
fn checked(path: &Path) -> String {
    let output = olla(&["check", "-c"], path);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {shown}", path.display());
    assert!(!shown.contains("warning"), "{shown}");
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("ok: "), "{shown}");
    last.to_owned()
}

#[test]
fn every_file_is_valid() {
    for (path, text) in files() {
        let loaded = load(&text, FileFormat::Yaml);
        assert_eq!(loaded.findings, [], "{}", path.display());
        checked(&path);
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
        // Their defaults are not Olla's, which the note of a file that keeps Olla's says.
        let differ = ["proxy.profile", "proxy.load_balancer"];
        let inert = from_toml
            .notes
            .iter()
            .filter(|note| !differ.contains(&note.key.as_str()));
        assert_eq!(inert.count(), 0, "{}", imported.toml);
        assert!(from_yaml.plan.is_some());
        assert_eq!(from_yaml.plan, from_toml.plan, "{}", imported.toml);
    }
}

#[test]
fn every_import_passes_check() {
    let files = files();
    assert!(files.len() >= 5);
    for (path, _) in files {
        let output = olla(&["import"], &path);
        let remarks = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {remarks}", path.display());
        let folder = Folder::new();
        let toml = folder.write("olla.toml", &String::from_utf8(output.stdout).unwrap());
        assert_eq!(checked(Path::new(&toml)), checked(&path));
    }
}

#[test]
fn every_file_starts_a_gateway() {
    for (path, text) in files() {
        let plan = load(&text, FileFormat::Yaml).plan.unwrap();
        let port = reserve().port();
        let env = [
            ("OLLA_SERVER_HOST", "127.0.0.1".to_owned()),
            ("OLLA_SERVER_PORT", port.to_string()),
            ("OLLA_SERVER_WORKERS", "1".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        let file = path.to_str().unwrap();
        let mut gateway = Process::start(&program("olla"), &["--config", file], &env);
        let bind = format!("127.0.0.1:{port}");
        gateway.wait_line(&["Olla started", &bind]);
        let get = |path: &str| {
            let head = format!("GET {path}");
            Client::to_port(port).request(&head, b"").response()
        };
        assert_eq!(get("/internal/health").status, 200, "{file}");
        let status = get("/internal/status/endpoints").json();
        assert_eq!(status["total_count"], plan.discovery.endpoints.len());
        gateway.signal("TERM");
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0), "{file}");
        let log = gateway.log();
        let complains = ["ERROR", "Configuration warning", "Configuration invalid"];
        assert!(!complains.iter().any(|word| log.contains(word)), "{log}");
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
