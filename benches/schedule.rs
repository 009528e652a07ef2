//! What the scheduler costs: reading the prompt of a request, and choosing among endpoints.
//!
//! `hash` is what comes after the inspection of the body, `inspect` and `inspect_on` are the
//! inspection without and with the parts of the prompt. `choice` is with a prompt of 8 KB of which
//! four endpoints hold the first half.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use olla::bench::inspect::{Findings, Inspector, Wanted};
use olla::bench::schedule::{
    BLOCKS_MAX, Candidate, Candidates, Chooser, EndpointLoad, Medians, ModelKey, ModelTable,
    Placements, Prompt, PromptDemand, SHARED_SEED, Weights,
};

const WITHOUT: Wanted = Wanted {
    name_key: false,
    vision: true,
    tally: false,
    prompt: false,
};

const WITH: Wanted = Wanted {
    prompt: true,
    ..WITHOUT
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    prompt(&mut criterion);
    choice(&mut criterion);
    criterion.final_summary();
}

fn prompt(criterion: &mut Criterion) {
    let bodies = [
        ("chat_300", one_message(230)),
        ("plain_8k", one_message(8 << 10)),
        ("plain_100k", one_message(100 << 10)),
        ("plain_1m", one_message(1 << 20)),
        ("messages_100k", messages(100 << 10, ",")),
        ("messages_1m", messages(1 << 20, ",")),
        ("messages_apart_8k", messages(8 << 10, ", ")),
        ("messages_apart_1m", messages(1 << 20, ", ")),
        ("texts_apart_1m", texts(1 << 20)),
        ("tokens_1m", tokens(1 << 20, ",")),
        ("tokens_apart_1m", tokens(1 << 20, ", ")),
    ];
    let mut group = criterion.benchmark_group("prompt");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for (name, body) in &bodies {
        let body = body.as_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        for (part, wanted) in [("inspect", WITHOUT), ("inspect_on", WITH)] {
            group.bench_function(format!("{name}/{part}"), |b| {
                b.iter(|| inspect(black_box(body), wanted))
            });
        }
        let findings = inspect(body, WITH);
        let mut hashes = Vec::with_capacity(BLOCKS_MAX);
        group.bench_function(format!("{name}/hash"), |b| {
            b.iter(|| Prompt::read(black_box(body), &findings, SHARED_SEED, &mut hashes))
        });
    }
    group.finish();
}

fn inspect(body: &[u8], wanted: Wanted) -> Findings {
    Inspector::new(wanted).finish(body)
}

fn one_message(bytes: usize) -> String {
    let text = "The quick brown fox jumps over the lazy dog, twice. ";
    let text = &text.repeat(bytes / text.len() + 1)[..bytes];
    format!(
        r#"{{"model":"llama3.2","messages":[{{"role":"user","content":"{text}"}}],"stream":true}}"#
    )
}

/// A conversation of messages of 80 and 170 bytes.
fn messages(bytes: usize, separator: &str) -> String {
    let mut body = String::from(r#"{"model":"llama3.2","messages":["#);
    while body.len() < bytes {
        body += r#"{"role":"user","content":"And what does that mean for the second step?"}"#;
        body += separator;
        body += r#"{"role":"assistant","content":"It \"follows\" from the first:\nnothing that "#;
        body += r#"was said there depends on the order, so it can be done in any order at all."}"#;
        body += separator;
    }
    body += r#"{"role":"user","content":"Thanks."}],"stream":true}"#;
    body
}

/// Texts of 60 bytes, whose borders are not noted.
fn texts(bytes: usize) -> String {
    let text = r#""Sixty bytes of plain text that are to be embedded, or so.""#;
    let texts = vec![text; bytes / text.len()];
    format!(r#"{{"model":"llama3.2","input":[{}]}}"#, texts.join(", "))
}

/// A prompt of token numbers.
fn tokens(bytes: usize, separator: &str) -> String {
    let tokens: Vec<_> = (0..bytes / 6)
        .map(|n| (10_000 + n % 90_000).to_string())
        .collect();
    format!(
        r#"{{"model":"llama3.2","prompt":[{}]}}"#,
        tokens.join(separator)
    )
}

struct Fleet {
    loads: Vec<Arc<EndpointLoad>>,
    model: ModelKey,
}

impl Fleet {
    fn candidate(&self, index: usize) -> Option<Candidate<'_>> {
        Some(Candidate {
            index,
            load: self.loads.get(index)?,
            model: self.model,
        })
    }
}

impl Candidates for Fleet {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn each<'c>(&'c self, visit: impl FnMut(Candidate<'c>)) {
        let all = 0..self.loads.len();
        all.filter_map(|index| self.candidate(index))
            .for_each(visit);
    }

    fn of_index(&self, index: usize) -> Option<Candidate<'_>> {
        self.candidate(index)
    }

    fn of_number(&self, number: u16) -> Option<Candidate<'_>> {
        self.candidate(usize::from(number))
    }

    fn common_model(&self) -> Option<ModelKey> {
        Some(self.model)
    }
}

fn choice(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choice");
    group.measurement_time(Duration::from_secs(2));
    let body = one_message(8 << 10);
    let findings = inspect(body.as_bytes(), WITH);
    let mut blocks = Vec::new();
    let prompt = Prompt::read(body.as_bytes(), &findings, SHARED_SEED, &mut blocks);
    for count in [1, 8, 64, 200] {
        let model = ModelKey::of("llama3.2");
        let loads = (0..count).map(|number| Arc::new(EndpointLoad::new(number, 0)));
        let fleet = Fleet {
            loads: loads.collect(),
            model,
        };
        let placements = Placements::new(16 << 20).expect("a table");
        for load in &fleet.loads {
            load.configure(16, 400_000);
            load.pairs().place(model, 1);
        }
        for load in fleet.loads.iter().take(4) {
            let pair = load.pair(model).expect("a pair");
            let half = &blocks[..blocks.len() / 2];
            placements.put(half, model.get(), (load.number(), pair), 1);
        }
        let (models, medians) = (ModelTable::default(), Medians::default());
        let mut random = 0;
        group.bench_function(format!("{count} endpoints"), |b| {
            b.iter(|| {
                random += 1;
                let chooser = Chooser {
                    placements: Some(&placements),
                    models: &models,
                    medians: &medians,
                    weights: Weights {
                        decode: 0.1,
                        running: 0.2,
                    },
                    now_ms: 1_000,
                    random,
                };
                let asked = PromptDemand {
                    prompt: &prompt,
                    blocks: &blocks,
                    output_max: None,
                };
                chooser.choose(black_box(&fleet), &asked, |_| {})
            });
        });
    }
    group.finish();
}
