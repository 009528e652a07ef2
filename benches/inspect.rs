//! What it costs to inspect a request body: a usual chat, and a megabyte of each kind of prompt.
//!
//! `whole` is one call, `pieces` the same body arriving 16 KiB at a time.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use olla::bench::inspect::{Findings, Inspector, Wanted};

const MEGABYTE: usize = 1 << 20;
const PIECE: usize = 16 << 10;
const WANTED: Wanted = Wanted {
    name_key: false,
    vision: true,
    tally: true,
    prompt: false,
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    inspect(&mut criterion);
    criterion.final_summary();
}

fn inspect(criterion: &mut Criterion) {
    let bodies = [
        ("chat_1k", chat()),
        (
            "plain_1m",
            one_message("The quick brown fox jumps over the lazy dog, twice. "),
        ),
        (
            "escapes_1m",
            one_message(r#"He said: \"once more\".\nThen sixty bytes of plain text follow. "#),
        ),
        (
            "source_code_1m",
            one_message(r#"    println!(\"{}: {}\", key, \"\\n\");\n    let x = \"\";\n"#),
        ),
        (
            "unicode_escapes_1m",
            one_message(r"\u4f60\u597d\uff0c\u4e16\u754c\u3002 \ud83d\ude00 "),
        ),
        ("messages_1m", messages()),
        ("tokens_1m", tokens()),
        ("indented_1m", indented()),
        (
            "no_model_1m",
            messages().replacen(r#""model""#, r#""mode""#, 1),
        ),
    ];
    let mut group = criterion.benchmark_group("inspect");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, body) in &bodies {
        let body = body.as_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}/whole"), |b| {
            b.iter(|| whole(black_box(body)))
        });
        if body.len() > PIECE {
            group.bench_function(format!("{name}/pieces"), |b| {
                b.iter(|| pieces(black_box(body)))
            });
        }
    }
    group.finish();
}

fn whole(body: &[u8]) -> Findings {
    Inspector::new(WANTED).finish(body)
}

fn pieces(body: &[u8]) -> Findings {
    let mut inspector = Inspector::new(WANTED);
    for end in (PIECE..body.len()).step_by(PIECE) {
        inspector.advance(&body[..end]);
    }
    inspector.finish(body)
}

/// One kilobyte, the way OpenAI's Python client sends it.
fn chat() -> String {
    let text =
        r#"Summarise this for a colleague:\n\n"The gateway finds out which models live where."\n"#
            .replace(r#"""#, r#"\""#)
            .repeat(4);
    format!(
        concat!(
            r#"{{"messages":[{{"role":"system","content":"You are a helpful assistant."}},"#,
            r#"{{"role":"user","content":"{0}"}},{{"role":"assistant","content":"{0}"}},"#,
            r#"{{"role":"user","content":"Shorter, please."}}],"model":"qwen2.5-coder:7b","#,
            r#""max_tokens":512,"stream":true,"stream_options":{{"include_usage":true}},"#,
            r#""temperature":0.7,"top_p":0.95}}"#
        ),
        text
    )
}

fn one_message(text: &str) -> String {
    let text = text.repeat(MEGABYTE / text.len());
    format!(
        r#"{{"model":"llama3.2","messages":[{{"role":"user","content":"{text}"}}],"stream":true}}"#
    )
}

/// A long conversation, about 200 bytes a message.
fn messages() -> String {
    let mut body = String::from(r#"{"model": "llama3.2", "messages": ["#);
    while body.len() < MEGABYTE {
        body += r#"{"role": "user", "content": "And what does that mean for the second step?"}, "#;
        body +=
            r#"{"role": "assistant", "content": "It \"follows\" from the first:\nnothing that "#;
        body +=
            r#"was said there depends on the order, so it can be done in any order at all."}, "#;
    }
    body += r#"{"role": "user", "content": "Thanks."}], "stream": true}"#;
    body
}

/// A prompt of token numbers.
fn tokens() -> String {
    let mut body = String::from(r#"{"model":"llama3.2","prompt":["#);
    for n in 0..MEGABYTE / 6 {
        write!(body, "{},", 10_000 + n % 90_000).expect("a String takes everything");
    }
    body += "1]}";
    body
}

/// A tool schema, indented: mostly blanks, brackets and short strings.
fn indented() -> String {
    let mut body = String::from("{\n  \"model\": \"llama3.2\",\n  \"tools\": [\n");
    while body.len() < MEGABYTE {
        body += "    {\n      \"type\": \"function\",\n      \"function\": {\n        \"name\": \"f\",\n";
        body += "        \"parameters\": {\n          \"type\": \"object\",\n          \"properties\": ";
        body += "{\n            \"path\": {\n              \"type\": \"string\"\n            }\n";
        body += "          }\n        }\n      }\n    },\n";
    }
    body += "    {}\n  ]\n}";
    body
}
