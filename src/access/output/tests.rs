use super::*;
use proptest::prelude::*;
use serde_json::Value as Json;

const CHAT: &str = "/olla/openai/v1/chat/completions";
const OLLAMA: &str = "/api/chat";

fn clamped(path: &str, body: &str) -> Option<String> {
    let max = OutputMax {
        max: 64,
        mode: OutputLimit::Clamp,
    };
    let made = limited(body.as_bytes(), path.as_bytes(), max, KnownOutput::Unknown);
    made.expect("nothing is refused")
        .map(|made| String::from_utf8(made.text).expect("text"))
}

#[test]
fn only_the_limit_changes() {
    let table = [
        (CHAT, r#"{"max_tokens":64}"#, None),
        (
            CHAT,
            r#"{"max_tokens" : 5000 ,"x":1}"#,
            Some(r#"{"max_tokens" : 64 ,"x":1}"#),
        ),
        (
            CHAT,
            r#"{"max_completion_tokens":65,"max_tokens":9}"#,
            Some(r#"{"max_completion_tokens":64,"max_tokens":9}"#),
        ),
        (CHAT, r#"{"max_completion_tokens":9}"#, None),
        (
            CHAT,
            r#" {"model":"m"}"#,
            Some(r#" {"max_tokens":64,"model":"m"}"#),
        ),
        (CHAT, "{ }", Some(r#"{"max_tokens":64 }"#)),
        (CHAT, "\u{feff}{}", Some("\u{feff}{\"max_tokens\":64}")),
        (
            CHAT,
            r#"{"x":{"max_tokens":5000},"s":"\"max_tokens\":9","max_tokens":1}"#,
            None,
        ),
        ("/v1/responses", "{}", Some(r#"{"max_output_tokens":64}"#)),
        (
            "/olla/llamacpp/completion",
            "{}",
            Some(r#"{"n_predict":64}"#),
        ),
        (
            "/infill",
            r#"{"n_predict":-1}"#,
            Some(r#"{"n_predict":64}"#),
        ),
        ("/infill", r#"{"n_predict":0}"#, None),
        (
            "/v1/messages",
            r#"{"max_tokens":100}"#,
            Some(r#"{"max_tokens":64}"#),
        ),
        (
            "/v1/completions",
            r#"{"prompt":""}"#,
            Some(r#"{"max_tokens":64,"prompt":""}"#),
        ),
        (OLLAMA, "{}", Some(r#"{"options":{"num_predict":64}}"#)),
        (OLLAMA, r#"{"options":{"num_predict":8}}"#, None),
        (
            OLLAMA,
            r#"{"options":{"num_predict":-2,"seed":1}}"#,
            Some(r#"{"options":{"num_predict":64,"seed":1}}"#),
        ),
        (
            "/api/generate",
            r#"{"options":{"seed":1}}"#,
            Some(r#"{"options":{"num_predict":64,"seed":1}}"#),
        ),
        (
            OLLAMA,
            r#"{"options":{}}"#,
            Some(r#"{"options":{"num_predict":64}}"#),
        ),
        (
            OLLAMA,
            r#"{"options":null}"#,
            Some(r#"{"options":{"num_predict":64}}"#),
        ),
        (CHAT, "[1]", None),
        (CHAT, "model=x", None),
        (CHAT, "", None),
    ];
    for (path, body, expected) in table {
        assert_eq!(clamped(path, body).as_deref(), expected, "{path} {body}");
    }
}

#[test]
fn no_spelling_lifts_the_limit() {
    let table = [
        (CHAT, r#"{"max_tokens":null}"#, r#"{"max_tokens":64}"#),
        (
            CHAT,
            r#"{"max_tokens":5,"max_tokens":null}"#,
            r#"{"max_tokens":5,"max_tokens":64}"#,
        ),
        (
            CHAT,
            r#"{"max_tokens":5,"max_tokens":99}"#,
            r#"{"max_tokens":5,"max_tokens":64}"#,
        ),
        (CHAT, r#"{"max_tokens":-1}"#, r#"{"max_tokens":64}"#),
        (CHAT, r#"{"max_tokens":"9"}"#, r#"{"max_tokens":64}"#),
        (CHAT, r#"{"max_tokens":1e3}"#, r#"{"max_tokens":64}"#),
        (CHAT, r#"{"max_tokens":1e999}"#, r#"{"max_tokens":64}"#),
        (CHAT, r#"{"max_tokens":NaN}"#, r#"{"max_tokens":64}"#),
        (
            CHAT,
            r#"{"max\u005ftokens":99}"#,
            r#"{"max\u005ftokens":64}"#,
        ),
        (
            CHAT,
            r#"{"Max_Tokens":5}"#,
            r#"{"max_tokens":64,"Max_Tokens":5}"#,
        ),
        (
            CHAT,
            r#"{"Max_Tokens":99,"max_tokens":5}"#,
            r#"{"Max_Tokens":64,"max_tokens":5}"#,
        ),
        // Fields that the endpoints behind a path do not read are no limit.
        (
            CHAT,
            r#"{"num_predict":5}"#,
            r#"{"max_tokens":64,"num_predict":5}"#,
        ),
        (
            OLLAMA,
            r#"{"max_tokens":5}"#,
            r#"{"options":{"num_predict":64},"max_tokens":5}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":5},"options":null}"#,
            r#"{"options":{"num_predict":5},"options":{"num_predict":64}}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":null}}"#,
            r#"{"options":{"num_predict":64}}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":0}}"#,
            r#"{"options":{"num_predict":64}}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":0.4}}"#,
            r#"{"options":{"num_predict":64}}"#,
        ),
        (
            OLLAMA,
            r#"{"Options":{"num_predict":5}}"#,
            r#"{"options":{"num_predict":64},"Options":{"num_predict":5}}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":5},"options":{}}"#,
            r#"{"options":{"num_predict":5},"options":{"num_predict":64}}"#,
        ),
        (
            OLLAMA,
            r#"{"options":{"num_predict":5,"num_predict":null}}"#,
            r#"{"options":{"num_predict":5,"num_predict":64}}"#,
        ),
        (CHAT, r#"{"max_tokens":0}"#, r#"{"max_tokens":64}"#),
        ("/v1/responses/", "{}", r#"{"max_output_tokens":64}"#),
        ("/v1/%72esponses", "{}", r#"{"max_output_tokens":64}"#),
        (
            OLLAMA,
            r#"{"Options":{"num_predict":99},"options":{"num_predict":5}}"#,
            r#"{"Options":{"num_predict":64},"options":{"num_predict":5}}"#,
        ),
    ];
    for (path, body, expected) in table {
        assert_eq!(
            clamped(path, body).as_deref(),
            Some(expected),
            "{path} {body}"
        );
    }
}

#[test]
fn a_policy_may_refuse() {
    let refused = |body: &str| {
        let max = OutputMax {
            max: 64,
            mode: OutputLimit::Refuse,
        };
        limited(body.as_bytes(), CHAT.as_bytes(), max, KnownOutput::Unknown)
            .map(|made| made.map(|made| String::from_utf8(made.text).expect("text")))
    };
    assert_eq!(
        refused(r#"{"max_tokens":9,"max_completion_tokens":5000}"#),
        Err(OutputTooLong {
            field: "max_completion_tokens",
            value: "5000".to_owned(),
        })
    );
    assert_eq!(refused(r#"{"max_tokens":64}"#), Ok(None));
    assert_eq!(refused("{}"), Ok(Some(r#"{"max_tokens":64}"#.to_owned())));
}

proptest! {
    /// Whatever the body, an endpoint that reads it finds a limit that is allowed, and nothing
    /// else changed.
    #[test]
    fn the_limit_holds_and_the_rest_stays(
        members in prop::collection::vec((key(), value()), 0..6),
    ) {
        let members = members.iter().map(|(key, value)| format!("{key}: {value}"));
        let body = format!("{{{}}}", members.collect::<Vec<_>>().join(" ,"));
        let made = clamped(CHAT, &body).unwrap_or_else(|| body.clone());
        let before: Json = serde_json::from_str(&body).expect("JSON");
        let after: Json = serde_json::from_str(&made).expect("JSON");
        let numbers = ["max_tokens", "max_completion_tokens"].map(|name| after[name].as_f64());
        prop_assert!(numbers.iter().any(Option::is_some), "{}", made);
        for number in numbers.into_iter().flatten() {
            prop_assert!((1.0..=64.0).contains(&number), "{}", made);
        }
        for name in ["messages", "x"] {
            prop_assert_eq!(&before[name], &after[name]);
        }
        prop_assert_eq!(clamped(CHAT, &made), None);
    }

    #[test]
    fn no_body_makes_it_panic(body in "[{}\\[\\]\",:a-z_0-9 \\\\]{0,60}", end in 0_usize..60) {
        let body = format!(r#"{{"max_tokens":99,"options":{{"num_predict":{body}"#);
        let end = body.floor_char_boundary(end.min(body.len()));
        clamped(OLLAMA, &body);
        clamped(CHAT, &body[..end]);
    }
}

fn key() -> impl Strategy<Value = String> {
    let names = [
        "max_tokens",
        "max_completion_tokens",
        "n_predict",
        "x",
        "messages",
        "MAX_TOKENS",
    ];
    prop::sample::select(names.map(|name| format!("\"{name}\"")).to_vec())
}

fn value() -> impl Strategy<Value = String> {
    let values = [
        "null",
        "1",
        "64",
        "65",
        "-1",
        "\"7\"",
        "true",
        "1e9",
        "[]",
        "{\"max_tokens\":9}",
    ];
    prop::sample::select(values.map(str::to_owned).to_vec())
}
