//! Globs over names: of models, of endpoints and of profiles.
//!
//! Contract: docs/contract/catalogue.md#4.1

/// Whether a pattern matches a whole name, ignoring case. `*` stands for any run of characters,
/// also none; nothing else is special.
///
/// Letter case is folded for ASCII only, which names of models and profiles consist of; so the
/// comparison needs no allocation.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to continue after a mismatch: after the last star, one byte further in the name.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, n + 1));
            }
            Some(wanted) if wanted.eq_ignore_ascii_case(byte) => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((behind_star, next)) => {
                    (p, n) = (behind_star, next);
                    retry = Some((behind_star, next + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_names() {
        let table = [
            // pattern, matching, not matching
            ("*", &["", "x", "a/b:c"][..], &[][..]),
            ("llama*", &["llama", "LLAMA3:8b"], &["xllama", "llam"]),
            ("*-7b", &["mistral-7B", "-7b"], &["mistral-7b-x", "7b"]),
            ("*embed*", &["nomic-embed-text", "EMBED"], &["embd"]),
            (
                "phi3:mini",
                &["phi3:mini", "PHI3:MINI"],
                &["phi3:mini2", "phi3"],
            ),
            (
                "qwen*coder*",
                &["qwencoder", "Qwen2.5-Coder-7B", "qwen-coder-coder"],
                &["coder-qwen", "qwen2.5"],
            ),
            ("a*b*c", &["abc", "aXbXbXc", "abcc"], &["abcd", "acb"]),
            ("**a**", &["a", "xax"], &["x", ""]),
            ("a?c", &["a?c"], &["abc"]),
            ("[ab]", &["[ab]"], &["a"]),
            ("é*", &["éa"], &["e", "a"]),
            ("", &[""], &["x"]),
        ];
        for (pattern, yes, no) in table {
            for name in yes {
                assert!(glob(pattern, name), "{pattern} should match {name}");
            }
            for name in no {
                assert!(!glob(pattern, name), "{pattern} should not match {name}");
            }
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_regular_expressions(pattern in "[ab*]{0,8}", name in "[abAB]{0,10}") {
            let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
            let expression = format!("(?is)^{}$", parts.join(".*"));
            let expected = regex::Regex::new(&expression).unwrap().is_match(&name);
            prop_assert_eq!(glob(&pattern, &name), expected);
        }
    }
}
