use proptest::prelude::*;

use super::index::NO_INDEX;
use super::*;

fn value(text: &str) -> JsonValue<'_> {
    parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
}

fn compact(text: &str) -> String {
    let mut out = Vec::new();
    value(text).write_compact(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_json() {
    for text in [
        "1",
        " {} \r\n",
        "[1,2.50,-0,1e400]",
        r#"{"a":[{"b":"\"]}"}],"c":null}"#,
        r#""\ud800""#,
        "\"\u{7f}é\"",
    ] {
        assert!(parse(text.as_bytes()).is_some(), "{text}");
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(parse(deep.as_bytes()).is_some());
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\"}",
        "nul",
        "01",
        "1 2",
        "\"\n\"",
        r#""\x""#,
        r#""\u12g4""#,
        "{'a':1}",
        "[1]]",
        "\u{feff}1",
    ] {
        assert!(parse(text.as_bytes()).is_none(), "{text}");
    }
    assert!(parse(b"\"\xff\"").is_none());
}

#[test]
fn members_and_elements() {
    let object = value(r#" { "a" : 1 , "b" : [ ] , "\u0061" : { "c" : "}" } , "n":null } "#);
    assert_eq!(object.field("a").unwrap().raw(), br#"{ "c" : "}" }"#);
    assert_eq!(object.field("b").unwrap().raw(), b"[ ]");
    assert!(object.field("c").is_none());
    let [a, n] = object.given(["a", "n"]);
    assert!(a.is_some() && n.is_none());
    let list = value(r#"[ 1 , "x,]" , [2,[3]] , {} , true ]"#);
    let raws: Vec<_> = list.elements().map(JsonValue::raw).collect();
    assert_eq!(raws, [&b"1"[..], b"\"x,]\"", b"[2,[3]]", b"{}", b"true"]);
    assert_eq!(value("7").elements().count(), 0);
    assert!(value("7").field("a").is_none());
    assert_eq!(value("[]").elements().count(), 0);
}

#[test]
fn numbers() {
    for (text, unsigned, number) in [
        ("0", Some(0), Some(0.0)),
        (
            "18446744073709551615",
            Some(u64::MAX),
            Some(u64::MAX as f64),
        ),
        (
            "18446744073709551616",
            None,
            Some(18_446_744_073_709_551_616.0),
        ),
        ("-1", None, Some(-1.0)),
        ("1.0", None, Some(1.0)),
        ("1e2", None, Some(100.0)),
        ("\"1\"", None, None),
        ("null", None, None),
    ] {
        assert_eq!(value(text).unsigned(), unsigned, "{text}");
        assert_eq!(value(text).number(), number, "{text}");
    }
}

#[test]
fn strings() {
    let smile = r#""\ud83d\ude00\/\"\\\n\u0000\u0041\u00e9é""#;
    let text = value(smile).string().unwrap();
    assert_eq!(text.decode(), "😀/\"\\\n\0Aéé");
    assert_eq!(text.len(), text.decode().len());
    assert_eq!(compact(smile), r#""😀/\"\\\n\u0000Aéé""#);
    // Halves of a pair are no text.
    assert_eq!(
        compact(r#""\ud83dx\ude00\ud83d\n""#),
        "\"\u{fffd}x\u{fffd}\u{fffd}\\n\""
    );
    let long = format!(r#""{}\udc00""#, "x".repeat(80));
    assert_eq!(compact(&long), format!("\"{}\u{fffd}\"", "x".repeat(80)));
    let half = value(r#""\ud83d""#).string().unwrap();
    assert_eq!((half.decode().as_ref(), half.len()), ("\u{fffd}", 3));
    assert!(value(r#""mod\u0065l""#).string().unwrap().is("model"));
    assert!(!value(r#""mode""#).string().unwrap().is("model"));
}

#[test]
fn compact_keeps_numbers_as_spelled() {
    assert_eq!(
        compact(
            " { \"a\" : [ 1.50 , 1E2,\t123456789012345678901234567890 ] ,\n\"b c\" : \" x \" } "
        ),
        r#"{"a":[1.50,1E2,123456789012345678901234567890],"b c":" x "}"#
    );
}

/// JSON of any kind, with blanks and escapes.
pub(crate) fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any_string(),
    ];
    scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|list| format!("[ {} ]", list.join(" ,\n"))),
            prop::collection::vec((any_string(), inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{key} :{value}"))
                    .collect();
                format!("{{{}\t}}", members.join(","))
            }),
        ]
    })
}

fn any_string() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            "[a-z{}\\[\\], :]{0,6}",
            prop::sample::select(vec![
                r#"\""#,
                r"\\",
                r"\n",
                r"\/",
                r"\u00e9",
                r"\ud83d\ude00",
                r"\u0001",
                r"\u0022",
                r"\u005c",
                "é",
                "😀",
            ])
            .prop_map(str::to_owned),
        ],
        0..5,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// The same, by a JSON library.
fn same(ours: JsonValue<'_>, theirs: &serde_json::Value) {
    match theirs {
        serde_json::Value::Null => assert_eq!(ours.kind(), JsonKind::Null),
        serde_json::Value::Bool(yes) => {
            assert_eq!((ours.kind(), ours.is_true()), (JsonKind::Bool, *yes));
        }
        serde_json::Value::Number(number) => {
            assert_eq!(ours.raw(), number.to_string().as_bytes());
        }
        serde_json::Value::String(string) => {
            let text = ours.string().unwrap();
            assert_eq!(
                (text.decode().as_ref(), text.len()),
                (string.as_str(), string.len())
            );
            assert!(string.contains('\\') || text.is(string));
        }
        serde_json::Value::Array(list) => {
            assert_eq!(ours.elements().count(), list.len());
            ours.elements()
                .zip(list)
                .for_each(|(ours, theirs)| same(ours, theirs));
        }
        serde_json::Value::Object(members) => {
            assert!(ours.members().count() >= members.len());
            for (key, theirs) in members.iter().filter(|(key, _)| !key.contains('\\')) {
                same(ours.field(key).unwrap(), theirs);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    })]

    #[test]
    fn agrees_with_a_json_library(text in any_json()) {
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        same(value(&text), &theirs);
        let compact: serde_json::Value = serde_json::from_str(&compact(&text)).unwrap();
        prop_assert_eq!(compact, theirs);
    }

    #[test]
    fn long_texts_and_indexed_ones_agree_too(texts in prop::collection::vec(any_json(), 1..8)) {
        let long = texts.iter().filter(|text| text.starts_with('"')).map(|text| text.trim_matches('"'));
        let long = long.collect::<String>().repeat(9);
        let text = format!(r#"{{"all":[{}],"long":"{}"}}"#, texts.join(" , "), long);
        let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) else {
            // The quote after a backslash was trimmed.
            return Ok(());
        };
        let mut index = SpanIndex::default();
        let ours = parse_indexed(text.as_bytes(), &mut index).unwrap();
        same(ours, &theirs);
        let mut out = Vec::new();
        ours.write_compact(&mut out);
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), theirs);
    }

    #[test]
    fn escapes_what_needs_it(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn unchecked_bytes_are_walked_without_harm(
        bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\u1a \xff".to_vec()), 0..24),
        span in (0..30_usize, 0..30_usize),
    ) {
        let value = JsonValue::at(&bytes, &NO_INDEX, &(span.0..span.1));
        let mut out = Vec::new();
        value.write_compact(&mut out);
        for inner in value.elements().chain(value.field("a")) {
            inner.write_compact(&mut out);
            inner.string().map(|text| text.decode().len() + text.len());
        }
    }
}
