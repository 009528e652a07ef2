//! `discovery.static.endpoints`: valid and invalid endpoints, and their credentials, which no finding
//! shows.

use super::*;
use crate::config::endpoint::Secret;

fn endpoint(lines: &str) -> String {
    format!("[[discovery.static.endpoints]]\nname = \"gpu\"\nurl = \"http://h:1\"\n{lines}\n")
}

fn only(text: &str) -> EndpointPlan {
    let mut endpoints = plan(text).discovery.endpoints;
    assert_eq!(endpoints.len(), 1);
    endpoints.remove(0)
}

#[test]
fn without_a_list_there_is_one_endpoint_and_an_empty_list_is_none() {
    let endpoint = only("");
    assert_eq!(
        (endpoint.name.as_str(), endpoint.kind.as_str()),
        ("localhost", "ollama")
    );
    assert_eq!(endpoint.url.display, "http://localhost:11434");
    for text in [
        "discovery.static.endpoints = []",
        "proxy.profile_filter.exclude = [\"ollama\"]",
    ] {
        warned(
            text,
            "discovery.static.endpoints",
            "no endpoint is configured",
        );
        assert!(toml(text).plan.unwrap().discovery.endpoints.is_empty());
    }
}

#[test]
fn the_defaults_of_an_endpoint_are_those_of_the_contract() {
    let plan = only(&endpoint(""));
    assert_eq!(
        (plan.kind.as_str(), plan.kind_as_written.as_str()),
        ("auto", "auto")
    );
    assert_eq!(plan.priority, 100);
    assert_eq!(
        (plan.check_interval, plan.check_timeout),
        (secs(5), secs(2))
    );
    assert!(!plan.preserve_path && plan.auth.is_none() && plan.headers.is_empty());
    assert_eq!((plan.health_check_url, plan.model_url), (None, None));
    assert_eq!(plan.model_filter, NameFilter::default());
    assert_eq!(plan.tls, EndpointTlsPlan::default());
}

