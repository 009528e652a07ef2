//! What each reader keeps of the listings in `fixtures/`, and how odd listings are read.

use proptest::prelude::*;

use super::*;

fn fixture(parser: Parser) -> &'static str {
    match parser {
        Parser::Ollama => include_str!("../fixtures/ollama.json"),
        Parser::LmStudio => include_str!("../fixtures/lmstudio.json"),
        Parser::OpenAi => include_str!("../fixtures/openai.json"),
        Parser::Vllm => include_str!("../fixtures/vllm.json"),
        Parser::Sglang => include_str!("../fixtures/sglang.json"),
        Parser::Lmdeploy => include_str!("../fixtures/lmdeploy.json"),
        Parser::VllmMlx => include_str!("../fixtures/vllm-mlx.json"),
        Parser::DockerModelRunner => include_str!("../fixtures/docker-model-runner.json"),
        Parser::LlamaCpp => include_str!("../fixtures/llamacpp.json"),
        Parser::Lemonade => include_str!("../fixtures/lemonade.json"),
    }
}

fn read(parser: Parser) -> Vec<ListedModel> {
    parse_listing(parser, fixture(parser).as_bytes()).unwrap()
}

fn names(models: &[ListedModel]) -> Vec<&str> {
    models.iter().map(|model| &*model.name).collect()
}

fn text(text: &str) -> Option<Box<str>> {
    Some(text.into())
}

#[test]
fn ollama() {
    let [llama, nomic, cloud] = read(Parser::Ollama).try_into().unwrap();
    let expected = ListedModel {
        family: text("llama"),
        parameter_size: text("3.2B"),
        quantization: text("Q4_K_M"),
        format: text("gguf"),
        disk_size: Some(2_019_393_189),
        digest: text("a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72"),
        created: Some(1_727_424_785),
        extra: Some(Box::new(Extra {
            modified_at: text("2024-09-27T10:13:05.214553261+02:00"),
            families: vec!["llama".into()],
            ..Extra::default()
        })),
        ..ListedModel::named("llama3.2:3b")
    };
    assert_eq!(llama, expected);
    assert_eq!(nomic.family, text("nomic-bert"), "the first of families");
    assert_eq!(
        nomic.extra.unwrap().parent_model,
        text("nomic-embed-text:v1.5")
    );
    assert_eq!((cloud.format, cloud.disk_size), (None, Some(384)));
}

#[test]
fn lm_studio() {
    let [vlm, llm, embeddings] = read(Parser::LmStudio).try_into().unwrap();
    let expected = ListedModel {
        family: text("qwen2_vl"),
        publisher: text("mlx-community"),
        quantization: text("4bit"),
        format: text("mlx"),
        kind: Some(ModelKind::Vlm),
        state: text("not-loaded"),
        trained_context: Some(32_768),
        ..ListedModel::named("qwen2-vl-7b-instruct")
    };
    assert_eq!(vlm, expected);
    assert_eq!(
        (llm.kind, llm.state),
        (Some(ModelKind::Llm), text("loaded"))
    );
    assert_eq!(llm.extra.unwrap().capabilities, ["tool_use".into()]);
    assert_eq!(embeddings.kind, Some(ModelKind::Embeddings));
}

#[test]
fn openai() {
    let [gpt, phi, qwen] = read(Parser::OpenAi).try_into().unwrap();
    let expected = ListedModel {
        publisher: text("openai"),
        created: Some(1_721_172_741),
        ..ListedModel::named("gpt-4o-mini")
    };
    assert_eq!(gpt, expected);
    assert_eq!(&*phi.name, "local/phi-4");
    assert_eq!((qwen.created, qwen.served_context), (None, Some(40_960)));
}

#[test]
fn vllm() {
    let [llama, lora] = read(Parser::Vllm).try_into().unwrap();
    let expected = ListedModel {
        created: Some(1_730_000_000),
        served_context: Some(131_072),
        ..ListedModel::named("meta-llama/Llama-3.1-8B-Instruct")
    };
    assert_eq!(llama, expected, "its own name is no publisher");
    assert_eq!(lora.served_context, None);
    let parent = text("meta-llama/Llama-3.1-8B-Instruct");
    assert_eq!(lora.extra.unwrap().parent, parent);
}

#[test]
fn sglang() {
    let [qwen] = read(Parser::Sglang).try_into().unwrap();
    assert_eq!((qwen.publisher, qwen.served_context), (None, Some(128_000)));
    let extra = qwen.extra.unwrap();
    assert_eq!(
        (extra.supports_vision, extra.frontend_enabled),
        (Some(true), Some(false))
    );
    let json = |scalar: Option<Scalar>| serde_json::to_string(&scalar).unwrap();
    assert_eq!(json(extra.radix_cache_size), "4096");
    assert_eq!(json(extra.spec_decoding), "\"eagle\"");
}

