//! The decoder against a slow one that is easy to see through, and `pass` against both.

use proptest::prelude::*;

use super::*;

/// What a whole input means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// A body with this payload, and where it ends.
    Body(Vec<u8>, usize),
    /// The start of one.
    Unfinished,
    Broken,
}

/// Decodes by lines, with everything at hand. Knows no bounds but the digits.
fn reference(input: &[u8]) -> Meaning {
    let mut payload = Vec::new();
    let mut at = 0;
    loop {
        let Some((line, next)) = line(input, at) else {
            return Meaning::Unfinished;
        };
        let text: String = line.iter().copied().map(char::from).collect();
        let digits = text
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(text.len());
        let Ok(size) = u64::from_str_radix(&text[..digits], 16) else {
            return Meaning::Broken;
        };
        if digits > 16 || !extensions(&text[digits..]) {
            return Meaning::Broken;
        }
        at = next;
        if size == 0 {
            break;
        }
        let end = at.saturating_add(size as usize);
        let Some(data) = input.get(at..end) else {
            return Meaning::Unfinished;
        };
        payload.extend_from_slice(data);
        match input.get(end..).unwrap() {
            [b'\r', b'\n', ..] => at = end + 2,
            [] | [b'\r'] => return Meaning::Unfinished,
            _ => return Meaning::Broken,
        }
    }
    loop {
        let Some((line, next)) = line(input, at) else {
            return Meaning::Unfinished;
        };
        at = next;
        if line.is_empty() {
            return Meaning::Body(payload, at);
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Meaning::Broken;
        };
        let name = line[..colon].to_ascii_lowercase();
        let forbidden: [&[u8]; 3] = [b"host", b"content-length", b"transfer-encoding"];
        let token = !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte));
        let value = line[colon..].iter().all(|&byte| is_value_byte(byte));
        if !token || !value || forbidden.contains(&&name[..]) {
            return Meaning::Broken;
        }
    }
}

/// The line at `at` without its CRLF, and where the next one begins. A bare CR or LF stays in it.
fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = &input[at..];
    let end = rest.windows(2).position(|end| end == b"\r\n")?;
    Some((&rest[..end], at + end + 2))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, recursively.
fn extensions(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let blank = [' ', '\t'];
    let Some(text) = text.trim_start_matches(blank).strip_prefix(';') else {
        return false;
    };
    let text = text.trim_start_matches(blank);
    let token_end = |text: &str| {
        text.bytes()
            .position(|byte| !is_token_byte(byte))
            .unwrap_or(text.len())
    };
    let (name, text) = text.split_at(token_end(text));
    let Some(value) = text.trim_start_matches(blank).strip_prefix('=') else {
        return !name.is_empty() && extensions(text);
    };
    let value = value.trim_start_matches(blank);
    let rest = match value.strip_prefix('"') {
        None if token_end(value) == 0 => return false,
        None => &value[token_end(value)..],
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.bytes().position(|byte| {
                let ends = !escaped && (byte == b'"' || !is_value_byte(byte));
                escaped = !escaped && byte == b'\\';
                ends
            });
            match end {
                Some(end)
                    if quoted.as_bytes()[end] == b'"'
                        && quoted[..end].bytes().all(is_value_byte) =>
                {
                    &quoted[end + 1..]
                }
                _ => return false,
            }
        }
    };
    !name.is_empty() && extensions(rest)
}

/// What `next` makes of the input in pieces.
fn decoded(pieces: &[&[u8]]) -> Meaning {
    let mut decoder = Decoder::new();
    let (mut payload, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.next(piece, at) {
                Ok(Piece::Data { start, end }) => {
                    assert!(at <= start && start < end && end <= piece.len());
                    payload.extend_from_slice(&piece[start..end]);
                    at = end;
                }
                Ok(Piece::Skip { to }) => {
                    assert!(at < to && to <= piece.len());
                    at = to;
                }
                Ok(Piece::Done { at }) => {
                    assert!(decoder.is_done());
                    return Meaning::Body(payload, before + at);
                }
                Ok(Piece::More) => {
                    assert_eq!(at, piece.len());
                    break;
                }
                Err(error) => {
                    assert_eq!(decoder.next(piece, at), Err(error));
                    assert_eq!(decoder.pass(piece), Err(error));
                    return Meaning::Broken;
                }
            }
        }
        before += piece.len();
    }
    assert!(!decoder.is_done());
    Meaning::Unfinished
}

