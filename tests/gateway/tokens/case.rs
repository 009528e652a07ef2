//! One request and its answer, made of a number alone, so that the client, the backend and the sums
//! at the end agree on it without talking; the number travels in the prompt.

use olla_loadtest::chance::Chance;
use serde_json::{Value, json};

use testkit::{Link, Received};

const SEED: u64 = 12;

/// A model that every backend has, besides two of its own.
const EVERYWHERE: &str = "everywhere";

/// What a backend says of the time that it took: always 20 ms for each token generated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Untold,
    /// In Ollama's own answers only.
    Durations,
    Total,
    Generation,
    Timings,
    Stats,
}

const MS_PER_TOKEN: u64 = 20;
pub(super) const TOKENS_PER_SECOND: f64 = 50.0;

pub(super) struct Kind {
    pub(super) name: &'static str,
    prefix: &'static str,
    /// Before `/chat/completions`.
    base: &'static str,
    /// Speaks Anthropic's API by itself.
    is_native: bool,
    times: Times,
}

const fn kind(
    name: &'static str,
    prefix: &'static str,
    base: &'static str,
    is_native: bool,
    times: Times,
) -> Kind {
    Kind {
        name,
        prefix,
        base,
        is_native,
        times,
    }
}

pub(super) const KINDS: [Kind; 12] = [
    kind("ollama", "ollama", "/v1", true, Times::Durations),
    kind("openai-compatible", "openai", "/v1", false, Times::Total),
    kind("vllm", "vllm", "/v1", true, Times::Generation),
    kind("lm-studio", "lmstudio", "/v1", true, Times::Stats),
    kind("llamacpp", "llamacpp", "/v1", true, Times::Timings),
    kind("sglang", "sglang", "/v1", false, Times::Generation),
    kind("lmdeploy", "lmdeploy", "/v1", false, Times::Untold),
    kind("litellm", "litellm", "/v1", false, Times::Untold),
    kind("lemonade", "lemonade", "/api/v1", false, Times::Untold),
    kind("omlx", "omlx", "/v1", true, Times::Untold),
    kind("vllm-mlx", "vllm-mlx", "/v1", true, Times::Generation),
    kind(
        "docker-model-runner",
        "dmr",
        "/engines/v1",
        true,
        Times::Untold,
    ),
];

impl Kind {
    pub(super) fn models(&self) -> [String; 3] {
        let own = |which: &str| format!("{}-{which}", self.name);
        [own("a"), own("b"), EVERYWHERE.to_owned()]
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    Chat,
    Completion,
    Messages,
    OllamaChat,
    OllamaGenerate,
}

/// The dialect of an answer's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunks,
    UntilClose,
}

pub(super) struct Case {
    pub(super) number: usize,
    pub(super) kind: &'static Kind,
    pub(super) ask: Ask,
    pub(super) is_stream: bool,
    pub(super) model: String,
    /// None: the answer does not tell.
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
    /// The texts of the answer, one for each event of a stream.
    texts: Vec<String>,
    framing: Framing,
    line_end: &'static str,
    /// An OpenAI stream has its usage in every event, as running totals.
    is_running: bool,
    /// An OpenAI stream has its usage in an event of its own.
    is_apart: bool,
    /// For the cuts between the pieces.
    chance: Chance,
}

impl Case {
    pub(super) fn new(number: usize) -> Self {
        let mut chance = Chance::new(SEED ^ ((number as u64) << 32));
        let kind = &KINDS[chance.below(KINDS.len())];
        let ask = if kind.name == "ollama" {
            chance.pick(&[
                Ask::OllamaChat,
                Ask::OllamaGenerate,
                Ask::OllamaChat,
                Ask::OllamaGenerate,
                Ask::Chat,
                Ask::Messages,
            ])
        } else {
            chance.pick(&[Ask::Chat, Ask::Chat, Ask::Completion, Ask::Messages])
        };
        // Of those that have the model which all have, only a prefix chooses.
        let models = if ask == Ask::Messages { 2 } else { 3 };
        let model = kind.models()[chance.below(models)].clone();
        let mut count = |bound| Some(1 + chance.below(bound) as u64);
        let (mut prompt, mut completion) = (count(20_000), count(2_000));
        if chance.one_in(8) {
            (prompt, completion) = (None, None);
        } else if matches!(ask, Ask::OllamaChat | Ask::OllamaGenerate) && chance.one_in(8) {
            // Ollama leaves it out when it has the prompt already.
            prompt = None;
        }
        // Some are longer than what is kept of an answer.
        let texts = if chance.one_in(12) {
            800
        } else {
            1 + chance.below(12)
        };
        Self {
            number,
            kind,
            ask,
            is_stream: chance.one_in(2),
            model,
            prompt,
            completion,
            texts: (0..texts).map(|_| text(&mut chance)).collect(),
            framing: chance.pick(&[Framing::Length, Framing::Chunks, Framing::UntilClose]),
            line_end: chance.pick(&["\n", "\r\n"]),
            is_running: chance.one_in(3),
            is_apart: chance.one_in(2),
            chance,
        }
    }

