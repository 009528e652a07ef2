//! Any request of the Messages API and any response of an endpoint, in any pieces: no panic; what is
//! accepted becomes a chat completion request that servers take; a stream becomes the same events
//! however it is cut, and a response that is no stream says the same to a client with and without
//! one (docs/contract/translation.md#7, docs/contract/translation.md#8).

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::translate::{
    Assembly, End, IdSeed, Moment, NativeTail, Progress, ResponseContext, check, count_tokens,
    error_from_backend, from_openai, is_not_spoken_here, message_stream, to_openai,
};
use olla_fuzz::{
    SENT_NAME, bounded, bytes, check_chat, check_growth, chunks_of_deltas, events, looks_like_json,
    object, pieces,
};
use serde_json::{Map, Value, json};

/// Output per byte of a chunk that begins a block with one letter.
const GROWTH_MAX: usize = 32;

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let context = ResponseContext {
        model: "m".to_owned(),
        stop_sequences: vec!["\n".to_owned()],
        input_tokens: 1,
        served_context: None,
        seed: IdSeed([flags; 16]),
    };
    match flags & 12 {
        0 => check_request(body, &context),
        // The input has messages or other members alone.
        4 => {
            let request = [br#"{"model":"m","max_tokens":9,"messages":["#, body, b"]}"].concat();
            check_request(&request, &context);
        }
        8 => {
            let members = [br#"{"model":"m","max_tokens":9,"#, body, b"}"].concat();
            check_request(&members, &context);
        }
        _ => {}
    }
    let body = match flags & 1 {
        0 => body.to_vec(),
        _ => chunks_of_deltas(body),
    };
    let _ = error_from_backend(500, &body);
    is_not_spoken_here(404, &body);

    let end = [End::Clean, End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 4];
    let whole = bounded(body.len(), 4 * GROWTH_MAX, || {
        stream(&context, &[&body], end)
    });
    assert_eq!(stream(&context, &pieces(&body, &cuts), end), whole);
    assert_eq!(stream(&context, &bytes(&body), end), whole);
    let (events, progress) = whole;
    check_growth(body.len(), events.len(), GROWTH_MAX);
    let message = check_events(&events, &progress);
    let reply = from_openai(&body, &context)
        .ok()
        .map(|reply| object(&reply.body));
    if end != End::Clean {
        return;
    }
    let is_finished = progress == Progress::Finished;
    match reply {
        Some(reply) => {
            assert!(is_finished);
            if looks_like_json(&body) {
                check_same(&reply, message);
            }
        }
        None => assert!(!is_finished || !looks_like_json(&body)),
    }
});

fn check_request(body: &[u8], context: &ResponseContext) {
    if let Ok(checked) = check(body) {
        assert!(!checked.model.is_empty());
        checked.context(body, context.seed);
        let translated = bounded(body.len(), 4 * GROWTH_MAX, || {
            to_openai(body, &checked, SENT_NAME, None)
        });
        if let Ok(translated) = translated {
            check_growth(body.len(), translated.body.len(), GROWTH_MAX);
            let sent = check_chat(&translated.body, true);
            assert!(sent["stream"].is_boolean() && sent.contains_key("max_tokens"));
        }
        // Other bytes than those that were checked.
        let _ = to_openai(body.get(1..).unwrap_or_default(), &checked, "m", None);
    }
    if let Ok(counted) = count_tokens(body) {
        object(&counted);
    }
}

/// The events of a stream that comes in these pieces.
fn stream(context: &ResponseContext, pieces: &[&[u8]], end: End) -> (Vec<u8>, Progress) {
    let mut transformer = message_stream(context.clone());
    let mut tail = NativeTail::default();
    let mut out = Vec::new();
    for piece in pieces {
        let _ = transformer.push(piece, Moment::default(), &mut out);
        tail.push(piece);
    }
    let progress = transformer.end(end, Moment::default(), &mut out);
    tail.broken(End::Broken, &mut Vec::new());
    (out, progress)
}

/// The events of a message: blocks one after the other, each opened, filled and closed. Returns the
/// message that they make up.
fn check_events(stream: &[u8], progress: &Progress) -> Map<String, Value> {
    let mut assembly = Assembly::default();
    assembly.push(stream);
    let message = object(&assembly.finish());
    let events = events(stream);
    let Some((last, before)) = events.split_last() else {
        assert!(matches!(progress, Progress::Refused(_)));
        return message;
    };
    assert_eq!(events[0]["type"], "message_start");
    let (mut index, mut is_open) = (0, false);
    for event in before.iter().skip(1) {
        match event["type"].as_str().expect("a type") {
            "content_block_start" => assert!(!std::mem::replace(&mut is_open, true)),
            "content_block_delta" => assert!(is_open),
            "content_block_stop" => assert!(std::mem::replace(&mut is_open, false)),
            "message_delta" => {
                assert!(!is_open && event["delta"]["stop_reason"].is_string());
                assert_eq!(last["type"], "message_stop");
                continue;
            }
            other => panic!("the event {other}"),
        }
        assert_eq!(event["index"], index);
        index += u64::from(!is_open);
    }
    let mut tail = NativeTail::default();
    tail.push(stream);
    let is_finished = *progress == Progress::Finished;
    assert_eq!(tail.is_complete(), is_finished);
    if !is_finished {
        assert!(*progress == Progress::Failed && last["type"] == "error");
    }
    message
}

/// A message without a stream says what the events say.
fn check_same(reply: &Map<String, Value>, mut message: Map<String, Value>) {
    if message["content"] == json!([]) {
        // A whole message has a block in any case.
        message["content"] = json!([{"type": "text", "text": ""}]);
    }
    assert_eq!(reply, &message);
}
