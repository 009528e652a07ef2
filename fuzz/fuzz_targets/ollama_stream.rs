//! Any response of an endpoint, in any pieces: no panic, the same lines however it is cut, each an
//! object, and the last one of a finished stream says so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::ollama::{End, Progress, ollama_reply, ollama_stream};
use serde_json::Value;

const PATHS: [&str; 4] = ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"];

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let end = [End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 3];
    let path = PATHS[usize::from(flags / 3) % PATHS.len()];
    if let Some(reply) = ollama_reply(path, body) {
        serde_json::from_slice::<Value>(&reply).expect("JSON");
    }
    let path = PATHS[usize::from(flags / 3) % 2];
    let (lines, progress) = ollama_stream(path, &[body], end);
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(cut)));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(ollama_stream(path, &pieces, end), (lines.clone(), progress.clone()));
    let text = std::str::from_utf8(&lines).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let Some((last, before)) = lines.split_last() else {
        assert!(matches!(progress, Progress::Refused(_)));
        return;
    };
    assert!(before.iter().all(|line| line["done"] == false));
    match progress {
        Progress::Finished => assert_eq!(last["done"], true),
        _ => assert!(last["error"].is_string()),
    }
});
