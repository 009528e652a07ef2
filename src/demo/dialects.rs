//! The responses of each kind of server.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::server::{BackendKind, Request, Shared, begin_stream, send, send_piece};
use super::text;

const JSON: &str = "application/json";

/// Responds to one request.
pub(super) fn respond(
    stream: &mut TcpStream,
    shared: &Shared,
    request: &Request,
) -> io::Result<()> {
    if let Some((content_type, body)) = page(shared, &request.path) {
        return send(stream, 200, content_type, body.as_bytes());
    }
    if request.method != "POST" {
        return not_found(stream);
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return fail(stream, 400, "expected a JSON body");
    };
    let ollama = shared.dialect == BackendKind::Ollama;
    let known = |path: &str| match path {
        "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" => true,
        "/api/chat" | "/api/generate" | "/api/show" | "/api/embeddings" | "/api/embed" => ollama,
        _ => false,
    };
    if !known(&request.path) {
        return not_found(stream);
    }
    let name = match body["model"].as_str().or(body["name"].as_str()) {
        Some(name) => name,
        None => return fail(stream, 400, "expected the name of a model"),
    };
    if !shared.models.contains(&name) {
        return fail(stream, 404, &format!("model '{name}' not found"));
    }
    match request.path.as_str() {
        "/v1/embeddings" => send_json(stream, &embeddings(name, &body["input"])),
        "/api/show" => send_json(stream, &show(name)),
        "/api/embeddings" => {
            let vector = text::embedding(text_of(&body["prompt"]));
            send_json(stream, &json!({ "embedding": vector }))
        }
        "/api/embed" => {
            let vector = text::embedding(text_of(&body["input"]));
            send_json(stream, &json!({ "model": name, "embeddings": [vector] }))
        }
        path => {
            shared.busy.fetch_add(1, Ordering::Relaxed);
            let generation = Generation {
                shared,
                name,
                body: &body,
                began: Instant::now(),
            };
            let result = if path.starts_with("/api/") {
                generation.ollama(stream, path == "/api/chat")
            } else {
                generation.openai(stream, path == "/v1/chat/completions")
            };
            shared.busy.fetch_sub(1, Ordering::Relaxed);
            result
        }
    }
}

/// The pages that need no request body.
fn page(shared: &Shared, path: &str) -> Option<(&'static str, String)> {
    let json = |value: Value| Some((JSON, value.to_string()));
    match (shared.dialect, path) {
        (BackendKind::Ollama, "/") => {
            Some(("text/plain; charset=utf-8", "Ollama is running".into()))
        }
        (BackendKind::Ollama, "/api/version") => json(json!({ "version": "0.14.2" })),
        (BackendKind::Ollama, "/api/tags") => json(tags(shared)),
        (BackendKind::LmStudio, "/api/v0/models") => json(lm_studio(shared)),
        (BackendKind::Vllm, "/health") => Some((JSON, String::new())),
        (BackendKind::Vllm, "/version") => json(json!({ "version": "0.11.2" })),
        (BackendKind::LlamaCpp, "/health") => json(json!({ "status": "ok" })),
        (BackendKind::LlamaCpp, "/slots") => {
            let busy = shared.busy.load(Ordering::Relaxed) > 0;
            json(json!([{ "id": 0, "n_ctx": 8192, "is_processing": busy }]))
        }
        (BackendKind::LlamaCpp, "/props") => {
            json(json!({ "total_slots": 1, "model_path": "/models/llama-3.2-3b-q4_k_m.gguf" }))
        }
        (_, "/v1/models") => json(openai_models(shared)),
        _ => None,
    }
}

fn tags(shared: &Shared) -> Value {
    let model = |name: &&str| {
        let embeds = name.contains("embed");
        json!({
            "name": name,
            "model": name,
            "modified_at": "2026-08-01T09:30:00.000000000Z",
            "size": if embeds { 274_302_450_u64 } else { 2_019_393_189 },
            "digest": if embeds {
                "0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f"
            } else {
                "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72"
            },
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": if embeds { "nomic-bert" } else { "llama" },
                "families": [if embeds { "nomic-bert" } else { "llama" }],
                "parameter_size": if embeds { "137M" } else { "3.2B" },
                "quantization_level": if embeds { "F16" } else { "Q4_K_M" },
            },
        })
    };
    json!({ "models": shared.models.iter().map(model).collect::<Vec<_>>() })
}

