//! An estimate of the tokens of a request (docs/contract/dialects.md#8.5).

use super::objection::{unknown_item, unknown_previous};
use super::request::ResponsesRequest;
use super::store::{Owner, ResponseStore};
use super::to_chat::{Before, referenced_ids, size_of};
use crate::dialects::chat::error::Refusal;
use crate::json;

/// The store, as a client sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreView<'a> {
    pub(crate) store: &'a ResponseStore,
    pub(crate) owner: Owner,
    pub(crate) now_ms: u64,
}

/// The response to a request for the number of tokens.
///
/// # Errors
/// Status 400: the request is invalid, or continues a response that is not kept; 404: an item that
/// it refers to is not kept.
pub(crate) fn input_tokens(body: &[u8], view: StoreView<'_>) -> Result<Vec<u8>, Refusal> {
    let StoreView {
        store,
        owner,
        now_ms,
    } = view;
    let request = ResponsesRequest::read(body)?;
    let fields = request.fields(body);
    fields.check()?;
    let previous = match &request.previous_response_id {
        Some(id) => {
            let found = store.find(owner, id, now_ms);
            let unknown = || unknown_previous(id, store.bounds().enabled);
            Some(found.ok_or_else(unknown)?)
        }
        None => None,
    };
    let stored = |id: String| {
        let item = store.item(owner, &id, now_ms);
        item.map(|item| (id.clone(), item)).ok_or(id)
    };
    let items: Result<_, String> = referenced_ids(&fields).into_iter().map(stored).collect();
    let items = items.map_err(|id| unknown_item(&id))?;
    let before = Before {
        response: previous.as_deref(),
        items: Some(&items),
    };
    let size = size_of(&fields, before)?;
    let mut out = br#"{"object":"response.input_tokens","input_tokens":"#.to_vec();
    json::write_number(size.tokens(), &mut out);
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialects::responses::store::{KeptObject, KeptResponse, StoreBounds};
    use crate::dialects::responses::stored_input::StoredInput;

    #[test]
    fn what_counts() {
        let store = ResponseStore::new(StoreBounds {
            enabled: true,
            max_items: 10,
            max_bytes: 1 << 20,
            ttl_ms: 1000,
        });
        let owner = Owner(None);
        let object = KeptObject {
            object: b"[]".to_vec(),
            output: 0..2,
        };
        let forty = "x".repeat(40);
        let items = json!([{"id": "i", "role": "user", "content": forty}]).to_string();
        let input = StoredInput {
            places: vec![("i".to_owned(), 1..items.len() - 1)],
            items: items.into_bytes(),
        };
        store.keep(owner, "r", KeptResponse::new(object, input, None), 0);
        let count = |members: Value| {
            let mut body = json!({"model": "m"});
            for (key, value) in members.as_object().unwrap() {
                body[key] = value.clone();
            }
            let view = StoreView {
                store: &store,
                owner,
                now_ms: 1,
            };
            let counted = input_tokens(body.to_string().as_bytes(), view)?;
            let counted: Value = serde_json::from_slice(&counted).unwrap();
            assert_eq!(counted["object"], "response.input_tokens");
            Ok::<_, Refusal>(counted["input_tokens"].as_u64().unwrap())
        };
        let image = json!([{"role": "user", "content": [
            {"type": "input_text", "text": forty}, {"type": "input_image", "image_url": "u"}]}]);
        for (members, tokens) in [
            (json!({"input": forty}), 10),
            (json!({"input": "abc"}), 1),
            (json!({"input": forty, "instructions": forty}), 20),
            (json!({"input": image}), 1010),
            (
                json!({"input": [{"type": "function_call", "name": "abcd", "arguments": "{\"a\":1}",
                               "call_id": "c"}]}),
                2,
            ),
            (
                json!({"input": forty, "tools": [{"type": "function", "name": "abcd",
                    "description": "zzzz", "parameters": {"type": "object"}}]}),
                16,
            ),
            (json!({"previous_response_id": "r", "input": forty}), 20),
            (
                json!({"input": [{"type": "item_reference", "id": "i"}]}),
                10,
            ),
        ] {
            assert_eq!(count(members.clone()).unwrap(), tokens, "{members}");
        }
        for (members, status, param) in [
            (json!({}), 400, "input"),
            (
                json!({"previous_response_id": "s"}),
                400,
                "previous_response_id",
            ),
            (
                json!({"input": [{"type": "item_reference", "id": "j"}]}),
                404,
                "input",
            ),
        ] {
            let refusal = count(members).unwrap_err();
            assert_eq!((refusal.status, refusal.param()), (status, Some(param)));
        }
    }
}