/// What `pass` makes of the input in pieces, and what was sent.
fn passed(pieces: &[&[u8]]) -> (Meaning, Vec<u8>) {
    let mut decoder = Decoder::new();
    let (mut out, mut payload, mut before) = (Vec::new(), 0, 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            let Ok(pass) = decoder.pass(rest) else {
                return (Meaning::Broken, out);
            };
            assert!(0 < pass.consumed && pass.consumed <= rest.len());
            assert!(pass.from <= pass.to && pass.to <= pass.consumed);
            assert_eq!(pass.verbatim, pass.size.is_none());
            assert_eq!(pass.done, decoder.is_done());
            if let Some(size) = pass.size {
                encode_size(size, &mut out);
            }
            out.extend_from_slice(&rest[pass.from..pass.to]);
            payload += pass.payload;
            at += pass.consumed;
            if pass.done {
                out.extend_from_slice(LAST_CHUNK);
                let Meaning::Body(sent, end) = reference(&out) else {
                    panic!("{out:?}")
                };
                assert_eq!((sent.len(), end), (payload, out.len()));
                return (Meaning::Body(sent, before + at), out);
            }
        }
        before += piece.len();
    }
    assert_eq!(
        reference(&out),
        Meaning::Unfinished,
        "half a body never looks whole"
    );
    (Meaning::Unfinished, out)
}

/// Checks one input whole, cut in two everywhere, and byte by byte.
fn check(input: &[u8], expected: &Meaning) {
    let shown = String::from_utf8_lossy(input);
    let (meaning, sent) = passed(&[input]);
    assert_eq!(
        (&decoded(&[input]), &meaning),
        (expected, expected),
        "{shown:?}"
    );
    for at in 0..=input.len() {
        let pieces = [&input[..at], &input[at..]];
        assert_eq!(decoded(&pieces), *expected, "{shown:?} cut at {at}");
        assert_eq!(passed(&pieces).0, *expected, "{shown:?} cut at {at}");
        if matches!(expected, Meaning::Body(..)) {
            // A line that was cut is written anew, with small letters.
            assert_eq!(
                passed(&pieces).1.to_ascii_lowercase(),
                sent.to_ascii_lowercase()
            );
        }
    }
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(decoded(&bytes), *expected, "{shown:?} byte by byte");
    assert_eq!(passed(&bytes).0, *expected, "{shown:?} byte by byte");
}

#[test]
fn valid_bodies() {
    let table: &[(&[u8], &[u8], usize)] = &[
        (b"0\r\n\r\n", b"", 0),
        (b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"", 18),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", 0),
        (b"3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n\r\n", b"abc\r\n", 2),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", 0),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", 0),
        (
            b"0010\r\n0123456789abcdef\r\n000\r\n\r\n",
            b"0123456789abcdef",
            0,
        ),
        (
            b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n",
            b"a",
            0,
        ),
        (b"3;a\r\nabc\r\n0;b=c\r\n\r\n", b"abc", 0),
        (
            b"3 ;\ta = \"b;\\\"\\\\ c\" ;d=e;f\r\nabc\r\n0\r\n\r\n",
            b"abc",
            0,
        ),
        (b"3;a=\"\"\r\nabc\r\n0\r\n\r\n", b"abc", 0),
        (
            b"3\r\nabc\r\n0\r\nA: b\r\nContent-Length-X:\r\nX: \xff\t \r\n\r\nz",
            b"abc",
            1,
        ),
        (
            b"0\r\nX-Transfer-Encoding-Of-A-Long-Name: b\r\n\r\n",
            b"",
            0,
        ),
    ];
    for (input, payload, rest) in table {
        let end = input.len() - rest;
        let expected = Meaning::Body(payload.to_vec(), end);
        assert_eq!(reference(input), expected);
        check(input, &expected);
        for at in 0..end {
            check(&input[..at], &Meaning::Unfinished);
        }
    }
}

