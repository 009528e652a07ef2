//! Which names a list of globs allows.
//!
//! Contract: docs/contract/access.md#5.1, docs/contract/access.md#6

use crate::glob::glob;

/// Whether a list allows a name. A glob that begins with `!` excludes and wins over all others; a
/// list of nothing but exclusions begins from everything; an empty one allows nothing.
pub(crate) fn allows(globs: &[String], name: &str) -> bool {
    allows_any(globs, &[name])
}

/// Whether a list allows something by one of its names, and none of them is excluded. Names are
/// looked up in lower case by the rules of Unicode, where the Kelvin sign is a `k` too: what such a
/// name becomes is one of its names.
fn allows_any(globs: &[String], names: &[&str]) -> bool {
    let folded: Vec<String> = names
        .iter()
        .filter(|name| !name.is_ascii())
        .map(|name| name.to_lowercase())
        .collect();
    let any = |pattern: &str| {
        let folded = folded.iter().map(String::as_str);
        names
            .iter()
            .copied()
            .chain(folded)
            .any(|name| glob(pattern, name))
    };
    let mut included = false;
    let mut includes_any = false;
    for pattern in globs {
        match pattern.strip_prefix('!') {
            Some(excluded) if any(excluded) => return false,
            Some(_) => {}
            None => {
                includes_any = true;
                included = included || any(pattern);
            }
        }
    }
    included || (!includes_any && !globs.is_empty())
}

/// Whether a list allows the name of a model. Ollama appends `:latest` to names and knows them
/// without it; `is_completed` says that the name stands for one with it.
pub(crate) fn allows_model(globs: &[String], name: &str, is_completed: bool) -> bool {
    const LATEST: &str = ":latest";
    if is_completed {
        return allows_any(globs, &[name, &format!("{name}{LATEST}")]);
    }
    let short = name.len().checked_sub(LATEST.len());
    let short = short.and_then(|at| name.split_at_checked(at));
    match short {
        Some((short, tag)) if tag.eq_ignore_ascii_case(LATEST) => allows_any(globs, &[name, short]),
        _ => allows(globs, name),
    }
}

/// Whether a list allows every name there can be.
pub(crate) fn allows_every(globs: &[String]) -> bool {
    let is_star =
        |pattern: &String| !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*');
    let excludes = |pattern: &String| pattern.starts_with('!');
    globs.iter().any(is_star) && !globs.iter().any(excludes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_routing_makes_of_it() {
        let globs = |globs: &[&str]| {
            globs
                .iter()
                .map(|glob| (*glob).to_owned())
                .collect::<Vec<_>>()
        };
        // U+212A, the Kelvin sign, is a k in lower case.
        assert!(!allows_model(&globs(&["!kimi*"]), "\u{212a}imi", false));
        assert!(allows_model(&globs(&["kimi*"]), "\u{212a}imi", false));
        assert!(allows_model(&globs(&["!kimi*"]), "qwen", false));
    }

    #[test]
    fn exclusions_win() {
        let table: [(&[&str], &str, bool); 12] = [
            (&["*"], "x", true),
            (&[], "x", false),
            (&["llama*"], "LLAMA3:8b", true),
            (&["llama*"], "qwen", false),
            (&["llama*", "qwen"], "Qwen", true),
            (&["*", "!qwen*"], "qwen3", false),
            (&["!qwen*", "*"], "qwen3", false),
            (&["!qwen*", "qwen3"], "qwen3", false),
            (&["!qwen*"], "llama3", true),
            (&["!qwen*"], "qwen3", false),
            (&["!qwen*", "llama*"], "phi", false),
            (&["!*"], "x", false),
        ];
        for (globs, name, allowed) in table {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
            assert_eq!(allows(&globs, name), allowed, "{globs:?} {name}");
        }
    }

    #[test]
    fn a_tag_that_ollama_appends_makes_no_other_model() {
        let table: [(&[&str], &str, bool, bool); 7] = [
            (&["llama3"], "llama3:latest", false, true),
            (&["llama3"], "llama3:8b", false, false),
            (&["llama3:latest"], "llama3", true, true),
            (&["llama3:latest"], "llama3", false, false),
            (&["*", "!llama3:latest"], "llama3", true, false),
            (&["*", "!llama3"], "llama3:LATEST", false, false),
            (&["x"], ":latest", false, false),
        ];
        for (globs, name, is_completed, allowed) in table {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
            let got = allows_model(&globs, name, is_completed);
            assert_eq!(got, allowed, "{globs:?} {name}");
        }
    }

    #[test]
    fn lists_that_allow_every_name() {
        let table: [(&[&str], bool); 7] = [
            (&["*"], true),
            (&["a", "**"], true),
            (&[], false),
            (&["*", "!a"], false),
            (&["!a"], false),
            (&["a*"], false),
            (&["a", "b"], false),
        ];
        for (globs, every) in table {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
            assert_eq!(allows_every(&globs), every, "{globs:?}");
        }
    }
}
