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
use rvh_trace::propagation::{Carrier, CarrierMut, Propagator, Propagators};

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

/// Every format at once, one header a line: the first byte of a line says which. What is read is written so that it is read
/// again.
pub fn propagators(data: &[u8]) {
    let all = Propagators::from_iter(Propagator::ALL);
    let names: Vec<_> = all.fields().chain(["uberctx-a", "uberctx-b"]).collect();
    let came: Headers = headers(data)
        .filter_map(|header| header.split_first())
        .map(|(which, value)| {
            let name = names[usize::from(*which) % names.len()];
            (name.to_owned(), value.to_vec())
        })
        .collect();
    let all_of_them = Propagator::ALL.map(|one| Propagators::from_iter([one]));
    for propagators in all_of_them.iter().chain([&all]) {
        let context = propagators.extract(&came);
        let mut sent = Headers::default();
        propagators.inject(&context, &mut sent);
        for (name, value) in &sent.0 {
            assert!(
                value.iter().all(|byte| matches!(byte, b' '..=b'~')),
                "{name}: {value:?}"
            );
        }
        let again = propagators.extract(&sent);
        assert_eq!(again.span.trace_id, context.span.trace_id);
        assert_eq!(again.span.span_id, context.span.span_id);
        assert_eq!(again.span.is_sampled(), context.span.is_sampled());
    }
}

/// Header lines, in order.
#[derive(Default)]
struct Headers(Vec<(String, Vec<u8>)>);

impl FromIterator<(String, Vec<u8>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(lines: I) -> Self {
        Self(lines.into_iter().collect())
    }
}

impl Carrier for Headers {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for (_, value) in self.0.iter().filter(|(line, _)| line == name) {
            each(value);
        }
    }

    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (line, value) in &self.0 {
            if let Some(rest) = line.strip_prefix(prefix) {
                each(rest.as_bytes(), value);
            }
        }
    }
}

impl CarrierMut for Headers {
    fn set(&mut self, name: &'static str, value: &str) {
        self.set_named(name, value);
    }

    fn set_named(&mut self, name: &str, value: &str) {
        self.0.retain(|(line, _)| line != name);
        self.0.push((name.to_owned(), value.as_bytes().to_vec()));
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
