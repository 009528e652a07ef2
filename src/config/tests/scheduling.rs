//! The keys of scheduling: the balancer `least-time`, the queue, and those of endpoints.
//!
//! Contract: docs/contract/scheduling.md#1 to docs/contract/scheduling.md#7

use std::num::NonZeroUsize;

use super::*;

#[test]
fn the_defaults_of_scheduling_are_those_of_the_contract() {
    let plan = plan("");
    let least_time = LeastTimePlan {
        decode_weight: 0.1,
        running_weight: 0.2,
        cache_tokens: 400_000,
        prefix_table: NonZeroUsize::new(16 << 20),
        share_prefixes: true,
        warmth_interval: Some(secs(5)),
        load_interval: Some(secs(1)),
        sticky_slack: secs(2),
    };
    assert_eq!(plan.proxy.least_time, least_time);
    let queue = QueuePlan {
        enabled: true,
        max_waiting: 1_000,
        max_waiting_per_flow: 200,
        max_wait: Some(secs(120)),
        aging: Some(secs(10)),
    };
    assert_eq!(plan.queue, queue);
    let [endpoint] = &plan.discovery.endpoints[..] else {
        panic!("{:?}", plan.discovery.endpoints);
    };
    assert_eq!(endpoint.max_concurrent, None);
    assert_eq!(endpoint.cache_tokens, None);
}

