//! The codec of monoio-http on the inputs of `engine/benches`, for comparison: its decoders driven
//! without a socket. The bytes that they need to own are copied outside the measurement; chunks are
//! yielded whole only.
//!
//! A crate of its own, outside the workspace: monoio-http brings an old TLS stack and tokio along,
//! which the project does not want in its lock file. Here: `cargo run --release -- --bench`.

use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use monoio_codec::{Decoded, Decoder as _};
use monoio_http::h1::codec::decoder::{
    ChunkedBodyDecoder, RequestHeadDecoder, ResponseHeadDecoder,
};

use crate::inputs::{CHUNKED, REQUEST, RESPONSE, chunked};

#[path = "../../inputs/mod.rs"]
mod inputs;

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    criterion.bench_function("head/request/monoio_http", |b| {
        b.iter_batched(
            || BytesMut::from(REQUEST),
            |mut bytes| RequestHeadDecoder.decode(&mut bytes).expect("a request"),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("head/response/monoio_http", |b| {
        b.iter_batched(
            || BytesMut::from(RESPONSE),
            |mut bytes| ResponseHeadDecoder.decode(&mut bytes).expect("a response"),
            BatchSize::SmallInput,
        );
    });
    let mut group = criterion.benchmark_group("chunk");
    for (name, chunks, payload) in CHUNKED {
        let body = chunked(chunks, payload);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}/monoio_http"), |b| {
            b.iter_batched(|| BytesMut::from(&body[..]), decode, BatchSize::SmallInput);
        });
    }
    group.finish();
    criterion.final_summary();
}

fn decode(mut body: BytesMut) -> usize {
    let mut decoder = ChunkedBodyDecoder::default();
    let mut payload = 0;
    while let Decoded::Some(Some(chunk)) = decoder.decode(&mut body).expect("chunks") {
        payload += chunk.len();
    }
    payload
}
