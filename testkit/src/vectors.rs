//! Reads files of HTTP messages from the test suites of other implementations. The files are in
//! `engine/tests/vectors`; its `README.md` describes them.

use std::collections::BTreeMap;

/// One case of a file.
#[derive(Debug, Default)]
pub struct Case {
    /// Names the case.
    pub id: String,
    /// Whether the messages are responses.
    pub is_response: bool,
    /// What the source expects: `accept`, `open`, `reject` or `judge`.
    pub expect: String,
    /// The messages.
    pub bytes: Vec<u8>,
}

/// All cases of a file.
///
/// # Panics
/// When an escape sequence is malformed.
pub fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(id) = line.strip_prefix("case ") {
            cases.push(Case {
                id: id.into(),
                ..Case::default()
            });
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        match line.split_once(' ') {
            Some(("kind", kind)) => case.is_response = kind == "response",
            Some(("expect", expect)) => case.expect = expect.into(),
            Some(("|", escaped)) => unescape(escaped, &mut case.bytes),
            _ => {}
        }
    }
    cases
}

fn unescape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next().unwrap());
        out.push(match digit() {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '\\' => b'\\',
            'x' => u8::from_str_radix(&format!("{}{}", digit(), digit()), 16).unwrap(),
            other => panic!("unknown escape {other}"),
        });
    }
}

/// The cases of `skips.txt`: the outcome of each, and the reason.
///
/// # Panics
/// When a line has fewer than three parts.
pub fn skips(text: &str) -> BTreeMap<&str, (&str, &str)> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.splitn(3, " | ");
            let mut part = || parts.next().unwrap_or_else(|| panic!("{line}"));
            (part(), (part(), part()))
        })
        .collect()
}
