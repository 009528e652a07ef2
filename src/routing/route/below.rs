//! Routes below a prefix, and those at the root, which are the same without one.
//!
//! Contract: docs/contract/dialects.md#2

use super::{MatchedRoute, NOT_FOUND, PrefixId, RouteKind, RouteTable, mounted};
use crate::dialects::{ApiFamily, DialectRoute, OLLAMA_ROOT, Operation};
use crate::providers::CommonOperation;
use crate::routing::management::Management;
use crate::routing::scope::ScopeId;

/// Uploads of Ollama's model management, by the digest of a file.
const BLOBS: &[u8] = b"/api/blobs/";

impl RouteTable {
    /// A route below the prefix, and the end of the path that is its own.
    pub(super) fn below_prefix<'p>(&self, id: PrefixId, rest: &'p [u8]) -> (RouteKind, &'p [u8]) {
        if let Some(operation) = CommonOperation::of(rest)
            && !matches!(self.prefix(id).scope, ScopeId::Type(_))
        {
            return (RouteKind::Proxy(id, Some(operation)), rest);
        }
        if let Some(operation) = Management::of(b"", rest) {
            return (RouteKind::Management(id, operation), rest);
        }
        if let Some(found) = self.common(id, rest) {
            return found;
        }
        match self.prefix(id).listing(rest) {
            Some((form, b"")) => (RouteKind::Listing(id, form), b""),
            Some((form, model)) => (RouteKind::ListedModel(id, form), model),
            None => (RouteKind::Proxy(id, None), rest),
        }
    }

    /// The dialect's route that every prefix has.
    fn common<'p>(&self, id: PrefixId, rest: &'p [u8]) -> Option<(RouteKind, &'p [u8])> {
        self.common
            .iter()
            .find_map(|common| found(common.family, common.routes, id, rest))
    }

    /// The route of a path without a prefix.
    pub(super) fn at_root<'p>(&self, path: &'p [u8]) -> (RouteKind, &'p [u8]) {
        match path {
            b"/" => (RouteKind::Root, b""),
            b"/v1" => self.below_prefix(PrefixId::ALL, path),
            _ if path.starts_with(b"/v1/") => self.below_prefix(PrefixId::ALL, path),
            _ if is_api(path) => self.api_at_root(path),
            _ => NOT_FOUND,
        }
    }

    /// The route of a path of Ollama's API.
    fn api_at_root<'p>(&self, path: &'p [u8]) -> (RouteKind, &'p [u8]) {
        if !self.has(ApiFamily::Ollama) {
            return match self.ollama {
                Some(id) => self.below_prefix(id, path),
                None => NOT_FOUND,
            };
        }
        let own = self.ollama.unwrap_or(PrefixId::ALL);
        let is_blob = path.len() > BLOBS.len() && path.starts_with(BLOBS);
        if let Some(operation) =
            Management::of(b"", path).or_else(|| is_blob.then_some(Management::Blob))
        {
            return (RouteKind::Management(own, operation), path);
        }
        self.common(PrefixId::ALL, path)
            .or_else(|| found(ApiFamily::Ollama, OLLAMA_ROOT, PrefixId::ALL, path))
            .unwrap_or((RouteKind::Unknown(ApiFamily::Ollama), b""))
    }

    /// Whether a path belongs to Ollama's API over the whole fleet, whose errors have its form.
    pub(super) fn is_ollamas(&self, path: &[u8]) -> bool {
        self.has_root && is_api(path) && self.has(ApiFamily::Ollama)
    }

    fn has(&self, family: ApiFamily) -> bool {
        self.common.iter().any(|common| common.family == family)
    }

    /// The Messages API's route for a path of a listing at the root; `None` = there is none.
    pub(crate) fn messages_listing(&self, path: &[u8]) -> Option<MatchedRoute> {
        let mut mounts = self.mounts.iter();
        let mount = mounts.find(|mount| mount.family == ApiFamily::Anthropic)?;
        let (kind, rest) = mounted(mount, path);
        let is_listing = path.starts_with(b"/v1/") && matches!(kind, RouteKind::Dialect(..));
        is_listing.then(|| MatchedRoute {
            kind,
            errors: mount.family,
            rest: path.len() - rest.len(),
        })
    }
}

fn is_api(path: &[u8]) -> bool {
    path == b"/api" || path.starts_with(b"/api/")
}

/// The first of some routes that a path matches. One slash at its end has no meaning.
fn found<'p>(
    family: ApiFamily,
    routes: &'static [DialectRoute],
    id: PrefixId,
    path: &'p [u8],
) -> Option<(RouteKind, &'p [u8])> {
    routes.iter().find_map(|route| {
        own_part(route.path, path)?;
        let kind = match route.operation {
            Operation::Listing(form) => RouteKind::Listing(id, form),
            _ => RouteKind::Dialect(family, route, id),
        };
        Some((kind, path))
    })
}

/// The route of a path with a method that its dialect does not have. Below a prefix it is a path
/// like any other; routes of Ollama's API at the root are the gateway's own, and so are those below
/// a dialect's prefix.
pub(super) fn with_other_method(found: MatchedRoute, path: &[u8]) -> MatchedRoute {
    match found.kind {
        RouteKind::Dialect(_, _, id) if !is_api(path) && found.rest(path).starts_with(b"/") => {
            MatchedRoute {
                kind: RouteKind::Proxy(id, None),
                errors: ApiFamily::OpenAi,
                ..found
            }
        }
        _ => found,
    }
}

/// What is variable in the rest of a route.
pub(super) fn own<'p>(route: &DialectRoute, rest: &'p [u8]) -> &'p [u8] {
    match route.path {
        [.., b'/'] => rest,
        path => own_part(path, rest).unwrap_or(b""),
    }
}

/// What follows the constant beginning of a route's path: nothing, or an id and what follows it.
/// `None` = the path is another one.
fn own_part<'p>(route: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    let Some(open) = memchr::memchr(b'{', route) else {
        let rest = path.strip_prefix(route)?;
        return matches!(rest, b"" | b"/").then_some(b"");
    };
    let (before, id) = route.split_at_checked(open)?;
    let after = id.strip_prefix(b"{id}")?;
    let own = path.strip_prefix(before)?;
    let end = memchr::memchr(b'/', own).unwrap_or(own.len());
    let (id, rest) = own.split_at_checked(end)?;
    let rest = rest.strip_prefix(after)?;
    (!id.is_empty() && matches!(rest, b"" | b"/")).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_single_segments() {
        let table = [
            ("/v1/x", "/v1/x", Some("")),
            ("/v1/x", "/v1/x/", Some("")),
            ("/v1/x", "/v1/x//", None),
            ("/v1/x", "/v1/xy", None),
            ("/v1/x", "/v1", None),
            ("/v1/x/{id}", "/v1/x/7", Some("7")),
            ("/v1/x/{id}", "/v1/x/7/", Some("7/")),
            ("/v1/x/{id}", "/v1/x/", None),
            ("/v1/x/{id}", "/v1/x", None),
            ("/v1/x/{id}", "/v1/x/7/y", None),
            ("/v1/x/{id}/y", "/v1/x/7/y", Some("7/y")),
            ("/v1/x/{id}/y", "/v1/x/7/y/", Some("7/y/")),
            ("/v1/x/{id}/y", "/v1/x/7", None),
            ("/v1/x/{id}/y", "/v1/x//y", None),
        ];
        for (route, path, own) in table {
            let found = own_part(route.as_bytes(), path.as_bytes());
            assert_eq!(found, own.map(str::as_bytes), "{route} {path}");
        }
    }
}
