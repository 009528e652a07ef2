//! The state store: keys of the admin API, the usage ledger, what a failing disk means, and the
//! commands for them.
//!
//! Contract: docs/contract/access.md#11, docs/contract/access.md#13, docs/contract/access.md#14

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{
    Backend, Client, Config, Driver, Folder, Gateway, Response, bearer, endpoint, exchange, get,
    on_both_drivers, post, program, run_to_end, wait_until,
};

const ROOT: &str = "sk-root-0123456789abcdef";

const CHAT: &str = "/olla/openai/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn state(folder: &Folder) -> String {
    format!("[state]\npath = '{}'\n", folder.file("state.db").display())
}

/// A gateway without keys.
fn open(driver: Driver, backend: &Backend, folder: &Folder) -> Gateway {
    let endpoints = endpoint("gpu", "vllm", backend, "");
    Gateway::start(&Config::new(driver).more(&endpoints).more(&state(folder)))
}

/// A gateway with an admin key of the environment.
fn keyed(driver: Driver, backend: &Backend, more: &str) -> Gateway {
    let config = Config::new(driver)
        .env("OLLA_ADMIN_KEY", ROOT)
        .more(&endpoint("gpu", "vllm", backend, ""))
        .more("[access]\nenabled = true\n[access.policies.dev]\ntokens_per_day = 1000000\n")
        .more(more);
    Gateway::start(&config)
}

fn admin(gateway: &Gateway, method: &str, path: &str, body: Option<Value>) -> Response {
    let head = format!("{method} {path}\r\nAuthorization: Bearer {ROOT}");
    match body {
        None => exchange(gateway, &head, b""),
        Some(body) => exchange(
            gateway,
            &format!("{head}\r\nContent-Type: application/json"),
            body.to_string().as_bytes(),
        ),
    }
}

fn chat(gateway: &Gateway, secret: &str) -> Response {
    let authorization = bearer(secret);
    post(gateway, CHAT, &[&authorization], BODY)
}

/// The rows of a report as `key model endpoint requests`.
fn rows(report: &Value) -> Vec<String> {
    let rows = report["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        format!(
            "{} {} {} {}",
            text("key"),
            text("model"),
            text("endpoint"),
            row["requests"]
        )
    })
    .collect()
}

/// Waits until a store has these rows.
fn written(file: &str, want: &[&str]) {
    wait_until("usage is written", || {
        let (code, json, _) = olla(&["usage", "--store", file, "--json"]);
        code == Some(0) && rows(&serde_json::from_str(&json).unwrap()) == want
    });
}

/// Runs the program with an admin key: exit code, standard output and standard error.
fn olla(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program("olla"));
    let output = command
        .args(arguments)
        .env("OLLA_ADMIN_KEY", ROOT)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn usage_is_counted_without_keys_and_outlives_the_process() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let mut gateway = open(driver, &backend, &folder);
        for _ in 0..3 {
            assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
        }
        let report = get(&gateway, "/internal/usage", &[]);
        assert_eq!(report.header("Content-Type"), Some("application/json"));
        assert_eq!(report.header("Cache-Control"), Some("no-store"));
        let report = report.json();
        assert_eq!(rows(&report), [" m gpu 3"], "{report}");
        assert_eq!(report["total"]["requests"], 3);
        assert_eq!(report["total"]["errors"], 0);
        assert_eq!(report["group"], json!(["day", "key", "model", "endpoint"]));
        assert_eq!(report["next"], Value::Null);
        let csv = get(&gateway, "/internal/usage?format=csv&group=model", &[]);
        assert_eq!(csv.header("Content-Type"), Some("text/csv"));
        assert!(
            csv.text().starts_with("model,requests,errors,"),
            "{}",
            csv.text()
        );
        for wrong in ["since=x", "group=x", "format=x", "limit=0", "after=x"] {
            let answer = get(&gateway, &format!("/internal/usage?{wrong}"), &[]);
            answer.is_error(400, "bad_request", "INVALID_PARAMETER");
        }
        // Without keys there are no routes for them.
        assert_eq!(get(&gateway, "/internal/keys", &[]).status, 404);
        let file = folder.file("state.db");
        let file = file.to_str().unwrap();
        written(file, &[" m gpu 3"]);
        let (code, out, _) = olla(&["state", "check", file]);
        assert_eq!(code, Some(0), "{out}");
        assert!(
            out.contains("version: 1\n") && out.contains("usage rows: 1 ("),
            "{out}"
        );
        // A clean end loses nothing, also what is not a second old.
        assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
        gateway.signal("TERM");
        assert!(gateway.wait_end(testkit::PATIENCE).success());
        let gateway = open(driver, &backend, &folder);
        let report = get(&gateway, "/internal/usage", &[]).json();
        assert_eq!(rows(&report), [" m gpu 4"]);
    });
}