const BROKEN: &[(&[u8], BadChunk)] = &[
    (b"\r\n", BadChunk::Size),
    (b"\n", BadChunk::Size),
    (b" 3\r\nabc\r\n", BadChunk::Size),
    (b"-3\r\nabc\r\n", BadChunk::Size),
    (b"+3\r\nabc\r\n", BadChunk::Size),
    (b"0x3\r\nabc\r\n", BadChunk::Size),
    (b"3_0\r\nabc\r\n", BadChunk::Size),
    (b"g\r\n", BadChunk::Size),
    (b";a\r\nabc\r\n", BadChunk::Size),
    (b"00000000000000003\r\nabc\r\n", BadChunk::Size),
    (b"10000000000000000\r\nabc\r\n", BadChunk::Size),
    (b"3\nabc\r\n", BadChunk::LineEnd),
    (b"3\rabc\r\n", BadChunk::LineEnd),
    (b"3\r\r\nabc\r\n", BadChunk::LineEnd),
    (b"0\r\n\n", BadChunk::LineEnd),
    (b"0\r\n\ra", BadChunk::LineEnd),
    (b"3;a\nabc\r\n", BadChunk::LineEnd),
    (b"3;a=\"\nx\"\r\nabc\r\n", BadChunk::LineEnd),
    (b"0\r\nA: b\n\r\n", BadChunk::LineEnd),
    (b"0\r\nA: b\rc\r\n\r\n", BadChunk::LineEnd),
    (b"0\r\nA\n", BadChunk::LineEnd),
    (b"3\r\nabcd\r\n", BadChunk::PayloadEnd),
    (b"3\r\nabc\n0\r\n\r\n", BadChunk::PayloadEnd),
    (b"3\r\nabc\r0\r\n\r\n", BadChunk::PayloadEnd),
    (b"3\r\nabc0\r\n\r\n", BadChunk::PayloadEnd),
    (b"3 \r\nabc\r\n", BadChunk::Extension),
    (b"3\t\r\nabc\r\n", BadChunk::Extension),
    (b"3;\r\nabc\r\n", BadChunk::Extension),
    (b"3;;a\r\nabc\r\n", BadChunk::Extension),
    (b"3;a \r\nabc\r\n", BadChunk::Extension),
    (b"3;a=\r\nabc\r\n", BadChunk::Extension),
    (b"3;a=b \r\nabc\r\n", BadChunk::Extension),
    (b"3;a b\r\nabc\r\n", BadChunk::Extension),
    (b"3;=b\r\nabc\r\n", BadChunk::Extension),
    (b"3;a=\"b\r\nabc\r\n", BadChunk::Extension),
    (b"3;a=\"b\"c\r\nabc\r\n", BadChunk::Extension),
    (b"3;a=\"\\\r\n\"\r\nabc\r\n", BadChunk::Extension),
    (b"3;a=b\rc\r\nabc\r\n", BadChunk::LineEnd),
    (b"3;a=\0\r\nabc\r\n", BadChunk::Extension),
    (b"3 a\r\nabc\r\n", BadChunk::Extension),
    (b"0\r\n A: b\r\n\r\n", BadChunk::Trailer),
    (b"0\r\nA: b\r\n c\r\n\r\n", BadChunk::Trailer),
    (b"0\r\nA : b\r\n\r\n", BadChunk::Trailer),
    (b"0\r\n: b\r\n\r\n", BadChunk::Trailer),
    (b"0\r\nA\r\n\r\n", BadChunk::Trailer),
    (b"0\r\nA: \0\r\n\r\n", BadChunk::Trailer),
    (
        b"0\r\ncontent-LENGTH: 5\r\n\r\n",
        BadChunk::ForbiddenTrailer,
    ),
    (
        b"0\r\nA: b\r\nTransfer-Encoding: x\r\n\r\n",
        BadChunk::ForbiddenTrailer,
    ),
    (b"0\r\nHost:h\r\n\r\n", BadChunk::ForbiddenTrailer),
];

