//! Scripts as data: what a backend does, for programs in other languages and for tests that need no
//! code of their own.
//!
//! ```json
//! {
//!   "apis": ["openai", "ollama"],
//!   "models": ["llama3.1:8b", {"name": "qwen3:32b", "family": "qwen3", "size": 20201253588}],
//!   "output": {"text": ["Hello", " there"], "gap_ms": 20},
//!   "rules": [
//!     {"path": "/v1/chat/completions", "times": 1, "then": ["reset"]},
//!     {"model": "qwen3:32b", "then": [{"generate": {"cut_after": 3}}]}
//!   ]
//! }
//! ```
//!
//! The first rule that fits a request and has not been used up applies. Without one, the backend
//! responds to health checks, lists its models, and generates in the APIs that it offers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Link, locked};
use crate::api::{self, Api, Generated, Model, Output};
use crate::http::Received;

/// Time after which a hanging response ends.
const HANG_MAX: Duration = Duration::from_secs(300);

/// What a backend is and does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Names the backend for the program that drives it.
    pub name: String,
    /// The APIs that it offers.
    pub apis: Vec<Api>,
    /// The models that it lists and serves.
    pub models: Vec<Model>,
    /// Status of its response to health checks.
    pub health: u16,
    /// What its models generate.
    pub output: Generate,
    /// Exceptions, in their order.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: String::new(),
            apis: vec![Api::Openai],
            models: Vec::new(),
            health: 200,
            output: Generate::default(),
            rules: Vec::new(),
        }
    }
}

/// What happens to some requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The method; any when it is missing.
    pub method: Option<String>,
    /// The path without a query; a `*` at its end stands for any rest.
    pub path: Option<String>,
    /// The model that the body names.
    pub model: Option<String>,
    /// How often the rule applies; without limit when it is missing.
    pub times: Option<u64>,
    /// The steps, in their order.
    pub then: Vec<Step>,
}

/// One step of a response.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Responds with a whole body.
    Respond(Respond),
    /// Responds as a model would.
    Generate(Generate),
    /// Sends text as it is.
    Send(String),
    /// Sends bytes, given as pairs of hexadecimal digits.
    SendHex(Hex),
    /// Sends a chunk of a chunked body; an empty one ends the body.
    Chunk(String),
    /// Waits this many milliseconds.
    WaitMs(u64),
    /// Sends nothing until the client leaves.
    Hang,
    /// Ends the connection with FIN.
    Close,
    /// Ends the connection with RST.
    Reset,
}

/// A response with a whole body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Respond {
    /// The status code.
    pub status: u16,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// A string is sent as it is, everything else as JSON.
    pub body: Value,
}

impl Default for Respond {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: json!({}),
        }
    }
}

/// What a model generates and how fast.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generate {
    /// The text, one piece for each event of a stream.
    pub text: Vec<String>,
    /// A tool call, made when the request offers tools.
    pub tool: Option<Tool>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated; the number of pieces when it is missing.
    pub completion_tokens: Option<u64>,
    /// Time before the response, in milliseconds.
    pub delay_ms: u64,
    /// Time between the events of a stream, in milliseconds.
    pub gap_ms: u64,
    /// Closes the connection after this many events with output.
    pub cut_after: Option<usize>,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            text: ["The", " gateway", " routes", " requests."]
                .map(str::to_owned)
                .into(),
            tool: None,
            prompt_tokens: 24,
            completion_tokens: None,
            delay_ms: 0,
            gap_ms: 0,
            cut_after: None,
        }
    }
}

/// A tool call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// The name of the tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

/// Bytes in hexadecimal digits.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(digits: String) -> Result<Self, String> {
        let wrong = || format!("expected pairs of hexadecimal digits, got {digits:?}");
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
        Ok(Self(bytes.ok_or_else(wrong)?))
    }
}

/// A script in force.
pub(super) struct Scripted(Mutex<Arc<Running>>);

struct Running {
    script: Script,
    used: Vec<AtomicU64>,
}

/// A rule that applies to a request, with the script that it is from.
pub(super) struct Applies(Arc<Running>, usize);

impl Scripted {
    pub(super) fn new(script: Script) -> Self {
        Self(Mutex::new(Running::new(script)))
    }

    pub(super) fn set(&self, script: Script) {
        *locked(&self.0) = Running::new(script);
    }

    /// The rule that applies to a request; counts its use.
    pub(super) fn rule(&self, request: &Received) -> Option<Applies> {
        let running = Arc::clone(&locked(&self.0));
        let body: Option<Value> = serde_json::from_slice(&request.body).ok();
        let model = body.as_ref().and_then(|body| body["model"].as_str());
        let rules = running.script.rules.iter().zip(&running.used);
        let applies = |(rule, used): (&Rule, &AtomicU64)| {
            rule.fits(request, model)
                && used.fetch_add(1, Ordering::SeqCst) < rule.times.unwrap_or(u64::MAX)
        };
        let at = rules.map(applies).position(|applies| applies)?;
        Some(Applies(running, at))
    }

