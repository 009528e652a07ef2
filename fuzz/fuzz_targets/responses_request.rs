//! Any request of the Responses API: no panic, and what is accepted becomes a chat completion
//! request and an input that can be stored.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::responses::responses_request;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let Some((sent, stored)) = responses_request(body) else {
        return;
    };
    let sent: Value = serde_json::from_slice(&sent).expect("a request");
    assert!(!sent["messages"].as_array().expect("messages").is_empty());
    assert_eq!(sent["model"], "\"new\"\\");
    let stored: Value = serde_json::from_slice(&stored).expect("items");
    for item in stored.as_array().expect("an array") {
        assert!(item["id"].is_string());
    }
});
