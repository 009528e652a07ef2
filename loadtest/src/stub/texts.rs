//! The texts of the stub's answers, `MODEL` standing where the model's name goes as a JSON string.
//!
//! The bodies of inference answers and of listing entries come without what follows them.

/// `POST /v1/chat/completions`, without its last brace.
pub(super) const CHAT: &str = concat!(
    r#"{"id":"chatcmpl-stub","object":"chat.completion","created":1767225600,"model":MODEL,"#,
    r#""choices":[{"index":0,"message":{"role":"assistant","#,
    r#""content":"A gateway should cost no more than the copying of the bytes."},"#,
    r#""finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":24,"completion_tokens":16,"total_tokens":40}"#,
);

/// The same when a tool is called.
pub(super) const CHAT_TOOLS: &str = concat!(
    r#"{"id":"chatcmpl-stub","object":"chat.completion","created":1767225600,"model":MODEL,"#,
    r#""choices":[{"index":0,"message":{"role":"assistant","content":null,"#,
    r#""tool_calls":[{"id":"call_1","type":"function","#,
    r#""function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},"#,
    r#""finish_reason":"tool_calls"}],"#,
    r#""usage":{"prompt_tokens":24,"completion_tokens":16,"total_tokens":40}"#,
);

/// `POST /v1/completions`, without its last brace.
pub(super) const COMPLETIONS: &str = concat!(
    r#"{"id":"cmpl-stub","object":"text_completion","created":1767225600,"model":MODEL,"#,
    r#""choices":[{"index":0,"logprobs":null,"finish_reason":"stop","#,
    r#""text":"A gateway should cost no more than the copying of the bytes."}],"#,
    r#""usage":{"prompt_tokens":24,"completion_tokens":16,"total_tokens":40}"#,
);

/// `POST /v1/embeddings`, without its last brace.
pub(super) const EMBEDDINGS: &str = concat!(
    r#"{"object":"list","data":[{"object":"embedding","index":0,"#,
    r#""embedding":[0.0123,-0.0456,0.0789,-0.0101,0.0202,-0.0303,0.0404,-0.0505]}],"#,
    r#""model":MODEL,"usage":{"prompt_tokens":24,"total_tokens":24}"#,
);

/// `POST /api/chat`, without its last brace.
pub(super) const OLLAMA_CHAT: &str = concat!(
    r#"{"model":MODEL,"created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","#,
    r#""content":"A gateway should cost no more than the copying of the bytes."},"#,
    r#""done":true,"done_reason":"stop","#,
    r#""total_duration":1000000,"prompt_eval_count":24,"eval_count":16"#,
);

/// An event of a stream, up to its delta.
pub(super) const EVENT: &str = concat!(
    r#"data: {"id":"chatcmpl-stub","object":"chat.completion.chunk","created":1767225600,"#,
    r#""model":MODEL,"choices":[{"index":0,"delta":"#,
);

/// The first delta of a text, and the others.
pub(super) const DELTAS: [&str; 2] = [
    r#"{"role":"assistant","content":"A"}"#,
    r#"{"content":" token"}"#,
];

/// The first, the middle and the last delta of a tool call; the arguments are JSON when joined.
pub(super) const TOOL_DELTAS: [&str; 3] = [
    concat!(
        r#"{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","#,
        r#""function":{"name":"get_weather","arguments":""}}]}"#,
    ),
    r#"{"tool_calls":[{"index":0,"function":{"arguments":" "}}]}"#,
    r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":\"Paris\"}"}}]}"#,
];

/// An entry of `GET /v1/models`.
pub(super) const CARD: &str =
    r#"{"id":MODEL,"object":"model","created":1767225600,"owned_by":"stub"}"#;

/// An entry of `GET /api/tags`.
pub(super) const TAG: &str = concat!(
    r#"{"name":MODEL,"model":MODEL,"modified_at":"2026-01-01T00:00:00Z","size":1000000000,"#,
    r#""digest":"0000000000000000000000000000000000000000000000000000000000000000","#,
    r#""details":{"format":"gguf","family":"stub","parameter_size":"1B","#,
    r#""quantization_level":"Q4_0"}}"#,
);
