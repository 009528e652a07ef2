//! Renders listings: their items, the order and the names.
//!
//! Contract: docs/contract/catalogue.md#5.2, docs/contract/catalogue.md#5.10,
//! docs/contract/catalogue.md#6.2, docs/contract/catalogue.md#6.3

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::build::context_of;
use super::entry::{Entry, Place};
use super::formats::{
    Availability, Format, LemonadeMore, LmdeployMore, Nothing, OllaBlock, OpenAi, OpenAiMore,
    Permission, Seq, SglangMore, Unified, VllmMore, owner,
};
use super::merged::{Alias, AliasTarget};
use super::query::Query;
use super::{Catalogue, CatalogueError};
use crate::endpoint_set::EndpointSet;
use crate::providers::{Extra, ListedModel};

/// The owner of models that no rule gives another owner.
const OLLA: &str = "olla";

/// The part of the catalogue that a listing shows.
pub(super) struct Selection<'s> {
    /// The entries.
    pub(super) filter: &'s dyn Fn(&Entry) -> bool,
    /// Names are listed if one of these endpoints reports them.
    pub(super) eligible: EndpointSet,
    /// The spelling and the facts of these endpoints are preferred.
    pub(super) own: EndpointSet,
}

/// One name of one entry.
pub(super) struct Item<'c> {
    /// The name as an endpoint spells it; some facts are derived from it.
    pub(super) name: &'c str,
    /// The id to show: the name, or an alias of it.
    pub(super) id: &'c str,
    pub(super) entry: &'c Entry,
    /// The places of the selection's own endpoints that report the name.
    pub(super) own: Vec<Place>,
}

/// An alias with those of its targets that the selection shows.
pub(super) struct AliasView<'c> {
    pub(super) name: &'c str,
    pub(super) targets: Vec<&'c str>,
    /// The entry of the first target.
    pub(super) entry: &'c Entry,
    /// The places at which that entry has the target's name.
    pub(super) target: Vec<Place>,
    /// One for each endpoint that has a target.
    pub(super) places: Vec<Place>,
}

/// A JSON document around a list.
pub(super) struct List {
    out: Vec<u8>,
    is_first: bool,
}

impl List {
    pub(super) fn new(head: &str) -> Self {
        Self {
            out: head.as_bytes().to_vec(),
            is_first: true,
        }
    }

    pub(super) fn push(&mut self, item: &impl Serialize) {
        let before = self.out.len();
        if !self.is_first {
            self.out.push(b',');
        }
        match serde_json::to_writer(&mut self.out, item) {
            Ok(()) => self.is_first = false,
            // Serialising an item cannot fail; a partial item would invalidate the document.
            Err(_) => self.out.truncate(before),
        }
    }

    /// Ends the list and begins another one beside it.
    fn begin_another(&mut self, name: &str) {
        self.out
            .extend_from_slice(format!("],\"{name}\":[").as_bytes());
        self.is_first = true;
    }

    fn finish(mut self) -> Bytes {
        self.out.extend_from_slice(b"]}");
        self.into_bytes()
    }

    pub(super) fn into_bytes(mut self) -> Bytes {
        self.out.shrink_to_fit();
        Bytes::from(self.out)
    }
}

impl Catalogue {
    /// `GET /olla/models` with the query string after the `?`.
    ///
    /// # Errors
    /// An invalid value in the query (docs/contract/catalogue.md#6.7).
    pub fn models(&self, query: &str) -> Result<Bytes, CatalogueError> {
        let query = Query::parse(query)?;
        Ok(self
            .ready_models(&query)
            .unwrap_or_else(|| self.render_models(&query)))
    }

