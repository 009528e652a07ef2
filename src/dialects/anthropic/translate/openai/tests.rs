use serde_json::{Value as Json, json};

use super::*;
use crate::dialects::anthropic::translate::check;
use crate::dialects::chat::warning::Warning;

fn translated(body: &str) -> Result<Translated, Refusal> {
    let checked = check(body.as_bytes()).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
    to_openai(body.as_bytes(), &checked, &checked.model, None)
}

/// A request with these members besides the required ones.
fn with(members: &str) -> Json {
    let body = format!(
        r#"{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":"x"}}],{members}}}"#
    );
    sent(&body)
}

fn sent(body: &str) -> Json {
    let translated = translated(body).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
    serde_json::from_slice(&translated.body).unwrap()
}

fn conversation(messages: &str) -> String {
    format!(r#"{{"model":"m","max_tokens":5,"messages":{messages}}}"#)
}

/// The messages that a conversation of one message becomes.
fn one(role: &str, content: &str) -> Json {
    let message =
        format!(r#"[{{"role":"{role}","content":{content}}},{{"role":"user","content":"."}}]"#);
    let mut messages = sent(&conversation(&message))["messages"].take();
    let list = messages.as_array_mut().unwrap();
    assert_eq!(list.pop(), Some(json!({"role": "user", "content": "."})));
    messages
}

fn refused(body: &str) -> String {
    let refusal = translated(body).unwrap_err();
    assert_eq!(refusal.status, 400);
    refusal.message
}

#[test]
fn plain_fields() {
    let body = concat!(
        r#"{ "model":"m", "max_tokens": 100, "temperature":0.50, "top_p":9e-1, "top_k":40,"#,
        r#" "stop_sequences":["E\u004eD"], "metadata":{"user_id":"u"}, "thinking":{}, "zz":1,"#,
        r#" "service_tier":"x", "messages":[{"role":"user","content":"Hello","cache_control":1}]}"#
    );
    let translated = translated(body).unwrap();
    assert_eq!(
        String::from_utf8(translated.body).unwrap(),
        concat!(
            r#"{"model":"m","messages":[{"role":"user","content":"Hello"}],"max_tokens":100,"#,
            r#""temperature":0.50,"top_p":9e-1,"top_k":40,"stop":["END"],"stream":false}"#
        )
    );
    assert!(translated.warnings.is_empty());
}

#[test]
fn the_backends_name_is_sent() {
    let body = conversation(r#"[{"role":"user","content":"m"}]"#);
    let checked = check(body.as_bytes()).unwrap();
    let translated = to_openai(body.as_bytes(), &checked, "Qwen \"3\"", None).unwrap();
    let sent: Json = serde_json::from_slice(&translated.body).unwrap();
    assert_eq!(sent["model"], "Qwen \"3\"");
    assert_eq!(sent["messages"][0]["content"], "m");
}

#[test]
fn no_more_tokens_are_asked_for_than_fit() {
    let body = conversation(r#"[{"role":"user","content":"m"}]"#);
    let checked = check(body.as_bytes()).unwrap();
    for (room, sent) in [(None, 5), (Some(4), 4), (Some(5), 5), (Some(6), 5)] {
        let translated = to_openai(body.as_bytes(), &checked, "m", room).unwrap();
        let body: Json = serde_json::from_slice(&translated.body).unwrap();
        assert_eq!(body["max_tokens"], sent, "{room:?}");
    }
}

#[test]
fn the_beginning_of_an_answer_is_continued_or_refused() {
    let user = r#"{"role":"user","content":"m"}"#;
    for (last, prefilled) in [
        (r#"{"role":"assistant","content":"{"}"#, true),
        (
            r#"{"role":"assistant","content":[{"type":"text","text":"{"}]}"#,
            true,
        ),
        (r#"{"role":"assistant","content":""}"#, false),
        (
            r#"{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"tool_use"}]}"#,
            false,
        ),
        (user, false),
    ] {
        let body = conversation(&format!("[{user},{last}]"));
        let checked = check(body.as_bytes()).unwrap();
        assert_eq!(checked.is_prefilled(body.as_bytes()), prefilled, "{last}");
    }
    let mut body = br#"{"a":1}"#.to_vec();
    Prefill::of("llamacpp").write(&mut body).unwrap();
    assert_eq!(body, br#"{"a":1}"#);
    Prefill::of("sglang").write(&mut body).unwrap();
    assert_eq!(
        body,
        br#"{"a":1,"continue_final_message":true,"add_generation_prompt":false}"#
    );
    let refused = Prefill::of("openai-compatible").write(&mut body);
    assert_eq!(refused.map_err(|refusal| refusal.status), Err(400));
}

#[test]
fn half_a_surrogate_pair_is_replaced() {
    let sent = sent(&conversation(
        r#"[{"role":"user","content":"a\ud83d"},{"role":"assistant","content":
            [{"type":"tool_use","id":"i","name":"n","input":{"\ude00":"\ud83d\ude00"}}]}]"#,
    ));
    assert_eq!(sent["messages"][0]["content"], "a\u{fffd}");
    assert_eq!(
        sent["messages"][1]["tool_calls"][0]["function"]["arguments"],
        "{\"\u{fffd}\":\"\u{1f600}\"}"
    );
}

#[test]
fn what_is_only_sometimes_sent() {
    let minimal = with(r#""zz":1"#);
    let keys: Vec<_> = minimal.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["model", "messages", "max_tokens", "stream"]);
    let zeros = with(r#""temperature":0,"top_p":0,"top_k":0,"stop_sequences":[]"#);
    assert_eq!(zeros["temperature"], 0);
    assert_eq!(zeros["top_p"], 0);
    assert_eq!(zeros["top_k"], 0);
    assert!(zeros.get("stop").is_none());
    let nulls = with(r#""temperature":null,"top_p":null,"top_k":null,"stop_sequences":null"#);
    assert_eq!(nulls.as_object().unwrap().len(), 4);
    let stream = with(r#""stream":true"#);
    assert_eq!(stream["stream"], true);
    assert_eq!(stream["stream_options"], json!({"include_usage": true}));
    assert_eq!(with(r#""stream":null"#)["stream"], false);
}

#[test]
fn structured_output() {
    let schema = r#"{"type":"object","properties":{"n":{"maximum":1.0}}}"#;
    let format = format!(
        r#""output_config":{{"effort":"low","format":{{"type":"json_schema","schema":{schema}}}}}"#
    );
    assert_eq!(
        with(&format)["response_format"],
        json!({"type": "json_schema", "json_schema": {
            "name": "output", "strict": true,
            "schema": {"type": "object", "properties": {"n": {"maximum": 1.0}}},
        }})
    );
    for other in [
        r#""output_config":{"effort":"low"}"#,
        r#""output_config":{"format":{"type":"text"}}"#,
        r#""output_config":{"format":{"type":"json_schema"}}"#,
        r#""output_config":{"format":null}"#,
        r#""output_config":7"#,
    ] {
        assert!(with(other).get("response_format").is_none(), "{other}");
    }
}

#[test]
fn system_prompts() {
    for (system, expected) in [
        (r#"" You are terse. ""#, Some(" You are terse. ")),
        (
            r#"[{"type":"text","text":"You are "},{"type":"image"},7,{"type":"text","text":"terse."}]"#,
            Some("You are terse."),
        ),
        (r#"{"type":"text","text":"one"}"#, Some("one")),
        (r#""""#, None),
        ("[]", None),
        ("null", None),
        (r#"[{"type":"text","text":""}]"#, None),
        ("7", None),
        // What changes with every request.
        (
            r#"[{"type":"text","text":"x-anthropic-billing-header: cch=1;"},{"type":"text","text":"Be"}]"#,
            Some("Be"),
        ),
        (
            r#""x-anthropic-billing-header: a\nYou\n x-anthropic-billing-header: b\nare""#,
            Some("You\n x-anthropic-billing-header: b\nare"),
        ),
        (r#""You\nx-anthropic-billing-header: a""#, Some("You\n")),
        (r#""x-anthropic-billing-header:""#, None),
    ] {
        let sent = with(&format!(r#""system":{system}"#));
        let first = &sent["messages"][0];
        match expected {
            Some(text) => assert_eq!(*first, json!({"role": "system", "content": text})),
            None => assert_eq!(first["role"], "user", "{system}"),
        }
    }
}

#[test]
fn user_messages() {
    for (content, expected) in [
        (
            r#"" a\u00e9\n ""#,
            json!([{"role": "user", "content": " aé\n "}]),
        ),
        (r#""""#, json!([])),
        ("[]", json!([])),
        (
            r#"[{"type":"text","text":"a"},"b",{"type":"zz","text":"c"},{"text":"d"},{"type":"text","text":"e"}]"#,
            json!([{"role": "user", "content": "ae"}]),
        ),
        (
            r#"{"type":"text","text":"a"}"#,
            json!([{"role": "user", "content": "a"}]),
        ),
        (
            r#"[{"type":"text","text":"Be brief."},{"type":"tool_result","tool_use_id":"t1","content":"4C"},
                {"type":"tool_result","tool_use_id":"t2"}]"#,
            json!([
                {"role": "tool", "tool_call_id": "t1", "content": "4C"},
                {"role": "tool", "tool_call_id": "t2", "content": ""},
                {"role": "user", "content": "Be brief."},
            ]),
        ),
    ] {
        assert_eq!(one("user", content), expected, "{content}");
    }
}

#[test]
fn tool_results() {
    for (result, expected) in [
        (r#""content":"plain""#, "plain"),
        (r#""content":null"#, ""),
        (r#""content":5"#, "5"),
        (r#""content":[]"#, ""),
        (
            r#""content":[{"type":"text","text":"a"},{"type":"text","text":""},{"type":"zz"},{"type":"text","text":"b"}]"#,
            "a\nb",
        ),
        (r#""content":{"type":"text","text":"a"}"#, "a"),
        (r#""is_error":true"#, "Error: "),
        (r#""is_error":true,"content":"denied""#, "Error: denied"),
        (
            r#""is_error":true,"content":"ERROR: denied""#,
            "ERROR: denied",
        ),
        (r#""is_error":true,"content":"err""#, "Error: err"),
        (r#""is_error":true,"content":"\u0065rrors""#, "errors"),
        (
            r#""is_error":true,"content":[{"type":"text","text":"no"}]"#,
            "Error: no",
        ),
        (r#""is_error":false,"content":"x""#, "x"),
        (
            r#""content":[{"type":"search_result","title":"T","content":[{"type":"text","text":"s"}]},
               {"type":"document","title":"D","source":{"type":"text","data":"d"}}]"#,
            "T\ns\nD\nd",
        ),
    ] {
        let content = format!(r#"[{{"type":"tool_result","tool_use_id":"t",{result}}}]"#);
        assert_eq!(
            one("user", &content),
            json!([{"role": "tool", "tool_call_id": "t", "content": expected}]),
            "{result}"
        );
    }
}

#[test]
fn pictures() {
    let base64 =
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO+/="}}"#;
    let url = r#"{"type":"image","source":{"type":"url","url":"https://x/y.png"}}"#;
    let data = "data:image/png;base64,iVBO+/=";
    assert_eq!(
        one(
            "user",
            &format!(
                r#"[{{"type":"text","text":"What?"}},{base64},{url},{{"type":"text","text":"So?"}}]"#
            )
        ),
        json!([{"role": "user", "content": [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": data}},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "text", "text": "So?"},
        ]}])
    );
    assert_eq!(
        one("user", base64),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}])
    );
    let result = format!(
        r#"[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":"seen"}},{base64}]}},{{"type":"text","text":"?"}}]"#
    );
    assert_eq!(
        one("user", &result),
        json!([
            {"role": "tool", "tool_call_id": "t", "content": "seen"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": data}},
                {"type": "text", "text": "?"},
            ]},
        ])
    );
    for source in [
        r#"{"type":"file","file_id":"f"}"#,
        r#"{"type":"base64","data":"x"}"#,
        r#"{"type":"base64","media_type":"image/png"}"#,
        r#"{"type":"url"}"#,
        "null",
    ] {
        let body = conversation(&format!(
            r#"[{{"role":"user","content":[{{"type":"text","text":"x"}},{{"type":"image","source":{source}}}]}}]"#
        ));
        let message = refused(&body);
        assert!(
            message.starts_with("messages.0.content.1.source:"),
            "{message}"
        );
    }
}

#[test]
fn documents() {
    let text = r#"{"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"d"}}"#;
    assert_eq!(
        one("user", &format!("[{text}]")),
        json!([{"role": "user", "content": [{"type": "text", "text": "T\nd"}]}])
    );
    let blocks = r#"[{"type":"document","title":"T","source":{"type":"content","content":[
        {"type":"text","text":"a"},{"type":"image","source":{"type":"url","url":"u"}}]}},
        {"type":"document","source":{"type":"content","content":"s"}},
        {"type":"search_result","source":"w","title":"S","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}]"#;
    assert_eq!(
        one("user", blocks),
        json!([{"role": "user", "content": [
            {"type": "text", "text": "T"},
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "u"}},
            {"type": "text", "text": "s"},
            {"type": "text", "text": "S\nx\ny"},
        ]}])
    );
    for source in [
        r#"{"type":"base64","media_type":"application/pdf","data":"x"}"#,
        r#"{"type":"url","url":"u"}"#,
        r#"{"type":"file","file_id":"f"}"#,
        "7",
    ] {
        for block in [
            format!(r#"{{"type":"document","source":{source}}}"#),
            format!(
                r#"{{"type":"tool_result","content":[{{"type":"document","source":{source}}}]}}"#
            ),
        ] {
            let message = refused(&conversation(&format!(
                r#"[{{"role":"user","content":"a"}},{{"role":"user","content":[{block}]}}]"#
            )));
            assert!(
                message.starts_with("messages.1.content.0.source:"),
                "{message}"
            );
        }
    }
}

#[test]
fn assistant_messages() {
    let call = |arguments: &str| json!([{"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
    for (content, expected) in [
        (
            r#""done""#,
            json!([{"role": "assistant", "content": "done"}]),
        ),
        (r#""""#, json!([])),
        (
            r#"[{"type":"thinking","thinking":"t","signature":"s"},{"type":"redacted_thinking","data":"x"}]"#,
            json!([]),
        ),
        (
            r#"[{"type":"text","text":"a"},{"type":"thinking","thinking":"t"},{"type":"text","text":"b"}]"#,
            json!([{"role": "assistant", "content": "ab"}]),
        ),
        (
            r#"[{"type":"text","text":"a"},{"type":"tool_use","id":"t","name":"f","input":{ "q" : "\"x\n\" \u00e9", "n":1.50 }}]"#,
            json!([{"role": "assistant", "content": "a",
                    "tool_calls": call("{\"q\":\"\\\"x\\n\\\" é\",\"n\":1.50}")}]),
        ),
        (
            r#"[{"type":"tool_use","id":"t","name":"f"}]"#,
            json!([{"role": "assistant", "content": null, "tool_calls": call("{}")}]),
        ),
        (
            r#"{"type":"tool_use","id":"t","name":"f","input":null}"#,
            json!([{"role": "assistant", "content": null, "tool_calls": call("{}")}]),
        ),
        (
            r#"[{"type":"tool_use","name":"f","input":{}},{"type":"tool_use","id":"","name":"f"},{"type":"tool_use","id":"t"}]"#,
            json!([]),
        ),
        (
            r#"[{"type":"image"},{"type":"tool_result","tool_use_id":"t"}]"#,
            json!([]),
        ),
    ] {
        assert_eq!(one("assistant", content), expected, "{content}");
    }
}

#[test]
fn system_in_the_middle_and_other_roles() {
    assert_eq!(
        one("system", r#""s""#),
        json!([{"role": "system", "content": "s"}])
    );
    assert_eq!(
        one(
            "system",
            r#"[{"type":"text","text":"s"},{"type":"text","text":"t"}]"#
        ),
        json!([{"role": "system", "content": "st"}])
    );
    for message in [
        r#"{"role":"robot","content":"x"}"#,
        r#"{"role":"tool","content":[]}"#,
        r#"{"role":7,"content":"x"}"#,
        r#"{"content":"x"}"#,
    ] {
        let message = refused(&conversation(&format!("[{message}]")));
        assert!(message.starts_with("messages.0.role:"), "{message}");
    }
    for content in ["null", "7", "true"] {
        let message = refused(&conversation(&format!(
            r#"[{{"role":"user","content":{content}}}]"#
        )));
        assert!(message.starts_with("messages.0.content:"), "{message}");
    }
    assert!(refused(&conversation(r#"[{"role":"user"}]"#)).starts_with("messages.0.content:"));
    assert!(refused(&conversation(r#"[{"role":"user","content":""}]"#)).starts_with("messages:"));
}

#[test]
fn system_messages_are_where_templates_take_them() {
    for (list, expected) in [
        (
            r#"[{"role":"system","content":"x-anthropic-billing-header: a"},
                {"role":"system","content":"A"},{"role":"user","content":"x"}]"#,
            json!([
                {"role": "system", "content": "Main\n\nA"},
                {"role": "user", "content": "x"},
            ]),
        ),
        (
            r#"[{"role":"user","content":"x"},{"role":"assistant","content":"y"},
                {"role":"system","content":"A"},{"role":"user","content":"z"}]"#,
            json!([
                {"role": "system", "content": "Main"},
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y"},
                {"role": "user", "content": "A\n\nz"},
            ]),
        ),
        (
            r#"[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f"}]},
                {"role":"system","content":"A"},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"}]}]"#,
            json!([
                {"role": "system", "content": "Main"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                ]},
                {"role": "tool", "content": "r", "tool_call_id": "t"},
                {"role": "user", "content": "A"},
            ]),
        ),
    ] {
        let sent = sent(&format!(
            r#"{{"model":"m","max_tokens":5,"system":"Main","messages":{list}}}"#
        ));
        assert_eq!(sent["messages"], expected, "{list}");
    }
}

#[test]
fn tools_become_functions() {
    let sent = with(concat!(
        r#""tools":[{"name":"a","description":"A","input_schema":{"type":"object", "x":1.0}},"#,
        r#"{"name":"b","type":"custom"},{"type":"bash_1","name":"c","input_schema":{}},"#,
        r#"{"name":"d","input_schema":null,"description":null},7]"#
    ));
    assert_eq!(
        sent["tools"],
        json!([
            {"type": "function", "function": {
                "name": "a", "description": "A", "parameters": {"type": "object", "x": 1.0}}},
            {"type": "function", "function": {
                "name": "b", "parameters": {"type": "object", "properties": {}}}},
            {"type": "function", "function": {"name": "c", "parameters": {}}},
            {"type": "function", "function": {
                "name": "d", "parameters": {"type": "object", "properties": {}}}},
        ])
    );
    assert!(sent.get("tool_choice").is_none());
}

#[test]
fn tools_that_nobody_could_execute_are_left_out() {
    let body = concat!(
        r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}],"#,
        r#""tools":[{"type":"web_search_20250305","name":"web_search"},{"input_schema":{}}],"#,
        r#""tool_choice":{"type":"any"}}"#
    );
    let translated = translated(body).unwrap();
    let sent: Json = serde_json::from_slice(&translated.body).unwrap();
    assert!(sent.get("tools").is_none() && sent.get("tool_choice").is_none());
    let left_out = |kind: &str, name: &str| Warning::ToolLeftOut {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(
        translated.warnings,
        [
            left_out("web_search_20250305", "web_search"),
            left_out("", "")
        ]
    );
}

#[test]
fn choices_among_tools() {
    for (choice, expected) in [
        (r#""auto""#, json!("auto")),
        (r#"{"type":"auto"}"#, json!("auto")),
        (r#""tool""#, json!("auto")),
        (r#""zz""#, json!("auto")),
        (r#"{"type":"zz"}"#, json!("auto")),
        ("{}", json!("auto")),
        ("7", json!("auto")),
        ("[]", json!("auto")),
        (r#""any""#, json!("required")),
        (r#"{"type":"any"}"#, json!("required")),
        (r#""none""#, json!("none")),
        (r#"{"type":"none"}"#, json!("none")),
        (
            r#"{"type":"tool","name":"elsewhere"}"#,
            json!({"type": "function", "function": {"name": "elsewhere"}}),
        ),
    ] {
        let sent = with(&format!(
            r#""tools":[{{"name":"a"}}],"tool_choice":{choice}"#
        ));
        assert_eq!(sent["tool_choice"], expected, "{choice}");
        assert!(sent.get("parallel_tool_calls").is_none());
        let without = with(&format!(r#""tools":[],"tool_choice":{choice}"#));
        assert!(without.get("tool_choice").is_none() && without.get("tools").is_none());
    }
    for kind in ["auto", "any", "none", "tool\",\"name\":\"a"] {
        let sent = with(&format!(
            r#""tools":[{{"name":"a"}}],"tool_choice":{{"type":"{kind}","disable_parallel_tool_use":true}}"#
        ));
        assert_eq!(sent["parallel_tool_calls"], false, "{kind}");
    }
    assert!(
        with(r#""tools":[{"name":"a"}],"tool_choice":null"#)
            .get("tool_choice")
            .is_none()
    );
    for choice in [r#"{"type":"tool"}"#, r#"{"type":"tool","name":5}"#] {
        let body = |tools: &str| {
            format!(
                r#"{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":"x"}}],"tools":[{tools}],"tool_choice":{choice}}}"#
            )
        };
        assert!(refused(&body(r#"{"name":"a"}"#)).starts_with("tool_choice.name:"));
        assert!(translated(&body("")).is_ok());
    }
}

#[test]
fn other_bytes_than_those_checked_do_no_harm() {
    let body = conversation(r#"[{"role":"user","content":[{"type":"text","text":"x"}]}]"#);
    let checked = check(body.as_bytes()).unwrap();
    for at in 0..body.len() {
        let _ = to_openai(&body.as_bytes()[..at], &checked, "m", None);
        let mut spoiled = body.clone().into_bytes();
        spoiled[at] = b'"';
        let _ = to_openai(&spoiled, &checked, "m", None);
    }
}
