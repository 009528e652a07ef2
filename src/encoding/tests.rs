use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, GzBuilder};
use olla_engine::decoding::{BodyDecoder, Undecodable};
use proptest::prelude::*;

use super::{Coding, Encoded};

/// A body of a chat; [`BROTLI`] is the same, encoded.
fn body() -> Vec<u8> {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(40);
    format!(r#"{{"model":"qwen-b","messages":[{{"role":"user","content":"{text}"}}]}}"#)
        .into_bytes()
}

const BROTLI: &str = "G0MHAIzUYs0Z7mRuo1THdW3JJgblDeIQwzdWLDqQiwPmXxfQIB8GBBFjUCdrH5K5cUVkAXci1inTJIDlohfY0qCBpDmKdv1TUd3TVL7kP5u2eyod8T/K3CwBgQYF";

fn brotli() -> Vec<u8> {
    BASE64_STANDARD.decode(BROTLI).expect("base64")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

/// With every optional part of a head.
fn full_gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new()
        .filename("chat.json")
        .comment("a chat")
        .extra(*b"xy\x01\x00z")
        .write(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory");
    let mut encoded = encoder.finish().expect("memory");
    encoded[3] |= 1 << 1;
    let head = 10 + 2 + 5 + "chat.json".len() + 1 + "a chat".len() + 1;
    encoded.splice(head..head, [0, 0]);
    encoded
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn raw(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(body: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
    zstd_safe::compress(&mut encoded, body, 3).expect("memory");
    encoded
}

/// Decodes pieces that end at these positions, into this much room at a time.
fn decode(
    coding: Coding,
    encoded: &[u8],
    cuts: &[usize],
    room: usize,
) -> Result<Vec<u8>, Undecodable> {
    let mut decoder = coding.decoder().expect("memory");
    let (mut decoded, mut room) = (Vec::new(), vec![0; room]);
    let mut at = 0;
    for end in cuts.iter().copied().chain([encoded.len()]) {
        at = feed(&mut *decoder, &encoded[..end], at, &mut room, &mut decoded)?;
    }
    if at < encoded.len() {
        return Err(Undecodable::Invalid);
    }
    if decoder.is_complete() {
        Ok(decoded)
    } else {
        Err(Undecodable::Early)
    }
}

/// Feeds until the decoder does nothing more; returns how much it has read.
fn feed(
    decoder: &mut dyn BodyDecoder,
    encoded: &[u8],
    mut at: usize,
    room: &mut [u8],
    decoded: &mut Vec<u8>,
) -> Result<usize, Undecodable> {
    loop {
        let step = decoder.decode(&encoded[at..], room)?;
        at += step.read;
        decoded.extend_from_slice(&room[..step.written]);
        if step.read == 0 && step.written == 0 {
            return Ok(at);
        }
    }
}

/// Every kind of encoded body, and what it decodes to.
fn valid() -> Vec<(&'static str, Coding, Vec<u8>, Vec<u8>)> {
    let body = body();
    let twice = [&body[..], &body[..]].concat();
    let empty = Vec::new();
    vec![
        ("gzip", Coding::Gzip, gzip(&body), body.clone()),
        ("full head", Coding::Gzip, full_gzip(&body), body.clone()),
        ("empty", Coding::Gzip, gzip(b""), empty.clone()),
        (
            "members",
            Coding::Gzip,
            [gzip(&body), gzip(b""), full_gzip(&body)].concat(),
            twice.clone(),
        ),
        ("zlib", Coding::Deflate, zlib(&body), body.clone()),
        ("raw", Coding::Deflate, raw(&body), body.clone()),
        ("empty zlib", Coding::Deflate, zlib(b""), empty.clone()),
        ("empty raw", Coding::Deflate, raw(b""), empty.clone()),
        ("brotli", Coding::Brotli, brotli(), body.clone()),
        ("empty brotli", Coding::Brotli, vec![0x3b], empty.clone()),
        ("zstd", Coding::Zstd, zstd(&body), body.clone()),
        ("empty zstd", Coding::Zstd, zstd(b""), empty),
        (
            "frames",
            Coding::Zstd,
            [zstd(&body), skippable(), zstd(b""), zstd(&body)].concat(),
            twice,
        ),
    ]
}

fn skippable() -> Vec<u8> {
    [
        &0x184D_2A53_u32.to_le_bytes()[..],
        &3_u32.to_le_bytes(),
        b"abc",
    ]
    .concat()
}

#[test]
fn bodies_are_decoded_however_they_are_cut() {
    for (what, coding, encoded, body) in valid() {
        for cut in 0..=encoded.len() {
            let decoded = decode(coding, &encoded, &[cut], 4096);
            assert_eq!(decoded.as_deref(), Ok(&body[..]), "{what} cut at {cut}");
        }
        let every: Vec<_> = (0..encoded.len()).collect();
        for room in [1, 7, 65_536] {
            let decoded = decode(coding, &encoded, &every, room);
            assert_eq!(decoded.as_deref(), Ok(&body[..]), "{what}, room {room}");
        }
    }
}

#[test]
fn bodies_that_end_early_are_not_complete() {
    for (what, coding, encoded, _) in valid() {
        for end in 0..encoded.len() {
            let decoded = decode(coding, &encoded[..end], &[end / 2], 4096);
            if what == "members" || what == "frames" {
                // Between two of them the body may end.
                continue;
            }
            assert_eq!(decoded, Err(Undecodable::Early), "{what} up to {end}");
        }
    }
}

#[test]
fn other_bytes_behind_a_body_are_refused() {
    for (what, coding, encoded, _) in valid() {
        for tail in [&b"\0"[..], b"x", b"\0\0\0\0\0\0\0\0"] {
            let more = [&encoded[..], tail].concat();
            for cut in [0, encoded.len()] {
                let decoded = decode(coding, &more, &[cut], 4096);
                assert!(decoded.is_err(), "{what} and {tail:?}: {decoded:?}");
            }
        }
    }
}

#[test]
fn what_is_no_encoding_is_refused() {
    let body = body();
    for coding in Coding::ALL {
        assert!(decode(coding, &body, &[], 4096).is_err(), "{coding:?}");
        assert_eq!(decode(coding, b"", &[], 4096), Err(Undecodable::Early));
    }
    // Checksums are compared.
    for (coding, mut encoded, from_end) in [
        (Coding::Gzip, gzip(&body), 8),
        (Coding::Gzip, gzip(&body), 1),
        (Coding::Deflate, zlib(&body), 1),
    ] {
        let at = encoded.len() - from_end;
        encoded[at] ^= 1;
        assert_eq!(
            decode(coding, &encoded, &[], 4096),
            Err(Undecodable::Invalid)
        );
    }
    let mut reserved = gzip(&body);
    reserved[3] = 0x80;
    let decoded = decode(Coding::Gzip, &reserved, &[], 4096);
    assert_eq!(decoded, Err(Undecodable::Invalid));
    // A frame of zstd with a window of 16 MiB.
    let large = [0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3, 1, 0, 0];
    let decoded = decode(Coding::Zstd, &large, &[], 4096);
    assert_eq!(decoded, Err(Undecodable::Invalid));
    let small = [0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3, 1, 0, 0];
    assert_eq!(decode(Coding::Zstd, &small, &[], 4096), Ok(Vec::new()));
}

#[test]
fn codings_are_read_from_their_header() {
    let by = Encoded::By;
    let table: [(&[&[u8]], Encoded); 14] = [
        (&[], Encoded::Not),
        (&[b""], Encoded::Not),
        (&[b" , "], Encoded::Not),
        (&[b"Identity"], Encoded::Not),
        (&[b"gzip"], by(Coding::Gzip)),
        (&[b"X-GZip"], by(Coding::Gzip)),
        (&[b" deflate "], by(Coding::Deflate)),
        (&[b"br"], by(Coding::Brotli)),
        (&[b"zstd, identity"], by(Coding::Zstd)),
        (&[b"gzip, gzip"], Encoded::Otherwise),
        (&[b"gzip", b"br"], Encoded::Otherwise),
        (&[b"lzma"], Encoded::Otherwise),
        (&[b"gzip, lzma"], Encoded::Otherwise),
        (&[b"gzipx"], Encoded::Otherwise),
    ];
    for (lines, expected) in table {
        assert_eq!(Encoded::of(lines.iter().copied()), expected, "{lines:?}");
    }
}

proptest! {
    #[test]
    fn whatever_was_encoded_comes_back(
        body in prop::collection::vec(any::<u8>(), 0..5_000),
        cuts in prop::collection::vec(0_usize..6_000, 0..8),
        room in 1_usize..5_000,
    ) {
        for (coding, encoded) in [
            (Coding::Gzip, gzip(&body)),
            (Coding::Deflate, zlib(&body)),
            (Coding::Deflate, raw(&body)),
            (Coding::Zstd, zstd(&body)),
        ] {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&encoded.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(decode(coding, &encoded, &cuts, room), Ok(body.clone()));
        }
    }

    #[test]
    fn whatever_arrives_does_the_same_in_any_pieces(
        body in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((0_usize..400, any::<u8>()), 0..4),
        cut in 0_usize..400,
        coding in 0_usize..4,
    ) {
        let coding = Coding::ALL[coding];
        let mut encoded = match coding {
            Coding::Gzip => gzip(&body),
            Coding::Deflate => zlib(&body),
            Coding::Brotli => brotli(),
            Coding::Zstd => zstd(&body),
        };
        for (at, bits) in flips {
            let at = at % encoded.len();
            encoded[at] ^= bits;
        }
        let whole = decode(coding, &encoded, &[], 4096);
        let cut = decode(coding, &encoded, &[cut.min(encoded.len())], 4096);
        prop_assert_eq!(whole.ok(), cut.ok());
    }
}
