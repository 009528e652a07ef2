use serde_json::{Value, json};

use super::*;
use crate::dialects::chat::chunk::StreamEvent;
use crate::dialects::chat::ids::IdSeed;
use crate::dialects::chat::stream::{ChatStream, End, Progress};
use crate::dialects::responses::object::ReplySeed;
use crate::dialects::responses::request::{RequestField, ResponsesRequest};
use crate::dialects::responses::store::{Owner, ResponseStore, StoreBounds};
use crate::dialects::responses::stored_input::StoredInput;
use crate::dialects::responses::tools::OfferedTools;
use std::sync::Arc;

/// What the gateway adds to a request.
pub(crate) fn seed_of(byte: u8) -> ReplySeed {
    ReplySeed {
        seed: IdSeed([byte; 16]),
        now: 100,
    }
}

fn at(secs: u64) -> Moment {
    Moment {
        unix_ms: secs * 1000,
        ..Moment::default()
    }
}

/// The context of a request with these members.
pub(crate) fn context(members: &Value) -> ReplyContext {
    let mut body = json!({"model": "m", "input": "x"});
    for (key, value) in members.as_object().unwrap() {
        body[key] = value.clone();
    }
    let body = body.to_string();
    let request = ResponsesRequest::read(body.as_bytes()).unwrap();
    let fields = request.fields(body.as_bytes());
    let tools = OfferedTools::read(fields.get(RequestField::Tools)).unwrap();
    let mut context = ReplyContext::new(&fields, tools.names, 77, seed_of(0x30));
    context.store_room = Some(1000);
    context
}

/// What the client gets of pieces of an endpoint's stream.
pub(crate) fn run(members: &Value, pieces: &[&[u8]]) -> String {
    let (out, progress) = run_to(members, pieces, End::Clean);
    assert!(!matches!(progress, Progress::Waiting | Progress::Streaming));
    out
}

fn run_to(members: &Value, pieces: &[&[u8]], end: End) -> (String, Progress) {
    let mut stream = ChatStream::new(Box::new(Reply::new(context(members), None)));
    let mut out = Vec::new();
    for piece in pieces {
        let _ = stream.push(piece, at(101), &mut out);
    }
    let progress = stream.end(end, at(102), &mut out);
    (String::from_utf8(out).unwrap(), progress)
}

/// The stream of an endpoint with these chunks.
pub(crate) fn finished_stream(chunks: &[Value], reason: &str) -> Vec<u8> {
    wire(&[chunks, &[finished(reason)]].concat())
}

/// The events, after a check of their form on the wire.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    assert!(stream.is_empty() || stream.ends_with("\n\n"), "{stream}");
    let mut found = Vec::new();
    for event in stream.split_terminator("\n\n") {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name.strip_prefix("event: ").unwrap());
        assert_eq!(data["sequence_number"], found.len());
        found.push(data);
    }
    found
}

/// The chunks of an endpoint on the wire.
pub(crate) fn wire(chunks: &[Value]) -> Vec<u8> {
    let chunks = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    chunks.collect::<String>().into_bytes()
}

pub(crate) fn delta(delta: &Value) -> Value {
    json!({"choices": [{"delta": delta}]})
}

pub(crate) fn finished(reason: &str) -> Value {
    json!({"choices": [{"delta": {}, "finish_reason": reason}]})
}

pub(crate) fn call(index: u64, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let mut call = json!({"index": index, "function": {"arguments": arguments}});
    if let Some(id) = id {
        call["id"] = json!(id);
    }
    if let Some(name) = name {
        call["function"]["name"] = json!(name);
    }
    delta(&json!({"tool_calls": [call]}))
}

/// The events of a stream of these chunks, which is also cut at every byte.
pub(crate) fn streamed(members: &Value, chunks: &[Value]) -> Vec<Value> {
    let wire = wire(chunks);
    let whole = run(members, &[&wire]);
    for at in 0..=wire.len() {
        let (one, two) = wire.split_at(at);
        assert_eq!(run(members, &[one, two]), whole, "{at}");
    }
    let single: Vec<_> = wire.chunks(1).collect();
    assert_eq!(run(members, &single), whole);
    events(&whole)
}

/// An event in a few words.
fn short(event: &Value) -> String {
    let kind = event["type"]
        .as_str()
        .unwrap()
        .strip_prefix("response.")
        .unwrap();
    let at = &event["output_index"];
    let text = |key: &str| event[key].as_str().unwrap_or("").to_owned();
    match kind.rsplit_once('.') {
        _ if event["response"].is_object() => {
            format!(
                "{kind} {}",
                event["response"]["output"].as_array().unwrap().len()
            )
        }
        Some((what, "delta")) => format!("{at} {what}: {}", text("delta")),
        Some(("output_item", what)) => {
            format!(
                "{at} {what} {} {}",
                event["item"]["type"].as_str().unwrap(),
                event["item"]["status"].as_str().unwrap()
            )
        }
        _ => format!("{at} {kind}"),
    }
}

