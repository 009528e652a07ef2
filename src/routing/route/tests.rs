//! The route of every kind of path.

use super::*;
use crate::routing::testing::{profiles, translators};

/// A route in short.
fn shown(table: &RouteTable, asked: &str) -> String {
    let found = table.find(asked.as_bytes());
    let rest = String::from_utf8_lossy(found.rest(asked.as_bytes()));
    let name = |id| table.prefix(id).name.clone();
    match found.kind {
        RouteKind::Proxy(id, None) => format!("proxy {} {rest}", name(id)),
        RouteKind::Proxy(id, Some(operation)) => format!("{operation:?} {} {rest}", name(id)),
        RouteKind::Listing(id, form) => format!("list {} {form:?}", name(id)),
        RouteKind::ListedModel(id, form) => format!("one {} {form:?} {rest}", name(id)),
        RouteKind::Management(_, operation) => format!("manage {operation:?}"),
        RouteKind::Key => "key".to_owned(),
        RouteKind::Models => "models".to_owned(),
        RouteKind::Model => format!("model {rest}"),
        RouteKind::Dialect(family, route, id) => {
            let path = String::from_utf8_lossy(route.path);
            let own = String::from_utf8_lossy(found.own(asked.as_bytes()));
            format!("{family:?} {} {path}|{own}", name(id))
        }
        RouteKind::Root => "root".to_owned(),
        RouteKind::Internal => format!("internal {rest}"),
        RouteKind::Dashboard => format!("dashboard {rest}"),
        RouteKind::Version => "version".to_owned(),
        RouteKind::Unknown(family) => format!("404 {family:?}"),
    }
}

