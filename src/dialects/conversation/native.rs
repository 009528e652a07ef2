//! The rule by which an endpoint turns out not to speak a dialect
//! (docs/contract/dialects.md#1.2).

use crate::json::{self, JsonKind};

/// What an endpoint says of a route that it does not know, with status 200.
const UNEXPECTED: &str = "Unexpected endpoint";

/// Whether a native endpoint's response means that it does not know the route. `words` are what it
/// may have said not to know instead: the model's name and an id.
pub(super) fn is_not_spoken_here<'w>(
    status: u16,
    body: &[u8],
    words: impl IntoIterator<Item = &'w str>,
) -> bool {
    match status {
        404 | 405 | 501 => !words.into_iter().any(|word| holds_word(body, word)),
        200 => {
            let error = json::parse(body)
                .filter(|body| body.is(JsonKind::Object))
                .and_then(|body| body.string_field("error"));
            error.is_some_and(|error| error.decode().starts_with(UNEXPECTED))
        }
        _ => false,
    }
}

/// Whether a text has a word with no letter or digit beside it.
fn holds_word(text: &[u8], word: &str) -> bool {
    let is_apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    !word.is_empty()
        && memchr::memmem::find_iter(text, word.as_bytes()).any(|at| {
            let before = at.checked_sub(1).and_then(|at| text.get(at));
            is_apart(before) && is_apart(text.get(at + word.len()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_responses_mean_it() {
        for (status, body, expected) in [
            (404, "", true),
            (404, r#"{"detail":"Not Found"}"#, true),
            (405, "Method Not Allowed", true),
            (501, "not here", true),
            (404, r#"{"error":"model 'qwen' not found"}"#, false),
            (404, r#"{"error":"model 'qwen3' not found"}"#, true),
            (404, r#"{"error":"no xqwen, no qwen"}"#, false),
            (404, r#"{"error":"no response resp_1"}"#, false),
            (404, r#"{"error":"no response resp_12"}"#, true),
            (400, "", false),
            (500, "", false),
            (
                200,
                r#"{"error":"Unexpected endpoint or method. (POST /v1/responses)"}"#,
                true,
            ),
            (200, r#"{"error":"An Unexpected endpoint"}"#, false),
            (200, r#"{"error":{"message":"Unexpected endpoint"}}"#, false),
            (200, "Unexpected endpoint", false),
        ] {
            let found = is_not_spoken_here(status, body.as_bytes(), ["qwen", "resp_1", ""]);
            assert_eq!(found, expected, "{status} {body}");
        }
    }
}
