//! Separates candidates that speak the Messages API from the others.
//!
//! Contract: docs/contract/translation.md#5

use super::translate::Uses;
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;

/// How a request reaches an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Unchanged, to the endpoint's own messages path.
    Passthrough,
    /// As an OpenAI chat completion.
    Translation,
}

impl Mode {
    /// The name in the log and in `X-Olla-Mode`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Translation => "translation",
        }
    }
}

/// Candidates in the order in which they are tried: those that support the Messages API first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Split {
    /// Endpoints that support the API and can serve this request with it.
    pub(super) native: EndpointSet,
    /// All other candidates.
    pub(super) others: EndpointSet,
}

impl Split {
    /// Splits candidates. `refused` are endpoints that turned out not to speak the API. With
    /// `passthrough` off, no endpoint counts as native.
    pub(super) fn new(
        endpoints: &[Endpoint],
        candidates: &EndpointSet,
        uses: Uses,
        passthrough: bool,
        refused: &EndpointSet,
    ) -> Self {
        let speaks = |index: &usize| {
            let support = endpoints
                .get(*index)
                .and_then(|endpoint| endpoint.profile.anthropic.as_ref());
            support.is_some_and(|support| {
                support.enabled
                    && !support
                        .limitations
                        .iter()
                        .any(|name| uses.are_excluded_by(name))
            })
        };
        let native: EndpointSet = if passthrough {
            candidates.minus(refused).iter().filter(speaks).collect()
        } else {
            EndpointSet::EMPTY
        };
        Self {
            native,
            others: candidates.minus(&native),
        }
    }

    /// The candidates to try next, and how. The others follow when no native endpoint is left.
    pub(super) fn next(&self, tried: &EndpointSet) -> (EndpointSet, Mode) {
        let native = self.native.minus(tried);
        if native.is_empty() {
            (self.others, Mode::Translation)
        } else {
            (native, Mode::Passthrough)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::testing::endpoint;
    use std::sync::Arc;

    fn set(indices: &[usize]) -> EndpointSet {
        indices.iter().copied().collect()
    }

    fn limited(id: usize, limitation: &str) -> Endpoint {
        let mut endpoint = endpoint(id, limitation, "vllm");
        let profile = Arc::make_mut(&mut endpoint.profile);
        if let Some(support) = &mut profile.anthropic {
            support.limitations = vec!["no_token_counting".to_owned(), limitation.to_owned()];
        }
        endpoint
    }

    #[test]
    fn native_candidates_come_first() {
        let mut off = endpoint(7, "off", "vllm");
        if let Some(support) = &mut Arc::make_mut(&mut off.profile).anthropic {
            support.enabled = false;
        }
        let endpoints = [
            endpoint(0, "a", "ollama"),
            endpoint(1, "b", "openai-compatible"),
            endpoint(2, "c", "docker-model-runner"),
            endpoint(3, "d", "sglang"),
            limited(4, "no_tool_use"),
            limited(5, "no_extended_thinking"),
            limited(6, "no_vision"),
            off,
        ];
        let all = EndpointSet::first(endpoints.len());
        let plain = Uses::default();
        let tools = Uses {
            tools: true,
            ..plain
        };
        let thinking = Uses {
            thinking: true,
            ..plain
        };
        let vision = Uses {
            vision: true,
            ..plain
        };
        let none = EndpointSet::EMPTY;
        let table: [(Uses, bool, EndpointSet, &[usize]); 7] = [
            (plain, true, none, &[0, 2, 4, 5, 6]),
            (tools, true, none, &[0, 2, 5, 6]),
            (thinking, true, none, &[0, 2, 4, 6]),
            (vision, true, none, &[0, 2, 4, 5]),
            (plain, false, none, &[]),
            (plain, true, set(&[0, 2]), &[4, 5, 6]),
            (plain, true, all, &[]),
        ];
        for (uses, passthrough, refused, native) in table {
            let split = Split::new(&endpoints, &all, uses, passthrough, &refused);
            assert_eq!(
                split.native,
                set(native),
                "{uses:?} {passthrough} {refused:?}"
            );
            assert_eq!(split.others, all.minus(&split.native));
        }
    }

    #[test]
    fn the_others_wait_for_the_native_ones() {
        let split = Split {
            native: set(&[1, 2]),
            others: set(&[0, 3]),
        };
        let table: [(&[usize], &[usize], Mode); 4] = [
            (&[], &[1, 2], Mode::Passthrough),
            (&[1], &[2], Mode::Passthrough),
            (&[1, 2], &[0, 3], Mode::Translation),
            (&[1, 2, 0], &[0, 3], Mode::Translation),
        ];
        for (tried, next, mode) in table {
            assert_eq!(split.next(&set(tried)), (set(next), mode), "{tried:?}");
        }
    }
}
