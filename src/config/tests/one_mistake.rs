//! One mistake results in one message.

use super::*;

#[test]
fn one_mistake_gives_one_message() {
    let endpoint = |lines: &str| {
        format!("[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"http://h:1\"\n{lines}\n")
    };
    let list = "discovery.static.endpoints";
    let table = [
        // A misspelt key is not reported as missing too.
        (
            format!("[[{list}]]\nnaem = \"a\"\nurl = \"http://h:1\"\n"),
            "discovery.static.endpoints[0].naem",
            "did you mean \"name\"?",
        ),
        (
            format!("[[{list}]]\nname = \"a\"\nulr = \"http://h:1\"\n"),
            "discovery.static.endpoints[0].ulr",
            "did you mean \"url\"?",
        ),
        (
            endpoint("auth = { typ = \"bearer\", token = \"x\" }"),
            "discovery.static.endpoints[0].auth.typ",
            "did you mean \"type\"?",
        ),
        (
            endpoint("auth = { type = \"bearer\", tokn = \"x\" }"),
            "discovery.static.endpoints[0].auth.tokn",
            "did you mean \"token\"?",
        ),
        // A field of another type of credentials is not reported as a missing one too.
        (
            endpoint("auth = { type = \"basic\", token = \"x\" }"),
            "discovery.static.endpoints[0].auth.token",
            "belongs to auth of type bearer",
        ),
        // A key with a value of the wrong type is not reported as missing too.
        (
            "server.tls = { cert_file = 1, key_file = \"k\" }".to_owned(),
            "server.tls.cert_file",
            "got the integer 1",
        ),
        (
            format!("[[{list}]]\nname = 1\nurl = \"http://h:1\"\n"),
            "discovery.static.endpoints[0].name",
            "got the integer 1",
        ),
        (
            format!("[[{list}]]\nname = \"a\"\nurl = 5\n"),
            "discovery.static.endpoints[0].url",
            "an integer",
        ),
        (
            endpoint("auth = { type = \"bearer\", token = 5 }"),
            "discovery.static.endpoints[0].auth.token",
            "an integer",
        ),
        // The consequence of a mistake is not reported.
        (
            endpoint("check_interval = \"500ms\"\ncheck_timeout = \"1s\""),
            "discovery.static.endpoints[0].check_interval",
            "500ms",
        ),
        (
            endpoint("") + &endpoint(""),
            "discovery.static.endpoints[1].name",
            "endpoints[0]",
        ),
        (
            "server.cors = { allowed_origins = [], allow_credentials = true }".to_owned(),
            "server.cors.allowed_origins",
            "an empty list",
        ),
        (
            format!("{list} = 5"),
            "discovery.static.endpoints",
            "the integer 5",
        ),
        (
            format!("{list} = [5]"),
            "discovery.static.endpoints[0]",
            "the integer 5",
        ),
    ];
    for (text, key, word) in &table {
        let loaded = toml(text);
        let [finding] = &loaded.findings[..] else {
            panic!("{text}\n{:#?}", loaded.findings);
        };
        assert_eq!(finding.key, *key, "{text}");
        assert!(finding.message.contains(word), "{finding}");
        assert_eq!(finding.severity, Severity::Error, "{text}");
        assert!(loaded.plan.is_none(), "{text}");
    }
}
