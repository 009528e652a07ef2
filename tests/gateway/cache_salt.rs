//! The prompt caches of keys, kept apart by `cache_salt`.
//!
//! Contract: docs/contract/access.md#15

use serde_json::{Value, json};
use testkit::{
    Backend, Config, Driver, Folder, Gateway, bearer, endpoint, exchange, on_both_drivers, post,
};

const ROOT: &str = "sk-root-0123456789abcdef";
const ALICE: &str = "sk-alice-0123456789abcdef";
const BOB: &str = "sk-bob-0123456789abcdef";
const CAROL: &str = "sk-carol-0123456789abcdef";
const BODY: &str =
    r#"{"model": "m",  "messages": [{"role":"user","content":"a \u00e9"}], "x": 1e2}"#;

const KEYS: &str = r#"
[access]
enabled = true
[access.policies.apart]
isolate_cache = true
[[access.keys]]
name = "alice"
key = "${ALICE}"
policy = "apart"
[[access.keys]]
name = "bob"
key = "${BOB}"
policy = "apart"
[[access.keys]]
name = "carol"
key = "${CAROL}"
"#;

fn over(driver: Driver, endpoints: &str, more: &str) -> Gateway {
    let config = Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .env("ALICE", ALICE)
        .env("BOB", BOB)
        .env("CAROL", CAROL)
        .more(endpoints)
        .more(KEYS)
        .more(more);
    Gateway::start(&config)
}

/// The body that a backend got for this one.
#[track_caller]
fn sent(gateway: &Gateway, backend: &Backend, (path, secret): (&str, &str), body: &str) -> String {
    let before = backend.count();
    let response = post(gateway, path, &[&bearer(secret)], body);
    assert_eq!(response.status, 200, "{path} {}", response.text());
    assert_eq!(backend.count(), before + 1);
    backend.last().text()
}

/// The salt in front of a body that is the client's otherwise.
#[track_caller]
fn salt_before(sent: &str, own: &str) -> String {
    let rest = sent.strip_prefix(r#"{"cache_salt":""#).unwrap();
    let (salt, rest) = rest.split_once('"').unwrap();
    assert_eq!(rest, format!(",{}", &own[1..]));
    assert_eq!(salt.len(), 43);
    assert!(salt.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    salt.to_owned()
}

#[test]
fn keys_of_a_policy_have_salts_of_their_own() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let store = format!("[state]\npath = '{}'\n", folder.file("state.db").display());
        let one = endpoint("one", "vllm", &backend, "");
        let chat = "/olla/vllm/v1/chat/completions";
        let mut gateway = over(driver, &one, &store);
        let alice = salt_before(&sent(&gateway, &backend, (chat, ALICE), BODY), BODY);
        let again = salt_before(&sent(&gateway, &backend, (chat, ALICE), BODY), BODY);
        let bob = salt_before(&sent(&gateway, &backend, (chat, BOB), BODY), BODY);
        assert_eq!(alice, again);
        assert_ne!(alice, bob);
        // Other policies ask for none.
        assert_eq!(sent(&gateway, &backend, (chat, CAROL), BODY), BODY);
        // A client's own value is replaced, wherever and however often it stands.
        for (own, salted) in [
            (
                r#"{"cache_salt" : null, "model":"m"}"#,
                r#"{"cache_salt" : "SALT", "model":"m"}"#,
            ),
            (
                r#"{"model":"m","cache_salt":"mine","y":{"cache_salt":1}, "cache_salt":[2]}"#,
                r#"{"model":"m","cache_salt":"SALT","y":{"cache_salt":1}, "cache_salt":"SALT"}"#,
            ),
            (
                r#"{"model":"m","cache\u005fsalt":"mine"}"#,
                r#"{"model":"m","cache\u005fsalt":"SALT"}"#,
            ),
        ] {
            let salted = salted.replace("SALT", &alice);
            assert_eq!(sent(&gateway, &backend, (chat, ALICE), own), salted);
        }
        // The store keeps the secret, so that caches outlive the process.
        gateway.signal("TERM");
        assert!(gateway.wait_end(testkit::PATIENCE).success());
        let gateway = over(driver, &one, &store);
        let after = salt_before(&sent(&gateway, &backend, (chat, ALICE), BODY), BODY);
        assert_eq!(alice, after);
        // Without a store a start makes another secret.
        drop(gateway);
        let gateway = over(driver, &one, "");
        let other = salt_before(&sent(&gateway, &backend, (chat, ALICE), BODY), BODY);
        assert_ne!(alice, other);
    });
}

