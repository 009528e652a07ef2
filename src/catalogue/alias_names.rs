//! The names of the configured aliases, and the alias that a requested name stands for.
//!
//! Routing and the listings look names up here, so that a client that retrieves a model learns of
//! the alias by which a request for it would be routed.
//!
//! Contract: docs/contract/balancing.md#4.3, docs/contract/catalogue.md#5.10

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use crate::config::AliasPlan;
use crate::glob::glob;
use crate::providers::{LATEST, with_folded};

/// The names of the aliases of a plan, each with its place in `model_aliases`.
#[derive(Debug, Default)]
pub(crate) struct AliasNames {
    exact: FxHashMap<Box<str>, usize>,
    /// By the name in lower case; of several the first.
    folded: FxHashMap<Box<str>, usize>,
    /// In the order in which they are tried.
    patterns: Vec<Pattern>,
}

/// An alias with `*` in it.
#[derive(Debug)]
struct Pattern {
    glob: Box<str>,
    alias: usize,
}

impl AliasNames {
    /// The names of a plan's `model_aliases`.
    pub(crate) fn new(plans: &[AliasPlan]) -> Self {
        let mut names = Self::default();
        for (alias, plan) in plans.iter().enumerate() {
            names.exact.insert(plan.name.as_str().into(), alias);
            with_folded(&plan.name, "", |key| {
                names.folded.entry(key.into()).or_insert(alias);
            });
            if plan.is_pattern() {
                let glob = plan.name.as_str().into();
                names.patterns.push(Pattern { glob, alias });
            }
        }
        names.patterns.sort_by(|a, b| {
            let rank = |pattern: &Pattern| {
                let stars = memchr::memchr_iter(b'*', pattern.glob.as_bytes()).count();
                (Reverse(pattern.glob.chars().count() - stars), stars)
            };
            rank(a)
                .cmp(&rank(b))
                .then_with(|| a.glob.as_bytes().cmp(b.glob.as_bytes()))
        });
        names
    }

    /// The alias of this name: in this spelling, else in any letter case. It comes before a real
    /// model of the name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        if self.exact.is_empty() {
            return None;
        }
        let exact = self.exact.get(name).copied();
        exact.or_else(|| with_folded(name, "", |key| self.folded.get(key).copied()))
    }

    /// The alias for a name that neither an alias nor a known model has: of the name without a
    /// `:latest` at its end, else the most specific pattern that fits.
    pub(crate) fn covering(&self, name: &str) -> Option<usize> {
        if self.exact.is_empty() {
            return None;
        }
        let untagged = name.len().checked_sub(LATEST.len()).and_then(|end| {
            let (front, tag) = name.split_at_checked(end)?;
            tag.eq_ignore_ascii_case(LATEST).then_some(front)
        });
        untagged
            .and_then(|front| self.named(front))
            .or_else(|| self.fitting(name))
    }

    fn fitting(&self, name: &str) -> Option<usize> {
        let mut patterns = self.patterns.iter();
        let fitting = patterns.find(|pattern| glob(&pattern.glob, name))?;
        Some(fitting.alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_order_of_the_contract() {
        let all = [
            "Fast",
            "fast",
            "claude-*",
            "claude-*-haiku",
            "*",
            "claude-o*",
            "*-4",
            "a*b",
            "b*a",
            "a*c*",
            "ac**",
            "code",
        ];
        let plans = all.map(|name| AliasPlan {
            name: name.to_owned(),
            targets: vec!["x".to_owned()],
        });
        let names = AliasNames::new(&plans);
        let shown = |found: Option<usize>| found.map_or("-", |at| all[at]);
        let rows = [
            // asked for, by name, and if no model has the name
            ("Fast", "Fast", "*"),
            ("fast", "fast", "*"),
            ("FAST", "Fast", "*"),
            ("fast:latest", "-", "fast"),
            ("FAST:latest", "-", "Fast"),
            ("code:LATEST", "-", "code"),
            (":latest", "-", "*"),
            ("claude-sonnet", "-", "claude-*"),
            ("CLAUDE-opus", "-", "claude-o*"),
            ("claude-opus-haiku", "-", "claude-*-haiku"),
            ("claude-5-4", "-", "claude-*"),
            ("gpt-4", "-", "*-4"),
            ("claude-*", "claude-*", "claude-*"),
            // As many characters: the one with fewer stars, then the smaller one.
            ("acb", "-", "a*b"),
            ("aca", "-", "a*c*"),
            ("b:a", "-", "b*a"),
            ("é", "-", "*"),
        ];
        for (name, by_name, otherwise) in rows {
            assert_eq!(shown(names.named(name)), by_name, "{name}");
            assert_eq!(shown(names.covering(name)), otherwise, "{name}");
        }
        let none = AliasNames::new(&[]);
        assert_eq!((none.named("x"), none.covering("x")), (None, None));
    }
}