pub(crate) fn shorts(events: &[Value]) -> Vec<String> {
    events.iter().map(short).collect()
}

#[test]
fn text_and_what_comes_around_it() {
    let request = json!({
        "model": " m ", "instructions": "Be brief.", "temperature": 0.50, "max_output_tokens": 64,
        "metadata": {"k": "v"}, "previous_response_id": "resp_1", "user": "u",
        "reasoning": {"effort": "low"}, "tool_choice": "none", "parallel_tool_calls": false,
    });
    let events = streamed(
        &request,
        &[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"content": "Hel"})),
            delta(&json!({"content": "lo \u{2713}\"\n"})),
            finished("stop"),
            json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3,
               "prompt_tokens_details": {"cached_tokens": 4},
               "completion_tokens_details": {"reasoning_tokens": 2}}}),
        ],
    );
    assert_eq!(
        shorts(&events),
        [
            "created 0",
            "in_progress 0",
            "0 added message in_progress",
            "0 content_part.added",
            "0 output_text: Hel",
            "0 output_text: lo \u{2713}\"\n",
            "0 output_text.done",
            "0 content_part.done",
            "0 done message completed",
            "completed 1",
        ]
    );
    let part =
        |text| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert_eq!(events[3]["part"], part(""));
    assert_eq!(events[4]["content_index"], 0);
    assert_eq!(events[4]["logprobs"], json!([]));
    assert_eq!(events[6]["text"], "Hello \u{2713}\"\n");
    assert_eq!(events[7]["part"], part("Hello \u{2713}\"\n"));
    let id = events[2]["item"]["id"].as_str().unwrap();
    assert!(id.starts_with("msg_") && id.len() == 36);
    assert!(events[3..8].iter().all(|event| event["item_id"] == id));
    let response = &events[9]["response"];
    assert_eq!(response["output"], json!([events[8]["item"]]));
    let fixed = json!({
        "id": "resp_30303030303030303030303030303030", "object": "response", "created_at": 100,
        "completed_at": 102, "status": "completed", "error": null, "incomplete_details": null,
        "model": "m", "instructions": "Be brief.", "max_output_tokens": 64,
        "max_tool_calls": null, "previous_response_id": "resp_1", "prompt_cache_key": null,
        "safety_identifier": null, "user": "u", "parallel_tool_calls": false,
        "tool_choice": "none", "truncation": "disabled", "temperature": 0.5, "top_p": 1,
        "tools": [], "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low", "summary": null}, "metadata": {"k": "v"}, "store": true,
        "background": false, "service_tier": "default", "top_logprobs": 0, "presence_penalty": 0,
        "frequency_penalty": 0,
        "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12,
                  "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 2}},
        "output": [events[8]["item"]],
    });
    assert_eq!(response, &fixed);
    for (event, status) in [(&events[0], "in_progress"), (&events[1], "in_progress")] {
        let mut first = fixed.clone();
        first["status"] = json!(status);
        first["completed_at"] = Value::Null;
        first["usage"] = Value::Null;
        first["output"] = json!([]);
        assert_eq!(event["response"], first);
    }
}

