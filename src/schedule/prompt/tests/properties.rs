//! Generated bodies, compared with a slow implementation over the raw values of a JSON library.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{WANTED, hashed, hashes};
use crate::inspect::{Findings, Inspector};
use crate::schedule::prompt::{Prompt, SHARED_SEED};

/// The members of an object, of duplicates the last; `None` if it is none.
fn members(body: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    struct InOrder;
    impl<'de> serde::de::Visitor<'de> for InOrder {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }
    serde_json::from_str::<serde_json::Value>(body).ok()?;
    let mut json = serde_json::Deserializer::from_str(body);
    serde::Deserializer::deserialize_map(&mut json, InOrder).ok()
}

/// The sequence of a valid body, by the contract's words.
fn reference(body: &str) -> Option<Vec<u64>> {
    let members = members(body)?;
    let last = |key: &str| {
        let mut values = members.iter().rev().filter(|(name, _)| name == key);
        let raw = values.next().map(|(_, raw)| raw.get())?;
        let squeezed: String = raw.split_whitespace().collect();
        (squeezed != "null" && squeezed != "[]").then_some(raw)
    };
    let mut sequence = String::new();
    for key in ["tools", "system", "instructions"] {
        sequence += last(key).unwrap_or_default();
    }
    let messages = last("messages");
    if let Some(raw) = messages
        .or_else(|| last("input"))
        .or_else(|| last("prompt"))
    {
        if let Ok(elements) = serde_json::from_str::<Vec<Box<RawValue>>>(raw) {
            let elements: Vec<_> = elements.iter().map(|element| element.get()).collect();
            sequence += &elements.join(",");
        } else if raw.starts_with('"') && messages.is_none() {
            sequence += &raw[1..raw.len() - 1];
        } else {
            return Some(Vec::new());
        }
    }
    Some(hashed(sequence.as_bytes()))
}

fn inspect(body: &[u8], cuts: &[prop::sample::Index]) -> Findings {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    ends.sort_unstable();
    let mut inspector = Inspector::new(WANTED);
    ends.iter().for_each(|&end| inspector.advance(&body[..end]));
    inspector.finish(body)
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n  ", "\t\r\n"])
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z ]{0,9}",
        (400..700_usize).prop_map(|count| "x".repeat(count)),
        (1_020..1_500_usize).prop_map(|count| format!("data:{}", "A".repeat(count))),
        prop::sample::select(vec![
            r#"\""#, r"\\", r"\\\\\\", r"\n", "é", "{", "}", "[", "]", " , "
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => text(),
        1 => prop::sample::select(vec!["true", "null", "0", "-1.5e+3", "[ ]", "{ }"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop::sample::select(vec!["data", "images", "content", "role"]);
        let member = (blank(), key, blank(), inner.clone())
            .prop_map(|(a, key, b, value)| format!("{a}\"{key}\"{b}:{b}{value}{a}"));
        prop_oneof![
            array_of(inner),
            prop::collection::vec(member, 0..4)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn array_of(element: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((blank(), element, blank()), 0..5).prop_map(|elements| {
        let elements: Vec<_> = elements
            .iter()
            .map(|(a, element, b)| format!("{a}{element}{b}"))
            .collect();
        format!("[{}]", elements.join(","))
    })
}

/// Mostly what the inspector has noted the borders of.
fn messages() -> impl Strategy<Value = String> {
    let message = text().prop_map(|text| format!(r#"{{"role":"user", "content":{text}}}"#));
    let rich = array_of(value()).prop_map(|parts| format!(r#"{{"content": {parts}}}"#));
    prop_oneof![
        3 => array_of(message),
        2 => array_of(rich),
        1 => array_of(value()),
        1 => value(),
    ]
}

fn body() -> impl Strategy<Value = String> {
    let list = prop::sample::select(vec!["messages", "messages", "input", "prompt", "x"]);
    let other = prop::sample::select(vec!["tools", "system", "instructions", "input", "data"]);
    let member = prop_oneof![
        2 => (blank(), list, messages()).prop_map(|(b, key, raw)| format!("{b}\"{key}\":{raw}{b}")),
        1 => (blank(), other, value()).prop_map(|(b, key, raw)| format!("\"{key}\"{b}:{b}{raw}")),
    ];
    prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn agrees_with_a_json_library(
        body in body(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let findings = inspect(body.as_bytes(), &cuts);
        prop_assert_eq!(&findings, &inspect(body.as_bytes(), &[]));
        let mut found = Vec::new();
        Prompt::read(body.as_bytes(), &findings, SHARED_SEED, &mut found);
        if let Some(expected) = reference(&body) {
            prop_assert_eq!(found, expected, "{}", body);
        }
    }

    #[test]
    fn blanks_between_elements_make_no_difference(
        elements in prop::collection::vec((value(), blank(), blank()), 1..6),
        key in prop::sample::select(vec!["messages", "input", "prompt"]),
    ) {
        let plain: Vec<_> = elements.iter().map(|(element, ..)| element.as_str()).collect();
        let spread: Vec<_> = elements
            .iter()
            .map(|(element, a, b)| format!("{a}{element}{b}"))
            .collect();
        let plain = hashes(&format!(r#"{{"{key}":[{}]}}"#, plain.join(",")));
        prop_assert_eq!(hashes(&format!(r#"{{"{key}":[{}]}}"#, spread.join(","))), plain);
    }

    #[test]
    fn any_body_is_read(
        body in body(),
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        blocks in 0_usize..9,
        bytes_per_token in prop_oneof![any::<f64>(), 1.5..8.0],
    ) {
        let mut body = body.into_bytes();
        for (at, byte) in spoiled {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(end.index(body.len() * 2));
        let findings = inspect(&body, &cuts);
        prop_assert_eq!(&findings, &inspect(&body, &[]));
        let mut hashes = Vec::new();
        let prompt = Prompt::read(&body, &findings, SHARED_SEED, &mut hashes);
        prop_assert!(hashes.len() * 512 <= body.len());
        let (matched, rest) = prompt.tokens(blocks, bytes_per_token);
        let (none, all) = prompt.tokens(0, bytes_per_token);
        prop_assert_eq!((none, matched + rest), (0, all));
        // Other findings than those of the body do no harm.
        Prompt::read(&body[..body.len() / 2], &findings, SHARED_SEED, &mut hashes);
        if let Some(expected) = std::str::from_utf8(&body).ok().and_then(reference) {
            Prompt::read(&body, &findings, SHARED_SEED, &mut hashes);
            prop_assert_eq!(hashes, expected);
        }
    }

    #[test]
    fn tokens_add_up(body in body(), bytes_per_token in 1.5..8.0) {
        let findings = inspect(body.as_bytes(), &[]);
        let mut hashes = Vec::new();
        let prompt = Prompt::read(body.as_bytes(), &findings, SHARED_SEED, &mut hashes);
        let (_, all) = prompt.tokens(0, bytes_per_token);
        let mut before = 0;
        for blocks in 0..=hashes.len() {
            let (matched, rest) = prompt.tokens(blocks, bytes_per_token);
            prop_assert_eq!(matched + rest, all);
            prop_assert!(matched >= before);
            before = matched;
        }
    }
}
