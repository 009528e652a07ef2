//! Reads a request: where its fields stand, what routing has to know of it, and whether it is one
//! that can be translated (docs/contract/dialects.md#5).

use std::ops::Range;

use super::objection::unsupported;
use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{self, JsonKind, JsonText, JsonValue, SpanIndex};

/// The most names of unknown fields that are kept.
const UNKNOWN_MAX: usize = 32;

/// The fields that have a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestField {
    Background,
    Conversation,
    FrequencyPenalty,
    Include,
    Input,
    Instructions,
    LogitBias,
    MaxOutputTokens,
    MaxToolCalls,
    Metadata,
    MinP,
    Model,
    ParallelToolCalls,
    PresencePenalty,
    PreviousResponseId,
    Prompt,
    PromptCacheKey,
    Reasoning,
    SafetyIdentifier,
    Seed,
    Stop,
    Store,
    Stream,
    Temperature,
    Text,
    ToolChoice,
    Tools,
    TopK,
    TopLogprobs,
    TopP,
    Truncation,
    User,
}

/// The names, in the order of [`RequestField`].
const NAMES: [&str; 32] = [
    "background",
    "conversation",
    "frequency_penalty",
    "include",
    "input",
    "instructions",
    "logit_bias",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "min_p",
    "model",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "seed",
    "stop",
    "store",
    "stream",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// Fields without an effect on what the model does.
const SILENT: [&str; 4] = [
    "client_metadata",
    "prompt_cache_retention",
    "service_tier",
    "stream_options",
];

impl RequestField {
    /// The name in the API.
    pub(super) fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or("")
    }
}

/// A request. It holds no part of the body but positions.
#[derive(Debug, Clone)]
pub(crate) struct ResponsesRequest {
    /// The model, without blanks around it; empty if none is named.
    pub(crate) model: String,
    /// The client asks for events.
    pub(crate) stream: bool,
    /// The response that it continues.
    pub(crate) previous_response_id: Option<String>,
    /// What limitations of native endpoints are about.
    pub(crate) uses: ResponsesUses,
    spans: [Option<Range<usize>>; NAMES.len()],
    unknown: Vec<String>,
    index: SpanIndex,
}

/// What servers with a Responses API of their own may lack for a request
/// (docs/contract/dialects.md#1.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResponsesUses {
    /// A tool that is no function, or a call of one.
    pub(crate) other_tools: bool,
    /// `previous_response_id`.
    pub(crate) state: bool,
}

impl ResponsesUses {
    /// Whether a limitation, by its name in a profile, excludes the request.
    pub(crate) fn exclude(self, limitation: &str) -> bool {
        match limitation {
            "function_tools_only" => self.other_tools,
            "no_state" => self.state,
            _ => false,
        }
    }
}

impl ResponsesRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON object.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Refusal::invalid("the request has no body"));
        }
        let mut index = SpanIndex::default();
        let request = json::parse_indexed(body, &mut index)
            .ok_or_else(|| Refusal::invalid("the body is not valid JSON"))?;
        if !request.is(JsonKind::Object) {
            return Err(Refusal::invalid("the body must be a JSON object"));
        }
        let mut spans = [const { None }; NAMES.len()];
        let mut unknown = Vec::new();
        for (key, value) in request.members() {
            if let Some(at) = NAMES.iter().position(|name| key.is(name)) {
                if let Some(slot) = spans.get_mut(at) {
                    *slot = (!value.is(JsonKind::Null)).then(|| value.span());
                }
            } else if !value.is(JsonKind::Null)
                && unknown.len() < UNKNOWN_MAX
                && !SILENT.iter().any(|name| key.is(name))
            {
                unknown.push(key.decode().into_owned());
            }
        }
        let mut read = Self {
            model: String::new(),
            stream: false,
            previous_response_id: None,
            uses: ResponsesUses::default(),
            spans,
            unknown,
            index,
        };
        let fields = read.fields(body);
        let model = fields.text(RequestField::Model).map(JsonText::decode);
        let model = model.map_or_else(String::new, |model| model.trim().to_owned());
        let stream = fields.is_true(RequestField::Stream);
        let uses = uses(&fields);
        let previous = fields.text(RequestField::PreviousResponseId);
        let previous = previous.map(|id| id.decode().into_owned());
        read.model = model;
        read.previous_response_id = previous;
        read.stream = stream;
        read.uses = uses;
        Ok(read)
    }

    /// The fields in the body that was read.
    pub(super) fn fields<'a>(&'a self, body: &'a [u8]) -> RequestValues<'a> {
        RequestValues {
            body,
            request: self,
        }
    }
}

fn uses(fields: &RequestValues<'_>) -> ResponsesUses {
    let is_of = |value: JsonValue<'_>, kinds: &[&str]| {
        let kind = value.string_field("type");
        kind.is_some_and(|kind| kinds.iter().any(|known| kind.is(known)))
    };
    const ITEMS: [&str; 4] = [
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "local_shell_call_output",
    ];
    ResponsesUses {
        other_tools: fields
            .elements(RequestField::Tools)
            .any(|tool| !is_of(tool, &["function"]))
            || fields
                .elements(RequestField::Input)
                .any(|item| is_of(item, &ITEMS)),
        state: fields.get(RequestField::PreviousResponseId).is_some(),
    }
}

