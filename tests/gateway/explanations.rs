//! What the gateway says of a choice is what has happened: the headers of responses, and the dry run
//! before them.
//!
//! Contract: docs/contract/scheduling.md#8

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{
    Backend, Config, Driver, Gateway, PATIENCE, Received, Response, endpoint, on_both_drivers,
    post, wait_until,
};

const CHAT: &str = "/olla/openai/v1/chat/completions";
const EXPLAIN: &str = "X-Olla-Explain: 1";

/// The dry run follows the dashboard's policy, which must know the host that the tests name.
pub(crate) const HOSTS: &str = "[dashboard.access_policy]\nallowed_hosts = [\"gateway.test\"]\n";

/// Predictions that are made one after another differ by what has passed between them.
const SLACK_MS: u64 = 150;

/// The body of a chat; `words` make its prompt long.
pub(crate) fn chat(model: &str, words: usize) -> String {
    let content = "lorem ipsum dolor ".repeat(words);
    json!({"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": content}]})
        .to_string()
}

/// A chat that the backend responds to when it is released.
fn held(model: &str, words: usize) -> String {
    chat(model, words).replace("\"user\"", "\"user\",\"name\":\"held\"")
}

/// What the dry run says.
#[track_caller]
pub(crate) fn dry_run(gateway: &Gateway, fields: &[&str], body: &str) -> Value {
    let response = post(gateway, "/internal/route", fields, body);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// A candidate of the dry run.
#[track_caller]
pub(crate) fn candidate(dry: &Value, name: &str) -> Value {
    let all = dry["candidates"].as_array().unwrap();
    let found = all.iter().find(|each| each["endpoint"] == name);
    found.unwrap_or_else(|| panic!("{name}: {dry}")).clone()
}

/// Backends that hold what is to be held, until this is dropped.
struct Fleet {
    backends: Vec<Backend>,
    /// Releases what is held.
    release: Option<mpsc::Sender<()>>,
}

impl Fleet {
    /// One backend for each of these lists of models.
    fn new(models: &[&[&str]]) -> Self {
        let (release, released) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        let respond = move |request: &Received, link: &mut testkit::Link| {
            if request.text().contains("\"held\"") {
                let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            }
            link.respond(200, "application/json", r#"{"choices":[]}"#);
        };
        let backend = |models: &&[&str]| Backend::new(models, respond.clone());
        Self {
            backends: models.iter().map(backend).collect(),
            release: Some(release),
        }
    }

    /// A gateway before them. `each` are the further lines of each endpoint, named `a`, `b` and so
    /// on.
    fn gateway(&self, driver: Driver, kind: &str, each: &[&str], more: &str) -> Gateway {
        let mut config = String::new();
        for (at, backend) in self.backends.iter().enumerate() {
            let more = each.get(at).unwrap_or(&"");
            config += &endpoint(NAMES[at], kind, backend, more);
        }
        let config = Config::new(driver).more(&config).more(HOSTS).more(more);
        Gateway::start(&config)
    }

    fn counts(&self) -> Vec<usize> {
        self.backends.iter().map(Backend::count).collect()
    }

    fn count(&self) -> usize {
        self.counts().iter().sum()
    }

    /// The index of the backend of an endpoint, and of the other one of two.
    fn of(name: &str) -> (usize, usize) {
        let at = NAMES.iter().position(|each| *each == name).unwrap();
        (at, 1 - at)
    }

    /// Sends a request that is held, and waits until a backend has it. Returns the thread that waits
    /// for its response, and the endpoint.
    fn hold(
        &self,
        gateway: &Gateway,
        fields: &[&str],
        body: &str,
    ) -> (thread::JoinHandle<Response>, &'static str) {
        let before = self.counts();
        let waits = in_background(gateway, fields, body);
        wait_until("a request that is held", || self.counts() != before);
        let after = self.counts();
        let at = (0..after.len()).find(|at| after[*at] != before[*at]);
        (waits, NAMES[at.unwrap()])
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Sends a request on a thread of its own, which returns the response.
fn in_background(gateway: &Gateway, fields: &[&str], body: &str) -> thread::JoinHandle<Response> {
    let mut client = testkit::Client::to(gateway);
    let mut head = format!("POST {CHAT}\r\nContent-Type: application/json");
    for field in fields {
        head += &format!("\r\n{field}");
    }
    client.request(&head, body.as_bytes());
    thread::spawn(move || client.response())
}

/// A candidate of `X-Olla-Explain`.
#[derive(Debug)]
struct Explained {
    name: String,
    t: u64,
    terms: [u64; 4],
    hit: u64,
}

fn explained(response: &Response) -> Vec<Explained> {
    let text = response.header("X-Olla-Explain").unwrap();
    let one = |text: &str| {
        let (name, rest) = text.split_once('=').unwrap();
        let mut numbers = rest.split(';');
        let t = numbers.next().unwrap().parse().unwrap();
        let mut number = |key: &str| -> u64 {
            let (name, value) = numbers.next().unwrap().split_once('=').unwrap();
            assert_eq!(name, key, "{text}");
            value.parse().unwrap()
        };
        let terms = ["load", "queue", "prefill", "decode"].map(&mut number);
        let hit = number("hit");
        Explained {
            name: name.to_owned(),
            t,
            terms,
            hit,
        }
    };
    text.split(',').map(one).collect()
}

/// The dry run and the request after it say the same, and it is what happens. Returns the dry run.
#[track_caller]
fn both_say(gateway: &Gateway, (fields, body): (&[&str], &str), choice: &str) -> (Value, Response) {
    let dry = dry_run(gateway, fields, body);
    assert_eq!(dry["decision"]["choice"], choice, "{dry}");
    assert_eq!(dry["decision"]["queued"], false, "{dry}");
    let fields = [fields, &[EXPLAIN]].concat();
    let response = post(gateway, CHAT, &fields, body);
    assert_eq!(response.status, 200, "{}", response.text());
    says(&response, &dry, choice);
    (dry, response)
}

/// The headers of a response say the same as the dry run before it.
#[track_caller]
fn says(response: &Response, dry: &Value, choice: &str) {
    assert_eq!(response.header("X-Olla-Routing-Choice"), Some(choice));
    let served = response.header("X-Olla-Endpoint").unwrap();
    let chosen = candidate(dry, served);
    assert_eq!(chosen["eligible"], true, "{dry}");
    let of = |key: &str| chosen[key].as_u64().unwrap();
    let (hit, prompt) = (of("hit_tokens"), of("prompt_tokens"));
    let share = (hit * 100 + prompt / 2) / prompt;
    let share = format!("{}.{:02}", share / 100, share % 100);
    assert_eq!(response.header("X-Olla-Prefix-Hit"), Some(&*share), "{dry}");
    let list = explained(response);
    assert!(list.is_sorted_by_key(|each| each.t), "{list:?}");
    let chosen = list.iter().find(|each| each.name == served).unwrap();
    // Equals are spread: each T has a random factor of up to 1.02.
    let least = list[0].t + list[0].t / 50 + 5;
    assert!(chosen.t <= least, "the smallest T is chosen: {list:?}");
    let all = dry["candidates"].as_array().unwrap();
    let eligible: Vec<_> = all.iter().filter(|each| each["eligible"] == true).collect();
    assert_eq!(list.len(), eligible.len(), "{list:?} {dry}");
    assert!(eligible.is_sorted_by_key(|each| each["t_ms"].as_u64()));
    for each in &list {
        let shown = candidate(dry, &each.name);
        let ms = |key: &str| shown[key].as_u64().unwrap();
        assert!(each.t.abs_diff(ms("t_ms")) <= SLACK_MS, "{each:?} {shown}");
        assert_eq!(each.hit, ms("hit_tokens"));
        // Each of them is rounded.
        assert!(
            each.terms.iter().sum::<u64>().abs_diff(each.t) <= 2,
            "{each:?}"
        );
        let keys = ["load_ms", "queue_ms", "prefill_ms", "decode_ms"];
        for (term, key) in each.terms.iter().zip(keys) {
            assert!(
                term.abs_diff(ms(key)) <= SLACK_MS,
                "{key}: {each:?} {shown}"
            );
        }
    }
}

#[test]
fn idle_equals() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let gateway = fleet.gateway(driver, "vllm", &[], "");
        let body = chat("m", 20);
        for _ in 0..10 {
            dry_run(&gateway, &[EXPLAIN], &body);
        }
        assert_eq!(fleet.count(), 0, "nothing was sent");
        assert_eq!(gateway.metric("olla_requests_total"), Some(0.0));
        let (dry, response) = both_say(&gateway, (&[], &body), "least_time");
        assert_eq!(response.header("X-Olla-Queue-Ms"), None);
        let [a, b] = ["a", "b"].map(|name| candidate(&dry, name));
        assert_eq!(a["t_ms"], b["t_ms"], "{dry}");
        for each in [a, b] {
            assert_eq!(each["why_not"], Value::Null);
            assert_eq!(each["slots"], Value::Null, "without limit");
            assert_eq!(each["running"], 0);
            assert_eq!(each["hit_tokens"], 0);
            assert_eq!(each["warmth"], "unknown");
            assert_eq!(each["capacity_tokens"], 400_000);
            assert_eq!(each["prefill_tps"], 8000);
            assert_eq!(each["step_ms"], 10.0);
            let tokens = each["prompt_tokens"].as_u64().unwrap() as usize;
            assert_eq!(tokens, body.len().div_ceil(4));
        }
        let plain = post(&gateway, CHAT, &[], &body);
        assert_eq!(plain.header("X-Olla-Explain"), None, "nobody asked");
        assert_eq!(plain.header("X-Olla-Routing-Choice"), Some("least_time"));
        assert_eq!(fleet.count(), 2);
    });
}

#[test]
fn a_prefix_that_an_endpoint_holds() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let gateway = fleet.gateway(driver, "vllm", &[], "");
        let body = chat("m", 500);
        for _ in 0..2 {
            let dry = dry_run(&gateway, &[], &body);
            let hits = ["a", "b"].map(|name| candidate(&dry, name)["hit_tokens"].clone());
            assert_eq!(hits, [0, 0], "a dry run places nothing");
        }
        let first = post(&gateway, CHAT, &[], &body);
        let holds = first.header("X-Olla-Endpoint").unwrap();
        let longer = body.replace("}]}", "},{\"role\":\"user\",\"content\":\"more\"}]}");
        let (dry, response) = both_say(&gateway, (&[], &longer), "prefix_hit");
        assert_eq!(dry["decision"]["endpoint"], holds);
        assert_eq!(response.header("X-Olla-Endpoint"), Some(holds));
        let (_, other) = Fleet::of(holds);
        assert_eq!(candidate(&dry, NAMES[other])["hit_tokens"], 0);
        let hit = candidate(&dry, holds)["hit_tokens"].as_u64().unwrap();
        let sent = fleet.backends[1 - other].last().body.len() as u64 / 4;
        assert!(hit > sent * 9 / 10 && hit <= sent, "{hit} of {sent}");
    });
}

