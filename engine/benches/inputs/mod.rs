//! The inputs of the benches of the codec and of the baseline beside them.

#![allow(dead_code, unreachable_pub)] // Each bench uses some of it.

/// The head of a request of the OpenAI SDK, 12 fields.
pub const REQUEST: &[u8] = b"POST /olla/openai/v1/chat/completions HTTP/1.1\r\n\
    Host: gateway.internal:40114\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: OpenAI/Python 1.51.0\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Package-Version: 1.51.0\r\n\
    X-Stainless-OS: Linux\r\n\
    X-Stainless-Runtime: CPython\r\n\
    Authorization: Bearer sk-0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
    Content-Length: 317\r\n\r\n";

/// The head of a vLLM response.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    date: Sun, 22 Nov 2026 10:11:12 GMT\r\n\
    server: uvicorn\r\n\
    content-type: text/event-stream; charset=utf-8\r\n\
    x-request-id: 3f1c0e0a7b3c4a9f8f5d2e6b7a8c9d0e\r\n\
    transfer-encoding: chunked\r\n\r\n";

/// One read from a backend.
const READ_BYTES: usize = 64 << 10;

/// Chunked bodies, by name, number of chunks and payload of each: one event of a stream alone, many
/// that came together, and a large response.
pub const CHUNKED: [(&str, usize, usize); 3] = [
    ("event_200", 1, 200),
    ("events_200", READ_BYTES / 207, 200),
    ("large_16k", 4, 16 << 10),
];

/// A body of `chunks` chunks with `payload` bytes each.
pub fn chunked(chunks: usize, payload: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..chunks {
        body.extend_from_slice(format!("{payload:x}\r\n").as_bytes());
        body.resize(body.len() + payload, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}
