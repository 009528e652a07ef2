//! What responses become, whole and streamed.

use super::super::request::OllamaOperation::{Chat, Embed, Embeddings, Generate};
use super::*;

const CHAT: &str = r#"{"model":"m:7b","messages":[{"role":"user","content":"hi"}]}"#;
const PLAIN: &str =
    r#"{"model":"m:7b","stream":false,"messages":[{"role":"user","content":"hi"}]}"#;
const BEGIN: &str = r#"{"model":"m:7b","created_at":"2023-11-14T22:13:20.125Z","#;

/// The members of a last object, for these counts.
fn totals(reason: &str, prompt: u64, completion: u64) -> String {
    format!(
        "\"done\":true,\"done_reason\":\"{reason}\",\"total_duration\":2000000000,\
         \"load_duration\":0,\"prompt_eval_count\":{prompt},\"prompt_eval_duration\":2000000000,\
         \"eval_count\":{completion},\"eval_duration\":1}}"
    )
}

fn message(inner: &str) -> String {
    format!(r#"{BEGIN}"message":{{"role":"assistant","content":{inner}}},"#)
}

#[test]
fn calls_are_bounded() {
    use crate::dialects::chat::completion::CALLS_MAX;
    let response = |calls: usize| {
        let calls = vec![r#"{"function":{"name":"f"}}"#; calls].join(",");
        format!(r#"{{"choices":[{{"message":{{"tool_calls":[{calls}]}}}}]}}"#)
    };
    assert!(whole(Chat, PLAIN, &response(CALLS_MAX)).is_ok());
    let refused = whole(Chat, PLAIN, &response(CALLS_MAX + 1)).unwrap_err();
    assert_eq!(
        refused,
        "502 the endpoint sent more tool calls than can be held"
    );
    // In place of a stream.
    let response = response(CALLS_MAX + 1);
    let (lines, progress) = streamed(Chat, CHAT, &[response.as_bytes()], End::Clean);
    assert!(lines.is_empty() && matches!(progress, Progress::Refused(_)));
}

#[test]
fn a_response_is_one_object() {
    let usage = r#""usage":{"prompt_tokens":11,"completion_tokens":7}"#;
    let respond = |message: &str, finish: &str| {
        let response =
            format!(r#"{{"choices":[{{"message":{message},"finish_reason":{finish}}}],{usage}}}"#);
        whole(Chat, PLAIN, &response).unwrap()
    };
    let rows = [
        (r#"{"content":"Hi\u00e9"}"#, "\"stop\"", r#""Hié""#, "stop"),
        (r#"{"content":"Hi"}"#, "\"length\"", r#""Hi""#, "length"),
        (r#"{"content":null}"#, "null", r#""""#, "stop"),
        (
            r#"{"content":"Hi","reasoning":"why"}"#,
            "\"stop\"",
            r#""Hi","thinking":"why""#,
            "stop",
        ),
        (
            concat!(
                r#"{"content":null,"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{\"a\": 1}"}},"#,
                r#"{"function":{"name":"g","arguments":"nonsense"}},{"id":"y","function":{"name":"h","arguments":{}}}]}"#
            ),
            "\"tool_calls\"",
            concat!(
                r#""","tool_calls":[{"id":"x","function":{"index":0,"name":"f","arguments":{"a":1}}},"#,
                r#"{"id":"ID","function":{"index":1,"name":"g","arguments":{}}},"#,
                r#"{"id":"y","function":{"index":2,"name":"h","arguments":{}}}]"#
            ),
            "stop",
        ),
    ];
    for (given, finish, inner, reason) in rows {
        let found = respond(given, finish);
        // The id that the gateway makes.
        let made = found.split(r#"{"id":""#).nth(2).map(|rest| &rest[..9]);
        let inner = inner.replace("ID", made.unwrap_or_default());
        let expected = message(&inner) + &totals(reason, 11, 7);
        assert_eq!(found, expected, "{given}");
    }
}

#[test]
fn what_was_asked_for_is_there_and_no_more() {
    let response = concat!(
        r#"{"choices":[{"message":{"content":"Hi","reasoning_content":"why"},"finish_reason":"stop","#,
        r#""logprobs":{"content":[{"token":"Hi","logprob":-0.50,"bytes":[72,105],"x":1,"#,
        r#""top_logprobs":[{"token":"Hi","logprob":-0.50,"bytes":null}]}]}}]}"#
    );
    let hidden = PLAIN.replace("\"stream\"", "\"think\":false,\"stream\"");
    let found = whole(Chat, &hidden, response).unwrap();
    assert!(found.starts_with(&message(r#""Hi""#)), "{found}");
    let asked = PLAIN.replace("\"stream\"", "\"logprobs\":true,\"stream\"");
    let found = whole(Chat, &asked, response).unwrap();
    let logprobs = concat!(
        r#""logprobs":[{"token":"Hi","logprob":-0.50,"bytes":[72,105],"#,
        r#""top_logprobs":[{"token":"Hi","logprob":-0.50}]}],"done":true"#
    );
    assert!(found.contains(logprobs), "{found}");
    // A token without a member that Ollama has.
    let bare = concat!(
        r#"{"choices":[{"message":{"content":"Hi"},"logprobs":{"content":["#,
        r#"{"x":1,"top_logprobs":[{"x":1},7]},{"top_logprobs":[]},7]}}]}"#
    );
    let found = whole(Chat, &asked, bare).unwrap();
    let logprobs = r#""logprobs":[{"top_logprobs":[{},{}]},{"top_logprobs":[]},{}],"done":true"#;
    assert!(found.contains(logprobs), "{found}");
    let prompt = r#"{"model":"m:7b","stream":false,"prompt":"p"}"#;
    let found = whole(Generate, prompt, response).unwrap();
    let expected = format!(r#"{BEGIN}"response":"Hi","thinking":"why","done":true"#);
    assert!(found.starts_with(&expected), "{found}");
    let raw = r#"{"model":"m:7b","stream":false,"prompt":"p","raw":true}"#;
    let completion = r#"{"choices":[{"text":"Hi","finish_reason":"length"}]}"#;
    let found = whole(Generate, raw, completion).unwrap();
    let expected = format!(r#"{BEGIN}"response":"Hi","done":true,"done_reason":"length""#);
    assert!(found.starts_with(&expected), "{found}");
    for wrong in [
        "",
        "[]",
        r#"{"choices":[]}"#,
        r#"{"error":{"message":"no"}}"#,
    ] {
        assert!(whole(Chat, PLAIN, wrong).unwrap_err().starts_with("502 "));
    }
}

#[test]
fn vectors_keep_their_order_and_spelling() {
    let response = concat!(
        r#"{"data":[{"index":1,"embedding":[0.250, -1]},{"index":0,"embedding":[5e-1]}],"#,
        r#""usage":{"prompt_tokens":6}}"#
    );
    let found = whole(Embed, r#"{"model":"m","input":["a","b"]}"#, response).unwrap();
    assert_eq!(
        found,
        concat!(
            r#"{"model":"m","embeddings":[[5e-1],[0.250,-1]],"total_duration":2000000000,"#,
            r#""load_duration":0,"prompt_eval_count":6}"#
        )
    );
    let found = whole(Embeddings, r#"{"model":"m","prompt":"a"}"#, response).unwrap();
    assert_eq!(found, r#"{"embedding":[5e-1]}"#);
    for wrong in [
        "{}",
        r#"{"data":[{"embedding":"x"}]}"#,
        r#"{"data":7}"#,
        "x",
    ] {
        let error = whole(Embed, r#"{"model":"m","input":"a"}"#, wrong).unwrap_err();
        assert!(error.starts_with("502 "), "{wrong}: {error}");
    }
}

/// The chunk with this delta.
fn delta(delta: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#)
}

fn call(index: u64, id: &str, name: &str, arguments: &str) -> String {
    let arguments = serde_json::to_string(arguments).unwrap();
    delta(&format!(
        r#"{{"tool_calls":[{{"index":{index},"id":"{id}","function":{{"name":"{name}","arguments":{arguments}}}}}]}}"#
    ))
}

/// The lines for these deltas, without their ends, the last one aside.
fn lines(chunks: &[String]) -> Vec<String> {
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let sent = events(&chunks);
    let (out, progress) = streamed(Chat, CHAT, &[sent.as_bytes()], End::Clean);
    assert_eq!(progress, Progress::Finished);
    assert!(out.ends_with("}\n"));
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap();
    assert!(last.contains(r#""content":""},"done":true"#), "{last}");
    for line in &mut lines {
        let inner = line.strip_suffix(r#","done":false}"#).unwrap();
        let inner = inner.strip_prefix(BEGIN).unwrap();
        let inner = inner.strip_prefix(r#""message":{"role":"assistant","content":"#);
        *line = inner.unwrap().strip_suffix('}').unwrap().to_owned();
    }
    lines
}

#[test]
fn each_piece_is_a_line() {
    let chunks = [
        delta(r#"{"role":"assistant","content":""}"#),
        delta(r#"{"reasoning":"wh"}"#),
        delta(r#"{"reasoning_content":"y","content":"H"}"#),
        delta(r#"{"content":"i"}"#),
        delta("{}"),
        r#"{"choices":[]}"#.to_owned(),
    ];
    let expected = [
        r#""","thinking":"wh""#,
        r#""","thinking":"y""#,
        r#""H""#,
        r#""i""#,
    ];
    assert_eq!(lines(&chunks), expected);
}

#[test]
fn a_call_is_one_line_as_soon_as_it_is_complete() {
    let written = |index: u64, id: &str, name: &str, arguments: &str| {
        format!(
            r#""","tool_calls":[{{"id":"{id}","function":{{"index":{index},"name":"{name}","arguments":{arguments}}}}}]"#
        )
    };
    // In pieces, with text in between.
    let chunks = [
        call(0, "x", "f", ""),
        call(0, "", "", "{\"a\""),
        delta(r#"{"content":"t"}"#),
        call(0, "", "", ": \"}\\\"{\"}"),
        delta(r#"{"content":"u"}"#),
    ];
    let expected = [
        r#""t""#.to_owned(),
        written(0, "x", "f", r#"{"a":"}\"{"}"#),
        r#""u""#.to_owned(),
    ];
    assert_eq!(lines(&chunks), expected);
    // Mixed pieces keep the order in which the calls began.
    let chunks = [
        call(0, "x", "f", "{"),
        call(1, "y", "g", "{\"b\":2}"),
        call(0, "", "", "\"a\":1}"),
        call(2, "z", "h", ""),
    ];
    let expected = [
        written(0, "x", "f", r#"{"a":1}"#),
        written(1, "y", "g", r#"{"b":2}"#),
        written(2, "z", "h", "{}"),
    ];
    assert_eq!(lines(&chunks), expected);
    // What is no object.
    let chunks = [call(0, "x", "f", "[1]"), call(1, "y", "g", "{\"a\":")];
    let expected = [written(0, "x", "f", "{}"), written(1, "y", "g", "{}")];
    assert_eq!(lines(&chunks), expected);
}

#[test]
fn the_last_line_has_the_totals() {
    let chunks = [
        delta(r#"{"content":"Hi"}"#),
        r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#.to_owned(),
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#.to_owned(),
    ];
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let (out, _) = streamed(Chat, CHAT, &[events(&chunks).as_bytes()], End::Clean);
    let last = out.lines().last().unwrap();
    assert_eq!(last, message(r#""""#) + &totals("length", 3, 4));
    // A document in place of a stream.
    let document = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#;
    let (out, _) = streamed(Chat, CHAT, &[document.as_bytes()], End::Clean);
    assert_eq!(out.lines().count(), 2);
    let prompt = r#"{"model":"m:7b","prompt":"p","raw":true}"#;
    let chunks = [
        r#"{"choices":[{"text":"H"}]}"#,
        r#"{"choices":[{"text":"i"}]}"#,
    ];
    let (out, _) = streamed(Generate, prompt, &[events(&chunks).as_bytes()], End::Clean);
    let first = format!(r#"{BEGIN}"response":"H","done":false}}"#);
    assert_eq!(out.lines().next(), Some(&*first));
}

#[test]
fn a_stream_that_breaks_off_never_looks_finished() {
    let sent = format!("data: {}\n\n", delta(r#"{"content":"Hi"}"#));
    for (how, message) in [
        (End::Broken, "the endpoint's response broke off"),
        (End::TimedOut, "the endpoint stopped sending"),
    ] {
        let (out, progress) = streamed(Chat, CHAT, &[sent.as_bytes()], how);
        assert_eq!(progress, Progress::Failed);
        let last = out.lines().last().unwrap();
        assert_eq!(last, format!(r#"{{"error":"{message}"}}"#));
        assert!(!out.contains(r#""done":true"#));
    }
    let (out, progress) = streamed(Chat, CHAT, &[], End::Broken);
    assert_eq!(out, "");
    assert!(matches!(progress, Progress::Refused(refusal) if refusal.status == 502));
    let error = r#"data: {"error":{"message":"out of \"memory\""}}"#;
    let (out, _) = streamed(
        Chat,
        CHAT,
        &[sent.as_bytes(), error.as_bytes(), b"\n\n"],
        End::Clean,
    );
    let last = out.lines().last().unwrap();
    assert_eq!(last, r#"{"error":"out of \"memory\""}"#);
}

#[test]
fn a_silent_stream_gets_empty_lines() {
    let (mut request, _) = made(Chat, CHAT, "vllm");
    let mut stream = request.stream();
    let mut out = Vec::new();
    let empty = message(r#""""#) + "\"done\":false}\n";
    assert_eq!(stream.idle(AT, &mut out), Progress::Streaming);
    assert_eq!(String::from_utf8(out.clone()).unwrap(), empty);
    stream.idle(AT, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), empty.repeat(2));
}
