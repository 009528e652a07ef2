//! Keys: which route needs one, where it is looked for, that no endpoint sees it, and how keys
//! change while the gateway runs.
//!
//! Contract: docs/contract/access.md#1 to docs/contract/access.md#4, docs/contract/access.md#8,
//! docs/contract/access.md#10, docs/contract/access.md#15

use std::time::Duration;

use serde_json::json;
use testkit::{
    Backend, Client, Config, Driver, Folder, Gateway, Response, bearer, endpoint, exchange, get,
    on_both_drivers, post, wait_for, wait_until,
};

/// Made by the gateway.
const ALICE: &str = "olla-EQcCNR6WkewLTwzvKyCmzgNXrUKY4m2ArgyHfhdeokR3gAVw1";
/// Brought along.
const BOB: &str = "sk-bob-0123456789abcdef";
const VIEWER: &str = "sk-viewer-0123456789abcdef";
const ROOT: &str = "sk-root-0123456789abcdef";

const CHAT: &str = "/olla/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

const KEYS: &str = r#"
[dashboard.access_policy]
allowed_hosts = ["localhost", "gateway.test"]
[access]
enabled = true
[access.policies.dev]
[[access.keys]]
name = "alice"
hash = "sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7"
policy = "dev"
[[access.keys]]
name = "bob"
key = "${BOB}"
[[access.keys]]
name = "viewer"
key = "${VIEWER}"
admin = "read"
[[access.keys]]
name = "late"
key = "${LATE}"
expires = "2026-01-31T00:00:00Z"
[[access.keys]]
name = "off"
key = "${OFF}"
enabled = false
"#;

fn config(driver: Driver, endpoints: &str, more: &str) -> Config {
    Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .env("BOB", BOB)
        .env("VIEWER", VIEWER)
        .env("LATE", "sk-late-0123456789abcdef")
        .env("OFF", "sk-off-0123456789abcdef")
        .more(endpoints)
        .more(KEYS)
        .more(more)
}

fn over(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    Gateway::start(&config(driver, &endpoint("one", "vllm", backend, ""), more))
}

fn with(gateway: &Gateway, method: &str, path: &str, secret: &str) -> Response {
    exchange(
        gateway,
        &format!("{method} {path}\r\n{}", bearer(secret)),
        b"",
    )
}

/// A refusal in OpenAI's form with what every refusal of a key has.
#[track_caller]
fn is_refusal(answer: &Response, status: u16, code: &str) -> String {
    let kind = match status {
        401 => "unauthorized",
        403 => "forbidden",
        _ => "rate_limit_exceeded",
    };
    let message = answer.is_error(status, kind, code);
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let challenge = match (status, code) {
        (401, "MISSING_API_KEY") => Some("Bearer realm=\"olla\""),
        (401, _) => Some("Bearer realm=\"olla\", error=\"invalid_token\""),
        _ => None,
    };
    assert_eq!(answer.header("WWW-Authenticate"), challenge);
    message
}