fn show(name: &str) -> Value {
    json!({
        "modelfile": format!("FROM {name}"),
        "parameters": "stop \"<|eot_id|>\"",
        "template": "{{ .Prompt }}",
        "details": { "format": "gguf", "family": "llama", "parameter_size": "3.2B",
            "quantization_level": "Q4_K_M" },
        "model_info": { "general.architecture": "llama", "llama.context_length": 131_072 },
        "capabilities": ["completion", "tools"],
    })
}

fn lm_studio(shared: &Shared) -> Value {
    let model = |name: &&str| {
        json!({
            "id": name, "object": "model", "type": "llm", "publisher": "qwen", "arch": "qwen2",
            "compatibility_type": "gguf", "quantization": "Q4_K_M", "state": "loaded",
            "max_context_length": 32_768,
        })
    };
    json!({ "object": "list", "data": shared.models.iter().map(model).collect::<Vec<_>>() })
}

fn openai_models(shared: &Shared) -> Value {
    let model = |name: &&str| match shared.dialect {
        BackendKind::Vllm => json!({
            "id": name, "object": "model", "created": 1_785_000_000, "owned_by": "vllm",
            "root": name, "parent": null, "max_model_len": 131_072,
        }),
        BackendKind::LlamaCpp => json!({
            "id": name, "object": "model", "created": 1_785_000_000, "owned_by": "llamacpp",
            "meta": { "n_ctx_train": 131_072, "n_params": 3_212_749_888_u64,
                "size": 2_013_266_176_u64 },
        }),
        _ => json!({ "id": name, "object": "model", "created": 1_785_000_000,
            "owned_by": "library" }),
    };
    json!({ "object": "list", "data": shared.models.iter().map(model).collect::<Vec<_>>() })
}

/// A string; any other value counts as an empty one.
fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn embeddings(name: &str, input: &Value) -> Value {
    let texts: Vec<&str> = match input {
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        other => vec![text_of(other)],
    };
    let tokens: usize = texts
        .iter()
        .map(|text| text.split_whitespace().count())
        .sum();
    let item = |(index, text): (usize, &&str)| json!({ "object": "embedding", "index": index, "embedding": text::embedding(text) });
    json!({
        "object": "list", "model": name,
        "data": texts.iter().enumerate().map(item).collect::<Vec<_>>(),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })
}

/// A completion that is being generated.
struct Generation<'g> {
    shared: &'g Shared,
    name: &'g str,
    body: &'g Value,
    began: Instant,
}

