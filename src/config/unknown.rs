//! Unknown keys and variables, with suggestions.
//!
//! Contract: docs/contract/operations.md#10, docs/contract/operations.md#11 (a warning at start
//! with the nearest known key)

use std::collections::BTreeSet;

use super::finding::{Finding, IGNORED, Origin, Severity};
use super::nearest::{distance, hint, nearest, tolerance};
use super::reader::{ConfigReader, KeyDoc, join};
use super::tree::{ConfigNode, ConfigTable, ConfigValue};

/// A table to search: the path of its keys, and their path in the reference.
struct Unseen<'t> {
    table: &'t ConfigTable,
    path: String,
    pattern: String,
}

/// A key that no declaration reads.
struct UnknownKey<'a> {
    /// The path of its table.
    parent: &'a str,
    /// Its own path as the reference writes paths.
    pattern: &'a str,
    name: &'a str,
    node: &'a ConfigNode,
}

impl ConfigReader<'_> {
    /// Warns about keys that no declaration reads and about unknown variables.
    pub(super) fn report_unknown(&mut self, root: &ConfigTable, reference: &[KeyDoc]) {
        let mut stack = vec![Unseen {
            table: root,
            path: String::new(),
            pattern: String::new(),
        }];
        while let Some(Unseen {
            table,
            path: parent,
            pattern: parent_pattern,
        }) = stack.pop()
        {
            let is_free = has_free_names(&parent_pattern, reference);
            for (name, node) in &table.0 {
                let path = join(&parent, name);
                let name_or_any = if is_free { ANY_NAME } else { name };
                let pattern = join(&parent_pattern, name_or_any);
                let inside = |suffix: &str| {
                    let prefix = format!("{pattern}{suffix}");
                    reference.iter().any(|doc| doc.path.starts_with(&prefix))
                };
                if reference.iter().any(|doc| doc.path == pattern) {
                    continue;
                }
                match &node.value {
                    ConfigValue::Table(table) if inside(".") => stack.push(Unseen {
                        table,
                        path,
                        pattern,
                    }),
                    ConfigValue::List(items) if inside("[].") => {
                        for (at, item) in items.iter().enumerate() {
                            if let ConfigValue::Table(table) = &item.value {
                                stack.push(Unseen {
                                    table,
                                    path: format!("{path}[{at}]"),
                                    pattern: format!("{pattern}[]"),
                                });
                            }
                        }
                    }
                    // The section has reported a value of the wrong kind.
                    _ if inside(".") || inside("[].") => {}
                    _ => self.unknown_key(
                        &UnknownKey {
                            parent: &parent,
                            pattern: &pattern,
                            name,
                            node,
                        },
                        reference,
                    ),
                }
            }
        }
        self.report_unknown_variables(reference);
    }

    /// Reports an unknown key. If the suggested key is required and missing, both are one mistake, and
    /// this is the only message.
    fn unknown_key(&mut self, unknown: &UnknownKey<'_>, reference: &[KeyDoc]) {
        let UnknownKey {
            parent,
            pattern,
            name,
            node,
        } = *unknown;
        let known = known_paths(reference);
        let near = nearest_key(pattern, known.iter().map(String::as_str));
        let in_same_table = |near: &str| split(near).0 == split(pattern).0;
        let near = near.map(|near| {
            if in_same_table(near) {
                split(near).1
            } else {
                near
            }
        });
        let stands_for_missing = near.is_some_and(|near| self.take_missing(&join(parent, near)));
        let (severity, ignored) = if stands_for_missing {
            (Severity::Error, "")
        } else {
            (Severity::Warning, IGNORED)
        };
        let source = self.at_line(node.line);
        self.find(Finding {
            source,
            key: join(parent, name),
            unknown_key: true,
            ..Finding::new(severity, format!("unknown key{ignored}{}", hint(near)))
        });
    }

    fn report_unknown_variables(&mut self, reference: &[KeyDoc]) {
        let links: Vec<&str> = self.env.service_links().collect();
        if let Some(first) = links.first() {
            let message = format!(
                "ignoring the variables of a Kubernetes Service ({}); \
                 enableServiceLinks: false in the pod leaves them out",
                links.join(", ")
            );
            self.find(Finding {
                source: Origin::Env((*first).to_owned()),
                ..Finding::new(Severity::Warning, message)
            });
        }
        let ours = self.env.names().filter(|name| name.starts_with("OLLA_"));
        let is_known = |name: &str| reference.iter().any(|doc| doc.env == Some(name));
        let unknown: Vec<&str> = ours.filter(|name| !is_known(name)).collect();
        for name in unknown {
            let near = nearest(name, reference.iter().filter_map(|doc| doc.env));
            let message = format!("unknown variable, ignored{}", hint(near));
            self.find(Finding {
                source: Origin::Env(name.to_owned()),
                ..Finding::new(Severity::Warning, message)
            });
        }
    }
}