#[test]
fn a_request_that_waits() {
    on_both_drivers(|driver| {
        let mut fleet = Fleet::new(&[&["m"]]);
        let bound = "[queue]\nmax_waiting = 1";
        let gateway = fleet.gateway(driver, "vllm", &["max_concurrent = 1"], bound);
        let (first, _) = fleet.hold(&gateway, &[], &held("m", 1));
        let body = chat("m", 20);
        let dry = dry_run(&gateway, &[], &body);
        let decision = json!({"endpoint": "a", "choice": "queued", "queued": true});
        assert_eq!(dry["decision"], decision);
        let full = candidate(&dry, "a");
        assert_eq!((&full["slots"], &full["running"]), (&json!(1), &json!(1)));
        assert_eq!(full["eligible"], true);
        assert!(full["queue_ms"].as_u64().unwrap() > 0, "{full}");
        let sent = Instant::now();
        let waits = in_background(&gateway, &[EXPLAIN], &body);
        wait_until("a full queue", || {
            let decision = dry_run(&gateway, &[], &body)["decision"].clone();
            decision == json!({"status": 503, "code": "OVERLOADED"})
        });
        let queued = Instant::now();
        fleet.release = None;
        let least = queued.elapsed().as_millis();
        let response = waits.join().unwrap();
        let most = sent.elapsed().as_millis();
        assert_eq!(response.header("X-Olla-Endpoint"), Some("a"));
        assert_eq!(response.header("X-Olla-Routing-Choice"), Some("queued"));
        let waited = response.header("X-Olla-Queue-Ms").unwrap();
        let waited: u128 = waited.parse().unwrap();
        assert!((least..=most).contains(&waited), "{least} {waited} {most}");
        let list = explained(&response);
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0].terms[1], 0, "as it was when it started: {list:?}");
        let first = first.join().unwrap();
        assert_eq!(first.header("X-Olla-Queue-Ms"), None);
        let dry = dry_run(&gateway, &[], &body);
        assert_eq!(dry["decision"]["queued"], false);
    });
}

