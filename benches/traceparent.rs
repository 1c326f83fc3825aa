//! `traceparent` and `tracestate`: read, refused and written, beside what one would write with the standard library.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use rvh_trace::propagation::tracecontext::{
    format_traceparent, parse_traceparent, parse_tracestate,
};
use rvh_trace::propagation::{Propagators, extract_headers};

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,tenant@vendor=opaque value 1234567890";

/// What the standard library offers. Takes upper case and signs, which are not allowed.
fn split_and_parse(header: &[u8]) -> Option<(u8, u128, u64, u8)> {
    let mut fields = std::str::from_utf8(header).ok()?.split('-');
    Some((
        u8::from_str_radix(fields.next()?, 16).ok()?,
        u128::from_str_radix(fields.next()?, 16).ok()?,
        u64::from_str_radix(fields.next()?, 16).ok()?,
        u8::from_str_radix(fields.next()?, 16).ok()?,
    ))
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("traceparent/parse");
    let invalid_at_the_end = HEADER.replace("b7-01", "B7-01");
    for (name, header) in [
        ("valid", HEADER),
        ("invalid at the end", &invalid_at_the_end),
        ("invalid length", &HEADER[1..]),
        ("empty", ""),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_traceparent(black_box(header.as_bytes())));
        });
    }
    group.bench_function("baseline: split and parse", |bencher| {
        bencher.iter(|| split_and_parse(black_box(HEADER.as_bytes())));
    });
}

fn format(criterion: &mut Criterion) {
    let context = parse_traceparent(HEADER.as_bytes()).unwrap_or_default();
    let mut group = criterion.benchmark_group("traceparent/format");
    group.bench_function("ours", |bencher| {
        bencher.iter(|| format_traceparent(black_box(&context)));
    });
    group.bench_function("baseline: format!", |bencher| {
        bencher.iter(|| {
            let context = black_box(&context);
            format!(
                "00-{}-{}-{:02x}",
                context.trace_id,
                context.span_id,
                context.flags.to_byte()
            )
        });
    });
}

fn tracestate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tracestate/parse");
    for (name, header) in [("three members", STATE), ("invalid", "a=1,B=2")] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse_tracestate(std::iter::once(black_box(header.as_bytes()))));
        });
    }
    group.bench_function("baseline: split and copy", |bencher| {
        bencher.iter(|| {
            let member = |member: &str| {
                member
                    .split_once('=')
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
            };
            black_box(STATE)
                .split(',')
                .map(member)
                .collect::<Option<Vec<_>>>()
        });
    });
}

fn headers(criterion: &mut Criterion) {
    let propagators = Propagators::default();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("shop.example"));
    let mut group = criterion.benchmark_group("headers/extract");
    group.bench_function("without a context", |bencher| {
        bencher.iter(|| extract_headers(&propagators, black_box(&headers)));
    });
    headers.insert("traceparent", HeaderValue::from_static(HEADER));
    group.bench_function("traceparent", |bencher| {
        bencher.iter(|| extract_headers(&propagators, black_box(&headers)));
    });
    headers.insert("tracestate", HeaderValue::from_static(STATE));
    group.bench_function("traceparent and tracestate", |bencher| {
        bencher.iter(|| extract_headers(&propagators, black_box(&headers)));
    });
    group.bench_function("baseline: one look-up", |bencher| {
        bencher.iter(|| {
            black_box(&headers)
                .get("traceparent")
                .map(HeaderValue::as_bytes)
        });
    });
}

criterion_group!(benches, parse, format, tracestate, headers);
criterion_main!(benches);