/// The ledger's tokens, prompt and completion, since the last look.
struct Tokens([u64; 2]);

impl Tokens {
    #[track_caller]
    fn became(&mut self, gateway: &Gateway, prompt: usize, completion: usize) {
        let [had_prompt, had_completion] = self.0;
        let want = [
            had_prompt + prompt as u64,
            had_completion + completion as u64,
        ];
        let total = || {
            let total = get(gateway, "/internal/usage", &[]).json()["total"].clone();
            ["prompt_tokens", "completion_tokens"].map(|name| total[name].as_u64().unwrap())
        };
        wait_until(&format!("{want:?} tokens"), || total() == want);
        self.0 = want;
    }
}

/// The rule of what a request used is the same with keys and without
/// (docs/contract/access.md#7.2, docs/contract/access.md#13).
#[test]
fn usage_that_is_not_reported_is_estimated_without_keys_too() {
    on_both_drivers(|driver| {
        let backend = Backend::new(&["m"], |request, link| {
            let text = request.text();
            if text.contains("\"refuse\"") {
                link.respond(500, "application/json", "{\"error\":\"no\"}");
            } else if text.contains("\"stream\":true") {
                link.begin("text/event-stream");
                for number in 0..3 {
                    link.chunk(format!("data: {{\"n\":{number}}}\n\n"));
                }
                if text.contains("\"leave\"") {
                    link.left_within(testkit::PATIENCE);
                    return;
                }
                let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\
                             \"completion_tokens\":7}}\n\n";
                if text.contains("\"report\"") {
                    link.chunk(usage);
                }
                link.chunk("data: [DONE]\n\n");
                link.chunk("");
            } else if text.contains("\"leave\"") {
                link.left_within(testkit::PATIENCE);
            } else {
                link.ok();
            }
        });
        let folder = Folder::new();
        let gateway = open(driver, &backend, &folder);
        let mut tokens = Tokens([0, 0]);
        let body = |content: &str, more: &str| {
            format!(
                "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]{more}}}"
            )
        };
        let prompt = |body: &str| body.len().div_ceil(4);
        let send = |path: &str, body: &str| post(&gateway, path, &[], body).status;
        // A whole response: its bytes.
        assert_eq!(send(CHAT, BODY), 200);
        tokens.became(&gateway, prompt(BODY), "{\"ok\":true}".len().div_ceil(4));
        // One that is no text.
        assert_eq!(send("/olla/openai/v1/embeddings", BODY), 200);
        tokens.became(&gateway, prompt(BODY), 0);
        // A stream: its events. What an endpoint reports comes before.
        let stream = body("hi", ",\"stream\":true");
        assert_eq!(send(CHAT, &stream), 200);
        tokens.became(&gateway, prompt(&stream), 3);
        assert_eq!(send(CHAT, &body("report", ",\"stream\":true")), 200);
        tokens.became(&gateway, 9, 7);
        // A file costs the same, however long it is.
        let file = body(&format!("data:image/png;base64,{}", "A".repeat(4_000)), "");
        assert_eq!(send(CHAT, &file), 200);
        let text = file.len() - "data:image/png;base64,".len() - 4_000;
        tokens.became(&gateway, 1_000 + text.div_ceil(4), 3);
        // An error costs nothing.
        assert_eq!(send(CHAT, &body("refuse", "")), 500);
        tokens.became(&gateway, 0, 0);
        // A client that leaves pays what there was by then.
        for (leaving, events) in [
            (body("leave", ""), 0),
            (body("leave", ",\"stream\":true"), 3),
        ] {
            let before = backend.count();
            let mut client = Client::to(&gateway);
            client.request(&format!("POST {CHAT}"), leaving.as_bytes());
            backend.wait_count(before + 1);
            if events > 0 {
                assert_eq!(client.head().status, 200);
                for _ in 0..events {
                    assert!(client.chunk().is_some());
                }
            }
            drop(client);
            tokens.became(&gateway, prompt(&leaving), events);
        }
        let total = get(&gateway, "/internal/usage", &[]).json()["total"].clone();
        assert_eq!(
            (&total["requests"], &total["errors"]),
            (&json!(8), &json!(1))
        );
    });
}

