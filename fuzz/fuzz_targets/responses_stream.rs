//! Any response of an endpoint, in any pieces: no panic, the same events however it is cut, numbered
//! without gaps, and deltas that make up the items of the last event.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use olla::bench::responses::{End, Progress, responses_object, responses_stream};
use serde_json::Value;

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let end = [End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 3];
    let (events, progress) = responses_stream(&[body], end);
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(cut)));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(responses_stream(&pieces, end), (events.clone(), progress.clone()));
    check(&events, &progress);
    if let Some(object) = responses_object(body) {
        let object: Value = serde_json::from_slice(&object).expect("an object");
        assert!(!object["output"].as_array().expect("items").is_empty());
    }
});

fn check(events: &[u8], progress: &Progress) {
    let text = std::str::from_utf8(events).expect("UTF-8");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut deltas: BTreeMap<String, String> = BTreeMap::new();
    let mut last = Value::Null;
    for (number, data) in data.enumerate() {
        let event: Value = serde_json::from_str(data).expect("an event");
        assert_eq!(event["sequence_number"], number);
        if let (Some(id), Some(delta)) = (event["item_id"].as_str(), event["delta"].as_str()) {
            deltas.entry(id.to_owned()).or_default().push_str(delta);
        }
        last = event;
    }
    if *progress != Progress::Finished {
        return;
    }
    for item in last["response"]["output"].as_array().expect("items") {
        let id = item["id"].as_str().expect("an id");
        let texts = [
            &item["arguments"], &item["input"], &item["content"][0]["text"],
            &item["content"][0]["refusal"], &item["summary"][0]["text"],
        ];
        let text = texts.into_iter().find_map(Value::as_str).unwrap_or("");
        match deltas.get(id) {
            Some(deltas) => assert_eq!(deltas, text),
            None => assert!(text.is_empty() || text == "{}"),
        }
    }
}
