//! The environment as the configuration sees it: a value, so that tests need not touch the
//! process's own.

use std::collections::BTreeMap;

/// Environment variables by name. Values may be secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The variables of this process. Bytes that are not UTF-8 are replaced.
    pub fn process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self(
            std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .collect(),
        )
    }

    /// These variables and no others.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a setting; an empty variable counts as unset (contract: operations 10).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.verbatim(name).filter(|value| !value.is_empty())
    }

    /// The value, empty ones too, for `${NAME}`.
    pub fn verbatim(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names of the variables that are set and not empty.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, _)| name.as_str())
    }
}

/// Why `${NAME}` could not be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unset(pub(super) String);

/// Replaces `${NAME}` and `${NAME:-default}`; `$NAME` and anything malformed stay as they are. An
/// empty variable takes the default where there is one (contract: operations 10).
///
/// # Errors
/// The name of the first variable that is unset and has no default.
pub(super) fn expand(text: &str, env: &Env) -> Result<String, Unset> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some((inside, tail)) = after.split_once('}') else {
            rest = &rest[start..];
            break;
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if is_name(name) {
            match (env.verbatim(name), default) {
                (None | Some(""), Some(default)) => out.push_str(default),
                (Some(value), _) => out.push_str(value),
                (None, None) => return Err(Unset(name.to_owned())),
            }
            rest = tail;
        } else {
            out.push_str("${");
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let env = Env::of([("A", "x"), ("EMPTY", ""), ("B_2", "y$z")]);
        let table = [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("${A}", Ok("x")),
            ("a${A}b${B_2}c", Ok("axby$zc")),
            ("$A", Ok("$A")),
            ("${EMPTY}", Ok("")),
            ("${EMPTY:-d}", Ok("d")),
            ("${NONE:-d e}", Ok("d e")),
            ("${NONE:-}", Ok("")),
            ("${A:-d}", Ok("x")),
            ("${NONE}", Err("NONE")),
            ("${A}${NONE}", Err("NONE")),
            ("${A", Ok("${A")),
            ("${}", Ok("${}")),
            ("${a b}${A}", Ok("${a b}x")),
            ("${1}", Ok("${1}")),
        ];
        for (text, want) in table {
            let got = expand(text, &env);
            assert_eq!(
                got.as_deref().map_err(|unset| unset.0.as_str()),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn an_empty_variable_sets_nothing() {
        let env = Env::of([("A", ""), ("B", "1")]);
        assert_eq!((env.get("A"), env.get("B")), (None, Some("1")));
        assert_eq!(env.verbatim("A"), Some(""));
        assert_eq!(env.names().collect::<Vec<_>>(), ["B"]);
    }
}
