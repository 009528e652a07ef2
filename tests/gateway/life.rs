//! Start, signals and shutdown: effects of the configuration, of signals and of the machine.
//!
//! Contract: docs/contract/balancing.md#12, docs/contract/operations.md#9

use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, endpoint, get, on_both_drivers, post,
    run_to_end, wait_until,
};

const X: &str = "/olla/proxy/x";
const ASK: &str = "GET /olla/proxy/x HTTP/1.1\r\nHost: h\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A backend that streams one event, and the second one and the end after a message.
pub(super) fn streaming() -> (Backend, mpsc::Sender<()>) {
    let (word, heard) = mpsc::channel();
    let heard = Mutex::new(heard);
    let backend = Backend::new(&["m"], move |_, link| {
        link.send(STREAM);
        link.chunk("first");
        if heard.lock().unwrap().recv_timeout(PATIENCE).is_ok() {
            link.chunk("second");
            link.chunk("");
        }
    });
    (backend, word)
}

pub(super) fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

#[test]
fn a_bad_configuration_is_refused_with_key_value_and_line() {
    let endpoint = "[[discovery.static.endpoints]]\nname = \"e\"\nurl = \"http://127.0.0.1:1\"\n";
    let of_endpoint = |more: &str| format!("{endpoint}{more}");
    // The file, and strings that the log must contain.
    let rows: [(String, &[&str]); 16] = [
        (
            "[server]\nport = 70000".into(),
            &["server.port", "70000", "line 2"],
        ),
        (
            "[server]\nhost = \"127.0.0.1\"\nread_timeout = \"soon\"".into(),
            &["server.read_timeout", "soon", "line 3"],
        ),
        (
            "[server]\nread_timeout = \"-1s\"".into(),
            &["server.read_timeout", "-1s"],
        ),
        (
            "[server]\nio_driver = \"kqueue\"".into(),
            &["server.io_driver", "kqueue"],
        ),
        (
            "[server.cors]\nallow_credentials = true".into(),
            &["cors", "allow_credentials"],
        ),
        (
            "[server.cors]\nallowed_origins = []".into(),
            &["cors", "allowed_origins"],
        ),
        (
            "[server.cors]\nmax_age = -1".into(),
            &["cors", "max_age", "-1"],
        ),
        (
            "[server.rate_limits]\ntrusted_proxy_cidrs = [\"10.0.0.0/99\"]".into(),
            &["trusted_proxy_cidrs", "10.0.0.0/99"],
        ),
        (
            "[proxy]\nload_balancer = \"fastest\"".into(),
            &["proxy.load_balancer", "fastest", "line 2"],
        ),
        (
            "[proxy]\nengine = \"warp\"".into(),
            &["proxy.engine", "warp"],
        ),
        (
            "[proxy]\nprofile = \"odd\"".into(),
            &["proxy.profile", "odd"],
        ),
        (
            "[model_registry.routing_strategy]\ntype = \"guess\"".into(),
            &["routing_strategy.type", "guess"],
        ),
        ("[model_aliases]\nx = []".into(), &["model_aliases", "x"]),
        (
            of_endpoint("type = \"abacus\""),
            &["type", "abacus", "line 4"],
        ),
        (
            of_endpoint("auth.type = \"bearer\"\nauth.token = \"${TEST_NOT_SET}\""),
            &["TEST_NOT_SET"],
        ),
        ("this is no TOML".into(), &["line 1"]),
    ];
    for (text, said) in rows {
        let (code, log) = run_to_end(&text);
        assert_eq!(code, Some(1), "{text}\n{log}");
        for word in said {
            assert!(log.contains(word), "{word} is not in\n{log}\nfor\n{text}");
        }
    }
}

#[test]
fn a_port_in_use_is_reported_and_ends_the_start() {
    on_both_drivers(|driver| {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let name = driver.name();
        for workers in [1, 2] {
            let (code, log) = run_to_end(&format!(
                "[server]\nhost = \"127.0.0.1\"\nport = {port}\nio_driver = \"{name}\"\n\
                 workers = {workers}\npin_workers = false\n[discovery.static]\nendpoints = []"
            ));
            assert_eq!(code, Some(1), "{log}");
            assert!(
                log.contains("in use") && log.contains(&port.to_string()),
                "{log}"
            );
        }
    });
}

