use serde_json::{Value as Json, json};

use super::*;

fn sent(messages: Messages<'_>) -> Json {
    let mut out = Vec::new();
    let count = messages.finish(&mut out);
    let json: Json = serde_json::from_slice(&out).unwrap();
    assert_eq!(json.as_array().unwrap().len(), count);
    json
}

/// Parts of a conversation, one in a word: `s:` system, `u:` user, `p:` user with a picture before
/// the text, `a:` assistant, `i:` assistant item, `c:` call, `r:` result, `R:` result with a
/// picture, `t:` reasoning.
fn conversation(words: &str) -> Messages<'static> {
    let mut messages = Messages::default();
    let image = || UserPart::Image {
        url: Prose::from("data:x"),
        detail: None,
    };
    for word in words.split_whitespace() {
        let (kind, text) = word.split_once(':').unwrap();
        let prose = Prose::from(text.to_owned());
        match kind {
            "s" => messages.system(prose),
            "u" | "p" => {
                let mut content = UserContent::default();
                if kind == "p" {
                    content.push(image());
                }
                content.text(prose);
                messages.user(content);
            }
            "a" => messages.assistant(prose, Said::AsMessage),
            "i" => messages.assistant(prose, Said::AsItem),
            "c" => messages.call(ToolCall {
                id: prose,
                name: Prose::from("f"),
                arguments: Prose::from("{}"),
            }),
            "t" => messages.reasoning(prose),
            _ => messages.result(ToolResult {
                call_id: prose,
                text: Prose::from(format!("is {text}")),
                images: if kind == "R" {
                    vec![image()]
                } else {
                    Vec::new()
                },
            }),
        }
    }
    messages
}

/// The messages in short: role, text, calls or call, reasoning.
fn short(messages: Messages<'_>) -> String {
    let text = |content: &Json| match content {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(parts) => {
            let part = |part: &Json| match part.get("text") {
                Some(text) => text.as_str().unwrap().to_owned(),
                None => "IMG".to_owned(),
            };
            format!("[{}]", parts.iter().map(part).collect::<Vec<_>>().join("|"))
        }
        other => panic!("{other}"),
    };
    let messages = sent(messages);
    let lines = messages.as_array().unwrap().iter().map(|message| {
        let mut line = format!(
            "{}({})",
            message["role"].as_str().unwrap().split_at(1).0,
            text(&message["content"])
        );
        if let Some(Json::Array(calls)) = message.get("tool_calls") {
            for call in calls {
                line += &format!("+{}", call["id"].as_str().unwrap());
            }
        }
        if let Some(id) = message.get("tool_call_id") {
            line += &format!("@{}", id.as_str().unwrap());
        }
        if let Some(reasoning) = message.get("reasoning_content") {
            line += &format!("~{}", reasoning.as_str().unwrap());
        }
        line
    });
    lines.collect::<Vec<_>>().join(" ").replace('\n', "/")
}

