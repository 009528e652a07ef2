//! Thinking switched on or off, and how much of it (docs/contract/dialects.md#4).

/// What a client wants of a model's thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// None.
    Off,
    /// So much, in the words of chat completions.
    Effort(&'static str),
}

impl Thinking {
    /// By the name of an effort; `None` if it is not known.
    pub(crate) fn of_effort(effort: &str) -> Option<Self> {
        Some(match effort {
            "none" => Self::Off,
            "minimal" | "low" => Self::Effort("low"),
            "medium" => Self::Effort("medium"),
            "high" | "xhigh" | "max" => Self::Effort("high"),
            _ => return None,
        })
    }

    /// Appends the members of a request that say it to servers of a type, each after a comma.
    pub(crate) fn write(self, kind: &str, out: &mut Vec<u8>) {
        let effort = match self {
            Self::Off => "none",
            Self::Effort(effort) => effort,
        };
        out.extend_from_slice(br#","reasoning_effort":""#);
        out.extend_from_slice(effort.as_bytes());
        out.push(b'"');
        let by_template = matches!(
            kind,
            "vllm" | "sglang" | "llamacpp" | "vllm-mlx" | "lmdeploy"
        );
        if self == Self::Off && by_template {
            out.extend_from_slice(br#","chat_template_kwargs":{"enable_thinking":false}"#);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_are_told() {
        let off = r#","chat_template_kwargs":{"enable_thinking":false}"#;
        for (effort, kind, sent, more) in [
            ("low", "vllm", "low", ""),
            ("minimal", "vllm", "low", ""),
            ("medium", "ollama", "medium", ""),
            ("high", "ollama", "high", ""),
            ("xhigh", "ollama", "high", ""),
            ("max", "llamacpp", "high", ""),
            ("none", "llamacpp", "none", off),
            ("none", "lmdeploy", "none", off),
            ("none", "openai-compatible", "none", ""),
        ] {
            let mut out = Vec::new();
            Thinking::of_effort(effort).unwrap().write(kind, &mut out);
            let expected = format!(r#","reasoning_effort":"{sent}"{more}"#);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{effort} {kind}");
        }
        assert_eq!(Thinking::of_effort("some"), None);
    }
}
