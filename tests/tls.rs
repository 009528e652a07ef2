//! TLS on both sides of the real gateway: https endpoints, and a listener that speaks TLS.
//!
//! contract: balancing 9, 11, 13; README 11; surface 4

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tls/backend.rs"]
mod backend;
#[path = "tls/gateway.rs"]
mod gateway;
mod ports;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;

use backend::{Backend, Folder, Identity, Issuer};
use gateway::{Answer, Gateway, exchange, secured, send};

const DRIVERS: [&str; 2] = ["auto", "epoll"];

fn driver(name: &str) -> String {
    format!("workers = 1\nio_driver = \"{name}\"")
}

fn endpoint(name: &str, url: &str, more: &str) -> String {
    format!(
        "[[discovery.static.endpoints]]\nname = \"{name}\"\nurl = \"{url}\"\n\
         type = \"openai-compatible\"\n{more}\n"
    )
}

/// Bytes that no two places of have the same neighbourhood.
fn large(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

/// An endpoint with a certificate of the given issuer, and the gateway in front that trusts it.
fn trusting(folder: &Folder, server: &str) -> (Backend, Gateway) {
    let issuer = Issuer::new("trusted");
    let backend = Backend::start(&issuer.issue(&["localhost", "127.0.0.1"]));
    let ca_file = folder.write("ca.pem", &issuer.pem());
    let more = format!("tls.ca_file = \"{ca_file}\"");
    let endpoint = endpoint("gpu-1", &backend.url("localhost"), &more);
    let gateway = Gateway::start(folder, &endpoint, server);
    (backend, gateway)
}

#[test]
fn an_https_endpoint_works_on_every_driver() {
    for name in DRIVERS {
        let folder = Folder::new(&format!("works-{name}"));
        let (backend, gateway) = trusting(&folder, &driver(name));
        let answer = gateway.post("/echo", b"hello");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
        assert!(answer.head.contains("X-Olla-Endpoint: gpu-1"));
        let answer = gateway.post("/v1/chat/completions", br#"{"model":"m1"}"#);
        assert_eq!(answer.status(), 200, "its models were listed: {answer:?}");
        let seen = &backend.seen;
        let name = seen.server_name.lock().unwrap().clone();
        assert_eq!(name.as_deref(), Some("localhost"));
        let alpn = seen.alpn.lock().unwrap().clone();
        assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn secured_connections_are_used_again() {
    let folder = Folder::new("reuse");
    let (backend, gateway) = trusting(&folder, &driver("auto"));
    assert_eq!(gateway.post("/echo", b"first").status(), 200);
    let before = backend.seen.requests.load(Ordering::SeqCst);
    let connections = backend.seen.connections.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(gateway.post("/echo", b"again").text(), "again");
    }
    let requests = backend.seen.requests.load(Ordering::SeqCst) - before;
    let fresh = backend.seen.connections.load(Ordering::SeqCst) - connections;
    assert!(requests >= 20);
    assert!(
        requests - fresh >= 20,
        "{fresh} connections for {requests} requests"
    );
}

#[test]
fn large_bodies_pass_both_ways_on_every_driver() {
    for name in DRIVERS {
        let folder = Folder::new(&format!("large-{name}"));
        let (_backend, gateway) = trusting(&folder, &driver(name));
        for len in [16 << 10, 64 << 10, 5 << 20] {
            let body = large(len);
            let answer = gateway.post("/echo", &body);
            assert!(answer.whole && answer.body == body, "{name} {len}");
        }
    }
}

#[test]
fn answers_end_where_their_framing_says() {
    for name in DRIVERS {
        let folder = Folder::new(&format!("ends-{name}"));
        let (_backend, gateway) = trusting(&folder, &driver(name));
        let stream = gateway.post("/stream", b"{}");
        let events: String = (0..20).map(|event| format!("data: {event}\n\n")).collect();
        assert_eq!((stream.text(), stream.whole), (events, true));
        let closed = gateway.post("/to-close", b"{}");
        assert_eq!((closed.text().as_str(), closed.whole), ("all of it", true));
        // An end that nobody has announced may be anybody's.
        let cut = gateway.post("/cut-to-close", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("all of it", false));
        let cut = gateway.post("/cut", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("not all of it", false));
    }
}

/// The gateway in front of one endpoint that it cannot like, and what it answers the first request.
fn refused(folder: &Folder, url: &str, more: &str) -> (Gateway, Answer) {
    let endpoint = endpoint("gpu-1", url, more);
    let gateway = Gateway::start(folder, &endpoint, &driver("auto"));
    let answer = gateway.post("/echo", b"{}");
    (gateway, answer)
}

#[test]
fn a_certificate_that_does_not_hold_makes_the_endpoint_offline() {
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
        let folder = Folder::new(word);
        let ca_file = folder.write("ca.pem", &trusted.pem());
        let backend = Backend::start(&identity);
        let more = format!("tls.ca_file = \"{ca_file}\"");
        let (mut gateway, _) = refused(&folder, &backend.url("localhost"), &more);
        gateway.wait_for_all(&["gpu-1", "\"to\":\"offline\"", word]);
        let answer = gateway.post("/echo", b"{}");
        assert_eq!(answer.status(), 503, "{word} {answer:?}");
        assert!(answer.text().contains("NO_HEALTHY_ENDPOINTS"), "{answer:?}");
        assert_eq!(backend.seen.requests.load(Ordering::SeqCst), 0, "{word}");
    }
}

#[test]
fn a_request_that_meets_a_bad_certificate_is_told_which() {
    // Checks go elsewhere and succeed, so the request is the first to meet it.
    let (trusted, stranger) = (Issuer::new("trusted"), Issuer::new("stranger"));
    let healthy = Backend::start(&trusted.issue(&["localhost"]));
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
        let folder = Folder::new(&format!("told-{word}"));
        let ca_file = folder.write("ca.pem", &trusted.pem());
        let backend = Backend::start(&identity);
        let more = format!(
            "tls.ca_file = \"{ca_file}\"\nhealth_check_url = \"{0}/\"\nmodel_url = \"{0}/\"\n\
             check_interval = \"1h\"",
            healthy.url("localhost")
        );
        let (mut gateway, answer) = refused(&folder, &backend.url("localhost"), &more);
        assert_eq!(answer.status(), 502, "{answer:?}");
        let text = answer.text();
        assert!(text.contains("BACKEND_ERROR"), "{text}");
        assert!(text.contains(sentence), "{text}");
        assert!(
            !text.contains("127.0.0.1") && !text.contains("localhost"),
            "{text}"
        );
        gateway.wait_for_all(&["request_id", "gpu-1", word]);
        assert_eq!(
            gateway.post("/echo", b"{}").status(),
            503,
            "it is offline now"
        );
    }
}

#[test]
fn verification_is_left_out_only_when_asked_and_said() {
    let folder = Folder::new("skip");
    let backend = Backend::start(&Issuer::new("stranger").issue_until(&["elsewhere"], 2021));
    let more = "tls.insecure_skip_verify = true";
    let (mut gateway, answer) = refused(&folder, &backend.url("127.0.0.1"), more);
    assert_eq!(answer.status(), 200, "{answer:?}");
    gateway.wait_for_all(&["WARN", "not verified", "gpu-1"]);
    assert_eq!(
        *backend.seen.server_name.lock().unwrap(),
        None,
        "an address"
    );
}

#[test]
fn the_environment_adds_to_whom_the_system_trusts() {
    let issuer = Issuer::new("environment");
    let issued = (issuer.issue(&["localhost"]), issuer.pem());
    let own = Issuer::own_for_localhost();
    let named = own.certificate.clone();
    for (name, (identity, trusted)) in [("issued", issued), ("own", (own, named))] {
        let backend = Backend::start(&identity);
        let folder = Folder::new(&format!("environment-{name}"));
        let file = folder.write("own.pem", &trusted);
        let endpoint = endpoint("gpu-1", &backend.url("localhost"), "");
        let env = [("SSL_CERT_FILE", file.as_str())];
        let mut gateway = Gateway::spawn(&folder, &endpoint, &driver("auto"), &env);
        gateway.wait_for("waiting for requests");
        assert_eq!(gateway.post("/echo", b"hello").text(), "hello", "{name}");
    }
}

#[test]
fn what_speaks_no_tls_is_said_to() {
    let folder = Folder::new("plain-backend");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let url = format!("https://localhost:{port}");
    let (mut gateway, _) = refused(&folder, &url, "");
    gateway.wait_for_all(&["gpu-1", "tls_not_spoken"]);
}

#[test]
fn a_handshake_has_its_time() {
    for name in DRIVERS {
        let folder = Folder::new(&format!("mute-{name}"));
        let issuer = Issuer::new("trusted");
        let healthy = Backend::start(&issuer.issue(&["localhost"]));
        // Connections are made, and nothing is ever said on them.
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
        let mut gateway = Gateway::start(&folder, &rest, &driver(name));
        let answer = gateway.post("/echo", b"{}");
        assert_eq!(answer.status(), 502, "{answer:?}");
        let sentence = "did not complete the TLS handshake in time";
        assert!(answer.text().contains(sentence), "{answer:?}");
        gateway.wait_for_all(&["gpu-1", "tls_timeout"]);
    }
}

#[test]
fn another_endpoint_serves_where_a_certificate_does_not_hold() {
    let (trusted, stranger) = (Issuer::new("trusted"), Issuer::new("stranger"));
    let folder = Folder::new("failover");
    let ca_file = folder.write("ca.pem", &trusted.pem());
    let good = Backend::start(&trusted.issue(&["localhost"]));
    let bad = Backend::start(&stranger.issue(&["localhost"]));
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
    let mut gateway = Gateway::start(&folder, &rest, &driver("auto"));
    // A request goes to whoever is known to be well, which may be one of them at first.
    gateway.wait_for_healthy(2);
    let answer = gateway.post("/echo", b"hello");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert!(answer.head.contains("X-Olla-Endpoint: good"), "{answer:?}");
    gateway.wait_for_all(&["\"endpoint\":\"bad\"", "tls_unknown_issuer"]);
}

#[test]
fn unusable_files_refuse_to_start() {
    let folder = Folder::new("files");
    let identity = Issuer::new("x").issue(&["localhost"]);
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let other = folder.write("other.pem", &Issuer::new("y").issue(&["localhost"]).key);
    let empty = folder.write("empty.pem", "");
    let tls = |certificate: &str, key: &str| {
        format!("tls.cert_file = \"{certificate}\"\ntls.key_file = \"{key}\"")
    };
    let ca_file = format!("tls.ca_file = \"{empty}\"");
    let table = [
        (
            endpoint("e", "https://h", &ca_file),
            String::new(),
            "ca_file",
        ),
        (String::new(), tls(&empty, &key), "cert_file"),
        (String::new(), tls(&certificate, &empty), "key_file"),
        (String::new(), tls(&certificate, &other), "key_file"),
        (String::new(), tls("/none/c.pem", &key), "cert_file"),
    ];
    for (rest, server, word) in table {
        let mut gateway = Gateway::spawn(&folder, &rest, &server, &[]);
        gateway.wait_for_all(&["ERROR", word]);
        assert_ne!(gateway.ended(), 0, "{word}");
    }
}

/// A gateway whose listener speaks TLS, in front of a TLS backend.
fn listening(folder: &Folder, identity: &Identity, driver_name: &str) -> (Backend, Gateway) {
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let server = format!(
        "{}\ntls.cert_file = \"{certificate}\"\ntls.key_file = \"{key}\"",
        driver(driver_name)
    );
    trusting(folder, &server)
}

#[test]
fn the_listener_speaks_tls_on_every_driver() {
    for name in DRIVERS {
        let folder = Folder::new(&format!("listener-{name}"));
        let issuer = Issuer::new("gateway");
        let (_backend, gateway) = listening(&folder, &issuer.issue(&["localhost"]), name);
        let pem = issuer.pem();
        let open = || secured(gateway.addr, &pem, &[b"h2", b"http/1.1"]).unwrap();
        let mut stream = open();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        for _ in 0..5 {
            send(&mut stream, "/echo", "", b"kept");
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\nkept") {
                let mut piece = [0; 512];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
                bytes.extend_from_slice(&piece[..count]);
            }
        }
        let events = exchange(&mut open(), "/stream", b"{}");
        assert!(events.whole && events.text().ends_with("data: 19\n\n"));
        let body = large(5 << 20);
        let answer = exchange(&mut open(), "/echo", &body);
        assert!(answer.whole && answer.body == body);
        let cut = exchange(&mut open(), "/cut-to-close", b"{}");
        assert_eq!((cut.text().as_str(), cut.whole), ("all of it", false));
        let no_alpn = secured(gateway.addr, &pem, &[]);
        assert_eq!(exchange(&mut no_alpn.unwrap(), "/echo", b"x").status(), 200);
        assert!(
            secured(gateway.addr, &pem, &[b"h2"]).is_err(),
            "only HTTP/1.1"
        );
    }
}

