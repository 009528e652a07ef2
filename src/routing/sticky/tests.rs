//! Keys, outcomes, bounds and figures of sticky sessions.

use super::*;
use crate::inspect::{Inspector, Wanted};
use crate::routing::testing::endpoint;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::time::Duration;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn plan(sources: &[StickySource]) -> StickyPlan {
    StickyPlan {
        enabled: true,
        idle_ttl: Some(Duration::from_secs(600)),
        max_sessions: NonZeroUsize::new(3),
        key_sources: sources.to_vec(),
    }
}

const USUAL: [StickySource; 3] = [
    StickySource::SessionHeader,
    StickySource::PrefixHash,
    StickySource::AuthHeader,
];

/// A body as it is read. It stays to the end of the tests.
fn read(body: String) -> (&'static [u8], &'static PromptParts) {
    let body = body.into_bytes().leak();
    let wanted = Wanted {
        prompt: true,
        ..Wanted::default()
    };
    let findings = Box::new(Inspector::new(wanted).finish(body));
    (body, &Box::leak(findings).prompt)
}

fn sources<'a>(session: &'a str, prefix: &'a str, authorization: &'a str) -> Sources<'a> {
    let some = |text: &'a str| Some(text.as_bytes()).filter(|_| text != "-");
    Sources {
        session: some(session),
        prompt: some(prefix).map(|_| read(format!("{{\"prompt\":\"{prefix}\"}}"))),
        authorization: some(authorization),
        key: None,
        ip: LOCAL,
    }
}

