//! Contract: docs/contract/catalogue.md#5.1 to docs/contract/catalogue.md#5.3,
//! docs/contract/catalogue.md#5.6 to docs/contract/catalogue.md#5.8

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn endpoints(item: &Value) -> Vec<&str> {
    let availability = item["olla"]["availability"].as_array().unwrap();
    availability
        .iter()
        .map(|at| at["endpoint"].as_str().unwrap())
        .collect()
}

#[test]
fn one_digest_is_one_entry_whatever_the_names() {
    let catalogue = build(&[
        up(
            "a",
            "ollama",
            &tags(&[("llama3:latest", "d1"), ("llama3:8b", "d1")]),
        ),
        up("b", "ollama", &tags(&[("mine", "d1")])),
    ]);
    assert_eq!(ids(&catalogue, ""), ["llama3:latest"]);
    let item = unified(&catalogue, "llama3:latest");
    assert_eq!(
        item["olla"]["aliases"],
        serde_json::json!(["llama3:latest", "llama3:8b", "mine"])
    );
    assert_eq!(endpoints(&item), ["a", "b"]);
    assert_eq!(
        ids(&catalogue, "format=openai"),
        ["llama3:latest", "llama3:8b", "mine"],
        "one item for each name"
    );
    for name in ["llama3:8b", "MINE", "llama3:latest"] {
        assert_eq!(model(&catalogue, name)["id"], "llama3:latest", "{name}");
    }
}

#[test]
fn equal_names_are_one_entry_whatever_the_provider_and_the_case() {
    let catalogue = build(&[
        up("v", "vllm", &data(&["Shared", "only-v"])),
        up("o", "ollama", &tags(&[("shared", "d1"), ("only-o", "")])),
        up("p", "ollama", &tags(&[("SHARED", "d1")])),
    ]);
    assert_eq!(ids(&catalogue, ""), ["Shared", "only-v", "only-o"]);
    let item = unified(&catalogue, "Shared");
    assert_eq!(
        item["olla"]["aliases"],
        serde_json::json!(["Shared", "shared", "SHARED"])
    );
    assert_eq!(endpoints(&item), ["v", "o", "p"]);
    assert_eq!(
        ids(&catalogue, "format=openai"),
        ["Shared", "only-v", "only-o"],
        "names are distinct whatever their case"
    );
    assert_eq!(ids(&catalogue, "format=ollama"), ["shared", "only-o"]);
    assert_eq!(
        ids(&catalogue, "format=vllm"),
        ["Shared", "only-v", "only-o"]
    );
}

#[test]
fn one_name_with_two_digests_is_two_entries() {
    let catalogue = build(&[
        up("a", "ollama", &tags(&[("m", "sha256:aaaaaaaa11111111")])),
        up("b", "ollama", &tags(&[("m", "sha256:aaaaaaaa22222222")])),
        up("c", "ollama", &tags(&[("M", "short")])),
        up("d", "vllm", &data(&["m"])),
    ]);
    assert_eq!(ids(&catalogue, ""), ["m", "m-22222222", "M-short"]);
    assert_eq!(
        endpoints(&unified(&catalogue, "m")),
        ["a", "d"],
        "without a digest: the first"
    );
    let split = unified(&catalogue, "m-22222222");
    assert_eq!(split["olla"]["aliases"], serde_json::json!(["m"]));
    assert_eq!(ids(&catalogue, "format=openai"), ["m"], "each name once");
    assert_eq!(ids(&catalogue, "format=ollama"), ["m"]);
    assert_eq!(
        model(&catalogue, "m")["endpoints"],
        serde_json::json!(["a", "d"])
    );
    assert_eq!(
        model(&catalogue, "M-22222222")["endpoints"],
        serde_json::json!(["b"])
    );
}

#[test]
fn ids_stay_distinct_against_all_odds() {
    let catalogue = build(&[
        up("a", "ollama", &tags(&[("m", "1"), ("m-12345678", "2")])),
        up(
            "b",
            "ollama",
            &tags(&[("m", "x12345678"), ("m-x12345678", "3")]),
        ),
        up(
            "c",
            "ollama",
            &tags(&[("m", "y12345678"), ("m", "é2345678")]),
        ),
    ]);
    let ids = ids(&catalogue, "");
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 6, "{ids:?}");
    for id in &ids {
        assert_eq!(model(&catalogue, id)["id"], **id);
    }
}

