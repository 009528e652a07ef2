//! Where a kind of server reports its own version. Pure.
//!
//! Contract: docs/contract/observe.md#1

use super::fields::with_object;

/// Characters of a version that are kept.
const CHARS_MAX: usize = 40;

/// The request for a version, and the field of the response that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionQuestion {
    /// The value for [`super::target()`].
    pub(crate) path: &'static str,
    field: &'static str,
}

/// The request to a server of a type; `None` = its kind has no such document.
pub(crate) fn question(kind: &str) -> Option<VersionQuestion> {
    let (path, field) = match kind {
        "ollama" => ("/api/version", "version"),
        "vllm" | "sglang" => ("/version", "version"),
        "llamacpp" => ("/props", "build_info"),
        "lemonade" => ("/api/v1/health", "version"),
        "litellm" => ("/health/readiness", "litellm_version"),
        _ => return None,
    };
    Some(VersionQuestion { path, field })
}

impl VersionQuestion {
    /// The version in a response.
    pub(crate) fn read(self, body: &[u8]) -> Option<String> {
        let body = String::from_utf8_lossy(body);
        with_object(body.trim_start_matches('\u{feff}'), |document| {
            let version = document.text(self.field)?;
            let version: String = version.trim().chars().take(CHARS_MAX).collect();
            (!version.is_empty()).then_some(version)
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_the_server_has_them() {
        let read = |kind: &str, body: &str| question(kind)?.read(body.as_bytes());
        let table = [
            ("ollama", r#"{"version":"0.5.1"}"#, Some("0.5.1")),
            ("vllm", r#"{"version":" 0.11.1 "}"#, Some("0.11.1")),
            (
                "llamacpp",
                r#"{"n_ctx":1,"build_info":"b4847-x"}"#,
                Some("b4847-x"),
            ),
            ("litellm", r#"{"litellm_version":"1.2"}"#, Some("1.2")),
            ("ollama", r#"{"version":""}"#, None),
            ("ollama", r#"{"version":5}"#, None),
            ("ollama", "0.5.1", None),
            ("lm-studio", r#"{"version":"1"}"#, None),
        ];
        for (kind, body, want) in table {
            assert_eq!(read(kind, body).as_deref(), want, "{kind} {body}");
        }
        let long = format!(r#"{{"version":"{}"}}"#, "9".repeat(1000));
        assert_eq!(read("vllm", &long).map(|text| text.len()), Some(CHARS_MAX));
    }
}
