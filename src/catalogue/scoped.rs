//! The listings below one provider's prefix.
//!
//! Contract: docs/contract/catalogue.md#6.5, docs/contract/dialects.md#11

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use rustc_hash::FxHashSet;

use super::formats::Format;
use super::merged::Merged;
use super::render::{Item, Selection};
use super::{Catalogue, CatalogueError};
use crate::endpoint_set::EndpointSet;
use crate::providers::{OPENAI_COMPATIBLE, Profile};

/// The forms of a listing below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListingForm {
    /// The form of OpenAI.
    OpenAi,
    /// The form of the prefix's own profile.
    Native,
    /// The form of OpenAI, with the list of LM Studio's version 1 beside it
    /// (docs/contract/dialects.md#17).
    LmStudioV1,
    /// The form of Ollama.
    Ollama,
}

/// A listing below a prefix.
#[derive(Debug, Clone)]
pub(crate) struct Scoped {
    /// The profile of the prefix; `None` for `/olla/proxy/`, which reaches every endpoint.
    pub profile: Option<Arc<Profile>>,
    /// The form of the listing.
    pub form: ListingForm,
}

/// The endpoints with the models of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListingScope<'a> {
    /// The endpoints of one canonical type.
    Type(&'a str),
    /// The endpoints of every OpenAI-compatible type.
    OpenAiCompatible,
    /// All endpoints.
    All,
}

impl Scoped {
    /// Whether another listing has the same content.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.scope() == other.scope() && self.format() == other.format()
    }

    fn scope(&self) -> ListingScope<'_> {
        match &self.profile {
            Some(profile) if profile.name != OPENAI_COMPATIBLE => ListingScope::Type(&profile.name),
            None if self.form == ListingForm::Ollama => ListingScope::All,
            _ => ListingScope::OpenAiCompatible,
        }
    }

    fn format(&self) -> Format {
        match (&self.profile, self.form) {
            (_, ListingForm::Ollama) => Format::OllamaTags,
            (Some(profile), ListingForm::Native) => native(profile),
            (_, ListingForm::LmStudioV1) => Format::LmStudioV1,
            _ => Format::OpenAi,
        }
    }
}

/// A listing that clients are likely to ask for, rendered once.
#[derive(Debug)]
pub(super) struct Ready {
    scope: ReadyScope,
    format: Format,
    body: OnceLock<Bytes>,
}

/// [`ListingScope`] without a borrowed name.
#[derive(Debug)]
enum ReadyScope {
    Type(String),
    OpenAiCompatible,
    All,
}

impl Ready {
    fn scope(&self) -> ListingScope<'_> {
        match &self.scope {
            ReadyScope::Type(kind) => ListingScope::Type(kind),
            ReadyScope::OpenAiCompatible => ListingScope::OpenAiCompatible,
            ReadyScope::All => ListingScope::All,
        }
    }
}

impl Catalogue {
    /// A listing below a provider's prefix. Every query is ignored there.
    pub(crate) fn scoped(&self, scoped: &Scoped) -> Bytes {
        match self.ready(scoped) {
            Some(ready) => self.ready_listing(ready),
            // A type without endpoints, or a format that no known path asks for.
            None => self.render_scope(scoped.scope(), scoped.format()),
        }
    }

    /// The same if it takes little time; `None` if rendering takes longer.
    pub(crate) fn scoped_at_once(&self, scoped: &Scoped) -> Option<Bytes> {
        if !self.is_large() {
            return Some(self.scoped(scoped));
        }
        self.ready(scoped)?.body.get().cloned()
    }

    /// One item of a listing below a prefix. The id is the end of the path as it was sent: a name or
    /// an alias, in any letter case, percent-encoded or not.
    ///
    /// # Errors
    /// No endpoint of the listing's types lists such a model, or all that do are down
    /// (docs/contract/catalogue.md#6.7).
    pub(crate) fn scoped_model(
        &self,
        scoped: &Scoped,
        id_as_in_path: &str,
    ) -> Result<Bytes, CatalogueError> {
        let id = percent_decode_str(id_as_in_path).decode_utf8_lossy();
        let members = self.members(scoped.scope());
        let format = scoped.format();
        let item_named = |name: &str, by_cover| {
            self.item_named(&members, name, by_cover, |item| self.one(format, item))
        };
        let Some(plain) = id.strip_suffix('/') else {
            return item_named(&id, true);
        };
        // A pattern would also cover the name with the slash.
        match item_named(&id, false) {
            Err(error) if error.status == 404 => item_named(plain, true),
            found => found,
        }
    }

