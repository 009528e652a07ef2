//! Which route a path is: a table of prefixes, made once for each set of profiles.
//!
//! Fixed routes come first, then the prefix; both are matched exactly and with regard to letter
//! case. Finding a route allocates nothing. What this module must not do: judge methods' effects,
//! answer, or look at endpoints.
//!
//! contract: surface 2, catalogue 6, translation 1

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::path::{ROOT, decodes_to};
use super::scope::ScopeId;
use crate::providers::Profile;

const GET: &str = "GET, HEAD";

/// What a path leads to. `'t` is the table's life, `'p` the path's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Route<'t, 'p> {
    /// Forwarded to an endpoint of the prefix's scope.
    Proxy {
        /// `/olla/<prefix>`.
        prefix: &'t Prefix,
        /// What follows it; begins with `/`.
        rest: &'p [u8],
    },
    /// The models of the prefix's endpoints, answered here (contract: catalogue 6.5).
    Listing {
        /// Whose models.
        prefix: &'t Prefix,
        /// In which form.
        form: ListingForm,
    },
    /// Ollama's model management (contract: catalogue 6.6).
    Management {
        /// Always one of the Ollama profile.
        prefix: &'t Prefix,
        /// Which of its operations.
        operation: Management,
        /// What follows the prefix, for when it is forwarded.
        rest: &'p [u8],
    },
    /// `/olla/models`.
    Models,
    /// `/olla/models/{id}`; percent escapes as sent, empty for `/olla/models/`.
    Model {
        /// Everything behind `/olla/models/`.
        id: &'p [u8],
    },
    /// Below `/olla/anthropic`; errors there have their own shape.
    Anthropic(Anthropic<'p>),
    /// Below `/internal/`; which of them exist is for the operations to say.
    Internal {
        /// Everything behind `/internal/`.
        rest: &'p [u8],
    },
    /// `/internal/ui` and below.
    Dashboard {
        /// Everything behind `/internal/ui`: empty, or begins with `/`.
        rest: &'p [u8],
    },
    /// `/version`.
    Version,
    /// Nothing of ours.
    NotFound,
}

/// The forms of a listing below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingForm {
    /// That of OpenAI.
    OpenAi,
    /// That of the prefix's own profile.
    Native,
}

/// The routes below `/olla/anthropic` (contract: translation 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anthropic<'p> {
    /// `v1/messages`.
    Messages,
    /// `v1/messages/count_tokens`.
    CountTokens,
    /// `v1/models`.
    Models,
    /// `v1/models/{id}`.
    Model {
        /// Percent escapes as sent, never empty.
        id: &'p [u8],
    },
    /// Anything else, and everything when the translator is off.
    Unknown,
}

/// Ollama's routes that change what a server has (contract: README 5, surface 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Management {
    /// `api/pull`.
    Pull,
    /// `api/push`.
    Push,
    /// `api/create`.
    Create,
    /// `api/copy`.
    Copy,
    /// `api/delete`.
    Delete,
    /// `api/list`; never forwarded, there is no such route.
    List,
}

impl Management {
    const ALL: [(&'static [u8], Self); 6] = [
        (b"/api/pull", Self::Pull),
        (b"/api/push", Self::Push),
        (b"/api/create", Self::Create),
        (b"/api/copy", Self::Copy),
        (b"/api/delete", Self::Delete),
        (b"/api/list", Self::List),
    ];

    /// The operation of a path below the prefix. Escapes are seen through: a backend would decode
    /// them, and an operation that is refused must not slip by in another spelling.
    fn of(rest: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(path, _)| decodes_to(rest, path))
            .map(|(_, operation)| *operation)
    }

    /// Whether `proxy.model_management = "forward"` lets it through.
    pub const fn is_forwardable(self) -> bool {
        !matches!(self, Self::List)
    }
}

/// Which of the clients' limits a route is under (contract: surface 10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// None.
    Free,
    /// The global one and that of the client's address.
    Proxied,
    /// That of the health route.
    Health,
}

