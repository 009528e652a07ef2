//! Prompts and their hashes. The comparison with a JSON library is in `properties`.

use super::*;
use crate::inspect::LIST_BYTES_MAX;
use crate::inspect::{Inspector, Wanted};

mod properties;

pub(super) const WANTED: Wanted = Wanted {
    name_key: false,
    vision: false,
    tally: false,
    prompt: true,
};

pub(super) fn read(body: &str) -> (Prompt, Vec<u64>) {
    let findings = Inspector::new(WANTED).finish(body.as_bytes());
    let mut hashes = vec![1, 2, 3];
    let prompt = Prompt::read(body.as_bytes(), &findings, SHARED_SEED, &mut hashes);
    (prompt, hashes)
}

pub(super) fn hashes(body: &str) -> Vec<u64> {
    read(body).1
}

/// The hashes of a sequence.
pub(super) fn hashed(sequence: &[u8]) -> Vec<u64> {
    let (mut hashes, mut last) = (Vec::new(), SHARED_SEED);
    for block in sequence.chunks_exact(BLOCK_BYTES).take(BLOCKS_MAX) {
        last = mix(last, twox_hash::XxHash3_64::oneshot(block));
        hashes.push(last);
    }
    hashes
}

#[test]
fn sequences() {
    let (a, b) = (&"a".repeat(700), &"b".repeat(700));
    let table = [
        (format!(r#"{{"prompt":"{a}"}}"#), a.clone()),
        (format!(r#"{{"input":"{a}\"{b}"}}"#), format!(r#"{a}\"{b}"#)),
        (
            format!(r#"{{"input":[ "{a}" , "{b}"]}}"#),
            format!(r#""{a}","{b}""#),
        ),
        (
            format!(r#"{{"messages":[{{"x":"{a}"}},{{"x" : "{b}"}}]}}"#),
            format!(r#"{{"x":"{a}"}},{{"x" : "{b}"}}"#),
        ),
        (
            format!(r#"{{"messages":[ {{"x":"{a}"}} ,7, "{b}" ,[ 1 ]]}}"#),
            format!(r#"{{"x":"{a}"}},7,"{b}",[ 1 ]"#),
        ),
        (
            format!(
                r#"{{"input":"no","messages":[ {{"c":1}} , {{"c":2}}],"instructions":"{b}","system":[ 1 ],"tools":["{a}"]}}"#
            ),
            format!(r#"["{a}"][ 1 ]"{b}"{{"c":1}},{{"c":2}}"#),
        ),
        (
            format!(r#"{{"messages":null,"input":[],"prompt":"{a}","tools":null}}"#),
            a.clone(),
        ),
        (format!(r#"{{"system":"{a}"}}"#), format!("\"{a}\"")),
        // The borders of one array are noted; those of another are looked for.
        (
            format!(r#"{{"messages":[{{"c":"{a}"}}, {{}}],"prompt":[{{}}, {{}}]}}"#),
            format!(r#"{{"c":"{a}"}},{{}}"#),
        ),
    ];
    for (body, sequence) in table {
        let expected = hashed(sequence.as_bytes());
        assert!(!expected.is_empty());
        assert_eq!(hashes(&body), expected, "{body}");
    }
}

#[test]
fn what_has_no_hashes() {
    let a = "a".repeat(2_000);
    for body in [
        String::new(),
        format!(r#"["{a}"]"#),
        format!("--b\r\n{a}"),
        format!(r#"{{"messages":"{a}"}}"#),
        format!(r#"{{"messages":{{"a":"{a}"}},"prompt":"{a}"}}"#),
        format!(r#"{{"messages":5,"tools":"{a}"}}"#),
        format!(r#"{{"prompt":{{"a":"{a}"}}}}"#),
        format!(r#"{{"messages":[{{"a":"{a}"}} {{}}]}}"#),
        format!(r#"{{"messages":[{{"a":"{a}"}},]}}"#),
        format!(r#"{{"messages":[,{{"a":"{a}"}}]}}"#),
        format!(r#"{{"messages":[{{"a":"{a}"}}, ]}}"#),
        format!(r#"{{"messages":["{a}" , ]}}"#),
        format!(r#"{{"messages":["{a}",]}}"#),
        format!(r#"{{"messages":["{a}" x]}}"#),
        format!(r#"{{"messages":[{{"a":"{a}"}}]"#),
        format!(r#"{{"messages":[{{"a":"{a}"}}]x"#),
        format!(r#"{{"prompt":"{}"}}"#, &a[..511]),
    ] {
        assert!(hashes(&body).is_empty(), "{body}");
    }
}

#[test]
fn a_conversation_that_grows_keeps_its_blocks() {
    let message = |n: usize| {
        format!(
            r#"{{"role":"user","content":"{}"}}"#,
            "word ".repeat(n % 150)
        )
    };
    let mut messages = Vec::new();
    let mut before: Vec<u64> = Vec::new();
    for n in 0..40 {
        messages.push(message(n * 37));
        // Blanks between the elements make no difference.
        let list = messages.join(if n % 2 == 0 { ", " } else { "," });
        let now = hashes(&format!(
            r#"{{"model":"m{n}","messages":[{list}],"n":{n}}}"#
        ));
        assert!(now.starts_with(&before), "{n}");
        before = now;
    }
    assert!(before.len() > 20);
}

#[test]
fn the_first_mebibyte_is_hashed() {
    let text = "0123456789".repeat(150_000);
    let blank = " ".repeat(LIST_BYTES_MAX);
    for body in [
        format!(r#"{{"prompt":"{text}"}}"#),
        format!(r#"{{"messages":[{{"c":"{text}"}}]}}"#),
        format!(r#"{{"messages":["{text}",  1]}}"#),
    ] {
        assert_eq!(hashes(&body).len(), BLOCKS_MAX);
    }
    // Of an array only so much is read, blanks included.
    let early = hashes(&format!(r#"{{"messages":[{{"c":"{}"}}]}}"#, &text[..2_000]));
    for body in [
        format!(
            r#"{{"messages":[{{"c":"{}"}}{blank},{{}}]}}"#,
            &text[..2_000]
        ),
        format!(r#"{{"messages":[{{"c":"{}"}},{blank}1]}}"#, &text[..2_000]),
    ] {
        assert_eq!(hashes(&body), early);
    }
}

#[test]
fn keys_that_share_nothing() {
    let body = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(5_000));
    let findings = Inspector::new(WANTED).finish(body.as_bytes());
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    Prompt::read(body.as_bytes(), &findings, SHARED_SEED, &mut shared);
    Prompt::read(body.as_bytes(), &findings, seed_of_key(1, "a"), &mut alone);
    assert_eq!(shared.len(), alone.len());
    assert!(shared.iter().all(|hash| !alone.contains(hash)));
}

#[test]
fn tokens() {
    let text = "a".repeat(2_000);
    let table = [
        // body, blocks, bytes per token, matched, rest
        (String::new(), 0, 4.0, 0, 0),
        ("--b\r\n".to_owned(), 5, 4.0, 0, 1_000),
        ("[1]".to_owned(), 0, 4.0, 0, 1_000),
        ("{}".to_owned(), 9, 4.0, 0, 1),
        (format!(r#"{{"prompt":"{text}"}}"#), 0, 4.0, 0, 504),
        (format!(r#"{{"prompt":"{text}"}}"#), 2, 4.0, 256, 248),
        (format!(r#"{{"prompt":"{text}"}}"#), 99, 4.0, 384, 120),
        (format!(r#"{{"prompt":"{text}"}}"#), 3, 3.0, 512, 159),
        (format!(r#"{{"prompt":"{text}"}}"#), 1, 0.0, 512, 1_501),
        (format!(r#"{{"prompt":"{text}"}}"#), 1, f64::NAN, 512, 1_501),
        (format!(r#"{{"prompt":"{text}"}}"#), 1, f64::INFINITY, 0, 0),
    ];
    for (body, blocks, bytes_per_token, matched, rest) in table {
        let found = read(&body).0.tokens(blocks, bytes_per_token);
        let short: String = body.chars().take(20).collect();
        assert_eq!(found, (matched, rest), "{blocks} {bytes_per_token} {short}");
    }
}

#[test]
fn files_count_where_they_end() {
    let text = "a".repeat(1_000);
    let file = format!("data:{}", "A".repeat(2_995));
    // The sequence: 1,005 bytes, a file up to byte 4,012, 1,000 bytes.
    let list = format!(r#"[{{"a":"{text}"}}, {{"a":"{file}"}},{{"a":"{text}"}}]"#);
    let body = format!(r#"{{"messages":{list},"x":{{"data":"{file}"}}}}"#);
    let (prompt, hashes) = read(&body);
    let text_bytes = body.len() as u64 - 6_000;
    assert_eq!((prompt.text_bytes(), prompt.files()), (text_bytes, 2));
    assert_eq!(hashes.len(), 9);
    let start = body.find(&list).expect("the list") + 1;
    let in_sequence = |at: usize| (at - start - 1) as u64;
    let file_at = body.find(&file).expect("the file");
    for blocks in 0..10 {
        let end = blocks.min(9) as u64 * 512;
        let ended = end >= in_sequence(file_at + 3_000);
        let within = end.saturating_sub(in_sequence(file_at)).min(3_000);
        let expected = end - within + if ended { 1_000 } else { 0 };
        let (matched, rest) = prompt.tokens(blocks, 1.0);
        assert_eq!(matched, expected, "{blocks}");
        assert_eq!(matched + rest, text_bytes + 2_000);
    }
    // A file that is longer than what is hashed.
    let file = format!("data:{}", "A".repeat(3 << 20));
    let (prompt, hashes) = read(&format!(r#"{{"messages":[{{"a":"{file}"}}]}}"#));
    assert_eq!(hashes.len(), BLOCKS_MAX);
    assert_eq!(prompt.tokens(BLOCKS_MAX, 1.0), (6, 1_000 + 17));
}
