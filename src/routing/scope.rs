//! The scope of a request: the endpoints that its prefix and path allow.
//!
//! A prefix limits the types of endpoints. The path narrows them further, unless no endpoint would
//! be left.
//! The table is made once for each snapshot; a look-up allocates nothing. What this module must
//! not do: look at models.
//!
//! Contract: docs/contract/balancing.md#3

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::providers::{OPENAI_COMPATIBLE, Profile};

/// The further types that serve a path which [`OPENAI_COMPATIBLE`] is listed for.
const OPENAI_KIN: [&str; 2] = ["ollama", "lm-studio"];

/// The wall of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeId {
    /// `/olla/proxy/`: every type.
    Any,
    /// `/olla/openai/`: every type with an OpenAI-compatible profile.
    OpenAi,
    /// One type, by the place of its profile in the list.
    Type(usize),
}

impl ScopeId {
    /// The wall of a profile's prefixes; `place` is where it stands in the list of profiles.
    pub(super) fn of(profile: &Profile, place: usize) -> Self {
        if profile.name == OPENAI_COMPATIBLE {
            Self::OpenAi
        } else {
            Self::Type(place)
        }
    }
}

/// What is known of the endpoints' health at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// Those that may be sent requests.
    pub routable: EndpointSet,
    /// Unchecked endpoints that the request may wait for; empty once it has waited long enough
    /// (docs/contract/README.md#13).
    pub unchecked: EndpointSet,
    /// The endpoints that exist for the client's key; `None` = all (docs/contract/access.md#6).
    pub fleet: Option<EndpointSet>,
}

/// The endpoints that prefix and path allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteScope {
    /// Endpoints of the allowed types, whatever their status.
    pub configured: EndpointSet,
    /// Those of them that are routable.
    pub routable: EndpointSet,
    /// Those of them that a request may wait for.
    pub unchecked: EndpointSet,
}

impl RouteScope {
    fn of(configured: EndpointSet, standing: &Standing) -> Self {
        Self {
            configured,
            routable: configured.and(&standing.routable),
            unchecked: configured.and(&standing.unchecked),
        }
    }

    fn can_serve(&self) -> bool {
        !self.routable.is_empty() || !self.unchecked.is_empty()
    }
}

/// The scopes of one snapshot.
#[derive(Debug)]
pub struct Scopes {
    all: EndpointSet,
    openai: EndpointSet,
    /// In the order of the profiles.
    by_type: Vec<EndpointSet>,
    /// Declared path → endpoints of the types that are listed for it.
    by_path: FxHashMap<Box<[u8]>, EndpointSet>,
    /// Length of the longest declared path: no longer ending of a request's path need be tried.
    path_bytes_max: usize,
}

impl Scopes {
    /// The scopes of these endpoints. `profiles` is the list that the routes were made of: a
    /// [`ScopeId`] is a place in it.
    pub fn new(profiles: &[Arc<Profile>], endpoints: &[Endpoint]) -> Self {
        let auto: EndpointSet = places(endpoints, |endpoint| endpoint.is_auto);
        let of_type = |name: &str| {
            places(endpoints, |endpoint| {
                !endpoint.is_auto && endpoint.plan.kind == name
            })
            .or(&auto)
        };
        let by_type: Vec<_> = profiles.iter().map(|p| of_type(&p.name)).collect();
        let openai = profiles
            .iter()
            .zip(&by_type)
            .filter(|(profile, _)| profile.openai_compatible)
            .fold(auto, |all, (_, endpoints)| all.or(endpoints));
        let kin = OPENAI_KIN
            .iter()
            .fold(auto, |all, name| all.or(&of_type(name)));
        let mut by_path: FxHashMap<Box<[u8]>, EndpointSet> = FxHashMap::default();
        for (profile, endpoints) in profiles.iter().zip(&by_type) {
            let endpoints = if profile.name == OPENAI_COMPATIBLE {
                endpoints.or(&kin)
            } else {
                *endpoints
            };
            for path in &profile.paths {
                let path = format!("/{}", path.trim_start_matches('/'));
                let listed = by_path.entry(path.into_bytes().into()).or_insert(auto);
                *listed = listed.or(&endpoints);
            }
        }
        Self {
            all: EndpointSet::first(endpoints.len()),
            openai,
            by_type,
            path_bytes_max: by_path.keys().map(|path| path.len()).max().unwrap_or(0),
            by_path,
        }
    }

