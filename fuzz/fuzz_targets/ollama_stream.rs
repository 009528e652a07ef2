//! Any response of an endpoint, in any pieces: no panic, the same lines however it is cut, each an
//! object of Ollama's API, and the last one of a finished stream says so. A response that is no
//! stream says the same to a client with and without one (docs/contract/dialects.md#11).

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::ollama::{End, Progress, ollama_reply, ollama_stream};
use olla_fuzz::{bounded, bytes, check_growth, chunks_of_deltas, looks_like_json, object, pieces};
use serde_json::{Map, Value};

const PATHS: [&str; 4] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
];

/// Output per byte of a chunk with one letter.
const GROWTH_MAX: usize = 32;

/// Memory per byte, for buffers of the output that double.
const MEMORY_MAX: usize = 4 * GROWTH_MAX;

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let end = [End::Clean, End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 4];
    let path = PATHS[usize::from(flags >> 2) % PATHS.len()];
    let body = match flags & 1 {
        0 => body.to_vec(),
        _ => chunks_of_deltas(body),
    };
    let reply = ollama_reply(path, &body);
    let reply = reply.map(|reply| {
        check_growth(body.len(), reply.len(), GROWTH_MAX);
        object(&reply)
    });
    if path.starts_with("/api/embed") {
        let key = ["embeddings", "embedding"][usize::from(path == "/api/embeddings")];
        assert!(reply.is_none_or(|reply| reply[key].is_array()));
        return;
    }
    let whole = bounded(body.len(), MEMORY_MAX, || {
        ollama_stream(path, &[&body], end)
    });
    assert_eq!(ollama_stream(path, &pieces(&body, &cuts), end), whole);
    assert_eq!(ollama_stream(path, &bytes(&body), end), whole);
    let (lines, progress) = whole;
    check_growth(body.len(), lines.len(), GROWTH_MAX);
    let lines = check_lines(path, &lines, &progress);
    if end != End::Clean {
        return;
    }
    let is_finished = progress == Progress::Finished;
    if let Some(reply) = reply {
        assert!(is_finished);
        if looks_like_json(&body) {
            check_same(path, &reply, &lines);
        }
    } else {
        assert!(!is_finished || !looks_like_json(&body));
    }
});

/// The lines of a stream; one of a chat has text, reasoning or a call, the last one none of it.
fn check_lines(path: &str, lines: &[u8], progress: &Progress) -> Vec<Map<String, Value>> {
    let text = std::str::from_utf8(lines).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'));
    let lines: Vec<_> = text
        .split_terminator('\n')
        .map(|line| object(line.as_bytes()))
        .collect();
    let Some((last, before)) = lines.split_last() else {
        assert!(matches!(progress, Progress::Refused(_)));
        return lines;
    };
    let mut calls = 0;
    for line in before {
        assert!(line["done"] == false && line["model"] == "m" && line["created_at"].is_string());
        let said = said(path, line);
        for call in said.calls {
            assert_eq!(call["function"]["index"], calls);
            assert!(call["id"].as_str().is_some_and(|id| !id.is_empty()));
            assert!(
                call["function"]["name"]
                    .as_str()
                    .is_some_and(|name| !name.is_empty())
            );
            assert!(call["function"]["arguments"].is_object());
            calls += 1;
        }
        let has = [
            !said.text.is_empty(),
            !said.thinking.is_empty(),
            !said.calls.is_empty(),
        ];
        let count = has.into_iter().filter(|has| *has).count();
        // The calls of a prompt, which offers no tools, are lines without anything.
        assert!(
            count == 1 || count == 0 && path == "/api/generate",
            "{line:?}"
        );
    }
    if *progress != Progress::Finished {
        assert!(*progress == Progress::Failed && last.len() == 1 && last["error"].is_string());
        return lines;
    }
    let nothing = said(path, last);
    assert!(nothing.text.is_empty() && nothing.thinking.is_empty() && nothing.calls.is_empty());
    check_end(last);
    lines
}

/// The last object says why it ended and what it cost.
fn check_end(last: &Map<String, Value>) {
    assert!(last["done"] == true && last["model"] == "m");
    assert!(last["done_reason"] == "stop" || last["done_reason"] == "length");
    for count in [
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ] {
        assert!(last[count].is_u64(), "{count}");
    }
}

/// What an object says.
struct Said<'a> {
    text: &'a str,
    thinking: &'a str,
    calls: &'a [Value],
}

fn said<'a>(path: &str, object: &'a Map<String, Value>) -> Said<'a> {
    let text_of = |value: Option<&'a Value>| value.map(|it| it.as_str().expect("a text"));
    if path == "/api/generate" {
        return Said {
            text: object["response"].as_str().expect("a text"),
            thinking: text_of(object.get("thinking")).unwrap_or_default(),
            calls: object
                .get("tool_calls")
                .map_or(&[], |_| panic!("calls of a prompt")),
        };
    }
    let message = object["message"].as_object().expect("a message");
    assert_eq!(message["role"], "assistant");
    let calls = message
        .get("tool_calls")
        .map(|calls| calls.as_array().expect("calls"));
    Said {
        text: message["content"].as_str().expect("a text"),
        thinking: text_of(message.get("thinking")).unwrap_or_default(),
        calls: calls.map_or(&[], Vec::as_slice),
    }
}

/// A response without a stream says what the lines say.
fn check_same(path: &str, reply: &Map<String, Value>, lines: &[Map<String, Value>]) {
    check_end(reply);
    let whole = said(path, reply);
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for line in lines {
        let said = said(path, line);
        text.push_str(said.text);
        thinking.push_str(said.thinking);
        calls.extend_from_slice(said.calls);
    }
    assert_eq!(
        (whole.text, whole.thinking, whole.calls),
        (&*text, &*thinking, &*calls)
    );
    let last = lines.last().expect("a line");
    for key in ["done_reason", "prompt_eval_count", "eval_count"] {
        assert_eq!(reply[key], last[key], "{key}");
    }
}