impl Route<'_, '_> {
    /// The methods of a fixed route, in the form of `Allow`; `None` = any method.
    pub const fn allow(&self) -> Option<&'static str> {
        match self {
            Self::Proxy { .. } | Self::Management { .. } | Self::NotFound => None,
            Self::Anthropic(Anthropic::Unknown) => None,
            Self::Anthropic(Anthropic::Messages | Anthropic::CountTokens) => Some("POST"),
            _ => Some(GET),
        }
    }

    /// Whether the route has a method. A path of [`Self::Internal`] that does not exist is to be
    /// found missing before its method is found wrong.
    pub fn admits(&self, method: &[u8]) -> bool {
        match self.allow() {
            Some(GET) => matches!(method, b"GET" | b"HEAD"),
            Some(only) => method == only.as_bytes(),
            None => true,
        }
    }

    /// The limits that a request on this route takes a token of. Management that is refused is
    /// refused before limits are looked at.
    pub fn limit(&self) -> Limit {
        match self {
            Self::Proxy { .. }
            | Self::Management { .. }
            | Self::Anthropic(Anthropic::Messages | Anthropic::CountTokens) => Limit::Proxied,
            Self::Internal { rest } if *rest == b"health" => Limit::Health,
            _ => Limit::Free,
        }
    }
}

/// One `/olla/<prefix>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix {
    /// Without slashes.
    pub name: Box<str>,
    /// Whose it is; `None` = `proxy`, everybody's.
    pub profile: Option<Arc<Profile>>,
    /// Which endpoints it reaches.
    pub scope: ScopeId,
    /// The path of the native listing, with its leading slash.
    native_listing: Option<Box<[u8]>>,
}

/// LM Studio has a second OpenAI listing, of no other profile (contract: catalogue 6.5).
const LM_STUDIO_LISTING: &[u8] = b"/api/v1/models";
const OPENAI_LISTING: &[u8] = b"/v1/models";

impl Prefix {
    fn universal() -> Self {
        Self {
            name: "proxy".into(),
            profile: None,
            scope: ScopeId::Any,
            native_listing: None,
        }
    }

    fn of(name: &str, profile: &Arc<Profile>, place: usize) -> Self {
        let native = profile.native_listing_path.as_deref();
        Self {
            name: name.into(),
            profile: Some(Arc::clone(profile)),
            scope: ScopeId::of(profile, place),
            native_listing: native
                .map(|path| format!("/{}", path.trim_start_matches('/')).into_bytes())
                .filter(|path| path != OPENAI_LISTING)
                .map(Vec::into_boxed_slice),
        }
    }

    /// The provider that messages name; `None` below `/olla/proxy/`.
    pub fn provider(&self) -> Option<&str> {
        self.profile.as_ref().map(|_| &*self.name)
    }

    fn is(&self, kind: &str) -> bool {
        self.profile.as_ref().is_some_and(|p| p.name == kind)
    }

    fn listing(&self, rest: &[u8]) -> Option<ListingForm> {
        let has_openai = self.profile.as_ref().is_none_or(|p| p.openai_compatible);
        if rest == OPENAI_LISTING && has_openai {
            return Some(ListingForm::OpenAi);
        }
        if self.native_listing.as_deref() == Some(rest) {
            return Some(ListingForm::Native);
        }
        (rest == LM_STUDIO_LISTING && self.is("lm-studio")).then_some(ListingForm::OpenAi)
    }

    fn route<'p>(&self, rest: &'p [u8]) -> Route<'_, 'p> {
        if let Some(form) = self.listing(rest) {
            return Route::Listing { prefix: self, form };
        }
        match Management::of(rest).filter(|_| self.is("ollama")) {
            Some(operation) => Route::Management {
                prefix: self,
                operation,
                rest,
            },
            None => Route::Proxy { prefix: self, rest },
        }
    }
}

/// All routes.
#[derive(Debug)]
pub struct RouteTable {
    prefixes: FxHashMap<Box<[u8]>, Prefix>,
    anthropic: bool,
}

impl RouteTable {
    /// The routes of the profiles in force, each with the prefixes that it keeps, as
    /// `Profiles::all` has them; the scopes must be made of the same list. `anthropic` is
    /// `translators.anthropic.enabled`.
    pub fn new(profiles: &[Arc<Profile>], anthropic: bool) -> Self {
        let universal = Prefix::universal();
        let mut prefixes = FxHashMap::default();
        prefixes.insert(universal.name.as_bytes().into(), universal);
        for (place, profile) in profiles.iter().enumerate() {
            for name in &profile.prefixes {
                prefixes
                    .entry(name.as_bytes().into())
                    .or_insert_with(|| Prefix::of(name, profile, place));
            }
        }
        Self {
            prefixes,
            anthropic,
        }
    }

