//! What the estimate of a request's tokens depends on: the files in its body, and the output that
//! it asks for. Only if wanted; it is found in the same pass as everything else.
//!
//! Contract: docs/contract/access.md#7.1

use std::ops::Range;

use crate::config::{OutputField, OutputKey};

use super::messages::Walk;
use super::scan::is_under;

/// A longer string may be a file.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;

/// The figures of an estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyTally {
    /// Files in the body.
    pub files: u64,
    /// Their bytes, without quotes.
    pub file_bytes: u64,
    /// The largest positive limit of the output.
    pub output: Option<u64>,
    /// The larger of `n` and `best_of`.
    pub choices: Option<u64>,
    /// The fields that limit the output, by their bits; `None` = the body is no whole object, or
    /// some key may limit it in an unusual spelling or with another value than an integer.
    pub fields: Option<u8>,
    /// The body names models in several places that servers may prefer one over the other.
    pub ambiguous: bool,
}

/// Top-level keys that matter for the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum CountKey {
    /// Its value limits the output.
    Output(OutputField),
    /// Its value multiplies the output.
    Choices,
    /// Its value is an object that may have `num_predict`.
    Options,
    /// Some servers may take its value for a limit.
    Odd,
    #[default]
    Other,
}

impl CountKey {
    pub(super) fn of(raw: &[u8]) -> Self {
        match OutputKey::of(raw) {
            Some((OutputKey::Field(field), true)) => Self::Output(field),
            Some((OutputKey::Options, true)) => Self::Options,
            Some(_) => Self::Odd,
            None if matches!(raw, b"n" | b"best_of") => Self::Choices,
            None if raw.contains(&b'\\') => Self::Odd,
            None => Self::Other,
        }
    }

    /// What a key means for the estimate: one with escapes means the same as without.
    pub(super) fn meaning(self, raw: &[u8]) -> Self {
        if self == Self::Odd && raw.contains(&b'\\') {
            return Self::of_escaped(raw);
        }
        self
    }

    #[cold]
    fn of_escaped(raw: &[u8]) -> Self {
        const BYTES_MAX: usize = 6 * "max_completion_tokens".len();
        let text = std::str::from_utf8(raw).ok();
        let text = text.filter(|text| text.len() <= BYTES_MAX);
        let plain =
            text.and_then(|text| serde_json::from_str::<String>(&format!("\"{text}\"")).ok());
        plain.map_or(Self::Odd, |plain| Self::of(plain.as_bytes()))
    }
}

/// The fields of a body that limit its output, as far as it has been read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SeenFields {
    bits: u8,
    /// There are others.
    others: bool,
}

impl SeenFields {
    /// Takes a value that is a number or literal, or `None` for any other, under a key.
    pub(super) fn note(&mut self, key: CountKey, token: Option<&[u8]>) {
        match key {
            CountKey::Choices | CountKey::Other => {}
            CountKey::Output(field) if token.is_some_and(is_usual_limit) => {
                self.bits |= field.bit();
            }
            CountKey::Output(_) | CountKey::Options | CountKey::Odd => self.others = true,
        }
    }

    pub(super) const fn known(self) -> Option<u8> {
        if self.others { None } else { Some(self.bits) }
    }
}

/// Whether every reader takes a value for the same limit: a positive integer.
fn is_usual_limit(token: &[u8]) -> bool {
    token.len() <= INTEGER_DIGITS_MAX
        && token.first().is_some_and(|first| *first != b'0')
        && token.iter().all(u8::is_ascii_digit)
}

/// Integers with so many digits are exact in every reader.
const INTEGER_DIGITS_MAX: usize = 15;

impl BodyTally {
    /// Takes a number or literal under a key.
    pub(super) fn scalar(&mut self, key: CountKey, token: &[u8]) {
        let most = match key {
            CountKey::Output(_) => &mut self.output,
            CountKey::Choices => &mut self.choices,
            CountKey::Options | CountKey::Odd | CountKey::Other => return,
        };
        *most = (*most).max(positive(token));
    }

    /// Takes the object that begins at `start` under a key.
    pub(super) fn object(&mut self, key: CountKey, body: &[u8], start: usize) {
        if key != CountKey::Options {
            return;
        }
        let mut walk = Walk::at(body, start);
        walk.members(|walk, key| {
            let is_limit = walk.is(b"num_predict", &key);
            let value = walk.value()?;
            if is_limit {
                self.output = self.output.max(positive(body.get(value)?));
            }
            Some(())
        });
    }

