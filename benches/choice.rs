//! What a choice costs among 1, 10 and 200 endpoints that all list the model: the scope, the
//! decision by the model's name, and the balancer's pick with its counting.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use olla::bench::config::{Balancer, BaseUrl, EndpointPlan, Fallback, RoutingPlan, Strategy};
use olla::bench::providers::Profiles;
use olla::bench::routing::{
    Aliases, Decision, Endpoint, EndpointSet, ModelIndex, Picker, Refresh, RoutingRequest,
    RoutingRules, ScopeId, Scopes, Standing, Turns, decide,
};

const MODEL: &str = "qwen3:8b";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for balancer in [
        Balancer::Priority,
        Balancer::RoundRobin,
        Balancer::LeastConnections,
    ] {
        choice(&mut criterion, balancer);
    }
    criterion.final_summary();
}

fn choice(criterion: &mut Criterion, balancer: Balancer) {
    let profiles = Profiles::builtin();
    let routing = RoutingPlan {
        strategy: Strategy::Strict,
        fallback_behavior: Fallback::None,
        discovery_timeout: Duration::from_secs(2),
        discovery_refresh_on_miss: false,
    };
    let (aliases, turns) = (Aliases::new(&[]), Turns::default());
    let mut group = criterion.benchmark_group(format!("choice/{balancer}"));
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for count in [1, 10, 200] {
        let endpoints: Vec<_> = (0..count).map(|id| endpoint(&profiles, id)).collect();
        let names: [Arc<str>; 1] = [MODEL.into()];
        let models = ModelIndex::build((0..count).map(|index| (index, false, names.clone())));
        let scopes = Scopes::new(profiles.all(), &endpoints);
        let standing = Standing {
            routable: EndpointSet::first(count),
            unchecked: EndpointSet::EMPTY,
            fleet: None,
        };
        let rules = RoutingRules {
            routing: &routing,
            aliases: &aliases,
            models: &models,
            vision: &EndpointSet::EMPTY,
        };
        let mut random = 1_u64;
        group.bench_function(count.to_string(), |b| {
            b.iter(|| {
                let path = black_box(b"v1/chat/completions");
                let scope = scopes.find(ScopeId::OpenAi, path, &standing);
                let ask = RoutingRequest {
                    scope: &scope,
                    has_provider: true,
                    model: Some(black_box(MODEL)),
                    is_hidden: false,
                    images: false,
                    refresh: Refresh::Before,
                    no_model: None,
                };
                let Decision::Route(routed) = decide(&rules, &ask) else {
                    panic!("every endpoint lists the model");
                };
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let picker = Picker {
                    endpoints: &endpoints,
                    balancer,
                    turns: &turns,
                    now_ms: 1,
                    random,
                };
                let tried = EndpointSet::EMPTY;
                picker.pick(&routed.candidates, &tried, None, |_| true)
            });
        });
    }
    group.finish();
}

/// A healthy vLLM endpoint.
fn endpoint(profiles: &Profiles, id: usize) -> Endpoint {
    let profile = profiles.all().iter().find(|profile| profile.name == "vllm");
    let url = BaseUrl::parse("http://127.0.0.1:8000").expect("a valid URL");
    let plan = EndpointPlan::new(&format!("e{id}"), url, "vllm");
    Endpoint::healthy(id, plan, Arc::clone(profile.expect("a built-in profile")))
}
