//! Real model names and what they tell, and how a user's tables replace the built-in ones.

use super::*;

/// Name, family, variant (docs/contract/catalogue.md#5.4).
const NAMES: &[(&str, &str, &str)] = &[
    // Ollama tags.
    ("llama3.2:3b", "llama", "3.2"),
    ("llama3.1:70b-instruct-q4_K_M", "llama", "3.1"),
    ("llama3:latest", "llama", "3"),
    ("Llama3:8B", "llama", "3"),
    ("llama2-uncensored:7b", "llama", "2"),
    ("llama4:scout", "llama", "4"),
    ("llama-guard3:8b", "llama", ""),
    ("llama-pro", "llama", ""),
    ("llama:7b", "llama", ""),
    ("llava:7b", "", ""),
    ("bakllava", "", ""),
    ("llava-llama3:8b", "", ""),
    ("gemma:2b", "gemma", ""),
    ("gemma2:9b", "gemma", "2"),
    ("gemma3:27b", "gemma", "3"),
    ("gemma3n:e4b", "gemma", "3"),
    ("codegemma:7b", "", ""),
    ("embeddinggemma", "", ""),
    ("phi3:mini", "phi", "3"),
    ("phi3.5:3.8b", "phi", "3.5"),
    ("phi4", "phi", "4"),
    ("phi4-mini-reasoning", "phi", "4"),
    ("phi:2.7b", "phi", ""),
    ("qwen:0.5b", "qwen", ""),
    ("qwen2:72b", "qwen", "2"),
    ("qwen2.5-coder:7b", "qwen", "2.5"),
    ("qwen2.5vl:7b", "qwen", "2.5"),
    ("qwen3:30b-a3b", "qwen", "3"),
    ("qwen3-coder:480b-cloud", "qwen", "3"),
    ("qwq:32b", "", ""),
    ("mistral", "mistral", ""),
    ("mistral:7b", "mistral", "7b"),
    ("mistral-nemo:12b", "mistral", "nemo:12b"),
    ("mistral-small3.2:24b", "mistral", "small3.2:24b"),
    ("mistral_7b", "mistral", "7b"),
    ("mixtral:8x7b", "mixtral", "8x7b"),
    ("mixtral", "mixtral", ""),
    ("mistrallite:7b", "mistral", "lite:7b"),
    ("codellama:7b", "codellama", ""),
    ("codellama-13b", "codellama", "13b"),
    ("codellama-70b-instruct", "codellama", "70b"),
    ("starcoder2:3b", "starcoder", "2"),
    ("starcoder:15b", "starcoder", ""),
    ("vicuna:13b-v1.5", "vicuna", ""),
    ("vicuna-13b", "vicuna", "13b"),
    ("falcon3:10b", "falcon", "3"),
    ("falcon-40b-instruct", "falcon", "40b"),
    ("falcon:7b", "falcon", ""),
    ("yi:34b-chat", "yi", ""),
    ("yi-34b", "yi", "34b"),
    ("yi-coder:9b", "yi", ""),
    ("deepseek-r1:7b", "deepseek", "r1:7b"),
    ("deepseek-r1", "deepseek", "r1"),
    ("deepseek-v3.1:671b-cloud", "deepseek", "v3.1:671b-cloud"),
    ("deepseek-coder:6.7b", "deepseek", "coder:6.7b"),
    ("deepseek-coder-v2:16b", "deepseek-coder-v2", ""),
    ("deepseek-coder-v2", "deepseek-coder-v2", ""),
    ("deepseek:latest", "deepseek", "latest"),
    ("deepseek", "deepseek", ""),
    ("deepscaler:1.5b", "", ""),
    ("gpt-oss:120b", "gpt-oss", "120b"),
    ("gpt-oss:20b-cloud", "gpt-oss", "20b-cloud"),
    ("gpt-oss", "gpt-oss", ""),
    ("devstral:24b", "devstral", "24b"),
    ("magistral", "magistral", ""),
    ("codestral:22b", "codestral", "22b"),
    ("ministral-3:8b", "ministral", "3:8b"),
    ("granite3.1-dense:8b", "granite", "3.1"),
    ("granite3.3:2b", "granite", "3.3"),
    ("granite-code:8b", "granite", ""),
    ("granite4:tiny-h", "granite", "4"),
    ("granitemoe:1b", "granite", ""),
    ("granitehybrid-7b", "granite", ""),
    ("exaone3.5:7.8b", "exaone", "3.5"),
    ("exaone-deep:32b", "exaone", ""),
    ("olmo2:13b", "olmo", "2"),
    ("internlm2:7b", "internlm", "2"),
    ("smollm2:135m", "smollm", "2"),
    ("smollm:latest", "smollm", ""),
    ("glm4:9b", "glm", "4"),
    ("glm-4.6:cloud", "glm", "4.6"),
    ("nemotron-mini:4b", "nemotron", "mini:4b"),
    ("nemotron:70b", "nemotron", "70b"),
    ("hunyuan:7b", "hunyuan", "7b"),
    ("minimax-m2:cloud", "minimax", "m2:cloud"),
    ("kimi-k2:1t-cloud", "kimi", ""),
    ("kimi", "kimi", ""),
    ("kimidev", "", ""),
    ("command-r:35b", "command-r", "35b"),
    ("command-r-plus:104b", "command-r", "plus:104b"),
    ("command-r7b:7b", "", ""),
    ("command-a:111b", "", ""),
    ("nomic-embed-text:latest", "", ""),
    ("nomic-bert:137m", "nomic-bert", ""),
    ("mxbai-embed-large", "", ""),
    ("bge-m3", "", ""),
    ("all-minilm:22m", "", ""),
    ("snowflake-arctic-embed2", "", ""),
    ("tinyllama:1.1b", "", ""),
    ("tinyllama-1.1b", "", ""),
    ("orca-mini:3b", "", ""),
    ("wizardcoder", "", ""),
    ("stablelm2", "", ""),
    ("bloomz-7b1", "bloom", ""),
    ("opt-1.3b", "opt", ""),
    ("mpt-7b", "mpt", ""),
    ("seed-oss:36b", "seed-oss", "36b"),
    ("forge-12b", "forge", "12b"),
    // Hugging Face ids.
    ("meta-llama/Llama-3.1-8B-Instruct", "llama", "3.1"),
    ("meta-llama/Meta-Llama-3.1-8B-Instruct", "", ""),
    ("meta-llama/Llama-Guard-4-12B", "llama", ""),
    ("Qwen/Qwen2.5-7B", "qwen", "2.5"),
    ("Qwen/Qwen3-235B-A22B-Instruct-2507", "qwen", "3"),
    ("Qwen/QwQ-32B", "qwen", ""),
    ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen", "2.5"),
    ("google/gemma-3-27b-it", "gemma", "3"),
    ("google/gemma-3n-E4B-it", "gemma", ""),
    ("microsoft/phi-4", "phi", "4"),
    ("microsoft/Phi-3-mini-4k-instruct", "phi", "3"),
    ("mistralai/Mistral-7B", "mistral", "7b"),
    (
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistral",
        "7b-instruct-v0.3",
    ),
    ("mistralai/Mixtral-8x7B-v0.1", "mixtral", "8x7b-v0.1"),
    ("mistralai/Devstral-Small-2507", "devstral", "small-2507"),
    (
        "mistralai/Ministral-8B-Instruct-2410",
        "ministral",
        "8b-instruct-2410",
    ),
    (
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "deepseek",
        "r1-distill-qwen-7b",
    ),
    ("deepseek-ai/DeepSeek-V3", "deepseek", "v3"),
    (
        "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
        "deepseek-coder-v2",
        "",
    ),
    ("openai/gpt-oss-20b", "gpt-oss", "20b"),
    ("zai-org/GLM-4.5-Air", "glm", "4.5"),
    ("moonshotai/Kimi-K2-Instruct", "kimi", ""),
    ("ibm-granite/granite-3.3-8b-instruct", "granite", "3.3"),
    ("nvidia/Nemotron-4-340B-Instruct", "nemotron", "4"),
    ("nvidia/Llama-3.1-Nemotron-70B-Instruct", "llama", "3.1"),
    ("LGAI-EXAONE/EXAONE-4.0-32B", "exaone", "4.0"),
    ("tencent/Hunyuan-A13B-Instruct", "hunyuan", ""),
    ("MiniMaxAI/MiniMax-M2", "minimax", ""),
    (
        "ByteDance-Seed/Seed-OSS-36B-Instruct",
        "seed-oss",
        "36b-instruct",
    ),
    ("CohereForAI/c4ai-command-r-v01", "", ""),
    ("CohereLabs/command-r-08-2024", "command-r", "08-2024"),
    ("allenai/OLMo-2-1124-7B-Instruct", "olmo", "2"),
    ("internlm/internlm3-8b-instruct", "internlm", "3"),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm", "2"),
    ("tensorfoundry/forge-9b", "forge", "9b"),
    ("BAAI/bge-m3", "", ""),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "", ""),
    ("nomic-ai/nomic-bert-2048", "nomic-bert", ""),
    ("tiiuae/falcon-7b", "", ""),
    ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "", ""),
    (
        "hf.co/bartowski/Mistral-7B-Instruct-GGUF",
        "mistral",
        "7b-instruct-gguf",
    ),
    ("ai/smollm2", "smollm", "2"),
    ("ai/gemma3:4B-Q4_K_M", "gemma", "3"),
    // GGUF file names, MLX names, LM Studio keys.
    ("gemma-3-270m-it-Q4_K_M.gguf", "gemma", "3"),
    ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "qwen", "2.5"),
    ("Meta-Llama-3-8B", "", ""),
    ("/models/llama-3-8b.gguf", "", ""),
    ("/models/gpt-oss-20b.gguf", "gpt-oss", "20b.gguf"),
    ("mlx-community/Llama-3.2-3B-Instruct-4bit", "llama", "3.2"),
    ("mlx-community/Qwen3-30B-A3B-4bit", "qwen", "3"),
    ("mlx-community/gemma-3-27b-it-4bit", "gemma", "3"),
    ("meta-llama-3.1-8b-instruct", "", ""),
    ("gemma-3-27b-it", "gemma", "3"),
    ("qwen2-vl-7b-instruct", "qwen", "2"),
    ("text-embedding-nomic-embed-text-v1.5", "", ""),
    ("qwen/qwen3-4b-2507", "qwen", "3"),
    ("google/gemma-3-12b", "gemma", "3"),
    ("mistralai/magistral-small", "magistral", "small"),
    ("openai/gpt-oss-120b", "gpt-oss", "120b"),
    // GPT and what begins like it.
    ("gpt-4o-mini", "gpt", ""),
    ("gpt-3.5-turbo", "gpt", ""),
    ("gpt2", "gpt", "2"),
    ("gpt2-xl", "gpt", "2"),
    ("gpt-j-6b", "gpt", "j"),
    ("gptj", "gpt", "j"),
    ("gpt-neox-20b", "gpt", "neox"),
    ("gpt", "gpt", ""),
    ("gptq-model", "", ""),
    // Odd ones.
    ("", "", ""),
    ("  LLAMA3  ", "llama", "3"),
    ("default", "", ""),
    ("model", "", ""),
    ("x/", "", ""),
    ("/", "", ""),
    (":", "", ""),
    ("mistral/foo", "mistral", ""),
    ("ünïcode-7b", "", ""),
    ("claude-sonnet-4", "", ""),
];

