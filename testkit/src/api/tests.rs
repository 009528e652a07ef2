use super::*;

fn output(call: Option<(String, Value)>) -> Output {
    Output {
        model: "m".to_owned(),
        pieces: ["One", " two"].map(str::to_owned).into(),
        call,
        prompt_tokens: 5,
        completion_tokens: 2,
    }
}

fn request(path: &str, body: &Value) -> Received {
    Received {
        method: "POST".to_owned(),
        target: path.to_owned(),
        body: body.to_string().into_bytes(),
        ..Received::default()
    }
}

const ALL: [Api; 3] = [Api::Openai, Api::Ollama, Api::Anthropic];

fn generated(path: &str, body: &Value, call: Option<(String, Value)>) -> Generated {
    generate(&ALL, &request(path, body), |_| output(call)).unwrap()
}

fn whole(path: &str, body: &Value) -> Value {
    match generated(path, body, None) {
        Generated::Whole(text) => serde_json::from_str(&text).unwrap(),
        stream => panic!("{stream:?}"),
    }
}

/// The documents of a stream, without their framing.
fn stream(path: &str, body: &Value, call: Option<(String, Value)>) -> Vec<Value> {
    let Generated::Stream { events, .. } = generated(path, body, call) else {
        panic!("not a stream");
    };
    let text = events.concat();
    let documents = text
        .lines()
        .map(|line| line.strip_prefix("data: ").unwrap_or(line))
        .filter(|line| line.starts_with('{'));
    documents
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_route_generates_the_same_text() {
    let table = [
        ("/v1/chat/completions", "/choices/0/message/content"),
        ("/engines/v1/chat/completions", "/choices/0/message/content"),
        ("/v1/completions", "/choices/0/text"),
        ("/api/chat", "/message/content"),
        ("/api/generate", "/response"),
        ("/v1/messages", "/content/0/text"),
    ];
    for (path, pointer) in table {
        let body = json!({"model": "m", "stream": false});
        let value = whole(path, &body);
        assert_eq!(value.pointer(pointer), Some(&"One two".into()), "{path}");
        assert_eq!(value["model"], "m", "{path}");
    }
}

#[test]
fn the_pieces_of_a_stream_are_the_text() {
    let table = [
        ("/v1/chat/completions", "/choices/0/delta/content"),
        ("/v1/completions", "/choices/0/text"),
        ("/api/chat", "/message/content"),
        ("/api/generate", "/response"),
        ("/v1/messages", "/delta/text"),
    ];
    for (path, pointer) in table {
        let body = json!({"model": "m", "stream": true});
        let documents = stream(path, &body, None);
        let text: String = documents
            .iter()
            .filter_map(|document| document.pointer(pointer)?.as_str())
            .collect();
        assert_eq!(text, "One two", "{path}");
    }
}

#[test]
fn streams_close_with_the_token_counts() {
    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let openai = stream("/v1/chat/completions", &body, None);
    assert_eq!(openai.last().unwrap()["usage"]["completion_tokens"], 2);
    let without = stream("/v1/chat/completions", &json!({"stream": true}), None);
    assert!(without.iter().all(|chunk| chunk["usage"].is_null()));
    let ollama = stream("/api/chat", &json!({}), None);
    assert_eq!(ollama.last().unwrap()["eval_count"], 2);
    assert_eq!(ollama.iter().filter(|line| line["done"] == true).count(), 1);
    let anthropic = stream("/v1/messages", &json!({"stream": true}), None);
    assert_eq!(anthropic[0]["message"]["usage"]["input_tokens"], 5);
    let end = &anthropic[anthropic.len() - 2];
    assert_eq!(end["usage"]["output_tokens"], 2);
}

#[test]
fn tool_calls_have_the_form_of_the_api() {
    let call = || Some(("weather".to_owned(), json!({"city": "Paris"})));
    let body = json!({"stream": true});
    let openai = stream("/v1/chat/completions", &body, call());
    let function = &openai[0]["choices"][0]["delta"]["tool_calls"][0]["function"];
    assert_eq!(function["arguments"], r#"{"city":"Paris"}"#);
    assert_eq!(openai[1]["choices"][0]["finish_reason"], "tool_calls");
    let ollama = stream("/api/chat", &body, call());
    let function = &ollama[0]["message"]["tool_calls"][0]["function"];
    assert_eq!(function["arguments"]["city"], "Paris");
    let anthropic = stream("/v1/messages", &body, call());
    assert_eq!(anthropic[1]["content_block"]["name"], "weather");
    assert_eq!(anthropic[2]["delta"]["partial_json"], r#"{"city":"Paris"}"#);
}

#[test]
fn routes_belong_to_the_apis_offered() {
    let body = json!({"model": "m"});
    let offers =
        |api: Api, path: &str| generate(&[api], &request(path, &body), |_| output(None)).is_some();
    assert!(offers(Api::Openai, "/v1/embeddings"));
    assert!(!offers(Api::Openai, "/api/chat"));
    assert!(!offers(Api::Openai, "/v1/messages"));
    assert!(offers(Api::Ollama, "/v1/chat/completions"));
    assert!(offers(Api::Ollama, "/api/embed"));
    assert!(offers(Api::LmStudio, "/v1/chat/completions"));
    assert!(offers(Api::Anthropic, "/v1/messages"));
    assert!(!offers(Api::Anthropic, "/v1/chat/completions"));
}

#[test]
fn listings_have_what_is_known() {
    let models: Vec<Model> = serde_json::from_value(json!([
        "plain",
        {"name": "q", "family": "qwen3", "size": 5, "quantization": "Q4_0", "kind": "llm"},
        {"name": "r", "size": 5},
    ]))
    .unwrap();
    let tags = listing("/api/tags", &models).unwrap();
    assert_eq!(
        tags["models"][0],
        json!({"name": "plain", "model": "plain"})
    );
    assert_eq!(tags["models"][1]["details"]["quantization_level"], "Q4_0");
    let digest = |at: usize| tags["models"][at]["digest"].as_str().map(str::to_owned);
    assert_eq!(digest(1).map(|text| text.len()), Some(64));
    assert_ne!(digest(1), digest(2));
    let cards = listing("/engines/v1/models", &models).unwrap();
    assert_eq!(cards["data"][0], json!({"id": "plain", "object": "model"}));
    let lm_studio = listing("/api/v0/models", &models).unwrap();
    assert_eq!(lm_studio["data"][1]["arch"], "qwen3");
    assert_eq!(listing("/v1/other", &models), None);
    assert!(serde_json::from_value::<Model>(json!({"name": "x", "sise": 5})).is_err());
}
