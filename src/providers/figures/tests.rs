//! The rows of the table of docs/contract/operations.md#6, each streamed, whole and cut.

use super::*;
use crate::providers::Profiles;

fn extraction(paths: &[(&str, &str)], calculations: &[(&str, &str)]) -> MetricsExtraction {
    let owned = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    };
    MetricsExtraction {
        paths: owned(paths),
        calculations: owned(calculations),
    }
}

fn compiled(paths: &[(&str, &str)], calculations: &[(&str, &str)]) -> Extractor {
    let (extractor, lost) = Extractor::compile("test", &extraction(paths, calculations));
    assert_eq!(lost, []);
    extractor
}

const OPENAI: [(&str, &str); 5] = [
    ("model", "$.model"),
    ("finish_reason", "$.choices[0].finish_reason"),
    ("input_tokens", "$.usage.prompt_tokens"),
    ("output_tokens", "$.usage.completion_tokens"),
    ("total_tokens", "$.usage.total_tokens"),
];

fn with_openai(more: &[(&str, &str)], calculations: &[(&str, &str)]) -> Extractor {
    compiled(&[&OPENAI[..], more].concat(), calculations)
}

fn ollama() -> Extractor {
    compiled(
        &[
            ("model", "model"),
            ("is_complete", "done"),
            ("finish_reason", "finish_reason"),
            ("finish_reason", "done_reason"),
            ("input_tokens", "prompt_eval_count"),
            ("output_tokens", "eval_count"),
            ("eval_ns", "eval_duration"),
        ],
        &[
            ("total_ms", "total_duration / 1000000"),
            ("model_load_ms", "load_duration / 1000000"),
            ("prompt_ms", "prompt_eval_duration / 1000000"),
            ("ttft_ms", "prompt_ms"),
            ("generation_ms", "eval_ns / 1000000"),
        ],
    )
}

/// The figures of an answer that arrives in pieces of so many bytes.
fn read(extractor: &Extractor, kind: AnswerKind, answer: &str, piece: usize) -> String {
    let mut tail = Tail::default();
    tail.begin(kind);
    for piece in answer.as_bytes().chunks(piece) {
        tail.push(piece);
    }
    match extractor.read(&mut tail) {
        None => "nothing".to_owned(),
        Some(f) => format!(
            "{}+{}={} total {} load {} prompt {} first {} generation {} speed {} {} {} {}",
            f.prompt_tokens,
            f.completion_tokens,
            f.total_tokens,
            f.total_ms,
            f.load_ms,
            f.prompt_ms,
            f.first_token_ms,
            f.generation_ms,
            f.tokens_per_second,
            f.model.as_deref().unwrap_or("-"),
            f.finish_reason.as_deref().unwrap_or("-"),
            if f.complete { "complete" } else { "open" },
        ),
    }
}

/// An OpenAI answer with more members, whole and as a stream.
fn openai_answers(more: &str) -> (String, String) {
    let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":20,"total_tokens":27}"#;
    let whole = format!(
        r#"{{"id":"c","model":"m","choices":[{{"index":0,"message":{{"content":"say \"usage\":{{}}"}},"finish_reason":"stop"}}],{usage}{more}}}"#
    );
    let delta = r#"data: {"model":"m","choices":[{"delta":{"content":"hi"},"finish_reason":null}],"usage":null}"#;
    let stream = format!(
        "{delta}\n\n{delta}\r\n\r\ndata: {{\"model\":\"m\",\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data:{{\"model\":\"m\",\"choices\":[],{usage}{more}}}\n\ndata: [DONE]\n\n"
    );
    (whole, stream)
}

