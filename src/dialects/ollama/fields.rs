//! The fields of a request that are not its text: what becomes of each, and which have no effect.
//!
//! Contract: docs/contract/dialects.md#10

use super::request::{OllamaOperation, Role, Task};
use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::thinking::Thinking;
use crate::json::{JsonKind, JsonValue, write_number};

/// Options that have the same name and meaning in OpenAI's API or in most of its servers.
const SAME: [&str; 8] = [
    "temperature",
    "top_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
];

/// Options about the loading of a model, which the server decides.
const SERVERS: [&str; 13] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "numa",
    "low_vram",
    "use_mmap",
    "use_mlock",
    "num_keep",
    "logits_all",
    "vocab_only",
    "embedding_only",
];

/// Fields that change nothing of what the model does.
const SILENT: [&str; 4] = ["keep_alive", "truncate", "shift", "_debug_render_only"];

/// Fields that are read elsewhere.
const READ: [&str; 3] = ["model", "stream", "options"];

/// Writes members of a request, each after a comma.
pub(super) struct FieldWriter<'o> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) dropped: &'o mut Dropped,
}

impl FieldWriter<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn same(&mut self, key: &str, value: JsonValue<'_>) {
        self.key(key);
        value.write_compact(self.out);
    }

    /// What the options of a request become for servers of a type.
    pub(super) fn options(&mut self, request: JsonValue<'_>, kind: &str) {
        let Some(options) = request.field("options") else {
            return;
        };
        for (name, value) in SAME.into_iter().zip(options.given(SAME)) {
            if let Some(value) = value {
                self.same(name, value);
            }
        }
        let [num_predict, repeat_penalty] = options.given(["num_predict", "repeat_penalty"]);
        let tokens = num_predict.and_then(|tokens| match tokens.unsigned() {
            Some(tokens) => Some(tokens),
            None => tokens.number().map(|tokens| tokens as u64),
        });
        if let Some(tokens) = tokens.filter(|tokens| *tokens >= 1) {
            self.key("max_tokens");
            write_number(tokens, self.out);
        }
        if let Some(penalty) = repeat_penalty {
            match penalty_name(kind) {
                Some(name) => self.same(name, penalty),
                None => self.dropped.add("options.repeat_penalty"),
            }
        }
        for (key, value) in options.members() {
            let key = key.decode();
            let is_known = SAME.contains(&&*key)
                || SERVERS.contains(&&*key)
                || matches!(&*key, "num_predict" | "repeat_penalty");
            if !is_known && !value.is(JsonKind::Null) {
                self.dropped.add(format!("options.{key}"));
            }
        }
    }

    /// The form of the response.
    pub(super) fn format(&mut self, request: JsonValue<'_>) {
        let Some(format) = request.field("format") else {
            return;
        };
        if format.is(JsonKind::Object) {
            self.key("response_format");
            self.out.extend_from_slice(
                br#"{"type":"json_schema","json_schema":{"name":"output","schema":"#,
            );
            format.write_compact(self.out);
            self.out.extend_from_slice(br#","strict":true}}"#);
        } else if format.string().is_some_and(|text| text.is("json")) {
            self.key("response_format");
            self.out.extend_from_slice(br#"{"type":"json_object"}"#);
        }
    }

    pub(super) fn think(&mut self, request: JsonValue<'_>, kind: &str) {
        let Some(think) = request.field("think") else {
            return;
        };
        let thinking = match think.string() {
            Some(effort) => Thinking::of_effort(&effort.decode()),
            None if hides_thinking(request) => Some(Thinking::Off),
            None => None,
        };
        if let Some(thinking) = thinking {
            thinking.write(kind, self.out);
        }
    }

    pub(super) fn logprobs(&mut self, request: JsonValue<'_>) {
        let [logprobs, top] = request.given(["logprobs", "top_logprobs"]);
        for (name, value) in [("logprobs", logprobs), ("top_logprobs", top)] {
            if let Some(value) = value {
                self.same(name, value);
            }
        }
    }

    /// The tools, in the form that they have; what is no function with a name is left out.
    pub(super) fn tools(&mut self, request: JsonValue<'_>) {
        let Some(tools) = request.field("tools").filter(|tools| !is_empty(*tools)) else {
            return;
        };
        let begun = self.out.len();
        let mut written = 0;
        self.key("tools");
        self.out.push(b'[');
        for tool in tools.elements() {
            let function = tool
                .field("function")
                .filter(|function| function.string_field("name").is_some());
            let Some(function) = function else {
                self.dropped.add("tools");
                continue;
            };
            if written > 0 {
                self.out.push(b',');
            }
            written += 1;
            write_tool(tool, function, self.out);
        }
        self.out.push(b']');
        if written == 0 {
            self.dropped.add("tools");
            self.out.truncate(begun);
        }
    }

    /// Names the fields that a task leaves without effect.
    pub(super) fn unused(
        &mut self,
        request: JsonValue<'_>,
        operation: OllamaOperation,
        task: Task,
    ) {
        let used: &[&str] = match (operation, task) {
            (OllamaOperation::Chat, _) => &[
                "messages",
                "tools",
                "format",
                "think",
                "logprobs",
                "top_logprobs",
            ],
            (OllamaOperation::Generate, Task::Complete) => &["prompt", "suffix", "raw", "images"],
            (OllamaOperation::Generate, _) => &[
                "prompt",
                "suffix",
                "raw",
                "images",
                "system",
                "format",
                "think",
                "logprobs",
                "top_logprobs",
            ],
            (OllamaOperation::Embed, _) => &["input", "dimensions"],
            (OllamaOperation::Embeddings, _) => &["prompt"],
        };
        let messages = request.field("messages").into_iter();
        let is_said = |message: &JsonValue<'_>| Role::of(*message) == Some(Role::Assistant);
        let mut said = messages.flat_map(JsonValue::elements).filter(is_said);
        if said.any(|message| message.field("images").is_some_and(|it| !is_empty(it))) {
            self.dropped.add("messages.images");
        }
        for (key, value) in request.members() {
            let key = key.decode();
            let is_known = [used, &READ[..], &SILENT[..]]
                .iter()
                .any(|names| names.contains(&&*key));
            if !is_known && !is_empty(value) {
                self.dropped.add(key.into_owned());
            }
        }
    }
}

/// Whether reasoning is left out of the response.
pub(super) fn hides_thinking(request: JsonValue<'_>) -> bool {
    let think = request.field("think");
    think.is_some_and(|think| think.raw() == b"false")
}

/// The name that servers of a type have for the penalty of repetitions.
fn penalty_name(kind: &str) -> Option<&'static str> {
    match kind {
        "vllm" | "sglang" | "vllm-mlx" | "lmdeploy" => Some("repetition_penalty"),
        "llamacpp" | "lm-studio" | "docker-model-runner" | "lemonade" => Some("repeat_penalty"),
        _ => None,
    }
}