    /// The same if it takes little time; `None` if rendering takes longer.
    pub fn models_at_once(&self, query: &str) -> Option<Result<Bytes, CatalogueError>> {
        if !self.is_large() {
            return Some(self.models(query));
        }
        match Query::parse(query) {
            Ok(query) if query.is_plain() => match query.format {
                Format::Unified => self.unified.get().cloned().map(Ok),
                Format::OpenAi => self.openai.get().cloned().map(Ok),
                _ => None,
            },
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// A listing that is kept after it was rendered.
    fn ready_models(&self, query: &Query<'_>) -> Option<Bytes> {
        match query.format {
            Format::Unified if query.is_plain() => Some(self.unified_listing()),
            Format::OpenAi if query.is_plain() => Some(self.openai_listing()),
            _ => None,
        }
    }

    fn render_models(&self, query: &Query<'_>) -> Bytes {
        let filter = self.filter(query);
        let mut eligible = if query.include_unavailable {
            EndpointSet::first(self.merged.endpoints.len())
        } else {
            self.routable
        };
        let own = query
            .format
            .provider()
            .map_or(EndpointSet::EMPTY, |provider| {
                self.merged.endpoints_of(|profile| profile.name == provider)
            });
        if query.format.is_exclusive() {
            eligible = eligible.and(&own);
        }
        let selection = Selection {
            filter: &filter,
            eligible,
            own: own.and(&eligible),
        };
        self.render(query.format, &selection)
    }

    pub(super) fn unified_listing(&self) -> Bytes {
        let render = || self.render(Format::Unified, &self.served());
        self.unified.get_or_init(render).clone()
    }

    pub(super) fn openai_listing(&self) -> Bytes {
        let render = || self.render(Format::OpenAi, &self.served());
        self.openai.get_or_init(render).clone()
    }

    pub(super) fn served(&self) -> Selection<'static> {
        Selection {
            filter: &|_| true,
            eligible: self.routable,
            own: EndpointSet::EMPTY,
        }
    }

    pub(super) fn render(&self, format: Format, selection: &Selection<'_>) -> Bytes {
        let head = match format {
            Format::Unified => return self.unified(selection),
            Format::Ollama | Format::OllamaTags => r#"{"models":["#,
            _ => r#"{"object":"list","data":["#,
        };
        let mut list = List::new(head);
        self.each_item(selection, |item| self.push_item(&mut list, format, item));
        if format == Format::LmStudioV1 {
            list.begin_another("models");
            self.each_item(selection, |item| self.push_lm_studio_v1(&mut list, item));
        }
        list.finish()
    }

    /// Calls back for every name to be listed, then for every alias.
    fn each_item(&self, selection: &Selection<'_>, mut call: impl FnMut(&Item<'_>)) {
        self.each_name(selection, |item| call(&item));
        for alias in self.alias_views(selection) {
            call(&self.alias_item(&alias, selection));
        }
    }

