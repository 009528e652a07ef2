//! The kinds of YAML files, and how they are told apart.
//!
//! Contract: docs/contract/operations.md#9

use std::path::Path;

use super::super::reader::KeyDoc;
use super::super::tree::{ConfigTable, ConfigValue};

/// The program that a YAML configuration is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigKind {
    /// Olla, whose YAML olla reads as it is.
    Olla,
    /// LiteLLM's proxy.
    LiteLlm,
    /// llama-swap.
    LlamaSwap,
}

impl ConfigKind {
    /// Every kind, and its name on the command line.
    pub(crate) const NAMES: [(&'static str, Self); 3] = [
        ("olla", Self::Olla),
        ("litellm", Self::LiteLlm),
        ("llama-swap", Self::LlamaSwap),
    ];

    /// Detects the kind by the top-level keys; `None` = it has no key of any kind.
    /// `reference` is that of olla's keys.
    pub(in crate::config) fn of(table: &ConfigTable, reference: &[KeyDoc]) -> Option<Self> {
        let is_own = |name: &str| {
            let mut paths = reference.iter().map(|doc| doc.path.as_str());
            paths.any(|path| path.split('.').next() == Some(name))
        };
        if table.get("model_list").is_some() {
            return Some(Self::LiteLlm);
        }
        if table.get("peers").is_some() || has_commands(table) {
            return Some(Self::LlamaSwap);
        }
        let known = table.0.iter().any(|(name, _)| is_own(name));
        known.then_some(Self::Olla)
    }

    /// The name of the program.
    const fn program(self) -> &'static str {
        match self {
            Self::Olla => "Olla",
            Self::LiteLlm => "LiteLLM",
            Self::LlamaSwap => "llama-swap",
        }
    }

    /// Why a gateway does not start with such a file; `None` = it does.
    pub(in crate::config) fn refusal(self, path: &Path) -> Option<String> {
        (self != Self::Olla).then(|| {
            format!(
                "expected a configuration of olla, got one of {}; convert it with: \
                 olla import {} > config.toml",
                self.program(),
                path.display()
            )
        })
    }
}

/// Whether `models` has the entries of llama-swap, which say how a server is started.
fn has_commands(table: &ConfigTable) -> bool {
    let Some(ConfigValue::Table(models)) = table.get("models").map(|node| &node.value) else {
        return false;
    };
    models.0.iter().any(|(_, node)| match &node.value {
        ConfigValue::Table(entry) => entry.get("cmd").or(entry.get("proxy")).is_some(),
        _ => false,
    })
}
