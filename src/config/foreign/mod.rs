//! Configuration files of other gateways: recognised by their top-level keys, refused at start, and
//! converted by `olla import`.
//!
//! Nothing is guessed: a key without a counterpart becomes a comment that says why, and a note on
//! standard error. A secret is written only where the file has it in clear and an endpoint needs it.
//!
//! Contract: docs/contract/operations.md#9

mod draft;
pub(super) mod kind;
mod litellm;
mod llama_swap;

use std::path::Path;

use super::finding::Finding;
use super::import::{Imported, import};
use super::inputs::ConfigInputs;
use super::load::reference;
use super::yaml;
use kind::ConfigKind;

/// Converts a YAML file of any kind to TOML; `kind` is detected if it is not named.
///
/// # Errors
/// The findings, if the text is not YAML or its kind cannot be told.
pub(crate) fn convert(
    text: &str,
    path: &Path,
    kind: Option<ConfigKind>,
    inputs: &ConfigInputs<'_>,
) -> Result<Imported, Vec<Finding>> {
    let Ok(table) = yaml::from_yaml(text.strip_prefix('\u{feff}').unwrap_or(text)) else {
        // It names the place that is not YAML.
        return import(text, path, inputs);
    };
    match kind.or_else(|| ConfigKind::of(&table, reference())) {
        Some(ConfigKind::Olla) => import(text, path, inputs),
        Some(ConfigKind::LiteLlm) => Ok(litellm::import(&table, path)),
        Some(ConfigKind::LlamaSwap) => Ok(llama_swap::import(&table, path)),
        None => {
            let message = "expected a configuration of Olla, LiteLLM or llama-swap, \
                           got none of their top-level keys; name its kind with --from";
            Err(vec![Finding::in_file(path, 0, message)])
        }
    }
}

#[cfg(test)]
mod tests;