    /// The scope of a prefix and of what follows it in the path.
    pub fn find(&self, id: ScopeId, rest: &[u8], standing: &Standing) -> RouteScope {
        let wall = self.seen(id, standing);
        let narrow = self
            .listed_for(rest)
            .map(|listed| RouteScope::of(wall.and(&listed), standing))
            .filter(RouteScope::can_serve);
        narrow.unwrap_or_else(|| RouteScope::of(wall, standing))
    }

    /// The scope of a prefix whatever the path: for the Messages API, on which no type hides
    /// another (docs/contract/translation.md#3), with [`ScopeId::Any`].
    pub fn unnarrowed(&self, id: ScopeId, standing: &Standing) -> RouteScope {
        RouteScope::of(self.seen(id, standing), standing)
    }

    /// Those of a wall that exist for the client.
    fn seen(&self, id: ScopeId, standing: &Standing) -> EndpointSet {
        let wall = self.wall(id);
        match &standing.fleet {
            Some(fleet) => wall.and(fleet),
            None => wall,
        }
    }

    /// # Panics
    /// When the id was made from another list of profiles.
    fn wall(&self, id: ScopeId) -> EndpointSet {
        match id {
            ScopeId::Any => self.all,
            ScopeId::OpenAi => self.openai,
            ScopeId::Type(place) => self.by_type[place],
        }
    }

    /// The endpoints of the types that are listed for a path, `None` = all
    /// (docs/contract/balancing.md#3.2).
    fn listed_for(&self, path: &[u8]) -> Option<EndpointSet> {
        if let Some(listed) = self.by_path.get(path) {
            return Some(*listed);
        }
        // Declared paths begin with a slash, so only endings that do can be declared. A lone
        // slash takes part in exact matches only.
        let from = path.len().saturating_sub(self.path_bytes_max);
        let endings = &path[from..];
        memchr::memchr_iter(b'/', endings)
            .filter_map(|at| endings.get(at..))
            .filter(|ending| *ending != b"/")
            .filter_map(|ending| self.by_path.get(ending))
            .copied()
            .reduce(|all, listed| all.or(&listed))
    }
}

