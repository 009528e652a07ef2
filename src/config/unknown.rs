//! Keys and variables that nothing reads, and what was probably meant.
//!
//! contract: operations 10, 11 (a warning at start with the nearest known key)

use super::finding::Origin;
use super::reader::{ConfigReader, KeyDoc, join};
use super::tree::{ConfigTable, ConfigValue};
use super::values::edit_distance;

impl ConfigReader<'_> {
    /// Warns of keys that no declaration reads and of variables that set nothing.
    pub(super) fn report_unknown(&mut self, root: &ConfigTable, reference: &[KeyDoc]) {
        let mut stack = vec![(root, String::new(), String::new())];
        while let Some((table, path, pattern)) = stack.pop() {
            for (name, node) in &table.0 {
                let (path, pattern) = (join(&path, name), join(&pattern, name));
                let inside = |suffix: &str| {
                    let prefix = format!("{pattern}{suffix}");
                    reference.iter().any(|doc| doc.path.starts_with(&prefix))
                };
                if reference.iter().any(|doc| doc.path == pattern) {
                    continue;
                }
                match &node.value {
                    ConfigValue::Table(table) if inside(".") => stack.push((table, path, pattern)),
                    ConfigValue::List(items) if inside("[].") => {
                        for (at, item) in items.iter().enumerate() {
                            if let ConfigValue::Table(table) = &item.value {
                                let path = format!("{path}[{at}]");
                                stack.push((table, path, format!("{pattern}[]")));
                            }
                        }
                    }
                    // Of the wrong kind: whoever opened the section has said so.
                    _ if inside(".") || inside("[].") => {}
                    _ => {
                        let source = self.at_line(node.line);
                        let known = reference.iter().map(|doc| doc.path.as_str());
                        let near = nearest_key(&pattern, known);
                        self.unknown(source, path, "key", near);
                    }
                }
            }
        }
        let names: Vec<&str> = self
            .env
            .names()
            .filter(|name| name.starts_with("OLLA_"))
            .collect();
        for name in names {
            if reference.iter().any(|doc| doc.env == Some(name)) {
                continue;
            }
            let near = nearest(name, reference.iter().filter_map(|doc| doc.env));
            let source = Origin::Env(name.to_owned());
            self.unknown(source, String::new(), "variable", near);
        }
    }
}

/// The known key that was most likely meant: the same last word elsewhere counts as near.
pub(super) fn nearest_key<'k>(
    given: &str,
    known: impl Iterator<Item = &'k str>,
) -> Option<&'k str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let parent = |path: &str| path.rsplit_once('.').map(|(head, _)| head.to_owned());
    let word = last(given);
    let score = |path: &str| {
        let by_word = edit_distance(&word, &last(path));
        let moved = usize::from(parent(given) != parent(path));
        let near = (by_word + 2 * moved).min(edit_distance(given, path));
        // Among equals the one that stands closest.
        (near, edit_distance(given, path))
    };
    let best = known
        .filter(|path| !path.is_empty())
        .map(|path| (score(path), path))
        .min()?;
    (best.0.0 <= tolerance(&word)).then_some(best.1)
}

fn nearest<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let best = known.map(|name| (edit_distance(given, name), name)).min()?;
    (best.0 <= tolerance(given)).then_some(best.1)
}

/// Edits within which a word is taken for a typing error.
fn tolerance(word: &str) -> usize {
    (word.len() / 3).clamp(2, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_meant() {
        let known = [
            "dashboard.enabled",
            "dashboard.access_policy.allowed_cidrs",
            "server.cors.enabled",
            "server.port",
            "server.read_timeout",
            "proxy.read_timeout",
        ];
        let table = [
            (
                "dashboard.allowed_cidrs",
                Some("dashboard.access_policy.allowed_cidrs"),
            ),
            ("server.prot", Some("server.port")),
            ("proxy.read_timout", Some("proxy.read_timeout")),
            ("server.readtimeout", Some("server.read_timeout")),
            ("sever.port", Some("server.port")),
            ("dashboard.enable", Some("dashboard.enabled")),
            ("server.something_else", None),
            ("profiles", None),
        ];
        for (given, want) in table {
            assert_eq!(nearest_key(given, known.into_iter()), want, "{given}");
        }
    }
}