#[test]
fn lmdeploy() {
    let [internlm] = read(Parser::Lmdeploy).try_into().unwrap();
    assert_eq!(
        (internlm.publisher, internlm.created),
        (None, Some(1_746_000_000))
    );
    assert_eq!(internlm.extra.unwrap().parent, text("internlm3"));
}

#[test]
fn vllm_mlx() {
    let [llama, gemma] = read(Parser::VllmMlx).try_into().unwrap();
    assert_eq!((llama.publisher, llama.format), (None, text("mlx")));
    assert_eq!(gemma.publisher, text("mlx-community"));
}

#[test]
fn docker_model_runner() {
    let models = read(Parser::DockerModelRunner);
    assert_eq!(
        names(&models),
        ["ai/smollm2", "hf.co/bartowski/llama-3.2-1b-instruct-gguf"]
    );
    assert!(
        models
            .iter()
            .all(|model| model.publisher.is_none() && model.format == text("gguf"))
    );
}

#[test]
fn llama_cpp() {
    let models = read(Parser::LlamaCpp);
    let expected = ListedModel {
        parameter_count: Some(268_098_176),
        format: text("gguf"),
        trained_context: Some(32_768),
        disk_size: Some(249_405_952),
        created: Some(1_753_000_000),
        extra: models[0].extra.clone(),
        ..ListedModel::named("/models/gemma-3-270m-it-Q4_K_M.gguf")
    };
    assert_eq!(models, [expected], "the parallel list is ignored");
}

#[test]
fn lemonade() {
    let [gguf, hybrid, flm] = read(Parser::Lemonade).try_into().unwrap();
    let expected = ListedModel {
        publisher: text("unsloth"),
        format: text("gguf"),
        state: text("available"),
        created: Some(1_744_173_590),
        extra: Some(Box::new(Extra {
            checkpoint: text("unsloth/Qwen3-0.6B-GGUF:Q4_0"),
            recipe: text("llamacpp"),
            downloaded: Some(true),
            ..Extra::default()
        })),
        ..ListedModel::named("Qwen3-0.6B-GGUF")
    };
    assert_eq!(gguf, expected);
    assert_eq!((hybrid.format, hybrid.state), (text("onnx"), None));
    assert_eq!((flm.format, flm.publisher), (text("gguf"), None));
}

/// What the built-in profile of a server reads from its listing.
fn read_by(profile: &str, listing: &str) -> Vec<ListedModel> {
    let profiles = super::super::Profiles::builtin();
    let parser = profiles.get(profile).unwrap().parser;
    parse_listing(parser, listing.as_bytes()).unwrap()
}

#[test]
fn llama_swap() {
    let listing = include_str!("../fixtures/llama-swap.json");
    let [qwen, nomic] = read_by("llama-swap", listing).try_into().unwrap();
    let expected = ListedModel {
        created: Some(1_787_000_000),
        served_context: Some(32_768),
        ..ListedModel::named("qwen3-30b")
    };
    assert_eq!(qwen, expected, "its own name is no publisher");
    assert_eq!(
        (&*nomic.name, nomic.served_context),
        ("nomic-embed-text-v1.5", None)
    );
}

#[test]
fn text_generation_inference() {
    let models = read_by("tgi", include_str!("../fixtures/tgi.json"));
    let expected = ListedModel::named("HuggingFaceTB/SmolLM2-1.7B-Instruct");
    assert_eq!(models, [expected], "the model's own name is no publisher");
}

#[test]
fn localai() {
    let models = read_by("localai", include_str!("../fixtures/localai.json"));
    let expected = ["llama-3.2-1b-instruct:q4_k_m", "text-embedding-ada-002"];
    assert_eq!(models, expected.map(ListedModel::named));
}

#[test]
fn koboldcpp() {
    let models = read_by("koboldcpp", include_str!("../fixtures/koboldcpp.json"));
    let expected = ListedModel {
        created: Some(1_790_000_000),
        ..ListedModel::named("koboldcpp/gemma-3-4b-it-Q4_K_M")
    };
    assert_eq!(models, [expected]);
}

#[test]
fn tabbyapi() {
    let models = read_by("tabbyapi", include_str!("../fixtures/tabbyapi.json"));
    let expected = ListedModel {
        created: Some(1_786_650_000),
        ..ListedModel::named("Qwen3-8B-exl3-4.0bpw")
    };
    assert_eq!(models, [expected]);
}

