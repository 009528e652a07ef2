use super::*;

/// A body with these members, and valid ones for what is required and not among them.
fn body(members: &str) -> String {
    let mut body = members.to_owned();
    for (key, value) in [
        ("model", r#""m""#),
        ("max_tokens", "5"),
        ("messages", r#"[{"role":"user","content":"x"}]"#),
    ] {
        if !members.contains(&format!("\"{key}\"")) {
            body = format!(
                r#"{body}{}"{key}":{value}"#,
                if body.is_empty() { "" } else { "," }
            );
        }
    }
    format!("{{{body}}}")
}

fn checked(members: &str) -> Result<Checked, Refusal> {
    check(body(members).as_bytes())
}

#[test]
fn what_passes() {
    for members in [
        "",
        r#""model":" llama3.2 ""#,
        r#""max_tokens":1"#,
        r#""max_tokens":18446744073709551615"#,
        r#""temperature":0,"top_p":0"#,
        r#""temperature":2.0,"top_p":1"#,
        r#""temperature":null,"top_p":null,"top_k":null,"stream":null"#,
        r#""top_k":0"#,
        r#""stop_sequences":[]"#,
        r#""stop_sequences":["a","b"]"#,
        r#""tools":[]"#,
        r#""tools":null,"metadata":null,"stop_sequences":null"#,
        r#""tools":[1,"x"]"#,
        r#""metadata":{"user_id":5}"#,
        r#""system":7,"thinking":"x","zz":[{}],"tool_choice":5,"service_tier":1"#,
        r#""messages":[{}]"#,
        r#""messages":[{"role":"robot","content":5}]"#,
        r#""model":5,"model":"m""#,
    ] {
        assert!(checked(members).is_ok(), "{members}");
    }
}

#[test]
fn what_is_refused_and_why() {
    for (members, message) in [
        (r#""model":"""#, "model:"),
        (r#""model":"  ""#, "model:"),
        (r#""model":null"#, "model:"),
        (r#""model":7"#, "model:"),
        (r#""messages":null"#, "messages:"),
        (r#""messages":[]"#, "messages: at least one"),
        (r#""messages":"x""#, "messages: expected an array"),
        (r#""messages":{}"#, "messages: expected an array"),
        (r#""messages":[{},"x"]"#, "messages.1: expected an object"),
        (
            r#""max_tokens":0"#,
            "max_tokens: expected an integer of at least 1",
        ),
        (r#""max_tokens":-1"#, "max_tokens:"),
        (r#""max_tokens":null"#, "max_tokens:"),
        (r#""max_tokens":"5""#, "max_tokens:"),
        (r#""max_tokens":1.5"#, "max_tokens:"),
        (
            r#""temperature":2.5"#,
            "temperature: expected a number from 0 to 2",
        ),
        (r#""temperature":-0.1"#, "temperature:"),
        (r#""temperature":"1""#, "temperature:"),
        (r#""top_p":1.01"#, "top_p: expected a number from 0 to 1"),
        (r#""top_p":[]"#, "top_p:"),
        (r#""top_k":-1"#, "top_k:"),
        (r#""top_k":1.5"#, "top_k:"),
        (r#""top_k":"1""#, "top_k:"),
        (r#""stream":1"#, "stream: expected a boolean"),
        (r#""stream":"true""#, "stream:"),
        (
            r#""stop_sequences":"x""#,
            "stop_sequences: expected an array",
        ),
        (
            r#""stop_sequences":["a",1]"#,
            "stop_sequences.1: expected a string",
        ),
        (r#""tools":{}"#, "tools: expected an array"),
        (r#""metadata":[]"#, "metadata: expected an object"),
    ] {
        let refusal = checked(members).unwrap_err();
        assert_eq!(
            (
                refusal.status,
                crate::dialects::anthropic::translate::error_kind(refusal.status)
            ),
            (400, "invalid_request_error")
        );
        assert!(refusal.message.starts_with(message), "{members}: {refusal}");
    }
    for body in [
        "",
        " \n",
        "{",
        "[]",
        "null",
        r#"{"model":"m","max_tokens":5,"messages":["#,
        r#"{"max_tokens":5,"messages":[{}]}"#,
        r#"{"model":"m","messages":[{}]}"#,
        r#"{"model":"m","max_tokens":5}"#,
    ] {
        assert_eq!(check(body.as_bytes()).unwrap_err().status, 400, "{body}");
    }
}

#[test]
fn what_routing_has_to_know() {
    let plain = checked("").unwrap();
    assert_eq!(plain.model, "m");
    assert!(!plain.stream && plain.uses == Uses::default());
    assert!(checked(r#""stream":true"#).unwrap().stream);
    assert_eq!(checked(r#""model":" a\u0062 ""#).unwrap().model, "ab");
    assert!(checked(r#""tools":[{}]"#).unwrap().uses.tools);
    assert!(!checked(r#""tools":[]"#).unwrap().uses.tools);
    assert!(
        checked(r#""thinking":{"type":"enabled"}"#)
            .unwrap()
            .uses
            .thinking
    );
    assert!(
        !checked(r#""thinking":{"type":"disabled"}"#)
            .unwrap()
            .uses
            .thinking
    );
    assert!(!checked(r#""thinking":null"#).unwrap().uses.thinking);
    for (content, has_images) in [
        (r#"[{"type":"image"}]"#, true),
        (r#"{"type":"image"}"#, true),
        (r#"[{"type":"text","text":"image"}]"#, false),
        (
            r#"[{"type":"tool_result","content":[{"type":"image"}]}]"#,
            true,
        ),
        (
            r#"[{"type":"tool_use","content":[{"type":"image"}]}]"#,
            false,
        ),
        (r#""image""#, false),
    ] {
        let messages = format!(r#""messages":[{{"role":"user","content":{content}}}]"#);
        assert_eq!(
            checked(&messages).unwrap().uses.vision,
            has_images,
            "{content}"
        );
    }
}

#[test]
fn limitations_count_by_name() {
    let none = Uses::default();
    let table = [
        (
            "no_tool_use",
            Uses {
                tools: true,
                ..none
            },
        ),
        (
            "no_extended_thinking",
            Uses {
                thinking: true,
                ..none
            },
        ),
        (
            "no_vision",
            Uses {
                vision: true,
                ..none
            },
        ),
    ];
    for (name, uses) in table {
        for (other, _) in table {
            assert_eq!(uses.are_excluded_by(other), name == other, "{name} {other}");
        }
        assert!(!none.are_excluded_by(name), "{name}");
        assert!(!uses.are_excluded_by("token_counting_404"), "{name}");
    }
}

#[test]
fn what_the_answer_needs() {
    let body = body(r#""stop_sequences":["a\u0062","\n"],"system":"xxxxxxx""#);
    let seed = IdSeed([7; 16]);
    let context = check(body.as_bytes())
        .unwrap()
        .context(body.as_bytes(), seed);
    assert_eq!(
        context,
        ResponseContext {
            model: "m".to_owned(),
            stop_sequences: vec!["ab".to_owned(), "\n".to_owned()],
            input_tokens: 2,
            served_context: None,
            seed,
        }
    );
}
