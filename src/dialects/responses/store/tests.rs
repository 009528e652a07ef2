use serde_json::{Value, json};

use super::*;

const BOUNDS: StoreBounds = StoreBounds {
    enabled: true,
    max_items: 3,
    max_bytes: 8000,
    ttl_ms: 1000,
};

const ANN: Owner = Owner(Some([1; 32]));
const BOB: Owner = Owner(Some([2; 32]));

/// A response with one item of each kind, with these texts.
fn response(
    id: &str,
    input: &str,
    output: &str,
    parent: Option<Arc<KeptResponse>>,
) -> KeptResponse {
    let output = json!([{"id": format!("msg_{id}"), "text": output}]).to_string();
    let object = format!(r#"{{"id":"{id}","output":{output}}}"#);
    let end = object.len() - 1;
    let object = KeptObject {
        output: end - output.len()..end,
        object: object.into_bytes(),
    };
    let items = json!([{"id": format!("in_{id}"), "text": input}]).to_string();
    let input = StoredInput {
        places: vec![(format!("in_{id}"), 1..items.len() - 1)],
        items: items.into_bytes(),
    };
    KeptResponse::new(object, input, parent)
}

fn keep(store: &ResponseStore, id: &str, parent: Option<&str>, now_ms: u64) {
    let parent = parent.map(|parent| store.find(ANN, parent, now_ms).unwrap());
    store.keep(ANN, id, response(id, "i", "o", parent), now_ms);
}

fn texts(response: &KeptResponse) -> Vec<String> {
    let arrays = response.conversation();
    let items = arrays.iter().flat_map(|array| {
        let array: Vec<Value> = serde_json::from_slice(array).unwrap();
        array
            .into_iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
    });
    items.collect()
}

#[test]
fn a_conversation_is_found_by_its_owner() {
    let store = ResponseStore::new(BOUNDS);
    keep(&store, "a", None, 0);
    keep(&store, "b", Some("a"), 1);
    let found = store.find(ANN, "b", 2).unwrap();
    assert_eq!(texts(&found), ["in_a", "msg_a", "in_b", "msg_b"]);
    let bytes: usize = found.conversation().iter().map(|array| array.len()).sum();
    assert_eq!(found.history_bytes(), bytes);
    for owner in [BOB, Owner(None)] {
        assert!(store.find(owner, "b", 2).is_none());
        assert!(store.item(owner, "msg_a", 2).is_none());
        assert!(!store.delete(owner, "b", 2));
    }
    assert!(store.find(ANN, "c", 2).is_none());
    let item: Value = serde_json::from_slice(&store.item(ANN, "msg_a", 2).unwrap()).unwrap();
    assert_eq!(item["text"], "o");
    assert_eq!(
        store.item(ANN, "in_b", 2).unwrap(),
        br#"{"id":"in_b","text":"i"}"#
    );
    let counts = store.counts(2);
    assert_eq!((counts.items, counts.hits, counts.misses), (2, 2, 3));
    assert_eq!(counts.bytes, bytes);
}

#[test]
fn what_is_deleted_stays_for_those_that_build_on_it() {
    let store = ResponseStore::new(BOUNDS);
    keep(&store, "a", None, 0);
    keep(&store, "b", Some("a"), 0);
    let before = store.counts(0).bytes;
    assert!(store.delete(ANN, "a", 1));
    assert!(!store.delete(ANN, "a", 1));
    assert!(store.find(ANN, "a", 1).is_none() && store.item(ANN, "msg_a", 1).is_none());
    assert_eq!(
        texts(&store.find(ANN, "b", 1).unwrap()),
        ["in_a", "msg_a", "in_b", "msg_b"]
    );
    assert_eq!(store.counts(1).bytes, before);
    assert!(store.delete(ANN, "b", 1));
    assert_eq!(store.counts(1).bytes, 0);
}

#[test]
fn the_least_recently_used_goes_first() {
    let store = ResponseStore::new(BOUNDS);
    for (at, id) in ["a", "b", "c"].into_iter().enumerate() {
        keep(&store, id, None, at as u64);
    }
    assert!(store.find(ANN, "a", 3).is_some());
    keep(&store, "d", None, 4);
    assert!(store.find(ANN, "b", 5).is_none());
    for id in ["a", "c", "d"] {
        assert!(store.find(ANN, id, 5).is_some(), "{id}");
    }
    assert_eq!((store.counts(5).items, store.counts(5).evictions), (3, 1));
    // The same id again takes the place of the first.
    keep(&store, "d", None, 6);
    assert_eq!(store.counts(6).items, 3);
}

#[test]
fn bytes_are_bounded() {
    let store = ResponseStore::new(StoreBounds {
        max_items: 100,
        ..BOUNDS
    });
    let keep = |id: &str, bytes: usize, parent| {
        let kept = response(id, "", &"x".repeat(bytes), parent);
        store.keep(ANN, id, kept, 0);
    };
    keep("large", 1000, None);
    assert!(store.find(ANN, "large", 0).is_none());
    for id in 0..20 {
        keep(&id.to_string(), 800, None);
        assert!(store.counts(0).bytes <= BOUNDS.max_bytes);
    }
    assert!(store.find(ANN, "19", 0).is_some() && store.find(ANN, "0", 0).is_none());
    // Each response is counted once, however many build on it, and as long as one does.
    let first = store.find(ANN, "19", 0);
    for id in 0..12 {
        keep(&format!("b{id}"), 800, first.clone());
    }
    drop(first);
    assert!(store.find(ANN, "19", 0).is_none());
    assert_eq!(texts(&store.find(ANN, "b11", 0).unwrap())[1], "msg_19");
    store.set_bounds(StoreBounds {
        enabled: false,
        ..BOUNDS
    });
    assert_eq!((store.counts(0).items, store.counts(0).bytes), (0, 0));
    keep("off", 1, None);
    assert!(store.find(ANN, "off", 0).is_none());
}

#[test]
fn what_an_object_repeats_counts_beyond_some_of_it() {
    let object = |rest: usize| KeptObject {
        object: [vec![b' '; rest], b"[]".to_vec()].concat(),
        output: rest..rest + 2,
    };
    let none = StoredInput {
        items: b"[]".to_vec(),
        places: Vec::new(),
    };
    for (rest, bytes) in [(0, 4), (4096, 4), (5096, 1004)] {
        let kept = KeptResponse::new(object(rest), none.clone(), None);
        assert_eq!(kept.bytes(), bytes);
        assert_eq!(uncovered(rest), bytes - 4);
    }
}

#[test]
fn what_is_old_is_gone() {
    let store = ResponseStore::new(BOUNDS);
    keep(&store, "a", None, 0);
    keep(&store, "b", None, 10);
    assert!(store.find(ANN, "a", 1000).is_some());
    assert!(store.find(ANN, "b", 1011).is_none());
    assert_eq!(store.counts(1011).items, 1);
    assert!(store.find(ANN, "a", 2000).is_some());
    assert_eq!(store.item(ANN, "msg_a", 3001), None);
    assert!(!store.delete(ANN, "a", 3001));
    assert_eq!((store.counts(3001).items, store.counts(3001).bytes), (0, 0));
    assert_eq!(store.counts(3001).evictions, 0);
}

#[test]
fn where_others_were_made() {
    let store = ResponseStore::new(BOUNDS);
    let endpoint: Arc<str> = Arc::from("one");
    for id in ["a", "b", "c", "d"] {
        store.note_made(ANN, id, &endpoint, 0);
    }
    assert_eq!(store.made_by(ANN, "a", 0), None);
    assert_eq!(store.made_by(BOB, "b", 0), None);
    assert_eq!(store.made_by(ANN, "b", 0).as_deref(), Some("one"));
    assert_eq!(store.made_by(ANN, "c", 1001), None);
}

#[test]
fn a_long_conversation_is_freed_without_recursion() {
    let store = ResponseStore::new(StoreBounds {
        max_items: 2,
        max_bytes: 1 << 30,
        ..BOUNDS
    });
    let mut parent = None;
    for id in 0..100_000 {
        let kept = Arc::new(response(&id.to_string(), "", "", parent.take()));
        parent = Some(kept);
    }
    store.keep(ANN, "last", response("last", "", "", parent), 0);
    assert!(store.delete(ANN, "last", 0));
}