#[test]
fn mlx_lm() {
    let [hub, folder] = read_by("mlx-lm", include_str!("../fixtures/mlx-lm.json"))
        .try_into()
        .unwrap();
    let expected = ListedModel {
        format: text("mlx"),
        created: Some(1_787_300_000),
        ..ListedModel::named("mlx-community/Llama-3.2-3B-Instruct-4bit")
    };
    assert_eq!(hub, expected);
    assert_eq!(&*folder.name, "/opt/models/my-model-8bit");
}

#[test]
fn served_and_trained_context() {
    let table = [
        // parser, item, served, trained, meta
        (
            Parser::LlamaCpp,
            r#"{"id":"m","meta":{"n_ctx": 16384,"n_ctx_train":262144}}"#,
            Some(16_384),
            Some(262_144),
            r#"{"n_ctx": 16384,"n_ctx_train":262144}"#,
        ),
        (
            Parser::LlamaCpp,
            r#"{"id":"m","meta":[1],"max_model_len":5}"#,
            None,
            None,
            "null",
        ),
        (
            Parser::OpenAi,
            r#"{"id":"m","context_window":7,"context_length":6,"max_model_len":5}"#,
            Some(5),
            None,
            "null",
        ),
        (
            Parser::OpenAi,
            r#"{"id":"m","context_window":7,"context_length":6}"#,
            Some(6),
            None,
            "null",
        ),
        (
            Parser::OpenAi,
            r#"{"id":"m","context_window":7,"context_length":0}"#,
            Some(7),
            None,
            "null",
        ),
        (
            Parser::OpenAi,
            r#"{"id":"m","meta":{"n_ctx":8,"n_ctx_train":9}}"#,
            Some(8),
            Some(9),
            r#"{"n_ctx":8,"n_ctx_train":9}"#,
        ),
        (
            Parser::Vllm,
            r#"{"id":"m","max_model_len":5,"meta":{"n_ctx":8,"n_ctx_train":9}}"#,
            Some(5),
            None,
            "null",
        ),
        (
            Parser::LmStudio,
            r#"{"id":"m","max_context_length":9,"loaded_context_length":4}"#,
            Some(4),
            Some(9),
            "null",
        ),
    ];
    for (parser, item, served, trained, meta) in table {
        let body = format!(r#"{{"data":[{item}]}}"#);
        let [model] = parse_listing(parser, body.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(
            (model.served_context, model.trained_context),
            (served, trained),
            "{item}"
        );
        let kept = model.extra.and_then(|extra| extra.meta);
        assert_eq!(serde_json::to_string(&kept).unwrap(), meta, "{item}");
    }
    let long = format!(
        r#"{{"data":[{{"id":"m","meta":{{"n_ctx":8,"x":"{}"}}}}]}}"#,
        "x".repeat(MAX_TEXT_BYTES)
    );
    let [model] = parse_listing(Parser::LlamaCpp, long.as_bytes())
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!((model.served_context, model.extra), (Some(8), None));
}

/// Listings as real servers sent them, byte for byte; the file's name tells the version.
#[test]
fn recorded() {
    let llama_cpp = include_str!("../fixtures/recorded/llamacpp-xllamacpp-2026.10.11549.json");
    let models = parse_listing(Parser::LlamaCpp, llama_cpp.as_bytes()).unwrap();
    let expected = ListedModel {
        parameter_count: Some(268_098_176),
        format: text("gguf"),
        served_context: Some(2_048),
        trained_context: Some(32_768),
        disk_size: Some(246_587_904),
        created: Some(1_795_531_682),
        extra: models[0].extra.clone(),
        ..ListedModel::named("gemma3-270m")
    };
    assert_eq!(models, [expected]);

    let litellm = include_str!("../fixtures/recorded/litellm-1.108.7.json");
    let model = |name| ListedModel {
        publisher: text("openai"),
        created: Some(1_677_610_602),
        ..ListedModel::named(name)
    };
    let models = parse_listing(Parser::OpenAi, litellm.as_bytes()).unwrap();
    assert_eq!(models, [model("mock-plain"), model("mock-tools")]);
}

#[test]
fn odd_entries_never_lose_others() {
    let body = r#"{"object":7,"data":[
        "text", 5, null, [], {}, {"id":null}, {"id":""}, {"id":"  "}, {"id":5}, {"ID":"x"},
        {"id":"a","max_model_len":"8192","created":1.7e9,"owned_by":3},
        {"id":"b","max_model_len":-1,"created":"x","owned_by":null,"parent":[]},
        {"id":"c","max_model_len":1e999,"deep":[[[[{}]]]],"bad":"\ud800"},
        {"id":"\ud800"},
        {"id":"d","max_model_len":0,"created":-5}
    ]}"#;
    let models = parse_listing(Parser::Vllm, body.as_bytes()).unwrap();
    assert_eq!(names(&models), ["a", "b", "c", "d"]);
    let [a, b, c, d] = models.try_into().unwrap();
    assert_eq!(
        (a.served_context, a.created),
        (Some(8192), Some(1_700_000_000))
    );
    for model in [b, c, d] {
        assert_eq!(
            model,
            ListedModel::named(&model.name),
            "nothing but the name is usable"
        );
    }
}

