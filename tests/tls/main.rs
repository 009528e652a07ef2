//! TLS on both sides of the real gateway: https endpoints, and a listener with TLS.
//!
//! Contract: docs/contract/balancing.md#9, docs/contract/balancing.md#11,
//! docs/contract/balancing.md#13; docs/contract/README.md#11; docs/contract/surface.md#4

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;

use std::io::Write;
use std::net::TcpListener;

use testkit::tls::{Handshake, Identity, Issuer, TlsBackend, connect};
use testkit::{
    Backend, Client, Config, Driver, Folder, Gateway, Link, PATIENCE, Process, Received, Response,
    post, program, run_to_end, wait_until,
};

const DRIVERS: [Driver; 2] = [Driver::Auto, Driver::Epoll];

/// One worker that logs its requests, in front of what `more` configures.
fn config(driver: Driver, more: &str) -> Config {
    Config::new(driver)
        .more("[server]\nworkers = 1\nrequest_logging = true")
        .more(more)
        .unsettled()
}

/// The configuration of a listener with TLS, and its files.
fn listener(folder: &Folder, identity: &Identity) -> String {
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    format!("[server.tls]\ncert_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
}

fn endpoint(name: &str, url: &str, more: &str) -> String {
    format!(
        "[[discovery.static.endpoints]]\nname = \"{name}\"\nurl = \"{url}\"\n\
         type = \"openai-compatible\"\n{more}\n"
    )
}

/// A backend with this certificate and one model.
fn backend(identity: &Identity) -> TlsBackend {
    TlsBackend::new(identity, &["m1"], respond)
}

fn respond(request: &Received, link: &mut Link) {
    match request.path() {
        "/echo" => link.respond(200, "application/octet-stream", &request.body),
        "/stream" => {
            link.begin("text/event-stream");
            for event in 0..20 {
                link.chunk(format!("data: {event}\n\n"));
            }
            link.chunk("");
        }
        path @ ("/to-close" | "/cut-to-close") => {
            link.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it");
            if path == "/to-close" {
                link.close();
            } else {
                link.cut();
            }
        }
        "/cut" => {
            link.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it");
            link.cut();
        }
        _ => {
            let list = r#"{"object":"list","data":[{"id":"m1","object":"model"}]}"#;
            link.respond(200, "application/json", list);
        }
    }
}

/// One request of the gateway's proxy routes on a connection of its own.
fn send(gateway: &Gateway, path: &str, body: &[u8]) -> Response {
    post(gateway, &format!("/olla/proxy{path}"), &[], body)
}

/// One request on this connection.
fn exchange(client: &mut Client, path: &str, body: &[u8]) -> Response {
    let head = format!("POST /olla/proxy{path}");
    client.request(&head, body).response()
}

/// Bytes without repeated sections, so that a misplaced one is detected.
fn large(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

/// An endpoint with a certificate of the given issuer, and the gateway in front that trusts it.
fn trusting(folder: &Folder, driver: Driver, server: &str) -> (TlsBackend, Gateway) {
    let issuer = Issuer::new("trusted");
    let backend = backend(&issuer.issue(&["localhost", "127.0.0.1"]));
    let ca_file = folder.write("ca.pem", &issuer.pem());
    let more = format!("tls.ca_file = \"{ca_file}\"");
    let endpoint = endpoint("gpu-1", &backend.url("localhost"), &more);
    let gateway = Gateway::start(&config(driver, &endpoint).more(server));
    (backend, gateway)
}

#[test]
fn an_https_endpoint_works_on_every_driver() {
    for driver in DRIVERS {
        let folder = Folder::new();
        let (backend, gateway) = trusting(&folder, driver, "");
        let response = send(&gateway, "/echo", b"hello");
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!(response.header("X-Olla-Endpoint"), Some("gpu-1"));
        let response = send(&gateway, "/v1/chat/completions", br#"{"model":"m1"}"#);
        assert_eq!(response.status, 200, "its models were listed: {response:?}");
        let handshake = Handshake {
            server_name: Some("localhost".to_owned()),
            alpn: Some(b"http/1.1".to_vec()),
        };
        assert_eq!(backend.handshakes().last(), Some(&handshake));
    }
}

#[test]
fn tls_connections_are_reused() {
    let folder = Folder::new();
    let (backend, gateway) = trusting(&folder, Driver::Auto, "");
    assert_eq!(send(&gateway, "/echo", b"first").status, 200);
    let before = backend.backend.requests();
    let connections = backend.handshakes().len();
    for _ in 0..20 {
        assert_eq!(send(&gateway, "/echo", b"again").text(), "again");
    }
    let requests = backend.backend.requests() - before;
    let fresh = backend.handshakes().len() - connections;
    assert!(requests >= 20);
    assert!(
        requests - fresh >= 20,
        "{fresh} connections for {requests} requests"
    );
}

#[test]
fn large_bodies_pass_both_ways_on_every_driver() {
    for driver in DRIVERS {
        let folder = Folder::new();
        let (_backend, gateway) = trusting(&folder, driver, "");
        for len in [16 << 10, 64 << 10, 5 << 20] {
            let body = large(len);
            let response = send(&gateway, "/echo", &body);
            assert!(response.whole && response.body == body, "{driver:?} {len}");
        }
    }
}

#[test]
fn responses_end_where_their_framing_says() {
    for driver in DRIVERS {
        let folder = Folder::new();
        let (_backend, gateway) = trusting(&folder, driver, "");
        let stream = send(&gateway, "/stream", b"{}");
        let events: String = (0..20).map(|event| format!("data: {event}\n\n")).collect();
        assert_eq!((stream.text(), stream.whole), (events, true));
        let closed = send(&gateway, "/to-close", b"{}");
        assert_eq!((closed.text().as_str(), closed.whole), ("all of it", true));
        // Without a close_notify alert, an attacker may have cut the connection.
        let cut = send(&gateway, "/cut-to-close", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("all of it", false));
        let cut = send(&gateway, "/cut", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("not all of it", false));
    }
}

/// The gateway in front of one endpoint with a TLS fault, and the response to the first request.
fn refused(url: &str, more: &str) -> (Gateway, Response) {
    let endpoint = endpoint("gpu-1", url, more);
    let gateway = Gateway::start(&config(Driver::Auto, &endpoint));
    let response = send(&gateway, "/echo", b"{}");
    (gateway, response)
}

#[test]
fn an_invalid_certificate_makes_the_endpoint_offline() {
    let (trusted, stranger) = (Issuer::new("trusted"), Issuer::new("stranger"));
    let table = [
        (stranger.issue(&["localhost"]), "tls_unknown_issuer"),
        (trusted.issue(&["elsewhere"]), "tls_wrong_name"),
        (
            trusted.issue_until(&["localhost"], 2021),
            "tls_certificate_expired",
        ),
    ];
    for (identity, word) in table {
        let folder = Folder::new();
        let ca_file = folder.write("ca.pem", &trusted.pem());
        let backend = backend(&identity);
        let more = format!("tls.ca_file = \"{ca_file}\"");
        let (gateway, _) = refused(&backend.url("localhost"), &more);
        gateway.wait_line(&["gpu-1", "\"to\":\"offline\"", word]);
        let response = send(&gateway, "/echo", b"{}");
        assert_eq!(response.status, 503, "{word} {response:?}");
        assert!(
            response.text().contains("NO_HEALTHY_ENDPOINTS"),
            "{response:?}"
        );
        assert_eq!(backend.backend.requests(), 0, "{word}");
    }
}

#[test]
fn a_response_names_the_fault_of_a_certificate() {
    // Health checks go to another server and succeed, so a request is the first to meet the fault.
    let (trusted, stranger) = (Issuer::new("trusted"), Issuer::new("stranger"));
    let healthy = backend(&trusted.issue(&["localhost"]));
    let table = [
        (
            stranger.issue(&["localhost"]),
            "has a TLS certificate of an unknown issuer",
            "tls_unknown_issuer",
        ),
        (
            trusted.issue(&["elsewhere"]),
            "has a TLS certificate for another name",
            "tls_wrong_name",
        ),
        (
            trusted.issue_until(&["localhost"], 2021),
            "has a TLS certificate that has expired",
            "tls_certificate_expired",
        ),
    ];
    for (identity, sentence, word) in table {
        let folder = Folder::new();
        let ca_file = folder.write("ca.pem", &trusted.pem());
        let backend = backend(&identity);
        let more = format!(
            "tls.ca_file = \"{ca_file}\"\nhealth_check_url = \"{0}/\"\nmodel_url = \"{0}/\"\n\
             check_interval = \"1h\"",
            healthy.url("localhost")
        );
        let (gateway, response) = refused(&backend.url("localhost"), &more);
        assert_eq!(response.status, 502, "{response:?}");
        let text = response.text();
        assert!(text.contains("BACKEND_ERROR"), "{text}");
        assert!(text.contains(sentence), "{text}");
        assert!(
            !text.contains("127.0.0.1") && !text.contains("localhost"),
            "{text}"
        );
        gateway.wait_line(&["request_id", "gpu-1", word]);
        assert_eq!(
            send(&gateway, "/echo", b"{}").status,
            503,
            "it is offline now"
        );
    }
}

#[test]
fn verification_is_disabled_only_by_its_key_and_with_a_warning() {
    let backend = backend(&Issuer::new("stranger").issue_until(&["elsewhere"], 2021));
    let more = "tls.insecure_skip_verify = true";
    let (gateway, response) = refused(&backend.url("127.0.0.1"), more);
    assert_eq!(response.status, 200, "{response:?}");
    gateway.wait_line(&["WARN", "not verified", "gpu-1"]);
    assert_eq!(
        backend.handshakes().last().map(|seen| &seen.server_name),
        Some(&None),
        "an address"
    );
}

#[test]
fn the_environment_adds_to_the_trusted_certificates() {
    let issuer = Issuer::new("environment");
    let issued = (issuer.issue(&["localhost"]), issuer.pem());
    let own = Identity::self_signed();
    let named = own.certificate.clone();
    for (name, (identity, trusted)) in [("issued", issued), ("own", (own, named))] {
        let backend = backend(&identity);
        let folder = Folder::new();
        let file = folder.write("own.pem", &trusted);
        let endpoint = endpoint("gpu-1", &backend.url("localhost"), "");
        let config = config(Driver::Auto, &endpoint).env("SSL_CERT_FILE", &file);
        let gateway = Gateway::start(&config);
        assert_eq!(send(&gateway, "/echo", b"hello").text(), "hello", "{name}");
    }
}

#[test]
fn a_server_without_tls_is_reported() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let url = format!("https://localhost:{port}");
    let (gateway, _) = refused(&url, "");
    gateway.wait_line(&["gpu-1", "tls_not_spoken"]);
}

#[test]
fn a_handshake_has_a_timeout() {
    for driver in DRIVERS {
        let folder = Folder::new();
        let issuer = Issuer::new("trusted");
        let healthy = backend(&issuer.issue(&["localhost"]));
        // The listener accepts connections and sends nothing.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let ca_file = folder.write("ca.pem", &issuer.pem());
        let more = format!(
            "tls.ca_file = \"{ca_file}\"\nhealth_check_url = \"{0}/\"\nmodel_url = \"{0}/\"\n\
             check_interval = \"1h\"",
            healthy.url("localhost")
        );
        let url = format!("https://localhost:{}", mute.local_addr().unwrap().port());
        let rest = format!(
            "{}[proxy]\ntls_handshake_timeout = \"200ms\"\n",
            endpoint("gpu-1", &url, &more)
        );
        let gateway = Gateway::start(&config(driver, &rest));
        let response = send(&gateway, "/echo", b"{}");
        assert_eq!(response.status, 502, "{response:?}");
        let sentence = "did not complete the TLS handshake in time";
        assert!(response.text().contains(sentence), "{response:?}");
        gateway.wait_line(&["gpu-1", "tls_timeout"]);
    }
}

#[test]
fn another_endpoint_replaces_one_with_an_invalid_certificate() {
    let (trusted, stranger) = (Issuer::new("trusted"), Issuer::new("stranger"));
    let folder = Folder::new();
    let ca_file = folder.write("ca.pem", &trusted.pem());
    let good = backend(&trusted.issue(&["localhost"]));
    let bad = backend(&stranger.issue(&["localhost"]));
    let first = format!(
        "priority = 200\ntls.ca_file = \"{ca_file}\"\nhealth_check_url = \"{0}/\"\n\
         model_url = \"{0}/\"\ncheck_interval = \"1h\"",
        good.url("localhost")
    );
    let second = format!("priority = 100\ntls.ca_file = \"{ca_file}\"");
    let rest = format!(
        "{}{}[proxy]\nload_balancer = \"priority\"\n",
        endpoint("bad", &bad.url("localhost"), &first),
        endpoint("good", &good.url("localhost"), &second)
    );
    let gateway = Gateway::start(&config(Driver::Auto, &rest));
    // At first only one of the endpoints may be healthy.
    wait_until("both endpoints to be healthy", || {
        let endpoints = gateway.endpoints();
        let healthy = endpoints.iter().filter(|one| one["status"] == "healthy");
        healthy.count() == 2
    });
    let response = send(&gateway, "/echo", b"hello");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("X-Olla-Endpoint"), Some("good"));
    gateway.wait_line(&["\"endpoint\":\"bad\"", "tls_unknown_issuer"]);
}

#[test]
fn unusable_files_are_refused_by_check_and_at_start_alike() {
    let folder = Folder::new();
    let identity = Issuer::new("x").issue(&["localhost"]);
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let other = folder.write("other.pem", &Issuer::new("y").issue(&["localhost"]).key);
    let empty = folder.write("empty.pem", "");
    let tls = |certificate: &str, key: &str| {
        format!("[server.tls]\ncert_file = \"{certificate}\"\nkey_file = \"{key}\"")
    };
    let of_endpoint = |more: &str| endpoint("e", "https://h", more);
    let bearer = "auth.type = \"bearer\"\nauth.token_file = \"/none/token\"";
    let table = [
        (tls(&empty, &key), "server.tls.cert_file: expected "),
        (tls(&certificate, &empty), "server.tls.key_file: expected "),
        (tls(&certificate, &other), "server.tls.key_file: expected "),
        (
            tls("/none/c.pem", &key),
            "server.tls.cert_file: cannot read \"/none/c.pem\"",
        ),
        (
            tls(&certificate, "/none/k.pem"),
            "server.tls.key_file: cannot read \"/none/k.pem\"",
        ),
        (
            of_endpoint(&format!("tls.ca_file = \"{empty}\"")),
            "tls.ca_file: expected ",
        ),
        (
            of_endpoint("tls.ca_file = \"/none/ca.pem\""),
            "tls.ca_file: cannot read \"/none/ca.pem\"",
        ),
        (
            of_endpoint(bearer),
            "token_file: cannot read \"/none/token\"",
        ),
    ];
    let valid = format!("{}{}", tls(&certificate, &key), "\n[discovery]");
    let (code, output) = check(&folder, &valid);
    assert!(code == Some(0) && output.contains("ok: "), "{output}");
    for (rest, message) in table {
        let text = config(Driver::Auto, &rest).text(testkit::reserve().port());
        let (code, output) = check(&folder, &text);
        assert_eq!(code, Some(1), "{output}");
        let errors = |line: &&str| line.contains(": error: ");
        let found: Vec<&str> = output.lines().filter(errors).collect();
        assert!(found.len() == 1 && found[0].contains(message), "{output}");
        assert!(output.ends_with("\n1 error\n"), "{output}");
        let (code, log) = run_to_end(&text);
        assert_eq!(code, Some(1), "{log}");
        let errors = |line: &&str| line.contains("\"ERROR\"");
        let found: Vec<&str> = log.lines().filter(errors).collect();
        let message = message.replace('"', "\\\"");
        assert!(found.len() == 1 && found[0].contains(&message), "{log}");
    }
}

/// What `olla check` says about a configuration.
fn check(folder: &Folder, text: &str) -> (Option<i32>, String) {
    let file = folder.write("checked.toml", text);
    let mut process = Process::start(&program("olla"), &["check", "-c", &file], &[]);
    let code = process.wait_end(PATIENCE).code();
    (code, process.log())
}

/// A gateway with TLS at its listener, in front of a TLS backend.
fn listening(folder: &Folder, identity: &Identity, driver: Driver) -> (TlsBackend, Gateway) {
    trusting(folder, driver, &listener(folder, identity))
}

#[test]
fn the_listener_uses_tls_on_every_driver() {
    for driver in DRIVERS {
        let folder = Folder::new();
        let issuer = Issuer::new("gateway");
        let identity = issuer.issue(&["localhost"]);
        let (_backend, gateway) = listening(&folder, &identity, driver);
        let pem = issuer.pem();
        let connect = |alpn: &[&[u8]]| connect(&gateway, &pem, alpn);
        let (mut client, agreed) = connect(&[b"h2", b"http/1.1"]).unwrap();
        assert_eq!(agreed.as_deref(), Some(&b"http/1.1"[..]));
        for _ in 0..5 {
            assert_eq!(exchange(&mut client, "/echo", b"kept").text(), "kept");
        }
        let open = || connect(&[b"h2", b"http/1.1"]).unwrap().0;
        let events = exchange(&mut open(), "/stream", b"{}");
        assert!(events.whole && events.text().ends_with("data: 19\n\n"));
        let body = large(5 << 20);
        let response = exchange(&mut open(), "/echo", &body);
        assert!(response.whole && response.body == body);
        let cut = exchange(&mut open(), "/cut-to-close", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("all of it", false));
        let (mut no_alpn, _) = connect(&[]).unwrap();
        assert_eq!(exchange(&mut no_alpn, "/echo", b"x").status, 200);
        assert!(connect(&[b"h2"]).is_err(), "only HTTP/1.1");
    }
}

#[test]
fn plain_http_to_a_listener_with_tls_gets_400() {
    let folder = Folder::new();
    let identity = Issuer::new("gateway").issue(&["localhost"]);
    let (_backend, gateway) = listening(&folder, &identity, Driver::Auto);
    let response = send(&gateway, "/echo", b"");
    assert_eq!(response.status, 400);
    assert!(
        response.whole && response.text().contains("https"),
        "{response:?}"
    );
}

#[test]
fn a_client_without_a_handshake_is_disconnected() {
    let folder = Folder::new();
    let identity = Issuer::new("gateway").issue(&["localhost"]);
    let server = format!(
        "[server]\nread_header_timeout = \"200ms\"\n{}",
        listener(&folder, &identity)
    );
    let (_backend, gateway) = trusting(&folder, Driver::Auto, &server);
    assert!(Client::to(&gateway).is_closed());
}

#[test]
fn certificates_are_read_again_without_a_restart() {
    let folder = Folder::new();
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let (_backend, gateway) = listening(&folder, &old.issue(&["localhost"]), Driver::Auto);
    let (mut before, _) = connect(&gateway, &old.pem(), &[]).unwrap();
    let identity = new.issue(&["localhost"]);
    folder.write("cert.pem", &identity.certificate);
    gateway.signal("HUP");
    gateway.wait_log("Configuration not reloaded");
    assert!(
        connect(&gateway, &old.pem(), &[]).is_ok(),
        "a certificate without its key: the old one stays"
    );
    folder.write("key.pem", &identity.key);
    gateway.signal("HUP");
    gateway.wait_log("Configuration reloaded");
    assert!(connect(&gateway, &old.pem(), &[]).is_err());
    let (mut after, _) = connect(&gateway, &new.pem(), &[]).unwrap();
    assert_eq!(exchange(&mut after, "/echo", b"x").status, 200);
    let kept = exchange(&mut before, "/echo", b"x");
    assert_eq!(kept.status, 200, "connections made before go on");
}

#[test]
fn issuers_are_read_again_without_a_restart() {
    let folder = Folder::new();
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let backend = backend(&new.issue(&["localhost"]));
    let ca_file = folder.write("ca.pem", &old.pem());
    let more =
        format!("tls.ca_file = \"{ca_file}\"\ncheck_interval = \"1s\"\ncheck_timeout = \"900ms\"");
    let endpoint = endpoint("gpu-1", &backend.url("localhost"), &more);
    let gateway = Gateway::start(&config(Driver::Auto, &endpoint));
    gateway.wait_line(&["gpu-1", "tls_unknown_issuer"]);
    folder.write("ca.pem", &new.pem());
    gateway.signal("HUP");
    gateway.wait_line(&["gpu-1", "\"to\":\"healthy\""]);
    // The line is written just before the cores receive the snapshot.
    let served = (0..1000).any(|_| send(&gateway, "/echo", b"hello").text() == "hello");
    assert!(served);
}

#[test]
fn an_endpoint_receives_the_scheme_of_the_client() {
    let folder = Folder::new();
    let plain = Backend::ok(&["m1"]);
    let issuer = Issuer::new("gateway");
    let identity = issuer.issue(&["localhost"]);
    let url = plain.url_as("http", "localhost");
    let config = config(Driver::Auto, &endpoint("gpu-1", &url, ""));
    let gateway = Gateway::start(&config.more(&listener(&folder, &identity)));
    let (mut client, _) = connect(&gateway, &issuer.pem(), &[]).unwrap();
    assert_eq!(exchange(&mut client, "/echo", b"").status, 200);
    assert_eq!(plain.last().header("X-Forwarded-Proto"), Some("https"));
}
