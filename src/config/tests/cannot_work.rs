//! Values that are valid on their own but cannot work: an endpoint that is the gateway itself, and
//! origins that no browser sends.

use super::*;

#[test]
fn an_endpoint_that_is_the_gateway_itself_is_warned_about() {
    let text = |host: &str, url: &str| {
        format!(
            "server.host = \"{host}\"\n[[discovery.static.endpoints]]\nname = \"a\"\nurl = \"{url}\"\n"
        )
    };
    let itself = [
        ("localhost", "http://localhost:40114"),
        ("localhost", "http://127.0.0.1:40114/v1"),
        ("localhost", "http://[::1]:40114"),
        ("", "http://127.0.0.1:40114"),
        ("0.0.0.0", "http://localhost:40114"),
        ("::", "http://0.0.0.0:40114"),
        ("gw.lan", "http://GW.lan:40114"),
    ];
    for (host, url) in itself {
        warned(
            &text(host, url),
            "discovery.static.endpoints[0].url",
            "the gateway itself",
        );
    }
    let others = [
        ("localhost", "http://localhost:40115"),
        ("localhost", "https://localhost:40114"),
        ("", "http://other.lan:40114"),
        ("gw.lan", "http://localhost:40114"),
    ];
    for (host, url) in others {
        plan(&text(host, url));
    }
}

#[test]
fn origins_that_no_browser_sends_are_warned_about() {
    let text = |origins: &str| format!("server.cors.allowed_origins = [{origins}]");
    warned(
        &text("\"https://a.example\", \"https://b.example/\""),
        "server.cors.allowed_origins[1]",
        "can never match",
    );
    plan(&text("\"https://a.example\", \"http://localhost:*\""));
    let off = "server.cors = { enabled = false, allowed_origins = [\"a.example\"] }";
    plan(off);
}

#[test]
fn a_rate_for_an_endpoint_that_is_not_there_suggests_one() {
    warned(
        "server.rate_limits.per_endpoint.overrides.localhots = 1",
        "server.rate_limits.per_endpoint.overrides.localhots",
        "did you mean \"localhost\"?",
    );
}