#[test]
fn ollama_accepts_model_for_name() {
    let body = r#"{"models":[{"model":"a"},{"name":"b","model":"c"},{"name":"","model":"d"},
        {"name":"e","modified_at":"yesterday","size":"12","details":"x"}]}"#;
    let models = parse_listing(Parser::Ollama, body.as_bytes()).unwrap();
    assert_eq!(names(&models), ["a", "b", "d", "e"]);
    let odd = models.last().unwrap();
    assert_eq!(
        (odd.disk_size, odd.created, &odd.extra),
        (Some(12), None, &None)
    );
}

#[test]
fn listings_without_models_are_fine() {
    let table = [
        (Parser::Ollama, r#"{"models":[]}"#),
        (Parser::Ollama, r#"{"models":null}"#),
        (Parser::Ollama, r#"{"data":[{"id":"x"}]}"#),
        (Parser::OpenAi, r#"{"object":"list","data":[]}"#),
        (Parser::OpenAi, r#"{"data":null}"#),
        (Parser::OpenAi, "\u{feff} {} \n"),
    ];
    for (parser, body) in table {
        assert_eq!(
            parse_listing(parser, body.as_bytes()),
            Ok(Vec::new()),
            "{body}"
        );
    }
}

#[test]
fn other_texts_are_faults() {
    let table = [
        ("", ListingFault::Empty),
        (" \r\n", ListingFault::Empty),
        ("\u{feff}", ListingFault::Empty),
        ("null", ListingFault::NoObject),
        ("[]", ListingFault::NoObject),
        (r#"[{"id":"x"}]"#, ListingFault::NoObject),
        ("<html>", ListingFault::NoObject),
        (r#"{"data":[{"id":"x"}"#, ListingFault::NoObject),
        (r#"{"data":[]} trailing"#, ListingFault::NoObject),
        (r#"{"data":{}}"#, ListingFault::NoList),
        (r#"{"data":"x"}"#, ListingFault::NoList),
        (r#"{"data":5}"#, ListingFault::NoList),
    ];
    for (body, fault) in table {
        assert_eq!(
            parse_listing(Parser::OpenAi, body.as_bytes()),
            Err(fault),
            "{body}"
        );
        assert!(!fault.to_string().is_empty());
    }
}

#[test]
fn listings_are_bounded() {
    let long = format!("{{\"data\":[]{}}}", " ".repeat(MAX_LISTING_BYTES));
    let parsed = parse_listing(Parser::OpenAi, long.as_bytes());
    assert_eq!(parsed, Err(ListingFault::TooLong));
    let many = format!("{{\"data\":[{}0]}}", "0,".repeat(MAX_MODELS));
    let parsed = parse_listing(Parser::OpenAi, many.as_bytes());
    assert_eq!(parsed, Err(ListingFault::TooMany));
    let name = "n".repeat(MAX_NAME_BYTES);
    let body = format!(r#"{{"data":[{{"id":"{name}"}},{{"id":"{name}n"}}]}}"#);
    assert_eq!(
        names(&parse_listing(Parser::OpenAi, body.as_bytes()).unwrap()),
        [name]
    );
    let deep = format!(r#"{{"data":[{{"id":"x","y":{}}}]}}"#, "[".repeat(1_000_000));
    let parsed = parse_listing(Parser::OpenAi, deep.as_bytes());
    assert_eq!(
        parsed,
        Err(ListingFault::NoObject),
        "an end, not an overflow"
    );
}

#[test]
fn bytes_that_are_no_text_spoil_one_name_only() {
    let body = b"{\"data\":[{\"id\":\"a\xff\"},{\"id\":\"b\"}]}";
    let models = parse_listing(Parser::OpenAi, body).unwrap();
    assert_eq!(names(&models), ["a\u{fffd}", "b"]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        body in r#"\{"data":\[(\{"(id|created|meta|parent)":(1e9|"x"|\{|\[|null|-1)[,\]\}]{0,3}){0,4}"#,
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for parser in [Parser::Ollama, Parser::Sglang, Parser::LlamaCpp, Parser::Lemonade] {
            for text in [body.as_bytes(), &bytes] {
                if let Ok(models) = parse_listing(parser, text) {
                    prop_assert!(models.iter().all(|model| !model.name.trim().is_empty()));
                }
            }
        }
    }
}
