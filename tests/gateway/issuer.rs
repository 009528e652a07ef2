//! Tokens of an issuer, and the dashboard's login.
//!
//! Contract: docs/contract/access.md#9, docs/contract/access.md#12

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use testkit::{
    Backend, Config, Driver, Folder, Gateway, Response, bearer, endpoint, exchange, get,
    on_both_drivers, post, wait_for, wait_until,
};

const ROOT: &str = "sk-root-0123456789abcdef";
const VIEWER: &str = "sk-viewer-0123456789abcdef";
const CLIENT: &str = "sk-client-0123456789abcdef";
const CHAT: &str = "/olla/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const LOGIN: &str = "/internal/ui/login";

/// One key of an issuer.
pub(crate) struct Signer {
    id: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Self { id, key }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x, "use": "sig"})
    }

    /// A token with these claims besides the usual ones.
    pub(crate) fn token(&self, more: &Value) -> String {
        let mut claims = json!({
            "iss": "https://idp.example", "aud": "olla", "sub": "dana", "exp": 4_102_444_800_u64,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "EdDSA", "kid": self.id});
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// The set of these keys.
pub(crate) fn set_of(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// An issuer that serves a set, and counts how often; an empty set is status 500.
struct Issuer {
    backend: Backend,
    set: Arc<Mutex<String>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    fn serving(set: String) -> Self {
        let set = Arc::new(Mutex::new(set));
        let fetches = Arc::new(AtomicUsize::new(0));
        let (served, count) = (Arc::clone(&set), Arc::clone(&fetches));
        let backend = Backend::new(&[], move |request, link| {
            assert_eq!(request.path(), "/keys");
            count.fetch_add(1, Ordering::SeqCst);
            let set = served.lock().unwrap().clone();
            let status = if set.is_empty() { 500 } else { 200 };
            link.respond(status, "application/json", set);
        });
        Self {
            backend,
            set,
            fetches,
        }
    }

    fn count(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

const HOSTS: &str = "[dashboard.access_policy]\nallowed_hosts = [\"localhost\", \"gateway.test\"]";

fn config(driver: Driver, backend: &Backend, jwks: &str, more: &str) -> Config {
    let access = format!(
        "[access]\nenabled = true\nmax_refused_per_minute = 0\n[access.policies.dev]\n[access.policies.boss]\nadmin = true\n\
         [[access.keys]]\nname = \"viewer\"\nkey = \"${{VIEWER}}\"\nadmin = \"read\"\n\
         [[access.keys]]\nname = \"client\"\nkey = \"${{CLIENT}}\"\n\
         [access.jwt]\nissuer = \"https://idp.example\"\naudience = \"olla\"\npolicy = \"dev\"\n\
         {jwks}\n{more}"
    );
    Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .env("VIEWER", VIEWER)
        .env("CLIENT", CLIENT)
        .more(&endpoint("one", "vllm", backend, ""))
        .more(HOSTS)
        .more(&access)
}

fn chat(gateway: &Gateway, secret: &str) -> Response {
    post(gateway, CHAT, &[&bearer(secret)], BODY)
}

/// The page is kept for a moment.
fn wait_metric(gateway: &Gateway, name: &str, value: f64) {
    wait_until(name, || gateway.metric(name) == Some(value));
}

#[test]
fn keys_are_fetched_and_an_unknown_one_is_fetched_once() {
    on_both_drivers(|driver| {
        let (old, new, foreign) = (Signer::new("old"), Signer::new("new"), Signer::new("other"));
        let issuer = Issuer::serving(set_of(&[&old]));
        let backend = Backend::ok(&["m"]);
        let jwks = format!("jwks_url = \"{}/keys\"", issuer.backend.url());
        let gateway = Gateway::start(&config(driver, &backend, &jwks, ""));
        gateway.wait_line(&["Signing keys fetched", "\"keys\":1"]);
        assert_eq!(chat(&gateway, &old.token(&json!({}))).status, 200);
        assert_eq!(backend.last().header("Authorization"), None);
        wait_metric(&gateway, "olla_jwks_keys", 1.0);
        // The issuer has a new key: the first request that has it waits for one fetch.
        *issuer.set.lock().unwrap() = set_of(&[&old, &new]);
        let before = issuer.count();
        assert_eq!(chat(&gateway, &new.token(&json!({}))).status, 200);
        assert_eq!(issuer.count(), before + 1);
        // Within a minute there is no other, whoever asks.
        for _ in 0..3 {
            let refused = chat(&gateway, &foreign.token(&json!({})));
            let message = refused.is_error(401, "unauthorized", "INVALID_TOKEN");
            assert_eq!(message, "The token is not valid: unknown signing key.");
        }
        assert_eq!(issuer.count(), before + 1);
        gateway.wait_line(&["Key refused", "\"token_reason\":\"unknown signing key\""]);
        // Two tokens have had a valid signature, of one name.
        wait_metric(&gateway, "olla_access_keys{source=\"jwt\"}", 1.0);
    });
}

#[test]
fn a_login_waits_for_an_unknown_key_as_requests_do() {
    on_both_drivers(|driver| {
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let issuer = Issuer::serving(set_of(&[&old]));
        let backend = Backend::ok(&["m"]);
        let jwks = format!("jwks_url = \"{}/keys\"", issuer.backend.url());
        let gateway = Gateway::start(&config(driver, &backend, &jwks, "allow_admin = true"));
        gateway.wait_line(&["Signing keys fetched", "\"keys\":1"]);
        *issuer.set.lock().unwrap() = set_of(&[&old, &new]);
        let before = issuer.count();
        let boss = json!({"olla_policy": "boss"});
        let entered = log_in(&gateway, &new.token(&boss));
        assert_eq!(entered.status, 200, "{}", entered.text());
        assert_eq!(entered.json()["name"], "jwt:dana");
        let cookie = cookie(&entered);
        assert_eq!(get(&gateway, "/internal/status", &[&cookie]).status, 200);
        assert_eq!(issuer.count(), before + 1);
        // Within a minute there is no other fetch.
        let foreign = Signer::new("other").token(&boss);
        let refused = log_in(&gateway, &foreign);
        assert_eq!(refused.json()["error"]["code"], "INVALID_TOKEN");
        assert_eq!(issuer.count(), before + 1);
    });
}

#[test]
fn without_keys_tokens_wait_and_other_keys_do_not() {
    on_both_drivers(|driver| {
        let signer = Signer::new("k");
        let issuer = Issuer::serving(String::new());
        let backend = Backend::ok(&["m"]);
        let jwks = format!("jwks_url = \"{}/keys\"", issuer.backend.url());
        let gateway = Gateway::start(&config(driver, &backend, &jwks, ""));
        gateway.wait_line(&["Signing keys not fetched", "expected status 200, got 500"]);
        let token = signer.token(&json!({}));
        let refused = chat(&gateway, &token);
        refused.is_error(503, "service_unavailable", "TOKEN_CHECK_UNAVAILABLE");
        assert_eq!(refused.header("Retry-After"), Some("1"));
        assert_eq!(chat(&gateway, CLIENT).status, 200);
        wait_metric(&gateway, "olla_jwks_up", 0.0);
        *issuer.set.lock().unwrap() = set_of(&[&signer]);
        wait_until("the keys", || chat(&gateway, &token).status == 200);
        wait_metric(&gateway, "olla_jwks_up", 1.0);
    });
}

#[test]
fn a_file_with_keys_is_followed() {
    on_both_drivers(|driver| {
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        let folder = Folder::new();
        folder.write("jwks.json", &set_of(&[&one]));
        let backend = Backend::ok(&["m"]);
        let jwks = format!("jwks_file = {:?}", folder.file("jwks.json"));
        let gateway = Gateway::start(&config(driver, &backend, &jwks, ""));
        gateway.wait_line(&["Signing keys fetched"]);
        assert_eq!(chat(&gateway, &one.token(&json!({}))).status, 200);
        assert_eq!(chat(&gateway, &two.token(&json!({}))).status, 401);
        folder.write("jwks.json", "{\"keys\":[");
        gateway.wait_line(&["Signing keys not fetched", "ERROR"]);
        assert_eq!(chat(&gateway, &one.token(&json!({}))).status, 200);
        folder.write("jwks.json", &set_of(&[&two]));
        let within = Duration::from_secs(2);
        let token = two.token(&json!({}));
        wait_for("the new key", within, || {
            (chat(&gateway, &token).status == 200).then_some(())
        });
        assert_eq!(chat(&gateway, &one.token(&json!({}))).status, 401);
    });
}

#[test]
fn a_file_without_keys_refuses_the_start() {
    let folder = Folder::new();
    folder.write("jwks.json", "{\"keys\":[]}");
    let backend = Backend::ok(&["m"]);
    let jwks = format!("jwks_file = {:?}", folder.file("jwks.json"));
    let started = Gateway::try_start(&config(Driver::Epoll, &backend, &jwks, ""));
    let message = started.err().unwrap();
    assert!(message.contains("access.jwt.jwks_file"), "{message}");
}

#[test]
fn tokens_administer_only_if_that_is_allowed() {
    on_both_drivers(|driver| {
        let signer = Signer::new("k");
        let folder = Folder::new();
        folder.write("jwks.json", &set_of(&[&signer]));
        let jwks = format!("jwks_file = {:?}", folder.file("jwks.json"));
        let token = signer.token(&json!({"olla_policy": "boss"}));
        for (more, status) in [("", 403), ("allow_admin = true", 200)] {
            let backend = Backend::ok(&["m"]);
            let gateway = Gateway::start(&config(driver, &backend, &jwks, more));
            gateway.wait_line(&["Signing keys fetched"]);
            assert_eq!(
                get(&gateway, "/internal/status", &[&bearer(&token)]).status,
                status
            );
            let refused = log_in(&gateway, &token);
            assert_eq!(refused.status, status);
        }
    });
}

fn log_in(gateway: &Gateway, secret: &str) -> Response {
    let body = json!({ "key": secret }).to_string();
    post(gateway, LOGIN, &[], body)
}

/// The session cookie of a login.
fn cookie(answer: &Response) -> String {
    let set = answer.header("Set-Cookie").unwrap();
    let pair = set.split(';').next().unwrap();
    format!("Cookie: theme=dark; {pair}")
}

#[test]
fn an_admin_key_becomes_a_session() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        folder.write("jwks.json", &set_of(&[&Signer::new("k")]));
        let jwks = format!("jwks_file = {:?}", folder.file("jwks.json"));
        let gateway = Gateway::start(&config(driver, &backend, &jwks, ""));
        let page = get(&gateway, "/internal/ui/", &[]);
        assert_eq!((page.status, page.header("Location")), (303, Some(LOGIN)));
        let page = get(&gateway, LOGIN, &[]);
        assert_eq!(
            (page.status, page.header("X-Frame-Options")),
            (200, Some("DENY"))
        );
        assert!(page.text().contains("login.js"));
        assert_eq!(
            get(&gateway, "/internal/ui/assets/login.js", &[]).status,
            200
        );

        for (secret, status, code) in [
            (CLIENT, 403, "ADMIN_REQUIRED"),
            ("sk-nobody-0123456789abcdef", 401, "INVALID_API_KEY"),
            ("ollama", 401, "MISSING_API_KEY"),
        ] {
            let refused = log_in(&gateway, secret);
            assert_eq!(refused.status, status);
            assert_eq!(refused.json()["error"]["code"], code);
            assert_eq!(refused.header("Set-Cookie"), None);
        }
        let form = format!("POST {LOGIN}\r\nContent-Type: text/plain");
        let form = exchange(&gateway, &form, b"{}");
        assert_eq!(form.status, 415);
        assert_eq!(post(&gateway, LOGIN, &[], "{}").status, 400);
        let foreign = ["Origin: http://evil.example"];
        let body = json!({ "key": ROOT }).to_string();
        assert_eq!(post(&gateway, LOGIN, &foreign, body).status, 403);
        let wrong = exchange(&gateway, &format!("PUT {LOGIN}"), b"");
        assert_eq!(
            (wrong.status, wrong.header("Allow")),
            (405, Some("GET, HEAD, POST"))
        );

        let entered = log_in(&gateway, ROOT);
        assert_eq!(entered.status, 200);
        let said = entered.json();
        assert_eq!(
            (&said["name"], &said["admin"]),
            (&json!("env-admin"), &json!(true))
        );
        let set = entered.header("Set-Cookie").unwrap();
        let rest = "; Path=/internal/; HttpOnly; SameSite=Strict; Max-Age=43200";
        assert!(
            set.starts_with("olla_session=") && set.ends_with(rest),
            "{set}"
        );
        let cookie = cookie(&entered);
        assert!(
            get(&gateway, "/internal/ui/", &[&cookie])
                .text()
                .contains("Log out")
        );
        for path in [
            "/internal/ui/",
            "/internal/status",
            "/internal/ui/endpoints",
        ] {
            assert_eq!(get(&gateway, path, &[&cookie]).status, 200, "{path}");
        }
        wait_metric(&gateway, "olla_access_sessions", 1.0);
        // It counts on the operator's routes only, and not beside a live key.
        assert_eq!(get(&gateway, "/olla/models", &[&cookie]).status, 401);
        let both = get(&gateway, "/internal/status", &[&cookie, &bearer(CLIENT)]);
        assert_eq!(both.status, 403);
        let other = get(
            &gateway,
            "/internal/status",
            &[&cookie, &bearer("sk-wrong-0123456789ab")],
        );
        assert_eq!(other.status, 200);
        // Pages of other sites.
        let foreign = get(
            &gateway,
            "/internal/status",
            &[&cookie, "Origin: http://evil.example"],
        );
        assert_eq!(foreign.json()["error"]["code"], "CSRF_CHECK_FAILED");
        let head = |more: &str| format!("POST /internal/status\r\n{cookie}{more}");
        let bare = exchange(&gateway, &head(""), b"");
        assert_eq!(bare.json()["error"]["code"], "CSRF_CHECK_FAILED");
        let marked = exchange(&gateway, &head("\r\nX-Olla-Dashboard: 1"), b"");
        assert_eq!(marked.status, 405);

        let left = exchange(
            &gateway,
            &format!("POST /internal/ui/logout\r\n{cookie}"),
            b"",
        );
        assert_eq!(left.status, 204);
        assert!(left.header("Set-Cookie").unwrap().ends_with("Max-Age=0"));
        assert_eq!(get(&gateway, "/internal/status", &[&cookie]).status, 401);
        gateway.wait_line(&[
            "Admin action",
            "\"action\":\"login\"",
            "\"key\":\"env-admin\"",
        ]);
        gateway.wait_line(&["Admin action", "\"action\":\"logout\""]);
        assert!(!gateway.log().contains(ROOT));
    });
}

#[test]
fn a_session_ends_with_its_key() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let endpoints = endpoint("one", "vllm", &backend, "");
        let keys = |more: &str| {
            format!(
                "{endpoints}\n[access]\nenabled = true\n[[access.keys]]\nname = \"viewer\"\n\
                 key = \"${{VIEWER}}\"\nadmin = \"read\"\n{more}"
            )
        };
        let base = Config::new(driver)
            .env("OLLA_ADMIN_KEY", ROOT)
            .env("VIEWER", VIEWER);
        let mut gateway = Gateway::start(&base.more(HOSTS).more(&keys("")));
        let entered = log_in(&gateway, VIEWER);
        assert_eq!(entered.json()["admin"], "read");
        let cookie = cookie(&entered);
        assert_eq!(get(&gateway, "/internal/status", &[&cookie]).status, 200);
        gateway.rewrite(&keys("enabled = false"));
        gateway.signal("HUP");
        wait_until("the end of the session", || {
            get(&gateway, "/internal/status", &[&cookie]).status == 401
        });
        let refused = log_in(&gateway, VIEWER);
        assert_eq!(refused.json()["error"]["code"], "API_KEY_DISABLED");
    });
}

#[test]
fn without_access_there_is_no_login() {
    let backend = Backend::ok(&["m"]);
    let endpoints = endpoint("one", "vllm", &backend, "");
    let gateway = Gateway::start(&Config::new(Driver::Epoll).more(HOSTS).more(&endpoints));
    let page = get(&gateway, LOGIN, &[]);
    assert_eq!(
        (page.status, page.header("Location")),
        (307, Some("/internal/ui/"))
    );
    let page = get(&gateway, "/internal/ui/", &[]);
    assert!(page.text().contains("Overview"));
    assert!(!page.text().contains("Log out"));
}
