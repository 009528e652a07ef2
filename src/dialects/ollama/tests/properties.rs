//! What holds for any conversation and any stream.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::request::OllamaOperation::Chat;
use super::*;

/// Odd texts: escapes, halves of pairs in JSON, line ends, other scripts.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z \"\\\\\n\u{e9}\u{1f600}{}\\[\\],:]{0,12}",
        any::<String>().prop_map(|text| text.chars().take(20).collect()),
    ]
}

fn arguments() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
        Just(json!({"n": [1, null, {}]})),
    ];
    prop::collection::btree_map("[a-z\"{}]{1,4}", value, 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// A message of the user, or an assistant message with as many calls and their results.
fn turn() -> impl Strategy<Value = Vec<Value>> {
    let call = || ("[a-c]", arguments(), any::<bool>());
    let image = prop::option::of(Just("iVBORw0KGgo="));
    let user = (text(), image).prop_map(|(text, image)| {
        let mut message = json!({"role": "user", "content": text});
        if let Some(image) = image {
            message["images"] = json!([image]);
        }
        vec![message]
    });
    let assistant = (
        text(),
        text(),
        prop::collection::vec((call(), text()), 0..3),
    );
    let assistant = assistant.prop_map(|(text, thinking, calls)| {
        let mut messages = vec![json!({"role": "assistant", "content": text})];
        if !thinking.is_empty() {
            messages[0]["thinking"] = thinking.into();
        }
        let mut listed = Vec::new();
        for ((name, arguments, as_text), result) in calls {
            let arguments = match as_text {
                true => Value::from(arguments.to_string()),
                false => arguments,
            };
            listed.push(json!({"function": {"name": &name, "arguments": arguments}}));
            messages.push(json!({"role": "tool", "tool_name": name, "content": result}));
        }
        if !listed.is_empty() {
            messages[0]["tool_calls"] = listed.into();
        }
        messages
    });
    prop_oneof![user, assistant]
}

/// The parts of a conversation that must not get lost, in order: texts, calls, results, pictures.
fn parts_of_ollamas(messages: &[Value]) -> Vec<String> {
    let mut parts = Vec::new();
    let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    for message in messages {
        match message["role"].as_str().unwrap() {
            "tool" => parts.push(format!("result {}", text(message))),
            role => {
                if !text(message).is_empty() {
                    parts.push(format!("{role} {}", text(message)));
                }
            }
        }
        for image in message["images"].as_array().into_iter().flatten() {
            parts.push(format!("image {}", image.as_str().unwrap()));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let arguments = match &call["function"]["arguments"] {
                Value::String(text) => serde_json::from_str(text).unwrap(),
                other => other.clone(),
            };
            parts.push(format!("call {} {arguments}", call["function"]["name"]));
        }
    }
    parts
}

fn parts_of_chat(messages: &[Value]) -> Vec<String> {
    let mut parts = Vec::new();
    for message in messages {
        let role = message["role"].as_str().unwrap();
        match &message["content"] {
            Value::String(text) if role == "tool" => parts.push(format!("result {text}")),
            Value::String(text) if !text.is_empty() => parts.push(format!("{role} {text}")),
            Value::Array(content) => {
                for part in content {
                    match part["type"].as_str().unwrap() {
                        "text" => parts.push(format!("{role} {}", part["text"].as_str().unwrap())),
                        _ => {
                            let url = part["image_url"]["url"].as_str().unwrap();
                            let (_, image) = url.split_once("base64,").unwrap();
                            parts.push(format!("image {image}"));
                        }
                    }
                }
            }
            _ => {}
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            let arguments = function["arguments"].as_str().unwrap();
            let arguments: Value = serde_json::from_str(arguments).unwrap();
            parts.push(format!("call {} {arguments}", function["name"]));
        }
    }
    parts
}

/// A chunk of a stream.
fn chunk() -> impl Strategy<Value = String> {
    let delta = prop_oneof![
        text().prop_map(|text| json!({ "content": text })),
        text().prop_map(|text| json!({ "reasoning_content": text })),
        (0..3_u64, prop::option::of("[f-h]"), "[{}\"a:1\\\\]{0,6}").prop_map(
            |(index, name, arguments)| {
                let function = json!({"name": name, "arguments": arguments});
                json!({"tool_calls": [{"index": index, "function": function}]})
            }
        ),
        Just(json!({})),
    ];
    delta.prop_map(|delta| json!({"choices": [{"delta": delta}]}).to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn nothing_of_a_conversation_is_lost(turns in prop::collection::vec(turn(), 1..6)) {
        let messages: Vec<Value> = turns.concat();
        let body = json!({"model": "m", "messages": &messages}).to_string();
        let (sent, dropped) = sent(Chat, &body, "vllm");
        let sent: Value = serde_json::from_str(&sent).unwrap();
        prop_assert_eq!(
            parts_of_chat(sent["messages"].as_array().unwrap()),
            parts_of_ollamas(&messages)
        );
        prop_assert_eq!(dropped, "");
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(chunks in prop::collection::vec(chunk(), 1..8)) {
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        let sent = events(&chunks);
        let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let whole = streamed(Chat, body, &[sent.as_bytes()], End::Clean);
        let bytes: Vec<&[u8]> = sent.as_bytes().chunks(1).collect();
        prop_assert_eq!(&streamed(Chat, body, &bytes, End::Clean), &whole);
        for at in (0..sent.len()).step_by(7) {
            let (one, two) = sent.as_bytes().split_at(at);
            prop_assert_eq!(&streamed(Chat, body, &[one, two], End::Clean), &whole);
        }
        let lines: Vec<Value> =
            whole.0.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, before) = lines.split_last().unwrap();
        prop_assert!(before.iter().all(|line| line["done"] == false));
        prop_assert_eq!(&last["done"], true);
        let calls = before.iter().flat_map(|line| line["message"]["tool_calls"].as_array());
        for (at, call) in calls.flatten().enumerate() {
            prop_assert_eq!(&call["function"]["index"], at);
            prop_assert!(call["function"]["arguments"].is_object());
        }
    }

    #[test]
    fn a_stream_says_what_a_document_says(
        reasoning in text(),
        content in text(),
        calls in prop::collection::vec(("[f-h]", arguments()), 0..3),
    ) {
        let calls: Vec<Value> = calls
            .into_iter()
            .enumerate()
            .map(|(at, (name, arguments))| {
                let function = json!({"name": name, "arguments": arguments.to_string()});
                json!({"index": at, "id": format!("c{at}"), "function": function})
            })
            .collect();
        let said = json!({"reasoning": reasoning, "content": content, "tool_calls": calls});
        let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let document = json!({"choices": [{"message": said}]}).to_string();
        let document = whole(Chat, body, &document).unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let sent = events(&[&json!({"choices": [{"delta": said}]}).to_string()]);
        let (out, _) = streamed(Chat, body, &[sent.as_bytes()], End::Clean);
        let (mut text, mut thinking, mut found) = (String::new(), String::new(), Vec::new());
        for line in out.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let message = &line["message"];
            text.push_str(message["content"].as_str().unwrap());
            thinking.push_str(message["thinking"].as_str().unwrap_or_default());
            found.extend(message["tool_calls"].as_array().into_iter().flatten().cloned());
        }
        let message = &document["message"];
        prop_assert_eq!(&message["content"], &text);
        prop_assert_eq!(message["thinking"].as_str().unwrap_or_default(), thinking);
        let whole = message["tool_calls"].as_array().cloned().unwrap_or_default();
        prop_assert_eq!(whole, found);
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80), stream in any::<Vec<u8>>()) {
        let (_, checked) = checked(Chat, &String::from_utf8_lossy(&body));
        prop_assert!(checked.invalid.is_some() || checked.model.len() < 100);
        let request = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let _ = streamed(Chat, request, &[&stream], End::Clean);
    }
}
