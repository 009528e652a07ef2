//! Matches a path to a route, with a table of prefixes that is built once for each set of profiles.
//!
//! Fixed routes come first, then the prefix; both are matched exactly and with regard to letter
//! case. Finding a route allocates nothing. This module must not send responses or look at
//! endpoints.
//!
//! Contract: docs/contract/surface.md#2, docs/contract/catalogue.md#6,
//! docs/contract/translation.md#1, docs/contract/dialects.md#2

mod below;

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::management::Management;
use super::path::ROOT;
use super::prefix::Prefix;
use crate::catalogue::ListingForm;
use crate::config::TranslatorsPlan;
use crate::dialects::{
    ApiFamily, COMMON_ROUTES, CommonRoutes, Dialect, DialectRoute, MOUNTS, Mount, Operation,
};
use crate::providers::{CommonOperation, Profile};

const GET: &str = "GET, HEAD";

/// What a path leads to, and where in the path its own part begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatchedRoute {
    /// The kind of route.
    pub kind: RouteKind,
    /// The form of its errors.
    errors: ApiFamily,
    /// Offset of [`Self::rest`] in the path that was matched.
    rest: usize,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RouteKind {
    /// Forwarded to an endpoint of the prefix's scope; the rest is what follows the prefix. An
    /// operation reaches every type of the scope, each at its own path.
    Proxy(PrefixId, Option<CommonOperation>),
    /// The models of the prefix's endpoints, listed by the gateway
    /// (docs/contract/catalogue.md#6.5).
    Listing(PrefixId, ListingForm),
    /// One item of such a listing; the rest is its id, percent escapes as sent.
    ListedModel(PrefixId, ListingForm),
    /// Model management below any prefix (docs/contract/catalogue.md#6.6); the rest is what follows
    /// the prefix.
    Management(PrefixId, Management),
    /// `/olla/models`.
    Models,
    /// `/olla/models/{id}`; the rest is the id, percent escapes as sent, empty for `/olla/models/`.
    Model,
    /// `/olla/key`: what a client sees of its key.
    Key,
    /// A dialect's own route, for the prefix's scope; the rest is what follows the prefix. Below a
    /// dialect's own prefix it is what follows the route's path.
    Dialect(ApiFamily, &'static DialectRoute, PrefixId),
    /// `/`, for clients and people who look whether a server is there.
    Root,
    /// Below `/internal/`; which pages exist is for the operations to say. The rest is everything
    /// after `/internal/`.
    Internal,
    /// `/internal/ui` and below; the rest is empty or begins with `/`.
    Dashboard,
    /// `/version`.
    Version,
    /// No route; the family says what the error looks like.
    Unknown(ApiFamily),
}

/// A prefix of one [`RouteTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixId(u16);

impl PrefixId {
    /// `/olla/proxy/`, which every table has first.
    const ALL: Self = Self(0);
}

/// Which of the clients' limits a route is under (docs/contract/surface.md#10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// No limit.
    Free,
    /// The global limit and the limit of the client's address.
    Proxied,
    /// The limit of the health route.
    Health,
    /// The limit of pages and listings.
    Pages,
}

impl MatchedRoute {
    /// No route of this family.
    pub(crate) const fn unknown(family: ApiFamily) -> Self {
        Self {
            kind: RouteKind::Unknown(family),
            errors: family,
            rest: 0,
        }
    }

