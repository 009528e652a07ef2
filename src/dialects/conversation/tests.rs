use std::ops::ControlFlow;

use super::*;
use crate::config::{ConfigInputs, DialectName, Env, FileFormat, Plan, plan_from_str};
use crate::dialects::anthropic::translate::message_stream;
use crate::dialects::chat::context::ResponseContext;
use crate::dialects::chat::inflate::EXPANSION_MAX;
use crate::dialects::chat::stream::{ChatStream, EVENT_BYTES_MAX};
use crate::dialects::chat::warning::Translated;
use crate::dialects::chat::writer::Moment;
use crate::dialects::responses::{Owner, ResponseStore, StoreBounds};
use crate::dialects::{Choosing, Sending, Sent, Whole};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::routing::testing::endpoint;
use std::sync::Arc;

static FACTS: TranslatorFacts = TranslatorFacts {
    name: "test",
    dialect: DialectName::OpenAiResponses,
    stream_type: "text/event-stream",
    silence_max: None,
    puts_together: true,
};

/// A dialect whose requests and responses are those of chat completions.
#[derive(Debug, Default)]
struct Same {
    demand: Demand,
    limitation: &'static str,
}

impl Translator for Same {
    fn facts(&self) -> &'static TranslatorFacts {
        &FACTS
    }

    fn check(&mut self, body: &[u8]) -> CheckedRequest {
        CheckedRequest {
            model: "m".to_owned(),
            stream: body == b"stream",
            invalid: (body == b"invalid").then(|| Refusal::invalid("no")),
            demand: self.demand.clone(),
        }
    }

    fn native<'e>(&self, endpoint: &'e Endpoint) -> NativeSupport<'e> {
        NativeSupport {
            enabled: endpoint.profile.responses.enabled,
            path: Some(&endpoint.profile.responses.path),
            limitations: &endpoint.profile.responses.limitations,
        }
    }

    fn is_excluded_by(&self, limitation: &str) -> bool {
        limitation == self.limitation
    }

    fn to_chat(&mut self, making: &ChatMaking<'_>) -> Result<Outgoing, Refusal> {
        let mut dropped = Dropped::default();
        dropped.add("template");
        Ok(Outgoing::Chat(ChatRequest {
            body: making.name.as_bytes().to_vec(),
            input_tokens: 7,
            dropped,
            ..ChatRequest::default()
        }))
    }

    fn whole(&mut self, body: &[u8], _: Moment) -> Result<Translated, Refusal> {
        Ok(Translated {
            body: body.to_vec(),
            output_bytes: body.len() as u64,
            ..Translated::default()
        })
    }

    fn beginning(&self) -> ChatStream {
        message_stream(ResponseContext::default())
    }
}

/// A configuration without endpoints.
pub(super) fn plan() -> Plan {
    let inputs = ConfigInputs {
        env: &Env::of([]),
        cwd: std::path::Path::new("."),
        types: &[],
        admits: &|_, _| true,
    };
    let text = "[discovery.static]\nendpoints = []\n";
    plan_from_str(text, FileFormat::Toml, None, &inputs)
        .plan
        .unwrap()
}

fn conversation(translator: Same) -> Conversation {
    Conversation::new(Box::new(translator))
}

/// Two endpoints that speak the dialect, one with a limitation, and one that does not.
fn endpoints() -> [Endpoint; 4] {
    [
        endpoint(0, "a", "lm-studio"),
        endpoint(1, "b", "lmdeploy"),
        endpoint(2, "c", "vllm"),
        endpoint(3, "d", "openai-compatible"),
    ]
}

fn chosen(
    translator: Same,
    body: &str,
    endpoints: &[Endpoint],
) -> (Conversation, Result<(), String>) {
    let mut conversation = conversation(translator);
    conversation
        .read(body.as_bytes(), &mut String::new())
        .unwrap();
    let chosen = conversation.choose(&Choosing {
        endpoints,
        candidates: &EndpointSet::first(endpoints.len()),
        plan: &plan(),
        now_ms: 5,
        unix_ms: 5,
        responses: &Arc::new(ResponseStore::new(StoreBounds::default())),
        owner: &Owner::default,
        is_keyed: false,
    });
    (
        conversation,
        chosen.map_err(|error| error.message.into_owned()),
    )
}