fn places(endpoints: &[Endpoint], fits: impl Fn(&Endpoint) -> bool) -> EndpointSet {
    let all = endpoints.iter().enumerate();
    all.filter(|(_, endpoint)| fits(endpoint))
        .map(|(index, _)| index)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::route::{RouteKind, RouteTable};
    use crate::routing::testing::{endpoint, profiles, translators};

    struct Fleet {
        routes: RouteTable,
        scopes: Scopes,
        names: Vec<String>,
    }

    /// A fleet with one endpoint of each of these types; the type is also the endpoint's name.
    fn fleet(types: &[&str]) -> Fleet {
        let profiles = profiles();
        let endpoints: Vec<_> = types
            .iter()
            .enumerate()
            .map(|(id, kind)| endpoint(id, kind, kind))
            .collect();
        Fleet {
            routes: RouteTable::new(&profiles, &translators(false), true),
            scopes: Scopes::new(&profiles, &endpoints),
            names: types.iter().map(|&kind| kind.to_owned()).collect(),
        }
    }

    impl Fleet {
        fn set(&self, names: &str) -> EndpointSet {
            let named = self.names.iter().enumerate();
            named
                .filter(|(_, name)| names.split(' ').any(|wanted| wanted == *name))
                .map(|(index, _)| index)
                .collect()
        }

        fn scope(&self, path: &str, up: &str, unchecked: &str) -> RouteScope {
            let route = self.routes.find(path.as_bytes());
            let RouteKind::Proxy(id, operation) = route.kind else {
                panic!("{path} is not proxied");
            };
            let rest = route.rest(path.as_bytes());
            let scope = self.routes.prefix(id).scope;
            let standing = Standing {
                routable: self.set(up),
                unchecked: self.set(unchecked),
                fleet: None,
            };
            match operation {
                Some(_) => self.scopes.unnarrowed(scope, &standing),
                None => self.scopes.find(scope, rest, &standing),
            }
        }

        fn shown(&self, set: &EndpointSet) -> String {
            let names: Vec<_> = set.iter().map(|index| self.names[index].as_str()).collect();
            names.join(" ")
        }
    }

    const ALL: &str = "ollama lm-studio openai-compatible vllm llamacpp sglang lemonade litellm \
                       lmdeploy vllm-mlx omlx docker-model-runner auto";

    #[test]
    fn prefix_and_path_narrow() {
        let types: Vec<_> = ALL.split_whitespace().collect();
        let fleet = fleet(&types);
        let openai = "ollama lm-studio openai-compatible vllm llamacpp sglang litellm lmdeploy \
                      vllm-mlx omlx auto";
        let rows = [
            // Exact.
            ("/olla/proxy/api/chat", "ollama auto"),
            ("/olla/proxy/v1/rerank", "vllm omlx auto"),
            // What every type has, perhaps at another path, reaches every type.
            ("/olla/proxy/v1/chat/completions", ALL),
            ("/olla/openai/v1/embeddings", ALL),
            ("/olla/proxy/generate", "sglang lmdeploy auto"),
            (
                "/olla/proxy/engines/v1/completions",
                "docker-model-runner auto",
            ),
            ("/olla/proxy/", "ollama litellm auto"),
            ("/olla/proxy", "ollama litellm auto"),
            // By the ending.
            ("/olla/proxy/foo/v1/chat/completions", openai),
            ("/olla/proxy/foo/api/chat", "ollama auto"),
            ("/olla/proxy/x/infill", "llamacpp auto"),
            // Listed for no type, so all endpoints. A trailing slash has no meaning.
            ("/olla/proxy/some/unlisted/path", ALL),
            ("/olla/proxy/foo/", ALL),
            ("/olla/proxy/v1/chat/completionsx", ALL),
            // One type and auto; the path narrows only while an endpoint is left.
            ("/olla/ollama/v1/chat/completions", "ollama auto"),
            ("/olla/vllm/x", "vllm auto"),
            ("/olla/dmr/x", "docker-model-runner auto"),
            // Every OpenAI-compatible type.
            ("/olla/openai/x", ALL),
            ("/olla/openai-compatible/v1/rerank", "vllm omlx auto"),
        ];
        for (path, names) in rows {
            let scope = fleet.scope(path, ALL, "");
            let names: Vec<_> = names.split_whitespace().collect();
            assert_eq!(fleet.shown(&scope.routable), names.join(" "), "{path}");
            assert_eq!(scope.routable, scope.configured);
        }
    }

    #[test]
    fn a_wall_holds_and_a_path_gives_way() {
        let fleet = fleet(&["ollama", "vllm", "sglang"]);
        // path, up, unchecked, configured, routable
        let rows = [
            (
                "/olla/proxy/api/chat",
                "ollama vllm",
                "",
                "ollama",
                "ollama",
            ),
            (
                "/olla/proxy/api/chat",
                "vllm",
                "",
                "ollama vllm sglang",
                "vllm",
            ),
            ("/olla/proxy/api/chat", "vllm", "ollama", "ollama", ""),
            ("/olla/proxy/api/chat", "", "", "ollama vllm sglang", ""),
            (
                "/olla/ollama/v1/rerank",
                "ollama vllm",
                "",
                "ollama",
                "ollama",
            ),
            ("/olla/ollama/api/chat", "vllm", "", "ollama", ""),
            ("/olla/lmstudio/x", "ollama vllm", "", "", ""),
            (
                "/olla/openai/api/chat",
                "sglang",
                "",
                "ollama vllm sglang",
                "sglang",
            ),
        ];
        for (path, up, unchecked, configured, routable) in rows {
            let scope = fleet.scope(path, up, unchecked);
            assert_eq!(fleet.shown(&scope.configured), configured, "{path} {up}");
            assert_eq!(fleet.shown(&scope.routable), routable, "{path} {up}");
        }
    }

    #[test]
    fn endless_paths_cost_no_more_than_declared_ones() {
        let fleet = fleet(&["ollama", "vllm"]);
        let path = format!("/olla/proxy{}/api/chat", "/a".repeat(50_000));
        let scope = fleet.scope(&path, "ollama vllm", "");
        assert_eq!(fleet.shown(&scope.routable), "ollama");
    }
}
