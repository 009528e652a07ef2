use serde_json::{Value, json};

use super::*;
use crate::dialects::responses::request::ResponsesRequest;
use crate::dialects::responses::store::KeptObject;
use crate::dialects::responses::stored_input::StoredInput;

/// A request with these members, translated.
fn translated(members: &Value, kind: &str) -> Result<(Value, Vec<String>), Refusal> {
    let mut body = json!({"model": "m", "input": "Hi"});
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let body = body.to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    let before = Before {
        response: None,
        items: Some(&ReferencedItems::new()),
    };
    let sent = to_chat(&request.fields(body.as_bytes()), before, "served", kind)?;
    let json: Value = serde_json::from_slice(&sent.body).unwrap();
    Ok((json, sent.dropped))
}

/// What is known of such a request before an endpoint is picked.
fn examined(members: &Value) -> Result<bool, Refusal> {
    let mut body = json!({"model": "m", "input": "Hi"});
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let body = body.to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    examine(&request.fields(body.as_bytes()))
}

#[test]
fn what_a_request_builds_on_may_be_all_that_is_sent() {
    for members in [
        json!({"input": [], "previous_response_id": "resp_1"}),
        json!({"input": [{"role": "assistant", "content": ""}], "previous_response_id": "resp_1"}),
        json!({"input": [{"type": "item_reference", "id": "i"}]}),
    ] {
        assert_eq!(examined(&members), Ok(false), "{members}");
    }
}

#[test]
fn fields_and_their_counterparts() {
    let hi = json!([{"role": "user", "content": "Hi"}]);
    for (members, more, dropped) in [
        (json!({}), json!({}), vec![]),
        (
            json!({"max_output_tokens": 64, "temperature": 0.5, "top_p": 1, "stream": false}),
            json!({"max_tokens": 64, "temperature": 0.5, "top_p": 1, "stream": false}),
            vec![],
        ),
        (
            json!({"stream": true}),
            json!({"stream": true, "stream_options": {"include_usage": true}}),
            vec![],
        ),
        (
            json!({"frequency_penalty": 1, "presence_penalty": 2, "seed": 3, "stop": ["x"],
                   "top_k": 4, "min_p": 0.1, "logit_bias": {"5": 1}}),
            json!({"frequency_penalty": 1, "presence_penalty": 2, "seed": 3, "stop": ["x"],
                   "top_k": 4, "min_p": 0.1, "logit_bias": {"5": 1}}),
            vec![],
        ),
        (
            json!({"store": false, "user": "u", "safety_identifier": "s", "metadata": {},
                   "client_metadata": {}, "prompt_cache_key": "k", "prompt_cache_retention": "24h",
                   "service_tier": "auto", "stream_options": {}, "truncation": "disabled",
                   "include": ["file_search_call.results"], "background": false}),
            json!({}),
            vec![],
        ),
        (
            json!({"truncation": "auto", "max_tool_calls": 3, "text": {"verbosity": "low"},
                   "top_logprobs": 2, "x_new": 1, "y": null}),
            json!({}),
            vec![
                "top_logprobs",
                "text.verbosity",
                "truncation",
                "max_tool_calls",
                "x_new",
            ],
        ),
        (
            json!({"top_logprobs": 2, "include": ["message.output_text.logprobs"]}),
            json!({"logprobs": true, "top_logprobs": 2}),
            vec![],
        ),
        (
            json!({"reasoning": {"effort": "xhigh"}}),
            json!({"reasoning_effort": "high"}),
            vec![],
        ),
        (json!({"reasoning": {"summary": "auto"}}), json!({}), vec![]),
        (
            json!({"reasoning": {"effort": "odd"}}),
            json!({}),
            vec!["reasoning.effort"],
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "strict": true,
                   "schema": {"type": "object"}, "description": null}}}),
            json!({"response_format": {"type": "json_schema", "json_schema":
                   {"name": "n", "strict": true, "schema": {"type": "object"}}}}),
            vec![],
        ),
        (
            json!({"text": {"format": {"type": "json_schema"}}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            vec![],
        ),
        (
            json!({"text": {"format": {"type": "json_object"}}}),
            json!({"response_format": {"type": "json_object"}}),
            vec![],
        ),
        (
            json!({"text": {"format": {"type": "text"}}}),
            json!({}),
            vec![],
        ),
        (
            json!({"parallel_tool_calls": true, "tool_choice": "required",
                   "tools": [{"type": "web_search"}]}),
            json!({}),
            vec!["tools.web_search"],
        ),
        (
            json!({"parallel_tool_calls": true, "tools": [{"type": "function", "name": "f"}]}),
            json!({"parallel_tool_calls": true, "tools": [{"type": "function", "function":
                   {"name": "f", "parameters": {"type": "object", "properties": {}}}}]}),
            vec![],
        ),
    ] {
        let (sent, found) = translated(&members, "lmdeploy").unwrap();
        let mut expected = json!({"model": "served", "messages": hi});
        for (key, value) in more.as_object().unwrap() {
            expected[key] = value.clone();
        }
        assert_eq!(sent, expected, "{members}");
        assert_eq!(found, dropped, "{members}");
    }
    let (sent, _) = translated(&json!({"reasoning": {"effort": "none"}}), "vllm").unwrap();
    assert_eq!(
        sent["chat_template_kwargs"],
        json!({"enable_thinking": false})
    );
    for (members, param) in [
        (
            json!({"text": {"format": {"type": "grammar"}}}),
            "text.format",
        ),
        (json!({"text": {"format": "json"}}), "text.format"),
        (json!({"tool_choice": "any"}), "tool_choice"),
        (json!({"background": true}), "background"),
        (
            json!({"input": [{"role": "assistant", "content": ""}]}),
            "input",
        ),
        (
            json!({"input": [{"type": "reasoning", "summary": []}]}),
            "input",
        ),
    ] {
        let refusal = translated(&members, "vllm").unwrap_err();
        assert_eq!(examined(&members), Err(refusal.clone()), "{members}");
        assert_eq!(
            (refusal.status, refusal.param()),
            (400, Some(param)),
            "{members}"
        );
    }
}