/// Name, extraction, members of the answer, expected times.
type Row = (&'static str, Extractor, &'static str, &'static str);

fn rows_of_plain_paths() -> Vec<Row> {
    let timings = [
        ("prompt_processing_ms", "timings.prompt_ms"),
        ("generation_ms", "timings.predicted_ms"),
        ("total_ms", "timings.total_ms"),
        ("per_second", "timings.predicted_per_second"),
        ("predicted_n", "timings.predicted_n"),
    ];
    let llamacpp_speed = "per_second > 0 ? per_second : (generation_ms > 0 ? predicted_n * 1000.0 / generation_ms : 0)";
    vec![
        (
            "openai",
            with_openai(
                &[
                    ("ttft_ms", "metrics.time_to_first_token"),
                    ("total_ms", "metrics.total_time"),
                ],
                &[("generation_ms", "total_ms")],
            ),
            r#","metrics":{"time_to_first_token":30,"total_time":400}"#,
            "total 400 load 0 prompt 0 first 30 generation 400 speed 50",
        ),
        (
            "vllm",
            with_openai(
                &[
                    ("ttft_ms", "metrics.time_to_first_token_ms"),
                    ("generation_ms", "metrics.generation_time_ms"),
                ],
                &[],
            ),
            r#","metrics":{"time_to_first_token_ms":30.4,"generation_time_ms":250}"#,
            "total 0 load 0 prompt 0 first 30 generation 250 speed 80",
        ),
        (
            "llamacpp",
            with_openai(
                &timings,
                &[
                    ("ttft_ms", "prompt_processing_ms"),
                    ("tokens_per_second", llamacpp_speed),
                ],
            ),
            r#","timings":{"prompt_ms":12,"predicted_ms":100,"predicted_n":21,"total_ms":112}"#,
            "total 112 load 0 prompt 0 first 12 generation 100 speed 210",
        ),
        (
            "llamacpp with its own speed",
            with_openai(
                &timings,
                &[
                    ("ttft_ms", "prompt_processing_ms"),
                    ("tokens_per_second", llamacpp_speed),
                ],
            ),
            r#","timings":{"prompt_ms":12,"predicted_ms":100,"predicted_per_second":199.5}"#,
            "total 0 load 0 prompt 0 first 12 generation 100 speed 199.5",
        ),
    ]
}

fn rows_of_formulas() -> Vec<Row> {
    vec![
        (
            "lm-studio",
            with_openai(
                &[
                    ("first_s", "stats.time_to_first_token"),
                    ("generation_s", "stats.generation_time"),
                    ("tokens_per_second", "stats.tokens_per_second"),
                    ("timing_prompt", "timings.prompt_ms"),
                    ("timing_predicted", "timings.predicted_ms"),
                ],
                &[
                    ("ttft_ms", "first_s > 0 ? first_s * 1000 : timing_prompt"),
                    (
                        "generation_ms",
                        "generation_s > 0 ? generation_s * 1000 : timing_predicted",
                    ),
                    ("total_ms", "ttft_ms + generation_ms"),
                ],
            ),
            r#","stats":{"time_to_first_token":0.1,"generation_time":0.5,"tokens_per_second":41.5}"#,
            "total 600 load 0 prompt 0 first 100 generation 500 speed 41.5",
        ),
        (
            "a path before a formula, and paths in formulas",
            with_openai(
                &[("tokens_per_second", "timings.predicted_per_second")],
                &[
                    (
                        "tokens_per_second",
                        "timings.predicted_n * 1000 / timings.predicted_ms",
                    ),
                    ("generation_ms", "timings.predicted_ms"),
                ],
            ),
            r#","timings":{"predicted_n":21,"predicted_ms":100,"predicted_per_second":199.5}"#,
            "total 0 load 0 prompt 0 first 0 generation 100 speed 199.5",
        ),
        (
            "litellm",
            with_openai(&[], &[]),
            "",
            "total 0 load 0 prompt 0 first 0 generation 0 speed 0",
        ),
        (
            "no profile paths at all",
            compiled(&[], &[]),
            "",
            "total 0 load 0 prompt 0 first 0 generation 0 speed 0",
        ),
    ]
}

#[test]
fn every_row_of_the_table_whole_and_streamed() {
    let rows = rows_of_plain_paths().into_iter().chain(rows_of_formulas());
    for (name, extractor, more, times) in rows {
        let expected = format!("7+20=27 {times} m stop complete");
        let (whole, stream) = openai_answers(more);
        for piece in [1, 7, 100, 1 << 20] {
            for (kind, answer) in [
                (AnswerKind::Json, &whole),
                (AnswerKind::Unknown, &whole),
                (AnswerKind::Events, &stream),
                (AnswerKind::Unknown, &stream),
            ] {
                let read = read(&extractor, kind, answer, piece);
                assert_eq!(read, expected, "{name} {kind:?} in pieces of {piece}");
            }
        }
    }
}

/// Profile, members of an OpenAI answer, expected times.
const BUILT_IN: [(&str, &str, &str); 14] = [
    (
        "openai-compatible",
        r#","metrics":{"time_to_first_token":30,"total_time":400}"#,
        "total 400 load 0 prompt 0 first 30 generation 400 speed 50",
    ),
    (
        "vllm",
        r#","metrics":{"time_to_first_token_ms":30,"generation_time_ms":250}"#,
        "total 0 load 0 prompt 0 first 30 generation 250 speed 80",
    ),
    (
        "vllm-mlx",
        r#","metrics":{"time_to_first_token_ms":30,"generation_time_ms":250}"#,
        "total 0 load 0 prompt 0 first 30 generation 250 speed 80",
    ),
    (
        "sglang",
        r#","metrics":{"time_to_first_token_ms":30,"generation_time_ms":250}"#,
        "total 0 load 0 prompt 0 first 30 generation 250 speed 80",
    ),
    (
        "llamacpp",
        r#","timings":{"prompt_ms":12,"predicted_ms":100,"predicted_n":21,"total_ms":112}"#,
        "total 112 load 0 prompt 12 first 12 generation 100 speed 210",
    ),
    (
        "llamacpp",
        r#","timings":{"prompt_ms":12,"predicted_ms":100,"predicted_n":21,"predicted_per_second":9.5}"#,
        "total 0 load 0 prompt 12 first 12 generation 100 speed 9.5",
    ),
    (
        "lm-studio",
        r#","stats":{"time_to_first_token":0.1,"generation_time":0.5,"tokens_per_second":41.5}"#,
        "total 600 load 0 prompt 0 first 100 generation 500 speed 41.5",
    ),
    (
        "lm-studio",
        r#","timings":{"prompt_ms":12,"predicted_ms":100,"predicted_per_second":9.5}"#,
        "total 112 load 0 prompt 12 first 12 generation 100 speed 9.5",
    ),
    ("lemonade", "", NO_TIMES),
    ("litellm", "", NO_TIMES),
    ("lmdeploy", "", NO_TIMES),
    ("omlx", "", NO_TIMES),
    ("docker-model-runner", "", NO_TIMES),
    ("ollama", "", NO_TIMES),
];

const NO_TIMES: &str = "total 0 load 0 prompt 0 first 0 generation 0 speed 0";

/// The last line of an Ollama answer.
const OLLAMA: &str = r#"{"model":"llama3:8b","created_at":"x","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":5000000000,"load_duration":1000000000,"prompt_eval_count":26,"prompt_eval_duration":130000000,"eval_count":100,"eval_duration":2000000000}"#;

#[test]
fn the_built_in_profiles_read_their_servers() {
    let profiles = Profiles::builtin();
    for profile in profiles.all() {
        let (_, lost) = Extractor::compile(&profile.name, &profile.metrics);
        assert_eq!(lost, []);
    }
    let extractor = |name: &str| {
        let profile = profiles.get(name).unwrap();
        Extractor::compile(name, &profile.metrics).0
    };
    for (name, more, times) in BUILT_IN {
        let expected = format!("7+20=27 {times} m stop complete");
        let (whole, stream) = openai_answers(more);
        for (kind, answer) in [(AnswerKind::Json, &whole), (AnswerKind::Events, &stream)] {
            let read = read(&extractor(name), kind, answer, 100);
            assert_eq!(read, expected, "{name} {kind:?}");
        }
    }
    assert_eq!(
        read(&extractor("ollama"), AnswerKind::Lines, OLLAMA, 100),
        "26+100=126 total 5000 load 1000 prompt 130 first 130 generation 2000 speed 50 llama3:8b stop complete"
    );
}

#[test]
fn ollama_whole_streamed_and_on_its_openai_paths() {
    let last = OLLAMA;
    let piece = r#"{"model":"llama3:8b","message":{"content":"hi"},"done":false}"#;
    let stream = format!("{piece}\n{piece}\n{last}\n");
    let expected = "26+100=126 total 5000 load 1000 prompt 130 first 130 generation 2000 speed 50 llama3:8b stop complete";
    for (kind, answer) in [
        (AnswerKind::Json, last),
        (AnswerKind::Lines, last),
        (AnswerKind::Lines, stream.as_str()),
        (AnswerKind::Json, stream.as_str()),
        (AnswerKind::Unknown, stream.as_str()),
    ] {
        for size in [1, 50, 1 << 20] {
            assert_eq!(read(&ollama(), kind, answer, size), expected, "{kind:?}");
        }
    }
    let (whole, sse) = openai_answers("");
    let expected = "7+20=27 total 0 load 0 prompt 0 first 0 generation 0 speed 0 m stop complete";
    assert_eq!(read(&ollama(), AnswerKind::Json, &whole, 9), expected);
    assert_eq!(read(&ollama(), AnswerKind::Events, &sse, 9), expected);
}

#[test]
fn anthropic_and_responses_answers_of_any_server() {
    let extractor = with_openai(&[], &[]);
    let whole = r#"{"id":"msg","type":"message","model":"claude","content":[],"stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":6}}"#;
    let expected =
        "5+6=11 total 0 load 0 prompt 0 first 0 generation 0 speed 0 claude end_turn complete";
    assert_eq!(read(&extractor, AnswerKind::Json, whole, 5), expected);
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude\",\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"abc\"}}\n\n";
    let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":6}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for repeat in [1, 10_000] {
        let stream = format!("{start}{}{end}", delta.repeat(repeat));
        let read = read(&extractor, AnswerKind::Events, &stream, 100);
        assert_eq!(read, expected, "{repeat} pieces of text");
    }
    let completed = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2,\"total_tokens\":3}}}\n\n";
    assert_eq!(
        read(&extractor, AnswerKind::Events, completed, 100),
        "1+2=3 total 0 load 0 prompt 0 first 0 generation 0 speed 0 gpt - open"
    );
}