#[test]
fn a_digest_joins_an_entry_that_had_none() {
    let catalogue = build(&[
        up("v", "vllm", &data(&["m"])),
        up("a", "ollama", &tags(&[("m", "d1")])),
        up("b", "ollama", &tags(&[("n", "d1"), ("m", "d2")])),
    ]);
    assert_eq!(ids(&catalogue, ""), ["m", "m-d2"]);
    assert_eq!(endpoints(&unified(&catalogue, "m")), ["v", "a", "b"]);
}

#[test]
fn the_order_is_that_of_the_endpoints_and_of_their_listings() {
    let first = up("a", "vllm", &data(&["z", "y"]));
    let second = up("b", "vllm", &data(&["x", "y", "w"]));
    let one = build(&[first, second]);
    assert_eq!(ids(&one, ""), ["z", "y", "x", "w"]);
    let catalogue = build(&[
        up("b", "vllm", &data(&["x", "y", "w"])),
        up("a", "vllm", &data(&["z", "y"])),
    ]);
    assert_eq!(ids(&catalogue, ""), ["x", "y", "w", "z"]);
}

#[test]
fn the_first_that_reports_a_fact_wins() {
    let ollama = |family: &str, size: &str, quant: &str| {
        serde_json::json!({"models": [{"name": "llama3.1:8b", "size": 100, "details": {
            "family": family, "parameter_size": size, "quantization_level": quant}}]})
        .to_string()
    };
    let vllm = r#"{"data":[{"id":"llama3.1:8b","max_model_len":8192}]}"#;
    let other = r#"{"data":[{"id":"llama3.1:8b","max_model_len":131072}]}"#;
    let catalogue = build(&[
        up("v", "vllm", vllm),
        up("a", "ollama", &ollama("", "8.0B", "")),
        up("b", "ollama", &ollama("first", "9B", "Q4_K_M")),
        up("c", "ollama", &ollama("second", "10B", "Q8_0")),
        up("w", "vllm", other),
    ]);
    let detail = model(&catalogue, "llama3.1:8b");
    assert_eq!(detail["family"], "first", "reported goes before derived");
    assert_eq!(detail["variant"], "");
    assert_eq!(detail["parameter_size"], "8b");
    assert_eq!(detail["parameter_count"], 8_000_000_000_u64);
    assert_eq!(detail["quantization"], "q4km");
    assert_eq!(
        detail["max_context_length"], 131_072,
        "the largest served one"
    );
    assert_eq!(
        detail["total_disk_size"], "300 B",
        "the sum over the endpoints"
    );
    assert_eq!(
        detail["capabilities"],
        serde_json::json!(["chat", "completion", "long-context", "text-generation"]),
        "united, sorted"
    );
}

#[test]
fn two_names_on_one_endpoint_take_the_disk_once() {
    let catalogue = build(&[
        up("a", "ollama", &tags(&[("x", "d"), ("y", "d")])),
        up("b", "ollama", &tags(&[("x", "d")])),
    ]);
    assert_eq!(model(&catalogue, "x")["total_disk_size"], "10 B");
    assert_eq!(
        model(&catalogue, "x")["endpoints"],
        serde_json::json!(["a", "b"])
    );
}

#[test]
fn a_parameter_count_is_exact_or_zero() {
    let cpp = r#"{"data":[{"id":"m","meta":{"n_params":268098176,"size":5}}]}"#;
    let catalogue = build(&[
        up("c", "llamacpp", cpp),
        up("o", "ollama", &tags(&[("n", "")])),
    ]);
    assert_eq!(model(&catalogue, "m")["parameter_count"], 268_098_176);
    assert_eq!(model(&catalogue, "m")["format"], "gguf");
    assert_eq!(
        model(&catalogue, "n")["parameter_count"],
        0,
        "not the size on disk"
    );
}