#[test]
fn a_port_of_another_gateway_is_in_use_too() {
    on_both_drivers(|driver| {
        let first = Gateway::start(&Config::new(driver).more("discovery.static.endpoints = []"));
        let (code, log) = run_to_end(&format!(
            "[server]\nhost = \"127.0.0.1\"\nport = {}\nio_driver = \"{}\"\nworkers = 2\n\
             pin_workers = false\n[discovery.static]\nendpoints = []",
            first.port,
            driver.name()
        ));
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("in use"), "{log}");
    });
}

#[test]
fn an_endpoint_that_is_down_leaves_the_others_served() {
    on_both_drivers(|driver| {
        let (up, down) = (Backend::ok(&["m"]), Backend::ok(&["m"]));
        down.stop();
        let endpoints = [
            endpoint("up", "vllm", &up, ""),
            endpoint("down", "vllm", &down, ""),
        ];
        let gateway = Gateway::start(&Config::new(driver).more(&endpoints.concat()));
        for _ in 0..10 {
            let response = post(&gateway, X, &[], r#"{"model":"m"}"#);
            assert_eq!(response.header("X-Olla-Endpoint"), Some("up"));
        }
        let ready = get(&gateway, "/internal/ready", &[]);
        assert_eq!((ready.status, &ready.json()["healthy"]), (200, &1.into()));
    });
}

#[test]
fn a_request_before_the_first_check_waits_for_it() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        for _ in 0..5 {
            let config = Config::new(driver).more(&endpoints).unsettled();
            let gateway = Gateway::start(&config);
            let response = get(&gateway, X, &[]);
            assert_eq!(response.status, 200, "{}", response.text());
        }
    });
}

#[test]
fn a_drain_finishes_requests_in_flight() {
    on_both_drivers(|driver| {
        let (backend, word) = streaming();
        let mut gateway = over(driver, &backend, "[server]\nshutdown_timeout = \"15s\"");
        let mut idle = Client::to(&gateway);
        idle.send("GET /internal/health HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(idle.response().status, 200);
        let mut busy = Client::to(&gateway);
        busy.send(ASK).head();
        assert_eq!(busy.chunk().unwrap(), b"first");
        gateway.signal("TERM");
        // Idle connections close at once, and there are no new ones.
        assert!(idle.is_closed());
        let port = gateway.port;
        wait_until("the listener to close", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        });
        assert!(gateway.is_running());
        word.send(()).unwrap();
        assert_eq!(busy.chunk().unwrap(), b"second");
        assert_eq!(busy.chunk().unwrap(), b"");
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
        assert!(gateway.log().contains("\"drained\":1"), "{}", gateway.log());
    });
}

#[test]
fn a_response_during_a_drain_has_connection_close() {
    on_both_drivers(|driver| {
        let (word, heard) = mpsc::channel::<()>();
        let heard = Mutex::new(heard);
        let backend = Backend::new(&["m"], move |_, link| {
            let _ = heard.lock().unwrap().recv_timeout(PATIENCE);
            link.ok();
        });
        let mut gateway = over(driver, &backend, "[server]\nshutdown_timeout = \"15s\"");
        let mut client = Client::to(&gateway);
        client.send(ASK);
        backend.wait_count(1);
        gateway.signal("INT");
        gateway.wait_log("hutdown");
        word.send(()).unwrap();
        let response = client.response();
        assert_eq!(
            (response.status, response.header("Connection")),
            (200, Some("close"))
        );
        assert!(client.is_closed());
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
    });
}

