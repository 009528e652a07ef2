//! The commands that ask endpoints or a gateway, with real ones.
//!
//! Contract: docs/contract/observe.md#1, docs/contract/operations.md#9

use testkit::{
    Backend, Config, Driver, FullListener, Gateway, PATIENCE, Process, endpoint, program, reserve,
};

/// Runs a command to its end: the exit code, and what it has written.
fn olla(arguments: &[&str], env: &[(&str, String)]) -> (Option<i32>, String) {
    let own = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
    let env: Vec<_> = env.iter().map(own).collect();
    let mut process = Process::start(&program("olla"), arguments, &env);
    let code = process.wait_end(PATIENCE).code();
    (code, process.log())
}

/// `olla check --probe` of these endpoints: the exit code, and the row of each endpoint in words.
fn probe(endpoints: &str) -> (Option<i32>, String) {
    let folder = testkit::Folder::new();
    let text = Config::new(Driver::Auto).more(endpoints).text(40114);
    let file = folder.write("olla.toml", &text);
    olla(&["check", "--probe", "-c", &file], &[])
}

fn row(output: &str, name: &str) -> Vec<String> {
    let row = output.lines().find(|line| line.starts_with(name));
    let row = row.unwrap_or_else(|| panic!("{name}: {output}"));
    row.split_whitespace().map(str::to_owned).collect()
}

/// A server of vLLM's kind with its version.
fn vllm(models: &[&str]) -> Backend {
    Backend::new(models, |request, link| {
        if request.target == "/version" {
            link.respond(200, "application/json", "{\"version\":\"0.11.1\"}");
        } else {
            link.respond(404, "text/plain", "no");
        }
    })
}

#[test]
fn a_probe_asks_every_endpoint_once() {
    let (good, none) = (vllm(&["a", "b"]), vllm(&[]));
    let endpoints = endpoint("good", "vllm", &good, "") + &endpoint("none", "vllm", &none, "");
    let (code, output) = probe(&endpoints);
    assert_eq!(code, Some(0), "{output}");
    let of_good = row(&output, "good");
    assert_eq!(of_good[..3], ["good", "vllm", "healthy"], "{output}");
    assert_eq!(of_good[4..], ["2", "0.11.1", &good.url(), "-"], "{output}");
    // No failure, but nothing can be served.
    assert!(row(&output, "none").contains(&"no_models:".to_owned()));
    assert!(output.ends_with("\n2 endpoints asked, none failed\n"));
    assert_eq!((good.checks(), good.listings()), (1, 1));
    let versions = good.seen().into_iter().map(|seen| seen.target);
    assert_eq!(versions.collect::<Vec<_>>(), ["/version"]);
}

#[test]
fn a_probe_says_why_endpoints_fail_and_waits_for_all_at_once() {
    let (good, refusing, sick) = (vllm(&["a"]), vllm(&["a"]), vllm(&["a"]));
    refusing.set_health(401);
    sick.set_health(500);
    let silent = FullListener::new();
    let mut endpoints = endpoint("good", "vllm", &good, "")
        + &endpoint("refusing", "vllm", &refusing, "")
        + &endpoint("sick", "vllm", &sick, "")
        + &endpoint(
            "gone",
            "vllm",
            &good,
            &format!("url = \"http://{}\"", reserve()),
        );
    for at in 0..40 {
        let url = format!("url = \"http://{}/{at}\"", silent.address);
        endpoints += &endpoint(&format!("silent{at}."), "vllm", &good, &url);
    }
    let began = std::time::Instant::now();
    let (code, output) = probe(&endpoints);
    let took = began.elapsed().as_secs();
    assert_eq!(code, Some(3), "{output}");
    for (name, status, kind) in [
        ("good", "healthy", "-"),
        ("refusing", "config_error", "auth:"),
        ("sick", "unhealthy", "status:"),
        ("gone", "offline", "refused:"),
        ("silent0.", "offline", "timeout:"),
        ("silent39.", "offline", "timeout:"),
    ] {
        let row = row(&output, name);
        assert_eq!(row[2], status, "{name}: {output}");
        assert_eq!(row[7], kind, "{name}: {output}");
    }
    assert!(
        output.ends_with("\n43 of 44 endpoints failed\n"),
        "{output}"
    );
    assert!(took < 20, "one after another takes 38 s; took {took} s");
}

#[test]
fn an_invalid_configuration_is_not_probed() {
    let good = vllm(&["a"]);
    let wrong = endpoint("good", "vllm", &good, "") + "[proxy]\nengine = \"turbo\"\n";
    let (code, output) = probe(&wrong);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.ends_with("\n1 error\n"), "{output}");
    assert_eq!(good.checks(), 0);
}

#[test]
fn health_is_the_exit_code() {
    let backend = Backend::ok(&["m"]);
    let gateway =
        Gateway::start(&Config::new(Driver::Auto).more(&endpoint("one", "vllm", &backend, "")));
    let file = gateway.config_file().to_str().unwrap().to_owned();
    let url = format!("http://127.0.0.1:{}", gateway.port);
    for (arguments, word) in [
        (&["health", "-c", &file][..], "healthy"),
        (&["health", "--ready", "-c", &file], "ready"),
        (&["health", &url], "healthy"),
        (&["health", "--ready", &url], "ready"),
    ] {
        let (code, output) = olla(arguments, &[]);
        assert_eq!((code, output), (Some(0), format!("{url}: {word}\n")));
    }
    backend.set_health(500);
    gateway.wait_status("one", "unhealthy");
    let (code, output) = olla(&["health", "--ready", "-c", &file], &[]);
    assert_eq!(code, Some(1));
    let want = format!("olla: {url} responded with 503: no_healthy_endpoints\n");
    assert_eq!(output, want);
    assert_eq!(olla(&["health", "-c", &file], &[]).0, Some(0));
    assert_eq!(olla(&["health", "ftp://gw"], &[]).0, Some(2));
}

#[test]
fn health_needs_only_the_address() {
    let gateway = Gateway::start(&Config::new(Driver::Auto));
    // The variables are those of the container, whose configuration may have other errors.
    let folder = testkit::Folder::new();
    let file = folder.write("olla.toml", "[proxy]\nengine = \"turbo\"\n");
    let env = |host: &str, port: u16| {
        [
            ("OLLA_SERVER_HOST", host.to_owned()),
            ("OLLA_SERVER_PORT", port.to_string()),
        ]
    };
    for host in ["0.0.0.0", "127.0.0.1", "::"] {
        let (code, output) = olla(&["health", "-c", &file], &env(host, gateway.port));
        assert_eq!(code, Some(0), "{host}: {output}");
        assert!(output.starts_with("http://127.0.0.1:"), "{output}");
    }
    let (code, output) = olla(&["health", "-c", &file], &env("0.0.0.0", reserve().port()));
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("connection refused"), "{output}");
    let unread = folder.file("none.toml");
    let (code, _) = olla(&["health", "-c", unread.to_str().unwrap()], &[]);
    assert_eq!(code, Some(1));
}
