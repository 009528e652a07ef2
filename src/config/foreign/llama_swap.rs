//! llama-swap's `config.yaml`. llama-swap goes on starting the servers; olla stands before it.
//!
//! Contract: docs/contract/operations.md#9

use std::path::Path;

use super::super::import::Imported;
use super::super::reader::join;
use super::super::tree::{ConfigNode, ConfigTable, ConfigValue};
use super::super::values::quoted;
use super::draft::{Draft, ImportPlace, bearer, list, seconds_of, takes, text_of, texts_of};

const ENDPOINTS: &str = "discovery.static.endpoints";
const ALIASES: &str = "model_aliases";

/// The endpoint that llama-swap is, and where it listens unless it is told otherwise.
const NAME: &str = "llama-swap";
const ADDRESS: &str = "http://localhost:8080";

/// Replacements of macros within one another; llama-swap wants them defined before they are used.
const MACRO_ROUNDS: usize = 8;

/// What llama-swap goes on doing.
const STAYS: &str = "llama-swap goes on doing this";

struct Import<'t> {
    draft: Draft,
    macros: Vec<(&'t str, String)>,
}

/// Converts the file.
pub(super) fn import(table: &ConfigTable, path: &Path) -> Imported {
    let mut import = Import {
        draft: Draft::new(path, "llama-swap"),
        macros: macros_of(table),
    };
    import.swapper(table);
    for (name, node) in table.0.iter().filter(|(_, node)| !node.is_null()) {
        let place = ImportPlace::new("", name, node);
        match (name.as_str(), &node.value) {
            ("models", ConfigValue::Table(models)) => import.models(models),
            ("peers", ConfigValue::Table(peers)) => import.peers(peers),
            ("healthCheckTimeout", _) => import.load_timeout(&place, node),
            ("apiKeys", _) => {
                let why = "olla sends the first one to llama-swap; keys for olla's own clients are \
                           described in docs/access.md";
                import.draft.remark(&place, why);
            }
            _ => import.draft.remark(&place, STAYS),
        }
    }
    import.draft.finish()
}

/// The macros of the whole file.
fn macros_of(table: &ConfigTable) -> Vec<(&str, String)> {
    let Some(ConfigValue::Table(macros)) = table.get("macros").map(|node| &node.value) else {
        return Vec::new();
    };
    let pairs = macros.0.iter();
    pairs
        .filter_map(|(name, node)| Some((name.as_str(), text_of(node)?)))
        .collect()
}

impl Import<'_> {
    /// The endpoint that all models of the file are behind.
    fn swapper(&mut self, table: &ConfigTable) {
        let mut fields = vec![
            ("name", quoted(NAME)),
            ("url", quoted(ADDRESS)),
            ("type", quoted("openai-compatible")),
        ];
        let keys = table.get("apiKeys").map(texts_of).unwrap_or_default();
        if let Some(key) = keys.first().and_then(|key| self.expanded(key)) {
            fields.push(("auth", bearer(&key)));
        }
        self.draft.item(ENDPOINTS, &fields);
        self.draft.comment(
            "llama-swap goes on starting and stopping the servers. Change the url if it listens \
             elsewhere.",
        );
    }

    fn models(&mut self, models: &ConfigTable) {
        for (id, node) in &models.0 {
            let path = join("models", id);
            let ConfigValue::Table(model) = &node.value else {
                let place = ImportPlace::new("models", id, node);
                self.draft.remark(&place, "expected a table; left out");
                continue;
            };
            for (name, node) in model.0.iter().filter(|(_, node)| !node.is_null()) {
                let place = ImportPlace::new(&path, name, node);
                if name == "aliases" {
                    self.aliases(&place, id, node);
                } else {
                    self.draft.remark(&place, STAYS);
                }
            }
        }
    }

    fn aliases(&mut self, place: &ImportPlace, id: &str, node: &ConfigNode) {
        for alias in texts_of(node) {
            let Some(alias) = self.expanded(&alias).filter(|alias| alias.trim() == *alias) else {
                self.draft
                    .remark(place, "expected names without blanks around them");
                continue;
            };
            let target = list(&[id.to_owned()]);
            if self.draft.set(ALIASES, &alias, &target).is_err() {
                self.draft
                    .remark(place, "another model has one of these aliases");
            }
        }
    }

    fn peers(&mut self, peers: &ConfigTable) {
        for (name, node) in &peers.0 {
            let path = join("peers", name);
            let place = ImportPlace::new("peers", name, node);
            let ConfigValue::Table(peer) = &node.value else {
                self.draft.remark(&place, "expected a table; left out");
                continue;
            };
            let text = |key: &str| peer.get(key).and_then(text_of);
            let Some(url) = text("proxy").and_then(|url| self.expanded(&url)) else {
                self.draft
                    .remark(&place, "expected proxy with a URL; left out");
                continue;
            };
            let mut fields = vec![
                ("name", quoted(name)),
                ("url", quoted(&url)),
                ("type", quoted("openai-compatible")),
            ];
            if let Some(key) = text("apiKey").and_then(|key| self.expanded(&key)) {
                fields.push(("auth", bearer(&key)));
            }
            let models = peer.get("models").map(texts_of).unwrap_or_default();
            if !models.is_empty() {
                let include = format!("{{ include = {} }}", list(&models));
                fields.push(("model_filter", include));
            }
            self.draft.item(ENDPOINTS, &fields);
            for (name, node) in peer.0.iter().filter(|(_, node)| !node.is_null()) {
                if !["proxy", "apiKey", "models"].contains(&name.as_str()) {
                    let place = ImportPlace::new(&path, name, node);
                    self.draft
                        .remark(&place, "olla passes requests to a peer on as they are");
                }
            }
        }
    }

    fn load_timeout(&mut self, place: &ImportPlace, node: &ConfigNode) {
        let value = takes("proxy.model_load_timeout", None)
            .then(|| seconds_of(node))
            .flatten();
        match value {
            Some(value) => {
                let _ = self.draft.set("proxy", "model_load_timeout", &value);
            }
            None => self.draft.remark(place, STAYS),
        }
    }

    /// A text with its macros replaced and its variables as olla writes them; `None` if a macro is
    /// unknown.
    fn expanded(&self, text: &str) -> Option<String> {
        let mut text = text.to_owned();
        for _ in 0..MACRO_ROUNDS {
            let before = text.clone();
            for (name, value) in &self.macros {
                text = text.replace(&format!("${{{name}}}"), value);
            }
            if text == before {
                break;
            }
        }
        let text = text.replace("${env.", "\u{0}");
        let is_known = !text.contains("${") && !text.is_empty();
        is_known.then(|| text.replace('\u{0}', "${"))
    }
}
