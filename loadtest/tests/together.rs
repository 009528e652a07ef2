//! The tools against each other, as processes, on free ports: what a measurement stands on.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::tls::{Identity, TlsBackend};
use testkit::{Client, Process, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_olla-loadtest");

/// A tool that serves, until it is dropped.
struct Server {
    process: Process,
    addr: String,
}

impl Server {
    /// Starts the tool and waits for the line with its address.
    fn start(arguments: &[&str]) -> Self {
        let process = Process::start(Path::new(PROGRAM), arguments, &[]);
        let line = process.wait_line(&["listening on "]);
        let addr = line.strip_prefix("listening on ").unwrap().to_owned();
        Self { process, addr }
    }

    fn chat_url(&self) -> String {
        format!("http://{}/v1/chat/completions", self.addr)
    }

    fn counters(&self) -> Value {
        let (_, port) = self.addr.rsplit_once(':').unwrap();
        let mut client = Client::to_port(port.parse().unwrap());
        client.request("GET /stub/counters", b"").response().json()
    }
}

/// Starts a client that prints its report on standard output.
fn client(tool: &str, url: &str, more: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args([tool, "--url", url, "--json", "-"]).args(more);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for a client; its report, and whether it called that a success.
fn report(client: Child) -> (Value, bool) {
    let output = client.wait_with_output().unwrap();
    (
        serde_json::from_slice(&output.stdout).unwrap(),
        output.status.success(),
    )
}

#[test]
fn every_answer_reaches_its_own_client() {
    let stub = Server::start(&["stub"]);
    let relay = Server::start(&["relay", "--to", &stub.addr]);
    let epoll_relay = Server::start(&["relay", "--to", &stub.addr, "--driver", "epoll"]);
    for server in [&stub, &relay, &epoll_relay] {
        for body_bytes in ["0", "300", "1000000"] {
            let more = [
                "--requests",
                "50",
                "--connections",
                "5",
                "--nonce",
                "--body-bytes",
                body_bytes,
            ];
            let (report_json, success) = report(client("chat", &server.chat_url(), &more));
            assert!(success, "{report_json}");
            assert_eq!(report_json["answers"], 50, "{report_json}");
            assert_eq!(report_json["statuses"]["200"], 50, "{report_json}");
            assert_eq!(
                report_json["failures"].as_object().map(|kinds| kinds.len()),
                Some(0),
                "{report_json}"
            );
            assert_eq!(report_json["nonces_wrong"], 0, "{report_json}");
        }
    }
    let counters = stub.counters();
    assert_eq!(counters["requests"]["/v1/chat/completions"], 450);
    // Three connections for each run would do; none has more than five.
    assert!(
        counters["connections_accepted"].as_u64().unwrap() <= 46,
        "{counters}"
    );
}

#[test]
fn every_event_arrives_once_and_in_order() {
    let stub = Server::start(&["stub"]);
    let relay = Server::start(&["relay", "--to", &stub.addr]);
    for server in [&stub, &relay] {
        let more = [
            "--streams",
            "20",
            "--events",
            "10",
            "--gap-ms",
            "5",
            "--rounds",
            "2",
            "--ramp-ms",
            "10",
        ];
        let (report_json, success) = report(client("sse", &server.chat_url(), &more));
        assert!(success, "{report_json}");
        assert_eq!(report_json["streams_completed"], 40, "{report_json}");
        assert_eq!(report_json["events"], 400, "{report_json}");
        assert_eq!(report_json["delay_us"]["count"], 400, "{report_json}");
        assert_eq!(report_json["gap_us"]["count"], 360, "{report_json}");
        assert_eq!(report_json["first_event_us"]["count"], 40, "{report_json}");
    }
    let counters = stub.counters();
    assert_eq!(counters["streams_completed"], 80);
    assert_eq!(counters["streams_in_flight"], 0);
}

#[test]
fn a_fault_is_reported_by_its_kind() {
    let stub = Server::start(&["stub"]);
    let table = [
        ("reset", "failures", "reset"),
        ("close", "failures", "closed_early"),
        ("hang", "failures", "timeout"),
        ("cut", "failures", "truncated"),
        ("bad_chunk", "failures", "malformed"),
        ("status_500", "statuses", "500"),
    ];
    for (fault, list, kind) in table {
        let field = format!(r#"{{"events":4,"gap_ms":1,"fault":"{fault}"}}"#);
        let chat = [
            "--requests",
            "3",
            "--connections",
            "1",
            "--timeout-ms",
            "100",
            "--stub",
            &field,
        ];
        let (report_json, _) = report(client("chat", &stub.chat_url(), &chat));
        assert_eq!(report_json[list][kind], 3, "{fault}: {report_json}");
        let sse = [
            "--streams",
            "3",
            "--ramp-ms",
            "0",
            "--timeout-ms",
            "100",
            "--stub",
            &field,
        ];
        let (report_json, success) = report(client("sse", &stub.chat_url(), &sse));
        assert_eq!(report_json[list][kind], 3, "{fault}: {report_json}");
        assert!(!success, "{fault}: {report_json}");
    }
}

#[test]
fn an_open_loop_keeps_its_schedule_and_counts_the_waiting() {
    let stub = Server::start(&["stub"]);
    // One connection and 20 ms for each response cannot carry 100 requests in a second.
    let more = [
        "--connections",
        "1",
        "--rate",
        "100",
        "--requests",
        "20",
        "--stub",
        r#"{"delay_ms":20}"#,
    ];
    let (report_json, success) = report(client("chat", &stub.chat_url(), &more));
    assert!(success, "{report_json}");
    assert_eq!(report_json["answers"], 20, "{report_json}");
    let us = |name: &str| report_json[name]["max"].as_f64().unwrap();
    // The last was due at 190 ms and sent after 19 responses, at 380 ms at the earliest.
    assert!(us("latency_us") >= 200_000.0, "{report_json}");
    assert!(us("latency_us") > us("service_us"), "{report_json}");
}

#[test]
fn a_run_survives_a_restart_of_the_server() {
    let mut first = Server::start(&["stub"]);
    let addr = first.addr.clone();
    let more = [
        "--connections",
        "4",
        "--duration",
        "1.5",
        "--nonce",
        "--stub",
        r#"{"delay_ms":1}"#,
    ];
    let running = client("chat", &first.chat_url(), &more);
    wait_until("requests before the restart", || {
        first.counters()["requests"]["/v1/chat/completions"].as_u64() >= Some(20)
    });
    first.process.kill();
    let second = Server::start(&["stub", "--listen", &addr]);
    let (report_json, success) = report(running);
    assert!(success, "{report_json}");
    assert_eq!(report_json["nonces_wrong"], 0, "{report_json}");
    assert_ne!(
        report_json["failures"].as_object().map(|kinds| kinds.len()),
        Some(0),
        "{report_json}"
    );
    let after = second.counters()["requests"]["/v1/chat/completions"]
        .as_u64()
        .unwrap();
    assert!(after > 0, "no request after the restart: {report_json}");
}

#[test]
fn with_tls_every_answer_reaches_its_own_client_and_every_handshake_is_a_whole_one() {
    // The response is of the request's length, so that both take more than a TLS record.
    let backend = TlsBackend::new(&Identity::self_signed(), &["m"], |request, link| {
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        let text = "x".repeat(request.body.len());
        let body = json!({"nonce": sent["nonce"], "text": text}).to_string();
        let close = match request.header("Connection") {
            Some("close") => "Connection: close\r\n",
            _ => "",
        };
        let length = body.len();
        link.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{close}\r\n{body}"
        ));
        if !close.is_empty() {
            link.close();
        }
    });
    let url = backend.url("127.0.0.1");
    let mut handshakes = 0;
    for (body_bytes, header, more) in [
        ("300", "X: y", 3),
        ("1000000", "X: y", 3),
        ("300", "Connection: close", 30),
    ] {
        let options = [
            "--nonce",
            "--requests",
            "30",
            "--connections",
            "3",
            "--header",
            header,
        ];
        let options = [&options[..], &["--body-bytes", body_bytes]].concat();
        let (report_json, success) = report(client("chat", &url, &options));
        assert!(success, "{report_json}");
        assert_eq!(report_json["answers"], 30, "{report_json}");
        assert_eq!(report_json["failures"], json!({}), "{report_json}");
        handshakes += more;
        assert_eq!(backend.handshakes().len(), handshakes, "{report_json}");
    }
}

#[test]
fn a_server_without_tls_is_a_failure_of_tls() {
    let stub = Server::start(&["stub"]);
    let url = stub.chat_url().replace("http:", "https:");
    let more = ["--requests", "2", "--connections", "1"];
    let (report_json, success) = report(client("chat", &url, &more));
    assert!(!success, "{report_json}");
    assert_eq!(report_json["failures"]["tls"], 2, "{report_json}");
}

#[test]
fn idle_connections_are_held_until_the_input_ends() {
    let stub = Server::start(&["stub"]);
    let mut command = Command::new(PROGRAM);
    command.args(["idle", "--url", &stub.chat_url(), "--json", "-"]);
    command.args(["--connections", "50", "--at-once", "4"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holding = command.spawn().unwrap();
    let mut output = BufReader::new(holding.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "holding 50\n");
    // The connection that asks is one more.
    assert_eq!(stub.counters()["connections_open"], 51);
    drop(holding.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let report_json: Value = serde_json::from_str(&rest).unwrap();
    assert!(holding.wait().unwrap().success(), "{report_json}");
    assert_eq!(report_json["open"], 50, "{report_json}");
    assert_eq!(report_json["statuses"]["200"], 50, "{report_json}");
}

#[test]
fn long_events_arrive_whole() {
    let stub = Server::start(&["stub"]);
    let field = r#"{"events":3,"gap_ms":1,"event_bytes":100000}"#;
    let more = [
        "--streams",
        "2",
        "--events",
        "3",
        "--ramp-ms",
        "0",
        "--stub",
        field,
    ];
    let (report_json, success) = report(client("sse", &stub.chat_url(), &more));
    assert!(success, "{report_json}");
    assert_eq!(report_json["events"], 6, "{report_json}");
}