impl Generation<'_> {
    fn prompt(&self) -> &str {
        let last = self.body["messages"]
            .as_array()
            .and_then(|messages| messages.last());
        let content = last.map(|message| &message["content"]);
        let text = content.and_then(|content| match content {
            Value::Array(parts) => parts.iter().find_map(|part| part["text"].as_str()),
            other => other.as_str(),
        });
        text.unwrap_or_else(|| text_of(&self.body["prompt"]))
    }

    /// The words, at most as many as the request allows, and whether these are all.
    fn words(&self) -> (Vec<String>, bool) {
        let mut words = text::completion(self.prompt());
        let limit = self.body["max_tokens"]
            .as_u64()
            .or(self.body["max_completion_tokens"].as_u64());
        let max = limit.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let whole = words.len() <= max;
        words.truncate(max);
        (words, whole)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, at the speed of a model"
    )]
    fn pause(&self) {
        std::thread::sleep(Duration::from_secs(1) / self.shared.pace.max(1));
    }

    fn usage(&self, words: usize) -> Value {
        let prompt = self.prompt().split_whitespace().count() + 8;
        json!({ "prompt_tokens": prompt, "completion_tokens": words,
            "total_tokens": prompt + words })
    }

    /// A completion by OpenAI's two routes.
    fn openai(&self, stream: &mut TcpStream, chat: bool) -> io::Result<()> {
        let (words, whole) = self.words();
        let finish = if whole { "stop" } else { "length" };
        let created = unix_secs();
        if self.body["stream"] != true {
            words.iter().for_each(|_| self.pause());
            let text = words.concat();
            let choice = if chat {
                json!({ "index": 0, "finish_reason": finish,
                    "message": { "role": "assistant", "content": text } })
            } else {
                json!({ "index": 0, "finish_reason": finish, "text": text })
            };
            return send_json(
                stream,
                &json!({ "id": "chatcmpl-demo", "created": created, "model": self.name,
                    "object": if chat { "chat.completion" } else { "text_completion" },
                    "choices": [choice], "usage": self.usage(words.len()) }),
            );
        }
        begin_stream(stream, "text/event-stream")?;
        let mut event = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({ "id": "chatcmpl-demo", "created": created, "model": self.name,
                "object": if chat { "chat.completion.chunk" } else { "text_completion" },
                "choices": choices });
            if let Some(usage) = usage {
                chunk["usage"] = usage;
            }
            send_piece(stream, format!("data: {chunk}\n\n").as_bytes())
        };
        for word in &words {
            self.pause();
            let choice = if chat {
                json!({ "index": 0, "delta": { "content": word }, "finish_reason": null })
            } else {
                json!({ "index": 0, "text": word, "finish_reason": null })
            };
            event(json!([choice]), None)?;
        }
        let last = if chat {
            json!({ "index": 0, "delta": {}, "finish_reason": finish })
        } else {
            json!({ "index": 0, "text": "", "finish_reason": finish })
        };
        event(json!([last]), None)?;
        if self.body["stream_options"]["include_usage"] == true
            || self.shared.dialect == BackendKind::LlamaCpp
        {
            event(json!([]), Some(self.usage(words.len())))?;
        }
        send_piece(stream, b"data: [DONE]\n\n")?;
        send_piece(stream, b"")
    }

    /// A completion by Ollama's two routes, which stream by default.
    fn ollama(&self, stream: &mut TcpStream, chat: bool) -> io::Result<()> {
        let (words, whole) = self.words();
        let part = |text: &str| {
            let mut part = json!({ "model": self.name, "created_at": "2026-08-01T09:30:00Z",
                "done": false });
            if chat {
                part["message"] = json!({ "role": "assistant", "content": text });
            } else {
                part["response"] = json!(text);
            }
            part
        };
        let last = |text: &str| {
            let total = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(0);
            let mut last = part(text);
            last["done"] = json!(true);
            last["done_reason"] = json!(if whole { "stop" } else { "length" });
            last["total_duration"] = json!(total);
            last["load_duration"] = json!(1_500_000);
            last["prompt_eval_count"] = self.usage(0)["prompt_tokens"].clone();
            last["prompt_eval_duration"] = json!(20_000_000);
            last["eval_count"] = json!(words.len());
            last["eval_duration"] = json!(total.saturating_sub(21_500_000));
            last
        };
        if self.body["stream"] == false {
            words.iter().for_each(|_| self.pause());
            return send_json(stream, &last(&words.concat()));
        }
        begin_stream(stream, "application/x-ndjson")?;
        for word in &words {
            self.pause();
            send_piece(stream, format!("{}\n", part(word)).as_bytes())?;
        }
        send_piece(stream, format!("{}\n", last("")).as_bytes())?;
        send_piece(stream, b"")
    }
}

fn send_json(stream: &mut TcpStream, value: &Value) -> io::Result<()> {
    send(stream, 200, JSON, value.to_string().as_bytes())
}

fn fail(stream: &mut TcpStream, status: u16, message: &str) -> io::Result<()> {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error",
        "code": null } });
    send(stream, status, JSON, body.to_string().as_bytes())
}

/// The response of common servers to an unknown route.
fn not_found(stream: &mut TcpStream) -> io::Result<()> {
    send(stream, 404, "text/plain", b"404 page not found")
}

fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
