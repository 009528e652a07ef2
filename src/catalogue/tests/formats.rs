//! Contract: docs/contract/catalogue.md#6.1, docs/contract/catalogue.md#6.3,
//! docs/contract/catalogue.md#5.10

use serde_json::json;

use super::*;

fn only(catalogue: &Catalogue, query: &str) -> Value {
    let [item] = items(catalogue, query).try_into().unwrap();
    item
}

fn llama() -> Backend {
    let body = r#"{"models":[{"name":"llama3.2:3b","modified_at":"2024-06-01T10:00:00Z",
        "size":2019393189,"digest":"a80c","details":{"parent_model":"","format":"gguf",
        "family":"llama","families":["llama"],"parameter_size":"3.2B",
        "quantization_level":"Q4_K_M"}}]}"#;
    up("oll", "ollama", body)
}

#[test]
fn unified() {
    let expected = json!({
        "id": "llama3.2:3b",
        "object": "model",
        "created": 1_717_236_000,
        "owned_by": "olla",
        "olla": {
            "family": "llama",
            "variant": "",
            "parameter_size": "3.2b",
            "quantization": "q4km",
            "aliases": ["llama3.2:3b"],
            "availability": [{"endpoint": "oll", "state": "available"}],
            "capabilities": ["chat", "completion", "text-generation"],
        },
    });
    let catalogue = build(&[llama()]);
    for query in ["", "format=", "format=unified", "x=y"] {
        assert_eq!(only(&catalogue, query), expected, "{query}");
    }
    let body = r#"{"data":[{"id":"v","max_model_len":8192}]}"#;
    let item = only(&build(&[up("v", "vllm", body)]), "");
    assert_eq!(item["olla"]["max_context_length"], 8192);
    assert_eq!(item["created"], NOW, "when it was first seen");
}

#[test]
fn openai() {
    let expected = json!({
        "id": "llama3.2:3b", "object": "model", "created": 1_717_236_000, "owned_by": "olla"
    });
    assert_eq!(only(&build(&[llama()]), "format=openai"), expected);
}

#[test]
fn ollama() {
    let vllm = up("v", "vllm", &data(&["other", "LLAMA3.2:3B"]));
    let expected = json!({
        "name": "llama3.2:3b",
        "model": "llama3.2:3b",
        "modified_at": "2024-06-01T10:00:00Z",
        "size": 2_019_393_189_u64,
        "digest": "a80c",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "3.2b",
            "quantization_level": "Q4_K_M",
        },
        "capabilities": ["completion", "tools"],
    });
    let catalogue = build(&[vllm, llama()]);
    assert_eq!(
        only(&catalogue, "format=ollama"),
        expected,
        "whoever answered first"
    );
    let body = r#"{"models":[{"name":"x","details":{"parent_model":"y",
        "quantization_level":"IQ4_XS","parameter_size":"8x7B"}}]}"#;
    let expected = json!({
        "name": "x",
        "model": "x",
        "modified_at": "2023-11-14T22:13:20Z",
        "size": 0,
        "digest": "",
        "details": {
            "parent_model": "y",
            "format": "",
            "family": "",
            "families": [],
            "parameter_size": "8x7B",
            "quantization_level": "IQ4_XS",
        },
        "capabilities": ["completion", "tools"],
    });
    assert_eq!(
        only(&build(&[up("o", "ollama", body)]), "format=ollama"),
        expected
    );
}