    /// The route of a path in normal form.
    pub fn find<'p>(&self, path: &'p [u8]) -> Route<'_, 'p> {
        let Some(inner) = path.strip_prefix(b"/") else {
            return Route::NotFound;
        };
        match cut(inner) {
            (ROOT, b"") => Route::NotFound,
            (ROOT, rest) => self.below_root(rest.get(1..).unwrap_or_default()),
            (b"internal", rest) => internal(rest),
            (b"version", b"") => Route::Version,
            _ => Route::NotFound,
        }
    }

    /// `inner` is what follows `/olla/`.
    fn below_root<'p>(&self, inner: &'p [u8]) -> Route<'_, 'p> {
        let (name, rest) = cut(inner);
        match (name, rest) {
            (b"models", b"") => return Route::Models,
            (b"models", _) => {
                let id = rest.get(1..).unwrap_or_default();
                return Route::Model { id };
            }
            (b"anthropic", _) if self.anthropic => return Route::Anthropic(anthropic(rest)),
            _ => {}
        }
        match self.prefixes.get(name) {
            // `/olla/<prefix>` counts as `/olla/<prefix>/`.
            Some(prefix) => prefix.route(if rest.is_empty() { b"/" } else { rest }),
            None if name == b"anthropic" => Route::Anthropic(Anthropic::Unknown),
            None => Route::NotFound,
        }
    }
}

/// A first segment and what follows it: nothing, or something that begins with `/`.
fn cut(inner: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'/', inner).unwrap_or(inner.len());
    inner.split_at_checked(end).unwrap_or((inner, b""))
}

fn anthropic(rest: &[u8]) -> Anthropic<'_> {
    match rest {
        b"/v1/messages" => Anthropic::Messages,
        b"/v1/messages/count_tokens" => Anthropic::CountTokens,
        b"/v1/models" => Anthropic::Models,
        _ => match rest.strip_prefix(b"/v1/models/") {
            Some(id) if !id.is_empty() => Anthropic::Model { id },
            _ => Anthropic::Unknown,
        },
    }
}

