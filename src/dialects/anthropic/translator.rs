//! What the state of a request has to know of the Messages API.
//!
//! Contract: docs/contract/translation.md, docs/contract/dialects.md#15,
//! docs/contract/dialects.md#17

use std::time::Duration;

use olla_engine::handler::Request;

use super::recording::Recording;
use super::translate::{self, Checked, NativeTail, Prefill, ResponseContext};
use crate::config::{DialectName, Plan};
use crate::dialects::chat::dropped::Dropped;
use crate::dialects::chat::error::{BackendError, Refusal};
use crate::dialects::chat::stream::ChatStream;
use crate::dialects::chat::warning::{Translated, Warning};
use crate::dialects::chat::writer::Moment;
use crate::dialects::conversation::{
    BodyRecorder, ChatMaking, ChatRequest, CheckedRequest, Demand, NativeHead, NativeStream,
    NativeSupport, NativeVerdict, Outgoing, Translator, TranslatorFacts,
};
use crate::fleet::Endpoint;
use crate::json;
use crate::providers::CommonOperation;

/// The path of the API at an endpoint whose profile has none.
const MESSAGES_PATH: &str = "/v1/messages";

static FACTS: TranslatorFacts = TranslatorFacts {
    name: "anthropic",
    dialect: DialectName::AnthropicMessages,
    stream_type: "text/event-stream",
    // docs/contract/translation.md#8.3
    silence_max: Some(Duration::from_secs(10)),
    // docs/contract/translation.md#8.1
    puts_together: false,
};

/// One request of the Messages API.
#[derive(Debug, Default)]
pub(super) struct MessagesTranslator {
    checked: Option<Box<Checked>>,
    /// Of the last attempt that was translated.
    context: Option<Box<ResponseContext>>,
}

impl Translator for MessagesTranslator {
    fn facts(&self) -> &'static TranslatorFacts {
        &FACTS
    }

    fn check(&mut self, body: &[u8]) -> CheckedRequest {
        match translate::check(body) {
            Ok(checked) => {
                let request = CheckedRequest {
                    model: checked.model.clone(),
                    stream: checked.stream,
                    invalid: None,
                    demand: demand(&checked, body),
                };
                self.checked = Some(Box::new(checked));
                request
            }
            Err(refusal) => CheckedRequest {
                model: translate::model_of(body).unwrap_or_default(),
                invalid: Some(refusal),
                ..CheckedRequest::default()
            },
        }
    }

    fn native<'e>(&self, endpoint: &'e Endpoint) -> NativeSupport<'e> {
        match &endpoint.profile.anthropic {
            Some(support) => NativeSupport {
                enabled: support.enabled,
                path: Some(&support.messages_path),
                limitations: &support.limitations,
            },
            None => NativeSupport {
                enabled: false,
                path: Some(MESSAGES_PATH),
                limitations: &[],
            },
        }
    }

    fn is_excluded_by(&self, limitation: &str) -> bool {
        // An invalid request counts as one that uses no feature; it gets its error in any case.
        let checked = self.checked.as_ref();
        checked.is_some_and(|checked| checked.uses.are_excluded_by(limitation))
    }

    fn to_chat(&mut self, making: &ChatMaking<'_>) -> Result<Outgoing, Refusal> {
        let Some(checked) = &self.checked else {
            return Err(Refusal::invalid("the request is not valid"));
        };
        let (mut context, size) = checked.measured(making.body, making.seed);
        context.served_context = (making.served_context)();
        let room = context
            .served_context
            .map(|served| size.output_room(served));
        self.context = Some(Box::new(context));
        let Translated {
            mut body, warnings, ..
        } = translate::to_openai(making.body, checked, making.name, room)?;
        if checked.is_prefilled(making.body) {
            Prefill::of(making.kind).write(&mut body)?;
        }
        let mut dropped = Dropped::default();
        for warning in &warnings {
            if let Warning::ToolLeftOut { kind, .. } = warning {
                let kind = if kind.is_empty() { "custom" } else { kind };
                dropped.add(format!("tools.{kind}"));
            }
        }
        Ok(Outgoing::Chat(ChatRequest {
            body,
            operation: CommonOperation::Chat,
            input_tokens: size.tokens(),
            dropped,
            warnings,
        }))
    }

    fn whole(&mut self, body: &[u8], _: Moment) -> Result<Translated, Refusal> {
        let Some(context) = &self.context else {
            return Err(Refusal::backend(
                "the endpoint sent a response that was not expected",
            ));
        };
        translate::from_openai(body, context)
    }

    fn beginning(&self) -> ChatStream {
        let context = self.context.as_deref().cloned();
        translate::message_stream(context.unwrap_or_default())
    }

    fn understood(&self, error: Refusal) -> Refusal {
        match &self.context {
            Some(context) => translate::understood(error, context),
            None => translate::understood(error, &ResponseContext::default()),
        }
    }

    fn holds_native(&self, head: NativeHead) -> bool {
        head.status >= 400
    }

    fn native_verdict(&self, status: u16, body: &[u8]) -> Option<NativeVerdict> {
        if translate::is_not_spoken_here(status, body) {
            return Some(NativeVerdict::NotSpoken);
        }
        let error = BackendError::read(status, body);
        let has_late_system = self
            .checked
            .as_ref()
            .is_some_and(|checked| checked.survey.has_late_system);
        Some(if has_late_system && is_about_system(&error.message) {
            NativeVerdict::Translated
        } else if error.details.overflow.is_some()
            && !error.message.starts_with(translate::TOO_LONG)
        {
            NativeVerdict::Error(self.understood(error.into()))
        } else if is_messages_error(body) {
            NativeVerdict::Passes
        } else {
            NativeVerdict::Error(error.into())
        })
    }

    fn follower(&self) -> Option<Box<dyn NativeStream>> {
        Some(Box::<NativeTail>::default())
    }

    fn recorder(&self, request: &Request<'_>, plan: &Plan) -> Option<Box<dyn BodyRecorder>> {
        let plan = &plan.translators.anthropic.inspector;
        plan.enabled
            .then(|| Box::new(Recording::begin(plan, request)) as Box<dyn BodyRecorder>)
    }
}

/// Which endpoints a request may go to.
fn demand(checked: &Checked, body: &[u8]) -> Demand {
    if checked.survey.is_doubtful
        && let Err(refusal) = checked.translates(body)
    {
        return Demand::NativeOnly(Box::new(refusal));
    }
    if checked.survey.loses_tool {
        return Demand::NativeFirst;
    }
    Demand::Any
}

/// Whether an error is in the form of the API.
fn is_messages_error(body: &[u8]) -> bool {
    let kind = json::parse(body).and_then(|error| error.string_field("type"));
    kind.is_some_and(|kind| kind.is("error"))
}

/// Whether an error is about a system message that is not where it may be.
fn is_about_system(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("system") || message.contains("role")
}
