//! Changing the configuration of a gateway that works: what SIGHUP takes over, and what nobody may
//! notice of it.
//!
//! Contract: docs/contract/operations.md#9

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::life::{over, streaming};
use testkit::{
    Backend, Client, Config, Gateway, Link, Received, endpoint, get, on_both_drivers, post,
    wait_until,
};

const X: &str = "/olla/proxy/x";
const ASK: &str = "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n";
const LAST_SUCCESSFUL: &str = "olla_config_last_reload_successful";

/// Reloads of the test under load, wrong files included.
const ROUNDS: usize = 15;
const CLIENTS: usize = 4;
/// Streams that are open over all of it, on every backend.
const STREAMS: usize = 6;
/// Requests of every client between two reloads, at least.
const BETWEEN: usize = 15;

/// How many reloads there were by result.
fn reloads(gateway: &Gateway) -> [Option<f64>; 2] {
    ["success", "failure"]
        .map(|result| gateway.metric(&format!("olla_config_reloads_total{{result=\"{result}\"}}")))
}

/// Echoes a request; a stream of one event for each round goes on to the last round.
fn echo_or_stream(request: &Received, link: &mut Link, rounds: &AtomicUsize) {
    if !request.text().contains("\"stream\":true") {
        return link.respond(200, "application/json", &request.body);
    }
    link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for round in 0..=ROUNDS {
        wait_until("the next round", || rounds.load(Ordering::SeqCst) >= round);
        link.chunk(format!("event {round}"));
    }
    link.chunk("");
}

/// What changes: the fleet, where an alias leads, who is next, how much is taken and is told.
fn round_config(round: usize, fleet: &[String; 3]) -> String {
    // The first stays, so that there is always somebody to ask.
    let fleet = match round % 4 {
        0 => fleet.concat(),
        1 => fleet[0].clone(),
        2 => format!("{}{}", fleet[2], fleet[0]),
        _ => fleet[..2].concat(),
    };
    let pick = |values: [&'static str; 3]| values[round % 3];
    let balancer = pick(["least-connections", "round-robin", "priority"]);
    let targets = pick(["\"m\"", "\"gone\", \"m\"", "\"m\", \"n\""]);
    let level = pick(["warn", "debug", "info"]);
    let limit = [0, 10_000_000][round % 2];
    format!(
        "{fleet}\n[proxy]\nload_balancer = \"{balancer}\"\nsticky_sessions.enabled = {}\n\
         [model_aliases]\neasy = [{targets}]\nof-round-{round} = [\"m\"]\n\
         [logging]\nlevel = \"{level}\"\n\
         [server.rate_limits]\nper_ip_requests_per_minute = {limit}\nburst_size = 1000000\n\
         [server.request_limits]\nmax_body_size = {}",
        round.is_multiple_of(2),
        100_000 + round,
    )
}

#[derive(Debug, Default)]
struct Progress {
    rounds: Arc<AtomicUsize>,
    served: [AtomicUsize; CLIENTS],
}

impl Progress {
    fn is_over(&self) -> bool {
        self.rounds.load(Ordering::SeqCst) >= ROUNDS
    }

    fn served_least(&self) -> usize {
        let served = self.served.iter().map(|count| count.load(Ordering::SeqCst));
        served.min().unwrap_or_default()
    }
}

/// Asks one thing after another on one connection; every answer is its own.
fn ask_on(gateway: u16, number: usize, progress: &Progress) {
    let mut client = Client::to_port(gateway);
    for request in 0.. {
        if progress.is_over() {
            return;
        }
        let model = ["m", "easy"][request % 2];
        let body = format!("{{\"model\":\"{model}\",\"nonce\":\"{number}:{request}\"}}");
        let length = body.len();
        client.send(format!(
            "POST {X} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let answer = client.response();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let nonce = format!("\"{number}:{request}\"");
        assert!(answer.text().contains(&nonce), "{}", answer.text());
        assert!(answer.whole && answer.header("Connection").is_none());
        progress.served[number].fetch_add(1, Ordering::SeqCst);
    }
}

/// Reads a stream to its end, which is that of the last round.
fn follow(mut client: Client) {
    for round in 0..=ROUNDS {
        let event = client.chunk().map(String::from_utf8);
        assert_eq!(event, Some(Ok(format!("event {round}"))));
    }
    assert_eq!(client.chunk().as_deref(), Some(&b""[..]));
}

fn reload_again_and_again(gateway: &mut Gateway, fleet: &[String; 3], progress: &Progress) {
    let mut want = [0.0, 0.0];
    for round in 1..=ROUNDS {
        let enough = progress.served_least() + BETWEEN;
        wait_until("load", || progress.served_least() >= enough);
        let is_wrong = round.is_multiple_of(5);
        if is_wrong {
            std::fs::write(gateway.config_file(), "[proxy]\nload_balancer = 7").unwrap();
        } else {
            gateway.rewrite(&round_config(round, fleet));
        }
        want[usize::from(is_wrong)] += 1.0;
        let before = gateway.endpoints().len();
        let figure = |gateway: &Gateway| {
            let one = gateway.endpoint("one");
            assert_eq!(one["status"], "healthy", "what stays keeps its health");
            one["request_count"].as_u64()
        };
        let requests = figure(gateway);
        gateway.signal("HUP");
        wait_until("the reload", || reloads(gateway) == want.map(Some));
        let successful = gateway.metric(LAST_SUCCESSFUL);
        assert_eq!(successful, Some(f64::from(u8::from(!is_wrong))));
        let now = if is_wrong {
            before
        } else {
            [3, 1, 2, 2][round % 4]
        };
        assert_eq!(gateway.endpoints().len(), now);
        assert!(figure(gateway) >= requests, "and its figures");
        // Of a new one, that it serves too.
        wait_until("the fleet", || {
            let all = gateway.endpoints();
            all.iter().all(|each| each["status"] == "healthy")
        });
        progress.rounds.store(round, Ordering::SeqCst);
    }
}

/// Ends everybody's work, also when the reloads have failed.
struct Over<'a>(&'a Progress);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.rounds.store(ROUNDS, Ordering::SeqCst);
    }
}

