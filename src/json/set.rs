//! Sets one member of an object in its text; every other byte stays.

use std::ops::Range;

use super::index::NO_INDEX;
use super::scan::skip_blanks;
use super::value::JsonValue;

/// The text with the member `key` of its object set to `value`, which is JSON: in place if the object
/// has it, each time that it does, else in front. `None` = the text is no object. The text need not
/// be valid beyond that.
pub(crate) fn set_member(text: &[u8], key: &str, value: &[u8]) -> Option<Vec<u8>> {
    let start = skip_blanks(text, 0);
    if text.get(start) != Some(&b'{') {
        return None;
    }
    let object = JsonValue::at(text, &NO_INDEX, &(start..text.len()));
    let members = object.members();
    let found: Vec<Range<usize>> = members
        .filter(|(name, _)| name.is(key))
        .map(|(_, value)| value.span())
        .collect();
    let mut out = Vec::with_capacity(text.len() + key.len() + value.len() + 8);
    let mut copied = 0;
    for span in &found {
        out.extend_from_slice(text.get(copied..span.start)?);
        out.extend_from_slice(value);
        copied = span.end;
    }
    if found.is_empty() {
        let inside = start + 1;
        out.extend_from_slice(text.get(..inside)?);
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
        if text.get(skip_blanks(text, inside)) != Some(&b'}') {
            out.push(b',');
        }
        copied = inside;
    }
    out.extend_from_slice(text.get(copied..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_member_is_replaced_or_put_in_front() {
        let table: [(&str, Option<&str>); 11] = [
            (r#"{"a":1}"#, Some(r#"{"s":"v","a":1}"#)),
            ("{}", Some(r#"{"s":"v"}"#)),
            (" {\n} ", Some(" {\"s\":\"v\"\n} ")),
            (r#"{"s":null,"a":1}"#, Some(r#"{"s":"v","a":1}"#)),
            (
                r#"{"a":{"s":1},"s" : [1, 2] }"#,
                Some(r#"{"a":{"s":1},"s" : "v" }"#),
            ),
            (r#"{"s":1,"s":2}"#, Some(r#"{"s":"v","s":"v"}"#)),
            (r#"{"\u0073":1}"#, Some(r#"{"\u0073":"v"}"#)),
            ("[]", None),
            ("", None),
            ("\"s\"", None),
            ("{", Some("{\"s\":\"v\",")),
        ];
        for (text, want) in table {
            let got = set_member(text.as_bytes(), "s", b"\"v\"");
            let got = got.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_other_members_stay(text in "[{}\\[\\]\":,su0-9\\\\ ]{0,40}") {
            let before = serde_json::from_str::<serde_json::Map<_, _>>(&text);
            if let (Some(set), Ok(mut want)) = (set_member(text.as_bytes(), "s", b"7"), before) {
                want.insert("s".to_owned(), serde_json::json!(7));
                let got: serde_json::Value = serde_json::from_slice(&set).unwrap();
                prop_assert_eq!(got, serde_json::Value::Object(want));
            }
        }
    }
}
