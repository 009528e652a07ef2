//! What translation costs: a request of the size that coding agents send (a 60 KB system prompt,
//! 20 tools, 40 messages with tool calls and their results, three pictures), a whole answer, and
//! the events of a stream.

use std::hint::black_box;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, Throughput};
use olla::bench::translate::{
    End, IdSeed, Moment, NativeTail, ResponseContext, check, count_tokens, from_openai,
    message_stream, to_openai,
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
    // All that one request costs; the parts of it follow.
    group.bench_function("whole", |b| {
        b.iter(|| {
            let checked = check(black_box(body)).expect("a valid request");
            let context = checked.context(body, IdSeed([1; 16]));
            (context, to_openai(body, &checked, "qwen3", None))
        });
    });
    group.bench_function("check", |b| b.iter(|| check(black_box(body))));
    let checked = check(body).expect("a valid request");
    group.bench_function("to_openai", |b| {
        b.iter(|| to_openai(black_box(body), &checked, "qwen3", None))
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
                let mut transformer = message_stream(context());
                let _ = transformer.push(first.as_bytes(), Moment::default(), &mut out);
                for _ in 1..EVENTS {
                    out.clear();
                    let _ =
                        transformer.push(black_box(event.as_bytes()), Moment::default(), &mut out);
                }
                transformer.end(End::Clean, Moment::default(), &mut out)
            });
        });
    }
    // What the same costs when the stream passes as it is.
    let native = concat!(
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,",
        "\"delta\":{\"type\":\"text_delta\",\"text\":\" token\\n\"}}\n\n"
    );
    group.bench_function("passed", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            let mut tail = NativeTail::default();
            for _ in 0..EVENTS {
                out.clear();
                tail.push(black_box(native.as_bytes()));
                out.extend_from_slice(native.as_bytes());
            }
            tail.is_complete()
        });
    });
    group.finish();
}

fn context() -> ResponseContext {
    ResponseContext {
        model: "m".to_owned(),
        stop_sequences: Vec::new(),
        input_tokens: 1,
        served_context: None,
        seed: IdSeed([1; 16]),
    }
}

/// About 520 KB, the way Claude Code sends it: one picture is the user's own, one the result of a
/// tool, one is named by its address.
fn agent_request() -> String {
    let line = r#"- IMPORTANT: use \"Read\" before \"Edit\".\n"#;
    let system = line.repeat((60 << 10) / line.len());
    let mut body = format!(
        r#"{{"model":"qwen3","max_tokens":32000,"stream":true,"temperature":1,"system":[{{"type":"text","text":"{system}","cache_control":{{"type":"ephemeral"}}}}],"tools":["#
    );
    let tools: Vec<String> = (0..20).map(tool).collect();
    body += &tools.join(",");
    body += r#"],"messages":["#;
    let file = text(&r#"    12\tlet x = format!(\"{a}\");\n"#.repeat(50));
    let by_address =
        r#"{"type":"image","source":{"type":"url","url":"https://pictures.test/plan.png"}}"#;
    let turns: Vec<String> = (0..20)
        .map(|n| match n {
            7 => turn(n, &png(100 << 10), ""),
            12 => turn(
                n,
                &file,
                &format!(",{},{}", text("Like this."), png(200 << 10)),
            ),
            19 => turn(n, &file, &format!(",{},{by_address}", text("And this."))),
            _ => turn(n, &file, ""),
        })
        .collect();
    body + &turns.join(",") + "]}"
}

fn tool(n: usize) -> String {
    let description = "What the tool does and when it is of use.\\n".repeat(10);
    format!(
        concat!(
            r#"{{"name":"tool_{}","description":"{}","input_schema":{{"type":"object","#,
            r#""properties":{{"path":{{"type":"string","description":"The path"}},"#,
            r#""limit":{{"type":"number","minimum":0}}}},"required":["path"],"#,
            r#""additionalProperties":false}}}}"#
        ),
        n, description
    )
}

/// Two messages: a call of a tool, and its result with what else the user sends.
fn turn(n: usize, result: &str, more: &str) -> String {
    format!(
        concat!(
            r#"{{"role":"assistant","content":[{{"type":"text","text":"I look at it."}},"#,
            r#"{{"type":"tool_use","id":"toolu_{0}","name":"tool_1","input":{{"path":"/a/b.rs"}}}}]}},"#,
            r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"toolu_{0}","#,
            r#""content":[{1}]}}{2}]}}"#
        ),
        n, result, more
    )
}

fn text(written: &str) -> String {
    format!(r#"{{"type":"text","text":"{written}"}}"#)
}

/// A picture of so many bytes: what is compressed looks like noise.
fn png(bytes: usize) -> String {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let data = STANDARD.encode(noise.take(bytes).collect::<Vec<u8>>());
    format!(
        r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}"#
    )
}
