//! The formats by name, and those in use.

use super::baggage;
use super::tracecontext::{parse_traceparent, tracestate_before};
use super::{
    Carrier, CarrierMut, b3, datadog, extract_span, inject_span, jaeger, joined, tracecontext, xray,
};
use crate::context::{Context, SpanContext, TraceFlags};

/// A propagation format, named as in `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Propagator {
    /// `tracecontext`: W3C Trace Context, headers `traceparent` and `tracestate`.
    TraceContext,
    /// `baggage`: W3C Baggage, header `baggage`.
    Baggage,
    /// `b3`: B3 of Zipkin, written as one header `b3`; both forms are read.
    B3,
    /// `b3multi`: B3 of Zipkin, written as headers `x-b3-*`; both forms are read.
    B3Multi,
    /// `jaeger`: header `uber-trace-id`, and `uberctx-*` for baggage.
    Jaeger,
    /// `xray`: AWS X-Ray, header `x-amzn-trace-id`.
    XRay,
    /// `datadog`: headers `x-datadog-*`.
    Datadog,
}

impl Propagator {
    /// Every format there is.
    pub const ALL: [Self; 7] = [
        Self::TraceContext,
        Self::Baggage,
        Self::B3,
        Self::B3Multi,
        Self::Jaeger,
        Self::XRay,
        Self::Datadog,
    ];

    /// Its name in `OTEL_PROPAGATORS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::Baggage => "baggage",
            Self::B3 => "b3",
            Self::B3Multi => "b3multi",
            Self::Jaeger => "jaeger",
            Self::XRay => "xray",
            Self::Datadog => "datadog",
        }
    }

    /// The headers it sets, beside `uberctx-*` of `jaeger`.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::TraceContext => &[tracecontext::TRACEPARENT, tracecontext::TRACESTATE],
            Self::Baggage => &[baggage::BAGGAGE],
            Self::B3 => &[b3::B3],
            Self::B3Multi => &[b3::TRACE_ID, b3::SPAN_ID, b3::SAMPLED, b3::FLAGS],
            Self::Jaeger => &[jaeger::UBER_TRACE_ID],
            Self::XRay => &[xray::X_AMZN_TRACE_ID],
            Self::Datadog => &[
                datadog::TRACE_ID,
                datadog::PARENT_ID,
                datadog::SAMPLING_PRIORITY,
                datadog::ORIGIN,
                datadog::TAGS,
            ],
        }
    }

    const fn is_w3c(self) -> bool {
        matches!(self, Self::TraceContext | Self::Baggage)
    }

    /// Reads what this format brings into `context`.
    fn extract(self, carrier: &dyn Carrier, context: &mut Context) {
        let baggage = match self {
            Self::Baggage => joined(carrier, baggage::BAGGAGE)
                .map(|header| baggage::parse_baggage(std::iter::once(&*header))),
            Self::Jaeger => Some(jaeger::extract_baggage(carrier)),
            _ => None,
        };
        if let Some(baggage) = baggage {
            context.baggage = std::mem::take(&mut context.baggage).with_all(baggage);
        }
        let span = match self {
            Self::TraceContext => extract_span(carrier),
            Self::Baggage => None,
            Self::B3 | Self::B3Multi => b3::extract(carrier),
            Self::Jaeger => jaeger::extract(carrier),
            Self::XRay => xray::extract(carrier),
            Self::Datadog => datadog::extract(carrier),
        };
        if let Some(span) = span {
            let earlier = std::mem::take(&mut context.span);
            context.span = if earlier.is_valid() {
                overridden(earlier, span)
            } else {
                span
            };
        }
    }

    fn inject(self, context: &Context, carrier: &mut dyn CarrierMut) {
        let Context { span, baggage } = context;
        match self {
            Self::TraceContext => inject_span(span, carrier),
            Self::Baggage => {
                if let Some(header) = baggage::format_baggage(baggage) {
                    carrier.set(baggage::BAGGAGE, &header);
                }
            }
            Self::B3 => b3::inject_single(span, carrier),
            Self::B3Multi => b3::inject_multi(span, carrier),
            Self::Jaeger => {
                jaeger::inject(span, carrier);
                jaeger::inject_baggage(baggage, carrier);
            }
            Self::XRay => xray::inject(span, carrier),
            Self::Datadog => datadog::inject(span, carrier),
        }
    }
}