#[test]
fn every_route_needs_what_the_contract_says() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        for open in ["/internal/health", "/internal/ready", "/version"] {
            assert_eq!(get(&gateway, open, &[]).status, 200, "{open}");
        }
        let page = get(&gateway, "/", &["Accept: text/html"]);
        assert_eq!(page.status, 302);
        let asked = backend.count();
        for closed in [
            "/",
            "/olla/models",
            "/olla/proxy/x",
            "/v1/nothing",
            "/v1/models",
            "/nothing",
            "/internal",
            "/internal/",
            "/internal/status",
            "/internal/nothing",
            "/internal/metrics",
            "/internal//status",
        ] {
            let message = is_refusal(&get(&gateway, closed, &[]), 401, "MISSING_API_KEY");
            assert!(message.contains("x-api-key: KEY"), "{message}");
        }
        assert_eq!(backend.count(), asked);
        let table = [
            // path, a client, an operator who may read, an operator
            ("/olla/models", 200, 200, 200),
            ("/olla/proxy/x", 200, 200, 200),
            ("/v1/x", 200, 200, 200),
            ("/nothing", 404, 404, 404),
            ("/internal/status", 403, 200, 200),
            ("/internal/nothing", 403, 404, 404),
            ("/internal/keys", 403, 403, 0),
            ("/internal/keys/alice", 403, 403, 0),
            ("/internal", 403, 404, 404),
        ];
        for (path, client, reader, operator) in table {
            for (secret, want) in [(ALICE, client), (VIEWER, reader), (ROOT, operator)] {
                if want > 0 {
                    let status = with(&gateway, "GET", path, secret).status;
                    assert_eq!(status, want, "{path} {secret}");
                }
            }
        }
        let refused = with(&gateway, "GET", "/internal/status", ALICE);
        let message = is_refusal(&refused, 403, "ADMIN_REQUIRED");
        assert_eq!(
            message,
            "The API key 'alice' may not use this route: it needs admin."
        );
        assert_eq!(
            with(&gateway, "POST", "/internal/status", VIEWER).status,
            403
        );
        assert_eq!(with(&gateway, "POST", "/internal/status", ROOT).status, 405);
    });
}

#[test]
fn the_dashboard_leads_to_its_login() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let page = get(&gateway, "/internal/ui/", &[]);
        assert_eq!(
            (page.status, page.header("Location")),
            (303, Some("/internal/ui/login"))
        );
        is_refusal(
            &post(&gateway, "/internal/ui/", &[], ""),
            401,
            "MISSING_API_KEY",
        );
        is_refusal(
            &with(&gateway, "GET", "/internal/ui/", ALICE),
            403,
            "ADMIN_REQUIRED",
        );
        assert_eq!(with(&gateway, "GET", "/internal/ui/", VIEWER).status, 200);
        assert_eq!(with(&gateway, "GET", "/internal/ui/", ROOT).status, 200);
    });
}

#[test]
fn model_management_needs_an_operator() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let pull = "/olla/ollama/api/pull";
        let forward = "[proxy]\nmodel_management = \"forward\"";
        let endpoints = endpoint("one", "ollama", &backend, "");
        let gateway = Gateway::start(&config(driver, &endpoints, forward));
        let answer = post(&gateway, pull, &[&bearer(ALICE)], "{\"model\":\"m\"}");
        is_refusal(&answer, 403, "ADMIN_REQUIRED");
        assert_eq!(
            post(&gateway, pull, &[&bearer(ROOT)], "{\"model\":\"m\"}").status,
            200
        );
        drop(gateway);
        let gateway = Gateway::start(&config(driver, &endpoints, ""));
        assert_eq!(
            post(&gateway, pull, &[&bearer(ALICE)], "{\"model\":\"m\"}").status,
            501
        );
    });
}