#[test]
fn the_first_source_with_a_value_makes_the_key() {
    use StickySource::{AuthHeader, Ip, PrefixHash, SessionHeader};
    let store = Sticky::default();
    let with_ip = [SessionHeader, Ip, AuthHeader];
    let table: [(&[StickySource], Sources<'_>, Option<StickySource>); 8] = [
        (&USUAL, sources("s", "p", "a"), Some(SessionHeader)),
        (&USUAL, sources("", "p", "a"), Some(PrefixHash)),
        (&USUAL, sources("-", "p", "-"), Some(PrefixHash)),
        (&USUAL, sources("-", "-", "a"), Some(AuthHeader)),
        (&USUAL, sources("-", "-", "-"), None),
        (&with_ip, sources("-", "p", "a"), Some(Ip)),
        (&with_ip, sources("s", "p", "a"), Some(SessionHeader)),
        (&[], sources("s", "p", "a"), None),
    ];
    for (configured, given, source) in table {
        let key = store.key(&plan(configured), &given, Some("m"));
        assert_eq!(key.map(|key| key.source()), source, "{given:?}");
    }
}

#[test]
fn keys_are_as_different_as_conversations() {
    let store = Sticky::default();
    let usual = plan(&USUAL);
    let key = |session, model| store.key(&usual, &sources(session, "-", "-"), model);
    assert_eq!(key("s", Some("Model:7B")), key("s", Some("model:7b")));
    assert_ne!(key("s", Some("m1")), key("s", Some("m2")));
    assert_ne!(key("s", Some("m")), key("s", None));
    assert_ne!(key("sm", Some("x")), key("s", Some("mx")));
    assert_ne!(
        key("sm\0\0\0", None),
        key("s", Some("m")),
        "where the value ends"
    );
    let of = |given: Sources<'_>| store.key(&usual, &given, None).map(|key| key.hash);
    assert_ne!(
        of(sources("x", "-", "-")),
        of(sources("-", "x", "-")),
        "source"
    );
    let other = Sticky::default();
    assert_ne!(
        key("s", Some("m")),
        other.key(&usual, &sources("s", "-", "-"), Some("m")),
        "each process has its seed"
    );
    let by_ip = plan(&[StickySource::Ip]);
    let ip = |text: &str| {
        let mut given = sources("-", "-", "-");
        given.ip = text.parse().unwrap();
        store.key(&by_ip, &given, None)
    };
    assert_eq!(ip("127.0.0.1"), ip("::ffff:127.0.0.1"));
    assert_ne!(ip("127.0.0.1"), ip("127.0.0.2"));
}

/// The hash of a conversation is that of its system prompt and its first user message.
#[test]
fn a_conversation_is_what_it_begins_with() {
    let store = Sticky::default();
    let key = |system: &str, messages: &[(&str, &str)]| {
        let messages: Vec<String> = messages
            .iter()
            .map(|(role, text)| format!("{{\"role\":\"{role}\",\"content\":\"{text}\"}}"))
            .collect();
        let body = format!("{{{system}\"messages\":[{}]}}", messages.join(","));
        let mut given = sources("-", "-", "a");
        given.prompt = Some(read(body));
        let key = store.key(&plan(&USUAL), &given, Some("m")).unwrap();
        assert_eq!(key.source(), StickySource::PrefixHash);
        key
    };
    let short = key("", &[("system", "s"), ("user", "u")]);
    let long = key(
        "",
        &[
            ("system", "s"),
            ("user", "u"),
            ("assistant", "a"),
            ("user", "v"),
        ],
    );
    assert_eq!(short, long);
    assert_eq!(short, key("\"system\":\"s\",", &[("user", "u")]));
    let x = "x".repeat(600);
    let [one, two] = ["1", "2"].map(|end| key("", &[("system", &x), ("user", &(x.clone() + end))]));
    assert_ne!(one, two, "whole, not their leading bytes");
    for (system, user) in [("s", "v"), ("t", "u"), ("su", ""), ("", "su")] {
        assert_ne!(short, key("", &[("system", system), ("user", user)]));
    }
    assert_ne!(key("", &[("user", "x")]), key("", &[("system", "x")]));
    // The balancer knows where it is cached, or there is no such thing.
    for prompt in [
        None,
        Some(read("{}".to_owned())),
        Some(read("no JSON".to_owned())),
    ] {
        let mut given = sources("-", "-", "a");
        given.prompt = prompt;
        let key = store.key(&plan(&USUAL), &given, Some("m")).unwrap();
        assert_eq!(key.source(), StickySource::AuthHeader);
    }
}

/// A store and requests to it that are all served by the endpoint they would like best.
struct Bench {
    store: Sticky,
    plan: StickyPlan,
}

impl Bench {
    fn new() -> Self {
        Self {
            store: Sticky::default(),
            plan: plan(&USUAL),
        }
    }

    /// A request of a session with attempts at these endpoints.
    fn request(&self, session: &str, attempts: &[u32], now_ms: u64) -> StickyOutcome {
        let bounds = Bounds::of(&self.plan);
        let key = self
            .store
            .key(&self.plan, &sources(session, "-", "-"), Some("m"));
        let mut session = self.store.open(key, bounds, now_ms);
        for endpoint in attempts {
            self.store.picked(&mut session, *endpoint, bounds, now_ms);
        }
        self.store.count(&session);
        session.outcome()
    }

    fn pinned(&self, session: &str, now_ms: u64) -> Option<u32> {
        let bounds = Bounds::of(&self.plan);
        let key = self
            .store
            .key(&self.plan, &sources(session, "-", "-"), Some("m"));
        self.store.open(key, bounds, now_ms).pinned
    }

    fn figures(&self, now_ms: u64) -> StickyCounts {
        self.store.figures(Bounds::of(&self.plan), now_ms)
    }
}

#[test]
fn outcomes_and_figures() {
    let bench = Bench::new();
    assert_eq!(bench.request("a", &[1], 0), StickyOutcome::Miss);
    for _ in 0..5 {
        assert_eq!(bench.request("a", &[1], 0), StickyOutcome::Hit);
    }
    assert_eq!(bench.request("-", &[2], 0), StickyOutcome::Disabled);
    let mut figures = StickyCounts {
        active_sessions: 1,
        insertions: 1,
        hits: 5,
        misses: 1,
        ..StickyCounts::default()
    };
    assert_eq!(bench.figures(0), figures);
    // Its endpoint is gone, then another fails in the very request.
    assert_eq!(bench.request("a", &[2], 0), StickyOutcome::Repin);
    assert_eq!(bench.request("a", &[2, 3], 0), StickyOutcome::Repin);
    assert_eq!(bench.pinned("a", 0), Some(3));
    // A new session had no entry, even though its first endpoint failed.
    assert_eq!(bench.request("b", &[1, 2], 0), StickyOutcome::Miss);
    assert_eq!(bench.pinned("b", 0), Some(2));
    figures.active_sessions = 2;
    figures.insertions = 2;
    figures.misses = 2;
    figures.repins = 2;
    assert_eq!(bench.figures(0), figures);
}

#[test]
fn a_pin_is_found_in_every_snapshot() {
    let bench = Bench::new();
    bench.request("a", &[7], 0);
    let bounds = Bounds::of(&bench.plan);
    let key = bench
        .store
        .key(&bench.plan, &sources("a", "-", "-"), Some("m"));
    let session = bench.store.open(key, bounds, 0);
    let with_ids =
        |ids: &[usize]| -> Vec<_> { ids.iter().map(|id| endpoint(*id, "e", "vllm")).collect() };
    assert_eq!(session.pinned(&with_ids(&[3, 7])), Some(1));
    assert_eq!(session.pinned(&with_ids(&[7, 3])), Some(0));
    assert_eq!(session.pinned(&with_ids(&[3])), None);
}

#[test]
fn words_of_the_header() {
    let words = [
        StickyOutcome::Miss,
        StickyOutcome::Hit,
        StickyOutcome::Repin,
        StickyOutcome::Disabled,
    ];
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["miss", "hit", "repin", "disabled"]);
}

