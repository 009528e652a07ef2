//! Configurations, merged from pieces of TOML.

use std::path::{Path, PathBuf};

use crate::backend::Backend;
use crate::driver::Driver;

/// Below every configuration of a test: no request log, no rate limits, no delays.
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
pages_per_second = 0
[discovery.model_discovery]
retry_attempts = 0
[logging]
level = "info"
"#;

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Config {
    tree: toml::Table,
    pub(super) program: PathBuf,
    pub(super) env: Vec<(String, String)>,
    pub(super) prefix: Vec<String>,
    pub(super) settle: bool,
}

impl Config {
    /// The configuration below every test, on this driver.
    ///
    /// # Panics
    /// When the gateway is not built.
    pub fn new(driver: Driver) -> Self {
        Self::of(program("olla"), driver)
    }

    /// The same for a gateway at another path.
    ///
    /// # Panics
    /// Never: the built-in configuration is valid.
    pub fn of(program: PathBuf, driver: Driver) -> Self {
        let mut tree: toml::Table = BASE.parse().unwrap();
        let own = format!("[server]\nio_driver = \"{}\"", driver.name());
        merge(&mut tree, own.parse().unwrap());
        Self {
            tree,
            program,
            env: Vec::new(),
            prefix: Vec::new(),
            settle: true,
        }
    }

    /// Merges TOML over what is there; arrays replace arrays.
    ///
    /// # Panics
    /// When the text is not TOML.
    #[must_use]
    #[track_caller]
    pub fn more(self, text: &str) -> Self {
        self.try_more(text)
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// The same for text that need not be TOML.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn try_more(mut self, text: &str) -> Result<Self, String> {
        let table = text
            .parse()
            .map_err(|error: toml::de::Error| error.to_string())?;
        merge(&mut self.tree, table);
        Ok(self)
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the gateway under another program.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.prefix = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Does not wait for the first health checks and model listings.
    #[must_use]
    pub fn unsettled(mut self) -> Self {
        self.settle = false;
        self
    }

    /// The configuration file, with this port unless it sets one.
    ///
    /// # Panics
    /// Never: a tree read from TOML can be written as TOML.
    pub fn text(&self, port: u16) -> String {
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
pub fn endpoint(name: &str, kind: &str, backend: &Backend, more: &str) -> String {
    let has_url = more.lines().any(|line| line.starts_with("url = "));
    let url = if has_url {
        String::new()
    } else {
        format!("url = \"{}\"\n", backend.url())
    };
    // A short interval, and the longest timeout that it allows for busy machines.
    let interval = if more.contains("check_") {
        ""
    } else {
        "check_interval = \"1s\"\ncheck_timeout = \"950ms\"\n"
    };
    format!(
        "[[discovery.static.endpoints]]\nname = \"{name}\"\ntype = \"{kind}\"\n{url}{interval}{more}\n"
    )
}

/// The path of a program of the workspace that Cargo has built for the running test.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    // Cargo sets it for the integration tests of the package that has the program.
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    // Tests are in `deps`, programs are beside or one above.
    let own = std::env::current_exe().unwrap_or_default();
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder: &Path| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; cargo build --bin {name}"))
}
