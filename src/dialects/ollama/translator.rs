//! A request of Ollama's API that runs a model, for endpoints that do not speak it.
//!
//! Contract: docs/contract/dialects.md#3, docs/contract/dialects.md#10,
//! docs/contract/dialects.md#11

use super::fields::hides_thinking;
use super::messages;
use super::reply::Answering;
use super::request::{self, OllamaOperation, Task};
use super::stream::LineWriter;
use super::to_chat::{self, ForEndpoint, Written};
use crate::config::DialectName;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::stream::ChatStream;
use crate::dialects::chat::warning::Translated;
use crate::dialects::chat::writer::Moment;
use crate::dialects::conversation::{
    ChatMaking, ChatRequest, CheckedRequest, Demand, NativeSupport, Outgoing, Translator,
    TranslatorFacts,
};
use crate::fleet::Endpoint;
use crate::json::{JsonValue, SpanIndex};
use crate::providers::CommonOperation;

static FACTS: TranslatorFacts = TranslatorFacts {
    name: "ollama",
    dialect: DialectName::OllamaNative,
    stream_type: "application/x-ndjson",
    silence_max: None,
    puts_together: true,
};

/// One request, and what the translation of its response needs of it.
#[derive(Debug)]
pub(crate) struct OllamaRequest {
    task: Task,
    stream: bool,
    answering: Answering,
}

impl OllamaRequest {
    /// A request that has not been read.
    pub(crate) fn new(operation: OllamaOperation) -> Self {
        Self {
            task: Task::Chat,
            stream: false,
            answering: Answering {
                operation,
                model: String::new(),
                input_tokens: 1,
                hides_thinking: false,
                has_logprobs: false,
                seed: IdSeed([0; 16]),
            },
        }
    }

    /// Checks what a translation reads.
    fn check_fields(&self, request: JsonValue<'_>) -> Result<(), Refusal> {
        let operation = self.answering.operation;
        operation.check(request)?;
        match operation {
            OllamaOperation::Chat => messages::check_content(request),
            _ => Ok(()),
        }
    }

    /// The request for an endpoint.
    fn written(&self, request: JsonValue<'_>, making: &ChatMaking<'_>) -> Written {
        let operation = self.answering.operation;
        let endpoint = ForEndpoint {
            name: making.name,
            kind: making.kind,
            stream: self.stream,
        };
        match self.task {
            Task::Complete => to_chat::completion(request, endpoint),
            Task::Embed => to_chat::embeddings(operation, request, endpoint),
            _ => to_chat::chat(operation, request, endpoint),
        }
    }
}

impl Translator for OllamaRequest {
    fn facts(&self) -> &'static TranslatorFacts {
        &FACTS
    }

    fn check(&mut self, body: &[u8]) -> CheckedRequest {
        let mut index = SpanIndex::default();
        let request = match request::parsed(body, &mut index) {
            Ok(request) => request,
            Err(refusal) => {
                return CheckedRequest {
                    invalid: Some(refusal),
                    ..CheckedRequest::default()
                };
            }
        };
        let operation = self.answering.operation;
        let model = request::model_of(request);
        self.task = operation.task(request);
        self.stream = operation.streams(request);
        self.answering.hides_thinking = hides_thinking(request);
        let logprobs = request.field("logprobs");
        self.answering.has_logprobs = logprobs.is_some_and(JsonValue::is_true);
        self.answering.model.clone_from(&model);
        let refusal = match model.is_empty() {
            true => Some(Refusal::invalid("model is required")),
            false => self.check_fields(request).err(),
        };
        CheckedRequest {
            model,
            stream: self.stream,
            invalid: None,
            // An Ollama may know better.
            demand: refusal.map_or(Demand::Any, |refusal| Demand::NativeOnly(Box::new(refusal))),
        }
    }

    fn native<'e>(&self, endpoint: &'e Endpoint) -> NativeSupport<'e> {
        NativeSupport {
            enabled: endpoint.profile.speaks_ollama,
            path: None,
            limitations: &[],
        }
    }

    fn is_excluded_by(&self, _: &str) -> bool {
        false
    }

    fn to_chat(&mut self, making: &ChatMaking<'_>) -> Result<Outgoing, Refusal> {
        let mut index = SpanIndex::default();
        let request = request::parsed(making.body, &mut index)?;
        let operation = match self.task {
            Task::Chat => CommonOperation::Chat,
            Task::Complete => CommonOperation::Completions,
            Task::Embed => CommonOperation::Embeddings,
            Task::EmbedNothing => {
                let response = self.answering.no_embeddings(making.at);
                return Ok(Outgoing::Response(response));
            }
            Task::Load | Task::Unload => {
                let reason = match self.task {
                    Task::Unload => "unload",
                    _ => "load",
                };
                let response = self.answering.without_model(reason, making.at);
                return Ok(Outgoing::Response(response));
            }
        };
        let written = self.written(request, making);
        self.answering.input_tokens = written.size.tokens();
        self.answering.seed = making.seed;
        Ok(Outgoing::Chat(ChatRequest {
            body: written.body,
            operation,
            input_tokens: self.answering.input_tokens,
            dropped: written.dropped,
            warnings: Vec::new(),
        }))
    }

    fn whole(&mut self, body: &[u8], at: Moment) -> Result<Translated, Refusal> {
        match self.task {
            Task::Embed => self.answering.embeddings(body, at),
            _ => self.answering.whole(body, at),
        }
    }

    fn beginning(&self) -> ChatStream {
        ChatStream::new(Box::new(LineWriter::new(self.answering.clone())))
    }
}