/// Of two models one is in memory.
fn memory(loaded: &str) -> String {
    json!({"models": [{"name": loaded}]}).to_string()
}

#[test]
fn a_model_that_has_to_be_loaded() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m", "n"]]);
        fleet.backends[0].set_document("/api/ps", 200, &memory("n"));
        let gateway = fleet.gateway(driver, "ollama", &[], "");
        let body = chat("m", 20);
        wait_until("a model that is cold", || {
            candidate(&dry_run(&gateway, &[], &body), "a")["warmth"] == "cold"
        });
        let loaded = dry_run(&gateway, &[], &chat("n", 20));
        assert_eq!(loaded["decision"]["choice"], "least_time");
        assert_eq!(candidate(&loaded, "a")["warmth"], "warm");
        // Whatever is read after its first byte, the model is in memory then.
        fleet.backends[0].set_document("/api/ps", 200, &memory("m"));
        let (dry, response) = both_say(&gateway, (&[], &body), "cold_load");
        assert_eq!(candidate(&dry, "a")["load_ms"], 10_000);
        let [first] = &explained(&response)[..] else {
            panic!("one candidate");
        };
        assert_eq!(first.terms[0], 10_000);
        wait_until("a model in memory", || {
            candidate(&dry_run(&gateway, &[], &body), "a")["warmth"] == "warm"
        });
        let (dry, _) = both_say(&gateway, (&[], &body), "least_time");
        assert_eq!(candidate(&dry, "a")["load_ms"], 0);
    });
}

