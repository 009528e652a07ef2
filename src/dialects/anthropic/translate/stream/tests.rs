use serde_json::{Value as Json, json};

use super::*;
use crate::dialects::anthropic::translate::completion::tests::context;
use crate::dialects::anthropic::translate::stream::call_tests::call;
use crate::dialects::chat::stream::{EVENT_BYTES_MAX, Progress};

/// Feeds pieces, then the end; the output and the last progress.
pub(crate) fn run(pieces: &[&[u8]], end: End) -> (String, Progress) {
    let mut transformer = message_stream(context());
    let mut out = Vec::new();
    for piece in pieces {
        let _ = transformer.push(piece, Moment::default(), &mut out);
    }
    let progress = transformer.end(end, Moment::default(), &mut out);
    (String::from_utf8(out).unwrap(), progress)
}

/// The events of a stream in short, after a check of their form on the wire.
fn digest(stream: &str) -> Vec<String> {
    assert!(stream.is_empty() || stream.ends_with("\n\n"), "{stream}");
    stream.split_terminator("\n\n").map(digest_event).collect()
}

fn digest_event(event: &str) -> String {
    let (name, data) = event.split_once('\n').unwrap();
    let name = name.strip_prefix("event: ").unwrap();
    let data: Json = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data["type"], name);
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let index = &data["index"];
    let tokens = |usage: &Json| {
        assert_eq!(usage["cache_creation_input_tokens"], 0);
        let cached = &usage["cache_read_input_tokens"];
        format!(
            "{}+{cached}/{}",
            usage["input_tokens"], usage["output_tokens"]
        )
    };
    match name {
        "message_start" => {
            let message = &data["message"];
            assert!(text(&message["id"]).starts_with("msg_01"));
            assert_eq!(message["type"], "message");
            assert_eq!(message["role"], "assistant");
            assert_eq!(message["content"], json!([]));
            assert_eq!(message["stop_reason"], json!(null));
            assert!(message.get("stop_sequence").is_some_and(Json::is_null));
            format!(
                "start {} {}",
                text(&message["model"]),
                tokens(&message["usage"])
            )
        }
        "content_block_start" => format!("{index} {}", digest_block(&data["content_block"])),
        "content_block_delta" => {
            let delta = &data["delta"];
            let key = match text(&delta["type"]).as_str() {
                "text_delta" => "text",
                "thinking_delta" => "thinking",
                "input_json_delta" => "partial_json",
                other => panic!("{other}"),
            };
            format!("{index}: {}", text(&delta[key]))
        }
        "content_block_stop" => format!("{index} stop"),
        "message_delta" => {
            let delta = &data["delta"];
            let reason = text(&delta["stop_reason"]);
            let sequence = delta["stop_sequence"].as_str().unwrap_or("-").to_owned();
            format!("end {reason} {sequence} {}", tokens(&data["usage"]))
        }
        "message_stop" => "stop".to_owned(),
        "ping" => "ping".to_owned(),
        "error" => format!(
            "error {} {}",
            text(&data["error"]["type"]),
            text(&data["error"]["message"])
        ),
        other => panic!("{other}"),
    }
}

fn digest_block(block: &Json) -> String {
    match block["type"].as_str().unwrap() {
        "text" => assert_eq!(*block, json!({"type": "text", "text": ""})),
        "thinking" => {
            assert_eq!(
                *block,
                json!({"type": "thinking", "thinking": "", "signature": ""})
            );
        }
        kind => {
            assert_eq!((kind, &block["input"]), ("tool_use", &json!({})));
            let text = |key: &str| block[key].as_str().unwrap();
            return format!("tool {} {}", text("id"), text("name"));
        }
    }
    block["type"].as_str().unwrap().to_owned()
}

pub(super) fn lines(chunks: &[&str]) -> String {
    chunks
        .iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect()
}

/// A chunk with this delta.
pub(super) fn delta(delta: &str) -> String {
    format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#)
}

/// The digest of a stream of these deltas, without its first and its last two events.
pub(super) fn blocks(deltas: &[&str]) -> Vec<String> {
    let chunks: Vec<_> = deltas.iter().map(|json| delta(json)).collect();
    let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
    let (out, progress) = run(&[lines(&chunks).as_bytes()], End::Clean);
    assert_eq!(progress, Progress::Finished);
    let mut events = digest(&out);
    assert_eq!(events.pop().as_deref(), Some("stop"));
    assert!(events.pop().unwrap().starts_with("end "));
    assert!(events.remove(0).starts_with("start asked 77+0/0"));
    events
}