/// What is known of the caller after one more format has named it.
///
/// The last format wins. Where it names the span that an earlier one named, it adds to what that one said: a caller that writes
/// several formats says in each what the format can hold.
fn overridden(earlier: SpanContext, mut later: SpanContext) -> SpanContext {
    if !later.is_valid() {
        // A decision alone is for a trace that starts here.
        return earlier;
    }
    let halves = |context: &SpanContext| {
        let id = u128::from_be_bytes(context.trace_id.to_bytes());
        ((id >> 64) as u64, id as u64)
    };
    let ((earlier_high, earlier_low), (later_high, later_low)) = (halves(&earlier), halves(&later));
    // Some formats hold only the lower half of a trace id.
    let is_same_trace = earlier_low == later_low
        && (earlier_high == later_high || earlier_high == 0 || later_high == 0);
    if !is_same_trace || earlier.span_id != later.span_id {
        return later;
    }
    if later_high == 0 {
        later.trace_id = earlier.trace_id;
    }
    later.flags = if later.flags.contains(TraceFlags::DEFERRED) {
        earlier.flags
    } else {
        later
            .flags
            .union(earlier.flags)
            .with_sampled(later.is_sampled())
    };
    later.trace_state = match (earlier.trace_state.is_empty(), later.trace_state.is_empty()) {
        (_, true) => earlier.trace_state,
        (true, false) => later.trace_state,
        (false, false) => tracestate_before(&later.trace_state, &earlier.trace_state),
    };
    later
}

/// The formats in use, each at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Propagators {
    chosen: Vec<Propagator>,
    only_w3c: bool,
}

impl Default for Propagators {
    /// `tracecontext,baggage`, the default of `OTEL_PROPAGATORS`.
    fn default() -> Self {
        Self::from_iter([Propagator::TraceContext, Propagator::Baggage])
    }
}

impl FromIterator<Propagator> for Propagators {
    fn from_iter<I: IntoIterator<Item = Propagator>>(propagators: I) -> Self {
        let mut chosen = Vec::new();
        for propagator in propagators {
            if !chosen.contains(&propagator) {
                chosen.push(propagator);
            }
        }
        let only_w3c = chosen.iter().all(|propagator| propagator.is_w3c());
        Self { chosen, only_w3c }
    }
}

impl Propagators {
    /// Whether this format is in use.
    pub fn has(&self, propagator: Propagator) -> bool {
        self.chosen.contains(&propagator)
    }

    /// Whether they read no headers but `traceparent`, `tracestate` and `baggage`.
    #[inline]
    pub fn only_w3c(&self) -> bool {
        self.only_w3c
    }

