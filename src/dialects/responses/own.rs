//! Responses that are kept, for the routes by which clients see them again
//! (docs/contract/dialects.md#9).

use url::form_urlencoded;

use super::objection::unknown_response;
use super::store::{KeptResponse, Owner, ResponseStore};
use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{self, JsonValue};

/// Items of one page of a list, unless the client says otherwise.
const PAGE_ITEMS: usize = 20;

/// The most items of a page.
const PAGE_ITEMS_MAX: usize = 100;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredPath {
    /// The response.
    Response,
    /// The items of its input.
    InputItems,
    /// The end of its making.
    Cancel,
}

impl StoredPath {
    /// What a request with this method wants.
    pub(crate) fn operation(self, method: &[u8]) -> StoredOperation {
        match self {
            Self::Response if method == b"DELETE" => StoredOperation::Delete,
            Self::Response => StoredOperation::Retrieve,
            Self::InputItems => StoredOperation::InputItems,
            Self::Cancel => StoredOperation::Cancel,
        }
    }
}

/// What a client wants with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredOperation {
    /// The object.
    Retrieve,
    /// Forget it.
    Delete,
    /// The items of its input.
    InputItems,
    /// Stop making it.
    Cancel,
}

/// A request for one response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredAsk<'a> {
    pub(crate) operation: StoredOperation,
    pub(crate) owner: Owner,
    pub(crate) id: &'a str,
    pub(crate) query: &'a str,
    pub(crate) now_ms: u64,
}

/// The response to a request for a response that is kept; `None` = it is not kept.
///
/// # Errors
/// Status 400: the request is invalid.
pub(crate) fn stored(
    store: &ResponseStore,
    ask: &StoredAsk<'_>,
) -> Result<Option<Vec<u8>>, Refusal> {
    let StoredAsk {
        owner, id, now_ms, ..
    } = *ask;
    if ask.operation == StoredOperation::Delete {
        let is_deleted = store.delete(owner, id, now_ms);
        return Ok(is_deleted.then(|| deleted(id)));
    }
    let Some(kept) = store.find(owner, id, now_ms) else {
        return Ok(None);
    };
    match ask.operation {
        StoredOperation::Retrieve if is_streaming(ask.query) => {
            let problem = "a response that is complete cannot be streamed again";
            Err(invalid("stream", problem))
        }
        StoredOperation::Retrieve | StoredOperation::Delete => Ok(Some(kept.object().to_vec())),
        StoredOperation::InputItems => input_items(&kept, ask.query).map(Some),
        StoredOperation::Cancel => Err(Refusal::invalid(
            "only responses that are made in the background can be cancelled",
        )),
    }
}

/// The error for a response that is kept nowhere.
pub(crate) fn not_stored(id: &str) -> Refusal {
    unknown_response(id)
}

fn deleted(id: &str) -> Vec<u8> {
    let mut out = br#"{"id":"#.to_vec();
    json::write_string(id, &mut out);
    out.extend_from_slice(br#","object":"response","deleted":true}"#);
    out
}

fn is_streaming(query: &str) -> bool {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.any(|(key, value)| key == "stream" && value == "true")
}

/// A page of the items of a response's input.
fn input_items(kept: &KeptResponse, query: &str) -> Result<Vec<u8>, Refusal> {
    let mut is_ascending = false;
    let mut limit = PAGE_ITEMS;
    let mut after = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (key.as_ref(), value.as_ref()) {
            ("order", "asc") => is_ascending = true,
            ("order", "desc") => is_ascending = false,
            ("order", _) => return Err(invalid("order", "expected asc or desc")),
            ("limit", number) => {
                let number = number.parse().ok();
                limit = number
                    .filter(|limit| (1..=PAGE_ITEMS_MAX).contains(limit))
                    .ok_or_else(|| invalid("limit", "expected an integer from 1 to 100"))?;
            }
            ("after", id) => after = Some(id.to_owned()),
            _ => {}
        }
    }
    let items = json::parse(kept.input())
        .into_iter()
        .flat_map(JsonValue::elements);
    let mut items: Vec<_> = items.collect();
    if !is_ascending {
        items.reverse();
    }
    let is = |item: &JsonValue<'_>, id: &str| {
        let own = item.string_field("id");
        own.is_some_and(|own| own.is(id))
    };
    let from = match after {
        Some(after) => {
            let at = items.iter().position(|item| is(item, &after));
            1 + at.ok_or_else(|| invalid("after", "expected the id of an item of this list"))?
        }
        None => 0,
    };
    let rest = items.get(from..).unwrap_or(&[]);
    let page = rest.get(..limit).unwrap_or(rest);
    Ok(list(page, rest.len() > page.len()))
}

