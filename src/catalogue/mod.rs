//! All models of the fleet: what the endpoints report, merged, and its listings in every format.
//!
//! A [`Catalogue`] is built from the endpoints' listings whenever one of them, or the health of an
//! endpoint, has changed, and is immutable. The usual listings are rendered once, when it is built;
//! filtered listings are rendered on request.
//!
//! Nothing here opens a socket or reads a clock. Routing does not use the catalogue's names: it
//! follows the names that the endpoints themselves report.
//!
//! Contract: docs/contract/catalogue.md#5, docs/contract/catalogue.md#6

mod alias_names;
mod build;
mod detail;
mod entry;
mod figures;
mod find;
mod formats;
mod lm_studio;
mod merged;
mod ollama;
mod outages;
mod query;
mod render;
mod rules;
mod scoped;
mod seen;
mod status;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;

pub(crate) use crate::providers::ListedModel;
pub(crate) use alias_names::AliasNames;
pub(crate) use detail::DetailTimes;
pub(crate) use entry::Entry;
pub(crate) use outages::{MissingModels, Outages};
pub(crate) use rules::Capabilities;
pub use rules::ModelRules;
pub(crate) use scoped::{ListingForm, Scoped};
pub(crate) use seen::Lens;

use crate::config::AliasPlan;
use crate::endpoint_set::EndpointSet;
use crate::providers::Profile;
use merged::Merged;

/// The most reported models with which the usual listings are rendered when the catalogue is built,
/// and other listings by the core that needs them. For more models the pages thread renders each
/// listing, so that no core and no health check waits for it: a listing takes a few microseconds
/// and half a kilobyte for each model.
const AT_ONCE_MAX: usize = 500;

/// One endpoint, in the order of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct CatalogueSource<'a> {
    /// Its unique name.
    pub name: &'a str,
    /// The profile of its configured or detected type.
    pub profile: &'a Arc<Profile>,
    /// Whether it is routable: healthy, busy or warming.
    pub routable: bool,
    /// Its display URL; some facts come from the endpoint with the lowest one.
    pub url_key: &'a str,
    /// Its last listing, after its model filter, in its order.
    pub models: &'a Arc<[ListedModel]>,
}

/// The options for building a catalogue.
#[derive(Debug, Clone, Copy)]
pub struct CatalogueOptions<'a> {
    /// `[model_aliases]`.
    pub aliases: &'a [AliasPlan],
    /// False: every pair of endpoint and name is an entry of its own.
    pub enable_unifier: bool,
    /// The rules for model names.
    pub rules: &'a Arc<ModelRules>,
    /// The time at which new models are first seen.
    pub now: SystemTime,
}

/// All models (docs/contract/catalogue.md#5).
#[derive(Debug)]
pub struct Catalogue {
    merged: Arc<Merged>,
    /// The smallest context that an endpoint says to serve a model with.
    least_context: Option<u64>,
    routable: EndpointSet,
    vision: EndpointSet,
    unified: OnceLock<Bytes>,
    openai: OnceLock<Bytes>,
    scoped: Vec<scoped::Ready>,
    /// What clients with certain rights may see of it.
    views: seen::Views,
    /// It is such a view itself.
    seen: Option<Box<seen::ViewPart>>,
}

/// The error response of a listing route (docs/contract/catalogue.md#6.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueError {
    /// The HTTP status.
    pub status: u16,
    /// `error.type`.
    pub kind: &'static str,
    /// `error.code`.
    pub code: &'static str,
    /// `error.message`.
    pub message: String,
}

impl CatalogueError {
    fn bad_request(code: &'static str, message: String) -> Self {
        Self {
            status: 400,
            kind: "bad_request",
            code,
            message,
        }
    }

    fn unavailable(id: &str) -> Self {
        Self {
            status: 503,
            kind: "service_unavailable",
            code: "MODEL_UNAVAILABLE",
            message: format!("no endpoint that serves {:?} is up", query::shortened(id)),
        }
    }

    fn not_found(id: &str) -> Self {
        Self {
            status: 404,
            kind: "not_found",
            code: "MODEL_NOT_FOUND",
            message: format!("no model {:?} is known", query::shortened(id)),
        }
    }
}

