//! The valid name that is nearest to an unknown one.

/// The nearest of the known names, if a typing error may explain the difference. Each swapped,
/// missing, added or wrong letter counts as one error; letter case is ignored.
pub(crate) fn nearest<'k>(
    given: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let ranked = known.into_iter().map(|name| (distance(given, name), name));
    let (edits, name) = ranked.min()?;
    (edits <= tolerance(given)).then_some(name)
}

/// Number of single-character edits from one name to the other, letter case ignored.
pub(super) fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

/// Maximum number of edits that count as a typing error.
pub(super) fn tolerance(name: &str) -> usize {
    (name.len() / 3).clamp(1, 4)
}

/// The end of a message: a suggestion, or an empty string.
pub(super) fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| {
        format!("; did you mean {}?", super::values::quoted(near))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised_and_other_words_are_not() {
        let known = ["priority", "round-robin", "least-connections"];
        let table = [
            ("round_robin", Some("round-robin")),
            ("Priority", Some("priority")),
            ("prioirty", Some("priority")),
            ("least-connection", Some("least-connections")),
            ("random", None),
            ("", None),
            ("x", None),
        ];
        for (given, want) in table {
            assert_eq!(nearest(given, known), want, "{given}");
        }
        assert_eq!(nearest("a", []), None);
        assert_eq!(hint(Some("port")), "; did you mean \"port\"?");
    }
}
