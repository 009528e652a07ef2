//! Contract: docs/contract/catalogue.md#6.5

use super::*;
use crate::routing::route::{RouteKind, RouteTable};
use crate::routing::testing::translators;

fn fleet() -> Vec<Backend> {
    vec![
        up(
            "oll",
            "ollama",
            &tags(&[("o1", "d"), ("o2", "d"), ("Shared", "")]),
        ),
        up(
            "lms",
            "lm-studio",
            r#"{"data":[{"id":"l1","state":"loaded"}]}"#,
        ),
        up("vl", "vllm", &data(&["shared", "v1"])),
        down("vl2", "vllm", &data(&["v2", "o1"])),
        up("oa", "openai-compatible", &data(&["c1"])),
        up(
            "lem",
            "lemonade",
            r#"{"data":[{"id":"lem1","downloaded":true}]}"#,
        ),
        up("dmr", "docker-model-runner", &data(&["ai/d1"])),
    ]
}

/// Every name that is up.
const ALL: [&str; 8] = ["o1", "o2", "Shared", "l1", "v1", "c1", "lem1", "ai/d1"];

/// The listing that the route at `/olla/<prefix><rest>` has; `None` = the path has no listing.
fn scoped_at(profiles: &Profiles, prefix: &str, rest: &str) -> Option<Scoped> {
    let table = RouteTable::new(profiles.all(), &translators(true), true);
    match table.find(format!("/olla/{prefix}{rest}").as_bytes()).kind {
        RouteKind::Listing(id, form) => Some(table.prefix(id).scoped(form)),
        _ => None,
    }
}

/// The ids at `/olla/<prefix><rest>`; `None` = the path has no listing.
fn listed(
    catalogue: &Catalogue,
    profiles: &Profiles,
    prefix: &str,
    rest: &str,
) -> Option<Vec<String>> {
    let body = json(&catalogue.scoped(&scoped_at(profiles, prefix, rest)?));
    let list = body.get("data").or_else(|| body.get("models")).unwrap();
    let list = list.as_array().unwrap().iter();
    let id = |item: &Value| item.get("id").or_else(|| item.get("name")).cloned();
    Some(
        list.map(|item| id(item).unwrap().as_str().unwrap().to_owned())
            .collect(),
    )
}

#[test]
fn each_prefix_lists_its_own_models() {
    let catalogue = build(&fleet());
    let profiles = Profiles::builtin();
    let compatible = ["o1", "o2", "Shared", "l1", "v1", "c1", "lem1", "ai/d1"];
    let table: [(&str, &str, Option<&[&str]>); 29] = [
        ("ollama", "/api/tags", Some(&["o1", "o2", "Shared"])),
        ("ollama", "/v1/models", Some(&["o1", "o2", "Shared"])),
        ("lmstudio", "/v1/models", Some(&["l1"])),
        ("lm-studio", "/api/v1/models", Some(&["l1"])),
        ("lm_studio", "/api/v0/models", Some(&["l1"])),
        ("vllm", "/v1/models", Some(&["shared", "v1"])),
        ("openai", "/v1/models", Some(&compatible)),
        ("openai-compatible", "/v1/models", Some(&compatible)),
        ("proxy", "/v1/models", Some(&compatible)),
        ("lemonade", "/v1/models", Some(&["lem1"])),
        ("lemonade", "/api/v1/models", Some(&["lem1"])),
        ("dmr", "/engines/v1/models", Some(&["ai/d1"])),
        ("dmr", "/v1/models", Some(&["ai/d1"])),
        ("sglang", "/v1/models", Some(&[])),
        ("omlx", "/v1/models", Some(&[])),
        ("litellm", "/v1/models", Some(&[])),
        ("vllm", "/api/v1/models", None),
        ("ollama", "/api/v0/models", None),
        ("ollama", "/v1/models/", Some(&["o1", "o2", "Shared"])),
        ("vllm", "/models", Some(&["shared", "v1"])),
        ("ollama", "/v1/models/o1", None),
        ("ollama", "/api/tags/", Some(&["o1", "o2", "Shared"])),
        ("ollama", "/api/ps", None),
        ("proxy", "/api/tags", Some(&ALL)),
        ("openai", "/api/tags", Some(&ALL)),
        ("vllm", "/api/tags", Some(&["shared", "v1"])),
        ("docker-model-runner", "/v1/models", None),
        ("unknown", "/v1/models", None),
        ("anthropic", "/v1/models", None),
    ];
    for (prefix, rest, expected) in table {
        let found = listed(&catalogue, &profiles, prefix, rest);
        let expected = expected.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        assert_eq!(found, expected, "{prefix} {rest}");
    }
}