#[test]
fn answers_larger_than_what_is_kept() {
    let extractor = with_openai(&[], &[]);
    let filler = "x".repeat(100_000);
    let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":20}"#;
    let none = "total 0 load 0 prompt 0 first 0 generation 0 speed 0";
    // The beginning, with the model, is gone; what follows the text is found.
    let whole = format!(
        r#"{{"model":"m","choices":[{{"message":{{"content":"{filler}"}},"finish_reason":"length"}}],{usage}}}"#
    );
    let expected = format!("7+20=27 {none} - length complete");
    for piece in [1448, 65_536, 1 << 20] {
        assert_eq!(read(&extractor, AnswerKind::Json, &whole, piece), expected);
    }
    // One event that is too large.
    let event = format!("data: {}\n\ndata: [DONE]\n\n", whole);
    assert_eq!(read(&extractor, AnswerKind::Events, &event, 1448), expected);
    // Many events.
    let delta = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
    let stream = format!(
        "{}data: {{\"model\":\"m\",\"choices\":[{{\"finish_reason\":\"stop\"}}],{usage}}}\n\ndata: [DONE]\n\n",
        delta.repeat(3000)
    );
    let expected = format!("7+20=27 {none} m stop complete");
    for piece in [60, 1448, 1 << 20] {
        assert_eq!(
            read(&extractor, AnswerKind::Events, &stream, piece),
            expected
        );
    }
    // A long context in Ollama's last line, in small pieces.
    let context = "12345,".repeat(10_000);
    let lines = format!(
        "{{\"model\":\"m\",\"response\":\"a\",\"done\":false}}\n{{\"model\":\"m\",\"done\":true,\"context\":[{context}1],\"prompt_eval_count\":3,\"eval_count\":4}}\n"
    );
    assert_eq!(
        read(&ollama(), AnswerKind::Lines, &lines, 1448),
        format!("3+4=7 {none} - - open")
    );
    assert_eq!(
        read(&ollama(), AnswerKind::Lines, &lines, 65_536),
        format!("3+4=7 {none} m - complete")
    );
}

