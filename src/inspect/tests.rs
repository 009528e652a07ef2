//! Bodies and what is found in them. The comparison with a JSON library is in `properties`.

use super::*;

pub(super) const ALL: Wanted = Wanted {
    name_key: true,
    vision: true,
    tally: false,
    prompt: false,
};

/// Findings in a form that can be written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) model: Option<(String, NameSource)>,
    pub(super) stream: bool,
    pub(super) images: bool,
}

pub(super) fn verdict(body: &[u8], findings: &Findings) -> Verdict {
    Verdict {
        model: findings
            .model
            .map(|found| (model_name(body, &found).into_owned(), found.source())),
        stream: findings.stream,
        images: findings.images,
    }
}

pub(super) fn inspect(body: &[u8], wanted: Wanted) -> Findings {
    Inspector::new(wanted).finish(body)
}

/// Whole, cut at every byte, and byte by byte: the findings must be the same.
fn inspect_every_way(body: &[u8], wanted: Wanted) -> Findings {
    let findings = inspect(body, wanted);
    let mut by_byte = Inspector::new(wanted);
    for cut in 0..body.len() {
        let mut cut_once = Inspector::new(wanted);
        cut_once.advance(&body[..cut]);
        assert_eq!(cut_once.finish(body), findings, "cut at {cut}");
        by_byte.advance(&body[..cut]);
    }
    assert_eq!(by_byte.finish(body), findings, "byte by byte");
    findings
}

fn name(body: &str) -> Option<String> {
    let findings = inspect_every_way(body.as_bytes(), ALL);
    verdict(body.as_bytes(), &findings)
        .model
        .map(|(name, _)| name)
}