#[test]
fn a_load_that_is_avoided() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m", "n"], &["m", "n"]]);
        fleet.backends[0].set_document("/api/ps", 200, &memory("n"));
        fleet.backends[1].set_document("/api/ps", 200, &memory("m"));
        let gateway = fleet.gateway(driver, "ollama", &[], "");
        let body = chat("m", 20);
        wait_until("what is in memory", || {
            let dry = dry_run(&gateway, &[], &body);
            let warmth = |name| candidate(&dry, name)["warmth"].clone();
            (warmth("a"), warmth("b")) == (json!("cold"), json!("warm"))
        });
        let (dry, response) = both_say(&gateway, (&[], &body), "least_time");
        assert_eq!(dry["decision"]["endpoint"], "b");
        assert_eq!(response.header("X-Olla-Endpoint"), Some("b"));
        let list = explained(&response);
        assert_eq!((&*list[1].name, list[1].terms[0]), ("a", 10_000));
        assert_eq!(fleet.counts(), [0, 1]);
    });
}

#[test]
fn an_endpoint_that_reads_another_prompt() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let gateway = fleet.gateway(driver, "vllm", &[], "");
        let prompt = held("m", 2_000);
        let (_first, busy) = fleet.hold(&gateway, &[], &prompt);
        let (dry, response) = both_say(&gateway, (&[], &chat("m", 20)), "least_time");
        let (_, free) = Fleet::of(busy);
        assert_eq!(dry["decision"]["endpoint"], NAMES[free]);
        assert_eq!(response.header("X-Olla-Endpoint"), Some(NAMES[free]));
        let pending = prompt.len() as u64 / 4;
        let waits = candidate(&dry, busy);
        let prefill = waits["prefill_ms"].as_u64().unwrap();
        let tps = waits["prefill_tps"].as_u64().unwrap();
        assert!(prefill.abs_diff(pending * 1000 / tps) < 50, "{waits}");
        assert_eq!(waits["running"], 1);
    });
}