#[test]
fn every_use_restarts_the_idle_time() {
    let bench = Bench::new();
    bench.request("a", &[1], 0);
    assert_eq!(bench.request("a", &[1], 599_999), StickyOutcome::Hit);
    assert_eq!(bench.request("a", &[1], 1_199_998), StickyOutcome::Hit);
    assert_eq!(bench.figures(1_799_997).active_sessions, 1);
    assert_eq!(bench.request("a", &[1], 1_799_998), StickyOutcome::Miss);
    assert_eq!(bench.figures(1_799_998).evictions, 1);
}

#[test]
fn without_an_idle_time_nothing_ends() {
    let mut bench = Bench::new();
    bench.plan.idle_ttl = None;
    bench.request("a", &[1], 0);
    assert_eq!(bench.request("a", &[1], u64::MAX), StickyOutcome::Hit);
}

#[test]
fn the_least_recently_used_goes_first() {
    let bench = Bench::new();
    for (now, session) in ["a", "b", "c", "a", "d"].iter().enumerate() {
        bench.request(session, &[1], u64::try_from(now).unwrap());
    }
    let kept = ["a", "b", "c", "d"].map(|session| bench.pinned(session, 5).is_some());
    assert_eq!(kept, [true, false, true, true]);
    assert_eq!(bench.figures(5).evictions, 1);
    assert_eq!(bench.figures(5).active_sessions, 3);
}

#[test]
fn a_smaller_bound_holds_at_once() {
    let mut bench = Bench::new();
    for session in ["a", "b", "c"] {
        bench.request(session, &[1], 0);
    }
    bench.plan.max_sessions = NonZeroUsize::new(1);
    bench.request("d", &[1], 0);
    assert_eq!(bench.figures(0).active_sessions, 1);
    bench.plan.max_sessions = None;
    for session in ["e", "f", "g", "h"] {
        bench.request(session, &[1], 0);
    }
    assert_eq!(bench.figures(0).active_sessions, 5);
}

#[test]
fn an_endpoint_takes_its_sessions_along() {
    let bench = Bench::new();
    bench.request("a", &[1], 0);
    bench.request("b", &[2], 0);
    bench.request("c", &[1], 0);
    bench.store.purge(1);
    assert_eq!(bench.figures(0).active_sessions, 1);
    assert_eq!(bench.figures(0).evictions, 2);
    assert_eq!(bench.request("a", &[2], 0), StickyOutcome::Miss);
    assert_eq!(bench.request("b", &[2], 0), StickyOutcome::Hit);
}

proptest! {
    /// The list against a plain model of it.
    #[test]
    fn the_list_is_a_list(
        uses in prop::collection::vec((0u64..12, 0u32..3, 0u64..40, 0u8..20), 0..200),
        sessions_max in 1usize..8,
    ) {
        let bounds = Bounds { idle_ms_max: Some(100), sessions_max };
        let mut sessions = Sessions::default();
        // Oldest first.
        let mut model: Vec<(u64, u32, u64)> = Vec::new();
        let mut now = 0;
        for (key, endpoint, wait, kind) in uses {
            now += wait;
            sessions.expire(bounds, now);
            model.retain(|(_, _, used)| now - used < 100);
            if kind == 0 {
                sessions.purge(endpoint);
                model.retain(|(_, of, _)| *of != endpoint);
            } else {
                sessions.put(key, endpoint, bounds, now);
                model.retain(|(known, _, _)| *known != key);
                if model.len() == sessions_max {
                    model.remove(0);
                }
                model.push((key, endpoint, now));
            }
            let mut listed = Vec::new();
            let mut place = sessions.oldest;
            while let Some(node) = sessions.node(place) {
                listed.push((node.key, node.endpoint, node.used_ms));
                place = node.newer;
            }
            prop_assert_eq!(&listed, &model);
            prop_assert_eq!(sessions.places.len(), model.len());
            prop_assert!(sessions.nodes.len() <= sessions_max);
            for (key, endpoint, _) in &model {
                let found = sessions.find(*key).map(|node| node.endpoint);
                prop_assert_eq!(found, Some(*endpoint));
            }
        }
    }
}
