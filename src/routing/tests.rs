//! From a request's target to what an endpoint would get, through all parts at once: the worked
//! examples of the contract (surface 16) and the like.

use super::balance::{Picker, Turns};
use super::decide::{Decision, Refresh, RoutingRequest, RoutingRules, decide};
use super::names::ModelIndex;
use super::path::{normalise, upstream_target};
use super::rejection::About;
use super::route::{RouteKind, RouteTable};
use super::scope::{Scopes, Standing};
use super::testing::{endpoint, profiles, translators};
use super::{aliases::Aliases, scope::ScopeId};
use crate::config::{Balancer, BaseUrl, EndpointPlan, Fallback, RoutingPlan, Strategy};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use std::sync::Arc;
use std::time::Duration;

/// A gateway without sockets.
struct Gateway {
    routes: RouteTable,
    scopes: Scopes,
    models: ModelIndex,
    endpoints: Vec<Endpoint>,
    turns: Turns,
}

/// Name, type, URL, `preserve_path`, priority and models of an endpoint.
type Given<'a> = (&'a str, &'a str, &'a str, bool, u32, &'a [&'a str]);

impl Gateway {
    fn new(given: &[Given<'_>]) -> Self {
        let endpoints: Vec<_> = given
            .iter()
            .enumerate()
            .map(|(id, (name, kind, url, preserve_path, priority, _))| {
                let mut endpoint = endpoint(id, name, kind);
                endpoint.plan = Arc::new(EndpointPlan {
                    url: BaseUrl::parse(url).unwrap(),
                    preserve_path: *preserve_path,
                    priority: *priority,
                    ..EndpointPlan::clone(&endpoint.plan)
                });
                endpoint
            })
            .collect();
        let profiles = profiles();
        let listings = given.iter().zip(&endpoints).enumerate();
        let listings = listings.map(|(index, ((.., models), endpoint))| {
            (
                index,
                endpoint.profile.completes_tags(),
                models.iter().copied(),
            )
        });
        Self {
            routes: RouteTable::new(&profiles, &translators(false), true),
            scopes: Scopes::new(&profiles, &endpoints),
            models: ModelIndex::build(listings),
            endpoints,
            turns: Turns::default(),
        }
    }

    /// `endpoint: target`, or `status CODE: message`.
    fn serve(&self, target: &str, model: Option<&str>, down: &[usize]) -> String {
        let Ok(normal) = normalise(target.as_bytes()) else {
            return "400 INVALID_PATH".to_owned();
        };
        let route = self.routes.find(&normal.path);
        let RouteKind::Proxy(id, operation) = route.kind else {
            return "404 NOT_FOUND".to_owned();
        };
        let prefix = self.routes.prefix(id);
        let rest = route.rest(&normal.path);
        let down: EndpointSet = down.iter().copied().collect();
        let standing = Standing {
            routable: EndpointSet::first(self.endpoints.len()).minus(&down),
            unchecked: EndpointSet::EMPTY,
            fleet: None,
        };
        let scope = match operation {
            Some(_) => self.scopes.unnarrowed(prefix.scope, &standing),
            None => self.scopes.find(prefix.scope, rest, &standing),
        };
        let routing = RoutingPlan {
            strategy: Strategy::Strict,
            fallback_behavior: Fallback::CompatibleOnly,
            discovery_timeout: Duration::from_secs(2),
            discovery_refresh_on_miss: false,
        };
        let rules = RoutingRules {
            routing: &routing,
            aliases: &Aliases::default(),
            models: &self.models,
            vision: &EndpointSet::EMPTY,
        };
        let ask = RoutingRequest {
            scope: &scope,
            has_provider: prefix.provider().is_some(),
            model,
            is_hidden: false,
            images: false,
            refresh: Refresh::Before,
            no_model: None,
        };
        let routed = match decide(&rules, &ask) {
            Decision::Route(routed) => routed,
            Decision::Reject(rejected) => {
                let about = About {
                    provider: prefix.provider(),
                    model,
                    ..About::default()
                };
                let fault = rejected.fault;
                let message = fault.message(about);
                return format!("{} {}: {message}", fault.status(), fault.code());
            }
            other => return format!("{other:?}"),
        };
        let picker = Picker {
            endpoints: &self.endpoints,
            balancer: Balancer::Priority,
            turns: &self.turns,
            now_ms: 0,
            random: 0,
        };
        let picked = picker.pick(&routed.candidates, &EndpointSet::EMPTY, None, |_| true);
        let endpoint = &self.endpoints[picked.unwrap().endpoint()];
        let mut upstream = Vec::new();
        let plan = &endpoint.plan;
        let kept = plan.preserve_path.then_some(plan.url.base_path.as_str());
        upstream_target(kept.unwrap_or(""), rest, normal.query, None, &mut upstream);
        format!(
            "{}: {}",
            endpoint.name(),
            String::from_utf8_lossy(&upstream)
        )
    }
}

#[test]
fn worked_examples() {
    let lmstudio: &[Given<'_>] = &[("l", "lm-studio", "http://h:1234", false, 100, &[])];
    let keep: &[Given<'_>] = &[("v", "vllm", "http://h/gw/llm", true, 100, &[])];
    let swap: &[Given<'_>] = &[("v", "vllm", "http://h/gw/llm", false, 100, &[])];
    let ollama: &[Given<'_>] = &[("o", "ollama", "http://h", false, 100, &["m1"])];
    let rows = [
        (
            lmstudio,
            "/olla/lmstudio/v1/chat/completions?x=1",
            "l: /v1/chat/completions?x=1",
        ),
        (
            keep,
            "/olla/vllm/v1/completions",
            "v: /gw/llm/v1/completions",
        ),
        (swap, "/olla/vllm/v1/completions", "v: /v1/completions"),
        (swap, "/olla/openai/v1//embeddings", "v: /v1/embeddings"),
        (swap, "/olla/proxy/v1/files/a%2Fb/", "v: /v1/files/a%2Fb/"),
        (swap, "/olla/proxy/../internal/status", "400 INVALID_PATH"),
        (swap, "/v1/chat/completions", "v: /v1/chat/completions"),
        (swap, "/chat/completions", "404 NOT_FOUND"),
        (
            ollama,
            "/olla/vllm/v1/completions",
            "404 ENDPOINT_NOT_FOUND: no endpoint of provider \"vllm\" is configured",
        ),
        (ollama, "/olla/ollama", "o: /"),
    ];
    for (given, target, outcome) in rows {
        assert_eq!(
            Gateway::new(given).serve(target, None, &[]),
            outcome,
            "{target}"
        );
    }
}

#[test]
fn what_is_down_is_503() {
    let gateway = Gateway::new(&[("v", "vllm", "http://h", false, 100, &["m1"])]);
    let target = "/olla/vllm/v1/completions";
    let provider = "503 NO_HEALTHY_ENDPOINTS: no healthy endpoint of provider \"vllm\"";
    assert_eq!(gateway.serve(target, None, &[0]), provider);
    let named = gateway.serve("/olla/proxy/v1/completions", Some("m1"), &[0]);
    assert_eq!(
        named,
        "503 NO_HEALTHY_ENDPOINTS: no healthy endpoint for model \"m1\""
    );
    let empty = Gateway::new(&[]);
    let nowhere = empty.serve("/olla/proxy/v1/x", None, &[]);
    assert_eq!(nowhere, "503 NO_HEALTHY_ENDPOINTS: no healthy endpoint");
    assert!(
        empty
            .serve("/olla/ollama/api/chat", Some("m1"), &[])
            .starts_with("404 ENDPOINT")
    );
}

#[test]
fn prefix_path_and_model_together() {
    let gateway = Gateway::new(&[
        ("v", "vllm", "http://v", false, 100, &["m1", "only-v"]),
        (
            "o",
            "ollama",
            "http://o",
            false,
            10,
            &["m1", "llama3:latest"],
        ),
    ]);
    let rows = [
        ("/olla/proxy/api/chat", "m1", "o: /api/chat"),
        (
            "/olla/proxy/v1/chat/completions",
            "m1",
            "v: /v1/chat/completions",
        ),
        (
            "/olla/proxy/v1/chat/completions",
            "M1",
            "v: /v1/chat/completions",
        ),
        (
            "/olla/proxy/v1/chat/completions",
            "llama3",
            "o: /v1/chat/completions",
        ),
        ("/olla/proxy/v1/rerank", "m1", "v: /v1/rerank"),
        (
            "/olla/proxy/some/unlisted/path",
            "m1",
            "v: /some/unlisted/path",
        ),
        (
            "/olla/ollama/v1/chat/completions",
            "m1",
            "o: /v1/chat/completions",
        ),
        (
            "/olla/openai/v1/chat/completions",
            "m1",
            "v: /v1/chat/completions",
        ),
        // Known, but not where prefix and path lead.
        (
            "/olla/ollama/v1/chat/completions",
            "only-v",
            "404 MODEL_NOT_FOUND: no endpoint of provider \"ollama\" has the model \"only-v\"",
        ),
        (
            "/olla/openai/v1/chat/completions",
            "nowhere",
            "404 MODEL_NOT_FOUND: no endpoint has the model \"nowhere\"",
        ),
        (
            "/olla/proxy/api/chat",
            "only-v",
            "404 MODEL_NOT_FOUND: no endpoint has the model \"only-v\"",
        ),
    ];
    for (target, model, outcome) in rows {
        assert_eq!(
            gateway.serve(target, Some(model), &[]),
            outcome,
            "{target} {model}"
        );
    }
    let down = gateway.serve("/olla/proxy/v1/x", Some("only-v"), &[0]);
    assert_eq!(
        down,
        "503 MODEL_UNAVAILABLE: no healthy endpoint has the model \"only-v\""
    );
}

#[test]
fn the_messages_api_hides_nobody() {
    let gateway = Gateway::new(&[
        ("x", "omlx", "http://x", false, 100, &[]),
        ("v", "vllm", "http://v", false, 100, &["m1"]),
    ]);
    let standing = Standing {
        routable: EndpointSet::first(2),
        unchecked: EndpointSet::EMPTY,
        fleet: None,
    };
    let scopes = &gateway.scopes;
    assert_eq!(
        scopes
            .find(ScopeId::Any, b"/v1/messages", &standing)
            .routable
            .len(),
        1
    );
    assert_eq!(scopes.unnarrowed(ScopeId::Any, &standing).routable.len(), 2);
}
