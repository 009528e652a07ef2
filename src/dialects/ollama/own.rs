//! What clients ask to learn whether a server is there, and which one.
//!
//! Contract: docs/contract/dialects.md#2.2

use crate::dialects::{Error, OwnAsk};

/// `GET api/version`: clients refuse old servers.
pub(super) fn version(ask: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    let version = &ask.plan.translators.ollama.version;
    let body = serde_json::json!({ "version": version });
    Ok(body.to_string().into_bytes())
}

/// `GET api/hello`, which Claude Code asks of its base URL.
pub(super) fn hello(_: &OwnAsk<'_>) -> Result<Vec<u8>, Error> {
    Ok(br#"{"message":"hello"}"#.to_vec())
}
