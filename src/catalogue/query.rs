//! The query of `/olla/models`: its parameters, and the entries that match it.
//!
//! Contract: docs/contract/catalogue.md#6.2

use std::borrow::Cow;

use url::form_urlencoded;

use super::entry::{Entry, LOADED, state};
use super::formats::Format;
use super::{Capabilities, Catalogue, CatalogueError};
use crate::providers::ModelKind;

/// States in which a model is available or will be soon.
const AVAILABLE: [&str; 4] = [LOADED, "available", "loading", "unknown"];

/// The longest part of an invalid value that an error message repeats, in characters.
const MAX_ECHO_CHARS: usize = 100;

/// The parameters.
const NAMES: [&str; 7] = [
    "format",
    "family",
    "type",
    "capability",
    "endpoint",
    "available",
    "include_unavailable",
];

/// A type that no model has.
const NO_TYPE: &str = "-";

/// The parsed query.
#[derive(Debug, PartialEq)]
pub(super) struct Query<'q> {
    pub(super) format: Format,
    family: Option<Cow<'q, str>>,
    does: Does<'q>,
    endpoint: Option<Cow<'q, str>>,
    available: Option<bool>,
    pub(super) include_unavailable: bool,
}

/// `type` and `capability`, of which the latter wins.
#[derive(Debug, PartialEq)]
enum Does<'q> {
    Anything,
    ModelKind(ModelKind),
    Capability(Cow<'q, str>),
    /// A type that no model has.
    Nothing,
}

impl<'q> Query<'q> {
    /// Parses the query, without its `?`.
    ///
    /// # Errors
    /// An unknown format, or a value of `available` that is neither `true` nor `false`.
    pub(super) fn parse(query: &'q str) -> Result<Self, CatalogueError> {
        // Of a repeated parameter the first value counts; an empty value counts as missing.
        let mut pairs = [const { None::<Cow<'q, str>> }; 7];
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let mut slots = NAMES.iter().zip(&mut pairs);
            if let Some((_, slot)) = slots.find(|(name, _)| **name == key) {
                slot.get_or_insert(value);
            }
        }
        let [
            format,
            family,
            kind,
            capability,
            endpoint,
            available,
            include_unavailable,
        ] = pairs.map(|value| value.filter(|value| !value.is_empty()));
        let available = match available.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => {
                let message = format!(
                    "available: expected true or false, got {:?}",
                    shortened(other)
                );
                return Err(CatalogueError::bad_request("INVALID_PARAMETER", message));
            }
        };
        Ok(Self {
            format: format.map_or(Ok(Format::Unified), |word| parse_format(&word))?,
            family,
            does: does(kind, capability),
            endpoint,
            available,
            include_unavailable: include_unavailable.as_deref() == Some("true"),
        })
    }

    /// Whether the query has no parameter but the format.
    pub(super) fn is_plain(&self) -> bool {
        self.family.is_none()
            && self.does == Does::Anything
            && self.endpoint.is_none()
            && self.available.is_none()
            && !self.include_unavailable
    }
}

fn does<'q>(kind: Option<Cow<'q, str>>, capability: Option<Cow<'q, str>>) -> Does<'q> {
    match (capability, kind) {
        (Some(word), _) => match word.to_lowercase().as_str() {
            "vision" | "multimodal" => Does::ModelKind(ModelKind::Vlm),
            "embedding" | "embeddings" | "vector_search" => Does::ModelKind(ModelKind::Embeddings),
            "chat" | "text_generation" | "completion" => Does::ModelKind(ModelKind::Llm),
            _ => Does::Capability(word),
        },
        (None, Some(word)) => ModelKind::parse(&word).map_or(Does::Nothing, Does::ModelKind),
        (None, None) => Does::Anything,
    }
}

fn parse_format(word: &str) -> Result<Format, CatalogueError> {
    Format::parse(word).ok_or_else(|| {
        let supported: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        let message = format!(
            "unknown format {:?}; supported are {}",
            shortened(word),
            supported.join(", ")
        );
        CatalogueError::bad_request("INVALID_FORMAT", message)
    })
}

