//! Contract: docs/contract/catalogue.md#6.2, docs/contract/catalogue.md#6.7

use super::*;
use crate::catalogue::formats::Format;

fn fleet() -> Catalogue {
    let ollama = r#"{"models":[
        {"name":"llama3.2:3b","size":1,"details":{"family":"llama"}},
        {"name":"nomic-embed-text","size":1,"details":{"family":"nomic-bert"}},
        {"name":"llava:7b","size":1}]}"#;
    let studio = r#"{"data":[{"id":"hot","type":"llm","state":"loaded"},
        {"id":"cold","type":"llm","state":"not-loaded"},{"id":"odd","state":"broken"},
        {"id":"soon","state":"loading"}]}"#;
    build(&[
        up("oll", "ollama", ollama),
        up("vl", "vllm", &data(&["Qwen/Qwen2.5-Coder-7B", "both"])),
        up("lms", "lm-studio", studio),
        down("off", "ollama", &tags(&[("asleep", ""), ("both", "")])),
    ])
}

const ALL: &[&str] = &[
    "llama3.2:3b",
    "nomic-embed-text",
    "llava:7b",
    "Qwen/Qwen2.5-Coder-7B",
    "both",
    "hot",
    "cold",
    "odd",
    "soon",
];

const LLMS: &[&str] = &[
    "llama3.2:3b",
    "Qwen/Qwen2.5-Coder-7B",
    "both",
    "hot",
    "cold",
    "odd",
    "soon",
];

const AVAILABLE: &[&str] = &[
    "llama3.2:3b",
    "nomic-embed-text",
    "llava:7b",
    "Qwen/Qwen2.5-Coder-7B",
    "both",
    "hot",
    "soon",
];

/// A query and the ids that it lists of [`fleet`].
const QUERIES: [(&str, &[&str]); 47] = [
    ("", ALL),
    ("unknown=1&&=x&family", ALL),
    ("family=llama", &["llama3.2:3b"]),
    ("family=LLAMA", &["llama3.2:3b"]),
    ("family=qwen", &["Qwen/Qwen2.5-Coder-7B"]),
    ("family=nomic-bert", &["nomic-embed-text"]),
    ("family=nothing", &[]),
    ("family=", ALL),
    ("Family=llama", ALL),
    ("family=llama&family=qwen", &["llama3.2:3b"]),
    ("type=llm", LLMS),
    ("type=vlm", &["llava:7b"]),
    ("type=embeddings", &["nomic-embed-text"]),
    ("type=odd", &[]),
    ("type=", ALL),
    ("capability=vision", &["llava:7b"]),
    ("capability=MultiModal", &["llava:7b"]),
    ("capability=embedding", &["nomic-embed-text"]),
    ("capability=embeddings", &["nomic-embed-text"]),
    ("capability=vector_search", &["nomic-embed-text"]),
    ("capability=chat", LLMS),
    ("capability=text_generation", LLMS),
    ("capability=completion", LLMS),
    ("capability=Code-Generation", &["Qwen/Qwen2.5-Coder-7B"]),
    ("capability=image-understanding", &["llava:7b"]),
    ("capability=nonsense", &[]),
    ("capability=", ALL),
    ("capability=vision&type=embeddings", &["llava:7b"]),
    ("endpoint=vl", &["Qwen/Qwen2.5-Coder-7B", "both"]),
    ("endpoint=VL", &[]),
    ("endpoint=nowhere", &[]),
    ("endpoint=", ALL),
    ("endpoint=off", &[]),
    ("endpoint=off&include_unavailable=true", &["both", "asleep"]),
    ("available=true", AVAILABLE),
    ("available=false", &["cold", "odd"]),
    (
        "available=false&include_unavailable=true",
        &["cold", "odd", "asleep"],
    ),
    ("available=", ALL),
    ("available=&available=true", ALL),
    ("include_unavailable=1", ALL),
    ("include_unavailable=TRUE", ALL),
    ("include_unavailable=true&family=llama", &["llama3.2:3b"]),
    ("family=llama&type=vlm", &[]),
    (
        "family=llama&endpoint=oll&type=llm&available=true",
        &["llama3.2:3b"],
    ),
    ("family=%6Clama", &["llama3.2:3b"]),
    ("endpoint=o%6Cl&type=vlm", &["llava:7b"]),
    ("family=%ff", &[]),
];

