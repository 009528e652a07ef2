//! Any body in any coding, in any pieces: no panic, every step bounded by its room, and the same
//! result however the body is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::encoding::Coding;

/// Bytes after which decoding stops.
const DECODED_BYTES_MAX: usize = 1 << 20;

fn decode(coding: Coding, encoded: &[u8], cuts: &[u16], room: usize) -> Option<Vec<u8>> {
    let mut decoder = coding.decoder()?;
    let (mut decoded, mut out) = (Vec::new(), vec![0; room]);
    let (mut at, mut end) = (0, 0);
    for cut in cuts.iter().map(|cut| usize::from(*cut)).chain([encoded.len()]) {
        end = encoded.len().min(end + cut);
        loop {
            let step = decoder.decode(&encoded[at..end], &mut out).ok()?;
            assert!(step.written <= room && step.read <= end - at);
            at += step.read;
            decoded.extend_from_slice(&out[..step.written]);
            if decoded.len() > DECODED_BYTES_MAX {
                return None;
            }
            if step.read == 0 && step.written == 0 {
                break;
            }
        }
    }
    (at == encoded.len() && decoder.is_complete()).then_some(decoded)
}

fuzz_target!(|input: (u8, u16, Vec<u16>, &[u8])| {
    let (coding, room, cuts, encoded) = input;
    let coding = Coding::ALL[usize::from(coding % 4)];
    let whole = decode(coding, encoded, &[], 64 << 10);
    let cut = decode(coding, encoded, &cuts, usize::from(room) + 1);
    assert_eq!(whole, cut);
});