    /// Of a request at a backend.
    pub(super) fn of(request: &Received) -> Option<Self> {
        let text = request.text();
        let (_, behind) = text.split_once("case <")?;
        let (number, _) = behind.split_once('>')?;
        number.parse().ok().map(Self::new)
    }

    fn path(&self) -> String {
        let Kind { prefix, base, .. } = self.kind;
        match self.ask {
            Ask::Chat => format!("/olla/{prefix}{base}/chat/completions"),
            Ask::Completion => format!("/olla/{prefix}{base}/completions"),
            Ask::Messages => "/olla/anthropic/v1/messages".to_owned(),
            Ask::OllamaChat => format!("/olla/{prefix}/api/chat"),
            Ask::OllamaGenerate => format!("/olla/{prefix}/api/generate"),
        }
    }

    pub(super) fn request(&self) -> String {
        let prompt = format!("case <{}>", self.number);
        let mut body = json!({"model": self.model, "stream": self.is_stream});
        match self.ask {
            Ask::Completion | Ask::OllamaGenerate => body["prompt"] = json!(prompt),
            _ => body["messages"] = json!([{"role": "user", "content": prompt}]),
        }
        if self.ask == Ask::Messages {
            body["max_tokens"] = json!(100);
        }
        let body = body.to_string();
        let path = self.path();
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    /// Whether the answer comes to the client as it left the backend.
    pub(super) fn is_untouched(&self) -> bool {
        self.ask != Ask::Messages || self.kind.is_native
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.ask {
            Ask::OllamaChat | Ask::OllamaGenerate => Dialect::Ollama,
            Ask::Messages if self.kind.is_native => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// The type and the bytes of the answer.
    pub(super) fn response(&self) -> (&'static str, String) {
        let events = match (self.dialect(), self.is_stream) {
            (Dialect::OpenAi, false) => return ("application/json", self.openai().to_string()),
            (Dialect::Anthropic, false) => {
                return ("application/json", self.anthropic().to_string());
            }
            (Dialect::Ollama, false) => {
                let mut whole = self.ollama(&self.texts.concat());
                self.end_ollama(&mut whole);
                return ("application/json", whole.to_string());
            }
            (Dialect::Ollama, true) => return ("application/x-ndjson", self.ollama_lines()),
            (Dialect::OpenAi, true) => self.openai_events(),
            (Dialect::Anthropic, true) => self.anthropic_events(),
        };
        let end = self.line_end;
        let mut text = format!(": begun{end}{end}");
        for (before, data) in events {
            text += &format!("{before}data: {data}{end}{end}");
        }
        ("text/event-stream", text)
    }

    pub(super) fn is_told(&self) -> bool {
        self.completion.is_some()
    }

    /// Whether the answer tells how long generating has taken.
    pub(super) fn has_times(&self) -> bool {
        self.is_told()
            && match self.dialect() {
                Dialect::Ollama => true,
                Dialect::OpenAi => !matches!(self.kind.times, Times::Untold | Times::Durations),
                Dialect::Anthropic => false,
            }
    }

    /// The member with the times, as far as the kind has one.
    fn add_times(&self, answer: &mut Value) {
        let Some(tokens) = self.completion else {
            return;
        };
        let ms = tokens * MS_PER_TOKEN;
        let (name, value) = match self.kind.times {
            Times::Untold | Times::Durations => return,
            Times::Total => (
                "metrics",
                json!({"time_to_first_token": 5, "total_time": ms}),
            ),
            Times::Generation => (
                "metrics",
                json!({"time_to_first_token_ms": 5.5, "generation_time_ms": ms}),
            ),
            Times::Timings => (
                "timings",
                json!({"prompt_n": 1, "prompt_ms": 5.5, "predicted_n": tokens,
                       "predicted_ms": ms, "predicted_per_second": TOKENS_PER_SECOND}),
            ),
            Times::Stats => (
                "stats",
                json!({"tokens_per_second": TOKENS_PER_SECOND, "time_to_first_token": 0.005,
                       "generation_time": ms as f64 / 1000.0}),
            ),
        };
        answer[name] = value;
    }

    fn openai_usage(&self, completion: u64) -> Value {
        let prompt = self.prompt.unwrap_or_default();
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
               "total_tokens": prompt + completion})
    }

    fn openai_choice(&self, name: &str, text: &str, reason: Option<&str>) -> Value {
        let mut choice = json!({"index": 0, "finish_reason": reason});
        if self.ask == Ask::Completion {
            choice["text"] = json!(text);
        } else {
            choice[name] = json!({"role": "assistant", "content": text});
        }
        choice
    }

    fn openai(&self) -> Value {
        let text = self.texts.concat();
        let choice = self.openai_choice("message", &text, Some("stop"));
        let mut answer = json!({"id": "c", "model": self.model, "choices": [choice]});
        if let Some(completion) = self.completion {
            answer["usage"] = self.openai_usage(completion);
        }
        self.add_times(&mut answer);
        answer
    }

    /// Lines before the data, and the data.
    fn openai_events(&self) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for (at, text) in self.texts.iter().enumerate() {
            let choice = self.openai_choice("delta", text, None);
            let mut event = json!({"id": "c", "model": self.model, "choices": [choice]});
            if self.is_told() {
                let so_far = self.openai_usage(at as u64);
                event["usage"] = if self.is_running { so_far } else { Value::Null };
            }
            events.push((String::new(), event.to_string()));
        }
        let choice = self.openai_choice("delta", "", Some("stop"));
        let mut last = json!({"id": "c", "model": self.model, "choices": [choice]});
        if self.is_apart {
            events.push((String::new(), last.to_string()));
            last["choices"] = json!([]);
        }
        if let Some(completion) = self.completion {
            last["usage"] = self.openai_usage(completion);
            self.add_times(&mut last);
        }
        events.push((String::new(), last.to_string()));
        events.push((String::new(), "[DONE]".to_owned()));
        events
    }

