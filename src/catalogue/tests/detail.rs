//! Contract: docs/contract/catalogue.md#6.4, docs/contract/catalogue.md#6.7;
//! docs/contract/operations.md#4

use serde_json::json;

use super::*;

#[test]
fn every_field_of_a_model() {
    let body = r#"{"models":[{"name":"Llama3:8B","size":4661224676,"digest":"d",
        "details":{"format":"gguf","family":"llama","parameter_size":"8.0B",
        "quantization_level":"Q4_0"}}]}"#;
    let catalogue = build(&[up("oll", "ollama", body)]);
    let expected = json!({
        "id": "Llama3:8B",
        "family": "llama",
        "variant": "",
        "parameter_size": "8b",
        "parameter_count": 8_000_000_000_u64,
        "quantization": "q4",
        "format": "gguf",
        "total_disk_size": "4.34 GB",
        "last_seen": "0s ago",
        "aliases": ["Llama3:8B"],
        "endpoints": ["oll"],
        "loaded_endpoints": [],
        "capabilities": ["chat", "completion", "text-generation"],
    });
    for id in ["Llama3:8B", "llama3:8b", "LLAMA3%3A8b", "llama3:8b/"] {
        assert_eq!(model(&catalogue, id), expected, "{id}");
    }
    let later = catalogue.model("llama3:8b", &times(NOW + 12)).unwrap();
    assert_eq!(json(&later)["last_seen"], "12s ago");
}

#[test]
fn a_model_was_seen_where_it_was_listed_last() {
    let catalogue = build(&[
        up("a", "vllm", &data(&["m"])),
        up("b", "vllm", &data(&["m"])),
        up("other", "vllm", &data(&["n"])),
    ]);
    let synced_at = |endpoint: usize| Some(at(NOW + endpoint as u64));
    let times = DetailTimes {
        now: at(NOW + 10),
        synced_at: &synced_at,
    };
    let seen = |id: &str| json(&catalogue.model(id, &times).unwrap())["last_seen"].clone();
    assert_eq!((seen("m"), seen("n")), (json!("9s ago"), json!("8s ago")));
    let never = DetailTimes {
        synced_at: &|_| None,
        ..times
    };
    let shown = catalogue.model("m", &never).unwrap();
    assert_eq!(json(&shown)["last_seen"], crate::format::ago(None, at(NOW)));
}

#[test]
fn ids_may_hold_slashes_and_escapes() {
    let ids = [
        "meta-llama/Llama-3.1-8B",
        "a/",
        "/models/x.gguf",
        "50%",
        "é",
        "a b",
    ];
    let catalogue = build(&[up("vl", "vllm", &data(&ids))]);
    let table = [
        ("meta-llama/Llama-3.1-8B", Some("meta-llama/Llama-3.1-8B")),
        ("meta-llama%2FLlama-3.1-8B", Some("meta-llama/Llama-3.1-8B")),
        (
            "meta-llama%2fllama-3.1-8b/",
            Some("meta-llama/Llama-3.1-8B"),
        ),
        ("meta-llama%252FLlama-3.1-8B", None),
        ("meta-llama", None),
        ("meta-llama/other", None),
        ("meta-llama/Llama-3.1-8B//", None),
        ("a/", Some("a/")),
        ("a", None),
        ("/models/x.gguf", Some("/models/x.gguf")),
        ("%2Fmodels%2Fx.gguf", Some("/models/x.gguf")),
        ("50%25", Some("50%")),
        ("50%", Some("50%")),
        ("%C3%A9", Some("é")),
        ("%C3%89", Some("é")),
        ("%FF", None),
        ("a%20b", Some("a b")),
        ("a+b", None),
    ];
    for (path, expected) in table {
        let found = catalogue.model(path, &times(NOW)).ok();
        let id = found.map(|body| json(&body)["id"].as_str().unwrap().to_owned());
        assert_eq!(id.as_deref(), expected, "{path}");
    }
}

#[test]
fn a_model_whose_endpoints_are_down_is_shown() {
    let catalogue = build(&[down(
        "off",
        "lm-studio",
        r#"{"data":[{"id":"m","state":"loaded","max_context_length":7}]}"#,
    )]);
    let detail = model(&catalogue, "m");
    assert_eq!(detail["endpoints"], json!(["off"]));
    assert_eq!(detail["loaded_endpoints"], json!([]), "who knows");
    assert_eq!(detail["max_context_length"], 7);
    assert_eq!(detail["total_disk_size"], "0 B");
}

