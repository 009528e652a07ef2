//! The cost of decoding a chunked body: as payload (`next`), and for passing it on (`pass`).
//!
//! `baseline/` measures another crate's codec on the same inputs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use olla_engine::bench::{Decoder, Pass, Piece};

use crate::inputs::{CHUNKED, chunked};

mod inputs;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("chunk");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, chunks, payload) in CHUNKED {
        let body = chunked(chunks, payload);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}/next"), |b| {
            b.iter(|| next(black_box(&body)))
        });
        group.bench_function(format!("{name}/pass"), |b| {
            b.iter(|| pass(black_box(&body)))
        });
    }
    group.finish();
    criterion.final_summary();
}

fn next(body: &[u8]) -> usize {
    let mut decoder = Decoder::new();
    let (mut at, mut payload) = (0, 0);
    loop {
        match decoder.next(body, at).unwrap() {
            Piece::Data { start, end } => {
                payload += end - start;
                at = end;
            }
            Piece::Skip { to } => at = to,
            Piece::Done { .. } => return payload,
            Piece::More => panic!("half a body"),
        }
    }
}

fn pass(body: &[u8]) -> Pass {
    let pass = Decoder::new().pass(body).unwrap();
    assert!(pass.done && pass.verbatim);
    pass
}