#[test]
fn plain_http_to_a_secured_listener_is_told() {
    let folder = Folder::new("plain-client");
    let identity = Issuer::new("gateway").issue(&["localhost"]);
    let (_backend, gateway) = listening(&folder, &identity, "auto");
    let answer = gateway.post("/echo", b"");
    assert_eq!(answer.status(), 400);
    assert!(
        answer.whole && answer.text().contains("https"),
        "{answer:?}"
    );
}

#[test]
fn a_client_that_does_not_shake_hands_is_given_up() {
    let folder = Folder::new("mute-client");
    let identity = Issuer::new("gateway").issue(&["localhost"]);
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let server = format!(
        "read_header_timeout = \"200ms\"\ntls.cert_file = \"{certificate}\"\n\
         tls.key_file = \"{key}\""
    );
    let (_backend, gateway) = trusting(&folder, &server);
    let mut mute = std::net::TcpStream::connect(gateway.addr).unwrap();
    let mut nothing = Vec::new();
    assert_eq!(mute.read_to_end(&mut nothing).unwrap_or(0), 0);
}

#[test]
fn certificates_are_read_again_without_a_restart() {
    let folder = Folder::new("reload");
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let (_backend, mut gateway) = listening(&folder, &old.issue(&["localhost"]), "auto");
    let mut before = secured(gateway.addr, &old.pem(), &[]).unwrap();
    let identity = new.issue(&["localhost"]);
    folder.write("cert.pem", &identity.certificate);
    gateway.reload();
    gateway.wait_for("Configuration not reloaded");
    assert!(
        secured(gateway.addr, &old.pem(), &[]).is_ok(),
        "a certificate without its key: the old one stays"
    );
    folder.write("key.pem", &identity.key);
    gateway.reload();
    gateway.wait_for("Configuration reloaded");
    assert!(secured(gateway.addr, &old.pem(), &[]).is_err());
    let mut after = secured(gateway.addr, &new.pem(), &[]).unwrap();
    assert_eq!(exchange(&mut after, "/echo", b"x").status(), 200);
    let kept = exchange(&mut before, "/echo", b"x");
    assert_eq!(kept.status(), 200, "connections made before go on");
}

