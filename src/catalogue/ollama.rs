//! Models in the forms of Ollama's API, whatever server has them.
//!
//! Contract: docs/contract/dialects.md#11.1 to docs/contract/dialects.md#11.3

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::entry::{LOADED, Place, state};
use super::formats::{Description, LoadedMore, Nothing, Ollama, OllamaDetails};
use super::render::{Item, List, Selection};
use super::{Catalogue, figures};
use crate::format::instant;
use crate::providers::{ListedModel, ModelKind};

/// The types whose servers hold what they list in memory.
const HOLDERS: [&str; 5] = ["vllm", "sglang", "llamacpp", "lmdeploy", "vllm-mlx"];

/// When a model is unloaded that stays loaded.
const NEVER: &str = "9999-12-31T23:59:59Z";

impl Catalogue {
    /// An item of `/api/tags`. What an endpoint of Ollama's reports is shown as it reports it.
    pub(super) fn ollama_item<'c, P>(&'c self, item: &Item<'c>, more: P) -> Ollama<'c, P> {
        let native = self.of_ollama(&item.own);
        let digest = self
            .merged
            .first_fact(&native, |model| model.digest.as_deref());
        Ollama {
            name: item.id,
            model: item.id,
            modified_at: self.modified_at(item, &native),
            size: self.size(item, &native),
            digest: digest.map_or_else(|| sha256_hex(item.name).into(), Cow::Borrowed),
            details: self.ollama_details(item, &native),
            capabilities: self.ollama_capabilities(item, &native),
            more,
        }
    }

    /// An item of `/olla/models?format=ollama` (docs/contract/catalogue.md#6.3): its parameter size
    /// has the short form, and a digest is one that an endpoint reports.
    pub(super) fn push_ollama(&self, list: &mut List, item: &Item<'_>) {
        let details = self.ollama_details(item, &self.of_ollama(&item.own));
        let (size, _) = figures::parameter_size(details.parameter_size);
        let mut shown = self.ollama_item(item, Nothing {});
        let reported = self.own_fact(item, |model| model.digest.as_deref());
        shown.digest = reported.unwrap_or("").into();
        shown.details.parameter_size = &size;
        list.push(&shown);
    }

    /// The places at endpoints of Ollama's.
    fn of_ollama(&self, places: &[Place]) -> Vec<Place> {
        let is_native = |place: &&Place| {
            let member = self.merged.endpoints.get(place.endpoint as usize);
            member.is_some_and(|member| member.profile.speaks_ollama)
        };
        places.iter().filter(is_native).copied().collect()
    }

    fn size(&self, item: &Item<'_>, native: &[Place]) -> u64 {
        let size = |model: &ListedModel| model.disk_size;
        let reported = self.merged.first_fact(native, size);
        reported.or_else(|| self.fact(item, size)).unwrap_or(0)
    }

    fn modified_at<'c>(&'c self, item: &Item<'c>, native: &[Place]) -> Cow<'c, str> {
        let written = |model: &'c ListedModel| model.extra.as_deref()?.modified_at.as_deref();
        match self.merged.first_fact(native, written) {
            Some(written) => written.into(),
            None => {
                let seen = Duration::from_secs(item.entry.first_seen);
                let seen = UNIX_EPOCH.checked_add(seen).unwrap_or(UNIX_EPOCH);
                instant(seen).into()
            }
        }
    }

    fn ollama_details<'c>(&'c self, item: &Item<'c>, native: &[Place]) -> OllamaDetails<'c> {
        let reported = |fact: fn(&ListedModel) -> Option<&str>| {
            let own = self.merged.first_fact(native, fact);
            own.or_else(|| self.fact(item, fact))
        };
        let tells = self.tells(item.entry);
        let families = self.merged.first_fact(native, |model| {
            let families = &model.extra.as_deref()?.families;
            (tells && !families.is_empty()).then_some(families.as_slice())
        });
        let family = reported(|model| model.family.as_deref()).unwrap_or(&item.entry.family);
        OllamaDetails {
            parent_model: reported(|model| model.extra.as_deref()?.parent_model.as_deref())
                .unwrap_or(""),
            format: reported(|model| model.format.as_deref()).unwrap_or(""),
            family: if tells { family } else { "" },
            families: families.unwrap_or(&[]),
            parameter_size: reported(|model| model.parameter_size.as_deref())
                .unwrap_or(&item.entry.parameter_size),
            quantization_level: reported(|model| model.quantization.as_deref()).unwrap_or(""),
            context_length: self.context(item),
        }
    }