/// Lines of an endpoint, and a condition on its plan.
type Meaning = (&'static str, fn(&EndpointPlan) -> bool);

#[test]
fn an_endpoint_is_what_was_written() {
    let table: &[Meaning] = &[
        ("type = \"lmstudio\"", |e| {
            e.kind == "lm-studio" && e.kind_as_written == "lmstudio"
        }),
        ("type = \"\"", |e| e.kind == "auto"),
        ("type = \"auto\"", |e| e.kind == "auto"),
        ("priority = 0", |e| e.priority == 0),
        ("check_interval = \"0s\"", |e| e.check_interval == secs(5)),
        ("check_timeout = \"0s\"", |e| e.check_timeout == secs(2)),
        ("check_interval = \"1s\"", |e| {
            e.check_timeout == Duration::from_millis(500)
        }),
        ("check_interval = \"2s\"", |e| e.check_timeout == secs(1)),
        ("check_interval = \"3s\"", |e| e.check_timeout == secs(2)),
        ("check_interval = \"40s\"\ncheck_timeout = \"30s\"", |e| {
            e.check_timeout == secs(30)
        }),
        ("health_check_url = \"/ok\"", |e| {
            e.health_check_url.as_deref() == Some("/ok")
        }),
        ("model_url = \"https://o:9/m?x=1\"", |e| {
            e.model_url.is_some()
        }),
        ("preserve_path = true", |e| e.preserve_path),
        ("priority = 1", |e| {
            e.speaks(DialectName::OllamaNative).is_none()
        }),
        ("dialects = [\"openai-chat\", \"ollama-native\"]", |e| {
            e.speaks(DialectName::OllamaNative) == Some(true)
                && e.speaks(DialectName::OpenAiResponses) == Some(false)
        }),
        ("context_length = 0", |e| e.context_length.is_none()),
        ("context_length = 32768", |e| {
            e.context_length
                .is_some_and(|tokens| tokens.get() == 32_768)
        }),
        (
            "model_filter = { include = [\"a*\"], exclude = [\"*\"] }",
            |e| e.model_filter.include == ["a*"] && e.model_filter.exclude == ["*"],
        ),
        ("headers = { X-B = \" v \", x-a = \"\" }", |e| {
            let shown: Vec<_> = e
                .headers
                .iter()
                .map(|(n, v)| (n.as_str(), v.expose()))
                .collect();
            shown == [("X-B", "v"), ("x-a", "")]
        }),
    ];
    for (lines, holds) in table {
        assert!(holds(&only(&endpoint(lines))), "{lines}");
    }
}

#[test]
fn faults_of_an_endpoint_name_it_and_the_key() {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "type = \"Ollama\"",
            "type",
            &[
                "\"Ollama\"; did you mean \"ollama\"?",
                "auto, ollama, lm-studio, lmstudio",
            ],
        ),
        ("priority = -1", "priority", &["-1"]),
        ("priority = \"high\"", "priority", &["\"high\""]),
        (
            "check_interval = \"500ms\"\ncheck_timeout = \"100ms\"",
            "check_interval",
            &["500ms", "1s"],
        ),
        (
            "check_timeout = \"5s\"",
            "check_timeout",
            &["check_interval"],
        ),
        (
            "check_interval = \"60s\"\ncheck_timeout = \"31s\"",
            "check_timeout",
            &["30s"],
        ),
        ("check_interval = \"fast\"", "check_interval", &["\"fast\""]),
        ("check_timeout = 2", "check_timeout", &["duration"]),
        (
            "health_check_url = \"ftp://h/x\"",
            "health_check_url",
            &["http"],
        ),
        ("model_url = \"a b\"", "model_url", &["white space"]),
        ("preserve_path = 1", "preserve_path", &["true or false"]),
        ("context_length = -1", "context_length", &["-1"]),
        ("dialects = []", "dialects", &["openai-chat"]),
        (
            "dialects = [\"ollama-native\"]",
            "dialects",
            &["openai-chat"],
        ),
        (
            "dialects = [\"openai-chat\", \"ollama\"]",
            "dialects[1]",
            &["ollama-native"],
        ),
        ("context_length = \"big\"", "context_length", &["\"big\""]),
        (
            "model_filter.include = [\"\"]",
            "model_filter.include[0]",
            &["glob"],
        ),
        (
            "headers = { \"a b\" = \"x\" }",
            "headers.\"a b\"",
            &["a header name"],
        ),
        ("headers = { Host = \"x\" }", "headers.Host", &["itself"]),
        (
            "headers = { transfer-encoding = \"x\" }",
            "headers.transfer-encoding",
            &["itself"],
        ),
        (
            "headers = { X-A = \"a\\nb\" }",
            "headers.X-A",
            &["line breaks"],
        ),
        (
            "headers = { X-A = \"1\", x-a = \"2\" }",
            "headers.x-a",
            &["once"],
        ),
        ("headers = { X-A = 1 }", "headers.X-A", &["a string"]),
        (
            "headers = { X-A = \"${NONE}\" }",
            "headers.X-A",
            &["NONE is not set"],
        ),
        (
            "auth = { }",
            "auth.type",
            &["\"bearer\", \"api_key\" or \"basic\", but the key is missing"],
        ),
        (
            "auth = { type = \"digest\" }",
            "auth.type",
            &["\"bearer\", \"api_key\" or \"basic\", got \"digest\""],
        ),
        (
            "auth = { type = \"bearer\" }",
            "auth.token",
            &["token or token_file"],
        ),
        (
            "auth = { type = \"bearer\", token = \"a\", token_file = \"b\" }",
            "auth.token",
            &["token_file"],
        ),
        (
            "auth = { type = \"bearer\", token = \"\" }",
            "auth.token",
            &["an empty one"],
        ),
        (
            "auth = { type = \"bearer\", token = \"${NONE}\" }",
            "auth.token",
            &["NONE is not set"],
        ),
        (
            "auth = { type = \"bearer\", token = \"a\", key = \"b\" }",
            "auth.key",
            &["api_key, but the type is bearer"],
        ),
        (
            "auth = { type = \"bearer\", token = \"a\", header = \"b\" }",
            "auth.header",
            &["api_key"],
        ),
        (
            "auth = { type = \"bearer\", token = \"a\\nb\" }",
            "auth.token",
            &["line breaks"],
        ),
        (
            "auth = { type = \"bearer\", token_file = \"/none/x\" }",
            "auth.token_file",
            &["cannot read \"/none/x\""],
        ),
        (
            "auth = { type = \"api_key\" }",
            "auth.key",
            &["key or key_file"],
        ),
        (
            "auth = { type = \"api_key\", key = \"k\", header = \"a b\" }",
            "auth.header",
            &["a header name"],
        ),
        (
            "auth = { type = \"api_key\", key = \"k\", header = \"Host\" }",
            "auth.header",
            &["itself"],
        ),
        (
            "auth = { type = \"basic\", username = \"u\" }",
            "auth.password",
            &["password_file"],
        ),
        (
            "auth = { type = \"basic\", password = \"p\" }",
            "auth.username",
            &["username_file"],
        ),
        (
            "auth = { type = \"basic\", username = \"a:b\", password = \"p\" }",
            "auth.username",
            &["colon"],
        ),
        (
            "tls.ca_file = \"/none/ca.pem\"",
            "tls.ca_file",
            &["cannot read \"/none/ca.pem\""],
        ),
    ];
    for (lines, key, words) in table {
        let key = format!("discovery.static.endpoints[0].{key}");
        let words: Vec<_> = words.iter().copied().chain(["endpoint \"gpu\""]).collect();
        refused(&endpoint(lines), &key, &words);
    }
}