#[test]
fn requests_are_cut_after_the_shutdown_timeout() {
    on_both_drivers(|driver| {
        let (backend, _word) = streaming();
        let mut gateway = over(driver, &backend, "[server]\nshutdown_timeout = \"300ms\"");
        let mut busy = Client::to(&gateway);
        busy.send(ASK).head();
        assert_eq!(busy.chunk().unwrap(), b"first");
        let start = Instant::now();
        gateway.signal("TERM");
        assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(290) && took < Duration::from_secs(5),
            "{took:?}"
        );
        // The response has no end.
        assert!(busy.is_closed());
        let log = gateway.log();
        assert!(log.contains("WARN") && log.contains("\"cut\":1"), "{log}");
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    on_both_drivers(|driver| {
        for (first, second, code) in [("INT", "TERM", 143), ("INT", "INT", 130)] {
            let (backend, _word) = streaming();
            let mut gateway = over(driver, &backend, "[server]\nshutdown_timeout = \"60s\"");
            let mut busy = Client::to(&gateway);
            busy.send(ASK).head();
            gateway.signal(first);
            gateway.wait_log("hutdown");
            assert!(gateway.is_running());
            gateway.signal(second);
            assert_eq!(gateway.wait_end(PATIENCE).code(), Some(code));
        }
    });
}

#[test]
fn other_signals_are_ignored_and_the_gateway_goes_on() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        for last in ["INT", "TERM"] {
            let mut gateway = over(driver, &backend, "");
            for ignored in ["USR1", "USR2", "PIPE", "XFSZ"] {
                gateway.signal(ignored);
            }
            // A signal that ends a process ends it before the next one is handled.
            gateway.signal("HUP");
            gateway.wait_log("Configuration reloaded");
            assert_eq!(get(&gateway, X, &[]).status, 200);
            gateway.signal(last);
            assert_eq!(gateway.wait_end(PATIENCE).code(), Some(0));
            let log = gateway.log();
            assert!(log.contains(&format!("\"signal\":\"SIG{last}\"")), "{log}");
        }
    });
}

/// A command that runs a program without io_uring, if this machine has the tools for it.
fn refusing_io_uring() -> Option<Vec<&'static str>> {
    let inject = "inject=io_uring_setup:error=EPERM";
    // The tracer is the child, so that the program keeps the known process id.
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", inject];
    let works = Command::new(words[0])
        .args(&words[1..])
        .arg("true")
        .output();
    match works {
        Ok(output) if output.status.success() => Some(words.to_vec()),
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: strace cannot be run: {error}");
            None
        }
    }
}

#[test]
fn without_io_uring_the_start_uses_epoll_and_logs_the_reason() {
    let Some(words) = refusing_io_uring() else {
        return;
    };
    let backend = Backend::ok(&["m"]);
    let config = Config::new(Driver::Epoll)
        .more("[server]\nio_driver = \"auto\"")
        .more(&endpoint("one", "vllm", &backend, ""))
        .under(&words);
    let gateway = Gateway::start(&config);
    assert_eq!(get(&gateway, X, &[]).status, 200);
    gateway.wait_line(&["epoll (io_uring is not available", "seccomp"]);
}

#[test]
fn required_io_uring_that_is_missing_ends_the_start() {
    let Some(words) = refusing_io_uring() else {
        return;
    };
    let config = Config::new(Driver::IoUring)
        .more("discovery.static.endpoints = []")
        .under(&words);
    let Err(log) = Gateway::try_start(&config) else {
        panic!("it has started");
    };
    assert!(
        log.contains("io_uring is not available") && log.contains("seccomp"),
        "{log}"
    );
}

#[test]
fn the_configured_driver_is_used() {
    on_both_drivers(|driver| {
        let gateway = Gateway::start(&Config::new(driver).more("discovery.static.endpoints = []"));
        gateway.wait_line(&[&format!("\"io_driver\":\"{}", driver.name())]);
    });
}

#[test]
fn variables_override_the_file() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let config = Config::new(driver)
            .more(&endpoint("one", "vllm", &backend, ""))
            .more("[server.request_limits]\nmax_body_size = 5");
        let gateway = Gateway::start(
            &config
                .clone()
                .env("OLLA_SERVER_MAX_BODY_SIZE", "1KB")
                .env("OLLA_SERVER_PER_IP_RATE_LIMIT", "90")
                .env("OLLA_SERVER_RATE_BURST_SIZE", "9")
                .env(
                    "OLLA_SERVER_CORS_ALLOWED_ORIGINS",
                    "https://a.test,https://b.test",
                ),
        );
        let response = post(&gateway, X, &["Origin: https://b.test"], [b' '; 1024]);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("X-RateLimit-Limit"), Some("90"));
        assert_eq!(response.header("X-RateLimit-Remaining"), Some("8"));
        let granted = response.header("Access-Control-Allow-Origin");
        assert_eq!(granted, Some("https://b.test"));
        assert_eq!(post(&gateway, X, &[], [b' '; 1025]).status, 413);
        // An invalid value is refused with the name of its variable.
        let Err(log) = Gateway::try_start(&config.env("OLLA_SERVER_READ_TIMEOUT", "soon")) else {
            panic!("it has started");
        };
        assert!(
            log.contains("OLLA_SERVER_READ_TIMEOUT") && log.contains("soon"),
            "{log}"
        );
    });
}