    pub(super) fn respond(&self, rule: Option<Applies>, request: &Received, link: &mut Link) {
        match rule {
            Some(Applies(running, at)) => running.follow(at, request, link),
            None => {
                let running = Arc::clone(&locked(&self.0));
                running.generate(&running.script.output, request, link);
            }
        }
    }
}

impl Rule {
    fn fits(&self, request: &Received, model: Option<&str>) -> bool {
        let path = request.path();
        let is_path = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        };
        self.method
            .as_ref()
            .is_none_or(|own| *own == request.method)
            && self.path.as_ref().is_none_or(is_path)
            && (self.model.is_none() || self.model.as_deref() == model)
    }
}

impl Running {
    fn new(script: Script) -> Arc<Self> {
        let used = script.rules.iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { script, used })
    }

    fn follow(&self, at: usize, request: &Received, link: &mut Link) {
        for step in &self.script.rules[at].then {
            let goes_on = match step {
                Step::Respond(respond) => respond.send(link),
                Step::Generate(generate) => self.generate(generate, request, link),
                Step::Send(text) => link.send(text),
                Step::SendHex(Hex(bytes)) => link.send(bytes),
                Step::Chunk(text) => link.chunk(text),
                Step::WaitMs(ms) => link.pause(Duration::from_millis(*ms)),
                Step::Hang => {
                    link.pause(HANG_MAX);
                    link.close();
                    false
                }
                Step::Close => {
                    link.close();
                    false
                }
                Step::Reset => {
                    link.reset();
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Responds as a model would; false when the connection is over.
    fn generate(&self, how: &Generate, request: &Received, link: &mut Link) -> bool {
        let Script { apis, models, .. } = &self.script;
        let mut asked_for = String::new();
        let generated = api::generate(apis, request, |body| {
            asked_for = body["model"].as_str().unwrap_or_default().to_owned();
            how.output(body, &asked_for)
        });
        let Some(generated) = generated else {
            let text = format!("no route {} {}", request.method, request.path());
            return not_found(link, &text);
        };
        if !models.is_empty() && models.iter().all(|model| model.name != asked_for) {
            return not_found(link, &format!("model {asked_for:?} not found"));
        }
        if !link.pause(Duration::from_millis(how.delay_ms)) {
            return false;
        }
        match generated {
            Generated::Whole(body) => {
                link.respond(200, "application/json", body);
                true
            }
            Generated::Stream {
                kind,
                events,
                with_output,
            } => {
                let cut_at = how.cut_after.map(|count| {
                    let before = with_output.saturating_sub(how.text.len().max(1));
                    (before + count).min(events.len())
                });
                how.stream(kind, &events, cut_at, link)
            }
        }
    }
}

fn not_found(link: &mut Link, text: &str) -> bool {
    let body = json!({"error": {"message": text, "type": "not_found_error"}});
    link.respond(404, "application/json", body.to_string());
    true
}

impl Generate {
    fn output(&self, body: &Value, model: &str) -> Output {
        let tool = self.tool.as_ref().filter(|_| api::offers_tools(body));
        Output {
            model: model.to_owned(),
            pieces: self.text.clone(),
            call: tool.map(|tool| (tool.name.clone(), tool.arguments.clone())),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens.unwrap_or(self.text.len() as u64),
        }
    }

    fn stream(
        &self,
        kind: &str,
        events: &[String],
        cut_at: Option<usize>,
        link: &mut Link,
    ) -> bool {
        link.begin(kind);
        let gap = Duration::from_millis(self.gap_ms);
        for (index, event) in events.iter().enumerate() {
            if cut_at == Some(index) || (index > 0 && !link.pause(gap)) || !link.chunk(event) {
                link.close();
                return false;
            }
        }
        if cut_at.is_some() {
            link.close();
            return false;
        }
        link.chunk("")
    }
}

impl Respond {
    fn send(&self, link: &mut Link) -> bool {
        let (kind, body) = match &self.body {
            Value::String(text) => ("text/plain", text.clone()),
            value => ("application/json", value.to_string()),
        };
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        let is_set = |name: &str| {
            self.headers
                .keys()
                .any(|own| own.eq_ignore_ascii_case(name))
        };
        if !is_set("Content-Type") {
            field("Content-Type", kind);
        }
        if !is_set("Content-Length") && !is_set("Transfer-Encoding") {
            field("Content-Length", &body.len().to_string());
        }
        for (name, value) in &self.headers {
            field(name, value);
        }
        link.send(head + "\r\n" + &body)
    }
}
