//! The largest output that a request may ask for: found in its body, and lowered or refused.
//!
//! Servers differ in what they make of odd values: some take a negative number, `null` or a value
//! of another type as no limit, some match names in any letter case, and of a name that stands
//! twice the last counts. So that no spelling lifts the limit, each of these is replaced too where
//! it would.
//!
//! Contract: docs/contract/access.md#7.5

use std::ops::Range;

use crate::config::OutputLimit;
use crate::json::scan::{nested_end, part, scalar_end, skip_blanks, string_end};

/// The names of the fields that limit the output. The last stands in `options`, or at the top.
const FIELDS: [&str; 5] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "num_predict",
];
const OPTIONS: &str = "options";
const NUM_PREDICT: &str = "num_predict";

/// The longest value that an error shows.
const SHOWN_BYTES_MAX: usize = 32;

/// A request asks for more than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputTooLong {
    /// The field.
    pub(crate) field: &'static str,
    /// Its value, as the client wrote it.
    pub(crate) value: String,
}

/// A body with the output limit in it; `None` if it may stay as it is.
///
/// # Errors
/// The policy refuses what it does not allow.
pub(crate) fn limited(
    body: &[u8],
    path: &[u8],
    max: u64,
    mode: OutputLimit,
) -> Result<Option<Vec<u8>>, OutputTooLong> {
    let Some(open) = object_start(body) else {
        return Ok(None);
    };
    let reader = Reader::of(path);
    let mut found = Found::default();
    for (key, value) in Members::of(body, open) {
        let name = name_of(part(body, key));
        if name.is(OPTIONS) {
            found.options(body, value, &reader, max);
        } else if let Some(field) = FIELDS.into_iter().find(|field| name.is(field)) {
            let counts = name.is_exact && reader.counts(field);
            found.field(body, (field, value), counts, max);
        }
    }
    if let (OutputLimit::Refuse, Some(over)) = (mode, found.over.take()) {
        return Err(over);
    }
    found.complete(&reader, body, open, max);
    Ok((!found.edits.is_empty()).then(|| edited(body, found.edits)))
}

/// What the endpoints behind a path read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Chat,
    Responses,
    Native,
    Ollama,
    Other,
}

impl Reader {
    fn of(path: &[u8]) -> Self {
        let ends = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end.as_bytes()));
        if ends(&["/chat/completions"]) {
            Self::Chat
        } else if ends(&["/responses"]) {
            Self::Responses
        } else if ends(&["/completion", "/infill"]) {
            Self::Native
        } else if ends(&["/api/chat", "/api/generate"]) {
            Self::Ollama
        } else {
            Self::Other
        }
    }

    /// Whether a field at the top of the body is a limit for them.
    fn counts(self, field: &str) -> bool {
        match self {
            Self::Chat => matches!(field, "max_tokens" | "max_completion_tokens"),
            Self::Native => matches!(field, "n_predict" | "max_tokens"),
            Self::Ollama => false,
            Self::Responses | Self::Other => field == self.own(),
        }
    }

    /// The field that is added.
    const fn own(self) -> &'static str {
        match self {
            Self::Chat | Self::Other => "max_tokens",
            Self::Responses => "max_output_tokens",
            Self::Native => "n_predict",
            Self::Ollama => NUM_PREDICT,
        }
    }
}

