//! `olla health`: whether a gateway serves, for the health check of a container.
//!
//! Contract: docs/contract/operations.md#9, docs/contract/observe.md#9

use std::time::Duration;

use serde_json::Value;

use super::http::{self, Base};
use super::table::clean;
use super::{CommandOutput, Trust};

/// Time limit for the whole command.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks the gateway at an address; with `is_ready` whether it can serve requests.
pub(crate) fn run(is_ready: bool, address: &str, trust: &Trust) -> CommandOutput {
    let base = match Base::parse(address) {
        Ok(base) => base,
        Err(fault) => {
            let message = format!("olla: URL: {fault}\n");
            return CommandOutput::bad(message, CommandOutput::USAGE);
        }
    };
    let path = if is_ready {
        "/internal/ready"
    } else {
        "/internal/health"
    };
    match http::get_within(LIMIT, &base, path, trust) {
        Err(fault) => CommandOutput::failed(&fault),
        Ok(response) if response.status == 200 => {
            let word = if is_ready { "ready" } else { "healthy" };
            CommandOutput::good(format!("{}: {word}\n", base.origin()))
        }
        Ok(response) => {
            let reason = reason(&response.body).map_or_else(String::new, |why| format!(": {why}"));
            let (origin, status) = (base.origin(), response.status);
            CommandOutput::failed(&format!("{origin} responded with {status}{reason}"))
        }
    }
}

/// Why the gateway is not ready, or the message of an error.
fn reason(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = value
        .pointer("/reason")
        .or_else(|| value.pointer("/error/message"))?;
    text.as_str().map(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_that_of_the_page() {
        let table = [
            (
                r#"{"status":"not_ready","reason":"draining","healthy":0}"#,
                Some("draining"),
            ),
            (r#"{"error":{"message":"slow\n down"}}"#, Some("slow? down")),
            ("<html>", None),
            ("{}", None),
        ];
        for (body, want) in table {
            assert_eq!(reason(body.as_bytes()).as_deref(), want, "{body}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_a_mistake_of_the_command_line() {
        let outcome = run(false, "ftp://gw", &Trust::default());
        assert_eq!(outcome.code, CommandOutput::USAGE);
        assert!(outcome.stderr.starts_with("olla: URL: expected the URL"));
    }
}
