use proptest::prelude::*;

use super::*;

fn form(content_type: &str) -> Form {
    Form::of(content_type.as_bytes()).expect("a form")
}

/// Whole, cut at every byte, and byte by byte: the findings must be the same.
fn read(boundary: &str, body: &str) -> (Option<String>, bool, Missing) {
    let body = body.as_bytes();
    let new = || form(&format!("multipart/form-data; boundary={boundary}"));
    let findings = new().finish(body);
    let mut by_byte = new();
    for cut in 0..body.len() {
        let mut cut_once = new();
        cut_once.advance(&body[..cut]);
        assert_eq!(cut_once.finish(body), findings, "cut at {cut}");
        by_byte.advance(&body[..cut]);
    }
    assert_eq!(by_byte.finish(body), findings, "byte by byte");
    let name = |found| super::super::model_name(body, found).into_owned();
    (
        findings.model.as_ref().map(name),
        findings.stream,
        findings.missing,
    )
}

const MODEL: &str = "--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
const FILE: &str = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";

#[test]
fn the_part_is_found_wherever_it_stands() {
    let rows = [
        (format!("{MODEL}q\r\n--X--\r\n"), Some("q")),
        (format!("{MODEL} q \t\r\n--X--"), Some("q")),
        (format!("{FILE}RIFF\r\n{MODEL}q\r\n--X--\r\n"), Some("q")),
        (format!("{MODEL}q\r\n{FILE}RIFF"), Some("q")),
        (format!("{MODEL}a\r\n{MODEL}b\r\n--X--\r\n"), Some("b")),
        (format!("preamble\r\n{MODEL}q\r\n--X--\r\n"), Some("q")),
        (
            format!("{MODEL}q\r\n--X \t\r\n\r\n\r\n--X--\r\n"),
            Some("q"),
        ),
        // Not complete, or no such part.
        (format!("{MODEL}q"), None),
        (format!("{MODEL}\r\n--X--\r\n"), None),
        (format!("{FILE}{MODEL}q\r\n--Y--\r\n"), None),
        (format!("{FILE}\r\n--X--\r\n{MODEL}q\r\n--X--\r\n"), None),
        (format!("{MODEL}q\n--X--\n"), None),
        (MODEL.replace("\r\n", "\n") + "q\n--X--\n", None),
        // Only lines of the boundary delimit.
        (
            format!("{FILE}a\r\n--Xy\r\n\r\n--X--z{MODEL}q\r\n--X--\r\n"),
            None,
        ),
        (format!("{FILE}--X\r\n\r\nq\r\n--X--\r\n"), None),
    ];
    for (body, expected) in rows {
        assert_eq!(read("X", &body).0.as_deref(), expected, "{body:?}");
    }
}

#[test]
fn parts_are_told_by_their_disposition() {
    let rows = [
        ("Content-Disposition: form-data; name=\"model\"", true),
        ("content-disposition:FORM-DATA;NAME=model", true),
        (
            "X: y\r\nContent-Disposition: form-data; x=\";\"; name=model",
            true,
        ),
        ("Content-Disposition: form-data; name=\"mo\\del\"", true),
        ("Content-Disposition: form-data; name=\"Model\"", false),
        (
            "Content-Disposition: form-data; name=\"model\"; filename=\"m\"",
            false,
        ),
        (
            "Content-Disposition: form-data; filename*=m; name=\"model\"",
            false,
        ),
        ("Content-Disposition: attachment; name=\"model\"", false),
        ("Content-Disposition: form-data; x=\"; name=model\"", false),
        ("Content-Type: text/plain; name=\"model\"", false),
    ];
    for (head, is_model) in rows {
        let body = format!("--X\r\n{head}\r\n\r\nq\r\n--X--\r\n");
        assert_eq!(read("X", &body).0.is_some(), is_model, "{head}");
    }
}

#[test]
fn forms_stream_and_say_what_is_missing() {
    let stream = MODEL.replace("model", "stream");
    let body = format!("{stream}true\r\n--X--\r\n");
    assert_eq!(read("X", &body), (None, true, Missing::NoPart));
    assert_eq!(read("\"X\"", &body), (None, true, Missing::NoPart));
    assert_eq!(read("", &body), (None, false, Missing::NoBoundary));
    let many = format!("{MODEL}q\r\n").repeat(MODELS_MAX + 1) + "--X--\r\n";
    assert_eq!(read("X", &many), (None, false, Missing::Crowded));
    assert!(Form::of(b"multipart/mixed; boundary=X").is_none());
    assert!(Form::of(b"application/json").is_none());
}

#[test]
fn every_part_gets_the_name_of_an_alias() {
    let body = format!("{MODEL}a\r\n{FILE}RIFF model\r\n{MODEL} a\r\n--X--\r\n");
    let mut form = form("Multipart/Form-Data; x=y; Boundary=\"X\"");
    form.finish(body.as_bytes());
    let splice = form
        .rewrite(body.as_bytes(), "real")
        .expect("close together");
    let sent = splice.parts(body.as_bytes()).concat();
    let expected = format!("{MODEL}real\r\n{FILE}RIFF model\r\n{MODEL}real\r\n--X--\r\n");
    assert_eq!(String::from_utf8_lossy(&sent), expected);
}