    fn anthropic(&self) -> Value {
        let mut answer = json!({"id": "msg_1", "type": "message", "role": "assistant",
            "model": self.model, "content": [{"type": "text", "text": self.texts.concat()}],
            "stop_reason": "end_turn", "stop_sequence": null});
        if self.is_told() {
            answer["usage"] =
                json!({"input_tokens": self.prompt, "output_tokens": self.completion});
        }
        answer
    }

    fn anthropic_events(&self) -> Vec<(String, String)> {
        let mut message = json!({"id": "msg_1", "type": "message", "role": "assistant",
            "model": self.model, "content": [], "stop_reason": null, "stop_sequence": null});
        let mut delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}});
        if self.is_told() {
            message["usage"] = json!({"input_tokens": self.prompt, "output_tokens": 1});
            delta["usage"] = json!({"output_tokens": self.completion});
        }
        let block = json!({"type": "text", "text": ""});
        let mut events = vec![
            json!({"type": "message_start", "message": message}),
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
        ];
        events.extend(self.texts.iter().map(|text| {
            json!({"type": "content_block_delta", "index": 0,
                   "delta": {"type": "text_delta", "text": text}})
        }));
        events.push(json!({"type": "content_block_stop", "index": 0}));
        events.push(delta);
        events.push(json!({"type": "message_stop"}));
        let named = |event: Value| {
            let name = event["type"].as_str().unwrap_or_default();
            (format!("event: {name}{}", self.line_end), event.to_string())
        };
        events.into_iter().map(named).collect()
    }

    fn ollama(&self, text: &str) -> Value {
        let mut part = json!({"model": self.model, "created_at": "2026-08-01T09:30:00Z"});
        if self.ask == Ask::OllamaChat {
            part["message"] = json!({"role": "assistant", "content": text});
        } else {
            part["response"] = json!(text);
        }
        part["done"] = json!(false);
        part
    }

    fn end_ollama(&self, last: &mut Value) {
        last["done"] = json!(true);
        last["done_reason"] = json!("stop");
        last["total_duration"] = json!(9_000_000);
        if let Some(prompt) = self.prompt {
            last["prompt_eval_count"] = json!(prompt);
            last["prompt_eval_duration"] = json!(5_000_000);
        }
        if let Some(completion) = self.completion {
            last["eval_count"] = json!(completion);
            last["eval_duration"] = json!(completion * MS_PER_TOKEN * 1_000_000);
        }
    }

    fn ollama_lines(&self) -> String {
        let parts = self.texts.iter().map(|text| self.ollama(text));
        let mut lines: String = parts.map(|part| format!("{part}\n")).collect();
        let mut last = self.ollama("");
        self.end_ollama(&mut last);
        lines += &format!("{last}\n");
        lines
    }

    /// Answers in pieces that end anywhere.
    pub(super) fn send(mut self, link: &mut Link) {
        let (kind, body) = self.response();
        let mut rest = body.as_bytes();
        let framing = match self.framing {
            Framing::Length => format!("Content-Length: {}", rest.len()),
            Framing::Chunks => "Transfer-Encoding: chunked".to_owned(),
            Framing::UntilClose => "Connection: close".to_owned(),
        };
        link.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
        ));
        // So that even the long ones come in some fifty pieces at the most.
        let longest = rest.len() / 25 + 2;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(1 + self.chance.below(longest)));
            match self.framing {
                Framing::Chunks => link.chunk(piece),
                Framing::Length | Framing::UntilClose => link.send(piece),
            };
            rest = behind;
        }
        match self.framing {
            Framing::Length => {}
            Framing::Chunks => drop(link.chunk("")),
            Framing::UntilClose => link.close(),
        }
    }
}

/// Some of what a model might say; what it says of usage is no usage.
fn text(chance: &mut Chance) -> String {
    let said = chance.pick(&[
        "Tokens are counted. ",
        "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1} ",
        "\"eval_count\": 3}\n{\"done\":true,\"eval_count\":4}\n",
        "data: {\"usage\":{\"output_tokens\":9}}\n\n",
        "Größe, 大きさ, 🦙 ",
    ]);
    said.repeat(1 + chance.below(4))
}
