//! One provider prefix below `/olla/`, and its listings.
//!
//! Contract: docs/contract/catalogue.md#6.5

use std::sync::Arc;

use super::scope::ScopeId;
use crate::catalogue::{ListingForm, Scoped};
use crate::providers::Profile;

/// One `/olla/<prefix>`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prefix {
    /// The prefix without slashes.
    pub name: Box<str>,
    /// Its profile; `None` for `proxy`, which serves all.
    pub profile: Option<Arc<Profile>>,
    /// Which endpoints it reaches.
    pub scope: ScopeId,
    /// The paths of its listings, each with its leading slash.
    listings: Box<[(Box<[u8]>, ListingForm)]>,
    /// Paths below a listing that are no ids, because a server declares them.
    declared: Box<[Box<[u8]>]>,
}

/// LM Studio has a second OpenAI listing, of no other profile (docs/contract/catalogue.md#6.5).
const LM_STUDIO_LISTING: &[u8] = b"/api/v1/models";
const OPENAI_LISTING: &[u8] = b"/v1/models";
/// For base URLs without `v1`.
const SHORT_LISTING: &[u8] = b"/models";

/// The declared paths of these profiles that are below an OpenAI listing, such as oMLX's
/// `/v1/models/status`.
fn declared_below(profiles: &[Arc<Profile>]) -> Box<[Box<[u8]>]> {
    let paths = profiles.iter().flat_map(|profile| &profile.paths);
    let below = paths.filter(|path| {
        let inner = path.as_bytes().strip_prefix(OPENAI_LISTING);
        inner.is_some_and(|inner| inner.starts_with(b"/"))
    });
    below.map(|path| path.as_bytes().into()).collect()
}

impl Prefix {
    pub(super) fn universal(profiles: &[Arc<Profile>]) -> Self {
        Self {
            name: "proxy".into(),
            profile: None,
            scope: ScopeId::Any,
            listings: [OPENAI_LISTING, SHORT_LISTING]
                .map(|path| (path.into(), ListingForm::OpenAi))
                .into(),
            declared: declared_below(profiles),
        }
    }

    pub(super) fn of(
        name: &str,
        profiles: &[Arc<Profile>],
        profile: &Arc<Profile>,
        place: usize,
    ) -> Self {
        let scope = ScopeId::of(profile, place);
        let reached = match scope {
            ScopeId::Type(_) => std::slice::from_ref(profile),
            ScopeId::Any | ScopeId::OpenAi => profiles,
        };
        Self {
            name: name.into(),
            profile: Some(Arc::clone(profile)),
            scope,
            listings: listings_of(profile),
            declared: declared_below(reached),
        }
    }

    /// The provider that messages name; `None` below `/olla/proxy/`.
    pub(crate) fn provider(&self) -> Option<&str> {
        self.profile.as_ref().map(|_| &*self.name)
    }

    /// Its listing in one form.
    pub(crate) fn scoped(&self, form: ListingForm) -> Scoped {
        Scoped {
            profile: self.profile.clone(),
            form,
        }
    }

    fn is(&self, kind: &str) -> bool {
        self.profile.as_ref().is_some_and(|p| p.name == kind)
    }

    /// The form of a listing, and what follows its path: nothing, or the id of a model.
    pub(super) fn listing<'p>(&self, rest: &'p [u8]) -> Option<(ListingForm, &'p [u8])> {
        self.listings.iter().find_map(|(path, form)| {
            let id = match rest.strip_prefix(&**path)? {
                b"" | b"/" => b"",
                below => below.strip_prefix(b"/")?,
            };
            let is_forwarded = || {
                // Ollama's own list has no items with a path.
                *form == ListingForm::Native && self.is("ollama")
                    || self.declared.iter().any(|declared| **declared == *rest)
            };
            (id.is_empty() || !is_forwarded()).then_some((*form, id))
        })
    }
}

/// The paths of a profile's listings (docs/contract/catalogue.md#6.5).
fn listings_of(profile: &Profile) -> Box<[(Box<[u8]>, ListingForm)]> {
    let mut listings: Vec<(Box<[u8]>, ListingForm)> = Vec::new();
    let mut add = |path: &[u8], form| {
        if !listings.iter().any(|(known, _)| **known == *path) {
            listings.push((path.into(), form));
        }
    };
    if profile.openai_compatible {
        add(OPENAI_LISTING, ListingForm::OpenAi);
    }
    if let Some(native) = &profile.native_listing_path {
        let path = format!("/{}", native.trim_start_matches('/'));
        if path.as_bytes() != OPENAI_LISTING {
            add(path.as_bytes(), ListingForm::Native);
        }
    }
    if profile.name == "lm-studio" {
        add(LM_STUDIO_LISTING, ListingForm::LmStudioV1);
    }
    if profile.openai_compatible {
        add(SHORT_LISTING, ListingForm::OpenAi);
    }
    listings.into()
}