#[test]
fn names_and_urls_are_needed_once() {
    let list = |first: &str, second: &str| {
        let table = "[[discovery.static.endpoints]]\n";
        format!("{table}{first}\n{table}{second}\n")
    };
    let a = "name = \"a\"\nurl = \"http://h:1\"";
    let table: &[(&str, &str, &[&str])] = &[
        ("url = \"http://h:2\"", "name", &["a name"]),
        ("name = \" \"\nurl = \"http://h:2\"", "name", &["a name"]),
        (
            "name = \"x\\n\"\nurl = \"http://h:2\"",
            "name",
            &["control"],
        ),
        (
            "name = \"a\"\nurl = \"http://h:2\"",
            "name",
            &["endpoints[0]"],
        ),
        ("name = \"b\"", "url", &["\"b\"", "url"]),
        ("name = \"b\"\nurl = \"\"", "url", &["\"b\"", "url"]),
        (
            "name = \"b\"\nurl = \"127.0.0.1:9\"",
            "url",
            &["127.0.0.1:9", "http://"],
        ),
        (
            "name = \"b\"\nurl = \"localhost:9\"",
            "url",
            &["localhost:9"],
        ),
        (
            "name = \"b\"\nurl = \"ftp://h\"",
            "url",
            &["ftp://h", "http or https"],
        ),
        ("name = \"b\"\nurl = \"http://\"", "url", &["a host"]),
        (
            "name = \"b\"\nurl = \"HTTP://H:1/\"",
            "url",
            &["endpoints[0]"],
        ),
        (
            "name = \"b\"\nurl = \"http://u:hunter2@h:2\"",
            "url",
            &["\"b\"", "credentials", "auth"],
        ),
        (
            "name = \"b\"\nurl = \"http://u@h:2\"",
            "url",
            &["credentials"],
        ),
    ];
    for (second, key, words) in table {
        let key = format!("discovery.static.endpoints[1].{key}");
        refused(&list(a, second), &key, words);
    }
    refused(
        "discovery.static.endpoints = 1",
        "discovery.static.endpoints",
        &["a list"],
    );
    refused(
        "discovery.static.endpoints = [1]",
        "discovery.static.endpoints[0]",
        &["a table"],
    );
    plan(&list(a, "name = \"b\"\nurl = \"http://h:1/other\""));
}

#[test]
fn more_endpoints_than_cores_keep_sets_of_are_refused() {
    let list = |count: usize| -> String {
        let one =
            |n| format!("[[discovery.static.endpoints]]\nname = \"e{n}\"\nurl = \"http://h{n}\"\n");
        (0..count).map(one).collect()
    };
    assert_eq!(
        plan(&list(MAX_ENDPOINTS)).discovery.endpoints.len(),
        MAX_ENDPOINTS
    );
    refused(
        &list(MAX_ENDPOINTS + 1),
        "discovery.static.endpoints",
        &["at most 512"],
    );
}

