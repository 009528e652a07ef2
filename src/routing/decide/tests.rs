//! The rows of the contract's tables.

use super::Refresh::{Before, Done, Failed};
use super::*;
use crate::config::AliasPlan;
use crate::config::Strategy::{Discovery, Optimistic, Strict};
use crate::routing::testing::endpoint;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Three endpoints in scope, of which one or more are up, and a fourth out of scope.
/// 0 lists `m1` and `Shared`, 1 lists `m2` and `shared`, 2 (Ollama) lists `llama3:latest`,
/// 3 lists `far`.
struct World {
    routing: RoutingPlan,
    aliases: Aliases,
    models: ModelIndex,
    vision: EndpointSet,
}

fn set(indices: &[usize]) -> EndpointSet {
    indices.iter().copied().collect()
}

fn world(strategy: Strategy, fallback: Fallback, refresh: bool) -> World {
    let names = |names: &[&str]| -> Vec<Arc<str>> { names.iter().map(|&n| n.into()).collect() };
    let listings = [
        names(&["m1", "Shared"]),
        names(&["m2", "shared"]),
        names(&["llama3:latest", "gpt-real"]),
        names(&["far"]),
    ];
    let alias = |name: &str, targets: &[&str]| AliasPlan {
        name: name.to_owned(),
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
    };
    World {
        routing: RoutingPlan {
            strategy,
            fallback_behavior: fallback,
            discovery_timeout: Duration::from_secs(2),
            discovery_refresh_on_miss: refresh,
        },
        aliases: Aliases::new(&[
            alias("My-Llama", &["nowhere", "M2", "llama3"]),
            alias("orphan", &["nowhere"]),
            alias("distant", &["far"]),
            alias("m1", &["m2"]),
            alias("self", &["self", "m1"]),
            alias("m2", &["nowhere"]),
            alias("gpt-*", &["far", "m1"]),
            alias("lost-*", &["far-away"]),
        ]),
        models: ModelIndex::build(
            listings
                .iter()
                .enumerate()
                .map(|(index, names)| (index, index == 2, names.iter().cloned())),
        ),
        vision: set(&[1, 3]),
    }
}

/// A request's circumstances: the scope has 0, 1 and 2.
#[derive(Clone, Copy)]
struct Case<'a> {
    model: Option<&'a str>,
    up: &'a [usize],
    unchecked: &'a [usize],
    refresh: Refresh,
    images: bool,
}

fn case<'a>(model: &'a str, up: &'a [usize]) -> Case<'a> {
    Case {
        model: Some(model).filter(|model| !model.is_empty()),
        up,
        unchecked: &[],
        refresh: Before,
        images: false,
    }
}

impl World {
    fn decide(&self, case: Case<'_>) -> Decision {
        let scope = RouteScope {
            configured: set(&[0, 1, 2]),
            routable: set(case.up),
            unchecked: set(case.unchecked),
        };
        self.decide_in(&scope, case)
    }

    fn decide_in(&self, scope: &RouteScope, case: Case<'_>) -> Decision {
        let rules = RoutingRules {
            routing: &self.routing,
            aliases: &self.aliases,
            models: &self.models,
            vision: &self.vision,
        };
        let ask = RoutingRequest {
            scope,
            has_provider: false,
            model: case.model,
            is_hidden: false,
            images: case.images,
            refresh: case.refresh,
            no_model: None,
        };
        decide(&rules, &ask)
    }

    /// A decision in short: `[0, 1] strict routed model_found`, or `404 strict rejected …`.
    fn shown(&self, case: Case<'_>) -> String {
        let (mut text, routing) = match self.decide(case) {
            Decision::Route(routed) => {
                let all: Vec<_> = routed.candidates.iter().collect();
                (format!("{all:?}"), routed.routing)
            }
            Decision::Reject(rejected) => (rejected.fault.code().to_owned(), rejected.routing),
            Decision::Refresh => ("refresh".to_owned(), None),
            Decision::AwaitFirstCheck => ("await".to_owned(), None),
        };
        if let Some(routing) = routing {
            let reason = routing.reason.show(&self.aliases);
            let _ = write!(
                text,
                " {} {} {reason}",
                routing.strategy,
                routing.verdict.as_str()
            );
        }
        text
    }
}

const CO: Fallback = Fallback::CompatibleOnly;
const NO: Fallback = Fallback::None;
const ALL: Fallback = Fallback::All;