#[test]
fn the_first_live_credential_counts_and_none_is_sent_on() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let live: [&[&str]; 8] = [
            &[&bearer(ALICE)],
            &[&format!("authorization: bEARER \t {ALICE} ")],
            &[&format!("X-Api-Key: {ALICE}")],
            &[&format!("API-key: {BOB}")],
            &[
                "Authorization: Bearer foreign",
                &format!("x-api-key: {ALICE}"),
            ],
            &["Authorization: Basic YTpi", &format!("api-key: {BOB}")],
            &[
                "Authorization: Bearer ollama",
                "x-api-key: EMPTY",
                &format!("api-key: {BOB}"),
            ],
            &[
                &bearer(ALICE),
                "x-api-key: sk-elses-0001",
                "api-key: sk-elses-0002",
            ],
        ];
        for fields in live {
            let mut fields = fields.to_vec();
            fields.extend(["X-Team: t1", "X-Auth-Token: kept"]);
            assert_eq!(
                post(&gateway, CHAT, &fields, BODY).status,
                200,
                "{fields:?}"
            );
            let seen = backend.last();
            for name in ["Authorization", "x-api-key", "api-key"] {
                assert_eq!(seen.header(name), None, "{fields:?}");
            }
            assert_eq!(seen.header("X-Team"), Some("t1"));
            assert_eq!(seen.header("X-Auth-Token"), Some("kept"));
        }
        let count = backend.count();
        let unknown: [&[&str]; 6] = [
            &["Authorization: Bearer olla-wrong"],
            &[&bearer(&format!("{ALICE}x"))],
            &["Authorization: Bearer foreign", &bearer(ALICE)],
            &["x-api-key: nobody", "api-key: nobody-else"],
            &[&format!("api-key: {}", "k".repeat(9000))],
            &[&format!("x-api-key: {ALICE} {ALICE}")],
        ];
        for fields in unknown {
            let message = is_refusal(&post(&gateway, CHAT, fields, BODY), 401, "INVALID_API_KEY");
            assert_eq!(message, "The API key is not valid.");
        }
        let missing: [&[&str]; 5] = [
            &["Authorization: Basic YTpi"],
            &["Authorization: Bearer"],
            &[
                "Authorization: Bearer ollama",
                "x-api-key: EMPTY",
                "api-key: ",
            ],
            &[&format!("X-Auth-Token: {ALICE}")],
            &[&format!("Cookie: olla_session={ALICE}")],
        ];
        for fields in missing {
            is_refusal(&post(&gateway, CHAT, fields, BODY), 401, "MISSING_API_KEY");
        }
        let query = format!("{CHAT}?api_key={ALICE}");
        is_refusal(&post(&gateway, &query, &[], BODY), 401, "MISSING_API_KEY");
        assert_eq!(backend.count(), count);
    });
}

#[test]
fn an_endpoint_gets_its_own_credential() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let auth = "auth = { type = \"bearer\", token = \"own-token\" }";
        let endpoints = endpoint("one", "vllm", &backend, auth);
        let gateway = Gateway::start(&config(driver, &endpoints, ""));
        let fields = [bearer(ALICE), format!("x-api-key: {BOB}")];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_eq!(post(&gateway, CHAT, &fields, BODY).status, 200);
        let seen = backend.last();
        assert_eq!(seen.all("Authorization"), ["Bearer own-token"]);
        assert_eq!(seen.header("x-api-key"), None);
        // A translated request too.
        let endpoints = endpoint("one", "openai-compatible", &backend, "");
        let gateway = Gateway::start(&config(driver, &endpoints, ""));
        let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
        post(
            &gateway,
            "/olla/anthropic/v1/messages",
            &[&format!("x-api-key: {BOB}")],
            body,
        );
        assert_eq!(backend.last().path(), "/v1/chat/completions");
        assert_eq!(backend.last().header("Authorization"), None);
    });
}

#[test]
fn refusals_name_their_reason_in_the_dialect_of_the_route() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let late = post(&gateway, CHAT, &[&bearer("sk-late-0123456789abcdef")], BODY);
        let message = is_refusal(&late, 401, "API_KEY_EXPIRED");
        assert_eq!(
            message,
            "The API key 'late' expired at 2026-01-31T00:00:00Z."
        );
        let off = post(&gateway, CHAT, &[&bearer("sk-off-0123456789abcdef")], BODY);
        let message = is_refusal(&off, 401, "API_KEY_DISABLED");
        assert_eq!(message, "The API key 'off' is disabled.");
        let messages = post(
            &gateway,
            "/olla/anthropic/v1/messages",
            &["x-api-key: sk-ant"],
            BODY,
        );
        assert_eq!(messages.status, 401);
        let error = messages.json();
        assert_eq!(error["type"], "error");
        assert_eq!(
            error["error"],
            json!({
                "type": "authentication_error",
                "message": "The API key is not valid.",
                "code": "INVALID_API_KEY",
            })
        );
        assert!(error["request_id"].is_string());
        let chat = post(&gateway, "/api/chat", &[], BODY);
        assert_eq!(chat.status, 401);
        let error = chat.json();
        assert!(
            error["error"].as_str().unwrap().starts_with("No API key"),
            "{error}"
        );
    });
}

