//! Models in the forms of Ollama's API.
//!
//! Contract: docs/contract/dialects.md#11

use serde_json::json;

use super::*;

const REPORTED: &str = r#"{"models":[{"name":"llama3:8b","model":"llama3:8b",
    "modified_at":"2026-01-02T03:04:05.123456789+01:00","size":123,"digest":"dd",
    "capabilities":["completion"],
    "details":{"parent_model":"Base","format":"gguf","family":"llama","families":["llama","x"],
    "parameter_size":"8.0B","quantization_level":"Q4_0"}}]}"#;

fn tags(catalogue: &Catalogue) -> Value {
    json(&catalogue.scoped(&WHOLE_FLEET))
}

const WHOLE_FLEET: Scoped = Scoped {
    profile: None,
    form: ListingForm::Ollama,
};

fn described(catalogue: &Catalogue, name: &str) -> Value {
    json(&catalogue.describe(&WHOLE_FLEET, name).unwrap())
}

#[test]
fn a_model_is_shown_as_ollama_reports_it() {
    let later = REPORTED.replace("dd", "ee").replace("123,", "9,");
    let catalogue = build(&[
        up(
            "v",
            "vllm",
            r#"{"data":[{"id":"llama3:8b","max_model_len":4096}]}"#,
        ),
        up("o", "ollama", REPORTED),
        up("p", "ollama", &later),
    ]);
    let expected = json!([{
        "name": "llama3:8b", "model": "llama3:8b",
        "modified_at": "2026-01-02T03:04:05.123456789+01:00",
        "size": 123, "digest": "dd", "capabilities": ["completion"],
        "details": {
            "parent_model": "Base", "format": "gguf", "family": "llama",
            "families": ["llama", "x"], "parameter_size": "8.0B",
            "quantization_level": "Q4_0", "context_length": 4096,
        },
    }]);
    assert_eq!(tags(&catalogue)["models"], expected);
}

#[test]
fn any_model_has_what_clients_need() {
    let catalogue = build(&[
        up(
            "v",
            "vllm",
            r#"{"data":[{"id":"qwen3","max_model_len":32768},{"id":"nomic-embedding"}]}"#,
        ),
        up(
            "s",
            "lm-studio",
            r#"{"data":[{"id":"eye","type":"vlm"},{"id":"phi4-mini-reasoning","type":"llm"}]}"#,
        ),
    ]);
    let digest = "61b6a80524bed7a2b8b0702c24f050fbc3a72a02875a4deddd7cd41a9f29e1d3";
    let listed = tags(&catalogue);
    let qwen = &listed["models"][0];
    assert_eq!(qwen["digest"], digest);
    assert_eq!(qwen["size"], 0);
    assert_eq!(qwen["details"]["context_length"], 32_768);
    assert_eq!(qwen["details"]["families"], json!([]));
    let capabilities = |at: usize| listed["models"][at]["capabilities"].clone();
    assert_eq!(capabilities(0), json!(["completion", "tools"]));
    assert_eq!(capabilities(1), json!(["embedding"]));
    assert_eq!(capabilities(2), json!(["completion", "tools", "vision"]));
    assert_eq!(capabilities(3), json!(["completion", "tools", "thinking"]));
}

#[test]
fn a_model_is_described_without_asking_anyone() {
    let catalogue = build(&[up(
        "v",
        "vllm",
        r#"{"data":[{"id":"qwen3","max_model_len":32768},{"id":"zz"}]}"#,
    )]);
    let qwen = described(&catalogue, "QWEN3");
    assert_eq!(qwen["parameters"], "num_ctx 32768");
    let info = &qwen["model_info"];
    let architecture = info["general.architecture"].as_str().unwrap();
    assert_eq!(info[format!("{architecture}.context_length")], 32_768);
    assert_eq!(info["general.basename"], "qwen3");
    for field in ["license", "modelfile", "template", "system"] {
        assert_eq!(qwen[field], "", "{field}");
    }
    assert_eq!(qwen["details"]["context_length"], 32_768);
    assert!(qwen["modified_at"].is_string());
    let unknown = described(&catalogue, "zz");
    assert_eq!(unknown["parameters"], "");
    assert_eq!(
        unknown["model_info"],
        json!({"general.architecture": "unknown", "general.basename": "zz"})
    );
    let missing = catalogue.describe(&WHOLE_FLEET, "nothing").unwrap_err();
    assert_eq!(missing.status, 404);
}

#[test]
fn loaded_models_are_those_of_servers_that_hold_them() {
    let catalogue = build(&[
        up("o", "ollama", REPORTED),
        up("v", "vllm", r#"{"data":[{"id":"a","max_model_len":9}]}"#),
        up("w", "llamacpp", r#"{"data":[{"id":"a"}]}"#),
        down("x", "sglang", r#"{"data":[{"id":"b"}]}"#),
        up(
            "s",
            "lm-studio",
            r#"{"data":[{"id":"c","state":"loaded"},{"id":"d","state":"not-loaded"}]}"#,
        ),
        up("l", "litellm", r#"{"data":[{"id":"a"},{"id":"e"}]}"#),
    ]);
    let mut found = Vec::new();
    catalogue.each_loaded(|name, endpoints, item| {
        let item: Value = serde_json::from_slice(item).unwrap();
        assert_eq!(item["name"], name);
        assert_eq!(item["size_vram"], item["size"]);
        assert!(item["expires_at"].as_str().unwrap().starts_with("9999-"));
        found.push((
            name.to_owned(),
            endpoints.join(" "),
            item["context_length"].clone(),
        ));
    });
    let row = |name: &str, on: &str, context: u64| (name.to_owned(), on.to_owned(), json!(context));
    assert_eq!(found, [row("a", "v w", 9), row("c", "s", 0)]);
}
