//! The real binary: configured, started on a free port, watched, ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{Backend, Client, Driver, PATIENCE, get, wait_for};
use crate::ports;

/// Under every configuration of a test: quiet, unlimited, prompt.
const BASE: &str = r#"
[server]
host = "127.0.0.1"
workers = 2
pin_workers = false
request_logging = false
shutdown_timeout = "2s"
[server.rate_limits]
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
health_requests_per_minute = 0
[discovery.model_discovery]
retry_attempts = 0
[logging]
level = "info"
"#;

/// A configuration in the making.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    tree: toml::Table,
    env: Vec<(String, String)>,
    prefix: Vec<String>,
    settle: bool,
}

impl Config {
    pub(crate) fn new(driver: Driver) -> Self {
        let mut tree: toml::Table = BASE.parse().unwrap();
        let own = format!("[server]\nio_driver = \"{}\"", driver.name());
        merge(&mut tree, own.parse().unwrap());
        Self {
            tree,
            env: Vec::new(),
            prefix: Vec::new(),
            settle: true,
        }
    }

    /// Merges TOML over what is there; lists replace lists.
    #[must_use]
    #[track_caller]
    pub(crate) fn more(mut self, text: &str) -> Self {
        let table = text
            .parse()
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        merge(&mut self.tree, table);
        self
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the binary under another program.
    #[must_use]
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Does not wait for the first checks and model listings.
    #[must_use]
    pub(crate) fn unsettled(mut self) -> Self {
        self.settle = false;
        self
    }

    fn text(&self, port: u16) -> String {
        let mut tree = self.tree.clone();
        if let Some(server) = tree.get_mut("server").and_then(toml::Value::as_table_mut) {
            server.entry("port").or_insert(i64::from(port).into());
        }
        toml::to_string(&tree).unwrap()
    }
}

fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// An endpoint's part of a configuration. `more` are further lines of its table.
pub(crate) fn endpoint(name: &str, kind: &str, backend: &Backend, more: &str) -> String {
    let has_url = more.lines().any(|line| line.starts_with("url = "));
    let url = if has_url {
        String::new()
    } else {
        format!("url = \"{}\"\n", backend.url())
    };
    // Prompt, and as patient as that allows: the machine may be busy.
    let interval = if more.contains("check_") {
        ""
    } else {
        "check_interval = \"1s\"\ncheck_timeout = \"950ms\"\n"
    };
    format!(
        "[[discovery.static.endpoints]]\nname = \"{name}\"\ntype = \"{kind}\"\n{url}{interval}{more}\n"
    )
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("olla-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A gateway that runs, until it is dropped.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    config: Config,
    child: Child,
    folder: Folder,
}

impl Gateway {
    /// Starts one and waits until it serves and, unless told otherwise, knows its endpoints.
    #[track_caller]
    pub(crate) fn start(config: &Config) -> Self {
        match Self::try_start(config) {
            Ok(gateway) => gateway,
            Err(log) => panic!("the gateway has ended:\n{log}"),
        }
    }

    /// The same; `Err` has the log of one that ended.
    pub(crate) fn try_start(config: &Config) -> Result<Self, String> {
        let mut gateway = Self::spawn(config, ports::reserve().port());
        let up = wait_for("an answer of the gateway", PATIENCE, || {
            if gateway.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            gateway.serves().then_some(true)
        });
        if !up {
            return Err(gateway.log());
        }
        if config.settle {
            gateway.settle();
        }
        Ok(gateway)
    }

    fn spawn(config: &Config, port: u16) -> Self {
        let folder = Folder::new();
        fs::write(folder.0.join("olla.toml"), config.text(port)).unwrap();
        let child = command(config, &folder.0).spawn().unwrap();
        Self {
            port,
            config: config.clone(),
            child,
            folder,
        }
    }

    fn serves(&self) -> bool {
        // One that is about to end may have listened already.
        let Some(mut client) = Client::try_to_port(self.port) else {
            return false;
        };
        let ask = "GET /internal/health HTTP/1.1\r\nHost: h\r\n\r\n";
        client.try_send(ask).is_ok() && client.try_head().is_some()
    }

    /// Waits until every endpoint has been checked and the healthy ones have been asked for their
    /// models.
    #[track_caller]
    pub(crate) fn settle(&self) {
        wait_for("first checks and listings", PATIENCE, || {
            let ready = get(self, "/internal/ready", &[]).json();
            if ready["reason"] == "starting" {
                return None;
            }
            let endpoints = self.endpoints();
            let settled = endpoints
                .iter()
                .all(|endpoint| match endpoint["status"].as_str() {
                    Some("unknown") | None => false,
                    Some("healthy") => !endpoint["last_model_sync_at"].is_null(),
                    Some(_) => true,
                });
            settled.then_some(())
        });
    }

    /// The endpoints as the gateway tells them.
    pub(crate) fn endpoints(&self) -> Vec<Value> {
        let status = get(self, "/internal/status/endpoints", &[]).json();
        status["endpoints"].as_array().unwrap().clone()
    }

    /// One endpoint of them.
    #[track_caller]
    pub(crate) fn endpoint(&self, name: &str) -> Value {
        let all = self.endpoints();
        all.iter()
            .find(|endpoint| endpoint["name"] == name)
            .unwrap()
            .clone()
    }

    /// Waits until an endpoint has this status.
    #[track_caller]
    pub(crate) fn wait_status(&self, name: &str, status: &str) {
        wait_for(&format!("{name} to be {status}"), PATIENCE, || {
            (self.endpoint(name)["status"] == status).then_some(())
        });
    }

    /// The value of a sample on its page of metrics, by its name and labels as they stand there.
    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        let page = get(self, "/internal/metrics", &[]).text();
        let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(value)
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// Waits until one line of the log has all of these: lines are written beside the work.
    #[track_caller]
    pub(crate) fn wait_line(&self, words: &[&str]) {
        wait_for(&format!("{words:?} in the log"), PATIENCE, || {
            let log = self.log();
            let has_all = |line: &str| words.iter().all(|word| line.contains(word));
            log.lines().any(has_all).then_some(())
        });
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub(crate) fn wait_log(&self, what: &str) {
        self.wait_line(&[what]);
    }

    /// Writes its configuration anew, changed by `more`.
    pub(crate) fn rewrite(&mut self, more: &str) {
        self.config = self.config.clone().more(more);
        fs::write(self.config_file(), self.config.text(self.port)).unwrap();
    }

    /// Its configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.0.join("olla.toml")
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let line = format!("kill -s {name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(sent.success());
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait_end(&mut self, within: Duration) -> ExitStatus {
        wait_for("the end of the gateway", within, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            // A panic's own words come before its long backtrace.
            let panics = log.lines().skip_while(|line| !line.contains("panicked at"));
            let tail = log.lines().rev().take(8).collect::<Vec<_>>();
            for line in panics.take(3).chain(tail.into_iter().rev()) {
                println!("gateway: {line}");
            }
        }
    }
}

fn command(config: &Config, folder: &Path) -> Command {
    let log = File::create(folder.join("log")).unwrap();
    let mut words = config.prefix.clone();
    words.push(env!("CARGO_BIN_EXE_olla").to_owned());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .arg("--config")
        .arg(folder.join("olla.toml"));
    // What the environment of whoever runs the tests says is not meant for these.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OLLA_")) {
        command.env_remove(name);
    }
    command.envs(config.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command
}

/// Starts one that must end by itself: its exit code and its log. `text` is its whole
/// configuration file.
#[track_caller]
pub(crate) fn run_to_end(text: &str) -> (Option<i32>, String) {
    let config = Config::new(Driver::Epoll);
    let folder = Folder::new();
    fs::write(folder.0.join("olla.toml"), text).unwrap();
    let mut child = command(&config, &folder.0).spawn().unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if std::time::Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::park_timeout(Duration::from_millis(3));
    };
    let log = fs::read_to_string(folder.0.join("log")).unwrap_or_default();
    (status.and_then(|status| status.code()), log)
}
