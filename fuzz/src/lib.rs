//! What is done with the bytes of a fuzzer: one function a target, each with the properties that hold for every input.
//!
//! `tests/every_input_of_the_corpus_is_harmless.rs` runs them over the corpus with the stable toolchain.

use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rvh_trace::http_server::{Forwarded, ForwardedHeaders, TrustedProxies, TrustedProxy};
use rvh_trace::pipeline::exporter::fuzzing;
use rvh_trace::pipeline::spool::frame::{self, Frames, HEADER_LEN};
use rvh_trace::pipeline::waterfall::{RenderOptions, render};
use rvh_trace::propagation::baggage::{MAX_LEN, MAX_MEMBERS, format_baggage, parse_baggage};
use rvh_trace::propagation::tracecontext::{
    TRACESTATE_MAX_LEN, format_traceparent, parse_traceparent, parse_tracestate,
};

/// Separates the values of a header that came more than once.
const NEXT_HEADER: u8 = b'\n';

fn headers(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == NEXT_HEADER)
}

/// `traceparent`: what is read is written so that it is read again.
pub fn traceparent(data: &[u8]) {
    if let Some(context) = parse_traceparent(data) {
        let written = format_traceparent(&context);
        assert_eq!(parse_traceparent(&written), Some(context));
    }
}

/// `tracestate`: bounded, and the same when it is read again.
pub fn tracestate(data: &[u8]) {
    let state = parse_tracestate(headers(data));
    let written = state.as_str();
    assert!(
        written.len() <= TRACESTATE_MAX_LEN,
        "{} bytes",
        written.len()
    );
    assert_eq!(parse_tracestate(std::iter::once(written.as_bytes())), state);
}

/// `baggage`: bounded, and the same when it is written and read again.
pub fn baggage(data: &[u8]) {
    let baggage = parse_baggage(headers(data));
    assert!(baggage.len() <= MAX_MEMBERS, "{} members", baggage.len());
    if let Some(written) = format_baggage(&baggage) {
        assert!(written.len() <= MAX_LEN, "{} bytes", written.len());
        let again = parse_baggage(std::iter::once(written.as_bytes()));
        assert!(again.iter().eq(baggage.iter()), "{written:?}");
    }
}

/// `Forwarded` and `X-Forwarded-*`, one header a line: the first byte of a line says which.
pub fn forwarded(data: &[u8]) {
    const NAMES: [&[u8]; 5] = [
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-port",
    ];
    let mut kept = ForwardedHeaders::default();
    for header in headers(data) {
        if let Some((which, value)) = header.split_first() {
            kept.keep(NAMES[usize::from(*which) % NAMES.len()], value);
        }
    }
    for trusted in ["*", "10.0.0.0/8", "::1"] {
        let proxies: TrustedProxies = trusted.parse::<TrustedProxy>().into_iter().collect();
        for peer in [Some("10.0.0.1"), Some("::1"), None] {
            let read = Forwarded::read(&kept, &proxies, peer);
            if !proxies.trusts(peer) {
                assert_eq!(read, Forwarded::default());
            }
        }
    }
}

/// What a collector answers, over HTTP and gRPC.
pub fn response(data: &[u8]) {
    for text in fuzzing::read_response(data, UNIX_EPOCH) {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

/// Spans of strangers as a waterfall: an export request, in every width.
pub fn waterfall(data: &[u8]) {
    let Ok(request) = ExportTraceServiceRequest::decode(data) else {
        return;
    };
    for (width, color) in [(0, false), (80, true), (200, false)] {
        let drawn = render(
            std::slice::from_ref(&request),
            &RenderOptions { width, color },
        );
        if !color {
            assert!(
                !drawn.contains(|c: char| c.is_control() && c != '\n'),
                "{drawn:?}"
            );
        }
    }
}

/// A spool file: its frames lie end to end from its beginning, each is what would be written for its request, and what they
/// do not cover is damage. The same bytes as a request, behind a frame: the file that is written is read back whole.
pub fn spool(data: &[u8]) {
    let mut frames = Frames::new(data);
    let mut end = 0;
    for frame in frames.by_ref() {
        assert_eq!(frame.offset, end);
        end += HEADER_LEN + frame.request.len();
        let mut written = frame::header(frame.request, frame.spans).unwrap_or_default();
        if frame.is_settled {
            written[frame::STATE_AT as usize] = frame::SETTLED;
        }
        assert_eq!(
            [&written[..], frame.request].concat(),
            data[frame.offset..end]
        );
    }
    assert_eq!(frames.is_damaged(), end < data.len());
    assert!(frames.next().is_none(), "nothing comes behind damage");
    assert!(end == 0 || frame::is_ours(data));

    let spans = data.len() as u32;
    let Some(header) = frame::header(data, spans) else {
        return;
    };
    let file = [&data[..end], &header, data].concat();
    let last = Frames::new(&file).last();
    assert!(last.is_some_and(|last| {
        (last.request, last.spans, last.is_settled) == (data, spans, false)
    }));
}
