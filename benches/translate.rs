//! What translation costs: a request of the size that coding agents send (a 60 KB system prompt,
//! 20 tools, 40 messages), a whole answer, and the events of a stream.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use olla::translate::{
    AnswerContext, End, IdSeed, StreamTransformer, check, count_tokens, from_openai, to_openai,
};

/// Events of the measured stream.
const EVENTS: u64 = 1000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    request(&mut criterion);
    answer(&mut criterion);
    stream(&mut criterion);
    criterion.final_summary();
}

fn request(criterion: &mut Criterion) {
    let body = agent_request();
    let body = body.as_bytes();
    let mut group = criterion.benchmark_group("translate_request");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("check", |b| b.iter(|| check(black_box(body))));
    let checked = check(body).expect("a valid request");
    group.bench_function("to_openai", |b| {
        b.iter(|| to_openai(black_box(body), &checked, "qwen3"))
    });
    group.bench_function("context", |b| {
        b.iter(|| checked.context(black_box(body), IdSeed([1; 16])))
    });
    group.bench_function("count_tokens", |b| b.iter(|| count_tokens(black_box(body))));
    group.finish();
}

fn answer(criterion: &mut Criterion) {
    let text = r#"Line of an answer with \"quotes\" and words.\n"#.repeat(40);
    let body = format!(
        concat!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"qwen3","#,
            r#""choices":[{{"index":0,"message":{{"role":"assistant","content":"{0}","#,
            r#""tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"write","#,
            r#""arguments":"{{\"path\":\"/a/b\",\"text\":\"words\"}}"}}}}]}},"#,
            r#""finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":11,"completion_tokens":7}}}}"#
        ),
        text
    );
    let context = context();
    let mut group = criterion.benchmark_group("translate_answer");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("from_openai", |b| {
        b.iter(|| from_openai(black_box(body.as_bytes()), &context))
    });
    group.finish();
}

fn stream(criterion: &mut Criterion) {
    let chunk = |delta: &str| {
        format!(
            concat!(
                r#"data: {{"id":"chatcmpl-a1b2c3d4e5f6","object":"chat.completion.chunk","#,
                r#""created":1764000000,"model":"qwen3","choices":[{{"index":0,"delta":{},"#,
                r#""logprobs":null,"finish_reason":null,"token_ids":null}}]}}"#,
                "\n\n"
            ),
            delta
        )
    };
    let text = chunk(r#"{"content":" token\n"}"#);
    let start = chunk(
        r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":\""}}]}"#,
    );
    let piece = chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"some \\\" words"}}]}"#);
    let mut group = criterion.benchmark_group("translate_stream");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::Elements(EVENTS));
    for (name, first, event) in [("text", &text, &text), ("arguments", &start, &piece)] {
        group.bench_function(name, |b| {
            let mut out = Vec::new();
            b.iter(|| {
                let mut transformer = StreamTransformer::new(context());
                let _ = transformer.push(first.as_bytes(), &mut out);
                for _ in 1..EVENTS {
                    out.clear();
                    let _ = transformer.push(black_box(event.as_bytes()), &mut out);
                }
                transformer.end(End::Clean, &mut out)
            });
        });
    }
    group.finish();
}

fn context() -> AnswerContext {
    AnswerContext {
        model: "m".to_owned(),
        stop_sequences: Vec::new(),
        input_tokens: 1,
        seed: IdSeed([1; 16]),
    }
}

/// About 120 KB, the way Claude Code sends it.
fn agent_request() -> String {
    let line = r#"- IMPORTANT: use \"Read\" before \"Edit\".\n"#;
    let system = line.repeat((60 << 10) / line.len());
    let mut body = format!(
        r#"{{"model":"qwen3","max_tokens":32000,"stream":true,"temperature":1,"system":[{{"type":"text","text":"{system}","cache_control":{{"type":"ephemeral"}}}}],"tools":["#
    );
    for n in 0..20 {
        let comma = if n == 0 { "" } else { "," };
        let description = "What the tool does and when it is of use.\\n".repeat(10);
        write!(
            body,
            concat!(
                r#"{}{{"name":"tool_{}","description":"{}","input_schema":{{"type":"object","#,
                r#""properties":{{"path":{{"type":"string","description":"The path"}},"#,
                r#""limit":{{"type":"number","minimum":0}}}},"required":["path"],"#,
                r#""additionalProperties":false}}}}"#
            ),
            comma, n, description
        )
        .expect("a String takes everything");
    }
    body += r#"],"messages":["#;
    let file = r#"    12\tlet x = format!(\"{a}\");\n"#.repeat(50);
    for n in 0..20 {
        let comma = if n == 0 { "" } else { "," };
        write!(
            body,
            concat!(
                r#"{}{{"role":"assistant","content":[{{"type":"text","text":"I look at it."}},"#,
                r#"{{"type":"tool_use","id":"toolu_{}","name":"tool_1","input":{{"path":"/a/b.rs"}}}}]}},"#,
                r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"toolu_{}","#,
                r#""content":[{{"type":"text","text":"{}"}}]}}]}}"#
            ),
            comma, n, n, file
        )
        .expect("a String takes everything");
    }
    body + "]}"
}
