//! The real gateway: configured, started on a reserved port, observed, stopped by its process id.

mod config;
mod process;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use crate::driver::Driver;
use crate::folder::Folder;
use crate::http::{Client, Response};
use crate::ports;
use crate::wait::{PATIENCE, wait_for};
pub use config::{Config, endpoint, program};
pub use process::Process;

/// A running gateway. It is killed when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    config: Config,
    process: Process,
}

impl Gateway {
    /// Starts a gateway and waits until it responds and, unless the configuration says otherwise, has
    /// checked its endpoints.
    ///
    /// # Panics
    /// When it ends, or takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        match Self::try_start(config) {
            Ok(gateway) => gateway,
            Err(log) => panic!("the gateway has ended:\n{log}"),
        }
    }

    /// The same for a gateway that may end.
    ///
    /// # Errors
    /// The log of a gateway that has ended.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn try_start(config: &Config) -> Result<Self, String> {
        let port = ports::reserve().port();
        let process = spawn(config, &config.text(port));
        let mut gateway = Self {
            port,
            config: config.clone(),
            process,
        };
        let is_up = wait_for("a response of the gateway", PATIENCE, || {
            if gateway.process.ended().is_some() {
                return Some(false);
            }
            gateway.responds().then_some(true)
        });
        if !is_up {
            return Err(gateway.log());
        }
        if config.settle {
            gateway.settle();
        }
        Ok(gateway)
    }

    fn responds(&self) -> bool {
        // A gateway that is about to end may have listened already.
        let Some(mut client) = Client::try_to_port(self.port) else {
            return false;
        };
        let request = "GET /internal/health HTTP/1.1\r\nHost: h\r\n\r\n";
        client.try_send(request).is_ok() && client.try_head().is_some()
    }

    /// Waits until every endpoint has been checked and the models of the healthy ones have been
    /// listed.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn settle(&self) {
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

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A page for operators, with `OLLA_ADMIN_KEY` of the configuration's environment if it has one.
    ///
    /// # Panics
    /// When no response comes.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Response {
        let mut env = self.config.env.iter();
        let key = env.find(|(name, _)| name == "OLLA_ADMIN_KEY");
        let field = key.map(|(_, secret)| bearer(secret));
        let fields: Vec<&str> = field.iter().map(String::as_str).collect();
        get(self, path, &fields)
    }

    /// The endpoints as the gateway reports them now.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn endpoints(&self) -> Vec<Value> {
        let page = || self.admin_get("/internal/status/endpoints").json();
        // The gateway keeps a page for a moment: the next one has been rendered after this call.
        let kept = page()["timestamp"].clone();
        let fresh = wait_for("a new page", PATIENCE, || {
            let page = page();
            (page["timestamp"] != kept).then_some(page)
        });
        fresh["endpoints"].as_array().unwrap().clone()
    }

    /// One of the endpoints.
    ///
    /// # Panics
    /// When there is none with this name.
    #[track_caller]
    pub fn endpoint(&self, name: &str) -> Value {
        let all = self.endpoints();
        all.iter()
            .find(|endpoint| endpoint["name"] == name)
            .unwrap()
            .clone()
    }

    /// Waits until an endpoint has this status.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_status(&self, name: &str, status: &str) {
        wait_for(&format!("{name} to be {status}"), PATIENCE, || {
            (self.endpoint(name)["status"] == status).then_some(())
        });
    }

    /// The value of a metric, given as on the metrics page: name and labels.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let page = self.admin_get("/internal/metrics").text();
        let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(value)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until one line of the log has all of these strings. The log is written in the
    /// background.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_line(&self, strings: &[&str]) {
        self.process.wait_line(strings);
    }

    /// Waits until the log has this string.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_log(&self, string: &str) {
        self.wait_line(&[string]);
    }

    /// Merges `more` into its configuration and writes the file.
    ///
    /// # Panics
    /// When `more` is not TOML.
    #[track_caller]
    pub fn rewrite(&mut self, more: &str) {
        self.try_rewrite(more).unwrap();
    }

    /// The same for text that need not be TOML.
    ///
    /// # Errors
    /// What is wrong with the text.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn try_rewrite(&mut self, more: &str) -> Result<(), String> {
        self.config = self.config.clone().try_more(more)?;
        fs::write(self.config_file(), self.config.text(self.port)).unwrap();
        Ok(())
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.process.folder().file("olla.toml")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, by its name without `SIG`.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end `within` the time limit.
    #[track_caller]
    pub fn wait_end(&mut self, within: Duration) -> ExitStatus {
        self.process.wait_end(within)
    }
}

fn spawn(config: &Config, text: &str) -> Process {
    let folder = Folder::new();
    let file = folder.write("olla.toml", text);
    let mut arguments: Vec<OsString> = config.prefix.iter().skip(1).map(OsString::from).collect();
    let program = match config.prefix.first() {
        Some(program) => {
            arguments.push(config.program.clone().into());
            PathBuf::from(program)
        }
        None => config.program.clone(),
    };
    arguments.extend(["--config".into(), file.into()]);
    Process::start_in(folder, &program, &arguments, &config.env)
}

/// Starts a gateway that must end by itself and returns its exit code and its log. `text` is its
/// whole configuration file. Without an end within [`PATIENCE`] there is no exit code.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run_to_end(text: &str) -> (Option<i32>, String) {
    let mut process = spawn(&Config::new(Driver::Epoll), text);
    let until = std::time::Instant::now() + PATIENCE;
    while process.is_running() && std::time::Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(3));
    }
    let code = process.ended().and_then(|status| status.code());
    (code, process.log())
}

/// The field that brings a key or a token.
pub fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}")
}

/// One request on a connection of its own. `head` is the method and the path, and further lines.
///
/// # Panics
/// When no response comes.
#[track_caller]
pub fn exchange(gateway: &Gateway, head: &str, body: &[u8]) -> Response {
    let mut client = Client::to(gateway);
    client.request(head, body);
    client.response_to(head.split(' ').next().unwrap_or_default())
}

/// `GET` on a connection of its own, with these header lines.
///
/// # Panics
/// When no response comes.
#[track_caller]
pub fn get(gateway: &Gateway, path: &str, fields: &[&str]) -> Response {
    exchange(gateway, &head_of("GET", path, fields), b"")
}

/// `POST` of a JSON body on a connection of its own, with these header lines.
///
/// # Panics
/// When no response comes.
#[track_caller]
pub fn post(gateway: &Gateway, path: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Response {
    let mut lines = vec!["Content-Type: application/json"];
    lines.extend(fields);
    exchange(gateway, &head_of("POST", path, &lines), body.as_ref())
}

fn head_of(method: &str, path: &str, fields: &[&str]) -> String {
    let mut head = format!("{method} {path}");
    for field in fields {
        head.push_str("\r\n");
        head.push_str(field);
    }
    head
}