    /// Takes a string between its quotes, which is longer than [`TEXT_BYTES_MAX`]; true if it is a
    /// file.
    pub(super) fn long_text(&mut self, body: &[u8], text: &Range<usize>, in_images: bool) -> bool {
        let has_mark = || {
            body.get(text.clone())
                .is_some_and(|t| t.starts_with(b"data:"))
        };
        let is_file = in_images || has_mark() || is_under(body, text.start - 1, b"data");
        if is_file {
            self.files += 1;
            self.file_bytes = self.file_bytes.saturating_add(text.len() as u64);
        }
        is_file
    }
}

/// A positive integer, also one that is written as `1e3` or `5.0`.
fn positive(token: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(token).ok()?;
    let number = match text.parse::<u64>() {
        Ok(number) => number,
        Err(_) => {
            let number: f64 = text.parse().ok()?;
            // A number that is too large becomes the largest.
            (number.fract() == 0.0 || number.is_infinite()).then_some(number as u64)?
        }
    };
    (number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Inspector, Wanted};
    use super::*;

    const WANTED: Wanted = Wanted {
        name_key: false,
        vision: true,
        tally: true,
        prompt: true,
    };

    fn tally(body: &[u8]) -> BodyTally {
        Inspector::new(WANTED).finish(body).tally
    }

    #[test]
    fn files_are_long_strings_in_their_places() {
        let long = "A".repeat(1_025);
        let short = "A".repeat(1_024);
        let table = [
            (format!(r#"{{"x":"{long}"}}"#), 0),
            (format!(r#"{{"x":"data:{long}"}}"#), 1),
            (format!(r#"{{"data":"{long}"}}"#), 1),
            (format!(r#"{{"data" :"{short}"}}"#), 0),
            (format!(r#"{{"x\"data":"{long}"}}"#), 0),
            (format!(r#"{{"images":["{long}","{short}","{long}"]}}"#), 2),
            (format!(r#"{{"images":"{long}"}}"#), 0),
            (format!(r#"{{"m":[{{"images" : [ "{long}" ]}}]}}"#), 1),
            (
                format!(r#"{{"images":[["{long}"],{{"x":"{long}"}},"{long}"]}}"#),
                1,
            ),
            (
                format!(r#"{{"m":{{"inline":{{"data":"{long}"}}}},"t":"{long}"}}"#),
                1,
            ),
            (
                format!(r#"{{"m":[{{"u":{{"url":"data:image/png;base64,{long}"}}}}]}}"#),
                1,
            ),
            (
                format!(r#"{{"m":["\"data:{long}","\\","data:\"{long}"]}}"#),
                1,
            ),
        ];
        for (body, files) in table {
            let short: String = body.chars().take(60).collect();
            assert_eq!(tally(body.as_bytes()).files, files, "{short}");
        }
    }

    /// Strings with escaped quotes are passed block by block; wherever blocks begin, they have the
    /// same length.
    #[test]
    fn files_with_escaped_quotes() {
        for run in [0, 1, 7, 30, 61] {
            let piece = format!("{}\\\"\\\\", "A".repeat(run));
            let text = piece.repeat(1_024 / piece.len());
            for shift in 0..64 {
                for len in [1_024, 1_025] {
                    let text = format!("{}{}", &text, "A".repeat(len - text.len()));
                    let blank = " ".repeat(shift);
                    let body = format!(r#"{{"a":["\\",{{{blank}"images":["","{text}"]}}]}}"#);
                    let files = u64::from(len > TEXT_BYTES_MAX);
                    assert_eq!(tally(body.as_bytes()).files, files, "{run} {shift}");
                }
            }
        }
    }

    #[test]
    fn the_output_that_is_asked_for() {
        let table = [
            (r#"{"model":"m"}"#, None, None),
            (
                r#"{"max_tokens":5,"max_completion_tokens":100}"#,
                Some(100),
                None,
            ),
            (
                r#"{"max_output_tokens":7,"n":3,"best_of":2}"#,
                Some(7),
                Some(3),
            ),
            (r#"{"n_predict":-1,"max_tokens":0}"#, None, None),
            (r#"{"num_predict":1e3,"max_tokens":2.5}"#, Some(1_000), None),
            // Some servers read a number in quotes.
            (r#"{"max_tokens":"9","n":"20"}"#, Some(9), Some(20)),
            (r#"{"max_tokens":"x","n":null}"#, None, None),
            (
                r#"{"max\u005ftokens":2000,"\u006e":20}"#,
                Some(2_000),
                Some(20),
            ),
            (r#"{"\u006fptions":{"num_predict":9}}"#, Some(9), None),
            (r#"{"max_tokens":1e999}"#, Some(u64::MAX), None),
            (
                r#"{"options":{"seed":1,"num_predict":9,"stop":["a"]},"max_tokens":5}"#,
                Some(9),
                None,
            ),
            (r#"{"options":[1],"x":{"max_tokens":5}}"#, None, None),
        ];
        for (body, output, choices) in table {
            let tally = tally(body.as_bytes());
            assert_eq!((tally.output, tally.choices), (output, choices), "{body}");
        }
    }

    #[test]
    fn a_model_that_is_named_twice_is_noticed() {
        let table = [
            (r#"{"model":"a"}"#, false),
            (r#"{"model":"a","model":"a"}"#, true),
            (r#"{"model":"a","Model":"b"}"#, true),
            (r#"{"MODEL":"a","Model":"b"}"#, true),
            (r#"{"model":"a","x":{"model":"b"}}"#, false),
            (r#"{"model":null,"model":"b"}"#, true),
        ];
        for (body, ambiguous) in table {
            assert_eq!(tally(body.as_bytes()).ambiguous, ambiguous, "{body}");
        }
    }

    /// The rule over a parsed body.
    fn counted(value: &Value, key: Option<&str>, found: &mut (u64, u64)) {
        match value {
            Value::String(text)
                if text.len() > TEXT_BYTES_MAX
                    && (key == Some("data")
                        || key == Some("[images")
                        || text.starts_with("data:")) =>
            {
                found.0 += 1;
                found.1 += text.len() as u64;
            }
            Value::Array(items) => {
                let inner = (key == Some("images")).then_some("[images");
                items.iter().for_each(|item| counted(item, inner, found));
            }
            Value::Object(members) => {
                for (key, value) in members {
                    counted(value, Some(key), found);
                }
            }
            _ => {}
        }
    }

    fn value() -> impl Strategy<Value = String> {
        let long = |count: usize| "x".repeat(count);
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("\"\"".to_owned()),
            prop::sample::select(vec![1_020_usize, 1_024, 1_025, 1_030, 2_000, 60, 64])
                .prop_map(move |count| format!("\"{}\"", long(count))),
            prop::sample::select(vec![1_019_usize, 1_020, 1_021, 3_000])
                .prop_map(move |count| format!("\"data:{}\"", long(count))),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = prop::sample::select(vec!["data", "images", "x", "a very long key, really"]);
            let blank = prop::sample::select(vec!["", " ", "\n\t "]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec((key, blank, inner), 0..4).prop_map(|members| {
                    // A library keeps one of several members of a name.
                    let mut seen = std::collections::BTreeSet::new();
                    let members = members.into_iter().filter(|(key, ..)| seen.insert(*key));
                    let members = members.map(|(key, b, value)| format!("\"{key}\"{b}:{b}{value}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(1500)
        })]

        #[test]
        fn files_are_those_of_the_parsed_body(
            member in value(),
            under in prop::sample::select(vec!["data", "images", "messages"]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let body = format!(r#"{{"{under}":{member},"model":"m"}}"#);
            let parsed: Value = serde_json::from_str(&body).expect("JSON");
            let mut expected = (0, 0);
            counted(&parsed, None, &mut expected);
            let body = body.as_bytes();
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            ends.sort_unstable();
            let mut inspector = Inspector::new(WANTED);
            ends.iter().for_each(|&end| inspector.advance(&body[..end]));
            let found = inspector.finish(body);
            prop_assert_eq!((found.tally.files, found.tally.file_bytes), expected);
            let spans = found.prompt.files.iter().map(|span| span.range());
            prop_assert_eq!(spans.clone().count() as u64, expected.0.min(16));
            for span in spans {
                prop_assert_eq!(body[span.start - 1], b'"');
                prop_assert_eq!(body[span.end], b'"');
                prop_assert!(span.len() > TEXT_BYTES_MAX && !body[span].contains(&b'"'));
            }
            prop_assert!(found.model.is_some());
        }
    }
}