#[test]
fn lm_studio() {
    let body = r#"{"data":[
        {"id":"meta-llama-3.1-8b-instruct","object":"model","type":"llm",
         "publisher":"lmstudio-community","arch":"llama","compatibility_type":"gguf",
         "quantization":"Q4_K_M","state":"loaded","max_context_length":131072,
         "loaded_context_length":8192,"capabilities":["tool_use"]},
        {"id":"zz-bare","object":"model"},
        {"id":"phi-mini","object":"model","type":"vlm","compatibility_type":"mlx"},
        {"id":"acme/phi-mini","type":"embeddings","compatibility_type":"onnx"}]}"#;
    let catalogue = build(&[up("s", "lm-studio", body), llama()]);
    assert_eq!(
        items(&catalogue, "format=lmstudio"),
        [
            json!({
                "id": "meta-llama-3.1-8b-instruct", "object": "model", "type": "llm",
                "publisher": "lmstudio-community", "arch": "llama", "compatibility_type": "gguf",
                "quantization": "Q4_K_M", "state": "loaded", "max_context_length": 131_072,
                "capabilities": ["tool_use"]
            }),
            json!({
                "id": "zz-bare", "object": "model", "type": "llm", "compatibility_type": "gguf",
                "state": "not-loaded", "capabilities": []
            }),
            json!({
                "id": "phi-mini", "object": "model", "type": "vlm", "publisher": "microsoft",
                "arch": "phi", "compatibility_type": "mlx", "state": "not-loaded",
                "capabilities": []
            }),
            json!({
                "id": "acme/phi-mini", "object": "model", "type": "embeddings",
                "publisher": "acme", "arch": "phi", "compatibility_type": "gguf",
                "state": "not-loaded", "capabilities": []
            }),
        ]
    );
}

#[test]
fn lm_studio_version_1() {
    // Contract: docs/contract/dialects.md#17
    let body = r#"{"data":[
        {"id":"llama","type":"llm","publisher":"acme","arch":"llama","compatibility_type":"gguf",
         "quantization":"Q4_K_M","state":"loaded","max_context_length":131072,
         "loaded_context_length":8192,"capabilities":["tool_use"]},
        {"id":"phi-mini","type":"vlm","compatibility_type":"mlx","state":"not-loaded"},
        {"id":"nomic","type":"embeddings","max_context_length":2048}]}"#;
    let catalogue = Setup {
        aliases: &[alias("big", &["llama"])],
        ..Setup::of(&[up("s", "lm-studio", body), llama()])
    }
    .build();
    let profiles = Profiles::builtin();
    let scoped = |form| Scoped {
        profile: profiles.get("lm-studio").cloned(),
        form,
    };
    let both = json(&catalogue.scoped(&scoped(ListingForm::LmStudioV1)));
    let plain = json(&catalogue.scoped(&scoped(ListingForm::OpenAi)));
    assert_eq!(both["data"], plain["data"], "OpenAI's list as before");
    let item = |key: &str| {
        json!({
            "type": "llm", "publisher": "acme", "key": key, "display_name": key,
            "architecture": "llama",
            "quantization": {"name": "Q4_K_M", "bits_per_weight": null},
            "size_bytes": 0, "params_string": null,
            "loaded_instances": [{"id": key, "config": {"context_length": 8192}}],
            "max_context_length": 131_072, "format": "gguf",
            "capabilities": {"vision": false, "trained_for_tool_use": true}, "description": null
        })
    };
    assert_eq!(
        both["models"],
        json!([
            item("llama"),
            {
                "type": "llm", "publisher": "microsoft", "key": "phi-mini",
                "display_name": "phi-mini", "architecture": "phi", "quantization": null,
                "size_bytes": 0, "params_string": null, "loaded_instances": [],
                "max_context_length": 0, "format": "mlx",
                "capabilities": {"vision": true, "trained_for_tool_use": false},
                "description": null
            },
            {
                "type": "embedding", "publisher": "", "key": "nomic", "display_name": "nomic",
                "quantization": null, "size_bytes": 0,
                "params_string": null, "loaded_instances": [], "max_context_length": 2048,
                "format": "gguf", "description": null
            },
            item("big"),
        ])
    );
    let one = json(
        &catalogue
            .scoped_model(&scoped(ListingForm::LmStudioV1), "llama")
            .unwrap(),
    );
    assert_eq!(one["object"], "model");
}

