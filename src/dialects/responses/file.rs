//! Files in an input, as text (docs/contract/dialects.md#6).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{JsonText, JsonValue};

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The text of a part of type `input_file`: its name, a line feed, and what it holds.
pub(super) fn text(part: JsonValue<'_>) -> Result<String, Refusal> {
    let [data, name] = part
        .given(["file_data", "filename"])
        .map(|field| field.and_then(JsonValue::string));
    let Some(data) = data else {
        let problem = "a file can be sent to this model by its file_data only";
        return Err(invalid("input", problem));
    };
    let data = data.decode();
    let (kind, bytes) = match data.strip_prefix("data:") {
        Some(uri) => data_uri(uri),
        None => (None, BASE64.decode(data.as_ref()).ok()),
    };
    if kind.is_some_and(|kind| !is_text(kind)) {
        let problem = "a file can be sent to this model as text, JSON, XML or YAML only";
        return Err(invalid("input", problem));
    }
    let Some(bytes) = bytes else {
        return Err(invalid(
            "input",
            "expected base64 or a data URI as file_data",
        ));
    };
    let content = match kind {
        Some(_) => String::from_utf8_lossy(&bytes).into_owned(),
        // Nothing says what it is, so it is looked at.
        None => String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.starts_with("%PDF") && !text.contains('\0'))
            .ok_or_else(|| invalid("input", "a file can be sent to this model as text only"))?,
    };
    Ok(match name.map(JsonText::decode) {
        Some(name) if !name.is_empty() => format!("{name}\n{content}"),
        _ => content,
    })
}

/// The media type of a data URI, and its bytes if they can be decoded.
fn data_uri(uri: &str) -> (Option<&str>, Option<Vec<u8>>) {
    let Some((head, data)) = uri.split_once(',') else {
        return (Some(uri), None);
    };
    let kind = head.split(';').next().map_or("", str::trim);
    // Such a URI without a type is one of plain text.
    let kind = if kind.is_empty() { "text/plain" } else { kind };
    let bytes = match head.rsplit(';').next() {
        Some(last) if last.trim().eq_ignore_ascii_case("base64") => BASE64.decode(data).ok(),
        _ => Some(percent_decode_str(data).collect()),
    };
    (Some(kind), bytes)
}

fn is_text(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let Some((family, name)) = kind.split_once('/') else {
        return false;
    };
    let known = [
        "json", "xml", "yaml", "x-yaml", "x-ndjson", "jsonl", "ndjson",
    ];
    let suffix = name.rsplit('+').next().unwrap_or(name);
    family == "text" || family == "application" && known.contains(&suffix)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json;

    fn read(part: &Value) -> Result<String, Refusal> {
        let part = part.to_string();
        text(json::parse(part.as_bytes()).unwrap())
    }

    #[test]
    fn which_files_are_text() {
        for (data, name, text) in [
            ("data:text/plain;base64,aGk=", Some("a.txt"), "a.txt\nhi"),
            ("data:text/markdown;charset=utf-8;base64,aGk", None, "hi"),
            (
                "data:application/json;base64,e30=",
                Some("a.json"),
                "a.json\n{}",
            ),
            ("data:application/ld+json;base64,e30=", None, "{}"),
            ("data:Application/X-YAML;base64,YTogMQ==", Some(""), "a: 1"),
            ("data:text/plain,a%20b", None, "a b"),
            ("data:;base64,aGk=", None, "hi"),
            ("data:text/plain;base64,/w==", None, "\u{fffd}"),
            ("aGk=", Some("a"), "a\nhi"),
            ("", None, ""),
        ] {
            let part = json!({"type": "input_file", "file_data": data, "filename": name});
            assert_eq!(read(&part).as_deref(), Ok(text), "{data}");
        }
        for part in [
            json!({"file_data": "data:application/pdf;base64,aGk="}),
            json!({"file_data": "data:image/png;base64,aGk="}),
            json!({"file_data": "data:text/plain;base64,###"}),
            json!({"file_data": "data:text/plain"}),
            json!({"file_data": "not base64 at all"}),
            json!({"file_data": "JVBERi0xLjc="}),
            json!({"file_data": "/w=="}),
            json!({"file_data": 7}),
            json!({"file_id": "file-1"}),
            json!({"file_url": "http://x/a.txt"}),
        ] {
            let refusal = read(&part).unwrap_err();
            assert_eq!((refusal.status, refusal.param()), (400, Some("input")));
        }
    }
}
