//! Which endpoint gets a request, and what the answer says about why.
//!
//! Contract: docs/contract/balancing.md#2, docs/contract/balancing.md#4,
//! docs/contract/balancing.md#5, docs/contract/balancing.md#7, docs/contract/balancing.md#8,
//! docs/contract/balancing.md#11

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, Response, endpoint, exchange, get,
    on_both_drivers, post, wait_for,
};

const CHAT: &str = "/olla/proxy/v1/chat/completions";

fn start(driver: Driver, endpoints: &[String], more: &str) -> Gateway {
    Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(more))
}

#[track_caller]
fn is_routed(answer: &Response, strategy: &str, decision: &str, reason: &str) {
    let routing = ["Strategy", "Decision", "Reason"].map(|name| {
        answer
            .header(&format!("X-Olla-Routing-{name}"))
            .unwrap_or("-")
    });
    assert_eq!(routing, [strategy, decision, reason]);
}

/// How often each endpoint answered.
fn spread(answers: impl IntoIterator<Item = Response>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        assert_eq!(answer.status, 200);
        *counts
            .entry(answer.header("X-Olla-Endpoint").unwrap().to_owned())
            .or_default() += 1;
    }
    counts
}

#[test]
fn the_model_is_found_where_it_stands() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["Model-A"]), Backend::ok(&["b"]));
        let gateway = start(
            driver,
            &[
                endpoint("one", "vllm", &one, ""),
                endpoint("two", "vllm", &two, ""),
            ],
            "",
        );
        let json = "Content-Type: application/json";
        let far = format!(
            r#"{{"messages":[{{"content":"{}"}}],"model":"b"}}"#,
            "x".repeat(2 << 20)
        );
        let rows: [(&str, &str, Option<&str>); 16] = [
            (json, r#"{"model":"Model-A"}"#, Some("Model-A")),
            (json, r#"{"model":"model-a"}"#, Some("model-a")),
            (json, r#"{"MODEL":"b"}"#, Some("b")),
            (json, r#"{"model":"  b\t"}"#, Some("b")),
            (json, r#"{"model":"\u0062"}"#, Some("b")),
            (json, r#"{"model":"x","model":"b"}"#, Some("b")),
            (json, r#"{"model":"b","Model":"x"}"#, Some("b")),
            (
                json,
                r#"{"model":null,"messages":[{"model":"b"}]}"#,
                Some("b"),
            ),
            (json, r#"{"tools":[{"model":"x"}],"model":"b"}"#, Some("b")),
            (json, r#"{"model":"b","messages":[{"#, Some("b")),
            (json, r#"{"model":7}"#, None),
            (json, r#"["model","b"]"#, None),
            (
                "Content-Type: application/x-www-form-urlencoded",
                r#" {"model":"b"}"#,
                Some("b"),
            ),
            (
                "Content-Type: application/x-www-form-urlencoded",
                "model=b",
                None,
            ),
            ("X-None: 1", r#"{"model":"b"}"#, Some("b")),
            (json, &far, Some("b")),
        ];
        for (kind, body, model) in rows {
            let shown = &body[..body.len().min(80)];
            let answer = exchange(&gateway, &format!("POST {CHAT}\r\n{kind}"), body.as_bytes());
            // Without a model the choice would be a guess (docs/contract/balancing.md#2.1).
            let status = if model.is_some() { 200 } else { 400 };
            assert_eq!(answer.status, status, "{shown}");
            assert_eq!(answer.header("X-Olla-Model"), model, "{shown}");
            match model {
                Some("b") => assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"), "{shown}"),
                Some(_) => assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"), "{shown}"),
                None => assert_eq!(answer.header("X-Olla-Routing-Strategy"), None, "{shown}"),
            }
        }
    });
}

#[test]
fn ollama_s_latest_need_not_be_said() {
    on_both_drivers(|driver| {
        let one = Backend::ok(&["llama3:latest"]);
        let gateway = start(driver, &[endpoint("one", "ollama", &one, "")], "");
        let answer = post(
            &gateway,
            "/olla/ollama/api/chat",
            &[],
            r#"{"model":"llama3"}"#,
        );
        assert_eq!(answer.status, 200);
        assert_eq!(one.last().text(), r#"{"model":"llama3"}"#);
        let answer = post(
            &gateway,
            "/olla/ollama/api/chat",
            &[],
            r#"{"model":"llama"}"#,
        );
        assert_eq!(answer.status, 404);
    });
}

#[test]
fn each_strategy_says_what_it_did() {
    on_both_drivers(|driver| {
        let (up, down) = (Backend::ok(&["here"]), Backend::ok(&["gone"]));
        let strategy = |kind: &str, options: &str| {
            format!(
                "[model_registry.routing_strategy]\ntype = \"{kind}\"\n[model_registry.routing_strategy.options]\n{options}"
            )
        };
        // Strategy, options, model, decision, reason, status.
        let rows = [
            ("strict", "", "here", "routed", "model_found", 200),
            ("strict", "", "nosuch", "rejected", "model_not_found", 404),
            ("strict", "", "gone", "rejected", "model_unavailable", 503),
            ("optimistic", "", "here", "routed", "model_found", 200),
            (
                "optimistic",
                "",
                "nosuch",
                "rejected",
                "model_not_found",
                404,
            ),
            (
                "optimistic",
                "",
                "gone",
                "rejected",
                "model_unavailable_compatible_only",
                503,
            ),
            (
                "optimistic",
                "fallback_behavior = \"none\"",
                "gone",
                "rejected",
                "model_unavailable_no_fallback",
                503,
            ),
            (
                "optimistic",
                "fallback_behavior = \"all\"",
                "nosuch",
                "fallback",
                "model_not_found_fallback",
                200,
            ),
            (
                "optimistic",
                "fallback_behavior = \"all\"",
                "gone",
                "fallback",
                "all_healthy_fallback",
                200,
            ),
            (
                "discovery",
                "",
                "here",
                "routed",
                "model_found_no_refresh",
                200,
            ),
            (
                "discovery",
                "discovery_refresh_on_miss = false",
                "nosuch",
                "rejected",
                "model_unavailable_no_refresh",
                503,
            ),
            (
                "discovery",
                "discovery_refresh_on_miss = true",
                "nosuch",
                "rejected",
                "model_not_found",
                404,
            ),
            (
                "discovery",
                "discovery_refresh_on_miss = true",
                "gone",
                "rejected",
                "model_unavailable_after_discovery",
                503,
            ),
            (
                "discovery",
                "discovery_refresh_on_miss = true\nfallback_behavior = \"all\"",
                "nosuch",
                "fallback",
                "all_healthy_after_discovery",
                200,
            ),
        ];
        let mut last = ("", "");
        let mut gateway: Option<Gateway> = None;
        for (kind, options, model, decision, reason, status) in rows {
            if last != (kind, options) {
                last = (kind, options);
                down.set_health(200);
                let endpoints = [
                    endpoint("up", "vllm", &up, ""),
                    endpoint("down", "vllm", &down, ""),
                ];
                let fresh = start(driver, &endpoints, &strategy(kind, options));
                down.set_health(500);
                fresh.wait_status("down", "unhealthy");
                gateway = Some(fresh);
            }
            let gateway = gateway.as_ref().unwrap();
            let answer = post(gateway, CHAT, &[], format!(r#"{{"model":"{model}"}}"#));
            assert_eq!(answer.status, status, "{kind} {options} {model}");
            is_routed(&answer, kind, decision, reason);
        }
        assert_eq!(down.count(), 0);
    });
}

#[test]
fn a_new_model_is_found_under_every_strategy() {
    on_both_drivers(|driver| {
        for kind in ["strict", "optimistic"] {
            let one = Backend::ok(&["old"]);
            let seldom = "check_interval = \"60s\"\ncheck_timeout = \"20s\"";
            let endpoints = [endpoint("one", "vllm", &one, seldom)];
            let strategy = format!("[model_registry.routing_strategy]\ntype = \"{kind}\"");
            let gateway = start(driver, &endpoints, &strategy);
            one.set_models(&["old", "new"]);
            let before = one.listings();
            let answer = post(&gateway, CHAT, &[], r#"{"model":"new"}"#);
            assert_eq!(answer.status, 200);
            is_routed(&answer, kind, "routed", "model_found");
            assert_eq!(one.listings(), before + 1);
            // The second miss waits for the endpoint's turn; the others are remembered.
            for _ in 0..5 {
                let answer = post(&gateway, CHAT, &[], r#"{"model":"wrong"}"#);
                assert_eq!(answer.status, 404);
                is_routed(&answer, kind, "rejected", "model_not_found");
            }
            assert_eq!(one.listings(), before + 2);
        }
    });
}

#[test]
fn a_miss_may_ask_all_endpoints_again() {
    on_both_drivers(|driver| {
        let one = Backend::ok(&["old"]);
        let discovery = "[model_registry.routing_strategy]\ntype = \"discovery\"\n\
                         options = { discovery_refresh_on_miss = true }";
        // A check that times out on a busy machine would bring a listing of its own.
        let seldom = "check_interval = \"60s\"\ncheck_timeout = \"20s\"";
        let gateway = start(driver, &[endpoint("one", "vllm", &one, seldom)], discovery);
        one.set_models(&["old", "new"]);
        let before = one.listings();
        let answer = post(&gateway, CHAT, &[], r#"{"model":"new"}"#);
        assert_eq!(answer.status, 200);
        is_routed(&answer, "discovery", "routed", "model_found");
        assert_eq!(one.listings(), before + 1);
        let answer = post(&gateway, CHAT, &[], r#"{"model":"new"}"#);
        is_routed(&answer, "discovery", "routed", "model_found_no_refresh");
        assert_eq!(one.listings(), before + 1);
    });
}

#[test]
fn an_alias_becomes_each_endpoint_s_own_name() {
    on_both_drivers(|driver| {
        let (one, two) = (Backend::ok(&["real-a"]), Backend::ok(&["real-b"]));
        let endpoints = [
            endpoint("one", "vllm", &one, "priority = 200"),
            endpoint("two", "vllm", &two, "priority = 100"),
        ];
        let more = "[model_aliases]\n\"Easy\" = [\"real-a\", \"real-b\"]\n\"real-b\" = [\"real-b\"]\n\
                    \"dead\" = [\"nosuch\"]\n[proxy]\nload_balancer = \"priority\"";
        let gateway = start(driver, &endpoints, more);
        let body = "{ \"model\" : \"easy\",\"x\":[1, 2 ] }";
        let answer = post(&gateway, CHAT, &[], body);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("one"));
        assert_eq!(answer.header("X-Olla-Model"), Some("easy"));
        is_routed(
            &answer,
            "alias",
            "routed",
            "alias \"Easy\" resolved to 2 endpoint(s)",
        );
        assert_eq!(one.last().text(), body.replace("\"easy\"", "\"real-a\""));
        // On a failover it is the next one's name.
        one.stop();
        let answer = post(&gateway, CHAT, &[], body);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("two"));
        assert_eq!(two.last().text(), body.replace("\"easy\"", "\"real-b\""));
        // An alias wins over the model of its name; one without targets is a plain name.
        let answer = post(&gateway, CHAT, &[], r#"{"model":"real-b"}"#);
        is_routed(
            &answer,
            "alias",
            "routed",
            "alias \"real-b\" resolved to 1 endpoint(s)",
        );
        let answer = post(&gateway, CHAT, &[], r#"{"model":"dead"}"#);
        assert_eq!(answer.status, 404);
        is_routed(&answer, "strict", "rejected", "model_not_found");
    });
}

#[test]
fn round_robin_takes_exact_turns() {
    on_both_drivers(|driver| {
        let backends = [0, 1, 2].map(|_| Backend::ok(&["m"]));
        let endpoints: Vec<String> = backends
            .iter()
            .enumerate()
            .map(|(index, backend)| endpoint(&format!("e{index}"), "vllm", backend, ""))
            .collect();
        let gateway = start(
            driver,
            &endpoints,
            "[proxy]\nload_balancer = \"round-robin\"",
        );
        let order: Vec<String> = (0..30)
            .map(|_| {
                let answer = post(&gateway, CHAT, &[], r#"{"model":"m"}"#);
                answer.header("X-Olla-Endpoint").unwrap().to_owned()
            })
            .collect();
        for (index, name) in order.iter().enumerate() {
            assert_eq!(name, &format!("e{}", index % 3));
        }
    });
}

#[test]
fn priority_uses_the_highest_tier_alone() {
    on_both_drivers(|driver| {
        let backends = [0, 1, 2].map(|_| Backend::ok(&["m"]));
        let endpoints = [
            endpoint("low", "vllm", &backends[0], "priority = 0"),
            endpoint("high", "vllm", &backends[1], "priority = 300"),
            endpoint("also", "vllm", &backends[2], "priority = 300"),
        ];
        let gateway = start(driver, &endpoints, "[proxy]\nload_balancer = \"priority\"");
        let counts = spread((0..60).map(|_| get(&gateway, "/olla/proxy/x", &[])));
        assert_eq!(counts.get("low"), None);
        assert!(counts["high"] >= 10 && counts["also"] >= 10, "{counts:?}");
        for (index, name) in [(1, "high"), (2, "also")] {
            backends[index].set_health(500);
            gateway.wait_status(name, "unhealthy");
        }
        let counts = spread((0..5).map(|_| get(&gateway, "/olla/proxy/x", &[])));
        assert_eq!(counts["low"], 5);
    });
}

#[test]
fn least_connections_spreads_a_burst() {
    on_both_drivers(|driver| {
        let backends = [0, 1, 2].map(|_| {
            Backend::new(&["m"], |_, link| {
                link.left_within(PATIENCE);
            })
        });
        let endpoints: Vec<String> = backends
            .iter()
            .enumerate()
            .map(|(index, backend)| endpoint(&format!("e{index}"), "vllm", backend, ""))
            .collect();
        let gateway = start(driver, &endpoints, "");
        let clients: Vec<Client> = (0..30)
            .map(|_| {
                let mut client = Client::to(&gateway);
                client.send("GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n");
                client
            })
            .collect();
        wait_for("all to have arrived", PATIENCE, || {
            (backends.iter().map(Backend::count).sum::<usize>() == 30).then_some(())
        });
        for backend in &backends {
            assert!((9..=11).contains(&backend.count()), "{}", backend.count());
        }
        drop(clients);
        // What was given up no longer counts.
        for index in 0..3 {
            wait_for("an idle endpoint", PATIENCE, || {
                (gateway.endpoint(&format!("e{index}"))["active_connections"] == 0).then_some(())
            });
        }
    });
}

fn sticky(driver: Driver, backends: &[Backend; 2], more: &str) -> Gateway {
    let endpoints = [
        endpoint("one", "vllm", &backends[0], ""),
        endpoint("two", "vllm", &backends[1], ""),
    ];
    let on = format!(
        "[proxy]\nload_balancer = \"round-robin\"\n[proxy.sticky_sessions]\nenabled = true\n{more}"
    );
    start(driver, &endpoints, &on)
}

#[track_caller]
fn has_session(answer: &Response, outcome: &str, source: Option<&str>, id: Option<&str>) {
    assert_eq!(answer.header("X-Olla-Sticky-Session"), Some(outcome));
    assert_eq!(answer.header("X-Olla-Sticky-Key-Source"), source);
    assert_eq!(answer.header("X-Olla-Session-ID"), id);
}

#[test]
fn a_session_stays_where_it_began() {
    on_both_drivers(|driver| {
        let backends = [Backend::ok(&["m", "n"]), Backend::ok(&["m", "n"])];
        let gateway = sticky(driver, &backends, "");
        let ask = |model: &str, fields: &[&str]| {
            post(&gateway, CHAT, fields, format!(r#"{{"model":"{model}"}}"#))
        };
        let session = ["X-Olla-Session-ID: s-1"];
        let source = Some("session_header");
        let first = ask("m", &session);
        has_session(&first, "miss", source, Some("s-1"));
        let place = first.header("X-Olla-Endpoint").unwrap().to_owned();
        for _ in 0..5 {
            let answer = ask("M", &session);
            has_session(&answer, "hit", source, Some("s-1"));
            assert_eq!(answer.header("X-Olla-Endpoint"), Some(place.as_str()));
        }
        // Another model is another session.
        has_session(&ask("n", &session), "miss", source, Some("s-1"));
        // Without a key there is no session, and without a model found a rejection leaves none.
        has_session(&ask("m", &[]), "disabled", None, None);
        let rejected = ask("nosuch", &session);
        assert_eq!(rejected.header("X-Olla-Sticky-Session"), None);
        let stats = get(&gateway, "/internal/stats/sticky", &[]).json();
        assert_eq!(stats["enabled"], true);
        assert_eq!(
            (&stats["hits"], &stats["misses"]),
            (&5.into(), &2.into()),
            "{stats}"
        );
    });
}

#[test]
fn conversations_and_credentials_are_keys_too() {
    on_both_drivers(|driver| {
        let backends = [Backend::ok(&["m"]), Backend::ok(&["m"])];
        let gateway = sticky(driver, &backends, "");
        let turn = |more: &str| {
            format!(
                r#"{{"model":"m","tools":["{}"],"messages":[{{"role":"system","content":"{}"}},{{"role":"user","content":"u"}}{more}]}}"#,
                "t".repeat(2000),
                "long prompt ".repeat(60)
            )
        };
        let first = post(&gateway, CHAT, &[], turn(""));
        has_session(&first, "miss", Some("prefix_hash"), None);
        let again = post(
            &gateway,
            CHAT,
            &[],
            turn(r#",{"role":"assistant","content":"a"},{"role":"user","content":"x"}"#),
        );
        has_session(&again, "hit", Some("prefix_hash"), None);
        assert_eq!(
            again.header("X-Olla-Endpoint"),
            first.header("X-Olla-Endpoint")
        );
        let by_key = ["Authorization: Bearer k"];
        let answer = post(&gateway, CHAT, &by_key, r#"{"model":"m"}"#);
        has_session(&answer, "miss", Some("auth_header"), None);
        let answer = post(&gateway, CHAT, &by_key, r#"{"model":"m"}"#);
        has_session(&answer, "hit", Some("auth_header"), None);
    });
}

#[test]
fn a_session_moves_when_its_endpoint_fails() {
    on_both_drivers(|driver| {
        let backends = [Backend::ok(&["m"]), Backend::ok(&["m"])];
        let gateway = sticky(driver, &backends, "");
        let ask = || {
            post(
                &gateway,
                CHAT,
                &["X-Olla-Session-ID: s"],
                r#"{"model":"m"}"#,
            )
        };
        let source = Some("session_header");
        let first = ask();
        let index = usize::from(first.header("X-Olla-Endpoint") == Some("two"));
        backends[index].stop();
        let moved = ask();
        // The check may have been faster than the request: then the entry is gone.
        let outcome = moved.header("X-Olla-Sticky-Session").unwrap();
        assert!(outcome == "repin" || outcome == "miss", "{outcome}");
        assert_ne!(
            moved.header("X-Olla-Endpoint"),
            first.header("X-Olla-Endpoint")
        );
        has_session(&ask(), "hit", source, Some("s"));
    });
}

#[test]
fn switched_off_there_is_no_trace_of_sessions() {
    on_both_drivers(|driver| {
        let one = Backend::ok(&["m"]);
        let gateway = start(driver, &[endpoint("one", "vllm", &one, "")], "");
        let answer = post(
            &gateway,
            CHAT,
            &["X-Olla-Session-ID: s"],
            r#"{"model":"m"}"#,
        );
        for name in [
            "X-Olla-Sticky-Session",
            "X-Olla-Sticky-Key-Source",
            "X-Olla-Session-ID",
        ] {
            assert_eq!(answer.header(name), None);
        }
        assert_eq!(
            get(&gateway, "/internal/stats/sticky", &[]).text(),
            "{\"enabled\":false}"
        );
    });
}

#[test]
fn two_checks_take_an_endpoint_out_and_one_brings_it_back() {
    on_both_drivers(|driver| {
        let one = Backend::ok(&["m"]);
        let gateway = start(driver, &[endpoint("one", "vllm", &one, "")], "");
        let rows = [
            (500, "unhealthy"),
            (401, "config_error"),
            (403, "config_error"),
        ];
        for (status, shown) in rows {
            one.set_health(status);
            gateway.wait_status("one", shown);
            assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 503, "{shown}");
            one.set_health(200);
            gateway.wait_status("one", "healthy");
            assert_eq!(get(&gateway, "/olla/proxy/x", &[]).status, 200);
        }
        one.set_models(&["m", "fresh"]);
        one.stop();
        gateway.wait_status("one", "offline");
        one.restart();
        gateway.wait_status("one", "healthy");
        // Its models are listed again at once, long before the next round.
        wait_for("the new model", Duration::from_secs(5), || {
            (post(&gateway, CHAT, &[], r#"{"model":"fresh"}"#).status == 200).then_some(())
        });
    });
}