    /// The part of the path that is the route's own; `path` is the one that was matched.
    pub(crate) fn rest<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        // An empty path is matched as `/`, which is longer.
        match (self.kind, path.get(self.rest..).unwrap_or(b"")) {
            // `/olla/<prefix>` counts as `/olla/<prefix>/`.
            (RouteKind::Proxy(..), b"") => b"/",
            (_, rest) => rest,
        }
    }

    /// What is variable in the path of a dialect's route: an id, and what follows it.
    pub(crate) fn own<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match self.kind {
            RouteKind::Dialect(_, route, _) => below::own(route, self.rest(path)),
            _ => self.rest(path),
        }
    }

    /// The methods of a fixed route, in the form of `Allow`; `None` = any method.
    pub(crate) const fn allow(&self) -> Option<&'static str> {
        match self.kind {
            RouteKind::Proxy(..) | RouteKind::Management(..) | RouteKind::Unknown(_) => None,
            RouteKind::Dialect(_, route, _) => Some(route.allow),
            _ => Some(GET),
        }
    }

    /// Whether the route has a method. A path of [`RouteKind::Internal`] that does not exist is to
    /// be found missing before its method is found wrong.
    pub(crate) fn admits(&self, method: &[u8]) -> bool {
        self.allow().is_none_or(|allow| {
            let mut methods = allow.split(", ");
            methods.any(|allowed| allowed.as_bytes() == method)
        })
    }

    /// The limits that a request on this route takes a token of. Management that is refused is
    /// refused before limits are looked at.
    pub(crate) fn limit(&self, path: &[u8]) -> Limit {
        match self.kind {
            _ if self.is_limited() => Limit::Proxied,
            RouteKind::Internal if self.rest(path) == b"health" => Limit::Health,
            RouteKind::Unknown(_) => Limit::Free,
            _ => Limit::Pages,
        }
    }

    /// Whether its requests count as those of a client: of rate limits and of the limits of keys.
    pub(crate) fn is_limited(&self) -> bool {
        match self.kind {
            RouteKind::Proxy(..) | RouteKind::Management(..) => true,
            RouteKind::Dialect(_, route, _) => !route.operation.is_listing(),
            _ => false,
        }
    }

    /// The API family of its requests.
    pub(crate) const fn family(&self) -> ApiFamily {
        match self.kind {
            RouteKind::Dialect(family, ..) | RouteKind::Unknown(family) => family,
            _ => ApiFamily::OpenAi,
        }
    }

    /// Whether a request that arrived on another route may go on by this one.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let operation = |route: &Self| match route.kind {
            RouteKind::Dialect(_, dialect, _) => Some(dialect.path),
            _ => None,
        };
        self.family() == other.family() && operation(self) == operation(other)
    }

    /// The API family that its errors have the form of.
    pub(crate) const fn errors(&self) -> ApiFamily {
        self.errors
    }

    /// The dialect of one of its requests.
    pub(crate) fn begin(&self) -> Dialect {
        match self.kind {
            RouteKind::Dialect(_, route, _) => route.begin(),
            _ => Dialect::Plain,
        }
    }

    /// Whether one of its requests may reach an endpoint in any form.
    pub(crate) const fn may_reach_endpoint(&self) -> bool {
        let computes = match self.kind {
            RouteKind::Dialect(_, route, _) => matches!(route.operation, Operation::Compute(_)),
            _ => false,
        };
        self.is_proxied() || computes
    }

    /// Whether its requests go to an endpoint, so that they count as requests of clients.
    pub(crate) const fn is_proxied(&self) -> bool {
        match self.kind {
            RouteKind::Proxy(..) | RouteKind::Management(..) => true,
            RouteKind::Dialect(_, route, _) => {
                matches!(
                    route.operation,
                    Operation::Serve(_) | Operation::Describe | Operation::Stored(_)
                )
            }
            _ => false,
        }
    }
}

/// All routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    /// The prefixes by name.
    ids: FxHashMap<Box<[u8]>, PrefixId>,
    prefixes: Vec<Prefix>,
    /// The mounts of the translators that are enabled.
    mounts: Vec<&'static Mount>,
    /// The routes below every prefix of the translators that are enabled.
    common: Vec<&'static CommonRoutes>,
    /// The prefix of Ollama's own endpoints.
    ollama: Option<PrefixId>,
    /// Whether there are routes at the root.
    has_root: bool,
}

impl RouteTable {
    /// The routes of the profiles in force, each with the prefixes that it keeps, as
    /// `Profiles::all` has them; the scopes must be made of the same list.
    pub(crate) fn new(
        profiles: &[Arc<Profile>],
        translators: &TranslatorsPlan,
        has_root: bool,
    ) -> Self {
        let is_enabled = |family: ApiFamily| family.is_enabled(translators);
        let mounts = MOUNTS.iter().filter(|mount| is_enabled(mount.family));
        let common = COMMON_ROUTES.iter();
        let mut table = Self {
            ids: FxHashMap::default(),
            prefixes: Vec::new(),
            mounts: mounts.collect(),
            common: common.filter(|routes| is_enabled(routes.family)).collect(),
            ollama: None,
            has_root,
        };
        table.add(Prefix::universal(profiles));
        for (place, profile) in profiles.iter().enumerate() {
            for name in &profile.prefixes {
                table.add(Prefix::of(name, profiles, profile, place));
            }
        }
        table.ollama = table.ids.get(&b"ollama"[..]).copied();
        table
    }

    /// The first prefix of a name counts.
    fn add(&mut self, prefix: Prefix) {
        // A configuration with more prefixes than that does not exist; the rest would have no
        // route.
        let Ok(next) = u16::try_from(self.prefixes.len()) else {
            return;
        };
        let entry = self.ids.entry(prefix.name.as_bytes().into());
        if let Entry::Vacant(vacant) = entry {
            vacant.insert(PrefixId(next));
            self.prefixes.push(prefix);
        }
    }

    /// A prefix that this table has named.
    ///
    /// # Panics
    /// When the id is another table's.
    pub(crate) fn prefix(&self, id: PrefixId) -> &Prefix {
        &self.prefixes[usize::from(id.0)]
    }