const STREAM: &str = concat!(
    ": comment\r\n",
    r#"data: {"model":"q","choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":12,"completion_tokens":0}}"#,
    "\r\n\r\nevent: x\nid: 5\nretry: 7\n",
    r#"data:{"choices":[{"delta":{"content":"S\u00fcre\ud83d\ude00"}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_5","function":{"name":"ls","arguments":""}}]}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"dir\":"}}]}}]}"#,
    "\n\ndata: {broken\n\ndata: {\"choices\":\ndata: [{\"delta\":\ndata:{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\".\\\"}\"}}]}}]}\n\n",
    r#"data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
    "\n\n",
    r#"data: {"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":9}}"#,
    "\n\ndata: [DONE]\n\n",
);

const EVENTS: [&str; 10] = [
    "start asked 12+0/0",
    "0 text",
    "0: Süre😀",
    "0 stop",
    "1 tool call_5 ls",
    "1: {\"dir\":",
    "1: \".\"}",
    "1 stop",
    "end tool_use - 31+0/9",
    "stop",
];

#[test]
fn a_stream_however_it_is_cut() {
    let whole = run(&[STREAM.as_bytes()], End::Clean);
    assert_eq!(digest(&whole.0), EVENTS);
    assert_eq!(whole.1, Progress::Finished);
    assert!(whole.0.contains("Süre😀"), "not escaped");
    for at in 0..=STREAM.len() {
        let (one, two) = STREAM.as_bytes().split_at(at);
        assert_eq!(run(&[one, two], End::Clean), whole, "{at}");
    }
    for size in 1..20 {
        let pieces: Vec<_> = STREAM.as_bytes().chunks(size).collect();
        assert_eq!(run(&pieces, End::Clean), whole, "{size}");
    }
}

