//! Any request of Ollama's API: no panic, and what is accepted becomes a request that servers take,
//! for the model by its new name, or a response (docs/contract/dialects.md#4,
//! docs/contract/dialects.md#10).

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::ollama::ollama_request;
use olla_fuzz::{SENT_NAME, bounded, check_chat, check_growth, check_stream_options, object};
use serde_json::{Map, Value};

const PATHS: [&str; 4] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
];

/// Output per byte of a picture, the part with most around it.
const GROWTH_MAX: usize = 16;

/// Memory per byte of a call, of which several copies are looked up.
const MEMORY_MAX: usize = 128;

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, body) = input;
    let path = PATHS[usize::from(flags) % PATHS.len()];
    let body = match flags & 4 {
        0 => body.to_vec(),
        // The input has messages or other members alone.
        _ if body.starts_with(b"{") => [br#"{"model":"m","messages":["#, body, b"]}"].concat(),
        _ => [br#"{"model":"m","#, body, b"}"].concat(),
    };
    let Some(sent) = bounded(body.len(), MEMORY_MAX, || ollama_request(path, &body)) else {
        return;
    };
    check_growth(body.len(), sent.len(), GROWTH_MAX);
    let members = object(&sent);
    if members.contains_key("messages") {
        assert!(matches!(path, "/api/chat" | "/api/generate"));
        check_chat(&sent, false);
    } else if let Some(prompt) = members.get("prompt") {
        assert!(path == "/api/generate" && members["model"] == SENT_NAME);
        assert!(prompt.is_string() && !members.contains_key("tools"));
        check_stream_options(&members);
    } else if let Some(input) = members.get("input") {
        assert!(members["model"] == SENT_NAME && members["encoding_format"] == "float");
        let texts = input.as_array().expect("an array");
        assert!(!texts.is_empty() && texts.iter().all(Value::is_string));
        assert!(!members.contains_key("stream"));
    } else {
        check_response(path, &members);
    }
});

/// A response to a request that needs no model.
fn check_response(path: &str, members: &Map<String, Value>) {
    match path {
        "/api/embed" => assert_eq!(members["embeddings"], Value::Array(Vec::new())),
        "/api/embeddings" => assert_eq!(members["embedding"], Value::Array(Vec::new())),
        _ => {
            assert_eq!(members["done"], true);
            assert!(members["done_reason"] == "load" || members["done_reason"] == "unload");
            let text = match path {
                "/api/generate" => &members["response"],
                _ => &members["message"]["content"],
            };
            assert_eq!(text, "");
        }
    }
}
