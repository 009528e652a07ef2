//! Filters of names by globs.
//!
//! Contract: docs/contract/catalogue.md#4

use crate::config::NameFilter;
use crate::glob::glob;

/// Whether a filter admits a name: an include pattern matches, or there is none, and no exclude
/// pattern does.
pub fn admits(filter: &NameFilter, name: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, name));
    (filter.include.is_empty() || any(&filter.include)) && !any(&filter.exclude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclude_wins() {
        let filter = |include: &[&str], exclude: &[&str]| NameFilter {
            include: include.iter().map(|p| (*p).to_owned()).collect(),
            exclude: exclude.iter().map(|p| (*p).to_owned()).collect(),
        };
        let table = [
            (filter(&[], &[]), "m", true),
            (filter(&["*"], &[]), "m", true),
            (filter(&["a*", "m*"], &[]), "m", true),
            (filter(&["a*"], &[]), "m", false),
            (filter(&["a*", "*"], &[]), "m", true),
            (filter(&["m"], &["M"]), "m", false),
            (filter(&[], &["*"]), "m", false),
            (filter(&[], &["*test*"]), "m", true),
        ];
        for (filter, name, admitted) in table {
            assert_eq!(admits(&filter, name), admitted, "{filter:?}");
        }
    }
}
