//! Scans, compared with what reads byte by byte.

use proptest::prelude::*;

use super::*;

/// Byte by byte, the way the grammar is read.
fn slow_string_end(body: &[u8], escaped: &mut bool) -> Option<usize> {
    for (at, byte) in body.iter().enumerate() {
        match (*escaped, byte) {
            (false, b'"') => return Some(at),
            (false, b'\\') => *escaped = true,
            _ => *escaped = false,
        }
    }
    None
}

/// Runs of plain text, backslashes and quotes, of lengths around those of blocks and lanes.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![0..5_usize, 14..18_usize, 60..68_usize];
    let run = (
        prop::sample::select(b"a\\\\\"".to_vec()),
        length,
        any::<bool>(),
    );
    prop::collection::vec(run, 0..12).prop_map(|runs| {
        let mut text = Vec::new();
        for (byte, length, escaped_quote) in runs {
            // A quote ends the string, so only one of them at a time, and mostly escaped.
            text.resize(text.len() + if byte == b'"' { 1 } else { length }, byte);
            text.extend_from_slice(if escaped_quote { b"a\\\"" } else { b"" });
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4000)
    })]

    #[test]
    fn strings_end_where_they_do_byte_by_byte(
        text in text(),
        cut in any::<prop::sample::Index>(),
        escaped in any::<bool>(),
    ) {
        let mut slowly = escaped;
        let expected = slow_string_end(&text, &mut slowly);
        let mut at_once = escaped;
        prop_assert_eq!(string_end(&text, 0, &mut at_once), expected);
        prop_assert_eq!(at_once, slowly);

        let cut = cut.index(text.len() + 1);
        let mut in_two = escaped;
        let end = string_end(&text[..cut], 0, &mut in_two)
            .or_else(|| string_end(&text, cut, &mut in_two));
        prop_assert_eq!((end, in_two), (expected, slowly));
    }

    #[test]
    fn blocks_know_what_is_escaped(text in text(), escaped in any::<bool>()) {
        let mut carry = escaped;
        let mut slowly = escaped;
        let mut pos = 0;
        while let Some(block) = Block::at(&text, pos) {
            let mask = block.escaped(&mut carry);
            for (at, &byte) in text[pos..pos + block.len].iter().enumerate() {
                // Of a run of backslashes only the byte after it matters.
                if byte != b'\\' {
                    prop_assert_eq!(mask >> at & 1 == 1, slowly, "byte {}", pos + at);
                }
                slowly = byte == b'\\' && !slowly;
            }
            prop_assert_eq!(carry, slowly);
            pos += block.len;
        }
    }
}

#[test]
fn nested_values_end_with_their_first_bracket() {
    for before in 0..130 {
        let text = "x".repeat(before);
        let body = format!(r#"{{"k]":["{text}\\\"]","}}"],"{text}":{{}}}}]]"#);
        let end = body.len() - 2;
        assert_eq!(
            Nest::opened_by(b'{').scan(body.as_bytes(), 1),
            Step::Ended(end)
        );
    }
}

#[test]
fn nested_values_that_are_broken() {
    let deep = "[".repeat(NESTING_MAX as usize);
    for broken in [
        "}",
        "[}",
        "{]",
        "[[]}",
        r#"["]"}"#,
        r"\n]",
        r#"[\"]]"#,
        "|]",
        deep.as_str(),
    ] {
        assert_eq!(
            Nest::opened_by(b'[').scan(broken.as_bytes(), 0),
            Step::Broken,
            "{broken}"
        );
    }
    for open in ["", "[]", "{", r#""]"#, r#""\"]"#, &deep[1..]] {
        assert_eq!(
            Nest::opened_by(b'[').scan(open.as_bytes(), 0),
            Step::More,
            "{open}"
        );
    }
}

#[test]
fn scalars() {
    for token in [
        "0",
        "-1",
        "12.5e-3",
        "true",
        "false",
        "null",
        "NaN",
        "-Infinity",
    ] {
        assert!(is_scalar(token.as_bytes()), "{token}");
    }
    for token in ["", "tru", "True", "nul", "nan", "+1", ".5", "e1"] {
        assert!(!is_scalar(token.as_bytes()), "{token}");
    }
}
