//! Generated bodies, compared with what a JSON library makes of them.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::tests::{ALL, Verdict, inspect, verdict};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn agrees_with_a_json_library(members_text in prop::collection::vec(top_level_member(), 0..6)) {
        let body = format!("{{{}}}", members_text.join(","));
        if let Some(members) = members(body.as_bytes()) {
            let findings = inspect(body.as_bytes(), ALL);
            prop_assert_eq!(verdict(body.as_bytes(), &findings), reference(&members), "{}", body);
        }
    }

    #[test]
    fn a_break_leaves_what_was_complete(
        members_text in prop::collection::vec(top_level_member(), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = format!("{{{}}}", members_text.join(","));
        let cut = cut.index(body.len());
        let mut end = 1;
        let complete = members_text.iter().take_while(|member| {
            end += member.len() + 1;
            // Only the byte after a number shows its end; other values mark their own.
            let closed = member.ends_with(['"', '}', ']']);
            cut + usize::from(closed) >= end
        });
        let rest = format!("{{{}}}", complete.cloned().collect::<Vec<_>>().join(","));
        if let (Some(_), Some(members)) = (members(body.as_bytes()), members(rest.as_bytes())) {
            let body = &body.as_bytes()[..cut];
            let findings = inspect(body, ALL);
            prop_assert_eq!(verdict(body, &findings), reference(&members), "{}", rest);
        }
    }

    #[test]
    fn pieces_make_no_difference(
        members_text in prop::collection::vec(top_level_member(), 0..6),
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut body = format!("{{{}}}", members_text.join(",")).into_bytes();
        for (at, with) in spoiled {
            let at = at.index(body.len());
            body[at] = with;
        }
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        ends.sort_unstable();
        let mut inspector = Inspector::new(ALL);
        ends.iter().for_each(|&end| inspector.advance(&body[..end]));
        let findings = inspector.finish(&body);
        prop_assert_eq!(&findings, &inspect(&body, ALL));
        if let Some(members) = members(&body) {
            prop_assert_eq!(verdict(&body, &findings), reference(&members));
        }
    }

    #[test]
    fn another_model_changes_nothing_else(
        members_text in prop::collection::vec(top_level_member(), 1..6),
        to in "[\\PC\n]{0,20}[a-z\"\\\\]",
    ) {
        let body = format!("{{{}}}", members_text.join(",")).into_bytes();
        let before = inspect(&body, ALL);
        let splice = before.model.and_then(|found| rewrite_model(&found, &to));
        if let Some(splice) = splice {
            let rewritten = splice.parts(&body).concat();
            let after = inspect(&rewritten, ALL);
            let (before, after) = (verdict(&body, &before), verdict(&rewritten, &after));
            prop_assert_eq!(after.model.map(|(name, _)| name), Some(to.trim().to_owned()));
            prop_assert_eq!(after.stream, before.stream);
        }
    }
}

type Members = Vec<(String, Box<RawValue>)>;

/// The members of an object in order, as a JSON library sees them; `None` if it refuses anything
/// in there.
fn members(body: &[u8]) -> Option<Members> {
    struct InOrder;
    impl<'de> serde::de::Visitor<'de> for InOrder {
        type Value = Members;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }
    serde_json::from_slice::<Value>(body).ok()?;
    let mut json = serde_json::Deserializer::from_slice(body);
    serde::Deserializer::deserialize_map(&mut json, InOrder).ok()
}

fn elements(raw: &str) -> Vec<Box<RawValue>> {
    serde_json::from_str(raw).unwrap_or_default()
}

/// The rules of the contract, over parsed members.
fn reference(top: &Members) -> Verdict {
    let last = |key: &str| {
        top.iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, raw)| raw.get())
    };
    let present =
        |key: &str| last(key).filter(|raw| !["null", "[]"].contains(&squeezed(raw).as_str()));
    let messages = present("messages");
    let first = messages.and_then(|raw| members(elements(raw).first()?.get().as_bytes()));
    let model = strings(top, |key| key == "model")
        .last()
        .or_else(|| strings(top, |key| key.eq_ignore_ascii_case("model")).last())
        .and_then(trimmed)
        .map(|name| (name, NameSource::Model))
        .or_else(|| {
            Some((
                trimmed(strings(top, |key| key == "name").last()?)?,
                NameSource::Name,
            ))
        })
        .or_else(|| {
            let name = trimmed(strings(first.as_ref()?, |key| key == "model").last()?)?;
            Some((name, NameSource::Message))
        });
    Verdict {
        images: model.is_none() && messages.is_some_and(has_image),
        model,
        stream: last("stream") == Some("true"),
    }
}

