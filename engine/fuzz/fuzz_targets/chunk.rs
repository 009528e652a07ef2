//! Any bytes as a chunked body, in any pieces: no panic; `next` and `pass` find the same; what
//! `pass` sends decodes to the same payload and passes as it is; half a body never looks whole. An
//! obvious decoder that knows no extensions and no trailers agrees where there are none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla_engine::bench::{BadChunk, Decoder, LAST_CHUNK, Piece, encode_size};

/// The payload, and where the body ended.
type Body = Result<(Vec<u8>, Option<usize>), BadChunk>;

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, bytes) = input;
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);

    let whole = decode(&[bytes]);
    let cut = decode(&pieces);
    assert_eq!(whole, cut);

    let (passed, sent) = pass(&pieces);
    match (whole, passed) {
        (Ok((payload, end)), Ok((length, same_end))) => {
            assert_eq!((payload.len(), end), (length, same_end));
            let (again, sent_end) = decode(&[&sent]).expect("what was sent is sound");
            assert_eq!(sent_end, end.map(|_| sent.len()));
            assert!(payload.starts_with(&again));
            if end.is_some() {
                assert_eq!(again, payload);
                let pass = Decoder::new().pass(&sent).expect("what was sent is sound");
                assert!(pass.verbatim && pass.done && pass.consumed == sent.len());
            }
        }
        (whole, passed) => assert_eq!(whole.err(), passed.err()),
    }

    if let Some((payload, end)) = plain(bytes) {
        assert_eq!(decode(&[bytes]), Ok((payload, Some(end))));
    }
});

fn decode(pieces: &[&[u8]]) -> Body {
    let mut decoder = Decoder::new();
    let (mut payload, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.next(piece, at)? {
                Piece::Data { start, end } => {
                    assert!(at <= start && start < end);
                    payload.extend_from_slice(&piece[start..end]);
                    at = end;
                }
                Piece::Skip { to } => {
                    assert!(at < to);
                    at = to;
                }
                Piece::Done { at } => return Ok((payload, Some(before + at))),
                Piece::More => break,
            }
        }
        before += piece.len();
    }
    Ok((payload, None))
}

/// The payload's length and the body's end; and what was sent.
fn pass(pieces: &[&[u8]]) -> (Result<(usize, Option<usize>), BadChunk>, Vec<u8>) {
    let mut decoder = Decoder::new();
    let (mut out, mut payload, mut before) = (Vec::new(), 0, 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            let pass = match decoder.pass(rest) {
                Ok(pass) => pass,
                Err(error) => return (Err(error), out),
            };
            assert!(pass.consumed != 0);
            if let Some(size) = pass.size {
                encode_size(size, &mut out);
            }
            out.extend_from_slice(&rest[pass.from..pass.to]);
            payload += pass.payload;
            at += pass.consumed;
            if pass.done {
                out.extend_from_slice(LAST_CHUNK);
                return (Ok((payload, Some(before + at))), out);
            }
        }
        before += piece.len();
    }
    (Ok((payload, None)), out)
}

/// A whole body of plain chunks, read line by line.
fn plain(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut payload = Vec::new();
    let mut at = 0;
    loop {
        let digits = bytes
            .get(at..)?
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let text = std::str::from_utf8(bytes.get(at..at + digits)?).ok()?;
        let size = usize::from_str_radix(text, 16)
            .ok()
            .filter(|_| digits <= 16)?;
        at += digits;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        let end = (at + 2).checked_add(size)?;
        payload.extend_from_slice(bytes.get(at + 2..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
        if size == 0 {
            return Some((payload, at));
        }
    }
}
