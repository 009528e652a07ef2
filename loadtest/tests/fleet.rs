//! Simulated engines and their users, as processes, on free ports.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{Client, Folder, Process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_olla-loadtest");

/// Two engines of a kind with one slot each, and users whose whole prompts are cached blocks.
fn scenario(kind: &str, more: &str) -> String {
    format!(
        r#"{{"seconds":2,"engines":[{{"count":2,"kind":"{kind}","models":["a","b"],"slots":1,
        "prefill_tps":64000,"decode_ms":1,"cache_tokens":64000{more}}}],
        "load":[{{"name":"chat","key":"x","models":["a"],"users":3,"rounds":3,"think_ms":5,
        "groups":1,"system_tokens":320,"user_tokens":32,"output_tokens":16}}]}}"#
    )
}

/// The engines, until they are dropped, and the folder with their files.
struct Fleet {
    folder: Folder,
    _process: Process,
    addr: String,
}

impl Fleet {
    fn start(scenario: &str) -> Self {
        let folder = Folder::new();
        let scenario = folder.write("scenario.json", scenario);
        let addresses = folder.file("engines.json").display().to_string();
        let arguments = ["fleet", "--scenario", &scenario, "--addresses", &addresses];
        let process = Process::start(Path::new(PROGRAM), &arguments, &[]);
        let line = process.wait_line(&["listening on "]);
        let addr = line.strip_prefix("listening on ").unwrap().to_owned();
        Self {
            folder,
            _process: process,
            addr,
        }
    }

    fn client(&self) -> Client {
        let (_, port) = self.addr.rsplit_once(':').unwrap();
        Client::to_port(port.parse().unwrap())
    }

    /// The report of people who talk to the first engine without a gateway.
    fn people(&self) -> Value {
        let path = |name: &str| self.folder.file(name).display().to_string();
        let mut command = Command::new(PROGRAM);
        command.args([
            "people",
            "--scenario",
            &path("scenario.json"),
            "--json",
            "-",
        ]);
        command.args(["--target", &self.addr, "--path", "/v1/chat/completions"]);
        command.args(["--engines", &path("engines.json")]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn people_and_engines_count_alike() {
    let fleet = Fleet::start(&scenario("vllm", ""));
    let report = fleet.people();
    let chat = &report["loads"]["chat"];
    let (one, other) = (&report["engines"][0], &report["engines"][1]);
    assert!(chat["requests"].as_u64() > Some(10), "{report}");
    assert_eq!(
        (&chat["failed"], &chat["unfinished"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    for name in [
        "requests",
        "completed",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
    ] {
        assert_eq!(chat[name], one[name], "{name}: {report}");
    }
    assert_eq!(other["requests"], 0);
    // The system prompt is the same for all, and each turn begins with the turns before.
    assert!(chat["hit_share"].as_f64() > Some(0.7), "{report}");
    // Prefill takes 2 ms, then an output of 16 tokens takes 15 ms.
    let us = |times: &str, quantile: &str| chat[times][quantile].as_f64().unwrap();
    assert!(
        us("end_to_end_us", "p50") - us("first_token_us", "p50") > 10_000.0,
        "{report}"
    );
    // Three users and one slot: something waits, and half of the two slots is in use.
    let busy = report["busy_while_waiting"]["share"].as_f64().unwrap();
    assert!((0.3..=0.5).contains(&busy), "{report}");
}

#[test]
fn a_response_comes_whole_or_in_events_and_says_what_was_cached() {
    let fleet = Fleet::start(&scenario("llamacpp", ""));
    let mut client = fleet.client();
    let prompt = "x".repeat(1000);
    let body = format!(
        r#"{{"model":"b","max_tokens":7,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    let first = client
        .request("POST /v1/chat/completions", body.as_bytes())
        .response()
        .json();
    assert_eq!(
        first["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .len(),
        28
    );
    assert_eq!(first["usage"]["completion_tokens"], 7);
    let stream = body.replacen('{', r#"{"stream":true,"#, 1);
    let second = client
        .request("POST /v1/chat/completions", stream.as_bytes())
        .response();
    let text = second.text();
    assert_eq!(text.matches("\"content\":").count(), 5, "{text}");
    assert!(text.contains(r#""timings":{"cache_n":224,"#), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn a_model_that_is_not_loaded_is_refused_until_it_is() {
    let more = r#","loaded_max":1,"load_ms":50,"refuse_while_loading":true"#;
    let fleet = Fleet::start(&scenario("llamacpp", more));
    let mut client = fleet.client();
    let body = br#"{"model":"a","max_tokens":1,"messages":[]}"#;
    let first = client.request("POST /v1/chat/completions", body).response();
    assert_eq!(
        (first.status, &first.json()["error"]["message"]),
        (503, &"Loading model".into())
    );
    testkit::wait_until("the model is loaded", || {
        client
            .request("POST /v1/chat/completions", body)
            .response()
            .status
            == 200
    });
    let stats = client.request("GET /fleet/stats", b"").response().json();
    assert_eq!(stats["loads"], 1);
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let fleet = Fleet::start(&scenario("vllm", ""));
    let body = br#"{"model":"a","stream":true,"max_tokens":1000000,"messages":[]}"#;
    let running = |want: &str| {
        let page = fleet.client().request("GET /metrics", b"").response();
        page.text()
            .contains(&format!("running{{engine=\"0\",model_name=\"a\"}} {want}"))
    };
    let mut client = fleet.client();
    client.request("POST /v1/chat/completions", body);
    testkit::wait_until("the request runs", || running("1.0"));
    drop(client);
    testkit::wait_until("the slot is free", || running("0.0"));
}
