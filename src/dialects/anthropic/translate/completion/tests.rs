use serde_json::{Value as Json, json};

use super::*;

pub(crate) fn context() -> ResponseContext {
    ResponseContext {
        model: "asked".to_owned(),
        stop_sequences: vec!["END".to_owned()],
        input_tokens: 77,
        served_context: None,
        seed: IdSeed([3; 16]),
    }
}

fn message(answer: &str) -> Json {
    let translated = from_openai(answer.as_bytes(), &context())
        .unwrap_or_else(|refusal| panic!("{answer}: {refusal}"));
    serde_json::from_slice(&translated.body).unwrap()
}

/// A response with one choice: its `message`, and members beside it.
fn choice(message_json: &str, members: &str) -> Json {
    message(&format!(
        r#"{{"choices":[{{"message":{message_json}{members}}}]}}"#
    ))
}

#[test]
fn a_whole_message() {
    let answer = concat!(
        r#"{"id":"c","object":"chat.completion","model":"served","choices":[{"index":0,"#,
        r#""message":{"role":"assistant","content":"Checking.","reasoning_content":"2+2","tool_calls":["#,
        r#"{"id":"call_7","type":"function","function":{"name":"w","arguments":"{ \"n\": 1.50 }"}}]},"#,
        r#""finish_reason":"stop"},{"message":{"content":"second"}}],"#,
        r#""usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}"#
    );
    let translated = from_openai(answer.as_bytes(), &context()).unwrap();
    let text = String::from_utf8(translated.body).unwrap();
    assert!(text.contains(r#""input":{"n":1.50}"#), "{text}");
    let message: Json = serde_json::from_str(&text).unwrap();
    assert!(message["id"].as_str().unwrap().starts_with("msg_01"));
    assert_eq!(
        message,
        json!({
            "id": message["id"], "type": "message", "role": "assistant", "model": "asked",
            "content": [
                {"type": "thinking", "thinking": "2+2", "signature": ""},
                {"type": "text", "text": "Checking."},
                {"type": "tool_use", "id": "call_7", "name": "w", "input": {"n": 1.5}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 7, "output_tokens": 7,
                      "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4},
        })
    );
}

#[test]
fn content() {
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    for (message, expected) in [
        (r#"{"content":"Hi"}"#, text("Hi")),
        (
            r#"{"content":"<think>x</think>Hi"}"#,
            text("<think>x</think>Hi"),
        ),
        (
            r#"{"content":[{"type":"text","text":"a"},{"type":"zz"},{"type":"text","text":"b"}]}"#,
            text("ab"),
        ),
        (r#"{"content":null}"#, text("")),
        (r#"{"content":""}"#, text("")),
        (r#"{"content":7}"#, text("")),
        ("{}", text("")),
        (
            r#"{"content":null,"tool_calls":[],"reasoning":""}"#,
            text(""),
        ),
        (r#"{"content":null,"tool_calls":[{"id":"x"}]}"#, text("")),
        (r#"{"refusal":"I will not."}"#, text("I will not.")),
        (r#"{"refusal":"I will not.","content":"Hi"}"#, text("Hi")),
        (
            r#"{"reasoning":"r","reasoning_content":"c"}"#,
            json!([{"type": "thinking", "thinking": "r", "signature": ""}]),
        ),
        (
            r#"{"reasoning":"","reasoning_content":"c","content":"Hi"}"#,
            json!([{"type": "thinking", "thinking": "c", "signature": ""},
                   {"type": "text", "text": "Hi"}]),
        ),
    ] {
        assert_eq!(choice(message, "")["content"], expected, "{message}");
    }
}

#[test]
fn tool_inputs_are_always_objects() {
    for (arguments, input, is_readable) in [
        (r#""{\"a\":{\"b\":[1]}}""#, json!({"a": {"b": [1]}}), true),
        (r#""{}""#, json!({}), true),
        (r#"{"a":1}"#, json!({"a": 1}), true),
        (r#""""#, json!({}), false),
        ("null", json!({}), false),
        (r#""{\"a\":""#, json!({}), false),
        (r#""[1]""#, json!({}), false),
        (r#""null""#, json!({}), false),
        ("7", json!({}), false),
    ] {
        let answer = format!(
            r#"{{"choices":[{{"message":{{"tool_calls":[{{"id":"c","function":{{"name":"f","arguments":{arguments}}}}}]}}}}]}}"#
        );
        let translated = from_openai(answer.as_bytes(), &context()).unwrap();
        let message: Json = serde_json::from_slice(&translated.body).unwrap();
        assert_eq!(message["content"][0]["input"], input, "{arguments}");
        assert_eq!(translated.warnings.is_empty(), is_readable, "{arguments}");
    }
}

#[test]
fn ids_are_made_where_they_are_missing() {
    let message = choice(
        r#"{"tool_calls":[{"function":{"name":"a"}},{"id":"","function":{"name":"b"}}]}"#,
        "",
    );
    let id = |at: usize| message["content"][at]["id"].as_str().unwrap().to_owned();
    assert!(id(0).starts_with("toolu_") && id(0).len() == 28);
    assert_ne!(id(0), id(1));
}

#[test]
fn stop_reasons() {
    const CALL: &str = r#"{"tool_calls":[{"id":"c","function":{"name":"f"}}]}"#;
    const TEXT: &str = r#"{"content":"x"}"#;
    for (message, members, reason, sequence) in [
        (TEXT, r#","finish_reason":"stop""#, "end_turn", None),
        (TEXT, r#","finish_reason":null"#, "end_turn", None),
        (TEXT, "", "end_turn", None),
        (TEXT, r#","finish_reason":"zz""#, "end_turn", None),
        (TEXT, r#","finish_reason":"tool_calls""#, "end_turn", None),
        (TEXT, r#","finish_reason":"length""#, "max_tokens", None),
        (CALL, r#","finish_reason":"length""#, "max_tokens", None),
        (CALL, r#","finish_reason":"tool_calls""#, "tool_use", None),
        (CALL, r#","finish_reason":"stop""#, "tool_use", None),
        (
            CALL,
            r#","finish_reason":"content_filter""#,
            "tool_use",
            None,
        ),
        (
            CALL,
            r#","finish_reason":"stop","stop_reason":"END""#,
            "tool_use",
            None,
        ),
        (
            TEXT,
            r#","finish_reason":"content_filter""#,
            "refusal",
            None,
        ),
        (
            r#"{"refusal":"no"}"#,
            r#","finish_reason":"stop""#,
            "refusal",
            None,
        ),
        (
            TEXT,
            r#","finish_reason":"stop","stop_reason":"END""#,
            "stop_sequence",
            Some("END"),
        ),
        (
            TEXT,
            r#","finish_reason":"stop","matched_stop":"END""#,
            "stop_sequence",
            Some("END"),
        ),
        (
            TEXT,
            r#","finish_reason":"stop","stop_reason":"zz""#,
            "end_turn",
            None,
        ),
        (
            TEXT,
            r#","finish_reason":"stop","matched_stop":128009"#,
            "end_turn",
            None,
        ),
        (
            TEXT,
            r#","finish_reason":"zz","stop_reason":"END""#,
            "end_turn",
            None,
        ),
    ] {
        let message = choice(message, members);
        assert_eq!(message["stop_reason"], reason, "{members}");
        assert_eq!(message["stop_sequence"], json!(sequence), "{members}");
    }
}

#[test]
fn usage() {
    for (message_json, usage, expected) in [
        (
            r#"{"content":"x"}"#,
            r#"{"prompt_tokens":11,"completion_tokens":7}"#,
            (11, 7, 0),
        ),
        (
            r#"{"content":"x"}"#,
            r#"{"prompt_tokens":0,"completion_tokens":7}"#,
            (0, 7, 0),
        ),
        (r#"{"content":"x"}"#, "null", (77, 1, 0)),
        (
            r#"{"content":"12345678"}"#,
            r#"{"prompt_tokens":11,"completion_tokens":0}"#,
            (11, 2, 0),
        ),
        (r#"{"content":null}"#, "{}", (77, 0, 0)),
        (
            r#"{"reasoning":"1234","content":"12345678","tool_calls":[{"function":{"name":"ab","arguments":"{\"a\":1}"}}]}"#,
            "null",
            (77, 5, 0),
        ),
        (
            r#"{"content":"x"}"#,
            r#"{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9}}"#,
            (0, 1, 5),
        ),
        (
            r#"{"content":"x"}"#,
            r#"{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":null}"#,
            (5, 1, 0),
        ),
        (
            r#"{"content":"x"}"#,
            r#"{"prompt_tokens":"5","completion_tokens":1}"#,
            (77, 1, 0),
        ),
    ] {
        let message = message(&format!(
            r#"{{"choices":[{{"message":{message_json}}}],"usage":{usage}}}"#
        ));
        let counted = |key: &str| message["usage"][key].as_u64().unwrap();
        assert_eq!(
            (
                counted("input_tokens"),
                counted("output_tokens"),
                counted("cache_read_input_tokens")
            ),
            expected,
            "{message_json} {usage}"
        );
        assert_eq!(counted("cache_creation_input_tokens"), 0);
    }
}

#[test]
fn the_models_name() {
    // docs/contract/dialects.md#15
    for model in [
        r#""model":"served","#,
        r#""model":"","#,
        r#""model":7,"#,
        "",
    ] {
        let message = message(&format!(r#"{{{model}"choices":[{{"message":{{}}}}]}}"#));
        assert_eq!(message["model"], "asked", "{model}");
    }
}

#[test]
fn what_is_no_answer() {
    for (answer, message) in [
        ("", "the endpoint's response is not a chat completion"),
        (
            "nonsense",
            "the endpoint's response is not a chat completion",
        ),
        (
            "data: {}\n\n",
            "the endpoint's response is not a chat completion",
        ),
        ("[]", "the endpoint's response is not a chat completion"),
        ("{}", "the endpoint's response is not a chat completion"),
        (
            r#"{"choices":[]}"#,
            "the endpoint's response is not a chat completion",
        ),
        (
            r#"{"choices":null}"#,
            "the endpoint's response is not a chat completion",
        ),
        (
            r#"{"choices":[{}]}"#,
            "the endpoint's response is not a chat completion",
        ),
        (
            r#"{"choices":[{"message":null}]}"#,
            "the endpoint's response is not a chat completion",
        ),
        (
            r#"{"choices":[{"message":"x"}]}"#,
            "the endpoint's response is not a chat completion",
        ),
        (r#"{"error":{"message":"out of memory"}}"#, "out of memory"),
        (r#"{"object":"error","message":"too long"}"#, "too long"),
    ] {
        let refusal = from_openai(answer.as_bytes(), &context()).unwrap_err();
        assert_eq!(
            (
                refusal.status,
                crate::dialects::anthropic::translate::error_kind(refusal.status)
            ),
            (502, "api_error"),
            "{answer}"
        );
        assert_eq!(refusal.message, message, "{answer}");
    }
}