#[test]
fn loaded_endpoints_are_named() {
    let studio = |state: &str| format!(r#"{{"data":[{{"id":"m","state":"{state}"}}]}}"#);
    let catalogue = build(&[
        up("a", "lm-studio", &studio("not-loaded")),
        up("b", "lm-studio", &studio("loaded")),
    ]);
    assert_eq!(model(&catalogue, "m")["loaded_endpoints"], json!(["b"]));
}

#[test]
fn errors() {
    let catalogue = build(&[up("v", "vllm", &data(&["m"]))]);
    for path in ["", "/", "%2F"] {
        let error = catalogue.model(path, &times(NOW)).unwrap_err();
        assert_eq!(
            (error.status, error.code),
            (400, "MODEL_ID_REQUIRED"),
            "{path}"
        );
        assert_eq!(error.kind, "bad_request");
    }
    let error = catalogue.model("no-such-model", &times(NOW)).unwrap_err();
    assert_eq!((error.status, error.kind), (404, "not_found"));
    assert_eq!(error.code, "MODEL_NOT_FOUND");
    assert!(error.message.contains("no-such-model"), "{}", error.message);
    let error = catalogue
        .model(&"x".repeat(100_000), &times(NOW))
        .unwrap_err();
    assert!(error.message.len() < 1000);
}

#[test]
fn the_status_page_has_one_item_for_each_name() {
    let ollama = |name: &str, quant: &str, size: u64| {
        json!({"models": [{"name": name, "size": size, "digest": "d1", "details": {
            "family": "llama", "parameter_size": "8.0B", "quantization_level": quant}}]})
        .to_string()
    };
    let catalogue = build(&[
        up("z-high", "ollama", &ollama("llama3:8b", "BF16", 9)),
        up("a-low", "ollama", &ollama("llama3:8b", "", 7)),
        down("off", "ollama", &ollama("llama3:latest", "Q4_0", 9)),
        up(
            "v",
            "vllm",
            r#"{"data":[{"id":"qwen3","max_model_len":100001},{"id":"odd"}]}"#,
        ),
    ]);
    let models = catalogue.named_models();
    let names: Vec<_> = models.iter().map(|model| model.name).collect();
    assert_eq!(names, ["llama3:8b", "llama3:latest", "odd", "qwen3"]);
    let [llama, latest, odd, qwen] = models.try_into().unwrap();
    assert_eq!(llama.endpoints.iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(llama.size, Some(7), "of the lowest URL");
    assert_eq!(llama.quant, Some("BF16"), "of the lowest URL that has it");
    assert_eq!((llama.family, llama.params), (Some("llama"), Some("8.0B")));
    assert_eq!(llama.aliases, ["llama3:latest"]);
    assert_eq!(
        llama.capabilities,
        ["text_generation", "chat", "high_precision"]
    );
    assert_eq!(latest.endpoints.iter().collect::<Vec<_>>(), [2]);
    assert_eq!(
        (odd.family, odd.size, odd.params, odd.quant),
        (None, None, None, None)
    );
    assert_eq!(qwen.family, Some("qwen"), "told by the name");
    assert_eq!(
        qwen.capabilities,
        ["text_generation", "chat", "long_context"]
    );
}

#[test]
fn the_names_of_one_model_do_not_multiply() {
    let names: Vec<_> = (0..1000).map(|n| format!("m{n:04}")).collect();
    let models: Vec<_> = names.iter().map(|name| (name.as_str(), "sha")).collect();
    let catalogue = build(&[up("o", "ollama", &tags(&models))]);
    assert_eq!(catalogue.entries().len(), 1);
    let named = catalogue.named_models();
    assert_eq!(named.len(), 1000, "every name has its item");
    let shown: usize = named.iter().map(|model| model.aliases.len()).sum();
    assert_eq!(shown, 1000 * 16);
    assert_eq!(named[0].aliases[..2], ["m0001", "m0002"]);
    assert_eq!(named[0].aliases[15], "m0016");
    assert_eq!(named[9].aliases[8..11], ["m0008", "m0010", "m0011"]);
    assert_eq!(named[999].aliases[15], "m0015");
    // The other listings have each name once.
    for format in Format::ALL {
        let query = format!("format={}", format.as_str());
        let bytes = catalogue.models(&query).unwrap().len();
        assert!(bytes < 1000 * 600, "{bytes} bytes of {query}");
    }
}
