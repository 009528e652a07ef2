//! Any response of an endpoint, in any pieces: no panic, the same events however it is cut, numbered
//! without gaps, deltas that make up the items of the last event, and in it the object that a client
//! without a stream gets (docs/contract/dialects.md#8).

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::responses::{End, Progress, responses_object, responses_stream};
use olla_fuzz::{
    bounded, bytes, check_growth, chunks_of_deltas, events, looks_like_json, object, pieces,
};
use serde_json::Value;

/// Output per byte of a chunk that begins an item with one letter.
const GROWTH_MAX: usize = 64;

/// Memory per byte, for buffers of the output that double.
const MEMORY_MAX: usize = 4 * GROWTH_MAX;

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let end = [End::Clean, End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 4];
    let body = match flags & 1 {
        0 => body.to_vec(),
        _ => chunks_of_deltas(body),
    };
    let whole = bounded(body.len(), MEMORY_MAX, || responses_stream(&[&body], end));
    assert_eq!(responses_stream(&pieces(&body, &cuts), end), whole);
    assert_eq!(responses_stream(&bytes(&body), end), whole);
    let (stream, progress) = whole;
    check_growth(body.len(), stream.len(), GROWTH_MAX);
    let events = events(&stream);
    check_order(&events, &progress);
    let object = responses_object(&body).map(|text| Value::Object(object(&text)));
    if let Some(object) = &object {
        check_object(object);
    }
    if end != End::Clean {
        return;
    }
    let is_finished = progress == Progress::Finished;
    match object {
        Some(object) => {
            assert!(is_finished);
            if looks_like_json(&body) {
                assert_eq!(events.last().expect("an event")["response"], object);
            }
        }
        None => assert!(!is_finished || !looks_like_json(&body)),
    }
});

/// The events of a response: its two first, those of one item after the other, and its last.
fn check_order(events: &[Value], progress: &Progress) {
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let [created, in_progress, rest @ .., last] = events else {
        assert!(events.is_empty() && matches!(progress, Progress::Refused(_)));
        return;
    };
    assert_eq!(created["type"], "response.created");
    assert_eq!(in_progress["type"], "response.in_progress");
    assert_eq!(created["response"], in_progress["response"]);
    assert_eq!(last["response"]["id"], created["response"]["id"]);
    let mut items = Vec::new();
    let mut open = Vec::new();
    for event in rest {
        assert_eq!(event["output_index"], items.len());
        open.push(event);
        if event["type"] == "response.output_item.done" {
            items.push(check_item(&std::mem::take(&mut open)));
        }
    }
    assert_eq!(last["response"]["output"], Value::Array(items));
    match progress {
        Progress::Finished => {
            assert!(open.is_empty());
            check_object(&last["response"]);
            let kind = last["response"]["status"].as_str().expect("a status");
            assert_eq!(last["type"], format!("response.{kind}"));
        }
        _ => {
            assert!(*progress == Progress::Failed && last["type"] == "response.failed");
            assert!(last["response"]["error"]["code"].is_string());
            assert!(last["response"]["error"]["message"].is_string());
        }
    }
}

/// The events of an item, from its opening to its end: they make up what it holds.
fn check_item(events: &[&Value]) -> Value {
    let [added, inner @ .., done] = events else {
        panic!("an item in less than two events");
    };
    let item = &done["item"];
    assert_eq!(added["type"], "response.output_item.added");
    assert!(added["item"]["status"] == "in_progress" && added["item"]["id"] == item["id"]);
    assert!(inner.iter().all(|event| event["item_id"] == item["id"]));
    let mut deltas = String::new();
    for event in inner {
        if let Some(delta) = event.get("delta") {
            let delta = delta.as_str().expect("a text");
            assert!(!delta.is_empty());
            deltas.push_str(delta);
        }
    }
    let text = [
        &item["arguments"],
        &item["input"],
        &item["content"][0]["text"],
        &item["content"][0]["refusal"],
        &item["summary"][0]["text"],
    ];
    let text = text.into_iter().find_map(Value::as_str).unwrap_or_default();
    assert!(deltas == text || deltas.is_empty() && text == "{}");
    let of_text = ["arguments", "input", "text", "refusal"];
    let texts = inner
        .iter()
        .filter_map(|event| of_text.iter().find_map(|key| event.get(*key)));
    texts.for_each(|whole| assert_eq!(whole, text));
    item.clone()
}

/// A response that has ended.
fn check_object(object: &Value) {
    assert!(object["status"] == "completed" || object["status"] == "incomplete");
    assert_eq!(
        object["incomplete_details"].is_object(),
        object["status"] == "incomplete"
    );
    for count in ["input_tokens", "output_tokens", "total_tokens"] {
        assert!(object["usage"][count].is_u64());
    }
    let items = object["output"].as_array().expect("items");
    let is_said = |item: &Value| item["type"] != "reasoning";
    assert!(items.iter().any(is_said), "neither a message nor a call");
    for item in items {
        assert!(item["id"].is_string() && item["status"].is_string());
        match item["type"].as_str().expect("a type") {
            "message" => assert_eq!(item["content"].as_array().map(Vec::len), Some(1)),
            "reasoning" => assert!(item["encrypted_content"].is_string()),
            "local_shell_call" => assert!(item["action"]["command"].is_array()),
            "function_call" | "custom_tool_call" => assert!(item["name"].is_string()),
            other => panic!("the type {other}"),
        }
    }
}