#[test]
fn reasoning_in_both_forms() {
    let chunks = [
        delta(&json!({"reasoning_content": "lo"})),
        delta(&json!({"reasoning_content": "ok"})),
        delta(&json!({"content": "Hi"})),
        delta(&json!({"reasoning": "more"})),
    ];
    let plain = streamed(&json!({}), &chunks);
    assert_eq!(
        shorts(&plain)[2..10],
        [
            "0 added reasoning in_progress",
            "0 content_part.added",
            "0 reasoning_text: lo",
            "0 reasoning_text: ok",
            "0 reasoning_text.done",
            "0 content_part.done",
            "0 done reasoning completed",
            "1 added message in_progress",
        ]
    );
    assert_eq!(
        plain[3]["part"],
        json!({"type": "reasoning_text", "text": ""})
    );
    assert_eq!(
        plain[8]["item"]["content"],
        json!([{"type": "reasoning_text", "text": "look"}])
    );
    assert_eq!(plain[8]["item"]["summary"], json!([]));
    assert_eq!(plain[8]["item"]["encrypted_content"], Value::Null);
    let last = &plain[plain.len() - 1]["response"]["output"];
    let kinds: Vec<_> = last
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["type"])
        .collect();
    assert_eq!(kinds, ["reasoning", "message", "reasoning"]);

    let request =
        json!({"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]});
    let summed = streamed(&request, &chunks);
    assert_eq!(
        shorts(&summed)[2..9],
        [
            "0 added reasoning in_progress",
            "0 reasoning_summary_part.added",
            "0 reasoning_summary_text: lo",
            "0 reasoning_summary_text: ok",
            "0 reasoning_summary_text.done",
            "0 reasoning_summary_part.done",
            "0 done reasoning completed",
        ]
    );
    assert_eq!(summed[4]["summary_index"], 0);
    let item = &summed[8]["item"];
    assert_eq!(
        item["summary"],
        json!([{"type": "summary_text", "text": "look"}])
    );
    assert_eq!(
        (&item["content"], &item["encrypted_content"]),
        (&json!([]), &json!("olla1.bG9vaw"))
    );
    assert_eq!(summed[2]["item"]["encrypted_content"], Value::Null);
}

#[test]
fn how_responses_end() {
    for (chunks, event, reason, statuses) in [
        (
            vec![delta(&json!({"role": "assistant"}))],
            "completed",
            Value::Null,
            vec!["completed"],
        ),
        (
            vec![finished("length")],
            "incomplete",
            json!("max_output_tokens"),
            vec!["completed"],
        ),
        (
            vec![call(0, Some("a"), Some("f"), "{\"x"), finished("length")],
            "incomplete",
            json!("max_output_tokens"),
            vec!["incomplete"],
        ),
        (
            vec![
                delta(&json!({"reasoning": "r"})),
                delta(&json!({"content": "x"})),
                finished("content_filter"),
            ],
            "incomplete",
            json!("content_filter"),
            vec!["completed", "incomplete"],
        ),
        (
            vec![delta(&json!({"reasoning": "r"})), finished("stop")],
            "completed",
            Value::Null,
            vec!["completed", "completed"],
        ),
        (
            vec![delta(&json!({"refusal": "no"}))],
            "completed",
            Value::Null,
            vec!["completed"],
        ),
    ] {
        let events = streamed(&json!({}), &chunks);
        let last = &events[events.len() - 1];
        assert_eq!(last["type"], format!("response.{event}"));
        assert_eq!(last["response"]["status"], event);
        assert_eq!(last["response"]["incomplete_details"]["reason"], reason);
        let output = last["response"]["output"].as_array().unwrap();
        let found: Vec<_> = output
            .iter()
            .map(|item| item["status"].as_str().unwrap())
            .collect();
        assert_eq!(found, statuses, "{chunks:?}");
        let usage = &last["response"]["usage"];
        assert_eq!(usage["input_tokens"], 77);
    }
    let refusal = streamed(&json!({}), &[delta(&json!({"refusal": "no"}))]);
    assert_eq!(
        shorts(&refusal)[2..8],
        [
            "0 added message in_progress",
            "0 content_part.added",
            "0 refusal: no",
            "0 refusal.done",
            "0 content_part.done",
            "0 done message completed",
        ]
    );
    assert_eq!(
        refusal[7]["item"]["content"],
        json!([{"type": "refusal", "refusal": "no"}])
    );
}

#[test]
fn a_failure_never_looks_finished() {
    for (error, code) in [
        (Refusal::backend("m"), "server_error"),
        (
            Refusal::backend("m").with_code("context_length_exceeded"),
            "context_length_exceeded",
        ),
        (
            Refusal {
                status: 429,
                ..Refusal::backend("m")
            },
            "rate_limit_exceeded",
        ),
    ] {
        let mut reply = Reply::new(context(&json!({})), None);
        let mut out = Vec::new();
        reply.start(None, at(101), &mut out);
        for chunk in [
            delta(&json!({"content": "Half"})),
            call(0, Some("a"), Some("f"), "{"),
        ] {
            let chunk = chunk.to_string();
            let StreamEvent::Chunk(chunk) =
                StreamEvent::read(json::parse(chunk.as_bytes()).unwrap())
            else {
                panic!("no chunk");
            };
            reply.chunk(&chunk, at(101), &mut out).unwrap();
        }
        reply.fail(&error, at(102), &mut out);
        let events = events(std::str::from_utf8(&out).unwrap());
        let last = &events[events.len() - 1];
        assert_eq!(last["type"], "response.failed");
        let response = &last["response"];
        assert_eq!(response["status"], "failed");
        assert_eq!(response["error"], json!({"code": code, "message": "m"}));
        assert_eq!(response["output"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&response["store"], &response["completed_at"]),
            (&json!(false), &Value::Null)
        );
    }
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let begun = wire(&[delta(&json!({"content": "Half"}))]);
    let error = |error: &str| [begun.clone(), format!("data: {error}\n\n").into_bytes()].concat();
    for (stream, end, code) in [
        (begun.clone(), End::Broken, "server_error"),
        (begun.clone(), End::TimedOut, "server_error"),
        (
            error(r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#),
            End::Clean,
            "context_length_exceeded",
        ),
        (
            error(r#"{"error":{"message":"maximum context length is 5 tokens"}}"#),
            End::Clean,
            "context_length_exceeded",
        ),
        (error(r#"{"detail":"d"}"#), End::Clean, "server_error"),
    ] {
        let (out, progress) = run_to(&json!({}), &[&stream], end);
        assert_eq!(progress, Progress::Failed);
        let events = events(&out);
        let last = &events[events.len() - 1];
        assert_eq!(
            (&last["type"], &last["response"]["error"]["code"]),
            (&json!("response.failed"), &json!(code))
        );
        assert!(!out.contains("response.completed"));
    }
}

#[test]
fn silence_gets_a_comment() {
    let mut reply = Reply::new(context(&json!({})), None);
    let mut out = Vec::new();
    reply.keep_alive(at(101), &mut out);
    assert_eq!(out, b": keep-alive\n\n");
    assert_eq!((reply.held(), reply.warnings().len()), (0, 0));
}

#[test]
fn a_finished_response_is_kept() {
    let store = Arc::new(ResponseStore::new(StoreBounds {
        enabled: true,
        max_items: 10,
        max_bytes: 1 << 20,
        ttl_ms: 1000,
    }));
    let owner = Owner(Some([1; 32]));
    let keeper = || Keeper {
        store: Arc::clone(&store),
        owner,
        input: StoredInput::default(),
        parent: None,
    };
    let long = "x".repeat(2000);
    for (text, is_kept) in [("Hi", true), (long.as_str(), false)] {
        let document = json!({"choices": [{"message": {"content": text}}]}).to_string();
        let prepared = (context(&json!({})), Some(keeper()));
        let reply = whole(document.as_bytes(), prepared, at(102)).unwrap();
        let object: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(object["store"], is_kept);
        let id = object["id"].as_str().unwrap();
        let kept = store.find(owner, id, 102_000);
        assert_eq!(kept.is_some(), is_kept);
        if let Some(kept) = kept {
            assert_eq!(kept.object(), reply.body);
            let output: Value = serde_json::from_slice(kept.output()).unwrap();
            assert_eq!(output, object["output"]);
        }
        store.delete(owner, id, 102_000);
    }
}

#[test]
fn a_whole_response_is_what_its_stream_ends_with() {
    let request = json!({"tools": [{"type": "custom", "name": "p"}], "include": ["reasoning.encrypted_content"]});
    let long = "x".repeat(2000);
    for (message, finish) in [
        (json!({"content": "Hi", "reasoning": "r"}), "stop"),
        (json!({"content": null, "refusal": "no"}), "stop"),
        (
            json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            "length",
        ),
        (
            json!({"content": "", "tool_calls": [
            {"id": "a", "function": {"name": "p", "arguments": "{\"input\":\"x\\n\"}"}},
            {"function": {"name": "f", "arguments": {"a": 1.50}}},
            {"id": "b", "function": {"name": "g", "arguments": ""}}]}),
            "tool_calls",
        ),
        (
            json!({"content": "", "tool_calls": [
            {"id": "a", "function": {"name": "p", "arguments": "{\"input\":\"cut"}}]}),
            "length",
        ),
        (json!({"content": long}), "stop"),
        (json!({}), "stop"),
    ] {
        let document = json!({"choices": [{"message": message, "finish_reason": finish}],
                              "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
        .to_string();
        let reply = whole(document.as_bytes(), (context(&request), None), at(102)).unwrap();
        let object: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(object["store"], document.len() < 1000);
        let calls = message["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate();
        let calls: Vec<_> = calls
            .map(|(index, call)| {
                let mut call = call.clone();
                call["index"] = json!(index);
                call
            })
            .collect();
        let mut piece = message.clone();
        if !calls.is_empty() {
            piece["tool_calls"] = json!(calls);
        }
        let chunk = json!({"choices": [{"delta": piece, "finish_reason": finish}],
                           "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
        let out = run(&request, &[&wire(&[chunk])]);
        let last = events(&out).pop().unwrap();
        assert_eq!(last["response"], object, "{document}");
    }
    for body in ["", "[]", "oops", r#"{"choices":[]}"#] {
        let prepared = (context(&request), None);
        let refusal = whole(body.as_bytes(), prepared, at(102)).unwrap_err();
        assert_eq!(refusal.status, 502);
    }
}