#[test]
fn failures_are_counted_under_the_last_endpoint() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let gateway = open(driver, &backend, &folder);
        assert_eq!(post(&gateway, CHAT, &[], BODY).status, 200);
        // Refused requests and listings are not in it.
        let unknown = BODY.replace("\"m\"", "\"nowhere\"");
        assert_eq!(post(&gateway, CHAT, &[], unknown).status, 404);
        assert_eq!(get(&gateway, "/olla/models", &[]).status, 200);
        let report = get(&gateway, "/internal/usage", &[]).json();
        assert_eq!(rows(&report), [" m gpu 1"], "{report}");
    });
}

#[test]
fn a_killed_gateway_has_lost_nothing_that_was_written() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let mut gateway = keyed(driver, &backend, &state(&folder));
        let made = admin(
            &gateway,
            "POST",
            "/internal/keys",
            Some(json!({"name": "alice"})),
        );
        assert_eq!(made.status, 201);
        let secret = made.json()["key"].as_str().unwrap().to_owned();
        assert_eq!(chat(&gateway, &secret).status, 200);
        let file = folder.file("state.db");
        written(file.to_str().unwrap(), &["alice m gpu 1"]);
        let made = admin(
            &gateway,
            "POST",
            "/internal/keys",
            Some(json!({"name": "bob"})),
        );
        assert_eq!(made.status, 201);
        gateway.signal("KILL");
        gateway.wait_end(testkit::PATIENCE);
        let gateway = keyed(driver, &backend, &state(&folder));
        assert_eq!(chat(&gateway, &secret).status, 200);
        let bob = made.json()["key"].as_str().unwrap().to_owned();
        assert_eq!(chat(&gateway, &bob).status, 200, "a key is never lost");
        let report = admin(
            &gateway,
            "GET",
            "/internal/usage?group=key,model,endpoint",
            None,
        );
        assert_eq!(rows(&report.json()), ["alice m gpu 2", "bob m gpu 1"]);
    });
}

