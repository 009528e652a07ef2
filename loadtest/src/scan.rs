//! Finds single fields in JSON without parsing the rest of it.
//!
//! Quotes inside a JSON string are escaped, so text cannot be taken for a key; nesting is not
//! looked at: the first field of the name counts.

use memchr::memmem;

/// What follows the first `"key":` in `json`, blanks left out; `quoted_key` comes with its quotes.
pub fn value_of<'a>(json: &'a [u8], quoted_key: &str) -> Option<&'a [u8]> {
    let mut rest = json;
    loop {
        let at = memmem::find(rest, quoted_key.as_bytes())?;
        rest = &rest[at + quoted_key.len()..];
        if let Some(value) = rest.trim_ascii_start().strip_prefix(b":") {
            return Some(value.trim_ascii_start());
        }
    }
}

/// The value of a field that is a whole number not below zero.
pub fn number_of(json: &[u8], quoted_key: &str) -> Option<u64> {
    let rest = value_of(json, quoted_key)?;
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..length]).ok()?.parse().ok()
}

/// The value of a field that is a string, as it is written: escapes are left alone and end nothing
/// but what a quote ends.
pub fn string_of<'a>(json: &'a [u8], quoted_key: &str) -> Option<&'a [u8]> {
    let inner = value_of(json, quoted_key)?.strip_prefix(b"\"")?;
    Some(&inner[..memchr::memchr(b'"', inner)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_and_not_text() {
        let table: [(&str, Option<&str>); 7] = [
            (r#"{"k":1}"#, Some("1}")),
            (r#"{"k" : 1}"#, Some("1}")),
            (r#"{"a":"k","k":2}"#, Some("2}")),
            (r#"{"a":"\"k\":1","k":2}"#, Some("2}")),
            (r#"{"a":"\"k\":1"}"#, None),
            (r#"{"kk":1}"#, None),
            ("", None),
        ];
        for (json, want) in table {
            assert_eq!(
                value_of(json.as_bytes(), "\"k\""),
                want.map(str::as_bytes),
                "{json}"
            );
        }
    }

    #[test]
    fn reads_numbers_and_strings() {
        let json = br#"{"n":42,"max":18446744073709551616,"s":"x-1","bad":-3,"open":"x}"#;
        assert_eq!(number_of(json, "\"n\""), Some(42));
        assert_eq!(number_of(json, "\"max\""), None);
        assert_eq!(number_of(json, "\"bad\""), None);
        assert_eq!(string_of(json, "\"s\""), Some(b"x-1".as_slice()));
        assert_eq!(string_of(json, "\"n\""), None);
        assert_eq!(string_of(json, "\"open\""), None);
    }
}