#[test]
fn vllm() {
    let body = r#"{"data":[{"id":"meta-llama/Llama-3.1-8B","created":1700000001,
        "owned_by":"vllm","max_model_len":131072}]}"#;
    let permission = |id: &str, created: u64| {
        json!([{
            "id": id, "object": "model_permission", "created": created,
            "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
            "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false,
            "organization": "*", "group": null, "is_blocking": false
        }])
    };
    let catalogue = build(&[
        up("v", "vllm", body),
        up("o", "ollama", r#"{"models":[{"name":"plain"}]}"#),
    ]);
    assert_eq!(
        items(&catalogue, "format=vllm"),
        [
            json!({
                "id": "meta-llama/Llama-3.1-8B", "object": "model", "created": 1_700_000_001,
                "owned_by": "meta-llama", "root": "meta-llama/Llama-3.1-8B",
                "max_model_len": 131_072,
                "permission": permission("modelperm-olla-meta-llama-Llama-3.1-8B", 1_700_000_001)
            }),
            json!({
                "id": "plain", "object": "model", "created": NOW, "owned_by": "vllm",
                "root": "plain", "permission": permission("modelperm-olla-plain", NOW)
            }),
        ]
    );
    let lmdeploy = items(&catalogue, "format=lmdeploy");
    assert_eq!(
        lmdeploy[1],
        json!({
            "id": "plain", "object": "model", "created": NOW, "owned_by": "lmdeploy",
            "permission": permission("modelperm-olla-plain", NOW)
        })
    );
}

#[test]
fn sglang() {
    let body = r#"{"data":[
        {"id":"a","owned_by":"sglang","max_model_len":10,"parent":"base","supports_vision":true,
         "radix_cache_size":7,"spec_decoding":"eagle","frontend_enabled":false},
        {"id":"b-vision"}, {"id":"c"}]}"#;
    let studio = r#"{"data":[{"id":"d","publisher":"acme","max_context_length":5}]}"#;
    let catalogue = build(&[up("g", "sglang", body), up("s", "lm-studio", studio)]);
    let item = |id: &str, more: Value| {
        let mut item = json!({
            "id": id, "object": "model", "created": NOW, "owned_by": "sglang", "root": id
        });
        let fields = item.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        item
    };
    assert_eq!(
        items(&catalogue, "format=sglang"),
        [
            item(
                "a",
                json!({
                    "max_model_len": 10, "parent": "base", "supports_vision": true,
                    "radix_cache_size": 7, "spec_decoding": "eagle", "frontend_enabled": false
                })
            ),
            item("b-vision", json!({"supports_vision": true})),
            item("c", json!({})),
            item("d", json!({"max_model_len": 5})),
        ]
    );
}

#[test]
fn lemonade() {
    let body = r#"{"data":[{"id":"q","created":5,"checkpoint":"unsloth/q","recipe":"flm",
        "downloaded":true}]}"#;
    let catalogue = build(&[
        up("l", "lemonade", body),
        up("v", "vllm", &data(&["other"])),
    ]);
    assert_eq!(
        items(&catalogue, "format=lemonade"),
        [
            json!({
                "id": "q", "object": "model", "created": 5, "owned_by": "lemonade",
                "checkpoint": "unsloth/q", "recipe": "flm", "downloaded": true
            }),
            json!({
                "id": "other", "object": "model", "created": NOW, "owned_by": "lemonade",
                "checkpoint": "", "recipe": "", "downloaded": false
            }),
        ]
    );
}