#[test]
fn servers_that_know_salts_get_them_on_four_paths() {
    on_both_drivers(|driver| {
        let backends = ["vllm", "sglang", "lmdeploy"].map(|kind| (kind, Backend::ok(&["m"])));
        let endpoints: String = backends
            .iter()
            .map(|(kind, backend)| endpoint(kind, kind, backend, ""))
            .collect();
        let gateway = over(driver, &endpoints, "");
        let chat_body = |path: &str| match path {
            "v1/responses" => r#"{"model":"m","input":"hi"}"#,
            "v1/messages" => {
                r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#
            }
            "v1/completions" => r#"{"model":"m","prompt":"hi"}"#,
            "v1/embeddings" => r#"{"model":"m","input":"hi"}"#,
            _ => BODY,
        };
        let mut salts = Vec::new();
        for (kind, backend) in &backends {
            for (path, is_salted) in [
                ("v1/chat/completions", true),
                ("v1/completions", true),
                ("v1/responses", true),
                ("v1/messages", true),
                ("v1/embeddings", false),
                ("tokenize", false),
            ] {
                let is_salted = is_salted && *kind != "lmdeploy";
                let native = *kind == "vllm" || !matches!(path, "v1/responses" | "v1/messages");
                let body = chat_body(path);
                let target = format!("/olla/{kind}/{path}");
                let authorization = bearer(ALICE);
                // A translation may not understand what this backend says.
                let before = backend.count();
                post(&gateway, &target, &[&authorization], body);
                assert_eq!(backend.count(), before + 1, "{target}");
                let sent = backend.last().text();
                let value: Value = serde_json::from_str(&sent).unwrap();
                assert_eq!(
                    value.get("cache_salt").is_some(),
                    is_salted,
                    "{target} {sent}"
                );
                if is_salted && native {
                    salts.push(salt_before(&sent, body));
                } else if native {
                    assert_eq!(sent, body, "{target}");
                }
            }
        }
        salts.dedup();
        assert_eq!(salts.len(), 1, "one key has one salt everywhere");
    });
}

#[test]
fn translations_and_aliases_are_salted_too() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["real-name"]);
        let one = endpoint("one", "sglang", &backend, "");
        let more = "[model_aliases]\nm = [\"real-name\"]\n";
        let gateway = over(driver, &one, more);
        let chat = "/olla/openai/v1/chat/completions";
        let named = BODY.replace("\"m\"", "\"real-name\"");
        let salt = salt_before(&sent(&gateway, &backend, (chat, ALICE), BODY), &named);
        // Ollama's API, translated to a chat.
        let body =
            json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": "hi"}]});
        let head = format!("POST /api/chat\r\nAuthorization: Bearer {ALICE}");
        exchange(&gateway, &head, body.to_string().as_bytes());
        let seen = backend.last();
        assert_eq!(seen.path(), "/v1/chat/completions");
        let value: Value = serde_json::from_str(&seen.text()).unwrap();
        assert_eq!(value["cache_salt"], salt.as_str());
        assert_eq!(value["model"], "real-name");
        // What is no JSON object stays as it is.
        for body in ["hello", "[1]"] {
            let path = "/olla/sglang/v1/completions";
            let head = format!("POST {path}\r\nAuthorization: Bearer {ALICE}");
            exchange(&gateway, &head, body.as_bytes());
            assert_eq!(backend.last().text(), body);
        }
    });
}
