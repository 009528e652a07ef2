//! What the pages show of slots, the queue and predictions.
//!
//! Contract: docs/contract/scheduling.md#8, docs/contract/observe.md#1

use std::sync::{Mutex, mpsc};

use testkit::{
    Backend, Client, Config, Driver, Gateway, PATIENCE, endpoint, get, on_both_drivers, wait_until,
};

const PATH: &str = "POST /olla/openai/v1/chat/completions";

fn chat(model: &str, words: usize) -> Vec<u8> {
    let text = "word ".repeat(words);
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]}}"#)
        .into_bytes()
}

/// A backend that responds when it is told to, and what tells it.
fn patient() -> (Backend, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let backend = Backend::new(&["m"], move |_, link| {
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        link.ok();
    });
    (backend, tell)
}

fn start(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let endpoints = endpoint("one", "vllm", backend, "max_concurrent = 1");
    Gateway::start(&Config::new(driver).more(&endpoints).more(more))
}

#[test]
fn slots_and_the_queue_are_shown_while_requests_wait() {
    on_both_drivers(|driver| {
        let (backend, tell) = patient();
        let more = "[queue]\nmax_waiting = 2\n[model_aliases]\nshort = [\"m\"]\n";
        let gateway = start(driver, &backend, more);
        let send = |model| {
            let mut client = Client::to(&gateway);
            client.request(PATH, &chat(model, 10));
            client
        };
        let mut clients = vec![send("m")];
        backend.wait_count(1);
        assert_eq!(
            gateway.metric(r#"olla_endpoint_slots{endpoint="one"}"#),
            Some(1.0)
        );
        for model in ["m", "short"] {
            clients.push(send(model));
            let waiting = format!("olla_queue_waiting{{model=\"{model}\"}}");
            wait_until("the request in the queue", || {
                gateway.metric(&waiting) == Some(1.0)
            });
        }
        // The queue is full.
        let refused = send("m").response();
        assert_eq!(refused.status, 503, "{}", refused.text());
        let rejected = r#"olla_queue_rejected_total{reason="max_waiting"}"#;
        wait_until("the refusal in the metrics", || {
            gateway.metric(rejected) == Some(1.0)
        });
        assert_eq!(
            gateway.metric(r#"olla_endpoint_running{endpoint="one"}"#),
            Some(1.0)
        );
        for page in ["/internal/status/endpoints", "/internal/status"] {
            let one = get(&gateway, page, &[]).json()["endpoints"][0].clone();
            let shown = ["slots", "running", "queued"].map(|name| one[name].as_u64());
            assert_eq!(shown, [Some(1), Some(1), Some(2)], "{page}");
            assert!(one.get("models_warm").is_none(), "vLLM does not say");
        }
        let scheduling = get(&gateway, "/internal/stats/latency", &[]).json()["scheduling"].clone();
        assert_eq!(scheduling["waiting"], 2);
        for _ in 0..3 {
            tell.send(()).unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200);
        }
        wait_until("the waits in the metrics", || {
            gateway.metric("olla_queue_wait_seconds_count") == Some(2.0)
        });
        assert_eq!(
            gateway.metric(r#"olla_queue_waiting{model="m"}"#),
            Some(0.0)
        );
        assert_eq!(
            gateway.metric(r#"olla_endpoint_running{endpoint="one"}"#),
            Some(0.0)
        );
        // Of a response that comes at once nothing is known but its end.
        let predicted = r#"olla_scheduler_predicted_ttft_seconds_count{model="m"}"#;
        assert_eq!(gateway.metric(predicted), None);
    });
}

#[test]
fn an_endpoint_without_a_limit_has_no_slots() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let config = Config::new(driver).more(&endpoint("one", "vllm", &backend, ""));
        let gateway = Gateway::start(&config);
        assert_eq!(
            gateway.metric(r#"olla_endpoint_slots{endpoint="one"}"#),
            None
        );
        assert!(gateway.endpoint("one")["slots"].is_null());
    });
}

#[test]
fn predictions_and_prefixes_of_streams_are_counted() {
    on_both_drivers(|driver| {
        let events = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\
                      \"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":900}}}\n\n\
                      data: [DONE]\n\n";
        let backend = Backend::new(&["m"], move |_, link| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream";
            let length = events.len();
            link.send(format!(
                "{head}\r\nContent-Length: {length}\r\n\r\n{events}"
            ));
        });
        let config = Config::new(driver).more(&endpoint("one", "vllm", &backend, ""));
        let gateway = Gateway::start(&config);
        let mut client = Client::to(&gateway);
        for sent in 1..=2 {
            let response = client.request(PATH, &chat("m", 1000)).response();
            assert_eq!(response.status, 200, "{}", response.text());
            let reported = || gateway.metric("olla_prefix_reported_tokens_total");
            wait_until("the cached tokens", || {
                reported() == Some(900.0 * f64::from(sent))
            });
        }
        let count = |name: &str| gateway.metric(name).unwrap();
        for name in ["predicted_ttft_seconds", "ttft_error_ratio"] {
            let name = format!("olla_scheduler_{name}_count{{model=\"m\"}}");
            assert_eq!(count(&name), 2.0, "{name}");
        }
        let (prompt, hit) = (
            count("olla_prefix_prompt_tokens_total"),
            count("olla_prefix_hit_tokens_total"),
        );
        assert!(prompt > 2000.0, "{prompt}");
        assert!(
            hit > 0.3 * prompt && hit < 0.5 * prompt,
            "the second one: {hit} of {prompt}"
        );
        // The belief is in the endpoint's own tokens, as the report is.
        let believed = count("olla_prefix_believed_tokens_total");
        assert!(believed > 600.0 && believed <= 1000.0, "{believed}");
        assert_eq!(count("olla_scheduler_samples_rejected_total"), 0.0);
        let warm = r#"olla_model_state{endpoint="one",model="m",state="warm"}"#;
        assert_eq!(count(warm), 1.0);
    });
}