/// The strings under a key, as they stand there.
fn strings(members: &Members, key: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    let values = members
        .iter()
        .filter(move |(k, _)| key(k))
        .map(|(_, raw)| raw.get());
    values.filter(|raw| raw.starts_with('"'))
}

fn has_image(messages: &str) -> bool {
    let objects = |raw: &str| -> Vec<Members> {
        elements(raw)
            .iter()
            .filter_map(|element| members(element.get().as_bytes()))
            .collect()
    };
    let messages = objects(messages);
    let contents = messages
        .iter()
        .flatten()
        .filter(|(key, _)| key == "content");
    contents
        .flat_map(|(_, raw)| objects(raw.get()))
        .any(|part| {
            let decoded = |raw: &str| serde_json::from_str::<String>(raw).unwrap_or_default();
            strings(&part, |key| key == "type")
                .any(|raw| ["image", "image_url"].contains(&&*decoded(raw)))
                || strings(&part, |key| key == "text")
                    .any(|raw| decoded(raw).starts_with("data:image/"))
        })
}

fn trimmed(raw: &str) -> Option<String> {
    let name: String = serde_json::from_str(raw).ok()?;
    (!name.trim().is_empty()).then(|| name.trim().to_owned())
}

fn squeezed(raw: &str) -> String {
    raw.split_whitespace().collect()
}

/// A string as it stands in JSON, quotes included; often long enough for several blocks.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z ]{0,9}",
        "[ -~]{0,5}".prop_map(|text| text.replace('\\', "/").replace('"', "'")),
        Just("x".repeat(61)),
        prop::sample::select(vec![
            r#"\""#,
            r"\\",
            r"\\\\\\",
            r"\n",
            r"\/",
            r"\u006d",
            r"\u00e9",
            r"\ud83d\ude00",
            "é",
            "{",
            "}",
            "[",
            "]",
            "\u{7f}",
            r#"\\\"model\":\"x\""#,
            "data:image/",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..7).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "model",
        "model",
        "Model",
        "MODEL",
        r"mod\u0065l",
        r"M\u006fdel",
        "name",
        "stream",
        r"stre\u0061m",
        "messages",
        "messages",
        "prompt",
        "content",
        "type",
        "text",
    ];
    let known = prop::sample::select(known.map(|key| format!("\"{key}\"")).to_vec());
    prop_oneof![9 => known, 1 => text()]
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n  ", "\t\r\n"])
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => text(),
        1 => prop::sample::select(vec![
            "true", "false", "null", "0", "-1.5e+3", r#""image""#, r#""image_url""#, "[ ]", "{ }",
            r#""data:image\/png""#, r#"" ""#, r#""\u0020a""#,
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let array =
            prop::collection::vec((blank(), inner.clone(), blank()), 0..5).prop_map(|items| {
                items
                    .into_iter()
                    .map(|(a, item, b)| format!("{a}{item}{b}"))
            });
        prop_oneof![
            array.prop_map(|items| format!("[{}]", items.collect::<Vec<_>>().join(","))),
            prop::collection::vec(member_of(inner), 0..5)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn member_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (blank(), key(), blank(), blank(), value)
        .prop_map(|(a, key, b, c, value)| format!("{a}{key}{b}:{c}{value}"))
}

/// Half of the members are of the kind that is looked for.
fn top_level_member() -> impl Strategy<Value = String> {
    let stream = prop::sample::select(vec!["true", "false", "null", "1"]);
    let part = prop_oneof![member_of(text()), member_of(value())];
    let part = prop::collection::vec(part, 0..3).prop_map(|part| format!("{{{}}}", part.join(",")));
    let message = prop_oneof![
        2 => member_of(text()),
        1 => prop::collection::vec(part, 0..3)
            .prop_map(|parts| format!(r#""content":[{}]"#, parts.join(", "))),
    ];
    let message = prop::collection::vec(message, 0..3);
    let messages = prop::collection::vec(message, 0..3).prop_map(|messages| {
        let messages = messages
            .iter()
            .map(|message| format!("{{{}}}", message.join(",")));
        format!(r#""messages":[{}]"#, messages.collect::<Vec<_>>().join(","))
    });
    prop_oneof![
        2 => member_of(text()),
        2 => messages,
        1 => stream.prop_map(|value| format!(r#""stream" : {value}"#)),
        4 => member_of(value()),
    ]
}