#[test]
fn names() {
    let table = [
        // Plain, wherever it stands.
        (r#"{"model":"llama3"}"#, Some("llama3")),
        (
            " \r\n\t{ \"a\" : 1 ,\n\"model\"\t: \"llama3\" } \n",
            Some("llama3"),
        ),
        (
            r#"{"messages":[{"role":"user","content":"hi"}],"model":"llama3"}"#,
            Some("llama3"),
        ),
        (
            r#"{"model":"mistral-nemo:12b-instruct/Q4 ü"}"#,
            Some("mistral-nemo:12b-instruct/Q4 ü"),
        ),
        // Only at the top level.
        (
            r#"{"options":{"model":"no"},"tools":[{"model":"no"}]}"#,
            None,
        ),
        (
            r#"{"a":"\"model\":\"no\"","b":"}","c":"\\","d":"\\\"","model":"yes"}"#,
            Some("yes"),
        ),
        (
            r#"{"a":["]",{"b":"}\\"},"\\\"]"],"model":"yes"}"#,
            Some("yes"),
        ),
        // Letter case and duplicates.
        (r#"{"MODEL":"a"}"#, Some("a")),
        (r#"{"Model":"a","mOdel":"b"}"#, Some("b")),
        (r#"{"model":"a","model":"b"}"#, Some("b")),
        (r#"{"model":"a","Model":"b"}"#, Some("a")),
        (r#"{"Model":"b","model":"a","MODEL":"c"}"#, Some("a")),
        (r#"{"models":"a","mode":"b","modeℓ":"c"}"#, None),
        // Values that are not names leave room for those that are.
        (r#"{"model":null}"#, None),
        (
            r#"{"model":7,"model":true,"model":["a"],"model":{"model":"a"}}"#,
            None,
        ),
        (r#"{"model":null,"model":"a"}"#, Some("a")),
        (r#"{"model":"a","model":null}"#, Some("a")),
        (r#"{"Model":"a","model":null}"#, Some("a")),
        // A blank value is not a name, but it is what a backend reads.
        (r#"{"model":""}"#, None),
        (r#"{"model":" \t\n "}"#, None),
        (r#"{"model":"a","model":" "}"#, None),
        (r#"{"model":"","Model":"a"}"#, None),
        (r#"{"model":"  a b\t"}"#, Some("a b")),
        // Escapes, in keys too.
        (
            r#"{"model":"meta\/llama\u002d3 \u00e9 \ud83d\ude00 \"\\\b\f\n\r\t\""}"#,
            Some("meta/llama-3 é 😀 \"\\\u{8}\u{c}\n\r\t\""),
        ),
        (r#"{"mod\u0065l":"a"}"#, Some("a")),
        (r#"{"\u006d\u006F\u0064\u0065\u006c":"a"}"#, Some("a")),
        (r#"{"\u004dodel":"a"}"#, Some("a")),
        (r#"{"model":"a","Mod\u0065l":"b"}"#, Some("a")),
        (r#"{"mod\\u0065l":"a"}"#, None),
        (r#"{"mod\u005cu0065l":"a"}"#, None),
        // Text that cannot be decoded is not a name.
        (r#"{"model":"\ud83d"}"#, None),
        (r#"{"model":"\ude00"}"#, None),
        (r#"{"model":"\ud83dx"}"#, None),
        (r#"{"model":"\ud83d\u0041"}"#, None),
        (r#"{"model":"a\x"}"#, None),
        (r#"{"model":"a\u00+1"}"#, None),
        (r#"{"model":"a\u00"}"#, None),
        // From Ollama's /api/show, and from the first message.
        (r#"{"name":"a"}"#, Some("a")),
        (r#"{"name":"a","model":"b"}"#, Some("b")),
        (r#"{"name":"a","model":""}"#, Some("a")),
        (r#"{"messages":[{"model":"b"}],"name":"a"}"#, Some("a")),
        (
            r#"{"messages":[{"role":"user","model" : "a"},{"model":"b"}]}"#,
            Some("a"),
        ),
        (
            r#"{"messages":[ { "x":[{"model":"b"}],"mod\u0065l":"a"}]}"#,
            Some("a"),
        ),
        (r#"{"messages":[{"model":"a","model":"b"}]}"#, Some("b")),
        (r#"{"messages":[{},{"model":"b"}]}"#, None),
        (r#"{"messages":[{"model":1}]}"#, None),
        (r#"{"messages":["model",{"model":"b"}]}"#, None),
        (r#"{"messages":{"model":"b"}}"#, None),
        (r#"{"messages":[{"model":"a"}],"messages":[]}"#, None),
        (r#"{"model":" ","messages":[{"model":"a"}]}"#, Some("a")),
        // Values of all kinds before the name.
        (
            r#"{"a":-1.5e+3,"b":true,"c":false,"d":null,"e":[],"f":{},"g":"","model":"a"}"#,
            Some("a"),
        ),
        (
            r#"{"temperature":NaN,"x":-Infinity,"model":"a"}"#,
            Some("a"),
        ),
    ];
    for (body, expected) in table {
        assert_eq!(name(body).as_deref(), expected, "{body}");
    }
}

#[test]
fn what_is_not_json_names_nothing_from_there_on() {
    let table = [
        ("", None),
        ("   ", None),
        ("null", None),
        (r#""model""#, None),
        (r#"[{"model":"a"}]"#, None),
        ("model=a&stream=true", None),
        ("\u{feff}\u{feff}{\"model\":\"a\"}", None),
        (" \u{feff}{\"model\":\"a\"}", None),
        (r#"{model:"a"}"#, None),
        (r#"{'model':'a'}"#, None),
        (r#"{"model"="a"}"#, None),
        (r#"{"model" "a"}"#, None),
        (r#"{"model":a}"#, None),
        (r#"{,"model":"a"}"#, None),
        (r#"{"x":1 "model":"a"}"#, None),
        (r#"{"x":1,,"model":"a"}"#, None),
        (r#"{"x":tru,"model":"a"}"#, None),
        (r#"{"x":+1,"model":"a"}"#, None),
        (r#"{"x":,"model":"a"}"#, None),
        (r#"{"x":[},"model":"a"}"#, None),
        (r#"{"x":{]},"model":"a"}"#, None),
        (r#"{"x":[\"],"model":"a"}"#, None),
        (r#"{"x":[1]],"model":"a"}"#, None),
        (r#"{}"model":"a"}"#, None),
        // What was complete before counts.
        (r#"{"model":"a""#, Some("a")),
        (r#"{"model":"a"x"#, Some("a")),
        (r#"{"model":"a",}"#, Some("a")),
        (r#"{"model":"a"}{"model":"b"}"#, Some("a")),
        (r#"{"model":"a","model":"b"#, Some("a")),
        (
            r#"{"model":"a","messages":[{"role":"user","content":"...\"#,
            Some("a"),
        ),
        (r#"{"model":"a"#, None),
        (r#"{"model":"a\""#, None),
        // A message only counts once all of them are there.
        (r#"{"messages":[{"model":"a"}"#, None),
        (r#"{"messages":[{"model":"a"}]"#, Some("a")),
    ];
    for (body, expected) in table {
        assert_eq!(name(body).as_deref(), expected, "{body}");
    }
    for body in [
        &b"{\"model\":\"a\xff\"}"[..],
        b"{\"model\":\"\xc3\"}",
        b"{\"model\":\"\xff\\n\"}",
    ] {
        assert_eq!(inspect_every_way(body, ALL).model, None);
    }
    let spoiled_elsewhere = b"{\"\xff\":\"\xff\",\"\\ud83d\":1,\"model\":\"a\"}";
    assert!(inspect_every_way(spoiled_elsewhere, ALL).model.is_some());
}

#[test]
fn objects() {
    for (body, object) in [
        ("{", true),
        (" \n{x", true),
        ("", false),
        ("[", false),
        ("--b\n{", false),
    ] {
        assert_eq!(
            inspect_every_way(body.as_bytes(), ALL).object,
            object,
            "{body}"
        );
    }
}

#[test]
fn streams() {
    let table = [
        (r#"{"stream":true}"#, true),
        (r#"{"model":"a","str\u0065am" : true , "x":1}"#, true),
        (r#"{"stream":false,"stream":true}"#, true),
        (r#"{"stream":true,"stream":false}"#, false),
        (r#"{"stream":true,"stream":"true"}"#, false),
        (r#"{"stream":true,"stream":[true]}"#, false),
        (r#"{"stream":"true"}"#, false),
        (r#"{"stream":1}"#, false),
        (r#"{"Stream":true}"#, false),
        (r#"{"options":{"stream":true}}"#, false),
        (r#"{"stream":true"#, false),
        (r#"{"stream":true,"#, true),
        (r#"[{"stream":true}]"#, false),
    ];
    for (body, expected) in table {
        assert_eq!(
            inspect_every_way(body.as_bytes(), ALL).stream,
            expected,
            "{body}"
        );
    }
}

#[test]
fn images() {
    let table = [
        (r#"{"messages":[{"content":[{"type":"image_url"}]}]}"#, true),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"a"},{"x":[],"type":"image"}]}]}"#,
            true,
        ),
        (
            r#"{"messages":[1,{},{"content":"a"},{"content":[2,{"type" : "im\u0061ge"}]}]}"#,
            true,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"data:image/png;base64,ü"}]}]}"#,
            true,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"data:image\/png;base64,"}]}]}"#,
            true,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"a data:image/png"}]}]}"#,
            false,
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"data:imag"}]}]}"#,
            false,
        ),
        (
            r#"{"messages":[{"content":[{"type":"images","text":"image"}]}]}"#,
            false,
        ),
        (r#"{"messages":[{"content":[{"type":7,"text":7}]}]}"#, false),
        (r#"{"messages":[{"content":[["type","image"]]}]}"#, false),
        (r#"{"messages":[{"content":{"type":"image"}}]}"#, false),
        (r#"{"messages":[{"parts":[{"type":"image"}]}]}"#, false),
        (r#"{"messages":[[{"content":[{"type":"image"}]}]]}"#, false),
        (r#"{"content":[{"type":"image"}]}"#, false),
        // A named model is never overridden.
        (
            r#"{"model":"a","messages":[{"content":[{"type":"image_url"}]}]}"#,
            false,
        ),
    ];
    for (body, expected) in table {
        assert_eq!(
            inspect_every_way(body.as_bytes(), ALL).images,
            expected,
            "{body}"
        );
    }
}

#[test]
fn only_what_is_wanted() {
    let body = br#"{"name":"a","messages":[{"content":[{"type":"image"}]}]}"#;
    let nothing = Findings {
        object: true,
        missing: Missing::Absent,
        ..Findings::default()
    };
    assert_eq!(inspect(body, Wanted::default()), nothing);
}

#[test]
fn a_byte_order_mark_before_an_object_is_skipped() {
    for (body, model, mark) in [
        ("\u{feff}{\"model\":\"a\"}", Some("a"), true),
        ("\u{feff} {\"model\":\"a\"", Some("a"), true),
        ("\u{feff}[]", None, false),
        ("\u{feff}", None, false),
        ("{\"model\":\"\u{feff}a\"}", Some("\u{feff}a"), false),
    ] {
        let findings = inspect_every_way(body.as_bytes(), ALL);
        assert_eq!(
            (name(body).as_deref(), findings.mark),
            (model, mark),
            "{body:?}"
        );
    }
}

#[test]
fn nesting_has_a_bound() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"Model":"before","x":{open}{close},"model":"behind"}}"#)
    };
    let max = scan::NESTING_MAX as usize;
    assert_eq!(name(&nested(max)).as_deref(), Some("behind"));
    assert_eq!(name(&nested(max + 1)).as_deref(), Some("before"));
    assert_eq!(name(&nested(max + 70)).as_deref(), Some("before"));
}

/// Quadratic work would take hours here.
#[test]
fn each_byte_is_looked_at_once() {
    let size = 1 << 20;
    let bodies = [
        format!(r#"{{"prompt":"{}","model":"a"}}"#, "a".repeat(size)),
        format!(r#"{{"prompt":"{}","model":"a"}}"#, r"\\".repeat(size / 2)),
        format!(r#"{{"prompt":"{}","model":"a"}}"#, r#"\""#.repeat(size / 2)),
        format!(r#"{{"messages":["{}"],"model":"a"}}"#, "a".repeat(size)),
        format!(
            r#"{{"messages":["{}"],"model":"a"}}"#,
            r#"\\\""#.repeat(size / 4)
        ),
        format!(r#"{{"messages":[{}1],"model":"a"}}"#, "1,".repeat(size / 2)),
        format!(r#"{{"n":{},"model":"a"}}"#, "1".repeat(size)),
        format!(r#"{{{}"model":"a"}}"#, " ".repeat(size)),
    ];
    for body in bodies {
        let body = body.as_bytes();
        let mut inspector = Inspector::new(ALL);
        for end in 1..body.len() {
            inspector.advance(&body[..end]);
            assert_eq!(inspector.pos, end);
        }
        assert!(inspector.finish(body).model.is_some());
    }
}