    /// The description of a model in the form of Ollama's `/api/show`
    /// (docs/contract/dialects.md#11.2).
    ///
    /// # Errors
    /// As for [`Self::scoped_model`].
    pub(crate) fn describe(&self, scoped: &Scoped, name: &str) -> Result<Bytes, CatalogueError> {
        let members = self.members(scoped.scope());
        self.item_named(&members, name, true, |item| self.description(item))
    }

    /// What becomes of the item for a name, with `by_cover` also one that only covers it, by the order of docs/contract/balancing.md#4.3. A model comes before the
    /// alias of its name, as in the listing.
    fn item_named(
        &self,
        members: &EndpointSet,
        name: &str,
        by_cover: bool,
        write: impl Fn(&Item<'_>) -> Bytes,
    ) -> Result<Bytes, CatalogueError> {
        let eligible = members.and(&self.routable);
        let among = |eligible| Selection {
            filter: &|_| true,
            eligible,
            own: eligible,
        };
        let served = among(eligible);
        if let Some((entry, fold)) = self.merged.entry_by_name(name, &eligible)
            && let Some(item) = self.item_of(entry, fold, &served)
        {
            return Ok(write(&item));
        }
        let is_known = self.merged.entry_by_name(name, members).is_some();
        let named = self.alias_named(name);
        let alias = match named {
            Some(alias) => Some((alias, &*alias.name)),
            None if is_known || !by_cover => None,
            None => self.alias_covering(name).map(|alias| (alias, name)),
        };
        if let Some((alias, shown)) = alias {
            if let Some(view) = self.alias_view(alias, shown, &served) {
                return Ok(write(&self.alias_item(&view, &served)));
            }
            if self.alias_view(alias, shown, &among(*members)).is_some() {
                return Err(CatalogueError::unavailable(name));
            }
        }
        match is_known {
            true => Err(CatalogueError::unavailable(name)),
            false => Err(CatalogueError::not_found(name)),
        }
    }

    fn ready(&self, scoped: &Scoped) -> Option<&Ready> {
        let (scope, format) = (scoped.scope(), scoped.format());
        let mut ready = self.scoped.iter();
        ready.find(|ready| ready.format == format && ready.scope() == scope)
    }

    pub(super) fn ready_listing(&self, ready: &Ready) -> Bytes {
        let render = || self.render_scope(ready.scope(), ready.format);
        ready.body.get_or_init(render).clone()
    }

    fn render_scope(&self, scope: ListingScope<'_>, format: Format) -> Bytes {
        let eligible = self.members(scope).and(&self.routable);
        self.render(
            format,
            &Selection {
                filter: &|_| true,
                eligible,
                own: eligible,
            },
        )
    }

    /// The endpoints of a scope's types.
    fn members(&self, scope: ListingScope<'_>) -> EndpointSet {
        match scope {
            ListingScope::Type(kind) => self.merged.endpoints_of(|profile| profile.name == kind),
            ListingScope::All => EndpointSet::first(self.merged.endpoints.len()),
            ListingScope::OpenAiCompatible => self
                .merged
                .endpoints_of(|profile| profile.openai_compatible),
        }
    }
}

/// The format of a type's native listing on its own route.
fn native(profile: &Profile) -> Format {
    match Format::native(profile) {
        Format::Ollama => Format::OllamaTags,
        other => other,
    }
}

/// The listings of all types that have endpoints, not rendered yet.
pub(super) fn usual(merged: &Merged) -> Vec<Ready> {
    let ready = |scope, format| Ready {
        scope,
        format,
        body: OnceLock::new(),
    };
    let mut all = vec![
        ready(ReadyScope::OpenAiCompatible, Format::OpenAi),
        ready(ReadyScope::All, Format::OllamaTags),
    ];
    let mut known: FxHashSet<&str> = FxHashSet::default();
    for member in &merged.endpoints {
        let profile = &member.profile;
        if !known.insert(&profile.name) {
            continue;
        }
        let own = || ReadyScope::Type(profile.name.clone());
        all.push(ready(own(), Format::OpenAi));
        let native = native(profile);
        if profile.native_listing_path.is_some() && native != Format::OpenAi {
            all.push(ready(own(), native));
        }
        if native == Format::LmStudio {
            all.push(ready(own(), Format::LmStudioV1));
        }
    }
    all
}
