//! Tokens: what backends of every kind say they have read and written, streamed or whole, is what
//! the statistics and the metrics say.
//!
//! Contract: docs/contract/operations.md#4, docs/contract/operations.md#6

mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use case::{Ask, Case, Dialect, KINDS, Kind, TOKENS_PER_SECOND};
use testkit::{Backend, Client, Config, Gateway, endpoint, get, on_both_drivers, wait_until};

const CASES: usize = 1_000;
const CLIENTS: usize = 8;

/// What the gateway must say of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    requests: u64,
    prompt: u64,
    completion: u64,
    tokens_per_second: f64,
}

fn all_told() -> BTreeMap<String, Told> {
    let mut all = BTreeMap::<String, Told>::new();
    for case in (0..CASES).map(Case::new) {
        let told = all.entry(case.model.clone()).or_default();
        told.requests += 1;
        told.prompt += case.prompt.unwrap_or_default();
        told.completion += case.completion.unwrap_or_default();
        if case.has_times() {
            told.tokens_per_second = TOKENS_PER_SECOND;
        }
    }
    all
}

fn backend_of(kind: &Kind) -> Backend {
    let models = kind.models();
    Backend::new(&models.each_ref().map(String::as_str), |request, link| {
        let Some(case) = Case::of(request) else {
            return link.respond(500, "text/plain", "no case");
        };
        let is_native = request.target.ends_with("/messages");
        if is_native == (case.dialect() == Dialect::Anthropic) {
            case.send(link);
        } else {
            link.respond(500, "text/plain", &request.target);
        }
    })
}

fn ask_some(gateway: &Gateway, next: &AtomicUsize) {
    let mut client = Client::to(gateway);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= CASES {
            return;
        }
        let case = Case::new(number);
        let answer = client.send(case.request()).response();
        let what = format!("case {number}, {:?} of {}", case.ask, case.kind.name);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(answer.whole, "{what}");
        if case.is_untouched() {
            assert_eq!(answer.text(), case.response().1, "{what}");
        } else if case.is_told() {
            // A translated answer tells its client the same.
            let told = format!("\"output_tokens\":{}", case.completion.unwrap_or_default());
            assert!(answer.text().contains(&told), "{what}: {}", answer.text());
        }
    }
}

#[test]
fn the_cases_are_of_every_kind() {
    let sort = |case: Case| {
        let is_long = case.response().1.len() > 64 << 10;
        (case.kind.name, case.ask, case.is_stream, is_long)
    };
    let sorts: BTreeSet<_> = (0..CASES).map(|number| sort(Case::new(number))).collect();
    // Of Ollama's four ways of asking and three of each other kind, both ways of answering.
    let all = 2 * (4 + 3 * (KINDS.len() - 1));
    assert_eq!(sorts.iter().filter(|sort| !sort.3).count(), all);
    for is_stream in [false, true] {
        for ask in [Ask::Chat, Ask::Messages, Ask::OllamaChat] {
            let is_it =
                |sort: &(_, Ask, bool, bool)| (sort.1, sort.2, sort.3) == (ask, is_stream, true);
            assert!(
                sorts.iter().any(is_it),
                "no long {ask:?}, streamed: {is_stream}"
            );
        }
    }
}

#[test]
fn tokens_are_counted_as_the_backends_tell_them() {
    let all = all_told();
    on_both_drivers(|driver| {
        let backends = KINDS.each_ref().map(backend_of);
        let endpoints = KINDS.iter().zip(&backends).map(|(kind, backend)| {
            // Not to be taken for ill while the machine is busy.
            let seldom = "check_interval = \"60s\"\ncheck_timeout = \"20s\"";
            endpoint(kind.name, kind.name, backend, seldom)
        });
        let config = Config::new(driver).more(&endpoints.collect::<String>());
        let gateway = Gateway::start(&config);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| ask_some(&gateway, &next));
            }
        });
        let page = || get(&gateway, "/internal/stats/models?include_summary=true", &[]).json();
        wait_until("the last request in the figures", || {
            page()["summary"]["total_requests"] == CASES
        });
        let page = page();
        let shown: BTreeMap<String, Told> = page["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| (model["name"].as_str().unwrap().to_owned(), told_by(model)))
            .collect();
        assert_eq!(shown, all);
        let sum = |of: fn(&Told) -> u64| all.values().map(of).sum::<u64>();
        let summary = &page["summary"];
        assert_eq!(summary["total_prompt_tokens"], sum(|told| told.prompt));
        assert_eq!(
            summary["total_completion_tokens"],
            sum(|told| told.completion)
        );
        for (model, told) in &all {
            let metric =
                |name: &str| gateway.metric(&format!("olla_model_{name}{{model=\"{model}\"}}"));
            let wants = [
                ("requests_total", told.requests as f64),
                ("prompt_tokens_total", told.prompt as f64),
                ("completion_tokens_total", told.completion as f64),
                ("tokens_per_second", told.tokens_per_second),
            ];
            for (name, want) in wants {
                assert_eq!(metric(name), Some(want), "{name} of {model}");
            }
        }
    });
}

fn told_by(model: &Value) -> Told {
    let number = |key: &str| model[key].as_u64().unwrap();
    let (prompt, completion) = (number("prompt_tokens"), number("completion_tokens"));
    assert_eq!(number("total_tokens"), prompt + completion, "{model}");
    Told {
        requests: number("total_requests"),
        prompt,
        completion,
        tokens_per_second: model["tokens_per_second"].as_f64().unwrap(),
    }
}