#[test]
fn the_order_that_servers_take() {
    for (words, expected) in [
        // One system message in front, the others text of the user.
        ("s:A s:B u:x", "s(A//B) u(x)"),
        ("u:x s:A u:y", "u(x) u(A//y)"),
        ("u:x s:A s:B u:y", "u(x) u(A//B//y)"),
        ("u:x s:A a:y", "u(x//A) a(y)"),
        ("u:x s:A s:B", "u(x//A//B)"),
        ("u:x a:y s:A s:B a:z", "u(x) a(y) u(A//B) a(z)"),
        ("u:x a:y s:A", "u(x) a(y) u(A)"),
        ("a:x s:A p:y", "a(x) u([IMG|A//y])"),
        ("p:x s:A", "u([IMG|x//A])"),
        ("s:A", "s(A)"),
        // Results follow their calls.
        ("u:x c:1 c:2 r:1 r:2", "u(x) a(-)+1+2 t(is 1)@1 t(is 2)@2"),
        (
            "u:x c:1 r:1 c:2 r:2",
            "u(x) a(-)+1 t(is 1)@1 a(-)+2 t(is 2)@2",
        ),
        ("c:1 c:2 r:2 r:1", "a(-)+1+2 t(is 2)@2 t(is 1)@1"),
        ("c:1 u:x r:1 u:y", "a(-)+1 t(is 1)@1 u(x) u(y)"),
        ("c:1 s:A r:1 u:y", "a(-)+1 t(is 1)@1 u(A//y)"),
        ("c:1 s:A r:1", "a(-)+1 t(is 1)@1 u(A)"),
        ("r:1 c:1", "a(-)+1 t(is 1)@1"),
        ("c:1 c:2 r:1 u:x", "a(-)+1+2 t(is 1)@1 u(x)"),
        // The same id in two turns, and two results of one call.
        (
            "c:1 r:1 u:x c:1 r:1",
            "a(-)+1 t(is 1)@1 u(x) a(-)+1 t(is 1)@1",
        ),
        ("c:1 r:1 r:1", "a(-)+1 t(is 1)@1 t(is 1)@1"),
        ("u:x r:9 a:y", "u(x) u(Tool result: is 9) a(y)"),
        ("u:x R:9", "u(x) u([Tool result: is 9|IMG])"),
        // Pictures of results.
        (
            "c:1 c:2 R:1 r:2 u:x",
            "a(-)+1+2 t(is 1)@1 t(is 2)@2 u([Image of tool result 1:|IMG]) u(x)",
        ),
        (
            "c:1 s:A R:1 a:x",
            "a(-)+1 t(is 1)@1 u([Image of tool result 1:|IMG|//A]) a(x)",
        ),
        // What belongs to one assistant message.
        ("i:x c:1 c:2 r:1 r:2", "a(x)+1+2 t(is 1)@1 t(is 2)@2"),
        ("c:1 i:x r:1", "a(x)+1 t(is 1)@1"),
        ("c:1 i:x c:2 r:1 r:2", "a(x)+1+2 t(is 1)@1 t(is 2)@2"),
        ("i:x c:1 i:y r:1 i:z", "a(x//y)+1 t(is 1)@1 a(z)"),
        ("c:1 i:x u:y", "a(-)+1 a(x) u(y)"),
        ("i:x i:y", "a(x) a(y)"),
        ("c:1 a:x r:1", "a(-)+1 t(is 1)@1 a(x)"),
        ("c:1 s:A c:2 r:1 r:2", "a(-)+1+2 t(is 1)@1 t(is 2)@2 u(A)"),
        ("a: u:x a:", "u(x)"),
        // Reasoning of the current turn.
        ("u:x t:T i:y", "u(x) a(y)~T"),
        ("u:x t:T i:y u:z", "u(x) a(y) u(z)"),
        (
            "u:x t:T c:1 r:1 t:V c:2",
            "u(x) a(-)+1~T t(is 1)@1 a(-)+2~V",
        ),
        ("u:x t:T c:1 t:V c:2", "u(x) a(-)+1+2~T//V"),
        (
            "u:x t:T c:1 R:1 s:A t:V i:y",
            "u(x) a(-)+1~T t(is 1)@1 u([Image of tool result 1:|IMG|//A]) a(y)~V",
        ),
        ("u:x t:T u:y i:z", "u(x) u(y) a(z)"),
        ("t:T i:y", "a(y)~T"),
        ("u:x t:T", "u(x)"),
    ] {
        assert_eq!(short(conversation(words)), expected, "{words}");
    }
}

#[test]
fn orphans_may_stay() {
    let mut messages = Messages::keeping_orphans();
    messages.items = conversation("u:x r:9 s:A").items;
    assert_eq!(short(messages), "u(x) t(is 9)@9 u(A)");
}

#[test]
fn the_form_of_messages() {
    let request = crate::json::parse(
        br#"{"a":"\ud83d caf\u00e9\n","b":{"x": 1.50, "y":"\ud83d"},"c":{"type":"input_audio", "n":1}}"#,
    )
    .unwrap();
    let [a, b, c] = request.fields(["a", "b", "c"]).map(Option::unwrap);
    let mut messages = Messages::default();
    let mut content = UserContent::default();
    content.text(a.string().unwrap());
    content.push(UserPart::Image {
        url: Prose::from("https://x/y.png"),
        detail: Some("low"),
    });
    content.push(UserPart::Same(c));
    messages.user(content);
    messages.reasoning("why");
    messages.assistant("text", Said::AsMessage);
    messages.call(ToolCall {
        id: "id\"1".into(),
        name: "f".into(),
        arguments: b.into(),
    });
    assert_eq!(
        sent(messages),
        json!([
            {"role": "user", "content": [
                {"type": "text", "text": "\u{fffd} café\n"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "input_audio", "n": 1},
            ]},
            {"role": "assistant", "content": "text", "reasoning_content": "why", "tool_calls": [
                {"id": "id\"1", "type": "function",
                 "function": {"name": "f", "arguments": "{\"x\":1.50,\"y\":\"\u{fffd}\"}"}},
            ]},
        ])
    );
    assert_eq!(sent(Messages::default()), json!([]));
}

#[test]
fn sizes() {
    let size = conversation("s:1234 u:12 t:12345678 a:123 c:1 R:1 p:").size();
    // A call counts as name and arguments, a result as `is 1`.
    assert_eq!((size.bytes, size.images), (4 + 2 + 3 + 3 + 4, 2));
}

#[test]
fn many_calls_of_one_id_cost_no_more_than_others() {
    let mut messages = Messages::default();
    for _ in 0..100_000 {
        messages.call(ToolCall {
            id: "x".into(),
            name: "f".into(),
            arguments: Prose::EMPTY,
        });
    }
    for _ in 0..100_000 {
        messages.result(ToolResult {
            call_id: "x".into(),
            text: Prose::EMPTY,
            images: Vec::new(),
        });
    }
    let mut out = Vec::new();
    assert_eq!(messages.finish(&mut out), 100_001);
}
