//! Generated conversations, streams and requests (docs/contract/dialects.md#8.3).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::input::ReferencedItems;
use super::reply::tests::{context, seed_of};
use super::reply::whole;
use super::request::ResponsesRequest;
use super::store::{KeptObject, KeptResponse};
use super::stored_input::StoredInput;
use super::to_chat::{Before, to_chat};
use crate::dialects::chat::writer::Moment;

/// The tools of all generated requests: what they are called by, and the endpoint's name.
pub(super) fn tools() -> Value {
    json!([
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "patch"},
        {"type": "local_shell"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]},
    ])
}

/// The endpoint's names of them.
pub(super) const NAMES: [&str; 4] = ["f", "patch", "local_shell", "ns__g"];

/// A call by the endpoint.
#[derive(Debug, Clone)]
struct AnyCall {
    tool: usize,
    text: String,
    result: String,
    image: bool,
}

impl AnyCall {
    fn arguments(&self) -> String {
        match self.tool {
            1 => json!({"input": self.text}).to_string(),
            2 => json!({"command": ["echo", self.text], "timeout_ms": 5, "env": {}}).to_string(),
            _ => json!({"a": self.text, "b": 1.50}).to_string(),
        }
    }
}

/// What happens in a conversation.
#[derive(Debug, Clone)]
enum Step {
    User {
        text: String,
        image: bool,
    },
    Developer(String),
    Model {
        thought: String,
        text: String,
        calls: Vec<AnyCall>,
    },
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zé😀\"\\\\\n\u{1}\u{2028}{}:]{0,6}"
}