#[test]
fn filters_narrow_the_listing() {
    let catalogue = fleet();
    for (query, expected) in QUERIES {
        assert_eq!(ids(&catalogue, query), expected, "{query}");
        let openai = format!("{query}&format=openai");
        assert_eq!(ids(&catalogue, &openai), expected, "{openai}");
    }
    let everything = ids(&catalogue, "include_unavailable=true");
    assert_eq!(everything.len(), ALL.len() + 1);
}

#[test]
fn what_lists_the_same_is_rendered_once() {
    let catalogue = fleet();
    for (query, relevant) in [
        ("", ""),
        ("t=123&x", ""),
        ("Format=vllm", ""),
        ("format=unified", ""),
        ("format=&format=openai", ""),
        ("format=vllm&format=openai", "format=vllm"),
        ("t=1&type=LLM&format=vllm", "format=vllm&type=llm"),
        ("available=true&include_unavailable=x7", "available=true"),
        ("include_unavailable=TRUE&available=", ""),
        ("family=%6CLama&type=", "family=llama"),
        ("capability=Vision&type=llm", "type=vlm"),
        ("capability=completion", "type=llm"),
        ("capability=CODE-generation", "capability=code-generation"),
        ("endpoint=vl&family=llama", "family=llama&endpoint=vl"),
        ("format=openai&family=none17", "format=openai&type=-"),
        ("capability=none17&available=true", "type=-"),
        ("type=none17&endpoint=vl", "type=-"),
        ("endpoint=none17&include_unavailable=true", "type=-"),
    ] {
        assert_eq!(catalogue.relevant(query), relevant, "{query}");
        assert_eq!(catalogue.relevant(relevant), relevant, "{query}");
    }
    for (query, _) in QUERIES {
        for format in Format::ALL {
            let query = format!("{query}&format={}", format.as_str());
            let listed = catalogue.models(&query).unwrap();
            let relevant = catalogue.models(&catalogue.relevant(&query)).unwrap();
            assert_eq!(relevant, listed, "{query}");
        }
    }
}

#[test]
fn native_formats_list_what_their_endpoints_serve() {
    let catalogue = fleet();
    let table: [(&str, &[&str]); 6] = [
        (
            "format=ollama",
            &["llama3.2:3b", "nomic-embed-text", "llava:7b"],
        ),
        (
            "format=ollama&include_unavailable=true",
            &[
                "llama3.2:3b",
                "nomic-embed-text",
                "llava:7b",
                "both",
                "asleep",
            ],
        ),
        ("format=ollama&endpoint=vl", &[]),
        ("format=lmstudio", &["hot", "cold", "odd", "soon"]),
        ("format=lmstudio&available=true", &["hot", "soon"]),
        ("format=vllm&family=llama", &["llama3.2:3b"]),
    ];
    for (query, expected) in table {
        assert_eq!(ids(&catalogue, query), expected, "{query}");
    }
}

#[test]
fn wrong_values_are_errors() {
    let catalogue = fleet();
    let table = [
        ("format=bogus", "INVALID_FORMAT", "bogus"),
        ("format=OpenAI", "INVALID_FORMAT", "openai"),
        ("format=omlx", "INVALID_FORMAT", "unified"),
        ("available=maybe", "INVALID_PARAMETER", "maybe"),
        ("available=True", "INVALID_PARAMETER", "True"),
        ("available=1", "INVALID_PARAMETER", "1"),
        (
            "format=openai&available=no",
            "INVALID_PARAMETER",
            "available",
        ),
    ];
    for (query, code, word) in table {
        let error = catalogue.models(query).unwrap_err();
        assert_eq!(
            (error.status, error.kind, error.code),
            (400, "bad_request", code),
            "{query}"
        );
        assert!(error.message.contains(word), "{}", error.message);
    }
    let error = catalogue.models("format=bogus").unwrap_err();
    for format in Format::ALL {
        assert!(error.message.contains(format.as_str()), "{}", error.message);
    }
    let long = format!("format={}", "é".repeat(10_000));
    let error = catalogue.models(&long).unwrap_err();
    assert!(
        error.message.len() < 1000,
        "a message repeats the beginning only"
    );
}