    fn unified(&self, selection: &Selection<'_>) -> Bytes {
        let mut list = List::new(r#"{"object":"list","data":["#);
        let shown = |entry: &&Entry| entry.is_on(&selection.eligible) && (selection.filter)(entry);
        for entry in self.merged.entries.iter().filter(shown) {
            let availability = entry.by_endpoint().map(|places| self.availability(places));
            let item = self.unified_item(&entry.id, entry, Seq(entry.names()), Seq(availability));
            list.push(&item);
        }
        for alias in self.alias_views(selection) {
            let availability = alias.places.chunks(1);
            let availability = Seq(availability.map(|places| self.availability(places)));
            list.push(&self.unified_item(alias.name, alias.entry, &alias.targets, availability));
        }
        list.finish()
    }

    fn unified_item<'a, A: Serialize, V: Serialize>(
        &'a self,
        id: &'a str,
        entry: &'a Entry,
        aliases: A,
        availability: V,
    ) -> Unified<'a, A, V, impl Serialize> {
        let (family, variant) = self.shown_family(entry);
        Unified {
            id,
            object: "model",
            created: self.merged.created(entry, &[]),
            owned_by: OLLA,
            olla: OllaBlock {
                family,
                variant,
                parameter_size: &entry.parameter_size,
                quantization: &entry.quantization,
                aliases,
                availability,
                capabilities: Seq(self.merged.rules.words(entry.capabilities)),
                max_context_length: entry.context_length,
            },
        }
    }

    fn availability<'c>(&'c self, places: &[Place]) -> Availability<'c> {
        Availability {
            endpoint: places
                .first()
                .map_or("", |place| self.merged.endpoint_name(place)),
            state: self.state_at(places),
        }
    }

    /// The document of one item.
    pub(super) fn one(&self, format: Format, item: &Item<'_>) -> Bytes {
        let mut list = List::new("");
        self.push_item(&mut list, format, item);
        list.into_bytes()
    }

    /// The item for one name of an entry.
    pub(super) fn item_of<'c>(
        &'c self,
        entry: &'c Entry,
        fold: u32,
        selection: &Selection<'_>,
    ) -> Option<Item<'c>> {
        let groups = names(entry);
        let mut groups = groups.iter();
        let places = groups.find(|places| places.first().is_some_and(|p| p.fold == fold))?;
        Some(self.item_at(entry, places, selection))
    }

    fn item_at<'c>(
        &'c self,
        entry: &'c Entry,
        places: &[Place],
        selection: &Selection<'_>,
    ) -> Item<'c> {
        let own = places.iter().copied();
        let own: Vec<_> = own
            .filter(|place| selection.own.contains(place.endpoint as usize))
            .collect();
        let spelled = own.first().or(places.first());
        let spelled = spelled.and_then(|place| self.merged.listed(place));
        let name = spelled.map_or("", |model| &*model.name);
        Item {
            name,
            id: name,
            entry,
            own,
        }
    }

    /// Calls back for every name to be listed, once for all spellings that differ in letter case.
    pub(super) fn each_name<'c>(
        &'c self,
        selection: &Selection<'_>,
        mut call: impl FnMut(Item<'c>),
    ) {
        let mut seen = vec![false; self.merged.names.facts.len()];
        for entry in &self.merged.entries {
            if !entry.is_on(&selection.eligible) || !(selection.filter)(entry) {
                continue;
            }
            for places in names(entry) {
                let on = |set: &EndpointSet, place: &Place| set.contains(place.endpoint as usize);
                if !places.iter().any(|place| on(&selection.eligible, place)) {
                    continue;
                }
                let Some(first) = places.first() else {
                    continue;
                };
                let Some(seen) = seen.get_mut(first.fold as usize) else {
                    continue;
                };
                if std::mem::replace(seen, true) {
                    continue;
                }
                call(self.item_at(entry, &places, selection));
            }
        }
    }

    /// The aliases of which some target is shown (docs/contract/catalogue.md#5.10).
    pub(super) fn alias_views<'c>(&'c self, selection: &Selection<'_>) -> Vec<AliasView<'c>> {
        let aliases = self.behind().aliases.iter();
        let listed = aliases.filter(|alias| self.lists(alias));
        listed
            .filter_map(|alias| self.alias_view(alias, &alias.name, selection))
            .collect()
    }

    /// The item of an alias: that of its first target, under the alias's name.
    pub(super) fn alias_item<'c>(
        &'c self,
        alias: &AliasView<'c>,
        selection: &Selection<'_>,
    ) -> Item<'c> {
        let item = self.item_at(alias.entry, &alias.target, selection);
        Item {
            id: alias.name,
            // The name of a hidden model is not shown.
            name: if self.shows(item.name) {
                item.name
            } else {
                alias.name
            },
            ..item
        }
    }

    /// An alias under a name, which is its own or one that it covers; `None` if the selection shows
    /// none of its targets.
    pub(super) fn alias_view<'c>(
        &'c self,
        alias: &'c Alias,
        name: &'c str,
        selection: &Selection<'_>,
    ) -> Option<AliasView<'c>> {
        let mut first = None;
        let mut targets = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        for target in &alias.targets {
            let mut is_available = false;
            for (entry, at) in self.target_places(target, selection) {
                let eligible = |place: &Place| selection.eligible.contains(place.endpoint as usize);
                if at.iter().any(eligible) {
                    is_available = true;
                    places.extend(&at);
                    first.get_or_insert((entry, at));
                }
            }
            if is_available && self.shows(&target.name) {
                targets.push(target.name.as_str());
            }
        }
        places.sort_by_key(|place| place.endpoint);
        places.dedup_by_key(|place| place.endpoint);
        let (entry, target) = first?;
        Some(AliasView {
            name,
            targets,
            entry,
            target,
            places,
        })
    }

    /// The entries that have a target's name and pass the filter, with the places of the name.
    fn target_places<'c>(
        &'c self,
        target: &'c AliasTarget,
        selection: &Selection<'_>,
    ) -> impl Iterator<Item = (&'c Entry, Vec<Place>)> {
        let behind = self.behind();
        let named = behind.target_name(target, &selection.eligible);
        named
            .into_iter()
            .flat_map(|named| named.places(behind))
            .filter(|(entry, _)| (selection.filter)(entry))
            .map(|(entry, places)| (entry, places.copied().collect()))
    }

    pub(super) fn push_item(&self, list: &mut List, format: Format, item: &Item<'_>) {
        let (id, name, entry) = (item.id, item.name, item.entry);
        let created = self.merged.created(entry, &item.own);
        let context = || self.context(item);
        let extra = |fact: fn(&Extra) -> Option<&str>| {
            self.own_fact(item, |model| fact(model.extra.as_deref()?))
        };
        let owned = |default| owner(name, default);
        match format {
            Format::Ollama => self.push_ollama(list, item),
            Format::OllamaTags => list.push(&self.ollama_item(item, Nothing {})),
            Format::LmStudio => self.push_lm_studio(list, item),
            Format::Sglang => self.push_sglang(list, item, created),
            Format::Vllm => list.push(&openai(
                id,
                created,
                owned("vllm"),
                VllmMore {
                    root: name,
                    max_model_len: context(),
                    permission: [Permission::of(name, created)],
                },
            )),
            Format::Lmdeploy => list.push(&openai(
                id,
                created,
                owned("lmdeploy"),
                LmdeployMore {
                    permission: [Permission::of(name, created)],
                },
            )),
            Format::Lemonade => list.push(&openai(
                id,
                created,
                owned("lemonade"),
                LemonadeMore {
                    checkpoint: extra(|extra| extra.checkpoint.as_deref()).unwrap_or(""),
                    recipe: extra(|extra| extra.recipe.as_deref()).unwrap_or(""),
                    downloaded: self
                        .own_fact(item, |model| model.extra.as_ref()?.downloaded)
                        .unwrap_or(false),
                },
            )),
            Format::LlamaCpp => list.push(&openai(id, created, owned("llamacpp"), Nothing {})),
            Format::VllmMlx => list.push(&openai(id, created, owned("vllm-mlx"), Nothing {})),
            Format::DockerModelRunner => {
                list.push(&openai(id, created, owned("docker"), Nothing {}));
            }
            Format::OpenAi | Format::Unified | Format::LmStudioV1 => {
                let context = context();
                let more = OpenAiMore {
                    max_model_len: context,
                    context_length: context,
                    meta: self.fact(item, |model| model.extra.as_ref()?.meta.as_ref()),
                };
                list.push(&openai(id, created, OLLA, more));
            }
        }
    }

    fn push_sglang(&self, list: &mut List, item: &Item<'_>, created: u64) {
        let extra = |model: &'_ ListedModel| model.extra.is_some();
        let listed = item
            .own
            .iter()
            .filter_map(|place| self.merged.listed(place));
        let extra = listed.into_iter().find(|model| extra(model));
        let extra = extra.and_then(|model| model.extra.as_deref());
        let sees = item
            .entry
            .capabilities
            .meets(self.merged.rules.capability("vision"));
        let more = SglangMore {
            root: item.name,
            max_model_len: self.context(item),
            parent: extra.and_then(|extra| extra.parent.as_deref()),
            supports_vision: extra
                .and_then(|extra| extra.supports_vision)
                .or(sees.then_some(true)),
            radix_cache_size: extra.and_then(|extra| extra.radix_cache_size.as_ref()),
            spec_decoding: extra.and_then(|extra| extra.spec_decoding.as_ref()),
            frontend_enabled: extra.and_then(|extra| extra.frontend_enabled),
        };
        list.push(&openai(item.id, created, owner(item.name, "sglang"), more));
    }

    /// The context length that the selection's own endpoints report, else that of the entry.
    pub(super) fn context(&self, item: &Item<'_>) -> Option<u64> {
        let own = item.own.iter();
        context_of(own.filter_map(|place| self.merged.listed(place))).or(item.entry.context_length)
    }

    /// A fact that one of the selection's own endpoints reports.
    pub(super) fn own_fact<'c, T>(
        &'c self,
        item: &Item<'_>,
        fact: impl Fn(&'c ListedModel) -> Option<T>,
    ) -> Option<T> {
        self.merged.first_fact(&item.own, fact)
    }

    /// A fact that one of the selection's own endpoints reports, else any.
    pub(super) fn fact<'c, T>(
        &'c self,
        item: &Item<'_>,
        fact: impl Fn(&'c ListedModel) -> Option<T>,
    ) -> Option<T> {
        self.merged
            .first_fact(&item.own, &fact)
            .or_else(|| self.merged.first_fact(&item.entry.places, &fact))
    }
}

fn openai<'a, P>(id: &'a str, created: u64, owned_by: &'a str, more: P) -> OpenAi<'a, P> {
    OpenAi {
        id,
        object: "model",
        created,
        owned_by,
        more,
    }
}

/// The places of an entry, those of one name together, whatever its letter case.
fn names(entry: &Entry) -> Vec<std::borrow::Cow<'_, [Place]>> {
    let places = &*entry.places;
    let fold = places.first().map(|place| place.fold);
    if places.iter().all(|place| Some(place.fold) == fold) {
        return vec![places.into()];
    }
    let mut order: FxHashMap<u32, usize> = FxHashMap::default();
    let mut groups: Vec<Vec<Place>> = Vec::new();
    for place in places {
        let at = *order.entry(place.fold).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.get_mut(at) {
            group.push(*place);
        }
    }
    groups.into_iter().map(Into::into).collect()
}