#[test]
fn a_refusal_comes_before_the_body_and_without_100_continue() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.send(format!(
            "POST {CHAT} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        ));
        is_refusal(&client.response(), 401, "MISSING_API_KEY");
        // A page can ask whether it may send a key.
        let preflight = exchange(
            &gateway,
            &format!(
                "OPTIONS {CHAT}\r\nOrigin: https://page.test\r\n\
                 Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization"
            ),
            b"",
        );
        assert_eq!(preflight.status, 204);
        let refused = post(&gateway, CHAT, &["Origin: https://page.test"], BODY);
        is_refusal(&refused, 401, "MISSING_API_KEY");
        assert_eq!(refused.header("Access-Control-Allow-Origin"), Some("*"));
    });
}

#[test]
fn requests_without_a_credential_may_be_admitted() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = "[access]\nanonymous = \"dev\"\n[server]\nrequest_logging = true";
        let gateway = over(driver, &backend, more);
        assert_eq!(
            post(&gateway, CHAT, &["x-api-key: EMPTY"], BODY).status,
            200
        );
        assert_eq!(backend.last().header("x-api-key"), None);
        is_refusal(
            &post(&gateway, CHAT, &["x-api-key: wrong"], BODY),
            401,
            "INVALID_API_KEY",
        );
        is_refusal(
            &get(&gateway, "/internal/status", &[]),
            401,
            "MISSING_API_KEY",
        );
        assert_eq!(get(&gateway, "/internal/ui/", &[]).status, 303);
        gateway.wait_line(&[
            "Request completed",
            "\"key\":\"anonymous\"",
            "\"policy\":\"dev\"",
        ]);
    });
}

#[test]
fn an_address_with_too_many_wrong_keys_is_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let gateway = over(driver, &backend, "[access]\nmax_refused_per_minute = 3");
        for _ in 0..3 {
            is_refusal(
                &post(&gateway, CHAT, &["api-key: wrong"], BODY),
                401,
                "INVALID_API_KEY",
            );
            // A request without a credential takes none.
            is_refusal(&post(&gateway, CHAT, &[], BODY), 401, "MISSING_API_KEY");
        }
        let over = post(&gateway, CHAT, &["api-key: wrong"], BODY);
        let message = is_refusal(&over, 429, "TOO_MANY_INVALID_KEYS");
        let after: u64 = over.header("Retry-After").unwrap().parse().unwrap();
        assert!((1..=20).contains(&after), "{after}");
        assert_eq!(
            message,
            format!("Too many invalid API keys came from this address. Try again in {after} s.")
        );
        // What may be guessed is refused too; what nobody can guess passes.
        is_refusal(
            &post(&gateway, CHAT, &[&bearer(BOB)], BODY),
            429,
            "TOO_MANY_INVALID_KEYS",
        );
        assert_eq!(post(&gateway, CHAT, &[&bearer(ALICE)], BODY).status, 200);
        is_refusal(&post(&gateway, CHAT, &[], BODY), 401, "MISSING_API_KEY");
        gateway.wait_line(&["Key refused", "\"reason\":\"too_many\"", "\"key\":\"bob\""]);
    });
}

