//! Any body and any stream, in any pieces: no panic, what is accepted becomes JSON, and a stream
//! becomes the same events however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::translate::{
    ResponseContext, Assembly, End, IdSeed, Moment, NativeTail, Progress, message_stream, check,
    count_tokens, error_from_backend, from_openai, is_not_spoken_here, to_openai,
};

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let context = ResponseContext {
        model: "m".to_owned(),
        stop_sequences: vec!["\n".to_owned()],
        input_tokens: 1,
        served_context: None,
        seed: IdSeed([flags; 16]),
    };
    let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();

    if let Ok(checked) = check(body) {
        assert!(!checked.model.is_empty());
        checked.context(body, context.seed);
        if let Ok(translated) = to_openai(body, &checked, "\"new\"\\", None) {
            assert!(is_json(&translated.body));
        }
        // Other bytes than those that were checked.
        let _ = to_openai(body.get(1..).unwrap_or_default(), &checked, "m", None);
    }
    if let Ok(counted) = count_tokens(body) {
        assert!(is_json(&counted));
    }
    if let Ok(message) = from_openai(body, &context) {
        assert!(is_json(&message.body));
    }
    let _ = error_from_backend(500, body);
    is_not_spoken_here(404, body);

    let end = [End::Clean, End::Broken, End::TimedOut][usize::from(flags) % 3];
    let (events, progress) = stream(&context, &[body], end);
    assert!(!matches!(progress, Progress::Waiting | Progress::Streaming));
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(cut)));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(stream(&context, &pieces, end), (events, progress));
});

/// The events of a stream that comes in these pieces. Each is JSON, and they are a message.
fn stream(context: &ResponseContext, pieces: &[&[u8]], end: End) -> (Vec<u8>, Progress) {
    let mut transformer = message_stream(context.clone());
    let mut tail = NativeTail::default();
    let mut out = Vec::new();
    for piece in pieces {
        let _ = transformer.push(piece, Moment::default(), &mut out);
        tail.push(piece);
    }
    let progress = transformer.end(end, Moment::default(), &mut out);
    let mut assembly = Assembly::default();
    assembly.push(&out);
    serde_json::from_slice::<serde::de::IgnoredAny>(&assembly.finish()).expect("a message");
    if progress == Progress::Finished {
        let mut end = NativeTail::default();
        end.push(&out);
        assert!(end.is_complete());
    }
    tail.broken(End::Broken, &mut Vec::new());
    (out, progress)
}