/// The beginning of a client's value, for a message.
pub(super) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_ECHO_CHARS);
    text.get(..end.map_or(text.len(), |(at, _)| at))
        .unwrap_or(text)
}

impl Catalogue {
    /// A query in the one form of all that list the same, as far as that takes no listing to know:
    /// requests for them share one rendering.
    pub(crate) fn relevant(&self, query: &str) -> String {
        let Ok(parsed) = Query::parse(query) else {
            return query.to_owned();
        };
        let mut kept = form_urlencoded::Serializer::new(String::new());
        if parsed.format != Format::Unified {
            kept.append_pair("format", parsed.format.as_str());
        }
        if self.matches_nothing(&parsed) {
            kept.append_pair("type", NO_TYPE);
            return kept.finish();
        }
        if let Some(family) = &parsed.family {
            kept.append_pair("family", &family.to_lowercase());
        }
        match &parsed.does {
            Does::ModelKind(kind) => kept.append_pair("type", kind.as_str()),
            Does::Capability(word) => kept.append_pair("capability", &word.to_ascii_lowercase()),
            Does::Anything | Does::Nothing => &mut kept,
        };
        if let Some(endpoint) = &parsed.endpoint {
            kept.append_pair("endpoint", endpoint);
        }
        if let Some(available) = parsed.available {
            kept.append_pair("available", if available { "true" } else { "false" });
        }
        if parsed.include_unavailable {
            kept.append_pair("include_unavailable", "true");
        }
        kept.finish()
    }

    /// Whether a parameter has a value that no entry matches.
    fn matches_nothing(&self, query: &Query<'_>) -> bool {
        let merged = &self.merged;
        let families = &merged.families;
        let is_family = |name: &str| families.contains(&name.to_lowercase());
        let is_endpoint = |name: &str| merged.endpoints.iter().any(|known| *known.name == *name);
        let does_something = match &query.does {
            Does::Capability(word) => merged.rules.capability(word) != Capabilities::default(),
            Does::Anything | Does::ModelKind(_) => true,
            Does::Nothing => false,
        };
        !does_something
            || query.family.as_deref().is_some_and(|name| !is_family(name))
            || query
                .endpoint
                .as_deref()
                .is_some_and(|name| !is_endpoint(name))
    }

    /// A filter for entries; names in the query are looked up once.
    pub(super) fn filter<'s>(&'s self, query: &'s Query<'_>) -> impl Fn(&Entry) -> bool + 's {
        let word = match &query.does {
            Does::Capability(word) => self.merged.rules.capability(word),
            _ => Capabilities::default(),
        };
        let endpoint = query.endpoint.as_deref().map(|name| {
            let mut members = self.merged.endpoints.iter();
            members.position(|member| *member.name == *name)
        });
        move |entry| {
            (query.include_unavailable || entry.is_on(&self.routable))
                && self.is_at(entry, endpoint, query.include_unavailable)
                && query
                    .family
                    .as_deref()
                    .is_none_or(|family| same_ignoring_case(family, &entry.family))
                && match &query.does {
                    Does::Anything => true,
                    Does::ModelKind(kind) => entry.kind == *kind,
                    Does::Capability(_) => entry.capabilities.meets(word),
                    Does::Nothing => false,
                }
                && query
                    .available
                    .is_none_or(|wanted| self.is_available(entry) == wanted)
        }
    }

    /// Whether the named endpoint has the entry; an endpoint that is not routable counts only on
    /// request.
    fn is_at(&self, entry: &Entry, endpoint: Option<Option<usize>>, also_down: bool) -> bool {
        let Some(named) = endpoint else {
            return true;
        };
        named.is_some_and(|index| {
            (also_down || self.routable.contains(index))
                && entry
                    .places
                    .iter()
                    .any(|place| place.endpoint as usize == index)
        })
    }

    fn is_available(&self, entry: &Entry) -> bool {
        let mut up = entry
            .places
            .iter()
            .filter(|place| self.routable.contains(place.endpoint as usize));
        up.any(|place| {
            self.merged
                .listed(place)
                .is_some_and(|model| AVAILABLE.contains(&state(model)))
        })
    }
}

fn same_ignoring_case(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase())
}