/// A part: the beginning of its head, and its text. No text holds the delimiter.
fn part() -> impl Strategy<Value = (&'static str, String)> {
    let head = prop::sample::select(vec![
        "name=\"model\"",
        "NAME=model",
        "name=\"stream\"",
        "name=\"file\"; filename=\"model\"",
        "name=\"model\"; filename=\"m\"",
        "name=\"Model\"",
        "name=x; y=\"; name=model\"",
    ]);
    let text = prop_oneof![
        Just("true".to_owned()),
        "[ \t]{0,2}[a-z/:é]{1,6}[ \r\n]{0,2}",
        "[-\r\n X\u{80}-\u{ff}a]{0,12}",
    ];
    (head, text.prop_map(|text| text.replace("--X", "-X")))
}

fn is_named(head: &str, name: &str) -> bool {
    !head.contains("filename")
        && (head == format!("name=\"{name}\"") || head == format!("NAME={name}"))
}

fn written(parts: &[(&str, String)], model: Option<&str>) -> String {
    let mut body = String::new();
    for (head, text) in parts {
        let text = match model {
            Some(model) if is_named(head, "model") => model,
            _ => text,
        };
        body += &format!("--X\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n");
    }
    body + "--X--\r\n"
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn a_form_is_read_and_rewritten_as_it_was_written(
        parts in prop::collection::vec(part(), 0..8),
        name in "[a-zé][ -~]{0,8}[a-z]",
    ) {
        let body = written(&parts, None);
        let mut form = form("multipart/form-data; boundary=X");
        let findings = form.finish(body.as_bytes());
        let last = |name| parts.iter().rfind(|(head, _)| is_named(head, name));
        let expected = last("model").map(|(_, text)| text.trim()).filter(|text| !text.is_empty());
        let found = findings.model.as_ref();
        let found = found.map(|found| super::super::model_name(body.as_bytes(), found));
        prop_assert_eq!(found.as_deref(), expected);
        prop_assert_eq!(findings.stream, last("stream").is_some_and(|(_, text)| text.trim() == "true"));
        if let Some(splice) = form.rewrite(body.as_bytes(), &name) {
            let sent = splice.parts(body.as_bytes()).concat();
            let expected = written(&parts, Some(&name));
            prop_assert_eq!(String::from_utf8_lossy(&sent), expected);
        } else {
            prop_assert!(last("model").is_none());
        }
    }

    #[test]
    fn pieces_of_any_form_make_no_difference(
        parts in prop::collection::vec(part(), 0..5),
        spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut body = written(&parts, None).into_bytes();
        for (at, with) in spoiled {
            let at = at.index(body.len());
            body[at] = with;
        }
        body.truncate(end.index(body.len() * 2).min(body.len()));
        let new = || form("multipart/form-data; boundary=X");
        let findings = new().finish(&body);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        ends.sort_unstable();
        let mut in_pieces = new();
        ends.iter().for_each(|&end| in_pieces.advance(&body[..end]));
        prop_assert_eq!(&in_pieces.finish(&body), &findings);
        for cut in 0..body.len() {
            let mut cut_once = new();
            cut_once.advance(&body[..cut]);
            prop_assert_eq!(&cut_once.finish(&body), &findings, "cut at {}", cut);
        }
    }
}

#[test]
fn forms_that_other_readers_understand_otherwise_are_noticed() {
    let odd = |content_type: &str, body: &str| {
        let content_type = format!("multipart/form-data{content_type}");
        form(&content_type).finish(body.as_bytes()).tally.ambiguous
    };
    let body = format!("{MODEL}q\r\n{FILE}RIFF\r\n--X--\r\n");
    for content_type in [
        "; boundary=X",
        ";boundary=\"X\"",
        "; charset=utf-8; boundary=X",
        "; boundary=X; charset=utf-8",
        "; BOUNDARY=X ",
    ] {
        assert!(!odd(content_type, &body), "{content_type}");
    }
    for content_type in [
        "; boundary=X; boundary=Y",
        "; boundary=X; BOUNDARY=Y",
        "; boundary=\"\\X\"",
        "; boundary=\"X",
        "; boundary=X y; charset=a",
        "; boundary =X",
        "; boundary=\"X\"y",
        "; boundary*=utf-8''X",
    ] {
        assert!(odd(content_type, &body), "{content_type}");
    }
    for part in [
        "Content-Disposition: form-data; name=\"model\"; filename*=utf-8''x",
        "Content-Disposition: attachment; name=\"model\"",
        "Content-Disposition: form-data; name=\"Model\"",
        "Content-Disposition: form-data; name = model",
        "Content-Disposition: form-data; name*=utf-8''%6dodel",
    ] {
        let body = format!("{MODEL}q\r\n--X\r\n{part}\r\n\r\nr\r\n--X--\r\n");
        assert!(odd("; boundary=X", &body), "{part}");
    }
    for part in [
        "Content-Disposition: form-data; name=\"file\"; filename=\"model.wav\"",
        "Content-Disposition: form-data; name=\"prompt\"",
    ] {
        let body = format!("{MODEL}q\r\n--X\r\n{part}\r\n\r\nr\r\n--X--\r\n");
        assert!(!odd("; boundary=X", &body), "{part}");
    }
}