fn any_call() -> impl Strategy<Value = AnyCall> {
    (0..NAMES.len(), any_text(), any_text(), any::<bool>()).prop_map(
        |(tool, text, result, image)| AnyCall {
            tool,
            text,
            result,
            image,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let model = (
        any_text(),
        any_text(),
        prop::collection::vec(any_call(), 0..3),
    );
    prop_oneof![
        3 => (any_text(), any::<bool>()).prop_map(|(text, image)| Step::User { text, image }),
        1 => "[a-z]{1,4}".prop_map(Step::Developer),
        4 => model.prop_map(|(thought, text, calls)| Step::Model { thought, text, calls }),
    ]
}

/// The conversation as an endpoint should see it, and as a client keeps it.
#[derive(Default)]
struct Talk {
    chat: Vec<Value>,
    input: Vec<Value>,
    /// Where the items of each response begin, and where they end.
    responses: Vec<(usize, usize)>,
    calls: usize,
}

impl Talk {
    fn step(&mut self, step: &Step) {
        match step {
            Step::User { text, image } => {
                self.chat.push(json!({"role": "user", "content": if *image {
                    let mut parts = vec![json!({"type": "text", "text": text})];
                    if text.is_empty() {
                        parts.clear();
                    }
                    parts.push(json!({"type": "image_url", "image_url": {"url": "data:x"}}));
                    json!(parts)
                } else {
                    json!(text)
                }}));
                let mut content = vec![json!({"type": "input_text", "text": text})];
                if *image {
                    content.push(json!({"type": "input_image", "image_url": "data:x"}));
                }
                self.input
                    .push(json!({"type": "message", "role": "user", "content": content}));
            }
            Step::Developer(text) => {
                // In front of everything it is a system message; that is tested by tables.
                if self.chat.is_empty() {
                    return;
                }
                let content = json!([{"type": "input_text", "text": text}]);
                self.input
                    .push(json!({"role": "developer", "content": content}));
                self.chat.push(json!({"developer": text}));
            }
            Step::Model {
                thought,
                text,
                calls,
            } => self.model(thought, text, calls),
        }
    }

    fn model(&mut self, thought: &str, text: &str, calls: &[AnyCall]) {
        if text.is_empty() && calls.is_empty() {
            return;
        }
        if self
            .chat
            .last()
            .is_some_and(|last| last["role"] == "assistant")
        {
            // Two in a row would be one message.
            self.step(&Step::User {
                text: "go".to_owned(),
                image: false,
            });
        }
        let named: Vec<(String, &AnyCall)> = calls
            .iter()
            .map(|call| {
                self.calls += 1;
                (format!("call{}", self.calls), call)
            })
            .collect();
        let tool_calls: Vec<Value> = named
            .iter()
            .map(|(id, call)| {
                json!({
                    "id": id, "type": "function",
                    "function": {"name": NAMES[call.tool], "arguments": call.arguments()},
                })
            })
            .collect();
        let mut message =
            json!({"role": "assistant", "content": text, "reasoning_content": thought});
        if !tool_calls.is_empty() {
            message["tool_calls"] = json!(tool_calls);
        }
        let document = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
        let request = json!({"tools": tools(), "include": ["reasoning.encrypted_content"]});
        let reply = whole(
            document.to_string().as_bytes(),
            (context(&request), None),
            Moment::default(),
        )
        .unwrap();
        let object: Value = serde_json::from_slice(&reply.body).unwrap();
        let begin = self.input.len();
        self.input
            .extend(object["output"].as_array().unwrap().iter().cloned());
        self.responses.push((begin, self.input.len()));
        if text.is_empty() {
            message["content"] = Value::Null;
        }
        self.chat.push(message);
        let mut images = Vec::new();
        for (id, call) in named {
            let kind = [
                "function_call",
                "custom_tool_call",
                "local_shell_call",
                "function_call",
            ];
            let mut output = json!(call.result);
            if call.image {
                output = json!([{"type": "input_text", "text": call.result},
                                {"type": "input_image", "image_url": "data:y"}]);
                images.push(json!({"type": "text", "text": format!("Image of tool result {id}:")}));
                images.push(json!({"type": "image_url", "image_url": {"url": "data:y"}}));
            }
            self.input
                .push(json!({"type": format!("{}_output", kind[call.tool]),
                                   "call_id": id, "output": output}));
            self.chat
                .push(json!({"role": "tool", "content": call.result, "tool_call_id": id}));
        }
        if !images.is_empty() {
            self.chat
                .push(json!({"role": "user", "content": images, "of_results": true}));
        }
    }

    /// The messages that an endpoint gets.
    fn expected(&self) -> Vec<Value> {
        let last_user = self
            .chat
            .iter()
            .rposition(|message| message["role"] == "user" && message["of_results"].is_null());
        let mut messages: Vec<Value> = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let mut pending = self.chat.iter().enumerate().peekable();
        while let Some((at, message)) = pending.next() {
            if let Some(text) = message["developer"].as_str() {
                texts.push(text.to_owned());
                // Between calls and their results it moves behind the results; here none stands
                // there, because results follow their calls at once.
                if pending
                    .peek()
                    .is_some_and(|(_, next)| !next["developer"].is_null())
                {
                    continue;
                }
                let folded = texts.join("\n\n");
                texts.clear();
                fold(
                    &mut messages,
                    &folded,
                    pending
                        .peek()
                        .map(|(_, next)| *next)
                        .is_some_and(|next| next["role"] == "user"),
                );
                continue;
            }
            let mut message = message.clone();
            let object = message.as_object_mut().unwrap();
            object.remove("of_results");
            let is_old = last_user.is_some_and(|user| at < user);
            let thought = object.get("reasoning_content").and_then(Value::as_str);
            if is_old || thought == Some("") {
                object.remove("reasoning_content");
            }
            if let Some(in_front) = messages
                .last_mut()
                .filter(|last| last["in_front"].is_string())
            {
                let text = format!("{}\n\n", in_front["in_front"].as_str().unwrap());
                put_in_front(&mut message, &text);
                messages.pop();
            }
            messages.push(message);
        }
        messages
    }
}

/// A system message in mid-conversation becomes text of the user.
fn fold(messages: &mut Vec<Value>, text: &str, before_user: bool) {
    if before_user {
        messages.push(json!({"in_front": text}));
        return;
    }
    match messages.last_mut().filter(|last| last["role"] == "user") {
        Some(last) => match &mut last["content"] {
            Value::String(own) if own.is_empty() => own.push_str(text),
            Value::String(own) => own.push_str(&format!("\n\n{text}")),
            Value::Array(parts) => match parts.last_mut() {
                Some(part) if part["type"] == "text" => {
                    part["text"] = json!(format!("{}\n\n{text}", part["text"].as_str().unwrap()));
                }
                _ => parts.push(json!({"type": "text", "text": format!("\n\n{text}")})),
            },
            _ => unreachable!(),
        },
        None => messages.push(json!({"role": "user", "content": text})),
    }
}

fn put_in_front(message: &mut Value, text: &str) {
    match &mut message["content"] {
        Value::String(own) => *own = format!("{text}{own}"),
        Value::Array(parts) => match parts.iter_mut().find(|part| part["type"] == "text") {
            Some(part) => part["text"] = json!(format!("{text}{}", part["text"].as_str().unwrap())),
            None => parts.insert(0, json!({"type": "text", "text": text})),
        },
        _ => unreachable!(),
    }
}

/// Sends items after what is kept.
fn sent(input: &[Value], kept: Option<&KeptResponse>) -> Option<Vec<Value>> {
    let mut body = json!({"model": "m", "input": input, "tools": tools()});
    if kept.is_some() {
        body["previous_response_id"] = json!("resp_0");
    }
    let body = body.to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    let before = Before {
        response: kept,
        items: Some(&ReferencedItems::new()),
    };
    let sent = to_chat(&request.fields(body.as_bytes()), before, "m", "vllm").ok()?;
    let mut sent: Value = serde_json::from_slice(&sent.body).unwrap();
    let messages = sent["messages"].as_array_mut().unwrap();
    Some(std::mem::take(messages))
}

/// A response that keeps these items as its input and output.
fn kept(
    input: &[Value],
    output: &[Value],
    parent: Option<std::sync::Arc<KeptResponse>>,
) -> KeptResponse {
    let body = json!({"model": "m", "input": input, "previous_response_id": "resp_0"}).to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    let input = StoredInput::of(&request.fields(body.as_bytes()), body.as_bytes());
    let output = json!(output).to_string().into_bytes();
    let object = KeptObject {
        output: 0..output.len(),
        object: output,
    };
    KeptResponse::new(object, input, parent)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    /// What the client sends back, whole or by the response before, reaches the endpoint as the
    /// endpoint said it.
    #[test]
    fn conversations_come_back(steps in prop::collection::vec(any_step(), 1..8)) {
        let mut talk = Talk::default();
        talk.step(&Step::User { text: "x".to_owned(), image: false });
        steps.iter().for_each(|step| talk.step(step));
        let expected = talk.expected();
        let whole = sent(&talk.input, None).unwrap();
        prop_assert_eq!(&whole, &expected, "{:#?}", talk.input);

        let mut before = None;
        let mut from = 0;
        for (begin, end) in &talk.responses {
            let response = kept(&talk.input[from..*begin], &talk.input[*begin..*end], before.take());
            before = Some(std::sync::Arc::new(response));
            from = *end;
        }
        let continued = sent(&talk.input[from..], before.as_deref()).unwrap();
        prop_assert_eq!(&continued, &expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn any_json_is_translated_to_json_or_refused(
        value in crate::json::tests::any_json(),
        keys in prop::collection::vec((0..KEYS.len(), crate::json::tests::any_json()), 0..5),
    ) {
        let members: String = keys.iter()
            .map(|(key, value)| format!(r#","{}":{value}"#, KEYS[*key])).collect();
        for kind in [
            "message", "function_call", "custom_tool_call", "local_shell_call",
            "function_call_output", "reasoning", "function", "custom", "namespace", "allowed_tools",
            "input_text", "input_image", "input_file", "json_schema",
        ] {
            let item = format!(r#"{{"type":"{kind}"{members}}}"#);
            for body in [
                format!(r#"{{"model":"m","input":[{item}],"tools":[{item}],"tool_choice":{item},"text":{{"format":{item}}}}}"#),
                format!(r#"{{"model":"m","input":[{{"role":"user","content":[{item}]}}],"reasoning":{item},"x":{value}}}"#),
                format!(r#"{{"model":"m","input":"x","tools":[{item},{value}],"text":{value}}}"#),
                format!(r#"{{"model":"m","input":{value}}}"#),
            ] {
                let request = ResponsesRequest::read(body.as_bytes()).unwrap();
                let fields = request.fields(body.as_bytes());
                let before = Before { response: None, items: Some(&ReferencedItems::new()) };
                if let Ok(sent) = to_chat(&fields, before, "n", "vllm") {
                    let context = sent.context(&fields, seed_of(1));
                    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
                    prop_assert!(!sent["messages"].as_array().unwrap().is_empty());
                    let document = format!(r#"{{"choices":[{{"message":{{"content":{value},"tool_calls":[{{"function":{item}}}]}}}}]}}"#);
                    if let Ok(reply) = whole(document.as_bytes(), (context, None), Moment::default()) {
                        prop_assert!(serde_json::from_slice::<Value>(&reply.body).is_ok());
                    }
                }
                let input = StoredInput::of(&fields, body.as_bytes());
                prop_assert!(serde_json::from_slice::<Value>(&input.items).is_ok());
            }
        }
    }
}

const KEYS: [&str; 18] = [
    "role",
    "content",
    "name",
    "namespace",
    "arguments",
    "input",
    "call_id",
    "id",
    "output",
    "action",
    "summary",
    "encrypted_content",
    "text",
    "image_url",
    "file_data",
    "tools",
    "parameters",
    "mode",
];