#[test]
fn a_usage_is_what_a_request_is_charged_by() {
    let extractor = with_openai(&[], &[]);
    let table = [
        // usage; prompt, cached, completion; whether it cannot be one
        (
            r#"{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}"#,
            (Some(9), 4, Some(7), false),
        ),
        (
            r#"{"input_tokens":3,"cache_read_input_tokens":20,"cache_creation_input_tokens":5,"output_tokens":7}"#,
            (Some(28), 20, Some(7), false),
        ),
        (
            r#"{"input_tokens":3,"input_tokens_details":{"cached_tokens":2},"output_tokens":0}"#,
            (Some(3), 2, Some(0), false),
        ),
        (r#"{"prompt_tokens":9}"#, (Some(9), 0, None, false)),
        (
            r#"{"prompt_tokens":-4,"completion_tokens":"many"}"#,
            (None, 0, None, true),
        ),
        (
            r#"{"prompt_tokens":1.5,"completion_tokens":7}"#,
            (None, 0, Some(7), true),
        ),
        (
            r#"{"prompt_tokens":1000000000,"completion_tokens":1000000001}"#,
            (Some(1_000_000_000), 0, None, true),
        ),
    ];
    for (usage, expected) in table {
        let mut tail = Tail::default();
        tail.begin(AnswerKind::Json);
        tail.push(format!("{{\"usage\":{usage}}}").as_bytes());
        let figures = extractor.read(&mut tail).expect("metrics");
        let usage = figures.usage;
        let got = (
            usage.prompt,
            usage.cached,
            usage.completion,
            usage.is_rejected,
        );
        assert_eq!(got, expected);
    }
}

#[test]
fn llama_cpp_tells_cached_tokens_in_its_timings() {
    let profiles = Profiles::builtin();
    let metrics = &profiles.get("llamacpp").unwrap().metrics;
    let (extractor, lost) = Extractor::compile("llamacpp", metrics);
    assert_eq!(lost, []);
    let table = [
        (
            r#"{"usage":{"prompt_tokens":100,"completion_tokens":5},"timings":{"cache_n":60,"prompt_n":40,"predicted_n":5}}"#,
            (Some(100), 60, Some(5)),
        ),
        (
            r#"{"content":"x","timings":{"cache_n":60,"prompt_n":40,"predicted_n":5}}"#,
            (Some(100), 60, Some(5)),
        ),
        // An older one tells only what it has computed.
        (
            r#"{"content":"x","timings":{"prompt_n":40,"predicted_n":5}}"#,
            (None, 0, Some(5)),
        ),
        (
            r#"{"usage":{"input_tokens":40,"cache_read_input_tokens":60,"output_tokens":5},"timings":{"cache_n":60,"prompt_n":40,"predicted_n":5}}"#,
            (Some(100), 60, Some(5)),
        ),
        (
            r#"{"usage":{"prompt_tokens":9},"timings":{"cache_n":-1}}"#,
            (Some(9), 0, None),
        ),
    ];
    for (body, expected) in table {
        let mut tail = Tail::default();
        tail.begin(AnswerKind::Json);
        tail.push(body.as_bytes());
        let usage = extractor.read(&mut tail).expect("metrics").usage;
        let got = (usage.prompt, usage.cached, usage.completion);
        assert_eq!(got, expected, "{body}");
    }
}

#[test]
fn what_says_nothing_gives_nothing() {
    let extractor = with_openai(&[], &[]);
    for answer in [
        "",
        "{}",
        "[]",
        "not found",
        "{\"usage\":null,\"choices\":[]}",
        "data: [DONE]\n\n",
        "data:",
        "\n\n\n",
        "{\"model\":\"\"}",
        "\u{feff}{",
    ] {
        for kind in [
            AnswerKind::Json,
            AnswerKind::Lines,
            AnswerKind::Events,
            AnswerKind::Unknown,
            AnswerKind::Opaque,
        ] {
            assert_eq!(
                read(&extractor, kind, answer, 3),
                "nothing",
                "{kind:?} {answer}"
            );
        }
    }
    // A model alone is something, a very long one is not.
    assert!(read(&extractor, AnswerKind::Json, r#"{"model":"a\"b"}"#, 3).contains(" a\"b "));
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(TEXT_BYTES_MAX + 1));
    assert_eq!(read(&extractor, AnswerKind::Json, &long, 1000), "nothing");
    let huge = r#"{"usage":{"prompt_tokens":1e300}}"#;
    assert!(read(&extractor, AnswerKind::Json, huge, 9).starts_with("9007199254740992+0="));
}

#[test]
fn a_bad_field_is_lost_alone_and_named() {
    let extraction = extraction(
        &[
            ("input_tokens", "usage.[x]"),
            ("output_tokens", "usage.completion_tokens"),
            ("time", "metrics.time"),
        ],
        &[
            ("total_ms", "time /"),
            ("ttft_ms", "nosuch(2)"),
            ("generation_ms", "time * 2"),
        ],
    );
    let (extractor, lost) = Extractor::compile("mine", &extraction);
    let named: Vec<(&str, &str)> = lost
        .iter()
        .map(|lost| (lost.profile.as_str(), lost.field.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("mine", "input_tokens"),
            ("mine", "total_ms"),
            ("mine", "ttft_ms")
        ]
    );
    let answer = r#"{"usage":{"prompt_tokens":1,"completion_tokens":10},"metrics":{"time":100}}"#;
    assert_eq!(
        read(&extractor, AnswerKind::Json, answer, 10),
        "1+10=11 total 0 load 0 prompt 0 first 0 generation 200 speed 50 - - open"
    );
}

#[test]
fn too_much_of_a_profile_is_lost_and_said() {
    let many: Vec<(String, String)> = (0..100)
        .map(|nth| (format!("f{nth}"), format!("p{nth}")))
        .collect();
    let formulas = (0..40).map(|nth| (format!("c{nth}"), "1".to_owned()));
    let extraction = MetricsExtraction {
        paths: many,
        calculations: formulas.collect(),
    };
    let (_, lost) = Extractor::compile("mine", &extraction);
    assert!(lost.iter().any(|lost| lost.field == "f99"));
    assert!(lost.iter().any(|lost| lost.field == "c39"));
    assert!(
        !lost
            .iter()
            .any(|lost| lost.field == "c0" || lost.field == "f0")
    );
}