#[test]
fn keys_are_made_changed_and_deleted_while_the_gateway_runs() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let gateway = keyed(driver, &backend, &state(&folder));
        let made = admin(
            &gateway,
            "POST",
            "/internal/keys",
            Some(json!({"name": "alice", "policy": "dev", "note": "n", "concurrent": 3})),
        );
        assert_eq!(made.status, 201);
        assert_eq!(made.header("Location"), Some("/internal/keys/alice"));
        let key = made.json();
        let secret = key["key"].as_str().unwrap();
        assert_eq!((secret.len(), &key["source"]), (54, &json!("store")));
        assert_eq!(key["limits"]["tokens_per_day"], 1_000_000);
        assert_eq!(
            (&key["limits"]["concurrent"], &key["enabled"]),
            (&json!(3), &json!(true))
        );
        assert_eq!(chat(&gateway, secret).status, 200);
        let shown = admin(&gateway, "GET", "/internal/keys/alice", None);
        assert!(!shown.text().contains(secret) && !shown.text().contains("sha256"));
        assert_eq!(shown.json()["id"], key["id"]);
        assert!(shown.json()["last_used_at"].is_string());

        let change = |body| admin(&gateway, "PATCH", "/internal/keys/alice", Some(body));
        assert_eq!(change(json!({"enabled": false})).status, 200);
        chat(&gateway, secret).is_error(401, "unauthorized", "API_KEY_DISABLED");
        let changed = change(json!({"enabled": null, "concurrent": null})).json();
        assert_eq!(
            (&changed["enabled"], &changed["limits"]["concurrent"]),
            (&json!(true), &Value::Null)
        );
        assert_eq!(chat(&gateway, secret).status, 200);

        let rotated = admin(
            &gateway,
            "POST",
            "/internal/keys/alice/rotate",
            Some(json!({"grace": "1h"})),
        );
        let new = rotated.json()["key"].as_str().unwrap().to_owned();
        assert_eq!(chat(&gateway, &new).status, 200);
        assert_eq!(
            chat(&gateway, secret).status,
            200,
            "the old one has its grace"
        );
        let again = admin(&gateway, "POST", "/internal/keys/alice/rotate", None);
        let newest = again.json()["key"].as_str().unwrap().to_owned();
        for old in [secret, &new] {
            chat(&gateway, old).is_error(401, "unauthorized", "INVALID_API_KEY");
        }
        assert_eq!(chat(&gateway, &newest).status, 200);

        let listed = admin(&gateway, "GET", "/internal/keys?source=store", None).json();
        assert_eq!(
            (&listed["total"], &listed["keys"][0]["name"]),
            (&json!(1), &json!("alice"))
        );
        let first = admin(&gateway, "GET", "/internal/keys?limit=1", None).json();
        assert_eq!(
            (&first["total"], &first["next"]),
            (&json!(2), &json!("alice"))
        );
        let rest = admin(&gateway, "GET", "/internal/keys?limit=1&after=alice", None).json();
        assert_eq!(
            (&rest["keys"][0]["name"], &rest["next"]),
            (&json!("env-admin"), &Value::Null)
        );
        let policies = admin(&gateway, "GET", "/internal/policies", None).json();
        assert_eq!(
            (
                &policies["policies"][1]["name"],
                &policies["policies"][1]["keys"]
            ),
            (&json!("dev"), &json!(1))
        );

        let deleted = admin(&gateway, "DELETE", "/internal/keys/alice", None);
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
        chat(&gateway, &newest).is_error(401, "unauthorized", "INVALID_API_KEY");
        for action in ["key.create", "key.change", "key.rotate", "key.delete"] {
            gateway.wait_line(&["Admin action", action, "alice", "env-admin", "127.0.0.1"]);
        }
        let log = gateway.log();
        for secret in [secret, &new, &newest] {
            assert!(!log.contains(secret), "no log line has a secret");
        }
    });
}

#[test]
fn refusals_of_changes_have_their_codes() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let gateway = keyed(driver, &backend, &state(&folder));
        let create = |body: Value| admin(&gateway, "POST", "/internal/keys", Some(body));
        assert_eq!(create(json!({"name": "alice"})).status, 201);
        create(json!({"name": "alice"})).is_error(409, "conflict", "KEY_EXISTS");
        create(json!({"name": "env-admin"})).is_error(409, "conflict", "KEY_EXISTS");
        create(json!({"name": "b", "policy": "x"})).is_error(400, "bad_request", "INVALID_FIELD");
        create(json!({"name": "b", "x": 1})).is_error(400, "bad_request", "INVALID_FIELD");
        let change = |name: &str| {
            let path = format!("/internal/keys/{name}");
            admin(&gateway, "PATCH", &path, Some(json!({"note": "x"})))
        };
        change("nobody").is_error(404, "not_found", "KEY_NOT_FOUND");
        change("env-admin").is_error(409, "conflict", "KEY_READ_ONLY");
        admin(&gateway, "GET", "/internal/keys/nobody", None).is_error(
            404,
            "not_found",
            "KEY_NOT_FOUND",
        );
        admin(&gateway, "DELETE", "/internal/keys/alice?cut=x", None).is_error(
            400,
            "bad_request",
            "INVALID_PARAMETER",
        );
        admin(&gateway, "GET", "/internal/keys?limit=0", None).is_error(
            400,
            "bad_request",
            "INVALID_PARAMETER",
        );
        let head = format!("POST /internal/keys\r\nAuthorization: Bearer {ROOT}");
        exchange(&gateway, &head, b"{}").is_error(
            415,
            "unsupported_media_type",
            "UNSUPPORTED_MEDIA_TYPE",
        );
        let put = admin(&gateway, "PUT", "/internal/keys/alice", None);
        put.is_error(405, "method_not_allowed", "METHOD_NOT_ALLOWED");
        assert_eq!(put.header("Allow"), Some("GET, HEAD, PATCH, DELETE"));
    });
    let backend = Backend::ok(&["m"]);
    let gateway = keyed(Driver::Epoll, &backend, "");
    let message = admin(
        &gateway,
        "POST",
        "/internal/keys",
        Some(json!({"name": "a"})),
    )
    .is_error(501, "not_implemented", "NOT_SUPPORTED");
    assert!(message.contains("state.path"), "{message}");
    assert_eq!(
        admin(&gateway, "GET", "/internal/keys", None).json()["total"],
        1
    );
}

