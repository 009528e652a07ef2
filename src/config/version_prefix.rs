//! The version prefix that an endpoint's URL may end in.
//!
//! The base URL of every client of OpenAI's API ends in `/v1`, so people write it here too. The
//! paths of requests begin with it already; it is left out of the URL.
//!
//! Contract: docs/contract/surface.md#3.1

/// The prefixes that the own paths of a type begin with, besides [`COMMON`], longest first.
const OWN: [(&str, &[&str]); 4] = [
    ("ollama", &["/api"]),
    ("lm-studio", &["/api/v0", "/api/v1"]),
    ("lemonade", &["/api/v1"]),
    ("docker-model-runner", &["/engines/v1"]),
];

/// The prefix of OpenAI's API, which every type has.
const COMMON: &str = "/v1";

/// Splits the path of a URL, without a slash at its end, into the base path and the version prefix
/// of the endpoint's canonical type.
pub(super) fn split<'p>(kind: &str, path: &'p str) -> (&'p str, Option<&'static str>) {
    let own = OWN.iter().find(|(name, _)| *name == kind);
    let own = own.map_or(&[][..], |(_, prefixes)| *prefixes);
    let mut all = own.iter().copied().chain([COMMON]);
    let found = all.find_map(|prefix| Some((path.strip_suffix(prefix)?, prefix)));
    match found {
        Some((base, prefix)) => (base.trim_end_matches('/'), Some(prefix)),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_the_type_is_split_off() {
        let table = [
            // type, path, base path, prefix
            ("vllm", "", "", None),
            ("vllm", "/v1", "", Some("/v1")),
            ("auto", "/v1", "", Some("/v1")),
            ("vllm", "/api/v1", "/api", Some("/v1")),
            ("vllm", "/gw//v1", "/gw", Some("/v1")),
            ("vllm", "/v1/x", "/v1/x", None),
            ("vllm", "/xv1", "/xv1", None),
            ("vllm", "/V1", "/V1", None),
            ("vllm", "/v2", "/v2", None),
            ("vllm", "/api", "/api", None),
            ("vllm", "/v1/v1", "/v1", Some("/v1")),
            ("ollama", "/api", "", Some("/api")),
            ("ollama", "/v1", "", Some("/v1")),
            ("ollama", "/team/api", "/team", Some("/api")),
            ("lm-studio", "/api/v0", "", Some("/api/v0")),
            ("lm-studio", "/api/v1", "", Some("/api/v1")),
            ("lm-studio", "/api", "/api", None),
            ("lemonade", "/api/v1", "", Some("/api/v1")),
            (
                "docker-model-runner",
                "/engines/v1",
                "",
                Some("/engines/v1"),
            ),
            (
                "docker-model-runner",
                "/engines/llama.cpp/v1",
                "/engines/llama.cpp",
                Some("/v1"),
            ),
        ];
        for (kind, path, base, prefix) in table {
            assert_eq!(split(kind, path), (base, prefix), "{kind} {path}");
        }
    }
}