#[test]
fn reloads_under_load_fail_no_request_and_cut_no_stream() {
    on_both_drivers(|driver| {
        let progress = Progress::default();
        let backends = [0, 1, 2].map(|_| {
            let rounds = Arc::clone(&progress.rounds);
            Backend::new(&["m", "n"], move |request, link| {
                echo_or_stream(request, link, &rounds);
            })
        });
        let fleet = ["one", "two", "three"];
        // Checked when they are new, and then not to be taken for ill while the machine is busy.
        let seldom = "check_interval = \"60s\"\ncheck_timeout = \"20s\"";
        let fleet = [0, 1, 2].map(|at| endpoint(fleet[at], "vllm", &backends[at], seldom));
        let config = Config::new(driver).more(&round_config(0, &fleet));
        let mut gateway = Gateway::start(&config);
        let streams = [(); STREAMS].map(|()| {
            let mut client = Client::to(&gateway);
            let body = r#"{"model":"m","stream":true}"#;
            let length = body.len();
            client.send(format!(
                "POST {X} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
            assert_eq!(client.head().status, 200);
            client
        });
        for backend in &backends {
            assert!(backend.count() > 0, "no stream is on one of the backends");
        }
        let port = gateway.port;
        thread::scope(|scope| {
            for client in streams {
                scope.spawn(|| follow(client));
            }
            for number in 0..CLIENTS {
                let progress = &progress;
                scope.spawn(move || ask_on(port, number, progress));
            }
            let _over = Over(&progress);
            reload_again_and_again(&mut gateway, &fleet, &progress);
        });
        assert_eq!(gateway.metric("olla_failures_total"), Some(0.0));
        let served = progress
            .served
            .iter()
            .map(|count| count.load(Ordering::SeqCst));
        let requests = served.sum::<usize>() + STREAMS;
        wait_until("every request in the figures", || {
            gateway.metric("olla_requests_total") == Some(requests as f64)
        });
        for backend in &backends[1..] {
            assert!(
                backend.count() > STREAMS,
                "a backend that came back got nothing"
            );
        }
        gateway.wait_line(&["Configuration reloaded", "discovery.static.endpoints"]);
    });
}

#[test]
fn a_removed_endpoint_finishes_what_it_has() {
    on_both_drivers(|driver| {
        let (old, word) = streaming();
        let new = Backend::ok(&["m"]);
        let mut gateway = over(driver, &old, "");
        let mut busy = Client::to(&gateway);
        busy.send(ASK).head();
        assert_eq!(busy.chunk().unwrap(), b"first");
        gateway.rewrite(&endpoint("new", "vllm", &new, ""));
        gateway.signal("HUP");
        wait_until("the new fleet", || {
            let all = gateway.endpoints();
            all.len() == 1 && all[0]["name"] == "new" && all[0]["status"] == "healthy"
        });
        let answer = get(&gateway, X, &[]);
        assert_eq!(answer.header("X-Olla-Endpoint"), Some("new"));
        word.send(()).unwrap();
        assert_eq!(busy.chunk().unwrap(), b"second");
        assert_eq!(busy.chunk().unwrap(), b"");
    });
}

#[test]
fn a_reload_takes_new_limits_aliases_and_cors() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let mut gateway = over(driver, &backend, "");
        gateway.rewrite(
            "[model_aliases]\neasy = [\"m\"]\n[server.cors]\nenabled = false\n\
             [server.request_limits]\nmax_body_size = 20\n\
             [server.rate_limits]\nper_ip_requests_per_minute = 60\nburst_size = 3",
        );
        gateway.signal("HUP");
        gateway.wait_log("Configuration reloaded");
        let ask = || post(&gateway, X, &[], r#"{"model":"easy"}"#);
        wait_until("the alias", || ask().status == 200);
        // The first of them may have come before the reload, and been routed after it.
        let answer = ask();
        assert_eq!(answer.header("X-Olla-Routing-Strategy"), Some("alias"));
        assert_eq!(answer.header("X-RateLimit-Limit"), Some("60"));
        assert_eq!(answer.header("Vary"), None);
        assert_eq!(post(&gateway, X, &[], [b' '; 21]).status, 413);
    });
}