impl Default for Catalogue {
    /// A catalogue without endpoints and models; its listings are empty.
    fn default() -> Self {
        Self::build(
            &[],
            &CatalogueOptions {
                aliases: &[],
                enable_unifier: true,
                rules: &Arc::new(ModelRules::builtin().clone()),
                now: SystemTime::UNIX_EPOCH,
            },
            None,
        )
    }
}

impl Catalogue {
    /// Merges the listings of all endpoints (docs/contract/catalogue.md#5.1 to
    /// docs/contract/catalogue.md#5.3). `previous` has the times at which models were first seen; a
    /// model that it does not have is first seen now. Unchanged parts of `previous` are reused: all
    /// merged models, if only the health of endpoints has changed.
    pub fn build(
        sources: &[CatalogueSource<'_>],
        options: &CatalogueOptions<'_>,
        previous: Option<&Self>,
    ) -> Self {
        let same = previous.filter(|previous| previous.merged.is_of(sources, options));
        let (merged, least_context) = match same {
            Some(same) => (Arc::clone(&same.merged), same.least_context),
            None => {
                let previous = previous.map(|previous| &*previous.merged);
                let merged = build::merge(sources, options, previous, &|_, _| true);
                let models = sources.iter().flat_map(|source| source.models.iter());
                let contexts = models.filter_map(|model| model.served_context);
                (Arc::new(merged), contexts.min())
            }
        };
        let routable = sources.iter().enumerate();
        let routable = routable.filter(|(_, source)| source.routable);
        let catalogue = Self {
            routable: routable.map(|(at, _)| at).collect(),
            vision: merged.with_capability(options.rules.capability("vision")),
            unified: OnceLock::new(),
            openai: OnceLock::new(),
            scoped: scoped::usual(&merged),
            views: seen::Views::default(),
            seen: None,
            least_context,
            merged,
        };
        if !catalogue.is_large() {
            catalogue.render_usual();
        }
        catalogue
    }

    /// Whether a listing takes too long to be rendered by a core.
    pub(crate) fn is_large(&self) -> bool {
        if self.seen.is_some() {
            return self.is_large_view(AT_ONCE_MAX);
        }
        let reported = self.merged.endpoints.iter();
        let reported = reported.map(|member| member.models.len());
        reported.sum::<usize>() + self.merged.aliases.len() > AT_ONCE_MAX
    }

    /// Whether another catalogue has the same models, whatever the health of endpoints.
    pub fn has_models_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.merged, &other.merged)
    }

    /// Every entry, in a stable order.
    pub fn entries(&self) -> &[Entry] {
        &self.merged.entries
    }

    /// The endpoints that list a model with the capability `vision`, routable or not
    /// (docs/contract/balancing.md#4.4).
    pub fn vision(&self) -> EndpointSet {
        self.vision
    }

    /// The endpoints that were routable when the catalogue was built.
    pub fn routable(&self) -> EndpointSet {
        self.routable
    }

    /// The ids of the models that some routable endpoint serves, each once, in a stable order, then
    /// the aliases: what `/olla/anthropic/v1/models` lists (docs/contract/translation.md#12).
    pub fn served_ids(&self) -> Vec<&str> {
        let mut seen = rustc_hash::FxHashSet::default();
        let served = |entry: &&Entry| entry.is_on(&self.routable);
        let ids = self
            .merged
            .entries
            .iter()
            .filter(served)
            .map(Entry::first_name);
        let served = self.served();
        let aliases = self.alias_views(&served);
        let aliases: Vec<_> = aliases.iter().map(|alias| alias.name).collect();
        ids.chain(aliases).filter(|id| seen.insert(*id)).collect()
    }

    /// The smallest context in tokens with which an endpoint says to serve a model; `None` = none
    /// says it.
    pub fn least_context(&self) -> Option<u64> {
        self.least_context
    }

    /// The context in tokens with which an endpoint serves a model, by any of the model's names.
    pub fn served_context_on(&self, endpoint: usize, name: &str) -> Option<u64> {
        let entry = self.merged.named_entry(name)?;
        let on_endpoint = |place: &&entry::Place| place.endpoint as usize == endpoint;
        let listed = entry.places.iter().filter(on_endpoint);
        listed
            .filter_map(|place| self.merged.listed(place))
            .find_map(|model| model.served_context)
    }

    fn render_usual(&self) {
        self.unified_listing();
        self.openai_listing();
        for ready in &self.scoped {
            self.ready_listing(ready);
        }
    }
}

#[cfg(test)]
mod tests;
