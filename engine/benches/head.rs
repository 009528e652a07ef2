//! The cost of indexing a head and of deciding its framing.
//!
//! `httparse` is the token parser alone, which this codec uses inside. `baseline/` measures another
//! crate's codec on the same inputs.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use olla_engine::bench::{NoNames, Scan, framing};
use olla_engine::h1::{FieldId, FieldNames, RequestHead, ResponseHead};

use crate::inputs::{REQUEST, RESPONSE};

mod inputs;

const HEAD_BYTES_MAX: usize = 1 << 20;

/// As many further names as a gateway has.
enum Own {}

impl FieldNames for Own {
    const NAMES: &'static [(&'static str, FieldId)] = &[
        ("x-model", FieldId::own(0)),
        ("x-own-session-id", FieldId::own(1)),
        ("x-own-endpoint", FieldId::own(2)),
    ];
    const PREFIX: Option<(&'static str, FieldId)> = Some(("x-own-", FieldId::own(3)));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    requests(&mut criterion);
    responses(&mut criterion);
    criterion.final_summary();
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head/request");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group.bench_function("index", |b| {
        let (mut head, mut scan) = (RequestHead::new(), Scan::default());
        b.iter(|| {
            scan.reset();
            assert_eq!(
                head.parse::<NoNames>(black_box(REQUEST), &mut scan, HEAD_BYTES_MAX),
                Ok(true)
            );
        });
    });
    group.bench_function("index_own_names", |b| {
        let (mut head, mut scan) = (RequestHead::new(), Scan::default());
        b.iter(|| {
            scan.reset();
            let parsed = head.parse::<Own>(black_box(REQUEST), &mut scan, HEAD_BYTES_MAX);
            assert_eq!(parsed, Ok(true));
        });
    });
    group.bench_function("framing", |b| {
        let mut head = RequestHead::new();
        assert_eq!(
            head.parse::<NoNames>(REQUEST, &mut Scan::default(), HEAD_BYTES_MAX),
            Ok(true)
        );
        b.iter(|| framing::request(black_box(&head), black_box(REQUEST)).unwrap());
    });
    group.bench_function("httparse", |b| {
        b.iter(|| {
            let mut fields = [httparse::EMPTY_HEADER; 48];
            let mut request = httparse::Request::new(&mut fields);
            request.parse(black_box(REQUEST)).unwrap().unwrap()
        });
    });
    group.finish();
}

fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head/response");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group.bench_function("index", |b| {
        let (mut head, mut scan) = (ResponseHead::new(), Scan::default());
        b.iter(|| {
            scan.reset();
            assert_eq!(
                head.parse::<NoNames>(black_box(RESPONSE), &mut scan, HEAD_BYTES_MAX),
                Ok(true)
            );
        });
    });
    group.bench_function("framing", |b| {
        let mut head = ResponseHead::new();
        assert_eq!(
            head.parse::<NoNames>(RESPONSE, &mut Scan::default(), HEAD_BYTES_MAX),
            Ok(true)
        );
        b.iter(|| framing::response(black_box(&head), black_box(RESPONSE), false).unwrap());
    });
    group.finish();
}