/// The name of a table in the reference that stands for tables of any name.
pub(super) const ANY_NAME: &str = "NAME";

/// Whether the tables inside of a table have any names.
fn has_free_names(pattern: &str, reference: &[KeyDoc]) -> bool {
    !pattern.is_empty()
        && reference.iter().any(|doc| {
            let inside = doc.path.strip_prefix(pattern);
            let inside = inside.and_then(|rest| rest.strip_prefix('.'));
            inside.is_some_and(|rest| rest.split('.').next() == Some(ANY_NAME))
        })
}

/// The paths of all keys and of the tables around them.
fn known_paths(reference: &[KeyDoc]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for doc in reference.iter().filter(|doc| !doc.path.is_empty()) {
        let mut path = doc.path.as_str();
        loop {
            known.insert(path.trim_end_matches("[]").to_owned());
            match path.rsplit_once('.') {
                Some((table, _)) => path = table,
                None => break,
            }
        }
    }
    known
}

/// The table of a path and its last name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// The known key that is nearest. The same name in another table counts as near.
pub(super) fn nearest_key<'k>(
    given: &str,
    known: impl Iterator<Item = &'k str>,
) -> Option<&'k str> {
    let (table, name) = split(given);
    let score = |path: &str| {
        let (other_table, other_name) = split(path);
        let moved = usize::from(table != other_table);
        let near = (distance(name, other_name) + 2 * moved).min(distance(given, path));
        // Of equally near names, the one in the nearest table is suggested.
        (near, distance(given, path))
    };
    let known: Vec<&str> = known.collect();
    let best = known.iter().map(|path| (score(path), *path)).min()?;
    let is_near = best.0.0 <= tolerance(name).max(2);
    let near = is_near.then_some(best.1);
    if near.is_some_and(|near| split(near).0 == table) {
        return near;
    }
    // `max_body` stands for `max_body_size`, if no other key of the table has its words.
    let mut longer = known.into_iter().filter(|path| {
        let (other_table, other_name) = split(path);
        table == other_table && has_words(other_name, name)
    });
    longer.next().filter(|_| longer.next().is_none()).or(near)
}

/// Whether a name has all words of another one.
fn has_words(name: &str, words: &str) -> bool {
    words.split('_').all(|word| {
        name.split('_')
            .any(|other| other.eq_ignore_ascii_case(word))
    })
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
            "server.request_limits.max_body_size",
            "server.request_limits.max_header_size",
            "server.cors.allowed_origins",
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
            (
                "server.request_limits.max_body",
                Some("server.request_limits.max_body_size"),
            ),
            ("server.cors.origins", Some("server.cors.allowed_origins")),
            // Two keys have this word, and another table does not count.
            ("server.request_limits.size", None),
            ("proxy.origins", None),
            ("server.", None),
        ];
        for (given, want) in table {
            assert_eq!(nearest_key(given, known.into_iter()), want, "{given}");
        }
    }
}