#[test]
fn broken_bodies() {
    for (input, error) in BROKEN {
        let shown = String::from_utf8_lossy(input);
        let mut decoder = Decoder::new();
        let mut at = 0;
        let found = loop {
            match decoder.next(input, at) {
                Ok(Piece::Data { end, .. }) => at = end,
                Ok(Piece::Skip { to }) => at = to,
                Ok(other) => panic!("{shown:?}: {other:?}"),
                Err(found) => break found,
            }
        };
        assert_eq!(found, *error, "{shown:?}");
        // The reference waits for a whole line where the decoder has seen enough.
        assert!(!matches!(reference(input), Meaning::Body(..)), "{shown:?}");
        check(input, &Meaning::Broken);
    }
}

#[test]
fn bounds() {
    let run = |input: &str| decoded(&[input.as_bytes()]);
    let line = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(length - 2));
    assert!(matches!(
        run(&line(CHUNK_LINE_BYTES_MAX)),
        Meaning::Body(..)
    ));
    assert_eq!(run(&line(CHUNK_LINE_BYTES_MAX + 1)), Meaning::Broken);

    // The CR of an extended line is counted with its extension.
    let extended = format!("1;{}\r\na\r\n", "e".repeat(510));
    let times = CHUNK_EXTENSION_BYTES_MAX / 512;
    assert!(matches!(
        run(&(extended.repeat(times) + "0\r\n\r\n")),
        Meaning::Body(..)
    ));
    assert_eq!(
        run(&(extended.repeat(times) + "0;a\r\n\r\n")),
        Meaning::Broken
    );

    let trailer = |length: usize| format!("0\r\nA:{}\r\n\r\n", "b".repeat(length - 5));
    assert!(matches!(
        run(&trailer(TRAILER_BYTES_MAX)),
        Meaning::Body(..)
    ));
    assert_eq!(run(&trailer(TRAILER_BYTES_MAX + 2)), Meaning::Broken);
}

#[test]
fn usual_inputs_pass_in_one_call() {
    let mut decoder = Decoder::new();
    let whole = Pass {
        verbatim: true,
        ..Pass::default()
    };
    let inputs: [(&[u8], Pass); 6] = [
        (
            b"3\r\nabc\r\n",
            Pass {
                consumed: 8,
                payload: 3,
                to: 8,
                ..whole
            },
        ),
        (
            b"1\r\na\r\nf\r\nab",
            Pass {
                consumed: 11,
                payload: 3,
                to: 11,
                ..whole
            },
        ),
        (
            b"0123456789",
            Pass {
                consumed: 10,
                payload: 10,
                to: 10,
                ..whole
            },
        ),
        (
            b"abc\r",
            Pass {
                consumed: 4,
                payload: 3,
                to: 4,
                ..whole
            },
        ),
        (
            b"\n2\r\nab\r\n0",
            Pass {
                consumed: 9,
                payload: 2,
                to: 8,
                ..whole
            },
        ),
        (
            b"\r\n\r\nX",
            Pass {
                consumed: 4,
                from: 4,
                to: 4,
                done: true,
                ..whole
            },
        ),
    ];
    for (input, expected) in inputs {
        assert_eq!(decoder.pass(input), Ok(expected), "{input:?}");
    }
    let last = Pass {
        consumed: 13,
        payload: 3,
        to: 8,
        done: true,
        ..whole
    };
    assert_eq!(Decoder::new().pass(b"3\r\nabc\r\n0\r\n\r\n"), Ok(last));
}

