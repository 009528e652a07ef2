//! Any request of Ollama's API: no panic, and what is accepted becomes JSON that asks for the
//! model by its new name, or a response.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::ollama::ollama_request;
use serde_json::Value;

const PATHS: [&str; 4] = ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"];

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = input;
    let Some(sent) = ollama_request(PATHS[usize::from(which) % PATHS.len()], body) else {
        return;
    };
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    let is_response = sent.get("done").is_some()
        || sent.get("embeddings").is_some()
        || sent.get("embedding").is_some();
    if is_response {
        return;
    }
    assert_eq!(sent["model"], "\"new\"\\");
    assert!(["messages", "prompt", "input"].iter().any(|key| sent.get(key).is_some()));
});