#[test]
fn names_tell_the_family() {
    let rules = ModelRules::builtin();
    let mut wrong = Vec::new();
    for (name, family, variant) in NAMES {
        let lower = name.to_lowercase();
        let told = rules.family(&lower);
        if told != (*family, *variant) {
            wrong.push(format!("{name}: {told:?}, not {:?}", (family, variant)));
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(NAMES.len() >= 120);
}

#[test]
fn names_tell_capabilities() {
    let coding = ["code-completion", "code-generation", "programming"];
    let following = ["chat", "instruction-following"];
    let seeing = ["image-understanding", "multimodal", "vision"];
    let table: [(&str, &[&[&str]]); 15] = [
        ("llama3.2:3b", &[]),
        ("qwen2.5-coder:7b", &[&coding]),
        ("codellama:7b", &[&coding]),
        ("CodeLlama-7b-Instruct-hf", &[&coding, &following]),
        ("Mistral-7B-INSTRUCT-v0.3", &[&following]),
        ("TinyLlama-1.1B-Chat", &[&following]),
        ("openassistant-13b", &[&following]),
        ("phi4-mini-reasoning", &[&["logic", "reasoning"]]),
        ("Qwen3-4B-Thinking", &[&["logic", "reasoning"]]),
        ("mathstral:7b", &[&["mathematics", "problem-solving"]]),
        ("llava:7b", &[&seeing]),
        ("bakllava", &[&seeing]),
        ("llama3.2-vision:11b", &[&seeing]),
        ("smolvlm:2b", &[&seeing]),
        ("nomic-embed-text", &[]),
    ];
    let rules = ModelRules::builtin();
    for (name, groups) in table {
        let mut expected: Vec<&str> = groups.concat();
        expected.sort_unstable();
        let told: Vec<_> = rules.words(rules.of_name(name)).collect();
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn types_and_contexts_have_capabilities() {
    let rules = ModelRules::builtin();
    let words = |set| rules.words(set).collect::<Vec<_>>();
    assert_eq!(
        words(rules.of_kind(ModelKind::Llm)),
        ["chat", "completion", "text-generation"]
    );
    assert_eq!(
        words(rules.of_kind(ModelKind::Vlm)),
        [
            "image-understanding",
            "multimodal",
            "text-generation",
            "vision"
        ]
    );
    assert_eq!(
        words(rules.of_kind(ModelKind::Embeddings)),
        ["embeddings", "similarity", "vector-search"]
    );
    let table: [(u64, &[&str]); 8] = [
        (0, &[]),
        (31_999, &[]),
        (32_000, &["extended-context"]),
        (99_999, &["extended-context"]),
        (100_000, &["long-context"]),
        (999_999, &["long-context"]),
        (1_000_000, &["long-context", "ultra-long-context"]),
        (u64::MAX - 1, &["long-context", "ultra-long-context"]),
    ];
    for (tokens, expected) in table {
        assert_eq!(words(rules.of_context(tokens)), expected, "{tokens}");
    }
}

#[test]
fn names_tell_the_publisher() {
    let table = [
        ("llama3", Some("meta")),
        ("codellama", Some("meta")),
        ("opt-1.3b", Some("meta")),
        ("gemma3", Some("google")),
        ("phi-mini", Some("microsoft")),
        ("mistral", Some("mistral")),
        ("mixtral", Some("mistral")),
        ("ministral-8b", Some("mistral")),
        ("qwen3", Some("alibaba")),
        ("yi-34b", Some("01-ai")),
        ("gpt2-xl", Some("openai")),
        ("gpt-oss:20b", Some("openai")),
        ("gpt-4o", None),
        ("gptj", Some("eleutherai")),
        ("gptneox", Some("eleutherai")),
        ("glm-4", Some("zai-org")),
        ("kimi-k2", Some("moonshotai")),
        ("command-r", Some("cohere")),
        ("command-a", None),
        ("seed-oss", Some("bytedance")),
        ("zz-bare", None),
        ("", None),
    ];
    for (name, publisher) in table {
        assert_eq!(ModelRules::builtin().publisher(name), publisher, "{name}");
    }
}

#[test]
fn the_built_in_file_parses_without_a_fault() {
    let tables: Tables = toml::from_str(include_str!("../models.toml")).unwrap();
    let mut faults = Vec::new();
    ModelRules::compile(tables, &mut faults);
    assert_eq!(faults, [""; 0]);
    assert_eq!(ModelRules::builtin().families.len(), 7);
}

/// Rules from the text of a user's file.
fn own(text: &str) -> (ModelRules, Vec<String>) {
    let mut faults = Vec::new();
    let rules = ModelRules::compile(toml::from_str(text).unwrap(), &mut faults);
    (rules, faults)
}

#[test]
fn each_table_is_replaced_alone() {
    let (rules, faults) = own(r#"
        [model_extraction]
        family_patterns = [{ pattern = '^(acme)-(x)', family_group = 1, variant_group = 2 }]
        family_aliases = { acme = "corp" }
        [quantization.mappings]
        tiny = "t"
        [capabilities]
        name_patterns = [{ pattern = 'SQL', capabilities = ["queries"] }]
        context_thresholds = { long_context = 10, huge_context = 20 }
        [special_rules]
        generic_names = ["phi"]
        "#);
    assert_eq!(faults, [""; 0]);
    assert_eq!(rules.family("acme-x-7b"), ("corp", "x"));
    assert_eq!(
        rules.family("llama3.2:3b"),
        ("llama", ""),
        "only the first word is left"
    );
    assert_eq!(
        rules.family("kimi-k2"),
        ("kimi", ""),
        "another key of the same table"
    );
    assert_eq!(rules.family("phi"), ("", ""));
    assert_eq!(rules.quantization("TINY"), Some("t"));
    assert_eq!(rules.quantization("Q4_K_M"), None);
    let words = |set| rules.words(set).collect::<Vec<_>>();
    assert_eq!(words(rules.of_name("text2sql-code")), ["queries"]);
    assert_eq!(words(rules.of_context(10)), ["long-context"]);
    assert_eq!(
        words(rules.of_context(20)),
        ["huge-context", "long-context"]
    );
    assert!(words(rules.of_kind(ModelKind::Llm)).contains(&"chat"));
    assert_eq!(rules.publisher("qwen"), Some("alibaba"));
}

#[test]
fn faulty_patterns_are_left_out() {
    let (rules, faults) = own(
        "[model_extraction]\nfamily_patterns = [{ pattern = '(' }, { pattern = 'x{1000000}' },\n\
         { pattern = '^(ok)', family_group = 1, variant_group = 9 }, { pattern = 'no-group' }]",
    );
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults
            .iter()
            .all(|fault| fault.contains("skipped") && !fault.contains('\n'))
    );
    assert_eq!(rules.family("ok-7b"), ("ok", ""));
    assert_eq!(rules.family("no-group"), ("", ""));
}

#[test]
fn capabilities_are_bounded() {
    let words: Vec<_> = (0..500).map(|n| format!("\"w{n:03}\"")).collect();
    let (rules, faults) = own(&format!(
        "capabilities.name_patterns = [{{ pattern = 'x', capabilities = [{}] }}]",
        words.join(",")
    ));
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(rules.words(rules.of_name("x")).count() <= MAX_CAPABILITIES);
}

#[test]
fn the_first_usable_file_counts() {
    let folder = std::env::temp_dir().join(format!("olla-rules-{}", std::process::id()));
    let place = |name: &str, text: &str| {
        let dir = folder.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(FILE_NAME), text).unwrap();
        dir.join(FILE_NAME)
    };
    let broken = place("broken", "special_rules = 5");
    let empty = place("empty", "# nothing\n");
    let good = place("good", "special_rules.generic_names = ['llama3']");
    let later = place("later", "special_rules.generic_names = ['phi4']");
    let missing = folder.join("missing").join(FILE_NAME);
    fs::write(
        folder.join(OLLA_FILE_NAME),
        "special_rules:\n  generic_names: [llama3]\n",
    )
    .unwrap();
    let (rules, warnings) = ModelRules::load(&[folder.join(OLLA_FILE_NAME)]);
    assert_eq!(
        (rules.family("llama3"), warnings.len()),
        (("", ""), 0),
        "Olla's own file"
    );
    let (rules, warnings) = ModelRules::load(&[missing.clone(), broken, empty, good, later]);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(rules.family("llama3"), ("", ""));
    assert_eq!(
        rules.family("phi4"),
        ("phi", "4"),
        "what comes later is not read"
    );
    let [broken, empty] = warnings.try_into().unwrap();
    assert!(
        broken.contains("broken") && broken.contains("skipped"),
        "{broken}"
    );
    assert!(
        empty.contains("empty") && empty.contains("skipped"),
        "{empty}"
    );
    let (rules, warnings) = ModelRules::load(&[missing]);
    assert_eq!(
        (rules.family("llama3"), warnings.len()),
        (("llama", "3"), 0)
    );
}

#[test]
fn the_file_is_looked_for_in_each_folder() {
    let beside = Some(Path::new("/c"));
    let places = ModelRules::places(beside, Path::new("/w"), Some(Path::new("etc")));
    let expected = [
        "/c/models.toml",
        "/w/models.toml",
        "/w/config/models.toml",
        "/w/etc/models.toml",
        "/c/models.yaml",
        "/w/models.yaml",
        "/w/config/models.yaml",
        "/w/etc/models.yaml",
    ];
    assert_eq!(places, expected.map(PathBuf::from));
    assert_eq!(ModelRules::places(None, Path::new("/w"), None).len(), 4);
}
