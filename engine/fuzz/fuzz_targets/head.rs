//! Any bytes as a head, whole and cut in two: no panic, the same index, positions inside the head,
//! and nothing accepted that has a bare LF or a control character.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla_engine::bench::{NoNames, Scan, framing};
use olla_engine::h1::{Field, RequestHead, ResponseHead};

const HEAD_BYTES_MAX: usize = 8 << 10;

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (cut, is_response, bytes) = input;
    let first = bytes.get(..usize::from(cut)).unwrap_or(bytes);
    if is_response {
        response(first, bytes);
    } else {
        request(first, bytes);
    }
});

fn request(first: &[u8], bytes: &[u8]) {
    let parse = |pieces: &[&[u8]]| {
        let (mut head, mut scan) = (RequestHead::new(), Scan::default());
        for piece in pieces {
            match head.parse::<NoNames>(piece, &mut scan, HEAD_BYTES_MAX) {
                Ok(true) => return Ok(Some(head)),
                Ok(false) => {}
                Err(reject) => return Err(reject),
            }
        }
        Ok(None)
    };
    match (parse(&[bytes]), parse(&[first, bytes])) {
        (Ok(Some(whole)), Ok(Some(cut))) => {
            assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            let head = &bytes[whole.lead..whole.len];
            check(head, bytes, &whole.fields);
            assert!(!whole.method.is_empty() && !whole.target.is_empty());
            assert!(whole.counted_size() <= head.len() + "::".len() * whole.fields.len());
            if let Ok(decided) = framing::request(&whole, bytes) {
                assert_eq!(Ok(decided), framing::request(&cut, bytes));
                let nominated = whole.nominated(bytes);
                let _ = whole
                    .fields
                    .iter()
                    .filter(|field| nominated.contains(field))
                    .count();
            }
        }
        (whole, cut) => assert!(!matches!(whole, Ok(Some(_))) && !matches!(cut, Ok(Some(_)))),
    }
}

fn response(first: &[u8], bytes: &[u8]) {
    let parse = |pieces: &[&[u8]]| {
        let (mut head, mut scan) = (ResponseHead::new(), Scan::default());
        for piece in pieces {
            match head.parse::<NoNames>(piece, &mut scan, HEAD_BYTES_MAX) {
                Ok(true) => return Ok(Some(head)),
                Ok(false) => {}
                Err(malformed) => return Err(malformed),
            }
        }
        Ok(None)
    };
    match (parse(&[bytes]), parse(&[first, bytes])) {
        (Ok(Some(whole)), Ok(Some(cut))) => {
            assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            check(&bytes[..whole.len], bytes, &whole.fields);
            assert!((100..1000).contains(&whole.status));
            for to_head in [false, true] {
                let decided = framing::response(&whole, bytes, to_head);
                assert_eq!(decided, framing::response(&cut, bytes, to_head));
            }
        }
        (whole, cut) => assert!(!matches!(whole, Ok(Some(_))) && !matches!(cut, Ok(Some(_)))),
    }
}

/// A head written anew from its index has the same lines.
fn check(head: &[u8], bytes: &[u8], fields: &[Field]) {
    assert!(head.ends_with(b"\r\n\r\n"));
    assert!(
        head.iter()
            .all(|&byte| byte >= b' ' && byte != 0x7f || b"\t\r\n".contains(&byte))
    );
    let text = head.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let lines: Vec<_> = text.split(|&byte| byte == b'\n').skip(1).collect();
    assert_eq!(lines.len(), fields.len());
    for (line, field) in lines.iter().zip(fields) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty() && line.starts_with(name) && line[name.len()] == b':');
        assert_eq!(line[name.len() + 1..].trim_ascii(), value);
    }
}
