//! Keeps the prompt caches of keys apart: sets `cache_salt` in requests to servers that share a
//! cache of prompts between all of their clients (CVE-2025-46570).
//!
//! Contract: docs/contract/access.md#15

use olla_engine::handler::{self, Ask};

use super::exchange::Exchange;
use crate::json::set_member;

/// The member that vLLM and SGLang read.
const MEMBER: &str = "cache_salt";

/// The types of endpoints that know it.
const TYPES: [&str; 2] = ["vllm", "sglang"];

/// The ends of the paths whose bodies have it.
const PATHS: [&[u8]; 4] = [
    b"/chat/completions",
    b"/completions",
    b"/responses",
    b"/messages",
];

impl Exchange {
    /// Sets the salt in the body for the endpoint that was picked, if the key's cache is apart.
    pub(super) fn salt_body(&mut self, ask: &Ask<'_>) {
        self.salted = None;
        let Some(key) = self
            .key
            .as_ref()
            .filter(|key| key.policy.fields.isolate_cache)
        else {
            return;
        };
        let Some(endpoint) = self.endpoint() else {
            return;
        };
        let target = self.target(endpoint);
        let path = target.map_or_else(|| self.rest(&ask.request), |target| target.path.as_bytes());
        let is_salted = TYPES.contains(&endpoint.profile.name.as_str())
            && PATHS.iter().any(|end| path.ends_with(end))
            && self.form.is_none();
        if !is_salted {
            return;
        }
        let body = handler::Exchange::payload(self, ask.body).concat();
        let salt = self.gateway.common.access.cache_salt(&key.name);
        self.salted = set_member(&body, MEMBER, format!("\"{salt}\"").as_bytes());
    }
}
