//! Documents as servers send them, read as the built-in profiles say, and others that are none.

use proptest::prelude::*;

use super::*;
use crate::providers::Profiles;

/// 2026-01-01T00:00:00Z.
const NOW_MS: u64 = 1_767_225_600_000;

fn sources(profile: &str) -> SchedulingSources {
    let profiles = Profiles::builtin();
    profiles.get(profile).unwrap().scheduling.clone()
}

fn memory(profile: &str, body: &str) -> Result<MemoryReading, ReadingFault> {
    let source = sources(profile).memory.unwrap();
    parse_memory(&source, body.as_bytes(), NOW_MS)
}

/// A model with its residence and its context.
type Told = (&'static str, Residence, Option<u64>);

#[test]
fn lists_of_models_in_memory_are_read() {
    use Residence::{Absent, Loading, Present, Untold};
    let table: &[(&str, &str, &[Told])] = &[
        (
            "ollama",
            r#"{"models":[
                {"name":"gemma3:latest","model":"gemma3:latest","size":6591830464,
                 "expires_at":"2026-01-01T01:00:30.5+01:00","size_vram":1,"context_length":4096},
                {"model":"qwen3:8b","expires_at":"2318-04-23T00:00:00Z"}]}"#,
            &[
                ("gemma3:latest", Present, Some(4096)),
                ("qwen3:8b", Present, None),
                ("gemma3", Absent, None),
            ],
        ),
        (
            "ollama",
            r#"{"models":[]}"#,
            &[("gemma3:latest", Absent, None)],
        ),
        (
            "lm-studio",
            r#"{"data":[
                {"id":"a","state":"loaded","max_context_length":32768,"loaded_context_length":8192},
                {"id":"b","state":"not-loaded","max_context_length":32768},
                {"id":"c","state":"loading"}],"object":"list"}"#,
            &[
                ("a", Present, Some(8192)),
                ("b", Absent, None),
                ("c", Loading, None),
                ("d", Absent, None),
            ],
        ),
        (
            "llama-swap",
            r#"{"running":[{"model":"a","state":"ready","cmd":"x","proxy":"p","ttl":0},
                {"model":"b","state":"starting"},{"model":"c","state":"stopping"}]}"#,
            &[
                ("a", Present, None),
                ("b", Loading, None),
                ("c", Absent, None),
                ("d", Absent, None),
            ],
        ),
        (
            "llamacpp",
            r#"{"data":[{"id":"a","status":{"value":"loaded","args":["-c","1"]}},
                {"id":"b","status":{"value":"loading","args":[]}},
                {"id":"c","status":{"value":"unloaded","exit_code":1,"failed":true}},
                {"id":"d","status":{"value":"sleeping"}},
                {"id":"e","status":{}},{"id":"f","status":"loaded"}],"object":"list"}"#,
            &[
                ("a", Present, None),
                ("b", Loading, None),
                ("c", Absent, None),
                ("d", Absent, None),
                ("e", Untold, None),
                ("f", Untold, None),
            ],
        ),
        // Not started as a router.
        (
            "llamacpp",
            r#"{"data":[{"id":"a","meta":{"n_ctx":4096}}]}"#,
            &[("a", Untold, None), ("b", Untold, None)],
        ),
        // Two copies, and what is no model.
        (
            "lm-studio",
            r#"{"data":[{"id":"a","state":"loaded"},{"id":"a","state":"not-loaded"},3,
                {"state":"loaded"},{"id":"b","state":7},{"id":"c","state":"loaded",
                 "loaded_context_length":-5}]}"#,
            &[
                ("a", Present, None),
                ("b", Untold, None),
                ("c", Present, None),
            ],
        ),
    ];
    for (profile, body, models) in table {
        let reading = memory(profile, body).unwrap();
        for (name, residence, context) in *models {
            let model = reading.model(name);
            assert_eq!(model.residence, *residence, "{profile} {name}");
            assert_eq!(model.context, *context, "{profile} {name}");
        }
    }
}