    fn ollama_capabilities<'c>(&'c self, item: &Item<'c>, native: &[Place]) -> Vec<&'c str> {
        let reported = self.merged.first_fact(native, |model| {
            let words = &model.extra.as_deref()?.capabilities;
            (!words.is_empty()).then_some(words)
        });
        if let Some(words) = reported {
            return words.iter().map(AsRef::as_ref).collect();
        }
        let entry = item.entry;
        if entry.kind == ModelKind::Embeddings {
            return vec!["embedding"];
        }
        // Clients hide models without tools, and nearly every server calls them.
        let mut words = vec!["completion", "tools"];
        if entry.kind == ModelKind::Vlm {
            words.push("vision");
        }
        let reasons = self.merged.rules.capability("reasoning");
        if entry.capabilities.meets(reasons) {
            words.push("thinking");
        }
        words
    }

    /// The document of `/api/show`.
    pub(super) fn description(&self, item: &Item<'_>) -> Bytes {
        let native = self.of_ollama(&item.own);
        let entry = item.entry;
        let context = self.context(item);
        let details = self.ollama_details(item, &native);
        let architecture = match details.family {
            "" => "unknown",
            family => family,
        };
        let mut info: Map<String, Value> = Map::new();
        info.insert("general.architecture".to_owned(), architecture.into());
        info.insert("general.basename".to_owned(), item.id.into());
        if entry.parameter_count > 0 {
            let count = entry.parameter_count.into();
            info.insert("general.parameter_count".to_owned(), count);
        }
        if let Some(context) = context {
            info.insert(format!("{architecture}.context_length"), context.into());
        }
        let description = Description {
            license: "",
            modelfile: "",
            parameters: context.map_or_else(String::new, |tokens| format!("num_ctx {tokens}")),
            template: "",
            system: "",
            details,
            model_info: info,
            capabilities: self.ollama_capabilities(item, &native),
            modified_at: self.modified_at(item, &native),
        };
        // Serialising a description cannot fail.
        serde_json::to_vec(&description).unwrap_or_default().into()
    }

    /// Calls back for every loaded model of endpoints that are not Ollama's: its name, the
    /// endpoints that hold it, and its item in the form of `/api/ps`.
    pub(crate) fn each_loaded(&self, mut call: impl FnMut(&str, &[&str], &[u8])) {
        let others = self.merged.endpoints_of(|profile| !profile.speaks_ollama);
        let eligible = others.and(&self.routable);
        let selection = Selection {
            filter: &|_| true,
            eligible,
            own: eligible,
        };
        self.each_name(&selection, |item| {
            let holding = item.own.iter().filter(|place| self.holds(place));
            let holding: Vec<_> = holding.copied().collect();
            if holding.is_empty() {
                return;
            }
            let endpoints: Vec<_> = holding
                .iter()
                .map(|place| self.merged.endpoint_name(place))
                .collect();
            let item = Item {
                own: holding,
                ..item
            };
            let loaded = LoadedMore {
                size_vram: self.size(&item, &[]),
                expires_at: NEVER,
                context_length: self.context(&item).unwrap_or(0),
            };
            // Serialising an item cannot fail.
            if let Ok(written) = serde_json::to_vec(&self.ollama_item(&item, loaded)) {
                call(item.name, &endpoints, &written);
            }
        });
    }

    fn holds(&self, place: &Place) -> bool {
        let member = self.merged.endpoints.get(place.endpoint as usize);
        let holds_all = member.is_some_and(|member| HOLDERS.contains(&&*member.profile.name));
        holds_all
            || self
                .merged
                .listed(place)
                .is_some_and(|model| state(model) == LOADED)
    }
}

/// The SHA-256 of a name, for models without a digest: the `ollama` command cuts a piece out of it.
fn sha256_hex(name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let mut hex = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