#[test]
fn issuers_are_read_again_without_a_restart() {
    let folder = Folder::new("reload-ca");
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let backend = Backend::start(&new.issue(&["localhost"]));
    let ca_file = folder.write("ca.pem", &old.pem());
    let more =
        format!("tls.ca_file = \"{ca_file}\"\ncheck_interval = \"1s\"\ncheck_timeout = \"900ms\"");
    let endpoint = endpoint("gpu-1", &backend.url("localhost"), &more);
    let mut gateway = Gateway::start(&folder, &endpoint, &driver("auto"));
    gateway.wait_for_all(&["gpu-1", "tls_unknown_issuer"]);
    folder.write("ca.pem", &new.pem());
    gateway.reload();
    gateway.wait_for_all(&["gpu-1", "\"to\":\"healthy\""]);
    // The line is written just before the cores are told.
    let served = (0..1000).any(|_| gateway.post("/echo", b"hello").text() == "hello");
    assert!(served);
}

#[test]
fn a_backend_learns_that_the_client_came_over_tls() {
    let folder = Folder::new("proto");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}", plain.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let mut bytes = vec![0; 8 << 10];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&bytes[..count]);
        }
    });
    let issuer = Issuer::new("gateway");
    let identity = issuer.issue(&["localhost"]);
    let certificate = folder.write("cert.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let server = format!("tls.cert_file = \"{certificate}\"\ntls.key_file = \"{key}\"");
    let gateway = Gateway::start(&folder, &endpoint("gpu-1", &url, ""), &server);
    let mut stream = secured(gateway.addr, &issuer.pem(), &[]).unwrap();
    let answer = exchange(&mut stream, "/echo", b"");
    assert!(
        answer.text().contains("X-Forwarded-Proto: https"),
        "{answer:?}"
    );
}
