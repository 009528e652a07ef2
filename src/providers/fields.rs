//! JSON objects in which a field may be missing, of any type or size, or malformed.
//!
//! A document is read in one of two ways, which give the same fields:
//!
//! - simd-json parses all of it at once. This is two to three times faster and covers every
//!   document that is valid throughout, not nested too deep and of a bounded number of values.
//! - Otherwise each value stays as written until it is needed, and is validated alone then: a
//!   number that no type can hold or an invalid escape costs that field, never its neighbours, and
//!   what is not needed is skipped without recursion, however deep it is nested.
//!
//! Contract: docs/contract/catalogue.md#3.4

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr_iter, memchr2_iter, memmem};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::{Buffers, Node, StaticNode};

/// How deep simd-json follows nested values. The listings of all known servers end at five.
const PARSED_DEPTH_MAX: usize = 64;

/// The most commas and opening brackets of a document that simd-json parses. Each stands for at
/// most two nodes of 24 bytes, so this bounds what a document can make of the memory.
const PARSED_MARKS_MAX: usize = 1 << 19;

/// Reads a document that is an object: calls `read` with its fields. `None`: it is not an object.
pub(super) fn with_object<T>(text: &str, read: impl FnOnce(&RawFields<'_>) -> T) -> Option<T> {
    if is_parsable(text) {
        let mut bytes = text.as_bytes().to_vec();
        let mut buffers = Buffers::with_max_depth(bytes.len(), PARSED_DEPTH_MAX);
        if let Ok(tape) = simd_json::to_tape_with_buffers(&mut bytes, &mut buffers) {
            return RawFields::of(RawField::Parsed(&tape.0)).map(|fields| read(&fields));
        }
    }
    with_written_object(text, read)
}

/// As [`with_object`], but every value keeps its spelling.
pub(super) fn with_written_object<T>(
    text: &str,
    read: impl FnOnce(&RawFields<'_>) -> T,
) -> Option<T> {
    let fields: RawFields<'_> = serde_json::from_str(text).ok()?;
    Some(read(&fields))
}

/// Whether simd-json may parse a document: the number of its values is bounded, and it has no
/// escape of a surrogate. simd-json lets some halves of a pair pass, which spoil the string here.
fn is_parsable(text: &str) -> bool {
    let text = text.as_bytes();
    let is_surrogate = |at: usize| matches!(text.get(at + 2), Some(b'd' | b'D'));
    if memmem::find_iter(text, br"\u").any(is_surrogate) {
        return false;
    }
    let commas = memchr_iter(b',', text).count();
    let brackets = memchr2_iter(b'{', b'[', text).count();
    commas + brackets <= PARSED_MARKS_MAX
}

/// A value of a document.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawField<'a> {
    /// The value's own node and those inside of it.
    Parsed(&'a [Node<'a>]),
    /// The value as written.
    Written(&'a RawValue),
}

impl<'a> RawField<'a> {
    fn is_null(self) -> bool {
        match self {
            Self::Parsed(nodes) => matches!(nodes, [Node::Static(StaticNode::Null), ..]),
            Self::Written(raw) => raw.get() == "null",
        }
    }

    /// A string that is not blank.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        /// `Cow` alone would always be read as owned.
        #[derive(serde::Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        let text = match self {
            Self::Parsed([Node::String(text), ..]) => Cow::Borrowed(*text),
            Self::Parsed(_) => return None,
            Self::Written(raw) => {
                let Text(text) = serde_json::from_str(raw.get()).ok()?;
                text
            }
        };
        (!text.trim().is_empty()).then_some(text)
    }

    /// The value as written, if its spelling was kept.
    pub(super) fn written(self) -> Option<&'a RawValue> {
        match self {
            Self::Parsed(_) => None,
            Self::Written(raw) => Some(raw),
        }
    }

    fn list(self) -> Option<Vec<Self>> {
        match self {
            Self::Parsed([Node::Array { .. }, elements @ ..]) => {
                Some(Values(elements).map(Self::Parsed).collect())
            }
            Self::Parsed(_) => None,
            Self::Written(raw) => {
                let raws: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
                Some(raws.into_iter().map(Self::Written).collect())
            }
        }
    }
}