#[test]
fn a_store_that_cannot_be_used_refuses_the_start() {
    let folder = Folder::new();
    folder.write("state.db", "these are notes, no database of any kind");
    let before = std::fs::read(folder.file("state.db")).unwrap();
    let (code, log) = run_to_end(&state(&folder));
    assert_eq!(code, Some(1));
    for part in ["state.path", "state.db", "not a SQLite file"] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(std::fs::read(folder.file("state.db")).unwrap(), before);
    let missing = format!("[state]\npath = '{}'\n", folder.file("none/x.db").display());
    let (code, log) = run_to_end(&missing);
    assert_eq!(code, Some(1));
    assert!(
        log.contains("state.path") && log.contains("none/x.db"),
        "{log}"
    );
    let (code, _, stderr) = olla(&["state", "check", folder.file("state.db").to_str().unwrap()]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    let backend = Backend::ok(&["m"]);
    let own = Folder::new();
    let _gateway = open(Driver::Epoll, &backend, &own);
    let (code, log) = run_to_end(&state(&own));
    assert_eq!(code, Some(1));
    assert!(log.contains("another gateway has it open"), "{log}");
}

#[test]
fn a_store_that_goes_away_stops_no_request() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let gateway = keyed(driver, &backend, &state(&folder));
        let metric = |name: &str| {
            let page = admin(&gateway, "GET", "/internal/metrics", None).text();
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.and_then(|value| value.parse::<f64>().ok())
        };
        assert_eq!(metric("olla_state_up"), Some(1.0));
        let (file, aside) = (folder.file("state.db"), folder.file("aside"));
        std::fs::rename(&file, &aside).unwrap();
        let create = |name: &str| {
            admin(
                &gateway,
                "POST",
                "/internal/keys",
                Some(json!({"name": name})),
            )
        };
        let answer = create("alice");
        answer.is_error(503, "service_unavailable", "STATE_UNAVAILABLE");
        assert!(answer.header("Retry-After").is_some());
        wait_until("the store is down", || metric("olla_state_up") == Some(0.0));
        assert!(metric("olla_state_errors_total") >= Some(1.0));
        gateway.wait_line(&["State store unavailable", "was deleted"]);
        assert_eq!(chat(&gateway, ROOT).status, 200);
        assert_eq!(
            admin(&gateway, "GET", "/internal/keys", None).json()["total"],
            1
        );
        wait_until("usage waits in memory", || {
            metric("olla_state_pending_rows") == Some(1.0)
        });
        std::fs::rename(&aside, &file).unwrap();
        wait_until("the store is back", || metric("olla_state_up") == Some(1.0));
        assert_eq!(metric("olla_state_pending_rows"), Some(0.0));
        assert_eq!(create("alice").status, 201);
        let report = admin(&gateway, "GET", "/internal/usage", None).json();
        assert_eq!(rows(&report), ["env-admin m gpu 1"]);
    });
}

/// Makes SQLite see a file that may only be read: the write version of its header is one that no
/// program knows. A program that has it open finds that with its next change.
fn make_read_only(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    // What was written so far goes to the file itself, and everybody reads that again.
    let moved = |row: &rusqlite::Row<'_>| row.get(0);
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    assert_eq!(connection.query_row(checkpoint, [], moved), Ok(0));
    drop(connection);
    let header = OpenOptions::new().write(true).open(file).unwrap();
    header.write_all_at(&[3], 18).unwrap();
}