#[test]
fn each_listing_has_the_format_of_its_path() {
    let catalogue = build(&fleet());
    let profiles = Profiles::builtin();
    let first = |prefix: &str, rest: &str| {
        let body = json(&catalogue.scoped(&scoped_at(&profiles, prefix, rest).unwrap()));
        let list = body.get("data").or_else(|| body.get("models")).cloned();
        list.unwrap()[0].clone()
    };
    assert_eq!(first("ollama", "/api/tags")["digest"], "d");
    assert_eq!(first("lmstudio", "/api/v0/models")["state"], "loaded");
    assert_eq!(first("lemonade", "/api/v1/models")["downloaded"], true);
    assert_eq!(first("dmr", "/engines/v1/models")["owned_by"], "ai");
    let openai = [
        ("ollama", "/v1/models"),
        ("vllm", "/v1/models"),
        ("lmstudio", "/api/v1/models"),
    ];
    for (prefix, rest) in openai {
        let item = first(prefix, rest);
        assert_eq!(item.as_object().unwrap().len(), 4, "{prefix}");
        assert_eq!(item["owned_by"], "olla", "{prefix}");
    }
}

#[test]
fn one_model_is_that_of_the_listing() {
    let aliases = [
        alias("big", &["o1", "v1"]),
        alias("Down", &["v2"]),
        alias("claude-*", &["v1"]),
        alias("v*", &["o1"]),
    ];
    let backends = fleet();
    let catalogue = Setup {
        aliases: &aliases,
        ..Setup::of(&backends)
    }
    .build();
    let profiles = Profiles::builtin();
    let one = |prefix: &str, rest: &str, id: &str| {
        let scoped = scoped_at(&profiles, prefix, rest).unwrap();
        match catalogue.scoped_model(&scoped, id) {
            Ok(body) => json(&body)["id"].as_str().unwrap().to_owned(),
            Err(error) => format!("{} {}", error.status, error.code),
        }
    };
    let rows = [
        ("openai", "shared", "Shared"),
        ("vllm", "SHARED", "shared"),
        ("vllm", "v1/", "v1"),
        ("dmr", "ai/d1", "ai/d1"),
        ("openai", "ai%2Fd1", "ai/d1"),
        ("openai", "ai%2fD1/", "ai/d1"),
        ("openai", "o2", "o2"),
        ("vllm", "o2", "404 MODEL_NOT_FOUND"),
        ("vllm", "v2", "503 MODEL_UNAVAILABLE"),
        ("vllm", "o1", "503 MODEL_UNAVAILABLE"),
        ("ollama", "v2", "v2"),
        ("openai", "x", "404 MODEL_NOT_FOUND"),
        ("openai", "BIG", "big"),
        ("vllm", "big", "big"),
        ("dmr", "big", "404 MODEL_NOT_FOUND"),
        ("openai", "down", "503 MODEL_UNAVAILABLE"),
        ("openai", "claude-opus-5", "claude-opus-5"),
        ("vllm", "claude-opus-5", "claude-opus-5"),
        ("ollama", "claude-opus-5", "404 MODEL_NOT_FOUND"),
        ("openai", "big:latest", "big:latest"),
    ];
    for (prefix, id, expected) in rows {
        assert_eq!(one(prefix, "/v1/models", id), expected, "{prefix} {id}");
    }
    assert_eq!(one("lmstudio", "/api/v0/models", "l1"), "l1");
    for (prefix, rest) in [("openai", "/v1/models"), ("lemonade", "/api/v1/models")] {
        let scoped = scoped_at(&profiles, prefix, rest).unwrap();
        let list = json(&catalogue.scoped(&scoped));
        for item in list["data"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap();
            let one = json(&catalogue.scoped_model(&scoped, id).unwrap());
            assert_eq!(one, *item, "{prefix} {id}");
        }
    }
}