/// What a body says of its output.
#[derive(Debug, Default)]
struct Found {
    /// Replaced parts, in order.
    edits: Vec<(Range<usize>, String)>,
    /// A field that the endpoints read has a number.
    is_given: bool,
    /// The fields that have one, and those that are `null`.
    given: Vec<&'static str>,
    nulls: Vec<(&'static str, Range<usize>)>,
    /// The first field above the limit.
    over: Option<OutputTooLong>,
    /// After the `{` of the last `options`.
    options: Option<usize>,
}

impl Found {
    fn field(
        &mut self,
        body: &[u8],
        (field, value): (&'static str, Range<usize>),
        counts: bool,
        max: u64,
    ) {
        let raw = part(body, value.clone());
        match Value::of(raw, max) {
            Value::Null => {
                if counts {
                    self.nulls.push((field, value));
                }
                return;
            }
            Value::Fits => {}
            Value::Over => {
                self.over.get_or_insert_with(|| too_long(field, raw));
                self.edits.push((value, max.to_string()));
            }
        }
        if counts {
            self.is_given = true;
            self.given.push(field);
        }
    }

    fn options(&mut self, body: &[u8], value: Range<usize>, reader: &Reader, max: u64) {
        let counts = *reader == Reader::Ollama;
        match body.get(value.start) {
            Some(b'{') => {
                self.options = Some(value.start + 1);
                for (key, value) in Members::of(body, value.start) {
                    let name = name_of(part(body, key));
                    if name.is(NUM_PREDICT) {
                        let counts = counts && name.is_exact;
                        self.field(body, (NUM_PREDICT, value), counts, max);
                    }
                }
            }
            // It would take the options before it back.
            Some(b'n') if counts => {
                self.edits
                    .push((value, format!(r#"{{"{NUM_PREDICT}":{max}}}"#)));
                self.is_given = true;
            }
            _ => {}
        }
    }

    /// Adds the limit if the body has none.
    fn complete(&mut self, reader: &Reader, body: &[u8], open: usize, max: u64) {
        let own = reader.own();
        let mut has_own = self.is_given;
        for (field, value) in std::mem::take(&mut self.nulls) {
            let is_own = !self.is_given && field == own;
            // A `null` behind a number under the same name takes it back.
            if is_own || self.given.contains(&field) {
                self.edits.push((value, max.to_string()));
                has_own |= is_own;
            }
        }
        if has_own {
            return;
        }
        let (at, text) = match (reader, self.options) {
            (Reader::Ollama, Some(options)) => (options, format!(r#""{own}":{max}"#)),
            (Reader::Ollama, None) => (open + 1, format!(r#""{OPTIONS}":{{"{own}":{max}}}"#)),
            _ => (open + 1, format!(r#""{own}":{max}"#)),
        };
        let is_empty = body.get(skip_blanks(body, at)) == Some(&b'}');
        let comma = if is_empty { "" } else { "," };
        self.edits.push((at..at, text + comma));
    }
}

fn too_long(field: &'static str, raw: &[u8]) -> OutputTooLong {
    let shown = part(raw, ..raw.len().min(SHOWN_BYTES_MAX));
    OutputTooLong {
        field,
        value: String::from_utf8_lossy(shown).into_owned(),
    }
}

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Null,
    Fits,
    /// It is larger, or may be taken as no limit.
    Over,
}

impl Value {
    fn of(raw: &[u8], max: u64) -> Self {
        if raw == b"null" {
            return Self::Null;
        }
        let number = std::str::from_utf8(raw).ok().map(str::parse::<f64>);
        // Limits are integers below 2^53, which are exact.
        match number {
            Some(Ok(number)) if (0.0..=max as f64).contains(&number) => Self::Fits,
            _ => Self::Over,
        }
    }
}

/// The name of a member.
struct Name {
    /// In small letters.
    lower: String,
    /// It was written so.
    is_exact: bool,
}

impl Name {
    fn is(&self, name: &str) -> bool {
        self.lower == name
    }
}

/// Names are short; longer ones are none of these, and are not read.
fn name_of(raw: &[u8]) -> Name {
    const ESCAPED_BYTES_MAX: usize = 6 * "max_completion_tokens".len();
    let text = match std::str::from_utf8(raw) {
        Ok(text) if text.len() <= ESCAPED_BYTES_MAX => text,
        _ => "",
    };
    let text = if text.contains('\\') {
        serde_json::from_str(&format!("\"{text}\"")).unwrap_or_default()
    } else {
        text.to_owned()
    };
    let lower = text.to_ascii_lowercase();
    Name {
        is_exact: lower == text,
        lower,
    }
}

/// The `{` that begins a body, behind a byte order mark and blanks.
fn object_start(body: &[u8]) -> Option<usize> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let at = if body.starts_with(MARK) {
        MARK.len()
    } else {
        0
    };
    let at = skip_blanks(body, at);
    (body.get(at) == Some(&b'{')).then_some(at)
}

/// The members of an object: the names between their quotes, and the values. It ends where the text
/// is no JSON.
struct Members<'b> {
    body: &'b [u8],
    at: usize,
}

impl<'b> Members<'b> {
    /// Those of the object whose `{` is there.
    fn of(body: &'b [u8], open: usize) -> Self {
        Self { body, at: open + 1 }
    }
}

impl Iterator for Members<'_> {
    type Item = (Range<usize>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let body = self.body;
        let mut at = skip_blanks(body, self.at);
        while body.get(at) == Some(&b',') {
            at = skip_blanks(body, at + 1);
        }
        if body.get(at) != Some(&b'"') {
            return None;
        }
        let key = at + 1..string_end(body, at + 1)?;
        let colon = skip_blanks(body, key.end + 1);
        if body.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_blanks(body, colon + 1);
        let end = match body.get(start)? {
            b'"' => string_end(body, start + 1)? + 1,
            b'{' | b'[' => nested_end(body, start)?,
            _ => scalar_end(body, start),
        };
        self.at = end;
        (end > start).then_some((key, start..end))
    }
}

/// A body with parts of it replaced.
fn edited(body: &[u8], mut edits: Vec<(Range<usize>, String)>) -> Vec<u8> {
    edits.sort_by_key(|(replaced, _)| replaced.start);
    let more: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut made = Vec::with_capacity(body.len() + more);
    let mut at = 0;
    for (replaced, text) in edits {
        made.extend_from_slice(part(body, at..replaced.start));
        made.extend_from_slice(text.as_bytes());
        at = replaced.end;
    }
    made.extend_from_slice(part(body, at..));
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    const CHAT: &str = "/olla/openai/v1/chat/completions";
    const OLLAMA: &str = "/api/chat";

    fn clamped(path: &str, body: &str) -> Option<String> {
        let made = limited(body.as_bytes(), path.as_bytes(), 64, OutputLimit::Clamp);
        made.expect("nothing is refused")
            .map(|made| String::from_utf8(made).expect("text"))
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
            limited(body.as_bytes(), CHAT.as_bytes(), 64, OutputLimit::Refuse)
                .map(|made| made.map(|made| String::from_utf8(made).expect("text")))
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
                prop_assert!((0.0..=64.0).contains(&number), "{}", made);
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
}