#[test]
fn what_a_push_completes_is_written_at_once() {
    let mut transformer = message_stream(context());
    let mut out = Vec::new();
    assert_eq!(
        transformer.push(b": hello\n\n", Moment::default(), &mut out),
        Progress::Waiting
    );
    let role = format!("data: {}\n", delta(r#"{"role":"assistant"}"#));
    assert_eq!(
        transformer.push(role.as_bytes(), Moment::default(), &mut out),
        Progress::Streaming
    );
    assert_eq!(
        digest(&String::from_utf8(out.clone()).unwrap()),
        ["start asked 77+0/0"]
    );
    out.clear();
    let text = format!("\ndata: {}\n", delta(r#"{"content":"a"}"#));
    assert_eq!(
        transformer.push(text.as_bytes(), Moment::default(), &mut out),
        Progress::Streaming
    );
    assert_eq!(
        digest(&String::from_utf8(out.clone()).unwrap()),
        ["0 text", "0: a"]
    );
    out.clear();
    assert_eq!(
        transformer.push(b"\ndata: [DONE]\n", Moment::default(), &mut out),
        Progress::Finished
    );
    assert_eq!(
        digest(&String::from_utf8(out.clone()).unwrap()),
        ["0 stop", "end end_turn - 77+0/1", "stop"]
    );
    out.clear();
    assert_eq!(
        transformer.push(text.as_bytes(), Moment::default(), &mut out),
        Progress::Finished
    );
    assert_eq!(
        transformer.end(End::Broken, Moment::default(), &mut out),
        Progress::Finished
    );
    assert_eq!(
        transformer.idle(Moment::default(), &mut out),
        Progress::Finished
    );
    assert!(out.is_empty());
}

#[test]
fn blocks_open_and_close_in_order() {
    for (deltas, expected) in [
        (
            &[r#"{"content":"a"}"#, r#"{"content":"b"}"#][..],
            &["0 text", "0: a", "0: b", "0 stop"][..],
        ),
        (
            &[
                r#"{"reasoning":"r"}"#,
                r#"{"content":"a"}"#,
                r#"{"reasoning_content":"s"}"#,
            ],
            &[
                "0 thinking",
                "0: r",
                "0 stop",
                "1 text",
                "1: a",
                "1 stop",
                "2 thinking",
                "2: s",
                "2 stop",
            ],
        ),
        (
            &[
                r#"{"tool_calls":[{"id":"c","function":{"name":"f"}}],"content":"a","reasoning":"r"}"#,
            ],
            &[
                "0 thinking",
                "0: r",
                "0 stop",
                "1 text",
                "1: a",
                "1 stop",
                "2 tool c f",
                "2 stop",
            ],
        ),
        (
            &[
                r#"{"content":""}"#,
                r#"{"content":null,"reasoning":null,"tool_calls":null}"#,
                r#"{"tool_calls":[]}"#,
                "null",
                "{}",
            ],
            &[],
        ),
        (
            &[r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#],
            &["0 text", "0: ab", "0 stop"],
        ),
        (
            &[r#"{"refusal":"no "}"#, r#"{"refusal":"way"}"#],
            &["0 text", "0: no ", "0: way", "0 stop"],
        ),
        (
            &[r#"{"content":"a"}"#, r#"{"refusal":"no"}"#],
            &["0 text", "0: a", "0 stop"],
        ),
    ] {
        assert_eq!(blocks(deltas), expected, "{deltas:?}");
    }
}

#[test]
fn what_is_skipped_and_what_is_read() {
    let good = delta(r#"{"content":"x"}"#);
    for noise in [
        "{",
        "[]",
        "7",
        "null",
        r#""text""#,
        r#"{"choices":"nope"}"#,
        r#"{"choices":[7]}"#,
        r#"{"choices":[{"delta":"nope"}]}"#,
        r#"{"choices":[{"delta":{"content":7}}]}"#,
        r#"{"choices":[{"delta":{"content":"lost","reasoning":{}}}]}"#,
        r#"{"choices":[{"delta":{"content":"lost","tool_calls":{}}}]}"#,
        r#"{"choices":[{"delta":{"content":"lost","tool_calls":[7]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":7,"function":{"name":"f"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":"0","id":"c","function":{"name":"f"}}]}}]}"#,
        r#"{"choices":[{"delta":{"content":"lost"},"finish_reason":7}]}"#,
        r#"{"model":7,"choices":[{"delta":{"content":"lost"}}]}"#,
    ] {
        let (out, progress) = run(&[lines(&[noise, &good]).as_bytes()], End::Clean);
        assert_eq!(progress, Progress::Finished);
        assert_eq!(
            digest(&out),
            [
                "start asked 77+0/0",
                "0 text",
                "0: x",
                "0 stop",
                "end end_turn - 77+0/1",
                "stop"
            ],
            "{noise}"
        );
    }
    // A line that is no JSON and one that is, without a blank line between: one event, no JSON.
    let joined = format!("data: {{\ndata: {good}\n\ndata: {good}\n\n");
    assert_eq!(digest(&run(&[joined.as_bytes()], End::Clean).0).len(), 6);
    let bom = format!("\u{feff}data: {good}");
    assert_eq!(
        digest(&run(&[bom.as_bytes()], End::Clean).0).len(),
        6,
        "no end of the last line"
    );
}

#[test]
fn model_usage_and_reasons_come_from_any_chunk() {
    let chunks = [
        r#"{"model":"","choices":[{"delta":{"content":"a"},"finish_reason":""}]}"#,
        r#"{"model":"late","choices":[{"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[{"finish_reason":"stop","matched_stop":"END"}],"usage":null}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#,
    ];
    let (out, _) = run(&[lines(&chunks).as_bytes()], End::Clean);
    let events = digest(&out);
    assert_eq!(events[0], "start asked 77+0/0");
    assert_eq!(events[4], "end stop_sequence END 5+4/2");
    let refused =
        lines(&[r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"content_filter"}]}"#]);
    assert!(run(&[refused.as_bytes()], End::Clean).0.contains("refusal"));
    let called = lines(&[
        &delta(&call(None, "c", "abcd", "1234")),
        r#"{"choices":[{"finish_reason":"stop"}]}"#,
    ]);
    assert!(
        digest(&run(&[called.as_bytes()], End::Clean).0)
            .contains(&"end tool_use - 77+0/2".to_owned())
    );
    let none = lines(&[r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#]);
    assert!(
        digest(&run(&[none.as_bytes()], End::Clean).0)
            .contains(&"end end_turn - 77+0/0".to_owned())
    );
}

#[test]
fn empty_and_broken_streams() {
    let empty = ["start asked 77+0/0", "end end_turn - 77+0/0", "stop"];
    for stream in [
        "",
        "data: [DONE]\n\n",
        ": nothing\n\n",
        "data: {oops\n\n",
        "data: [DONE]",
    ] {
        let (out, progress) = run(&[stream.as_bytes()], End::Clean);
        assert_eq!(progress, Progress::Finished);
        assert_eq!(digest(&out), empty, "{stream:?}");
    }
    for stream in ["", ": nothing\n\n", "data: {\"choi", "{\"choices\""] {
        for end in [End::Broken, End::TimedOut] {
            let (out, progress) = run(&[stream.as_bytes()], end);
            assert!(out.is_empty());
            let Progress::Refused(refusal) = progress else {
                panic!("{progress:?}")
            };
            assert_eq!(
                (refusal.status, error_kind(refusal.status)),
                (502, "api_error")
            );
        }
    }
    let half = lines(&[&delta(r#"{"content":"a"}"#)]) + "data: {\"choices\":[{\"delta\":{\"cont";
    let started = ["start asked 77+0/0", "0 text", "0: a"].map(str::to_owned);
    for (end, error) in [
        (
            End::Broken,
            "error api_error the endpoint's response broke off",
        ),
        (
            End::TimedOut,
            "error timeout_error the endpoint stopped sending",
        ),
    ] {
        let (out, progress) = run(&[half.as_bytes()], end);
        assert_eq!(progress, Progress::Failed);
        let mut events = digest(&out);
        assert_eq!(events.pop().as_deref(), Some(error));
        assert_eq!(events, started);
    }
}

#[test]
fn errors_in_place_of_chunks() {
    for (error, message) in [
        (
            r#"{"error":{"message":"out of memory","code":500}}"#,
            "out of memory",
        ),
        (r#"{"error":"out of memory"}"#, "out of memory"),
        (r#"{"error":{"oops":1}}"#, "Backend error"),
        (r#"{"object":"error","message":"too long"}"#, "too long"),
        (r#"{"detail":"worker died"}"#, "worker died"),
        (r#"{"detail":[{"msg":"a"},{"msg":"b"}]}"#, "a; b"),
    ] {
        let (out, progress) = run(&[lines(&[error, &delta("{}")]).as_bytes()], End::Clean);
        assert!(out.is_empty());
        let Progress::Refused(refusal) = progress else {
            panic!("{progress:?}");
        };
        assert_eq!((refusal.status, &*refusal.message), (502, message));
        let late = lines(&[
            &delta(r#"{"content":"a"}"#),
            error,
            &delta(r#"{"content":"b"}"#),
        ]);
        let (out, progress) = run(&[late.as_bytes()], End::Clean);
        assert_eq!(progress, Progress::Failed);
        assert_eq!(
            digest(&out)[1..],
            [
                "0 text".to_owned(),
                "0: a".to_owned(),
                format!("error api_error {message}")
            ]
        );
    }
    let fine = lines(&[r#"{"detail":"x","choices":[{"delta":{"content":"a"}}]}"#]);
    assert_eq!(run(&[fine.as_bytes()], End::Clean).1, Progress::Finished);
    let fine = lines(&[r#"{"error":null,"choices":[{"delta":{"content":"a"}}]}"#]);
    assert_eq!(run(&[fine.as_bytes()], End::Clean).1, Progress::Finished);
}

#[test]
fn events_named_error() {
    let long = "x".repeat(600);
    let cut = "x".repeat(500);
    for (event, message) in [
        ("event: error\ndata: {\"message\":\"m\"}\n\n", "m"),
        ("event:error\r\ndata:{\"oops\":1}\r\n\r\n", "Backend error"),
        ("event: error\ndata: \"m\"\n\n", "m"),
        (
            "event: error\ndata: out of\ndata: memory\n\n",
            "out of\nmemory",
        ),
        ("event: error\ndata: [DONE]\n\n", "Backend error"),
        ("event: error\ndata: m", "m"),
        (&format!("event: error\ndata: {long}\n\n"), &cut),
        (
            "data: {\"message\":\"m\"}\nevent: error\n\n",
            "Backend error",
        ),
    ] {
        let stream = format!("{}{event}", lines(&[&delta(r#"{"content":"a"}"#)]));
        let whole = run(&[stream.as_bytes()], End::Clean);
        assert_eq!(whole.1, Progress::Failed, "{event}");
        let last = digest(&whole.0).pop();
        assert_eq!(last, Some(format!("error api_error {message}")), "{event}");
        let pieces: Vec<_> = stream.as_bytes().chunks(1).collect();
        assert_eq!(run(&pieces, End::Clean), whole, "{event}");
    }
    // The name holds for one event, and without data there is none.
    let fine = format!("event: error\n\n{}", lines(&[&delta(r#"{"content":"a"}"#)]));
    assert_eq!(run(&[fine.as_bytes()], End::Clean).1, Progress::Finished);
}

#[test]
fn a_whole_answer_in_place_of_a_stream() {
    let answer = concat!(
        r#" {"model":"q","choices":[{"finish_reason":"stop","message":{"content":"Hi","reasoning":"r","#,
        r#""tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\": \"\\n\"}"}},"#,
        r#"{"function":{"name":"g","arguments":""}}]}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#
    );
    let whole = run(&[answer.as_bytes()], End::Clean);
    assert_eq!(whole.1, Progress::Finished);
    let mut events = digest(&whole.0);
    assert!(events.remove(10).starts_with("3 tool toolu_"));
    assert_eq!(
        events,
        [
            "start asked 3+0/0",
            "0 thinking",
            "0: r",
            "0 stop",
            "1 text",
            "1: Hi",
            "1 stop",
            "2 tool c f",
            "2: {\"a\":\"\\n\"}",
            "2 stop",
            "3 stop",
            "end tool_use - 3+0/4",
            "stop",
        ]
        .map(str::to_owned)
    );
    for at in 0..=answer.len() {
        let (one, two) = answer.as_bytes().split_at(at);
        assert_eq!(run(&[one, two], End::Clean), whole, "{at}");
    }
    for (answer, message) in [
        ("{}", "the endpoint's response is not a chat completion"),
        ("{oops", "the endpoint's response is not a chat completion"),
        // Neither is a body that was never a stream of events.
        (
            "<html>hi</html>",
            "the endpoint's response is not a chat completion",
        ),
        ("[]", "the endpoint's response is not a chat completion"),
        ("nope", "the endpoint's response is not a chat completion"),
        (r#"{"error":"busy"}"#, "busy"),
    ] {
        let Progress::Refused(refusal) = run(&[answer.as_bytes()], End::Clean).1 else {
            panic!("{answer}");
        };
        assert_eq!((refusal.status, &*refusal.message), (502, message));
    }
}

#[test]
fn silence_is_filled() {
    let mut transformer = message_stream(context());
    let mut out = Vec::new();
    assert_eq!(
        transformer.idle(Moment::default(), &mut out),
        Progress::Streaming
    );
    assert_eq!(
        transformer.idle(Moment::default(), &mut out),
        Progress::Streaming
    );
    let chunk = lines(&[r#"{"model":"q","choices":[{"delta":{"content":"a"}}]}"#]);
    let _ = transformer.push(chunk.as_bytes(), Moment::default(), &mut out);
    assert_eq!(
        transformer.end(End::Broken, Moment::default(), &mut out),
        Progress::Failed
    );
    assert_eq!(
        digest(&String::from_utf8(out).unwrap()),
        [
            "start asked 77+0/0",
            "ping",
            "0 text",
            "0: a",
            "error api_error the endpoint's response broke off",
        ]
    );
}

#[test]
fn large_events_pass_and_larger_ones_do_not() {
    let text = "x".repeat(EVENT_BYTES_MAX - 100);
    let chunk = lines(&[&delta(&format!(r#"{{"content":"{text}"}}"#))]);
    assert!(chunk.len() > 16 << 20);
    let (out, progress) = run(&[chunk.as_bytes()], End::Clean);
    assert_eq!(progress, Progress::Finished);
    assert!(out.contains(&text));
    let text = "x".repeat(EVENT_BYTES_MAX);
    let chunk = lines(&[
        &delta(r#"{"content":"a"}"#),
        &delta(&format!(r#"{{"content":"{text}"}}"#)),
    ]);
    for pieces in [
        vec![chunk.as_bytes()],
        chunk.as_bytes().chunks(1 << 20).collect(),
    ] {
        let (out, progress) = run(&pieces, End::Clean);
        assert_eq!(progress, Progress::Failed);
        assert_eq!(
            digest(&out)[3..],
            ["error api_error the endpoint sent an event that is too large"]
        );
    }
    let many = format!("data: {}\n", "x".repeat(1 << 20)).repeat(17);
    assert!(matches!(
        run(&[many.as_bytes()], End::Clean).1,
        Progress::Refused(_)
    ));
    let whole = format!("{{{}", " ".repeat(EVENT_BYTES_MAX));
    assert!(matches!(
        run(&[whole.as_bytes()], End::Clean).1,
        Progress::Refused(_)
    ));
}