#[test]
fn a_wrong_file_at_a_reload_keeps_the_old_configuration() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let mut gateway = over(driver, &backend, "");
        for broken in ["no TOML at all", "[proxy]\nload_balancer = \"fastest\""] {
            std::fs::write(gateway.config_file(), broken).unwrap();
            gateway.signal("HUP");
            wait_until("the refusal", || {
                gateway.metric(LAST_SUCCESSFUL) == Some(0.0)
            });
            gateway.wait_line(&["\"ERROR\""]);
            let answer = get(&gateway, X, &[]);
            assert_eq!(
                (answer.status, answer.header("X-Olla-Endpoint")),
                (200, Some("one"))
            );
            gateway.rewrite("");
            gateway.signal("HUP");
            wait_until("the good file", || {
                gateway.metric(LAST_SUCCESSFUL) == Some(1.0)
            });
        }
        gateway.wait_line(&["proxy.load_balancer", "fastest"]);
    });
}

#[test]
fn a_reload_keeps_what_clients_used_of_limits_that_stay() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let limits = |burst: u32, cleanup: &str| {
            format!(
                "[server.rate_limits]\nper_ip_requests_per_minute = 1\nburst_size = {burst}\n\
                 cleanup_interval = \"{cleanup}\""
            )
        };
        let mut gateway = over(driver, &backend, &limits(2, "5m"));
        assert_eq!(get(&gateway, X, &[]).status, 200);
        assert_eq!(get(&gateway, X, &[]).status, 200);
        assert_eq!(get(&gateway, X, &[]).status, 429);
        let mut reload = |config: &str| {
            let before = reloads(&gateway);
            gateway.rewrite(config);
            gateway.signal("HUP");
            wait_until("the reload", || reloads(&gateway) != before);
            get(&gateway, X, &[])
        };
        // The limit is the same, so its buckets are.
        assert_eq!(reload(&limits(2, "1m")).status, 429);
        // Another limit begins with full buckets.
        let response = reload(&limits(3, "1m"));
        assert_eq!(response.status, 200);
        assert_eq!(response.header("X-RateLimit-Remaining"), Some("2"));
    });
}
