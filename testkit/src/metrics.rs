//! The page `/internal/metrics` of the real gateway, read as families with their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::backend::Backend;
use crate::driver::Driver;
use crate::gateway::{Config, Gateway, Process, bearer, endpoint, post, program};
use crate::http::{Client, Response};
use crate::ports;
use crate::wait::{PATIENCE, wait_for};

/// The key of the operator of a gateway.
const SECRET_OF_ADMIN: &str = "sk-admin-0123456789";

/// One family of metrics.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// The text of HELP.
    pub help: String,
    /// The text of TYPE.
    pub kind: String,
    /// The labels of its samples with their values.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// Names of its samples: a histogram has three.
    pub samples: BTreeSet<String>,
}

/// The families by name, in the order of the page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Names and families.
    pub families: Vec<(String, Family)>,
}

impl Page {
    /// The page of `olla demo` after one request of each kind that has families of its own, with the
    /// families of single keys of a gateway that has one, so that every family has a sample. It is
    /// fetched once for all tests of a program.
    ///
    /// # Panics
    /// When the gateway does not serve it.
    pub fn get() -> &'static Self {
        static PAGE: OnceLock<Page> = OnceLock::new();
        PAGE.get_or_init(|| {
            let demo = Demo::start();
            demo.use_it();
            let mut page = Self::read(&demo.get("/internal/metrics").text());
            let keyed: BTreeMap<String, Family> = Self::of_a_key().families.into_iter().collect();
            for (name, family) in &mut page.families {
                let other = keyed.get(name).filter(|_| family.samples.is_empty());
                if let Some(other) = other {
                    *family = other.clone();
                }
            }
            page
        })
    }

    /// The page of a gateway after two requests of a key, of which a limit refused one.
    fn of_a_key() -> Self {
        const SECRET: &str = "sk-metrics-0123456789";
        let backend = Backend::ok(&["m"]);
        let access = "[access]\nenabled = true\n\
                      [access.policies.dev]\nrequests_per_minute = 1\ntokens_per_day = 9000\n\
                      [[access.keys]]\nname = \"alice\"\nkey = \"${ALICE}\"\npolicy = \"dev\"\n\
                      admin = true\n[state]\npath = \"state.db\"\n";
        let config = Config::new(Driver::Epoll)
            .env("ALICE", SECRET)
            .env("OLLA_ADMIN_KEY", SECRET_OF_ADMIN)
            .more(&endpoint("one", "vllm", &backend, "max_concurrent = 4"))
            .more(access);
        let gateway = Gateway::start(&config);
        let key = bearer(SECRET);
        for status in [200, 429] {
            let body = r#"{"model":"m"}"#;
            let response = post(&gateway, "/olla/openai/v1/chat/completions", &[&key], body);
            assert_eq!(response.status, status, "{}", response.text());
        }
        let page = wait_for("the requests in the metrics", PATIENCE, || {
            let page = gateway.admin_get("/internal/metrics").text();
            let is_counted = page.contains("olla_key_requests_total{key=\"alice\"} 1");
            is_counted.then_some(page)
        });
        Self::read(&page)
    }

    /// Reads a page.
    ///
    /// # Panics
    /// When it is malformed.
    pub fn read(text: &str) -> Self {
        let mut families: Vec<(String, Family)> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                let help = help.to_owned();
                let family = Family {
                    help,
                    ..Family::default()
                };
                families.push((name.to_owned(), family));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, family) = families.last_mut().unwrap();
                family.kind = rest.strip_prefix(name.as_str()).unwrap().trim().to_owned();
            } else if !line.is_empty() {
                let (name, family) = families.last_mut().unwrap();
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert!(sample.starts_with(name.as_str()), "{line} is below {name}");
                family.samples.insert(sample.to_owned());
                for (label, value) in matchers(labels.strip_suffix('}').unwrap()) {
                    family.labels.entry(label).or_default().insert(value);
                }
            }
        }
        Self { families }
    }
}

/// `a="x",b=~"y"` as pairs. The values must not contain commas or quotes.
///
/// # Panics
/// When a part has no `=`.
pub fn matchers(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (label, value) = part.split_once('=').unwrap_or_else(|| panic!("{text}"));
            let label = label.trim().trim_end_matches('!').to_owned();
            (label, value.trim_matches(|c| "~\" ".contains(c)).to_owned())
        })
        .collect()
}

/// A running `olla demo`.
struct Demo {
    port: u16,
    _process: Process,
}

impl Demo {
    fn start() -> Self {
        let port = ports::reserve().port();
        let env = [
            ("OLLA_SERVER_HOST", "127.0.0.1"),
            ("OLLA_PROXY_STICKY_SESSIONS_ENABLED", "true"),
            ("OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED", "false"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let arguments = ["demo", "--port", &port.to_string()];
        let mut process = Process::start(&program("olla"), &arguments, &env);
        wait_for("olla demo to be ready", PATIENCE, || {
            assert!(process.is_running(), "olla demo has ended");
            let mut client = Client::try_to_port(port)?;
            let head = "GET /internal/ready HTTP/1.1\r\nHost: olla\r\n\r\n";
            client.try_send(head).ok()?;
            let ready = client.response().text();
            ready.contains("\"healthy\":4").then_some(())
        });
        Self {
            port,
            _process: process,
        }
    }

    fn use_it(&self) {
        let embed = r#"{"model":"nomic-embed-text:latest","input":"hello"}"#;
        let message = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","max_tokens":4,
            "tools":[{"type":"web_search_20250305","name":"web_search"}],
            "messages":[{"role":"user","content":"Hello"}]}"#;
        let stream = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","max_tokens":4,"stream":true,
            "messages":[{"role":"user","content":"Hello"}]}"#;
        for (path, body) in [
            ("/olla/proxy/v1/embeddings", embed),
            ("/olla/anthropic/v1/messages", message),
            ("/olla/openai/v1/chat/completions", stream),
        ] {
            let response = self.exchange(&format!("POST {path}"), body);
            assert_eq!(response.status, 200, "{}", response.text());
        }
        // Statistics may be late by a little.
        wait_for("the requests in the metrics", PATIENCE, || {
            let page = self.get("/internal/metrics").text();
            page.contains("\nolla_requests_total 3\n").then_some(())
        });
    }

    fn get(&self, path: &str) -> Response {
        self.exchange(&format!("GET {path}"), "")
    }

    fn exchange(&self, head: &str, body: &str) -> Response {
        let mut client = Client::to_port(self.port);
        client.request(head, body.as_bytes()).response()
    }
}
