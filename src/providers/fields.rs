//! JSON objects of which single fields may be of any kind or size, or wrong.
//!
//! Every value stays raw until it is asked for, and is judged alone then: a number that no type
//! can hold or a broken escape in one field costs that field, never its neighbours. What is not
//! asked for is passed over without recursion, however deep it is nested. A reader of whole
//! documents into values can promise neither.
//!
//! Contract: docs/contract/catalogue.md#3.4

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of one object, in its order.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Takes an object apart; `None` = it is no object.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// A field that is there and not `null`. Of duplicates the last, as in most readers.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// An object within this one.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::of(self.get(name)?)
    }

    /// The items of a list; `None` = it is no list.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// A text that is not blank.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// The texts of a list, without what is none.
    pub(super) fn texts(&self, name: &str) -> Vec<Cow<'a, str>> {
        let items = self.list(name).unwrap_or_default();
        items.into_iter().filter_map(text).collect()
    }

    /// A whole number above zero: also written as a float or as digits in a text.
    pub(super) fn positive(&self, name: &str) -> Option<u64> {
        let raw = self.get(name)?;
        let number = match text(raw) {
            Some(digits) => whole(digits.trim()),
            None => whole(raw.get()),
        };
        number.filter(|number| *number > 0)
    }

    /// `true` or `false`.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)?.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

/// Reads a JSON string that is not blank.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    /// `Cow` alone would always be read as owned.
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let Text(text) = serde_json::from_str(raw.get()).ok()?;
    (!text.trim().is_empty()).then_some(text)
}

/// Reads `8192`, `8192.0` or `8.192e3`. Floats are exact up to 2^53, beyond that as near as they
/// are.
fn whole(number: &str) -> Option<u64> {
    const BEYOND: f64 = u64::MAX as f64;
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    number.parse().ok().or_else(|| {
        let float: f64 = number.parse().ok()?;
        (float.fract() == 0.0 && float < BEYOND).then_some(float as u64)
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    fields.push((key.0, map.next_value()?));
                }
                Ok(Fields(fields))
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

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
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
            ("0", None),
            ("-1", None),
            ("8192.5", None),
            ("1e400", None),
            ("18446744073709551616", None),
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
            let object = raw(&format!("{{\"n\":{number}}}"));
            assert_eq!(
                Fields::of(&object).unwrap().positive("n"),
                expected,
                "{number}"
            );
        }
    }

    #[test]
    fn one_bad_field_leaves_the_others() {
        let object = raw(
            r#"{"a":1e999,"b":"\ud800","a\u0062":"x","c":[[[]]],"d":" ","e":"y","e":"z",
                "l":[1,"p",null,"q"],"f":true,"g":"true"}"#,
        );
        let fields = Fields::of(&object).unwrap();
        assert_eq!(fields.positive("a"), None);
        assert_eq!(fields.text("b"), None);
        assert_eq!(fields.text("ab").as_deref(), Some("x"));
        assert_eq!(fields.text("c"), None);
        assert_eq!(fields.text("d"), None);
        assert_eq!(fields.text("e").as_deref(), Some("z"), "the last of two");
        assert_eq!(fields.texts("l"), ["p", "q"]);
        assert_eq!((fields.bool("f"), fields.bool("g")), (Some(true), None));
        assert!(fields.object("c").is_none() && fields.list("e").is_none());
    }
}