fn native(conversation: &Conversation) -> Vec<usize> {
    conversation.split.native.iter().collect()
}

#[test]
fn who_is_native() {
    let all = endpoints();
    let of = |limitation| Same {
        limitation,
        ..Same::default()
    };
    assert_eq!(native(&chosen(of(""), "", &all).0), [0, 2, 3]);
    assert_eq!(native(&chosen(of("no_state"), "", &all).0), [0, 3]);
    // It has turned out not to be.
    all[3].live.refuse(DialectName::OpenAiResponses, 6);
    all[0].live.refuse(DialectName::AnthropicMessages, 6);
    assert_eq!(native(&chosen(of(""), "", &all).0), [0, 2]);
    // The configuration says so.
    let mut told = endpoints();
    for (at, dialects) in [
        (0, vec![DialectName::OpenAiChat]),
        (
            1,
            vec![DialectName::OpenAiChat, DialectName::OpenAiResponses],
        ),
    ] {
        let mut plan = crate::config::EndpointPlan::clone(&told[at].plan);
        plan.dialects = dialects;
        told[at].plan = Arc::new(plan);
    }
    assert_eq!(native(&chosen(of(""), "", &told).0), [1, 2, 3]);
    let refused = Same {
        demand: Demand::Endpoint(1, Box::new(Refusal::invalid("elsewhere"))),
        ..Same::default()
    };
    assert_eq!(chosen(refused, "", &all).1, Err("elsewhere".to_owned()));
    let (invalid, error) = chosen(of(""), "invalid", &all);
    assert_eq!(error, Err("no".to_owned()));
    assert_eq!(invalid.mode_shown(), Some("passthrough"));
}

#[test]
fn the_mode_follows_the_endpoint() {
    let all = endpoints();
    let (mut conversation, _) = chosen(Same::default(), "", &all);
    // Responses prefer no endpoint.
    let (set, _) = conversation.next(&EndpointSet::EMPTY, &EndpointSet::EMPTY);
    assert_eq!(set.len(), 4);
    let sending = |name| Sending {
        body: b"",
        model: "m",
        name,
        kind: "vllm",
        served_context: &|| None,
        seed: &|| [0; 16],
        at: Moment::default(),
    };
    conversation.picked(0);
    assert_eq!(conversation.request(&sending("n")).unwrap(), Sent::Client);
    assert_eq!(conversation.target(&all[0]).unwrap().path, "/v1/responses");
    assert!(conversation.payload().is_none() && conversation.dropped().is_none());
    conversation.picked(1);
    assert_eq!(conversation.request(&sending("n")).unwrap(), Sent::Own);
    let target = conversation.target(&all[1]).unwrap();
    assert_eq!(
        (target.path, target.translated),
        ("/v1/chat/completions", true)
    );
    assert_eq!(conversation.payload(), Some(&b"n"[..]));
    let mut stream = Box::new(message_stream(ResponseContext::default()));
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"twelve bytes\"}}]}\n\n";
    let estimated = |prompt, completion| Some(EstimatedUsage { prompt, completion });
    assert_eq!(conversation.estimated_usage(), estimated(7, 0));
    let _ = stream.push(event, Moment::default(), &mut Vec::new());
    conversation.replying = Replying::Events(stream);
    assert_eq!(conversation.estimated_usage(), estimated(7, 3));
    assert_eq!(conversation.dropped().unwrap().names().count(), 1);
    assert_eq!(conversation.fallback(), Some(Fallback::CannotPassthrough));
    // A native endpoint that turns out not to know the route gets the request translated.
    conversation.picked(2);
    conversation.request(&sending("n")).unwrap();
    assert_eq!(conversation.estimated_usage(), None);
    conversation.replying = Replying::Doubtful(404);
    let whole = conversation.whole(b"{\"error\":\"n is unknown\"}", 2, Moment::default());
    assert!(matches!(whole, Whole::Held));
    conversation.replying = Replying::Doubtful(404);
    let whole = conversation.whole(b"{}", 2, Moment::default());
    assert!(matches!(
        whole,
        Whole::NotSpoken(DialectName::OpenAiResponses, _)
    ));
    let tried = [2].into_iter().collect();
    let (set, tried) = conversation.next(&EndpointSet::EMPTY, &tried);
    assert_eq!((set.iter().collect::<Vec<_>>(), tried.len()), (vec![2], 0));
    conversation.picked(2);
    assert_eq!(conversation.request(&sending("n")).unwrap(), Sent::Own);
    // A dropped field is noted once, at the end.
    assert!(conversation.notes().is_empty());
    let summary = conversation.end(200, true);
    assert_eq!((summary.translator, summary.passthrough), ("test", false));
    let notes = conversation.notes();
    assert!(matches!(&notes[..], [Note::Dropped("test", name)] if name == "template"));
}

