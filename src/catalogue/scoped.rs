//! The listings below one provider's prefix.
//!
//! contract: catalogue 6.5

use bytes::Bytes;

use super::Catalogue;
use super::formats::Format;
use super::render::Selection;
use crate::fleet::EndpointSet;
use crate::providers::{OPENAI_COMPATIBLE, Profile, Profiles};

/// The prefix that reaches every endpoint.
const PROXY_PREFIX: &str = "proxy";

/// The listing path below every prefix.
const OPENAI_LISTING_PATH: &str = "/v1/models";

/// Below LM Studio's prefixes only.
const LM_STUDIO_LISTING_PATH: &str = "/api/v1/models";

/// Which endpoints' models a scoped listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Those of one canonical type.
    Type(&'a str),
    /// Those of every type that is OpenAI-compatible.
    OpenAiCompatible,
}

/// A listing route below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scoped<'a> {
    /// Whose models.
    pub scope: Scope<'a>,
    /// How they are written.
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
            return (rest == OPENAI_LISTING_PATH).then_some(openai(Scope::OpenAiCompatible));
        }
        let profile = profiles.by_prefix(prefix)?;
        let scope = if profile.name == OPENAI_COMPATIBLE {
            Scope::OpenAiCompatible
        } else {
            Scope::Type(&profile.name)
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

/// A listing that was rendered when the catalogue was built.
#[derive(Debug)]
pub(super) struct Ready {
    /// `None` = every OpenAI-compatible type.
    kind: Option<String>,
    format: Format,
    body: Bytes,
}

impl Catalogue {
    /// A listing below a provider's prefix. Every query is ignored there.
    pub fn scoped(&self, scoped: Scoped<'_>) -> Bytes {
        let kind = match scoped.scope {
            Scope::Type(kind) => Some(kind),
            Scope::OpenAiCompatible => None,
        };
        let mut ready = self.scoped.iter();
        let found =
            ready.find(|ready| ready.kind.as_deref() == kind && ready.format == scoped.format);
        // What was not rendered has no endpoint, or is not asked for by any known path.
        found.map_or_else(|| self.render_scope(scoped), |ready| ready.body.clone())
    }

    pub(super) fn render_scoped(&self) -> Vec<Ready> {
        let openai = Scoped {
            scope: Scope::OpenAiCompatible,
            format: Format::OpenAi,
        };
        let mut all = vec![self.ready(openai)];
        let mut profiles: Vec<&Profile> = Vec::new();
        for member in &self.endpoints {
            if !profiles
                .iter()
                .any(|known| known.name == member.profile.name)
            {
                profiles.push(&member.profile);
            }
        }
        for profile in profiles {
            let scope = Scope::Type(&profile.name);
            let mut formats = vec![Format::OpenAi];
            if profile.native_listing_path.is_some() {
                formats.push(Format::native(profile));
            }
            formats.dedup();
            for format in formats {
                all.push(self.ready(Scoped { scope, format }));
            }
        }
        all
    }

    fn ready(&self, scoped: Scoped<'_>) -> Ready {
        let kind = match scoped.scope {
            Scope::Type(kind) => Some(kind.to_owned()),
            Scope::OpenAiCompatible => None,
        };
        Ready {
            kind,
            format: scoped.format,
            body: self.render_scope(scoped),
        }
    }

    fn render_scope(&self, scoped: Scoped<'_>) -> Bytes {
        let members = match scoped.scope {
            Scope::Type(kind) => self.endpoints_of(|profile| profile.name == kind),
            Scope::OpenAiCompatible => self.endpoints_of(|profile| profile.openai_compatible),
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

    pub(super) fn endpoints_of(&self, wanted: impl Fn(&Profile) -> bool) -> EndpointSet {
        let members = self.endpoints.iter().enumerate();
        let members = members.filter(|(_, member)| wanted(&member.profile));
        members.map(|(at, _)| at).collect()
    }
}