#[test]
fn owners() {
    let ids = [
        // id, owner; none = the default
        ("meta-llama/X", "meta-llama"),
        ("a/b/c", "a"),
        ("/models/x.gguf", ""),
        ("meta-llama-3", "meta"),
        ("Qwen2.5-7B", "Qwen2.5"),
        ("mistral-7b", "mistral"),
        ("01ai-yi", "01ai"),
        ("llava:7b", ""),
        ("gemma-3", ""),
        ("xx-openai", ""),
        ("supercalifragilisticmeta-1", ""),
        ("qwen", ""),
        ("-x", ""),
        ("", ""),
    ];
    let names: Vec<_> = ids.iter().map(|(id, _)| *id).collect();
    let catalogue = build(&[up("v", "openai-compatible", &data(&names))]);
    let defaults = [
        ("llamacpp", "llamacpp"),
        ("vllm", "vllm"),
        ("vllm-mlx", "vllm-mlx"),
        ("docker-model-runner", "docker"),
    ];
    for (format, default) in defaults {
        let items = items(&catalogue, &format!("format={format}"));
        assert_eq!(items.len(), ids.len() - 1, "the nameless one is none");
        for (item, (id, owner)) in items.iter().zip(ids) {
            let owner = if owner.is_empty() { default } else { owner };
            assert_eq!(
                (&item["id"], &item["owned_by"]),
                (&json!(id), &json!(owner))
            );
            assert_eq!(item["created"], NOW);
        }
    }
    let keys = |item: &Value| item.as_object().unwrap().len();
    for format in ["llamacpp", "vllm-mlx", "docker-model-runner"] {
        let items = items(&catalogue, &format!("format={format}"));
        assert!(items.iter().all(|item| keys(item) == 4), "{format}");
    }
}

/// Two models that are served, one of them also on an endpoint that is down with a third, and
/// aliases of them.
fn with_aliases() -> Catalogue {
    let aliases = [
        alias("big", &["not-here", "second", "first", "asleep"]),
        alias("first", &["second"]),
        alias("sleeping", &["asleep"]),
        alias("void", &["not-here"]),
        alias("claude-*", &["second"]),
    ];
    let first = r#"{"models":[{"name":"first","size":1,"modified_at":"2024-01-01T00:00:00Z"}]}"#;
    let backends = [
        up("a", "ollama", first),
        up(
            "b",
            "vllm",
            r#"{"data":[{"id":"second","max_model_len":9}]}"#,
        ),
        down("c", "ollama", &tags(&[("asleep", ""), ("second", "")])),
    ];
    Setup {
        aliases: &aliases,
        ..Setup::of(&backends)
    }
    .build()
}

#[test]
fn aliases_are_listed_while_a_target_is_served() {
    let catalogue = with_aliases();
    assert_eq!(ids(&catalogue, ""), ["first", "second", "big"]);
    assert_eq!(ids(&catalogue, "format=openai"), ["first", "second", "big"]);
    for (format, listed) in [
        ("ollama", &["first", "big"][..]),
        ("lmstudio", &[]),
        ("vllm", &["first", "second", "big"]),
        ("lemonade", &["first", "second", "big"]),
    ] {
        assert_eq!(ids(&catalogue, &format!("format={format}")), listed);
    }
    assert_eq!(catalogue.served_ids(), ["first", "second", "big"]);
    let items = items(&catalogue, "");
    let big = items.iter().find(|item| item["id"] == "big").unwrap();
    assert_eq!(
        *big,
        json!({
            "id": "big",
            "object": "model",
            "created": NOW,
            "owned_by": "olla",
            "olla": {
                "family": "", "variant": "", "parameter_size": "", "quantization": "",
                "aliases": ["second", "first"],
                "availability": [
                    {"endpoint": "a", "state": "available"},
                    {"endpoint": "b", "state": "unknown"},
                    {"endpoint": "c", "state": "offline"}
                ],
                "capabilities": ["chat", "completion", "text-generation"],
                "max_context_length": 9
            }
        }),
        "of the first available target, with the places of all"
    );
    assert_eq!(
        ids(&catalogue, "include_unavailable=true"),
        ["first", "second", "asleep", "big", "sleeping"]
    );
    assert_eq!(
        ids(&catalogue, "endpoint=a"),
        ["first", "big"],
        "filters hold for targets"
    );
}

