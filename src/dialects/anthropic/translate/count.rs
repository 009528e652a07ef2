//! The response to `count_tokens` (docs/contract/translation.md#11).

use super::request::check_countable;
use super::tokens;
use crate::dialects::chat::error::Refusal;
use crate::json::SpanIndex;

/// The body of the response to `count_tokens`.
///
/// # Errors
///
/// Status 400 if the body is not a JSON object or a field has another type.
pub fn count_tokens(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut index = SpanIndex::default();
    let fields = check_countable(body, &mut index)?;
    Ok(format!(
        r#"{{"input_tokens":{}}}"#,
        tokens::measure(&fields).tokens()
    )
    .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(body: &str) -> Result<String, String> {
        match count_tokens(body.as_bytes()) {
            Ok(answer) => Ok(String::from_utf8(answer).unwrap()),
            Err(refusal) => {
                assert_eq!(refusal.status, 400);
                Err(refusal.message)
            }
        }
    }

    #[test]
    fn what_counts() {
        let forty = "x".repeat(40);
        let message =
            |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        for (body, tokens) in [
            ("{}".to_owned(), 1),
            (message(r#""abc""#), 1),
            (message(&format!(r#""{forty}""#)), 10),
            (message(r#""\u00e9\u00e9\u00e9\u00e9""#), 2),
            (message(r#""\ud83d\ude00\n\n\n\n""#), 2),
            (message(&format!(r#"[{{"type":"text","text":"{forty}"}},7]"#)), 10),
            (message(&format!(r#"{{"type":"text","text":"{forty}"}}"#)), 10),
            (message(&format!(r#"[{{"type":"thinking","thinking":"{forty}"}}]"#)), 1),
            (message(&format!(r#"[{{"type":"image","source":{{"data":"{forty}"}}}}]"#)), 1000),
            (
                message(&format!(
                    r#"[{{"type":"image"}},{{"type":"tool_result","content":[{{"type":"image"}},{{"type":"text","text":"{forty}"}}]}}]"#
                )),
                2010,
            ),
            (message(&format!(r#"[{{"type":"zz","text":"{forty}"}}]"#)), 1),
            (message(r#"[{"type":"tool_use","name":"abcd","input":{ "a" : 1.50 }}]"#), 3),
            (message(&format!(r#"[{{"type":"tool_result","content":"{forty}"}}]"#)), 10),
            (
                message(&format!(
                    r#"[{{"type":"tool_result","content":[{{"type":"text","text":"{forty}"}}]}}]"#
                )),
                10,
            ),
            (
                message(&format!(
                    r#"[{{"type":"document","title":"abcd","source":{{"type":"text","data":"{forty}"}}}}]"#
                )),
                11,
            ),
            (
                message(&format!(
                    r#"[{{"type":"document","source":{{"type":"base64","data":"{forty}"}}}}]"#
                )),
                1,
            ),
            (format!(r#"{{"system":"{forty}"}}"#), 10),
            (format!(r#"{{"system":[{{"type":"text","text":"{forty}"}},{{"type":"x","text":"y"}}]}}"#), 10),
            (
                r#"{"tools":[{"name":"abcd","description":"zzzz","input_schema":{"type":"object"}}]}"#.to_owned(),
                6,
            ),
            (r#"{"max_tokens":-1,"temperature":9,"messages":[],"model":null}"#.to_owned(), 1),
        ] {
            assert_eq!(counted(&body), Ok(format!(r#"{{"input_tokens":{tokens}}}"#)), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_counted() {
        for body in [
            "",
            "{oops",
            "[]",
            r#""x""#,
            r#"{"messages":"x"}"#,
            r#"{"messages":["x"]}"#,
            r#"{"model":5}"#,
            r#"{"system":5}"#,
            r#"{"system":{}}"#,
            r#"{"tools":{}}"#,
            r#"{"max_tokens":"5"}"#,
        ] {
            assert!(counted(body).is_err(), "{body}");
        }
    }
}