fn list(page: &[JsonValue<'_>], has_more: bool) -> Vec<u8> {
    let mut out = br#"{"object":"list","data":["#.to_vec();
    for (nth, item) in page.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        item.write_compact(&mut out);
    }
    out.push(b']');
    for (name, item) in [
        (br#","first_id":"#.as_slice(), page.first()),
        (br#","last_id":"#, page.last()),
    ] {
        out.extend_from_slice(name);
        match item.and_then(|item| item.field("id")) {
            Some(id) => id.write_compact(&mut out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(br#","has_more":"#);
    out.extend_from_slice(if has_more { b"true}" } else { b"false}" });
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialects::responses::store::{KeptObject, StoreBounds};
    use crate::dialects::responses::stored_input::StoredInput;

    const OWNER: Owner = Owner(Some([1; 32]));

    fn store() -> ResponseStore {
        let store = ResponseStore::new(StoreBounds {
            enabled: true,
            max_items: 10,
            max_bytes: 1 << 20,
            ttl_ms: 1000,
        });
        let object = br#"{"id":"resp_1","output":[]}"#.to_vec();
        let items = json!([{"id": "a"}, {"id": "b"}, {"id": "c"}]).to_string();
        let input = StoredInput {
            items: items.into_bytes(),
            places: Vec::new(),
        };
        let object = KeptObject {
            output: 24..26,
            object,
        };
        store.keep(OWNER, "resp_1", KeptResponse::new(object, input, None), 0);
        store
    }

    fn asked(
        store: &ResponseStore,
        operation: StoredOperation,
        id: &str,
        query: &str,
    ) -> Result<Option<Value>, Refusal> {
        let ask = StoredAsk {
            operation,
            owner: OWNER,
            id,
            query,
            now_ms: 1,
        };
        let found = stored(store, &ask)?;
        Ok(found.map(|body| serde_json::from_slice(&body).unwrap()))
    }

    #[test]
    fn what_clients_can_do_with_a_response() {
        use StoredOperation as O;
        let store = store();
        let object = json!({"id": "resp_1", "output": []});
        assert_eq!(asked(&store, O::Retrieve, "resp_1", ""), Ok(Some(object)));
        for operation in [O::Retrieve, O::Delete, O::InputItems, O::Cancel] {
            assert_eq!(asked(&store, operation, "resp_2", ""), Ok(None));
        }
        let streamed = asked(&store, O::Retrieve, "resp_1", "stream=true").unwrap_err();
        assert_eq!((streamed.status, streamed.param()), (400, Some("stream")));
        assert_eq!(
            asked(&store, O::Cancel, "resp_1", "").unwrap_err().status,
            400
        );
        let deleted = json!({"id": "resp_1", "object": "response", "deleted": true});
        assert_eq!(asked(&store, O::Delete, "resp_1", ""), Ok(Some(deleted)));
        assert_eq!(asked(&store, O::Retrieve, "resp_1", ""), Ok(None));
        let unknown = not_stored("resp_1");
        assert_eq!(
            (unknown.status, unknown.code()),
            (404, Some("response_not_found"))
        );
        assert!(unknown.message.contains("resp_1"));
    }

    #[test]
    fn pages_of_items() {
        let store = store();
        for (query, ids, has_more) in [
            ("", vec!["c", "b", "a"], false),
            ("order=desc&limit=2", vec!["c", "b"], true),
            ("order=asc", vec!["a", "b", "c"], false),
            ("order=asc&after=a&limit=1", vec!["b"], true),
            ("after=a", vec![], false),
            ("after=b&other=x", vec!["a"], false),
        ] {
            let list = asked(&store, StoredOperation::InputItems, "resp_1", query);
            let list = list.unwrap().unwrap();
            let found: Vec<_> = list["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap())
                .collect();
            assert_eq!(found, ids, "{query}");
            assert_eq!(list["object"], "list");
            assert_eq!(list["has_more"], has_more);
            assert_eq!(list["first_id"], json!(ids.first()));
            assert_eq!(list["last_id"], json!(ids.last()));
        }
        for query in ["limit=0", "limit=101", "limit=x", "order=up", "after=z"] {
            let refusal = asked(&store, StoredOperation::InputItems, "resp_1", query).unwrap_err();
            assert_eq!(refusal.status, 400, "{query}");
        }
    }
}
