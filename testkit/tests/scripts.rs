//! Scripts of backends as a client sees them, and the binary as a program in another language
//! drives it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Backend, Client, Folder, Response, Script};

fn start(script: Value) -> (Backend, u16) {
    let script: Script = serde_json::from_value(script).unwrap();
    let backend = Backend::scripted(script);
    let port = backend.authority().rsplit(':').next().unwrap().parse();
    (backend, port.unwrap())
}

fn chat(port: u16, body: &Value) -> Response {
    let mut client = Client::to_port(port);
    let head = "POST /v1/chat/completions\r\nConnection: close";
    client.request(head, body.to_string().as_bytes()).response()
}

#[test]
fn a_model_responds_whole_or_as_a_stream() {
    let (backend, port) = start(json!({"models": ["m"], "output": {"text": ["a", "b", "c"]}}));
    let whole = chat(port, &json!({"model": "m"})).json();
    assert_eq!(whole["choices"][0]["message"]["content"], "abc");
    assert_eq!(whole["usage"]["completion_tokens"], 3);
    let stream = chat(port, &json!({"model": "m", "stream": true}));
    assert_eq!(stream.header("Content-Type"), Some("text/event-stream"));
    assert!(stream.whole && stream.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(chat(port, &json!({"model": "other"})).status, 404);
    assert_eq!(backend.count(), 3);
    let mut client = Client::to_port(port);
    let models = client.request("GET /v1/models", b"").response().json();
    assert_eq!(models["data"][0]["id"], "m");
    assert_eq!(backend.count(), 3, "listings are not recorded");
}

#[test]
fn rules_apply_in_order_and_as_often_as_they_say() {
    let busy = json!({"status": 503, "body": "busy"});
    let limited = json!({"status": 429, "headers": {"Retry-After": "1"}});
    let (_backend, port) = start(json!({"models": ["m"], "rules": [
        {"path": "/v1/chat/*", "times": 2, "then": [{"respond": busy}]},
        {"model": "m", "times": 1, "then": [{"respond": limited}]},
    ]}));
    let responses: Vec<Response> = (0..5).map(|_| chat(port, &json!({"model": "m"}))).collect();
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [503, 503, 429, 200, 200]);
    assert_eq!(responses[0].text(), "busy");
    assert_eq!(responses[2].header("Retry-After"), Some("1"));
}

#[test]
fn faults_reach_the_client() {
    let one = |then: Value| start(json!({"models": ["m"], "rules": [{"then": then}]}));
    for fault in ["close", "reset"] {
        let (_backend, port) = one(json!([fault]));
        let mut client = Client::to_port(port);
        client.request("POST /v1/chat/completions", b"{}");
        assert!(client.try_head().is_none(), "{fault}");
    }
    let (_backend, port) = one(json!(["hang"]));
    let mut client = Client::to_port(port);
    client.request("POST /v1/chat/completions", b"{}");
    assert!(client.is_silent_for(Duration::from_millis(100)));
    let body = json!({"model": "m", "stream": true});
    let (_backend, port) = one(json!([{"generate": {"cut_after": 2}}]));
    let cut = chat(port, &body);
    assert!(!cut.whole);
    assert_eq!(cut.text().matches("data: ").count(), 2);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let (_backend, port) = one(json!([{"send": head}, {"send_hex": "00ff7f"}]));
    assert_eq!(chat(port, &body).body, [0, 0xff, 0x7f]);
}

#[test]
fn a_misspelt_script_is_refused() {
    for (script, what) in [
        (json!({"modles": []}), "modles"),
        (json!({"rules": [{"then": ["explode"]}]}), "explode"),
        (
            json!({"rules": [{"then": [{"send_hex": "0"}]}]}),
            "hexadecimal",
        ),
        (json!({"apis": ["grpc"]}), "grpc"),
    ] {
        let error = serde_json::from_value::<Script>(script).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// The binary with its pipes. The end of its input ends it.
struct Driven {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Driven {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_testkit"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        Self {
            child,
            input,
            output,
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn command(&mut self, command: &Value) -> Value {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.line()
    }

    fn end(mut self) -> Option<i32> {
        self.input = None;
        self.child.wait().unwrap().code()
    }
}

#[test]
fn the_binary_runs_backends_until_its_input_ends() {
    let folder = Folder::new();
    let script = json!([
        {"name": "a", "models": ["m"]},
        {"name": "b", "models": ["m"], "health": 500},
    ]);
    let file = folder.write("script.json", &script.to_string());
    let mut driven = Driven::start(&["backend", "--script", &file]);
    let described = driven.line();
    assert_eq!(described["backends"][1]["name"], "b");
    let port = described["backends"][0]["port"].as_u64().unwrap() as u16;
    assert_eq!(chat(port, &json!({"model": "m"})).status, 200);
    let seen = driven.command(&json!({"do": "seen", "backend": "a"}));
    assert_eq!(seen["seen"][0]["target"], "/v1/chat/completions");
    assert_eq!(seen["seen"][0]["body"], r#"{"model":"m"}"#);
    let ok = json!({"ok": true});
    assert_eq!(driven.command(&json!({"do": "stop", "backend": "a"})), ok);
    assert!(Client::try_to_port(port).is_none());
    let restart = json!({"do": "restart", "backend": "a"});
    assert_eq!(driven.command(&restart), ok);
    let rule = json!({"then": [{"respond": {"status": 418}}]});
    let script = json!({"models": ["m"], "rules": [rule]});
    let command = json!({"do": "script", "backend": "a", "script": script});
    assert_eq!(driven.command(&command), ok);
    assert_eq!(chat(port, &json!({"model": "m"})).status, 418);
    let unknown = driven.command(&json!({"do": "count", "backend": "c"}));
    assert!(unknown["error"].as_str().unwrap().contains("\"c\""));
    assert_eq!(driven.end(), Some(0));
    assert!(Client::try_to_port(port).is_none());
}

#[test]
fn the_binary_holds_ports_and_refuses_what_it_does_not_know() {
    let mut driven = Driven::start(&["port", "3"]);
    let ports = driven.line()["ports"].as_array().unwrap().clone();
    assert_eq!(ports.len(), 3);
    assert_ne!(ports[0], ports[1]);
    assert_eq!(driven.end(), Some(0));
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_testkit"))
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    let (code, error) = run(&["port", "many"]);
    assert!(code == Some(2) && error.contains("got \"many\""), "{error}");
    assert_eq!(run(&["prot"]).0, Some(2));
    let folder = Folder::new();
    let file = folder.write("script.json", r#"{"modles": []}"#);
    let (code, error) = run(&["backend", "--script", &file]);
    assert!(code == Some(1) && error.contains("modles"), "{error}");
}
