use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::*;
use crate::providers::{Profiles, parse_listing};

fn exchange(backend: &Backend, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(backend.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn get(backend: &Backend, path: &str) -> (String, String) {
    exchange(
        backend,
        &format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n"),
    )
}

fn post(backend: &Backend, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: demo\r\nContent-Length: {length}\r\n\r\n");
    exchange(backend, &(head + body))
}

#[test]
fn every_endpoint_lists_its_models_as_its_profile_reads_them() {
    let demo = Demo::start().unwrap();
    let profiles = Profiles::builtin();
    for backend in &demo.backends {
        let profile = profiles.get(backend.dialect.provider()).unwrap();
        let (head, _) = get(backend, &profile.health_path);
        assert!(head.starts_with("HTTP/1.1 200"), "{}: {head}", backend.name);
        let (_, body) = get(backend, &profile.discovery_path);
        let listed = parse_listing(profile.parser, body.as_bytes()).unwrap();
        let names: Vec<&str> = listed.iter().map(|model| &*model.name).collect();
        assert_eq!(names, backend.models, "{}", backend.name);
    }
}

#[test]
fn completions_have_words_and_usage_in_each_form() {
    let demo = Demo::start().unwrap();
    let backend = &demo.backends[0];
    let chat = |more: &str| {
        format!(
            r#"{{"model":"{SHARED_MODEL}","max_tokens":3,{more}
                "messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let (_, body) = post(backend, "/v1/chat/completions", &chat(""));
    let completion: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(completion["usage"]["completion_tokens"], 3);
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    let (head, body) = post(backend, "/v1/chat/completions", &chat(r#""stream":true,"#));
    assert!(head.contains("text/event-stream"));
    assert_eq!(body.matches("data: {").count(), 4);
    assert!(body.contains("data: [DONE]") && body.ends_with("0\r\n\r\n"));
    let (_, body) = post(backend, "/api/chat", &chat(""));
    assert!(
        body.contains(r#""done":true"#) && body.contains(r#""eval_count":3"#),
        "{body}"
    );
    let (head, _) = post(backend, "/v1/chat/completions", r#"{"model":"no-such"}"#);
    assert!(head.starts_with("HTTP/1.1 404"));
    let (head, _) = post(backend, "/v1/messages", "{}");
    assert!(head.starts_with("HTTP/1.1 404"));
}

#[test]
fn an_endpoint_stops_when_its_client_disconnects() {
    let demo = Demo::start().unwrap();
    let backend = demo
        .backends
        .iter()
        .find(|b| b.dialect == BackendKind::LlamaCpp)
        .unwrap();
    let body = format!(r#"{{"model":"{SHARED_MODEL}","stream":true,"prompt":"hi"}}"#);
    let mut stream = TcpStream::connect(backend.address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nHost: demo\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut first = [0; 64];
    assert!(stream.read(&mut first).unwrap() > 0);
    drop(stream);
    let limit = Instant::now() + Duration::from_secs(10);
    while get(backend, "/slots").1.contains(r#""is_processing":true"#) {
        assert!(Instant::now() < limit, "it generates without a client");
        std::thread::yield_now();
    }
}

#[test]
fn the_configuration_is_valid() {
    use crate::config::{ConfigInputs, Env, FileFormat, NameFilter, plan_from_str};
    let demo = Demo::start().unwrap();
    let types = Profiles::builtin().type_names();
    let admits = |_: &NameFilter, _: &str| true;
    let env = Env::default();
    let inputs = ConfigInputs {
        env: &env,
        cwd: std::path::Path::new("."),
        types: &types,
        admits: &admits,
    };
    let loaded = plan_from_str(&demo.config_toml(40114), FileFormat::Toml, None, &inputs);
    assert_eq!(loaded.findings, []);
    assert_eq!(loaded.plan.unwrap().discovery.endpoints.len(), 4);
    let guide = demo.guide("http://localhost:40114");
    assert!(guide.contains("curl http://localhost:40114/olla/models"));
}