/// The fields of a request; `null` is missing.
#[derive(Clone, Copy)]
pub(super) struct RequestValues<'a> {
    body: &'a [u8],
    request: &'a ResponsesRequest,
}

impl<'a> RequestValues<'a> {
    /// The model, without blanks around it.
    pub(super) fn model(&self) -> &'a str {
        &self.request.model
    }

    pub(super) fn get(&self, field: RequestField) -> Option<JsonValue<'a>> {
        let span = self.request.spans.get(field as usize)?.as_ref()?;
        Some(JsonValue::at(self.body, &self.request.index, span))
    }

    pub(super) fn text(&self, field: RequestField) -> Option<JsonText<'a>> {
        self.get(field)?.string()
    }

    pub(super) fn is_true(&self, field: RequestField) -> bool {
        self.get(field).is_some_and(JsonValue::is_true)
    }

    /// Whether the client lets the response be kept.
    pub(super) fn stores(&self) -> bool {
        self.get(RequestField::Store).is_none_or(JsonValue::is_true)
    }

    pub(super) fn elements(&self, field: RequestField) -> impl Iterator<Item = JsonValue<'a>> {
        self.get(field).into_iter().flat_map(JsonValue::elements)
    }

    /// Whether `include` names this.
    pub(super) fn includes(&self, what: &str) -> bool {
        self.elements(RequestField::Include)
            .any(|name| name.string().is_some_and(|name| name.is(what)))
    }

    /// Fields that nothing is known of.
    pub(super) fn unknown(&self) -> &'a [String] {
        &self.request.unknown
    }

    /// Checks what holds for every translated request.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        use RequestField as F;
        self.check_kinds()?;
        self.check_range(F::Temperature, 2.0)?;
        self.check_range(F::TopP, 1.0)?;
        if let Some(tokens) = self.get(F::MaxOutputTokens)
            && tokens.unsigned().is_none_or(|tokens| tokens == 0)
        {
            let name = F::MaxOutputTokens.name();
            return Err(invalid(name, "expected an integer of at least 1"));
        }
        self.check_objects(F::Tools)?;
        self.check_input()?;
        for (field, is_set) in [
            (F::Background, self.is_true(F::Background)),
            (F::Conversation, self.get(F::Conversation).is_some()),
            (F::Prompt, self.get(F::Prompt).is_some()),
        ] {
            if is_set {
                return Err(unsupported(field.name()));
            }
        }
        Ok(())
    }

    fn check_kinds(&self) -> Result<(), Refusal> {
        use RequestField as F;
        for (field, kind, expected) in [
            (F::Stream, JsonKind::Bool, "a boolean"),
            (F::Store, JsonKind::Bool, "a boolean"),
            (F::Background, JsonKind::Bool, "a boolean"),
            (F::ParallelToolCalls, JsonKind::Bool, "a boolean"),
            (F::Tools, JsonKind::Array, "an array"),
            (F::Instructions, JsonKind::String, "a string"),
            (F::Metadata, JsonKind::Object, "an object"),
            (F::PreviousResponseId, JsonKind::String, "a string"),
            (F::Include, JsonKind::Array, "an array"),
            (F::Reasoning, JsonKind::Object, "an object"),
            (F::Text, JsonKind::Object, "an object"),
        ] {
            if self.get(field).is_some_and(|value| !value.is(kind)) {
                return Err(invalid(field.name(), &format!("expected {expected}")));
            }
        }
        Ok(())
    }

    fn check_range(&self, field: RequestField, max: f64) -> Result<(), Refusal> {
        match self.get(field).map(JsonValue::number) {
            None => Ok(()),
            Some(Some(number)) if (0.0..=max).contains(&number) => Ok(()),
            Some(_) => Err(invalid(
                field.name(),
                &format!("expected a number from 0 to {max:.0}"),
            )),
        }
    }

    fn check_objects(&self, field: RequestField) -> Result<(), Refusal> {
        let mut elements = self.elements(field);
        match elements.position(|element| !element.is(JsonKind::Object)) {
            Some(at) => {
                let problem = format!("expected objects, element {at} is none");
                Err(invalid(field.name(), &problem))
            }
            None => Ok(()),
        }
    }

    fn check_input(&self) -> Result<(), Refusal> {
        let field = RequestField::Input;
        let continues = self.get(RequestField::PreviousResponseId).is_some();
        let is_enough = match self.get(field) {
            None => continues,
            Some(input) => match input.kind() {
                JsonKind::String => input.string().is_some_and(|text| !text.is_empty()),
                JsonKind::Array => continues || input.elements().next().is_some(),
                _ => false,
            },
        };
        if !is_enough {
            let problem = "expected a non-empty string or a non-empty array of items";
            return Err(invalid(field.name(), problem));
        }
        self.check_objects(field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(members: &Value) -> Result<(), Refusal> {
        let mut body = json!({"model": "m"});
        for (key, value) in members.as_object().unwrap() {
            body[key] = value.clone();
        }
        let body = body.to_string();
        let request = ResponsesRequest::read(body.as_bytes()).unwrap();
        request.fields(body.as_bytes()).check()
    }

    #[test]
    fn every_field_has_its_name() {
        assert_eq!(RequestField::Background.name(), "background");
        assert_eq!(RequestField::Model.name(), "model");
        assert_eq!(RequestField::User.name(), "user");
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn what_is_no_request() {
        for body in ["", " \n", "[]", "{oops"] {
            let objection = ResponsesRequest::read(body.as_bytes()).unwrap_err();
            assert_eq!(objection.status, 400);
            assert_eq!(objection.param(), None);
        }
    }

    #[test]
    fn what_names_no_model() {
        for body in [
            "{}",
            r#"{"model":" "}"#,
            r#"{"model":7}"#,
            r#"{"model":null}"#,
        ] {
            let request = ResponsesRequest::read(body.as_bytes()).unwrap();
            assert_eq!(request.model, "");
        }
    }

    #[test]
    fn what_is_checked() {
        for good in [
            json!({"input": "x"}),
            json!({"input": [{}], "temperature": 2, "top_p": 0, "max_output_tokens": 1}),
            json!({"previous_response_id": "r"}),
            json!({"previous_response_id": "r", "input": []}),
            json!({"input": "x", "background": false, "conversation": null, "prompt": null,
                   "stream": null, "tools": null, "metadata": {}, "instructions": ""}),
        ] {
            assert_eq!(checked(&good), Ok(()), "{good}");
        }
        for (members, param, code) in [
            (json!({}), "input", None),
            (json!({"input": ""}), "input", None),
            (json!({"input": []}), "input", None),
            (json!({"input": {}}), "input", None),
            (json!({"input": ["x"]}), "input", None),
            (
                json!({"input": "", "previous_response_id": "r"}),
                "input",
                None,
            ),
            (
                json!({"input": "x", "previous_response_id": 7}),
                "previous_response_id",
                None,
            ),
            (json!({"input": "x", "stream": "yes"}), "stream", None),
            (json!({"input": "x", "store": 1}), "store", None),
            (
                json!({"input": "x", "background": "no"}),
                "background",
                None,
            ),
            (
                json!({"input": "x", "parallel_tool_calls": 0}),
                "parallel_tool_calls",
                None,
            ),
            (
                json!({"input": "x", "temperature": 2.1}),
                "temperature",
                None,
            ),
            (
                json!({"input": "x", "temperature": "1"}),
                "temperature",
                None,
            ),
            (json!({"input": "x", "top_p": -0.1}), "top_p", None),
            (
                json!({"input": "x", "max_output_tokens": 0}),
                "max_output_tokens",
                None,
            ),
            (
                json!({"input": "x", "max_output_tokens": 1.5}),
                "max_output_tokens",
                None,
            ),
            (json!({"input": "x", "tools": {}}), "tools", None),
            (json!({"input": "x", "tools": [7]}), "tools", None),
            (
                json!({"input": "x", "instructions": []}),
                "instructions",
                None,
            ),
            (json!({"input": "x", "metadata": "x"}), "metadata", None),
            (
                json!({"input": "x", "background": true}),
                "background",
                Some("unsupported_parameter"),
            ),
            (
                json!({"input": "x", "conversation": "c"}),
                "conversation",
                Some("unsupported_parameter"),
            ),
            (
                json!({"input": "x", "prompt": {}}),
                "prompt",
                Some("unsupported_parameter"),
            ),
        ] {
            let objection = checked(&members).unwrap_err();
            assert_eq!(
                (objection.param(), objection.code(), objection.status),
                (Some(param), code, 400),
                "{members}"
            );
        }
    }

    #[test]
    fn what_routing_has_to_know() {
        for (members, other_tools, state) in [
            (r#""input":"x""#, false, false),
            (r#""tools":[{"type":"function","name":"f"}]"#, false, false),
            (
                r#""tools":[{"type":"function"},{"type":"web_search"}]"#,
                true,
                false,
            ),
            (r#""tools":[{"name":"f"}]"#, true, false),
            (r#""input":[{"type":"custom_tool_call"}]"#, true, false),
            (
                r#""input":[{"type":"local_shell_call_output"}]"#,
                true,
                false,
            ),
            (r#""input":[{"type":"function_call"}]"#, false, false),
            (r#""previous_response_id":"r""#, false, true),
            (r#""previous_response_id":null"#, false, false),
        ] {
            let body = format!(r#"{{"model":" m ","stream":true,"x_new":1,"user":"u",{members}}}"#);
            let request = ResponsesRequest::read(body.as_bytes()).unwrap();
            assert_eq!(
                request.uses,
                ResponsesUses { other_tools, state },
                "{members}"
            );
            assert_eq!((request.model.as_str(), request.stream), ("m", true));
            assert_eq!(request.fields(body.as_bytes()).unknown(), ["x_new"]);
            assert_eq!(request.uses.exclude("function_tools_only"), other_tools);
            assert_eq!(request.uses.exclude("no_state"), state);
            assert!(!request.uses.exclude("other"));
        }
    }
}
