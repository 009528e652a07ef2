//! What requests become.

use super::super::request::OllamaOperation::{Chat, Embed, Embeddings, Generate};
use super::*;
use crate::dialects::conversation::Demand;

const HI: &str = r#""model":"m","messages":[{"role":"user","content":"hi"}]"#;
const SENT: &str = r#"{"model":"own/name","messages":[{"role":"user","content":"hi"}]"#;
const STREAM: &str = r#","stream":true,"stream_options":{"include_usage":true}"#;

/// The members that a chat request has besides, for a type, and the names of what has no effect.
fn members(fields: &str, kind: &str) -> (String, String) {
    let (body, dropped) = sent(Chat, &format!("{{{HI}{fields}}}"), kind);
    let inner = body
        .strip_prefix(SENT)
        .and_then(|it| it.strip_prefix(STREAM));
    let inner = inner.unwrap_or_else(|| panic!("{body}"));
    (inner.strip_suffix('}').unwrap().to_owned(), dropped)
}

#[test]
fn a_chat_streams_by_default() {
    assert_eq!(members("", "vllm"), (String::new(), String::new()));
    let plain = sent(Chat, &format!(r#"{{{HI},"stream":false}}"#), "vllm").0;
    assert_eq!(plain, format!(r#"{SENT},"stream":false}}"#));
}

#[test]
fn options_have_their_places() {
    let options = |options: &str, kind| members(&format!(r#","options":{{{options}}}"#), kind);
    let rows = [
        (
            r#""temperature":0.70,"top_p":1e-1,"seed":7,"stop":["a","b"],"top_k":40,"min_p":0.0"#,
            r#","temperature":0.70,"top_p":1e-1,"seed":7,"stop":["a","b"],"top_k":40,"min_p":0.0"#,
            "",
        ),
        (
            r#""presence_penalty":1,"frequency_penalty":2"#,
            r#","presence_penalty":1,"frequency_penalty":2"#,
            "",
        ),
        (r#""num_predict":128"#, r#","max_tokens":128"#, ""),
        (r#""num_predict":-1"#, "", ""),
        (r#""num_predict":0"#, "", ""),
        (
            r#""num_ctx":4096,"num_gpu":1,"use_mmap":true,"numa":false"#,
            "",
            "",
        ),
        (
            r#""mirostat":2,"typical_p":1,"temperature":null"#,
            "",
            "options.mirostat, options.typical_p",
        ),
    ];
    for (given, sent, dropped) in rows {
        let found = options(given, "vllm");
        assert_eq!(found, (sent.to_owned(), dropped.to_owned()), "{given}");
    }
    for (kind, name) in [
        ("vllm", "repetition_penalty"),
        ("lmdeploy", "repetition_penalty"),
        ("llamacpp", "repeat_penalty"),
        ("lemonade", "repeat_penalty"),
        ("openai-compatible", ""),
        ("litellm", ""),
    ] {
        let (sent, dropped) = options(r#""repeat_penalty":1.10"#, kind);
        if name.is_empty() {
            assert_eq!((&*sent, &*dropped), ("", "options.repeat_penalty"));
        } else {
            assert_eq!(sent, format!(r#","{name}":1.10"#));
            assert_eq!(dropped, "");
        }
    }
}

#[test]
fn other_fields_have_theirs() {
    let rows = [
        (
            r#","format":"json""#,
            r#","response_format":{"type":"json_object"}"#,
            "",
        ),
        (
            r#","format":{"type": "object"}"#,
            concat!(
                r#","response_format":{"type":"json_schema","json_schema":{"name":"output","#,
                r#""schema":{"type":"object"},"strict":true}}"#
            ),
            "",
        ),
        (
            r#","format":"","keep_alive":"5m","truncate":true,"shift":1"#,
            "",
            "",
        ),
        (r#","think":true"#, "", ""),
        (
            r#","think":false"#,
            r#","reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":false}"#,
            "",
        ),
        (r#","think":"max""#, r#","reasoning_effort":"high""#, ""),
        (
            r#","logprobs":true,"top_logprobs":3"#,
            r#","logprobs":true,"top_logprobs":3"#,
            "",
        ),
        (
            r#","template":"x","context":[1],"wizard":1,"other":null,"empty":"""#,
            "",
            "context, template, wizard",
        ),
        (
            r#","tools":[{"function":{"name":"f"}}]"#,
            concat!(
                r#","tools":[{"type":"function","function":{"name":"f","#,
                r#""parameters":{"type":"object","properties":{}}}}]"#
            ),
            "",
        ),
        (
            concat!(
                r#","tools":[{"type":"function","function":{"description":"d","name":"f","#,
                r#""parameters":{"type":"object","properties":{"a": {}}}}},{"type":"odd"}]"#
            ),
            concat!(
                r#","tools":[{"type":"function","function":{"description":"d","name":"f","#,
                r#""parameters":{"type":"object","properties":{"a":{}}}}}]"#
            ),
            "tools",
        ),
        (r#","tools":[{"type":"odd"}]"#, "", "tools"),
        (r#","tools":[]"#, "", ""),
    ];
    for (given, sent, dropped) in rows {
        let found = members(given, "vllm");
        assert_eq!(found, (sent.to_owned(), dropped.to_owned()), "{given}");
    }
    let (sent, _) = members(r#","think":false"#, "openai-compatible");
    assert_eq!(sent, r#","reasoning_effort":"none""#);
}

#[test]
fn a_picture_of_the_assistant_has_no_effect() {
    let said = r#"{"role":"assistant","content":"a","images":["aGk="]}"#;
    let body = format!(r#"{{"model":"m","stream":false,"messages":[{said}]}}"#);
    let (body, dropped) = sent(Chat, &body, "vllm");
    assert!(
        body.contains(r#"[{"role":"assistant","content":"a"}]"#),
        "{body}"
    );
    assert_eq!(dropped, "messages.images");
}

#[test]
fn a_prompt_is_a_chat_or_a_completion() {
    let rows = [
        (
            r#""system":"s","prompt":"p","think":"low""#,
            concat!(
                r#"{"model":"own/name","messages":[{"role":"system","content":"s"},"#,
                r#"{"role":"user","content":"p"}],"stream":false,"reasoning_effort":"low"}"#
            ),
            "",
        ),
        (
            r#""prompt":"p","raw":true,"system":"s","format":"json","options":{"top_k":1}"#,
            r#"{"model":"own/name","prompt":"p","stream":false,"top_k":1}"#,
            "format, system",
        ),
        (
            r#""prompt":"p","suffix":"q""#,
            r#"{"model":"own/name","prompt":"p","suffix":"q","stream":false}"#,
            "",
        ),
    ];
    for (given, body, dropped) in rows {
        let request = format!(r#"{{"model":"m","stream":false,{given}}}"#);
        let found = sent(Generate, &request, "vllm");
        assert_eq!(found, (body.to_owned(), dropped.to_owned()), "{given}");
    }
}

#[test]
fn embeddings_are_an_array() {
    let rows = [
        (
            Embed,
            r#""input":"a","truncate":true,"options":{"x":1}"#,
            r#"["a"]"#,
            "",
        ),
        (
            Embed,
            r#""input":["a","b"],"dimensions":8"#,
            r#"["a","b"]"#,
            r#","dimensions":8"#,
        ),
        (Embed, r#""input":["a"],"dimensions":0"#, r#"["a"]"#, ""),
        (Embeddings, r#""prompt":"a""#, r#"["a"]"#, ""),
    ];
    for (operation, given, input, more) in rows {
        let (body, dropped) = sent(operation, &format!(r#"{{"model":"m",{given}}}"#), "vllm");
        let expected =
            format!(r#"{{"model":"own/name","input":{input},"encoding_format":"float"{more}}}"#);
        assert_eq!(body, expected);
        assert_eq!(dropped, "");
    }
}

#[test]
fn some_requests_run_no_model() {
    let response = |operation, given: &str| {
        let body = format!(r#"{{"model":"m"{given}}}"#);
        match made(operation, &body, "vllm").1 {
            Outgoing::Response(response) => String::from_utf8(response).unwrap(),
            Outgoing::Chat(chat) => panic!("{chat:?}"),
        }
    };
    let begin = r#"{"model":"m","created_at":"2023-11-14T22:13:20.125Z","#;
    assert_eq!(
        response(Chat, ""),
        format!(
            "{begin}{}",
            r#""message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}"#
        )
    );
    assert_eq!(
        response(Generate, r#","keep_alive":0,"stream":true"#),
        format!(
            "{begin}{}",
            r#""response":"","done":true,"done_reason":"unload"}"#
        )
    );
    assert_eq!(
        response(Embed, r#","input":[]"#),
        concat!(
            r#"{"model":"m","embeddings":[],"total_duration":2000000000,"#,
            r#""load_duration":0,"prompt_eval_count":0}"#
        )
    );
    assert_eq!(
        response(Embeddings, r#","prompt":"""#),
        r#"{"embedding":[]}"#
    );
}

#[test]
fn only_an_ollama_gets_what_cannot_be_translated() {
    let rows = [
        (
            Chat,
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            "model is required",
        ),
        (Chat, r#"{"model":7}"#, "model is required"),
        (
            Chat,
            r#"{"model":"m","messages":7}"#,
            "messages: expected an array of messages",
        ),
        (Embed, r#"{"model":"m","input":7}"#, "invalid input type"),
    ];
    for (operation, body, message) in rows {
        let (_, checked) = checked(operation, body);
        assert!(checked.invalid.is_none());
        match checked.demand {
            Demand::NativeOnly(refusal) => assert_eq!(refusal.message, message),
            other => panic!("{other:?}"),
        }
    }
    for (body, message) in [("", "missing request body"), ("[1]", "the request body: ")] {
        let refusal = checked(Chat, body).1.invalid.unwrap();
        assert_eq!(refusal.status, 400);
        assert!(refusal.message.starts_with(message), "{refusal}");
    }
}