    /// The route of a request, by its method and its path in normal form.
    pub(crate) fn route(&self, method: &[u8], path: &[u8]) -> MatchedRoute {
        let found = self.find(path);
        match found.admits(method) {
            true => found,
            false => below::with_other_method(found, path),
        }
    }

    /// The route of a path in normal form.
    pub(crate) fn find(&self, path: &[u8]) -> MatchedRoute {
        let (kind, rest) = self.matched(path);
        let errors = match kind {
            // Below a prefix they are the seeds' object (docs/contract/dialects.md#12).
            RouteKind::Dialect(ApiFamily::Ollama, ..) => ApiFamily::OpenAi,
            RouteKind::Dialect(family, ..) | RouteKind::Unknown(family) => family,
            _ => ApiFamily::OpenAi,
        };
        MatchedRoute {
            kind,
            errors: if self.is_ollamas(path) {
                ApiFamily::Ollama
            } else {
                errors
            },
            rest: path.len() - rest.len(),
        }
    }

    /// A route and the end of the path that is its own.
    fn matched<'p>(&self, path: &'p [u8]) -> (RouteKind, &'p [u8]) {
        let Some(inner) = path.strip_prefix(b"/") else {
            return NOT_FOUND;
        };
        match cut(inner) {
            (ROOT, b"") => NOT_FOUND,
            (ROOT, rest) => self.below_root(rest.strip_prefix(b"/").unwrap_or(rest)),
            (b"internal", rest) => internal(rest),
            (b"version", b"") => (RouteKind::Version, b""),
            _ if self.has_root => self.at_root(path),
            _ => NOT_FOUND,
        }
    }

    /// `inner` is what follows `/olla/`.
    fn below_root<'p>(&self, inner: &'p [u8]) -> (RouteKind, &'p [u8]) {
        let (name, rest) = cut(inner);
        match (name, rest) {
            (b"key", b"") => return (RouteKind::Key, b""),
            (b"models", b"") => return (RouteKind::Models, b""),
            (b"models", _) => return (RouteKind::Model, rest.strip_prefix(b"/").unwrap_or(rest)),
            _ => {}
        }
        if let Some(mount) = self.mounts.iter().find(|mount| mount.prefix == name) {
            return mounted(mount, rest);
        }
        match self.ids.get(name) {
            Some(id) => self.below_prefix(*id, rest),
            None => NOT_FOUND,
        }
    }

    /// The family of a path without a normal form, by its prefix.
    pub(crate) fn family_of(&self, target: &[u8]) -> ApiFamily {
        let path = target.split(|byte| *byte == b'?').next();
        let mut segments = path
            .unwrap_or(target)
            .split(|byte| *byte == b'/')
            .filter(|segment| !segment.is_empty());
        match segments.next() {
            Some(ROOT) => {}
            Some(b"api") if self.is_ollamas(b"/api") => return ApiFamily::Ollama,
            _ => return ApiFamily::default(),
        }
        let name = segments.next();
        let mut mounts = self.mounts.iter();
        let mount = mounts.find(|mount| Some(mount.prefix) == name);
        mount.map_or(ApiFamily::default(), |mount| mount.family)
    }
}

const NOT_FOUND: (RouteKind, &[u8]) = (RouteKind::Unknown(ApiFamily::OpenAi), b"");

/// The route of a dialect; `rest` is what follows its prefix.
fn mounted<'p>(mount: &'static Mount, rest: &'p [u8]) -> (RouteKind, &'p [u8]) {
    let found = |route| RouteKind::Dialect(mount.family, route, PrefixId::ALL);
    // `/olla/<prefix>` counts as `/olla/<prefix>/`.
    let rest = if rest == b"/" { b"" } else { rest };
    for route in mount.routes {
        match rest.strip_prefix(route.path) {
            Some(b"") if !route.path.ends_with(b"/") => {
                return (found(route), b"");
            }
            // A slash at the end of a listing's path has no meaning.
            Some(b"/") if route.path == b"/v1/models" => {
                return (found(route), b"");
            }
            Some(own) if route.path.ends_with(b"/") && !own.is_empty() => {
                return (found(route), own);
            }
            _ => {}
        }
    }
    (RouteKind::Unknown(mount.family), b"")
}

/// A first segment and what follows it: nothing, or something that begins with `/`.
fn cut(inner: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'/', inner).unwrap_or(inner.len());
    inner.split_at_checked(end).unwrap_or((inner, b""))
}

fn internal(rest: &[u8]) -> (RouteKind, &[u8]) {
    let Some(rest) = rest.strip_prefix(b"/") else {
        return NOT_FOUND;
    };
    match cut(rest) {
        (b"ui", below) => (RouteKind::Dashboard, below),
        _ => (RouteKind::Internal, rest),
    }
}

#[cfg(test)]
mod tests;