/// The values that stand one after another in a range of nodes.
struct Values<'a>(&'a [Node<'a>]);

impl<'a> Iterator for Values<'a> {
    type Item = &'a [Node<'a>];

    fn next(&mut self) -> Option<Self::Item> {
        let inside = match self.0.first()? {
            Node::Object { count, .. } | Node::Array { count, .. } => *count,
            Node::String(_) | Node::Static(_) => 0,
        };
        let (value, rest) = self.0.split_at_checked(1 + inside)?;
        self.0 = rest;
        Some(value)
    }
}

/// The fields of one object, in its order.
pub(super) enum RawFields<'a> {
    /// The nodes of keys and values by turns.
    Parsed(&'a [Node<'a>]),
    Written(Vec<(Cow<'a, str>, &'a RawValue)>),
}

impl<'a> RawFields<'a> {
    /// The fields of an object; `None`: it is not an object.
    pub(super) fn of(value: RawField<'a>) -> Option<Self> {
        match value {
            RawField::Parsed([Node::Object { .. }, members @ ..]) => Some(Self::Parsed(members)),
            RawField::Parsed(_) => None,
            RawField::Written(raw) => serde_json::from_str(raw.get()).ok(),
        }
    }

    /// A field that is there and not `null`. Of duplicates the last, as in most readers.
    pub(super) fn get(&self, name: &str) -> Option<RawField<'a>> {
        let found = match self {
            Self::Parsed(members) => {
                let mut values = Values(members);
                let mut found = None;
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    if matches!(key, [Node::String(key)] if *key == name) {
                        found = Some(RawField::Parsed(value));
                    }
                }
                found
            }
            Self::Written(fields) => {
                let found = fields.iter().rev().find(|(key, _)| key == name);
                found.map(|(_, raw)| RawField::Written(raw))
            }
        };
        found.filter(|value| !value.is_null())
    }

    /// An object within this one.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.get(name)?)
    }

    /// The items of a list; `None`: it is not a list.
    pub(super) fn list(&self, name: &str) -> Option<Vec<RawField<'a>>> {
        self.get(name)?.list()
    }

    /// A string that is not blank.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.text()
    }

    /// The strings of a list; other items are left out.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let items = self.list(name).into_iter().flatten();
        items.filter_map(RawField::text)
    }

    /// A whole number above zero: also written as a float or as digits in a string.
    pub(super) fn positive(&self, name: &str) -> Option<u64> {
        self.whole(name).filter(|number| *number > 0)
    }

    /// A whole number from zero: also written as a float or as digits in a string.
    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        let field = self.get(name)?;
        match (field, field.text()) {
            (_, Some(digits)) => whole(digits.trim()),
            (RawField::Parsed([Node::Static(number), ..]), None) => match *number {
                StaticNode::U64(number) => Some(number),
                StaticNode::I64(number) => u64::try_from(number).ok(),
                StaticNode::F64(number) => whole_float(number),
                StaticNode::Bool(_) | StaticNode::Null => None,
            },
            (RawField::Parsed(_), None) => None,
            (RawField::Written(raw), None) => whole(raw.get()),
        }
    }

    /// `true` or `false`.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            RawField::Parsed([Node::Static(StaticNode::Bool(yes)), ..]) => Some(*yes),
            RawField::Parsed(_) => None,
            RawField::Written(raw) => raw.get().parse().ok(),
        }
    }
}

/// Reads `8192`, `8192.0` or `8.192e3`. Floats are exact up to 2^53, beyond that as near as they
/// are.
fn whole(number: &str) -> Option<u64> {
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    number
        .parse()
        .ok()
        .or_else(|| whole_float(number.parse().ok()?))
}

