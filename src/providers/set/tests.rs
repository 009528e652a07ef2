//! The built-in profiles against the contract's tables, and how users' profiles join them.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::profile::{CommonOperation, Parser};
use super::*;

fn names(profiles: &Profiles) -> Vec<&str> {
    profiles.all().iter().map(|p| p.name.as_str()).collect()
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("olla-profiles-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0).unwrap();
        for (name, text) in files {
            let path = folder.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn load(&self) -> (Profiles, Vec<String>) {
        Profiles::load(std::slice::from_ref(&self.0))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn profiles_of_olla_are_read_and_replace_no_built_in_one() {
    let folder = Folder::with(&[
        (
            "mine.yaml",
            "name: mine\nversion: \"2.0\"\nhome: ~\nrouting:\n  prefixes:\n    - mine\n\
             api:\n  openai_compatible: true\n  paths: [/v1/chat/completions]\n\
             \x20 anthropic_support:\ncharacteristics:\n  timeout: 2m\n  streaming: true\n",
        ),
        (
            "sub/vllm.yml",
            "name: vllm\nrouting:\n  prefixes: [other]\n",
        ),
        ("zz.yaml", "name: [\n"),
    ]);
    let mut kept = Vec::new();
    let (profiles, warnings) = Profiles::load_with(
        std::slice::from_ref(&folder.0),
        &mut |path: &Path, name: &str| kept.push((path.to_path_buf(), name.to_owned())),
    );
    let mine = profiles.get("mine").unwrap();
    assert_eq!(
        (&*mine.version, &*mine.prefixes),
        ("2.0", &["mine".to_owned()][..])
    );
    assert!(mine.openai_compatible && mine.anthropic.is_none());
    let builtin = Profiles::builtin();
    assert_eq!(profiles.get("vllm"), builtin.get("vllm"));
    assert_eq!(kept, [(folder.0.join("sub/vllm.yml"), "vllm".to_owned())]);
    let [broken] = warnings.try_into().unwrap();
    assert!(broken.contains("zz.yaml skipped: line "), "{broken}");
}

/// Name, prefixes, health path, discovery path, reader, native listing.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    Parser,
    Option<&'static str>,
);

const ROWS: [Row; 18] = [
    (
        "docker-model-runner",
        &["dmr"],
        "/engines/v1/models",
        "/engines/v1/models",
        Parser::DockerModelRunner,
        Some("/engines/v1/models"),
    ),
    (
        "koboldcpp",
        &["koboldcpp"],
        "/v1/models",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "lemonade",
        &["lemonade"],
        "/api/v1/health",
        "/api/v1/models",
        Parser::Lemonade,
        Some("/api/v1/models"),
    ),
    (
        "litellm",
        &["litellm"],
        "/health",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "llama-swap",
        &["llama-swap"],
        "/health",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "llamacpp",
        &["llamacpp"],
        "/health",
        "/v1/models",
        Parser::LlamaCpp,
        None,
    ),
    (
        "lm-studio",
        &["lmstudio", "lm-studio", "lm_studio"],
        "/v1/models",
        "/api/v0/models",
        Parser::LmStudio,
        Some("/api/v0/models"),
    ),
    (
        "lmdeploy",
        &["lmdeploy"],
        "/health",
        "/v1/models",
        Parser::Lmdeploy,
        None,
    ),
    (
        "localai",
        &["localai"],
        "/readyz",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "mlx-lm",
        &["mlx-lm"],
        "/health",
        "/v1/models",
        Parser::VllmMlx,
        None,
    ),
    (
        "ollama",
        &["ollama"],
        "/",
        "/api/tags",
        Parser::Ollama,
        Some("/api/tags"),
    ),
    (
        "omlx",
        &["omlx"],
        "/health",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "openai-compatible",
        &["openai", "openai-compatible"],
        "/v1/models",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "sglang",
        &["sglang"],
        "/health",
        "/v1/models",
        Parser::Sglang,
        None,
    ),
    (
        "tabbyapi",
        &["tabbyapi"],
        "/health",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "tgi",
        &["tgi"],
        "/health",
        "/v1/models",
        Parser::OpenAi,
        None,
    ),
    (
        "vllm",
        &["vllm"],
        "/health",
        "/v1/models",
        Parser::Vllm,
        None,
    ),
    (
        "vllm-mlx",
        &["vllm-mlx"],
        "/health",
        "/v1/models",
        Parser::VllmMlx,
        None,
    ),
];

#[test]
fn built_in_profiles_are_those_of_the_contract() {
    // Contract: docs/contract/catalogue.md#1.1

    for text in BUILTIN {
        let (profile, ignored) = file::parse(text).unwrap();
        assert_eq!(ignored, [""; 0], "{}", profile.name);
    }
    let profiles = Profiles::builtin();
    assert_eq!(names(&profiles), ROWS.map(|row| row.0));
    for (name, prefixes, health, discovery, parser, native) in ROWS {
        let profile = profiles.get(name).unwrap();
        assert_eq!(profile.prefixes, prefixes, "{name}");
        assert_eq!(profile.health_path, health, "{name}");
        assert_eq!(profile.discovery_path, discovery, "{name}");
        assert_eq!(profile.parser, parser, "{name}");
        assert_eq!(profile.native_listing_path.as_deref(), native, "{name}");
        assert!(profile.openai_compatible, "{name}");
        for prefix in prefixes {
            assert_eq!(profiles.by_prefix(prefix).unwrap().name, name);
        }
    }
    for prefix in [
        "llama-cpp",
        "llama_cpp",
        "docker-model-runner",
        "auto",
        "OpenAI",
        "",
    ] {
        assert!(profiles.by_prefix(prefix).is_none(), "{prefix}");
    }
}

#[test]
fn native_anthropic_support_is_that_of_the_contract() {
    // Contract: docs/contract/catalogue.md#1.3, docs/contract/translation.md#5
    let table = [
        (
            "ollama",
            Some((true, false, "/v1/messages", Some("0.14.0"))),
        ),
        (
            "lm-studio",
            Some((true, false, "/v1/messages", Some("0.4.1"))),
        ),
        ("vllm", Some((true, false, "/v1/messages", Some("0.11.1")))),
        (
            "llamacpp",
            Some((true, true, "/v1/messages", Some("b4847"))),
        ),
        ("vllm-mlx", Some((true, true, "/v1/messages", None))),
        ("omlx", Some((true, false, "/v1/messages", None))),
        (
            "docker-model-runner",
            Some((true, true, "/anthropic/v1/messages", None)),
        ),
        (
            "openai-compatible",
            Some((false, false, "/v1/messages", None)),
        ),
        ("sglang", None),
        ("lemonade", None),
        ("litellm", None),
        ("lmdeploy", None),
        ("llama-swap", Some((true, true, "/v1/messages", None))),
        (
            "localai",
            Some((true, false, "/v1/messages", Some("3.10.0"))),
        ),
        ("koboldcpp", None),
        ("mlx-lm", None),
        ("tabbyapi", None),
        ("tgi", None),
    ];
    let profiles = Profiles::builtin();
    for (name, expected) in table {
        let declared = profiles.get(name).unwrap().anthropic.as_ref();
        let declared = declared.map(|a| {
            let path = a.messages_path.as_str();
            (a.enabled, a.token_count, path, a.min_version.as_deref())
        });
        assert_eq!(declared, expected, "{name}");
    }
}

#[test]
fn native_support_of_the_other_dialects_is_that_of_the_contract() {
    // Contract: docs/contract/dialects.md#1, docs/contract/dialects.md#17
    let both = &["function_tools_only", "no_state"][..];
    let table = [
        ("ollama", true, both, true),
        ("lm-studio", true, &[], false),
        ("vllm", true, both, false),
        ("llamacpp", true, both, false),
        ("sglang", true, both, false),
        ("vllm-mlx", true, both, false),
        ("omlx", true, &["no_state"], false),
        ("openai-compatible", true, &[], false),
        ("litellm", true, &[], false),
        ("lmdeploy", false, &[], false),
        ("lemonade", false, &[], false),
        ("docker-model-runner", false, &[], false),
    ];
    let profiles = Profiles::builtin();
    for (name, responses, limitations, ollama) in table {
        let profile = profiles.get(name).unwrap();
        let support = &profile.responses;
        assert_eq!(support.path, "/v1/responses", "{name}");
        assert_eq!(support.enabled, responses, "{name}");
        assert_eq!(support.limitations, limitations, "{name}");
        assert_eq!(profile.speaks_ollama, ollama, "{name}");
        let excludes = |name: &str| name == "no_structured_output";
        let structured = profile
            .anthropic
            .as_ref()
            .is_some_and(|it| it.limitations.iter().any(|name| excludes(name)));
        assert_eq!(structured, name == "llamacpp", "{name}");
    }
}

#[test]
fn common_operations_go_where_the_profile_says() {
    let profiles = Profiles::builtin();
    for profile in profiles.all() {
        let base = match profile.name.as_str() {
            "docker-model-runner" => "/engines",
            "lemonade" => "/api",
            _ => "",
        };
        for (operation, path) in [
            (CommonOperation::Chat, "/v1/chat/completions"),
            (CommonOperation::Completions, "/v1/completions"),
            (CommonOperation::Embeddings, "/v1/embeddings"),
        ] {
            let found = profile.operation_path(operation);
            assert_eq!(found, format!("{base}{path}"), "{}", profile.name);
            assert_eq!(CommonOperation::of(path.as_bytes()), Some(operation));
        }
    }
    assert_eq!(CommonOperation::of(b"/v1/completions/"), None);
}

#[test]
fn declared_paths_are_those_of_the_contract() {
    // Contract: docs/contract/catalogue.md#1.2; the number of paths, and one that only this type
    // has.
    let table = [
        ("ollama", 10, "/api/show"),
        ("lm-studio", 5, "/api/v0/models"),
        ("openai-compatible", 4, "/v1/embeddings"),
        ("vllm", 15, "/get_tokenizer_info"),
        ("llamacpp", 9, "/infill"),
        ("sglang", 11, "/v1/chat/completions/vision"),
        ("lemonade", 11, "/api/v1/system-info"),
        ("litellm", 12, "/health/readiness"),
        ("lmdeploy", 8, "/is_sleeping"),
        ("vllm-mlx", 5, "/health"),
        ("omlx", 10, "/v1/messages/count_tokens"),
        ("docker-model-runner", 12, "/engines/vllm/v1/embeddings"),
        ("llama-swap", 16, "/running"),
        ("tgi", 10, "/generate_stream"),
        ("localai", 16, "/readyz"),
        ("koboldcpp", 14, "/api/extra/version"),
        ("tabbyapi", 11, "/v1/token/encode"),
        ("mlx-lm", 4, "/health"),
    ];
    let profiles = Profiles::builtin();
    for (name, count, path) in table {
        let paths = &profiles.get(name).unwrap().paths;
        assert_eq!(paths.len(), count, "{name}");
        assert!(paths.iter().any(|listed| listed == path), "{name}");
    }
}

#[test]
fn every_profile_finds_tokens_in_both_dialects() {
    for profile in Profiles::builtin().all() {
        for path in ["usage.prompt_tokens", "usage.input_tokens"] {
            let pair = ("input_tokens".to_owned(), path.to_owned());
            assert!(profile.metrics.paths.contains(&pair), "{}", profile.name);
        }
    }
}

#[test]
fn types_are_names_and_prefixes() {
    let types = Profiles::builtin().type_names();
    let canonical = |written: &str| {
        let found = types.iter().find(|name| name.written == written);
        found.map(|name| name.canonical.as_str())
    };
    let table = [
        ("ollama", Some("ollama")),
        ("lm-studio", Some("lm-studio")),
        ("lmstudio", Some("lm-studio")),
        ("lm_studio", Some("lm-studio")),
        ("openai", Some("openai-compatible")),
        ("openai-compatible", Some("openai-compatible")),
        ("dmr", Some("docker-model-runner")),
        ("docker-model-runner", Some("docker-model-runner")),
        ("Ollama", None),
        ("auto", None),
        ("llama-cpp", None),
    ];
    for (written, expected) in table {
        assert_eq!(canonical(written), expected, "{written}");
    }
}

#[test]
fn a_folder_that_is_missing_is_empty() {
    let (profiles, warnings) = Profiles::load(&[PathBuf::from("no/such/folder")]);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(names(&profiles), names(&Profiles::builtin()));
}

#[test]
fn users_profiles_replace_and_add() {
    let folder = Folder::with(&[
        ("a.toml", "name = 'vllm'\ndescription = 'first'"),
        (
            "deep/er/b.toml",
            "name = 'mine'\nrouting.prefixes = ['mine']",
        ),
        ("z.toml", "name = 'vllm'\ndescription = 'last'"),
        ("ignored.json", "name: x"),
    ]);
    let (profiles, warnings) = folder.load();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(profiles.all().len(), 19);
    let vllm = profiles.get("vllm").unwrap();
    assert_eq!(vllm.description, "last", "the last file of a name wins");
    assert_eq!(
        (vllm.prefixes.len(), vllm.paths.len()),
        (0, 0),
        "replaced entirely"
    );
    assert!(profiles.by_prefix("vllm").is_none());
    assert_eq!(profiles.by_prefix("mine").unwrap().name, "mine");
}

#[test]
fn a_broken_file_is_skipped_with_a_warning() {
    let folder = Folder::with(&[
        ("bad.toml", "name = "),
        ("nameless.toml", "version = '1'"),
        ("good.toml", "name = 'good'"),
    ]);
    let (profiles, warnings) = folder.load();
    assert!(profiles.get("good").is_some());
    let [bad, nameless] = warnings.try_into().unwrap();
    assert!(bad.contains("bad.toml") && bad.contains("skipped"), "{bad}");
    assert!(
        nameless.contains("nameless.toml") && nameless.contains("expected the name"),
        "{nameless}"
    );
}

#[test]
fn of_two_claims_to_a_prefix_the_first_name_wins() {
    let folder = Folder::with(&[
        (
            "1.toml",
            "name = 'zeta'\nrouting.prefixes = ['shared', 'zeta']",
        ),
        ("2.toml", "name = 'alpha'\nrouting.prefixes = ['shared']"),
    ]);
    let (profiles, warnings) = folder.load();
    assert_eq!(profiles.by_prefix("shared").unwrap().name, "alpha");
    assert_eq!(profiles.get("zeta").unwrap().prefixes, ["zeta"]);
    let [warning] = warnings.try_into().unwrap();
    for word in ["alpha", "zeta", "shared"] {
        assert!(warning.contains(word), "{warning}");
    }
    let filter = NameFilter {
        include: Vec::new(),
        exclude: vec!["alpha".to_owned()],
    };
    let profiles = profiles.filtered(&filter);
    assert_eq!(
        profiles.by_prefix("shared").unwrap().name,
        "zeta",
        "it falls to the next"
    );
}

#[test]
fn an_excluded_profile_does_not_exist() {
    let filter = |include: &[&str], exclude: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
        NameFilter {
            include: owned(include),
            exclude: owned(exclude),
        }
    };
    let all = Profiles::builtin();
    let vllm = all.filtered(&filter(&["*vllm*"], &["vllm-mlx"]));
    assert_eq!(names(&vllm), ["vllm"]);
    assert!(vllm.by_prefix("ollama").is_none() && vllm.get("ollama").is_none());
    assert!(
        vllm.type_names()
            .iter()
            .all(|name| name.canonical == "vllm")
    );
    assert_eq!(
        vllm.fallback().name,
        OPENAI_COMPATIBLE,
        "for endpoints of type auto"
    );
    assert!(vllm.fallback().prefixes.is_empty());
    assert_eq!(all.filtered(&NameFilter::default()).all().len(), 18);
    assert_eq!(all.fallback().prefixes.len(), 2);
}
