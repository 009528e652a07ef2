//! The listings below one provider's prefix.
//!
//! Contract: docs/contract/catalogue.md#6.5

use std::sync::OnceLock;

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::Catalogue;
use super::formats::Format;
use super::merged::Merged;
use super::render::Selection;
use crate::providers::{OPENAI_COMPATIBLE, Profiles};

/// The prefix that reaches every endpoint.
const PROXY_PREFIX: &str = "proxy";

/// The listing path below every prefix.
const OPENAI_LISTING_PATH: &str = "/v1/models";

/// Below LM Studio's prefixes only.
const LM_STUDIO_LISTING_PATH: &str = "/api/v1/models";

/// The endpoints with the models of a scoped listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingScope<'a> {
    /// The endpoints of one canonical type.
    Type(&'a str),
    /// The endpoints of every OpenAI-compatible type.
    OpenAiCompatible,
}

/// A listing route below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scoped<'a> {
    /// The endpoints of the models.
    pub scope: ListingScope<'a>,
    /// The format of the listing.
    pub format: Format,
}

impl<'a> Scoped<'a> {
    /// The listing at a path below `/olla/<prefix>`; `None` = the path is no listing. `rest`
    /// begins with a slash and has no query.
    pub fn at(profiles: &'a Profiles, prefix: &str, rest: &str) -> Option<Self> {
        let openai = |scope| Self {
            scope,
            format: Format::OpenAi,
        };
        if prefix == PROXY_PREFIX {
            return (rest == OPENAI_LISTING_PATH).then_some(openai(ListingScope::OpenAiCompatible));
        }
        let profile = profiles.by_prefix(prefix)?;
        let scope = if profile.name == OPENAI_COMPATIBLE {
            ListingScope::OpenAiCompatible
        } else {
            ListingScope::Type(&profile.name)
        };
        if profile.native_listing_path.as_deref() == Some(rest) {
            let format = Format::native(profile);
            return Some(Self { scope, format });
        }
        let is_listing = match rest {
            OPENAI_LISTING_PATH => profile.openai_compatible,
            LM_STUDIO_LISTING_PATH => Format::native(profile) == Format::LmStudio,
            _ => false,
        };
        is_listing.then_some(openai(scope))
    }
}

/// A listing that clients are likely to ask for, rendered once.
#[derive(Debug)]
pub(super) struct Ready {
    /// `None` = every OpenAI-compatible type.
    kind: Option<String>,
    format: Format,
    body: OnceLock<Bytes>,
}

impl Ready {
    fn scoped(&self) -> Scoped<'_> {
        let kind = self.kind.as_deref();
        Scoped {
            scope: kind.map_or(ListingScope::OpenAiCompatible, ListingScope::Type),
            format: self.format,
        }
    }
}

impl Catalogue {
    /// A listing below a provider's prefix. Every query is ignored there.
    pub fn scoped(&self, scoped: Scoped<'_>) -> Bytes {
        let mut ready = self.scoped.iter();
        match ready.find(|ready| ready.scoped() == scoped) {
            Some(ready) => self.ready_listing(ready),
            // A type without endpoints, or a format that no known path asks for.
            None => self.render_scope(scoped),
        }
    }

    /// The same if it takes little time; `None` if rendering takes longer.
    pub fn scoped_at_once(&self, scoped: Scoped<'_>) -> Option<Bytes> {
        if !self.is_large() {
            return Some(self.scoped(scoped));
        }
        let mut ready = self.scoped.iter();
        let ready = ready.find(|ready| ready.scoped() == scoped)?;
        ready.body.get().cloned()
    }

    pub(super) fn ready_listing(&self, ready: &Ready) -> Bytes {
        let render = || self.render_scope(ready.scoped());
        ready.body.get_or_init(render).clone()
    }

    fn render_scope(&self, scoped: Scoped<'_>) -> Bytes {
        let members = match scoped.scope {
            ListingScope::Type(kind) => self.merged.endpoints_of(|profile| profile.name == kind),
            ListingScope::OpenAiCompatible => self
                .merged
                .endpoints_of(|profile| profile.openai_compatible),
        };
        let eligible = members.and(&self.routable);
        self.render(
            scoped.format,
            &Selection {
                filter: &|_| true,
                eligible,
                own: eligible,
            },
        )
    }
}

/// The listings of all types that have endpoints, not rendered yet.
pub(super) fn usual(merged: &Merged) -> Vec<Ready> {
    let ready = |kind: Option<&str>, format| Ready {
        kind: kind.map(str::to_owned),
        format,
        body: OnceLock::new(),
    };
    let mut all = vec![ready(None, Format::OpenAi)];
    let mut known: FxHashSet<&str> = FxHashSet::default();
    for member in &merged.endpoints {
        let profile = &member.profile;
        if !known.insert(&profile.name) {
            continue;
        }
        all.push(ready(Some(&profile.name), Format::OpenAi));
        let native = Format::native(profile);
        if profile.native_listing_path.is_some() && native != Format::OpenAi {
            all.push(ready(Some(&profile.name), native));
        }
    }
    all
}