#[test]
fn what_is_good_before_a_fault_passes() {
    let mut decoder = Decoder::new();
    let input = b"3\r\nabc\r\n2\r\nde!";
    let good = Pass {
        consumed: 13,
        payload: 5,
        to: 13,
        verbatim: true,
        ..Pass::default()
    };
    assert_eq!(decoder.pass(input), Ok(good));
    assert_eq!(decoder.pass(&input[13..]), Err(BadChunk::PayloadEnd));
    let good = Pass {
        consumed: 8,
        payload: 3,
        to: 8,
        verbatim: true,
        ..Pass::default()
    };
    assert_eq!(Decoder::new().pass(b"3\r\nabc\r\nx\r\n"), Ok(good));
}

#[test]
fn sizes_are_written_without_leading_zeros() {
    for size in [1, 9, 10, 15, 16, 255, 256, 4096, 0xfffff, usize::MAX] {
        let mut out = b"x".to_vec();
        encode_size(NonZeroUsize::new(size).unwrap(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("x{size:x}\r\n"));
    }
}

/// Bodies, mostly sound, in many spellings.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        6 => Just(""), 1 => Just(";a"), 1 => Just(" ; a=b"), 1 => Just(";a=\"b\\\"c\";d"),
        1 => Just(";"), 1 => Just(" "),
    ];
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..40),
        0usize..3,
        any::<bool>(),
        extension,
    )
        .prop_map(|(payload, zeros, upper, extension)| {
            let size = if upper {
                format!("{:X}", payload.len())
            } else {
                format!("{:x}", payload.len())
            };
            let line = format!("{}{size}{extension}\r\n", "0".repeat(zeros / 2));
            [line.as_bytes(), &payload, b"\r\n"].concat()
        });
    let end = prop_oneof![
        4 => Just("0\r\n\r\n"), 1 => Just("00;a=b\r\n\r\n"), 1 => Just("0\r\nA: b\r\nCd:\r\n\r\n"),
        1 => Just("0\r\nHost: b\r\n\r\n"), 1 => Just(""),
    ];
    (
        proptest::collection::vec(chunk, 0..6),
        end,
        proptest::collection::vec(any::<u8>(), 0..4),
    )
        .prop_map(|(chunks, end, rest)| [&chunks.concat()[..], end.as_bytes(), &rest].concat())
}

fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &input[pair[0]..pair[1]])
        .collect()
}

/// Whether what the decoder found fits the reference, which sees a fault only with its whole line.
fn agree(found: &Meaning, expected: &Meaning) -> bool {
    found == expected || (*found == Meaning::Broken && *expected == Meaning::Unfinished)
}

proptest! {
    #[test]
    fn the_decoder_agrees_with_the_reference(
        mut input in bodies(),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
    ) {
        for (at, byte) in changes {
            let length = input.len().max(1);
            if let Some(place) = input.get_mut(at % length) {
                *place = byte;
            }
        }
        let expected = reference(&input);
        let pieces = pieces(&input, &cuts);
        let found = decoded(&pieces);
        prop_assert!(agree(&found, &expected), "{found:?} {expected:?}");
        let (meaning, sent) = passed(&pieces);
        prop_assert_eq!(&meaning, &found);
        if let Meaning::Body(..) = meaning {
            // What was sent is plain: it passes as it is.
            let again = Decoder::new().pass(&sent);
            prop_assert!(again.is_ok_and(|pass| pass.verbatim && pass.done && pass.consumed == sent.len()));
        }
    }

    #[test]
    fn noise_is_no_body_by_chance(input in "[0-3;a= \"\\\\\r\n:]{0,24}", cuts in proptest::collection::vec(any::<usize>(), 0..4)) {
        let pieces = pieces(input.as_bytes(), &cuts);
        let expected = reference(input.as_bytes());
        prop_assert!(agree(&decoded(&pieces), &expected));
        prop_assert!(agree(&passed(&pieces).0, &expected));
    }
}
