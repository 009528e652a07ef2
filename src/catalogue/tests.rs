//! Small fleets, given as the bodies that their backends send, and what the catalogue makes of
//! them.

mod detail;
mod formats;
mod incremental;
mod merging;
mod names;
mod ollama;
mod queries;
mod scopes;

use crate::catalogue::formats::Format;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::providers::{Profiles, parse_listing};

/// Seconds after 1970 at which every listing is made and every model first seen.
const NOW: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Every endpoint was listed at [`NOW`].
fn times(now: u64) -> DetailTimes<'static> {
    fn synced_at(_: usize) -> Option<SystemTime> {
        Some(at(NOW))
    }
    DetailTimes {
        now: at(now),
        synced_at: &synced_at,
    }
}

/// One endpoint: name, type, and the body of its listing.
struct Backend {
    name: &'static str,
    profile: Arc<Profile>,
    routable: bool,
    models: Arc<[ListedModel]>,
}

/// A backend that is up.
fn up(name: &'static str, kind: &str, body: &str) -> Backend {
    let profiles = Profiles::builtin();
    let profile = Arc::clone(profiles.get(kind).unwrap());
    let models = parse_listing(profile.parser, body.as_bytes()).unwrap();
    Backend {
        name,
        profile,
        routable: true,
        models: models.into(),
    }
}

/// A backend that is down.
fn down(name: &'static str, kind: &str, body: &str) -> Backend {
    Backend {
        routable: false,
        ..up(name, kind, body)
    }
}

/// The body of an Ollama that lists these names and digests.
fn tags(models: &[(&str, &str)]) -> String {
    let models: Vec<_> = models
        .iter()
        .map(|(name, digest)| serde_json::json!({"name": name, "digest": digest, "size": 5}))
        .collect();
    serde_json::json!({ "models": models }).to_string()
}

/// The body of an OpenAI-like server that lists these ids.
fn data(ids: &[&str]) -> String {
    let items: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
    serde_json::json!({ "data": items }).to_string()
}

fn alias(name: &str, targets: &[&str]) -> AliasPlan {
    AliasPlan {
        name: name.to_owned(),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
    }
}

struct Setup<'a> {
    backends: &'a [Backend],
    aliases: &'a [AliasPlan],
    enable_unifier: bool,
    rules: &'a Arc<ModelRules>,
    now: u64,
    previous: Option<&'a Catalogue>,
}

static RULES: LazyLock<Arc<ModelRules>> = LazyLock::new(|| Arc::new(ModelRules::builtin().clone()));

impl<'a> Setup<'a> {
    fn of(backends: &'a [Backend]) -> Self {
        Self {
            backends,
            aliases: &[],
            enable_unifier: true,
            rules: &RULES,
            now: NOW,
            previous: None,
        }
    }

    fn build(&self) -> Catalogue {
        let sources: Vec<_> = self
            .backends
            .iter()
            .map(|backend| CatalogueSource {
                name: backend.name,
                profile: &backend.profile,
                routable: backend.routable,
                url_key: backend.name,
                models: &backend.models,
            })
            .collect();
        let options = CatalogueOptions {
            aliases: self.aliases,
            enable_unifier: self.enable_unifier,
            rules: self.rules,
            now: at(self.now),
        };
        Catalogue::build(&sources, &options, self.previous)
    }
}

fn build(backends: &[Backend]) -> Catalogue {
    Setup::of(backends).build()
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// The items of `/olla/models?<query>`.
fn items(catalogue: &Catalogue, query: &str) -> Vec<Value> {
    let mut body = json(&catalogue.models(query).unwrap());
    let list = ["data", "models"].into_iter().find_map(|field| {
        let list = body.get_mut(field)?;
        list.as_array_mut().map(std::mem::take)
    });
    list.unwrap()
}

/// The ids of `/olla/models?<query>`.
fn ids(catalogue: &Catalogue, query: &str) -> Vec<String> {
    let id = |item: &Value| {
        let id = item.get("id").or_else(|| item.get("name")).unwrap();
        id.as_str().unwrap().to_owned()
    };
    items(catalogue, query).iter().map(id).collect()
}

/// The item of a unified listing, models of endpoints that are down included.
fn unified(catalogue: &Catalogue, id: &str) -> Value {
    let mut items = items(catalogue, "include_unavailable=true").into_iter();
    items.find(|item| item["id"] == id).unwrap()
}

fn model(catalogue: &Catalogue, id: &str) -> Value {
    json(&catalogue.model(id, &times(NOW)).unwrap())
}

#[test]
fn a_catalogue_can_be_shared() {
    fn shared<T: Send + Sync + std::fmt::Debug + Default>() {}
    shared::<Catalogue>();
}

#[test]
fn without_models_every_listing_is_an_empty_one() {
    let backends = [up("o", "ollama", r#"{"models":[]}"#)];
    for catalogue in [Catalogue::default(), build(&backends)] {
        for format in Format::ALL {
            let body = catalogue
                .models(&format!("format={}", format.as_str()))
                .unwrap();
            let expected = match format {
                Format::Ollama => r#"{"models":[]}"#,
                _ => r#"{"object":"list","data":[]}"#,
            };
            assert_eq!(body, expected, "{format:?}");
        }
        assert_eq!(
            catalogue.models("").unwrap(),
            r#"{"object":"list","data":[]}"#
        );
        assert!(catalogue.entries().is_empty() && catalogue.vision().is_empty());
        assert!(catalogue.named_models().is_empty() && catalogue.served_ids().is_empty());
        assert_eq!(
            catalogue.model("none", &times(NOW)).unwrap_err().status,
            404
        );
    }
}

#[test]
fn a_catalogue_beyond_the_bound_is_rendered_when_asked() {
    let names: Vec<_> = (0..=AT_ONCE_MAX).map(|n| format!("m{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let large = build(&[up("v", "vllm", &data(&names))]);
    assert!(large.unified.get().is_none() && large.openai.get().is_none());
    let small = build(&[up("v", "vllm", &data(&names[1..]))]);
    assert!(small.unified.get().is_some() && small.openai.get().is_some());
    for (catalogue, count) in [(large, names.len()), (small, names.len() - 1)] {
        for query in ["", "format=openai"] {
            assert_eq!(items(&catalogue, query).len(), count, "{query}");
        }
        let scoped = Scoped {
            profile: Profiles::builtin().get("vllm").cloned(),
            form: ListingForm::OpenAi,
        };
        let listing = json(&catalogue.scoped(&scoped));
        assert_eq!(listing["data"].as_array().unwrap().len(), count);
    }
}
