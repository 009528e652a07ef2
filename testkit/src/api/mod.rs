//! What LLM servers send, in each API family: model listings, whole responses, streams.

pub mod anthropic;
pub mod ollama;
pub mod openai;

use std::hash::{DefaultHasher, Hasher};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Received;

/// An API family that a backend offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Chat completions, completions and embeddings as OpenAI defines them.
    Openai,
    /// Ollama's own API, lines of JSON.
    Ollama,
    /// OpenAI's, with the `stats` that LM Studio adds.
    LmStudio,
    /// Anthropic's Messages.
    Anthropic,
}

/// A model in a listing. Only what is known is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ModelForm")]
pub struct Model {
    /// Its name, or id.
    pub name: String,
    /// What it is for, in LM Studio's words: `llm`, `vlm`, `embeddings`.
    pub kind: Option<String>,
    /// Its family or architecture.
    pub family: Option<String>,
    /// Size of its file in bytes.
    pub size: Option<u64>,
    /// Number of parameters, such as `8B`.
    pub parameters: Option<String>,
    /// Quantization, such as `Q4_0`.
    pub quantization: Option<String>,
    /// Context length in tokens.
    pub context: Option<u64>,
    /// Owner in OpenAI's listing.
    pub owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ModelForm {
    Name(String),
    Whole(ModelTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    name: String,
    kind: Option<String>,
    family: Option<String>,
    size: Option<u64>,
    parameters: Option<String>,
    quantization: Option<String>,
    context: Option<u64>,
    owner: Option<String>,
}

impl From<ModelForm> for Model {
    fn from(form: ModelForm) -> Self {
        match form {
            ModelForm::Name(name) => Self {
                name,
                ..Self::default()
            },
            ModelForm::Whole(table) => Self {
                name: table.name,
                kind: table.kind,
                family: table.family,
                size: table.size,
                parameters: table.parameters,
                quantization: table.quantization,
                context: table.context,
                owner: table.owner,
            },
        }
    }
}

impl Model {
    /// A model of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Its entry in Ollama's `/api/tags`.
    pub fn tag(&self) -> Value {
        let mut tag = json!({"name": self.name, "model": self.name});
        let details = present([
            ("format", self.family.as_ref().map(|_| "gguf".into())),
            ("family", self.family.as_deref().map(Value::from)),
            (
                "parameter_size",
                self.parameters.as_deref().map(Value::from),
            ),
            (
                "quantization_level",
                self.quantization.as_deref().map(Value::from),
            ),
        ]);
        let size = self.size.map(Value::from);
        // Ollama knows these of every file.
        let of_file = |value: Value| size.as_ref().map(|_| value);
        merge(
            &mut tag,
            present([
                ("modified_at", of_file(ollama::TIME.into())),
                ("size", size.clone()),
                ("digest", of_file(digest(&self.name).into())),
                (
                    "details",
                    Some(details)
                        .filter(|details| details.as_object().is_some_and(|d| !d.is_empty())),
                ),
            ]),
        );
        tag
    }

    /// Its entry in OpenAI's `/v1/models`.
    pub fn card(&self) -> Value {
        let mut card = json!({"id": self.name, "object": "model"});
        let owner = self.owner.as_deref().map(Value::from);
        let created = owner.as_ref().map(|_| openai::CREATED.into());
        let context = self.context.map(Value::from);
        merge(
            &mut card,
            present([
                ("created", created),
                ("owned_by", owner),
                ("max_model_len", context),
            ]),
        );
        card
    }

    /// Its entry in LM Studio's `/api/v0/models`.
    pub fn lm_studio(&self) -> Value {
        let mut entry = json!({"id": self.name, "object": "model"});
        let state = self.kind.as_ref().map(|_| "loaded".into());
        merge(
            &mut entry,
            present([
                ("type", self.kind.as_deref().map(Value::from)),
                ("arch", self.family.as_deref().map(Value::from)),
                (
                    "quantization",
                    self.quantization.as_deref().map(Value::from),
                ),
                ("state", state),
                ("max_context_length", self.context.map(Value::from)),
            ]),
        );
        entry
    }
}

fn present<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let present = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect())
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// The listing of these models at a path, in the form of the API that has the path. `None`: no API
/// lists models there.
pub fn listing(path: &str, models: &[Model]) -> Option<Value> {
    let entries = |entry: fn(&Model) -> Value| models.iter().map(entry).collect::<Vec<_>>();
    if path.ends_with("/api/tags") {
        Some(json!({"models": entries(Model::tag)}))
    } else if path.ends_with("/api/v0/models") {
        Some(json!({"object": "list", "data": entries(Model::lm_studio)}))
    } else if path.ends_with("/v1/models") {
        Some(json!({"object": "list", "data": entries(Model::card)}))
    } else {
        None
    }
}

/// What a model generates, before it is put into the form of an API.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The model that generates it.
    pub model: String,
    /// The text, one piece for each event of a stream.
    pub pieces: Vec<String>,
    /// A tool call in place of the text: the name, and the arguments.
    pub call: Option<(String, Value)>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
}