#[test]
fn numbers_keep_their_spelling() {
    let body = br#"{"model":"m","input":"x","temperature":1.50,"seed":12345678901234567890123}"#;
    let request = ResponsesRequest::read(body).unwrap();
    let items = ReferencedItems::new();
    let before = Before {
        response: None,
        items: Some(&items),
    };
    let sent = to_chat(&request.fields(body), before, "m", "vllm").unwrap();
    let text = String::from_utf8(sent.body).unwrap();
    assert!(text.contains(r#""temperature":1.50"#) && text.contains("12345678901234567890123"));
}

#[test]
fn a_conversation_goes_on() {
    let first = br#"{"model":"m","instructions":"Be kind.","input":"I am Ann"}"#;
    let request = ResponsesRequest::read(first).unwrap();
    let nothing = ReferencedItems::new();
    let input = StoredInput::of(&request.fields(first), first);
    let stored: Value = serde_json::from_slice(&input.items).unwrap();
    assert_eq!(stored[0]["content"][0]["text"], "I am Ann");
    let output = json!([
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
    ]).to_string();
    let object = KeptObject {
        output: 0..output.len(),
        object: output.into_bytes(),
    };
    let kept = KeptResponse::new(object, input, None);
    let second = br#"{"model":"m","input":[{"role":"user","content":"Who am I?"},{"type":"item_reference","id":"i"}]}"#;
    let request = ResponsesRequest::read(second).unwrap();
    let fields = request.fields(second);
    assert_eq!(referenced_ids(&fields), ["i"]);
    let item = br#"{"id":"i","role":"user","content":"Say."}"#.to_vec();
    let items: ReferencedItems = [("i".to_owned(), item)].into();
    let before = Before {
        response: Some(&kept),
        items: Some(&items),
    };
    let sent = to_chat(&fields, before, "m", "vllm").unwrap();
    let sent: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "user", "content": "I am Ann"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Who am I?"},
            {"role": "user", "content": "Say."},
        ])
    );
    let unknown = Before {
        items: Some(&nothing),
        ..before
    };
    let refusal = to_chat(&fields, unknown, "m", "vllm").unwrap_err();
    assert_eq!((refusal.status, refusal.param()), (404, Some("input")));
}