#[test]
fn logs_name_keys_and_never_secrets() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = "[logging]\nlevel = \"debug\"\n[server]\nrequest_logging = true";
        let gateway = over(driver, &backend, more);
        let wrong = "sk-not-a-key-4711-0815";
        let late = "sk-late-0123456789abcdef";
        post(&gateway, CHAT, &[&bearer(ALICE)], BODY);
        post(&gateway, CHAT, &[&bearer(wrong)], BODY);
        post(&gateway, CHAT, &[&bearer(late)], BODY);
        post(&gateway, CHAT, &[&format!("x-api-key: {BOB}")], BODY);
        get(&gateway, "/olla/models", &[]);
        let (alice, dev) = ("\"key\":\"alice\"", "\"policy\":\"dev\"");
        for line in [
            "Request received",
            "Request dispatching",
            "Request completed",
            "Access log",
        ] {
            gateway.wait_line(&[line, alice, dev]);
        }
        gateway.wait_line(&[
            "Key refused",
            "\"reason\":\"unknown\"",
            "\"key_id\":\"ccd16a2b\"",
        ]);
        gateway.wait_line(&["Key refused", "\"reason\":\"expired\"", "\"key\":\"late\""]);
        gateway.wait_line(&[
            "Key refused",
            "\"reason\":\"missing\"",
            "\"level\":\"DEBUG\"",
        ]);
        gateway.wait_line(&["Keys loaded", "\"source\":\"config\"", "\"added\":5"]);
        gateway.wait_line(&["Keys loaded", "\"source\":\"env\"", "\"keys\":1"]);
        gateway.wait_line(&[
            "Request completed",
            "\"key\":\"bob\"",
            "\"policy\":\"default\"",
        ]);
        let log = gateway.log();
        for secret in [ALICE, BOB, ROOT, wrong, late, "f8e1db8bf8609916"] {
            assert!(!log.contains(secret), "{secret}");
        }
        wait_until("the metrics", || {
            gateway.metric("olla_access_refused_total{reason=\"unknown\"}") == Some(1.0)
        });
        assert_eq!(gateway.metric("olla_access_enabled"), Some(1.0));
        assert_eq!(
            gateway.metric("olla_access_keys{source=\"config\"}"),
            Some(5.0)
        );
        assert_eq!(gateway.metric("olla_access_keys_file_ok"), Some(1.0));
        assert_eq!(
            gateway.metric("olla_access_refused_total{reason=\"csrf\"}"),
            Some(0.0)
        );
    });
}

#[test]
fn an_endpoint_that_refuses_the_gateway_is_left_for_another() {
    on_both_drivers(|driver| {
        let closed = Backend::new(&["m"], |_, link| {
            link.respond(401, "application/json", "{\"error\":\"who are you?\"}");
        });
        let open = Backend::ok(&["m"]);
        let endpoints = [
            endpoint("closed", "vllm", &closed, "priority = 200"),
            endpoint("open", "vllm", &open, "priority = 100"),
        ]
        .concat();
        let more = "[proxy]\nload_balancer = \"priority\"";
        let gateway = Gateway::start(&config(driver, &endpoints, more));
        let served = post(&gateway, CHAT, &[&bearer(ALICE)], BODY);
        assert_eq!(
            (served.status, served.header("X-Olla-Endpoint")),
            (200, Some("open"))
        );
        assert_eq!(closed.count(), 1);
        open.stop();
        gateway.wait_status("open", "offline");
        let refused = post(&gateway, CHAT, &[&bearer(ALICE)], BODY);
        let message = refused.is_error(502, "bad_gateway", "ENDPOINT_AUTH_FAILED");
        assert_eq!(
            message,
            "The endpoint closed refused the gateway's credentials."
        );
        let error = wait_for("the error of the endpoint", Duration::from_secs(5), || {
            let error = gateway.endpoint("closed")["last_error"].clone();
            (!error.is_null()).then_some(error)
        });
        assert_eq!(
            (&error["kind"], &error["status"]),
            (&json!("auth"), &json!(401))
        );
        // With access off the client's own credential was refused.
        let gateway = Gateway::start(&config(driver, &endpoints, "[access]\nenabled = false"));
        assert_eq!(post(&gateway, CHAT, &[&bearer(ALICE)], BODY).status, 401);
        assert_eq!(
            closed.last().header("Authorization"),
            Some(bearer(ALICE)[15..].trim())
        );
    });
}

