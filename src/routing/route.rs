//! Matches a path to a route, with a table of prefixes that is built once for each set of profiles.
//!
//! Fixed routes come first, then the prefix; both are matched exactly and with regard to letter
//! case. Finding a route allocates nothing. This module must not send responses or look at
//! endpoints.
//!
//! Contract: docs/contract/surface.md#2, docs/contract/catalogue.md#6,
//! docs/contract/translation.md#1

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::management::Management;
use super::path::ROOT;
use super::prefix::Prefix;
use crate::catalogue::ListingForm;
use crate::config::TranslatorsPlan;
use crate::dialects::{ApiFamily, DialectRoute, MOUNTS, Mount, Operation};
use crate::providers::Profile;

const GET: &str = "GET, HEAD";

/// What a path leads to, and where in the path its own part begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatchedRoute {
    /// The kind of route.
    pub kind: RouteKind,
    /// Offset of [`Self::rest`] in the path that was matched.
    rest: usize,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RouteKind {
    /// Forwarded to an endpoint of the prefix's scope; the rest is what follows the prefix.
    Proxy(PrefixId),
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
    /// A dialect's own route; the rest is what follows its path.
    Dialect(ApiFamily, &'static DialectRoute),
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
            rest: 0,
        }
    }

    /// The part of the path that is the route's own; `path` is the one that was matched.
    pub(crate) fn rest<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        // An empty path is matched as `/`, which is longer.
        match (self.kind, path.get(self.rest..).unwrap_or(b"")) {
            // `/olla/<prefix>` counts as `/olla/<prefix>/`.
            (RouteKind::Proxy(_), b"") => b"/",
            (_, rest) => rest,
        }
    }

    /// The methods of a fixed route, in the form of `Allow`; `None` = any method.
    pub(crate) const fn allow(&self) -> Option<&'static str> {
        match self.kind {
            RouteKind::Proxy(_) | RouteKind::Management(..) | RouteKind::Unknown(_) => None,
            RouteKind::Dialect(_, route) => Some(route.allow),
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
            RouteKind::Proxy(_) | RouteKind::Management(..) => Limit::Proxied,
            RouteKind::Dialect(_, route) if !matches!(route.operation, Operation::List(_)) => {
                Limit::Proxied
            }
            RouteKind::Internal if self.rest(path) == b"health" => Limit::Health,
            RouteKind::Unknown(_) => Limit::Free,
            _ => Limit::Pages,
        }
    }

    /// The API family of its requests and errors.
    pub(crate) const fn family(&self) -> ApiFamily {
        match self.kind {
            RouteKind::Dialect(family, _) | RouteKind::Unknown(family) => family,
            _ => ApiFamily::OpenAi,
        }
    }

    /// Whether one of its requests may reach an endpoint in any form.
    pub(crate) const fn may_reach_endpoint(&self) -> bool {
        let computes = match self.kind {
            RouteKind::Dialect(_, route) => matches!(route.operation, Operation::Compute(_)),
            _ => false,
        };
        self.is_proxied() || computes
    }

    /// Whether its requests go to an endpoint, so that they count as requests of clients.
    pub(crate) const fn is_proxied(&self) -> bool {
        match self.kind {
            RouteKind::Proxy(_) | RouteKind::Management(..) => true,
            RouteKind::Dialect(_, route) => matches!(route.operation, Operation::Serve),
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
}

impl RouteTable {
    /// The routes of the profiles in force, each with the prefixes that it keeps, as
    /// `Profiles::all` has them; the scopes must be made of the same list.
    pub(crate) fn new(profiles: &[Arc<Profile>], translators: &TranslatorsPlan) -> Self {
        let mut table = Self {
            ids: FxHashMap::default(),
            prefixes: Vec::new(),
            mounts: MOUNTS
                .iter()
                .filter(|mount| mount.family.is_enabled(translators))
                .collect(),
        };
        table.add(Prefix::universal(profiles));
        for (place, profile) in profiles.iter().enumerate() {
            for name in &profile.prefixes {
                table.add(Prefix::of(name, profiles, profile, place));
            }
        }
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

    /// The route of a path in normal form.
    pub(crate) fn find(&self, path: &[u8]) -> MatchedRoute {
        let (kind, rest) = self.matched(path);
        MatchedRoute {
            kind,
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
            _ => NOT_FOUND,
        }
    }

    /// `inner` is what follows `/olla/`.
    fn below_root<'p>(&self, inner: &'p [u8]) -> (RouteKind, &'p [u8]) {
        let (name, rest) = cut(inner);
        match (name, rest) {
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

    /// A route below the prefix, and the end of the path that is its own.
    fn below_prefix<'p>(&self, id: PrefixId, rest: &'p [u8]) -> (RouteKind, &'p [u8]) {
        if let Some(operation) = Management::of(b"", rest) {
            return (RouteKind::Management(id, operation), rest);
        }
        match self.prefix(id).listing(rest) {
            Some((form, b"")) => (RouteKind::Listing(id, form), b""),
            Some((form, model)) => (RouteKind::ListedModel(id, form), model),
            None => (RouteKind::Proxy(id), rest),
        }
    }

    /// The family of a path without a normal form, by its prefix.
    pub(crate) fn family_of(&self, target: &[u8]) -> ApiFamily {
        let path = target.split(|byte| *byte == b'?').next();
        let mut segments = path
            .unwrap_or(target)
            .split(|byte| *byte == b'/')
            .filter(|segment| !segment.is_empty());
        if segments.next() != Some(ROOT) {
            return ApiFamily::default();
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
    // `/olla/<prefix>` counts as `/olla/<prefix>/`.
    let rest = if rest == b"/" { b"" } else { rest };
    for route in mount.routes {
        match rest.strip_prefix(route.path) {
            Some(b"") if !route.path.ends_with(b"/") => {
                return (RouteKind::Dialect(mount.family, route), b"");
            }
            // A slash at the end of a listing's path has no meaning.
            Some(b"/") if route.path == b"/v1/models" => {
                return (RouteKind::Dialect(mount.family, route), b"");
            }
            Some(own) if route.path.ends_with(b"/") && !own.is_empty() => {
                return (RouteKind::Dialect(mount.family, route), own);
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
mod tests {
    use super::*;
    use crate::routing::testing::{profiles, translators};

    /// A route in short.
    fn shown(table: &RouteTable, path: &str) -> String {
        let route = table.find(path.as_bytes());
        let rest = String::from_utf8_lossy(route.rest(path.as_bytes()));
        let name = |id| table.prefix(id).name.clone();
        match route.kind {
            RouteKind::Proxy(id) => format!("proxy {} {rest}", name(id)),
            RouteKind::Listing(id, form) => format!("list {} {form:?}", name(id)),
            RouteKind::ListedModel(id, form) => format!("one {} {form:?} {rest}", name(id)),
            RouteKind::Management(_, operation) => format!("manage {operation:?}"),
            RouteKind::Models => "models".to_owned(),
            RouteKind::Model => format!("model {rest}"),
            RouteKind::Dialect(family, route) => {
                let path = String::from_utf8_lossy(route.path);
                format!("{family:?} {path}|{rest}")
            }
            RouteKind::Internal => format!("internal {rest}"),
            RouteKind::Dashboard => format!("dashboard {rest}"),
            RouteKind::Version => "version".to_owned(),
            RouteKind::Unknown(family) => format!("404 {family:?}"),
        }
    }

    /// Paths below prefixes, and what looks like one.
    const PROXIED: &[(&str, &str)] = &[
        ("/", "404 OpenAi"),
        ("*", "404 OpenAi"),
        ("/olla", "404 OpenAi"),
        ("/olla/", "404 OpenAi"),
        ("/v1/chat/completions", "404 OpenAi"),
        ("/api/tags", "404 OpenAi"),
        ("/Olla/openai/x", "404 OpenAi"),
        ("/olla/OpenAI/x", "404 OpenAi"),
        ("/olla/openai_compatible/x", "404 OpenAi"),
        ("/olla/openaix/x", "404 OpenAi"),
        ("/olla/llama-cpp/x", "404 OpenAi"),
        ("/olla/llama_cpp/x", "404 OpenAi"),
        ("/olla/vllmmlx/x", "404 OpenAi"),
        ("/olla/docker-model-runner/x", "404 OpenAi"),
        ("/olla/auto/x", "404 OpenAi"),
        ("/ollaproxy/x", "404 OpenAi"),
        ("/olla/proxy", "proxy proxy /"),
        ("/olla/proxy/", "proxy proxy /"),
        ("/olla/proxy/v1/x/", "proxy proxy /v1/x/"),
        ("/olla/openai/v1/embeddings", "proxy openai /v1/embeddings"),
        ("/olla/openai-compatible/a", "proxy openai-compatible /a"),
        (
            "/olla/lm_studio/api/v0/embeddings",
            "proxy lm_studio /api/v0/embeddings",
        ),
        (
            "/olla/dmr/engines/v1/completions",
            "proxy dmr /engines/v1/completions",
        ),
        ("/olla/vllm-mlx/x", "proxy vllm-mlx /x"),
        ("/olla/proxy/v1/models", "list proxy OpenAi"),
        ("/olla/vllm/v1/models", "list vllm OpenAi"),
        ("/olla/vllm/v1/models/", "list vllm OpenAi"),
        ("/olla/vllm/models", "list vllm OpenAi"),
        ("/olla/proxy/models/", "list proxy OpenAi"),
        ("/olla/vllm/v1/models/x", "one vllm OpenAi x"),
        ("/olla/vllm/models/x", "one vllm OpenAi x"),
        ("/olla/vllm/v1/models/a/b%2Fc/", "one vllm OpenAi a/b%2Fc/"),
        ("/olla/vllm/v1/modelsx", "proxy vllm /v1/modelsx"),
        ("/olla/vllm/v1/models/status", "one vllm OpenAi status"),
        (
            "/olla/omlx/v1/models/status",
            "proxy omlx /v1/models/status",
        ),
        (
            "/olla/proxy/v1/models/status",
            "proxy proxy /v1/models/status",
        ),
        (
            "/olla/openai/v1/models/status",
            "proxy openai /v1/models/status",
        ),
        ("/olla/lmstudio/api/v0/models/x", "one lmstudio Native x"),
        ("/olla/ollama/api/tags", "list ollama Native"),
        ("/olla/ollama/api/tags/", "list ollama Native"),
        ("/olla/ollama/api/tags/x", "proxy ollama /api/tags/x"),
        ("/olla/openai/api/tags", "proxy openai /api/tags"),
        ("/olla/lmstudio/v1/models", "list lmstudio OpenAi"),
        ("/olla/lmstudio/api/v1/models", "list lmstudio LmStudioV1"),
        ("/olla/lm-studio/api/v0/models", "list lm-studio Native"),
        ("/olla/lemonade/api/v1/models", "list lemonade Native"),
        ("/olla/vllm/api/v1/models", "proxy vllm /api/v1/models"),
        ("/olla/dmr/engines/v1/models", "list dmr Native"),
        ("/olla/ollama/api/pull", "manage Pull"),
        ("/olla/ollama/api/pu%6cl", "manage Pull"),
        ("/olla/ollama/api%2Fdelete", "manage Delete"),
        ("/olla/ollama/api/list", "manage List"),
        ("/olla/ollama/api/show", "proxy ollama /api/show"),
        ("/olla/ollama/api/ps", "proxy ollama /api/ps"),
        (
            "/olla/ollama/api/blobs/sha256:1",
            "proxy ollama /api/blobs/sha256:1",
        ),
        ("/olla/proxy/api/pull", "manage Pull"),
        ("/olla/vllm/x/api/delete/", "manage Delete"),
        ("/olla/lmstudio/api/v1/models/load", "manage Load"),
        ("/olla/openai/api/v1/models/unload", "manage Unload"),
        (
            "/olla/lemonade/api/v1/delete",
            "proxy lemonade /api/v1/delete",
        ),
    ];

    /// The gateway's own.
    const OWN: &[(&str, &str)] = &[
        ("/olla/models", "models"),
        ("/olla/models/", "model "),
        ("/olla/models/a/b%2Fc", "model a/b%2Fc"),
        ("/olla/anthropic/v1/messages", "Anthropic /v1/messages|"),
        ("/olla/anthropic/v1/messages/", "404 Anthropic"),
        (
            "/olla/anthropic/v1/messages/count_tokens",
            "Anthropic /v1/messages/count_tokens|",
        ),
        ("/olla/anthropic/v1/models", "Anthropic /v1/models|"),
        ("/olla/anthropic/v1/models/", "Anthropic /v1/models|"),
        ("/olla/anthropic/v1/models/a/b", "Anthropic /v1/models/|a/b"),
        ("/olla/anthropic", "Anthropic |"),
        ("/olla/anthropic/", "Anthropic |"),
        ("/olla/anthropic/api/hello", "Anthropic /api/hello|"),
        ("/olla/anthropic/api/hello/", "404 Anthropic"),
        ("/olla/anthropic/api/pull", "404 Anthropic"),
        ("/olla/anthropic/v1/complete", "404 Anthropic"),
        ("/internal", "404 OpenAi"),
        ("/internal/", "internal "),
        ("/internal/health", "internal health"),
        ("/internal/status/endpoints", "internal status/endpoints"),
        ("/internal/ui", "dashboard "),
        ("/internal/ui/a/b", "dashboard /a/b"),
        ("/internal/uix", "internal uix"),
        ("/version", "version"),
        ("/version/", "404 OpenAi"),
    ];

    #[test]
    fn every_path_has_its_route() {
        let table = RouteTable::new(&profiles(), &translators(true));
        for (path, route) in PROXIED.iter().chain(OWN) {
            assert_eq!(shown(&table, path), *route, "{path}");
        }
    }

    #[test]
    fn a_translator_that_is_off_forwards_nothing() {
        let table = RouteTable::new(&profiles(), &translators(false));
        for path in ["/olla/anthropic/v1/messages", "/olla/anthropic/v1/models"] {
            assert_eq!(shown(&table, path), "404 OpenAi");
        }
    }

    #[test]
    fn users_profiles_have_routes_too() {
        let mut all = profiles();
        let mut own = Profile::clone(&all[0]);
        own.name = "aaa".to_owned();
        own.prefixes = vec!["proxy".to_owned(), "mine".to_owned()];
        own.openai_compatible = false;
        own.native_listing_path = Some("/list".to_owned());
        all.push(Arc::new(own));
        let table = RouteTable::new(&all, &translators(true));
        let owner = |path: &str| match table.find(path.as_bytes()).kind {
            RouteKind::Proxy(id) | RouteKind::Listing(id, _) | RouteKind::ListedModel(id, _) => {
                let profile = table.prefix(id).profile.as_ref();
                profile.map(|profile| profile.name.clone())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(owner("/olla/mine/x").as_deref(), Some("aaa"));
        assert_eq!(owner("/olla/vllm/x").as_deref(), Some("vllm"));
        assert_eq!(owner("/olla/proxy/x"), None, "reserved");
        assert_eq!(
            shown(&table, "/olla/mine/v1/models"),
            "proxy mine /v1/models"
        );
        assert_eq!(shown(&table, "/olla/mine/list"), "list mine Native");
    }

    #[test]
    fn methods_and_limits() {
        let table = RouteTable::new(&profiles(), &translators(true));
        let rows: [(&str, Option<&str>, Limit); 16] = [
            ("/olla/proxy/x", None, Limit::Proxied),
            ("/olla/ollama/api/pull", None, Limit::Proxied),
            ("/olla/anthropic/", Some("GET, HEAD"), Limit::Pages),
            ("/olla/vllm/v1/models", Some("GET, HEAD"), Limit::Pages),
            ("/olla/vllm/v1/models/x", Some("GET, HEAD"), Limit::Pages),
            ("/olla/models", Some("GET, HEAD"), Limit::Pages),
            ("/olla/models/x", Some("GET, HEAD"), Limit::Pages),
            ("/olla/anthropic/v1/messages", Some("POST"), Limit::Proxied),
            ("/olla/anthropic/v1/models", Some("GET, HEAD"), Limit::Pages),
            ("/olla/anthropic/x", None, Limit::Free),
            ("/internal/health", Some("GET, HEAD"), Limit::Health),
            ("/internal/health/", Some("GET, HEAD"), Limit::Pages),
            ("/internal/process", Some("GET, HEAD"), Limit::Pages),
            ("/internal/ui/", Some("GET, HEAD"), Limit::Pages),
            ("/version", Some("GET, HEAD"), Limit::Pages),
            ("/nowhere", None, Limit::Free),
        ];
        for (path, allow, limit) in rows {
            let route = table.find(path.as_bytes());
            assert_eq!(route.allow(), allow, "{path}");
            assert_eq!(route.limit(path.as_bytes()), limit, "{path}");
            assert_eq!(route.admits(b"DELETE"), allow.is_none(), "{path}");
            assert_eq!(route.admits(b"HEAD"), allow != Some("POST"), "{path}");
            assert_eq!(route.admits(b"POST"), allow != Some("GET, HEAD"), "{path}");
        }
    }
}
