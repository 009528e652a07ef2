//! `olla demo` as a newcomer runs it.

use testkit::{Client, PATIENCE, Process, program, reserve};

#[test]
fn the_demo_shows_requests_failures_and_recoveries_and_no_warning() {
    let port = reserve().port();
    let number = port.to_string();
    let mut demo = Process::start(&program("olla"), &["demo", "--port", &number], &[]);
    demo.wait_line(&["Requests and endpoints:"]);
    let body = r#"{"model":"chat","max_tokens":2,"messages":[]}"#;
    let head = "POST /olla/openai/v1/chat/completions\r\nContent-Type: application/json";
    let mut client = Client::to_port(port);
    let response = client.request(head, body.as_bytes()).response();
    assert_eq!(response.status, 200, "{}", response.text());
    demo.wait_line(&["POST /olla/openai/v1/chat/completions", "200 in"]);
    demo.wait_line(&["llamacpp-attic failed: healthy -> offline"]);
    demo.wait_line(&["llamacpp-attic recovered: offline -> healthy"]);
    demo.signal("INT");
    assert_eq!(demo.wait_end(PATIENCE).code(), Some(0));
    let output = demo.log();
    for level in ["WARN", "ERROR", "warning"] {
        assert!(!output.contains(level), "{output}");
    }
}