#[test]
fn slots_that_are_full_beside_one_that_is_free() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let one = "max_concurrent = 1";
        let gateway = fleet.gateway(driver, "vllm", &[one, one], "");
        let (_first, busy) = fleet.hold(&gateway, &[], &held("m", 1));
        let (dry, response) = both_say(&gateway, (&[], &chat("m", 1)), "least_time");
        let (_, free) = Fleet::of(busy);
        assert_eq!(response.header("X-Olla-Endpoint"), Some(NAMES[free]));
        assert_eq!(response.header("X-Olla-Queue-Ms"), None);
        let full = candidate(&dry, busy);
        assert_eq!((&full["slots"], &full["running"]), (&json!(1), &json!(1)));
        assert!(full["queue_ms"].as_u64().unwrap() > 0, "{full}");
        assert_eq!(candidate(&dry, NAMES[free])["queue_ms"], 0);
    });
}

#[test]
fn a_context_that_is_too_small() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let contexts = ["context_length = 200", "context_length = 20000"];
        let gateway = fleet.gateway(driver, "vllm", &contexts, "");
        let dry = dry_run(&gateway, &[], &chat("m", 1));
        assert_eq!(candidate(&dry, "a")["why_not"], Value::Null);
        let (dry, response) = both_say(&gateway, (&[], &chat("m", 200)), "least_time");
        let small = candidate(&dry, "a");
        assert_eq!(
            (&small["eligible"], &small["why_not"]),
            (&json!(false), &json!("context"))
        );
        assert_eq!(
            dry["candidates"][0]["endpoint"], "b",
            "eligible ones are first"
        );
        assert_eq!(response.header("X-Olla-Endpoint"), Some("b"));
        // With none that holds it, the largest is used.
        let (dry, response) = both_say(&gateway, (&[], &chat("m", 6_000)), "least_time");
        assert_eq!(candidate(&dry, "b")["why_not"], Value::Null);
        assert_eq!(response.header("X-Olla-Endpoint"), Some("b"));
    });
}

const STICKY: &str = "[proxy.sticky_sessions]\nenabled = true\n\
                      [proxy.least_time]\nsticky_slack = \"300ms\"\n";

#[test]
fn a_session_that_is_kept() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let gateway = fleet.gateway(driver, "vllm", &[], STICKY);
        let sessions = || gateway.metric("olla_sticky_sessions");
        let (session, other) = ("X-Olla-Session-ID: s", "X-Olla-Session-ID: t");
        let first = post(&gateway, CHAT, &[session], chat("m", 1));
        assert_eq!(first.header("X-Olla-Routing-Choice"), Some("least_time"));
        let pinned = first.header("X-Olla-Endpoint").unwrap();
        for _ in 0..3 {
            let dry = dry_run(&gateway, &[other], &chat("m", 1));
            assert_eq!(
                dry["decision"]["choice"], "least_time",
                "no session was opened"
            );
            let (dry, response) = both_kept(&gateway, session);
            assert_eq!(dry["decision"]["endpoint"], pinned);
            assert_eq!(response.header("X-Olla-Endpoint"), Some(pinned));
            assert_eq!(response.header("X-Olla-Sticky-Session"), Some("hit"));
        }
        assert_eq!(sessions(), Some(1.0));
    });
}

