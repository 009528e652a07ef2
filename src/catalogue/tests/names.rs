//! What the catalogue makes of real names, by the table in `names.txt`.
//!
//! Contract: docs/contract/catalogue.md#5.4 to docs/contract/catalogue.md#5.7

use serde_json::json;

use super::*;

/// What a name, or a type, brings along.
fn words(what: &str) -> &'static [&'static str] {
    match what {
        "llm" => &["text-generation", "chat", "completion"],
        "vlm" => &[
            "text-generation",
            "vision",
            "multimodal",
            "image-understanding",
        ],
        "embeddings" => &["embeddings", "similarity", "vector-search"],
        "coding" => &["code-generation", "programming", "code-completion"],
        "following" => &["instruction-following", "chat"],
        "reasoning" => &["reasoning", "logic"],
        "math" => &["mathematics", "problem-solving"],
        "seeing" => &["vision", "multimodal", "image-understanding"],
        other => panic!("{other} stands for no capabilities"),
    }
}

/// The listing of a server with one model, as it reports these facts.
fn listing(server: &str, name: &str, [family, size, quant]: [&str; 3], kind: &str) -> String {
    let body = match server {
        "ollama" => json!({"models": [{"name": name, "size": 5, "details": {
            "family": family, "parameter_size": size, "quantization_level": quant}}]}),
        "lm-studio" => json!({"data": [{
            "id": name, "object": "model", "type": kind, "arch": family, "quantization": quant}]}),
        _ => {
            assert_eq!(
                [family, size, quant],
                [""; 3],
                "{server} reports none of it"
            );
            json!({"data": [{"id": name, "object": "model"}]})
        }
    };
    body.to_string()
}

#[test]
fn real_names_are_understood() {
    let rows = include_str!("names.txt").lines().map(str::trim);
    let rows = rows.filter(|row| !row.is_empty() && !row.starts_with('#'));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in rows {
        let columns: Vec<_> = row.split_whitespace().collect();
        let [
            server,
            name,
            told @ ..,
            family,
            variant,
            size,
            quant,
            kind,
            adds,
        ] = &*columns
        else {
            panic!("a row with too few columns: {row}");
        };
        let or_empty = |text: &&'static str| if *text == "-" { "" } else { *text };
        let told: Vec<_> = told.iter().map(or_empty).collect();
        let told = told
            .try_into()
            .unwrap_or_else(|_| panic!("a row with other columns: {row}"));
        let catalogue = build(&[up("e", server, &listing(server, name, told, kind))]);
        let added = or_empty(adds).split(',').filter(|word| !word.is_empty());
        let mut capabilities = [&[*kind], &*added.collect::<Vec<_>>()].concat();
        capabilities = capabilities.into_iter().flat_map(words).copied().collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        let [entry] = catalogue.entries() else {
            panic!("{name}: {} entries", catalogue.entries().len());
        };
        let found: Vec<_> = catalogue.merged.rules.words(entry.capabilities).collect();
        let found = (
            [
                &*entry.family,
                &*entry.variant,
                &*entry.parameter_size,
                &*entry.quantization,
            ],
            entry.kind.as_str(),
            found,
        );
        let facts = [family, variant, size, quant].map(or_empty);
        let expected = (facts, *kind, capabilities);
        if found != expected {
            wrong.push(format!("{name}: {found:?}, not {expected:?}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 120, "{count} names");
}