#[test]
fn an_excluded_profile_takes_no_endpoint() {
    let text = format!(
        "proxy.profile_filter.exclude = [\"lm-studio\"]\n{}",
        endpoint("type = \"lmstudio\"")
    );
    refused(
        &text,
        "discovery.static.endpoints[0].type",
        &["profile_filter"],
    );
}

fn auth_of(env: &[(&str, &str)], lines: &str) -> Auth {
    let loaded = with_env(&endpoint(lines), FileFormat::Toml, env);
    assert_eq!(loaded.findings, [], "{lines}");
    loaded
        .plan
        .unwrap()
        .discovery
        .endpoints
        .remove(0)
        .auth
        .unwrap()
}

#[test]
fn credentials_come_from_values_variables_and_files() {
    let folder = std::env::temp_dir().join(format!("olla-auth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    std::fs::write(&file, " \n from file\t\n").unwrap();
    let bearer = |text: &str| Auth::Bearer {
        token: Secret::new(text),
    };
    let env = [
        ("TOKEN", "from env"),
        ("EMPTY", ""),
        ("DIR", folder.to_str().unwrap()),
    ];
    let table = [
        ("token = \"plain\"", bearer("plain")),
        ("token = \"${TOKEN}\"", bearer("from env")),
        ("token = \"a-${TOKEN}-b\"", bearer("a-from env-b")),
        ("token = \"${NONE:-other}\"", bearer("other")),
        ("token = \"${EMPTY:-other}\"", bearer("other")),
        ("token = \"$TOKEN\"", bearer("$TOKEN")),
        ("token_file = \"${DIR}/secret\"", bearer("from file")),
    ];
    for (line, want) in table {
        let lines = format!("[discovery.static.endpoints.auth]\ntype = \"bearer\"\n{line}");
        assert_eq!(auth_of(&env, &lines), want, "{line}");
    }
    let key = |header: &str| Auth::ApiKey {
        header: header.to_owned(),
        key: Secret::new("k"),
    };
    assert_eq!(
        auth_of(&[], "auth = { type = \"api_key\", key = \"k\" }"),
        key("X-Api-Key")
    );
    let lines = "auth = { type = \"api_key\", key = \"k\", header = \"X-Goog\" }";
    assert_eq!(auth_of(&[], lines), key("X-Goog"));
    let lines = "auth = { type = \"basic\", username = \"u\", password = \"p:q\" }";
    let basic = Auth::Basic {
        username: Secret::new("u"),
        password: Secret::new("p:q"),
    };
    assert_eq!(auth_of(&[], lines), basic);

    std::fs::write(&file, " \n").unwrap();
    let lines = format!(
        "auth = {{ type = \"bearer\", token_file = \"{}\" }}",
        file.display()
    );
    refused(
        &endpoint(&lines),
        "discovery.static.endpoints[0].auth.token_file",
        &["an empty one"],
    );
    let empty = endpoint("auth = { type = \"bearer\", token = \"${EMPTY}\" }");
    assert_eq!(with_env(&empty, FileFormat::Toml, &env).errors().count(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_finding_shows_a_secret() {
    let secret = "hunter2";
    let texts = [
        endpoint("auth = { type = \"bearer\", token = \"hunter2\\n\" }"),
        endpoint("auth = { type = \"bearer\", token = \"hunter2\", token_file = \"x\" }"),
        endpoint("auth = { type = \"hunter\", token = \"hunter2\" }"),
        endpoint("auth = { type = \"basic\", key = \"hunter2\" }"),
        endpoint("auth = { type = \"basic\", username = \"hunter2:\", password = \"p\" }"),
        endpoint("auth = { type = \"bearer\", token = [\"hunter2\"] }"),
        endpoint("headers = { X-A = \"hunter2\\n\", x-a = \"hunter2\", Host = \"hunter2\" }"),
        endpoint("headers = { X-A = [\"hunter2\"] }"),
        endpoint("headers = \"hunter2\""),
        endpoint("health_check_url = \"http://u:hunter2@h\""),
        endpoint("model_url = \"http://h h?key=hunter2\""),
        endpoint("health_check_url = \"a b?token=hunter2\""),
    ];
    let urls = [
        "http://u:hunter2@h",
        "u:hunter2@h:1",
        "ftp://h?hunter2",
        "http:// h?key=hunter2",
    ];
    let url = |url| format!("[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"{url}\"\n");
    for text in texts.into_iter().chain(urls.map(url)) {
        let loaded = toml(&text);
        assert!(loaded.errors().count() > 0, "{text}");
        for finding in &loaded.findings {
            let shown = format!("{finding} {} {finding:?}", finding.sentence());
            assert!(!shown.contains(secret), "{text}\n{shown}");
        }
    }
    let good = plan(&endpoint(
        "auth = { type = \"bearer\", token = \"hunter2\" }\nheaders = { X-A = \"hunter2\" }",
    ));
    assert!(!format!("{good:?}").contains(secret));
}

#[test]
fn an_endpoint_that_trusts_anything_is_warned_about() {
    warned(
        &endpoint("tls.insecure_skip_verify = true"),
        "discovery.static.endpoints[0].tls.insecure_skip_verify",
        "ca_file",
    );
}

/// docs/contract/balancing.md#14, docs/contract/catalogue.md#2.3
#[test]
fn urls_take_variables_and_no_finding_shows_their_values() {
    let url = |env: &[(&str, &str)], text: &str| {
        let text = format!("[[discovery.static.endpoints]]\nname = \"gpu\"\n{text}\n");
        with_env(&text, FileFormat::Toml, env)
    };
    let loaded = url(
        &[("HOST", "h"), ("PATHS", "/up")],
        "url = \"http://${HOST}:${PORT:-80}/v1\"\nhealth_check_url = \"${PATHS}\"\n\
         model_url = \"http://${HOST}/m\"",
    );
    let endpoints = loaded.plan.expect("a plan").discovery.endpoints;
    assert_eq!(endpoints[0].url.display, "http://h:80/v1");
    assert_eq!(endpoints[0].url.base_path, "");
    assert_eq!(endpoints[0].health_check_url.as_deref(), Some("/up"));
    assert_eq!(endpoints[0].model_url.as_deref(), Some("http://h/m"));

    for key in ["url", "health_check_url", "model_url"] {
        let base = if key == "url" {
            ""
        } else {
            "url = \"http://h\"\n"
        };
        let unset = url(&[], &format!("{base}{key} = \"${{NONE}}\""));
        let errors: Vec<String> = unset.errors().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("NONE is not set"), "{errors:?}");
        assert!(errors[0].contains(key), "{errors:?}");

        let wrong = [("URL", "ftp://hunter2 x")];
        let wrong = url(&wrong, &format!("{base}{key} = \"${{URL}}\""));
        let errors: Vec<String> = wrong.errors().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
        assert!(errors[0].contains("${URL}"), "{errors:?}");
    }
}

/// docs/contract/catalogue.md#2.3
#[test]
fn urls_are_compared_without_a_version_prefix_and_with_their_query() {
    let two = |first: &str, second: &str| {
        let text = format!(
            "[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"{first}\"\n\
             [[discovery.static.endpoints]]\nname = \"b\"\nurl = \"{second}\"\n"
        );
        let loaded = toml(&text);
        let errors: Vec<String> = loaded.errors().map(ToString::to_string).collect();
        errors
    };
    for (first, second, same) in [
        ("http://h/v1", "http://h", true),
        ("http://h/v1/", "http://h/", true),
        ("http://h/v1?a=1", "http://h?a=1", true),
        ("http://h?a=1", "http://h?a=2", false),
        ("http://h?a=1", "http://h", false),
        ("http://h/api", "http://h", false),
    ] {
        let errors = two(first, second);
        assert_eq!(
            errors.len(),
            usize::from(same),
            "{first} {second} {errors:?}"
        );
    }
}
