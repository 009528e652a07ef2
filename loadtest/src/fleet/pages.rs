//! The pages of a simulated engine, in the form of the server that it looks like.

use serde_json::{Value, json};

use super::engine::Engine;
use super::memory::State;
use super::scenario::{Kind, Lie};

/// What an engine that lies about its slots reports.
const SLOTS_LIE: u64 = 1_000_000_000;

/// Long after every run: when Ollama would unload a model.
const EXPIRES_AT: &str = "2099-01-01T00:00:00Z";

/// A page: the type of its content, and that.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl From<Value> for Page {
    fn from(body: Value) -> Self {
        Self {
            content_type: "application/json",
            body: body.to_string(),
        }
    }
}

fn text(body: String) -> Page {
    Page {
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body,
    }
}

/// The page at `path`, when such a server has one there.
pub(super) fn page(path: &str, engine: &Engine) -> Option<Page> {
    let page = match (engine.spec().kind, path) {
        (_, "/v1/models") => models(engine).into(),
        (Kind::Vllm, "/health") => text(String::new()),
        (Kind::Vllm, "/version") => json!({"version": "0.11.2"}).into(),
        (Kind::Vllm, "/metrics") => metrics(
            engine,
            ["vllm:num_requests_running", "vllm:num_requests_waiting"],
        ),
        (Kind::Ollama, "/") => text("Ollama is running".to_owned()),
        (Kind::Ollama, "/api/version") => json!({"version": "0.13.1"}).into(),
        (Kind::Ollama, "/api/tags") => tags(engine).into(),
        (Kind::Ollama, "/api/ps") => resident(engine).into(),
        (Kind::Llamacpp, "/health") => json!({"status": "ok"}).into(),
        (Kind::Llamacpp, "/props") => props(engine).into(),
        (Kind::Llamacpp, "/slots") => slots(engine).into(),
        (Kind::Llamacpp, "/metrics") => metrics(
            engine,
            ["llamacpp:requests_processing", "llamacpp:requests_deferred"],
        ),
        _ => return None,
    };
    Some(page)
}

fn models(engine: &Engine) -> Value {
    let spec = engine.spec();
    let is_router = spec.kind == Kind::Llamacpp && spec.models.len() > 1;
    let cards = engine.models().map(|(name, state)| {
        let mut card = json!({"id": name, "object": "model", "created": 1, "owned_by": "fleet"});
        match spec.kind {
            Kind::Vllm => card["max_model_len"] = spec.context_length.into(),
            Kind::Llamacpp if is_router => card["status"] = json!({"value": status(state)}),
            Kind::Llamacpp => card["meta"] = json!({"n_ctx_train": spec.context_length}),
            Kind::Ollama => {}
        }
        card
    });
    json!({"object": "list", "data": cards.collect::<Vec<_>>()})
}

fn status(state: State) -> &'static str {
    match state {
        State::Loaded => "loaded",
        State::Loading => "loading",
        State::Unloaded => "unloaded",
    }
}

fn tags(engine: &Engine) -> Value {
    let tags = engine.models().map(|(name, _)| {
        json!({"name": name, "model": name, "size": 4_000_000_000_u64,
            "details": {"format": "gguf", "family": "llama", "parameter_size": "8B"}})
    });
    json!({"models": tags.collect::<Vec<_>>()})
}

fn resident(engine: &Engine) -> Value {
    let context = engine.spec().context_length;
    let models = engine.models().filter(|(_, state)| *state == State::Loaded);
    let models = models.map(|(name, _)| {
        json!({"name": name, "model": name, "size": 4_000_000_000_u64,
            "size_vram": 4_000_000_000_u64, "expires_at": EXPIRES_AT, "context_length": context})
    });
    json!({"models": models.collect::<Vec<_>>()})
}

fn props(engine: &Engine) -> Value {
    let spec = engine.spec();
    let slots = if spec.has_lie(Lie::Slots) {
        SLOTS_LIE
    } else {
        spec.slots as u64
    };
    json!({
        "total_slots": slots,
        "model_alias": spec.models[0],
        "default_generation_settings": {"n_ctx": spec.context_length},
    })
}