    /// The headers that [`inject`](Self::inject) may set, beside `uberctx-*` of `jaeger`.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.chosen
            .iter()
            .flat_map(|propagator| propagator.fields())
            .copied()
    }

    /// Reads the context that `carrier` brings; what is absent or malformed is empty in the result. Where several formats name
    /// a caller, the last one in use wins (OpenTelemetry specification, "Composite Propagator").
    pub fn extract(&self, carrier: &dyn Carrier) -> Context {
        let mut context = Context::default();
        for propagator in &self.chosen {
            propagator.extract(carrier, &mut context);
        }
        context
    }

    /// [`Self::extract`] from a carrier that holds one `traceparent` and nothing else, for [`Self::only_w3c`].
    #[inline]
    pub fn extract_traceparent(&self, header: &[u8]) -> Context {
        let span = if self.has(Propagator::TraceContext) {
            parse_traceparent(header).unwrap_or_default()
        } else {
            SpanContext::INVALID
        };
        Context {
            span,
            ..Context::default()
        }
    }

    /// Writes `context` into `carrier` in every format. An invalid span context, empty trace state and empty baggage set no
    /// header.
    pub fn inject(&self, context: &Context, carrier: &mut dyn CarrierMut) {
        for propagator in &self.chosen {
            propagator.inject(context, carrier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{Lines, lines};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    fn extracted(propagators: &[Propagator], sent: &[(&str, &str)]) -> Context {
        let propagators: Propagators = propagators.iter().copied().collect();
        propagators.extract(&lines(sent))
    }

    #[test]
    fn the_last_format_that_names_a_caller_wins() {
        let sent = [
            ("traceparent", W3C),
            ("tracestate", "a=1"),
            ("b3", "1-garbage"),
            ("uber-trace-id", "3:2:0:1"),
        ];
        let order = [Propagator::TraceContext, Propagator::Jaeger, Propagator::B3];
        let context = extracted(&order, &sent).span;
        assert_eq!(context.span_id.to_string(), "0000000000000002");
        assert!(context.trace_state.is_empty(), "it was another caller's");
        let order = [Propagator::B3, Propagator::Jaeger, Propagator::TraceContext];
        let context = extracted(&order, &sent).span;
        assert_eq!(
            (
                context.span_id.to_string().as_str(),
                context.trace_state.as_str()
            ),
            (SPAN, "a=1")
        );
    }

    #[test]
    fn a_caller_that_writes_several_formats_is_one_caller() {
        let w3c = [("traceparent", W3C), ("tracestate", "a=1,dd=s:1;o:old,b=2")];
        let low = u64::from_str_radix(&TRACE[16..], 16)
            .unwrap_or_default()
            .to_string();
        let span = u64::from_str_radix(SPAN, 16)
            .unwrap_or_default()
            .to_string();
        for (propagator, more, flags, state) in [
            (
                Propagator::B3,
                &[("b3", &*format!("{TRACE}-{SPAN}-1"))][..],
                3,
                "a=1,dd=s:1;o:old,b=2",
            ),
            // What it leaves open there, and what it cannot hold there, it has said elsewhere.
            (
                Propagator::B3,
                &[("b3", &*format!("{TRACE}-{SPAN}"))],
                3,
                "a=1,dd=s:1;o:old,b=2",
            ),
            (
                Propagator::B3,
                &[("b3", &*format!("{}-{SPAN}-0", &TRACE[16..]))],
                2,
                "a=1,dd=s:1;o:old,b=2",
            ),
            (
                Propagator::Datadog,
                &[
                    ("x-datadog-trace-id", &*low),
                    ("x-datadog-parent-id", &*span),
                    ("x-datadog-sampling-priority", "2"),
                ],
                3,
                "dd=s:2,a=1,b=2",
            ),
        ] {
            let sent = [&w3c[..], more].concat();
            let span = extracted(&[Propagator::TraceContext, propagator], &sent).span;
            assert_eq!(span.trace_id.to_string(), TRACE, "{more:?}");
            assert_eq!(
                (span.flags.to_byte(), span.trace_state.as_str()),
                (flags, state),
                "{more:?}"
            );
        }
        let debug = [("b3", &*format!("{TRACE}-{SPAN}-d")), ("traceparent", W3C)];
        let span = extracted(&[Propagator::B3, Propagator::TraceContext], &debug).span;
        assert!(span.flags.contains(TraceFlags::DEBUG));
    }

    #[test]
    fn a_decision_alone_yields_to_any_caller() {
        let sent = [("traceparent", W3C), ("b3", "0")];
        for order in [
            [Propagator::TraceContext, Propagator::B3],
            [Propagator::B3, Propagator::TraceContext],
        ] {
            let span = extracted(&order, &sent).span;
            assert_eq!(
                (span.trace_id.to_string().as_str(), span.flags.to_byte()),
                (TRACE, 3)
            );
            assert!(!span.flags.contains(TraceFlags::DECISION_ALONE));
        }
    }

    #[test]
    fn baggage_of_two_formats_is_one_set() {
        let sent = [
            ("baggage", "a=1;p,b=2"),
            ("uberctx-b", "3"),
            ("uberctx-c", "4"),
        ];
        for (order, expected) in [
            ([Propagator::Baggage, Propagator::Jaeger], "a=1;p,b=3,c=4"),
            ([Propagator::Jaeger, Propagator::Baggage], "b=2,c=4,a=1;p"),
        ] {
            let baggage = extracted(&order, &sent).baggage;
            assert_eq!(baggage::format_baggage(&baggage).as_deref(), Some(expected));
        }
    }

    #[test]
    fn every_format_is_written_and_read_again_by_each() {
        let context = extracted(
            &[Propagator::TraceContext, Propagator::Baggage],
            &[("traceparent", W3C), ("baggage", "k=v")],
        );
        let mut sent = Lines::default();
        let all = Propagators::from_iter(Propagator::ALL);
        all.inject(&context, &mut sent);
        assert_eq!(all.extract(&sent), context);
        let mut names: Vec<_> = sent.0.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| *name != "uberctx-k");
        assert!(
            names
                .iter()
                .all(|name| all.fields().any(|field| field == *name)),
            "{names:?}"
        );
        for propagator in Propagator::ALL {
            let one = Propagators::from_iter([propagator]);
            let read = one.extract(&sent);
            let carries_spans = propagator != Propagator::Baggage;
            let carries_baggage = matches!(propagator, Propagator::Baggage | Propagator::Jaeger);
            assert_eq!(
                read.span.is_valid() && read.span.is_sampled(),
                carries_spans,
                "{propagator:?}"
            );
            assert_eq!(!read.baggage.is_empty(), carries_baggage, "{propagator:?}");
            if carries_spans {
                assert_eq!(
                    (read.span.trace_id, read.span.span_id),
                    (context.span.trace_id, context.span.span_id)
                );
            }
            let mut nothing = Lines::default();
            one.inject(&Context::default(), &mut nothing);
            assert_eq!(nothing.0, [], "{propagator:?}");
            assert_eq!(one.only_w3c(), propagator.is_w3c());
        }
    }
}