fn whole_float(number: f64) -> Option<u64> {
    const BEYOND: f64 = u64::MAX as f64;
    (number.fract() == 0.0 && number < BEYOND).then_some(number as u64)
}

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    fields.push((key.0, map.next_value()?));
                }
                Ok(RawFields::Written(fields))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// A key, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Both readers; `false`: simd-json left the document to the other one.
    fn both<T: PartialEq + fmt::Debug>(
        text: &str,
        read: impl Fn(&RawFields<'_>) -> T,
    ) -> (Option<T>, bool) {
        let written = with_written_object(text, &read);
        let parsed = with_object(text, |fields| {
            (read(fields), matches!(fields, RawFields::Parsed(_)))
        });
        let is_parsed = parsed.as_ref().is_some_and(|(_, is_parsed)| *is_parsed);
        assert_eq!(parsed.map(|(value, _)| value), written, "{text}");
        (written, is_parsed)
    }

    #[test]
    fn numbers_are_read_leniently() {
        let table = [
            ("8192", Some(8192)),
            ("8192.0", Some(8192)),
            ("1.7e9", Some(1_700_000_000)),
            ("\"8192\"", Some(8192)),
            ("\" 8192 \"", Some(8192)),
            ("\"1.7e9\"", Some(1_700_000_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("9007199254740993.0", Some(9_007_199_254_740_992)),
            ("0", None),
            ("-0", None),
            ("-1", None),
            ("-9223372036854775808", None),
            ("8192.5", None),
            ("1e400", None),
            ("18446744073709551616", None),
            ("18446744073709551616.0", None),
            ("\"\"", None),
            ("\"8k\"", None),
            ("\"inf\"", None),
            ("\"+5\"", None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ];
        for (number, expected) in table {
            let object = format!("{{\"n\":{number}}}");
            let (found, _) = both(&object, |fields| fields.positive("n"));
            assert_eq!(found, Some(expected), "{number}");
        }
    }

    #[test]
    fn a_valid_document_is_parsed_at_once() {
        let text = r#" {"a\u0062":"x\n","o":{"k":[1,"p",{"z":[]},null,"q"],"e":"y"},"e":1,"e":"z",
            "f":true,"g":"true","h":null} "#;
        let (found, is_parsed) = both(text, |fields| {
            assert_eq!(fields.text("ab").as_deref(), Some("x\n"));
            assert_eq!(fields.text("e").as_deref(), Some("z"), "the last of two");
            assert_eq!(
                (fields.bool("f"), fields.bool("g"), fields.bool("h")),
                (Some(true), None, None)
            );
            assert!(fields.get("h").is_none() && fields.get("k").is_none());
            assert!(fields.object("e").is_none() && fields.list("o").is_none());
            let inner = fields.object("o").unwrap();
            assert_eq!(inner.list("k").unwrap().len(), 5);
            assert_eq!(inner.text("e").as_deref(), Some("y"));
            inner.texts("k").map(Cow::into_owned).collect::<Vec<_>>()
        });
        assert_eq!(found.unwrap(), ["p", "q"]);
        assert!(is_parsed);
    }

    #[test]
    fn one_bad_field_leaves_the_others() {
        let object = r#"{"a":1e999,"b":"\ud800","a\u0062":"x","c":[[[]]],"d":" ","e":"y","e":"z",
                "l":[1,"p",null,"q"],"f":true,"g":"true"}"#;
        let (_, is_parsed) = both(object, |fields| {
            assert_eq!(fields.positive("a"), None);
            assert_eq!(fields.text("b"), None);
            assert_eq!(fields.text("ab").as_deref(), Some("x"));
            assert_eq!(fields.text("c"), None);
            assert_eq!(fields.text("d"), None);
            assert_eq!(fields.text("e").as_deref(), Some("z"), "the last of two");
            let texts: Vec<_> = fields.texts("l").collect();
            assert_eq!(texts, ["p", "q"]);
            assert_eq!((fields.bool("f"), fields.bool("g")), (Some(true), None));
            assert!(fields.object("c").is_none() && fields.list("e").is_none());
        });
        assert!(!is_parsed);
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        for half in [
            r"\ud83d",
            r"\ud83d{ude00\u0001",
            r"\uDE00",
            r"\ud83dx",
            r"\ud83d\u0041",
        ] {
            let object = format!(r#"{{"a":{{"{half}":1}},"b":"{half}","c":"\ud83d\ude00"}}"#);
            both(&object, |fields| {
                assert!(fields.object("a").is_none() && fields.text("b").is_none());
                assert_eq!(fields.text("c").as_deref(), Some("\u{1f600}"));
            });
        }
    }

    #[test]
    fn deep_and_crowded_documents_are_skipped_without_parsing() {
        for depth in [PARSED_DEPTH_MAX - 2, PARSED_DEPTH_MAX, 1_000_000] {
            let deep = format!(
                r#"{{"x":{}{},"n":7}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            );
            let (found, is_parsed) = both(&deep, |fields| fields.positive("n"));
            assert_eq!(found, Some(Some(7)));
            assert_eq!(is_parsed, depth < PARSED_DEPTH_MAX, "{depth}");
        }
        for (count, expected) in [(PARSED_MARKS_MAX / 2, true), (PARSED_MARKS_MAX, false)] {
            let crowded = format!(r#"{{"n":7,"x":[{}0]}}"#, "0,".repeat(count));
            let (found, is_parsed) = both(&crowded, |fields| fields.positive("n"));
            assert_eq!((found, is_parsed), (Some(Some(7)), expected));
        }
        // Never closed, and closed too often.
        let open = "[".repeat(2_000_000);
        let closed = "]".repeat(2_000_000);
        for text in [
            format!(r#"{{"x":{open}"#),
            format!(r#"{{"x":{closed}"#),
            format!("{{\"{}", "\\\"".repeat(1_000_000)),
            "{\"a\":".repeat(500_000),
        ] {
            assert_eq!(both(&text, |_| ()), (None, false));
        }
    }

    /// All that can be found in an object.
    fn all(fields: &RawFields<'_>) -> String {
        let keys = ["a", "b", "\u{e9}", ""];
        let found = keys.map(|key| {
            let inner = fields.object(key).map(|inner| all(&inner));
            let list = fields.list(key).map(|list| {
                let inside = |item| RawFields::of(item).map(|inner| all(&inner));
                list.into_iter().map(inside).collect::<Vec<_>>()
            });
            let texts: Vec<_> = fields.texts(key).collect();
            (
                fields.get(key).is_some(),
                fields.text(key),
                fields.positive(key),
                fields.bool(key),
                texts,
                inner,
                list,
            )
        });
        format!("{found:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        #[test]
        fn both_readers_find_the_same(
            value in crate::json::tests::any_json(),
            other in crate::json::tests::any_json(),
            key in prop::sample::select(vec!["a", "b", "\u{e9}", "\\u00e9", "\\u0061", ""]),
        ) {
            both(&format!(r#"{{"{key}":{value},"b":[{other},{{"a":{value}}}],"a":{other}}}"#), all);
        }

        #[test]
        fn both_readers_refuse_the_same(
            value in crate::json::tests::any_json(),
            spoiled in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
                prop::sample::select("{}[]\",:\\ \n\t\u{1}\u{0}0-+.eEntfu/x".chars().collect::<Vec<_>>()),
                any::<char>(),
            ]), 1..3),
        ) {
            let mut text: Vec<char> = format!(r#"{{"a":{value},"b":1.5}}"#).chars().collect();
            for (at, with) in spoiled {
                let at = at.index(text.len());
                text[at] = with;
            }
            both(&text.into_iter().collect::<String>(), all);
        }
    }
}