/// Routing finds these targets too (docs/contract/balancing.md#4.1).
#[test]
fn a_target_without_a_tag_is_the_one_that_ollama_completes() {
    let aliases = [
        alias("short", &["llama3"]),
        alias("LONG", &["Llama3:Latest"]),
        alias("cl-*", &["LLAMA3"]),
        alias("other", &["phi"]),
        alias("both", &["qwen"]),
    ];
    let llamas = tags(&[("llama3:latest", ""), ("qwen:latest", "")]);
    let others = data(&["phi:latest", "qwen", "llama3:latest"]);
    let backends = [
        up("a", "ollama", &llamas),
        up("b", "vllm", &others),
        down("c", "ollama", &llamas),
    ];
    let catalogue = Setup {
        aliases: &aliases,
        ..Setup::of(&backends)
    }
    .build();
    let listed = ids(&catalogue, "");
    for name in ["short", "LONG", "both"] {
        assert!(listed.iter().any(|id| id == name), "{name} in {listed:?}");
    }
    assert!(
        !listed.iter().any(|id| id == "other"),
        "vLLM completes no name"
    );
    for (name, endpoints) in [
        ("short", json!(["a", "c"])),
        ("cl-x", json!(["a", "c"])),
        ("LONG", json!(["a", "b", "c"])),
        ("both", json!(["b"])),
    ] {
        assert_eq!(model(&catalogue, name)["endpoints"], endpoints, "{name}");
    }
    for (name, shown) in [
        ("short", Some("short")),
        ("cl-x", Some("cl-x")),
        ("other", None),
    ] {
        assert_eq!(catalogue.served_alias(name), shown, "{name}");
    }
    let tagged = ids(&catalogue, "format=ollama");
    assert_eq!(
        tagged,
        ["llama3:latest", "qwen:latest", "short", "LONG", "both"]
    );
}

#[test]
fn an_alias_has_the_item_of_its_target() {
    let catalogue = with_aliases();
    let item = |query: &str, id: &str| {
        let named = |item: &Value| item["id"] == id || item["name"] == id;
        items(&catalogue, query).into_iter().find(named).unwrap()
    };
    for (query, target) in [
        ("format=openai", "second"),
        ("format=vllm", "second"),
        ("format=sglang", "second"),
        ("format=docker-model-runner", "second"),
        ("format=ollama", "first"),
    ] {
        let mut expected = item(query, target);
        for key in ["id", "name", "model"] {
            if let Some(value) = expected.get_mut(key) {
                *value = json!("big");
            }
        }
        assert_eq!(item(query, "big"), expected, "{query}");
    }
    assert_eq!(item("format=ollama", "big")["size"], 1);
    assert_eq!(item("format=vllm", "big")["max_model_len"], 9);
}

#[test]
fn a_name_that_an_alias_covers_is_found_but_not_listed() {
    let catalogue = with_aliases();
    let detail = model(&catalogue, "claude-opus-5");
    assert_eq!(detail["id"], "claude-opus-5");
    assert_eq!(detail["endpoints"], json!(["b", "c"]));
    assert_eq!(model(&catalogue, "claude-opus-5/")["id"], "claude-opus-5");
    assert_eq!(model(&catalogue, "big:latest")["aliases"][0], "second");
    for (name, shown) in [
        ("BIG", Some("big")),
        ("claude-opus-5", Some("claude-opus-5")),
        ("sleeping", None),
        ("asleep", None),
        ("void", None),
    ] {
        assert_eq!(catalogue.served_alias(name), shown, "{name}");
    }
}

#[test]
fn aliases_have_a_page() {
    let catalogue = with_aliases();
    let detail = model(&catalogue, "BIG");
    assert_eq!(detail["id"], "big");
    assert_eq!(detail["aliases"], json!(["second", "first"]));
    assert_eq!(detail["endpoints"], json!(["a", "b", "c"]));
    assert_eq!(
        model(&catalogue, "first")["endpoints"],
        json!(["a"]),
        "a real model goes first"
    );
    assert_eq!(model(&catalogue, "sleeping")["endpoints"], json!(["c"]));
    assert_eq!(
        catalogue.model("void", &times(NOW)).unwrap_err().status,
        404
    );
}