#[test]
fn without_the_unifier_nothing_is_merged() {
    let backends = [
        up("a", "ollama", &tags(&[("x", "d"), ("y", "d")])),
        up("b", "ollama", &tags(&[("x", "d")])),
    ];
    let catalogue = Setup {
        enable_unifier: false,
        ..Setup::of(&backends)
    }
    .build();
    assert_eq!(ids(&catalogue, ""), ["x", "y", "x"]);
    assert!(
        items(&catalogue, "")
            .iter()
            .all(|item| endpoints(item).len() == 1)
    );
    assert_eq!(ids(&catalogue, "format=openai"), ["x", "y"]);
    assert_eq!(ids(&catalogue, "format=ollama"), ["x", "y"]);
    assert_eq!(
        model(&catalogue, "x")["endpoints"],
        serde_json::json!(["a"])
    );
}

/// A type, the listing of its backend, and the type of the model in it.
const TYPES: [(&str, &str, &str); 16] = [
    (
        "lm-studio",
        r#"{"data":[{"id":"x-embed","type":"vlm","object":"model"}]}"#,
        "vlm",
    ),
    (
        "lm-studio",
        r#"{"data":[{"id":"x-embed","type":"odd"}]}"#,
        "llm",
    ),
    (
        "ollama",
        r#"{"models":[{"name":"nomic-embed-text:latest"}]}"#,
        "embeddings",
    ),
    (
        "ollama",
        r#"{"models":[{"name":"mxbai-embed-large"}]}"#,
        "embeddings",
    ),
    ("ollama", r#"{"models":[{"name":"llava:7b"}]}"#, "vlm"),
    (
        "ollama",
        r#"{"models":[{"name":"llama3.2-vision"}]}"#,
        "vlm",
    ),
    ("ollama", r#"{"models":[{"name":"llama3"}]}"#, "llm"),
    (
        "vllm",
        r#"{"data":[{"id":"nomic-ai/nomic-embed-text-v1"}]}"#,
        "embeddings",
    ),
    ("vllm", r#"{"data":[{"id":"x-embed"}]}"#, "llm"),
    (
        "openai-compatible",
        r#"{"data":[{"id":"text-embedding-3-small"}]}"#,
        "embeddings",
    ),
    (
        "openai-compatible",
        r#"{"data":[{"id":"gpt-4-turbo-2024"}]}"#,
        "vlm",
    ),
    ("litellm", r#"{"data":[{"id":"voyage-3"}]}"#, "embeddings"),
    (
        "llamacpp",
        r#"{"data":[{"id":"MiniCPM-V-2_6.gguf"}]}"#,
        "vlm",
    ),
    (
        "lemonade",
        r#"{"data":[{"id":"Llama-4-Scout-17B"}]}"#,
        "vlm",
    ),
    ("lmdeploy", r#"{"data":[{"id":"InternVL3-8B"}]}"#, "vlm"),
    ("sglang", r#"{"data":[{"id":"x-multimodal"}]}"#, "vlm"),
];

#[test]
fn the_type_is_reported_or_told_by_the_name() {
    for (kind, body, expected) in TYPES {
        let catalogue = build(&[up("x", kind, body)]);
        let [entry] = catalogue.entries() else {
            panic!("{body}");
        };
        assert_eq!(entry.kind.as_str(), expected, "{kind} {body}");
        let words: Vec<_> = catalogue.merged.rules.words(entry.capabilities).collect();
        assert_eq!(
            words.contains(&"text-generation"),
            expected != "embeddings",
            "{body}"
        );
        assert_eq!(
            !catalogue.vision().is_empty(),
            words.contains(&"vision"),
            "{body}"
        );
    }
}

#[test]
fn vision_names_the_endpoints() {
    let catalogue = build(&[
        up("a", "ollama", &tags(&[("llama3", "")])),
        down("b", "ollama", &tags(&[("llava", ""), ("llama3", "")])),
        up("c", "vllm", &data(&["llava"])),
    ]);
    assert_eq!(catalogue.vision().iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(catalogue.routable().iter().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn states_are_the_backends_own_words() {
    let studio = r#"{"data":[{"id":"hot","state":"loaded"},{"id":"cold","state":"not-loaded"},
        {"id":"odd","state":"warming up"},{"id":"silent"}]}"#;
    let lemonade = r#"{"data":[{"id":"here","downloaded":true},{"id":"away","downloaded":false}]}"#;
    let catalogue = build(&[
        up("s", "lm-studio", studio),
        up("l", "lemonade", lemonade),
        up(
            "o",
            "ollama",
            r#"{"models":[{"name":"sized","size":1},{"name":"bare"}]}"#,
        ),
        up("v", "vllm", &data(&["v"])),
        down("d", "ollama", &tags(&[("gone", ""), ("sized", "")])),
    ]);
    let table = [
        ("hot", "loaded"),
        ("cold", "not-loaded"),
        ("odd", "warming up"),
        ("silent", "unknown"),
        ("here", "available"),
        ("away", "unknown"),
        ("sized", "available"),
        ("bare", "unknown"),
        ("v", "unknown"),
        ("gone", "offline"),
    ];
    for (id, state) in table {
        let item = unified(&catalogue, id);
        assert_eq!(item["olla"]["availability"][0]["state"], state, "{id}");
    }
    let both = &unified(&catalogue, "sized")["olla"]["availability"];
    assert_eq!(
        *both,
        serde_json::json!([
            {"endpoint": "o", "state": "available"},
            {"endpoint": "d", "state": "offline"}
        ])
    );
}

#[test]
fn what_is_no_longer_listed_is_gone() {
    let before = build(&[up("a", "ollama", &tags(&[("x", ""), ("y", "")]))]);
    let backends = [up("a", "ollama", &tags(&[("y", ""), ("z", "")]))];
    let after = Setup {
        previous: Some(&before),
        now: NOW + 60,
        ..Setup::of(&backends)
    }
    .build();
    assert_eq!(ids(&after, ""), ["y", "z"]);
    assert_eq!(after.model("x", &times(NOW)).unwrap_err().status, 404);
    let created = |id: &str| unified(&after, id)["created"].clone();
    assert_eq!(created("y"), NOW, "first seen before");
    assert_eq!(created("z"), NOW + 60, "first seen now");
}

proptest! {
    /// Whatever is listed where: nothing is lost, nothing is there twice, and every name resolves.
    #[test]
    fn merging_keeps_everything_once(
        listings in vec(vec((0..6_usize, 0..4_usize), 0..8), 0..5),
        routable in vec(any::<bool>(), 5),
        enable_unifier in any::<bool>(),
    ) {
        const NAMES: [&str; 6] = ["a", "A", "b", "a-d1", "c/d", "B"];
        const DIGESTS: [&str; 4] = ["", "d1", "d2", "sha256:0123456789"];
        const ENDPOINTS: [&str; 5] = ["e0", "e1", "e2", "e3", "e4"];
        let backends: Vec<_> = listings.iter().zip(ENDPOINTS).zip(routable).map(
            |((models, name), routable)| {
                let models: Vec<_> =
                    models.iter().map(|(name, digest)| (NAMES[*name], DIGESTS[*digest])).collect();
                Backend { routable, ..up(name, "ollama", &tags(&models)) }
            },
        ).collect();
        let catalogue = Setup { enable_unifier, ..Setup::of(&backends) }.build();
        let placed: usize = catalogue.entries().iter().map(|entry| entry.places.len()).sum();
        prop_assert_eq!(placed, listings.iter().map(Vec::len).sum::<usize>());
        let everything = ids(&catalogue, "include_unavailable=true");
        let distinct: BTreeSet<_> = everything.iter().collect();
        if enable_unifier {
            prop_assert_eq!(distinct.len(), everything.len());
        }
        let served = ids(&catalogue, "format=ollama");
        let lower: BTreeSet<_> = served.iter().map(|name| name.to_lowercase()).collect();
        prop_assert_eq!(lower.len(), served.len(), "each name once");
        for backend in &backends {
            for listed in &*backend.models {
                prop_assert!(catalogue.model(&listed.name.replace('%', "%25"), &times(NOW)).is_ok());
                let is_served = lower.contains(&listed.name.to_lowercase());
                prop_assert!(is_served || !backend.routable);
            }
        }
    }
}