impl Output {
    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// A response to an inference request, as bytes of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Generated {
    /// One JSON document.
    Whole(String),
    /// The events of a stream, each with its framing.
    Stream {
        /// The value of `Content-Type`.
        kind: &'static str,
        /// The events.
        events: Vec<String>,
        /// How many of them carry output; the others close the stream.
        with_output: usize,
    },
}

/// The response to an inference request in the API that has its path, if it is among `apis`. The
/// output is made from the body of the request.
pub fn generate(
    apis: &[Api],
    request: &Received,
    output: impl FnOnce(&Value) -> Output,
) -> Option<Generated> {
    let path = request.path();
    let route = Route::of(apis, path).filter(|_| request.method == "POST")?;
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    let output = output(&body);
    let is_stream = body["stream"]
        .as_bool()
        .unwrap_or(route.streams_by_default());
    if !is_stream {
        return Some(Generated::Whole(route.whole(&body, &output)?.to_string()));
    }
    let with_usage = body["stream_options"]["include_usage"] == true;
    route.stream(&output, with_usage).or_else(|| {
        let whole = route.whole(&body, &output)?;
        Some(Generated::Whole(whole.to_string()))
    })
}

/// Whether the request asks for a tool call.
pub fn offers_tools(body: &Value) -> bool {
    body["tools"]
        .as_array()
        .is_some_and(|tools| !tools.is_empty())
}

/// The routes of inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Chat,
    LmStudioChat,
    Completions,
    Embeddings,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    Messages,
}

impl Route {
    fn of(apis: &[Api], path: &str) -> Option<Self> {
        let has = |wanted: &[Api]| wanted.iter().any(|api| apis.contains(api));
        let route = match path.rsplit_once('/')?.1 {
            "completions" if path.ends_with("/chat/completions") => {
                if has(&[Api::LmStudio]) {
                    Self::LmStudioChat
                } else {
                    Self::Chat
                }
            }
            "completions" => Self::Completions,
            "embeddings" => Self::Embeddings,
            "chat" => Self::OllamaChat,
            "generate" => Self::OllamaGenerate,
            "embed" => Self::OllamaEmbed,
            "messages" => Self::Messages,
            _ => return None,
        };
        let offered = match route {
            // Ollama has OpenAI's routes, too.
            Self::Chat | Self::LmStudioChat | Self::Completions | Self::Embeddings => {
                has(&[Api::Openai, Api::LmStudio, Api::Ollama])
            }
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed => has(&[Api::Ollama]),
            Self::Messages => has(&[Api::Anthropic]),
        };
        offered.then_some(route)
    }

    fn streams_by_default(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }

    fn whole(self, body: &Value, output: &Output) -> Option<Value> {
        let inputs = body["input"].as_array().map_or(1, Vec::len);
        Some(match self {
            Self::Chat => openai::chat(output),
            Self::LmStudioChat => openai::with_stats(openai::chat(output), output),
            Self::Completions => openai::completion(output),
            Self::Embeddings => openai::embeddings(output, inputs),
            Self::OllamaChat => ollama::chat(output),
            Self::OllamaGenerate => ollama::generate(output),
            Self::OllamaEmbed => ollama::embed(output, inputs),
            Self::Messages => anthropic::message(output),
        })
    }

    fn stream(self, output: &Output, with_usage: bool) -> Option<Generated> {
        let of_output = output.pieces.len().max(1);
        let (kind, events, with_output) = match self {
            Self::Chat | Self::LmStudioChat => {
                let chunks = openai::chat_chunks(output, with_usage);
                ("text/event-stream", openai::events(&chunks), of_output)
            }
            Self::Completions => {
                let chunks = openai::completion_chunks(output, with_usage);
                ("text/event-stream", openai::events(&chunks), of_output)
            }
            Self::OllamaChat | Self::OllamaGenerate => {
                let is_chat = self == Self::OllamaChat;
                let lines = ollama::lines(output, is_chat);
                ("application/x-ndjson", lines, of_output)
            }
            Self::Messages => {
                let events = anthropic::events(output);
                // Two events come before the output.
                ("text/event-stream", events, of_output + 2)
            }
            Self::Embeddings | Self::OllamaEmbed => return None,
        };
        Some(Generated::Stream {
            kind,
            events,
            with_output,
        })
    }
}

/// A digest of 64 digits that is the same for equal names: a gateway may take models with equal
/// digests for one model with several names.
fn digest(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    format!("{:016x}", hasher.finish()).repeat(4)
}

#[cfg(test)]
mod tests;
