//! Propagation through the carriers of the OpenTelemetry Rust crates, `http::HeaderMap` above all.
//!
//! [`FromExtractor`] and [`IntoInjector`] make a [`Carrier`] and a [`CarrierMut`] of any `Extractor` and `Injector`, so
//! message queues and RPC frameworks with OpenTelemetry support need nothing else.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};

use super::{Carrier, CarrierMut, Propagators};
use crate::context::Context;

/// Reads from an OpenTelemetry extractor.
pub struct FromExtractor<'a>(pub &'a dyn Extractor);

impl Carrier for FromExtractor<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name).unwrap_or_default() {
            each(value.as_bytes());
        }
    }

    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        for name in self.0.keys() {
            let Some((start, rest)) = name.as_bytes().split_at_checked(prefix.len()) else {
                continue;
            };
            if start.eq_ignore_ascii_case(prefix.as_bytes()) {
                for value in self.0.get_all(name).unwrap_or_default() {
                    each(rest, value.as_bytes());
                }
            }
        }
    }
}

/// Writes to an OpenTelemetry injector.
pub struct IntoInjector<'a>(pub &'a mut dyn Injector);

impl CarrierMut for IntoInjector<'_> {
    fn set(&mut self, name: &'static str, value: &str) {
        self.0.set(name, value.to_owned());
    }

    fn set_named(&mut self, name: &str, value: &str) {
        self.0.set(name, value.to_owned());
    }
}

/// Reads the context of an incoming request. Values that are not visible ASCII are absent: `HeaderExtractor` hides them.
pub fn extract_headers(propagators: &Propagators, headers: &HeaderMap) -> Context {
    propagators.extract(&FromExtractor(&HeaderExtractor(headers)))
}

/// Writes `context` into the headers of an outgoing request, over what they said before.
pub fn inject_headers(propagators: &Propagators, context: &Context, headers: &mut HeaderMap) {
    propagators.inject(context, &mut IntoInjector(&mut HeaderInjector(headers)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::collections::HashMap;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_map_round_trips() {
        let mut incoming = HeaderMap::new();
        incoming.append("TraceParent", HeaderValue::from_static(PARENT));
        incoming.append("tracestate", HeaderValue::from_static("a=1"));
        incoming.append("tracestate", HeaderValue::from_static("b=2"));
        incoming.append("baggage", HeaderValue::from_static("k=%C3%A9"));
        let context = extract_headers(&Propagators::default(), &incoming);
        assert_eq!(context.baggage.get("k"), Some("é"));

        let mut outgoing = HeaderMap::new();
        outgoing.insert(
            "traceparent",
            HeaderValue::from_static("what was there before"),
        );
        inject_headers(&Propagators::default(), &context, &mut outgoing);
        assert_eq!(outgoing["traceparent"], PARENT);
        assert_eq!(outgoing["tracestate"], "a=1,b=2");
        assert_eq!(outgoing["baggage"], "k=%C3%A9");
        assert_eq!(outgoing.len(), 3);
    }

    #[test]
    fn bytes_that_are_not_ascii_are_no_context_and_no_panic() {
        let mut incoming = HeaderMap::new();
        for name in ["traceparent", "tracestate", "baggage"] {
            let value = HeaderValue::from_bytes(b"k=\xff\xfe");
            incoming.extend(value.map(|value| (http::HeaderName::from_static(name), value)));
        }
        assert_eq!(incoming.len(), 3);
        assert_eq!(
            extract_headers(&Propagators::default(), &incoming),
            Context::default()
        );
    }

    #[test]
    fn a_second_traceparent_in_a_header_map_starts_a_new_trace() {
        let mut incoming = HeaderMap::new();
        incoming.append("traceparent", HeaderValue::from_static(PARENT));
        assert!(
            extract_headers(&Propagators::default(), &incoming)
                .span
                .is_valid()
        );
        incoming.append("traceparent", HeaderValue::from_static(PARENT));
        assert!(
            !extract_headers(&Propagators::default(), &incoming)
                .span
                .is_valid()
        );
    }

    #[test]
    fn headers_whose_names_nobody_knows_beforehand_are_found_in_any_case() {
        let jaeger: Propagators = [crate::propagation::Propagator::Jaeger]
            .into_iter()
            .collect();
        let mut incoming = HeaderMap::new();
        incoming.append("Uberctx-Tenant", HeaderValue::from_static("a%20b"));
        incoming.append("uberctx-", HeaderValue::from_static("no name"));
        let message = HashMap::from([("Uber", "short"), ("uberctx-tenant", "a%20b")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<HashMap<_, _>>();
        for context in [
            extract_headers(&jaeger, &incoming),
            jaeger.extract(&FromExtractor(&message)),
        ] {
            assert_eq!(
                (context.baggage.len(), context.baggage.get("tenant")),
                (1, Some("a b"))
            );
            let mut outgoing = HeaderMap::new();
            inject_headers(&jaeger, &context, &mut outgoing);
            assert_eq!(outgoing["uberctx-tenant"], "a%20b");
        }
    }

    #[test]
    fn any_opentelemetry_carrier_serves() {
        let mut message = HashMap::from([("traceparent".to_owned(), PARENT.to_owned())]);
        let context = Propagators::default().extract(&FromExtractor(&message));
        assert!(context.span.is_valid());
        message.clear();
        Propagators::default().inject(&context, &mut IntoInjector(&mut message));
        assert_eq!(message["traceparent"], PARENT);
    }
}