fn internal<'t>(rest: &[u8]) -> Route<'t, '_> {
    let Some(rest) = rest.strip_prefix(b"/") else {
        return Route::NotFound;
    };
    match cut(rest) {
        (b"ui", below) => Route::Dashboard { rest: below },
        _ => Route::Internal { rest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::testing::profiles;

    /// A route in short.
    fn shown(table: &RouteTable, path: &str) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match table.find(path.as_bytes()) {
            Route::Proxy { prefix, rest } => format!("proxy {} {}", prefix.name, text(rest)),
            Route::Listing { prefix, form } => format!("list {} {form:?}", prefix.name),
            Route::Management { operation, .. } => format!("manage {operation:?}"),
            Route::Models => "models".to_owned(),
            Route::Model { id } => format!("model {}", text(id)),
            Route::Anthropic(Anthropic::Model { id }) => format!("anthropic model {}", text(id)),
            Route::Anthropic(route) => format!("anthropic {route:?}"),
            Route::Internal { rest } => format!("internal {}", text(rest)),
            Route::Dashboard { rest } => format!("dashboard {}", text(rest)),
            Route::Version => "version".to_owned(),
            Route::NotFound => "404".to_owned(),
        }
    }

    /// Paths below prefixes, and what looks like one.
    const PROXIED: &[(&str, &str)] = &[
        ("/", "404"),
        ("*", "404"),
        ("/olla", "404"),
        ("/olla/", "404"),
        ("/v1/chat/completions", "404"),
        ("/api/tags", "404"),
        ("/Olla/openai/x", "404"),
        ("/olla/OpenAI/x", "404"),
        ("/olla/openai_compatible/x", "404"),
        ("/olla/openaix/x", "404"),
        ("/olla/llama-cpp/x", "404"),
        ("/olla/llama_cpp/x", "404"),
        ("/olla/vllmmlx/x", "404"),
        ("/olla/docker-model-runner/x", "404"),
        ("/olla/auto/x", "404"),
        ("/ollaproxy/x", "404"),
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
        ("/olla/vllm/v1/models/", "proxy vllm /v1/models/"),
        ("/olla/vllm/v1/models/x", "proxy vllm /v1/models/x"),
        ("/olla/ollama/api/tags", "list ollama Native"),
        ("/olla/ollama/api/tags/", "proxy ollama /api/tags/"),
        ("/olla/openai/api/tags", "proxy openai /api/tags"),
        ("/olla/lmstudio/v1/models", "list lmstudio OpenAi"),
        ("/olla/lmstudio/api/v1/models", "list lmstudio OpenAi"),
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
        ("/olla/proxy/api/pull", "proxy proxy /api/pull"),
    ];

    /// The gateway's own.
    const OWN: &[(&str, &str)] = &[
        ("/olla/models", "models"),
        ("/olla/models/", "model "),
        ("/olla/models/a/b%2Fc", "model a/b%2Fc"),
        ("/olla/anthropic/v1/messages", "anthropic Messages"),
        ("/olla/anthropic/v1/messages/", "anthropic Unknown"),
        (
            "/olla/anthropic/v1/messages/count_tokens",
            "anthropic CountTokens",
        ),
        ("/olla/anthropic/v1/models", "anthropic Models"),
        ("/olla/anthropic/v1/models/", "anthropic Unknown"),
        ("/olla/anthropic/v1/models/a/b", "anthropic model a/b"),
        ("/olla/anthropic", "anthropic Unknown"),
        ("/olla/anthropic/v1/complete", "anthropic Unknown"),
        ("/internal", "404"),
        ("/internal/", "internal "),
        ("/internal/health", "internal health"),
        ("/internal/status/endpoints", "internal status/endpoints"),
        ("/internal/ui", "dashboard "),
        ("/internal/ui/a/b", "dashboard /a/b"),
        ("/internal/uix", "internal uix"),
        ("/version", "version"),
        ("/version/", "404"),
    ];

    #[test]
    fn every_path_has_its_route() {
        let table = RouteTable::new(&profiles(), true);
        for (path, route) in PROXIED.iter().chain(OWN) {
            assert_eq!(shown(&table, path), *route, "{path}");
        }
    }

    #[test]
    fn a_translator_that_is_off_forwards_nothing() {
        let table = RouteTable::new(&profiles(), false);
        for path in ["/olla/anthropic/v1/messages", "/olla/anthropic/v1/models"] {
            assert_eq!(shown(&table, path), "anthropic Unknown");
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
        let table = RouteTable::new(&all, true);
        let owner = |path: &str| match table.find(path.as_bytes()) {
            Route::Proxy { prefix, .. } | Route::Listing { prefix, .. } => {
                prefix.profile.as_ref().map(|profile| profile.name.clone())
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
        let table = RouteTable::new(&profiles(), true);
        let rows: [(&str, Option<&str>, Limit); 11] = [
            ("/olla/proxy/x", None, Limit::Proxied),
            ("/olla/ollama/api/pull", None, Limit::Proxied),
            ("/olla/vllm/v1/models", Some("GET, HEAD"), Limit::Free),
            ("/olla/models", Some("GET, HEAD"), Limit::Free),
            ("/olla/models/x", Some("GET, HEAD"), Limit::Free),
            ("/olla/anthropic/v1/messages", Some("POST"), Limit::Proxied),
            ("/olla/anthropic/v1/models", Some("GET, HEAD"), Limit::Free),
            ("/olla/anthropic/x", None, Limit::Free),
            ("/internal/health", Some("GET, HEAD"), Limit::Health),
            ("/internal/health/", Some("GET, HEAD"), Limit::Free),
            ("/nowhere", None, Limit::Free),
        ];
        for (path, allow, limit) in rows {
            let route = table.find(path.as_bytes());
            assert_eq!(route.allow(), allow, "{path}");
            assert_eq!(route.limit(), limit, "{path}");
            assert_eq!(route.admits(b"DELETE"), allow.is_none(), "{path}");
            assert_eq!(route.admits(b"HEAD"), allow != Some("POST"), "{path}");
            assert_eq!(route.admits(b"POST"), allow != Some("GET, HEAD"), "{path}");
        }
    }
}