fn slots(engine: &Engine) -> Value {
    let context = engine.spec().context_length;
    let slots = (0..engine.spec().slots)
        .map(|id| json!({"id": id, "n_ctx": context, "is_processing": id < engine.running()}));
    slots.collect()
}

fn metrics(engine: &Engine, [running, waiting]: [&str; 2]) -> Page {
    let mut body = String::new();
    // vLLM's have the name of the model as a label.
    let label = match engine.spec().kind {
        Kind::Vllm => format!(
            "{{engine=\"0\",model_name=\"{}\"}}",
            engine.spec().models[0]
        ),
        _ => String::new(),
    };
    for (name, value) in [(running, engine.running()), (waiting, engine.waiting())] {
        body.push_str(&format!("# HELP {name} Requests.\n# TYPE {name} gauge\n"));
        body.push_str(&format!("{name}{label} {value}.0\n"));
    }
    text(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::cache::Chain;
    use crate::fleet::engine::Job;
    use crate::fleet::scenario::{EngineSpec, Scenario};

    fn spec(kind: &str) -> EngineSpec {
        let text = format!(
            r#"{{"seconds":1,"engines":[{{"kind":"{kind}","models":["a","b"],"slots":2,
            "loaded_max":1,"load_ms":10,"context_length":4096,
            "prefill_tps":1,"decode_ms":1,"cache_tokens":0}}],
            "load":[{{"name":"x","models":["a"],"users":1,"rounds":1,"groups":1,
            "system_tokens":0,"user_tokens":1,"output_tokens":1}}]}}"#
        );
        Scenario::parse(&text).unwrap().engines.remove(0)
    }

    /// An engine that loads `a` for two requests and has a third in its queue.
    fn engine(kind: &str) -> Engine {
        let mut engine = Engine::new(&spec(kind), 0.0, 1, 0);
        for id in 0..3 {
            let job = Job {
                model: 0,
                prompt: Chain::new(0),
                output_tokens: 9,
            };
            engine.arrive(0, id, job);
        }
        engine
    }

    fn json_at(path: &str, engine: &Engine) -> Value {
        serde_json::from_str(&page(path, engine).unwrap().body).unwrap()
    }

    #[test]
    fn metrics_have_running_and_waiting_requests() {
        for (kind, want) in [
            (
                "vllm",
                "vllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 1.0\n",
            ),
            ("llamacpp", "llamacpp:requests_processing 2.0\n"),
        ] {
            let body = page("/metrics", &engine(kind)).unwrap().body;
            assert!(body.contains(want), "{body}");
        }
        assert!(page("/metrics", &engine("ollama")).is_none());
    }

    #[test]
    fn listings_say_what_is_loaded() {
        let mut ollama = engine("ollama");
        assert_eq!(json_at("/api/tags", &ollama)["models"][1]["name"], "b");
        assert_eq!(json_at("/api/ps", &ollama)["models"], json!([]));
        ollama.step();
        assert_eq!(json_at("/api/ps", &ollama)["models"][0]["name"], "a");
        assert_eq!(
            json_at("/api/ps", &ollama)["models"][0]["context_length"],
            4096
        );
        let mut llama = engine("llamacpp");
        let status = |engine: &Engine, place: usize| {
            json_at("/v1/models", engine)["data"][place]["status"]["value"].clone()
        };
        assert_eq!(
            (status(&llama, 0), status(&llama, 1)),
            ("loading".into(), "unloaded".into())
        );
        llama.step();
        assert_eq!(status(&llama, 0), "loaded");
        assert_eq!(
            json_at("/v1/models", &engine("vllm"))["data"][0]["max_model_len"],
            4096
        );
    }

    #[test]
    fn llama_cpp_reports_its_slots_or_a_billion() {
        let llama = engine("llamacpp");
        let props = json_at("/props", &llama);
        assert_eq!(props["total_slots"], 2);
        assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
        assert_eq!(json_at("/slots", &llama)[1]["is_processing"], true);
        let mut spec = spec("llamacpp");
        spec.lies = vec![Lie::Slots];
        let liar = Engine::new(&spec, 0.0, 1, 0);
        assert_eq!(json_at("/props", &liar)["total_slots"], SLOTS_LIE);
    }
}