/// Paths below prefixes, and what looks like one.
const PROXIED: &[(&str, &str)] = &[
    ("*", "404 OpenAi"),
    ("/olla", "404 OpenAi"),
    ("/olla/", "404 OpenAi"),
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
    (
        "/olla/openai/v1/embeddings",
        "Embeddings openai /v1/embeddings",
    ),
    (
        "/olla/proxy/v1/completions",
        "Completions proxy /v1/completions",
    ),
    (
        "/olla/openai-compatible/v1/chat/completions",
        "Chat openai-compatible /v1/chat/completions",
    ),
    (
        "/olla/proxy/v1/chat/completions/",
        "proxy proxy /v1/chat/completions/",
    ),
    (
        "/olla/vllm/v1/chat/completions",
        "proxy vllm /v1/chat/completions",
    ),
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
    ("/olla/ollama/api/tags", "list ollama Ollama"),
    ("/olla/ollama/api/tags/", "list ollama Ollama"),
    ("/olla/ollama/api/tags/x", "proxy ollama /api/tags/x"),
    ("/olla/openai/api/tags", "list openai Ollama"),
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
    ("/olla/ollama/api/show", "Ollama ollama /api/show|"),
    ("/olla/vllm/api/ps/", "Ollama vllm /api/ps|"),
    ("/olla/vllm/api/version", "proxy vllm /api/version"),
    ("/olla/vllm/v1/messages", "Anthropic vllm /v1/messages|"),
    ("/olla/vllm/v1/messages/", "Anthropic vllm /v1/messages|"),
    (
        "/olla/proxy/v1/messages/count_tokens",
        "Anthropic proxy /v1/messages/count_tokens|",
    ),
    (
        "/olla/vllm/v1/messages/batches",
        "proxy vllm /v1/messages/batches",
    ),
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
    (
        "/olla/anthropic/v1/messages",
        "Anthropic proxy /v1/messages|",
    ),
    ("/olla/anthropic/v1/messages/", "404 Anthropic"),
    (
        "/olla/anthropic/v1/messages/count_tokens",
        "Anthropic proxy /v1/messages/count_tokens|",
    ),
    ("/olla/anthropic/v1/models", "Anthropic proxy /v1/models|"),
    ("/olla/anthropic/v1/models/", "Anthropic proxy /v1/models|"),
    (
        "/olla/anthropic/v1/models/a/b",
        "Anthropic proxy /v1/models/|a/b",
    ),
    ("/olla/anthropic", "Anthropic proxy |"),
    ("/olla/anthropic/", "Anthropic proxy |"),
    ("/olla/anthropic/api/hello", "Anthropic proxy /api/hello|"),
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

/// Without a prefix.
const AT_ROOT: &[(&str, &str)] = &[
    ("/", "root"),
    ("", "404 OpenAi"),
    ("/v1", "proxy proxy /v1"),
    ("/v1/", "proxy proxy /v1/"),
    ("/v1/chat/completions", "Chat proxy /v1/chat/completions"),
    ("/v1/rerank", "proxy proxy /v1/rerank"),
    ("/v1/models", "list proxy OpenAi"),
    ("/v1/models/", "list proxy OpenAi"),
    ("/v1/models/a/b", "one proxy OpenAi a/b"),
    ("/v1/messages", "Anthropic proxy /v1/messages|"),
    ("/v1/x/api/pull", "manage Pull"),
    ("/v1x", "404 OpenAi"),
    ("/api/tags", "list proxy Ollama"),
    ("/api/tags/", "list proxy Ollama"),
    ("/api/show", "Ollama proxy /api/show|"),
    ("/api/ps", "Ollama proxy /api/ps|"),
    ("/api/version", "Ollama proxy /api/version|"),
    ("/api/version/", "Ollama proxy /api/version|"),
    ("/api/hello", "Ollama proxy /api/hello|"),
    ("/api/pull", "manage Pull"),
    ("/api/blobs/sha256:1", "manage Blob"),
    ("/api/v1/models/load", "manage Load"),
    ("/api/blobs/", "404 Ollama"),
    ("/api", "404 Ollama"),
    ("/api/", "404 Ollama"),
    ("/api/v0/models", "404 Ollama"),
    ("/apis", "404 OpenAi"),
    ("/models", "404 OpenAi"),
    ("/chat/completions", "404 OpenAi"),
    ("/health", "404 OpenAi"),
    ("/metrics", "404 OpenAi"),
];

#[test]
fn every_path_has_its_route() {
    let table = RouteTable::new(&profiles(), &translators(true), true);
    for (path, route) in PROXIED.iter().chain(OWN).chain(AT_ROOT) {
        assert_eq!(shown(&table, path), *route, "{path}");
    }
}

#[test]
fn a_translator_that_is_off_forwards_nothing() {
    let table = RouteTable::new(&profiles(), &translators(false), true);
    for path in ["/olla/anthropic/v1/messages", "/olla/anthropic/v1/models"] {
        assert_eq!(shown(&table, path), "404 OpenAi");
    }
    for (path, route) in [
        ("/olla/vllm/v1/messages", "proxy vllm /v1/messages"),
        ("/olla/vllm/api/tags", "proxy vllm /api/tags"),
        ("/olla/ollama/api/tags", "list ollama Native"),
        // At the root as below Ollama's own prefix.
        ("/api/tags", "list ollama Native"),
        ("/api/version", "proxy ollama /api/version"),
        ("/api/nothing", "proxy ollama /api/nothing"),
        ("/v1/messages", "proxy proxy /v1/messages"),
    ] {
        assert_eq!(shown(&table, path), route);
        assert_eq!(table.find(path.as_bytes()).errors(), ApiFamily::OpenAi);
    }
    assert!(table.messages_listing(b"/v1/models").is_none());
}

#[test]
fn the_root_can_be_closed() {
    let table = RouteTable::new(&profiles(), &translators(true), false);
    for (path, _) in AT_ROOT {
        assert_eq!(shown(&table, path), "404 OpenAi", "{path}");
        assert_eq!(table.find(path.as_bytes()).errors(), ApiFamily::OpenAi);
        assert_eq!(table.family_of(path.as_bytes()), ApiFamily::OpenAi);
    }
}

#[test]
fn errors_have_the_form_of_the_path() {
    let table = RouteTable::new(&profiles(), &translators(true), true);
    for (path, family) in [
        ("/olla/ollama/api/show", ApiFamily::OpenAi),
        ("/olla/ollama/api/ps", ApiFamily::OpenAi),
        ("/olla/vllm/v1/messages", ApiFamily::Anthropic),
        ("/olla/anthropic/nothing", ApiFamily::Anthropic),
        ("/v1/messages", ApiFamily::Anthropic),
        ("/v1/x/../../..", ApiFamily::OpenAi),
        ("/v1/chat/completions", ApiFamily::OpenAi),
        ("/api/show", ApiFamily::Ollama),
        ("/api/tags", ApiFamily::Ollama),
        ("/api/pull", ApiFamily::Ollama),
        ("/api", ApiFamily::Ollama),
        ("/", ApiFamily::OpenAi),
    ] {
        assert_eq!(table.find(path.as_bytes()).errors(), family, "{path}");
    }
    assert_eq!(table.family_of(b"/api/../x?y"), ApiFamily::Ollama);
    assert_eq!(table.family_of(b"/v1/../x"), ApiFamily::OpenAi);
}

#[test]
fn another_method_makes_an_ordinary_path_below_a_prefix() {
    let table = RouteTable::new(&profiles(), &translators(true), true);
    for (method, path, is_forwarded) in [
        ("POST", "/olla/vllm/v1/messages", false),
        ("GET", "/olla/vllm/v1/messages", true),
        ("OPTIONS", "/olla/proxy/api/show", true),
        ("POST", "/olla/ollama/api/ps", true),
        ("GET", "/v1/messages", true),
        ("GET", "/api/show", false),
        ("GET", "/olla/anthropic/v1/messages", false),
        ("POST", "/olla/anthropic/v1/models/x", false),
        ("POST", "/olla/vllm/api/tags", false),
    ] {
        let route = table.route(method.as_bytes(), path.as_bytes());
        let found = matches!(route.kind, RouteKind::Proxy(_, None));
        assert_eq!(found, is_forwarded, "{method} {path}");
        if found {
            let rest = String::from_utf8_lossy(route.rest(path.as_bytes())).into_owned();
            assert!(path.ends_with(&rest) && rest.starts_with('/'), "{rest}");
            assert_eq!(route.errors(), ApiFamily::OpenAi);
        }
    }
}

#[test]
fn the_list_at_the_root_has_a_form_for_the_messages_api() {
    let table = RouteTable::new(&profiles(), &translators(true), true);
    let listing = |path: &str| {
        let route = table.messages_listing(path.as_bytes())?;
        let rest = String::from_utf8_lossy(route.rest(path.as_bytes())).into_owned();
        assert_eq!(route.errors(), ApiFamily::Anthropic);
        Some(rest)
    };
    assert_eq!(listing("/v1/models").as_deref(), Some(""));
    assert_eq!(listing("/v1/models/a/b").as_deref(), Some("a/b"));
    assert_eq!(listing("/models"), None);
    assert_eq!(listing("/olla/proxy/v1/models"), None);
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
    let table = RouteTable::new(&all, &translators(true), true);
    let owner = |path: &str| match table.find(path.as_bytes()).kind {
        RouteKind::Proxy(id, _) | RouteKind::Listing(id, _) | RouteKind::ListedModel(id, _) => {
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
    let table = RouteTable::new(&profiles(), &translators(true), true);
    let rows: [(&str, Option<&str>, Limit); 23] = [
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
        ("/", Some("GET, HEAD"), Limit::Pages),
        ("/v1/chat/completions", None, Limit::Proxied),
        ("/api/show", Some("POST"), Limit::Proxied),
        ("/api/tags", Some("GET, HEAD"), Limit::Pages),
        ("/api/ps", Some("GET, HEAD"), Limit::Pages),
        ("/api/version", Some("GET, HEAD"), Limit::Pages),
        ("/api/nothing", None, Limit::Free),
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