#[test]
fn the_next_model_to_leave_the_memory_counts() {
    let list = |times: &[&str]| {
        let item = |time: &&str| format!(r#"{{"name":"m","expires_at":"{time}"}}"#);
        let items: Vec<_> = times.iter().map(item).collect();
        let body = format!(r#"{{"models":[{}]}}"#, items.join(","));
        memory("ollama", &body).unwrap().expires_ms
    };
    let table: [(&[&str], Option<u64>); 5] = [
        (&[], None),
        (
            &["2026-01-01T00:05:00Z", "2026-01-01T01:00:30.5+01:00"],
            Some(NOW_MS + 30_500),
        ),
        // In use, or just now leaving.
        (&["2025-12-31T23:59:59Z", "0001-01-01T00:00:00Z"], None),
        (&["soon", ""], None),
        (&["2318-04-23T00:00:00Z"], Some(NOW_MS + 9_224_236_800_000)),
    ];
    for (times, expected) in table {
        assert_eq!(list(times), expected, "{times:?}");
    }
}

#[test]
fn documents_that_are_no_lists_are_refused() {
    let table = [
        ("", ReadingFault::NoObject),
        ("[]", ReadingFault::NoObject),
        ("<html><body>502</body></html>", ReadingFault::NoObject),
        (r#"{"models":"#, ReadingFault::NoObject),
        ("{}", ReadingFault::NoList),
        (r#"{"models":{}}"#, ReadingFault::NoList),
        (r#"{"error":"not found"}"#, ReadingFault::NoList),
    ];
    for (body, fault) in table {
        assert_eq!(memory("ollama", body), Err(fault), "{body}");
    }
}

fn page(profile: &str, page: &[u8]) -> Result<(u32, u32), ReadingFault> {
    let source = sources(profile).page.unwrap();
    let requests = parse_page(&source, page)?;
    Ok((requests.running, requests.waiting))
}

const VLLM: &str = "\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"a } \\\" 7\"} 3.0
vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 1e1
vllm:num_requests_waiting{engine=\"1\",model_name=\"a\"} 0.0
vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 99.0
";

#[test]
fn pages_of_metrics_are_read() {
    let table = [
        ("vllm", VLLM, (5, 10)),
        (
            "sglang",
            "sglang:num_running_reqs{model_name=\"m\",tp_rank=\"0\"} 8.0\n\
             sglang:num_queue_reqs{model_name=\"m\",tp_rank=\"0\"} 4.0\n",
            (8, 4),
        ),
        (
            "llamacpp",
            "# HELP llamacpp:requests_processing Number of requests processing.\n\
             llamacpp:requests_processing 2\r\nllamacpp:requests_deferred 1",
            (2, 1),
        ),
        (
            "tgi",
            "tgi_batch_current_size 4\ntgi_queue_size\t7 1767225600000\n",
            (4, 7),
        ),
        // Absurd rows are left out.
        (
            "tgi",
            "tgi_batch_current_size NaN\ntgi_batch_current_size -3\ntgi_batch_current_size 1e300\n\
             tgi_queue_size +Inf\ntgi_queue_size x\ntgi_queue_size{\ntgi_queue_size{a=\"}\n\
             tgi_queue_size\ntgi_queue_size 0\n",
            (u32::MAX, 0),
        ),
    ];
    for (profile, text, expected) in table {
        assert_eq!(page(profile, text.as_bytes()), Ok(expected), "{profile}");
    }
}

#[test]
fn of_several_names_the_first_that_is_there_counts() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let source = PageSource {
        path: "/metrics".to_owned(),
        running: names(&["new", "old"]),
        waiting: names(&["queue", "old_queue"]),
    };
    let table = [
        ("old 5\nnew 2\nnew 1\nqueue 0\n", Ok((3, 0))),
        ("old 5\nold_queue 4\n", Ok((5, 4))),
        ("new NaN\nold 5\nold_queue 4\n", Ok((5, 4))),
        ("old 5\n", Err(ReadingFault::NoMetrics)),
    ];
    for (text, expected) in table {
        let read = parse_page(&source, text.as_bytes());
        let read = read.map(|requests| (requests.running, requests.waiting));
        assert_eq!(read, expected, "{text}");
    }
}

#[test]
fn pages_without_the_metrics_are_refused() {
    let table = [
        ("", ReadingFault::NoMetrics),
        ("\n\n", ReadingFault::NoMetrics),
        (
            "  <!DOCTYPE html>\nvllm:num_requests_running 1\n",
            ReadingFault::Html,
        ),
        ("vllm:num_requests_running 1\n", ReadingFault::NoMetrics),
        (
            "# vllm:num_requests_running 1\n# vllm:num_requests_waiting 1\n",
            ReadingFault::NoMetrics,
        ),
        ("{\"error\":\"no\"}", ReadingFault::NoMetrics),
    ];
    for (text, fault) in table {
        assert_eq!(page("vllm", text.as_bytes()), Err(fault), "{text}");
    }
}

#[test]
fn slots_are_read() {
    let source = sources("llamacpp").slots.unwrap();
    let table = [
        (
            r#"{"default_generation_settings":{"id":0,"n_ctx":4096,"params":{}},"total_slots":4}"#,
            (Some(4), Some(4096)),
        ),
        // A router.
        (
            r#"{"role":"router","max_instances":4,"default_generation_settings":{"params":{},"n_ctx":0}}"#,
            (None, None),
        ),
        (
            r#"{"total_slots":0,"default_generation_settings":[]}"#,
            (Some(0), None),
        ),
        (r#"{"total_slots":-1}"#, (None, None)),
        (r#"{"total_slots":1000000000}"#, (Some(1_000_000_000), None)),
        (r#"{"total_slots":1e40,"n_ctx":7}"#, (None, None)),
        ("{}", (None, None)),
    ];
    for (body, (slots, context)) in table {
        let read = parse_slots(&source, body.as_bytes()).unwrap();
        assert_eq!((read.slots, read.context), (slots, context), "{body}");
    }
    for body in ["", "[4]", "<html>", "{\"total_slots\":"] {
        let read = parse_slots(&source, body.as_bytes());
        assert_eq!(read, Err(ReadingFault::NoObject), "{body}");
    }
}

#[test]
fn loading_and_scheduling_are_those_of_the_contract() {
    let profiles = Profiles::builtin();
    let get = |name: &str| profiles.get(name).unwrap();
    let loading = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let table = [
        ("llamacpp", 503, loading, true),
        ("llamacpp", 500, loading, false),
        ("llama-swap", 503, loading, true),
        ("ollama", 503, busy, false),
        (
            "ollama",
            503,
            r#"{"error":"server busy, m is loading"}"#,
            true,
        ),
        (
            "ollama",
            503,
            "unexpected server status: llm server loading model",
            true,
        ),
        ("vllm", 503, r#"{"error":"the model is loading"}"#, true),
        (
            "vllm",
            503,
            r#"{"detail":"Engine loop is not running."}"#,
            false,
        ),
        ("sglang", 503, "Loading the model", true),
        ("sglang", 503, "", false),
    ];
    for (name, status, body, expected) in table {
        let says = get(name).says_loading(status, body.as_bytes());
        assert_eq!(says, expected, "{name} {status} {body}");
    }
    let sources = |name: &str| {
        let sources = get(name).scheduling.clone();
        (
            sources.memory.map(|memory| memory.path),
            sources.page.map(|page| page.path),
            sources.slots.map(|slots| slots.path),
        )
    };
    let path = |path: &str| Some(path.to_owned());
    let table = [
        ("ollama", (path("/api/ps"), None, None)),
        ("lm-studio", (path("/api/v0/models"), None, None)),
        (
            "llamacpp",
            (path("/v1/models"), path("/metrics"), path("/props")),
        ),
        ("llama-swap", (path("/running"), None, None)),
        ("vllm", (None, path("/metrics"), None)),
        ("sglang", (None, path("/metrics"), None)),
        ("tgi", (None, path("/metrics"), None)),
        ("lmdeploy", (None, None, None)),
        ("openai-compatible", (None, None, None)),
    ];
    for (name, expected) in table {
        assert_eq!(sources(name), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = memory("ollama", &String::from_utf8_lossy(&body));
        let _ = page("vllm", &body);
        let _ = parse_slots(&sources("llamacpp").slots.unwrap(), &body);
    }

    #[test]
    fn rows_of_any_form_do_not_panic(
        rest in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b' '), Just(b'1'),
                        Just(b'e'), Just(b'\n'), any::<u8>()], 0..60)) {
        let text = [b"tgi_queue_size", &rest[..]].concat();
        let _ = page("tgi", &text);
    }

    /// A row is found whatever stands in its labels.
    #[test]
    fn labels_may_contain_anything(label in "[^\n]{0,40}", number in 0u32..1_000_000) {
        let label = label.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!("tgi_queue_size{{a=\"{label}\"}} {number}\ntgi_batch_current_size 1\n");
        prop_assert_eq!(page("tgi", text.as_bytes()), Ok((1, number)));
    }
}
