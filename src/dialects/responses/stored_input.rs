//! The input of a request as it is stored (docs/contract/dialects.md#9).
//!
//! It is made when the request is read, where long steps are taken by another thread, so that
//! nothing of it has to be parsed when the response is complete.

use std::hash::Hasher;
use std::ops::Range;

use rustc_hash::FxHasher;

use super::input::{ReferencedItems, references};
use super::object::made_id;
use super::request::{RequestField, RequestValues};
use crate::json::{JsonText, JsonValue, parse};

/// An array of items, and where each is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredInput {
    /// JSON text; empty = there is no input.
    pub(super) items: Vec<u8>,
    /// The id and the place of each.
    pub(super) places: Vec<(String, Range<usize>)>,
}

impl StoredInput {
    /// The input of a request. Items without an id get one, which is made of the body.
    pub(super) fn of(fields: &RequestValues<'_>, body: &[u8]) -> Self {
        let mut hash = FxHasher::default();
        hash.write(body);
        let mut writer = Writer {
            stored: Self::default(),
            seed: hash.finish(),
        };
        if let Some(text) = fields.text(RequestField::Input) {
            writer.message(text);
        }
        for item in fields.elements(RequestField::Input) {
            writer.item(item);
        }
        writer.finish()
    }

    /// The same with what references refer to in their places.
    pub(super) fn resolved(&self, referenced: &ReferencedItems) -> Self {
        let mut writer = Writer {
            stored: Self::default(),
            seed: 0,
        };
        let items = parse(&self.items).into_iter().flat_map(JsonValue::elements);
        for item in items {
            let id = references(std::iter::once(item)).next();
            let stored = id.and_then(|id| referenced.get(&id));
            writer.item(stored.and_then(|text| parse(text)).unwrap_or(item));
        }
        writer.finish()
    }
}

struct Writer {
    stored: StoredInput,
    seed: u64,
}

impl Writer {
    fn finish(mut self) -> StoredInput {
        if self.stored.items.is_empty() {
            self.stored.items.push(b'[');
        }
        self.stored.items.push(b']');
        self.stored
    }

    fn begin(&mut self) -> usize {
        let items = &mut self.stored.items;
        items.push(if items.is_empty() { b'[' } else { b',' });
        items.len()
    }

    fn end(&mut self, id: String, start: usize) {
        let place = start..self.stored.items.len();
        self.stored.places.push((id, place));
    }

    /// Text becomes a message of the user.
    fn message(&mut self, text: JsonText<'_>) {
        let start = self.begin();
        let id = self.made("message");
        let items = &mut self.stored.items;
        write_id(&id, items);
        items.extend_from_slice(
            br#","type":"message","role":"user","content":[{"type":"input_text","text":""#,
        );
        text.write(items);
        items.extend_from_slice(br#""}]}"#);
        self.end(id, start);
    }

    fn item(&mut self, item: JsonValue<'_>) {
        let start = self.begin();
        let [kind, id] = item
            .given(["type", "id"])
            .map(|field| field.and_then(JsonValue::string));
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            item.write_compact(&mut self.stored.items);
            return self.end(id.decode().into_owned(), start);
        }
        let id = self.made(&kind.map_or("message".into(), JsonText::decode));
        let items = &mut self.stored.items;
        write_id(&id, items);
        for (key, value) in item.members().filter(|(key, _)| !key.is("id")) {
            items.extend_from_slice(b",\"");
            key.write(items);
            items.extend_from_slice(b"\":");
            value.write_compact(items);
        }
        items.push(b'}');
        self.end(id, start);
    }

    fn made(&self, kind: &str) -> String {
        let nth = self.stored.places.len() as u64;
        made_id(id_prefix(kind), self.seed, nth)
    }
}

/// Appends the beginning of an item.
fn write_id(id: &str, items: &mut Vec<u8>) {
    items.extend_from_slice(br#"{"id":""#);
    items.extend_from_slice(id.as_bytes());
    items.push(b'"');
}

fn id_prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg_",
        "reasoning" => "rs_",
        "function_call" => "fc_",
        "custom_tool_call" => "ctc_",
        "local_shell_call" => "lsh_",
        "function_call_output" => "fco_",
        "custom_tool_call_output" => "ctco_",
        "local_shell_call_output" => "lsho_",
        _ => "item_",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialects::responses::request::ResponsesRequest;

    fn stored(input: &Value) -> StoredInput {
        let body = json!({"model": "m", "input": input}).to_string();
        let request = ResponsesRequest::read(body.as_bytes()).unwrap();
        StoredInput::of(&request.fields(body.as_bytes()), body.as_bytes())
    }

    fn items(stored: &StoredInput) -> Vec<Value> {
        let items: Vec<Value> = serde_json::from_slice(&stored.items).unwrap();
        assert_eq!(items.len(), stored.places.len());
        for (item, (id, place)) in items.iter().zip(&stored.places) {
            assert_eq!(item["id"], id.as_str());
            let placed: Value = serde_json::from_slice(&stored.items[place.clone()]).unwrap();
            assert_eq!(&placed, item);
        }
        items
    }

    #[test]
    fn items_have_ids() {
        let found = items(&stored(&json!([
            {"role": "user", "content": "x"},
            {"type": "function_call", "id": "own", "call_id": "c"},
            {"type": "function_call_output", "id": null, "call_id": "c", "output": "y"},
            {"type": "new", "id": ""},
        ])));
        let ids: Vec<_> = found
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        assert!(ids[0].starts_with("msg_") && ids[2].starts_with("fco_"));
        assert!(ids[3].starts_with("item_") && ids[1] == "own");
        assert_ne!(ids[0][4..], ids[2][4..]);
        assert_eq!(
            (&found[2]["output"], &found[0]["role"]),
            (&json!("y"), &json!("user"))
        );
        let text = items(&stored(&json!("Hi\n")));
        assert_eq!(
            text[0]["content"],
            json!([{"type": "input_text", "text": "Hi\n"}])
        );
        assert_eq!(stored(&json!([])).items, b"[]");
        assert_eq!(stored(&Value::Null).items, b"[]");
    }

    #[test]
    fn references_are_resolved() {
        let stored = stored(&json!([
            {"role": "user", "content": "x"},
            {"type": "item_reference", "id": "msg_1"},
            {"type": "item_reference", "id": "msg_2"},
        ]));
        let referenced = [(
            "msg_1".to_owned(),
            br#"{"id":"msg_1","role":"assistant"}"#.to_vec(),
        )];
        let found = items(&stored.resolved(&referenced.into()));
        assert_eq!(found[0], items(&stored)[0]);
        assert_eq!(found[1]["role"], "assistant");
        assert_eq!(found[2]["type"], "item_reference");
    }
}