/// A text, and a condition on its plan.
type Meaning = (&'static str, fn(&Plan) -> bool);

#[test]
fn values_have_their_meanings() {
    let table: &[Meaning] = &[
        ("proxy.load_balancer = \"least-time\"", |p| {
            p.proxy.load_balancer == Balancer::LeastTime
        }),
        ("proxy.model_load_timeout = \"0s\"", |p| {
            p.proxy.model_load_timeout == secs(600)
        }),
        ("proxy.model_load_timeout = \"90s\"", |p| {
            p.proxy.model_load_timeout == secs(90)
        }),
        ("proxy.least_time.decode_weight = 0", |p| {
            p.proxy.least_time.decode_weight == 0.0
        }),
        ("proxy.least_time.decode_weight = 0.25", |p| {
            p.proxy.least_time.decode_weight == 0.25
        }),
        ("proxy.least_time.running_weight = 1", |p| {
            p.proxy.least_time.running_weight == 1.0
        }),
        ("proxy.least_time.running_weight = 1e-1", |p| {
            p.proxy.least_time.running_weight == 0.1
        }),
        ("proxy.least_time.cache_tokens = 2048", |p| {
            p.proxy.least_time.cache_tokens == 2048
        }),
        ("proxy.least_time.prefix_table = 0", |p| {
            p.proxy.least_time.prefix_table.is_none()
        }),
        ("proxy.least_time.prefix_table = \"1GB\"", |p| {
            p.proxy.least_time.prefix_table == NonZeroUsize::new(1 << 30)
        }),
        ("proxy.least_time.share_prefixes = false", |p| {
            !p.proxy.least_time.share_prefixes
        }),
        ("proxy.least_time.warmth_interval = \"0s\"", |p| {
            p.proxy.least_time.warmth_interval.is_none()
        }),
        ("proxy.least_time.load_interval = \"0\"", |p| {
            p.proxy.least_time.load_interval.is_none()
        }),
        ("proxy.least_time.load_interval = \"100ms\"", |p| {
            p.proxy.least_time.load_interval == Some(Duration::from_millis(100))
        }),
        ("proxy.least_time.sticky_slack = \"0s\"", |p| {
            p.proxy.least_time.sticky_slack.is_zero()
        }),
        ("queue.enabled = false", |p| !p.queue.enabled),
        ("queue.max_waiting = 0", |p| p.queue.max_waiting == 0),
        ("queue.max_waiting_per_flow = 0", |p| {
            p.queue.max_waiting_per_flow == 0
        }),
        ("queue.max_wait = \"0s\"", |p| p.queue.max_wait.is_none()),
        ("queue.aging = \"0s\"", |p| p.queue.aging.is_none()),
    ];
    for (text, holds) in table {
        assert!(holds(&plan(text)), "{text}");
    }
}

#[test]
fn wrong_values_are_refused() {
    let fraction = "expected a number from 0 to 1";
    let table = [
        ("proxy.least_time.decode_weight", "1.01", fraction),
        ("proxy.least_time.decode_weight", "-1", fraction),
        ("proxy.least_time.decode_weight", "nan", "got nan"),
        ("proxy.least_time.running_weight", "2", "got 2"),
        (
            "proxy.least_time.running_weight",
            "\"0.5\"",
            "got the string \"0.5\"",
        ),
        (
            "proxy.least_time.cache_tokens",
            "0",
            "an integer from 1 to 1000000000",
        ),
        (
            "proxy.least_time.prefix_table",
            "\"2GB\"",
            "at most 1073741824",
        ),
        (
            "proxy.least_time.warmth_interval",
            "\"99ms\"",
            "0 or at least 100ms",
        ),
        ("proxy.least_time.load_interval", "5", "a duration"),
        ("proxy.least_time.sticky_slack", "\"-1s\"", "a duration"),
        ("proxy.model_load_timeout", "600", "a duration"),
        ("queue.max_waiting", "-1", "from 0 to 1000000"),
        ("queue.max_waiting_per_flow", "1000001", "from 0 to 1000000"),
        ("queue.max_wait", "\"\"", "a duration"),
        ("queue.aging", "\"1d\"", "a duration"),
        ("queue.enabled", "1", "true or false"),
        (
            "proxy.load_balancer",
            "\"least_time\"",
            "did you mean \"least-time\"?",
        ),
    ];
    for (key, value, word) in table {
        refused(&format!("{key} = {value}\n"), key, &["expected ", word]);
    }
}

#[test]
fn an_endpoint_has_slots_and_a_cache_of_its_own() {
    let endpoint = |lines: &str| {
        format!("[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"http://h:1\"\n{lines}\n")
    };
    let own = |lines: &str| {
        let endpoint = plan(&endpoint(lines)).discovery.endpoints.remove(0);
        let number = |value: Option<std::num::NonZeroU32>| value.map_or(0, std::num::NonZero::get);
        (
            number(endpoint.max_concurrent),
            number(endpoint.cache_tokens),
        )
    };
    assert_eq!(own(""), (0, 0));
    assert_eq!(own("max_concurrent = 0\ncache_tokens = 0"), (0, 0));
    assert_eq!(
        own("max_concurrent = 65536\ncache_tokens = 60000"),
        (65_536, 60_000)
    );
    for (key, value, word) in [
        ("max_concurrent", "65537", "from 0 to 65536"),
        ("max_concurrent", "-1", "from 0 to 65536"),
        ("cache_tokens", "1.5", "from 0 to 1000000000"),
    ] {
        let path = format!("discovery.static.endpoints[0].{key}");
        let text = endpoint(&format!("{key} = {value}"));
        refused(&text, &path, &[word, "endpoint \"a\""]);
    }
}

#[test]
fn a_named_prefix_hash_is_ignored_with_one_warning() {
    let sticky = |balancer: &str, lines: &str| {
        format!("[proxy]\nload_balancer = \"{balancer}\"\n[proxy.sticky_sessions]\n{lines}\n")
    };
    let named = "key_sources = [\"session_header\", \"prefix_hash\"]";
    warned(
        &sticky("least-time", &format!("enabled = true\n{named}")),
        "proxy.sticky_sessions.key_sources",
        "prefix_hash is ignored",
    );
    for (balancer, lines) in [
        // The default list is not the file's.
        ("least-time", "enabled = true"),
        ("least-time", named),
        (
            "least-time",
            "enabled = true\nkey_sources = [\"session_header\"]",
        ),
        ("round-robin", &format!("enabled = true\n{named}")),
    ] {
        plan(&sticky(balancer, lines));
    }
}
