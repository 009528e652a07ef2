//! Any request of the Responses API: no panic, and what is accepted becomes a chat completion
//! request that servers take, and an input that can be stored (docs/contract/dialects.md#4,
//! docs/contract/dialects.md#6, docs/contract/dialects.md#7).

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use olla::bench::responses::responses_request;
use olla_fuzz::{bounded, check_chat, check_growth, value};

/// The most characters of a tool's name.
const NAME_CHARS_MAX: usize = 64;

/// Output per byte of a member of a namespace.
const GROWTH_MAX: usize = 32;

/// Memory per byte of a tool, which is read before the endpoint is picked and after.
const MEMORY_MAX: usize = 128;

/// Tools of each kind, for input that calls them.
const TOOLS: &[u8] = br#""tools":[{"type":"function","name":"f"},{"type":"custom","name":"p"},
    {"type":"local_shell"},{"type":"namespace","name":"ns","tools":[{"name":"g"}]}]"#;

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, body) = input;
    let body = match flags % 4 {
        0 => body.to_vec(),
        // The input has items, tools or other members alone.
        1 => [br#"{"model":"m","input":["#, body, b"],", TOOLS, b"}"].concat(),
        2 => [br#"{"model":"m","input":"x","tools":["#, body, b"]}"].concat(),
        _ => [br#"{"model":"m","input":"x","#, body, b"}"].concat(),
    };
    let translated = bounded(body.len(), MEMORY_MAX, || responses_request(&body));
    let Some((sent, stored)) = translated else {
        return;
    };
    check_growth(body.len(), sent.len(), GROWTH_MAX);
    check_growth(body.len(), stored.len(), GROWTH_MAX);
    let sent = check_chat(&sent, false);
    let tools = sent
        .get("tools")
        .map(|tools| tools.as_array().expect("tools"));
    let names: Vec<_> = tools
        .into_iter()
        .flatten()
        .map(|tool| tool["function"]["name"].as_str().expect("a name"))
        .collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "two tools have one name");
    assert!(
        names
            .iter()
            .all(|name| name.chars().count() <= NAME_CHARS_MAX)
    );
    if let Some(chosen) = sent
        .get("tool_choice")
        .and_then(|choice| choice["function"]["name"].as_str())
    {
        assert!(names.contains(&chosen));
    }
    let stored = value(&stored);
    let mut stored = stored.as_array().expect("an array").iter();
    assert!(stored.all(|item| item["id"].is_string()));
});