/// Whether a value says nothing: null, an empty string, array or object, `false`.
fn is_empty(value: JsonValue<'_>) -> bool {
    match value.kind() {
        JsonKind::Null => true,
        JsonKind::Bool => !value.is_true(),
        JsonKind::Number => false,
        JsonKind::String => value.string().is_some_and(|text| text.is_empty()),
        JsonKind::Array => value.elements().next().is_none(),
        JsonKind::Object => value.members().next().is_none(),
    }
}

fn write_tool(tool: JsonValue<'_>, function: JsonValue<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"#);
    match tool.field("type").filter(|kind| kind.is(JsonKind::String)) {
        Some(kind) => kind.write_compact(out),
        None => out.extend_from_slice(br#""function""#),
    }
    out.extend_from_slice(br#","function":{"#);
    let mut has_parameters = false;
    for (at, (key, value)) in function.members().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'"');
        key.write(out);
        out.extend_from_slice(b"\":");
        if key.is("parameters") {
            has_parameters = true;
            if value.is(JsonKind::Null) {
                out.extend_from_slice(NO_PARAMETERS);
                continue;
            }
        }
        value.write_compact(out);
    }
    if !has_parameters {
        out.extend_from_slice(br#","parameters":"#);
        out.extend_from_slice(NO_PARAMETERS);
    }
    out.extend_from_slice(b"}}");
}

const NO_PARAMETERS: &[u8] = br#"{"type":"object","properties":{}}"#;