/// A request below the prefix reaches these endpoints only.
#[test]
fn a_listing_has_the_context_of_its_own_endpoints() {
    let own = |id: &str, context: u64| {
        serde_json::json!({"data": [{"id": id, "max_model_len": context}]}).to_string()
    };
    let llama = r#"{"data":[{"id":"m","meta":{"n_ctx":32768}}]}"#;
    let aliases = [alias("a", &["m"])];
    let backends = [
        up("vl", "vllm", &own("m", 16_384)),
        up("ll", "llamacpp", llama),
        up("sg", "sglang", &data(&["m"])),
    ];
    let catalogue = Setup {
        aliases: &aliases,
        ..Setup::of(&backends)
    }
    .build();
    let profiles = Profiles::builtin();
    for (prefix, context) in [
        ("vllm", 16_384),
        ("llamacpp", 32_768),
        ("openai", 32_768),
        // Its endpoints say nothing.
        ("sglang", 32_768),
    ] {
        let scoped = scoped_at(&profiles, prefix, "/v1/models").unwrap();
        let list = json(&catalogue.scoped(&scoped));
        let items = list["data"].as_array().unwrap();
        assert_eq!(items.len(), 2, "{prefix}");
        for item in items {
            assert_eq!(item["max_model_len"], context, "{prefix} {item}");
            assert_eq!(item["context_length"], context, "{prefix} {item}");
        }
    }
    let global = items(&catalogue, "format=openai");
    assert!(global.iter().all(|item| item["max_model_len"] == 32_768));
}

#[test]
fn empty_listings_keep_their_shape() {
    let profiles = Profiles::builtin();
    let catalogue = Catalogue::default();
    let body =
        |prefix: &str, rest: &str| catalogue.scoped(&scoped_at(&profiles, prefix, rest).unwrap());
    assert_eq!(body("ollama", "/api/tags"), r#"{"models":[]}"#);
    assert_eq!(body("vllm", "/v1/models"), r#"{"object":"list","data":[]}"#);
}

#[test]
fn a_type_of_the_user_has_its_own_listings() {
    let folder = std::env::temp_dir().join(format!("olla-scopes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, compatible: bool| {
        let text = format!(
            "name = '{name}'\nrouting.prefixes = ['{name}']\n\
             [api]\nopenai_compatible = {compatible}\nmodel_discovery_path = '/list'"
        );
        std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    };
    write("mine", true);
    write("other", false);
    let (profiles, warnings) = Profiles::load(std::slice::from_ref(&folder));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(warnings, [""; 0]);
    let backend = |name: &'static str, id: &str| Backend {
        profile: Arc::clone(profiles.get(name).unwrap()),
        ..up(name, "openai-compatible", &data(&[id]))
    };
    let catalogue = build(&[backend("mine", "m"), backend("other", "o")]);
    let listed = |prefix: &str, rest: &str| listed(&catalogue, &profiles, prefix, rest);
    let ids = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    assert_eq!(listed("mine", "/list"), ids(&["m"]));
    assert_eq!(listed("mine", "/v1/models"), ids(&["m"]));
    assert_eq!(listed("other", "/list"), ids(&["o"]));
    assert_eq!(
        listed("other", "/v1/models"),
        None,
        "it does not speak OpenAI's"
    );
    assert_eq!(listed("openai", "/v1/models"), ids(&["m"]));
}

#[test]
fn aliases_are_listed_where_a_target_is() {
    let aliases = [alias("big", &["v1", "c1"]), alias("down", &["v2"])];
    let backends = fleet();
    let catalogue = Setup {
        aliases: &aliases,
        ..Setup::of(&backends)
    }
    .build();
    let profiles = Profiles::builtin();
    let has = |prefix: &str, rest: &str, id: &str| {
        let ids = listed(&catalogue, &profiles, prefix, rest).unwrap();
        ids.iter().any(|listed| listed == id)
    };
    assert!(has("vllm", "/v1/models", "big"));
    assert!(has("openai", "/v1/models", "big"));
    assert!(!has("ollama", "/v1/models", "big"), "no target there");
    assert!(!has("ollama", "/api/tags", "big"), "no target there");
    assert!(!has("vllm", "/v1/models", "down"));
}

#[test]
fn served_ids_are_those_of_routable_endpoints() {
    let catalogue = build(&fleet());
    assert_eq!(
        catalogue.served_ids(),
        ["o1", "Shared", "l1", "v1", "c1", "lem1", "ai/d1"]
    );
}