/// Strategy, fallback, model and who is up; and what comes of it. `Shared` is listed by 0 in that
/// spelling, `shared` by 1, `x` by none, `far` out of scope.
#[rustfmt::skip]
const ROWS: &[(Strategy, Fallback, &str, &[usize], &str)] = &[
    (Strict, CO, "Shared", &[0, 1], "[0] strict routed model_found"),
    (Strict, CO, "SHARED", &[0, 1], "[0, 1] strict routed model_found"),
    (Strict, CO, "llama3", &[0, 2], "[2] strict routed model_found"),
    (Strict, CO, "x", &[0], "MODEL_NOT_FOUND strict rejected model_not_found"),
    (Strict, ALL, "far", &[0], "MODEL_NOT_FOUND strict rejected model_not_found"),
    (Strict, CO, "shared", &[2], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    (Optimistic, CO, "shared", &[1], "[1] optimistic routed model_found"),
    (Optimistic, CO, "x", &[0], "MODEL_NOT_FOUND optimistic rejected model_not_found"),
    (Optimistic, NO, "x", &[0], "MODEL_NOT_FOUND optimistic rejected model_not_found"),
    (Optimistic, NO, "shared", &[2], "MODEL_UNAVAILABLE optimistic rejected model_unavailable_no_fallback"),
    (Optimistic, CO, "shared", &[2], "MODEL_UNAVAILABLE optimistic rejected model_unavailable_compatible_only"),
    (Optimistic, ALL, "x", &[0, 2], "[0, 2] optimistic fallback model_not_found_fallback"),
    (Optimistic, ALL, "shared", &[2], "[2] optimistic fallback all_healthy_fallback"),
    (Optimistic, ALL, "llama3", &[2], "[2] optimistic routed model_found"),
    (Optimistic, ALL, "far", &[2], "[2] optimistic fallback model_not_found_fallback"),
];

#[test]
fn strict_and_optimistic_rows() {
    for (strategy, fallback, model, up, expected) in ROWS.iter().copied() {
        let shown = world(strategy, fallback, false).shown(case(model, up));
        assert_eq!(shown, expected, "{strategy} {fallback} {model} {up:?}");
    }
}

/// Whether the refresh is on, the fallback and the refresh's outcome; model and who is up; and what
/// comes of it.
type DiscoveryRow = (
    (bool, Fallback, Refresh),
    &'static str,
    &'static [usize],
    &'static str,
);

#[rustfmt::skip]
const DISCOVERY_ROWS: &[DiscoveryRow] = &[
    ((true, CO, Before), "m2", &[0], "refresh"),
    ((true, ALL, Before), "x", &[0], "refresh"),
    ((true, CO, Before), "shared", &[1], "[1] discovery routed model_found_no_refresh"),
    ((false, CO, Before), "shared", &[1], "[1] discovery routed model_found_no_refresh"),
    ((true, CO, Done), "shared", &[1], "[1] discovery routed model_found"),
    ((true, CO, Failed), "shared", &[1], "[1] discovery routed model_found"),
    ((false, ALL, Before), "x", &[0], "MODEL_UNAVAILABLE discovery rejected model_unavailable_no_refresh"),
    ((false, CO, Before), "shared", &[2], "MODEL_UNAVAILABLE discovery rejected model_unavailable_no_refresh"),
    ((true, CO, Done), "x", &[0], "MODEL_NOT_FOUND discovery rejected model_not_found"),
    ((true, NO, Done), "x", &[0], "MODEL_NOT_FOUND discovery rejected model_not_found"),
    ((true, CO, Done), "shared", &[2], "MODEL_UNAVAILABLE discovery rejected model_unavailable_after_discovery"),
    ((true, NO, Done), "shared", &[2], "MODEL_UNAVAILABLE discovery rejected model_unavailable_after_discovery"),
    ((true, ALL, Done), "shared", &[2], "[2] discovery fallback all_healthy_after_discovery"),
    ((true, NO, Failed), "x", &[0], "MODEL_UNAVAILABLE discovery rejected discovery_failed_no_fallback"),
    ((true, CO, Failed), "x", &[0], "MODEL_UNAVAILABLE discovery rejected discovery_failed_compatible_only"),
    ((true, ALL, Failed), "x", &[0], "[0] discovery fallback discovery_failed_all_fallback"),
];

#[test]
fn a_name_that_is_unknown_is_looked_for_under_every_strategy() {
    let rows = [
        (Strict, CO, "x", Before, "refresh"),
        (Optimistic, ALL, "x", Before, "refresh"),
        (Strict, CO, "orphan", Before, "refresh"),
        (Strict, CO, "m1", Before, "[0] strict routed model_found"),
        (
            Strict,
            CO,
            "x",
            Done,
            "MODEL_NOT_FOUND strict rejected model_not_found",
        ),
        (
            Strict,
            CO,
            "x",
            Failed,
            "MODEL_NOT_FOUND strict rejected model_not_found",
        ),
        (
            Optimistic,
            ALL,
            "x",
            Failed,
            "[0] optimistic fallback model_not_found_fallback",
        ),
        (
            Strict,
            CO,
            "llama3",
            Before,
            "MODEL_UNAVAILABLE strict rejected model_unavailable",
        ),
        // A pattern fits it.
        (
            Strict,
            CO,
            "lost-1",
            Before,
            "MODEL_NOT_FOUND strict rejected model_not_found",
        ),
        (
            Discovery,
            CO,
            "lost-1",
            Before,
            "MODEL_UNAVAILABLE discovery rejected model_unavailable_no_refresh",
        ),
    ];
    for (strategy, fallback, model, refresh, expected) in rows {
        let case = Case {
            refresh,
            ..case(model, &[0])
        };
        let shown = world(strategy, fallback, true).shown(case);
        assert_eq!(shown, expected, "{strategy} {model} {refresh:?}");
    }
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let shown = world(Strict, CO, true).shown(case(&long, &[0]));
    assert!(shown.starts_with("MODEL_NOT_FOUND"), "{shown}");
}

#[test]
fn discovery_rows() {
    for ((on, fallback, refresh), model, up, expected) in DISCOVERY_ROWS.iter().copied() {
        let world = world(Discovery, fallback, on);
        let case = Case {
            refresh,
            ..case(model, up)
        };
        assert_eq!(
            world.shown(case),
            expected,
            "{on} {fallback} {refresh:?} {model} {up:?}"
        );
    }
}

#[test]
fn nobody_up_is_503_whatever_is_known() {
    let rows = [
        (Strict, CO, false, "strict rejected model_unavailable"),
        (
            Optimistic,
            NO,
            false,
            "optimistic rejected model_unavailable_no_fallback",
        ),
        (
            Optimistic,
            CO,
            false,
            "optimistic rejected model_unavailable_compatible_only",
        ),
        (
            Optimistic,
            ALL,
            false,
            "optimistic rejected model_unavailable",
        ),
        (
            Discovery,
            ALL,
            false,
            "discovery rejected model_unavailable_no_refresh",
        ),
        (
            Discovery,
            CO,
            true,
            "discovery rejected no_healthy_after_discovery",
        ),
    ];
    for (strategy, fallback, on, words) in rows {
        let world = world(strategy, fallback, on);
        for model in ["m1", "x", "My-Llama"] {
            let expected = format!("NO_HEALTHY_ENDPOINTS {words}");
            assert_eq!(world.shown(case(model, &[])), expected);
        }
        assert_eq!(world.shown(case("", &[])), "NO_HEALTHY_ENDPOINTS");
    }
}

/// Model and who is up; and what comes of it under `strict`.
#[rustfmt::skip]
const ALIAS_ROWS: &[(&str, &[usize], &str)] = &[
    ("My-Llama", &[0, 1, 2], "[1, 2] alias routed alias \"My-Llama\" resolved to 2 endpoint(s)"),
    ("my-LLAMA", &[0, 1], "[1] alias routed alias \"My-Llama\" resolved to 1 endpoint(s)"),
    ("My-Llama", &[0], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    ("orphan", &[0, 1, 2], "MODEL_NOT_FOUND strict rejected model_not_found"),
    // Listed by an endpoint out of scope.
    ("distant", &[0, 1, 2], "MODEL_NOT_FOUND strict rejected model_not_found"),
    // An alias that equals a model wins, but only while it leads somewhere.
    ("m1", &[0, 1], "[1] alias routed alias \"m1\" resolved to 1 endpoint(s)"),
    ("m1", &[0], "[0] strict routed model_found"),
    ("m2", &[0, 1], "[1] strict routed model_found"),
    ("m2", &[0], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    ("self", &[0, 1], "[0] alias routed alias \"self\" resolved to 1 endpoint(s)"),
    ("self", &[2], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    ("Shared", &[0, 1], "[0] strict routed model_found"),
    // Ollama's clients append a tag; a real model goes first.
    ("my-llama:latest", &[0, 1], "[1] alias routed alias \"My-Llama\" resolved to 1 endpoint(s)"),
    ("llama3:latest", &[0, 2], "[2] strict routed model_found"),
    // Patterns come last, and never hide a model that is known.
    ("GPT-4.1", &[0, 1], "[0] alias routed alias \"gpt-*\" resolved to 1 endpoint(s)"),
    ("gpt-4.1", &[1], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    ("gpt-real", &[2], "[2] strict routed model_found"),
    ("gpt-real", &[0], "MODEL_UNAVAILABLE strict rejected model_unavailable"),
    ("lost-1", &[0, 1, 2], "MODEL_NOT_FOUND strict rejected model_not_found"),
];

#[test]
fn aliases_come_before_models() {
    let world = world(Strict, CO, false);
    for (model, up, expected) in ALIAS_ROWS.iter().copied() {
        assert_eq!(world.shown(case(model, up)), expected, "{model} {up:?}");
    }
    let optimistic = self::world(Optimistic, ALL, false);
    assert_eq!(
        optimistic.shown(case("orphan", &[0, 2])),
        "[0, 2] optimistic fallback model_not_found_fallback"
    );
}

#[test]
fn each_endpoint_gets_the_first_name_it_has() {
    let world = world(Strict, CO, false);
    let Decision::Route(routed) = world.decide(case("my-llama", &[0, 1, 2])) else {
        panic!("not routed");
    };
    let used = routed.alias.unwrap();
    let name = |endpoint| world.aliases.real_name(&used, &world.models, endpoint);
    assert_eq!(name(0), None);
    assert_eq!(name(1), Some("m2"), "as the endpoint spells it");
    assert_eq!(name(2), Some("llama3"), "Ollama adds the tag itself");
}

#[test]
fn images_narrow_only_what_names_no_model() {
    let world = world(Strict, CO, false);
    let rows: [(&str, &[usize], bool, &str); 5] = [
        ("", &[0, 1, 2], false, "[0, 1, 2]"),
        ("", &[0, 1, 2], true, "[1]"),
        ("", &[0, 2], true, "[0, 2]"),
        ("shared", &[0, 1], true, "[1] strict routed model_found"),
        ("Shared", &[0, 1], true, "[0] strict routed model_found"),
    ];
    for (model, up, images, expected) in rows {
        let case = Case {
            images,
            ..case(model, up)
        };
        assert_eq!(world.shown(case), expected, "{model} {up:?}");
    }
}

#[test]
fn a_first_check_is_waited_for_only_if_it_could_help() {
    let world = world(Optimistic, ALL, false);
    let rows: [(&str, &[usize], &[usize], &str); 6] = [
        ("m2", &[], &[1], "await"),
        ("", &[], &[1], "await"),
        ("m2", &[0], &[1], "await"),
        ("x", &[0], &[1], "await"),
        ("shared", &[0], &[1], "[0] optimistic routed model_found"),
        ("", &[0], &[1], "[0]"),
    ];
    for (model, up, unchecked, expected) in rows {
        let case = Case {
            unchecked,
            ..case(model, up)
        };
        assert_eq!(world.shown(case), expected, "{model} {up:?}");
    }
}

#[test]
fn a_provider_without_endpoints_is_404() {
    let world = world(Strict, CO, false);
    let nowhere = RouteScope::default();
    let rules = RoutingRules {
        routing: &world.routing,
        aliases: &world.aliases,
        models: &world.models,
        vision: &world.vision,
    };
    let code = |has_provider, model| {
        let ask = RoutingRequest {
            scope: &nowhere,
            has_provider,
            model,
            is_hidden: false,
            images: false,
            refresh: Before,
            no_model: None,
        };
        match decide(&rules, &ask) {
            Decision::Reject(rejected) => (rejected.fault.code(), rejected.routing.is_some()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code(true, Some("m1")), ("ENDPOINT_NOT_FOUND", false));
    assert_eq!(code(true, None), ("ENDPOINT_NOT_FOUND", false));
    assert_eq!(code(false, Some("m1")), ("NO_HEALTHY_ENDPOINTS", true));
    assert_eq!(code(false, None), ("NO_HEALTHY_ENDPOINTS", false));
}

#[test]
fn management_goes_to_one_endpoint() {
    let endpoints = [
        endpoint(0, "a", "ollama"),
        endpoint(1, "b", "ollama"),
        endpoint(2, "v", "vllm"),
    ];
    let shown = |up: &[usize], unchecked: &[usize], named: Option<&str>| {
        let scope = RouteScope {
            configured: set(&[0, 1]),
            routable: set(up),
            unchecked: set(unchecked),
        };
        match decide_management(&endpoints, &scope, named.map(str::as_bytes)) {
            Decision::Route(routed) => format!("{:?}", routed.candidates),
            Decision::Reject(rejected) => rejected.fault.status().to_string(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(shown(&[0], &[], None), "{0}");
    assert_eq!(shown(&[0, 1], &[], None), "400");
    assert_eq!(shown(&[], &[], None), "503");
    assert_eq!(shown(&[0], &[1], None), "AwaitFirstCheck");
    assert_eq!(shown(&[0, 1], &[], Some("b")), "{1}");
    assert_eq!(shown(&[0], &[], Some("b")), "503");
    assert_eq!(shown(&[0], &[1], Some("b")), "AwaitFirstCheck");
    assert_eq!(shown(&[0], &[1], Some("a")), "{0}");
    assert_eq!(shown(&[0], &[], Some("v")), "404", "not one of Ollama's");
    assert_eq!(shown(&[0], &[], Some("A")), "404");
    let none = decide_management(&endpoints, &RouteScope::default(), None);
    assert!(matches!(none, Decision::Reject(r) if r.fault == Fault::NoProvider));
}
