//! The text of a model's reasoning in `encrypted_content`. It is no secret: it is the client's own
//! data, and only the name is the API's (docs/contract/dialects.md#8.2).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// What tells our form from those of other servers.
const PREFIX: &str = "olla1.";

/// Appends a text, which is the inside of a JSON string in either form.
pub(super) fn write_wrapped(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFIX.as_bytes());
    out.extend_from_slice(BASE64_URL_SAFE_NO_PAD.encode(text).as_bytes());
}

/// The text; `None` if it was not wrapped here.
pub(super) fn unwrapped(content: &str) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(content.strip_prefix(PREFIX)?)
        .ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for text in ["", "look", "\"é\n😀\u{0}", &"x".repeat(1000)] {
            let mut out = Vec::new();
            write_wrapped(text, &mut out);
            assert_eq!(
                unwrapped(std::str::from_utf8(&out).unwrap()).as_deref(),
                Some(text)
            );
        }
        let mut out = Vec::new();
        write_wrapped("look", &mut out);
        assert_eq!(out, b"olla1.bG9vaw");
        for other in [
            "",
            "gAAAAA",
            "olla1.bG9vaw==",
            "olla1.!",
            "olla2.bG9vaw",
            "olla1._w",
        ] {
            assert_eq!(unwrapped(other), None, "{other}");
        }
    }
}
