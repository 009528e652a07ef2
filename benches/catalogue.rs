//! What a catalogue of 200 endpoints with 500 models each costs the control thread: all names the
//! same everywhere, some 20,000 different ones, and 100,000.
//!
//! `first` builds from nothing, `changed` after one endpoint has lost a model, `health` after one
//! has gone down. Each takes everything that a change makes necessary: the merged models, the
//! listings and the index of names that requests are routed by.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput};
use olla::bench::catalogue::{Catalogue, CatalogueOptions, CatalogueSource, ModelRules};
use olla::bench::providers::{ListedModel, Profile, Profiles, parse_listing};
use olla::bench::routing::ModelIndex;

/// As in the product: allocation is a good part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENDPOINTS: usize = 200;
const MODELS_EACH: usize = 500;

/// How many different names there are, and what that is called.
const SHAPES: [(usize, &str); 3] = [(500, "same"), (20_000, "some"), (100_000, "distinct")];

const FAMILIES: [&str; 10] = [
    "llama3.1",
    "qwen2.5-coder",
    "gemma3",
    "mistral-small",
    "deepseek-r1",
    "phi4",
    "gpt-oss",
    "granite3.3",
    "nomic-embed-text",
    "llava",
];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (names, shape) in SHAPES {
        builds(&mut criterion, names, shape);
    }
    listing(&mut criterion);
    criterion.final_summary();
}

fn builds(criterion: &mut Criterion, names: usize, shape: &str) {
    let fleet = Fleet::new(names);
    let (before, _) = fleet.build(None);
    let mut changed = fleet.clone();
    changed.lose_a_model();
    let down = Fleet {
        down: Some(0),
        ..fleet.clone()
    };
    let mut group = criterion.benchmark_group(format!("catalogue/{shape}"));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group.bench_function("first", |b| b.iter_with_large_drop(|| fleet.build(None)));
    group.bench_function("changed", |b| {
        b.iter_with_large_drop(|| changed.build(Some(&before)));
    });
    group.bench_function("health", |b| {
        b.iter_with_large_drop(|| down.build(Some(&before)));
    });
    group.finish();
}

/// Reading one large listing, in Ollama's form and in vLLM's.
fn listing(criterion: &mut Criterion) {
    const MODELS: usize = 12_000;
    let mut group = criterion.benchmark_group("listing");
    for profile in ["ollama", "vllm"] {
        let parser = Profiles::builtin()
            .get(profile)
            .expect("a built-in profile")
            .parser;
        let body = listing_body(profile, 0, MODELS, MODELS);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(profile, |b| {
            b.iter_with_large_drop(|| parse_listing(parser, black_box(body.as_bytes())));
        });
    }
    group.finish();
}

/// Endpoints by turns of Ollama's and of vLLM's kind.
#[derive(Clone)]
struct Fleet {
    names: Vec<String>,
    profiles: Vec<Arc<Profile>>,
    listings: Vec<Arc<[ListedModel]>>,
    down: Option<usize>,
    rules: Arc<ModelRules>,
}

impl Fleet {
    fn new(names: usize) -> Self {
        let builtin = Profiles::builtin();
        let kind = |at: usize| {
            if at.is_multiple_of(2) {
                "ollama"
            } else {
                "vllm"
            }
        };
        let profile = |at| Arc::clone(builtin.get(kind(at)).expect("a built-in profile"));
        let profiles: Vec<_> = (0..ENDPOINTS).map(profile).collect();
        let listing = |(at, profile): (usize, &Arc<Profile>)| {
            let body = listing_body(&profile.name, at * MODELS_EACH, MODELS_EACH, names);
            let models = parse_listing(profile.parser, body.as_bytes());
            models.expect("a listing").into()
        };
        Self {
            names: (0..ENDPOINTS).map(|at| format!("gpu-{at:03}")).collect(),
            listings: profiles.iter().enumerate().map(listing).collect(),
            profiles,
            down: None,
            rules: Arc::new(ModelRules::builtin().clone()),
        }
    }

    fn lose_a_model(&mut self) {
        if let Some(listing) = self.listings.first_mut() {
            let (_, left) = listing.split_last().expect("it has some");
            *listing = left.into();
        }
    }

    /// The catalogue, and the index if it is another than before.
    fn build(&self, before: Option<&Catalogue>) -> (Catalogue, Option<ModelIndex>) {
        let sources: Vec<_> = (0..ENDPOINTS)
            .map(|at| CatalogueSource {
                name: &self.names[at],
                profile: &self.profiles[at],
                routable: self.down != Some(at),
                url_key: &self.names[at],
                models: &self.listings[at],
            })
            .collect();
        let options = CatalogueOptions {
            aliases: &[],
            enable_unifier: true,
            rules: &self.rules,
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        let catalogue = Catalogue::build(black_box(&sources), &options, before);
        if before.is_some_and(|before| catalogue.has_models_of(before)) {
            return (catalogue, None);
        }
        let names = self.listings.iter().zip(&self.profiles).enumerate();
        let index = ModelIndex::build(names.map(|(at, (listing, profile))| {
            let names = listing.iter().map(|model| Arc::clone(&model.name));
            (at, profile.name == "ollama", names)
        }));
        (catalogue, Some(index))
    }
}

/// The listing of a server whose names begin at this number of so many.
fn listing_body(kind: &str, from: usize, models: usize, names: usize) -> String {
    let items: Vec<_> = (from..from + models)
        .map(|number| {
            let number = number % names;
            let family = FAMILIES[number % FAMILIES.len()];
            let name = format!("{family}-{number:06}:{}b-instruct", 1 + number % 70);
            if kind == "ollama" {
                format!(
                    r#"{{"name":"{name}","size":{},"digest":"{number:064x}",
                    "modified_at":"2025-05-10T08:06:48.639712648-07:00","details":{{"format":"gguf",
                    "family":"llama","families":["llama"],"parameter_size":"8.0B",
                    "quantization_level":"Q4_K_M"}}}}"#,
                    4_000_000_000 + number
                )
            } else {
                format!(
                    r#"{{"id":"{name}","object":"model","created":1700000000,"owned_by":"vllm",
                    "root":"{name}","parent":null,"max_model_len":32768}}"#
                )
            }
        })
        .collect();
    let field = if kind == "ollama" { "models" } else { "data" };
    format!(r#"{{"{field}":[{}]}}"#, items.join(","))
}