/// A keys file with these entries.
fn entries(keys: &[(&str, &str)]) -> String {
    let entry = |(name, hash): &(&str, &str)| {
        format!("[[keys]]\nname = \"{name}\"\nhash = \"sha256:{hash}\"\n")
    };
    keys.iter().map(entry).collect()
}

const ALICES_HASH: &str = "f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7";
const NOBODYS_HASH: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

#[test]
fn a_keys_file_is_followed() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        folder.write("keys.toml", &entries(&[("nobody", NOBODYS_HASH)]));
        let file = folder.file("keys.toml");
        let more = format!("[access]\nenabled = true\nkeys_file = {file:?}");
        let endpoints = endpoint("one", "vllm", &backend, "");
        let base = Config::new(driver).env("OLLA_ADMIN_KEY", ROOT);
        let gateway = Gateway::start(&base.more(&endpoints).more(&more));
        let status = || post(&gateway, CHAT, &[&bearer(ALICE)], BODY).status;
        assert_eq!(status(), 401);
        let within = Duration::from_secs(2);
        folder.write(
            "keys.toml",
            &entries(&[("alice", ALICES_HASH), ("nobody", NOBODYS_HASH)]),
        );
        wait_for("the new key", within, || (status() == 200).then_some(()));
        gateway.wait_line(&[
            "Keys loaded",
            "\"source\":\"file\"",
            "\"added\":1",
            "\"keys\":2",
        ]);
        // A wrong version changes nothing, and is said once.
        folder.write(
            "keys.toml",
            &entries(&[("alice", NOBODYS_HASH), ("a b", ALICES_HASH)]),
        );
        gateway.wait_line(&[
            "Keys file refused",
            "ERROR",
            "keys.toml line 5",
            "keys[1].name",
        ]);
        wait_until("the metric", || {
            gateway.metric("olla_access_keys_file_ok") == Some(0.0)
        });
        assert_eq!(status(), 200);
        std::fs::remove_file(&file).unwrap();
        gateway.wait_line(&["Keys file refused", "cannot be read"]);
        assert_eq!(status(), 200);
        folder.write("keys.toml", &entries(&[("nobody", NOBODYS_HASH)]));
        wait_for("the end of the key", within, || {
            (status() == 401).then_some(())
        });
        wait_until("the metric", || {
            gateway.metric("olla_access_keys_file_ok") == Some(1.0)
        });
        assert_eq!(
            gateway.metric("olla_access_keys{source=\"file\"}"),
            Some(1.0)
        );
        assert_eq!(gateway.log().matches("Keys file refused").count(), 2);
    });
}

#[test]
fn a_reload_takes_a_key_away_and_hurts_no_request() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |_, link| {
            link.begin("text/event-stream");
            link.chunk("data: 1\n\n");
            // The client reads the first piece, reloads, and closes.
            let _ = link.left_within(Duration::from_secs(10));
        });
        let mut gateway = over(driver, &backend, "");
        let mut client = Client::to(&gateway);
        client.request(
            &format!("POST {CHAT}\r\n{}", bearer(ALICE)),
            BODY.as_bytes(),
        );
        assert_eq!(client.head().status, 200);
        assert!(client.chunk().is_some());
        let others = KEYS.replace(ALICES_HASH, NOBODYS_HASH);
        gateway.rewrite(&format!(
            "{}{others}",
            endpoint("one", "vllm", &backend, "")
        ));
        gateway.signal("HUP");
        gateway.wait_line(&["Keys loaded", "\"source\":\"config\"", "\"changed\":1"]);
        is_refusal(
            &get(&gateway, "/olla/models", &[&bearer(ALICE)]),
            401,
            "INVALID_API_KEY",
        );
        assert!(client.is_silent_for(Duration::from_millis(100)));
        // A configuration with an error is refused as a whole, and the keys stay.
        gateway.rewrite("[access]\nkeys_file = \"missing.toml\"\n");
        gateway.signal("HUP");
        gateway.wait_log("missing.toml");
        assert_eq!(get(&gateway, "/olla/models", &[&bearer(BOB)]).status, 200);
    });
}