#[test]
fn events_in_place_of_a_document_are_put_together() {
    let mut conversation = conversation(Same::default());
    conversation.replying = Replying::Document;
    let events = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let Whole::Json(document) = conversation.whole(events, 0, Moment::default()) else {
        panic!("no document");
    };
    assert!(document.starts_with(b"{\"object\":\"chat.completion\""));
    assert_eq!(conversation.output_bytes, document.len() as u64);
}

/// What a piece of a stream has to do with after `before`.
fn load_after(before: &str, encoding: Option<&str>, piece: &str, ends: bool) -> usize {
    let mut stream = Box::new(message_stream(ResponseContext::default()));
    let _ = stream.push(before.as_bytes(), Moment::default(), &mut Vec::new());
    let mut conversation = conversation(Same::default());
    conversation.replying = Replying::Events(stream);
    conversation.inflater = encoding.and_then(Inflater::new).map(Box::new);
    conversation.piece_load(piece.as_bytes(), ends)
}

fn compressed() -> Conversation {
    let mut conversation = conversation(Same::default());
    conversation.inflater = Inflater::new("gzip").map(Box::new);
    conversation
}

#[test]
fn a_piece_is_as_long_as_what_it_completes() {
    for (before, encoding, piece, ends, load) in [
        ("", None, "data: {}\n\n", false, 10),
        ("data: {}\n\n", None, "data: {}\n\n", false, 10),
        ("data: {", None, "}\n", false, 9),
        // It completes nothing.
        ("data: {", None, "more", false, 0),
        ("data: {", None, "more", true, 11),
        // A whole response in place of a stream is read at its end.
        ("{\"choices\":", None, "[", true, 12),
        ("data: {", Some("gzip"), "ab", false, 7 + 2 * EXPANSION_MAX),
    ] {
        let found = load_after(before, encoding, piece, ends);
        assert_eq!(found, load, "{before:?} {piece:?} {ends}");
    }
    assert_eq!(compressed().load(3), 3 * EXPANSION_MAX);
    assert_eq!(conversation(Same::default()).load(3), 3);
    // A native stream passes as it is.
    assert_eq!(conversation(Same::default()).piece_load(b"\n", true), 0);
}

#[test]
fn no_more_is_decompressed_than_may_be_read() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![b' '; EVENT_BYTES_MAX + 1]).unwrap();
    let body = encoder.finish().unwrap();
    let refusal = compressed().plain(&body).unwrap_err();
    assert_eq!(refusal.message, "the endpoint's response is too long");
    let mut inflater = Inflater::new("gzip").unwrap();
    let mut pieces = 0;
    let pushed = inflater.push(&body, |_| {
        pieces += 1;
        ControlFlow::Break(())
    });
    assert_eq!((pushed, pieces), (Ok(()), 1));
}