/// A session's endpoint is kept among equals, so it need not be the one of the smallest T.
#[track_caller]
fn both_kept(gateway: &Gateway, session: &str) -> (Value, Response) {
    let dry = dry_run(gateway, &[session], &chat("m", 1));
    assert_eq!(dry["decision"]["choice"], "sticky", "{dry}");
    let response = post(gateway, CHAT, &[session, EXPLAIN], chat("m", 1));
    assert_eq!(response.header("X-Olla-Routing-Choice"), Some("sticky"));
    assert_eq!(explained(&response).len(), 2);
    (dry, response)
}

#[test]
fn a_session_that_moves() {
    on_both_drivers(|driver| {
        let fleet = Fleet::new(&[&["m"], &["m"]]);
        let gateway = fleet.gateway(driver, "vllm", &[], STICKY);
        let session = "X-Olla-Session-ID: s";
        // At 8,000 tokens a second this is a second's work.
        let (_first, busy) = fleet.hold(&gateway, &[session], &held("m", 2_000));
        let body = chat("m", 1);
        let (dry, response) = both_say(&gateway, (&[session], &body), "sticky_moved");
        let (_, free) = Fleet::of(busy);
        assert_eq!(dry["decision"]["endpoint"], NAMES[free]);
        assert_eq!(response.header("X-Olla-Endpoint"), Some(NAMES[free]));
        assert_eq!(response.header("X-Olla-Sticky-Session"), Some("repin"));
        let dry = dry_run(&gateway, &[session], &body);
        assert_eq!(dry["decision"]["choice"], "sticky", "at its new endpoint");
    });
}

#[test]
fn explanations_are_bounded_and_for_least_time() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let explanation = |length: usize, more: &str| {
            let name = |at: usize| format!("{at:02}{}", "x".repeat(length - 2));
            let endpoints: String = (0..12)
                .map(|at| {
                    endpoint(
                        &name(at),
                        "vllm",
                        &backend,
                        &format!("url = \"{}/{at}\"", backend.url()),
                    )
                })
                .collect();
            let config = Config::new(driver).more(&endpoints).more(more);
            let gateway = Gateway::start(&config);
            let response = post(&gateway, CHAT, &[EXPLAIN], chat("m", 1));
            assert_eq!(response.status, 200);
            response.header("X-Olla-Explain").map(str::to_owned)
        };
        let short = explanation(2, "").unwrap();
        assert_eq!(short.split(',').count(), 8, "{short}");
        let long = explanation(200, "").unwrap();
        assert!(long.len() <= 1024 && long.split(',').count() == 4, "{long}");
        for balancer in ["least-connections", "round-robin", "priority"] {
            let more = format!("proxy.load_balancer = \"{balancer}\"");
            assert_eq!(explanation(2, &more), None);
        }
    });
}

#[test]
fn explanations_are_for_administrators() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let keys = "[access]\nenabled = true\n\
                    [[access.keys]]\nname = \"user\"\nkey = \"${USER_KEY}\"\n\
                    [[access.keys]]\nname = \"reader\"\nkey = \"${READER_KEY}\"\nadmin = \"read\"\n";
        let secrets = [
            "sk-root-0123456789abcdef",
            "sk-user-0123456789abcdef",
            "sk-read-0123456789abcdef",
        ];
        let config = Config::new(driver)
            .env("OLLA_ADMIN_KEY", secrets[0])
            .env("USER_KEY", secrets[1])
            .env("READER_KEY", secrets[2])
            .more(&endpoint("a", "vllm", &backend, ""))
            .more(keys);
        let gateway = Gateway::start(&config);
        for (secret, is_told) in secrets.into_iter().zip([true, false, true]) {
            let key = testkit::bearer(secret);
            let response = post(&gateway, CHAT, &[&key, EXPLAIN], chat("m", 1));
            assert_eq!(response.status, 200);
            assert_eq!(response.header("X-Olla-Explain").is_some(), is_told);
            assert_eq!(response.header("X-Olla-Routing-Choice"), Some("least_time"));
        }
    });
}