#[test]
fn sessions_and_stored_responses_belong_to_a_key() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let more = "[proxy.sticky_sessions]\nenabled = true\n\
                    key_sources = [\"session_header\", \"auth_header\"]";
        let gateway = over(driver, &backend, more);
        let outcome = |fields: &[&str]| {
            let answer = post(&gateway, CHAT, fields, BODY);
            let source = answer.header("X-Olla-Sticky-Key-Source").map(str::to_owned);
            (
                answer.header("X-Olla-Sticky-Session").unwrap().to_owned(),
                source,
            )
        };
        let session = "X-Olla-Session-ID: s";
        let own = |outcome: &str| (outcome.to_owned(), Some("session_header".to_owned()));
        assert_eq!(outcome(&[&bearer(ALICE), session]), own("miss"));
        assert_eq!(outcome(&[&bearer(ALICE), session]), own("hit"));
        assert_eq!(outcome(&[&bearer(BOB), session]), own("miss"));
        // The key counts, whichever header has it.
        let auth = |outcome: &str| (outcome.to_owned(), Some("auth_header".to_owned()));
        assert_eq!(outcome(&[&bearer(ALICE)]), auth("miss"));
        assert_eq!(outcome(&[&format!("x-api-key: {ALICE}")]), auth("hit"));
        assert_eq!(outcome(&[&format!("x-api-key: {BOB}")]), auth("miss"));
    });
}

/// What servers may understand otherwise than the gateway does not lead to a hidden model.
#[test]
fn a_hidden_model_is_reached_by_no_detour() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m", "kimi"]);
        let policy = "[access.policies.dev]\nmodels = [\"*\", \"!kimi*\"]";
        let gateway = over(driver, &backend, policy);
        let ask = |method: &str, path: &str, body: &str| {
            let head = format!("{method} {path}\r\n{}", bearer(ALICE));
            exchange(&gateway, &head, body.as_bytes())
        };
        assert_eq!(ask("POST", CHAT, BODY).status, 200);
        let asked = backend.count();
        // The Kelvin sign is a k in lower case, in which models are looked up.
        for name in ["kimi", "\u{212a}imi"] {
            let refused = ask("POST", CHAT, &BODY.replace("\"m\"", &format!("\"{name}\"")));
            refused.is_error(404, "not_found", "MODEL_NOT_FOUND");
        }
        let query = ask("POST", &format!("{CHAT}?mod%65l=kimi"), BODY);
        query.is_error(400, "bad_request", "INVALID_MODEL");
        for (method, path) in [
            ("POST", "/olla/proxy/upstream/kimi/v1/chat/completions"),
            ("POST", "/olla/proxy/engines/kimi/completions"),
            ("POST", "/olla/proxy/slots/0"),
            ("GET", "/olla/proxy/api/v0/models"),
            ("GET", "/v1/%6dodels"),
            ("DELETE", "/olla/proxy/v1/files/f"),
        ] {
            let refused = ask(method, path, BODY);
            refused.is_error(403, "forbidden", "MODEL_REQUIRED");
        }
        // An unknown response may be another key's, which its endpoint does not know.
        let body = r#"{"model":"m","input":"x","previous_response_id":"resp_of_bob"}"#;
        for path in ["/v1/responses", "/olla/openai/v1/responses"] {
            let refused = ask("POST", path, body);
            assert_eq!(refused.status, 400, "{path}");
            let code = &refused.json()["error"]["code"];
            assert_eq!(code, "previous_response_not_found", "{path}");
        }
        let stored = ask("GET", "/v1/responses/resp_of_bob", "");
        assert_eq!(stored.status, 404);
        assert_eq!(backend.count(), asked);
    });
}