#[test]
fn a_store_that_becomes_read_only_stops_no_request() {
    on_both_drivers(|driver| {
        let backend = Backend::ok(&["m"]);
        let folder = Folder::new();
        let mut gateway = keyed(driver, &backend, &state(&folder));
        let create = |gateway: &Gateway, name: &str| {
            let body = json!({ "name": name });
            admin(gateway, "POST", "/internal/keys", Some(body))
        };
        let made = create(&gateway, "alice").json();
        let secret = made["key"].as_str().unwrap();
        assert_eq!(chat(&gateway, secret).status, 200);
        let file = folder.file("state.db");
        let name = file.to_str().unwrap();
        written(name, &["alice m gpu 1"]);
        make_read_only(&file);
        let refused = create(&gateway, "bob");
        let message = refused.is_error(503, "service_unavailable", "STATE_UNAVAILABLE");
        assert!(message.contains("readonly"), "{message}");
        gateway.wait_line(&["State store unavailable", "ERROR", "readonly", name]);
        // Nothing is changed: neither the key that was refused nor those that are there.
        let change = |method: &str, path: &str, body: Option<Value>| {
            admin(&gateway, method, path, body).is_error(
                503,
                "service_unavailable",
                "STATE_UNAVAILABLE",
            );
        };
        let path = "/internal/keys/alice";
        change("PATCH", path, Some(json!({"enabled": false})));
        change("POST", "/internal/keys/alice/rotate", None);
        change("DELETE", "/internal/keys/alice?cut=true", None);
        let listed = admin(&gateway, "GET", "/internal/keys", None).json();
        assert_eq!(listed["total"], 2);
        for _ in 0..3 {
            assert_eq!(chat(&gateway, secret).status, 200);
        }
        let used = get(&gateway, "/olla/key", &[&bearer(secret)]);
        assert!(used.json()["used"]["tokens_per_day"].as_u64() > Some(0));
        let report = admin(&gateway, "GET", "/internal/usage", None).json();
        assert_eq!(rows(&report), ["alice m gpu 4"]);
        let page = || admin(&gateway, "GET", "/internal/metrics", None).text();
        wait_until("usage waits in memory", || {
            let page = page();
            page.contains("\nolla_state_up 0\n") && page.contains("\nolla_state_pending_rows 1\n")
        });
        // The commands read it all the same.
        let (code, json, _) = olla(&["usage", "--store", name, "--json"]);
        assert_eq!(code, Some(0), "{json}");
        assert_eq!(
            rows(&serde_json::from_str(&json).unwrap()),
            ["alice m gpu 1"]
        );
        // What is lost at the end is said, and does not hold the end up.
        gateway.signal("TERM");
        assert!(gateway.wait_end(testkit::PATIENCE).success());
        gateway.wait_line(&["State store unavailable", "\"pending_rows\":1"]);
    });
}

#[test]
fn commands_make_and_change_keys() {
    let backend = Backend::ok(&["m"]);
    let folder = Folder::new();
    let gateway = keyed(Driver::Epoll, &backend, &state(&folder));
    let url = gateway.url();
    let key = |arguments: &[&str]| olla(&[&["key"], arguments, &["--url", &url]].concat());
    let (code, secret, stderr) = key(&["new", "alice", "--policy", "dev", "--set", "concurrent=2"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(chat(&gateway, secret.trim()).status, 200);
    let (code, out, _) = key(&["list"]);
    assert_eq!(code, Some(0));
    let words: Vec<_> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        (words[0], words[2], words[3]),
        ("alice", "store", "dev"),
        "{out}"
    );
    let (_, out, _) = key(&["show", "alice", "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["limits"]["concurrent"], 2);
    assert_eq!(key(&["disable", "alice"]).0, Some(0));
    assert_eq!(chat(&gateway, secret.trim()).status, 401);
    assert_eq!(key(&["enable", "alice"]).0, Some(0));
    let (_, new, _) = key(&["rotate", "alice", "--grace", "1m"]);
    assert_eq!(chat(&gateway, new.trim()).status, 200);
    assert_eq!(chat(&gateway, secret.trim()).status, 200);
    for refused in [
        &["new", "alice"][..],
        &["new", "bob", "--policy", "x"],
        &["show", "nobody"],
        &["disable", "env-admin"],
    ] {
        let (code, out, stderr) = key(refused);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{refused:?}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(key(&["delete", "alice", "--cut"]).0, Some(0));
    assert_eq!(chat(&gateway, new.trim()).status, 401);
    let (code, out, _) = olla(&["usage", "--url", &url, "--group", "key"]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = out
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(lines, ["KEY", "alice", "TOTAL"], "{out}");
    assert_eq!(olla(&["status", "--url", &url]).0, Some(0));
    assert_eq!(olla(&["models", "--url", &url]).0, Some(0));
}
