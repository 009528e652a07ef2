//! What `/internal/metrics` of the real binary says: `olla demo` on a free port, with a little
//! traffic, so that every family has a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::ports;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One family: HELP, TYPE, and the labels of its samples with their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
    /// Names of its samples: a histogram has three.
    pub(crate) samples: BTreeSet<String>,
}

/// The families by name, in the order of the page.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) families: Vec<(String, Family)>,
}

impl Page {
    /// The page of one gateway; made once for all tests of a program.
    pub(crate) fn get() -> &'static Self {
        static PAGE: OnceLock<Page> = OnceLock::new();
        PAGE.get_or_init(|| {
            let gateway = Demo::start();
            gateway.use_it();
            let text = gateway.get("/internal/metrics");
            Self::read(&text)
        })
    }

    fn read(text: &str) -> Self {
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
                assert!(
                    sample.starts_with(name.as_str()),
                    "{line} stands under {name}"
                );
                family.samples.insert(sample.to_owned());
                for (label, value) in matchers(labels.strip_suffix('}').unwrap()) {
                    family.labels.entry(label).or_default().insert(value);
                }
            }
        }
        Self { families }
    }
}

/// `a="x",b=~"y"` as pairs. Values here hold no comma and no quote.
pub(crate) fn matchers(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (label, value) = part.split_once('=').unwrap_or_else(|| panic!("{text}"));
            let label = label.trim().trim_end_matches('!').to_owned();
            (label, value.trim_matches(|c| "~\" ".contains(c)).to_owned())
        })
        .collect()
}

/// A running `olla demo`, ended with the value.
struct Demo {
    child: Child,
    address: SocketAddr,
}

impl Demo {
    fn start() -> Self {
        let address = ports::reserve();
        let child = Command::new(env!("CARGO_BIN_EXE_olla"))
            .args(["demo", "--port", &address.port().to_string()])
            .env_clear()
            .env("OLLA_SERVER_HOST", "127.0.0.1")
            .env("OLLA_PROXY_STICKY_SESSIONS_ENABLED", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut gateway = Self { child, address };
        let until = Instant::now() + PATIENCE;
        while !gateway.ready() {
            assert!(Instant::now() < until, "the gateway is not ready");
            assert_eq!(
                gateway.child.try_wait().unwrap(),
                None,
                "the gateway has ended"
            );
            std::thread::yield_now();
        }
        gateway
    }

    fn ready(&self) -> bool {
        let all = "\"healthy\":4";
        TcpStream::connect(self.address).is_ok() && self.get("/internal/ready").contains(all)
    }

    /// One request of each kind that has families of its own.
    fn use_it(&self) {
        let embed = r#"{"model":"nomic-embed-text:latest","input":"hello"}"#;
        let message = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","max_tokens":4,
            "messages":[{"role":"user","content":"Hello"}]}"#;
        for (path, body) in [
            ("/olla/proxy/v1/embeddings", embed),
            ("/olla/anthropic/v1/messages", message),
        ] {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: olla\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            let answer = self.exchange(&(head + body));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        // Figures may be late by a little.
        let until = Instant::now() + PATIENCE;
        while !self
            .get("/internal/metrics")
            .contains("\nolla_requests_total 2\n")
        {
            assert!(Instant::now() < until, "the requests are not counted");
        }
    }

    /// A page's body.
    fn get(&self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: olla\r\nConnection: close\r\n\r\n");
        let answer = self.exchange(&head);
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
